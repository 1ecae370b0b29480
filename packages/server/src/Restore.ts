/**
 * Makes a store of a backup (`BackupFile`), while no server runs on it. All of the backup is read, and written beside what there is, before
 * anything takes its place: a backup that isn't whole, or isn't as it was written, changes nothing.
 *
 * The store that comes of it is another one than that of the backup: its generation and its server's node id are new, so clients offer it what
 * it lacks, and no stamp of the old server's comes twice. It goes on with the grid's age, with what is forgotten and confirmed, and with
 * whatever else the server has noted.
 */
import * as BackupFile from "@topgun/core/BackupFile"
import * as Cell from "@topgun/core/Cell"
import { BackupUnusable, RestoreRefused, type StorageUnavailable } from "@topgun/core/GridError"
import { partitionOf } from "@topgun/core/Partition"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import { type Batch, type Note, type Refill, type Row, sealed, type Totals } from "./GroupCommit.ts"
import * as SqliteRefill from "./internal/SqliteRefill.ts"
import * as PostgresStore from "./PostgresStore.ts"
import { ServerConfig } from "./ServerConfig.ts"

/** What was restored. */
export interface Restored {
  readonly header: BackupFile.Header
  readonly maps: number
  readonly records: number
  /** Where what was replaced is kept, if it is. */
  readonly kept: string | undefined
  /** Whether the backup is older than deletions are remembered: those made since may be forgotten by everybody. */
  readonly isOld: boolean
}

/** Records in one transaction, and bytes of their rows, at most. */
const rowsMax = 10_000
const bytesMax = 8 * 1024 * 1024

const newline = 0x0a

/** Reads a backup as its bytes come, and gathers what is to be written. */
class Intake {
  readonly reader = new BackupFile.Reader()
  readonly #hash = createHash("sha256")
  #rest: Buffer = Buffer.alloc(0)
  /** By map, and by the age that they have. */
  #batches = new Map<string, Map<number, { readonly kind: Cell.MapKind; readonly rows: Array<Row> }>>()
  #notes: Array<Note> = []
  #rows = 0
  #bytes = 0

  get isFull(): boolean {
    return this.#rows >= rowsMax || this.#bytes >= bytesMax
  }

  /** @throws BackupUnusable */
  push(bytes: Uint8Array): void {
    if (this.reader.lines === 0 && this.#rest.length === 0 && bytes[0] === 0x1f && bytes[1] === 0x8b) {
      throw new BackupUnusable({ reason: "it is compressed: unpack it with gunzip first" })
    }
    const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const text = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    let begin = 0
    for (let end = text.indexOf(newline, this.#rest.length); end >= 0; end = text.indexOf(newline, begin)) {
      this.#takeLine(text, begin, end)
      begin = end + 1
    }
    this.#rest = Buffer.from(text.subarray(begin))
    if (this.#rest.length <= BackupFile.lineLengthMax) return
    throw new BackupUnusable({ reason: `line ${this.reader.lines + 1} is longer than any of a backup` })
  }

  /** @throws BackupUnusable */
  end(): void {
    if (this.#rest.length > 0) this.#takeLine(this.#rest, 0, this.#rest.length)
    this.reader.end()
  }

  #takeLine(text: Buffer, begin: number, end: number): void {
    const line = this.reader.take(text.toString("utf8", begin, end))
    switch (line._tag) {
      case "End":
        if (line.sha256 === this.#hash.digest("hex")) return
        throw new BackupUnusable({ reason: "it isn't as it was written: its SHA-256 is another than its end says" })
      case "Record":
        this.#add(line)
        break
      case "Note":
        this.#notes.push(sealed(line))
        this.#bytes += line.value.length
        break
    }
    this.#hash.update(text.subarray(begin, end + 1))
  }

  #add({ age, cell, kind, map, record }: Extract<BackupFile.Line, { readonly _tag: "Record" }>): void {
    // A tombstone whose age isn't known is as young as the backup, as it would be to a server that starts.
    const batchAge = record.isTombstone ? age ?? this.reader.header!.age : 0
    let ofMap = this.#batches.get(map)
    if (ofMap === undefined) this.#batches.set(map, ofMap = new Map())
    let batch = ofMap.get(batchAge)
    if (batch === undefined) ofMap.set(batchAge, batch = { kind, rows: [] })
    batch.rows.push({ cell, partition: partitionOf(Cell.keyOf(kind, cell)), record })
    this.#rows++
    this.#bytes += record.row.length
  }

  /** What was gathered since. */
  take(): { readonly batches: ReadonlyArray<Batch>; readonly notes: ReadonlyArray<Note> } {
    const batches = Array.from(
      this.#batches,
      ([map, byAge]) =>
        Array.from(byAge, ([age, { kind, rows }]) => ({ map, kind, rows, age, totals: this.reader.tally.of(map) }))
    ).flat()
    const notes = this.#notes
    this.#batches = new Map()
    this.#notes = []
    this.#rows = 0
    this.#bytes = 0
    return { batches, notes }
  }

  /** What each map comes to, those without a record included. */
  totals(): ReadonlyMap<string, Totals> {
    return new Map(Array.from(this.reader.maps.keys(), (map) => [map, this.reader.tally.of(map)]))
  }
}

const refillOf: Effect.Effect<Refill, StorageUnavailable | RestoreRefused, ServerConfig | Scope.Scope> = Effect.gen(
  function*() {
    const { storage } = yield* ServerConfig
    if (storage === "sqlite") return yield* SqliteRefill.make
    if (storage === "postgres") return yield* Effect.flatMap(PostgresStore.make, ({ refill }) => refill)
    return yield* new RestoreRefused({
      reason: "storage memory keeps nothing: name another (TOPGUN_STORAGE), and with it where the data is to be"
    })
  }
)

const unusable = <A>(take: () => A): Effect.Effect<A, BackupUnusable> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(take())
    } catch (fault) {
      if (fault instanceof BackupUnusable) return Effect.fail(fault)
      throw fault
    }
  })

/**
 * Restores a backup, given as its bytes, into the store that the configuration names. A store that has data is refused, unless it is to be
 * replaced; so is one that a server runs on. Killed at any moment, the store is as it was before or restored as a whole.
 */
export const restore = <E>(
  source: Stream.Stream<Uint8Array, E>,
  options: { readonly replace: boolean }
): Effect.Effect<Restored, E | BackupUnusable | RestoreRefused | StorageUnavailable, ServerConfig> =>
  Effect.gen(function*() {
    const { dataDir, storage, tombstoneAge } = yield* ServerConfig
    const { commit, finish, hasData } = yield* refillOf
    if (hasData && !options.replace) {
      const where = storage === "sqlite" ? `the data directory "${dataDir}"` : "the database"
      return yield* new RestoreRefused({
        reason: `${where} has data. Restore into another, or replace what is there (--replace)`
      })
    }
    const intake = new Intake()
    const flush = Effect.suspend(() => {
      const { batches, notes } = intake.take()
      return commit(batches, notes)
    })
    yield* Stream.runForEach(
      source,
      (bytes) => Effect.flatMap(unusable(() => intake.push(bytes)), () => intake.isFull ? flush : Effect.void)
    )
    yield* unusable(() => intake.end())
    yield* flush
    const totals = intake.totals()
    const final = Array.from(totals, ([map, ofMap]): Batch => ({
      map,
      kind: intake.reader.maps.get(map)!,
      rows: [],
      age: 0,
      totals: ofMap
    }))
    yield* commit(final, [])
    const { kept } = yield* finish(totals)
    const header = intake.reader.header!
    const now = yield* Clock.currentTimeMillis
    return {
      header,
      maps: totals.size,
      records: Array.from(totals.values()).reduce((sum, { records }) => sum + records, 0),
      kept,
      isOld: now - header.at > Duration.toMillis(Duration.decode(tombstoneAge))
    }
  }).pipe(Effect.scoped)
