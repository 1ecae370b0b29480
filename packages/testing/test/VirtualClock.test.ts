import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Deferred, Effect, Exit, Fiber, Schedule } from "effect"
import * as VirtualClock from "../src/VirtualClock.ts"

/** Runs a program under a virtual clock of its own. */
const underClock = <A, E>(
  program: (clock: VirtualClock.VirtualClock["Type"]) => Effect.Effect<A, E>,
  options?: VirtualClock.Options
): Effect.Effect<A, E> =>
  Effect.flatMap(VirtualClock.VirtualClock, program).pipe(Effect.provide(VirtualClock.layer(options)))

describe("VirtualClock", () => {
  it.live("starts in 2026 and stands still until it is moved", () =>
    underClock((clock) =>
      Effect.gen(function*() {
        assert.strictEqual(yield* Clock.currentTimeMillis, Date.UTC(2026, 0, 1))
        yield* clock.settle
        assert.strictEqual(yield* Clock.currentTimeMillis, Date.UTC(2026, 0, 1))
        yield* clock.advance("1 day")
        assert.strictEqual(yield* Clock.currentTimeMillis, Date.UTC(2026, 0, 2))
        assert.strictEqual(yield* Clock.currentTimeNanos, BigInt(Date.UTC(2026, 0, 2)) * 1_000_000n)
      })
    ))

  it.live("starts when it is told to", () =>
    underClock(() => Effect.map(Clock.currentTimeMillis, (now) => assert.strictEqual(now, 5)), { startMillis: 5 }))

  it.live("wakes sleepers in the order of their deadlines, each at its own time", () =>
    underClock((clock) =>
      Effect.gen(function*() {
        const woken: Array<[name: string, at: number]> = []
        const start = yield* Clock.currentTimeMillis
        const sleepFor = (name: string, millis: number) =>
          Effect.gen(function*() {
            yield* Effect.sleep(millis)
            woken.push([name, (yield* Clock.currentTimeMillis) - start])
          })
        yield* Effect.forEach([["c", 300], ["a", 100], ["b", 200], ["d", 401]] as const, ([name, millis]) =>
          Effect.fork(sleepFor(name, millis)))
        yield* clock.advance(400)
        assert.deepStrictEqual(woken, [["a", 100], ["b", 200], ["c", 300]])
        assert.strictEqual(clock.sleepers(), 1)
      })
    ))

  it.live("lets the first of two sleepers of one deadline finish what it sets off before it wakes the second", () =>
    underClock((clock) =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const second = yield* Deferred.make<void>()
        yield* Effect.fork(Effect.gen(function*() {
          yield* Effect.sleep(10)
          log.push("first wakes")
          yield* Effect.yieldNow()
          yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
          log.push("first ends")
          yield* Deferred.succeed(second, undefined)
        }))
        const fiber = yield* Effect.fork(
          Effect.race(
            Effect.as(Deferred.await(second), "told"),
            Effect.as(Effect.sleep(10), "timed out")
          )
        )
        yield* clock.advance(10)
        assert.deepStrictEqual(log, ["first wakes", "first ends"])
        assert.strictEqual(yield* Fiber.join(fiber), "told")
      })
    ))

  it.live("runs what sleepers schedule on the way, a day of seconds in one move", () =>
    underClock((clock) =>
      Effect.gen(function*() {
        let ticks = 0
        const fiber = yield* Effect.sync(() => ticks++).pipe(Effect.repeat(Schedule.spaced("1 minute")), Effect.fork)
        yield* clock.advance("1 day")
        assert.strictEqual(ticks, 24 * 60 + 1)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(clock.sleepers(), 0)
      })
    ))

  it.live("moves until a condition holds and tells how long that took", () =>
    underClock((clock) =>
      Effect.gen(function*() {
        let ticks = 0
        yield* Effect.sync(() => ticks++).pipe(Effect.delay("1 minute"), Effect.forever, Effect.fork)
        assert.strictEqual(yield* clock.runUntil(() => ticks === 3), 180_000)
        assert.strictEqual(yield* clock.runUntil(() => ticks === 3), 0)
      })
    ))

  it.live("dies when the condition can't come to hold, or not in time", () =>
    underClock((clock) =>
      Effect.gen(function*() {
        const never = yield* Effect.flip(Effect.sandbox(clock.runUntil(() => false)))
        assert.match(Cause.pretty(never), /nobody sleeps any more/)
        yield* Effect.fork(Effect.forever(Effect.sleep("1 minute")))
        const late = yield* Effect.flip(Effect.sandbox(clock.runUntil(() => false, { within: "5 minutes" })))
        assert.match(Cause.pretty(late), /not within 5m/)
      })
    ))

  it.live("waits out work that it can't see when told how", () => {
    let working = 0
    return underClock((clock) =>
      Effect.gen(function*() {
        let steps = 0
        const work = async () => {
          working++
          for (; steps < 200; steps++) await new Promise((resolve) => setImmediate(resolve))
          working--
        }
        yield* Effect.fork(Effect.promise(work))
        yield* clock.settle
        assert.strictEqual(steps, 200)
      }), { isQuiet: () => working === 0 })
  })

  it.live("waits for a fiber that computes for long, past every yield", () =>
    underClock((clock) =>
      Effect.gen(function*() {
        let steps = 0
        yield* Effect.fork(Effect.forEach(Array.from({ length: 5_000 }), () =>
          Effect.zipRight(
            Effect.yieldNow(),
            Effect.sync(() => steps++)
          )))
        yield* clock.settle
        assert.strictEqual(steps, 5_000)
      })
    ))

  it.live("shows a stepped wall clock without waking anyone earlier or later", () =>
    underClock((clock) =>
      Effect.gen(function*() {
        let woken = false
        yield* Effect.fork(Effect.zipRight(Effect.sleep("1 minute"), Effect.sync(() => woken = true)))
        yield* clock.settle
        clock.unsafeStep(3_600_000)
        assert.strictEqual(yield* Clock.currentTimeMillis, Date.UTC(2026, 0, 1, 1))
        yield* clock.advance("59 seconds")
        assert.isFalse(woken)
        clock.unsafeStep(-7_200_000)
        yield* clock.advance("1 second")
        assert.isTrue(woken)
        assert.strictEqual(yield* Clock.currentTimeMillis, Date.UTC(2025, 11, 31, 23, 1))
        // The clock that nobody sets.
        assert.strictEqual(yield* Clock.currentTimeNanos, BigInt(Date.UTC(2026, 0, 1, 0, 1)) * 1_000_000n)
      })
    ))

  it.live("drives timeouts and retries as a real clock would", () =>
    underClock((clock) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.never.pipe(
          Effect.timeoutFail({ duration: "10 seconds", onTimeout: () => "late" }),
          Effect.retry(Schedule.exponential("1 second").pipe(Schedule.intersect(Schedule.recurs(3)))),
          Effect.exit,
          Effect.fork
        )
        yield* clock.advance("47 seconds")
        assert.deepStrictEqual(yield* Fiber.join(fiber), Exit.fail("late"))
      })
    ))

  it.live("may be moved by one fiber at a time", () =>
    underClock((clock) =>
      Effect.gen(function*() {
        const first = yield* Effect.fork(clock.advance("1 second"))
        yield* Effect.yieldNow()
        assert.match(String(yield* Effect.exit(clock.settle)), /by another fiber/)
        yield* Fiber.join(first)
        yield* clock.settle
      })
    ))

  it.live("forgets interrupted sleepers, however many", () =>
    underClock((clock) =>
      Effect.gen(function*() {
        for (let i = 0; i < 10_000; i++) {
          yield* Effect.timeout(Effect.void, "1 day")
        }
        assert.strictEqual(clock.sleepers(), 0)
        yield* clock.advance("2 days")
      })
    ))
})
