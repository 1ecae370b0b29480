/** What a server makes of the three kinds of maps, as its clients see it. */
import { describe, expect, it } from "@effect/vitest"
import * as Cell from "@topgun/core/Cell"
import type { LwwMap } from "@topgun/core/LwwMap"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as MerkleSync from "@topgun/core/MerkleSync"
import { OrMap } from "@topgun/core/OrMap"
import * as Partition from "@topgun/core/Partition"
import * as PnCounter from "@topgun/core/PnCounter"
import { encode } from "@topgun/core/Value"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/TestClock"
import {
  batch,
  inProcessReady,
  openMap,
  overSocketReady,
  peerOver,
  put,
  recordsOf,
  removal,
  serial,
  settled,
  totals
} from "./PlainClient.ts"

const layer = TopGunServer.layerInProcess()

const maps = Effect.map(
  Effect.flatMap(TopGunServer.TopGunServer, ({ status }) => status),
  (status) => status.maps.map(({ name, records, size }) => ({ name, records, size }))
)

const kinds = ["lww", "or", "counter"] as const
/** A row such as a map of this kind has, and a key for it in a map named `m`. */
const samples = {
  lww: ["k", put("x")],
  or: ["k", put("x")],
  counter: ["m", totals(3, 1)]
} as const

const other = "plainclient00001"

describe("A map", () => {
  it.scoped("of each kind takes writes over a WebSocket, and shows them to those who opened it", () =>
    Effect.gen(function*() {
      const writer = yield* overSocketReady
      const reader = yield* overSocketReady
      let sequence = 0
      for (const kind of kinds) {
        yield* reader.send(openMap(kind, 1, kind))
        yield* reader.take("SyncRoot")
        const key = kind === "counter" ? kind : "k"
        const rows = kind === "counter" ? [totals(3, 1), totals(5, 1)] : [put("x", 1_000), put("y", 2_000)]
        const entries = rows.map((row) => [key, row] as const)
        yield* writer.send(batch(kind, "APPLIED", sequence, entries, { kind }))
        expect((yield* writer.take("OpAck")).sequences).toEqual([sequence, sequence + 1])
        sequence += 2
        expect(yield* reader.take("ServerEvent")).toMatchObject({ _tag: "ServerEvent", map: kind, records: entries })
      }
      // Two tags of one key, the later of two records, and the later of a node's two totals.
      expect(yield* maps).toEqual([
        { name: "lww", records: 1, size: 1 },
        { name: "or", records: 2, size: 1 },
        { name: "counter", records: 1, size: 1 }
      ])
    }).pipe(Effect.provide(TopGunServer.layer({ storage: "memory", port: 0 }))))

  it.effect("of tags keeps an addition that a removal hasn't seen, and none that it has, in whatever order they come", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const first = put("x", 1_000)
      const second = put("x", 2_000, 0, other)
      const gone = removal(1_000)
      const orders = [[first, second, gone], [gone, first, second], [second, gone, first], [gone, second, gone, first]]
      for (const [i, rows] of orders.entries()) {
        const entries = rows.map((row) => ["k", row] as const)
        yield* client.send(batch(`tags ${i}`, "APPLIED", i * 10, entries, { kind: "or" }))
        yield* client.take("OpAck")
        yield* client.send(openMap(`tags ${i}`, 1, "or"))
        yield* client.take("SyncRoot")
        const records = yield* recordsOf(client, `tags ${i}`, "or")
        expect(records).toEqual([gone, second].map((row) => [Cell.cellOf("or", "k", LwwRecord.decode(row)), row]))
      }
      const { status } = yield* TopGunServer.TopGunServer
      expect(new Set((yield* status).maps.map(({ root }) => root)).size).toBe(1)
    }).pipe(Effect.provide(layer)))

  it.effect("that counts takes each node's latest totals, and tells nobody of a row that is old or known", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const reader = yield* inProcessReady
      yield* reader.send(openMap("m", 1, "counter"))
      yield* reader.take("SyncRoot")
      const send = (first: number, ...rows: ReadonlyArray<Uint8Array>) =>
        client.send(batch("m", "APPLIED", first, rows.map((row) => ["m", row] as const), { kind: "counter" }))
      yield* send(0, totals(3, 1), totals(7, 0, other), totals(2, 9), totals(3, 2))
      expect((yield* client.take("OpAck")).sequences).toEqual([0, 1, 2, 3])
      expect((yield* reader.take("ServerEvent")).records.map(([, row]) => row)).toEqual([
        totals(3, 1),
        totals(7, 0, other),
        totals(3, 2)
      ])
      yield* send(4, totals(3, 2), totals(1, 0), totals(6, 5, other))
      expect((yield* client.take("OpAck")).sequences).toEqual([4, 5, 6])
      yield* settled
      expect(reader.untaken("ServerEvent")).toBe(0)
      const rows = (yield* recordsOf(reader, "m", "counter")).map(([, row]) => PnCounter.decode(row))
      expect(rows.map(({ decrements, increments }) => [increments, decrements])).toEqual([[3, 2], [7, 0]])
      expect(yield* maps).toEqual([{ name: "m", records: 2, size: 1 }])
    }).pipe(Effect.provide(layer)))

  it.effect("keeps the kind of its first write: writes of another are refused, each by itself, and change nothing", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      for (const kind of kinds) {
        const reader = yield* inProcessReady
        const writer = yield* inProcessReady
        const name = kind === "counter" ? "m" : kind
        const [key, row] = samples[kind]
        yield* writer.send(batch(name, "APPLIED", 0, [[key, row]], { kind }))
        yield* writer.take("OpAck")
        yield* reader.send(openMap(name, 1, kind))
        yield* reader.take("SyncRoot")
        const before = yield* maps
        for (const wrong of kinds) {
          if (wrong === kind) continue
          yield* writer.send(batch(name, "APPLIED", 10 + kinds.indexOf(wrong), [[name, samples[wrong][1]]], {
            kind: wrong
          }))
          const reject = yield* writer.take("OpReject")
          expect(reject.cause).toBe("MapKindMismatch")
          expect(reject.reason).toContain(`is of kind ${kind}, it cannot be used as ${wrong}`)
          yield* client.send(openMap(name, 7, wrong))
          expect(yield* client.take("Fault")).toMatchObject({ id: 7, cause: "MapKindMismatch" })
        }
        yield* settled
        expect(writer.untaken("OpAck")).toBe(0)
        expect(reader.untaken("ServerEvent")).toBe(0)
        expect(client.untaken("SyncRoot")).toBe(0)
        expect(yield* maps).toEqual(before)
      }
      yield* client.send({ _tag: "Ping", id: 1 })
      yield* client.take("Pong")
    }).pipe(Effect.provide(layer)))

  it.effect("shows nothing to those who opened it as another kind before anyone had written to it", () =>
    Effect.gen(function*() {
      const early = yield* inProcessReady
      const reader = yield* inProcessReady
      yield* early.send(openMap("m", 1, "or"))
      yield* early.take("SyncRoot")
      yield* reader.send(openMap("m", 1, "lww"))
      yield* reader.take("SyncRoot")
      const writer = yield* inProcessReady
      yield* writer.send(batch("m", "APPLIED", 0, [["k", put("x")]]))
      yield* reader.take("ServerEvent")
      yield* settled
      expect(early.untaken("ServerEvent")).toBe(0)
      yield* early.send({ _tag: "SyncPull", id: 5, map: "m", node: [Partition.partitionOf("k"), ""], after: null })
      expect(yield* early.take("Fault")).toMatchObject({ id: 5, cause: "MapKindMismatch" })
      yield* early.send({ _tag: "Ping", id: 1 })
      yield* early.take("Pong")
      expect(early.untaken("SyncLeaf")).toBe(0)
    }).pipe(Effect.provide(layer)))

  it.effect("takes no row of another kind than its own, and a counter no key but its name", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const wrong = [
        ["lww", "m", totals(1)],
        ["or", "m", totals(1)],
        ["counter", "m", put("x")],
        ["counter", "m", removal()],
        ["counter", "k", totals(1)],
        ["counter", "", totals(1)]
      ] as const
      for (const [sequence, [kind, key, row]] of wrong.entries()) {
        yield* client.send(batch("m", "APPLIED", sequence, [[key, row]], { kind }))
        expect(yield* client.take("OpReject")).toMatchObject({ sequence, cause: "MalformedMessage" })
      }
      // Nothing of it made a map.
      expect(yield* maps).toEqual([])
      yield* client.send(batch("m", "APPLIED", 100, [["m", totals(1)]], { kind: "counter" }))
      expect((yield* client.take("OpAck")).sequences).toEqual([100])
    }).pipe(Effect.provide(layer)))

  it.effect("of tags refuses an addition from too far in the future, and a counter has no time", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_000_000)
      const client = yield* inProcessReady
      yield* client.send(batch("tags", "APPLIED", 0, [["k", put("x", 1_060_001)], ["k", put("y", 1_060_000)]], {
        kind: "or"
      }))
      expect(yield* client.take("OpReject")).toMatchObject({ sequence: 0, cause: "ClockSkewTooLarge" })
      expect((yield* client.take("OpAck")).sequences).toEqual([1])
      yield* client.send(batch("m", "APPLIED", 2, [["m", totals(1)]], { kind: "counter" }))
      expect((yield* client.take("OpAck")).sequences).toEqual([2])
    }).pipe(Effect.provide(layer)))

  it.effect("of tags is reconciled with a replica both ways, in pages", () =>
    Effect.gen(function*() {
      const writer = yield* inProcessReady
      const text = "x".repeat(2_000)
      // Few keys, many tags: most of a page is one key's.
      const entries = Array.from({ length: 400 }, (_, i) => [`key${i % 3}`, put({ i, text }, 1_000, i)] as const)
      yield* writer.send(batch("tags", "APPLIED", 0, entries.slice(0, 200), { kind: "or" }))
      yield* writer.take("OpAck")
      yield* writer.send(batch("tags", "APPLIED", 200, entries.slice(200), { kind: "or" }))
      yield* writer.take("OpAck")
      const client = yield* inProcessReady
      const local = new OrMap({ now: () => 0 })
      const mine = LwwRecord.put({ millis: 5, counter: 0, nodeId: other }, encode("mine"))
      local.merge("key0", mine)
      for (const [key, row] of entries.slice(0, 100)) local.merge(key, LwwRecord.decode(row))
      const { reconcile } = yield* MerkleSync.MerkleSync
      const replica = replicaOf(local.cells)
      const first = yield* reconcile(replica, serial(peerOver(client, "tags", "or")))
      expect(first).toMatchObject({ equal: false, offers: [Cell.cellOf("or", "key0", mine)] })
      expect(local.recordCount).toBe(401)
      expect(local.getValues("key1")).toHaveLength(133)
      yield* client.send(batch("tags", "APPLIED", 0, [["key0", mine.row]], { kind: "or" }))
      yield* client.take("OpAck")
      const second = yield* reconcile(replica, serial(peerOver(client, "tags", "or")))
      expect(second.equal).toBe(true)
    }).pipe(Effect.provide(layer), Effect.provide(MerkleSync.layer)))

  it.effect("that counts is reconciled with a replica both ways", () =>
    Effect.gen(function*() {
      const writer = yield* inProcessReady
      const rows = Array.from({ length: 100 }, (_, i) => totals(i + 1, 0, `node${String(i).padStart(12, "0")}`))
      yield* writer.send(batch("m", "APPLIED", 0, rows.map((row) => ["m", row] as const), { kind: "counter" }))
      yield* writer.take("OpAck")
      const client = yield* inProcessReady
      const local = new PnCounter.PnCounter("m")
      local.merge(PnCounter.totals(other, 1_000, 0))
      local.merge(PnCounter.totals("node000000000007", 1, 0))
      const { reconcile } = yield* MerkleSync.MerkleSync
      const replica = replicaOf(local.cells)
      const first = yield* reconcile(replica, serial(peerOver(client, "m", "counter")))
      expect(first).toMatchObject({ equal: false, offers: [`${other}m`] })
      expect(local.value).toBe(100 * 101 / 2 + 1_000)
      yield* client.send(batch("m", "APPLIED", 0, [["m", totals(1_000, 0, other)]], { kind: "counter" }))
      yield* client.take("OpAck")
      expect((yield* reconcile(replica, serial(peerOver(client, "m", "counter")))).equal).toBe(true)
    }).pipe(Effect.provide(layer), Effect.provide(MerkleSync.layer)))
})

const replicaOf = (cells: LwwMap): MerkleSync.Replica => ({
  tree: cells.tree,
  record: (cell) => cells.getConfirmed(cell),
  partitionOf: (cell) => cells.partitionOf(cell),
  receive: (records) => {
    for (const [cell, record] of records) cells.merge(cell, record)
  }
})
