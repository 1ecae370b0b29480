/**
 * The observed-remove map: each key holds a set of values (Shapiro, Preguiça, Baquero, Zawirski 2011, OR-Set, one per
 * key). Removing a value takes away the additions of it that this replica has seen; one that it hasn't seen survives.
 *
 * **Tags are rows.** The stamp of an addition is its tag. A tag is one row of `LwwRecord`'s format: a put while it lives
 * and, once it is removed, a delete *of the same stamp*. Of two rows of one tag the byte-wise greater wins: so a removal
 * beats its addition in whatever order they come, and a tag that was wrongly used twice ends alike everywhere. Adding,
 * removing, merging and loading are one and the same join of rows; a key's values are those of its puts.
 *
 * **Tombstones.** A removed tag keeps 25 bytes, without its value, until it is pruned. Then only the bound of the pruning
 * speaks for it: a tag below the bound that a replica lacks was removed there. That is the idea of "An optimized
 * conflict-free replicated set" (Bieniusa, Zawirski, Preguiça, Shapiro, Baquero, Balegas, Duarte 2012), with one bound
 * in place of a version vector.
 *
 * **Digest.** A key's digest is the lane-wise sum of its rows' digests, which an addition changes in O(1).
 *
 * **In memory** a key is a slot of a table and a tag its row in a slab, as in `LwwMap`; only a key of several tags has a list
 * of their addresses. Values are decoded, deeply frozen, when they are first read. Two values are one when their canonical
 * bytes are equal.
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

/** The address of a key's only tag; 0 where the key has several, whose addresses are in a list. */
const ONLY = OWN_A
/** How many of a key's tags are not removed. */
const PUTS = OWN_B

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

const hash: Hash64 = { hi: 0, lo: 0 }

const none: ReadonlyArray<never> = Object.freeze([])

/** An observed-remove map of one replica; see the head of this file. Changed in place, by one writer at a time. */
export class OrMap {
  /** Digests of all records, summed for each key. */
  readonly tree: MerkleForest
  readonly #now: () => number
  readonly #keys = new KeyTable()
  /** Rows move whenever one is added or freed: an address is read from its place after that, not before. */
  readonly #rows = new RowSlabs((slot, from, to) => {
    const tags = this.#tags[slot]
    if (tags === undefined) this.#setField(slot, ONLY, to)
    else tags[this.#placeOf(tags, this.#rows.bytesOf(from), startOf(from))] = to
  })
  /** Of a key with several tags, by slot: their addresses in the order of their stamps. */
  readonly #tags: Array<Array<Address> | undefined> = []
  /** What a key's tags decode to, by slot, each at the place of its tag: what was read once. */
  readonly #decoded: Array<Array<Value.Value | undefined> | undefined> = []
  /** What reads show of a key, by slot, as of the last read; `undefined` since a change. */
  readonly #values: Array<ReadonlyArray<Value.Value> | undefined> = []
  #records = 0
  #keysWithPuts = 0
  #expiring = 0
  #reusedTags = 0

  constructor(options: Options) {
    this.#now = options.now
    this.tree = options.tree ?? new MerkleForest()
  }

  /** The number of keys that have a value now. */
  get size(): number {
    if (this.#expiring === 0) return this.#keysWithPuts
    const now = this.#now()
    let size = 0
    for (const slot of this.#keys.slots.values()) if (this.#hasValue(slot, now)) size++
    return size
  }

  /** The number of records, one for each tag of each key, tombstones included. */
  get recordCount(): number {
    return this.#records
  }

  /**
   * How often a merge has met two different additions under one tag. Clocks never issue a stamp twice, so more than 0
   * tells of a writer with a copied identity. The greater record won, as it does on every replica.
   */
  get reusedTags(): number {
    return this.#reusedTags
  }

  /** Whether a key has a value now or, where canonical bytes are given, has that value. */
  has(key: string, valueBytes?: Uint8Array): boolean {
    const slot = this.#keys.slots.get(key)
    if (slot === undefined) return false
    const now = this.#now()
    if (valueBytes === undefined) return this.#hasValue(slot, now)
    return this.#tagsOf(slot).some((tag) => this.#isVisible(tag, now) && this.#hasBytes(tag, valueBytes))
  }

  /**
   * The values of a key, each once, in the order of their earliest stamps; deeply frozen, and the same array at each read
   * until they change. Empty when there is none.
   */
  getValues(key: string): ReadonlyArray<Value.Value> {
    const slot = this.#keys.slots.get(key)
    return slot === undefined ? none : this.#valuesOf(slot, this.#now())
  }

  /** The records of a key in the order of their stamps, tombstones and expired ones included. Rows are views, as in `LwwMap`. */
  getRecords(key: string): Array<Row> {
    const slot = this.#keys.slots.get(key)
    return slot === undefined ? [] : this.#tagsOf(slot).map((tag) => this.#recordAt(tag))
  }

  /** The keys that have a value. The map may change meanwhile. */
  *keys(): IterableIterator<string> {
    for (const [key, slot] of this.#keys.slots) if (this.#hasValue(slot, this.#now())) yield key
  }

  /** The keys that have a value, with their values as {@link getValues} has them. The map may change meanwhile. */
  *entries(): IterableIterator<[key: string, values: ReadonlyArray<Value.Value>]> {
    for (const [key, slot] of this.#keys.slots) {
      const values = this.#valuesOf(slot, this.#now())
      if (values.length > 0) yield [key, values]
    }
  }

  /** Every record with its key, tombstones and expired ones included. The map may change meanwhile. */
  *records(): IterableIterator<[key: string, record: Row]> {
    for (const key of this.#keys.slots.keys()) {
      for (const record of this.getRecords(key)) yield [key, record]
    }
  }

  /**
   * Joins the record of one tag: from here, a peer or storage. Answers the change, or `undefined` where the record lost or
   * was known. A key is one that `Value.checkKey` has passed. The row is copied.
   */
  merge(key: string, record: Row): Change | undefined {
    const slot = this.#keys.slots.get(key)
    if (slot === undefined) {
      this.#insert(key, (added) => this.#rows.add(added, record.row, 0, record.row.length))
      return { key, previous: undefined, record }
    }
    const tags = this.#tagsOf(slot)
    const place = this.#placeOf(tags, record.row, 0)
    const known = tags[place]
    if (known === undefined || !this.#isTag(known, record.row, 0)) {
      this.#addTag(slot, place, this.#rows.add(slot, record.row, 0, record.row.length))
      return { key, previous: undefined, record }
    }
    const previous = this.#recordAt(known)
    const order = LwwRecord.compare(record, previous)
    if (order !== 0 && !record.isTombstone && !previous.isTombstone) this.#reusedTags++
    if (order <= 0) return undefined
    this.#replaceTag(slot, place, this.#rows.add(slot, record.row, 0, record.row.length))
    return { key, previous, record }
  }

  /**
   * Adds a value, given as canonical bytes, under a tag of its own. The stamp is a fresh one of this replica's clock;
   * `expiresAt` in ms, 0 for never. A value that the key has already gets one tag more: who removes it at the same time
   * elsewhere hasn't seen that one. Answers the record, for storage and peers: a view of the map's memory.
   */
  add(key: string, valueBytes: Uint8Array, stamp: Timestamp, expiresAt = 0): Row {
    if (this.#keys.slots.has(key)) {
      const record = LwwRecord.put(stamp, valueBytes, expiresAt)
      this.merge(key, record)
      return record
    }
    const slot = this.#insert(key, (added) => {
      const address = this.#rows.reserve(added, LwwRecord.putBytes(valueBytes.length, expiresAt))
      LwwRecord.writePut(this.#rows.bytesOf(address), startOf(address), stamp, valueBytes, expiresAt)
      return address
    })
    return this.#recordAt(this.#field(slot, ONLY))
  }

  /**
   * Removes a value, given as canonical bytes: all tags of it that this replica knows, and no other. Answers their
   * tombstones, for storage and peers; none when it knows no such tag. Tags that are expired by the clock here go too,
   * since they may not be by a clock elsewhere.
   */
  remove(key: string, valueBytes: Uint8Array): Array<Row> {
    const slot = this.#keys.slots.get(key)
    if (slot === undefined) return []
    const tombstones = this.#tagsOf(slot)
      .filter((tag) => !this.#isTombstone(tag) && this.#hasBytes(tag, valueBytes))
      .map((tag) => LwwRecord.remove(this.#recordAt(tag).stamp))
    for (const tombstone of tombstones) this.merge(key, tombstone)
    return tombstones
  }

  /**
   * Forgets the tombstones with stamps below `beforeMillis`, in ms; answers them with their keys. A tombstone has the stamp
   * of the *addition*: whoever prunes must hold from then on that a tag below the bound, when a peer offers it, was
   * removed.
   */
  prune(beforeMillis: number): Array<[key: string, record: Row]> {
    const pruned: Array<[key: string, record: Row]> = []
    for (const [key, slot] of this.#keys.slots) {
      const tags = this.#tagsOf(slot)
      if (this.#field(slot, PUTS) === tags.length) continue
      const dead = new Set(tags.filter((tag) => this.#isTombstone(tag) && this.#recordAt(tag).millis < beforeMillis))
      if (dead.size === 0) continue
      for (const tag of dead) {
        pruned.push([key, this.#recordAt(tag)])
        this.#digest(slot, tag, -1)
      }
      this.#records -= dead.size
      if (dead.size === tags.length) {
        this.tree.remove(this.#field(slot, PARTITION), slot)
        this.#keys.remove(slot)
        this.#tags[slot] = undefined
        this.#decoded[slot] = undefined
        this.#values[slot] = undefined
      } else {
        this.#decoded[slot] = this.#decoded[slot] &&
          tags.flatMap((tag, i) => dead.has(tag) ? [] : [this.#decoded[slot]![i]])
        this.#setTags(slot, tags.filter((tag) => !dead.has(tag)))
      }
      this.#rows.freeAll(dead)
    }
    return pruned
  }

  /** The digest of the whole state, tombstones included, 16 hex digits: the Merkle root. */
  get digest(): string {
    return this.tree.getRootHash()
  }

  #field(slot: number, field: number): number {
    return this.#keys.fields[slot << FIELDS_LOG2 | field]!
  }

  #setField(slot: number, field: number, value: number): void {
    this.#keys.fields[slot << FIELDS_LOG2 | field] = value
  }

  #recordAt(tag: Address): Row {
    return LwwRecord.fromTrusted(this.#rows.rowAt(tag))
  }

  #isTombstone(tag: Address): boolean {
    return LwwRecord.isTombstoneAt(this.#rows.bytesOf(tag), startOf(tag))
  }

  #expiresAt(tag: Address): number {
    return LwwRecord.expiresAtAt(this.#rows.bytesOf(tag), startOf(tag))
  }

  #isVisible(tag: Address, now: number): boolean {
    if (this.#isTombstone(tag)) return false
    const expiresAt = this.#expiresAt(tag)
    return expiresAt === 0 || expiresAt > now
  }

  #hasBytes(tag: Address, valueBytes: Uint8Array): boolean {
    const bytes = this.#rows.bytesOf(tag)
    const start = startOf(tag)
    const end = start + this.#rows.lengthOf(tag)
    return compareRanges(bytes, LwwRecord.valueAt(bytes, start), end, valueBytes, 0, valueBytes.length) === 0
  }

  /** Whether a row that begins at `start` is one of this tag. */
  #isTag(tag: Address, row: Uint8Array, start: number): boolean {
    return this.#compareTags(tag, row, start) === 0
  }

  /** The order of tags: that of their stamps, which is that of the rows' first bytes. */
  #compareTags(tag: Address, row: Uint8Array, start: number): number {
    const from = startOf(tag)
    const { stampBytes } = LwwRecord
    return compareRanges(this.#rows.bytesOf(tag), from, from + stampBytes, row, start, start + stampBytes)
  }

  /** A key's tags in the order of their stamps. */
  #tagsOf(slot: number): Array<Address> {
    return this.#tags[slot] ?? [this.#field(slot, ONLY)]
  }

  #setTags(slot: number, tags: Array<Address>): void {
    this.#tags[slot] = tags.length === 1 ? undefined : tags
    this.#setField(slot, ONLY, tags.length === 1 ? tags[0]! : 0)
    this.#values[slot] = undefined
  }

  /** Where a row's tag is, or would be, among the tags. Almost always it is the latest. */
  #placeOf(tags: ReadonlyArray<Address>, row: Uint8Array, start: number): number {
    let from = 0
    let to = tags.length
    if (this.#compareTags(tags[to - 1]!, row, start) < 0) return to
    while (from < to) {
      const middle = (from + to) >>> 1
      if (this.#compareTags(tags[middle]!, row, start) < 0) from = middle + 1
      else to = middle
    }
    return from
  }

  #insert(key: string, write: (slot: number) => Address): number {
    const slot = this.#keys.add(key)
    let tag: Address
    try {
      this.tree.check(this.#field(slot, PARTITION), this.#keys)
      tag = write(slot)
    } catch (fault) {
      this.#keys.remove(slot)
      throw fault
    }
    this.#setTags(slot, [tag])
    this.#records++
    this.#count(slot, tag, 1)
    this.#digest(slot, tag, 1, true)
    return slot
  }

  #addTag(slot: number, place: number, tag: Address): void {
    const tags = this.#tagsOf(slot)
    if (place === tags.length) tags.push(tag)
    else tags.splice(place, 0, tag)
    this.#decoded[slot]?.splice(place, 0, undefined)
    this.#setTags(slot, tags)
    this.#records++
    this.#count(slot, tag, 1)
    this.#digest(slot, tag, 1)
  }

  #replaceTag(slot: number, place: number, tag: Address): void {
    const tags = this.#tagsOf(slot)
    const previous = tags[place]!
    this.#count(slot, previous, -1)
    this.#digest(slot, previous, -1)
    this.#count(slot, tag, 1)
    this.#digest(slot, tag, 1)
    tags[place] = tag
    const decoded = this.#decoded[slot]
    if (decoded !== undefined) decoded[place] = undefined
    this.#setTags(slot, tags)
    this.#rows.free(previous)
  }

  /** Counts a tag that becomes, or ceases to be, one of its key's. */
  #count(slot: number, tag: Address, by: 1 | -1): void {
    if (this.#isTombstone(tag)) return
    if (this.#expiresAt(tag) !== 0) this.#expiring += by
    const puts = this.#field(slot, PUTS) + by
    this.#setField(slot, PUTS, puts)
    if (puts === 0) this.#keysWithPuts--
    else if (puts === 1 && by === 1) this.#keysWithPuts++
  }

  /** Adds a tag's digest to its key's, or takes it away. The first tag of a key brings that into the tree. */
  #digest(slot: number, tag: Address, by: 1 | -1, isFirst = false): void {
    const { fields } = this.#keys
    const at = slot << FIELDS_LOG2
    const start = startOf(tag)
    const end = start + this.#rows.lengthOf(tag)
    digestRow(fields[at + KEY_HI]!, fields[at + KEY_LO]!, this.#rows.viewOf(tag), start, end, hash)
    const partition = fields[at + PARTITION]!
    if (isFirst) {
      fields[at + DIGEST_HI] = hash.hi
      fields[at + DIGEST_LO] = hash.lo
      this.tree.insert(partition, this.#keys, slot)
    } else {
      this.tree.update(
        partition,
        slot,
        (fields[at + DIGEST_HI]! + by * hash.hi) | 0,
        (fields[at + DIGEST_LO]! + by * hash.lo) | 0
      )
    }
  }

  #hasValue(slot: number, now: number): boolean {
    if (this.#field(slot, PUTS) === 0) return false
    return this.#expiring === 0 || this.#tagsOf(slot).some((tag) => this.#isVisible(tag, now))
  }

  #valuesOf(slot: number, now: number): ReadonlyArray<Value.Value> {
    const known = this.#values[slot]
    if (known !== undefined && this.#expiring === 0) return known
    const tags = this.#tagsOf(slot)
    const decoded = this.#decoded[slot] ??= []
    const values = this.#distinct(tags, now).map((place) => decoded[place] ??= this.#decode(tags[place]!))
    if (known?.length === values.length && values.every((value, i) => Object.is(value, known[i]))) return known
    return this.#values[slot] = values.length === 0 ? none : Object.freeze(values)
  }

  #decode(tag: Address): Value.Value {
    const bytes = this.#rows.bytesOf(tag)
    const start = startOf(tag)
    return Value.decodeTrusted(bytes, LwwRecord.valueAt(bytes, start), start + this.#rows.lengthOf(tag))
  }

  /** The places of the visible tags, of those with equal values only the earliest. */
  #distinct(tags: ReadonlyArray<Address>, now: number): ReadonlyArray<number> {
    const places: Array<number> = []
    tags.forEach((tag, place) => {
      if (this.#isVisible(tag, now)) places.push(place)
    })
    if (places.length < 2) return places
    // By sorting, not hashing: nobody can make it slow by values that collide. The sort is stable, so the earliest leads.
    const byValue = places.map((place) => ({ place, bytes: this.#recordAt(tags[place]!).valueBytes }))
      .sort((a, b) => Value.compareBytes(a.bytes, b.bytes))
    return byValue
      .filter(({ bytes }, i) => i === 0 || Value.compareBytes(byValue[i - 1]!.bytes, bytes) !== 0)
      .map(({ place }) => place)
      .sort((a, b) => a - b)
  }
}
