import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Grid from "../src/Grid.ts"

const Todo = Schema.Struct({ title: Schema.NonEmptyString, done: Schema.Boolean })

/** A validator of another library, by the Standard Schema specification. */
const standard = (validate: (value: unknown) => unknown): Grid.StandardSchema<string> => ({
  "~standard": { version: 1, vendor: "test", validate }
})

describe("Grid.map", () => {
  it("accepts any value where no schema is given", () => {
    const map = Grid.map("notes")
    assert.strictEqual(map.name, "notes")
    for (const value of [null, 1, "x", { a: [] }]) assert.isUndefined(map.validate(value))
  })

  it("says what is wrong with a value by its Effect Schema", () => {
    const map = Grid.map("todos", Todo)
    assert.isUndefined(map.validate({ title: "milk", done: false }))
    assert.match(map.validate({ title: "", done: false })!, /title/)
    assert.match(map.validate({ title: "milk" })!, /done/)
    assert.isDefined(map.validate(null))
  })

  it("validates what is written without transforming it", () => {
    const map = Grid.map("dates", Schema.typeSchema(Schema.NumberFromString))
    assert.isUndefined(map.validate(1))
    assert.isDefined(map.validate("1"))
  })

  it("says what is wrong with a value, and where, by a Standard Schema", () => {
    const map = Grid.map(
      "names",
      standard((value) =>
        typeof value === "string"
          ? { value }
          : { issues: [{ message: "no text", path: ["a", { key: "b" }] }, { message: "nor anything else" }] }
      )
    )
    assert.isUndefined(map.validate("x"))
    assert.strictEqual(map.validate(1), "a.b: no text; nor anything else")
  })

  it("refuses values that a Standard Schema would have to wait for", () => {
    const map = Grid.map("names", standard((value) => Promise.resolve({ value })))
    assert.match(map.validate("x")!, /asynchronously/)
  })

  it("accepts an Effect Schema as a Standard Schema too", () => {
    const map = Grid.map("todos", Schema.standardSchemaV1(Todo))
    assert.isUndefined(map.validate({ title: "milk", done: false }))
    assert.isDefined(map.validate({ title: "milk" }))
  })

  it("refuses a schema that is neither", () => {
    assert.throws(() => Grid.map("names", {} as Grid.StandardSchema<string>), TypeError, /names/)
  })

  it("stands for itself, and a name for a map without a schema", () => {
    const map = Grid.map("todos", Todo)
    assert.strictEqual(Grid.resolveMap(map), map)
    const named = Grid.resolveMap("todos")
    assert.strictEqual(named.name, "todos")
    assert.isUndefined(named.validate("anything"))
  })
})

describe("A map's indexes and search", () => {
  const Article = Schema.Struct({
    title: Schema.String,
    done: Schema.Boolean,
    n: Schema.Number,
    tags: Schema.Array(Schema.String),
    author: Schema.Struct({ name: Schema.String }),
    "a.b": Schema.String,
    fields: Schema.optional(Schema.String)
  })

  it("are declared with it, by path", () => {
    const map = Grid.map("articles", Article, {
      indexes: [
        "done",
        ["done", "author.name"],
        { fields: ["tags"], kind: "inverted" },
        { fields: "title", kind: "hash" },
        { fields: ["n"] },
        "a\\.b"
      ],
      search: { title: 2, "author.name": 1, tags: 0.5 },
      ttlMs: 1_000
    })
    assert.deepStrictEqual(map.indexes, [
      { fields: ["done"], kind: "sorted" },
      { fields: ["done", "author.name"], kind: "sorted" },
      { fields: ["tags"], kind: "inverted" },
      { fields: ["title"], kind: "hash" },
      { fields: ["n"], kind: "sorted" },
      { fields: ["a\\.b"], kind: "sorted" }
    ])
    assert.deepStrictEqual(map.search, { fields: { title: 2, "author.name": 1, tags: 0.5 }, language: undefined })
    assert.strictEqual(map.ttlMs, 1_000)
    assert.isUndefined(map.validate({ title: "a", done: true, n: 1, tags: [], author: { name: "b" }, "a.b": "c" }))
    const german = Grid.map("articles", Article, { search: { fields: { title: 1 }, language: "german" } })
    assert.deepStrictEqual(german.search, { fields: { title: 1 }, language: "german" })
    const called = Grid.map("articles", Article, { search: { fields: 3 } })
    assert.deepStrictEqual(called.search, { fields: { fields: 3 }, language: undefined })
  })

  it("are none where none are declared, and any where nothing is known of the values", () => {
    for (const map of [Grid.map("articles", Article), Grid.map("articles"), Grid.resolveMap("articles")]) {
      assert.deepStrictEqual([map.indexes, map.search], [[], undefined])
    }
    const untyped = Grid.map("articles", undefined, { indexes: ["any.thing"], search: { "other.thing": 1 } })
    assert.deepStrictEqual(untyped.indexes, [{ fields: ["any.thing"], kind: "sorted" }])
  })

  it("are checked by the schema's type", () => {
    const declarations = [
      // @ts-expect-error no such field
      () => Grid.map("articles", Article, { indexes: ["titel"] }),
      // @ts-expect-error no such field, in an index of two
      () => Grid.map("articles", Article, { indexes: [["done", "author.mail"]] }),
      // @ts-expect-error no such kind
      () => Grid.map("articles", Article, { indexes: [{ fields: ["n"], kind: "btree" }] }),
      // @ts-expect-error a number isn't searched
      () => Grid.map("articles", Article, { search: { n: 1 } }),
      // @ts-expect-error a boost is a number
      () => Grid.map("articles", Article, { search: { title: "2" } }),
      // @ts-expect-error the schema says what A is, not the indexes
      (): Grid.MapDeclaration<{ readonly titel: string }> => Grid.map("articles", Article, { indexes: ["title"] })
    ]
    assert.lengthOf(declarations, 6)
  })

  it.each<[options: object, fault: RegExp]>([
    [{ indexes: "done" }, /"articles"'s indexes are a list/],
    [{ indexes: [""] }, /indexes\[0\] is no path/],
    [{ indexes: ["done", ["n", 1]] }, /indexes\[1\]\[1\] is no path/],
    [{ indexes: [null] }, /indexes\[0\] is no path/],
    [{ indexes: ["a\\"] }, /indexes\[0\] is no path to a field: a path doesn't end with a backslash/],
    [{ indexes: [[]] }, /indexes\[0\] has 0 fields: an index has 1 to 4/],
    [{ indexes: [["a", "b", "c", "d", "e"]] }, /indexes\[0\] has 5 fields/],
    [{ indexes: [["a", "\\a"]] }, /indexes\[0\] names a field twice/],
    [{ indexes: [{ fields: ["n"], kind: "btree" }] }, /"hash", "sorted", "inverted"/],
    [{ indexes: [{ fields: ["n", "m"], kind: "inverted" }] }, /an inverted index has one/],
    [{ indexes: [{ fields: ["n", "m"], kind: "hash" }] }, /a hash index has one/],
    [{ indexes: [{ field: ["n"] }] }, /has no option "field", only fields and kind/],
    [{ indexes: ["n", { fields: ["n"], kind: "hash" }, ["n"]] }, /indexes\[2\] is there already/],
    [{ indexes: Array.from({ length: 17 }, (_, i) => `f${i}`) }, /indexes are 17: a map has at most 16/],
    [{ search: ["title"] }, /names fields with their boosts/],
    [{ search: {} }, /names 0 fields/],
    [{ search: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`f${i}`, 1])) }, /names 17 fields/],
    [{ search: { title: 0 } }, /gives "title" the boost 0/],
    [{ search: { title: -1 } }, /the boost -1/],
    [{ search: { title: Number.NaN } }, /the boost NaN/],
    [{ search: { title: Infinity } }, /the boost Infinity/],
    [{ search: { title: "2" } }, /the boost 2/],
    [{ search: { "": 1 } }, /search is no path/],
    [{ search: { fields: { title: 1 }, boost: 2 } }, /has no option "boost"/],
    [{ search: { fields: { title: 1 }, language: 7 } }, /language is a name/],
    [{ search: { fields: { title: 1, "\\title": 1 } } }, /names a field twice/]
  ])("%j is refused when it is declared", (options, fault) => {
    assert.throws(() => Grid.map("articles", undefined, options), TypeError, fault)
  })
})
