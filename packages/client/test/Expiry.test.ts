import { assert, describe, it } from "@effect/vitest"
import { createClient } from "@topgun/client/promise"
import * as Storage from "@topgun/core/Storage"
import { startClient, startServer } from "@topgun/testing/World"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import { Effect } from "effect"
import { connected, inWorld } from "./worlds.ts"

describe("A value with a lifetime", () => {
  it.live("is gone on every device when that has passed, which listeners are told of once", () =>
    Effect.gen(function*() {
      const { client: alice, clock } = yield* connected()
      const bob = yield* startClient("bob")
      const [mine, theirs] = [yield* alice.map<string>("m"), yield* bob.map<string>("m")]
      const told: Array<readonly [who: string, value: unknown, previous: unknown, origin: string]> = []
      mine.subscribe((changes) => {
        for (const { origin, previous, value } of changes) told.push(["alice", value, previous, origin])
      })
      theirs.subscribe((changes) => {
        for (const { origin, previous, value } of changes) told.push(["bob", value, previous, origin])
      })
      const watched: Array<unknown> = []
      theirs.live("k").subscribe((value) => watched.push(value))
      yield* mine.set("k", "x", { ttlMs: 10_000 })
      yield* mine.set("stays", "y")
      yield* clock.runUntil(() => theirs.get("k") === "x" && theirs.has("stays"))
      yield* clock.advance("9 seconds")
      assert.strictEqual(mine.get("k"), "x")
      yield* clock.advance("2 seconds")
      for (const map of [mine, theirs]) {
        assert.isFalse(map.has("k"))
        assert.deepStrictEqual(Array.from(map.keys()), ["stays"])
      }
      yield* clock.advance("1 minute")
      // The server has made a tombstone of it, as of everything that is over.
      assert.strictEqual(mine.digest, theirs.digest)
      assert.isTrue(mine.getRecord("k")?.isTombstone)
      assert.deepStrictEqual(watched, ["x", undefined])
      assert.deepStrictEqual(told.filter(([who, , previous]) => who === "alice" && previous === "x"), [
        ["alice", undefined, "x", "local"]
      ])
      assert.deepStrictEqual(told.filter(([who, , previous]) => who === "bob" && previous === "x"), [
        ["bob", undefined, "x", "local"]
      ])
    }).pipe(Effect.scoped, inWorld()))

  it.live("lives on when another write takes its place, with that one's lifetime or none", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* connected()
      const map = yield* client.map<number>("m")
      let changes = 0
      map.subscribe((some) => {
        changes += some.length
      })
      for (const key of ["longer", "for ever", "shorter"]) yield* map.set(key, 1, { ttlMs: 10_000 })
      yield* map.set("longer", 2, { ttlMs: 60_000 })
      yield* map.set("for ever", 2)
      yield* map.set("shorter", 2, { ttlMs: 5_000 })
      yield* clock.advance("6 seconds")
      assert.deepStrictEqual(Array.from(map.entries()), [["longer", 2], ["for ever", 2]])
      yield* clock.advance("30 seconds")
      assert.deepStrictEqual(Array.from(map.entries()), [["longer", 2], ["for ever", 2]])
      yield* clock.advance("30 seconds")
      assert.deepStrictEqual(Array.from(map.entries()), [["for ever", 2]])
      assert.strictEqual(changes, 6 + 2)
    }).pipe(Effect.scoped, inWorld()))

  it.live("is nothing that a listener hears of when it comes too late, or was over before the next write", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* connected()
      const map = yield* client.map<string>("m")
      const sets = yield* client.orMap<string>("s")
      const bob = yield* startClient("bob")
      const late = yield* bob.map<string>("m")
      const lateSets = yield* bob.orMap<string>("s")
      yield* clock.runUntil(() => bob.status.current.state === "CONNECTED")
      yield* client.disconnect
      const told: Array<unknown> = []
      for (const [who, own] of [["alice", map], ["bob", late]] as const) {
        own.subscribe((changes) => told.push(...changes.map(({ previous, value }) => [who, previous, value])))
      }
      lateSets.subscribe((changes) => told.push(...changes))
      yield* map.set("k", "first", { ttlMs: 1_000 })
      yield* sets.add("k", "first", { ttlMs: 1_000 })
      yield* clock.advance("5 seconds")
      yield* client.connect
      yield* clock.runUntil(() => client.status.current.state === "CONNECTED")
      yield* clock.advance("5 seconds")
      yield* map.set("k", "second")
      yield* clock.advance("1 second")
      assert.deepStrictEqual(told.filter((change) => Array.isArray(change) && (change[1] ?? change[2]) !== undefined), [
        ["alice", undefined, "first"],
        ["alice", "first", undefined],
        ["alice", undefined, "second"],
        ["bob", undefined, "second"]
      ])
      assert.deepStrictEqual(told.filter((change) => !Array.isArray(change)), [])
    }).pipe(Effect.scoped, inWorld()))

  it.live("is told of at its time, though the device was restarted and the time is months away", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      yield* startServer()
      const device = Storage.memory()
      const first = yield* startClient("alice", { autoConnect: false }, device)
      const before = yield* first.map<string>("m")
      yield* before.set("soon", "x", { ttlMs: 1_000 })
      yield* before.set("late", "x", { ttlMs: 60 * 24 * 3_600_000 })
      yield* first.close
      yield* clock.advance("2 seconds")
      const second = yield* startClient("alice", { autoConnect: false }, device)
      const map = yield* second.map<string>("m")
      const gone: Array<string> = []
      map.subscribe((changes) => gone.push(...changes.map(({ key }) => key)))
      assert.deepStrictEqual(Array.from(map.keys()), ["late"])
      yield* clock.advance("59 days")
      assert.deepStrictEqual([gone, map.has("late")], [[], true])
      yield* clock.advance("2 days")
      assert.deepStrictEqual([gone, map.has("late")], [["late"], false])
    }).pipe(Effect.scoped, inWorld()))

  it("is refused at once, with nothing changed, when the lifetime is none", async () => {
    await using client = createClient({})
    const map = client.map<number>("m")
    const lifetimes = [0, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]
    for (const ttlMs of lifetimes) assert.throws(() => map.set("k", 1, { ttlMs }), /whole number of milliseconds/)
    await client.ready()
    for (const ttlMs of lifetimes) assert.throws(() => map.set("k", 1, { ttlMs }), /whole number of milliseconds/)
    assert.strictEqual(client.status.current.pending, 0)
    assert.isFalse(map.has("k"))
    await map.set("k", 1, { ttlMs: 2 ** 32 })
    assert.strictEqual(map.get("k"), 1)
  })
})
