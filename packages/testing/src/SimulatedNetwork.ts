/**
 * A network within one process that a test can break, and that breaks the same way again for the same seed.
 *
 * Parties are named: a client by the name that its transport was made for, a server by the address it listens at. Between
 * a client and an address lies a link, with a latency each way, jitter and loss; a connection over it behaves as TCP
 * does: frames arrive whole, in order, or not at all, and whoever is cut off isn't told. Time is Effect's `Clock`, so that
 * a `VirtualClock` drives it; chance is one generator, asked in the order of events.
 *
 * | what happens | what the two ends see |
 * |---|---|
 * | `cut` | nothing: frames vanish; who connects waits until the attempt times out. After `heal`, connections that lost a frame are reset, the others go on |
 * | `reset` | both see the end, 1006, at once |
 * | a frame is lost (`loss`) | it and all after it never arrive; both see the end, 1006, after `lossDetectedMillis` |
 * | nobody listens | who connects is refused after a round trip |
 * | an end closes | the other sees its code behind the frames before; the closer itself after a round trip, or with 1006 after {@link closingMillisMax} when no answer comes |
 * | too much under way | the connection is reset at `bufferBytesMax` |
 *
 * What a receiver that has paused doesn't take stays under way and counts as buffered at the sender.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { PCGRandom } from "effect/Utils"
import { ConnectionLost } from "@topgun/core/GridError"
import type { Address } from "@topgun/core/PartitionRouter"
import { type Closed, type Connection, makeDrain, makeInbox, Transport } from "@topgun/core/Transport"

/** How a link behaves. */
export interface Shape {
  /** One way, in ms. @default 10 */
  readonly latencyMillis: number
  /** Up to this many ms are added to each frame's latency, by chance. @default 0 */
  readonly jitterMillis: number
  /** Part of frames that are lost, in [0, 1]. @default 0 */
  readonly loss: number
  /** When the ends of a connection that lost a frame see it end, in ms after the loss. @default 15000 */
  readonly lossDetectedMillis: number
  /**
   * Whether frames of one connection may overtake each other, by their jitter. No TCP does that: it's for protocols that
   * claim not to mind. @default false
   */
  readonly reorder: boolean
}

export const shapeDefault: Shape = {
  latencyMillis: 10,
  jitterMillis: 0,
  loss: 0,
  lossDetectedMillis: 15_000,
  reorder: false
}

export interface Options {
  /** Decides all that is left to chance. Print it when a test fails. @default 1 */
  readonly seed?: number
  /** What links are like unless shaped otherwise. */
  readonly shape?: Partial<Shape>
  /** When an attempt to connect that isn't answered fails, in ms. @default 10000 */
  readonly connectMillisMax?: number
  /** Bytes under way on one connection and direction at which it is reset. @default 64 MiB */
  readonly bufferBytesMax?: number
  /** Told of all that happens, in order: the trace. */
  readonly observe?: (event: NetworkEvent) => void
}

/** How long an end that closes waits for the other's answer, in ms. */
export const closingMillisMax = 30_000

export type Direction = "toServer" | "toClient"

/** One thing that happened. Equal seeds and programs give equal sequences of them. */
export interface NetworkEvent {
  readonly atMillis: number
  readonly client: string
  readonly address: Address
  /** Counts the connections of the network. */
  readonly connection: number
  readonly what:
    | "connect"
    | "open"
    | "refused"
    | "timeout"
    | "send"
    | "deliver"
    | "vanish"
    | "lose"
    | "close"
    | "reset"
  /** Of a frame. */
  readonly direction?: Direction
  /** Of a frame. */
  readonly bytes?: number
}

/** What went over a link in one direction. */
export interface Traffic {
  /** Handed over for sending. */
  readonly frames: number
  readonly bytes: number
  readonly framesDelivered: number
  readonly bytesDelivered: number
  /** Vanished in a cut, lost, or under way when the connection ended. */
  readonly framesLost: number
}

export interface LinkTraffic {
  /** Connections that were opened. */
  readonly connections: number
  readonly toServer: Traffic
  readonly toClient: Traffic
}

/** A simulated network. All but connecting is plain calls, to be made from anywhere in a test. */
export class SimulatedNetwork extends Context.Tag("@topgun/testing/SimulatedNetwork")<SimulatedNetwork, {
  readonly seed: number
  /** The transport of a client. Its addresses are those that somebody listens at. */
  readonly transport: (client: string) => Context.Tag.Service<Transport>
  /** {@link transport} as a layer. */
  readonly layerTransport: (client: string) => Layer.Layer<Transport>
  /** Lets `accept` have the other end of each connection to an address; answers how to stop. One listener an address. */
  readonly listen: (address: Address, accept: (connection: Connection) => void) => () => void
  /** Shapes the links of a client or an address, from the next frame on. */
  readonly shape: (party: string, shape: Partial<Shape>) => void
  /** Cuts a client or an address off, both ways or one. Nobody is told. */
  readonly cut: (party: string, direction?: Direction) => void
  /** Ends cuts: of one party, or all. */
  readonly heal: (party?: string) => void
  /** Ends all connections of a client or an address at once, as when its process dies. */
  readonly reset: (party: string) => void
  /** How many connections of a client or an address are open. */
  readonly connections: (party: string) => number
  /** What went between a client and an address so far. */
  readonly traffic: (client: string, address: Address) => LinkTraffic
}>() {}

type Mutable<A> = { -readonly [Key in keyof A]: A[Key] }

interface Link {
  readonly client: string
  readonly address: Address
  connections: number
  readonly toServer: Mutable<Traffic>
  readonly toClient: Mutable<Traffic>
}

/** A frame, or the end, on its way. */
interface Parcel {
  readonly frame: Uint8Array | undefined
  readonly closed: Closed | undefined
  /** The end that answers the other's: the last that is sent. */
  readonly answers: boolean
  due: boolean
}

/** One direction of a connection. */
interface Lane {
  readonly direction: Direction
  readonly traffic: Mutable<Traffic>
  readonly inbox: ReturnType<typeof makeInbox>
  readonly drain: ReturnType<typeof makeDrain>
  readonly parcels: Array<Parcel>
  bytes: number
  paused: boolean
  /** When the last parcel arrives; later ones arrive no earlier. */
  lastArrival: number
  /** A parcel was lost: none after it arrives. */
  broken: boolean
}

/** A connection as the network sees it. */
interface Wire {
  readonly id: number
  readonly link: Link
  readonly toServer: Lane
  readonly toClient: Lane
  /** An end has closed: nothing more is sent from there. */
  readonly closedBy: { toServer: boolean; toClient: boolean }
  /** Resets to come; off when the connection has ended. */
  readonly timers: Array<Fiber.RuntimeFiber<void>>
  ended: boolean
}

const noTraffic = (): Mutable<Traffic> => ({
  frames: 0,
  bytes: 0,
  framesDelivered: 0,
  bytesDelivered: 0,
  framesLost: 0
})

const abnormal: Closed = { code: 1006, reason: "the connection was reset" }

const makeLane = (direction: Direction, traffic: Mutable<Traffic>): Lane => {
  const lane: Lane = {
    direction,
    traffic,
    inbox: makeInbox(),
    drain: makeDrain(() => lane.bytes),
    parcels: [],
    bytes: 0,
    paused: false,
    lastArrival: 0,
    broken: false
  }
  return lane
}

const dropAll = (lane: Lane): void => {
  for (const { frame } of lane.parcels) if (frame !== undefined) lane.traffic.framesLost++
  lane.parcels.length = 0
  lane.bytes = 0
}

/** A network whose connections end with the scope. */
export const make = Effect.fnUntraced(function*(options: Options = {}) {
  const seed = options.seed ?? 1
  const connectMillisMax = options.connectMillisMax ?? 10_000
  const bufferBytesMax = options.bufferBytesMax ?? 64 * 1024 * 1024
  const random = new PCGRandom(seed)
  const clock = yield* Effect.clock
  const fork = yield* FiberSet.makeRuntime<never>()

  const links = new Map<string, Link>()
  const shapes = new Map<string, Shape>()
  const cuts = new Map<string, Set<Direction>>()
  const listeners = new Map<Address, (connection: Connection) => void>()
  const wires = new Set<Wire>()
  let wireCount = 0

  const now = () => clock.unsafeCurrentTimeMillis()
  const after = (millis: number, run: () => void): Fiber.RuntimeFiber<void> =>
    fork(Effect.zipRight(clock.sleep(Duration.millis(millis)), Effect.sync(run)))

  const linkOf = (client: string, address: Address): Link => {
    const name = JSON.stringify([client, address])
    let link = links.get(name)
    if (link === undefined) {
      link = { client, address, connections: 0, toServer: noTraffic(), toClient: noTraffic() }
      links.set(name, link)
    }
    return link
  }
  const shapeOf = ({ address, client }: Link): Shape =>
    shapes.get(client) ?? shapes.get(address) ?? { ...shapeDefault, ...options.shape }
  const isCut = ({ address, client }: Link, direction: Direction): boolean =>
    (cuts.get(client)?.has(direction) ?? false) || (cuts.get(address)?.has(direction) ?? false)
  const isAt = (link: Link, party: string): boolean => link.client === party || link.address === party
  const latency = ({ jitterMillis, latencyMillis }: Shape): number =>
    latencyMillis + (jitterMillis > 0 ? random.number() * jitterMillis : 0)

  const observe = (
    link: Link,
    connection: number,
    what: NetworkEvent["what"],
    frame?: { readonly direction: Direction; readonly bytes: number }
  ): void =>
    options.observe?.({
      atMillis: now(),
      client: link.client,
      address: link.address,
      connection,
      what,
      ...frame
    })

  const end = (wire: Wire): void => {
    wire.ended = true
    wires.delete(wire)
    for (const timer of wire.timers) timer.unsafeInterruptAsFork(FiberId.none)
    dropAll(wire.toServer)
    dropAll(wire.toClient)
  }

  const resetAfter = (wire: Wire, millis: number): void => {
    wire.timers.push(after(millis, () => reset(wire)))
  }

  const reset = (wire: Wire): void => {
    if (wire.ended) return
    end(wire)
    observe(wire.link, wire.id, "reset")
    wire.toServer.inbox.end(abnormal)
    wire.toClient.inbox.end(abnormal)
  }

  const deliver = (wire: Wire, lane: Lane, parcel: Parcel): void => {
    if (parcel.closed !== undefined) {
      const back = lane === wire.toServer ? wire.toClient : wire.toServer
      if (parcel.answers) end(wire)
      else {
        // Answered, so that the closer sees the end too, if that gets through.
        wire.closedBy[back.direction] = true
        post(wire, back, { frame: undefined, closed: parcel.closed, answers: true, due: false })
      }
      lane.inbox.end(parcel.closed)
      return
    }
    const frame = parcel.frame!
    lane.bytes -= frame.length
    lane.traffic.framesDelivered++
    lane.traffic.bytesDelivered += frame.length
    observe(wire.link, wire.id, "deliver", { direction: lane.direction, bytes: frame.length })
    lane.drain.left()
    if (!lane.inbox.deliver(frame)) reset(wire)
  }

  /** Delivers what is due, in order; a paused receiver takes no frames. */
  const flush = (wire: Wire, lane: Lane): void => {
    while (!wire.ended && !lane.paused && lane.parcels[0]?.due === true) deliver(wire, lane, lane.parcels.shift()!)
  }

  const arrive = (wire: Wire, lane: Lane, parcel: Parcel): void => {
    if (wire.ended) return
    const { reorder } = shapeOf(wire.link)
    const at = reorder && parcel.frame !== undefined && !lane.paused ? lane.parcels.indexOf(parcel) : -1
    if (at > 0) {
      lane.parcels.splice(at, 1)
      deliver(wire, lane, parcel)
      return
    }
    parcel.due = true
    flush(wire, lane)
  }

  const post = (wire: Wire, lane: Lane, parcel: Parcel): void => {
    if (wire.ended) return
    const shape = shapeOf(wire.link)
    const bytes = parcel.frame?.length ?? 0
    const note = (what: "vanish" | "lose"): void => {
      lane.broken = true
      if (parcel.frame === undefined) return
      lane.traffic.framesLost++
      observe(wire.link, wire.id, what, { direction: lane.direction, bytes })
    }
    if (lane.broken || isCut(wire.link, lane.direction)) return note("vanish")
    if (shape.loss > 0 && random.number() < shape.loss) {
      resetAfter(wire, shape.lossDetectedMillis)
      return note("lose")
    }
    if (lane.bytes + bytes > bufferBytesMax) return reset(wire)
    const arrival = now() + latency(shape)
    lane.lastArrival = shape.reorder ? arrival : Math.max(arrival, lane.lastArrival)
    lane.bytes += bytes
    lane.parcels.push(parcel)
    after(lane.lastArrival - now(), () => arriveUnlessCut(wire, lane, parcel))
  }

  /** What is on its way when the cut comes vanishes too. */
  const arriveUnlessCut = (wire: Wire, lane: Lane, parcel: Parcel): void => {
    if (wire.ended) return
    if (!lane.broken && !isCut(wire.link, lane.direction)) return arrive(wire, lane, parcel)
    const at = lane.parcels.indexOf(parcel)
    if (at < 0) return
    lane.parcels.splice(at, 1)
    lane.broken = true
    if (parcel.frame === undefined) return
    lane.bytes -= parcel.frame.length
    lane.traffic.framesLost++
    observe(wire.link, wire.id, "vanish", { direction: lane.direction, bytes: parcel.frame.length })
    lane.drain.left()
  }

  const endOf = (wire: Wire, out: Lane, into: Lane): Connection => ({
    send: (frame) => {
      if (wire.ended || wire.closedBy[out.direction]) return
      out.traffic.frames++
      out.traffic.bytes += frame.length
      observe(wire.link, wire.id, "send", { direction: out.direction, bytes: frame.length })
      // A copy, as of a wire: the sender may use its buffer again. Not `slice`, which in a Buffer shares the memory.
      post(wire, out, { frame: new Uint8Array(frame), closed: undefined, answers: false, due: false })
    },
    bufferedBytes: () => out.bytes,
    whenDrained: out.drain.whenDrained,
    listen: into.inbox.listen,
    pause: (paused) => {
      into.paused = paused
      flush(wire, into)
    },
    close: (code, reason) => {
      if (wire.ended || wire.closedBy[out.direction]) return
      wire.closedBy[out.direction] = true
      observe(wire.link, wire.id, "close")
      post(wire, out, { frame: undefined, closed: { code, reason }, answers: false, due: false })
      resetAfter(wire, closingMillisMax)
    }
  })

  const connect = (client: string, address: Address): Effect.Effect<Connection, ConnectionLost, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.suspend(() => {
        const link = linkOf(client, address)
        const id = ++wireCount
        const opened = Deferred.unsafeMake<Connection, ConnectionLost>(FiberId.none)
        let wire: Wire | undefined
        let abandoned = false
        observe(link, id, "connect")
        const through = (direction: Direction, run: () => void): void => {
          if (isCut(link, direction)) return
          after(latency(shapeOf(link)), () => {
            if (!abandoned && !isCut(link, direction)) run()
          })
        }
        through("toServer", () => {
          const accept = listeners.get(address)
          if (accept === undefined) {
            through("toClient", () => {
              observe(link, id, "refused")
              Deferred.unsafeDone(
                opened,
                Effect.fail(new ConnectionLost({ reason: `nobody listens at ${address}`, closeCode: 1006 }))
              )
            })
            return
          }
          const accepted = makeWire(link, id)
          wire = accepted
          wires.add(accepted)
          accept(endOf(accepted, accepted.toClient, accepted.toServer))
          through("toClient", () => {
            if (accepted.ended) {
              Deferred.unsafeDone(opened, Effect.fail(new ConnectionLost({ reason: abnormal.reason, closeCode: 1006 })))
              return
            }
            link.connections++
            observe(link, id, "open")
            Deferred.unsafeDone(opened, Effect.succeed(endOf(accepted, accepted.toServer, accepted.toClient)))
          })
        })
        const giveUp = (what?: "timeout") => {
          abandoned = true
          if (what !== undefined) observe(link, id, what)
          if (wire !== undefined) reset(wire)
        }
        return Deferred.await(opened).pipe(
          Effect.timeoutFail({
            duration: connectMillisMax,
            onTimeout: () => {
              giveUp("timeout")
              return new ConnectionLost({ reason: `${address} did not answer within ${connectMillisMax} ms` })
            }
          }),
          Effect.withClock(clock),
          Effect.interruptible,
          Effect.onInterrupt(() => Effect.sync(() => giveUp()))
        )
      }),
      (connection) => Effect.sync(() => connection.close(1000, "closed"))
    )

  const makeWire = (link: Link, id: number): Wire => ({
    id,
    link,
    toServer: makeLane("toServer", link.toServer),
    toClient: makeLane("toClient", link.toClient),
    closedBy: { toServer: false, toClient: false },
    timers: [],
    ended: false
  })

  yield* Effect.addFinalizer(() => Effect.sync(() => Array.from(wires).forEach(reset)))

  const transport = (client: string) => Transport.of({ connect: (address) => connect(client, address) })
  return SimulatedNetwork.of({
    seed,
    transport,
    layerTransport: (client) => Layer.succeed(Transport, transport(client)),
    listen: (address, accept) => {
      if (listeners.has(address)) throw new Error(`somebody listens at ${address} already`)
      listeners.set(address, accept)
      return () => {
        if (listeners.get(address) === accept) listeners.delete(address)
      }
    },
    shape: (party, shape) => {
      shapes.set(party, { ...shapeDefault, ...options.shape, ...shapes.get(party), ...shape })
    },
    cut: (party, direction) => {
      const directions = cuts.get(party) ?? new Set()
      if (direction !== "toClient") directions.add("toServer")
      if (direction !== "toServer") directions.add("toClient")
      cuts.set(party, directions)
    },
    heal: (party) => {
      if (party === undefined) cuts.clear()
      else cuts.delete(party)
      for (const wire of Array.from(wires)) {
        if (!wire.toServer.broken && !wire.toClient.broken) continue
        if (isCut(wire.link, "toServer") || isCut(wire.link, "toClient")) continue
        resetAfter(wire, latency(shapeOf(wire.link)))
      }
    },
    reset: (party) => {
      for (const wire of Array.from(wires)) if (isAt(wire.link, party)) reset(wire)
    },
    connections: (party) => Array.from(wires).filter((wire) => isAt(wire.link, party)).length,
    traffic: (client, address) => {
      const { connections, toClient, toServer } = linkOf(client, address)
      return { connections, toServer: { ...toServer }, toClient: { ...toClient } }
    }
  })
})

/** A network whose connections end with the layer. */
export const layer = (options: Options = {}): Layer.Layer<SimulatedNetwork> =>
  Layer.scoped(SimulatedNetwork, make(options))
