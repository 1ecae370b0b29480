/**
 * What this device keeps: everything staged during one tick goes to storage in one transaction, so that a record and its
 * operation are durable together or not at all.
 *
 * Cells and operations are staged by name; what is written is their state at the time of the transaction. A transaction that fails keeps
 * what was staged, tells those who wait, and is tried again.
 */
import type { StorageFailure } from "@topgun/core/GridError"
import type { OpenStorage, StorageWrite } from "@topgun/core/Storage"
import type { Packing } from "./Packs.ts"
import * as Value from "@topgun/core/Value"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"

/** Spaces of a client's storage. */
export const spaces = {
  meta: "meta",
  maps: "maps",
  outbox: "outbox",
  rejected: "rejected",
  /** When a user was logged out here last: for those who have slept through it. */
  wiped: "wiped",
  /** Up to where this device has a map's changes: see {@link Mark}. */
  marks: "marks",
  /** A map's live records: rows by cell, of those that aren't in a pack, or are others than there. */
  records: (map: string) => `records/${map}`,
  /** A map's confirmed records, many to a row: see `Packs`. */
  packs: (map: string) => `packs/${map}`,
  /** The confirmed bases of cells that are ahead of the server: a row, or no bytes where the server has nothing. */
  bases: (map: string) => `bases/${map}`
} as const

/** How far stamps and sequence numbers may go without another durable note of it. */
export interface Reservation {
  readonly millis: number
  readonly sequence: number
}

/** Up to where this device has a map's changes: the run of the server, and the number of the last that it counted then. */
export interface Mark {
  readonly run: string
  readonly sequence: number
}

/** Stamps are reserved this many ms ahead, sequence numbers this many. */
const reserveMillis = 5_000
const reserveSequences = 1_000

/** Rows of what was merged from the server, in one transaction at most. Local writes are never parted. */
const mergedRowsMax = 1_000
/** A pack counts as so many rows: it's written at once, but has to be made. */
const packRows = 50

const retryMillis = 1_000

/** The name of the row in `meta` that says whose stamps this device issues. */
export const nodeIdKey = "nodeId"

/** The name of the row in `meta` that tells this storage from its copies. */
export const secretKey = "secret"

/** The name of the row in `meta` that says of which store, and up to which age of it, this device has everything. */
export const confirmedKey = "confirmed"
/** The name of the row in `meta` that says when this device was in step with its server last. */
export const syncedAtKey = "syncedAt"

/** The name of the row in `meta` that says whose data this is. */
export const userKey = "user"

/** The name of the row in `meta` that holds the {@link Reservation}. */
export const reservationKey = "reservation"

export interface Options<Operation> {
  /** The rows that a cell's present state asks for, by itself. */
  readonly cellWrites: (map: string, cell: string) => ReadonlyArray<StorageWrite>
  readonly partitionOf: (map: string, cell: string) => number
  /** The rows that the present state of a partition asks for, of which these cells have changed, where that is less. */
  readonly pack: (map: string, partition: number, cells: ReadonlySet<string>) => Packing | undefined
  /** The row that an operation's present state asks for. */
  readonly operationWrite: (operation: Operation) => StorageWrite
  /** The row that says up to where a map's changes are here. */
  readonly markWrite: (map: string) => StorageWrite
  /** The greatest stamp and sequence number in use now. */
  readonly inUse: () => Reservation
  /** A cell has changed, and will be written. */
  readonly onCell: (map: string, cell: string) => void
  /** Called after each transaction with its fault, if it had one. */
  readonly onCommit: (fault: StorageFailure | undefined) => void
  /** Opens storage anew after its rows were deleted under it, and stages all that it is to hold. */
  readonly renew: Effect.Effect<void, StorageFailure>
}

/** The journal of a device, whose operations are `Operation`. */
export interface Journal<Operation> {
  /** This cell changed. Rows that belong to one local write are staged in one tick. */
  readonly stageCell: (map: string, cell: string, origin: "local" | "remote") => void
  readonly stageRow: (write: StorageWrite) => void
  /** Up to where a map's changes are here has moved. It is written when all that is staged so far is, and no sooner. */
  readonly stageMark: (map: string) => void
  /** This operation was made, changed or ended. */
  readonly stageOperation: (operation: Operation) => void
  /** The next transaction: it will hold every row and every local cell that has been staged so far. */
  readonly flushed: () => Deferred.Deferred<void, StorageFailure>
  /** What is durably reserved; nothing beyond may leave this device. */
  readonly reserved: () => Reservation
  /** Waits for the next transaction, of nothing but a reservation if need be. */
  readonly flush: Effect.Effect<void, StorageFailure>
  /**
   * The stamps from now on are another writer's, `nodeId`: none is reserved for it before the transaction that says so,
   * which holds all that is staged in this tick too.
   */
  readonly adopt: (nodeId: string) => void
  /** Whether what has become of this operation is still to be written. */
  readonly isStaged: (operation: Operation) => boolean
  /** Whether there is nothing to be written. */
  readonly isIdle: () => boolean
  /**
   * Storage is another tab's no more: forgets what is staged but for cells, and goes on from what it holds, which `read` finds
   * out while nothing is written.
   */
  readonly takeOver: <A, E>(
    read: (begin: (reserved: Reservation) => void) => Effect.Effect<A, E>
  ) => Effect.Effect<A, E>
  /** Makes the last transaction, with `writes` and nothing that is staged. When it fails, all goes on. */
  readonly end: (
    writes: Effect.Effect<ReadonlyArray<StorageWrite>, StorageFailure>
  ) => Effect.Effect<void, StorageFailure>
}

class Staged<Operation> {
  readonly rows = new Map<string, StorageWrite>()
  /** By their sequence numbers: an object as a key costs several times as much. */
  readonly operations = new Map<number, Operation>()
  readonly marks = new Set<string>()
  readonly local = new Map<string, Set<string>>()
  /** By map and partition, as those of a partition may go together. */
  remote = new Map<string, Map<number, Set<string>>>()
  /** What is to be noted when it is written. */
  readonly done: Array<() => void> = []
}

const addCell = <Key>(to: Map<Key, Set<string>>, key: Key, cell: string): void => {
  const cells = to.get(key)
  if (cells === undefined) to.set(key, new Set([cell]))
  else cells.add(cell)
}

const partitionsOf = <Operation>({ remote }: Staged<Operation>, map: string): Map<number, Set<string>> => {
  let partitions = remote.get(map)
  if (partitions === undefined) {
    partitions = new Map()
    remote.set(map, partitions)
  }
  return partitions
}

/** A journal over this node's storage, going on from what is reserved already. Flushes once more when the scope closes. */
export const make = Effect.fnUntraced(function*<Operation extends { readonly sequence: number }>(
  storage: OpenStorage,
  initial: Reservation,
  options: Options<Operation>
) {
  let staged = new Staged<Operation>()
  let flushed = Deferred.unsafeMake<void, StorageFailure>(FiberId.none)
  let reserved = initial
  let writers = 0
  let ended = false
  /** Whether storage has none of what was written before. */
  let evicted = false
  /** Those who wait for a transaction that has to be made again. */
  let postponed: Array<Deferred.Deferred<void, StorageFailure>> = []
  const work = Effect.unsafeMakeLatch(false)
  /** Closed while storage is taken over: who waits for it goes before the next transaction. */
  const between = Effect.unsafeMakeLatch(true)
  const oneAtATime = Effect.unsafeMakeSemaphore(1).withPermits(1)

  const reserve = (): Reservation | undefined => {
    const used = options.inUse()
    return used.millis + reserveMillis / 2 > reserved.millis || used.sequence + reserveSequences / 2 > reserved.sequence
      ? {
        millis: Math.max(reserved.millis, used.millis + reserveMillis),
        sequence: Math.max(reserved.sequence, used.sequence + reserveSequences)
      }
      : undefined
  }

  /** Takes one transaction's worth out of `staged`. */
  const takeBatch = (): { readonly batch: Staged<Operation>; readonly writes: Array<StorageWrite> } => {
    const batch = staged
    staged = new Staged()
    const writes: Array<StorageWrite> = []
    for (const row of batch.rows.values()) writes.push(row)
    for (const operation of batch.operations.values()) writes.push(options.operationWrite(operation))
    const addWrites = (map: string, cell: string): void => {
      for (const write of options.cellWrites(map, cell)) writes.push(write)
    }
    for (const [map, cells] of batch.local) for (const cell of cells) addWrites(map, cell)
    // What is over stays where it is: it may be a hundred times as much.
    const rest = batch.remote
    batch.remote = new Map()
    let room = mergedRowsMax
    for (const [map, partitions] of rest) {
      for (const [partition, cells] of partitions) {
        if (room <= 0) break
        const taken = partitionsOf(batch, map)
        const packing = options.pack(map, partition, cells)
        if (packing !== undefined) {
          for (const write of packing.writes) writes.push(write)
          batch.done.push(packing.done)
          room -= packRows + packing.writes.length
          taken.set(partition, cells)
          partitions.delete(partition)
          continue
        }
        for (const cell of cells) {
          if (room-- <= 0) break
          cells.delete(cell)
          addCell(taken, partition, cell)
          addWrites(map, cell)
        }
        if (cells.size === 0) partitions.delete(partition)
      }
      if (partitions.size === 0) rest.delete(map)
    }
    staged.remote = rest
    for (const map of batch.marks) {
      // What it covers is parted: the mark goes with the last part.
      if (staged.remote.size > 0) staged.marks.add(map)
      else writes.push(options.markWrite(map))
    }
    return { batch, writes }
  }

  const isStaged = (): boolean =>
    staged.rows.size + staged.operations.size + staged.marks.size + staged.local.size + staged.remote.size > 0

  const restore = (batch: Staged<Operation>): void => {
    const later = staged
    staged = batch
    for (const [id, row] of later.rows) staged.rows.set(id, row)
    for (const [sequence, operation] of later.operations) staged.operations.set(sequence, operation)
    for (const map of later.marks) staged.marks.add(map)
    for (const [map, cells] of later.local) for (const cell of cells) addCell(staged.local, map, cell)
    for (const [map, partitions] of later.remote) {
      const all = partitionsOf(staged, map)
      for (const [partition, cells] of partitions) for (const cell of cells) addCell(all, partition, cell)
    }
    staged.done.length = 0
    work.unsafeOpen()
  }

  const isEviction = (outcome: Exit.Exit<unknown, StorageFailure>): boolean =>
    Exit.isFailure(outcome) && outcome.cause._tag === "Fail" && outcome.cause.error._tag === "StorageEvicted"

  const commit = Effect.gen(function*() {
    work.unsafeClose()
    if (ended) staged = new Staged()
    const isRenewal = evicted && !ended
    const renewed = isRenewal ? yield* Effect.exit(options.renew) : Exit.void
    const { batch, writes } = takeBatch()
    const waiters = [...postponed, flushed]
    postponed = []
    flushed = Deferred.unsafeMake(FiberId.none)
    if (staged.remote.size > 0) work.unsafeOpen()
    const reservation = ended ? undefined : reserve()
    const writer = writers
    if (reservation !== undefined) {
      writes.push({
        space: spaces.meta,
        key: reservationKey,
        value: Value.encode([reservation.millis, reservation.sequence])
      })
    }
    const outcome = Exit.isFailure(renewed)
      ? renewed
      : yield* Effect.exit(writes.length === 0 && storage.isOwned === undefined ? Effect.void : storage.commit(writes))
    if (Exit.isSuccess(outcome)) {
      evicted = false
      for (const each of batch.done) each()
      // What was reserved for the writer before says nothing of the present one's stamps.
      if (reservation !== undefined && writer === writers) reserved = reservation
      for (const each of waiters) Deferred.unsafeDone(each, Exit.void)
      options.onCommit(undefined)
      return true
    }
    restore(batch)
    const fault = outcome.cause._tag === "Fail" ? outcome.cause.error : undefined
    if (isEviction(outcome)) evicted = true
    const isElsewhere = storage.isOwned !== undefined && fault?._tag === "StorageSuperseded"
    // At once, but not over and over: those who wait needn't know.
    const isAgain = isElsewhere || (evicted && !isRenewal)
    if (isAgain) postponed = waiters
    else for (const each of waiters) Deferred.unsafeDone(each, outcome)
    if (fault !== undefined && !isElsewhere) options.onCommit(fault)
    return isAgain
  }).pipe(oneAtATime, Effect.uninterruptible)

  const loop = Effect.gen(function*() {
    yield* work.await
    yield* between.await
    if (!(yield* commit)) yield* Effect.sleep(retryMillis)
  }).pipe(Effect.forever)

  // Registered before the worker starts, so that it runs after the worker has stopped.
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      return Effect.iterate(true, {
        while: (went) => went && isStaged(),
        body: () => commit
      })
    }).pipe(Effect.zipRight(Effect.sync(() => Deferred.unsafeDone(flushed, Exit.void))))
  )
  yield* Effect.forkScoped(loop)

  const stageRow = (write: StorageWrite): void => {
    staged.rows.set(`${write.space}\0${write.key}`, write)
    work.unsafeOpen()
  }

  const journal: Journal<Operation> = {
    stageCell: (map, cell, origin) => {
      options.onCell(map, cell)
      if (origin === "local") addCell(staged.local, map, cell)
      else addCell(partitionsOf(staged, map), options.partitionOf(map, cell), cell)
      work.unsafeOpen()
    },
    stageRow,
    stageMark: (map) => {
      staged.marks.add(map)
      work.unsafeOpen()
    },
    stageOperation: (operation) => {
      staged.operations.set(operation.sequence, operation)
      work.unsafeOpen()
    },
    adopt: (nodeId) => {
      writers++
      reserved = { millis: 0, sequence: reserved.sequence }
      stageRow({ space: spaces.meta, key: nodeIdKey, value: Value.encode(nodeId) })
    },
    flushed: () => flushed,
    reserved: () => reserved,
    isStaged: ({ sequence }) => staged.operations.has(sequence),
    isIdle: () => !isStaged() && postponed.length === 0,
    takeOver: (read) =>
      Effect.acquireUseRelease(
        between.close,
        () =>
          oneAtATime(read((reservation) => {
            staged.rows.clear()
            staged.operations.clear()
            staged.marks.clear()
            reserved = reservation
          })),
        () => between.open
      ),
    end: (writes) =>
      Effect.gen(function*() {
        yield* storage.commit(yield* writes)
        ended = true
      }).pipe(
        Effect.onExit((exit) =>
          Effect.sync(() => {
            if (isEviction(exit)) evicted = true
          })
        ),
        oneAtATime,
        Effect.uninterruptible
      ),
    flush: Effect.suspend(() => {
      work.unsafeOpen()
      return Deferred.await(flushed)
    })
  }
  return journal
})
