/** What users of a policy get to see on the wire. Tokens say who it is and which roles he has: `alice`, `bob editor,admin`. */
import { describe, expect, it, vi } from "@effect/vitest"
import type { MapKind } from "@topgun/core/Cell"
import { GridRpcs } from "@topgun/core/GridRpcs"
import { partitionOf } from "@topgun/core/Partition"
import * as Protocol from "@topgun/core/Protocol"
import { makePair } from "@topgun/core/Transport"
import * as Value from "@topgun/core/Value"
import * as LwwRecord from "@topgun/core/LwwRecord"
import { Access } from "@topgun/server/Access"
import * as Authentication from "@topgun/server/Authentication"
import * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as fc from "fast-check"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  authAnew,
  batch,
  make,
  openMap,
  type PlainClient,
  put,
  recordsOf,
  removal,
  settled,
  totals
} from "./PlainClient.ts"

const layerOf = (
  policy: PermissionPolicy.Policy,
  settings: Parameters<typeof TopGunServer.layerInProcess>[0] = {}
) =>
  Layer.provideMerge(
    TopGunServer.layerInProcess({ auth: "token", ...settings }),
    Layer.merge(
      PermissionPolicy.layer(policy),
      Authentication.layerVerifier((token) => {
        const [userId, roles = ""] = token.split(" ") as [string, string?]
        return Effect.succeed({ userId, roles: roles.split(",").filter((role) => role !== "") })
      })
    )
  )

/** A client of a user, and the bytes of all frames that it has got. */
const enter = Effect.fnUntraced(function*(token: string, nodeId = authAnew().nodeId) {
  const { accept } = yield* TopGunServer.TopGunServer
  const [mine, theirs] = makePair()
  const frames: Array<string> = []
  accept(theirs)
  const client = make({
    ...mine,
    listen: (onFrame, onClose) =>
      mine.listen((frame) => {
        frames.push(Buffer.from(frame).toString("latin1"))
        onFrame(frame)
      }, onClose)
  })
  yield* client.send({ ...authAnew(), nodeId, token })
  yield* client.take("AuthAck")
  return { ...client, frames }
})

let sequence = 0
let millis = 1_000
const write = (client: PlainClient, map: string, key: string, value: unknown, kind: MapKind = "lww") =>
  client.send(batch(map, "APPLIED", sequence++, [[key, put(value, millis++)]], { kind }))
const remove = (client: PlainClient, map: string, key: string) =>
  client.send(batch(map, "APPLIED", sequence++, [[key, removal(millis++)]]))
const open = (client: PlainClient, map: string, id = 1, kind: MapKind = "lww") =>
  Effect.zipRight(client.send(openMap(map, id, kind)), client.take("SyncRoot"))
const valueOf = (row: Uint8Array): unknown => Value.decode(LwwRecord.decode(row).valueBytes)
const shown = (client: PlainClient, map: string) =>
  Effect.map(recordsOf(client, map), (records) => Object.fromEntries(records.map(([key, row]) => [key, valueOf(row)])))
const eventOf = (client: PlainClient) =>
  Effect.map(client.take("ServerEvent"), ({ records }) => records.map(([key, row]) => [key, valueOf(row)]))

const call = (id: string, tag: string, payload: unknown): typeof Protocol.Call.Type => ({
  _tag: "Call",
  payload: new TextEncoder().encode(JSON.stringify({ _tag: "Request", id, tag, headers: [], payload }))
})
const askOf = (id: number, map: string, query: unknown): typeof Protocol.QueryOpen.Type => ({
  _tag: "QueryOpen",
  id,
  map,
  query: Value.encode(query)
})

const owned = { owner: { principal: "userId" } }
const free: PermissionPolicy.Rule = { maps: ["free"], roles: ["user"], allow: ["read", "put", "remove"] }
const policy: PermissionPolicy.Policy = {
  rules: [
    { maps: ["*"], roles: ["admin"], allow: ["read", "put", "remove"] },
    { maps: ["notes"], roles: ["user"], allow: ["read", "put", "remove"], where: owned },
    { maps: ["people"], roles: ["user"], allow: ["read", "put"], fields: { read: ["name", "mail"], write: ["mail"] } },
    { maps: ["staff"], roles: ["clerk"], allow: ["read"] },
    { maps: ["staff"], roles: ["clerk"], allow: ["put"], fields: { write: ["mail"] } },
    { maps: ["news"], roles: ["user"], allow: ["read"] }
  ],
  status: ["admin"]
}
const layer = layerOf(policy)

describe("Of a map that may be read in part", () => {
  it.effect("a user gets the records that he may read, as they change, come and go, and no others", () =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin")
      yield* write(admin, "notes", "1", { owner: "alice", text: "a" })
      yield* write(admin, "notes", "2", { owner: "carol", text: "c" })
      yield* write(admin, "notes", "3", "no record")
      const alice = yield* enter("alice")
      expect((yield* open(alice, "notes")).partial).toBe(true)
      expect(yield* shown(alice, "notes")).toEqual({ 1: { owner: "alice", text: "a" } })

      yield* write(admin, "notes", "4", { owner: "alice" })
      expect(yield* eventOf(alice)).toEqual([["4", { owner: "alice" }]])
      yield* write(admin, "notes", "1", { owner: "carol" })
      expect(yield* alice.take("Withdraw")).toMatchObject({ map: "notes", keys: ["1"] })
      yield* remove(admin, "notes", "4")
      expect(yield* alice.take("Withdraw")).toMatchObject({ map: "notes", keys: ["4"] })
      yield* write(admin, "notes", "2", { owner: "carol", text: "d" })
      yield* remove(admin, "notes", "2")
      yield* settled
      expect(alice.untaken("ServerEvent") + alice.untaken("Withdraw")).toBe(0)
      expect(yield* shown(alice, "notes")).toEqual({})
    }).pipe(Effect.provide(layer)))

  it.effect("a record that a batch changes more than once is told as it is after the whole batch", () =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin")
      const alice = yield* enter("alice")
      yield* open(alice, "notes")
      const writeAll = (owners: ReadonlyArray<string>) =>
        Effect.zipRight(
          admin.send(batch("notes", "APPLIED", sequence, owners.map((owner) => ["1", put({ owner }, millis++)]))),
          Effect.sync(() => sequence += owners.length)
        )
      yield* writeAll(["alice"])
      expect(yield* eventOf(alice)).toEqual([["1", { owner: "alice" }]])
      yield* writeAll(["carol", "alice"])
      expect(yield* eventOf(alice)).toEqual([["1", { owner: "alice" }]])
      yield* settled
      expect(alice.untaken("Withdraw")).toBe(0)
      yield* writeAll(["alice", "carol"])
      expect(yield* alice.take("Withdraw")).toMatchObject({ keys: ["1"] })
    }).pipe(Effect.provide(layer)))

  it.effect.each([["counter", "notes", totals(0xffff_ffff_ffff)], ["or", "1", put({ owner: "alice" })]] as const)(
    "nobody is told of it, and its writers go on, when it turns out to be another kind: %s",
    ([kind, key, row]) =>
      Effect.gen(function*() {
        const admin = yield* enter("bob admin")
        const alice = yield* enter("alice")
        yield* open(alice, "notes")
        yield* admin.send(batch("notes", "APPLIED", sequence++, [[key, row]], { kind }))
        yield* admin.take("OpAck")
        yield* settled
        expect(alice.untaken("ServerEvent") + alice.untaken("Withdraw")).toBe(0)
        yield* alice.send(openMap("notes", 2))
        expect(yield* alice.take("Fault")).toMatchObject({ id: 2, cause: "PermissionDenied" })
      }).pipe(Effect.provide(layer))
  )

  it.effect("those of one rule and one attribute share what is shown, others have their own", () =>
    Effect.gen(function*() {
      const clients = [yield* enter("alice"), yield* enter("alice"), yield* enter("carol")] as const
      for (const client of clients) yield* open(client, "notes")
      yield* write(yield* enter("bob admin"), "notes", "1", { owner: "alice" })
      yield* settled
      expect(clients.map(({ untaken }) => untaken("ServerEvent"))).toEqual([1, 1, 0])
      expect(clients[0].frames.at(-1)).toBe(clients[1].frames.at(-1))
    }).pipe(Effect.provide(layer)))

  it.effect("a write is looked at for those whom it may concern, however many users there are", () =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin")
      for (let i = 0; i < 200; i++) yield* open(yield* enter(`user${i}`), "notes")
      const mine = yield* enter("user7")
      yield* open(mine, "notes")
      const looks = vi.spyOn(Access.prototype, "show")
      yield* write(admin, "notes", "1", { owner: "user7" })
      yield* write(admin, "notes", "1", { owner: "user8" })
      yield* write(admin, "notes", "2", { other: "user8" })
      yield* settled
      expect(looks.mock.calls.length).toBe(3)
      looks.mockRestore()
      expect(yield* eventOf(mine)).toEqual([["1", { owner: "user7" }]])
      expect((yield* mine.take("Withdraw")).keys).toEqual(["1"])
    }).pipe(Effect.provide(layer)))

  it.effect("a large one is shown when it's complete, with what was written meanwhile, to all who asked", () =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin")
      const rows = Array.from(
        { length: 3_000 },
        (_, i) => [`${i}`, put({ owner: i % 2 === 0 ? "alice" : "carol", i })] as const
      )
      for (let at = 0; at < rows.length; at += 500) {
        yield* admin.send(batch("notes", "APPLIED", sequence, rows.slice(at, at + 500)))
        sequence += 500
        yield* admin.take("OpAck")
      }
      const alice = yield* enter("alice")
      const carol = yield* enter("carol")
      const quitter = yield* enter("dave")
      yield* alice.send(openMap("notes"))
      yield* carol.send(openMap("notes"))
      yield* quitter.send(openMap("notes"))
      yield* Effect.yieldNow()
      expect(alice.untaken("SyncRoot")).toBe(0)
      quitter.connection.close(1000, "")
      // Of partitions that were looked at, and of those that weren't yet.
      for (let i = 0; i < 300; i++) {
        yield* write(admin, "notes", String(i), { owner: i % 2 === 0 ? "carol" : "alice", i })
      }
      for (const [client, parity] of [[alice, 1], [carol, 0]] as const) {
        yield* client.take("SyncRoot")
        const expected = rows.map(([key], i) => [key, i < 300 ? (i + 1) % 2 : i % 2] as const)
          .filter(([, owner]) => owner === (parity === 1 ? 0 : 1)).map(([key]) => key).sort()
        expect(Object.keys(yield* shown(client, "notes")).sort()).toEqual(expected)
      }
    }).pipe(Effect.provide(layer)))

  it.effect("one that is asked for anew before it is complete is answered both times, the first time that it is opened again", () =>
    Effect.gen(function*() {
      const policies = yield* PermissionPolicy.PermissionPolicy
      const admin = yield* enter("bob admin")
      for (let at = 0; at < 2_000; at += 500) {
        const rows = Array.from({ length: 500 }, (_, i) => [`${at + i}`, put({ owner: "alice" })] as const)
        yield* admin.send(batch("notes", "APPLIED", sequence, rows))
        sequence += 500
        yield* admin.take("OpAck")
      }
      const alice = yield* enter("alice")
      yield* alice.send(openMap("notes", 1))
      yield* alice.send(openMap("notes", 2))
      expect(yield* alice.take("Fault")).toMatchObject({ id: 1, cause: "MapReopened" })
      yield* policies.replace(policy)
      yield* alice.take("SyncAgain")
      expect(yield* alice.take("Fault")).toMatchObject({ id: 2, cause: "MapReopened" })
      yield* alice.send(openMap("notes", 3))
      expect(yield* alice.take("SyncRoot")).toMatchObject({ id: 3, partial: true })
    }).pipe(Effect.provide(layer)))

  it.effect("one too many is refused, and not kept for who was refused it", () =>
    Effect.gen(function*() {
      const policies = yield* PermissionPolicy.PermissionPolicy
      const alice = yield* enter("alice")
      yield* open(alice, "news")
      yield* alice.send(openMap("notes", 2))
      expect(yield* alice.take("Fault")).toMatchObject({ id: 2, cause: "Overloaded" })
      yield* policies.replace(policy)
      yield* settled
      expect(alice.untaken("SyncAgain")).toBe(0)
    }).pipe(Effect.provide(layerOf(policy, { subscriptionsMax: 1 }))))

  it.effect("fields that may not be read aren't sent, and a change of them isn't told", () =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin")
      yield* write(admin, "people", "1", { name: "n", mail: "m", salary: 1 })
      const alice = yield* enter("alice")
      yield* open(alice, "people")
      expect(yield* shown(alice, "people")).toEqual({ 1: { name: "n", mail: "m" } })
      yield* write(admin, "people", "1", { name: "n", mail: "m", salary: 2 })
      yield* settled
      expect(alice.untaken("ServerEvent")).toBe(0)
      yield* write(admin, "people", "1", { name: "o", mail: "m", salary: 2 })
      expect(yield* eventOf(alice)).toEqual([["1", { name: "o", mail: "m" }]])
    }).pipe(Effect.provide(layer)))

  it.effect("a write keeps the fields that its writer may not write, and he and all others see what is stored", () =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin")
      yield* write(admin, "people", "1", { name: "n", mail: "m", salary: 1 })
      yield* open(admin, "people")
      const alice = yield* enter("alice")
      yield* open(alice, "people")
      yield* write(alice, "people", "1", { name: "x", mail: "y" })
      yield* alice.take("OpAck")
      expect(yield* eventOf(alice)).toEqual([["1", { name: "n", mail: "y" }]])
      expect(yield* eventOf(admin)).toEqual([["1", { name: "n", mail: "y", salary: 1 }]])
      expect(yield* shown(admin, "people")).toEqual({ 1: { name: "n", mail: "y", salary: 1 } })
      // The same operation once more, as after a lost acknowledgement, changes nothing.
      const root = (yield* open(admin, "people")).root
      yield* alice.send(batch("people", "APPLIED", sequence++, [["1", put({ name: "x", mail: "y" }, millis - 1)]]))
      yield* alice.take("OpAck")
      expect((yield* open(admin, "people")).root).toEqual(root)
    }).pipe(Effect.provide(layer)))

  it.effect("who reads all of it and writes some fields is told what became of his write", () =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin")
      yield* write(admin, "staff", "1", { name: "n", mail: "m" })
      const clerk = yield* enter("carol clerk")
      // Whoever may not write all of it has nothing to offer.
      expect([(yield* open(clerk, "staff")).partial, (yield* open(admin, "staff")).partial]).toEqual([true, false])
      yield* write(clerk, "staff", "1", { name: "x", mail: "y" })
      yield* clerk.take("OpAck")
      expect(yield* eventOf(clerk)).toEqual([["1", { name: "n", mail: "y" }]])
    }).pipe(Effect.provide(layer)))

  it.effect("a writer is told that what he has written, or removed, isn't shown to him", () =>
    Effect.gen(function*() {
      const alice = yield* enter("alice")
      yield* open(alice, "notes")
      yield* write(alice, "notes", "1", { owner: "alice" })
      yield* alice.take("OpAck")
      yield* settled
      expect(alice.untaken("ServerEvent") + alice.untaken("Withdraw")).toBe(0)
      yield* remove(alice, "notes", "1")
      yield* alice.take("OpAck")
      expect(yield* alice.take("Withdraw")).toMatchObject({ keys: ["1"] })
    }).pipe(Effect.provide(layer)))

  it.effect("writes to what isn't his are refused, in words that say nothing of what is there", () =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin")
      yield* write(admin, "notes", "1", { owner: "carol" })
      const alice = yield* enter("alice")
      const refusalOf = (effect: Effect.Effect<void>) =>
        Effect.map(Effect.zipRight(effect, alice.take("OpReject")), ({ cause, reason }) => ({ cause, reason }))
      const hidden = yield* refusalOf(write(alice, "notes", "1", { owner: "alice" }))
      expect(hidden.cause).toBe("PermissionDenied")
      expect(yield* refusalOf(write(alice, "notes", "2", { owner: "carol" }))).toEqual(hidden)
      expect((yield* refusalOf(remove(alice, "notes", "1"))).cause).toBe("PermissionDenied")
      expect((yield* refusalOf(write(alice, "vault", "1", 1))).cause).toBe("PermissionDenied")
      expect((yield* refusalOf(write(alice, "notes", "1", { owner: "alice" }, "or"))).cause).toBe("PermissionDenied")
      expect((yield* refusalOf(write(alice, "news", "1", 1))).cause).toBe("PermissionDenied")
      expect(yield* shown(yield* Effect.tap(Effect.succeed(admin), (client) => open(client, "notes")), "notes"))
        .toEqual({ 1: { owner: "carol" } })
    }).pipe(Effect.provide(layer)))

  it.effect("an atomic batch with one write that may not be is refused whole", () =>
    Effect.gen(function*() {
      const alice = yield* enter("alice")
      const one = batch("notes", "APPLIED", sequence++, [["a", put({ owner: "alice" })]], { atomic: "more" })
      const two = batch("vault", "APPLIED", sequence++, [["b", put(1)]], { atomic: "end" })
      yield* alice.send(one, two)
      expect([(yield* alice.take("OpReject")).cause, (yield* alice.take("OpReject")).cause])
        .toEqual(["PermissionDenied", "PermissionDenied"])
      yield* open(alice, "notes")
      expect(yield* shown(alice, "notes")).toEqual({})
    }).pipe(Effect.provide(layer)))
})

describe("A change of what may be read", () => {
  it.effect("by another policy stops what is told at once, and the client is told to open the map again", () =>
    Effect.gen(function*() {
      const policies = yield* PermissionPolicy.PermissionPolicy
      const admin = yield* enter("bob admin")
      const alice = yield* enter("alice")
      yield* open(alice, "news")
      yield* open(alice, "notes")
      yield* open(admin, "news")
      for (let i = 0; i < 50; i++) yield* write(admin, "news", String(i), i)
      yield* policies.replace({
        ...policy,
        rules: policy.rules.filter(({ maps }) => maps[0] !== "news")
      })
      const before = alice.frames.length
      for (let i = 0; i < 50; i++) yield* write(admin, "news", String(i), `after ${i}`)
      yield* settled
      expect([(yield* alice.take("SyncAgain")).map, (yield* alice.take("SyncAgain")).map].sort()).toEqual([
        "news",
        "notes"
      ])
      expect(alice.frames.slice(before).join("")).not.toContain("after")
      // What was asked before the client has heard of it is refused, and the connection goes on.
      yield* alice.send({ _tag: "SyncPull", id: 7, map: "news", node: [0, ""], after: null })
      expect(yield* alice.take("Fault")).toMatchObject({ id: 7, cause: "MapReopened" })
      yield* alice.send(openMap("news", 8))
      expect(yield* alice.take("Fault")).toMatchObject({ id: 8, cause: "PermissionDenied" })
      expect((yield* open(alice, "notes", 9)).partial).toBe(true)
      yield* write(admin, "notes", "1", { owner: "alice" })
      expect(yield* eventOf(alice)).toEqual([["1", { owner: "alice" }]])
      // And when it is granted after all, it is told.
      yield* policies.replace(policy)
      expect([(yield* alice.take("SyncAgain")).map, (yield* alice.take("SyncAgain")).map].sort()).toEqual([
        "news",
        "notes"
      ])
      yield* open(alice, "news", 10)
      // Whoever may read as before isn't disturbed.
      expect(admin.untaken("SyncAgain")).toBe(0)
    }).pipe(Effect.provide(layer)))

  it.effect("by a policy with other conditions shows what these say", () =>
    Effect.gen(function*() {
      const policies = yield* PermissionPolicy.PermissionPolicy
      const admin = yield* enter("bob admin")
      yield* write(admin, "notes", "1", { owner: "alice" })
      yield* write(admin, "notes", "2", { owner: "carol", author: "alice" })
      const alice = yield* enter("alice")
      yield* open(alice, "notes")
      expect(yield* shown(alice, "notes")).toEqual({ 1: { owner: "alice" } })
      yield* policies.replace({
        rules: policy.rules.map((rule) =>
          rule.where === owned ? { ...rule, where: { author: { principal: "userId" } } } : rule
        )
      })
      yield* alice.take("SyncAgain")
      yield* open(alice, "notes")
      expect(yield* shown(alice, "notes")).toEqual({ 2: { owner: "carol", author: "alice" } })
    }).pipe(Effect.provide(layer)))

  it.effect("is noticed by whoever has asked for so many maps that the first are forgotten", () =>
    Effect.gen(function*() {
      const policies = yield* PermissionPolicy.PermissionPolicy
      const admin = yield* enter("bob admin")
      const alice = yield* enter("alice")
      yield* open(alice, "news")
      for (let i = 0; i < 1_001; i++) yield* write(alice, `elsewhere ${i}`, "1", 1)
      yield* Effect.iterate(0, { while: () => alice.untaken("OpReject") < 1_001, body: () => Effect.as(settled, 0) })
      expect(alice.untaken("OpReject")).toBe(1_001)
      yield* policies.replace({ rules: policy.rules.slice(0, 1) })
      yield* write(admin, "news", "1", "after")
      yield* settled
      expect(yield* alice.take("SyncAgain")).toMatchObject({ map: "news" })
      expect(alice.untaken("ServerEvent")).toBe(0)
    }).pipe(Effect.provide(layer)))

  it.effect("between a write and its acknowledgement is heeded: the writer is told that it isn't shown to him", () =>
    Effect.scoped(Effect.gen(function*() {
      const file = join(mkdtempSync(join(tmpdir(), "topgun-permissions-")), "data")
      yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(join(file, ".."), { recursive: true })))
      yield* Effect.gen(function*() {
        const policies = yield* PermissionPolicy.PermissionPolicy
        const alice = yield* enter("alice")
        yield* open(alice, "free")
        yield* alice.send(batch("free", "PERSISTED", sequence++, [["1", put({ owner: "carol" }, millis++)]]))
        yield* Effect.promise(() => Promise.resolve())
        yield* policies.replace({ rules: [{ ...free, where: owned }] })
        yield* alice.take("SyncAgain")
        expect((yield* open(alice, "free", 2)).partial).toBe(true)
        yield* alice.take("OpAck")
        expect(yield* alice.take("Withdraw")).toMatchObject({ map: "free", keys: ["1"] })
      }).pipe(Effect.provide(layerOf({ rules: [free] }, { storage: "sqlite", dataDir: file })))
    })))

  it.effect("that is a wrong policy changes nothing", () =>
    Effect.gen(function*() {
      const policies = yield* PermissionPolicy.PermissionPolicy
      const alice = yield* enter("alice")
      yield* open(alice, "news")
      expect((yield* Effect.flip(policies.replace({ rules: 7 }))).faults).not.toEqual([])
      yield* settled
      expect(alice.untaken("SyncAgain")).toBe(0)
    }).pipe(Effect.provide(layer)))

  it.effect("by a new token of other roles concerns the maps of which another part may be read", () =>
    Effect.gen(function*() {
      const carol = yield* enter("carol clerk")
      const admin = yield* enter("bob admin")
      for (const map of ["staff", "news", "notes"]) yield* open(carol, map)
      yield* carol.send({ _tag: "AuthRenew", id: 5, token: "carol" })
      yield* carol.take("AuthRenewAck")
      expect((yield* carol.take("SyncAgain")).map).toBe("staff")
      yield* write(admin, "staff", "1", { name: "secret" })
      yield* settled
      expect(carol.untaken("SyncAgain") + carol.untaken("ServerEvent")).toBe(0)
      yield* write(carol, "staff", "1", { mail: "m" })
      expect((yield* carol.take("OpReject")).cause).toBe("PermissionDenied")
    }).pipe(Effect.provide(layer)))
})

// --- Everything that a client can send ---

describe("Somebody to whom nothing is granted", () => {
  const id = 3
  const row = put({ owner: "mallory" }, 50_000)
  const denied = { _tag: "Fault", id, cause: "PermissionDenied" } as const
  /** What comes of each message; `closes` ends the connection. Nothing else comes. */
  const cases: {
    readonly [Tag in Protocol.ClientMessage["_tag"]]: {
      readonly says: Extract<Protocol.ClientMessage, { readonly _tag: Tag }>
      readonly hears: ReadonlyArray<Partial<Protocol.ServerMessage>> | "closes"
    }
  } = {
    Auth: { says: authAnew(), hears: "closes" },
    AuthRenew: { says: { _tag: "AuthRenew", id, token: "mallory" }, hears: [{ _tag: "AuthRenewAck" }] },
    AuthKept: { says: { _tag: "AuthKept", secret: "x" }, hears: [] },
    Confirmed: { says: { _tag: "Confirmed", age: 0 }, hears: [] },
    SyncInit: { says: openMap("vault", id) as typeof Protocol.SyncInit.Type, hears: [denied] },
    SyncBuckets: {
      says: { _tag: "SyncBuckets", id, map: "vault", lane: 0, nodes: Uint8Array.of(0, 1) },
      hears: "closes"
    },
    SyncFetch: {
      says: { _tag: "SyncFetch", id, map: "vault", wants: new Uint8Array(10), after: null },
      hears: "closes"
    },
    SyncPull: {
      says: { _tag: "SyncPull", id, map: "vault", node: [partitionOf("canary"), ""], after: null },
      hears: "closes"
    },
    QueryOpen: {
      says: { _tag: "QueryOpen", id, map: "vault", query: Value.encode({ where: { owner: "mallory" } }) },
      hears: [denied]
    },
    QueryClose: { says: { _tag: "QueryClose", id }, hears: [] },
    Traced: {
      says: { _tag: "Traced", parent: `00-${"1".repeat(32)}-${"2".repeat(16)}-01` },
      hears: []
    },
    OpBatch: {
      says: batch("vault", "APPLIED", 1_000_000, [["canary", row], ["other", row]]),
      hears: [{ _tag: "OpReject", cause: "PermissionDenied" }, { _tag: "OpReject", cause: "PermissionDenied" }]
    },
    Ping: { says: { _tag: "Ping", id }, hears: [{ _tag: "Pong", id }] },
    Call: {
      says: {
        _tag: "Call",
        payload: new TextEncoder().encode(
          JSON.stringify({ _tag: "Request", id: "1", tag: "Status", headers: [], payload: null })
        )
      },
      hears: [{ _tag: "Reply" }]
    }
  }

  it("is asked about every message and every call that there is", () => {
    expect(Object.keys(cases).sort()).toEqual(
      Protocol.ClientMessage.members
        .map(({ fields: { _tag: { ast } } }) => "type" in ast ? JSON.parse(String(ast.type)) : undefined).sort()
    )
    expect(Array.from(GridRpcs.requests.keys())).toEqual(["Status", "Query", "Count", "Explain"])
  })

  for (const tag of ["Query", "Count", "Explain"]) {
    it.effect(`is denied the call ${tag}`, () =>
      Effect.gen(function*() {
        const admin = yield* enter("bob admin")
        yield* write(admin, "vault", "canary", { text: "canary" })
        const mallory = yield* enter("mallory")
        for (const map of ["vault", "nowhere"]) {
          yield* mallory.send(call("1", tag, { map, query: {} }))
          const { payload } = yield* mallory.take("Reply")
          const told = new TextDecoder().decode(payload)
          expect(told).toContain("PermissionDenied")
          expect(told).not.toContain("canary")
        }
      }).pipe(Effect.provide(layerOf({ rules: policy.rules.slice(0, 1) }))))
  }

  for (const [tag, { hears, says }] of Object.entries(cases)) {
    it.effect(`learns nothing by ${tag}`, () =>
      Effect.gen(function*() {
        const admin = yield* enter("bob admin")
        yield* write(admin, "vault", "canary", { text: "canary" })
        const mallory = yield* enter("mallory")
        const before = mallory.frames.length
        yield* mallory.send(says)
        yield* settled
        yield* settled
        if (hears === "closes") yield* mallory.closed
        else {
          const heard = mallory.frames.slice(before).flatMap((frame) =>
            Protocol.decodeFromServer(new Uint8Array(Buffer.from(frame, "latin1")))
          )
          expect(heard).toMatchObject(hears)
        }
        const told = mallory.frames.join("")
        if (tag === "Call") expect(told).toContain("PermissionDenied")
        expect(told).not.toContain("canary\"")
        expect(told).not.toContain("text")
        yield* open(admin, "vault")
        expect(yield* shown(admin, "vault")).toEqual({ canary: { text: "canary" } })
      }).pipe(Effect.provide(layerOf({ rules: policy.rules.slice(0, 1) }))))
  }
})

// --- Queries ---

describe("A query of somebody who may read a part of a map", () => {
  const rowsOf = (client: PlainClient) =>
    Effect.map(client.take("QueryRows"), ({ left, records }) => ({
      records: Object.fromEntries(records.map(([key, row]) => [key, valueOf(row)])),
      left
    }))
  const refusal = (client: PlainClient, asked: Protocol.ClientMessage) =>
    Effect.zipRight(client.send(asked), Effect.map(client.take("Fault"), ({ cause, reason }) => ({ cause, reason })))
  const callOf = (client: PlainClient, tag: string, payload: unknown) =>
    Effect.zipRight(
      client.send(call("1", tag, payload)),
      Effect.map(client.take("Reply"), ({ payload: told }) => new TextDecoder().decode(told))
    )

  it.effect("finds, orders and shows what he may read, and is told of nothing else", () =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin")
      const alice = yield* enter("alice")
      yield* write(admin, "notes", "1", { owner: "alice", n: 1 })
      yield* write(admin, "notes", "2", { owner: "carol", n: 0 })
      yield* alice.send(askOf(1, "notes", { orderBy: [{ field: "n" }], limit: 1 }))
      expect(yield* alice.take("QueryRows")).toMatchObject({ hasMore: false, records: [["1", expect.anything()]] })
      yield* write(admin, "notes", "3", { owner: "carol", n: 0 })
      yield* settled
      expect(alice.untaken("QueryRows")).toBe(0)
      yield* write(admin, "notes", "1", { owner: "carol", n: 1 })
      expect(yield* rowsOf(alice)).toEqual({ records: {}, left: ["1"] })
    }).pipe(Effect.provide(layer)))

  it.effect("isn't told that a hidden field has changed, by a version's number neither", () =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin")
      const alice = yield* enter("alice")
      yield* write(admin, "people", "1", { name: "x", salary: 1 })
      yield* alice.send(askOf(1, "people", {}))
      expect(yield* alice.take("QueryRows")).toMatchObject({ version: 1 })
      for (let salary = 2; salary < 5; salary++) {
        yield* write(admin, "people", "1", { name: "x", salary })
        yield* settled
      }
      expect(alice.untaken("QueryRows")).toBe(0)
      yield* write(admin, "people", "1", { name: "y", salary: 5 })
      const told = yield* alice.take("QueryRows")
      expect(told).toMatchObject({ version: 2, after: 1 })
      expect(told.records.map(([key, row]) => [key, valueOf(row)])).toEqual([["1", { name: "y" }]])
    }).pipe(Effect.provide(layer)))

  it.effect("is refused for a field that nothing shows him, with its place, and shows none that he selects", () =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin")
      const alice = yield* enter("alice")
      yield* write(admin, "people", "1", { name: "x", salary: 1 })
      for (
        const [query, at] of [
          [{ where: { salary: 1 } }, "salary"],
          [{ where: { or: [{ name: "x" }, { "salary.net": { gt: 0 } }] } }, "salary.net"],
          [{ where: { salary: { exists: false } } }, "salary"],
          [{ orderBy: [{ field: "name" }, { field: "salary" }] }, "$.orderBy[1].field"]
        ] as const
      ) {
        const { cause, reason } = yield* refusal(alice, askOf(1, "people", query))
        expect(cause).toBe("QueryInvalid")
        expect(reason).toContain(at)
        expect(yield* callOf(alice, "Query", { map: "people", query })).toContain("QueryInvalid")
        if ("where" in query) expect(yield* callOf(alice, "Count", { map: "people", query })).toContain("QueryInvalid")
      }
      yield* alice.send(askOf(1, "people", { select: ["salary", "name"] }))
      expect((yield* rowsOf(alice)).records).toEqual({ 1: { name: "x" } })
    }).pipe(Effect.provide(layer)))

  it.effect("finds nothing by a field in the records that don't show it to him, where others do", () =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin")
      const alice = yield* enter("alice")
      yield* write(admin, "mixed", "1", { owner: "alice", secret: 7 })
      yield* write(admin, "mixed", "2", { owner: "carol", secret: 7 })
      yield* write(admin, "mixed", "3", { owner: "carol", secret: 0 })
      yield* alice.send(
        askOf(1, "mixed", { where: { secret: 7 } }),
        askOf(2, "mixed", { orderBy: [{ field: "secret" }] })
      )
      expect((yield* rowsOf(alice)).records).toEqual({ 1: { owner: "alice", secret: 7 } })
      expect((yield* rowsOf(alice)).records)
        .toEqual({ 1: { owner: "alice", secret: 7 }, 2: { owner: "carol" }, 3: { owner: "carol" } })
      expect(yield* callOf(alice, "Count", { map: "mixed", query: { where: { secret: 7 } } })).toContain("\"value\":1")
    }).pipe(Effect.provide(layerOf({
      rules: [
        policy.rules[0]!,
        { maps: ["mixed"], roles: ["user"], allow: ["read"], where: owned },
        { maps: ["mixed"], roles: ["user"], allow: ["read"], fields: { read: ["owner"] } }
      ]
    }))))

  it.effect("is told nothing of how many others there are: no plan, and no figures of a refusal", () =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin")
      const alice = yield* enter("alice")
      for (let i = 0; i < 2; i++) {
        yield* admin.send(batch(
          "notes",
          "APPLIED",
          sequence,
          Array.from({ length: 500 }, (_, j) => [`${i} ${j}`, put({ owner: "carol" }, millis++)] as const)
        ))
        sequence += 500
      }
      expect(yield* callOf(alice, "Explain", { map: "notes", query: {} })).toContain("PermissionDenied")
      const { cause, reason } = yield* refusal(alice, askOf(1, "notes", {}))
      expect(cause).toBe("QueryTooExpensive")
      expect(reason).not.toMatch(/1000|records/)
      expect(yield* callOf(admin, "Explain", { map: "notes", query: {} })).toContain("\"records\":1000")
    }).pipe(Effect.provide(layerOf(policy, { queryMillisMax: 1 }))))

  it.effect("of a map that is one of sets finds nothing, as of one that isn't there", () =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin")
      const alice = yield* enter("alice")
      yield* alice.send(askOf(1, "notes", {}))
      expect(yield* rowsOf(alice)).toEqual({ records: {}, left: [] })
      yield* write(admin, "notes", "1", { owner: "alice" }, "or")
      yield* settled
      expect(alice.untaken("Fault") + alice.untaken("QueryRows")).toBe(0)
      yield* alice.send(askOf(2, "notes", { limit: 1 }))
      expect(yield* rowsOf(alice)).toEqual({ records: {}, left: [] })
      expect(yield* callOf(alice, "Count", { map: "notes", query: {} })).toContain("\"value\":0")
      expect((yield* refusal(admin, askOf(1, "notes", {}))).cause).toBe("MapKindMismatch")
    }).pipe(Effect.provide(layer)))

  it.effect("begins anew under another policy, though its rules are of the same form, or is ended by it", () =>
    Effect.gen(function*() {
      const policies = yield* PermissionPolicy.PermissionPolicy
      const admin = yield* enter("bob admin")
      const alice = yield* enter("alice")
      const bob = yield* enter("bob admin")
      yield* write(admin, "notes", "1", { owner: "alice", open: false })
      yield* write(admin, "notes", "2", { owner: "carol", open: true })
      for (const each of [alice, bob]) yield* each.send(askOf(1, "notes", {}))
      const { query: first } = yield* alice.take("QueryAck")
      expect((yield* rowsOf(alice)).records).toEqual({ 1: { owner: "alice", open: false } })
      yield* bob.take("QueryAck")
      yield* rowsOf(bob)
      const [all, mine] = policy.rules as [PermissionPolicy.Rule, PermissionPolicy.Rule]
      yield* policies.replace({
        rules: [all, { ...mine, where: { open: true, owner: { neq: { principal: "userId" } } } }]
      })
      expect((yield* alice.take("QueryAck")).query).not.toBe(first)
      expect(yield* alice.take("QueryRows")).toMatchObject({ after: 0, records: [["2", expect.anything()]] })
      // Who comes now doesn't share what was shown before.
      const dora = yield* enter("dora")
      yield* dora.send(askOf(1, "notes", {}))
      expect((yield* rowsOf(dora)).records).toEqual({ 2: { owner: "carol", open: true } })
      yield* policies.replace({ rules: [all] })
      expect(yield* alice.take("Fault")).toMatchObject({ id: 1, cause: "PermissionDenied" })
      yield* write(admin, "notes", "2", { owner: "carol", open: true, n: 2 })
      yield* rowsOf(bob)
      expect(alice.untaken("QueryRows") + bob.untaken("QueryAck")).toBe(0)
    }).pipe(Effect.provide(layer)))

  it.effect("begins anew by a token of other attributes, and only where it shows something else", () =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin")
      yield* write(admin, "staff", "1", { name: "x" })
      yield* write(admin, "notes", "1", { owner: "carol" })
      const carol = yield* enter("carol clerk")
      yield* carol.send(askOf(1, "staff", {}), askOf(2, "notes", {}))
      for (let i = 0; i < 2; i++) expect(Object.keys((yield* rowsOf(carol)).records)).toEqual(["1"])
      for (let i = 0; i < 2; i++) yield* carol.take("QueryAck")
      yield* carol.send({ _tag: "AuthRenew", id: 5, token: "carol" })
      yield* carol.take("AuthRenewAck")
      expect(yield* carol.take("Fault")).toMatchObject({ id: 1, cause: "PermissionDenied" })
      yield* write(admin, "staff", "1", { name: "y" })
      yield* settled
      expect(carol.untaken("QueryAck") + carol.untaken("QueryRows")).toBe(0)
    }).pipe(Effect.provide(layer)))
})

// --- Non-interference ---

describe("What a user may not read", () => {
  const key = fc.constantFrom("0", "1", "2", "3")
  const step = fc.oneof(
    {
      arbitrary: fc.record({ by: fc.constant("admin-note" as const), key, mine: fc.boolean(), n: fc.nat(2) }),
      weight: 3
    },
    { arbitrary: fc.record({ by: fc.constant("admin-hidden-note" as const), key, n: fc.nat(2) }), weight: 2 },
    { arbitrary: fc.record({ by: fc.constant("admin-person" as const), key, n: fc.nat(2) }), weight: 2 },
    fc.record({ by: fc.constant("admin-vault" as const), key, n: fc.nat(2) }),
    fc.record({ by: fc.constant("admin-news" as const), key, n: fc.nat(2) }),
    fc.record({
      by: fc.constantFrom("admin-removes-note" as const, "admin-removes-hidden" as const),
      key,
      n: fc.nat(2)
    }),
    {
      arbitrary: fc.record({
        by: fc.constantFrom("note" as const, "removes-note" as const, "person" as const, "vault" as const),
        key,
        n: fc.nat(2)
      }),
      weight: 2
    },
    {
      arbitrary: fc.record({
        by: fc.constantFrom(
          "opens" as const,
          "pulls" as const,
          "walks" as const,
          "asks" as const,
          "queries" as const,
          "calls" as const,
          "leaves" as const
        ),
        key: fc.constantFrom("notes", "people", "vault", "news"),
        n: fc.nat(270)
      }),
      weight: 3
    }
  )

  /** Those of hidden fields among them. */
  const queries = [
    {},
    { orderBy: [{ field: "n", direction: "desc" }], limit: 2 },
    { where: { owner: "carol" } },
    { where: { n: { gt: 0 } }, orderBy: [{ field: "owner" }], limit: 1 },
    { where: { salary: { gt: 100 } } },
    { orderBy: [{ field: "salary" }], limit: 1 },
    { where: { not: { salary: { exists: true } } } },
    { select: ["name", "salary"], limit: 2 },
    { where: { name: { in: [0, 1] } }, limit: 1 },
    { where: { secret: { startsWith: "a" } } }
  ]

  /** All bytes that alice gets, in a world with one secret or another. */
  const bytesOf = (steps: ReadonlyArray<(typeof step) extends fc.Arbitrary<infer A> ? A : never>, secret: "a" | "b") =>
    Effect.gen(function*() {
      const admin = yield* enter("bob admin", "admin00000000000")
      const alice = yield* enter("alice", "alice00000000000")
      const opened = new Set<string>()
      const other = secret === "b"
      let at = 0
      const rows = (client: PlainClient, map: string, cell: string, row: Uint8Array) =>
        client.send(batch(map, "APPLIED", at, [[cell, row]]))
      for (const { by, key: cell, n, ...rest } of steps) {
        at++
        const stamp = 1_000 + at
        switch (by) {
          case "admin-note":
            yield* rows(admin, "notes", cell, put({ owner: "mine" in rest && rest.mine ? "alice" : "carol", n }, stamp))
            break
          case "admin-hidden-note":
            // Other values, other keys, and now and then none at all.
            if (other && n === 0) break
            yield* rows(
              admin,
              "notes",
              `hidden ${cell} ${other}`,
              put({ owner: "carol", n: other ? n : "x".repeat(n * 9) }, stamp)
            )
            break
          case "admin-person":
            yield* rows(admin, "people", cell, put({ name: n, salary: other ? n + 100 : "low" }, stamp))
            break
          case "admin-vault":
            if (other) break
            // Of a clock that is ahead of everybody else's.
            yield* rows(admin, "vault", cell, put({ secret, n }, 20_000 + at))
            break
          case "admin-news":
            yield* rows(admin, "news", cell, put(n, stamp))
            break
          case "admin-removes-note":
            yield* rows(admin, "notes", cell, removal(stamp))
            break
          case "admin-removes-hidden":
            if (other) yield* rows(admin, "notes", `hidden ${cell} ${other}`, removal(stamp))
            break
          case "note":
            yield* rows(alice, "notes", cell, put({ owner: "alice", n }, stamp))
            break
          case "removes-note":
            yield* rows(alice, "notes", cell, removal(stamp))
            break
          case "person":
            yield* rows(alice, "people", cell, put({ mail: n }, stamp))
            break
          case "vault":
            yield* rows(alice, "vault", cell, put(n, stamp))
            break
          case "opens":
            for (const map of ["notes", "people", "vault", "news"]) {
              opened.add(map)
              yield* alice.send(openMap(map, at))
            }
            break
          case "pulls":
            if (opened.has(cell) && cell !== "vault") {
              yield* alice.send({ _tag: "SyncPull", id: at, map: cell, node: [n, ""], after: null })
            }
            break
          case "walks":
            if (opened.has(cell) && cell !== "vault") {
              for (const partition of [partitionOf("0"), partitionOf("1")].sort((a, b) => a - b)) {
                yield* alice.send({
                  _tag: "SyncBuckets",
                  id: at,
                  map: cell,
                  lane: 1,
                  nodes: partition < 255
                    ? Uint8Array.of(0, partition)
                    : Uint8Array.of(0, 255, partition >> 8, partition & 255)
                })
              }
            }
            break
          case "queries":
            yield* alice.send(askOf(n % 6, cell, queries[n % queries.length]!))
            break
          case "leaves":
            yield* alice.send({ _tag: "QueryClose", id: n % 6 })
            break
          case "calls":
            yield* alice.send(
              call(String(at), ["Query", "Count", "Explain"][n % 3]!, { map: cell, query: queries[n % queries.length] })
            )
            yield* settled
            break
          case "asks":
            yield* alice.send(
              { _tag: "Ping", id: at },
              {
                _tag: "Call",
                payload: new TextEncoder().encode(
                  JSON.stringify({ _tag: "Request", id: String(at), tag: "Status", headers: [], payload: null })
                )
              }
            )
        }
        yield* settled
      }
      return alice.frames.map((frame) => Buffer.from(frame, "latin1").toString("hex"))
    }).pipe(Effect.provide(Layer.fresh(layer)), Effect.withRandom(Random.make("fixed")))

  it.effect.prop(
    "changes no byte that he is sent",
    [fc.array(step, { minLength: 1, maxLength: 25 })],
    ([steps]) =>
      Effect.gen(function*() {
        expect(yield* bytesOf(steps, "b")).toEqual(yield* bytesOf(steps, "a"))
      }),
    { fastCheck: { numRuns: 60 } }
  )
})
