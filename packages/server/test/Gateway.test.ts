import { describe, expect, it } from "@effect/vitest"
import * as CrdtStore from "@topgun/core/CrdtStore"
import * as Hlc from "@topgun/core/Hlc"
import * as MerkleSync from "@topgun/core/MerkleSync"
import * as PartitionRouter from "@topgun/core/PartitionRouter"
import * as Protocol from "@topgun/core/Protocol"
import { makeWebSocket } from "@topgun/core/Transport"
import * as Persistence from "@topgun/server/Persistence"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import { once } from "node:events"
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { request } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { WebSocket } from "ws"
import { auth, batch, noise, openMap, overSocket, overSocketReady, put } from "./PlainClient.ts"

const codes = Protocol.closeCodes

interface Answer {
  readonly status: number
  readonly type: string | undefined
  readonly body: string
}

/** Asks for a path exactly as it's written, unlike `fetch`, which tidies it first. */
const get = (path: string) =>
  Effect.flatMap(TopGunServer.TopGunServer, ({ address }) =>
    Effect.async<Answer, Error>((resume) => {
      const { host, port } = address!
      const asked = request({ host, port, path, agent: false }, (response) => {
        let body = ""
        response.setEncoding("utf8")
        response.on("data", (part: string) => body += part)
        response.on("end", () =>
          resume(Effect.succeed({ status: response.statusCode!, type: response.headers["content-type"], body })))
      })
      asked.on("error", (error) =>
        resume(Effect.fail(error)))
      asked.end()
    }))

/** The status that an upgrade to a WebSocket is answered with; 101 when it's granted. */
const upgrade = (path: string, origin?: string) =>
  Effect.flatMap(TopGunServer.TopGunServer, ({ address }) =>
    Effect.async<number>((resume) => {
      const socket = new WebSocket(
        `ws://${address!.host}:${address!.port}${path}`,
        origin === undefined ? {} : { origin }
      )
      socket.on("unexpected-response", (asked, response) => {
        asked.destroy()
        resume(Effect.succeed(response.statusCode!))
      })
      socket.on("open", () => {
        socket.terminate()
        resume(Effect.succeed(101))
      })
      socket.on("error", () => {})
    }))

describe("Gateway", () => {
  it.scoped("carries writes and events between WebSocket clients", () =>
    Effect.gen(function*() {
      const writer = yield* overSocketReady
      const reader = yield* overSocketReady
      yield* reader.send(openMap("todos"))
      yield* reader.take("SyncRoot")
      const row = put({ text: "milk" })
      yield* writer.send(batch("todos", "APPLIED", 0, [["1", row]]))
      expect((yield* reader.take("ServerEvent")).records).toEqual([["1", row]])
      expect((yield* writer.take("OpAck")).sequences).toEqual([0])
    }).pipe(Effect.provide(layer)))

  it.scoped("closes the connection that sends garbage with 1007, one that sends too much with 1009, and no other", () =>
    Effect.gen(function*() {
      const bystander = yield* overSocketReady
      const garbler = yield* overSocketReady
      yield* garbler.sendBytes(Uint8Array.of(0xc1, 0xc1))
      expect((yield* garbler.closed).code).toBe(codes.malformed)
      const flooder = yield* overSocketReady
      yield* flooder.sendBytes(new Uint8Array(Protocol.frameBytesMax + 1))
      expect((yield* flooder.closed).code).toBe(codes.tooLarge)
      const early = yield* overSocket
      yield* early.sendBytes(new Uint8Array(Protocol.frameBytesBeforeAuthMax + 1))
      expect((yield* early.closed).code).toBe(codes.tooLarge)
      yield* bystander.send({ _tag: "Ping", id: 1 })
      yield* bystander.take("Pong")
    }).pipe(Effect.provide(layer)))

  for (const readsAgain of [true, false]) {
    it.scoped(
      readsAgain
        ? "tells a reader that stopped reading for a while of its gaps, and serves the others meanwhile"
        : "cuts off a reader that stops reading, and serves the others meanwhile",
      () =>
        Effect.gen(function*() {
          const { address, status } = yield* TopGunServer.TopGunServer
          const reader = new WebSocket(`ws://${address!.host}:${address!.port}/ws`)
          yield* Effect.addFinalizer(() => Effect.sync(() => reader.terminate()))
          const gaps: Array<string> = []
          yield* Effect.async<void>((resume) => {
            reader.once("open", () => {
              reader.send(Protocol.frame([auth, openMap("todos")].map(Protocol.encode)))
              reader.on("message", (data: Buffer) => {
                for (const message of Protocol.decodeFromServer(new Uint8Array(data))) {
                  if (message._tag === "SyncAgain") gaps.push(message.map)
                  if (message._tag !== "SyncRoot") continue
                  reader.pause()
                  resume(Effect.void)
                }
              })
            })
          })
          const writer = yield* overSocketReady
          const bytes = noise(200_000)
          // Much more than two kernels take in.
          for (let frames = 0; frames < 100; frames++) {
            yield* writer.send(batch("todos", "APPLIED", frames, [["1", put(bytes, frames)]]))
            yield* writer.take("OpAck")
          }
          expect((yield* status).connections).toBe(2)
          if (readsAgain) {
            reader.resume()
            yield* Effect.async<void>((resume) =>
              void reader.on("message", () => gaps.length > 0 && resume(Effect.void))
            )
            expect(gaps).toEqual(["todos"])
          }
          yield* TestClock.adjust(3_000)
          expect((yield* status).connections).toBe(readsAgain ? 2 : 1)
          yield* writer.send({ _tag: "Ping", id: 1 })
          yield* writer.take("Pong")
        }).pipe(Effect.provide(TopGunServer.layer({ ...inMemory, drainMillisMax: 3_000 })))
    )
  }

  it.scoped("closes text frames with 1007", () =>
    Effect.gen(function*() {
      const { address } = yield* TopGunServer.TopGunServer
      const code = yield* Effect.async<number>((resume) => {
        const socket = new WebSocket(`ws://${address!.host}:${address!.port}/ws`)
        socket.on("open", () => socket.send("hello"))
        socket.on("close", (closeCode) => resume(Effect.succeed(closeCode)))
      })
      expect(code).toBe(codes.malformed)
    }).pipe(Effect.provide(layer)))

  it.scoped("upgrades at /ws only", () =>
    Effect.gen(function*() {
      expect(yield* upgrade("/ws")).toBe(101)
      expect(yield* upgrade("/ws?x=1")).toBe(101)
      expect(yield* upgrade("/other")).toBe(404)
    }).pipe(Effect.provide(layer)))

  it.scoped("lets pages of this machine connect, and others only where they are allowed", () =>
    Effect.gen(function*() {
      expect(yield* upgrade("/ws", "http://localhost:5173")).toBe(101)
      expect(yield* upgrade("/ws", "https://evil.example")).toBe(403)
      expect(yield* upgrade("/ws", "null")).toBe(403)
      expect(yield* upgrade("/ws", "https://app.example")).toBe(101)
    }).pipe(Effect.provide(TopGunServer.layer({ ...inMemory, allowedOrigins: ["https://app.example"] }))))

  it.scoped("answers one connection too many with 503", () =>
    Effect.gen(function*() {
      yield* overSocketReady
      expect(yield* upgrade("/ws")).toBe(503)
      const { address } = yield* TopGunServer.TopGunServer
      const refused = yield* Effect.flip(
        makeWebSocket({ url: `ws://${address!.host}:${address!.port}` }).connect(PartitionRouter.home)
      )
      expect(refused._tag).toBe("ConnectionLost")
    }).pipe(Effect.provide(TopGunServer.layer({ ...inMemory, connectionsMax: 1 }))))

  it.effect("says which port is in use, and how to choose another", () =>
    Effect.gen(function*() {
      const { address } = yield* TopGunServer.TopGunServer
      const second = TopGunServer.layer({ ...inMemory, port: address!.port })
      const { message } = yield* Effect.flip(Effect.scoped(Layer.build(second)))
      expect(message).toContain(`port ${address!.port} on 127.0.0.1 is in use`)
      expect(message).toContain("--port or TOPGUN_PORT")
    }).pipe(Effect.provide(layer)))

  it.effect("answers probes", () =>
    Effect.gen(function*() {
      expect(yield* get("/livez")).toMatchObject({ status: 200, body: "alive" })
      expect(yield* get("/readyz")).toMatchObject({ status: 200, body: "ready" })
      expect(yield* get("/healthz")).toMatchObject({ status: 200, body: "ready" })
      expect(yield* get("/index.html")).toMatchObject({ status: 404 })
    }).pipe(Effect.provide(layer)))

  it.scoped("serves the files of a directory, and nothing outside it", () =>
    Effect.gen(function*() {
      const base = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "topgun-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
      )
      const staticDir = join(base, "public")
      mkdirSync(join(staticDir, "assets"), { recursive: true })
      writeFileSync(join(base, "secret.txt"), "secret")
      writeFileSync(join(staticDir, "index.html"), "<h1>hello</h1>")
      writeFileSync(join(staticDir, "assets", "a b.js"), "let x")
      writeFileSync(join(staticDir, "data.unknown"), "?")
      symlinkSync(join(base, "secret.txt"), join(staticDir, "link.txt"))
      yield* Effect.gen(function*() {
        expect(yield* get("/")).toEqual({ status: 200, type: "text/html; charset=utf-8", body: "<h1>hello</h1>" })
        expect(yield* get("/?x=1")).toMatchObject({ status: 200 })
        expect(yield* get("/assets/a%20b.js")).toMatchObject({ status: 200, type: "application/javascript" })
        expect(yield* get("/data.unknown")).toMatchObject({ status: 200, type: "application/octet-stream" })
        expect(yield* get("/livez")).toMatchObject({ body: "alive" })
        for (
          const path of [
            "/assets",
            "/nothing",
            "/../secret.txt",
            "/%2e%2e/secret.txt",
            "/..%2fsecret.txt",
            "/assets/..%2f..%2fsecret.txt",
            "/link.txt",
            "/index.html%00",
            "/%ff",
            "//secret.txt"
          ]
        ) {
          expect(yield* get(path), path).toMatchObject({ status: 404 })
        }
      }).pipe(Effect.provide(TopGunServer.layer({ ...inMemory, staticDir })))
    }))

  it.effect("stops, although a client doesn't answer the closing handshake", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(layer, scope)
      const { address } = Context.get(context, TopGunServer.TopGunServer)
      const deaf = new WebSocket(`ws://${address!.host}:${address!.port}/ws`)
      yield* Effect.promise(() => once(deaf, "open"))
      deaf.pause()
      const stopping = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* TestClock.adjust("2 seconds")
      yield* stopping
      deaf.terminate()
    }))

  it.effect("says that it will stop before it does: it isn't ready any more, and serves for as long as it's told to", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(
        TopGunServer.layer({ ...inMemory, shutdownNotice: "4 seconds" }),
        scope
      )
      yield* Effect.scoped(Effect.gen(function*() {
        const before = yield* overSocketReady
        const stopping = yield* Effect.fork(Scope.close(scope, Exit.void))
        yield* Effect.yieldNow()
        expect(yield* get("/readyz")).toMatchObject({ status: 503, body: "leaving" })
        expect(yield* get("/livez")).toMatchObject({ status: 200 })
        yield* TestClock.adjust(3_999)
        const late = yield* overSocketReady
        expect(before.untaken("GoingAway")).toBe(0)
        yield* late.send(batch("todos", "APPLIED", 0, [["1", put("x")]]))
        yield* late.take("OpAck")
        yield* TestClock.adjust(1)
        for (const client of [before, late]) {
          yield* client.take("GoingAway")
          expect((yield* client.closed).code).toBe(codes.goingAway)
        }
        yield* stopping
      })).pipe(Effect.provide(context))
    }))

  it.effect("stops in the time that it has, though nothing can be saved", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const parts = Layer.mergeAll(
        CrdtStore.layer,
        Hlc.layer(),
        MerkleSync.layer,
        PartitionRouter.layerSingleNode,
        Layer.map(
          Persistence.layerMemory,
          (context) =>
            Context.add(context, Persistence.Persistence, {
              ...Context.get(context, Persistence.Persistence),
              flush: Effect.never
            })
        )
      )
      const stuck = TopGunServer.layerParts.pipe(
        Layer.provide(parts),
        Layer.provide(ServerConfig.layer({ ...inMemory, shutdownTimeout: "5 seconds" }))
      )
      const context = yield* Layer.buildWithScope(stuck, scope)
      yield* Effect.scoped(Effect.gen(function*() {
        const client = yield* Effect.provide(overSocketReady, context)
        const stopping = yield* Effect.fork(Scope.close(scope, Exit.void))
        yield* client.take("GoingAway")
        yield* TestClock.adjust(3_999)
        const { status } = Context.get(context, TopGunServer.TopGunServer)
        expect((yield* status).connections).toBe(1)
        yield* TestClock.adjust(1)
        expect((yield* client.closed).code).toBe(codes.goingAway)
        yield* TestClock.adjust(1_000)
        yield* stopping
      }))
    }))

  it.effect("closes its clients with 1001 when it stops, and the port is free again", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(layer, scope)
      yield* Effect.scoped(Effect.gen(function*() {
        const client = yield* Effect.provide(overSocketReady, context)
        const stopping = yield* Effect.fork(Scope.close(scope, Exit.void))
        expect((yield* client.closed).code).toBe(codes.goingAway)
        yield* stopping
      }))
      const { address } = yield* Effect.provide(TopGunServer.TopGunServer, context)
      yield* Effect.scoped(Layer.build(TopGunServer.layer({ ...inMemory, port: address!.port })))
    }))
})

const inMemory = { port: 0, storage: "memory" } as const
const layer = TopGunServer.layer(inMemory)
