import { describe, expect, it } from "@effect/vitest"
import { MalformedMessage } from "@topgun/core/GridError"
import * as Value from "@topgun/core/Value"
import * as ValueJson from "@topgun/core/ValueJson"
import * as fc from "fast-check"

const fieldName = fc.oneof(
  fc.constantFrom("__proto__", "constructor", "toJSON", "", "0", "10", "a", "$date", "$object", "$bytes", "$x", "\0"),
  fc.string({ unit: "grapheme", maxLength: 4 })
)

/** Every kind of value that a grid can store. */
const value: fc.Arbitrary<Value.Value> = fc.letrec<{ value: Value.Value }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small" },
    fc.constantFrom<Value.Value>(null, true, -0, 0, 2 ** 53, -1.5e300, 5e-324, 2n ** 64n - 1n, -(2n ** 63n), 0n),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }),
    fc.string({ unit: "grapheme" }),
    fc.date({ noInvalidDate: true }),
    fc.uint8Array({ maxLength: 8 }),
    fc.array(tie("value"), { maxLength: 4 }),
    fc.uniqueArray(fc.tuple(fieldName, tie("value")), { selector: ([field]) => field, maxLength: 4 }).map(
      (entries) => Object.fromEntries(entries) as Value.Value
    )
  )
})).value

const text = (stored: unknown): string => JSON.stringify(ValueJson.toJson(Value.decode(Value.encode(stored))))

describe("A value as JSON", () => {
  it.prop("comes back as it was, whatever it is", { value }, ({ value: stored }) => {
    expect(Value.encode(ValueJson.fromJson(JSON.parse(text(stored))))).toEqual(Value.encode(stored))
  }, { fastCheck: { numRuns: 1_000 } })

  it("is JSON itself, where JSON has it", () => {
    const stored = Value.decode(Value.encode({ a: [1, "x", null, { b: true }] }))
    expect(ValueJson.toJson(stored)).toBe(stored)
  })

  it("shows what JSON lacks", () => {
    const stored = {
      at: new Date(0),
      big: 2n ** 63n,
      bytes: Uint8Array.of(1, 2, 255),
      none: -0,
      sly: { $date: "1970-01-01T00:00:00.000Z" }
    }
    expect(JSON.parse(text(stored))).toEqual({
      at: { $date: "1970-01-01T00:00:00.000Z" },
      big: { $bigint: "9223372036854775808" },
      bytes: { $bytes: "AQL/" },
      none: { $number: "-0" },
      sly: { $object: { $date: "1970-01-01T00:00:00.000Z" } }
    })
  })

  it("has bytes of any length", () => {
    const bytes = Uint8Array.from({ length: 200_000 }, (_, at) => at * 7)
    expect(ValueJson.fromJson(JSON.parse(text(bytes)))).toEqual(bytes)
  })

  it("is no deeper than values are, in whatever it's nested", () => {
    let stored: unknown = 1n
    for (let depth = 0; depth < Value.depthMax; depth++) stored = depth % 2 === 0 ? { $deep: stored } : [stored]
    expect(Value.encode(ValueJson.fromJson(JSON.parse(text(stored))))).toEqual(Value.encode(stored))
  })

  it.each([
    { $date: "yesterday" },
    { $date: "1970-01-01" },
    { $date: 0 },
    { $bigint: "1.5" },
    { $bigint: "007" },
    { $bigint: 1 },
    { $bytes: "?" },
    { $bytes: "AQL" },
    { $bytes: "AQM=\n" },
    { $bytes: "AR==" },
    { $number: "NaN" },
    { $object: [] },
    { $object: "x" },
    { $other: "x" }
  ])("isn't %j", (json) => {
    expect(() => ValueJson.fromJson(json)).toThrow(MalformedMessage)
  })

  it("makes no prototype of a field's name", () => {
    const read = ValueJson.fromJson(JSON.parse("{\"__proto__\":{\"__proto__\":{\"$bigint\":\"1\"}},\"a\":1}"))
    expect(Object.getPrototypeOf(read)).toBe(Object.prototype)
    expect(Value.encode(read)).toEqual(
      Value.encode(Object.fromEntries([["__proto__", Object.fromEntries([["__proto__", 1n]])], ["a", 1]]))
    )
  })
})
