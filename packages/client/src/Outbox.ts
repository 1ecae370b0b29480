/**
 * The operations of this device that the server doesn't durably have yet, in the order of their sequence numbers. It never
 * merges; what an answer means for the data is for its listener to do.
 *
 * An operation waits in the line (coalesced: one a key), is in flight once it is sent, is acknowledged at a level, and ends
 * with the server's durable mark or a rejection. A connection that ends puts nothing back: what is in flight is sent again,
 * as it is, on the next one. An operation that may have been sent is never coalesced.
 */
import * as Backpressure from "@topgun/core/Backpressure"
import { Indeterminate, WriteDropped, type WriteFailure, WriteRejected, WriteTimeout } from "@topgun/core/GridError"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import * as Rows from "@topgun/core/LwwRecord"
import type { Operation } from "@topgun/core/Operation"
import * as Value from "@topgun/core/Value"
import { AckQueue, isReached, type Outcome, stronger, type Waiter, type WriteConcern } from "@topgun/core/WriteConcern"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { Journal } from "./Journal.ts"
import { spaces } from "./Journal.ts"
import { Signal } from "./Signal.ts"

/** Operations sent and not ended, at most. Higher hides a longer way to the server, at 0.5 kB of memory each. */
export const inFlightMax = 1_000

/** An operation on its way. */
export interface Pending {
  readonly sequence: number
  readonly map: string
  readonly key: string
  /** What is sent. */
  record: LwwRecord
  /** The record as it was written: `record`, unless that one has been stamped anew. */
  written: LwwRecord
  concern: WriteConcern
  /** When the oldest write in it was made, in ms. */
  readonly since: number
  /** What has become of it so far, for those who ask later: the level it has reached, or why it never will. */
  outcome: Either.Either<Outcome, WriteFailure> | undefined
  /** `line`: waits to be sent. `flight`: sent, or may have been. `ended`: durable, rejected or dropped. */
  stage: "line" | "flight" | "ended"
  /** Acknowledged on the present connection. */
  acked: boolean
  /** It was on its way when the server refused a stamp: on the connection after that its own was judged by the server's time. */
  early: boolean
  /** Offered again after a tree walk: not in the log, as the next walk would find it again. */
  readonly offered: boolean
  /** The operation of its key before this one, where that hadn't ended: skip those that have by {@link pendingOf}. */
  earlier: Pending | undefined
}

/** The first of an operation and those before it that hasn't ended. */
const pendingOf = (operation: Pending | undefined): Pending | undefined => {
  let each = operation
  while (each?.stage === "ended") each = each.earlier
  return each
}

export interface Listener {
  /** The server has the operation's record. */
  readonly onAccepted: (operation: Pending) => void
  /** The operation will never be applied; `remaining` is the latest other operation of its key that still may. */
  readonly onUndone: (operation: Pending, remaining: Pending | undefined, failure: WriteFailure) => void
  /** The operation ended well; its key's rows may need writing. */
  readonly onEnded: (operation: Pending) => void
  readonly onHighWater: (pending: number) => void
  readonly onLowWater: (pending: number) => void
  readonly onChange: () => void
}

/** What storage keeps of an operation. */
export interface StoredOperation extends Operation {
  /** When the oldest write in it was made, in ms. */
  readonly since: number
}

const format = 1

/** What storage adds to an operation's value: its record's head, its map, its key, at most. */
const envelopeBytesMax = 8 * 1024

/** Storage keys sort as sequence numbers do. */
const storageKey = (sequence: number): string => sequence.toString(16).padStart(14, "0")

const encode = (operation: Pending): Uint8Array =>
  Value.encode([
    format,
    operation.sequence,
    operation.map,
    operation.key,
    operation.record.row,
    operation.concern,
    operation.since
  ], Value.valueBytesMax + envelopeBytesMax)

/** An operation from storage; `undefined` for bytes that are not one. */
export const decode = (bytes: Uint8Array): StoredOperation | undefined => {
  const row = Value.decode(bytes)
  if (!Array.isArray(row) || row[0] !== format || row.length !== 7) return undefined
  const [, sequence, map, key, record, concern, since] = row as [
    number,
    number,
    string,
    string,
    Uint8Array,
    never,
    number
  ]
  return { sequence, map, key, record: Rows.decode(record), concern, since }
}

/** Makes the outbox of one device, whose next operation gets `nextSequence`. */
export const make = Effect.fnUntraced(function*(options: {
  readonly backpressure: Backpressure.Options
  readonly nextSequence: number
  readonly now: () => number
  readonly journal: Pick<Journal, "stageRow">
  readonly listener: Listener
}) {
  const { journal, listener } = options
  let nextSequence = options.nextSequence
  const acks = new AckQueue(options.backpressure.capacity + inFlightMax)
  const awaited = new Signal()
  /** The latest operation of each key that has not ended. */
  const latest = new Map<string, Map<string, Pending>>()
  const flight = new Map<number, Pending>()
  /** Keys to offer again: their records are read when there is room to send them. */
  let offers: Array<readonly [map: string, key: string]> = []
  let live = 0
  let closed: WriteFailure | undefined
  const room = Effect.unsafeMakeLatch(true)
  const offered = Effect.unsafeMakeLatch(false)

  const setRoom = () => flight.size < inFlightMax ? room.unsafeOpen() : room.unsafeClose()

  const latestOf = (map: string, key: string): Pending | undefined => latest.get(map)?.get(key)

  const track = (operation: Pending): void => {
    const keys = latest.get(operation.map)
    operation.earlier = keys?.get(operation.key)
    if (keys === undefined) latest.set(operation.map, new Map([[operation.key, operation]]))
    else keys.set(operation.key, operation)
  }

  const end = (operation: Pending): void => {
    operation.stage = "ended"
    if (!operation.offered) {
      live--
      journal.stageRow({ space: spaces.outbox, key: storageKey(operation.sequence), value: undefined })
    }
    // Shortened at every end, so that a key which is never at rest drags no chain of ended operations along.
    operation.earlier = pendingOf(operation.earlier)
    if (latestOf(operation.map, operation.key) === operation) {
      if (operation.earlier === undefined) latest.get(operation.map)!.delete(operation.key)
      else latest.get(operation.map)!.set(operation.key, operation.earlier)
    }
    if (flight.delete(operation.sequence)) setRoom()
    listener.onChange()
  }

  const undo = (operation: Pending, failure: WriteFailure): void => {
    end(operation)
    listener.onUndone(operation, latestOf(operation.map, operation.key), failure)
    operation.outcome = Either.left(failure)
    acks.failed(operation.sequence, failure)
  }

  const line = yield* Backpressure.make<Pending>(options.backpressure, {
    onDrop: (operation) => undo(operation, new WriteDropped({ map: operation.map, key: operation.key })),
    onHighWater: listener.onHighWater,
    onLowWater: listener.onLowWater
  })

  // Field by field: what V8 makes of a spread is three times as slow to make, and slower to use ever after.
  const pending = (stored: StoredOperation, isOffer = false): Pending => ({
    sequence: stored.sequence,
    map: stored.map,
    key: stored.key,
    record: stored.record,
    concern: stored.concern,
    since: stored.since,
    written: stored.record,
    offered: isOffer,
    outcome: undefined,
    stage: "line",
    acked: false,
    early: false,
    earlier: undefined
  })

  /** The next operation of this device. */
  const issue = (map: string, key: string, record: LwwRecord, concern: WriteConcern, isOffer = false): Pending =>
    pending({ sequence: nextSequence++, map, key, record, concern, since: options.now() }, isOffer)

  const log = (operation: Pending): void =>
    journal.stageRow({ space: spaces.outbox, key: storageKey(operation.sequence), value: encode(operation) })

  /** Puts an operation in flight that never stood in the line. */
  const launch = (operation: Pending): void => {
    operation.stage = "flight"
    if (!operation.offered) live++
    track(operation)
    flight.set(operation.sequence, operation)
    setRoom()
  }

  const reach = (operation: Pending, level: WriteConcern, replicas: number): void => {
    operation.outcome = Either.right({ level, replicas })
    acks.reached(operation.sequence, level, replicas)
  }

  const takeOffers = (
    max: number,
    confirmed: (map: string, key: string) => LwwRecord | undefined
  ): ReadonlyArray<Pending> => {
    const taken: Array<Pending> = []
    for (const [map, key] of offers.splice(0, Math.min(max, inFlightMax - flight.size))) {
      const record = confirmed(map, key)
      if (record === undefined || latestOf(map, key) !== undefined) continue
      const operation = issue(map, key, record, "APPLIED", true)
      launch(operation)
      taken.push(operation)
    }
    if (offers.length === 0) offered.unsafeClose()
    return taken
  }

  // Deadlines of those who wait, looked after by one fiber.
  const expiry = (waiter: Waiter): WriteFailure =>
    flight.has(waiter.sequence)
      ? new Indeterminate({
        reason: `sent, but not acknowledged at ${waiter.concern} in time; it is sent again if need be`
      })
      : new WriteTimeout({ concern: waiter.concern })
  let alarm = Number.POSITIVE_INFINITY
  yield* Effect.forkScoped(Effect.forever(Effect.gen(function*() {
    alarm = Number.POSITIVE_INFINITY
    yield* awaited.until(() => acks.size > 0)
    const next = acks.nextExpiry
    if (next === undefined) return
    const { version } = awaited
    alarm = next
    yield* Effect.raceFirst(Effect.sleep(Math.max(0, next - options.now())), awaited.after(version))
    acks.expire(options.now(), expiry)
  })))

  return {
    /** Operations that have not ended. */
    size: () => live,
    nextSequence: () => nextSequence,
    /** When the oldest of them was made, in ms; `undefined` when there is none. */
    oldest: (): number | undefined => {
      for (const operation of flight.values()) if (!operation.offered) return operation.since
      return line.peek()?.since
    },
    /** Whether the server has answered all that was made before `sequence`, and all that was offered. */
    isDrained: (sequence: number): boolean => {
      const first = line.peek()
      if (offers.length > 0 || (first !== undefined && first.sequence < sequence)) return false
      for (const operation of flight.values()) {
        if (!operation.acked && (operation.offered || operation.sequence < sequence)) return false
      }
      return true
    },
    capacity: options.backpressure.capacity,
    /** Whether a write to the key can enter now, be it into the place of an operation that waits to be sent. */
    hasRoom: (map: string, key: string): boolean =>
      latestOf(map, key)?.stage === "line" || options.backpressure.strategy === "drop-oldest" ||
      (line.size() < options.backpressure.capacity && line.waiting() === 0),
    /** Calls `enter` when there is room; see `Backpressure`. */
    whenRoom: line.whenRoom,
    /** The operations that have not ended, without those that were only offered again; in no order. */
    *entries(): IterableIterator<Pending> {
      for (const keys of latest.values()) {
        for (const last of keys.values()) {
          for (let each: Pending | undefined = last; each !== undefined; each = pendingOf(each.earlier)) {
            if (!each.offered) yield each
          }
        }
      }
    },
    /** Gives an operation that is on no connection now another record of the same write. */
    restamp: (operation: Pending, record: LwwRecord): void => {
      operation.record = record
      log(operation)
    },

    /** Whether an operation of the key has not ended. */
    isPending: (map: string, key: string): boolean => latestOf(map, key) !== undefined,

    /** Adds a write; the caller has made sure of {@link hasRoom}. Coalesces it into an operation that wasn't sent yet. */
    append: (map: string, key: string, record: LwwRecord, concern: WriteConcern): Pending => {
      const previous = latestOf(map, key)
      let operation: Pending
      if (previous?.stage === "line") {
        operation = previous
        operation.record = record
        operation.written = record
        operation.concern = stronger(operation.concern, concern)
      } else {
        operation = issue(map, key, record, concern)
        live++
        track(operation)
        line.offer(operation)
        listener.onChange()
      }
      log(operation)
      reach(operation, "FIRE_AND_FORGET", 0)
      return operation
    },

    /** Takes back an operation that storage kept. It may have been sent before, so it is in flight. */
    restore: (stored: StoredOperation): void => launch(pending(stored)),

    /** Makes an operation again of a record that storage kept without its own. */
    remake: (map: string, key: string, record: LwwRecord): void => {
      const operation = issue(map, key, record, "APPLIED")
      launch(operation)
      log(operation)
    },

    /** Names records that the server lacks. They are sent after what waits already, and forgotten with the connection. */
    offer: (map: string, keys: ReadonlyArray<string>): void => {
      for (const key of keys) if (latestOf(map, key) === undefined) offers.push([map, key])
      if (offers.length > 0) offered.unsafeOpen()
    },

    /** What is in flight and not acknowledged on this connection, to be sent again at its beginning. */
    resend: (): ReadonlyArray<Pending> => {
      offers = []
      offered.unsafeClose()
      for (const operation of Array.from(flight.values())) {
        operation.acked = false
        if (operation.offered) end(operation)
      }
      return Array.from(flight.values()).sort((a, b) => a.sequence - b.sequence)
    },

    /** Waits for operations to send, takes up to `max` and puts them in flight. Interruption takes none. */
    take: (max: number, confirmed: (map: string, key: string) => LwwRecord | undefined) =>
      Effect.zipRight(
        Effect.zipRight(room.await, Effect.raceFirst(line.nonEmpty, offered.await)),
        // Waiting is apart from taking, which is one step, so that whatever leaves the line is in flight.
        Effect.uninterruptible(Effect.map(line.take(Math.min(max, inFlightMax - flight.size)), (taken) => {
          for (const operation of taken) {
            operation.stage = "flight"
            flight.set(operation.sequence, operation)
          }
          const sent = taken.length > 0 ? taken : takeOffers(max, confirmed)
          setRoom()
          return sent
        }))
      ),

    /** The server says that operations have reached a level. */
    acknowledged: (sequences: ReadonlyArray<number>, level: WriteConcern, replicas: number, isFinal: boolean): void => {
      for (const sequence of sequences) {
        const operation = flight.get(sequence)
        if (operation === undefined) continue
        if (!operation.acked) {
          operation.acked = true
          listener.onAccepted(operation)
        }
        reach(operation, level, replicas)
        if (isFinal || operation.offered) {
          end(operation)
          listener.onEnded(operation)
        }
      }
    },

    /** The server holds everything of this connection up to `sequence` durably: what it acknowledged has ended. */
    durable: (sequence: number): void => {
      for (const operation of Array.from(flight.values())) {
        if (operation.sequence > sequence || !operation.acked) continue
        end(operation)
        listener.onEnded(operation)
      }
    },

    /** The server refuses an operation's stamp: whether it may take another one, on the next connection. Once an operation. */
    tooEarly: (sequence: number): boolean => {
      const operation = flight.get(sequence)
      if (operation === undefined || operation.offered || operation.early) return false
      for (const each of flight.values()) each.early = true
      return true
    },

    /** The server refuses an operation for good. */
    rejected: (sequence: number, cause: string, reason: string): void => {
      const operation = flight.get(sequence)
      if (operation === undefined) return
      undo(operation, new WriteRejected({ map: operation.map, key: operation.key, cause, reason }))
    },

    /** Waits until the operation has reached the level that `concern` asks for; until `expiresAt`, in ms. */
    settled: (operation: Pending, concern: WriteConcern, expiresAt: number): Effect.Effect<Outcome, WriteFailure> =>
      Effect.suspend(() => {
        const { outcome } = operation
        if (outcome !== undefined && (Either.isLeft(outcome) || isReached(outcome.right.level, concern))) return outcome
        if (closed !== undefined) return Effect.fail(closed)
        const waiter = acks.add(operation.sequence, concern, expiresAt)
        if (waiter === undefined) {
          return Effect.fail(new Indeterminate({ reason: `${acks.capacity} acknowledgements are waited for already` }))
        }
        if (expiresAt < alarm) awaited.notify()
        return Effect.onInterrupt(Deferred.await(waiter.outcome), () => Effect.sync(() => acks.remove(waiter)))
      }),

    /**
     * Waiters are told that nothing more will be answered here; the operations stay in the log. Those who wait for room
     * are called, to find that they are too late.
     */
    close: (failure: WriteFailure): void => {
      closed = failure
      acks.close(failure)
      line.close()
    }
  }
})

export type Outbox = Effect.Effect.Success<ReturnType<typeof make>>
