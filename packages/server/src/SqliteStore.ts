/**
 * The log's database in a file: SQLite within the process, in WAL mode with `synchronous = FULL`, so that what is committed survives
 * a crash of the machine. The file is held by this process alone.
 */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as Reactivity from "@effect/experimental/Reactivity"
import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import type { MapKind } from "@topgun/core/Cell"
import { StorageUnavailable } from "@topgun/core/GridError"
import { makeNodeId } from "@topgun/core/Hlc"
import { type Batch, type Driver, endOfTurn, type Loader, type Note, type Totals } from "./GroupCommit.ts"
import { ServerConfig } from "./ServerConfig.ts"

/** The layout of the tables that this version reads and writes. */
export const format = 2

const migrations = Migrator.fromRecord({
  "0001_records": Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT`
    yield* sql`CREATE TABLE maps (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL) STRICT`
    // With a rowid, so that loading reads the file from front to back.
    yield* sql`CREATE TABLE records (
      map INTEGER NOT NULL REFERENCES maps (id),
      key BLOB NOT NULL,
      partition INTEGER NOT NULL,
      row BLOB NOT NULL,
      UNIQUE (map, key)
    ) STRICT`
    const generation = yield* makeNodeId
    const nodeId = yield* makeNodeId
    yield* sql`INSERT INTO meta ${
      sql.insert([
        { name: "format", value: "1" },
        { name: "generation", value: generation },
        { name: "nodeId", value: nodeId }
      ])
    }`
  }),
  // Tombstones have an age, maps their totals (none before they are written to again), and the server notes.
  "0002_totals": Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`ALTER TABLE records ADD COLUMN age INTEGER`
    yield* sql`ALTER TABLE maps ADD COLUMN records INTEGER`
    yield* sql`ALTER TABLE maps ADD COLUMN digest_hi INTEGER`
    yield* sql`ALTER TABLE maps ADD COLUMN digest_lo INTEGER`
    yield* sql`CREATE TABLE notes (
      space TEXT NOT NULL,
      key TEXT NOT NULL,
      value BLOB NOT NULL,
      PRIMARY KEY (space, key)
    ) STRICT, WITHOUT ROWID`
    yield* sql`UPDATE meta SET value = '2' WHERE name = 'format'`
  })
})

const sqliteCode = (cause: unknown): string =>
  cause instanceof SqlError || cause instanceof StorageUnavailable || cause instanceof Migrator.MigrationError
    ? sqliteCode(cause.cause)
    : typeof cause === "object" && cause !== null && "code" in cause && typeof cause.code === "string"
    ? cause.code
    : ""

const messageOf = (cause: unknown): string =>
  cause instanceof SqlError || cause instanceof Migrator.MigrationError
    ? messageOf(cause.cause ?? cause.message)
    : cause instanceof Error
    ? cause.message
    : String(cause)

const damage = (file: string, cause: unknown): string =>
  `the database "${file}" is damaged (${
    messageOf(cause)
  }): restore it from a backup, or move it away to begin with none`

/** What went wrong with the database, and what mends it. */
const explain = (file: string, directory: string, cause: unknown): StorageUnavailable => {
  const code = sqliteCode(cause)
  const reason = /^SQLITE_(BUSY|LOCKED)/.test(code)
    ? `another server uses the data directory "${directory}": stop it, or give this one a directory of its own ` +
      "(--data-dir or TOPGUN_DATA_DIR)"
    : /^SQLITE_(NOTADB|CORRUPT)/.test(code)
    ? damage(file, cause)
    : /^SQLITE_(CANTOPEN|READONLY|PERM)|^E(ACCES|PERM|ROFS|NOTDIR|EXIST)/.test(code)
    ? `"${directory}" cannot be written (${
      messageOf(cause)
    }): give the server's user the right to, or choose another ` +
      "(--data-dir or TOPGUN_DATA_DIR)"
    : /^SQLITE_FULL|^ENOSPC/.test(code)
    ? `the disk of "${directory}" is full`
    : `the database "${file}": ${messageOf(cause)}`
  return new StorageUnavailable({ reason, cause })
}

/** Rows of one INSERT, largest first: few distinct statements, so that each is prepared once. */
const chunkSizes = [250, 50, 10, 1]
/** Parameters of a row. */
const columns = 5
const upserts = new Map(chunkSizes.map((size) => [
  size,
  `INSERT INTO records (map, key, partition, row, age) VALUES ${
    Array.from({ length: size }, () => "(?, ?, ?, ?, ?)").join(", ")
  }
   ON CONFLICT (map, key) DO UPDATE SET row = excluded.row, age = excluded.age WHERE excluded.row > records.row`
]))
const forget = "DELETE FROM records WHERE map = ? AND key = ? AND row = ?"
const insertMap = "INSERT INTO maps (id, name, kind) VALUES (?, ?, ?)"
const updateTotals = "UPDATE maps SET records = ?, digest_hi = ?, digest_lo = ? WHERE id = ?"
const upsertNote =
  "INSERT INTO notes (space, key, value) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
const deleteNote = "DELETE FROM notes WHERE space = ? AND key = ?"

interface Statement {
  readonly sql: string
  readonly params: ReadonlyArray<unknown>
}

/** Rows of one page when loading: some 10 ms of work, between which probes are answered. */
const pageRows = 1_000
const selectPage =
  `SELECT rowid, map, key, partition, row, age FROM records WHERE rowid > ? ORDER BY rowid LIMIT ${pageRows}`

/** The database of the data directory. Its scope is its connection. */
export const make = Effect.gen(function*() {
  const { dataDir } = yield* ServerConfig
  const file = join(dataDir, "topgun.db")
  const failed = (cause: unknown) => explain(file, dataDir, cause)
  const damaged = (cause: unknown) => new StorageUnavailable({ reason: damage(file, cause), cause })

  yield* Effect.try({ try: () => mkdirSync(dataDir, { recursive: true }), catch: failed })
  // The client opens the file while it is made and throws what goes wrong, which is no fault of our code.
  const client = yield* SqliteClient.make({ filename: file, disableWAL: true }).pipe(
    Effect.provideServiceEffect(Reactivity.Reactivity, Reactivity.make),
    Effect.catchAllCause((cause) =>
      Cause.isInterrupted(cause) ? Effect.failCause(cause) : Effect.fail(failed(Cause.squash(cause)))
    )
  )

  const open = Effect.gen(function*() {
    yield* client.unsafe("PRAGMA busy_timeout = 0")
    // The lock is the operating system's, so it's gone with the process, however it dies.
    yield* client.unsafe("PRAGMA locking_mode = EXCLUSIVE")
    yield* client.unsafe("PRAGMA journal_mode = WAL")
    yield* client.unsafe("PRAGMA synchronous = FULL")
    yield* client.unsafe("BEGIN IMMEDIATE")
    yield* client.unsafe("COMMIT")
    const known = yield* client.unsafe("SELECT 1 FROM sqlite_schema WHERE name = 'meta'")
    if (known.length > 0) {
      const [row] = yield* client.unsafe<{ readonly value: string }>("SELECT value FROM meta WHERE name = 'format'")
      const stored = Number(row?.value)
      if (!(stored <= format)) {
        return yield* new StorageUnavailable({
          reason: `the database "${file}" has format ${row?.value}, this server knows formats up to ${format}: ` +
            "run the newer server that wrote it"
        })
      }
    }
    yield* Migrator.make({})({ loader: migrations }).pipe(
      Effect.provideService(SqlClient.SqlClient, client)
    )
    const meta = yield* client.unsafe<{ readonly name: string; readonly value: string }>("SELECT name, value FROM meta")
    const maps = yield* client.unsafe<StoredMap>("SELECT id, name, kind, records, digest_hi, digest_lo FROM maps")
    const noted = yield* client.unsafe<StoredNote>("SELECT space, key, value FROM notes")
    const notes = new Map<string, Map<string, Uint8Array>>()
    for (const { key, space, value } of noted) {
      notes.set(space, (notes.get(space) ?? new Map()).set(key, bytesOf(value)))
    }
    return { meta: new Map(meta.map(({ name, value }) => [name, value])), maps, notes }
  })
  const { maps, meta, notes } = yield* open.pipe(
    Effect.sandbox,
    Effect.mapError((cause) => {
      const fault = Cause.squash(cause)
      return fault instanceof StorageUnavailable ? fault : failed(fault)
    })
  )
  // This fiber's alone from here on: its transactions need no other's consent, and no span for each statement.
  const connection: Connection = yield* Effect.mapError(client.reserve, failed)

  const mapIds = new Map(maps.map(({ id, name }) => [name, id]))
  let lastMapId = maps.reduce((last, { id }) => Math.max(last, id), 0)

  const load = (loader: Loader): Effect.Effect<void, StorageUnavailable> =>
    Effect.suspend(() => {
      const byId = new Map(maps.map((map) => [map.id, map]))
      let last = 0
      let done = false
      const take = (rows: ReadonlyArray<StoredRow>) => {
        for (const [rowid, id, key, partition, row, age] of rows) {
          const map = byId.get(id)
          if (map === undefined) throw new Error(`record ${rowid} is of no map that there is`)
          loader.record(map.name, map.kind, key.toString("utf8"), partition, bytesOf(row), age ?? undefined)
          last = rowid
        }
        done = rows.length < pageRows
        if (done) { for (const map of maps) loader.complete(map.name, map.kind, totalsOf(map)) }
      }
      const page = Effect.suspend(() => connection.executeValues(selectPage, [last])).pipe(
        Effect.mapError(failed),
        Effect.flatMap((rows) => Effect.try({ try: () => take(rows as ReadonlyArray<StoredRow>), catch: damaged })),
        Effect.zipLeft(endOfTurn)
      )
      return Effect.whileLoop({ while: () => !done, body: () => page, step: () => {} })
    })

  /** The statements of one transaction, and the ids that it gives to maps it is the first to write. */
  const plan = (batches: ReadonlyArray<Batch>, written: ReadonlyArray<Note>) => {
    const created = new Map<string, number>()
    const statements: Array<Statement> = []
    const totalsById = new Map<number, Totals>()
    let values: Array<unknown> = []
    const cut = (): void => {
      let at = 0
      for (const size of chunkSizes) {
        for (const width = size * columns; values.length - at >= width; at += width) {
          statements.push({ sql: upserts.get(size)!, params: values.slice(at, at + width) })
        }
      }
      values = []
    }
    for (const { age, forgotten, kind, map, rows, totals } of batches) {
      let id = mapIds.get(map) ?? created.get(map)
      if (id === undefined) {
        id = lastMapId + created.size + 1
        created.set(map, id)
        statements.push({ sql: insertMap, params: [id, map, kind] })
      }
      totalsById.set(id, totals)
      for (const { cell, partition, record } of rows) {
        values.push(id, Buffer.from(cell, "utf8"), partition, record.row, record.isTombstone ? age : null)
      }
      if (forgotten === undefined) continue
      // What comes after this may be what is forgotten here.
      cut()
      for (const { cell, record } of forgotten) {
        statements.push({ sql: forget, params: [id, Buffer.from(cell, "utf8"), record.row] })
      }
    }
    cut()
    for (const [id, { hi, lo, records }] of totalsById) {
      statements.push({ sql: updateTotals, params: [records, hi, lo, id] })
    }
    for (const { key, space, value } of written) {
      statements.push(
        value === undefined
          ? { sql: deleteNote, params: [space, key] }
          : { sql: upsertNote, params: [space, key, value] }
      )
    }
    return { created, statements }
  }

  const commit = (
    batches: ReadonlyArray<Batch>,
    written: ReadonlyArray<Note>
  ): Effect.Effect<void, StorageUnavailable> =>
    Effect.suspend(() => {
      const { created, statements } = plan(batches, written)
      return connection.executeRaw("BEGIN IMMEDIATE", []).pipe(
        Effect.zipRight(Effect.forEach(statements, ({ params, sql }) => connection.executeRaw(sql, params), {
          discard: true
        })),
        Effect.zipRight(connection.executeRaw("COMMIT", [])),
        Effect.tapError(() => Effect.ignore(connection.executeRaw("ROLLBACK", []))),
        Effect.mapError(failed),
        Effect.tap(() =>
          Effect.sync(() => {
            for (const [name, id] of created) mapIds.set(name, id)
            lastMapId += created.size
          })
        )
      )
    }).pipe(Effect.uninterruptible)

  return {
    kind: "sqlite",
    generation: meta.get("generation")!,
    nodeId: meta.get("nodeId")!,
    notes,
    load,
    commit
  } satisfies Driver
})

interface StoredMap {
  readonly id: number
  readonly name: string
  readonly kind: MapKind
  readonly records: number | null
  readonly digest_hi: number | null
  readonly digest_lo: number | null
}

interface StoredNote {
  readonly space: string
  readonly key: string
  readonly value: Buffer
}

type StoredRow = readonly [
  rowid: number,
  map: number,
  key: Buffer,
  partition: number,
  row: Buffer,
  age: number | null
]

const totalsOf = ({ digest_hi, digest_lo, records }: StoredMap): Totals | undefined =>
  records === null || digest_hi === null || digest_lo === null
    ? undefined
    : { records, hi: digest_hi, lo: digest_lo }

/** A plain view: Buffer's own `slice` would not copy, where one relies on it. */
const bytesOf = (buffer: Buffer): Uint8Array => new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength)
