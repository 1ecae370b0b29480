/** The named maps of one replica. A client opens one store, a server one for each partition that it owns. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { LwwMap } from "./LwwMap.ts"
import type { MerkleForest } from "./MerkleTree.ts"

/** A replica's maps; plain and synchronous, as it is entered once per record. */
export interface Store {
  /** The map of this name, made at first use. */
  readonly lwwMap: (name: string) => LwwMap
  /** The map of this name, where it was used before. */
  readonly existing: (name: string) => LwwMap | undefined
  readonly mapNames: () => ReadonlyArray<string>
}

/** How a store is opened. */
export interface OpenOptions {
  /** The forest that a map's digests go to; one of the map's own by default. Stores of disjoint partitions share it. */
  readonly tree?: (map: string) => MerkleForest
}

/** Opens stores, whose records expire by Effect's `Clock`. */
export class CrdtStore extends Context.Tag("@topgun/core/CrdtStore")<CrdtStore, {
  readonly open: (options?: OpenOptions) => Store
}>() {}

/** Stores in memory. */
export const make = Effect.gen(function*() {
  const clock = yield* Effect.clock
  const now = () => clock.unsafeCurrentTimeMillis()
  return CrdtStore.of({
    open: (options) => {
      const maps = new Map<string, LwwMap>()
      return {
        lwwMap: (name) => {
          let map = maps.get(name)
          if (map === undefined) {
            const tree = options?.tree?.(name)
            map = new LwwMap(tree === undefined ? { now } : { now, tree })
            maps.set(name, map)
          }
          return map
        },
        existing: (name) => maps.get(name),
        mapNames: () => Array.from(maps.keys())
      }
    }
  })
})

/** Stores in this process's memory, whose values expire by Effect's `Clock`. */
export const layer: Layer.Layer<CrdtStore> = Layer.effect(CrdtStore, make)
