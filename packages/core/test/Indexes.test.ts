import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import { Indexes } from "../src/Indexes.ts"
import { nodeOf, ownCopy } from "../src/internal/predicateReader.ts"
import * as Predicate from "../src/Predicate.ts"
import * as QueryPlan from "../src/QueryPlan.ts"
import { comparison, index, keys, predicate, value } from "@topgun/testing/queries"

/** More than any index has: then each that can be used is. */
const many = 1_000_000

const steps = fc.array(fc.tuple(fc.constantFrom(...keys), fc.option(value, { nil: undefined, freq: 4 })), {
  minLength: 10,
  maxLength: 60
})

const keysOf = (indexes: Indexes, where: Predicate.Predicate): ReadonlySet<string> | undefined => {
  const { keys: found } = QueryPlan.make(indexes, many, {
    where: nodeOf(ownCopy(where)),
    orderBy: [],
    mayUseOrder: true
  })
  return found === undefined ? undefined : new Set(found())
}

describe("Indexes", () => {
  it.prop(
    "find every record of which a condition is true, whatever was there before",
    {
      specs: fc.array(index, { minLength: 1, maxLength: 4 }),
      steps,
      wheres: fc.array(fc.oneof(comparison, predicate), { minLength: 5, maxLength: 20 })
    },
    ({ specs, steps: history, wheres }) => {
      const indexes = new Indexes(specs)
      const records = new Map<string, unknown>()
      for (const [key, found] of history) {
        if (found === undefined) records.delete(key)
        else records.set(key, found)
        indexes.set(key, found)
      }
      assert.strictEqual(indexes.size, records.size)
      for (const where of wheres) {
        const found = keysOf(indexes, where)
        if (found === undefined) continue
        const test = Predicate.compile(where)
        for (const [key, record] of records) {
          if (test(record) === true) assert.include([...found], key, JSON.stringify(specs))
        }
      }
    },
    { fastCheck: { numRuns: 300 } }
  )

  it.prop(
    "find none but those that an equality or an element has found, where they are about nothing else",
    {
      steps,
      to: fc.constantFrom<Predicate.Scalar>(0, 1, "x", null, true),
      kind: fc.constantFrom("hash" as const, "sorted" as const)
    },
    ({ kind, steps: history, to }) => {
      const indexes = new Indexes([{ fields: ["a"], kind }])
      const records = new Map<string, { readonly a?: unknown }>()
      for (const [key, found] of history) {
        if (found === undefined) records.delete(key)
        else records.set(key, found)
        indexes.set(key, found)
      }
      const expected = Array.from(records).filter(([, { a }]) => a === to).map(([key]) => key)
      assert.deepStrictEqual(Array.from(keysOf(indexes, { a: to }) ?? []).sort(), expected.sort())
    }
  )
})
