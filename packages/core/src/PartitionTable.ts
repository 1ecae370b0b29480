/**
 * Which node owns which of the 271 partitions, and which node is its backup: a pure function of the set of nodes, so every
 * node and client that knows the set knows the table, and nobody has to hand it out.
 *
 * **Owners.** Consistent hashing (Karger, Lehman, Leighton, Panigrahy, Levine, Lewin 1997, "Consistent Hashing and Random
 * Trees", STOC): a node has 128 points on a ring for each unit of its weight, a partition one, and belongs to the nearest
 * node that doesn't own its fair share yet. It is `effect/HashRing`, by which @effect/cluster assigns shards: shard p + 1 of
 * 271 there is partition p here, and nodes are named as there, `host:port`. A node that joins or leaves moves about its
 * share and little else. (Jump hash, which places keys in partitions, is no choice here: its buckets are numbered densely,
 * so that a node that leaves from the middle would renumber all after it.)
 *
 * **Backups.** A partition's backup is the node that would own it if its owner were gone. So when an owner fails, each of
 * its partitions goes to a node that holds it already. A single node has no backup.
 *
 * What the table of a new set differs in are its {@link moves}. That a node takes over is the table's word only: who may
 * act as owner is for the cluster's locks to say.
 */
import * as HashRing from "effect/HashRing"
import * as PrimaryKey from "effect/PrimaryKey"
import { type Hash64, hashKey, hex } from "./internal/hash.ts"
import { partitionCount } from "./Partition.ts"

/** A node that takes part. */
export interface Node {
  /** What it is known by and reached at, such as `host:port`: not empty, and nobody else's. */
  readonly name: string
  /** Its share of the partitions beside the others', from {@link weightMin} to {@link weightMax}; 1 for each of equals. */
  readonly weight: number
}

/** Less would be taken for this much by the ring. */
export const weightMin = 0.1
/** Bounds the ring: 128 points for each unit of weight. */
export const weightMax = 100
/** Nodes of one table, at most: a table of n nodes takes n rings to make, some 0.3 s for this many and 5 ms for five. */
export const nodesMax = 64

/** Immutable; made by {@link make}. */
export interface PartitionTable {
  /** 16 hex digits: equal exactly when the nodes and their weights are, but for collisions of a 64-bit hash. */
  readonly version: string
  /** In the order of their names. */
  readonly nodes: ReadonlyArray<Node>
  /** The name of each partition's owner. */
  readonly owners: ReadonlyArray<string>
  /** The name of each partition's backup: never its owner, and `undefined` only where there is a single node. */
  readonly backups: ReadonlyArray<string | undefined>
}

interface Point extends PrimaryKey.PrimaryKey {
  readonly name: string
}

const ownersAmong = (nodes: ReadonlyArray<Node>): ReadonlyArray<string> => {
  const ring = HashRing.make<Point>()
  // All of a weight at once, as each call sorts the ring.
  for (const weight of new Set(nodes.map((node) => node.weight))) {
    const equals = nodes.filter((node) => node.weight === weight)
    HashRing.addMany(ring, equals.map(({ name }) => ({ name, [PrimaryKey.symbol]: () => name })), { weight })
  }
  return HashRing.getShards(ring, partitionCount)!.map(({ name }) => name)
}

const check = (nodes: ReadonlyArray<Node>): void => {
  if (nodes.length === 0) throw new RangeError("A partition table needs at least one node")
  if (nodes.length > nodesMax) {
    throw new RangeError(`A partition table has at most ${nodesMax} nodes, not ${nodes.length}`)
  }
  nodes.forEach(({ name, weight }, i) => {
    if (name === "") throw new RangeError("A node needs a name")
    if (name === nodes[i - 1]?.name) throw new RangeError(`Two nodes are named "${name}"`)
    if (!(weight >= weightMin && weight <= weightMax)) {
      throw new RangeError(`The weight of node "${name}" is ${weight}: it must be from ${weightMin} to ${weightMax}`)
    }
  })
}

const byName = (a: Node, b: Node): number => a.name < b.name ? -1 : a.name > b.name ? 1 : 0

/**
 * The table of a set of nodes, in whatever order they are given. Nodes come from the cluster's own registry and
 * configuration, which are checked; so what cannot be a set of nodes is a fault of the program.
 *
 * @throws RangeError when there is no node or more than {@link nodesMax}, for a name that is empty or occurs twice, and
 * for a weight out of its range.
 */
export const make = (nodes: Iterable<Node>): PartitionTable => {
  // The ring breaks ties by the order of joining, which must not be seen.
  const sorted = Array.from(nodes, ({ name, weight }): Node => ({ name, weight })).sort(byName)
  check(sorted)
  const hash: Hash64 = { hi: 0, lo: 0 }
  hashKey(JSON.stringify(sorted.map(({ name, weight }) => [name, weight])), hash)
  const owners = ownersAmong(sorted)
  const without = new Map<string, ReadonlyArray<string>>()
  if (sorted.length > 1) {
    for (const name of new Set(owners)) without.set(name, ownersAmong(sorted.filter((node) => node.name !== name)))
  }
  return {
    version: hex(hash),
    nodes: sorted,
    owners,
    backups: owners.map((owner, partition) => without.get(owner)?.[partition])
  }
}

/** That a partition's owner, or backup, is another node than before. */
export interface Move {
  readonly partition: number
  readonly role: "owner" | "backup"
  /** Who had the role; `undefined` where there was no backup. */
  readonly from: string | undefined
  /** Who takes it over; `undefined` where there is no backup any more. */
  readonly to: string | undefined
  /** Whether the node that takes over held the partition before, as its owner or backup, and needs only what is newest. */
  readonly warm: boolean
}

/** What changes from one table to another, by partition, the owner before the backup. */
export const moves = (before: PartitionTable, after: PartitionTable): ReadonlyArray<Move> => {
  const changes: Array<Move> = []
  for (let partition = 0; partition < partitionCount; partition++) {
    const owner = before.owners[partition]
    const backup = before.backups[partition]
    const moveTo = (role: Move["role"], from: string | undefined, to: string | undefined): void => {
      if (from !== to) {
        changes.push({ partition, role, from, to, warm: to !== undefined && (to === owner || to === backup) })
      }
    }
    moveTo("owner", owner, after.owners[partition])
    moveTo("backup", backup, after.backups[partition])
  }
  return changes
}
