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
