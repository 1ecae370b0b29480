/**
 * Several tabs of one browser: one keeps the data of all, and speaks with the server. `TOPGUN_MODEL_SEEDS=500` makes more of the
 * seeded runs, from `TOPGUN_MODEL_FROM` on, and `TOPGUN_MODEL_SEED=17` one.
 */
import { assert, describe, it } from "@effect/vitest"
import type * as ClientConfig from "@topgun/client/ClientConfig"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as SimulatedTabs from "@topgun/testing/SimulatedTabs"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import { type Client, faultOf, inWorld } from "./worlds.ts"

type Tab = SimulatedTabs.SimulatedTab & { readonly client: Client }

/** Runs an effect while the world goes on. */
const meanwhile = Effect.fnUntraced(function*<A, E, R>(effect: Effect.Effect<A, E, R>) {
  const clock = yield* VirtualClock.VirtualClock
  const fiber = yield* Effect.fork(effect)
  yield* clock.runUntil(() => fiber.unsafePoll() !== null)
  return yield* Fiber.join(fiber)
})

/** A browser whose tabs are of one user, a server, and what lies between them. */
const browserOf = Effect.fnUntraced(function*(tabCount: number, options: ClientConfig.Options = {}) {
  const clock = yield* VirtualClock.VirtualClock
  const network = yield* Network.SimulatedNetwork
  const server = yield* World.startServer()
  const browser = SimulatedTabs.make()
  const faults: Array<unknown> = []
  let opened = 0
  const all: Array<Tab> = []
  const open = Effect.fnUntraced(function*() {
    const tab = browser.open()
    const name = `tab ${++opened}`
    const starting = World.startClient(
      name,
      { tabs: tab.tabs, onError: (fault) => void faults.push(fault), ...options },
      tab.storage,
      "alice"
    )
    const fiber = yield* Effect.fork(starting)
    yield* clock.runUntil(() => fiber.unsafePoll() !== null)
    const client = yield* fiber
    const own: Tab = {
      ...tab,
      client,
      // Nor does it send or receive anything.
      kill: () => {
        tab.kill()
        network.reset(name)
        network.cut(name)
        Effect.runFork(Effect.withClock(client.close, clock))
      },
      freeze: () => {
        tab.freeze()
        network.cut(name)
      },
      suspend: () => {
        tab.suspend()
        network.cut(name)
      },
      thaw: () => {
        network.heal(name)
        tab.thaw()
      },
      resume: () => {
        network.heal(name)
        tab.resume()
      }
    }
    all.push(own)
    return own
  })
  const tabs: Array<Tab> = []
  for (let i = 0; i < tabCount; i++) tabs.push(yield* open())
  // Tabs say goodbye to each other, which may take time.
  const close = Effect.suspend(() => meanwhile(Effect.forEach(all, ({ client }) => client.close, { concurrency: 10 })))
  return { browser, clock, close, faults, network, open, server, tabs }
})

type Browser = Effect.Effect.Success<ReturnType<typeof browserOf>>

/** A test with so many tabs. */
const test = (
  behaviour: string,
  tabCount: number,
  body: (
    browser: Browser
  ) => Effect.Effect<void, unknown, Scope.Scope | Network.SimulatedNetwork | VirtualClock.VirtualClock>
) =>
  it.live(behaviour, () =>
    Effect.gen(function*() {
      const browser = yield* browserOf(tabCount)
      yield* browser.clock.runUntil(() => browser.tabs.every(isConnected))
      const outcome = yield* Effect.exit(body(browser))
      yield* browser.close
      yield* outcome
    }).pipe(Effect.scoped, inWorld()))

const roleOf = ({ client }: Tab): string => client.status.current.tab
const isConnected = ({ client }: Tab): boolean => client.status.current.state === "CONNECTED"
const isDone = ({ client }: Tab): boolean => isConnected({ client } as Tab) && client.status.current.pending === 0

const number = (name: string): number | undefined => {
  const text = process.env[name]
  return text === undefined ? undefined : Number(text)
}
const only = number("TOPGUN_MODEL_SEED")
const usual = 20
const seeds = Array.from(
  { length: only === undefined ? number("TOPGUN_MODEL_SEEDS") ?? usual : 1 },
  (_, i) => (only ?? number("TOPGUN_MODEL_FROM") ?? 1) + i
)

/** What must have happened in the usual runs, for them to prove anything. */
type Sightings = Record<"leadersKilled" | "leadersFrozen" | "leadersSuspended" | "writesOfFollowers", number>

describe("Tabs", () => {
  test(
    "share one connection and one storage, and show the same",
    3,
    ({ clock, server, tabs }) =>
      Effect.gen(function*() {
        assert.deepStrictEqual(tabs.map(roleOf), ["leader", "follower", "follower"])
        const maps = yield* Effect.forEach(tabs, ({ client }) => client.map("todos"))
        for (const [i, map] of maps.entries()) yield* map.set(`from ${i}`, i)
        yield* clock.settle
        for (const map of maps) {
          assert.deepStrictEqual(Object.fromEntries(map), { "from 0": 0, "from 1": 1, "from 2": 2 })
        }
        yield* clock.runUntil(() => tabs.every(isDone))
        assert.strictEqual(new Set(maps.map(({ digest }) => digest)).size, 1)
        assert.strictEqual((yield* server.status).connections, 1)
      })
  )

  test(
    "store what a follower writes before it is told so, in the storage of all",
    2,
    ({ browser, clock, network, tabs: [, follower] }) =>
      Effect.gen(function*() {
        const map = yield* follower!.client.map<string>("todos")
        yield* clock.settle
        network.cut("home")
        const release = browser.holdCommits()
        const write = yield* Effect.fork(map.set("a", "from a follower"))
        yield* clock.advance(500)
        assert.isNull(write.unsafePoll())
        assert.strictEqual(map.get("a"), "from a follower")
        release()
        yield* meanwhile(Fiber.join(write))
        const rows = yield* Effect.promise(() => browser.rows.scan("records/todos", undefined, 10))
        assert.deepStrictEqual(rows.map(({ key }) => key), ["a"])
        const operations = yield* Effect.promise(() => browser.rows.scan("outbox", undefined, 10))
        assert.strictEqual(operations.length, 1)
      })
  )

  test(
    "show what was written last in them, though the leader hasn't heard of it",
    2,
    ({ clock, tabs: [leader, follower] }) =>
      Effect.gen(function*() {
        const there = yield* leader!.client.map<string>("todos")
        const here = yield* follower!.client.map<string>("todos")
        yield* clock.settle
        const seen: Array<unknown> = []
        here.subscribe((changes) => void seen.push(...changes.map(({ key, value }) => `${key} ${String(value)}`)))
        // Later than the leader's, though the time is the same.
        yield* Effect.all([there.set("a", "before"), here.set("b", "x"), here.set("b", "y"), here.set("a", "after")], {
          concurrency: "unbounded"
        })
        yield* clock.settle
        assert.deepStrictEqual(seen, ["b x", "b y", "a after"])
        for (const map of [here, there]) assert.strictEqual(map.get("a"), "after")
      })
  )

  test(
    "answer a follower's write with what the server says, be it a level or a refusal",
    2,
    ({ clock, faults, tabs: [leader, follower] }) =>
      Effect.gen(function*() {
        const map = yield* follower!.client.map<string>("todos")
        const write = yield* map.set("a", "1")
        const ack = yield* meanwhile(write.server)
        assert.strictEqual(ack.level, "APPLIED")
        const inVain = yield* Effect.either(
          meanwhile(Effect.flatMap(map.set("a", "2", { writeConcern: "REPLICATED" }), ({ server }) => server))
        )
        assert.isTrue(Either.isLeft(inVain))

        // The server has a map of this name, of another kind.
        const other = yield* World.startClient("bob")
        yield* (yield* other.map("tags")).set("a", 1)
        yield* clock.runUntil(() => other.status.current.state === "CONNECTED" && other.status.current.pending === 0)
        const tags = yield* follower!.client.orMap<string>("tags")
        const refused = yield* tags.add("x", "y")
        const failure = yield* meanwhile(faultOf(refused.server))
        assert.propertyVal(failure, "_tag", "WriteRejected")
        yield* clock.runUntil(() => follower!.client.status.current.pending === 0)
        assert.deepStrictEqual(tags.getValues("x"), [])
        for (const { client } of [leader!, follower!]) {
          assert.deepStrictEqual(client.rejectedWrites.current.map(({ key, value }) => [key, value]), [["a", "2"], [
            "x",
            "y"
          ]])
          assert.strictEqual(client.status.current.rejected, 2)
        }
        assert.isNotEmpty(faults)
        yield* follower!.client.rejectedWrites.discard(follower!.client.rejectedWrites.current[1]!.id)
        yield* clock.advance(100)
        for (const { client } of [leader!, follower!]) {
          assert.deepStrictEqual(client.rejectedWrites.current.map(({ key }) => key), ["a"])
        }
      })
  )

  test("follow maps of all kinds, batches and lifetimes alike", 2, ({ clock, tabs }) =>
    Effect.gen(function*() {
      const [leader, follower] = tabs as unknown as readonly [Tab, Tab]
      const changes: Array<unknown> = []
      const here = yield* follower.client.map<number>("numbers")
      here.subscribe((all) => void changes.push(...all.map(({ key, origin, value }) => [key, value, origin])))
      const batch = yield* follower.client.batch((writes) => {
        writes.set(here, "a", 1)
        writes.set(here, "b", 2)
      })
      yield* meanwhile(batch.server)
      yield* (yield* follower.client.counter("count")).increment(2)
      yield* (yield* leader.client.counter("count")).increment(3)
      yield* (yield* follower.client.orMap("tags")).add("t", 1)
      yield* (yield* leader.client.orMap("tags")).remove("t", 1)
      const there = yield* leader.client.map<number>("numbers")
      yield* there.set("c", 3, { ttlMs: 5_000 })
      yield* there.update("a", (n) => n! + 1)
      yield* clock.settle
      assert.deepStrictEqual(Object.fromEntries(here), { a: 2, b: 2, c: 3 })
      assert.deepStrictEqual(changes, [["a", 1, "local"], ["b", 2, "local"], ["c", 3, "remote"], ["a", 2, "remote"]])
      for (const { client } of tabs) {
        assert.strictEqual((yield* client.counter("count")).current, 5)
        assert.deepStrictEqual((yield* client.orMap("tags")).getValues("t"), [])
      }
      yield* clock.advance(6_000)
      assert.isFalse(here.has("c"))
      yield* clock.runUntil(() => tabs.every(isDone))
      assert.strictEqual(here.digest, there.digest)
      assert.isTrue(here.status.current.isSynced && here.status.current.hasSynced)
    }))

  for (const how of ["kill", "freeze", "suspend"] as const) {
    test(
      `have another leader within 5 seconds when theirs is gone (${how}), and lose and double nothing`,
      3,
      ({ clock, network, tabs }) =>
        Effect.gen(function*() {
          const [leader, ...followers] = tabs as unknown as [Tab, Tab, Tab]
          const counters = yield* Effect.forEach(tabs, ({ client }) => client.counter("count"))
          network.cut("home")
          for (const counter of counters) yield* counter.increment()
          leader[how]()
          const late = yield* Effect.forEach(
            followers,
            ({ client }) => Effect.fork(Effect.flatMap(client.counter("count"), (counter) => counter.increment()))
          )
          const took = yield* clock.runUntil(() => late.every((fiber) => fiber.unsafePoll() !== null), {
            within: "1 minute"
          })
          // One that knows of its end tells the others.
          assert.isAtMost(took, how === "freeze" ? 5_000 : 100)
          assert.deepStrictEqual(followers.map(roleOf).sort(), ["follower", "leader"])
          network.heal("home")
          yield* clock.runUntil(() => followers.every(isDone))
          const isBack = how !== "kill"
          if (isBack) {
            leader.resume()
            yield* (yield* leader.client.counter("count")).increment()
            yield* clock.runUntil(() => tabs.every(isDone), { within: "1 minute" })
            assert.strictEqual(roleOf(leader), "follower")
          }
          yield* clock.advance(1_000)
          const total = isBack ? 6 : 5
          for (const counter of counters.slice(isBack ? 0 : 1)) assert.strictEqual(counter.current, total)
          const bob = yield* World.startClient("bob")
          const counted = yield* bob.counter("count")
          yield* clock.runUntil(() => counted.status.current.isSynced)
          assert.strictEqual(counted.current, total)
        })
    )
  }

  test(
    "that were frozen change nothing in the storage that is another's now, and hand over what they had written",
    2,
    ({ browser, clock, tabs: [first, second] }) =>
      Effect.gen(function*() {
        const there = yield* first!.client.map<string>("todos")
        const here = yield* second!.client.map<string>("todos")
        yield* there.set("a", "old")
        first!.freeze()
        // As it would have been made just before: it's on its way to storage.
        const late = yield* Effect.fork(there.set("b", "late"))
        yield* clock.runUntil(() => roleOf(second!) === "leader", { within: "10 seconds" })
        yield* here.set("a", "new")
        first!.thaw()
        yield* clock.runUntil(() => late.unsafePoll() !== null && isDone(first!) && isDone(second!))
        yield* Fiber.join(late)
        for (const map of [here, there]) assert.deepStrictEqual(Object.fromEntries(map), { a: "new", b: "late" })
        const rows = yield* Effect.promise(() => browser.rows.scan("records/todos", undefined, 10))
        assert.deepStrictEqual(rows.map(({ key }) => key), ["a", "b"])
        assert.strictEqual(here.digest, there.digest)
      })
  )

  test(
    "don't follow one that has lost its part and doesn't know yet",
    2,
    ({ clock, open, tabs: [first, second] }) =>
      Effect.gen(function*() {
        const map = yield* first!.client.map<string>("todos")
        yield* map.set("a", "old")
        yield* clock.settle
        first!.freeze()
        // It says hello to both: the one will hear it late.
        const third = yield* open()
        yield* clock.advance(10_000)
        const [leader, follower] = roleOf(third) === "leader" ? [third, second!] : [second!, third]
        assert.strictEqual(roleOf(follower), "follower")
        yield* (yield* leader.client.map<string>("todos")).set("a", "new")
        yield* clock.settle
        const here = yield* follower.client.map<string>("todos")
        const seen: Array<unknown> = []
        here.subscribe((changes) => void seen.push(...changes))
        first!.thaw()
        yield* clock.advance(5_000)
        assert.deepStrictEqual(seen, [])
        assert.strictEqual(here.get("a"), "new")
        assert.strictEqual(map.get("a"), "new")
      })
  )

  test("write under node ids of their own, whoever leads", 3, ({ clock, tabs }) =>
    Effect.gen(function*() {
      const writers = new Map<string, Set<number>>()
      const write = Effect.fnUntraced(function*(tab: Tab, i: number) {
        const map = yield* tab.client.map<number>("todos")
        yield* map.set(`of ${i}`, i)
        const { nodeId } = map.getRecord(`of ${i}`)!
        writers.set(nodeId, new Set([...writers.get(nodeId) ?? [], i]))
      })
      for (const [i, tab] of tabs.entries()) yield* write(tab, i)
      tabs[0]!.suspend()
      yield* clock.runUntil(() => tabs.slice(1).some((tab) => roleOf(tab) === "leader"))
      tabs[0]!.resume()
      yield* clock.advance(1_000)
      for (const [i, tab] of tabs.entries()) yield* write(tab, i)
      for (const of of writers.values()) assert.strictEqual(of.size, 1)
      assert.isAtLeast(writers.size, 5)
    }))

  test("do for all of them what is asked of one", 2, ({ clock, tabs }) =>
    Effect.gen(function*() {
      const [leader, follower] = tabs as unknown as readonly [Tab, Tab]
      yield* meanwhile(follower.client.disconnect)
      yield* clock.advance(100)
      assert.deepStrictEqual(tabs.map(({ client }) => client.status.current.state), ["DISCONNECTED", "DISCONNECTED"])
      yield* (yield* follower.client.map("todos")).set("a", 1)
      yield* meanwhile(follower.client.connect)
      yield* meanwhile(follower.client.synced)
      assert.strictEqual(leader.client.status.current.pending, 0)
      assert.strictEqual((yield* meanwhile(follower.client.serverStatus)).connections, 1)
      yield* meanwhile(follower.client.resetConnection)
      yield* clock.runUntil(() => tabs.every(isConnected))
    }))

  test(
    "are logged out together, by any of them, and not over what another has not sent",
    3,
    ({ browser, clock, network, tabs }) =>
      Effect.gen(function*() {
        const [first, second, third] = tabs as unknown as readonly [Tab, Tab, Tab]
        network.cut("home")
        const map = yield* third.client.map("todos")
        yield* map.set("a", 1)
        const refusal = yield* meanwhile(Effect.flip(second.client.logout()))
        assert.strictEqual(refusal._tag, "UnsentWrites")
        network.heal("home")
        yield* clock.runUntil(() => tabs.every(isDone), { within: "2 minutes" })
        yield* meanwhile(second.client.logout())
        yield* clock.advance(1_000)
        for (const space of ["records/todos", "outbox", "meta", "maps"]) {
          assert.deepStrictEqual(yield* Effect.promise(() => browser.rows.scan(space, undefined, 10)), [], space)
        }
        for (const tab of [first, third]) {
          const handle = yield* faultOf(Effect.flatMap(tab.client.map("todos"), (todos) => todos.set("b", 2)))
          assert.propertyVal(handle, "_tag", "ClientClosed")
        }
      })
  )

  test(
    "let the same user in again after a logout, in any of them",
    2,
    ({ browser, clock, open, tabs }) =>
      Effect.gen(function*() {
        const [first, second] = tabs as unknown as readonly [Tab, Tab]
        yield* (yield* first.client.map("todos")).set("a", 1)
        yield* clock.runUntil(() => tabs.every(isDone))
        yield* meanwhile(second.client.logout())
        yield* clock.advance(10_000)
        const third = yield* open()
        yield* clock.runUntil(() => isConnected(third), { within: "10 seconds" })
        assert.strictEqual(roleOf(third), "leader")
        yield* (yield* third.client.map("todos")).set("b", 2)
        yield* clock.advance(5_000)
        assert.strictEqual(roleOf(third), "leader")
        // Nothing of those who were logged out is written again.
        const rows = yield* Effect.promise(() => browser.rows.scan("maps", undefined, 10))
        assert.deepStrictEqual(rows.map(({ key }) => key), ["todos"])
        assert.propertyVal(
          yield* faultOf(Effect.flatMap(first.client.map("todos"), (todos) => todos.set("c", 3))),
          "_tag",
          "ClientClosed"
        )
      })
  )

  test(
    "store all anew when the one that led has lost its storage, and its life",
    2,
    ({ browser, clock, open, tabs }) =>
      Effect.gen(function*() {
        const [first, second] = tabs as unknown as readonly [Tab, Tab]
        yield* (yield* first.client.map("todos")).set("a", 1)
        yield* clock.runUntil(() => tabs.every(isDone))
        for (const space of ["meta", "maps", "marks", "records/todos", "packs/todos"]) {
          const rows = yield* Effect.promise(() => browser.rows.scan(space, undefined, 100))
          yield* Effect.promise(() => browser.rows.commit(rows.map(({ key }) => ({ space, key, value: undefined }))))
        }
        first.kill()
        yield* clock.runUntil(() => roleOf(second) === "leader", { within: "10 seconds" })
        yield* clock.runUntil(() => isDone(second))
        yield* clock.settle
        second.kill()
        const third = yield* open()
        assert.deepStrictEqual(Object.fromEntries(yield* third.client.map("todos")), { a: 1 })
      })
  )

  test(
    "have one leader, though another was put to sleep while it took over",
    3,
    ({ clock, tabs }) =>
      Effect.gen(function*() {
        const [first, second, third] = tabs as unknown as readonly [Tab, Tab, Tab]
        for (let turns = 0; turns < 30; turns++) {
          const leader = tabs.find((tab) => roleOf(tab) === "leader")!
          const next = tabs.find((tab) => tab !== leader)!
          leader.suspend()
          for (let i = 0; i < turns; i++) yield* Effect.promise(() => Promise.resolve())
          next.suspend()
          yield* clock.advance(500)
          next.resume()
          leader.resume()
          yield* clock.advance(5_000)
          assert.strictEqual(tabs.filter((tab) => roleOf(tab) === "leader").length, 1, `after ${turns} turns`)
          const writes = yield* Effect.forEach(
            tabs,
            ({ client }, i) => Effect.fork(Effect.flatMap(client.map<number>("todos"), (map) => map.set(`${i}`, turns)))
          )
          yield* clock.runUntil(() => writes.every((fiber) => fiber.unsafePoll() !== null), { within: "10 seconds" })
          for (const write of writes) yield* Fiber.join(write)
        }
        yield* clock.runUntil(() => tabs.every(isDone), { within: "1 minute" })
        const maps = yield* Effect.forEach([first, second, third], ({ client }) => client.map("todos"))
        for (const map of maps) assert.deepStrictEqual(Object.fromEntries(map), { "0": 29, "1": 29, "2": 29 })
      })
  )

  it.live("whose device has the wrong time write by the server's, all of them", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      yield* World.startServer()
      const bob = yield* World.startClient("bob")
      const his = yield* bob.map<string>("m")
      for (const error of [3_600_000, -3_600_000]) {
        const browser = SimulatedTabs.make()
        const wrong = {
          ...clock,
          unsafeCurrentTimeMillis: () => clock.unsafeCurrentTimeMillis() + error,
          currentTimeMillis: Effect.map(clock.currentTimeMillis, (millis) => millis + error)
        }
        const tabs: Array<Client> = []
        for (let i = 0; i < 2; i++) {
          const tab = browser.open()
          const starting = World.startClient(`${error} ${i}`, { tabs: tab.tabs }, tab.storage, `${error}`)
          tabs.push(yield* meanwhile(Effect.withClock(starting, wrong)))
          yield* clock.runUntil(() => tabs.every(({ status }) => status.current.state === "CONNECTED"))
        }
        yield* clock.advance(1_000)
        const [leader, follower] = tabs as [Client, Client]
        const states: Array<string> = []
        leader.status.subscribe(({ state }) => void states.push(state))
        const mine = yield* follower.map<string>("m")
        for (const key of ["a", "b"]) {
          yield* his.set(key, "his")
          yield* clock.advance(2_000)
          yield* mine.set(key, "mine")
          assert.closeTo(mine.getRecord(key)!.millis, clock.unsafeCurrentTimeMillis(), 1_000)
          yield* clock.runUntil(() => his.get(key) === "mine", { within: "10 seconds" })
          yield* his.set(key, "his later")
          yield* clock.runUntil(() => mine.get(key) === "his later", { within: "10 seconds" })
        }
        assert.notInclude(states, "BACKOFF")
        yield* meanwhile(Effect.forEach(tabs, ({ close }) => close, { concurrency: 2 }))
      }
    }).pipe(Effect.scoped, inWorld()))

  test(
    "begin anew with one that doesn't keep up, and send it no more meanwhile",
    2,
    ({ clock, tabs: [leader, follower] }) =>
      Effect.gen(function*() {
        const there = yield* leader!.client.map<number>("many")
        const here = yield* follower!.client.map<number>("many")
        yield* there.set("gone", 1)
        yield* clock.settle
        follower!.freeze()
        yield* there.remove("gone")
        for (let i = 0; i < 200; i++) {
          yield* there.set(`k${i}`, i)
          yield* clock.advance(1)
        }
        assert.isAtMost(follower!.waiting(), 100)
        follower!.thaw()
        yield* clock.advance(2_000)
        assert.strictEqual(here.size, 200)
        assert.strictEqual(here.digest, there.digest)
        assert.strictEqual(roleOf(follower!), "follower")
      })
  )

  test(
    "that are opened while the leader is frozen are ready within 5 seconds, as the leader",
    1,
    ({ clock, open, tabs: [leader] }) =>
      Effect.gen(function*() {
        yield* (yield* leader!.client.map("todos")).set("a", 1)
        leader!.freeze()
        const before = clock.unsafeCurrentTimeMillis()
        const next = yield* open()
        assert.isAtMost(clock.unsafeCurrentTimeMillis() - before, 5_000)
        assert.strictEqual(roleOf(next), "leader")
        assert.strictEqual((yield* next.client.map("todos")).get("a"), 1)
      })
  )

  test(
    "find all that was promised in storage, when all of them are killed",
    3,
    ({ clock, network, open, tabs }) =>
      Effect.gen(function*() {
        network.cut("home")
        for (const [i, { client }] of tabs.entries()) {
          yield* (yield* client.map("todos")).set(`of ${i}`, i)
          yield* (yield* client.counter("count")).increment()
        }
        for (const tab of tabs) tab.kill()
        const next = yield* open()
        const map = yield* next.client.map("todos")
        assert.deepStrictEqual(Object.fromEntries(map), { "of 0": 0, "of 1": 1, "of 2": 2 })
        assert.strictEqual((yield* next.client.counter("count")).current, 3)
        assert.strictEqual(next.client.status.current.pending, 6)
        network.heal("home")
        yield* clock.runUntil(() => isDone(next), { within: "2 minutes" })
      })
  )

  it.live(
    `keep what was written in any of them, whichever of them are killed, frozen or put to sleep, in ${seeds.length} seeded runs`,
    () =>
      Effect.gen(function*() {
        const sightings: Sightings = { leadersKilled: 0, leadersFrozen: 0, leadersSuspended: 0, writesOfFollowers: 0 }
        for (const seed of seeds) {
          yield* run(seed, sightings).pipe(Effect.scoped, inWorld(seed), Effect.withRandom(Random.make(seed)))
        }
        if (seeds.length < usual) return
        for (const [what, count] of Object.entries(sightings)) assert.isAbove(count, 0, what)
      }),
    10_000 + 3_000 * seeds.length
  )
})

/** Random tabs do random things, and come to rest. */
const run = Effect.fnUntraced(function*(seed: number, sightings: Sightings) {
  const { clock, close, network, open, tabs: initial } = yield* browserOf(3)
  const tabs = [...initial]
  const asleep = new Set<Tab>()
  const promised = new Map<string, number>()
  /** What each tab has shown last: nothing of it is ever taken back, as nothing is refused. */
  const shown = new Map<Tab, number>()
  let counted = 0
  let promisedCount = 0
  let writes = 0
  const pick = <A>(from: ReadonlyArray<A>) => Effect.map(Random.nextIntBetween(0, from.length), (i) => from[i]!)
  const outcomes: Array<Fiber.RuntimeFiber<unknown, unknown>> = []
  for (let step = 0; step < 60; step++) {
    const awake = tabs.filter((tab) => !asleep.has(tab))
    const dice = yield* Random.nextIntBetween(0, 100)
    if (dice < 60 && awake.length > 0) {
      const tab = yield* pick(awake)
      if (roleOf(tab) === "follower") sightings.writesOfFollowers++
      const map = yield* tab.client.map<number>("unique")
      const counter = yield* tab.client.counter("count")
      const tags = yield* tab.client.orMap<number>("tags")
      const value = writes++
      const key = `k${value}`
      counted++
      outcomes.push(
        yield* Effect.fork(Effect.tap(map.set(key, value), () => {
          promised.set(key, value)
        })),
        yield* Effect.fork(Effect.tap(counter.increment(), () => {
          promisedCount++
        })),
        yield* Effect.fork(tags.add(`t${value % 5}`, value))
      )
    } else if (dice < 66 && tabs.length > 1) {
      const tab = yield* pick(tabs)
      if (roleOf(tab) === "leader") sightings.leadersKilled++
      tab.kill()
      tabs.splice(tabs.indexOf(tab), 1)
      asleep.delete(tab)
    } else if (dice < 72 && tabs.length < 5) tabs.push(yield* open())
    else if (dice < 78 && awake.length > 1) {
      const tab = yield* pick(awake)
      if (roleOf(tab) === "leader") sightings.leadersFrozen++
      tab.freeze()
      asleep.add(tab)
    } else if (dice < 84 && awake.length > 1) {
      const tab = yield* pick(awake)
      if (roleOf(tab) === "leader") sightings.leadersSuspended++
      tab.suspend()
      asleep.add(tab)
    } else if (dice < 90 && asleep.size > 0) {
      const tab = yield* pick(Array.from(asleep))
      tab.resume()
      asleep.delete(tab)
    } else if (dice < 95) network.cut("home")
    else network.heal("home")
    for (const tab of tabs.filter((each) => !asleep.has(each))) {
      const count = (yield* tab.client.counter("count")).current
      assert.isAtLeast(
        count,
        shown.get(tab) ?? 0,
        `what tab ${tabs.indexOf(tab)} shows goes back at step ${step} of seed ${seed}`
      )
      shown.set(tab, count)
    }
    yield* clock.advance(yield* Random.nextIntBetween(0, 3_000))
  }
  network.heal("home")
  for (const tab of asleep) tab.resume()
  yield* clock.runUntil(() => tabs.every(isDone), { within: "3 minutes" })
  const other = yield* World.startClient("bob")
  yield* clock.runUntil(() => other.status.current.state === "CONNECTED")
  const seen = yield* other.map<number>("unique")
  const count = yield* other.counter("count")
  const tags = yield* other.orMap<number>("tags")
  yield* clock.runUntil(() =>
    seen.status.current.isSynced && count.status.current.isSynced && tags.status.current.isSynced
  )
  for (const [key, value] of promised) assert.strictEqual(seen.get(key), value, `${key} of seed ${seed}`)
  assert.isAtLeast(count.current, promisedCount, `seed ${seed}`)
  assert.isAtMost(count.current, counted, `seed ${seed}`)
  yield* clock.advance(5_000)
  for (const tab of tabs) {
    const here = yield* tab.client.map<number>("unique")
    assert.deepStrictEqual(Object.fromEntries(here), Object.fromEntries(seen), `seed ${seed}`)
    assert.strictEqual(here.digest, seen.digest, `seed ${seed}`)
    assert.strictEqual((yield* tab.client.counter("count")).current, count.current, `seed ${seed}`)
    assert.strictEqual((yield* tab.client.orMap("tags")).digest, tags.digest, `seed ${seed}`)
  }
  assert.strictEqual(tabs.filter((tab) => roleOf(tab) === "leader").length, 1, `seed ${seed}`)
  yield* Fiber.interruptAll(outcomes)
  yield* close
})
