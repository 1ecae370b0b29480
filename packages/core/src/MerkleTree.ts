/**
 * A digest of a set of records that two replicas can compare level by level (Merkle 1987; the walk is that of Dynamo,
 * DeCandia et al. 2007, section 4.7).
 *
 * **Shape.** A trie over the 64-bit hashes of the keys, 16 children a node, four bits of the hash a level. A node with
 * at most {@link leafKeysMax} keys below it is a leaf; so the shape is a function of the set of keys alone and two
 * replicas of equal content have equal trees, whatever their histories.
 *
 * **Hashes.** A record's digest is 64 bits over its key's hash and its whole row. A node's hash is the lane-wise sum of the
 * digests of all records below it (AdHash: Bellare & Micciancio 1997, "A new paradigm for collision-free hashing"), so a
 * changed record is one addition a level, neighbours aren't looked at, and nothing is ever computed anew. Digests of
 * different records are as good as random: edits that compensate each other as numbers don't compensate in their sum. The
 * digest is not cryptographic: who may write to a map can craft records that hide others' changes from a walk.
 *
 * **Cost.** Update O(levels), about log16(n / 16) + 1. Comparing costs O(differences × levels): the hashes of the 16
 * children of each node on the way to a difference.
 *
 * **In memory** the trie is a table: for each level down to where buckets have some 16 keys the counts and sums of all its
 * nodes, and for each node of the last level the chain of its keys. What lies deeper is read off the chain when asked for.
 *
 * A map has one tree for each of the 271 partitions of its keys, allocated at the first key: {@link MerkleForest}.
 */
import { type Hash64, hashBytes, hex } from "./internal/hash.ts"
import { DIGEST_HI, DIGEST_LO, FIELDS_LOG2, KEY_HI, KEY_LO, type KeyTable, NEXT } from "./internal/KeyTable.ts"
import { partitionCount } from "./Partition.ts"

/** A leaf with more keys than this becomes a branch. */
export const leafKeysMax = 16
/** Children of a branch. */
export const fanout = 16
/** Levels below the root, at most: those of a hash's hex digits. */
export const depthMax = 16

/** A node's place: the first `depth` hex digits of its keys' hashes; what follows them in the lanes is 0. */
export interface Path {
  readonly hi: number
  readonly lo: number
  readonly depth: number
}

/** The path of a tree's root. */
export const rootPath: Path = { hi: 0, lo: 0, depth: 0 }

/** The hex digit of a hash at `depth`. */
export const digitAt = (hi: number, lo: number, depth: number): number =>
  depth < 8 ? (hi >>> (28 - 4 * depth)) & 15 : (lo >>> (28 - 4 * (depth - 8))) & 15

/** The path of a child. */
export const childPath = ({ depth, hi, lo }: Path, digit: number): Path =>
  depth < 8
    ? { hi: hi | digit << (28 - 4 * depth), lo, depth: depth + 1 }
    : { hi, lo: lo | digit << (28 - 4 * (depth - 8)), depth: depth + 1 }

/** The path of hex digits, at most {@link depthMax} of them, the root's the empty text. */
export const pathOf = (digits: string): Path => {
  let path = rootPath
  for (const digit of digits) path = childPath(path, Number.parseInt(digit, 16))
  return path
}

/** The bits of a lane that a path of so many digits in this lane fixes. */
const maskOf = (digits: number): number => digits <= 0 ? 0 : digits >= 8 ? -1 : -1 << (32 - 4 * digits)

/** Whether a hash begins as a path does. */
export const isUnder = (hi: number, lo: number, path: Path): boolean =>
  ((hi ^ path.hi) & maskOf(path.depth)) === 0 && ((lo ^ path.lo) & maskOf(path.depth - 8)) === 0

/** The order of hashes, unsigned. */
export const compareHashes = (aHi: number, aLo: number, bHi: number, bLo: number): number =>
  aHi !== bHi ? (aHi >>> 0) - (bHi >>> 0) : (aLo >>> 0) - (bLo >>> 0)

/** A place in the order of keys: by hash, then by the key itself. */
export interface Cursor extends Hash64 {
  readonly key: string
}

/**
 * The digest of one row of a key, into `out`: over the row's bytes in [start, end), seeded by the key's hash. Two keys of
 * one hash with the same row, stamp and all, which only who crafts them has, have one digest.
 */
export const digestRow = (
  keyHi: number,
  keyLo: number,
  row: DataView,
  start: number,
  end: number,
  out: Hash64
): void => hashBytes(row, start, end, keyHi, keyLo, out)

// --- The table of nodes ---

const COUNT = 0
const SUM_HI = 1
const SUM_LO = 2
/** The first key of a node of the last level: a slot, or -1. */
const HEAD = 3
const NODE_LOG2 = 2

/** Levels of the table below its root, at most: 16^5 chains. */
const levelsMax = 5

/** How many nodes are above a level. */
const nodesAbove = [0, 1, 17, 273, 4369, 69905, 1118481]

const tableOf = (levels: number): Int32Array => {
  const table = new Int32Array(nodesAbove[levels + 1]! << NODE_LOG2)
  for (let node = nodesAbove[levels]!; node < nodesAbove[levels + 1]!; node++) table[(node << NODE_LOG2) + HEAD] = -1
  return table
}

/** The fields that a node's {@link MerkleTree.readChildren} gives of each child: how many keys, and the hash's lanes. */
export const childFields = 3

/** The tree of one partition, over keys of a table. A slot may be in one tree at a time. */
export class MerkleTree {
  readonly keys: KeyTable
  #levels = 0
  #nodes = tableOf(0)

  constructor(keys: KeyTable) {
    this.keys = keys
  }

  /** How many keys it holds. */
  get size(): number {
    return this.#nodes[COUNT]!
  }

  /** Two trees of equal content have equal root hashes. Both lanes are 0 for the empty tree. */
  root(): Hash64 {
    return { hi: this.#nodes[SUM_HI]!, lo: this.#nodes[SUM_LO]! }
  }

  /** {@link root} as 16 hex digits. */
  getRootHash(): string {
    return hex(this.root())
  }

  /** Adds a key that isn't in the tree yet; its hash and digest are read from the table. */
  insert(slot: number): void {
    if (this.size === leafKeysMax << (4 * this.#levels) && this.#levels < levelsMax) this.#rebuild(this.#levels + 1)
    const at = slot << FIELDS_LOG2
    const { fields } = this.keys
    this.#count(fields[at + KEY_HI]!, 1, fields[at + DIGEST_HI]!, fields[at + DIGEST_LO]!)
    this.#link(slot)
  }

  /** Gives a key that is in the tree a new digest. */
  update(slot: number, digestHi: number, digestLo: number): void {
    const at = slot << FIELDS_LOG2
    const { fields } = this.keys
    this.#count(fields[at + KEY_HI]!, 0, digestHi - fields[at + DIGEST_HI]!, digestLo - fields[at + DIGEST_LO]!)
    fields[at + DIGEST_HI] = digestHi
    fields[at + DIGEST_LO] = digestLo
  }

  /** Takes a key out that is in the tree. */
  remove(slot: number): void {
    const at = slot << FIELDS_LOG2
    const { fields } = this.keys
    const nodes = this.#nodes
    const head = this.#chainOf(fields[at + KEY_HI]!)
    if (nodes[head] === slot) {
      nodes[head] = fields[at + NEXT]!
    } else {
      let before = nodes[head]!
      while (fields[(before << FIELDS_LOG2) + NEXT] !== slot) before = fields[(before << FIELDS_LOG2) + NEXT]!
      fields[(before << FIELDS_LOG2) + NEXT] = fields[at + NEXT]!
    }
    this.#count(fields[at + KEY_HI]!, -1, -fields[at + DIGEST_HI]!, -fields[at + DIGEST_LO]!)
    // A quarter of what made it grow, so that it doesn't grow again at once.
    if (this.#levels > 0 && this.size * 4 < leafKeysMax << (4 * (this.#levels - 1))) this.#rebuild(this.#levels - 1)
  }

  /** How many keys are below a node. One with at most {@link leafKeysMax} is a leaf, and so is one of the last level. */
  count(path: Path): number {
    if (path.depth <= this.#levels) return this.#nodes[this.#nodeOf(path) + COUNT]!
    let count = 0
    this.#each(path, () => count++)
    return count
  }

  /** Writes of each of a branch's 16 children {@link childFields} numbers: its count of keys, and its hash's lanes. */
  readChildren(path: Path, out: Int32Array): void {
    const { depth } = path
    if (depth < this.#levels) {
      let node = this.#nodeOf(childPath(path, 0))
      for (let at = 0; at < fanout * childFields; at += childFields) {
        out[at] = this.#nodes[node + COUNT]!
        out[at + 1] = this.#nodes[node + SUM_HI]!
        out[at + 2] = this.#nodes[node + SUM_LO]!
        node += 1 << NODE_LOG2
      }
      return
    }
    out.fill(0)
    const { fields } = this.keys
    this.#each(path, (at) => {
      const child = digitAt(fields[at + KEY_HI]!, fields[at + KEY_LO]!, depth) * childFields
      out[child]!++
      out[child + 1]! += fields[at + DIGEST_HI]!
      out[child + 2]! += fields[at + DIGEST_LO]!
    })
  }

  /** The slots of all keys below a node, in no order. */
  slotsBelow(path: Path): Array<number> {
    const slots: Array<number> = []
    this.#each(path, (at) => slots.push(at >>> FIELDS_LOG2))
    return slots
  }

  /** The slots of the keys with this hash: one, none, or the rare twins. */
  find(hi: number, lo: number): Array<number> {
    return this.slotsBelow({ hi, lo, depth: depthMax })
  }

  /**
   * Visits the slots below `path` in the order of their keys' hashes, those of one hash in the order of the keys, from
   * beyond `after` on, until `visit` answers false; answers whether it never did.
   */
  visit(path: Path, after: Cursor | undefined, visit: (slot: number) => boolean): boolean {
    if (path.depth < this.#levels) {
      const onEdge = after !== undefined && isUnder(after.hi, after.lo, path)
      // Children whose whole range lies at or before `after` are passed over without a look inside.
      const edge = onEdge ? digitAt(after.hi, after.lo, path.depth) : 0
      for (let digit = edge; digit < fanout; digit++) {
        const child = childPath(path, digit)
        if (this.count(child) > 0 && !this.visit(child, onEdge && digit > edge ? undefined : after, visit)) {
          return false
        }
      }
      return true
    }
    const { fields, keys } = this.keys
    const compare = (slot: number, hi: number, lo: number, key: string): number => {
      const at = slot << FIELDS_LOG2
      const order = compareHashes(fields[at + KEY_HI]!, fields[at + KEY_LO]!, hi, lo)
      return order !== 0 ? order : keys[slot]! < key ? -1 : keys[slot]! > key ? 1 : 0
    }
    return this.slotsBelow(path)
      .filter((slot) => after === undefined || compare(slot, after.hi, after.lo, after.key) > 0)
      .sort((a, b) => {
        const at = b << FIELDS_LOG2
        return compare(a, fields[at + KEY_HI]!, fields[at + KEY_LO]!, keys[b]!)
      })
      .every((slot) => visit(slot))
  }

  /** The hashes of a branch's children by hex digit; of a leaf and of nothing, none. */
  getBuckets(digits: string): Record<string, string> {
    const path = pathOf(digits)
    const buckets: Record<string, string> = {}
    if (path.depth === depthMax || this.count(path) <= leafKeysMax) return buckets
    const children = new Int32Array(fanout * childFields)
    this.readChildren(path, children)
    for (let digit = 0; digit < fanout; digit++) {
      const at = digit * childFields
      if (children[at] !== 0) buckets[digit.toString(16)] = hex({ hi: children[at + 1]!, lo: children[at + 2]! })
    }
    return buckets
  }

  /** All keys below a path of hex digits. */
  getKeysInBucket(digits: string): Array<string> {
    return this.slotsBelow(pathOf(digits)).map((slot) => this.keys.keys[slot]!)
  }

  /** Adds to the counts and sums of all nodes on the way to a hash. */
  #count(keyHi: number, by: number, digestHi: number, digestLo: number): void {
    const nodes = this.#nodes
    // What doesn't fit 32 bits is cut off by the array: sums are modulo 2^32.
    nodes[COUNT]! += by
    nodes[SUM_HI]! += digestHi
    nodes[SUM_LO]! += digestLo
    for (let level = 1; level <= this.#levels; level++) {
      const node = (nodesAbove[level]! + (keyHi >>> (32 - 4 * level))) << NODE_LOG2
      nodes[node]! += by
      nodes[node + SUM_HI]! += digestHi
      nodes[node + SUM_LO]! += digestLo
    }
  }

  /** Where the table has the node of a path no deeper than its levels. */
  #nodeOf({ depth, hi }: Path): number {
    return (nodesAbove[depth]! + (depth === 0 ? 0 : hi >>> (32 - 4 * depth))) << NODE_LOG2
  }

  /** Where the table has the head of the chain that a hash belongs to. */
  #chainOf(keyHi: number): number {
    return ((nodesAbove[this.#levels]! + (this.#levels === 0 ? 0 : keyHi >>> (32 - 4 * this.#levels))) << NODE_LOG2) +
      HEAD
  }

  #link(slot: number): void {
    const { fields } = this.keys
    const at = slot << FIELDS_LOG2
    const head = this.#chainOf(fields[at + KEY_HI]!)
    fields[at + NEXT] = this.#nodes[head]!
    this.#nodes[head] = slot
  }

  #rebuild(levels: number): void {
    const slots = this.slotsBelow(rootPath)
    this.#levels = levels
    this.#nodes = tableOf(levels)
    const { fields } = this.keys
    for (const slot of slots) {
      const at = slot << FIELDS_LOG2
      this.#count(fields[at + KEY_HI]!, 1, fields[at + DIGEST_HI]!, fields[at + DIGEST_LO]!)
      this.#link(slot)
    }
  }

  /** Gives `found` where the table of keys has the fields of each key below a path. The tree must not change meanwhile. */
  #each(path: Path, found: (at: number) => void): void {
    const nodes = this.#nodes
    const { fields } = this.keys
    const levels = this.#levels
    const above = Math.max(0, levels - path.depth)
    let head = this.#chainOf(path.hi)
    const isDeeper = path.depth > levels
    for (let chain = 0; chain < 1 << (4 * above); chain++) {
      for (let slot = nodes[head]!; slot >= 0;) {
        const at = slot << FIELDS_LOG2
        slot = fields[at + NEXT]!
        if (!isDeeper || isUnder(fields[at + KEY_HI]!, fields[at + KEY_LO]!, path)) found(at)
      }
      head += 1 << NODE_LOG2
    }
  }
}

/** The trees of one map, one for each partition that has keys. */
export class MerkleForest {
  readonly #trees: Array<MerkleTree | undefined> = Array.from({ length: partitionCount })

  /** The tree of a partition, where it has keys. */
  tree(partition: number): MerkleTree | undefined {
    return this.#trees[partition]
  }

  /** Adds a key of a table to its partition's tree. All keys of a partition are of one table. */
  insert(partition: number, keys: KeyTable, slot: number): void {
    this.check(partition, keys)
    const tree = this.#trees[partition] ??= new MerkleTree(keys)
    tree.insert(slot)
  }

  /** Throws where a partition has keys of another table: a fault of the program, to be found before anything is changed. */
  check(partition: number, keys: KeyTable): void {
    const tree = this.#trees[partition]
    if (tree !== undefined && tree.keys !== keys) {
      throw new Error(`partition ${partition} has a tree of another map already`)
    }
  }

  /** Gives a key of a partition's tree a new digest. */
  update(partition: number, slot: number, digestHi: number, digestLo: number): void {
    this.#trees[partition]!.update(slot, digestHi, digestLo)
  }

  /** Takes a key out of its partition's tree, and with its last key the tree. */
  remove(partition: number, slot: number): void {
    const tree = this.#trees[partition]!
    tree.remove(slot)
    if (tree.size === 0) this.#trees[partition] = undefined
  }

  /** The number of keys in all trees. */
  get size(): number {
    let size = 0
    for (const tree of this.#trees) if (tree !== undefined) size += tree.size
    return size
  }

  /** The map's root: one hash over the partitions' roots. Both lanes are 0 for the empty map. */
  root(): Hash64 {
    const out = { hi: 0, lo: 0 }
    let length = 0
    this.#trees.forEach((tree, partition) => {
      if (tree === undefined) return
      const { hi, lo } = tree.root()
      roots.setInt16(length, partition)
      roots.setInt32(length + 2, hi)
      roots.setInt32(length + 6, lo)
      length += 10
    })
    if (length > 0) hashBytes(roots, 0, length, 0, 0, out)
    return out
  }

  /** {@link root} as 16 hex digits. */
  getRootHash(): string {
    return hex(this.root())
  }
}

const roots = new DataView(new ArrayBuffer(partitionCount * 10))
