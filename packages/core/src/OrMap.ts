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
 * Values are held as canonical bytes and decoded, deeply frozen, when they are first read. Two values are one when their
 * canonical bytes are equal.
 */
import type { Hash64 } from "./internal/hash.ts"
import { hashKey } from "./internal/hash.ts"
import * as LwwRecord from "./LwwRecord.ts"
import type { TreeEntry } from "./MerkleTree.ts"
import { digestRow, MerkleForest } from "./MerkleTree.ts"
import * as Partition from "./Partition.ts"
import { nodeIdLength, type Timestamp } from "./Timestamp.ts"
import * as Value from "./Value.ts"

type Row = LwwRecord.LwwRecord

interface Tag {
  record: Row
  /** The decoded value of a put; `undefined` until it is first read. */
  value: Value.Value | undefined
}

class Entry implements TreeEntry {
  readonly key: string
  readonly keyHi: number
  readonly keyLo: number
  readonly partition: number
  digestHi = 0
  digestLo = 0
  /** In the order of their stamps. */
  tags: Array<Tag> = []
  /** How many of the tags are not removed, and how many of these expire one day. */
  puts = 0
  expiring = 0
  /** What reads show, as of the last read; `undefined` since a change. */
  values: ReadonlyArray<Value.Value> | undefined

  constructor(key: string) {
    hashKey(key, hash)
    this.key = key
    this.keyHi = hash.hi
    this.keyLo = hash.lo
    this.partition = Partition.ofHash(hash.hi, hash.lo)
  }
}

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

/** Where a row has the node id of its stamp: see the table in `LwwRecord`. */
const NODE_ID_AT = 8
const NODE_ID_END = NODE_ID_AT + nodeIdLength

/** The order of tags: that of their stamps, which is that of the rows' first bytes. */
const compareTags = (a: Row, b: Row): number => {
  if (a.millis !== b.millis) return a.millis - b.millis
  if (a.counter !== b.counter) return a.counter - b.counter
  for (let at = NODE_ID_AT; at < NODE_ID_END; at++) {
    if (a.row[at] !== b.row[at]) return a.row[at]! - b.row[at]!
  }
  return 0
}

/** Where a tag is, or would be, among the tags. Almost always it is the latest. */
const placeOf = (tags: ReadonlyArray<Tag>, record: Row): number => {
  let from = 0
  let to = tags.length
  if (to === 0 || compareTags(tags[to - 1]!.record, record) < 0) return to
  while (from < to) {
    const middle = (from + to) >>> 1
    if (compareTags(tags[middle]!.record, record) < 0) from = middle + 1
    else to = middle
  }
  return from
}

/** Of tags with equal values the earliest, in the order of the tags. */
const distinct = (tags: ReadonlyArray<Tag>): ReadonlyArray<Tag> => {
  if (tags.length < 2) return tags
  // By sorting, not hashing: nobody can make it slow by values that collide. The sort is stable, so the earliest leads.
  const byValue = tags.map((tag) => ({ tag, bytes: tag.record.valueBytes }))
    .sort((a, b) => Value.compareBytes(a.bytes, b.bytes))
  const first = new Set<Tag>()
  byValue.forEach(({ bytes, tag }, i) => {
    if (i === 0 || Value.compareBytes(byValue[i - 1]!.bytes, bytes) !== 0) first.add(tag)
  })
  return tags.filter((tag) => first.has(tag))
}

const decoded = (tag: Tag): Value.Value => tag.value ??= Value.decode(tag.record.valueBytes)

const none: ReadonlyArray<never> = Object.freeze([])

/** An observed-remove map of one replica; see the head of this file. Changed in place, by one writer at a time. */
export class OrMap {
  readonly tree: MerkleForest
  readonly #entries = new Map<string, Entry>()
  readonly #now: () => number
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
    for (const entry of this.#entries.values()) if (this.#hasValue(entry, now)) size++
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
    const entry = this.#entries.get(key)
    if (entry === undefined) return false
    const now = this.#now()
    return valueBytes === undefined ?
      this.#hasValue(entry, now) :
      entry.tags.some(({ record }) => isVisible(record, now) && Value.compareBytes(record.valueBytes, valueBytes) === 0)
  }

  /**
   * The values of a key, each once, in the order of their earliest stamps; deeply frozen, and the same array at each read
   * until they change. Empty when there is none.
   */
  getValues(key: string): ReadonlyArray<Value.Value> {
    const entry = this.#entries.get(key)
    return entry === undefined ? none : this.#valuesOf(entry, this.#now())
  }

  /** The records of a key in the order of their stamps, tombstones and expired ones included. */
  getRecords(key: string): Array<Row> {
    return this.#entries.get(key)?.tags.map(({ record }) => record) ?? []
  }

  /** The keys that have a value. The map may change meanwhile. */
  *keys(): IterableIterator<string> {
    for (const entry of this.#entries.values()) if (this.#hasValue(entry, this.#now())) yield entry.key
  }

  /** The keys that have a value, with their values as {@link getValues} has them. The map may change meanwhile. */
  *entries(): IterableIterator<[key: string, values: ReadonlyArray<Value.Value>]> {
    for (const entry of this.#entries.values()) {
      const values = this.#valuesOf(entry, this.#now())
      if (values.length > 0) yield [entry.key, values]
    }
  }

  /** Every record with its key, tombstones and expired ones included. The map may change meanwhile. */
  *records(): IterableIterator<[key: string, record: Row]> {
    for (const entry of this.#entries.values()) {
      for (const { record } of entry.tags.slice()) yield [entry.key, record]
    }
  }

  /**
   * Joins the record of one tag: from here, a peer or storage. Answers the change, or `undefined` where the record lost or
   * was known. A key is one that `Value.checkKey` has passed.
   */
  merge(key: string, record: Row): Change | undefined {
    const known = this.#entries.get(key)
    const entry = known ?? new Entry(key)
    const at = placeOf(entry.tags, record)
    const tag = entry.tags[at]
    if (tag === undefined || compareTags(tag.record, record) !== 0) {
      const added = { record, value: undefined }
      if (at === entry.tags.length) entry.tags.push(added)
      else entry.tags.splice(at, 0, added)
      this.#account(entry, undefined, record, known === undefined)
      return { key, previous: undefined, record }
    }
    const previous = tag.record
    const order = LwwRecord.compare(record, previous)
    if (order !== 0 && !record.isTombstone && !previous.isTombstone) this.#reusedTags++
    if (order <= 0) return undefined
    tag.record = record
    tag.value = undefined
    this.#account(entry, previous, record, false)
    return { key, previous, record }
  }

  /**
   * Adds a value, given as canonical bytes, under a tag of its own. The stamp is a fresh one of this replica's clock;
   * `expiresAt` in ms, 0 for never. A value that the key has already gets one tag more: who removes it at the same time
   * elsewhere hasn't seen that one. Answers the record, for storage and peers.
   */
  add(key: string, valueBytes: Uint8Array, stamp: Timestamp, expiresAt = 0): Row {
    const record = LwwRecord.put(stamp, valueBytes, expiresAt)
    this.merge(key, record)
    return record
  }

  /**
   * Removes a value, given as canonical bytes: all tags of it that this replica knows, and no other. Answers their
   * tombstones, for storage and peers; none when it knows no such tag. Tags that are expired by the clock here go too,
   * since they may not be by a clock elsewhere.
   */
  remove(key: string, valueBytes: Uint8Array): Array<Row> {
    const tombstones: Array<Row> = []
    for (const { record } of this.#entries.get(key)?.tags ?? none) {
      if (record.isTombstone || Value.compareBytes(record.valueBytes, valueBytes) !== 0) continue
      tombstones.push(LwwRecord.remove(record.stamp))
    }
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
    for (const entry of this.#entries.values()) {
      if (entry.puts === entry.tags.length) continue
      const kept: Array<Tag> = []
      let { digestHi, digestLo } = entry
      for (const tag of entry.tags) {
        if (!tag.record.isTombstone || tag.record.millis >= beforeMillis) {
          kept.push(tag)
          continue
        }
        digestRow(entry, tag.record.row, hash)
        digestHi = (digestHi - hash.hi) | 0
        digestLo = (digestLo - hash.lo) | 0
        pruned.push([entry.key, tag.record])
      }
      if (kept.length === entry.tags.length) continue
      this.#records -= entry.tags.length - kept.length
      entry.tags = kept
      if (kept.length > 0) {
        this.tree.update(entry.partition, entry, digestHi, digestLo)
      } else {
        this.tree.remove(entry.partition, entry)
        this.#entries.delete(entry.key)
      }
    }
    return pruned
  }

  /** The digest of the whole state, tombstones included, 16 hex digits: the Merkle root. */
  get digest(): string {
    return this.tree.getRootHash()
  }

  #hasValue(entry: Entry, now: number): boolean {
    return entry.puts > entry.expiring ||
      (entry.expiring > 0 && entry.tags.some(({ record }) => isVisible(record, now)))
  }

  #valuesOf(entry: Entry, now: number): ReadonlyArray<Value.Value> {
    const known = entry.values
    if (known !== undefined && entry.expiring === 0) return known
    const values = distinct(entry.tags.filter(({ record }) => isVisible(record, now))).map(decoded)
    if (known?.length === values.length && values.every((value, i) => Object.is(value, known[i]))) return known
    return entry.values = values.length === 0 ? none : Object.freeze(values)
  }

  /** Brings the counts, the digest and the tree up to date with one tag's new record. */
  #account(entry: Entry, previous: Row | undefined, record: Row, isNewKey: boolean): void {
    const hadPuts = entry.puts > 0
    let { digestHi, digestLo } = entry
    if (previous === undefined) {
      this.#records++
    } else {
      this.#count(entry, previous, -1)
      digestRow(entry, previous.row, hash)
      digestHi = (digestHi - hash.hi) | 0
      digestLo = (digestLo - hash.lo) | 0
    }
    this.#count(entry, record, 1)
    digestRow(entry, record.row, hash)
    digestHi = (digestHi + hash.hi) | 0
    digestLo = (digestLo + hash.lo) | 0
    entry.values = undefined
    if (hadPuts !== entry.puts > 0) this.#keysWithPuts += hadPuts ? -1 : 1
    if (isNewKey) {
      entry.digestHi = digestHi
      entry.digestLo = digestLo
      this.#entries.set(entry.key, entry)
      this.tree.insert(entry.partition, entry)
    } else {
      this.tree.update(entry.partition, entry, digestHi, digestLo)
    }
  }

  #count(entry: Entry, record: Row, by: 1 | -1): void {
    if (record.isTombstone) return
    entry.puts += by
    if (record.expiresAt === 0) return
    entry.expiring += by
    this.#expiring += by
  }
}

const isVisible = (record: Row, now: number): boolean =>
  !record.isTombstone && (record.expiresAt === 0 || record.expiresAt > now)
