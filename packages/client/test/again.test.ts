/** What a client makes of a server that leaves out events, or goes away in good order. */
import { describe, it } from "@effect/vitest"
import * as Protocol from "@topgun/core/Protocol"
import { makeDrain, type ServerConnection } from "@topgun/core/Transport"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import { inStep, inWorld, isSettled, welcome } from "./worlds.ts"

/** A link over which a client reads nothing while `isStuck`, as far as its server knows. */
const makeLink = () => {
  let isStuck = false
  const asked: Array<typeof Protocol.SyncInit.Type> = []
  const said: Array<Protocol.ServerMessage> = []
  let left = () => {}
  return {
    asked,
    said,
    set isStuck(stuck: boolean) {
      isStuck = stuck
      left()
    },
    between: (connection: ServerConnection): ServerConnection => {
      const bufferedBytes = () => isStuck ? 300_000 : connection.bufferedBytes()
      const drain = makeDrain(bufferedBytes)
      left = drain.left
      return {
        ...connection,
        bufferedBytes,
        whenDrained: drain.whenDrained,
        send: (frame) => {
          said.push(...Protocol.decodeFromServer(frame))
          connection.send(frame)
          drain.left()
        },
        listen: (onFrame, onClose) =>
          connection.listen((frame) => {
            for (const message of Protocol.decodeFromClient(frame)) {
              if (message._tag === "SyncInit") asked.push(message)
            }
            onFrame(frame)
          }, onClose)
      }
    }
  }
}

describe("a client that read too slowly", () => {
  it.live("opens the map again with its cursor, is not in step meanwhile, and hears of everything", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const link = makeLink()
      let connections = 0
      yield* World.startServer({}, (connection) => connections++ === 0 ? link.between(connection) : connection)
      const alice = yield* World.startClient("alice")
      const hers = yield* alice.map<number>("m")
      yield* clock.runUntil(() => isSettled(alice) && hers.status.current.isSynced)
      const bob = yield* World.startClient("bob")
      const his = yield* bob.map<number>("m")
      yield* his.set("before", 1)
      yield* clock.runUntil(() => hers.get("before") === 1)

      link.isStuck = true
      for (let n = 0; n < 100; n++) yield* Effect.fork(his.set(`k${n}`, n))
      yield* clock.runUntil(() => isSettled(bob))
      yield* clock.advance("1 second")
      expect(hers.size).toBe(1)
      const opened = link.asked.length
      const heard = link.said.length

      const steps: Array<boolean> = []
      const stop = hers.status.subscribe(({ isSynced }) => void steps.push(isSynced))
      link.isStuck = false
      yield* clock.runUntil(() => hers.size === 101 && hers.status.current.isSynced)
      stop()
      expect(steps).toContain(false)
      expect(steps.at(-1)).toBe(true)
      expect(link.said.slice(heard).filter(({ _tag }) => _tag === "SyncAgain")).toHaveLength(1)
      expect(link.asked.slice(opened)).toHaveLength(1)
      expect(link.asked.at(-1)!.cursor).not.toBeNull()
      // By what has changed since, without a walk.
      expect(link.said.slice(heard).filter(({ _tag }) => _tag === "SyncBucketsAck" || _tag === "SyncLeaf")).toEqual([])

      yield* his.set("after", 2)
      yield* clock.runUntil(() => hers.get("after") === 2)
      expect(alice.status.current.state).toBe("CONNECTED")
      expect(hers.digest).toBe(his.digest)
    }).pipe(Effect.scoped, inWorld()))

  it.live("while it was opening the map opens it once more, and keeps a cursor that doesn't hide what was left out", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const link = makeLink()
      let interferes = false
      let opened = 0
      let isSilent = false
      yield* World.startServer({}, (inner) => {
        const connection = interferes ? link.between(inner) : inner
        if (!interferes) return connection
        return {
          ...connection,
          listen: (onFrame, onClose) =>
            connection.listen((frame) => {
              if (Protocol.decodeFromClient(frame).some(({ _tag }) => _tag === "SyncInit")) isSilent = false
              onFrame(frame)
            }, onClose),
          send: (frame) => {
            for (const message of Protocol.decodeFromServer(frame)) {
              if (message._tag === "ServerEvent" && isSilent) continue
              connection.send(Protocol.encode(message))
              if (message._tag !== "SyncRoot" || ++opened > 2) continue
              isSilent = true
              connection.send(Protocol.encode({ _tag: "SyncAgain", map: "m" }))
            }
          }
        }
      })
      const bob = yield* World.startClient("bob")
      const his = yield* bob.map<number>("m")
      for (let n = 0; n < 300; n++) yield* Effect.fork(his.set(`k${n}`, n))
      yield* clock.runUntil(() => isSettled(bob))
      interferes = true
      const alice = yield* World.startClient("alice")
      const hers = yield* alice.map<number>("m")
      yield* clock.runUntil(() => opened === 1)
      // The server left this one out.
      yield* his.set("k0", -1)
      yield* clock.runUntil(() => isSettled(alice) && hers.status.current.isSynced)
      yield* clock.runUntil(() => hers.get("k0") === -1)
      expect(opened).toBeGreaterThanOrEqual(3)
      expect(hers.digest).toBe(his.digest)
    }).pipe(Effect.scoped, inWorld()))

  it.live("takes a gap of a map that isn't open for a fault of the server's, and goes on", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const faults: Array<unknown> = []
      yield* World.startServer({}, (connection) => ({
        ...connection,
        send: (frame) => {
          connection.send(frame)
          if (Protocol.decodeFromServer(frame).some(({ _tag }) => _tag === "Pong")) {
            connection.send(Protocol.encode({ _tag: "SyncAgain", map: "unknown" }))
          }
        }
      }))
      const alice = yield* World.startClient("alice", { onError: (fault) => void faults.push(fault) })
      yield* clock.advance("1 minute")
      expect(alice.status.current.state).toBe("CONNECTED")
      expect(faults).toMatchObject([{ _tag: "MalformedMessage" }])
    }).pipe(Effect.scoped, inWorld()))
})

describe("a client whose server goes away", () => {
  /** A server that lets everybody in and, when it is told to, sends them away. */
  const parting = (retryMillis: number) => {
    const open: Array<ServerConnection> = []
    return {
      between: (connection: ServerConnection): ServerConnection => {
        connection.listen((frame) => {
          for (const message of Protocol.decodeFromClient(frame)) {
            if (message._tag === "Auth") connection.send(Protocol.encode(welcome(0)))
            else if (message._tag === "SyncInit") connection.send(Protocol.encode(inStep(message)))
          }
        }, () => {})
        open.push(connection)
        return { ...connection, listen: () => {}, send: () => {} }
      },
      part: () => {
        open.at(-1)!.send(Protocol.encode({ _tag: "GoingAway", retryMillis }))
        open.at(-1)!.close(Protocol.closeCodes.goingAway, "server going away")
      },
      hangUp: () => open.at(-1)!.close(Protocol.closeCodes.goingAway, "server going away")
    }
  }

  const away = Effect.fnUntraced(function*(retryMillis: number) {
    const clock = yield* VirtualClock.VirtualClock
    const server = parting(retryMillis)
    yield* World.startServer({}, server.between)
    const client = yield* World.startClient("alice")
    yield* clock.runUntil(() => client.status.current.state === "CONNECTED")
    server.part()
    yield* clock.runUntil(() => client.status.current.state === "BACKOFF")
    const leftAt = clock.unsafeCurrentTimeMillis()
    const backAfter = Effect.map(
      clock.runUntil(() => client.status.current.state === "CONNECTING", { within: "10 minutes" }),
      () => clock.unsafeCurrentTimeMillis() - leftAt
    )
    return { backAfter, client, clock, server }
  })

  for (const retryMillis of [50, 7_777]) {
    it.live(`waits for the ${retryMillis} ms that it's told, in the place of a delay of its own`, () =>
      Effect.gen(function*() {
        const { backAfter } = yield* away(retryMillis)
        expect(yield* backAfter).toBe(retryMillis)
      }).pipe(Effect.scoped, inWorld()))
  }

  it.live("waits no longer than 5 minutes, whatever it's told", () =>
    Effect.gen(function*() {
      const { backAfter } = yield* away(Number.MAX_SAFE_INTEGER)
      expect(yield* backAfter).toBe(300_000)
    }).pipe(Effect.scoped, inWorld()))

  it.live("comes back at once when the application wants it to", () =>
    Effect.gen(function*() {
      const { client, clock } = yield* away(60_000)
      yield* client.resetConnection
      yield* clock.runUntil(() => client.status.current.state === "CONNECTED", { within: "1 second" })
    }).pipe(Effect.scoped, inWorld()))

  it.live("waits by its own delays again after the next connection", () =>
    Effect.gen(function*() {
      const { client, clock, server } = yield* away(20_000)
      yield* clock.runUntil(() => client.status.current.state === "CONNECTED", { within: "1 minute" })
      server.hangUp()
      yield* clock.runUntil(() => client.status.current.state === "BACKOFF")
      yield* clock.runUntil(() => client.status.current.state === "CONNECTING", { within: "600 millis" })
    }).pipe(Effect.scoped, inWorld()))
})
