/** What becomes of a device's writes where a resolver of the server's decides, in simulated worlds. */
import { describe, expect, it } from "@effect/vitest"
import * as Storage from "@topgun/core/Storage"
import type * as ClientConfig from "@topgun/client/ClientConfig"
import * as Protocol from "@topgun/core/Protocol"
import * as Resolvers from "@topgun/server/Resolvers"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { PCGRandom } from "effect/Utils"
import { type Client, inWorld, isSettled } from "./worlds.ts"

/** A server whose rule for map `m` is this one, clients of it, and the acknowledgements that are to be lost. */
const worldOf = Effect.fnUntraced(function*(resolve: Resolvers.Resolver) {
  const clock = yield* VirtualClock.VirtualClock
  const network = yield* Network.SimulatedNetwork
  const losing = { answers: false }
  /** With which devices have opened the map. */
  const roots: Array<string> = []
  const layer = TopGunServer.layerInProcess({ resolverMillisMax: 10_000 }).pipe(
    Layer.provide(Resolvers.layer([{ maps: "m", resolve }]))
  )
  const server = yield* World.serve(layer, (connection) => ({
    ...connection,
    listen: (onFrame, onClose) =>
      connection.listen((frame) => {
        for (const message of Protocol.decodeFromClient(new Uint8Array(frame))) {
          if (message._tag === "SyncInit") roots.push(Buffer.from(message.root).toString("hex"))
        }
        onFrame(frame)
      }, onClose),
    send: (frame) => {
      const messages = Protocol.decodeFromServer(new Uint8Array(frame))
      const isAnswer = messages.some(({ _tag }) => _tag === "OpAck" || _tag === "OpReject" || _tag === "Durable")
      if (!losing.answers || !isAnswer) connection.send(frame)
    }
  }))
  const enter = Effect.fnUntraced(function*<A>(
    name: string,
    options: ClientConfig.Options = {},
    device: Storage.StorageAdapter = Storage.memory()
  ) {
    const client = yield* World.startClient(name, options, device)
    const m = yield* client.map<A>("m")
    yield* clock.runUntil(() => client.status.current.state === "CONNECTED")
    return { ...client, m }
  })
  const quiet = (...clients: ReadonlyArray<Client>) =>
    Effect.zipRight(clock.runUntil(() => clients.every(isSettled)), clock.advance(5_000))
  /** Whether the server and its clients have the same to the byte: they connect anew, and compare. */
  const areEqual = Effect.fnUntraced(function*(...clients: ReadonlyArray<Client & { readonly name: string }>) {
    for (const { name } of clients) network.cut(name)
    yield* clock.advance(2 * Protocol.deadMillis)
    roots.length = 0
    for (const { name } of clients) network.heal(name)
    yield* clock.runUntil(() => roots.length >= clients.length)
    yield* quiet(...clients)
    const { maps } = yield* server.status
    const root = maps.find(({ name }) => name === "m")?.root ?? "0".repeat(16)
    expect(roots).toEqual(clients.map(() => root))
  })
  return { clock, network, losing, enter, quiet, areEqual }
})

const rejectedOf = (client: Client) => client.rejectedWrites.current.map(({ key, reason }) => [key, reason])

describe("Where a resolver decides,", () => {
  it.scoped("a proposer comes to what was made of his write, as all others do", () =>
    Effect.gen(function*() {
      const { enter, quiet } = yield* worldOf(Resolvers.deepMerge())
      const alice = yield* enter<object>("alice")
      const bob = yield* enter<object>("bob")
      yield* alice.m.set("k", { a: 1, both: { a: 1 } })
      yield* quiet(alice, bob)
      yield* bob.m.set("k", { b: 2, both: { b: 2 } })
      yield* quiet(alice, bob)
      const merged = { a: 1, b: 2, both: { a: 1, b: 2 } }
      expect([alice.m.get("k"), bob.m.get("k")]).toEqual([merged, merged])
      // What he writes next isn't beaten by what was made of it.
      yield* bob.m.set("k", { b: 3 })
      yield* quiet(alice, bob)
      expect(alice.m.get("k")).toEqual({ ...merged, b: 3 })
      expect([...rejectedOf(alice), ...rejectedOf(bob)]).toEqual([])
    }).pipe(inWorld()))

  it.scoped("a write that it rejects is undone, told of with its reason, and doesn't hold up the next", () =>
    Effect.gen(function*() {
      const { enter, network, quiet, areEqual } = yield* worldOf(Resolvers.nonNegative())
      const alice = yield* enter<number>("alice")
      const bob = yield* enter<number>("bob")
      yield* alice.m.set("k", 5)
      yield* quiet(alice, bob)
      network.cut("alice")
      yield* alice.m.set("k", -1)
      yield* alice.m.set("new", -2)
      yield* alice.m.set("fine", 1)
      expect(alice.m.get("k")).toBe(-1)
      network.heal("alice")
      yield* quiet(alice, bob)
      expect(rejectedOf(alice)).toEqual([
        ["k", "the value may not be negative"],
        ["new", "the value may not be negative"]
      ])
      for (const { m } of [alice, bob]) {
        expect(Object.fromEntries(m.entries())).toEqual({ k: 5, fine: 1 })
      }
      yield* areEqual(alice, bob)
    }).pipe(inWorld()))

  it.scoped("what was written offline is decided on return, whatever its time", () =>
    Effect.gen(function*() {
      const { areEqual, clock, enter, network, quiet } = yield* worldOf(Resolvers.numericMax({ field: "n" }))
      const alice = yield* enter<object>("alice")
      const bob = yield* enter<object>("bob")
      network.cut("alice")
      yield* alice.m.set("k", { n: 7, by: "alice" })
      yield* clock.advance(10_000)
      yield* bob.m.set("k", { n: 5, by: "bob" })
      yield* quiet(bob)
      expect(bob.m.get("k")).toEqual({ n: 5, by: "bob" })
      network.heal("alice")
      yield* quiet(alice, bob)
      for (const { m } of [alice, bob]) expect(m.get("k")).toEqual({ n: 7, by: "bob" })
      yield* areEqual(alice, bob)
    }).pipe(inWorld()))

  it.scoped("an accepted write whose acknowledgement was lost isn't rejected when it comes again, nor is it done twice", () =>
    Effect.gen(function*() {
      const { areEqual, enter, losing, network, quiet } = yield* worldOf(Resolvers.versionIncrement({ field: "v" }))
      const alice = yield* enter<object>("alice")
      const bob = yield* enter<object>("bob")
      yield* alice.m.set("mine", { v: 1 })
      yield* quiet(alice, bob)
      losing.answers = true
      yield* alice.m.set("k", { v: 1 })
      yield* alice.m.set("mine", { v: 7 })
      yield* (yield* VirtualClock.VirtualClock).runUntil(() => bob.m.get("k") !== undefined)
      losing.answers = false
      network.cut("alice")
      yield* bob.m.set("k", { v: 2 })
      yield* quiet(bob)
      network.heal("alice")
      yield* quiet(alice, bob)
      expect(rejectedOf(alice)).toEqual([["mine", "field \"v\" has to be one more than that of the record as it is"]])
      for (const { m } of [alice, bob]) expect(Object.fromEntries(m.entries())).toEqual({ k: { v: 2 }, mine: { v: 1 } })
      yield* areEqual(alice, bob)
    }).pipe(inWorld()))
})

describe("Devices that write to a map of a resolver's, come and go, and lose answers,", () => {
  interface Sighted {
    readonly value: number
    readonly accepted: Array<number>
    readonly rejected: number
  }

  /** A run of a seed: what all have in the end, and what became of the writes. */
  const run = (seed: number, resolve: Resolvers.Resolver, next: (known: number, random: PCGRandom) => number) =>
    Effect.gen(function*() {
      const random = new PCGRandom(seed)
      const { areEqual, clock, enter, losing, network, quiet } = yield* worldOf(resolve)
      const names = ["alice", "bob", "carol"].slice(0, 2 + seed % 2)
      const clients = yield* Effect.forEach(
        names,
        (name) => enter<{ n: number }>(name, { writeTimeoutMillis: 3_600_000 })
      )
      const accepted: Array<number> = []
      let rejected = 0
      for (let step = 0; step < 30; step++) {
        const client = clients[random.integer(clients.length)]!
        switch (random.integer(6)) {
          case 0:
            network.cut(client.name)
            break
          case 1:
            network.heal(client.name)
            break
          case 2:
            losing.answers = !losing.answers
            break
          case 3:
            yield* clock.advance(random.integer(3_000))
            break
          default: {
            const n = next(client.m.get("k")?.n ?? 0, random)
            const write = yield* client.m.set("k", { n })
            yield* Effect.forkScoped(Effect.match(write.server, {
              onFailure: () => rejected++,
              onSuccess: ({ superseded }) => superseded ? 0 : accepted.push(n)
            }))
          }
        }
      }
      losing.answers = false
      for (const { name } of clients) network.cut(name)
      yield* clock.advance(2 * Protocol.deadMillis)
      for (const { name } of clients) network.heal(name)
      yield* quiet(...clients)
      yield* areEqual(...clients)
      const values = clients.map(({ m }) => m.get("k")?.n ?? 0)
      expect([seed, new Set(values).size]).toEqual([seed, 1])
      return { value: values[0]!, accepted, rejected } satisfies Sighted
    }).pipe(Effect.scoped, World.provide({ seed }))

  const seeds = Array.from({ length: 25 }, (_, i) => i + 1)

  it.live("have all the greatest number that was accepted", () =>
    Effect.gen(function*() {
      let writes = 0
      for (const seed of seeds) {
        const { accepted, rejected, value } = yield* run(seed, Resolvers.numericMax({ field: "n" }), (_, random) =>
          random.integer(1_000))
        expect([seed, rejected, value]).toEqual([seed, 0, Math.max(0, ...accepted)])
        writes += accepted.length
      }
      expect(writes).toBeGreaterThan(100)
    }), 60_000)

  it.live("have counted each change that was accepted once", () =>
    Effect.gen(function*() {
      let refused = 0
      for (const seed of seeds) {
        const { accepted, rejected, value } = yield* run(seed, Resolvers.versionIncrement({ field: "n" }), (known) =>
          known + 1)
        expect([
          seed,
          accepted.sort((a, b) =>
            a - b
          )
        ]).toEqual([seed, Array.from({ length: value }, (_, i) => i + 1)])
        refused += rejected
      }
      expect(refused).toBeGreaterThan(20)
    }), 60_000)
})
