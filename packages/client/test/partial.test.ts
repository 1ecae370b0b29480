/** Maps that a user may read in part, in simulated worlds. The token is the user's name; `root` may everything. */
import { describe, expect, it } from "@effect/vitest"
import type * as ClientConfig from "@topgun/client/ClientConfig"
import * as Protocol from "@topgun/core/Protocol"
import * as Storage from "@topgun/core/Storage"
import * as Authentication from "@topgun/server/Authentication"
import * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import { type Client, inWorld, isSettled } from "./worlds.ts"

const rules: PermissionPolicy.Policy["rules"] = [
  { maps: ["*"], roles: ["root"], allow: ["read", "put", "remove"] },
  {
    maps: ["notes"],
    roles: ["user"],
    allow: ["read", "put", "remove"],
    where: { owner: { principal: "userId" } }
  },
  {
    maps: ["people"],
    roles: ["user"],
    allow: ["read", "put", "remove"],
    fields: { read: ["name", "mail"], write: ["mail"] }
  },
  { maps: ["news"], roles: ["user"], allow: ["read"] },
  { maps: ["staff"], roles: ["user"], allow: ["read"] },
  { maps: ["staff"], roles: ["user"], allow: ["put"], fields: { write: ["mail"] } }
]
const all: PermissionPolicy.Rule = { maps: ["notes"], roles: ["user"], allow: ["read"] }

interface Note {
  readonly owner: string
  readonly n?: number
}

const makeWorldOf = Effect.fnUntraced(function*(between?: World.Between) {
  const clock = yield* VirtualClock.VirtualClock
  const network = yield* Network.SimulatedNetwork
  const context = yield* Layer.build(PermissionPolicy.layer({ rules }))
  const policies = Context.get(context, PermissionPolicy.PermissionPolicy)
  const verify = Authentication.layerVerifier((userId) => Effect.succeed({ userId, roles: [userId] }))
  const layer = TopGunServer.layerInProcess({ auth: "token" }).pipe(
    Layer.provide(Layer.merge(verify, Layer.succeedContext(context)))
  )
  /** What has been sent to the server. */
  const sent: Array<Protocol.ClientMessage> = []
  const server = yield* World.serve(layer, (connection) => {
    const theirs = between?.(connection) ?? connection
    return {
      ...theirs,
      listen: (onFrame, onClose) =>
        theirs.listen((frame) => {
          sent.push(...Protocol.decodeFromClient(new Uint8Array(frame)))
          onFrame(frame)
        }, onClose)
    }
  })
  const enter = Effect.fnUntraced(function*(
    name: string,
    device: Storage.StorageAdapter = Storage.memory(),
    options: ClientConfig.Options = {}
  ) {
    const client = yield* World.startClient(name, { auth: name, ...options }, device)
    const notes = yield* client.map<Note>("notes")
    yield* clock.runUntil(() => client.status.current.state === "CONNECTED")
    return { ...client, notes }
  })
  /** Until nothing is on its way. */
  const quiet = (...clients: ReadonlyArray<Client>) =>
    Effect.zipRight(clock.runUntil(() => clients.every(isSettled)), clock.advance(5_000))
  return { clock, network, policies, sent, server, layer, enter, quiet }
})
const makeWorld = makeWorldOf()

const entriesOf = <A>(map: { readonly entries: () => Iterable<readonly [string, A]> }) =>
  Object.fromEntries(Array.from(map.entries()).sort(([a], [b]) => a < b ? -1 : 1))

describe("A map that may be read in part", () => {
  it.scoped("shows what may be read, as it comes, changes and goes", () =>
    Effect.gen(function*() {
      const { enter, quiet } = yield* makeWorld
      const root = yield* enter("root")
      yield* root.notes.set("1", { owner: "alice" })
      yield* root.notes.set("2", { owner: "carol" })
      yield* quiet(root)
      const alice = yield* enter("alice")
      yield* quiet(alice)
      expect(entriesOf(alice.notes)).toEqual({ 1: { owner: "alice" } })
      const changes: Array<unknown> = []
      alice.notes.subscribe((batch) => changes.push(...batch.map(({ key, value }) => [key, value])))
      yield* root.notes.set("2", { owner: "alice" })
      yield* quiet(root)
      yield* root.notes.set("1", { owner: "carol" })
      yield* quiet(root)
      expect(entriesOf(alice.notes)).toEqual({ 2: { owner: "alice" } })
      expect(changes).toEqual([["2", { owner: "alice" }], ["1", undefined]])
    }).pipe(inWorld()))

  it.scoped("loses what went while the device was away, offers none of it, and keeps what it has written meanwhile", () =>
    Effect.gen(function*() {
      const { clock, enter, network, quiet, sent } = yield* makeWorld
      const root = yield* enter("root")
      const alice = yield* enter("alice")
      for (const key of ["1", "2", "3"]) yield* root.notes.set(key, { owner: "alice" })
      yield* quiet(root, alice)
      expect(Object.keys(entriesOf(alice.notes))).toEqual(["1", "2", "3"])
      network.cut("alice")
      yield* root.notes.set("1", { owner: "carol" })
      yield* root.notes.remove("2")
      yield* quiet(root)
      yield* alice.notes.set("4", { owner: "alice" })
      sent.length = 0
      network.heal("alice")
      yield* clock.runUntil(() => alice.status.current.state === "CONNECTED")
      yield* quiet(root, alice)
      expect(entriesOf(alice.notes)).toEqual({ 3: { owner: "alice" }, 4: { owner: "alice" } })
      expect(entriesOf(root.notes)).toEqual({
        1: { owner: "carol" },
        3: { owner: "alice" },
        4: { owner: "alice" }
      })
      expect(alice.rejectedWrites.current).toEqual([])
      const keys = sent.flatMap((message) => message._tag === "OpBatch" ? message.ops.map(([, key]) => key) : [])
      expect(keys).toEqual(["4"])
    }).pipe(inWorld()))

  it.scoped("is compared by one question where nothing has changed, whoever wrote what it shows", () =>
    Effect.gen(function*() {
      const { clock, enter, network, quiet, sent } = yield* makeWorld
      const root = yield* enter("root")
      const people = yield* root.map<Record<string, unknown>>("people")
      yield* people.set("1", { name: "n", mail: "m", salary: 1 })
      const alice = yield* enter("alice")
      const seen = yield* alice.map<Record<string, unknown>>("people")
      yield* quiet(root, alice)
      yield* seen.set("1", { name: "n", mail: "m" })
      yield* alice.notes.set("1", { owner: "alice" })
      yield* alice.notes.remove("1")
      yield* quiet(root, alice)
      network.cut("alice")
      yield* clock.runUntil(() => alice.status.current.state !== "CONNECTED")
      sent.length = 0
      network.heal("alice")
      yield* clock.runUntil(() => alice.status.current.state === "CONNECTED")
      expect(sent.map(({ _tag }) => _tag).filter((tag) => tag.startsWith("Sync")).sort()).toEqual([
        "SyncInit",
        "SyncInit"
      ])
    }).pipe(inWorld()))

  it.scoped("shows no more than what may be read now of records that were shown with more", () =>
    Effect.gen(function*() {
      const { enter, policies, quiet } = yield* makeWorld
      const root = yield* enter("root")
      const people = yield* root.map<Record<string, unknown>>("people")
      yield* people.set("1", { name: "n", mail: "m", salary: 1 })
      const alice = yield* enter("alice")
      const seen = yield* alice.map("people")
      yield* quiet(root, alice)
      expect(entriesOf(seen)).toEqual({ 1: { name: "n", mail: "m" } })
      yield* policies.replace({
        rules: rules.map((rule) => rule.fields === undefined ? rule : { ...rule, fields: { read: ["name"] } })
      })
      yield* quiet(root, alice)
      expect(entriesOf(seen)).toEqual({ 1: { name: "n" } })
    }).pipe(inWorld()))

  it.scoped("is in step after a write that keeps what its writer may not write, on all devices alike", () =>
    Effect.gen(function*() {
      const { enter, quiet } = yield* makeWorld
      const root = yield* enter("root")
      const people = yield* root.map<Record<string, unknown>>("people")
      yield* people.set("1", { name: "n", mail: "m", salary: 1 })
      const device = Storage.memory()
      const alice = yield* enter("alice", device)
      const seen = yield* alice.map<Record<string, unknown>>("people")
      yield* quiet(root, alice)
      expect(entriesOf(seen)).toEqual({ 1: { name: "n", mail: "m" } })
      yield* seen.set("1", { name: "mine", mail: "new" })
      yield* quiet(root, alice)
      expect(entriesOf(seen)).toEqual({ 1: { name: "n", mail: "new" } })
      expect(entriesOf(people)).toEqual({ 1: { name: "n", mail: "new", salary: 1 } })
      // As it is stored, too.
      yield* alice.close
      const again = yield* enter("alice", device)
      expect(entriesOf(yield* again.map("people"))).toEqual({ 1: { name: "n", mail: "new" } })
    }).pipe(inWorld()))

  it.scoped("follows its policy: what may be read no longer goes from the device, and comes when it may be read again", () =>
    Effect.gen(function*() {
      const { clock, enter, policies, quiet } = yield* makeWorld
      const faults: Array<unknown> = []
      const root = yield* enter("root")
      const device = Storage.memory()
      const alice = yield* enter("alice", device, { onError: (fault) => void faults.push(fault) })
      yield* root.notes.set("1", { owner: "alice" })
      yield* root.notes.set("2", { owner: "carol" })
      yield* policies.replace({ rules: [...rules, all] })
      yield* quiet(root, alice)
      expect(Object.keys(entriesOf(alice.notes))).toEqual(["1", "2"])
      yield* policies.replace({ rules })
      yield* quiet(root, alice)
      expect(Object.keys(entriesOf(alice.notes))).toEqual(["1"])
      yield* policies.replace({ rules: rules.slice(0, 1) })
      yield* quiet(root, alice)
      expect(entriesOf(alice.notes)).toEqual({})
      expect(faults).toMatchObject([{ _tag: "MapRefused" }])
      // Nothing is left to wait for.
      let isSynced = false
      yield* Effect.forkScoped(Effect.map(alice.synced, () => {
        isSynced = true
      }))
      yield* clock.advance(1_000)
      expect(isSynced).toBe(true)
      const stored = yield* Effect.promise(() => device.scan("records", undefined, 10))
      expect(stored.map(({ value }) => Buffer.from(value).toString("latin1")).join("")).not.toContain("owner")
      yield* policies.replace({ rules })
      yield* quiet(root, alice)
      expect(Object.keys(entriesOf(alice.notes))).toEqual(["1"])
    }).pipe(inWorld()))

  it.scoped("has the last of several writes in quick succession, though the server keeps fields in each", () =>
    Effect.gen(function*() {
      const { clock, enter, quiet } = yield* makeWorld
      const root = yield* enter("root")
      const people = yield* root.map<Record<string, unknown>>("people")
      yield* people.set("1", { name: "n", mail: "m", salary: 1 })
      const alice = yield* enter("alice")
      const seen = yield* alice.map<Record<string, unknown>>("people")
      yield* quiet(root, alice)
      for (const mail of ["a", "b", "c"]) {
        yield* seen.set("1", { name: "n", mail })
        yield* clock.advance(1)
      }
      yield* quiet(root, alice)
      expect(entriesOf(people)).toEqual({ 1: { name: "n", mail: "c", salary: 1 } })
      expect(entriesOf(seen)).toEqual({ 1: { name: "n", mail: "c" } })
    }).pipe(inWorld()))

  it.scoped("shows nothing that was acknowledged while it was opened and isn't in it", () =>
    Effect.gen(function*() {
      const held: Array<Uint8Array> = []
      let isHolding = false
      // As a server does that is still making the part that is shown.
      const { clock, enter, policies, quiet } = yield* makeWorldOf((connection) => ({
        ...connection,
        send: (frame) => {
          if (!isHolding) return connection.send(frame)
          for (const message of Protocol.decodeFromServer(frame)) {
            if (message._tag === "SyncRoot") held.push(Protocol.encode(message))
            else if (message._tag !== "Withdraw") connection.send(Protocol.encode(message))
            if (message._tag !== "OpAck") continue
            isHolding = false
            for (const each of held) connection.send(each)
          }
        }
      }))
      const dropBox: PermissionPolicy.Policy = {
        rules: [
          { maps: ["notes"], roles: ["user"], allow: ["put"] },
          { maps: ["notes"], roles: ["user"], allow: ["read"], where: { owner: { principal: "userId" } } }
        ]
      }
      yield* policies.replace(dropBox)
      const alice = yield* enter("alice")
      yield* alice.notes.set("1", { owner: "alice" })
      yield* quiet(alice)
      isHolding = true
      yield* policies.replace(dropBox)
      yield* clock.runUntil(() => held.length > 0)
      yield* alice.notes.set("2", { owner: "carol" })
      yield* clock.runUntil(() => !isHolding)
      yield* quiet(alice)
      expect(entriesOf(alice.notes)).toEqual({ 1: { owner: "alice" } })
      expect(alice.notes.status.current.isSynced).toBe(true)
    }).pipe(inWorld()))

  it.scoped("is opened again though the word that it may be comes together with a refusal", () =>
    Effect.gen(function*() {
      const held: Array<Uint8Array> = []
      let isHolding = true
      const { clock, enter, policies, quiet } = yield* makeWorldOf((connection) => ({
        ...connection,
        send: (frame) => {
          const messages = Protocol.decodeFromServer(frame)
          if (
            isHolding && messages.some((message) => message._tag === "Fault" && message.cause === "PermissionDenied")
          ) {
            return void held.push(...messages.map(Protocol.encode))
          }
          if (!messages.some(({ _tag }) => _tag === "SyncAgain")) return connection.send(frame)
          isHolding = false
          connection.send(Protocol.frame([...held, ...messages.map(Protocol.encode)]))
        }
      }))
      const root = yield* enter("root")
      yield* root.notes.set("1", { owner: "alice" })
      yield* policies.replace({ rules: rules.slice(0, 1) })
      const alice = yield* World.startClient("alice", { auth: "alice" })
      const notes = yield* alice.map<Note>("notes")
      yield* clock.runUntil(() => held.length > 0)
      yield* policies.replace({ rules })
      yield* clock.runUntil(() => !isHolding)
      yield* quiet(root, alice)
      expect(entriesOf(notes)).toEqual({ 1: { owner: "alice" } })
      expect(notes.status.current).toMatchObject({ isSynced: true, refusal: undefined })
    }).pipe(inWorld()))

  it.scoped("goes by a server that has lost it, where its user can't restore it, and strips no record of what he may not write", () =>
    Effect.gen(function*() {
      const { clock, enter, layer, network, quiet, server } = yield* makeWorld
      const root = yield* enter("root")
      const maps = [yield* root.map<Record<string, unknown>>("news"), yield* root.map<Record<string, unknown>>("staff")]
      for (const map of maps) yield* map.set("1", { name: "n", mail: "m" })
      const alice = yield* enter("alice")
      const seen = [
        yield* alice.map<Record<string, unknown>>("news"),
        yield* alice.map<Record<string, unknown>>("staff")
      ]
      yield* quiet(root, alice)
      network.cut("root")
      yield* server.stop
      yield* World.serve(layer)
      yield* clock.advance("2 minutes")
      yield* quiet(alice)
      for (const map of seen) expect(entriesOf(map)).toEqual({})
      expect(alice.rejectedWrites.current).toEqual([])
      network.heal("root")
      yield* clock.advance("2 minutes")
      yield* quiet(root, alice)
      for (const map of [...maps, ...seen]) expect(entriesOf(map)).toEqual({ 1: { name: "n", mail: "m" } })
    }).pipe(inWorld()))

  it.scoped("gives a refused write back, and what is stored stays as it was", () =>
    Effect.gen(function*() {
      const { enter, quiet } = yield* makeWorld
      const root = yield* enter("root")
      const alice = yield* enter("alice")
      yield* root.notes.set("1", { owner: "carol" })
      yield* quiet(root)
      yield* alice.notes.set("1", { owner: "alice" })
      yield* quiet(root, alice)
      expect(entriesOf(alice.notes)).toEqual({})
      expect(alice.rejectedWrites.current).toMatchObject([{ cause: "PermissionDenied", key: "1" }])
      expect(entriesOf(root.notes)).toEqual({ 1: { owner: "carol" } })
    }).pipe(inWorld()))

  for (let seed = 1; seed <= 25; seed++) {
    it.scoped(`is equal to what may be read of it after whatever has happened (${seed})`, () =>
      Effect.gen(function*() {
        const { clock, enter, network, policies, quiet } = yield* makeWorld
        const root = yield* enter("root")
        let device = Storage.memory()
        let alice = yield* enter("alice", device)
        const carol = yield* enter("carol")
        const pick = (of: number) => Random.nextIntBetween(0, of)
        let isCut = false
        const steps = 12 + (yield* pick(20))
        for (let step = 0; step < steps; step++) {
          const key = String(yield* pick(4))
          const owner = (yield* Random.nextBoolean) ? "alice" : "carol"
          switch (yield* pick(9)) {
            case 0:
            case 1:
              yield* root.notes.set(key, { owner, n: step })
              break
            case 2:
              yield* root.notes.remove(key)
              break
            case 3:
              yield* alice.notes.set(key, { owner: "alice", n: step })
              break
            case 4:
              yield* alice.notes.remove(key)
              break
            case 5:
              yield* carol.notes.set(key, { owner: "carol", n: step })
              break
            case 6:
              isCut = !isCut
              if (isCut) network.cut("alice")
              else network.heal("alice")
              break
            case 7:
              yield* policies.replace({ rules: (yield* Random.nextBoolean) ? rules : [...rules, all] })
              break
            case 8:
              if (!isCut && (yield* Random.nextBoolean)) {
                yield* alice.close
                alice = yield* enter("alice", device)
              }
          }
          yield* clock.advance(yield* pick(40))
        }
        network.heal("alice")
        yield* policies.replace({ rules })
        yield* clock.runUntil(() => [root, alice, carol].every((client) => client.status.current.state === "CONNECTED"))
        yield* quiet(root, alice, carol)
        const everything = entriesOf(root.notes)
        for (const { name, notes } of [alice, carol]) {
          const mine = Object.fromEntries(Object.entries(everything).filter(([, note]) => note.owner === name))
          expect(entriesOf(notes), name).toEqual(mine)
        }
        // Nobody has anything left to say.
        yield* alice.close
        device = alice.device as typeof device
        const again = yield* enter("alice", device)
        yield* quiet(root, again)
        expect(entriesOf(root.notes)).toEqual(everything)
        expect(entriesOf(again.notes)).toEqual(entriesOf(alice.notes))
      }).pipe(Effect.withRandom(Random.make(seed)), inWorld(seed)))
  }
})
