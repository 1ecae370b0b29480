import { describe, expect, it } from "@effect/vitest"
import { lookMillis, MemoryUse } from "@topgun/server/Capacity"
import type * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"
import { WebSocket } from "ws"
import { batch, inProcessReady, overSocketReady, put, removal } from "./PlainClient.ts"

const mebibyte = 1024 * 1024

/** Memory of which as much is in use as a test says. */
const memoryOf = (totalBytes: number) => {
  const memory = { used: 0 }
  return {
    memory,
    layer: (settings: Partial<ServerConfig.Settings> = {}) =>
      TopGunServer.layer({ port: 0, storage: "memory", ...settings }).pipe(
        Layer.provide(Layer.succeed(MemoryUse, { usedBytes: () => memory.used, totalBytes: () => totalBytes }))
      )
  }
}

/** What an upgrade is answered with. */
const knock = Effect.flatMap(
  TopGunServer.TopGunServer,
  ({ address }) =>
    Effect.async<readonly [status: number, retryAfter: string | undefined]>((resume) => {
      const socket = new WebSocket(`ws://${address!.host}:${address!.port}/ws`)
      socket.on("unexpected-response", (asked, response) => {
        resume(Effect.succeed([response.statusCode!, response.headers["retry-after"]]))
        asked.destroy()
      })
      socket.on("open", () => {
        socket.terminate()
        resume(Effect.succeed([101, undefined]))
      })
      socket.on("error", () => {})
    })
)

describe("A server whose memory is used up", () => {
  it.scoped("takes no new records and connections, goes on with those that are there, and takes all again when there is room", () => {
    const { layer, memory } = memoryOf(1_024 * mebibyte)
    return Effect.gen(function*() {
      const client = yield* overSocketReady
      yield* client.send(batch("m", "APPLIED", 0, [["there", put(1, 1_000)]]))
      yield* client.take("OpAck")

      memory.used = 100 * mebibyte
      yield* TestClock.adjust(lookMillis)
      expect(yield* knock).toEqual([101, undefined])
      memory.used += 1
      yield* TestClock.adjust(lookMillis)
      expect(yield* knock).toEqual([503, "5"])
      yield* client.send(batch("m", "APPLIED", 1, [
        ["there", put(2, 2_000)],
        ["new", put(1, 2_000, 1)],
        ["there", removal(3_000)]
      ]))
      expect(yield* client.take("OpReject")).toMatchObject({ sequence: 2, cause: "Overloaded" })
      expect((yield* client.take("OpAck")).sequences).toEqual([1, 3])

      // Not at once when it falls below: each record freed would let one in.
      memory.used = 96 * mebibyte
      yield* TestClock.adjust(lookMillis)
      expect(yield* knock).toEqual([503, "5"])
      memory.used = 95 * mebibyte
      yield* TestClock.adjust(lookMillis)
      expect(yield* knock).toEqual([101, undefined])
      yield* client.send(batch("m", "APPLIED", 4, [["new", put(1, 4_000)]]))
      expect((yield* client.take("OpAck")).sequences).toEqual([4])
    }).pipe(Effect.provide(layer({ memoryBytesMax: 100 * mebibyte })))
  })

  it.scoped("is one that takes up three quarters of what there is, where nothing else is set", () => {
    const { layer, memory } = memoryOf(1_000 * mebibyte)
    return Effect.gen(function*() {
      memory.used = 750 * mebibyte
      yield* TestClock.adjust(lookMillis)
      expect(yield* knock).toEqual([101, undefined])
      memory.used += 1
      yield* TestClock.adjust(lookMillis)
      expect(yield* knock).toEqual([503, "5"])
    }).pipe(Effect.provide(layer()))
  })
})

describe("A server that has as many records as it may", () => {
  const layer = TopGunServer.layerInProcess({ recordsMax: 3 })

  it.scoped("overwrites and removes those, and takes exactly as many as there is room for", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const { status } = yield* TopGunServer.TopGunServer
      yield* client.send(batch("a", "APPLIED", 0, [["1", put(1)], ["2", put(1)]]))
      yield* client.take("OpAck")
      // One is left: for the first of a key, and for what follows of that key.
      yield* client.send(batch("b", "APPLIED", 2, [["x", put(1)], ["x", put(2, 2_000)], ["y", put(1)]]))
      expect(yield* client.take("OpReject")).toMatchObject({ sequence: 4, cause: "Overloaded" })
      expect((yield* client.take("OpAck")).sequences).toEqual([2, 3])
      yield* client.send(batch("a", "APPLIED", 5, [["1", removal(2_000)], ["2", put(2, 2_000)], ["3", removal(2_000)]]))
      expect(yield* client.take("OpReject")).toMatchObject({ sequence: 7, cause: "Overloaded" })
      expect((yield* client.take("OpAck")).sequences).toEqual([5, 6])
      expect((yield* status).maps.reduce((sum, { records }) => sum + records, 0)).toBe(3)
    }).pipe(Effect.provide(layer)))

  it.scoped("takes a batch as a whole or not at all", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const write = (first: number, atomic: "more" | "end", map: string, ...keys: ReadonlyArray<string>) =>
        batch(map, "APPLIED", first, keys.map((key) => [key, put(1)] as const), { atomic })
      yield* client.send(write(0, "more", "a", "1", "2"), write(2, "end", "b", "1", "2"))
      for (let n = 0; n < 4; n++) yield* client.take("OpReject")
      yield* client.send(write(4, "more", "a", "1", "2"), write(6, "end", "b", "1"))
      expect((yield* client.take("OpAck")).sequences).toEqual([4, 5, 6])
    }).pipe(Effect.provide(layer)))
})
