import { describe, it } from "@effect/vitest"
import type * as ClientConfig from "@topgun/client/ClientConfig"
import { makeClient } from "@topgun/client/facade"
import * as Storage from "@topgun/core/Storage"
import { StorageFault, type StorageTrouble } from "@topgun/core/StorageAdapter"
import * as Value from "@topgun/core/Value"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import { afterEach, expect, vi } from "vitest"
import { type Client, faultOf, inWorld, isSettled, nodeIdOf } from "./worlds.ts"

afterEach(() => {
  vi.unstubAllGlobals()
})

/** Storage that outlives its client, and can be deleted, filled up or kept from being opened under it. */
const browsers = () => {
  let memory = Storage.memory()
  let isOpen = false
  const state = {
    evicted: false,
    trouble: undefined as StorageTrouble | Error | undefined,
    /** Of opening alone. */
    troubleAtOpening: undefined as StorageTrouble | undefined,
    commits: 0,
    /** After which the device is lost. */
    lastCommit: Number.POSITIVE_INFINITY
  }
  const refuse = (): void => {
    const { trouble } = state
    if (trouble !== undefined) throw trouble instanceof Error ? trouble : new StorageFault(trouble, `it is ${trouble}`)
    if (state.evicted) throw new StorageFault("evicted", "it was deleted")
  }
  const device: Storage.StorageAdapter = {
    ...memory,
    kind: "browser's",
    durable: true,
    open: async (name) => {
      if (state.evicted) memory = Storage.memory()
      state.evicted = false
      refuse()
      if (state.troubleAtOpening !== undefined) throw new StorageFault(state.troubleAtOpening, "it can't be opened")
      await memory.open(name)
      isOpen = true
    },
    scan: async (...asked) => {
      refuse()
      return memory.scan(...asked)
    },
    commit: async (writes) => {
      if (++state.commits > state.lastCommit) throw new Error("crash")
      if (!isOpen) throw new Error("the storage is closed")
      refuse()
      await memory.commit(writes)
    },
    close: async () => {
      isOpen = false
      await memory.close()
    }
  }
  return { device, state }
}

/** A window whose browser answers as told, and what it was asked. */
const stubWindow = (manager: Partial<StorageManager> = {}) => {
  const items = new Map<string, string>()
  const localStorage = {
    getItem: (key: string) => items.get(key) ?? null,
    setItem: (key: string, value: string) => void items.set(key, value),
    removeItem: (key: string) => void items.delete(key)
  }
  vi.stubGlobal("window", { localStorage })
  vi.stubGlobal("navigator", { storage: manager })
  return items
}

const start = Effect.fnUntraced(function*(device: Storage.StorageAdapter, options: ClientConfig.Options = {}) {
  const faults: Array<unknown> = []
  const client = yield* World.startClient("alice", { onError: (fault) => void faults.push(fault), ...options }, device)
  return { client, faults }
})

const settled = (client: Client) =>
  Effect.flatMap(VirtualClock.VirtualClock, ({ runUntil }) => runUntil(() => isSettled(client)))

describe("a client whose storage can't be opened", () => {
  for (
    const [trouble, tag] of [[new Error("no IndexedDB"), "StorageUnavailable"], [
      "quota",
      "StorageQuotaExceeded"
    ]] as const
  ) {
    it.live(`goes on in memory, and says so: ${tag}`, () =>
      Effect.gen(function*() {
        const server = yield* World.startServer()
        const { device, state } = browsers()
        state.trouble = trouble
        const { client, faults } = yield* start(device)
        expect(faults).toMatchObject([{ _tag: tag }])
        const { storage } = client.status.current
        expect(storage).toMatchObject({ kind: "memory", durable: false })
        expect(storage.fault).toContain(trouble instanceof Error ? "no IndexedDB" : "it is quota")
        const map = yield* client.map<number>("m")
        yield* map.set("k", 1)
        yield* settled(client)
        expect((yield* server.status).maps).toMatchObject([{ size: 1 }])
        expect(client.status.current.storage.fault).toBe(storage.fault)
        expect(faults.length).toBe(1)
        expect(state.commits).toBe(0)
      }).pipe(Effect.scoped, inWorld()))
  }

  for (
    const [trouble, tag] of [
      ["key", "StorageKeyRefused"],
      ["superseded", "StorageSuperseded"],
      ["newer", "StorageTooNew"]
    ] as const
  ) {
    it.live(`refuses to be opened, writes nothing and sends nothing, where it would be wrong to go on: ${tag}`, () =>
      Effect.gen(function*() {
        const server = yield* World.startServer()
        const { device, state } = browsers()
        state.trouble = trouble
        expect(yield* Effect.flip(start(device))).toMatchObject({ _tag: tag })
        expect(state.commits).toBe(0)
        const clock = yield* VirtualClock.VirtualClock
        yield* clock.advance("1 minute")
        expect(yield* server.status).toMatchObject({ connections: 0, maps: [] })
      }).pipe(Effect.scoped, inWorld()))
  }

  it.live("leaves rows of a newer format as they are", () =>
    Effect.gen(function*() {
      const { device, state } = browsers()
      const { client } = yield* start(device, { autoConnect: false })
      yield* (yield* client.map<number>("m")).set("k", 1)
      yield* client.close
      yield* Effect.promise(() => device.open("alice"))
      yield* Effect.promise(() => device.commit([{ space: "meta", key: "format", value: Value.encode(3) }]))
      const { commits } = state
      const refused = yield* Effect.flip(start(device))
      expect(refused).toMatchObject({ _tag: "StorageTooNew" })
      expect(refused.message).toContain("format 3")
      expect(state.commits).toBe(commits)
    }).pipe(Effect.scoped, inWorld()))

  it("does all that in the Promise form too", async () => {
    const faults: Array<unknown> = []
    const { device, state } = browsers()
    state.trouble = new Error("no IndexedDB")
    const client = makeClient({ storage: device, onError: (fault) => void faults.push(fault) })
    await client.ready()
    await client.map<number>("m").set("k", 1)
    expect(client.status.current.storage).toMatchObject({ kind: "memory", durable: false })
    expect(faults).toMatchObject([{ _tag: "StorageUnavailable" }])
    await client.close()
    state.trouble = "key"
    const refused = makeClient({ storage: device, onError: () => {} })
    await expect(refused.ready()).rejects.toMatchObject({ _tag: "StorageKeyRefused" })
    expect(refused.status.current.storage).toMatchObject({ durable: false })
    await refused.close()
    expect(state.commits).toBe(0)
  })
})

describe("a client whose storage is full", () => {
  it.live("says so to who writes, keeps all in memory, and stores it when there is room", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const { device, state } = browsers()
      const { client, faults } = yield* start(device, { autoConnect: false })
      const map = yield* client.map<number>("m")
      yield* map.set("a", 1)
      state.trouble = "quota"
      expect(yield* faultOf(map.set("b", 2))).toMatchObject({ _tag: "StorageQuotaExceeded" })
      yield* clock.advance("10 seconds")
      expect(client.status.current.storage.fault).toContain("Storage is full")
      expect(faults).toMatchObject([{ _tag: "StorageQuotaExceeded" }])
      state.trouble = undefined
      yield* clock.runUntil(() => client.status.current.storage.fault === undefined)
      yield* client.close
      const { client: again } = yield* start(device, { autoConnect: false })
      expect(Object.fromEntries(yield* again.map<number>("m"))).toEqual({ a: 1, b: 2 })
      expect(again.status.current.pending).toBe(2)
    }).pipe(Effect.scoped, inWorld()))
})

describe("a client whose storage is deleted under it", () => {
  /** A device with something of everything, of which the server has half. */
  const used = Effect.fnUntraced(function*(device: Storage.StorageAdapter) {
    const { client, faults } = yield* start(device)
    const map = yield* client.map<number>("m")
    const tags = yield* client.orMap<string>("tags")
    const hits = yield* client.counter("hits")
    yield* map.set("sent", 1)
    yield* map.set("changed", 1)
    yield* map.set("removed", 1)
    yield* tags.add("k", "sent")
    yield* hits.increment(5)
    yield* settled(client)
    yield* client.disconnect
    yield* map.set("changed", 2)
    yield* map.remove("removed")
    yield* map.set("unsent", 1)
    yield* tags.add("k", "unsent")
    yield* hits.increment(2)
    return { client, faults, map, tags, hits }
  })
  const contentOf = Effect.fnUntraced(function*(client: Client) {
    const map = yield* client.map<number>("m")
    const tags = yield* client.orMap<string>("tags")
    return [Object.fromEntries(map), tags.getValues("k"), (yield* client.counter("hits")).current]
  })
  const all = [{ sent: 1, changed: 2, unsent: 1, late: 1 }, ["sent", "unsent"], 7]

  it.live("stores all that it has anew, is told of once, and goes on as the same node", () =>
    Effect.gen(function*() {
      const server = yield* World.startServer()
      const { device, state } = browsers()
      const { client, faults, map } = yield* used(device)
      const nodeId = yield* nodeIdOf(device)
      state.evicted = true
      // Whose promise holds: it is durable in the new one.
      yield* map.set("late", 1)
      expect(faults).toMatchObject([{ _tag: "StorageEvicted" }])
      expect(client.status.current.storage.fault).toBeUndefined()
      yield* client.close

      const { client: again, faults: later } = yield* start(device, { autoConnect: false })
      expect(yield* contentOf(again)).toEqual(all)
      expect(again.status.current).toMatchObject({ pending: 6, hasSynced: true })
      expect(yield* nodeIdOf(device)).toBe(nodeId)
      yield* again.connect
      yield* settled(again)
      expect(yield* contentOf(again)).toEqual(all)
      expect((yield* server.status).maps.find(({ name }) => name === "m")).toMatchObject({ size: 4 })
      expect(later).toEqual([])
      expect(yield* nodeIdOf(device)).toBe(nodeId)
    }).pipe(Effect.scoped, inWorld()))

  it.live("has all that is unsent in the first transaction, whatever becomes of the device after it", () =>
    Effect.gen(function*() {
      yield* World.startServer()
      const { device, state } = browsers()
      const { client } = yield* start(device)
      const map = yield* client.map<number>("m")
      // More than one transaction takes.
      for (let part = 0; part < 12; part++) {
        yield* client.batch(({ set }) => {
          for (let n = 0; n < 500; n++) set("m", `sent ${part} ${n}`, n)
        })
      }
      yield* settled(client)
      yield* client.disconnect
      yield* map.set("sent 0 0", -1)
      yield* map.set("unsent", 1)
      state.evicted = true
      // One finds that it is gone, the next makes it anew.
      state.lastCommit = state.commits + 2
      yield* map.set("late", 1)
      yield* client.close
      state.lastCommit = Number.POSITIVE_INFINITY
      const { client: again } = yield* start(device, { autoConnect: false })
      expect(again.status.current.pending).toBe(3)
      const stored = yield* again.map<number>("m")
      expect(stored.size).toBeLessThan(6_000)
      expect(["sent 0 0", "unsent", "late"].map((key) => stored.get(key))).toEqual([-1, 1, 1])
      yield* again.connect
      yield* settled(again)
      expect(stored.size).toBe(6_002)
    }).pipe(Effect.scoped, inWorld()))

  it.live("keeps its rejected writes", () =>
    Effect.gen(function*() {
      yield* World.startServer()
      const { client } = yield* start(Storage.memory())
      const clock = yield* VirtualClock.VirtualClock
      yield* (yield* client.orMap<number>("m")).add("k", 1)
      yield* settled(client)
      yield* client.close
      // The map is of another kind there.
      const other = browsers()
      const { client: second } = yield* start(other.device, { autoConnect: false })
      yield* (yield* second.map<number>("m")).set("k", 1)
      yield* second.connect
      yield* clock.runUntil(() => second.status.current.rejected === 1)
      other.state.evicted = true
      yield* (yield* second.map<number>("n")).set("k", 1)
      yield* second.close
      const { client: again } = yield* start(other.device, { autoConnect: false })
      expect(again.rejectedWrites.current).toMatchObject([{ map: "m", key: "k", value: 1 }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("tries again while it can't be made anew, and says why", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const { device, state } = browsers()
      const { client, faults } = yield* start(device, { autoConnect: false })
      const map = yield* client.map<number>("m")
      yield* map.set("a", 1)
      state.evicted = true
      state.troubleAtOpening = "quota"
      expect(yield* faultOf(map.set("b", 2))).toMatchObject({ _tag: "StorageQuotaExceeded" })
      yield* clock.advance("5 seconds")
      expect(faults).toMatchObject([{ _tag: "StorageEvicted" }, { _tag: "StorageQuotaExceeded" }])
      state.troubleAtOpening = undefined
      yield* clock.runUntil(() => client.status.current.storage.fault === undefined)
      yield* client.close
      const { client: again } = yield* start(device, { autoConnect: false })
      expect(Object.fromEntries(yield* again.map<number>("m"))).toEqual({ a: 1, b: 2 })
    }).pipe(Effect.scoped, inWorld()))
})

describe("a client whose storage was deleted before it is opened", () => {
  it.live("is told of it, becomes another node, and takes everything from the server", () =>
    Effect.gen(function*() {
      stubWindow()
      const server = yield* World.startServer()
      const { device, state } = browsers()
      const { client, faults } = yield* start(device)
      yield* (yield* client.map<number>("m")).set("k", 1)
      yield* settled(client)
      yield* client.close
      expect(faults).toEqual([])
      const nodeId = yield* nodeIdOf(device)
      state.evicted = true
      const { client: again, faults: told } = yield* start(device)
      expect(told).toMatchObject([{ _tag: "StorageEvicted" }])
      const map = yield* again.map<number>("m")
      yield* settled(again)
      expect(yield* nodeIdOf(device)).not.toBe(nodeId)
      expect(Object.fromEntries(map)).toEqual({ k: 1 })
      expect((yield* server.status).maps).toMatchObject([{ size: 1, records: 1 }])
      yield* again.close
      expect((yield* start(device)).faults).toEqual([])
    }).pipe(Effect.scoped, inWorld()))

  it.live("is told of nothing after a logout, unless something was kept", () =>
    Effect.gen(function*() {
      const items = stubWindow()
      const { device, state } = browsers()
      const { client } = yield* start(device, { autoConnect: false })
      yield* (yield* client.map<number>("m")).set("k", 1)
      expect(items.size).toBe(1)
      yield* client.logout({ unsent: "keep" })
      expect(items.size).toBe(1)
      const { client: again } = yield* start(device, { autoConnect: false })
      yield* again.logout({ unsent: "discard" })
      expect(items.size).toBe(0)
      state.evicted = true
      expect((yield* start(device, { autoConnect: false })).faults).toEqual([])
    }).pipe(Effect.scoped, inWorld()))

  it.live("does without a canary where there is no room for one, or none is allowed", () =>
    Effect.gen(function*() {
      vi.stubGlobal("window", {
        get localStorage() {
          throw new DOMException("The operation is insecure.", "SecurityError")
        }
      })
      const { device } = browsers()
      const { client, faults } = yield* start(device, { autoConnect: false })
      yield* client.close
      expect(faults).toEqual([])
      const items = stubWindow()
      const long = makeClient({ storage: browsers().device, storageKey: "k".repeat(1_001) })
      yield* Effect.promise(() => long.ready())
      const inMemory = makeClient({})
      yield* Effect.promise(() => inMemory.ready())
      expect(items.size).toBe(0)
      yield* Effect.promise(() => Promise.all([long.close(), inMemory.close()]))
    }).pipe(Effect.scoped, inWorld()))
})

describe("a browser", () => {
  it.live("is asked once not to delete what is stored, at the first local write", () =>
    Effect.gen(function*() {
      let asked = 0
      stubWindow({
        persisted: () => Promise.resolve(false),
        persist: () => {
          asked++
          return Promise.resolve(true)
        }
      })
      const clock = yield* VirtualClock.VirtualClock
      const { client } = yield* start(browsers().device, { autoConnect: false })
      const map = yield* client.map<number>("m")
      yield* clock.runUntil(() => client.status.current.storage.persisted === false)
      expect(asked).toBe(0)
      yield* map.set("a", 1)
      yield* map.set("b", 2)
      yield* clock.runUntil(() => client.status.current.storage.persisted === true)
      expect(asked).toBe(1)
    }).pipe(Effect.scoped, inWorld()))

  it.live("is asked how much room there is, now and then, until the client is closed", () =>
    Effect.gen(function*() {
      let asked = 0
      stubWindow({
        estimate: () => {
          asked++
          return asked === 2 ? new Promise(() => {}) : Promise.resolve({ usage: asked * 100, quota: 1_000 })
        }
      })
      const clock = yield* VirtualClock.VirtualClock
      const { client } = yield* start(browsers().device, { autoConnect: false })
      let told = 0
      client.status.subscribe(({ storage }) => void (told = storage.usage ?? 0))
      yield* clock.advance("1 second")
      expect(client.status.current.storage).toMatchObject({ persisted: undefined, usage: 100, quota: 1_000 })
      yield* clock.advance("59 seconds")
      expect(asked).toBe(2)
      // It never answers, which doesn't keep it from being asked again.
      yield* clock.advance("70 seconds")
      expect(client.status.current.storage.usage).toBe(300)
      expect(told).toBe(300)
      yield* client.close
      yield* clock.advance("1 hour")
      expect(asked).toBe(3)
    }).pipe(Effect.scoped, inWorld()))

  it.live("isn't asked of what is in memory only, nor where there is none", () =>
    Effect.gen(function*() {
      const unknown = { persisted: undefined, usage: undefined, quota: undefined }
      const { client: onServer } = yield* start(browsers().device, { autoConnect: false })
      yield* (yield* onServer.map<number>("m")).set("a", 1)
      expect(onServer.status.current.storage).toMatchObject(unknown)
      let asked = 0
      const ask = () => {
        asked++
        return Promise.resolve(true)
      }
      stubWindow({ persist: ask, persisted: ask, estimate: () => ask().then(() => ({})) })
      const inMemory = yield* World.startClient("bob", { autoConnect: false }, Storage.memory())
      yield* (yield* inMemory.map<number>("m")).set("a", 1)
      expect(asked).toBe(0)
      expect(inMemory.status.current.storage).toMatchObject(unknown)
    }).pipe(Effect.scoped, inWorld()))
})
