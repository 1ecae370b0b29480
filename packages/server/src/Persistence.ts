/**
 * The log of the partitions: what they have merged, in a database, in group commits.
 *
 * Batches stand in one line, in the order in which they were merged. One fiber takes what waits, up to
 * {@link groupRowsMax} records, commits it in one transaction and settles the batches in order. So whoever is settled
 * knows that everything merged before is safe too, and an empty batch is a barrier.
 *
 * When a commit fails, everyone in line is told so. The records keep their place in line and the commit is tried again:
 * the partitions have merged them already, so they must come before anything that is settled later.
 *
 * Databases compare rows as bytes, exactly as memory does (`LwwRecord`): `where excluded.row > records.row` keeps an older
 * record from replacing a newer one, whatever the order of commits.
 */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as Reactivity from "@effect/experimental/Reactivity"
import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { ShuttingDown, StorageUnavailable } from "@topgun/core/GridError"
import { makeNodeId } from "@topgun/core/Hlc"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import type { MapKind } from "@topgun/core/Cell"
import { ServerConfig } from "./ServerConfig.ts"

/** A record to be kept. */
export interface Row {
  /** Which of the map's records it is: see `Cell`. */
  readonly cell: string
  readonly partition: number
  readonly record: LwwRecord
}

/** Records of one map that were merged together. */
export interface Batch {
  readonly map: string
  readonly kind: MapKind
  readonly rows: ReadonlyArray<Row>
}

/** Told once what became of a batch; `undefined` when it survives a crash of the machine. */
export type Settle = (failure: StorageUnavailable | ShuttingDown | undefined) => void

/** Told of each transaction: its records, how long it took, and whether it is committed. Plain, and never throws. */
export type OnCommit = (rows: number, seconds: number, isCommitted: boolean) => void

/** Takes one stored record; `row` belongs to the taker. Plain, as it's called once a record. */
export type OnRow = (map: string, kind: MapKind, cell: string, partition: number, row: Uint8Array) => void

/** What a database does for the log. */
export interface Driver {
  readonly kind: string
  /** Which store this is: a new one for each new database. */
  readonly generation: string
  /** Who the server writes as. Kept with its data. */
  readonly nodeId: string
  /** Hands over every stored record. What `onRow` throws is the store's fault: it isn't what was stored. */
  readonly load: (onRow: OnRow) => Effect.Effect<void, StorageUnavailable>
  /** All batches or none, in one transaction. Completes when they survive a crash of the machine. Interrupted, it's none. */
  readonly commit: (batches: ReadonlyArray<Batch>) => Effect.Effect<void, StorageUnavailable>
}

/** The log of the partitions. */
export class Persistence extends Context.Tag("@topgun/server/Persistence")<Persistence, {
  readonly kind: string
  /** Whether anything outlives the process. */
  readonly durable: boolean
  readonly generation: string
  readonly nodeId: string
  readonly load: Driver["load"]
  /** Puts batches, for one transaction, or a barrier, in line. Called in the order of merging; settled in that order. */
  readonly append: (batches: ReadonlyArray<Batch>, settle: Settle) => void
  /** Whether so much waits that nothing more should be merged. */
  readonly isFull: () => boolean
  /** Records that wait to be committed. */
  readonly waiting: () => number
  /** Has `onCommit` told of each transaction from now on. */
  readonly observe: (onCommit: OnCommit) => void
  /** Calls back, once, when the line is half empty again. */
  readonly onRoom: (resume: () => void) => void
  /** Waits until what is in line now is settled, well or not; has a failed commit tried again at once. */
  readonly flush: Effect.Effect<void>
}>() {}

/** Records in one transaction: some 10 ms of SQLite's time, during which the process does nothing else. */
export const groupRowsMax = 1_000
/** A failed commit is tried again after this long at first, and twice as long each time up to the last. */
export const retryMillis = { first: 100, last: 5_000 } as const

// --- Group commit ---

interface Waiting {
  readonly batches: ReadonlyArray<Batch>
  settle: Settle | undefined
}

const rowsOf = (batches: ReadonlyArray<Batch>): number => batches.reduce((sum, { rows }) => sum + rows.length, 0)

/** Everything that the event loop has ready comes first, so that writes that arrive together are committed together. */
const endOfTurn = Effect.async<void>((resume) => {
  // tidy-allow timer: no time passes; this is the event loop's own "after what is ready".
  const handle = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(handle))
})

/** The log over a driver. When its scope closes, what waits is committed within the time for shutting down. */
export const make = Effect.fnUntraced(function*(driver: Driver) {
  const { pendingCommitsMax, shutdownTimeout } = yield* ServerConfig
  const clock = yield* Effect.clock
  const observers: Array<OnCommit> = []
  let line: Array<Waiting> = []
  let rows = 0
  let committing = false
  let closed = false
  const roomWanted: Array<() => void> = []
  const wake = Effect.unsafeMakeLatch(false)
  /** Opened by those who won't wait until a failed commit's next try is due. */
  const hurry = Effect.unsafeMakeLatch(false)

  const takeGroup = (): ReadonlyArray<Waiting> => {
    let taken = 0
    let groupRows = 0
    while (taken < line.length) {
      const size = rowsOf(line[taken]!.batches)
      if (taken > 0 && groupRows + size > groupRowsMax) break
      groupRows += size
      taken++
    }
    const group = line.slice(0, taken)
    line = line.slice(taken)
    return group
  }

  const settleAll = (waiting: ReadonlyArray<Waiting>, failure: Parameters<Settle>[0]) => {
    for (const each of waiting) {
      const settle = each.settle
      each.settle = undefined
      settle?.(failure)
    }
  }

  const commitGroup: Effect.Effect<void, StorageUnavailable> = Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      const group = takeGroup()
      const batches = group.flatMap((waiting) => waiting.batches)
      committing = true
      const begunAt = clock.unsafeCurrentTimeNanos()
      const tell = (isCommitted: boolean) => {
        if (batches.length === 0) return
        const seconds = Number(clock.unsafeCurrentTimeNanos() - begunAt) / 1e9
        for (const observer of observers) observer(rowsOf(batches), seconds, isCommitted)
      }
      return Effect.matchCauseEffect(batches.length === 0 ? Effect.void : restore(driver.commit(batches)), {
        onFailure: (cause) => {
          committing = false
          line = [...group, ...line]
          // Shutting down: those in line wait for the last attempt.
          if (Cause.isInterruptedOnly(cause)) return Effect.failCause(cause)
          tell(false)
          const fault = Cause.squash(cause)
          const failure = fault instanceof StorageUnavailable
            ? fault
            : new StorageUnavailable({ reason: `the ${driver.kind} database`, cause: fault })
          settleAll(line, failure)
          return Effect.fail(failure)
        },
        onSuccess: () => {
          committing = false
          tell(true)
          rows -= rowsOf(batches)
          settleAll(group, undefined)
          if (rows <= pendingCommitsMax / 2) { for (const resume of roomWanted.splice(0)) resume() }
          return Effect.void
        }
      })
    })
  )

  const commitAll = Effect.whileLoop({ while: () => line.length > 0, body: () => commitGroup, step: () => {} })

  // Runs after the worker below was interrupted: finalizers run in reverse order.
  yield* Effect.addFinalizer(() =>
    commitAll.pipe(
      Effect.interruptible,
      Effect.timeout(shutdownTimeout),
      Effect.catchAll((failure) => Effect.logError("Writes that clients will send again were not saved", failure)),
      Effect.ensuring(Effect.sync(() => {
        closed = true
        settleAll(line.splice(0), new ShuttingDown())
      }))
    )
  )
  let delay: number = retryMillis.first
  yield* Effect.forever(
    wake.await.pipe(
      Effect.zipRight(endOfTurn),
      Effect.zipRight(Effect.suspend(() => {
        if (line.length === 0) {
          wake.unsafeClose()
          return Effect.void
        }
        hurry.unsafeClose()
        return Effect.matchEffect(commitGroup, {
          onSuccess: () => {
            delay = retryMillis.first
            return Effect.void
          },
          onFailure: (failure) => {
            const pause = delay
            delay = Math.min(delay * 2, retryMillis.last)
            return Effect.zipRight(
              Effect.logError(`${failure.message}. ${rows} records wait; next try in ${pause} ms`),
              Effect.raceFirst(Effect.sleep(pause), hurry.await)
            )
          }
        })
      }))
    )
  ).pipe(Effect.forkScoped)

  const append = (batches: ReadonlyArray<Batch>, settle: Settle): void => {
    if (closed) return settle(new ShuttingDown())
    const size = rowsOf(batches)
    if (size === 0 && line.length === 0 && !committing) return settle(undefined)
    rows += size
    line.push({ batches: size === 0 ? [] : batches, settle })
    wake.unsafeOpen()
  }

  return Persistence.of({
    kind: driver.kind,
    durable: true,
    generation: driver.generation,
    nodeId: driver.nodeId,
    load: driver.load,
    append,
    isFull: () => rows >= pendingCommitsMax,
    waiting: () => rows,
    observe: (onCommit) => void observers.push(onCommit),
    onRoom: (resume) => {
      roomWanted.push(resume)
    },
    flush: Effect.async<void>((resume) => {
      append([], () => resume(Effect.void))
      hurry.unsafeOpen()
    })
  })
})

// --- Memory ---

/** No log: everything is gone with the process, and clients are told so when they connect. */
export const layerMemory: Layer.Layer<Persistence> = Layer.effect(
  Persistence,
  Effect.map(Effect.all([makeNodeId, makeNodeId]), ([generation, nodeId]) =>
    Persistence.of({
      kind: "memory",
      durable: false,
      generation,
      nodeId,
      load: () => Effect.void,
      append: (_, settle) => settle(undefined),
      isFull: () => false,
      waiting: () => 0,
      observe: () => {},
      onRoom: (resume) => resume(),
      flush: Effect.void
    }))
)

// --- SQLite ---

/** The layout of the tables that this version reads and writes. */
export const format = 1

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
        { name: "format", value: String(format) },
        { name: "generation", value: generation },
        { name: "nodeId", value: nodeId }
      ])
    }`
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

/** What went wrong with the database, and what mends it. */
const explain = (file: string, directory: string, cause: unknown): StorageUnavailable => {
  const code = sqliteCode(cause)
  const reason = /^SQLITE_(BUSY|LOCKED)/.test(code)
    ? `another server uses the data directory "${directory}": stop it, or give this one a directory of its own ` +
      "(--data-dir or TOPGUN_DATA_DIR)"
    : /^SQLITE_(NOTADB|CORRUPT)/.test(code)
    ? `the database "${file}" is damaged (${
      messageOf(cause)
    }): restore it from a backup, or move it away to begin with none`
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
const upserts = new Map(chunkSizes.map((size) => [
  size,
  `INSERT INTO records (map, key, partition, row) VALUES ${
    Array.from({ length: size }, () => "(?, ?, ?, ?)").join(", ")
  }
   ON CONFLICT (map, key) DO UPDATE SET row = excluded.row WHERE excluded.row > records.row`
]))

interface Statement {
  readonly sql: string
  readonly params: ReadonlyArray<unknown>
}

/** Rows of one page when loading: some 10 ms of work, between which probes are answered. */
const pageRows = 1_000
const selectPage =
  `SELECT rowid, map, key, partition, row FROM records WHERE rowid > ? ORDER BY rowid LIMIT ${pageRows}`

const makeSqlite = Effect.gen(function*() {
  const { dataDir } = yield* ServerConfig
  const file = join(dataDir, "topgun.db")
  const failed = (cause: unknown) => explain(file, dataDir, cause)

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
    const maps = yield* client.unsafe<{ readonly id: number; readonly name: string; readonly kind: string }>(
      "SELECT id, name, kind FROM maps"
    )
    return { meta: new Map(meta.map(({ name, value }) => [name, value])), maps }
  })
  const { maps, meta } = yield* open.pipe(
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

  const load = (onRow: OnRow): Effect.Effect<void, StorageUnavailable> =>
    Effect.suspend(() => {
      const byId = new Map(maps.map(({ id, kind, name }) => [id, { kind: kind as MapKind, name }]))
      let last = 0
      let done = false
      const take = (rows: ReadonlyArray<StoredRow>) => {
        for (const [rowid, map, key, partition, row] of rows) {
          const { kind, name } = byId.get(map)!
          onRow(name, kind, key.toString("utf8"), partition, bytesOf(row))
          last = rowid
        }
        done = rows.length < pageRows
      }
      const page = Effect.suspend(() => connection.executeValues(selectPage, [last])).pipe(
        Effect.mapError(failed),
        Effect.flatMap((rows) => Effect.try({ try: () => take(rows as ReadonlyArray<StoredRow>), catch: failed })),
        Effect.zipLeft(endOfTurn)
      )
      return Effect.whileLoop({ while: () => !done, body: () => page, step: () => {} })
    })

  /** The statements of one transaction, and the ids that it gives to maps it is the first to write. */
  const plan = (batches: ReadonlyArray<Batch>) => {
    const created = new Map<string, number>()
    const statements: Array<Statement> = []
    const values: Array<unknown> = []
    for (const { kind, map, rows } of batches) {
      let id = mapIds.get(map) ?? created.get(map)
      if (id === undefined) {
        id = lastMapId + created.size + 1
        created.set(map, id)
        statements.push({ sql: "INSERT INTO maps (id, name, kind) VALUES (?, ?, ?)", params: [id, map, kind] })
      }
      for (const { cell, partition, record } of rows) values.push(id, Buffer.from(cell, "utf8"), partition, record.row)
    }
    let at = 0
    for (const size of chunkSizes) {
      while (values.length - at >= size * 4) {
        statements.push({ sql: upserts.get(size)!, params: values.slice(at, at + size * 4) })
        at += size * 4
      }
    }
    return { created, statements }
  }

  const commit = (batches: ReadonlyArray<Batch>): Effect.Effect<void, StorageUnavailable> =>
    Effect.suspend(() => {
      const { created, statements } = plan(batches)
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
    load,
    commit
  } satisfies Driver
})

type StoredRow = readonly [rowid: number, map: number, key: Buffer, partition: number, row: Buffer]

/** A plain view: Buffer's own `slice` would not copy, where one relies on it. */
const bytesOf = (buffer: Buffer): Uint8Array => new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength)

/** SQLite in the data directory, held by this process alone. */
export const layerSqlite: Layer.Layer<Persistence, StorageUnavailable, ServerConfig> = Layer.scoped(
  Persistence,
  Effect.flatMap(makeSqlite, make)
)
