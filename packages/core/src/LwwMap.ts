/**
 * The last-writer-wins map: each key holds its winning record (Shapiro, Preguiça, Baquero, Zawirski 2011, LWW-Register,
 * one per key). Merge is a join: commutative, associative, idempotent, and decided by the order of `LwwRecord`.
 *
 * On a client a key may be ahead of what the server has confirmed. Such a key keeps its **confirmed base** beside its
 * live record, and the Merkle tree digests confirmed records only: so equal roots mean equal confirmed state while
 * writes are on their way. `revert` goes back to the base; it isn't a merge, and only a client uses it.
 *
 * Values are held as canonical bytes and decoded, deeply frozen, when they are first read.
 */
import type { Hash64 } from "./internal/hash.ts"
import { hashKey } from "./internal/hash.ts"
import { RowSlabs } from "./internal/RowSlabs.ts"
import * as LwwRecord from "./LwwRecord.ts"
import type { TreeEntry } from "./MerkleTree.ts"
import { digestRow, MerkleForest } from "./MerkleTree.ts"
import * as Partition from "./Partition.ts"
import * as Value from "./Value.ts"

type Row = LwwRecord.LwwRecord

class Entry implements TreeEntry {
  readonly key: string
  readonly keyHi: number
  readonly keyLo: number
  readonly partition: number
  digestHi = 0
  digestLo = 0
  /** The record that reads see. */
  live: Row
  /** What the server has confirmed: `undefined` when that is `live` itself, `null` when it has confirmed nothing. */
  base: Row | null | undefined
  /** The decoded value of `live`; `undefined` until it is first read. */
  value: unknown

  constructor(key: string, hash: Hash64, live: Row, base: Row | null | undefined) {
    this.key = key
    this.keyHi = hash.hi
    this.keyLo = hash.lo
    this.partition = Partition.ofHash(hash.hi, hash.lo)
    this.live = live
    this.base = base
    this.value = undefined
  }
}

/** A key's visible change: the record before, where there was one, and the record now; `undefined` when reverted away. */
export interface Change {
  readonly key: string
  readonly previous: Row | undefined
  readonly record: Row | undefined
}

export interface Options {
  /** The time that expiry is judged by, in ms. */
  readonly now: () => number
  /** Where the digests go; a forest of its own by default. Maps of disjoint partitions may share one. */
  readonly tree?: MerkleForest
}

const hash = { hi: 0, lo: 0 }

const later = (a: Row | null | undefined, b: Row): Row =>
  a === null || a === undefined || LwwRecord.compare(b, a) > 0 ? b : a

export class LwwMap {
  readonly tree: MerkleForest
  readonly #entries = new Map<string, Entry>()
  readonly #now: () => number
  readonly #rows = new RowSlabs()
  readonly #allocate: LwwRecord.Allocate = (bytes) => this.#rows.allocate(bytes)
  /** Goes round the entries, whose rows are moved together as others die. */
  #mover: Iterator<Entry> | undefined
  #tombstones = 0
  #expiring = 0

  constructor(options: Options) {
    this.#now = options.now
    this.tree = options.tree ?? new MerkleForest()
  }

  /** The number of keys that have a value now. */
  get size(): number {
    if (this.#expiring === 0) return this.#entries.size - this.#tombstones
    let size = 0
    for (const entry of this.#entries.values()) if (this.#isVisible(entry.live)) size++
    return size
  }

  /** The number of records, tombstones included. */
  get recordCount(): number {
    return this.#entries.size
  }

  has(key: string): boolean {
    const entry = this.#entries.get(key)
    return entry !== undefined && this.#isVisible(entry.live)
  }

  /** The value of a key, deeply frozen, the same object at each read; `undefined` when there is none. */
  get(key: string): unknown {
    const entry = this.#entries.get(key)
    if (entry === undefined || !this.#isVisible(entry.live)) return undefined
    return entry.value === undefined ? entry.value = Value.decode(entry.live.valueBytes) : entry.value
  }

  /** The live record of a key, tombstones and expired ones included. */
  getRecord(key: string): Row | undefined {
    return this.#entries.get(key)?.live
  }

  /** The record of a key that the server is known to have; on a server, the record. */
  getConfirmed(key: string): Row | undefined {
    const entry = this.#entries.get(key)
    return entry === undefined ? undefined : (entry.base === undefined ? entry.live : entry.base) ?? undefined
  }

  /** What the server has of a key that is ahead of it: its base, or `null` for nothing; `undefined` when it isn't ahead. */
  getBase(key: string): Row | null | undefined {
    return this.#entries.get(key)?.base
  }

  *keys(): IterableIterator<string> {
    for (const entry of this.#entries.values()) if (this.#isVisible(entry.live)) yield entry.key
  }

  *values(): IterableIterator<unknown> {
    for (const key of this.keys()) yield this.get(key)
  }

  *entries(): IterableIterator<[key: string, value: unknown]> {
    for (const key of this.keys()) yield [key, this.get(key)]
  }

  /** Every record with its key, tombstones and expired ones included. */
  *records(): IterableIterator<[key: string, record: Row]> {
    for (const entry of this.#entries.values()) yield [entry.key, entry.live]
  }

  /** Joins a confirmed record. Answers the visible change, or `undefined` where the record lost. */
  merge(key: string, record: Row): Change | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) {
      this.#insert(key, record, undefined)
      return { key, previous: undefined, record }
    }
    if (entry.base !== undefined) {
      const confirmed = later(entry.base, record)
      if (confirmed !== entry.base) this.#setBase(entry, confirmed)
      const order = LwwRecord.compare(record, entry.live)
      if (order < 0) return undefined
      entry.base = undefined
      if (order === 0) return undefined
      const previous = entry.live
      this.#setLive(entry, record)
      return { key, previous, record }
    }
    if (LwwRecord.compare(record, entry.live) <= 0) return undefined
    const previous = entry.live
    this.#setLive(entry, record)
    this.#redigest(entry, record)
    return { key, previous, record }
  }

  /** Sets a value, given as canonical bytes, as of `stamp`. For maps whose every record is confirmed at once. */
  set(key: string, valueBytes: Uint8Array, stamp: Parameters<typeof LwwRecord.put>[0], expiresAt = 0): Row {
    const record = LwwRecord.put(stamp, valueBytes, expiresAt, this.#allocate)
    if (this.merge(key, record) === undefined) this.#free(record)
    return record
  }

  /** Deletes a key as of `stamp`: a tombstone takes its place. For maps whose every record is confirmed at once. */
  remove(key: string, stamp: Parameters<typeof LwwRecord.remove>[0]): Row {
    const record = LwwRecord.remove(stamp, this.#allocate)
    if (this.merge(key, record) === undefined) this.#free(record)
    return record
  }

  /** Joins a local record that the server hasn't seen: visible, but outside the tree until {@link confirm}. */
  write(key: string, record: Row): Change | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) {
      this.#insert(key, record, null)
      return { key, previous: undefined, record }
    }
    if (LwwRecord.compare(record, entry.live) <= 0) return undefined
    const previous = entry.live
    if (entry.base === undefined) entry.base = previous
    this.#setLive(entry, record)
    return { key, previous, record }
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
    const entry = this.#entries.get(key)
    if (entry === undefined || entry.base === undefined) return undefined
    const previous = entry.live
    const base = entry.base
    const restored = pending === undefined ? base ?? undefined : later(base, pending)
    if (restored === undefined) {
      this.#count(previous, -1)
      this.#entries.delete(key)
      this.#free(previous)
      return { key, previous, record: undefined }
    }
    if (restored === base) entry.base = undefined
    if (LwwRecord.compare(restored, previous) === 0) return undefined
    this.#setLive(entry, restored)
    return { key, previous, record: restored }
  }

  /** Puts back what this node's storage kept of a key: its live record and, where it was ahead, its confirmed base. */
  restore(key: string, live: Row, base?: Row | null): void {
    this.#insert(key, live, base)
  }

  /** Forgets confirmed tombstones with stamps below `beforeMillis`; answers their keys. */
  prune(beforeMillis: number): Array<string> {
    const pruned: Array<string> = []
    for (const entry of this.#entries.values()) {
      if (!entry.live.isTombstone || entry.live.millis >= beforeMillis || entry.base !== undefined) continue
      this.tree.remove(entry.partition, entry)
      this.#count(entry.live, -1)
      this.#entries.delete(entry.key)
      this.#free(entry.live)
      pruned.push(entry.key)
    }
    return pruned
  }

  /** The digest of the confirmed state, 16 hex digits: the Merkle root. */
  get digest(): string {
    return this.tree.getRootHash()
  }

  #isVisible(record: Row): boolean {
    return !record.isTombstone && (this.#expiring === 0 || record.expiresAt === 0 || record.expiresAt > this.#now())
  }

  #count(record: Row, by: 1 | -1): void {
    if (record.isTombstone) this.#tombstones += by
    if (record.expiresAt !== 0) this.#expiring += by
  }

  #insert(key: string, live: Row, base: Row | null | undefined): void {
    hashKey(key, hash)
    const entry = new Entry(key, hash, live, base)
    this.#settle(live)
    if (base !== undefined && base !== null) this.#settle(base)
    this.#entries.set(key, entry)
    this.#count(live, 1)
    const confirmed = base === undefined ? live : base
    if (confirmed !== null) this.#plant(entry, confirmed)
  }

  #plant(entry: Entry, confirmed: Row): void {
    digestRow(entry, confirmed.row, hash)
    entry.digestHi = hash.hi
    entry.digestLo = hash.lo
    this.tree.insert(entry.partition, entry)
  }

  #redigest(entry: Entry, confirmed: Row): void {
    digestRow(entry, confirmed.row, hash)
    this.tree.update(entry.partition, entry, hash.hi, hash.lo)
  }

  #setBase(entry: Entry, confirmed: Row): void {
    if (entry.base === null) this.#plant(entry, confirmed)
    else this.#redigest(entry, confirmed)
    this.#settle(confirmed)
    if (entry.base !== null && entry.base !== undefined) this.#free(entry.base)
    entry.base = confirmed
  }

  #setLive(entry: Entry, record: Row): void {
    this.#count(entry.live, -1)
    this.#count(record, 1)
    this.#settle(record)
    const previous = entry.live
    entry.live = record
    entry.value = undefined
    if (previous !== entry.base) this.#free(previous)
  }

  /** Takes a record's row into this map's memory. */
  #settle(record: Row): void {
    if (!this.#rows.isSettled(record.row)) LwwRecord.relocate(record, this.#rows.copy(record.row))
  }

  /** A record is held no longer: rows of others move, so that its memory can go. */
  #free(record: Row): void {
    for (let debt = this.#rows.freed(record.row); debt > 0 && this.#entries.size > 0;) {
      this.#mover ??= this.#entries.values()
      const next = this.#mover.next()
      if (next.done === true) {
        this.#mover = undefined
        continue
      }
      const { base, live } = next.value
      this.#settle(live)
      if (base !== undefined && base !== null) this.#settle(base)
      debt -= live.row.length
      this.#rows.moved(live.row.length)
    }
  }
}
