/** The client as Effect applications use it. */
import * as Grid from "@topgun/core/Grid"
import type { FieldPath } from "@topgun/core/FieldPath"
import type { ConnectionLost, PermissionDenied, StorageFailure, WriteRefusal } from "@topgun/core/GridError"
import type { ServerStatus } from "@topgun/core/GridRpcs"
import * as Query from "@topgun/core/Query"
import type { Storage } from "@topgun/core/Storage"
import type { Transport } from "@topgun/core/Transport"
import type { Where } from "@topgun/core/Where"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { Batch } from "./Batch.ts"
import * as ClientConfig from "./ClientConfig.ts"
import * as Device from "./Device.ts"
import { again, draftsOf } from "./Drafts.ts"
import * as GridMap from "./GridMap.ts"
import { extend, type Live } from "./Live.ts"
import type { LogoutOptions, RejectedWrite, SyncStatus } from "./Reports.ts"
import { logout, type LogoutFailure } from "./Logout.ts"
import { serverStatus } from "./OnDemand.ts"
import { OpenQuery, type QueryFault } from "./OpenQuery.ts"
import { attempt, type ExplainOptions, Queries, searchQuery } from "./Queries.ts"
import type { QueryExplanation, QueryOptions, SearchHit, SearchOptions, Shown } from "./QueryTypes.ts"
import * as RejectedWrites from "./RejectedWrites.ts"
import * as Replica from "./Replica.ts"
import * as SyncEngine from "./SyncEngine.ts"
import { Status } from "./SyncStatus.ts"
import type { UntimedOptions } from "./Write.ts"

/** This device's grid: reads and writes need no network. */
export class TopGunClient extends Context.Tag("@topgun/client/TopGunClient")<TopGunClient, {
  /** A map of records, loaded; by its declaration, or untyped by its name. One that is of another kind is a defect. */
  readonly map: <A>(map: Grid.MapLike<A>) => Effect.Effect<GridMap.GridMap<A>>
  /** A map of sets, in the same way. */
  readonly orMap: <A>(map: Grid.OrMapLike<A>) => Effect.Effect<GridMap.GridOrMap<A>>
  /** A counter, in the same way. */
  readonly counter: (counter: Grid.CounterLike) => Effect.Effect<GridMap.GridCounter>
  /**
   * Asks a query of a map of records until the scope ends. Of a map that is downloaded it is answered here, at once; of one that isn't
   * (`sync: "none"`) by the server, beside what this device has written to it.
   */
  readonly query: <A, const Path extends FieldPath<A> = never>(
    map: Grid.MapLike<A>,
    options?: QueryOptions<NoInfer<A>, Path>
  ) => Effect.Effect<GridMap.GridQuery<Shown<A, Path>>, QueryFault, Scope.Scope>
  /** How many records of a map a predicate is true of: here, of a map that is downloaded, else on the server. */
  readonly count: <A>(map: Grid.MapLike<A>, where?: Where<NoInfer<A>>) => Effect.Effect<number, QueryFault>
  /**
   * The records that match a text best: here, of a map that is downloaded, else on the server. For results that follow what changes there
   * is `search` of {@link query}.
   */
  readonly search: <A>(
    map: Grid.MapLike<A>,
    text: string,
    options?: SearchOptions<NoInfer<A>>
  ) => Effect.Effect<ReadonlyArray<SearchHit<A>>, QueryFault>
  /** How a query is answered: by this device or, with `server`, by the server; of a search, why it gives the record of a key its score. */
  readonly explain: <A>(
    map: Grid.MapLike<A>,
    options?: QueryOptions<NoInfer<A>>,
    by?: ExplainOptions
  ) => Effect.Effect<QueryExplanation, QueryFault>
  /**
   * Makes all writes of `build` at once: visible and stored in one step here, taken as a whole or not at all by a node of the
   * server. `build` is called again when there was no room at first.
   */
  readonly batch: (
    build: (batch: Batch) => void,
    options?: UntimedOptions
  ) => Effect.Effect<GridMap.Write, WriteRefusal>
  readonly status: Live<SyncStatus>
  readonly rejectedWrites: Live<ReadonlyArray<RejectedWrite>> & {
    /** Writes the value again, as of now. It leaves the list with that, in one transaction of storage. */
    readonly retry: (id: string) => Effect.Effect<void, WriteRefusal>
    readonly discard: (id: string) => Effect.Effect<void>
    /** All of them as JSON Lines; see `RejectedWrites.toJsonLines`. */
    readonly export: () => string
  }
  readonly connect: Effect.Effect<void>
  readonly disconnect: Effect.Effect<void>
  /** Begins anew at once; the way out of ERROR. */
  readonly resetConnection: Effect.Effect<void>
  /** The token from now on: it renews the connection in place, or ends the waiting for one. What comes of it, `status` tells. */
  readonly setAuthToken: (token: string) => Effect.Effect<void>
  /**
   * Ends the connection and deletes this user's data from the device: all of it, or nothing when it fails. The client is closed
   * then; what it was used for is refused.
   */
  readonly logout: (options?: LogoutOptions) => Effect.Effect<void, LogoutFailure>
  /** Waits until the server has all that was written here so far, and this device all that the server opens to it. */
  readonly synced: Effect.Effect<void>
  readonly serverStatus: Effect.Effect<ServerStatus, ConnectionLost | PermissionDenied>
}>() {}

const make = Effect.gen(function*() {
  const config = yield* ClientConfig.ClientConfig
  const replica = yield* Replica.Replica
  const engine = yield* SyncEngine.SyncEngine
  const status = yield* Status
  const queries = yield* Queries
  const write = GridMap.writer(replica, config)
  const discard = (id: string) => Effect.sync(() => void replica.rejected.take(id))
  return TopGunClient.of({
    map: (map) =>
      Effect.sync(() => {
        const declaration = Grid.resolveMap(map)
        return new GridMap.GridMap(declaration, GridMap.access(declaration, replica, engine, write))
      }),
    orMap: (map) =>
      Effect.sync(() => {
        const declaration = Grid.resolveOrMap(map)
        return new GridMap.GridOrMap(declaration, GridMap.access(declaration, replica, engine, write))
      }),
    counter: (counter) =>
      Effect.sync(() => {
        const declaration = Grid.resolveCounter(counter)
        return new GridMap.GridCounter(declaration, GridMap.access(declaration, replica, engine, write))
      }),
    query: <A, Path extends FieldPath<A>>(map: Grid.MapLike<A>, options: QueryOptions<A, Path> = {}) =>
      Effect.gen(function*() {
        const declaration = Grid.resolveMap(map)
        const query = yield* attempt(() => Query.parse(options))
        yield* queries.prepare(declaration, query)
        const open = new OpenQuery<Shown<A, Path>>(declaration.name, query, config.onError)
        yield* Effect.acquireRelease(
          attempt(() => queries.ask(declaration, open)),
          () => Effect.sync(() => open.close())
        )
        return new GridMap.GridQuery(open)
      }),
    count: (map, where) =>
      Effect.flatMap(attempt(() => Query.parse({ where })), (query) => queries.count(Grid.resolveMap(map), query)),
    search: <A>(map: Grid.MapLike<A>, text: string, options?: SearchOptions<A>) =>
      Effect.flatMap(
        attempt(() => searchQuery(text, options)),
        (query) => queries.search(Grid.resolveMap(map), query) as Effect.Effect<ReadonlyArray<SearchHit<A>>, QueryFault>
      ),
    explain: (map, options = {}, by) =>
      Effect.flatMap(attempt(() => Query.parse(options)), (query) => queries.explain(Grid.resolveMap(map), query, by)),
    batch: (build, options) =>
      write((_, concern) => replica.writeAll(() => draftsOf(replica, build), concern, true), options),
    status,
    rejectedWrites: extend(replica.rejected.list, {
      retry: (id: string) =>
        Effect.suspend(() => {
          const rejected = replica.rejected.get(id)
          if (rejected === undefined) return Effect.void
          return Effect.asVoid(Effect.zipLeft(write(again(rejected)), discard(id)))
        }),
      discard,
      export: () => RejectedWrites.toJsonLines(replica.rejected.list.current)
    }),
    connect: engine.connect,
    disconnect: engine.disconnect,
    resetConnection: engine.resetConnection,
    setAuthToken: (token) => Effect.sync(() => engine.giveToken(token)),
    logout: (options) => logout(replica, engine, options),
    synced: engine.synced,
    serverStatus: Effect.provideService(serverStatus, SyncEngine.SyncEngine, engine)
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
): Layer.Layer<TopGunClient, StorageFailure, Storage | Transport> =>
  // Fresh, as no two clients may share a clock.
  layerParts(options).pipe(Layer.provide(Layer.fresh(Device.parts)))
