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
const usual = 60
const count = only === undefined ? number("TOPGUN_MODEL_SEEDS") ?? usual : 1

const circumstancesOf = (seed: number): Circumstances => ({
  devices: 2 + seed % 2,
  isDurable: seed % 4 < 2,
  hasWrongClocks: seed % 5 === 0,
  reorders: seed % 7 === 0
})

/** What must have happened in the usual runs, for them to prove anything. */
const rare = [
  "crashes with operations pending",
  "devices that crashed",
  "devices that were closed",
  "writes whose device crashed before they were kept",
  "writes that could not be stored at first",
  "servers that crashed",
  "servers that were stopped",
  "servers that were restored from a backup",
  "operations that were sent again though they had been taken",
  "records that were given to another server again",
  "writes that were coalesced",
  "writes that were refused",
  "rejected writes that were tried again",
  "rejected writes that were discarded",
  "writes that were stamped anew",
  "writes that were acknowledged as PERSISTED",
  "outcomes that are WriteRejected",
  "outcomes that are WriteTimeout",
  "outcomes that are Indeterminate"
]

describe("devices and a server", () => {
  it.live("keep what they promise, whatever happens", () =>
    Effect.gen(function*() {
      const sightings: Sightings = {}
      const failures: Array<string> = []
      for (let seed = from; seed < from + count; seed++) {
        const exit = yield* Effect.exit(run(seed, circumstancesOf(seed), sightings))
        if (Exit.isFailure(exit)) failures.push(String(Cause.squash(exit.cause)))
      }
      if (failures.length > 0) throw new Error(`${failures.length} of ${count}:\n\n${failures.join("\n\n")}`)
      if (count < usual) return
      if (count > usual) yield* Effect.log(sightings)
      expect(rare.filter((what) => (sightings[what] ?? 0) === 0)).toEqual([])
    }), { timeout: 120_000 + count * 1_000 })
})
