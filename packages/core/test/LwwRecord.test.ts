import { assert, describe, it } from "@effect/vitest"
import { MalformedMessage } from "../src/GridError.ts"
import * as LwwRecord from "../src/LwwRecord.ts"
import * as Value from "../src/Value.ts"
import { laws } from "@topgun/testing/laws"
import { FastCheck as fc } from "effect"
import { closeRecord, nodeIds, record, stamp, value } from "./arbitraries.ts"

const at = { millis: 1_000, counter: 1, nodeId: nodeIds[1] }
const one = Value.encode(1)

const refusal = (row: Uint8Array): string => {
  try {
    LwwRecord.decode(row)
  } catch (fault) {
    assert.instanceOf(fault, MalformedMessage)
    return fault.reason
  }
  return assert.fail("the row was accepted")
}

const withByte = (row: Uint8Array, index: number, byte: number): Uint8Array => {
  const changed = row.slice()
  changed[index] = byte
  return changed
}

laws("The greater of two records", {
  arbitrary: closeRecord,
  merge: (a, b) => LwwRecord.compare(a, b) >= 0 ? a : b,
  equals: (a, b) => Buffer.compare(a.row, b.row) === 0
})

describe("LwwRecord", () => {
  it.prop(
    "holds what it was made of",
    [stamp, value, fc.constantFrom(0, 1, 2 ** 48 - 1)],
    ([when, content, expiresAt]) => {
      const made = LwwRecord.put(when, Value.encode(content), expiresAt)
      assert.deepStrictEqual(made.stamp, when)
      assert.strictEqual(made.expiresAt, expiresAt)
      assert.deepStrictEqual(Value.decode(made.valueBytes), content)
      assert.isFalse(made.isTombstone)
      const removed = LwwRecord.remove(when)
      assert.deepStrictEqual(removed.stamp, when)
      assert.isTrue(removed.isTombstone)
      assert.strictEqual(removed.valueBytes.length, 0)
    }
  )

  it.prop("comes back from its row as it was", [record], ([each]) => {
    for (const again of [LwwRecord.decode(each.row), LwwRecord.fromTrusted(each.row)]) {
      assert.deepStrictEqual(again.stamp, each.stamp)
      assert.strictEqual(again.expiresAt, each.expiresAt)
      assert.strictEqual(LwwRecord.compare(again, each), 0)
    }
  })

  it.prop("orders records as databases order their rows", [closeRecord, closeRecord], ([a, b]) => {
    assert.strictEqual(Math.sign(LwwRecord.compare(a, b)), Buffer.compare(a.row, b.row))
  })

  it.prop("orders any records as databases order their rows", [record, record], ([a, b]) => {
    assert.strictEqual(Math.sign(LwwRecord.compare(a, b)), Buffer.compare(a.row, b.row))
  })

  it("lets a delete win over every put of the same stamp, and the later stamp over all", () => {
    const removed = LwwRecord.remove(at)
    for (const put of [LwwRecord.put(at, Value.encode("\uffff")), LwwRecord.put(at, one, 2 ** 48 - 1)]) {
      assert.isAbove(LwwRecord.compare(removed, put), 0)
    }
    assert.isAbove(LwwRecord.compare(LwwRecord.put({ ...at, counter: 2 }, one), removed), 0)
    assert.isAbove(LwwRecord.compare(LwwRecord.put({ ...at, nodeId: nodeIds[2] }, one), removed), 0)
  })

  it.prop("keeps its own bytes when the frame that it came in is used again", [record], ([each]) => {
    for (const row of [each.row.slice(), Buffer.from(each.row)]) {
      const decoded = LwwRecord.decode(row)
      row.fill(0)
      assert.strictEqual(Buffer.compare(decoded.row, each.row), 0)
    }
  })

  it("refuses a second form of a put that never expires", () => {
    const row = LwwRecord.put(at, one, 1).row.slice()
    assert.strictEqual(LwwRecord.decode(row).expiresAt, 1)
    row.fill(0, 25, 31)
    assert.throws(() => LwwRecord.decode(row), MalformedMessage)
    assert.throws(() => LwwRecord.decode(row.subarray(0, 28)), MalformedMessage)
  })

  it("refuses rows that are too short, of a bad node id or of an unknown kind", () => {
    const row = LwwRecord.put(at, one).row
    assert.match(refusal(new Uint8Array(0)), /at least 25/)
    assert.match(refusal(row.subarray(0, 24)), /at least 25/)
    for (const byte of [0, 0x2f, 0x3a, 0x60, 0x7b, 0x41, 0xff]) {
      assert.match(refusal(withByte(row, 8, byte)), /node id/)
      assert.match(refusal(withByte(row, 23, byte)), /node id/)
    }
    for (const kind of [0, 1, 0x0f, 0x12, 0x1f, 0x21, 0xff]) assert.match(refusal(withByte(row, 24, kind)), /kind/)
  })

  it("refuses puts without a canonical value, and tombstones with one", () => {
    const row = LwwRecord.put(at, one).row
    assert.match(refusal(row.subarray(0, 25)), /a put has a value/)
    assert.match(refusal(withByte(row, 24, 0x20)), /a tombstone has no value/)
    assert.match(refusal(LwwRecord.put(at, Uint8Array.of(0xcc, 1)).row), /canonical/)
    assert.match(refusal(LwwRecord.put(at, Uint8Array.of(1, 1)).row), /canonical/)
    assert.match(refusal(LwwRecord.put(at, new Uint8Array(0), 5).row), /a put has a value/)
    const large = Value.encode("a".repeat(300 * 1024), 1024 * 1024)
    assert.match(refusal(LwwRecord.put(at, large).row), /too large/)
  })

  it.prop("answers any bytes with a record or a typed refusal", [fc.uint8Array({ maxLength: 60 })], ([row]) => {
    try {
      assert.strictEqual(Buffer.compare(LwwRecord.decode(row).row, row), 0)
    } catch (fault) {
      assert.instanceOf(fault, MalformedMessage)
    }
  })
})
