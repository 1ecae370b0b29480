/** One local write, from the call to the server's acknowledgement. */
import type { MapKind } from "@topgun/core/Cell"
import type { ValuesDeclaration } from "@topgun/core/Grid"
import {
  SchemaMismatch,
  type StorageFailure,
  ValueNotSupported,
  type WriteFailure,
  type WriteRefusal
} from "@topgun/core/GridError"
import type * as LwwRecord from "@topgun/core/LwwRecord"
import * as Value from "@topgun/core/Value"
import { type Ack, weaker, type WriteConcern } from "@topgun/core/WriteConcern"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import type * as Outbox from "./Outbox.ts"

export interface WriteOptions {
  /** How far the write must come before `server` settles. */
  readonly writeConcern?: WriteConcern | undefined
  /** How long `server` waits, in ms from the write. */
  readonly timeoutMs?: number | undefined
  /** How long the value lives, in ms from the write, on every device; without it the value stays. */
  readonly ttlMs?: number | undefined
}

/** What a write without a lifetime of its own may ask for. */
export type UntimedOptions = Omit<WriteOptions, "ttlMs">

/** What a write asks for beside its value. */
export interface WriteTerms {
  readonly concern: WriteConcern
  /** How long the value lives, in ms from its stamp. */
  readonly ttlMs: number | undefined
}

/** 100 years: what a value may live at most. */
const ttlMillisMax = 100 * 365.25 * 24 * 3_600_000

/** @throws ValueNotSupported for what isn't a lifetime: a whole number of ms, 1 or more, of a hundred years at most */
export const checkTtl = (ttlMs: number | undefined): void => {
  if (ttlMs === undefined || (Number.isInteger(ttlMs) && ttlMs >= 1 && ttlMs <= ttlMillisMax)) return
  throw new ValueNotSupported({
    path: "ttlMs",
    reason: "a value lives a whole number of milliseconds, at least 1 and at most those of a hundred years"
  })
}

/**
 * Canonical bytes of a value that the map accepts; `undefined` for a removal. They are valid until the next value is
 * encoded: put them into a record at once.
 *
 * @throws WriteRefusal
 */
export const check = <A>(
  declaration: ValuesDeclaration<A>,
  key: string,
  value: A | undefined
): Uint8Array | undefined => {
  Value.checkKey(key)
  if (value === undefined) return undefined
  const issues = declaration.validate(value)
  if (issues !== undefined) throw new SchemaMismatch({ map: declaration.name, issues })
  return Value.encodeTransient(value)
}

/** A record that is to be written: it gets its stamp when there is room for it. */
export interface Draft {
  readonly map: string
  readonly kind: MapKind
  readonly key: string
  /** Which of the map's cells it is, where that is known before it has a stamp. */
  readonly cell: string | undefined
  /** Bytes of its value. */
  readonly bytes: number
  /** It was stamped elsewhere: where there is a later record, there is nothing to write. */
  readonly mayLose?: boolean
  /** @throws CounterOverflow */
  readonly stamp: () => LwwRecord.LwwRecord
}

/** One record of a write, with the operation that carries it. */
export interface Part {
  readonly operation: Outbox.Pending
  /** The write's own record: another one in the operation means that it was superseded. */
  readonly record: LwwRecord.LwwRecord
}

/** A write that was let in: visible, and on its way to storage and server. */
export interface Admitted {
  /** None where there was nothing to write. */
  readonly parts: ReadonlyArray<Part>
  /** Records and operations are durable on this device. */
  readonly local: Deferred.Deferred<void, StorageFailure>
}

/** A write, from the call on. Most are admitted within it; others wait for room. */
export class LocalWrite {
  /** When it was made, in ms. */
  readonly madeAt: number
  readonly concern: WriteConcern
  #admitted: Admitted | undefined
  #admission: Deferred.Deferred<Admitted, WriteRefusal> | undefined
  #traceParent: string | undefined

  constructor(madeAt: number, concern: WriteConcern) {
    this.madeAt = madeAt
    this.concern = concern
  }

  /** Lets it in, or fails it for good. */
  admit(outcome: Exit.Exit<Admitted, WriteRefusal>): void {
    if (Exit.isSuccess(outcome)) this.#admitted = outcome.value
    if (this.#traceParent !== undefined) this.#trace(this.#traceParent)
    if (this.#admission !== undefined) Deferred.unsafeDone(this.#admission, outcome)
  }

  /** Whether it has been let in. */
  get isAdmitted(): boolean {
    return this.#admitted !== undefined
  }

  /** It is part of a span, and so are the operations that carry it, once it is let in. */
  traced(traceParent: string): void {
    this.#traceParent = traceParent
    this.#trace(traceParent)
  }

  #trace(traceParent: string): void {
    for (const { operation } of this.#admitted?.parts ?? []) operation.traceParent ??= traceParent
  }

  /** From now on {@link admit} may be waited for. */
  postpone(): void {
    this.#admission = Deferred.unsafeMake(FiberId.none)
  }

  /** Made when somebody asks: most writes are never waited for. */
  get admitted(): Effect.Effect<Admitted, WriteRefusal> {
    return Effect.suspend(() =>
      this.#admitted !== undefined
        ? Effect.succeed(this.#admitted)
        : this.#admission !== undefined
        ? Deferred.await(this.#admission)
        : Effect.dieMessage("a write is admitted or postponed")
    )
  }
}

/** Waits until the write is durable on this device. */
export const awaitLocal = (write: LocalWrite): Effect.Effect<void, WriteRefusal> =>
  Effect.flatMap(write.admitted, ({ local }) => Deferred.await(local))

const refusals = new Set([
  "ValueNotSupported",
  "RecordTooLarge",
  "SchemaMismatch",
  "BackpressureError",
  "BatchTooLarge",
  "CounterOverflow",
  "MalformedMessage",
  "ClockSkewTooLarge",
  "ClientClosed"
])

/** Whether a throw of `Replica.write` is an answer and not a broken assumption. */
export const isRefusal = (fault: unknown): fault is WriteRefusal =>
  typeof fault === "object" && fault !== null && "_tag" in fault && refusals.has(String(fault._tag))

/** The acknowledgement of a write, within a time counted from the write. Of several operations, what holds for all of them. */
export const acknowledgement = (
  write: LocalWrite,
  outbox: Pick<Outbox.Outbox, "settled">,
  timeoutMillis: number
): Effect.Effect<Ack, WriteFailure | WriteRefusal> =>
  Effect.flatMap(write.admitted, ({ parts }) =>
    Effect.map(
      Effect.forEach(parts, ({ operation }) => outbox.settled(operation, write.concern, write.madeAt + timeoutMillis)),
      (outcomes): Ack => {
        const levels = outcomes.map((outcome) => outcome.level)
        // Of nothing everything holds.
        const level = levels.length === 0 ? "PERSISTED" : levels.reduce(weaker)
        return {
          opId: parts.map(({ operation }) => operation.sequence).join(" "),
          level,
          replicas: outcomes.length === 0 ? 0 : Math.min(...outcomes.map(({ replicas }) => replicas)),
          persisted: level === "PERSISTED",
          ...(parts.some(isSuperseded) ? { superseded: true } : {})
        }
      }
    ))

/** What a counter's operation was replaced by contains it. */
const isSuperseded = ({ operation, record }: Part): boolean =>
  operation.written !== record && operation.kind !== "counter"
