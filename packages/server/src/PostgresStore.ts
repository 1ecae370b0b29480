/**
 * The log's database on a server of its own: PostgreSQL, over one connection that commits all there is, in the schema `topgun`.
 *
 * One server at a time, twice over. The connection holds an advisory lock for as long as it lives, which keeps a second server from
 * starting. And `meta` says who owns the database: each transaction looks, with that row locked, whether it is still this server's.
 * So one whose connection was cut, and whose place another took meanwhile, never commits again.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Reactivity from "@effect/experimental/Reactivity"
import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import type { MapKind } from "@topgun/core/Cell"
import { StorageUnavailable } from "@topgun/core/GridError"
import { makeNodeId } from "@topgun/core/Hlc"
import {
  type Batch,
  type Driver,
  endOfTurn,
  type Loader,
  type Note,
  type Refill,
  type Row,
  type Snapshot,
  type Totals
} from "./GroupCommit.ts"
import {
  ask,
  connect,
  explain,
  isPassing,
  messageOf,
  type Place,
  placeOf,
  PostgresFault,
  type Session,
  type Statement,
  transact,
  variable
} from "./internal/PostgresSession.ts"
import { ServerConfig } from "./ServerConfig.ts"

/** The layout of the tables that this version reads and writes. */
export const format = 1

/** How long a server that starts waits for its database to be there, and for a server that went away to be gone from it. */
export const startMillisMax = { database: 30_000, lock: 5_000 } as const

/** How long making a connection may take. */
const connectMillisMax = 5_000
/** How long after one try to connect the next one comes. */
const againMillis = 500
/** How often a lock that another holds is tried. */
const lockMillis = 200

const migrations = Migrator.fromRecord({
  // Keys and names are bytes: PostgreSQL's text holds no NUL. No references: each would be looked up with every record.
  "0001_records": Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE topgun.meta (name text PRIMARY KEY, value text NOT NULL)`
    yield* sql`CREATE TABLE topgun.maps (
      id integer PRIMARY KEY,
      name bytea NOT NULL UNIQUE,
      kind text NOT NULL,
      records bigint NOT NULL,
      digest_hi integer NOT NULL,
      digest_lo integer NOT NULL
    )`
    yield* sql`CREATE TABLE topgun.records (
      map integer NOT NULL,
      key bytea NOT NULL,
      partition integer NOT NULL,
      row bytea NOT NULL,
      age bigint,
      PRIMARY KEY (map, key)
    )`
    yield* sql`CREATE TABLE topgun.notes (space text NOT NULL, key bytea NOT NULL, value bytea NOT NULL, PRIMARY KEY (space, key))`
    const generation = yield* makeNodeId
    const nodeId = yield* makeNodeId
    yield* sql`INSERT INTO topgun.meta ${
      sql.insert([
        { name: "format", value: String(format) },
        { name: "generation", value: generation },
        { name: "nodeId", value: nodeId },
        { name: "owner", value: "" }
      ])
    }`
  })
})

// --- Statements ---

/** "topgun" in ASCII. Advisory locks are each database's own. */
const lockKey = 0x74_6f_70_67_75_6e

/**
 * What a session needs, whatever the server's and the user's defaults are: bytes in hexadecimal; a client that is gone without a word
 * noticed in half a minute, so that its lock is free; and no end of a session that only waits. A server too old for one does without.
 */
const prepareSession = `
  SELECT set_config(name, wanted, false) FROM pg_settings JOIN (VALUES
    ('bytea_output', 'hex'),
    ('tcp_keepalives_idle', '10'),
    ('tcp_keepalives_interval', '5'),
    ('tcp_keepalives_count', '4'),
    ('idle_session_timeout', '0')
  ) AS settings (name, wanted) USING (name)`

const askSafety =
  "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off' ORDER BY name"

const tryLock = `SELECT pg_try_advisory_lock(${lockKey}) AS locked`

const askBackend = "SELECT pid, backend_start::text AS since FROM pg_stat_activity WHERE pid = pg_backend_pid()"

const endBackend = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2"

const askOwner = "SELECT 1 FROM topgun.meta WHERE name = 'owner' AND split_part(value, '/', 1) = $1"

const askTables =
  "SELECT to_regnamespace('topgun') IS NOT NULL AS schema, to_regclass('topgun.meta') IS NOT NULL AS meta"

/**
 * Finds nothing unless this server owns the database; keeps the row as it is until the end of the transaction. Asks for a commit that
 * survives a crash of the machine, whatever the defaults are; `remote_apply` is more than that.
 */
const fence = `
  SELECT set_config(
    'synchronous_commit',
    CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END,
    true
  ) FROM topgun.meta WHERE name = 'owner' AND value = $1 FOR SHARE`

const insertMaps = `
  INSERT INTO topgun.maps (id, name, kind, records, digest_hi, digest_lo)
  SELECT id, name, kind, 0, 0, 0 FROM unnest($1::integer[], $2::bytea[], $3::text[]) AS given (id, name, kind)`

const upsertRecords = `
  INSERT INTO topgun.records (map, key, partition, row, age)
  SELECT * FROM unnest($1::integer[], $2::bytea[], $3::integer[], $4::bytea[], $5::bigint[])
  ON CONFLICT (map, key) DO UPDATE SET row = excluded.row, age = excluded.age WHERE excluded.row > records.row`

const forgetRecords = `
  DELETE FROM topgun.records
  USING unnest($1::integer[], $2::bytea[], $3::bytea[]) AS given (map, key, row)
  WHERE records.map = given.map AND records.key = given.key AND records.row = given.row`

const updateTotals = `
  UPDATE topgun.maps SET records = given.records, digest_hi = given.hi, digest_lo = given.lo
  FROM unnest($1::integer[], $2::bigint[], $3::integer[], $4::integer[]) AS given (id, records, hi, lo)
  WHERE maps.id = given.id`

const upsertNotes = `
  INSERT INTO topgun.notes (space, key, value) SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[])
  ON CONFLICT (space, key) DO UPDATE SET value = excluded.value`

const deleteNotes = `
  DELETE FROM topgun.notes USING unnest($1::text[], $2::bytea[]) AS given (space, key)
  WHERE notes.space = given.space AND notes.key = given.key`

/** Bytes of records in one statement, so that none comes near PostgreSQL's 1 GB, nor a string near JavaScript's half of that. */
const statementBytesMax = 8 * 1024 * 1024

const view = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** An array of bytes as PostgreSQL reads it. */
const byteas = (items: ReadonlyArray<Buffer>): string =>
  items.length === 0 ? "{}" : `{"${items.map((item) => `\\\\x${item.toString("hex")}`).join("\",\"")}"}`

const numbers = (items: ReadonlyArray<number | null>): string => `{${items.map((item) => item ?? "NULL").join(",")}}`

/** Records on their way into one statement, which can't touch one of them twice: the greatest row of each goes there. */
class Upsert {
  private readonly rows = new Map<string, readonly [map: number, row: Row, age: number | null]>()
  private bytes = 0

  isFull(): boolean {
    return this.bytes >= statementBytesMax
  }

  add(map: number, row: Row, age: number | null): void {
    const id = `${map} ${row.cell}`
    const other = this.rows.get(id)
    if (other !== undefined && Buffer.compare(row.record.row, other[1].record.row) <= 0) return
    this.rows.set(id, [map, row, age])
    this.bytes += row.record.row.length + row.cell.length
  }

  takeAll(): ReadonlyArray<Statement> {
    if (this.rows.size === 0) return []
    const rows = Array.from(this.rows.values())
    this.rows.clear()
    this.bytes = 0
    return [{
      name: "upsertRecords",
      text: upsertRecords,
      values: [
        numbers(rows.map(([map]) => map)),
        byteas(rows.map(([, { cell }]) => Buffer.from(cell, "utf8"))),
        numbers(rows.map(([, { partition }]) => partition)),
        byteas(rows.map(([, { record }]) => view(record.row))),
        numbers(rows.map(([, , age]) => age))
      ]
    }]
  }
}

/** The maps that are stored, by name. */
interface MapIds {
  readonly byName: Map<string, number>
  last: number
}

/** The statements of one transaction, and the ids that it gives to maps it is the first to write. */
const plan = (batches: ReadonlyArray<Batch>, written: ReadonlyArray<Note>, known: MapIds) => {
  const created = new Map<string, number>()
  const kinds: Array<MapKind> = []
  const totals = new Map<number, Totals>()
  const records: Array<Statement> = []
  const upsert = new Upsert()
  for (const batch of batches) {
    let id = known.byName.get(batch.map) ?? created.get(batch.map)
    if (id === undefined) {
      id = known.last + created.size + 1
      created.set(batch.map, id)
      kinds.push(batch.kind)
    }
    totals.set(id, batch.totals)
    for (const row of batch.rows) {
      if (upsert.isFull()) records.push(...upsert.takeAll())
      upsert.add(id, row, row.record.isTombstone ? batch.age : null)
    }
    const { forgotten = [] } = batch
    if (forgotten.length === 0) continue
    // What comes after this may be what is forgotten here.
    records.push(...upsert.takeAll(), {
      name: "forgetRecords",
      text: forgetRecords,
      values: [
        numbers(forgotten.map(() => id)),
        byteas(forgotten.map(({ cell }) => Buffer.from(cell, "utf8"))),
        byteas(forgotten.map(({ record }) => view(record.row)))
      ]
    })
  }
  records.push(...upsert.takeAll())
  const statements: Array<Statement> = []
  if (created.size > 0) {
    statements.push({
      name: "insertMaps",
      text: insertMaps,
      values: [
        numbers(Array.from(created.values())),
        byteas(Array.from(created.keys(), (name) => Buffer.from(name, "utf8"))),
        kinds
      ]
    })
  }
  statements.push(...records)
  if (totals.size > 0) {
    const all = Array.from(totals.values())
    statements.push({
      name: "updateTotals",
      text: updateTotals,
      values: [
        numbers(Array.from(totals.keys())),
        numbers(all.map((each) => each.records)),
        numbers(all.map(({ hi }) => hi)),
        numbers(all.map(({ lo }) => lo))
      ]
    })
  }
  statements.push(...planNotes(written))
  return { created, statements }
}

const planNotes = (written: ReadonlyArray<Note>): ReadonlyArray<Statement> => {
  const last = Array.from(new Map(written.map((note) => [JSON.stringify([note.space, note.key]), note])).values())
  const keys = (notes: ReadonlyArray<Note>) => [
    notes.map(({ space }) => space),
    byteas(notes.map(({ key }) => Buffer.from(key, "utf8")))
  ]
  const kept = last.filter(({ value }) => value !== undefined)
  const dropped = last.filter(({ value }) => value === undefined)
  return [
    ...kept.length === 0 ? [] : [{
      name: "upsertNotes",
      text: upsertNotes,
      values: [...keys(kept), byteas(kept.map(({ value }) => view(value!)))]
    }],
    ...dropped.length === 0 ? [] : [{ name: "deleteNotes", text: deleteNotes, values: keys(dropped) }]
  ]
}

type Values = ReadonlyArray<unknown>

/** What the migrator works with. */
const clientOf = (session: Session): Effect.Effect<SqlClient.SqlClient> => {
  const execute = (text: string, values: Values) =>
    Effect.mapError(ask<object>(session, text, values), (cause) => new SqlError({ cause }))
  const connection: Connection = {
    execute: (text, values) => execute(text, values),
    executeRaw: execute,
    executeUnprepared: (text, values) => execute(text, values),
    executeValues: (text, values) => Effect.map(execute(text, values), (rows) => rows.map((row) => Object.values(row))),
    executeStream: (text, values) => Stream.fromIterableEffect(execute(text, values))
  }
  return SqlClient.make({
    acquirer: Effect.succeed(connection),
    compiler: PgClient.makeCompiler(),
    spanAttributes: []
  }).pipe(Effect.provideServiceEffect(Reactivity.Reactivity, Reactivity.make))
}

// --- The store ---

/** The process that serves a session. */
interface Backend {
  readonly pid: number
  readonly since: string
}

interface StoredMap {
  readonly id: number
  readonly name: Buffer
  readonly kind: MapKind
  readonly records: number
  readonly digest_hi: number
  readonly digest_lo: number
}

interface StoredNote {
  readonly space: string
  readonly key: Buffer
  readonly value: Buffer
}

/** As PostgreSQL writes it. */
type StoredRow = readonly [map: string, key: string, partition: string, row: string, age: string | null]

const selectMaps = "SELECT id, name, kind, records, digest_hi, digest_lo FROM topgun.maps"

const countRecords = `
  SELECT maps.name, count(records.map) AS count FROM topgun.maps LEFT JOIN topgun.records ON records.map = maps.id
  GROUP BY maps.id`

/** Whoever a backup goes to may be slow, whatever the defaults are. */
const waitForReader = "SELECT set_config('idle_in_transaction_session_timeout', '0', false)"

const readStored = [
  "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
  "DECLARE stored NO SCROLL CURSOR FOR SELECT map, key, partition, row, age FROM topgun.records"
] as const

/** Rows of one page when loading: some 10 ms of work, between which probes are answered. */
const pageRows = 2_000

const asText = { getTypeParser: () => String }

/** Fewer, as more is done with each. */
const snapshotRows = 250

const fetchPage = ({ client }: Session, rows = pageRows): Promise<ReadonlyArray<StoredRow>> =>
  new Promise((resolve, reject) =>
    client.query<[string, string, string, string, string | null]>(
      { text: `FETCH ${rows} FROM stored`, rowMode: "array", types: asText },
      (error, result) => error ? reject(error) : resolve(result.rows)
    )
  )

/** A plain view: Buffer's own `slice` would not copy, where one relies on it. */
const plain = (buffer: Buffer): Uint8Array => new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength)

/** Keys are read by way of it, so that none takes up memory beside the rows that stay. */
const scratch = Buffer.alloc(8 * 1024)

const readKey = (text: string): string => {
  const hex = text.slice(2)
  if (hex.length > scratch.length * 2) return Buffer.from(hex, "hex").toString("utf8")
  return scratch.toString("utf8", 0, scratch.write(hex, "hex"))
}

/** The database of a URL. Its scope is its connection. */
export const make = Effect.gen(function*() {
  const { commitTimeout, databaseUrl } = yield* ServerConfig
  if (databaseUrl === undefined) {
    return yield* Effect.dieMessage("the settings have storage postgres without databaseUrl")
  }
  const address = Redacted.value(databaseUrl)
  const place: Place = yield* Effect.try({
    try: () => placeOf(address),
    catch: (cause) => new StorageUnavailable({ reason: `${variable} can't be used (${messageOf(cause)})` })
  })
  const name = `PostgreSQL's database "${place.database}" at ${place.at}`
  const failed = (cause: unknown) => cause instanceof StorageUnavailable ? cause : explain(place, cause)
  const damaged = (cause: unknown) =>
    new StorageUnavailable({
      reason: `${name} isn't what was stored (${messageOf(cause)}): restore it from a backup, or begin with another`,
      cause
    })

  /** This server, among all that ever own the database. */
  const server = yield* makeNodeId
  /** This server, with its present session: one that was given up can't commit behind its successor. */
  let owner = ""
  let sessions = 0
  let session: Session | undefined
  let backend: Backend | undefined
  let maps: MapIds = { byName: new Map(), last: 0 }
  /** Once another server has the database, this one never commits again. */
  let taken: StorageUnavailable | undefined
  const mutex = Effect.unsafeMakeSemaphore(1)
  const isCut = Effect.unsafeMakeLatch(false)

  const takenByAnother = Effect.suspend(() => {
    taken = new StorageUnavailable({
      reason:
        `another server has taken ${name} while this one had no connection to it, and nothing of this one's is saved any ` +
        "more: stop one of the two, and start this one anew if it's the one to stay"
    })
    session?.destroy()
    return taken
  })

  /** A connection as it has to be, to a database that keeps what is committed. */
  const openWith = (onCut: () => void) =>
    connect(address, onCut).pipe(
      Effect.tap((made) =>
        Effect.gen(function*() {
          yield* ask(made, prepareSession)
          const off = yield* ask<{ readonly name: string }>(made, askSafety)
          if (off.length === 0) return
          return yield* new StorageUnavailable({
            reason: `PostgreSQL at ${place.at} runs with ${
              off.map((each) => `${each.name} = off`).join(" and ")
            }, and loses what is ` +
              "committed when its machine crashes: turn it on in postgresql.conf"
          })
        }).pipe(Effect.onError(() => Effect.sync(made.destroy)))
      ),
      Effect.timeoutFail({
        duration: connectMillisMax,
        onTimeout: () => new PostgresFault({ cause: new Error("it doesn't answer") })
      })
    )
  const open = openWith(() => isCut.unsafeOpen())

  const isOurs = (made: Session) => Effect.map(ask(made, askOwner, [server]), (rows) => rows.length > 0)

  const lock = (made: Session) =>
    Effect.gen(function*() {
      if (backend !== undefined) yield* ask(made, endBackend, [backend.pid, backend.since])
      const until = (yield* Clock.currentTimeMillis) + startMillisMax.lock
      for (let tries = 0;; tries++) {
        const [answer] = yield* ask<{ readonly locked: boolean }>(made, tryLock)
        if (answer?.locked === true) break
        if (owner !== "" && !(yield* isOurs(made))) return yield* takenByAnother
        if ((yield* Clock.currentTimeMillis) >= until) {
          return yield* new StorageUnavailable({
            reason: `another server uses ${name}: stop it, or give this one a database of its own (${variable})`
          })
        }
        if (tries === 0) {
          yield* Effect.logWarning(`Another server has the database. Waiting for it to let go of ${name}`)
        }
        yield* Effect.sleep(lockMillis)
      }
      const [served] = yield* ask<Backend>(made, askBackend)
      backend = served
    })

  /** Makes this session the owner; `false` where `condition` doesn't hold of the owner before. */
  const own = (made: Session, condition: string, values: Values) =>
    Effect.gen(function*() {
      const next = `${server}/${++sessions}`
      const owned = yield* ask(
        made,
        `UPDATE topgun.meta SET value = $1 WHERE name = 'owner' AND ${condition} RETURNING name`,
        [next, ...values]
      )
      if (owned.length > 0) owner = next
      return owned.length > 0
    })

  const readMaps = (made: Session) =>
    Effect.map(ask<StoredMap>(made, selectMaps), (stored) => {
      maps = {
        byName: new Map(stored.map((map) => [map.name.toString("utf8"), map.id])),
        last: stored.reduce((last, { id }) => Math.max(last, id), 0)
      }
      return stored
    })

  /** The session that commits: the one there is, or this server's next. */
  const current = Effect.suspend(() => {
    if (taken !== undefined) return taken
    if (session?.isOpen() === true) return Effect.succeed(session)
    return Effect.flatMap(open, (made) =>
      lock(made).pipe(
        Effect.zipRight(own(made, "split_part(value, '/', 1) = $2", [server])),
        Effect.flatMap((isOwned): Effect.Effect<unknown, StorageUnavailable | PostgresFault> =>
          isOwned ? readMaps(made) : takenByAnother
        ),
        Effect.map(() => session = made),
        Effect.onError(() => Effect.sync(made.destroy))
      ))
  })

  const readNotes = (made: Session) =>
    Effect.map(ask<StoredNote>(made, "SELECT space, key, value FROM topgun.notes"), (noted) => {
      const notes = new Map<string, Map<string, Uint8Array>>()
      for (const { key, space, value } of noted) {
        notes.set(space, (notes.get(space) ?? new Map()).set(key.toString("utf8"), plain(value)))
      }
      return notes
    })

  const refuseNewer = (made: Session) =>
    Effect.gen(function*() {
      const [row] = yield* ask<{ readonly value: string }>(made, "SELECT value FROM topgun.meta WHERE name = 'format'")
      if (Number(row?.value) <= format) return
      return yield* new StorageUnavailable({
        reason:
          `${name} has format ${row?.value}, this server knows formats up to ${format}: run the newer server that wrote it`
      })
    })

  /** Takes the database over, with the tables as this version has them. */
  const begin = (made: Session) =>
    Effect.gen(function*() {
      const [known] = yield* ask<{ readonly schema: boolean; readonly meta: boolean }>(made, askTables)
      if (known?.meta === true) yield* refuseNewer(made)
      yield* lock(made)
      if (known?.schema !== true) yield* ask(made, "CREATE SCHEMA topgun")
      const sql = yield* clientOf(made)
      yield* Migrator.make({})({ loader: migrations, table: "topgun.migrations" }).pipe(
        Effect.provideService(SqlClient.SqlClient, sql)
      )
      yield* own(made, "true", [])
      const meta = yield* ask<{ readonly name: string; readonly value: string }>(
        made,
        "SELECT name, value FROM topgun.meta"
      )
      const notes = yield* readNotes(made)
      const stored = yield* readMaps(made)
      session = made
      return { meta: new Map(meta.map((each) => [each.name, each.value])), notes, stored }
    }).pipe(
      Effect.timeoutFail({
        duration: Duration.sum(commitTimeout, startMillisMax.lock),
        onTimeout: () => new PostgresFault({ cause: new Error("it doesn't answer") })
      }),
      Effect.onError(() => Effect.sync(made.destroy))
    )

  yield* Effect.addFinalizer(() => session?.isOpen() === true ? session.close : Effect.void)

  const startedAt = yield* Clock.currentTimeMillis
  let isTold = false
  const { meta, notes, stored } = yield* open.pipe(
    Effect.tapError((fault) => {
      if (isTold || !isPassing(fault)) return Effect.void
      isTold = true
      return Effect.logWarning(`Waiting for the database. ${failed(fault).message}`)
    }),
    Effect.retry({
      schedule: Schedule.spaced(againMillis),
      while: (fault) =>
        Effect.map(Clock.currentTimeMillis, (now) => isPassing(fault) && now < startedAt + startMillisMax.database)
    }),
    Effect.flatMap(begin),
    Effect.sandbox,
    Effect.mapError((cause) => failed(Cause.squash(cause)))
  )

  // Without a commit to need it, too: for as long as there is no session, another server may take the database.
  yield* isCut.await.pipe(
    Effect.zipRight(Effect.sync(() => isCut.unsafeClose())),
    Effect.zipRight(mutex.withPermits(1)(current)),
    Effect.retry({ schedule: Schedule.spaced(againMillis), while: () => taken === undefined }),
    Effect.ignore,
    Effect.forever,
    Effect.forkScoped
  )

  const load = (loader: Loader): Effect.Effect<void, StorageUnavailable> =>
    Effect.gen(function*() {
      const reading = yield* current
      const byId = new Map(stored.map((map) => [String(map.id), { kind: map.kind, name: map.name.toString("utf8") }]))
      const take = (rows: ReadonlyArray<StoredRow>) => {
        for (const [id, key, partition, row, age] of rows) {
          const map = byId.get(id)
          if (map === undefined) throw new Error(`a record is of map ${id}, and there is none`)
          loader.record(
            map.name,
            map.kind,
            readKey(key),
            Number(partition),
            plain(Buffer.from(row.slice(2), "hex")),
            age === null ? undefined : Number(age)
          )
        }
      }
      const pages = Effect.gen(function*() {
        for (const statement of readStored) yield* ask(reading, statement)
        for (;;) {
          const rows = yield* Effect.tryPromise({
            try: () => fetchPage(reading),
            catch: (cause) => new PostgresFault({ cause })
          })
          yield* Effect.try({ try: () => take(rows), catch: damaged })
          yield* endOfTurn
          if (rows.length < pageRows) break
        }
        yield* ask(reading, "COMMIT")
      })
      yield* Effect.onError(pages, () => Effect.sync(reading.destroy))
      yield* Effect.try({
        try: () => {
          for (const { digest_hi, digest_lo, kind, name: map, records } of stored) {
            loader.complete(map.toString("utf8"), kind, { records, hi: digest_hi, lo: digest_lo })
          }
        },
        catch: damaged
      })
    }).pipe(mutex.withPermits(1), Effect.mapError(failed))

  const snapshot = Effect.gen(function*() {
    const reading = yield* Effect.acquireRelease(openWith(() => {}), (made) => Effect.sync(made.destroy))
    yield* ask(reading, waitForReader)
    const [transaction, cursor] = readStored
    yield* ask(reading, transaction)
    const inIt = yield* ask<StoredMap>(reading, selectMaps)
    const noted = yield* readNotes(reading)
    yield* ask(reading, cursor)
    const byId = new Map(inIt.map((map) => [String(map.id), { kind: map.kind, map: map.name.toString("utf8") }]))
    return {
      maps: inIt.map(({ digest_hi, digest_lo, kind, name: map, records }) => ({
        map: map.toString("utf8"),
        kind,
        totals: { records, hi: digest_hi, lo: digest_lo }
      })),
      notes: noted,
      next: Effect.tryPromise({ try: () => fetchPage(reading, snapshotRows), catch: failed }).pipe(
        Effect.flatMap((rows) =>
          Effect.try({
            try: () =>
              rows.map(([id, key, , row, age]) => {
                const map = byId.get(id)
                if (map === undefined) throw new Error(`a record is of map ${id}, and there is none`)
                return {
                  ...map,
                  cell: readKey(key),
                  row: plain(Buffer.from(row.slice(2), "hex")),
                  age: age === null ? undefined : Number(age)
                }
              }),
            catch: damaged
          })
        )
      )
    } satisfies Snapshot
  }).pipe(Effect.mapError(failed))

  /** In one transaction. Its scope undoes it, unless it's finished. */
  const refill = Effect.gen(function*() {
    let isFinished = false
    const filling = yield* Effect.acquireRelease(
      current,
      (made) => isFinished ? Effect.void : Effect.sync(made.destroy)
    )
    yield* ask(filling, "BEGIN ISOLATION LEVEL READ COMMITTED")
    const owned = yield* ask(filling, fence, [owner])
    if (owned.length === 0) return yield* takenByAnother
    yield* ask(filling, "TRUNCATE topgun.records, topgun.maps, topgun.notes")
    const filled: MapIds = { byName: new Map(), last: 0 }
    return {
      hasData: stored.length > 0,
      commit: (batches, written) =>
        Effect.gen(function*() {
          const { created, statements } = plan(batches, written, filled)
          for (const { text, values } of statements) yield* ask(filling, text, values)
          for (const [map, id] of created) filled.byName.set(map, id)
          filled.last += created.size
        }).pipe(Effect.mapError(failed)),
      finish: (totals) =>
        Effect.gen(function*() {
          const counted = yield* ask<{ readonly name: Buffer; readonly count: number }>(filling, countRecords)
          for (const each of counted) {
            const map = each.name.toString("utf8")
            if (totals.get(map)?.records !== each.count) yield* damaged(`map "${map}" has ${each.count} records`)
          }
          for (const key of ["generation", "nodeId"]) {
            yield* ask(filling, "UPDATE topgun.meta SET value = $1 WHERE name = $2", [yield* makeNodeId, key])
          }
          yield* ask(filling, "COMMIT")
          isFinished = true
          return { kept: undefined }
        }).pipe(Effect.mapError(failed))
    } satisfies Refill
  }).pipe(Effect.mapError(failed))

  const commit = (
    batches: ReadonlyArray<Batch>,
    written: ReadonlyArray<Note>
  ): Effect.Effect<void, StorageUnavailable> =>
    Effect.gen(function*() {
      const committing = yield* current
      const { created, statements } = plan(batches, written, maps)
      const isOwned = yield* transact(committing, { name: "fence", text: fence, values: [owner] }, statements).pipe(
        Effect.onInterrupt(() => Effect.sync(committing.destroy))
      )
      if (!isOwned) return yield* takenByAnother
      for (const [map, id] of created) maps.byName.set(map, id)
      maps.last += created.size
    }).pipe(
      mutex.withPermits(1),
      Effect.timeoutFail({
        duration: commitTimeout,
        onTimeout: () =>
          new StorageUnavailable({
            reason: `${name} hasn't committed within ${Duration.format(commitTimeout)} (TOPGUN_COMMIT_TIMEOUT)`
          })
      }),
      Effect.mapError(failed)
    )

  return {
    kind: "postgres",
    generation: meta.get("generation")!,
    nodeId: meta.get("nodeId")!,
    notes,
    load,
    snapshot,
    refill,
    commit
  } satisfies Driver & { readonly refill: unknown }
})
