/**
 * The queries of this client. A map that is downloaded is asked here: what is here is what the server would answer. One that isn't is asked
 * of the server, beside what this device has written to it.
 */
import type * as Grid from "@topgun/core/Grid"
import { ClientClosed, ConnectionLost, MapKindMismatch, QueryInvalid, QueryTooExpensive } from "@topgun/core/GridError"
import * as Predicate from "@topgun/core/Predicate"
import * as Query from "@topgun/core/Query"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { ClientConfig } from "./ClientConfig.ts"
import * as LocalQueries from "./LocalQueries.ts"
import { atEndOfTick } from "./LocalQueries.ts"
import { call } from "./OnDemand.ts"
import type { Ask, OpenQuery, QueryFault } from "./OpenQuery.ts"
import type { QueryExplanation, SearchHit, SearchOptions } from "./QueryTypes.ts"
import type { RemoteQueries } from "./RemoteQueries.ts"
import { Replica } from "./Replica.ts"
import { SyncEngine } from "./SyncEngine.ts"

/** Whom to ask how a query is answered. */
export interface ExplainOptions {
  /** The server. @default this device */
  readonly server?: boolean | undefined
  /** Of a search, the record whose score is explained. */
  readonly key?: string | undefined
}

/** Hits of a search where nothing is said of their number. */
const hitsMax = 10

/** The query that a search stands for. @throws QueryInvalid, QueryTooExpensive */
export const searchQuery = <A>(text: string, { fields, limit = hitsMax, prefix }: SearchOptions<A> = {}): Query.Query =>
  Query.parse({
    search: { text, ...fields === undefined ? {} : { fields }, ...prefix === undefined ? {} : { prefix } },
    limit
  })

/** Whether something that was thrown is an error of a question. */
export const isQueryFault = (fault: unknown): fault is QueryFault =>
  fault instanceof QueryInvalid || fault instanceof QueryTooExpensive || fault instanceof MapKindMismatch ||
  fault instanceof ConnectionLost || fault instanceof ClientClosed

/** Fails with what a call threw, where that is an error of a question. */
export const attempt = <A>(run: () => A): Effect.Effect<A, QueryFault> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(run())
    } catch (fault) {
      return isQueryFault(fault) ? Effect.fail(fault) : Effect.die(fault)
    }
  })

/** A query that is open, whatever its rows show. */
type Open = Pick<OpenQuery<unknown>, "map" | "query" | "ask" | "fail" | "look" | "end" | "onClose">

const make = Effect.gen(function*() {
  const { localOnly } = yield* ClientConfig
  const replica = yield* Replica
  const engine = yield* SyncEngine
  const local = LocalQueries.make(replica)
  const scope = yield* Effect.scope
  const run = yield* FiberSet.makeRuntime<never>()
  /** There as soon as a map is asked that isn't downloaded: most applications have none. */
  let remote: RemoteQueries | undefined
  const inTurn = Effect.unsafeMakeSemaphore(1).withPermits(1)
  const loadRemote: Effect.Effect<void, ConnectionLost> = inTurn(
    Effect.suspend(() =>
      remote !== undefined ? Effect.void : Effect.tryPromise({
        try: () => import("./RemoteQueries.ts"),
        catch: (cause) =>
          new ConnectionLost({ reason: "the part of the client that asks servers can't be loaded", cause })
      }).pipe(
        Effect.flatMap(({ make: makeRemote }) => Scope.extend(makeRemote(replica, engine), scope)),
        Effect.map((made) => {
          remote = made
        })
      )
    )
  )
  /** Those that are open, and whether they are asked here. */
  const open = new Map<Open, boolean>()
  /** How the maps that were asked stand, as far as it was told. */
  const inStep = new Map<string, boolean>()

  const isAskedHere = (map: string): boolean => localOnly || replica.opened().get(map)?.isFollowed !== false
  const isInStep = (map: string): boolean => localOnly || engine.mapStatus(map).isSynced

  const askHere = (map: string): Ask => (query, onDelta) => {
    // What is selected is the handle's affair, so that queries that differ in that alone are one.
    const { select: _, ...evaluated } = query
    const asked = local.ask(map, evaluated, onDelta)
    return {
      ...asked,
      isAnswered: () => true,
      isComplete: () => isInStep(map),
      hasMore: () => asked.live.hasMore,
      refusal: () => undefined
    }
  }
  const askServer = (map: string): Ask => (query, onDelta, onStatus) => {
    const asked = remote!.ask(map, query, { onDelta, onStatus })
    return { ...asked, hasMore: () => asked.hasMore() || asked.live.hasMore }
  }
  const askOf = (map: string): Ask => isAskedHere(map) ? askHere(map) : askServer(map)

  const isReady = (map: string, { search, where }: Query.Query): boolean =>
    (where === undefined || Predicate.isLoaded(where)) &&
    (isAskedHere(map) ? search === undefined || local.isSearchable(map) : remote !== undefined)
  const prepare = (map: string, { search, where }: Query.Query): Effect.Effect<void, QueryFault> =>
    Effect.zipRight(
      where === undefined ? Effect.void : Predicate.load(where),
      Effect.suspend((): Effect.Effect<void, QueryFault> =>
        !isAskedHere(map) ? loadRemote : search === undefined ? Effect.void : local.search(map)
      )
    )
  const opened = (declaration: Grid.MapDeclaration<unknown>): Effect.Effect<void, QueryFault> =>
    Effect.asVoid(attempt(() => replica.openDeclared(declaration)))

  /** Has it answered at once or, where what it takes is still to be loaded, after that. @throws as `ask` */
  const answer = (query: Open): void => {
    const { map } = query
    if (isReady(map, query.query)) return query.ask(askOf(map))
    run(Effect.match(prepare(map, query.query), { onFailure: query.fail, onSuccess: () => answerOrFail(query) }))
  }
  const answerOrFail = (query: Open): void => {
    try {
      answer(query)
    } catch (fault) {
      if (!isQueryFault(fault)) throw fault
      query.fail(fault)
    }
  }

  const endAll = (): void => {
    for (const each of Array.from(open.keys())) each.end()
  }
  const look = atEndOfTick(() => {
    for (const each of Array.from(open.keys())) each.look()
  })
  const stops = [
    engine.observe(() => {
      let isOther = false
      for (const [map, was] of inStep) {
        const is = isInStep(map)
        if (is === was) continue
        inStep.set(map, is)
        isOther = true
      }
      if (isOther) look()
    }, () => {}),
    replica.observe({
      onChange: () => {
        if (replica.isGone()) endAll()
      },
      onMapOpened: (map) => {
        const isHere = isAskedHere(map)
        for (const [each, wasHere] of Array.from(open)) {
          if (each.map !== map || isHere === wasHere) continue
          open.set(each, isHere)
          answerOrFail(each)
        }
      }
    })
  ]
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      stops.forEach((stop) => stop())
      endAll()
    })
  )

  return {
    /** Loads what it takes to answer a query, and opens its map. */
    prepare: (declaration: Grid.MapDeclaration<unknown>, query: Query.Query): Effect.Effect<void, QueryFault> =>
      Effect.zipRight(opened(declaration), prepare(declaration.name, query)),
    /**
     * Has a query answered until it is closed: at once, where it was prepared.
     *
     * @throws QueryInvalid, QueryTooExpensive, MapKindMismatch, ClientClosed
     */
    ask: (declaration: Grid.MapDeclaration<unknown>, query: Open): void => {
      const { name } = declaration
      replica.openDeclared(declaration)
      answer(query)
      open.set(query, isAskedHere(name))
      if (!inStep.has(name)) inStep.set(name, isInStep(name))
      query.onClose(() => open.delete(query))
    },
    /** How many records a query finds, whatever its limit. */
    count: (declaration: Grid.MapDeclaration<unknown>, query: Query.Query): Effect.Effect<number, QueryFault> =>
      Effect.gen(function*() {
        yield* opened(declaration)
        const { name } = declaration
        if (!isAskedHere(name)) {
          return yield* Effect.provideService(call((calls) => calls.count(name, query)), SyncEngine, engine)
        }
        yield* prepare(name, query)
        return yield* attempt(() => local.count(name, query))
      }),
    /** How a query is answered: here, unless the server is asked. */
    explain: (
      declaration: Grid.MapDeclaration<unknown>,
      query: Query.Query,
      { key, server = false }: ExplainOptions = {}
    ): Effect.Effect<QueryExplanation, QueryFault> =>
      Effect.gen(function*() {
        const { name } = declaration
        if (server) {
          const { score, ties, ...explanation } = yield* Effect.provideService(
            call((calls) => calls.explain(name, query, key)),
            SyncEngine,
            engine
          )
          return { ...explanation, score: score ?? undefined, ties: ties ?? undefined }
        }
        yield* opened(declaration)
        yield* prepare(name, query)
        return yield* attempt(() => local.explain(name, query, key))
      }),
    /** The records that match a search best, once: here, of a map that is downloaded, else on the server. */
    search: (
      declaration: Grid.MapDeclaration<unknown>,
      query: Query.Query
    ): Effect.Effect<ReadonlyArray<SearchHit<unknown>>, QueryFault> =>
      Effect.gen(function*() {
        yield* opened(declaration)
        const { name } = declaration
        const rows = isAskedHere(name)
          ? yield* Effect.zipRight(prepare(name, query), attempt(() => local.rows(name, query)))
          : yield* Effect.provideService(call((calls) => calls.query(name, query)), SyncEngine, engine)
        const highlightsOf = yield* local.highlighter(name, query)
        return rows.map(({ key, score, value }) => ({ key, value, score: score ?? 0, highlights: highlightsOf(value) }))
      }),
    /** What is open, and kept for it: nothing, when all is closed. */
    size: (): { readonly open: number; readonly asked: number; readonly held: number } => {
      const { held, open: asked } = local.size()
      return { open: open.size, asked: asked + (remote?.size() ?? 0), held }
    }
  }
})

/** The queries of this client. */
export class Queries extends Context.Tag("@topgun/client/Queries")<Queries, Effect.Effect.Success<typeof make>>() {}

export const layer: Layer.Layer<Queries, never, ClientConfig | Replica | SyncEngine> = Layer.scoped(Queries, make)
