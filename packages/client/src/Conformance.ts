/**
 * Looks, in the background, whether what came from the server fits the schemas that this device declares its maps with. What
 * doesn't is kept as it is, as another version of the application may know it, and told of.
 */
import { keyOf, type MapKind } from "@topgun/core/Cell"
import type { ValuesDeclaration } from "@topgun/core/Grid"
import { RecordsMisfit } from "@topgun/core/GridError"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import * as Value from "@topgun/core/Value"
import * as Effect from "effect/Effect"

/** Records looked at in one go: some ms. */
const sliceMax = 500
/** Keys named in one report. */
const namedMax = 10

/** What was found of one map since the last report. */
interface Found {
  count: number
  readonly keys: Array<string>
  readonly issues: string
}

export const make = Effect.fnUntraced(function*(options: {
  readonly recordOf: (map: string, cell: string) => LwwRecord | undefined
  readonly onFault: (fault: unknown) => void
}) {
  const declared = new Map<string, { readonly kind: MapKind; readonly declaration: ValuesDeclaration<unknown> }>()
  const unseen = new Map<string, Set<string>>()
  const found = new Map<string, Found>()
  const work = Effect.unsafeMakeLatch(false)

  const look = (map: string, cell: string): void => {
    const { declaration, kind } = declared.get(map)!
    const record = options.recordOf(map, cell)
    if (record === undefined || record.isTombstone) return
    const issues = declaration.validate(Value.decodeTrusted(record.valueBytes))
    if (issues === undefined) return
    let ofMap = found.get(map)
    if (ofMap === undefined) {
      ofMap = { count: 0, keys: [], issues }
      found.set(map, ofMap)
    }
    ofMap.count++
    if (ofMap.keys.length < namedMax) ofMap.keys.push(keyOf(kind, cell))
  }

  const slice = (): void => {
    let left = sliceMax
    for (const [map, cells] of unseen) {
      for (const cell of cells) {
        if (left-- === 0) return
        cells.delete(cell)
        try {
          look(map, cell)
        } catch (fault) {
          // A schema of the application's that throws.
          options.onFault(fault)
        }
      }
      unseen.delete(map)
    }
    for (const [map, misfits] of found) options.onFault(new RecordsMisfit({ map, ...misfits }))
    found.clear()
    work.unsafeClose()
  }

  yield* Effect.forkScoped(
    Effect.forever(Effect.zipRight(work.await, Effect.zipRight(Effect.sync(slice), Effect.yieldNow())))
  )

  return {
    /** From now on what comes of this map is looked at. */
    declare: (kind: MapKind, declaration: ValuesDeclaration<unknown>): void => {
      if (declaration.hasSchema) declared.set(declaration.name, { kind, declaration })
    },
    /** A record came from the server. */
    arrived: (map: string, cell: string): void => {
      if (!declared.has(map)) return
      const cells = unseen.get(map)
      if (cells === undefined) unseen.set(map, new Set([cell]))
      else cells.add(cell)
      work.unsafeOpen()
    }
  }
})
