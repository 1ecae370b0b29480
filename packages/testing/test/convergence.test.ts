import { describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import * as Network from "../src/SimulatedNetwork.ts"
import * as VirtualClock from "../src/VirtualClock.ts"
import { provide, startClient, startServer } from "../src/World.ts"

/** A small generator of its own, so that what the clients do doesn't depend on what the network asks chance for. */
const dice = (seed: number) => {
  let state = seed * 2654435761 >>> 0
  return (sides: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor(state / 2 ** 32 * sides)
  }
}

describe("two clients and a server", () => {
  it.live("see each other's writes", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const server = yield* startServer()
      const alice = yield* startClient("alice")
      const bob = yield* startClient("bob")
      const hers = yield* alice.map<string>("notes")
      const his = yield* bob.map<string>("notes")
      yield* clock.runUntil(() =>
        alice.status.current.state === "CONNECTED" && bob.status.current.state === "CONNECTED"
      )
      yield* hers.set("a", "from alice")
      expect(hers.get("a")).toBe("from alice")
      yield* clock.runUntil(() => his.get("a") === "from alice", { within: "1 second" })
      yield* his.remove("a")
      yield* clock.runUntil(() => !hers.has("a"), { within: "1 second" })
      yield* clock.runUntil(() => alice.status.current.pending === 0 && bob.status.current.pending === 0)
      expect(hers.digest).toBe(his.digest)
      expect((yield* server.status).maps[0]?.root).toBe(hers.digest)
    }).pipe(Effect.scoped, provide()))

  it.live("converge to equal roots after editing the same keys offline, in 200 seeded runs", () =>
    Effect.gen(function*() {
      for (let seed = 1; seed <= 200; seed++) {
        yield* Effect.gen(function*() {
          const roll = dice(seed)
          const clock = yield* VirtualClock.VirtualClock
          const network = yield* Network.SimulatedNetwork
          yield* startServer()
          const clients = [yield* startClient("alice"), yield* startClient("bob")]
          const maps = [yield* clients[0]!.map<number>("m"), yield* clients[1]!.map<number>("m")]
          const edit = Effect.gen(function*() {
            const map = maps[roll(2)]!
            const key = `k${roll(8)}`
            if (roll(4) === 0) yield* map.remove(key)
            else yield* map.set(key, roll(1000))
          })
          const inStep = () =>
            clients.every((client) =>
              client.status.current.state === "CONNECTED" && client.status.current.pending === 0
            )
          for (let i = roll(6); i > 0; i--) yield* edit
          yield* clock.runUntil(inStep)
          for (const client of clients) {
            if (roll(2) === 0) yield* client.disconnect
            else network.cut(client.name)
          }
          for (let i = 0; i < 12; i++) {
            yield* edit
            yield* clock.advance(roll(3000))
          }
          network.heal()
          for (const client of clients) yield* client.connect
          const isEqual = () => inStep() && maps[0]!.digest === maps[1]!.digest
          yield* Effect.onError(
            clock.runUntil(isEqual, { within: "5 minutes" }),
            () => Effect.logError(`seed ${seed}`, clients.map((client) => client.status.current))
          )
          expect(Array.from(maps[0]!).sort(), `seed ${seed}`).toEqual(Array.from(maps[1]!).sort())
        }).pipe(Effect.scoped, provide({ seed, shape: { jitterMillis: 40, loss: seed % 2 === 0 ? 0.01 : 0 } }))
      }
    }))
})
