import { describe, it } from "@effect/vitest"
import * as Protocol from "@topgun/core/Protocol"
import type { Connection } from "@topgun/core/Transport"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { expect } from "vitest"
import { connected, inStep, inWorld, remembering, welcome } from "./worlds.ts"

/** A server that answers nothing by itself beyond opening maps; what it says of operations is for the test to say. */
const scripted = Effect.gen(function*() {
  const clock = yield* VirtualClock.VirtualClock
  const network = yield* Network.SimulatedNetwork
  const received: Array<Protocol.OpTuple> = []
  let current: Connection | undefined
  const say = (message: Protocol.ServerMessage): void => current?.send(Protocol.frame([Protocol.encode(message)]))
  network.listen(World.serverAddress, (connection) => {
    current = connection
    connection.listen((frame) => {
      for (const message of Protocol.decodeFromClient(frame)) {
        if (message._tag === "Auth") say(welcome(clock.unsafeCurrentTimeMillis()))
        else if (message._tag === "SyncInit") say(inStep(message))
        else if (message._tag === "OpBatch") received.push(...message.ops)
        else if (message._tag === "Ping") {
          say({ _tag: "Pong", id: message.id, serverMillis: clock.unsafeCurrentTimeMillis() })
        }
      }
    }, () => {})
  })
  return { received, say }
})

describe("the log", () => {
  it.live("lets an operation go for its own durable acknowledgement or rejection, and for nothing else", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const { received, say } = yield* scripted
      const client = yield* World.startClient("alice")
      const map = yield* client.map<number>("m")
      yield* clock.runUntil(() => client.status.current.state === "CONNECTED")
      for (const key of ["a", "b", "c"]) yield* map.set(key, 1)
      yield* clock.runUntil(() => received.length === 3)
      const [a, b, c] = received.map(([sequence]) => sequence) as [number, number, number]
      const pendingAfter = Effect.fnUntraced(function*(message: Protocol.ServerMessage) {
        say(message)
        yield* clock.advance("1 second")
        return client.status.current.pending
      })
      const acknowledge = (...sequences: ReadonlyArray<number>): Protocol.ServerMessage => ({
        _tag: "OpAck",
        level: "APPLIED",
        replicas: 0,
        sequences
      })
      const reject = (sequence: number): Protocol.ServerMessage => ({
        _tag: "OpReject",
        sequence,
        cause: "WriteRejected",
        reason: "no"
      })
      // Nobody's operation; all, but none acknowledged; acknowledged, but not durable; durable up to before it.
      expect(yield* pendingAfter(acknowledge(c + 1_000))).toBe(3)
      expect(yield* pendingAfter(reject(c + 1_000))).toBe(3)
      expect(yield* pendingAfter({ _tag: "Durable", sequence: c + 1_000 })).toBe(3)
      expect(yield* pendingAfter(acknowledge(b))).toBe(3)
      expect(yield* pendingAfter({ _tag: "Durable", sequence: a })).toBe(3)
      expect(yield* pendingAfter({ _tag: "Durable", sequence: c })).toBe(2)
      expect(yield* pendingAfter(reject(a))).toBe(1)
      expect(client.status.current.rejected).toBe(1)
      yield* client.close

      received.length = 0
      const again = yield* World.startClient("alice", {}, client.device)
      yield* clock.runUntil(() => received.length === 1)
      expect(received[0]!.slice(0, 2)).toEqual([c, "c"])
      expect(again.status.current).toMatchObject({ state: "SYNCING", pending: 1, rejected: 1 })
    }).pipe(Effect.scoped, inWorld()))

  it.live("gives way to a refusal anywhere: told of once, undone, and the others go on", () =>
    Effect.gen(function*() {
      const faults: Array<unknown> = []
      const { client, clock, server } = yield* connected({ onError: (fault) => void faults.push(fault) })
      const map = yield* client.map<number>("m")
      for (let n = 0; n < 5; n++) yield* map.set(`k${n}`, -1)
      yield* clock.runUntil(() => client.status.current.pending === 0)
      for (let refused = 0; refused < 5; refused++) {
        for (let n = 0; n < 5; n++) {
          yield* map.set(`k${n}`, refused, { writeConcern: n === refused ? "REPLICATED" : "APPLIED" })
        }
        yield* clock.runUntil(() => client.status.current.pending === 0)
        expect(map.get(`k${refused}`)).toBe(refused - 1)
        expect(faults).toHaveLength(refused + 1)
        expect(client.status.current).toMatchObject({ state: "CONNECTED", rejected: refused + 1 })
        expect((yield* server.status).maps).toMatchObject([{ root: map.digest }])
      }
    }).pipe(Effect.scoped, inWorld()))
})

describe("a server that lost everything", () => {
  it.live("gets a record again though a later write to it, or count, is refused", () =>
    Effect.gen(function*() {
      const { client, clock, server } = yield* connected()
      const map = yield* client.map<number>("m")
      const hits = yield* client.counter("hits")
      yield* map.set("k", 1)
      yield* hits.increment(5)
      yield* clock.runUntil(() => client.status.current.pending === 0)
      yield* server.stop
      yield* map.set("k", 2, { writeConcern: "REPLICATED" })
      yield* hits.increment(1, { writeConcern: "REPLICATED" })
      const empty = yield* World.startServer()
      yield* clock.runUntil(() => client.status.current.rejected === 2)
      yield* clock.advance("2 seconds")
      expect(client.status.current).toMatchObject({ state: "CONNECTED", pending: 0 })
      expect((yield* empty.status).maps).toMatchObject([{ root: map.digest }, { root: hits.digest }])
    }).pipe(Effect.scoped, inWorld()))
})

describe("a full outbox", () => {
  it.live("drops back to the write before, where that one is still on its way", () =>
    Effect.gen(function*() {
      const { client, clock, network } = yield* connected({
        backpressure: { strategy: "drop-oldest", capacity: 1 }
      })
      const map = yield* client.map<number>("m")
      yield* clock.advance("1 second")
      network.cut("alice")
      yield* map.set("k", 1)
      yield* clock.advance("100 millis")
      yield* client.disconnect
      yield* map.set("k", 2)
      yield* map.set("other", 1)
      expect(map.get("k")).toBe(1)
      yield* client.close
      const again = yield* World.startClient("alice", { autoConnect: false }, client.device)
      expect(Object.fromEntries(yield* again.map<number>("m"))).toEqual({ k: 1, other: 1 })
    }).pipe(Effect.scoped, inWorld()))

  it.live("refuses those who wait for room when the client closes", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const client = yield* World.startClient("alice", {
        autoConnect: false,
        backpressure: { strategy: "pause", capacity: 1 }
      })
      const map = yield* client.map<number>("m")
      yield* map.set("a", 1)
      const waiting = yield* Effect.fork(Effect.either(map.set("b", 1)))
      yield* clock.settle
      yield* client.close
      yield* clock.settle
      expect(Exit.isExit(yield* Fiber.poll(waiting).pipe(Effect.map((_) => _._tag === "Some" ? _.value : undefined))))
        .toBe(true)
      expect(Either.getLeft(yield* Fiber.join(waiting))).toMatchObject({ value: { _tag: "ClientClosed" } })
    }).pipe(Effect.scoped, inWorld()))

  it.live("sends what it took, though an update that waited for room throws", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const faults: Array<unknown> = []
      const client = yield* World.startClient("alice", {
        autoConnect: false,
        onError: (fault) => void faults.push(fault),
        backpressure: { strategy: "pause", capacity: 2 }
      })
      const map = yield* client.map<number>("m")
      yield* map.set("a", 1)
      yield* map.set("b", 1)
      let calls = 0
      const waiting = yield* Effect.fork(Effect.exit(map.update("c", () => {
        if (calls++ > 0) throw new Error("mine")
        return 1
      })))
      yield* clock.settle
      const server = yield* World.startServer()
      yield* client.connect
      yield* clock.advance("1 minute")
      expect(client.status.current).toMatchObject({ state: "CONNECTED", pending: 0 })
      expect((yield* server.status).maps).toMatchObject([{ name: "m", size: 2 }])
      const exit = yield* Fiber.join(waiting)
      expect(Exit.isFailure(exit) && Cause.squash(exit.cause)).toMatchObject({ message: "mine" })
      expect(faults).toMatchObject([{ message: "mine" }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("is judged after an update's function has run, which may write itself", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const client = yield* World.startClient("alice", {
        autoConnect: false,
        backpressure: { strategy: "throw", capacity: 1 }
      })
      const map = yield* client.map<number>("m")
      const outcome = yield* Effect.either(map.update("a", () => {
        Effect.runFork(map.set("b", 1))
        return 1
      }))
      expect(Either.getLeft(outcome)).toMatchObject({ value: { _tag: "BackpressureError" } })
      expect(Object.fromEntries(map)).toEqual({ b: 1 })
      yield* World.startServer()
      yield* client.connect
      yield* clock.runUntil(() => client.status.current.pending === 0)
    }).pipe(Effect.scoped, inWorld()))
})

describe("a closed client", () => {
  it.live("answers who asks for an acknowledgement, and is disconnected", () =>
    Effect.gen(function*() {
      const { client, clock, network } = yield* connected()
      const map = yield* client.map<number>("m")
      network.cut("alice")
      const write = yield* map.set("k", 1)
      const synced = yield* Effect.fork(client.synced)
      yield* clock.settle
      yield* client.close
      expect(client.status.current.state).toBe("DISCONNECTED")
      const asked = yield* Effect.fork(Effect.either(write.server))
      yield* clock.settle
      expect(Either.getLeft(yield* Fiber.join(asked).pipe(Effect.timeout("1 second")))).toMatchObject({
        value: { _tag: "ClientClosed" }
      })
      expect((yield* Fiber.poll(synced))._tag).toBe("Some")
    }).pipe(Effect.scoped, inWorld()))
})

describe("rejected writes", () => {
  it.live("stay when trying again is refused", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* connected({ backpressure: { strategy: "throw", capacity: 1 } })
      const map = yield* client.map<number>("m")
      yield* map.set("k", 1, { writeConcern: "REPLICATED" })
      yield* clock.runUntil(() => client.status.current.rejected === 1)
      yield* client.disconnect
      yield* map.set("full", 1)
      const [rejected] = client.rejectedWrites.current
      const outcome = yield* Effect.either(client.rejectedWrites.retry(rejected!.id))
      expect(Either.isLeft(outcome)).toBe(true)
      expect(client.rejectedWrites.current).toMatchObject([{ key: "k", value: 1 }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("are tried again once, however often one asks, and after a crash at any transaction are in the list or on their way", () =>
    Effect.gen(function*() {
      const disk = remembering()
      const { client, clock } = yield* connected({}, disk.device)
      const hits = yield* client.counter("hits")
      yield* hits.increment(5, { writeConcern: "REPLICATED" })
      yield* clock.runUntil(() => client.status.current.rejected === 1)
      yield* clock.advance("1 second")
      yield* client.disconnect
      const from = disk.commits()
      const { id } = client.rejectedWrites.current[0]!
      yield* Effect.all([1, 2, 3].map(() => client.rejectedWrites.retry(id)), { concurrency: 3 })
      expect(hits.current).toBe(5)
      yield* client.close
      for (let commits = from; commits <= disk.commits(); commits++) {
        const { device } = yield* disk.copy(commits)
        const again = yield* World.startClient("alice", { autoConnect: false }, device)
        const { pending, rejected } = again.status.current
        expect([pending, rejected, (yield* again.counter("hits")).current])
          .toEqual(commits === from ? [0, 1, 0] : [1, 0, 5])
        yield* again.close
      }
    }).pipe(Effect.scoped, inWorld()))

  it.live("are bounded whatever their values are", () =>
    Effect.gen(function*() {
      const faults: Array<unknown> = []
      const { client, clock } = yield* connected({ onError: (fault) => void faults.push(fault) })
      const map = yield* client.map<bigint>("m")
      for (let n = 0; n < 1_001; n++) yield* Effect.fork(map.set(`k${n}`, BigInt(n), { writeConcern: "REPLICATED" }))
      yield* clock.advance("1 minute")
      expect(client.status.current).toMatchObject({ state: "CONNECTED", pending: 0, rejected: 1_000 })
      expect(faults.map(String).filter((fault) => fault.includes("forgotten"))).toHaveLength(1)
    }).pipe(Effect.scoped, inWorld()))
})
