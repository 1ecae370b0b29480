/**
 * How a device becomes another writer, with the operations that the server hasn't got.
 *
 * One whose clock was wrong gives those that the server wouldn't take, or would take too early, new stamps in the order in
 * which they were written ({@link restamp}). One whose node id another device writes under as well gives its own to the new
 * node, with their times, which were right ({@link rename}).
 */
import * as Cell from "@topgun/core/Cell"
import type { Hlc } from "@topgun/core/Hlc"
import type { Change, LwwMap } from "@topgun/core/LwwMap"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as PnCounter from "@topgun/core/PnCounter"
import type { Timestamp } from "@topgun/core/Timestamp"
import type { Journal } from "./Journal.ts"
import { keyOf, type Outbox, type Pending } from "./Outbox.ts"

/** Which operations get new stamps: those beyond the bound or, with `isAll`, all that the server hasn't got. */
export const dueOf = (
  operations: Iterable<Pending>,
  cellsOf: (map: string) => LwwMap,
  boundMillis: number,
  isAll: boolean
): ReadonlyArray<Pending> => {
  const all = Array.from(operations)
  const sent = new Set(all.filter((operation) => mayBeSeen(operation, boundMillis)).map(nameOf))
  return all.filter((operation) =>
    // No clock has a part in a counter.
    operation.kind !== "counter" && (isAll || operation.record.millis > boundMillis) && !sent.has(nameOf(operation)) &&
    mayChange(operation, cellsOf(operation.map).getConfirmed(operation.cell), boundMillis)
  )
}

const nameOf = ({ cell, map }: Pending): string => `${map}\0${cell}`

/**
 * Whether the server may have taken what concerns a tag: others may have seen the addition then, and taken it out. Under
 * another tag it would be back. It can do without a later time, but for one that expires.
 */
const mayBeSeen = ({ kind, record, stage }: Pending, boundMillis: number): boolean =>
  kind === "or" && stage === "flight" && record.millis <= boundMillis && record.expiresAt === 0

/** Whether an operation may be written in another way: the server is known to have neither it nor what it goes by. */
const mayChange = (
  { kind, record }: Pending,
  confirmed: LwwRecord.LwwRecord | undefined,
  boundMillis = Number.POSITIVE_INFINITY
): boolean =>
  // A tag is its addition's stamp: once the server has that, it can't be another one. And a stamp within the bound would lose to
  // what is beyond it, of which nobody were told; that this one is refused is told.
  confirmed === undefined ||
  (kind !== "or" && LwwRecord.compare(confirmed, record) < 0 && confirmed.millis <= boundMillis)

/** What is changed. */
export interface Device {
  /** The node id that the new stamps get. */
  readonly writer: string
  readonly hlc: Hlc["Type"]
  readonly outbox: Outbox
  readonly journal: Pick<Journal<Pending>, "adopt" | "stageCell">
  readonly cellsOf: (map: string) => LwwMap
}

/** A device whose clock was wrong. */
export interface WrongDevice extends Device {
  readonly boundMillis: number
  readonly maps: ReadonlyArray<LwwMap>
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

/** Stamps the operations anew, of which none is on a connection. Answers the changes that can be seen, by map. */
export const restamp = (
  operations: ReadonlyArray<Pending>,
  device: WrongDevice
): ReadonlyMap<string, ReadonlyArray<Change>> => {
  const { boundMillis, hlc, journal, maps, outbox, writer } = device
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
    for (const [, confirmed] of cells.confirmed()) raise(confirmed)
  }
  journal.adopt(writer)
  const inOrder = operations.slice().sort((a, b) => LwwRecord.compare(a.record, b.record) || a.sequence - b.sequence)
  return stampAll(inOrder, () => hlc.unsafeTick(), device)
}

/**
 * Gives a node's operations, of which none is on a connection, to another node. Nothing changes that can be seen: only who
 * counts, or has written. What the node's copy has sent too is written twice then, and a counter may count it twice.
 */
export const rename = (operations: Iterable<Pending>, device: Device): void => {
  const { cellsOf, hlc, journal, outbox, writer } = device
  const former = hlc.nodeId()
  const due = Array.from(operations).filter((operation) =>
    operation.record.nodeId === former && mayChange(operation, cellsOf(operation.map).getConfirmed(operation.cell))
  )
  // Above all that goes on under its name.
  hlc.unsafeAdopt(writer, hlc.unsafeLatest().millis)
  journal.adopt(writer)
  const counts = due.filter(({ kind }) => kind === "counter").sort((a, b) => a.sequence - b.sequence)
  for (const operation of counts) {
    const { cell, map, record } = operation
    const cells = cellsOf(map)
    const confirmed = cells.getConfirmed(cell)
    const before = confirmed === undefined ? { increments: 0, decrements: 0 } : PnCounter.fromTrusted(confirmed.row)
    const { decrements, increments } = PnCounter.fromTrusted(record.row)
    const next = PnCounter.totals(writer, increments - before.increments, decrements - before.decrements)
    const nextCell = Cell.cellOf("counter", keyOf(operation), next)
    outbox.restamp(operation, next, nextCell)
    cells.revert(cell)
    cells.write(nextCell, next)
    journal.stageCell(map, cell, "local")
    journal.stageCell(map, nextCell, "local")
  }
  stampAll(
    due.filter(({ kind }) => kind !== "counter"),
    ({ counter, millis }) => ({ millis, counter, nodeId: writer }),
    device
  )
}

/** Gives operations other stamps, one after the other. Answers the changes that can be seen, by map. */
const stampAll = (
  operations: ReadonlyArray<Pending>,
  stampOf: (record: LwwRecord.LwwRecord) => Timestamp,
  { cellsOf, journal, outbox }: Device
): ReadonlyMap<string, ReadonlyArray<Change>> => {
  const changed = new Map<string, Array<Change>>()
  const see = (map: string, change: Change | undefined): void => {
    if (change === undefined) return
    const ofMap = changed.get(map)
    if (ofMap === undefined) changed.set(map, [change])
    else ofMap.push(change)
  }
  /** The tags of additions that have got another one. */
  const tags = new Map<string, Timestamp>()
  for (const operation of operations) {
    const { cell, map, record } = operation
    const cells = cellsOf(map)
    if (operation.kind === "or") {
      const tag = `${map}\0${cell}`
      const stamp = tags.get(tag) ?? stampOf(record)
      const next = restamped(stamp, record)
      const nextCell = Cell.cellOf("or", keyOf(operation), next)
      // The same values as before, though their order may be another one.
      if (!tags.has(tag)) see(map, cells.revert(cell))
      tags.set(tag, stamp)
      outbox.restamp(operation, next, nextCell)
      see(map, cells.write(nextCell, next))
      journal.stageCell(map, cell, "local")
      journal.stageCell(map, nextCell, "local")
      continue
    }
    outbox.restamp(operation, restamped(stampOf(record), record))
    const live = cells.getRecord(cell)
    if (live === undefined || LwwRecord.compare(live, record) !== 0) continue
    const change = cells.revert(cell, operation.record)
    journal.stageCell(map, cell, "local")
    // Of a record that doesn't expire nothing changes that can be seen.
    if (record.expiresAt !== 0) see(map, change)
  }
  return changed
}
