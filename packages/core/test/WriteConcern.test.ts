import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, FastCheck as fc, Option } from "effect"
import { ClientClosed, type WriteFailure, WriteRejected, WriteTimeout } from "../src/GridError.ts"
import { AckQueue, isReached, type Outcome, type Waiter, WriteConcern } from "../src/WriteConcern.ts"

const anyConcern = fc.constantFrom(...WriteConcern.literals)

const outcomeOf = (waiter: Waiter | undefined): Effect.Effect<Exit.Exit<Outcome, WriteFailure> | "open"> =>
  Effect.gen(function*() {
    const polled = yield* Deferred.poll(waiter!.outcome)
    return Option.isNone(polled) ? "open" : yield* Effect.exit(polled.value)
  })

const rejected = new WriteRejected({ map: "m", key: "k", cause: "MapKindMismatch", reason: "another kind" })

describe("isReached", () => {
  const levels = WriteConcern.literals

  it("takes each level for itself and what lies below, but neither of REPLICATED and PERSISTED for the other", () => {
    const reached = levels.map((level) => levels.filter((concern) => isReached(level, concern)))
    assert.deepStrictEqual(reached, [
      ["FIRE_AND_FORGET"],
      ["FIRE_AND_FORGET", "MEMORY"],
      ["FIRE_AND_FORGET", "MEMORY", "APPLIED"],
      ["FIRE_AND_FORGET", "MEMORY", "APPLIED", "REPLICATED"],
      ["FIRE_AND_FORGET", "MEMORY", "APPLIED", "PERSISTED"]
    ])
  })
})

describe("AckQueue", () => {
  it.effect.prop(
    "settles who waits at the first stage that is enough for his concern",
    [anyConcern, fc.array(anyConcern)],
    ([asked, stages]) =>
      Effect.gen(function*() {
        const queue = new AckQueue(10)
        const waiter = queue.add(1, asked, 1_000)
        const other = queue.add(2, "MEMORY", 1_000)
        stages.forEach((stage, i) => queue.reached(1, stage, i))
        const enough = stages.findIndex((stage) => isReached(stage, asked))
        const expected = enough < 0 ? "open" : Exit.succeed({ level: stages[enough]!, replicas: enough })
        assert.deepStrictEqual(yield* outcomeOf(waiter), expected)
        assert.strictEqual(yield* outcomeOf(other), "open")
        assert.strictEqual(queue.size, enough < 0 ? 2 : 1)
      })
  )

  it.effect("lets several wait for one operation, each at his level", () =>
    Effect.gen(function*() {
      const queue = new AckQueue(10)
      const [applied, persisted] = [queue.add(1, "APPLIED", 1_000), queue.add(1, "PERSISTED", 1_000)]
      queue.reached(1, "APPLIED", 0)
      assert.deepStrictEqual(yield* outcomeOf(applied), Exit.succeed({ level: "APPLIED" as const, replicas: 0 }))
      assert.strictEqual(yield* outcomeOf(persisted), "open")
      queue.reached(1, "PERSISTED", 0)
      assert.deepStrictEqual(yield* outcomeOf(persisted), Exit.succeed({ level: "PERSISTED" as const, replicas: 0 }))
      assert.strictEqual(queue.size, 0)
    }))

  it.effect("fails all who wait for an operation that failed, once, and nobody else", () =>
    Effect.gen(function*() {
      const queue = new AckQueue(10)
      const failed = [queue.add(1, "MEMORY", 1_000), queue.add(1, "PERSISTED", 2_000)]
      const other = queue.add(2, "MEMORY", 1_000)
      queue.failed(1, rejected)
      queue.failed(1, new ClientClosed())
      queue.reached(1, "PERSISTED", 0)
      for (const waiter of failed) assert.deepStrictEqual(yield* outcomeOf(waiter), Exit.fail(rejected))
      assert.strictEqual(yield* outcomeOf(other), "open")
      assert.strictEqual(queue.size, 1)
    }))

  it.effect("lets who waits for an operation wait for the one that it became part of, with its concern and deadline", () =>
    Effect.gen(function*() {
      const queue = new AckQueue(10)
      const moved = [queue.add(1, "APPLIED", 1_000), queue.add(1, "PERSISTED", 2_000)]
      const [other, own] = [queue.add(2, "APPLIED", 1_000), queue.add(3, "APPLIED", 1_000)]
      queue.moved(1, 3)
      queue.reached(1, "PERSISTED", 0)
      assert.deepStrictEqual(moved.map((waiter) => waiter!.sequence), [3, 3])
      for (const waiter of [...moved, other, own]) assert.strictEqual(yield* outcomeOf(waiter), "open")
      queue.reached(3, "APPLIED", 0)
      const applied = Exit.succeed({ level: "APPLIED" as const, replicas: 0 })
      for (const waiter of [moved[0], own]) assert.deepStrictEqual(yield* outcomeOf(waiter), applied)
      assert.strictEqual(yield* outcomeOf(moved[1]), "open")
      queue.expire(2_000, ({ concern }) => new WriteTimeout({ concern }))
      assert.deepStrictEqual(yield* outcomeOf(moved[1]), Exit.fail(new WriteTimeout({ concern: "PERSISTED" })))
      assert.strictEqual(queue.size, 0)
    }))

  it.effect.prop(
    "fails with its deadline who still waits then, never before it and at most 50 ms after",
    [fc.array(fc.integer({ min: 0, max: 500 }), { maxLength: 20 }), fc.integer({ min: 0, max: 600 })],
    ([deadlines, now]) =>
      Effect.gen(function*() {
        const queue = new AckQueue(100)
        const waiters = deadlines.map((deadline, i) => queue.add(i, "APPLIED", deadline))
        queue.expire(now, ({ concern }) => new WriteTimeout({ concern }))
        let open = 0
        for (const waiter of waiters) {
          const outcome = yield* outcomeOf(waiter)
          if (outcome === "open") open++
          else assert.deepStrictEqual(outcome, Exit.fail(new WriteTimeout({ concern: "APPLIED" })))
          if (outcome !== "open") assert.isAtLeast(now, waiter!.expiresAt)
          else assert.isBelow(now, waiter!.expiresAt + 50)
        }
        assert.strictEqual(queue.size, open)
        const next = queue.nextExpiry
        if (open === 0) assert.isUndefined(next)
        else assert.isAbove(next!, now)
      })
  )

  it("takes no more than its capacity, and again when some have gone", () => {
    const queue = new AckQueue(2)
    const first = queue.add(1, "MEMORY", 1_000)!
    assert.isDefined(queue.add(1, "MEMORY", 1_000))
    assert.isUndefined(queue.add(3, "MEMORY", 1_000))
    queue.remove(first)
    queue.remove(first)
    assert.strictEqual(queue.size, 1)
    assert.isDefined(queue.add(3, "MEMORY", 1_000))
    queue.reached(3, "MEMORY", 0)
    queue.reached(1, "MEMORY", 0)
    assert.strictEqual(queue.size, 0)
    assert.isUndefined(queue.nextExpiry)
  })

  it.effect("fails everyone when it closes", () =>
    Effect.gen(function*() {
      const queue = new AckQueue(10)
      const waiters = [queue.add(1, "MEMORY", 1_000), queue.add(1, "PERSISTED", 5), queue.add(3, "REPLICATED", 1_000)]
      queue.close(new ClientClosed())
      for (const waiter of waiters) assert.deepStrictEqual(yield* outcomeOf(waiter), Exit.fail(new ClientClosed()))
      assert.strictEqual(queue.size, 0)
      assert.isUndefined(queue.nextExpiry)
    }))
})
