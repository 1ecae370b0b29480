/** Servers that lie, forget, babble and hang up, and storage that fails at every call: what a client makes of it. */
import { describe, it } from "@effect/vitest"
import * as LwwMap from "@topgun/core/LwwMap"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as MerkleSync from "@topgun/core/MerkleSync"
import { MerkleForest } from "@topgun/core/MerkleTree"
import * as Protocol from "@topgun/core/Protocol"
import * as Storage from "@topgun/core/Storage"
import { millisMax } from "@topgun/core/Timestamp"
import type { ServerConnection } from "@topgun/core/Transport"
import * as Value from "@topgun/core/Value"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import { afterAll, afterEach, beforeAll, expect } from "vitest"
import { inWorld, isSettled } from "./worlds.ts"

const unhandled: Array<unknown> = []
const onUnhandled = (reason: unknown): void => void unhandled.push(reason)
beforeAll(() => void process.on("unhandledRejection", onUnhandled))
afterAll(() => void process.off("unhandledRejection", onUnhandled))
afterEach(() => expect(unhandled.splice(0)).toEqual([]))

/** What a server says instead: messages, or bytes that are none. */
type Said = ReadonlyArray<Protocol.ServerMessage | Uint8Array>

/** What lies between a client and an honest server. */
interface Liar {
  /** It says nothing that a client could doubt. */
  readonly isBelieved?: boolean
  /**
   * It tells a time that a client has to believe. By one that is long over, what others have written before is later; by one to
   * come writes are refused, and are as of now when they are tried again.
   */
  readonly isMistimed?: boolean
  /** In the place of what the server says. */
  readonly says?: (message: Protocol.ServerMessage) => Said
  /** In answer to what the client says, which doesn't get to the server then. */
  readonly answers?: (message: Protocol.ClientMessage) => Said | undefined
}

const bytesOf = (said: Protocol.ServerMessage | Uint8Array): Uint8Array =>
  said instanceof Uint8Array ? said : Protocol.encode(said)

const lying = (connection: ServerConnection, liar: () => Liar | undefined): ServerConnection => {
  const say = (said: Said): void => said.forEach((each) => connection.send(bytesOf(each)))
  return {
    ...connection,
    send: (frame) => {
      const says = liar()?.says
      if (says === undefined) return connection.send(frame)
      for (const message of Protocol.decodeFromServer(frame)) say(says(message))
    },
    listen: (onFrame, onClose) =>
      connection.listen((frame) => {
        const answers = liar()?.answers
        if (answers === undefined) return onFrame(frame)
        for (const message of Protocol.decodeFromClient(frame)) {
          const said = answers(message)
          if (said === undefined) onFrame(Protocol.encode(message))
          else say(said)
        }
      }, onClose)
  }
}

/** Operations of {@link suffer}: a key that was written twice is two where the first may have been sent. */
const all = expect.toBeOneOf([11, 12])

/** A device with writes of all kinds and others' records to fetch, whose server lies for a minute, and then is what it should be. */
const suffer = Effect.fnUntraced(function*(liar: Liar) {
  const clock = yield* VirtualClock.VirtualClock
  const network = yield* Network.SimulatedNetwork
  let present: Liar | undefined
  const server = yield* World.startServer({}, (connection) => lying(connection, () => present))
  const bob = yield* World.startClient("bob")
  const his = yield* bob.map<string>("m")
  yield* his.set("his", "bob")
  for (let n = 0; n < 40; n++) yield* Effect.fork(his.set(`his${n}`, "bob"))
  yield* clock.runUntil(() => isSettled(bob))
  yield* bob.disconnect

  present = liar
  const faults: Array<unknown> = []
  const alice = yield* World.startClient("alice", { onError: (fault) => void faults.push(fault) })
  const maps = {
    records: yield* alice.map<string>("m"),
    sets: yield* alice.orMap<string>("s"),
    hits: yield* alice.counter("c")
  }
  const write = Effect.fnUntraced(function*(n: number) {
    yield* maps.records.set(`k${n}`, `v${n}`)
    yield* maps.records.set("his0", `alice${n}`)
    expect(maps.records.get("his0")).toBe(`alice${n}`)
    yield* maps.sets.add("k", `v${n}`)
    yield* maps.hits.increment(10 ** n)
    yield* alice.batch((tx) => {
      tx.set("m", `b${n}`, "batch")
      tx.increment("c", 2 * 10 ** n)
    })
  })
  yield* write(0)
  yield* clock.advance("20 seconds")
  yield* write(1)
  yield* clock.advance("40 seconds")
  const during = { ...alice.status.current }

  present = undefined
  // What it was told in so many words it believes until the next connection.
  if (liar.isBelieved === true) network.reset("alice")
  yield* write(2)
  yield* clock.runUntil(() => isSettled(alice), { within: "3 minutes" })
  yield* clock.advance("1 minute")
  // What a server has refused by a wrong time is here, to be tried again.
  for (const { id } of alice.rejectedWrites.current) yield* alice.rejectedWrites.retry(id)
  yield* clock.runUntil(() => isSettled(alice), { within: "1 minute" })
  yield* clock.advance("1 minute")
  expect(alice.status.current).toMatchObject({ state: "CONNECTED", pending: 0, rejected: 0, stalled: false })
  expect(network.connections("alice")).toBe(1)
  expect(Object.fromEntries(maps.records)).toMatchObject({
    his: "bob",
    his0: liar.isMistimed === true ? expect.toBeOneOf(["bob", "alice1", "alice2"]) : "alice2",
    k0: "v0",
    k1: "v1",
    k2: "v2",
    b0: "batch",
    b1: "batch",
    b2: "batch"
  })
  expect(Array.from(maps.sets.getValues("k")).sort()).toEqual(["v0", "v1", "v2"])
  expect(maps.hits.current).toBe(333)
  const roots = (yield* server.status).maps.map(({ root }) => root).sort()
  expect(roots).toEqual([maps.records.digest, maps.sets.digest, maps.hits.digest].sort())
  const tags = faults.map((fault) =>
    typeof fault === "object" && fault !== null && "_tag" in fault ? String(fault._tag) : String(fault)
  )
  return { during, faults: Array.from(new Set(tags)) }
})

const survives = (
  words: string,
  liar: (clock: VirtualClock.VirtualClock["Type"]) => Liar | Effect.Effect<Liar>,
  shows: (seen: Effect.Effect.Success<ReturnType<typeof suffer>>) => void
) =>
  it.live(words, () =>
    Effect.gen(function*() {
      const made = liar(yield* VirtualClock.VirtualClock)
      shows(yield* suffer(Effect.isEffect(made) ? yield* made : made))
    }).pipe(Effect.scoped, inWorld()))

describe("a client survives a server that", () => {
  survives("takes writes and never acknowledges them, and says that it's stalled", () => ({
    says: (message) => message._tag === "OpAck" || message._tag === "Durable" ? [] : [message]
  }), ({ during, faults }) => {
    expect(during).toMatchObject({ stalled: true, pending: all })
    expect(faults).toEqual([])
  })

  survives("drops writes and says that they are durable: it finds out, and has them offered again", () => ({
    isBelieved: true,
    answers: (message) =>
      message._tag === "OpBatch"
        ? [{ _tag: "OpAck", level: "APPLIED", replicas: 0, sequences: message.ops.map(([sequence]) => sequence) }]
        : undefined
  }), ({ during, faults }) => {
    // No client can know before the next connection.
    expect(during).toMatchObject({ state: "CONNECTED", pending: 0 })
    expect(faults).toEqual([])
  })

  survives("acknowledges everything twice, and what it was never sent", () => ({
    says: (message) => {
      if (message._tag !== "OpAck") return [message]
      const foreign = message.sequences.map((sequence) => sequence + 5_000)
      return [message, message, { ...message, sequences: foreign }, { _tag: "Durable", sequence: 1e9 }]
    }
  }), ({ during, faults }) => {
    expect(during).toMatchObject({ state: "CONNECTED", pending: 0 })
    expect(faults).toEqual(["MalformedMessage"])
  })

  survives("rejects what it was never sent", () => ({
    says: (message) =>
      message._tag === "OpAck"
        ? [{ _tag: "OpReject", sequence: 5_000, cause: "WriteRejected", reason: "no" }, message]
        : [message]
  }), ({ faults }) => expect(faults).toEqual(["MalformedMessage"]))

  survives("says PERSISTED though it has no database", () => ({
    says: (message) => message._tag === "OpAck" ? [{ ...message, level: "PERSISTED" }] : [message]
  }), ({ during }) => {
    expect(during.pending).toEqual(all)
    expect(during.failure).toContain("PERSISTED")
  })

  survives("sends records of maps that aren't open here", ({ unsafeCurrentTimeMillis }) => ({
    says: (message) =>
      message._tag === "Pong"
        ? [message, {
          _tag: "ServerEvent",
          map: "unknown",
          sequence: 1,
          records: [["k", put("x", unsafeCurrentTimeMillis()).row]]
        }]
        : [message]
  }), ({ during, faults }) => {
    expect(during.state).toBe("CONNECTED")
    expect(faults).toEqual(["MalformedMessage"])
  })

  survives("sends records of another kind than their map's", ({ unsafeCurrentTimeMillis }) => ({
    says: (message) =>
      message._tag === "OpAck"
        ? [{ _tag: "ServerEvent", map: "c", sequence: 1, records: [["c", put("x", unsafeCurrentTimeMillis()).row]] }]
        : [message]
  }), ({ during }) => {
    expect(during.pending).toEqual(all)
    expect(during.failure).toContain("counter")
  })

  survives("answers every question with a Fault", () => ({
    isBelieved: true,
    says: (message) =>
      "id" in message && message.id !== null
        ? [{ _tag: "Fault", id: message.id, cause: "Overloaded", reason: "no" }]
        : [message]
  }), ({ faults }) => expect(faults).toEqual(["MapRefused"]))

  survives("says of every connection that it is at fault", () => ({
    says: () => [{ _tag: "Fault", id: null, cause: "Overloaded", reason: "too much of everything" }]
  }), ({ during }) => {
    expect(during.pending).toEqual(all)
    expect(during.failure).toBeDefined()
  })

  survives("answers questions with another question's answer", () => ({
    says: (message) =>
      message._tag === "SyncRoot" ? [{ _tag: "AuthRenewAck", id: message.id, expiresAt: null }] : [message]
  }), ({ during }) => expect(during.failure).toContain("AuthRenewAck answers SyncInit"))

  survives("answers nothing after it let one in, but pings", () => ({
    says: (message) => message._tag === "AuthAck" || message._tag === "Pong" ? [message] : []
  }), ({ during }) => expect(during.failure).toContain("SyncInit"))

  survives(
    "shows other hashes at every look",
    ({ unsafeCurrentTimeMillis }) =>
      Effect.map(decoy(unsafeCurrentTimeMillis()), (answersOf) => ({
        isBelieved: true,
        answers: (message) => {
          switch (message._tag) {
            case "SyncInit":
              return [{
                _tag: "SyncRoot",
                id: message.id,
                root: new Uint8Array(8),
                partial: false,
                watermark: 0,
                sequence: 0,
                partitions: answersOf().root(message.root) ?? null,
                records: []
              }]
            case "SyncBuckets":
              return [{
                _tag: "SyncBucketsAck",
                id: message.id,
                buckets: answersOf().buckets(message.nodes, message.lane)
              }]
            case "SyncFetch":
            case "SyncPull":
              return [{ _tag: "SyncLeaf", id: message.id, records: [], after: null }]
            default:
              return undefined
          }
        }
      })),
    ({ during }) => expect(during.pending).toBeLessThanOrEqual(12)
  )

  survives("has no last page", () => {
    let page = 0
    return {
      says: (message) =>
        message._tag === "SyncLeaf" ? [{ ...message, after: `${message.after ?? ""}${page++}` }] : [message]
    }
  }, ({ during }) => {
    expect(during.pending).toEqual(all)
    expect(during.failure).toContain("cursor")
  })

  for (
    const [what, frame] of [
      ["nothing", new Uint8Array(0)],
      ["one byte", Uint8Array.of(0xc1)],
      ["noise", Uint8Array.from({ length: 1_000 }, (_, i) => i * 197 % 256)],
      ["half a message", Protocol.encode({ _tag: "Durable", sequence: 1 }).slice(0, 7)],
      ["a client's message", Protocol.encode({ _tag: "Ping", id: 1 })],
      ["a claim of 30 million elements", Uint8Array.of(0xdd, 0x01, 0xc9, 0xc3, 0x80)]
    ] as const
  ) {
    survives(`sends ${what} in the place of acknowledgements`, () => ({
      says: (message) => message._tag === "OpAck" ? [frame] : [message]
    }), ({ during }) => expect(during.pending).toBeGreaterThan(0))
    survives(`sends ${what} before anything else`, () => ({
      says: (message) => message._tag === "AuthAck" ? [frame] : [message]
    }), ({ during }) => {
      expect(during).toMatchObject({ pending: all })
      expect(during.state).not.toBe("CONNECTED")
    })
  }

  for (const millis of [Number.NaN, Number.POSITIVE_INFINITY, -1, -0, 0.5, millisMax, Number.MAX_VALUE]) {
    survives(`says at the handshake that it is ${Object.is(millis, -0) ? "-0" : millis}`, () => ({
      isMistimed: millis === 0 || millis === 0.5,
      says: (message) => message._tag === "AuthAck" ? [{ ...message, serverMillis: millis }] : [message]
    }), ({ during }) => expect(Number.isFinite(during.clockSkewMillis)).toBe(true))
    survives(`says in answer to a ping that it is ${Object.is(millis, -0) ? "-0" : millis}`, () => ({
      says: (message) => message._tag === "Pong" ? [{ ...message, serverMillis: millis }] : [message]
    }), ({ during }) => expect(Number.isFinite(during.clockSkewMillis)).toBe(true))
  }

  survives("takes it for 1970", () => ({
    isMistimed: true,
    says: (message) => "serverMillis" in message ? [{ ...message, serverMillis: 0 }] : [message]
  }), ({ during }) => expect(during.clockSkewMillis).toBeLessThan(-1e12))

  survives("takes it for the year 3000", () => ({
    isMistimed: true,
    says: (message) => "serverMillis" in message ? [{ ...message, serverMillis: Date.UTC(3000, 0) }] : [message]
  }), ({ during }) => expect(Math.abs(during.clockSkewMillis)).toBeGreaterThan(1e12))
})

/** A record of somebody who isn't here. */
const put = (value: string, millis: number): LwwRecord.LwwRecord =>
  LwwRecord.put({ millis, counter: 0, nodeId: "somebodyelse0000" }, Value.encode(value), 0)

/** Answers from a map that has changed at every question. */
const decoy = Effect.fnUntraced(function*(millis: number) {
  const { answers } = yield* MerkleSync.MerkleSync
  const map = new LwwMap.LwwMap({ now: () => millis, tree: new MerkleForest() })
  let n = 0
  return () => {
    for (let i = 0; i < 50; i++) map.merge(`decoy${n++}`, put(`${n}`, millis))
    return answers({ tree: map.tree, record: (key) => map.getConfirmed(key) })
  }
}, Effect.provide(MerkleSync.layer))

describe("a client gets in step after a connection that ends", () => {
  it.live("at any message from the server", () =>
    Effect.gen(function*() {
      for (let n = 1, ended = true; ended; n++) {
        ended = false
        yield* Effect.gen(function*() {
          const clock = yield* VirtualClock.VirtualClock
          let left = n
          const server = yield* World.startServer({}, (connection) => ({
            ...connection,
            send: (frame) => {
              const messages = Protocol.decodeFromServer(frame)
              for (const message of messages) {
                if (--left === 0) {
                  ended = true
                  return connection.close(1011, "no more")
                }
                if (left !== 0) connection.send(Protocol.encode(message))
              }
            }
          }))
          const bob = yield* World.startClient("bob", { autoConnect: false })
          const alice = yield* World.startClient("alice", { autoConnect: false })
          const [his, hers] = [yield* bob.map<number>("m"), yield* alice.map<number>("m")]
          const [hisHits, herHits] = [yield* bob.counter("hits"), yield* alice.counter("hits")]
          for (let key = 0; key < 40; key++) yield* his.set(`his${key}`, key)
          yield* hisHits.increment(1)
          yield* hers.set("hers", 1)
          yield* herHits.increment(2)
          yield* bob.connect
          yield* clock.runUntil(() => isSettled(bob), { within: "1 minute" })
          yield* alice.connect
          yield* hers.set("hers", 2)
          yield* his.set("his0", 100)
          yield* clock.runUntil(() => isSettled(alice) && isSettled(bob), { within: "1 minute" })
          yield* clock.advance("1 second")
          expect([hers.size, hers.get("hers"), hers.get("his0"), herHits.current], `message ${n}`).toEqual([
            41,
            2,
            100,
            3
          ])
          expect([his.digest, hisHits.digest], `message ${n}`).toEqual([hers.digest, herHits.digest])
          expect((yield* server.status).maps.map(({ root }) => root).sort())
            .toEqual([hers.digest, herHits.digest].sort())
        }).pipe(Effect.scoped, inWorld())
        expect(n).toBeLessThan(200)
      }
    }))
})

describe("storage that fails", () => {
  /** Fails at the n-th call of a kind, and at so many after it. */
  const failing = (memory: Storage.StorageAdapter, what: "scan" | "commit", from: number, count: number) => {
    let calls = 0
    const isFailing = (): boolean => ++calls >= from && calls < from + count
    const device: Storage.StorageAdapter = {
      ...memory,
      scan: (...asked) =>
        what === "scan" && isFailing() ? Promise.reject(new Error("unreadable")) : memory.scan(...asked),
      commit: (writes) =>
        what === "commit" && isFailing() ? Promise.reject(new Error("the disk is full")) : memory.commit(writes)
    }
    return { device, calls: () => calls }
  }

  for (const count of [1, 5]) {
    it.live(`at any transaction, ${count} times, loses nothing: it is told of, all is sent, and stored later`, () =>
      Effect.gen(function*() {
        for (let n = 1, reached = true; reached; n++) {
          yield* Effect.gen(function*() {
            const clock = yield* VirtualClock.VirtualClock
            const server = yield* World.startServer()
            const memory = Storage.memory()
            const { calls, device } = failing(memory, "commit", n, count)
            const faults: Array<unknown> = []
            const start = World.startClient("alice", { onError: (fault) => void faults.push(fault) }, device)
            // The first transaction is that of opening, which fails then with what opening fails with.
            let alice = yield* Effect.either(start)
            for (let tries = 0; alice._tag === "Left"; tries++) {
              expect(alice.left._tag).toBe("StorageUnavailable")
              expect(tries).toBeLessThan(count)
              alice = yield* Effect.either(start)
            }
            const client = alice.right
            const map = yield* client.map<number>("m")
            const hits = yield* client.counter("hits")
            for (let key = 0; key < 4; key++) {
              yield* Effect.fork(Effect.ignore(map.set(`k${key}`, key)))
              yield* Effect.fork(Effect.ignore(hits.increment(1)))
              yield* clock.advance("300 millis")
            }
            reached = calls() >= n
            yield* clock.runUntil(() => isSettled(client) && client.status.current.storage.fault === undefined, {
              within: "1 minute"
            })
            if (reached && n > 1 + count) expect(faults[0]).toMatchObject({ _tag: "StorageUnavailable" })
            expect([map.size, hits.current]).toEqual([4, 4])
            expect((yield* server.status).maps.map(({ root }) => root).sort()).toEqual([map.digest, hits.digest].sort())
            yield* client.close
            const again = yield* World.startClient("alice", { autoConnect: false }, memory)
            expect([(yield* again.map("m")).size, (yield* again.counter("hits")).current, again.status.current.pending])
              .toEqual([4, 4, 0])
          }).pipe(Effect.scoped, inWorld())
          expect(n).toBeLessThan(60)
        }
      }))
  }

  it.live("at any read of opening stops it with StorageUnavailable, and the next opening finds all", () =>
    Effect.gen(function*() {
      const memory = Storage.memory()
      const first = yield* World.startClient("alice", { autoConnect: false }, memory)
      const map = yield* first.map<number>("m")
      for (let key = 0; key < 5; key++) yield* map.set(`k${key}`, key)
      yield* first.close
      for (let n = 1, reached = true; reached; n++) {
        const { calls, device } = failing(memory, "scan", n, 1)
        const opened = yield* Effect.either(World.startClient("alice", { autoConnect: false }, device))
        reached = calls() >= n
        if (reached) expect(opened).toMatchObject({ _tag: "Left", left: { _tag: "StorageUnavailable" } })
        else expect(opened._tag).toBe("Right")
        if (opened._tag === "Right") yield* opened.right.close
        const again = yield* World.startClient("alice", { autoConnect: false }, memory)
        expect([(yield* again.map("m")).size, again.status.current.pending]).toEqual([5, 5])
        yield* again.close
        expect(n).toBeLessThan(60)
      }
    }).pipe(Effect.scoped, inWorld()))
})
