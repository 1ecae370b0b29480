/** The databases that a server may keep its data in, for tests that hold on each of them. */
import { describe } from "@effect/vitest"
import * as Persistence from "@topgun/server/Persistence"
import * as ServerConfig from "@topgun/server/ServerConfig"
import type { ConfigInvalid, StorageUnavailable } from "@topgun/core/GridError"
import { makePostgresCluster, type PostgresCluster } from "@topgun/testing/PostgresCluster"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Pg from "pg"
import { afterAll, beforeAll } from "vitest"

/** A directory that goes with its scope. */
export const temporaryDir = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "topgun-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** A database of one test's own. */
export interface Store {
  readonly settings: Partial<ServerConfig.Settings>
  readonly layer: Layer.Layer<Persistence.Persistence, StorageUnavailable | ConfigInvalid>
  /** What messages call it. */
  readonly name: string
  /** Does something behind the server's back. */
  readonly raw: <A extends object>(sql: string) => Effect.Effect<ReadonlyArray<A>>
  /** The format that the server knows. */
  readonly format: number
}

/** A kind of database. */
export interface Stores {
  /** The setting. */
  readonly kind: "sqlite" | "postgres"
  readonly make: Effect.Effect<Store, never, Scope.Scope>
}

const layerOf = (
  layer: Layer.Layer<Persistence.Persistence, StorageUnavailable, ServerConfig.ServerConfig>,
  settings: Partial<ServerConfig.Settings>
) => Layer.provide(layer, ServerConfig.layer(settings))

const sqlite: Stores = {
  kind: "sqlite",
  make: Effect.map(temporaryDir, (dataDir) => {
    const settings = { storage: "sqlite", dataDir } as const
    const filename = join(dataDir, "topgun.db")
    return {
      settings,
      layer: layerOf(Persistence.layerSqlite, settings),
      name: dataDir,
      raw: <A extends object>(sql: string) =>
        Effect.scoped(
          Effect.flatMap(Layer.build(SqliteClient.layer({ filename })), (context) =>
            Effect.flatMap(SqliteClient.SqliteClient, (client) =>
              client.unsafe<A>(sql)).pipe(Effect.provide(context)))
        ).pipe(Effect.orDie),
      format: 2
    }
  })
}

/** Asks a database something, over a connection of its own. */
export const query = <A extends object>(url: string, sql: string): Effect.Effect<ReadonlyArray<A>> =>
  Effect.acquireUseRelease(
    Effect.promise(async () => {
      const client = new Pg.Client({ connectionString: url })
      await client.connect()
      return client
    }),
    (client) => Effect.promise(() => client.query<A>(sql)),
    (client) => Effect.promise(() => client.end())
  ).pipe(Effect.map(({ rows }) => rows))

let databases = 0

/** A new database in a cluster. */
export const makeDatabase = (cluster: PostgresCluster): Effect.Effect<string> =>
  Effect.suspend(() => {
    const database = `test${++databases}`
    return Effect.as(query(cluster.url(), `CREATE DATABASE ${database}`), database)
  })

/** The store that a URL leads to. */
export const postgresAt = (url: string, more: Partial<ServerConfig.Settings> = {}): Store => {
  const settings = { storage: "postgres", databaseUrl: Redacted.make(url), ...more } as const
  return {
    settings,
    layer: layerOf(Persistence.layerPostgres, settings),
    name: `PostgreSQL's database "${new URL(url).pathname.slice(1)}"`,
    raw: (sql) => query(url, sql),
    format: 1
  }
}

/** A PostgreSQL for the tests of a suite, called for within it. */
export const useCluster = (): () => PostgresCluster => {
  let cluster: PostgresCluster | undefined
  beforeAll(async () => {
    cluster = await makePostgresCluster()
  })
  afterAll(() => cluster?.remove())
  return () => cluster!
}

/** Runs the same tests on every database. */
export const onEachStore = (name: string, tests: (stores: Stores) => void): void => {
  describe(`${name} SQLite`, () => tests(sqlite))
  describe(`${name} PostgreSQL`, () => {
    const cluster = useCluster()
    tests({
      kind: "postgres",
      make: Effect.suspend(() => Effect.map(makeDatabase(cluster()), (database) => postgresAt(cluster().url(database))))
    })
  })
}
