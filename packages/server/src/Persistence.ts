/** The log of the partitions: what they have merged, in a database, in group commits (`GroupCommit`), or nowhere. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { StorageUnavailable } from "@topgun/core/GridError"
import { makeNodeId } from "@topgun/core/Hlc"
import * as GroupCommit from "./GroupCommit.ts"
import type { ServerConfig } from "./ServerConfig.ts"
import * as PostgresStore from "./PostgresStore.ts"
import * as SqliteStore from "./SqliteStore.ts"

export type {
  Batch,
  Driver,
  Loader,
  Log,
  Note,
  Notes,
  OnCommit,
  Row,
  Settle,
  Snapshot,
  StoredRecord,
  Totals
} from "./GroupCommit.ts"
export { groupRowsMax, make, retryMillis } from "./GroupCommit.ts"

/** The log of the partitions. */
export class Persistence extends Context.Tag("@topgun/server/Persistence")<Persistence, GroupCommit.Log>() {}

/** No log: everything is gone with the process, and clients are told so when they connect. */
export const layerMemory: Layer.Layer<Persistence> = Layer.effect(
  Persistence,
  Effect.map(Effect.all([makeNodeId, makeNodeId]), ([generation, nodeId]) =>
    Persistence.of({
      kind: "memory",
      durable: false,
      generation,
      nodeId,
      notes: new Map(),
      load: () => Effect.void,
      snapshot: undefined,
      append: (_, settle) => settle(undefined),
      isFull: () => false,
      waiting: () => 0,
      observe: () => {},
      onRoom: (resume) => resume(),
      flush: Effect.void
    }))
)

/** SQLite in the data directory, held by this process alone. */
export const layerSqlite: Layer.Layer<Persistence, StorageUnavailable, ServerConfig> = Layer.scoped(
  Persistence,
  Effect.flatMap(SqliteStore.make, GroupCommit.make)
)

/** PostgreSQL at `databaseUrl`, held by this process alone. */
export const layerPostgres: Layer.Layer<Persistence, StorageUnavailable, ServerConfig> = Layer.scoped(
  Persistence,
  Effect.flatMap(PostgresStore.make, GroupCommit.make)
)
