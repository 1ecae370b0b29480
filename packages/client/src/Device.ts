/** What both forms of the client stand on, composed in one place. */
import * as CrdtStore from "@topgun/core/CrdtStore"
import type { StorageFailure } from "@topgun/core/GridError"
import * as Hlc from "@topgun/core/Hlc"
import * as MerkleSync from "@topgun/core/MerkleSync"
import * as PartitionRouter from "@topgun/core/PartitionRouter"
import { Storage } from "@topgun/core/Storage"
import type { Transport } from "@topgun/core/Transport"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ClientConfig from "./ClientConfig.ts"
import * as ClientLog from "./ClientLog.ts"
import * as Queries from "./Queries.ts"
import * as Replica from "./Replica.ts"
import * as SyncEngine from "./SyncEngine.ts"
import * as SyncStatus from "./SyncStatus.ts"
import * as TabCoordinator from "./TabCoordinator.ts"
import * as TabEngine from "./TabEngine.ts"
import type { Tabs } from "./Tabs.ts"

/** The parts that a client of one server has. */
export const parts = Layer.mergeAll(
  Hlc.layer(),
  CrdtStore.layer,
  MerkleSync.layer,
  PartitionRouter.layerSingleNode
)

/** The replica and its engine, as both forms of the client stand on them: all maps of `grid` open, connecting if told to. */
export const layer: Layer.Layer<
  Queries.Queries | Replica.Replica | SyncEngine.SyncEngine | SyncStatus.Status,
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
  const storage = yield* Storage
  const { tabs } = config
  return tabs !== "none" && storage.isShared ? inTabs(config, tabs, storage) : alone(config)
}))

const replicaOf = (config: ClientConfig.Config) => Replica.layer({ backpressure: config.backpressure })

/** Opens what the application has declared. */
const openAll = (config: ClientConfig.Config, replica: Replica.Replica["Type"]): void => {
  for (const declaration of config.grid) {
    try {
      replica.openDeclared(declaration)
    } catch (fault) {
      // The other maps are no worse for it; who uses this one is told again.
      config.onError(fault)
    }
  }
}

/** Has the log told of how the device stands, for as long as the scope is. */
const logged = (
  { log }: ClientConfig.Config,
  status: SyncStatus.Status["Type"],
  engine: SyncEngine.SyncEngine["Type"]
) =>
  Effect.acquireRelease(
    Effect.sync(() => ClientLog.watch(log, status, engine.lastFailure)),
    (stop) => Effect.sync(stop)
  )

const alone = (config: ClientConfig.Config) =>
  Layer.scopedDiscard(Effect.gen(function*() {
    openAll(config, yield* Replica.Replica)
    yield* logged(config, yield* SyncStatus.Status, yield* SyncEngine.SyncEngine)
    if (config.autoConnect) yield* Effect.flatMap(SyncEngine.SyncEngine, ({ connect }) => connect)
  })).pipe(
    Layer.provideMerge(Layer.merge(SyncStatus.layer, Queries.layer)),
    Layer.provide(Layer.succeed(TabCoordinator.TabCoordinator, TabCoordinator.alone)),
    Layer.provideMerge(SyncEngine.layer(config)),
    Layer.provideMerge(replicaOf(config))
  )

/** A tab among others: what it stores in, and which engine counts, is as its part says. */
const inTabs = (config: ClientConfig.Config, tabs: Tabs, source: Storage["Type"]) =>
  Layer.scopedContext(Effect.gen(function*() {
    const tab = yield* TabCoordinator.make(tabs, source, config.onError)
    const own = yield* Layer.build(
      SyncEngine.layer(config).pipe(
        Layer.provideMerge(replicaOf(config)),
        Layer.provide(Layer.succeed(Storage, Storage.of({ ...source, open: Effect.succeed(tab.storage) })))
      )
    )
    const replica = Context.get(own, Replica.Replica)
    const ownEngine = Context.get(own, SyncEngine.SyncEngine)
    const tabEngine = TabEngine.make(ownEngine, replica, tab.role, config.onError)
    const context = Context.add(own, SyncEngine.SyncEngine, tabEngine.engine)
    const status = yield* Effect.provide(
      Layer.build(
        Layer.merge(SyncStatus.layer, Queries.layer).pipe(
          Layer.provide(Layer.succeed(TabCoordinator.TabCoordinator, tab.coordinator))
        )
      ),
      context
    )
    openAll(config, replica)
    yield* logged(config, Context.get(status, SyncStatus.Status), tabEngine.engine)
    if (tab.isLeading() && config.autoConnect) yield* ownEngine.connect
    yield* tab.start(replica, ownEngine, Context.get(status, SyncStatus.Status), tabEngine)
    return Context.merge(context, status)
  }))
