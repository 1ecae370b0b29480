import { describe, expect, it } from "@effect/vitest"
import { AuthRequired } from "@topgun/core/GridError"
import * as CrdtStore from "@topgun/core/CrdtStore"
import * as Hlc from "@topgun/core/Hlc"
import * as MerkleSync from "@topgun/core/MerkleSync"
import * as PartitionRouter from "@topgun/core/PartitionRouter"
import * as Protocol from "@topgun/core/Protocol"
import * as Authentication from "@topgun/server/Authentication"
import * as Persistence from "@topgun/server/Persistence"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Visits from "@topgun/server/Visits"
import * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as TestClock from "effect/TestClock"
import { authAnew, batch, inProcess, inProcessReady, openMap, put, settled } from "./PlainClient.ts"

interface Line {
  readonly level: string
  readonly message: string
  readonly annotations: Readonly<{ [name: string]: unknown }>
  /** All of it, as `TOPGUN_LOG_FORMAT=json` writes it. */
  readonly json: string
}

/** A log that is kept, of everything that is said. */
const kept = () => {
  const lines: Array<Line> = []
  const logger = Logger.make((options) => {
    lines.push({
      level: options.logLevel.label,
      message: String(Array.isArray(options.message) ? options.message[0] : options.message),
      annotations: Object.fromEntries(HashMap.toEntries(options.annotations)),
      json: Logger.jsonLogger.log(options)
    })
  })
  const layer = Layer.merge(
    Logger.replace(Logger.defaultLogger, logger),
    Logger.minimumLogLevel(LogLevel.All)
  )
  return { lines, layer, of: (message: string) => lines.filter((line) => line.message === message) }
}

const server = (log: Layer.Layer<never>, settings: Partial<ServerConfig.Settings> = {}) =>
  TopGunServer.layerInProcess(settings).pipe(Layer.provide(log))

describe("The log", () => {
  it.effect("says when the server is ready, stops and has stopped", () =>
    Effect.gen(function*() {
      const { layer, lines } = kept()
      yield* Effect.provide(inProcessReady, server(layer))
      expect(lines.filter(({ level }) => level === "INFO").map(({ annotations, message }) => [message, annotations]))
        .toEqual([
          ["TopGun is ready", { version: expect.any(String), records: 0, storage: "memory" }],
          ["TopGun stops: it takes nothing more, and saves what it has taken", { connections: 1, waitingRecords: 0 }],
          ["TopGun has stopped serving", { waitingRecords: 0 }]
        ])
    }))

  it.effect("has a line for each connection at debug, with who it was, how it ended, how long it was and what went over it", () => {
    const { layer, of } = kept()
    return Effect.gen(function*() {
      const client = yield* inProcess
      const auth = authAnew()
      yield* client.send(auth)
      yield* client.take("AuthAck")
      yield* TestClock.adjust(1_234)
      client.connection.close(1000, "done")
      yield* settled
      expect(of("A connection ended")).toMatchObject([{
        level: "DEBUG",
        annotations: {
          connection: 1,
          node: auth.nodeId,
          code: 1000,
          millis: 1_234,
          framesIn: 1,
          framesOut: 1,
          bytesIn: expect.any(Number),
          bytesOut: expect.any(Number)
        }
      }])
    }).pipe(Effect.provide(server(layer)))
  })

  it.effect("warns of those who aren't let in, by the error's tag", () => {
    const { layer, of } = kept()
    return Effect.gen(function*() {
      const client = yield* inProcess
      yield* client.send({ ...authAnew(), token: "a token" })
      yield* client.closed
      expect(of("A device was not let in")).toMatchObject([
        { level: "WARN", annotations: { connection: 1, cause: "AuthRequired" } }
      ])
      expect(of("A connection ended")).toMatchObject([
        { annotations: { cause: "AuthRequired", code: Protocol.closeCodes.authFailed } }
      ])
    }).pipe(Effect.provide(server(layer)))
  })

  it.effect("tells of a fault of its own at error, with the fault and whose connection it was, and goes on", () => {
    const { layer, of } = kept()
    const broken = Layer.mock(MerkleSync.MerkleSync, {
      answers: () => {
        throw new Error("a broken assumption")
      }
    })
    const parts = Layer.mergeAll(CrdtStore.layer, Hlc.layer(), broken, PartitionRouter.layerSingleNode)
    const faulty = TopGunServer.layerPartsInProcess.pipe(
      Layer.provide([parts, Persistence.layerMemory]),
      Layer.provide(ServerConfig.layer()),
      Layer.provide(layer)
    )
    return Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* client.send(openMap("todos"))
      expect((yield* client.closed).code).toBe(1011)
      expect(of("A message could not be served")).toMatchObject([{ level: "ERROR", annotations: { connection: 1 } }])
      expect(of("A message could not be served")[0]!.json).toContain("a broken assumption")
      yield* inProcessReady
    }).pipe(Effect.provide(faulty))
  })

  it.effect("isn't flooded by strangers: so many lines of a kind a second, and how many were left out", () => {
    const { layer, of } = kept()
    return Effect.gen(function*() {
      const flood = Effect.gen(function*() {
        for (let i = 0; i < 3 * Visits.linesPerSecondMax; i++) {
          const client = yield* inProcess
          yield* client.sendBytes(Uint8Array.of(0xc1))
          yield* client.closed
        }
      })
      yield* flood
      expect(of("A device was not let in")).toHaveLength(Visits.linesPerSecondMax)
      expect(of("A connection ended")).toHaveLength(Visits.linesPerSecondMax)
      yield* TestClock.adjust(1_000)
      const leftOut = of("More lines were left out").map(({ annotations }) => annotations)
      expect(leftOut).toHaveLength(2)
      for (const line of ["A device was not let in", "A connection ended"]) {
        expect(leftOut).toContainEqual({ line, leftOut: 2 * Visits.linesPerSecondMax })
      }
      expect(of("More lines were left out").map(({ level }) => level).sort()).toEqual(["DEBUG", "WARN"])
      yield* flood
      expect(of("A device was not let in")).toHaveLength(2 * Visits.linesPerSecondMax)
    }).pipe(Effect.provide(server(layer)))
  })

  it.effect("has no key, value, token or secret in any line, whatever clients do", () => {
    const { layer, lines, of } = kept()
    const verifier = Authentication.layerVerifier((token) =>
      token === "canary-token-good"
        ? Effect.succeed({ userId: "alice" })
        : new AuthRequired({ reason: `canary-reason: ${token} is not good` })
    )
    return Effect.gen(function*() {
      const secrets: Array<string> = []
      const enter = Effect.gen(function*() {
        const client = yield* inProcess
        yield* client.send({ ...authAnew(), token: "canary-token-good" })
        const { secret } = yield* client.take("AuthAck")
        secrets.push(secret)
        yield* client.send({ _tag: "AuthKept", secret })
        return client
      })
      const client = yield* enter
      yield* client.send(openMap("canary-map"))
      yield* client.take("SyncRoot")
      yield* client.send(
        batch("canary-map", "APPLIED", 0, [["canary-key", put("canary-value")], ["canary-key-2", Uint8Array.of(1)]]),
        batch("canary-map", "PERSISTED", 2, [["canary-key", put("canary-value")]]),
        batch("canary-map", "APPLIED", 3, [["canary-key", put("canary-value", 1e14)]]),
        batch("canary-map", "APPLIED", 4, [["canary-key", put("canary-value")]], { kind: "or" }),
        { _tag: "AuthRenew", id: 9, token: "canary-token-bad" }
      )
      yield* client.take("Fault")
      const stranger = yield* inProcess
      yield* stranger.send({ ...authAnew(), token: "canary-token-bad" })
      yield* stranger.closed
      const copy = yield* inProcess
      yield* copy.send({ ...authAnew(), secret: "canary-secret", token: "canary-token-good" })
      const outOfPlace = yield* enter
      yield* outOfPlace.send({ _tag: "SyncPull", id: 1, map: "canary-map", node: [0, ""], after: null })
      yield* outOfPlace.closed
      const garbler = yield* enter
      yield* garbler.sendBytes(new TextEncoder().encode("canary-garbage"))
      yield* garbler.closed
      const caller = yield* enter
      yield* caller.send({ _tag: "Call", payload: new TextEncoder().encode("{\"canary-call\":1}") })
      yield* caller.closed
      yield* TestClock.adjust(60_000)
      yield* settled
      expect(secrets).toHaveLength(4)
      expect(of("A connection was closed for a fault").length).toBeGreaterThanOrEqual(3)
      expect(of("A connection ended").length).toBeGreaterThanOrEqual(5)
      for (const { json } of lines) {
        expect(json).not.toContain("canary")
        for (const secret of secrets) expect(json).not.toContain(secret)
      }
    }).pipe(
      Effect.provide(server(layer).pipe(Layer.provide([verifier, PermissionPolicy.layer(PermissionPolicy.everything)])))
    )
  })
})
