import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as Cell from "../src/Cell.ts"
import { MalformedMessage } from "../src/GridError.ts"
import * as LwwRecord from "../src/LwwRecord.ts"
import * as PnCounter from "../src/PnCounter.ts"
import * as Timestamp from "../src/Timestamp.ts"
import * as Value from "../src/Value.ts"
import { nodeId, nodeIds, record, stamp } from "./arbitraries.ts"

const name = fc.oneof(
  fc.string({ unit: "binary", maxLength: 20 }),
  fc.constantFrom("", "__proto__", "a:b", "0".repeat(32))
)
const total = fc.oneof(fc.nat(3), fc.maxSafeNat())
const totals = fc.tuple(nodeId, total, total).map(([id, up, down]) => PnCounter.totals(id, up, down))
/** A record of any kind, and a map and a key that has it. */
const anywhere = fc.oneof(
  fc.record({ kind: fc.constantFrom("lww" as const, "or" as const), map: name, key: name, record }),
  fc.tuple(name, totals).map(([map, row]) => ({ kind: "counter" as const, map, key: map, record: row }))
)

const at = { millis: 1_700_000_000_000, counter: 7, nodeId: nodeIds[1] }
const put = LwwRecord.put(at, Value.encode("x"))

const refusal = (...[kind, map, key, row]: Parameters<typeof Cell.decodeInPlace>): string => {
  try {
    Cell.decodeInPlace(kind, map, key, row)
  } catch (fault) {
    assert.instanceOf(fault, MalformedMessage)
    return fault.reason
  }
  return assert.fail("the row was accepted")
}

describe("Cell", () => {
  it.prop(
    "is found again from a record as it travels: by key and row, whatever the kind",
    [anywhere],
    ([{ key, kind, map, record: row }]) => {
      const cell = Cell.cellOf(kind, key, row)
      assert.strictEqual(Cell.keyOf(kind, cell), key)
      const received = Cell.decodeInPlace(kind, map, key, row.row)
      assert.strictEqual(received.row, row.row)
      assert.strictEqual(Cell.cellOf(kind, key, received), cell)
      assert.strictEqual(cell.length, Cell.prefixLengths[kind] + key.length)
    }
  )

  it("has a text that says whose it is", () => {
    assert.strictEqual(Cell.cellOf("lww", "k", put), "k")
    assert.strictEqual(Cell.cellOf("or", "k", put), `018bcfe568000007${nodeIds[1]}k`)
    assert.strictEqual(Cell.cellOf("or", "k", LwwRecord.remove(at)), Cell.cellOf("or", "k", put))
    assert.strictEqual(Cell.cellOf("counter", "hits", PnCounter.totals(nodeIds[1], 1, 2)), `${nodeIds[1]}hits`)
  })

  it.prop("of an addition sorts among those of its key as its stamp does", [stamp, stamp, name], ([a, b, key]) => {
    const [one, two] = [a, b].map((each) => Cell.cellOf("or", key, LwwRecord.remove(each))) as [string, string]
    assert.strictEqual(one < two ? -1 : one > two ? 1 : 0, Math.sign(Timestamp.compare(a, b)))
  })

  it("of a counter has its name for a key, and no other", () => {
    const { row } = PnCounter.totals(nodeIds[1], 1, 2)
    assert.instanceOf(Cell.decodeInPlace("counter", "hits", "hits", row), PnCounter.CounterRow)
    for (const key of ["", "hit", "hits ", "Hits", "__proto__"]) {
      assert.match(refusal("counter", "hits", key, row), /only key is its name/)
    }
  })

  it("refuses a row of another kind than its map's", () => {
    const counted = PnCounter.totals(nodeIds[1], 1, 2)
    for (const kind of ["lww", "or"] as const) {
      assert.match(refusal(kind, "hits", "hits", counted.row), /kind 48/)
      assert.deepStrictEqual(Cell.decodeInPlace(kind, "hits", "hits", put.row), put)
    }
    for (const row of [put, LwwRecord.remove(at), LwwRecord.put(at, Value.encode("a".repeat(12)))]) {
      assert.match(refusal("counter", "hits", "hits", row.row), /counter/)
    }
  })

  it("knows the names of the kinds from any others", () => {
    assert.deepStrictEqual(
      ["lww", "or", "counter", "LWW", "pn", "", "__proto__", "constructor", 0, null, undefined, ["or"]].filter(
        Cell.isMapKind
      ),
      ["lww", "or", "counter"]
    )
  })
})
