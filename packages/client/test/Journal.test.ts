import { describe, it } from "@effect/vitest"
import * as Storage from "@topgun/core/Storage"
import * as Value from "@topgun/core/Value"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import * as Journal from "../src/Journal.ts"
import * as Outbox from "../src/Outbox.ts"
import { connected, fragile, inWorld } from "./worlds.ts"

const markWrite = (map: string): Storage.StorageWrite => ({ space: "marks", key: map, value: new Uint8Array(1) })

describe("the journal", () => {
  it.live("never issues a stamp again, be there nothing left of it but the reservation", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const options = { autoConnect: false, backpressure: { strategy: "drop-oldest", capacity: 1 } } as const
      const first = yield* World.startClient("alice", options)
      const map = yield* first.map<number>("m")
      yield* map.set("k", 1)
      const { millis } = map.getRecord("k")!
      yield* clock.advance("1 second")
      clock.unsafeStep(-60_000)
      yield* first.close
      const written = (yield* Effect.promise(() => first.device.scan("records/m", undefined, 10)))
        .map(({ key }) => ({ space: "records/m", key, value: undefined }))
      yield* Effect.promise(() => first.device.commit(written))
      const second = yield* World.startClient("alice", options, first.device)
      const again = yield* second.map<number>("m")
      yield* again.set("other", 1)
      expect(again.getRecord("other")!.millis).toBeGreaterThan(millis)
    }).pipe(Effect.scoped, inWorld()))

  it.live("lets nothing leave beyond what is reserved, on no later connection either", () =>
    Effect.gen(function*() {
      const { device, state } = fragile()
      const { client, clock, network, server } = yield* connected({}, device)
      const map = yield* client.map<number>("m")
      yield* clock.advance("1 second")
      state.broken = true
      yield* clock.advance("10 seconds")
      yield* Effect.ignore(map.set("k", 1))
      yield* clock.advance("1 second")
      network.reset("alice")
      yield* clock.advance("30 seconds")
      expect((yield* server.status).maps).toEqual([])
      state.broken = false
      yield* clock.runUntil(() => client.status.current.pending === 0 && client.status.current.state === "CONNECTED")
      expect((yield* server.status).maps).toMatchObject([{ size: 1 }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("reserves for a new writer, whatever was under way for the one before", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const memory = Storage.memory()
      let open = () => {}
      const gate = new Promise<void>((resolve) => {
        open = resolve
      })
      const storage = yield* Storage.make({
        ...memory,
        commit: async (writes) => {
          await gate
          await memory.commit(writes)
        }
      }, "m")
      let millis = 1e15
      const journal = yield* Journal.make(storage, { millis: 0, sequence: 0 }, {
        cellWrites: () => [],
        operationWrite: Outbox.rowOf,
        markWrite,
        inUse: () => ({ millis, sequence: 7 }),
        onCell: () => {},
        onCommit: () => {},
        renew: Effect.void
      })
      journal.stageRow({ space: "s", key: "k", value: new Uint8Array(1) })
      yield* clock.settle
      journal.adopt("b".repeat(16))
      millis = 1_000
      expect(journal.reserved().millis).toBe(0)
      open()
      yield* clock.settle
      expect(journal.reserved().millis).toBeGreaterThan(1_000)
      expect(journal.reserved().millis).toBeLessThan(1e5)
      const rows = yield* Effect.promise(() => memory.scan("meta", undefined, 10))
      expect(rows.map(({ key, value }) => [key, Value.decode(value)])).toEqual([
        ["nodeId", "b".repeat(16)],
        ["reservation", [journal.reserved().millis, journal.reserved().sequence]]
      ])
    }).pipe(Effect.scoped, inWorld()))

  it.live("tells a write that it is durable, however much is merged from the server meanwhile", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const memory = Storage.memory()
      const marked: Array<number> = []
      let commits = 0
      let open = () => {}
      const gate = new Promise<void>((resolve) => {
        open = resolve
      })
      const storage = yield* Storage.make({
        ...memory,
        commit: async (writes) => {
          if (++commits > 1) await gate
          if (writes.some(({ space }) => space === "marks")) marked.push(commits)
          await memory.commit(writes)
        }
      }, "m")
      const journal = yield* Journal.make(storage, { millis: 1e15, sequence: 1e9 }, {
        cellWrites: (space, key) => [{ space, key, value: new Uint8Array(1) }],
        operationWrite: Outbox.rowOf,
        markWrite,
        inUse: () => ({ millis: 0, sequence: 0 }),
        onCell: () => {},
        onCommit: () => {},
        renew: Effect.void
      })
      for (let n = 0; n < 12_000; n++) journal.stageCell("m", `k${n}`, "remote")
      journal.stageCell("m", "mine", "local")
      journal.stageMark("m")
      const local = journal.flushed()
      yield* clock.settle
      const told = yield* Deferred.isDone(local)
      const begun = commits
      open()
      yield* clock.settle
      expect({ told, begun, commits }).toEqual({ told: true, begun: 2, commits: 12 })
      // With the last of what it says is here.
      expect(marked).toEqual([12])
    }).pipe(Effect.scoped, inWorld()))
})

describe("what storage holds", () => {
  const corrupted = Effect.fnUntraced(function*(space: (row: string) => boolean) {
    const faults: Array<unknown> = []
    const device = Storage.memory()
    const written: Array<Storage.StorageWrite> = []
    const first = yield* World.startClient("alice", { autoConnect: false }, {
      ...device,
      commit: (writes) => {
        written.push(...writes)
        return device.commit(writes)
      }
    })
    const map = yield* first.map<number>("m")
    yield* map.set("a", 1)
    yield* map.set("b", 2)
    yield* first.close
    const victim = written.find((row) => space(row.space))!
    yield* Effect.promise(() => device.commit([{ ...victim, value: Uint8Array.of(1, 2, 3) }]))
    const client = yield* World.startClient("alice", {
      autoConnect: false,
      onError: (fault) => void faults.push(fault)
    }, device)
    return { client, faults, map: yield* client.map<number>("m") }
  })

  it.live("and can't be read is told of; the rest is there", () =>
    Effect.gen(function*() {
      const { client, faults, map } = yield* corrupted((space) => space === "records/m")
      expect(Object.fromEntries(map)).toEqual({ b: 2 })
      expect(faults).toMatchObject([{ _tag: "StorageUnavailable" }])
      expect(client.status.current.pending).toBe(2)
    }).pipe(Effect.scoped, inWorld()))

  it.live("is read in pages of so many rows and bytes as keep nobody waiting", () =>
    Effect.gen(function*() {
      const device = Storage.memory()
      const first = yield* World.startClient("alice", { autoConnect: false }, device)
      const small = yield* first.map<number>("small")
      for (let n = 0; n < 3_000; n++) yield* Effect.fork(small.set(`k${n}`, n))
      const large = yield* first.map<string>("large")
      for (let n = 0; n < 150; n++) yield* large.set(`k${n}`, "x".repeat(50_000))
      yield* first.close
      const pages: Record<string, Array<number>> = {}
      const client = yield* World.startClient("alice", { autoConnect: false }, {
        ...device,
        scan: async (space, after, limit) => {
          const rows = await device.scan(space, after, limit)
          ;(pages[space] ??= []).push(rows.length)
          return rows
        }
      })
      expect([(yield* client.map("small")).size, (yield* client.map("large")).size]).toEqual([3_000, 150])
      expect(pages["records/small"]).toEqual([100, 1_000, 1_000, 900])
      expect(pages["records/large"]!.slice(0, 2)).toEqual([100, 19])
    }).pipe(Effect.scoped, inWorld()))

  it.live("of an operation under another's number, or one that nobody gets to, isn't taken for one", () =>
    Effect.gen(function*() {
      const faults: Array<unknown> = []
      const device = Storage.memory()
      const first = yield* World.startClient("alice", { autoConnect: false }, device)
      const map = yield* first.map<number>("m")
      yield* map.set("a", 1)
      yield* first.close
      const [row] = yield* Effect.promise(() => device.scan("outbox", undefined, 10))
      const [format, sequence, ...rest] = Value.decode(row!.value) as [number, number]
      const stored = (key: string, of: unknown) => ({
        space: "outbox",
        key,
        value: Value.encode([format, of, ...rest])
      })
      yield* Effect.promise(() =>
        device.commit([
          stored("00000000000fff", sequence),
          stored("1fffffffffffff", Number.MAX_SAFE_INTEGER),
          stored("00000000000ffe", -1),
          stored("00000000000ffd", "4093")
        ])
      )
      const client = yield* World.startClient("alice", {
        autoConnect: false,
        onError: (fault) => void faults.push(fault)
      }, device)
      expect(client.status.current.pending).toBe(1)
      expect(faults).toMatchObject([{ _tag: "StorageUnavailable", reason: "4 rows of \"outbox\" are unreadable" }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("of what stamps were issued stops the client where it can't be read, and changes nothing", () =>
    Effect.gen(function*() {
      const device = Storage.memory()
      const first = yield* World.startClient("alice", { autoConnect: false }, device)
      yield* (yield* first.map<number>("m")).set("a", 1)
      yield* first.close
      for (const reservation of ["no array", [], [1, -1], [2 ** 48, 1], [1, 2 ** 53], ["1", "1"]]) {
        const value = Value.encode(reservation)
        yield* Effect.promise(() => device.commit([{ space: "meta", key: "reservation", value }]))
        const refused = yield* Effect.flip(World.startClient("alice", { autoConnect: false }, device))
        expect(refused).toMatchObject({ _tag: "StorageUnavailable" })
      }
    }).pipe(Effect.scoped, inWorld()))

  it.live("of a write whose operation can't be read is sent nevertheless", () =>
    Effect.gen(function*() {
      const { client, faults, map } = yield* corrupted((space) => space === "outbox")
      const clock = yield* VirtualClock.VirtualClock
      expect(Object.fromEntries(map)).toEqual({ a: 1, b: 2 })
      expect(faults).toMatchObject([{ _tag: "StorageUnavailable" }])
      const server = yield* World.startServer()
      yield* client.connect
      yield* clock.runUntil(() => client.status.current.state === "CONNECTED" && client.status.current.pending === 0)
      expect((yield* server.status).maps).toMatchObject([{ size: 2, root: map.digest }])
    }).pipe(Effect.scoped, inWorld()))
})
