import { describe, it } from "@effect/vitest"
import * as Grid from "@topgun/core/Grid"
import * as Protocol from "@topgun/core/Protocol"
import * as Storage from "@topgun/core/Storage"
import type { Connection } from "@topgun/core/Transport"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import { expect } from "vitest"
import { connected, inStep, inWorld, welcome } from "./worlds.ts"

const Accounts = Grid.map("accounts", Schema.Number)
const Labels = Grid.orMap("labels", Schema.String)
const Transfers = Grid.counter("transfers")

describe("a batch", () => {
  it.live("writes to maps of all kinds, by handle, declaration or name, in one step and one transaction", () =>
    Effect.gen(function*() {
      const memory = Storage.memory()
      let commits = 0
      const client = yield* World.startClient("alice", { autoConnect: false }, {
        ...memory,
        commit: (writes) => {
          commits++
          return memory.commit(writes)
        }
      })
      const accounts = yield* client.map(Accounts)
      const labels = yield* client.orMap(Labels)
      const transfers = yield* client.counter(Transfers)
      yield* accounts.set("gone", 1)
      const steps: Array<unknown> = []
      accounts.subscribe((changes) =>
        void steps.push([...accounts], labels.getValues("a"), transfers.current, changes.length)
      )
      commits = 0
      yield* client.batch((tx) => {
        tx.set(accounts, "a", 60)
        tx.set(Accounts, "b", 40)
        tx.remove("accounts", "gone")
        tx.add(labels, "a", "new")
        tx.add("labels", "b", "new")
        tx.increment(transfers)
      })
      expect(commits).toBe(1)
      expect(steps).toEqual([[["a", 60], ["b", 40]], ["new"], 1, 3])
    }).pipe(Effect.scoped, inWorld()))

  it.live("reads what it has written itself; of a key's writes the last one counts, and a counter's are one", () =>
    Effect.gen(function*() {
      const client = yield* World.startClient("alice", { autoConnect: false })
      const accounts = yield* client.map(Accounts)
      const labels = yield* client.orMap(Labels)
      const transfers = yield* client.counter(Transfers)
      yield* accounts.set("a", 1)
      yield* labels.add("k", "old")
      const before = client.status.current.pending
      const read: Array<unknown> = []
      yield* client.batch((tx) => {
        tx.update(accounts, "a", (value) => value! + 1)
        tx.update(accounts, "a", (value) => value! * 10)
        read.push(tx.get(accounts, "a"))
        tx.remove(accounts, "a")
        read.push(tx.get(accounts, "a"))
        tx.set(accounts, "a", 7)
        tx.add(labels, "k", "added")
        tx.add(labels, "k", "kept")
        tx.remove(labels, "k", "added")
        tx.remove(labels, "k", "old")
        tx.increment(transfers, 5)
        tx.decrement(transfers, 2)
      })
      expect(read).toEqual([20, undefined])
      expect([accounts.get("a"), labels.getValues("k"), transfers.current]).toEqual([7, ["kept"], 3])
      // The key, the addition, the removal and the counter: a batch's operations take no other's place.
      expect(client.status.current.pending - before).toBe(4)
    }).pipe(Effect.scoped, inWorld()))

  it.live("that throws, or that something in is refused of, changes nothing", () =>
    Effect.gen(function*() {
      const client = yield* World.startClient("alice", { autoConnect: false })
      const accounts = yield* client.map(Accounts)
      const failing = (fail: (tx: Parameters<Parameters<typeof client.batch>[0]>[0]) => void) =>
        Effect.either(Effect.sandbox(client.batch((tx) => {
          tx.set(accounts, "a", 1)
          fail(tx)
        })))
      expect(
        yield* failing(() => {
          throw new Error("mine")
        })
      ).toMatchObject({ left: { _tag: "Die", defect: { message: "mine" } } })
      expect(yield* failing((tx) => tx.set(accounts, "b", "no number" as never))).toMatchObject({
        left: { _tag: "Fail", error: { _tag: "SchemaMismatch" } }
      })
      expect(yield* failing((tx) => tx.increment("c", -1))).toMatchObject({
        left: { _tag: "Fail", error: { _tag: "ValueNotSupported" } }
      })
      expect(
        yield* failing((tx) => {
          for (let n = 0; n < 1_000; n++) tx.set(accounts, `k${n}`, n)
        })
      ).toMatchObject({ left: { _tag: "Fail", error: { _tag: "BatchTooLarge", operations: 1_001 } } })
      expect(
        yield* failing((tx) => {
          for (let n = 0; n < 4; n++) tx.set("large", `k${n}`, "x".repeat(250_000))
        })
      ).toMatchObject({ left: { _tag: "Fail", error: { _tag: "BatchTooLarge", operations: 5 } } })
      expect([accounts.size, client.status.current.pending]).toEqual([0, 0])
    }).pipe(Effect.scoped, inWorld()))

  it.live("comes to other devices in one step", () =>
    Effect.gen(function*() {
      const { client, clock, server } = yield* connected()
      const bob = yield* World.startClient("bob")
      const his = yield* bob.map(Accounts)
      const likes = yield* bob.counter(Transfers)
      yield* clock.runUntil(() => bob.status.current.state === "CONNECTED")
      yield* clock.advance("1 second")
      const sums: Array<number> = []
      his.subscribe(() => void sums.push([...his.values()].reduce((sum, value) => sum + value, 0)))
      for (let n = 0; n < 20; n++) {
        yield* client.batch((tx) => {
          for (let k = 0; k < 50; k++) tx.set(Accounts, `k${k}`, k % 2 === 0 ? n : -n)
          tx.increment(Transfers)
        })
      }
      yield* clock.runUntil(() => likes.current === 20 && client.status.current.pending === 0)
      expect(sums.length).toBeGreaterThan(0)
      expect(sums.filter((sum) => sum !== 0)).toEqual([])
      expect((yield* server.status).maps).toMatchObject([
        { name: "accounts", root: his.digest },
        { name: "transfers", root: likes.digest }
      ])
    }).pipe(Effect.scoped, inWorld()))

  it.live("is acknowledged once, at the level that all of it has reached", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* connected()
      const write = yield* client.batch((tx) => {
        tx.set(Accounts, "a", 1)
        tx.add(Labels, "a", "x")
      })
      yield* clock.runUntil(() => client.status.current.pending === 0)
      expect(yield* write.server).toMatchObject({ level: "APPLIED", replicas: 0 })
      const nothing = yield* client.batch(() => {})
      expect(yield* nothing.server).toMatchObject({ level: "PERSISTED" })
    }).pipe(Effect.scoped, inWorld()))

  it.live("is refused as a whole when the server refuses one of it: undone, and each of it kept", () =>
    Effect.gen(function*() {
      const { client, clock, server } = yield* connected()
      yield* (yield* client.map<number>("other")).set("k", 1)
      yield* clock.runUntil(() => client.status.current.pending === 0)
      const bob = yield* World.startClient("bob")
      const accounts = yield* bob.map(Accounts)
      yield* accounts.set("a", 1)
      yield* clock.runUntil(() => bob.status.current.pending === 0)
      const write = yield* bob.batch((tx) => {
        tx.set(accounts, "a", 2)
        tx.set(accounts, "b", 3)
        tx.add(Labels, "a", "x")
        // The server knows this one as another kind of map.
        tx.increment("other", 4)
      })
      const outcome = yield* Effect.fork(Effect.either(write.server))
      expect(accounts.get("a")).toBe(2)
      yield* clock.runUntil(() => bob.status.current.rejected === 4)
      expect(Either.getLeft(yield* Fiber.join(outcome))).toMatchObject({ value: { _tag: "WriteRejected" } })
      expect([...accounts]).toEqual([["a", 1]])
      expect((yield* bob.orMap(Labels)).size).toBe(0)
      expect((yield* bob.counter("other")).current).toBe(0)
      expect(bob.rejectedWrites.current.map(({ change, map, value }) => [map, change, value])).toEqual([
        ["accounts", "set", 2],
        ["accounts", "set", 3],
        ["labels", "add", "x"],
        ["other", "count", 4]
      ])
      expect((yield* server.status).maps.filter(({ name }) => name === "accounts")).toMatchObject([{ size: 1 }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("isn't coalesced, neither into earlier writes nor later ones into it", () =>
    Effect.gen(function*() {
      const client = yield* World.startClient("alice", { autoConnect: false })
      const accounts = yield* client.map(Accounts)
      yield* accounts.set("a", 1)
      yield* client.batch((tx) => {
        tx.set(accounts, "a", 2)
        tx.set(accounts, "b", 2)
      })
      yield* accounts.set("a", 3)
      yield* accounts.set("a", 4)
      expect(client.status.current.pending).toBe(4)
      expect(accounts.get("a")).toBe(4)
      const server = yield* World.startServer()
      const clock = yield* VirtualClock.VirtualClock
      yield* client.connect
      yield* clock.runUntil(() => client.status.current.state === "CONNECTED" && client.status.current.pending === 0)
      expect((yield* server.status).maps).toMatchObject([{ root: accounts.digest, size: 2 }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("after a crash at any transaction of storage is there as a whole, or not at all", () =>
    Effect.gen(function*() {
      // The first transaction names the device.
      let kept = 1
      for (let isThere = false; !isThere; kept++) {
        const memory = Storage.memory()
        let left = kept
        const client = yield* World.startClient("alice", { autoConnect: false }, {
          ...memory,
          commit: (writes) => left-- > 0 ? memory.commit(writes) : Promise.reject(new Error("gone"))
        })
        const accounts = yield* client.map(Accounts)
        const writing = yield* Effect.fork(client.batch((tx) => {
          for (let n = 0; n < 10; n++) tx.set(accounts, `k${n}`, n)
          tx.increment(Transfers, 3)
        }))
        yield* (yield* VirtualClock.VirtualClock).advance("1 second")
        yield* Fiber.interrupt(writing)
        const again = yield* World.startClient("alice", { autoConnect: false }, memory)
        const found = (yield* again.map(Accounts)).size
        isThere = found > 0
        expect([found, (yield* again.counter(Transfers)).current, again.status.current.pending])
          .toEqual(isThere ? [10, 3, 11] : [0, 0, 0])
      }
      expect(kept).toBeGreaterThan(2)
    }).pipe(Effect.scoped, inWorld()))
})

describe("a batch and backpressure", () => {
  const setBoth = (n: number) => (tx: { set: (map: string, key: string, value: number) => void }) => {
    tx.set("m", "a", n)
    tx.set("m", "b", n)
  }

  it.live("waits under pause until there is room for all of it", () =>
    Effect.gen(function*() {
      const client = yield* World.startClient("alice", { autoConnect: false, backpressure: { capacity: 3 } })
      const clock = yield* VirtualClock.VirtualClock
      const map = yield* client.map<number>("m")
      yield* map.set("x", 1)
      yield* map.set("y", 1)
      const waiting = yield* Effect.fork(client.batch(setBoth(1)))
      yield* clock.settle
      expect([map.size, client.status.current.pending]).toEqual([2, 2])
      yield* World.startServer()
      yield* client.connect
      yield* clock.runUntil(() => client.status.current.pending === 0)
      yield* Fiber.join(waiting)
      expect(Object.fromEntries(map)).toEqual({ x: 1, y: 1, a: 1, b: 1 })
    }).pipe(Effect.scoped, inWorld()))

  it.live("is refused under throw when there is no room for all of it", () =>
    Effect.gen(function*() {
      const backpressure = { capacity: 3, strategy: "throw" } as const
      const client = yield* World.startClient("alice", { autoConnect: false, backpressure })
      const map = yield* client.map<number>("m")
      yield* map.set("x", 1)
      yield* map.set("y", 1)
      const outcome = yield* Effect.either(client.batch(setBoth(1)))
      expect(Either.getLeft(outcome)).toMatchObject({ value: { _tag: "BackpressureError" } })
      expect([map.size, client.status.current.pending]).toEqual([2, 2])
    }).pipe(Effect.scoped, inWorld()))

  it.live("is dropped as a whole under drop-oldest", () =>
    Effect.gen(function*() {
      const backpressure = { capacity: 3, strategy: "drop-oldest" } as const
      const client = yield* World.startClient("alice", { autoConnect: false, backpressure })
      const clock = yield* VirtualClock.VirtualClock
      const map = yield* client.map<number>("m")
      const write = yield* client.batch(setBoth(1))
      const outcome = yield* Effect.fork(Effect.either(write.server))
      yield* clock.settle
      yield* map.set("x", 1)
      expect(Object.fromEntries(map)).toEqual({ a: 1, b: 1, x: 1 })
      yield* map.set("y", 1)
      expect(Object.fromEntries(map)).toEqual({ x: 1, y: 1 })
      expect(Either.getLeft(yield* Fiber.join(outcome))).toMatchObject({ value: { _tag: "WriteDropped" } })
      expect(client.status.current).toMatchObject({ pending: 2, rejected: 2 })
    }).pipe(Effect.scoped, inWorld()))
})

describe("a batch on the wire", () => {
  it.live("is messages in a row, and comes again as a whole on the next connection", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const network = yield* Network.SimulatedNetwork
      const received: Array<readonly [map: string, atomic: string, operations: number]> = []
      let current: Connection | undefined
      network.listen(World.serverAddress, (connection) => {
        current = connection
        const say = (message: Protocol.ServerMessage) => connection.send(Protocol.frame([Protocol.encode(message)]))
        connection.listen((frame) => {
          for (const message of Protocol.decodeFromClient(frame)) {
            if (message._tag === "Auth") say(welcome(clock.unsafeCurrentTimeMillis()))
            else if (message._tag === "SyncInit") say(inStep(message))
            else if (message._tag === "OpBatch") received.push([message.map, message.atomic, message.ops.length])
          }
        }, () => {})
      })
      const client = yield* World.startClient("alice")
      yield* clock.runUntil(() => client.status.current.state === "CONNECTED")
      const map = yield* client.map<number>("m")
      yield* Effect.all([
        map.set("before", 1),
        client.batch((tx) => {
          for (let n = 0; n < 450; n++) tx.set("m", `k${n}`, n)
          tx.add(Labels, "a", "x")
          tx.increment(Transfers)
        }),
        map.set("after", 1),
        client.batch((tx) => {
          tx.set("m", "b", 1)
          tx.set("m", "c", 1)
        })
      ])
      const expected = [
        ["m", "no", 1],
        ["m", "more", 450],
        ["labels", "more", 1],
        ["transfers", "end", 1],
        ["m", "no", 1],
        ["m", "end", 2]
      ]
      yield* clock.runUntil(() => received.length >= expected.length)
      expect(received).toEqual(expected)
      received.length = 0
      current!.close(1001, "restart")
      yield* clock.runUntil(() => received.length >= expected.length)
      expect(received).toEqual(expected)
      yield* client.close
      received.length = 0
      yield* World.startClient("alice", {}, client.device)
      yield* clock.runUntil(() => received.length >= expected.length)
      expect(received).toEqual(expected)
    }).pipe(Effect.scoped, inWorld()))
})
