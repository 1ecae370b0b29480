/**
 * Up to which age of the grid each device has everything, as it has told: what all of them have confirmed needn't be remembered for any of
 * them (`TombstoneGc`). A device is known from its first `Confirmed` on, and forgotten when it has been away for too long, or when there are
 * too many: those first that have confirmed nothing for the longest. A device that isn't known takes maps over anew in which anything was
 * forgotten.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Value from "@topgun/core/Value"
import { type Note, Persistence } from "./Persistence.ts"
import { Tombstones } from "./Tombstones.ts"

/** Devices that are known, at most: some 150 bytes each. */
export const knownMax = 100_000

/** Devices that are noted in one go. */
const keptAtOnce = 250

const space = "confirmed"
const format = 1

const noteOf = (nodeId: string, age: number | undefined): Note => ({
  space,
  key: nodeId,
  value: age === undefined ? undefined : Value.encode([format, age])
})

/** What the devices have confirmed. Plain calls. */
export class Confirmations extends Context.Tag("@topgun/server/Confirmations")<Confirmations, {
  /** Up to which age a device has everything; 0 for one that isn't known. */
  readonly of: (nodeId: string) => number
  /** A device has everything up to an age. */
  readonly confirm: (nodeId: string, age: number) => void
  /** The age up to which all known devices have everything: infinite when none is known. */
  readonly lowest: () => number
  /** Forgets the devices that don't have everything up to an age. Answers how many. */
  readonly forgetBefore: (age: number) => number
  readonly size: () => number
}>() {}

/** Of so many devices at most. */
export const layerOf = (max: number): Layer.Layer<Confirmations, never, Persistence | Tombstones> =>
  Layer.effect(
    Confirmations,
    Effect.gen(function*() {
      const persistence = yield* Persistence
      const { reach } = yield* Tombstones
      /** Those that have confirmed something last come last. */
      const devices = new Map<string, number>()
      for (const [nodeId, note] of persistence.notes.get(space) ?? []) {
        const [, age] = Value.decode(note) as ReadonlyArray<number>
        devices.set(nodeId, age!)
        reach(age!)
      }
      /** Devices of which the database doesn't say yet what is known here. Too little said is safe: a device is asked again. */
      const unkept = new Set<string>()
      let isKeeping = false
      /** Some at a time, one after the other: while the database fails, they aren't in the way of what waits for it. */
      const keep = (): void => {
        if (isKeeping || unkept.size === 0) return
        isKeeping = true
        const some = Array.from(unkept).slice(0, keptAtOnce)
        for (const nodeId of some) unkept.delete(nodeId)
        persistence.append([], () => {
          isKeeping = false
          keep()
        }, { notes: some.map((nodeId) => noteOf(nodeId, devices.get(nodeId))), isPatient: true })
      }
      return Confirmations.of({
        of: (nodeId) => devices.get(nodeId) ?? 0,
        confirm: (nodeId, age) => {
          if ((devices.get(nodeId) ?? -1) >= age) return
          devices.delete(nodeId)
          devices.set(nodeId, age)
          unkept.add(nodeId)
          if (devices.size > max) {
            const [longestAway] = devices.keys()
            devices.delete(longestAway!)
            unkept.add(longestAway!)
          }
          keep()
        },
        lowest: () => {
          let lowest = Number.POSITIVE_INFINITY
          for (const age of devices.values()) lowest = Math.min(lowest, age)
          return lowest
        },
        forgetBefore: (age) => {
          const before = devices.size
          for (const [nodeId, confirmed] of devices) {
            if (confirmed >= age) continue
            devices.delete(nodeId)
            unkept.add(nodeId)
          }
          keep()
          return before - devices.size
        },
        size: () => devices.size
      })
    })
  )

/** Of {@link knownMax} devices at most. */
export const layer: Layer.Layer<Confirmations, never, Persistence | Tombstones> = layerOf(knownMax)
