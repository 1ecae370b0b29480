/** An atomic batch: all of its operations are taken, stored and told of together, or none. */
import { describe, expect, it } from "@effect/vitest"
import * as Protocol from "@topgun/core/Protocol"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/TestClock"
import { batch, inProcessReady, openMap, type PlainClient, put, removal, settled, totals } from "./PlainClient.ts"

const codes = Protocol.closeCodes

const maps = Effect.map(
  Effect.flatMap(TopGunServer.TopGunServer, ({ status }) => status),
  (status) => status.maps.map(({ name, records, root, size }) => ({ name, records, root, size }))
)

type Message = typeof Protocol.OpBatch.Type

/** Operations of one map each, as one atomic batch. */
const atomic = (
  first: number,
  ...parts: ReadonlyArray<
    Pick<Message, "kind" | "map"> & { readonly rows: ReadonlyArray<readonly [key: string, row: Uint8Array]> }
  >
): ReadonlyArray<Message> => {
  let sequence = first
  return parts.map(({ kind, map, rows }, i) => {
    const message = batch(map, "APPLIED", sequence, rows, { kind, atomic: i === parts.length - 1 ? "end" : "more" })
    sequence += rows.length
    return message
  })
}

const sequencesOf = (messages: ReadonlyArray<Message>): ReadonlyArray<number> =>
  messages.flatMap(({ ops }) => ops.map(([sequence]) => sequence))

const readerOf = (...opened: ReadonlyArray<Parameters<typeof openMap>>) =>
  Effect.gen(function*() {
    const reader = yield* inProcessReady
    for (const each of opened) {
      yield* reader.send(openMap(...each))
      yield* reader.take("SyncRoot")
    }
    return reader
  })

const rejectionsOf = (client: PlainClient, count: number) =>
  Effect.forEach(Array.from({ length: count }), () => client.take("OpReject"))

describe("An atomic batch", () => {
  it.effect("is one write, whatever its maps and kinds, and however many messages and frames it takes", () =>
    Effect.gen(function*() {
      const reader = yield* readerOf(["accounts", 1, "lww"], ["tags", 2, "or"], ["hits", 3, "counter"])
      const client = yield* inProcessReady
      const messages = atomic(
        0,
        { map: "accounts", kind: "lww", rows: [["a", put(90)], ["b", put(110)]] },
        { map: "tags", kind: "or", rows: [["a", put("sent", 1)], ["b", put("got", 2)], ["b", removal(2)]] },
        { map: "accounts", kind: "lww", rows: [["c", put(0)]] },
        { map: "hits", kind: "counter", rows: [["hits", totals(2)]] }
      )
      for (const message of messages) {
        yield* settled
        expect(yield* maps).toEqual([])
        expect(reader.untaken("ServerEvent")).toBe(0)
        expect(client.untaken("OpAck")).toBe(0)
        yield* client.send(message)
      }
      const ack = yield* client.take("OpAck")
      expect(ack).toMatchObject({ level: "APPLIED", sequences: [0, 1, 2, 3, 4, 5, 6] })
      expect((yield* maps).map(({ name, records, size }) => [name, records, size])).toEqual([
        ["accounts", 3, 3],
        ["tags", 2, 1],
        ["hits", 1, 1]
      ])
      yield* settled
      const events = yield* Effect.forEach(messages, () => reader.take("ServerEvent"))
      expect(events.map(({ map, records }) => [map, records.map(([key]) => key)])).toEqual(
        messages.map(({ map, ops }) => [map, ops.map(([, key]) => key)])
      )
    }).pipe(Effect.provide(layer)))

  it.effect("with one operation that is refused is refused whole, wherever that one stands", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_000_000)
      const client = yield* inProcessReady
      yield* client.send(batch("a", "APPLIED", 0, [["k", put("before")]]))
      yield* client.take("OpAck")
      const reader = yield* readerOf(["a", 1], ["b", 2])
      const before = yield* maps
      const wrong = [
        ["ClockSkewTooLarge", put("x", 1_060_001)],
        ["MalformedMessage", Uint8Array.of(1, 2, 3)]
      ] as const
      let first = 1
      for (const [cause, row] of wrong) {
        for (let at = 0; at < 4; at++) {
          const rows = [0, 1, 2, 3].map((i) => [`k${i}`, i === at ? row : put(i, 2_000)] as const)
          const messages = atomic(
            first,
            { map: "a", kind: "lww", rows: rows.slice(0, 2) },
            { map: "b", kind: "lww", rows: rows.slice(2) }
          )
          yield* client.send(...messages)
          const rejections = yield* rejectionsOf(client, 4)
          expect(rejections.map(({ sequence }) => sequence)).toEqual(sequencesOf(messages))
          expect(rejections.map((each) => each.cause)).toEqual(
            rows.map((_, i) => i === at ? cause : "WriteRejected")
          )
          const others = rejections.filter((_, i) => i !== at)
          for (const { reason } of others) expect(reason).toContain(`another write of its batch was refused: `)
          first += 4
        }
      }
      yield* settled
      expect(yield* maps).toEqual(before)
      expect(reader.untaken("ServerEvent")).toBe(0)
      expect(client.untaken("OpAck")).toBe(0)
      // The connection goes on, and so does what was refused with the others.
      yield* client.send(...atomic(first, { map: "b", kind: "lww", rows: [["k0", put(0, 2_000)]] }))
      expect((yield* client.take("OpAck")).sequences).toEqual([first])
    }).pipe(Effect.provide(layer)))

  it.effect("is refused whole for one map of another kind, also where the batch itself would make it twice", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* client.send(batch("tags", "APPLIED", 0, [["k", put("x")]], { kind: "or" }))
      yield* client.take("OpAck")
      const before = yield* maps
      const one = { map: "new", kind: "lww", rows: [["k", put("x")]] } as const
      const batches = [
        atomic(1, one, { map: "tags", kind: "lww", rows: [["k", put("x")]] }),
        atomic(3, { map: "tags", kind: "lww", rows: [["k", put("x")]] }, one),
        atomic(5, one, { map: "new", kind: "or", rows: [["k", put("x")]] })
      ]
      for (const messages of batches) {
        yield* client.send(...messages)
        for (const { cause } of yield* rejectionsOf(client, 2)) expect(cause).toBe("MapKindMismatch")
        expect(yield* maps).toEqual(before)
      }
      yield* client.send(...atomic(7, one))
      expect((yield* client.take("OpAck")).sequences).toEqual([7])
    }).pipe(Effect.provide(layer)))

  it.effect("is refused whole where it would make one map more than there may be", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const rows = [["k", put("x")]] as const
      const parts = ["a", "b", "c"].map((map) => ({ map, kind: "lww" as const, rows }))
      yield* client.send(...atomic(0, ...parts))
      for (const { cause } of yield* rejectionsOf(client, 3)) expect(cause).toBe("Overloaded")
      expect(yield* maps).toEqual([])
      yield* client.send(...atomic(3, ...parts.slice(1)))
      expect((yield* client.take("OpAck")).sequences).toEqual([3, 4])
    }).pipe(Effect.provide(TopGunServer.layerInProcess({ mapsMax: 2 }))))

  it.effect("at a concern that can't be met is refused whole", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* client.send(
        batch("a", "PERSISTED", 0, [["k", put("x")]], { atomic: "more" }),
        batch("b", "PERSISTED", 1, [["k", put("x")]], { atomic: "end" })
      )
      for (const { cause, reason } of yield* rejectionsOf(client, 2)) {
        expect(cause).toBe("WriteRejected")
        expect(reason).toContain("keeps its data in memory")
      }
      expect(yield* maps).toEqual([])
    }).pipe(Effect.provide(layer)))

  it.effect("counts operations that lost to newer records as done, and tells nobody of them", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* client.send(batch("a", "APPLIED", 0, [["k", put("new", 2_000)]]))
      yield* client.take("OpAck")
      const reader = yield* readerOf(["a", 1])
      yield* client.send(...atomic(1, { map: "a", kind: "lww", rows: [["k", put("old", 1_000)], ["l", put("x")]] }))
      expect((yield* client.take("OpAck")).sequences).toEqual([1, 2])
      expect((yield* reader.take("ServerEvent")).records.map(([key]) => key)).toEqual(["l"])
    }).pipe(Effect.provide(layer)))

  const begun = batch("a", "APPLIED", 0, [["k", put("x")]], { atomic: "more" })
  const outOfPlace: ReadonlyArray<readonly [what: string, messages: ReadonlyArray<Protocol.ClientMessage>]> = [
    ["a ping", [begun, { _tag: "Ping", id: 1 }]],
    ["a map that is opened", [begun, openMap("a")]],
    ["a batch of its own", [begun, batch("a", "APPLIED", 1, [["k", put("x")]])]],
    ["a part at another concern", [begun, batch("a", "MEMORY", 1, [["k", put("x")]], { atomic: "end" })]],
    ["a part out of order", [begun, batch("a", "APPLIED", 0, [["k", put("x")]], { atomic: "end" })]],
    ["a part without operations", [begun, batch("a", "APPLIED", 1, [], { atomic: "more" })]],
    ["an end without operations", [begun, batch("a", "APPLIED", 1, [], { atomic: "end" })]],
    ["a first part without operations", [batch("a", "APPLIED", 0, [], { atomic: "more" })]]
  ]
  it.effect.each(outOfPlace)(
    "is given up with its connection when something else comes between: %s",
    ([, messages]) =>
      Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* client.send(...messages)
        yield* settled
        expect(client.untaken("Fault")).toBe(1)
        expect((yield* client.closed).code).toBe(codes.outOfPlace)
        expect(client.untaken("OpAck") + client.untaken("Pong") + client.untaken("SyncRoot")).toBe(0)
        expect(yield* maps).toEqual([])
      }).pipe(Effect.provide(layer))
  )

  it.effect("that isn't ended leaves nothing when its connection ends", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* client.send(begun)
      client.connection.close(codes.done, "")
      yield* settled
      const next = yield* inProcessReady
      yield* next.send(batch("b", "APPLIED", 0, [["k", put("x")]], { atomic: "end" }))
      expect((yield* next.take("OpAck")).sequences).toEqual([0])
      expect((yield* maps).map(({ name }) => name)).toEqual(["b"])
    }).pipe(Effect.provide(layer)))

  it.effect("has as many operations as one message may have, and no more", () =>
    Effect.gen(function*() {
      const rowsOf = (count: number) => Array.from({ length: count }, (_, i) => [`k${i}`, put(i)] as const)
      const half = Protocol.batchOperationsMax / 2
      const parts = (second: number) =>
        atomic(
          0,
          { map: "a", kind: "lww", rows: rowsOf(half) },
          { map: "b", kind: "lww", rows: rowsOf(second) }
        )
      const tooMany = yield* inProcessReady
      yield* tooMany.send(...parts(half + 1))
      yield* settled
      expect(tooMany.untaken("OpAck")).toBe(0)
      expect((yield* tooMany.take("Fault")).reason).toContain("at most 500 operations")
      expect((yield* tooMany.closed).code).toBe(codes.outOfPlace)
      expect(yield* maps).toEqual([])
      const client = yield* inProcessReady
      yield* client.send(...parts(half))
      expect((yield* client.take("OpAck")).sequences).toHaveLength(500)
    }).pipe(Effect.provide(layer)))

  it.effect("has as many bytes of keys and records as fit into a frame, and no more, in however many it comes", () =>
    Effect.gen(function*() {
      const text = "x".repeat(200_000)
      const bytes = put(text).length + 1
      const count = Math.floor(Protocol.frameBytesMax / bytes)
      const parts = (more: number) =>
        atomic(
          0,
          ...Array.from({ length: count + more }, (_, i) => ({
            map: `${i}`,
            kind: "lww" as const,
            rows: [["k", put(text)]] as const
          }))
        )
      const tooMuch = yield* inProcessReady
      for (const part of parts(1)) yield* tooMuch.send(part)
      yield* settled
      expect(tooMuch.untaken("Fault")).toBe(1)
      expect((yield* tooMuch.closed).code).toBe(codes.outOfPlace)
      expect(yield* maps).toEqual([])
      const client = yield* inProcessReady
      for (const part of parts(0)) yield* client.send(part)
      expect((yield* client.take("OpAck")).sequences).toHaveLength(count)
    }).pipe(Effect.provide(layer)))
})

const layer = TopGunServer.layerInProcess()
