import { describe, it } from "@effect/vitest"
import type * as Protocol from "@topgun/core/Protocol"
import { Changes } from "@topgun/server/Changes"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { expect } from "vitest"
import { auth, batch, inProcess, inProcessReady, openMap, type PlainClient, put, removal } from "./PlainClient.ts"

describe("Changes", () => {
  it.prop(
    "are those since a number, each cell once, or unknown, whatever was written",
    {
      written: fc.array(fc.tuple(fc.constantFrom("a", "b", "c"), fc.nat(5).map(String)), { maxLength: 40 }),
      max: fc.integer({ min: 1, max: 12 }),
      limit: fc.integer({ min: 1, max: 6 })
    },
    ({ limit, max, written }) => {
      const changes = new Changes(max)
      for (const [map, cell] of written) changes.add(map, cell)
      for (const map of ["a", "b", "c", "none"]) {
        const ofMap = Array.from(written.entries()).filter(([, [name]]) => name === map)
        expect(changes.sequence(map)).toBe(ofMap.length)
        for (let sequence = 0; sequence <= ofMap.length; sequence++) {
          const later = ofMap.slice(sequence)
          const known = changes.since(map, sequence, limit)
          const cells = new Set(later.map(([, [, cell]]) => cell))
          if (known !== undefined) expect(known).toEqual(cells)
          else {
            const isForgotten = later.some(([at]) => at < written.length - max)
            expect(isForgotten || cells.size >= limit, `${map} since ${sequence}`).toBe(true)
          }
        }
        expect(changes.since(map, ofMap.length + 1, limit)).toBeUndefined()
      }
    }
  )

  it("of one map tell nothing of another", () => {
    const changes = new Changes(4)
    changes.add("mine", "k")
    changes.add("secret", "k")
    changes.add("mine", "k")
    expect(changes.sequence("mine")).toBe(2)
  })

  it("of a quiet map are known for ever", () => {
    const changes = new Changes(4)
    changes.add("quiet", "k")
    for (let n = 0; n < 100; n++) changes.add("loud", String(n))
    expect(changes.since("quiet", 1, 10)).toEqual(new Set())
    expect(changes.since("quiet", 0, 10)).toBeUndefined()
    expect(changes.since("loud", 98, 10)).toEqual(new Set(["98", "99"]))
  })
})

describe("a device that was away", () => {
  const layer = TopGunServer.layerInProcess({})
  type Cursor = (typeof Protocol.SyncInit.Type)["cursor"]
  const open = (client: PlainClient, cursor: Cursor, kind: "lww" | "or" = "lww") =>
    Effect.zipRight(
      client.send({ ...openMap("m", 1, kind) as typeof Protocol.SyncInit.Type, cursor }),
      client.take("SyncRoot")
    )

  it.effect("gets what has changed since, and not what it has written itself", () =>
    Effect.gen(function*() {
      const device = yield* inProcess
      yield* device.send(auth)
      const { run } = yield* device.take("AuthAck")
      const other = yield* inProcessReady
      yield* other.send(batch("m", "APPLIED", 1, [["a", put(1)], ["b", put(1)]]))
      yield* other.take("OpAck")
      const first = yield* open(device, null)
      expect(first.records).toEqual([])
      expect(first.partitions).not.toBeNull()
      yield* device.send(batch("m", "APPLIED", 1, [["c", put(1)]]))
      yield* device.take("OpAck")
      yield* other.send(batch("m", "APPLIED", 3, [["b", put(2, 2_000, 0, "other00000000000")]]))
      yield* other.take("OpAck")
      const event = yield* device.take("ServerEvent")
      expect(event.sequence).toBe(4)

      const since = yield* open(device, [run, first.sequence])
      expect(since.partitions).toBeNull()
      expect(since.sequence).toBe(4)
      expect(since.records.map(([key]) => key)).toEqual(["b"])
      expect((yield* open(device, [run, event.sequence])).records).toEqual([])
      for (const unknown of [["another run", first.sequence], [run, 99]] as const) {
        expect((yield* open(device, unknown)).partitions).not.toBeNull()
      }
    }).pipe(Effect.provide(layer)))

  it.effect("hears who removed what it had added to a set", () =>
    Effect.gen(function*() {
      const device = yield* inProcess
      yield* device.send(auth)
      const { run } = yield* device.take("AuthAck")
      yield* device.send(batch("m", "APPLIED", 1, [["k", put(1)]], { kind: "or" }))
      yield* device.take("OpAck")
      const other = yield* inProcessReady
      yield* other.send(batch("m", "APPLIED", 1, [["k", removal()]], { kind: "or" }))
      yield* other.take("OpAck")
      const since = yield* open(device, [run, 1], "or")
      expect(since.records).toEqual([["k", removal()]])
    }).pipe(Effect.provide(layer)))
})
