import { assert, describe, it } from "@effect/vitest"
import * as Hlc from "../src/Hlc.ts"
import { LwwMap } from "../src/LwwMap.ts"
import * as LwwRecord from "../src/LwwRecord.ts"
import * as Timestamp from "../src/Timestamp.ts"
import * as Value from "../src/Value.ts"
import { Effect, Either, FastCheck as fc, TestClock } from "effect"
import { nodeIds } from "./arbitraries.ts"

const nodeId = nodeIds[1]
const start = 1_767_225_600_000

const clockAt = (millis: number) => Effect.zipRight(TestClock.setTime(millis), Hlc.make({ nodeId }))

/** What may befall a clock between two stamps. */
const event = fc.oneof(
  fc.record({ _tag: fc.constant("wall"), millis: fc.integer({ min: start - 3_600_000, max: start + 3_600_000 }) }),
  fc.record({ _tag: fc.constant("remote"), millis: fc.integer({ min: start - 120_000, max: start + 120_000 }) }),
  fc.record({ _tag: fc.constant("stored"), millis: fc.integer({ min: 0, max: start + 10 ** 9 }) }),
  fc.record({ _tag: fc.constant("correction"), millis: fc.integer({ min: -(10 ** 9), max: 10 ** 9 }) }),
  fc.record({ _tag: fc.constant("tick"), millis: fc.constant(0) })
)

describe("Hlc", () => {
  it.effect.prop(
    "issues ever greater stamps, whatever happens to the wall clock and whatever it sees",
    [fc.array(event, { maxLength: 40, size: "max" })],
    ([events]) =>
      Effect.gen(function*() {
        const clock = yield* clockAt(start)
        let last = clock.unsafeTick()
        for (const { _tag, millis } of events) {
          if (_tag === "wall") yield* TestClock.setTime(millis)
          if (_tag === "remote") clock.unsafeReceive({ millis, counter: 7 })
          if (_tag === "stored") clock.unsafeRaise({ millis, counter: Timestamp.counterMax })
          if (_tag === "correction") clock.unsafeCorrect(millis)
          const next = clock.unsafeTick()
          assert.isAbove(Timestamp.compare(next, last), 0)
          assert.isTrue(Timestamp.isValid(next))
          last = next
        }
      })
  )

  it.effect("issues a million different stamps within one millisecond", () =>
    Effect.gen(function*() {
      const clock = yield* clockAt(start)
      let last = clock.unsafeTick()
      for (let i = 0; i < 1_000_000; i++) {
        const next = clock.unsafeTick()
        if (Timestamp.compare(next, last) <= 0) assert.fail(`${Timestamp.format(next)} after ${Timestamp.format(last)}`)
        last = next
      }
      assert.strictEqual(last.millis, start + 15)
    }))

  it.effect("isn't moved by a stamp that it refuses", () =>
    Effect.gen(function*() {
      const clock = yield* clockAt(start)
      const before = clock.unsafeTick()
      const refused = clock.unsafeReceive({ millis: start + 60_001, counter: 0 })
      assert.strictEqual(Either.getOrThrow(Either.flip(refused))._tag, "ClockSkewTooLarge")
      assert.deepStrictEqual(clock.unsafeTick(), { ...before, counter: before.counter + 1 })
    }))

  it.effect("is moved by a stamp within the bound, and by its own storage beyond it", () =>
    Effect.gen(function*() {
      const clock = yield* clockAt(start)
      assert.isTrue(Either.isRight(clock.unsafeReceive({ millis: start + 60_000, counter: 3 })))
      assert.deepStrictEqual(clock.unsafeTick(), { millis: start + 60_000, counter: 4, nodeId })
      clock.unsafeRaise({ millis: start + 10 ** 9, counter: 9 })
      assert.deepStrictEqual(clock.unsafeTick(), { millis: start + 10 ** 9, counter: 10, nodeId })
    }))

  it.effect("judges others by the corrected wall time", () =>
    Effect.gen(function*() {
      const clock = yield* clockAt(start - 3_600_000)
      const remote = { millis: start, counter: 0 }
      assert.isTrue(Either.isLeft(clock.unsafeReceive(remote)))
      clock.unsafeCorrect(3_600_000)
      assert.strictEqual(clock.wallMillis(), start)
      assert.isTrue(Either.isRight(clock.unsafeReceive(remote)))
      assert.deepStrictEqual(clock.unsafeTick(), { millis: start, counter: 1, nodeId })
    }))

  it.effect("never shows a wall time before 1970 or between milliseconds", () =>
    Effect.gen(function*() {
      const clock = yield* clockAt(10)
      clock.unsafeCorrect(0.5)
      assert.strictEqual(clock.wallMillis(), 10)
      clock.unsafeCorrect(-100)
      assert.strictEqual(clock.wallMillis(), 0)
      assert.isTrue(Timestamp.isValid(clock.unsafeTick()))
    }))

  it.effect("goes on as the writer that its storage remembers, above all that this one may have issued", () =>
    Effect.gen(function*() {
      const clock = yield* clockAt(start)
      clock.unsafeAdopt(nodeIds[3], start + 5_000)
      assert.strictEqual(clock.nodeId(), nodeIds[3])
      const next = clock.unsafeTick()
      const issued = { millis: start + 5_000, counter: Timestamp.counterMax, nodeId: nodeIds[3] }
      assert.isAbove(Timestamp.compare(next, issued), 0)
    }))

  it.effect("takes no step back as the writer that it is already", () =>
    Effect.gen(function*() {
      const clock = yield* clockAt(start)
      const before = clock.unsafeTick()
      clock.unsafeAdopt(nodeId, start - 5_000)
      assert.isAbove(Timestamp.compare(clock.unsafeTick(), before), 0)
    }))

  it.effect("has a node id of its own where none is given", () =>
    Effect.gen(function*() {
      const [one, two] = [yield* Hlc.make(), yield* Hlc.make()]
      assert.isTrue(Timestamp.isNodeId(one.nodeId()))
      assert.notStrictEqual(one.nodeId(), two.nodeId())
    }))

  it.effect("is the same for everyone who shares its layer", () =>
    Effect.gen(function*() {
      const [first, second] = [(yield* Hlc.Hlc).unsafeTick(), (yield* Hlc.Hlc).unsafeTick()]
      assert.isAbove(Timestamp.compare(second, first), 0)
    }).pipe(Effect.provide(Hlc.layer({ nodeId }))))
})

describe("A wrong clock", () => {
  const year = 365 * 24 * 3_600_000
  /** A writer whose wall clock is wrong by so many ms. */
  const writer = (name: string, wrongBy: number) =>
    Effect.map(Hlc.make({ nodeId: name }), (clock) => {
      clock.unsafeCorrect(wrongBy)
      return clock
    })
  /** What a server does with a record: its clock judges the stamp before its map sees it. */
  const offer = (server: Hlc.Hlc["Type"], map: LwwMap, key: string, record: LwwRecord.LwwRecord): boolean =>
    Either.match(server.unsafeReceive(record), {
      onLeft: () => false,
      onRight: () => map.merge(key, record) !== undefined
    })
  const put = (clock: Hlc.Hlc["Type"], value: unknown) => LwwRecord.put(clock.unsafeTick(), Value.encode(value))

  it.effect.prop(
    "wins over nobody, moves nobody's clock, and is forgotten under a new node id once it is right",
    [fc.array(
      fc.record({
        wrongBy: fc.oneof(
          fc.constantFrom(0, 10 * year, -10 * year, 60_000, 60_001, -60_000),
          fc.integer({ min: -2 * year, max: 2 * year })
        ),
        honest: fc.nat(3)
      }),
      { maxLength: 12, size: "max" }
    )],
    ([steps]) =>
      Effect.gen(function*() {
        yield* TestClock.setTime(start)
        const server = yield* writer(nodeIds[0], 0)
        const wrong = yield* writer(nodeIds[1], 0)
        const honest = yield* Effect.forEach(["honest0", "honest1", "honest2", "honest3"], (name) =>
          writer(name.padEnd(16, "0"), 0))
        const [map, local] = [
          new LwwMap({
            now: () =>
              0
          }),
          new LwwMap({ now: () => 0 })
        ]
        for (const [i, { honest: who, wrongBy }] of steps.entries()) {
          yield* TestClock.adjust("100 millis")
          wrong.unsafeCorrect(wrongBy)
          const mine = put(wrong, i)
          // Its own writes succeed here, whatever the clock says.
          assert.isDefined(local.merge("k", mine))
          offer(server, map, "k", mine)
          assert.isAtMost(server.unsafeTick().millis, server.wallMillis() + Timestamp.driftMillisMax)
          // Who writes after it has seen what the server has wins.
          const theirs = honest[who]!
          const seen = map.getRecord("k")
          if (seen !== undefined) assert.isTrue(Either.isRight(theirs.unsafeReceive(seen)))
          assert.isTrue(offer(server, map, "k", put(theirs, `honest ${i}`)))
          assert.strictEqual(map.get("k"), `honest ${i}`)
        }
        wrong.unsafeCorrect(0)
        wrong.unsafeAdopt(nodeIds[3], 0)
        const confirmed = map.getRecord("k")
        if (confirmed !== undefined) wrong.unsafeRaise(confirmed)
        assert.isTrue(offer(server, map, "k", put(wrong, "right again")))
        assert.strictEqual(map.get("k"), "right again")
      })
  )
})
