import { describe, it } from "@effect/vitest"
import type * as ClientConfig from "@topgun/client/ClientConfig"
import * as Protocol from "@topgun/core/Protocol"
import type { ServerConnection } from "@topgun/core/Transport"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import { inWorld, isSettled, remembering } from "./worlds.ts"

/** A server that all but one node have to show a mark of this run, where they have anything of a map: else they take it over anew. */
const forgetful = (trusted: string, asked: { times: number }) => (connection: ServerConnection): ServerConnection => {
  let isTrusted = false
  let run = ""
  const isRefused = (message: Protocol.ClientMessage): message is typeof Protocol.SyncInit.Type =>
    message._tag === "SyncInit" && !isTrusted && message.root.some((byte) => byte !== 0) && message.cursor?.[0] !== run
  return {
    ...connection,
    send: (frame) => {
      for (const message of Protocol.decodeFromServer(frame)) if (message._tag === "AuthAck") run = message.run
      connection.send(frame)
    },
    listen: (onFrame, onClosed) =>
      connection.listen((frame) => {
        const passed: Array<Protocol.ClientMessage> = []
        for (const message of Protocol.decodeFromClient(frame)) {
          if (message._tag === "Auth") isTrusted = message.nodeId === trusted
          if (!isRefused(message)) {
            passed.push(message)
            continue
          }
          asked.times++
          const { id } = message
          connection.send(Protocol.encode({ _tag: "Fault", id, cause: "ResyncRequired", reason: "away for too long" }))
        }
        if (passed.length > 0) onFrame(Protocol.frame(passed.map(Protocol.encode)))
      }, onClosed)
  }
}

/**
 * Alice was away for so long that the server has forgotten what was deleted meanwhile: `gone` of each map. Bob has brought what
 * it knows. Alice has writes waiting.
 */
const away = Effect.fnUntraced(function*(options: ClientConfig.Options = {}) {
  const clock = yield* VirtualClock.VirtualClock
  const network = yield* Network.SimulatedNetwork
  const before = yield* World.startServer()
  const storage = remembering()
  const alice = yield* World.startClient("alice", options, storage.device)
  const bob = yield* World.startClient("bob")
  const maps = { hers: yield* alice.map<unknown>("m"), his: yield* bob.map<unknown>("m") }
  const tags = { hers: yield* alice.orMap<string>("tags"), his: yield* bob.orMap<string>("tags") }
  const likes = { hers: yield* alice.counter("likes"), his: yield* bob.counter("likes") }
  yield* maps.hers.set("kept", 1)
  yield* maps.hers.set("overwritten", 1)
  yield* tags.hers.add("k", "kept")
  yield* likes.his.increment(10)
  yield* maps.his.set("his", 1)
  yield* clock.runUntil(() => isSettled(alice) && isSettled(bob))
  yield* clock.advance("1 second")
  yield* bob.disconnect
  yield* maps.hers.set("gone", 1)
  yield* maps.hers.set("gone, and written again", 1)
  yield* tags.hers.add("k", "gone")
  yield* clock.runUntil(() => isSettled(alice))
  yield* alice.disconnect
  yield* before.stop
  const asked = { times: 0 }
  const server = yield* World.startServer({}, forgetful(maps.his.getRecord("his")!.nodeId, asked))
  yield* bob.connect
  yield* clock.runUntil(() => isSettled(bob))
  yield* maps.his.set("overwritten", 2)
  yield* maps.his.set("new", 1)
  yield* clock.runUntil(() => isSettled(bob))
  yield* maps.hers.set("gone, and written again", 2)
  yield* maps.hers.set("waiting", 1)
  yield* maps.hers.remove("kept")
  yield* tags.hers.add("k", "waiting")
  yield* likes.hers.increment(100)
  return { clock, network, server, storage, alice, bob, maps, tags, likes, asked }
})

type Away = Effect.Effect.Success<ReturnType<typeof away>>

const expected = { his: 1, overwritten: 2, new: 1, "gone, and written again": 2, waiting: 1 }

/** Everybody has what there is, and nothing of what is gone. */
const expectEqual = Effect.fnUntraced(
  function*({ likes, maps, server, tags }: Pick<Away, "likes" | "maps" | "server" | "tags">) {
    for (const map of [maps.hers, maps.his]) expect(Object.fromEntries(map)).toEqual(expected)
    for (const map of [tags.hers, tags.his]) expect([...map.getValues("k")].sort()).toEqual(["kept", "waiting"])
    for (const counter of [likes.hers, likes.his]) expect(counter.current).toBe(110)
    const roots = [maps.hers.digest, tags.hers.digest, likes.hers.digest].sort()
    expect([maps.his.digest, tags.his.digest, likes.his.digest].sort()).toEqual(roots)
    expect((yield* server.status).maps.map(({ root }) => root).sort()).toEqual(roots)
  }
)

describe("a device that was away for longer than deletions are remembered", () => {
  it.live("takes its maps over anew, and keeps what it hasn't sent", () =>
    Effect.gen(function*() {
      const faults: Array<unknown> = []
      const world = yield* away({ onError: (fault) => void faults.push(fault) })
      const { alice, bob, clock } = world
      yield* alice.connect
      yield* clock.runUntil(() => isSettled(alice) && isSettled(bob))
      yield* clock.advance("1 second")
      yield* expectEqual(world)
      expect(world.asked.times).toBe(3)
      expect(faults).toMatchObject(["m", "tags", "likes"].map((map) => ({ _tag: "ResyncRequired", map })))
      expect(alice.status.current).toMatchObject({ rejected: 0, pending: 0 })
    }).pipe(Effect.scoped, inWorld()))

  it.live("shows no reader an empty map meanwhile, nor anything older, and tells listeners what goes", () =>
    Effect.gen(function*() {
      const world = yield* away()
      const { alice, clock, maps: { hers }, tags } = world
      const shadow = new Map<string, unknown>(hers)
      const seen: Array<unknown> = []
      hers.subscribe((changes) => {
        for (const { key, value } of changes) {
          if (value === undefined) shadow.delete(key)
          else shadow.set(key, value)
        }
        seen.push([shadow.get("gone, and written again"), shadow.get("waiting"), shadow.has("overwritten")])
      })
      const seenTags: Array<ReadonlyArray<string>> = []
      tags.hers.subscribe(() => seenTags.push(tags.hers.getValues("k")))
      yield* alice.connect
      yield* clock.runUntil(() => isSettled(alice))
      yield* clock.advance("1 second")
      yield* expectEqual(world)
      expect(Object.fromEntries(shadow)).toEqual(expected)
      expect(seen.length).toBeGreaterThan(1)
      expect(seen).toEqual(seen.map(() => [2, 1, true]))
      expect(seenTags).toEqual([["kept", "waiting"]])
      expect(Object.fromEntries(hers)).toEqual(expected)
    }).pipe(Effect.scoped, inWorld()))

  it.live("loses nothing when it is cut off after any message of that", () =>
    Effect.gen(function*() {
      for (let frames = 1; frames < 200; frames++) {
        const whole = yield* Effect.gen(function*() {
          const world = yield* away()
          const { alice, bob, clock, network } = world
          const sent = () => {
            const { toClient, toServer } = network.traffic("alice", World.serverAddress)
            return toClient.framesDelivered + toServer.framesDelivered
          }
          const from = sent()
          yield* alice.connect
          yield* clock.runUntil(() => sent() - from >= frames || isSettled(alice))
          const isWhole = isSettled(alice)
          network.reset("alice")
          yield* clock.runUntil(() => isSettled(alice) && isSettled(bob))
          yield* clock.advance("1 second")
          yield* expectEqual(world)
          return isWhole
        }).pipe(Effect.scoped, inWorld(frames))
        if (whole) return expect(frames).toBeGreaterThan(5)
      }
      expect.fail("it was never done with it")
    }))

  it.live("loses nothing when it crashes after any transaction of that", () =>
    Effect.gen(function*() {
      for (let crash = 0; crash < 100; crash++) {
        const whole = yield* Effect.gen(function*() {
          const world = yield* away()
          const { alice, bob, clock, likes, maps, storage, tags } = world
          const from = storage.commits()
          yield* alice.connect
          yield* clock.runUntil(() => storage.commits() - from >= crash || isSettled(alice))
          const isWhole = isSettled(alice)
          const crashed = yield* storage.copy()
          yield* alice.disconnect
          yield* alice.close
          const again = yield* World.startClient("alice", {}, crashed.device)
          const hers = yield* again.map<unknown>("m")
          expect([hers.get("waiting"), hers.get("gone, and written again"), hers.has("kept")]).toEqual([1, 2, false])
          const here = {
            server: world.server,
            maps: { hers, his: maps.his },
            tags: { hers: yield* again.orMap<string>("tags"), his: tags.his },
            likes: { hers: yield* again.counter("likes"), his: likes.his }
          }
          yield* clock.runUntil(() => isSettled(again) && isSettled(bob))
          yield* clock.advance("1 second")
          yield* expectEqual(here)
          return isWhole
        }).pipe(Effect.scoped, inWorld(crash + 1))
        if (whole) return expect(crash).toBeGreaterThan(2)
      }
      expect.fail("it was never done with it")
    }))
})
