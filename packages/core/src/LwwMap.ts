/**
 * The last-writer-wins map: each key holds its winning record (Shapiro, Preguiça, Baquero, Zawirski 2011, LWW-Register,
 * one per key). Merge is a join: commutative, associative, idempotent, and decided by the order of `LwwRecord`.
 *
 * On a client a key may be ahead of what the server has confirmed. Such a key keeps its **confirmed base** beside its
 * live record, and the Merkle tree digests confirmed records only: so equal roots mean equal confirmed state while
 * writes are on their way. `revert` goes back to the base; it isn't a merge, and only a client uses it.
 *
 * **In memory** a key is a slot of a table and a record its row in a slab: nothing for the collector to visit, and half of
 * what objects take. An `LwwRecord` is made when it is asked for, as a view of the row. Values are decoded, deeply frozen,
 * when they are first read.
 */
import type { Hash64 } from "./internal/hash.ts"
import {
  DIGEST_HI,
  DIGEST_LO,
  FIELDS_LOG2,
  KEY_HI,
  KEY_LO,
  KeyTable,
  OWN_A,
  OWN_B,
  PARTITION
} from "./internal/KeyTable.ts"
import { type Address, compareRanges, RowSlabs, startOf } from "./internal/RowSlabs.ts"
import * as LwwRecord from "./LwwRecord.ts"
import { digestRow, MerkleForest } from "./MerkleTree.ts"
import type { Timestamp } from "./Timestamp.ts"
import * as Value from "./Value.ts"

type Row = LwwRecord.LwwRecord

/** The address of a key's live row. */
const ROW = OWN_A
/** What the server has confirmed: the address of that row, `SAME` when it is the live one, `NOTHING` when none is. */
const BASE = OWN_B
const SAME = 0
const NOTHING = -1

/** A key's visible change: the record before, where there was one, and the record now; `undefined` when reverted away. */
export interface Change {
  readonly key: string
  readonly previous: Row | undefined
  readonly record: Row | undefined
}

/** A change whose previous record is only made when somebody looks at it: few do. */
class Replacement implements Change {
  readonly key: string
  readonly record: Row | undefined
  readonly #bytes: Uint8Array
  readonly #start: number
  readonly #end: number

  constructor(key: string, record: Row | undefined, bytes: Uint8Array, start: number, end: number) {
    this.key = key
    this.record = record
    this.#bytes = bytes
    this.#start = start
    this.#end = end
  }

  get previous(): Row {
    return LwwRecord.fromTrusted(this.#bytes.subarray(this.#start, this.#end))
  }
}

/** What a map is made with. */
export interface Options {
  /** The time that expiry is judged by, in ms. */
  readonly now: () => number
  /** Where the digests go; a forest of its own by default. Maps of disjoint partitions may share one. */
  readonly tree?: MerkleForest
  /** Characters at the beginning of a key that have no part in its partition: see `Cell`. @default 0 */
  readonly prefixLength?: number
  /** Hears of each key that comes into the map, before its first record can be read, and of each that is forgotten. */
  readonly onAdded?: (key: string) => void
  readonly onForgotten?: (key: string) => void
}

const hash: Hash64 = { hi: 0, lo: 0 }

/** A last-writer-wins map of one replica; see the head of this file. Changed in place, by one writer at a time. */
export class LwwMap {
  /** Digests of the confirmed records. */
  readonly tree: MerkleForest
  readonly #now: () => number
  readonly #keys: KeyTable
  readonly #onAdded: ((key: string) => void) | undefined
  readonly #onForgotten: ((key: string) => void) | undefined
  /** Rows move whenever one is added or freed: an address is read from its field after that, not before. */
  readonly #rows = new RowSlabs((slot, from, to) => {
    const at = slot << FIELDS_LOG2
    this.#keys.fields[at + (this.#keys.fields[at + ROW] === from ? ROW : BASE)] = to
  })
  /** The decoded values of live records, by slot; `undefined` until first read, and no longer than the last that was read. */
  readonly #values: Array<unknown> = []
  #tombstones = 0
  /** The slots of live values that expire one day. */
  readonly #expiring = new Set<number>()
  #revision = 0

  constructor(options: Options) {
    this.#now = options.now
    this.tree = options.tree ?? new MerkleForest()
    this.#keys = new KeyTable(options.prefixLength)
    this.#onAdded = options.onAdded
    this.#onForgotten = options.onForgotten
  }

  /** Grows with each change of a live or of a confirmed record: as long as it is the same, nothing has changed. */
  get revision(): number {
    return this.#revision
  }

  /** The number of keys that have a value now. */
  get size(): number {
    let size = this.#keys.slots.size - this.#tombstones
    for (const slot of this.#expiring) if (!this.#isVisible(slot)) size--
    return size
  }

  /** Whether any value expires one day, or has. */
  get hasExpiring(): boolean {
    return this.#expiring.size > 0
  }

  /** The partition of a key, in the map or not. */
  partitionOf(key: string): number {
    return this.#keys.partitionOf(key)
  }

  /** The number of records, tombstones included. */
  get recordCount(): number {
    return this.#keys.slots.size
  }

  /** Whether a key has a value now. */
  has(key: string): boolean {
    const slot = this.#keys.slots.get(key)
    return slot !== undefined && this.#isVisible(slot)
  }

  /** The value of a key, deeply frozen, the same object at each read; `undefined` when there is none. */
  get(key: string): unknown {
    const slot = this.#keys.slots.get(key)
    return slot === undefined ? undefined : this.#valueOf(slot)
  }

  /** The live record of a key, tombstones and expired ones included. Its row is a view of the map's memory. */
  getRecord(key: string): Row | undefined {
    const slot = this.#keys.slots.get(key)
    return slot === undefined ? undefined : this.#recordAt(this.#field(slot, ROW))
  }

  /** The record of a key that the server is known to have; on a server, the record. */
  getConfirmed(key: string): Row | undefined {
    const slot = this.#keys.slots.get(key)
    if (slot === undefined) return undefined
    const base = this.#field(slot, BASE)
    return base === NOTHING ? undefined : this.#recordAt(base === SAME ? this.#field(slot, ROW) : base)
  }

  /** What the server has of a key that is ahead of it: its base, or `null` for nothing; `undefined` when it isn't ahead. */
  getBase(key: string): Row | null | undefined {
    const slot = this.#keys.slots.get(key)
    if (slot === undefined) return undefined
    const base = this.#field(slot, BASE)
    return base === SAME ? undefined : base === NOTHING ? null : this.#recordAt(base)
  }

  /** The keys that have a value. The map may change meanwhile. */
  *keys(): IterableIterator<string> {
    for (const [key, slot] of this.#keys.slots) if (this.#isVisible(slot)) yield key
  }

  /** The values. The map may change meanwhile. */
  *values(): IterableIterator<unknown> {
    for (const [, value] of this.entries()) yield value
  }

  /** The keys that have a value, with it. The map may change meanwhile. */
  *entries(): IterableIterator<[key: string, value: unknown]> {
    for (const [key, slot] of this.#keys.slots) {
      const value = this.#valueOf(slot)
      if (value !== undefined) yield [key, value]
    }
  }

  /** As {@link entries}, for who goes through all of them: several times as fast. The map is not to change meanwhile. */
  forEach(visitor: (key: string, value: unknown) => void): void {
    this.#keys.slots.forEach((slot, key) => {
      const value = this.#valueOf(slot)
      if (value !== undefined) visitor(key, value)
    })
  }

  /**
   * As {@link forEach}, of the values that are wanted: `isWanted` is asked of each as it is or, where nobody has read it yet, of an object
   * with these of its fields, which costs a tenth of it.
   */
  find(
    fields: ReadonlySet<string>,
    isWanted: (key: string, part: unknown) => boolean,
    take: (key: string, value: unknown) => void
  ): void {
    const partOf = Value.partDecoder(fields)
    this.#keys.slots.forEach((slot, key) => {
      if (!this.#isVisible(slot)) return
      const value = this.#values[slot]
      if (isWanted(key, value === undefined ? this.#decoded(slot, partOf) : value)) take(key, this.#valueOf(slot))
    })
  }

  /** Every live record with its key, tombstones and expired ones included. The map may change meanwhile. */
  *records(): IterableIterator<[key: string, record: Row]> {
    for (const [key, slot] of this.#keys.slots) yield [key, this.#recordAt(this.#field(slot, ROW))]
  }

  /** Every confirmed record with its key, tombstones and expired ones included. The map may change meanwhile. */
  *confirmed(): IterableIterator<[key: string, record: Row]> {
    for (const key of this.#keys.slots.keys()) {
      const record = this.getConfirmed(key)
      if (record !== undefined) yield [key, record]
    }
  }

  /**
   * Joins a confirmed record. Answers the visible change, or `undefined` where the record lost. A key is one that
   * `Value.checkKey` has passed. The row is copied.
   */
  merge(key: string, record: Row): Change | undefined {
    const slot = this.#keys.slots.get(key)
    if (slot === undefined) {
      this.#insert(key, record, SAME)
      return { key, previous: undefined, record }
    }
    const order = this.#compare(record, this.#field(slot, ROW))
    const base = this.#field(slot, BASE)
    if (order < 0) {
      if (base === NOTHING || (base !== SAME && this.#compare(record, base) > 0)) this.#setBase(slot, record)
      return undefined
    }
    // The live record is confirmed too now, or gives way to this one that is.
    if (base === SAME && order === 0) return undefined
    const change = order === 0 ? undefined : this.#setLive(slot, record)
    const passed = this.#field(slot, BASE)
    if (passed !== SAME) {
      this.#setField(slot, BASE, SAME)
      this.#revision++
      if (passed !== NOTHING) this.#rows.free(passed)
    }
    this.#digest(slot, passed === NOTHING)
    return change
  }

  /**
   * Sets a value, given as canonical bytes, as of `stamp`; answers whether it won. `expiresAt` in ms, 0 for never. A
   * {@link merge} of a record that is written straight to its place.
   */
  set(key: string, valueBytes: Uint8Array, stamp: Timestamp, expiresAt = 0): boolean {
    const known = this.#keys.slots.get(key)
    if (known !== undefined && this.#field(known, BASE) !== SAME) {
      return this.merge(key, LwwRecord.put(stamp, valueBytes, expiresAt)) !== undefined
    }
    const length = LwwRecord.putBytes(valueBytes.length, expiresAt)
    const slot = known ?? this.#add(key, length)
    const address = known === undefined ? this.#field(slot, ROW) : this.#rows.reserve(slot, length)
    const bytes = this.#rows.bytesOf(address)
    const start = startOf(address)
    LwwRecord.writePut(bytes, start, stamp, valueBytes, expiresAt)
    if (known === undefined) {
      this.#count(slot, address, 1)
    } else {
      const live = this.#field(slot, ROW)
      const liveStart = startOf(live)
      const liveEnd = liveStart + this.#rows.lengthOf(live)
      if (compareRanges(bytes, start, start + length, this.#rows.bytesOf(live), liveStart, liveEnd) <= 0) {
        this.#rows.free(address)
        return false
      }
      this.#place(slot, address)
    }
    this.#digest(slot, known === undefined)
    return true
  }

  /** Deletes a key as of `stamp`: a tombstone takes its place; answers whether it won. A {@link merge}, as {@link set} is. */
  remove(key: string, stamp: Timestamp): boolean {
    return this.merge(key, LwwRecord.remove(stamp)) !== undefined
  }

  /** Joins a local record that the server hasn't seen: visible, but outside the tree until {@link confirm}. */
  write(key: string, record: Row): Change | undefined {
    const slot = this.#keys.slots.get(key)
    if (slot === undefined) {
      this.#insert(key, record, NOTHING)
      return { key, previous: undefined, record }
    }
    if (this.#compare(record, this.#field(slot, ROW)) <= 0) return undefined
    return this.#setLive(slot, record, true)
  }

  /** The server has this record now. Never a visible change when the record was written here before. */
  confirm(key: string, record: Row): Change | undefined {
    return this.merge(key, record)
  }

  /**
   * Takes back what the server hasn't confirmed, but for `pending`, a later local record of the key that still waits.
   * The opposite of {@link write}: with no confirmed record and nothing pending the key is gone, without a tombstone.
   */
  revert(key: string, pending?: Row): Change | undefined {
    const slot = this.#keys.slots.get(key)
    if (slot === undefined) return undefined
    const base = this.#field(slot, BASE)
    if (base === SAME) return undefined
    if (pending !== undefined && (base === NOTHING || this.#compare(pending, base) > 0)) {
      return this.#compare(pending, this.#field(slot, ROW)) === 0 ? undefined : this.#setLive(slot, pending)
    }
    if (base === NOTHING) {
      const change = this.#replacement(slot, undefined)
      this.#forget(slot)
      return change
    }
    const change = this.#replacement(slot, this.#recordAt(base))
    this.#setField(slot, BASE, SAME)
    this.#place(slot, base)
    return change
  }

  /** The server doesn't have what it was known to have of a key: the live record is only this replica's now, and can be reverted. */
  unconfirm(key: string): void {
    const slot = this.#keys.slots.get(key)
    if (slot === undefined) return
    const base = this.#field(slot, BASE)
    if (base === NOTHING) return
    this.tree.remove(this.#field(slot, PARTITION), slot)
    this.#setField(slot, BASE, NOTHING)
    this.#revision++
    if (base !== SAME) this.#rows.free(base)
  }

  /**
   * Puts back what this node's storage kept of a key: its live record and, where it was ahead, its confirmed base. Once for
   * each key, before anything else is done with it.
   */
  restore(key: string, live: Row, base?: Row | null): void {
    if (this.#keys.slots.has(key)) throw new Error(`key ${JSON.stringify(key)} is in the map already: merge it`)
    const slot = this.#insert(key, live, NOTHING)
    if (base === null) return
    if (base === undefined) {
      this.#setField(slot, BASE, SAME)
      this.#digest(slot, true)
    } else {
      this.#setBase(slot, base)
    }
  }

  /**
   * Makes a key what another copy of this replica says that it is: its live record, `undefined` for none, and its base as in
   * {@link getBase}. No merge: what was here of the key is no more.
   */
  assign(key: string, live: Row | undefined, base: Row | null | undefined): Change | undefined {
    const slot = this.#keys.slots.get(key)
    if (slot === undefined) {
      if (live === undefined) return undefined
      this.restore(key, live, base)
      return { key, previous: undefined, record: live }
    }
    if (live === undefined) {
      this.unconfirm(key)
      return this.revert(key)
    }
    const isSame = this.#compare(live, this.#field(slot, ROW)) === 0
    const before = this.#field(slot, BASE)
    const hasBase = base === undefined
      ? before === SAME
      : base === null
      ? before === NOTHING
      : before !== SAME && before !== NOTHING && this.#compare(base, before) === 0
    if (isSame && hasBase) return undefined
    this.unconfirm(key)
    const change = isSame ? undefined : this.#setLive(slot, live)
    if (base === undefined) {
      this.#setField(slot, BASE, SAME)
      this.#digest(slot, true)
      this.#revision++
    } else if (base !== null) {
      this.#setBase(slot, base)
    }
    return change
  }

  /** Forgets confirmed tombstones with stamps below `beforeMillis`; answers them with their keys. */
  prune(beforeMillis: number): Array<[key: string, record: Row]> {
    const pruned: Array<[key: string, record: Row]> = []
    for (const [key, slot] of this.#keys.slots) {
      const record = this.#recordAt(this.#field(slot, ROW))
      if (record.millis < beforeMillis && this.#collect(slot)) pruned.push([key, record])
    }
    return pruned
  }

  /** Forgets the tombstone of a key, unless the key is ahead of what the server has confirmed. Answers whether there was one. */
  collect(key: string): boolean {
    const slot = this.#keys.slots.get(key)
    return slot !== undefined && this.#collect(slot)
  }

  /** The digest of the confirmed state, 16 hex digits: the Merkle root. */
  get digest(): string {
    return this.tree.getRootHash()
  }

  #field(slot: number, field: number): number {
    return this.#keys.fields[slot << FIELDS_LOG2 | field]!
  }

  #setField(slot: number, field: number, value: number): void {
    this.#keys.fields[slot << FIELDS_LOG2 | field] = value
  }

  #recordAt(address: Address): Row {
    return LwwRecord.fromTrusted(this.#rows.rowAt(address))
  }

  #compare(record: Row, address: Address): number {
    const start = startOf(address)
    const end = start + this.#rows.lengthOf(address)
    return compareRanges(record.row, 0, record.row.length, this.#rows.bytesOf(address), start, end)
  }

  #isVisible(slot: number): boolean {
    const address = this.#field(slot, ROW)
    const bytes = this.#rows.bytesOf(address)
    if (LwwRecord.isTombstoneAt(bytes, startOf(address))) return false
    if (this.#expiring.size === 0) return true
    const expiresAt = LwwRecord.expiresAtAt(bytes, startOf(address))
    return expiresAt === 0 || expiresAt > this.#now()
  }

  #valueOf(slot: number): unknown {
    const value = this.#values[slot]
    // What was decoded is a value, which only its expiry can hide.
    if (value !== undefined && this.#expiring.size === 0) return value
    if (!this.#isVisible(slot)) return undefined
    if (value !== undefined) return value
    while (this.#values.length < slot) this.#values.push(undefined)
    return this.#values[slot] = this.#decoded(slot, Value.decodeTrusted)
  }

  #decoded(slot: number, decode: (bytes: Uint8Array, start: number, end: number) => unknown): unknown {
    const address = this.#field(slot, ROW)
    const bytes = this.#rows.bytesOf(address)
    const start = startOf(address)
    return decode(bytes, LwwRecord.valueAt(bytes, start), start + this.#rows.lengthOf(address))
  }

  #forgetValue(slot: number): void {
    if (slot < this.#values.length) this.#values[slot] = undefined
  }

  /** Counts a row that becomes, or ceases to be, a live one. */
  #count(slot: number, address: Address, by: 1 | -1): void {
    const bytes = this.#rows.bytesOf(address)
    const start = startOf(address)
    if (LwwRecord.isTombstoneAt(bytes, start)) this.#tombstones += by
    else if (LwwRecord.expiresAtAt(bytes, start) !== 0) {
      if (by === 1) this.#expiring.add(slot)
      else this.#expiring.delete(slot)
    }
  }

  #insert(key: string, record: Row, base: typeof SAME | typeof NOTHING): number {
    const slot = this.#add(key, record.row.length)
    const address = this.#field(slot, ROW)
    this.#rows.fill(address, record.row, 0, record.row.length)
    this.#setField(slot, BASE, base)
    this.#count(slot, address, 1)
    if (base === SAME) this.#digest(slot, true)
    return slot
  }

  /** Adds a key with room for its first row, which is to be written at once. What fails here leaves nothing of the key. */
  #add(key: string, length: number): number {
    const slot = this.#keys.add(key)
    try {
      this.tree.check(this.#field(slot, PARTITION), this.#keys)
      this.#setField(slot, ROW, this.#rows.reserve(slot, length))
    } catch (fault) {
      this.#keys.remove(slot)
      throw fault
    }
    this.#forgetValue(slot)
    this.#revision++
    this.#onAdded?.(key)
    return slot
  }

  #collect(slot: number): boolean {
    const address = this.#field(slot, ROW)
    if (this.#field(slot, BASE) !== SAME) return false
    if (!LwwRecord.isTombstoneAt(this.#rows.bytesOf(address), startOf(address))) return false
    this.tree.remove(this.#field(slot, PARTITION), slot)
    this.#forget(slot)
    return true
  }

  /** Forgets a key that has one row. */
  #forget(slot: number): void {
    const live = this.#field(slot, ROW)
    this.#count(slot, live, -1)
    this.#onForgotten?.(this.#keys.keys[slot]!)
    this.#keys.remove(slot)
    this.#forgetValue(slot)
    this.#revision++
    this.#rows.free(live)
  }

  /** The change from the present live record of a key to another. */
  #replacement(slot: number, record: Row | undefined): Change {
    const live = this.#field(slot, ROW)
    const start = startOf(live)
    const end = start + this.#rows.lengthOf(live)
    return new Replacement(this.#keys.keys[slot]!, record, this.#rows.bytesOf(live), start, end)
  }

  /** Takes in a live record; the one before it becomes the base where that is asked for and there is none. */
  #setLive(slot: number, record: Row, keepsBase = false): Change {
    const change = this.#replacement(slot, record)
    const address = this.#rows.add(slot, record.row, 0, record.row.length)
    if (keepsBase && this.#field(slot, BASE) === SAME) this.#setField(slot, BASE, this.#field(slot, ROW))
    this.#place(slot, address)
    return change
  }

  /** Makes a row the live one of its key, and frees the one before it unless that is the base. */
  #place(slot: number, address: Address): void {
    const live = this.#field(slot, ROW)
    this.#count(slot, live, -1)
    this.#count(slot, address, 1)
    this.#setField(slot, ROW, address)
    this.#forgetValue(slot)
    this.#revision++
    if (live !== this.#field(slot, BASE)) this.#rows.free(live)
  }

  /** Takes in another confirmed record of a key that is ahead of it. */
  #setBase(slot: number, record: Row): void {
    const address = this.#rows.add(slot, record.row, 0, record.row.length)
    const base = this.#field(slot, BASE)
    this.#setField(slot, BASE, address)
    this.#revision++
    if (base !== NOTHING) this.#rows.free(base)
    this.#digest(slot, base === NOTHING)
  }

  /** Brings the tree up to date with the confirmed record of a key, which is the first one or another one. */
  #digest(slot: number, isFirst: boolean): void {
    const { fields } = this.#keys
    const at = slot << FIELDS_LOG2
    const base = fields[at + BASE]!
    const address = base === SAME ? fields[at + ROW]! : base
    const start = startOf(address)
    const end = start + this.#rows.lengthOf(address)
    digestRow(fields[at + KEY_HI]!, fields[at + KEY_LO]!, this.#rows.viewOf(address), start, end, hash)
    if (isFirst) {
      fields[at + DIGEST_HI] = hash.hi
      fields[at + DIGEST_LO] = hash.lo
      this.tree.insert(fields[at + PARTITION]!, this.#keys, slot)
    } else {
      this.tree.update(fields[at + PARTITION]!, slot, hash.hi, hash.lo)
    }
  }
}
