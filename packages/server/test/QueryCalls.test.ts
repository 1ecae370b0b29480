/** Queries that are asked once, as calls. */
import { assert, describe, it, vi } from "@effect/vitest"
import * as Grid from "@topgun/core/Grid"
import * as Query from "@topgun/core/Query"
import * as LiveQueries from "@topgun/core/LiveQueries"
import * as ValueJson from "@topgun/core/ValueJson"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import { batch, inProcessReady, type PlainClient, put, settled } from "./PlainClient.ts"
import { temporaryDir } from "./stores.ts"

interface Page {
  readonly rows: ReadonlyArray<{ readonly key: string; readonly value: unknown }>
  readonly hasMore: boolean
  readonly cursor: string | null
}

let id = 0
const send = (client: PlainClient, message: unknown) =>
  client.send({ _tag: "Call", payload: new TextEncoder().encode(JSON.stringify(message)) })
const request = (client: PlainClient, tag: string, query: unknown, map = "todos") =>
  send(client, { _tag: "Request", id: String(++id), tag, headers: [], payload: { map, query } })

type Exit = {
  readonly _tag: "Success" | "Failure"
  readonly value?: unknown
  readonly cause?: { readonly error: { readonly _tag: string; readonly path?: string } }
}
const exitOf = (client: PlainClient) =>
  Effect.map(
    client.take("Reply"),
    ({ payload }) => (JSON.parse(new TextDecoder().decode(payload)) as { readonly exit: Exit }).exit
  )
const asked = (client: PlainClient, tag: string, query: unknown, map = "todos") =>
  Effect.zipRight(request(client, tag, query, map), exitOf(client))
const answer = (client: PlainClient, tag: string, query: unknown, map = "todos") =>
  Effect.map(asked(client, tag, query, map), (exit) => {
    assert.strictEqual(exit._tag, "Success", JSON.stringify(exit).slice(0, 300))
    return exit.value
  })
const page = (client: PlainClient, query: unknown) =>
  Effect.map(answer(client, "Query", query), (value) => value as Page)
const faultOf = (exit: Exit) => {
  const { _tag, path } = exit.cause!.error
  return [_tag, path]
}

let sequence = 0
const write = (client: PlainClient, entries: ReadonlyArray<readonly [string, unknown]>, map = "todos") =>
  Effect.gen(function*() {
    for (let at = 0; at < entries.length; at += 10) {
      const part = entries.slice(at, at + 10)
      yield* client.send(
        batch(map, "APPLIED", sequence, part.map(([key, value], i) => [key, put(value, 1_000 + sequence + i)]))
      )
      sequence += part.length
      yield* client.take("OpAck")
    }
  })

const Todos = Grid.map("todos", undefined, { indexes: ["n", { fields: ["owner"], kind: "hash" }] })
const layer = TopGunServer.layerInProcess({ grid: [Todos] })

describe("Query", () => {
  it.effect("answers with values as JSON, in the query's order, with the fields that it selects", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* write(client, [["a", { n: 2, big: 2n ** 60n }], ["b", { n: 1, big: 1n }], ["c", { n: 3 }]])
      assert.deepStrictEqual(
        yield* answer(client, "Query", { orderBy: [{ field: "n" }], limit: 2, select: ["big"] }),
        {
          rows: [
            { key: "b", value: { big: { $bigint: "1" } } },
            { key: "a", value: { big: ValueJson.toJson(2n ** 60n) } }
          ],
          hasMore: true,
          cursor: Query.cursorOf(Query.parse({ orderBy: [{ field: "n" }] }), { key: "a", sort: 2 })
        }
      )
    }).pipe(Effect.provide(layer)))

  it.effect("finds what its caller has written before, though the same query is live and not told of it yet", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* client.send({ _tag: "QueryOpen", id: 1, map: "todos", query: Uint8Array.of(0x80) })
      yield* client.take("QueryRows")
      for (let n = 0; n < 3; n++) {
        yield* write(client, [["a", { n }]])
        assert.deepStrictEqual((yield* page(client, {})).rows, [{ key: "a", value: { n } }])
      }
    }).pipe(Effect.provide(layer)))

  it.effect("passes through all rows by cursor, once each, whatever is written before and after the place", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* write(client, Array.from({ length: 20 }, (_, n) => [`k${n}`, { n }]))
      const query = { orderBy: [{ field: "n", direction: "desc" }], limit: 6 }
      const met: Array<string> = []
      let cursor: string | null = null
      do {
        const { cursor: next, hasMore, rows }: Page = yield* page(
          client,
          cursor === null ? query : { ...query, cursor }
        )
        met.push(...rows.map(({ key }) => key))
        assert.strictEqual(hasMore, next !== null)
        cursor = next
        // The row that the cursor stands at goes, one comes before it, and one after all.
        const last = rows[rows.length - 1]!
        yield* write(client, [[last.key, { n: 1_000 }], [`before${met.length}`, { n: 500 }]])
      } while (cursor !== null)
      assert.deepStrictEqual(met, Array.from({ length: 20 }, (_, i) => `k${19 - i}`))
    }).pipe(Effect.provide(layer)))

  it.effect("answers with as many rows as fit into a reply, however they are as JSON, and goes on from there", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      // A character that takes six of JSON.
      yield* write(client, Array.from({ length: 20 }, (_, n) => [`k${n}`, { n, text: "\u0001".repeat(20_000) }]))
      const met: Array<string> = []
      let pages = 0
      let cursor: string | null = null
      do {
        const next: Page = yield* page(client, { select: ["text"], ...(cursor === null ? {} : { cursor }) })
        met.push(...next.rows.map(({ key }) => key))
        cursor = next.cursor
        pages++
      } while (cursor !== null)
      assert.strictEqual(new Set(met).size, 20)
      assert.strictEqual(met.length, 20)
      assert.isAbove(pages, 3)
      yield* write(client, [["a", "\u0001".repeat(200_000)]])
      assert.deepStrictEqual(faultOf(yield* asked(client, "Query", {})), ["QueryTooExpensive", "$"])
    }).pipe(Effect.provide(layer)))

  it.effect("refuses what is no query, or costs too much, with its place", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* write(client, [["a", { n: 1 }], ["b", { n: 2 }]])
      for (
        const [query, tag, path] of [
          [7, "QueryInvalid", "$"],
          [{ limit: "1" }, "QueryInvalid", "$.limit"],
          [{ where: { a: { regex: "(" } } }, "QueryInvalid", "$.where.a.regex"],
          [{ where: { a: { $number: "x" } } }, "QueryInvalid", "$"],
          [{ search: "x" }, "QueryInvalid", "$.search"],
          [{ limit: 10_001 }, "QueryTooExpensive", "$.limit"]
        ] as const
      ) {
        assert.deepStrictEqual(faultOf(yield* asked(client, "Query", query)), [tag, path])
        if (path !== "$.search" && path !== "$.limit") {
          assert.deepStrictEqual(faultOf(yield* asked(client, "Count", query)), [tag, path])
        }
      }
      yield* client.send(batch("tags", "APPLIED", sequence++, [["a", put(1)]], { kind: "or" }))
      for (const tag of ["Query", "Count", "Explain"]) {
        assert.strictEqual(faultOf(yield* asked(client, tag, {}, "tags"))[0], "MapKindMismatch")
      }
    }).pipe(Effect.provide(layer)))

  it.effect("that is interrupted, or whose connection ends, is asked no more", () =>
    Effect.gen(function*() {
      const writer = yield* inProcessReady
      for (let at = 0; at < 10_000; at += 500) {
        yield* writer.send(
          batch("todos", "APPLIED", sequence, Array.from({ length: 500 }, (_, i) => [`k${at + i}`, put({ n: at + i })]))
        )
        sequence += 500
      }
      yield* settled
      const advanced = vi.spyOn(LiveQueries.LiveQuery.prototype, "advance")
      for (const how of ["interrupt", "close"]) {
        const client = yield* inProcessReady
        yield* request(client, "Query", { where: { text: "none" } })
        while (advanced.mock.calls.length === 0) yield* settled
        if (how === "interrupt") yield* send(client, { _tag: "Interrupt", requestId: String(id) })
        else client.connection.close(1000, "")
        for (let turn = 0; turn < 3; turn++) yield* settled
        advanced.mockClear()
        for (let turn = 0; turn < 5; turn++) yield* settled
        assert.strictEqual(advanced.mock.calls.length, 0)
      }
      const { metrics } = yield* TopGunServer.TopGunServer
      const live = (yield* metrics).find(({ metricKey }) => metricKey.name === "topgun_live_queries")
      assert.strictEqual((live!.metricState as unknown as { readonly value: number }).value, 0)
    }).pipe(Effect.ensuring(Effect.sync(() => vi.restoreAllMocks())), Effect.provide(layer)))
})

describe("Count", () => {
  it.effect("counts what a query finds, whatever its limit, by an index or without", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* write(
        client,
        Array.from({ length: 30 }, (_, n) => [`k${n}`, { n, owner: n % 3 === 0 ? "x" : "y", even: n % 2 === 0 }])
      )
      assert.strictEqual(yield* answer(client, "Count", {}), 30)
      assert.strictEqual(yield* answer(client, "Count", { where: { owner: "x" }, limit: 2 }), 10)
      assert.strictEqual(yield* answer(client, "Count", { where: { even: true } }), 15)
      assert.strictEqual(yield* answer(client, "Count", { where: { owner: "x" } }, "nowhere"), 0)
      assert.deepStrictEqual(faultOf(yield* asked(client, "Count", { search: "x" })), ["QueryInvalid", "$.search"])
    }).pipe(Effect.provide(layer)))

  it.effect("leaves the queries alone that are asked of its map meanwhile", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      for (let at = 0; at < 10_000; at += 500) {
        yield* client.send(
          batch("todos", "APPLIED", sequence, Array.from({ length: 500 }, (_, i) => [`k${at + i}`, put({ n: at + i })]))
        )
        sequence += 500
      }
      yield* settled
      yield* request(client, "Count", { where: { text: { exists: false } } })
      yield* client.send({ _tag: "QueryOpen", id: 1, map: "todos", query: Uint8Array.of(0x80) })
      yield* client.send({ _tag: "QueryClose", id: 1 })
      yield* client.send({ _tag: "QueryOpen", id: 2, map: "todos", query: Uint8Array.of(0x80) })
      assert.strictEqual((yield* exitOf(client)).value, 10_000)
      while (client.untaken("QueryRows") === 0) yield* settled
      while (client.untaken("QueryRows") > 0) yield* client.take("QueryRows")
      yield* write(client, [["k0", { n: -1 }]])
      assert.strictEqual((yield* client.take("QueryRows")).records.length, 1)
    }).pipe(Effect.provide(TopGunServer.layerInProcess())))
})

describe("Explain", () => {
  it.effect("tells of the indexes that a query uses, built anew from what is stored", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      const server = (grid: ReadonlyArray<Grid.Declaration>) =>
        TopGunServer.layerInProcess({ grid, storage: "sqlite", dataDir })
      yield* Effect.gen(function*() {
        const client = yield* inProcessReady
        for (let at = 0; at < 200; at += 100) {
          yield* client.send(batch(
            "todos",
            "PERSISTED",
            sequence,
            Array.from({ length: 100 }, (_, i) => [`k${at + i}`, put({ owner: `u${(at + i) % 50}`, n: at + i })])
          ))
          sequence += 100
          yield* client.take("OpAck")
        }
        assert.deepInclude(yield* answer(client, "Explain", { where: { owner: "u7" } }), { plan: "scan", steps: [] })
      }).pipe(Effect.provide(server([])))
      yield* Effect.gen(function*() {
        const client = yield* inProcessReady
        assert.deepStrictEqual(yield* answer(client, "Explain", { where: { owner: "u7" } }), {
          plan: "index",
          steps: [{ index: { fields: ["owner"], kind: "hash" }, by: "equality", candidates: 4 }],
          candidates: 4,
          records: 200,
          isOrdered: false,
          ties: ["owner"],
          score: null
        })
        assert.deepStrictEqual(
          (yield* page(client, { where: { owner: "u7" } })).rows.map(({ key }) => key),
          ["k107", "k157", "k57", "k7"]
        )
        yield* write(client, [["new", { owner: "u7", n: -1 }]])
        assert.deepStrictEqual((yield* page(client, { orderBy: [{ field: "n" }], limit: 1 })).rows, [
          { key: "new", value: { owner: "u7", n: -1 } }
        ])
      }).pipe(Effect.provide(server([Todos])))
    }).pipe(Effect.scoped))
})
