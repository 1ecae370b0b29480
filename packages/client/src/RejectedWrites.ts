/**
 * Writes that the server refused, kept durably until the application has dealt with them: tried again, or discarded. At
 * most {@link rejectedMax}; before the oldest goes, it is reported.
 */
import { type WriteFailure, WriteRejected } from "@topgun/core/GridError"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as Value from "@topgun/core/Value"
import * as Effect from "effect/Effect"
import type { Journal } from "./Journal.ts"
import { spaces } from "./Journal.ts"
import type { Pending } from "./Outbox.ts"
import type { RejectedWrite } from "./Reports.ts"

export const rejectedMax = 1_000

const format = 1

const reasonLengthMax = 1_000
const causeLengthMax = 100
/** What storage adds to a refused value: its record's head, its map, its key, the reason, at most. */
const envelopeBytesMax = 16 * 1024

export const make = Effect.fnUntraced(function*<E>(options: {
  readonly journal: Pick<Journal, "stageRow">
  /** Reads a space; what `each` throws for is told of and left out. */
  readonly rows: (space: string, each: (key: string, value: Uint8Array) => void) => Effect.Effect<unknown, E>
  readonly onFault: (fault: unknown) => void
  readonly onChange: () => void
}) {
  const { journal } = options
  const rejected = new Map<string, RejectedWrite>()
  let list: ReadonlyArray<RejectedWrite> = []

  const refresh = (): void => {
    list = Array.from(rejected.values())
    options.onChange()
  }

  yield* options.rows(spaces.rejected, (id, bytes) => {
    const row = Value.decode(bytes)
    if (!Array.isArray(row) || row[0] !== format || row.length !== 7) throw new Error("not a rejected write")
    const [, map, key, record, cause, reason, since] = row as [
      number,
      string,
      string,
      Uint8Array,
      string,
      string,
      number
    ]
    rejected.set(id, { id, map, key, ...contentOf(LwwRecord.decode(record)), cause, reason, since })
  })
  list = Array.from(rejected.values())

  const remove = (id: string): RejectedWrite | undefined => {
    const write = rejected.get(id)
    if (write === undefined) return undefined
    rejected.delete(id)
    journal.stageRow({ space: spaces.rejected, key: id, value: undefined })
    return write
  }

  return {
    /** All of them, oldest first; another array after each change. */
    list: () => list,

    add: (operation: Pending, failure: WriteFailure): void => {
      const id = operation.sequence.toString(16).padStart(14, "0")
      const cause = failure instanceof WriteRejected ? failure.cause.slice(0, causeLengthMax) : failure._tag
      const reason = (failure instanceof WriteRejected ? failure.reason : failure.message).slice(0, reasonLengthMax)
      const { key, map, record, since } = operation
      journal.stageRow({
        space: spaces.rejected,
        key: id,
        value: Value.encode(
          [format, map, key, record.row, cause, reason, since],
          Value.valueBytesMax + envelopeBytesMax
        )
      })
      rejected.set(id, { id, map, key, ...contentOf(record), cause, reason, since })
      const oldest = rejected.keys().next()
      if (rejected.size > rejectedMax && oldest.done !== true) {
        const gone = remove(oldest.value)
        options.onFault(
          new Error(`A rejected write is forgotten, as there are over ${rejectedMax}; it is this error's cause`, {
            cause: gone
          })
        )
      }
      refresh()
    },

    get: (id: string): RejectedWrite | undefined => rejected.get(id),

    /** Takes one out of the list: the application has dealt with it. */
    take: (id: string): RejectedWrite | undefined => {
      const write = remove(id)
      if (write !== undefined) refresh()
      return write
    }
  }
})

const contentOf = (record: LwwRecord.LwwRecord): Pick<RejectedWrite, "ttlMs" | "value"> => ({
  value: record.isTombstone ? undefined : Value.decode(record.valueBytes),
  ttlMs: record.expiresAt === 0 ? undefined : record.expiresAt - record.millis
})
