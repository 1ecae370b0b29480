/** How local writes come into the replica: stamped, merged and visible within the call, and on their way to storage and server. */
import * as Cell from "@topgun/core/Cell"
import type { Store } from "@topgun/core/CrdtStore"
import type { CounterDeclaration, MapDeclaration, OrMapDeclaration } from "@topgun/core/Grid"
import { BackpressureError, BatchTooLarge, ClientClosed, type StorageFailure } from "@topgun/core/GridError"
import type { Hlc } from "@topgun/core/Hlc"
import type { Change as RecordChange, LwwMap } from "@topgun/core/LwwMap"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as PnCounter from "@topgun/core/PnCounter"
import * as Protocol from "@topgun/core/Protocol"
import * as Value from "@topgun/core/Value"
import type { WriteConcern } from "@topgun/core/WriteConcern"
import * as Deferred from "effect/Deferred"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import type { Journal } from "./Journal.ts"
import type { Outbox, Pending } from "./Outbox.ts"
import { check, checkTtl, type Draft, isRefusal, LocalWrite, type Part, type WriteTerms } from "./Write.ts"

/** The replica that is written to. */
export interface Options {
  readonly hlc: Hlc["Type"]
  readonly store: Store
  readonly cellsOf: (map: string) => LwwMap
  readonly outbox: Outbox
  readonly journal: Pick<Journal<Pending>, "stageCell" | "flushed">
  readonly now: () => number
  readonly emit: (map: string, changes: ReadonlyArray<RecordChange>, origin: "local") => void
  readonly emitAll: (changes: ReadonlyMap<string, ReadonlyArray<RecordChange>>, origin: "local") => void
  readonly isClosed: () => boolean
  /** A stamp is issued, of this time in ms. */
  readonly onStamp: (millis: number) => void
  /** Something is written. */
  readonly onWrite: () => void
  readonly onFault: (fault: unknown) => void
}

const nothingToWrite = Deferred.unsafeMake<void, StorageFailure>(FiberId.none)
Deferred.unsafeDone(nothingToWrite, Exit.void)

/** At most. */
const keyBytesOf = (key: string): number => 3 * key.length

const checkBatch = (drafts: ReadonlyArray<Draft>): void => {
  const bytes = drafts.reduce((sum, draft) => sum + draft.bytes + LwwRecord.putBytes(0, 1), 0)
  const { atomicBytesMax: bytesMax, batchOperationsMax: operationsMax } = Protocol
  if (drafts.length <= operationsMax && bytes <= bytesMax) return
  throw new BatchTooLarge({ operations: drafts.length, bytes, operationsMax, bytesMax })
}

export const make = (
  { cellsOf, emit, emitAll, hlc, isClosed, journal, now, onFault, onStamp, onWrite, outbox, store }: Options
) => {
  const putRecord = (bytes: Uint8Array | undefined, ttlMs: number | undefined): LwwRecord.LwwRecord => {
    const stamp = hlc.unsafeTick()
    onStamp(stamp.millis)
    return bytes === undefined
      ? LwwRecord.remove(stamp)
      : LwwRecord.put(stamp, bytes, ttlMs === undefined ? 0 : stamp.millis + ttlMs)
  }

  /**
   * A write comes after what is there. Only where a server has set this device's clock far back is there a later stamp; it may
   * refuse this one then, which is told, where it would have let it lose, which isn't.
   */
  const exceed = (name: string, key: string): void => hlc.unsafeRaise(cellsOf(name).getRecord(key)!)

  const admit = (
    write: LocalWrite,
    name: string,
    key: string,
    bytes: Uint8Array | undefined,
    { concern, ttlMs }: WriteTerms
  ): void => {
    let record = putRecord(bytes, ttlMs)
    let change = cellsOf(name).write(key, record)
    if (change === undefined) {
      exceed(name, key)
      record = putRecord(bytes, ttlMs)
      change = cellsOf(name).write(key, record)
    }
    const operation = outbox.append(name, "lww", key, record, concern, write.madeAt)
    journal.stageCell(name, key, "local")
    write.admit(Exit.succeed({ parts: [{ operation, record }], local: journal.flushed() }))
    if (change !== undefined) emit(name, [change], "local")
  }

  /** All that can be refused is, before anything is changed. */
  const admitAll = (write: LocalWrite, drafts: ReadonlyArray<Draft>, concern: WriteConcern, isBatch: boolean): void => {
    const records = drafts.map(({ stamp }) => stamp())
    const batch = isBatch && drafts.length > 1 ? outbox.batchOf(drafts.length) : undefined
    const parts: Array<Part> = []
    const changes = new Map<string, Array<RecordChange>>()
    drafts.forEach(({ key, kind, map, mayLose, stamp }, i) => {
      let record = records[i]!
      const cell = Cell.cellOf(kind, key, record)
      let change = cellsOf(map).write(cell, record)
      if (change === undefined && mayLose === true) return
      if (change === undefined && kind === "lww") {
        exceed(map, key)
        record = stamp()
        change = cellsOf(map).write(cell, record)
      }
      parts.push({ operation: outbox.append(map, kind, cell, record, concern, write.madeAt, batch), record })
      journal.stageCell(map, cell, "local")
      if (change === undefined) return
      const ofMap = changes.get(map)
      if (ofMap === undefined) changes.set(map, [change])
      else ofMap.push(change)
    })
    write.admit(Exit.succeed({ parts, local: parts.length === 0 ? nothingToWrite : journal.flushed() }))
    emitAll(changes, "local")
  }

  /** Calls `admitted` when `hasRoom` or, where the policy is to wait, when there is room for so many operations. */
  const enter = (concern: WriteConcern, places: number, hasRoom: boolean, admitted: (write: LocalWrite) => void) => {
    onWrite()
    const write = new LocalWrite(now(), concern)
    if (hasRoom) {
      admitted(write)
      return write
    }
    write.postpone()
    const waits = outbox.whenRoom(() => {
      try {
        if (isClosed()) throw new ClientClosed()
        admitted(write)
      } catch (fault) {
        // What the writer's own function throws is the writer's affair: others wait for room too.
        write.admit(isRefusal(fault) ? Exit.fail(fault) : Exit.die(fault))
        onFault(fault)
      }
    }, places)
    if (!waits) throw new BackpressureError({ pending: outbox.size(), capacity: outbox.capacity })
    return write
  }

  return {
    /**
     * Writes a key; `undefined` from `next` removes it. `next` may ask for the present value, at the moment of admission:
     * most don't, and then it isn't decoded. Visible when this returns, unless the outbox is full and its policy is to wait. The map is open.
     *
     * @throws WriteRefusal when nothing was changed
     */
    write: <A>(
      declaration: MapDeclaration<A>,
      key: string,
      next: (current: () => A | undefined) => A | undefined,
      terms: WriteTerms
    ): LocalWrite => {
      if (isClosed()) throw new ClientClosed()
      checkTtl(terms.ttlMs)
      const { name } = declaration
      const cells = cellsOf(name)
      const current = () => cells.get(key) as A | undefined
      const bytes = () => check(declaration, key, next(current))
      // What can be refused is refused now, though the value may be another one when there is room. Before the look for
      // room, as `next` may write too.
      const value = bytes()
      const hasRoom = outbox.hasRoom(name, key)
      return enter(terms.concern, 1, hasRoom, (write) => admit(write, name, key, hasRoom ? value : bytes(), terms))
    },

    /**
     * Writes all that `draft` answers, in one step here and one transaction of storage; with `isBatch` also on the server,
     * which takes all of it or none. `draft` is asked again when there was no room at first. Otherwise as {@link write}.
     *
     * @throws WriteRefusal when nothing was changed
     */
    writeAll: (draft: () => ReadonlyArray<Draft>, concern: WriteConcern, isBatch: boolean): LocalWrite => {
      if (isClosed()) throw new ClientClosed()
      const drafts = draft()
      if (isBatch) checkBatch(drafts)
      const places =
        drafts.filter(({ cell, map }) => isBatch || cell === undefined || !outbox.coalesces(map, cell)).length
      const hasRoom = places === 0 || outbox.hasPlaces(places)
      return enter(concern, places, hasRoom, (write) => admitAll(write, hasRoom ? drafts : draft(), concern, isBatch))
    },

    /** A key's next value; `undefined` removes it. @throws WriteRefusal */
    draft: <A>(
      declaration: MapDeclaration<A>,
      key: string,
      value: A | undefined,
      ttlMs = declaration.ttlMs
    ): Draft => {
      checkTtl(ttlMs)
      // Of its own, as more is encoded before it is written.
      const bytes = check(declaration, key, value)?.slice()
      const { name } = declaration
      const stamp = () => putRecord(bytes, ttlMs)
      return { map: name, kind: "lww", key, cell: key, bytes: keyBytesOf(key) + (bytes?.length ?? 0), stamp }
    },

    /** A key's record, as another device has made it, under its own stamp. @throws WriteRefusal */
    draftRecord: <A>(declaration: MapDeclaration<A>, key: string, row: Uint8Array): Draft => {
      Value.checkKey(key)
      const record = LwwRecord.decode(row)
      if (!record.isTombstone) check(declaration, key, Value.decode(record.valueBytes) as A)
      const received = hlc.unsafeReceive(record)
      if (Either.isLeft(received)) throw received.left
      const { name } = declaration
      return {
        map: name,
        kind: "lww",
        key,
        cell: key,
        bytes: keyBytesOf(key) + row.length,
        mayLose: true,
        stamp: () => record
      }
    },

    /** A value that a key of a map of sets is to have. @throws WriteRefusal */
    draftAddition: <A>(
      declaration: OrMapDeclaration<A>,
      key: string,
      value: A,
      ttlMs = declaration.ttlMs
    ): Draft => {
      checkTtl(ttlMs)
      const bytes = check(declaration, key, value)!.slice()
      const { name } = declaration
      const stamp = () => putRecord(bytes, ttlMs)
      return { map: name, kind: "or", key, cell: undefined, bytes: keyBytesOf(key) + bytes.length, stamp }
    },

    /** The removal of a value, or of all values, from a key of a map of sets: of what is there now. @throws WriteRefusal */
    draftRemoval: <A>({ name }: OrMapDeclaration<A>, key: string, value?: A): ReadonlyArray<Draft> => {
      const bytes = value === undefined ? undefined : Value.encode(value)
      return store.map(name, "or").orMap.tombstones(key, bytes).map((tombstone) => ({
        map: name,
        kind: "or",
        key,
        cell: Cell.cellOf("or", key, tombstone),
        bytes: keyBytesOf(key),
        stamp: () => tombstone
      }))
    },

    /** A counter's change. @throws WriteRefusal */
    draftCount: ({ name }: CounterDeclaration, by: number): Draft => {
      const { counter } = store.map(name, "counter")
      const next = () => counter.next(hlc.nodeId(), by)
      const cell = Cell.cellOf("counter", name, next())
      return { map: name, kind: "counter", key: name, cell, bytes: keyBytesOf(name) + PnCounter.rowBytes, stamp: next }
    }
  }
}
