import { assert, describe, it } from "@effect/vitest"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import { Clock, Effect, Fiber } from "effect"
import * as Backoff from "../src/Backoff.ts"

/** The waits between the tries of something that fails `failures` times, in ms, and whether it gave up. */
const waits = (backoff: Backoff.Backoff, failures: number) =>
  Effect.gen(function*() {
    const clock = yield* VirtualClock.VirtualClock
    const tries: Array<number> = []
    const fiber = yield* Clock.currentTimeMillis.pipe(
      Effect.tap((now) => Effect.sync(() => tries.push(now))),
      Effect.filterOrFail(() => tries.length > failures, () => "failed" as const),
      Effect.retry(backoff),
      Effect.either,
      Effect.fork
    )
    yield* clock.runUntil(() => fiber.unsafePoll() !== null, { within: "100 days" })
    const gaveUp = (yield* Fiber.join(fiber))._tag === "Left"
    return { gaveUp, waits: tries.slice(1).map((at, i) => at - tries[i]!) }
  }).pipe(Effect.provide(VirtualClock.layer()))

describe("Backoff", () => {
  it.live("waits half a second, then half as much again each time, up to 30 seconds, give or take a fifth", () =>
    Effect.gen(function*() {
      const { waits: all } = yield* waits(Backoff.reconnect, 40)
      assert.strictEqual(all.length, 40)
      all.forEach((wait, i) => {
        const expected = Math.min(30_000, 500 * 1.5 ** i)
        assert.isAtLeast(wait, Math.floor(expected * 0.8), `wait ${i}`)
        assert.isAtMost(wait, Math.ceil(expected * 1.2), `wait ${i}`)
      })
    }))

  it.live("spreads those who wait equally long", () =>
    Effect.gen(function*() {
      const { waits: all } = yield* waits(Backoff.make({ initial: "1 second", factor: 1 }), 200)
      assert.isAbove(new Set(all).size, 50)
      assert.isBelow(Math.min(...all), 900)
      assert.isAbove(Math.max(...all), 1_100)
    }))

  it.live("starts, grows and ends where it is told to", () =>
    Effect.gen(function*() {
      const backoff = Backoff.make({ initial: "10 millis", factor: 10, cap: "2 seconds", retries: 5 })
      const { gaveUp, waits: all } = yield* waits(backoff, 100)
      assert.isTrue(gaveUp)
      assert.strictEqual(all.length, 5)
      const expected = [10, 100, 1_000, 2_000, 2_000]
      all.forEach((wait, i) => {
        assert.isAtLeast(wait, expected[i]! * 0.8)
        assert.isAtMost(wait, Math.ceil(expected[i]! * 1.2))
      })
    }))

  it.live("begins anew with each run", () =>
    Effect.gen(function*() {
      for (let run = 0; run < 2; run++) {
        const { waits: [first] } = yield* waits(Backoff.reconnect, 10)
        assert.isAtMost(first!, 600)
      }
    }))

  it.live("goes on for weeks without a limit on retries, never beyond its cap", () =>
    Effect.gen(function*() {
      const { gaveUp, waits: all } = yield* waits(Backoff.reconnect, 3_000)
      assert.isFalse(gaveUp)
      assert.isAtMost(Math.max(...all), 36_000)
    }))
})
