import { assert, describe, it } from "@effect/vitest"
import type { ConnectionLost } from "@topgun/core/GridError"
import type { Closed, Connection } from "@topgun/core/Transport"
import { Effect, Exit, Fiber, Layer, Scope } from "effect"
import * as SimulatedNetwork from "../src/SimulatedNetwork.ts"
import * as VirtualClock from "../src/VirtualClock.ts"

const address = "ws://server"

type Network = SimulatedNetwork.SimulatedNetwork["Type"]
type Clock = VirtualClock.VirtualClock["Type"]

/** What an end has seen, each entry with the ms since the start. */
interface Seen {
  readonly frames: Array<readonly [atMillis: number, first: number]>
  closed: (Closed & { readonly atMillis: number }) | undefined
}

/** The code of the end that was seen; asked anew each time, as it comes while the test waits. */
const codeOf = (seen: Seen): number | undefined => seen.closed?.code

/** A world with a server that accepts everyone and one client, `alice`. */
const world = <A, E>(
  program: (parts: {
    readonly network: Network
    readonly clock: Clock
    readonly elapsed: () => number
    readonly watch: (connection: Connection) => Seen
    readonly accepted: Array<Connection>
    readonly connect: (client?: string) => Effect.Effect<Connection, ConnectionLost, Scope.Scope>
    readonly connected: (client?: string) => Effect.Effect<Connection, ConnectionLost, Scope.Scope>
  }) => Effect.Effect<A, E, Scope.Scope>,
  options?: SimulatedNetwork.Options
): Effect.Effect<A, E> =>
  Effect.gen(function*() {
    const clock = yield* VirtualClock.VirtualClock
    const network = yield* SimulatedNetwork.SimulatedNetwork
    const start = clock.unsafeCurrentTimeMillis()
    const elapsed = () => clock.unsafeCurrentTimeMillis() - start
    const accepted: Array<Connection> = []
    network.listen(address, (connection) => accepted.push(connection))
    const connect = (client = "alice") => network.transport(client).connect(address)
    return yield* program({
      network,
      clock,
      elapsed,
      accepted,
      connect,
      connected: (client) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(connect(client))
          yield* clock.runUntil(() => fiber.unsafePoll() !== null)
          return yield* Fiber.join(fiber)
        }),
      watch: (connection) => {
        const seen: Seen = { frames: [], closed: undefined }
        connection.listen(
          (frame) => seen.frames.push([elapsed(), frame[0]!]),
          (closed) => {
            seen.closed = { ...closed, atMillis: elapsed() }
          }
        )
        return seen
      }
    })
  }).pipe(
    Effect.scoped,
    Effect.provide(Layer.provideMerge(SimulatedNetwork.layer(options), VirtualClock.layer()))
  )

/** All that happens to three clients in a bad network. */
const traceOf = (seed: number) => {
  const trace: Array<SimulatedNetwork.NetworkEvent> = []
  return Effect.as(
    world(({ accepted, clock, connect, network, watch }) =>
      Effect.gen(function*() {
        for (const name of ["alice", "bob", "carol"]) {
          yield* Effect.fork(
            Effect.gen(function*() {
              const connection = yield* connect(name)
              watch(connection)
              for (let i = 0; i < 20; i++) {
                connection.send(Uint8Array.of(i))
                yield* Effect.sleep(7)
              }
            }).pipe(Effect.scoped, Effect.ignore, Effect.forever)
          )
        }
        yield* clock.advance(500)
        network.cut("bob")
        yield* clock.advance(500)
        network.heal("bob")
        accepted.forEach((connection) => connection.send(Uint8Array.of(1)))
        yield* clock.advance(2_000)
      }), {
      seed,
      shape: { jitterMillis: 20, loss: 0.02, lossDetectedMillis: 300 },
      observe: (event) => trace.push(event)
    }),
    trace
  )
}

describe("SimulatedNetwork", () => {
  it.live("connects in a round trip and carries frames one way in the latency", () =>
    world(({ accepted, clock, connected, elapsed, network, watch }) =>
      Effect.gen(function*() {
        const client = yield* connected()
        assert.strictEqual(elapsed(), 20)
        const server = watch(accepted[0]!)
        const seen = watch(client)
        client.send(Uint8Array.of(1))
        client.send(Uint8Array.of(2))
        accepted[0]!.send(Uint8Array.of(3, 3))
        assert.strictEqual(client.bufferedBytes(), 2)
        yield* clock.advance(10)
        assert.strictEqual(client.bufferedBytes(), 0)
        assert.deepStrictEqual(server.frames, [[30, 1], [30, 2]])
        assert.deepStrictEqual(seen.frames, [[30, 3]])
        const traffic = network.traffic("alice", address)
        assert.strictEqual(traffic.connections, 1)
        assert.deepStrictEqual(traffic.toServer, {
          frames: 2,
          bytes: 2,
          framesDelivered: 2,
          bytesDelivered: 2,
          framesLost: 0
        })
        assert.strictEqual(traffic.toClient.bytesDelivered, 2)
      })
    ))

  it.live("delivers copies", () =>
    world(({ accepted, clock, connected, watch }) =>
      Effect.gen(function*() {
        const client = yield* connected()
        const server = watch(accepted[0]!)
        const frame = Uint8Array.of(1)
        client.send(frame)
        frame[0] = 9
        yield* clock.advance(10)
        assert.deepStrictEqual(server.frames, [[30, 1]])
      })
    ))

  it.live("keeps the order of a connection's frames whatever the jitter", () =>
    world(({ accepted, clock, connected, watch }) =>
      Effect.gen(function*() {
        const client = yield* connected()
        const server = watch(accepted[0]!)
        for (let i = 0; i < 100; i++) {
          client.send(Uint8Array.of(i))
          yield* clock.advance(1)
        }
        yield* clock.advance(100)
        assert.deepStrictEqual(server.frames.map(([, first]) => first), Array.from({ length: 100 }, (_, i) => i))
      }), { shape: { jitterMillis: 50, latencyMillis: 1 } }))

  it.live("lets frames overtake each other where a link is told to", () =>
    world(({ accepted, clock, connected, network, watch }) =>
      Effect.gen(function*() {
        const client = yield* connected()
        network.shape("alice", { jitterMillis: 50, reorder: true })
        const server = watch(accepted[0]!)
        for (let i = 0; i < 100; i++) client.send(Uint8Array.of(i))
        yield* clock.advance(100)
        const order = server.frames.map(([, first]) => first)
        assert.strictEqual(new Set(order).size, 100)
        assert.notDeepEqual(order, order.slice().sort((a, b) => a - b))
      })
    ))

  it.live("tells nobody of a cut, and resets what lost frames once it's healed", () =>
    world(({ accepted, clock, connected, network, watch }) =>
      Effect.gen(function*() {
        const client = yield* connected()
        const [seen, server] = [watch(client), watch(accepted[0]!)]
        client.send(Uint8Array.of(1))
        network.cut("alice")
        client.send(Uint8Array.of(2))
        yield* clock.advance("1 hour")
        assert.deepStrictEqual(server, { frames: [], closed: undefined })
        assert.isUndefined(seen.closed)
        network.heal("alice")
        client.send(Uint8Array.of(3))
        yield* clock.advance(10)
        assert.deepStrictEqual(server.frames, [])
        assert.strictEqual(codeOf(server), 1006)
        assert.strictEqual(codeOf(seen), 1006)
        assert.strictEqual(network.traffic("alice", address).toServer.framesLost, 3)
      })
    ))

  it.live("lets a connection that was silent in a cut go on after it", () =>
    world(({ accepted, clock, connected, network, watch }) =>
      Effect.gen(function*() {
        const client = yield* connected()
        const server = watch(accepted[0]!)
        network.cut(address)
        yield* clock.advance("1 minute")
        network.heal()
        client.send(Uint8Array.of(1))
        yield* clock.advance(10)
        assert.strictEqual(server.frames.length, 1)
      })
    ))

  it.live("cuts one way only where told to", () =>
    world(({ accepted, clock, connected, network, watch }) =>
      Effect.gen(function*() {
        const client = yield* connected()
        const [seen, server] = [watch(client), watch(accepted[0]!)]
        network.cut("alice", "toServer")
        client.send(Uint8Array.of(1))
        accepted[0]!.send(Uint8Array.of(2))
        yield* clock.advance(10)
        assert.deepStrictEqual([seen.frames.length, server.frames.length], [1, 0])
      })
    ))

  it.live("lets who connects in a cut wait until the attempt times out", () =>
    world(({ accepted, clock, connect, elapsed, network }) =>
      Effect.gen(function*() {
        network.cut("alice")
        const fiber = yield* Effect.fork(Effect.flip(connect()))
        yield* clock.advance(9_999)
        assert.isNull(fiber.unsafePoll())
        yield* clock.advance(1)
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "ConnectionLost")
        assert.strictEqual(elapsed(), 10_000)
        assert.strictEqual(accepted.length, 0)
      })
    ))

  it.live("ends the server's end of an attempt that the client gave up or was interrupted in", () =>
    world(({ accepted, clock, connect, network, watch }) =>
      Effect.gen(function*() {
        network.cut("alice", "toClient")
        const late = yield* Effect.fork(Effect.flip(connect()))
        yield* clock.advance(10)
        const server = watch(accepted[0]!)
        yield* clock.advance(10_000)
        yield* Fiber.join(late)
        assert.strictEqual(codeOf(server), 1006)
        network.heal()
        const interrupted = yield* Effect.fork(connect())
        yield* clock.advance(15)
        const second = watch(accepted[1]!)
        yield* Fiber.interrupt(interrupted)
        assert.strictEqual(codeOf(second), 1006)
        assert.strictEqual(network.connections("alice"), 0)
      })
    ))

  it.live("refuses who connects where nobody listens", () =>
    world(({ clock, elapsed, network }) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.flip(network.transport("alice").connect("ws://nowhere")))
        yield* clock.advance(20)
        assert.match((yield* Fiber.join(fiber)).message, /nobody listens at ws:\/\/nowhere/)
        assert.strictEqual(elapsed(), 20)
      })
    ))

  it.live("lets both ends see a reset at once", () =>
    world(({ accepted, connected, elapsed, network, watch }) =>
      Effect.gen(function*() {
        const alice = watch(yield* connected("alice"))
        const bob = watch(yield* connected("bob"))
        const [forAlice, forBob] = [watch(accepted[0]!), watch(accepted[1]!)]
        network.reset("alice")
        assert.deepStrictEqual([codeOf(alice), alice.closed?.atMillis], [1006, elapsed()])
        assert.deepStrictEqual([codeOf(forAlice), forAlice.closed?.atMillis], [1006, elapsed()])
        assert.deepStrictEqual([bob.closed, forBob.closed], [undefined, undefined])
        network.reset(address)
        assert.strictEqual(codeOf(bob), 1006)
      })
    ))

  it.live("loses a frame and all after it, and resets the connection when that is noticed", () =>
    world(({ accepted, clock, connected, network, watch }) =>
      Effect.gen(function*() {
        const client = yield* connected()
        const server = watch(accepted[0]!)
        network.shape("alice", { loss: 1, lossDetectedMillis: 5_000 })
        client.send(Uint8Array.of(1))
        network.shape("alice", { loss: 0 })
        client.send(Uint8Array.of(2))
        yield* clock.advance(4_999)
        assert.deepStrictEqual(server, { frames: [], closed: undefined })
        yield* clock.advance(1)
        assert.strictEqual(codeOf(server), 1006)
      })
    ))

  it.live("shows the closer's code behind the frames before it, and the closer its own end", () =>
    world(({ accepted, clock, connected, watch }) =>
      Effect.gen(function*() {
        const client = yield* connected()
        const [seen, server] = [watch(client), watch(accepted[0]!)]
        client.send(Uint8Array.of(1))
        client.close(4401, "no token")
        client.send(Uint8Array.of(2))
        yield* clock.advance(10)
        assert.deepStrictEqual(server.frames, [[30, 1]])
        assert.deepInclude({ ...server.closed! }, { code: 4401, reason: "no token", atMillis: 30 })
        assert.isUndefined(seen.closed)
        yield* clock.advance(10)
        assert.deepInclude({ ...seen.closed! }, { code: 4401, atMillis: 40 })
        assert.strictEqual(clock.sleepers(), 0)
      })
    ))

  it.live("ends the closer's side without an answer when there is a cut between", () =>
    world(({ clock, connected, network, watch }) =>
      Effect.gen(function*() {
        const client = yield* connected()
        const seen = watch(client)
        network.cut("alice")
        client.close(1000, "done")
        yield* clock.advance(29_999)
        assert.isUndefined(seen.closed)
        yield* clock.advance(1)
        assert.strictEqual(codeOf(seen), 1006)
      })
    ))

  it.live("keeps what a paused receiver doesn't take at the sender's cost, up to a bound", () =>
    world(({ accepted, clock, connected, watch }) =>
      Effect.gen(function*() {
        const client = yield* connected()
        const server = watch(accepted[0]!)
        accepted[0]!.pause(true)
        client.send(new Uint8Array(600))
        yield* clock.advance(1_000)
        assert.strictEqual(client.bufferedBytes(), 600)
        assert.strictEqual(server.frames.length, 0)
        accepted[0]!.pause(false)
        assert.strictEqual(client.bufferedBytes(), 0)
        assert.strictEqual(server.frames.length, 1)
        accepted[0]!.pause(true)
        client.send(new Uint8Array(600))
        client.send(new Uint8Array(600))
        assert.strictEqual(codeOf(server), 1006)
      }), { bufferBytesMax: 1_000 }))

  it.live("closes a connection with the scope that it was opened in", () =>
    world(({ accepted, clock, connected, network, watch }) =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        yield* Scope.extend(connected(), scope)
        const server = watch(accepted[0]!)
        yield* Scope.close(scope, Exit.void)
        yield* clock.advance(20)
        assert.strictEqual(codeOf(server), 1000)
        assert.strictEqual(network.connections("alice"), 0)
      })
    ))

  it.live("does the same again for the same seed, and something else for another", () =>
    Effect.gen(function*() {
      const [first, again, other] = [yield* traceOf(7), yield* traceOf(7), yield* traceOf(8)]
      assert.isAbove(first.length, 1_000)
      assert.deepStrictEqual(first, again)
      assert.notDeepEqual(first, other)
      const happened = new Set(first.map((event) => event.what))
      for (const what of ["connect", "open", "send", "deliver", "lose", "vanish", "reset", "close"] as const) {
        assert.isTrue(happened.has(what), what)
      }
    }))
})
