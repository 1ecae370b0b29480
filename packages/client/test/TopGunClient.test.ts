import { describe, it } from "@effect/vitest"
import * as Grid from "@topgun/core/Grid"
import * as Storage from "@topgun/core/Storage"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { expect } from "vitest"
import { connected, inWorld } from "./worlds.ts"

const Todo = Schema.Struct({ text: Schema.String, done: Schema.Boolean })
const Todos = Grid.map("todos", Todo)

describe("a map", () => {
  it.live("is written and read without a server", () =>
    Effect.gen(function*() {
      const client = yield* World.startClient("alice", { autoConnect: false })
      const todos = yield* client.map(Todos)
      expect(todos.get("1")).toBeUndefined()
      yield* todos.set("1", { text: "milk", done: false })
      yield* todos.set("2", { text: "bread", done: true })
      yield* todos.update("1", (todo) => todo && { ...todo, done: true })
      expect(todos.get("1")).toEqual({ text: "milk", done: true })
      expect([...todos.keys()]).toEqual(["1", "2"])
      expect([...todos.values()].map(({ text }) => text)).toEqual(["milk", "bread"])
      expect(todos.size).toBe(2)
      yield* todos.remove("1")
      expect(todos.has("1")).toBe(false)
      expect(todos.size).toBe(1)
      expect(Object.fromEntries(todos)).toEqual({ 2: { text: "bread", done: true } })
      expect(client.status.current).toMatchObject({ state: "DISCONNECTED", pending: 2 })
    }).pipe(Effect.scoped, inWorld()))

  it.live("gives frozen values, the same object until they change", () =>
    Effect.gen(function*() {
      const client = yield* World.startClient("alice", { autoConnect: false })
      const map = yield* client.map<{ readonly tags: ReadonlyArray<string> }>("m")
      const given = { tags: ["a"] }
      yield* map.set("k", given)
      given.tags.push("b")
      const value = map.get("k")!
      expect(value).toEqual({ tags: ["a"] })
      expect(Object.isFrozen(value) && Object.isFrozen(value.tags)).toBe(true)
      yield* map.set("other", { tags: [] })
      expect(map.get("k")).toBe(value)
    }).pipe(Effect.scoped, inWorld()))

  it.live("refuses what has no form, with the path and nothing changed", () =>
    Effect.gen(function*() {
      const client = yield* World.startClient("alice", { autoConnect: false })
      const map = yield* client.map<unknown>("m")
      const cycle: Record<string, unknown> = {}
      cycle["self"] = cycle
      const refused = [
        [{ a: () => 1 }, "$.a"],
        [{ a: [1, undefined] }, "$.a[1]"],
        [{ a: { b: undefined } }, "$.a.b"],
        [cycle, "$.self"],
        [Number.NaN, "$"],
        [new Map(), "$"]
      ] as const
      for (const [value, path] of refused) {
        const outcome = yield* Effect.either(map.set("k", value))
        expect(Either.getLeft(outcome)).toMatchObject({ value: { _tag: "ValueNotSupported", path } })
      }
      const large = yield* Effect.either(map.set("k", "x".repeat(300_000)))
      expect(Either.getLeft(large)).toMatchObject({ value: { _tag: "RecordTooLarge", what: "value" } })
      const longKey = yield* Effect.either(map.set("k".repeat(2_000), 1))
      expect(Either.getLeft(longKey)).toMatchObject({ value: { _tag: "RecordTooLarge", what: "key" } })
      expect(map.size).toBe(0)
      expect(client.status.current.pending).toBe(0)
    }).pipe(Effect.scoped, inWorld()))

  it.live("refuses what its schema doesn't allow, be it Effect's or a standard one", () =>
    Effect.gen(function*() {
      const client = yield* World.startClient("alice", { autoConnect: false })
      const todos = yield* client.map(Todos)
      const outcome = yield* Effect.either(todos.set("1", { text: 1 } as never))
      expect(Either.getLeft(outcome)).toMatchObject({ value: { _tag: "SchemaMismatch", map: "todos" } })
      const positive = yield* client.map(Grid.map<number>("positive", {
        "~standard": {
          version: 1,
          vendor: "test",
          validate: (value) => typeof value === "number" && value > 0 ? { value } : { issues: [{ message: "not > 0" }] }
        }
      }))
      const negative = yield* Effect.either(positive.set("n", -1))
      expect(Either.getLeft(negative)).toMatchObject({ value: { _tag: "SchemaMismatch", issues: "not > 0" } })
      yield* positive.set("n", 1)
      expect(positive.get("n")).toBe(1)
    }).pipe(Effect.scoped, inWorld()))

  it.live("tells of changes, local and remote, with the value before", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* connected()
      const bob = yield* World.startClient("bob")
      const hers = yield* client.map<number>("m")
      const his = yield* bob.map<number>("m")
      const seen: Array<unknown> = []
      const stop = hers.subscribe((changes) => void seen.push(...changes))
      yield* hers.set("k", 1)
      yield* clock.runUntil(() => his.get("k") === 1)
      yield* his.set("k", 2)
      yield* clock.runUntil(() => hers.get("k") === 2)
      yield* hers.remove("k")
      stop()
      yield* hers.set("k", 3)
      expect(seen).toEqual([
        { key: "k", value: 1, previous: undefined, origin: "local" },
        { key: "k", value: 2, previous: 1, origin: "remote" },
        { key: "k", value: undefined, previous: 2, origin: "local" }
      ])
    }).pipe(Effect.scoped, inWorld()))

  it.live("is watched key by key", () =>
    Effect.gen(function*() {
      const client = yield* World.startClient("alice", { autoConnect: false })
      const map = yield* client.map<number>("m")
      const clock = yield* VirtualClock.VirtualClock
      const seen = yield* Effect.fork(Stream.runCollect(Stream.take(map.watch("k"), 3)))
      yield* clock.settle
      yield* map.set("k", 1)
      yield* clock.settle
      yield* map.set("other", 9)
      yield* map.remove("k")
      expect(Chunk.toReadonlyArray(yield* Fiber.join(seen))).toEqual([undefined, 1, undefined])
    }).pipe(Effect.scoped, inWorld()))

  it.live("a listener that throws is reported and stops nobody", () =>
    Effect.gen(function*() {
      const faults: Array<unknown> = []
      const client = yield* World.startClient("alice", {
        autoConnect: false,
        onError: (fault) => void faults.push(fault)
      })
      const map = yield* client.map<number>("m")
      const seen: Array<number> = []
      map.subscribe(() => {
        throw new Error("mine")
      })
      map.subscribe((changes) => void seen.push(changes.length))
      yield* map.set("k", 1)
      expect(seen).toEqual([1])
      expect(faults).toMatchObject([{ message: "mine" }])
    }).pipe(Effect.scoped, inWorld()))
})

describe("acknowledgements", () => {
  it.live("say the level that was reached", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* connected()
      const map = yield* client.map<number>("m")
      const write = yield* map.set("k", 1, { writeConcern: "APPLIED" })
      const ack = yield* Effect.fork(write.server)
      yield* clock.advance("1 second")
      expect(yield* Fiber.join(ack)).toMatchObject({ level: "APPLIED", replicas: 0, persisted: false })
      const forgotten = yield* map.set("k", 2, { writeConcern: "FIRE_AND_FORGET" })
      expect(yield* forgotten.server).toMatchObject({ level: "FIRE_AND_FORGET" })
    }).pipe(Effect.scoped, inWorld()))

  it.live("a refused write is undone, told of, kept durably, and can be tried again or discarded", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* connected()
      const map = yield* client.map<number>("m")
      yield* map.set("k", 1)
      yield* clock.runUntil(() => client.status.current.pending === 0)
      const write = yield* map.set("k", 2, { writeConcern: "REPLICATED", ttlMs: 600_000 })
      const outcome = yield* Effect.fork(Effect.either(write.server))
      yield* clock.runUntil(() => client.status.current.rejected === 1)
      expect(Either.getLeft(yield* Fiber.join(outcome))).toMatchObject({ value: { _tag: "WriteRejected", key: "k" } })
      expect(map.get("k")).toBe(1)
      expect(client.rejectedWrites.current).toMatchObject([{ map: "m", key: "k", value: 2 }])
      yield* client.close

      const again = yield* World.startClient("alice", {}, client.device)
      const same = yield* again.map<number>("m")
      expect(same.get("k")).toBe(1)
      const [rejected] = again.rejectedWrites.current
      expect(rejected).toMatchObject({ map: "m", key: "k", value: 2, ttlMs: 600_000 })
      yield* again.rejectedWrites.retry(rejected!.id)
      expect(same.get("k")).toBe(2)
      const { expiresAt, millis } = same.getRecord("k")!
      expect(expiresAt - millis).toBe(600_000)
      yield* clock.runUntil(() => again.status.current.pending === 0)
      expect(again.status.current.rejected).toBe(0)
    }).pipe(Effect.scoped, inWorld()))

  it.live("don't wait for ever: offline it's a timeout, and the write is sent all the same", () =>
    Effect.gen(function*() {
      const { client, clock, server } = yield* connected()
      const map = yield* client.map<number>("m")
      yield* client.disconnect
      const write = yield* map.set("k", 1, { timeoutMs: 5_000 })
      const outcome = yield* Effect.fork(Effect.either(write.server))
      yield* clock.advance("6 seconds")
      expect(Either.getLeft(yield* Fiber.join(outcome))).toMatchObject({ value: { _tag: "WriteTimeout" } })
      yield* client.connect
      yield* clock.runUntil(() => client.status.current.pending === 0)
      expect((yield* server.status).maps).toMatchObject([{ name: "m", size: 1 }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("of a write that was sent and not answered: indeterminate", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* connected()
      const network = yield* Network.SimulatedNetwork
      const map = yield* client.map<number>("m")
      network.cut("alice", "toClient")
      const write = yield* map.set("k", 1, { timeoutMs: 1_000 })
      const outcome = yield* Effect.fork(Effect.either(write.server))
      yield* clock.advance("2 seconds")
      expect(Either.getLeft(yield* Fiber.join(outcome))).toMatchObject({ value: { _tag: "Indeterminate" } })
      network.heal()
      yield* clock.runUntil(() => client.status.current.pending === 0)
    }).pipe(Effect.scoped, inWorld()))

  it.live("of writes that were coalesced are those of the last one", () =>
    Effect.gen(function*() {
      const { client, clock, server } = yield* connected()
      const network = yield* Network.SimulatedNetwork
      const map = yield* client.map<number>("m")
      yield* client.disconnect
      const writes = []
      for (let n = 0; n < 100; n++) writes.push(yield* map.set("k", n, { timeoutMs: 60_000 }))
      expect(client.status.current.pending).toBe(1)
      const sent = network.traffic("alice", World.serverAddress).toServer.bytes
      yield* client.connect
      const acks = yield* Effect.fork(Effect.all(writes.map((write) => write.server)))
      yield* clock.runUntil(() => client.status.current.pending === 0)
      const outcomes = yield* Fiber.join(acks)
      expect(outcomes[0]).toMatchObject({ level: "APPLIED", superseded: true })
      expect(outcomes[99]?.superseded).toBeUndefined()
      expect(network.traffic("alice", World.serverAddress).toServer.bytes - sent).toBeLessThan(1_000)
      expect((yield* server.status).maps).toMatchObject([{ name: "m", size: 1 }])
    }).pipe(Effect.scoped, inWorld()))
})

describe("a device", () => {
  it.live("remembers its records and unsent writes over a restart, and is the same writer", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const first = yield* World.startClient("alice", { autoConnect: false })
      const map = yield* first.map<number>("m")
      yield* map.set("a", 1)
      yield* map.set("b", 2)
      yield* map.remove("a")
      const stamp = map.getRecord("b")!.stamp
      yield* first.close

      clock.unsafeStep(-30_000)
      const second = yield* World.startClient("alice", { autoConnect: false }, first.device)
      const again = yield* second.map<number>("m")
      expect(Object.fromEntries(again)).toEqual({ b: 2 })
      expect(second.status.current).toMatchObject({ pending: 2 })
      yield* again.set("b", 3)
      const later = again.getRecord("b")!.stamp
      expect(later.nodeId).toBe(stamp.nodeId)
      expect(later.millis * 65_536 + later.counter).toBeGreaterThan(stamp.millis * 65_536 + stamp.counter)

      const server = yield* World.startServer()
      yield* second.connect
      yield* clock.runUntil(() => second.status.current.pending === 0)
      expect((yield* server.status).maps).toMatchObject([{ name: "m", size: 1, records: 2, root: again.digest }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("keeps what it couldn't store in memory, says so, and stores it when it can", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const memory = Storage.memory()
      let broken = false
      const device: Storage.StorageAdapter = {
        ...memory,
        commit: (writes) => broken ? Promise.reject(new Error("the disk is full")) : memory.commit(writes)
      }
      const client = yield* World.startClient("alice", { autoConnect: false }, device)
      const map = yield* client.map<number>("m")
      broken = true
      const outcome = yield* Effect.either(map.set("k", 1))
      expect(Either.getLeft(outcome)).toMatchObject({ value: { _tag: "StorageUnavailable" } })
      expect(map.get("k")).toBe(1)
      expect(client.status.current.storage.fault).toContain("the disk is full")
      broken = false
      yield* clock.runUntil(() => client.status.current.storage.fault === undefined)
      yield* client.close
      const again = yield* World.startClient("alice", { autoConnect: false }, memory)
      expect((yield* again.map<number>("m")).get("k")).toBe(1)
    }).pipe(Effect.scoped, inWorld()))

  it.live("gives a server that lost everything its records again", () =>
    Effect.gen(function*() {
      const { client, clock, server } = yield* connected()
      const map = yield* client.map<number>("m")
      for (let n = 0; n < 50; n++) yield* map.set(`k${n}`, n)
      yield* clock.runUntil(() => client.status.current.pending === 0)
      yield* server.stop
      yield* clock.runUntil(() => client.status.current.state !== "CONNECTED")
      const empty = yield* World.startServer()
      yield* clock.runUntil(() => client.status.current.state === "CONNECTED" && client.status.current.pending === 0)
      expect((yield* empty.status).maps).toMatchObject([{ name: "m", size: 50, root: map.digest }])
    }).pipe(Effect.scoped, inWorld()))
})

describe("the connection", () => {
  it.live("comes back by itself, by the backoff that it was given", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* connected({ backoff: Schedule.spaced("7 seconds") })
      const network = yield* Network.SimulatedNetwork
      const states: Array<string> = []
      client.status.subscribe(({ state }) => {
        if (states.at(-1) !== state) states.push(state)
      })
      network.reset("alice")
      const millis = yield* clock.runUntil(() => client.status.current.state === "CONNECTED" && states.length > 2)
      expect(millis).toBeGreaterThan(7_000)
      expect(millis).toBeLessThan(8_000)
      expect(states).toEqual(["BACKOFF", "CONNECTING", "AUTHENTICATING", "SYNCING", "CONNECTED"])
    }).pipe(Effect.scoped, inWorld()))

  it.live("gives up where the schedule ends, says why, and begins anew when told to", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const client = yield* World.startClient("alice", {
        backoff: Schedule.intersect(Schedule.spaced("1 second"), Schedule.recurs(3))
      })
      yield* clock.runUntil(() => client.status.current.state === "ERROR")
      expect(client.status.current.failure).toContain("connection to the server was lost")
      yield* World.startServer()
      yield* clock.advance("1 minute")
      expect(client.status.current.state).toBe("ERROR")
      yield* client.resetConnection
      yield* clock.runUntil(() => client.status.current.state === "CONNECTED")
      expect(client.status.current.failure).toBeUndefined()
    }).pipe(Effect.scoped, inWorld()))

  it.live("that went silent is noticed and replaced", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* connected()
      const network = yield* Network.SimulatedNetwork
      network.cut("alice")
      yield* clock.runUntil(() => client.status.current.state !== "CONNECTED", { within: "16 seconds" })
      network.heal()
      yield* clock.runUntil(() => client.status.current.state === "CONNECTED", { within: "1 minute" })
    }).pipe(Effect.scoped, inWorld()))

  it.live("carries calls too", () =>
    Effect.gen(function*() {
      // The clock doesn't see how modules are loaded: this one is, when it's asked for.
      yield* Effect.promise(() => import("@topgun/client/Calls"))
      const { client, clock } = yield* connected()
      const map = yield* client.map<number>("m")
      yield* map.set("k", 1)
      const status = yield* Effect.fork(client.serverStatus)
      yield* clock.advance("1 second")
      expect(yield* Fiber.join(status)).toMatchObject({ connections: 1, maps: [{ name: "m", size: 1 }] })
      yield* client.disconnect
      expect(Either.getLeft(yield* Effect.either(client.serverStatus))).toMatchObject({
        value: { _tag: "ConnectionLost" }
      })
    }).pipe(Effect.scoped, inWorld()))

  it.live("synced waits for both directions", () =>
    Effect.gen(function*() {
      const { client, clock, server } = yield* connected()
      const bob = yield* World.startClient("bob", { autoConnect: false })
      const his = yield* bob.map<number>("m")
      yield* his.set("b", 1)
      const hers = yield* client.map<number>("m")
      yield* hers.set("a", 1)
      const synced = yield* Effect.fork(bob.synced)
      yield* bob.connect
      yield* clock.runUntil(() => his.size === 2)
      yield* clock.advance("1 second")
      yield* Fiber.join(synced)
      expect(his.digest).toBe((yield* server.status).maps[0]?.root)
    }).pipe(Effect.scoped, inWorld()))
})

describe("a full outbox", () => {
  const offline = (strategy: "pause" | "throw" | "drop-oldest") =>
    World.startClient("alice", { autoConnect: false, backpressure: { strategy, capacity: 3, waitingMax: 2 } })

  it.live("refuses under throw, and nothing is changed", () =>
    Effect.gen(function*() {
      const client = yield* offline("throw")
      const map = yield* client.map<number>("m")
      for (const key of ["a", "b", "c"]) yield* map.set(key, 1)
      const outcome = yield* Effect.either(map.set("d", 1))
      expect(Either.getLeft(outcome)).toMatchObject({ value: { _tag: "BackpressureError", capacity: 3 } })
      expect([...map.keys()]).toEqual(["a", "b", "c"])
      // A write to a key that waits already takes no more room.
      yield* map.set("a", 2)
      expect(map.get("a")).toBe(2)
      expect(client.status.current.pending).toBe(3)
    }).pipe(Effect.scoped, inWorld()))

  it.live("lets writes wait in a bounded line under pause, and shows them when they are admitted, in order", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const client = yield* offline("pause")
      const map = yield* client.map<number>("m")
      for (const key of ["a", "b", "c"]) yield* map.set(key, 1)
      const waiting = yield* Effect.fork(Effect.all([map.set("d", 1), map.set("e", 1)], { concurrency: 2 }))
      yield* clock.settle
      expect(map.has("d")).toBe(false)
      const outcome = yield* Effect.either(map.set("f", 1))
      expect(Either.getLeft(outcome)).toMatchObject({ value: { _tag: "BackpressureError" } })
      const server = yield* World.startServer()
      yield* client.connect
      yield* clock.runUntil(() => client.status.current.pending === 0 && map.has("e"))
      yield* Fiber.join(waiting)
      expect([...map.keys()]).toEqual(["a", "b", "c", "d", "e"])
      expect((yield* server.status).maps).toMatchObject([{ name: "m", size: 5 }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("drops the oldest under drop-oldest: undone, durably, and reported", () =>
    Effect.gen(function*() {
      const faults: Array<unknown> = []
      const device = Storage.memory()
      const client = yield* World.startClient("alice", {
        autoConnect: false,
        backpressure: { strategy: "drop-oldest", capacity: 3 },
        onError: (fault) => void faults.push(fault)
      }, device)
      const map = yield* client.map<number>("m")
      const first = yield* map.set("a", 1)
      for (const key of ["b", "c", "d"]) yield* map.set(key, 1)
      expect([...map.keys()]).toEqual(["b", "c", "d"])
      expect(Either.getLeft(yield* Effect.either(first.server))).toMatchObject({
        value: { _tag: "WriteDropped", key: "a" }
      })
      expect(faults).toMatchObject([{ _tag: "WriteDropped", key: "a" }])
      expect(client.status.current).toMatchObject({ pending: 3, rejected: 1 })
      yield* client.close
      const again = yield* World.startClient("alice", { autoConnect: false }, device)
      expect([...(yield* again.map<number>("m")).keys()].sort()).toEqual(["b", "c", "d"])
      expect(again.status.current).toMatchObject({ pending: 3, rejected: 1 })
    }).pipe(Effect.scoped, inWorld()))
})

describe("the backlog", () => {
  it.live("is high from four fifths of the room on until half of it is free, whoever looks", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      yield* World.startServer()
      const client = yield* World.startClient("alice", { autoConnect: false, backpressure: { capacity: 10 } })
      const map = yield* client.map<number>("m")
      const seen: Array<string> = []
      client.status.subscribe(({ backlog }) => {
        if (seen.at(-1) !== backlog) seen.push(backlog)
      })
      for (let i = 0; i < 7; i++) yield* map.set(`k${i}`, i)
      expect(client.status.current.backlog).toBe("low")
      yield* map.set("k7", 7)
      expect(client.status.current.backlog).toBe("high")
      // A write that takes the place of one that waits needs no room.
      yield* map.set("k7", 8)
      yield* client.connect
      yield* clock.runUntil(() => client.status.current.state === "CONNECTED" && client.status.current.pending === 0)
      expect(client.status.current.backlog).toBe("low")
      expect(seen).toEqual(["low", "high", "low"])
    }).pipe(Effect.scoped, inWorld()))
})

describe("the status", () => {
  it.live("is the same object until something in it changes", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* connected()
      const before = client.status.current
      expect(client.status.current).toBe(before)
      const map = yield* client.map<number>("m")
      yield* clock.settle
      const open = client.status.current
      yield* map.set("k", 1)
      expect(client.status.current).not.toBe(open)
      expect(client.status.current.pending).toBe(1)
      yield* clock.runUntil(() => client.status.current.pending === 0)
      const after = client.status.current
      const seen: Array<unknown> = []
      client.status.subscribe((status) => seen.push(status))
      yield* clock.advance("1 minute")
      expect(client.status.current).toBe(after)
      expect(seen).toEqual([])
    }).pipe(Effect.scoped, inWorld()))
})
