import { assert, describe, it } from "@effect/vitest"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { encrypted } from "@topgun/adapters/encrypted"
import { sqlite } from "@topgun/adapters/sqlite"
import * as SqlStorage from "@topgun/adapters/SqlStorage"
import { type Client, createClient } from "@topgun/client/promise"
import { Storage } from "@topgun/core/Storage"
import { type StorageAdapter, StorageFault } from "@topgun/core/StorageAdapter"
import { storageSuite } from "@topgun/testing/storageSuite"
import * as Effect from "effect/Effect"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { Worker } from "node:worker_threads"
import { afterEach } from "vitest"
import * as SqliteDatabase from "../src/internal/SqliteDatabase.ts"

const directories: Array<string> = []
const newFile = (): string => {
  const directory = mkdtempSync(join(tmpdir(), "topgun-sqlite-"))
  directories.push(directory)
  return join(directory, "app.db")
}

const children: Array<ChildProcess> = []
const workers: Array<Worker> = []
const start = (...words: ReadonlyArray<string>) => {
  const child = spawn(process.execPath, [join(import.meta.dirname, "sqlite-process.mjs"), ...words], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  children.push(child)
  return { child, ended: once(child, "close"), lines: createInterface({ input: child.stdout }) }
}

afterEach(async () => {
  await Promise.all(workers.splice(0).map((worker) => worker.terminate()))
  for (const child of children.splice(0)) child.kill("SIGKILL")
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true })
})

storageSuite("SQLite", () => {
  const file = newFile()
  return { adapter: () => sqlite(file) }
})

storageSuite("encrypted SQLite", () => {
  const file = newFile()
  return { adapter: () => encrypted(sqlite(file), { secret: new Uint8Array(32).fill(7) }) }
})

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

const put = (storage: StorageAdapter, key: string): Promise<void> =>
  storage.commit([{ space: "records", key, value: bytes(key) }])

const keys = async (storage: StorageAdapter): Promise<ReadonlyArray<string>> =>
  (await storage.scan("records", undefined, 1_000)).map(({ key }) => key)

const opened = async (file: string, name = "app"): Promise<StorageAdapter> => {
  const storage = sqlite(file)
  await storage.open(name)
  return storage
}

/** Another program, at the file. */
const sql = (file: string, ...statements: ReadonlyArray<string>) =>
  Effect.flatMap(SqliteClient.SqliteClient, (client) => Effect.forEach(statements, (each) => client.unsafe(each))).pipe(
    Effect.provide(SqliteClient.layer({ filename: file, disableWAL: true })),
    Effect.runPromise
  )

const faultOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(() => undefined, (fault: unknown) => fault)

describe("SQLite", () => {
  it("is what a layer opens for Effect applications", async () => {
    const file = newFile()
    const write = Effect.flatMap(
      Effect.flatMap(Storage, ({ open }) => open),
      ({ commit }) => commit([{ space: "records", key: "a", value: bytes("a") }])
    )
    await Effect.runPromise(Effect.scoped(Effect.provide(write, SqlStorage.layer(file, "effect"))))
    assert.deepStrictEqual(await keys(await opened(file, "effect")), ["a"])
  })

  it("keeps a client's data", async () => {
    const file = newFile()
    const open = async (): Promise<Client> => {
      const client = createClient({ storage: sqlite(file) })
      await client.ready()
      return client
    }
    const first = await open()
    await first.map<number>("m").set("k", 1)
    await first.close()
    const again = await open()
    assert.strictEqual(again.map<number>("m").get("k"), 1)
    assert.deepStrictEqual(again.status.current.storage, {
      kind: "sqlite",
      durable: true,
      fault: undefined,
      persisted: undefined,
      usage: undefined,
      quota: undefined
    })
    await again.close()
  })

  it("changes no text, well-formed or not, and has it in the order of its code units", async () => {
    const storage = await opened(newFile())
    const texts = ["", "\0", "a", "\ud800", "\ud83d\ude00", "\udc00", "\ud800a", "\ue000", "\uffff"].sort()
    await storage.commit(texts.slice().reverse().map((key) => ({ space: "\udfff", key, value: bytes("1") })))
    assert.deepStrictEqual((await storage.scan("\udfff", undefined, 100)).map(({ key }) => key), texts)
    assert.deepStrictEqual(await storage.scan("\ufffd", undefined, 100), [])
    await storage.close()
  })

  it("has the storages of all names in its one file, whatever they are called", async () => {
    const file = newFile()
    for (const name of ["../one", "/etc/passwd", "a\0b", "'; DROP TABLE stored; --"]) {
      const storage = await opened(file, name)
      await put(storage, name)
      assert.deepStrictEqual(await keys(storage), [name])
      await storage.close()
    }
    assert.deepStrictEqual(readdirSync(join(file, "..")), ["app.db"])
  })

  it("is durable at each commit: a write-ahead log, synchronised in full", async () => {
    const file = newFile()
    const storage = await opened(file)
    await put(storage, "a")
    assert.deepStrictEqual(await sql(file, "PRAGMA journal_mode"), [[{ journal_mode: "wal" }]])
    const synchronous = Effect.flatMap(
      SqliteDatabase.SqliteDatabase,
      ({ connection }) => connection.executeValues("PRAGMA synchronous", [])
    )
    const full = 2
    assert.deepStrictEqual(await Effect.runPromise(Effect.provide(synchronous, SqliteDatabase.layer(file))), [[full]])
    await storage.close()
  })

  it("refuses to be used when it is closed, after what was asked for before", async () => {
    const file = newFile()
    const storage = await opened(file)
    const last = put(storage, "a")
    await storage.close()
    await last
    assert.include(String(await faultOf(put(storage, "b"))), "closed")
    assert.include(String(await faultOf(storage.scan("records", undefined, 1))), "closed")
    await storage.open("app")
    assert.deepStrictEqual(await keys(storage), ["a"])
    await storage.close()
    await storage.close()
  })

  it("gives no rows when none are asked for", async () => {
    const storage = await opened(newFile())
    await put(storage, "a")
    assert.deepStrictEqual(await storage.scan("records", undefined, 0), [])
    assert.deepStrictEqual(await storage.scan("records", undefined, -1), [])
    await storage.close()
  })

  it("asks for a file, in a directory that there is", async () => {
    assert.throws(() => sqlite(":memory:"), RangeError)
    assert.throws(() => sqlite(""), RangeError)
    const file = join(newFile(), "none", "app.db")
    assert.include(String(await faultOf(opened(file))), file)
  })

  it("leaves a newer version's file, another program's and what is no database as they are, and says so", async () => {
    const newer = newFile()
    await (await opened(newer)).close()
    await sql(newer, "PRAGMA user_version = 2", "PRAGMA journal_mode = DELETE")
    const foreign = newFile()
    await sql(foreign, "CREATE TABLE bookmarks (url TEXT)")
    const text = newFile()
    writeFileSync(text, "This is no database, but a text that is long enough to be one. ".repeat(100))
    const reasons = new Map([[newer, "update the application"], [foreign, "another program's"], [text, "damaged"]])
    for (const [file, reason] of reasons) {
      const before = readFileSync(file)
      assert.include(String(await faultOf(opened(file))), reason)
      assert.isTrue(before.equals(readFileSync(file)), reason)
    }
  })

  it("tells of rows that are gone, and of a disk that is full", async () => {
    const file = newFile()
    const storage = await opened(file)
    await put(storage, "a")
    await sql(file, "DELETE FROM stored", "DELETE FROM storages")
    const gone = await faultOf(put(storage, "b"))
    assert.strictEqual(gone instanceof StorageFault ? gone.trouble : gone, "evicted")
    await storage.close()
    const full = SqliteDatabase.explain(
      file,
      Object.assign(new Error("database or disk is full"), { code: "SQLITE_FULL" })
    )
    assert.strictEqual(full instanceof StorageFault ? full.trouble : full, "quota")
  })

  it("belongs to the process that opened it last", async () => {
    const file = newFile()
    const storage = await opened(file)
    await put(storage, "parent")
    const { ended } = start("opens", file, "app")
    assert.deepStrictEqual(await ended, [0, null])
    const fault = await faultOf(put(storage, "too late"))
    assert.strictEqual(fault instanceof StorageFault ? fault.trouble : fault, "superseded")
    assert.deepStrictEqual(await keys(storage), ["app", "parent"])
    await storage.close()
  })

  it("is made once by those that open it at the same moment, each for a name of its own", async () => {
    const file = newFile()
    const files = 40
    const arrivals = new Int32Array(new SharedArrayBuffer(4))
    const make = (name: string) => {
      const script = join(import.meta.dirname, "sqlite-process.mjs")
      const worker = new Worker(script, { argv: ["makes", file, name], workerData: { arrivals, files } })
      workers.push(worker)
      return once(worker, "exit")
    }
    assert.deepStrictEqual(await Promise.all([make("a"), make("b")]), [[0], [0]])
    for (let n = 1; n <= files; n++) {
      for (const name of ["a", "b"]) {
        const storage = await opened(`${file}-${n}`, name)
        assert.deepStrictEqual(await keys(storage), [name])
        await storage.close()
      }
    }
  })

  it("waits for another process's transaction", async () => {
    const file = newFile()
    const storage = await opened(file)
    const { ended, lines } = start("holds", file)
    await once(lines, "line")
    await put(storage, "a")
    assert.deepStrictEqual(await ended, [0, null])
    assert.deepStrictEqual(await keys(storage), ["a"])
    await storage.close()
  })

  /** Kills a process when it has said `last`; answers the last that it has said, which may be more. */
  const killed = async (what: string, file: string, last: number): Promise<number> => {
    const { child, ended, lines } = start(what, file)
    let said = -1
    for await (const line of lines) {
      said = Number(line)
      if (said === last) child.kill("SIGKILL")
    }
    assert.deepStrictEqual(await ended, [null, "SIGKILL"])
    return said
  }

  const assertWhole = async (storage: StorageAdapter, said: number): Promise<void> => {
    const rows = await storage.scan("records", undefined, 1_000)
    const values = new Set(rows.map(({ value }) => new TextDecoder().decode(value)))
    assert.strictEqual(rows.length, 40)
    assert.strictEqual(values.size, 1)
    // The last one may have come to the disk, and not to be said.
    assert.include([said, said + 1], Number([...values][0]))
  }

  it("has what a killed process said that it had committed, and whole commits only, in 8 kills", async () => {
    for (let kill = 1; kill <= 8; kill++) {
      const file = newFile()
      const said = await killed("commits", file, kill * 7)
      const storage = await opened(file)
      await assertWhole(storage, said)
      await storage.close()
    }
  })

  it("that is encrypted has it too when the process is killed while it changes keys, in 8 kills", async () => {
    const file = newFile()
    for (let kill = 1; kill <= 8; kill++) {
      const said = await killed("rotates", file, kill % 3)
      const storage = encrypted(sqlite(file), { secret: new Uint8Array(32).fill(7) })
      await storage.open("app")
      await assertWhole(storage, said)
      const others = await storage.scan("others", undefined, 2_000)
      assert.strictEqual(others.filter(({ value }) => value.length === 100).length, 1_500)
      assert.strictEqual(others.length, 1_500)
      await storage.close()
    }
  })
})
