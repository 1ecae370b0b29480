import { describe, expect, it } from "@effect/vitest"
import { type ShuttingDown, StorageUnavailable } from "@topgun/core/GridError"
import * as LwwRecord from "@topgun/core/LwwRecord"
import { partitionOf } from "@topgun/core/Partition"
import type { MapKind } from "@topgun/core/Cell"
import { encode } from "@topgun/core/Value"
import * as Persistence from "@topgun/server/Persistence"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { chmodSync, mkdirSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { batch, inProcessReady, put } from "./PlainClient.ts"
import { onEachStore, temporaryDir } from "./stores.ts"

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

const appendAll = (batches: ReadonlyArray<Persistence.Batch>, notes: ReadonlyArray<Persistence.Note> = []) =>
  Effect.flatMap(
    Persistence.Persistence,
    (persistence) =>
      Effect.async<void, StorageUnavailable | ShuttingDown>((resume) =>
        persistence.append(
          batches,
          (failure) => resume(failure === undefined ? Effect.void : Effect.fail(failure)),
          { notes }
        )
      )
  )

const append = (map: string, ...rows: ReadonlyArray<Persistence.Row>) => appendAll([batchOf(map, "lww", rows)])

type Stored = readonly [map: string, cell: string, partition: number, row: Uint8Array]

const inOrder = (records: ReadonlyArray<Stored>): ReadonlyArray<Stored> =>
  records.slice().sort(([a, b], [c, d]) => a !== c ? (a < c ? -1 : 1) : b < d ? -1 : 1)

/** By map and cell: no database has an order that it owes. */
const stored = Effect.flatMap(Persistence.Persistence, ({ load }) => {
  const records: Array<Stored> = []
  return Effect.map(
    load({
      record: (map, _, cell, partition, bytes) => records.push([map, cell, partition, bytes]),
      complete: () => {}
    }),
    () => inOrder(records)
  )
})

const storedAs = (
  map: string,
  { cell, partition, record }: Persistence.Row
): Stored => [map, cell, partition, record.row]

const removed = (key: string, millis: number): Persistence.Row => ({
  ...row(key, null, millis),
  record: LwwRecord.remove({ millis, counter: 0, nodeId: "plainclient00000" })
})

const sqlite = (dataDir: string) => Layer.provide(Persistence.layerSqlite, ServerConfig.layer({ dataDir }))

const settle = () => {}

onEachStore("Persistence on", ({ kind, make }) => {
  it.scoped("gives back after a restart what was committed, with the same generation and node id", () =>
    Effect.gen(function*() {
      const { layer } = yield* make
      const rows = Array.from({ length: 777 }, (_, i) => row(`ключ/${i}`, { i }, 1_000 + i))
      const other = row("1", "x", 1)
      const before = yield* Effect.gen(function*() {
        yield* append("todos", ...rows)
        yield* append("notes", other)
        return yield* Persistence.Persistence
      }).pipe(Effect.provide(layer))
      yield* Effect.gen(function*() {
        const after = yield* Persistence.Persistence
        expect([after.kind, after.generation, after.nodeId]).toEqual([kind, before.generation, before.nodeId])
        expect(yield* stored).toEqual(
          inOrder([...rows.map((each) => storedAs("todos", each)), storedAs("notes", other)])
        )
      }).pipe(Effect.provide(layer))
    }))

  it.scoped("gives back the kinds of maps, however many came together in one transaction", () =>
    Effect.gen(function*() {
      const { layer } = yield* make
      const kinds = ["lww", "or", "counter"] as const
      yield* Effect.gen(function*() {
        const persistence = yield* Persistence.Persistence
        persistence.append(kinds.map((each, i) => batchOf(each, each, [row(`${i}`, i, 1)])), settle)
        persistence.append(kinds.map((each, i) => batchOf(each, each, [row(`more ${i}`, i, 1)])), settle)
        yield* persistence.flush
        yield* append("later", row("1", 1, 1))
      }).pipe(Effect.provide(layer))
      yield* Effect.gen(function*() {
        const persistence = yield* Persistence.Persistence
        const cells: Array<string> = []
        yield* persistence.load({
          record: (map, each, cell) => cells.push(`${map} ${each} ${cell}`),
          complete: () => {}
        })
        expect(cells.sort()).toEqual(
          [...kinds.flatMap((each, i) => [`${each} ${each} ${i}`, `${each} ${each} more ${i}`]), "later lww 1"].sort()
        )
      }).pipe(Effect.provide(layer))
    }))

  it.scoped("keeps the newer record, in whatever order the two are committed", () =>
    Effect.gen(function*() {
      const { layer } = yield* make
      const newer = row("1", "newer", 2_000)
      const older = row("1", "older", 1_000)
      const tie = [row("2", "a", 5), row("2", "b", 5)] as const
      yield* Effect.gen(function*() {
        yield* append("todos", newer)
        yield* append("todos", older)
        yield* append("todos", tie[1])
        yield* append("todos", tie[0])
      }).pipe(Effect.provide(layer))
      expect(yield* Effect.provide(stored, layer)).toEqual([storedAs("todos", newer), storedAs("todos", tie[1])])
    }))

  it.scoped("keeps the newest of the records of one transaction, wherever in it that is", () =>
    Effect.gen(function*() {
      const { layer } = yield* make
      const [a, b, c] = [row("1", "a", 5), row("1", "b", 5), row("1", "c", 4)] as const
      yield* Effect.gen(function*() {
        yield* append("up", c, a, b)
        yield* append("down", b, a, c)
        yield* append("mid", c, b, a, b)
        yield* appendAll([batchOf("parted", "lww", [a]), batchOf("parted", "lww", [b]), batchOf("parted", "lww", [c])])
      }).pipe(Effect.provide(layer))
      expect(yield* Effect.provide(stored, layer)).toEqual(
        ["down", "mid", "parted", "up"].map((map) => storedAs(map, b))
      )
    }))

  it.scoped("forgets records as they are and no others, in the order of what comes with them", () =>
    Effect.gen(function*() {
      const { layer } = yield* make
      const gone = removed("1", 5)
      const again = row("1", "again", 6)
      const forgetting = (
        map: string,
        rows: ReadonlyArray<Persistence.Row>,
        ...forgotten: ReadonlyArray<Persistence.Row>
      ) => ({
        ...batchOf(map, "lww", rows),
        forgotten
      })
      yield* Effect.gen(function*() {
        for (const map of ["plain", "changed", "before", "older"]) yield* append(map, gone, row("2", "other", 1))
        yield* append("changed", again)
        yield* appendAll([
          forgetting("plain", [], gone, removed("never there", 5)),
          forgetting("changed", [], gone),
          forgetting("before", [], gone),
          // What it wins over was forgotten before it.
          batchOf("before", "lww", [row("1", "older", 4)]),
          forgetting("older", [row("3", "new", 1)], gone, row("3", "new", 1))
        ])
      }).pipe(Effect.provide(layer))
      expect(yield* Effect.provide(stored, layer)).toEqual(inOrder([
        ...["plain", "changed", "before", "older"].map((map) => storedAs(map, row("2", "other", 1))),
        storedAs("changed", again),
        storedAs("before", row("1", "older", 4))
      ]))
    }))

  it.scoped("keeps the age with tombstones, and with nothing else", () =>
    Effect.gen(function*() {
      const { layer } = yield* make
      const age = 2 ** 45
      yield* Effect.gen(function*() {
        yield* appendAll([{ ...batchOf("todos", "lww", [removed("1", 5), row("2", "x", 5)]), age }])
        yield* appendAll([{ ...batchOf("todos", "lww", [removed("1", 5), removed("3", 5)]), age: age + 7 }])
        yield* appendAll([{ ...batchOf("todos", "lww", [removed("4", 5)]), age }])
        yield* appendAll([{ ...batchOf("todos", "lww", [row("4", "again", 6)]), age }])
      }).pipe(Effect.provide(layer))
      const ages = new Map<string, number | undefined>()
      yield* Effect.flatMap(Persistence.Persistence, ({ load }) =>
        load({ record: (_, __, cell, ___, ____, each) => ages.set(cell, each), complete: () => {} })).pipe(
          Effect.provide(layer)
        )
      expect(Object.fromEntries(ages)).toEqual({ 1: age, 2: undefined, 3: age + 7, 4: undefined })
    }))

  it.scoped("keeps notes, the last of each, until it is to keep none", () =>
    Effect.gen(function*() {
      const { layer } = yield* make
      const note = (space: string, key: string, value?: ReadonlyArray<number>) => ({
        space,
        key,
        value: value === undefined ? undefined : Uint8Array.from(value)
      })
      yield* Effect.gen(function*() {
        expect((yield* Persistence.Persistence).notes.size).toBe(0)
        yield* appendAll([], [
          note("a", "1", [1]),
          note("a", "\0\"'", []),
          note("b", "1", [0, 255]),
          note("a", "1", [2])
        ])
        yield* appendAll([batchOf("todos", "lww", [row("1", 1, 1)])], [
          note("b", "1"),
          note("b", "2", [1]),
          note("b", "2"),
          note("a", "3"),
          note("a", "3", [3]),
          note("c", "never there")
        ])
      }).pipe(Effect.provide(layer))
      const { notes } = yield* Effect.provide(Persistence.Persistence, layer)
      const [a, b = new Map()] = [notes.get("a"), notes.get("b")]
      expect(Object.fromEntries(a ?? [])).toEqual({
        1: Uint8Array.of(2),
        "\0\"'": new Uint8Array(0),
        3: Uint8Array.of(3)
      })
      expect(b.size + (notes.get("c")?.size ?? 0)).toBe(0)
    }))

  it.scoped("keeps what each map comes to, with the last of its batches in a transaction", () =>
    Effect.gen(function*() {
      const { layer } = yield* make
      const totals = { records: 3, hi: -(2 ** 31), lo: 2 ** 31 - 1 }
      yield* Effect.provide(
        appendAll([batchOf("a", "lww", [row("1", 1, 1)]), { ...batchOf("a", "lww", [row("2", 1, 1)]), totals }]),
        layer
      )
      const maps: Array<unknown> = []
      yield* Effect.flatMap(
        Persistence.Persistence,
        ({ load }) => load({ record: () => {}, complete: (...complete) => maps.push(complete) })
      ).pipe(Effect.provide(layer))
      expect(maps).toEqual([["a", "lww", totals]])
    }))

  it.scoped("refuses to serve what isn't all that was stored, or isn't as it was stored", () =>
    Effect.gen(function*() {
      const records = kind === "sqlite" ? "records" : "topgun.records"
      for (
        const [tamper, message] of [
          [`DELETE FROM ${records} WHERE partition = ${partitionOf("1")}`, "it has 2 records, and 3 were stored"],
          [
            `UPDATE ${records} SET row = (SELECT row FROM ${records} WHERE partition = ${partitionOf("2")}) ` +
            `WHERE partition = ${partitionOf("1")}`,
            "one of its 3 records isn't what was stored"
          ],
          [
            `UPDATE ${records} SET partition = partition + 1 WHERE partition = ${partitionOf("1")}`,
            "another's partition"
          ]
        ] as const
      ) {
        const { name, raw, settings } = yield* make
        const server = TopGunServer.layerInProcess(settings)
        yield* Effect.gen(function*() {
          const client = yield* inProcessReady
          yield* client.send(batch("todos", "PERSISTED", 0, [["1", put("a")], ["2", put("b")], ["3", put("c")]]))
          yield* client.take("OpAck")
        }).pipe(Effect.provide(server))
        yield* raw(tamper)
        const fault = yield* Effect.flip(Layer.build(server))
        expect(fault.message).toContain(message)
        expect(fault.message).toContain(name)
      }
    }))

  it.scoped("keeps names and keys of whatever characters, and long ones", () =>
    Effect.gen(function*() {
      const { layer } = yield* make
      const names = [
        "\0",
        "a\0b",
        "__proto__",
        "constructor",
        "'; DROP TABLE records; --",
        "\\x41",
        "{\"a\",NULL}",
        "NULL",
        "😀é",
        "e\u0301",
        "%_\\",
        "ключ".repeat(75)
      ]
      const cells = [...names, "", "x".repeat(600)]
      yield* Effect.provide(
        Effect.forEach(names, (name, i) => append(name, ...cells.map((cell) => ({ ...row(name, i, 1), cell })))),
        layer
      )
      const found = yield* Effect.provide(stored, layer)
      expect(found).toEqual(
        inOrder(names.flatMap((name, i) => cells.map((cell) => storedAs(name, { ...row(name, i, 1), cell }))))
      )
    }))

  it.scoped("takes records of many megabytes in one transaction", () =>
    Effect.gen(function*() {
      const { layer } = yield* make
      const rows = Array.from({ length: 80 }, (_, i) => row(`${i % 79}`, `${i} ${"x".repeat(250_000)}`, 1 + i))
      yield* Effect.provide(append("todos", ...rows), layer)
      const found = yield* Effect.provide(stored, layer)
      expect(found.length).toBe(79)
      // Not compared by `toEqual`, whose text of a difference would be as many megabytes.
      const wrong = found.filter(([, cell, , bytes]) =>
        Buffer.compare(bytes, rows[cell === "0" ? 79 : Number(cell)]!.record.row) !== 0
      )
      expect(wrong.length).toBe(0)
    }))

  it.scoped("gives back pages of records, and lets others have their turn after each", () =>
    Effect.gen(function*() {
      const { layer } = yield* make
      const rows = Array.from({ length: 6_000 }, (_, i) => row(`${i}`, i, 1 + i))
      yield* Effect.provide(append("todos", ...rows), layer)
      yield* Effect.gen(function*() {
        const { load } = yield* Persistence.Persistence
        const found = new Set<string>()
        const counts = new Set<number>()
        const counting = yield* Effect.fork(
          Effect.forever(Effect.zipRight(turn, Effect.sync(() => counts.add(found.size))))
        )
        yield* load({ record: (_, __, cell) => found.add(cell), complete: () => counts.add(-1) })
        yield* Fiber.interrupt(counting)
        expect(found.size).toBe(6_000)
        expect(counts.size).toBeGreaterThanOrEqual(4)
      }).pipe(Effect.provide(layer))
    }))

  it.scoped("saves what is in line when it's closed", () =>
    Effect.gen(function*() {
      const { layer } = yield* make
      const rows = Array.from({ length: 20 }, (_, i) => row(`${i}`, i, i))
      const outcomes: Array<unknown> = []
      yield* Effect.map(Persistence.Persistence, (persistence) => {
        for (const each of rows) {
          persistence.append([batchOf("todos", "lww", [each])], (failure) => outcomes.push(failure))
        }
      }).pipe(Effect.provide(layer))
      expect(outcomes).toEqual(rows.map(() => undefined))
      expect(yield* Effect.provide(stored, layer)).toHaveLength(20)
    }))

  it.scopedLive("is one server's at a time", () =>
    Effect.gen(function*() {
      const { layer, name } = yield* make
      yield* Effect.gen(function*() {
        const { message } = yield* Effect.flip(Layer.build(layer))
        expect(message).toMatch(/another server uses /)
        expect(message).toContain(name)
        expect(message).toMatch(/TOPGUN_(DATA_DIR|DATABASE_URL)/)
        yield* append("todos", row("1", "x", 1))
      }).pipe(Effect.provide(layer))
      yield* Effect.provide(Persistence.Persistence, layer)
    }))

  it.scoped("refuses a newer format, naming both, and leaves it as it is", () =>
    Effect.gen(function*() {
      const { format, layer, raw } = yield* make
      const meta = kind === "sqlite" ? "meta" : "topgun.meta"
      yield* Effect.provide(append("todos", row("1", "x", 1)), layer)
      yield* raw(`UPDATE ${meta} SET value = '7' WHERE name = 'format'`)
      const all = raw<{ name: string; value: string }>(`SELECT name, value FROM ${meta} ORDER BY name`)
      const before = yield* all
      const { message } = yield* Effect.flip(Layer.build(layer))
      expect(message).toContain(`has format 7, this server knows formats up to ${format}`)
      expect(yield* all).toEqual(before)
    }))

  it.scoped("says of a record that isn't one which database holds it", () =>
    Effect.gen(function*() {
      const { layer, name, raw, settings } = yield* make
      yield* Effect.provide(append("todos", row("1", "x", 1)), layer)
      yield* raw(kind === "sqlite" ? "UPDATE records SET row = x'00'" : "UPDATE topgun.records SET row = '\\x00'")
      const { message } = yield* Effect.flip(Layer.build(TopGunServer.layerInProcess(settings)))
      expect(message).toContain(name)
      expect(message).toContain("a record has at least")
    }))
})

describe("Persistence on SQLite", () => {
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

  it.scoped("says of a damaged file that it is, and what to do", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      writeFileSync(join(dataDir, "topgun.db"), "This is no database. ".repeat(1_000))
      const { message } = yield* Effect.flip(Layer.build(sqlite(dataDir)))
      expect(message).toContain("is damaged")
      expect(message).toContain("backup")
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
    snapshot: Effect.dieMessage("nobody backs this up"),
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

const turn = Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))

describe("Persistence's group commit", () => {
  it.effect("commits together what waits together, up to 250 records, and settles in order", () => {
    const { control, driver } = makeDriver()
    return Effect.gen(function*() {
      const persistence = yield* Persistence.Persistence
      const settled: Array<number> = []
      for (let i = 0; i < 30; i++) {
        const rows = Array.from({ length: 100 }, (_, j) => row(`${i}.${j}`, j, 1))
        persistence.append([batchOf("todos", "lww", rows)], () => settled.push(i))
      }
      yield* persistence.flush
      expect(control.commits.map(({ length }) => length)).toEqual(Array.from({ length: 15 }, () => 200))
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
