import { assert, describe, expect, it, vi } from "@effect/vitest"
import * as Grid from "@topgun/core/Grid"
import * as LiveQueries from "@topgun/core/LiveQueries"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as Protocol from "@topgun/core/Protocol"
import * as Query from "@topgun/core/Query"
import { makeDrain, makePair } from "@topgun/core/Transport"
import * as Value from "@topgun/core/Value"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as TestClock from "effect/TestClock"
import {
  auth,
  authAnew,
  batch,
  inProcessReady,
  make,
  openMap,
  type PlainClient,
  put,
  removal,
  settled,
  totals
} from "./PlainClient.ts"
import { temporaryDir } from "./stores.ts"

const Todos = Grid.map("todos", undefined, { indexes: ["n", { fields: ["owner"], kind: "hash" }] })

const layer = TopGunServer.layerInProcess({ grid: [Todos] })

const open = (id: number, query: unknown, map = "todos"): typeof Protocol.QueryOpen.Type => ({
  _tag: "QueryOpen",
  id,
  map,
  query: Value.encode(query)
})

const valueOf = (row: Uint8Array): unknown => Value.decode(LwwRecord.fromTrusted(row).valueBytes)

/** What a client knows of a query by what it was told. */
const following = (client: PlainClient, query: number) => {
  const rows = new Map<string, unknown>()
  let version = 0
  let pages = 0
  /** Takes the next version. */
  const next = Effect.gen(function*() {
    for (let isFirst = true;; isFirst = false) {
      const told = yield* client.take("QueryRows")
      assert.strictEqual(told.query, query)
      if (told.after !== 0) assert.strictEqual(told.after, version)
      else if (isFirst) rows.clear()
      for (const key of told.left) rows.delete(key)
      for (const [key, row] of told.records) rows.set(key, valueOf(row))
      pages++
      if (!told.isLast) continue
      version = told.version
      return { rows, hasMore: told.hasMore }
    }
  })
  return { rows, next, pages: () => pages }
}

const ask = (client: PlainClient, id: number, query: unknown, map = "todos") =>
  Effect.gen(function*() {
    yield* client.send(open(id, query, map))
    const ack = yield* client.take("QueryAck")
    assert.strictEqual(ack.id, id)
    return { ...following(client, ack.query), number: ack.query }
  })

let sequence = 0
const write = (client: PlainClient, entries: ReadonlyArray<readonly [string, Uint8Array]>, map = "todos") =>
  Effect.gen(function*() {
    // As many as fit into a frame.
    const count = Math.min(500, Math.floor(500_000 / (entries[0]?.[1].length ?? 1)))
    for (let at = 0; at < entries.length; at += count) {
      const part = entries.slice(at, at + count)
      yield* client.send(batch(map, "APPLIED", sequence, part))
      sequence += part.length
      for (let taken = 0; taken < part.length;) taken += (yield* client.take("OpAck")).sequences.length
    }
  })

const many = (count: number, valueFor: (i: number) => unknown = (i) => ({ n: i })) =>
  Array.from({ length: count }, (_, i) => [`k${i}`, put(valueFor(i))] as const)

const refusal = (client: PlainClient, asked: Protocol.ClientMessage) =>
  Effect.gen(function*() {
    yield* client.send(asked)
    const { cause, id, reason } = yield* client.take("Fault")
    return { cause, id, reason }
  })

/** Lets others have as many turns. */
const turns = (count: number) => Effect.repeatN(settled, count - 1)

describe("A live query", () => {
  it.effect("is told of what comes, changes and goes, and of nothing else", () =>
    Effect.gen(function*() {
      const writer = yield* inProcessReady
      const reader = yield* inProcessReady
      yield* write(writer, [["a", put({ n: 1 })], ["b", put({ n: 5 })], ["c", put({ n: 3 })]])
      const query = yield* ask(reader, 1, { where: { n: { gt: 2 } }, orderBy: [{ field: "n" }], limit: 2 })
      assert.deepStrictEqual(yield* query.next, { rows: new Map([["c", { n: 3 }], ["b", { n: 5 }]]), hasMore: false })
      yield* write(writer, [["a", put({ n: 1, x: 1 }, 2_000)], ["d", put({ n: 4 })]])
      const second = yield* query.next
      assert.deepStrictEqual(second, { rows: new Map([["c", { n: 3 }], ["d", { n: 4 }]]), hasMore: true })
      yield* write(writer, [["c", removal(3_000)]])
      assert.deepStrictEqual(yield* query.next, { rows: new Map([["d", { n: 4 }], ["b", { n: 5 }]]), hasMore: false })
      yield* write(writer, [["d", put({ n: 4, x: 1 }, 4_000)]])
      assert.deepStrictEqual((yield* query.next).rows.get("d"), { n: 4, x: 1 })
      yield* reader.send({ _tag: "QueryClose", id: 1 })
      yield* write(writer, [["d", removal(5_000)]])
      yield* settled
      assert.strictEqual(reader.untaken("QueryRows"), 0)
    }).pipe(Effect.provide(layer)))

  it.effect("that a hundred ask is evaluated and encoded once, and is let go of with the last of them", () =>
    Effect.gen(function*() {
      const asks = vi.spyOn(LiveQueries, "identityOf")
      const made = vi.spyOn(LiveQueries.LiveQueries.prototype, "hold")
      const encoded = vi.spyOn(Protocol, "encode")
      const rowsEncoded = () => encoded.mock.calls.filter(([{ _tag }]) => _tag === "QueryRows").length
      const writer = yield* inProcessReady
      yield* write(writer, many(50, (i) => ({ owner: "x", n: i })))
      const readers = yield* Effect.all(Array.from({ length: 100 }, () => inProcessReady))
      const queries = yield* Effect.forEach(readers, (reader) => ask(reader, 1, { where: { owner: "x" } }))
      for (const query of queries) assert.strictEqual((yield* query.next).rows.size, 50)
      assert.strictEqual(new Set(queries.map(({ number }) => number)).size, 1)
      // Held once for each row, however many ask.
      assert.strictEqual(made.mock.calls.length, 50)
      assert.strictEqual(rowsEncoded(), 1)
      yield* write(writer, [["new", put({ owner: "x" })]])
      for (const query of queries) assert.strictEqual((yield* query.next).rows.size, 51)
      assert.strictEqual(rowsEncoded(), 2)
      assert.isAbove(asks.mock.calls.length, 0)
      const { metrics } = yield* TopGunServer.TopGunServer
      const live = Effect.map(
        metrics,
        (pairs) =>
          pairs.flatMap(({ metricKey, metricState }) =>
            metricKey.name === "topgun_live_queries"
              ? [(metricState as unknown as { readonly value: number }).value]
              : []
          )
      )
      assert.deepStrictEqual(yield* live, [1])
      for (const reader of readers.slice(1)) yield* reader.send({ _tag: "QueryClose", id: 1 })
      yield* settled
      assert.deepStrictEqual(yield* live, [1])
      readers[0]!.connection.close(1000, "")
      yield* settled
      assert.deepStrictEqual(yield* live, [0])
    }).pipe(Effect.ensuring(Effect.sync(() => vi.restoreAllMocks())), Effect.provide(layer)))

  it.effect("is kept encoded for who asks it next, with as many others as there is room for", () =>
    Effect.gen(function*() {
      const writer = yield* inProcessReady
      yield* write(writer, many(4, (n) => ({ n, text: "x".repeat(200_000) })))
      const encoded = vi.spyOn(Protocol, "encode")
      const pages = () => encoded.mock.calls.filter(([{ _tag }]) => _tag === "QueryRows").length
      const [first, second] = [yield* inProcessReady, yield* inProcessReady]
      const askAs = (client: PlainClient, i: number) =>
        Effect.gen(function*() {
          const before = pages()
          yield* (yield* ask(client, i, { limit: 10 + i })).next
          return pages() - before
        })
      // 16 MiB have room for twenty of these.
      for (let i = 0; i < 25; i++) assert.strictEqual(yield* askAs(first, i), 4)
      assert.strictEqual(yield* askAs(second, 24), 0)
      assert.strictEqual(yield* askAs(second, 0), 4)
      yield* write(writer, [["k0", put({ n: 0 }, 2_000)]])
      yield* turns(3)
      assert.strictEqual(yield* askAs(yield* inProcessReady, 0), 3)
    }).pipe(Effect.ensuring(Effect.sync(() => vi.restoreAllMocks())), Effect.provide(layer)))

  it.effect("begins with what its asker has written before, though others were told of it earlier", () =>
    Effect.gen(function*() {
      const writer = yield* inProcessReady
      const other = yield* inProcessReady
      const known = yield* ask(other, 1, {})
      yield* known.next
      yield* writer.send(batch("todos", "APPLIED", sequence++, [["a", put(1)]]), open(1, {}))
      const { query } = yield* writer.take("QueryAck")
      assert.deepStrictEqual((yield* following(writer, query).next).rows, new Map([["a", 1]]))
      assert.deepStrictEqual((yield* known.next).rows, new Map([["a", 1]]))
    }).pipe(Effect.provide(layer)))

  it.effect("goes to who asks it under two ids until both are closed", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const first = yield* ask(client, 1, {})
      yield* first.next
      const second = yield* ask(client, 2, {})
      assert.strictEqual(second.number, first.number)
      yield* second.next
      yield* client.send({ _tag: "QueryClose", id: 1 })
      yield* write(client, [["a", put(1)]])
      assert.strictEqual((yield* second.next).rows.size, 1)
      yield* client.send({ _tag: "QueryClose", id: 2 })
      yield* write(client, [["b", put(1)]])
      yield* settled
      assert.strictEqual(client.untaken("QueryRows"), 0)
    }).pipe(Effect.provide(layer)))

  it.effect("takes the place of another of the same id", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* write(client, [["a", put({ n: 1 })], ["b", put({ n: 2 })]])
      yield* (yield* ask(client, 1, { where: { n: 1 } })).next
      const second = yield* ask(client, 1, { where: { n: 2 } })
      assert.deepStrictEqual(Array.from((yield* second.next).rows.keys()), ["b"])
      yield* write(client, [["a", put({ n: 1, x: 1 }, 2_000)]])
      yield* settled
      assert.strictEqual(client.untaken("QueryRows"), 0)
      // One that is none takes it all the same.
      assert.strictEqual((yield* refusal(client, open(1, { limit: 0 }))).cause, "QueryInvalid")
      yield* write(client, [["b", put({ n: 2, x: 1 }, 2_000)]])
      yield* settled
      assert.strictEqual(client.untaken("QueryRows"), 0)
    }).pipe(Effect.provide(layer)))

  it.effect("loses what expires, and doesn't begin with what has", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const stamp = { millis: 0, counter: 0, nodeId: auth.nodeId }
      yield* write(client, [["a", LwwRecord.put(stamp, Value.encode({ n: 1 }), 500).row]])
      const query = yield* ask(client, 1, { where: { n: 1 } })
      assert.strictEqual((yield* query.next).rows.size, 1)
      yield* TestClock.adjust(500)
      assert.strictEqual((yield* query.next).rows.size, 0)
      yield* TestClock.setTime(0)
      yield* write(client, [["b", LwwRecord.put(stamp, Value.encode({ n: 2 }), 100).row]])
      // Its sweep isn't due yet: others are gathered for a second.
      yield* TestClock.setTime(200)
      assert.strictEqual((yield* (yield* ask(client, 2, { where: { n: 2 } })).next).rows.size, 0)
    }).pipe(Effect.provide(layer)))

  it.effect("with select is told of changes in the fields that it has, or speaks of, and of no others", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* write(client, [["a", put({ n: 1, text: "x", other: 1 })]])
      const query = yield* ask(client, 1, { select: ["text"], where: { n: 1 } })
      assert.deepStrictEqual((yield* query.next).rows, new Map([["a", { n: 1, text: "x" }]]))
      yield* write(client, [["a", put({ n: 1, text: "x", other: 2 }, 2_000)]])
      yield* settled
      assert.strictEqual(client.untaken("QueryRows"), 0)
      yield* write(client, [["a", put({ n: 1, text: "y", other: 2 }, 3_000)]])
      assert.deepStrictEqual((yield* query.next).rows, new Map([["a", { n: 1, text: "y" }]]))
    }).pipe(Effect.provide(layer)))

  it.effect("of many rows comes in pages that fit into frames", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* write(client, many(40, (i) => ({ n: i, text: "x".repeat(50_000) })))
      const query = yield* ask(client, 1, {})
      assert.strictEqual((yield* query.next).rows.size, 40)
      assert.isAtLeast(query.pages(), 8)
      yield* write(client, Array.from({ length: 40 }, (_, i) => [`k${i}`, removal(2_000)] as const))
      assert.strictEqual((yield* query.next).rows.size, 0)
    }).pipe(Effect.provide(layer)))
})

describe("Of a map", () => {
  it.effect("that isn't there yet a query finds nothing, until there is something", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const query = yield* ask(client, 1, { where: { n: 1 } }, "new")
      assert.deepStrictEqual(yield* query.next, { rows: new Map(), hasMore: false })
      yield* write(client, [["a", put({ n: 1 })]], "new")
      assert.strictEqual((yield* query.next).rows.size, 1)
    }).pipe(Effect.provide(layer)))

  it.effect("that becomes one of sets or a counter the queries end, and others are refused", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      for (const [kind, row] of [["or", put(1)], ["counter", totals(1)]] as const) {
        yield* (yield* ask(client, 1, {}, kind)).next
        yield* client.send(batch(kind, "APPLIED", sequence++, [[kind, row]], { kind }))
        const ended = yield* client.take("Fault")
        assert.deepStrictEqual([ended.id, ended.cause], [1, "MapKindMismatch"])
        assert.strictEqual((yield* refusal(client, open(2, {}, kind))).cause, "MapKindMismatch")
      }
    }).pipe(Effect.provide(layer)))

  it.effect("that is declared with indexes and is one of sets nothing is indexed, and all else is served", () =>
    Effect.gen(function*() {
      const dir = yield* temporaryDir
      const server = () => TopGunServer.layerInProcess({ grid: [Todos], storage: "sqlite", dataDir: dir })
      yield* Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* client.send(batch("todos", "PERSISTED", sequence++, [["a", put(1)]], { kind: "or" }))
        yield* client.take("OpAck")
      }).pipe(Effect.provide(server()))
      yield* Effect.gen(function*() {
        const client = yield* inProcessReady
        assert.strictEqual((yield* refusal(client, open(1, {}))).cause, "MapKindMismatch")
        yield* client.send(openMap("todos", 1, "or"))
        yield* client.take("SyncRoot")
      }).pipe(Effect.provide(server()))
    }).pipe(Effect.scoped))
})

describe("What a query may cost", () => {
  it.effect("is so many queries of one connection: one more is refused, and one less makes room", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      for (const id of [1, 2]) yield* (yield* ask(client, id, { where: { n: id } })).next
      assert.deepInclude(yield* refusal(client, open(3, {})), { id: 3, cause: "Overloaded" })
      yield* client.send({ _tag: "QueryClose", id: 1 })
      yield* ask(client, 3, {})
      // Others have as many.
      yield* ask(yield* inProcessReady, 1, {})
    }).pipe(Effect.provide(TopGunServer.layerInProcess({ queriesMax: 2 }))))

  it.effect("is so many rows: without a limit there are no more, and a greater limit is refused", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* write(client, many(5))
      const query = yield* ask(client, 1, { orderBy: [{ field: "n" }] })
      assert.deepStrictEqual(yield* query.next, {
        rows: new Map([["k0", { n: 0 }], ["k1", { n: 1 }], ["k2", { n: 2 }]]),
        hasMore: true
      })
      yield* ask(client, 2, { limit: 3 })
      const refused = yield* refusal(client, open(3, { limit: 4 }))
      assert.deepInclude(refused, { id: 3, cause: "QueryTooExpensive" })
      assert.include(refused.reason, "$.limit")
    }).pipe(Effect.provide(TopGunServer.layerInProcess({ queryRowsMax: 3 }))))

  it.effect("is so many bytes of all its rows: one that gets more is ended, for all who ask it, and no other", () =>
    Effect.gen(function*() {
      const writer = yield* inProcessReady
      const readers = [yield* inProcessReady, yield* inProcessReady]
      const large = { n: 1, text: "x".repeat(100_000) }
      for (const reader of readers) {
        yield* (yield* ask(reader, 1, { where: { n: 1 } })).next
        yield* (yield* ask(reader, 2, { where: { n: 1 }, select: ["n"] })).next
      }
      // One by one: no version has more.
      for (const key of ["a", "b", "c"]) yield* write(writer, [[key, put(large)]])
      yield* settled
      for (const reader of readers) {
        const ended = yield* reader.take("Fault")
        assert.deepStrictEqual([ended.id, ended.cause], [1, "QueryTooExpensive"])
        while (reader.untaken("QueryRows") > 0) yield* reader.take("QueryRows")
      }
      assert.strictEqual((yield* refusal(readers[0]!, open(3, { where: { n: 1 } }))).cause, "QueryTooExpensive")
      yield* readers[0]!.take("QueryAck")
      yield* write(writer, [["d", put({ n: 1 })]])
      yield* settled
      for (const reader of readers) assert.strictEqual((yield* reader.take("QueryRows")).records.length, 1)
      // What has gone doesn't count.
      yield* write(writer, ["a", "b"].map((key) => [key, removal(2_000)] as const))
      yield* settled
      while (readers[0]!.untaken("QueryRows") > 0) yield* readers[0]!.take("QueryRows")
      assert.strictEqual((yield* (yield* ask(readers[0]!, 4, { where: { n: 1 } })).next).rows.size, 2)
    }).pipe(Effect.provide(TopGunServer.layerInProcess({ queryBytesMax: 256 * 1024 }))))

  it.effect("is so much time, by the records that it would look at: an index makes it pass", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* write(client, many(5_000, (i) => ({ owner: `u${i}`, text: "x" })))
      const refused = yield* refusal(client, open(1, { where: { text: "y" } }))
      assert.deepInclude(refused, { id: 1, cause: "QueryTooExpensive" })
      assert.include(refused.reason, "look at 5000 records")
      assert.strictEqual((yield* (yield* ask(client, 1, { where: { owner: "u7" } })).next).rows.size, 1)
    }).pipe(Effect.provide(TopGunServer.layerInProcess({ grid: [Todos], queryMillisMax: 1 }))))

  it.effect("is so much of each write, for those of a connection that any record concerns", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const dear = (i: number) => ({
        and: Array.from({ length: 400 }, (_, j) => ({ text: { contains: `${"x".repeat(40)}${i} ${j}` } }))
      })
      yield* (yield* ask(client, 1, { where: { owner: "u", ...dear(1) } })).next
      const refused = yield* refusal(client, open(2, { where: dear(2) }))
      assert.deepInclude(refused, { id: 2, cause: "QueryTooExpensive" })
      assert.include(refused.reason, "every write")
      yield* (yield* ask(client, 3, { where: { text: { contains: "x" } } })).next
    }).pipe(Effect.provide(layer)))

  it.effect("isn't held on to when it was asked in vain", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const made = vi.spyOn(LiveQueries.LiveQueries.prototype, "set")
      for (const query of [{ search: "x" }, { where: { a: { regex: "(" } } }]) {
        assert.strictEqual((yield* refusal(client, open(1, query, "vain"))).cause, "QueryInvalid")
      }
      yield* write(client, [["a", put(1)]], "vain")
      assert.strictEqual(made.mock.calls.length, 0)
    }).pipe(Effect.ensuring(Effect.sync(() => vi.restoreAllMocks())), Effect.provide(layer)))
})

describe("A query that is none", () => {
  const faults: ReadonlyArray<readonly [string, unknown, string]> = [
    ["no object", 7, "$"],
    ["a limit of -1", { limit: -1 }, "$.limit"],
    ["a limit of half a row", { limit: 0.5 }, "$.limit"],
    ["a limit of 2^53", { limit: 2 ** 53 }, "$.limit"],
    ["a limit that is text", { limit: "1" }, "$.limit"],
    ["a field that there isn't", { wehre: {} }, "$.wehre"],
    ["a field named __proto__", JSON.parse("{\"__proto__\":{}}"), "$.__proto__"],
    ["an order that is none", { orderBy: [{ field: "n", direction: "up" }] }, "$.orderBy[0].direction"],
    ["nine fields to order by", { orderBy: Array.from({ length: 9 }, (_, i) => ({ field: `f${i}` })) }, "$.orderBy"],
    ["a pattern that is a number", { where: { a: { regex: 123 } } }, "$.where.a"],
    ["a pattern that is none", { where: { or: [{ b: 1 }, { a: { regex: "(" } }] } }, "$.where.or[1].a"],
    ["a pattern that looks back", { where: { a: { regex: "(a)\\1" } } }, "$.where.a"],
    ["a list that is too long", { where: { a: { in: Array.from({ length: 1_001 }, (_, i) => i) } } }, "$.where.a"],
    [
      "more conditions than there may be",
      { where: { and: Array.from({ length: 1_001 }, (_, i) => ({ a: i })) } },
      "$.where"
    ],
    ["a principal's attribute", { where: { a: { principal: "userId" } } }, "$.where"],
    ["a cursor that is none", { cursor: "x" }, "$.cursor"]
  ]
  for (const [name, query, at] of faults) {
    it.effect(`but ${name}, is refused at ${at}, and the connection goes on`, () =>
      Effect.gen(function*() {
        const client = yield* inProcessReady
        const refused = yield* refusal(client, open(5, query))
        assert.deepInclude(refused, { id: 5, cause: "QueryInvalid" })
        assert.include(refused.reason, at)
        yield* (yield* ask(client, 6, {})).next
      }).pipe(Effect.provide(layer)))
  }

  it.effect("as its pattern is dear, is refused as such", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const refused = yield* refusal(client, open(1, { where: { a: { regex: "((a{100}){100}){100}" } } }))
      assert.strictEqual(refused.cause, "QueryTooExpensive")
    }).pipe(Effect.provide(layer)))

  it.effect("as it goes deeper than any value, or is no value at all, ends the connection with 1007", () =>
    Effect.gen(function*() {
      const deep = Uint8Array.from({ length: 100_001 }, (_, i) => i < 100_000 ? 0x91 : 0xc0)
      for (const query of [new Uint8Array(0), Uint8Array.of(0xc1), Uint8Array.of(0x80, 0x80), deep]) {
        const client = yield* inProcessReady
        yield* client.send({ _tag: "QueryOpen", id: 1, map: "todos", query })
        assert.strictEqual((yield* client.closed).code, Protocol.closeCodes.malformed)
      }
    }).pipe(Effect.provide(layer)))

  it.effect("as its cursor was cut or changed anywhere, or is another's, is refused; the true one is answered", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* write(client, many(5))
      const query = Query.parse({ orderBy: [{ field: "n" }], limit: 2 })
      const cursor = Query.cursorOf(query, { key: "k1", sort: 1 })
      const next = yield* ask(client, 1, { ...query, cursor })
      assert.deepStrictEqual(Array.from((yield* next.next).rows.keys()).sort(), ["k2", "k3"])
      for (let at = 0; at < cursor.length; at++) {
        const other = cursor[at] === "A" ? "B" : "A"
        for (const wrong of [cursor.slice(0, at), `${cursor.slice(0, at)}${other}${cursor.slice(at + 1)}`]) {
          const isSame = Buffer.from(wrong, "base64url").equals(Buffer.from(cursor, "base64url"))
          if (isSame) continue
          assert.strictEqual((yield* refusal(client, open(2, { ...query, cursor: wrong }))).cause, "QueryInvalid")
        }
      }
      assert.strictEqual((yield* refusal(client, open(2, { orderBy: [{ field: "x" }], cursor }))).cause, "QueryInvalid")
    }).pipe(Effect.provide(layer)))

  it.effect("ten thousand times keeps nobody from being served", () =>
    Effect.gen(function*() {
      const mallory = yield* inProcessReady
      const other = yield* inProcessReady
      const query = yield* ask(other, 1, {})
      yield* query.next
      for (let at = 0; at < 10_000; at += 1_000) {
        yield* mallory.send(...Array.from({ length: 1_000 }, (_, i) => open(at + i, { where: { n: at + i } })))
      }
      yield* other.send({ _tag: "Ping", id: 1 })
      yield* turns(2)
      assert.strictEqual(other.untaken("Pong"), 1)
      // Not all of it was done before.
      assert.isBelow(mallory.untaken("Fault"), 9_000)
      while (mallory.untaken("Fault") < 9_900) yield* settled
      assert.strictEqual(mallory.untaken("QueryAck"), 100)
      yield* write(other, [["a", put({ n: 1 })]])
      assert.strictEqual((yield* query.next).rows.size, 1)
    }).pipe(Effect.provide(layer)))
})

describe("Many large queries, and many with patterns,", () => {
  const large = (i: number) => ({
    where: { owner: `u${i}`, or: Array.from({ length: 900 }, (_, j) => ({ [`field${j}`]: i })) }
  })
  const patterned = (i: number) => ({ where: { owner: `u${i}`, text: { regex: `^${i}\\p{L}{2,9}` } } })
  for (const [name, query] of [["large", large], ["patterned", patterned]] as const) {
    it.effect(`are taken in some at a time: ${name} ones`, () =>
      Effect.gen(function*() {
        const mallory = yield* inProcessReady
        const other = yield* inProcessReady
        yield* mallory.send(...Array.from({ length: 50 }, (_, i) => open(i, query(i))))
        yield* other.send({ _tag: "Ping", id: 1 })
        yield* turns(2)
        assert.strictEqual(other.untaken("Pong"), 1)
        assert.isBelow(mallory.untaken("QueryAck"), 5)
        while (mallory.untaken("QueryAck") < 50) yield* settled
      }).pipe(Effect.provide(layer)))
  }
})

// --- Who reads late ---

/** A connection whose server's end believes that nothing leaves while it is deaf. */
const deafConnection = () => {
  const [mine, theirs] = makePair()
  let buffered = 0
  let isDeaf = false
  const drain = makeDrain(() => buffered)
  return {
    mine,
    served: {
      ...theirs,
      send: (frame: Uint8Array) => {
        if (isDeaf) buffered += frame.length
        theirs.send(frame)
      },
      bufferedBytes: () => buffered,
      whenDrained: drain.whenDrained
    },
    buffered: () => buffered,
    deafen: () => {
      isDeaf = true
    },
    listen: () => {
      isDeaf = false
      buffered = 0
      drain.left()
    }
  }
}

describe("Who doesn't read what he has asked", () => {
  it.effect("is told no more than there is room for, and then all rows anew", () =>
    Effect.gen(function*() {
      const { accept } = yield* TopGunServer.TopGunServer
      const deaf = deafConnection()
      accept(deaf.served)
      const reader = make(deaf.mine)
      yield* reader.send(authAnew())
      yield* reader.take("AuthAck")
      const writer = yield* inProcessReady
      const query = yield* ask(reader, 1, {})
      yield* query.next
      deaf.deafen()
      const text = "x".repeat(40_000)
      for (let round = 0; round < 100; round++) {
        yield* write(writer, [[`k${round % 20}`, put({ round, text }, 2_000 + round)]])
        yield* settled
      }
      // A quarter of `outboundBytesMax`, and a version beyond it.
      assert.isAbove(deaf.buffered(), 0)
      assert.isBelow(deaf.buffered(), 512 * 1024)
      deaf.listen()
      yield* turns(3)
      while (reader.untaken("QueryRows") > 0) yield* query.next
      assert.deepStrictEqual(
        Array.from(query.rows.values(), (value) => (value as { readonly round: number }).round).sort((a, b) => a - b),
        Array.from({ length: 20 }, (_, i) => 80 + i)
      )
      yield* write(writer, [["new", put({ n: 1 })]])
      assert.strictEqual((yield* query.next).rows.size, 21)
    }).pipe(Effect.provide(layer)))

  it.effect("while all rows are on their way gets what changes after them, or all anew, and nothing twice or never", () =>
    Effect.gen(function*() {
      const { accept } = yield* TopGunServer.TopGunServer
      const text = "x".repeat(40_000)
      const writer = yield* inProcessReady
      yield* write(writer, many(40, (n) => ({ n, text })))
      for (const changes of [2, 30]) {
        const deaf = deafConnection()
        accept(deaf.served)
        const reader = make(deaf.mine)
        yield* reader.send(authAnew())
        yield* reader.take("AuthAck")
        deaf.deafen()
        yield* reader.send(open(1, {}))
        yield* turns(3)
        const { query: number } = yield* reader.take("QueryAck")
        assert.isBelow(deaf.buffered(), 1024 * 1024)
        for (let i = 0; i < changes; i++) {
          yield* write(writer, [[`k${i}`, put({ n: i, text, changes }, 5_000 + changes)]])
          yield* settled
        }
        deaf.listen()
        yield* turns(4)
        const rows = new Map<string, unknown>()
        let last: { readonly version: number; readonly after: number } = { version: 0, after: 0 }
        while (reader.untaken("QueryRows") > 0) {
          const told = yield* reader.take("QueryRows")
          assert.strictEqual(told.query, number)
          if (told.after === 0 && told.version !== last.version) rows.clear()
          for (const [key, row] of told.records) rows.set(key, valueOf(row))
          last = told
        }
        assert.strictEqual(rows.size, 40)
        for (let i = 0; i < changes; i++) assert.deepInclude(rows.get(`k${i}`), { changes })
      }
    }).pipe(Effect.provide(layer)))

  it.effect("for too long is cut off", () =>
    Effect.gen(function*() {
      const { accept, status } = yield* TopGunServer.TopGunServer
      const deaf = deafConnection()
      accept(deaf.served)
      const reader = make(deaf.mine)
      const writer = yield* inProcessReady
      yield* write(writer, many(40, (n) => ({ n, text: "x".repeat(40_000) })))
      yield* reader.send(authAnew())
      yield* reader.take("AuthAck")
      deaf.deafen()
      yield* reader.send(open(1, {}))
      yield* turns(3)
      yield* TestClock.adjust(4_999)
      assert.strictEqual((yield* status).connections, 2)
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* reader.closed).code, Protocol.closeCodes.overloaded)
    }).pipe(Effect.provide(TopGunServer.layerInProcess({ drainMillisMax: 5_000 }))))
})

// --- Turns ---

describe("A query over many records", () => {
  const records = 20_000
  /** Counts the records that are looked at. */
  const looks = () => {
    const { partDecoder } = Value
    let seen = 0
    vi.spyOn(Value, "partDecoder").mockImplementation((fields) => {
      const decode = partDecoder(fields)
      return (bytes) => {
        seen++
        return decode(bytes)
      }
    })
    return () => seen
  }

  it.effect("leaves others their turn, and stops when nobody asks it any more", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const other = yield* inProcessReady
      yield* write(client, many(records))
      const looked = looks()
      yield* client.send(open(1, { where: { n: -1 } }), open(2, { where: { n: -2 } }, "todos"))
      yield* other.send({ _tag: "Ping", id: 1 })
      yield* turns(3)
      assert.strictEqual(other.untaken("Pong"), 1)
      assert.isAbove(looked(), 0)
      assert.isBelow(looked(), records / 2)
      yield* client.send({ _tag: "QueryClose", id: 1 }, { _tag: "QueryClose", id: 2 })
      yield* turns(2)
      const until = looked()
      yield* turns(10)
      assert.strictEqual(looked(), until)
      assert.strictEqual(client.untaken("QueryRows"), 0)
    }).pipe(Effect.ensuring(Effect.sync(() => vi.restoreAllMocks())), Effect.provide(TopGunServer.layerInProcess())))

  it.effect("that many ask in many ways is told some at a time when one write concerns all of them", () =>
    Effect.gen(function*() {
      const writer = yield* inProcessReady
      const readers = yield* Effect.all(Array.from({ length: 10 }, () => inProcessReady))
      const told = () => readers.reduce((sum, reader) => sum + reader.untaken("QueryRows"), 0)
      for (const [at, reader] of readers.entries()) {
        yield* reader.send(
          ...Array.from({ length: 100 }, (_, i) => open(i, { where: { n: { gt: -1 - at * 100 - i } } }))
        )
      }
      while (told() < 1_000) yield* settled
      yield* writer.send(batch("todos", "APPLIED", sequence++, [["a", put({ n: 1 })]]))
      yield* turns(3)
      assert.isAbove(told(), 1_000)
      assert.isBelow(told(), 1_900)
      while (told() < 2_000) yield* settled
    }).pipe(Effect.provide(layer)))

  it.effect("shares the turn with those over other maps", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const maps = ["a", "b", "c", "d", "e", "f", "g", "h"]
      for (const map of maps) yield* write(client, many(4_000), map)
      const looked = looks()
      yield* client.send(...maps.map((map, id) => open(id, { where: { n: -1 } }, map)))
      let before = 0
      let most = 0
      while (client.untaken("QueryRows") < maps.length) {
        yield* settled
        most = Math.max(most, looked() - before)
        before = looked()
      }
      assert.strictEqual(before, 4_000 * maps.length)
      // A quarter of what it takes to make values of them.
      assert.isBelow(most, 6_000)
    }).pipe(Effect.ensuring(Effect.sync(() => vi.restoreAllMocks())), Effect.provide(TopGunServer.layerInProcess())))
})

// --- A fault of ours ---

describe("A fault in judging a record", () => {
  it.effect("ends the queries of its map and takes its indexes, and the write is saved and told", () => {
    const lines: Array<unknown> = []
    return Effect.gen(function*() {
      const writer = yield* inProcessReady
      const reader = yield* inProcessReady
      const follower = yield* inProcessReady
      const bystander = yield* inProcessReady
      yield* follower.send(openMap("todos"))
      yield* follower.take("SyncRoot")
      yield* (yield* ask(reader, 1, {})).next
      const other = yield* ask(bystander, 1, {}, "other")
      yield* other.next
      vi.spyOn(LiveQueries.LiveQueries.prototype, "set").mockImplementationOnce(() => {
        throw new Error("a fault of ours")
      })
      yield* write(writer, [["a", put({ n: 1 })]])
      expect((yield* follower.take("ServerEvent")).records).toHaveLength(1)
      assert.strictEqual((yield* reader.closed).code, 1011)
      assert.isAbove(lines.length, 0)
      yield* write(writer, [["b", put({ n: 1 })]], "other")
      assert.strictEqual((yield* other.next).rows.size, 1)
      assert.strictEqual((yield* (yield* ask(bystander, 2, { where: { n: 1 } })).next).rows.size, 1)
    }).pipe(
      Effect.ensuring(Effect.sync(() => vi.restoreAllMocks())),
      Effect.provide(layer),
      Effect.provide(Logger.replace(Logger.defaultLogger, Logger.make(({ message }) => void lines.push(message))))
    )
  })
})
