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
 * | buckets | nodes, all of one level | for each its children's hashes, or a leaf's keys' hashes and digests |
 * | fetch | hashes of keys that are missing or differ | their records |
 * | pull | a node below which the initiator has nothing, and a cursor | records in the order of their keys' hashes |
 *
 * Equal replicas exchange one message. Otherwise there are as many rounds as levels on the way to the differences (3 to 5
 * up to a hundred million keys), each with one message of at most {@link nodesMax} nodes, and records in pages of about
 * {@link pageBytes}. Records that only the initiator has, or has newer, are named in the result: they travel as operations.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { MalformedMessage } from "./GridError.ts"
import type { Hash64 } from "./internal/hash.ts"
import * as LwwRecord from "./LwwRecord.ts"
import type { MerkleForest, TreeEntry } from "./MerkleTree.ts"
import { compareHashes, readLane, writeHash } from "./MerkleTree.ts"
import * as Partition from "./Partition.ts"

/** Nodes asked for in one message. */
export const nodesMax = 512
/** Keys asked for in one message. */
export const fetchMax = 1024
/** A page of records ends at the record that makes it as large as this. */
export const pageBytes = 256 * 1024
/** Pages on their way at a time. */
const pagesInFlight = 4

/** A node of a map's trees: partition and path of hex digits. */
export type NodeId = readonly [partition: number, path: string]

/** A record with its key, as rows travel. */
export type KeyedRecord = readonly [key: string, record: LwwRecord.LwwRecord]

export interface Page {
  readonly records: ReadonlyArray<KeyedRecord>
  /** The hash of the last key served, 8 bytes, where more are to come. */
  readonly after: Uint8Array | undefined
}

/** The side that answers, bound to one map. */
export interface SyncPeer<E> {
  /** The peer's partitions' roots, packed as `MerkleForest.packRoots` does; `undefined` when the roots are equal. */
  readonly root: (local: Uint8Array) => Effect.Effect<Uint8Array | undefined, E>
  readonly buckets: (nodes: ReadonlyArray<NodeId>) => Effect.Effect<ReadonlyArray<Uint8Array>, E>
  readonly fetch: (hashes: Uint8Array) => Effect.Effect<Page, E>
  readonly pull: (node: NodeId, after: Uint8Array | undefined) => Effect.Effect<Page, E>
}

/** What an answering replica shows of a map. */
export interface Source {
  readonly tree: MerkleForest
  readonly record: (key: string, partition: number) => LwwRecord.LwwRecord | undefined
}

/** What the initiator has of a map. */
export interface Replica extends Source {
  /** Merges records that the peer has confirmed. Called once a page; pages come in any order. */
  readonly receive: (records: ReadonlyArray<KeyedRecord>) => void
}

export interface Reconciled {
  /** Whether the roots were equal at once. */
  readonly equal: boolean
  /** Records that came from the peer. */
  readonly received: number
  /** Keys whose record only the initiator has, or has newer. */
  readonly offers: ReadonlyArray<string>
}

/** Answers to an initiator's questions, straight from the trees. */
export interface Answers {
  readonly root: (remote: Uint8Array) => Uint8Array | undefined
  readonly buckets: (nodes: ReadonlyArray<NodeId>) => ReadonlyArray<Uint8Array>
  readonly fetch: (hashes: Uint8Array) => Page
  readonly pull: (node: NodeId, after: Uint8Array | undefined) => Page
}

/** Reconciles, and answers those who do. */
export class MerkleSync extends Context.Tag("@topgun/core/MerkleSync")<MerkleSync, {
  readonly reconcile: <E>(local: Replica, peer: SyncPeer<E>) => Effect.Effect<Reconciled, E | MalformedMessage>
  readonly answers: (source: Source) => Answers
}>() {}

// --- Forms on the wire ---
// A bucket is one byte of form and its content: nothing; the 16 bits of which children there are, then 8 bytes of hash for
// each; or, for each key of a leaf, 8 bytes of its hash and 8 of its record's digest.

const EMPTY = 0
const BRANCH = 1
const LEAF = 2

const packBucket = (forest: MerkleForest, [partition, path]: NodeId): Uint8Array => {
  const view = forest.tree(partition)?.view(path) ?? { _tag: "Empty" }
  switch (view._tag) {
    case "Empty":
      return Uint8Array.of(EMPTY)
    case "Leaf": {
      const packed = new Uint8Array(1 + view.entries.length * 16)
      packed[0] = LEAF
      view.entries.forEach((entry, i) => {
        writeHash(packed, 1 + i * 16, entry.keyHi, entry.keyLo)
        writeHash(packed, 9 + i * 16, entry.digestHi, entry.digestLo)
      })
      return packed
    }
    case "Branch": {
      const present = view.children.filter((child) => child !== undefined)
      const packed = new Uint8Array(3 + present.length * 8)
      packed[0] = BRANCH
      let at = 3
      view.children.forEach((child, i) => {
        if (child === undefined) return
        packed[i < 8 ? 1 : 2]! |= 1 << (i & 7)
        writeHash(packed, at, child.hi, child.lo)
        at += 8
      })
      return packed
    }
  }
}

type Bucket =
  | { readonly _tag: "Empty" }
  | { readonly _tag: "Leaf"; readonly digests: ReadonlyMap<string, { readonly key: Hash64; readonly digest: Hash64 }> }
  | { readonly _tag: "Branch"; readonly children: ReadonlyArray<Hash64 | undefined> }

const readHash = (bytes: Uint8Array, at: number): Hash64 => ({ hi: readLane(bytes, at), lo: readLane(bytes, at + 4) })

const hashText = (hash: Hash64): string => `${hash.hi}:${hash.lo}`
const keyHash = (entry: TreeEntry): Hash64 => ({ hi: entry.keyHi, lo: entry.keyLo })

const readBucket = (packed: Uint8Array | undefined): Bucket => {
  const form = packed?.[0]
  if (packed !== undefined && form === EMPTY && packed.length === 1) return { _tag: "Empty" }
  if (packed !== undefined && form === LEAF && packed.length % 16 === 1) {
    const digests = new Map<string, { readonly key: Hash64; readonly digest: Hash64 }>()
    for (let at = 1; at < packed.length; at += 16) {
      const key = readHash(packed, at)
      digests.set(hashText(key), { key, digest: readHash(packed, at + 8) })
    }
    return { _tag: "Leaf", digests }
  }
  if (packed !== undefined && form === BRANCH && packed.length >= 3) {
    let at = 3
    const children = Array.from({ length: 16 }, (_, i) => {
      if ((packed[i < 8 ? 1 : 2]! & (1 << (i & 7))) === 0) return undefined
      const hash = at + 8 <= packed.length ? readHash(packed, at) : undefined
      at += 8
      return hash
    })
    if (at === packed.length) return { _tag: "Branch", children }
  }
  throw new MalformedMessage({ reason: "a bucket of the tree walk has none of the known forms" })
}

/** A map's root as it travels: 8 bytes. */
export const packRoot = (forest: MerkleForest): Uint8Array => {
  const { hi, lo } = forest.root()
  const packed = new Uint8Array(8)
  writeHash(packed, 0, hi, lo)
  return packed
}

// --- The answering side ---

const makeAnswers = (source: Source): Answers => {
  const { tree } = source
  return {
    root: (remote) => {
      const { hi, lo } = tree.root()
      return remote.length === 8 && readLane(remote, 0) === hi && readLane(remote, 4) === lo
        ? undefined
        : tree.packRoots()
    },
    buckets: (nodes) => nodes.slice(0, nodesMax).map((node) => packBucket(tree, node)),
    fetch: (hashes) => {
      const records: Array<KeyedRecord> = []
      let bytes = 0
      for (let at = 0; at + 8 <= hashes.length; at += 8) {
        const { hi, lo } = readHash(hashes, at)
        const partition = Partition.ofHash(hi, lo)
        for (const entry of tree.tree(partition)?.find(hi, lo) ?? []) {
          const record = source.record(entry.key, partition)
          if (record === undefined) continue
          records.push([entry.key, record])
          bytes += record.row.length + entry.key.length
        }
        if (bytes >= pageBytes && at + 8 < hashes.length) return { records, after: hashes.slice(at, at + 8) }
      }
      return { records, after: undefined }
    },
    pull: ([partition, path], after) => {
      const records: Array<KeyedRecord> = []
      let bytes = 0
      let last: TreeEntry | undefined
      let full = false
      let more = false
      tree.tree(partition)?.visit(path, after === undefined ? undefined : readHash(after, 0), (entry) => {
        if (full && (last?.keyHi !== entry.keyHi || last?.keyLo !== entry.keyLo)) {
          more = true
          return false
        }
        const record = source.record(entry.key, partition)
        if (record !== undefined) {
          records.push([entry.key, record])
          bytes += record.row.length + entry.key.length
        }
        last = entry
        full = bytes >= pageBytes
        return true
      })
      if (!more || last === undefined) return { records, after: undefined }
      const cursor = new Uint8Array(8)
      writeHash(cursor, 0, last.keyHi, last.keyLo)
      return { records, after: cursor }
    }
  }
}

/** A replica of this process as the peer of another. */
export const peerOf = (answers: Answers): SyncPeer<never> => ({
  root: (local) => Effect.sync(() => answers.root(local)),
  buckets: (nodes) => Effect.sync(() => answers.buckets(nodes)),
  fetch: (hashes) => Effect.sync(() => answers.fetch(hashes)),
  pull: (node, after) => Effect.sync(() => answers.pull(node, after))
})

// --- The initiating side ---

/** What a walk has found out so far. */
interface Findings {
  /** Nodes of the next level whose two sides differ. */
  nodes: Array<NodeId>
  /** Nodes below which only the peer has records. */
  readonly pulls: Array<NodeId>
  /** Keys to fetch, by hash. */
  readonly wants: Array<Hash64>
  readonly offers: Set<string>
}

const offerAll = (tree: MerkleForest, [partition, path]: NodeId, found: Findings): void => {
  for (const key of tree.tree(partition)?.getKeysInBucket(path) ?? []) found.offers.add(key)
}

const sameHash = (a: Hash64, b: Hash64): boolean => a.hi === b.hi && a.lo === b.lo

const compareRoots = (tree: MerkleForest, packed: Uint8Array, found: Findings): void => {
  if (packed.length % 10 !== 0 || packed.length > Partition.partitionCount * 10) {
    throw new MalformedMessage({ reason: "the partitions' roots have no known form" })
  }
  const remote = new Map<number, Hash64>()
  for (let at = 0; at < packed.length; at += 10) {
    remote.set(packed[at]! << 8 | packed[at + 1]!, readHash(packed, at + 2))
  }
  for (let partition = 0; partition < Partition.partitionCount; partition++) {
    const mine = tree.tree(partition)
    const theirs = remote.get(partition)
    if (mine === undefined) {
      if (theirs !== undefined) found.pulls.push([partition, ""])
    } else if (theirs === undefined) offerAll(tree, [partition, ""], found)
    else if (!sameHash(mine.root(), theirs)) found.nodes.push([partition, ""])
  }
}

const compareLeaf = (
  tree: MerkleForest,
  [partition, path]: NodeId,
  digests: ReadonlyMap<string, { readonly key: Hash64; readonly digest: Hash64 }>,
  found: Findings
): void => {
  const missing = new Map(digests)
  tree.tree(partition)?.visit(path, undefined, (entry) => {
    const hash = keyHash(entry)
    const theirs = digests.get(hashText(hash))
    missing.delete(hashText(hash))
    if (theirs === undefined) found.offers.add(entry.key)
    else if (theirs.digest.hi !== entry.digestHi || theirs.digest.lo !== entry.digestLo) found.wants.push(hash)
    return true
  })
  for (const { key } of missing.values()) found.wants.push(key)
}

const compareBranch = (
  tree: MerkleForest,
  [partition, path]: NodeId,
  children: ReadonlyArray<Hash64 | undefined>,
  found: Findings
): void => {
  const mine = tree.tree(partition)
  const view = mine?.view(path)
  for (let i = 0; i < 16; i++) {
    const child: NodeId = [partition, path + i.toString(16)]
    const theirs = children[i]
    const empty = view === undefined || view._tag === "Empty" ||
      (view._tag === "Branch" ? view.children[i] === undefined : mine?.view(child[1])._tag === "Empty")
    if (empty) {
      if (theirs !== undefined) found.pulls.push(child)
    } else if (theirs === undefined) offerAll(tree, child, found)
    else if (view._tag === "Leaf" || !sameHash(view.children[i]!, theirs)) found.nodes.push(child)
  }
}

const compareBucket = (tree: MerkleForest, node: NodeId, bucket: Bucket, found: Findings): void => {
  switch (bucket._tag) {
    case "Empty":
      return offerAll(tree, node, found)
    case "Leaf":
      return compareLeaf(tree, node, bucket.digests, found)
    case "Branch":
      return compareBranch(tree, node, bucket.children, found)
  }
}

const chunksOf = <A>(items: ReadonlyArray<A>, size: number): ReadonlyArray<ReadonlyArray<A>> => {
  const chunks: Array<ReadonlyArray<A>> = []
  for (let at = 0; at < items.length; at += size) chunks.push(items.slice(at, at + size))
  return chunks
}

const packHashes = (hashes: ReadonlyArray<Hash64>): Uint8Array => {
  const packed = new Uint8Array(hashes.length * 8)
  hashes.forEach((hash, i) => writeHash(packed, i * 8, hash.hi, hash.lo))
  return packed
}

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
  const found: Findings = { nodes: [], pulls: [], wants: [], offers: new Set() }
  const roots = yield* peer.root(packRoot(tree))
  if (roots === undefined) return { equal: true, received: 0, offers: [] } satisfies Reconciled
  yield* compare(() => compareRoots(tree, roots, found))

  for (let depth = 0; depth <= 16 && found.nodes.length > 0; depth++) {
    const level = found.nodes
    found.nodes = []
    for (const nodes of chunksOf(level, nodesMax)) {
      const buckets = yield* peer.buckets(nodes)
      yield* compare(() => nodes.forEach((node, i) => compareBucket(tree, node, readBucket(buckets[i]), found)))
    }
  }

  let received = 0
  const receive = (records: ReadonlyArray<KeyedRecord>) => {
    received += records.length
    const losers = records.filter(([key, record]) => {
      const mine = local.record(key, Partition.partitionOf(key))
      return mine !== undefined && LwwRecord.compare(mine, record) > 0
    })
    local.receive(records)
    for (const [key] of losers) found.offers.add(key)
  }
  const pullAll = Effect.fnUntraced(function*(node: NodeId) {
    let after: Uint8Array | undefined
    do {
      const page = yield* peer.pull(node, after)
      receive(page.records)
      const before = after
      after = page.after
      if (before !== undefined && after !== undefined && !isBeyond(after, before)) {
        return yield* new MalformedMessage({ reason: "a page's cursor doesn't move forward" })
      }
    } while (after !== undefined)
  })
  const fetchAll = Effect.fnUntraced(function*(hashes: ReadonlyArray<Hash64>) {
    let rest = hashes
    while (rest.length > 0) {
      const page: Page = yield* peer.fetch(packHashes(rest))
      receive(page.records)
      if (page.after === undefined) return
      const last = readHash(page.after, 0)
      const at = rest.findIndex((hash) => sameHash(hash, last))
      if (at < 0) return yield* new MalformedMessage({ reason: "a page's cursor is none of the keys asked for" })
      rest = rest.slice(at + 1)
    }
  })
  yield* Effect.forEach(
    [...found.pulls.map(pullAll), ...chunksOf(found.wants, fetchMax).map(fetchAll)],
    (page) => page,
    { concurrency: pagesInFlight, discard: true }
  )
  return { equal: false, received, offers: Array.from(found.offers) } satisfies Reconciled
})

const isBeyond = (a: Uint8Array, b: Uint8Array): boolean =>
  compareHashes(readLane(a, 0), readLane(a, 4), readLane(b, 0), readLane(b, 4)) > 0

/** The walk as described at the head of this file. */
export const layer: Layer.Layer<MerkleSync> = Layer.succeed(
  MerkleSync,
  MerkleSync.of({ reconcile, answers: makeAnswers })
)
