/**
 * A query that an application has open, in what both forms of the client have in common: what it shows, how that changes, and how its
 * limit grows. What it is asked of, this device's records or the server, may change meanwhile.
 */
import {
  ClientClosed,
  type ConnectionLost,
  type MapKindMismatch,
  type Overloaded,
  type PermissionDenied,
  QueryInvalid,
  type QueryTooExpensive
} from "@topgun/core/GridError"
import type * as LiveQueries from "@topgun/core/LiveQueries"
import * as Query from "@topgun/core/Query"
import type { RowChange } from "@topgun/core/QueryWindow"
import * as Value from "@topgun/core/Value"
import * as Effect from "effect/Effect"
import * as Lives from "./Live.ts"
import { type Asked, atEndOfTick } from "./LocalQueries.ts"
import type { QueryChange, QueryDelta, QueryRow, QueryState } from "./QueryTypes.ts"

/** Why a question about a map isn't answered. */
export type QueryFault =
  | QueryInvalid
  | QueryTooExpensive
  | PermissionDenied
  | MapKindMismatch
  | Overloaded
  | ConnectionLost
  | ClientClosed

/** A query as it is asked of what answers it. */
export interface Answered extends Asked {
  /** Whether what it is asked of has answered, or refused to. */
  readonly isAnswered: () => boolean
  readonly isComplete: () => boolean
  readonly hasMore: () => boolean
  readonly refusal: () => QueryFault | undefined
}

/** Asks a query. `onDelta` is called for each version, `onStatus` whenever what it tells beside its rows may be other than before. */
export type Ask = (
  query: Query.Query,
  onDelta: (delta: LiveQueries.Delta) => void,
  onStatus: () => void
) => Answered

/** A limit that grows. */
interface Growth {
  readonly query: Query.Query
  readonly answered: Answered
  readonly waiting: Set<(outcome: Effect.Effect<void, QueryFault>) => void>
}

const noRows: ReadonlyArray<never> = Object.freeze([])

const isSame = <A>(a: ReadonlyArray<A>, b: ReadonlyArray<A>): boolean =>
  a === b || (a.length === b.length && a.every((each, i) => each === b[i]))

/** What one who is told of changes is still to be told. */
export class Changes<A> {
  readonly #query: OpenQuery<A>
  readonly #onNews: () => void
  /** The rows that were changed since, as they were told last. */
  readonly #touched = new Map<string, { readonly before: QueryRow<A> | undefined; isMoved: boolean }>()
  #version = 0

  constructor(query: OpenQuery<A>, onNews: () => void) {
    this.#query = query
    this.#onNews = onNews
  }

  touch(key: string, before: QueryRow<A> | undefined, isMoved: boolean): void {
    const touched = this.#touched.get(key)
    if (touched === undefined) this.#touched.set(key, { before, isMoved })
    else touched.isMoved ||= isMoved
  }

  news(): void {
    this.#onNews()
  }

  /** What has changed since the last time; `undefined` for nothing. */
  take(): QueryDelta<A> | undefined {
    const { hasMore, status } = this.#query.current
    if (status === "loading" || this.#query.version === this.#version) return undefined
    const after = this.#version
    this.#version = this.#query.version
    const changes: Array<QueryChange<A>> = []
    for (const [key, { before, isMoved }] of this.#touched) {
      const row = this.#query.row(key)
      if (row === before) continue
      if (row === undefined) changes.push({ type: "leave", key })
      else changes.push({ type: before === undefined ? "enter" : isMoved ? "move" : "update", ...row })
    }
    this.#touched.clear()
    return { version: this.#version, after, changes, hasMore }
  }
}

/** See the head of this file. */
export class OpenQuery<A> {
  readonly map: string
  readonly #select: (value: unknown) => A
  readonly #isSelected: boolean
  readonly #step: number | undefined
  readonly #onFault: (fault: unknown) => void
  readonly #listeners = new Set<(state: QueryState<A>) => void>()
  readonly #changes = new Set<Changes<A>>()
  readonly #tellSoon = atEndOfTick(() => this.#tell())
  #query: Query.Query
  #askWith: Ask | undefined
  #answered: Answered | undefined
  #growth: Growth | undefined
  #byKey = new Map<string, QueryRow<A>>()
  /** Whether the rows in `#state` may be others now. */
  #isStale = true
  #state: QueryState<A> = { rows: noRows, status: "loading", isComplete: false, hasMore: false }
  #told: QueryState<A> | undefined
  #version = 0
  #failure: QueryFault | undefined
  #isClosed = false
  #onClose: () => void = () => {}

  /** A query that `Query.parse` has passed; it is loading until it is {@link ask}ed. */
  constructor(map: string, query: Query.Query, onFault: (fault: unknown) => void) {
    this.map = map
    this.#query = query
    this.#step = query.limit
    this.#isSelected = query.select !== undefined
    this.#select = Query.selector(query.select) as (value: unknown) => A
    this.#onFault = onFault
  }

  get query(): Query.Query {
    return this.#query
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  /** Grows with each change of the rows, or of whether there are more, that was looked at. */
  get version(): number {
    return this.#version
  }

  /** Who listens to its rows may be told of others at the end of the tick. */
  readonly look = (): void => {
    if (this.#listeners.size > 0 || this.#changes.size > 0) this.#tellSoon()
  }

  // --- Being answered ---

  /** Has it answered by something, instead of what has answered it so far. Where that throws, all is as before. */
  ask(ask: Ask): void {
    if (this.#isClosed) return
    const growth = this.#growth
    const query = growth?.query ?? this.#query
    const answered = this.#asked(ask, query)
    this.#growth = undefined
    growth?.answered.close()
    this.#askWith = ask
    this.#follow(query, answered)
    for (const settle of growth?.waiting ?? []) settle(Effect.void)
  }

  #asked(ask: Ask, query: Query.Query): Answered {
    const own: { answered?: Answered } = {}
    const answered = own.answered = ask(
      query,
      (delta) => {
        if (own.answered !== undefined && own.answered === this.#answered) this.#take(delta.changes)
      },
      () => {
        if (own.answered === undefined) return
        if (own.answered === this.#answered) this.look()
        else this.#grow()
      }
    )
    return answered
  }

  /** Shows what is answered by this from now on. */
  #follow(query: Query.Query, answered: Answered): void {
    answered.settle()
    const before = this.#answered
    this.#query = query
    this.#answered = answered
    before?.close()
    const kept = new Set(answered.live.rows.map(({ key }) => key))
    const left = Array.from(this.#byKey.keys()).filter((key) => !kept.has(key))
    this.#take([
      ...left.map((key): RowChange => ({ type: "leave", key })),
      ...answered.live.rows.map((row): RowChange => ({ type: "move", ...row }))
    ])
  }

  #take(changes: ReadonlyArray<RowChange>): void {
    for (const change of changes) {
      const { key } = change
      const before = this.#byKey.get(key)
      if (change.type === "leave") {
        if (before === undefined) continue
        this.#byKey.delete(key)
      } else {
        const value = this.#select(change.value)
        const { score } = change
        if (before !== undefined && before.score === score && this.#shows(before.value, value)) continue
        this.#byKey.set(key, Object.freeze(score === undefined ? { key, value } : { key, value, score }))
      }
      for (const each of this.#changes) each.touch(key, before, change.type === "move")
    }
    this.#isStale = true
    this.look()
  }

  #shows(before: A, value: A): boolean {
    return before === value || (this.#isSelected && Value.equal(before, value))
  }

  /** It can't be answered. */
  readonly fail = (failure: QueryFault): void => {
    if (this.#isClosed) return
    this.#failure = failure
    this.look()
  }

  // --- Being read ---

  row(key: string): QueryRow<A> | undefined {
    return this.#byKey.get(key)
  }

  /** How it stands, at this moment. */
  get current(): QueryState<A> {
    if (this.#isClosed) return this.#state
    const before = this.#state
    const next = this.#failure === undefined ? this.#read() : this.#failed(this.#failure)
    const isOther = next.rows !== before.rows || next.hasMore !== before.hasMore ||
      (before.status === "loading" && next.status !== "loading")
    if (isOther) this.#version++
    if (
      isOther || next.status !== before.status || next.isComplete !== before.isComplete || next.error !== before.error
    ) {
      this.#state = Object.freeze(next)
    }
    return this.#state
  }

  #failed(error: QueryFault): QueryState<A> {
    this.#take(Array.from(this.#byKey.keys(), (key): RowChange => ({ type: "leave", key })))
    return { rows: noRows, status: "error", isComplete: false, hasMore: false, error }
  }

  #read(): QueryState<A> {
    const answered = this.#answered
    if (answered === undefined) return this.#state
    answered.settle()
    const rows = this.#rowsOf(answered)
    const hasMore = answered.hasMore()
    const error = answered.refusal()
    const last = answered.live.rows.at(-1)
    return {
      rows,
      status: error === undefined ? "ready" : "error",
      isComplete: answered.isComplete(),
      hasMore,
      ...hasMore && last !== undefined
        ? { cursor: (rows === this.#state.rows ? this.#state.cursor : undefined) ?? Query.cursorOf(this.#query, last) }
        : {},
      ...error === undefined ? {} : { error }
    }
  }

  #rowsOf({ live }: Answered): ReadonlyArray<QueryRow<A>> {
    if (!this.#isStale) return this.#state.rows
    this.#isStale = false
    const rows = live.rows.map(({ key }) => this.#byKey.get(key)!)
    return isSame(rows, this.#state.rows) ? this.#state.rows : Object.freeze(rows)
  }

  // --- Telling ---

  #tell(): void {
    if (this.#isClosed) return
    const { current } = this
    if (current !== this.#told) {
      this.#told = current
      Lives.notifyAll(Array.from(this.#listeners), current, this.#onFault)
    }
    for (const each of Array.from(this.#changes)) each.news()
  }

  subscribe(listener: (state: QueryState<A>) => void, signal?: AbortSignal): () => void {
    if (this.#listeners.size === 0) this.#told = this.current
    return Lives.subscribeTo(this.#listeners, listener, signal)
  }

  /** What changes of its rows, beginning with all of them. `onNews` is called when it is worth while to take some. */
  listen(onNews: (changes: Changes<A>) => void): { readonly changes: Changes<A>; readonly stop: () => void } {
    const changes: Changes<A> = new Changes(this, () => onNews(changes))
    for (const key of this.#byKey.keys()) changes.touch(key, undefined, false)
    this.#changes.add(changes)
    this.#tellSoon()
    return { changes, stop: () => void this.#changes.delete(changes) }
  }

  // --- Growing ---

  /** Grows the limit; completes when the grown result is there. */
  fetchMore(count: number | undefined): Effect.Effect<void, QueryFault> {
    return Effect.async((resume) => {
      const step = count ?? this.#step
      const limit = (this.#growth?.query ?? this.#query).limit
      if (limit === undefined || step === undefined || this.#isClosed) return resume(Effect.void)
      if (!(Number.isInteger(step) && step >= 1 && limit + step <= Query.limitMax)) {
        return resume(
          new QueryInvalid({
            path: "$.limit",
            reason: `it grows by a whole number from 1, to ${Query.limitMax} at most`
          })
        )
      }
      const query = { ...(this.#growth?.query ?? this.#query), limit: limit + step }
      if (this.#failure !== undefined) return resume(Effect.fail(this.#failure))
      // Nobody answers it yet: it will be answered with the limit that it has then.
      if (this.#askWith === undefined) {
        this.#query = query
        return resume(Effect.void)
      }
      const before = this.#growth
      const waiting = before?.waiting ?? new Set()
      waiting.add(resume)
      this.#growth = { query, answered: this.#asked(this.#askWith, query), waiting }
      before?.answered.close()
      this.#grow()
      return Effect.sync(() => waiting.delete(resume))
    })
  }

  /** Shows the grown result, where it is there. */
  #grow(): void {
    const growth = this.#growth
    if (growth === undefined) return
    const { answered, query, waiting } = growth
    const refusal = answered.refusal()
    if (refusal === undefined && !answered.isAnswered()) return
    this.#growth = undefined
    if (refusal === undefined) this.#follow(query, answered)
    else answered.close()
    for (const settle of waiting) settle(refusal === undefined ? Effect.void : Effect.fail(refusal))
  }

  // --- Ending ---

  /** Calls a function when it is closed. */
  onClose(run: () => void): void {
    this.#onClose = run
  }

  /** Asks no more; what was shown last stays. */
  close(): void {
    if (this.#isClosed) return
    void this.current
    this.#end()
  }

  /** The client is closed: nothing of it is shown any more. */
  end(): void {
    if (this.#isClosed) return
    this.#failure = new ClientClosed()
    this.#tell()
    this.#end()
  }

  #end(): void {
    this.#isClosed = true
    this.#answered?.close()
    this.#growth?.answered.close()
    for (const settle of this.#growth?.waiting ?? []) settle(Effect.void)
    this.#growth = undefined
    this.#listeners.clear()
    for (const each of Array.from(this.#changes)) each.news()
    this.#changes.clear()
    this.#onClose()
  }
}
