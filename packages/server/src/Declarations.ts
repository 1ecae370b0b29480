/** How the maps of a grid are declared, as far as a server has to know: what they are indexed and searched by. */
import { readFile } from "node:fs/promises"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { ConfigInvalid } from "@topgun/core/GridError"
import * as Grid from "@topgun/core/Grid"

/** What is known of a map. */
export type Declared = Pick<Grid.MapDeclaration<unknown>, "indexes" | "search">

/** The maps that are declared, by their names. Without any, nothing is indexed, and nothing is searched. */
export class Declarations extends Context.Reference<Declarations>()("@topgun/server/Declarations", {
  defaultValue: (): { readonly maps: ReadonlyMap<string, Declared> } => ({ maps: new Map() })
}) {}

/** Declarations in code: the ones that clients are made with. */
export const layer = (grid: ReadonlyArray<Grid.Declaration>): Layer.Layer<Declarations> =>
  Layer.succeed(Declarations, {
    maps: new Map(grid.flatMap((declaration) => declaration._tag === "Map" ? [[declaration.name, declaration]] : []))
  })

/** Bytes of a file of declarations, at most. */
const fileBytesMax = 1024 * 1024

/**
 * Declarations of a JSON file, as in `{ "todos": { "indexes": ["done", ["done", "text"]], "search": { "text": 2 } } }`: by the maps'
 * names what `Grid.map` takes in code. It is read at the start: indexes are built then.
 */
export const layerFile = (path: string): Layer.Layer<Declarations, ConfigInvalid> =>
  Layer.unwrapEffect(Effect.gen(function*() {
    const invalid = (what: string) => new ConfigInvalid({ faults: [`the grid's file ${path} ${what}`] })
    const text = yield* Effect.tryPromise({
      try: (signal) => readFile(path, { encoding: "utf8", signal }),
      catch: (cause) => invalid(`cannot be read: ${String(cause)}`)
    })
    if (text.length > fileBytesMax) return yield* invalid(`has more than ${fileBytesMax} characters`)
    const data = yield* Effect.try({
      try: (): unknown => JSON.parse(text.replace(/^\ufeff/, "")),
      catch: (cause) => invalid(`is no JSON: ${String(cause)}`)
    })
    if (typeof data !== "object" || data === null || Array.isArray(data)) {
      return yield* invalid("is no object of maps, such as { \"todos\": { \"indexes\": [\"done\"] } }")
    }
    const faults: Array<string> = []
    const grid = Object.entries(data).flatMap(([name, options]: [string, unknown]) => {
      try {
        if (typeof options !== "object" || options === null || Array.isArray(options)) {
          throw new TypeError("what a map is declared with is an object")
        }
        const unknown = Object.keys(options).find((option) => option !== "indexes" && option !== "search")
        if (unknown !== undefined) throw new TypeError(`"${unknown}" is neither "indexes" nor "search"`)
        return [Grid.map(name, undefined, options as Grid.QueryOptions<unknown>)]
      } catch (fault) {
        if (!(fault instanceof TypeError)) throw fault
        faults.push(`the grid's file ${path}, map ${JSON.stringify(name)}: ${fault.message}`)
        return []
      }
    })
    if (faults.length > 0) return yield* new ConfigInvalid({ faults })
    return layer(grid)
  }))
