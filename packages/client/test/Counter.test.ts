import { describe, it } from "@effect/vitest"
import * as Grid from "@topgun/core/Grid"
import * as Storage from "@topgun/core/Storage"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { expect } from "vitest"
import { connected, inWorld, startWrong } from "./worlds.ts"

const Likes = Grid.counter("likes")

describe("a counter", () => {
  it.live("counts without a server, and can be listened to", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const client = yield* World.startClient("alice", { autoConnect: false })
      const likes = yield* client.counter(Likes)
      const heard: Array<number> = []
      const stop = likes.subscribe((value) => void heard.push(value))
      const watched = yield* Effect.fork(Stream.runCollect(Stream.take(likes.watch(), 3)))
      yield* clock.settle
      expect(likes.current).toBe(0)
      yield* likes.increment()
      yield* likes.increment(10)
      stop()
      yield* likes.decrement(4)
      yield* likes.increment(0)
      expect(likes.current).toBe(7)
      expect(heard).toEqual([1, 11])
      expect(Chunk.toReadonlyArray(yield* Fiber.join(watched))).toEqual([0, 1, 11])
    }).pipe(Effect.scoped, inWorld()))

  it.live("refuses what it can't count by, or to, and nothing is changed", () =>
    Effect.gen(function*() {
      const client = yield* World.startClient("alice", { autoConnect: false })
      const likes = yield* client.counter(Likes)
      for (const by of [-1, 0.5, Number.NaN, 2 ** 53]) {
        expect(Either.getLeft(yield* Effect.either(likes.increment(by)))).toMatchObject({
          value: { _tag: "ValueNotSupported", path: "by" }
        })
      }
      expect(client.status.current.pending).toBe(0)
      yield* likes.increment(Number.MAX_SAFE_INTEGER)
      expect(Either.getLeft(yield* Effect.either(likes.increment()))).toMatchObject({
        value: { _tag: "CounterOverflow" }
      })
      expect(likes.current).toBe(Number.MAX_SAFE_INTEGER)
    }).pipe(Effect.scoped, inWorld()))

  it.live("is the sum of what all devices counted, whoever was offline meanwhile", () =>
    Effect.gen(function*() {
      const { client: alice, clock, network, server } = yield* connected()
      const bob = yield* World.startClient("bob")
      const hers = yield* alice.counter(Likes)
      const his = yield* bob.counter("likes")
      yield* hers.increment(5)
      yield* clock.runUntil(() => his.current === 5)
      const heard: Array<number> = []
      hers.subscribe((value) => void heard.push(value))
      network.cut("bob")
      for (let n = 0; n < 10; n++) yield* his.increment()
      yield* his.decrement(3)
      yield* hers.increment(100)
      expect([hers.current, his.current]).toEqual([105, 12])
      network.heal("bob")
      yield* clock.runUntil(() => hers.current === 112 && his.current === 112)
      expect(heard).toEqual([105, 112])
      yield* clock.runUntil(() => alice.status.current.pending + bob.status.current.pending === 0)
      expect(his.digest).toBe(hers.digest)
      expect((yield* server.status).maps).toMatchObject([{ name: "likes", root: hers.digest, size: 1, records: 2 }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("sends many changes that wait as one", () =>
    Effect.gen(function*() {
      const { client, clock, network } = yield* connected()
      const likes = yield* client.counter(Likes)
      yield* clock.advance("1 second")
      const sentBefore = network.traffic("alice", World.serverAddress).toServer.bytes
      const writes = yield* Effect.forEach(Array.from({ length: 500 }), () => Effect.fork(likes.increment()))
      const ack = yield* Effect.fork(Effect.flatMap(Fiber.join(writes[0]!), ({ server }) => server))
      expect(yield* Effect.map(clock.runUntil(() => client.status.current.pending === 0), () => likes.current)).toBe(
        500
      )
      // What replaced the write contains it.
      expect(yield* Fiber.join(ack)).not.toHaveProperty("superseded")
      expect(network.traffic("alice", World.serverAddress).toServer.bytes - sentBefore).toBeLessThan(500)
    }).pipe(Effect.scoped, inWorld()))

  it.live("is there again after a restart, with what wasn't sent", () =>
    Effect.gen(function*() {
      const { client, clock, network, server } = yield* connected()
      const likes = yield* client.counter(Likes)
      yield* likes.increment(2)
      yield* clock.runUntil(() => client.status.current.pending === 0)
      network.cut("alice")
      yield* likes.increment(3)
      yield* client.close
      const again = yield* World.startClient("alice", {}, client.device)
      const same = yield* again.counter(Likes)
      expect([same.current, again.status.current.pending]).toEqual([5, 1])
      yield* same.increment(5)
      network.heal("alice")
      yield* clock.runUntil(() => again.status.current.pending === 0)
      expect((yield* server.status).maps).toMatchObject([{ root: same.digest, records: 1 }])
      expect(same.current).toBe(10)
    }).pipe(Effect.scoped, inWorld()))

  it.live("sends no change that a crash could still take back: later ones would be counted over it", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      yield* World.startServer()
      const memory = Storage.memory()
      let isSlow = false
      let crash = (): void => {}
      const crashed = new Promise<never>((_, reject) => {
        crash = () => reject(new Error("the device has crashed"))
      })
      crashed.catch(() => {})
      const client = yield* World.startClient("alice", {}, {
        ...memory,
        commit: (writes) => isSlow ? crashed : memory.commit(writes)
      })
      const likes = yield* client.counter(Likes)
      const bob = yield* World.startClient("bob")
      const his = yield* bob.counter(Likes)
      yield* clock.runUntil(() =>
        client.status.current.state === "CONNECTED" && bob.status.current.state === "CONNECTED"
      )
      yield* likes.increment(1)
      yield* clock.advance("1 second")
      isSlow = true
      yield* Effect.fork(likes.increment(5))
      yield* clock.advance("1 second")
      crash()
      yield* client.close
      const again = yield* World.startClient("alice", {}, memory)
      const same = yield* again.counter(Likes)
      yield* same.increment(3)
      yield* clock.runUntil(() => again.status.current.state === "CONNECTED" && again.status.current.pending === 0)
      yield* clock.advance("1 second")
      // What wasn't durable when the device crashed may be lost; what was is counted.
      expect([same.current, his.current]).toEqual([4, 4])
    }).pipe(Effect.scoped, inWorld()))

  it.live("takes back what is refused, keeps it durably, and can be asked to try it again", () =>
    Effect.gen(function*() {
      const { client, clock, server } = yield* connected()
      const likes = yield* client.counter(Likes)
      yield* likes.increment(10)
      yield* clock.runUntil(() => client.status.current.pending === 0)
      // One node can't replicate.
      yield* likes.decrement(4, { writeConcern: "REPLICATED" })
      expect(likes.current).toBe(6)
      yield* clock.runUntil(() => client.status.current.rejected === 1)
      expect(likes.current).toBe(10)
      yield* client.close
      const again = yield* World.startClient("alice", {}, client.device)
      const same = yield* again.counter(Likes)
      expect(again.rejectedWrites.current).toMatchObject([{
        kind: "counter",
        key: "likes",
        change: "count",
        value: -4
      }])
      expect(same.current).toBe(10)
      yield* again.rejectedWrites.retry(again.rejectedWrites.current[0]!.id)
      yield* clock.runUntil(() => again.status.current.state === "CONNECTED" && again.status.current.pending === 0)
      expect([same.current, again.status.current.rejected]).toEqual([6, 0])
      expect((yield* server.status).maps).toMatchObject([{ root: same.digest }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("lets a refused change live on in a later one that is taken", () =>
    Effect.gen(function*() {
      const { client, clock, network, server } = yield* connected()
      const likes = yield* client.counter(Likes)
      yield* clock.advance("1 second")
      network.shape("alice", { latencyMillis: 1_000 })
      const refused = yield* likes.increment(1, { writeConcern: "REPLICATED", timeoutMs: 10_000 })
      yield* clock.advance("100 millis")
      const taken = yield* likes.increment(10)
      const acks = yield* Effect.fork(Effect.all([refused.server, taken.server], { concurrency: 2, mode: "either" }))
      yield* clock.advance("100 millis")
      yield* clock.runUntil(() => client.status.current.pending === 0, { within: "1 minute" })
      expect(likes.current).toBe(11)
      expect(client.status.current.rejected).toBe(0)
      expect((yield* server.status).maps).toMatchObject([{ root: likes.digest }])
      yield* clock.advance("10 seconds")
      // It came to be applied, and that it is replicated nobody can say.
      expect(yield* Fiber.join(acks)).toMatchObject([
        { _tag: "Left", left: { _tag: "Indeterminate" } },
        { _tag: "Right", right: { level: "APPLIED" } }
      ])
    }).pipe(Effect.scoped, inWorld()))

  it.live("doesn't care what any clock says", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const server = yield* World.startServer()
      const alice = yield* World.startClient("alice")
      const hers = yield* alice.counter(Likes)
      const bob = yield* startWrong("bob", { millis: 10 * 365 * 86_400_000 }, { autoConnect: false })
      const his = yield* bob.counter(Likes)
      yield* his.increment(3)
      yield* hers.increment(4)
      yield* bob.connect
      yield* clock.runUntil(() => hers.current === 7 && his.current === 7)
      yield* clock.runUntil(() => bob.status.current.pending === 0)
      yield* his.increment(1)
      yield* clock.runUntil(() => hers.current === 8)
      expect(bob.faults).toEqual([])
      expect((yield* server.status).maps).toMatchObject([{ root: hers.digest }])
    }).pipe(Effect.scoped, inWorld()))
})
