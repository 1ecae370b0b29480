import { assert, describe, it } from "@effect/vitest"
import { MalformedMessage } from "../src/GridError.ts"
import * as LwwRecord from "../src/LwwRecord.ts"
import { LwwMap } from "../src/LwwMap.ts"
import { cellOf, OrMap, prefixLength } from "../src/OrMap.ts"
import { partitionCount, partitionOf } from "../src/Partition.ts"
import * as Value from "../src/Value.ts"
import { convergence, laws } from "@topgun/testing/laws"
import { FastCheck as fc } from "effect"
import { closeRecord, key, nodeIds, record } from "./arbitraries.ts"

type Row = LwwRecord.LwwRecord
type Fact = readonly [key: string, record: Row]

const newMap = (now: () => number = () => 0) => new OrMap({ now })
const at = (millis: number, counter = 0, nodeId: string = nodeIds[1]) => ({ millis, counter, nodeId })
const bytes = Value.encode

const mapOf = (facts: Iterable<Fact>): OrMap => {
  const map = newMap()
  for (const [each, row] of facts) map.merge(each, row)
  return map
}

/** Takes over all that another replica has. */
const sync = (into: OrMap, from: OrMap): void => {
  for (const [each, row] of from.records()) into.merge(each, row)
}

const join = (a: OrMap, b: OrMap): OrMap => {
  const joined = mapOf(a.records())
  sync(joined, b)
  return joined
}

const sorted = (facts: ReadonlyArray<Fact>): ReadonlyArray<string> =>
  facts.map(([each, { row }]) => `${each} ${Buffer.from(row).toString("hex")}`).sort()

const equals = (a: OrMap, b: OrMap): boolean => a.digest === b.digest

/** Any state of few tags, which comes about in any order. */
const state = fc.array(fc.tuple(key, closeRecord), { maxLength: 5 }).map(mapOf)

laws("OrMap", { arbitrary: state, merge: join, equals })

convergence("OrMap", {
  operation: fc.tuple(key, closeRecord),
  make: newMap,
  apply: (map, [each, row]) => {
    map.merge(each, row)
  },
  merge: sync,
  digest: (map) => map.digest
})

// --- A reference model of intent: the additions and the removals that a replica has seen, as plain sets of tags ---

interface Addition {
  readonly key: string
  readonly value: Value.Value
  readonly expiresAt: number
}

class Model {
  readonly added = new Map<string, Addition>()
  readonly removed = new Set<string>()

  /** What is left of the additions, by the order of their tags, each value once. */
  values(each: string, now: number): Array<Value.Value> {
    const live = Array.from(this.added)
      .filter(([tag, addition]) => addition.key === each && !this.removed.has(tag))
      .filter(([, { expiresAt }]) => expiresAt === 0 || now < expiresAt)
      .sort(([a], [b]) => a < b ? -1 : 1)
    return Array.from(new Map(live.map(([, addition]) => [JSON.stringify(addition.value), addition.value])).values())
  }

  take(from: Model): void {
    for (const [tag, addition] of from.added) this.added.set(tag, addition)
    for (const tag of from.removed) this.removed.add(tag)
  }
}

const tagOf = (each: string, row: Row): string => `${Buffer.from(row.row.subarray(0, 24)).toString("hex")} ${each}`

interface Replica {
  readonly nodeId: string
  readonly map: OrMap
  readonly model: Model
  /** The records that it made, each with what a model has to know of it. */
  readonly made: Array<Fact>
  counter: number
}

const node = fc.nat(2)
const plainValue = fc.constantFrom<Value.Value>(null, 0, 1, "", "a", false)
const command = fc.oneof(
  fc.record({
    _tag: fc.constant("add" as const),
    by: node,
    key,
    value: plainValue,
    millis: fc.constantFrom(1_000, 1_001),
    expiresAt: fc.constantFrom(0, 0, 2_000, 3_000)
  }),
  fc.record({ _tag: fc.constant("remove" as const), by: node, key, value: plainValue }),
  fc.record({ _tag: fc.constant("sync" as const), by: node, from: node }),
  fc.record({ _tag: fc.constant("receive" as const), by: node, from: node, which: fc.nat() })
)
type Command = typeof command extends fc.Arbitrary<infer A> ? A : never

const perform = (replicas: ReadonlyArray<Replica>, each: Command): void => {
  const { made, map, model, nodeId } = replicas[each.by]!
  switch (each._tag) {
    case "add": {
      const stamp = at(each.millis, ++replicas[each.by]!.counter, nodeId)
      const row = map.add(each.key, bytes(each.value), stamp, each.expiresAt)
      model.added.set(tagOf(each.key, row), { key: each.key, value: each.value, expiresAt: each.expiresAt })
      made.push([each.key, row])
      return
    }
    case "remove": {
      const expected = Array.from(model.added)
        .filter(([tag, addition]) =>
          addition.key === each.key && addition.value === each.value && !model.removed.has(tag)
        )
        .map(([tag]) => tag)
      const removed = map.remove(each.key, bytes(each.value))
      assert.deepStrictEqual(removed.map((row) => tagOf(each.key, row)), expected.sort())
      for (const row of removed) {
        model.removed.add(tagOf(each.key, row))
        made.push([each.key, row])
      }
      return
    }
    case "sync":
      sync(map, replicas[each.from]!.map)
      model.take(replicas[each.from]!.model)
      return
    case "receive": {
      const [name, row] = replicas[each.from]!.made[each.which % replicas[each.from]!.made.length] ?? []
      if (name === undefined || row === undefined) return
      map.merge(name, row)
      const tag = tagOf(name, row)
      if (row.isTombstone) model.removed.add(tag)
      else model.added.set(tag, { key: name, value: Value.decode(row.valueBytes), expiresAt: row.expiresAt })
    }
  }
}

// --- A naive model of what a client knows: for each tag the greatest confirmed record, and the greatest local one ---

interface Known {
  readonly key: string
  confirmed: Row | undefined
  local: Row | undefined
}

const greater = (a: Row | undefined, b: Row | undefined): Row | undefined =>
  a === undefined ? b : b === undefined ? a : LwwRecord.compare(a, b) >= 0 ? a : b

const cellCommand = fc.record({
  _tag: fc.constantFrom("merge", "confirm", "write", "revert", "prune"),
  key,
  record: closeRecord
})
type CellCommand = typeof cellCommand extends fc.Arbitrary<infer A> ? A : never

/** Does a command to a map's cells and to the model, whose entries are by cell. */
const performOnCells = (
  map: OrMap,
  model: Map<string, Known>,
  { _tag, key: name, record: row }: CellCommand
): void => {
  const cell = cellOf(name, row)
  const entry = model.get(cell) ?? { key: name, confirmed: undefined, local: undefined }
  switch (_tag) {
    case "merge":
    case "confirm":
      entry.confirmed = greater(entry.confirmed, row)
      if (_tag === "merge") map.merge(name, row)
      else map.cells.confirm(cell, row)
      break
    case "write":
      entry.local = greater(entry.local, row)
      map.cells.write(cell, row)
      break
    case "revert":
      entry.local = undefined
      map.cells.revert(cell)
      break
    default: {
      const pruned = Array.from(model).filter(([, { confirmed, local }]) =>
        local === undefined && confirmed!.isTombstone && confirmed!.millis < row.millis
      )
      for (const [each] of pruned) model.delete(each)
      assert.deepStrictEqual(
        sorted(map.prune(row.millis)),
        sorted(pruned.map(([, { confirmed, key: each }]): Fact => [each, confirmed!]))
      )
      return
    }
  }
  if (greater(entry.confirmed, entry.local) === entry.confirmed) entry.local = undefined
  if (entry.confirmed === undefined && entry.local === undefined) model.delete(cell)
  else model.set(cell, entry)
}

const names = ["a", "b", "__proto__"]
const hostileNames = ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "length", "then", ""]

describe("OrMap", () => {
  it.prop(
    "joins any three states in any order to the same",
    [state, state, state],
    ([a, b, c]) => {
      const before = a.digest
      const all = join(join(a, b), c)
      assert.isTrue(equals(all, join(a, join(b, c))))
      assert.isTrue(equals(join(a, b), join(b, a)))
      assert.isTrue(equals(join(a, a), a))
      assert.isTrue(equals(join(all, b), all))
      assert.strictEqual(a.digest, before)
    },
    { fastCheck: { numRuns: 10_000 } }
  )

  it.prop(
    "shows the additions less the removals that a replica has seen, through any syncs, one-way ones and repetitions too",
    [fc.array(command, { maxLength: 20, size: "max" })],
    ([commands]) => {
      const now = 2_500
      const replicas = nodeIds.slice(0, 3).map((nodeId): Replica => ({
        nodeId,
        map: newMap(() => now),
        model: new Model(),
        made: [],
        counter: 0
      }))
      for (const each of commands) {
        perform(replicas, each)
        const { map, model } = replicas[each.by]!
        const visible = new Map<string, ReadonlyArray<Value.Value>>()
        for (const name of names) {
          const expected = model.values(name, now)
          if (expected.length > 0) visible.set(name, expected)
          assert.deepStrictEqual(map.getValues(name), expected)
          assert.strictEqual(map.has(name), expected.length > 0)
          for (const one of expected) assert.isTrue(map.has(name, bytes(one)))
        }
        assert.deepStrictEqual(new Map(map.entries()), visible)
        assert.deepStrictEqual(new Set(map.keys()), new Set(visible.keys()))
        assert.strictEqual(map.size, visible.size)
        assert.strictEqual(map.digest, mapOf(Array.from(map.records()).reverse()).digest)
        assert.strictEqual(map.recordCount, Array.from(map.records()).length)
      }
      const all = mapOf(replicas.flatMap(({ made }) => made))
      for (const { map } of replicas) for (const { made } of replicas) for (const fact of made) map.merge(...fact)
      for (const { map } of replicas) assert.strictEqual(map.digest, all.digest)
    },
    { fastCheck: { numRuns: 1_000 } }
  )

  it.prop(
    "has the digest and counts of a map built anew, after any records and prunings",
    [fc.array(fc.oneof(fc.tuple(key, closeRecord), fc.constantFrom(1_000, 1_001, 1_002)), { maxLength: 20 })],
    ([steps]) => {
      const map = newMap(() => 2_500)
      for (const step of steps) {
        if (typeof step === "number") {
          const dropped = Array.from(map.records()).filter(([, row]) => row.isTombstone && row.millis < step)
          assert.deepStrictEqual(sorted(map.prune(step)), sorted(dropped))
          for (const [, row] of map.records()) assert.isFalse(row.isTombstone && row.millis < step)
        } else {
          const [name, row] = step
          const before = map.getRecords(name).find((each) => tagOf(name, each) === tagOf(name, row))
          const change = map.merge(name, row)
          const wins = before === undefined || LwwRecord.compare(row, before) > 0
          assert.deepStrictEqual(change, wins ? { key: name, previous: before, record: row } : undefined)
        }
        const facts = Array.from(map.records())
        const again = new OrMap({ now: () => 2_500 })
        for (const [name, row] of facts.slice().reverse()) again.merge(name, row)
        assert.strictEqual(map.digest, again.digest)
        assert.strictEqual(map.tree.size, facts.length)
        assert.strictEqual(map.recordCount, facts.length)
        assert.strictEqual(map.size, again.size)
        assert.deepStrictEqual(new Map(map.entries()), new Map(again.entries()))
      }
    },
    { fastCheck: { numRuns: 500 } }
  )

  it.prop(
    "is what a naive model is after any writes, merges, confirmations, reverts and prunings of its tags",
    [fc.array(cellCommand, { maxLength: 20, size: "max" })],
    ([commands]) => {
      const now = 2_500
      const map = newMap(() => now)
      const model = new Map<string, Known>()
      for (const each of commands) {
        const before = map.getValues(each.key)
        const cell = cellOf(each.key, each.record)
        const row = map.cells.getRecord(cell)
        performOnCells(map, model, each)
        const fresh = newMap(() => now)
        for (const [tag, { confirmed }] of model) if (confirmed !== undefined) fresh.cells.merge(tag, confirmed)
        assert.strictEqual(map.digest, fresh.digest)
        assert.strictEqual(map.tree.size, fresh.recordCount)
        assert.strictEqual(map.recordCount, model.size)
        const live = newMap(() => now)
        for (const { confirmed, key: name, local } of model.values()) live.merge(name, greater(confirmed, local)!)
        for (const name of names) assert.deepStrictEqual(map.getValues(name), live.getValues(name))
        assert.deepStrictEqual(new Map(map.entries()), new Map(live.entries()))
        assert.strictEqual(map.size, live.size)
        // What it showed before can still be told; also of the changed tag what had expired by then.
        const hadExpired = row !== undefined && row.expiresAt !== 0 && row.expiresAt <= now
        if (each._tag !== "prune" && !hadExpired) {
          assert.deepStrictEqual(map.valuesBefore(each.key, new Map([[cell, row]])), before)
        }
      }
    },
    { fastCheck: { numRuns: 1_000 } }
  )

  it("takes back an addition that wasn't confirmed, and of a removal the tags that were", () => {
    const map = newMap()
    const added = LwwRecord.put(at(1), bytes("x"))
    const cell = cellOf("k", added)
    map.cells.write(cell, added)
    assert.deepStrictEqual([map.getValues("k"), map.size, map.tree.size], [["x"], 1, 0])
    map.cells.revert(cell)
    assert.deepStrictEqual([map.getValues("k"), map.size, map.recordCount], [[], 0, 0])
    assert.deepStrictEqual(map.getRecords("k"), [])

    map.merge("k", added)
    const { digest } = map
    for (const tombstone of map.tombstones("k", bytes("x"))) map.cells.write(cell, tombstone)
    assert.deepStrictEqual([map.getValues("k"), map.digest], [[], digest])
    assert.deepStrictEqual(map.prune(100), [])
    map.cells.revert(cell)
    assert.deepStrictEqual([map.getValues("k"), map.digest], [["x"], digest])
    map.cells.write(cell, LwwRecord.remove(added.stamp))
    map.cells.confirm(cell, LwwRecord.remove(added.stamp))
    assert.notStrictEqual(map.digest, digest)
    map.cells.revert(cell)
    assert.deepStrictEqual(map.getValues("k"), [])
  })

  it("tells what it showed before tags changed, those that had expired since included", () => {
    let now = 0
    const map = newMap(() => now)
    const [first, second, third] = [1, 2, 3].map((millis) =>
      LwwRecord.put(at(millis), bytes(`v${millis}`), millis * 100)
    )
    for (const row of [first!, second!, third!]) map.merge("k", row)
    now = 200
    const removed = LwwRecord.remove(second!.stamp)
    map.merge("k", removed)
    // The first is expired, and hasn't changed.
    assert.deepStrictEqual(map.valuesBefore("k", new Map([[cellOf("k", removed), second]])), ["v2", "v3"])
    assert.deepStrictEqual(map.valuesBefore("k", new Map()), ["v3"])
    assert.deepStrictEqual(map.valuesBefore("k", new Map([[cellOf("k", third!), undefined]])), [])
    assert.deepStrictEqual(map.valuesBefore("none", new Map()), [])
  })

  it("would remove of a key all that it has, where no value is named", () => {
    const map = newMap()
    for (const [i, value] of ["x", "y", "x"].entries()) map.add("k", bytes(value), at(i + 1))
    map.add("l", bytes("x"), at(9))
    map.remove("k", bytes("y"))
    assert.deepStrictEqual(map.tombstones("k").map(({ isTombstone, millis }) => [millis, isTombstone]), [[1, true], [
      3,
      true
    ]])
    assert.deepStrictEqual(map.tombstones("k", bytes("y")), [])
    assert.deepStrictEqual(map.getValues("k"), ["x"])
  })

  it("keeps an addition that a concurrent removal hasn't seen", () => {
    const [mine, theirs] = [newMap(), newMap()]
    mine.add("k", bytes("x"), at(1))
    sync(theirs, mine)
    theirs.add("k", bytes("x"), at(2, 0, nodeIds[2]))
    mine.remove("k", bytes("x"))
    assert.deepStrictEqual(mine.getValues("k"), [])
    sync(mine, theirs)
    sync(theirs, mine)
    assert.deepStrictEqual(mine.getValues("k"), ["x"])
    assert.deepStrictEqual(theirs.getValues("k"), ["x"])
    assert.strictEqual(mine.digest, theirs.digest)
  })

  it("removes all tags of a value that it has seen, and nothing of another value or key", () => {
    const map = newMap()
    const first = map.add("k", bytes("x"), at(1))
    const other = map.add("k", bytes("y"), at(2))
    const second = map.add("k", bytes("x"), at(3))
    map.add("l", bytes("x"), at(4))
    const removed = map.remove("k", bytes("x"))
    assert.deepStrictEqual(removed.map(({ stamp }) => stamp), [first.stamp, second.stamp])
    assert.isTrue(removed.every(({ isTombstone }) => isTombstone))
    assert.deepStrictEqual(map.getRecords("k"), [removed[0]!, other, removed[1]!])
    assert.deepStrictEqual(Array.from(map.entries()), [["k", ["y"]], ["l", ["x"]]])
    assert.deepStrictEqual(map.remove("k", bytes("x")), [])
    assert.deepStrictEqual(map.remove("missing", bytes("x")), [])
  })

  it("shows a value again that is added after its removal", () => {
    const map = newMap()
    map.add("k", bytes("x"), at(1))
    map.remove("k", bytes("x"))
    assert.isFalse(map.has("k"))
    map.add("k", bytes("x"), at(2))
    assert.deepStrictEqual(map.getValues("k"), ["x"])
    assert.strictEqual(map.size, 1)
  })

  it("doesn't show an addition that arrives after its removal", () => {
    const [mine, late] = [newMap(), newMap()]
    const added = mine.add("k", bytes("x"), at(1))
    const [removed] = mine.remove("k", bytes("x"))
    late.merge("k", removed!)
    assert.isUndefined(late.merge("k", added))
    assert.deepStrictEqual(late.getValues("k"), [])
    assert.strictEqual(late.digest, mine.digest)
  })

  it("decides between two additions under one tag by their bytes, the same way everywhere", () => {
    const additions = [LwwRecord.put(at(1), bytes("a")), LwwRecord.put(at(1), bytes("b"))]
    for (const rows of [additions, additions.slice().reverse()]) {
      const map = newMap()
      for (const row of rows) map.merge("k", row)
      assert.deepStrictEqual(map.getValues("k"), ["b"])
      assert.strictEqual(map.recordCount, 1)
      map.remove("k", bytes("b"))
      for (const row of rows) map.merge("k", row)
      assert.deepStrictEqual(map.getValues("k"), [])
    }
  })

  it("keeps the tags of one moment by different nodes apart", () => {
    const map = newMap()
    for (const nodeId of nodeIds) map.add("k", bytes(nodeId), at(1, 0, nodeId))
    assert.deepStrictEqual(map.getValues("k"), [...nodeIds])
    map.remove("k", bytes(nodeIds[1]))
    assert.deepStrictEqual(map.getValues("k"), nodeIds.filter((nodeId) => nodeId !== nodeIds[1]))
  })

  it("takes values for one when their canonical bytes are, whatever the order of their fields", () => {
    const map = newMap()
    map.add("k", bytes({ a: 1, b: [{ c: 2, d: 3 }] }), at(1))
    map.add("k", bytes({ b: [{ d: 3, c: 2 }], a: 1 }), at(2))
    for (const one of [0, -0, 0n, "0", null, false]) map.add("k", bytes(one), at(3, map.recordCount))
    assert.deepStrictEqual(map.getValues("k"), [{ a: 1, b: [{ c: 2, d: 3 }] }, 0, -0, 0n, "0", null, false])
    assert.strictEqual(map.remove("k", bytes({ b: [{ d: 3, c: 2 }], a: 1 })).length, 2)
    map.remove("k", bytes(-0))
    assert.deepStrictEqual(map.getValues("k"), [0, 0n, "0", null, false])
  })

  it("shows each value once, in the order of its earliest tag, however the tags came", () => {
    const rows = [1, 2, 3, 4, 5, 6].map((millis) => LwwRecord.put(at(millis), bytes(millis % 2 === 0 ? "x" : millis)))
    for (const order of [rows, rows.slice().reverse(), [...rows.slice(3), ...rows.slice(0, 3)]]) {
      assert.deepStrictEqual(mapOf(order.map((row): Fact => ["k", row])).getValues("k"), [1, "x", 3, 5])
    }
  })

  it("shows the same frozen values at each read until they change", () => {
    let now = 0
    const map = newMap(() => now)
    map.add("k", bytes({ list: [1] }), at(1))
    map.add("expiring", bytes({ list: [1] }), at(2), 1_000)
    map.add("expiring", bytes("stays"), at(3))
    for (const name of ["k", "expiring"]) {
      const values = map.getValues(name)
      const first = values[0] as { readonly list: Array<number> }
      assert.strictEqual(map.getValues(name), values)
      assert.throws(() => first.list.push(2), TypeError)
      assert.throws(() => (values as Array<unknown>).push(2), TypeError)
      map.add(name, bytes("more"), at(4))
      assert.notStrictEqual(map.getValues(name), values)
      assert.strictEqual(map.getValues(name)[0], first)
      assert.strictEqual(map.getValues(name).at(-1), "more")
    }
    now = 1_000
    assert.deepStrictEqual(map.getValues("expiring"), ["stays", "more"])
    assert.throws(() => (map.getValues("none") as Array<unknown>).push(2), TypeError)
  })

  it("hides a value from the moment that it expires, and keeps its record and digest", () => {
    let now = 1_999
    const map = newMap(() => now)
    const expiring = map.add("k", bytes("x"), at(1), 2_000)
    map.add("other", bytes("y"), at(2))
    const { digest } = map
    assert.deepStrictEqual(map.getValues("k"), ["x"])
    assert.strictEqual(map.size, 2)
    now = 2_000
    assert.deepStrictEqual(map.getValues("k"), [])
    assert.isFalse(map.has("k"))
    assert.isFalse(map.has("k", bytes("x")))
    assert.deepStrictEqual(Array.from(map.entries()), [["other", ["y"]]])
    assert.deepStrictEqual(Array.from(map.keys()), ["other"])
    assert.strictEqual(map.size, 1)
    assert.deepStrictEqual(map.getRecords("k"), [expiring])
    assert.strictEqual(map.digest, digest)
    map.add("k", bytes("x"), at(3))
    map.merge("k", LwwRecord.remove(expiring.stamp))
    assert.deepStrictEqual(map.getValues("k"), ["x"])
  })

  it("removes what is expired here too, since a clock elsewhere may be behind", () => {
    let now = 0
    const map = newMap(() => now)
    map.add("k", bytes("x"), at(1), 1_000)
    now = 1_000
    assert.strictEqual(map.remove("k", bytes("x")).length, 1)
    now = 0
    assert.isFalse(map.has("k"))
  })

  it("forgets only tombstones below the bound, and keys of which nothing is left", () => {
    const map = newMap()
    for (const [name, millis] of [["gone", 1], ["k", 1], ["k", 2], ["k", 10]] as const) {
      map.add(name, bytes(millis), at(millis))
    }
    for (const millis of [1, 10]) map.remove("k", bytes(millis))
    map.remove("gone", bytes(1))
    assert.deepStrictEqual(
      map.prune(10).map(([name, { isTombstone, millis }]) => [name, millis, isTombstone]),
      [["gone", 1, true], ["k", 1, true]]
    )
    assert.deepStrictEqual(map.getRecords("k").map(({ millis }) => millis), [2, 10])
    assert.deepStrictEqual(map.getRecords("gone"), [])
    assert.deepStrictEqual(map.getValues("k"), [2])
    assert.strictEqual(map.tree.size, 2)
    assert.strictEqual(map.recordCount, 2)
  })

  it("is iterated to its end while it changes", () => {
    const map = newMap()
    for (let i = 0; i < 10; i++) map.add(`k${i % 5}`, bytes(i), at(i + 1))
    const seen: Array<Fact> = []
    for (const fact of map.records()) {
      seen.push(fact)
      map.remove(fact[0], fact[1].valueBytes)
      map.prune(100)
      if (seen.length === 1) map.add("k0", bytes("new"), at(0))
    }
    assert.deepStrictEqual(
      seen.map(([name, { millis }]) => [name, millis]),
      [["k0", 1], ["k0", 6], ["k1", 2], ["k1", 7], ["k2", 3], ["k2", 8], ["k3", 4], ["k3", 9], ["k4", 5], ["k4", 10]]
    )
    const keys: Array<string> = []
    for (const each of map.keys()) {
      keys.push(each)
      if (keys.length < 3) map.add(`later${keys.length}`, bytes(0), at(20))
    }
    assert.deepStrictEqual(keys, ["k0", "later1", "later2"])
  })

  it("digests values, keys, stamps, expiries and removals", () => {
    const rows = [[], [1], [2], [1, 2], [2, 1, 1]].map((values) =>
      mapOf(values.map((each, i): Fact => ["k", LwwRecord.put(at(i + 1), bytes(each))]))
    )
    const put = LwwRecord.put(at(1), bytes(1), 5)
    rows.push(mapOf([["k", put]]), mapOf([["l", put]]), mapOf([["k", LwwRecord.remove(at(1))]]))
    assert.strictEqual(new Set(rows.map(({ digest }) => digest)).size, rows.length)
  })

  it("has the tree of an LwwMap of its tags, each in its key's partition, so both are walked in the same way", () => {
    const [orMap, lwwMap] = [newMap(), new LwwMap({ now: () => 0, prefixLength })]
    for (let i = 0; i < 500; i++) {
      const row = i % 3 === 0 ? LwwRecord.remove(at(i)) : LwwRecord.put(at(i), bytes(i))
      const name = `k${i % 200}`
      orMap.merge(name, row)
      lwwMap.merge(cellOf(name, row), row)
    }
    assert.strictEqual(orMap.digest, lwwMap.digest)
    let tags = 0
    for (let partition = 0; partition < partitionCount; partition++) {
      const [ofOr, ofLww] = [orMap.tree.tree(partition), lwwMap.tree.tree(partition)]
      assert.deepStrictEqual(ofOr?.root(), ofLww?.root())
      const cells = ofOr?.getKeysInBucket("") ?? []
      assert.deepStrictEqual(cells.slice().sort(), ofLww?.getKeysInBucket("").sort() ?? [])
      for (const cell of cells) {
        assert.strictEqual(partitionOf(cell.slice(prefixLength)), partition)
        assert.strictEqual(orMap.cells.partitionOf(cell), partition)
        tags++
      }
    }
    assert.strictEqual(tags, 500)
  })

  it("keeps names of Object.prototype as plain keys, values and fields", () => {
    const prototypes = [Object.prototype, Array.prototype, Function.prototype]
    const before = prototypes.map((each) => Reflect.ownKeys(each))
    const map = newMap()
    const objects = hostileNames.map((name) => JSON.parse(`{${JSON.stringify(name)}:{"x":1}}`) as object)
    hostileNames.forEach((name, i) => {
      assert.deepStrictEqual(map.getValues(name), [])
      map.add(name, bytes(name), at(1))
      map.add(name, bytes(objects[i]), at(2))
    })
    const loaded = newMap()
    for (const [name, { row }] of map.records()) loaded.merge(name, LwwRecord.decode(row))
    for (const each of [map, loaded]) {
      assert.deepStrictEqual(Array.from(each.keys()), hostileNames)
      hostileNames.forEach((name, i) => {
        const [text, object] = each.getValues(name)
        assert.strictEqual(text, name)
        assert.deepStrictEqual(Object.entries(object as object), Object.entries(objects[i]!))
        assert.strictEqual(Object.getPrototypeOf(object), Object.prototype)
        assert.strictEqual(each.remove(name, bytes(objects[i])).length, 1)
      })
      assert.isFalse(each.has("valueOf"))
    }
    assert.deepStrictEqual(prototypes.map((each) => Reflect.ownKeys(each)), before)
  })

  it.prop(
    "comes back from its encoded records as it was, in whatever order they are loaded",
    [
      fc.array(fc.tuple(key, record), { maxLength: 20 }).chain((facts) =>
        fc.record({ facts: fc.constant(facts), order: fc.shuffledSubarray(facts, { minLength: facts.length }) })
      )
    ],
    ([{ facts, order }]) => {
      const map = mapOf(facts)
      const loaded = mapOf(order.map(([name, { row }]): Fact => [name, LwwRecord.decode(row)]))
      assert.strictEqual(loaded.digest, map.digest)
      for (const name of names) {
        assert.deepStrictEqual(loaded.getValues(name), map.getValues(name))
        assert.deepStrictEqual(
          loaded.getRecords(name).map(({ row }) => Array.from(row)),
          map.getRecords(name).map(({ row }) => Array.from(row))
        )
      }
    }
  )

  it.prop(
    "is as it was after rows that can't be decoded",
    [closeRecord, fc.nat(30), fc.nat(255), fc.nat(40)],
    ([row, index, byte, length]) => {
      const map = mapOf([["k", LwwRecord.put(at(1), bytes(1))]])
      const { digest } = map
      const hostile = row.row.slice(0, length)
      if (index < hostile.length) hostile[index] = byte
      let decoded: Row
      try {
        decoded = LwwRecord.decode(hostile)
      } catch (fault) {
        assert.instanceOf(fault, MalformedMessage)
        assert.strictEqual(map.digest, digest)
        return
      }
      map.merge("k", decoded)
      assert.strictEqual(map.digest, mapOf(Array.from(map.records())).digest)
    }
  )

  it("refuses a key without a hash before anything changes", () => {
    const map = newMap()
    assert.throws(() => map.merge("\ud800", LwwRecord.put(at(1), bytes(1))), TypeError)
    assert.strictEqual(map.recordCount, 0)
    assert.deepStrictEqual(Array.from(map.records()), [])
  })
})
