/** Backups of each database, and what is made of them. */
import { describe, expect, it } from "@effect/vitest"
import { BackupRefused, BackupUnusable, RestoreRefused, StorageUnavailable } from "@topgun/core/GridError"
import * as Value from "@topgun/core/Value"
import * as Persistence from "@topgun/server/Persistence"
import * as Restore from "@topgun/server/Restore"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Stream from "effect/Stream"
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { batch, inProcessReady, type PlainClient, put, removal, settled, totals } from "./PlainClient.ts"
import { onEachStore, type Store, temporaryDir } from "./stores.ts"

const quiet = Layer.provide(Logger.minimumLogLevel(LogLevel.None))

/** A server on a store; one without a socket. */
const serverOn = ({ settings }: Store) => TopGunServer.layerInProcess({ ...settings }).pipe(quiet)

const makeBackup = Effect.flatMap(
  TopGunServer.TopGunServer,
  ({ backup }) =>
    Effect.scoped(
      Effect.flatMap(backup, (stream) =>
        Effect.map(Stream.runCollect(stream), (chunks) => Buffer.concat(Array.from(chunks)).toString("utf8")))
    )
)

const restoreInto = ({ settings }: Store, text: string | Uint8Array, replace = false, chunk = 7_000) =>
  Restore.restore(
    Stream.fromIterable((function*() {
      const bytes = Buffer.from(text as string)
      for (let at = 0; at < bytes.length; at += chunk) yield new Uint8Array(bytes.subarray(at, at + chunk))
    })()),
    { replace }
  ).pipe(Effect.provide(ServerConfig.layer(settings)))

const statusOf = Effect.flatMap(TopGunServer.TopGunServer, ({ status }) => status)

/** Maps as they are, by their roots. */
const mapsOn = (store: Store) =>
  Effect.map(statusOf, ({ maps }) => maps.slice().sort((a, b) => a.name < b.name ? -1 : 1)).pipe(
    Effect.provide(serverOn(store)),
    Effect.scoped
  )

/** All that a store has. */
const contentOf = (store: Store) =>
  Effect.gen(function*() {
    const { generation, nodeId, notes } = yield* Persistence.Persistence
    const { load } = yield* Persistence.Persistence
    const records: Array<string> = []
    yield* load({
      record: (map, kind, cell, partition, row, age) =>
        void records.push(JSON.stringify([map, kind, cell, partition, Buffer.from(row).toString("hex"), age])),
      complete: (map, kind, sums) => void records.push(JSON.stringify([map, kind, sums]))
    })
    return {
      generation,
      nodeId,
      notes: new Map(Array.from(notes, ([space, ofSpace]) => [space, new Map(ofSpace)])),
      records: records.sort()
    }
  }).pipe(Effect.provide(store.layer), Effect.scoped)

let sequence = 0
const write = (client: PlainClient, map: string, ...ops: ReadonlyArray<readonly [string, Uint8Array]>) =>
  Effect.zipRight(client.send(batch(map, "PERSISTED", (sequence += 5_000) - 5_000, ops)), client.take("OpAck"))

const fill = Effect.gen(function*() {
  const client = yield* inProcessReady
  yield* write(
    client,
    "todos",
    ["a", put({ text: "milk", at: new Date(5), big: 2n ** 63n, bytes: Uint8Array.of(0, 255), none: -0 })],
    ["\0", put(null)],
    ["__proto__", put(Object.fromEntries([["__proto__", 1]]))],
    ["ключ\n\u2028", put("ü")],
    ["dead", removal(2_000)]
  )
  yield* write(client, "__proto__", ["k", put(1)])
  yield* client.send(
    batch("tags", "PERSISTED", (sequence += 5_000) - 5_000, [["k", put("x")], ["k", removal(1_500)]], { kind: "or" })
  )
  yield* client.take("OpAck")
  yield* client.send(
    batch("likes", "PERSISTED", (sequence += 5_000) - 5_000, [["likes", totals(7, 2)]], { kind: "counter" })
  )
  yield* client.take("OpAck")
})

const withoutAge = (notes: Persistence.Notes) => {
  const rest = new Map(notes)
  rest.delete("age")
  return rest
}

onEachStore("A backup of", (stores) => {
  it.live("is restored as it was, notes and ages included, as another store", () =>
    Effect.gen(function*() {
      const store = yield* stores.make
      const text = yield* Effect.zipRight(fill, makeBackup).pipe(Effect.provide(serverOn(store)), Effect.scoped)
      const before = yield* contentOf(store)
      const target = yield* stores.make
      const restored = yield* restoreInto(target, text)
      const after = yield* contentOf(target)
      expect(after.records).toEqual(before.records)
      expect(withoutAge(after.notes)).toEqual(withoutAge(before.notes))
      expect(restored).toMatchObject({ maps: 4, records: 9, kept: undefined, isOld: false })
      expect(restored.header.generation).toBe(before.generation)
      expect(Value.decode(after.notes.get("age")!.get("age")!)).toEqual([1, restored.header.age])
      expect([after.generation, after.nodeId]).not.toEqual([before.generation, before.nodeId])
      expect(new Set([before.generation, before.nodeId, after.generation, after.nodeId]).size).toBe(4)
      expect(yield* mapsOn(target)).toEqual(yield* mapsOn(store))
      // And what is restored is backed up alike.
      const again = yield* makeBackup.pipe(Effect.provide(serverOn(target)), Effect.scoped)
      const content = (lines: string) => lines.split("\n").filter((line) => /^\{"(in|total|map)"/.test(line)).sort()
      expect(content(again)).toEqual(content(text))
    }).pipe(Effect.scoped), 15_000)

  it.live(
    "is of one instant: what was written at once is in it at once, and nothing that came later is",
    () =>
      Effect.gen(function*() {
        const store = yield* stores.make
        const text = yield* Effect.gen(function*() {
          const client = yield* inProcessReady
          for (let part = 0; part < 8; part++) {
            const keys = Array.from({ length: 500 }, (_, n) => `k${part} ${n}`)
            yield* write(client, "first", ...keys.map((key) => [key, put("x".repeat(100))] as const))
          }
          const { backup } = yield* TopGunServer.TopGunServer
          let round = 0
          // Two maps in one batch each: the same round in both.
          const writing = Effect.forever(Effect.suspend(() => {
            const ops = [["k", put(++round, 2_000 + round)]] as const
            const part = (map: string, atomic: "more" | "end") =>
              batch(map, "PERSISTED", (sequence += 5_000) - 5_000, ops, { atomic })
            return client.send(part("left", "more"), part("right", "end")).pipe(
              Effect.zipRight(client.take("OpAck")),
              Effect.zipRight(settled)
            )
          }))
          const writer = yield* Effect.fork(writing)
          while (round < 3) yield* settled
          const stream = yield* backup
          const chosen = round
          const chunks: Array<Uint8Array> = []
          yield* Stream.runForEach(stream, (chunk) => Effect.zipRight(Effect.sync(() => chunks.push(chunk)), settled))
          yield* Fiber.interrupt(writer)
          expect(round).toBeGreaterThan(chosen)
          return Buffer.concat(chunks).toString("utf8")
        }).pipe(Effect.provide(serverOn(store)), Effect.scoped)
        const rounds = text.split("\n").flatMap((line) =>
          /^\{"in":"(?:left|right)".*"value":(\d+)/.exec(line)?.[1] ?? []
        )
        expect(rounds).toHaveLength(2)
        expect(rounds[0]).toBe(rounds[1])
      }).pipe(Effect.scoped),
    15_000
  )

  it.live("is one at a time; nothing of it stays, whether it's read or left", () =>
    Effect.gen(function*() {
      const store = yield* stores.make
      yield* Effect.gen(function*() {
        yield* fill
        const { backup } = yield* TopGunServer.TopGunServer
        yield* Effect.scoped(Effect.gen(function*() {
          expect(yield* backup).toBeDefined()
          const refused = yield* Effect.flip(Effect.scoped(backup))
          expect(refused).toBeInstanceOf(BackupRefused)
          expect(refused.message).toBe("No backup was made: another one is being made: try again when it is done")
          // The refused one doesn't end the other.
          expect(yield* Effect.flip(Effect.scoped(backup))).toBeInstanceOf(BackupRefused)
        }))
        expect((yield* makeBackup).endsWith("\"}\n")).toBe(true)
        const { dataDir } = store.settings
        if (dataDir !== undefined) {
          expect(readdirSync(dataDir).filter((file) => !/\.(db|db-wal|seal)$/.test(file))).toEqual([])
        }
      }).pipe(Effect.provide(serverOn(store)), Effect.scoped)
    }).pipe(Effect.scoped), 15_000)

  it.live(
    "goes into an empty store, and into another only where it's to be replaced; never beside a server",
    () =>
      Effect.gen(function*() {
        const [store, other] = [yield* stores.make, yield* stores.make]
        const text = yield* Effect.zipRight(fill, makeBackup).pipe(Effect.provide(serverOn(store)), Effect.scoped)
        yield* Effect.gen(function*() {
          yield* write(yield* inProcessReady, "other", ["k", put("theirs")])
          for (const replace of [false, true]) {
            const refused = yield* Effect.flip(restoreInto(other, text, replace))
            expect(refused).toBeInstanceOf(StorageUnavailable)
            expect(refused.message).toContain("another server uses")
          }
        }).pipe(Effect.provide(serverOn(other)), Effect.scoped)
        const before = yield* contentOf(other)
        const refused = yield* Effect.flip(restoreInto(other, text))
        expect(refused).toBeInstanceOf(RestoreRefused)
        expect(refused.message).toContain("(--replace)")
        expect(yield* contentOf(other)).toEqual(before)
        const { kept } = yield* restoreInto(other, text, true)
        const after = yield* contentOf(other)
        expect(after.records).toEqual((yield* contentOf(store)).records)
        expect(after.generation).not.toBe(before.generation)
        expect(after.nodeId).not.toBe(before.nodeId)
        if (stores.kind === "postgres") return
        const keptStore = {
          ...other,
          layer: Layer.provide(Persistence.layerSqlite, ServerConfig.layer({ dataDir: kept! }))
        }
        expect(yield* contentOf(keptStore)).toEqual(before)
      }).pipe(Effect.scoped),
    15_000
  )

  it.live("that isn't whole, or isn't one, changes nothing", () =>
    Effect.gen(function*() {
      const [store, other, empty] = [yield* stores.make, yield* stores.make, yield* stores.make]
      const text = yield* Effect.zipRight(fill, makeBackup).pipe(Effect.provide(serverOn(store)), Effect.scoped)
      yield* Effect.flatMap(inProcessReady, (client) => write(client, "other", ["k", put("theirs")])).pipe(
        Effect.provide(serverOn(other)),
        Effect.scoped
      )
      const before = yield* contentOf(other)
      const lines = text.split("\n")
      const at = lines.findIndex((line) => line.startsWith("{\"in\""))
      const broken: Record<string, string | Uint8Array> = {
        empty: "",
        "a truncated one": text.slice(0, text.length / 2),
        "one without its end": lines.slice(0, -2).join("\n"),
        "one with a line twice": [...lines.slice(0, at), lines[at], ...lines.slice(at)].join("\n"),
        "one with a record less": [...lines.slice(0, at), ...lines.slice(at + 1)].join("\n"),
        "one with another note": text.replace(
          "{\"note\":\"age\",\"key\":\"age\",\"value\":[1",
          "{\"note\":\"age\",\"key\":\"age\",\"value\":[2"
        ),
        "one with another age": text.replace("\"deleted\":true,\"age\":", "\"deleted\":true,\"age\":1"),
        "one with more behind it": `${text}{}\n`,
        "another program's JSON": "[{\"id\":1}]",
        "no JSON": "hello\nworld\n",
        "gzip": gzipSync(text),
        "bytes": Uint8Array.from({ length: 100_000 }, (_, n) => n * 31),
        "a line without an end": `${lines[0]}\n{"in":"${"x".repeat(8 * 1024 * 1024)}`
      }
      for (const [name, content] of Object.entries(broken)) {
        for (const target of [other, empty]) {
          const refused = yield* Effect.flip(restoreInto(target, content, true, 64 * 1024))
          expect(refused, name).toBeInstanceOf(BackupUnusable)
        }
      }
      expect(yield* contentOf(other)).toEqual(before)
      const { dataDir } = empty.settings
      if (dataDir !== undefined) expect(readdirSync(dataDir)).toEqual([])
      expect((yield* contentOf(empty)).records).toEqual([])
    }).pipe(Effect.scoped), 20_000)

  // The file of the other is its server's alone.
  if (stores.kind !== "postgres") return

  it.live(
    "of data that was changed behind the server's back fails, and says so in its last line",
    () =>
      Effect.gen(function*() {
        const store = yield* stores.make
        const hex = Buffer.from(put("other")).toString("hex")
        yield* Effect.zipRight(fill, Effect.void).pipe(Effect.provide(serverOn(store)), Effect.scoped)
        const text = yield* Effect.gen(function*() {
          yield* store.raw(`UPDATE topgun.records SET row = '\\x${hex}' WHERE key = '\\x6b' AND age IS NULL`)
          return yield* makeBackup
        }).pipe(Effect.provide(serverOn(store)), Effect.scoped)
        expect(text.trimEnd().split("\n").at(-1)).toMatch(
          /^\{"failed":"Storage is unavailable: the database isn't what was stored/
        )
        expect(yield* Effect.flip(restoreInto(yield* stores.make, text))).toBeInstanceOf(BackupUnusable)
      }).pipe(Effect.scoped),
    15_000
  )
})

describe("A backup", () => {
  it.effect("isn't made of what is in memory only", () =>
    Effect.gen(function*() {
      const refused = yield* Effect.flip(makeBackup)
      expect(refused).toBeInstanceOf(BackupRefused)
      expect(refused.message).toContain("keeps its data in memory")
    }).pipe(Effect.provide(TopGunServer.layerInProcess().pipe(quiet))))

  it.live("isn't restored into memory", () =>
    Effect.gen(function*() {
      const refused = yield* Effect.flip(
        Restore.restore(Stream.empty, { replace: true }).pipe(Effect.provide(ServerConfig.layer({ storage: "memory" })))
      )
      expect(refused.message).toContain("storage memory keeps nothing")
    }))

  it.live("leaves nothing that a start doesn't remove, when the server dies on it, or who restores", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      for (const left of ["topgun.backup", "topgun.restore"]) {
        mkdirSync(join(dataDir, left))
        writeFileSync(join(dataDir, left, "topgun.db"), "half of it")
      }
      yield* statusOf.pipe(
        Effect.provide(TopGunServer.layerInProcess({ storage: "sqlite", dataDir }).pipe(quiet)),
        Effect.scoped
      )
      expect(["topgun.backup", "topgun.restore"].filter((left) => existsSync(join(dataDir, left)))).toEqual([])
    }).pipe(Effect.scoped))

  it.live("takes the place of a database that can't be opened, which is kept", () =>
    Effect.gen(function*() {
      const [dataDir, other] = [yield* temporaryDir, yield* temporaryDir]
      const store = (directory: string) => ({ settings: { storage: "sqlite", dataDir: directory } }) as unknown as Store
      const text = yield* Effect.zipRight(fill, makeBackup).pipe(
        Effect.provide(serverOn(store(dataDir))),
        Effect.scoped
      )
      writeFileSync(join(other, "topgun.db"), "this is no database, and it's long enough to be none".repeat(100))
      writeFileSync(join(other, "topgun.db-wal"), "nor is this a log")
      writeFileSync(join(other, "topgun.seal"), "nor this a seal")
      expect(yield* Effect.flip(restoreInto(store(other), text))).toBeInstanceOf(RestoreRefused)
      const { kept } = yield* restoreInto(store(other), text, true)
      expect(readdirSync(kept!).sort()).toEqual(["topgun.db", "topgun.db-wal", "topgun.seal"])
      expect(readFileSync(join(kept!, "topgun.db"), "utf8")).toContain("this is no database")
      expect(yield* mapsOn(store(other))).toEqual(yield* mapsOn(store(dataDir)))
    }).pipe(Effect.scoped), 15_000)

  it.live("that is older than deletions are remembered is one to be warned of", () =>
    Effect.gen(function*() {
      const [dataDir, other] = [yield* temporaryDir, yield* temporaryDir]
      const settings = { storage: "sqlite", tombstoneAge: "10 minutes", tombstoneHorizon: "1 hour" } as const
      const text = yield* Effect.zipRight(fill, makeBackup).pipe(
        Effect.provide(serverOn({ settings: { ...settings, dataDir } } as unknown as Store)),
        Effect.scoped
      )
      const later = yield* Effect.clock
      for (const [minutes, isOld] of [[9, false], [11, true]] as const) {
        const clock: Clock.Clock = Object.assign(Object.create(later), {
          currentTimeMillis: Effect.map(later.currentTimeMillis, (millis) => millis + minutes * 60_000)
        })
        const restored = yield* restoreInto(
          { settings: { ...settings, dataDir: other } } as unknown as Store,
          text,
          true
        ).pipe(Effect.withClock(clock))
        expect(restored.isOld).toBe(isOld)
      }
    }).pipe(Effect.scoped), 15_000)
})
