/** Several tabs of one browser: one keeps the data of all, and speaks with the server. */
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
import { type Client, faultOf, inWorld } from "./worlds.ts"

type Tab = SimulatedTabs.SimulatedTab & { readonly client: Client }

/** A browser whose tabs are of one user, a server, and what lies between them. */
const browserOf = Effect.fnUntraced(function*(tabCount: number, options: ClientConfig.Options = {}) {
  const clock = yield* VirtualClock.VirtualClock
  const network = yield* Network.SimulatedNetwork
  const server = yield* World.startServer()
  const browser = SimulatedTabs.make()
  const faults: Array<unknown> = []
  let opened = 0
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
    return own
  })
  const tabs: Array<Tab> = []
  for (let i = 0; i < tabCount; i++) tabs.push(yield* open())
  return { browser, clock, faults, network, open, server, tabs }
})

const roleOf = ({ client }: Tab): string => client.status.current.tab
const isConnected = ({ client }: Tab): boolean => client.status.current.state === "CONNECTED"
const isDone = ({ client }: Tab): boolean => isConnected({ client } as Tab) && client.status.current.pending === 0

/** Runs an effect while the world goes on. */
const meanwhile = Effect.fnUntraced(function*<A, E, R>(effect: Effect.Effect<A, E, R>) {
  const clock = yield* VirtualClock.VirtualClock
  const fiber = yield* Effect.fork(effect)
  yield* clock.runUntil(() => fiber.unsafePoll() !== null)
  return yield* Fiber.join(fiber)
})

describe("Tabs", () => {
  it.live("share one connection and one storage, and show the same", () =>
    Effect.gen(function*() {
      const { clock, server, tabs } = yield* browserOf(3)
      yield* clock.runUntil(() => tabs.every(isConnected))
      assert.deepStrictEqual(tabs.map(roleOf), ["leader", "follower", "follower"])
      const maps = yield* Effect.forEach(tabs, ({ client }) => client.map("todos"))
      for (const [i, map] of maps.entries()) yield* map.set(`from ${i}`, i)
      yield* clock.settle
      for (const map of maps) assert.deepStrictEqual(Object.fromEntries(map), { "from 0": 0, "from 1": 1, "from 2": 2 })
      yield* clock.runUntil(() => tabs.every(isDone))
      assert.strictEqual(new Set(maps.map(({ digest }) => digest)).size, 1)
      assert.strictEqual((yield* server.status).connections, 1)
    }).pipe(Effect.scoped, inWorld()))

  it.live(
    "keep what was written in any of them, whichever of them are killed, frozen or put to sleep, in 40 seeded runs",
    () =>
      Effect.gen(function*() {
        for (let seed = Number(process.env.SEED ?? 1); seed <= Number(process.env.SEED ?? 40); seed++) {
          console.log("seed", seed)
          yield* run(seed).pipe(Effect.tapErrorCause((cause) => Effect.sync(() => console.log(String(cause)))), Effect.scoped, inWorld(seed), Effect.withRandom(Random.make(seed)))
        }
      }),
    60_000
  )
})

/** Random tabs do random things, and come to rest. */
const run = Effect.fnUntraced(function*(seed: number) {
  const { browser, clock, faults, network, open, tabs: initial } = yield* browserOf(3)
  const tabs = [...initial]
  const asleep = new Set<Tab>()
  const promised = new Map<string, number>()
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
      tab.kill()
      tabs.splice(tabs.indexOf(tab), 1)
      asleep.delete(tab)
    } else if (dice < 72 && tabs.length < 5) tabs.push(yield* open())
    else if (dice < 78 && awake.length > 1) {
      const tab = yield* pick(awake)
      tab.freeze()
      asleep.add(tab)
    } else if (dice < 84 && awake.length > 1) {
      const tab = yield* pick(awake)
      tab.suspend()
      asleep.add(tab)
    } else if (dice < 90 && asleep.size > 0) {
      const tab = yield* pick(Array.from(asleep))
      tab.resume()
      asleep.delete(tab)
    } else if (dice < 95) network.cut("home")
    else network.heal("home")
    if (process.env.SEED) {
      console.log(
        step,
        dice,
        tabs.map((tab) => `${roleOf(tab)}${asleep.has(tab) ? "z" : ""}`).join(" ")
      )
    }
    yield* clock.advance(yield* Random.nextIntBetween(0, 3_000))
  }
  network.heal("home")
  for (const tab of asleep) tab.resume()
  yield* clock.runUntil(() => tabs.every(isDone), { within: "3 minutes" }).pipe(
    Effect.tapErrorCause(() => Effect.sync(() => {
      for (const tab of tabs) console.log(tab.client.status.current)
      console.log(faults.slice(-5))
    }))
  )
  console.log("B")
  const other = yield* World.startClient("bob")
  yield* clock.runUntil(() => other.status.current.state === "CONNECTED")
  const seen = yield* other.map<number>("unique")
  const count = yield* other.counter("count")
  const tags = yield* other.orMap<number>("tags")
  yield* clock.runUntil(() =>
    seen.status.current.isSynced && count.status.current.isSynced && tags.status.current.isSynced
  )
  console.log("A")
  for (const [key, value] of promised) assert.strictEqual(seen.get(key), value, `${key} of seed ${seed}`)
  assert.isAtLeast(count.current, promisedCount, `seed ${seed}`)
  assert.isAtMost(count.current, counted, `seed ${seed}`)
  yield* clock.advance(5_000)
  for (const tab of tabs) {
    const here = yield* tab.client.map<number>("unique")
    console.log(roleOf(tab), here.size, seen.size, tab.client.status.current)
    assert.deepStrictEqual(Object.fromEntries(here), Object.fromEntries(seen), `seed ${seed}`)
    assert.strictEqual(here.digest, seen.digest, `seed ${seed}`)
    assert.strictEqual((yield* tab.client.counter("count")).current, count.current, `seed ${seed}`)
    assert.strictEqual((yield* tab.client.orMap("tags")).digest, tags.digest, `seed ${seed}`)
  }
  assert.strictEqual(tabs.filter((tab) => roleOf(tab) === "leader").length, 1, `seed ${seed}`)
  void browser
  void faultOf
  void Either
  console.log("C")
  yield* Fiber.interruptAll(outcomes)
  console.log("D")
  yield* meanwhile(Effect.forEach(tabs, ({ client }) => client.close))
  console.log("E")
})
