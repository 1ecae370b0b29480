/**
 * The queries of this device's maps, over what is here of them: for each map that is asked, one engine (`LiveQueries`) that hears of
 * each visible change in the step that makes it. A map that nobody asks costs nothing; its indexes are built when it is asked first.
 */
import { ConnectionLost, QueryInvalid } from "@topgun/core/GridError"
import * as LiveQueries from "@topgun/core/LiveQueries"
import type { LwwMap } from "@topgun/core/LwwMap"
import type * as Query from "@topgun/core/Query"
import * as Effect from "effect/Effect"
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
  isSearched = false
  readonly #stop: () => void

  constructor(replica: Replica["Type"], name: string, cells: LwwMap) {
    this.live = new LiveQueries.LiveQueries({
      source: {
        get: (key) => cells.get(key),
        parts: 1,
        visit: (_, visitor) => cells.forEach(visitor),
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

  /** Makes a map ready to be searched, where it is declared to be. */
  const search = (name: string): Effect.Effect<void, QueryInvalid | ConnectionLost> =>
    Effect.gen(function*() {
      const declared = replica.searchOf(name)
      // Who asks is told that it isn't searched.
      if (declared === undefined || engines.get(name)?.isSearched === true) return
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
      const engine = engineOf(name)
      if (engine.isSearched) return
      engine.isSearched = true
      const building = new LiveSearches(engine.live, { fields, language }, analyzer).build()
      while (building.next().done !== true);
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
      replica.searchOf(name) === undefined || engines.get(name)?.isSearched === true,
    search,
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
    /** How many records a query finds, whatever its limit. @throws as `ask` */
    count: (name: string, query: Query.Query): number =>
      once(name, ({ live }) => {
        const counting = live.counting(query)
        let step = counting.next()
        while (step.done !== true) step = counting.next()
        return step.value
      }),
    /** How a query would be answered now. @throws as `ask` */
    explain: (name: string, query: Query.Query): LiveQueries.Explanation =>
      once(name, ({ live }) => live.explain(query)),
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
