import { assert, describe, it } from "@effect/vitest"
import * as Grid from "@topgun/core/Grid"
import * as Declarations from "@topgun/server/Declarations"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { temporaryDir } from "./stores.ts"

/** What a file of this text declares. */
const declared = (text: string) =>
  Effect.gen(function*() {
    const path = join(yield* temporaryDir, "grid.json")
    writeFileSync(path, text)
    const { maps } = yield* Effect.provide(Declarations.Declarations, Declarations.layerFile(path))
    return maps
  }).pipe(Effect.scoped)

const faultsOf = (text: string) => Effect.map(Effect.flip(declared(text)), ({ faults }) => faults)

describe("A grid's file", () => {
  it.effect("declares what the same does in code", () =>
    Effect.gen(function*() {
      const options = {
        indexes: ["done", ["done", "text"], { fields: ["tags"], kind: "inverted" }],
        search: { text: 2 }
      }
      const maps = yield* declared(`\ufeff${JSON.stringify({ todos: options, plain: {} })}`)
      const inCode = yield* Effect.provide(
        Declarations.Declarations,
        Declarations.layer([
          Grid.map("todos", undefined, options as Grid.QueryOptions<unknown>),
          Grid.map("plain"),
          Grid.counter("likes")
        ])
      )
      for (const name of ["todos", "plain"]) {
        const { indexes, search } = maps.get(name)!
        const { indexes: others, search: other } = inCode.maps.get(name)!
        assert.deepStrictEqual({ indexes, search }, { indexes: others, search: other })
      }
      assert.deepStrictEqual(Array.from(inCode.maps.keys()), ["todos", "plain"])
      assert.strictEqual(maps.size, 2)
    }))

  it.effect("is refused with all that is wrong with it", () =>
    Effect.gen(function*() {
      const faults = yield* faultsOf(JSON.stringify({
        a: 7,
        b: null,
        c: { index: ["done"] },
        d: { indexes: [7] },
        e: { indexes: ["fine"] },
        f: { search: { text: -1 } },
        g: []
      }))
      assert.deepStrictEqual(faults.map((fault) => /map "(.)"/.exec(fault)?.[1]), ["a", "b", "c", "d", "f", "g"])
      assert.include(faults[2], "\"index\" is neither \"indexes\" nor \"search\"")
    }))

  it.effect("is refused where it is no JSON, no object, too large, or not to be read", () =>
    Effect.gen(function*() {
      assert.match((yield* faultsOf("{")).join(), /is no JSON/)
      for (const text of ["[]", "null", "7"]) assert.match((yield* faultsOf(text)).join(), /no object of maps/)
      assert.match((yield* faultsOf(" ".repeat(1024 * 1024 + 1))).join(), /more than 1048576 characters/)
      const path = yield* temporaryDir
      mkdirSync(join(path, "directory"))
      for (const name of ["nowhere", "directory"]) {
        const fault = yield* Effect.flip(Layer.build(Declarations.layerFile(join(path, name))))
        assert.match(fault.message, /cannot be read/)
      }
    }).pipe(Effect.scoped))

  it.effect("in a language that there is no analysis of keeps the server from starting", () =>
    Effect.gen(function*() {
      const path = join(yield* temporaryDir, "grid.json")
      writeFileSync(path, JSON.stringify({ todos: { search: { fields: { text: 1 }, language: "klingon" } } }))
      const fault = yield* Effect.flip(Layer.build(TopGunServer.layerInProcess({ gridFile: path })))
      assert.strictEqual(fault._tag, "ConfigInvalid")
      assert.include(fault.message, "klingon")
    }).pipe(Effect.scoped))
})
