/**
 * The queries that are asked of one map: answered from its indexes where that looks at fewer records, and kept up to date by what
 * changes. Pure; the same on clients and on servers.
 *
 * **What a write costs.** A query whose predicate can only be true where a field is equal to something (`QueryPlan.tiesOf`) is found
 * by that value: of ten thousand queries for as many owners a write meets those of its record's owner before and after. Only
 * queries of which nothing of that kind can be said judge every write. Equal queries are one, whoever asks.
 *
 * **How it stays right.** A query judges a record by its present value, whatever it was before, so that nothing depends on the order
 * in which it hears of changes, or on whether it has filled its window yet: it is filled in steps, between which the map may change.
 * What it shows changes with `flush` only, and each time by a version: all changes since the one before, at once.
 */
import { QueryInvalid } from "./GridError.ts"
import { fieldAt } from "./internal/comparisons.ts"
import { namesOf, pathOf } from "./internal/paths.ts"
import { type Node, read } from "./internal/predicateReader.ts"
import { Indexes, type Spec } from "./Indexes.ts"
import * as Predicate from "./Predicate.ts"
import * as Query from "./Query.ts"
import * as QueryPlan from "./QueryPlan.ts"
import { QueryWindow, type RowChange } from "./QueryWindow.ts"

/** The records of a map, as they are now. */
export interface Source {
  /** The value of a key; `undefined` for none. */
  readonly get: (key: string) => unknown
  /** The parts that it can be gone through in, one at a time. */
  readonly parts: number
  /** Goes through one. */
  readonly visit: (part: number, visitor: (key: string, value: unknown) => void) => void
  /**
   * As `visit`, for a source that makes values each time: `isWanted` is asked of values of which only these fields are there, and those that
   * are wanted are made whole for `take`.
   */
  readonly find?: (
    part: number,
    fields: ReadonlySet<string>,
    isWanted: (key: string, part: unknown) => boolean,
    take: (key: string, value: unknown) => void
  ) => void
  /** About how many records there are. */
  readonly size: () => number
}

/** How somebody is shown the records of a map. */
export interface View {
  /** Equal for those who are shown the same. */
  readonly key: string
  /** A value as it is shown; `undefined` for one that isn't. What is shown of it is a part of it. */
  readonly show: (value: unknown) => unknown
  /** One of these holds of all that is shown; `undefined` where that can't be said. */
  readonly ties: ReadonlyArray<{ readonly path: string; readonly to: unknown }> | undefined
}

/** Equal for queries that share one evaluation. */
export const identityOf = (query: Query.Query, view?: View): string => `${view?.key ?? ""} ${Query.identityOf(query)}`

/** What a query has come to since the version before. */
export interface Delta {
  readonly version: number
  readonly changes: ReadonlyArray<RowChange>
  /** Whether there are rows after those that are shown. */
  readonly hasMore: boolean
}

/** A query, as it is asked for by all who ask the same. */
export interface Live {
  readonly query: Query.Query
  readonly identity: string
  /** What leads to it; `undefined` where it judges every write, or hears of writes in a way of its own. */
  readonly ties: ReadonlyArray<QueryPlan.Tie> | undefined
  /** Those who have asked it. */
  readonly listeners: Set<(delta: Delta) => void>
  /** Grows with each change of what is shown; 0 until that is known. */
  readonly version: number
  /** Whether what it shows is all that it is to show: false while it is being filled. */
  readonly isComplete: boolean
  /** What it shows, in order, of the present version. */
  readonly rows: ReadonlyArray<Query.Row>
  readonly hasMore: boolean
  /** Looks at some more records, where it is being filled. Answers whether it is complete. */
  readonly advance: () => boolean
  /**
   * The next version, as soon as what is to be shown is known; `undefined` where it is the same as before, or where it isn't known
   * before some more of {@link advance}.
   */
  readonly flush: () => Delta | undefined
  /** Nobody asks it any more. */
  readonly close: () => void
}

/** What finds text in the records of a map: see `LiveSearch`, which isn't loaded where nothing is searched. */
export interface Searching {
  /** A record is another now, or gone. */
  readonly set: (key: string, value: unknown) => void
  /** @throws QueryInvalid, QueryTooExpensive */
  readonly ask: (query: Query.Query, view: View | undefined, identity: string) => Live
  /** What is done to find words. @throws QueryInvalid, QueryTooExpensive */
  readonly step: (query: Query.Query) => QueryPlan.Step
}

/** How a query is answered, as `explain` tells. */
export interface Explanation {
  readonly plan: "scan" | "index"
  /** What is looked up; nothing for a scan. */
  readonly steps: ReadonlyArray<QueryPlan.Step>
  /** Records that are looked at, as far as can be told before. */
  readonly candidates: number
  /** Records in the map. */
  readonly records: number
  /** Whether they come in order, so that looking stops when there are enough. */
  readonly isOrdered: boolean
  /** The fields by whose values a live query is found; `undefined` where it judges every write. */
  readonly ties: ReadonlyArray<string> | undefined
}

/** Keys that are looked up in one step. */
const STEP_LENGTH = 1_000

/** A query that isn't a search. */
export class LiveQuery implements Live {
  readonly query: Query.Query
  readonly view: View | undefined
  readonly identity: string
  readonly ties: ReadonlyArray<QueryPlan.Tie> | undefined
  readonly listeners = new Set<(delta: Delta) => void>()
  readonly #queries: LiveQueries
  readonly #node: Node | undefined
  readonly #test: Predicate.Test
  readonly #ordering: Query.Ordering
  readonly #after: Query.Place | undefined
  readonly #window: QueryWindow
  #filling: Iterator<void> | undefined
  /** Whether nothing has changed since it began to be filled. */
  #isFresh = false
  #version = 0

  constructor(queries: LiveQueries, query: Query.Query, view: View | undefined, identity: string) {
    this.#queries = queries
    this.query = query
    this.view = view
    this.identity = identity
    const { where } = query
    this.#node = where === undefined ? undefined : read(where)
    this.#test = where === undefined ? () => true : Predicate.compile(where)
    this.#ordering = Query.ordering(query.orderBy)
    this.#after = Query.positionOf(query)
    const own = this.#node === undefined ? undefined : QueryPlan.tiesOf(this.#node)
    const others = view?.ties?.map(({ path, to }) => ({ names: namesOf(path, "$"), to }))
    this.ties = own === undefined || (others !== undefined && others.length < own.length) ? others : own
    this.#window = new QueryWindow({
      ordering: this.#ordering,
      limit: query.limit,
      ...this.ties === undefined ? {} : {
        onHold: (key) => queries.hold(key, this),
        onRelease: (key) => queries.release(key, this)
      }
    })
    this.#refill()
  }

  get version(): number {
    return this.#version
  }

  get isComplete(): boolean {
    return this.#filling === undefined
  }

  get rows(): ReadonlyArray<Query.Row> {
    return this.#window.shown
  }

  get hasMore(): boolean {
    return this.#window.hasMore
  }

  advance(): boolean {
    if (this.#filling?.next().done === true) this.#filling = undefined
    return this.isComplete
  }

  /** Hears that a record is another now, or gone. */
  judge(key: string, value: unknown): void {
    this.#isFresh = false
    this.#take(key, value === undefined || this.view === undefined ? value : this.view.show(value))
    if (this.#window.isDirty) this.#queries.soil(this)
  }

  flush(): Delta | undefined {
    if (this.isComplete && this.#window.isShort) {
      // It would be so for ever.
      if (this.#isFresh) throw new Error(`a window of ${this.identity} is short right after it was filled`)
      this.#refill()
    }
    if (!this.isComplete) return undefined
    const changes = this.#window.show()
    if (changes === undefined && this.#version > 0) return undefined
    this.#version++
    return { version: this.#version, changes: changes ?? [], hasMore: this.hasMore }
  }

  close(): void {
    this.#window.refill()
  }

  #refill(): void {
    this.#isFresh = true
    this.#window.refill()
    this.#filling = this.#fill()
  }

  #take(key: string, shown: unknown): void {
    if (shown !== undefined && this.#test(shown) === true && this.#isAfter(key, shown)) this.#window.put(key, shown)
    else this.#window.delete(key)
  }

  #isAfter(key: string, shown: unknown): boolean {
    return this.#after === undefined || this.#ordering.compareTo(key, shown, this.#after) > 0
  }

  *#fill(): Iterator<void> {
    const { source } = this.#queries
    const { isOrdered, keys } = this.#queries.plan(this.#node, this.query, this.view)
    if (keys === undefined) {
      const test = this.#test
      const window = this.#window
      const { view } = this
      const isWanted = (key: string, shown: unknown): boolean =>
        shown !== undefined && test(shown) === true && this.#isAfter(key, shown) && window.takes(key, shown)
      const fields = view === undefined ? fieldsOf(this.query) : undefined
      for (let part = 0; part < source.parts; part++) {
        if (fields !== undefined && source.find !== undefined) {
          source.find(part, fields, isWanted, (key, value) => window.put(key, value))
        } else {
          source.visit(part, (key, value) => {
            const shown = view === undefined ? value : view.show(value)
            if (isWanted(key, shown)) window.put(key, shown)
          })
        }
        yield
      }
      return
    }
    let looked = 0
    for (const key of keys()) {
      const value = source.get(key)
      this.#take(key, value === undefined || this.view === undefined ? value : this.view.show(value))
      if (isOrdered && this.#window.isFull && this.#window.has(key)) return this.#window.endAt(key)
      if (++looked % STEP_LENGTH === 0) yield
    }
  }
}

/** The fields of a value that decide whether a query finds it, and where it comes. */
const fieldsOf = (query: Query.Query): ReadonlySet<string> =>
  new Set(Query.placesOf(query).map(({ names }) => names[0]!))

/** Queries that a field's value leads to. */
interface Tied {
  readonly names: ReadonlyArray<string>
  readonly byValue: Map<unknown, OneOrMore>
}

/** Mostly it is one query that holds a record, or is tied to a value: a set of it would take ten times as much. */
type OneOrMore = LiveQuery | Set<LiveQuery>

const addTo = <K>(map: Map<K, OneOrMore>, key: K, query: LiveQuery): void => {
  const known = map.get(key)
  if (known === undefined) map.set(key, query)
  else if (known instanceof Set) known.add(query)
  else if (known !== query) map.set(key, new Set([known, query]))
}

const deleteFrom = <K>(map: Map<K, OneOrMore>, key: K, query: LiveQuery): void => {
  const known = map.get(key)
  if (known === query) map.delete(key)
  else if (known instanceof Set && known.delete(query) && known.size === 0) map.delete(key)
}

/** What a map is asked by. */
export interface Options {
  readonly source: Source
  readonly indexes?: ReadonlyArray<Spec>
  /** A query has changed, or is to be filled: it is time to {@link LiveQueries.flush}, soon. */
  readonly onDirty?: () => void
}

/** See the head of this file. */
export class LiveQueries {
  readonly source: Source
  readonly indexes: Indexes
  readonly #onDirty: () => void
  readonly #open = new Map<string, Live>()
  readonly #untied = new Set<LiveQuery>()
  readonly #tied = new Map<string, Tied>()
  /** Which of the tied queries hold a record: they are to hear when it is tied to them no more. */
  readonly #holders = new Map<string, OneOrMore>()
  readonly #dirty = new Set<Live>()
  #searching: Searching | undefined

  constructor({ indexes = [], onDirty = () => {}, source }: Options) {
    this.source = source
    this.indexes = new Indexes(indexes)
    this.#onDirty = onDirty
  }

  /** Queries that are open. */
  get size(): number {
    return this.#open.size
  }

  /** Records that tied queries hold. */
  get held(): number {
    return this.#holders.size
  }

  /** Whether it makes a difference to hear of changes. */
  get isIdle(): boolean {
    return this.#open.size === 0 && this.indexes.specs.length === 0 && this.#searching === undefined
  }

  /** A record is another now, or gone: after it has become so in the source, each time. */
  set(key: string, value: unknown): void {
    this.indexes.set(key, value)
    this.#searching?.set(key, value)
    for (const query of this.#untied) query.judge(key, value)
    if (this.#tied.size === 0) return
    const holders = this.#holders.get(key)
    if (holders instanceof LiveQuery) holders.judge(key, value)
    else if (holders !== undefined) { for (const query of Array.from(holders)) query.judge(key, value) }
    if (value === undefined) return
    for (const { byValue, names } of this.#tied.values()) {
      const queries = byValue.get(fieldAt(value, names))
      if (queries instanceof LiveQuery) { if (queries !== holders) queries.judge(key, value) }
      else if (queries !== undefined) {
        for (const query of queries) {
          if (query !== holders && !(holders instanceof Set && holders.has(query))) query.judge(key, value)
        }
      }
    }
  }

  /**
   * Asks a query, from now on until the function that is answered is called. The first version comes with the `flush` after it is
   * complete, unless there was one already. It is a query that `Query.parse` has passed.
   *
   * @throws QueryInvalid for a cursor of another query, and for a search where nothing is searched
   * @throws QueryTooExpensive for a search
   */
  ask(query: Query.Query, listener: (delta: Delta) => void, view?: View): readonly [Live, close: () => void] {
    const identity = identityOf(query, view)
    let live = this.#open.get(identity)
    if (live === undefined) {
      live = this.#make(query, view, identity)
      this.#open.set(identity, live)
      this.soil(live)
    }
    const asked = live
    // Each who asks is another, be it with the same function.
    const told = (delta: Delta) => listener(delta)
    asked.listeners.add(told)
    return [asked, () => {
      if (asked.listeners.delete(told) && asked.listeners.size === 0) this.#close(asked)
    }]
  }

  /** From now on text is found, too: by what has heard of all records, and hears of all changes. */
  searchBy(searching: Searching): void {
    this.#searching = searching
  }

  /**
   * How a query would be answered now.
   *
   * @throws QueryInvalid for a search where nothing is searched
   * @throws QueryTooExpensive for a search
   */
  explain(query: Query.Query, view?: View): Explanation {
    if (query.search !== undefined && query.hybrid !== true) {
      const step = this.#searched().step(query)
      const { candidates } = step
      return {
        plan: "index",
        steps: [step],
        candidates,
        records: this.source.size(),
        isOrdered: Query.isRanked(query),
        ties: undefined
      }
    }
    const node = query.where === undefined ? undefined : read(query.where)
    const plan = this.plan(node, query, view)
    const ties = node === undefined ? undefined : QueryPlan.tiesOf(node)
    return {
      plan: plan.keys === undefined ? "scan" : "index",
      steps: plan.steps,
      candidates: plan.candidates,
      records: this.source.size(),
      isOrdered: plan.isOrdered,
      ties: ties === undefined ? undefined : Array.from(new Set(ties.map(({ names }) => pathOf(names))))
    }
  }

  /** Counts the records that a query finds, whatever its limit, in steps: one that changes meanwhile counts as it was, or as it is. */
  *counting({ where }: Query.Query, view?: View): Iterator<void, number> {
    const { source } = this
    const node = where === undefined ? undefined : read(where)
    const test = where === undefined ? () => true : Predicate.compile(where)
    const isFound = (value: unknown): boolean => {
      const shown = value === undefined || view === undefined ? value : view.show(value)
      return shown !== undefined && test(shown) === true
    }
    const { keys } = this.plan(node, {}, view)
    let count = 0
    if (keys === undefined) {
      const fields = view === undefined && where !== undefined ? fieldsOf({ where }) : undefined
      const look = (_: string, value: unknown): false => {
        if (isFound(value)) count++
        return false
      }
      for (let part = 0; part < source.parts; part++) {
        if (fields !== undefined && source.find !== undefined) source.find(part, fields, look, () => {})
        else source.visit(part, look)
        yield
      }
      return count
    }
    // Two conditions, or two elements of a list, may find one record.
    const counted = new Set<string>()
    let looked = 0
    for (const key of keys()) {
      if (isFound(source.get(key))) counted.add(key)
      if (++looked % STEP_LENGTH === 0) yield
    }
    return counted.size
  }

  /** Looks at more records for queries that are being filled, until it is time to stop. Answers whether all are complete. */
  advance(isTimeToStop: () => boolean = () => false): boolean {
    for (const query of this.#dirty) {
      while (!query.advance()) if (isTimeToStop()) return false
    }
    return true
  }

  /**
   * Tells those who have asked what has changed, until it is time to stop. Answers whether all is told: where queries are still to be
   * filled, it is time for some more of {@link advance}.
   */
  flush(isTimeToStop: () => boolean = () => false): boolean {
    let isDone = true
    // What is told may make another dirty, which is looked at in the same round.
    for (const query of this.#dirty) {
      const delta = query.flush()
      if (!query.isComplete) {
        isDone = false
        continue
      }
      this.#dirty.delete(query)
      if (delta === undefined) continue
      for (const listener of Array.from(query.listeners)) listener(delta)
      if (isTimeToStop()) return this.#dirty.size === 0
    }
    return isDone
  }

  /** As {@link flush}, with as much of {@link advance} as it takes. */
  settle(): void {
    do this.advance()
    while (!this.flush())
  }

  // --- For its queries ---

  plan(node: Node | undefined, query: Query.Query, view: View | undefined): QueryPlan.Plan {
    const { limit } = query
    return QueryPlan.make(this.indexes, this.source.size(), {
      where: node,
      orderBy: query.orderBy ?? [],
      rows: limit === undefined ? undefined : limit + 1,
      mayUseOrder: view === undefined && query.cursor === undefined
    })
  }

  soil(query: Live): void {
    if (this.#dirty.size === 0) this.#onDirty()
    this.#dirty.add(query)
  }

  hold(key: string, query: LiveQuery): void {
    addTo(this.#holders, key, query)
  }

  release(key: string, query: LiveQuery): void {
    deleteFrom(this.#holders, key, query)
  }

  #make(query: Query.Query, view: View | undefined, identity: string): Live {
    if (query.search === undefined) {
      const live = new LiveQuery(this, query, view, identity)
      this.#tie(live)
      return live
    }
    return this.#searched().ask(query, view, identity)
  }

  #searched(): Searching {
    if (this.#searching !== undefined) return this.#searching
    throw new QueryInvalid({
      path: "$.search",
      reason: "the map isn't searched: declare by which fields, as in Grid.map(name, schema, { search: { text: 1 } })"
    })
  }

  #tie(query: LiveQuery): void {
    if (query.ties === undefined) return void this.#untied.add(query)
    for (const { names, to } of query.ties) {
      const path = pathOf(names)
      let tied = this.#tied.get(path)
      if (tied === undefined) this.#tied.set(path, tied = { names, byValue: new Map() })
      addTo(tied.byValue, to, query)
    }
  }

  #close(query: Live): void {
    this.#open.delete(query.identity)
    this.#dirty.delete(query)
    if (query instanceof LiveQuery) this.#untied.delete(query)
    for (const { names, to } of query.ties ?? []) {
      const path = pathOf(names)
      const byValue = this.#tied.get(path)?.byValue
      if (byValue !== undefined) deleteFrom(byValue, to, query as LiveQuery)
      if (byValue?.size === 0) this.#tied.delete(path)
    }
    query.close()
  }
}
