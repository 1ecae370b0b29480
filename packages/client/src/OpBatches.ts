/** How operations are parted into messages: by map, concern, count and bytes, and never within an atomic batch. */
import * as Protocol from "@topgun/core/Protocol"
import { keyOf, type Pending } from "./Outbox.ts"

/** Whether two operations are of one atomic batch. */
const isOneBatch = (a: Pending, b: Pending): boolean => a.batch !== undefined && a.batch.first === b.batch?.first

const sizeOf = (operation: Pending): number => operation.record.row.length + keyOf(operation).length

/** The messages that carry operations, in their order; before a batch in which some are part of a trace, the span of the first of them. */
export const messagesOf = function*(operations: ReadonlyArray<Pending>): Iterable<Protocol.ClientMessage> {
  let ops: Array<Protocol.OpTuple> = []
  let bytes = 0
  let traceParent: string | undefined
  /** A part of an atomic batch went before: the span of the batch as well. */
  let isBegun = false
  for (const [i, operation] of operations.entries()) {
    const { batch, concern, kind, map } = operation
    ops.push([operation.sequence, keyOf(operation), operation.record.row])
    bytes += sizeOf(operation)
    traceParent ??= operation.traceParent
    const next = operations[i + 1]
    const goesOn = next !== undefined && isOneBatch(operation, next)
    if (
      next === undefined || next.map !== map || next.concern !== concern ||
      (!goesOn && (batch !== undefined || next.batch !== undefined)) ||
      ops.length >= Protocol.batchOperationsMax || bytes + sizeOf(next) > Protocol.batchBytesMax
    ) {
      const atomic = goesOn ? "more" : batch === undefined ? "no" : "end"
      if (traceParent !== undefined && !isBegun) yield { _tag: "Traced", parent: traceParent }
      traceParent = undefined
      isBegun = goesOn
      yield { _tag: "OpBatch", map, kind, concern, atomic, ops }
      ops = []
      bytes = 0
    }
  }
}

/** Parts operations into chunks of about `Protocol.batchOperationsMax`, and no atomic batch. */
export const chunksOf = function*(operations: ReadonlyArray<Pending>): Iterable<ReadonlyArray<Pending>> {
  let from = 0
  for (let at = 1; at <= operations.length; at++) {
    const isLast = at === operations.length
    if (!isLast && (at - from < Protocol.batchOperationsMax || isOneBatch(operations[at - 1]!, operations[at]!))) {
      continue
    }
    yield operations.slice(from, at)
    from = at
  }
}
