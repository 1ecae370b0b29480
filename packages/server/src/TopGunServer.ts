/** The whole server: what it's made of, in one place. */
import * as RpcServer from "@effect/rpc/RpcServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import type * as MetricPair from "effect/MetricPair"
import * as Option from "effect/Option"
import * as CrdtStore from "@topgun/core/CrdtStore"
import { type AddressUnavailable, ConfigInvalid, type StorageUnavailable } from "@topgun/core/GridError"
import type * as Grid from "@topgun/core/Grid"
import { GridRpcs, type ServerStatus } from "@topgun/core/GridRpcs"
import * as Hlc from "@topgun/core/Hlc"
import * as MerkleSync from "@topgun/core/MerkleSync"
import * as PartitionRouter from "@topgun/core/PartitionRouter"
import type { ServerConnection } from "@topgun/core/Transport"
import * as Admission from "./Admission.ts"
import { Authentication, layerConfigured } from "./Authentication.ts"
import * as Answers from "./Answers.ts"
import * as Backup from "./Backup.ts"
import * as Calls from "./Calls.ts"
import * as Capacity from "./Capacity.ts"
import * as Confirmations from "./Confirmations.ts"
import * as Devices from "./Devices.ts"
import * as Expiry from "./Expiry.ts"
import * as Declarations from "./Declarations.ts"
import * as Gateway from "./Gateway.ts"
import * as Handlers from "./Handlers.ts"
import * as Interception from "./Interception.ts"
import * as Metrics from "./Metrics.ts"
import * as Partitions from "./Partitions.ts"
import * as PermissionPolicy from "./PermissionPolicy.ts"
import * as Persistence from "./Persistence.ts"
import * as Phase from "./Phase.ts"
import * as Queries from "./Queries.ts"
import { version } from "./Phase.ts"
import * as ServerConfig from "./ServerConfig.ts"
import * as Sessions from "./Session.ts"
import * as Status from "./Status.ts"
import * as Subscriptions from "./Subscriptions.ts"
import * as TombstoneGc from "./TombstoneGc.ts"
import * as Tombstones from "./Tombstones.ts"
import * as Traces from "./Traces.ts"
import * as Visits from "./Visits.ts"
import * as Views from "./Views.ts"
import * as WriteAcks from "./WriteAcks.ts"

/** A server that serves. */
export class TopGunServer extends Context.Tag("@topgun/server/TopGunServer")<TopGunServer, {
  /** Where it listens; `undefined` for one without sockets. */
  readonly address: Gateway.Address | undefined
  /** Serves a connection that came some other way than through the gateway, from an address where that has limits. */
  readonly accept: (connection: ServerConnection, address?: string) => void
  readonly status: Effect.Effect<ServerStatus>
  /** A backup, as `/backup` gives it. */
  readonly backup: Backup.Backup["Type"]["make"]
  /** What `/metrics` shows, for a program that shows it elsewhere: `Prometheus.render` makes its text. */
  readonly metrics: Effect.Effect<ReadonlyArray<MetricPair.MetricPair.Untyped>>
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
  Layer.provide(Handlers.layer)
)

const layerMachine = Layer.mergeAll(layerCalls, TombstoneGc.layer, Expiry.layer).pipe(
  Layer.provideMerge(Status.layer),
  Layer.provideMerge(Sessions.layer),
  Layer.provideMerge(Calls.layer),
  Layer.provide(WriteAcks.layer),
  Layer.provide(Answers.layer),
  Layer.provide(Interception.layer),
  Layer.provide(Traces.layer),
  Layer.provideMerge(Backup.layer),
  Layer.provideMerge(Visits.layer),
  Layer.provideMerge(Metrics.layer),
  Layer.provide(Subscriptions.layer),
  Layer.provide(Views.layer),
  Layer.provide(Devices.layer),
  Layer.provideMerge(Admission.layer),
  Layer.provide(Confirmations.layer),
  Layer.provideMerge(Queries.layer),
  Layer.provideMerge(Partitions.layer),
  Layer.provide(Tombstones.layer),
  Layer.provideMerge(Capacity.layer),
  Layer.provideMerge(Phase.layer)
)

/** Says when all connections are closed, and how many records are left to be saved with the storage itself. */
const layerFarewell = Layer.scopedDiscard(
  Effect.flatMap(
    Persistence.Persistence,
    ({ waiting }) =>
      Effect.addFinalizer(() =>
        Effect.suspend(() =>
          Effect.annotateLogs(Effect.logInfo("TopGun has stopped serving"), { waitingRecords: waiting() })
        )
      )
  )
)

/** Loads what is stored and opens for business. Whatever is to be up before that is an argument. */
const serve = Effect.fnUntraced(function*(gateway: Option.Option<Context.Tag.Service<Gateway.Gateway>>) {
  const backup = yield* Backup.Backup
  const hlc = yield* Hlc.Hlc
  const metrics = yield* Metrics.Metrics
  const partitions = yield* Partitions.Partitions
  const persistence = yield* Persistence.Persistence
  const phase = yield* Phase.Phase
  const queries = yield* Queries.Queries
  const sessions = yield* Sessions.Sessions
  const status = yield* Status.Status
  const { auth } = yield* ServerConfig.ServerConfig
  const { isAnonymous } = yield* Authentication
  const policies = yield* PermissionPolicy.PermissionPolicy
  if (auth === "token" && isAnonymous) {
    return yield* new ConfigInvalid({
      faults: [
        "auth is \"token\", and nothing here verifies tokens: set TOPGUN_JWT_SECRET, TOPGUN_JWT_PUBLIC_KEY or " +
        "TOPGUN_JWKS_URL, or provide Authentication.layerJwt or Authentication.layerVerifier"
      ]
    })
  }
  if (!isAnonymous && !policies.isGiven) {
    return yield* new ConfigInvalid({
      faults: [
        "tokens are asked for, and nothing says what whom may do, so nobody could do anything: set TOPGUN_POLICY_FILE or policyFile, " +
        "or provide PermissionPolicy.layer(policy), such as PermissionPolicy.everything for all of them"
      ]
    })
  }

  hlc.unsafeAdopt(persistence.nodeId, 0)
  const records = yield* partitions.load
  yield* queries.load
  phase.ready()
  yield* Effect.annotateLogs(Effect.logInfo("TopGun is ready"), { version, records, storage: persistence.kind })
  // What is built last ends first: nothing is stopped yet.
  yield* Effect.addFinalizer(() =>
    Effect.annotateLogs(Effect.logInfo("TopGun stops: it takes nothing more, and saves what it has taken"), {
      connections: sessions.count(),
      waitingRecords: persistence.waiting()
    })
  )
  return TopGunServer.of({
    address: Option.getOrUndefined(Option.map(gateway, ({ address }) => address)),
    accept: sessions.accept,
    status: status.current,
    backup: backup.make,
    metrics: metrics.snapshot
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
      ({ address }) =>
        Effect.annotateLogs(Effect.logInfo("TopGun listens"), {
          url: `${address.scheme}://${address.host}:${address.port}/ws`
        })
    ),
    (gateway) => serve(Option.some(gateway))
  ).pipe(
    Layer.scoped(TopGunServer),
    Layer.provide(Gateway.layer),
    Layer.provide(layerMachine),
    Layer.provide(layerFarewell),
    Layer.provide(layerConfigured)
  )

/** A server of the given parts without sockets: connections come through `accept`. */
export const layerPartsInProcess: Layer.Layer<TopGunServer, ConfigInvalid | StorageUnavailable, Parts> = Layer.scoped(
  TopGunServer,
  serve(Option.none())
).pipe(Layer.provide(layerMachine), Layer.provide(layerFarewell), Layer.provide(layerConfigured))

const storages = {
  memory: Persistence.layerMemory,
  postgres: Persistence.layerPostgres,
  sqlite: Persistence.layerSqlite
}

/** The parts that a server has by itself; the database is the configuration's. */
const layerDefaultParts = Layer.mergeAll(
  CrdtStore.layer,
  Hlc.layer(),
  MerkleSync.layer,
  PartitionRouter.layerSingleNode,
  Layer.unwrapEffect(
    Effect.map(
      ServerConfig.ServerConfig,
      ({ storage }): Layer.Layer<Persistence.Persistence, StorageUnavailable, ServerConfig.ServerConfig> =>
        storages[storage]
    )
  )
)

/** What a server in code is made with: settings, and who may do what. */
export interface Options extends Partial<ServerConfig.Settings> {
  /** The policy. That of `policyFile` goes before it, and it before one that is provided. */
  readonly policy?: PermissionPolicy.Policy
  /** The maps of the grid, as clients declare them, to be indexed and searched. That of `gridFile` goes before it. */
  readonly grid?: ReadonlyArray<Grid.Declaration>
}

/** The policy of the configuration's file, where it names one, or the one given. */
const layerPolicy = (policy?: PermissionPolicy.Policy) =>
  Layer.unwrapEffect(
    Effect.map(
      ServerConfig.ServerConfig,
      ({ policyFile }): Layer.Layer<never, ConfigInvalid> =>
        policyFile !== undefined
          ? PermissionPolicy.layerFile(policyFile)
          : policy !== undefined
          ? PermissionPolicy.layer(policy)
          : Layer.empty
    )
  )

/** The declarations of the configuration's file, where it names one, or the ones given. */
const layerDeclarations = (grid?: ReadonlyArray<Grid.Declaration>) =>
  Layer.unwrapEffect(
    Effect.map(
      ServerConfig.ServerConfig,
      ({ gridFile }): Layer.Layer<never, ConfigInvalid> =>
        gridFile !== undefined
          ? Declarations.layerFile(gridFile)
          : grid !== undefined
          ? Declarations.layer(grid)
          : Layer.empty
    )
  )

/** Spans go where the configuration says. What exports them is loaded only then: it is optional, and large with what it brings. */
const layerTracing = Layer.unwrapEffect(Effect.gen(function*() {
  const { otlpUrl, serviceName } = yield* ServerConfig.ServerConfig
  if (otlpUrl === undefined) return Layer.empty
  const Otlp = yield* Effect.tryPromise({
    try: () => import("./Otlp.ts"),
    catch: () =>
      new ConfigInvalid({
        faults: ["otlpUrl is set, and @effect/opentelemetry can't be loaded: npm install @effect/opentelemetry"]
      })
  })
  return Otlp.layer({ url: otlpUrl, serviceName })
}))

/** The server of a configuration. */
export const layer = (
  { grid, policy, ...settings }: Options = {}
): Layer.Layer<TopGunServer, ConfigInvalid | StorageUnavailable | AddressUnavailable> =>
  layerParts.pipe(
    Layer.provide(layerDefaultParts),
    Layer.provide(layerPolicy(policy)),
    Layer.provide(layerDeclarations(grid)),
    Layer.provide(layerTracing),
    Layer.provide(ServerConfig.layer(settings))
  )

/** The server of a configuration, without sockets, and in memory unless told otherwise. */
export const layerInProcess = (
  { grid, policy, ...settings }: Options = {}
): Layer.Layer<TopGunServer, ConfigInvalid | StorageUnavailable> =>
  layerPartsInProcess.pipe(
    Layer.provide(layerDefaultParts),
    Layer.provide(layerPolicy(policy)),
    Layer.provide(layerDeclarations(grid)),
    Layer.provide(layerTracing),
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

/** What an operator wants to see first: what the server goes by. */
const announce = ({ notices, settings }: ServerConfig.Loaded) =>
  Effect.zipRight(
    ServerConfig.tell(notices),
    Effect.annotateLogs(Effect.logInfo("Configuration, where it isn't the default"), ServerConfig.departures(settings))
  )

/**
 * The server that the environment describes, with `overrides`, such as a command line's; what `topgun serve` runs.
 * `fallbacks` are in the place of the defaults.
 */
export const layerConfig = (
  overrides: Partial<ServerConfig.Settings> = {},
  fallbacks: Partial<ServerConfig.Settings> = {}
): Layer.Layer<
  TopGunServer | ServerConfig.ServerConfig,
  ConfigInvalid | StorageUnavailable | AddressUnavailable
> =>
  Layer.unwrapEffect(
    Effect.map(ServerConfig.load(overrides, fallbacks), (loaded) =>
      layerParts.pipe(
        Layer.provide(layerDefaultParts),
        Layer.provide(layerPolicy()),
        Layer.provide(layerDeclarations()),
        Layer.provide(layerTracing),
        Layer.provide(Layer.effectDiscard(announce(loaded))),
        Layer.provide(layerLogging),
        Layer.provideMerge(Layer.succeed(ServerConfig.ServerConfig, loaded.settings))
      ))
  )
