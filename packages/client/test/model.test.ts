/**
 * Devices and a server against a reference, under faults drawn from a seed. `TOPGUN_MODEL_SEEDS=5000` runs more of them, from
 * `TOPGUN_MODEL_FROM` on, and `TOPGUN_MODEL_SEED=17` one.
 */
import { describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { expect } from "vitest"
import { type Circumstances, run, type Sightings } from "./model/run.ts"

const number = (name: string): number | undefined => {
  const text = process.env[name]
  return text === undefined ? undefined : Number(text)
}
const only = number("TOPGUN_MODEL_SEED")
const from = only ?? number("TOPGUN_MODEL_FROM") ?? 1
const count = only === undefined ? number("TOPGUN_MODEL_SEEDS") ?? 40 : 1

const circumstancesOf = (seed: number): Circumstances => ({
  devices: 2 + seed % 2,
  isDurable: seed % 4 < 2,
  hasWrongClocks: seed % 5 === 0,
  reorders: seed % 7 === 0
})

describe("devices and a server", () => {
  it.live("keep what they promise, whatever happens", () =>
    Effect.gen(function*() {
      const sightings: Sightings = {}
      const failures: Array<string> = []
      for (let seed = from; seed < from + count; seed++) {
        const exit = yield* Effect.exit(run(seed, circumstancesOf(seed), sightings))
        if (Exit.isFailure(exit)) failures.push(String(Cause.squash(exit.cause)))
      }
      if (count !== 40) yield* Effect.log(sightings)
      if (failures.length > 0) throw new Error(`${failures.length} of ${count}:\n\n${failures.join("\n\n")}`)
      expect(Object.keys(sightings).length).toBeGreaterThan(3)
    }), { timeout: 3_600_000 })
})
