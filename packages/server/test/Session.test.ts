import { describe, expect, it } from "@effect/vitest"
import { LwwMap } from "@topgun/core/LwwMap"
import * as MerkleSync from "@topgun/core/MerkleSync"
import * as Protocol from "@topgun/core/Protocol"
import { makeDrain, makePair, type ServerConnection } from "@topgun/core/Transport"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/TestClock"
import {
  auth,
  batch,
  inProcess,
  inProcessReady,
  make,
  nodeId,
  noise,
  openMap,
  peerOver,
  put,
  recordsOf,
  serial,
  settled
} from "./PlainClient.ts"

const codes = Protocol.closeCodes

describe("Session", () => {
  describe("the handshake", () => {
    it.effect("is answered with the server's time, its store's generation and whether anything is durable", () =>
      Effect.gen(function*() {
        yield* TestClock.setTime(123_456)
        const client = yield* inProcess
        yield* client.send(auth)
        const ack = yield* client.take("AuthAck")
        expect(ack).toMatchObject({ protocol: 1, serverMillis: 123_456, durable: false })
        expect(ack.generation).toMatch(/^[0-9a-z]{16}$/)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("comes first", () =>
      Effect.gen(function*() {
        const client = yield* inProcess
        yield* client.send({ _tag: "Ping", id: 1 })
        expect((yield* client.take("Fault")).reason).toContain("Auth comes first")
        expect((yield* client.closed).code).toBe(codes.outOfPlace)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("comes once", () =>
      Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* client.send(auth)
        expect((yield* client.closed).code).toBe(codes.outOfPlace)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("is refused for a protocol version that the server doesn't speak, with those that it does", () =>
      Effect.gen(function*() {
        const client = yield* inProcess
        yield* client.send({ _tag: "Auth", protocol: 99, nodeId, secret: null, token: null, confirmed: null })
        const fault = yield* client.take("Fault")
        expect(fault.cause).toBe("ProtocolVersionUnsupported")
        expect(fault.reason).toContain("99")
        expect((yield* client.closed).code).toBe(codes.versionUnsupported)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("is refused with a token, which this server couldn't verify", () =>
      Effect.gen(function*() {
        const client = yield* inProcess
        yield* client.send({ _tag: "Auth", protocol: 1, nodeId, secret: null, token: "secret", confirmed: null })
        const fault = yield* client.take("Fault")
        expect(fault.cause).toBe("AuthRequired")
        expect(fault.reason).toContain("no token verifier configured")
        expect((yield* client.closed).code).toBe(codes.authFailed)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("has a deadline", () =>
      Effect.gen(function*() {
        const client = yield* inProcess
        yield* TestClock.adjust(4_999)
        yield* settled
        expect(client.untaken("Fault")).toBe(0)
        yield* TestClock.adjust(1)
        expect((yield* client.closed).code).toBe(codes.authTimeout)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("has frames of at most 16 KiB", () =>
      Effect.gen(function*() {
        const client = yield* inProcess
        yield* client.sendBytes(new Uint8Array(Protocol.frameBytesBeforeAuthMax + 1))
        expect((yield* client.closed).code).toBe(codes.tooLarge)
      }).pipe(Effect.provide(layerMemory)))
  })

  describe("a peer", () => {
    it.effect("that pings stays, one that is silent for 10 s is closed", () =>
      Effect.gen(function*() {
        const lively = yield* inProcessReady
        const silent = yield* inProcessReady
        for (let id = 0; id < 4; id++) {
          yield* TestClock.adjust(Protocol.pingMillis)
          yield* lively.send({ _tag: "Ping", id })
          expect(yield* lively.take("Pong")).toMatchObject({ id, serverMillis: (id + 1) * Protocol.pingMillis })
        }
        expect((yield* silent.closed).code).toBe(codes.goingAway)
        const { status } = yield* TopGunServer.TopGunServer
        expect((yield* status).connections).toBe(1)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("that sends garbage is closed with 1007, and only it", () =>
      Effect.gen(function*() {
        const bystander = yield* inProcessReady
        const frames = [
          Uint8Array.of(0xc1),
          Uint8Array.of(0xdf, 0xff, 0xff, 0xff, 0xff),
          Uint8Array.of(0x05, 0x05, 0x05),
          Protocol.encode({ _tag: "Pong", id: 1, serverMillis: 1 }),
          Protocol.encode({ _tag: "Ping", id: 1 }).subarray(0, 8)
        ]
        for (const frame of frames) {
          const client = yield* inProcessReady
          yield* client.sendBytes(frame)
          expect((yield* client.take("Fault")).cause).toBe("MalformedMessage")
          expect((yield* client.closed).code).toBe(codes.malformed)
        }
        yield* bystander.send({ _tag: "Ping", id: 7 })
        expect((yield* bystander.take("Pong")).id).toBe(7)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("that sends a frame beyond the limit is closed with 1009", () =>
      Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* client.sendBytes(new Uint8Array(Protocol.frameBytesMax + 1))
        expect((yield* client.closed).code).toBe(codes.tooLarge)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("that walks a map's tree without opening it is closed with 1002", () =>
      Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* client.send({ _tag: "SyncPull", id: 1, map: "todos", node: [0, ""], after: null })
        expect((yield* client.closed).code).toBe(codes.outOfPlace)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("may open as many maps as are allowed, and learns of the one too many", () =>
      Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* client.send(openMap("a", 1), openMap("b", 2), openMap("a", 3), openMap("c", 4))
        yield* client.take("SyncRoot")
        yield* client.take("SyncRoot")
        yield* client.take("SyncRoot")
        expect(yield* client.take("Fault")).toMatchObject({ id: 4, cause: "Overloaded" })
        yield* client.send({ _tag: "Ping", id: 1 })
        yield* client.take("Pong")
      }).pipe(Effect.provide(TopGunServer.layerInProcess({ subscriptionsMax: 2 }))))
  })

  describe("a write", () => {
    for (const concern of ["FIRE_AND_FORGET", "MEMORY", "APPLIED"] as const) {
      it.effect(`at ${concern} is acknowledged with the level it reached, APPLIED`, () =>
        Effect.gen(function*() {
          const client = yield* inProcessReady
          yield* client.send(batch("todos", concern, 0, [["1", put("milk")], ["2", put("bread")]]))
          expect(yield* client.take("OpAck")).toMatchObject({ level: "APPLIED", replicas: 0, sequences: [0, 1] })
        }).pipe(Effect.provide(layerMemory)))
    }

    for (const [concern, why] of [["REPLICATED", "backup"], ["PERSISTED", "memory"]] as const) {
      it.effect(`at ${concern} is refused by a server that has no ${why === "memory" ? "database" : why}, and not merged`, () =>
        Effect.gen(function*() {
          const client = yield* inProcessReady
          yield* client.send(batch("todos", concern, 5, [["1", put("milk")]]))
          const reject = yield* client.take("OpReject")
          expect(reject).toMatchObject({ sequence: 5, cause: "WriteRejected" })
          expect(reject.reason).toContain(why)
          const { status } = yield* TopGunServer.TopGunServer
          expect((yield* status).maps).toEqual([])
        }).pipe(Effect.provide(layerMemory)))
    }

    it.effect("reaches those who opened the map, as the bytes that were written, but not its writer", () =>
      Effect.gen(function*() {
        const writer = yield* inProcessReady
        const reader = yield* inProcessReady
        const other = yield* inProcessReady
        yield* writer.send(openMap("todos"))
        yield* reader.send(openMap("todos"))
        yield* other.send(openMap("notes"))
        yield* Effect.forEach([writer, reader, other], ({ take }) => take("SyncRoot"))
        const row = put({ text: "milk" })
        yield* writer.send(batch("todos", "APPLIED", 0, [["1", row]]))
        expect(yield* reader.take("ServerEvent")).toMatchObject({
          _tag: "ServerEvent",
          map: "todos",
          records: [["1", row]]
        })
        yield* writer.take("OpAck")
        yield* settled
        expect(writer.untaken("ServerEvent")).toBe(0)
        expect(other.untaken("ServerEvent")).toBe(0)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("is acknowledged with those around it, but before whatever else is answered", () =>
      Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* client.send(
          batch("todos", "APPLIED", 0, [["1", put("x")]]),
          batch("todos", "APPLIED", 1, [["2", put("x")]]),
          batch("todos", "APPLIED", 2, [["3", put("far", 9e12)]]),
          batch("todos", "APPLIED", 3, [["4", put("x")]])
        )
        expect((yield* client.take("OpAck")).sequences).toEqual([0, 1])
        expect((yield* client.take("OpReject")).sequence).toBe(2)
        expect((yield* client.take("OpAck")).sequences).toEqual([3])
      }).pipe(Effect.provide(layerMemory)))

    it.effect("that is older than what the server has is acknowledged and changes nothing", () =>
      Effect.gen(function*() {
        const client = yield* inProcessReady
        const reader = yield* inProcessReady
        yield* client.send(batch("todos", "APPLIED", 0, [["1", put("new", 2_000)]]))
        yield* client.take("OpAck")
        yield* reader.send(openMap("todos"))
        yield* reader.take("SyncRoot")
        yield* client.send(batch("todos", "APPLIED", 1, [["1", put("old", 1_000)]]))
        expect((yield* client.take("OpAck")).sequences).toEqual([1])
        yield* settled
        expect(reader.untaken("ServerEvent")).toBe(0)
        expect(yield* recordsOf(reader, "todos")).toEqual([["1", put("new", 2_000)]])
      }).pipe(Effect.provide(layerMemory)))

    it.effect("from too far in the future is refused by itself", () =>
      Effect.gen(function*() {
        yield* TestClock.setTime(1_000_000)
        const client = yield* inProcessReady
        yield* client.send(batch("todos", "APPLIED", 0, [
          ["1", put("in time", 1_060_000)],
          ["2", put("too late", 1_060_001)],
          ["3", put("in time", 5)]
        ]))
        expect(yield* client.take("OpReject")).toMatchObject({ sequence: 1, cause: "ClockSkewTooLarge" })
        expect((yield* client.take("OpAck")).sequences).toEqual([0, 2])
        yield* client.send(openMap("todos"))
        yield* client.take("SyncRoot")
        expect((yield* recordsOf(client, "todos")).map(([key]) => key)).toEqual(["1", "3"])
      }).pipe(Effect.provide(layerMemory)))

    it.effect("of a record or key that isn't well-formed is refused by itself", () =>
      Effect.gen(function*() {
        const client = yield* inProcessReady
        const unknownKind = put("x")
        unknownKind[24] = 0x77
        yield* client.send(batch("todos", "APPLIED", 0, [
          ["1", Uint8Array.of(1, 2, 3)],
          ["2", unknownKind],
          ["k".repeat(2_000), put("x")],
          ["4", put("fine")]
        ]))
        expect((yield* client.take("OpReject")).cause).toBe("MalformedMessage")
        expect((yield* client.take("OpReject")).reason).toContain("newer format")
        expect((yield* client.take("OpReject")).cause).toBe("RecordTooLarge")
        expect((yield* client.take("OpAck")).sequences).toEqual([3])
      }).pipe(Effect.provide(layerMemory)))

    it.effect("out of the order of sequence numbers closes the connection, because Durable is cumulative", () =>
      Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* client.send(batch("todos", "APPLIED", 4, [["1", put("x")]]))
        yield* client.take("OpAck")
        yield* client.send(batch("todos", "APPLIED", 4, [["1", put("x")]]))
        expect((yield* client.closed).code).toBe(codes.outOfPlace)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("to one map too many is refused", () =>
      Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* client.send(batch("a", "APPLIED", 0, [["1", put("x")]]), batch("b", "APPLIED", 1, [["1", put("x")]]))
        expect((yield* client.take("OpAck")).sequences).toEqual([0])
        expect(yield* client.take("OpReject")).toMatchObject({ sequence: 1, cause: "Overloaded" })
      }).pipe(Effect.provide(TopGunServer.layerInProcess({ mapsMax: 1 }))))
  })

  describe("reconciliation", () => {
    it.effect("brings a replica everything, in pages, and then finds nothing more to do", () =>
      Effect.gen(function*() {
        const writer = yield* inProcessReady
        const text = "x".repeat(2_000)
        const entries = Array.from({ length: 400 }, (_, i) => [`key${i}`, put({ i, text }, 1_000, i)] as const)
        yield* writer.send(batch("todos", "APPLIED", 0, entries.slice(0, 200)))
        yield* writer.take("OpAck")
        yield* writer.send(batch("todos", "APPLIED", 200, entries.slice(200)))
        yield* writer.take("OpAck")

        const client = yield* inProcessReady
        const local = new LwwMap({ now: () => 0 })
        const replica: MerkleSync.Replica = {
          tree: local.tree,
          record: (key) => local.getRecord(key),
          partitionOf: (key) => local.partitionOf(key),
          receive: (records) => {
            for (const [key, record] of records) local.merge(key, record)
          }
        }
        const { reconcile } = yield* MerkleSync.MerkleSync
        const first = yield* reconcile(replica, serial(peerOver(client, "todos")))
        expect(first).toMatchObject({ equal: false, received: 400, offers: [] })
        expect(local.get("key7")).toEqual({ i: 7, text })
        const second = yield* reconcile(replica, serial(peerOver(client, "todos")))
        expect(second.equal).toBe(true)
      }).pipe(Effect.provide(layerMemory), Effect.provide(MerkleSync.layer)))

    it.effect("of nodes that have no known form closes the connection", () =>
      Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* client.send(openMap("todos"))
        yield* client.take("SyncRoot")
        yield* client.send({ _tag: "SyncBuckets", id: 2, map: "todos", lane: 0, nodes: Uint8Array.of(0xff) })
        expect((yield* client.take("Fault")).cause).toBe("MalformedMessage")
        expect((yield* client.closed).code).toBe(codes.malformed)
      }).pipe(Effect.provide(layerMemory)))
  })

  describe("a slow reader", () => {
    it.effect("is cut off with 1013 when events pile up", () =>
      Effect.gen(function*() {
        const { accept } = yield* TopGunServer.TopGunServer
        const stuck = makeStuck()
        accept(stuck.served)
        const reader = make(stuck.mine)
        yield* reader.send(auth, openMap("todos"))
        yield* reader.take("SyncRoot")
        const writer = yield* inProcessReady
        stuck.buffered = 1024 * 1024 + 1
        yield* writer.send(batch("todos", "APPLIED", 0, [["1", put("x")]]))
        expect((yield* reader.closed).code).toBe(codes.overloaded)
        expect((yield* writer.take("OpAck")).sequences).toEqual([0])
      }).pipe(Effect.provide(layerMemory)))

    it.effect("gets no more answers than it reads, and the rest when it has read them", () =>
      Effect.gen(function*() {
        const { accept } = yield* TopGunServer.TopGunServer
        const stuck = makeStuck()
        accept(stuck.served)
        const reader = make(stuck.mine)
        yield* reader.send(auth, openMap("todos"))
        yield* reader.take("SyncRoot")
        stuck.buffered = 512 * 1024 + 1
        yield* reader.send(openMap("todos", 2), openMap("todos", 3))
        yield* reader.send({ _tag: "Ping", id: 4 })
        yield* settled
        expect(reader.untaken("SyncRoot")).toBe(0)
        yield* TestClock.adjust(50)
        expect(reader.untaken("SyncRoot")).toBe(0)
        stuck.buffered = 0
        yield* TestClock.adjust(5)
        yield* reader.take("Pong")
        expect(reader.untaken("SyncRoot")).toBe(2)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("is spared events while it is behind, and is told once to open each map again of which there were any", () =>
      Effect.gen(function*() {
        const { accept } = yield* TopGunServer.TopGunServer
        const stuck = makeStuck()
        accept(stuck.served)
        const reader = make(stuck.mine)
        yield* reader.send(auth, openMap("todos", 1), openMap("notes", 2), openMap("quiet", 3))
        for (let n = 0; n < 3; n++) yield* reader.take("SyncRoot")
        const writer = yield* inProcessReady
        const write = (map: string, sequence: number) =>
          Effect.zipRight(
            writer.send(batch(map, "APPLIED", sequence, [["1", put(sequence, 1_000 + sequence)]])),
            writer.take("OpAck")
          )
        stuck.buffered = 256 * 1024
        yield* write("todos", 0)
        yield* settled
        expect((yield* reader.take("ServerEvent")).records).toHaveLength(1)
        stuck.buffered = 256 * 1024 + 1
        yield* write("todos", 1)
        yield* write("notes", 2)
        yield* write("todos", 3)
        yield* settled
        expect(reader.untaken("ServerEvent") + reader.untaken("SyncAgain")).toBe(0)
        stuck.buffered = 128 * 1024 + 1
        yield* settled
        expect(reader.untaken("SyncAgain")).toBe(0)
        stuck.buffered = 128 * 1024
        expect((yield* reader.take("SyncAgain")).map).toBe("todos")
        expect((yield* reader.take("SyncAgain")).map).toBe("notes")
        // An event now would say that what was left out is with the client.
        yield* write("todos", 4)
        yield* settled
        expect(reader.untaken("ServerEvent") + reader.untaken("SyncAgain")).toBe(0)
        yield* reader.send(openMap("todos", 4))
        yield* reader.take("SyncRoot")
        yield* write("todos", 5)
        expect((yield* reader.take("ServerEvent")).records).toHaveLength(1)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("that opens a map again by itself isn't told to", () =>
      Effect.gen(function*() {
        const { accept } = yield* TopGunServer.TopGunServer
        const stuck = makeStuck()
        accept(stuck.served)
        const reader = make(stuck.mine)
        yield* reader.send(auth, openMap("todos"))
        yield* reader.take("SyncRoot")
        const writer = yield* inProcessReady
        stuck.buffered = 256 * 1024 + 1
        yield* writer.send(batch("todos", "APPLIED", 0, [["1", put("x")]]))
        yield* writer.take("OpAck")
        yield* reader.send(openMap("todos", 2))
        yield* reader.take("SyncRoot")
        stuck.buffered = 0
        yield* settled
        expect(reader.untaken("SyncAgain")).toBe(0)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("gets acknowledgements and pongs while its events are left out", () =>
      Effect.gen(function*() {
        const { accept } = yield* TopGunServer.TopGunServer
        const stuck = makeStuck()
        accept(stuck.served)
        const reader = make(stuck.mine)
        yield* reader.send(auth, openMap("todos"))
        yield* reader.take("SyncRoot")
        const writer = yield* inProcessReady
        stuck.buffered = 512 * 1024
        yield* writer.send(batch("todos", "APPLIED", 0, [["1", put("x")]]))
        yield* writer.take("OpAck")
        yield* reader.send({ _tag: "Ping", id: 9 }, batch("todos", "APPLIED", 0, [["2", put("y")]]))
        expect((yield* reader.take("Pong")).id).toBe(9)
        expect((yield* reader.take("OpAck")).sequences).toEqual([0])
        expect(reader.untaken("ServerEvent")).toBe(0)
      }).pipe(Effect.provide(layerMemory)))

    it.effect("is cut off with 1013 when it doesn't read in time, events or answers, and not a moment before", () =>
      Effect.gen(function*() {
        const { accept } = yield* TopGunServer.TopGunServer
        const follower = makeStuck()
        accept(follower.served)
        const asker = makeStuck()
        accept(asker.served)
        const writer = yield* inProcessReady
        const readers = [make(follower.mine), make(asker.mine)]
        for (const [n, reader] of readers.entries()) {
          yield* reader.send({ ...auth, nodeId: `reader000000000${n}` }, openMap("todos"))
          yield* reader.take("SyncRoot")
        }
        follower.buffered = 256 * 1024 + 1
        asker.buffered = 512 * 1024 + 1
        yield* writer.send(batch("todos", "APPLIED", 0, [["1", put("x")]]))
        yield* writer.take("OpAck")
        yield* readers[1]!.send({ _tag: "Ping", id: 1 })
        yield* settled
        yield* TestClock.adjust(2_999)
        const { status } = yield* TopGunServer.TopGunServer
        expect((yield* status).connections).toBe(3)
        yield* TestClock.adjust(1)
        for (const reader of readers) expect((yield* reader.closed).code).toBe(codes.overloaded)
        expect((yield* status).connections).toBe(1)
      }).pipe(Effect.provide(TopGunServer.layerInProcess({ drainMillisMax: 3_000 }))))

    it.effect("costs no more than its room, however many maps and bytes others write", () =>
      Effect.gen(function*() {
        const { accept } = yield* TopGunServer.TopGunServer
        const stuck = makeStuck({ isPaused: true })
        accept(stuck.served)
        const reader = make(stuck.mine)
        const maps = Array.from({ length: 500 }, (_, n) => `${"m".repeat(250)}${n}`)
        yield* reader.send(auth)
        yield* settled
        for (const [n, map] of maps.entries()) {
          yield* reader.send(openMap(map, n))
          yield* settled
          stuck.buffered = 0
        }
        const writer = yield* inProcessReady
        let sequence = 0
        let most = 0
        const writeAll = Effect.gen(function*() {
          for (const map of maps) {
            yield* writer.send(batch(map, "APPLIED", sequence, [["1", put(noise(10_000), 1_000 + sequence)]]))
            sequence++
            yield* writer.take("OpAck")
            most = Math.max(most, stuck.buffered)
          }
        })
        yield* writeAll
        expect(most).toBeGreaterThan(256 * 1024)
        expect(most).toBeLessThan(640 * 1024)
        const events = reader.untaken("ServerEvent")
        expect(reader.untaken("SyncAgain")).toBe(0)
        stuck.buffered = 128 * 1024
        yield* settled
        const first = reader.untaken("SyncAgain")
        expect(stuck.buffered).toBeLessThan(256 * 1024)
        // What it's told of gaps is read in portions, too.
        expect(first).toBeGreaterThan(0)
        expect(first).toBeLessThan(maps.length - events)
        while (stuck.buffered > 0) {
          stuck.buffered = 0
          yield* settled
        }
        expect(reader.untaken("SyncAgain")).toBe(maps.length - events)
        expect(reader.untaken("ServerEvent")).toBe(events)
      }).pipe(Effect.provide(layerMemory)))
  })

  describe("a server that goes away", () => {
    it.effect("tells each client to come back at another time, the more there are the more spread out", () =>
      Effect.gen(function*() {
        const delaysOf = (count: number) =>
          Effect.gen(function*() {
            const clients = yield* Effect.provide(Effect.replicateEffect(inProcessReady, count), layerMemory)
            return yield* Effect.forEach(clients, (client) =>
              Effect.map(client.take("GoingAway"), ({ retryMillis }) => retryMillis))
          })
        const few = yield* delaysOf(10)
        const many = yield* delaysOf(500)
        for (const delays of [few, many]) expect(Math.min(...delays)).toBeGreaterThanOrEqual(500)
        expect(new Set(few).size).toBeGreaterThan(1)
        expect(Math.max(...few)).toBeLessThanOrEqual(500 + 500 + 2 * 10)
        expect(Math.max(...many)).toBeGreaterThan(1_100)
        expect(Math.max(...many)).toBeLessThanOrEqual(500 + 500 + 2 * 500)
      }))
  })

  it.effect("closes with 1001 when the server goes away", () =>
    Effect.gen(function*() {
      const client = yield* Effect.provide(inProcessReady, layerMemory)
      expect((yield* client.closed).code).toBe(codes.goingAway)
    }))
})

/** A connection whose server's end believes that `buffered` bytes haven't left: with `isPaused` all that it has sent since. */
const makeStuck = ({ isPaused = false } = {}) => {
  const [mine, theirs] = makePair()
  let buffered = 0
  const drain = makeDrain(() => buffered)
  const served: ServerConnection = {
    ...theirs,
    send: (frame) => {
      if (isPaused) buffered += frame.length
      theirs.send(frame)
    },
    bufferedBytes: () => buffered,
    whenDrained: drain.whenDrained
  }
  return {
    mine,
    served,
    get buffered() {
      return buffered
    },
    set buffered(bytes: number) {
      buffered = bytes
      drain.left()
    }
  }
}

const layerMemory = TopGunServer.layerInProcess()
