/**
 * What a device's storage remembers of earlier runs, and what it takes to have it forgotten. Rows that can't be read are left
 * out, and told of together: they are no reason to do without the others. Only where a writer would use stamps or sequence
 * numbers again does it refuse.
 */
import * as Cell from "@topgun/core/Cell"
import { StorageTooNew, StorageUnavailable } from "@topgun/core/GridError"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import type { OpenStorage, StorageRow, StorageWrite } from "@topgun/core/Storage"
import { isNodeId, millisMax } from "@topgun/core/Timestamp"
import * as Value from "@topgun/core/Value"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import {
  confirmedKey,
  type Mark,
  nodeIdKey,
  type Reservation,
  reservationKey,
  secretKey,
  spaces,
  syncedAtKey,
  userKey
} from "./Journal.ts"
import * as Outbox from "./Outbox.ts"
import { decode as decodePack, type Packs } from "./Packs.ts"

/** Format 1 had no packs. */
const format = 2
const formatKey = "format"
/**
 * Rows and bytes of a page, about: in a browser one of each takes some 10 ms of the main thread to be read, of which half is the
 * browser's own. More of them are longer tasks, fewer are more of them, and slower as a whole.
 */
const pageRowsMax = 1_000
const pageBytesMax = 1_000_000
/** The first page's, from which the bytes of the others' rows are guessed. */
const firstPageRows = 100
const firstPackRows = 2

/** Packs hold many records to a row: of so many bytes it takes as long to make records of them. */
const packPageBytes = 100_000

/** How many rows the next page is to have, after one like `rows`. */
const pageRowsAfter = (rows: ReadonlyArray<StorageRow>, bytesMax: number): number => {
  let bytes = 0
  for (const { value } of rows) bytes += value.length
  return Math.max(1, Math.min(pageRowsMax, Math.floor(bytesMax * rows.length / Math.max(bytes, 1))))
}

/** Reads a storage's spaces. */
export const reader = (storage: OpenStorage, onUnreadable: (fault: StorageUnavailable) => void) => {
  /** Reads a space, page by page. */
  const pages = Effect.fnUntraced(function*(space: string, each: (row: StorageRow) => void, bytesMax = pageBytesMax) {
    let limit = bytesMax < pageBytesMax ? firstPackRows : firstPageRows
    let rows = yield* storage.scan(space, undefined, limit)
    while (rows.length === limit) {
      limit = pageRowsAfter(rows, bytesMax)
      // Asked for before the page at hand is looked at: storage has its own threads.
      const next = yield* Effect.fork(storage.scan(space, rows.at(-1)!.key, limit))
      yield* Effect.yieldNow()
      rows.forEach(each)
      rows = yield* Fiber.join(next)
    }
    rows.forEach(each)
  })
  return {
    pages,
    /** Reads a space. Rows that `each` throws for are left out, and told of together; answers that fault. */
    rows: Effect.fnUntraced(function*(
      space: string,
      each: (key: string, value: Uint8Array) => void,
      bytesMax = pageBytesMax
    ) {
      let unreadable = 0
      let cause: unknown
      yield* pages(space, ({ key, value }) => {
        try {
          each(key, value)
        } catch (thrown) {
          unreadable++
          cause = thrown
        }
      }, bytesMax)
      if (unreadable === 0) return undefined
      const unread = new StorageUnavailable({ reason: `${unreadable} rows of "${space}" are unreadable`, cause })
      onUnreadable(unread)
      return unread
    })
  }
}

export type Reader = ReturnType<typeof reader>

/** A map that this device has opened. */
export interface KnownMap {
  readonly kind: Cell.MapKind
  /** Whether it is to be in step with the server's, and not only written to. */
  readonly isFollowed: boolean
}

/** The generation of a store, and the age of it up to which this device has everything. */
export type Confirmation = readonly [generation: string, age: number]

/** The row that remembers a map. */
export const mapRow = (name: string, { isFollowed, kind }: KnownMap): StorageWrite => ({
  space: spaces.maps,
  key: name,
  value: Value.encode(isFollowed ? kind : [kind, "none"])
})

/** The row that remembers a map's mark. */
export const markRow = (name: string, { run, sequence }: Mark): StorageWrite => ({
  space: spaces.marks,
  key: name,
  value: Value.encode([run, sequence])
})

/** What a storage knows of itself: rows that say so. */
export const metaRows = (meta: {
  readonly nodeId: string
  readonly reserved?: Reservation
  readonly secret?: string | null
  readonly syncedAt?: number | undefined
  readonly user?: string | undefined
  readonly confirmed?: Confirmation | null
}): ReadonlyArray<StorageWrite> => {
  const { confirmed, nodeId, reserved, secret, syncedAt, user } = meta
  const rows: ReadonlyArray<readonly [key: string, value: unknown]> = [
    [formatKey, format],
    [nodeIdKey, nodeId],
    [reservationKey, reserved && [reserved.millis, reserved.sequence]],
    [secretKey, secret ?? undefined],
    [syncedAtKey, syncedAt],
    [userKey, user],
    [confirmedKey, confirmed ?? undefined]
  ]
  return rows.flatMap(([key, value]) =>
    value === undefined ? [] : [{ space: spaces.meta, key, value: Value.encode(value) }]
  )
}

const decodeMap = (name: string, value: Uint8Array): KnownMap => {
  const stored = Value.decode(value)
  const [kind, sync] = Array.isArray(stored) ? stored : [stored, "all"]
  if (!Cell.isMapKind(kind)) throw new Error(`map "${name}" is of a kind that this version doesn't know`)
  return { kind, isFollowed: sync !== "none" }
}

const decodeMark = (name: string, value: Uint8Array): Mark => {
  const stored = Value.decode(value)
  const [run, sequence] = Array.isArray(stored) ? stored : []
  if (typeof run !== "string" || !Number.isSafeInteger(sequence) || sequence < 0) {
    throw new Error(`what is stored for map "${name}" is no mark`)
  }
  return { run, sequence }
}

/** What a row says that is there; `undefined` when it says nothing that can be. */
const reservationOf = (stored: unknown): Reservation | undefined => {
  if (stored === undefined) return { millis: 0, sequence: 0 }
  const [millis, sequence] = Array.isArray(stored) ? stored : []
  const isSound = Number.isSafeInteger(millis) && millis >= 0 && millis <= millisMax && Outbox.isSequence(sequence)
  return isSound ? { millis, sequence } : undefined
}

const confirmationOf = (stored: unknown): Confirmation | null => {
  const [generation, age] = Array.isArray(stored) ? stored : []
  return typeof generation === "string" && Number.isSafeInteger(age) && age >= 0 ? [generation, age] : null
}

const textOf = (value: unknown): string | undefined => typeof value === "string" ? value : undefined

/** When a user was logged out here last, in ms. */
export const readWipedAt = Effect.fnUntraced(function*({ rows }: Reader) {
  let wipedAt = Number.NEGATIVE_INFINITY
  yield* rows(spaces.wiped, (_, value) => {
    const at = Value.decode(value)
    if (typeof at === "number") wipedAt = at
  })
  return wipedAt
})

/** All but the records. A storage that is new becomes that of the node `newNodeId`. */
export const read = Effect.fnUntraced(function*(storage: OpenStorage, { rows }: Reader, newNodeId: string) {
  const meta = new Map<string, unknown>()
  const metaFault = yield* rows(spaces.meta, (key, value) => meta.set(key, Value.decode(value)))
  // Without them this writer could issue stamps and sequence numbers again that it has used.
  if (metaFault !== undefined) return yield* metaFault
  const storedFormat = meta.get(formatKey)
  if (storedFormat !== undefined && storedFormat !== format && storedFormat !== 1) {
    return yield* new StorageTooNew({
      reason: `it is in format ${String(storedFormat)}, this version reads format ${format}`
    })
  }
  const storedNodeId = meta.get(nodeIdKey)
  const reserved = reservationOf(meta.get(reservationKey))
  if (reserved === undefined) {
    return yield* new StorageUnavailable({ reason: "what it says of the stamps that were issued here is unreadable" })
  }
  const nodeId = isNodeId(storedNodeId) ? storedNodeId : newNodeId
  // Before anything is written that an older version would miss.
  if (nodeId !== storedNodeId || storedFormat !== format) yield* storage.commit(metaRows({ nodeId }))

  const operations: Array<Outbox.StoredOperation> = []
  yield* rows(spaces.outbox, (key, value) => {
    const operation = Outbox.decode(key, value)
    if (operation === undefined) throw new Error(`${key} is not an operation`)
    operations.push(operation)
  })
  const maps = new Map<string, KnownMap>()
  yield* rows(spaces.maps, (name, value) => maps.set(name, decodeMap(name, value)))
  for (const { kind, map } of operations) if (!maps.has(map)) maps.set(map, { kind, isFollowed: true })
  const marks = new Map<string, Mark>()
  yield* rows(spaces.marks, (name, value) => marks.set(name, decodeMark(name, value)))

  const syncedAt = meta.get(syncedAtKey)
  return {
    nodeId,
    /** Whether nothing was stored before. */
    isNew: storedNodeId === undefined,
    reserved,
    operations,
    /** The maps that this device has opened, and those that it has operations for. */
    maps,
    marks,
    /** What tells this storage from its copies. */
    secret: textOf(meta.get(secretKey)) ?? null,
    syncedAt: typeof syncedAt === "number" ? syncedAt : undefined,
    user: textOf(meta.get(userKey)),
    /** Of which store, and up to which age of it, this device has told that it has everything; null before. */
    confirmed: confirmationOf(meta.get(confirmedKey))
  }
})

/** What storage remembers, but for the records. */
export type Known = Effect.Effect.Success<ReturnType<typeof read>>

/** A map's records, each with what the server has in its place: null for nothing, `undefined` where that is the record itself. */
export const readRecords = Effect.fnUntraced(function*(
  { rows }: Reader,
  name: string,
  kind: Cell.MapKind,
  packs: Packs,
  each: (cell: string, record: LwwRecord, base: LwwRecord | null | undefined) => void
) {
  const decode = (cell: string, row: Uint8Array): LwwRecord =>
    Cell.decodeInPlace(kind, name, Cell.keyOf(kind, cell), row)
  const bases = new Map<string, LwwRecord | null>()
  yield* rows(
    spaces.bases(name),
    (cell, value) => bases.set(cell, value.length === 0 ? null : decode(cell, value))
  )
  // A row of a cell's own counts, whatever its pack says.
  const loose = new Map<string, LwwRecord | undefined>()
  packs.reset()
  yield* rows(spaces.records(name), (cell, value) => {
    packs.foundLoose(cell)
    loose.set(cell, undefined)
    if (value.length > 0) loose.set(cell, decode(cell, value))
  })
  yield* rows(spaces.packs(name), (_, value) =>
    decodePack(value, (cell, row) => {
      packs.foundPacked(cell)
      if (!loose.has(cell)) each(cell, decode(cell, row), bases.get(cell))
    }), packPageBytes)
  let given = 0
  for (const [cell, record] of loose) {
    if (record !== undefined) each(cell, record, bases.get(cell))
    if (++given % pageRowsMax === 0) yield* Effect.yieldNow()
  }
})

/** The deletion of every row; with `isKept`, but for the cells of which it is true, the operations and rejected writes. */
export const deletions = Effect.fnUntraced(function*(
  { pages }: Reader,
  maps: Iterable<string>,
  isKept: ((map: string, cell: string) => boolean) | undefined,
  nowMillis: number
) {
  const writes: Array<StorageWrite> = [{ space: spaces.wiped, key: "at", value: Value.encode(nowMillis) }]
  const remove = (space: string, keeps: (key: string) => boolean) =>
    pages(space, ({ key }) => {
      if (!keeps(key)) writes.push({ space, key, value: undefined })
    })
  // Also those of a kind that this version doesn't know.
  const names = new Set(maps)
  yield* pages(spaces.maps, ({ key }) => names.add(key))
  for (const name of names) {
    for (const space of [spaces.records(name), spaces.bases(name)]) {
      yield* remove(space, (cell) => isKept?.(name, cell) === true)
    }
    yield* remove(spaces.packs(name), () => false)
  }
  for (const space of [spaces.meta, spaces.outbox, spaces.rejected]) yield* remove(space, () => isKept !== undefined)
  for (const space of [spaces.maps, spaces.marks]) yield* remove(space, () => false)
  return writes
})
