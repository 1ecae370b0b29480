import { assert, describe, it } from "@effect/vitest"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import { afterEach, vi } from "vitest"

/** Runs a program against a new server; gives what it printed. */
const run = (program: () => Promise<unknown>): Effect.Effect<ReadonlyArray<string>, unknown> =>
  Effect.gen(function*() {
    const { address } = yield* TopGunServer.TopGunServer
    vi.stubEnv("TOPGUN_URL", `ws://${address!.host}:${address!.port}`)
    const log = vi.spyOn(console, "log").mockImplementation(() => {})
    yield* Effect.promise(program)
    return log.mock.calls.map((line) => line.join(" "))
  }).pipe(Effect.provide(TopGunServer.layer({ port: 0, storage: "memory" })))

describe("the example programs", () => {
  afterEach(() => {
    vi.unstubAllEnvs()
    vi.restoreAllMocks()
  })

  it.live("without Effect: write, are acknowledged, watch", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* run(() => import("@topgun/examples/promise-app")), [
        "Buy milk: to do",
        "at once: Buy milk",
        "acknowledged: APPLIED",
        "Buy milk: done",
        "1 on both sides"
      ])
    }))

  it.live("on Effect: write, are acknowledged, watch", () =>
    Effect.gen(function*() {
      const lines = yield* run(() => import("@topgun/examples/effect-app"))
      // Who watches may be too slow to see what it was before.
      assert.includeMembers([...lines], ["at once: Bake bread", "acknowledged: APPLIED", "Bake bread: done"])
      assert.strictEqual(lines.at(-1), "1 on both sides")
    }))
})
