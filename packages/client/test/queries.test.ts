/** Queries, as both forms of the client ask them: of maps that are here, and of maps that only the server has. */
import { describe, it } from "@effect/vitest"
import type * as ClientConfig from "@topgun/client/ClientConfig"
import * as Device from "@topgun/client/Device"
import { layer as layerConfig } from "@topgun/client/ClientConfig"
import * as Grid from "@topgun/core/Grid"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as Protocol from "@topgun/core/Protocol"
import * as Query from "@topgun/core/Query"
import * as Storage from "@topgun/core/Storage"
import { Transport } from "@topgun/core/Transport"
import * as Value from "@topgun/core/Value"
import * as Authentication from "@topgun/server/Authentication"
import * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as SimulatedTabs from "@topgun/testing/SimulatedTabs"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { expect, expectTypeOf } from "vitest"
import { makeClient } from "../src/facade.ts"
import { OpenQuery } from "../src/OpenQuery.ts"
import { Queries } from "../src/Queries.ts"
import type {
  QueryDelta,
  QueryExplanation,
  QueryOptions,
  QueryState,
  SearchHit,
  SearchOptions
} from "../src/QueryTypes.ts"
import { inWorld } from "./worlds.ts"

const Todo = Schema.Struct({
  text: Schema.String,
  done: Schema.Boolean,
  n: Schema.Number,
  owner: Schema.optional(Schema.Struct({ id: Schema.String, name: Schema.String }))
})
type Todo = typeof Todo.Type
const Todos = Grid.map("todos", Todo, { indexes: ["done", ["done", "n"]], search: { text: 1 } })
/** A map that isn't downloaded. */
const Logs = Grid.map("logs", Todo, { sync: "none", indexes: ["n"], search: { text: 1 } })

const todo = (n: number, done = false, text = `todo ${n}`): Todo => ({ text, done, n })

// --- Both forms in one shape ---

interface Handle<A> {
  readonly current: () => QueryState<A>
  readonly subscribe: (listener: (state: QueryState<A>) => void) => () => void
  readonly changes: (listener: (delta: QueryDelta<A>) => void) => Effect.Effect<void, never, Scope.Scope>
  readonly fetchMore: (count?: number) => Effect.Effect<void, unknown>
  readonly close: Effect.Effect<void>
}

interface Client {
  readonly set: <A>(
    map: Grid.MapDeclaration<A>,
    key: string,
    value: A,
    ttlMs?: number
  ) => Effect.Effect<unknown, unknown>
  readonly remove: (map: Grid.MapDeclaration<unknown>, key: string) => Effect.Effect<unknown, unknown>
  readonly listen: <A>(map: Grid.MapDeclaration<A>, listener: () => void) => Effect.Effect<unknown, unknown>
  readonly batch: (
    write: (set: <A>(map: Grid.MapDeclaration<A>, key: string, value: A) => void) => void
  ) => Effect.Effect<unknown, unknown>
  readonly query: <A>(
    map: Grid.MapLike<A>,
    options?: QueryOptions<A>
  ) => Effect.Effect<Handle<unknown>, unknown, Scope.Scope>
  readonly search: <A>(
    map: Grid.MapLike<A>,
    text: string,
    options?: SearchOptions<A>
  ) => Effect.Effect<ReadonlyArray<SearchHit<A>>, unknown>
  readonly count: <A>(map: Grid.MapLike<A>, options?: QueryOptions<A>["where"]) => Effect.Effect<number, unknown>
  readonly explain: <A>(
    map: Grid.MapLike<A>,
    options?: QueryOptions<A>,
    server?: boolean
  ) => Effect.Effect<QueryExplanation, unknown>
  readonly isDone: () => boolean
  readonly connect: Effect.Effect<void, unknown>
  readonly disconnect: Effect.Effect<void, unknown>
  readonly logout: Effect.Effect<void, unknown>
}

type Options = Partial<Pick<ClientConfig.Config, "grid" | "autoConnect" | "onError" | "localOnly">> & {
  readonly auth?: string
}

type Open = (
  name: string,
  options?: Options
) => Effect.Effect<Client, unknown, Network.SimulatedNetwork | VirtualClock.VirtualClock | Scope.Scope>

const effectForm: Open = (name, options = {}) =>
  Effect.map(World.startClient(name, { grid: [Todos], ...options }), (client): Client => ({
    set: (map, key, value, ttlMs) =>
      Effect.flatMap(client.map(map), (handle) => handle.set(key, value, ttlMs === undefined ? {} : { ttlMs })),
    remove: (map, key) => Effect.flatMap(client.map(map), (handle) => handle.remove(key)),
    listen: (map, listener) => Effect.map(client.map(map), (handle) => handle.subscribe(listener)),
    batch: (write) => client.batch((tx) => write((map, key, value) => tx.set(map, key, value))),
    query: (map, asked) =>
      Effect.map(client.query(map, asked), (query) => ({
        current: () => query.current,
        subscribe: (listener) => query.subscribe(listener),
        changes: (listener) =>
          Effect.asVoid(
            Effect.forkScoped(Stream.runForEach(query.changes, (delta) => Effect.sync(() => listener(delta))))
          ),
        fetchMore: (count) => query.fetchMore(count),
        close: query.close
      })),
    search: (map, text, given) => client.search(map, text, given),
    count: (map, where) => client.count(map, where),
    explain: (map, asked, server) => client.explain(map, asked, { server }),
    isDone: () => client.status.current.state === "CONNECTED" && client.status.current.pending === 0,
    connect: client.connect,
    disconnect: client.disconnect,
    logout: client.logout({ unsent: "discard" })
  }))

/** What was thrown, to be held against what is expected. */
class Thrown extends Data.TaggedError("Thrown")<{ readonly fault: unknown }> {}

const promised = <A>(make: () => PromiseLike<A>): Effect.Effect<A, unknown> =>
  Effect.tryPromise({ try: async () => make(), catch: (fault) => new Thrown({ fault }) })

const promiseForm: Open = Effect.fnUntraced(function*(name, { localOnly, ...options } = {}) {
  const clock = yield* VirtualClock.VirtualClock
  const network = yield* Network.SimulatedNetwork
  const client = makeClient({ grid: [Todos], ...localOnly === true ? {} : { url: "ws://world" }, ...options }, {
    transport: network.layerTransport(name),
    platform: VirtualClock.layerOf(clock) as never
  })
  yield* Effect.addFinalizer(() => Effect.promise(() => client.close()))
  yield* promised(() => client.ready())
  return {
    set: (map, key, value, ttlMs) =>
      promised(() => client.map(map).set(key, value, ttlMs === undefined ? {} : { ttlMs })),
    remove: (map, key) => promised(() => client.map(map).remove(key)),
    listen: (map, listener) => Effect.sync(() => client.map(map).subscribe(listener)),
    batch: (write) => promised(() => client.batch((tx) => write((map, key, value) => tx.set(map, key, value)))),
    query: (map, asked) =>
      Effect.acquireRelease(
        Effect.try({ try: () => client.query(map, asked), catch: (fault) => new Thrown({ fault }) }),
        (query) => Effect.sync(() => query.close())
      ).pipe(Effect.map((query) => ({
        current: () => query.current,
        subscribe: (listener) => query.subscribe(listener),
        changes: (listener) =>
          Effect.asVoid(Effect.acquireRelease(Effect.sync(() => query.changes(listener)), (stop) => Effect.sync(stop))),
        fetchMore: (count) => promised(() => query.fetchMore(count)),
        close: Effect.sync(() => query.close())
      }))),
    search: (map, text, given) => promised(() => client.search(map, text, given)),
    count: (map, where) => promised(() => client.count(map, where)),
    explain: (map, asked, server) => promised(() => client.explain(map, asked, { server })),
    isDone: () => client.status.current.state === "CONNECTED" && client.status.current.pending === 0,
    connect: promised(() => client.connect()),
    disconnect: promised(() => client.disconnect()),
    logout: promised(() => client.logout({ unsent: "discard" }))
  }
})

/** What an effect fails or dies with. */
const faultOf = (effect: Effect.Effect<unknown, unknown, Scope.Scope>): Effect.Effect<unknown, never, Scope.Scope> =>
  Effect.map(
    Effect.merge(Effect.flip(Effect.catchAllDefect(effect, Effect.fail))),
    (fault) => fault instanceof Thrown ? fault.fault : fault
  )

const keysOf = ({ current }: Handle<unknown>): ReadonlyArray<string> => current().rows.map(({ key }) => key)

/** Runs an effect while the world goes on. */
const meanwhile = Effect.fnUntraced(function*<A, E, R>(effect: Effect.Effect<A, E, R>) {
  const clock = yield* VirtualClock.VirtualClock
  const fiber = yield* Effect.fork(effect)
  yield* clock.runUntil(() => fiber.unsafePoll() !== null)
  return yield* Fiber.join(fiber)
})

for (const [form, open] of [["Effect", effectForm], ["Promise", promiseForm]] as const) {
  const test = (
    behaviour: string,
    body: (
      clock: VirtualClock.VirtualClock["Type"]
    ) => Effect.Effect<void, unknown, Network.SimulatedNetwork | VirtualClock.VirtualClock | Scope.Scope>
  ) => it.live(behaviour, () => Effect.flatMap(VirtualClock.VirtualClock, body).pipe(Effect.scoped, inWorld()))

  describe(`a query of what is here, in the ${form} form`, () => {
    test("is answered at once, and is right as soon as something was written", () =>
      Effect.gen(function*() {
        const client = yield* open("alice", { localOnly: true, autoConnect: false })
        for (const n of [3, 1, 2, 4]) yield* client.set(Todos, `${n}`, todo(n, n === 4))
        const query = yield* client.query(Todos, { where: { done: false }, orderBy: [{ field: "n" }], limit: 2 })
        expect(query.current()).toMatchObject({ status: "ready", isComplete: true, hasMore: true })
        expect(keysOf(query)).toEqual(["1", "2"])
        const writing = yield* Effect.fork(client.set(Todos, "0", todo(0)))
        yield* Effect.yieldNow()
        expect(keysOf(query)).toEqual(["0", "1"])
        yield* Fiber.join(writing)
        yield* client.remove(Todos, "1")
        expect(keysOf(query)).toEqual(["0", "2"])
        yield* client.set(Todos, "0", todo(9))
        expect(keysOf(query)).toEqual(["2", "3"])
        yield* client.set(Todos, "2", todo(2, true))
        expect(query.current()).toMatchObject({ hasMore: false, rows: [{ key: "3" }, { key: "0" }] })
        yield* query.close
        yield* client.set(Todos, "5", todo(-1))
        expect(keysOf(query)).toEqual(["3", "0"])
      }))

    test("keeps what it shows the same object for as long as it is the same", () =>
      Effect.gen(function*() {
        const client = yield* open("alice", { localOnly: true, autoConnect: false })
        for (const n of [1, 2]) yield* client.set(Todos, `${n}`, todo(n))
        const query = yield* client.query(Todos, { where: { done: false } })
        const selected = yield* client.query(Todos, { where: { done: false }, select: ["text"] })
        const [before, beforeSelected] = [query.current(), selected.current()]
        expect(beforeSelected.rows).toEqual([{ key: "1", value: { text: "todo 1" } }, {
          key: "2",
          value: { text: "todo 2" }
        }])
        yield* client.set(Todos, "3", todo(3, true))
        expect(query.current()).toBe(before)
        yield* client.set(Todos, "2", { ...todo(2), n: 7 })
        const after = query.current()
        expect(after.rows).not.toBe(before.rows)
        expect(after.rows[0]).toBe(before.rows[0])
        expect(after.rows[1]).not.toBe(before.rows[1])
        // What is selected is the same.
        expect(selected.current()).toBe(beforeSelected)
        expect(Object.isFrozen(after.rows) && Object.isFrozen(after.rows[0])).toBe(true)
      }))

    test("tells of each tick once, and of nothing that it doesn't show", (clock) =>
      Effect.gen(function*() {
        const client = yield* open("alice", { localOnly: true, autoConnect: false })
        const query = yield* client.query(Todos, { where: { done: false } })
        const seen: Array<ReadonlyArray<string>> = []
        query.subscribe(({ rows }) => void seen.push(rows.map(({ key }) => key)))
        yield* client.batch((set) => {
          for (const n of [1, 2, 3]) set(Todos, `${n}`, todo(n))
        })
        yield* client.set(Todos, "4", todo(4, true))
        yield* clock.settle
        expect(seen).toEqual([["1", "2", "3"]])
      }))

    test("tells of changes that make of the rows before the rows after, in versions without a gap", (clock) =>
      Effect.gen(function*() {
        const client = yield* open("alice", { localOnly: true, autoConnect: false })
        yield* client.set(Todos, "0", todo(0))
        const query = yield* client.query(Todos, {
          where: { done: false },
          orderBy: [{ field: "n", direction: "desc" }],
          limit: 3
        })
        const rows = new Map<string, unknown>()
        const deltas: Array<QueryDelta<unknown>> = []
        yield* query.changes((delta) => {
          deltas.push(delta)
          for (const change of delta.changes) {
            expect(rows.has(change.key)).toBe(change.type !== "enter")
            if (change.type === "leave") rows.delete(change.key)
            else rows.set(change.key, change.value)
          }
        })
        yield* clock.settle
        const steps: ReadonlyArray<readonly [key: string, value: Todo | undefined]> = [
          ["1", todo(1)],
          ["2", todo(2)],
          ["3", todo(3)],
          ["0", todo(5)],
          ["2", todo(4)],
          ["2", { ...todo(4), text: "other" }],
          ["3", todo(3, true)],
          ["0", undefined]
        ]
        for (const [key, value] of steps) {
          yield* value === undefined ? client.remove(Todos, key) : client.set(Todos, key, value)
          yield* clock.settle
          expect(rows).toEqual(new Map(query.current().rows.map((row) => [row.key, row.value])))
        }
        expect(deltas[0]).toMatchObject({ after: 0, changes: [{ type: "enter", key: "0" }] })
        deltas.forEach(({ after }, i) => expect(after).toBe(deltas[i - 1]?.version ?? 0))
        expect(new Set(deltas.flatMap(({ changes }) => changes.map(({ type }) => type)))).toEqual(
          new Set(["enter", "leave", "move", "update"])
        )
      }))

    test("is of one step with what listeners of any map are told of", () =>
      Effect.gen(function*() {
        const Others = Grid.map<Todo>("others", Todo)
        const client = yield* open("alice", { localOnly: true, autoConnect: false, grid: [Others, Todos] })
        const query = yield* client.query(Todos)
        const seen: Array<ReadonlyArray<string>> = []
        yield* client.listen(Others, () => void seen.push(keysOf(query)))
        yield* client.batch((set) => {
          set(Others, "1", todo(1))
          set(Todos, "2", todo(2))
        })
        expect(seen).toEqual([["2"]])
      }))

    test("loses what expires, at its time", (clock) =>
      Effect.gen(function*() {
        const client = yield* open("alice", { localOnly: true, autoConnect: false })
        yield* client.set(Todos, "1", todo(1), 1_000)
        yield* client.set(Todos, "2", todo(2))
        const query = yield* client.query(Todos)
        expect(keysOf(query)).toEqual(["1", "2"])
        yield* clock.advance(1_001)
        expect(keysOf(query)).toEqual(["2"])
      }))

    test("grows, and goes on where another ended", () =>
      Effect.gen(function*() {
        const client = yield* open("alice", { localOnly: true, autoConnect: false })
        for (let n = 0; n < 9; n++) yield* client.set(Todos, `${n}`, todo(n))
        const query = yield* client.query(Todos, { orderBy: [{ field: "n" }], limit: 2 })
        const [first] = query.current().rows
        const next = yield* client.query(Todos, { orderBy: [{ field: "n" }], limit: 2, cursor: query.current().cursor })
        expect(keysOf(next)).toEqual(["2", "3"])
        yield* query.fetchMore()
        expect(keysOf(query)).toEqual(["0", "1", "2", "3"])
        expect(query.current().rows[0]).toBe(first)
        yield* query.fetchMore(3)
        expect(keysOf(query)).toHaveLength(7)
        expect(query.current().hasMore).toBe(true)
        yield* query.fetchMore(10)
        expect(query.current()).toMatchObject({ hasMore: false, rows: { length: 9 } })
        expect(query.current().cursor).toBeUndefined()
        for (const count of [0, 0.5, Number.NaN, Query.limitMax]) {
          expect(yield* faultOf(query.fetchMore(count))).toMatchObject({ _tag: "QueryInvalid", path: "$.limit" })
        }
        const whole = yield* client.query(Todos)
        yield* whole.fetchMore()
        expect(keysOf(whole)).toHaveLength(9)
      }))

    test("that is none is refused at once, with the place of what is wrong", () =>
      Effect.gen(function*() {
        const client = yield* open("alice", { localOnly: true, autoConnect: false })
        const wrong: ReadonlyArray<readonly [asked: object, path: string]> = [
          [{ where: { n: { gt: {} } } }, "$.where.n.gt"],
          [{ limit: 0 }, "$.limit"],
          [{ cursor: "none" }, "$.cursor"],
          [{ orderBy: [] }, "$.orderBy"],
          [{ order: [] }, "$.order"]
        ]
        for (const [asked, path] of wrong) {
          expect(yield* faultOf(client.query("todos", asked))).toMatchObject({ _tag: "QueryInvalid", path })
        }
        const long = { where: { text: { regex: "a{1000}{1000}" } } }
        expect(yield* faultOf(client.query("todos", long))).toMatchObject({ _tag: "QueryTooExpensive" })
      }))

    test("says whether it is complete: in step with the server, and not offline", (clock) =>
      Effect.gen(function*() {
        const network = yield* Network.SimulatedNetwork
        const client = yield* open("alice")
        const query = yield* client.query(Todos)
        const seen: Array<boolean> = []
        query.subscribe(({ isComplete }) => void seen.push(isComplete))
        expect(query.current()).toMatchObject({ status: "ready", isComplete: false })
        yield* World.startServer()
        yield* clock.runUntil(client.isDone)
        expect(query.current().isComplete).toBe(true)
        network.reset("alice")
        network.cut("alice")
        yield* clock.advance(100)
        expect(query.current().isComplete).toBe(false)
        network.heal("alice")
        yield* clock.runUntil(client.isDone)
        yield* clock.advance(0)
        expect(seen).toEqual([true, false, true])
      }))

    test("finds by regular expressions and by words, once what it takes is there", (clock) =>
      Effect.gen(function*() {
        const client = yield* open("alice", { localOnly: true, autoConnect: false })
        yield* client.set(Todos, "1", todo(1, false, "fresh milk"))
        yield* client.set(Todos, "2", todo(2, false, "milk, milk and milk"))
        yield* client.set(Todos, "3", todo(3, false, "bread"))
        const byRegex = yield* client.query(Todos, { where: { text: { regex: "^(fresh|b)" } } })
        const byWords = yield* client.query(Todos, { search: "milk" })
        yield* clock.runUntil(() => [byRegex, byWords].every(({ current }) => current().status === "ready"))
        expect(keysOf(byRegex)).toEqual(["1", "3"])
        expect(keysOf(byWords)).toEqual(["2", "1"])
        const [best, other] = byWords.current().rows
        expect(best!.score).toBeGreaterThan(other!.score!)
        yield* client.set(Todos, "3", todo(3, false, "milk milk milk"))
        expect(keysOf(byWords)).toEqual(["3", "2", "1"])
        expect(yield* faultOf(client.query("unsearched", { search: "milk" }))).toMatchObject({
          _tag: "QueryInvalid",
          path: "$.search"
        })
      }))

    test("counts and explains", () =>
      Effect.gen(function*() {
        const client = yield* open("alice", { localOnly: true, autoConnect: false })
        for (let n = 0; n < 100; n++) yield* client.set(Todos, `${n}`, todo(n, n % 50 === 0))
        expect(yield* client.count(Todos)).toBe(100)
        expect(yield* client.count(Todos, { done: true })).toBe(2)
        expect(yield* client.explain(Todos, { where: { done: true } })).toMatchObject({
          plan: "index",
          candidates: 2,
          records: 100,
          ties: ["done"]
        })
        expect(yield* client.explain(Todos, { where: { text: { startsWith: "x" } } })).toMatchObject({ plan: "scan" })
        expect(yield* faultOf(client.count("todos", { n: { between: 1 } } as never))).toMatchObject({
          _tag: "QueryInvalid"
        })
      }))

    test("shows nothing more of a user who was logged out", () =>
      Effect.gen(function*() {
        const client = yield* open("alice", { localOnly: true, autoConnect: false })
        yield* client.set(Todos, "1", todo(1))
        const query = yield* client.query(Todos)
        expect(keysOf(query)).toEqual(["1"])
        yield* client.logout
        expect(query.current()).toMatchObject({ rows: [], status: "error", error: { _tag: "ClientClosed" } })
      }))
  })

  /** What lies between a client and a server, and what has passed. */
  const tapped = (sent: Array<Protocol.ClientMessage>): World.Between => (connection) => ({
    ...connection,
    listen: (onFrame, onClose) =>
      connection.listen((frame) => {
        sent.push(...Protocol.decodeFromClient(new Uint8Array(frame)))
        onFrame(frame)
      }, onClose)
  })
  const opens = (sent: ReadonlyArray<Protocol.ClientMessage>) => sent.filter(({ _tag }) => _tag === "QueryOpen")

  describe(`a query of what the server has, in the ${form} form`, () => {
    /** A map of others' on a server, and one who asks. */
    const asking = Effect.fnUntraced(function*(
      clock: VirtualClock.VirtualClock["Type"],
      asked: QueryOptions<Todo> = {}
    ) {
      const network = yield* Network.SimulatedNetwork
      const sent: Array<Protocol.ClientMessage> = []
      const server = yield* World.startServer({ grid: [Logs] }, tapped(sent))
      const bob = yield* World.startClient("bob")
      const theirs = yield* bob.map<Todo>("logs")
      for (let n = 0; n < 5; n++) yield* theirs.set(`${n}`, todo(n))
      const alice = yield* open("alice")
      const query = yield* alice.query(Logs, { where: { done: false }, orderBy: [{ field: "n" }], ...asked })
      const quiet = Effect.zipRight(
        clock.runUntil(() => alice.isDone() && bob.status.current.pending === 0),
        clock.advance(1_000)
      )
      return { network, sent, server, theirs, alice, query, quiet }
    })

    test("shows the server's rows as they come, change and go, and says when they are all", (clock) =>
      Effect.gen(function*() {
        const { query, quiet, theirs } = yield* asking(clock, { limit: 3 })
        expect(query.current()).toMatchObject({ isComplete: false, rows: [] })
        const rows = new Map<string, unknown>()
        yield* query.changes(({ changes }) => {
          for (const change of changes) {
            if (change.type === "leave") rows.delete(change.key)
            else rows.set(change.key, change.value)
          }
        })
        yield* quiet
        expect(query.current()).toMatchObject({ isComplete: true, hasMore: true })
        expect(keysOf(query)).toEqual(["0", "1", "2"])
        yield* theirs.set("1", todo(1, true))
        yield* theirs.set("9", todo(-1))
        yield* theirs.remove("0")
        yield* quiet
        expect(keysOf(query)).toEqual(["9", "2", "3"])
        expect(new Set(rows.keys())).toEqual(new Set(["9", "2", "3"]))
        yield* meanwhile(query.fetchMore())
        expect(query.current()).toMatchObject({ isComplete: true, hasMore: false })
        expect(keysOf(query)).toEqual(["9", "2", "3", "4"])
      }))

    test("shows what is written here at once, and what the server makes of it", (clock) =>
      Effect.gen(function*() {
        const { alice, network, query, quiet, theirs } = yield* asking(clock)
        yield* quiet
        const seen: Array<string> = []
        query.subscribe(({ rows }) => void seen.push(rows.map(({ key }) => key).join("")))
        yield* alice.set(Logs, "own", todo(2.5))
        yield* alice.remove(Logs, "0")
        yield* alice.set(Logs, "4", todo(0.5))
        const written = query.current()
        expect(keysOf(query)).toEqual(["4", "1", "2", "own", "3"])
        yield* clock.settle
        const told = seen.length
        yield* quiet
        // Neither the acknowledgement nor the rows that it is in change anything, not even for a moment.
        expect(query.current()).toBe(written)
        expect(seen).toHaveLength(told)
        // What others make of one's own write counts, once the server has both.
        yield* theirs.set("own", todo(2.5, true))
        yield* quiet
        expect(keysOf(query)).toEqual(["4", "1", "2", "3"])
        network.cut("alice")
        yield* alice.set(Logs, "own", todo(7))
        yield* alice.remove(Logs, "4")
        expect(keysOf(query)).toEqual(["1", "2", "3", "own"])
        network.heal("alice")
        yield* quiet
        expect(keysOf(query)).toEqual(["1", "2", "3", "own"])
      }))

    test("gives one's own write up for a later one of another's, of which the server has nothing to say", (clock) =>
      Effect.gen(function*() {
        const { alice, network, query, quiet, theirs } = yield* asking(clock)
        yield* quiet
        network.cut("alice")
        yield* alice.set(Logs, "own", todo(9))
        yield* clock.advance(1_000)
        yield* theirs.set("own", todo(9, true))
        yield* clock.advance(1_000)
        expect(keysOf(query)).toContain("own")
        network.heal("alice")
        yield* quiet
        expect(query.current().isComplete).toBe(true)
        expect(keysOf(query)).not.toContain("own")
      }))

    test("keeps its rows without a connection, and has them anew with the next", (clock) =>
      Effect.gen(function*() {
        const { alice, network, query, quiet, theirs } = yield* asking(clock)
        yield* quiet
        network.cut("alice")
        network.reset("alice")
        yield* clock.advance(100)
        expect(query.current()).toMatchObject({ status: "ready", isComplete: false })
        expect(keysOf(query)).toEqual(["0", "1", "2", "3", "4"])
        yield* theirs.remove("2")
        yield* clock.advance(1_000)
        const [first] = query.current().rows
        network.heal("alice")
        yield* clock.runUntil(() => query.current().isComplete)
        expect(keysOf(query)).toEqual(["0", "1", "3", "4"])
        expect(query.current().rows[0]!.value).toEqual(first!.value)
        expect(alice.isDone()).toBe(true)
      }))

    test("is one question for all who ask the same, and none any more when the last is closed", (clock) =>
      Effect.gen(function*() {
        const { alice, query, quiet, sent } = yield* asking(clock)
        const other = yield* alice.query(Logs, { where: { done: false }, orderBy: [{ field: "n" }] })
        yield* quiet
        expect(keysOf(other)).toEqual(keysOf(query))
        expect(opens(sent)).toHaveLength(1)
        yield* other.close
        yield* quiet
        expect(sent.filter(({ _tag }) => _tag === "QueryClose")).toHaveLength(0)
        yield* query.close
        yield* quiet
        expect(sent.filter(({ _tag }) => _tag === "QueryClose")).toHaveLength(1)
      }))

    test("shows the fields that are selected, and is ordered by others", (clock) =>
      Effect.gen(function*() {
        const { query, quiet, theirs } = yield* asking(clock, {
          orderBy: [{ field: "n", direction: "desc" }],
          select: ["text"],
          limit: 2
        })
        yield* quiet
        expect(query.current().rows).toEqual([
          { key: "4", value: { text: "todo 4" } },
          { key: "3", value: { text: "todo 3" } }
        ])
        const before = query.current()
        yield* theirs.set("4", { ...todo(8), text: "todo 4" })
        yield* quiet
        expect(query.current()).toBe(before)
      }))

    test("finds words by the server's scores", (clock) =>
      Effect.gen(function*() {
        const { alice, quiet, theirs } = yield* asking(clock)
        yield* theirs.set("a", todo(1, false, "milk"))
        yield* theirs.set("b", todo(2, false, "milk and bread"))
        const query = yield* alice.query(Logs, { search: "milk" })
        yield* quiet
        expect(keysOf(query)).toEqual(["a", "b"])
        expect(query.current().rows[0]!.score).toBeGreaterThan(query.current().rows[1]!.score!)
        yield* alice.remove(Logs, "a")
        expect(keysOf(query)).toEqual(["b"])
        yield* quiet
        expect(keysOf(query)).toEqual(["b"])
      }))

    test("searches by a call, with the server's scores, and shows where the words are", (clock) =>
      Effect.gen(function*() {
        const { alice, quiet, theirs } = yield* asking(clock)
        yield* theirs.set("a", todo(1, false, "bread and milk"))
        yield* theirs.set("b", todo(2, false, "milk"))
        yield* quiet
        const hits = yield* meanwhile(alice.search(Logs, "mil", { limit: 5 }))
        expect(hits.map(({ key, value }) => [key, value.text])).toEqual([["b", "milk"], ["a", "bread and milk"]])
        expect(hits[0]!.score).toBeGreaterThan(hits[1]!.score)
        expect(hits[1]!.highlights).toEqual([{ field: "text", element: undefined, ranges: [[10, 14]] }])
        expect(yield* meanwhile(alice.search(Logs, "mil", { prefix: false }))).toEqual([])
        yield* alice.disconnect
        expect(yield* meanwhile(faultOf(alice.search(Logs, "milk")))).toMatchObject({ _tag: "ConnectionLost" })
      }))

    test("counts and explains by calls, and says that it can't without a connection", (clock) =>
      Effect.gen(function*() {
        const { alice, quiet } = yield* asking(clock)
        yield* quiet
        expect(yield* meanwhile(alice.count(Logs, { n: { gt: 2 } }))).toBe(2)
        expect(yield* meanwhile(alice.explain(Logs, { where: { n: 1 } }, true))).toMatchObject({
          plan: "index",
          records: 5,
          ties: ["n"]
        })
        // This device has nothing of it.
        expect(yield* alice.explain(Logs, { where: { n: 1 } })).toMatchObject({ records: 0 })
        yield* alice.disconnect
        expect(yield* meanwhile(faultOf(alice.count(Logs)))).toMatchObject({ _tag: "ConnectionLost" })
      }))

    test("that the server refuses says why, and loses the server's rows", (clock) =>
      Effect.gen(function*() {
        const { alice, quiet } = yield* asking(clock)
        yield* alice.set(Logs, "own", todo(1, true))
        const query = yield* alice.query(Logs, { limit: 1_000_000 })
        yield* quiet
        expect(query.current()).toMatchObject({
          status: "error",
          isComplete: false,
          error: { _tag: "QueryTooExpensive", path: "$.limit", retryable: false },
          rows: [{ key: "own" }]
        })
        const few = yield* alice.query(Logs, { limit: 2 })
        yield* quiet
        const fault = yield* meanwhile(faultOf(few.fetchMore(999_990)))
        expect(fault).toMatchObject({ _tag: "QueryTooExpensive" })
        expect(few.current()).toMatchObject({ status: "ready", isComplete: true, rows: { length: 2 } })
      }))
  })
}

// --- What needs one form only ---

const localOnly = Device.layer.pipe(
  Layer.provide([
    layerConfig({ localOnly: true, autoConnect: false, tabs: "none" }),
    Device.parts,
    Storage.layerMemory,
    Layer.succeed(Transport, Transport.of({ connect: () => Effect.never }))
  ])
)

describe("queries", () => {
  it.scoped("leave nothing behind, however many are opened and closed", () =>
    Effect.gen(function*() {
      const queries = yield* Queries
      const asked: ReadonlyArray<Query.Query> = [
        {},
        { where: { done: false } },
        { where: { done: false }, limit: 3, orderBy: [{ field: "n" }] },
        { where: { owner: "x" }, select: ["owner"] }
      ]
      for (const declaration of [Grid.map("plain"), Todos]) {
        for (let i = 0; i < 1_000; i++) {
          const query = new OpenQuery("map", Query.parse(asked[i % asked.length]), () => {})
          queries.ask(declaration, query)
          void query.current
          query.close()
          query.close()
        }
      }
      expect(queries.size()).toEqual({ open: 0, asked: 0, held: 0 })
    }).pipe(Effect.provide(localOnly)))

  it.live("is loading until the client is open, and can be closed before", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const memory = Storage.memory()
      const client = makeClient({ storage: memory, grid: [Todos] }, { platform: VirtualClock.layerOf(clock) as never })
      const query = client.query(Todos, { where: { done: false } })
      const closed = client.query(Todos)
      closed.close()
      // Of a map that was named before it was declared: it isn't downloaded, which is known when it is open.
      const declaredLate = Grid.map("late", Todo, { sync: "none" })
      void client.map("late")
      const late = client.query(declaredLate)
      const early = query.current
      expect(early).toEqual({ status: "loading", rows: [], isComplete: false, hasMore: false })
      expect(query.current).toBe(early)
      const statuses: Array<string> = []
      query.subscribe(({ rows, status }) => void statuses.push(`${status} ${rows.length}`))
      void client.map(Todos).set("1", todo(1))
      yield* Effect.promise(() => client.ready())
      yield* clock.settle
      expect(statuses).toEqual(["ready 1"])
      expect(closed.current.status).toBe("loading")
      expect(late.current.status).toBe("ready")
      yield* Effect.promise(() => client.close())
      expect(query.current).toMatchObject({ status: "error", error: { _tag: "ClientClosed" } })
      expect(() => client.query(Todos)).toThrow(expect.objectContaining({ _tag: "ClientClosed" }))
    }).pipe(Effect.scoped, inWorld()))

  it.live("ask the server from when a map isn't downloaded any more, and this device from when it is again", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const sent: Array<Protocol.ClientMessage> = []
      yield* World.startServer({}, (connection) => ({
        ...connection,
        listen: (onFrame, onClose) =>
          connection.listen((frame) => {
            sent.push(...Protocol.decodeFromClient(new Uint8Array(frame)))
            onFrame(frame)
          }, onClose)
      }))
      const bob = yield* World.startClient("bob")
      yield* (yield* bob.map<Todo>("logs")).set("1", todo(1))
      const alice = yield* World.startClient("alice")
      const query = yield* alice.query<Todo>("logs", { where: { done: false } })
      yield* clock.runUntil(() => query.current.isComplete && query.current.rows.length === 1)
      expect(sent.filter(({ _tag }) => _tag === "QueryOpen")).toEqual([])
      const [row] = query.current.rows
      expect(row).toMatchObject({ key: "1" })
      yield* alice.map(Logs)
      yield* clock.runUntil(() => sent.some(({ _tag }) => _tag === "QueryOpen") && query.current.isComplete)
      expect(query.current.rows).toEqual([row])
      yield* alice.map(Grid.map("logs"))
      yield* clock.runUntil(() => sent.some(({ _tag }) => _tag === "QueryClose"))
      expect(query.current.rows).toEqual([row])
    }).pipe(Effect.scoped, inWorld()))

  it.live("tell of a row that changed and was read several times in a tick as what became of it", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const client = makeClient({ grid: [Todos] }, { platform: VirtualClock.layerOf(clock) as never })
      yield* Effect.addFinalizer(() => Effect.promise(() => client.close()))
      yield* Effect.promise(() => client.ready())
      const todos = client.map(Todos)
      void todos.set("gone", todo(0))
      const query = client.query(Todos)
      const told: Array<string> = []
      query.changes(({ changes }) => void told.push(changes.map(({ key, type }) => `${type} ${key}`).join(", ")))
      yield* clock.settle
      const rowsAfter = (write: () => void): number => {
        write()
        return query.current.rows.length
      }
      expect(rowsAfter(() => void todos.set("1", todo(1)))).toBe(2)
      expect(rowsAfter(() => void todos.set("1", todo(2)))).toBe(2)
      expect(rowsAfter(() => void todos.set("gone", todo(3)))).toBe(2)
      expect(rowsAfter(() => void todos.remove("gone"))).toBe(1)
      expect(rowsAfter(() => void todos.set("2", todo(1)))).toBe(2)
      expect(rowsAfter(() => void todos.remove("2"))).toBe(1)
      yield* clock.settle
      expect(told).toEqual(["enter gone", "enter 1, leave gone"])
    }).pipe(Effect.scoped, inWorld()))

  it.live("as a stream survives disconnects and ends with the query", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const network = yield* Network.SimulatedNetwork
      yield* World.startServer()
      const alice = yield* World.startClient("alice", { grid: [Todos] })
      const todos = yield* alice.map(Todos)
      const query = yield* alice.query(Todos)
      const fiber = yield* Effect.fork(Stream.runCollect(query.changes))
      yield* clock.runUntil(() => alice.status.current.state === "CONNECTED")
      yield* todos.set("1", todo(1))
      yield* clock.settle
      network.reset("alice")
      yield* clock.advance(100)
      yield* todos.set("2", todo(2))
      yield* clock.settle
      yield* query.close
      const deltas = Chunk.toReadonlyArray(yield* Fiber.join(fiber))
      expect(deltas.flatMap(({ changes }) => changes.map(({ key, type }) => `${type} ${key}`))).toEqual([
        "enter 1",
        "enter 2"
      ])
    }).pipe(Effect.scoped, inWorld()))

  it.live("that a server refused are asked again, and answered when that may be", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const rules: PermissionPolicy.Policy["rules"] = [{ maps: ["*"], roles: ["root"], allow: ["read", "put"] }]
      const context = yield* Layer.build(PermissionPolicy.layer({ rules }))
      const policies = Context.get(context, PermissionPolicy.PermissionPolicy)
      const verify = Authentication.layerVerifier((userId) => Effect.succeed({ userId, roles: [userId] }))
      yield* World.serve(
        TopGunServer.layerInProcess({ auth: "token" }).pipe(
          Layer.provide(Layer.merge(verify, Layer.succeedContext(context)))
        )
      )
      const root = yield* World.startClient("root", { auth: "root" })
      yield* (yield* root.map<Todo>("logs")).set("1", todo(1))
      const alice = yield* World.startClient("alice", { auth: "alice" })
      const query = yield* alice.query(Logs)
      yield* clock.runUntil(() => query.current.status === "error")
      const refused = query.current
      expect(refused.error).toMatchObject({ _tag: "PermissionDenied", what: "read map \"logs\"", retryable: false })
      yield* clock.advance(31_000)
      expect(query.current).toBe(refused)
      yield* policies.replace({ rules: [...rules, { maps: ["logs"], roles: ["alice"], allow: ["read"] }] })
      yield* clock.advance(31_000)
      expect(query.current).toMatchObject({ status: "ready", isComplete: true, rows: [{ key: "1" }] })
      expect(query.current.error).toBeUndefined()
      // What may be read no longer goes at once.
      yield* policies.replace({ rules })
      yield* clock.advance(100)
      expect(query.current).toMatchObject({ status: "error", rows: [] })
    }).pipe(Effect.scoped, inWorld()))

  const put = (value: unknown) =>
    LwwRecord.put({ millis: 1, counter: 0, nodeId: "bob0000000000000" }, Value.encode(value)).row
  type Rows = typeof Protocol.QueryRows.Type
  const lies: ReadonlyArray<
    readonly [words: string, says: (rows: Rows) => ReadonlyArray<Protocol.ServerMessage>, ends: boolean]
  > = [
    ["speaks of a query that nobody asked", (rows) => [{ ...rows, query: rows.query + 1 }, rows], false],
    [
      "leaves gaps in its versions",
      (rows) => [rows, { ...rows, after: rows.version + 1, version: rows.version + 2 }],
      true
    ],
    ["goes back", (rows) => [rows, { ...rows, after: rows.version, version: rows.version - 1 }], true],
    ["sends more rows than were asked for", (rows) => [{
      ...rows,
      records: Array.from({ length: 4 }, (_, n) => [`lie${n}`, put(todo(n))] as const)
    }], true],
    [
      "sends parts without an end",
      (rows) =>
        Array.from(
          { length: 10 },
          (_, n) => ({ ...rows, isLast: false, records: [[`lie${n}`, put(todo(n))] as const] })
        ),
      true
    ],
    ["sends bytes that are no record", (rows) => [{ ...rows, records: [["lie", Uint8Array.of(1, 2)]] }], true],
    ["sends deletions", (rows) => [{
      ...rows,
      records: [["lie", LwwRecord.remove({ millis: 1, counter: 0, nodeId: "bob0000000000000" }).row]]
    }], true],
    ["sends scores for other rows", (rows) => [{ ...rows, scores: new Uint8Array(800) }], true],
    ["sends rows that the query doesn't find", (rows) => [
      { ...rows, records: [...rows.records.slice(0, 2), ["lie", put(todo(1, true))]] }
    ], false]
  ]
  for (const [words, says, ends] of lies) {
    it.live(`show nothing wrong when a server ${words}`, () =>
      Effect.gen(function*() {
        const clock = yield* VirtualClock.VirtualClock
        const network = yield* Network.SimulatedNetwork
        let isLying = true
        yield* World.startServer({}, (connection) => ({
          ...connection,
          send: (frame) => {
            for (const message of Protocol.decodeFromServer(frame)) {
              for (const said of isLying && message._tag === "QueryRows" ? says(message) : [message]) {
                connection.send(Protocol.encode(said))
              }
            }
          }
        }))
        const bob = yield* World.startClient("bob")
        const theirs = yield* bob.map<Todo>("logs")
        for (let n = 0; n < 3; n++) yield* theirs.set(`${n}`, todo(n))
        const alice = yield* World.startClient("alice")
        const query = yield* alice.query(Logs, { where: { done: false }, limit: 3 })
        const states = new Set<string>()
        alice.status.subscribe(({ state }) => void states.add(state))
        yield* clock.advance(20_000)
        expect(states.has("BACKOFF")).toBe(ends)
        expect(query.current.rows.filter(({ key }) => key.startsWith("lie"))).toEqual([])
        if (!ends) expect(query.current.rows.map(({ key }) => key).slice(0, 2)).toEqual(["0", "1"])
        isLying = false
        network.reset("alice")
        yield* clock.advance(60_000)
        expect(query.current).toMatchObject({ status: "ready", isComplete: true, hasMore: false })
        expect(query.current.rows.map(({ key }) => key)).toEqual(["0", "1", "2"])
      }).pipe(Effect.scoped, inWorld()))
  }

  it.live("by way of a leading tab are answered as its own, and by the next when it is gone", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      yield* World.startServer({ grid: [Logs] })
      const bob = yield* World.startClient("bob")
      const theirs = yield* bob.map<Todo>("logs")
      yield* theirs.set("1", todo(1))
      const browser = SimulatedTabs.make()
      const tabs: Array<Effect.Effect.Success<ReturnType<typeof World.startClient>>> = []
      for (const name of ["tab 1", "tab 2"]) {
        const tab = browser.open()
        tabs.push(yield* meanwhile(World.startClient(name, { tabs: tab.tabs }, tab.storage, "alice")))
      }
      const [leader, follower] = tabs as [typeof tabs[0], typeof tabs[0]]
      yield* clock.runUntil(() => tabs.every(({ status: { current } }) => current.state === "CONNECTED"))
      const query = yield* follower.query(Logs, { orderBy: [{ field: "n" }] })
      const same = yield* leader.query(Logs, { orderBy: [{ field: "n" }] })
      yield* clock.runUntil(() => query.current.isComplete && same.current.isComplete)
      const own = yield* follower.map(Logs)
      yield* own.set("0", todo(0))
      expect(query.current.rows.map(({ key }) => key)).toEqual(["0", "1"])
      yield* theirs.set("2", todo(2))
      yield* clock.advance(1_000)
      for (const each of [query, same]) expect(each.current.rows.map(({ key }) => key)).toEqual(["0", "1", "2"])
      // Of this device's write, too, the server has the last word.
      yield* theirs.remove("0")
      yield* clock.advance(1_000)
      for (const each of [query, same]) expect(each.current.rows.map(({ key }) => key)).toEqual(["1", "2"])
      yield* meanwhile(leader.close)
      yield* theirs.set("3", todo(3))
      yield* clock.runUntil(() => follower.status.current.tab === "leader" && query.current.isComplete)
      expect(query.current.rows.map(({ key }) => key)).toEqual(["1", "2", "3"])
      yield* meanwhile(follower.close)
    }).pipe(Effect.scoped, inWorld()))

  it("are checked against the schema by the compiler", () => {
    const ask = (client: ReturnType<typeof makeClient>) => {
      expectTypeOf(client.query(Todos).current.rows[0]!.value).toEqualTypeOf<Todo>()
      expectTypeOf(client.query(Todos, { select: ["text"] }).current.rows[0]!.value.text).toEqualTypeOf<string>()
      expectTypeOf(client.query(Todos, { select: ["owner.id"] }).current.rows[0]!.value.owner?.id)
        .toEqualTypeOf<string | undefined>()
      expectTypeOf(client.query("todos", { select: ["any.thing"] }).current.rows[0]!.value).toEqualTypeOf<unknown>()
      client.query(Todos, { where: { "owner.id": "alice", n: { gt: 1 } }, orderBy: [{ field: "owner.name" }] })
      client.query("todos", { where: { whatever: 1 }, orderBy: [{ field: "any.thing" }] })
      // @ts-expect-error -- another type than the field's
      client.query(Todos, { where: { done: "yes" } })
      // @ts-expect-error -- no such field
      client.query(Todos, { where: { missing: 1 } })
      // @ts-expect-error -- no such field
      client.query(Todos, { orderBy: [{ field: "owner.age" }] })
      // @ts-expect-error -- no such field
      client.query(Todos, { select: ["owner.age"] })
      // @ts-expect-error -- not selected
      void client.query(Todos, { select: ["text"] }).current.rows[0]!.value.done
      // @ts-expect-error -- no such field
      void client.count(Todos, { missing: 1 })
      // @ts-expect-error -- a map of sets
      client.query(Grid.orMap("tags", Schema.String))
    }
    expect(ask).toBeTypeOf("function")
  })
})
