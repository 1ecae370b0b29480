import { describe, it } from "@effect/vitest"
import {
  BackpressureError,
  type Client,
  ClientClosed,
  type ClientOptions,
  createClient,
  Grid,
  memory,
  NotLoaded,
  SchemaMismatch,
  ValueNotSupported,
  WriteRejected
} from "@topgun/client/promise"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as SimulatedTabs from "@topgun/testing/SimulatedTabs"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { readFileSync } from "node:fs"
import * as path from "node:path"
import { afterEach, expect, expectTypeOf, test } from "vitest"
import { makeClient } from "../src/facade.ts"

const Todo = Schema.Struct({ text: Schema.String, done: Schema.Boolean })
const Todos = Grid.map("todos", Todo)

const opened: Array<Client> = []
const local = (options: ClientOptions = {}): Client => {
  const client = createClient(options)
  opened.push(client)
  return client
}
afterEach(async () => {
  await Promise.all(opened.splice(0).map((client) => client.close()))
})

/** How a promise has settled by now, near enough. */
const settled = (promise: PromiseLike<unknown>) =>
  Promise.race([
    Promise.resolve(promise).then((value) => ({ value }), (fault) => ({ fault })),
    new Promise((resolve) => setImmediate(() => setImmediate(() => setImmediate(() => resolve("hangs")))))
  ])

describe("the Promise form", () => {
  test("is written and read without a server", async () => {
    const client = local({ grid: [Todos] })
    await client.ready()
    const todos = client.map(Todos)
    const write = todos.set("1", { text: "milk", done: false })
    expect(todos.get("1")).toEqual({ text: "milk", done: false })
    await write
    await todos.update("1", (todo) => todo && { ...todo, done: true })
    expect([...todos]).toEqual([["1", { text: "milk", done: true }]])
    await todos.remove("1")
    expect(todos.size).toBe(0)
    expect(client.status.current).toMatchObject({ state: "DISCONNECTED", pending: 1, storage: { kind: "memory" } })
    expectTypeOf(todos.get("1")).toEqualTypeOf<{ readonly text: string; readonly done: boolean } | undefined>()
  })

  test("takes writes before it is open, in order, and reads only after", async () => {
    const client = local()
    const map = client.map<number>("m")
    const first = map.set("k", 1)
    const second = map.update("k", (n) => (n ?? 0) + 1)
    expect(() => map.get("k")).toThrow(NotLoaded as never)
    await Promise.all([first, second])
    expect(map.get("k")).toBe(2)
  })

  test("throws at once, with nothing changed, what a write is refused for; open or not", async () => {
    const client = local()
    const todos = client.map(Todos)
    const anything = client.map<unknown>("anything")
    const refused = () => {
      expect(() => anything.set("k", { a: undefined })).toThrow(/\$\.a/)
      expect(() => todos.set("1", { text: 1 } as never)).toThrow(/schema of map "todos"/)
      try {
        anything.set("k", () => {})
      } catch (fault) {
        expect(fault).toBeInstanceOf(ValueNotSupported)
        expect(fault).not.toBeInstanceOf(SchemaMismatch)
        expect(fault).toMatchObject({ code: "TG_VALUE_NOT_SUPPORTED", retryable: false })
      }
    }
    refused()
    await client.ready()
    refused()
    expect(anything.size).toBe(0)
  })

  test("bounds the writes that wait for the opening", async () => {
    const client = local()
    const map = client.map<number>("m")
    expect(() => {
      for (let n = 0; n < 2_000; n++) map.set(`k${n}`, n)
    }).toThrow(BackpressureError as never)
    await client.ready()
    await map.set("last", 1)
    expect(map.size).toBeGreaterThan(900)
  })

  test("is watched, with signals to stop and as an iterable", async () => {
    const client = local()
    await client.ready()
    const map = client.map<number>("m")
    const seen: Array<unknown> = []
    const stop = new AbortController()
    map.subscribe((changes) => seen.push(changes.map(({ value }) => value)), { signal: stop.signal })
    const watched = map.watch("k")
    const values: Array<unknown> = []
    const reading = (async () => {
      for await (const value of watched) {
        values.push(value)
        if (value === 2) return
      }
    })()
    await map.set("k", 1)
    stop.abort()
    await map.set("k", 2)
    await reading
    expect(seen).toEqual([[1]])
    expect(watched.current).toBe(2)
    expect(values.at(-1)).toBe(2)
  })

  test("keeps users apart in one storage, and one user's data over restarts", async () => {
    const storage = memory()
    const alice = createClient({ storage, userId: "alice" })
    await alice.map<number>("m").set("k", 1)
    await alice.close()
    const bob = createClient({ storage, userId: "bob" })
    await bob.ready()
    expect(bob.map("m").size).toBe(0)
    await bob.close()
    const again = local({ storage, userId: "alice" })
    await again.ready()
    expect(again.map("m").get("k")).toBe(1)
    expect(again.status.current.pending).toBe(1)
  })

  test("refuses everything once it is closed", async () => {
    const client = createClient()
    const map = client.map<number>("m")
    await map.set("k", 1)
    await client.close()
    expect(() => map.get("k")).toThrow(ClientClosed as never)
    expect(() => map.set("k", 2)).toThrow(ClientClosed as never)
    await expect(client.synced()).rejects.toMatchObject({ _tag: "ClientClosed" })
  })

  test("says so when its storage can't be opened", async () => {
    const faults: Array<unknown> = []
    const client = local({
      storage: { ...memory(), open: () => Promise.reject(new Error("blocked")) },
      onError: (fault) => faults.push(fault)
    })
    const write = client.map<number>("m").set("k", 1)
    await expect(client.ready()).rejects.toMatchObject({ _tag: "StorageUnavailable" })
    await expect(Promise.resolve(write)).rejects.toMatchObject({ _tag: "StorageUnavailable" })
    expect(faults).toMatchObject([{ _tag: "StorageUnavailable" }])
  })

  test("shares its storage with the tabs that it is told of, which show the same", async () => {
    const browser = SimulatedTabs.make()
    const [first, second] = [browser.open(), browser.open()].map(({ storage, tabs }) => local({ storage, tabs }))
    await first!.ready()
    await second!.ready()
    expect([first, second].map((client) => client!.status.current.tab)).toEqual(["leader", "follower"])
    const [here, there] = [first, second].map((client) => client!.map<number>("m"))
    await there!.set("of the second", 2)
    await here!.set("of the first", 1)
    expect(Object.fromEntries(here!)).toEqual({ "of the second": 2, "of the first": 1 })
    await settled(new Promise(() => {}))
    expect(Object.fromEntries(there!)).toEqual(Object.fromEntries(here!))
  })

  test("knows of no other tabs where it is told so, and each that is opened takes storage away from the one before", async () => {
    const browser = SimulatedTabs.make()
    const faults: Array<unknown> = []
    const onError = (fault: unknown) => void faults.push(fault)
    const open = () => local({ storage: browser.open().storage, tabs: "none", onError })
    const first = open()
    await first.ready()
    expect(first.status.current.tab).toBe("only")
    await first.map("m").set("k", 1)
    const second = open()
    await second.ready()
    expect(second.map("m").get("k")).toBe(1)
    await expect(Promise.resolve(first.map("m").set("k", 2))).rejects.toMatchObject({ _tag: "StorageSuperseded" })
    expect(second.map("m").get("k")).toBe(1)
    expect(faults).toMatchObject([{ _tag: "StorageSuperseded" }])
  })

  it.live("synchronises, acknowledges, rejects and calls, over the same engine", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const network = yield* Network.SimulatedNetwork
      yield* World.startServer()
      const open = (name: string) =>
        Effect.acquireRelease(
          Effect.sync(() =>
            makeClient({ url: "ws://world", writeTimeoutMs: 60_000 }, {
              transport: network.layerTransport(name),
              platform: VirtualClock.layerOf(clock) as never
            })
          ),
          (client) => Effect.promise(() => client.close())
        )
      const alice = yield* open("alice")
      const bob = yield* open("bob")
      const hers = alice.map<number>("m")
      const his = bob.map<number>("m")
      const outcomes: Array<unknown> = []
      const note = (promise: Promise<unknown>) =>
        promise.then((value) => outcomes.push(value), (fault) => outcomes.push(fault))
      void note(hers.set("k", 1).server)
      yield* clock.runUntil(() => bob.status.current.state === "CONNECTED" && his.get("k") === 1)
      yield* clock.runUntil(() => outcomes.length === 1)
      expect(outcomes[0]).toMatchObject({ level: "APPLIED" })
      void note(hers.set("k", 2, { writeConcern: "REPLICATED" }).server)
      yield* clock.runUntil(() => outcomes.length === 2)
      expect(outcomes[1]).toBeInstanceOf(WriteRejected)
      expect(alice.rejectedWrites.current).toMatchObject([{ key: "k", value: 2 }])
      alice.rejectedWrites.discard(alice.rejectedWrites.current[0]!.id)
      expect(alice.rejectedWrites.current).toEqual([])
      expect(hers.get("k")).toBe(1)
      const status = yield* Effect.fork(Effect.promise(() => bob.serverStatus()))
      yield* Effect.promise(() => import("../src/Calls.ts"))
      yield* clock.advance("1 second")
      expect(yield* status).toMatchObject({ maps: [{ name: "m", size: 1 }] })
      yield* Effect.promise(() => bob.disconnect())
      const stop = new AbortController()
      const waiting = bob.synced({ signal: stop.signal })
      stop.abort(new Error("enough"))
      yield* Effect.promise(() => expect(waiting).rejects.toThrow("enough"))
    }).pipe(Effect.scoped, World.provide()))

  test("refuses what waits for an opening that never comes, when it's closed", async () => {
    const client = makeClient({ storage: { ...memory(), open: () => new Promise(() => {}) } })
    const map = client.map<number>("m")
    const waiting = [map.set("k", 1), map.set("k", 2).server, client.ready(), map.ready(), client.synced()]
    const outcomes = waiting.map(settled)
    void client.close()
    for (const [i, each] of outcomes.entries()) {
      expect(await each, String(i)).toMatchObject({ fault: { _tag: "ClientClosed" } })
    }
  })

  test("ends what waits when it's closed, and is disconnected then", async () => {
    const client = makeClient({})
    await client.ready()
    const synced = client.synced()
    await client.map("m").set("k", 1)
    await client.close()
    expect(await settled(synced)).toMatchObject({ fault: { _tag: "ClientClosed" } })
  })

  test("says of every write that its storage can't be opened, and says so in the status", async () => {
    const client = makeClient({
      storage: { ...memory(), open: () => Promise.reject(new Error("blocked")) }
    })
    await expect(client.ready()).rejects.toMatchObject({ _tag: "StorageUnavailable" })
    const map = client.map<number>("m")
    for (let n = 0; n < 1_500; n++) {
      expect(await settled(map.set(`k${n}`, n))).toMatchObject({ fault: { _tag: "StorageUnavailable" } })
    }
    expect(client.status.current.storage.fault).toContain("blocked")
    await client.close()
  })

  test("counts writes that wait for the opening as pending, and only them as waiting", async () => {
    const client = makeClient({})
    for (let n = 0; n < 2_000; n++) client.map("m").subscribe(() => {})()
    const map = client.map<number>("m")
    void map.set("k", 1)
    expect(client.status.current.pending).toBe(1)
    await client.ready()
    expect(client.status.current.pending).toBe(1)
    await client.close()
  })

  it.live("keeps a rejected write until trying again has made it durable", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const network = yield* Network.SimulatedNetwork
      yield* World.startServer()
      const client = makeClient({ url: "ws://world", backpressure: { strategy: "throw", capacity: 1 } }, {
        transport: network.layerTransport("alice"),
        platform: VirtualClock.layerOf(clock) as never
      })
      yield* Effect.promise(() => client.ready())
      const map = client.map<number>("m")
      map.set("k", 1, { writeConcern: "REPLICATED" })
      yield* clock.runUntil(() => client.status.current.rejected === 1)
      yield* Effect.promise(() => client.disconnect())
      map.set("full", 1)
      const { id } = client.rejectedWrites.current[0]!
      expect(() => client.rejectedWrites.retry(id)).toThrow()
      expect(client.rejectedWrites.current).toHaveLength(1)
      yield* Effect.promise(() => client.close())
      expect(client.status.current.state).toBe("DISCONNECTED")
    }).pipe(Effect.scoped, World.provide()))
})

describe("the status before the client is open", () => {
  test("counts the writes that wait, and is the same object until one comes", async () => {
    await using client = createClient({})
    const before = client.status.current
    expect(client.status.current).toBe(before)
    const write = client.map<number>("m").set("k", 1)
    const waiting = client.status.current
    expect([before.pending, waiting.pending]).toEqual([0, 1])
    expect(client.status.current).toBe(waiting)
    await write
    expect(client.status.current.pending).toBe(1)
  })
})

describe("the Promise entry's types", () => {
  test("reach no type of Effect's", () => {
    const dist = path.resolve(import.meta.dirname, "../../")
    const fileOf = (from: string, specifier: string): string | undefined => {
      if (specifier.startsWith(".")) return path.resolve(path.dirname(from), specifier.replace(/\.[jt]s$/, ".d.ts"))
      const own = /^@topgun\/([a-z]+)\/(.+)$/.exec(specifier)
      return own === null ? undefined : path.join(dist, own[1]!, "dist", `${own[2]!}.d.ts`)
    }
    const seen = new Set<string>()
    const outside = new Set<string>()
    const visit = (file: string): void => {
      if (seen.has(file)) return
      seen.add(file)
      const text = readFileSync(file, "utf8")
      for (const [, specifier] of text.matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)) {
        const next = fileOf(file, specifier!)
        if (next === undefined) outside.add(specifier!)
        else visit(next)
      }
    }
    visit(path.join(dist, "client/dist/promise.d.ts"))
    expect(seen.size).toBeGreaterThan(3)
    expect([...outside]).toEqual([])
  })
})
