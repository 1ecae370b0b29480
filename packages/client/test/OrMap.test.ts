import { describe, it } from "@effect/vitest"
import * as Grid from "@topgun/core/Grid"
import * as Storage from "@topgun/core/Storage"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { expect } from "vitest"
import { connected, inWorld, startWrong } from "./worlds.ts"

const Tags = Grid.orMap("tags", Schema.String)

describe("a map of sets", () => {
  it.live("is written and read without a server", () =>
    Effect.gen(function*() {
      const client = yield* World.startClient("alice", { autoConnect: false })
      const tags = yield* client.orMap(Tags)
      expect(tags.getValues("post")).toEqual([])
      yield* tags.add("post", "draft")
      yield* tags.add("post", "long")
      yield* tags.add("other", "draft")
      expect(tags.getValues("post")).toEqual(["draft", "long"])
      expect(tags.getValues("post")).toBe(tags.getValues("post"))
      expect(Object.isFrozen(tags.getValues("post"))).toBe(true)
      yield* tags.remove("post", "draft")
      yield* tags.remove("post", "never there")
      expect(Object.fromEntries(tags)).toEqual({ post: ["long"], other: ["draft"] })
      expect([[...tags.keys()], tags.size, tags.has("post")]).toEqual([["post", "other"], 2, true])
      yield* tags.removeAll("post")
      expect([tags.has("post"), tags.size]).toEqual([false, 1])
      yield* tags.clear()
      expect([...tags.entries()]).toEqual([])
    }).pipe(Effect.scoped, inWorld()))

  it.live("knows values by what they are, not by which object they are", () =>
    Effect.gen(function*() {
      const client = yield* World.startClient("alice", { autoConnect: false })
      const map = yield* client.orMap<unknown>("m")
      yield* map.add("k", { a: 1, b: [2] })
      yield* map.add("k", { b: [2], a: 1 })
      expect(map.getValues("k")).toEqual([{ a: 1, b: [2] }])
      yield* map.remove("k", { b: [2], a: 1 })
      expect(map.getValues("k")).toEqual([])
    }).pipe(Effect.scoped, inWorld()))

  it.live("refuses what has no form or doesn't fit its schema, and nothing is changed", () =>
    Effect.gen(function*() {
      const client = yield* World.startClient("alice", { autoConnect: false })
      const tags = yield* client.orMap(Tags)
      const tagOf = <A, E extends { readonly _tag: string }>(effect: Effect.Effect<A, E>) =>
        Effect.map(Effect.either(effect), (outcome) => Either.isLeft(outcome) ? outcome.left._tag : undefined)
      expect(yield* tagOf(tags.add("k", 1 as never))).toBe("SchemaMismatch")
      expect(yield* tagOf(tags.add("k".repeat(2_000), "v"))).toBe("RecordTooLarge")
      expect(yield* tagOf(tags.add("k", "v", { ttlMs: 0 }))).toBe("ValueNotSupported")
      expect([tags.size, client.status.current.pending]).toEqual([0, 0])
    }).pipe(Effect.scoped, inWorld()))

  it.live("keeps what one device adds while another removes it", () =>
    Effect.gen(function*() {
      const { client: alice, clock, network, server } = yield* connected()
      const bob = yield* World.startClient("bob")
      const hers = yield* alice.orMap(Tags)
      const his = yield* bob.orMap(Tags)
      yield* hers.add("post", "x")
      yield* hers.add("post", "y")
      yield* clock.runUntil(() => his.getValues("post").length === 2)
      network.cut("bob")
      yield* his.add("post", "x")
      yield* his.remove("post", "y")
      yield* hers.removeAll("post")
      yield* hers.add("post", "z")
      yield* clock.runUntil(() => alice.status.current.pending === 0)
      network.heal("bob")
      yield* clock.runUntil(() => bob.status.current.pending === 0 && hers.digest === his.digest)
      expect([...hers.getValues("post")].sort()).toEqual(["x", "z"])
      expect(his.getValues("post")).toEqual(hers.getValues("post"))
      expect((yield* server.status).maps).toMatchObject([{ name: "tags", root: hers.digest, size: 1 }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("tells of changes key by key, with the values before", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* connected()
      const bob = yield* World.startClient("bob")
      const hers = yield* client.orMap(Tags)
      const his = yield* bob.orMap(Tags)
      const seen: Array<unknown> = []
      hers.subscribe((changes) => void seen.push(...changes))
      const watched = yield* Effect.fork(Stream.runCollect(Stream.take(hers.watch("k"), 3)))
      yield* clock.settle
      yield* hers.add("k", "a")
      // One tag more of the same value shows nothing new.
      yield* hers.add("k", "a")
      yield* clock.runUntil(() => his.has("k"))
      yield* his.add("k", "b")
      yield* clock.runUntil(() => hers.getValues("k").length === 2)
      yield* hers.remove("k", "a")
      expect(seen).toEqual([
        { key: "k", value: ["a"], previous: [], origin: "local" },
        { key: "k", value: ["a", "b"], previous: ["a"], origin: "remote" },
        { key: "k", value: ["b"], previous: ["a", "b"], origin: "local" }
      ])
      expect(Chunk.toReadonlyArray(yield* Fiber.join(watched))).toEqual([[], ["a"], ["a", "b"]])
    }).pipe(Effect.scoped, inWorld()))

  it.live("lets single values expire, on every device at the same moment", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* connected()
      const bob = yield* World.startClient("bob")
      const hers = yield* client.orMap(Tags)
      const his = yield* bob.orMap(Tags)
      const seen: Array<unknown> = []
      his.subscribe((changes) => void seen.push(...changes.map(({ value }) => value)))
      yield* hers.add("k", "short", { ttlMs: 60_000 })
      yield* hers.add("k", "long")
      yield* clock.runUntil(() => his.getValues("k").length === 2)
      yield* clock.advance("1 minute")
      expect([hers.getValues("k"), his.getValues("k")]).toEqual([["long"], ["long"]])
      expect(seen.at(-1)).toEqual(["long"])
    }).pipe(Effect.scoped, inWorld()))

  it.live("is there again after a restart, with what wasn't sent", () =>
    Effect.gen(function*() {
      const { client, clock, network, server } = yield* connected()
      const hers = yield* client.orMap(Tags)
      yield* hers.add("k", "a")
      yield* hers.add("k", "b")
      yield* clock.runUntil(() => client.status.current.pending === 0)
      network.cut("alice")
      yield* hers.remove("k", "a")
      yield* hers.add("k", "c")
      yield* client.close
      const again = yield* World.startClient("alice", {}, client.device)
      const same = yield* again.orMap(Tags)
      expect(same.getValues("k")).toEqual(["b", "c"])
      expect(again.status.current.pending).toBe(2)
      network.heal("alice")
      yield* clock.runUntil(() => again.status.current.pending === 0)
      expect((yield* server.status).maps).toMatchObject([{ root: same.digest, records: 3 }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("takes back a refused addition and a refused removal, keeps both, and tries them again", () =>
    Effect.gen(function*() {
      const { client, clock, server } = yield* connected()
      const tags = yield* client.orMap(Tags)
      yield* tags.add("k", "a")
      yield* clock.runUntil(() => client.status.current.pending === 0)
      // One node can't replicate.
      yield* tags.add("k", "b", { writeConcern: "REPLICATED", ttlMs: 60_000 })
      yield* tags.remove("k", "a", { writeConcern: "REPLICATED" })
      expect(tags.getValues("k")).toEqual(["b"])
      yield* clock.runUntil(() => client.status.current.rejected === 2)
      expect(tags.getValues("k")).toEqual(["a"])
      expect(client.rejectedWrites.current).toMatchObject([
        { map: "tags", kind: "or", key: "k", change: "add", value: "b", ttlMs: 60_000 },
        { map: "tags", kind: "or", key: "k", change: "remove", value: "a" }
      ])
      yield* client.close
      const again = yield* World.startClient("alice", {}, client.device)
      const same = yield* again.orMap(Tags)
      expect(same.getValues("k")).toEqual(["a"])
      for (const { id } of again.rejectedWrites.current) yield* again.rejectedWrites.retry(id)
      expect(same.getValues("k")).toEqual(["b"])
      yield* clock.runUntil(() => again.status.current.state === "CONNECTED" && again.status.current.pending === 0)
      expect(again.status.current.rejected).toBe(0)
      expect((yield* server.status).maps).toMatchObject([{ root: same.digest }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("keeps the tag of an addition that others may have seen, and taken out, though its clock was wrong", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const network = yield* Network.SimulatedNetwork
      yield* World.startServer()
      const error = { millis: 0 }
      const wrong = yield* startWrong("wrong", error)
      const bob = yield* World.startClient("bob")
      const hers = yield* wrong.orMap<string>("tags")
      const his = yield* bob.orMap<string>("tags")
      yield* clock.runUntil(() =>
        wrong.status.current.state === "CONNECTED" && bob.status.current.state === "CONNECTED"
      )
      // It is taken, and she isn't told.
      network.cut("wrong", "toClient")
      yield* hers.add("k", "x")
      yield* clock.runUntil(() => his.getValues("k").length === 1)
      yield* his.remove("k", "x")
      error.millis = -90_000
      yield* clock.advance("1 second")
      network.heal()
      yield* clock.advance("1 minute")
      expect(wrong.status.current).toMatchObject({ state: "CONNECTED", pending: 0 })
      expect([hers.getValues("k"), his.getValues("k")]).toEqual([[], []])
      expect(hers.digest).toBe(his.digest)
    }).pipe(Effect.scoped, inWorld()))

  it.live("tells listeners of the order of its values when stamps of a wrong clock change it", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const network = yield* Network.SimulatedNetwork
      yield* World.startServer()
      const error = { millis: 0 }
      const wrong = yield* startWrong("wrong", error)
      const bob = yield* World.startClient("bob")
      const hers = yield* wrong.orMap<string>("tags")
      const his = yield* bob.orMap<string>("tags")
      yield* clock.runUntil(() =>
        wrong.status.current.state === "CONNECTED" && bob.status.current.state === "CONNECTED"
      )
      network.cut("wrong", "toServer")
      yield* hers.add("k", "hers", { ttlMs: 3_600_000 })
      yield* clock.advance("1 second")
      yield* his.add("k", "his")
      yield* clock.runUntil(() => hers.getValues("k").length === 2)
      let told = hers.getValues("k")
      expect(told).toEqual(["hers", "his"])
      hers.subscribe((changes) => {
        for (const { value = [] } of changes) told = value
      })
      error.millis = -90_000
      network.heal()
      yield* clock.advance("1 minute")
      expect(his.getValues("k")).toEqual(["his", "hers"])
      expect(told).toEqual(["his", "hers"])
    }).pipe(Effect.scoped, inWorld()))

  it.live("stamps additions of a wrong clock anew, and their removals with them", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const server = yield* World.startServer()
      const hers = yield* World.startClient("alice")
      const tags = yield* hers.orMap(Tags)
      yield* tags.add("k", "hers")
      yield* clock.runUntil(() => hers.status.current.pending === 0)
      const bob = yield* startWrong("bob", { millis: 3_600_000 }, { autoConnect: false })
      const his = yield* bob.orMap(Tags)
      yield* his.add("k", "kept")
      yield* his.add("k", "gone")
      yield* his.remove("k", "gone")
      yield* bob.connect
      yield* clock.runUntil(() => bob.status.current.pending === 0 && tags.digest === his.digest, {
        within: "5 minutes"
      })
      expect(his.getValues("k")).toEqual(["hers", "kept"])
      expect(tags.getValues("k")).toEqual(["hers", "kept"])
      expect(bob.status.current.rejected).toBe(0)
      expect((yield* server.status).maps).toMatchObject([{ root: tags.digest, records: 3 }])
    }).pipe(Effect.scoped, inWorld()))
})

describe("a map's kind", () => {
  it.live("is the one that it was opened with first: using it as another is a defect that says so", () =>
    Effect.gen(function*() {
      const device = Storage.memory()
      const client = yield* World.startClient("alice", { autoConnect: false }, device)
      yield* client.orMap("m")
      const kinds = [client.map("m"), client.counter("m"), client.batch((tx) => tx.set("m", "k", 1))]
      for (const used of kinds) {
        const exit = yield* Effect.exit(used as Effect.Effect<unknown>)
        expect(Exit.isFailure(exit) && exit.cause).toMatchObject({
          _tag: "Die",
          defect: { _tag: "MapKindMismatch", map: "m", expected: "or" }
        })
      }
      yield* client.close
      const faults: Array<unknown> = []
      const again = yield* World.startClient("alice", {
        autoConnect: false,
        grid: [Grid.map("m"), Grid.map("n")],
        onError: (fault) => void faults.push(fault)
      }, device)
      expect(faults).toMatchObject([{ _tag: "MapKindMismatch", map: "m", expected: "or", actual: "lww" }])
      expect((yield* again.orMap("m")).size).toBe(0)
    }).pipe(Effect.scoped, inWorld()))

  it.live("is the server's too: a map of another kind there is reported, and its writes are refused one by one", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* connected()
      yield* (yield* client.map("m")).set("k", 1)
      yield* clock.runUntil(() => client.status.current.pending === 0)
      const faults: Array<unknown> = []
      const bob = yield* World.startClient("bob", { onError: (fault) => void faults.push(fault) })
      const his = yield* bob.orMap<number>("m")
      const fine = yield* bob.orMap<number>("fine")
      yield* his.add("k", 1)
      yield* fine.add("k", 1)
      yield* clock.runUntil(() => bob.status.current.pending === 0)
      expect(faults).toMatchObject([{ _tag: "MapRefused", map: "m" }, { _tag: "WriteRejected", map: "m" }])
      expect(bob.status.current).toMatchObject({ state: "CONNECTED", rejected: 1 })
      expect([his.getValues("k"), fine.getValues("k")]).toEqual([[], [1]])
    }).pipe(Effect.scoped, inWorld()))
})
