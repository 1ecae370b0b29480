import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Option } from "effect"
import { ClientClosed, type WriteFailure, WriteRejected } from "../src/GridError.ts"
import { type Ack, AckQueue, isReached, type Waiter, type WriteConcern } from "../src/WriteConcern.ts"

const outcomeOf = (waiter: Waiter | undefined): Effect.Effect<Exit.Exit<Ack, WriteFailure> | "open"> =>
  Effect.flatMap(Deferred.poll(waiter!.outcome), (polled) =>
    Option.isNone(polled) ? Effect.succeed("open" as const) : Effect.exit(polled.value))

const rejected = new WriteRejected({ map: "m", key: "k", cause: "MapKindMismatch", reason: "another kind" })

describe("isReached", () => {
  const levels: ReadonlyArray<WriteConcern> = ["FIRE_AND_FORGET", "MEMORY", "APPLIED", "REPLICATED", "PERSISTED"]

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
  it.effect("settles each waiter at the stage that it asked for", () =>
    Effect.gen(function*() {
      const queue = new AckQueue(10)
      const memory = queue.add(1, "MEMORY")
      const applied = queue.add(1, "APPLIED")
      const persisted = queue.add(1, "PERSISTED")
      const other = queue.add(2, "MEMORY")
      queue.reached(1, "APPLIED", 0)
      const ack = { opId: "1", level: "APPLIED" as const, replicas: 0, persisted: false }
      assert.deepStrictEqual(yield* outcomeOf(memory), Exit.succeed(ack))
      assert.deepStrictEqual(yield* outcomeOf(applied), Exit.succeed(ack))
      assert.strictEqual(yield* outcomeOf(persisted), "open")
      assert.strictEqual(yield* outcomeOf(other), "open")
      assert.strictEqual(queue.size, 2)
      queue.reached(1, "PERSISTED", 0)
      assert.deepStrictEqual(
        yield* outcomeOf(persisted),
        Exit.succeed({ opId: "1", level: "PERSISTED" as const, replicas: 0, persisted: true })
      )
      assert.strictEqual(queue.size, 1)
    }))

  it.effect("doesn't take a backup's copy for the database's, nor the other way round", () =>
    Effect.gen(function*() {
      const queue = new AckQueue(10)
      const [replicated, persisted] = [queue.add(1, "REPLICATED"), queue.add(2, "PERSISTED")]
      queue.reached(1, "PERSISTED", 0)
      queue.reached(2, "REPLICATED", 1)
      assert.strictEqual(yield* outcomeOf(replicated), "open")
      assert.strictEqual(yield* outcomeOf(persisted), "open")
      queue.reached(1, "REPLICATED", 1)
      const outcome = yield* outcomeOf(replicated)
      assert.deepInclude(outcome === "open" ? {} : Exit.getOrElse(outcome, () => undefined), { replicas: 1 })
    }))

  it.effect("settles each waiter once", () =>
    Effect.gen(function*() {
      const queue = new AckQueue(10)
      const waiter = queue.add(1, "MEMORY")
      queue.reached(1, "MEMORY", 0)
      queue.failed(1, rejected)
      queue.reached(1, "PERSISTED", 0)
      const outcome = yield* outcomeOf(waiter)
      assert.deepInclude(outcome === "open" ? {} : Exit.getOrElse(outcome, () => undefined), { level: "MEMORY" })
      assert.strictEqual(queue.size, 0)
    }))

  it.effect("fails all waiters of an operation that failed, and no others", () =>
    Effect.gen(function*() {
      const queue = new AckQueue(10)
      const waiters = [queue.add(1, "MEMORY"), queue.add(1, "PERSISTED")]
      const other = queue.add(2, "MEMORY")
      queue.failed(1, rejected)
      for (const waiter of waiters) assert.deepStrictEqual(yield* outcomeOf(waiter), Exit.fail(rejected))
      assert.strictEqual(yield* outcomeOf(other), "open")
      assert.strictEqual(queue.size, 1)
    }))

  it.effect("lets waiters of a superseded write have its successor's outcome, and says so", () =>
    Effect.gen(function*() {
      const queue = new AckQueue(10)
      const first = queue.add(1, "APPLIED")
      const second = queue.add(2, "APPLIED")
      queue.superseded(1, 2)
      const third = queue.add(3, "APPLIED")
      queue.superseded(2, 3)
      queue.reached(1, "PERSISTED", 0)
      assert.strictEqual(yield* outcomeOf(first), "open")
      queue.reached(3, "APPLIED", 0)
      const ack = { level: "APPLIED" as const, replicas: 0, persisted: false }
      assert.deepStrictEqual(yield* outcomeOf(first), Exit.succeed({ opId: "1", ...ack, superseded: true }))
      assert.deepStrictEqual(yield* outcomeOf(second), Exit.succeed({ opId: "2", ...ack, superseded: true }))
      assert.deepStrictEqual(yield* outcomeOf(third), Exit.succeed({ opId: "3", ...ack }))
      assert.strictEqual(queue.size, 0)
    }))

  it.effect("fails superseded waiters with their successor", () =>
    Effect.gen(function*() {
      const queue = new AckQueue(10)
      const first = queue.add(1, "APPLIED")
      queue.superseded(1, 2)
      queue.failed(2, rejected)
      assert.deepStrictEqual(yield* outcomeOf(first), Exit.fail(rejected))
    }))

  it("takes no more waiters than its capacity, however often they are superseded, and again when some are settled", () => {
    const queue = new AckQueue(2)
    queue.add(1, "MEMORY")
    queue.superseded(1, 2)
    assert.isDefined(queue.add(2, "MEMORY"))
    assert.isUndefined(queue.add(3, "MEMORY"))
    queue.reached(2, "MEMORY", 0)
    assert.strictEqual(queue.size, 0)
    assert.isDefined(queue.add(3, "MEMORY"))
  })

  it.effect("fails everyone when it closes", () =>
    Effect.gen(function*() {
      const queue = new AckQueue(10)
      const waiters = [queue.add(1, "MEMORY"), queue.add(2, "PERSISTED"), queue.add(3, "REPLICATED")]
      queue.superseded(1, 3)
      queue.close(new ClientClosed())
      for (const waiter of waiters) {
        const outcome = yield* outcomeOf(waiter)
        assert.deepStrictEqual(outcome, Exit.fail(new ClientClosed()))
      }
      assert.strictEqual(queue.size, 0)
    }))
})
