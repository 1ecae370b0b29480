/**
 * Databases that aren't what the server wrote: the next start serves exactly what was there, or refuses, with words.
 *
 * `TOPGUN_CORRUPTION_SEEDS` says how many random bits are flipped (60); `npm run crash` flips more.
 */
import { describe, expect, it } from "@effect/vitest"
import type { MapKind } from "@topgun/core/Cell"
import * as Persistence from "@topgun/server/Persistence"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Scope from "effect/Scope"
import {
  appendFileSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll } from "vitest"
import { batch, inProcessReady, noise, put, removal, totals } from "./PlainClient.ts"

const seeds = Number(process.env["TOPGUN_CORRUPTION_SEEDS"] ?? 60)
const firstSeed = Number(process.env["TOPGUN_CRASH_SEED"] ?? 1)

const files = { database: "topgun.db", log: "topgun.db-wal", seal: "topgun.seal" } as const

const quiet = Logger.minimumLogLevel(LogLevel.None)

const serverOver = (dataDir: string) =>
  Layer.provide(TopGunServer.layerInProcess({ storage: "sqlite", dataDir }), quiet)

const persistenceOver = (dataDir: string) => Layer.provide(Persistence.layerSqlite, ServerConfig.layer({ dataDir }))

interface Content {
  readonly maps: unknown
  readonly records: ReadonlyArray<unknown>
  readonly identity: ReadonlyArray<string>
  readonly notes: unknown
}

/** What is stored, down to what no root covers. */
const storedIn = (dataDir: string) =>
  Effect.gen(function*() {
    const { generation, load, nodeId, notes } = yield* Persistence.Persistence
    const records: Array<ReadonlyArray<unknown>> = []
    yield* load({
      record: (map, kind, cell, partition, row, age) =>
        records.push([map, kind, cell, partition, Buffer.from(row).toString("hex"), age]),
      complete: (map, kind, stored) => records.push([map, kind, stored])
    })
    return {
      records: records.map((record) => JSON.stringify(record)).sort(),
      identity: [generation, nodeId],
      notes: Array.from(notes, ([space, entries]) => [space, Array.from(entries, ([key, value]) => [key, [...value]])])
    }
  }).pipe(Effect.provide(persistenceOver(dataDir)))

/** What a server over a directory serves, or why it doesn't. A fault that has no type is thrown. */
const startOver = (dataDir: string): Effect.Effect<Content | string> =>
  Effect.gen(function*() {
    const { status } = yield* TopGunServer.TopGunServer
    const { maps } = yield* status
    return maps.map(({ name, records, root }) => `${name} ${records} ${root}`).sort()
  }).pipe(
    Effect.provide(serverOver(dataDir)),
    Effect.flatMap((maps) => Effect.map(storedIn(dataDir), (stored): Content | string => ({ maps, ...stored }))),
    Effect.catchAll(({ message }) => Effect.succeed(message))
  )

const kinds = [["plain", "lww"], ["tags", "or"], ["hits", "counter"]] as const

const lifeOf = (kind: MapKind, from: number) =>
  Array.from({ length: 120 }, (_, i): readonly [string, Uint8Array] => {
    const key = kind === "counter" ? "hits" : `key ${from + i}`
    const writer = `writer${String(from + i).padStart(10, "0")}`
    if (kind === "counter") return [key, totals(i + 1, 0, writer)]
    return i % 5 === 0 ? [key, removal(from + i)] : [key, put(i % 40 === 1 ? noise(9_000) : { i }, from + i)]
  })

/**
 * Directories of one server, all as a crash leaves them: an earlier one, a later one, and one that ended in peace.
 */
let place: string
const at = (name: string) => join(place, name)
const contents = new Map<string, Content>()

const grow = Effect.fnUntraced(function*(from: number) {
  const client = yield* inProcessReady
  let sequence = 0
  for (const [map, kind] of kinds) {
    for (let part = 0; part < 4; part++) {
      const rows = lifeOf(kind, from).slice(part * 30, part * 30 + 30)
      yield* client.send(batch(map, "PERSISTED", sequence, rows, { kind }))
      sequence += rows.length
      yield* client.take("OpAck")
    }
  }
})

const prepare = Effect.gen(function*() {
  const dataDir = at("live")
  yield* Effect.gen(function*() {
    const { append, flush } = yield* Persistence.Persistence
    append([], () => {}, [
      { space: "devices", key: "one", value: Uint8Array.of(1, 2, 3) },
      { space: "devices", key: "two", value: Uint8Array.of(4) },
      { space: "grid", key: "age", value: Uint8Array.of(5, 6) }
    ])
    yield* flush
  }).pipe(Effect.provide(persistenceOver(dataDir)))
  const scope = yield* Scope.make()
  const context = yield* Layer.buildWithScope(serverOver(dataDir), scope)
  yield* Effect.provide(grow(1_000), context)
  cpSync(dataDir, at("earlier"), { recursive: true })
  yield* Effect.provide(grow(1_060), context)
  cpSync(dataDir, at("crashed"), { recursive: true })
  yield* Scope.close(scope, Exit.void)
  cpSync(dataDir, at("ended"), { recursive: true })
  for (const name of ["earlier", "crashed", "ended"]) {
    cpSync(at(name), at("read"), { recursive: true })
    const content = yield* startOver(at("read"))
    rmSync(at("read"), { recursive: true })
    if (typeof content === "string") throw new Error(content)
    contents.set(name, content)
  }
})

beforeAll(() => {
  place = mkdtempSync(join(tmpdir(), "topgun-corruption-"))
  return Effect.runPromise(prepare)
})
afterAll(() => rmSync(place, { recursive: true, force: true }))

const sentence = /(is damaged|isn't the one|is missing|has the first \d+ of|has format)/
const remedy = /(restore|put back|run the newer server)/

/** Spoils a copy of a directory, starts over it, and holds that to what is promised; answers whether it was refused. */
const spoiled = Effect.fnUntraced(
  function*(name: string, about: string, spoil: (dataDir: string) => Effect.Effect<void>) {
    const dataDir = at("spoiled")
    rmSync(dataDir, { recursive: true, force: true })
    cpSync(at(name), dataDir, { recursive: true })
    yield* spoil(dataDir)
    const outcome = yield* startOver(dataDir)
    if (typeof outcome !== "string") {
      expect(outcome, about).toEqual(contents.get(name))
      return undefined
    }
    expect(outcome, about).toMatch(sentence)
    expect(outcome, about).toMatch(remedy)
    // Nothing that it does makes it something else.
    expect(typeof (yield* startOver(dataDir)), about).toBe("string")
    return outcome
  }
)

const numbersOf = (seed: number) => {
  let state = Math.imul(seed, 2_654_435_761) >>> 0
  return (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor(state / 2 ** 32 * below)
  }
}

const change = (file: string, how: (bytes: Buffer) => void) =>
  Effect.sync(() => {
    const bytes = readFileSync(file)
    how(bytes)
    writeFileSync(file, bytes)
  })

const flip = (file: string, numbers: (below: number) => number) =>
  change(file, (bytes) => {
    const where = numbers(bytes.length)
    bytes[where] = bytes[where]! ^ (1 << numbers(8))
  })

const run = (dataDir: string, sql: string): Effect.Effect<void> =>
  Effect.scoped(
    Effect.flatMap(
      Layer.build(SqliteClient.layer({ filename: join(dataDir, files.database) })),
      (context) => {
        const client = Context.get(context, SqliteClient.SqliteClient)
        return Effect.orDie(Effect.zipRight(client.unsafe("PRAGMA foreign_keys = OFF"), client.unsafe(sql)))
      }
    )
  ).pipe(Effect.orDie, Effect.asVoid)

const flips = Array.from({ length: seeds }, (_, i) => firstSeed * 100_000 + i)

describe("A database of which one bit has changed", () => {
  const cases = [["ended", files.database], ["crashed", files.database], ["crashed", files.log]] as const
  it.effect.each(cases)("is served as it was, or refused (%s, %s)", ([name, file]) =>
    Effect.gen(function*() {
      let refused = 0
      for (const seed of flips) {
        const about = `${file} of ${name}, TOPGUN_CRASH_SEED=${firstSeed}, ${seed}`
        const outcome = yield* spoiled(name, about, (dataDir) => flip(join(dataDir, file), numbersOf(seed)))
        if (outcome !== undefined) refused++
      }
      expect(refused).toBeGreaterThan(0)
    }), 60_000 + seeds * 1_000)

  it.effect("is served when it is one of the seal", () =>
    Effect.gen(function*() {
      for (const seed of flips) {
        expect(
          yield* spoiled("crashed", `${seed}`, (dataDir) => flip(join(dataDir, files.seal), numbersOf(seed)))
        ).toBe(undefined)
      }
    }), 60_000 + seeds * 1_000)
})

describe("A key that has changed", () => {
  it.effect("in the table or in its index alone, is refused", () =>
    Effect.gen(function*() {
      const key = Buffer.from("key 1017")
      const bytes = readFileSync(join(at("ended"), files.database))
      const places: Array<number> = []
      for (let from = bytes.indexOf(key); from >= 0; from = bytes.indexOf(key, from + 1)) places.push(from)
      // In two maps, each with an index.
      expect(places.length).toBeGreaterThanOrEqual(4)
      const outcomes: Array<string | undefined> = []
      for (const where of places) {
        outcomes.push(
          yield* spoiled("ended", `byte ${where}`, (dataDir) =>
            change(join(dataDir, files.database), (changed) =>
              void changed.fill("8", where + 7, where + 8)))
        )
      }
      expect(outcomes.some((outcome) =>
        outcome?.includes("isn't found by its key")
      )).toBe(true)
      // What SQLite has left behind in pages that it doesn't use is nobody's.
      expect(outcomes.filter((outcome) => outcome !== undefined).length).toBeGreaterThanOrEqual(4)
    }))
})

describe("A database that was cut", () => {
  it.effect.each([["ended", files.database], ["crashed", files.log]] as const)(
    "is refused (%s, %s)",
    ([name, file]) =>
      Effect.gen(function*() {
        const size = statSync(join(at(name), file)).size
        const numbers = numbersOf(firstSeed)
        const lengths = [
          ...Array.from({ length: 10 }, () => numbers(size)),
          ...Array.from({ length: 10 }, () => numbers(Math.floor(size / 4_096)) * 4_096)
        ]
        for (const length of lengths) {
          const outcome = yield* spoiled(
            name,
            `${file}, ${length} bytes`,
            (dataDir) => Effect.sync(() => truncateSync(join(dataDir, file), length))
          )
          expect(outcome, `${length} of ${size} bytes`).toBeDefined()
        }
      })
  )

  it.effect("is refused with any of its pages zeroed, or served where nothing is in that", () =>
    Effect.gen(function*() {
      const pages = statSync(join(at("ended"), files.database)).size / 4_096
      for (let page = 0; page < pages; page += Math.ceil(pages / seeds)) {
        yield* spoiled(
          "ended",
          `page ${page}`,
          (dataDir) =>
            change(join(dataDir, files.database), (bytes) => void bytes.fill(0, page * 4_096, (page + 1) * 4_096))
        )
      }
    }))

  it.effect("is served with something after its end, or refused", () =>
    spoiled(
      "ended",
      "more",
      (dataDir) => Effect.sync(() => appendFileSync(join(dataDir, files.database), noise(10_000)))
    ))
})

describe("Files that don't belong together", () => {
  const replace = (from: string, ...names: ReadonlyArray<string>) => (dataDir: string) =>
    Effect.sync(() => {
      for (const name of names) {
        rmSync(join(dataDir, name), { force: true })
        if (existsSync(join(at(from), name))) copyFileSync(join(at(from), name), join(dataDir, name))
      }
    })
  const remove = (...names: ReadonlyArray<string>) => (dataDir: string) =>
    Effect.sync(() => {
      for (const name of names) rmSync(join(dataDir, name), { force: true })
    })

  it.effect("are refused without the log", () =>
    Effect.gen(function*() {
      expect(yield* spoiled("crashed", "no log", remove(files.log))).toMatch(
        /has the first \d+ of the \d+ transactions/
      )
    }))

  it.effect("are refused with the log of an earlier time", () =>
    Effect.gen(function*() {
      expect(yield* spoiled("crashed", "earlier log", replace("earlier", files.log))).toMatch(/has the first/)
    }))

  it.effect("are refused with the database of an earlier time, with and without its log", () =>
    Effect.gen(function*() {
      expect(yield* spoiled("ended", "earlier database", replace("earlier", files.database, files.log)))
        .toMatch(/has the first \d+ of the \d+ transactions that this server has acknowledged/)
      expect(yield* spoiled("ended", "earlier database alone", replace("earlier", files.database))).toBeDefined()
    }))

  it.effect("are refused without the database, which isn't made anew then", () =>
    Effect.gen(function*() {
      expect(yield* spoiled("ended", "no database", remove(files.database, files.log))).toMatch(/topgun\.db" is missing/)
    }))

  it.effect("are refused with another server's database", () =>
    Effect.gen(function*() {
      const other = at("other")
      yield* Effect.provide(Persistence.Persistence, persistenceOver(other))
      expect(
        yield* spoiled("ended", "another's", (dataDir) =>
          Effect.sync(() =>
            copyFileSync(join(other, files.database), join(dataDir, files.database))
          ))
      ).toContain("isn't the one")
    }))

  it.effect("are served, as they are, when whoever put them there removes the seal as well", () =>
    Effect.gen(function*() {
      const dataDir = at("consented")
      cpSync(at("earlier"), dataDir, { recursive: true })
      rmSync(join(dataDir, files.seal))
      expect(yield* startOver(dataDir)).toEqual(contents.get("earlier"))
    }))
})

describe("Rows that were edited by hand", () => {
  const edits = [
    "UPDATE records SET row = CAST(substr(row, 1, length(row) - 1) || x'01' AS BLOB) WHERE rowid = 17",
    "UPDATE records SET key = CAST('other' AS BLOB) WHERE rowid = 17",
    "UPDATE records SET map = 2 WHERE rowid = 17",
    "UPDATE records SET map = 99 WHERE rowid = 17",
    "UPDATE records SET partition = partition + 1 WHERE rowid = 17",
    "UPDATE records SET age = age + 1 WHERE rowid = (SELECT min(rowid) FROM records WHERE age IS NOT NULL)",
    "UPDATE records SET age = NULL WHERE rowid = (SELECT min(rowid) FROM records WHERE age IS NOT NULL)",
    "DELETE FROM records WHERE rowid = 17",
    "DELETE FROM records WHERE map = 1",
    "DELETE FROM maps WHERE id = 1",
    "DELETE FROM records WHERE map = 1; DELETE FROM maps WHERE id = 1",
    "UPDATE maps SET kind = 'lww' WHERE id = 2",
    "UPDATE maps SET name = 'renamed' WHERE id = 1",
    "UPDATE maps SET records = records - 1 WHERE id = 1",
    "UPDATE maps SET digest_hi = digest_hi + 1 WHERE id = 1",
    "UPDATE maps SET records = NULL, digest_hi = NULL, digest_lo = NULL WHERE id = 1",
    "UPDATE meta SET value = 'aaaaaaaaaaaaaaaa' WHERE name = 'generation'",
    "UPDATE meta SET value = 'aaaaaaaaaaaaaaaa' WHERE name = 'nodeId'",
    "UPDATE meta SET value = '99' WHERE name = 'format'",
    "UPDATE notes SET value = x'09' WHERE key = 'one'",
    "UPDATE notes SET key = 'three' WHERE key = 'one'",
    "UPDATE state SET commits = commits + 1",
    "DELETE FROM state",
    "DROP TABLE notes"
  ]
  it.effect.each(edits)("are refused: %s", (sql) =>
    Effect.gen(function*() {
      const outcome = yield* spoiled("ended", sql, (dataDir) =>
        Effect.forEach(sql.split("; "), (each) =>
          run(dataDir, each), { discard: true }))
      expect(outcome).toBeDefined()
    }))
})
