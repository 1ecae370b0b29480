/**
 * The rows that a live query shows, and some that come right after them, in order: what is changed by single records without
 * looking at any other. Pure.
 *
 * A window of a query with a limit holds up to twice as many rows. It knows all matching rows up to its **edge**; beyond, there may be
 * others that it doesn't know. When it has lost so many that it can't say what comes next it is to be filled again, which happens
 * once in as many removals as it holds rows to spare.
 */
import { SortedList } from "./internal/SortedList.ts"
import type { Ordering, Place, Row } from "./Query.ts"

/** What became of a row that is shown. */
export type RowChange =
  | { readonly type: "enter"; readonly key: string; readonly value: unknown; readonly score?: number }
  /** Another value, in the same place as far as the query's order goes. */
  | { readonly type: "update"; readonly key: string; readonly value: unknown; readonly score?: number }
  /** Another value that is ordered otherwise. */
  | { readonly type: "move"; readonly key: string; readonly value: unknown; readonly score?: number }
  | { readonly type: "leave"; readonly key: string }

/** What a window is told to. */
export interface Options {
  readonly ordering: Ordering
  /** Rows that are shown, at most. */
  readonly limit: number | undefined
  /** A key comes into the window, or goes from it. */
  readonly onHold?: ((key: string) => void) | undefined
  readonly onRelease?: ((key: string) => void) | undefined
}

/** Rows beyond those that are shown, at least and at most. */
const SPARE = { min: 32, max: 1_000 } as const

/** See the head of this file. */
export class QueryWindow {
  readonly #ordering: Ordering
  readonly #limit: number
  readonly #lengthMax: number
  readonly #onHold: ((key: string) => void) | undefined
  readonly #onRelease: ((key: string) => void) | undefined
  readonly #list: SortedList<Row>
  readonly #rows = new Map<string, Row>()
  /** Where what it knows ends; `undefined` when it knows everything. */
  #edge: Place | undefined
  /** The rows that have changed since they were shown last, as they were then. */
  readonly #touched = new Map<string, Row | undefined>()
  /** The rows that were shown last. */
  #shown: ReadonlyArray<Row> = []
  #hadMore = false

  constructor({ limit, onHold, onRelease, ordering }: Options) {
    this.#ordering = ordering
    this.#limit = limit ?? Number.POSITIVE_INFINITY
    this.#lengthMax = this.#limit + Math.min(SPARE.max, Math.max(SPARE.min, this.#limit))
    this.#onHold = onHold
    this.#onRelease = onRelease
    this.#list = new SortedList<Row>(ordering.compare)
  }

  /** The rows that are shown, in order. */
  get shown(): ReadonlyArray<Row> {
    return this.#shown
  }

  /** Whether there are rows after those that are shown. */
  get hasMore(): boolean {
    return this.#hadMore
  }

  /** Whether something has changed since {@link show}. */
  get isDirty(): boolean {
    return this.#touched.size > 0
  }

  /** Whether it can't say what is to be shown, or whether there is more. */
  get isShort(): boolean {
    return this.#edge !== undefined && this.#list.size <= this.#limit
  }

  has(key: string): boolean {
    return this.#rows.has(key)
  }

  /** Whether there is room for a record in what it knows of. Fields that have no part in the order needn't be there. */
  takes(key: string, value: unknown): boolean {
    return this.#edge === undefined || this.#ordering.compareTo(key, value, this.#edge) <= 0
  }

  /** Takes in a record that matches, or its new value. */
  put(key: string, value: unknown): void {
    const before = this.#rows.get(key)
    if (before !== undefined && before.value === value) return
    const isKnown = this.takes(key, value)
    if (before === undefined && !isKnown) return
    this.#touch(key, before)
    if (before !== undefined && !isKnown) {
      this.#list.delete(before)
      return this.#release(key)
    }
    const row = { key, value, sort: this.#ordering.sortOf(value) }
    this.#rows.set(key, row)
    if (before === undefined) {
      this.#list.add(row)
      this.#onHold?.(key)
      if (this.#list.size > this.#lengthMax) this.#trim()
    } else if (this.#ordering.compare(before, row) === 0) this.#list.replace(row)
    else {
      this.#list.delete(before)
      this.#list.add(row)
    }
  }

  /** A record matches no more, or is gone. */
  delete(key: string): void {
    const row = this.#rows.get(key)
    if (row === undefined) return
    this.#touch(key, row)
    this.#list.delete(row)
    this.#release(key)
  }

  /** Begins to be filled: what it holds is known no more, until it was put again. */
  refill(): void {
    for (const [key, row] of this.#rows) {
      this.#touch(key, row)
      this.#onRelease?.(key)
    }
    this.#rows.clear()
    this.#list.clear()
    this.#edge = undefined
  }

  /** It was filled in order up to here, where there were enough rows: nothing beyond is known. */
  endAt(key: string): void {
    const last = this.#rows.get(key)
    if (last === undefined) return
    for (let row = this.#list.last; row !== undefined && this.#ordering.compare(row, last) > 0; row = this.#list.last) {
      this.#drop(row)
    }
    this.#edge = last
  }

  /** Whether it has one row more than it needs to show, and to say that there is more. */
  get isFull(): boolean {
    return this.#list.size >= this.#lengthMax
  }

  /** Shows what there is now. Answers what has changed since it did so before; `undefined` for nothing. */
  show(): ReadonlyArray<RowChange> | undefined {
    const hasMore = this.#edge !== undefined || this.#list.size > this.#limit
    if (!this.isDirty && hasMore === this.#hadMore) return undefined
    const before = this.#shown
    const after = this.#list.take(this.#limit)
    const lastBefore = before.length === this.#limit ? before[before.length - 1] : undefined
    const lastAfter = after.length === this.#limit ? after[after.length - 1] : undefined
    let keys: Iterable<string> = this.#touched.keys()
    if (this.#limit < Number.POSITIVE_INFINITY) {
      // As many as came or went can have been pushed over the border of what is shown.
      const crossing = this.#touched.size
      const all = new Set(keys)
      for (let i = 1; i <= crossing && i <= before.length; i++) all.add(before[before.length - i]!.key)
      for (let i = 1; i <= crossing && i <= after.length; i++) all.add(after[after.length - i]!.key)
      keys = all
    }
    const changes: Array<RowChange> = []
    for (const key of keys) {
      const row = this.#rows.get(key)
      const old = this.#touched.has(key) ? this.#touched.get(key) : row
      const change = this.#changeOf(key, this.#isUpTo(old, lastBefore), this.#isUpTo(row, lastAfter))
      if (change !== undefined) changes.push(change)
    }
    this.#touched.clear()
    this.#shown = after
    const isNews = changes.length > 0 || hasMore !== this.#hadMore
    this.#hadMore = hasMore
    return isNews ? changes : undefined
  }

  #isUpTo(row: Row | undefined, last: Row | undefined): Row | undefined {
    return row === undefined || last === undefined || this.#ordering.compare(row, last) <= 0 ? row : undefined
  }

  #changeOf(key: string, before: Row | undefined, after: Row | undefined): RowChange | undefined {
    if (after === undefined) return before === undefined ? undefined : { type: "leave", key }
    const { value } = after
    if (before === undefined) return { type: "enter", key, value }
    if (before.value === value) return undefined
    return { type: this.#ordering.compare(before, after) === 0 ? "update" : "move", key, value }
  }

  #touch(key: string, before: Row | undefined): void {
    if (!this.#touched.has(key)) this.#touched.set(key, before)
  }

  #trim(): void {
    this.#drop(this.#list.last!)
    this.#edge = this.#list.last
  }

  #drop(row: Row): void {
    this.#touch(row.key, row)
    this.#list.delete(row)
    this.#release(row.key)
  }

  #release(key: string): void {
    this.#rows.delete(key)
    this.#onRelease?.(key)
  }
}
