import { describe, it } from "@effect/vitest"
import type * as ClientConfig from "@topgun/client/ClientConfig"
import * as NetworkEvents from "@topgun/client/NetworkEvents"
import * as Backoff from "@topgun/core/Backoff"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import { inWorld, isSettled } from "./worlds.ts"

/** A page of a browser, as far as the client listens to it. */
const makePage = () => {
  const page = new EventTarget()
  const document = Object.assign(new EventTarget(), { visibilityState: "visible" })
  const navigator = { onLine: true }
  const counts = { listeners: 0 }
  const platform: NetworkEvents.Platform = {
    navigator,
    document,
    addEventListener: (...args: Parameters<EventTarget["addEventListener"]>) => {
      counts.listeners++
      page.addEventListener(...args)
    },
    removeEventListener: (...args: Parameters<EventTarget["removeEventListener"]>) => {
      counts.listeners--
      page.removeEventListener(...args)
    }
  }
  return {
    events: NetworkEvents.ofPlatform(platform),
    counts,
    go: (online: boolean) => {
      navigator.onLine = online
      page.dispatchEvent(new Event(online ? "online" : "offline"))
    },
    show: (visible: boolean) => {
      document.visibilityState = visible ? "visible" : "hidden"
      document.dispatchEvent(new Event("visibilitychange"))
    }
  }
}

describe("the events of a platform", () => {
  it("are heard until nobody wants to", () => {
    const page = makePage()
    const heard: Array<string> = []
    const stop = page.events.subscribe((event) => void heard.push(event))
    page.go(false)
    expect(page.events.isOnline()).toBe(false)
    page.go(true)
    page.show(false)
    page.show(true)
    expect(page.events.isOnline()).toBe(true)
    expect(heard).toEqual(["offline", "online", "visible"])
    stop()
    page.go(false)
    page.show(true)
    expect(heard).toHaveLength(3)
    expect(page.counts.listeners).toBe(0)
  })

  it("are none where there is no browser", () => {
    for (const platform of [{}, { navigator: {} }, { navigator: { onLine: true } }]) {
      expect(NetworkEvents.ofPlatform(platform)).toBe(NetworkEvents.none)
    }
    expect(NetworkEvents.none.isOnline()).toBe(true)
  })
})

const onPage = Effect.fnUntraced(function*(options: ClientConfig.Options = {}) {
  const clock = yield* VirtualClock.VirtualClock
  const network = yield* Network.SimulatedNetwork
  const page = makePage()
  const client = yield* World.startClient("alice", { network: page.events, ...options })
  const connections = () => network.traffic("alice", World.serverAddress).connections
  return { clock, network, page, client, connections }
})

describe("a device whose platform tells of its network", () => {
  it.live("tries nothing while there is none, and connects as soon as there is one", () =>
    Effect.gen(function*() {
      const { client, clock, connections, network, page } = yield* onPage()
      yield* World.startServer()
      yield* clock.runUntil(() => isSettled(client))
      page.go(false)
      network.reset("alice")
      yield* clock.runUntil(() => client.status.current.state === "BACKOFF")
      const before = connections()
      yield* clock.advance("1 hour")
      expect(connections()).toBe(before)
      expect(client.status.current.state).toBe("BACKOFF")
      page.go(true)
      yield* clock.runUntil(() => isSettled(client), { within: "2 seconds" })
    }).pipe(Effect.scoped, inWorld()))

  it.live("spends no tries while there is none, be it from the start", () =>
    Effect.gen(function*() {
      const { client, clock, connections, page } = yield* onPage({
        backoff: Backoff.make({ retries: 2 }),
        autoConnect: false
      })
      yield* World.startServer()
      page.go(false)
      yield* client.connect
      yield* clock.advance("1 hour")
      expect([client.status.current.state, connections()]).toEqual(["BACKOFF", 0])
      page.go(true)
      yield* clock.runUntil(() => isSettled(client), { within: "2 seconds" })
    }).pipe(Effect.scoped, inWorld()))

  it.live("doesn't wait for its backoff when the network is back", () =>
    Effect.gen(function*() {
      const { client, clock, page } = yield* onPage()
      // The delays have grown to half a minute by then.
      yield* clock.advance("5 minutes")
      yield* World.startServer()
      yield* clock.advance("1 second")
      page.go(true)
      yield* clock.runUntil(() => isSettled(client), { within: "2 seconds" })
    }).pipe(Effect.scoped, inWorld()))

  it.live("looks at its connection when the user is back, and replaces a dead one within 5 seconds", () =>
    Effect.gen(function*() {
      const { client, clock, connections, network, page } = yield* onPage()
      yield* World.startServer()
      yield* clock.runUntil(() => isSettled(client))
      page.show(true)
      yield* clock.advance("10 seconds")
      expect([client.status.current.state, connections()]).toEqual(["CONNECTED", 1])
      network.cut("alice")
      page.show(false)
      page.show(true)
      yield* clock.runUntil(() => client.status.current.state !== "CONNECTED", { within: "5100 millis" })
      network.heal()
      yield* clock.runUntil(() => isSettled(client))
    }).pipe(Effect.scoped, inWorld()))

  it.live("whose network comes and goes ten times a second tries once a second at most, and leaks nothing", () =>
    Effect.gen(function*() {
      const { client, clock, connections, network, page } = yield* onPage()
      const server = yield* World.startServer()
      yield* clock.runUntil(() => isSettled(client))
      const sleepers = clock.sleepers()
      const before = connections()
      for (let n = 0; n < 600; n++) {
        page.go(n % 2 === 1)
        if (n % 2 === 0) network.reset("alice")
        yield* clock.advance("100 millis")
      }
      expect(connections() - before).toBeLessThanOrEqual(61)
      page.go(true)
      yield* clock.runUntil(() => isSettled(client))
      yield* clock.advance("1 minute")
      expect(client.status.current.state).toBe("CONNECTED")
      expect(network.connections("alice")).toBe(1)
      expect((yield* server.status).connections).toBe(1)
      expect(clock.sleepers()).toBeLessThanOrEqual(sleepers + 2)
      yield* client.close
      expect(page.counts.listeners).toBe(0)
    }).pipe(Effect.scoped, inWorld()))
})

describe("a server that restarts", () => {
  it.live("has all its devices back, in no waves", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const server = yield* World.startServer()
      const clients = yield* Effect.forEach(Array.from({ length: 40 }, (_, n) => n), (n) => World.startClient(`c${n}`))
      yield* clock.runUntil(() => clients.every(isSettled))
      yield* server.stop
      yield* clock.advance("20 seconds")
      const back = new Map<string, number>()
      for (const { name, status } of clients) {
        status.subscribe(({ state }) => {
          if (state === "CONNECTED") back.set(name, clock.unsafeCurrentTimeMillis())
        })
      }
      yield* World.startServer()
      yield* clock.runUntil(() => clients.every(isSettled), { within: "36 seconds" })
      // Each at a time of its own: in no half second there are more than a third of them.
      const times = Array.from(back.values()).sort((a, b) => a - b)
      expect(times).toHaveLength(40)
      for (const time of times) {
        expect(times.filter((each) => each >= time && each < time + 500).length).toBeLessThanOrEqual(14)
      }
    }).pipe(Effect.scoped, inWorld()))
})
