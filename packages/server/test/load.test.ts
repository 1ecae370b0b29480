/**
 * A small crowd over real sockets, counted by what the server holds for each of them: frames that no kernel has taken yet. What a
 * large one costs in memory and time is `npm run bench:gateway`'s affair.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Protocol from "@topgun/core/Protocol"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as diagnostics from "node:diagnostics_channel"
import type { Socket } from "node:net"
import { WebSocket } from "ws"
import { authAnew, batch, noise, openMap, overSocketReady, put } from "./PlainClient.ts"

const crowd = 300
const layer = TopGunServer.layer({
  port: 0,
  storage: "memory",
  logLevel: "none",
  connectsPerSecond: crowd,
  unauthenticatedPerAddressMax: crowd
})

/** The server's ends of all connections that come while the scope is open. */
const serverSockets = Effect.acquireRelease(
  Effect.sync(() => {
    const sockets = new Set<Socket>()
    const take = (message: unknown) => void sockets.add((message as { readonly socket: Socket }).socket)
    diagnostics.subscribe("net.server.socket", take)
    return { sockets, take }
  }),
  ({ take }) => Effect.sync(() => diagnostics.unsubscribe("net.server.socket", take))
).pipe(Effect.map(({ sockets }) => sockets))

/** A reader of one map, which counts the records that it is told of. */
const reading = (map: string) =>
  Effect.flatMap(TopGunServer.TopGunServer, ({ address }) =>
    Effect.acquireRelease(
      Effect.async<{ readonly socket: WebSocket; records: number; gaps: number }>((resume) => {
        const socket = new WebSocket(`ws://${address!.host}:${address!.port}/ws`)
        const reader = { socket, records: 0, gaps: 0 }
        socket.once("open", () => socket.send(Protocol.frame([authAnew(), openMap(map)].map(Protocol.encode))))
        socket.on("message", (data: Buffer) => {
          for (const message of Protocol.decodeFromServer(new Uint8Array(data))) {
            if (message._tag === "SyncRoot") resume(Effect.succeed(reader))
            if (message._tag === "SyncAgain") reader.gaps++
            if (message._tag === "ServerEvent") reader.records += message.records.length
          }
        })
      }),
      ({ socket }) => Effect.sync(() => socket.terminate())
    ))

/** Waits for the sockets' next turns for as long as it takes. */
const until = (isSo: () => boolean): Effect.Effect<void> =>
  Stream.runDrain(Stream.takeUntil(
    Stream.repeatEffect(Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))),
    isSo
  ))

describe("A server with hundreds of connections", () => {
  it.scoped("holds next to nothing for those who read, and little for one who doesn't", () =>
    Effect.gen(function*() {
      const sockets = yield* serverSockets
      const { status } = yield* TopGunServer.TopGunServer
      const writer = yield* overSocketReady
      const readers = yield* Effect.all(Array.from({ length: crowd - 2 }, () => reading("news")), { concurrency: 50 })
      expect((yield* status).connections).toBe(crowd - 1)
      const before = new Set(sockets)
      const deaf = yield* reading("bulk")
      const deafEnd = Array.from(sockets).find((socket) => !before.has(socket))
      deaf.socket.pause()

      let most = 0
      let sequence = 0
      const write = Effect.fnUntraced(function*(map: string, value: unknown) {
        yield* writer.send(batch(map, "APPLIED", sequence, [["k", put(value, 1_000 + sequence)]]))
        sequence++
        yield* writer.take("OpAck")
        most = Math.max(most, deafEnd!.writableLength)
      })
      const bulk = noise(100_000)
      // Until two kernels are full, whatever they take, and then much more.
      while (deafEnd!.writableLength === 0) yield* write("bulk", bulk)
      const news = 10
      for (let i = 0; i < 50; i++) {
        yield* write("bulk", bulk)
        if (i % 5 === 0) yield* write("news", i)
      }
      yield* until(() => readers.every(({ records }) => records === news))
      // A quarter of `outboundBytesMax`, and one event beyond it.
      expect(most).toBeGreaterThan(0)
      expect(most).toBeLessThan(512 * 1024)
      yield* until(() => Array.from(before).every(({ writableLength }) => writableLength === 0))
      expect((yield* status).connections).toBe(crowd)

      deaf.socket.resume()
      yield* until(() => deaf.gaps > 0)
      expect(readers.every(({ gaps }) => gaps === 0)).toBe(true)
    }).pipe(Effect.provide(layer)))
})
