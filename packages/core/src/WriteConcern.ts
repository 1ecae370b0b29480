/** How far a write must have come before its writer is told so, and the queue of those who wait to be told. */
import * as Deferred from "effect/Deferred"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as Schema from "effect/Schema"
import type { WriteFailure } from "./GridError.ts"

/**
 * - `FIRE_AND_FORGET`: handed to this device's outbox; nobody is asked.
 * - `MEMORY`: received and found valid by the server.
 * - `APPLIED`: merged at the partition's owner; every read there sees it.
 * - `REPLICATED`: merged at a backup too. Refused where there is none.
 * - `PERSISTED`: committed by the server's database, and safe from a crash of its process and machine.
 */
export const WriteConcern = Schema.Literal("FIRE_AND_FORGET", "MEMORY", "APPLIED", "REPLICATED", "PERSISTED")
/** A level of acknowledgement. */
export type WriteConcern = typeof WriteConcern.Type

const ranks: Record<WriteConcern, number> = { FIRE_AND_FORGET: 0, MEMORY: 1, APPLIED: 2, REPLICATED: 3, PERSISTED: 4 }

/** Whether having reached `level` is enough for `concern`. REPLICATED and PERSISTED don't imply each other. */
export const isReached = (level: WriteConcern, concern: WriteConcern): boolean =>
  concern === "REPLICATED" ? level === "REPLICATED" : ranks[level] >= ranks[concern]

/** The stronger of two concerns: who asked for either is told in time by it. */
export const stronger = (a: WriteConcern, b: WriteConcern): WriteConcern => ranks[a] >= ranks[b] ? a : b

/** What holds of both operations that reached two levels. Of REPLICATED and PERSISTED neither contains the other. */
export const weaker = (a: WriteConcern, b: WriteConcern): WriteConcern =>
  isReached(a, b) ? b : isReached(b, a) ? a : "APPLIED"

/** What an operation came to: the level that it has really reached. */
export interface Outcome {
  readonly level: WriteConcern
  /** How many other nodes hold the write. */
  readonly replicas: number
}

/** {@link Outcome} as its writer sees it. */
export interface Ack extends Outcome {
  readonly opId: string
  readonly persisted: boolean
  /** The write was replaced by a later one of the same key before it was sent; this is that one's outcome. */
  readonly superseded?: boolean
}

/** One who waits for an operation's outcome, at the level that it asked for and until its deadline. */
export interface Waiter {
  sequence: number
  readonly concern: WriteConcern
  /** When to stop waiting, in ms. */
  readonly expiresAt: number
  readonly outcome: Deferred.Deferred<Outcome, WriteFailure>
}

/** Deadlines are kept to this many ms, so that many of them cost one look. */
const expiryMillis = 50

/**
 * Those who wait for an acknowledgement: a bounded queue of Deferreds, each settled once, by the stage that its concern
 * asks for, by its operation's failure, or by its deadline.
 */
export class AckQueue {
  readonly capacity: number
  readonly #bySequence = new Map<number, Set<Waiter>>()
  readonly #byExpiry = new Map<number, Set<Waiter>>()
  #size = 0

  constructor(capacity: number) {
    this.capacity = capacity
  }

  /** How many acknowledgements are waited for. */
  get size(): number {
    return this.#size
  }

  /** Begins to wait; `undefined` when the queue is full. */
  add(sequence: number, concern: WriteConcern, expiresAt: number): Waiter | undefined {
    if (this.#size >= this.capacity) return undefined
    const waiter: Waiter = { sequence, concern, expiresAt, outcome: Deferred.unsafeMake(FiberId.none) }
    put(this.#bySequence, sequence, waiter)
    put(this.#byExpiry, expiryOf(waiter), waiter)
    this.#size++
    return waiter
  }

  /** Nobody waits for this one any more. */
  remove(waiter: Waiter): void {
    if (!take(this.#bySequence, waiter.sequence, waiter)) return
    take(this.#byExpiry, expiryOf(waiter), waiter)
    this.#size--
  }

  /** The operation has reached `level`: settles those who asked for no more. */
  reached(sequence: number, level: WriteConcern, replicas: number): void {
    for (const waiter of this.#bySequence.get(sequence) ?? []) {
      if (isReached(level, waiter.concern)) this.#settle(waiter, Exit.succeed({ level, replicas }))
    }
  }

  /** The operation failed for good: so do all who wait for it. */
  failed(sequence: number, failure: WriteFailure): void {
    for (const waiter of this.#bySequence.get(sequence) ?? []) this.#settle(waiter, Exit.fail(failure))
  }

  /** The operation is part of a later one from here on: those who wait for it wait for that one. */
  moved(from: number, to: number): void {
    for (const waiter of this.#bySequence.get(from) ?? []) {
      waiter.sequence = to
      put(this.#bySequence, to, waiter)
    }
    this.#bySequence.delete(from)
  }

  /** Operations have other numbers from now on, all at once; those that aren't named keep theirs. */
  renumbered(numbers: ReadonlyMap<number, number>): void {
    const before = Array.from(this.#bySequence)
    this.#bySequence.clear()
    for (const [from, waiters] of before) {
      const to = numbers.get(from) ?? from
      for (const waiter of waiters) {
        waiter.sequence = to
        put(this.#bySequence, to, waiter)
      }
    }
  }

  /** When the next deadline is to be looked at, in ms; `undefined` when nobody waits. */
  get nextExpiry(): number | undefined {
    let next: number | undefined
    for (const expiry of this.#byExpiry.keys()) if (next === undefined || expiry < next) next = expiry
    return next
  }

  /** Fails those whose deadline has come, each with what `failure` makes of it. */
  expire(nowMillis: number, failure: (waiter: Waiter) => WriteFailure): void {
    for (const [expiry, waiters] of this.#byExpiry) {
      if (expiry > nowMillis) continue
      for (const waiter of waiters) this.#settle(waiter, Exit.fail(failure(waiter)))
    }
  }

  /** Nothing will be answered any more: everyone fails. */
  close(failure: WriteFailure): void {
    for (const waiters of this.#bySequence.values()) {
      for (const waiter of waiters) this.#settle(waiter, Exit.fail(failure))
    }
  }

  #settle(waiter: Waiter, outcome: Exit.Exit<Outcome, WriteFailure>): void {
    this.remove(waiter)
    Deferred.unsafeDone(waiter.outcome, outcome)
  }
}

const expiryOf = ({ expiresAt }: Waiter): number => Math.ceil(expiresAt / expiryMillis) * expiryMillis

const put = (sets: Map<number, Set<Waiter>>, at: number, waiter: Waiter): void => {
  const set = sets.get(at)
  if (set === undefined) sets.set(at, new Set([waiter]))
  else set.add(waiter)
}

const take = (sets: Map<number, Set<Waiter>>, at: number, waiter: Waiter): boolean => {
  const set = sets.get(at)
  if (set === undefined || !set.delete(waiter)) return false
  if (set.size === 0) sets.delete(at)
  return true
}
