/** The named maps of one replica. A client opens one store, a server one for each partition that it owns. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type MapKind, prefixLengths } from "./Cell.ts"
import { MapKindMismatch } from "./GridError.ts"
import { LwwMap } from "./LwwMap.ts"
import type { MerkleForest } from "./MerkleTree.ts"
import { OrMap } from "./OrMap.ts"
import { PnCounter } from "./PnCounter.ts"

/** One map: its cells, which merge, confirm, revert and synchronise alike in every kind, and what its kind makes of them. */
export type Crdt =
  | { readonly kind: "lww"; readonly cells: LwwMap }
  | { readonly kind: "or"; readonly cells: LwwMap; readonly orMap: OrMap }
  | { readonly kind: "counter"; readonly cells: LwwMap; readonly counter: PnCounter }

/** A map of one kind. */
export type CrdtOf<Kind extends MapKind> = Extract<Crdt, { readonly kind: Kind }>

/** A replica's maps; plain and synchronous, as it is entered once per record. */
export interface Store {
  /** The map of this name, made at first use. @throws MapKindMismatch when it was made as another kind */
  readonly map: <Kind extends MapKind>(name: string, kind: Kind) => CrdtOf<Kind>
  /** The map of this name, where it was used before. */
  readonly existing: (name: string) => Crdt | undefined
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

/** How many keys of a map have a value; a counter counts as one once it was used. */
export const sizeOf = (crdt: Crdt): number =>
  crdt.kind === "lww" ? crdt.cells.size : crdt.kind === "or" ? crdt.orMap.size : Math.min(1, crdt.cells.recordCount)

/** Stores in memory. */
export const make = Effect.gen(function*() {
  const clock = yield* Effect.clock
  const now = () => clock.unsafeCurrentTimeMillis()
  return CrdtStore.of({
    open: (openOptions) => {
      const maps = new Map<string, Crdt>()
      const create = (name: string, kind: MapKind): Crdt => {
        const tree = openOptions?.tree?.(name)
        const options = tree === undefined ? { now } : { now, tree }
        if (kind === "or") {
          const orMap = new OrMap(options)
          return { kind, cells: orMap.cells, orMap }
        }
        const cells = new LwwMap({ ...options, prefixLength: prefixLengths[kind] })
        return kind === "lww" ? { kind, cells } : { kind, cells, counter: new PnCounter(name, cells) }
      }
      return {
        map: <Kind extends MapKind>(name: string, kind: Kind) => {
          let map = maps.get(name)
          if (map === undefined) {
            map = create(name, kind)
            maps.set(name, map)
          }
          if (map.kind !== kind) throw new MapKindMismatch({ map: name, expected: map.kind, actual: kind })
          return map as CrdtOf<Kind>
        },
        existing: (name) => maps.get(name),
        mapNames: () => Array.from(maps.keys())
      }
    }
  })
})

/** Stores in this process's memory, whose values expire by Effect's `Clock`. */
export const layer: Layer.Layer<CrdtStore> = Layer.effect(CrdtStore, make)
