/** The partitions that this node owns: one `CrdtStore` each, and the one place where foreign records are merged. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import type { Store } from "@topgun/core/CrdtStore"
import { CrdtStore } from "@topgun/core/CrdtStore"
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
import * as LwwRecord from "@topgun/core/LwwRecord"
import type { Source } from "@topgun/core/MerkleSync"
import { MerkleForest } from "@topgun/core/MerkleTree"
import type { MapKind } from "@topgun/core/Operation"
import { partitionCount } from "@topgun/core/Partition"
import { PartitionRouter } from "@topgun/core/PartitionRouter"
import type { OpTuple } from "@topgun/core/Protocol"
import * as Value from "@topgun/core/Value"
import type { Row } from "./Persistence.ts"
import { Persistence } from "./Persistence.ts"
import { ServerConfig } from "./ServerConfig.ts"

/** An operation that was refused: nothing of it was merged. */
export interface Rejection {
  readonly sequence: number
  /** The error's `_tag`. */
  readonly cause: string
  readonly reason: string
}

/** What became of a batch. */
export interface Applied {
  /** Sequence numbers of the operations that were merged: those that won, and those that lost to a newer record. */
  readonly accepted: ReadonlyArray<number>
  /** The records that won. */
  readonly won: ReadonlyArray<Row>
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
  /** Merges operations on one map in one synchronous pass; each is refused or merged by itself. */
  readonly apply: (map: string, kind: MapKind, ops: ReadonlyArray<OpTuple>) => Applied
  /** Why a map can't be used as `kind`; `undefined` when it can. A map has the kind of its first write. */
  readonly kindFault: (map: string, kind: MapKind) => MapKindMismatch | undefined
  /** A map as its replicas' reconciliation sees it; one that doesn't exist is empty. */
  readonly source: (map: string) => Source
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

interface GridMap {
  readonly name: string
  readonly kind: MapKind
  readonly source: Source
}

const nothing: Source = { tree: new MerkleForest(), record: () => undefined }

const make = Effect.gen(function*() {
  const { mapsMax } = yield* ServerConfig
  const crdtStore = yield* CrdtStore
  const hlc = yield* Hlc
  const persistence = yield* Persistence
  const router = yield* PartitionRouter

  const maps = new Map<string, GridMap>()
  const forest = (map: string): MerkleForest => maps.get(map)!.source.tree
  const stores: Array<Store | undefined> = Array.from({ length: partitionCount })
  const storeOf = (partition: number): Store => stores[partition] ??= crdtStore.open({ tree: forest })

  const makeMap = (name: string, kind: MapKind): GridMap => {
    const source: Source = {
      tree: new MerkleForest(),
      record: (key, partition) => stores[partition]?.existing(name)?.getConfirmed(key)
    }
    const map = { name, kind, source }
    maps.set(name, map)
    return map
  }

  const kindFault = (name: string, kind: MapKind): MapKindMismatch | undefined => {
    const map = maps.get(name)
    return map === undefined || map.kind === kind
      ? undefined
      : new MapKindMismatch({ map: name, expected: map.kind, actual: kind })
  }

  const mapFault = (name: string, kind: MapKind): MapKindMismatch | Overloaded | undefined =>
    maps.has(name)
      ? kindFault(name, kind)
      : maps.size >= mapsMax
      ? new Overloaded({ what: `it has ${maps.size} maps, the most that mapsMax allows` })
      : undefined

  /** One operation: its record where it won, `undefined` where it lost, or why it was refused. */
  const applyOne = (name: string, kind: MapKind, key: string, row: Uint8Array): Row | Refusal | undefined => {
    let record: LwwRecord.LwwRecord
    try {
      Value.checkKey(key)
      record = LwwRecord.decodeInPlace(row)
    } catch (fault) {
      if (isRefusal(fault)) return fault
      throw fault
    }
    const partition = router.partitionOf(key)
    if (!router.isLocal(partition)) return new NotOwner({ partition })
    const received = hlc.unsafeReceive(record)
    if (Either.isLeft(received)) return received.left
    if (!maps.has(name)) makeMap(name, kind)
    const change = storeOf(partition).lwwMap(name).merge(key, record)
    return change === undefined ? undefined : { key, partition, record }
  }

  return Partitions.of({
    load: Effect.suspend(() => {
      let count = 0
      const load = persistence.load((name, kind, key, _partition, row) => {
        if (!maps.has(name)) makeMap(name, kind)
        const record = LwwRecord.decodeInPlace(row)
        hlc.unsafeRaise(record)
        // By the key itself: a wrong partition in a row would put it where nobody looks for it.
        storeOf(router.partitionOf(key)).lwwMap(name).merge(key, record)
        count++
      })
      return Effect.map(load, () => count)
    }),
    apply: (map, kind, ops) => {
      const accepted: Array<number> = []
      const won: Array<Row> = []
      const rejected: Array<Rejection> = []
      const fault = mapFault(map, kind)
      for (const [sequence, key, row] of ops) {
        const outcome = fault ?? applyOne(map, kind, key, row)
        if (outcome !== undefined && "_tag" in outcome) {
          rejected.push({ sequence, cause: outcome._tag, reason: outcome.message })
          continue
        }
        accepted.push(sequence)
        if (outcome !== undefined) won.push(outcome)
      }
      return { accepted, won, rejected }
    },
    kindFault,
    source: (map) => maps.get(map)?.source ?? nothing,
    sizes: () =>
      Array.from(maps.values(), ({ name, source }) => {
        let size = 0
        let records = 0
        for (const store of stores) {
          const map = store?.existing(name)
          if (map === undefined) continue
          size += map.size
          records += map.recordCount
        }
        return { name, size, records, root: source.tree.getRootHash() }
      })
  })
})

export const layer: Layer.Layer<
  Partitions,
  never,
  CrdtStore | Hlc | PartitionRouter | Persistence | ServerConfig
> = Layer.effect(Partitions, make)
