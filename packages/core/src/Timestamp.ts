/**
 * Hybrid logical time (Kulkarni, Demirbas, Madappa, Avva, Leone 2014, "Logical Physical Clocks"): wall time where it
 * moves, a counter where it does not, and the node that made it, so that no two stamps are equal.
 *
 * The order of stamps, of their text and of their bytes is one and the same: millis, counter, node id, byte by byte.
 */
import * as Either from "effect/Either"
import { ClockSkewTooLarge, MalformedMessage } from "./GridError.ts"

/** A point in hybrid logical time. */
export interface Timestamp {
  /** Wall time in ms since 1970, an integer in [0, 2^48). */
  readonly millis: number
  /** Order within one `millis`, an integer in [0, 65535]. */
  readonly counter: number
  /** The node that issued the stamp: 16 characters of `[0-9a-z]`. */
  readonly nodeId: string
}

/** The greatest `millis`: of the year 10889. */
export const millisMax = 2 ** 48 - 1
/** The greatest `counter`. */
export const counterMax = 0xffff
/** Characters of a node id. */
export const nodeIdLength = 16

/** How far ahead of the receiver's clock a stamp from the network may lie, in ms. */
export const driftMillisMax = 60_000

const nodeIdGrammar = /^[0-9a-z]{16}$/

/** Whether a value is a node id: 16 characters of `[0-9a-z]`. */
export const isNodeId = (value: unknown): value is string => typeof value === "string" && nodeIdGrammar.test(value)

/** Whether the three fields are in their ranges and of their grammar. */
export const isValid = (value: Timestamp): boolean =>
  Number.isInteger(value.millis) && value.millis >= 0 && value.millis <= millisMax &&
  Number.isInteger(value.counter) && value.counter >= 0 && value.counter <= counterMax &&
  isNodeId(value.nodeId)

/**
 * The next local stamp. A counter that is used up moves on to the next millisecond, so no two stamps are ever equal.
 *
 * @throws RangeError after the greatest stamp there is, of the year 10889: only corrupt storage leads there.
 */
export const tick = (last: Timestamp, wallMillis: number): Timestamp =>
  wallMillis > last.millis
    ? { millis: wallMillis, counter: 0, nodeId: last.nodeId }
    : last.counter < counterMax
    ? { millis: last.millis, counter: last.counter + 1, nodeId: last.nodeId }
    : { millis: millisAfter(last.millis), counter: 0, nodeId: last.nodeId }

const millisAfter = (millis: number): number => {
  if (millis >= millisMax) throw new RangeError("The clock has no stamps left: its storage holds one of the year 10889")
  return millis + 1
}

/** How far a stamp is beyond what `wallMillis` allows, in ms; 0 when it is acceptable. */
export const excessMillis = (millis: number, wallMillis: number): number => {
  const ahead = millis - wallMillis
  return ahead > driftMillisMax ? ahead : 0
}

/**
 * The clock after it has seen a stamp from the network: not below either. A stamp beyond the drift bound is refused and
 * changes nothing.
 */
export const receive = (
  last: Timestamp,
  remote: { readonly millis: number; readonly counter: number },
  wallMillis: number
): Either.Either<Timestamp, ClockSkewTooLarge> => {
  const ahead = excessMillis(remote.millis, wallMillis)
  return ahead > 0
    ? Either.left(new ClockSkewTooLarge({ aheadMillis: ahead, driftMillisMax }))
    : Either.right(raise(last, remote))
}

/** The clock after it has seen a stamp of its own storage, which is never refused. */
export const raise = (last: Timestamp, seen: { readonly millis: number; readonly counter: number }): Timestamp =>
  seen.millis > last.millis || (seen.millis === last.millis && seen.counter > last.counter)
    ? { millis: seen.millis, counter: seen.counter, nodeId: last.nodeId }
    : last

/** The order of stamps: negative, zero or positive. */
export const compare = (a: Timestamp, b: Timestamp): number =>
  a.millis !== b.millis
    ? a.millis - b.millis
    : a.counter !== b.counter
    ? a.counter - b.counter
    : a.nodeId < b.nodeId
    ? -1
    : a.nodeId > b.nodeId
    ? 1
    : 0

/** The characters of {@link format}. */
export const textLength = 16 + nodeIdLength

/** Fixed-width text, 12 hex digits of millis, 4 of counter, then the node id; sorts as the stamps do. */
export const format = (stamp: Timestamp): string =>
  stamp.millis.toString(16).padStart(12, "0") + stamp.counter.toString(16).padStart(4, "0") + stamp.nodeId

const textGrammar = /^[0-9a-f]{16}[0-9a-z]{16}$/

/** The inverse of {@link format}. */
export const parse = (text: string): Either.Either<Timestamp, MalformedMessage> =>
  textGrammar.test(text)
    ? Either.right({
      millis: Number.parseInt(text.slice(0, 12), 16),
      counter: Number.parseInt(text.slice(12, 16), 16),
      nodeId: text.slice(16)
    })
    : Either.left(new MalformedMessage({ reason: `not a timestamp: ${JSON.stringify(text.slice(0, 40))}` }))
