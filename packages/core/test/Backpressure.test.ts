import { assert, describe, it } from "@effect/vitest"
import { Effect, FastCheck as fc, Fiber } from "effect"
import * as Backpressure from "../src/Backpressure.ts"

const make = (strategy: Backpressure.Strategy, capacity: number, waitingMax = 3) =>
  Effect.gen(function*() {
    const told: Array<string> = []
    const line = yield* Backpressure.make<number>({ strategy, capacity, waitingMax }, {
      onDrop: (item) => told.push(`dropped ${item}`),
      onHighWater: (pending) => told.push(`high ${pending}`),
      onLowWater: (pending) => told.push(`low ${pending}`)
    })
    return { line, told }
  })

const offerAll = (line: Backpressure.Line<number>, items: ReadonlyArray<number>): ReadonlyArray<number> =>
  items.filter((item) => line.offer(item))

const upTo = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, i) => i)

const strategies = ["pause", "throw", "drop-oldest"] as const

describe("Backpressure", () => {
  it.effect.prop(
    "keeps the order of what it took in, is never over its capacity, and loses nothing but what it reports",
    {
      strategy: fc.constantFrom(...strategies),
      capacity: fc.integer({ min: 1, max: 6 }),
      steps: fc.array(fc.oneof(fc.constant("offer" as const), fc.integer({ min: 1, max: 4 })), {
        maxLength: 60,
        size: "max"
      })
    },
    ({ capacity, steps, strategy }) =>
      Effect.gen(function*() {
        const { line, told } = yield* make(strategy, capacity)
        const model: Array<number> = []
        const dropped: Array<number> = []
        let next = 0
        for (const step of steps) {
          if (step === "offer") {
            const item = next++
            const full = model.length === capacity
            assert.strictEqual(line.offer(item), !full || strategy === "drop-oldest")
            if (full && strategy === "drop-oldest") dropped.push(model.shift()!)
            if (!full || strategy === "drop-oldest") model.push(item)
          } else if (model.length > 0) {
            assert.deepStrictEqual(yield* line.take(step), model.splice(0, step))
          }
          assert.strictEqual(line.size(), model.length)
          assert.isAtMost(line.size(), capacity)
        }
        const reported = told.filter((each) => each.startsWith("dropped"))
        assert.deepStrictEqual(reported, dropped.map((item) => `dropped ${item}`))
      })
  )

  it.effect("refuses under `throw` when full, tells nobody and changes nothing", () =>
    Effect.gen(function*() {
      const { line, told } = yield* make("throw", 2)
      assert.deepStrictEqual(offerAll(line, [1, 2, 3]), [1, 2])
      assert.isFalse(line.whenRoom(() => assert.fail("nobody waits under `throw`")))
      assert.deepStrictEqual(told, ["high 2"])
      assert.deepStrictEqual(yield* line.take(10), [1, 2])
    }))

  it.effect("lets go of the oldest under `drop-oldest`, and reports it", () =>
    Effect.gen(function*() {
      const { line, told } = yield* make("drop-oldest", 2)
      assert.deepStrictEqual(offerAll(line, [1, 2, 3, 4]), [1, 2, 3, 4])
      assert.deepStrictEqual(told, ["high 2", "dropped 1", "dropped 2"])
      assert.isFalse(line.whenRoom(() => assert.fail("nobody waits under `drop-oldest`")))
      assert.deepStrictEqual(yield* line.take(10), [3, 4])
    }))

  it.effect("admits those who wait under `pause` in their order, as many as there is room for", () =>
    Effect.gen(function*() {
      const { line } = yield* make("pause", 2)
      const entered: Array<number> = []
      const enter = (item: number) =>
        line.whenRoom(() => {
          assert.isTrue(line.offer(item))
          entered.push(item)
        })
      assert.deepStrictEqual(offerAll(line, [1, 2, 3]), [1, 2])
      assert.deepStrictEqual([3, 4, 5, 6].map(enter), [true, true, true, false])
      assert.strictEqual(line.waiting(), 3)
      assert.deepStrictEqual(yield* line.take(1), [1])
      assert.deepStrictEqual(entered, [3])
      assert.strictEqual(line.size(), 2)
      assert.deepStrictEqual(yield* line.take(10), [2, 3])
      assert.deepStrictEqual(entered, [3, 4, 5])
      assert.deepStrictEqual(yield* line.take(10), [4, 5])
      assert.strictEqual(line.waiting(), 0)
    }))

  it.effect("admits who waits for several places when there are so many, and nobody before him", () =>
    Effect.gen(function*() {
      const { line } = yield* make("pause", 3)
      const entered: Array<string> = []
      const enter = (name: string, places: number) =>
        line.whenRoom(() => {
          entered.push(name)
          for (let i = 0; i < places; i++) assert.isTrue(line.offer(i))
        }, places)
      offerAll(line, [1, 2, 3])
      assert.isFalse(enter("more than there ever is", 4))
      assert.deepStrictEqual([enter("two", 2), enter("one", 1), enter("three", 3), enter("too many wait", 1)], [
        true,
        true,
        true,
        false
      ])
      yield* line.take(1)
      assert.deepStrictEqual([entered, line.waiting()], [[], 3])
      yield* line.take(1)
      assert.deepStrictEqual([entered, line.waiting()], [["two"], 2])
      yield* line.take(2)
      assert.deepStrictEqual([entered, line.waiting()], [["two", "one"], 1])
      yield* line.take(1)
      assert.deepStrictEqual([entered, line.waiting()], [["two", "one"], 1])
      yield* line.take(1)
      assert.deepStrictEqual([entered, line.waiting()], [["two", "one", "three"], 0])
    }))

  it.effect("calls all who wait when it closes, the one that waits for several places first", () =>
    Effect.gen(function*() {
      const { line } = yield* make("pause", 2)
      offerAll(line, [1, 2])
      const called: Array<number> = []
      for (const places of [2, 1, 1]) line.whenRoom(() => called.push(places), places)
      yield* line.take(1)
      assert.deepStrictEqual(called, [])
      line.close()
      assert.deepStrictEqual([called, line.waiting()], [[2, 1, 1], 0])
    }))

  it.effect("goes on to the next who waits when one doesn't want to enter any more", () =>
    Effect.gen(function*() {
      const { line } = yield* make("pause", 1)
      offerAll(line, [1])
      line.whenRoom(() => {})
      line.whenRoom(() => line.offer(2))
      assert.deepStrictEqual(yield* line.take(1), [1])
      assert.deepStrictEqual(yield* line.take(1), [2])
    }))

  it.effect("tells of each crossing of a water mark once", () =>
    Effect.gen(function*() {
      const { line, told } = yield* make("throw", 10)
      offerAll(line, upTo(10))
      assert.deepStrictEqual(told, ["high 8"])
      yield* line.take(3)
      offerAll(line, upTo(3))
      yield* line.take(4)
      assert.deepStrictEqual(told, ["high 8"])
      yield* line.take(1)
      assert.deepStrictEqual(told, ["high 8", "low 5"])
      yield* line.take(5)
      offerAll(line, upTo(8))
      assert.deepStrictEqual(told, ["high 8", "low 5", "high 8"])
    }))

  it.effect("wakes who waits for items when the first comes, and lets him wait again when all are taken", () =>
    Effect.gen(function*() {
      const { line } = yield* make("pause", 10)
      for (let round = 0; round < 3; round++) {
        const waiting = yield* Effect.fork(line.nonEmpty)
        yield* Effect.yieldNow()
        assert.isNull(waiting.unsafePoll())
        offerAll(line, [1, 2])
        yield* Fiber.join(waiting)
        assert.strictEqual(line.peek(), 1)
        assert.deepStrictEqual(yield* line.take(1), [1])
        yield* line.nonEmpty
        assert.deepStrictEqual(yield* line.take(5), [2])
        assert.isUndefined(line.peek())
      }
    }))

  it.effect("takes nothing, without waiting, when there is nothing", () =>
    Effect.gen(function*() {
      const { line } = yield* make("pause", 10)
      assert.deepStrictEqual(yield* line.take(5), [])
    }))

  for (const strategy of strategies) {
    it.effect(`loses nothing when who waits is interrupted at any moment (${strategy})`, () =>
      Effect.gen(function*() {
        for (let yields = 0; yields < 20; yields++) {
          const { line } = yield* make(strategy, 10)
          const taken: Array<number> = []
          const takeSome = Effect.uninterruptible(Effect.map(line.take(2), (items) => taken.push(...items)))
          const taker = yield* Effect.fork(Effect.forever(Effect.zipRight(line.nonEmpty, takeSome)))
          for (let i = 0; i < yields; i++) {
            if (i % 3 === 0) line.offer(i)
            yield* Effect.yieldNow()
          }
          line.offer(100)
          yield* Fiber.interrupt(taker)
          const rest = yield* line.take(100)
          const offered = upTo(yields).filter((i) => i % 3 === 0)
          assert.deepStrictEqual([...taken, ...rest], [...offered, 100])
        }
      }))
  }

  it.effect("holds a hundred thousand and gives them back in order", () =>
    Effect.gen(function*() {
      const { line } = yield* make("throw", 100_000)
      assert.strictEqual(offerAll(line, upTo(100_001)).length, 100_000)
      const taken: Array<number> = []
      while (line.size() > 0) taken.push(...yield* line.take(700))
      assert.deepStrictEqual(taken, upTo(100_000))
    }))
})
