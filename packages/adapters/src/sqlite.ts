/**
 * Storage of a client in Node: an SQLite file, in WAL mode, synchronised with the disk at each commit. It takes the packages
 * `@effect/sql`, `@effect/sql-sqlite-node` and what these ask for, which are no dependencies of this one: browsers have no use for them.
 */
import type { StorageAdapter, StorageWrite } from "@topgun/core/StorageAdapter"
import * as Cause from "effect/Cause"
import type * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as SqliteDatabase from "./internal/SqliteDatabase.ts"

/** What there is while the storage is open. */
interface Open {
  readonly runtime: ManagedRuntime.ManagedRuntime<SqliteDatabase.SqliteDatabase, unknown>
  readonly owned: SqliteDatabase.Owned
}

/**
 * Rows in the SQLite file `file`, which is made if need be, in a directory that there is. Names are no paths: one file takes
 * the storages of any, each apart, and processes may share it. They wait for each other's transactions; what takes an
 * hour elsewhere is better in a file of its own.
 *
 * Nobody may delete or move the file while it's open: SQLite goes on writing to what has no name any more, and doesn't say so.
 * Files of a newer version, and of other programs, are refused and left as they are.
 *
 * @throws RangeError when `file` isn't the name of one: what is gone with the process is in `memory()` at a lower price.
 */
export const sqlite = (file: string): StorageAdapter => {
  if (file === "" || file.startsWith(":memory:")) throw new RangeError("SQLite needs a file; without one use memory()")
  let open: Open | undefined

  const run = async <A>(
    runtime: Open["runtime"],
    effect: Effect.Effect<A, unknown, SqliteDatabase.SqliteDatabase>
  ): Promise<A> => {
    const exit = await runtime.runPromiseExit(effect)
    if (Exit.isSuccess(exit)) return exit.value
    throw SqliteDatabase.explain(file, Cause.squash(exit.cause))
  }

  const withOpen = <A>(
    use: (owned: SqliteDatabase.Owned) => Effect.Effect<A, unknown, SqliteDatabase.SqliteDatabase>
  ): Promise<A> =>
    open === undefined ? Promise.reject(new Error("the storage is closed")) : run(open.runtime, use(open.owned))

  return {
    kind: "sqlite",
    durable: true,
    open: async (name) => {
      const runtime = ManagedRuntime.make(SqliteDatabase.layer(file))
      try {
        open = { runtime, owned: await run(runtime, SqliteDatabase.own(name)) }
      } catch (fault) {
        await runtime.dispose()
        throw fault
      }
    },
    scan: (space, after, limit) =>
      // To SQLite a number below zero means all.
      limit <= 0 ? Promise.resolve([]) : withOpen((owned) => SqliteDatabase.scan(owned, space, after, limit)),
    commit: (writes) => {
      let known: ReadonlyArray<StorageWrite>
      try {
        // Read in full before anything is changed.
        known = writes.map(({ key, space, value }) => ({ space, key, value }))
      } catch (fault) {
        return Promise.reject(fault)
      }
      return withOpen((owned) => SqliteDatabase.commit(owned, known))
    },
    close: async () => {
      const closing = open
      open = undefined
      if (closing === undefined) return
      // In its turn: after what was asked for before.
      await run(closing.runtime, SqliteDatabase.settled)
      await closing.runtime.dispose()
    }
  }
}
