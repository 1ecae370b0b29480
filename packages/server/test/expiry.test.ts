/** Until when a token counts, for what is under way just then, and what another token inherits of it. */
import { describe, expect, it } from "@effect/vitest"
import { partitionOf } from "@topgun/core/Partition"
import * as Protocol from "@topgun/core/Protocol"
import { makePair } from "@topgun/core/Transport"
import * as Authentication from "@topgun/server/Authentication"
import type * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"
import { authAnew, batch, make, openMap, type PlainClient, put, settled } from "./PlainClient.ts"

const codes = Protocol.closeCodes
const graceMillis = 2_000

/** A token says what it is worth: the user, until when, his role, and how long it takes to verify: `alice 5000 editor 100`. */
const verifier = Authentication.layerVerifier((token) => {
  const [userId = "", expiresAt = "never", role = "none", millis = "0"] = token.split(" ")
  const principal = {
    userId,
    roles: [role],
    ...(expiresAt === "never" ? {} : { expiresAt: Number(expiresAt) })
  }
  return Effect.delay(Effect.succeed(principal), Number(millis))
})

const policy: PermissionPolicy.Policy = {
  rules: [
    { maps: ["news"], roles: ["user"], allow: ["read", "put"] },
    { maps: ["home of {userId}"], roles: ["user"], allow: ["read", "put"] },
    { maps: ["drafts"], roles: ["editor"], allow: ["read", "put"] }
  ]
}

const layerOf = (settings: Parameters<typeof TopGunServer.layerInProcess>[0] = {}) =>
  TopGunServer.layerInProcess({ auth: "token", authGraceMillis: graceMillis, policy, ...settings }).pipe(
    Layer.provide(verifier)
  )

/** Who is let in, and all that he was told, in order. */
const enter = Effect.fnUntraced(function*(token: string, device: typeof Protocol.Auth.Type = authAnew()) {
  const { accept } = yield* TopGunServer.TopGunServer
  const [mine, theirs] = makePair()
  const told: Array<Protocol.ServerMessage> = []
  accept(theirs)
  const client = make({
    ...mine,
    listen: (onFrame, onClose) =>
      mine.listen((frame) => {
        told.push(...Protocol.decodeFromServer(frame))
        onFrame(frame)
      }, onClose)
  })
  yield* client.send({ ...device, token })
  yield* settled
  const ack = told.find(({ _tag }) => _tag === "AuthAck") as typeof Protocol.AuthAck.Type | undefined
  return { ...client, told, ack, device: { ...device, secret: ack?.secret ?? null } }
})

let sequence = 0
let millis = 1_000
const write = (client: PlainClient, map: string, key: string) =>
  client.send(batch(map, "APPLIED", sequence++, [[key, put(key, millis++)]]))
const open = (client: PlainClient, map: string, id = 1) =>
  Effect.zipRight(client.send(openMap(map, id)), client.take("SyncRoot"))
const keysOf = (told: ReadonlyArray<Protocol.ServerMessage>) =>
  told.flatMap((message) => message._tag === "ServerEvent" ? message.records.map(([key]) => key) : [])
const statusOf = Effect.flatMap(TopGunServer.TopGunServer, ({ status }) => status)
const recordsIn = (map: string) =>
  Effect.map(statusOf, ({ maps }) => maps.find(({ name }) => name === map)?.records ?? 0)

describe("A token", () => {
  it.effect("counts to the last millisecond of its grace: reads, writes, questions and events", () =>
    Effect.gen(function*() {
      const alice = yield* enter("alice 5000")
      const bob = yield* enter("bob")
      yield* open(alice, "news")
      for (const now of [4_999, 5_000, 5_001, 5_000 + graceMillis - 1]) {
        yield* TestClock.setTime(now)
        yield* write(alice, "news", `hers ${now}`)
        yield* alice.take("OpAck")
        yield* write(bob, "news", `his ${now}`)
        expect((yield* alice.take("ServerEvent")).records.map(([key]) => key)).toEqual([`his ${now}`])
        yield* alice.send({
          _tag: "SyncPull",
          id: now,
          map: "news",
          node: [partitionOf(`his ${now}`), ""],
          after: null
        })
        expect((yield* alice.take("SyncLeaf")).records.map(([key]) => key)).toContain(`his ${now}`)
        yield* bob.send({ _tag: "Ping", id: now })
      }
      expect(alice.told.filter(({ _tag }) => _tag === "AuthExpired")).toHaveLength(1)
    }).pipe(Effect.provide(layerOf())))

  it.effect("ends with its grace: nothing is processed and nothing is sent from then on, whatever was under way", () =>
    Effect.gen(function*() {
      const alice = yield* enter("alice 5000")
      const bob = yield* enter("bob")
      yield* open(alice, "news")
      yield* TestClock.setTime(5_000 + graceMillis - 1)
      // Takes longer to verify than there is time.
      yield* alice.send({ _tag: "AuthRenew", id: 1, token: "alice 90000 none 2" })
      yield* settled
      yield* TestClock.adjust(1)
      yield* write(alice, "news", "hers")
      yield* write(bob, "news", "his")
      yield* bob.take("OpAck")
      expect((yield* alice.closed).code).toBe(codes.authFailed)
      yield* TestClock.adjust(10)
      expect(alice.told.map(({ _tag }) => _tag)).toEqual(["AuthAck", "SyncRoot", "AuthExpired", "Fault"])
      expect(alice.told.at(-1)).toMatchObject({ id: null, cause: "AuthExpired" })
      expect(yield* recordsIn("news")).toBe(1)
      expect((yield* statusOf).connections).toBe(1)
    }).pipe(Effect.provide(layerOf())))

  it.effect("ends for writes that came in time and had to wait", () =>
    Effect.gen(function*() {
      const alice = yield* enter("alice 5000")
      yield* TestClock.setTime(6_500)
      const rows = Array.from({ length: 100 }, (_, i) => [`${i}`, put(i, millis++)] as const)
      yield* alice.send(batch("news", "APPLIED", sequence, rows))
      sequence += rows.length
      yield* alice.take("OpAck")
      yield* write(alice, "news", "too late")
      yield* settled
      expect(alice.untaken("OpAck")).toBe(0)
      yield* TestClock.adjust("10 seconds")
      expect((yield* alice.closed).code).toBe(codes.authFailed)
      expect(alice.untaken("OpAck")).toBe(0)
      expect(yield* recordsIn("news")).toBe(100)
    }).pipe(Effect.provide(layerOf({ operationsPerSecond: 100, operationsBurst: 1 }))))

  for (
    const [what, doIt] of [
      ["what comes from its user", (alice: PlainClient) => write(alice, "news", "hers")],
      ["what goes to its user", (_: PlainClient, bob: PlainClient) => write(bob, "news", "his")]
    ] as const
  ) {
    it.effect(`ends by the clock on the wall for ${what}, though that was set and no timer knows`, () =>
      Effect.gen(function*() {
        const timers = yield* Effect.clock
        let setBy = 0
        const wall: Clock.Clock = {
          [Clock.ClockTypeId]: Clock.ClockTypeId,
          unsafeCurrentTimeMillis: () => timers.unsafeCurrentTimeMillis() + setBy,
          unsafeCurrentTimeNanos: () => timers.unsafeCurrentTimeNanos(),
          currentTimeMillis: Effect.sync(() => timers.unsafeCurrentTimeMillis() + setBy),
          currentTimeNanos: timers.currentTimeNanos,
          sleep: (duration) => timers.sleep(duration)
        }
        yield* Effect.gen(function*() {
          const alice = yield* enter("alice 50000")
          const bob = yield* enter("bob")
          yield* open(alice, "news")
          setBy = 50_000 + graceMillis - 1
          yield* write(bob, "news", "in time")
          yield* settled
          expect(keysOf(alice.told)).toEqual(["in time"])
          setBy++
          yield* doIt(alice, bob)
          yield* settled
          expect(alice.told.map(({ _tag }) => _tag)).toEqual(["AuthAck", "SyncRoot", "ServerEvent", "Fault"])
          expect(yield* recordsIn("news")).toBe(what.includes("from") ? 1 : 2)
          expect((yield* alice.closed).code).toBe(codes.authFailed)
        }).pipe(Effect.provide(layerOf().pipe(Layer.provide(Layer.setClock(wall)))))
      }))
  }
})

describe("A renewal", () => {
  for (const at of [4_000, 5_000, 5_000 + graceMillis - 2]) {
    it.effect(`at ${at} of 5,000 and the grace leaves subscriptions as they are: no gap, nothing twice`, () =>
      Effect.gen(function*() {
        const alice = yield* enter("alice 5000")
        const bob = yield* enter("bob")
        yield* open(alice, "news")
        yield* open(alice, "home of alice", 2)
        yield* TestClock.setTime(at)
        const keys = ["before", "meanwhile", "just then", "after"]
        yield* write(bob, "news", keys[0]!)
        yield* alice.send({ _tag: "AuthRenew", id: 3, token: "alice 9000 none 1" })
        yield* write(bob, "news", keys[1]!)
        yield* write(alice, "home of alice", "hers")
        yield* TestClock.adjust(1)
        yield* write(bob, "news", keys[2]!)
        expect(yield* alice.take("AuthRenewAck")).toMatchObject({ id: 3, expiresAt: 9_000 })
        yield* TestClock.setTime(8_999)
        yield* write(bob, "news", keys[3]!)
        yield* settled
        expect(keysOf(alice.told)).toEqual(keys)
        expect(alice.told.filter(({ _tag }) => _tag === "SyncAgain" || _tag === "Fault")).toEqual([])
        expect(alice.untaken("OpAck")).toBe(1)
      }).pipe(Effect.provide(layerOf())))
  }

  it.effect("by another user's token inherits nothing: the connection stays its user's, and ends when his token does", () =>
    Effect.gen(function*() {
      const alice = yield* enter("alice 5000")
      const bob = yield* enter("bob")
      yield* open(alice, "home of alice")
      yield* alice.send({ _tag: "AuthRenew", id: 1, token: "bob 90000 editor" })
      expect(yield* alice.take("Fault")).toMatchObject({ id: 1, cause: "AuthUserChanged" })
      for (const [n, map] of ["home of bob", "drafts"].entries()) {
        yield* alice.send(openMap(map, n))
        expect(yield* alice.take("Fault")).toMatchObject({ id: n, cause: "PermissionDenied" })
        yield* write(alice, map, "x")
        expect(yield* alice.take("OpReject")).toMatchObject({ cause: "PermissionDenied" })
      }
      yield* write(alice, "home of alice", "hers")
      yield* alice.take("OpAck")
      yield* write(bob, "home of bob", "his")
      yield* bob.take("OpAck")
      expect(keysOf(alice.told)).toEqual([])
      yield* TestClock.setTime(5_000 + graceMillis)
      yield* settled
      expect(alice.told.at(-1)).toMatchObject({ id: null, cause: "AuthExpired" })
      expect((yield* statusOf).connections).toBe(1)
    }).pipe(Effect.provide(layerOf())))

  it.effect("that grants less takes away what it doesn't grant, before anything else is told", () =>
    Effect.gen(function*() {
      const alice = yield* enter("alice 5000 editor")
      const editor = yield* enter("bob never editor")
      yield* open(alice, "drafts")
      yield* open(alice, "news", 2)
      yield* alice.send({ _tag: "AuthRenew", id: 3, token: "alice 9000" })
      yield* alice.take("AuthRenewAck")
      yield* write(editor, "drafts", "secret")
      yield* write(editor, "news", "public")
      yield* settled
      expect(alice.told.filter(({ _tag }) => _tag === "SyncAgain")).toEqual([{ _tag: "SyncAgain", map: "drafts" }])
      expect(keysOf(alice.told)).toEqual(["public"])
      yield* alice.send(openMap("drafts", 4))
      expect(yield* alice.take("Fault")).toMatchObject({ id: 4, cause: "PermissionDenied" })
      yield* write(alice, "drafts", "x")
      expect(yield* alice.take("OpReject")).toMatchObject({ cause: "PermissionDenied" })
    }).pipe(Effect.provide(layerOf())))
})

describe("A device that comes back", () => {
  it.effect("is judged by the token that it shows then: one that has expired has no grace", () =>
    Effect.gen(function*() {
      const alice = yield* enter("alice 5000")
      yield* TestClock.setTime(5_000)
      expect(yield* alice.take("AuthExpired")).toMatchObject({ graceMillis })
      alice.connection.close(1000, "")
      const again = yield* enter("alice 5000", alice.device)
      expect(yield* again.take("Fault")).toMatchObject({ id: null, cause: "AuthExpired" })
      expect((yield* again.closed).code).toBe(codes.authFailed)
      expect(again.ack).toBeUndefined()
    }).pipe(Effect.provide(layerOf())))

  it.effect("is told nothing of a map that its new token doesn't grant, though it shows how far it had come", () =>
    Effect.gen(function*() {
      const alice = yield* enter("alice 5000 editor")
      const editor = yield* enter("bob never editor")
      const { sequence: from } = yield* open(alice, "drafts")
      alice.connection.close(1000, "")
      yield* write(editor, "drafts", "secret")
      yield* editor.take("OpAck")
      const again = yield* enter("alice 9000", alice.device)
      const run = again.ack!.run
      yield* again.send({ ...openMap("drafts") as typeof Protocol.SyncInit.Type, cursor: [run, from] })
      expect(yield* again.take("Fault")).toMatchObject({ id: 1, cause: "PermissionDenied" })
      yield* write(editor, "drafts", "another")
      yield* settled
      expect(again.told.map(({ _tag }) => _tag)).toEqual(["AuthAck", "Fault"])
      // It is for the token, not for the device.
      const once = yield* enter("alice 9000 editor", again.device)
      yield* once.send({ ...openMap("drafts") as typeof Protocol.SyncInit.Type, cursor: [run, from] })
      expect((yield* once.take("SyncRoot")).records.map(([key]) => key).sort()).toEqual(["another", "secret"])
    }).pipe(Effect.provide(layerOf())))

  it.effect("isn't let in as another user, whatever secret it shows", () =>
    Effect.gen(function*() {
      const alice = yield* enter("alice")
      alice.connection.close(1000, "")
      const bob = yield* enter("bob", alice.device)
      expect(yield* bob.take("Fault")).toMatchObject({ id: null, cause: "NodeIdConflict" })
      expect((yield* bob.closed).code).toBe(codes.nodeIdConflict)
    }).pipe(Effect.provide(layerOf())))
})
