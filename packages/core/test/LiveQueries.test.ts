import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import type { Spec } from "../src/Indexes.ts"
import * as LiveQueries from "../src/LiveQueries.ts"
import * as Query from "../src/Query.ts"
import { evaluate, indexesFor, keys, orderBy, query, value } from "@topgun/testing/queries"

/** A map of two parts, gone through one after the other. It may say that it has many more records: then any index is better than a scan. */
const sourceOf = (records: Map<string, unknown>, saysMany: boolean): LiveQueries.Source => ({
  get: (key) => records.get(key),
  parts: 2,
  visit: (part, visitor) => {
    for (const [key, found] of Array.from(records)) if (key.charCodeAt(key.length - 1) % 2 === part) visitor(key, found)
  },
  size: () => records.size * (saysMany ? 1_000 : 1)
})

/** What one who asks has been told, put together. */
class Told {
  readonly rows = new Map<string, unknown>()
  version = 0
  hasMore = false

  /** The rows that it was told of, as the query orders them. */
  inOrder(asked: Query.Query): ReadonlyArray<readonly [string, unknown]> {
    const { compare, sortOf } = Query.orderingOf(asked)
    return Array.from(this.rows, ([key, found]) => ({ key, value: found, sort: sortOf(found) }))
      .sort(compare).map(({ key, value: found }) => [key, found])
  }

  take({ changes, hasMore, version }: LiveQueries.Delta): void {
    assert.strictEqual(version, this.version + 1, "versions come one after the other")
    this.version = version
    this.hasMore = hasMore
    for (const change of changes) {
      if (change.type === "leave") assert.isTrue(this.rows.delete(change.key), "what leaves was there")
      else {
        assert.strictEqual(
          this.rows.has(change.key),
          change.type !== "enter",
          "what enters wasn't there, what changes was"
        )
        this.rows.set(change.key, change.value)
      }
    }
  }
}

type Step =
  | { readonly key: string; readonly value: unknown }
  | "advance"
  | "flush"
  | { readonly open: Query.Query }
  | { readonly close: number }
  | { readonly shrink: number; readonly by: number }

const step = (key: fc.Arbitrary<string>): fc.Arbitrary<Step> =>
  fc.oneof(
    { weight: 6, arbitrary: fc.record({ key, value: fc.option(value, { nil: undefined, freq: 2 }) }) },
    { weight: 1, arbitrary: fc.constant("advance" as const) },
    { weight: 3, arbitrary: fc.constant("flush" as const) },
    { weight: 2, arbitrary: fc.record({ open: query }) },
    { weight: 1, arbitrary: fc.record({ close: fc.nat(4) }) },
    { weight: 1, arbitrary: fc.record({ shrink: fc.nat(4), by: fc.integer({ min: 1, max: 80 }) }) }
  )

const rowsOf = (rows: ReadonlyArray<Query.Row>): ReadonlyArray<readonly [string, unknown]> =>
  rows.map(({ key, value: found }) => [key, found])

/** A history of a map, and of queries that come and go: what they show is compared with the plain way at each flush. */
const live = (given: {
  readonly before: ReadonlyArray<readonly [key: string, value: unknown]>
  readonly indexes: ReadonlyArray<Spec>
  readonly queries: ReadonlyArray<Query.Query>
  readonly saysMany: boolean
  readonly steps: ReadonlyArray<Step>
}): void => {
  const map = new Map<string, unknown>()
  const queries = new LiveQueries.LiveQueries({ source: sourceOf(map, given.saysMany), indexes: given.indexes })
  const put = (key: string, found: unknown): void => {
    if (found === undefined) map.delete(key)
    else map.set(key, found)
    queries.set(key, found)
  }
  for (const [key, found] of given.before) put(key, found)
  const open: Array<{ live: LiveQueries.Live; told: Told | undefined; close: () => void }> = []
  const ask = (asked: Query.Query): void => {
    const before = queries.size
    const told = new Told()
    const [found, close] = queries.ask(asked, (delta) => {
      if (isFirst) told.take(delta)
    })
    // Who comes later begins with what there is.
    const isFirst = queries.size > before
    open.push({ live: found, told: isFirst ? told : undefined, close })
  }
  given.queries.forEach(ask)
  const check = (): void => {
    queries.settle()
    for (const { live: asked, told } of open) {
      const expected = evaluate(map, asked.query)
      assert.deepStrictEqual(rowsOf(asked.rows), rowsOf(expected.rows))
      assert.strictEqual(asked.hasMore, expected.hasMore)
      if (told === undefined) continue
      assert.deepStrictEqual(told.inOrder(asked.query), rowsOf(expected.rows))
      assert.strictEqual(told.hasMore, expected.hasMore)
    }
  }
  for (const each of given.steps) {
    if (each === "advance") queries.advance(() => true)
    else if (each === "flush") check()
    else if ("open" in each) ask(each.open)
    else if ("close" in each) open.splice(each.close, 1)[0]?.close()
    else if ("shrink" in each) {
      const shrunk = open[each.shrink]?.live.query
      // What a window holds goes, from the top on.
      const rows = shrunk === undefined ? [] : evaluate(map, { ...shrunk, limit: each.by }).rows
      for (const { key } of rows) put(key, undefined)
    } else put(each.key, each.value)
  }
  check()
  for (const { close } of open) close()
  assert.strictEqual(queries.size, 0)
  assert.strictEqual(queries.held, 0, "nothing is kept of queries that nobody asks")
}

describe("LiveQueries", () => {
  const asked = (queries: fc.Arbitrary<ReadonlyArray<Query.Query>>) =>
    queries.chain((all) => fc.record({ queries: fc.constant(all), indexes: indexesFor(all) }))

  it.prop(
    "a live query shows at every version what a fresh evaluation finds, by whatever indexes",
    {
      before: fc.uniqueArray(fc.tuple(fc.constantFrom(...keys), value), { selector: ([key]) => key }),
      asked: asked(fc.array(query, { minLength: 1, maxLength: 4 })),
      saysMany: fc.boolean(),
      steps: fc.array(step(fc.constantFrom(...keys)), { maxLength: 60 })
    },
    ({ asked: { indexes, queries }, before, saysMany, steps }) => live({ before, indexes, queries, saysMany, steps }),
    { fastCheck: { numRuns: 300 } }
  )

  const many = Array.from({ length: 90 }, (_, i) => `k${i}`)

  it.prop(
    "so does one of many records, of which it holds a few",
    {
      before: fc.array(value, { minLength: 60, maxLength: many.length }).map((values) =>
        values.map((found, i) => [many[i]!, found] as const)
      ),
      asked: asked(fc.array(query, { minLength: 1, maxLength: 3 })),
      saysMany: fc.boolean(),
      steps: fc.array(step(fc.constantFrom(...many)), { minLength: 30, maxLength: 150 })
    },
    ({ asked: { indexes, queries }, before, saysMany, steps }) => live({ before, indexes, queries, saysMany, steps }),
    { fastCheck: { numRuns: 200 } }
  )

  const crowd = Array.from({ length: 200 }, (_, i) => `k${i}`)

  it.prop(
    "so does one whose order an index has, as soon as it has enough rows",
    {
      before: fc.array(value, { minLength: 150, maxLength: crowd.length }).map((values) =>
        values.map((found, i) => [crowd[i]!, found] as const)
      ),
      asked: fc.record({ orderBy, limit: fc.integer({ min: 1, max: 4 }) }).map((given) => Query.parse(given)),
      steps: fc.array(step(fc.constantFrom(...crowd)), { minLength: 10, maxLength: 60 })
    },
    ({ asked: only, before, steps }) =>
      live({
        before,
        indexes: [{ fields: only.orderBy!.map(({ field }) => field), kind: "sorted" }],
        queries: [only],
        saysMany: true,
        steps
      }),
    { fastCheck: { numRuns: 60 } }
  )

  it("an index of more fields isn't taken for the order of fewer: where these are equal, keys decide", () => {
    const map = new Map(crowd.map((key, i) => [key, { n: 0, m: -i }]))
    const queries = new LiveQueries.LiveQueries({
      source: sourceOf(map, true),
      indexes: [{ fields: ["n", "m"], kind: "sorted" }]
    })
    for (const [key, found] of map) queries.indexes.set(key, found)
    const [found] = queries.ask(Query.parse({ orderBy: [{ field: "n" }], limit: 2 }), () => {})
    queries.settle()
    assert.deepStrictEqual(found.rows.map(({ key }) => key), ["k0", "k1"])
  })

  for (const kind of ["by an index's order", "by a scan"]) {
    it(`shows what comes next when all that it holds goes, filled ${kind}`, () => {
      const map = new Map<string, unknown>(crowd.map((key, i) => [key, { n: i }]))
      const indexes: ReadonlyArray<Spec> = kind === "by a scan" ? [] : [{ fields: ["n"], kind: "sorted" }]
      const queries = new LiveQueries.LiveQueries({ source: sourceOf(map, true), indexes })
      for (const [key, found] of map) queries.indexes.set(key, found)
      const [found] = queries.ask(Query.parse({ orderBy: [{ field: "n" }], limit: 2 }), () => {})
      queries.settle()
      for (let gone = 0; gone < 190; gone++) {
        map.delete(crowd[gone]!)
        queries.set(crowd[gone]!, undefined)
      }
      queries.settle()
      assert.deepStrictEqual(found.rows.map(({ key }) => key), ["k190", "k191"])
      assert.isTrue(found.hasMore)
    })
  }
})
