import { describe, it } from "@effect/vitest"
import * as Protocol from "@topgun/core/Protocol"
import * as Devices from "@topgun/server/Devices"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import { auth, batch, inProcess, put } from "./PlainClient.ts"

const device = "device0000000000"

describe("Devices", () => {
  type Service = Devices.Devices["Type"]
  const run = (max: number, test: (enter: Service["enter"], kept: Service["kept"]) => void) =>
    Effect.provide(Effect.map(Devices.Devices, ({ enter, kept }) => test(enter, kept)), Devices.layerOf(max))

  it.effect("let a device in by the secret it was given, and by the one before", () =>
    run(10, (enter) => {
      const first = enter(device, null, undefined)!
      // It died before it had stored that.
      const second = enter(device, null, undefined)!
      expect(second).not.toBe(first)
      const third = enter(device, second, undefined)!
      expect(third).not.toBe(second)
      expect(enter(device, second, undefined)).toBeTypeOf("string")
      expect(enter(device, first, undefined)).toBeUndefined()
      expect(enter(device, null, undefined)).toBeUndefined()
    }))

  it.effect("let a device in by any that it may have stored since the one that it showed: it may have died before it said so", () =>
    run(10, (enter, kept) => {
      const first = enter(device, null, undefined)!
      kept(device, first)
      const second = enter(device, first, undefined)!
      // It connects again while that is still on its way to storage, and is killed when it has got there.
      const third = enter(device, first, undefined)!
      const fourth = enter(device, second, undefined)!
      expect(fourth).toBeTypeOf("string")
      // What it has left behind lets nobody in.
      expect(enter(device, first, undefined)).toBeUndefined()
      // That was given later, and may have got there too.
      expect(enter(device, third, undefined)).toBeTypeOf("string")
      kept(device, fourth)
      expect(enter(device, third, undefined)).toBeUndefined()
    }))

  it.effect("remember of a device that never stores any as many as it takes, and no more", () =>
    run(10, (enter) => {
      const given = Array.from({ length: 100 }, () => enter(device, null, undefined)!)
      expect(enter(device, given[0]!, undefined)).toBeUndefined()
      expect(enter(device, given[98]!, undefined)).toBeTypeOf("string")
    }))

  it.effect("tell a copy from its original, whichever comes second", () =>
    run(10, (enter) => {
      const shared = enter(device, null, undefined)!
      const copy = enter(device, shared, undefined)!
      const copyNext = enter(device, copy, undefined)!
      expect(enter(device, shared, undefined)).toBeUndefined()
      expect(enter(device, null, undefined)).toBeUndefined()
      expect(enter(device, "forged", undefined)).toBeUndefined()
      // Who was refused has moved nothing.
      expect(enter(device, copyNext, undefined)).toBeTypeOf("string")
    }))

  it.effect("let nobody in by a secret that is replaced", () =>
    run(10, (enter, kept) => {
      const first = enter(device, null, undefined)!
      kept(device, "another")
      const second = enter(device, null, undefined)!
      kept(device, first)
      kept(device, second)
      expect(enter(device, null, undefined)).toBeUndefined()
      expect(enter(device, first, undefined)).toBeUndefined()
      expect(enter(device, second, undefined)).toBeTypeOf("string")
    }))

  it.effect("are one user's each, from when it is known whose", () =>
    run(10, (enter) => {
      const anonymous = enter(device, null, undefined)!
      const alices = enter(device, anonymous, "alice")!
      expect(enter(device, alices, "mallory")).toBeUndefined()
      expect(enter(device, alices, undefined)).toBeUndefined()
      expect(enter(device, alices, "alice")).toBeTypeOf("string")
    }))

  it.effect("that were away longest are forgotten when there are too many, and believed when they come again", () =>
    run(2, (enter) => {
      const [a, b, c] = ["a", "b", "c"].map((letter) => letter.repeat(16)) as [string, string, string]
      enter(a, null, undefined)
      enter(b, null, undefined)
      enter(a, null, undefined)
      enter(c, null, undefined)
      expect(enter(a, "another", undefined)).toBeUndefined()
      expect(enter(b, "another", undefined)).toBeTypeOf("string")
    }))
})

describe("a node id", () => {
  const layer = TopGunServer.layerInProcess({})

  it.effect("of another storage is refused by name, and the device that has it goes on", () =>
    Effect.gen(function*() {
      const first = yield* inProcess
      yield* first.send(auth)
      const { secret } = yield* first.take("AuthAck")
      const copy = yield* inProcess
      yield* copy.send({ ...auth, secret: "forged" })
      expect((yield* copy.take("Fault")).cause).toBe("NodeIdConflict")
      expect((yield* copy.closed).code).toBe(Protocol.closeCodes.nodeIdConflict)
      yield* first.send(batch("m", "APPLIED", 1, [["k", put(1)]]))
      expect((yield* first.take("OpAck")).sequences).toEqual([1])

      const again = yield* inProcess
      yield* again.send({ ...auth, secret })
      expect((yield* again.take("AuthAck")).secret).not.toBe(secret)
      expect((yield* first.closed).code).toBe(Protocol.closeCodes.replaced)
      yield* again.send({ _tag: "Ping", id: 1 })
      expect((yield* again.take("Pong")).id).toBe(1)
    }).pipe(Effect.provide(layer)))
})
