/**
 * A digest of a set of records that two replicas can compare level by level (Merkle 1987; the walk is that of Dynamo,
 * DeCandia et al. 2007, section 4.7).
 *
 * **Shape.** A trie over the 64-bit hashes of the keys, 16 children a node, four bits of the hash a level. A node with
 * at most {@link leafKeysMax} keys below it is a leaf; so the shape is a function of the set of keys alone and two
 * replicas of equal content have equal trees, whatever their histories.
 *
 * **Hashes.** A record's digest is 64 bits over its key's hash and its whole row. A leaf's hash is the lane-wise sum of
 * its records' digests, which makes an update O(depth) without touching its neighbours; a branch's hash is MurmurHash3
 * over its children's hashes. Hashes of branches are computed when asked for. The digest is not cryptographic: whoever
 * crafts colliding records hides his own records from his own replicas, and nobody else's.
 *
 * **Cost.** Update O(depth), about log16(n / 16) + 1. Comparing costs O(differences × depth): one hash of 8 bytes for
 * each of the 16 children of each node on the way to a difference.
 *
 * A map has one tree for each of the 271 partitions of its keys, allocated at the first key: {@link MerkleForest}.
 */
import type { Hash64 } from "./internal/hash.ts"
import { hashBytes } from "./internal/hash.ts"
import { partitionCount } from "./Partition.ts"

/** A leaf with more keys than this becomes a branch. */
export const leafKeysMax = 16

const FANOUT = 16
const DEPTH_MAX = 16

/** What the tree keeps of one key: its hash, and the digest of its record, each as two signed 32-bit lanes. */
export interface TreeEntry {
  readonly key: string
  readonly keyHi: number
  readonly keyLo: number
  digestHi: number
  digestLo: number
}

interface Leaf {
  readonly entries: Array<TreeEntry>
  hi: number
  lo: number
}

interface Branch {
  readonly children: Array<Node | undefined>
  count: number
  hi: number
  lo: number
  stale: boolean
}

type Node = Leaf | Branch

const isLeaf = (node: Node): node is Leaf => "entries" in node

/** The four bits of a key's hash that choose the child at `depth`. */
const nibble = (hi: number, lo: number, depth: number): number =>
  depth < 8 ? (hi >>> (28 - 4 * depth)) & 15 : (lo >>> (28 - 4 * (depth - 8))) & 15

const scratch = new Uint8Array(FANOUT * 8 > (partitionCount + 1) * 10 ? FANOUT * 8 : (partitionCount + 1) * 10)

/** Writes a hash as 8 bytes, big-endian. */
export const writeHash = (target: Uint8Array, at: number, hi: number, lo: number): void => {
  target[at] = hi >>> 24
  target[at + 1] = hi >>> 16
  target[at + 2] = hi >>> 8
  target[at + 3] = hi
  target[at + 4] = lo >>> 24
  target[at + 5] = lo >>> 16
  target[at + 6] = lo >>> 8
  target[at + 7] = lo
}

/** Reads a lane of a hash: 4 bytes, big-endian, signed. */
export const readLane = (source: Uint8Array, at: number): number =>
  source[at]! << 24 | source[at + 1]! << 16 | source[at + 2]! << 8 | source[at + 3]!

const digestInput = new Uint8Array(16)

/** The digest of one row of a key, into `out`: over the key's hash and the hash of the whole row. */
export const digestRow = (entry: TreeEntry, row: Uint8Array, out: Hash64): void => {
  hashBytes(row, 0, row.length, 0, out)
  writeHash(digestInput, 0, entry.keyHi, entry.keyLo)
  writeHash(digestInput, 8, out.hi, out.lo)
  hashBytes(digestInput, 0, 16, 0, out)
}

const rehash = (branch: Branch): void => {
  for (let i = 0; i < FANOUT; i++) {
    const child = branch.children[i]
    if (child === undefined) {
      scratch.fill(0, i * 8, i * 8 + 8)
      continue
    }
    writeHash(scratch, i * 8, child.hi, child.lo)
  }
  hashBytes(scratch, 0, FANOUT * 8, 0, branch)
  branch.stale = false
}

const refresh = (node: Node): void => {
  if (isLeaf(node) || !node.stale) return
  for (const child of node.children) if (child !== undefined) refresh(child)
  rehash(node)
}

const hex = (hash: Hash64): string =>
  (hash.hi >>> 0).toString(16).padStart(8, "0") + (hash.lo >>> 0).toString(16).padStart(8, "0")

/** The hex digit at `depth` of a path: `0`..`9`, `a`..`f`. */
const digitAt = (path: string, depth: number): number => {
  const code = path.charCodeAt(depth)
  return code < 0x3a ? code - 0x30 : code - 0x57
}

/** What a node looks like from outside: nothing below it, a leaf with its keys, or a branch with its children's hashes. */
export type NodeView =
  | { readonly _tag: "Empty" }
  | { readonly _tag: "Leaf"; readonly entries: ReadonlyArray<TreeEntry> }
  | { readonly _tag: "Branch"; readonly children: ReadonlyArray<Hash64 | undefined> }

/** The tree of one partition. A path is a string of hex digits, one a level; the root's is the empty string. */
export class MerkleTree {
  #root: Node | undefined

  /** How many keys it holds. */
  get size(): number {
    return this.#root === undefined ? 0 : isLeaf(this.#root) ? this.#root.entries.length : this.#root.count
  }

  /** Two trees of equal content have equal root hashes. Both lanes are 0 for the empty tree. */
  root(): Hash64 {
    if (this.#root === undefined) return { hi: 0, lo: 0 }
    refresh(this.#root)
    return this.#root
  }

  /** {@link root} as 16 hex digits. */
  getRootHash(): string {
    return hex(this.root())
  }

  /** Adds an entry whose key isn't in the tree yet; its digest is read from it. */
  insert(entry: TreeEntry): void {
    this.#root = insertInto(this.#root, entry, 0)
  }

  /** Gives an entry that is in the tree a new digest. */
  update(entry: TreeEntry, digestHi: number, digestLo: number): void {
    let node = this.#root
    let depth = 0
    while (node !== undefined && !isLeaf(node)) {
      node.stale = true
      node = node.children[nibble(entry.keyHi, entry.keyLo, depth)]
      depth++
    }
    if (node === undefined) return
    node.hi = (node.hi - entry.digestHi + digestHi) | 0
    node.lo = (node.lo - entry.digestLo + digestLo) | 0
    entry.digestHi = digestHi
    entry.digestLo = digestLo
  }

  /** Takes an entry out. */
  remove(entry: TreeEntry): void {
    this.#root = removeFrom(this.#root, entry, 0)
  }

  /** The entries of the keys with this hash: one, none, or the rare twins. */
  find(hi: number, lo: number): ReadonlyArray<TreeEntry> {
    let node = this.#root
    for (let depth = 0; node !== undefined && !isLeaf(node); depth++) node = node.children[nibble(hi, lo, depth)]
    return node === undefined ? [] : node.entries.filter((entry) => entry.keyHi === hi && entry.keyLo === lo)
  }

  /** The node at a path. A path that goes on below a leaf shows that leaf's keys under the path. */
  view(path: string): NodeView {
    let node = this.#root
    for (let depth = 0; depth < path.length; depth++) {
      if (node === undefined) break
      if (isLeaf(node)) {
        const entries = node.entries.filter((entry) => isUnder(entry, path, depth))
        return entries.length === 0 ? { _tag: "Empty" } : { _tag: "Leaf", entries }
      }
      node = node.children[digitAt(path, depth)]
    }
    if (node === undefined) return { _tag: "Empty" }
    refresh(node)
    return isLeaf(node) ? { _tag: "Leaf", entries: node.entries } : { _tag: "Branch", children: node.children }
  }

  /** The hashes of a branch's children by hex digit; of a leaf and of nothing, none. */
  getBuckets(path: string): Record<string, string> {
    const view = this.view(path)
    const buckets: Record<string, string> = {}
    if (view._tag === "Branch") {
      view.children.forEach((child, i) => {
        if (child !== undefined) buckets[i.toString(16)] = hex(child)
      })
    }
    return buckets
  }

  /** All keys below a path. */
  getKeysInBucket(path: string): Array<string> {
    const keys: Array<string> = []
    this.visit(path, undefined, (entry) => {
      keys.push(entry.key)
      return true
    })
    return keys
  }

  /**
   * Visits the entries below `path` in the order of their keys' hashes, from beyond the hash `after` on, until `visit`
   * answers false. Entries of equal hash are never parted: `visit` isn't heeded between them.
   */
  visit(path: string, after: Hash64 | undefined, visit: (entry: TreeEntry) => boolean): void {
    const view = this.view(path)
    if (view._tag === "Empty") return
    const walk = (node: Node): boolean => {
      if (isLeaf(node)) return visitLeaf(node.entries, after, visit)
      for (const child of node.children) if (child !== undefined && !walk(child)) return false
      return true
    }
    if (view._tag === "Leaf") {
      visitLeaf(view.entries, after, visit)
      return
    }
    // Children whose whole range lies at or before `after` are passed over without a look inside.
    const walkFrom = (branch: ReadonlyArray<Hash64 | undefined>, depth: number, onEdge: boolean): boolean => {
      const edge = onEdge && after !== undefined ? nibble(after.hi, after.lo, depth) : 0
      for (let i = edge; i < FANOUT; i++) {
        const child = branch[i] as Node | undefined
        if (child === undefined) continue
        const stillOnEdge = onEdge && after !== undefined && i === edge
        const go = stillOnEdge && !isLeaf(child) ? walkFrom(child.children, depth + 1, true) : walk(child)
        if (!go) return false
      }
      return true
    }
    walkFrom(view.children, path.length, after !== undefined && isUnderPath(after.hi, after.lo, path, 0))
  }
}

/** Whether a hash goes on as the path does, from a depth on. */
const isUnderPath = (hi: number, lo: number, path: string, from: number): boolean => {
  for (let depth = from; depth < path.length; depth++) if (nibble(hi, lo, depth) !== digitAt(path, depth)) return false
  return true
}

const isUnder = (entry: TreeEntry, path: string, from: number): boolean =>
  isUnderPath(entry.keyHi, entry.keyLo, path, from)

/** The order of hashes, unsigned. */
export const compareHashes = (aHi: number, aLo: number, bHi: number, bLo: number): number =>
  aHi !== bHi ? (aHi >>> 0) - (bHi >>> 0) : (aLo >>> 0) - (bLo >>> 0)

const visitLeaf = (
  entries: ReadonlyArray<TreeEntry>,
  after: Hash64 | undefined,
  visit: (entry: TreeEntry) => boolean
): boolean => {
  const inOrder = entries.length < 2
    ? entries
    : entries.slice().sort((a, b) => compareHashes(a.keyHi, a.keyLo, b.keyHi, b.keyLo))
  for (let i = 0; i < inOrder.length; i++) {
    const entry = inOrder[i]!
    if (after !== undefined && compareHashes(entry.keyHi, entry.keyLo, after.hi, after.lo) <= 0) continue
    const go = visit(entry)
    const next = inOrder[i + 1]
    const twin = next !== undefined && next.keyHi === entry.keyHi && next.keyLo === entry.keyLo
    if (!go && !twin) return false
  }
  return true
}

const insertInto = (node: Node | undefined, entry: TreeEntry, depth: number): Node => {
  if (node === undefined) return { entries: [entry], hi: entry.digestHi, lo: entry.digestLo }
  if (isLeaf(node)) {
    if (node.entries.length < leafKeysMax || depth === DEPTH_MAX) {
      node.entries.push(entry)
      node.hi = (node.hi + entry.digestHi) | 0
      node.lo = (node.lo + entry.digestLo) | 0
      return node
    }
    const branch: Branch = { children: Array.from({ length: FANOUT }), count: 0, hi: 0, lo: 0, stale: true }
    for (const each of node.entries) insertInto(branch, each, depth)
    return insertInto(branch, entry, depth)
  }
  const at = nibble(entry.keyHi, entry.keyLo, depth)
  node.children[at] = insertInto(node.children[at], entry, depth + 1)
  node.count++
  node.stale = true
  return node
}

const removeFrom = (node: Node | undefined, entry: TreeEntry, depth: number): Node | undefined => {
  if (node === undefined) return undefined
  if (isLeaf(node)) {
    const at = node.entries.indexOf(entry)
    if (at < 0) return node
    if (node.entries.length === 1) return undefined
    node.entries[at] = node.entries[node.entries.length - 1]!
    node.entries.pop()
    node.hi = (node.hi - entry.digestHi) | 0
    node.lo = (node.lo - entry.digestLo) | 0
    return node
  }
  const at = nibble(entry.keyHi, entry.keyLo, depth)
  const before = node.children[at]
  node.children[at] = removeFrom(before, entry, depth + 1)
  node.count--
  node.stale = true
  return node.count > leafKeysMax ? node : collapse(node)
}

/** A branch that shrank to a leaf's size becomes that leaf, as the shape's definition asks. */
const collapse = (branch: Branch): Leaf => {
  const leaf: Leaf = { entries: [], hi: 0, lo: 0 }
  const gather = (node: Node): void => {
    if (isLeaf(node)) {
      leaf.entries.push(...node.entries)
      leaf.hi = (leaf.hi + node.hi) | 0
      leaf.lo = (leaf.lo + node.lo) | 0
    } else {
      for (const child of node.children) if (child !== undefined) gather(child)
    }
  }
  gather(branch)
  return leaf
}

/** The trees of one map, one for each partition that has keys. */
export class MerkleForest {
  readonly #trees = new Map<number, MerkleTree>()

  /** The tree of a partition, where it has keys. */
  tree(partition: number): MerkleTree | undefined {
    return this.#trees.get(partition)
  }

  insert(partition: number, entry: TreeEntry): void {
    let tree = this.#trees.get(partition)
    if (tree === undefined) {
      tree = new MerkleTree()
      this.#trees.set(partition, tree)
    }
    tree.insert(entry)
  }

  update(partition: number, entry: TreeEntry, digestHi: number, digestLo: number): void {
    this.#trees.get(partition)?.update(entry, digestHi, digestLo)
  }

  remove(partition: number, entry: TreeEntry): void {
    const tree = this.#trees.get(partition)
    if (tree === undefined) return
    tree.remove(entry)
    if (tree.size === 0) this.#trees.delete(partition)
  }

  /** The number of keys in all trees. */
  get size(): number {
    let size = 0
    for (const tree of this.#trees.values()) size += tree.size
    return size
  }

  /** The non-empty partitions in ascending order, each with its root: 2 bytes of partition and 8 of hash apiece. */
  packRoots(): Uint8Array {
    const partitions = Array.from(this.#trees.keys()).sort((a, b) => a - b)
    const packed = new Uint8Array(partitions.length * 10)
    partitions.forEach((partition, i) => {
      const { hi, lo } = this.#trees.get(partition)!.root()
      packed[i * 10] = partition >>> 8
      packed[i * 10 + 1] = partition
      writeHash(packed, i * 10 + 2, hi, lo)
    })
    return packed
  }

  /** The map's root: one hash over the partitions' roots. Both lanes are 0 for the empty map. */
  root(): Hash64 {
    const packed = this.packRoots()
    const out = { hi: 0, lo: 0 }
    if (packed.length > 0) hashBytes(packed, 0, packed.length, 0, out)
    return out
  }

  /** {@link root} as 16 hex digits. */
  getRootHash(): string {
    return hex(this.root())
  }
}
