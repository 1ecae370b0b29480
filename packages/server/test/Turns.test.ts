import { describe, expect, it } from "@effect/vitest"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Turns from "@topgun/server/Turns"
import * as Effect from "effect/Effect"
import { batch, inProcessReady, openMap, put, settled } from "./PlainClient.ts"

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

describe("Turns", () => {
  it("end when enough was done, and begin anew when the event loop has come round", async () => {
    const turns = Turns.make(10)
    expect(turns.isOver()).toBe(false)
    turns.spend(9)
    expect(turns.isOver()).toBe(false)
    turns.spend(5)
    expect(turns.isOver()).toBe(true)
    await turn()
    expect(turns.isOver()).toBe(false)
  })

  it("go on in the order in which they came, as many in each as there is work for", async () => {
    const turns = Turns.make(10)
    const order: Array<string> = []
    const go = (name: string, rest: number): void => {
      order.push(name)
      turns.spend(6)
      if (rest > 0) turns.wait(() => go(name, rest - 1))
    }
    for (const name of ["a", "b", "c"]) turns.wait(() => go(name, 1))
    const sizes: Array<number> = []
    while (order.length < 6) {
      const before = order.length
      await turn()
      sizes.push(order.length - before)
    }
    expect(order).toEqual(["a", "b", "c", "a", "b", "c"])
    expect(Math.max(...sizes)).toBe(2)
  })
})

describe("A client", () => {
  it.effect("makes no other wait for more than a turn, however much it sends at once", () =>
    Effect.gen(function*() {
      const busy = yield* inProcessReady
      const other = yield* inProcessReady
      const messages = 100
      const row = put({ text: "x" })
      const ops = Array.from({ length: 100 }, (_, i) => [`${i}`, row] as const)
      yield* busy.send(...Array.from({ length: messages }, (_, i) => batch("m", "APPLIED", i * 100, ops)))
      yield* other.send({ _tag: "Ping", id: 1 })
      yield* settled
      yield* settled
      expect(other.untaken("Pong")).toBe(1)
      // An `OpAck` has 500 operations or some more, where as many were carried out in one go.
      expect(busy.untaken("OpAck")).toBeLessThan(messages * 100 / 600)
      // And all of it is done in the end, in its order.
      yield* busy.send(openMap("m"))
      yield* busy.take("SyncRoot")
      const sequences: Array<number> = []
      while (busy.untaken("OpAck") > 0) sequences.push(...(yield* busy.take("OpAck")).sequences)
      expect(sequences).toEqual(Array.from({ length: messages * 100 }, (_, i) => i))
    }).pipe(Effect.provide(TopGunServer.layerInProcess())))
})
