/** The order of rows in memory is that of the databases, whose guarded upserts are merges: asked of real ones. */
import { assert, describe, it } from "@effect/vitest"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as PnCounter from "@topgun/core/PnCounter"
import * as Timestamp from "@topgun/core/Timestamp"
import { encode } from "@topgun/core/Value"
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { Effect, FastCheck as fc } from "effect"
import * as Pg from "pg"
import { useCluster } from "./stores.ts"

const cases = 10_000

const nodeId = fc.constantFrom("0000000000000000", "aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaab", "zzzzzzzzzzzzzzzz")
const stamp: fc.Arbitrary<Timestamp.Timestamp> = fc.record({
  millis: fc.constantFrom(0, 1, 255, 256, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 47, 2 ** 48 - 1),
  counter: fc.constantFrom(0, 1, 255, 256, 65_535),
  nodeId
})
const value = fc.constantFrom(
  null,
  0,
  1,
  -1,
  0.5,
  "",
  "a",
  "ab",
  "\0",
  "é",
  "\uffff",
  "😀",
  false,
  [],
  [0],
  { a: 1 },
  2n ** 63n
)
const record = fc.oneof(
  fc.record({ stamp, value, expiresAt: fc.constantFrom(0, 0, 1, 2 ** 40) }).map((put) =>
    LwwRecord.put(put.stamp, encode(put.value), put.expiresAt)
  ),
  stamp.map(LwwRecord.remove)
)
const counterRow = fc.record({ nodeId, up: fc.constantFrom(0, 1, 255, 256, 2 ** 53 - 1), down: fc.nat(2) })
  .map((row) => PnCounter.totals(row.nodeId, row.up, row.down))

const sampleOf = <A>(arbitrary: fc.Arbitrary<A>) => fc.sample(arbitrary, { numRuns: cases, seed: 271 })

const hex = (row: Uint8Array): string => Buffer.from(row).toString("hex")

type Item = Uint8Array | string

/** What a database makes of items in a column: their order, and the greatest of each key by a guarded upsert. */
type Sorting = (type: "bytes" | "text", items: ReadonlyArray<readonly [key: number, item: Item]>) => Effect.Effect<{
  readonly ordered: ReadonlyArray<Item>
  readonly winners: ReadonlyArray<Item>
}>

const inSqlite: Sorting = (type, items) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const column = sql.literal(type === "bytes" ? "blob" : "text")
    yield* sql`create table items (item ${column} not null)`
    yield* sql`create table records (key integer primary key, item ${column} not null)`
    yield* sql.withTransaction(Effect.forEach(items, ([key, item]) =>
      Effect.zipRight(
        sql`insert into items values (${item})`,
        sql`insert into records values (${key}, ${item})
          on conflict (key) do update set item = excluded.item where excluded.item > records.item`
      ), { discard: true }))
    const ordered = yield* sql<{ item: Item }>`select item from items order by item`
    const winners = yield* sql<{ key: number; item: Item }>`select key, item from records order by key`
    return { ordered: ordered.map(({ item }) => item), winners: winners.map(({ item }) => item) }
  }).pipe(Effect.scoped, Effect.provide(SqliteClient.layer({ filename: ":memory:" })), Effect.orDie)

const inPostgres = (url: string): Sorting => (type, items) =>
  Effect.promise(async () => {
    const client = new Pg.Client({ connectionString: url })
    await client.connect()
    const column = type === "bytes" ? "bytea" : "text"
    await client.query(`create temp table items (item ${column} not null)`)
    await client.query(`create temp table records (key integer primary key, item ${column} not null)`)
    const given = items.map(([, item]) => typeof item === "string" ? item : Buffer.from(item))
    await client.query(`insert into items select unnest($1::${column}[])`, [given])
    // A statement can't touch a key twice, so as many statements as a key has items.
    for (let at = 0; at < items.length; at += keys) {
      await client.query(
        `insert into records select * from unnest($1::integer[], $2::${column}[])
          on conflict (key) do update set item = excluded.item where excluded.item > records.item`,
        [items.slice(at, at + keys).map(([key]) => key), given.slice(at, at + keys)]
      )
    }
    const ordered = await client.query<{ item: Item }>("select item from items order by item")
    const winners = await client.query<{ item: Item }>("select item from records order by key")
    await client.end()
    return { ordered: ordered.rows.map(({ item }) => item), winners: winners.rows.map(({ item }) => item) }
  })

const keys = 2_000

/** The greatest item of each key, by the order of memory. */
const greatest = <A>(items: ReadonlyArray<A>, compare: (a: A, b: A) => number): ReadonlyArray<A> => {
  const winners: Array<A> = []
  items.forEach((item, i) => {
    const held = winners[i % keys]
    if (held === undefined || compare(item, held) > 0) winners[i % keys] = item
  })
  return winners
}

/** What holds of every database. */
const orders = (sort: () => Sorting) => {
  it.effect("orders and merges records as memory does", () =>
    Effect.gen(function*() {
      const records = sampleOf(record)
      const { ordered, winners } = yield* sort()("bytes", records.map(({ row }, i) => [i % keys, row]))
      const rowsOf = (all: ReadonlyArray<LwwRecord.LwwRecord>) => all.map(({ row }) => hex(row))
      assert.deepStrictEqual(
        ordered.map((row) => hex(row as Uint8Array)),
        rowsOf(records.slice().sort(LwwRecord.compare))
      )
      assert.deepStrictEqual(winners.map((row) => hex(row as Uint8Array)), rowsOf(greatest(records, LwwRecord.compare)))
    }))

  it.effect("orders counters' rows as memory does", () =>
    Effect.gen(function*() {
      const rows = sampleOf(counterRow)
      const { ordered } = yield* sort()("bytes", rows.map(({ row }, i) => [i, row]))
      assert.deepStrictEqual(
        ordered.map((row) => hex(row as Uint8Array)),
        rows.slice().sort(PnCounter.compare).map(({ row }) => hex(row))
      )
    }))

  it.effect("orders the text of stamps as memory does stamps", () =>
    Effect.gen(function*() {
      const stamps = sampleOf(stamp)
      const { ordered } = yield* sort()("text", stamps.map((each, i) => [i, Timestamp.format(each)]))
      assert.deepStrictEqual(ordered, stamps.slice().sort(Timestamp.compare).map(Timestamp.format))
    }))
}

describe("SQLite", () => orders(() => inSqlite))

describe("PostgreSQL", () => {
  const cluster = useCluster()
  orders(() => inPostgres(cluster().url()))
})
