/** Many records to a row of storage: whatever is stored, and whenever it ends, what is read is what was there. */
import { assert, describe, it } from "@effect/vitest"
import { Packs } from "@topgun/client/Packs"
import { LwwMap } from "@topgun/core/LwwMap"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as Storage from "@topgun/core/Storage"
import * as Value from "@topgun/core/Value"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import { connected, inWorld, isSettled, remembering } from "./worlds.ts"

/** 271 partitions of some 40 records. */
const count = 10_000

const rowsOf = (device: Storage.StorageAdapter, space: string) =>
  Effect.promise(() => device.scan(space, undefined, 100_000))

/** A server with many records, and a device that has them all. */
const filled = Effect.fnUntraced(function*(records: number, device: Storage.StorageAdapter = Storage.memory()) {
  const { clock, client, network, server } = yield* connected()
  const there = yield* client.map<number>("m")
  for (let i = 0; i < records; i++) yield* Effect.fork(there.set(`k${i}`, i))
  yield* clock.runUntil(() => isSettled(client))
  const bob = yield* World.startClient("bob", {}, device)
  const here = yield* bob.map<number>("m")
  yield* clock.runUntil(() => isSettled(bob) && here.size === records)
  yield* clock.settle
  return { clock, network, server, alice: client, there, bob, here, device }
})

/** A key of a partition. */
const keyIn = (partition: number): string => {
  const cells = new LwwMap({ now: () => 0 })
  for (let i = 0;; i++) if (cells.partitionOf(`k${i}`) === partition) return `k${i}`
}

const contentOf = (map: Iterable<readonly [string, unknown]>): Record<string, unknown> => Object.fromEntries(map)

describe("a map of many records", () => {
  it.live("takes a row for each partition, and is read back from them", () =>
    Effect.gen(function*() {
      const { bob, device, here } = yield* filled(count)
      const packs = yield* rowsOf(device, "packs/m")
      assert.strictEqual(packs.length, 271)
      assert.isBelow((yield* rowsOf(device, "records/m")).length, count / 20)
      const { digest } = here
      yield* bob.close
      const again = yield* World.startClient("bob", { autoConnect: false }, device)
      const map = yield* again.map<number>("m")
      assert.strictEqual(map.size, count)
      assert.strictEqual(map.digest, digest)
      assert.strictEqual(map.get("k77"), 77)
      assert.strictEqual(again.status.current.pending, 0)
    }).pipe(Effect.scoped, inWorld()))

  it.live("takes a row for each change, until a pack is worth making anew", () =>
    Effect.gen(function*() {
      const { alice, bob, clock, device, there } = yield* filled(count)
      const before = new Map((yield* rowsOf(device, "packs/m")).map(({ key, value }) => [key, value.length]))
      yield* there.set("k1", -1)
      yield* clock.runUntil(() => isSettled(alice))
      yield* clock.advance(100)
      const rows = yield* rowsOf(device, "records/m")
      assert.include(rows.map(({ key }) => key), "k1")
      assert.deepStrictEqual(
        new Map((yield* rowsOf(device, "packs/m")).map(({ key, value }) => [key, value.length])),
        before
      )
      for (let i = 0; i < count; i++) yield* Effect.fork(there.set(`k${i}`, -i))
      yield* clock.runUntil(() => isSettled(alice))
      yield* clock.advance(1_000)
      assert.isBelow((yield* rowsOf(device, "records/m")).length, count / 5)
      yield* bob.close
      const again = yield* World.startClient("bob", { autoConnect: false }, device)
      const map = yield* again.map<number>("m")
      assert.strictEqual(map.digest, there.digest)
      assert.strictEqual(map.get("k9"), -9)
    }).pipe(Effect.scoped, inWorld()))

  it.live("is what it was after a crash at any transaction of storage, whatever was packed, changed, deleted or refused", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const kept = remembering()
      const { alice, bob, here, network, there } = yield* filled(3_000, kept.device)
      const from = kept.commits()
      const states: Array<
        { readonly at: number; readonly content: Record<string, unknown>; readonly pending: number }
      > = []
      for (let round = 0; round < 6; round++) {
        if (round === 2) network.cut("bob")
        if (round === 4) network.heal("bob")
        for (let i = 0; i < 400; i++) {
          const key = `k${yield* Random.nextIntBetween(0, 3_000)}`
          const by = yield* Random.nextIntBetween(0, 10)
          if (by < 5) yield* Effect.fork(there.set(key, round))
          else if (by < 6) yield* Effect.fork(there.remove(key))
          else if (by < 9) yield* Effect.fork(here.set(key, -round))
          else yield* Effect.fork(here.remove(key))
        }
        yield* round < 2 || round > 3 ? clock.runUntil(() => isSettled(alice) && isSettled(bob)) : clock.advance(2_000)
        yield* clock.settle
        states.push({ at: kept.commits(), content: contentOf(here), pending: bob.status.current.pending })
      }
      yield* bob.close
      // At the end of each round, what there was; within one, what can be read, and nothing is unreadable.
      for (const { at, content, pending } of states) {
        const copy = yield* kept.copy(at)
        const faults: Array<unknown> = []
        const again = yield* World.startClient(
          `copy ${at}`,
          { autoConnect: false, onError: (fault) => void faults.push(fault) },
          copy.device,
          "bob"
        )
        assert.deepStrictEqual(contentOf(yield* again.map("m")), content)
        assert.strictEqual(again.status.current.pending, pending)
        assert.deepStrictEqual(faults, [])
        yield* again.close
      }
      const step = Math.ceil((kept.commits() - from) / 40)
      for (let at = from; at < kept.commits(); at += step) {
        const copy = yield* kept.copy(at)
        const again = yield* World.startClient(`copy ${at}`, {}, copy.device, "bob")
        const map = yield* again.map<number>("m")
        yield* clock.runUntil(() => isSettled(again))
        assert.strictEqual(map.digest, there.digest, `after commit ${at}`)
        assert.deepStrictEqual(contentOf(map), contentOf(there))
        yield* again.close
      }
    }).pipe(Effect.scoped, inWorld()))

  it.live("whose packs can't be read is taken from the server again", () =>
    Effect.gen(function*() {
      const { bob, clock, device, there } = yield* filled(count)
      yield* bob.close
      yield* Effect.promise(() => device.open("bob"))
      const packs = yield* rowsOf(device, "packs/m")
      const hostile = [
        Uint8Array.of(0xc1),
        Value.encode(1),
        Value.encode(["k1"]),
        Value.encode(["k1", "row"]),
        new Uint8Array(0)
      ]
      yield* Effect.promise(() =>
        device.commit(packs.slice(0, 5).map(({ key }, i) => ({ space: "packs/m", key, value: hostile[i] })))
      )
      const faults: Array<unknown> = []
      const again = yield* World.startClient("bob", { onError: (fault) => void faults.push(fault) }, device)
      assert.include(String(faults[0]), "5 rows of \"packs/m\" are unreadable")
      const map = yield* again.map<number>("m")
      assert.isBelow(map.size, count)
      yield* clock.runUntil(() => isSettled(again) && map.size === count)
      assert.strictEqual(map.digest, there.digest)
      yield* clock.settle
      yield* again.close
      const third = yield* World.startClient("bob", { autoConnect: false }, device)
      assert.strictEqual((yield* third.map("m")).size, count)
    }).pipe(Effect.scoped, inWorld()))

  it.live("that an earlier version has stored is read, and packed as it changes", () =>
    Effect.gen(function*() {
      const { alice, bob, clock, device, there } = yield* filled(count)
      yield* bob.close
      // As format 1 had it: each record in a row of its own.
      yield* Effect.promise(() => device.open("bob"))
      const packs = yield* rowsOf(device, "packs/m")
      yield* Effect.promise(() =>
        device.commit([
          ...packs.flatMap(({ value }) => {
            const stored = Value.decode(value) as ReadonlyArray<string | Uint8Array>
            return stored.flatMap((cell, i) =>
              i % 2 === 0 ? [{ space: "records/m", key: cell as string, value: stored[i + 1] as Uint8Array }] : []
            )
          }),
          ...packs.map(({ key }) => ({ space: "packs/m", key, value: undefined })),
          { space: "meta", key: "format", value: Value.encode(1) }
        ])
      )
      const again = yield* World.startClient("bob", {}, device)
      const map = yield* again.map<number>("m")
      assert.strictEqual(map.digest, there.digest)
      for (let i = 0; i < 271; i++) yield* Effect.fork(there.set(`k${i}`, -1))
      yield* clock.runUntil(() => isSettled(alice) && isSettled(again) && map.digest === there.digest)
      yield* clock.settle
      assert.isAbove((yield* rowsOf(device, "packs/m")).length, 100)
      assert.deepStrictEqual(
        (yield* rowsOf(device, "meta")).filter(({ key }) => key === "format").map(({ value }) => Value.decode(value)),
        [2]
      )
      yield* again.close
      const third = yield* World.startClient("bob", { autoConnect: false }, device)
      assert.strictEqual((yield* third.map("m")).digest, there.digest)
    }).pipe(Effect.scoped, inWorld()))

  it.live("forgets what is taken back, though it's in its pack", () =>
    Effect.gen(function*() {
      const { bob, clock, device, here, server } = yield* filled(count)
      yield* server.stop
      // Another server, which lost a part of what the one before had, and remembers deletions no longer.
      yield* bob.close
      yield* Effect.promise(() => device.open("bob"))
      const cells = new LwwMap({ now: () => 0 })
      const packs = new Packs(cells, { records: "records/m", packs: "packs/m" })
      yield* Effect.promise(async () => {
        for (const { key } of await device.scan("packs/m", undefined, 1_000)) packs.foundPacked(keyIn(Number(key)))
        // It was reverted away: no record is left of it.
        await device.commit([packs.looseWrite("k7")])
      })
      const again = yield* World.startClient("bob", { autoConnect: false }, device)
      const map = yield* again.map<number>("m")
      assert.isFalse(map.has("k7"))
      assert.strictEqual(map.size, here.size - 1)
      yield* clock.settle
    }).pipe(Effect.scoped, inWorld()))

  it("isn't packed where its records are large, as a change would cost too much", () => {
    const others = { ofCell: () => [], ofBase: () => undefined }
    const packOf = (bytes: number) => {
      const cells = new LwwMap({ now: () => 0 })
      const partition = cells.partitionOf("k")
      const keys = Array.from({ length: 20_000 }, (_, i) => `k${i}`).filter((key) =>
        cells.partitionOf(key) === partition
      )
      for (const [i, key] of keys.slice(0, 20).entries()) {
        const stamp = { millis: i, counter: 0, nodeId: "a".repeat(16) }
        cells.merge(key, LwwRecord.put(stamp, Value.encode(new Uint8Array(bytes))))
      }
      const packs = new Packs(cells, { records: "records", packs: "packs" })
      return packs.pack(partition, new Set(keys.slice(0, 20)), others)
    }
    assert.isUndefined(packOf(20_000))
    assert.strictEqual(packOf(2_000)?.writes.length, 1)
  })
})
