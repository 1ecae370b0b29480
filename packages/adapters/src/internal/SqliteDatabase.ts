/**
 * Storage in an SQLite file: the rows of all names side by side, in a table that is clustered by name, space and key. Text
 * is stored as its UTF-16 code units, high byte first: so SQLite's order of blobs is that of a scan, and no text is changed.
 */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import { StorageFault, type StorageRow, type StorageWrite } from "@topgun/core/StorageAdapter"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { readText, writeText } from "./Bytes.ts"

/** The layout of the tables that this version reads and writes. */
export const format = 1

/** What says in the file's header that it is one of these: "TGUN". */
const applicationId = 0x5447554e

/** How long another process may be in the middle of a transaction. Meanwhile this one does nothing else. */
const busyMillis = 5_000

/** SQLite itself doesn't wait for another process that makes the same file a write-ahead log's at the same moment. */
const changingMode = Schedule.spaced("20 millis").pipe(Schedule.upTo(busyMillis))

const tables = [
  `CREATE TABLE storages (id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, owner INTEGER NOT NULL) STRICT`,
  `CREATE TABLE stored (
    storage INTEGER NOT NULL REFERENCES storages (id),
    space BLOB NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (storage, space, key)
  ) STRICT, WITHOUT ROWID`,
  `PRAGMA application_id = ${applicationId}`,
  `PRAGMA user_version = ${format}`
]

/** Rows of one INSERT, largest first: few distinct statements, so that each is prepared once. */
const chunkSizes = [100, 10, 1]
const upserts = new Map(chunkSizes.map((size) => [
  size,
  `INSERT INTO stored (storage, space, key, value) VALUES ${
    Array.from({ length: size }, () => "(?, ?, ?, ?)").join(", ")
  }
   ON CONFLICT (storage, space, key) DO UPDATE SET value = excluded.value`
]))
const deletion = "DELETE FROM stored WHERE storage = ? AND space = ? AND key = ?"
const page = "SELECT key, value FROM stored WHERE storage = ? AND space = ? AND key > ? ORDER BY key LIMIT ?"
const firstPage = "SELECT key, value FROM stored WHERE storage = ? AND space = ? ORDER BY key LIMIT ?"

/** A storage of a file that was opened, and what its opening has taken: everybody's after it goes beyond. */
export interface Owned {
  readonly id: number
  readonly owner: number
}

const blobOf = (text: string): Uint8Array => {
  const blob = new Uint8Array(2 * text.length)
  writeText(text, blob, 0)
  return blob
}

const codeOf = (cause: unknown): string =>
  cause instanceof SqlError
    ? codeOf(cause.cause)
    : cause instanceof Error && "code" in cause && typeof cause.code === "string"
    ? cause.code
    : ""

const isBusy = (cause: unknown): boolean => /^SQLITE_(BUSY|LOCKED)/.test(codeOf(cause))

const messageOf = (cause: unknown): string =>
  cause instanceof SqlError
    ? messageOf(cause.cause ?? cause.message)
    : cause instanceof Error
    ? cause.message
    : String(cause)

/** What went wrong with the file, and what mends it. */
export const explain = (file: string, cause: unknown): Error => {
  if (cause instanceof StorageFault) return cause
  const code = codeOf(cause)
  const message = messageOf(cause)
  if (code === "SQLITE_FULL") return new StorageFault("quota", `there is no room for "${file}"`, { cause })
  return new Error(
    isBusy(cause)
      ? `another process has held "${file}" for more than ${busyMillis / 1000} seconds`
      : /^SQLITE_(NOTADB|CORRUPT)/.test(code)
      ? `the database "${file}" is damaged (${message}): restore it, or move it away to begin with none`
      : `the database "${file}": ${message}`,
    { cause }
  )
}

/** A connection, and whose turn it is. */
export class SqliteDatabase extends Context.Tag("@topgun/adapters/internal/SqliteDatabase")<SqliteDatabase, {
  readonly connection: Connection
  readonly inTurn: <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, E>
}>() {}

/** All of it or nothing, while nobody else writes; or what only reads, of one moment. */
const transaction = <A, E>(
  connection: Connection,
  body: Effect.Effect<A, E>,
  begin: "BEGIN IMMEDIATE" | "BEGIN" = "BEGIN IMMEDIATE"
): Effect.Effect<A, E | SqlError> =>
  connection.executeRaw(begin, []).pipe(
    Effect.zipRight(body),
    Effect.zipLeft(connection.executeRaw("COMMIT", [])),
    // After some faults SQLite has rolled back by itself. What counts is the fault.
    Effect.tapErrorCause(() => Effect.ignore(connection.executeRaw("ROLLBACK", []))),
    Effect.uninterruptible
  )

const numberOf = (connection: Connection, sql: string): Effect.Effect<number, SqlError> =>
  Effect.map(connection.executeValues(sql, []), ([row]) => Number(row?.[0]))

/** A file that isn't this storage's stays as it is. */
class ForeignDatabase extends Data.TaggedError("ForeignDatabase")<{ readonly message: string }> {}

/** Whether the file has the tables, which it may not have yet. Any other's file, and a newer one, is left as it is. */
const isMade = (
  file: string,
  connection: Connection
): Effect.Effect<boolean, SqlError | ForeignDatabase | StorageFault> =>
  Effect.gen(function*() {
    const id = yield* numberOf(connection, "PRAGMA application_id")
    const version = yield* numberOf(connection, "PRAGMA user_version")
    const known = yield* numberOf(connection, "SELECT count(*) FROM sqlite_schema")
    if (known === 0 && id === 0 && version === 0) return false
    if (id !== applicationId) return yield* new ForeignDatabase({ message: `"${file}" is another program's database` })
    if (version > format) {
      return yield* Effect.fail(
        new StorageFault(
          "newer",
          `"${file}" has format ${version}, this version knows formats up to ${format}: update the application`
        )
      )
    }
    return true
  })

const connect = (file: string) =>
  Effect.gen(function*() {
    const client = yield* SqlClient.SqlClient
    // This storage's alone from here on: its transactions need no span for each statement.
    const connection = yield* client.reserve
    const turn = yield* Effect.makeSemaphore(1)
    yield* connection.executeRaw(`PRAGMA busy_timeout = ${busyMillis}`, [])
    const isThere = yield* Effect.retry(
      Effect.zipLeft(
        transaction(connection, isMade(file, connection), "BEGIN"),
        connection.executeRaw("PRAGMA journal_mode = WAL", [])
      ),
      { while: isBusy, schedule: changingMode }
    )
    // The server tells a device's writes apart by numbers that it keeps here: what was reported as written survives a loss of power.
    yield* connection.executeRaw("PRAGMA synchronous = FULL", [])
    if (!isThere) {
      const make = Effect.flatMap(isMade(file, connection), (isThereNow) =>
        isThereNow
          ? Effect.void
          : Effect.forEach(tables, (sql) => connection.executeRaw(sql, []), { discard: true }))
      yield* transaction(connection, make)
    }
    return SqliteDatabase.of({ connection, inTurn: turn.withPermits(1) })
  })

/** The file, open. It fails, and dies, with what {@link explain} puts into words. */
export const layer = (file: string) =>
  Layer.scoped(SqliteDatabase, connect(file)).pipe(
    Layer.provide(SqliteClient.layer({ filename: file, disableWAL: true }))
  )

/** Becomes the owner of the storage `name`. */
export const own = (name: string) =>
  Effect.flatMap(SqliteDatabase, ({ connection, inTurn }) =>
    inTurn(transaction(
      connection,
      Effect.map(
        connection.executeValues(
          `INSERT INTO storages (name, owner) VALUES (?, 1)
           ON CONFLICT (name) DO UPDATE SET owner = owner + 1 RETURNING id, owner`,
          [blobOf(name)]
        ),
        ([row]): Owned => ({ id: Number(row![0]), owner: Number(row![1]) })
      )
    )))

export const scan = ({ id }: Owned, space: string, after: string | undefined, limit: number) =>
  Effect.flatMap(SqliteDatabase, ({ connection, inTurn }) =>
    Effect.map(
      inTurn(
        after === undefined
          ? connection.executeValues(firstPage, [id, blobOf(space), limit])
          : connection.executeValues(page, [id, blobOf(space), blobOf(after), limit])
      ),
      (rows) =>
        (rows as ReadonlyArray<readonly [key: Uint8Array, value: Uint8Array]>).map(([key, value]): StorageRow => ({
          key: readText(key, 0, key.length / 2),
          value: new Uint8Array(value)
        }))
    ))

/** The statements of a commit, in order: neighbouring rows as one. */
const statementsOf = (id: number, writes: ReadonlyArray<StorageWrite>) => {
  const statements: Array<readonly [sql: string, values: ReadonlyArray<unknown>]> = []
  let rows: Array<unknown> = []
  const flush = (): void => {
    let at = 0
    for (const size of chunkSizes) {
      for (; rows.length - at >= size * 4; at += size * 4) {
        statements.push([upserts.get(size)!, rows.slice(at, at + size * 4)])
      }
    }
    rows = []
  }
  for (const { key, space, value } of writes) {
    if (value !== undefined) {
      rows.push(id, blobOf(space), blobOf(key), value)
      continue
    }
    flush()
    statements.push([deletion, [id, blobOf(space), blobOf(key)]])
  }
  flush()
  return statements
}

export const commit = ({ id, owner }: Owned, writes: ReadonlyArray<StorageWrite>) =>
  Effect.flatMap(SqliteDatabase, ({ connection, inTurn }) => {
    const write = Effect.gen(function*() {
      const [row] = yield* connection.executeValues("SELECT owner FROM storages WHERE id = ?", [id])
      if (row === undefined) {
        return yield* Effect.fail(new StorageFault("evicted", "its rows are gone from the database"))
      }
      if (row[0] !== owner) {
        return yield* Effect.fail(new StorageFault("superseded", "another client has opened it since"))
      }
      for (const [sql, values] of statementsOf(id, writes)) yield* connection.executeRaw(sql, values)
    })
    return inTurn(transaction(connection, write))
  })

/** Waits for what was asked for before. */
export const settled = Effect.flatMap(SqliteDatabase, ({ inTurn }) => inTurn(Effect.void))
