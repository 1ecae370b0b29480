/**
 * The observed-remove map: each key holds a set of values (Shapiro, Preguiça, Baquero, Zawirski 2011, OR-Set, one per
 * key). Removing a value takes away the additions of it that this replica has seen; one that it hasn't seen survives.
 *
 * **Tags are cells.** The stamp of an addition is its tag. A tag has one row of `LwwRecord`'s format: a put while it lives
 * and, once it is removed, a delete *of the same stamp*. Of two rows of one tag the byte-wise greater wins: so a removal
 * beats its addition in whatever order they come, and a tag that was wrongly used twice ends alike everywhere. This is a
 * last-writer-wins map of tags, and an {@link LwwMap} is what holds them: adding, removing, merging, loading, confirming and
 * taking back are its joins and reverts. What is here says which tags are a key's, and what they show.
 *
 * **Tombstones.** A removed tag keeps 25 bytes, without its value, until it is pruned. Then only the bound of the pruning
 * speaks for it: a tag below the bound that a replica lacks was removed there. That is the idea of "An optimized
 * conflict-free replicated set" (Bieniusa, Zawirski, Preguiça, Shapiro, Baquero, Balegas, Duarte 2012), with one bound
 * in place of a version vector.
 *
 * Two values are one when their canonical bytes are equal. Values are decoded, deeply frozen, when they are first read.
 */
import { LwwMap } from "./LwwMap.ts"
import * as LwwRecord from "./LwwRecord.ts"
import type { MerkleForest } from "./MerkleTree.ts"
import * as Timestamp from "./Timestamp.ts"
import * as Value from "./Value.ts"

type Row = LwwRecord.LwwRecord

/** The change of one tag: its record before, where there was one, and its record now. */
export interface Change {
  readonly key: string
  readonly previous: Row | undefined
  readonly record: Row
}

/** What a map is made with. */
export interface Options {
  /** The time that expiry is judged by, in ms. */
  readonly now: () => number
  /** Where the digests go; a forest of its own by default. Maps of disjoint partitions may share one. */
  readonly tree?: MerkleForest
}

/** How many characters of a tag's cell come before its key. */
export const prefixLength = Timestamp.textLength

/** The cell of a tag. Cells of one key sort as their tags' stamps do. */
export const cellOf = (key: string, stamp: Timestamp.Timestamp): string => Timestamp.format(stamp) + key

const keyOf = (cell: string): string => cell.slice(prefixLength)

/** What reads showed of a key, and when. */
interface Shown {
  revision: number
  readonly values: ReadonlyArray<Value.Value>
}

const none: ReadonlyArray<never> = Object.freeze([])

/** An observed-remove map of one replica; see the head of this file. Changed in place, by one writer at a time. */
export class OrMap {
  /** The tags' records, by cell. They may be changed here, too: merged, written, confirmed, reverted. */
  readonly cells: LwwMap
  /** The cells of each key, in the order of their stamps. */
  readonly #tags = new Map<string, Array<string>>()
  readonly #shown = new Map<string, Shown>()
  #counted = { revision: -1, keys: 0 }

  constructor({ now, tree }: Options) {
    this.cells = new LwwMap({
      now,
      ...(tree === undefined ? {} : { tree }),
      prefixLength,
      onAdded: (cell) => this.#add(cell),
      onForgotten: (cell) => this.#forget(cell)
    })
  }

  /** Digests of all records that are confirmed. */
  get tree(): MerkleForest {
    return this.cells.tree
  }

  /** The number of keys that have a value now. */
  get size(): number {
    if (this.#counted.revision !== this.cells.revision || this.cells.hasExpiring) {
      let keys = 0
      for (const key of this.#tags.keys()) if (this.has(key)) keys++
      this.#counted = { revision: this.cells.revision, keys }
    }
    return this.#counted.keys
  }

  /** The number of records, one for each tag of each key, tombstones included. */
  get recordCount(): number {
    return this.cells.recordCount
  }

  /** Whether a key has a value now or, where canonical bytes are given, has that value. */
  has(key: string, valueBytes?: Uint8Array): boolean {
    return this.#tagsOf(key).some((cell) =>
      this.cells.has(cell) && (valueBytes === undefined || this.#isOf(this.cells.getRecord(cell)!, valueBytes))
    )
  }

  /**
   * The values of a key, each once, in the order of their earliest stamps; deeply frozen, and the same array at each read
   * until they change. Empty when there is none.
   */
  getValues(key: string): ReadonlyArray<Value.Value> {
    const cells = this.#tags.get(key)
    if (cells === undefined) return none
    const shown = this.#shown.get(key)
    if (shown !== undefined && shown.revision === this.cells.revision && !this.cells.hasExpiring) return shown.values
    const visible = cells.filter((cell) => this.cells.has(cell))
    const values = distinct(visible, (cell) => this.cells.getRecord(cell)!)
      .map((cell) => this.cells.get(cell) as Value.Value)
    if (shown?.values.length === values.length && values.every((value, i) => Object.is(value, shown.values[i]))) {
      shown.revision = this.cells.revision
      return shown.values
    }
    const frozen = values.length === 0 ? none : Object.freeze(values)
    this.#shown.set(key, { revision: this.cells.revision, values: frozen })
    return frozen
  }

  /**
   * The values that a key had before some of its tags changed: `previous` has the records that these had, where they had any.
   * Of those all that weren't tombstones count, also what has expired since.
   */
  valuesBefore(key: string, previous: ReadonlyMap<string, Row | undefined>): ReadonlyArray<Value.Value> {
    const records = new Map<string, Row>()
    // Those that are gone now, a reverted addition, have no cell any more.
    for (const cell of new Set([...this.#tagsOf(key), ...previous.keys()])) {
      const changed = previous.has(cell)
      const record = changed ? previous.get(cell) : this.cells.getRecord(cell)
      if (record !== undefined && !record.isTombstone && (changed || this.cells.has(cell))) records.set(cell, record)
    }
    const cells = Array.from(records.keys()).sort(compareText)
    return distinct(cells, (cell) => records.get(cell)!).map((cell) => Value.decode(records.get(cell)!.valueBytes))
  }

  /** The records of a key in the order of their stamps, tombstones and expired ones included. Rows are views, as in `LwwMap`. */
  getRecords(key: string): Array<Row> {
    return this.#tagsOf(key).map((cell) => this.cells.getRecord(cell)!)
  }

  /** The keys that have a value. The map may change meanwhile. */
  *keys(): IterableIterator<string> {
    for (const key of this.#tags.keys()) if (this.has(key)) yield key
  }

  /** The keys that have a value, with their values as {@link getValues} has them. The map may change meanwhile. */
  *entries(): IterableIterator<[key: string, values: ReadonlyArray<Value.Value>]> {
    for (const key of this.#tags.keys()) {
      const values = this.getValues(key)
      if (values.length > 0) yield [key, values]
    }
  }

  /** Every record with its key, tombstones and expired ones included. The map may change meanwhile. */
  *records(): IterableIterator<[key: string, record: Row]> {
    for (const key of this.#tags.keys()) {
      for (const record of this.getRecords(key)) yield [key, record]
    }
  }

  /**
   * Joins the record of one tag: from here, a peer or storage. Answers the change, or `undefined` where the record lost or
   * was known. A key is one that `Value.checkKey` has passed. The row is copied.
   */
  merge(key: string, record: Row): Change | undefined {
    const change = this.cells.merge(cellOf(key, record), record)
    return change === undefined ? undefined : { key, previous: change.previous, record }
  }

  /**
   * Adds a value, given as canonical bytes, under a tag of its own. The stamp is a fresh one of this replica's clock;
   * `expiresAt` in ms, 0 for never. A value that the key has already gets one tag more: who removes it at the same time
   * elsewhere hasn't seen that one. Answers the record, for storage and peers: a view of the map's memory.
   */
  add(key: string, valueBytes: Uint8Array, stamp: Timestamp.Timestamp, expiresAt = 0): Row {
    const cell = cellOf(key, stamp)
    this.cells.set(cell, valueBytes, stamp, expiresAt)
    return this.cells.getRecord(cell)!
  }

  /**
   * Removes a value, given as canonical bytes: all tags of it that this replica knows, and no other. Answers their
   * tombstones, for storage and peers; none when it knows no such tag. Tags that are expired by the clock here go too,
   * since they may not be by a clock elsewhere.
   */
  remove(key: string, valueBytes: Uint8Array): Array<Row> {
    const tombstones = this.tombstones(key, valueBytes)
    for (const tombstone of tombstones) this.merge(key, tombstone)
    return tombstones
  }

  /** What {@link remove} would write; without a value, of all that the key has. */
  tombstones(key: string, valueBytes?: Uint8Array): Array<Row> {
    return this.getRecords(key)
      .filter((record) => !record.isTombstone && (valueBytes === undefined || this.#isOf(record, valueBytes)))
      .map(({ stamp }) => LwwRecord.remove(stamp))
  }

  /**
   * Forgets the confirmed tombstones with stamps below `beforeMillis`, in ms; answers them with their keys. A tombstone has
   * the stamp of the *addition*: whoever prunes must hold from then on that a tag below the bound, when a peer offers it, was
   * removed.
   */
  prune(beforeMillis: number): Array<[key: string, record: Row]> {
    return this.cells.prune(beforeMillis).map(([cell, record]) => [keyOf(cell), record])
  }

  /** The digest of the whole confirmed state, tombstones included, 16 hex digits: the Merkle root. */
  get digest(): string {
    return this.cells.digest
  }

  #isOf(record: Row, valueBytes: Uint8Array): boolean {
    return Value.compareBytes(record.valueBytes, valueBytes) === 0
  }

  #tagsOf(key: string): ReadonlyArray<string> {
    return this.#tags.get(key) ?? none
  }

  #add(cell: string): void {
    const key = keyOf(cell)
    const cells = this.#tags.get(key)
    if (cells === undefined) {
      this.#tags.set(key, [cell])
      return
    }
    // Almost always it is the latest.
    if (cells[cells.length - 1]! < cell) cells.push(cell)
    else cells.splice(placeOf(cells, cell), 0, cell)
  }

  #forget(cell: string): void {
    const key = keyOf(cell)
    const cells = this.#tags.get(key)!
    if (cells.length > 1) {
      cells.splice(placeOf(cells, cell), 1)
      return
    }
    this.#tags.delete(key)
    this.#shown.delete(key)
  }
}

/** Where a cell is, or would be, among a key's: there may be many, and who means harm sends them in no order. */
const placeOf = (cells: ReadonlyArray<string>, cell: string): number => {
  let from = 0
  let to = cells.length
  while (from < to) {
    const middle = (from + to) >>> 1
    if (cells[middle]! < cell) from = middle + 1
    else to = middle
  }
  return from
}

const compareText = (a: string, b: string): number => a < b ? -1 : a > b ? 1 : 0

/** Of cells with equal values only the earliest. */
const distinct = (cells: ReadonlyArray<string>, recordOf: (cell: string) => Row): ReadonlyArray<string> => {
  if (cells.length < 2) return cells
  // By sorting, not hashing: nobody can make it slow by values that collide. The sort is stable, so the earliest leads.
  const byValue = cells.map((cell) => ({ cell, bytes: recordOf(cell).valueBytes }))
    .sort((a, b) => Value.compareBytes(a.bytes, b.bytes))
  return byValue
    .filter(({ bytes }, i) => i === 0 || Value.compareBytes(byValue[i - 1]!.bytes, bytes) !== 0)
    .map(({ cell }) => cell)
    .sort(compareText)
}
