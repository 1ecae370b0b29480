import { assert, describe, it } from "@effect/vitest"
import { Effect, TestClock } from "effect"
import * as CrdtStore from "../src/CrdtStore.ts"
import { MerkleForest } from "../src/MerkleTree.ts"
import { partitionOf } from "../src/Partition.ts"
import * as Value from "../src/Value.ts"
import { nodeIds } from "./arbitraries.ts"

const stamp = { millis: 1, counter: 0, nodeId: nodeIds[1] }

describe("CrdtStore", () => {
  it.effect("makes a map at its first use and has the same one from then on", () =>
    Effect.gen(function*() {
      const store = (yield* CrdtStore.CrdtStore).open()
      assert.isUndefined(store.existing("todos"))
      const map = store.lwwMap("todos")
      assert.strictEqual(store.lwwMap("todos"), map)
      assert.strictEqual(store.existing("todos"), map)
      store.lwwMap("__proto__")
      assert.deepStrictEqual(store.mapNames(), ["todos", "__proto__"])
    }).pipe(Effect.provide(CrdtStore.layer)))

  it.effect("keeps stores apart", () =>
    Effect.gen(function*() {
      const stores = yield* CrdtStore.CrdtStore
      const [one, two] = [stores.open(), stores.open()]
      one.lwwMap("todos").set("k", Value.encode(1), stamp)
      assert.strictEqual(two.lwwMap("todos").size, 0)
    }).pipe(Effect.provide(CrdtStore.layer)))

  it.effect("lets values expire by the Clock", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_000)
      const map = (yield* CrdtStore.CrdtStore).open().lwwMap("sessions")
      map.set("k", Value.encode(1), stamp, 2_000)
      assert.isTrue(map.has("k"))
      yield* TestClock.adjust("1 second")
      assert.isFalse(map.has("k"))
    }).pipe(Effect.provide(CrdtStore.layer)))

  it.effect("digests several stores' maps into one forest where they are given one", () =>
    Effect.gen(function*() {
      const stores = yield* CrdtStore.CrdtStore
      const forest = new MerkleForest()
      const whole = stores.open().lwwMap("todos")
      const parts = [stores.open({ tree: () => forest }), stores.open({ tree: () => forest })]
      for (let i = 0; i < 100; i++) {
        parts[partitionOf(`key ${i}`) % 2]!.lwwMap("todos").set(`key ${i}`, Value.encode(i), stamp)
        whole.set(`key ${i}`, Value.encode(i), stamp)
      }
      assert.strictEqual(forest.getRootHash(), whole.digest)
      const other = parts[1 - partitionOf("key 0") % 2]!.lwwMap("todos")
      assert.throws(() => other.set("key 0", Value.encode(0), stamp), /tree of another map/)
    }).pipe(Effect.provide(CrdtStore.layer)))
})
