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
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { batch, inProcessReady, openMap, put } from "./PlainClient.ts"

const temporaryDir = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "topgun-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const turn = Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))

const statusOf = Effect.flatMap(TopGunServer.TopGunServer, ({ status }) => status)

describe("A server with SQLite", () => {
  it.scoped("holds after a restart everything that it called durable, root for root", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      const server = TopGunServer.layerInProcess({ storage: "sqlite", dataDir })
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
      expect(after.maps).toEqual(before.maps)
      expect(after.nodeId).toBe(before.nodeId)
      expect(after.maps.map(({ records }) => records)).toEqual([300, 300])
    }))

  it.scoped("acknowledges PERSISTED after the commit only, for a write that lost as well", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
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
      }).pipe(Effect.provide(TopGunServer.layerInProcess({ storage: "sqlite", dataDir })))
    }))

  it.scoped("says of refused writes too that nothing more is to be waited for", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      yield* Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* client.send(batch("todos", "REPLICATED", 3, [["1", put("x")]]))
        expect((yield* client.take("OpReject")).sequence).toBe(3)
        expect((yield* client.take("Durable")).sequence).toBe(3)
      }).pipe(Effect.provide(TopGunServer.layerInProcess({ storage: "sqlite", dataDir })))
    }))

  it.scoped("saves and acknowledges what is in hand before it goes away", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      const server = TopGunServer.layerInProcess({ storage: "sqlite", dataDir })
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
  const control = { failing: false, gate: Effect.void as Effect.Effect<void>, committed: [] as Array<string> }
  const driver: Persistence.Driver = {
    kind: "test",
    generation: "generation000000",
    nodeId: "server0000000000",
    load: () => Effect.void,
    commit: (batches) =>
      Effect.zipRight(
        control.gate,
        Effect.suspend(() => {
          if (control.failing) return new StorageUnavailable({ reason: "the disk is gone" })
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
