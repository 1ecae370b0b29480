/**
 * Reconciliation of two replicas of a map by their Merkle trees: the same machine whoever the two are, client and server,
 * owner and backup, or two stores in a test.
 *
 * One side, the initiator, asks and compares; the other answers from its tree and keeps no state of the walk, so that the
 * walk can be cut anywhere and begun again with anyone.
 *
 * | step | asked | answered |
 * |---|---|---|
 * | root | the initiator's root | equal, or the roots of the non-empty partitions |
 * | buckets | nodes, all of one level, and a lane | for each its children's hashes, or a leaf's keys' hashes and digests |
 * | fetch | partitions and hashes of keys that are missing or differ, and a cursor | their records |
 * | pull | a node below which the initiator has little or nothing, and a cursor | its records in the order of their keys' hashes |
 *
 * Equal replicas exchange one message. Otherwise there are as many rounds as levels on the way to the differences (3 to 5
 * up to a hundred million keys), each with one message of at most {@link nodesMax} nodes, and records in pages of about
 * {@link pageBytes}. Records that only the initiator has, or has newer, are named in the result: they travel as operations.
 *
 * **Half hashes.** Below the partitions' roots hashes travel as one of their two lanes, 32 bits, which halves the walk: 100
 * differing keys of 100,000 take 16 kB. A difference stays unseen with a probability of 2^-32 a node. The lane is chosen by
 * lot for each walk, so that it is found by another one; and where nothing at all is found though the roots differ, the
 * walk is done at once with the other lane too.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import { MalformedMessage } from "./GridError.ts"
import { type Hash64, hashKey, hex } from "./internal/hash.ts"
import { DIGEST_HI, FIELDS_LOG2, KEY_HI, KEY_LO } from "./internal/KeyTable.ts"
import * as LwwRecord from "./LwwRecord.ts"
import {
  childFields,
  childPath,
  compareHashes,
  type Cursor,
  depthMax,
  digitAt,
  fanout,
  isUnder,
  leafKeysMax,
  type MerkleForest,
  type MerkleTree,
  type Path,
  pathOf,
  rootPath
} from "./MerkleTree.ts"
import * as Partition from "./Partition.ts"

/** Nodes asked for in one message. */
export const nodesMax = 512
/** Keys asked for in one message. */
export const fetchMax = 1024
/** Bytes in which a key is asked for: its partition, and its hash. */
export const wantBytes = 10
/** A page of records ends at the record that makes it as large as this. */
export const pageBytes = 256 * 1024
/** Pages on their way at a time. */
const pagesInFlight = 4

/** A node of a map's trees: partition and path of hex digits. */
export type NodeId = readonly [partition: number, path: string]

/** Which half of the hashes a walk compares: 0 for the upper 32 bits, 1 for the lower. */
export type Lane = 0 | 1

/** A record with its key, as rows travel. */
export type KeyedRecord = readonly [key: string, record: LwwRecord.LwwRecord]

/** Some of the records that were asked for. */
export interface Page {
  readonly records: ReadonlyArray<KeyedRecord>
  /** The key of the last record, where more are to come: the cursor of the next page. */
  readonly after: string | undefined
}

/** The side that answers, bound to one map. */
export interface SyncPeer<E> {
  /** The peer's partitions' roots, packed; `undefined` when the map's roots are equal. */
  readonly root: (local: Uint8Array) => Effect.Effect<Uint8Array | undefined, E>
  readonly buckets: (nodes: Uint8Array, lane: Lane) => Effect.Effect<Uint8Array, E>
  readonly fetch: (wants: Uint8Array, after: string | undefined) => Effect.Effect<Page, E>
  readonly pull: (node: NodeId, after: string | undefined) => Effect.Effect<Page, E>
}

/** What an answering replica shows of a map. The keys are those of the tree: cells, in a map of another kind than `lww`. */
export interface Source {
  readonly tree: MerkleForest
  readonly record: (key: string, partition: number) => LwwRecord.LwwRecord | undefined
}

/** What the initiator has of a map. */
export interface Replica {
  readonly tree: MerkleForest
  readonly record: (key: string) => LwwRecord.LwwRecord | undefined
  readonly partitionOf: (key: string) => number
  /** Merges records that the peer has confirmed. Called once a page; pages come in any order. */
  readonly receive: (records: ReadonlyArray<KeyedRecord>) => void
}

/** What a walk has led to. */
export interface Reconciled {
  /** Whether the roots were equal at once. */
  readonly equal: boolean
  /** Records that came from the peer. */
  readonly received: number
  /** Keys whose record only the initiator has, or has newer. */
  readonly offers: ReadonlyArray<string>
}

/** Answers to an initiator's questions, straight from the trees. What has no known form is a MalformedMessage thrown. */
export interface Answers {
  readonly root: (remote: Uint8Array) => Uint8Array | undefined
  readonly buckets: (nodes: Uint8Array, lane: Lane) => Uint8Array
  readonly fetch: (wants: Uint8Array, after: string | undefined) => Page
  readonly pull: (node: NodeId, after: string | undefined) => Page
}

/** Reconciles, and answers those who do. */
export class MerkleSync extends Context.Tag("@topgun/core/MerkleSync")<MerkleSync, {
  readonly reconcile: <E>(local: Replica, peer: SyncPeer<E>) => Effect.Effect<Reconciled, E | MalformedMessage>
  readonly answers: (source: Source) => Answers
}>() {}

// --- Forms on the wire ---
// Numbers are big-endian. Hashes are 8 bytes, the upper lane first.
//
// The partitions' roots: a bit for each partition, from the lowest of the first byte on, that says whether it has keys; then
// the lowest 6 bytes of each such root.
// Nodes: a byte of depth, then of each node its partition, as the distance from the one before (a byte; 255 says that it
// follows in two), and the hex digits of its path, two to the byte.
// A bucket is one byte of form and its content:
//   EMPTY   nothing;
//   FULL    4 bytes of hash of each of the 16 children;
//   BRANCH  a bit for each child that says whether it has keys, then 4 bytes of each such child's hash;
//   LEAF    a byte that says how many keys, then of each what follows its hash's first `depth >> 1` bytes, which the path
//           has already, and 4 bytes of its record's digest;
//   DENSE   nothing: there are too many keys, all of one hash, to list them; they are pulled.

const EMPTY = 0
const BRANCH = 1
const LEAF = 2
const DENSE = 3
const FULL = 4
const ALL_PRESENT = 0xffff
const FAR = 0xff
/** Keys that a leaf lists. There are more than `leafKeysMax` only where their hashes are equal. */
const leafListMax = 64

const presenceBytes = (Partition.partitionCount + 7) >>> 3
const rootBytes = 6

/** Bytes of which a message is made, one after the other. */
class Writer {
  #bytes: Uint8Array
  #view: DataView
  #at = 0

  constructor(capacity: number) {
    this.#bytes = new Uint8Array(capacity)
    this.#view = new DataView(this.#bytes.buffer)
  }

  uint8(value: number): void {
    this.#room(1)
    this.#view.setUint8(this.#at, value)
    this.#at += 1
  }

  uint16(value: number): void {
    this.#room(2)
    this.#view.setUint16(this.#at, value)
    this.#at += 2
  }

  lane(value: number): void {
    this.#room(4)
    this.#view.setInt32(this.#at, value)
    this.#at += 4
  }

  done(): Uint8Array {
    return this.#bytes.slice(0, this.#at)
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#bytes.length) return
    const grown = new Uint8Array(this.#bytes.length * 2 + bytes)
    grown.set(this.#bytes)
    this.#bytes = grown
    this.#view = new DataView(grown.buffer)
  }
}

/** Foreign bytes, read one after the other. */
class Reader {
  readonly #view: DataView
  readonly #what: string
  #at = 0

  constructor(bytes: Uint8Array, what: string) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#what = what
  }

  get isAtEnd(): boolean {
    return this.#at === this.#view.byteLength
  }

  uint8(): number {
    return this.#view.getUint8(this.#take(1))
  }

  uint16(): number {
    return this.#view.getUint16(this.#take(2))
  }

  lane(): number {
    return this.#view.getInt32(this.#take(4))
  }

  /** The bytes [from, to) of a hash that begins as another one does. */
  hash(beginning: Hash64, from: number, to: number): Hash64 {
    let { hi, lo } = beginning
    for (let at = from; at < to; at++) {
      const byte = this.uint8()
      const mask = ~(0xff << (24 - 8 * (at & 3)))
      if (at < 4) hi = hi & mask | byte << (24 - 8 * at)
      else lo = lo & mask | byte << (56 - 8 * at)
    }
    return { hi, lo }
  }

  refuse(): never {
    throw new MalformedMessage({ reason: `${this.#what} of the tree walk have no known form` })
  }

  #take(bytes: number): number {
    const at = this.#at
    if (at + bytes > this.#view.byteLength) this.refuse()
    this.#at += bytes
    return at
  }
}

/** A node of a walk. */
interface Node {
  readonly partition: number
  readonly path: Path
}

const byteOf = (hi: number, lo: number, at: number): number =>
  (at < 4 ? hi >>> (24 - 8 * at) : lo >>> (56 - 8 * at)) & 0xff

/** Nodes of one level, in ascending order. */
const packNodes = (nodes: ReadonlyArray<Node>): Uint8Array => {
  const writer = new Writer(1 + nodes.length * 6)
  const { depth } = nodes[0]!.path
  writer.uint8(depth)
  let before = 0
  for (const { partition, path } of nodes) {
    if (partition - before < FAR) {
      writer.uint8(partition - before)
    } else {
      writer.uint8(FAR)
      writer.uint16(partition - before)
    }
    before = partition
    for (let at = 0; at * 2 < depth; at++) writer.uint8(byteOf(path.hi, path.lo, at))
  }
  return writer.done()
}

const readNodes = (bytes: Uint8Array): ReadonlyArray<Node> => {
  const reader = new Reader(bytes, "the nodes")
  const nodes: Array<Node> = []
  const depth = reader.uint8()
  if (depth > depthMax) reader.refuse()
  let partition = 0
  while (!reader.isAtEnd) {
    const distance = reader.uint8()
    partition += distance === FAR ? reader.uint16() : distance
    if (partition >= Partition.partitionCount || nodes.length === nodesMax) reader.refuse()
    const before = nodes.at(-1)
    const { hi, lo } = reader.hash(rootPath, 0, (depth + 1) >>> 1)
    // What follows the last digit is nothing.
    if ((depth & 1) === 1 && digitAt(hi, lo, depth) !== 0) reader.refuse()
    // In ascending order, so that nobody asks for one node many times over.
    if (before?.partition === partition && compareHashes(hi, lo, before.path.hi, before.path.lo) <= 0) reader.refuse()
    nodes.push({ partition, path: { hi, lo, depth } })
  }
  return nodes
}

const children = new Int32Array(fanout * childFields)

const writeBucket = (writer: Writer, tree: MerkleTree | undefined, path: Path, lane: Lane): void => {
  const count = tree === undefined ? 0 : tree.count(path)
  if (tree === undefined || count === 0) {
    writer.uint8(EMPTY)
  } else if (count > leafKeysMax && path.depth < depthMax) {
    tree.readChildren(path, children)
    let present = 0
    for (let digit = 0; digit < fanout; digit++) if (children[digit * childFields] !== 0) present |= 1 << digit
    writer.uint8(present === ALL_PRESENT ? FULL : BRANCH)
    if (present !== ALL_PRESENT) writer.uint16(present)
    for (let digit = 0; digit < fanout; digit++) {
      if ((present >>> digit & 1) === 1) writer.lane(children[digit * childFields + 1 + lane]!)
    }
  } else if (count > leafListMax) {
    writer.uint8(DENSE)
  } else {
    writer.uint8(LEAF)
    writer.uint8(count)
    const { fields } = tree.keys
    for (const slot of tree.slotsBelow(path)) {
      const at = slot << FIELDS_LOG2
      const hi = fields[at + KEY_HI]!
      const lo = fields[at + KEY_LO]!
      for (let byte = path.depth >>> 1; byte < 8; byte++) writer.uint8(byteOf(hi, lo, byte))
      writer.lane(fields[at + DIGEST_HI + lane]!)
    }
  }
}

const packHash = (hi: number, lo: number): Uint8Array => {
  const packed = new Uint8Array(8)
  const view = new DataView(packed.buffer)
  view.setInt32(0, hi)
  view.setInt32(4, lo)
  return packed
}

const readHash = (bytes: Uint8Array, at: number): Hash64 => {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, 8)
  return { hi: view.getInt32(0), lo: view.getInt32(4) }
}

/** A map's root as it travels: 8 bytes. */
export const packRoot = (forest: MerkleForest): Uint8Array => {
  const { hi, lo } = forest.root()
  return packHash(hi, lo)
}

const packRoots = (forest: MerkleForest): Uint8Array => {
  const present = new Uint8Array(presenceBytes)
  const writer = new Writer(presenceBytes + Partition.partitionCount * rootBytes)
  for (let partition = 0; partition < Partition.partitionCount; partition++) {
    if (forest.tree(partition) !== undefined) present[partition >>> 3]! |= 1 << (partition & 7)
  }
  present.forEach((byte) => writer.uint8(byte))
  for (let partition = 0; partition < Partition.partitionCount; partition++) {
    const root = forest.tree(partition)?.root()
    if (root === undefined) continue
    writer.uint16(root.hi & 0xffff)
    writer.lane(root.lo)
  }
  return writer.done()
}

/** Where cells are in a map's trees, as `SyncFetch` asks for keys: at most {@link fetchMax} of them. */
export const packPlaces = (
  cells: ReadonlyArray<{ readonly partition: number; readonly cell: string }>
): Uint8Array =>
  packWants(cells.map(({ cell, partition }) => {
    const hash = { hi: 0, lo: 0 }
    hashKey(cell, hash)
    return { partition, hi: hash.hi, lo: hash.lo }
  }))

/** The keys that a replica has at places. */
export const keysAt = (forest: MerkleForest, places: Uint8Array): ReadonlyArray<string> => {
  const found: Array<string> = []
  for (let at = 0; at + wantBytes <= places.length; at += wantBytes) {
    const tree = forest.tree(places[at]! << 8 | places[at + 1]!)
    const { hi, lo } = readHash(places, at + 2)
    for (const slot of tree?.find(hi, lo) ?? []) found.push(tree!.keys.keys[slot]!)
  }
  return found
}

// --- The answering side ---

const makeAnswers = (source: Source): Answers => {
  const { tree } = source
  return {
    root: (remote) => {
      const { hi, lo } = tree.root()
      const theirs = remote.length === 8 ? readHash(remote, 0) : undefined
      return theirs?.hi === hi && theirs.lo === lo ? undefined : packRoots(tree)
    },
    buckets: (packed, lane) => {
      const nodes = readNodes(packed)
      const writer = new Writer(nodes.length * (3 + 4 * fanout))
      for (const { partition, path } of nodes) writeBucket(writer, tree.tree(partition), path, lane)
      return writer.done()
    },
    fetch: (wants, after) => {
      if (wants.length % wantBytes !== 0 || wants.length > fetchMax * wantBytes) throw refusal("the keys asked for")
      const page = new PageOf(source)
      // Of the first key asked for: those before it have been answered.
      let from = after === undefined ? undefined : cursorOf(after)
      for (let at = 0; at < wants.length && !page.isFull; at += wantBytes) {
        const partition = wants[at]! << 8 | wants[at + 1]!
        if (partition >= Partition.partitionCount) throw refusal("the keys asked for")
        const { hi, lo } = readHash(wants, at + 2)
        page.take(partition, { hi, lo, depth: depthMax }, from?.hi === hi && from.lo === lo ? from : undefined)
        from = undefined
      }
      return page
    },
    pull: ([partition, path], after) => {
      if (!pathGrammar.test(path) || !(partition >= 0 && partition < Partition.partitionCount)) {
        throw refusal("the node asked for")
      }
      const page = new PageOf(source)
      page.take(partition, pathOf(path), after === undefined ? undefined : cursorOf(after))
      return page
    }
  }
}

const pathGrammar = /^[0-9a-f]{0,16}$/

/** A page that is being filled. */
class PageOf implements Page {
  readonly records: Array<KeyedRecord> = []
  isFull = false
  readonly #source: Source
  #bytes = 0

  constructor(source: Source) {
    this.#source = source
  }

  get after(): string | undefined {
    return this.isFull ? this.records.at(-1)?.[0] : undefined
  }

  /** Takes records below a node, from beyond a cursor, while there is room. */
  take(partition: number, path: Path, after: Cursor | undefined): void {
    const tree = this.#source.tree.tree(partition)
    tree?.visit(path, after, (slot) => {
      // Only where one more is to come it is known that the page isn't the last.
      if (this.#bytes >= pageBytes) {
        this.isFull = true
        return false
      }
      const key = tree.keys.keys[slot]!
      const record = this.#source.record(key, partition)
      if (record !== undefined) {
        this.records.push([key, record])
        this.#bytes += record.row.length + key.length
      }
      return true
    })
  }
}

/** A replica of this process as the peer of another. */
export const peerOf = (answers: Answers): SyncPeer<never> => ({
  root: (local) => Effect.sync(() => answers.root(local)),
  buckets: (nodes, lane) => Effect.sync(() => answers.buckets(nodes, lane)),
  fetch: (hashes, after) => Effect.sync(() => answers.fetch(hashes, after)),
  pull: (node, after) => Effect.sync(() => answers.pull(node, after))
})

// --- The initiating side ---

/** A key to fetch. */
interface Want extends Hash64 {
  readonly partition: number
}

/** What a walk has found out so far. */
interface Findings {
  /** Nodes of the next level whose two sides differ. */
  nodes: Array<Node>
  /** Nodes below which the peer has records that this side lacks, all of them or of a hash. */
  readonly pulls: Array<Node>
  /** Keys to fetch, by hash. */
  readonly wants: Array<Want>
  readonly offers: Set<string>
  /** Keys to offer unless the peer's record of them comes: it has others of their hash or of their node, perhaps not them. */
  readonly doubtful: Set<string>
}

const foundNothing = ({ offers, pulls, wants }: Findings): boolean =>
  pulls.length === 0 && wants.length === 0 && offers.size === 0

const addKeys = (tree: MerkleTree | undefined, path: Path, to: Set<string>): void => {
  for (const slot of tree?.slotsBelow(path) ?? []) to.add(tree!.keys.keys[slot]!)
}

const compareRoots = (forest: MerkleForest, packed: Uint8Array, found: Findings): void => {
  const reader = new Reader(packed, "the partitions' roots")
  const present = Array.from({ length: presenceBytes }, () => reader.uint8())
  for (let partition = 0; partition < Partition.partitionCount; partition++) {
    const mine = forest.tree(partition)
    if ((present[partition >>> 3]! >>> (partition & 7) & 1) === 0) {
      addKeys(mine, rootPath, found.offers)
      continue
    }
    const hi = reader.uint16()
    const lo = reader.lane()
    const root = mine?.root()
    if (root === undefined) found.pulls.push({ partition, path: rootPath })
    else if ((root.hi & 0xffff) !== hi || root.lo !== lo) found.nodes.push({ partition, path: rootPath })
  }
  if (!reader.isAtEnd) reader.refuse()
}

const compareBranch = (
  tree: MerkleTree | undefined,
  { partition, path }: Node,
  present: number,
  lane: Lane,
  reader: Reader,
  found: Findings
): void => {
  if (path.depth === depthMax) reader.refuse()
  children.fill(0)
  tree?.readChildren(path, children)
  let mineBelow = 0
  let missing = 0
  for (let digit = 0; digit < fanout; digit++) {
    mineBelow += children[digit * childFields]!
    if ((present >>> digit & 1) === 1 && children[digit * childFields] === 0) missing++
  }
  if (mineBelow <= leafKeysMax && missing >= fanout / 2) {
    // Most of what the peer has here is missing: one question for all of it instead of one for each part.
    for (let digit = 0; digit < fanout; digit++) if ((present >>> digit & 1) === 1) reader.lane()
    found.pulls.push({ partition, path })
    return addKeys(tree, path, found.doubtful)
  }
  for (let digit = 0; digit < fanout; digit++) {
    const mine = children[digit * childFields]!
    if ((present >>> digit & 1) === 0) {
      if (mine > 0) addKeys(tree, childPath(path, digit), found.offers)
      continue
    }
    const theirs = reader.lane()
    if (mine === 0) found.pulls.push({ partition, path: childPath(path, digit) })
    else if (children[digit * childFields + 1 + lane] !== theirs) {
      found.nodes.push({ partition, path: childPath(path, digit) })
    }
  }
}

interface ListedKey extends Hash64 {
  readonly digest: number
  /** Whether this side has just this record, or asks for it. */
  done: boolean
}

const compareLeaf = (
  tree: MerkleTree | undefined,
  { partition, path }: Node,
  lane: Lane,
  reader: Reader,
  found: Findings
): void => {
  const listed = reader.uint8()
  if (listed > leafListMax) reader.refuse()
  const theirs = Array.from({ length: listed }, (): ListedKey => {
    const { hi, lo } = reader.hash(path, path.depth >>> 1, 8)
    if (!isUnder(hi, lo, path)) reader.refuse()
    return { hi, lo, digest: reader.lane(), done: false }
  })
  for (const slot of tree?.slotsBelow(path) ?? []) {
    const { fields, keys } = tree!.keys
    const at = slot << FIELDS_LOG2
    let hashIsListed = false
    let same: ListedKey | undefined
    for (const each of theirs) {
      if (each.hi !== fields[at + KEY_HI] || each.lo !== fields[at + KEY_LO]) continue
      hashIsListed = true
      if (!each.done && each.digest === fields[at + DIGEST_HI + lane]) same = each
    }
    if (same !== undefined) same.done = true
    else (hashIsListed ? found.doubtful : found.offers).add(keys[slot]!)
  }
  for (const { done, hi, lo } of theirs) {
    if (done) continue
    found.wants.push({ partition, hi, lo })
    // Once for all keys of a hash.
    for (const each of theirs) each.done ||= each.hi === hi && each.lo === lo
  }
}

const compareBucket = (tree: MerkleTree | undefined, node: Node, lane: Lane, reader: Reader, found: Findings): void => {
  switch (reader.uint8()) {
    case EMPTY:
      return addKeys(tree, node.path, found.offers)
    case LEAF:
      return compareLeaf(tree, node, lane, reader, found)
    case FULL:
      return compareBranch(tree, node, ALL_PRESENT, lane, reader, found)
    case BRANCH:
      return compareBranch(tree, node, reader.uint16(), lane, reader, found)
    case DENSE:
      found.pulls.push(node)
      return addKeys(tree, node.path, found.doubtful)
    default:
      return reader.refuse()
  }
}

const chunksOf = <A>(items: ReadonlyArray<A>, size: number): ReadonlyArray<ReadonlyArray<A>> => {
  const chunks: Array<ReadonlyArray<A>> = []
  for (let at = 0; at < items.length; at += size) chunks.push(items.slice(at, at + size))
  return chunks
}

const packWants = (wants: ReadonlyArray<Want>): Uint8Array => {
  const writer = new Writer(wants.length * wantBytes)
  for (const { hi, lo, partition } of wants) {
    writer.uint16(partition)
    writer.lane(hi)
    writer.lane(lo)
  }
  return writer.done()
}

/** The place of a key in the order of records. */
const cursorOf = (key: string): Cursor => {
  const hash = { hi: 0, lo: 0 }
  hashKey(key, hash)
  return { hi: hash.hi, lo: hash.lo, key }
}

const compareCursors = (a: Cursor, b: Cursor): number =>
  compareHashes(a.hi, a.lo, b.hi, b.lo) || (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)

const refusal = (what: string): MalformedMessage =>
  new MalformedMessage({ reason: `${what} of the tree walk has no known form` })

const sameHash = (a: Hash64, b: Hash64): boolean => a.hi === b.hi && a.lo === b.lo

const digitsOf = ({ depth, hi, lo }: Path): string => hex({ hi, lo }).slice(0, depth)

/** Comparisons read what a peer sent; what is malformed in it is the peer's failure, anything else is ours and dies. */
const compare = (run: () => void): Effect.Effect<void, MalformedMessage> =>
  Effect.suspend(() => {
    try {
      run()
      return Effect.void
    } catch (fault) {
      return fault instanceof MalformedMessage ? Effect.fail(fault) : Effect.die(fault)
    }
  })

const reconcile = Effect.fnUntraced(function*<E>(local: Replica, peer: SyncPeer<E>) {
  const { tree } = local
  const found: Findings = { nodes: [], pulls: [], wants: [], offers: new Set(), doubtful: new Set() }
  const roots = yield* peer.root(packRoot(tree))
  if (roots === undefined) return { equal: true, received: 0, offers: [] } satisfies Reconciled

  const walk = Effect.fnUntraced(function*(lane: Lane) {
    yield* compare(() => compareRoots(tree, roots, found))
    // A level more than there are, as the last one has the leaves.
    for (let depth = 0; depth <= depthMax && found.nodes.length > 0; depth++) {
      const level = found.nodes
      found.nodes = []
      for (const nodes of chunksOf(level, nodesMax)) {
        const buckets = yield* peer.buckets(packNodes(nodes), lane)
        yield* compare(() => {
          const reader = new Reader(buckets, "the buckets")
          for (const node of nodes) compareBucket(tree.tree(node.partition), node, lane, reader, found)
          if (!reader.isAtEnd) reader.refuse()
        })
      }
    }
  })
  const first: Lane = (yield* Random.nextBoolean) ? 1 : 0
  yield* walk(first)
  if (foundNothing(found)) yield* walk(first === 0 ? 1 : 0)

  let received = 0
  const receive = (records: ReadonlyArray<KeyedRecord>) => {
    received += records.length
    for (const [key] of records) found.doubtful.delete(key)
    const losers = records.filter(([key, record]) => {
      const mine = local.record(key)
      return mine !== undefined && LwwRecord.compare(mine, record) > 0
    })
    local.receive(records)
    for (const [key] of losers) found.offers.add(key)
  }
  /** Where the next page begins, if there is one: then this one has records, the last of which is of that key. */
  const nextOf = ({ after, records }: Page): Effect.Effect<Cursor | undefined, MalformedMessage> =>
    after === undefined
      ? Effect.succeed(undefined)
      : after === records.at(-1)?.[0]
      ? Effect.sync(() => cursorOf(after))
      : Effect.fail(refusal("a page's cursor"))
  const pullAll = Effect.fnUntraced(function*({ partition, path }: Node) {
    let after: Cursor | undefined
    do {
      const page: Page = yield* peer.pull([partition, digitsOf(path)], after?.key)
      receive(page.records)
      const next: Cursor | undefined = yield* nextOf(page)
      const moves = next === undefined ||
        (isUnder(next.hi, next.lo, path) && (after === undefined || compareCursors(next, after) > 0))
      if (!moves) return yield* refusal("a page's cursor")
      after = next
    } while (after !== undefined)
  })
  const fetchAll = Effect.fnUntraced(function*(wants: ReadonlyArray<Want>) {
    let rest = wants
    let after: Cursor | undefined
    do {
      const page: Page = yield* peer.fetch(packWants(rest), after?.key)
      receive(page.records)
      const next: Cursor | undefined = yield* nextOf(page)
      if (next === undefined) return
      const partition = local.partitionOf(next.key)
      const at = rest.findIndex((want) => want.partition === partition && sameHash(want, next))
      const moves = at > 0 || (at === 0 && (after === undefined || !sameHash(after, next) || next.key > after.key))
      if (!moves) return yield* refusal("a page's cursor")
      // More keys of this hash may follow.
      rest = rest.slice(at)
      after = next
    } while (after !== undefined)
  })
  yield* Effect.forEach(
    [...found.pulls.map(pullAll), ...chunksOf(found.wants, fetchMax).map(fetchAll)],
    (page) => page,
    { concurrency: pagesInFlight, discard: true }
  )
  for (const key of found.doubtful) found.offers.add(key)
  return { equal: false, received, offers: Array.from(found.offers) } satisfies Reconciled
})

/** The walk as described at the head of this file. */
export const layer: Layer.Layer<MerkleSync> = Layer.succeed(
  MerkleSync,
  MerkleSync.of({ reconcile, answers: makeAnswers })
)
