/** Real server processes whose disk fails: what they say, what they go on with, and that they recover by themselves. */
import { describe, it } from "@effect/vitest"
import * as TopGunClient from "@topgun/client/TopGunClient"
import * as Storage from "@topgun/core/Storage"
import * as Transport from "@topgun/core/Transport"
import { renameSync, rmSync } from "node:fs"
import * as path from "node:path"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { expect } from "vitest"
import * as Faults from "./crash/Faults.ts"
import * as RawWriter from "./crash/RawWriter.ts"
import { end, freePort, said, type ServerProcess, sqlite, start, temporaryDir } from "./crash/ServerProcess.ts"

const openClient = (port: number) =>
  Effect.map(
    Layer.build(
      TopGunClient.layer().pipe(
        Layer.provide([Transport.layerWebSocket({ url: `ws://127.0.0.1:${port}` }), Storage.layerMemory])
      )
    ),
    (context) => Context.get(context, TopGunClient.TopGunClient)
  )

let devices = 0
/** A connection of a device that nobody has seen before. */
const connect = (port: number) => RawWriter.connect(port, `trouble${String(devices++).padStart(9, "0")}`)

const writeTo = (key: string, value: unknown) => ({ map: "m", key, value, attempt: { acknowledged: false } })

/** A write of one key over a connection of its own; answers whether it was acknowledged, and what else was said. */
const write = Effect.fnUntraced(
  function*(port: number, concern: "APPLIED" | "PERSISTED", key: string, value: unknown = 1) {
    const writer = yield* connect(port)
    const one = writeTo(key, value)
    writer.write([one], concern)
    yield* writer.until(() => one.attempt.acknowledged || writer.faults.length > 0)
    return { acknowledged: one.attempt.acknowledged, faults: writer.faults }
  }
)

const metric = (port: number, name: string) =>
  Effect.promise(async () => {
    const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
    return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1])
  })

/** What a fresh client finds in the map. */
const contentOf = Effect.fnUntraced(function*(port: number) {
  const reader = yield* openClient(port)
  const map = yield* reader.map<number>("m")
  yield* reader.synced
  return new Map(map)
})

const prepared = Effect.gen(function*() {
  const dir = yield* temporaryDir
  const dataDir = path.join(dir, "data")
  const port = yield* freePort
  const faults = yield* Faults.make(path.join(dir, "faults"))
  const server = yield* start(sqlite, dataDir, port, { faults })
  expect((yield* write(port, "PERSISTED", "before")).acknowledged).toBe(true)
  // Otherwise all that follows would prove nothing.
  expect(faults.get("writes")).toBeGreaterThan(0)
  expect(faults.get("syncs")).toBeGreaterThan(0)
  return { dataDir, faults, port, server }
})
type Prepared = Effect.Effect.Success<typeof prepared>

/** The process goes, with the power, at its next write. */
const losePower = Effect.fnUntraced(function*({ faults, port }: Prepared, server: ServerProcess) {
  faults.set({ loss: Faults.loss.all, killAtWrite: 1 })
  yield* Effect.raceFirst(Effect.exit(write(port, "PERSISTED", "last")), server.exited)
  yield* server.exited
  faults.clear()
})

/** Waits until the database is written again, as those who write see it. */
const recovered = (port: number, key: string) =>
  Effect.repeat(write(port, "PERSISTED", key), {
    until: ({ acknowledged }) => acknowledged,
    schedule: Schedule.spaced("50 millis")
  })

describe("a server whose disk fails", () => {
  const { EIO, ENOSPC, EROFS } = Faults.errno
  const troubles = [
    ["is full", { writeErrno: ENOSPC }, /the disk of .+ is full: make room/],
    ["can't be written", { writeErrno: EIO }, /the disk of .+ fails \(SQLITE_IOERR/],
    ["becomes read-only", { writeErrno: EROFS }, /the disk of .+ fails \(SQLITE_IOERR|cannot be written/],
    ["can't be synced", { syncErrno: EIO }, /the disk of .+ fails \(SQLITE_IOERR_FSYNC/]
  ] as const

  it.scopedLive.each(troubles)(
    "because it %s acknowledges nothing as PERSISTED, goes on with APPLIED, says why, and recovers by itself",
    ([, trouble, reason]) =>
      Effect.gen(function*() {
        const present = yield* prepared
        const { dataDir, faults, port, server } = present
        const device = yield* openClient(port)
        const map = yield* device.map<number>("m")
        yield* device.synced
        faults.set(trouble)
        const refused = yield* write(port, "PERSISTED", "meanwhile")
        expect(refused.acknowledged).toBe(false)
        expect(refused.faults.join()).toMatch(/^StorageUnavailable: /)
        expect(refused.faults.join()).toMatch(reason)
        expect((yield* write(port, "APPLIED", "applied")).acknowledged).toBe(true)
        const asked = yield* map.set("device", 1, { writeConcern: "PERSISTED", timeoutMs: 300 })
        expect(yield* Effect.flip(asked.server)).toMatchObject({ _tag: "Indeterminate" })
        expect(yield* metric(port, "topgun_commit_failures_total")).toBeGreaterThan(0)
        expect(yield* metric(port, "topgun_commit_waiting_rows")).toBeGreaterThan(0)
        yield* said(server, reason)
        faults.clear()
        yield* recovered(port, "after")
        yield* device.synced
        expect(yield* metric(port, "topgun_commit_waiting_rows")).toBe(0)
        // What is said to be safe is, now that nothing fails any more.
        yield* losePower(present, server)
        yield* start(sqlite, dataDir, port, { faults })
        const content = yield* contentOf(port)
        expect(Array.from(content.keys())).toEqual(
          expect.arrayContaining(["before", "meanwhile", "applied", "device", "after"])
        )
      })
  )

  it.scopedLive("and which is started anew doesn't build on what the failed sync has left", () =>
    Effect.gen(function*() {
      const present = yield* prepared
      const { dataDir, faults, port, server } = present
      faults.set({ syncErrno: EIO, files: Faults.files.log })
      expect((yield* write(port, "PERSISTED", "unsynced")).acknowledged).toBe(false)
      // It ends before it tries again, with all that it has written in the system's memory.
      faults.set({ killAtWrite: 1 })
      yield* server.exited
      faults.clear()
      const second = yield* start(sqlite, dataDir, port, { faults })
      expect((yield* write(port, "PERSISTED", "acknowledged")).acknowledged).toBe(true)
      yield* losePower(present, second)
      yield* start(sqlite, dataDir, port, { faults })
      expect(Array.from((yield* contentOf(port)).keys())).toContain("acknowledged")
    }))

  it.scopedLive("where the log is to be carried into the database keeps all, and says that the log grows", () =>
    Effect.gen(function*() {
      const present = yield* prepared
      const { dataDir, faults, port, server } = present
      faults.set({ writeErrno: ENOSPC, files: Faults.files.database })
      const writer = yield* connect(port)
      const text = "x".repeat(400)
      for (let batch = 0; batch < 1_000 && !server.output().includes("grows"); batch++) {
        const rows = Array.from({ length: 400 }, (_, n) => writeTo(`${batch % 20}-${n}`, `${batch} ${text}`))
        writer.write(rows, "PERSISTED")
        yield* writer.until(() => writer.inFlight() < 2_000)
      }
      yield* writer.until(() => writer.inFlight() === 0)
      expect(writer.faults).toEqual([])
      yield* said(server, /topgun.db-wal.+ grows.+the disk of .+ is full: make room/)
      const before = yield* contentOf(port)
      yield* losePower(present, server)
      yield* start(sqlite, dataDir, port, { faults })
      const after = yield* contentOf(port)
      after.delete("last")
      expect(after).toEqual(before)
    }))

  it.scopedLive("to be slow keeps its word, late", () =>
    Effect.gen(function*() {
      const present = yield* prepared
      const { dataDir, faults, port, server } = present
      faults.set({ syncMillis: 300 })
      const outcomes = yield* Effect.all(
        Array.from({ length: 20 }, (_, n) => write(port, n % 2 === 0 ? "PERSISTED" : "APPLIED", `slow ${n}`)),
        { concurrency: "unbounded" }
      )
      expect(outcomes.every(({ acknowledged }) => acknowledged)).toBe(true)
      yield* losePower(present, server)
      yield* start(sqlite, dataDir, port, { faults })
      const content = yield* contentOf(port)
      for (let n = 0; n < 20; n += 2) expect(content.has(`slow ${n}`)).toBe(true)
    }))
})

describe("a server whose files are taken away", () => {
  it.scopedLive("acknowledges nothing as PERSISTED while the database isn't where it was, and goes on when it is back", () =>
    Effect.gen(function*() {
      const { dataDir, port, server } = yield* prepared
      const file = path.join(dataDir, "topgun.db")
      renameSync(file, `${file}.away`)
      const refused = yield* write(port, "PERSISTED", "meanwhile")
      expect(refused.acknowledged).toBe(false)
      expect(refused.faults.join()).toContain("was removed or replaced while the server has it open")
      yield* said(server, /was removed or replaced/)
      renameSync(`${file}.away`, file)
      yield* recovered(port, "after")
      yield* end(server, "SIGKILL")
      yield* start(sqlite, dataDir, port)
      expect(Array.from((yield* contentOf(port)).keys()).sort()).toEqual(["after", "before", "meanwhile"])
    }))

  it.scopedLive("goes on with another log when its log is removed", () =>
    Effect.gen(function*() {
      const { dataDir, port, server } = yield* prepared
      rmSync(path.join(dataDir, "topgun.db-wal"))
      expect((yield* write(port, "PERSISTED", "meanwhile")).acknowledged).toBe(true)
      expect((yield* write(port, "PERSISTED", "after")).acknowledged).toBe(true)
      yield* said(server, /was removed; the database has what was in it/)
      yield* end(server, "SIGKILL")
      yield* start(sqlite, dataDir, port)
      expect(Array.from((yield* contentOf(port)).keys()).sort()).toEqual(["after", "before", "meanwhile"])
    }))
})
