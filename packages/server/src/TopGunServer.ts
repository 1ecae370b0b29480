/** The whole server: what it's made of, in one place. */
import * as RpcServer from "@effect/rpc/RpcServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as CrdtStore from "@topgun/core/CrdtStore"
import { type AddressUnavailable, ConfigInvalid, type StorageUnavailable } from "@topgun/core/GridError"
import { GridRpcs, type ServerStatus } from "@topgun/core/GridRpcs"
import * as Hlc from "@topgun/core/Hlc"
import * as MerkleSync from "@topgun/core/MerkleSync"
import * as PartitionRouter from "@topgun/core/PartitionRouter"
import type { ServerConnection } from "@topgun/core/Transport"
import * as Admission from "./Admission.ts"
import { Authentication } from "./Authentication.ts"
import * as Calls from "./Calls.ts"
import * as Capacity from "./Capacity.ts"
import * as Devices from "./Devices.ts"
import * as Gateway from "./Gateway.ts"
import * as Partitions from "./Partitions.ts"
import * as Persistence from "./Persistence.ts"
import * as Phase from "./Phase.ts"
import * as ServerConfig from "./ServerConfig.ts"
import * as Sessions from "./Session.ts"
import * as Status from "./Status.ts"
import * as Subscriptions from "./Subscriptions.ts"
import * as WriteAcks from "./WriteAcks.ts"

/** A server that serves. */
export class TopGunServer extends Context.Tag("@topgun/server/TopGunServer")<TopGunServer, {
  /** Where it listens; `undefined` for one without sockets. */
  readonly address: Gateway.Address | undefined
  /** Serves a connection that came some other way than through the gateway, from an address where that has limits. */
  readonly accept: (connection: ServerConnection, address?: string) => void
  readonly status: Effect.Effect<ServerStatus>
}>() {}

/** Parts that others may be put in place of. */
export type Parts =
  | CrdtStore.CrdtStore
  | Hlc.Hlc
  | MerkleSync.MerkleSync
  | PartitionRouter.PartitionRouter
  | Persistence.Persistence
  | ServerConfig.ServerConfig

// --- What serves a connection ---

const layerCalls = RpcServer.layer(GridRpcs, { disableTracing: true, disableFatalDefects: true }).pipe(
  Layer.provide(Status.layerCalls)
)

const layerMachine = layerCalls.pipe(
  Layer.provideMerge(Status.layer),
  Layer.provideMerge(Sessions.layer),
  Layer.provideMerge(Calls.layer),
  Layer.provide(WriteAcks.layer),
  Layer.provide(Subscriptions.layer),
  Layer.provide(Devices.layer),
  Layer.provideMerge(Admission.layer),
  Layer.provideMerge(Partitions.layer),
  Layer.provideMerge(Capacity.layer),
  Layer.provideMerge(Phase.layer)
)

/** Loads what is stored and opens for business. Whatever is to be up before that is an argument. */
const serve = Effect.fnUntraced(function*(gateway: Option.Option<Context.Tag.Service<Gateway.Gateway>>) {
  const hlc = yield* Hlc.Hlc
  const partitions = yield* Partitions.Partitions
  const persistence = yield* Persistence.Persistence
  const phase = yield* Phase.Phase
  const sessions = yield* Sessions.Sessions
  const status = yield* Status.Status
  const { auth } = yield* ServerConfig.ServerConfig
  if (auth === "token" && (yield* Authentication).isAnonymous) {
    return yield* new ConfigInvalid({
      faults: ["auth is \"token\", and nothing here verifies tokens: provide Authentication.layerVerifier"]
    })
  }

  hlc.unsafeAdopt(persistence.nodeId, 0)
  const records = yield* partitions.load
  phase.ready()
  yield* Effect.logInfo(`TopGun is ready: ${records} records from ${persistence.kind} storage`)
  return TopGunServer.of({
    address: Option.getOrUndefined(Option.map(gateway, ({ address }) => address)),
    accept: sessions.accept,
    status: status.current
  })
})

// --- Servers ---

/**
 * A server of the given parts, with its port. The port is open while data is loaded, so that probes are answered: not ready
 * yet, but alive.
 */
export const layerParts: Layer.Layer<
  TopGunServer,
  ConfigInvalid | StorageUnavailable | AddressUnavailable,
  Parts
> = Effect
  .flatMap(
    Effect.tap(
      Gateway.Gateway,
      ({ address }) => Effect.logInfo(`Listening on ${address.scheme}://${address.host}:${address.port}/ws`)
    ),
    (gateway) => serve(Option.some(gateway))
  ).pipe(Layer.effect(TopGunServer), Layer.provide(Gateway.layer), Layer.provide(layerMachine))

/** A server of the given parts without sockets: connections come through `accept`. */
export const layerPartsInProcess: Layer.Layer<TopGunServer, ConfigInvalid | StorageUnavailable, Parts> = Layer.effect(
  TopGunServer,
  serve(Option.none())
).pipe(Layer.provide(layerMachine))

/** The parts that a server has by itself; the database is the configuration's. */
const layerDefaultParts = Layer.mergeAll(
  CrdtStore.layer,
  Hlc.layer(),
  MerkleSync.layer,
  PartitionRouter.layerSingleNode,
  Layer.unwrapEffect(
    Effect.map(
      ServerConfig.ServerConfig,
      ({ storage }) => storage === "memory" ? Persistence.layerMemory : Persistence.layerSqlite
    )
  )
)

/** The server of a configuration. */
export const layer = (
  settings: Partial<ServerConfig.Settings> = {}
): Layer.Layer<TopGunServer, ConfigInvalid | StorageUnavailable | AddressUnavailable> =>
  layerParts.pipe(Layer.provide(layerDefaultParts), Layer.provide(ServerConfig.layer(settings)))

/** The server of a configuration, without sockets, and in memory unless told otherwise. */
export const layerInProcess = (
  settings: Partial<ServerConfig.Settings> = {}
): Layer.Layer<TopGunServer, ConfigInvalid | StorageUnavailable> =>
  layerPartsInProcess.pipe(
    Layer.provide(layerDefaultParts),
    Layer.provide(ServerConfig.layer({ storage: "memory", ...settings }))
  )

const loggers = { pretty: Logger.pretty, logfmt: Logger.logFmt, json: Logger.json }
const levels = {
  trace: LogLevel.Trace,
  debug: LogLevel.Debug,
  info: LogLevel.Info,
  warning: LogLevel.Warning,
  error: LogLevel.Error,
  fatal: LogLevel.Fatal,
  none: LogLevel.None
}

/** Logging as the configuration says. */
const layerLogging = Layer.unwrapEffect(
  Effect.map(
    ServerConfig.ServerConfig,
    ({ logFormat, logLevel }) => Layer.merge(loggers[logFormat], Logger.minimumLogLevel(levels[logLevel]))
  )
)

/** The server that the environment describes, with `overrides`, such as a command line's; what `topgun serve` runs. */
export const layerConfig = (
  overrides: Partial<ServerConfig.Settings> = {}
): Layer.Layer<TopGunServer, ConfigInvalid | StorageUnavailable | AddressUnavailable> =>
  layerParts.pipe(
    Layer.provide(layerDefaultParts),
    Layer.provide(layerLogging),
    Layer.provide(ServerConfig.layerFromEnv(overrides))
  )
