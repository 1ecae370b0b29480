/**
 * The log's database in a file: SQLite within the process, in WAL mode with `synchronous = FULL`, so that what is committed survives
 * a crash of the machine. The file is held by this process alone.
 *
 * **What is read is what was written, or nothing is.** SQLite's pages have no checksums, so what is stored has: of each map the totals of
 * its records, of all else a CRC, and the database counts its transactions, which `Seal` keeps outside of it. Loading
 * also looks each record up by its key, as later writes will: an index that doesn't find it would let the record be there twice.
 *
 * **A commit that failed may be tried again on the same connection, and only there.** After a failed `fsync` the system may take pages for
 * clean that never reached the disk, so a sync that succeeds later says nothing of them. SQLite counts frames of the log as written only when
 * they are synced, so the next commit writes the same places of the log again, and a checkpoint that failed writes all its pages again. A
 * process that starts anew, however, takes the frames for committed that it finds, synced or not; so an opened log is first
 * carried into the database, which writes and syncs all of it.
 */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as Reactivity from "@effect/experimental/Reactivity"
import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { mkdirSync, rmSync, type Stats, statSync } from "node:fs"
import { join } from "node:path"
import { crc32 } from "node:zlib"
import type { MapKind } from "@topgun/core/Cell"
import { StorageUnavailable } from "@topgun/core/GridError"
import { makeNodeId } from "@topgun/core/Hlc"
import {
  type Batch,
  type Driver,
  endOfTurn,
  type Loader,
  type Note,
  type Snapshot,
  type StoredRecord,
  type Totals
} from "./GroupCommit.ts"
import * as SqliteCopy from "./internal/SqliteCopy.ts"
import * as Seal from "./Seal.ts"
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
  // Tombstones have an age, maps their totals (none before they are written to again), the server notes, and what no totals cover a CRC.
  "0002_totals": Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`ALTER TABLE records ADD COLUMN age INTEGER`
    yield* sql`ALTER TABLE records ADD COLUMN crc INTEGER`
    yield* sql`ALTER TABLE maps ADD COLUMN records INTEGER`
    yield* sql`ALTER TABLE maps ADD COLUMN digest_hi INTEGER`
    yield* sql`ALTER TABLE maps ADD COLUMN digest_lo INTEGER`
    yield* sql`ALTER TABLE maps ADD COLUMN crc INTEGER`
    yield* sql`CREATE TABLE notes (
      space TEXT NOT NULL,
      key TEXT NOT NULL,
      value BLOB NOT NULL,
      PRIMARY KEY (space, key)
    ) STRICT, WITHOUT ROWID`
    yield* sql`CREATE TABLE state (commits INTEGER NOT NULL, maps INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT`
    const [counted] = yield* sql<{ readonly maps: number }>`SELECT count(*) AS maps FROM maps`
    yield* sql`INSERT INTO state ${sql.insert({ commits: 0, maps: counted!.maps, crc: crcOf(0, counted!.maps) })}`
    yield* sql`UPDATE meta SET value = '2' WHERE name = 'format'`
    const meta = yield* sql<StoredMeta>`SELECT name, value FROM meta`
    yield* sql`INSERT INTO meta ${sql.insert({ name: "crc", value: String(crcOfMeta(meta)) })}`
  })
})

/** The CRC-32 of what is stored together. */
const crcOf = (...parts: ReadonlyArray<string | number | Uint8Array | null>): number =>
  parts.reduce<number>((crc, part) => crc32(part instanceof Uint8Array ? part : `${part}\0`, crc), 0)

const crcOfMeta = (meta: ReadonlyArray<StoredMeta>): number =>
  crcOf(...meta.filter(({ name }) => name !== "crc").map(({ name, value }) => `${name}=${value}`).sort())

/** The code that SQLite, or the system, gives a fault. */
export const codeOf = (cause: unknown): string =>
  cause instanceof SqlError || cause instanceof StorageUnavailable || cause instanceof Migrator.MigrationError
    ? codeOf(cause.cause)
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
  }): restore its directory from a backup, or move all that is in there away and begin with none. Clients send again what they have`

/** What went wrong with the database, and what mends it. */
export const explain = (file: string, directory: string, cause: unknown): StorageUnavailable => {
  const code = codeOf(cause)
  const reason = /^SQLITE_(BUSY|LOCKED)/.test(code)
    ? `another server uses the data directory "${directory}": stop it, or give this one a directory of its own ` +
      "(--data-dir or TOPGUN_DATA_DIR)"
    : /^SQLITE_(NOTADB|CORRUPT|ERROR|CONSTRAINT)/.test(code)
    ? damage(file, cause)
    : /^SQLITE_(CANTOPEN|READONLY|PERM)|^E(ACCES|PERM|ROFS|NOTDIR|EXIST)/.test(code)
    ? `"${directory}" cannot be written (${
      messageOf(cause)
    }): give the server's user the right to, or choose another ` +
      "(--data-dir or TOPGUN_DATA_DIR)"
    : /^SQLITE_FULL|^ENOSPC/.test(code)
    ? `the disk of "${directory}" is full: make room`
    : /^SQLITE_IOERR|^EIO/.test(code)
    ? `the disk of "${directory}" fails (${code}): the system's log says why`
    : `the database "${file}": ${messageOf(cause)}`
  return new StorageUnavailable({ reason, cause })
}

/** Rows of one INSERT, largest first: few distinct statements, so that each is prepared once. */
const chunkSizes = [250, 50, 10, 1]
/** Parameters of a row. */
const columns = 6
const upserts = new Map(chunkSizes.map((size) => [
  size,
  `INSERT INTO records (map, key, partition, row, age, crc) VALUES ${
    Array.from({ length: size }, () => "(?, ?, ?, ?, ?, ?)").join(", ")
  }
   ON CONFLICT (map, key) DO UPDATE SET row = excluded.row, age = excluded.age, crc = excluded.crc
   WHERE excluded.row > records.row`
]))
const forget = "DELETE FROM records WHERE map = ? AND key = ? AND row = ?"
const insertMap = "INSERT INTO maps (id, name, kind) VALUES (?, ?, ?)"
const updateTotals = "UPDATE maps SET records = ?, digest_hi = ?, digest_lo = ?, crc = ? WHERE id = ?"
const upsertNote =
  "INSERT INTO notes (space, key, value) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
const deleteNote = "DELETE FROM notes WHERE space = ? AND key = ?"
const updateState = "UPDATE state SET commits = ?, maps = ?, crc = ?"

interface Statement {
  readonly sql: string
  readonly params: ReadonlyArray<unknown>
}

/** Some eight times as long as a log gets where all is well. */
const longLogBytes = 32 * 1024 * 1024

/** Rows of one page when loading: some 10 ms of work, between which probes are answered. */
const pageRows = 1_000
const selectPage = `SELECT rowid, map, CAST(key AS TEXT), partition, row, age, crc, EXISTS (
    SELECT 1 FROM records AS found INDEXED BY sqlite_autoindex_records_1
    WHERE found.map = records.map AND found.key = records.key AND +found.rowid = records.rowid
  ) FROM records WHERE rowid > ? ORDER BY rowid LIMIT ${pageRows}`
/** Fewer rows, as more is done with each. Who starts with the backup's records looks at the index then. */
const selectSnapshot =
  "SELECT rowid, map, CAST(key AS TEXT), partition, row, age, crc, 1 FROM records WHERE rowid > ? ORDER BY rowid LIMIT 250"
const countIndexed = "SELECT count(*) AS count FROM records INDEXED BY sqlite_autoindex_records_1"

/** The files of a data directory's database. */
export const filesIn = (dataDir: string) => ({
  database: join(dataDir, "topgun.db"),
  log: join(dataDir, "topgun.db-wal"),
  seal: join(dataDir, "topgun.seal")
})

/** Where a database is made that is to take another's place. */
export const restoringIn = (dataDir: string): string => join(dataDir, "topgun.restore")

/** The database of the data directory. Its scope is its connection. */
export const make = Effect.gen(function*() {
  const { dataDir } = yield* ServerConfig
  const { database: file, log: logFile, seal: sealFile } = filesIn(dataDir)
  const failed = (cause: unknown) => explain(file, dataDir, cause)
  const damaged = (cause: unknown) => new StorageUnavailable({ reason: damage(file, cause), cause })
  const outdated = (what: string) =>
    new StorageUnavailable({
      reason:
        `the database "${file}" ${what}: put back all files of its directory together. To go on with it as it is, remove ` +
        `"${sealFile}": what is missing is lost but for what clients still have, which they send again`
    })

  yield* Effect.try({ try: () => mkdirSync(dataDir, { recursive: true }), catch: failed })
  // The client opens the file while it is made and throws what goes wrong, which is no fault of our code.
  const client = yield* SqliteClient.make({ filename: file, disableWAL: true }).pipe(
    Effect.provideServiceEffect(Reactivity.Reactivity, Reactivity.make),
    Effect.catchAllCause((cause) =>
      Cause.isInterrupted(cause) ? Effect.failCause(cause) : Effect.fail(failed(Cause.squash(cause)))
    )
  )

  const open = Effect.gen(function*() {
    const sealed = yield* Effect.try(() => Seal.read(sealFile)).pipe(Effect.mapError(({ error }) => failed(error)))
    yield* client.unsafe("PRAGMA busy_timeout = 0")
    // The lock is the operating system's, so it's gone with the process, however it dies.
    yield* client.unsafe("PRAGMA locking_mode = EXCLUSIVE")
    yield* client.unsafe("PRAGMA journal_mode = WAL")
    yield* client.unsafe("PRAGMA synchronous = FULL")
    yield* client.unsafe("PRAGMA cell_size_check = ON")
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
    } else if (sealed !== undefined) {
      return yield* outdated(`is missing, and "${sealFile}" says that there was one`)
    }
    const [checked] = yield* client.unsafe<{ readonly quick_check: string }>("PRAGMA quick_check(1)")
    if (checked?.quick_check !== "ok") return yield* damaged(checked?.quick_check)
    yield* Migrator.make({})({ loader: migrations }).pipe(
      Effect.provideService(SqlClient.SqlClient, client)
    )
    const { commits, generation, maps, nodeId, notes } = yield* readTables(client, damaged)
    if (sealed !== undefined && sealed.generation !== generation) {
      return yield* outdated(`isn't the one that "${sealFile}" belongs to`)
    }
    if (sealed !== undefined && sealed.commits > commits) {
      return yield* outdated(
        `has the first ${commits} of the ${sealed.commits} transactions that this server has acknowledged`
      )
    }
    yield* client.unsafe("PRAGMA wal_checkpoint(TRUNCATE)")
    yield* Effect.try({
      try: () => {
        // What a crash has left of a backup, and of a restore.
        for (const left of [SqliteCopy.directoryOf(dataDir), restoringIn(dataDir)]) {
          rmSync(left, { recursive: true, force: true })
        }
      },
      catch: failed
    })
    return { commits, generation, nodeId, maps, notes }
  })
  const opened = yield* open.pipe(
    Effect.sandbox,
    Effect.mapError((cause) => {
      const fault = Cause.squash(cause)
      return fault instanceof StorageUnavailable ? fault : failed(fault)
    })
  )
  // This fiber's alone from here on: its transactions need no other's consent, and no span for each statement.
  const connection: Connection = yield* Effect.mapError(client.reserve, failed)

  const { generation, maps, nodeId, notes } = opened
  let commits = opened.commits
  const seal = yield* Effect.acquireRelease(
    Effect.try({ try: () => Seal.open(sealFile), catch: failed }),
    ({ close }) => Effect.sync(close)
  )
  const database = identityOf(statOf(file))
  let log = identityOf(statOf(logFile))

  const mapIds = new Map(maps.map(({ id, name }) => [name, id]))
  let lastMapId = maps.reduce((last, { id }) => Math.max(last, id), 0)

  const load = (loader: Loader): Effect.Effect<void, StorageUnavailable> =>
    Effect.suspend(() => {
      const byId = new Map(maps.map((map) => [map.id, map]))
      let last = 0
      let loaded = 0
      let done = false
      const take = (rows: ReadonlyArray<StoredRow>) => {
        for (const stored of rows) {
          const { age, cell, kind, map, row } = recordOf(byId, stored)
          const [rowid, , , partition] = stored
          loader.record(map, kind, cell, partition, row, age)
          last = rowid
        }
        loaded += rows.length
        done = rows.length < pageRows
        if (done) { for (const map of maps) loader.complete(map.name, map.kind, totalsOf(map)) }
      }
      const page = Effect.suspend(() => connection.executeValues(selectPage, [last])).pipe(
        Effect.mapError(failed),
        Effect.flatMap((rows) => Effect.try({ try: () => take(rows as ReadonlyArray<StoredRow>), catch: damaged })),
        Effect.zipLeft(endOfTurn)
      )
      const wholeIndex = Effect.suspend(() => connection.executeValues(countIndexed, [])).pipe(
        Effect.mapError(failed),
        Effect.flatMap(([row]) =>
          row?.[0] === loaded ? Effect.void : damaged(`there are ${loaded} records, and ${row?.[0]} in their index`)
        )
      )
      return Effect.zipRight(
        Effect.whileLoop({ while: () => !done, body: () => page, step: () => {} }),
        wholeIndex
      )
    })

  // What is reserved is the client's own connection, which makes backups.
  const { backup } = connection as Connection & Pick<SqliteClient.SqliteClient, "backup">
  const snapshot = Effect.gen(function*() {
    const copy = yield* Effect.mapError(SqliteCopy.make(backup, dataDir), failed)
    const { maps: stored, notes: noted } = yield* Effect.mapError(
      readTables(copy, damaged),
      (cause) => cause instanceof StorageUnavailable ? cause : failed(cause)
    )
    const reading = yield* Effect.mapError(copy.reserve, failed)
    const byId = new Map(stored.map((map) => [map.id, map]))
    let last = 0
    const take = (rows: ReadonlyArray<StoredRow>): ReadonlyArray<StoredRecord> => {
      last = rows.at(-1)?.[0] ?? last
      return rows.map((row) => recordOf(byId, row))
    }
    return {
      maps: stored.map((map) => ({ map: map.name, kind: map.kind, totals: totalsOf(map) })),
      notes: noted,
      next: Effect.suspend(() => reading.executeValues(selectSnapshot, [last])).pipe(
        Effect.mapError(failed),
        Effect.flatMap((rows) => Effect.try({ try: () => take(rows as ReadonlyArray<StoredRow>), catch: damaged }))
      )
    } satisfies Snapshot
  })

  const gone = (path: string) =>
    new StorageUnavailable({
      reason:
        `"${path}" was removed or replaced while the server has it open, and nothing that it saves now would be found again: put ` +
        "the file back, or stop the server and restore the directory from a backup"
    })

  /** The database has what is in the log that was removed: it goes on with another. */
  const renewLog = Effect.gen(function*() {
    yield* connection.executeRaw("PRAGMA wal_checkpoint(TRUNCATE)", [])
    yield* connection.executeRaw("PRAGMA journal_mode = DELETE", [])
    yield* connection.executeRaw("PRAGMA journal_mode = WAL", [])
    yield* connection.executeRaw("UPDATE state SET commits = commits", [])
    log = identityOf(statOf(logFile))
    yield* log === undefined
      ? gone(logFile)
      : Effect.logWarning(`"${logFile}" was removed; the database has what was in it`)
  }).pipe(Effect.mapError((cause) => cause instanceof StorageUnavailable ? cause : failed(cause)))

  let logBytesMax = longLogBytes
  /**
   * SQLite carries the log into the database every thousand pages, and says nothing when it can't: what is in the log is safe, but the
   * log grows. So a long one is carried over here, where a fault has somebody to tell.
   */
  const relieve: Effect.Effect<void> = Effect.suspend(() =>
    Effect.matchEffect(connection.executeRaw("PRAGMA wal_checkpoint(TRUNCATE)", []), {
      onFailure: (fault) => {
        logBytesMax *= 2
        return Effect.logError(
          `"${logFile}" grows, as it can't be carried into the database. ${failed(fault).message}`
        )
      },
      onSuccess: () => {
        logBytesMax = longLogBytes
        return Effect.void
      }
    })
  )

  /** A file that was removed takes commits, and is gone with the process: nothing in it is safe. */
  const inPlace: Effect.Effect<void, StorageUnavailable> = Effect.suspend(() => {
    if (identityOf(statOf(file)) !== database) return gone(file)
    const found = statOf(logFile)
    if (identityOf(found) !== log) return renewLog
    return found!.size < logBytesMax ? Effect.void : relieve
  })

  let isSealed = true
  /** A seal that isn't written counts too little, and does no harm before the database is put back. */
  const sealCommit = (): Effect.Effect<void> => {
    try {
      seal.write({ generation, commits })
      isSealed = true
      return Effect.void
    } catch (cause) {
      const wasSealed = isSealed
      isSealed = false
      return wasSealed
        ? Effect.logWarning(`"${sealFile}" can't be written: an older database would not be noticed`, cause)
        : Effect.void
    }
  }

  // What there is was synced with the log above. A database that was put here with its seal removed has one again.
  yield* Effect.suspend(sealCommit)

  /** The statements of one transaction, and the ids that it gives to maps it is the first to write. */
  const plan = (batches: ReadonlyArray<Batch>, noted: ReadonlyArray<Note>) => {
    const created = new Map<string, number>()
    const statements: Array<Statement> = []
    const written = new Map<number, Batch>()
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
    for (const batch of batches) {
      const { age, forgotten, kind, map, rows } = batch
      let id = mapIds.get(map) ?? created.get(map)
      if (id === undefined) {
        id = lastMapId + created.size + 1
        created.set(map, id)
        statements.push({ sql: insertMap, params: [id, map, kind] })
      }
      written.set(id, batch)
      for (const { cell, partition, record } of rows) {
        values.push(id, Buffer.from(cell, "utf8"), partition, record.row)
        if (record.isTombstone) values.push(age, crcOf(age, record.row))
        else values.push(null, null)
      }
      if (forgotten === undefined) continue
      // What comes after this may be what is forgotten here.
      cut()
      for (const { cell, record } of forgotten) {
        statements.push({ sql: forget, params: [id, Buffer.from(cell, "utf8"), record.row] })
      }
    }
    cut()
    for (const [id, { kind, map, totals: { hi, lo, records } }] of written) {
      statements.push({ sql: updateTotals, params: [records, hi, lo, crcOf(id, map, kind, records, hi, lo), id] })
    }
    for (const { key, space, value } of noted) {
      statements.push(
        value === undefined
          ? { sql: deleteNote, params: [space, key] }
          : { sql: upsertNote, params: [space, key, value] }
      )
    }
    const [next, mapCount] = [commits + 1, mapIds.size + created.size]
    statements.push({ sql: updateState, params: [next, mapCount, crcOf(next, mapCount)] })
    return { created, statements }
  }

  const commit = (
    batches: ReadonlyArray<Batch>,
    noted: ReadonlyArray<Note>
  ): Effect.Effect<void, StorageUnavailable> =>
    Effect.suspend(() => {
      const { created, statements } = plan(batches, noted)
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
            commits++
          })
        ),
        Effect.zipRight(inPlace),
        Effect.zipRight(Effect.suspend(sealCommit))
      )
    }).pipe(Effect.uninterruptible)

  return {
    kind: "sqlite",
    generation,
    nodeId,
    notes,
    load,
    snapshot,
    commit
  } satisfies Driver
})

interface StoredMeta {
  readonly name: string
  readonly value: string
}

interface StoredState {
  readonly commits: number
  readonly maps: number
  readonly crc: number
}

interface StoredMap {
  readonly id: number
  readonly name: string
  readonly kind: MapKind
  readonly records: number | null
  readonly digest_hi: number | null
  readonly digest_lo: number | null
  readonly crc: number | null
}

interface StoredNote {
  readonly space: string
  readonly key: string
  readonly value: Buffer
}

type StoredRow = readonly [
  rowid: number,
  map: number,
  key: string,
  partition: number,
  row: Buffer,
  age: number | null,
  crc: number | null,
  isFound: number
]

/** All tables but the records. */
const readTables = Effect.fnUntraced(function*(
  client: SqliteClient.SqliteClient,
  damaged: (cause: unknown) => StorageUnavailable
) {
  const entries = yield* client.unsafe<StoredMeta>("SELECT name, value FROM meta")
  const maps = yield* client.unsafe<StoredMap>("SELECT id, name, kind, records, digest_hi, digest_lo, crc FROM maps")
  const noted = yield* client.unsafe<StoredNote>("SELECT space, key, value FROM notes")
  const [state] = yield* client.unsafe<StoredState>("SELECT commits, maps, crc FROM state")
  const meta = new Map(entries.map(({ name, value }) => [name, value]))
  const fault = faultOf(entries, maps, state)
  if (fault !== undefined) return yield* damaged(fault)
  const notes = new Map<string, Map<string, Uint8Array>>()
  for (const { key, space, value } of noted) {
    notes.set(space, (notes.get(space) ?? new Map()).set(key, bytesOf(value)))
  }
  return { commits: state!.commits, generation: meta.get("generation")!, nodeId: meta.get("nodeId")!, maps, notes }
})

/** A record as it was stored. Throws for one that isn't. */
const recordOf = (
  maps: ReadonlyMap<number, StoredMap>,
  [rowid, id, key, , row, age, crc, isFound]: StoredRow
): StoredRecord => {
  const map = maps.get(id)
  if (map === undefined) throw new Error(`record ${rowid} is of no map that there is`)
  if (isFound !== 1) throw new Error(`record ${rowid} of map "${map.name}" isn't found by its key`)
  if (crc !== (age === null ? null : crcOf(age, row))) {
    throw new Error(`record ${rowid} of map "${map.name}" has an age that isn't its own`)
  }
  return { map: map.name, kind: map.kind, cell: key, row: bytesOf(row), age: age ?? undefined }
}

/** What of the smaller tables isn't what was stored. */
const faultOf = (
  meta: ReadonlyArray<StoredMeta>,
  maps: ReadonlyArray<StoredMap>,
  state: StoredState | undefined
): string | undefined => {
  if (meta.find(({ name }) => name === "crc")?.value !== String(crcOfMeta(meta))) {
    return "what it says of itself was changed"
  }
  if (state === undefined || state.crc !== crcOf(state.commits, state.maps)) {
    return "its count of transactions was changed"
  }
  if (state.maps !== maps.length) return `it has ${maps.length} maps, and ${state.maps} were stored`
  const map = maps.find(({ crc, digest_hi, digest_lo, id, kind, name, records }) =>
    crc !== (records === null ? null : crcOf(id, name, kind, records, digest_hi, digest_lo))
  )
  return map === undefined ? undefined : `what it says of map "${map.name}" was changed`
}

const statOf = (path: string): Stats | undefined => statSync(path, { throwIfNoEntry: false })

/** Which file that is; `undefined` where there is none. */
const identityOf = (found: Stats | undefined): string | undefined =>
  found === undefined ? undefined : `${found.dev} ${found.ino}`

const totalsOf = ({ digest_hi, digest_lo, records }: StoredMap): Totals | undefined =>
  records === null || digest_hi === null || digest_lo === null
    ? undefined
    : { records, hi: digest_hi, lo: digest_lo }

/** A plain view: Buffer's own `slice` would not copy, where one relies on it. */
const bytesOf = (buffer: Buffer): Uint8Array => new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength)
