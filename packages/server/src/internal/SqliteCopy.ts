/** A copy of a database that is in use, to be read at leisure: SQLite's online backup, which is of the instant at which it ends. */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as Reactivity from "@effect/experimental/Reactivity"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { mkdir, open, rm } from "node:fs/promises"
import { join } from "node:path"

/** Where the copy of a data directory's database is. A start removes what a crash has left of one. */
export const directoryOf = (dataDir: string): string => join(dataDir, "topgun.backup")

const flushMillis = 20

/** Has the disk take the copy while it is made: all at once, when it's whole, would hold the process up. */
const flushing = (file: string): Effect.Effect<never> =>
  Effect.promise(async () => {
    const handle = await open(file, "r").catch(() => undefined)
    if (handle === undefined) return
    await handle.datasync().catch(() => {})
    await handle.close()
  }).pipe(Effect.zipRight(Effect.sleep(flushMillis)), Effect.forever)

/** A client of a copy of a database, which is gone with the scope. `backup` makes it, a few pages a turn of the event loop. */
export const make = (
  backup: SqliteClient.SqliteClient["backup"],
  dataDir: string
): Effect.Effect<SqliteClient.SqliteClient, unknown, Scope.Scope> =>
  Effect.gen(function*() {
    const directory = directoryOf(dataDir)
    const remove = () => rm(directory, { recursive: true, force: true })
    yield* Effect.acquireRelease(
      Effect.tryPromise({
        try: async () => {
          await remove()
          await mkdir(directory, { mode: 0o700 })
        },
        catch: (cause) => cause
      }),
      () => Effect.promise(remove)
    )
    const file = join(directory, "topgun.db")
    // It can't be left off: it would go on writing where nothing is any more.
    yield* Effect.uninterruptible(Effect.raceFirst(backup(file), Effect.interruptible(flushing(file))))
    const client = yield* SqliteClient.make({ filename: file, disableWAL: true }).pipe(
      Effect.provideServiceEffect(Reactivity.Reactivity, Reactivity.make),
      Effect.catchAllCause((cause) =>
        Cause.isInterrupted(cause) ? Effect.failCause(cause) : Effect.fail(Cause.squash(cause))
      )
    )
    yield* client.unsafe("PRAGMA locking_mode = EXCLUSIVE")
    return client
  })
