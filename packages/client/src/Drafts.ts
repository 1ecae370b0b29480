/** What a batch, or a rejected write that is tried again, comes to: one draft for each record that it writes. */
import * as Grid from "@topgun/core/Grid"
import { checkAmount } from "@topgun/core/PnCounter"
import * as Value from "@topgun/core/Value"
import type { WriteConcern } from "@topgun/core/WriteConcern"
import type { Batch, CounterRef, MapRef, OrMapRef } from "./Batch.ts"
import type { Writing } from "./MapHandles.ts"
import type { Replica } from "./Replica.ts"
import type { RejectedWrite } from "./Reports.ts"
import type { Draft, LocalWrite } from "./Write.ts"

const declarationOf = <D extends Grid.Declaration>(
  ref: D | string | { readonly declaration: D },
  named: (name: string) => D
): D => typeof ref === "string" ? named(ref) : "declaration" in ref ? ref.declaration : ref

/** What a batch does to a key of a map of records. */
interface Change {
  readonly value: unknown
  readonly draft: Draft
}

/** What a batch adds to a key of a map of sets. */
interface Addition {
  readonly map: string
  readonly key: string
  readonly bytes: Uint8Array
  readonly draft: Draft
}

/** The drafts of what `build` does. @throws WriteRefusal, MapKindMismatch, and whatever `build` throws */
export const draftsOf = (replica: Replica["Type"], build: (batch: Batch) => void): ReadonlyArray<Draft> => {
  const changes = new Map<string, Change>()
  let additions: Array<Addition> = []
  const removals = new Map<string, Draft>()
  const counts = new Map<string, number>()

  const mapOf = <A>(ref: MapRef<A>): Grid.MapDeclaration<A> => {
    const declaration = declarationOf(ref, (name) => Grid.resolveMap<A>(name))
    replica.openMap(declaration.name, "lww")
    return declaration
  }
  const orMapOf = <A>(ref: OrMapRef<A>): Grid.OrMapDeclaration<A> => {
    const declaration = declarationOf(ref, (name) => Grid.resolveOrMap<A>(name))
    replica.openMap(declaration.name, "or")
    return declaration
  }
  const idOf = (map: string, key: string): string => `${map}\0${key}`

  const write = <A>(map: Grid.MapDeclaration<A>, key: string, value: A | undefined, ttlMs?: number): void =>
    void changes.set(idOf(map.name, key), { value, draft: replica.draft(map, key, value, ttlMs) })
  const current = <A>(map: Grid.MapDeclaration<A>, key: string): A | undefined => {
    const changed = changes.get(idOf(map.name, key))
    return (changed === undefined ? replica.openMap(map.name, "lww").cells.get(key) : changed.value) as A | undefined
  }
  const removeValue = <A>(map: Grid.OrMapDeclaration<A>, key: string, value: A): void => {
    const bytes = Value.encode(value)
    additions = additions.filter((added) =>
      added.map !== map.name || added.key !== key || Value.compareBytes(added.bytes, bytes) !== 0
    )
    for (const draft of replica.draftRemoval(map, key, value)) removals.set(idOf(draft.map, draft.cell!), draft)
  }
  const count = (ref: CounterRef, by: number): void => {
    const { name } = declarationOf(ref, Grid.resolveCounter)
    replica.openMap(name, "counter")
    counts.set(name, (counts.get(name) ?? 0) + by)
  }

  build({
    get: (map, key) => current(mapOf(map), key),
    set: (map, key, value, options) => write(mapOf(map), key, value, options?.ttlMs),
    update: (map, key, next, options) => {
      const declaration = mapOf(map)
      write(declaration, key, next(current(declaration, key)), options?.ttlMs)
    },
    remove: <A>(map: MapRef<A> | OrMapRef<A>, key: string, value?: A) =>
      value === undefined
        ? write(mapOf(map as MapRef<A>), key, undefined)
        : removeValue(orMapOf(map as OrMapRef<A>), key, value),
    add: (map, key, value, options) => {
      const declaration = orMapOf(map)
      const draft = replica.draftAddition(declaration, key, value, options?.ttlMs)
      additions.push({ map: declaration.name, key, bytes: Value.encode(value), draft })
    },
    increment: (counter, by = 1) => count(counter, checkAmount(by)),
    decrement: (counter, by = 1) => count(counter, -checkAmount(by))
  })
  return [
    ...Array.from(changes.values(), ({ draft }) => draft),
    ...removals.values(),
    ...additions.map(({ draft }) => draft),
    ...Array.from(counts).filter(([, by]) => by !== 0).map(([name, by]) => replica.draftCount(Grid.counter(name), by))
  ]
}

/** A rejected write once more, as of now. It leaves the list in the transaction that stores it: it is in neither both nor none. */
export const again = (rejected: RejectedWrite): Writing => (replica, concern) => {
  const write = rewrite(rejected, replica, concern)
  // One that waits for room can't be told of yet.
  if (write.isAdmitted) replica.rejected.take(rejected.id)
  return write
}

const rewrite = (
  { change, key, kind, map, ttlMs, value }: RejectedWrite,
  replica: Replica["Type"],
  concern: WriteConcern
): LocalWrite => {
  if (kind === "lww") return replica.write(Grid.map(map), key, () => value, { concern, ttlMs })
  const drafts = () => {
    if (kind === "counter") return value === 0 ? [] : [replica.draftCount(Grid.counter(map), Number(value))]
    // A value that is gone needs no removal.
    if (value === undefined) return []
    const declaration = Grid.orMap(map)
    return change === "add"
      ? [replica.draftAddition(declaration, key, value, ttlMs)]
      : replica.draftRemoval(declaration, key, value)
  }
  return replica.writeAll(drafts, concern, false)
}
