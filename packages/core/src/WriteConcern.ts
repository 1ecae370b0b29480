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
export type WriteConcern = typeof WriteConcern.Type

const ranks: Record<WriteConcern, number> = { FIRE_AND_FORGET: 0, MEMORY: 1, APPLIED: 2, REPLICATED: 3, PERSISTED: 4 }

/** Whether having reached `level` is enough for `concern`. REPLICATED and PERSISTED don't imply each other. */
export const isReached = (level: WriteConcern, concern: WriteConcern): boolean =>
  concern === "REPLICATED" ? level === "REPLICATED" : ranks[level] >= ranks[concern]

/** The stronger of two concerns: who asked for either is told in time by it. */
export const stronger = (a: WriteConcern, b: WriteConcern): WriteConcern => ranks[a] >= ranks[b] ? a : b

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

/** The open outcome of one operation; all writes that were coalesced into it wait for it. */
export interface Waiter {
  readonly outcome: Deferred.Deferred<Outcome, WriteFailure>
  concern: WriteConcern
}

/**
 * The operations whose outcome is open, in the order of their sequence numbers: a bounded queue of Deferreds, each settled
 * once, by the stage that its concern asks for or by its failure.
 */
export class AckQueue {
  readonly capacity: number
  readonly #waiters = new Map<number, Waiter>()

  constructor(capacity: number) {
    this.capacity = capacity
  }

  get size(): number {
    return this.#waiters.size
  }

  /** Opens the outcome of an operation; `undefined` when the queue is full. */
  add(sequence: number, concern: WriteConcern): Waiter | undefined {
    if (this.#waiters.size >= this.capacity) return undefined
    const waiter: Waiter = { outcome: Deferred.unsafeMake(FiberId.none), concern }
    this.#waiters.set(sequence, waiter)
    return waiter
  }

  /** The operation has reached `level`: settles it, if that is what its concern asks for. */
  reached(sequence: number, level: WriteConcern, replicas: number): void {
    const waiter = this.#waiters.get(sequence)
    if (waiter !== undefined && isReached(level, waiter.concern)) {
      this.#settle(sequence, waiter, Exit.succeed({ level, replicas }))
    }
  }

  /** The operation failed for good. */
  failed(sequence: number, failure: WriteFailure): void {
    const waiter = this.#waiters.get(sequence)
    if (waiter !== undefined) this.#settle(sequence, waiter, Exit.fail(failure))
  }

  /** Nothing will be answered any more: everyone fails. */
  close(failure: WriteFailure): void {
    for (const [sequence, waiter] of this.#waiters) this.#settle(sequence, waiter, Exit.fail(failure))
  }

  #settle(sequence: number, waiter: Waiter, outcome: Exit.Exit<Outcome, WriteFailure>): void {
    this.#waiters.delete(sequence)
    Deferred.unsafeDone(waiter.outcome, outcome)
  }
}
