/** What both forms of the client stand on, composed in one place. */
import * as CrdtStore from "@topgun/core/CrdtStore"
import type { StorageFailure } from "@topgun/core/GridError"
import * as Hlc from "@topgun/core/Hlc"
import * as MerkleSync from "@topgun/core/MerkleSync"
import * as PartitionRouter from "@topgun/core/PartitionRouter"
import type { Storage } from "@topgun/core/Storage"
import type { Transport } from "@topgun/core/Transport"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ClientConfig from "./ClientConfig.ts"
import * as Replica from "./Replica.ts"
import * as SyncEngine from "./SyncEngine.ts"
import * as SyncStatus from "./SyncStatus.ts"

/** The parts that a client of one server has. */
export const parts = Layer.mergeAll(
  Hlc.layer(),
  CrdtStore.layer,
  MerkleSync.layer,
  PartitionRouter.layerSingleNode
)

/** The replica and its engine, as both forms of the client stand on them: all maps of `grid` open, connecting if told to. */
export const layer: Layer.Layer<
  Replica.Replica | SyncEngine.SyncEngine | SyncStatus.Status,
  StorageFailure,
  | ClientConfig.ClientConfig
  | Hlc.Hlc
  | CrdtStore.CrdtStore
  | MerkleSync.MerkleSync
  | PartitionRouter.PartitionRouter
  | Storage
  | Transport
> = Layer.unwrapEffect(Effect.gen(function*() {
  const config = yield* ClientConfig.ClientConfig
  const start = Layer.effectDiscard(Effect.gen(function*() {
    const replica = yield* Replica.Replica
    const engine = yield* SyncEngine.SyncEngine
    for (const declaration of config.grid) {
      try {
        replica.openDeclared(declaration)
      } catch (fault) {
        // The other maps are no worse for it; who uses this one is told again.
        config.onError(fault)
      }
    }
    if (config.autoConnect) yield* engine.connect
  }))
  return start.pipe(
    Layer.provideMerge(SyncStatus.layer),
    Layer.provideMerge(SyncEngine.layer(config)),
    Layer.provideMerge(Replica.layer({ backpressure: config.backpressure }))
  )
}))
