/** The client as Effect applications use it. */
import * as Grid from "@topgun/core/Grid"
import type { ConnectionLost, StorageUnavailable, WriteRefusal } from "@topgun/core/GridError"
import type { ServerStatus } from "@topgun/core/GridRpcs"
import type { Storage } from "@topgun/core/Storage"
import type { Transport } from "@topgun/core/Transport"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Calls from "./Calls.ts"
import * as ClientConfig from "./ClientConfig.ts"
import * as Device from "./Device.ts"
import * as GridMap from "./GridMap.ts"
import type { Live } from "./Live.ts"
import type { RejectedWrite, SyncStatus } from "./Reports.ts"
import * as Replica from "./Replica.ts"
import * as SyncEngine from "./SyncEngine.ts"
import { Status } from "./SyncStatus.ts"

/** This device's grid: reads and writes need no network. */
export class TopGunClient extends Context.Tag("@topgun/client/TopGunClient")<TopGunClient, {
  /** A map, loaded; by its declaration, or untyped by its name. */
  readonly map: <A>(map: Grid.MapLike<A>) => Effect.Effect<GridMap.GridMap<A>>
  readonly status: Live<SyncStatus>
  readonly rejectedWrites: {
    readonly list: () => ReadonlyArray<RejectedWrite>
    /** Writes the value again, as of now. It stays in the list until that is durable on this device. */
    readonly retry: (id: string) => Effect.Effect<void, WriteRefusal>
    readonly discard: (id: string) => Effect.Effect<void>
  }
  readonly connect: Effect.Effect<void>
  readonly disconnect: Effect.Effect<void>
  /** Begins anew at once; the way out of ERROR. */
  readonly resetConnection: Effect.Effect<void>
  /** Waits until the server has all that was written here so far, and this device all that the server has. */
  readonly synced: Effect.Effect<void>
  readonly serverStatus: Effect.Effect<ServerStatus, ConnectionLost>
}>() {}

const make = Effect.gen(function*() {
  const config = yield* ClientConfig.ClientConfig
  const replica = yield* Replica.Replica
  const engine = yield* SyncEngine.SyncEngine
  const calls = yield* Calls.make
  const status = yield* Status
  const discard = (id: string) => Effect.sync(() => void replica.rejected.take(id))
  return TopGunClient.of({
    map: (map) =>
      Effect.sync(() => {
        const declaration = Grid.resolveMap(map)
        replica.openMap(declaration.name)
        return new GridMap.GridMap(declaration, replica, config)
      }),
    status,
    rejectedWrites: {
      list: replica.rejected.list,
      retry: (id) =>
        Effect.suspend(() => {
          const write = replica.rejected.get(id)
          if (write === undefined) return Effect.void
          const map = new GridMap.GridMap(Grid.map(write.map), replica, config)
          const again = map.update(write.key, () => write.value, { ttlMs: write.ttlMs })
          return Effect.asVoid(Effect.zipLeft(again, discard(id)))
        }),
      discard
    },
    connect: engine.connect,
    disconnect: engine.disconnect,
    resetConnection: engine.resetConnection,
    synced: engine.synced,
    serverStatus: calls.status
  })
})

/** The client over parts that the caller provides: its clock, stores, reconciliation and routing too. */
export const layerParts = (options: ClientConfig.Options = {}) =>
  Layer.scoped(TopGunClient, make).pipe(
    Layer.provide(Device.layer),
    Layer.provide(ClientConfig.layer(options))
  )

/**
 * The client. It asks for the device's `Storage` and the `Transport` to the server:
 * `TopGunClient.layer().pipe(Layer.provide([Storage.layerMemory, Transport.layerWebSocket({ url })]))`.
 */
export const layer = (
  options: ClientConfig.Options = {}
): Layer.Layer<TopGunClient, StorageUnavailable, Storage | Transport> =>
  // Fresh, as no two clients may share a clock.
  layerParts(options).pipe(Layer.provide(Layer.fresh(Device.parts)))
