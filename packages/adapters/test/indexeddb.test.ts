import { assert, describe, it } from "@effect/vitest"
import * as IndexedDbStorage from "@topgun/adapters/IndexedDbStorage"
import { indexedDb, retryMillis } from "@topgun/adapters/indexeddb"
import { Storage } from "@topgun/core/Storage"
import { type StorageAdapter, StorageFault, unreadable } from "@topgun/core/StorageAdapter"
import { storageSuite } from "@topgun/testing/storageSuite"
import * as Effect from "effect/Effect"
import "fake-indexeddb/auto"
import { forceCloseDatabase, IDBFactory } from "fake-indexeddb"
import { openDB } from "idb"
import { afterEach, beforeEach, vi } from "vitest"

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

/** What the client would make of a rejection. */
const troubleOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(() => "none", (fault: unknown) => fault instanceof StorageFault ? fault.trouble : String(fault))

/** What IndexedDB is done by, from the opening on. */
const requests: ReadonlyArray<readonly [on: "factory" | "database" | "store" | "transaction", name: string]> = [
  ["factory", "open"],
  ["database", "createObjectStore"],
  ["database", "transaction"],
  ["store", "get"],
  ["store", "put"],
  ["store", "delete"],
  ["store", "getAllKeys"],
  ["store", "getAll"],
  ["transaction", "commit"]
]

const ownerOf = {
  factory: "IDBFactory",
  database: "IDBDatabase",
  store: "IDBObjectStore",
  transaction: "IDBTransaction"
} as const

/** What a request is called on, and what it is called with. */
interface Call {
  readonly name: string
  readonly on: unknown
  readonly go: () => unknown
}

interface Prototyped {
  readonly prototype: Record<string, (...args: Array<unknown>) => unknown>
}

let stopMeddling = (): void => {}

/** Hands each request of the browser to `meddle`, numbered from 0, until the returned function is called. */
const meddling = (meddle: (call: Call, number: number) => unknown): () => void => {
  let count = 0
  const undo = requests.map(([on, name]) => {
    const { prototype } = globalThis[ownerOf[on]] as unknown as Prototyped
    const real = prototype[name]!
    prototype[name] = function(...args) {
      // That is the double's own, of an upgrade.
      if (args[1] === "versionchange") return real.apply(this, args)
      return meddle({ name, on: this, go: () => real.apply(this, args) }, count++)
    }
    return () => {
      prototype[name] = real
    }
  })
  stopMeddling = () => undo.forEach((each) => each())
  return stopMeddling
}

const lost = () =>
  new DOMException("Connection to Indexed Database server lost. Refresh the page to try again", "UnknownError")
const full = () => new DOMException("there is no room", "QuotaExceededError")

/** A request that is never answered, unless its listeners are called. */
const silent = (addEventListener: IDBRequest["addEventListener"] = () => {}): IDBRequest =>
  Object.create(IDBRequest.prototype, {
    addEventListener: { value: addEventListener },
    removeEventListener: { value: () => {} },
    result: { writable: true, value: undefined }
  }) as IDBRequest

const messageOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(() => "resolved", (fault: unknown) => fault instanceof Error ? fault.message : String(fault))

describe("IndexedDB", () => {
  /** The connections that were opened, latest last: the browser's end of what the adapter holds. */
  let connections: Array<IDBDatabase> = []

  beforeEach(() => {
    startAnew()
    connections = []
    globalThis.indexedDB.open = function(this: IDBFactory, name, version) {
      const request = IDBFactory.prototype.open.call(this, name, version)
      request.addEventListener("success", () => connections.push(request.result))
      return request
    }
  })
  afterEach(() => {
    stopMeddling()
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
    assert.strictEqual(await troubleOf(put(storage, "b")), "newer")
    newer.close()
  })

  it("leaves what a newer version has written as it is", async () => {
    const storage = await opened()
    await put(storage, "a")
    await storage.close()
    const newer = await openDB("app", 3, {
      upgrade: (database) => {
        database.createObjectStore("of a later time").put("value", "key")
      }
    })
    newer.close()
    const older = indexedDb()
    assert.strictEqual(await troubleOf(older.open("app")), "newer")
    assert.include(await messageOf(older.commit([])), "closed")
    const again = await openDB("app", 3)
    assert.strictEqual(await again.get("of a later time", "key"), "value")
    assert.deepStrictEqual(await again.get("rows", ["records", "a"]), bytes("a"))
    again.close()
  })

  const deleted = (name: string): Promise<void> =>
    new Promise((resolve) => {
      indexedDB.deleteDatabase(name).addEventListener("success", () => resolve())
    })

  it("makes way for a deletion, and doesn't go on in an empty database until it is opened again", async () => {
    const storage = await opened()
    await put(storage, "a")
    await deleted("app")
    assert.strictEqual(await troubleOf(put(storage, "b")), "evicted")
    assert.strictEqual(await troubleOf(storage.scan("records", undefined, 1)), "evicted")
    assert.deepStrictEqual(await indexedDB.databases(), [])
    await storage.close()
    await storage.open("app")
    await put(storage, "c")
    assert.deepStrictEqual(await keys(storage), ["c"])
  })

  it("asks the page for nothing once a commit is begun: one that hangs then is in nobody's way", async () => {
    const storage = await opened()
    await put(storage, "a")
    const [connection] = connections
    let isCommitted = false
    const begin = connection!.transaction.bind(connection)
    connection!.transaction = (...scope) => {
      const transaction = begin(...scope)
      const commit = transaction.commit.bind(transaction)
      transaction.commit = () => {
        isCommitted = true
        commit()
      }
      return transaction
    }
    const committed = put(storage, "b")
    // Nothing but microtasks: no event of the browser has come in between.
    for (let turns = 0; turns < 20; turns++) await Promise.resolve()
    assert.isTrue(isCommitted)
    await committed
    assert.deepStrictEqual(await keys(storage), ["a", "b"])
  })

  it("takes rows that were deleted under it for what they are", async () => {
    const storage = await opened()
    await put(storage, "a")
    const other = await openDB("app")
    const clearing = other.transaction(["rows", "owner"], "readwrite")
    await Promise.all([clearing.objectStore("rows").clear(), clearing.objectStore("owner").clear(), clearing.done])
    other.close()
    assert.strictEqual(await troubleOf(put(storage, "b")), "evicted")
    assert.deepStrictEqual(await keys(storage), [])
  })

  it("gives nothing that no decoder refuses for what somebody else has put there", async () => {
    const storage = await opened()
    await put(storage, "a")
    const other = await openDB("app")
    const rows = other.transaction("rows", "readwrite")
    const strange: ReadonlyArray<readonly [IDBValidKey, unknown]> = [
      [["records", "b"], "text"],
      [["records", "c"], { length: 9 }],
      [["records", "d"], null],
      [["records", 1], bytes("number")],
      [["records", new Date(0)], bytes("date")],
      [["records", Uint8Array.of(1)], bytes("binary")],
      [["records", ["x"]], bytes("array")],
      [["records"], bytes("short")],
      ["records", bytes("no array")]
    ]
    await Promise.all([...strange.map(([key, value]) => rows.store.put(value, key)), rows.done])
    other.close()
    assert.deepStrictEqual(await storage.scan("records", undefined, 100), [
      { key: "a", value: bytes("a") },
      { key: "b", value: unreadable },
      { key: "c", value: unreadable },
      { key: "d", value: unreadable }
    ])
    assert.deepStrictEqual(await storage.scan("records", "c", 100), [{ key: "d", value: unreadable }])
  })

  it("doesn't take another's database, made after its own was deleted, for its own", async () => {
    const storage = await opened()
    await put(storage, "a")
    await deleted("app")
    const other = await opened()
    await put(other, "b")
    assert.strictEqual(await troubleOf(put(storage, "c")), "superseded")
    assert.deepStrictEqual(await keys(other), ["b"])
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

  /** Two commits of two rows each, and a scan. Answers which of the commits were reported as made, and what went wrong. */
  const useAll = async (storage: StorageAdapter) => {
    const commit = (n: number, over: string) =>
      storage.commit([
        { space: "records", key: "last", value: Uint8Array.of(n) },
        { space: "records", key: `own ${n}`, value: Uint8Array.of(n) },
        { space: "records", key: over, value: undefined }
      ])
    const outcomes = await Promise.allSettled([commit(1, "none"), commit(2, "own 1"), commit(3, "own 2")])
    const scanned = await storage.scan("records", undefined, 10).catch((fault: unknown) => fault)
    return { outcomes, scanned }
  }
  /** What commit `n` leaves. */
  const after = (n: number) =>
    n === 0 ? [] : [{ key: "last", value: Uint8Array.of(n) }, { key: `own ${n}`, value: Uint8Array.of(n) }]

  /** How often `useAll` asks the browser for anything, its opening included. */
  const requestsOf = async (): Promise<number> => {
    let count = 0
    const stop = meddling(({ go }) => {
      count++
      return go()
    })
    await useAll(await opened())
    stop()
    startAnew()
    return count
  }

  /** What can befall a request. */
  const mishaps: ReadonlyArray<readonly [name: string, (call: Call) => unknown]> = [
    ["the browser's storage process is gone", () => {
      throw lost()
    }],
    ["the connection is closing", () => {
      throw new DOMException("The database connection is closing", "InvalidStateError")
    }],
    ["the transaction is aborted", ({ go, on }) => {
      const answer = go()
      if (on instanceof IDBObjectStore) on.transaction.abort()
      if (on instanceof IDBDatabase && answer instanceof IDBTransaction) answer.abort()
      return answer
    }],
    ["the connection is closed by force", ({ go, on }) => {
      const answer = go()
      if (on instanceof IDBObjectStore) forceClose(on.transaction.db)
      if (on instanceof IDBTransaction) forceClose(on.db)
      return answer
    }]
  ]

  for (const [name, mishap] of mishaps) {
    it(`does everything once and in order when ${name}, whichever request it is at`, async () => {
      const count = await requestsOf()
      for (let at = 0; at < count; at++) {
        startAnew()
        const stop = meddling((call, number) => number === at ? mishap(call) : call.go())
        const storage = await opened()
        const { outcomes, scanned } = await useAll(storage)
        stop()
        assert.deepStrictEqual(
          outcomes.map(({ status }) => status),
          ["fulfilled", "fulfilled", "fulfilled"],
          `at ${at}`
        )
        assert.deepStrictEqual(scanned, after(3), `at ${at}`)
        await storage.close()
      }
    })
  }

  it("says that there is no room, wherever the browser says so", async () => {
    const storage = await opened()
    await put(storage, "a")
    const refusals: ReadonlyArray<(call: Call) => unknown> = [
      ({ go, name }) => {
        if (name === "put") throw full()
        return go()
      },
      // As Chromium does: each request succeeds, and the transaction is aborted in the end.
      ({ go, name, on }) => {
        if (name !== "commit") return go()
        const transaction = on as IDBTransaction
        Object.defineProperty(transaction, "error", { value: full() })
        return transaction.abort()
      }
    ]
    for (const refusal of refusals) {
      const stop = meddling(refusal)
      assert.strictEqual(await troubleOf(put(storage, "b")), "quota")
      assert.deepStrictEqual(await keys(storage), ["a"])
      stop()
      await put(storage, "c")
      assert.deepStrictEqual(await keys(storage), ["a", "c"])
      await storage.commit([{ space: "records", key: "c", value: undefined }])
    }
    const stop = meddling(({ go, name }) => {
      if (name === "open") throw full()
      return go()
    })
    assert.strictEqual(await troubleOf(indexedDb().open("another")), "quota")
    stop()
  })

  it("makes a commit of many rows whole or not at all, and lets the page go on in between", async () => {
    const storage = await opened()
    const many = Array.from({ length: 2_000 }, (_, n) => ({ space: "records", key: `k${n}`, value: bytes(`${n}`) }))
    const stored = async () => (await storage.scan("records", undefined, 3_000)).length
    let puts = 0
    const refused = meddling(({ go, name }) => {
      if (name === "put" && ++puts === 1_300) throw full()
      return go()
    })
    assert.strictEqual(await troubleOf(storage.commit(many)), "quota")
    assert.strictEqual(await stored(), 0)
    refused()
    puts = 0
    let most = 0
    let isMade = false
    const stop = meddling(({ go, name }) => {
      if (name === "put") most = Math.max(most, ++puts)
      return go()
    })
    const turns = async () => {
      while (!isMade) {
        puts = 0
        await new Promise(setImmediate)
      }
    }
    const turning = turns()
    await storage.commit(many)
    isMade = true
    await turning
    stop()
    assert.strictEqual(await stored(), 2_000)
    assert.isAtMost(most, 500)
  })

  it("shows what is stored where there is no room to take it over, and takes it over when there is", async () => {
    const before = await opened()
    await put(before, "a")
    const stop = meddling(({ go, name }) => {
      if (name === "put") throw full()
      return go()
    })
    assert.strictEqual(await troubleOf(indexedDb().open("a new one")), "quota")
    const storage = await opened()
    assert.deepStrictEqual(await keys(storage), ["a"])
    assert.strictEqual(await troubleOf(put(storage, "b")), "quota")
    stop()
    await put(storage, "b")
    assert.strictEqual(await troubleOf(put(before, "c")), "superseded")
    await put(storage, "d")
    assert.deepStrictEqual(await keys(storage), ["a", "b", "d"])
  })

  it("doesn't take over what somebody else has opened before there was room", async () => {
    const before = await opened()
    await put(before, "a")
    const stop = meddling(({ go, name }) => {
      if (name === "put") throw full()
      return go()
    })
    const storage = await opened()
    stop()
    const other = await opened()
    assert.strictEqual(await troubleOf(put(storage, "b")), "superseded")
    await put(other, "c")
    assert.deepStrictEqual(await keys(other), ["a", "c"])
  })

  describe("as time goes by", () => {
    beforeEach(() => {
      vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] })
    })
    afterEach(() => {
      vi.useRealTimers()
    })

    /** Lets time go by until the answer is there. */
    const elapsing = async <A>(answer: Promise<A>): Promise<A> => {
      let isThere = false
      const note = (): void => {
        isThere = true
      }
      answer.then(note, note)
      while (!isThere) {
        await new Promise(setImmediate)
        await vi.advanceTimersByTimeAsync(100)
      }
      return answer
    }

    it("gives up after some tries, with nothing half done, and goes on when the browser does", async () => {
      const count = await requestsOf()
      for (let at = 0; at < count; at++) {
        startAnew()
        let tried = 0
        const stop = meddling(({ go, name }, number) => {
          if (number < at) return go()
          if (name === "open" || name === "transaction") tried++
          throw lost()
        })
        const storage = indexedDb()
        const isOpen = await elapsing(storage.open("app").then(() => true, () => false))
        const { outcomes } = await elapsing(useAll(storage))
        stop()
        // Of each commit as many as there are tries, and of opening again as many.
        assert.isAtMost(tried, 10 * (retryMillis.length + 1))
        const made = outcomes.filter(({ status }) => status === "fulfilled").length
        if (!isOpen) await storage.open("app")
        const rows = await storage.scan("records", undefined, 10)
        assert.deepInclude([after(made), after(Math.min(made + 1, 3))], rows, `at ${at}`)
        await useAll(storage)
        assert.deepStrictEqual(await storage.scan("records", undefined, 10), after(3))
        await storage.close()
      }
    })

    it("can be used after a crash at any step of making its database", async () => {
      for (let steps = 0; steps < 2; steps++) {
        startAnew()
        let made = 0
        const stop = meddling(({ go, name }) => {
          if (name === "createObjectStore" && made++ >= steps) throw new Error("crash")
          return go()
        })
        assert.notStrictEqual(await elapsing(messageOf(indexedDb().open("app"))), "resolved")
        stop()
        const storage = await opened()
        await put(storage, "a")
        assert.deepStrictEqual(await keys(storage), ["a"])
      }
    })

    it("takes over a database of the first version, be it cut off in between", async () => {
      const first = await openDB("app", 1, { upgrade: (database) => void database.createObjectStore("rows") })
      await first.put("rows", bytes("a"), ["records", "a"])
      first.close()
      const stop = meddling(({ go, name }) => {
        if (name === "createObjectStore") throw new Error("crash")
        return go()
      })
      assert.notStrictEqual(await elapsing(messageOf(indexedDb().open("app"))), "resolved")
      stop()
      assert.deepStrictEqual(await keys(await opened()), ["a"])
    })

    it("gives up opening, and closes what comes too late", async () => {
      const listeners: Array<() => void> = []
      const request = silent((type: string, listener: unknown) => {
        if (type === "success") listeners.push(listener as () => void)
      })
      const stop = meddling(({ go, name }) => name === "open" ? request : go())
      const storage = indexedDb()
      assert.include(await elapsing(messageOf(storage.open("app"))), "hasn't opened")
      stop()
      const late = await openDB("app", 2, {
        upgrade: (database) => void [database.createObjectStore("rows"), database.createObjectStore("owner")]
      })
      Object.assign(request, { result: connections[0] })
      listeners.forEach((listener) => listener())
      await vi.waitFor(() => assert.throws(() => late.transaction("rows")))
      assert.include(await messageOf(storage.commit([])), "closed")
    })

    it("says so when another tab is in the way of a newer version, and opens when it has gone", async () => {
      const older = await openDB("app", 1, { upgrade: (database) => void database.createObjectStore("rows") })
      const storage = indexedDb()
      assert.include(await elapsing(messageOf(storage.open("app"))), "another tab holds")
      older.close()
      const again = indexedDb()
      await again.open("app")
      await put(again, "a")
      assert.deepStrictEqual(await keys(again), ["a"])
    })

    it("gives up a transaction, and goes on with another connection", async () => {
      const storage = await opened()
      await put(storage, "a")
      for (const method of ["get", "getAll"]) {
        const stop = meddling(({ go, name }) => name === method ? silent() : go())
        assert.include(
          await elapsing(messageOf(method === "get" ? put(storage, "b") : keys(storage))),
          "hasn't answered"
        )
        stop()
      }
      await put(storage, "c")
      assert.includeMembers([...await keys(storage)], ["a", "c"])
      assert.isAbove(connections.length, 2)
    })
  })
})
