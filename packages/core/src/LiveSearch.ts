/**
 * Live searches: queries of text in the records of one map, beside its other ones. Pure.
 *
 * A search is made anew when a record changes that it finds, or would have found before the change: with an index of words that costs
 * less than to keep ranks up to date, as each record more or less changes the scores of all a little. Changes of others leave it
 * alone: its scores are those of the last version, which was exact.
 *
 * **For whom.** Who may read some records only is answered as if there were no others, scores included.
 *
 * **Hybrid.** Ranks by words and ranks by the query's order are fused (`FullText.fuse`), of each the first {@link fusedMax}.
 */
import { QueryInvalid, QueryTooExpensive } from "./GridError.ts"
import {
  type Analyzer,
  type Explanation,
  FullTextIndex,
  fuse,
  type Hit,
  type Options,
  type Parsed
} from "./FullText.ts"
import type { Delta, Live, LiveQueries, Searching, View } from "./LiveQueries.ts"
import * as Predicate from "./Predicate.ts"
import * as Query from "./Query.ts"
import type { Step } from "./QueryPlan.ts"
import type { RowChange } from "./QueryWindow.ts"

/** Rows of each of two rankings that are fused. */
export const fusedMax = 1_000

/** The records that those see who share a view: asked for each record of a search, and so known beforehand. */
interface Audience {
  readonly view: View
  readonly keys: Set<string>
  /** Whether a record is among them; one function for as long as it lives, as an index remembers what it has counted for it. */
  readonly among: (key: string) => boolean
  /** Goes on with looking at all records; `undefined` when all were. */
  building: Iterator<void> | undefined
  followers: number
}

/** Audiences that nobody belongs to and that are kept nevertheless, as one may come back: the last ones. */
const idleAudiencesMax = 16

const namingPlace = <A>(run: () => A): A => {
  try {
    return run()
  } catch (fault) {
    if (fault instanceof QueryInvalid) throw new QueryInvalid({ path: `$.${fault.path}`, reason: fault.reason })
    if (fault instanceof QueryTooExpensive) {
      throw new QueryTooExpensive({ path: `$.${fault.path}`, reason: fault.reason })
    }
    throw fault
  }
}

/** The searches of one map. */
export class LiveSearches implements Searching {
  readonly index: FullTextIndex
  readonly queries: LiveQueries
  readonly #searches = new Set<LiveSearch>()
  readonly #audiences = new Map<string, Audience>()
  /** Those that nobody belongs to, in the order in which the last one left. */
  readonly #idle = new Set<Audience>()

  constructor(queries: LiveQueries, options: Options, analyzer: Analyzer) {
    this.queries = queries
    this.index = new FullTextIndex(options, analyzer)
  }

  /** Takes in what there is, in steps, between which the map may change; then it is ready to be searched by. */
  *build(): Generator<void> {
    const { source } = this.queries
    // From now on it hears of changes; what it meets again is the same.
    this.queries.searchBy(this)
    for (let part = 0; part < source.parts; part++) {
      source.visit(part, (key, value) => this.index.set(key, value))
      yield
    }
  }

  set(key: string, value: unknown): void {
    const touched = new Set<LiveSearch>()
    for (const search of this.#searches) if (search.concerns(key)) touched.add(search)
    if (value === undefined) this.index.remove(key)
    else this.index.set(key, value)
    for (const { keys, view } of this.#audiences.values()) {
      if (value !== undefined && view.show(value) !== undefined) keys.add(key)
      else keys.delete(key)
    }
    for (const search of this.#searches) {
      if (touched.has(search) || search.concerns(key)) search.judge(key)
    }
  }

  ask(query: Query.Query, view: View | undefined, identity: string): LiveSearch {
    const search = new LiveSearch(this, query, this.#parse(query), view && this.#audienceOf(view), identity)
    this.#searches.add(search)
    return search
  }

  step(query: Query.Query): Step {
    const parsed = this.#parse(query)
    const found = this.index.search(parsed)
    return { index: { fields: parsed.fields, kind: "inverted" }, by: "words", candidates: found.length }
  }

  /**
   * Why a search gives a record its score; `undefined` where it doesn't find it, or where a predicate has a part in that: what is fused has
   * ranks instead of scores.
   */
  explain(query: Query.Query, key: string, view?: View): Explanation | undefined {
    if (query.hybrid === true) return undefined
    const value = this.queries.source.get(key)
    const shown = value === undefined || view === undefined ? value : view.show(value)
    if (shown === undefined || (query.where !== undefined && Predicate.compile(query.where)(shown) !== true)) {
      return undefined
    }
    if (view === undefined) return this.index.explain(this.#parse(query), key)
    const among = (other: string) => view.show(this.queries.source.get(other)) !== undefined
    return this.index.explain(this.#parse(query), key, { among })
  }

  #parse(query: Query.Query): Parsed {
    const { fields, prefix, text } = Query.searchOf(query)!
    return namingPlace(() => this.index.parse(text, { fields, prefix }))
  }

  /** A search is no more asked. */
  drop(search: LiveSearch, audience: Audience | undefined): void {
    this.#searches.delete(search)
    if (audience === undefined || --audience.followers > 0) return
    this.#idle.add(audience)
    if (this.#idle.size > idleAudiencesMax || audience.building !== undefined) {
      const [longest] = audience.building === undefined ? this.#idle : [audience]
      this.#idle.delete(longest!)
      this.#audiences.delete(longest!.view.key)
    }
  }

  /** Searches that are live. */
  get size(): number {
    return this.#searches.size
  }

  #audienceOf(view: View): Audience {
    let audience = this.#audiences.get(view.key)
    if (audience === undefined) {
      const keys = new Set<string>()
      audience = { view, keys, among: (key) => keys.has(key), building: this.#gather(view, keys), followers: 0 }
      this.#audiences.set(view.key, audience)
    }
    this.#idle.delete(audience)
    audience.followers++
    return audience
  }

  *#gather(view: View, keys: Set<string>): Iterator<void> {
    const { source } = this.queries
    for (let part = 0; part < source.parts; part++) {
      source.visit(part, (key, value) => {
        if (view.show(value) !== undefined) keys.add(key)
      })
      yield
    }
  }
}

/** A query with a text to be found. */
export class LiveSearch implements Live {
  readonly query: Query.Query
  readonly identity: string
  readonly ties = undefined
  readonly listeners = new Set<(delta: Delta) => void>()
  readonly #searches: LiveSearches
  readonly #parsed: Parsed
  readonly #audience: Audience | undefined
  readonly #test: Predicate.Test
  readonly #ordering: Query.Ordering
  readonly #after: Query.Place | undefined
  /** The records that `where` finds, in the query's order, for a hybrid search. */
  readonly #others: readonly [live: Live, close: () => void] | undefined
  /** The values of rows: a source may make another of the same record each time. */
  readonly #values = new Map<string, unknown>()
  #isDirty = true
  #rows: ReadonlyArray<Query.Row> = []
  #hasMore = false
  #version = 0

  constructor(
    searches: LiveSearches,
    query: Query.Query,
    parsed: Parsed,
    audience: Audience | undefined,
    identity: string
  ) {
    this.#searches = searches
    this.query = query
    this.#parsed = parsed
    this.#audience = audience
    this.identity = identity
    const { hybrid, orderBy, where } = query
    this.#test = where === undefined || hybrid === true ? () => true : Predicate.compile(where)
    this.#ordering = Query.orderingOf(query)
    this.#after = Query.positionOf(query)
    if (hybrid === true) {
      const others = { where: where!, limit: fusedMax, ...orderBy === undefined ? {} : { orderBy } }
      this.#others = searches.queries.ask(others, () => this.#soil(), audience?.view)
    }
  }

  get version(): number {
    return this.#version
  }

  get isComplete(): boolean {
    return this.#audience?.building === undefined && (this.#others === undefined || this.#others[0].version > 0)
  }

  get rows(): ReadonlyArray<Query.Row> {
    return this.#rows
  }

  get hasMore(): boolean {
    return this.#hasMore
  }

  /** What it waits for is shared with others, or is a query of its own beside it. */
  advance(): boolean {
    const audience = this.#audience
    if (audience?.building?.next().done === true) audience.building = undefined
    return audience?.building === undefined && (this.#others === undefined || this.#others[0].advance())
  }

  /** Whether it finds a record as it is, or shows it. */
  concerns(key: string): boolean {
    return this.#values.has(key) || this.#searches.index.matches(this.#parsed, key, this.#view)
  }

  /** A record that it finds, or has found, is another now. */
  judge(key: string): void {
    this.#values.delete(key)
    this.#soil()
  }

  flush(): Delta | undefined {
    if (!this.isComplete || !this.#isDirty) return undefined
    this.#isDirty = false
    const before = this.#rows
    const hadMore = this.#hasMore
    const { hasMore, rows } = this.#evaluate()
    this.#rows = rows
    this.#hasMore = hasMore
    const changes = changesOf(before, rows)
    const shown = new Set(rows.map(({ key }) => key))
    for (const key of this.#values.keys()) if (!shown.has(key)) this.#values.delete(key)
    if (changes.length === 0 && hasMore === hadMore && this.#version > 0) return undefined
    this.#version++
    return { version: this.#version, changes, hasMore }
  }

  close(): void {
    this.#others?.[1]()
    this.#searches.drop(this, this.#audience)
  }

  get #view() {
    return this.#audience === undefined ? {} : { among: this.#audience.among }
  }

  #soil(): void {
    this.#isDirty = true
    this.#searches.queries.soil(this)
  }

  /** A record as it is shown; `undefined` where it isn't there for who asks. */
  #shown(key: string): unknown {
    const known = this.#values.get(key)
    if (known !== undefined) return known
    const value = this.#searches.queries.source.get(key)
    const shown = value === undefined || this.#audience === undefined ? value : this.#audience.view.show(value)
    if (shown !== undefined) this.#values.set(key, shown)
    return shown
  }

  #evaluate(): { readonly rows: ReadonlyArray<Query.Row>; readonly hasMore: boolean } {
    const { hybrid, limit = Number.POSITIVE_INFINITY, where } = this.query
    const accept = (key: string): boolean => {
      const shown = this.#shown(key)
      return shown !== undefined && this.#test(shown) === true
    }
    /** Whether the index knows which come first. */
    const isRanked = this.#ordering === Query.byScore && this.#after === undefined && hybrid !== true
    const hits = this.#searches.index.search(this.#parsed, {
      ...this.#view,
      ...where === undefined || hybrid === true ? {} : { accept },
      ...hybrid === true
        ? { limit: fusedMax }
        : isRanked && limit < Number.POSITIVE_INFINITY
        ? { limit: limit + 1 }
        : {}
    })
    const found: ReadonlyArray<Hit> = hybrid === true
      ? fuse([hits.map(({ key }) => key), this.#others![0].rows.map(({ key }) => key)])
      : hits
    const rows: Array<Query.Row> = []
    for (const { key, score } of found) {
      if (isRanked && rows.length > limit) break
      const value = this.#shown(key)
      if (value === undefined) continue
      const sort = this.#ordering === Query.byScore ? score : this.#ordering.sortOf(value)
      const row = { key, value, sort, score }
      if (this.#after === undefined || this.#ordering.compare(row, this.#after) > 0) rows.push(row)
    }
    if (this.#ordering !== Query.byScore) rows.sort(this.#ordering.compare)
    return { rows: rows.slice(0, limit), hasMore: rows.length > limit }
  }
}

/** What has become of rows, in the order in which they are now. */
const changesOf = (before: ReadonlyArray<Query.Row>, after: ReadonlyArray<Query.Row>): ReadonlyArray<RowChange> => {
  const gone = new Map(before.map((row) => [row.key, row]))
  const changes: Array<RowChange> = []
  for (const row of after) {
    const { key, value } = row
    const score = row.score!
    const old = gone.get(key)
    gone.delete(key)
    if (old === undefined) changes.push({ type: "enter", key, value, score })
    else if (old.score !== score) changes.push({ type: "move", key, value, score })
    else if (old.value !== value) changes.push({ type: "update", key, value, score })
  }
  for (const key of gone.keys()) changes.push({ type: "leave", key })
  return changes
}
