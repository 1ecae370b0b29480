/**
 * The queries of this device's maps, over what is here of them: for each map that is asked, one engine (`LiveQueries`) that hears of
 * each visible change in the step that makes it. A map that nobody asks costs nothing; its indexes are built when it is asked first.
 */
import { ConnectionLost, QueryInvalid, QueryTooExpensive } from "@topgun/core/GridError"
import type { FullTextIndex, Highlights } from "@topgun/core/FullText"
import * as LiveQueries from "@topgun/core/LiveQueries"
import type { LiveSearches } from "@topgun/core/LiveSearch"
import type { LwwMap } from "@topgun/core/LwwMap"
import * as Query from "@topgun/core/Query"
import * as Effect from "effect/Effect"
import type { QueryExplanation } from "./QueryTypes.ts"
import type { Replica } from "./Replica.ts"

/** A query that is asked of some source of records. */
export interface Asked {
  readonly live: LiveQueries.Live
  /** Makes what it shows that of this moment. */
  readonly settle: () => void
  readonly close: () => void
}

/** Calls a function at the end of the tick, once however often it is asked for. */
export const atEndOfTick = (run: () => void): () => void => {
  let isDue = false
  return () => {
    if (isDue) return
    isDue = true
    queueMicrotask(() => {
      isDue = false
      run()
    })
  }
}

/** One map's. */
class Engine {
  readonly live: LiveQueries.LiveQueries
  searches: LiveSearches | undefined
  readonly #stop: () => void

  constructor(replica: Replica["Type"], name: string, cells: LwwMap) {
    this.live = new LiveQueries.LiveQueries({
      source: {
        get: (key) => cells.get(key),
        parts: 1,
        visit: (_, visitor) => cells.forEach(visitor),
        find: (_, fields, isWanted, take) => cells.find(fields, isWanted, take),
        size: () => cells.size
      },
      indexes: replica.indexesOf(name),
      onDirty: atEndOfTick(() => this.live.settle())
    })
    const { indexes } = this.live
    if (indexes.specs.length > 0) cells.forEach((key, value) => indexes.set(key, value))
    this.#stop = replica.witness(name, { changed: (key) => this.live.set(key, cells.get(key)) })
  }

  end(): void {
    this.#stop()
  }
}

const nothing: LiveQueries.Source = { get: () => undefined, parts: 0, visit: () => {}, size: () => 0 }

/** What finds text: it comes with the words of a language, when a map is searched first. */
const textSearch = Effect.tryPromise({
  try: () => Promise.all([import("@topgun/core/LiveSearch"), import("@topgun/core/Languages")]),
  catch: (cause) => new ConnectionLost({ reason: "the part of the client that finds text can't be loaded", cause })
})

/** The queries of a replica. */
export const make = (replica: Replica["Type"]) => {
  const engines = new Map<string, Engine>()

  const engineOf = (name: string): Engine => {
    let engine = engines.get(name)
    if (engine === undefined) {
      engine = new Engine(replica, name, replica.openMap(name, "lww").cells)
      engines.set(name, engine)
    }
    return engine
  }
  /** One that nobody asks any more, and that has no indexes, needn't hear of what is written. */
  const rest = (name: string, engine: Engine): void => {
    if (!engine.live.isIdle || engines.get(name) !== engine) return
    engines.delete(name)
    engine.end()
  }

  /** What finds words in a map, as it is declared; `undefined` where that isn't said. */
  const finder = (name: string) =>
    Effect.gen(function*() {
      const declared = replica.searchOf(name)
      if (declared === undefined) return undefined
      const { fields, language } = declared
      const [{ LiveSearches }, Languages] = yield* textSearch
      if (language !== undefined && !Languages.isLanguage(language)) {
        return yield* new QueryInvalid({
          path: "$.search",
          reason: `map "${name}" is declared in ${language}, which isn't one of ${Languages.languages.join(", ")}`
        })
      }
      const analyzer = yield* Effect.tryPromise({
        try: () => Languages.load(language),
        catch: (cause) => new ConnectionLost({ reason: `the words of ${language} can't be loaded`, cause })
      })
      return (queries: LiveQueries.LiveQueries) => new LiveSearches(queries, { fields, language }, analyzer)
    })

  /** Makes a map ready to be searched, where it is declared to be: who asks it else is told that it isn't searched. */
  const search = (name: string): Effect.Effect<void, QueryInvalid | ConnectionLost> =>
    Effect.suspend(() => {
      if (engines.get(name)?.searches !== undefined) return Effect.void
      return Effect.map(finder(name), (over) => {
        const engine = engineOf(name)
        if (over === undefined || engine.searches !== undefined) return rest(name, engine)
        engine.searches = over(engine.live)
        const building = engine.searches.build()
        while (building.next().done !== true);
      })
    })

  /** An index of a map's words: of all that is here where the map is searched here, else of nothing. */
  const indexOf = (name: string): Effect.Effect<FullTextIndex | undefined, QueryInvalid | ConnectionLost> =>
    Effect.suspend(() => {
      const known = engines.get(name)?.searches?.index
      return known === undefined
        ? Effect.map(finder(name), (over) => over?.(new LiveQueries.LiveQueries({ source: nothing })).index)
        : Effect.succeed(known)
    })

  const once = <A>(name: string, look: (engine: Engine) => A): A => {
    const engine = engineOf(name)
    try {
      return look(engine)
    } finally {
      rest(name, engine)
    }
  }

  return {
    /** Whether a map can be searched at once, or never. */
    isSearchable: (name: string): boolean =>
      replica.searchOf(name) === undefined || engines.get(name)?.searches !== undefined,
    search,
    /** Shows where values of a map have what is searched for; nothing where it isn't known by what the map is searched. */
    highlighter: (
      name: string,
      query: Query.Query
    ): Effect.Effect<
      (value: unknown) => ReadonlyArray<Highlights>,
      QueryInvalid | QueryTooExpensive | ConnectionLost
    > =>
      Effect.flatMap(indexOf(name), (index) =>
        Effect.try({
          try: () => {
            const { fields, prefix, text } = Query.searchOf(query)!
            const parsed = index?.parse(text, { fields, prefix })
            return (value: unknown) => parsed === undefined ? [] : index!.highlights(parsed, value)
          },
          catch: (fault) => {
            if (fault instanceof QueryInvalid || fault instanceof QueryTooExpensive) return fault
            throw fault
          }
        })),
    /**
     * Asks a query of a map that is open, which `Query.parse` has passed. `onDelta` is called for each version.
     *
     * @throws QueryInvalid, QueryTooExpensive
     */
    ask: (name: string, query: Query.Query, onDelta: (delta: LiveQueries.Delta) => void): Asked => {
      const engine = engineOf(name)
      try {
        const [live, close] = engine.live.ask(query, onDelta)
        return {
          live,
          settle: () => engine.live.settle(),
          close: () => {
            close()
            rest(name, engine)
          }
        }
      } catch (fault) {
        rest(name, engine)
        throw fault
      }
    },
    /** What a query finds, once. @throws as `ask` */
    rows: (name: string, query: Query.Query): ReadonlyArray<Query.Row> =>
      once(name, ({ live: queries }) => {
        const [live, close] = queries.ask(query, () => {})
        try {
          queries.settle()
          return live.rows
        } finally {
          close()
        }
      }),
    /** How many records a query finds, whatever its limit. @throws as `ask` */
    count: (name: string, query: Query.Query): number =>
      once(name, ({ live }) => {
        const counting = live.counting(query)
        let step = counting.next()
        while (step.done !== true) step = counting.next()
        return step.value
      }),
    /** How a query would be answered now. @throws as `ask` */
    explain: (name: string, query: Query.Query, key?: string): QueryExplanation =>
      once(name, ({ live, searches }) => {
        const isSearched = key !== undefined && query.search !== undefined
        return { ...live.explain(query), score: isSearched ? searches?.explain(query, key) : undefined }
      }),
    /** Queries that are open, and the records that are held for them: both are 0 when nobody asks. */
    size: (): { readonly open: number; readonly held: number; readonly engines: number } => {
      let open = 0
      let held = 0
      for (const { live } of engines.values()) {
        open += live.size
        held += live.held
      }
      return { open, held, engines: engines.size }
    }
  }
}

export type LocalQueries = ReturnType<typeof make>
