import { describe, expect, it } from "@effect/vitest"
import * as Persistence from "@topgun/server/Persistence"
import * as ServerConfig from "@topgun/server/ServerConfig"
import { Graveyard, layer, Tombstones } from "@topgun/server/Tombstones"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as fc from "effect/FastCheck"

interface Buried {
  readonly map: string
  readonly cell: string
  readonly millis: number
  readonly counter: number
  readonly age: number
}

const resolution = 10
/** The age at which a tombstone is old enough to be taken. */
const dueAt = (age: number) => (Math.floor(age / resolution) + 1) * resolution

describe("A graveyard", () => {
  it.prop(
    "gives tombstones once they have an age, those that came first before others, each once",
    [fc.array(
      fc.oneof(
        fc.record({ map: fc.constantFrom("a", "b"), cell: fc.constantFrom("1", "2", "3"), age: fc.nat(100) }),
        fc.record({ takeAt: fc.nat(120), max: fc.integer({ min: 1, max: 4 }) }),
        fc.record({ sweep: fc.constantFrom("1", "2", "3") }),
        fc.record({ keep: fc.nat(6) })
      ),
      { maxLength: 60, size: "max" }
    )],
    ([steps]) => {
      const graveyard = new Graveyard(resolution)
      let model: Array<Buried> = []
      let made = 0
      for (const step of steps) {
        if ("map" in step) {
          // Stamps say nothing of ages.
          const record = { millis: 1_000 - made, counter: made++ }
          graveyard.bury(step.map, step.cell, record, step.age)
          model.push({ ...step, ...record })
        } else if ("takeAt" in step) {
          const due = model.filter(({ age }) => dueAt(age) <= step.takeAt)
          const taken = graveyard.take(step.takeAt, step.max)
          if (taken === undefined) {
            expect(due).toEqual([])
            continue
          }
          expect(taken.buried.length).toBeGreaterThan(0)
          expect(taken.buried.length).toBeLessThanOrEqual(step.max)
          const first = Math.min(...due.map(({ age }) => dueAt(age)))
          for (const each of taken.buried) {
            const at = model.findIndex(({ cell, counter, map, millis }) =>
              map === taken.map && cell === each.cell && millis === each.millis && counter === each.counter
            )
            expect(dueAt(model[at]!.age)).toBe(first)
            model.splice(at, 1)
          }
        } else if ("sweep" in step) {
          graveyard.sweep((_, { cell }) => cell !== step.sweep)
          model = model.filter(({ cell }) => cell !== step.sweep)
        } else {
          const bound = graveyard.ageOfOthers(step.keep)
          const younger = model.filter(({ age }) => dueAt(age) > bound)
          expect(younger.length).toBeLessThanOrEqual(step.keep)
          // No more are given up than it takes: with the next stretch there would be too many.
          const next = model.filter(({ age }) => dueAt(age) >= bound)
          if (bound > 0) expect(next.length).toBeGreaterThan(step.keep)
        }
        expect(graveyard.size).toBe(model.length)
      }
    },
    { fastCheck: { numRuns: 1_000 } }
  )
})

describe("What a map has forgotten", () => {
  it.effect("never goes back", () =>
    Effect.gen(function*() {
      const tombstones = yield* Tombstones
      tombstones.forget("m", 100, 5_000)
      tombstones.forget("m", 200, 3_000)
      tombstones.forget("m", 150, 4_000)
      expect(tombstones.forgotten("m")).toEqual({ watermark: 5_000, age: 200 })
      expect(tombstones.forgotten("other")).toEqual({ watermark: 0, age: 0 })
    }).pipe(Effect.provide(layer.pipe(Layer.provide([Persistence.layerMemory, ServerConfig.layer()])))))
})
