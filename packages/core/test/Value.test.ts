import { describe, expect, it } from "@effect/vitest"
import { MalformedMessage, RecordTooLarge, ValueNotSupported } from "@topgun/core/GridError"
import * as Value from "@topgun/core/Value"
import * as FastCheck from "effect/FastCheck"
import { Unpackr } from "msgpackr"
import * as assert from "node:assert/strict"

// --- What the tests speak of ------------------------------------------------------------------------------------------

const hostileNames = [
  "__proto__",
  "constructor",
  "prototype",
  "toString",
  "hasOwnProperty",
  "length",
  "",
  "0",
  "-1",
  "then"
]

/** An object with the given fields, `__proto__` being one like any other. */
const objectOf = (fields: ReadonlyArray<readonly [string, unknown]>): Record<string, unknown> => {
  const object: Record<string, unknown> = {}
  for (const [name, value] of fields) {
    Object.defineProperty(object, name, { value, configurable: true, enumerable: true, writable: true })
  }
  return object
}

const anyText = FastCheck.oneof(
  FastCheck.string(),
  FastCheck.fullUnicodeString({ maxLength: 40 }),
  FastCheck.constantFrom(
    "",
    "\u0000",
    "\ufeffx",
    "e\u0301",
    "\u00e9",
    "\ue000",
    "\u{10000}",
    "x".repeat(31),
    "x".repeat(32),
    "é".repeat(16)
  ),
  FastCheck.constantFrom(...hostileNames)
)

/** On both sides of every border between two forms. */
const borderNumbers = [0, -0, 127, 128, 255, 256, 65_535, 65_536, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53]
  .flatMap((number) => [number, -number, -number - 1, number + 2])
  .concat(-31, -32, -33, 5e-324, 1.5, -1.5, 1e308)

const leaf = FastCheck.oneof(
  FastCheck.constantFrom(null, true, false),
  FastCheck.integer(),
  FastCheck.maxSafeInteger(),
  FastCheck.double({ noNaN: true, noDefaultInfinity: true }),
  FastCheck.constantFrom(
    ...borderNumbers
  ),
  FastCheck.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }),
  FastCheck.constantFrom(0n, 1n, -1n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n, -(2n ** 63n)),
  anyText,
  FastCheck.uint8Array({ maxLength: 40 }),
  FastCheck.date({ noInvalidDate: true }),
  FastCheck.constantFrom(new Date(0), new Date(-1), new Date(8.64e15), new Date(-8.64e15), new Date(2 ** 34 * 1000))
)

/** Every kind of value that a grid stores, small. */
const anyValue: FastCheck.Arbitrary<unknown> = FastCheck.letrec<{ value: unknown }>((tie) => ({
  value: FastCheck.oneof(
    { depthSize: "small", withCrossShrink: true },
    leaf,
    FastCheck.array(tie("value"), { maxLength: 18 }),
    FastCheck.uniqueArray(FastCheck.tuple(anyText, tie("value")), { maxLength: 18, selector: ([name]) => name })
      .map(objectOf)
  )
})).value

const tinyName = FastCheck.constantFrom(
  ...hostileNames,
  "a",
  "aa",
  "b",
  "é",
  "\uffff",
  "\u{10000}",
  "n".repeat(31),
  "n".repeat(32)
)

/** The same kinds from a small domain, where names meet each other and every border is crossed often. */
const tinyValue: FastCheck.Arbitrary<unknown> = FastCheck.letrec<{ value: unknown }>((tie) => ({
  value: FastCheck.oneof(
    { maxDepth: 3, depthSize: "small", withCrossShrink: true },
    FastCheck.constantFrom<Array<unknown>>(
      null,
      true,
      ...borderNumbers,
      -1n,
      2n ** 63n,
      "",
      "a",
      "aé",
      "€uro",
      "x".repeat(31),
      "x".repeat(32),
      "é".repeat(32),
      "x".repeat(64),
      "x".repeat(65),
      new Uint8Array(0),
      Uint8Array.of(0xc1, 0),
      new Date(-1)
    ),
    FastCheck.array(tie("value"), { maxLength: 3 }),
    FastCheck.uniqueArray(FastCheck.tuple(tinyName, tie("value")), { maxLength: 4, selector: ([name]) => name })
      .map(objectOf)
  )
})).value

/** Mostly small values, so that ten thousand are made in a moment. */
const manyValues = FastCheck.oneof({ weight: 29, arbitrary: tinyValue }, { weight: 1, arbitrary: anyValue })

/** Bytes around a value that would be read as something, were they looked at. */
const surroundings = FastCheck.tuple(
  FastCheck.uint8Array({ maxLength: 3 }),
  FastCheck.oneof(FastCheck.uint8Array({ maxLength: 3 }), FastCheck.constant(new Uint8Array(40).fill(0x61)))
)

/** The same value with the fields of every object in an order that the seed decides. */
const shuffled = (value: unknown, seed: number): unknown => {
  if (Array.isArray(value)) return value.map((element) => shuffled(element, seed))
  if (value === null || typeof value !== "object" || Object.getPrototypeOf(value) !== Object.prototype) return value
  const fields = Object.entries(value).map(([name, field]) => [name, shuffled(field, seed)] as const)
  for (let i = fields.length - 1; i > 0; i--) {
    const j = (seed >>> i % 16) % (i + 1)
    const moved = fields[i]!
    fields[i] = fields[j]!
    fields[j] = moved
  }
  return objectOf(fields)
}

/** The same value with the fields of every object in the opposite order. */
const reordered = (value: unknown): unknown =>
  Array.isArray(value)
    ? value.map(reordered)
    : value !== null && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype
    ? objectOf(Object.entries(value).reverse().map(([name, field]) => [name, reordered(field)]))
    : value

const bytesOf = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"))

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

const concat = (...parts: ReadonlyArray<Uint8Array>): Uint8Array => new Uint8Array(Buffer.concat(parts))

const nested = (levels: number): unknown => {
  let value: unknown = []
  for (let level = 1; level < levels; level++) value = level % 2 === 0 ? [value] : { a: value }
  return value
}

const zeroes = (count: number): Array<number> => Array.from({ length: count }, () => 0)

const holes = (count: number): Array<unknown> => {
  const array: Array<unknown> = []
  array.length = count
  return array
}

const thrownBy = (run: () => unknown): unknown => {
  try {
    run()
  } catch (error) {
    return error
  }
  return undefined
}

const refusalOf = (value: unknown): unknown => {
  const error = thrownBy(() => Value.encode(value))
  return error instanceof ValueNotSupported ? error.path : error
}

/** Headers of every kind and lengths that fit them, so that some sequences of them are values. */
const meaningfulBytes = [0, 1, 0x61, 0x7f, 0x80, 0x81, 0x82, 0x90, 0x91, 0x93, 0xa0, 0xa1, 0xa2, 0xc0, 0xc2, 0xc3, 0xc4]
  .concat(0xc7, 0xcb, 0xcc, 0xcd, 0xd0, 0xd9, 0xdc, 0xde, 0xe0, 0xff)

/** Bytes are refused by name wherever they lie, or are those that their value is encoded in. */
const expectCanonicalOrRefused = (
  bytes: Uint8Array,
  [before, after]: readonly [Uint8Array, Uint8Array]
): void => {
  const larger = concat(before, bytes, after)
  const start = before.length
  const end = start + bytes.length
  const isCanonical = Value.isCanonical(larger, start, end)
  expect(Value.isCanonical(bytes)).toBe(isCanonical)
  if (isCanonical) {
    Value.validate(larger, start, end)
    expect(hexOf(Value.encode(Value.decode(larger, start, end)))).toBe(hexOf(bytes))
    expect(hexOf(Value.encode(Value.decode(bytes)))).toBe(hexOf(bytes))
    expect(hexOf(Value.encode(Value.decodeTrusted(larger, start, end)))).toBe(hexOf(bytes))
  } else {
    expect(thrownBy(() => Value.validate(larger, start, end)) instanceof MalformedMessage).toBe(true)
    expect(thrownBy(() => Value.decode(larger, start, end)) instanceof MalformedMessage).toBe(true)
  }
}

// --- Laws -------------------------------------------------------------------------------------------------------------

describe("a value", () => {
  it.prop(
    "comes back in part with the fields that are asked for, and with nothing else",
    [
      FastCheck.dictionary(FastCheck.oneof(tinyName, anyText), manyValues, { maxKeys: 8 }),
      FastCheck.array(anyText),
      FastCheck.nat()
    ],
    ([fields, others, picked]) => {
      const value = objectOf(Object.entries(fields))
      const wanted = new Set([...Object.keys(value).filter((_, i) => (picked >> i) % 2 === 1), ...others])
      const expected = objectOf(Object.entries(value).filter(([name]) => wanted.has(name)))
      assert.deepEqual(Value.encode(Value.partDecoder(wanted)(Value.encode(value))), Value.encode(expected))
    }
  )

  it.prop("is whole in any part, unless it has fields", [manyValues], ([value]) => {
    const bytes = Value.encode(value)
    const part = Value.partDecoder(new Set())(bytes)
    const hasFields = (bytes[0]! >= 0x80 && bytes[0]! < 0x90) || bytes[0] === 0xde
    assert.deepEqual(part, hasFields ? {} : Value.decode(bytes))
  })

  it.prop("comes back as it was", [manyValues], ([value]) => {
    const bytes = Value.encode(value)
    const decoded = Value.decode(bytes)
    assert.deepStrictEqual(decoded, value)
    expect(hexOf(Value.encode(decoded))).toBe(hexOf(bytes))
  }, { fastCheck: { numRuns: 10_000 } })

  it.prop(
    "has the same bytes whatever the order of its fields",
    [manyValues, FastCheck.nat()],
    ([value, seed]) => {
      const hex = hexOf(Value.encode(value))
      expect(hexOf(Value.encode(reordered(value)))).toBe(hex)
      expect(hexOf(Value.encode(shuffled(value, seed)))).toBe(hex)
      expect(Value.equal(value, reordered(value))).toBe(true)
    },
    { fastCheck: { numRuns: 10_000 } }
  )

  it.prop(
    "is checked and decoded where it lies, whatever is around it",
    [manyValues, surroundings],
    ([value, [before, after]]) => {
      const bytes = Value.encode(value)
      const larger = concat(before, bytes, after)
      const start = before.length
      const end = start + bytes.length
      Value.validate(larger, start, end)
      expect(Value.isCanonical(larger, start, end)).toBe(true)
      assert.deepStrictEqual(Value.decode(larger, start, end), value)
      assert.deepStrictEqual(Value.decodeTrusted(larger, start, end), value)
      expect(Value.isCanonical(larger, start, end - 1)).toBe(false)
      if (after.length > 0) expect(Value.isCanonical(larger, start, end + 1)).toBe(false)
    },
    { fastCheck: { numRuns: 10_000 } }
  )

  it.prop("has other bytes than any other value", [anyValue, anyValue], ([a, b]) => {
    const isSame = thrownBy(() => assert.deepStrictEqual(a, b)) === undefined
    expect(Value.equal(a, b)).toBe(isSame)
  })

  it.prop(
    "is canonical as encoded, and with nothing cut off or added",
    [anyValue, FastCheck.nat(255)],
    ([value, more]) => {
      const bytes = Value.encode(value)
      expect(Value.isCanonical(bytes)).toBe(true)
      expect(Array.from(bytes.keys()).filter((end) => Value.isCanonical(bytes.subarray(0, end)))).toEqual([])
      expect(Value.isCanonical(concat(bytes, Uint8Array.of(more)))).toBe(false)
    }
  )

  it.prop("is read by other decoders of MessagePack", [anyValue], ([value]) => {
    const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: false, int64AsType: "bigint" })
    const plain = (read: unknown): unknown =>
      read instanceof Map
        ? objectOf(Array.from(read, ([name, field]) => [name as string, plain(field)]))
        : read instanceof Uint8Array
        ? new Uint8Array(read)
        : Array.isArray(read)
        ? read.map(plain)
        : read
    assert.deepStrictEqual(plain(unpackr.unpack(Value.encode(value))), value)
  })

  it.prop("is frozen at every level", [anyValue], ([value]) => {
    const isFrozen = (part: unknown): boolean =>
      part === null || typeof part !== "object" || part instanceof Date || part instanceof Uint8Array ||
      (Object.isFrozen(part) && Object.values(part).every(isFrozen))
    expect(isFrozen(Value.decode(Value.encode(value)))).toBe(true)
  })

  it.prop(
    "is decoded from no other bytes than its own",
    [
      manyValues,
      FastCheck.array(FastCheck.tuple(FastCheck.nat(), FastCheck.nat(255)), { minLength: 1, maxLength: 3 }),
      surroundings
    ],
    ([value, changes, around]) => {
      const bytes = Value.encode(value)
      for (const [at, byte] of changes) bytes[at % bytes.length] = byte
      expectCanonicalOrRefused(bytes, around)
    },
    { fastCheck: { numRuns: 10_000 } }
  )

  it.prop(
    "is decoded from no part of its bytes",
    [manyValues, FastCheck.nat(), surroundings],
    ([value, cut, around]) => {
      const bytes = Value.encode(value)
      const part = bytes.subarray(0, cut % bytes.length)
      expectCanonicalOrRefused(part, around)
      expect(Value.isCanonical(part)).toBe(false)
    },
    { fastCheck: { numRuns: 10_000 } }
  )

  it.prop(
    "is not made of arbitrary bytes, which are refused by name",
    [
      FastCheck.oneof(
        FastCheck.uint8Array({ maxLength: 60 }),
        FastCheck.array(FastCheck.constantFrom(...meaningfulBytes), { maxLength: 8 }).map((list) =>
          Uint8Array.from(list)
        )
      ),
      surroundings
    ],
    ([bytes, around]) => {
      expectCanonicalOrRefused(bytes, around)
    },
    { fastCheck: { numRuns: 10_000 } }
  )
})

describe("bytes in order", () => {
  const bytes = FastCheck.uint8Array({ maxLength: 4, max: 2 })

  it.prop("are ordered as a database orders blobs", [bytes, bytes], ([a, b]) => {
    expect(Value.compareBytes(a, b)).toBe(Buffer.compare(a, b))
  })
})

// --- Forms ------------------------------------------------------------------------------------------------------------

describe("the canonical form", () => {
  it.each([
    ["null", null, "c0"],
    ["false", false, "c2"],
    ["true", true, "c3"],
    ["0", 0, "00"],
    ["-0", -0, "cb8000000000000000"],
    ["127", 127, "7f"],
    ["128", 128, "cc80"],
    ["256", 256, "cd0100"],
    ["65536", 65536, "ce00010000"],
    ["2^32 - 1", 2 ** 32 - 1, "ceffffffff"],
    ["2^32", 2 ** 32, "cb41f0000000000000"],
    ["-1", -1, "ff"],
    ["-32", -32, "e0"],
    ["-33", -33, "d0df"],
    ["-128", -128, "d080"],
    ["-129", -129, "d1ff7f"],
    ["-32769", -32769, "d2ffff7fff"],
    ["-2^31 - 1", -(2 ** 31) - 1, "cbc1e0000000200000"],
    ["1.5", 1.5, "cb3ff8000000000000"],
    ["1n", 1n, "cf0000000000000001"],
    ["-1n", -1n, "d3ffffffffffffffff"],
    ["text", "é", "a2c3a9"],
    ["bytes", Uint8Array.of(1, 2), "c4020102"],
    ["1970", new Date(0), "c70cff000000000000000000000000"],
    ["1 ms before 1970", new Date(-1), "c70cff3b8b87c0ffffffffffffffff"],
    ["an array", [1, [2]], "92019102"],
    ["an object", { b: 1, a: 2 }, "82a16102a16201"],
    ["an object without prototype", Object.assign(Object.create(null), { a: 1 }), "81a16101"]
  ])("of %s is stable", (_, value, hex) => {
    expect(hexOf(Value.encode(value))).toBe(hex)
  })

  it("orders fields by UTF-8, where U+FFFF comes before U+10000, and a prefix before what it begins", () => {
    const names = ["\u{10000}", "\uffff", "\ue000", "\ud7ff", "b", "aa", "a", ""]
    const bytes = Value.encode(objectOf(names.map((name) => [name, 0])))
    expect(Object.keys(Value.decode(bytes) as object)).toEqual([...names].reverse())
  })

  it("tells numbers from bigints, and composed characters from decomposed ones", () => {
    expect([Value.equal(1, 1n), Value.equal("\u00e9", "e\u0301"), Value.equal(0, -0), Value.equal([], {})])
      .toEqual([false, false, false, false])
  })

  it("keeps the order of shapes apart when one begins like another", () => {
    for (let round = 0; round < 4; round++) {
      expect(hexOf(Value.encode({ b: 1, a: 2 }))).toBe("82a16102a16201")
      expect(hexOf(Value.encode({ b: 1, a: 2, A: 3 }))).toBe("83a14103a16102a16201")
      expect(hexOf(Value.encode({ b: 1, c: 2 }))).toBe("82a16201a16302")
    }
  })

  it("stays the same while more shapes pass than are remembered", () => {
    for (let i = 0; i < 3000; i++) {
      const fields = Array.from({ length: 9 }, (_, n) => [`f${(i * 7 + n * 5) % 4001}`, n] as const)
      const object = objectOf(fields)
      const decoded = Value.decode(Value.encode(object))
      expect(Object.keys(decoded as object)).toEqual(fields.map(([name]) => name).sort())
      if (i % 100 === 0) assert.deepStrictEqual(decoded, object)
    }
  })

  it("takes a Buffer for its bytes, and gives copies", () => {
    const source = Buffer.from("abc")
    const bytes = Value.encode(source)
    source[0] = 0
    const decoded = Value.decode(Buffer.from(bytes)) as Uint8Array
    expect(decoded).toEqual(Uint8Array.of(97, 98, 99))
    expect(Object.getPrototypeOf(decoded)).toBe(Uint8Array.prototype)
    bytes.fill(0)
    expect(decoded[0]).toBe(97)
  })

  it("is in an array of its own, or for a moment in the codec's", () => {
    const own = Value.encode("first")
    const transient = Value.encodeTransient("first")
    expect(hexOf(transient)).toBe(hexOf(own))
    Value.encode("other")
    expect(hexOf(own)).toBe("a56669727374")
    expect(own.buffer.byteLength).toBe(own.length)
  })
})

describe("a range of bytes", () => {
  const bytes = bytesOf("c0930102a161c0")

  it("is the whole of them where nothing else is said", () => {
    expect(Value.decode(bytes.subarray(1, 6))).toEqual([1, 2, "a"])
    expect(Value.decode(bytes.subarray(0, 6), 1)).toEqual([1, 2, "a"])
    expect(Value.decodeTrusted(bytes.subarray(0, 6), 1)).toEqual([1, 2, "a"])
  })

  it.each([[1, 5], [1, 7], [0, 6], [6, 6], [6, 1], [-1, 0], [-1, 1], [6, 8], [7, 8], [Number.NaN, 1], [0, Number.NaN]])(
    "is refused unless it is that of one value: [%d, %d)",
    (start, end) => {
      expect(Value.isCanonical(bytes, start, end)).toBe(false)
      expect(thrownBy(() => Value.validate(bytes, start, end))).toBeInstanceOf(MalformedMessage)
      expect(thrownBy(() => Value.decode(bytes, start, end))).toBeInstanceOf(MalformedMessage)
    }
  )

  it("is noticed, even unchecked, where the value doesn't end with it", () => {
    for (const end of [5, 7]) {
      expect(thrownBy(() => Value.decodeTrusted(bytes, 1, end))).toBeInstanceOf(MalformedMessage)
    }
  })
})

// --- Refusals ---------------------------------------------------------------------------------------------------------

describe("what has no canonical form", () => {
  class Point {
    readonly x = 1
  }
  const itself: Array<unknown> = []
  const cyclic = { list: itself }
  itself.push(0, { back: cyclic })
  const withProperty = Object.assign([1, 2], { total: 3 })

  it.each<readonly [what: string, value: unknown, path: string]>([
    ["undefined", undefined, "$"],
    ["undefined in a field", { a: undefined }, "$.a"],
    ["undefined in an array", { a: [0, { b: undefined }] }, "$.a[1].b"],
    ["NaN", { a: [Number.NaN] }, "$.a[0]"],
    ["Infinity", [Infinity], "$[0]"],
    ["-Infinity", [-Infinity], "$[0]"],
    ["a bigint of 65 bits", [2n ** 64n], "$[0]"],
    ["a negative bigint of 65 bits", [-(2n ** 63n) - 1n], "$[0]"],
    ["a high surrogate alone", { a: "x\ud800" }, "$.a"],
    ["a low surrogate alone", ["\udc00x"], "$[0]"],
    ["a lone surrogate in long text", ["x".repeat(500) + "\ud800"], "$[0]"],
    ["a lone surrogate in a field's name", { a: { "\ud800": 1 } }, "$.a[\"\\ud800\"]"],
    ["a function", { f: () => 0 }, "$.f"],
    ["a symbol", { s: Symbol.iterator }, "$.s"],
    ["a class's instance", { at: new Point() }, "$.at"],
    ["a Map", [new Map()], "$[0]"],
    ["a Set", [new Set()], "$[0]"],
    ["a RegExp", [/a/], "$[0]"],
    ["an Error", [new Error("x")], "$[0]"],
    ["a Promise", [Promise.resolve()], "$[0]"],
    ["a boxed number", [Object(1)], "$[0]"],
    ["another view of memory", [new Float64Array(1)], "$[0]"],
    ["an ArrayBuffer", [new ArrayBuffer(1)], "$[0]"],
    ["an invalid Date", { d: new Date(Number.NaN) }, "$.d"],
    ["a pretended Date", [Object.create(Date.prototype)], "$[0]"],
    ["a pretended Uint8Array", [Object.create(Uint8Array.prototype)], "$[0]"],
    ["a subclass of Array", [new (class extends Array {})()], "$[0]"],
    ["an object with a prototype of its own", [Object.create({ a: 1 })], "$[0]"],
    ["a hole", { a: [1, , 3] }, "$.a[1]"], // oxlint-disable-line no-sparse-arrays
    ["an array of holes", holes(3), "$[0]"],
    ["an array with a property", { a: withProperty }, "$.a"],
    ["an array with a symbol's property", [Object.assign([], { [Symbol.iterator]: 1 })], "$[0]"],
    ["a field named by a symbol", { a: { [Symbol.iterator]: 1 } }, "$.a"],
    ["a getter", {
      a: {
        get b() {
          return 1
        }
      }
    }, "$.a.b"],
    ["a setter", { set b(_: number) {} }, "$.b"],
    ["a field that is not enumerable", Object.defineProperty({}, "hidden", { value: 1 }), "$.hidden"],
    ["a value that contains itself", cyclic, "$.list[1].back"],
    ["an array that contains itself", { a: itself }, "$.a[1].back.list"],
    ["65 levels", nested(65), "$" + "[0].a".repeat(32)],
    ["a million levels", nested(1_000_000), "$" + ".a[0]".repeat(32)],
    ["too many elements", { a: zeroes(100_001) }, "$.a"],
    ["too many elements together", [zeroes(60_000), zeroes(60_000)], "$[1]"],
    ["an array of 2^32 - 1 holes", holes(2 ** 32 - 1), "$"]
  ])("is refused with its path: %s", (_, value, path) => {
    expect(refusalOf(value)).toBe(path)
  })

  it("is named by a path that quotes strange names and shortens long ones", () => {
    expect(refusalOf({ "a b": { "": { ["n".repeat(100)]: undefined } } })).toBe(`$["a b"][""]["${"n".repeat(40)}…"]`)
  })

  it("runs no getter in being refused", () => {
    let runs = 0
    const object = Object.defineProperty({}, "a", { enumerable: true, get: () => ++runs })
    expect(refusalOf(object)).toBe("$.a")
    expect(runs).toBe(0)
  })

  it("is named by its own path after a Proxy encoded, or failed to, amid it", () => {
    for (const other of [{ x: [{ y: 1 }] }, { x: [{ y: undefined }] }]) {
      const proxy = new Proxy({ a: undefined }, {
        getOwnPropertyDescriptor: (target, name) => {
          thrownBy(() => Value.encode(other))
          return Reflect.getOwnPropertyDescriptor(target, name)
        }
      })
      expect(refusalOf({ outer: [0, proxy] })).toBe("$.outer[1].a")
    }
  })

  it("is told apart from what a Proxy encodes while it is read", () => {
    let inner = ""
    const proxy = new Proxy({ a: 1, b: 2 }, {
      getOwnPropertyDescriptor: (target, name) => {
        inner = hexOf(Value.encode(["inner", 3]))
        return Reflect.getOwnPropertyDescriptor(target, name)
      }
    })
    expect(hexOf(Value.encode(["outer", proxy]))).toBe(hexOf(Value.encode(["outer", { a: 1, b: 2 }])))
    expect(inner).toBe(hexOf(Value.encode(["inner", 3])))
    expect(thrownBy(() => Value.encode(["outer", proxy], 8))).toBeInstanceOf(RecordTooLarge)
    expect(hexOf(Value.encode("next", 5))).toBe("a46e657874")
    expect(thrownBy(() => Value.encode("more", 4))).toBeInstanceOf(RecordTooLarge)
  })

  it("leaves the codec as it was", () => {
    for (const value of [[1, undefined], cyclic, "x".repeat(300_000)]) thrownBy(() => Value.encode(value))
    expect(hexOf(Value.encode([1]))).toBe("9101")
  })
})

describe("the depth of a value", () => {
  it.each([1, 63, 64])("may be %i", (levels) => {
    assert.deepStrictEqual(Value.decode(Value.encode(nested(levels))), nested(levels))
  })
})

const sizeError = (value: unknown, limit?: number): unknown => {
  const error = thrownBy(() => Value.encode(value, limit))
  return error instanceof RecordTooLarge
    ? { what: error.what, limit: error.limit, isOver: error.bytes > error.limit }
    : error
}

describe("the size of a value", () => {
  it("may be the limit and not a byte more", () => {
    const largest = "x".repeat(Value.valueBytesMax - 5)
    expect(Value.encode(largest).length).toBe(Value.valueBytesMax)
    expect(Value.decode(Value.encode(largest))).toBe(largest)
    expect(sizeError(largest + "x")).toEqual({ what: "value", limit: Value.valueBytesMax, isOver: true })
  })

  it.each<readonly [what: string, value: unknown]>([
    ["a string", "x".repeat(1_000_000)],
    ["a string of wide characters", "€".repeat(90_000)],
    ["bytes", new Uint8Array(300_000)],
    ["many strings", Array.from({ length: 4000 }, () => "x".repeat(100))],
    ["many fields", objectOf(Array.from({ length: 30_000 }, (_, i) => [`field-${i}`, 1]))],
    ["a field's name", { ["x".repeat(1_000_000)]: 1 }]
  ])("is refused beyond it: %s", (_, value) => {
    expect(sizeError(value)).toEqual({ what: "value", limit: Value.valueBytesMax, isOver: true })
  })

  it("has another limit where the caller says so", () => {
    expect(Value.encode([1, 2], 3).length).toBe(3)
    expect(sizeError([1, 2, 3], 3)).toEqual({ what: "value", limit: 3, isOver: true })
    expect(Value.encode("x".repeat(1_000_000), 2_000_000).length).toBe(1_000_005)
    expect(Value.encode(1).length).toBe(1)
  })

  it.each([15, 16, 65_535, 65_536])("has no gap at %i elements", (count) => {
    const array = Array.from({ length: count }, (_, i) => i % 2 === 0)
    assert.deepStrictEqual(Value.decode(Value.encode(array)), array)
  })

  it.each([15, 16, 33, 128, 129, 32_767, 32_768])("has no gap at %i fields", (count) => {
    const object = objectOf(Array.from({ length: count }, (_, i) => [i.toString(36), null]))
    const bytes = Value.encode(object, 1_000_000)
    expect(Object.keys(Value.decode(bytes) as object).length).toBe(count)
    expect(hexOf(Value.encode(Value.decode(bytes), 1_000_000))).toBe(hexOf(bytes))
  })

  it("has at most 32,768 fields in one object", () => {
    expect(Value.fieldsMax).toBe(32_768)
    const fields = Array.from({ length: 32_769 }, (_, i) => [i.toString(36).padStart(4, "0"), null] as const)
    const error = thrownBy(() => Value.encode({ a: [objectOf(fields)] }))
    expect(error).toBeInstanceOf(ValueNotSupported)
    expect(error).toMatchObject({ path: "$.a[0]" })
    const bytes = Value.encode(objectOf(fields.slice(1)))
    expect(Value.isCanonical(bytes)).toBe(true)
    const oneMore = concat(bytesOf("de8001"), Value.encode(fields[0]![0]), bytesOf("c0"), bytes.subarray(3))
    expect(Value.isCanonical(oneMore)).toBe(false)
    expect(thrownBy(() => Value.decode(oneMore))).toMatchObject({
      _tag: "MalformedMessage",
      reason: "not a canonical value: an object has at most 32768 fields"
    })
    expect(Value.isCanonical(concat(bytesOf("df00008001"), oneMore.subarray(3)))).toBe(false)
  })

  it.each([31, 32, 255, 256, 65_535, 65_536])("has no gap at %i bytes", (count) => {
    for (
      const value of ["x".repeat(count), "é".repeat(count / 2) + (count % 2 === 1 ? "x" : ""), new Uint8Array(count)]
    ) {
      assert.deepStrictEqual(Value.decode(Value.encode(value)), value)
    }
  })
})

// --- Names are only names ---------------------------------------------------------------------------------------------

const prototypes: ReadonlyArray<object> = [Object.prototype, Array.prototype, Function.prototype]

const snapshot = (): ReadonlyArray<unknown> => {
  const parts: Array<unknown> = []
  for (const prototype of prototypes) {
    for (const name of Reflect.ownKeys(prototype)) {
      const property = Object.getOwnPropertyDescriptor(prototype, name)!
      const { configurable, enumerable, get, set, value, writable } = property
      parts.push(name, configurable, enumerable, get, set, value, writable)
    }
  }
  return parts
}

describe("a field's name", () => {
  it.each(hostileNames)("may be %j at every level and touches no prototype", (name) => {
    const before = snapshot()
    const polluted = objectOf([["polluted", true]])
    const value = objectOf([[name, objectOf([[name, [objectOf([[name, polluted]])]], ["z", 1]])]])
    for (let round = 0; round < 3; round++) {
      const decoded = Value.decode(Value.encode(value)) as Record<string, unknown>
      assert.deepStrictEqual(decoded, value)
      expect(Object.getPrototypeOf(decoded)).toBe(Object.prototype)
      expect(Object.keys(decoded)).toEqual([name])
      expect("polluted" in decoded).toBe(name === "polluted")
    }
    expect(snapshot()).toEqual(before)
    expect("polluted" in {}).toBe(false)
  })
})

describe("names", () => {
  const hostile: FastCheck.Arbitrary<unknown> = FastCheck.letrec<{ object: unknown }>((tie) => ({
    object: FastCheck.uniqueArray(
      FastCheck.tuple(
        FastCheck.constantFrom(...hostileNames),
        FastCheck.oneof({ maxDepth: 4, depthSize: "small" }, FastCheck.constantFrom(1, "__proto__", []), tie("object"))
      ),
      { maxLength: 4, selector: ([name]) => name }
    ).map(objectOf)
  })).object
  const before = snapshot()

  it.prop("that objects inherit come back at every level, and no prototype changes", [hostile], ([value]) => {
    const bytes = Value.encode(value)
    const decoded = Value.decode(bytes)
    assert.deepStrictEqual(decoded, value)
    expect(hexOf(Value.encode(decoded))).toBe(hexOf(bytes))
    const after = snapshot()
    expect(after.length === before.length && after.every((part, i) => part === before[i])).toBe(true)
  }, { fastCheck: { numRuns: 10_000 } })

  it("come back from values that are full of new ones, and from objects with many", () => {
    const objects = Array.from({ length: 600 }, (_, i) =>
      objectOf([
        [`new-${i}`, objectOf([["__proto__", { polluted: i }], ["", []]])],
        [`${i}`, 0],
        ["constructor", null],
        ["é", i],
        ["n".repeat(40), i]
      ]))
    const many = objectOf(
      [...hostileNames, ...Array.from({ length: 300 }, (_, i) => `m${i}`)].map((name) => [name, {}])
    )
    for (let round = 0; round < 2; round++) {
      for (const value of [objects, many, [many, ...objects, many]]) {
        const bytes = Value.encode(value)
        const decoded = Value.decode(bytes)
        assert.deepStrictEqual(decoded, value)
        expect(hexOf(Value.encode(decoded))).toBe(hexOf(bytes))
        for (const object of [decoded, ...Object.values(decoded as object)]) expect(Object.isFrozen(object)).toBe(true)
      }
    }
    expect(snapshot()).toEqual(before)
  })

  it("are told apart when the one is spelled with the bytes of the other", () => {
    for (const name of ["\u00c3\u00a9", "\u00e9", "\u00c3\u00a9", "\u00e9"]) {
      expect(Object.keys(Value.decode(Value.encode({ [name]: 1 })) as object)).toEqual([name])
    }
  })

  it("are told apart when they are as long, and begin and end alike", () => {
    const alike = Array.from({ length: 26 }, (_, i) => `ab${String.fromCharCode(97 + i)}cdefgh`)
    for (let round = 0; round < 3; round++) {
      for (const name of alike) {
        assert.deepStrictEqual(Value.decode(Value.encode({ [name]: 1, z: 2 })), { [name]: 1, z: 2 })
      }
    }
  })
})

// --- Keys -------------------------------------------------------------------------------------------------------------

describe("a key", () => {
  it.each([
    "",
    "a",
    "__proto__",
    "\u0000",
    "x".repeat(1024),
    "é".repeat(512),
    "😀".repeat(256),
    "../../etc",
    "' or 1=1 --"
  ])(
    "may be %j",
    (key) => {
      expect(Value.checkKey(key)).toBe(key)
    }
  )

  it.each(["x".repeat(1025), "é".repeat(513), "😀".repeat(257), "x".repeat(1_000_000)])(
    "has at most 1 KiB (%#)",
    (key) => {
      expect(thrownBy(() => Value.checkKey(key))).toBeInstanceOf(RecordTooLarge)
    }
  )

  it.each([undefined, null, 1, 1n, true, {}, ["a"], Symbol.iterator, "\ud800", "a\udc00"])(
    "is well-formed text (%#)",
    (key) => {
      expect(thrownBy(() => Value.checkKey(key))).toBeInstanceOf(ValueNotSupported)
    }
  )
})

// --- Hostile bytes ----------------------------------------------------------------------------------------------------

const zeros = (count: number): string => "00".repeat(count)

describe("hostile bytes", () => {
  const canonicalTimestamp = "c70cff" + zeros(12)

  const corpus: ReadonlyArray<readonly [what: string, hex: string]> = [
    ["nothing", ""],
    ["two values", "c0c0"],
    ["array32 that claims 30 million", "dd01c9c380"],
    ["20 nested array32 that claim 10 million each", "dd00989680".repeat(20)],
    ["array16 cut short", "dc0010"],
    ["array32 that claims 2^32 - 1", "ddffffffff"],
    ["map32 that claims 2^32 - 1", "dfffffffff"],
    ["str32 that claims 2^32 - 1", "dbffffffff"],
    ["bin32 that claims 2^32 - 1", "c6ffffffff"],
    ["200,000 nested arrays", "91".repeat(200_000)],
    ["65 nested arrays", "91".repeat(64) + "90"],
    ["a million empty maps in an array", "dd000f4240" + "80".repeat(1_000_000)],
    ["100,001 nulls in an array", "dd000186a1" + "c0".repeat(100_001)],
    ["a field twice", "82a16101a16102"],
    ["fields out of order", "82a16201a16101"],
    ["__proto__ twice", "82a95f5f70726f746f5f5f80a95f5f70726f746f5f5f80"],
    ["a number as field name", "810101"],
    ["null as field name", "81c001"],
    ["bytes as field name", "81c4016101"],
    ["a record's definition (ext 0x72)", "d4724091a16101"],
    ["a RegExp (ext 0x78)", "c7037892a16161"],
    ["a Set (ext 0x73)", "d473009101"],
    ["an Error (ext 0x65)", "d4650091a178"],
    ["a pointer (ext 0x70)", "d67000000000"],
    ["an object with identity (ext 0x69)", "d6690000000080"],
    ["undefined as msgpackr has it", "d40000"],
    ["float32", "ca3f800000"],
    ["NaN", "cb7ff8000000000000"],
    ["NaN with a payload", "cb7ff8000000000001"],
    ["a signalling NaN", "cbfff0000000000001"],
    ["Infinity", "cb7ff0000000000000"],
    ["-Infinity", "cbfff0000000000000"],
    ["an integer as float", "cb3ff0000000000000"],
    ["zero as float", "cb0000000000000000"],
    ["2^32 - 1 as float", "cb41efffffffe00000"],
    ["-2^31 as float", "cbc1e0000000000000"],
    ["5 in two bytes", "cc05"],
    ["5 in three", "cd0005"],
    ["255 in three", "cd00ff"],
    ["65535 in five", "ce0000ffff"],
    ["5 signed", "d005"],
    ["-1 in two bytes", "d0ff"],
    ["-32 in two bytes", "d0e0"],
    ["-128 in three", "d1ff80"],
    ["128 signed in three", "d10080"],
    ["-32768 in five", "d2ffff8000"],
    ["2^31 - 1 signed", "d27fffffff"],
    ["0n signed", "d30000000000000000"],
    ["2^63 - 1 signed", "d37fffffffffffffff"],
    ["a short string in two bytes", "d90161"],
    ["a short string in three", "da000161"],
    ["a short string in five", "db0000000161"],
    ["a short name in two bytes", "81d9016101"],
    ["a few bytes in bin16", "c5000161"],
    ["a few bytes in bin32", "c60000000161"],
    ["a short array in array16", "dc000101"],
    ["a short array in array32", "dd0000000101"],
    ["a short map in map16", "de0001a16101"],
    ["a short map in map32", "df00000001a16101"],
    ["a string that is not UTF-8", "a1ff"],
    ["an overlong character", "a2c080"],
    ["a surrogate in UTF-8", "a3eda080"],
    ["a character beyond U+10FFFF", "a4f4908080"],
    ["a name that is not UTF-8", "81a1ff01"],
    ["the byte 0xc1", "c1"],
    ["timestamp 32", "d6ff00000000"],
    ["timestamp 64", "d7ff" + zeros(8)],
    ["a timestamp of another length", "c70bff" + zeros(11)],
    ["a timestamp with 999,999,999 ns", "c70cff3b9ac9ff" + zeros(8)],
    ["a timestamp with 10^9 ns", "c70cff3b9aca00" + zeros(8)],
    ["a timestamp with 2^32 - 1 ns", "c70cffffffffff" + zeros(8)],
    ["a timestamp in the year 10^6", "c70cff0000000000001cae8c13e000"],
    ["a timestamp beyond any calendar", "c70cff000000007fffffffffffffff"],
    ["a timestamp before any calendar", "c70cff000000008000000000000000"],
    ["a timestamp 1 ms after the last Date", "c70cff000f4240000007dba8218000"]
  ]

  it.each(corpus)("are refused: %s", (_, hex) => {
    const bytes = bytesOf(hex)
    expect(Value.isCanonical(bytes)).toBe(false)
    expect(thrownBy(() => Value.validate(bytes))).toBeInstanceOf(MalformedMessage)
    expect(thrownBy(() => Value.decode(bytes))).toBeInstanceOf(MalformedMessage)
  })

  it("are refused for every type of extension in every form, save the one timestamp", () => {
    for (let type = 0; type < 256; type++) {
      const t = type.toString(16).padStart(2, "0")
      const forms = [
        ...[1, 2, 4, 8, 16].map((length, i) => (0xd4 + i).toString(16) + t + zeros(length)),
        `c700${t}`,
        `c701${t}00`,
        `c70c${t}${zeros(12)}`,
        `c80000${t}`,
        `c80100${t}${zeros(256)}`,
        `c8ffff${t}`,
        `c900000000${t}`,
        `c900010000${t}`,
        `c9ffffffff${t}`
      ]
      for (const hex of forms) expect([hex, Value.isCanonical(bytesOf(hex))]).toEqual([hex, hex === canonicalTimestamp])
    }
  })

  it.each([256, 1024, 100_000])("are refused at a depth of %i", (depth) => {
    expect(Value.isCanonical(bytesOf("91".repeat(depth) + "c0"))).toBe(false)
    expect(Value.isCanonical(bytesOf("81a161".repeat(depth) + "c0"))).toBe(false)
  })
})
