import { describe, it } from "@effect/vitest"
import * as Protocol from "@topgun/core/Protocol"
import * as Storage from "@topgun/core/Storage"
import type { Connection } from "@topgun/core/Transport"
import * as Timestamp from "@topgun/core/Timestamp"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import { PCGRandom } from "effect/Utils"
import { expect } from "vitest"
import * as Outbox from "../src/Outbox.ts"
import { type Client, inStep, inWorld, isSettled, nodeIdOf, startWrong, welcome } from "./worlds.ts"

const second = 1_000
const hour = 3_600_000
const year = 365 * 24 * hour

describe("a device whose clock is wrong", () => {
  for (
    const [words, millis] of [["ten years ahead writes what everybody gets", 10 * year], [
      "ten years behind writes what everybody gets",
      -10 * year
    ]] as const
  ) {
    it.live(`${words}, wins over nobody's later write, and moves nobody's clock`, () =>
      Effect.gen(function*() {
        const clock = yield* VirtualClock.VirtualClock
        const server = yield* World.startServer()
        const honest: Array<Client> = []
        for (let n = 0; n < 4; n++) honest.push(yield* World.startClient(`honest${n}`))
        const theirs = yield* Effect.forEach(honest, (client) => client.map<string>("m"))
        yield* clock.runUntil(() => honest.every(isSettled))
        yield* theirs[0]!.set("contested", "before")
        yield* clock.runUntil(() => honest.every(isSettled))

        const wrong = yield* startWrong("wrong", { millis }, { autoConnect: false })
        const map = yield* wrong.map<string>("m")
        for (let n = 0; n < 10; n++) yield* map.set(`k${n}`, `wrong ${n}`)
        yield* map.set("contested", "wrong")
        const seen: Array<unknown> = []
        map.subscribe((changes) => void seen.push(...changes))
        yield* clock.advance("1 minute")
        yield* wrong.connect
        yield* clock.runUntil(() => isSettled(wrong), { within: "1 minute" })
        expect(wrong.status.current).toMatchObject({ rejected: 0 })
        expect(Math.abs(wrong.status.current.clockSkewMillis + millis)).toBeLessThan(second)
        expect(wrong.faults).toEqual([])
        expect(wrong.rejectedWrites.current).toEqual([])
        // Its own writes stayed as they were all along.
        expect(seen).toEqual([])
        yield* clock.advance("1 second")
        for (const their of theirs) {
          expect(their.get("k9")).toBe("wrong 9")
          expect(their.get("contested")).toBe("wrong")
        }

        yield* theirs[1]!.set("contested", "after")
        yield* theirs[2]!.remove("k0")
        yield* clock.runUntil(() => honest.every(isSettled))
        yield* clock.advance("1 second")
        expect(map.get("contested")).toBe("after")
        expect(map.has("k0")).toBe(false)
        yield* map.set("contested", "wrong again")
        yield* clock.runUntil(() => isSettled(wrong))
        yield* clock.advance("1 second")
        const now = clock.unsafeCurrentTimeMillis()
        for (const their of [...theirs, map]) {
          expect(their.get("contested")).toBe("wrong again")
          expect(their.digest).toBe((yield* server.status).maps[0]?.root)
          for (const key of their.keys()) {
            expect(Math.abs(their.getRecord(key)!.millis - now)).toBeLessThan(5 * 60 * second)
          }
        }
        yield* theirs[3]!.set("mine", "now")
        expect(theirs[3]!.getRecord("mine")!.millis).toBe(clock.unsafeCurrentTimeMillis())
        expect(wrong.faults).toEqual([])
      }).pipe(Effect.scoped, inWorld()))
  }

  it.live("goes on under another name, which its stamps and its storage agree on", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      yield* World.startServer()
      const wrong = yield* startWrong("wrong", { millis: 10 * year }, { autoConnect: false })
      const map = yield* wrong.map<number>("m")
      yield* map.set("k", 1)
      const before = map.getRecord("k")!
      expect(yield* nodeIdOf(wrong.device)).toBe(before.nodeId)
      yield* wrong.connect
      yield* clock.runUntil(() => isSettled(wrong))
      const after = map.getRecord("k")!
      expect(after.nodeId).not.toBe(before.nodeId)
      expect(after.millis).toBeLessThan(before.millis)
      expect(yield* nodeIdOf(wrong.device)).toBe(after.nodeId)
      yield* wrong.close
      const again = yield* startWrong("wrong", { millis: 0 }, { autoConnect: false }, wrong.device)
      const same = yield* again.map<number>("m")
      expect(same.get("k")).toBe(1)
      yield* same.set("k", 2)
      expect(same.getRecord("k")!.nodeId).toBe(after.nodeId)
      expect(same.getRecord("k")!.millis - clock.unsafeCurrentTimeMillis()).toBeLessThan(60 * second)
    }).pipe(Effect.scoped, inWorld()))

  it.live("keeps the order of its writes, and each key's last word", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const network = yield* Network.SimulatedNetwork
      const error = { millis: 0 }
      yield* World.startServer()
      const wrong = yield* startWrong("wrong", error)
      const map = yield* wrong.map<number>("m")
      yield* clock.runUntil(() => isSettled(wrong))
      network.cut("wrong")
      error.millis = 10 * year
      // Sent and never answered, so that each key has one operation on its way and another behind it.
      for (const key of ["a", "b", "c"]) yield* map.set(key, 1)
      yield* clock.advance("1 second")
      yield* wrong.disconnect
      for (const key of ["c", "a", "b"]) yield* map.set(key, 2)
      yield* map.remove("b")
      network.heal()
      expect(wrong.status.current.pending).toBe(6)
      yield* wrong.connect
      yield* clock.runUntil(() => isSettled(wrong))
      expect(Object.fromEntries(map)).toEqual({ a: 2, c: 2 })
      const stamps = ["c", "a", "b"].map((key) => map.getRecord(key)!.stamp)
      expect(Array.from(stamps).sort(Timestamp.compare)).toEqual(stamps)
      const honest = yield* World.startClient("honest")
      const theirs = yield* honest.map<number>("m")
      yield* clock.runUntil(() => isSettled(honest))
      expect(theirs.digest).toBe(map.digest)
      expect(wrong.faults).toEqual([])
    }).pipe(Effect.scoped, inWorld()))

  it.live("stamps in the order of writing, not of sending", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      yield* World.startServer()
      const wrong = yield* startWrong("wrong", { millis: -10 * year }, { autoConnect: false })
      const map = yield* wrong.map<number>("m")
      // The later write of `a` goes in the place of the earlier one, before `b`.
      for (const key of ["a", "b", "a"]) yield* map.set(key, 1)
      expect(wrong.status.current.pending).toBe(2)
      yield* wrong.connect
      yield* clock.runUntil(() => isSettled(wrong))
      const [a, b] = [map.getRecord("a")!.stamp, map.getRecord("b")!.stamp]
      expect(Timestamp.compare(b, a)).toBeLessThan(0)
    }).pipe(Effect.scoped, inWorld()))

  it.live("acknowledges a write that was stamped anew as itself, not as superseded", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      yield* World.startServer()
      const wrong = yield* startWrong("wrong", { millis: 10 * year }, { autoConnect: false })
      const map = yield* wrong.map<number>("m")
      const write = yield* map.set("k", 1, { timeoutMs: hour })
      yield* wrong.connect
      yield* clock.runUntil(() => isSettled(wrong))
      const ack = yield* write.server
      expect(ack.level).toBe("APPLIED")
      expect(ack.superseded).toBeUndefined()
    }).pipe(Effect.scoped, inWorld()))

  it.live("gives a value the lifetime that it was written with", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      yield* World.startServer()
      const wrong = yield* startWrong("wrong", { millis: -10 * year }, { autoConnect: false })
      const map = yield* wrong.map<number>("m")
      yield* map.set("k", 1, { ttlMs: hour })
      yield* wrong.connect
      const honest = yield* World.startClient("honest")
      const theirs = yield* honest.map<number>("m")
      yield* clock.runUntil(() => isSettled(wrong) && theirs.has("k"))
      const record = theirs.getRecord("k")!
      expect(record.expiresAt - record.millis).toBe(hour)
      expect(record.millis).toBeLessThanOrEqual(clock.unsafeCurrentTimeMillis())
    }).pipe(Effect.scoped, inWorld()))
})

describe("a clock that is set while the device is connected", () => {
  it.live("back and forth and right again, loses nothing and rejects nothing, whoever writes", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const error = { millis: 0 }
      const server = yield* World.startServer()
      const honest = yield* World.startClient("honest")
      const wrong = yield* startWrong("wrong", error)
      const theirs = yield* honest.map<string>("m")
      const map = yield* wrong.map<string>("m")
      yield* clock.runUntil(() => isSettled(wrong) && isSettled(honest))
      for (const [i, millis] of [10 * year, 0, -10 * year, 0, -hour, hour, 2 * hour, 61_000, 0].entries()) {
        error.millis = millis
        yield* map.set("wrong", `${i}`)
        yield* map.set(`wrong ${i}`, "is here")
        yield* theirs.set("honest", `${i}`)
        yield* clock.advance("1 minute")
        expect(isSettled(wrong)).toBe(true)
        expect([map.get("honest"), theirs.get("wrong"), theirs.get(`wrong ${i}`)]).toEqual([`${i}`, `${i}`, "is here"])
        expect(map.digest).toBe(theirs.digest)
        expect((yield* server.status).maps).toMatchObject([{ root: map.digest }])
        yield* theirs.set("wrong", `no, ${i}`)
        yield* clock.advance("1 minute")
        expect(map.get("wrong")).toBe(`no, ${i}`)
      }
      expect(wrong.status.current).toMatchObject({ rejected: 0, pending: 0, clockSkewMillis: 0 })
    }).pipe(Effect.scoped, inWorld()))

  it.live("is no reason to refuse what others write, be there nothing written here", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const error = { millis: 10 * year }
      yield* World.startServer()
      const honest = yield* World.startClient("honest")
      const wrong = yield* startWrong("wrong", error)
      const theirs = yield* honest.map<number>("m")
      const map = yield* wrong.map<number>("m")
      yield* clock.runUntil(() => isSettled(wrong) && isSettled(honest))
      error.millis = 0
      yield* theirs.set("k", 1)
      yield* clock.runUntil(() => map.get("k") === 1, { within: "30 seconds" })
    }).pipe(Effect.scoped, inWorld()))
})

describe("a clock that a server sets far back", () => {
  it.live("is no reason for a write to lose to what is there already", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      let isLying = false
      yield* World.startServer({}, (connection) => ({
        ...connection,
        send: (frame) => {
          for (const message of Protocol.decodeFromServer(frame)) {
            connection.send(
              Protocol.encode(isLying && "serverMillis" in message ? { ...message, serverMillis: 0 } : message)
            )
          }
        }
      }))
      const client = yield* World.startClient("alice")
      const map = yield* client.map<number>("m")
      yield* clock.runUntil(() => isSettled(client))
      for (const key of ["a", "b", "c"]) yield* map.set(key, 1)
      yield* clock.runUntil(() => isSettled(client))
      isLying = true
      yield* client.disconnect
      yield* map.set("a", 2)
      yield* client.connect
      yield* clock.runUntil(() => isSettled(client))
      yield* map.set("b", 2)
      yield* client.batch((tx) => {
        tx.set("m", "c", 2)
        tx.set("m", "d", 2)
      })
      expect(Object.fromEntries(map)).toEqual({ a: 2, b: 2, c: 2, d: 2 })
      yield* clock.runUntil(() => isSettled(client))
      const bob = yield* World.startClient("bob")
      isLying = false
      const his = yield* bob.map<number>("m")
      yield* clock.runUntil(() => isSettled(bob))
      expect(Object.fromEntries(his)).toEqual({ a: 2, b: 2, c: 2, d: 2 })
    }).pipe(Effect.scoped, inWorld()))
})

describe("a clock that is set while nobody writes", () => {
  it.live("is noticed, and the status says by how much it differs", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const error = { millis: 0 }
      yield* World.startServer()
      const wrong = yield* startWrong("wrong", error)
      yield* clock.runUntil(() => isSettled(wrong))
      for (const millis of [-hour, hour]) {
        error.millis = millis
        yield* clock.advance("1 minute")
        expect(isSettled(wrong)).toBe(true)
        expect(Math.abs(wrong.status.current.clockSkewMillis + millis)).toBeLessThan(second)
      }
    }).pipe(Effect.scoped, inWorld()))
})

describe("a clock that is wrong for a moment only", () => {
  it.live("makes the device catch up with what it refused meanwhile", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const error = { millis: 0 }
      yield* World.startServer()
      const honest = yield* World.startClient("honest")
      const wrong = yield* startWrong("wrong", error)
      const theirs = yield* honest.map<number>("m")
      const map = yield* wrong.map<number>("m")
      yield* clock.runUntil(() => isSettled(wrong) && isSettled(honest))
      error.millis = -hour
      yield* theirs.set("k", 1)
      yield* clock.runUntil(() => wrong.faults.length > 0, { within: "1 second" })
      expect(wrong.faults).toMatchObject([{ _tag: "ClockSkewTooLarge" }])
      error.millis = 0
      yield* clock.runUntil(() => map.get("k") === 1, { within: "30 seconds" })
    }).pipe(Effect.scoped, inWorld()))
})

describe("four honest devices and one whose clock is set again and again", () => {
  it.live("converge, nothing rejected, whoever is offline meanwhile, in 10 seeded runs", () =>
    Effect.gen(function*() {
      for (let seed = 1; seed <= 10; seed++) {
        yield* Effect.gen(function*() {
          const random = new PCGRandom(seed)
          const clock = yield* VirtualClock.VirtualClock
          const network = yield* Network.SimulatedNetwork
          const error = { millis: 0 }
          const server = yield* World.startServer()
          const wrong = yield* startWrong("wrong", error)
          const clients: Array<Client> = [wrong]
          for (let n = 0; n < 4; n++) clients.push(yield* World.startClient(`honest${n}`))
          const maps = yield* Effect.forEach(clients, (client) => client.map<number>("m"))
          for (let n = 0; n < 40; n++) {
            const who = random.integer(6)
            const map = maps[who] ?? maps[0]!
            const key = `k${random.integer(6)}`
            if (random.integer(4) === 0) yield* map.remove(key)
            else yield* map.set(key, n)
            // Nobody's clock but its own follows the wrong one.
            expect(who === 0 || who > 4 || map.getRecord(key)!.millis <= clock.unsafeCurrentTimeMillis() + 61 * second)
              .toBe(true)
            if (random.integer(3) === 0) {
              error.millis = [0, 10 * year, -10 * year, hour, -hour, 70 * second, -70 * second][random.integer(7)]!
            }
            if (random.integer(4) === 0) network.cut("wrong", random.integer(2) === 0 ? "toClient" : "toServer")
            if (random.integer(3) === 0) network.heal()
            if (random.integer(6) === 0) yield* wrong.disconnect
            if (random.integer(3) === 0) yield* wrong.connect
            yield* clock.advance(random.integer(3) * random.integer(4_000))
          }
          network.heal()
          yield* wrong.connect
          yield* clock.runUntil(() => clients.every(isSettled))
          yield* clock.advance("1 minute")
          expect(wrong.status.current, `seed ${seed}`).toMatchObject({ state: "CONNECTED", pending: 0, rejected: 0 })
          const root = (yield* server.status).maps[0]?.root
          for (const map of maps) expect(map.digest, `seed ${seed}`).toBe(root)
          for (const map of maps) {
            for (const key of ["k0", "k5"]) {
              yield* map.set(key, 1_000 + seed)
              yield* clock.advance("1 second")
              for (const other of maps) expect(other.get(key), `seed ${seed}`).toBe(1_000 + seed)
            }
          }
        }).pipe(Effect.scoped, inWorld(seed))
      }
    }))
})

describe("a restart", () => {
  for (
    const [words, later] of [["with the clock right", 0], ["with the clock as wrong as before", 10 * year]] as const
  ) {
    it.live(`${words} sends what was written under the wrong one`, () =>
      Effect.gen(function*() {
        const clock = yield* VirtualClock.VirtualClock
        const server = yield* World.startServer()
        const wrong = yield* startWrong("wrong", { millis: 10 * year }, { autoConnect: false })
        const map = yield* wrong.map<number>("m")
        for (let n = 0; n < 5; n++) yield* map.set(`k${n}`, n)
        yield* wrong.close
        const again = yield* startWrong("wrong", { millis: later }, { autoConnect: false }, wrong.device)
        const same = yield* again.map<number>("m")
        yield* same.set("k0", 10)
        yield* again.connect
        yield* clock.runUntil(() => isSettled(again), { within: "1 minute" })
        expect(again.status.current.rejected).toBe(0)
        expect(Object.fromEntries(same)).toEqual({ k0: 10, k1: 1, k2: 2, k3: 3, k4: 4 })
        expect((yield* server.status).maps).toMatchObject([{ size: 5, root: same.digest }])
        const honest = yield* World.startClient("honest")
        const theirs = yield* honest.map<number>("m")
        yield* clock.runUntil(() => isSettled(honest))
        yield* theirs.set("k0", 11)
        yield* clock.runUntil(() => same.get("k0") === 11, { within: "1 second" })
      }).pipe(Effect.scoped, inWorld()))
  }

  it.live("of a device whose stamps ran ahead writes at once, with nothing left of them but the reservation", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const server = yield* World.startServer()
      const options = { autoConnect: false, backpressure: { strategy: "drop-oldest", capacity: 1 } } as const
      const wrong = yield* startWrong("wrong", { millis: 10 * year }, options)
      yield* (yield* wrong.map<number>("m")).set("k", 1)
      const cleared: Array<Storage.StorageWrite> = []
      yield* wrong.close
      for (const space of ["records/m", "bases/m", "outbox"]) {
        for (const { key } of yield* Effect.promise(() => wrong.device.scan(space, undefined, 10))) {
          cleared.push({ space, key, value: undefined })
        }
      }
      yield* Effect.promise(() => wrong.device.commit(cleared))
      const again = yield* startWrong("wrong", { millis: 0 }, {}, wrong.device)
      const map = yield* again.map<number>("m")
      yield* clock.runUntil(() => isSettled(again))
      yield* map.set("k", 2)
      expect(map.getRecord("k")!.millis).toBeLessThanOrEqual(clock.unsafeCurrentTimeMillis())
      yield* clock.runUntil(() => isSettled(again), { within: "1 second" })
      expect((yield* server.status).maps).toMatchObject([{ size: 1 }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("after a crash at any transaction finds the old stamps or the new ones, never some of each", () =>
    Effect.gen(function*() {
      for (let kept = 0; kept < 12; kept++) {
        yield* Effect.gen(function*() {
          const clock = yield* VirtualClock.VirtualClock
          const server = yield* World.startServer()
          const memory = Storage.memory()
          let left = Number.POSITIVE_INFINITY
          const device: Storage.StorageAdapter = {
            ...memory,
            commit: (writes) => left-- > 0 ? memory.commit(writes) : Promise.reject(new Error("the power is out"))
          }
          const wrong = yield* startWrong("wrong", { millis: 10 * year }, { autoConnect: false }, device)
          const map = yield* wrong.map<number>("m")
          for (let n = 0; n < 5; n++) yield* map.set(`k${n}`, n)
          left = kept
          yield* wrong.connect
          yield* clock.advance("10 seconds")
          // Nothing leaves under a name that storage doesn't know.
          if (kept === 0) expect((yield* server.status).maps).toEqual([])
          yield* wrong.close
          const name = yield* nodeIdOf(memory)
          const again = yield* startWrong("wrong", { millis: 0 }, { autoConnect: false }, memory)
          const same = yield* again.map<number>("m")
          expect(Object.fromEntries(same)).toEqual({ k0: 0, k1: 1, k2: 2, k3: 3, k4: 4 })
          for (const key of same.keys()) expect(same.getRecord(key)!.nodeId).toBe(name)
          for (const { key, value } of yield* Effect.promise(() => memory.scan("outbox", undefined, 10))) {
            const { cell, record } = Outbox.decode(key, value)!
            expect(record.stamp).toEqual(same.getRecord(cell)!.stamp)
          }
          if (kept === 0) expect(again.status.current.pending).toBe(5)
          yield* again.connect
          yield* clock.runUntil(() => isSettled(again), { within: "1 minute" })
          expect((yield* server.status).maps).toMatchObject([{ size: 5, root: same.digest }])
          expect(again.status.current.rejected).toBe(0)
        }).pipe(Effect.scoped, inWorld())
      }
    }))
})

describe("a write that the server may have", () => {
  it.live("never comes back in place of the one after it", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const network = yield* Network.SimulatedNetwork
      const error = { millis: 0 }
      const server = yield* World.startServer()
      const wrong = yield* startWrong("wrong", error)
      const map = yield* wrong.map<number>("m")
      yield* clock.runUntil(() => isSettled(wrong))
      // Ahead, but within what the server takes: it has the first write, and nobody here knows.
      error.millis = 55 * second
      network.cut("wrong", "toClient")
      yield* map.set("k", 1)
      yield* clock.advance("1 second")
      expect((yield* server.status).maps).toMatchObject([{ size: 1 }])
      yield* wrong.disconnect
      yield* map.set("k", 2)
      // Corrected by more than it was wrong, so that all that was not acknowledged is stamped anew.
      error.millis = -70 * second
      network.heal()
      const seen: Array<unknown> = []
      map.live("k").subscribe((value) => void seen.push(value))
      yield* wrong.connect
      yield* clock.runUntil(() => isSettled(wrong))
      yield* clock.advance("1 second")
      expect(map.get("k")).toBe(2)
      expect(new Set(seen)).not.toContain(1)
      expect((yield* server.status).maps).toMatchObject([{ root: map.digest }])
    }).pipe(Effect.scoped, inWorld()))

  it.live("isn't written again over what others have written after it", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const network = yield* Network.SimulatedNetwork
      const error = { millis: 0 }
      yield* World.startServer()
      const honest = yield* World.startClient("honest")
      const wrong = yield* startWrong("wrong", error)
      const theirs = yield* honest.map<number>("m")
      const map = yield* wrong.map<number>("m")
      yield* clock.runUntil(() => isSettled(wrong) && isSettled(honest))
      network.cut("wrong", "toServer")
      yield* map.set("k", 1)
      yield* clock.advance("10 millis")
      yield* theirs.set("k", 2)
      yield* clock.runUntil(() => map.get("k") === 2, { within: "1 second" })
      yield* wrong.disconnect
      error.millis = -hour
      network.heal()
      yield* wrong.connect
      yield* clock.runUntil(() => isSettled(wrong))
      yield* clock.advance("1 second")
      expect([map.get("k"), theirs.get("k")]).toEqual([2, 2])
    }).pipe(Effect.scoped, inWorld()))
})

/** A server that only knows the time; what it says of operations is for the test to say. It holds nothing durably. */
const scripted = Effect.fnUntraced(function*(answer: (op: Protocol.OpTuple) => Protocol.ServerMessage) {
  const clock = yield* VirtualClock.VirtualClock
  const network = yield* Network.SimulatedNetwork
  network.listen(World.serverAddress, (connection: Connection) => {
    const say = (message: Protocol.ServerMessage) => connection.send(Protocol.frame([Protocol.encode(message)]))
    connection.listen((frame) => {
      for (const message of Protocol.decodeFromClient(frame)) {
        const serverMillis = clock.unsafeCurrentTimeMillis()
        if (message._tag === "Auth") say(welcome(serverMillis))
        else if (message._tag === "SyncInit") say(inStep(message))
        else if (message._tag === "Ping") say({ _tag: "Pong", id: message.id, serverMillis })
        else if (message._tag === "OpBatch") { for (const op of message.ops) say(answer(op)) }
      }
    }, () => {})
  })
})

describe("what the server has acknowledged", () => {
  it.live("is sent again with the stamp that it has, though the device has another name by now", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const error = { millis: 0 }
      const rows: Array<Uint8Array> = []
      yield* scripted(([sequence, key, row]) => {
        if (key === "refused") return { _tag: "OpReject", sequence, cause: "WriteRejected", reason: "no" }
        rows.push(row)
        return { _tag: "OpAck", level: "APPLIED", replicas: 0, sequences: [sequence] }
      })
      const wrong = yield* startWrong("wrong", error)
      const map = yield* wrong.map<number>("m")
      yield* clock.runUntil(() => wrong.status.current.state === "CONNECTED")
      yield* map.set("k", 1)
      const { row } = map.getRecord("k")!
      yield* clock.advance("1 second")
      const name = yield* nodeIdOf(wrong.device)
      error.millis = 10 * year
      yield* map.set("refused", 1)
      yield* clock.advance("1 minute")
      expect(yield* nodeIdOf(wrong.device)).not.toBe(name)
      expect(wrong.status.current).toMatchObject({ state: "CONNECTED", pending: 1, rejected: 1 })
      expect(rows.map((each) => each.join())).toEqual([row.join(), row.join()])
    }).pipe(Effect.scoped, inWorld()))
})

describe("a removal", () => {
  it.live("of what a device has added whose clock was ahead, within bounds, is sent at once", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      yield* World.startServer()
      const ahead = yield* startWrong("ahead", { millis: 50 * second }, { autoConnect: false })
      const theirs = yield* ahead.orMap<string>("tags")
      yield* theirs.add("k", "v")
      yield* ahead.connect
      const client = yield* World.startClient("honest")
      const tags = yield* client.orMap<string>("tags")
      yield* clock.runUntil(() => tags.has("k"))
      const { server } = yield* tags.remove("k", "v", { timeoutMs: 2 * second })
      const ack = yield* Effect.fork(server)
      yield* clock.advance("3 seconds")
      expect((yield* ack).level).toBe("APPLIED")
      expect(theirs.has("k")).toBe(false)
    }).pipe(Effect.scoped, inWorld()))
})

describe("a server that refuses stamps", () => {
  it.live("whatever they are, gets each write twice, and then it is a rejected one", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const received: Array<number> = []
      yield* scripted(([sequence]) => {
        received.push(sequence)
        return { _tag: "OpReject", sequence, cause: "ClockSkewTooLarge", reason: "no" }
      })
      const client = yield* startWrong("wrong", { millis: 0 })
      const map = yield* client.map<number>("m")
      yield* map.set("a", 1)
      yield* map.set("b", 1)
      yield* clock.advance("5 minutes")
      expect(received).toHaveLength(4)
      expect(client.status.current).toMatchObject({ state: "CONNECTED", pending: 0, rejected: 2 })
      expect(client.rejectedWrites.current).toMatchObject([{ cause: "ClockSkewTooLarge" }, {
        cause: "ClockSkewTooLarge"
      }])
    }).pipe(Effect.scoped, inWorld()))
})
