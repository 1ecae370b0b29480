import { assert, describe, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import * as Cell from "../src/Cell.ts"
import * as CrdtStore from "../src/CrdtStore.ts"
import { MapKindMismatch } from "../src/GridError.ts"
import * as LwwRecord from "../src/LwwRecord.ts"
import { MerkleForest } from "../src/MerkleTree.ts"
import { partitionOf } from "../src/Partition.ts"
import * as PnCounter from "../src/PnCounter.ts"
import * as Value from "../src/Value.ts"
import { nodeIds } from "./arbitraries.ts"

const kinds = ["lww", "or", "counter"] as const
const stamp = { millis: 1, counter: 0, nodeId: nodeIds[1] }

describe("CrdtStore", () => {
  it.effect("makes a map at its first use and has the same one from then on", () =>
    Effect.gen(function*() {
      const store = (yield* CrdtStore.CrdtStore).open()
      assert.isUndefined(store.existing("todos"))
      const map = store.map("todos", "lww")
      assert.strictEqual(store.map("todos", "lww"), map)
      assert.strictEqual(store.existing("todos"), map)
      store.map("__proto__", "or")
      assert.deepStrictEqual(store.mapNames(), ["todos", "__proto__"])
    }).pipe(Effect.provide(CrdtStore.layer)))

  it.effect("keeps a map of the kind that it was first used as, and changes nothing when it's asked for as another", () =>
    Effect.gen(function*() {
      const store = (yield* CrdtStore.CrdtStore).open()
      for (const kind of kinds) {
        const map = store.map(kind, kind)
        assert.strictEqual(map.kind, kind)
        for (const other of kinds) {
          if (other === kind) continue
          try {
            store.map(kind, other)
            assert.fail(`${kind} was given out as ${other}`)
          } catch (fault) {
            assert.instanceOf(fault, MapKindMismatch)
            assert.deepStrictEqual([fault.map, fault.expected, fault.actual], [kind, kind, other])
            assert.strictEqual(fault.code, "TG_MAP_KIND_MISMATCH")
          }
        }
        assert.strictEqual(store.existing(kind), map)
      }
      assert.deepStrictEqual(store.mapNames(), kinds)
    }).pipe(Effect.provide(CrdtStore.layer)))

  it.effect("shows of a map's cells what its kind makes of them, and counts the keys that have a value", () =>
    Effect.gen(function*() {
      const store = (yield* CrdtStore.CrdtStore).open()
      const [lww, tags, counter] = [store.map("lww", "lww"), store.map("tags", "or"), store.map("hits", "counter")]
      const sizes = () => [lww, tags, counter].map(CrdtStore.sizeOf)
      assert.deepStrictEqual(sizes(), [0, 0, 0])
      const records = [
        LwwRecord.put(stamp, Value.encode("x")),
        LwwRecord.put({ ...stamp, counter: 1 }, Value.encode("y"))
      ]
      for (const record of records) {
        lww.cells.merge(Cell.cellOf("lww", "k", record), record)
        tags.cells.merge(Cell.cellOf("or", "k", record), record)
      }
      for (const nodeId of nodeIds) {
        const totals = PnCounter.totals(nodeId, 3, 1)
        counter.cells.merge(Cell.cellOf("counter", "hits", totals), totals)
      }
      assert.deepStrictEqual(sizes(), [1, 1, 1])
      assert.deepStrictEqual([lww, tags, counter].map(({ cells }) => cells.recordCount), [1, 2, 4])
      assert.strictEqual(lww.cells.get("k"), "y")
      assert.deepStrictEqual(tags.kind === "or" ? tags.orMap.getValues("k") : undefined, ["x", "y"])
      assert.strictEqual(counter.kind === "counter" ? counter.counter.value : undefined, 8)
      lww.cells.remove("k", { ...stamp, millis: 2 })
      for (const { stamp: tag } of records) {
        tags.cells.merge(Cell.cellOf("or", "k", LwwRecord.remove(tag)), LwwRecord.remove(tag))
      }
      assert.deepStrictEqual(sizes(), [0, 0, 1])
    }).pipe(Effect.provide(CrdtStore.layer)))

  it.effect("digests all cells of a key into its partition's tree, in every kind", () =>
    Effect.gen(function*() {
      const forest = new MerkleForest()
      const store = (yield* CrdtStore.CrdtStore).open({ tree: () => forest })
      const { cells } = store.map("tags", "or")
      for (const [i, nodeId] of nodeIds.entries()) {
        const record = LwwRecord.put({ ...stamp, nodeId }, Value.encode(i))
        cells.merge(Cell.cellOf("or", "key 0", record), record)
      }
      assert.deepStrictEqual([forest.size, forest.tree(partitionOf("key 0"))?.size], [4, 4])
    }).pipe(Effect.provide(CrdtStore.layer)))

  it.effect("keeps stores apart", () =>
    Effect.gen(function*() {
      const stores = yield* CrdtStore.CrdtStore
      const [one, two] = [stores.open(), stores.open()]
      one.map("todos", "lww").cells.set("k", Value.encode(1), stamp)
      assert.strictEqual(two.map("todos", "lww").cells.size, 0)
    }).pipe(Effect.provide(CrdtStore.layer)))

  it.effect("lets values expire by the Clock", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_000)
      const map = (yield* CrdtStore.CrdtStore).open().map("sessions", "lww").cells
      map.set("k", Value.encode(1), stamp, 2_000)
      assert.isTrue(map.has("k"))
      yield* TestClock.adjust("1 second")
      assert.isFalse(map.has("k"))
    }).pipe(Effect.provide(CrdtStore.layer)))

  it.effect("digests several stores' maps into one forest where they are given one", () =>
    Effect.gen(function*() {
      const stores = yield* CrdtStore.CrdtStore
      const forest = new MerkleForest()
      const whole = stores.open().map("todos", "lww").cells
      const parts = [stores.open({ tree: () => forest }), stores.open({ tree: () => forest })]
      for (let i = 0; i < 100; i++) {
        parts[partitionOf(`key ${i}`) % 2]!.map("todos", "lww").cells.set(`key ${i}`, Value.encode(i), stamp)
        whole.set(`key ${i}`, Value.encode(i), stamp)
      }
      assert.strictEqual(forest.getRootHash(), whole.digest)
      const other = parts[1 - partitionOf("key 0") % 2]!.map("todos", "lww").cells
      assert.throws(() => other.set("key 0", Value.encode(0), stamp), /tree of another map/)
    }).pipe(Effect.provide(CrdtStore.layer)))
})
