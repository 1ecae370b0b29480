/**
 * Indexes over the values of one map, kept in the same pass as the map. Pure.
 *
 * | kind | finds | by |
 * |---|---|---|
 * | `hash` | `eq`, `in` | one field |
 * | `sorted` | `eq`, `in`, `gt`, `gte`, `lt`, `lte`, `between`, `startsWith`, and the order of `orderBy` | one to four fields: equal ones first, then a range or an order |
 * | `inverted` | `contains`, `containsAll`, `containsAny` | the elements of one field that is a list |
 *
 * What an index finds are candidates: whoever asks tests their values, as conditions may be about more than the index knows. It never
 * leaves out a record for which its condition is true. Records that have nothing at a field are in no hash or inverted index, and
 * first in a sorted one.
 *
 * Costs in memory per record, beside one entry for all indexes of a map: some 20 bytes in a hash index, 60 in a sorted one, a set's
 * entry for each element in an inverted one.
 */
import { fieldAt } from "./internal/comparisons.ts"
import { compareFields, isHashable } from "./internal/fieldValues.ts"
import type { Index as Spec } from "./internal/indexOptions.ts"
import { namesOf } from "./internal/paths.ts"
import { type Probe, SortedList } from "./internal/SortedList.ts"
import * as Query from "./Query.ts"

/** An index, as it is declared. */
export type { Index as Spec } from "./internal/indexOptions.ts"

/** Which of a map's records an index has. `update` is told what a value was before by nobody: it remembers what it needs. */
interface Kept {
  readonly update: (id: number, key: string, value: unknown) => void
  readonly remove: (id: number) => void
}

/** Ids of records with equal fields. Each knows its place, so that none is looked for. */
export class HashIndex implements Kept {
  readonly spec: Spec
  readonly names: ReadonlyArray<string>
  readonly #buckets = new Map<unknown, Array<number>>()
  /** By id: the field, `undefined` for none that is found by its hash. */
  readonly #fields: Array<unknown> = []
  readonly #places: Array<number> = []

  constructor(spec: Spec) {
    this.spec = spec
    this.names = namesOf(spec.fields[0]!, "$")
  }

  /** How many records have this field. */
  count(field: unknown): number {
    return this.#buckets.get(field)?.length ?? 0
  }

  /** Their ids. */
  ids(field: unknown): ReadonlyArray<number> {
    return this.#buckets.get(field)?.slice() ?? []
  }

  update(id: number, _: string, value: unknown): void {
    const found = fieldAt(value, this.names)
    const field = isHashable(found) ? found : undefined
    while (this.#fields.length <= id) {
      this.#fields.push(undefined)
      this.#places.push(0)
    }
    if (field === this.#fields[id]) return
    this.#take(id)
    this.#fields[id] = field
    if (field === undefined) return
    const bucket = this.#buckets.get(field)
    if (bucket === undefined) {
      this.#buckets.set(field, [id])
      this.#places[id] = 0
    } else this.#places[id] = bucket.push(id) - 1
  }

  remove(id: number): void {
    this.#take(id)
    this.#fields[id] = undefined
  }

  #take(id: number): void {
    const field = this.#fields[id]
    if (field === undefined) return
    const bucket = this.#buckets.get(field)!
    const last = bucket.pop()!
    if (last !== id) {
      const place = this.#places[id]!
      bucket[place] = last
      this.#places[last] = place
    } else if (bucket.length === 0) this.#buckets.delete(field)
  }
}

/** What a range of a sorted index begins and ends with, told by the field after those that are equal to something. */
export interface Range {
  /** What the first fields are equal to. */
  readonly equal: ReadonlyArray<unknown>
  /** Whether the next field comes before the range. The fields for which it holds come before all others. */
  readonly isBefore?: (field: unknown) => boolean
  /** Whether the next field doesn't come after the range. */
  readonly isUpTo?: (field: unknown) => boolean
}

/** Keys that are copied at a time: the index may change between one batch and the next. */
const WALK_LENGTH = 256

/** Records in the order of one field or of several. */
export class SortedIndex implements Kept {
  readonly spec: Spec
  readonly names: ReadonlyArray<ReadonlyArray<string>>
  readonly #ordering: Query.Ordering
  readonly #list: SortedList<Query.Place>
  readonly #entries: Array<Query.Place | undefined> = []

  constructor(spec: Spec) {
    this.spec = spec
    this.names = spec.fields.map((field) => namesOf(field, "$"))
    this.#ordering = Query.ordering(spec.fields.map((field) => ({ field })))
    this.#list = new SortedList(this.#ordering.compare)
  }

  update(id: number, key: string, value: unknown): void {
    while (this.#entries.length <= id) this.#entries.push(undefined)
    const before = this.#entries[id]
    if (before !== undefined) {
      if (this.#ordering.compareTo(key, value, before) === 0) return
      this.#list.delete(before)
    }
    const entry = { key, sort: this.#ordering.sortOf(value) }
    this.#entries[id] = entry
    this.#list.add(entry)
  }

  remove(id: number): void {
    const entry = this.#entries[id]
    if (entry === undefined) return
    this.#list.delete(entry)
    this.#entries[id] = undefined
  }

  count(range: Range): number {
    return this.#end(range) - this.#start(range)
  }

  /** The keys of a range in its order or, `backwards`, against it. The index may change meanwhile: what is still to come is as it is then. */
  *keys(range: Range, backwards = false): IterableIterator<string> {
    let last: Query.Place | undefined
    while (true) {
      let start = this.#start(range)
      let end = this.#end(range)
      if (last !== undefined) {
        const walked = last
        const passed = this.#list.countBefore((item) =>
          this.#ordering.compare(item, walked) < (backwards ? 0 : 1) ? -1 : 1
        )
        if (backwards) end = Math.min(end, passed)
        else start = Math.max(start, passed)
      }
      const batch = Array.from(
        this.#list.range(backwards ? end - 1 : start, Math.min(WALK_LENGTH, end - start), backwards)
      )
      if (batch.length === 0) return
      for (const { key } of batch) yield key
      last = batch[batch.length - 1]!
    }
  }

  #start({ equal, isBefore }: Range): number {
    return this.#list.countBefore(this.#probe(equal, (field) => isBefore?.(field) === true))
  }

  #end({ equal, isUpTo }: Range): number {
    return this.#list.countBefore(this.#probe(equal, (field) => isUpTo === undefined || isUpTo(field)))
  }

  #probe(equal: ReadonlyArray<unknown>, isBefore: (field: unknown) => boolean): Probe<Query.Place> {
    const single = this.names.length === 1
    return ({ sort }) => {
      for (let i = 0; i < equal.length; i++) {
        const order = compareFields(single ? sort : (sort as ReadonlyArray<unknown>)[i], equal[i])
        if (order !== 0) return order
      }
      return isBefore(single ? equal.length === 0 ? sort : undefined : (sort as ReadonlyArray<unknown>)[equal.length])
        ? -1
        : 1
    }
  }
}

/** Ids of records by the elements of a list. */
export class InvertedIndex implements Kept {
  readonly spec: Spec
  readonly names: ReadonlyArray<string>
  readonly #sets = new Map<unknown, Set<number>>()
  /** Records that have text there: `contains` looks into it, too. */
  readonly #texts = new Set<number>()
  /** By id: the list. */
  readonly #lists: Array<ReadonlyArray<unknown> | undefined> = []

  constructor(spec: Spec) {
    this.spec = spec
    this.names = namesOf(spec.fields[0]!, "$")
  }

  count(element: unknown): number {
    return (this.#sets.get(element)?.size ?? 0) + (typeof element === "string" ? this.#texts.size : 0)
  }

  ids(element: unknown): ReadonlyArray<number> {
    return [...this.#sets.get(element) ?? [], ...typeof element === "string" ? this.#texts : []]
  }

  update(id: number, _: string, value: unknown): void {
    const field = fieldAt(value, this.names)
    if (Array.isArray(field) && field === this.#lists[id]) return
    this.remove(id)
    if (typeof field === "string") this.#texts.add(id)
    if (!Array.isArray(field)) return
    while (this.#lists.length <= id) this.#lists.push(undefined)
    this.#lists[id] = field
    for (const element of field) {
      if (!isHashable(element)) continue
      const set = this.#sets.get(element)
      if (set === undefined) this.#sets.set(element, new Set([id]))
      else set.add(id)
    }
  }

  remove(id: number): void {
    this.#texts.delete(id)
    const list = this.#lists[id]
    if (list === undefined) return
    this.#lists[id] = undefined
    for (const element of list) {
      const set = this.#sets.get(element)
      set?.delete(id)
      if (set?.size === 0) this.#sets.delete(element)
    }
  }
}

/** The indexes of one map. */
export class Indexes {
  readonly hash: ReadonlyArray<HashIndex>
  readonly sorted: ReadonlyArray<SortedIndex>
  readonly inverted: ReadonlyArray<InvertedIndex>
  readonly #all: ReadonlyArray<Kept>
  readonly #ids = new Map<string, number>()
  readonly #keys: Array<string | undefined> = []
  readonly #free: Array<number> = []

  constructor(specs: ReadonlyArray<Spec>) {
    this.hash = specs.filter(({ kind }) => kind === "hash").map((spec) => new HashIndex(spec))
    this.sorted = specs.filter(({ kind }) => kind === "sorted").map((spec) => new SortedIndex(spec))
    this.inverted = specs.filter(({ kind }) => kind === "inverted").map((spec) => new InvertedIndex(spec))
    this.#all = [...this.hash, ...this.sorted, ...this.inverted]
  }

  get specs(): ReadonlyArray<Spec> {
    return [...this.hash, ...this.sorted, ...this.inverted].map(({ spec }) => spec)
  }

  /** Records that are indexed. */
  get size(): number {
    return this.#ids.size
  }

  /** What a record's value is now; `undefined` when it has none any more. */
  set(key: string, value: unknown): void {
    if (this.#all.length === 0) return
    let id = this.#ids.get(key)
    if (value === undefined) {
      if (id === undefined) return
      for (const index of this.#all) index.remove(id)
      this.#ids.delete(key)
      this.#keys[id] = undefined
      this.#free.push(id)
      return
    }
    if (id === undefined) {
      id = this.#free.pop() ?? this.#keys.length
      this.#ids.set(key, id)
      this.#keys[id] = key
    }
    for (let i = 0; i < this.#all.length; i++) this.#all[i]!.update(id, key, value)
  }

  /** The keys of these ids that are still there. */
  *keysOf(ids: ReadonlyArray<number>): IterableIterator<string> {
    for (const id of ids) {
      const key = this.#keys[id]
      if (key !== undefined) yield key
    }
  }
}
