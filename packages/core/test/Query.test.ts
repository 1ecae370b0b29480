import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc, Schema } from "effect"
import { QueryInvalid, QueryTooExpensive } from "../src/GridError.ts"
import * as Query from "../src/Query.ts"
import * as Value from "../src/Value.ts"
import { evaluate, keys, orderBy, query, value } from "@topgun/testing/queries"

const faultOf = (input: unknown): readonly [path: string, reason: string] => {
  try {
    Query.parse(input)
  } catch (fault) {
    assert.instanceOf(fault, QueryInvalid)
    return [fault.path, fault.reason]
  }
  return assert.fail("it was taken")
}

describe("Query.parse", () => {
  it.prop("takes what it has given, and gives it frozen", [query], ([asked]) => {
    assert.deepStrictEqual(Query.parse(asked), asked)
    assert.isTrue(Object.isFrozen(asked))
  })

  it("names the place of what is wrong, and says what to do", () => {
    for (
      const [input, path, reason] of [
        [null, "$", /a query is an object/],
        ["todos", "$", /a query is an object/],
        [{ were: {} }, "$.were", /where, search, hybrid, orderBy, limit, cursor, select/],
        [{ where: { n: { gtt: 1 } } }, "$.where.n.gtt", /did you mean "gt"/],
        [{ where: { or: [{ n: 1 }, { n: { in: 3 } }] } }, "$.where.or[1].n.in", /takes a list/],
        [{ where: { owner: { principal: "userId" } } }, "$.where", /for policies/],
        [{ orderBy: [] }, "$.orderBy", /1 to 8 fields/],
        [{ orderBy: "n" }, "$.orderBy", /1 to 8 fields/],
        [{ orderBy: Array.from({ length: 9 }, () => ({ field: "n" })) }, "$.orderBy", /1 to 8 fields/],
        [{ orderBy: ["n"] }, "$.orderBy[0]", /it is an object/],
        [{ orderBy: [{ field: "n" }, { direction: "asc" }] }, "$.orderBy[1].field", /its path/],
        [{ orderBy: [{ field: "n\\" }] }, "$.orderBy[0].field", /backslash/],
        [{ orderBy: [{ field: "n", direction: "up" }] }, "$.orderBy[0].direction", /"asc" or "desc"/],
        [{ orderBy: [{ field: "n", nulls: "last" }] }, "$.orderBy[0]", /nothing else/],
        ...[0, -1, 1.5, Number.MAX_SAFE_INTEGER, "1", 1n, null].map((limit) =>
          [{ limit }, "$.limit", /a whole number from 1 to 1000000/] as const
        ),
        [{ limit: Number.NaN }, "$.limit", /./],
        [{ select: [] }, "$.select", /1 to 256 paths/],
        [{ select: ["a", 1] }, "$.select[1]", /its path/],
        [{ search: 1 }, "$.search", /it is text/],
        [{ search: { fields: ["a"] } }, "$.search", /it is text/],
        [{ search: { text: "a", words: 1 } }, "$.search", /it is text/],
        [{ search: "x".repeat(1_025) }, "$.search", /at most 1024 characters/],
        [{ search: { text: "a", prefix: 1 } }, "$.search.prefix", /true or false/],
        [{ search: { text: "a", fields: [] } }, "$.search.fields", /a list of paths/],
        [{ hybrid: true, search: "a" }, "$.hybrid", /takes both/],
        [{ hybrid: 1 }, "$.hybrid", /true or false/],
        [{ cursor: 1 }, "$.cursor", /what an answer gave/],
        [{ cursor: "%" }, "$.cursor", /it was changed/],
        [{ cursor: "" }, "$.cursor", /it was changed/]
      ] as const
    ) {
      const [at, why] = faultOf(input)
      assert.strictEqual(at, path, JSON.stringify(path))
      assert.match(why, reason)
    }
  })

  it("refuses what would be large before it is looked at", () => {
    const wide = { or: Array.from({ length: 100_000 }, (_, n) => ({ n })) }
    assert.throws(() => Query.parse({ where: wide }), QueryInvalid)
    let deep: object = { n: 1 }
    for (let i = 0; i < 100_000; i++) deep = { not: deep }
    assert.throws(() => Query.parse({ where: deep }), QueryInvalid)
    assert.throws(() => Query.parse({ where: { n: { in: Array.from({ length: 1_001 }, (_, n) => n) } } }), QueryInvalid)
    try {
      Query.parse({ where: { text: { regex: "((a{1,50}){1,50}){1,50}" } } })
      assert.fail("it was taken")
    } catch (fault) {
      assert.instanceOf(fault, QueryTooExpensive)
      assert.strictEqual(fault.path, "$.where.text.regex")
    }
  })

  it("isn't taken in by what changes while it is read", () => {
    let reads = 0
    const input = {
      get limit() {
        return reads++ === 0 ? 5 : "all"
      }
    }
    assert.strictEqual(Query.parse(input).limit, 5)
  })

  it("is a schema's, too, with the same message", () => {
    assert.deepStrictEqual(Schema.decodeUnknownSync(Query.Query)({ limit: 1 }), { limit: 1 })
    assert.throws(
      () => Schema.decodeUnknownSync(Query.Query)({ limit: 0 }),
      /\$\.limit is not valid: a limit is a whole number/
    )
  })
})

describe("The order of rows", () => {
  const row = fc.tuple(fc.constantFrom(...keys), value)

  it.prop(
    "is total, and that of single records",
    [orderBy, fc.array(row, { minLength: 3, maxLength: 3 })],
    ([by, records]) => {
      const { compare, compareTo, sortOf } = Query.ordering(by)
      const [a, b, c] = records.map(([key, found]) => ({ key, sort: sortOf(found) })) as [
        Query.Place,
        Query.Place,
        Query.Place
      ]
      assert.strictEqual(Math.sign(compare(a, b)), -Math.sign(compare(b, a)) + 0)
      if (compare(a, b) <= 0 && compare(b, c) <= 0) assert.isAtMost(compare(a, c), 0)
      if (compare(a, b) === 0) assert.strictEqual(a.key, b.key)
      // Where all fields are equal, keys decide, in the direction of the last field.
      const sign = by[by.length - 1]!.direction === "desc" ? -1 : 1
      const twin = { key: b.key, sort: a.sort }
      assert.strictEqual(Math.sign(compare(twin, a)), sign * Buffer.compare(Buffer.from(b.key), Buffer.from(a.key)) + 0)
      assert.strictEqual(Math.sign(compareTo(a.key, records[0]![1], b)), Math.sign(compare(a, b)))
    }
  )

  it("has types one after the other, texts by code points, and keys where all else is equal", () => {
    const values = [
      undefined,
      null,
      false,
      true,
      -1.5,
      0,
      2,
      -(2n ** 40n),
      3n,
      "",
      "Z",
      "a",
      "é",
      "\uffff",
      "\u{1F600}",
      new Date(0),
      new Date(5),
      Uint8Array.of(1),
      Uint8Array.of(1, 0),
      [],
      {}
    ]
    const { compare } = Query.ordering([{ field: "n" }])
    const places = values.map((sort, i) => ({ key: `k${String(i).padStart(2, "0")}`, sort }))
    const backwards = Array.from(places).reverse()
    assert.deepStrictEqual(Array.from(backwards).sort(compare), places)
    assert.deepStrictEqual([{ key: "b", sort: 1 }, { key: "a", sort: 1 }].sort(compare).map(({ key }) => key), [
      "a",
      "b"
    ])
    const descending = Query.ordering([{ field: "n", direction: "desc" }]).compare
    assert.deepStrictEqual(Array.from(places).sort(descending), backwards)
    assert.deepStrictEqual([{ key: "a", sort: 1 }, { key: "b", sort: 1 }].sort(descending).map(({ key }) => key), [
      "b",
      "a"
    ])
    // One list, or object, is as good as another.
    assert.deepStrictEqual([{ key: "b", sort: [1] }, { key: "a", sort: [2] }].sort(compare).map(({ key }) => key), [
      "a",
      "b"
    ])
  })
})

describe("Cursors", () => {
  const records = fc.uniqueArray(fc.tuple(fc.constantFrom(...keys), value), { selector: ([key]) => key })
  const unlimited = query.map((asked) => Query.parse({ ...asked, cursor: undefined, limit: 2 }))

  it.prop("page through all rows, each once, in order", [records, unlimited], ([all, asked]) => {
    const map = new Map(all)
    const seen: Array<string> = []
    let page: Query.Query = asked
    while (true) {
      const { hasMore, rows } = evaluate(map, page)
      assert.isAtMost(seen.length, 100, "it goes on")
      seen.push(...rows.map(({ key }) => key))
      if (!hasMore) break
      page = Query.parse({ ...asked, cursor: Query.cursorOf(asked, rows.at(-1)!) })
    }
    const whole = Query.parse({ ...asked, limit: undefined })
    assert.deepStrictEqual(seen, evaluate(map, whole).rows.map(({ key }) => key))
  }, { fastCheck: { numRuns: 500 } })

  it.prop(
    "meet once whatever stays where it is, whatever else changes between the pages",
    [
      records,
      unlimited,
      fc.array(fc.tuple(fc.constantFrom(...keys), fc.option(value, { nil: undefined })), { maxLength: 12 })
    ],
    ([all, asked, changes]) => {
      const map = new Map(all)
      const whole = Query.parse({ ...asked, limit: undefined })
      const steady = evaluate(map, whole).rows.map(({ key }) => key).filter((key) =>
        changes.every(([changed]) => changed !== key)
      )
      const seen: Array<string> = []
      const left = [...changes]
      let page: Query.Query = asked
      while (true) {
        const { hasMore, rows } = evaluate(map, page)
        seen.push(...rows.map(({ key }) => key))
        if (!hasMore) break
        page = Query.parse({ ...asked, cursor: Query.cursorOf(asked, rows.at(-1)!) })
        for (const [key, found] of left.splice(0, 2)) {
          if (found === undefined) map.delete(key)
          else map.set(key, found)
        }
      }
      assert.deepStrictEqual(seen.filter((key) => steady.includes(key)), steady)
    }
  )

  it.prop("are refused with any byte changed, left out or added", [
    unlimited,
    value,
    fc.nat(),
    fc.integer({ min: 1, max: 63 })
  ], ([asked, found, at, by]) => {
    const cursor = Query.cursorOf(asked, { key: "a", sort: Query.orderingOf(asked).sortOf(found) })
    const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    const place = at % cursor.length
    const other = letters[(letters.indexOf(cursor[place]!) + by) % 64]!
    for (
      const changed of [
        cursor.slice(0, place) + other + cursor.slice(place + 1),
        cursor.slice(0, place) + cursor.slice(place + 1),
        cursor.slice(0, place) + other + cursor.slice(place),
        cursor + other
      ]
    ) {
      // The last letter may have bits of no byte.
      if (Buffer.from(changed, "base64url").equals(Buffer.from(cursor, "base64url"))) continue
      assert.strictEqual(faultOf({ ...asked, cursor: changed })[0], "$.cursor")
    }
  })

  it.prop(
    "are of their query, whatever its limit and what it selects",
    [unlimited, unlimited, value],
    ([asked, other, found]) => {
      const cursor = Query.cursorOf(asked, { key: "a", sort: Query.orderingOf(asked).sortOf(found) })
      assert.strictEqual(Query.parse({ ...asked, limit: 7, select: ["n"], cursor }).cursor, cursor)
      const isSame = Value.equal([asked.where ?? null, asked.orderBy ?? null], [
        other.where ?? null,
        other.orderBy ?? null
      ])
      if (!isSame) assert.match(faultOf({ ...other, cursor })[1], /it is of another query/)
    }
  )
})

describe("Query.selector", () => {
  it.prop("leaves the fields that are named, as far as they are there", [value], ([found]) => {
    const fields = found as { readonly [name: string]: unknown }
    const only = Query.selector(["n", "tags"])(found) as { readonly [name: string]: unknown }
    assert.deepStrictEqual(Object.keys(only).sort(), ["n", "tags"].filter((name) => Object.hasOwn(fields, name)))
    assert.strictEqual(only["tags"], fields["tags"])
  })

  it("leaves fields of fields in their place, whole where another path names the whole", () => {
    const found = { a: { b: { c: 1, d: 2 }, e: 3 }, f: 4, list: [{ c: 1 }] }
    assert.deepStrictEqual(Query.selector(["a.b.c", "f"])(found), { a: { b: { c: 1 } }, f: 4 })
    assert.deepStrictEqual(Query.selector(["a.b.c", "a.b"])(found), { a: { b: { c: 1, d: 2 } } })
    assert.deepStrictEqual(Query.selector(["a.b", "a.b.c"])(found), { a: { b: { c: 1, d: 2 } } })
    assert.deepStrictEqual(Query.selector(["list.c", "f.g", "none"])(found), {})
    assert.strictEqual(Query.selector(undefined)(found), found)
    const proto = JSON.parse("{\"__proto__\":{\"a\":1}}") as unknown
    assert.deepStrictEqual(JSON.stringify(Query.selector(["__proto__"])(proto)), "{\"__proto__\":{\"a\":1}}")
  })
})

describe("Query.gather", () => {
  it.prop(
    "makes of the answers of several nodes that of one that has all records, page by page",
    [fc.uniqueArray(fc.tuple(fc.constantFrom(...keys), value, fc.nat(2)), { selector: ([key]) => key }), query],
    ([all, asked]) => {
      const nodes = [0, 1, 2].map((node) =>
        new Map(all.filter(([, , of]) => of === node).map(([key, found]) => [key, found]))
      )
      const whole = new Map(all.map(([key, found]) => [key, found]))
      assert.deepStrictEqual(
        Query.gather(asked, nodes.map((records) => evaluate(records, asked))),
        evaluate(whole, asked)
      )
    }
  )
})
