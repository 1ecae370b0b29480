/**
 * Writes that the server refused, kept durably until the application has dealt with them: tried again, or discarded. At
 * most {@link rejectedMax}; before the oldest goes, it is reported.
 */
import * as Cell from "@topgun/core/Cell"
import { type WriteFailure, WriteRejected } from "@topgun/core/GridError"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import * as PnCounter from "@topgun/core/PnCounter"
import type { StorageWrite } from "@topgun/core/Storage"
import * as Value from "@topgun/core/Value"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import type { Journal } from "./Journal.ts"
import { spaces } from "./Journal.ts"
import { Observable } from "./Live.ts"
import { keyOf, type Pending } from "./Outbox.ts"
import type { RejectedWrite } from "./Reports.ts"

export const rejectedMax = 1_000

const format = 1

const reasonLengthMax = 1_000
const causeLengthMax = 100
/** What storage adds to a refused value: its map, its key, the reason, at most. */
const envelopeBytesMax = 16 * 1024

/** What JSON lacks as text: a Date in ISO 8601, bytes in base64, a bigint in digits. */
const readable = (_: string, value: unknown): unknown =>
  typeof value === "bigint" ? String(value) : value instanceof Uint8Array ? Encoding.encodeBase64(value) : value

/**
 * Rejected writes as JSON Lines, oldest first: of each the fields of {@link RejectedWrite}, the value as JSON to read, and as
 * `encoded`, base64 of its canonical bytes, to get it back whole.
 */
export const toJsonLines = (writes: ReadonlyArray<RejectedWrite>): string =>
  writes.map((write) => {
    const encoded = write.value === undefined ? undefined : Encoding.encodeBase64(Value.encode(write.value))
    return `${JSON.stringify({ ...write, encoded }, readable)}\n`
  }).join("")

export const make = Effect.fnUntraced(function*<E>(options: {
  readonly journal: Pick<Journal<unknown>, "stageRow">
  /** Reads a space; what `each` throws for is told of and left out. */
  readonly rows: (space: string, each: (key: string, value: Uint8Array) => void) => Effect.Effect<unknown, E>
  readonly onFault: (fault: unknown) => void
  readonly onChange: () => void
  /** The application has dealt with one. */
  readonly onTaken: (id: string) => void
}) {
  const { journal } = options
  const rejected = new Map<string, RejectedWrite>()
  const list = new Observable<ReadonlyArray<RejectedWrite>>([], options.onFault)

  const refresh = (): void => {
    list.set(Array.from(rejected.values()))
    options.onChange()
  }

  /** Makes the list what storage holds. */
  const load = Effect.zipLeft(
    options.rows(spaces.rejected, (id, bytes) => {
      const row = Value.decode(bytes)
      if (!Array.isArray(row) || row[0] !== format || row.length !== 10) throw new Error("not a rejected write")
      const [, map, kind, key, change, value, ttlMs, cause, reason, since] = row as [
        number,
        string,
        Cell.MapKind,
        string,
        RejectedWrite["change"],
        Uint8Array | null,
        number | null,
        string,
        string,
        number
      ]
      if (!Cell.isMapKind(kind)) throw new Error(`not a kind of map: "${String(kind)}"`)
      const content = { change, value: value === null ? undefined : Value.decode(value), ttlMs: ttlMs ?? undefined }
      rejected.set(id, { id, map, kind, key, ...content, cause, reason, since })
    }),
    Effect.sync(() => list.set(Array.from(rejected.values())))
  )
  yield* load

  const remove = (id: string): RejectedWrite | undefined => {
    const write = rejected.get(id)
    if (write === undefined) return undefined
    rejected.delete(id)
    journal.stageRow({ space: spaces.rejected, key: id, value: undefined })
    return write
  }

  return {
    /** All of them, oldest first; another array after each change. */
    list: list.live,
    /** Forgets them, as storage has. */
    clear: (): void => {
      rejected.clear()
      refresh()
    },
    /** Reads them again, from a storage that another tab has kept meanwhile. */
    reload: Effect.suspend(() => {
      rejected.clear()
      return Effect.asVoid(load)
    }),
    /** They are another tab's, which says which there are. */
    assign: (writes: ReadonlyArray<RejectedWrite>): void => {
      rejected.clear()
      for (const write of writes) rejected.set(write.id, write)
      refresh()
    },

    /** Stages all of them again, for a storage that has none. */
    stageAgain: (): void => {
      for (const write of rejected.values()) journal.stageRow(rowOf(write))
    },

    /** Keeps what was refused of an operation; `current` is its cell's record now, without it. */
    add: (operation: Pending, current: LwwRecord | undefined, failure: WriteFailure): void => {
      const content = contentOf(operation, current)
      const id = operation.sequence.toString(16).padStart(14, "0")
      const cause = failure instanceof WriteRejected ? failure.cause.slice(0, causeLengthMax) : failure._tag
      const reason = (failure instanceof WriteRejected ? failure.reason : failure.message).slice(0, reasonLengthMax)
      const { kind, map, since } = operation
      const key = keyOf(operation)
      const write: RejectedWrite = { id, map, kind, key, ...content, cause, reason, since }
      journal.stageRow(rowOf(write))
      rejected.set(id, write)
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
      if (write === undefined) return undefined
      refresh()
      options.onTaken(id)
      return write
    }
  }
})

const rowOf = ({ cause, change, id, key, kind, map, reason, since, ttlMs, value }: RejectedWrite): StorageWrite => ({
  space: spaces.rejected,
  key: id,
  value: Value.encode(
    [
      format,
      map,
      kind,
      key,
      change,
      value === undefined ? null : Value.encode(value),
      ttlMs ?? null,
      cause,
      reason,
      since
    ],
    Value.valueBytesMax + envelopeBytesMax
  )
})

type Content = Pick<RejectedWrite, "change" | "value" | "ttlMs">

const valueOf = (record: LwwRecord | undefined): unknown =>
  record === undefined || record.isTombstone ? undefined : Value.decode(record.valueBytes)

const netOf = (record: LwwRecord | undefined): number => {
  if (record === undefined) return 0
  const { decrements, increments } = PnCounter.fromTrusted(record.row)
  return increments - decrements
}

const contentOf = ({ kind, record }: Pending, current: LwwRecord | undefined): Content => {
  if (kind === "counter") return { change: "count", value: netOf(record) - netOf(current), ttlMs: undefined }
  if (!record.isTombstone) {
    return {
      change: kind === "or" ? "add" : "set",
      value: valueOf(record),
      ttlMs: record.expiresAt === 0 ? undefined : record.expiresAt - record.millis
    }
  }
  // A tombstone doesn't tell which value it is of, the addition that is back does.
  return { change: "remove", value: kind === "or" ? valueOf(current) : undefined, ttlMs: undefined }
}
