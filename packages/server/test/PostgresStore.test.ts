/** What a server promises when its PostgreSQL is in trouble, asked of a real one that is. */
import { describe, expect, it } from "@effect/vitest"
import type { ShuttingDown, StorageUnavailable } from "@topgun/core/GridError"
import * as LwwRecord from "@topgun/core/LwwRecord"
import { partitionOf } from "@topgun/core/Partition"
import * as Protocol from "@topgun/core/Protocol"
import { encode } from "@topgun/core/Value"
import * as Persistence from "@topgun/server/Persistence"
import * as PostgresStore from "@topgun/server/PostgresStore"
import type * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import type { PostgresCluster, PostgresSettings } from "@topgun/testing/PostgresCluster"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as TestClock from "effect/TestClock"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createRequire } from "node:module"
import { inspect } from "node:util"
import * as Pg from "pg"
import { makeCuttingProxy } from "./CuttingProxy.ts"
import { batch, inProcessReady, type PlainClient, put } from "./PlainClient.ts"
import { makeDatabase, postgresAt, query, type Store, useCluster } from "./stores.ts"

const statusOf = Effect.flatMap(TopGunServer.TopGunServer, ({ status }) => status)

/** Sends a write; whether it is acknowledged as PERSISTED, or its writer cut off. */
const tryPersist = Effect.fnUntraced(function*(map: string, key: string) {
  const client = yield* inProcessReady
  yield* client.send(batch(map, "PERSISTED", 0, [[key, put(key)]]))
  return yield* Effect.raceFirst(Effect.as(client.take("OpAck"), true), Effect.as(client.closed, false))
})

/** Sends a write again and again, as clients do, until it is acknowledged. */
const persist = (map: string, key: string) => Effect.repeat(tryPersist(map, key), { until: (isSaved) => isSaved })

/** Sends it until it is refused. */
const beRefused = (map: string, key: string) => Effect.repeat(tryPersist(map, key), { until: (isSaved) => !isSaved })

/** A write that is merged, whatever becomes of the database. */
const apply = Effect.fnUntraced(function*(client: PlainClient, map: string, sequence: number) {
  yield* client.send(batch(map, "APPLIED", sequence, [[`${sequence}`, put(sequence)]]))
  expect((yield* client.take("OpAck")).sequences).toEqual([sequence])
})

/** One that is refused: it's told so, and cut off before anything is acknowledged. */
const toldUnsaved = Effect.fnUntraced(function*(map: string, key: string) {
  const writer = yield* inProcessReady
  yield* writer.send(batch(map, "PERSISTED", 0, [[key, put(key)]]))
  expect((yield* writer.take("Fault")).cause).toBe("StorageUnavailable")
  expect((yield* writer.closed).code).toBe(Protocol.closeCodes.overloaded)
  expect(writer.untaken("OpAck") + writer.untaken("Durable")).toBe(0)
})

const keysOf = (store: Store) =>
  Effect.map(
    store.raw<{ key: Buffer }>("SELECT key FROM topgun.records ORDER BY key"),
    (rows) => rows.map(({ key }) => key.toString("utf8"))
  )

/** Until it is so: nothing tells when it will be. */
const until = <E, R>(isSo: Effect.Effect<boolean, E, R>) =>
  Effect.repeat(isSo, { until: (so) => so, schedule: Schedule.spaced(20) })

/** All that is logged. */
const logged = () => {
  const lines: Array<string> = []
  const layer = Layer.merge(
    Logger.replace(Logger.defaultLogger, Logger.make((options) => void lines.push(Logger.jsonLogger.log(options)))),
    Logger.minimumLogLevel(LogLevel.All)
  )
  const says = (text: string) => lines.some((line) => line.includes(text))
  return { layer, says, waitFor: (text: string) => until(Effect.sync(() => says(text))) }
}

const serverOf = ({ settings }: Store, { layer } = logged()) =>
  Layer.provide(TopGunServer.layerInProcess(settings), layer)

/** A log over a store, for as long as the test's scope is open. */
const openLog = (store: Store, { layer } = logged()) =>
  Effect.map(Layer.build(Layer.provide(store.layer, layer)), Context.get(Persistence.Persistence))

const append = (log: Persistence.Log, key: string) =>
  Effect.async<void, StorageUnavailable | ShuttingDown>((resume) =>
    log.append(
      [{
        map: "todos",
        kind: "lww",
        rows: [{
          cell: key,
          partition: partitionOf(key),
          record: LwwRecord.put({ millis: 1, counter: 0, nodeId: "plainclient00000" }, encode(key))
        }],
        age: 0,
        totals: { records: 0, hi: 0, lo: 0 }
      }],
      (failure) => resume(failure === undefined ? Effect.void : Effect.fail(failure))
    )
  )

const othersHere = "datname = current_database() AND pid <> pg_backend_pid()"

/** Ends all sessions of a database. */
const endSessions = ({ raw }: Store) =>
  raw(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE ${othersHere}`)

/** Which process holds a database's lock. */
const holderOf = ({ raw }: Store) =>
  Effect.map(
    raw<{ pid: number }>(`SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
      WHERE locktype = 'advisory' AND granted AND ${othersHere}`),
    ([holder]) => holder?.pid
  )

const databaseOf = ({ name }: Store) => name.split("\"")[1]!

const makeStore = (cluster: PostgresCluster, more: Partial<ServerConfig.Settings> = {}) =>
  Effect.map(makeDatabase(cluster), (database) => postgresAt(cluster.url(database), more))

/** A store by way of a proxy, and directly. */
const makeThroughProxy = (cluster: PostgresCluster) =>
  Effect.gen(function*() {
    const database = yield* makeDatabase(cluster)
    const proxy = yield* makeCuttingProxy(cluster.port)
    const through = cluster.url(database).replace(`:${cluster.port}/`, `:${proxy.port}/`)
    return { proxy, store: postgresAt(cluster.url(database)), through: postgresAt(through) }
  })

/** A role that is no superuser, by the name of its database. */
const makeRole = (cluster: PostgresCluster, database: string) =>
  Effect.map(
    query(cluster.url(), `CREATE ROLE ${database} LOGIN PASSWORD '${secret}'`),
    () => `postgres://${database}:${secret}@127.0.0.1:${cluster.port}/${database}`
  )

/** Keeps everybody from the records until it is told to let go. */
const lockTable = (url: string, locked: Effect.Latch, release: Effect.Latch) =>
  Effect.acquireUseRelease(
    Effect.promise(async () => {
      const client = new Pg.Client({ connectionString: url })
      await client.connect()
      await client.query("BEGIN")
      await client.query("LOCK TABLE topgun.records")
      return client
    }),
    () => Effect.zipRight(locked.open, release.await),
    (client) => Effect.promise(() => client.end())
  )

const secret = "never-to-be-shown"

describe("A server whose PostgreSQL", () => {
  const cluster = useCluster()
  const make = (more: Partial<ServerConfig.Settings> = {}) => Effect.suspend(() => makeStore(cluster(), more))
  const start = (settings?: PostgresSettings) => Effect.promise(() => cluster().start(settings))
  const crash = Effect.suspend(() => Effect.promise(() => cluster().stop("immediate")))
  const admin = (sql: string) => query(cluster().url(), sql)

  it.scopedLive("is down acknowledges nothing, merges and serves, and saves it all when it's back", () =>
    Effect.gen(function*() {
      const store = yield* make()
      const log = logged()
      yield* Effect.gen(function*() {
        const other = yield* inProcessReady
        yield* apply(other, "todos", 0)
        yield* other.take("Durable")
        yield* crash
        yield* apply(other, "todos", 1)
        yield* toldUnsaved("todos", "told")
        expect((yield* statusOf).maps).toMatchObject([{ records: 3 }])
        yield* start()
        yield* persist("todos", "later")
      }).pipe(Effect.provide(serverOf(store, log)))
      expect(yield* keysOf(store)).toEqual(["0", "1", "later", "told"])
      expect(log.says("start PostgreSQL there")).toBe(true)
    }))

  it.scopedLive("is down merges no more than it may owe it", () =>
    Effect.gen(function*() {
      const store = yield* make({ pendingCommitsMax: 2 })
      yield* Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* apply(client, "todos", 0)
        yield* client.take("Durable")
        const others = yield* Effect.replicateEffect(inProcessReady, 5)
        yield* crash
        for (const [i, other] of others.entries()) {
          yield* other.send(batch("todos", "APPLIED", 0, [[`other ${i}`, put(i)]]))
        }
        const later = yield* Effect.forkScoped(persist("todos", "later"))
        yield* client.send(batch("todos", "APPLIED", 1, [["1", put("x")]]))
        yield* Effect.raceFirst(others[0]!.closed, client.closed)
        expect((yield* statusOf).maps[0]!.records).toBeLessThanOrEqual(3)
        yield* start()
        yield* Fiber.join(later)
      }).pipe(Effect.provide(serverOf(store)))
      expect(yield* keysOf(store)).toContain("later")
    }))

  it.scopedLive("ends its session takes it again, and acknowledges what is committed", () =>
    Effect.gen(function*() {
      const store = yield* make()
      yield* Effect.gen(function*() {
        for (let i = 0; i < 3; i++) {
          yield* persist("todos", `${i}`)
          yield* endSessions(store)
        }
        yield* persist("todos", "last")
      }).pipe(Effect.provide(serverOf(store)))
      expect(yield* keysOf(store)).toEqual(["0", "1", "2", "last"])
    }))

  it.scopedLive("ends its session holds it again without a write to need it", () =>
    Effect.gen(function*() {
      const store = yield* make()
      yield* openLog(store)
      const before = yield* holderOf(store)
      expect(before).toEqual(expect.any(Number))
      yield* endSessions(store)
      yield* until(Effect.map(holderOf(store), (holder) => holder !== undefined && holder !== before))
    }))

  it.scopedLive("hangs tells the writer after the commit timeout, and saves it when it goes on", () =>
    Effect.gen(function*() {
      const store = yield* make({ commitTimeout: "1 second" })
      const log = logged()
      yield* Effect.gen(function*() {
        yield* persist("todos", "before")
        cluster().pause()
        yield* toldUnsaved("todos", "held")
        cluster().resume()
        yield* persist("todos", "after")
      }).pipe(
        Effect.ensuring(Effect.sync(() => cluster().resume())),
        Effect.provide(serverOf(store, log))
      )
      expect(yield* keysOf(store)).toEqual(["after", "before", "held"])
      expect(log.says("hasn't committed within 1s (TOPGUN_COMMIT_TIMEOUT)")).toBe(true)
    }))

  it.scopedLive("is read-only says so, and commits nothing until it isn't any more", () =>
    Effect.gen(function*() {
      const store = yield* make()
      const log = logged()
      const setReadOnly = (value: "on" | "off") =>
        Effect.zipRight(
          admin(`ALTER SYSTEM SET default_transaction_read_only = ${value}`),
          admin("SELECT pg_reload_conf()")
        )
      yield* Effect.gen(function*() {
        yield* persist("todos", "before")
        yield* setReadOnly("on")
        yield* beRefused("todos", "told")
        yield* setReadOnly("off")
        yield* persist("todos", "after")
      }).pipe(Effect.ensuring(setReadOnly("off")), Effect.provide(serverOf(store, log)))
      expect(yield* keysOf(store)).toEqual(["after", "before", "told"])
      expect(log.says("default_transaction_read_only is on")).toBe(true)
    }))

  it.scopedLive("has a full disk says so, and saves it all when there is room", () =>
    Effect.gen(function*() {
      const store = yield* make()
      const log = logged()
      yield* Effect.provide(persist("todos", "before"), serverOf(store))
      yield* store.raw(`
        CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql
          AS $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER fill BEFORE INSERT ON topgun.records EXECUTE FUNCTION fill()`)
      yield* Effect.gen(function*() {
        const holder = yield* holderOf(store)
        yield* toldUnsaved("todos", "told")
        yield* store.raw("DROP TRIGGER fill ON topgun.records")
        yield* persist("todos", "after")
        // What it refuses is no reason to let go of it.
        expect(yield* holderOf(store)).toBe(holder)
      }).pipe(Effect.provide(serverOf(store, log)))
      expect(yield* keysOf(store)).toEqual(["after", "before", "told"])
      expect(log.says("is full (could not extend file): make room there")).toBe(true)
    }))

  it.scopedLive("holds up a commit ends the session that waits, and goes on over another", () =>
    Effect.gen(function*() {
      const store = yield* make({ commitTimeout: "1 second" })
      yield* Effect.gen(function*() {
        yield* persist("todos", "before")
        const before = yield* holderOf(store)
        const release = Effect.unsafeMakeLatch(false)
        const locked = Effect.unsafeMakeLatch(false)
        const locking = yield* Effect.forkScoped(lockTable(cluster().url(databaseOf(store)), locked, release))
        yield* locked.await
        yield* toldUnsaved("todos", "held")
        yield* until(Effect.map(holderOf(store), (holder) => holder !== undefined && holder !== before))
        yield* release.open
        yield* Fiber.join(locking)
        yield* persist("todos", "after")
      }).pipe(Effect.provide(serverOf(store)))
      expect(yield* keysOf(store)).toEqual(["after", "before", "held"])
    }))

  it.scopedLive("has no connection left waits for one", () =>
    Effect.gen(function*() {
      const database = yield* makeDatabase(cluster())
      const url = yield* makeRole(cluster(), database)
      yield* admin(`ALTER DATABASE ${database} OWNER TO ${database}`)
      const asAdmin = postgresAt(cluster().url(database))
      const log = logged()
      yield* Effect.gen(function*() {
        yield* persist("todos", "before")
        yield* admin(`ALTER ROLE ${database} CONNECTION LIMIT 0`)
        yield* endSessions(asAdmin)
        yield* beRefused("todos", "told")
        yield* log.waitFor("has no connection left")
        yield* admin(`ALTER ROLE ${database} CONNECTION LIMIT -1`)
        yield* persist("todos", "after")
      }).pipe(Effect.provide(serverOf(postgresAt(url), log)))
      expect(yield* keysOf(asAdmin)).toEqual(["after", "before", "told"])
      expect(log.says(secret)).toBe(false)
    }))

  const savesOnce = (when: "before" | "after") =>
    Effect.gen(function*() {
      const { proxy, store, through } = yield* makeThroughProxy(cluster())
      yield* Effect.gen(function*() {
        const cut = proxy.cutAtCommit(when)
        yield* toldUnsaved("new map", "told")
        yield* Effect.promise(() => cut)
        yield* persist("new map", "told")
        yield* persist("another map", "after")
      }).pipe(Effect.provide(serverOf(through)))
      expect(yield* keysOf(store)).toEqual(["after", "told"])
      const { maps } = yield* Effect.provide(statusOf, serverOf(store))
      expect(maps.map(({ name, records }) => `${name} ${records}`).sort()).toEqual(["another map 1", "new map 1"])
    })

  it.scopedLive(
    "is cut off before COMMIT saves a write once, and acknowledges it when that is known",
    () => savesOnce("before")
  )

  it.scopedLive(
    "is cut off after COMMIT saves a write once, and acknowledges it when that is known",
    () => savesOnce("after")
  )

  it.scopedLive("was taken by another while it was out of reach never commits again, and says so", () =>
    Effect.gen(function*() {
      const { proxy, store, through } = yield* makeThroughProxy(cluster())
      const cutOff = yield* openLog(through)
      yield* append(cutOff, "before")
      proxy.hold()
      yield* endSessions(store)
      yield* Effect.scoped(Effect.flatMap(openLog(store), (other) => append(other, "other's")))
      proxy.release()
      const refused = Effect.map(
        Effect.flip(append(cutOff, "late")),
        ({ message }) => message.includes("another server has taken")
      )
      yield* until(refused)
      expect(yield* refused).toBe(true)
      expect(yield* keysOf(store)).toEqual(["before", "other's"])
    }))

  it.scopedLive("is another's commits nothing, over the session that it has had all the time", () =>
    Effect.gen(function*() {
      const store = yield* make()
      const log = yield* openLog(store)
      yield* append(log, "before")
      const [owner] = yield* store.raw<{ value: string }>("SELECT value FROM topgun.meta WHERE name = 'owner'")
      yield* store.raw("UPDATE topgun.meta SET value = 'another/1' WHERE name = 'owner'")
      expect((yield* Effect.flip(append(log, "late"))).message).toContain("another server has taken")
      yield* store.raw(`UPDATE topgun.meta SET value = '${owner!.value}' WHERE name = 'owner'`)
      expect((yield* Effect.flip(append(log, "later"))).message).toContain("another server has taken")
      expect(yield* keysOf(store)).toEqual(["before"])
    }))

  it.scopedLive("has commits that needn't be on disk asks for such as are", () =>
    Effect.gen(function*() {
      const store = yield* make()
      yield* Effect.scoped(openLog(store))
      yield* store.raw(`
        CREATE TABLE seen (setting text);
        CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql
          AS $$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
        CREATE TRIGGER see AFTER INSERT ON topgun.records EXECUTE FUNCTION see()`)
      for (const setting of ["off", "local", "remote_apply"]) {
        yield* store.raw(
          `ALTER DATABASE ${databaseOf(store)} SET synchronous_commit = ${setting}`
        )
        yield* Effect.scoped(Effect.flatMap(openLog(store), (opened) => append(opened, setting)))
      }
      expect(yield* store.raw("SELECT setting FROM seen")).toEqual(
        ["on", "on", "remote_apply"].map((setting) => ({ setting }))
      )
    }))

  const isNotUsedWithout = (setting: "fsync" | "full_page_writes") =>
    Effect.gen(function*() {
      const store = yield* make()
      yield* crash
      yield* start({ [setting]: "off" })
      const { message } = yield* Effect.flip(openLog(store))
      expect(message).toContain(`runs with ${setting} = off`)
      expect(message).toContain("turn it on in postgresql.conf")
      expect(yield* store.raw("SELECT 1 FROM pg_namespace WHERE nspname = 'topgun'")).toEqual([])
    }).pipe(Effect.ensuring(Effect.zipRight(crash, start())))

  it.scopedLive("runs with fsync = off isn't used", () => isNotUsedWithout("fsync"))

  it.scopedLive("runs with full_page_writes = off isn't used", () => isNotUsedWithout("full_page_writes"))

  it.scopedLive("isn't there yet starts when it is", () =>
    Effect.gen(function*() {
      const store = yield* make()
      const log = logged()
      yield* crash
      const starting = yield* Effect.forkScoped(
        Effect.provide(persist("todos", "1"), serverOf(store, log))
      )
      yield* log.waitFor("Waiting for the database")
      yield* start()
      yield* Fiber.join(starting)
    }))

  it.scoped("never comes gives up starting", () =>
    Effect.gen(function*() {
      const log = logged()
      const fiber = yield* Effect.fork(
        Effect.flip(openLog(postgresAt(`postgres://topgun:${secret}@127.0.0.1:1/topgun`), log))
      )
      for (;;) {
        const exit = yield* Fiber.poll(fiber)
        if (Option.isSome(exit)) break
        yield* TestClock.adjust(100)
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      }
      expect((yield* Fiber.join(fiber)).message).toMatch(/nothing answers at 127\.0\.0\.1:1 |doesn't answer/)
      expect(log.says(secret)).toBe(false)
      expect(yield* Clock.currentTimeMillis).toBeGreaterThanOrEqual(PostgresStore.startMillisMax.database)
    }))

  it.scopedLive("is held by a server that is killed is free when it's gone", () =>
    Effect.gen(function*() {
      const store = yield* make()
      yield* Effect.scoped(openLog(store))
      const log = logged()
      const holder = `
        const client = new (require(${
        JSON.stringify(createRequire(import.meta.url).resolve("pg"))
      }).Client)(process.argv[1])
        client.connect().then(() => client.query("SELECT pg_advisory_lock(${0x74_6f_70_67_75_6e})"))
          .then(() => process.stdout.write("held"))
        setInterval(() => {}, 1 << 30)`
      const child = spawn(process.execPath, ["-e", holder, cluster().url(databaseOf(store))], {
        stdio: ["ignore", "pipe", "inherit"]
      })
      yield* Effect.promise(() => once(child.stdout, "data"))
      const starting = yield* Effect.forkScoped(openLog(store, log))
      yield* log.waitFor("Another server has the database")
      child.kill("SIGKILL")
      yield* append(yield* Fiber.join(starting), "1")
    }))

  it.scopedLive("lets nobody in says what to do, and never the password", () =>
    Effect.gen(function*() {
      const database = yield* makeDatabase(cluster())
      const url = yield* makeRole(cluster(), database)
      const wrong = "a-wrong-password"
      const cases = [
        [url.replace(secret, wrong), `refuses the user "${database}" (password authentication failed`],
        [url.replace(`:${secret}@`, "@"), `refuses the user "${database}"`],
        [`${url}x`, `there is no database "${database}x" at 127.0.0.1:${cluster().port}: create it`],
        [url, `the user "${database}" hasn't the rights`],
        [`${url}?sslmode=verify-full`, "does not support SSL"]
      ] as const
      for (const [each, expected] of cases) {
        const log = logged()
        const fault = yield* Effect.flip(openLog(postgresAt(each), log))
        expect(fault._tag).toBe("StorageUnavailable")
        expect(fault.message).toContain(expected)
        yield* Effect.provide(Effect.logError("It failed", fault), log.layer)
        const all = inspect(fault, { depth: 9 }) + JSON.stringify(fault) + fault.message
        for (const hidden of [secret, wrong]) expect([log.says(hidden), all.includes(hidden)]).toEqual([false, false])
      }
    }))

  it.scopedLive("has a schema ready for a user without the right to make one is used", () =>
    Effect.gen(function*() {
      const database = yield* makeDatabase(cluster())
      const url = yield* makeRole(cluster(), database)
      yield* query(cluster().url(database), `CREATE SCHEMA topgun AUTHORIZATION ${database}`)
      const log = yield* openLog(postgresAt(url))
      yield* append(log, "1")
    }))
})
