/**
 * How a batch of writes is carried out, and what its writer is told, when.
 *
 * | concern | told | |
 * |---|---|---|
 * | `FIRE_AND_FORGET`, `MEMORY`, `APPLIED` | `OpAck APPLIED` | after the merge: that is the level really reached |
 * | `REPLICATED` | `OpReject` | one node has no backup; nothing is merged |
 * | `PERSISTED` | `OpAck PERSISTED` | after the commit; `OpReject` when the storage is memory, nothing is merged |
 *
 * An atomic batch is one write: all its operations are accepted or none, in one transaction of the database.
 *
 * An operation that lost to a newer record has done its work as well. It's acknowledged like the others, at PERSISTED
 * after everything that was merged before it is committed, the newer record included.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { ShuttingDown, StorageUnavailable } from "@topgun/core/GridError"
import type { OpBatch, ServerMessage } from "@topgun/core/Protocol"
import type { WriteConcern } from "@topgun/core/WriteConcern"
import type { Access } from "./Access.ts"
import { type Part, Partitions } from "./Partitions.ts"
import { Persistence } from "./Persistence.ts"
import type { Subscriber } from "./Subscriptions.ts"
import { Subscriptions } from "./Subscriptions.ts"
import { Metrics, type Reached } from "./Metrics.ts"
import { type Origin, Traces } from "./Traces.ts"

/** The one who wrote a batch. */
export interface Writer extends Subscriber {
  readonly send: (message: ServerMessage) => void
  /** Where the batch that it has handed in came from; asked once for each. */
  readonly takeOrigin: () => Origin
  /** Tells of operations that have reached a level: those of several batches together, but before whatever else is sent. */
  readonly acknowledge: (level: WriteConcern, sequences: ReadonlyArray<number>) => void
  /** Everything of this writer up to `sequence` is committed or refused. */
  readonly durable: (sequence: number) => void
  /** The database failed: nothing more is acknowledged, and the writer must send again what is open. */
  readonly unsaved: (failure: StorageUnavailable | ShuttingDown) => void
  /** What this writer may do with a map; `undefined` for everything. */
  readonly accessTo: (map: string) => Access | undefined
}

/** Carries out writes. */
export class WriteAcks extends Context.Tag("@topgun/server/WriteAcks")<WriteAcks, {
  /** Of one message, or of those of an atomic batch. */
  readonly write: (batches: ReadonlyArray<typeof OpBatch.Type>, writer: Writer) => void
}>() {}

/** Why a concern can't be met here at all. */
const refusalOf = (concern: WriteConcern, durable: boolean): string | undefined =>
  concern === "REPLICATED"
    ? "REPLICATED needs a backup node, and this server has none: use APPLIED or PERSISTED"
    : concern === "PERSISTED" && !durable
    ? "PERSISTED needs a database, and this server keeps its data in memory: use APPLIED, or start it with storage sqlite or postgres"
    : undefined

export const layer: Layer.Layer<
  WriteAcks,
  never,
  Metrics | Partitions | Persistence | Subscriptions | Traces
> = Layer.effect(
  WriteAcks,
  Effect.gen(function*() {
    const clock = yield* Effect.clock
    const metrics = yield* Metrics
    const partitions = yield* Partitions
    const persistence = yield* Persistence
    const subscriptions = yield* Subscriptions
    const traces = yield* Traces
    return WriteAcks.of({
      write: (batches, writer) => {
        const last = batches.at(-1)?.ops.at(-1)?.[0]
        const origin = writer.takeOrigin()
        if (last === undefined) return
        const { atomic, concern, kind } = batches[0]!
        const trace = traces.begin(origin)
        const refusal = refusalOf(concern, persistence.durable)
        const parts: ReadonlyArray<Part> = batches.map((batch) => {
          const access = writer.accessTo(batch.map)
          return access === undefined ? batch : { ...batch, access }
        })
        const { accepted, rejected, won } = refusal === undefined
          ? partitions.apply(parts, atomic !== "no")
          : {
            accepted: [],
            won: [],
            rejected: batches.flatMap(({ ops }) =>
              ops.map(([sequence]) => ({ sequence, cause: "WriteRejected", reason: refusal }))
            )
          }
        metrics.applied(concern, accepted.length, rejected)
        trace?.applied({
          kind,
          concern,
          operations: accepted.length + rejected.length,
          accepted: accepted.length,
          rejected: rejected.length
        })
        for (const rejection of rejected) writer.send({ _tag: "OpReject", ...rejection })
        for (const batch of won) subscriptions.publish(batch, writer)
        const acknowledge = (level: Reached) => {
          if (accepted.length === 0) return trace?.ended()
          writer.acknowledge(level, accepted)
          // What is shown to him may be less than when he wrote.
          won.forEach((batch, at) => subscriptions.reveal(batch, batches[at]!.ops, writer))
          metrics.acknowledged(level, Number(clock.unsafeCurrentTimeNanos() - origin.receivedNanos) / 1e9)
          trace?.ended(level)
        }
        if (concern !== "PERSISTED") acknowledge("APPLIED")
        if (!persistence.durable) return trace?.ended()
        trace?.inLine()
        persistence.append(won, (failure) => {
          trace?.committed(failure)
          if (failure !== undefined) {
            trace?.ended(undefined, failure)
            return writer.unsaved(failure)
          }
          if (concern === "PERSISTED") acknowledge("PERSISTED")
          writer.durable(last)
        })
      }
    })
  })
)
