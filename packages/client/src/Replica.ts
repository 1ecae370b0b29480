/**
 * This device's copy of the grid: the maps, their journal and the outbox, in one consistent step each.
 *
 * A local write is stamped, merged and visible before the call returns; its record and operation go to storage together at
 * the end of the tick. Records from the server are merged the same way, without an operation.
 */
import * as Backpressure from "@topgun/core/Backpressure"
import type * as Cell from "@topgun/core/Cell"
import { type Crdt, type CrdtOf, CrdtStore } from "@topgun/core/CrdtStore"
import { type Declaration, type Index, type KindOf, kindOf, type Search } from "@topgun/core/Grid"
import type { Expiring } from "@topgun/core/ExpiryHeap"
import { ClientClosed, StorageEvicted, type StorageFailure, UnsentWrites } from "@topgun/core/GridError"
import * as Hlc from "@topgun/core/Hlc"
import type { Change as RecordChange, LwwMap } from "@topgun/core/LwwMap"
import * as LwwRecord from "@topgun/core/LwwRecord"
import type { KeyedRecord } from "@topgun/core/MerkleSync"
import { Storage, type StorageWrite } from "@topgun/core/Storage"
import * as Value from "@topgun/core/Value"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Announcements from "./Announcements.ts"
import * as Journal from "./Journal.ts"
import * as Mirror from "./Mirror.ts"
import * as Conformance from "./Conformance.ts"
import * as Expiry from "./Expiry.ts"
import * as Outbox from "./Outbox.ts"
import { Packs } from "./Packs.ts"
import * as RejectedWrites from "./RejectedWrites.ts"
import * as Remembered from "./Remembered.ts"
import * as Restamping from "./Restamping.ts"
import * as StorageGuardian from "./StorageGuardian.ts"
import * as Writing from "./Writing.ts"

/** One map of this device, and who listens to it. */
interface ReplicaMap {
  readonly crdt: Crdt
  readonly audience: Announcements.Audience
  readonly packs: Packs
  /** The space of its bases: a name that is made once, as making one costs as much as storing a row. */
  readonly bases: string
  /** What is kept of it beside: told before the audience is. */
  readonly witnesses: Set<Witness>
}

/** Keeps something that follows from a map's records, as its queries do. It reads what has become of them by itself. */
export interface Witness {
  /** A cell has visibly changed: within the same step, before any listener hears of it. */
  readonly changed: (cell: string) => void
  /** The server has what was written to a cell here. Also called where that was known before. */
  readonly confirmed?: (cell: string) => void
}

/** Told of what concerns the whole device, as far as one asks for it. */
export interface Events {
  /** Something of the status changed. Called often; read what is needed later. */
  readonly onChange?: () => void
  /** A fault that nobody waits for. */
  readonly onFault?: (fault: unknown) => void
  /** A map was opened for the first time. */
  readonly onMapOpened?: (map: string) => void
  /** A cell is, or may be, another than before. Called often. */
  readonly onCell?: (map: string, cell: string) => void
  /** The application has dealt with a rejected write. */
  readonly onTaken?: (id: string) => void
  /** What has become of an operation so far is known better than before. */
  readonly onOutcome?: (operation: Outbox.Pending) => void
  /** The outbox has filled up to, or drained down to, its water marks. */
  readonly onHighWater?: (pending: number) => void
  readonly onLowWater?: (pending: number) => void
}

const make = Effect.fnUntraced(function*(backpressure: Backpressure.Options) {
  const { name: storageName, open } = yield* Storage
  const storage = yield* open
  const hlc = yield* Hlc.Hlc
  const store = (yield* CrdtStore).open()
  const clock = yield* Effect.clock
  const now = () => clock.unsafeCurrentTimeMillis()

  const maps = new Map<string, ReplicaMap>()
  const indexes = new Map<string, ReadonlyArray<Index>>()
  const searches = new Map<string, Search>()
  const subscribers = new Set<Events>()
  let closed = false
  /** Wiped: there is nothing left to read. */
  let gone = false
  let storageFault: StorageFailure | undefined

  const onChange = (): void => {
    for (const each of subscribers) each.onChange?.()
  }
  const onFault = (fault: unknown): void => {
    for (const each of subscribers) each.onFault?.(fault)
  }
  /** What was found while opening, when nobody could listen yet. */
  let found: Array<StorageFailure> = []

  // --- Opening: what this device remembers ---

  const reader = Remembered.reader(storage, (fault) => void found.push(fault))
  if (storage.fault !== undefined) found.push(storage.fault)
  const guardian = yield* StorageGuardian.make({ name: storageName, durable: storage.durable }, onChange)
  const known = yield* Remembered.read(storage, reader, hlc.nodeId())
  if (known.isNew && storage.isOwned?.() !== false && guardian.wasThere()) {
    found.push(new StorageEvicted({ reason: `${storage.kind} is empty, and wasn't when this device was here last` }))
  }
  guardian.isThere()
  const { operations: stored, reserved } = known
  let { confirmed, marks, secret, syncedAt, user } = known
  hlc.unsafeAdopt(known.nodeId, reserved.millis)

  const openMap = <Kind extends Cell.MapKind>(name: string, kind: Kind): CrdtOf<Kind> => {
    const crdt = store.map(name, kind)
    if (!maps.has(name)) {
      const { bases, packs, records } = Journal.spaces
      maps.set(name, {
        crdt,
        audience: new Announcements.Audience(),
        packs: new Packs(crdt.cells, { records: records(name), packs: packs(name) }),
        bases: bases(name),
        witnesses: new Set()
      })
    }
    return crdt
  }
  /** A map that is open. */
  const mapOf = (name: string): ReplicaMap => maps.get(name)!
  const cellsOf = (name: string): LwwMap => mapOf(name).crdt.cells

  const ahead: Array<readonly [map: string, cell: string]> = []
  /** The cells that storage may have a base of, by map: those that were ever ahead. Of the others none has to be deleted. */
  const withBase = new Map<string, Set<string>>()
  const stillToExpire: Array<Expiring> = []
  for (const [name, { kind }] of known.maps) {
    const { cells } = openMap(name, kind)
    const bases = new Set<string>()
    withBase.set(name, bases)
    // Listeners are told of changes; what expired while the device slept never changed under their eyes.
    const expireFrom = now()
    yield* Remembered.readRecords(reader, name, kind, mapOf(name).packs, (cell, record, base) => {
      hlc.unsafeRaise(record)
      cells.restore(cell, record, base)
      if (record.expiresAt > expireFrom) stillToExpire.push({ at: record.expiresAt, map: name, cell })
      if (base === undefined) return
      ahead.push([name, cell])
      bases.add(cell)
    })
  }

  const conformance = yield* Conformance.make({
    recordOf: (map, cell) => cellsOf(map).getRecord(cell),
    onFault
  })

  // --- Writing down ---

  const noBytes = new Uint8Array(0)
  /** The row of a cell's base, where storage has one or is to. */
  const baseWrite = (name: string, cell: string): StorageWrite | undefined => {
    const { bases, crdt: { cells } } = mapOf(name)
    const base = cells.getBase(cell)
    let ofMap = withBase.get(name)
    if (base === undefined && ofMap?.has(cell) !== true) return undefined
    if (ofMap === undefined) {
      ofMap = new Set()
      withBase.set(name, ofMap)
    }
    ofMap.add(cell)
    return { space: bases, key: cell, value: base === undefined ? undefined : base === null ? noBytes : base.row }
  }
  const cellWrites = (name: string, cell: string): ReadonlyArray<StorageWrite> => {
    const row = mapOf(name).packs.looseWrite(cell)
    const base = baseWrite(name, cell)
    return base === undefined ? [row] : [row, base]
  }

  // Declared before the outbox exists, as each needs the other.
  let nextSequence = () => reserved.sequence
  let stageAll = (): void => {}
  const inUse = { millis: 0 }
  const journal = yield* Journal.make(storage, reserved, {
    cellWrites,
    partitionOf: (name, cell) => cellsOf(name).partitionOf(cell),
    pack: (name, partition, cells) =>
      mapOf(name).packs.pack(partition, cells, {
        ofCell: (cell) => cellWrites(name, cell),
        ofBase: (cell) => baseWrite(name, cell)
      }),
    operationWrite: Outbox.rowOf,
    markWrite: (name) => Remembered.markRow(name, marks.get(name)!),
    inUse: () => ({ millis: inUse.millis, sequence: nextSequence() }),
    onCell: (map, cell) => {
      for (const each of subscribers) each.onCell?.(map, cell)
    },
    onCommit: (fault) => {
      if (fault === storageFault) return
      // Tried again and again, of which once is enough to hear.
      const isNews = fault?._tag !== storageFault?._tag
      storageFault = fault
      if (fault !== undefined && isNews) onFault(fault)
      onChange()
    },
    renew: Effect.zipRight(storage.reopen, Effect.sync(() => stageAll()))
  })
  const rejected = yield* RejectedWrites.make({
    journal,
    rows: reader.rows,
    onFault,
    onChange,
    onTaken: (id) => {
      for (const each of subscribers) each.onTaken?.(id)
    }
  })

  // --- Being told ---

  const witness = (name: string, changes: ReadonlyArray<RecordChange>): void => {
    for (const { changed } of mapOf(name).witnesses) for (const { key } of changes) changed(key)
  }
  const witnessConfirmed = (name: string, cell: string): void => {
    for (const each of mapOf(name).witnesses) each.confirmed?.(cell)
  }
  const announceTo = Announcements.make(now, onFault)
  const announce = (name: string, changes: ReadonlyArray<RecordChange>, origin: "local" | "remote"): void => {
    const { audience, crdt } = mapOf(name)
    announceTo(audience, crdt, changes, origin)
  }

  /** Another record may have come meanwhile, with its own time or none. */
  const isCurrent = ({ at, cell, map }: Expiring): boolean => cellsOf(map).getRecord(cell)?.expiresAt === at
  const expire = yield* Expiry.make(now, isCurrent, (due) => {
    const changes = new Map<string, Array<RecordChange>>()
    for (const { cell, map } of due) {
      const record = cellsOf(map).getRecord(cell)!
      const ofMap = changes.get(map)
      const change = { key: cell, previous: record, record }
      if (ofMap === undefined) changes.set(map, [change])
      else ofMap.push(change)
    }
    for (const [map, ofMap] of changes) witness(map, ofMap)
    for (const [map, ofMap] of changes) announce(map, ofMap, "local")
  })
  stillToExpire.forEach(expire)

  /** Tells of one step, of however many maps. */
  const emitAll = (
    changes:
      | ReadonlyMap<string, ReadonlyArray<RecordChange>>
      | ReadonlyArray<readonly [map: string, changes: ReadonlyArray<RecordChange>]>,
    origin: "local" | "remote"
  ): void => {
    const seenAt = now()
    for (const [name, ofMap] of changes) {
      for (const { key: cell, record } of ofMap) {
        // What comes too late was never seen, and nobody is told that it goes.
        if (record !== undefined && record.expiresAt > seenAt) expire({ at: record.expiresAt, map: name, cell })
      }
      witness(name, ofMap)
    }
    // Listeners read what they like: by now all that is kept of any map is of this step.
    for (const [name, ofMap] of changes) announce(name, ofMap, origin)
  }
  const emit = (name: string, changes: ReadonlyArray<RecordChange>, origin: "local" | "remote"): void =>
    emitAll([[name, changes]], origin)

  const apply = (
    name: string,
    change: RecordChange | undefined,
    cell: string,
    origin: "local" | "remote"
  ): void => {
    journal.stageCell(name, cell, origin)
    if (change !== undefined) emit(name, [change], origin)
  }

  // --- What the server doesn't have ---

  /**
   * Drops what the server doesn't have of a map, but for what is on its way there: all confirmed records of `before` that
   * are still the same and not among the cells that it `has`.
   */
  const dropLost = (name: string, before: ReadonlyMap<string, LwwRecord.LwwRecord>, has: ReadonlySet<string>): void => {
    const cells = cellsOf(name)
    const changes: Array<RecordChange> = []
    for (const [cell, record] of before) {
      const present = cells.getConfirmed(cell)
      if (has.has(cell) || present === undefined || LwwRecord.compare(present, record) !== 0) continue
      cells.unconfirm(cell)
      const change = cells.revert(cell, outbox.pendingRecord(name, cell))
      journal.stageCell(name, cell, "remote")
      if (change !== undefined) changes.push(change)
    }
    if (changes.length > 0) emit(name, changes, "remote")
  }

  // --- The outbox ---

  const outbox = yield* Outbox.make({
    backpressure,
    nextSequence: Math.max(reserved.sequence, ...stored.slice(-1).map(({ sequence }) => sequence + 1), 1),
    now,
    journal,
    listener: {
      onAccepted: ({ cell, map, record }) => {
        if (mirror.isFollowing()) return
        const change = cellsOf(map).confirm(cell, record)
        if (change !== undefined) apply(map, change, cell, "remote")
        witnessConfirmed(map, cell)
      },
      onEnded: ({ cell, map, offered }) => {
        if (!offered) journal.stageCell(map, cell, "remote")
      },
      onUndone: (operation, remaining, failure) => {
        if (mirror.isFollowing()) return onFault(failure)
        const { cell, map } = operation
        const cells = cellsOf(map)
        if (!operation.offered) apply(map, cells.revert(cell, remaining?.record), cell, "local")
        // It may have been deleted by who isn't known any more.
        else if (failure._tag === "WriteRejected" && failure.cause === "BeyondHorizon") {
          dropLost(map, new Map([[cell, operation.record]]), new Set())
        }
        rejected.add(operation, cells.getRecord(cell), failure)
        onFault(failure)
      },
      onHighWater: (pending) => {
        for (const each of subscribers) each.onHighWater?.(pending)
      },
      onLowWater: (pending) => {
        for (const each of subscribers) each.onLowWater?.(pending)
      },
      onOutcome: (operation) => {
        for (const each of subscribers) each.onOutcome?.(operation)
      },
      onChange
    }
  })
  nextSequence = outbox.nextSequence
  for (const operation of stored) outbox.restore(operation)
  for (const [name, cell] of ahead) {
    const { cells, kind } = mapOf(name).crdt
    const record = cells.getRecord(cell)
    if (record !== undefined && !outbox.isPending(name, cell)) outbox.remake(name, kind, cell, record)
  }

  const openedAt = now()
  const mirror = Mirror.make({
    openedAt,
    storage,
    reader,
    hlc,
    outbox,
    journal,
    maps,
    openMap,
    emit,
    emitAll,
    confirmed: witnessConfirmed,
    hasBase: (name, cell) => {
      const ofMap = withBase.get(name)
      if (ofMap === undefined) withBase.set(name, new Set([cell]))
      else ofMap.add(cell)
    },
    adopt: (next) => {
      for (const [name, { crdt: { kind } }] of maps) {
        if (next.maps.has(name)) continue
        const here = known.maps.get(name) ?? { kind, isFollowed: true }
        next.maps.set(name, here)
        journal.stageRow(Remembered.mapRow(name, here))
      }
      for (const [name, map] of next.maps) known.maps.set(name, map)
      ;({ confirmed, marks, secret, syncedAt, user } = next)
      return rejected.reload
    }
  })
  stageAll = () => {
    const meta = { nodeId: hlc.nodeId(), reserved: journal.reserved(), secret, syncedAt, user, confirmed }
    Remembered.metaRows(meta).forEach(journal.stageRow)
    for (const [name, map] of known.maps) journal.stageRow(Remembered.mapRow(name, map))
    for (const operation of outbox.entries()) journal.stageOperation(operation)
    rejected.stageAgain()
    for (const [name, { crdt: { cells } }] of maps) {
      // What the server hasn't got is whole in the first transaction; of the rest it has the other copy.
      for (const [cell] of cells.records()) {
        const isOwn = cells.getBase(cell) !== undefined || outbox.isPending(name, cell)
        journal.stageCell(name, cell, isOwn ? "local" : "remote")
      }
    }
    for (const name of marks.keys()) journal.stageMark(name)
    guardian.isThere()
  }

  // The last finalizer to be added is the first to run: nobody waits for a client that is gone.
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      closed = true
      outbox.close(new ClientClosed())
    })
  )

  const writing = Writing.make({
    hlc,
    store,
    cellsOf,
    outbox,
    journal,
    now,
    emit,
    emitAll,
    isClosed: () => closed,
    onStamp: (millis) => {
      inUse.millis = millis
    },
    onWrite: guardian.onWrite,
    onFault
  })

  // --- Logging out ---

  const unsent = () => ({
    pending: outbox.size() + outbox.waiting(),
    rejected: rejected.list.current.length
  })
  const deletions = (what?: "flush" | "keep" | "discard") =>
    Remembered.deletions(reader, known.maps.keys(), what === "keep" ? outbox.isPending : undefined, now())

  /** Opens a map and remembers how it was, or leaves it as it is remembered. @throws MapKindMismatch */
  const opened = <Kind extends Cell.MapKind>(name: string, kind: Kind, sync?: "all" | "none"): CrdtOf<Kind> => {
    if (gone) throw new ClientClosed()
    const crdt = openMap(name, kind)
    const before = known.maps.get(name)
    const isFollowed = sync === undefined ? before?.isFollowed ?? true : sync === "all"
    if (before?.isFollowed !== isFollowed) {
      known.maps.set(name, { kind, isFollowed })
      journal.stageRow(Remembered.mapRow(name, { kind, isFollowed }))
      for (const each of subscribers) each.onMapOpened?.(name)
    }
    return crdt
  }

  return {
    nodeId: hlc.nodeId,
    /** Whose data this is, as far as a server has told. */
    user: () => user,
    /** From now on this data is that user's: written down no later than anything that comes from the server. */
    adoptUser: (userId: string): void => {
      if (userId === user) return
      user = userId
      journal.stageRow({ space: Journal.spaces.meta, key: Journal.userKey, value: Value.encode(userId) })
    },
    /** What tells this storage from its copies: the secret that was given last, as far as it is stored; null before the first. */
    secret: () => secret,
    /** Stores another secret, to be shown from then on. */
    keepSecret: (given: string): Effect.Effect<void, StorageFailure> =>
      Effect.suspend(() => {
        journal.stageRow({ space: Journal.spaces.meta, key: Journal.secretKey, value: Value.encode(given) })
        return Effect.map(journal.flush, () => {
          secret = given
        })
      }),
    /** Of which store, and up to which age of it, this device has told that it has everything; null before. */
    confirmed: () => confirmed,
    /** Makes sure that all that came is stored. Answers whether it is: then this device has everything up to that age of the store. */
    confirm: (generation: string, age: number): Effect.Effect<boolean> =>
      Effect.match(journal.flush, {
        onFailure: () => false,
        onSuccess: () => {
          confirmed = [generation, age]
          journal.stageRow({ space: Journal.spaces.meta, key: Journal.confirmedKey, value: Value.encode(confirmed) })
          return true
        }
      }),
    /** When this device was in step with its server last, in ms. */
    syncedAt: () => syncedAt,
    /** It is in step now. */
    isInStep: (): void => {
      syncedAt = now()
      journal.stageRow({ space: Journal.spaces.meta, key: Journal.syncedAtKey, value: Value.encode(syncedAt) })
    },
    /** Up to where a map's changes are here, once it has been in step. */
    mark: (name: string): Journal.Mark | undefined => marks.get(name),
    /** A map's changes are here up to this one. */
    moveMark: (name: string, mark: Journal.Mark): void => {
      const before = marks.get(name)
      if (before?.run === mark.run && before.sequence >= mark.sequence) return
      marks.set(name, mark)
      journal.stageMark(name)
    },
    /** Writes that the server doesn't have. */
    unsent,
    isGone: () => gone,
    /**
     * Deletes all that this device keeps, in one transaction, and takes no more writes; with `keep` but for what unsent writes
     * are made of. Only while nothing is sent. When it fails, nothing has changed.
     */
    wipe: (
      what?: "flush" | "keep" | "discard"
    ): Effect.Effect<void, UnsentWrites | StorageFailure | ClientClosed> =>
      Effect.suspend((): Effect.Effect<void, UnsentWrites | StorageFailure | ClientClosed> => {
        if (closed) return new ClientClosed()
        const left = unsent()
        if (what !== "keep" && what !== "discard" && left.pending + left.rejected > 0) return new UnsentWrites(left)
        closed = true
        // What is kept has to be there first.
        return Effect.zipRight(journal.flush, journal.end(deletions(what))).pipe(
          Effect.onExit((exit) =>
            Effect.sync(() => {
              closed = Exit.isSuccess(exit)
              gone = closed
              if (closed) {
                if (what !== "keep") guardian.isGone()
                outbox.close(new ClientClosed())
                rejected.clear()
              }
              onChange()
            })
          )
        )
      }),
    journal,
    outbox,
    rejected,
    mirror,
    storageKind: () => storage.kind,
    storageDurable: () => storage.durable,
    storageFault: () => storageFault ?? storage.fault,
    room: guardian.room,

    /** Hears of what concerns the device, until the returned function is called. */
    observe: (events: Events): () => void => {
      subscribers.add(events)
      if (events.onFault !== undefined) {
        found.forEach(events.onFault)
        found = []
      }
      return () => {
        subscribers.delete(events)
      }
    },

    openMap: <Kind extends Cell.MapKind>(name: string, kind: Kind): CrdtOf<Kind> => opened(name, kind),
    /** Opens a map, what comes of which is held against its declaration from now on. @throws MapKindMismatch */
    openDeclared: <D extends Declaration>(declaration: D): CrdtOf<KindOf<D>> => {
      const sync = declaration._tag === "Counter" ? undefined : declaration.sync
      const crdt = opened(declaration.name, kindOf(declaration), sync)
      if (declaration._tag !== "Counter") conformance.declare(crdt.kind, declaration)
      if (declaration._tag === "Map" && declaration.indexes.length > 0 && !indexes.has(declaration.name)) {
        indexes.set(declaration.name, declaration.indexes)
      }
      if (declaration._tag === "Map" && declaration.search !== undefined && !searches.has(declaration.name)) {
        searches.set(declaration.name, declaration.search)
      }
      return crdt
    },
    /** The open maps that are to be in step with the server's. */
    followed: (): ReadonlyArray<string> =>
      Array.from(known.maps).filter(([, { isFollowed }]) => isFollowed).map(([name]) => name),
    map: (name: string): Crdt | undefined => maps.get(name)?.crdt,

    ...writing,

    /**
     * Merges records that the server has. Those from beyond the drift bound are left out, and reported; answers whether
     * there were none.
     */
    merge: (name: string, records: ReadonlyArray<KeyedRecord>): boolean => {
      const cells = cellsOf(name)
      const changes: Array<RecordChange> = []
      let isComplete = true
      for (const [cell, record] of records) {
        const received = hlc.unsafeReceive(record)
        if (Either.isLeft(received)) {
          onFault(received.left)
          isComplete = false
          continue
        }
        const before = cells.revision
        const change = cells.merge(cell, record)
        if (change !== undefined) {
          changes.push(change)
          conformance.arrived(name, cell)
        }
        // What was confirmed may have changed behind a write that hides it.
        if (cells.revision !== before) journal.stageCell(name, cell, "remote")
      }
      if (changes.length > 0) emit(name, changes, "remote")
      return isComplete
    },

    /**
     * Takes what the server says of a partial map's cells for what is confirmed of them, whatever that was: a record, or that there
     * is none. Records from beyond the drift bound are left out, and reported; answers whether there were none.
     */
    assume: (
      name: string,
      shown: ReadonlyArray<readonly [cell: string, record: LwwRecord.LwwRecord | undefined]>
    ): boolean => {
      const cells = cellsOf(name)
      const changes: Array<RecordChange> = []
      let isComplete = true
      for (const [cell, record] of shown) {
        const received = record === undefined ? undefined : hlc.unsafeReceive(record)
        if (received !== undefined && Either.isLeft(received)) {
          onFault(received.left)
          isComplete = false
          continue
        }
        const before = cells.revision
        const pending = outbox.pendingRecord(name, cell)
        const change = pending !== undefined && (record === undefined || LwwRecord.compare(pending, record) > 0)
          ? cells.assign(cell, pending, record ?? null)
          : cells.assign(cell, record, undefined)
        if (change !== undefined) {
          changes.push(change)
          if (record !== undefined) conformance.arrived(name, cell)
        }
        if (cells.revision !== before) journal.stageCell(name, cell, "remote")
      }
      if (changes.length > 0) emit(name, changes, "remote")
      return isComplete
    },

    /**
     * Stamps anew, in the order of their writes, those operations that the server hasn't got and wouldn't take: stamps beyond
     * `boundMillis`. With `isWrong`, when the clock was found to be far out, all that it hasn't got. The stamps are another
     * writer's, so that no writer's time ever runs back; it begins where this device's confirmed records end. On storage it
     * is one transaction. Only while nothing is sent. Answers whether this device is another writer now.
     */
    restamp: (boundMillis: number, isWrong: boolean): Effect.Effect<boolean> =>
      Effect.suspend(() => {
        const due = Restamping.dueOf(outbox.entries(), cellsOf, boundMillis, isWrong)
        if (due.length === 0 && hlc.unsafeLatest().millis <= boundMillis) return Effect.succeed(false)
        return Effect.map(Hlc.makeNodeId, (writer) => {
          const changes = Restamping.restamp(due, {
            writer,
            boundMillis,
            hlc,
            outbox,
            journal,
            maps: Array.from(maps.values(), ({ crdt }) => crdt.cells),
            cellsOf
          })
          inUse.millis = hlc.unsafeLatest().millis
          // Listeners may write, so they hear of it when all is done.
          emitAll(changes, "local")
          return true
        })
      }),

    /**
     * Another device writes as this one's node: goes on as another, whose writes are all that the server isn't known to have,
     * with their times. On storage it is one transaction. Only while nothing is sent.
     */
    renounce: Effect.map(Hlc.makeNodeId, (writer): void => {
      Restamping.rename(outbox.entries(), { writer, hlc, outbox, journal, cellsOf })
      inUse.millis = hlc.unsafeLatest().millis
    }),

    dropLost,

    /** Forgets tombstones that the server has forgotten, but for those of cells that are on their way there. */
    prune: (name: string, forgotten: ReadonlyArray<string>): void => {
      const cells = cellsOf(name)
      for (const cell of forgotten) {
        if (!outbox.isPending(name, cell) && cells.collect(cell)) journal.stageCell(name, cell, "remote")
      }
    },

    /** Another tab has opened a map, and wants it in step with the server's or not. */
    openFor: (name: string, kind: Cell.MapKind, isFollowed: boolean): void => {
      try {
        // A tab that only writes to it takes it from no other.
        opened(name, kind, isFollowed || known.maps.get(name)?.isFollowed === true ? "all" : "none")
      } catch (fault) {
        onFault(fault)
      }
    },
    /** The maps that were opened on this device. */
    opened: (): ReadonlyMap<string, Remembered.KnownMap> => known.maps,
    mapNames: (): ReadonlyArray<string> => Array.from(maps.keys()),
    /** The tab that keeps this one's data has deleted it. */
    vanish: (): void => {
      closed = true
      gone = true
      outbox.close(new ClientClosed())
      rejected.clear()
      onChange()
    },

    /** Has something kept beside an open map, until the returned function is called. */
    witness: (name: string, each: Witness): () => void => {
      const { witnesses } = mapOf(name)
      witnesses.add(each)
      return () => void witnesses.delete(each)
    },
    /** The indexes that a map was declared with; of several declarations, the first that has some. */
    indexesOf: (name: string): ReadonlyArray<Index> => indexes.get(name) ?? [],
    /** By which fields a map was declared to be searched; `undefined` for none. */
    searchOf: (name: string): Search | undefined => searches.get(name),
    /**
     * Takes note of the time of a record that is shown, but isn't of this replica: what is written here from now on comes after it.
     * False for one from beyond the drift bound.
     */
    heed: (record: LwwRecord.LwwRecord): boolean => {
      const received = hlc.unsafeReceive(record)
      if (Either.isLeft(received)) onFault(received.left)
      return Either.isRight(received)
    },
    onFault,

    /** What a handle of an open map listens to. */
    audience: (name: string): Announcements.Audience => mapOf(name).audience
  }
})

/** This device's copy of the grid, loaded. */
export class Replica extends Context.Tag("@topgun/client/Replica")<
  Replica,
  Effect.Effect.Success<ReturnType<typeof make>>
>() {}

/** The replica kept in this node's storage, with everything that it remembers loaded. */
export const layer = (options: { readonly backpressure?: Partial<Backpressure.Options> } = {}): Layer.Layer<
  Replica,
  StorageFailure,
  Storage | Hlc.Hlc | CrdtStore
> => Layer.scoped(Replica, make({ ...Backpressure.defaults, ...options.backpressure }))
