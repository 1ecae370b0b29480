/** The partitions that this node owns: one `CrdtStore` each, and the one place where foreign records are merged. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Cell from "@topgun/core/Cell"
import type { Store } from "@topgun/core/CrdtStore"
import { CrdtStore, sizeOf } from "@topgun/core/CrdtStore"
import {
  type ClockSkewTooLarge,
  MalformedMessage,
  MapKindMismatch,
  NotOwner,
  Overloaded,
  RecordTooLarge,
  type StorageUnavailable,
  ValueNotSupported
} from "@topgun/core/GridError"
import { Hlc } from "@topgun/core/Hlc"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import { makeNodeId } from "@topgun/core/Hlc"
import type { KeyedRecord, Source } from "@topgun/core/MerkleSync"
import { MerkleForest } from "@topgun/core/MerkleTree"
import { partitionCount } from "@topgun/core/Partition"
import { PartitionRouter } from "@topgun/core/PartitionRouter"
import type { OpTuple } from "@topgun/core/Protocol"
import * as Value from "@topgun/core/Value"
import { Capacity } from "./Capacity.ts"
import { Changes } from "./Changes.ts"
import type { Batch, Row } from "./Persistence.ts"
import { Persistence } from "./Persistence.ts"
import { ServerConfig } from "./ServerConfig.ts"

/** An operation that was refused: nothing of it was merged. */
export interface Rejection {
  readonly sequence: number
  /** The error's `_tag`. */
  readonly cause: string
  readonly reason: string
}

/** Operations on one map. */
export interface Part {
  readonly map: string
  readonly kind: Cell.MapKind
  readonly ops: ReadonlyArray<OpTuple>
}

/** Records of one map that were merged together and won. */
export interface Won extends Batch {
  /** The number of the last change so far: everything up to it, of this map, is in this batch and in those before. */
  readonly sequence: number
}

/** What became of operations. */
export interface Applied {
  /** Sequence numbers of the operations that were merged: those that won, and those that lost to a newer record. */
  readonly accepted: ReadonlyArray<number>
  /** The records that won, by map. */
  readonly won: ReadonlyArray<Won>
  readonly rejected: ReadonlyArray<Rejection>
}

/** The size of a map. */
export interface MapSize {
  readonly name: string
  /** Keys that have a value. */
  readonly size: number
  /** Records, tombstones included. */
  readonly records: number
  /** The Merkle root, 16 hex digits. */
  readonly root: string
}

/** This node's partitions. Plain calls but for loading: they run once a batch. */
export class Partitions extends Context.Tag("@topgun/server/Partitions")<Partitions, {
  /** Takes in everything that is stored; answers how many records. Before anything else. */
  readonly load: Effect.Effect<number, StorageUnavailable>
  /** Merges operations in one synchronous pass: each is refused or merged by itself, or, if `atomic`, all are or none. */
  readonly apply: (parts: ReadonlyArray<Part>, atomic: boolean) => Applied
  /** Why a map can't be used as `kind`; `undefined` when it can. A map has the kind of its first write. */
  readonly kindFault: (map: string, kind: Cell.MapKind) => MapKindMismatch | undefined
  /** A map as its replicas' reconciliation sees it; one that doesn't exist is empty. */
  readonly source: (map: string) => Source
  /** Which run of the server this is: changes have numbers of their own in each. */
  readonly run: string
  /** The number of the last change. */
  readonly sequence: () => number
  /** A map's records that have changed since, as they are now; `undefined` where that isn't known, or they are many. */
  readonly changedSince: (map: string, sequence: number) => ReadonlyArray<KeyedRecord> | undefined
  readonly sizes: () => ReadonlyArray<MapSize>
}>() {}

type Refusal =
  | ClockSkewTooLarge
  | MalformedMessage
  | MapKindMismatch
  | NotOwner
  | Overloaded
  | RecordTooLarge
  | ValueNotSupported

/** What checks of foreign bytes throw. Anything else is a fault of ours and goes on its way. */
const isRefusal = (fault: unknown): fault is MalformedMessage | RecordTooLarge | ValueNotSupported =>
  fault instanceof MalformedMessage || fault instanceof RecordTooLarge || fault instanceof ValueNotSupported

interface MapSource extends Source {
  readonly kind: Cell.MapKind
}

/** Records that are sent as changes, at most: more than these are found by walking the tree. */
const changedRecordsMax = 2_000
/** Bytes of their rows, at most. */
const changedBytesMax = 256 * 1024

const nothing: Source = { tree: new MerkleForest(), record: () => undefined }

const make = Effect.gen(function*() {
  const { mapsMax } = yield* ServerConfig
  const capacity = yield* Capacity
  const crdtStore = yield* CrdtStore
  const hlc = yield* Hlc
  const persistence = yield* Persistence
  const router = yield* PartitionRouter

  const run = yield* makeNodeId
  const changes = new Changes()
  const maps = new Map<string, MapSource>()
  const forest = (map: string): MerkleForest => maps.get(map)!.tree
  const stores: Array<Store | undefined> = Array.from({ length: partitionCount })
  const storeOf = (partition: number): Store => stores[partition] ??= crdtStore.open({ tree: forest })

  const makeMap = (name: string, kind: Cell.MapKind): void => {
    maps.set(name, {
      kind,
      tree: new MerkleForest(),
      record: (cell, partition) => stores[partition]?.existing(name)?.cells.getConfirmed(cell)
    })
  }

  const kindFault = (name: string, kind: Cell.MapKind): MapKindMismatch | undefined => {
    const map = maps.get(name)
    return map === undefined || map.kind === kind
      ? undefined
      : new MapKindMismatch({ map: name, expected: map.kind, actual: kind })
  }

  const fullOfMaps = () => new Overloaded({ what: `it has ${maps.size} maps, of ${mapsMax} that mapsMax allows` })

  const mapFault = (name: string, kind: Cell.MapKind): MapKindMismatch | Overloaded | undefined =>
    maps.has(name) ? kindFault(name, kind) : maps.size >= mapsMax ? fullOfMaps() : undefined

  /** What there is to merge of one operation, or why it is refused. */
  const check = (name: string, kind: Cell.MapKind, key: string, row: Uint8Array): Row | Refusal => {
    let record: LwwRecord
    try {
      Value.checkKey(key)
      record = Cell.decodeInPlace(kind, name, key, row)
    } catch (fault) {
      if (isRefusal(fault)) return fault
      throw fault
    }
    const partition = router.partitionOf(key)
    if (!router.isLocal(partition)) return new NotOwner({ partition })
    const received = hlc.unsafeReceive(record)
    return Either.isLeft(received) ? received.left : { cell: Cell.cellOf(kind, key, record), partition, record }
  }

  /** Of all maps. */
  let recordCount = 0

  /** Whether a record won. */
  const merge = (name: string, kind: Cell.MapKind, { cell, partition, record }: Row): boolean => {
    if (!maps.has(name)) makeMap(name, kind)
    const { cells } = storeOf(partition).map(name, kind)
    const before = cells.recordCount
    const won = cells.merge(cell, record) !== undefined
    recordCount += cells.recordCount - before
    return won
  }

  /** Judges, one after the other, which of so many operations would make a record that there is no room for. */
  const roomFor = (operations: number): (map: string, row: Row) => Overloaded | undefined => {
    const isFull = capacity.isFull()
    let left = isFull ? 0 : capacity.recordsMax - recordCount
    if (left >= operations) return () => undefined
    const made = new Map<string, Set<string>>()
    return (map, { cell, partition }) => {
      const before = made.get(map)
      if (before?.has(cell) === true || maps.get(map)?.record(cell, partition) !== undefined) return undefined
      if (left <= 0) {
        return new Overloaded({
          what: isFull
            ? "its memory is used up, and it takes no new records"
            : `it has ${recordCount} records, of ${capacity.recordsMax} that recordsMax allows`
        })
      }
      left--
      made.set(map, (before ?? new Set()).add(cell))
      return undefined
    }
  }

  /** Merges what was checked; answers what won. */
  const mergeAll = (map: string, kind: Cell.MapKind, rows: ReadonlyArray<Row>): Won => {
    const won: Array<Row> = []
    for (const row of rows) {
      if (!merge(map, kind, row)) continue
      changes.add(map, row.cell)
      won.push(row)
    }
    return { map, kind, rows: won, sequence: changes.sequence }
  }

  const applyEach = ({ kind, map, ops }: Part): Applied => {
    const accepted: Array<number> = []
    const rows: Array<Row> = []
    const rejected: Array<Rejection> = []
    const fault = mapFault(map, kind)
    const roomFault = roomFor(ops.length)
    for (const [sequence, key, row] of ops) {
      const found = fault ?? check(map, kind, key, row)
      const checked = "_tag" in found ? found : roomFault(map, found) ?? found
      if ("_tag" in checked) {
        rejected.push({ sequence, cause: checked._tag, reason: checked.message })
        continue
      }
      accepted.push(sequence)
      rows.push(checked)
    }
    return { accepted, won: [mergeAll(map, kind, rows)], rejected }
  }

  /** The kinds that the parts give to maps that don't exist yet have to agree, and there has to be room for them. */
  const partsFault = (parts: ReadonlyArray<Part>): MapKindMismatch | Overloaded | undefined => {
    const created = new Map<string, Cell.MapKind>()
    for (const { kind, map } of parts) {
      const fault = mapFault(map, kind)
      if (fault !== undefined) return fault
      if (maps.has(map)) continue
      const other = created.get(map) ?? kind
      if (other !== kind) return new MapKindMismatch({ map, expected: other, actual: kind })
      created.set(map, kind)
    }
    return maps.size + created.size > mapsMax ? fullOfMaps() : undefined
  }

  const applyAll = (parts: ReadonlyArray<Part>): Applied => {
    const sequences = parts.flatMap(({ ops }) => ops.map(([sequence]) => sequence))
    const refuse = (refused: number | undefined, fault: Refusal): Applied => ({
      accepted: [],
      won: [],
      rejected: sequences.map((sequence) =>
        sequence === refused || refused === undefined
          ? { sequence, cause: fault._tag, reason: fault.message }
          : { sequence, cause: "WriteRejected", reason: `another write of its batch was refused: ${fault.message}` }
      )
    })
    const fault = partsFault(parts)
    if (fault !== undefined) return refuse(undefined, fault)
    const batches: Array<Batch> = []
    const roomFault = roomFor(sequences.length)
    for (const { kind, map, ops } of parts) {
      const rows: Array<Row> = []
      for (const [sequence, key, row] of ops) {
        const found = check(map, kind, key, row)
        const checked = "_tag" in found ? found : roomFault(map, found) ?? found
        if ("_tag" in checked) return refuse(sequence, checked)
        rows.push(checked)
      }
      batches.push({ map, kind, rows })
    }
    const won = batches.map(({ kind, map, rows }) => mergeAll(map, kind, rows))
    return { accepted: sequences, won, rejected: [] }
  }

  return Partitions.of({
    load: Effect.suspend(() => {
      let count = 0
      const load = persistence.load((name, kind, cell, _partition, row) => {
        const key = Cell.keyOf(kind, cell)
        const record = Cell.decodeInPlace(kind, name, key, row)
        hlc.unsafeRaise(record)
        // By the key itself: a wrong partition in a row would put it where nobody looks for it.
        merge(name, kind, { cell, partition: router.partitionOf(key), record })
        count++
      })
      return Effect.map(load, () => count)
    }),
    apply: (parts, atomic) => {
      if (atomic) return applyAll(parts)
      const applied = parts.map(applyEach)
      return {
        accepted: applied.flatMap(({ accepted }) => accepted),
        won: applied.flatMap(({ won }) => won),
        rejected: applied.flatMap(({ rejected }) => rejected)
      }
    },
    kindFault,
    source: (map) => maps.get(map) ?? nothing,
    run,
    sequence: () => changes.sequence,
    changedSince: (name, sequence) => {
      const cells = changes.since(name, sequence, changedRecordsMax)
      const map = maps.get(name)
      if (cells === undefined || map === undefined) return undefined
      const records: Array<KeyedRecord> = []
      let bytes = 0
      for (const cell of cells) {
        const record = map.record(cell, router.partitionOf(Cell.keyOf(map.kind, cell)))
        if (record === undefined) continue
        bytes += record.row.length
        if (bytes > changedBytesMax) return undefined
        records.push([cell, record])
      }
      return records
    },
    sizes: () =>
      Array.from(maps, ([name, { tree }]) => {
        let size = 0
        let records = 0
        for (const store of stores) {
          const map = store?.existing(name)
          if (map === undefined) continue
          size += sizeOf(map)
          records += map.cells.recordCount
        }
        return { name, size, records, root: tree.getRootHash() }
      })
  })
})

export const layer: Layer.Layer<
  Partitions,
  never,
  Capacity | CrdtStore | Hlc | PartitionRouter | Persistence | ServerConfig
> = Layer.effect(Partitions, make)
