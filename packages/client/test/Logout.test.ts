import { describe, it } from "@effect/vitest"
import * as Storage from "@topgun/core/Storage"
import type * as ClientConfig from "@topgun/client/ClientConfig"
import { spaces } from "@topgun/client/Journal"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { expect } from "vitest"
import { faultOf, fragile, inWorld, isSettled, remembering } from "./worlds.ts"

const { bases, records } = spaces
const allSpaces = [spaces.meta, spaces.maps, spaces.marks, spaces.outbox, spaces.rejected, records("m"), bases("m")]

/** The rows of a device's storage, by space. */
const rowsOf = Effect.fnUntraced(function*(device: Storage.StorageAdapter) {
  const rows: Record<string, ReadonlyArray<string>> = {}
  for (const space of [...allSpaces, records("tags"), bases("tags"), records("likes"), bases("likes")]) {
    const found = yield* Effect.promise(() => device.scan(space, undefined, 1_000))
    if (found.length > 0) rows[space] = found.map(({ key }) => key)
  }
  return rows
})

/** A device with something in each of its spaces, in step but for what it writes after that. */
const used = Effect.fnUntraced(function*(
  device: Storage.StorageAdapter = Storage.memory(),
  options: ClientConfig.Options = {}
) {
  const clock = yield* VirtualClock.VirtualClock
  const network = yield* Network.SimulatedNetwork
  const server = yield* World.startServer()
  const client = yield* World.startClient("alice", options, device)
  const map = yield* client.map<number>("m")
  yield* map.set("k", 1)
  yield* (yield* client.orMap<string>("tags")).add("k", "v")
  yield* (yield* client.counter("likes")).increment()
  yield* clock.runUntil(() => isSettled(client))
  return { clock, network, server, client, map, device }
})

describe("logging out", () => {
  it.live("deletes all that the device has, and closes the client; the server keeps it", () =>
    Effect.gen(function*() {
      const { client, device, map, server } = yield* used()
      expect(Object.keys(yield* rowsOf(device)).length).toBeGreaterThan(4)
      yield* client.logout()
      expect(yield* rowsOf(device)).toEqual({})
      expect(client.status.current).toMatchObject({ state: "DISCONNECTED", pending: 0, rejected: 0 })
      expect(yield* faultOf(map.set("k", 2))).toMatchObject({ _tag: "ClientClosed" })
      expect(() => map.get("k")).toThrow("closed")
      yield* client.connect
      expect(client.status.current.state).toBe("DISCONNECTED")
      expect(yield* faultOf(client.logout())).toMatchObject({ _tag: "ClientClosed" })
      expect((yield* server.status).maps).toHaveLength(3)
      yield* client.close
      expect(yield* rowsOf(device)).toEqual({})
      const next = yield* World.startClient("alice", { autoConnect: false }, device)
      expect((yield* next.map<number>("m")).size).toBe(0)
    }).pipe(Effect.scoped, inWorld()))

  it.live("is refused when something is unsent and nothing was said of it, and nothing has changed", () =>
    Effect.gen(function*() {
      const { client, clock, device, map, network } = yield* used()
      network.cut("alice")
      yield* map.set("k", 2)
      yield* map.set("l", 2)
      const before = yield* rowsOf(device)
      expect(yield* faultOf(client.logout())).toMatchObject({ _tag: "UnsentWrites", pending: 2, rejected: 0 })
      expect(yield* rowsOf(device)).toEqual(before)
      expect(map.get("k")).toBe(2)
      network.heal()
      // It connects again by itself, and goes on.
      yield* map.set("l", 3)
      yield* clock.runUntil(() => isSettled(client))
      yield* client.logout()
      expect(yield* rowsOf(device)).toEqual({})
    }).pipe(Effect.scoped, inWorld()))

  it.live("with flush waits until the server has everything, what is written meanwhile too", () =>
    Effect.gen(function*() {
      const { client, clock, device, map, network, server } = yield* used()
      network.cut("alice")
      yield* map.set("k", 2)
      const done = yield* Effect.fork(client.logout({ unsent: "flush" }))
      yield* clock.advance("1 minute")
      expect(done.unsafePoll()).toBeNull()
      yield* map.set("l", 3)
      network.heal()
      yield* clock.advance("1 minute")
      yield* Fiber.join(done)
      expect(yield* rowsOf(device)).toEqual({})
      const bob = yield* World.startClient("bob")
      const his = yield* bob.map<number>("m")
      yield* clock.runUntil(() => isSettled(bob) && his.size === 2)
      expect(Object.fromEntries(his)).toEqual({ k: 2, l: 3 })
      expect((yield* server.status).connections).toBe(1)
    }).pipe(Effect.scoped, inWorld()))

  it.live("with flush fails when nobody is going to send it", () =>
    Effect.gen(function*() {
      const { client, map } = yield* used()
      yield* client.disconnect
      yield* map.set("k", 2)
      expect(yield* faultOf(client.logout({ unsent: "flush" }))).toMatchObject({ _tag: "UnsentWrites", pending: 1 })
      expect(map.get("k")).toBe(2)
    }).pipe(Effect.scoped, inWorld()))

  it.live("with keep leaves what is unsent, and nothing else; it is sent when the same user is back", () =>
    Effect.gen(function*() {
      const { client, clock, device, map } = yield* used()
      for (let n = 0; n < 20; n++) yield* map.set(`old ${n}`, n)
      yield* clock.runUntil(() => isSettled(client))
      yield* client.disconnect
      yield* map.set("k", 2)
      yield* map.set("new", 1)
      yield* client.logout({ unsent: "keep" })
      const rows = yield* rowsOf(device)
      expect(rows[records("m")]).toEqual(["k", "new"])
      expect(rows[spaces.outbox]).toHaveLength(2)
      expect(rows[spaces.maps]).toBeUndefined()
      expect(rows[spaces.marks]).toBeUndefined()
      yield* client.close
      const again = yield* World.startClient("alice", {}, device)
      const maps = yield* again.map<number>("m")
      expect([maps.get("k"), maps.get("new"), maps.size]).toEqual([2, 1, 2])
      yield* clock.runUntil(() => isSettled(again))
      expect(maps.size).toBe(22)
      expect(maps.get("k")).toBe(2)
    }).pipe(Effect.scoped, inWorld()))

  it.live("with discard deletes what is unsent too", () =>
    Effect.gen(function*() {
      const { client, clock, device, map } = yield* used()
      yield* client.disconnect
      yield* map.set("k", 2)
      yield* client.logout({ unsent: "discard" })
      expect(yield* rowsOf(device)).toEqual({})
      const bob = yield* World.startClient("bob")
      const his = yield* bob.map<number>("m")
      yield* clock.runUntil(() => his.has("k"))
      yield* clock.advance("1 minute")
      expect(his.get("k")).toBe(1)
    }).pipe(Effect.scoped, inWorld()))

  it.live("fails whole where storage fails, and all goes on", () =>
    Effect.gen(function*() {
      const { device, state } = fragile()
      const { client, clock, map } = yield* used(device)
      const before = yield* rowsOf(device)
      state.broken = true
      expect(yield* faultOf(client.logout())).toMatchObject({ _tag: "StorageUnavailable" })
      state.broken = false
      expect(yield* rowsOf(device)).toEqual(before)
      yield* clock.advance("2 seconds")
      yield* map.set("k", 5)
      yield* clock.runUntil(() => isSettled(client))
      yield* client.logout()
      expect(yield* rowsOf(device)).toEqual({})
    }).pipe(Effect.scoped, inWorld()))

  it.live("is one transaction: after a crash all of the user's data is there, or none", () =>
    Effect.gen(function*() {
      const storage = remembering()
      const { client } = yield* used(storage.device)
      const before = storage.commits()
      yield* client.logout()
      yield* client.close
      for (let at = before; at <= storage.commits(); at++) {
        const { device } = yield* storage.copy(at)
        const rows = yield* rowsOf(device)
        expect([0, 1], `after ${at}`).toContain(rows[records("m")]?.length ?? 0)
        expect(rows[records("m")] === undefined, `after ${at}`).toBe(Object.keys(rows).length === 0)
      }
      expect(yield* rowsOf((yield* storage.copy()).device)).toEqual({})
    }).pipe(Effect.scoped, inWorld()))
})
