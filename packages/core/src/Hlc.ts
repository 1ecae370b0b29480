/** This node's hybrid logical clock, as a service. The arithmetic is in `Timestamp`. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import type { ClockSkewTooLarge } from "./GridError.ts"
import * as Timestamp from "./Timestamp.ts"

/**
 * The clock of one writer. Its wall time is Effect's `Clock` plus a correction that a client learns from its server.
 * All methods are synchronous on purpose: they run once per record.
 */
export class Hlc extends Context.Tag("@topgun/core/Hlc")<Hlc, {
  /** Who this clock stamps for. Known once the node's storage is open. */
  readonly nodeId: () => string
  /** Wall time as this clock sees it, in ms. */
  readonly wallMillis: () => number
  /** The latest stamp that was issued or seen. */
  readonly unsafeLatest: () => { readonly millis: number; readonly counter: number }
  /** The next stamp, greater than every one issued or seen. */
  readonly unsafeTick: () => Timestamp.Timestamp
  /** Take note of a stamp from the network; one beyond the drift bound is refused and changes nothing. */
  readonly unsafeReceive: (
    remote: { readonly millis: number; readonly counter: number }
  ) => Either.Either<void, ClockSkewTooLarge>
  /** Take note of a stamp of this node's own storage; never refused. */
  readonly unsafeRaise: (seen: { readonly millis: number; readonly counter: number }) => void
  /**
   * Become the writer `nodeId`, as its storage remembers it, above everything that writer may have issued. Another writer
   * than before begins anew, below what the one before had come to: so a device whose clock was wrong goes on under a new
   * id once the clock is right. What its storage holds it has to be told of again, by `unsafeRaise`.
   */
  readonly unsafeAdopt: (nodeId: string, issuedUpToMillis: number) => void
  /** Correct wall time by this many ms (the server's clock minus this node's). */
  readonly unsafeCorrect: (millis: number) => void
}>() {}

const alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"

/** A new node id: 16 characters of `[0-9a-z]`, 82 bits: one in a million that 2 of 3 billion devices share one. */
export const makeNodeId: Effect.Effect<string> = Effect.gen(function*() {
  let id = ""
  for (let i = 0; i < Timestamp.nodeIdLength; i++) {
    id += alphabet[yield* Random.nextIntBetween(0, alphabet.length)]
  }
  return id
})

/** A clock for `nodeId`, or for a new node id where none is given. */
export const make = Effect.fnUntraced(function*(options: { readonly nodeId?: string } = {}) {
  const clock = yield* Effect.clock
  let last: Timestamp.Timestamp = { millis: 0, counter: 0, nodeId: options.nodeId ?? (yield* makeNodeId) }
  let correction = 0
  const wallMillis = () => Math.max(0, Math.floor(clock.unsafeCurrentTimeMillis() + correction))
  return Hlc.of({
    nodeId: () => last.nodeId,
    wallMillis,
    unsafeLatest: () => last,
    unsafeTick: () => last = Timestamp.tick(last, wallMillis()),
    unsafeReceive: (remote) =>
      Either.map(Timestamp.receive(last, remote, wallMillis()), (next) => {
        last = next
      }),
    unsafeRaise: (seen) => {
      last = Timestamp.raise(last, seen)
    },
    unsafeAdopt: (nodeId, issuedUpToMillis) => {
      const start = { millis: issuedUpToMillis, counter: Timestamp.counterMax, nodeId }
      last = nodeId === last.nodeId ? Timestamp.raise(last, start) : start
    },
    unsafeCorrect: (millis) => {
      correction = millis
    }
  })
})

/** A clock of its own node id, over Effect's `Clock`. */
export const layer = (options: { readonly nodeId?: string } = {}): Layer.Layer<Hlc> => Layer.effect(Hlc, make(options))
