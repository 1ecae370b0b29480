import { assert, describe, it } from "@effect/vitest"
import * as Grid from "@topgun/core/Grid"
import * as LwwRecord from "@topgun/core/LwwRecord"
import type * as Protocol from "@topgun/core/Protocol"
import * as Value from "@topgun/core/Value"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import { batch, inProcessReady, type PlainClient, put, removal } from "./PlainClient.ts"

const Todos = Grid.map("todos", undefined, { indexes: ["n", { fields: ["owner"], kind: "hash" }] })

const layer = TopGunServer.layerInProcess({ grid: [Todos] })

export const open = (id: number, query: unknown, map = "todos"): typeof Protocol.QueryOpen.Type => ({
  _tag: "QueryOpen",
  id,
  map,
  query: Value.encode(query)
})

/** What a client knows of a query by what it was told. */
export const following = (client: PlainClient, query: number) => {
  const rows = new Map<string, unknown>()
  let version = 0
  /** Takes the next version. */
  const next = Effect.gen(function*() {
    while (true) {
      const told = yield* client.take("QueryRows")
      assert.strictEqual(told.query, query)
      if (told.after === 0) rows.clear()
      else assert.strictEqual(told.after, version)
      for (const key of told.left) rows.delete(key)
      for (const [key, row] of told.records) rows.set(key, Value.decode(LwwRecord.fromTrusted(row).valueBytes))
      if (!told.isLast) continue
      version = told.version
      return { rows, hasMore: told.hasMore }
    }
  })
  return { rows, next }
}

export const ask = (client: PlainClient, id: number, query: unknown) =>
  Effect.gen(function*() {
    yield* client.send(open(id, query))
    const ack = yield* client.take("QueryAck")
    assert.strictEqual(ack.id, id)
    return { ...following(client, ack.query), number: ack.query }
  })

describe("Queries", () => {
  it.effect("a live query is told of what comes, changes and goes, and of nothing else", () =>
    Effect.gen(function*() {
      const writer = yield* inProcessReady
      const reader = yield* inProcessReady
      yield* writer.send(
        batch("todos", "APPLIED", 0, [["a", put({ n: 1 })], ["b", put({ n: 5 })], ["c", put({ n: 3 })]])
      )
      yield* writer.take("OpAck")
      const query = yield* ask(reader, 1, { where: { n: { gt: 2 } }, orderBy: [{ field: "n" }], limit: 2 })
      assert.deepStrictEqual(yield* query.next, { rows: new Map([["c", { n: 3 }], ["b", { n: 5 }]]), hasMore: false })
      yield* writer.send(batch("todos", "APPLIED", 3, [["a", put({ n: 1, x: 1 }, 2_000)], ["d", put({ n: 4 })]]))
      const second = yield* query.next
      assert.deepStrictEqual(second, { rows: new Map([["c", { n: 3 }], ["d", { n: 4 }]]), hasMore: true })
      yield* writer.send(batch("todos", "APPLIED", 5, [["c", removal(3_000)]]))
      assert.deepStrictEqual(yield* query.next, { rows: new Map([["d", { n: 4 }], ["b", { n: 5 }]]), hasMore: false })
      yield* writer.send(batch("todos", "APPLIED", 6, [["d", put({ n: 4, x: 1 }, 4_000)]]))
      assert.deepStrictEqual((yield* query.next).rows.get("d"), { n: 4, x: 1 })
      yield* reader.send({ _tag: "QueryClose", id: 1 })
      yield* writer.send(batch("todos", "APPLIED", 7, [["d", removal(5_000)]]))
      yield* writer.take("OpAck")
      assert.strictEqual(reader.untaken("QueryRows"), 0)
    }).pipe(Effect.provide(layer)))
})
