import { describe, it } from "@effect/vitest"
import * as Protocol from "@topgun/core/Protocol"
import * as Storage from "@topgun/core/Storage"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import { PCGRandom } from "effect/Utils"
import { expect } from "vitest"
import * as SyncState from "../src/SyncState.ts"
import { connected, inWorld, isSettled } from "./worlds.ts"

describe("the table of states", () => {
  const states = Object.keys(SyncState.transitions) as ReadonlyArray<SyncState.SyncState>
  const reachable = (from: SyncState.SyncState): ReadonlySet<SyncState.SyncState> => {
    const seen = new Set([from])
    for (const state of seen) for (const next of Object.values(SyncState.transitions[state])) seen.add(next)
    return seen
  }

  it("leads from every state to every other", () => {
    expect(states).toHaveLength(7)
    for (const state of states) expect([...reachable(state)].sort(), state).toEqual([...states].sort())
  })

  it("lets the application end every state, and lead to CONNECTED only what is synced", () => {
    for (const state of states) {
      expect(SyncState.next(state, "disconnect")).toBe("DISCONNECTED")
      const ways = Object.entries(SyncState.transitions[state]).filter(([, next]) => next === "CONNECTED")
      expect(ways.map(([event]) => event)).toEqual(state === "SYNCING" ? ["synced"] : [])
    }
  })
})

describe("the connection", () => {
  it.live("comes back when it's ended and wanted again at once", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* connected()
      yield* Effect.all([client.disconnect, client.connect], { concurrency: 2 })
      yield* clock.advance("1 minute")
      expect(client.status.current.state).toBe("CONNECTED")
    }).pipe(Effect.scoped, inWorld()))

  it.live("isn't failing when nobody wants one", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const client = yield* World.startClient("alice")
      yield* clock.runUntil(() => client.status.current.failure !== undefined)
      yield* client.disconnect
      expect(client.status.current).toMatchObject({ state: "DISCONNECTED", failure: undefined })
    }).pipe(Effect.scoped, inWorld()))

  it.live("that went silent is noticed though the wall clock was set back", () =>
    Effect.gen(function*() {
      const { client, clock, network } = yield* connected()
      network.cut("alice")
      clock.unsafeStep(-3_600_000)
      yield* clock.runUntil(() => client.status.current.state !== "CONNECTED", { within: "16 seconds" })
    }).pipe(Effect.scoped, inWorld()))

  it.live("doesn't depend on one map that the server refuses to open", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const faults: Array<unknown> = []
      const server = yield* World.startServer({ subscriptionsMax: 2 } as never)
      const client = yield* World.startClient("alice", {
        autoConnect: false,
        onError: (fault) => void faults.push(fault)
      })
      for (const name of ["a", "b", "c"]) yield* (yield* client.map<number>(name)).set("k", 1)
      yield* client.connect
      yield* clock.advance("1 minute")
      expect(client.status.current).toMatchObject({ state: "CONNECTED", pending: 0 })
      expect((yield* server.status).maps).toHaveLength(3)
      expect(faults).toHaveLength(1)
    }).pipe(Effect.scoped, inWorld()))

  it.live("carries each operation once, be they of one tick or of a long time offline", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const times = new Map<number, number>()
      yield* World.startServer({}, (connection) => ({
        ...connection,
        listen: (onFrame, onClosed) =>
          connection.listen((frame) => {
            for (const message of Protocol.decodeFromClient(frame)) {
              if (message._tag !== "OpBatch") continue
              for (const [sequence] of message.ops) times.set(sequence, (times.get(sequence) ?? 0) + 1)
            }
            onFrame(frame)
          }, onClosed)
      }))
      const client = yield* World.startClient("alice")
      const map = yield* client.map<number>("m")
      yield* clock.runUntil(() => isSettled(client))
      const write = (from: number, count: number) =>
        Effect.forEach(Array.from({ length: count }, (_, n) => from + n), (n) => map.set(`k${n}`, n), {
          concurrency: "unbounded",
          discard: true
        })
      yield* write(0, 500)
      yield* clock.runUntil(() => isSettled(client))
      yield* client.disconnect
      yield* write(500, 5_000)
      yield* client.connect
      yield* clock.runUntil(() => isSettled(client))
      expect(times.size).toBe(5_500)
      expect([...new Set(times.values())]).toEqual([1])
    }).pipe(Effect.scoped, inWorld()))

  it.live("that is cut again and again downloads no record much more than once", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const network = yield* Network.SimulatedNetwork
      const server = yield* World.startServer()
      const bob = yield* World.startClient("bob")
      const his = yield* bob.map<unknown>("m")
      const count = 10_000
      const all = Array.from({ length: count }, (_, n) => n)
      const random = new PCGRandom(1)
      const noise = () => Array.from({ length: 20 }, () => random.integer(2 ** 31).toString(36)).join("")
      yield* Effect.forEach(all, (n) => his.set(`k${n}`, noise()), { concurrency: 5_000 })
      yield* clock.runUntil(() => isSettled(bob), { within: "10 minutes" })

      const carol = yield* World.startClient("carol")
      const hers = yield* carol.map<unknown>("m")
      yield* clock.runUntil(() => isSettled(carol))
      const whole = network.traffic("carol", World.serverAddress).toClient.bytesDelivered

      const device = Storage.memory()
      let cuts = 0
      const bytes = () => network.traffic("alice", World.serverAddress).toClient.bytesDelivered
      let alice = yield* World.startClient("alice", {}, device)
      let map = yield* alice.map<unknown>("m")
      for (let next = whole / 8; !isSettled(alice); next = bytes() + whole / 8) {
        yield* clock.runUntil(() => bytes() >= next || isSettled(alice))
        if (isSettled(alice)) break
        cuts++
        // Every other time the whole device goes, and comes back with what it has stored.
        if (cuts % 2 === 0) yield* alice.close
        network.reset("alice")
        if (cuts % 2 !== 0) continue
        alice = yield* World.startClient("alice", {}, device)
        map = yield* alice.map<unknown>("m")
      }
      expect(cuts).toBeGreaterThan(4)
      expect(map.size).toBe(count)
      expect([hers.digest, map.digest]).toEqual([his.digest, his.digest])
      expect((yield* server.status).maps[0]?.root).toBe(map.digest)
      expect(bytes()).toBeLessThan(1.5 * whole)
    }).pipe(Effect.scoped, inWorld()))

  it.live("makes only moves of the table, leaks nothing, and comes back from whatever happens, in 30 seeded runs", () =>
    Effect.gen(function*() {
      for (let seed = 1; seed <= 30; seed++) {
        yield* Effect.gen(function*() {
          const faults: Array<unknown> = []
          const { client, clock, network, server } = yield* connected({ onError: (fault) => void faults.push(fault) })
          const sleepers = clock.sleepers()
          let running = server
          let stands = true
          const random = new PCGRandom(seed)
          const map = yield* client.map<number>("m")
          const happenings = [
            client.connect,
            client.disconnect,
            client.resetConnection,
            Effect.all([client.disconnect, client.connect], { concurrency: 2 }),
            Effect.ignore(map.set("k", seed)),
            Effect.sync(() => network.cut("alice")),
            Effect.sync(() => network.cut("alice", "toClient")),
            Effect.sync(() => network.heal()),
            Effect.sync(() => network.reset("alice")),
            Effect.gen(function*() {
              if (stands) yield* running.stop
              else running = yield* World.startServer()
              stands = !stands
            })
          ]
          for (let n = 0; n < 40; n++) {
            yield* happenings[random.integer(happenings.length)]!
            yield* clock.advance(random.integer(3) * random.integer(4_000))
            expect(client.status.current.state, `seed ${seed}`).not.toBe("ERROR")
          }
          network.heal()
          if (!stands) running = yield* World.startServer()
          yield* client.connect
          yield* clock.runUntil(() =>
            client.status.current.state === "CONNECTED" && client.status.current.pending === 0
          )
          yield* clock.advance("1 minute")
          expect(faults, `seed ${seed}`).toEqual([])
          expect(network.connections("alice"), `seed ${seed}`).toBe(1)
          expect(clock.sleepers(), `seed ${seed}`).toBeLessThanOrEqual(sleepers + 2)
          expect((yield* running.status).connections, `seed ${seed}`).toBe(1)
        }).pipe(Effect.scoped, inWorld(seed))
      }
    }))
})
