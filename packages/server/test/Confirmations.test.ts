import { describe, expect, it } from "@effect/vitest"
import * as Confirmations from "@topgun/server/Confirmations"
import * as Persistence from "@topgun/server/Persistence"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as Tombstones from "@topgun/server/Tombstones"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/** A log that says what it is given, and when that is settled. */
const makeLog = Effect.gen(function*() {
  const log = yield* Persistence.Persistence
  const lines: Array<ReadonlyArray<string>> = []
  const settle: Array<() => void> = []
  return {
    lines,
    settle,
    layer: Layer.succeed(Persistence.Persistence, {
      ...log,
      append: (_, settled, more) => {
        lines.push((more?.notes ?? []).map(({ key, value }) => `${value === undefined ? "-" : "+"}${key}`))
        settle.push(() => settled(undefined))
      }
    })
  }
}).pipe(Effect.provide(Persistence.layerMemory))

const over = (log: Layer.Layer<Persistence.Persistence>, max: number) =>
  Confirmations.layerOf(max).pipe(
    Layer.provide(Tombstones.layer),
    Layer.provide([log, ServerConfig.layer()])
  )

describe("What devices have confirmed", () => {
  it.effect("is what they have said last, and the lowest of it counts for all", () =>
    Effect.gen(function*() {
      const log = yield* makeLog
      yield* Effect.gen(function*() {
        const confirmations = yield* Confirmations.Confirmations
        expect(confirmations.lowest()).toBe(Number.POSITIVE_INFINITY)
        confirmations.confirm("a", 5)
        confirmations.confirm("b", 3)
        confirmations.confirm("a", 4)
        expect([confirmations.of("a"), confirmations.of("b"), confirmations.of("c")]).toEqual([5, 3, 0])
        expect(confirmations.lowest()).toBe(3)
        expect(confirmations.forgetBefore(5)).toBe(1)
        expect([confirmations.size(), confirmations.lowest()]).toEqual([1, 5])
      }).pipe(Effect.provide(over(log.layer, 10)))
    }))

  it.effect("is forgotten of who has been away longest, where there are too many", () =>
    Effect.gen(function*() {
      const log = yield* makeLog
      yield* Effect.gen(function*() {
        const confirmations = yield* Confirmations.Confirmations
        for (const nodeId of ["a", "b"]) confirmations.confirm(nodeId, 1)
        confirmations.confirm("a", 2)
        confirmations.confirm("c", 2)
        expect(["a", "b", "c"].map(confirmations.of)).toEqual([2, 0, 2])
      }).pipe(Effect.provide(over(log.layer, 2)))
    }))

  it.effect("is written down some at a time, and waits outside of the line while the database fails", () =>
    Effect.gen(function*() {
      const log = yield* makeLog
      yield* Effect.gen(function*() {
        const confirmations = yield* Confirmations.Confirmations
        confirmations.confirm("first", 1)
        for (let round = 1; round <= 3; round++) {
          for (let n = 0; n < 300; n++) confirmations.confirm(`d${n}`, round)
        }
        confirmations.forgetBefore(2)
        expect(log.lines).toEqual([["+first"]])
        log.settle[0]!()
        expect(log.lines.map(({ length }) => length)).toEqual([1, 250])
        log.settle[1]!()
        expect(log.lines.map(({ length }) => length)).toEqual([1, 250, 51])
        log.settle[2]!()
        expect(log.lines.flat().sort()).toEqual(
          ["+first", "-first", ...Array.from({ length: 300 }, (_, n) => `+d${n}`)].sort()
        )
      }).pipe(Effect.provide(over(log.layer, 1_000)))
    }))
})
