import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, FastCheck as fc, Schema } from "effect"
import { RE2JS } from "re2js"
import { vi } from "vitest"
import { QueryInvalid, QueryTooExpensive } from "../src/GridError.ts"
import { sizeOf, weightOf } from "../src/internal/regex.ts"
import * as Predicate from "../src/Predicate.ts"
import * as Value from "../src/Value.ts"

const truthOf = (predicate: unknown, value: unknown, references?: Predicate.References): Predicate.Truth =>
  Predicate.compile(predicate as Predicate.Predicate, references)(value)

/** Where it is wrong, and why. */
const faultOf = (predicate: unknown): readonly [path: string, reason: string] => {
  try {
    Predicate.parse(predicate)
  } catch (fault) {
    assert.instanceOf(fault, QueryInvalid)
    return [fault.path, fault.reason]
  }
  return assert.fail("it was taken")
}

// --- Another interpreter, which is slow and says it otherwise ---------------------------------------------------------

type Data = { readonly [name: string]: unknown }

/** 0, ½ and 1, of which `and` is the least, `or` the greatest, and `not` what is missing to 1. */
const unknown = 0.5

const withoutMinusZero = (value: unknown): unknown =>
  Object.is(value, -0)
    ? 0
    : Array.isArray(value)
    ? value.map(withoutMinusZero)
    : typeOf(value) === "object"
    ? Object.fromEntries(Object.entries(value as Data).map(([name, field]) => [name, withoutMinusZero(field)]))
    : value

const canonical = (value: unknown): string => Buffer.from(Value.encode(withoutMinusZero(value))).toString("hex")

const resolved = (operand: unknown, references: Data): unknown => {
  if (typeof operand !== "object" || operand === null || Object.keys(operand).length !== 1) return operand
  if ("literal" in operand) return operand.literal
  return "principal" in operand ? references[operand.principal as string] : operand
}

const typeOf = (value: unknown): string =>
  value instanceof Date ? "date" : value instanceof Uint8Array ? "bytes" : value === null ? "null" : typeof value

/** Something that JavaScript orders. */
const ranked = (value: unknown): string | number => {
  switch (typeOf(value)) {
    case "number":
    case "boolean":
    case "date":
      return Number(value)
    case "bigint":
      return Number(value)
    case "string":
      return Buffer.from(value as string).toString("hex")
    default:
      return Buffer.from(value as Uint8Array).toString("hex")
  }
}

/** By trying everything, on code points. */
const isLike = (pattern: ReadonlyArray<string>, text: ReadonlyArray<string>): boolean => {
  const [first, ...others] = pattern
  const [point, ...rest] = text
  if (first === undefined) return point === undefined
  if (first === "%") return isLike(others, text) || (point !== undefined && isLike(pattern, rest))
  const literal = first === "\\" ? others.shift() : first === "_" ? point : first
  return point !== undefined && literal === point && isLike(others, rest)
}

const holds = (field: unknown, operator: string, given: unknown, references: Data): number => {
  if (operator === "exists") return Number((field !== undefined) === given)
  const whole = resolved(given, references)
  const operand: unknown = Array.isArray(whole) ? whole.map((each) => resolved(each, references)) : whole
  if (field === undefined || operand === undefined || (Array.isArray(operand) && operand.includes(undefined))) {
    return unknown
  }
  const compare = (bound: unknown, test: (a: string | number, b: string | number) => boolean) =>
    typeOf(field) !== typeOf(bound) || ["null", "object"].includes(typeOf(field))
      ? unknown
      : Number(test(ranked(field), ranked(bound)))
  const isReferred = [given].flat().some((each) => typeOf(each) === "object" && "principal" in (each as Data))
  const contains = (part: unknown) =>
    typeof field === "string" && isReferred ? unknown : typeof field === "string"
      ? typeof part === "string" ? Number(field.split(part).length > 1 || part === "") : unknown
      : Array.isArray(field)
      ? Number(field.map(canonical).includes(canonical(part)))
      : unknown
  switch (operator) {
    case "eq":
      return Number(canonical(field) === canonical(operand))
    case "neq":
      return Number(canonical(field) !== canonical(operand))
    case "gt":
      return compare(operand, (a, b) => a > b)
    case "gte":
      return compare(operand, (a, b) => a >= b)
    case "lt":
      return compare(operand, (a, b) => a < b)
    case "lte":
      return compare(operand, (a, b) => a <= b)
    case "between": {
      const [low, high] = operand as ReadonlyArray<unknown>
      const bounds = [compare(low, (a, b) => a >= b), compare(high, (a, b) => a <= b)]
      return bounds.includes(unknown) ? unknown : Math.min(...bounds)
    }
    case "in":
      return Array.isArray(operand) ? Number(operand.map(canonical).includes(canonical(field))) : unknown
    case "contains":
      return contains(operand)
    case "containsAll":
      return Array.isArray(operand) && Number.isInteger(contains("")) ? Math.min(1, ...operand.map(contains)) : unknown
    case "containsAny":
      return Array.isArray(operand) && Number.isInteger(contains("")) ? Math.max(0, ...operand.map(contains)) : unknown
    case "like":
      return typeof field === "string" ? Number(isLike(Array.from(operand as string), Array.from(field))) : unknown
    default:
      return typeof field === "string" && typeof operand === "string" ? Number(field.startsWith(operand)) : unknown
  }
}

const interpret = (predicate: Data, value: unknown, references: Data): number =>
  Math.min(
    1,
    ...Object.entries(predicate).map(([name, part]) => {
      if (name === "and") {
        return Math.min(
          1,
          ...(part as ReadonlyArray<Data>).map((each) => interpret(each, value, references))
        )
      }
      if (name === "or") {
        return Math.max(
          0,
          ...(part as ReadonlyArray<Data>).map((each) => interpret(each, value, references))
        )
      }
      if (name === "not") return 1 - interpret(part as Data, value, references)
      const field = name.split(".").reduce<unknown>(
        (at, step) =>
          typeOf(at) === "object" && !Array.isArray(at) ? new Map(Object.entries(at ?? {})).get(step) : undefined,
        value
      )
      const isOperand = typeOf(part) !== "object" || "principal" in (part as Data)
      return Math.min(
        ...Object.entries(isOperand ? { eq: part } : part as Data).map(([operator, operand]) =>
          holds(field, operator, operand, references)
        )
      )
    })
  )

// --- Tiny domains -----------------------------------------------------------------------------------------------------

const scalar = fc.constantFrom<Exclude<Predicate.Scalar, null>>(
  0,
  1,
  -0,
  1.5,
  1n,
  2n,
  "",
  "a",
  "ab",
  "\uffff",
  "\u{10000}",
  true,
  false,
  Uint8Array.of(1),
  Uint8Array.of(1, 0),
  new Date(0),
  new Date(1)
)

const data: fc.Arbitrary<Value.Value> = fc.letrec<{ data: Value.Value }>((tie) => ({
  data: fc.oneof(
    { maxDepth: 2 },
    { arbitrary: scalar, weight: 5 },
    fc.constantFrom(null),
    fc.array(tie("data"), { maxLength: 3 }),
    fc.dictionary(fc.constantFrom("n", "__proto__"), tie("data"), { maxKeys: 2 })
  )
})).data

const anyValue: fc.Arbitrary<Value.Value> = fc.oneof(
  { arbitrary: fc.record({ n: data, s: data }, { requiredKeys: [] }), weight: 9 },
  data
)

const reference = fc.constantFrom("one", "list", "absent").map((principal) => ({ principal }))
const anyReferences = fc.record({ one: scalar, list: fc.array(scalar, { maxLength: 3 }) }, { requiredKeys: [] })

const anyOperand: fc.Arbitrary<Value.Value> = fc.oneof(
  { arbitrary: scalar, weight: 4 },
  data,
  reference,
  fc.constantFrom({ literal: { principal: "one" } }, { literal: { literal: 1 } })
)
const list = fc.oneof({ arbitrary: fc.array(anyOperand, { maxLength: 3 }), weight: 4 }, reference)

/** Both of one type, unless one is a reference. */
const pair = fc.oneof(
  fc.tuple(scalar, scalar).filter(([low, high]) => typeOf(low) === typeOf(high)),
  fc.tuple(scalar, reference),
  fc.tuple(reference, scalar)
)

const anyCondition: fc.Arbitrary<Value.Value> = fc.oneof(
  { arbitrary: scalar, weight: 2 },
  reference,
  {
    arbitrary: fc.oneof(
      fc.tuple(fc.constantFrom("eq", "neq", "contains"), anyOperand),
      fc.tuple(fc.constantFrom("gt", "gte", "lt", "lte"), fc.oneof(scalar, reference)),
      fc.tuple(fc.constant("between"), pair),
      fc.tuple(fc.constantFrom("in", "containsAll", "containsAny"), list),
      fc.tuple(fc.constant("startsWith"), fc.oneof(fc.constantFrom("", "a", "b"), reference)),
      fc.tuple(fc.constant("like"), fc.constantFrom("", "%", "a%", "_", "_b")),
      fc.tuple(fc.constant("exists"), fc.boolean())
    ).map(([operator, of]) => ({ [operator]: of })),
    weight: 12
  }
)

const anyPredicate: fc.Arbitrary<Predicate.Predicate> = fc.letrec<{ predicate: unknown }>((tie) => ({
  predicate: fc.oneof(
    { maxDepth: 3 },
    fc.dictionary(fc.constantFrom("n", "s", "n.n", "s.n", "n.__proto__"), anyCondition, { minKeys: 0, maxKeys: 2 }),
    fc.record({ and: fc.array(tie("predicate"), { maxLength: 3 }) }),
    fc.record({ or: fc.array(tie("predicate"), { maxLength: 3 }) }),
    fc.record({ not: tie("predicate") }),
    fc.record({ n: anyCondition, or: fc.array(tie("predicate"), { maxLength: 2 }) })
  )
})).predicate as fc.Arbitrary<Predicate.Predicate>

/** What passes for something that it isn't. */
const hostileObjects: ReadonlyArray<unknown> = [
  Object.create(Uint8Array.prototype),
  Object.create(Date.prototype),
  Object.create(Array.prototype),
  Object.create(null),
  new Date(Number.NaN),
  new Map([["n", 1]]),
  Array.from({ length: 3 }),
  Number.NaN,
  Symbol("n"),
  () => 1
]

const law = { fastCheck: { numRuns: 400 } }

// --- Behaviour --------------------------------------------------------------------------------------------------------

describe("A predicate", () => {
  it.prop(
    "says of a value what an interpreter says that is written otherwise",
    [anyPredicate, anyValue, anyReferences],
    ([predicate, value, references]) => {
      const truth = truthOf(predicate, value, references)
      assert.strictEqual(truth === undefined ? unknown : Number(truth), interpret(predicate, value, references))
    },
    { fastCheck: { numRuns: 3_000 } }
  )

  it.prop(
    "follows the laws of Kleene's logic",
    [anyPredicate, anyPredicate, anyValue, anyReferences],
    ([a, b, value, references]) => {
      const same = (left: Predicate.Predicate, right: Predicate.Predicate) =>
        assert.strictEqual(truthOf(left, value, references), truthOf(right, value, references))
      same({ not: { not: a } }, a)
      same({ not: { and: [a, b] } }, { or: [{ not: a }, { not: b }] })
      same({ not: { or: [a, b] } }, { and: [{ not: a }, { not: b }] })
      same({ and: [a, b] }, { and: [b, a] })
      same({ or: [a, b] }, { or: [b, a] })
      same({ and: [a, a] }, a)
      same({ or: [a, { and: [a, b] }] }, a)
      same({ and: [a, {}] }, a)
      same({ or: [a, { or: [] }] }, a)
    },
    law
  )

  it.prop(
    "opens nothing by a reference that nobody resolves, not even denied",
    [anyCondition, anyValue],
    ([given, value]) => {
      const absent = { principal: "absent" }
      const comparisons: ReadonlyArray<Data> = [
        ...["eq", "neq", "gt", "gte", "lt", "lte", "in", "contains", "containsAll", "containsAny", "startsWith"].map(
          (operator) => ({ [operator]: absent })
        ),
        ...["in", "containsAll", "containsAny"].map((operator) => ({ [operator]: ["a", absent] })),
        { between: [0, absent] },
        { between: [absent, 0] }
      ]
      for (const comparison of comparisons) {
        assert.isUndefined(truthOf({ n: comparison }, value))
        assert.isUndefined(truthOf({ not: { n: comparison } }, value))
        assert.isFalse(Predicate.isTrue(truthOf({ s: given, n: comparison }, value, { one: "a" })))
      }
    },
    law
  )

  it("takes for unresolved what is nobody's name", () => {
    const of = (principal: unknown) =>
      truthOf({ owner: { principal: "userId" } }, { owner: null }, { userId: principal } as Predicate.References)
    for (const nobody of [undefined, null, Number.NaN, "\ud800", {}, [null], [["a"]], [{}], () => 1]) {
      assert.isUndefined(of(nobody))
    }
    assert.isFalse(of("alice"))
    const records = { owner: "constructor" }
    assert.isUndefined(truthOf({ owner: { neq: { principal: "constructor" } } }, records, {}))
    const teams = Array.from({ length: Predicate.listMax }, (_, i) => `t${i}`)
    assert.isTrue(truthOf({ team: { in: { principal: "teams" } } }, { team: "t0" }, { teams }))
    assert.isUndefined(truthOf({ team: { in: { principal: "teams" } } }, { team: "t0" }, { teams: [...teams, "t"] }))
  })

  it("of many fields holds when all do, with or without connectives beside them", () => {
    const predicate: Predicate.Predicate = { done: false, n: { gt: 3, lte: 9 }, or: [{ a: 1 }, { b: 1 }] }
    const test = Predicate.compile(predicate)
    assert.isTrue(test({ done: false, n: 9, a: 2, b: 1 }))
    assert.isFalse(test({ done: false, n: 10, a: 1, b: 1 }))
    assert.isFalse(test({ done: true, n: 9, a: 1 }))
    assert.isUndefined(test({ done: false, n: 9, a: 2 }))
  })

  it("knows nothing of a field that isn't there, but that", () => {
    assert.isUndefined(truthOf({ a: 1 }, {}))
    assert.isUndefined(truthOf({ not: { a: 1 } }, {}))
    assert.isUndefined(truthOf({ a: { in: [] } }, {}))
    assert.isFalse(truthOf({ a: { exists: true } }, {}))
    assert.isTrue(truthOf({ a: { exists: false } }, "text"))
    assert.isTrue(truthOf({ a: { exists: true } }, { a: null }))
    assert.isTrue(truthOf({ a: null }, { a: null }))
    assert.isFalse(truthOf({ a: { neq: null } }, { a: null }))
  })

  it("reads own fields of plain objects only", () => {
    for (const name of ["__proto__", "constructor", "toString", "hasOwnProperty"]) {
      assert.isFalse(truthOf({ [name]: { exists: true } }, {}), name)
      const own = JSON.parse(`{ "${name}": 1 }`)
      assert.isTrue(truthOf(JSON.parse(`{ "${name}": 1 }`), own), name)
      assert.isTrue(truthOf({ a: { eq: JSON.parse(`{ "${name}": 1 }`) } }, { a: own }), name)
      assert.isFalse(truthOf({ a: { eq: {} } }, { a: own }), name)
    }
    const inherited = Object.create({ owner: "alice" })
    assert.isFalse(truthOf({ owner: { exists: true } }, inherited))
    assert.isFalse(truthOf({ "tags.0": { exists: true } }, { tags: ["a"] }))
    assert.isFalse(truthOf({ "tags.length": { exists: true } }, { tags: ["a"] }))
    assert.isFalse(truthOf({ "bytes.0": { exists: true } }, { bytes: Uint8Array.of(1) }))
  })

  it.prop("finds each field by the path written for it", [
    fc.array(fc.oneof(fc.constantFrom("and", "or", "not", "__proto__", "", ".", "\\", "a.b"), fc.string()), {
      minLength: 1,
      maxLength: 4
    })
  ], ([names]) => {
    const [first, ...others] = names as [string, ...Array<string>]
    const path = Predicate.path(first, ...others)
    const nested = names.reduceRight<unknown>((inner, name) => Object.fromEntries([[name, inner]]), 1)
    const predicate = Object.fromEntries([[path, 1]])
    assert.isTrue(truthOf(predicate, nested))
    assert.deepStrictEqual(Predicate.fieldsOf(predicate), [path])
  }, law)

  it("compares objects and lists deeply, and those that look like references when they are called literal", () => {
    const at = { x: 1, y: [{ z: -0 }] }
    assert.isTrue(truthOf({ at: { eq: { y: [{ z: 0 }], x: 1 } } }, { at }))
    assert.isFalse(truthOf({ at: { eq: { y: [{ z: 0 }] } } }, { at }))
    assert.isFalse(truthOf({ at: { eq: { x: 1, y: [{ z: 0 }], w: 1 } } }, { at }))
    const record = { owner: { principal: "userId" } }
    assert.isFalse(truthOf({ owner: { eq: { principal: "userId" } } }, record, { userId: "alice" }))
    assert.isTrue(truthOf({ owner: { eq: { literal: { principal: "userId" } } } }, record, { userId: "alice" }))
    assert.isTrue(truthOf({ owner: { in: [1, { literal: { principal: "userId" } }] } }, record))
    assert.isTrue(truthOf({ a: { eq: { literal: { literal: 1 } } } }, { a: { literal: 1 } }))
  })

  it("orders text as its bytes, and nothing across types", () => {
    assert.isTrue(truthOf({ a: { gt: "\uffff" } }, { a: "\u{10000}" }))
    assert.isTrue(truthOf({ a: { lt: "ab" } }, { a: "a" }))
    assert.isUndefined(truthOf({ a: { gt: 1 } }, { a: "2" }))
    assert.isUndefined(truthOf({ a: { gt: 1 } }, { a: 2n }))
    assert.isUndefined(truthOf({ not: { a: { gt: 1 } } }, { a: null }))
    assert.isFalse(truthOf({ a: 1 }, { a: 1n }))
  })

  it("finds all of a list however often an array repeats some, time after time", () => {
    const test = Predicate.compile({ tags: { containsAll: ["a", "b", "a", [1]] } })
    assert.isFalse(test({ tags: ["a", "a", "a", [1]] }))
    assert.isFalse(test({ tags: ["b", "b", [1]] }))
    assert.isTrue(test({ tags: ["b", [1], "a"] }))
    assert.isFalse(test({ tags: ["b", "a"] }))
    assert.isTrue(truthOf({ text: { containsAll: ["milk", "il"] } }, { text: "milky" }))
    assert.isUndefined(truthOf({ text: { containsAll: [] } }, { text: 1 }))
  })

  it.prop(
    "answers of anything at all",
    [anyPredicate, fc.anything(), anyReferences],
    ([predicate, any, references]) => {
      const test = Predicate.compile(predicate, references)
      for (
        const hostile of [any, { n: any, s: any }, ...hostileObjects.flatMap((each) => [each, { n: each, s: [each] }])]
      ) {
        assert.include([true, false, undefined], test(hostile))
      }
    },
    law
  )

  it.prop(
    "comes through JSON, and through its schema, as it was",
    [anyPredicate, anyValue, anyReferences],
    ([predicate, value, references]) => {
      const taken = Schema.decodeUnknownSync(Predicate.Predicate)(predicate)
      assert.deepStrictEqual(Predicate.parse(taken), taken)
      assert.deepStrictEqual(Schema.encodeSync(Predicate.Predicate)(taken), taken)
      assert.strictEqual(truthOf(taken, value, references), truthOf(predicate, value, references))
      const isJson = !/bigint|bytes|date/.test(JSON.stringify(predicate, function(this: Data, name) {
        return typeOf(this[name]) in { bigint: 1, bytes: 1, date: 1 } ? typeOf(this[name]) : this[name]
      }))
      if (!isJson) return
      assert.strictEqual(
        truthOf(JSON.parse(JSON.stringify(predicate)), value, references),
        truthOf(predicate, value, references)
      )
    },
    law
  )

  it("never takes a name that is part of another for it", () => {
    const references = { userId: "ann", teams: ["ann"] }
    for (
      const members of [
        { contains: { principal: "userId" } },
        { containsAny: { principal: "teams" } },
        { containsAll: ["jo", { principal: "userId" }] }
      ]
    ) {
      assert.isUndefined(truthOf({ members }, { members: "joanna" }, references))
      assert.isTrue(truthOf({ members }, { members: ["jo", "ann"] }, references))
    }
    assert.isTrue(truthOf({ members: { contains: "ann" } }, { members: "joanna" }))
  })

  it.prop(
    "finds long text in text as short text",
    [
      fc.string({ unit: fc.constantFrom("a", "b"), minLength: 1, maxLength: 3 }),
      fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 40 }),
      fc.array(fc.tuple(fc.nat(60), fc.boolean()), { maxLength: 4 })
    ],
    ([period, end, texts]) => {
      const part = period.repeat(33) + end
      const text = texts.map(([times, whole]) => period.repeat(times) + (whole ? end : end.slice(1))).join("")
      assert.strictEqual(truthOf({ text: { contains: part } }, { text }), text.includes(part))
      assert.isTrue(truthOf({ text: { contains: part } }, { text: text + part + text }))
    },
    law
  )

  it("is checked by its type, as far as that goes", () => {
    const faults: ReadonlyArray<Predicate.Predicate> = [
      // @ts-expect-error an operator that there isn't
      { n: { gtt: 1 } },
      // @ts-expect-error an operand without an order
      { n: { gt: null } },
      // @ts-expect-error a list that doesn't say what it is for
      { n: [1] }
    ]
    for (const fault of faults) faultOf(fault)
  })

  it("is a copy that nobody changes", () => {
    const bytes = Uint8Array.of(1)
    const given = { a: { eq: { list: [1], bytes } } }
    const test = Predicate.compile(given)
    const taken = Predicate.parse(given)
    given.a.eq.list[0] = 2
    bytes[0] = 2
    assert.isTrue(test({ a: { list: [1], bytes: Uint8Array.of(1) } }))
    assert.isTrue(Object.isFrozen(taken))
    assert.isTrue(truthOf(taken, { a: { list: [1], bytes: Uint8Array.of(1) } }))
  })
})

describe("like", () => {
  const points = ["a", "b", "\u{10000}"]

  it.prop(
    "says of a text what trying everything says",
    [
      fc.array(fc.constantFrom("a", "b", "\u{10000}", "%", "%", "_", "\\%", "\\\\", "\\a"), { maxLength: 8 }),
      fc.array(fc.constantFrom(...points, "%", "\\"), { maxLength: 8 })
    ],
    ([pattern, text]) => {
      const like = pattern.join("")
      assert.strictEqual(truthOf({ t: { like } }, { t: text.join("") }), isLike(Array.from(like), text))
    },
    { fastCheck: { numRuns: 3_000 } }
  )

  it.prop(
    "finds segments of any length, with any code point where it says so",
    [
      fc.array(fc.constantFrom(...points), { minLength: 1, maxLength: 120, size: "max" }),
      fc.func(fc.boolean()),
      fc.array(fc.constantFrom(...points), { maxLength: 40 }),
      fc.nat(200)
    ],
    ([segment, isOpen, around, wrong]) => {
      const isAny = segment.map((_, at) => isOpen(at))
      const like = `%${segment.map((point, at) => isAny[at] ? "_" : point).join("")}%`
      const text = [...around, ...segment.map((point, at) => isAny[at] || at === wrong ? "a" : point), ...around]
      const isIn = text.some((_, from) =>
        from + segment.length <= text.length &&
        segment.every((point, at) => isAny[at] || text[from + at] === point)
      )
      assert.strictEqual(truthOf({ t: { like } }, { t: text.join("") }), isIn)
    },
    law
  )

  it("speaks of the whole text, case by case, and of text only", () => {
    const of = (like: string, t: unknown) => truthOf({ t: { like } }, { t })
    assert.isTrue(of("Mi%", "Milk"))
    assert.isFalse(of("mi%", "Milk"))
    assert.isFalse(of("il", "Milk"))
    assert.isFalse(of("a%a", "a"))
    assert.isTrue(of("100\\%", "100%"))
    assert.isFalse(of("100\\%", "1000"))
    assert.isTrue(of("a.*[", "a.*["))
    assert.isTrue(of("_", "\u{1f600}"))
    assert.isUndefined(of("%", 1))
    assert.isUndefined(of("%", ["a"]))
    assert.isUndefined(truthOf({ not: { t: { like: "%" } } }, {}))
  })

  it("goes through a text of the greatest size once, whatever the pattern", () => {
    // By backtracking, each of these would take longer than anybody waits.
    const text = "a".repeat(Value.valueBytesMax - 100)
    const half = "a".repeat(60)
    for (
      const like of ["%a".repeat(127) + "%b", "%_a".repeat(80) + "%b", `%${half}_${half}b%${half}_c%`, "%".repeat(256)]
    ) {
      assert.strictEqual(truthOf({ t: { like } }, { t: text }), !/[bc]/.test(like))
    }
  })
})

describe("regex", () => {
  const load = (predicate: unknown) => Predicate.load(predicate as Predicate.Predicate)
  const refusalOf = (predicate: unknown) => Effect.flip(load(predicate))

  /** What both dialects have, of matches in texts of `a`, `b` and `-`. */
  const expression = fc.letrec<{ any: string }>((tie) => ({
    any: fc.oneof(
      { maxDepth: 3 },
      fc.constantFrom("a", "b", ".", "[ab]", "[^a]", "\\w", "\\b", "^", "$"),
      fc.tuple(tie("any"), tie("any")).map(([a, b]) => a + b),
      fc.tuple(tie("any"), tie("any")).map(([a, b]) => `(?:${a}|${b})`),
      fc.tuple(tie("any"), fc.constantFrom("*", "+", "?", "{2}", "{1,2}")).map(([a, times]) => `(${a})${times}`)
    )
  })).any

  it.effect("finds what the platform's own engine finds", () =>
    Effect.gen(function*() {
      yield* load({ t: { regex: "a" } })
      fc.assert(
        fc.property(expression, fc.string({ unit: fc.constantFrom("a", "b", "-"), maxLength: 6 }), (regex, text) => {
          fc.pre(regex.length <= Predicate.patternLengthMax)
          assert.strictEqual(truthOf({ t: { regex } }, { t: text }), new RegExp(regex).test(text))
        }),
        { numRuns: 1_000 }
      )
    }))

  it.effect("is RE2's, finds anywhere, and judges text only", () =>
    Effect.gen(function*() {
      const of = (regex: string, t: unknown) =>
        Effect.map(load({ t: { regex } }), () => truthOf({ t: { regex } }, { t }))
      assert.isTrue(yield* of("il", "Milk"))
      assert.isFalse(yield* of("^il", "Milk"))
      assert.isTrue(yield* of("(?i)^milk$", "Milk"))
      assert.isTrue(yield* of("^\\p{Greek}.$", "\u03b1\u{1f600}"))
      assert.isUndefined(yield* of("", 1))
      assert.isUndefined(yield* of("", undefined))
      for (const regex of ["(", "[a", "(?=a)", "(a)\\1", "(?<!a)b", "a**", "\\p{Nothing}", "\\C"]) {
        const refusal = yield* refusalOf({ or: [{ t: 1 }, { t: { regex } }] })
        assert.include(refusal, { path: "$.or[1].t.regex" }, regex)
        assert.strictEqual(refusal._tag, "QueryInvalid", regex)
      }
      assert.include((yield* refusalOf({ t: { regex: "(?=a)" } })).message, "unsupported Perl syntax: `(?=`")
    }))

  it.effect("is compiled once it is loaded, and says so before", () =>
    Effect.gen(function*() {
      vi.resetModules()
      const Unloaded = yield* Effect.promise(() => import("../src/Predicate.ts"))
      const predicate = Unloaded.parse({ t: { regex: "(" } })
      assert.throws(() => Unloaded.compile(predicate), /run Predicate.load with the predicate first/)
      yield* Unloaded.load({ t: 1 })
      assert.throws(() => Unloaded.compile({ t: { regex: "a" } }), /run Predicate.load/)
      yield* Unloaded.load({ t: { regex: "a" } })
      assert.isTrue(Unloaded.compile({ t: { regex: "a" } })({ t: "a" }))
      assert.throws(() => Unloaded.compile(predicate), /no regular expression of RE2's syntax/)
    }))

  it.effect("goes on judging however many others are compiled", () =>
    Effect.gen(function*() {
      const predicates = Array.from({ length: 200 }, (_, i): Predicate.Predicate => ({ t: { regex: `^${i}$` } }))
      for (const predicate of predicates) yield* Predicate.load(predicate)
      const tests = predicates.map((predicate) => Predicate.compile(predicate))
      tests.forEach((test, i) => {
        assert.isTrue(test({ t: `${i}` }))
        assert.isFalse(test({ t: `${i + 1}` }))
      })
    }))

  it.effect("is refused, however it is written, where it would be large", () =>
    Effect.gen(function*() {
      const repeated = (pattern: string, times: number) => pattern.repeat(times).slice(0, Predicate.patternLengthMax)
      for (
        const regex of [
          "((a{1,50}){1,50}){1,50}",
          "((a{1,10}){1,10}){1,10}",
          "[\\p{L}]{1000}",
          "(?:\\Q)\\Eabcdefghijklmnopqrst){300}",
          "(?:abcdefghijklmnopqrst)(?i){300}",
          repeated("\\pL", 100),
          `(?i)${repeated("[b-\\x{10000}]", 15)}`
        ]
      ) {
        const refusal = yield* refusalOf({ and: [{ t: { regex } }] })
        assert.instanceOf(refusal, QueryTooExpensive, regex)
        assert.strictEqual(refusal.path, "$.and[0].t.regex")
        assert.throws(() => Predicate.parse({ t: { regex } }), /would cost too much/)
        assert.isTrue(Either.isLeft(Schema.decodeUnknownEither(Predicate.Predicate)({ t: { regex } })))
      }
      const many = { or: Array.from({ length: 100 }, () => ({ t: { regex: "[a-z]{1,9}" } })) }
      assert.instanceOf(yield* refusalOf(many), QueryTooExpensive)
    }))

  it.prop(
    "never weighs less than what it is compiled to",
    [
      fc.array(
        fc.oneof(
          expression,
          fc.constantFrom(
            "(?i)",
            "(?:",
            "(?P<n>",
            "(",
            ")",
            "|",
            "??",
            "{1,3}",
            "{40}",
            "{2,}",
            "{",
            "\\pL",
            "[^\\PN]",
            "[]a]",
            "[[:alpha:]-]",
            "[b-\\x{3ff}]",
            "\\x41",
            "\\Q(a\\E",
            "\\Q\\E",
            "\u{1f600}",
            "\\."
          )
        ),
        { maxLength: 12 }
      )
    ],
    ([parts]) => {
      const pattern = parts.join("")
      let size = 0
      try {
        size = RE2JS.compile(pattern).programSize()
      } catch {
        // No pattern is heavier than one.
      }
      assert.isAtLeast(sizeOf(pattern), size)
      assert.isAtLeast(weightOf(pattern), sizeOf(pattern))
    },
    { fastCheck: { numRuns: 2_000 } }
  )

  it.effect("takes time by the text alone, of which one that is too long for it isn't judged", () =>
    Effect.gen(function*() {
      for (const regex of ["(x+x+)+y", "(a+)+$", "(a|a)*b", ".*.*.*=.*", "(.*){1,20}[^a]b", "\\pL{1,60}c"]) {
        yield* load({ t: { regex } })
        const lengthMax = Predicate.regexTextLengthMax(regex)
        assert.isAbove(lengthMax, 150)
        for (const text of ["a", "x", "ab"]) {
          const whole = text.repeat(lengthMax).slice(0, lengthMax)
          assert.isBoolean(truthOf({ t: { regex } }, { t: whole }))
          assert.isUndefined(truthOf({ t: { regex } }, { t: `${whole}a` }))
          assert.isUndefined(truthOf({ not: { t: { regex } } }, { t: `${whole}a` }))
        }
      }
      assert.isAbove(Predicate.regexTextLengthMax("^[a-z]+@example\\.org$"), 5_000)
    }))
})

describe("A predicate's cost", () => {
  it("is known before it is loaded, and grows with what it asks", () => {
    const ascending: ReadonlyArray<Predicate.Predicate> = [
      { n: { exists: true } },
      { n: 1 },
      { "n.m": 1 },
      { n: 1, m: 1 },
      { t: { contains: "x".repeat(40) } },
      { t: { like: "%a_b%" } },
      { t: { like: `%a${"_".repeat(100)}b%` } },
      { t: { regex: "a{200}" }, u: { regex: "\\pL{20}" } },
      { or: Array.from({ length: 200 }, (_, i) => ({ n: i })) }
    ]
    const costs = ascending.map(Predicate.cost)
    assert.deepStrictEqual(costs, Array.from(costs).sort((a, b) => a - b))
    assert.strictEqual(new Set(costs).size, costs.length)
    assert.isBelow(Predicate.cost({ n: { in: Array.from({ length: 1_000 }, (_, i) => i) } }), 100)
    assert.isAbove(Predicate.cost({ t: { regex: "a" } }), 10 * Predicate.cost({ t: "a" }))
    assert.strictEqual(Predicate.cost({ not: { n: 1 } }), Predicate.cost({ or: [{ n: 1 }] }))
  })
})

describe("What a predicate speaks of", () => {
  const example: Predicate.Predicate = {
    and: [{ owner: { principal: "userId" } }, { "a\\.b": 1, n: { gt: 1 } }],
    or: [{ team: { in: [{ principal: "first" }, "x"] } }, { not: { owner: { neq: { principal: "userId" } } } }],
    "\\or": { between: [1, { principal: "max" }] }
  }

  it("are its fields, and the references it needs", () => {
    assert.sameMembers([...Predicate.fieldsOf(example)], ["owner", "a\\.b", "n", "team", "\\or"])
    assert.sameMembers([...Predicate.referencesOf(example)], ["userId", "first", "max"])
    assert.deepStrictEqual(Predicate.fieldsOf({ "\\a": 1, a: { gt: 0 } }), ["a"])
  })

  it("are the fields that it ties to something", () => {
    assert.deepStrictEqual(Predicate.equalities(example), [
      { path: "owner", operand: { principal: "userId" } },
      { path: "a\\.b", operand: { literal: 1 } }
    ])
    assert.deepStrictEqual(Predicate.equalities({ or: [{ a: 1 }, { b: 1 }] }), [])
    assert.deepStrictEqual(Predicate.equalities({ not: { a: 1 } }), [])
    assert.deepStrictEqual(Predicate.equalities({ a: { eq: { literal: { principal: "x" } }, neq: 2 } }), [
      { path: "a", operand: { literal: { principal: "x" } } }
    ])
  })

  it.prop(
    "are ties that hold wherever it does",
    [anyPredicate, anyValue, anyReferences],
    ([predicate, value, references]) => {
      if (!Predicate.isTrue(truthOf(predicate, value, references))) return
      for (const { path, operand } of Predicate.equalities(predicate)) {
        assert.isTrue(truthOf({ [path]: { eq: operand } }, value, references))
      }
    },
    law
  )
})

describe("A predicate from outside is refused", () => {
  it("where it says what nobody knows, with what was meant", () => {
    assert.deepStrictEqual(faultOf({ or: [{}, { n: { gtt: 3 } }] }), [
      "$.or[1].n.gtt",
      "\"gtt\" is no operator, did you mean \"gt\"? " +
      "A field of a field is written \"owner.id\", and an object to compare with { eq: … }"
    ])
    assert.include(faultOf({ tags: { containAny: [] } })[1], "did you mean \"containsAny\"?")
    assert.include(faultOf({ tags: { exist: true } })[1], "did you mean \"exists\"?")
    assert.include(faultOf({ owner: { id: 1, name: 2 } })[1], "\"owner.id\"")
    assert.include(faultOf({ text: { likes: "a%" } })[1], "did you mean \"like\"?")
    assert.include(faultOf({ text: { regexp: "(a+)+$" } })[1], "did you mean \"regex\"?")
    assert.include(faultOf({ a: { __proto__: null, constructor: 1 } })[1], "\"constructor\" is no operator")
    assert.include(faultOf({ And: [{ a: 1 }] })[1], "did you mean \"and\"?")
    assert.strictEqual(faultOf({ "owner.id": { eq: undefined } })[0], "$[\"owner.id\"].eq")
  })

  it("where an operand isn't one", () => {
    const refused: ReadonlyArray<readonly [unknown, string]> = [
      [null, "$"],
      [[], "$"],
      ["a", "$"],
      [new Date(0), "$"],
      [{ and: {} }, "$.and"],
      [{ or: [1] }, "$.or[0]"],
      [{ not: [] }, "$.not"],
      [{ a: {} }, "$.a"],
      [{ a: [1] }, "$.a"],
      [{ "a\\": 1 }, "$[\"a\\\\\"]"],
      [{ a: { principal: 1 } }, "$.a"],
      [{ a: { gt: null } }, "$.a.gt"],
      [{ a: { gt: [1] } }, "$.a.gt"],
      [{ a: { lt: { b: 1 } } }, "$.a.lt"],
      [{ a: { between: [1] } }, "$.a.between"],
      [{ a: { between: [1, "2"] } }, "$.a.between"],
      [{ a: { between: [1, null] } }, "$.a.between[1]"],
      [{ a: { in: "a" } }, "$.a.in"],
      [{ a: { containsAll: { literal: [] } } }, "$.a.containsAll"],
      [{ a: { startsWith: 1 } }, "$.a.startsWith"],
      [{ a: { like: 1 } }, "$.a.like"],
      [{ a: { like: { principal: "userId" } } }, "$.a.like"],
      [{ a: { like: "a%\\" } }, "$.a.like"],
      [{ a: { regex: 123 } }, "$.a.regex"],
      [{ a: { regex: { principal: "userId" } } }, "$.a.regex"],
      [{ a: { regex: ["a"] } }, "$.a.regex"],
      [{ a: { exists: 1 } }, "$.a.exists"],
      [{ a: Number.NaN }, "$.a"],
      [{ a: { eq: () => 1 } }, "$.a.eq"],
      [{ a: { in: ["\ud800"] } }, "$.a.in[0]"]
    ]
    for (const [predicate, path] of refused) assert.strictEqual(faultOf(predicate)[0], path, String(path))
  })

  it("where it is too much to evaluate", () => {
    const many = (length: number) => Array.from({ length }, (_, i) => ({ n: i }))
    const numbers = (length: number) => Array.from({ length }, (_, i) => i)
    Predicate.parse({ or: many(Predicate.nodesMax - 1) })
    assert.strictEqual(faultOf({ or: many(Predicate.nodesMax) })[1], "a predicate has at most 1000 conditions")
    assert.strictEqual(
      faultOf({ or: Array.from({ length: Predicate.nodesMax }, () => ({})) })[1],
      "a predicate has at most 1000 conditions"
    )
    Predicate.parse({ n: { in: numbers(Predicate.listMax) } })
    assert.deepStrictEqual(faultOf({ n: { in: numbers(Predicate.listMax + 1) } }), [
      "$.n.in",
      "a list has at most 1000 elements"
    ])
    const both = { a: { containsAny: numbers(600) }, b: { containsAll: numbers(600) } }
    assert.strictEqual(faultOf(both)[1], "a predicate has at most 1000 conditions")
    Predicate.parse({ ["a".repeat(Predicate.pathLengthMax)]: 1 })
    assert.include(faultOf({ ["a".repeat(Predicate.pathLengthMax + 1)]: 1 })[1], "1024 characters")
    assert.include(faultOf({ a: { principal: "a".repeat(Predicate.pathLengthMax + 1) } })[1], "1024 characters")
    assert.deepStrictEqual(faultOf({ a: "x".repeat(Predicate.bytesMax) }), ["$", "it has more than 65536 bytes"])
    for (const operator of ["like", "regex"]) {
      Predicate.parse({ a: { [operator]: "%".repeat(Predicate.patternLengthMax) } })
      assert.include(faultOf({ a: { [operator]: "%".repeat(10_000) } })[1], "256 characters")
    }
    const nested = numbers(70).reduce<unknown>((inner) => ({ not: inner }), {})
    assert.include(faultOf(nested)[1], "64 arrays and objects")
    const cyclic: Record<string, unknown> = {}
    cyclic["not"] = cyclic
    assert.include(faultOf(cyclic)[1], "contains itself")
  })

  it("by its schema with the same words", () => {
    const outcome = Schema.decodeUnknownEither(Schema.Struct({ where: Predicate.Predicate }))({
      where: { n: { gtt: 1 } }
    })
    assert.include(
      Either.getOrThrow(Either.flip(outcome)).message,
      "$.n.gtt is not valid: \"gtt\" is no operator"
    )
  })
})
