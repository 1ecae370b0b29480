import { describe, it } from "@effect/vitest"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import { connected, fragile, inWorld } from "./worlds.ts"

describe("listeners", () => {
  it.live("hear of changes in their order, though one of them writes", () =>
    Effect.gen(function*() {
      const client = yield* World.startClient("alice", { autoConnect: false })
      const map = yield* client.map<number>("m")
      const seen: Array<unknown> = []
      map.subscribe((changes) => {
        if (changes[0]!.value === 1) Effect.runFork(map.set("k", 2))
      })
      map.subscribe((changes) => seen.push(...changes.map(({ previous, value }) => [previous, value])))
      const watched: Array<unknown> = []
      map.live("k").subscribe((value) => watched.push(value))
      yield* map.set("k", 1)
      expect(seen).toEqual([[undefined, 1], [1, 2]])
      expect(watched).toEqual([1, 2])
    }).pipe(Effect.scoped, inWorld()))

  it.live("hear once of a key that several records of one step are about, with what it was before the step", () =>
    Effect.gen(function*() {
      const { client, clock, network } = yield* connected()
      const theirs = yield* client.map<number>("m")
      yield* theirs.set("k", 0)
      const bob = yield* World.startClient("bob", { autoConnect: false })
      const map = yield* bob.map<number>("m")
      yield* bob.connect
      yield* clock.runUntil(() => map.get("k") === 0)
      const told: Array<unknown> = []
      map.subscribe((changes) => told.push(...changes.map(({ key, previous, value }) => [key, previous, value])))
      // Both are sent, get lost, and are sent again together.
      network.cut("alice")
      for (const value of [1, 2]) {
        yield* theirs.set("k", value)
        yield* clock.advance("1 second")
      }
      network.heal()
      yield* clock.runUntil(() => map.get("k") === 2)
      expect(told).toEqual([["k", 0, 2]])
    }).pipe(Effect.scoped, inWorld()))

  it.live("may throw, and so may the one who is told of it", () =>
    Effect.gen(function*() {
      const { device, state } = fragile()
      const clock = yield* VirtualClock.VirtualClock
      const client = yield* World.startClient("alice", {
        autoConnect: false,
        onError: () => {
          throw new Error("the last one")
        }
      }, device)
      const map = yield* client.map<number>("m")
      map.subscribe(() => {
        throw new Error("mine")
      })
      state.broken = true
      yield* Effect.ignore(map.set("k", 1))
      state.broken = false
      yield* clock.runUntil(() => client.status.current.storage.fault === undefined)
      yield* map.set("k", 2)
      expect(map.get("k")).toBe(2)
    }).pipe(Effect.scoped, inWorld()))
})
