/**
 * The operations of this device that the server doesn't durably have yet, in the order of their sequence numbers. It never
 * merges; what an answer means for the data is for its listener to do.
 *
 * An operation waits in the line (coalesced: one a cell), is in flight once it is sent, is acknowledged at a level, and ends
 * with the server's durable mark or a rejection. A connection that ends puts nothing back: what is in flight is sent again,
 * as it is, on the next one. An operation that may have been sent is never coalesced, nor is one of an atomic batch.
 */
import * as Cell from "@topgun/core/Cell"
import * as Backpressure from "@topgun/core/Backpressure"
import { Indeterminate, WriteDropped, type WriteFailure, WriteRejected, WriteTimeout } from "@topgun/core/GridError"
import { compare as compareRecords, type LwwRecord } from "@topgun/core/LwwRecord"
import type { Operation } from "@topgun/core/Operation"
import * as Value from "@topgun/core/Value"
import type { StorageWrite } from "@topgun/core/Storage"
import { AckQueue, isReached, type Outcome, stronger, type Waiter, type WriteConcern } from "@topgun/core/WriteConcern"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { Journal } from "./Journal.ts"
import { spaces } from "./Journal.ts"
import { Signal } from "./Signal.ts"

/** Operations sent and not ended, at most. Higher hides a longer way to the server, at 0.5 kB of memory each. */
export const inFlightMax = 1_000

/** An atomic batch: the operations from the first to the last sequence number. */
export interface Span {
  readonly first: number
  readonly last: number
}

/** An operation on its way. */
export interface Pending {
  /** Of this device; changes only when another tab's operations are taken over. */
  sequence: number
  readonly map: string
  readonly kind: Cell.MapKind
  cell: string
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
  /** The atomic batch that it is part of; changes with `sequence`. */
  batch: Span | undefined
  /** Whether the tab that keeps this one's data is known to have stored it. */
  kept: boolean
  /** A later operation of its cell that contains this one, which was refused: the outcome is that one's. */
  successor: Pending | undefined
  /** The span that a write in it was made in, as W3C Trace Context writes it: the first that was made in one. Never stored. */
  traceParent: string | undefined
  /** The operation of its cell before this one, where that hadn't ended: skip those that have by {@link pendingOf}. */
  earlier: Pending | undefined
}

/** The first of an operation and those before it that hasn't ended. */
const pendingOf = (operation: Pending | undefined): Pending | undefined => {
  let each = operation
  while (each?.stage === "ended") each = each.earlier
  return each
}

/** What every operation has come to at once. */
const handedOver: Either.Either<Outcome, WriteFailure> = Either.right({ level: "FIRE_AND_FORGET", replicas: 0 })

/** A record that the server lacks, by its cell. */
interface Offer {
  readonly map: string
  readonly kind: Cell.MapKind
  readonly cell: string
}

export interface Listener {
  /** The server has the operation's record. */
  readonly onAccepted: (operation: Pending) => void
  /** The operation will never be applied; `remaining` is the latest other operation of its key that still may. */
  readonly onUndone: (operation: Pending, remaining: Pending | undefined, failure: WriteFailure) => void
  /** The operation ended well; its key's rows may need writing. */
  readonly onEnded: (operation: Pending) => void
  /** What has become of the operation so far is known better than before. */
  readonly onOutcome: (operation: Pending) => void
  readonly onHighWater: (pending: number) => void
  readonly onLowWater: (pending: number) => void
  readonly onChange: () => void
}

/** The key that an operation is about. */
export const keyOf = ({ cell, kind }: Pick<Pending, "cell" | "kind">): string => Cell.keyOf(kind, cell)

/** What storage keeps of an operation. */
export interface StoredOperation extends Operation {
  /** When the oldest write in it was made, in ms. */
  readonly since: number
  readonly batch: Span | undefined
}

const format = 1

/** What storage adds to an operation's value: its record's head, its map, its key, at most. */
const envelopeBytesMax = 8 * 1024

/** Storage keys sort as sequence numbers do. */
const storageKey = (sequence: number): string => sequence.toString(16).padStart(14, "0")

/** No device gets beyond it, and as many again can be counted. */
const sequenceMax = 2 ** 52

export const isSequence = (value: unknown): value is number =>
  Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= sequenceMax

const encode = (operation: Pending): Uint8Array =>
  Value.encodeShared([
    format,
    operation.sequence,
    operation.map,
    operation.kind,
    keyOf(operation),
    operation.record.row,
    operation.concern,
    operation.since,
    operation.batch?.first ?? 0,
    operation.batch?.last ?? 0
  ], Value.valueBytesMax + envelopeBytesMax)

/** An operation from storage, where it has its own place; `undefined` for bytes that are not one. */
export const decode = (storedAs: string, bytes: Uint8Array): StoredOperation | undefined => {
  const stored = Value.decode(bytes)
  if (!Array.isArray(stored) || stored[0] !== format || stored.length !== 10) return undefined
  const [, sequence, map, kind, key, row, concern, since, first, last] = stored as [
    number,
    number,
    string,
    Cell.MapKind,
    string,
    Uint8Array,
    never,
    number,
    number,
    number
  ]
  if (!Cell.isMapKind(kind) || typeof map !== "string" || typeof key !== "string") return undefined
  // The next operations' numbers go on from this one's, and no two have the same.
  if (!isSequence(sequence) || storageKey(sequence) !== storedAs) return undefined
  if (![since, first, last].every(Number.isFinite)) return undefined
  const record = Cell.decodeInPlace(kind, map, key, row)
  const batch = last === 0 ? undefined : { first, last }
  return { sequence, map, kind, cell: Cell.cellOf(kind, key, record), record, concern, since, batch }
}

/** The row that storage is to have of an operation now: none once it has ended. */
export const rowOf = (operation: Pending): StorageWrite => ({
  space: spaces.outbox,
  key: storageKey(operation.sequence),
  value: operation.stage === "ended" ? undefined : encode(operation)
})

/** Makes the outbox of one device, whose next operation gets `nextSequence`. */
export const make = Effect.fnUntraced(function*(options: {
  readonly backpressure: Backpressure.Options
  readonly nextSequence: number
  readonly now: () => number
  readonly journal: Pick<Journal<Pending>, "stageOperation">
  readonly listener: Listener
}) {
  const { journal, listener } = options
  let nextSequence = options.nextSequence
  const acks = new AckQueue(options.backpressure.capacity + inFlightMax)
  const awaited = new Signal()
  /** The latest operation of each cell that has not ended. */
  const latest = new Map<string, Map<string, Pending>>()
  const flight = new Map<number, Pending>()
  /** The operations of atomic batches that wait in the line. */
  const batches = new Map<number, Pending>()
  /** Cells to offer again: their records are read when there is room to send them. */
  let offers: Array<Offer> = []
  /** Cells that needn't be, as long as the operation that is on its way isn't refused. */
  const withheld = new Set<string>()
  let live = 0
  /** Another tab sends what is written here: nothing stands in the line. */
  let isRelayed = false
  let closed: WriteFailure | undefined
  const room = Effect.unsafeMakeLatch(true)
  const offered = Effect.unsafeMakeLatch(false)

  const setRoom = () => flight.size < inFlightMax ? room.unsafeOpen() : room.unsafeClose()

  const latestOf = (map: string, cell: string): Pending | undefined => latest.get(map)?.get(cell)

  const track = (operation: Pending, previous = latestOf(operation.map, operation.cell)): void => {
    operation.earlier = previous
    const cells = latest.get(operation.map)
    if (cells === undefined) latest.set(operation.map, new Map([[operation.cell, operation]]))
    else cells.set(operation.cell, operation)
  }

  const untrack = (operation: Pending): void => {
    // Shortened at every end, so that a cell which is never at rest drags no chain of ended operations along.
    operation.earlier = pendingOf(operation.earlier)
    if (latestOf(operation.map, operation.cell) !== operation) return
    if (operation.earlier === undefined) latest.get(operation.map)!.delete(operation.cell)
    else latest.get(operation.map)!.set(operation.cell, operation.earlier)
  }

  const end = (operation: Pending): void => {
    operation.stage = "ended"
    if (operation.batch !== undefined) batches.delete(operation.sequence)
    if (!operation.offered) {
      live--
      journal.stageOperation(operation)
    }
    untrack(operation)
    if (flight.delete(operation.sequence)) setRoom()
    listener.onChange()
  }

  const nameOf = (map: string, cell: string): string => `${map}\0${cell}`
  const offer = (map: string, kind: Cell.MapKind, cell: string): void => {
    if (latestOf(map, cell) !== undefined) return void withheld.add(nameOf(map, cell))
    offers.push({ map, kind, cell })
    offered.unsafeOpen()
  }

  const undo = (operation: Pending, failure: WriteFailure): void => {
    end(operation)
    const remaining = latestOf(operation.map, operation.cell)
    // A node's totals contain its earlier ones: what they say isn't undone as long as these may still be taken.
    if (operation.kind === "counter" && remaining !== undefined && remaining.sequence > operation.sequence) {
      operation.successor = remaining
      acks.moved(operation.sequence, remaining.sequence)
      listener.onOutcome(operation)
      return
    }
    listener.onUndone(operation, remaining, failure)
    if (withheld.delete(nameOf(operation.map, operation.cell))) offer(operation.map, operation.kind, operation.cell)
    operation.outcome = Either.left(failure)
    acks.failed(operation.sequence, failure)
    listener.onOutcome(operation)
  }

  const dropped = (operation: Pending): WriteDropped => new WriteDropped({ map: operation.map, key: keyOf(operation) })

  const line = yield* Backpressure.make<Pending>(options.backpressure, {
    onDrop: (operation) => {
      // A batch goes with its first operation; the others leave the line when their turn comes.
      const { batch } = operation
      if (operation.stage === "ended") return
      undo(operation, dropped(operation))
      if (batch === undefined) return
      for (let at = operation.sequence + 1; at <= batch.last; at++) {
        const other = batches.get(at)
        if (other !== undefined) undo(other, dropped(other))
      }
    },
    onHighWater: listener.onHighWater,
    onLowWater: listener.onLowWater
  })

  // Field by field: what V8 makes of a spread is three times as slow to make, and slower to use ever after.
  const pending = (stored: StoredOperation, isOffer = false): Pending => ({
    sequence: stored.sequence,
    map: stored.map,
    kind: stored.kind,
    cell: stored.cell,
    record: stored.record,
    concern: stored.concern,
    since: stored.since,
    written: stored.record,
    offered: isOffer,
    outcome: undefined,
    stage: "line",
    acked: false,
    early: false,
    batch: stored.batch,
    kept: false,
    successor: undefined,
    traceParent: undefined,
    earlier: undefined
  })

  /** The next operation of this device. */
  const issue = (
    map: string,
    kind: Cell.MapKind,
    cell: string,
    record: LwwRecord,
    concern: WriteConcern,
    since: number,
    batch?: Span,
    isOffer = false
  ): Pending => pending({ sequence: nextSequence++, map, kind, cell, record, concern, since, batch }, isOffer)

  /** Puts an operation in flight that never stood in the line. */
  const launch = (operation: Pending): void => {
    operation.stage = "flight"
    if (!operation.offered) live++
    track(operation)
    flight.set(operation.sequence, operation)
    setRoom()
  }

  const takeOffers = (
    max: number,
    confirmed: (map: string, cell: string) => LwwRecord | undefined
  ): ReadonlyArray<Pending> => {
    const taken: Array<Pending> = []
    for (const { cell, kind, map } of offers.splice(0, Math.min(max, inFlightMax - flight.size))) {
      if (latestOf(map, cell) !== undefined) {
        withheld.add(nameOf(map, cell))
        continue
      }
      const record = confirmed(map, cell)
      if (record === undefined) continue
      const operation = issue(map, kind, cell, record, "APPLIED", options.now(), undefined, true)
      launch(operation)
      taken.push(operation)
    }
    if (offers.length === 0) offered.unsafeClose()
    return taken
  }

  /** Takes from the line, to the end of the last one's batch, what has not been dropped with its batch. */
  const takeWhole = (max: number): Effect.Effect<ReadonlyArray<Pending>> =>
    Effect.flatMap(line.take(max), (taken) => {
      const last = taken.at(-1)
      const rest = last?.batch === undefined ? 0 : last.batch.last - last.sequence
      return Effect.map(rest === 0 ? Effect.succeed([]) : line.take(rest), (more) =>
        [...taken, ...more].filter(({ stage }) => stage !== "ended"))
    })

  // Deadlines of those who wait, looked after by one fiber.
  // Who waits for an operation that has ended asked for what it doesn't say.
  const isSent = (sequence: number): boolean => sequence < (line.peek()?.sequence ?? nextSequence)
  const expiry = (waiter: Waiter): WriteFailure =>
    isSent(waiter.sequence)
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

  const coalesces = (operation: Pending | undefined): operation is Pending =>
    operation?.stage === "line" && operation.batch === undefined

  const { capacity, strategy } = options.backpressure
  const hasPlaces = (places: number): boolean =>
    isRelayed
      ? live + places <= capacity
      : strategy === "drop-oldest"
      ? places <= capacity
      : line.size() + places <= capacity && line.waiting() === 0

  return {
    /** Operations that have not ended. */
    size: () => live,
    nextSequence: () => nextSequence,
    /** The first of those that are or were sent, and that the server hasn't answered on the present connection. */
    firstUnanswered: (): number | undefined => {
      for (const operation of flight.values()) if (!operation.acked) return operation.sequence
      return undefined
    },
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
    capacity,
    /** Whether a write to the cell can enter now, be it into the place of an operation that waits to be sent. */
    hasRoom: (map: string, cell: string): boolean => hasPlaces(1) || coalesces(latestOf(map, cell)),
    /** Whether a write to the cell would take the place of an operation that waits to be sent. */
    coalesces: (map: string, cell: string): boolean => coalesces(latestOf(map, cell)),
    /** Whether so many operations can enter now. */
    hasPlaces,
    /** Writes that wait for room. */
    waiting: line.waiting,
    /** Calls `enter` when there is room; see `Backpressure`. */
    whenRoom: (enter: () => void, places?: number): boolean => !isRelayed && line.whenRoom(enter, places),
    /** The operations that have not ended, without those that were only offered again; in no order. */
    *entries(): IterableIterator<Pending> {
      for (const cells of latest.values()) {
        for (const last of cells.values()) {
          for (let each: Pending | undefined = last; each !== undefined; each = pendingOf(each.earlier)) {
            if (!each.offered) yield each
          }
        }
      }
    },
    /** Gives an operation that is on no connection now another record of the same write, which may be another cell's. */
    restamp: (operation: Pending, record: LwwRecord, cell = operation.cell): void => {
      operation.record = record
      if (cell !== operation.cell) {
        untrack(operation)
        operation.cell = cell
        track(operation)
      }
      journal.stageOperation(operation)
    },

    /** The latest operation of the cell that has not ended. */
    latest: latestOf,

    /** What the latest write of the cell that has not ended writes. What is only offered again is nobody's write here. */
    pendingRecord: (map: string, cell: string): LwwRecord | undefined => {
      const operation = latestOf(map, cell)
      return operation?.offered === false ? operation.record : undefined
    },

    /** Whether an operation of the cell has not ended. */
    isPending: (map: string, cell: string): boolean => latestOf(map, cell) !== undefined,

    /** The batch of the next so many operations, for {@link append}. */
    batchOf: (operations: number): Span => ({ first: nextSequence, last: nextSequence + operations - 1 }),

    /** Adds a write that was made at `since`, in ms; the caller has made sure of {@link hasRoom}. Coalesces it into an operation that wasn't sent yet. */
    append: (
      map: string,
      kind: Cell.MapKind,
      cell: string,
      record: LwwRecord,
      concern: WriteConcern,
      since: number,
      batch?: Span
    ): Pending => {
      const previous = latestOf(map, cell)
      let operation: Pending
      if (batch === undefined && coalesces(previous)) {
        operation = previous
        operation.record = record
        operation.written = record
        operation.concern = stronger(operation.concern, concern)
      } else {
        operation = issue(map, kind, cell, record, concern, since, batch)
        if (isRelayed) launch(operation)
        else {
          live++
          if (batch !== undefined) batches.set(operation.sequence, operation)
          track(operation, previous)
          line.offer(operation)
        }
        listener.onChange()
      }
      journal.stageOperation(operation)
      // Nobody waits for this level: it is reached before anybody can ask.
      operation.outcome = handedOver
      return operation
    },

    /** Takes back an operation that storage kept. It may have been sent before, so it is in flight. */
    restore: (stored: StoredOperation): void => launch(pending(stored)),

    /** Makes an operation again of a record that storage kept without its own. */
    remake: (map: string, kind: Cell.MapKind, cell: string, record: LwwRecord): void => {
      const operation = issue(map, kind, cell, record, "APPLIED", options.now())
      launch(operation)
      journal.stageOperation(operation)
    },

    /** Names records that the server lacks. They are sent after what waits already, and forgotten with the connection. */
    offer: (map: string, kind: Cell.MapKind, cells: ReadonlyArray<string>): void => {
      for (const cell of cells) offer(map, kind, cell)
    },

    /** What is in flight and not acknowledged on this connection, to be sent again at its beginning. */
    resend: (): ReadonlyArray<Pending> => {
      offers = []
      withheld.clear()
      offered.unsafeClose()
      for (const operation of Array.from(flight.values())) {
        operation.acked = false
        if (operation.offered) end(operation)
      }
      return Array.from(flight.values()).sort((a, b) => a.sequence - b.sequence)
    },

    /**
     * Waits for operations to send, takes up to `max`, or more where an atomic batch would be parted, and puts them in flight.
     * Interruption takes none.
     */
    take: (max: number, confirmed: (map: string, cell: string) => LwwRecord | undefined) =>
      Effect.zipRight(
        Effect.zipRight(room.await, Effect.raceFirst(line.nonEmpty, offered.await)),
        // Waiting is apart from taking, which is one step, so that whatever leaves the line is in flight.
        Effect.uninterruptible(Effect.map(takeWhole(Math.min(max, inFlightMax - flight.size)), (taken) => {
          for (const operation of taken) {
            operation.stage = "flight"
            batches.delete(operation.sequence)
            flight.set(operation.sequence, operation)
          }
          const sent = taken.length > 0 ? taken : takeOffers(max, confirmed)
          setRoom()
          return sent
        }))
      ),

    /** The server says that operations have reached a level. */
    acknowledged: (sequences: ReadonlyArray<number>, level: WriteConcern, replicas: number, isFinal: boolean): void => {
      const outcome = Either.right({ level, replicas })
      for (const sequence of sequences) {
        const operation = flight.get(sequence)
        if (operation === undefined) continue
        if (!operation.acked) {
          operation.acked = true
          listener.onAccepted(operation)
        }
        operation.outcome = outcome
        acks.reached(sequence, level, replicas)
        if (isFinal || operation.offered) {
          end(operation)
          listener.onEnded(operation)
        }
        listener.onOutcome(operation)
      }
    },

    /** The server holds everything of this connection up to `sequence` durably: what it acknowledged has ended. */
    durable: (sequence: number): void => {
      for (const operation of Array.from(flight.values())) {
        if (operation.sequence > sequence || !operation.acked) continue
        end(operation)
        listener.onEnded(operation)
        listener.onOutcome(operation)
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
      undo(operation, new WriteRejected({ map: operation.map, key: keyOf(operation), cause, reason }))
    },

    /** The server of the tab that sends for this one has dropped an operation. */
    droppedElsewhere: (sequence: number): void => {
      const operation = flight.get(sequence)
      if (operation !== undefined) undo(operation, dropped(operation))
    },

    /** The tab that keeps this one's data has stored these operations. */
    kept: (sequences: Iterable<number>): void => {
      for (const sequence of sequences) {
        const operation = flight.get(sequence)
        if (operation !== undefined) operation.kept = true
      }
    },

    /** How many operations aren't known to be stored. */
    unkeptSize: (): number => {
      let size = 0
      for (const { kept, stage } of flight.values()) if (!kept && stage !== "ended") size++
      return size
    },

    /** What the latest operation of the cell writes that isn't known to be stored. */
    unkept: (map: string, cell: string): LwwRecord | undefined => {
      const operation = latestOf(map, cell)
      return operation?.kept === false ? operation.record : undefined
    },

    /** The operation of a cell that writes just this record and hasn't ended. */
    pendingOf: (map: string, cell: string, record: LwwRecord): Pending | undefined => {
      for (let each = latestOf(map, cell); each !== undefined; each = pendingOf(each.earlier)) {
        if (!each.offered && compareRecords(each.record, record) === 0) return each
      }
      return undefined
    },

    /**
     * Another tab keeps and sends what is written here from now on: all of it is in flight, by way of that tab. Only while
     * nothing is sent.
     */
    relay: (isKept: (operation: Pending) => boolean): Effect.Effect<void> =>
      Effect.map(line.take(Number.MAX_SAFE_INTEGER), (taken) => {
        for (const operation of taken) {
          if (operation.stage === "ended") continue
          operation.stage = "flight"
          flight.set(operation.sequence, operation)
        }
        batches.clear()
        for (const operation of Array.from(flight.values())) {
          if (operation.offered) end(operation)
          else operation.kept = isKept(operation)
        }
        isRelayed = true
        setRoom()
      }),

    /**
     * This tab keeps and sends by itself from now on. What its storage holds, in the order of the numbers, comes before what
     * was written here, which gets the numbers from `next` on; an operation that is both is one. Only while nothing is sent.
     */
    adopt: (stored: ReadonlyArray<StoredOperation>, next: number): void => {
      const own = Array.from(flight.values()).filter(({ stage }) => stage !== "ended").sort((a, b) =>
        a.sequence - b.sequence
      )
      const twins = new Map<StoredOperation, Pending>()
      const byCell = new Map<string, Array<StoredOperation>>()
      for (const operation of stored) {
        const name = nameOf(operation.map, operation.cell)
        const ofCell = byCell.get(name)
        if (ofCell === undefined) byCell.set(name, [operation])
        else ofCell.push(operation)
      }
      const rest = own.filter((operation) => {
        const ofCell = byCell.get(nameOf(operation.map, operation.cell)) ?? []
        const twin = ofCell.find((each) => !twins.has(each) && compareRecords(each.record, operation.record) === 0)
        if (twin !== undefined) twins.set(twin, operation)
        return twin === undefined
      })
      const numbers = new Map<number, number>()
      const renumber = (operation: Pending, sequence: number, batch: Span | undefined): Pending => {
        numbers.set(operation.sequence, sequence)
        operation.sequence = sequence
        operation.batch = batch
        return operation
      }
      latest.clear()
      flight.clear()
      isRelayed = false
      live = 0
      for (const each of stored) {
        const twin = twins.get(each)
        const operation = twin === undefined ? pending(each) : renumber(twin, each.sequence, each.batch)
        operation.kept = true
        launch(operation)
      }
      nextSequence = next
      const members = new Map<number, number>()
      for (const { batch } of rest) {
        if (batch !== undefined) members.set(batch.first, (members.get(batch.first) ?? 0) + 1)
      }
      const spans = new Map<number, Span>()
      for (const operation of rest) {
        const { batch } = operation
        const later = latestOf(operation.map, operation.cell)
        if (batch === undefined && later !== undefined && compareRecords(later.record, operation.record) > 0) {
          // What it would come to, that one does.
          operation.stage = "ended"
          operation.successor = later
          numbers.set(operation.sequence, later.sequence)
          continue
        }
        const sequence = nextSequence++
        // Of a batch that has ended in part the rest goes by itself.
        if (
          batch !== undefined && !spans.has(batch.first) && members.get(batch.first) === batch.last - batch.first + 1
        ) {
          spans.set(batch.first, { first: sequence, last: sequence + batch.last - batch.first })
        }
        renumber(operation, sequence, batch && spans.get(batch.first))
        launch(operation)
        journal.stageOperation(operation)
      }
      acks.renumbered(numbers)
    },

    /** Waits until the operation has reached the level that `concern` asks for; until `expiresAt`, in ms. */
    settled: (written: Pending, concern: WriteConcern, expiresAt: number): Effect.Effect<Outcome, WriteFailure> =>
      Effect.suspend(() => {
        let operation = written
        while (operation.successor !== undefined) operation = operation.successor
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
