/** Several tabs of one browser: one keeps the data of all, and speaks with the server. */
import { assert, describe, it } from "@effect/vitest"
import type * as ClientConfig from "@topgun/client/ClientConfig"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as SimulatedTabs from "@topgun/testing/SimulatedTabs"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import { type Client, inWorld } from "./worlds.ts"

type Tab = SimulatedTabs.SimulatedTab & { readonly client: Client }

/** A browser whose tabs are of one user, a server, and what lies between them. */
const browserOf = Effect.fnUntraced(function*(tabCount: number, options: ClientConfig.Options = {}) {
  const clock = yield* VirtualClock.VirtualClock
  const network = yield* Network.SimulatedNetwork
  const server = yield* World.startServer()
  const browser = SimulatedTabs.make()
  const faults: Array<unknown> = []
  const open = Effect.fnUntraced(function*() {
    const tab = browser.open()
    const starting = World.startClient(
      "alice",
      { tabs: tab.tabs, onError: (fault) => void faults.push(fault), ...options },
      tab.storage
    )
    const fiber = yield* Effect.fork(starting)
    yield* clock.runUntil(() => fiber.unsafePoll() !== null)
    const client = yield* fiber
    return { ...tab, client }
  })
  const tabs: Array<Tab> = []
  for (let i = 0; i < tabCount; i++) tabs.push(yield* open())
  return { browser, clock, faults, network, open, server, tabs }
})

const roleOf = ({ client }: Tab): string => client.status.current.tab

describe("Tabs", () => {
  it.live("share one connection and one storage, and show the same", () =>
    Effect.gen(function*() {
      const { browser, clock, network, tabs } = yield* browserOf(3)
      yield* clock.runUntil(() => tabs.every(({ client }) => client.status.current.state === "CONNECTED"))
      assert.deepStrictEqual(tabs.map(roleOf), ["leader", "follower", "follower"])
      const maps = yield* Effect.forEach(tabs, ({ client }) => client.map("todos"))
      for (const [i, map] of maps.entries()) yield* map.set(`from ${i}`, i)
      yield* clock.settle
      for (const map of maps) assert.deepStrictEqual(Object.fromEntries(map), { "from 0": 0, "from 1": 1, "from 2": 2 })
      yield* clock.runUntil(() => tabs.every(({ client }) => client.status.current.pending === 0))
      assert.strictEqual(new Set(maps.map(({ digest }) => digest)).size, 1)
      void browser
      void network
    }).pipe(Effect.scoped, inWorld()))
})
