/** One local write, from the call to the server's acknowledgement. */
import type { MapDeclaration } from "@topgun/core/Grid"
import {
  ClientClosed,
  Indeterminate,
  SchemaMismatch,
  type StorageUnavailable,
  type WriteFailure,
  type WriteRefusal,
  WriteTimeout
} from "@topgun/core/GridError"
import type * as LwwRecord from "@topgun/core/LwwRecord"
import * as Value from "@topgun/core/Value"
import type { Ack, Outcome, WriteConcern } from "@topgun/core/WriteConcern"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import type * as Outbox from "./Outbox.ts"

export interface WriteOptions {
  /** How far the write must come before `server` settles. */
  readonly writeConcern?: WriteConcern | undefined
  /** How long `server` waits, in ms from the write. */
  readonly timeoutMs?: number | undefined
}

/** Canonical bytes of a value that the map accepts; `undefined` for a removal. @throws WriteRefusal */
export const check = <A>(declaration: MapDeclaration<A>, key: string, value: A | undefined): Uint8Array | undefined => {
  Value.checkKey(key)
  if (value === undefined) return undefined
  const issues = declaration.validate(value)
  if (issues !== undefined) throw new SchemaMismatch({ map: declaration.name, issues })
  return Value.encode(value)
}

/** A write on its way; its two moments are settled at most once. */
export class LocalWrite {
  /** Record and operation are durable on this device. */
  local: Deferred.Deferred<void, StorageUnavailable>
  /** The operation that carries the write, once it was admitted. */
  operation: Outbox.Pending | undefined
  /** The write's own record, once it was admitted: another one in the operation means that it was superseded. */
  record: LwwRecord.LwwRecord | undefined
  /** Settled when {@link operation} is known, or when the write failed before. */
  readonly admitted: Deferred.Deferred<Outbox.Pending, WriteRefusal>

  /** When it was made, in ms. */
  readonly madeAt: number
  readonly concern: WriteConcern

  constructor(madeAt: number, concern: WriteConcern) {
    this.madeAt = madeAt
    this.concern = concern
    this.local = Deferred.unsafeMake(FiberId.none)
    this.admitted = Deferred.unsafeMake(FiberId.none)
  }
}

/** Waits until the write is durable on this device. */
export const awaitLocal = (write: LocalWrite): Effect.Effect<void, WriteRefusal> =>
  Effect.zipRight(Deferred.await(write.admitted), Effect.suspend(() => Deferred.await(write.local)))

/** The waiting for a write's acknowledgement, without a deadline. */
export const awaitServer = (
  write: LocalWrite
): Effect.Effect<Outcome & { readonly opId: string; readonly superseded: boolean }, WriteFailure | WriteRefusal> =>
  Effect.flatMap(Deferred.await(write.admitted), (operation) =>
    operation.waiter === undefined
      ? Effect.fail(new ClientClosed())
      : Effect.map(Deferred.await(operation.waiter.outcome), (outcome) => ({
        ...outcome,
        opId: String(operation.sequence),
        superseded: operation.record !== write.record
      })))

const refusals = new Set(["ValueNotSupported", "RecordTooLarge", "SchemaMismatch", "BackpressureError", "ClientClosed"])

/** Whether a throw of `Replica.write` is an answer and not a broken assumption. */
export const isRefusal = (fault: unknown): fault is WriteRefusal =>
  typeof fault === "object" && fault !== null && "_tag" in fault && refusals.has(String(fault._tag))

/** The acknowledgement of a write, within a time counted from the write. */
export const acknowledgement = (write: LocalWrite, timeoutMillis: number): Effect.Effect<Ack, WriteFailure> =>
  Effect.clockWith((clock) => {
    const left = Math.max(0, write.madeAt + timeoutMillis - clock.unsafeCurrentTimeMillis())
    return awaitServer(write).pipe(
      Effect.map(({ level, opId, replicas, superseded }): Ack => ({
        opId,
        level,
        replicas,
        persisted: level === "PERSISTED",
        ...(superseded ? { superseded } : {})
      })),
      Effect.timeoutFail({
        duration: left,
        onTimeout: () =>
          write.operation?.stage === "flight"
            ? new Indeterminate({ reason: `sent, but not acknowledged at ${write.concern} within ${timeoutMillis} ms` })
            : new WriteTimeout({ concern: write.concern, afterMillis: timeoutMillis })
      }),
      Effect.catchAll((failure) =>
        isRefusal(failure) && failure._tag !== "ClientClosed"
          ? Effect.fail(new Indeterminate({ reason: failure.message }))
          : Effect.fail(failure as WriteFailure)
      )
    )
  })
