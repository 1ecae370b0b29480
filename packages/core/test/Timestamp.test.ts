import { assert, describe, it } from "@effect/vitest"
import * as LwwRecord from "../src/LwwRecord.ts"
import * as Timestamp from "../src/Timestamp.ts"
import { Either, FastCheck as fc } from "effect"
import { closeStamp, nodeIds, stamp } from "./arbitraries.ts"

const node = nodeIds[1]
const at = (millis: number, counter = 0, nodeId: string = node): Timestamp.Timestamp => ({ millis, counter, nodeId })

/** Stamps from all over, and stamps that differ in little. */
const some = fc.oneof(stamp, closeStamp)

const textOrder = (a: string, b: string): number => a < b ? -1 : a > b ? 1 : 0

const bytes = (each: Timestamp.Timestamp) => Buffer.from(LwwRecord.remove(each).row.subarray(0, 24))

describe("Timestamp", () => {
  it.prop("orders stamps as their text and their bytes", [some, some], ([a, b]) => {
    const order = Math.sign(Timestamp.compare(a, b))
    assert.strictEqual(order, textOrder(Timestamp.format(a), Timestamp.format(b)))
    assert.strictEqual(order, Buffer.compare(bytes(a), bytes(b)))
    assert.strictEqual(order + Math.sign(Timestamp.compare(b, a)), 0)
  })

  it.prop("has a total order", [some, some, some], (stamps) => {
    const [a, b, c] = stamps.slice().sort(Timestamp.compare) as [typeof stamps[0], typeof stamps[0], typeof stamps[0]]
    assert.isAtMost(Timestamp.compare(a, b), 0)
    assert.isAtMost(Timestamp.compare(b, c), 0)
    assert.isAtMost(Timestamp.compare(a, c), 0)
    assert.strictEqual(Timestamp.compare(a, b) === 0, Timestamp.format(a) === Timestamp.format(b))
  })

  it("has none after the greatest: that is told, not wrapped around", () => {
    const greatest = { millis: Timestamp.millisMax, counter: Timestamp.counterMax - 1, nodeId: nodeIds[1] }
    const last = Timestamp.tick(greatest, 0)
    assert.isTrue(Timestamp.isValid(last))
    assert.throws(() => Timestamp.tick(last, 0), RangeError)
  })

  it.prop("comes back from its text as it was", [stamp], ([each]) => {
    assert.deepStrictEqual(Either.getOrThrow(Timestamp.parse(Timestamp.format(each))), each)
  })

  it.prop(
    "reads no text but that of a stamp",
    [fc.oneof(fc.string(), fc.string({ minLength: 32, maxLength: 32 }))],
    ([text]) => {
      const parsed = Timestamp.parse(text)
      if (Either.isRight(parsed)) assert.strictEqual(Timestamp.format(parsed.right), text)
      else assert.strictEqual(parsed.left._tag, "MalformedMessage")
    }
  )

  it("reads no stamp with a bad node id, upper case or something more", () => {
    const text = Timestamp.format(at(1))
    for (const wrong of ["", text.slice(1), `${text}0`, `${text}\n`, text.toUpperCase(), text.replace("a", ":")]) {
      assert.isTrue(Either.isLeft(Timestamp.parse(wrong)), wrong)
    }
  })

  it.prop(
    "ticks to a greater stamp of the same node, whatever the wall clock does",
    [stamp, fc.array(fc.integer({ min: -1, max: 2 ** 47 }), { minLength: 1 })],
    ([from, walls]) => {
      let last: Timestamp.Timestamp = { ...from, millis: Math.min(from.millis, 2 ** 47) }
      for (const wall of walls) {
        const next = Timestamp.tick(last, wall)
        assert.isAbove(Timestamp.compare(next, last), 0)
        assert.isTrue(Timestamp.isValid(next))
        assert.strictEqual(next.nodeId, last.nodeId)
        assert.isAtLeast(next.millis, wall)
        last = next
      }
    }
  )

  it("moves on to the next millisecond when the counter is used up", () => {
    assert.deepStrictEqual(Timestamp.tick(at(5, 65_534), 5), at(5, 65_535))
    assert.deepStrictEqual(Timestamp.tick(at(5, 65_535), 5), at(6, 0))
    assert.deepStrictEqual(Timestamp.tick(at(5, 65_535), 4), at(6, 0))
  })

  it.prop("is never behind a stamp that it has accepted", [stamp, stamp, fc.nat(2 ** 47)], ([last, remote, wall]) => {
    const next = Timestamp.receive(last, remote, wall)
    if (remote.millis - wall > 60_000) {
      assert.isTrue(Either.isLeft(next))
      return
    }
    const clock = Either.getOrThrow(next)
    assert.isAtLeast(Timestamp.compare(clock, last), 0)
    assert.isAtLeast(Timestamp.compare(clock, { ...remote, nodeId: last.nodeId }), 0)
    assert.strictEqual(clock.nodeId, last.nodeId)
    if (clock.millis === Timestamp.millisMax && clock.counter === Timestamp.counterMax) {
      // It has no stamp left to issue, and says so.
      assert.throws(() => Timestamp.tick(clock, wall), RangeError)
    } else {
      assert.isAbove(Timestamp.compare(Timestamp.tick(clock, wall), { ...remote, nodeId: "~" }), 0)
    }
  }, { fastCheck: { numRuns: 2_000 } })

  it("accepts a stamp at the drift bound and refuses one a millisecond beyond, saying by how much", () => {
    assert.isTrue(Either.isRight(Timestamp.receive(at(0), at(61_000), 1_000)))
    const refused = Timestamp.receive(at(0), at(61_001), 1_000)
    assert.deepInclude(Either.getOrThrow(Either.flip(refused)), {
      _tag: "ClockSkewTooLarge",
      aheadMillis: 60_001,
      driftMillisMax: 60_000
    })
  })

  it.prop("is raised by its own storage however far ahead that is", [stamp, stamp], ([last, seen]) => {
    const raised = Timestamp.raise(last, seen)
    assert.isAtLeast(Timestamp.compare(raised, last), 0)
    assert.isAtLeast(Timestamp.compare(raised, { ...seen, nodeId: last.nodeId }), 0)
  })

  it("knows a valid stamp from others", () => {
    assert.isTrue(Timestamp.isValid(at(0)))
    assert.isTrue(Timestamp.isValid(at(2 ** 48 - 1, 65_535)))
    const invalid = [
      ...[-1, 0.5, 2 ** 48, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY].map((millis) => at(millis)),
      ...[-1, 0.5, 65_536, Number.NaN].map((counter) => at(0, counter)),
      ...["", "a", "A".repeat(16), "a".repeat(15), "a".repeat(17), "a:".repeat(8), `${"a".repeat(15)}\0`, `${node}\n`]
        .map((nodeId) => at(0, 0, nodeId)),
      { millis: "1", counter: 0, nodeId: node } as unknown as Timestamp.Timestamp
    ]
    for (const each of invalid) assert.isFalse(Timestamp.isValid(each), JSON.stringify(each))
    for (const id of [undefined, null, 1, [node], {}]) assert.isFalse(Timestamp.isNodeId(id))
  })
})
