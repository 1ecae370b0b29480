/**
 * The queries that clients ask of maps of records, over all partitions: one engine for each map (`LiveQueries`), which hears of each
 * record in the same pass in which it is merged.
 *
 * **Whose rows.** Who may read a part of a map asks of that part: each record is judged, ordered and shown as he may read it, so that
 * nothing that is hidden has a part in whether it is found, where, or how it is ranked. Fields that nothing ever shows him are refused
 * by name. All who may read the same share a query.
 *
 * **What it may cost.** A query is judged before it runs, by the records that its plan looks at. It is evaluated some records at a time, so that
 * others get their turn; what changes meanwhile is heard of. What clients are told is told at the end of a turn of the event loop, encoded once.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
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
import * as Protocol from "@topgun/core/Protocol"
import * as Query from "@topgun/core/Query"
import * as Value from "@topgun/core/Value"
import { type Access, isGone, untied } from "./Access.ts"
import { Declarations } from "./Declarations.ts"
import { endOfTurn } from "./GroupCommit.ts"
import { Partitions } from "./Partitions.ts"
import { ServerConfig } from "./ServerConfig.ts"

/** Why a query isn't answered. */
export type QueryFault = MapKindMismatch | Overloaded | PermissionDenied | QueryInvalid | QueryTooExpensive

/** One who asks a query, and is told. */
export interface Asker {
  /** There is a version: {@link Asked.snapshot} has all of it. Once for each version; with the pages of what has changed, but for the first. */
  readonly onVersion: (changes: ReadonlyArray<Uint8Array> | undefined) => void
  /** The query has ended: nothing more is told. */
  readonly onEnd: (fault: QueryFault) => void
}

/** A query that is asked. */
export interface Asked {
  /** By which it is spoken of: the same for all who share it. */
  readonly number: number
  /** Whether there is a version. */
  readonly isReady: () => boolean
  /** All rows of the present version, as `QueryRows`. The pages are shared: never written to. */
  readonly snapshot: () => ReadonlyArray<Uint8Array>
  readonly close: () => void
}

/** The rows that a call is answered with. */
export interface Answer {
  readonly rows: ReadonlyArray<{ readonly key: string; readonly value: unknown; readonly score?: number }>
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
  /** Answers a query once: as many of its rows as fit into a reply. */
  readonly answer: (map: string, access: Access, query: Query.Query) => Effect.Effect<Answer, QueryFault>
  /** How many records a predicate is true of. One that changes meanwhile is counted as it was, or as it is. */
  readonly count: (
    map: string,
    access: Access,
    where: Predicate.Predicate | undefined
  ) => Effect.Effect<number, QueryFault>
  /** How a query would be answered; of a search, why it gives the record of a key its score. */
  readonly explain: (
    map: string,
    access: Access,
    query: Query.Query,
    key?: string
  ) => Effect.Effect<Explained, QueryFault>
  /** Live queries that are evaluated. */
  readonly size: () => number
}>() {}

/** Records that are looked at before others get their turn: some 2 ms. */
const recordsAtOnce = 1_000
/** What it takes to find a record and to make a value of it, in ns. */
const nanosPerRecord = 1_500
/** Records of which a few fields are looked at, in the time of one of which a value is made. */
const recordsPerValue = 4
/** Keys in one page, at most: as many fit into a frame, whatever they are. */
const leftMax = 256
/** Bytes of rows in an answer to a call, at most: as JSON they are no more than twice as many. */
const answerBytesMax = 384 * 1024

/** A map as one user may read it. */
interface Shown {
  readonly view: LiveQueries.View | undefined
  readonly access: Access
}

const valueOf = (record: LwwRecord.LwwRecord): unknown => Value.decodeTrusted(record.valueBytes)

const isFault = (fault: unknown): fault is QueryFault =>
  fault instanceof QueryInvalid || fault instanceof QueryTooExpensive || fault instanceof PermissionDenied ||
  fault instanceof MapKindMismatch || fault instanceof Overloaded

/** Scores as they travel. */
const scoreBytes = (scores: ReadonlyArray<number>): Uint8Array => {
  const bytes = new DataView(new ArrayBuffer(scores.length * 8))
  scores.forEach((score, i) => bytes.setFloat64(i * 8, score))
  return new Uint8Array(bytes.buffer)
}

const attempt = <A>(run: () => A): Effect.Effect<A, QueryFault> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(run())
    } catch (fault) {
      if (isFault(fault)) return Effect.fail(fault)
      throw fault
    }
  })

const make = Effect.gen(function*() {
  const { queryMillisMax, queryBytesMax, queryRowsMax } = yield* ServerConfig
  const clock = yield* Effect.clock
  const declarations = yield* Declarations
  const partitions = yield* Partitions
  const maps = new Map<string, QueriedMap>()
  let lastNumber = 0
  let isOver = false
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      isOver = true
    })
  )

  /** A query that is evaluated for all who ask it. */
  class Shared {
    readonly number = ++lastNumber
    readonly askers = new Set<Asker>()
    readonly #map: QueriedMap
    readonly #access: Access
    readonly #live: LiveQueries.Live
    readonly #close: () => void
    /** What rows are shown with, where the query selects fields. */
    readonly #select: ((value: unknown) => unknown) | undefined
    readonly #isSearch: boolean
    #pages: ReadonlyArray<Uint8Array> | undefined

    constructor(map: QueriedMap, { access, view }: Shown, query: Query.Query) {
      this.#map = map
      this.#access = access
      this.#isSearch = query.search !== undefined
      this.#select = query.select === undefined
        ? undefined
        : Query.selector([...query.select, ...Query.fieldsOf(query)])
      const [live, close] = map.live.ask(query, (delta) => this.#tell(delta), view)
      this.#live = live
      this.#close = close
    }

    get isReady(): boolean {
      return this.#live.version > 0
    }

    snapshot(): ReadonlyArray<Uint8Array> {
      // What is shown and what is stored are the same then.
      this.#map.live.flush()
      return this.#pages ??= this.#encode(this.#live.rows.map(({ key }) => key), [], 0)
    }

    leave(asker: Asker): void {
      this.askers.delete(asker)
      if (this.askers.size > 0) return
      this.#map.shared.delete(this.#live.identity)
      this.#close()
      this.#map.rest()
    }

    #tell({ changes, version }: LiveQueries.Delta): void {
      this.#pages = undefined
      try {
        const pages = version === 1
          ? undefined
          : this.#encode(
            changes.flatMap(({ key, type }) => type === "leave" ? [] : [key]),
            changes.flatMap(({ key, type }) => type === "leave" ? [key] : []),
            version - 1
          )
        for (const asker of Array.from(this.askers)) asker.onVersion(pages)
      } catch (fault) {
        if (!isFault(fault)) throw fault
        this.end(fault)
      }
    }

    end(fault: QueryFault): void {
      const askers = Array.from(this.askers)
      for (const asker of askers) this.leave(asker)
      for (const asker of askers) asker.onEnd(fault)
    }

    /** Rows, as they are now, in pages that fit into frames. @throws QueryTooExpensive */
    #encode(keys: ReadonlyArray<string>, left: ReadonlyArray<string>, after: number): ReadonlyArray<Uint8Array> {
      const pages: Array<Uint8Array> = []
      const { hasMore, version } = this.#live
      const scores = this.#isSearch ? new Map(this.#live.rows.map(({ key, score }) => [key, score!])) : undefined
      let records: Array<Protocol.RecordTuple> = []
      let bytes = 0
      let all = 0
      let gone: ReadonlyArray<string> = []
      const cut = (isLast: boolean): void => {
        pages.push(Protocol.encode({
          _tag: "QueryRows",
          query: this.number,
          version,
          after,
          isLast,
          hasMore,
          left: gone,
          scores: scores === undefined ? null : scoreBytes(records.map(([key]) => scores.get(key)!)),
          records
        }))
        gone = []
        records = []
        bytes = 0
      }
      for (let at = 0; at < left.length; at += leftMax) {
        gone = left.slice(at, at + leftMax)
        if (at + leftMax < left.length) cut(false)
      }
      for (const key of keys) {
        const row = this.#rowOf(key)
        if (row === undefined) continue
        const size = key.length * 3 + row.length
        all += size
        if (all > queryBytesMax) {
          throw new QueryTooExpensive({
            path: "$",
            reason:
              `its rows have more than ${queryBytesMax} bytes: ask for fewer by a limit, or for some fields by select`
          })
        }
        if (bytes + size > Protocol.batchBytesMax) cut(false)
        records.push([key, row])
        bytes += size
      }
      cut(true)
      return pages
    }

    #rowOf(key: string): Uint8Array | undefined {
      const record = partitions.source(this.#map.name).record(key, partitionOf(key))
      if (record === undefined || record.isTombstone) return undefined
      if (this.#access.reads === "everything" && this.#select === undefined) return record.row
      const shown = this.#access.show(record, valueOf(record))
      if (shown === undefined || this.#select === undefined) return shown?.row
      return LwwRecord.put(shown.stamp, Value.encode(this.#select(valueOf(shown))), shown.expiresAt).row
    }
  }

  class QueriedMap {
    readonly name: string
    searches: LiveSearches | undefined
    readonly live: LiveQueries.LiveQueries
    readonly shared = new Map<string, Shared>()
    #looked = 0
    #isScheduled = false

    constructor(name: string) {
      this.name = name
      const declared = declarations.maps.get(name)
      const get = (key: string): unknown => {
        const record = partitions.source(name).record(key, partitionOf(key))
        return record === undefined || isGone(record, clock.unsafeCurrentTimeMillis()) ? undefined : valueOf(record)
      }
      this.live = new LiveQueries.LiveQueries({
        source: {
          get: (key) => {
            this.#looked++
            return get(key)
          },
          parts: partitionCount,
          visit: (partition, visitor) => {
            const now = clock.unsafeCurrentTimeMillis()
            for (const [key, record] of partitions.records(name, partition)) {
              this.#looked++
              if (!isGone(record, now)) visitor(key, valueOf(record))
            }
          },
          find: (partition, fields, isWanted, take) => {
            const now = clock.unsafeCurrentTimeMillis()
            const partOf = Value.partDecoder(fields)
            for (const [key, record] of partitions.records(name, partition)) {
              this.#looked += 1 / recordsPerValue
              if (isGone(record, now) || !isWanted(key, partOf(record.valueBytes))) continue
              this.#looked++
              take(key, valueOf(record))
            }
          },
          size: () => partitions.source(name).tree.size
        },
        indexes: declared?.indexes ?? [],
        onDirty: () => this.#schedule()
      })
    }

    /** Builds its indexes, in turns. */
    readonly build: Effect.Effect<void, ConfigInvalid> = Effect.gen(this, function*() {
      for (let partition = 0; partition < partitionCount; partition++) {
        this.live.source.visit(partition, (key, value) => this.live.indexes.set(key, value))
        if (this.spent()) yield* endOfTurn
      }
      const search = declarations.maps.get(this.name)?.search
      if (search === undefined) return
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
      const building = this.searches.build()
      while (building.next().done !== true) if (this.spent()) yield* endOfTurn
    })

    /** Whether so many records were looked at that it is time for others; they are counted anew then. */
    spent(): boolean {
      const isOver = this.#looked >= recordsAtOnce
      if (isOver) this.#looked = 0
      return isOver
    }

    /** One that nobody asks anything, and that has no indexes, needn't hear of what is written. */
    rest(): void {
      if (this.live.isIdle) maps.delete(this.name)
    }

    #schedule(): void {
      if (this.#isScheduled || isOver) return
      this.#isScheduled = true
      // tidy-allow timer: no time passes; this is the event loop's own "after what is ready".
      setImmediate(() => this.#turn())
    }

    /** Looks at some records for queries that are being filled, and tells of versions. */
    #turn(): void {
      this.#isScheduled = false
      if (isOver) return
      this.#looked = 0
      this.live.advance(() => this.#looked >= recordsAtOnce)
      if (!this.live.flush()) this.#schedule()
    }
  }

  const mapOf = (name: string): QueriedMap => {
    let map = maps.get(name)
    if (map === undefined) maps.set(name, map = new QueriedMap(name))
    return map
  }

  partitions.observe(({ kind, map, rows }) => {
    const queried = maps.get(map)
    if (queried === undefined || kind !== "lww") return
    const now = clock.unsafeCurrentTimeMillis()
    for (const { cell, record } of rows) queried.live.set(cell, isGone(record, now) ? undefined : valueOf(record))
  })

  /** What somebody is shown of a map. @throws PermissionDenied, MapKindMismatch */
  const shownOf = (map: string, access: Access): Shown => {
    const fault = partitions.kindFault(map, "lww")
    // Of a map of another kind, who may read some records of it isn't told that it is there.
    if (access.reads === "nothing" || (access.reads === "part" && fault !== undefined)) {
      throw new PermissionDenied({ what: `read map "${map}"` })
    }
    if (fault !== undefined) throw fault
    if (access.reads === "everything") return { access, view: undefined }
    return {
      access,
      view: {
        key: access.viewKey,
        show: (value) => access.showValue(value),
        ties: access.ties?.map(({ path, to }) => ({ path, to: untied(to) }))
      }
    }
  }

  /** @throws QueryInvalid for a field that is never shown */
  const checkFields = (access: Access, query: Query.Query): void => {
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
        `it would look at ${candidates} records, for some ${millis} ms, where queryMillisMax allows ${queryMillisMax}: ` +
        "declare an index that it can use (explain tells which it does)"
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

  /** A query as it is carried out, once it was judged. @throws QueryFault */
  const judged = (name: string, access: Access, asked: Query.Query) => {
    const shown = shownOf(name, access)
    checkFields(access, asked)
    const query = limited(searchable(name, access, asked))
    const map = mapOf(name)
    checkCost(map, shown, query)
    return { map, query, shown }
  }

  const ask = (name: string, access: Access, asked: Query.Query, asker: Asker): Asked => {
    const { map, query, shown } = judged(name, access, asked)
    const identity = LiveQueries.identityOf(query, shown.view)
    let shared = map.shared.get(identity)
    if (shared === undefined) map.shared.set(identity, shared = new Shared(map, shown, query))
    const sharing = shared
    // Each who asks is another.
    const own: Asker = { onVersion: (changes) => asker.onVersion(changes), onEnd: (fault) => asker.onEnd(fault) }
    sharing.askers.add(own)
    return {
      number: sharing.number,
      isReady: () => sharing.isReady,
      snapshot: () => sharing.snapshot(),
      close: () => {
        if (sharing.askers.has(own)) sharing.leave(own)
      }
    }
  }

  const answer = (name: string, access: Access, asked: Query.Query) =>
    Effect.flatMap(
      attempt(() => judged(name, access, asked)),
      ({ map, query, shown: { view } }) =>
        Effect.async<Answer, QueryFault>((resume) => {
          let asking: ReturnType<typeof map.live.ask>
          try {
            asking = map.live.ask(query, () => {
              resume(Effect.succeed(pageOf(query, live.rows, live.hasMore)))
              end()
            }, view)
          } catch (fault) {
            if (!isFault(fault)) throw fault
            map.rest()
            return resume(Effect.fail(fault))
          }
          const [live, close] = asking
          const end = (): void => {
            close()
            map.rest()
          }
          // Somebody else asks the same: what he is told next, and this, is what there is now.
          if (live.version > 0) {
            map.live.flush()
            resume(Effect.succeed(pageOf(query, live.rows, live.hasMore)))
            end()
          }
          return Effect.sync(end)
        })
    )

  /** As many rows as fit into a reply, at least one. */
  const pageOf = (query: Query.Query, rows: ReadonlyArray<Query.Row>, hasMore: boolean): Answer => {
    const select = Query.selector(query.select)
    const page: Array<Answer["rows"][number]> = []
    let bytes = 0
    for (const { key, score, value } of rows) {
      const selected = select(value)
      bytes += key.length * 3 + Value.encodeTransient(selected).length
      if (bytes > answerBytesMax && page.length > 0) break
      page.push(score === undefined ? { key, value: selected } : { key, value: selected, score })
    }
    const isCut = page.length < rows.length
    return {
      rows: page,
      hasMore: hasMore || isCut,
      cursor: page.length > 0 && (hasMore || isCut) ? Query.cursorOf(query, rows[page.length - 1]!) : undefined
    }
  }

  const count = (name: string, access: Access, where: Predicate.Predicate | undefined) =>
    Effect.gen(function*() {
      const { counting, map } = yield* attempt(() => {
        const shown = shownOf(name, access)
        const query = where === undefined ? {} : { where }
        checkFields(access, query)
        const map = mapOf(name)
        checkCost(map, shown, query)
        return { map, counting: map.live.counting(query, shown.view) }
      })
      let step = counting.next()
      for (; step.done !== true; step = counting.next()) {
        if (map.spent()) yield* endOfTurn
      }
      map.rest()
      return step.value
    })

  const explain = (name: string, access: Access, asked: Query.Query, key?: string) =>
    attempt((): Explained => {
      const { view } = shownOf(name, access)
      checkFields(access, asked)
      const query = searchable(name, access, asked)
      const map = mapOf(name)
      try {
        const explanation = map.live.explain(query, view)
        const isSearched = key !== undefined && query.search !== undefined
        return { ...explanation, score: isSearched ? map.searches?.explain(query, key, view) : undefined }
      } finally {
        map.rest()
      }
    })

  return Queries.of({
    load: Effect.suspend(() =>
      Effect.forEach(Array.from(declarations.maps.keys()), (name) => mapOf(name).build, { discard: true })
    ),
    ask,
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
