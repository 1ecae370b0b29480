/** Random values, predicates and queries over a domain so small that ties, collisions and types that don't fit all happen. */
import * as fc from "effect/FastCheck"
import type { Spec } from "@topgun/core/Indexes"
import * as Predicate from "@topgun/core/Predicate"
import * as Query from "@topgun/core/Query"

export const keys = [..."abcdefghijklmnopqrst", "\u{1F600}", "\uffff"]

/** Few of each type, and most of the time two numbers, so that records have fields in common. */
const scalar = fc.oneof(
  { weight: 2, arbitrary: fc.constantFrom<Predicate.Scalar>(0, 1) },
  {
    weight: 1,
    arbitrary: fc.constantFrom<Predicate.Scalar>(
      null,
      false,
      true,
      -0,
      -1.5,
      1n,
      "",
      "x",
      "xy",
      "\u{1F600}",
      new Date(0),
      Uint8Array.of(1)
    )
  }
)

const rarelyMissing = <A>(arbitrary: fc.Arbitrary<A>) => fc.option(arbitrary, { nil: undefined, freq: 8 })

/** A record: any field may be missing, of any type. */
export const value = fc.record({
  a: rarelyMissing(scalar),
  b: rarelyMissing(
    fc.oneof({ weight: 3, arbitrary: scalar }, { weight: 1, arbitrary: fc.array(scalar, { maxLength: 3 }) })
  ),
  tags: rarelyMissing(
    fc.oneof(
      { weight: 3, arbitrary: fc.array(fc.constantFrom("x", "y", "z", 1), { maxLength: 3 }) },
      { weight: 1, arbitrary: fc.constant("xyz") }
    )
  ),
  n: rarelyMissing(fc.integer({ min: 0, max: 3 })),
  in: rarelyMissing(fc.record({ a: scalar }, { requiredKeys: [] }))
}).map((fields) => Object.fromEntries(Object.entries(fields).filter(([, field]) => field !== undefined)))

const field = fc.constantFrom("a", "b", "n", "in.a")
const ordered = scalar.filter((operand) => operand !== null)
const elements = fc.array(fc.constantFrom<Predicate.Scalar>("x", "y", "z", 1), { maxLength: 2 })

export const comparison = fc.oneof(
  fc.tuple(
    field,
    fc.oneof(
      scalar.map((eq) => ({ eq })),
      scalar.map((neq) => ({ neq })),
      ordered.map((gt) => ({ gt })),
      ordered.map((gte) => ({ gte })),
      ordered.map((lt) => ({ lt })),
      ordered.map((lte) => ({ lte })),
      fc.tuple(ordered, ordered).map(([gt, lte]) => ({ gt, lte })),
      fc.array(scalar, { maxLength: 3 }).map((list) => ({ in: list })),
      fc.constantFrom("", "x", "xy").map((startsWith) => ({ startsWith })),
      fc.boolean().map((exists) => ({ exists })),
      fc.integer({ min: 0, max: 2 }).map((low) => ({ between: [low, low + 1] }))
    )
  ),
  fc.tuple(
    fc.constantFrom("tags", "b"),
    fc.oneof(
      fc.constantFrom<Predicate.Scalar>("x", "y", 1).map((contains) => ({ contains })),
      elements.map((containsAll) => ({ containsAll })),
      elements.map((containsAny) => ({ containsAny }))
    )
  )
).map(([path, condition]) => ({ [path]: condition }) as unknown as Predicate.Predicate)

export const predicate: fc.Arbitrary<Predicate.Predicate> = fc.letrec<{ any: Predicate.Predicate }>((tie) => ({
  any: fc.oneof(
    { maxDepth: 2, withCrossShrink: true },
    { weight: 5, arbitrary: comparison },
    { weight: 2, arbitrary: fc.array(tie("any"), { minLength: 2, maxLength: 3 }).map((and) => ({ and })) },
    { weight: 2, arbitrary: fc.array(tie("any"), { minLength: 2, maxLength: 3 }).map((or) => ({ or })) },
    { weight: 1, arbitrary: tie("any").map((not) => ({ not })) }
  )
})).any

const direction = fc.constantFrom<Query.Direction>("asc", "desc")
const order = fc.record({ field: fc.constantFrom("a", "b", "n", "in.a"), direction }, { requiredKeys: ["field"] })

/** One to three fields, each once. */
export const orderBy = fc.uniqueArray(order, { minLength: 1, maxLength: 3, selector: (each) => each.field })

/** Of some the place where they begin is a row of theirs, or one that might be. */
export const query: fc.Arbitrary<Query.Query> = fc.record({
  where: fc.oneof(
    { weight: 1, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.constantFrom<Predicate.Predicate>({ n: 0 }, { n: 1 }, { n: { in: [0, 1] } }) },
    { weight: 3, arbitrary: predicate }
  ),
  orderBy: fc.option(orderBy, { nil: undefined, freq: 3 }),
  limit: fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined, freq: 3 }),
  after: fc.option(fc.tuple(fc.constantFrom(...keys), value), { nil: undefined, freq: 1 })
}).map(({ after, ...given }) => {
  const asked = Query.parse(given)
  if (after === undefined) return asked
  const [key, found] = after
  return Query.parse({
    ...given,
    cursor: Query.cursorOf(asked, { key, sort: Query.ordering(asked.orderBy).sortOf(found) })
  })
})

const path = fc.constantFrom("a", "b", "n", "tags", "in.a")

/** Indexes of any kind, over any fields, and some that have the order of these queries, or nearly. */
export const indexesFor = (queries: ReadonlyArray<Query.Query>): fc.Arbitrary<ReadonlyArray<Spec>> => {
  const orders = queries.flatMap((each) => each.orderBy === undefined ? [] : [each.orderBy.map((by) => by.field)])
  const ofOrders = orders.length === 0
    ? fc.constant([])
    : fc.subarray([
      ...orders,
      ...orders.flatMap((fields) => [["tags"].concat(fields), fields.concat("tags")])
    ])
  return fc.tuple(indexes, ofOrders).map(([any, ordering]) =>
    any.concat(ordering.map((fields) => ({ fields, kind: "sorted" as const })))
  )
}

export const index: fc.Arbitrary<Spec> = fc.oneof(
  fc.tuple(path, fc.constantFrom<Spec["kind"]>("hash", "sorted")).map(([one, kind]) => ({ fields: [one], kind })),
  fc.constantFrom("tags", "b").map((one) => ({ fields: [one], kind: "inverted" as const })),
  fc.uniqueArray(path, { minLength: 2, maxLength: 3 }).map((fields) => ({ fields, kind: "sorted" as const }))
)

const indexes: fc.Arbitrary<ReadonlyArray<Spec>> = fc.array(index, { maxLength: 6 })

// --- The plain way ---------------------------------------------------------------------------------------------------

/** A query's answer as it is defined: all records, tested, put in order, and cut. */
export const evaluate = (
  records: ReadonlyMap<string, unknown>,
  asked: Query.Query
): { readonly rows: ReadonlyArray<Query.Row>; readonly hasMore: boolean } => {
  const test = asked.where === undefined ? () => true : Predicate.compile(asked.where)
  const { compare, sortOf } = Query.ordering(asked.orderBy)
  const after = Query.positionOf(asked)
  const rows = Array.from(records)
    .filter(([, found]) => test(found) === true)
    .map(([key, found]) => ({ key, value: found, sort: sortOf(found) }))
    .filter((row) => after === undefined || compare(row, after) > 0)
    .sort(compare)
  return { rows: rows.slice(0, asked.limit), hasMore: asked.limit !== undefined && rows.length > asked.limit }
}
