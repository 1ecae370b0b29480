import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { expectTypeOf } from "vitest"
import type { FieldPath, TextPath, ValueAt } from "../src/FieldPath.ts"
import * as Predicate from "../src/Predicate.ts"
import * as Where from "../src/Where.ts"

const UserId = Schema.String.pipe(Schema.brand("UserId"))

const Todo = Schema.Struct({
  title: Schema.String,
  done: Schema.Boolean,
  priority: Schema.Literal("low", "high"),
  points: Schema.optional(Schema.Number),
  due: Schema.NullOr(Schema.DateFromSelf),
  tags: Schema.Array(Schema.String),
  owner: Schema.Struct({
    id: UserId,
    name: Schema.String,
    home: Schema.optional(Schema.Struct({ city: Schema.String }))
  }),
  blob: Schema.Uint8ArrayFromSelf,
  "a.b": Schema.Number,
  "c\\d": Schema.Number,
  or: Schema.Boolean,
  steps: Schema.mutable(Schema.Array(Schema.Struct({ n: Schema.Number }))),
  counts: Schema.Record({ key: Schema.String, value: Schema.Number }),
  size: Schema.BigIntFromSelf,
  any: Schema.Unknown
})
type Todo = typeof Todo.Type

type Shape = { readonly kind: "circle"; readonly r: number } | {
  readonly kind: "rect"
  readonly w: number
  readonly label: string
}

interface Tree {
  readonly value: number
  readonly left?: Tree
  readonly right?: Tree | null
}

/** Takes what is a predicate of a todo, and gives it as data. */
const todo = (where: Where.Where<Todo>): Predicate.Predicate => where

/** Its type can be written into a declaration file. */
export const openTodos = Where.of<Todo>((fields) => fields.done.eq(false))

describe("FieldPath", () => {
  it("names the fields of a schema's values, and those of their fields", () => {
    expectTypeOf<FieldPath<Pick<Todo, "done" | "owner" | "due" | "tags" | "blob" | "steps">>>().toEqualTypeOf<
      | "done"
      | "owner"
      | "owner.id"
      | "owner.name"
      | "owner.home"
      | "owner.home.city"
      | "due"
      | "tags"
      | "blob"
      | "steps"
    >()
    expectTypeOf<FieldPath<Pick<Todo, "a.b" | "c\\d" | "or">>>().toEqualTypeOf<"a\\.b" | "c\\\\d" | "\\or">()
    expectTypeOf<FieldPath<Shape>>().toEqualTypeOf<"kind" | "r" | "w" | "label">()
    expectTypeOf<FieldPath<unknown>>().toEqualTypeOf<string>()
    expectTypeOf<FieldPath<string>>().toEqualTypeOf<never>()
    expectTypeOf<FieldPath<ReadonlyArray<{ readonly n: number }>>>().toEqualTypeOf<never>()
    expectTypeOf<"any" | `any.${string}`>().toExtend<FieldPath<Todo>>()
    expectTypeOf<"counts" | `counts.${string}`>().toExtend<FieldPath<Todo>>()
  })

  it("goes four fields deep, into itself too", () => {
    expectTypeOf<"left.left.left.left">().toExtend<FieldPath<Tree>>()
    expectTypeOf<"left.left.right.value">().toExtend<FieldPath<Tree>>()
    expectTypeOf<"left.left.left.left.value">().not.toExtend<FieldPath<Tree>>()
  })

  it("tells what a value has there", () => {
    expectTypeOf<ValueAt<Todo, "done">>().toEqualTypeOf<boolean>()
    expectTypeOf<ValueAt<Todo, "points">>().toEqualTypeOf<number>()
    expectTypeOf<ValueAt<Todo, "due">>().toEqualTypeOf<Date | null>()
    expectTypeOf<ValueAt<Todo, "owner.home.city">>().toEqualTypeOf<string>()
    expectTypeOf<ValueAt<Todo, "a\\.b">>().toEqualTypeOf<number>()
    expectTypeOf<ValueAt<Todo, "c\\\\d">>().toEqualTypeOf<number>()
    expectTypeOf<ValueAt<Todo, "\\or">>().toEqualTypeOf<boolean>()
    expectTypeOf<ValueAt<Todo, "counts.apples">>().toEqualTypeOf<number>()
    expectTypeOf<ValueAt<Shape, "kind">>().toEqualTypeOf<"circle" | "rect">()
    expectTypeOf<ValueAt<Shape, "label">>().toEqualTypeOf<string>()
    expectTypeOf<ValueAt<Tree, "right.right.value">>().toEqualTypeOf<number>()
    expectTypeOf<ValueAt<unknown, "a.b">>().toEqualTypeOf<unknown>()
    expectTypeOf<ValueAt<Todo, "any.x.y">>().toEqualTypeOf<unknown>()
  })

  it("tells what can be searched", () => {
    expectTypeOf<TextPath<Pick<Todo, "title" | "done" | "owner" | "tags" | "steps" | "due">>>().toEqualTypeOf<
      "title" | "tags" | "owner.id" | "owner.name" | "owner.home.city"
    >()
  })
})

describe("Where", () => {
  it("takes what a schema's values can be asked", () => {
    const id = UserId.make("alice")
    const all: ReadonlyArray<Predicate.Predicate> = [
      todo({}),
      todo({ done: false, "owner.name": { startsWith: "A" }, not: { tags: { contains: "draft" } } }),
      todo({ or: [{ points: { gt: 3, lte: 9 } }, { and: [{ due: null }, { due: { lt: new Date(0) } }] }] }),
      todo({ "owner.id": id, "owner.home": { exists: true }, "owner.home.city": { like: "B%", regex: "n$" } }),
      todo({ "owner.id": { principal: "userId" }, tags: { containsAny: { principal: "teams" } } }),
      todo({ priority: { in: ["low", "high"] }, due: { between: [new Date(0), new Date(1)] } }),
      todo({ blob: Uint8Array.of(1), size: { gte: 2n }, "a\\.b": 1, "\\or": true, "counts.apples": { gt: 1 } }),
      todo({ steps: { contains: { n: 1 } }, tags: { eq: ["a"] }, owner: { neq: { literal: { id, name: "Ann" } } } }),
      todo({ any: { eq: { x: [1] } }, "any.x": { gt: 1 }, title: { contains: "milk", containsAll: ["a", "b"] } })
    ]
    for (const each of all) Predicate.parse(each)
    const shape: Where.Where<Shape> = { kind: "circle", r: { gt: 1 }, label: { startsWith: "x" } }
    const tree: Where.Where<Tree> = { "left.value": 1, right: null }
    const anything: Where.Where<unknown> = { "whatever.it.is": { gt: 1 } }
    for (const each of [shape, tree, anything]) Predicate.parse(each)
  })

  it("refuses a field that there isn't, and an operand that it can't be compared with", () => {
    const wrong: ReadonlyArray<Where.Where<Todo>> = [
      // @ts-expect-error no such field
      { don: false },
      // @ts-expect-error no such field of the owner
      { "owner.mail": "a" },
      // @ts-expect-error an array's elements have no paths
      { "steps.n": 1 },
      // @ts-expect-error another type
      { done: 1 },
      // @ts-expect-error another type, in an operator
      { points: { eq: "1" } },
      // @ts-expect-error none of the literals
      { priority: "middle" },
      // @ts-expect-error none of the literals, in a list
      { priority: { in: ["middle"] } },
      // @ts-expect-error any text is no user's id
      { "owner.id": "alice" },
      // @ts-expect-error only text starts with something
      { points: { startsWith: "1" } },
      // @ts-expect-error only text is like a pattern
      { done: { like: "t%" } },
      // @ts-expect-error only text is matched
      { tags: { regex: "a" } },
      // @ts-expect-error an array has no order
      { tags: { gt: "a" } },
      // @ts-expect-error an object has no order
      { owner: { gt: 1 } },
      // @ts-expect-error null has no order
      { due: { gt: null } },
      // @ts-expect-error only arrays and text contain something
      { points: { contains: 1 } },
      // @ts-expect-error no element
      { tags: { contains: 1 } },
      // @ts-expect-error one bound
      { points: { between: [1] } },
      // @ts-expect-error a bound of another type
      { points: { between: [1, "2"] } },
      // @ts-expect-error no null here
      { title: null },
      // @ts-expect-error no such operator
      { title: { starts: "a" } },
      // @ts-expect-error inside a connective too
      { and: [{ done: false }, { don: true }] },
      // @ts-expect-error inside a denial too
      { not: { done: "no" } },
      // @ts-expect-error a pattern isn't another's
      { title: { like: { principal: "userId" } } }
    ]
    assert.isNotEmpty(wrong)
    // @ts-expect-error what is asked of one schema isn't asked of another
    const other: Where.Where<Shape> = Where.of<Todo>((fields) => fields.done.eq(true))
    assert.deepStrictEqual<unknown>(other, { done: true })
  })
})

describe("Where.of", () => {
  it("gives what one writes by hand", () => {
    assert.deepStrictEqual<Predicate.Predicate>(
      Where.of<Todo>((fields) =>
        Where.and(
          fields.done.eq(false),
          fields.owner.name.startsWith("A"),
          Where.not(fields.tags.contains("draft")),
          Where.or(fields.points.gt(3), fields.points.exists(false), fields.due.eq(null))
        )
      ),
      {
        and: [
          { done: false },
          { "owner.name": { startsWith: "A" } },
          { not: { tags: { contains: "draft" } } },
          { or: [{ points: { gt: 3 } }, { points: { exists: false } }, { due: null }] }
        ]
      }
    )
  })

  it("has each operator, where the field's type has it", () => {
    const at = new Date(0)
    const conditions = Where.of<Todo>((fields) =>
      Where.and(
        fields.points.eq(1),
        fields.points.neq(1),
        fields.points.gt(1),
        fields.points.gte(1),
        fields.points.lt(1),
        fields.points.lte(1),
        fields.points.between(1, 2),
        fields.points.in([1, 2]),
        fields.tags.contains("a"),
        fields.tags.containsAll(["a"]),
        fields.tags.containsAny({ principal: "teams" }),
        fields.title.startsWith("a"),
        fields.title.like("a%"),
        fields.title.regex("a"),
        fields.title.exists(),
        fields.due.eq(at),
        fields.owner.id.eq({ principal: "userId" }),
        fields.tags.eq(["a"]),
        fields.any.eq({ x: 1 })
      )
    )
    assert.deepStrictEqual<Predicate.Predicate>(conditions, {
      and: [
        { points: 1 },
        { points: { neq: 1 } },
        { points: { gt: 1 } },
        { points: { gte: 1 } },
        { points: { lt: 1 } },
        { points: { lte: 1 } },
        { points: { between: [1, 2] } },
        { points: { in: [1, 2] } },
        { tags: { contains: "a" } },
        { tags: { containsAll: ["a"] } },
        { tags: { containsAny: { principal: "teams" } } },
        { title: { startsWith: "a" } },
        { title: { like: "a%" } },
        { title: { regex: "a" } },
        { title: { exists: true } },
        { due: at },
        { "owner.id": { principal: "userId" } },
        { tags: { eq: ["a"] } },
        { any: { eq: { x: 1 } } }
      ]
    })
    Predicate.parse(conditions)
  })

  it("escapes names, and finds fields that are called as operators are", () => {
    interface Odd {
      readonly or: boolean
      readonly in: { readonly eq: number; readonly field: { readonly like: string }; readonly "x.y": number }
    }
    const built = Where.of<Odd>((fields) =>
      Where.and(
        fields.or.eq(true),
        fields.in.field("eq").gt(1),
        fields.in.field("field").field("like").like("a"),
        fields.in["x.y"].eq(1)
      )
    )
    assert.deepStrictEqual<Predicate.Predicate>(built, {
      and: [{ "\\or": true }, { "in.eq": { gt: 1 } }, { "in.field.like": { like: "a" } }, { "in.x\\.y": 1 }]
    })
    assert.isTrue(Predicate.compile(built)({ or: true, in: { eq: 2, field: { like: "a" }, "x.y": 1 } }))
  })

  it("refuses what the field's type hasn't", () => {
    const refused = [
      // @ts-expect-error no such field
      () => Where.of<Todo>((fields) => fields.don.eq(false)),
      // @ts-expect-error another type
      () => Where.of<Todo>((fields) => fields.done.eq(1)),
      // @ts-expect-error a number starts with nothing
      () => Where.of<Todo>((fields) => fields.points.startsWith("1")),
      // @ts-expect-error no order
      () => Where.of<Todo>((fields) => fields.tags.gt("a")),
      // @ts-expect-error an array's elements are no fields
      () => Where.of<Todo>((fields) => fields.steps.n.eq(1)),
      // @ts-expect-error a field of another schema
      () => Where.of<Todo>((fields) => Where.and(fields.done.eq(true), {} as Where.Condition<Shape>))
    ]
    assert.lengthOf(refused, 6)
  })

  it("is of any fields where nothing is known of the values", () => {
    assert.deepStrictEqual<Predicate.Predicate>(
      Where.of<unknown>((fields) => Where.and(fields["a"]!.eq(1), fields["b"]!.field("c").startsWith("x"))),
      { and: [{ a: 1 }, { "b.c": { startsWith: "x" } }] }
    )
  })
})
