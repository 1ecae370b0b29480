import { describe, expect, it } from "@effect/vitest"
import { type ShuttingDown, StorageUnavailable } from "@topgun/core/GridError"
import * as LwwRecord from "@topgun/core/LwwRecord"
import { partitionOf } from "@topgun/core/Partition"
import type { MapKind } from "@topgun/core/Cell"
import { encode } from "@topgun/core/Value"
import * as Persistence from "@topgun/server/Persistence"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"

const temporaryDir = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "topgun-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const row = (key: string, value: unknown, millis: number): Persistence.Row => ({
  cell: key,
  partition: partitionOf(key),
  record: LwwRecord.put({ millis, counter: 0, nodeId: "plainclient00000" }, encode(value))
})

/** What changed in a map, of which nobody asks here what it comes to. */
const batchOf = (map: string, kind: MapKind, rows: ReadonlyArray<Persistence.Row>): Persistence.Batch => ({
  map,
  kind,
  rows,
  age: 0,
  totals: { records: 0, hi: 0, lo: 0 }
})

const append = (map: string, ...rows: ReadonlyArray<Persistence.Row>) =>
  Effect.flatMap(
    Persistence.Persistence,
    (persistence) =>
      Effect.async<void, StorageUnavailable | ShuttingDown>((resume) =>
        persistence.append(
          [batchOf(map, "lww", rows)],
          (failure) => resume(failure === undefined ? Effect.void : Effect.fail(failure))
        )
      )
  )

const stored = Effect.flatMap(Persistence.Persistence, ({ load }) => {
  const records: Array<readonly [map: string, cell: string, partition: number, row: Uint8Array]> = []
  return Effect.as(
    load({
      record: (map, _, cell, partition, bytes) => records.push([map, cell, partition, bytes]),
      complete: () => {}
    }),
    records
  )
})

const storedAs = (map: string, { cell, partition, record }: Persistence.Row) => [map, cell, partition, record.row]

const sqlite = (dataDir: string) => Layer.provide(Persistence.layerSqlite, ServerConfig.layer({ dataDir }))

/** Opens the database behind the server's back. */
const raw = (dataDir: string, sql: string) =>
  Effect.scoped(
    Effect.flatMap(Layer.build(SqliteClient.layer({ filename: join(dataDir, "topgun.db") })), (context) =>
      Effect.flatMap(SqliteClient.SqliteClient, (client) => client.unsafe(sql)).pipe(Effect.provide(context)))
  )

describe("Persistence on SQLite", () => {
  it.scoped("gives back after a restart what was committed, with the same generation and node id", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      const rows = Array.from({ length: 777 }, (_, i) => row(`ключ/${i}`, { i }, 1_000 + i))
      const other = row("1", "x", 1)
      const before = yield* Effect.gen(function*() {
        yield* append("todos", ...rows)
        yield* append("notes", other)
        return yield* Persistence.Persistence
      }).pipe(Effect.provide(sqlite(dataDir)))
      yield* Effect.gen(function*() {
        const after = yield* Persistence.Persistence
        expect([after.generation, after.nodeId]).toEqual([before.generation, before.nodeId])
        const records = yield* stored
        expect(records).toEqual([...rows.map((each) => storedAs("todos", each)), storedAs("notes", other)])
      }).pipe(Effect.provide(sqlite(dataDir)))
    }))

  it.scoped("gives back the kinds of maps, however many came together in one transaction", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      const kinds = ["lww", "or", "counter"] as const
      yield* Effect.gen(function*() {
        const persistence = yield* Persistence.Persistence
        persistence.append(kinds.map((kind, i) => batchOf(kind, kind, [row(`${i}`, i, 1)])), settle)
        persistence.append(kinds.map((kind, i) => batchOf(kind, kind, [row(`more ${i}`, i, 1)])), settle)
        yield* persistence.flush
      }).pipe(Effect.provide(sqlite(dataDir)))
      yield* Effect.gen(function*() {
        const persistence = yield* Persistence.Persistence
        const cells: Array<string> = []
        yield* persistence.load({
          record: (map, kind, cell) => cells.push(`${map} ${kind} ${cell}`),
          complete: () => {}
        })
        expect(cells.sort()).toEqual(
          kinds.flatMap((kind, i) => [`${kind} ${kind} ${i}`, `${kind} ${kind} more ${i}`]).sort()
        )
      }).pipe(Effect.provide(sqlite(dataDir)))
    }))

  it.scoped("keeps the newer record, in whatever order the two are committed", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      const newer = row("1", "newer", 2_000)
      const older = row("1", "older", 1_000)
      const tie = [row("2", "a", 5), row("2", "b", 5)] as const
      yield* Effect.gen(function*() {
        yield* append("todos", newer)
        yield* append("todos", older)
        yield* append("todos", tie[1], tie[0])
      }).pipe(Effect.provide(sqlite(dataDir)))
      const records = yield* Effect.provide(stored, sqlite(dataDir))
      expect(records).toEqual([storedAs("todos", newer), storedAs("todos", tie[1])])
    }))

  it.scoped("saves what is in line when it's closed", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      const rows = Array.from({ length: 20 }, (_, i) => row(`${i}`, i, i))
      const outcomes: Array<unknown> = []
      yield* Effect.map(Persistence.Persistence, (persistence) => {
        for (const each of rows) {
          persistence.append([batchOf("todos", "lww", [each])], (failure) => outcomes.push(failure))
        }
      }).pipe(Effect.provide(sqlite(dataDir)))
      expect(outcomes).toEqual(rows.map(() => undefined))
      expect(yield* Effect.provide(stored, sqlite(dataDir))).toHaveLength(20)
    }))

  it.scoped("is one server's at a time", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      yield* Effect.gen(function*() {
        const { message } = yield* Effect.flip(Layer.build(sqlite(dataDir)))
        expect(message).toContain(`another server uses the data directory "${dataDir}"`)
        expect(message).toContain("TOPGUN_DATA_DIR")
        yield* append("todos", row("1", "x", 1))
      }).pipe(Effect.provide(sqlite(dataDir)))
      yield* Effect.provide(Persistence.Persistence, sqlite(dataDir))
    }))

  it.scoped("is free again when the process that had it is killed", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      yield* Effect.provide(append("todos", row("1", "x", 1)), sqlite(dataDir))
      const holder = `
        const db = new (require(${
        JSON.stringify(createRequire(import.meta.url).resolve("better-sqlite3"))
      }))(process.argv[1])
        db.pragma("locking_mode = EXCLUSIVE")
        db.exec("BEGIN IMMEDIATE; UPDATE meta SET value = value; COMMIT")
        process.stdout.write("held")
        setInterval(() => {}, 1 << 30)`
      const child = spawn(process.execPath, ["-e", holder, join(dataDir, "topgun.db")], {
        stdio: ["ignore", "pipe", "inherit"]
      })
      yield* Effect.promise(() => once(child.stdout, "data"))
      const { message } = yield* Effect.flip(Layer.build(sqlite(dataDir)))
      expect(message).toContain("another server")
      child.kill("SIGKILL")
      yield* Effect.promise(() => once(child, "exit"))
      expect(yield* Effect.provide(stored, sqlite(dataDir))).toHaveLength(1)
    }))

  it.scoped("refuses a newer format, naming both", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      yield* Effect.provide(Persistence.Persistence, sqlite(dataDir))
      yield* raw(dataDir, "UPDATE meta SET value = '7' WHERE name = 'format'")
      const { message } = yield* Effect.flip(Layer.build(sqlite(dataDir)))
      expect(message).toContain("has format 7, this server knows formats up to 2")
    }))

  it.scoped("says of a damaged file that it is, and what to do", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      writeFileSync(join(dataDir, "topgun.db"), "This is no database. ".repeat(1_000))
      const { message } = yield* Effect.flip(Layer.build(sqlite(dataDir)))
      expect(message).toContain("is damaged")
      expect(message).toContain("backup")
    }))

  it.scoped("says of a record that isn't one which database holds it", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      const server = TopGunServer.layerInProcess({ storage: "sqlite", dataDir })
      yield* Effect.provide(append("todos", row("1", "x", 1)), sqlite(dataDir))
      yield* raw(dataDir, "UPDATE records SET row = x'00'")
      const { message } = yield* Effect.flip(Layer.build(server))
      expect(message).toContain(join(dataDir, "topgun.db"))
      expect(message).toContain("a record has at least")
    }))

  it.scoped("says of a data directory that can't be one what to do", () =>
    Effect.gen(function*() {
      const dataDir = join(yield* temporaryDir, "file")
      writeFileSync(dataDir, "")
      const { message } = yield* Effect.flip(Layer.build(sqlite(dataDir)))
      expect(message).toContain(dataDir)
      expect(message).toContain("TOPGUN_DATA_DIR")
      const readOnly = join(yield* temporaryDir, "read-only")
      mkdirSync(readOnly)
      mkdirSync(join(readOnly, "topgun.db"))
      chmodSync(readOnly, 0o500)
      expect((yield* Effect.flip(Layer.build(sqlite(readOnly)))).message).toContain(readOnly)
    }))
})

/** A driver whose commits can be held and made to fail. */
const makeDriver = () => {
  const control = {
    failing: false,
    gate: Effect.void as Effect.Effect<void>,
    commits: [] as Array<ReadonlyArray<string>>
  }
  const driver: Persistence.Driver = {
    kind: "test",
    generation: "generation000000",
    nodeId: "server0000000000",
    notes: new Map(),
    load: () => Effect.void,
    commit: (batches) =>
      Effect.zipRight(
        control.gate,
        Effect.suspend(() => {
          if (control.failing) return new StorageUnavailable({ reason: "the disk is gone" })
          control.commits.push(batches.flatMap(({ rows }) => rows.map(({ cell }) => cell)))
          return Effect.void
        })
      )
  }
  return { control, driver }
}

const over = (driver: Persistence.Driver, settings: Partial<ServerConfig.Settings> = {}) =>
  Layer.provide(Layer.scoped(Persistence.Persistence, Persistence.make(driver)), ServerConfig.layer(settings))

const settle = () => {}

const turn = Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))

describe("Persistence's group commit", () => {
  it.effect("commits together what waits together, up to 1,000 records, and settles in order", () => {
    const { control, driver } = makeDriver()
    return Effect.gen(function*() {
      const persistence = yield* Persistence.Persistence
      const settled: Array<number> = []
      for (let i = 0; i < 30; i++) {
        const rows = Array.from({ length: 100 }, (_, j) => row(`${i}.${j}`, j, 1))
        persistence.append([batchOf("todos", "lww", rows)], () => settled.push(i))
      }
      yield* persistence.flush
      expect(control.commits.map(({ length }) => length)).toEqual([1_000, 1_000, 1_000])
      expect(settled).toEqual(Array.from({ length: 30 }, (_, i) => i))
    }).pipe(Effect.provide(over(driver)))
  })

  it.effect("never parts what was put in line together, be it more than a transaction has otherwise", () => {
    const { control, driver } = makeDriver()
    return Effect.gen(function*() {
      const persistence = yield* Persistence.Persistence
      const rowsOf = (count: number) => Array.from({ length: count }, (_, i) => row(`${i}`, i, 1))
      persistence.append([batchOf("a", "lww", rowsOf(700))], settle)
      persistence.append([
        batchOf("a", "lww", rowsOf(400)),
        batchOf("b", "or", rowsOf(900))
      ], settle)
      persistence.append([batchOf("a", "lww", rowsOf(100))], settle)
      yield* persistence.flush
      expect(control.commits.map(({ length }) => length)).toEqual([700, 1_300, 100])
    }).pipe(Effect.provide(over(driver)))
  })

  it.effect("a barrier is settled at once when nothing waits, else after what came before it", () => {
    const { control, driver } = makeDriver()
    return Effect.gen(function*() {
      const persistence = yield* Persistence.Persistence
      const settled: Array<string> = []
      persistence.append([], () => settled.push("barrier"))
      expect(settled).toEqual(["barrier"])
      const gate = yield* Deferred.make<void>()
      control.gate = Deferred.await(gate)
      persistence.append([batchOf("todos", "lww", [row("1", 1, 1)])], () => settled.push("batch"))
      yield* turn
      persistence.append([], () => settled.push("second barrier"))
      yield* turn
      expect(settled).toEqual(["barrier"])
      yield* Deferred.succeed(gate, undefined)
      yield* persistence.flush
      expect(settled).toEqual(["barrier", "batch", "second barrier"])
    }).pipe(Effect.provide(over(driver)))
  })

  it.effect("tells everyone in line when a commit fails, keeps the records, and commits them first when it can", () => {
    const { control, driver } = makeDriver()
    return Effect.gen(function*() {
      control.failing = true
      const first = yield* Effect.flip(append("todos", row("1", 1, 1)))
      expect(first.message).toContain("the disk is gone")
      expect(control.commits).toEqual([])
      const persistence = yield* Persistence.Persistence
      const second = yield* Effect.fork(append("todos", row("2", 2, 2)))
      yield* turn
      control.failing = false
      yield* TestClock.adjust(Persistence.retryMillis.first)
      yield* second
      expect(control.commits).toEqual([["1", "2"]])
      expect(persistence.isFull()).toBe(false)
    }).pipe(Effect.provide(over(driver)))
  })

  it.effect("is full when enough waits, and says when there is room", () => {
    const { control, driver } = makeDriver()
    return Effect.gen(function*() {
      const persistence = yield* Persistence.Persistence
      const gate = yield* Deferred.make<void>()
      control.gate = Deferred.await(gate)
      persistence.append([batchOf("todos", "lww", [row("1", 1, 1)])], settle)
      expect(persistence.isFull()).toBe(false)
      persistence.append([batchOf("todos", "lww", [row("2", 1, 1)])], settle)
      expect(persistence.isFull()).toBe(true)
      let roomy = 0
      persistence.onRoom(() => roomy++)
      expect(roomy).toBe(0)
      yield* Deferred.succeed(gate, undefined)
      yield* persistence.flush
      expect(roomy).toBe(1)
      expect(persistence.isFull()).toBe(false)
    }).pipe(Effect.provide(over(driver, { pendingCommitsMax: 2 })))
  })

  it.effect("gives up at the shutdown timeout and tells those who wait", () => {
    const { control, driver } = makeDriver()
    return Effect.gen(function*() {
      control.gate = Effect.never
      const outcomes: Array<unknown> = []
      const server = yield* Effect.map(Persistence.Persistence, (persistence) =>
        persistence.append(
          [batchOf("todos", "lww", [row("1", 1, 1)])],
          (failure) => outcomes.push(failure?._tag)
        )).pipe(Effect.zipLeft(turn), Effect.provide(over(driver)), Effect.fork)
      yield* turn
      yield* turn
      expect(outcomes).toEqual([])
      yield* TestClock.adjust("10 seconds")
      yield* server
      expect(outcomes).toEqual(["ShuttingDown"])
    })
  })

  it.effect("treats a driver's defect as a failed commit, and goes on", () => {
    const { control, driver } = makeDriver()
    return Effect.gen(function*() {
      control.gate = Effect.dieMessage("a bug")
      expect((yield* Effect.flip(append("todos", row("1", 1, 1))))._tag).toBe("StorageUnavailable")
      control.gate = Effect.void
      const second = yield* Effect.fork(append("todos", row("2", 2, 2)))
      yield* turn
      yield* TestClock.adjust(Persistence.retryMillis.first)
      yield* second
      expect(control.commits).toEqual([["1", "2"]])
    }).pipe(Effect.provide(over(driver)))
  })

  it.effect("in memory settles at once and calls nothing durable", () =>
    Effect.gen(function*() {
      const persistence = yield* Persistence.Persistence
      expect(persistence.durable).toBe(false)
      expect(Exit.isSuccess(yield* Effect.exit(append("todos", row("1", 1, 1))))).toBe(true)
      yield* persistence.flush
    }).pipe(Effect.provide(Persistence.layerMemory)))
})
