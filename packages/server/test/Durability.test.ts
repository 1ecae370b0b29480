/** What a server promises of its database, seen from its clients. */
import { describe, expect, it } from "@effect/vitest"
import * as CrdtStore from "@topgun/core/CrdtStore"
import { StorageUnavailable } from "@topgun/core/GridError"
import * as Hlc from "@topgun/core/Hlc"
import * as MerkleSync from "@topgun/core/MerkleSync"
import * as PartitionRouter from "@topgun/core/PartitionRouter"
import * as Protocol from "@topgun/core/Protocol"
import * as Persistence from "@topgun/server/Persistence"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"
import { batch, inProcessReady, openMap, put, recordsOf, removal, totals } from "./PlainClient.ts"
import { onEachStore } from "./stores.ts"

const turn = Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))

const statusOf = Effect.flatMap(TopGunServer.TopGunServer, ({ status }) => status)

/** No database has an order of maps that it owes. */
const byName = <A extends { readonly name: string }>(maps: ReadonlyArray<A>): ReadonlyArray<A> =>
  maps.slice().sort((a, b) => a.name < b.name ? -1 : 1)

onEachStore("A server with", ({ make }) => {
  it.scoped("holds after a restart everything that it called durable, root for root", () =>
    Effect.gen(function*() {
      const server = TopGunServer.layerInProcess((yield* make).settings)
      const before = yield* Effect.gen(function*() {
        const client = yield* inProcessReady
        const rows = Array.from({ length: 300 }, (_, i) => [`key${i}`, put({ i }, 1_000 + i)] as const)
        yield* client.send(batch("todos", "APPLIED", 0, rows))
        yield* client.send(batch("notes", "PERSISTED", 300, rows))
        expect(yield* client.take("OpAck")).toMatchObject({ level: "APPLIED" })
        expect(yield* client.take("OpAck")).toMatchObject({ level: "PERSISTED" })
        while ((yield* client.take("Durable")).sequence < 599);
        return yield* statusOf
      }).pipe(Effect.provide(server))
      const after = yield* Effect.provide(statusOf, server)
      expect(byName(after.maps)).toEqual(byName(before.maps))
      expect(after.nodeId).toBe(before.nodeId)
      expect(after.maps.map(({ records }) => records)).toEqual([300, 300])
    }))

  it.scoped("holds after a restart the tags, removals and totals of maps of every kind, and their kinds", () =>
    Effect.gen(function*() {
      const server = TopGunServer.layerInProcess((yield* make).settings)
      const [mine, other] = ["plainclient00000", "plainclient00001"] as const
      const contents = [
        ["tags", "or", [["k", put("x", 1)], ["k", put("y", 2)], ["l", put("z", 3)], ["k", removal(1)]]],
        ["hits", "counter", [["hits", totals(3, 1, mine)], ["hits", totals(7, 0, other)], [
          "hits",
          totals(5, 1, mine)
        ]]],
        ["plain", "lww", [["k", put("x", 1)], ["k", put("y", 2)]]]
      ] as const
      const recordsIn = Effect.gen(function*() {
        const client = yield* inProcessReady
        const records = []
        for (const [map, kind] of contents) {
          yield* client.send(openMap(map, 1, kind))
          yield* client.take("SyncRoot")
          records.push(yield* recordsOf(client, map, kind))
        }
        return records
      })
      const before = yield* Effect.gen(function*() {
        const client = yield* inProcessReady
        let sequence = 0
        for (const [map, kind, rows] of contents) {
          yield* client.send(batch(map, "PERSISTED", sequence, rows, { kind }))
          sequence += rows.length
          expect((yield* client.take("OpAck")).level).toBe("PERSISTED")
        }
        // Older rows that come again.
        yield* client.send(batch("tags", "PERSISTED", 50, [["k", put("x", 1)]], { kind: "or" }))
        yield* client.take("OpAck")
        yield* client.send(batch("hits", "PERSISTED", 51, [["hits", totals(4, 1, mine)]], { kind: "counter" }))
        yield* client.take("OpAck")
        return { maps: (yield* statusOf).maps, records: yield* recordsIn }
      }).pipe(Effect.provide(server))
      expect(before.records.map(({ length }) => length)).toEqual([3, 2, 1])
      yield* Effect.gen(function*() {
        expect(byName((yield* statusOf).maps)).toEqual(byName(before.maps))
        expect(yield* recordsIn).toEqual(before.records)
        const client = yield* inProcessReady
        for (const [i, [map, kind]] of contents.entries()) {
          const wrong = kind === "lww" ? "or" : "lww"
          yield* client.send(batch(map, "APPLIED", i, [[map, put("x", 9)]], { kind: wrong }))
          expect((yield* client.take("OpReject")).cause).toBe("MapKindMismatch")
        }
      }).pipe(Effect.provide(server))
    }))

  it.scoped("holds after a restart an atomic batch whole, and nothing of one that was refused", () =>
    Effect.gen(function*() {
      const server = TopGunServer.layerInProcess((yield* make).settings)
      yield* Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* client.send(
          batch("accounts", "PERSISTED", 0, [["a", put(90)], ["b", put(110)]], { atomic: "more" }),
          batch("tags", "PERSISTED", 2, [["k", put("sent")]], { kind: "or", atomic: "end" }),
          batch("refused", "PERSISTED", 3, [["a", put(1)]], { atomic: "more" }),
          batch("accounts", "PERSISTED", 4, [["c", put(1)], ["d", Uint8Array.of(1)]], { atomic: "end" })
        )
        for (const sequence of [3, 4, 5]) expect((yield* client.take("OpReject")).sequence).toBe(sequence)
        expect(yield* client.take("OpAck")).toMatchObject({ level: "PERSISTED", sequences: [0, 1, 2] })
        while ((yield* client.take("Durable")).sequence < 5);
      }).pipe(Effect.provide(server))
      expect(byName((yield* Effect.provide(statusOf, server)).maps).map(({ name, records }) => [name, records]))
        .toEqual([
          ["accounts", 2],
          ["tags", 1]
        ])
    }))

  it.scoped("acknowledges PERSISTED after the commit only, for a write that lost as well", () =>
    Effect.gen(function*() {
      const { settings } = yield* make
      yield* Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* client.send(
          batch("todos", "APPLIED", 0, [["1", put("new", 2_000)]]),
          batch("todos", "PERSISTED", 1, [["1", put("old", 1_000)]])
        )
        const applied = yield* client.take("OpAck")
        expect(applied).toMatchObject({ level: "APPLIED", sequences: [0] })
        expect(client.untaken("OpAck")).toBe(0)
        expect(yield* client.take("OpAck")).toMatchObject({ level: "PERSISTED", sequences: [1] })
        expect((yield* client.take("Durable")).sequence).toBe(1)
      }).pipe(Effect.provide(TopGunServer.layerInProcess(settings)))
    }))

  it.scoped("says of refused writes too that nothing more is to be waited for", () =>
    Effect.gen(function*() {
      const { settings } = yield* make
      yield* Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* client.send(batch("todos", "REPLICATED", 3, [["1", put("x")]]))
        expect((yield* client.take("OpReject")).sequence).toBe(3)
        expect((yield* client.take("Durable")).sequence).toBe(3)
      }).pipe(Effect.provide(TopGunServer.layerInProcess(settings)))
    }))

  it.scoped("saves and acknowledges what is in hand before it goes away", () =>
    Effect.gen(function*() {
      const server = TopGunServer.layerInProcess((yield* make).settings)
      const client = yield* Effect.provide(
        Effect.tap(inProcessReady, ({ send }) =>
          Effect.zipRight(send(batch("todos", "PERSISTED", 0, [["1", put("x")]])), Effect.yieldNow())),
        server
      )
      expect(yield* client.take("OpAck")).toMatchObject({ level: "PERSISTED" })
      expect((yield* client.closed).code).toBe(Protocol.closeCodes.goingAway)
      expect((yield* Effect.provide(statusOf, server)).maps).toMatchObject([{ name: "todos", size: 1 }])
    }))
})

describe("A server whose database fails", () => {
  it.effect("acknowledges nothing, cuts off the writer that waits, and keeps serving", () => {
    const { control, layer } = makeFlaky()
    return Effect.gen(function*() {
      const reader = yield* inProcessReady
      yield* reader.send(openMap("todos"))
      yield* reader.take("SyncRoot")
      const writer = yield* inProcessReady
      control.failing = true
      yield* writer.send(batch("todos", "PERSISTED", 0, [["1", put("x")]]))
      expect(yield* writer.take("Fault")).toMatchObject({ id: null, cause: "StorageUnavailable" })
      expect((yield* writer.closed).code).toBe(Protocol.closeCodes.overloaded)
      expect(writer.untaken("OpAck") + writer.untaken("Durable")).toBe(0)

      yield* reader.send({ _tag: "Ping", id: 1 })
      yield* reader.take("Pong")
    }).pipe(Effect.provide(layer))
  })

  it.effect("goes on with writers who were promised no more than they got, and tells them when it is saved", () => {
    const { control, layer } = makeFlaky()
    return Effect.gen(function*() {
      const writer = yield* inProcessReady
      control.failing = true
      yield* writer.send(batch("todos", "APPLIED", 0, [["1", put("x")]]))
      expect(yield* writer.take("OpAck")).toMatchObject({ level: "APPLIED", sequences: [0] })
      // At the next turn it has failed once.
      yield* turn
      yield* writer.send(batch("todos", "APPLIED", 1, [["2", put("x")]]))
      expect(yield* writer.take("OpAck")).toMatchObject({ level: "APPLIED", sequences: [1] })
      yield* TestClock.adjust(Persistence.retryMillis.first)
      yield* turn
      expect(writer.untaken("Fault") + writer.untaken("Durable")).toBe(0)
      control.failing = false
      yield* TestClock.adjust(Persistence.retryMillis.last)
      yield* turn
      while ((yield* writer.take("Durable")).sequence < 1);
      expect(control.committed).toEqual(["1", "2"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("commits an atomic batch in one transaction, and acknowledges none of it before", () => {
    const { control, layer } = makeFlaky()
    return Effect.gen(function*() {
      const gate = Effect.unsafeMakeLatch(false)
      control.gate = gate.await
      const client = yield* inProcessReady
      yield* client.send(batch("a", "PERSISTED", 0, [["1", put("x")], ["2", put("x")]], { atomic: "more" }))
      yield* turn
      expect(control.transactions).toBe(0)
      yield* client.send(batch("b", "PERSISTED", 2, [["3", put("x")]], { kind: "or", atomic: "end" }))
      yield* turn
      expect(client.untaken("OpAck")).toBe(0)
      yield* gate.open
      expect(yield* client.take("OpAck")).toMatchObject({ level: "PERSISTED", sequences: [0, 1, 2] })
      expect(control.committed).toHaveLength(3)
      expect(control.transactions).toBe(1)
    }).pipe(Effect.provide(layer))
  })

  it.effect("acknowledges nothing of an atomic batch that isn't committed, and cuts off its writer", () => {
    const { control, layer } = makeFlaky()
    return Effect.gen(function*() {
      const writer = yield* inProcessReady
      control.failing = true
      yield* writer.send(
        batch("a", "PERSISTED", 0, [["1", put("x")]], { atomic: "more" }),
        batch("b", "PERSISTED", 1, [["2", put("x")]], { atomic: "end" })
      )
      expect((yield* writer.take("Fault")).cause).toBe("StorageUnavailable")
      expect((yield* writer.closed).code).toBe(Protocol.closeCodes.overloaded)
      expect(writer.untaken("OpAck") + writer.untaken("OpReject") + writer.untaken("Durable")).toBe(0)
      expect(control.committed).toEqual([])
    }).pipe(Effect.provide(layer))
  })

  it.effect("acknowledges the write that is sent again once the record of the first time is committed", () => {
    const { control, layer } = makeFlaky()
    return Effect.gen(function*() {
      control.failing = true
      const row = put("x")
      const first = yield* inProcessReady
      yield* first.send(batch("todos", "PERSISTED", 0, [["1", row]]))
      yield* first.closed

      const second = yield* inProcessReady
      yield* second.send(batch("todos", "PERSISTED", 0, [["1", row]]))
      yield* turn
      expect(second.untaken("OpAck")).toBe(0)
      expect(control.committed).toEqual([])
      control.failing = false
      yield* TestClock.adjust(Persistence.retryMillis.first)
      expect(yield* second.take("OpAck")).toMatchObject({ level: "PERSISTED", sequences: [0] })
      expect(control.committed).toEqual(["1"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("merges no more than it may owe the database, and goes on when the debt is paid", () => {
    const { control, layer } = makeFlaky({ pendingCommitsMax: 2 })
    return Effect.gen(function*() {
      const gate = Effect.unsafeMakeLatch(false)
      control.gate = gate.await
      const client = yield* inProcessReady
      for (let i = 0; i < 4; i++) yield* client.send(batch("todos", "APPLIED", i, [[`${i}`, put(i)]]))
      yield* turn
      yield* turn
      expect((yield* statusOf).maps).toMatchObject([{ records: 2 }])
      yield* gate.open
      while ((yield* client.take("Durable")).sequence < 3);
      expect((yield* statusOf).maps).toMatchObject([{ records: 4 }])
    }).pipe(Effect.provide(layer))
  })
})

/** A server over a driver whose commits can be held and made to fail. */
const makeFlaky = (settings: Partial<ServerConfig.Settings> = {}) => {
  const control = {
    failing: false,
    gate: Effect.void as Effect.Effect<void>,
    committed: [] as Array<string>,
    transactions: 0
  }
  const driver: Persistence.Driver = {
    kind: "test",
    generation: "generation000000",
    nodeId: "server0000000000",
    notes: new Map(),
    load: () => Effect.void,
    snapshot: Effect.dieMessage("nobody backs this up"),
    commit: (batches) =>
      Effect.zipRight(
        control.gate,
        Effect.suspend(() => {
          if (control.failing) return new StorageUnavailable({ reason: "the disk is gone" })
          control.transactions++
          for (const { rows } of batches) for (const { cell } of rows) control.committed.push(cell)
          return Effect.void
        })
      )
  }
  const layer = TopGunServer.layerPartsInProcess.pipe(
    Layer.provide(Layer.mergeAll(
      CrdtStore.layer,
      Hlc.layer(),
      MerkleSync.layer,
      PartitionRouter.layerSingleNode,
      Layer.scoped(Persistence.Persistence, Persistence.make(driver))
    )),
    Layer.provide(ServerConfig.layer(settings))
  )
  return { control, layer }
}
