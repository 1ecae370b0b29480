/** What a device does with deletions that its server forgets, and what it says to have them forgotten. */
import { describe, it } from "@effect/vitest"
import { packPlaces } from "@topgun/core/MerkleSync"
import { partitionOf } from "@topgun/core/Partition"
import * as Protocol from "@topgun/core/Protocol"
import * as Storage from "@topgun/core/Storage"
import type { ServerConnection } from "@topgun/core/Transport"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import { fragile, inWorld, isSettled, remembering } from "./worlds.ts"

const settings = { tombstoneAge: "10 minutes" } as const

/** What devices tell a server of what they have confirmed, and a way to put words into the server's mouth. */
const overhearing = () => {
  const confirmed: Array<number> = []
  const connections: Array<ServerConnection> = []
  return {
    confirmed,
    say: (message: Protocol.ServerMessage) => connections.at(-1)!.send(Protocol.encode(message)),
    between: (connection: ServerConnection): ServerConnection => {
      connections.push(connection)
      return {
        ...connection,
        listen: (onFrame, onClosed) =>
          connection.listen((frame) => {
            for (const message of Protocol.decodeFromClient(frame)) {
              if (message._tag === "Confirmed") confirmed.push(message.age)
            }
            onFrame(frame)
          }, onClosed)
      }
    }
  }
}

const prune = (map: string, ...keys: ReadonlyArray<string>): typeof Protocol.GcPrune.Type => ({
  _tag: "GcPrune",
  map,
  cells: packPlaces(keys.map((cell) => ({ cell, partition: partitionOf(cell) })))
})

describe("A deletion that is forgotten", () => {
  it.live("goes from the devices that follow the map, and from their storage, and no listener hears of it", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const server = yield* World.startServer(settings)
      const storage = remembering()
      const alice = yield* World.startClient("alice", {}, storage.device)
      const bob = yield* World.startClient("bob")
      const [hers, his] = [yield* alice.map<number>("m"), yield* bob.map<number>("m")]
      const [herSets, hisSets] = [yield* alice.orMap<string>("s"), yield* bob.orMap<string>("s")]
      yield* hers.set("k", 1)
      yield* hers.set("stays", 1)
      yield* herSets.add("k", "x")
      yield* clock.runUntil(() => his.has("k") && hisSets.getValues("k").length === 1)
      yield* his.remove("k")
      yield* hisSets.remove("k", "x")
      yield* clock.runUntil(() => isSettled(bob) && !hers.has("k"))
      const told: Array<unknown> = []
      hers.subscribe((changes) => told.push(...changes))
      herSets.subscribe((changes) => told.push(...changes))
      yield* clock.advance("9 minutes")
      expect([hers.getRecord("k")?.isTombstone, his.getRecord("k")?.isTombstone]).toEqual([true, true])
      yield* clock.advance("3 minutes")
      expect([hers.getRecord("k"), his.getRecord("k")]).toEqual([undefined, undefined])
      expect(told).toEqual([])
      const { maps } = yield* server.status
      expect(maps.map(({ records }) => records).sort()).toEqual([0, 1])
      expect(maps.map(({ root }) => root).sort()).toEqual([hers.digest, herSets.digest].sort())
      expect([his.digest, hisSets.digest]).toEqual([hers.digest, herSets.digest])
      yield* alice.close
      const again = yield* World.startClient("alice", { autoConnect: false }, storage.device)
      const reread = yield* again.map<number>("m")
      expect(reread.getRecord("k")).toBeUndefined()
      expect(reread.digest).toBe(his.digest)
    }).pipe(Effect.scoped, inWorld()))

  it.live("goes from a device that wasn't there when the others were told, as soon as it is in step", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      yield* World.startServer(settings)
      const alice = yield* World.startClient("alice")
      const bob = yield* World.startClient("bob")
      const [hers, his] = [yield* alice.map<number>("m"), yield* bob.map<number>("m")]
      yield* hers.set("k", 1)
      yield* hers.set("stays", 1)
      yield* clock.runUntil(() => his.size === 2)
      yield* his.remove("k")
      yield* clock.runUntil(() => isSettled(bob) && !hers.has("k"))
      // Whatever they have confirmed by then is enough.
      yield* clock.advance("5 minutes")
      yield* bob.disconnect
      yield* clock.advance("8 minutes")
      expect([hers.getRecord("k"), his.getRecord("k")?.isTombstone]).toEqual([undefined, true])
      yield* bob.connect
      yield* clock.runUntil(() => isSettled(bob))
      expect(his.getRecord("k")).toBeUndefined()
      yield* clock.advance("1 minute")
      expect(hers.digest).toBe(his.digest)
      expect(hers.getRecord("k")).toBeUndefined()
    }).pipe(Effect.scoped, inWorld()))

  it.live("is only that: nothing else goes, whatever the server names", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const server = overhearing()
      yield* World.startServer({}, server.between)
      const faults: Array<unknown> = []
      const client = yield* World.startClient("alice", { onError: (fault) => void faults.push(fault) })
      const map = yield* client.map<number>("m")
      for (const key of ["value", "gone", "gone, and written again", "about to go"]) yield* map.set(key, 1)
      yield* map.remove("gone")
      yield* map.remove("gone, and written again")
      yield* clock.runUntil(() => isSettled(client))
      // Written, and not on the server yet.
      yield* map.remove("about to go")
      yield* map.set("gone, and written again", 2)
      yield* map.set("never sent", 1)
      server.say(prune("m", "value", "gone", "gone, and written again", "about to go", "never sent", "nothing"))
      server.say(prune("elsewhere", "gone"))
      yield* clock.settle
      expect(Object.fromEntries(map)).toEqual({ value: 1, "gone, and written again": 2, "never sent": 1 })
      yield* clock.runUntil(() => isSettled(client))
      yield* clock.advance("1 second")
      expect(map.getRecord("gone")).toBeUndefined()
      expect(map.getRecord("about to go")?.isTombstone).toBe(true)
      expect(Object.fromEntries(map)).toEqual({ value: 1, "gone, and written again": 2, "never sent": 1 })
      expect(faults.map(String)).toEqual([expect.stringContaining("forgets deletions in map \"elsewhere\"")])
      const other = yield* World.startClient("bob")
      const seen = yield* other.map<number>("m")
      yield* clock.runUntil(() => isSettled(other))
      expect(Object.fromEntries(seen)).toEqual(Object.fromEntries(map))
    }).pipe(Effect.scoped, inWorld()))
})

describe("A device confirms", () => {
  it.live("what it has, once it is stored, and again whenever it is asked to", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const server = overhearing()
      yield* World.startServer(settings, server.between)
      const { device, state } = fragile()
      const client = yield* World.startClient("alice", {}, device)
      const map = yield* client.map<number>("m")
      yield* clock.runUntil(() => isSettled(client))
      yield* clock.advance("1 second")
      expect(server.confirmed).toHaveLength(1)
      const other = yield* World.startClient("bob", { autoConnect: false })
      const theirs = yield* other.map<number>("m")
      yield* theirs.set("k", 1)
      state.broken = true
      yield* other.connect
      yield* clock.runUntil(() => map.has("k"))
      yield* other.disconnect
      const [before] = server.confirmed
      yield* clock.advance("2 minutes")
      const ofBob = server.confirmed.slice(1)
      expect(ofBob.filter((age) => age > before! + 60_000)).toEqual([])
      state.broken = false
      yield* clock.advance("2 minutes")
      expect(server.confirmed.at(-1)).toBeGreaterThan(before! + 60_000)
    }).pipe(Effect.scoped, inWorld()))

  it.live("nothing while a map of its isn't in step, or a write of its isn't answered", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const server = overhearing()
      let isHeld = true
      const held: Array<() => void> = []
      yield* World.startServer(settings, (connection) => {
        const heard = server.between(connection)
        return {
          ...heard,
          send: (frame) => {
            const messages = Protocol.decodeFromServer(frame)
            const holds = isHeld && messages.some(({ _tag }) => _tag === "SyncRoot" || _tag === "OpAck")
            if (holds) held.push(() => heard.send(frame))
            else heard.send(frame)
          }
        }
      })
      const client = yield* World.startClient("alice")
      const map = yield* client.map<number>("m")
      yield* clock.advance("4 seconds")
      expect(server.confirmed).toEqual([])
      isHeld = false
      held.splice(0).forEach((send) => send())
      yield* clock.runUntil(() => isSettled(client))
      yield* clock.advance("1 second")
      expect(server.confirmed).toHaveLength(1)
      isHeld = true
      yield* map.set("k", 1)
      yield* clock.advance("100 millis")
      server.say({ _tag: "Checkpoint", age: 1 })
      yield* clock.advance("2 seconds")
      expect(server.confirmed).toHaveLength(1)
      isHeld = false
      held.splice(0).forEach((send) => send())
      yield* clock.advance("1 second")
      expect(server.confirmed).toHaveLength(2)
    }).pipe(Effect.scoped, inWorld()))

  it.live("nothing that it doesn't keep: nothing is remembered for who never comes back", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const server = overhearing()
      yield* World.startServer(settings, server.between)
      const client = yield* World.startClient("alice", {}, Storage.memory())
      const map = yield* client.map<number>("m")
      yield* map.set("k", 1)
      yield* clock.runUntil(() => isSettled(client))
      yield* clock.advance("10 minutes")
      expect(server.confirmed).toEqual([])
    }).pipe(Effect.scoped, inWorld()))
})
