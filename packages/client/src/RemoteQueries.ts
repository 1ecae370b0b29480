/**
 * The queries of maps that aren't downloaded: asked of the server, and answered from its rows and from what this device has written.
 *
 * The server's rows are kept apart from the map. What counts of a key is the server's record or, where that is later and the server isn't
 * known to have it, this device's own: so one's own write shows at once, and a deletion hides a row at once. Over what counts the same
 * query is evaluated here. Before there is an answer all that this device has written counts.
 *
 * **When the server's word is the last.** A write that the server has acknowledged may be another's already, and not a row of the query
 * any more. But the acknowledgement may come before the rows that it is in. So it counts until the server, asked after the
 * acknowledgement (`Ping`), has told of all that came before; while rows are still to come, until those have come.
 *
 * **Versions.** Rows are taken in by whole versions: what comes of one is set aside until its last part is there. A version that doesn't come
 * after the one that is here means that something was missed: all is asked for again. Rows stay as they are while there is no
 * connection, and until all have come on the next. All of it is foreign: what is beyond the query's limit, or malformed, ends the
 * connection.
 */
import * as Cell from "@topgun/core/Cell"
import {
  MalformedMessage,
  MapKindMismatch,
  Overloaded,
  PermissionDenied,
  QueryInvalid,
  QueryTooExpensive,
  RecordTooLarge
} from "@topgun/core/GridError"
import * as LiveQueries from "@topgun/core/LiveQueries"
import type { LwwMap } from "@topgun/core/LwwMap"
import { type LwwRecord, stampBytes } from "@topgun/core/LwwRecord"
import * as Predicate from "@topgun/core/Predicate"
import * as Protocol from "@topgun/core/Protocol"
import * as Query from "@topgun/core/Query"
import type { RowChange } from "@topgun/core/QueryWindow"
import * as Value from "@topgun/core/Value"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Expiry from "./Expiry.ts"
import { type Asked, atEndOfTick } from "./LocalQueries.ts"
import type { Answer, Line } from "./QueryLine.ts"
import type { Replica } from "./Replica.ts"
import { Signal } from "./Signal.ts"
import type { SyncEngine } from "./SyncEngine.ts"

/** Why a server doesn't answer a query. */
export type Refusal = QueryInvalid | QueryTooExpensive | PermissionDenied | MapKindMismatch | Overloaded

/** How often rows may have gaps on one connection before that is replaced: a server leaves none. */
const gapsMax = 5
/** What is refused is asked again after so many ms: other things may be granted then, and nobody says so. */
const askAgainMillis = 30_000
/** Bytes of rows that one query may have here, at most: with more, what a server sends isn't believed. */
const rowsBytesMax = 256 * 1024 * 1024

/** A query that is asked of the server, beside this device's own records. */
export interface AskedOfServer extends Asked {
  /** Whether the server's rows, of the present connection, are here. */
  readonly isComplete: () => boolean
  /** Whether there are, or were, rows of the server's. */
  readonly isAnswered: () => boolean
  /** Whether the server has rows beyond its last. */
  readonly hasMore: () => boolean
  /** Why the server doesn't answer. */
  readonly refusal: () => Refusal | undefined
}

/** Hears of a query. */
export interface Events {
  readonly onDelta: (delta: LiveQueries.Delta) => void
  /** It is complete now, or isn't any more, or is refused. */
  readonly onStatus: () => void
}

interface ServerRow {
  readonly record: LwwRecord
  /** Decoded when it is first read. */
  value: unknown
  readonly score: number | undefined
}

/** A row, or the one before it where that is the same: its value is the same object then. */
const keptOf = (before: ServerRow | undefined, row: ServerRow): ServerRow =>
  before !== undefined && before.score === row.score && isSame(before.record, row.record) ? before : row

/** A version of which not all has come. */
interface Incoming {
  readonly version: number
  readonly after: number
  readonly left: Set<string>
  readonly rows: Map<string, ServerRow>
}

/** A server tells an error by its tag, and by its message in words. */
const refusalOf = (map: string, { cause, reason }: typeof Protocol.Fault.Type): Refusal => {
  const parts = (form: RegExp): ReadonlyArray<string> => form.exec(reason)?.slice(1) ?? []
  switch (cause) {
    case "PermissionDenied": {
      const [what = reason] = parts(/^You may not (.*): whoever runs the server can grant it in its policy$/s)
      return new PermissionDenied({ what })
    }
    case "QueryTooExpensive": {
      const [path = "$", why = reason] = parts(/^The query at (.*?) would cost too much: (.*)$/s)
      return new QueryTooExpensive({ path, reason: why })
    }
    case "MapKindMismatch": {
      const [expected = "another kind"] = parts(/ is of kind (\w+), /)
      return new MapKindMismatch({ map, expected, actual: "lww" })
    }
    case "Overloaded": {
      const [what = reason] = parts(/^The server is overloaded: (.*)\. Try again later$/s)
      return new Overloaded({ what })
    }
    default: {
      const [path = "$", why = reason] = parts(/^The predicate at (.*?) is not valid: (.*)$/s)
      return new QueryInvalid({ path, reason: why })
    }
  }
}

/** @throws QueryInvalid for one that is too long to be sent */
const bytesOf = (query: Query.Query): Uint8Array => {
  try {
    return Value.encode(query, Protocol.queryBytesMax)
  } catch (fault) {
    if (!(fault instanceof RecordTooLarge)) throw fault
    throw new QueryInvalid({ path: "$", reason: `it has more than ${fault.limit} bytes` })
  }
}

const isSame = (a: LwwRecord, b: LwwRecord): boolean => Value.compareBytes(a.row, b.row) === 0

const isLater = (a: LwwRecord, b: LwwRecord): boolean =>
  Value.compareBytes(a.row.subarray(0, stampBytes), b.row.subarray(0, stampBytes)) > 0

/**
 * What the server has found by words, in the order of its scores: only where all records are can a text be ranked. So what is written
 * here shows in a row that there is, and a new one comes when the server has ranked it.
 */
class RankedRows implements LiveQueries.Live {
  readonly query: Query.Query
  readonly identity: string
  readonly ties = undefined
  readonly isComplete = true
  readonly listeners = new Set<(delta: LiveQueries.Delta) => void>()
  readonly #queries: LiveQueries.LiveQueries
  readonly #scored: () => Iterable<readonly [key: string, value: unknown, score: number]>
  readonly #test: Predicate.Test
  readonly #ordering: Query.Ordering
  version = 0
  rows: ReadonlyArray<Query.Row> = []
  hasMore = false

  constructor(
    queries: LiveQueries.LiveQueries,
    query: Query.Query,
    identity: string,
    scored: () => Iterable<readonly [key: string, value: unknown, score: number]>
  ) {
    this.#queries = queries
    this.query = query
    this.identity = identity
    this.#scored = scored
    this.#test = query.where === undefined || query.hybrid === true ? () => true : Predicate.compile(query.where)
    this.#ordering = Query.orderingOf(query)
  }

  soil(): void {
    this.#queries.soil(this)
  }

  advance(): boolean {
    return true
  }

  flush(): LiveQueries.Delta | undefined {
    const { limit = Number.POSITIVE_INFINITY } = this.query
    const isRanked = Query.isRanked(this.query)
    const found: Array<Query.Row & { readonly score: number }> = []
    for (const [key, value, score] of this.#scored()) {
      if (this.#test(value) !== true) continue
      found.push({ key, value, score, sort: isRanked ? score : this.#ordering.sortOf(value) })
    }
    found.sort(this.#ordering.compare)
    const rows = found.slice(0, limit)
    const before = new Map(this.rows.map((row) => [row.key, row]))
    const changes: Array<RowChange> = []
    for (const { key, score, value } of rows) {
      const was = before.get(key)
      before.delete(key)
      if (was !== undefined && was.value === value && was.score === score) continue
      changes.push({ type: was === undefined ? "enter" : "move", key, value, score })
    }
    for (const key of before.keys()) changes.push({ type: "leave", key })
    this.rows = rows
    if (changes.length === 0 && this.version > 0) return undefined
    return { version: ++this.version, changes, hasMore: false }
  }

  close(): void {}
}

/** What questions have in common. */
interface House {
  readonly now: () => number
  readonly heed: (record: LwwRecord) => boolean
  readonly expire: (question: Question, key: string, at: number) => void
  readonly sendings: Sendings
}

/** What is said to the server. */
interface Sendings {
  readonly line: () => Line | undefined
  /** Asks for a sign that the server has told of all that came before; `settled` is called then. */
  readonly sign: (settled: () => void) => void
}

/** A query of one map, for all who ask it here. */
class Question {
  readonly identity: string
  readonly map: string
  readonly events = new Set<Events>()
  readonly live: LiveQueries.LiveQueries
  readonly #house: House
  readonly #bytes: Uint8Array
  readonly #cells: LwwMap
  readonly #rowsMax: number
  #rows = new Map<string, ServerRow>()
  #bytesHeld = 0
  /** The number that it has on the present line, while it is asked there. */
  #id: number | undefined
  /** By which the server speaks of it there. */
  number: number | undefined
  /** The server's version that is here; 0 where none of the present line is. */
  #version = 0
  #incoming: Incoming | undefined
  #gaps = 0
  #isAnswered = false
  #hasMore = false
  #refusal: Refusal | undefined
  /** Own records that are acknowledged and still count: until a sign of the server's, or its next whole answer. */
  readonly #acknowledged = new Map<string, object>()
  readonly #counted = new Set<string>()
  #ranked: RankedRows | undefined
  readonly #awaitingRows = new Set<string>()

  constructor(house: House, map: string, query: Query.Query, cells: LwwMap, identity: string) {
    this.#house = house
    this.map = map
    this.identity = identity
    this.#cells = cells
    this.#bytes = bytesOf(query)
    this.#rowsMax = query.limit ?? Query.limitMax
    this.live = new LiveQueries.LiveQueries({
      source: {
        get: (key) => this.#valueOf(key),
        parts: 1,
        visit: (_, visitor) => {
          const visit = (key: string): void => {
            const value = this.#valueOf(key)
            if (value !== undefined) visitor(key, value)
          }
          for (const key of this.#rows.keys()) visit(key)
          for (const key of cells.keys()) if (!this.#rows.has(key)) visit(key)
        },
        size: () => this.#rows.size + cells.size
      },
      onDirty: atEndOfTick(() => this.live.settle())
    })
    if (query.search !== undefined) {
      this.live.searchBy({
        set: () => this.#ranked?.soil(),
        ask: (searched, _, searchIdentity) =>
          this.#ranked = new RankedRows(this.live, searched, searchIdentity, () => this.#scored()),
        step: () => {
          throw new Error("the server says how it finds words")
        }
      })
    }
  }

  /** The server's rows that count, with their scores. */
  *#scored(): Iterable<readonly [key: string, value: unknown, score: number]> {
    for (const [key, { score }] of this.#rows) {
      const value = this.#valueOf(key)
      if (value !== undefined && score !== undefined) yield [key, value, score]
    }
  }

  get id(): number | undefined {
    return this.#id
  }

  get isAnswered(): boolean {
    return this.#isAnswered
  }

  get isComplete(): boolean {
    return this.#version > 0
  }

  get hasMore(): boolean {
    return this.#hasMore
  }

  get refusal(): Refusal | undefined {
    return this.#refusal
  }

  expiresAt(key: string): number | undefined {
    return this.#rows.get(key)?.record.expiresAt
  }

  // --- This device's records ---

  /** A key may be another than before. */
  judge(key: string): void {
    this.live.set(key, this.#valueOf(key))
  }

  /** The server has what was written here. */
  confirmed(key: string): void {
    if (!this.#counted.delete(key)) return
    // What is asked next is answered with it.
    if (this.#id === undefined) return void this.#awaitingRows.add(key)
    const acknowledgement = {}
    this.#acknowledged.set(key, acknowledgement)
    this.#house.sendings.sign(() => {
      // It was written and acknowledged again meanwhile, or the line is another.
      if (this.#acknowledged.get(key) !== acknowledgement) return
      this.#acknowledged.delete(key)
      if (this.isComplete) this.judge(key)
      else this.#awaitingRows.add(key)
    })
  }

  #valueOf(key: string): unknown {
    const own = this.#cells.getRecord(key)
    const row = this.#rows.get(key)
    if (own !== undefined && this.#counts(key) && (row === undefined || isLater(own, row.record))) {
      return this.#cells.get(key)
    }
    if (row === undefined) return undefined
    // What came back from the server is what was written, not only equal to it.
    if (own !== undefined && isSame(own, row.record)) return this.#cells.get(key)
    const { expiresAt, valueBytes } = row.record
    if (expiresAt !== 0 && expiresAt <= this.#house.now()) return undefined
    return row.value ??= Value.decodeTrusted(valueBytes)
  }

  /** Whether an own record has a say beside the server's. */
  #counts(key: string): boolean {
    const isAhead = this.#cells.getBase(key) !== undefined
    if (isAhead) this.#counted.add(key)
    return isAhead || !this.#isAnswered || this.#acknowledged.has(key) || this.#awaitingRows.has(key)
  }

  // --- The server ---

  ask(): void {
    const line = this.#house.sendings.line()
    if (line === undefined) return
    this.#id ??= line.id()
    this.#lose()
    line.send({ _tag: "QueryOpen", id: this.#id, map: this.map, query: this.#bytes })
  }

  /** The line has ended: what was told on it isn't gone on with. */
  lost(): void {
    this.#id = undefined
    this.#gaps = 0
    this.#lose()
  }

  #lose(): void {
    this.number = undefined
    this.#version = 0
    this.#incoming = undefined
    // The next answer is of a question that comes after them.
    for (const key of this.#acknowledged.keys()) this.#awaitingRows.add(key)
    this.#acknowledged.clear()
    this.#tell()
  }

  acknowledged(number: number): void {
    this.#lose()
    this.number = number
    if (this.#refusal === undefined) return
    this.#refusal = undefined
    this.#tell()
  }

  refused(fault: typeof Protocol.Fault.Type): void {
    this.#id = undefined
    const refusal = refusalOf(this.map, fault)
    // Refused again, it is as before.
    if (this.#refusal?._tag !== refusal._tag || this.#refusal.message !== refusal.message) this.#refusal = refusal
    const gone = this.#rows
    this.#rows = new Map()
    this.#bytesHeld = 0
    this.#hasMore = false
    this.#isAnswered = false
    this.#lose()
    this.#awaitingRows.clear()
    this.#judgeAll(gone.keys())
    this.#judgeAll(this.#cells.keys())
    this.#tell()
  }

  /** Takes in rows, or asks for all of them where some were missed. @throws MalformedMessage */
  take(message: typeof Protocol.QueryRows.Type): void {
    const { after, hasMore, isLast, version } = message
    if (version <= after) throw new MalformedMessage({ reason: "rows of a query that go back" })
    if (after !== 0 && after !== this.#version) {
      this.#gaps++
      if (this.#gaps > gapsMax) throw new MalformedMessage({ reason: "rows of a query have gaps again and again" })
      return this.ask()
    }
    if (this.#incoming?.version !== version || this.#incoming.after !== after) {
      this.#incoming = { version, after, left: new Set(), rows: new Map() }
    }
    this.#gather(this.#incoming, message)
    if (!isLast) return
    const { left, rows } = this.#incoming
    this.#incoming = undefined
    this.#hasMore = hasMore
    this.#version = version
    if (after === 0) this.#replace(rows)
    else this.#change(left, rows)
    if (this.#rows.size > this.#rowsMax) throw new MalformedMessage({ reason: "rows beyond the limit of a query" })
    this.#tell()
  }

  #gather(incoming: Incoming, { left, records, scores }: typeof Protocol.QueryRows.Type): void {
    if (scores !== null && scores.length !== records.length * 8) {
      throw new MalformedMessage({ reason: "scores that aren't one for each row" })
    }
    if (scores === null && this.#ranked !== undefined && records.length > 0) {
      throw new MalformedMessage({ reason: "rows of a search without scores" })
    }
    const view = scores === null ? undefined : new DataView(scores.buffer, scores.byteOffset, scores.length)
    for (const key of left) incoming.left.add(key)
    records.forEach(([key, row], i) => {
      // Of its own: a row lives longer than the frame that it came in.
      const record = Cell.decodeInPlace("lww", this.map, key, row.slice())
      if (record.isTombstone) throw new MalformedMessage({ reason: "a deletion among the rows of a query" })
      this.#bytesHeld += row.length
      if (!this.#house.heed(record)) return
      incoming.rows.set(key, { record, value: undefined, score: view?.getFloat64(i * 8) })
    })
    if (incoming.rows.size > this.#rowsMax || incoming.left.size > this.#rowsMax || this.#bytesHeld > rowsBytesMax) {
      throw new MalformedMessage({ reason: "rows beyond the limit of a query" })
    }
  }

  /** All rows are these. */
  #replace(rows: Map<string, ServerRow>): void {
    const before = this.#rows
    for (const [key, row] of rows) rows.set(key, keptOf(before.get(key), row))
    this.#rows = rows
    this.#bytesHeld = 0
    for (const { record } of rows.values()) this.#bytesHeld += record.row.length
    const wasAnswered = this.#isAnswered
    this.#isAnswered = true
    const own = [...this.#counted, ...this.#awaitingRows]
    this.#awaitingRows.clear()
    this.#judgeAll([...before.keys(), ...rows.keys(), ...own])
    // Until now all that was written here counted.
    if (!wasAnswered) this.#judgeAll(this.#cells.keys())
  }

  #change(left: ReadonlySet<string>, rows: ReadonlyMap<string, ServerRow>): void {
    for (const key of left) this.#put(key, undefined)
    for (const [key, row] of rows) this.#put(key, row)
    this.#judgeAll(left)
    this.#judgeAll(rows.keys())
  }

  #put(key: string, row: ServerRow | undefined): void {
    const before = this.#rows.get(key)
    this.#bytesHeld -= before?.record.row.length ?? 0
    if (row === undefined) this.#rows.delete(key)
    else this.#rows.set(key, keptOf(before, row))
  }

  #judgeAll(keys: Iterable<string>): void {
    const now = this.#house.now()
    for (const key of keys) {
      const expiresAt = this.expiresAt(key) ?? 0
      if (expiresAt > now) this.#house.expire(this, key, expiresAt)
      this.judge(key)
    }
  }

  #tell(): void {
    for (const { onStatus } of Array.from(this.events)) onStatus()
  }
}

/** The questions of a client, for the life of the scope. */
export const make = (replica: Replica["Type"], engine: SyncEngine["Type"]): Effect.Effect<
  {
    /** Asks a query of a map that is open, and isn't downloaded. @throws QueryInvalid, QueryTooExpensive */
    readonly ask: (map: string, query: Query.Query, events: Events) => AskedOfServer
    readonly size: () => number
  },
  never,
  Scope.Scope
> =>
  Effect.gen(function*() {
    const clock = yield* Effect.clock
    const now = () => clock.unsafeCurrentTimeMillis()
    const questions = new Map<string, { readonly question: Question; readonly stop: () => void }>()
    const refused = new Signal()
    let line: Line | undefined

    // --- Signs ---

    /** What is called by the sign that is asked for, and by the one after it. */
    let sign: { readonly id: number; readonly settled: ReadonlyArray<() => void> } | undefined
    let next: Array<() => void> = []
    const askForSign = atEndOfTick(() => {
      if (line === undefined || sign !== undefined || next.length === 0) return
      sign = { id: line.id(), settled: next }
      next = []
      line.send({ _tag: "Ping", id: sign.id })
    })
    const sendings: Sendings = {
      line: () => line,
      sign: (settled) => {
        next.push(settled)
        askForSign()
      }
    }

    // --- Expiry ---

    const expire = yield* Expiry.make(
      now,
      ({ at, cell, map }) => questions.get(map)?.question.expiresAt(cell) === at,
      (due) => {
        for (const { cell, map } of due) questions.get(map)?.question.judge(cell)
      }
    )
    const house: House = {
      now,
      heed: replica.heed,
      expire: ({ identity }, cell, at) => expire({ at, map: identity, cell }),
      sendings
    }

    // --- Answers ---

    const each = (act: (question: Question) => void): void => {
      for (const { question } of Array.from(questions.values())) act(question)
    }
    const withId = (id: number, act: (question: Question) => void): void =>
      each((question) => {
        if (question.id === id) act(question)
      })
    const heard = (answer: Answer): void => {
      switch (answer._tag) {
        case "QueryAck":
          return withId(answer.id, (question) => question.acknowledged(answer.query))
        case "QueryRows":
          return each((question) => {
            if (question.number === answer.query) question.take(answer)
          })
        case "Pong": {
          if (sign?.id !== answer.id) return
          const { settled } = sign
          sign = undefined
          for (const settle of settled) settle()
          return askForSign()
        }
        case "Fault":
          if (answer.id !== null) withId(answer.id, (question) => question.refused(answer))
          return refused.notify()
      }
    }

    const stopAsking = engine.asks({
      opened: (opened) => {
        line = opened
        each((question) => question.ask())
      },
      closed: () => {
        line = undefined
        sign = undefined
        next = []
        each((question) => question.lost())
      },
      heard
    })
    yield* Effect.addFinalizer(() => Effect.sync(stopAsking))
    const isRefused = ({ id, refusal }: Question): boolean => refusal !== undefined && id === undefined
    const askAgain = Effect.gen(function*() {
      yield* refused.until(() => Array.from(questions.values()).some(({ question }) => isRefused(question)))
      yield* Effect.sleep(askAgainMillis)
      each((question) => {
        if (isRefused(question)) question.ask()
      })
    })
    yield* Effect.forkScoped(Effect.forever(askAgain))

    return {
      ask: (map, query, events) => {
        const identity = `${map} ${Query.identityOf(query)}`
        let asked = questions.get(identity)
        const isNew = asked === undefined
        if (asked === undefined) {
          const question = new Question(house, map, query, replica.openMap(map, "lww").cells, identity)
          asked = { question, stop: () => {} }
        }
        const { question } = asked
        const { select: _, ...evaluated } = query
        const [live, close] = question.live.ask(evaluated, events.onDelta)
        if (isNew) {
          const stop = replica.witness(map, {
            changed: (key) => question.judge(key),
            confirmed: (key) => question.confirmed(key)
          })
          questions.set(identity, { question, stop })
        }
        // Who asks anew what was refused may be answered now.
        if (isNew || question.refusal !== undefined) question.ask()
        const own: Events = { ...events }
        question.events.add(own)
        return {
          live,
          settle: () => question.live.settle(),
          isComplete: () => question.isComplete,
          isAnswered: () => question.isAnswered,
          hasMore: () => question.hasMore,
          refusal: () => question.refusal,
          close: () => {
            if (!question.events.delete(own)) return
            close()
            if (question.events.size > 0) return
            questions.get(identity)?.stop()
            questions.delete(identity)
            if (question.id !== undefined) line?.send({ _tag: "QueryClose", id: question.id })
          }
        }
      },
      size: () => questions.size
    }
  })

export type RemoteQueries = Effect.Effect.Success<ReturnType<typeof make>>
