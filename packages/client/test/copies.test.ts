import { describe, it } from "@effect/vitest"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import { inWorld, isSettled, nodeIdOf, remembering } from "./worlds.ts"

/** A device that was in step once, and is offline. */
const original = Effect.gen(function*() {
  const clock = yield* VirtualClock.VirtualClock
  const server = yield* World.startServer()
  const storage = remembering()
  const client = yield* World.startClient("a device", {}, storage.device)
  const map = yield* client.map<unknown>("m")
  const tags = yield* client.orMap<string>("tags")
  const likes = yield* client.counter("likes")
  yield* map.set("k", 0)
  yield* tags.add("k", "shared")
  yield* likes.increment(1)
  yield* clock.runUntil(() => isSettled(client))
  yield* clock.advance("1 second")
  yield* client.disconnect
  return { clock, server, storage, client, map, tags, likes }
})

describe("a copy of a device's storage", () => {
  it.live("becomes a device of its own, and nothing that either wrote is lost", () =>
    Effect.gen(function*() {
      const { client: former, clock, server, storage: formerStorage } = yield* original
      yield* former.close
      const storage = yield* formerStorage.copy()
      const twin = yield* formerStorage.copy()
      const client = yield* World.startClient("a device", { autoConnect: false }, storage.device)
      const map = yield* client.map<unknown>("m")
      const tags = yield* client.orMap<string>("tags")
      const likes = yield* client.counter("likes")
      const faults: Array<unknown> = []
      const copy = yield* World.startClient("a device", {
        autoConnect: false,
        onError: (fault) => void faults.push(fault)
      }, twin.device)
      const theirs = yield* copy.map<unknown>("m")
      const theirTags = yield* copy.orMap<string>("tags")
      const theirLikes = yield* copy.counter("likes")
      const seen: Array<unknown> = []
      theirs.subscribe((changes) => void seen.push(...changes))
      // In the same millisecond, by the same name: with the same stamps.
      yield* tags.add("k", "of the original")
      yield* theirTags.add("k", "of the copy")
      yield* map.set("original", 1)
      yield* theirs.set("copy", 1)
      yield* likes.increment(10)
      yield* theirLikes.increment(100)
      yield* theirLikes.decrement(1_000)
      expect(map.getRecord("original")!.stamp).toEqual(theirs.getRecord("copy")!.stamp)
      const before = seen.length

      yield* client.connect
      yield* clock.runUntil(() => isSettled(client))
      yield* copy.connect
      yield* clock.runUntil(() => isSettled(copy) && isSettled(client))
      yield* clock.advance("1 minute")
      expect(faults).toMatchObject([{ _tag: "NodeIdConflict" }])
      expect(yield* nodeIdOf(twin.device)).not.toBe(yield* nodeIdOf(storage.device))
      for (const each of [map, theirs]) expect(Object.fromEntries(each)).toEqual({ k: 0, original: 1, copy: 1 })
      for (const each of [tags, theirTags]) {
        expect([...each.getValues("k")].sort()).toEqual(["of the copy", "of the original", "shared"])
      }
      for (const each of [likes, theirLikes]) expect(each.current).toBe(1 + 10 + 100 - 1_000)
      expect([map.digest, tags.digest, likes.digest]).toEqual([theirs.digest, theirTags.digest, theirLikes.digest])
      expect((yield* server.status).maps.map(({ root }) => root).sort())
        .toEqual([map.digest, tags.digest, likes.digest].sort())
      // Its own stayed as it was all along.
      expect(seen.slice(before).every((change) => (change as { origin: string }).origin === "remote")).toBe(true)
      expect(client.status.current).toMatchObject({ rejected: 0 })
      expect(copy.status.current).toMatchObject({ rejected: 0 })
    }).pipe(Effect.scoped, inWorld()))

  it.live("that runs beside its original from the start is told from it", () =>
    Effect.gen(function*() {
      const { client, clock, likes, storage } = yield* original
      const twin = yield* storage.copy()
      const copy = yield* World.startClient("a device", {}, twin.device)
      const theirLikes = yield* copy.counter("likes")
      yield* client.connect
      for (let n = 0; n < 20; n++) {
        yield* likes.increment()
        yield* theirLikes.increment()
        yield* clock.advance("3 seconds")
      }
      yield* clock.runUntil(() => isSettled(copy) && isSettled(client))
      yield* clock.advance("1 minute")
      expect(yield* nodeIdOf(twin.device)).not.toBe(yield* nodeIdOf(storage.device))
      expect([likes.current, theirLikes.current]).toEqual([41, 41])
    }).pipe(Effect.scoped, inWorld()))

  it.live("writes what it had waiting with its times: over nothing that the original wrote later", () =>
    Effect.gen(function*() {
      const { client, clock, map, storage, tags } = yield* original
      yield* map.set("k", "waiting")
      yield* tags.add("k", "waiting")
      yield* tags.remove("k", "shared")
      const twin = yield* storage.copy()
      yield* clock.advance("1 second")
      yield* map.set("k", "later")
      yield* client.connect
      yield* clock.runUntil(() => isSettled(client))

      const copy = yield* World.startClient("a device", {}, twin.device)
      const theirs = yield* copy.map<unknown>("m")
      const theirTags = yield* copy.orMap<string>("tags")
      yield* clock.runUntil(() => isSettled(copy))
      yield* clock.advance("1 second")
      expect([map.get("k"), theirs.get("k")]).toEqual(["later", "later"])
      expect([tags.getValues("k"), theirTags.getValues("k")]).toEqual([["waiting"], ["waiting"]])
      expect(yield* nodeIdOf(twin.device)).not.toBe(yield* nodeIdOf(storage.device))
    }).pipe(Effect.scoped, inWorld()))

  it.live("after a crash at any transaction is the one or the other, with all that it wrote", () =>
    Effect.gen(function*() {
      const { client, clock, likes, storage, tags } = yield* original
      const twin = yield* storage.copy()
      yield* client.connect
      yield* clock.runUntil(() => isSettled(client))
      const copy = yield* World.startClient("a device", { autoConnect: false }, twin.device)
      const theirs = yield* copy.map<unknown>("m")
      yield* theirs.set("copy", 1)
      yield* (yield* copy.orMap<string>("tags")).add("k", "of the copy")
      yield* (yield* copy.counter("likes")).increment(10)
      const from = twin.commits()
      yield* copy.connect
      yield* clock.runUntil(() => isSettled(copy))
      yield* clock.advance("1 second")
      yield* copy.close
      for (let at = from; at <= twin.commits(); at++) {
        const crashed = yield* twin.copy(at)
        const again = yield* World.startClient("a device", { autoConnect: false }, crashed.device)
        expect((yield* again.map<unknown>("m")).get("copy"), `after ${at}`).toBe(1)
        expect((yield* again.orMap<string>("tags")).getValues("k"), `after ${at}`).toContain("of the copy")
        expect((yield* again.counter("likes")).current, `after ${at}`).toBe(11)
        yield* again.close
      }
      expect(twin.commits()).toBeGreaterThan(from + 1)
      expect([likes.current, tags.getValues("k").length]).toEqual([11, 2])
    }).pipe(Effect.scoped, inWorld()))
})

describe("a device that can't store its secret", () => {
  it.live("keeps its name, however often it connects", () =>
    Effect.gen(function*() {
      const { client, clock, storage } = yield* original
      const name = yield* nodeIdOf(storage.device)
      yield* client.close
      const kept = yield* storage.copy()
      let fails = false
      const faults: Array<unknown> = []
      const device = {
        ...kept.device,
        commit: (writes: Parameters<typeof kept.device.commit>[0]) =>
          fails ? Promise.reject(new Error("the disk is full")) : kept.device.commit(writes)
      }
      const again = yield* World.startClient("a device", { onError: (fault) => void faults.push(fault) }, device)
      fails = true
      for (let n = 0; n < 3; n++) {
        yield* clock.runUntil(() => again.status.current.state === "CONNECTED")
        yield* again.resetConnection
      }
      fails = false
      yield* clock.runUntil(() => again.status.current.storage.fault === undefined)
      const theirs = yield* again.map<unknown>("m")
      yield* theirs.set("k", 1)
      yield* clock.runUntil(() => isSettled(again))
      expect(yield* nodeIdOf(kept.device)).toBe(name)
      expect(faults).not.toContainEqual(expect.objectContaining({ _tag: "NodeIdConflict" }))
      expect(theirs.getRecord("k")?.nodeId).toBe(name)
    }).pipe(Effect.scoped, inWorld()))

  it.live("keeps it over a restart of the server, too", () =>
    Effect.gen(function*() {
      const { client, clock, server, storage } = yield* original
      const name = yield* nodeIdOf(storage.device)
      yield* server.stop
      yield* World.startServer()
      yield* client.connect
      yield* clock.runUntil(() => isSettled(client))
      yield* client.resetConnection
      yield* clock.runUntil(() => isSettled(client))
      expect(yield* nodeIdOf(storage.device)).toBe(name)
    }).pipe(Effect.scoped, inWorld()))
})
