/** What both forms of the client do alike: one suite, run by each. What they differ in is in TopGunClient and promise. */
import { describe, it } from "@effect/vitest"
import type { Batch } from "@topgun/client/Batch"
import type { RejectedWrite, SyncStatus } from "@topgun/client/Reports"
import type { Ack } from "@topgun/core/WriteConcern"
import * as Grid from "@topgun/core/Grid"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as Storage from "@topgun/core/Storage"
import * as Value from "@topgun/core/Value"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { expect } from "vitest"
import { makeClient } from "../src/facade.ts"
import type { CounterHandle, MapHandle, OrMapHandle } from "../src/MapHandles.ts"
import type { Write as PromiseWrite } from "../src/PromiseClient.ts"
import { inWorld } from "./worlds.ts"

// --- Both forms in one shape: that of the Effect form ---

interface Write {
  readonly server: Effect.Effect<Ack, unknown>
}
type Written = Effect.Effect<Write, unknown>

interface Client {
  readonly map: <A>(map: Grid.MapLike<A>) => Effect.Effect<MapHandle<A, Written>, unknown>
  readonly orMap: <A>(map: Grid.OrMapLike<A>) => Effect.Effect<OrMapHandle<A, Written>, unknown>
  readonly counter: (counter: Grid.CounterLike) => Effect.Effect<CounterHandle<Written>, unknown>
  readonly batch: (build: (batch: Batch) => void) => Written
  readonly status: () => SyncStatus
  readonly rejected: () => ReadonlyArray<RejectedWrite>
  readonly retry: (id: string) => Effect.Effect<unknown, unknown>
  readonly discard: (id: string) => Effect.Effect<unknown, unknown>
  readonly exported: () => string
  readonly connect: Effect.Effect<void, unknown>
  readonly disconnect: Effect.Effect<void, unknown>
  readonly resetConnection: Effect.Effect<void, unknown>
  readonly synced: Effect.Effect<void, unknown>
  readonly serverStatus: Effect.Effect<{ readonly maps: ReadonlyArray<unknown> }, unknown>
  readonly close: Effect.Effect<void>
}

interface Options {
  readonly grid?: ReadonlyArray<Grid.Declaration>
  readonly autoConnect?: boolean
  readonly backpressure?: { readonly strategy: "throw"; readonly capacity: number }
  readonly onError?: (fault: unknown) => void
}

type Open = (
  name: string,
  options?: Options,
  device?: Storage.StorageAdapter
) => Effect.Effect<Client, unknown, Network.SimulatedNetwork | VirtualClock.VirtualClock | Scope.Scope>

const effectForm: Open = (name, options = {}, device = Storage.memory()) =>
  Effect.map(World.startClient(name, options, device), (client): Client => ({
    map: client.map,
    orMap: client.orMap,
    counter: client.counter,
    batch: client.batch,
    status: () => client.status.current,
    rejected: () => client.rejectedWrites.current,
    retry: client.rejectedWrites.retry,
    discard: client.rejectedWrites.discard,
    exported: client.rejectedWrites.export,
    connect: client.connect,
    disconnect: client.disconnect,
    resetConnection: client.resetConnection,
    synced: client.synced,
    serverStatus: client.serverStatus,
    close: client.close
  }))

/** What was thrown, to be held against what is expected: these are tests of errors. */
class Thrown extends Data.TaggedError("Thrown")<{ readonly fault: unknown }> {}

const promised = <A>(make: () => PromiseLike<A>): Effect.Effect<A, unknown> =>
  Effect.tryPromise({ try: async () => make(), catch: (fault) => new Thrown({ fault }) })

const written = (make: () => PromiseWrite): Written =>
  Effect.flatMap(
    Effect.try({ try: make, catch: (fault) => new Thrown({ fault }) }),
    (write) => Effect.as(promised(() => write.local), { server: promised(() => write.server) })
  )

const writes = new Set(["merge", "set", "update", "remove", "clear", "add", "removeAll", "increment", "decrement"])

/** A handle of the Promise form whose writes answer Effects. */
const lifted = <Handle>(handle: object): Handle =>
  new Proxy(handle, {
    get: (target, name) => {
      const member: unknown = Reflect.get(target, name, target)
      if (typeof member !== "function") return member
      return (...args: ReadonlyArray<unknown>) =>
        writes.has(String(name)) ? written(() => member.apply(target, args)) : member.apply(target, args)
    }
  }) as Handle

const promiseForm: Open = Effect.fnUntraced(function*(name, options = {}, device = Storage.memory()) {
  const clock = yield* VirtualClock.VirtualClock
  const network = yield* Network.SimulatedNetwork
  const client = makeClient({ url: "ws://world", storage: device, ...options }, {
    transport: network.layerTransport(name),
    platform: VirtualClock.layerOf(clock) as never
  })
  const close = Effect.promise(() => client.close())
  yield* Effect.addFinalizer(() => close)
  yield* promised(() => client.ready())
  const open = <A>(handle: () => object): Effect.Effect<A, unknown> =>
    Effect.map(Effect.try({ try: handle, catch: (fault) => new Thrown({ fault }) }), (opened) => lifted<A>(opened))
  return {
    map: <A>(map: Grid.MapLike<A>) => open<MapHandle<A, Written>>(() => client.map(map)),
    orMap: <A>(map: Grid.OrMapLike<A>) => open<OrMapHandle<A, Written>>(() => client.orMap(map)),
    counter: (counter) => open<CounterHandle<Written>>(() => client.counter(counter)),
    batch: (build) => written(() => client.batch(build)),
    status: () => client.status.current,
    rejected: () => client.rejectedWrites.current,
    retry: (id) => Effect.flatMap(written(() => client.rejectedWrites.retry(id)), () => Effect.promise(async () => {})),
    discard: (id) => Effect.sync(() => client.rejectedWrites.discard(id)),
    exported: () => client.rejectedWrites.export(),
    connect: promised(() => client.connect()),
    disconnect: promised(() => client.disconnect()),
    resetConnection: promised(() => client.resetConnection()),
    synced: promised(() => client.synced()),
    serverStatus: promised(() => client.serverStatus()),
    close
  }
})

// --- The suite ---

const Todos = Grid.map("todos", Schema.Struct({ text: Schema.String }))
const Tags = Grid.orMap("tags", Schema.String)
const Likes = Grid.counter("likes")

/** What an effect fails or dies with. */
const faultOf = (effect: Effect.Effect<unknown, unknown>): Effect.Effect<unknown> =>
  Effect.map(
    Effect.merge(Effect.flip(Effect.catchAllDefect(effect, Effect.fail))),
    (fault) => fault instanceof Thrown ? fault.fault : fault
  )

for (const [form, open] of [["Effect", effectForm], ["Promise", promiseForm]] as const) {
  describe(`the ${form} form`, () => {
    it.live("reads what it has written, of every kind, before and after a restart", () =>
      Effect.gen(function*() {
        const device = Storage.memory()
        const first = yield* open("alice", { autoConnect: false }, device)
        const todos = yield* first.map(Todos)
        const tags = yield* first.orMap(Tags)
        const likes = yield* first.counter(Likes)
        yield* todos.set("1", { text: "milk" })
        yield* todos.set("2", { text: "bread" })
        yield* todos.set("3", { text: "wine" })
        yield* todos.update("1", (todo) => todo && { text: `${todo.text}!` })
        yield* todos.remove("2")
        yield* tags.add("1", "new")
        yield* tags.add("1", "old")
        yield* tags.remove("1", "old")
        yield* likes.increment(3)
        yield* likes.decrement()
        yield* first.batch((tx) => {
          tx.remove(todos, "3")
          tx.set(todos, "4", { text: "tea" })
          tx.add(tags, "4", "new")
          tx.increment(likes, 10)
        })
        const seen = (client: Client) =>
          Effect.gen(function*() {
            const map = yield* client.map(Todos)
            const sets = yield* client.orMap(Tags)
            return [
              [...map.entries()],
              [...map.keys()],
              map.size,
              map.has("2"),
              [...sets.entries()],
              (yield* client.counter(Likes)).current,
              client.status().pending
            ]
          })
        const expected = [
          [["1", { text: "milk!" }], ["4", { text: "tea" }]],
          ["1", "4"],
          2,
          false,
          [["1", ["new"]], ["4", ["new"]]],
          12,
          10
        ]
        expect(yield* seen(first)).toEqual(expected)
        yield* first.close
        const second = yield* open("alice", { autoConnect: false }, device)
        expect(yield* seen(second)).toEqual(expected)
        yield* (yield* second.map(Todos)).clear()
        yield* (yield* second.orMap(Tags)).clear()
        expect([(yield* second.map(Todos)).size, (yield* second.orMap(Tags)).size]).toEqual([0, 0])
      }).pipe(Effect.scoped, inWorld()))

    it.live("refuses with the same errors, and nothing is changed", () =>
      Effect.gen(function*() {
        const client = yield* open("alice", {
          autoConnect: false,
          backpressure: { strategy: "throw", capacity: 2 }
        })
        const todos = yield* client.map(Todos)
        const any = yield* client.map<unknown>("any")
        const tags = yield* client.orMap(Tags)
        const likes = yield* client.counter(Likes)
        const refused: ReadonlyArray<readonly [Effect.Effect<unknown, unknown>, string]> = [
          [todos.set("1", { text: 1 } as never), "SchemaMismatch"],
          [any.set("1", () => 1), "ValueNotSupported"],
          [any.set("1", "x".repeat(300_000)), "RecordTooLarge"],
          [any.set("1", 1, { ttlMs: -1 }), "ValueNotSupported"],
          [tags.add("1", 1 as never), "SchemaMismatch"],
          [likes.increment(-1), "ValueNotSupported"],
          [client.batch((tx) => Array.from({ length: 501 }, (_, n) => tx.set("any", `k${n}`, n))), "BatchTooLarge"],
          [client.batch((tx) => Array.from({ length: 3 }, (_, n) => tx.set("any", `k${n}`, n))), "BackpressureError"],
          [client.orMap("any"), "MapKindMismatch"],
          [client.counter("todos"), "MapKindMismatch"]
        ]
        for (const [effect, tag] of refused) expect(yield* faultOf(effect), tag).toMatchObject({ _tag: tag })
        expect([todos.size, any.size, tags.size, likes.current, client.status().pending]).toEqual([0, 0, 0, 0, 0])
      }).pipe(Effect.scoped, inWorld()))

    it.live("tells of changes, local and remote, of every kind", () =>
      Effect.gen(function*() {
        const clock = yield* VirtualClock.VirtualClock
        yield* World.startServer()
        const alice = yield* open("alice")
        const bob = yield* open("bob")
        const heard: Array<unknown> = []
        const hear = (what: unknown) => void heard.push(what)
        const todos = yield* alice.map(Todos)
        const tags = yield* alice.orMap(Tags)
        const likes = yield* alice.counter(Likes)
        const stop = new AbortController()
        todos.subscribe(hear, { signal: stop.signal })
        tags.subscribe(hear, { signal: stop.signal })
        likes.subscribe(hear, { signal: stop.signal })
        todos.live("1").subscribe((value) => hear(value?.text), { signal: stop.signal })
        yield* todos.set("1", { text: "milk" })
        yield* (yield* bob.orMap(Tags)).add("1", "new")
        yield* clock.runUntil(() => tags.has("1"))
        yield* (yield* bob.counter(Likes)).increment(2)
        yield* clock.runUntil(() => likes.current === 2)
        stop.abort()
        yield* todos.set("1", { text: "unheard" })
        expect(heard).toEqual([
          [{ key: "1", value: { text: "milk" }, previous: undefined, origin: "local" }],
          "milk",
          [{ key: "1", value: ["new"], previous: [], origin: "remote" }],
          2
        ])
      }).pipe(Effect.scoped, inWorld()))

    it.live("is acknowledged, or told why not", () =>
      Effect.gen(function*() {
        const clock = yield* VirtualClock.VirtualClock
        const alice = yield* open("alice", { autoConnect: false })
        const todos = yield* alice.map(Todos)
        const early = yield* todos.set("1", { text: "a" }, { timeoutMs: 60_000 })
        yield* todos.set("1", { text: "b" }, { timeoutMs: 60_000 })
        const late = yield* Effect.fork(faultOf((yield* todos.set("2", { text: "c" }, { timeoutMs: 1_000 })).server))
        const superseded = yield* Effect.fork(early.server)
        yield* clock.advance("2 seconds")
        expect(yield* Fiber.join(late)).toMatchObject({ _tag: "WriteTimeout", concern: "APPLIED" })
        yield* World.startServer()
        const connecting = yield* Effect.fork(alice.connect)
        yield* clock.runUntil(() => alice.status().pending === 0 && alice.status().state === "CONNECTED")
        yield* Fiber.join(connecting)
        expect(yield* Fiber.join(superseded)).toMatchObject({ level: "APPLIED", superseded: true })
        const refused = yield* Effect.fork(
          faultOf((yield* todos.set("3", { text: "d" }, { writeConcern: "REPLICATED" })).server)
        )
        yield* clock.runUntil(() => alice.status().rejected === 1)
        expect(yield* Fiber.join(refused)).toMatchObject({ _tag: "WriteRejected", map: "todos", key: "3" })
        expect(todos.has("3")).toBe(false)
      }).pipe(Effect.scoped, inWorld()))

    it.live("keeps rejected writes: to export, to try again, to discard", () =>
      Effect.gen(function*() {
        const clock = yield* VirtualClock.VirtualClock
        yield* World.startServer()
        const alice = yield* open("alice")
        const any = yield* alice.map<unknown>("any")
        const likes = yield* alice.counter(Likes)
        // One node can't replicate.
        const concern = { writeConcern: "REPLICATED" } as const
        const value = { at: new Date(5), bytes: Uint8Array.of(1, 2), big: 7n }
        yield* any.set("1", value, { ...concern, ttlMs: 60_000 })
        yield* any.remove("2", concern)
        yield* likes.increment(4, concern)
        yield* clock.runUntil(() => alice.status().rejected === 3)
        const rows = alice.exported().trimEnd().split("\n").map((line) => JSON.parse(line))
        expect(rows).toMatchObject([
          {
            map: "any",
            kind: "lww",
            key: "1",
            change: "set",
            value: { at: "1970-01-01T00:00:00.005Z", bytes: "AQI=", big: "7" },
            ttlMs: 60_000
          },
          { map: "any", key: "2", change: "remove" },
          { map: "likes", kind: "counter", change: "count", value: 4 }
        ])
        expect(Value.decode(Buffer.from(rows[0].encoded, "base64"))).toEqual(value)
        const [set, removal, count] = alice.rejected()
        yield* alice.discard(removal!.id)
        yield* alice.retry(set!.id)
        yield* alice.retry(count!.id)
        expect([any.get("1"), likes.current]).toEqual([value, 4])
        yield* clock.runUntil(() => alice.status().pending === 0)
        expect([alice.rejected(), alice.exported()]).toEqual([[], ""])
      }).pipe(Effect.scoped, inWorld()))

    it.live("keeps a record of others that doesn't fit its schema, flags it and tells of it", () =>
      Effect.gen(function*() {
        const clock = yield* VirtualClock.VirtualClock
        yield* World.startServer()
        const bob = yield* open("bob")
        const his = yield* bob.map<unknown>("todos")
        const hisTags = yield* bob.orMap<unknown>("tags")
        for (let n = 0; n < 20; n++) yield* his.set(`old ${n}`, { title: n })
        yield* his.set("fine", { text: "milk" })
        yield* hisTags.add("post", "fine")
        yield* hisTags.add("post", 7)
        yield* clock.runUntil(() => bob.status().pending === 0)
        const faults: Array<unknown> = []
        const alice = yield* open("alice", { grid: [Tags], onError: (fault) => void faults.push(fault) })
        const todos = yield* alice.map(Todos)
        const tags = yield* alice.orMap(Tags)
        yield* clock.runUntil(() => todos.size === 21 && tags.getValues("post").length === 2)
        yield* clock.advance("1 second")
        expect(todos.get("old 3")).toEqual({ title: 3 })
        expect(todos.issues("old 3")).toContain("text")
        expect([todos.issues("fine"), todos.issues("nothing")]).toEqual([undefined, undefined])
        expect(tags.issues("post")).toContain("7")
        const told = (faults as ReadonlyArray<{ readonly map: string; readonly count: number }>)
          .filter((fault) => (fault as { readonly _tag?: string })._tag === "RecordsMisfit")
        expect(told).toHaveLength(faults.length)
        const countOf = (map: string) =>
          told.filter((fault) => fault.map === map).reduce((sum, { count }) => sum + count, 0)
        expect([countOf("todos"), countOf("tags")]).toEqual([20, 1])
        faults.length = 0
        yield* his.set("new", { title: "x" })
        yield* clock.runUntil(() => todos.has("new"))
        yield* clock.advance("1 second")
        expect(faults).toMatchObject([{ _tag: "RecordsMisfit", map: "todos", count: 1, keys: ["new"] }])
        // What this device writes itself is refused before, and what it can't read it doesn't tell of twice.
        yield* todos.set("new", { text: "x" })
        yield* clock.advance("1 second")
        expect(faults).toHaveLength(1)
      }).pipe(Effect.scoped, inWorld()))

    it.live("connects, disconnects, begins anew and says where it stands", () =>
      Effect.gen(function*() {
        // The clock doesn't see how modules are loaded: this one is, when it's asked for.
        yield* Effect.promise(() => import("@topgun/client/Calls"))
        const clock = yield* VirtualClock.VirtualClock
        yield* World.startServer()
        const alice = yield* open("alice", { autoConnect: false })
        const todos = yield* alice.map(Todos)
        yield* todos.set("1", { text: "milk" })
        expect(alice.status()).toMatchObject({ state: "DISCONNECTED", pending: 1, hasSynced: false })
        const synced = yield* Effect.fork(alice.synced)
        yield* alice.connect
        yield* clock.runUntil(() => alice.status().state === "CONNECTED")
        yield* Fiber.join(synced)
        expect(alice.status()).toMatchObject({ pending: 0, hasSynced: true, failure: undefined })
        const status = yield* Effect.fork(alice.serverStatus)
        yield* clock.advance("1 second")
        expect(yield* Fiber.join(status)).toMatchObject({ maps: [{ name: "todos", size: 1, root: todos.digest }] })
        yield* alice.resetConnection
        expect(alice.status().state).not.toBe("CONNECTED")
        yield* clock.runUntil(() => alice.status().state === "CONNECTED")
        yield* alice.disconnect
        expect(alice.status().state).toBe("DISCONNECTED")
        expect(Either.isLeft(yield* Effect.either(alice.serverStatus))).toBe(true)
      }).pipe(Effect.scoped, inWorld()))

    it.live("says of each map whether it's in step, or ever was", () =>
      Effect.gen(function*() {
        const clock = yield* VirtualClock.VirtualClock
        const server = yield* World.startServer({ subscriptionsMax: 2 })
        const device = Storage.memory()
        const alice = yield* open("alice", { autoConnect: false }, device)
        const todos = yield* alice.map(Todos)
        const likes = yield* alice.counter(Likes)
        const seen: Array<unknown> = []
        todos.status.subscribe(({ isSynced }) => void seen.push(isSynced))
        const before = todos.status.current
        expect(before).toEqual({ isSynced: false, hasSynced: false, refusal: undefined })
        expect(todos.status.current).toBe(before)
        yield* alice.connect
        yield* clock.runUntil(() => alice.status().state === "CONNECTED")
        expect([todos.status.current, likes.status.current].map(({ isSynced }) => isSynced)).toEqual([true, true])
        // Of what is opened later the connection's state says nothing.
        const late = yield* alice.map("late")
        expect([alice.status().state, late.status.current.isSynced]).toEqual(["CONNECTED", false])
        yield* clock.advance("1 second")
        expect(late.status.current).toMatchObject({ isSynced: false, hasSynced: false })
        expect(late.status.current.refusal).toContain("maps open")
        yield* server.stop
        yield* clock.runUntil(() => !todos.status.current.isSynced)
        expect(todos.status.current).toEqual({ isSynced: false, hasSynced: true, refusal: undefined })
        expect(seen).toEqual([true, false])
        yield* alice.close
        const again = yield* open("alice", { autoConnect: false }, device)
        const map = yield* again.map(Todos)
        expect(map.status.current).toMatchObject({ isSynced: false, hasSynced: true })
        expect(again.status()).toMatchObject({ hasSynced: true, lastSyncedAt: alice.status().lastSyncedAt })
        expect(again.status().lastSyncedAt).toBeTypeOf("number")
      }).pipe(Effect.scoped, inWorld()))

    it.live("sends what is written to a map that is only written to, and downloads nothing of it", () =>
      Effect.gen(function*() {
        const clock = yield* VirtualClock.VirtualClock
        yield* World.startServer()
        const bob = yield* open("bob")
        const his = yield* bob.map<string>("log")
        yield* his.set("bob", "1")
        const Log = Grid.map("log", Schema.String, { sync: "none" })
        const device = Storage.memory()
        const alice = yield* open("alice", { grid: [Log] }, device)
        const hers = yield* alice.map(Log)
        yield* hers.set("alice", "1")
        yield* clock.runUntil(() => his.has("alice") && alice.status().pending === 0)
        yield* his.set("bob", "2")
        yield* clock.advance("1 minute")
        expect(alice.status().state).toBe("CONNECTED")
        expect(Object.fromEntries(hers)).toEqual({ alice: "1" })
        expect(hers.status.current.isSynced).toBe(false)
        yield* alice.close
        // A name says nothing of how a map is kept; another declaration does.
        const again = yield* open("alice", {}, device)
        const named = yield* again.map<string>("log")
        yield* clock.runUntil(() => again.status().state === "CONNECTED")
        yield* clock.advance("1 second")
        expect(named.size).toBe(1)
        const whole = yield* again.map(Grid.map("log", Schema.String))
        yield* clock.runUntil(() => whole.size === 2, { within: "5 seconds" })
        expect(whole.status.current.isSynced).toBe(true)
      }).pipe(Effect.scoped, inWorld()))

    it.live("gives values the lifetime of their map, unless the write says another", () =>
      Effect.gen(function*() {
        const clock = yield* VirtualClock.VirtualClock
        const alice = yield* open("alice", { autoConnect: false })
        const codes = yield* alice.map(Grid.map("codes", Schema.String, { ttlMs: 10_000 }))
        const tags = yield* alice.orMap(Grid.orMap("marks", Schema.String, { ttlMs: 10_000 }))
        yield* codes.set("short", "1")
        yield* codes.set("long", "1", { ttlMs: 20_000 })
        yield* codes.update("updated", () => "1")
        yield* tags.add("k", "1")
        yield* alice.batch((tx) => tx.set(codes, "batched", "1"))
        yield* clock.advance("9 seconds")
        expect([codes.size, tags.getValues("k")]).toEqual([4, ["1"]])
        yield* clock.advance("2 seconds")
        expect([[...codes.keys()], tags.getValues("k")]).toEqual([["long"], []])
        const wrong = yield* alice.map(Grid.map("codes", Schema.String, { ttlMs: -1 }))
        expect(yield* faultOf(wrong.set("k", "1"))).toMatchObject({ _tag: "ValueNotSupported", path: "ttlMs" })
      }).pipe(Effect.scoped, inWorld()))

    it.live("joins records that were made elsewhere, under their own stamps", () =>
      Effect.gen(function*() {
        const clock = yield* VirtualClock.VirtualClock
        const server = yield* World.startServer()
        const elsewhere = yield* open("elsewhere", { autoConnect: false })
        const theirs = yield* elsewhere.map(Todos)
        yield* theirs.set("1", { text: "early" })
        yield* theirs.set("2", { text: "early" })
        const early = theirs.getRecord("1")!
        yield* clock.advance("1 minute")
        const alice = yield* open("alice", { autoConnect: false })
        const todos = yield* alice.map(Todos)
        yield* todos.set("1", { text: "late" })
        yield* todos.merge("1", early)
        yield* todos.merge("2", theirs.getRecord("2")!)
        expect(alice.status().pending).toBe(2)
        expect([todos.get("1"), todos.get("2")]).toEqual([{ text: "late" }, { text: "early" }])
        expect(todos.getRecord("2")!.row).toEqual(theirs.getRecord("2")!.row)
        yield* alice.connect
        yield* clock.runUntil(() => alice.status().state === "CONNECTED")
        expect((yield* server.status).maps[0]).toMatchObject({ size: 2, root: todos.digest })

        yield* clock.advance("1 second")
        const row = LwwRecord.put(
          { ...early.stamp, millis: clock.unsafeCurrentTimeMillis() + 61_000 },
          Value.encode({ text: "x" })
        ).row
        expect(yield* faultOf(todos.merge("3", { row }))).toMatchObject({ _tag: "ClockSkewTooLarge" })
        expect(yield* faultOf(todos.merge("3", { row: row.slice(0, 9) }))).toMatchObject({ _tag: "MalformedMessage" })
        const misfit = LwwRecord.put(early.stamp, Value.encode(1)).row
        expect(yield* faultOf(todos.merge("3", { row: misfit }))).toMatchObject({ _tag: "SchemaMismatch" })
        expect(todos.has("3")).toBe(false)
      }).pipe(Effect.scoped, inWorld()))
  })
}
