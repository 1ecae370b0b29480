/**
 * How the copies of a replica in a browser's tabs keep alike. One tab, the leader, keeps the data of all and sends what they
 * write; the others follow it. Each is a writer of its own, with stamps of its own.
 *
 * What the leader says of a cell is assigned, not merged, as it may go back: a refused write is undone everywhere. Only a
 * follower's own writes, until the leader has stored them, stay on top. A follower that becomes the leader joins what it has
 * with what it finds in storage; both are states of the server and operations on their way, so nothing older is shown.
 */
import type * as Cell from "@topgun/core/Cell"
import type { Crdt, CrdtOf } from "@topgun/core/CrdtStore"
import type { StorageFailure } from "@topgun/core/GridError"
import * as Hlc from "@topgun/core/Hlc"
import type { Change, LwwMap } from "@topgun/core/LwwMap"
import * as LwwRecord from "@topgun/core/LwwRecord"
import type { OpenStorage } from "@topgun/core/Storage"
import type { WriteConcern } from "@topgun/core/WriteConcern"
import type * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { Journal } from "./Journal.ts"
import type { Outbox, Pending } from "./Outbox.ts"
import type { Packs } from "./Packs.ts"
import * as Remembered from "./Remembered.ts"

type Record = LwwRecord.LwwRecord

/** A cell as a copy has it: `live` undefined for none, `base` as in `LwwMap.getBase`. */
export interface CellState {
  readonly cell: string
  readonly live: Record | undefined
  readonly base: Record | null | undefined
}

/** An operation of a follower, by its number there. */
export interface Forwarded {
  readonly sequence: number
  readonly map: string
  readonly kind: Cell.MapKind
  readonly cell: string
  readonly record: Record
  readonly concern: WriteConcern
  readonly since: number
  /** How many operations, this one and those after it, are an atomic batch; 0 where it is none, or not the first. */
  readonly batch: number
}

export interface Options {
  /** When this tab was opened, in ms. */
  readonly openedAt: number
  readonly storage: OpenStorage
  readonly reader: Remembered.Reader
  readonly hlc: Hlc.Hlc["Type"]
  readonly outbox: Outbox
  readonly journal: Journal<Pending>
  readonly maps: ReadonlyMap<string, { readonly crdt: Crdt; readonly packs: Packs }>
  readonly openMap: <Kind extends Cell.MapKind>(name: string, kind: Kind) => CrdtOf<Kind>
  readonly emit: (map: string, changes: ReadonlyArray<Change>, origin: "local" | "remote") => void
  readonly emitAll: (changes: ReadonlyMap<string, ReadonlyArray<Change>>, origin: "remote") => void
  /** The server has what was written to a cell, as far as is known here. */
  readonly confirmed: (map: string, cell: string) => void
  /** What storage holds beside cells and operations is what this replica knows from now on. */
  readonly adopt: (known: Remembered.Known) => Effect.Effect<void, StorageFailure>
  /** Storage has a base of this cell. */
  readonly hasBase: (map: string, cell: string) => void
}

/** States are handed over in pages of so many cells, so that no tab is busy with them for long. */
export const pageCells = 500

/** Of what is known to be confirmed, be it here or there, the later. */
const laterOf = (here: Record | undefined, there: Record | null): Record | undefined =>
  there !== null && (here === undefined || LwwRecord.compare(there, here) > 0) ? there : here

const isSame = (a: Record | null | undefined, b: Record | null | undefined): boolean =>
  a === b || (a !== undefined && a !== null && b !== undefined && b !== null && LwwRecord.compare(a, b) === 0)

export const make = (
  {
    adopt,
    confirmed: onConfirmed,
    emit,
    emitAll,
    hasBase,
    hlc,
    journal,
    maps,
    openedAt,
    openMap,
    outbox,
    reader,
    storage
  }: Options
) => {
  let isFollowing = false
  const cellsOf = (map: string): LwwMap => maps.get(map)!.crdt.cells

  const stateOf = (map: string, cell: string): CellState => {
    const cells = cellsOf(map)
    return { cell, live: cells.getRecord(cell), base: cells.getBase(cell) }
  }

  /** Makes a cell what confirmed state and pending operations say; where storage has it otherwise (`stored`) it is written. */
  const settle = (
    map: string,
    cell: string,
    stored: Pick<CellState, "live" | "base">,
    confirmed: Record | undefined
  ): Change | undefined => {
    const pending = outbox.pendingRecord(map, cell)
    const isAhead = pending !== undefined && (confirmed === undefined || LwwRecord.compare(pending, confirmed) > 0)
    const live = isAhead ? pending : confirmed
    const base = isAhead ? confirmed ?? null : undefined
    if (!isSame(live, stored.live) || !isSame(base, stored.base)) journal.stageCell(map, cell, "remote")
    return cellsOf(map).assign(cell, live, base)
  }

  return {
    isFollowing: () => isFollowing,

    // --- As the leader ---

    /** Every map, and every cell in pages; the maps may change meanwhile. */
    *snapshot(): IterableIterator<{ map: string; kind: Cell.MapKind; cells: ReadonlyArray<CellState> }> {
      for (const [map, { crdt: { cells, kind } }] of Array.from(maps)) {
        let page: Array<CellState> = []
        for (const [cell, live] of cells.records()) {
          page.push({ cell, live, base: cells.getBase(cell) })
          if (page.length < pageCells) continue
          yield { map, kind, cells: page }
          page = []
        }
        yield { map, kind, cells: page }
      }
    },
    stateOf,
    /**
     * Takes in what a follower has written and isn't here yet, in its order: what comes of each there is what comes of the
     * answered operation here. `stored` is when all that waits to be stored is durable.
     */
    takeIn: (forwarded: ReadonlyArray<Forwarded>): {
      readonly operations: ReadonlyArray<Pending>
      readonly stored: Deferred.Deferred<void, StorageFailure>
    } => {
      const changes = new Map<string, Array<Change>>()
      let batch: ReturnType<Outbox["batchOf"]> | undefined
      let batchLeft = 0
      const operations = forwarded.map(({ batch: members, cell, concern, kind, map, record, since }) => {
        // One that is too far ahead is refused by the server, and stamped anew: it isn't to take this clock along.
        hlc.unsafeReceive(record)
        const { cells } = openMap(map, kind)
        if (members > 0) {
          batch = outbox.batchOf(members)
          batchLeft = members
        }
        const change = cells.write(cell, record)
        // It has lost to a later write of its cell that waits: what comes of that one is what comes of it.
        const later = change === undefined && batchLeft === 0 ? outbox.latest(map, cell) : undefined
        if (later !== undefined) return later
        const operation = outbox.append(map, kind, cell, record, concern, since, batchLeft > 0 ? batch : undefined)
        batchLeft = Math.max(0, batchLeft - 1)
        journal.stageCell(map, cell, "local")
        if (change !== undefined) {
          const ofMap = changes.get(map)
          if (ofMap === undefined) changes.set(map, [change])
          else ofMap.push(change)
        }
        return operation
      })
      const stored = journal.flushed()
      // Listeners may write, so they hear of it when all is done.
      emitAll(changes, "remote")
      return { operations, stored }
    },

    // --- As a follower ---

    /**
     * Goes by a leader from now on, as another writer: the stamps of the one before belong to its storage, and so to the
     * leader. Only while nothing is sent.
     */
    follow: Effect.gen(function*() {
      isFollowing = true
      const writer = yield* Hlc.makeNodeId
      hlc.unsafeAdopt(writer, hlc.unsafeLatest().millis)
      yield* outbox.relay((operation) => !journal.isStaged(operation))
    }),
    /** By how much the leader's server says that this device's clock is behind, in ms. */
    correct: hlc.unsafeCorrect,
    /** Makes cells what the leader says that they are, but for what was written here and isn't stored there. */
    assign: (map: string, kind: Cell.MapKind, states: ReadonlyArray<CellState>): void => {
      const { cells } = openMap(map, kind)
      const changes: Array<Change> = []
      for (const { base, cell, live } of states) {
        const own = outbox.unkept(map, cell)
        const isOwn = own !== undefined && (live === undefined || LwwRecord.compare(own, live) > 0)
        if (live !== undefined) hlc.unsafeReceive(live)
        const change = isOwn
          ? cells.assign(cell, own, base === undefined ? live ?? null : base)
          : cells.assign(cell, live, base)
        if (change !== undefined) changes.push(change)
      }
      if (changes.length > 0) emit(map, changes, "remote")
      for (const { base, cell } of states) if (base === undefined) onConfirmed(map, cell)
    },
    /** The leader has no other cells of a map than these. */
    retain: (map: string, has: ReadonlySet<string>): void => {
      const cells = cellsOf(map)
      const changes: Array<Change> = []
      for (const [cell] of Array.from(cells.records())) {
        if (has.has(cell) || outbox.unkept(map, cell) !== undefined) continue
        const change = cells.assign(cell, undefined, undefined)
        if (change !== undefined) changes.push(change)
      }
      if (changes.length > 0) emit(map, changes, "remote")
    },

    // --- From the one to the other ---

    /**
     * Keeps and sends by itself from now on, as yet another writer: the one who did before may be alive, and not know it yet.
     * Nothing of what it has stored is lost, nor of what was written here. False, with nothing changed, where the user was
     * logged out since this tab was opened.
     */
    lead: journal.takeOver((begin) =>
      Effect.gen(function*() {
        if ((yield* Remembered.readWipedAt(reader)) >= openedAt) return false
        const known = yield* Remembered.read(storage, reader, hlc.nodeId())
        const writer = yield* Hlc.makeNodeId
        begin(known.reserved)
        isFollowing = false
        outbox.adopt(known.operations, Math.max(known.reserved.sequence, (known.operations.at(-1)?.sequence ?? 0) + 1))
        hlc.unsafeAdopt(writer, hlc.unsafeLatest().millis)
        journal.adopt(writer)
        yield* adopt(known)
        for (const [name, { kind }] of known.maps) {
          const { cells } = openMap(name, kind)
          const found = new Set<string>()
          let changes: Array<Change> = []
          const tell = (): void => {
            const told = changes
            changes = []
            if (told.length > 0) emit(name, told, "remote")
          }
          yield* Remembered.readRecords(reader, name, kind, maps.get(name)!.packs, (cell, live, base) => {
            found.add(cell)
            hlc.unsafeRaise(live)
            if (base !== undefined) {
              hasBase(name, cell)
              if (!outbox.isPending(name, cell)) outbox.remake(name, kind, cell, live)
            }
            const change = settle(
              name,
              cell,
              { live, base },
              laterOf(cells.getConfirmed(cell), base === undefined ? live : base)
            )
            if (change !== undefined) changes.push(change)
          })
          tell()
          for (const [cell] of Array.from(cells.records())) {
            if (found.has(cell)) continue
            const change = settle(name, cell, { live: undefined, base: undefined }, cells.getConfirmed(cell))
            if (change !== undefined) changes.push(change)
          }
          tell()
        }
        return true
      })
    )
  }
}

export type Mirror = ReturnType<typeof make>
