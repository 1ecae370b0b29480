/**
 * The keys of one map, each with a number, its slot, and eight 32-bit fields side by side: a fifth of what an object with
 * the same fields takes, and nothing for the collector to visit. The slot of a key that went is given to a later one.
 */
import * as Partition from "../Partition.ts"
import { type Hash64, hashKey } from "./hash.ts"

/** The two lanes of the key's hash. */
export const KEY_HI = 0
export const KEY_LO = 1
/** The two lanes of the digest of what the tree has of the key. */
export const DIGEST_HI = 2
export const DIGEST_LO = 3
/** The key's successor in its bucket of the tree: a slot, or -1. The tree's own. */
export const NEXT = 4
/** The map's own. */
export const OWN_A = 5
export const OWN_B = 6
export const PARTITION = 7

/** The field `f` of slot `s` is at `s << FIELDS_LOG2 | f`. */
export const FIELDS_LOG2 = 3

const hash: Hash64 = { hi: 0, lo: 0 }

/** See the head of this file. */
export class KeyTable {
  /** Slots by key, in the order in which the keys came. */
  readonly slots = new Map<string, number>()
  /** Keys by slot; what a vacant slot has means nothing. */
  readonly keys: Array<string> = []
  /** All fields of all slots. Another array when the table has grown: not to be kept. */
  fields = new Int32Array(4 << FIELDS_LOG2)
  readonly #vacant: Array<number> = []
  /** Characters at the beginning of a key that have no part in its partition. */
  readonly #prefixLength: number

  constructor(prefixLength = 0) {
    this.#prefixLength = prefixLength
  }

  /** The partition of a key, in the table or not. */
  partitionOf(key: string): number {
    return Partition.partitionOf(this.#prefixLength === 0 ? key : key.slice(this.#prefixLength))
  }

  /** Adds a key that isn't in the table: its hash and partition are set, the map's own fields are 0. */
  add(key: string): number {
    hashKey(key, hash)
    return this.addHashed(key, hash.hi, hash.lo)
  }

  /** {@link add}, of a key whose hash is known. */
  addHashed(key: string, hi: number, lo: number): number {
    const partition = this.#prefixLength === 0 ? Partition.ofHash(hi, lo) : this.partitionOf(key)
    // First what may fail for want of memory.
    if (this.#vacant.length === 0 && this.keys.length << FIELDS_LOG2 === this.fields.length) {
      const grown = new Int32Array(this.fields.length * 2)
      grown.set(this.fields)
      this.fields = grown
    }
    const slot = this.#vacant.pop() ?? this.keys.length
    this.slots.set(key, slot)
    this.keys[slot] = key
    const at = slot << FIELDS_LOG2
    const { fields } = this
    fields[at + KEY_HI] = hi
    fields[at + KEY_LO] = lo
    fields[at + OWN_A] = 0
    fields[at + OWN_B] = 0
    fields[at + PARTITION] = partition
    return slot
  }

  /** Takes a key out. */
  remove(slot: number): void {
    this.slots.delete(this.keys[slot]!)
    this.keys[slot] = ""
    this.#vacant.push(slot)
  }
}
