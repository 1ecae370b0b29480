/**
 * Group commit: what the partitions have merged goes to a database in the order of merging, many batches in one transaction.
 *
 * Batches stand in one line. One fiber takes what waits, up to {@link groupRowsMax} records, commits it in one transaction and
 * settles the batches in order. So whoever is settled knows that everything merged before is safe too, and an empty batch is a
 * barrier.
 *
 * When a commit fails, everyone in line is told so who waits for it. The records keep their place in line and the commit is tried again:
 * the partitions have merged them already, so they must come before anything that is settled later. A commit whose outcome
 * nobody knows, as the database went away in the middle, is tried again like one that failed: it says what is to be, not what to
 * add.
 *
 * Databases compare rows as bytes, exactly as memory does (`LwwRecord`): `where excluded.row > records.row` keeps an older
 * record from replacing a newer one, whatever the order of commits.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { MapKind } from "@topgun/core/Cell"
import { ShuttingDown, StorageUnavailable } from "@topgun/core/GridError"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import { digestRow } from "@topgun/core/MerkleTree"
import { compareBytes } from "@topgun/core/Value"
import { ServerConfig } from "./ServerConfig.ts"

/** A record to be kept. */
export interface Row {
  /** Which of the map's records it is: see `Cell`. */
  readonly cell: string
  readonly partition: number
  readonly record: LwwRecord
}

/**
 * What a map comes to: how many records it has, and the lane-wise sum of their digests. They are stored with what they are the
 * totals of, so that a store which has lost or changed a record shows it when it's loaded.
 */
export interface Totals {
  readonly records: number
  readonly hi: number
  readonly lo: number
}

/** What changed in one map at a time. */
export interface Batch {
  readonly map: string
  readonly kind: MapKind
  /** Records to keep. */
  readonly rows: ReadonlyArray<Row>
  /** The age of the grid, in ms: kept with the tombstones among the records, whose age counts from here. */
  readonly age: number
  /** Tombstones to keep no longer, as they are. */
  readonly forgotten?: ReadonlyArray<Row>
  /** Of the whole map, with this batch. */
  readonly totals: Totals
}

/** A fact of the server's own that is kept beside the records. Its space's owner knows its form. */
export interface Note {
  readonly space: string
  readonly key: string
  /** `undefined` to keep none. */
  readonly value: Uint8Array | undefined
}

/** The notes of a store, by space and key. */
export type Notes = ReadonlyMap<string, ReadonlyMap<string, Uint8Array>>

/** Told once what became of a batch; `undefined` when it survives a crash of the machine. */
export type Settle = (failure: StorageUnavailable | ShuttingDown | undefined) => void

/** Told of each transaction: its records, how long it took, and whether it is committed. Plain, and never throws. */
export type OnCommit = (rows: number, seconds: number, isCommitted: boolean) => void

/**
 * Takes what is stored. Plain, as it's called once a record. What it throws says that the store isn't what was stored, and becomes
 * the store's fault.
 */
export interface Loader {
  /** One stored record; `row` belongs to the taker. `age` is that of the grid when a tombstone came. */
  readonly record: (
    map: string,
    kind: MapKind,
    cell: string,
    partition: number,
    row: Uint8Array,
    age: number | undefined
  ) => void
  /** All records of a map were handed over; `totals` is what they should come to, where that is known. */
  readonly complete: (map: string, kind: MapKind, totals: Totals | undefined) => void
}

/** A record as it is stored. */
export interface StoredRecord {
  readonly map: string
  readonly kind: MapKind
  readonly cell: string
  readonly row: Uint8Array
  /** That of the grid when a tombstone came. */
  readonly age: number | undefined
}

/** What was stored at one instant: whatever is committed later isn't in it. */
export interface Snapshot {
  /** All maps; `totals` is what they should come to, where that is known. */
  readonly maps: ReadonlyArray<{ readonly map: string; readonly kind: MapKind; readonly totals: Totals | undefined }>
  readonly notes: Notes
  /** Records that weren't handed over yet, some milliseconds of work's worth; none when all were. */
  readonly next: Effect.Effect<ReadonlyArray<StoredRecord>, StorageUnavailable>
}

/** A store that is being filled anew, all at once: what there was is there until `finish`, and then all that was committed here. */
export interface Refill {
  /** Whether there is anything that would be replaced. */
  readonly hasData: boolean
  /** As a driver's; what it has isn't to be seen before `finish`. */
  readonly commit: Driver["commit"]
  /**
   * Puts what was committed in the place of what there was, as another store, with a generation and a node id of its own, once it has been
   * read again and come to `totals`. Answers where what there was is kept, if it is.
   */
  readonly finish: (
    totals: ReadonlyMap<string, Totals>
  ) => Effect.Effect<{ readonly kept: string | undefined }, StorageUnavailable>
}

/** What a database does for the log. */
export interface Driver {
  readonly kind: string
  /** Which store this is: a new one for each new database. */
  readonly generation: string
  /** Who the server writes as. Kept with its data. */
  readonly nodeId: string
  /** The notes as they were when it was opened. */
  readonly notes: Notes
  /** Hands over every stored record, and each map once. */
  readonly load: (loader: Loader) => Effect.Effect<void, StorageUnavailable>
  /** What is stored now, to be read while commits go on. It costs nothing when its scope is closed. */
  readonly snapshot: Effect.Effect<Snapshot, StorageUnavailable, Scope.Scope>
  /**
   * All of it or nothing, in one transaction; the same again where it isn't known what became of it. Completes when it survives
   * a crash of the machine. Interrupted, it's nothing.
   */
  readonly commit: (
    batches: ReadonlyArray<Batch>,
    notes: ReadonlyArray<Note>
  ) => Effect.Effect<void, StorageUnavailable>
}

/** The log of the partitions. */
export interface Log {
  readonly kind: string
  /** Whether anything outlives the process. */
  readonly durable: boolean
  readonly generation: string
  readonly nodeId: string
  readonly notes: Notes
  readonly load: Driver["load"]
  /** What is committed now. `undefined` where nothing is kept. */
  readonly snapshot: Driver["snapshot"] | undefined
  /**
   * Puts batches, for one transaction, or a barrier, in line. Called in the order of merging; settled in that order, or, when a
   * transaction fails, at once: but for who `isPatient`, as he was promised nothing, and is settled when it is made at last.
   */
  readonly append: (
    batches: ReadonlyArray<Batch>,
    settle: Settle,
    more?: { readonly notes?: ReadonlyArray<Note>; readonly isPatient?: boolean }
  ) => void
  /** Whether so much waits that nothing more should be merged. */
  readonly isFull: () => boolean
  /** Records that wait to be committed. */
  readonly waiting: () => number
  /** Has `onCommit` told of each transaction from now on. */
  readonly observe: (onCommit: OnCommit) => void
  /** Calls back, once, when the line is half empty again. */
  readonly onRoom: (resume: () => void) => void
  /** Waits until what is in line now is settled, well or not; has a failed commit tried again at once. */
  readonly flush: Effect.Effect<void>
}

/**
 * Records in one transaction: some 3 ms of SQLite's time, during which the process does nothing else. A thousand cost each a tenth
 * less, and kept the event loop up for half as long again.
 */
export const groupRowsMax = 250
/** A failed commit is tried again after this long at first, and twice as long each time up to the last. */
export const retryMillis = { first: 100, last: 5_000 } as const

interface Waiting {
  readonly batches: ReadonlyArray<Batch>
  readonly notes: ReadonlyArray<Note>
  /** What it counts for in a transaction. */
  readonly size: number
  readonly isPatient: boolean
  settle: Settle | undefined
}

const rowsOf = (batches: ReadonlyArray<Batch>): number =>
  batches.reduce((sum, { forgotten, rows }) => sum + rows.length + (forgotten?.length ?? 0), 0)

/** Everything that the event loop has ready comes first, so that writes that arrive together are committed together. */
export const endOfTurn = Effect.async<void>((resume) => {
  // tidy-allow timer: no time passes; this is the event loop's own "after what is ready".
  const handle = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(handle))
})

// --- Notes ---

/** Bytes of a note's digest, before what it says: records have their map's totals to show that they are as stored, notes only this. */
const sealBytes = 8

const sealOf = (space: string, key: string, value: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(Buffer.concat([Buffer.from(JSON.stringify([space, key]), "utf8"), value]))
  const digest = { hi: 0, lo: 0 }
  digestRow(0, 0, new DataView(bytes.buffer), 0, bytes.length, digest)
  const seal = new DataView(new ArrayBuffer(sealBytes))
  seal.setInt32(0, digest.hi)
  seal.setInt32(4, digest.lo)
  return new Uint8Array(seal.buffer)
}

/** A note as drivers keep it. */
export const sealed = ({ key, space, value }: Note): Note => ({
  space,
  key,
  value: value === undefined ? undefined : new Uint8Array(Buffer.concat([sealOf(space, key, value), value]))
})

/** What stored notes say. */
const unsealed = (kind: string, stored: Notes): Effect.Effect<Notes, StorageUnavailable> =>
  Effect.suspend(() => {
    const notes = new Map<string, Map<string, Uint8Array>>()
    for (const [space, ofSpace] of stored) {
      const read = new Map<string, Uint8Array>()
      notes.set(space, read)
      for (const [key, bytes] of ofSpace) {
        const value = bytes.slice(sealBytes)
        if (compareBytes(sealOf(space, key, value), bytes.subarray(0, sealBytes)) !== 0) {
          return new StorageUnavailable({
            reason:
              `the ${kind} database is damaged (the note "${key}" of "${space}" isn't what was stored): restore it from a backup`
          })
        }
        read.set(key, value)
      }
    }
    return Effect.succeed(notes)
  })

// --- The line ---

/** The log over a driver. When its scope closes, what waits is committed within the time for shutting down. */
export const make: (driver: Driver) => Effect.Effect<Log, StorageUnavailable, ServerConfig | Scope.Scope> = Effect
  .fnUntraced(
    function*(driver) {
      const { pendingCommitsMax, shutdownTimeout } = yield* ServerConfig
      const clock = yield* Effect.clock
      const stored = yield* unsealed(driver.kind, driver.notes)
      const observers: Array<OnCommit> = []
      let line: Array<Waiting> = []
      let rows = 0
      let committing = false
      let closed = false
      const roomWanted: Array<() => void> = []
      const wake = Effect.unsafeMakeLatch(false)
      /** Opened by those who won't wait until a failed commit's next try is due. */
      const hurry = Effect.unsafeMakeLatch(false)

      const takeGroup = (): ReadonlyArray<Waiting> => {
        let taken = 0
        let groupRows = 0
        while (taken < line.length) {
          const { size } = line[taken]!
          if (taken > 0 && groupRows + size > groupRowsMax) break
          groupRows += size
          taken++
        }
        const group = line.slice(0, taken)
        line = line.slice(taken)
        return group
      }

      const settleAll = (waiting: ReadonlyArray<Waiting>, failure: Parameters<Settle>[0]) => {
        for (const each of waiting) {
          const settle = each.settle
          each.settle = undefined
          settle?.(failure)
        }
      }

      const commitGroup: Effect.Effect<void, StorageUnavailable> = Effect.uninterruptibleMask((restore) =>
        Effect.suspend(() => {
          const group = takeGroup()
          const batches = group.flatMap((waiting) => waiting.batches)
          const notes = group.flatMap((waiting) => waiting.notes)
          const size = group.reduce((sum, waiting) => sum + waiting.size, 0)
          committing = true
          const begunAt = clock.unsafeCurrentTimeNanos()
          const tell = (isCommitted: boolean) => {
            if (size === 0) return
            const seconds = Number(clock.unsafeCurrentTimeNanos() - begunAt) / 1e9
            for (const observer of observers) observer(size, seconds, isCommitted)
          }
          return Effect.matchCauseEffect(size === 0 ? Effect.void : restore(driver.commit(batches, notes)), {
            onFailure: (cause) => {
              committing = false
              line = [...group, ...line]
              // Shutting down: those in line wait for the last attempt.
              if (Cause.isInterruptedOnly(cause)) return Effect.failCause(cause)
              tell(false)
              const fault = Cause.squash(cause)
              const failure = fault instanceof StorageUnavailable
                ? fault
                : new StorageUnavailable({ reason: `the ${driver.kind} database`, cause: fault })
              settleAll(line.filter(({ isPatient }) => !isPatient), failure)
              return Effect.fail(failure)
            },
            onSuccess: () => {
              committing = false
              tell(true)
              rows -= size
              settleAll(group, undefined)
              if (rows <= pendingCommitsMax / 2) { for (const resume of roomWanted.splice(0)) resume() }
              return Effect.void
            }
          })
        })
      )

      const commitAll = Effect.whileLoop({ while: () => line.length > 0, body: () => commitGroup, step: () => {} })

      // Runs after the worker below was interrupted: finalizers run in reverse order.
      yield* Effect.addFinalizer(() =>
        commitAll.pipe(
          Effect.interruptible,
          Effect.timeout(shutdownTimeout),
          Effect.catchAll((failure) => Effect.logError("Writes that clients will send again were not saved", failure)),
          Effect.ensuring(Effect.sync(() => {
            closed = true
            settleAll(line.splice(0), new ShuttingDown())
          }))
        )
      )
      let delay: number = retryMillis.first
      yield* Effect.forever(
        wake.await.pipe(
          Effect.zipRight(endOfTurn),
          Effect.zipRight(Effect.suspend(() => {
            if (line.length === 0) {
              wake.unsafeClose()
              return Effect.void
            }
            hurry.unsafeClose()
            return Effect.matchEffect(commitGroup, {
              onSuccess: () => {
                delay = retryMillis.first
                return Effect.void
              },
              onFailure: (failure) => {
                const pause = delay
                delay = Math.min(delay * 2, retryMillis.last)
                return Effect.zipRight(
                  Effect.logError(`${failure.message}. ${rows} records wait; next try in ${pause} ms`),
                  Effect.raceFirst(Effect.sleep(pause), hurry.await)
                )
              }
            })
          }))
        )
      ).pipe(Effect.forkScoped)

      const append = (
        batches: ReadonlyArray<Batch>,
        settle: Settle,
        { isPatient = false, notes = [] }: NonNullable<Parameters<Log["append"]>[2]> = {}
      ): void => {
        if (closed) return settle(new ShuttingDown())
        const size = rowsOf(batches) + notes.length
        if (size === 0 && line.length === 0 && !committing) return settle(undefined)
        rows += size
        line.push({ batches: size === 0 ? [] : batches, notes: notes.map(sealed), size, isPatient, settle })
        wake.unsafeOpen()
      }

      return {
        kind: driver.kind,
        durable: true,
        generation: driver.generation,
        nodeId: driver.nodeId,
        notes: stored,
        load: driver.load,
        snapshot: Effect.flatMap(
          driver.snapshot,
          (snapshot) => Effect.map(unsealed(driver.kind, snapshot.notes), (notes) => ({ ...snapshot, notes }))
        ),
        append,
        isFull: () => rows >= pendingCommitsMax,
        waiting: () => rows,
        observe: (onCommit) => void observers.push(onCommit),
        onRoom: (resume) => {
          roomWanted.push(resume)
        },
        flush: Effect.async<void>((resume) => {
          append([], () => resume(Effect.void))
          hurry.unsafeOpen()
        })
      } satisfies Log
    }
  )
