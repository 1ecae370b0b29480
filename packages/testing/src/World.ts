/**
 * Real clients and a real server on a simulated network, under simulated time.
 *
 * ```
 * Effect.gen(function*() {
 *   const clock = yield* VirtualClock
 *   yield* World.startServer()
 *   const alice = yield* World.startClient("alice")
 *   …
 * }).pipe(Effect.scoped, World.provide({ seed: 1 }))
 * ```
 */
import type * as ClientConfig from "@topgun/client/ClientConfig"
import * as TopGunClient from "@topgun/client/TopGunClient"
import * as Storage from "@topgun/core/Storage"
import type { StorageAdapter } from "@topgun/core/StorageAdapter"
import type { ServerConnection } from "@topgun/core/Transport"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Scope from "effect/Scope"
import * as Network from "./SimulatedNetwork.ts"
import * as VirtualClock from "./VirtualClock.ts"

/** Where the server listens: clients know it by the transport's `home`. */
export const serverAddress = "home"

/** What lies between the network and a server: it may look at what passes, change it, or answer in the server's place. */
export type Between = (connection: ServerConnection) => ServerConnection

/** Starts a server, in memory unless told otherwise; `stop` ends it in good order. */
export const startServer = Effect.fnUntraced(function*(
  settings: Parameters<typeof TopGunServer.layerInProcess>[0] = {},
  between?: Between
) {
  return yield* serve(TopGunServer.layerInProcess(settings), between)
})

/** Starts a server of any layer. */
export const serve = Effect.fnUntraced(function*<E>(
  layer: Layer.Layer<TopGunServer.TopGunServer, E>,
  between: Between = (connection) => connection
) {
  const network = yield* Network.SimulatedNetwork
  const scope = yield* Scope.make()
  const context = yield* Layer.buildWithScope(
    layer.pipe(Layer.provide(Logger.minimumLogLevel(LogLevel.Error))),
    scope
  )
  const server = Context.get(context, TopGunServer.TopGunServer)
  const stopListening = network.listen(serverAddress, (connection) => server.accept(between(connection)))
  const stop = Effect.suspend(() => {
    stopListening()
    return Scope.close(scope, Exit.void)
  })
  yield* Effect.addFinalizer(() => stop)
  return { ...server, stop }
})

/** Storage of a device that outlives its clients. */
export const makeDevice = (): StorageAdapter => ({ ...Storage.memory(), durable: true })

/**
 * Starts a client on a device whose storage outlives it; `close` ends it in good order. On the network it is `name`; tabs of
 * one browser have the storage called `storageName` in common.
 */
export const startClient = Effect.fnUntraced(function*(
  name: string,
  options: ClientConfig.Options = {},
  device: StorageAdapter = makeDevice(),
  storageName = name
) {
  const network = yield* Network.SimulatedNetwork
  const scope = yield* Scope.make()
  const context = yield* Layer.buildWithScope(
    TopGunClient.layer(options).pipe(
      Layer.provide([network.layerTransport(name), Storage.layerAdapter(() => device, storageName)])
    ),
    scope
  )
  const client = Context.get(context, TopGunClient.TopGunClient)
  const close = Scope.close(scope, Exit.void)
  yield* Effect.addFinalizer(() => close)
  return { ...client, name, device, close }
})

/** Puts a program into a world of its own: its network and its time. */
export const provide = (options: Network.Options & VirtualClock.Options = {}) =>
  Effect.provide(Network.layer(options).pipe(Layer.provideMerge(VirtualClock.layer(options))))
