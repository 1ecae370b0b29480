/** What a server forgets of deletions, when, and who is told; over its protocol. */
import { describe, expect, it } from "@effect/vitest"
import * as LwwRecord from "@topgun/core/LwwRecord"
import { packPlaces } from "@topgun/core/MerkleSync"
import { partitionOf } from "@topgun/core/Partition"
import * as Protocol from "@topgun/core/Protocol"
import { encode } from "@topgun/core/Value"
import * as Prometheus from "@topgun/server/Prometheus"
import type * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import type * as Scope from "effect/Scope"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  authAnew,
  batch,
  inProcess,
  openMap,
  type PlainClient,
  put,
  recordsOf,
  removal,
  settled
} from "./PlainClient.ts"

const settings = {
  storage: "memory",
  tombstoneAge: "10 minutes",
  tombstoneHorizon: "1 hour"
} as const satisfies Partial<ServerConfig.Settings>

const statusOf = Effect.flatMap(TopGunServer.TopGunServer, ({ status }) => status)
const recordsIn = (name: string) =>
  Effect.map(statusOf, ({ maps }) => maps.find((map) => map.name === name)?.records ?? 0)
const figure = (name: string) =>
  Effect.map(
    Effect.flatMap(TopGunServer.TopGunServer, ({ metrics }) => metrics),
    (pairs) => Number(new RegExp(`^${name} (.*)$`, "m").exec(Prometheus.render(pairs))?.[1])
  )

const noRoot = new Uint8Array(8)
const someRoot = new Uint8Array(8).fill(1)

/** A device that is let in, and the age of the grid that it was told. */
const enter = Effect.fnUntraced(function*(auth: Partial<typeof Protocol.Auth.Type> = {}) {
  const client = yield* inProcess
  const said = { ...authAnew(), ...auth }
  yield* client.send(said)
  const { age, generation } = yield* client.take("AuthAck")
  // It is there for as long as it isn't closed.
  yield* Effect.forkScoped(
    Effect.forever(Effect.zipRight(Effect.sleep("4 seconds"), client.send({ _tag: "Ping", id: 0 })))
  )
  return { ...client, age, generation, auth: said }
})

const init = (map: string, root: Uint8Array, kind: "lww" | "or" = "lww"): typeof Protocol.SyncInit.Type => ({
  ...(openMap(map, 1, kind) as typeof Protocol.SyncInit.Type),
  root
})

const year = 365 * 24 * 3_600_000

let sequence = 0
const write = (client: PlainClient, map: string, ...entries: ReadonlyArray<readonly [string, Uint8Array]>) =>
  Effect.gen(function*() {
    const first = sequence
    sequence += entries.length
    yield* client.send(batch(map, "APPLIED", first, entries))
    yield* client.take("OpAck")
  })

const pass = (time: Duration.DurationInput) =>
  Effect.flatMap(VirtualClock.VirtualClock, (clock) => Effect.zipRight(clock.advance(time), settled))

const quiet = Logger.minimumLogLevel(LogLevel.None)

/** A server, and simulated time; stamps are of its beginning. */
const inTime =
  (more: Partial<ServerConfig.Settings> = {}) =>
  <A, E>(program: Effect.Effect<A, E, TopGunServer.TopGunServer | VirtualClock.VirtualClock | Scope.Scope>) =>
    program.pipe(
      Effect.scoped,
      Effect.provide(Layer.provide(TopGunServer.layerInProcess({ ...settings, ...more }), quiet)),
      Effect.provide(VirtualClock.layer({ startMillis: 0 }))
    )

describe("A deletion", () => {
  it.live("is forgotten when it has the least age and every device has confirmed it, which those who follow the map are told", () =>
    Effect.gen(function*() {
      const device = yield* enter()
      yield* device.send(init("m", noRoot), { _tag: "Confirmed", age: device.age })
      yield* device.take("SyncRoot")
      yield* write(device, "m", ["k", put("x", 1_000)], ["stays", put("x", 1_000)])
      yield* write(device, "m", ["k", removal(2_000)])
      expect(yield* recordsIn("m")).toBe(2)
      // Confirmed as soon as it is asked for, and not yet old enough.
      yield* pass("5 minutes")
      let told = 0
      for (let left = device.untaken("Checkpoint"); left > 0; left--) told = (yield* device.take("Checkpoint")).age
      expect(told).toBeGreaterThan(0)
      yield* device.send({ _tag: "Confirmed", age: told })
      yield* pass("4 minutes")
      expect(yield* recordsIn("m")).toBe(2)
      expect(device.untaken("GcPrune")).toBe(0)
      yield* pass("3 minutes")
      expect(yield* recordsIn("m")).toBe(1)
      expect(yield* device.take("GcPrune")).toEqual({
        _tag: "GcPrune",
        map: "m",
        cells: packPlaces([{ cell: "k", partition: partitionOf("k") }])
      })
      expect(yield* figure("topgun_tombstones_forgotten")).toBe(1)
      yield* device.send(init("m", noRoot))
      expect((yield* device.take("SyncRoot")).watermark).toBe(2_000)
    }).pipe(inTime()))

  it.live("is remembered for a device that hasn't confirmed it, until that has been away for as long as the horizon", () =>
    Effect.gen(function*() {
      const away = yield* enter()
      yield* away.send({ _tag: "Confirmed", age: away.age })
      away.connection.close(1000, "")
      yield* settled
      const device = yield* enter()
      yield* write(device, "m", ["k", put("x", 1_000)])
      yield* write(device, "m", ["k", removal(2_000)])
      yield* pass("55 minutes")
      expect(yield* recordsIn("m")).toBe(1)
      expect(yield* figure("topgun_devices_known")).toBe(1)
      yield* pass("10 minutes")
      expect(yield* recordsIn("m")).toBe(0)
      expect([yield* figure("topgun_devices_known"), yield* figure("topgun_devices_forgotten")]).toEqual([0, 1])
    }).pipe(inTime()))

  it.live("is no older for what any clock on a wall says", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const device = yield* enter()
      // Stamped as late as the server takes it.
      yield* write(device, "m", ["k", removal(60_000)])
      clock.unsafeStep(year)
      yield* write(device, "m", ["l", removal(year)])
      yield* pass("8 minutes")
      expect(yield* recordsIn("m")).toBe(2)
      clock.unsafeStep(-2 * year)
      yield* pass("4 minutes")
      expect(yield* recordsIn("m")).toBe(0)
    }).pipe(inTime()))

  it.live("that was followed by another value, and by another deletion, has the age of the latter", () =>
    Effect.gen(function*() {
      const device = yield* enter()
      yield* write(device, "m", ["k", removal(1_000)], ["l", removal(1_000)])
      yield* pass("6 minutes")
      yield* write(device, "m", ["k", put("again", 2_000)], ["l", put("again", 2_000)])
      yield* write(device, "m", ["k", removal(3_000)])
      yield* pass("6 minutes")
      expect(yield* recordsIn("m")).toBe(2)
      yield* pass("6 minutes")
      expect(
        yield* recordsOf(device, "m").pipe(Effect.zipLeft(Effect.void), (records) =>
          Effect.zipRight(
            Effect.zipRight(device.send(openMap("m")), device.take("SyncRoot")),
            records
          ))
      ).toEqual([["l", put("again", 2_000)]])
    }).pipe(inTime()))
})

/** A server with a map in which `k`, deleted at 2,000 ms, is forgotten. */
const forgotten = Effect.gen(function*() {
  const device = yield* enter()
  yield* device.send(init("m", noRoot))
  yield* device.take("SyncRoot")
  yield* write(device, "m", ["k", put("x", 1_000)], ["there", put("x", 1_000)])
  yield* write(device, "m", ["k", removal(2_000)])
  yield* pass("12 minutes")
  expect(yield* recordsIn("m")).toBe(1)
  return device
})

describe("What is forgotten", () => {
  it.live("can't be written back, by whoever it is and whenever he came, unless it is written anew", () =>
    Effect.gen(function*() {
      const device = yield* forgotten
      const refused = Effect.fnUntraced(function*(...entries: Array<readonly [string, Uint8Array]>) {
        yield* device.send(batch("m", "APPLIED", sequence, entries))
        sequence += entries.length
        const causes: Array<string> = []
        for (const _ of entries) causes.push((yield* device.take("OpReject")).cause)
        return causes
      })
      expect(yield* refused(["k", put("x", 1_000)], ["k", put("x", 2_000)], ["new", put("x", 1_500)])).toEqual([
        "BeyondHorizon",
        "BeyondHorizon",
        "BeyondHorizon"
      ])
      // What is there is judged by its stamp as ever, and deletions delete nothing.
      yield* write(device, "m", ["there", put("y", 1_500)], ["gone anyway", removal(1_000)], ["k", put("anew", 2_001)])
      const records = yield* recordsOf(device, "m")
      expect(records.map(([cell]) => cell)).toEqual(["gone anyway", "k", "there"])
      // Not even as a part of a batch that makes room for it.
      yield* device.send(
        batch("m", "APPLIED", sequence, [["l", put("x", 1_000)]], { atomic: "more" }),
        batch("m", "APPLIED", sequence + 1, [["there", put("z", 1_600)]], { atomic: "end" })
      )
      sequence += 2
      expect((yield* device.take("OpReject")).cause).toBe("BeyondHorizon")
    }).pipe(inTime()))

  it.live("has a device take the map over anew that has something in it and hasn't confirmed it", () =>
    Effect.gen(function*() {
      const known = yield* enter()
      yield* known.send({ _tag: "Confirmed", age: known.age })
      known.connection.close(1000, "")
      yield* pass("55 minutes")
      yield* forgotten
      const again = yield* enter(known.auth)
      yield* again.send(init("m", someRoot))
      expect(yield* again.take("Fault")).toMatchObject({ id: 1, cause: "ResyncRequired" })
      // One that has nothing lacks nothing; from then on it has what it was given.
      yield* again.send(init("m", noRoot))
      yield* again.take("SyncRoot")
      yield* again.send(init("m", someRoot))
      yield* again.take("SyncRoot")
      // It hasn't said that it has stored that.
      const unsure = yield* enter(known.auth)
      yield* unsure.send(init("m", someRoot))
      expect((yield* unsure.take("Fault")).cause).toBe("ResyncRequired")
      yield* unsure.send(init("other", someRoot), { _tag: "Confirmed", age: unsure.age })
      yield* unsure.take("SyncRoot")
      const sure = yield* enter(known.auth)
      yield* sure.send(init("m", someRoot))
      yield* sure.take("SyncRoot")
    }).pipe(inTime()))

  it.live("is no reason to drop what a store had that was put back to what it was once", () =>
    Effect.gen(function*() {
      const { age, generation } = yield* forgotten
      const opens = (confirmed: typeof Protocol.Auth.Type["confirmed"]) =>
        Effect.gen(function*() {
          const client = yield* enter({ confirmed })
          yield* client.send(init("m", someRoot))
          yield* settled
          return client.untaken("SyncRoot") === 1
        })
      expect(yield* opens(null)).toBe(false)
      expect(yield* opens([generation, age])).toBe(false)
      expect(yield* opens([generation, Number.MAX_SAFE_INTEGER])).toBe(true)
      expect(yield* opens(["another", 0])).toBe(true)
    }).pipe(inTime()))

  it.live("is so by the server's word alone: a device that confirms what it wasn't told is cut off", () =>
    Effect.gen(function*() {
      const device = yield* enter()
      yield* device.send({ _tag: "Confirmed", age: device.age + 1 })
      expect((yield* device.closed).code).toBe(Protocol.closeCodes.outOfPlace)
      const other = yield* enter()
      yield* other.sendBytes(
        Protocol.encode({ _tag: "GcPrune", map: "m", cells: packPlaces([{ cell: "k", partition: partitionOf("k") }]) })
      )
      expect((yield* other.closed).code).toBe(Protocol.closeCodes.malformed)
    }).pipe(inTime()))

  it.live("is so after a restart, and so is who has confirmed what, and how old everything is", () =>
    Effect.gen(function*() {
      const dataDir = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "topgun-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
      )
      const server = inTime({ storage: "sqlite", dataDir })
      const committed = (device: PlainClient) =>
        Effect.gen(function*() {
          yield* device.send(batch("other", "PERSISTED", sequence, [[`${sequence}`, put("x", 1)]]))
          const last = sequence++
          while (!(yield* device.take("OpAck")).sequences.includes(last));
        })
      const auth = authAnew()
      yield* Effect.gen(function*() {
        const device = yield* forgotten
        yield* write(device, "m", ["later", removal(5_000)])
        yield* pass("2 seconds")
        const away = yield* enter(auth)
        yield* away.send({ _tag: "Confirmed", age: away.age })
        yield* committed(device)
        yield* pass("5 minutes")
        yield* committed(device)
      }).pipe(server)
      yield* Effect.gen(function*() {
        const device = yield* enter()
        yield* device.send(batch("m", "APPLIED", sequence++, [["k", put("x", 1_000)]]))
        expect((yield* device.take("OpReject")).cause).toBe("BeyondHorizon")
        yield* device.send(init("m", someRoot))
        expect((yield* device.take("Fault")).cause).toBe("ResyncRequired")
        const known = yield* enter(auth)
        yield* known.send(init("m", someRoot))
        yield* known.take("SyncRoot")
        // Five minutes old when the server was stopped.
        expect(yield* recordsIn("m")).toBe(2)
        yield* pass("4 minutes")
        expect(yield* recordsIn("m")).toBe(2)
        yield* pass("3 minutes")
        expect(yield* recordsIn("m")).toBe(1)
        yield* committed(device)
      }).pipe(server)
      expect(yield* server(recordsIn("m"))).toBe(1)
    }).pipe(Effect.scoped))
})

describe("Deletions without an end", () => {
  for (const [who, isThere] of [["a device that is away", true], ["no device", false]] as const) {
    it.live(`are remembered up to so many, with ${who} to remember them for`, () =>
      Effect.gen(function*() {
        if (isThere) {
          const away = yield* enter()
          yield* away.send({ _tag: "Confirmed", age: away.age })
          away.connection.close(1000, "")
        }
        const device = yield* enter()
        const levels: Array<number> = []
        for (let turn = 0; turn < 60; turn++) {
          const { unsafeCurrentTimeMillis } = yield* VirtualClock.VirtualClock
          const now = unsafeCurrentTimeMillis()
          const entries = Array.from({ length: 500 }, (_, n): readonly [string, Uint8Array] => [
            `${turn}.${n}`,
            LwwRecord.remove({ millis: now, counter: n, nodeId: "plainclient00000" }).row
          ])
          yield* write(device, "m", ...entries)
          yield* pass("1 minute")
          levels.push(yield* recordsIn("m"))
        }
        // What came in the last minutes, and in the stretch of age that is begun, is over it.
        expect(Math.max(...levels)).toBeLessThanOrEqual(4_000 + 3 * 500)
        // Level, not merely slower.
        const half = levels.length / 2
        expect(Math.max(...levels.slice(half))).toBeLessThanOrEqual(Math.max(...levels.slice(10, half)))
        expect(yield* figure("topgun_tombstones")).toBe(levels.at(-1))
      }).pipe(inTime({ tombstonesMax: 4_000 })))
  }
})

describe("What is over", () => {
  const expiring = (value: unknown, millis: number, expiresAt: number) =>
    LwwRecord.put({ millis, counter: 0, nodeId: "plainclient00000" }, encode(value), expiresAt).row

  it.live("becomes a tombstone of its own stamp, told to all who follow; whatever is newer survives, whenever it comes", () =>
    Effect.gen(function*() {
      const writer = yield* enter()
      const reader = yield* enter()
      yield* reader.send(init("m", noRoot))
      yield* reader.take("SyncRoot")
      yield* write(
        writer,
        "m",
        ["k", expiring("x", 1_000, 5_000)],
        ["extended", expiring("x", 1_000, 5_000)],
        ["late", expiring("x", 1_000, 5_000)],
        ["far", expiring("x", 1_000, 2 ** 40)]
      )
      yield* write(writer, "m", ["extended", expiring("y", 1_001, 60_000)])
      while (reader.untaken("ServerEvent") > 0) yield* reader.take("ServerEvent")
      yield* pass("6 seconds")
      const { records } = yield* reader.take("ServerEvent")
      expect(new Map(records)).toEqual(new Map([["k", removal(1_000)], ["late", removal(1_000)]]))
      expect(reader.untaken("ServerEvent")).toBe(0)
      // Written half way through its life, and held back until after the sweep.
      yield* write(writer, "m", ["late", put("newer", 3_000)], ["k", expiring("x", 1_000, 5_000)])
      yield* reader.send(init("m", noRoot))
      yield* reader.take("SyncRoot")
      expect(new Map(yield* recordsOf(reader, "m"))).toEqual(
        new Map([
          ["k", removal(1_000)],
          ["extended", expiring("y", 1_001, 60_000)],
          ["late", put("newer", 3_000)],
          ["far", expiring("x", 1_000, 2 ** 40)]
        ])
      )
      yield* pass("15 minutes")
      yield* reader.send(init("m", noRoot))
      yield* reader.take("SyncRoot")
      expect((yield* recordsOf(reader, "m")).map(([key]) => key)).toEqual(["far", "late"])
    }).pipe(inTime()))

  it.live("is swept in turns, however much it is, and soon after the server has found it in its database", () =>
    Effect.gen(function*() {
      const device = yield* enter()
      for (let at = 0; at < 5; at++) {
        yield* write(
          device,
          "m",
          ...Array.from({ length: 500 }, (_, n) => [`${at}.${n}`, expiring("x", 1_000, 5_000)] as const)
        )
      }
      yield* pass("6 seconds")
      for (let turn = 0; turn < 5; turn++) yield* settled
      yield* device.send(init("m", noRoot))
      yield* device.take("SyncRoot")
      const records = yield* recordsOf(device, "m")
      expect(records).toHaveLength(2_500)
      expect(records.filter(([, row]) => LwwRecord.decode(row).isTombstone)).toHaveLength(2_500)
    }).pipe(inTime()))
})
