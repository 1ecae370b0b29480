import { assert, describe, it } from "@effect/vitest"
import * as IndexedDbStorage from "@topgun/adapters/IndexedDbStorage"
import { indexedDb } from "@topgun/adapters/indexeddb"
import { Storage } from "@topgun/core/Storage"
import type { StorageAdapter } from "@topgun/core/StorageAdapter"
import { storageSuite } from "@topgun/testing/storageSuite"
import * as Effect from "effect/Effect"
import "fake-indexeddb/auto"
import { forceCloseDatabase, IDBFactory } from "fake-indexeddb"
import { openDB } from "idb"
import { afterEach, beforeEach } from "vitest"

const given = globalThis.indexedDB

/** Another origin: nothing is stored there yet. */
const startAnew = (): void => {
  globalThis.indexedDB = new IDBFactory()
}

storageSuite("IndexedDB", () => {
  startAnew()
  return { adapter: indexedDb }
})

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

const put = (storage: StorageAdapter, key: string): Promise<void> =>
  storage.commit([{ space: "records", key, value: bytes(key) }])

const keys = async (storage: StorageAdapter): Promise<ReadonlyArray<string>> =>
  (await storage.scan("records", undefined, 100)).map(({ key }) => key)

const opened = async (name = "app"): Promise<StorageAdapter> => {
  const storage = indexedDb()
  await storage.open(name)
  return storage
}

/** The browser's own closing of a connection; the declared type asks for the class. */
const forceClose = forceCloseDatabase as unknown as (connection: IDBDatabase) => void

const messageOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(() => "resolved", (fault: unknown) => fault instanceof Error ? fault.message : String(fault))

describe("IndexedDB", () => {
  /** The connections that were opened, latest last: the browser's end of what the adapter holds. */
  let connections: Array<IDBDatabase> = []

  beforeEach(() => {
    startAnew()
    connections = []
    const { indexedDB } = globalThis
    const open = indexedDB.open.bind(indexedDB)
    indexedDB.open = (name, version) => {
      const request = open(name, version)
      request.addEventListener("success", () => connections.push(request.result))
      return request
    }
  })
  afterEach(() => {
    globalThis.indexedDB = given
  })

  it("is what a layer opens for Effect applications", async () => {
    const write = Effect.flatMap(
      Effect.flatMap(Storage, ({ open }) => open),
      ({ commit }) => commit([{ space: "records", key: "a", value: bytes("a") }])
    )
    await Effect.runPromise(Effect.scoped(Effect.provide(write, IndexedDbStorage.layer("effect"))))
    assert.deepStrictEqual(await keys(await opened("effect")), ["a"])
  })

  it("gives no rows when none are asked for", async () => {
    const storage = await opened()
    await put(storage, "a")
    assert.deepStrictEqual(await storage.scan("records", undefined, 0), [])
  })

  it("says so where there is no IndexedDB, and not before it is opened", async () => {
    globalThis.indexedDB = undefined as unknown as IDBFactory
    const storage = indexedDb()
    assert.include(await messageOf(storage.open("app")), "no IndexedDB")
  })

  it("opens the connection again after the browser closed it between two calls", async () => {
    const storage = await opened()
    await put(storage, "a")
    connections.at(-1)!.close()
    await put(storage, "b")
    connections.at(-1)!.close()
    assert.deepStrictEqual(await keys(storage), ["a", "b"])
    assert.strictEqual(connections.length, 3)
  })

  it("opens the connection again after the browser told of its end", async () => {
    const storage = await opened()
    forceClose(connections.at(-1)!)
    await put(storage, "a")
    assert.deepStrictEqual(await keys(storage), ["a"])
    assert.strictEqual(connections.length, 2)
  })

  it("commits again what the browser's closing cut off", async () => {
    const storage = await opened()
    const [connection] = connections
    const begin = connection!.transaction.bind(connection)
    connection!.transaction = (...scope) => {
      const transaction = begin(...scope)
      transaction.commit = () => {
        transaction.abort()
        forceClose(connection!)
      }
      return transaction
    }
    await storage.commit([
      { space: "records", key: "a", value: bytes("a") },
      { space: "records", key: "b", value: bytes("b") }
    ])
    assert.deepStrictEqual(await keys(storage), ["a", "b"])
    assert.strictEqual(connections.length, 2)
  })

  it("reads again what the browser's closing cut off", async () => {
    const storage = await opened()
    await put(storage, "a")
    const [connection] = connections
    const begin = connection!.transaction.bind(connection)
    connection!.transaction = (...scope) => {
      const transaction = begin(...scope)
      queueMicrotask(() => {
        transaction.abort()
        forceClose(connection!)
      })
      return transaction
    }
    assert.deepStrictEqual(await keys(storage), ["a"])
    assert.strictEqual(connections.length, 2)
  })

  it("keeps the order of commits when the connection is closed under them", async () => {
    const storage = await opened()
    connections.at(-1)!.close()
    const commits = [1, 2, 3].map((n) => storage.commit([{ space: "records", key: "a", value: Uint8Array.of(n) }]))
    await Promise.all(commits)
    assert.deepStrictEqual(await storage.scan("records", undefined, 1), [{ key: "a", value: Uint8Array.of(3) }])
    assert.strictEqual(connections.length, 2)
  })

  it("makes way for a page with a newer version, and then asks for a reload", async () => {
    const storage = await opened()
    await put(storage, "a")
    const newer = await openDB("app", 3)
    assert.include(await messageOf(put(storage, "b")), "newer version")
    newer.close()
  })

  it("makes way for a deletion, and doesn't go on in an empty database", async () => {
    const storage = await opened()
    await put(storage, "a")
    await new Promise<void>((resolve) => {
      indexedDB.deleteDatabase("app").addEventListener("success", () => resolve())
    })
    assert.include(await messageOf(put(storage, "b")), "deleted")
    assert.include(await messageOf(storage.scan("records", undefined, 1)), "deleted")
    assert.deepStrictEqual(await indexedDB.databases(), [])
    await storage.close()
    assert.deepStrictEqual(await keys(await opened()), [])
  })

  it("refuses to be used when it is closed", async () => {
    const storage = await opened()
    const last = put(storage, "a")
    await storage.close()
    await last
    assert.include(await messageOf(put(storage, "b")), "closed")
    assert.include(await messageOf(storage.scan("records", undefined, 1)), "closed")
    assert.deepStrictEqual(await keys(await opened()), ["a"])
  })

  it("reports what the browser refuses, and goes on", async () => {
    const storage = await opened()
    const refused = storage.commit([
      { space: "records", key: "a", value: bytes("a") },
      { space: "records", key: Symbol("no key") as unknown as string, value: bytes("b") }
    ])
    assert.notStrictEqual(await messageOf(refused), "resolved")
    await put(storage, "c")
    assert.deepStrictEqual(await keys(storage), ["c"])
  })
})
