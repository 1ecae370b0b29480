import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import { FullTextIndex, fuse } from "../src/FullText.ts"
import { load } from "../src/Languages.ts"
import * as LiveQueries from "../src/LiveQueries.ts"
import { fusedMax, LiveSearches } from "../src/LiveSearch.ts"
import * as Predicate from "../src/Predicate.ts"
import * as Query from "../src/Query.ts"

const analyzer = await load()
const options = { fields: { title: 2, text: 1 } }

const words = ["cat", "cats", "dog", "tree", "of"]
const keys = ["a", "b", "c", "d", "e", "f", "g", "h"]
const phrase = fc.array(fc.constantFrom(...words), { maxLength: 4 }).map((all) => all.join(" "))
const value = fc.record({
  title: phrase,
  text: phrase,
  n: fc.integer({ min: 0, max: 2 }),
  owner: fc.constantFrom("ann", "bob")
})
type Found = { readonly title: string; readonly text: string; readonly n: number; readonly owner: string }

const query = fc.record({
  search: fc.oneof(
    fc.constantFrom("cat", "ca", "dog tree", "tree of"),
    fc.record({ text: fc.constantFrom("cat", "dog"), fields: fc.constant(["title"]), prefix: fc.boolean() })
  ),
  where: fc.option(fc.constantFrom<Predicate.Predicate>({ n: 1 }, { n: { gt: 0 } }, { not: { n: 2 } }), {
    nil: undefined
  }),
  orderBy: fc.option(
    fc.constantFrom<ReadonlyArray<Query.Order>>([{ field: "n" }], [{ field: "n", direction: "desc" }, {
      field: "owner"
    }]),
    {
      nil: undefined
    }
  ),
  limit: fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
  hybrid: fc.boolean()
}).map(({ hybrid, ...given }) => Query.parse({ ...given, ...hybrid && given.where !== undefined ? { hybrid } : {} }))

const view: LiveQueries.View = {
  key: "ann's",
  show: (found) => (found as Found).owner === "ann" ? found : undefined,
  ties: [{ path: "owner", to: "ann" }]
}

/** As it is defined: an index of the records that are shown, and nothing else. */
const evaluate = (records: ReadonlyMap<string, Found>, asked: Query.Query) => {
  const index = new FullTextIndex(options, analyzer)
  for (const [key, found] of records) index.set(key, found)
  const { text, ...search } = Query.searchOf(asked)!
  const test = asked.where === undefined ? () => true : Predicate.compile(asked.where)
  const hits = index.search(text, search)
  const found = asked.hybrid === true
    ? fuse([
      hits.map(({ key }) => key).slice(0, fusedMax),
      Array.from(records).filter(([, each]) => test(each) === true)
        .map(([key, each]) => ({ key, sort: Query.ordering(asked.orderBy).sortOf(each) }))
        .sort(Query.ordering(asked.orderBy).compare).map(({ key }) => key)
    ])
    : hits.filter(({ key }) => test(records.get(key)) === true)
  const { compare, sortOf } = Query.ordering(asked.orderBy)
  const rows = found.map(({ key, score }) => ({ key, score, sort: sortOf(records.get(key)) }))
  if (!Query.isRanked(asked)) rows.sort(compare)
  return rows.map(({ key, score }) => ({ key, score }))
}

describe("LiveSearch", () => {
  it.prop(
    "a live search shows at every version what an index of the records finds that who asks may read",
    {
      before: fc.uniqueArray(fc.tuple(fc.constantFrom(...keys), value), { selector: ([key]) => key }),
      asked: query,
      isPartial: fc.boolean(),
      steps: fc.array(fc.tuple(fc.constantFrom(...keys), fc.option(value, { nil: undefined, freq: 3 }), fc.boolean()), {
        maxLength: 40
      })
    },
    ({ asked, before, isPartial, steps }) => {
      const map = new Map<string, Found>()
      const queries = new LiveQueries.LiveQueries({
        source: {
          get: (key) => map.get(key),
          parts: 2,
          visit: (part, visitor) => {
            for (const [key, found] of Array.from(map)) if (keys.indexOf(key) % 2 === part) visitor(key, found)
          },
          size: () => map.size
        }
      })
      for (const [key, found] of before) map.set(key, found)
      const searches = new LiveSearches(queries, options, analyzer)
      const building = searches.build()
      const told = new Map<string, { readonly value: unknown; readonly score: number }>()
      let version = 0
      const put = (key: string, found: Found | undefined): void => {
        if (found === undefined) map.delete(key)
        else map.set(key, found)
        queries.set(key, found)
      }
      building.next()
      for (const [key, found] of steps.slice(0, 2)) put(key, found)
      while (building.next().done !== true) { /* the rest */ }
      const [live, close] = queries.ask(asked, (delta) => {
        assert.strictEqual(delta.version, ++version)
        for (const change of delta.changes) {
          if (change.type === "leave") assert.isTrue(told.delete(change.key))
          else {
            assert.strictEqual(told.has(change.key), change.type !== "enter")
            told.set(change.key, { value: change.value, score: change.score! })
          }
        }
      }, isPartial ? view : undefined)
      const check = (): void => {
        const versionBefore = version
        queries.settle()
        const visible = isPartial ? new Map(Array.from(map).filter(([, { owner }]) => owner === "ann")) : map
        const expected = evaluate(visible, asked)
        const shown = expected.slice(0, asked.limit)
        assert.deepStrictEqual(
          new Map(live.rows.map(({ key, score, value: found }) => [key, { value: found, score }])),
          told
        )
        for (const { key, value: found } of live.rows) assert.strictEqual(found, map.get(key))
        assert.strictEqual(live.hasMore, expected.length > shown.length)
        if (version > versionBefore) {
          assert.deepStrictEqual(live.rows.map(({ key, score }) => ({ key, score })), shown)
        } else if (asked.limit === undefined) {
          // What nobody has touched that it finds may have other scores by now, and finds the same.
          assert.deepStrictEqual(live.rows.map(({ key }) => key).sort(), shown.map(({ key }) => key).sort())
        }
      }
      check()
      for (const [key, found, isChecked] of steps.slice(2)) {
        put(key, found)
        if (isChecked) check()
      }
      check()
      close()
      assert.strictEqual(queries.size, 0)
      assert.strictEqual(searches.size, 0)
    },
    { fastCheck: { numRuns: 300 } }
  )

  it.prop(
    "pages of a search follow each other",
    { records: fc.array(value, { maxLength: 12 }), asked: query },
    ({ asked, records }) => {
      const map = new Map(records.map((found, i) => [`k${i}`, found]))
      const queries = new LiveQueries.LiveQueries({
        source: {
          get: (key) => map.get(key),
          parts: 1,
          visit: (_, visitor) => map.forEach((found, key) => visitor(key, found)),
          size: () => map.size
        }
      })
      for (
        const building = new LiveSearches(queries, options, analyzer).build();
        building.next().done !== true;
      ) { /* all */ }
      const page = (each: Query.Query): ReadonlyArray<string> => {
        const [live, close] = queries.ask(each, () => {})
        queries.settle()
        const next = live.hasMore ? page(Query.parse({ ...each, cursor: Query.cursorOf(each, live.rows.at(-1)!) })) : []
        const found = live.rows.map(({ key }) => key)
        close()
        return [...found, ...next]
      }
      assert.deepStrictEqual(page(asked), evaluate(map, asked).map(({ key }) => key))
    }
  )
})
