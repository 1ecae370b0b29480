/**
 * The queries that clients ask of maps of records, over all partitions: one engine for each map (`LiveQueries`), which hears of each
 * record in the same pass in which it is merged.
 *
 * **Whose rows.** Who may read a part of a map asks of that part: each record is judged, ordered and shown as he may read it, so that
 * nothing that is hidden has a part in whether it is found, where, or how it is ranked. Fields that nothing ever shows him are refused
 * by name, and that only hidden ones have changed isn't told. All who may read the same share a query. One thing tells of what is hidden,
 * and tells little: a query may be refused for what it would cost, which is by the size of the whole map and of its indexes.
 *
 * **What it may cost.** A query is judged before it runs, by the records that its plan looks at. It is evaluated some records at a time, so that
 * others get their turn; what changes meanwhile is heard of. What clients are told is told at the end of a turn of the event loop, encoded once.
 *
 * **What goes wrong** here stays here: a fault of ours in judging a record ends the queries of its map, and not the merge that it is part of.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import {
  ConfigInvalid,
  MapKindMismatch,
  Overloaded,
  PermissionDenied,
  QueryInvalid,
  QueryTooExpensive
} from "@topgun/core/GridError"
import type * as FullText from "@topgun/core/FullText"
import * as Languages from "@topgun/core/Languages"
import * as LiveQueries from "@topgun/core/LiveQueries"
import { LiveSearches } from "@topgun/core/LiveSearch"
import * as LwwRecord from "@topgun/core/LwwRecord"
import { partitionCount, partitionOf } from "@topgun/core/Partition"
import * as Predicate from "@topgun/core/Predicate"
import * as Query from "@topgun/core/Query"
import * as Value from "@topgun/core/Value"
import * as ValueJson from "@topgun/core/ValueJson"
import { type Access, isGone, untied } from "./Access.ts"
import { Declarations } from "./Declarations.ts"
import { Partitions, type Won } from "./Partitions.ts"
import { ServerConfig } from "./ServerConfig.ts"
import { ToldRows } from "./ToldRows.ts"
import * as Turns from "./Turns.ts"

/** Why a query isn't answered. */
export type QueryFault = MapKindMismatch | Overloaded | PermissionDenied | QueryInvalid | QueryTooExpensive

/** One who asks a query, and is told. */
export interface Asker {
  /** There is a version: {@link Asked.snapshot} has all of it. Once for each version; with the pages of what has changed, but for the first. */
  readonly onVersion: (changes: ReadonlyArray<Uint8Array> | undefined) => void
  /** The query has ended: nothing more is told. What isn't a `QueryFault` is a fault of ours. */
  readonly onEnd: (fault: unknown) => void
}

/** A query that is asked. */
export interface Asked {
  /** By which it is spoken of: the same for all who share it. */
  readonly number: number
  /** What it takes to judge one more record by it, in ns, whatever that is; 0 where only records of a certain value are judged. */
  readonly nanosPerWrite: number
  /** Whether there is a version. */
  readonly isReady: () => boolean
  /** All rows of the present version, as `QueryRows`. The pages are shared: never written to. */
  readonly snapshot: () => ReadonlyArray<Uint8Array>
  readonly close: () => void
}

/** The rows that a call is answered with. */
export interface Answer {
  readonly rows: ReadonlyArray<{ readonly key: string; readonly value: ValueJson.Json; readonly score?: number }>
  readonly hasMore: boolean
  /** Where the next page begins; `undefined` where there is none. */
  readonly cursor: string | undefined
}

/** How a query would be answered, and why a search gives one record its score. */
export interface Explained extends LiveQueries.Explanation {
  readonly score: FullText.Explanation | undefined
}

/** The queries of a server. */
export class Queries extends Context.Tag("@topgun/server/Queries")<Queries, {
  /** Builds the indexes that are declared, once everything is loaded. */
  readonly load: Effect.Effect<void, ConfigInvalid>
  /** Asks a live query, which `Query.parse` has passed. @throws QueryFault */
  readonly ask: (map: string, access: Access, query: Query.Query, asker: Asker) => Asked
  /** Those whose keys are equal are shown the same of a map, under the policy in force. */
  readonly viewKey: (access: Access) => string
  /** Another policy is in force: nobody who comes from now on shares what those before him are shown. */
  readonly forget: () => void
  /** Answers a query once: as many of its rows as fit into a reply. */
  readonly answer: (map: string, access: Access, query: Query.Query) => Effect.Effect<Answer, QueryFault>
  /** How many records a predicate is true of. One that changes meanwhile is counted as it was, or as it is. */
  readonly count: (
    map: string,
    access: Access,
    where: Predicate.Predicate | undefined
  ) => Effect.Effect<number, QueryFault>
  /**
   * How a query would be answered; of a search, why it gives the record of a key its score. For those who may read all of the map, as it tells
   * how many records there are.
   */
  readonly explain: (
    map: string,
    access: Access,
    query: Query.Query,
    key?: string
  ) => Effect.Effect<Explained, QueryFault>
  /** Live queries that are evaluated. */
  readonly size: () => number
}>() {}

/** Records that are looked at in one turn of the event loop, for all queries together: some 2 ms. */
const recordsAtOnce = 1_000
/** What it takes to find a record and to make a value of it, in ns. */
const nanosPerRecord = 1_500
/** Records that are looked at in the time that it takes to tell one who asks. */
const recordsPerTelling = 3
/** Records of which a few fields are looked at, in the time of one of which a value is made. */
const recordsPerValue = 4
/** What it takes to judge a record that has changed, beside the predicate, in ns. */
const nanosPerJudgement = 100
/** Bytes of rows in an answer to a call, at most, as JSON: beside them there is room for a cursor. */
const answerBytesMax = 512 * 1024
/** Bytes of all queries' rows that are kept as pages for who asks next: those of the queries that were asked longest ago go first. */
const keptBytesMax = 16 * 1024 * 1024

/** A map as one user may read it. */
interface Shown {
  readonly view: LiveQueries.View | undefined
  readonly access: Access
}

const valueOf = (record: LwwRecord.LwwRecord): unknown => Value.decodeTrusted(record.valueBytes)

/** Whether somebody is told why his query isn't answered; anything else is a fault of ours. */
export const isQueryFault = (fault: unknown): fault is QueryFault =>
  fault instanceof QueryInvalid || fault instanceof QueryTooExpensive || fault instanceof PermissionDenied ||
  fault instanceof MapKindMismatch || fault instanceof Overloaded

const attempt = <A>(run: () => A): Effect.Effect<A, QueryFault> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(run())
    } catch (fault) {
      if (isQueryFault(fault)) return Effect.fail(fault)
      throw fault
    }
  })

const make = Effect.gen(function*() {
  const { queryMillisMax, queryBytesMax, queryRowsMax } = yield* ServerConfig
  const clock = yield* Effect.clock
  const declarations = yield* Declarations
  const partitions = yield* Partitions
  const run = yield* FiberSet.makeRuntime<never, void>()
  // Patterns are judged at once when a query is asked.
  yield* Effect.orDie(Predicate.loadEngine)
  const maps = new Map<string, QueriedMap>()
  /** Maps whose indexes can't be relied on any more. */
  const unindexed = new Set<string>()
  /** How many policies there have been. */
  let policies = 0
  let lastNumber = 0
  let isOver = false
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      isOver = true
    })
  )

  // --- Turns ---

  const turns = Turns.make(recordsAtOnce)
  let looked = 0
  const pay = (): void => {
    turns.spend(looked)
    looked = 0
  }

  /** Goes through steps, as many in each turn as there is time for. */
  const inTurns = <A>(steps: Iterator<unknown, A>): Effect.Effect<A, QueryFault> =>
    Effect.async((resume) => {
      let isCalledOff = false
      const go = (): void => {
        if (isCalledOff || isOver) return
        try {
          do {
            const step = steps.next()
            pay()
            if (step.done === true) return resume(Effect.succeed(step.value))
          } while (!turns.isOver())
        } catch (fault) {
          return resume(isQueryFault(fault) ? Effect.fail(fault) : Effect.die(fault))
        }
        turns.wait(go)
      }
      turns.wait(go)
      return Effect.sync(() => {
        isCalledOff = true
      })
    })

  // --- Queries that are shared ---

  /** Those whose rows are kept as pages, and how many bytes those have. */
  const kept = new Map<Shared, number>()
  let keptBytes = 0
  const keep = (shared: Shared, bytes: number): void => {
    kept.set(shared, bytes)
    keptBytes += bytes
    for (const other of kept.keys()) {
      if (keptBytes <= keptBytesMax) return
      other.dropPages()
    }
  }

  /** A query that is evaluated for all who ask it. */
  class Shared {
    readonly number = ++lastNumber
    readonly askers = new Set<Asker>()
    readonly access: Access
    readonly nanosPerWrite: number
    readonly #map: QueriedMap
    readonly #live: LiveQueries.Live
    readonly #close: () => void
    /** What rows are shown with, where the query selects fields. */
    readonly #select: ((value: unknown) => unknown) | undefined
    readonly #isSearch: boolean
    readonly #told = new ToldRows(this.number)
    /** All rows, as long as they are kept. */
    #pages: ReadonlyArray<Uint8Array> | undefined

    constructor(map: QueriedMap, { access, view }: Shown, query: Query.Query) {
      this.#map = map
      this.access = access
      this.#isSearch = query.search !== undefined
      this.#select = query.select === undefined
        ? undefined
        : Query.selector([...query.select, ...Query.fieldsOf(query)])
      const [live, close] = map.live.ask(query, (delta) => this.#take(delta), view)
      this.#live = live
      this.#close = close
      this.nanosPerWrite = live.ties !== undefined
        ? 0
        : nanosPerJudgement + (query.where === undefined ? 0 : Predicate.cost(query.where))
    }

    get isReady(): boolean {
      return this.#told.version > 0
    }

    snapshot(): ReadonlyArray<Uint8Array> {
      if (this.#pages !== undefined) return this.#pages
      const pages = this.#told.all()
      this.#pages = pages
      keep(this, pages.reduce((bytes, page) => bytes + page.length, 0))
      return pages
    }

    dropPages(): void {
      keptBytes -= kept.get(this) ?? 0
      kept.delete(this)
      this.#pages = undefined
    }

    leave(asker: Asker): void {
      this.askers.delete(asker)
      if (this.askers.size > 0) return
      this.dropPages()
      this.#map.shared.delete(this.#live.identity)
      this.#close()
      this.#map.rest()
    }

    end(fault: unknown): void {
      const askers = Array.from(this.askers)
      for (const asker of askers) this.leave(asker)
      for (const asker of askers) asker.onEnd(fault)
    }

    #take({ changes, hasMore }: LiveQueries.Delta): void {
      for (const { key, type } of changes) {
        if (type === "leave") this.#told.delete(key)
        // That something else in the record has changed, and when, isn't told by the stamp either.
        else this.#told.put(key, this.#rowOf(key), type === "update" && !this.#isWhole)
      }
      turns.spend(changes.length + this.askers.size * recordsPerTelling)
      if (this.#told.bytes > queryBytesMax) {
        return this.end(
          new QueryTooExpensive({
            path: "$",
            reason:
              `its rows have more than ${queryBytesMax} bytes: ask for fewer by a limit, or for some fields by select`
          })
        )
      }
      const scores = this.#isSearch
        ? new Map(this.#live.rows.map(({ key, score }) => [key, score!]))
        : undefined
      const isFirst = !this.isReady
      const pages = this.#told.next(hasMore, scores)
      if (pages === undefined) return
      this.dropPages()
      for (const asker of Array.from(this.askers)) {
        if (this.askers.has(asker)) asker.onVersion(isFirst ? undefined : pages)
      }
    }

    /** Whether rows are whole records. */
    get #isWhole(): boolean {
      return this.access.reads === "everything" && this.#select === undefined
    }

    #rowOf(key: string): Uint8Array {
      const record = partitions.source(this.#map.name).record(key, partitionOf(key))!
      if (this.#isWhole) return record.row
      const shown = this.access.show(record, valueOf(record))!
      if (this.#select === undefined) return shown.row
      return LwwRecord.put(shown.stamp, Value.encode(this.#select(valueOf(shown))), shown.expiresAt).row
    }
  }

  // --- Maps ---

  class QueriedMap {
    readonly name: string
    searches: LiveSearches | undefined
    readonly live: LiveQueries.LiveQueries
    readonly shared = new Map<string, Shared>()
    /** By the fields that a query is about: one for all parts of the map. */
    readonly #decoders = new WeakMap<ReadonlySet<string>, ReturnType<typeof Value.partDecoder>>()
    #isScheduled = false

    constructor(name: string) {
      this.name = name
      const indexes = unindexed.has(name) ? [] : declarations.maps.get(name)?.indexes ?? []
      /** A map has a kind when it is first written to: then it may be another. */
      const hasRecords = (): boolean => partitions.kindFault(name, "lww") === undefined
      this.live = new LiveQueries.LiveQueries({
        source: {
          get: (key) => {
            looked++
            if (!hasRecords()) return undefined
            const record = partitions.source(name).record(key, partitionOf(key))
            return record === undefined || isGone(record, clock.unsafeCurrentTimeMillis()) ? undefined : valueOf(record)
          },
          parts: partitionCount,
          visit: (partition, visitor) => {
            if (!hasRecords()) return
            const now = clock.unsafeCurrentTimeMillis()
            for (const [key, record] of partitions.records(name, partition)) {
              looked++
              if (!isGone(record, now)) visitor(key, valueOf(record))
            }
          },
          find: (partition, fields, isWanted, take) => {
            if (!hasRecords()) return
            const now = clock.unsafeCurrentTimeMillis()
            const partOf = this.#decoderOf(fields)
            for (const [key, record] of partitions.records(name, partition)) {
              looked += 1 / recordsPerValue
              if (isGone(record, now) || !isWanted(key, partOf(record.valueBytes))) continue
              looked++
              take(key, valueOf(record))
            }
          },
          size: () => hasRecords() ? partitions.source(name).tree.size : 0
        },
        indexes,
        onDirty: () => this.#schedule()
      })
    }

    #decoderOf(fields: ReadonlySet<string>): ReturnType<typeof Value.partDecoder> {
      let decoder = this.#decoders.get(fields)
      if (decoder === undefined) this.#decoders.set(fields, decoder = Value.partDecoder(fields))
      return decoder
    }

    /** Builds its indexes, in turns. */
    readonly build: Effect.Effect<void, ConfigInvalid> = Effect.gen(this, function*() {
      yield* Effect.orDie(inTurns(this.#indexing()))
      const search = declarations.maps.get(this.name)?.search
      if (search === undefined) return this.rest()
      const { fields, language } = search
      if (language !== undefined && !Languages.isLanguage(language)) {
        return yield* new ConfigInvalid({
          faults: [
            `map "${this.name}" is searched in ${language}, which isn't one of ${Languages.languages.join(", ")}`
          ]
        })
      }
      const analyzer = yield* Effect.promise(() => Languages.load(language))
      this.searches = new LiveSearches(this.live, { fields, language }, analyzer)
      yield* Effect.orDie(inTurns(this.searches.build()))
    })

    /** Hears of records that were merged. */
    hear({ kind, rows }: Won): void {
      if (kind !== "lww") return this.#isOfAnotherKind()
      const now = clock.unsafeCurrentTimeMillis()
      for (const { cell, record } of rows) this.live.set(cell, isGone(record, now) ? undefined : valueOf(record))
    }

    /** Until a query that is asked here shows all that it is to show, as it is then. */
    *settling(live: LiveQueries.Live): Generator<void, void> {
      while (true) {
        while (!live.advance()) yield
        this.live.flush()
        if (live.isComplete && live.version > 0) return
        yield
      }
    }

    *#indexing(): Generator<void, void> {
      for (let partition = 0; partition < partitionCount; partition++) {
        this.live.source.visit(partition, (key, value) => this.live.indexes.set(key, value))
        yield
      }
    }

    /** One that nobody asks anything, and that has no indexes, needn't hear of what is written. */
    rest(): void {
      // Another may have come in its place since.
      if (this.live.isIdle && maps.get(this.name) === this) maps.delete(this.name)
    }

    /**
     * A fault of ours: who asks is told, and who asks from now on is answered without what may be wrong now. What is merged isn't to
     * know of it: it would be neither saved nor told.
     */
    fail(fault: unknown): void {
      maps.delete(this.name)
      unindexed.add(this.name)
      run(Effect.logError("A map's queries have failed: they are ended, and it is without indexes from now on", fault))
      for (const shared of Array.from(this.shared.values())) shared.end(fault)
    }

    /** Those who may read all of it are told, and the others that nothing is there for them. */
    #isOfAnotherKind(): void {
      const fault = partitions.kindFault(this.name, "lww")
      for (const shared of Array.from(this.shared.values())) if (shared.access.reads === "everything") shared.end(fault)
    }

    #schedule(): void {
      if (this.#isScheduled) return
      this.#isScheduled = true
      turns.wait(() => this.#turn())
    }

    /** Tells of what has changed until now, where that is known. */
    tell(): void {
      try {
        this.live.flush()
      } catch (fault) {
        this.fail(fault)
      }
    }

    /** Looks at some records for queries that are being filled, and tells of versions. */
    #turn(): void {
      this.#isScheduled = false
      if (isOver) return
      try {
        this.live.advance(() => {
          pay()
          return turns.isOver()
        })
        pay()
        if (!this.live.flush(turns.isOver)) this.#schedule()
      } catch (fault) {
        this.fail(fault)
      }
    }
  }

  const mapOf = (name: string): QueriedMap => {
    let map = maps.get(name)
    if (map === undefined) maps.set(name, map = new QueriedMap(name))
    return map
  }

  /** What is asked of a map, which isn't held on to for nothing. */
  const within = <A>(name: string, ask: (map: QueriedMap) => A): A => {
    const map = mapOf(name)
    try {
      return ask(map)
    } finally {
      map.rest()
    }
  }

  partitions.observe((won) => {
    const queried = maps.get(won.map)
    if (queried === undefined) return
    try {
      queried.hear(won)
    } catch (fault) {
      queried.fail(fault)
    }
  })

  // --- What may be asked ---

  const viewKey = ({ reads, viewKey: key }: Access): string => reads === "part" ? `${policies} ${key}` : key

  /** What somebody is shown of a map. @throws PermissionDenied, MapKindMismatch */
  const shownOf = (map: string, access: Access): Shown => {
    if (access.reads === "nothing") throw new PermissionDenied({ what: `read map "${map}"` })
    if (access.reads === "everything") {
      const fault = partitions.kindFault(map, "lww")
      if (fault !== undefined) throw fault
      return { access, view: undefined }
    }
    // Who may read some records isn't told that the map is of another kind: there are none for him.
    return {
      access,
      view: {
        key: viewKey(access),
        show: (value) => access.showValue(value),
        ties: access.ties?.map(({ path, to }) => ({ path, to: untied(to) }))
      }
    }
  }

  /** @throws QueryInvalid for a pattern that is none, and for a field that is never shown; QueryTooExpensive for a pattern */
  const checkConditions = (access: Access, query: Query.Query): void => {
    if (query.where !== undefined) checkPatterns(query.where)
    const readable = access.readableFields
    if (readable === undefined) return
    for (const { at, names } of Query.placesOf(query)) {
      if (!readable.has(names[0]!)) {
        throw new QueryInvalid({
          path: at,
          reason: "this field may not be read, and so nothing be found, ordered or shown by it"
        })
      }
    }
  }

  const checkPatterns = (where: Predicate.Predicate): void => {
    try {
      Predicate.check(where)
    } catch (fault) {
      throw fault instanceof QueryInvalid
        ? new QueryInvalid({ path: `$.where${fault.path.slice(1)}`, reason: fault.reason })
        : fault
    }
  }

  /** @throws QueryTooExpensive */
  const checkCost = ({ live }: QueriedMap, { view }: Shown, query: Query.Query): void => {
    // Words are found by their index, once it is known whose records are searched.
    if (query.search !== undefined && query.hybrid !== true && view === undefined) return
    const { candidates, plan } = live.explain(query, view)
    const nanos = (plan === "scan" && view === undefined ? nanosPerRecord / recordsPerValue : nanosPerRecord) +
      (query.where === undefined ? 0 : Predicate.cost(query.where))
    const millis = Math.round(candidates * nanos / 1e6)
    if (millis <= queryMillisMax) return
    throw new QueryTooExpensive({
      path: "$",
      reason:
        // How many there are is nobody's business who may not see them.
        `it would ${
          view === undefined ? `look at ${candidates} records, for some ${millis} ms` : "take too long"
        }, where ` +
        `queryMillisMax allows ${queryMillisMax}: declare an index that it can use (explain tells which it does)`
    })
  }

  /** As it is carried out here: never without a limit. @throws QueryTooExpensive */
  const limited = (query: Query.Query): Query.Query => {
    if (query.limit === undefined) return { ...query, limit: queryRowsMax }
    if (query.limit <= queryRowsMax) return query
    throw new QueryTooExpensive({
      path: "$.limit",
      reason: `queryRowsMax allows ${queryRowsMax}: read page by page, by cursor`
    })
  }

  /**
   * Of a search the fields that it looks into: they have to be readable in each record that its user sees, as what is hidden in one would
   * count in the others' scores.
   *
   * @throws QueryInvalid
   */
  const searchable = (name: string, access: Access, query: Query.Query): Query.Query => {
    const search = Query.searchOf(query)
    const readable = access.alwaysReadableFields
    if (search === undefined || readable === undefined) return query
    const isReadable = (path: string): boolean => readable.has(Predicate.namesOf(path, "$.search.fields")[0]!)
    const hidden = search.fields?.findIndex((path) => !isReadable(path)) ?? -1
    if (hidden >= 0) {
      throw new QueryInvalid({
        path: `$.search.fields[${hidden}]`,
        reason: "this field may not be read in all records, and so not be searched"
      })
    }
    const fields = search.fields ?? Object.keys(declarations.maps.get(name)?.search?.fields ?? {}).filter(isReadable)
    if (fields.length === 0) {
      throw new QueryInvalid({
        path: "$.search",
        reason: "no field that this map is searched by may be read in all records"
      })
    }
    return { ...query, search: { ...search, fields } }
  }

  // --- Asking ---

  /** Asks a query as it is carried out, once it was judged. @throws QueryFault */
  const asking = <A>(
    name: string,
    access: Access,
    asked: Query.Query,
    ask: (map: QueriedMap, query: Query.Query, shown: Shown) => A
  ): A => {
    const shown = shownOf(name, access)
    checkConditions(access, asked)
    const query = limited(searchable(name, access, asked))
    return within(name, (map) => ask(map, query, shown))
  }

  const ask = (name: string, access: Access, asked: Query.Query, asker: Asker): Asked => {
    // Who has written before he asks finds what he has written.
    maps.get(name)?.tell()
    return asking(name, access, asked, (map, query, shown) => {
      const identity = LiveQueries.identityOf(query, shown.view)
      let shared = map.shared.get(identity)
      if (shared === undefined) {
        checkCost(map, shown, query)
        map.shared.set(identity, shared = new Shared(map, shown, query))
      }
      const sharing = shared
      // Each who asks is another.
      const own: Asker = { onVersion: (changes) => asker.onVersion(changes), onEnd: (fault) => asker.onEnd(fault) }
      sharing.askers.add(own)
      return {
        number: sharing.number,
        nanosPerWrite: sharing.nanosPerWrite,
        isReady: () => sharing.isReady,
        snapshot: () => sharing.snapshot(),
        close: () => {
          if (sharing.askers.has(own)) sharing.leave(own)
        }
      }
    })
  }

  const answer = (name: string, access: Access, asked: Query.Query) =>
    Effect.acquireUseRelease(
      attempt(() =>
        asking(name, access, asked, (map, query, shown) => {
          checkCost(map, shown, query)
          const [live, close] = map.live.ask(query, () => {}, shown.view)
          return { close, live, map, query }
        })
      ),
      ({ live, map, query }) =>
        Effect.flatMap(inTurns(map.settling(live)), () => attempt(() => pageOf(query, live.rows, live.hasMore))),
      ({ close, map }) =>
        Effect.sync(() => {
          close()
          map.rest()
        })
    )

  /** As many rows as fit into a reply, at least one. @throws QueryTooExpensive for one that doesn't */
  const pageOf = (query: Query.Query, rows: ReadonlyArray<Query.Row>, hasMore: boolean): Answer => {
    const select = Query.selector(query.select)
    const page: Array<Answer["rows"][number]> = []
    let bytes = 0
    for (const { key, score, value: whole } of rows) {
      const value = ValueJson.toJson(select(whole) as Value.Value)
      const row = score === undefined ? { key, value } : { key, value, score }
      bytes += Buffer.byteLength(JSON.stringify(row))
      if (bytes > answerBytesMax) break
      page.push(row)
    }
    if (page.length === 0 && rows.length > 0) {
      throw new QueryTooExpensive({
        path: "$",
        reason:
          `its first row has more than ${answerBytesMax} bytes as JSON: leave fields out by select, or ask a live query`
      })
    }
    const isCut = page.length < rows.length
    return {
      rows: page,
      hasMore: hasMore || isCut,
      cursor: hasMore || isCut ? Query.cursorOf(query, rows[page.length - 1]!) : undefined
    }
  }

  const count = (name: string, access: Access, where: Predicate.Predicate | undefined) =>
    Effect.flatMap(
      attempt(() => {
        const shown = shownOf(name, access)
        const query = where === undefined ? {} : { where }
        checkConditions(access, query)
        return within(name, (map) => {
          checkCost(map, shown, query)
          return map.live.counting(query, shown.view)
        })
      }),
      inTurns
    )

  const explain = (name: string, access: Access, asked: Query.Query, key?: string) =>
    attempt((): Explained => {
      const { view } = shownOf(name, access)
      if (view !== undefined) {
        throw new PermissionDenied({
          what: `see how queries of map "${name}" are answered, which who may read all of it may`
        })
      }
      checkConditions(access, asked)
      return within(name, ({ live, searches }) => {
        const isSearched = key !== undefined && asked.search !== undefined
        return { ...live.explain(asked), score: isSearched ? searches?.explain(asked, key) : undefined }
      })
    })

  return Queries.of({
    load: Effect.suspend(() =>
      Effect.forEach(Array.from(declarations.maps.keys()), (name) => mapOf(name).build, { discard: true })
    ),
    ask,
    viewKey,
    forget: () => {
      policies++
    },
    answer,
    count,
    explain,
    size: () => {
      let size = 0
      for (const { live } of maps.values()) size += live.size
      return size
    }
  })
})

export const layer: Layer.Layer<Queries, never, Partitions | ServerConfig> = Layer.scoped(Queries, make)
