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
 *
 * An operation that comes again merges into what it has merged into. Where it would come to something else, as a resolver or an
 * interceptor has its say, it gets the answer that it got the first time ({@link Answers}), and nothing is done.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { ShuttingDown, StorageUnavailable } from "@topgun/core/GridError"
import type { OpBatch, OpTuple, ServerMessage } from "@topgun/core/Protocol"
import type { WriteConcern } from "@topgun/core/WriteConcern"
import { partitionOf } from "@topgun/core/Partition"
import * as Value from "@topgun/core/Value"
import type { Access } from "./Access.ts"
import { type Answer, Answers, deviceOf } from "./Answers.ts"
import type { Principal } from "./Authentication.ts"
import { type Applied, type Intercepted, type Part, Partitions, type Rejection, type Won } from "./Partitions.ts"
import { type Note, Persistence } from "./Persistence.ts"
import type { Subscriber } from "./Subscriptions.ts"
import { Subscriptions } from "./Subscriptions.ts"
import { Interception } from "./Interception.ts"
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
  /** Who it is: the user, where somebody is asked, and the device. */
  readonly principal: () => Principal | undefined
  readonly nodeId: () => string
  /** What this writer may do with a map; `undefined` for everything. */
  readonly accessTo: (map: string) => Access | undefined
}

/** Carries out writes. */
export class WriteAcks extends Context.Tag("@topgun/server/WriteAcks")<WriteAcks, {
  /**
   * Of one message, or of those of an atomic batch, with what interceptors have said of the operations that {@link isAnswered} isn't true
   * of, where there are any.
   */
  readonly write: (
    batches: ReadonlyArray<typeof OpBatch.Type>,
    writer: Writer,
    intercepted?: ReadonlyMap<number, Intercepted>
  ) => void
  /** Whether an operation was answered before, and gets that answer. */
  readonly isAnswered: (op: OpTuple, writer: Writer) => boolean
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
  Answers | Interception | Metrics | Partitions | Persistence | Subscriptions | Traces
> = Layer.effect(
  WriteAcks,
  Effect.gen(function*() {
    const answers = yield* Answers
    const clock = yield* Effect.clock
    const { after } = yield* Interception
    const metrics = yield* Metrics
    const partitions = yield* Partitions
    const persistence = yield* Persistence
    const subscriptions = yield* Subscriptions
    const traces = yield* Traces

    /** What is there in place of what operations that were done before have written. */
    const ofThose = (ops: ReadonlyArray<OpTuple>, won: Won): Won["amended"] => {
      if (won.kind !== "lww") return []
      const source = partitions.source(won.map)
      return ops.flatMap(([, key, row]) => {
        const partition = partitionOf(key)
        const record = source.record(key, partition)
        return record === undefined || Value.compareBytes(record.row, row) === 0
          ? []
          : [{ cell: key, partition, record }]
      })
    }

    /** Applies what wasn't answered before, and answers what was. */
    const applyOnce = (
      parts: ReadonlyArray<Part>,
      isAtomic: boolean,
      writer: Writer
    ): Applied & { readonly fresh: ReadonlyArray<Part>; readonly notes: ReadonlyArray<Note> } => {
      const device = deviceOf(writer.nodeId(), writer.principal()?.userId)
      const known = new Map<number, Answer>()
      const all = parts.flatMap(({ ops }) => ops)
      for (const op of all) {
        const answer = answers.find(device, op)
        if (answer !== undefined) known.set(op[0], answer)
      }
      // An atomic batch was answered as a whole, or it's another one.
      if (isAtomic && known.size < all.length) known.clear()
      const fresh = parts.map((part) => ({ ...part, ops: part.ops.filter(([sequence]) => !known.has(sequence)) }))
      const applied = partitions.apply(fresh, isAtomic)
      const rejectedBefore: Array<Rejection> = []
      const acceptedBefore: Array<number> = []
      for (const [sequence, answer] of known) {
        if (answer === "accepted") acceptedBefore.push(sequence)
        else rejectedBefore.push(answer)
      }
      const won = applied.won.map((batch, at) => {
        const repeated = parts[at]!.ops.filter(([sequence]) => known.get(sequence) === "accepted")
        return repeated.length === 0 ? batch : { ...batch, amended: [...ofThose(repeated, batch), ...batch.amended] }
      })
      return {
        accepted: [...acceptedBefore, ...applied.accepted],
        rejected: [...rejectedBefore, ...applied.rejected],
        won,
        fresh,
        notes: answers.add(device, fresh.flatMap(({ ops }) => ops), applied.rejected, clock.unsafeCurrentTimeMillis())
      }
    }

    return WriteAcks.of({
      isAnswered: (op, writer) => answers.find(deviceOf(writer.nodeId(), writer.principal()?.userId), op) !== undefined,
      write: (batches, writer, intercepted) => {
        const last = batches.at(-1)?.ops.at(-1)?.[0]
        const origin = writer.takeOrigin()
        if (last === undefined) return
        const { atomic, concern, kind } = batches[0]!
        const trace = traces.begin(origin)
        const refusal = refusalOf(concern, persistence.durable)
        const isOnce = intercepted !== undefined || batches.some(({ map }) => partitions.isResolved(map))
        const parts: ReadonlyArray<Part> = batches.map((batch) => {
          const access = writer.accessTo(batch.map)
          if (access === undefined && !isOnce) return batch
          return {
            ...batch,
            ...(access === undefined ? {} : { access }),
            ...(isOnce ? { principal: writer.principal() } : {}),
            ...(intercepted === undefined ? {} : { intercepted })
          }
        })
        const isAtomic = atomic !== "no"
        const { accepted, fresh, notes, rejected, won } = refusal !== undefined
          ? {
            accepted: [],
            won: [],
            rejected: batches.flatMap(({ ops }) =>
              ops.map(([sequence]) => ({ sequence, cause: "WriteRejected", reason: refusal }))
            ),
            fresh: batches,
            notes: []
          }
          : isOnce
          ? applyOnce(parts, isAtomic, writer)
          : { ...partitions.apply(parts, isAtomic), fresh: batches, notes: [] }
        after?.(fresh, { principal: writer.principal(), nodeId: writer.nodeId() }, rejected)
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
        }, { notes, isPatient: concern !== "PERSISTED" })
      }
    })
  })
)
