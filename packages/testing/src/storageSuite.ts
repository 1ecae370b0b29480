/**
 * The acceptance suite of `StorageAdapter`: {@link storageCases}, as tests.
 *
 *     storageSuite("memory", () => {
 *       const adapter = StorageAdapter.memory()
 *       return { adapter: () => adapter }
 *     })
 */
// tidy-allow import-house: it is one module, and never runs in a browser.
import { describe, it } from "@effect/vitest"
import { type Medium, storageCases } from "./storageCases.ts"

export type { Medium }

/** Runs the suite; `medium` is asked for a new place for each test. */
export const storageSuite = (name: string, medium: () => Medium | Promise<Medium>): void => {
  describe(`Storage (${name})`, () => {
    for (const { behaviour, run } of storageCases) it(behaviour, () => run(medium))
  })
}
