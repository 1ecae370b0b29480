/**
 * Fills a data directory anew. The database is made in a directory of its own, read back, and renamed to its place: until then there is what
 * there was, and from then on the new one, whenever the process dies. Meanwhile the old one is locked, as a server would have it.
 */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as Reactivity from "@effect/experimental/Reactivity"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import {
  closeSync,
  copyFileSync,
  existsSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  statSync
} from "node:fs"
import { basename, join } from "node:path"
import { Tally } from "@topgun/core/BackupFile"
import type { StorageUnavailable } from "@topgun/core/GridError"
import type { Refill } from "../GroupCommit.ts"
import { ServerConfig } from "../ServerConfig.ts"
import * as SqliteStore from "../SqliteStore.ts"

/** Has a directory's entries survive a crash of the machine. */
const syncDirectory = (path: string): void => {
  const fd = openSync(path, "r")
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** The same file under another name, or a copy where the file system knows no such thing. */
const keep = (from: string, to: string): void => {
  try {
    linkSync(from, to)
  } catch {
    copyFileSync(from, to)
  }
}

const magic = "SQLite format 3\0"

/** Whether a file is a database, one that is empty included, or isn't there. */
const isDatabase = (path: string): boolean => {
  if (!existsSync(path)) return true
  const bytes = Buffer.alloc(magic.length)
  const fd = openSync(path, "r")
  try {
    const length = readSync(fd, bytes)
    return length === 0 || bytes.toString("latin1") === magic
  } finally {
    closeSync(fd)
  }
}

/** What nobody can open nobody has open. */
const damaged = { hasData: true, gather: Effect.void }

/** The database that there is, locked for as long as the scope is open. */
const lock = Effect.fnUntraced(function*(dataDir: string) {
  const { database } = SqliteStore.filesIn(dataDir)
  const failed = (cause: unknown) => SqliteStore.explain(database, dataDir, cause)
  yield* Effect.try({ try: () => mkdirSync(dataDir, { recursive: true }), catch: failed })
  const isNew = !existsSync(database)
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      // The lock needs a file.
      if (isNew && statSync(database, { throwIfNoEntry: false })?.size === 0) rmSync(database)
    })
  )
  // SQLite would take the log of what it can't open for one of a database that is empty.
  if (!(yield* Effect.try({ try: () => isDatabase(database), catch: failed }))) return damaged
  const client = yield* SqliteClient.make({ filename: database, disableWAL: true }).pipe(
    Effect.provideServiceEffect(Reactivity.Reactivity, Reactivity.make),
    Effect.catchAllCause((cause) =>
      Cause.isInterrupted(cause) ? Effect.failCause(cause) : Effect.fail(failed(Cause.squash(cause)))
    )
  )
  const take = Effect.gen(function*() {
    yield* client.unsafe("PRAGMA busy_timeout = 0")
    yield* client.unsafe("PRAGMA locking_mode = EXCLUSIVE")
    yield* client.unsafe("BEGIN EXCLUSIVE")
    const tables = yield* client.unsafe("SELECT 1 FROM sqlite_schema WHERE name = 'maps'")
    if (tables.length === 0) return false
    return (yield* client.unsafe("SELECT 1 FROM maps LIMIT 1")).length > 0
  })
  const taken = yield* Effect.either(take)
  if (taken._tag === "Right") {
    return {
      hasData: taken.right,
      /** All of it in one file, still locked. */
      gather: Effect.gen(function*() {
        yield* client.unsafe("ROLLBACK")
        yield* client.unsafe("PRAGMA journal_mode = DELETE")
        yield* client.unsafe("BEGIN EXCLUSIVE")
      }).pipe(Effect.mapError(failed))
    }
  }
  if (/^SQLITE_(NOTADB|CORRUPT|ERROR)/.test(SqliteStore.codeOf(taken.left))) {
    return damaged
  }
  return yield* failed(taken.left)
})

/** A name for what was there, of now. */
const keptName = Effect.map(
  Clock.currentTimeMillis,
  (millis) => `replaced-${new Date(millis).toISOString().replace(/[:.]/g, "-")}`
)

/** Of the data directory of the configuration. */
export const make: Effect.Effect<Refill, StorageUnavailable, ServerConfig | Scope.Scope> = Effect.gen(function*() {
  const settings = yield* ServerConfig
  const { dataDir } = settings
  const files = SqliteStore.filesIn(dataDir)
  const failed = (cause: unknown) => SqliteStore.explain(files.database, dataDir, cause)
  const attempt = <A>(use: () => A) => Effect.try({ try: use, catch: failed })
  const { gather, hasData } = yield* lock(dataDir)

  const place = SqliteStore.restoringIn(dataDir)
  const remove = () => rmSync(place, { recursive: true, force: true })
  yield* Effect.acquireRelease(
    attempt(() => {
      remove()
      mkdirSync(place, { mode: 0o700 })
    }),
    () => Effect.sync(remove)
  )
  const open = Effect.provideService(SqliteStore.make, ServerConfig, { ...settings, dataDir: place })
  const filling = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
  const { commit } = yield* Scope.extend(open, filling)

  const readBack = (totals: Parameters<Refill["finish"]>[0]) =>
    Effect.gen(function*() {
      const tally = new Tally()
      const store = yield* open
      yield* store.load({
        record: (map, _kind, cell, _partition, row) => tally.add(map, cell, row),
        complete: (map, _kind, stored) => {
          const fault = tally.faultOf(map, totals.get(map)!) ?? (stored && tally.faultOf(map, stored))
          if (fault !== undefined) throw new Error(fault)
        }
      })
    }).pipe(Effect.scoped)

  /** Moves the new database to its place. Whatever is done before the last rename changes nothing of what the old one is. */
  const swap = (kept: string | undefined) => {
    if (kept !== undefined) {
      mkdirSync(kept)
      for (const file of Object.values(files)) if (existsSync(file)) keep(file, join(kept, basename(file)))
      syncDirectory(kept)
      syncDirectory(dataDir)
    }
    // Another database's would be taken for this one's.
    for (const file of [files.seal, files.log]) rmSync(file, { force: true })
    syncDirectory(dataDir)
    const made = SqliteStore.filesIn(place)
    renameSync(made.database, files.database)
    if (existsSync(made.seal)) renameSync(made.seal, files.seal)
    syncDirectory(dataDir)
  }

  return {
    hasData,
    commit,
    finish: (totals) =>
      Effect.gen(function*() {
        yield* Scope.close(filling, Exit.void)
        yield* readBack(totals)
        yield* gather
        const kept = hasData ? join(dataDir, yield* keptName) : undefined
        yield* attempt(() => swap(kept))
        return { kept }
      }).pipe(Effect.uninterruptible)
  }
})
