import { describe, it } from "@effect/vitest"
import * as Protocol from "@topgun/core/Protocol"
import type { ServerConnection } from "@topgun/core/Transport"
import * as Value from "@topgun/core/Value"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import { PCGRandom } from "effect/Utils"
import { expect } from "vitest"
import { inWorld, isSettled, remembering } from "./worlds.ts"

/** Takes down what kinds of messages clients send about maps. */
const listening = (heard: Array<string>) => (connection: ServerConnection): ServerConnection => ({
  ...connection,
  listen: (onFrame, onClosed) =>
    connection.listen((frame) => {
      for (const { _tag } of Protocol.decodeFromClient(frame)) if (_tag.startsWith("Sync")) heard.push(_tag)
      onFrame(frame)
    }, onClosed)
})

/** Alice and Bob have the same 200 records, and Alice is gone. */
const apart = Effect.gen(function*() {
  const clock = yield* VirtualClock.VirtualClock
  const heard: Array<string> = []
  const server = yield* World.startServer({}, listening(heard))
  const storage = remembering()
  const alice = yield* World.startClient("alice", {}, storage.device)
  const bob = yield* World.startClient("bob")
  const hers = yield* alice.map<number>("m")
  const his = yield* bob.map<number>("m")
  yield* Effect.forEach(Array.from({ length: 200 }, (_, n) => n), (n) => his.set(`k${n}`, n), { concurrency: 200 })
  yield* clock.runUntil(() => isSettled(alice) && isSettled(bob))
  yield* clock.advance("1 second")
  yield* alice.disconnect
  heard.length = 0
  return { clock, heard, server, storage, alice, bob, hers, his }
})

describe("a device that was away shortly", () => {
  it.live("asks one question a map, and gets the changes of others with the answer", () =>
    Effect.gen(function*() {
      const { alice, bob, clock, heard, hers, his, server } = yield* apart
      for (let n = 0; n < 50; n++) yield* his.set(`k${n}`, 1_000)
      yield* his.remove("k100")
      yield* hers.set("mine", 1)
      yield* clock.runUntil(() => isSettled(bob))
      yield* alice.connect
      yield* clock.runUntil(() => isSettled(alice))
      expect(heard).toEqual(["SyncInit"])
      yield* clock.advance("1 second")
      yield* alice.disconnect
      yield* alice.connect
      yield* clock.runUntil(() => isSettled(alice))
      expect(heard).toEqual(["SyncInit", "SyncInit"])
      expect([hers.get("k49"), hers.has("k100"), his.get("mine")]).toEqual([1_000, false, 1])
      expect(hers.digest).toBe(his.digest)
      expect((yield* server.status).maps[0]?.root).toBe(hers.digest)
    }).pipe(Effect.scoped, inWorld()))

  it.live("does so after a restart of its own, and walks the tree after one of the server's", () =>
    Effect.gen(function*() {
      const { alice, bob, clock, heard, his, server, storage } = yield* apart
      yield* alice.close
      for (let n = 0; n < 50; n++) yield* his.set(`k${n}`, 1_000)
      yield* clock.runUntil(() => isSettled(bob))
      const again = yield* World.startClient("alice", {}, storage.device)
      const hers = yield* again.map<number>("m")
      expect(again.status.current.hasSynced).toBe(true)
      yield* clock.runUntil(() => isSettled(again))
      expect(heard).toEqual(["SyncInit"])
      expect(hers.digest).toBe(his.digest)

      yield* again.disconnect
      yield* server.stop
      const next: Array<string> = []
      yield* World.startServer({}, listening(next))
      yield* clock.runUntil(() => isSettled(bob))
      yield* his.set("k0", 3)
      yield* clock.runUntil(() => isSettled(bob))
      next.length = 0
      yield* again.connect
      yield* clock.runUntil(() => isSettled(again))
      expect(next).toContain("SyncBuckets")
      expect(hers.digest).toBe(his.digest)
    }).pipe(Effect.scoped, inWorld()))

  it.live("is none the worse for a mark that lies", () =>
    Effect.gen(function*() {
      const { alice, bob, clock, heard, his, storage } = yield* apart
      yield* alice.close
      const [mark] = yield* Effect.promise(() => storage.device.scan("marks", undefined, 10))
      const [run, sequence] = Value.decode(mark!.value) as [string, number]
      for (let n = 0; n < 10; n++) yield* his.set(`k${n}`, 1_000)
      yield* clock.runUntil(() => isSettled(bob))
      const value = Value.encode([run, sequence + 5])
      yield* Effect.promise(() => storage.device.commit([{ space: "marks", key: "m", value }]))
      const again = yield* World.startClient("alice", {}, storage.device)
      const hers = yield* again.map<number>("m")
      yield* clock.runUntil(() => isSettled(again))
      expect(heard.slice(0, 2)).toEqual(["SyncInit", "SyncInit"])
      expect(heard).toContain("SyncBuckets")
      expect(hers.get("k0")).toBe(1_000)
      expect(hers.digest).toBe(his.digest)
    }).pipe(Effect.scoped, inWorld()))
})

describe("a mark", () => {
  it.live("in storage says nothing that isn't there, whatever happens when, in 20 seeded runs", () =>
    Effect.gen(function*() {
      let marks = 0
      for (let seed = 1; seed <= 20; seed++) {
        yield* Effect.gen(function*() {
          const random = new PCGRandom(seed)
          const clock = yield* VirtualClock.VirtualClock
          yield* World.startServer()
          const storage = remembering()
          const alice = yield* World.startClient("alice", { autoConnect: false }, storage.device)
          const bob = yield* World.startClient("bob")
          yield* alice.map<number>("m")
          const his = yield* bob.map<number>("m")
          // The n-th change of the server's only map is that of the n-th key.
          for (let n = 1; n <= 60; n++) {
            yield* his.set(`k${n}`, n)
            if (random.integer(3) === 0) yield* clock.advance(random.integer(300))
            if (random.integer(8) === 0) yield* alice.disconnect
            if (random.integer(4) === 0) yield* alice.connect
          }
          yield* alice.connect
          yield* clock.runUntil(() => isSettled(alice) && isSettled(bob))
          yield* clock.advance("1 second")
          let last = 0
          for (let at = 0; at <= storage.commits(); at++) {
            const { device } = yield* storage.copy(at)
            const rows = (space: string) => Effect.promise(() => device.scan(space, undefined, 1_000))
            const [mark] = yield* rows("marks")
            if (mark === undefined) continue
            const [, sequence] = Value.decode(mark.value) as [string, number]
            expect(sequence, `seed ${seed}, transaction ${at}`).toBeGreaterThanOrEqual(last)
            last = sequence
            const keys = new Set((yield* rows("records/m")).map(({ key }) => key))
            for (let n = 1; n <= sequence; n++) expect(keys, `seed ${seed}, transaction ${at}`).toContain(`k${n}`)
            marks++
          }
          expect(last, `seed ${seed}`).toBe(60)
        }).pipe(Effect.scoped, inWorld(seed))
      }
      expect(marks).toBeGreaterThan(200)
    }))
})
