import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as HashRing from "effect/HashRing"
import * as PrimaryKey from "effect/PrimaryKey"
import { partitionCount } from "../src/Partition.ts"
import * as PartitionTable from "../src/PartitionTable.ts"

const names = ["10.0.0.1:34431", "10.0.0.2:34431", "10.0.0.3:34431", "db-2.example:1", "a"]
const weights = [0, 1, 2.3]

/** Every set of these nodes, 0 for those that are away: few enough for a table of each to be made once. */
const sets: ReadonlyArray<ReadonlyArray<PartitionTable.Node>> = Array.from(
  { length: weights.length ** names.length - 1 },
  (_, set) =>
    names
      .map((name, i) => ({ name, weight: weights[Math.floor((set + 1) / weights.length ** i) % weights.length]! }))
      .filter(({ weight }) => weight > 0)
)
const tables = new Map<string, PartitionTable.PartitionTable>()
const tableOf = (set: ReadonlyArray<PartitionTable.Node>): PartitionTable.PartitionTable => {
  const known = JSON.stringify(set)
  const table = tables.get(known) ?? PartitionTable.make(set)
  tables.set(known, table)
  return table
}
const anySet = fc.integer({ min: 0, max: sets.length - 1 }).map((set) => sets[set]!)

/** Nodes of equal weight: the `n` that follow the `from`th of a grid's addresses. */
const equals = (n: number, from = 0): ReadonlyArray<PartitionTable.Node> =>
  Array.from({ length: n }, (_, i) => ({ name: `10.0.${from}.${i + 1}:34431`, weight: 1 }))

const partitions = Array.from({ length: partitionCount }, (_, partition) => partition)

const shares = (owners: ReadonlyArray<string | undefined>): Map<string | undefined, number> => {
  const counts = new Map<string | undefined, number>()
  for (const owner of owners) counts.set(owner, (counts.get(owner) ?? 0) + 1)
  return counts
}

const ownerMoves = (before: PartitionTable.PartitionTable, after: PartitionTable.PartitionTable) =>
  PartitionTable.moves(before, after).filter(({ role }) => role === "owner")

describe("a partition table", () => {
  it("gives every partition one owner among the nodes, and a backup that is another of them", () => {
    for (const set of sets) {
      const { backups, nodes, owners } = tableOf(set)
      const present = new Set(nodes.map(({ name }) => name))
      assert.strictEqual(owners.length, partitionCount)
      assert.strictEqual(backups.length, partitionCount)
      for (const partition of partitions) {
        const owner = owners[partition]!
        const backup = backups[partition]
        if (!present.has(owner)) assert.fail(`${owner} owns ${partition} and is none of the nodes`)
        if (backup === owner) assert.fail(`${owner} is its own backup for ${partition}`)
        if (backup === undefined ? set.length > 1 : !present.has(backup)) assert.fail(`${backup} backs ${partition} up`)
      }
    }
  }, 60_000)

  it("has no backups with a single node", () => {
    const table = PartitionTable.make(equals(1))
    assert.deepStrictEqual(new Set(table.owners), new Set(["10.0.0.1:34431"]))
    assert.deepStrictEqual(new Set(table.backups), new Set([undefined]))
  })

  it.prop(
    "and its version are the same whatever the order in which nodes joined",
    [anySet.chain((set) => fc.tuple(fc.constant(set), fc.shuffledSubarray([...set], { minLength: set.length })))],
    ([[set, shuffled]]) => {
      assert.deepStrictEqual(PartitionTable.make(shuffled), tableOf(set))
    }
  )

  it("has a version of its own for each set of nodes and weights", () => {
    assert.strictEqual(new Set(sets.map((set) => tableOf(set).version)).size, sets.length)
    for (const set of sets) assert.match(tableOf(set).version, /^[0-9a-f]{16}$/)
  }, 60_000)

  it("is the one by which @effect/cluster assigns shards, whatever the order in which it heard of the nodes", () => {
    for (const set of [equals(3), [...equals(7)].reverse(), sets.at(-1)!, [...sets.at(-1)!].reverse()]) {
      const ring = HashRing.make<{ readonly name: string } & PrimaryKey.PrimaryKey>()
      for (const { name, weight } of set) HashRing.add(ring, { name, [PrimaryKey.symbol]: () => name }, { weight })
      assert.deepStrictEqual(
        PartitionTable.make(set).owners,
        HashRing.getShards(ring, partitionCount)!.map(({ name }) => name)
      )
    }
  })

  it("stays as it is: a grid whose nodes differ in their version would be split by another", () => {
    const { backups, owners, version } = PartitionTable.make(equals(3))
    const first = (of: ReadonlyArray<string | undefined>): string =>
      of.slice(0, 16).map((name) => name?.slice("10.0.0.".length, -":34431".length)).join(" ")
    assert.strictEqual(version, "a280026ff2e6c289")
    assert.strictEqual(first(owners), "2 3 2 1 3 1 3 1 1 2 1 2 2 2 3 2")
    assert.strictEqual(first(backups), "3 1 3 3 1 3 1 3 3 3 3 3 1 1 1 1")
  })

  it("gives nodes their shares: equal ones, or as their weights are", () => {
    for (const n of [2, 3, 4, 5, 9]) {
      for (let grid = 0; grid < 20; grid++) {
        const counts = Array.from(shares(PartitionTable.make(equals(n, grid)).owners).values())
        assert.strictEqual(counts.length, n)
        assert.isAtMost(Math.max(...counts) - Math.min(...counts), 3)
      }
    }
    const weighed = shares(
      PartitionTable.make([{ name: "small", weight: 1 }, { name: "large", weight: 3 }, { name: "half", weight: 0.5 }])
        .owners
    )
    assert.closeTo(weighed.get("large")!, 271 * 3 / 4.5, 2)
    assert.closeTo(weighed.get("small")!, 271 / 4.5, 2)
    assert.closeTo(weighed.get("half")!, 271 * 0.5 / 4.5, 2)
  })

  it("moves about a share of the partitions when a node joins or leaves, not more than half as many again", () => {
    const grids = Array.from({ length: 40 }, (_, grid) => grid)
    for (const n of [2, 3, 4, 8]) {
      let joining = 0
      let leaving = 0
      for (const grid of grids) {
        const fewer = PartitionTable.make(equals(n, grid))
        const more = PartitionTable.make(equals(n + 1, grid))
        joining += ownerMoves(fewer, more).length
        leaving += ownerMoves(more, fewer).length
      }
      const share = partitionCount / (n + 1)
      for (const moved of [joining, leaving]) {
        assert.isAtLeast(moved / grids.length, share - 1)
        assert.isAtMost(moved / grids.length, share * 1.5)
      }
    }
  })

  it("promotes the backup of every partition whose owner leaves", () => {
    for (const set of sets) {
      if (set.length === 1) continue
      const before = tableOf(set)
      for (const { name } of set) {
        const after = tableOf(set.filter((node) => node.name !== name))
        for (const partition of partitions) {
          if (before.owners[partition] === name && after.owners[partition] !== before.backups[partition]) {
            assert.fail(`${after.owners[partition]} owns ${partition}, but ${before.backups[partition]} backed it up`)
          }
        }
        for (const move of ownerMoves(before, after)) if (move.from === name) assert.isTrue(move.warm)
      }
    }
  }, 120_000)

  it("is refused for what is no set of nodes", () => {
    const wrong: ReadonlyArray<readonly [nodes: ReadonlyArray<PartitionTable.Node>, why: RegExp]> = [
      [[], /at least one/],
      [equals(PartitionTable.nodesMax + 1), /at most/],
      [[{ name: "", weight: 1 }], /name/],
      [[{ name: "b", weight: 1 }, { name: "a", weight: 1 }, { name: "b", weight: 1 }], /"b"/],
      [[{ name: "b", weight: 1 }, { name: "b", weight: 2 }], /"b"/],
      ...[0, -1, Number.NaN, Number.POSITIVE_INFINITY, 0.09, 100.1].map((weight) =>
        [[{ name: "a", weight: 1 }, { name: "b", weight }], /weight of node "b"/] as const
      )
    ]
    for (const [nodes, why] of wrong) assert.throws(() => PartitionTable.make(nodes), RangeError, why)
    assert.strictEqual(PartitionTable.make([{ name: "a", weight: 0.1 }, { name: "b", weight: 100 }]).nodes.length, 2)
  })
})

describe("the moves from one table to another", () => {
  it.prop("are none between equal tables", [anySet], ([set]) => {
    assert.deepStrictEqual(PartitionTable.moves(tableOf(set), PartitionTable.make([...set].reverse())), [])
  })

  it.prop(
    "make the one of the other, each a change, warm where the node held the partition",
    [anySet, anySet],
    ([from, to]) => {
      const before = tableOf(from)
      const after = tableOf(to)
      const owners = [...before.owners]
      const backups = [...before.backups]
      for (const { from: was, partition, role, to: is, warm } of PartitionTable.moves(before, after)) {
        const held = [before.owners[partition], before.backups[partition]]
        if (was !== held[role === "owner" ? 0 : 1]) assert.fail(`${role} of ${partition} was not ${was}`)
        if (is === was) assert.fail(`${role} of ${partition} does not move`)
        if (warm !== (is !== undefined && held.includes(is))) assert.fail(`${is} is warm for ${partition}: ${warm}`)
        if (role === "owner") owners[partition] = is!
        else backups[partition] = is
      }
      assert.strictEqual(owners.join(), after.owners.join())
      assert.strictEqual(backups.join(), after.backups.join())
    },
    { fastCheck: { numRuns: 10_000 }, timeout: 120_000 }
  )

  it("say of a node that joins that it begins cold, and of the old owner that it is a warm backup", () => {
    const all = PartitionTable.moves(PartitionTable.make(equals(1)), PartitionTable.make(equals(2)))
    const first = "10.0.0.1:34431"
    const second = "10.0.0.2:34431"
    assert.strictEqual(all.filter(({ role }) => role === "backup").length, partitionCount)
    for (const { from, role, to, warm } of all) {
      assert.strictEqual(warm, to === first)
      assert.strictEqual(from, role === "owner" ? first : undefined)
      if (role === "owner") assert.strictEqual(to, second)
    }
  })
})
