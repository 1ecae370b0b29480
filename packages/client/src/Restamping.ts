/**
 * A device whose clock was wrong becomes another writer: the operations that the server hasn't got, and wouldn't take or
 * would take too early, get new stamps in the order in which they were written.
 */
import * as Cell from "@topgun/core/Cell"
import type { Hlc } from "@topgun/core/Hlc"
import type { Change, LwwMap } from "@topgun/core/LwwMap"
import * as LwwRecord from "@topgun/core/LwwRecord"
import type { Timestamp } from "@topgun/core/Timestamp"
import type { Journal } from "./Journal.ts"
import { keyOf, type Outbox, type Pending } from "./Outbox.ts"

/** Which operations get new stamps: those beyond the bound or, with `isAll`, all that the server hasn't got. */
export const dueOf = (
  operations: Iterable<Pending>,
  cellsOf: (map: string) => LwwMap,
  boundMillis: number,
  isAll: boolean
): ReadonlyArray<Pending> =>
  Array.from(operations).filter((operation) => {
    const { cell, kind, map, record } = operation
    // No clock has a part in a counter.
    if (kind === "counter" || !(isAll || record.millis > boundMillis)) return false
    const confirmed = cellsOf(map).getConfirmed(cell)
    // A tag is its addition's stamp: once the server has that, it can't be another one.
    return confirmed === undefined || (kind === "lww" && LwwRecord.compare(confirmed, record) < 0)
  })

/** What is changed. */
export interface Device {
  /** The node id that the new stamps get. */
  readonly writer: string
  readonly boundMillis: number
  readonly hlc: Hlc["Type"]
  readonly outbox: Outbox
  readonly journal: Pick<Journal<Pending>, "adopt" | "stageCell">
  readonly maps: ReadonlyArray<LwwMap>
  readonly cellsOf: (map: string) => LwwMap
}

/** The same write under another stamp: a value lives as long as it was to live. */
const restamped = (stamp: Timestamp, record: LwwRecord.LwwRecord): LwwRecord.LwwRecord =>
  record.isTombstone
    ? LwwRecord.remove(stamp)
    : LwwRecord.put(
      stamp,
      record.valueBytes,
      record.expiresAt === 0 ? 0 : Math.max(1, record.expiresAt + stamp.millis - record.millis)
    )

/** Stamps the operations anew, of which none is on a connection. Answers the changes that can be seen. */
export const restamp = (
  operations: ReadonlyArray<Pending>,
  { boundMillis, cellsOf, hlc, journal, maps, outbox, writer }: Device
): ReadonlyArray<readonly [map: string, change: Change]> => {
  hlc.unsafeAdopt(writer, 0)
  // Its own stamps from beyond the bound are what the clock has to forget.
  const raise = (record: LwwRecord.LwwRecord): void => {
    if (record.millis <= boundMillis) hlc.unsafeRaise(record)
  }
  const due = new Set(operations)
  for (const operation of outbox.entries()) {
    // The server may have what was sent, unless it is beyond its bound: the write's new stamp must win over that.
    if (!due.has(operation) || operation.stage === "flight") raise(operation.record)
  }
  for (const cells of maps) {
    for (const [cell] of cells.records()) {
      const confirmed = cells.getConfirmed(cell)
      if (confirmed !== undefined) raise(confirmed)
    }
  }
  journal.adopt(writer)
  const changed: Array<readonly [map: string, change: Change]> = []
  /** The tags of additions that have got another one. */
  const tags = new Map<string, Timestamp>()
  const inOrder = operations.slice().sort((a, b) => LwwRecord.compare(a.record, b.record) || a.sequence - b.sequence)
  for (const operation of inOrder) {
    const { cell, map, record } = operation
    const cells = cellsOf(map)
    if (operation.kind === "or") {
      const tag = `${map}\0${cell}`
      const stamp = tags.get(tag) ?? hlc.unsafeTick()
      const next = restamped(stamp, record)
      const nextCell = Cell.cellOf("or", keyOf(operation), next)
      if (!tags.has(tag)) cells.revert(cell)
      tags.set(tag, stamp)
      outbox.restamp(operation, next, nextCell)
      cells.write(nextCell, next)
      journal.stageCell(map, cell, "local")
      journal.stageCell(map, nextCell, "local")
      continue
    }
    outbox.restamp(operation, restamped(hlc.unsafeTick(), record))
    const live = cells.getRecord(cell)
    if (live === undefined || LwwRecord.compare(live, record) !== 0) continue
    const change = cells.revert(cell, operation.record)
    journal.stageCell(map, cell, "local")
    // Of a record that doesn't expire nothing changes that can be seen.
    if (change !== undefined && record.expiresAt !== 0) changed.push([map, change])
  }
  return changed
}
