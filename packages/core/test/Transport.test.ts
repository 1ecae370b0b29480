import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Scope, TestClock } from "effect"
import * as net from "node:net"
import { WebSocketServer } from "ws"
import { home } from "../src/PartitionRouter.ts"
import * as Transport from "../src/Transport.ts"

/** Frames as their first bytes, and ends, as one end sees them; with the means to wait for the n-th of either. */
const watch = (connection: Transport.Connection) => {
  const frames: Array<number> = []
  const ends: Array<Transport.Closed> = []
  let waiting: { readonly holds: () => boolean; readonly done: Deferred.Deferred<void> } | undefined
  const tell = () => {
    if (waiting?.holds() === true) Deferred.unsafeDone(waiting.done, Effect.void)
  }
  connection.listen((frame) => {
    frames.push(frame[0]!)
    tell()
  }, (closed) => {
    ends.push(closed)
    tell()
  })
  const until = (holds: () => boolean) =>
    Effect.gen(function*() {
      const done = yield* Deferred.make<void>()
      waiting = { holds, done }
      tell()
      yield* Deferred.await(done)
    })
  return { frames, ends, until }
}

/** Lets everything that is on its way in this process arrive. */
const arrive = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

describe("makePair", () => {
  it.effect("carries frames both ways, in order, as copies, and later than the call", () =>
    Effect.gen(function*() {
      const [a, b] = Transport.makePair()
      const [atA, atB] = [watch(a), watch(b)]
      const frame = Uint8Array.of(1)
      const buffer = Buffer.from([2])
      a.send(frame)
      a.send(buffer)
      b.send(Uint8Array.of(3))
      frame[0] = 9
      buffer[0] = 9
      assert.deepStrictEqual([atA.frames, atB.frames], [[], []])
      assert.strictEqual(a.bufferedBytes(), 2)
      yield* arrive
      assert.deepStrictEqual([atA.frames, atB.frames], [[3], [1, 2]])
      assert.strictEqual(a.bufferedBytes(), 0)
    }))

  it.effect("tells when few enough bytes wait to leave, once", () =>
    Effect.gen(function*() {
      const [a, b] = Transport.makePair()
      watch(b)
      const told: Array<string> = []
      a.whenDrained(0, () => told.push("nothing waits"))
      for (let i = 0; i < 3; i++) a.send(new Uint8Array(10))
      a.whenDrained(10, () => told.push("ten"))
      a.whenDrained(0, () => told.push("none"))
      a.whenDrained(30, () => told.push("thirty"))
      assert.deepStrictEqual(told, ["nothing waits", "thirty"])
      yield* arrive
      assert.deepStrictEqual(told, ["nothing waits", "thirty", "ten", "none"])
      a.send(new Uint8Array(10))
      yield* arrive
      assert.lengthOf(told, 4)
    }))

  it.effect("keeps frames, and the end, for an end that doesn't listen yet", () =>
    Effect.gen(function*() {
      const [a, b] = Transport.makePair()
      for (let i = 0; i < 10; i++) a.send(Uint8Array.of(i))
      a.close(4401, "no token")
      yield* arrive
      const atB = watch(b)
      assert.deepStrictEqual(atB.frames, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
      assert.deepStrictEqual(atB.ends, [{ code: 4401, reason: "no token" }])
    }))

  it.effect("delivers frames that were sent before the end, then the end, to both once, and nothing after", () =>
    Effect.gen(function*() {
      const [a, b] = Transport.makePair()
      const [atA, atB] = [watch(a), watch(b)]
      a.send(Uint8Array.of(1))
      a.close(1000, "done")
      b.close(1001, "too late")
      a.send(Uint8Array.of(2))
      b.send(Uint8Array.of(3))
      yield* arrive
      assert.deepStrictEqual([atA.frames, atB.frames], [[], [1]])
      assert.deepStrictEqual(atA.ends, [{ code: 1000, reason: "done" }])
      assert.deepStrictEqual(atB.ends, [{ code: 1000, reason: "done" }])
    }))

  it.effect("holds frames back while an end is paused", () =>
    Effect.gen(function*() {
      const [a, b] = Transport.makePair()
      const atB = watch(b)
      b.pause(true)
      for (let i = 0; i < 100; i++) a.send(Uint8Array.of(i))
      yield* arrive
      assert.deepStrictEqual(atB.frames, [])
      b.pause(false)
      assert.deepStrictEqual(atB.frames, Array.from({ length: 100 }, (_, i) => i))
    }))

  it.effect("stops delivering when the receiver pauses in the middle", () =>
    Effect.gen(function*() {
      const [a, b] = Transport.makePair()
      const seen: Array<number> = []
      for (let i = 0; i < 4; i++) a.send(Uint8Array.of(i))
      yield* arrive
      b.listen((frame) => {
        seen.push(frame[0]!)
        if (seen.length === 2) b.pause(true)
      }, () => {})
      assert.deepStrictEqual(seen, [0, 1])
      b.pause(false)
      assert.deepStrictEqual(seen, [0, 1, 2, 3])
    }))
})

describe("makeInbox", () => {
  it("refuses more early frames than it keeps", () => {
    const inbox = Transport.makeInbox()
    const taken = Array.from({ length: 100 }, () => inbox.deliver(Uint8Array.of(1))).filter((each) => each)
    assert.strictEqual(taken.length, 64)
  })
})

describe("the loopback transport", () => {
  it.effect("gives the other end to who accepts, and closes with its scope", () =>
    Effect.gen(function*() {
      const accepted: Array<Transport.Connection> = []
      const scope = yield* Scope.make()
      const transport = Transport.makeLoopback((connection) => accepted.push(connection))
      const mine = yield* Scope.extend(transport.connect(home), scope)
      const there = watch(accepted[0]!)
      mine.send(Uint8Array.of(7))
      yield* arrive
      assert.deepStrictEqual(there.frames, [7])
      yield* Scope.close(scope, Exit.void)
      yield* arrive
      assert.strictEqual(there.ends[0]?.code, 1000)
    }))
})

/** A WebSocket server of this process, and what it saw of its sockets. */
const server = Effect.acquireRelease(
  Effect.async<{ readonly url: string; readonly ws: WebSocketServer }>((resume) => {
    const ws = new WebSocketServer({ port: 0, host: "127.0.0.1", path: "/ws" }, () => {
      resume(Effect.succeed({ url: `ws://127.0.0.1:${(ws.address() as net.AddressInfo).port}`, ws }))
    })
  }),
  ({ ws }) =>
    Effect.async<void>((resume) => {
      for (const client of ws.clients) client.terminate()
      ws.close(() => resume(Effect.void))
    })
)

/** A TCP server that accepts connections and never says a word. */
const mute = Effect.acquireRelease(
  Effect.async<{ readonly url: string; readonly sockets: Set<net.Socket>; readonly tcp: net.Server }>((resume) => {
    const sockets = new Set<net.Socket>()
    const tcp = net.createServer((socket) => {
      sockets.add(socket)
      socket.on("close", () => sockets.delete(socket))
      socket.on("error", () => {})
      socket.resume()
    })
    tcp.listen(0, "127.0.0.1", () => {
      resume(Effect.succeed({ url: `ws://127.0.0.1:${(tcp.address() as net.AddressInfo).port}`, sockets, tcp }))
    })
  }),
  ({ sockets, tcp }) =>
    Effect.async<void>((resume) => {
      for (const socket of sockets) socket.destroy()
      tcp.close(() => resume(Effect.void))
    })
)

describe("the WebSocket transport", () => {
  it.scopedLive("carries frames both ways at the path /ws, and early ones too", () =>
    Effect.gen(function*() {
      const { url, ws } = yield* server
      ws.on("connection", (socket) => {
        socket.send(Uint8Array.of(1))
        socket.send(Uint8Array.of(2))
        socket.on("message", (data: Buffer) => socket.send(data))
      })
      const connection = yield* Transport.makeWebSocket({ url }).connect(home)
      const mine = watch(connection)
      connection.send(Uint8Array.of(3))
      yield* mine.until(() => mine.frames.length === 3)
      assert.deepStrictEqual(mine.frames, [1, 2, 3])
    }))

  it.scopedLive("goes to an address that it's given instead of home", () =>
    Effect.gen(function*() {
      const { url, ws } = yield* server
      const connection = yield* Transport.makeWebSocket({ url: "ws://127.0.0.1:1" }).connect(url)
      assert.strictEqual(ws.clients.size, 1)
      connection.close(1000, "done")
    }))

  it.scopedLive("tells of the server's close, once, with its code and reason", () =>
    Effect.gen(function*() {
      const { url, ws } = yield* server
      ws.on("connection", (socket) => socket.close(4401, "no token"))
      const mine = watch(yield* Transport.makeWebSocket({ url }).connect(home))
      yield* mine.until(() => mine.ends.length > 0)
      assert.deepStrictEqual(mine.ends, [{ code: 4401, reason: "no token" }])
    }))

  it.scopedLive("tells of a connection that broke", () =>
    Effect.gen(function*() {
      const { url, ws } = yield* server
      ws.on("connection", (socket) => socket.terminate())
      const mine = watch(yield* Transport.makeWebSocket({ url }).connect(home))
      yield* mine.until(() => mine.ends.length > 0)
      assert.strictEqual(mine.ends[0]?.code, 1006)
    }))

  it.scopedLive("closes with code 4000 what isn't binary", () =>
    Effect.gen(function*() {
      const { url, ws } = yield* server
      const code = yield* Deferred.make<number>()
      ws.on("connection", (socket) => {
        socket.send("text")
        socket.on("close", (closed) => Deferred.unsafeDone(code, Effect.succeed(closed)))
      })
      watch(yield* Transport.makeWebSocket({ url }).connect(home))
      assert.strictEqual(yield* Deferred.await(code), 4000)
    }))

  it.scopedLive("closes the socket with its scope", () =>
    Effect.gen(function*() {
      const { url, ws } = yield* server
      const code = yield* Deferred.make<number>()
      ws.on("connection", (socket) => socket.on("close", (closed) => Deferred.unsafeDone(code, Effect.succeed(closed))))
      yield* Effect.scoped(Transport.makeWebSocket({ url }).connect(home))
      assert.strictEqual(yield* Deferred.await(code), 1000)
    }))

  it.scopedLive("fails with ConnectionLost where nobody listens, or where no WebSocket is", () =>
    Effect.gen(function*() {
      for (const url of ["ws://127.0.0.1:1", "not a url", "http//x"]) {
        const failure = yield* Effect.flip(Effect.scoped(Transport.makeWebSocket({ url }).connect(home)))
        assert.strictEqual(failure._tag, "ConnectionLost", url)
      }
    }))

  it.scoped("gives up after 10 seconds when the server doesn't answer, and frees the socket", () =>
    Effect.gen(function*() {
      const { sockets, tcp, url } = yield* mute
      const reached = yield* Effect.fork(Effect.async<void>((resume) => {
        tcp.once("connection", () => resume(Effect.void))
      }))
      const fiber = yield* Effect.fork(Effect.flip(Effect.scoped(Transport.makeWebSocket({ url }).connect(home))))
      yield* Fiber.join(reached)
      const freed = yield* Effect.fork(Effect.async<void>((resume) => {
        for (const socket of sockets) socket.once("close", () => resume(Effect.void))
      }))
      yield* TestClock.adjust("10 seconds")
      assert.match((yield* Fiber.join(fiber)).message, /did not answer the opening within 10000 ms/)
      yield* Fiber.join(freed)
    }))

  it.scopedLive("stops connecting at once when it's interrupted", () =>
    Effect.gen(function*() {
      const { tcp, url } = yield* mute
      const reached = yield* Effect.fork(Effect.async<void>((resume) => {
        tcp.once("connection", () => resume(Effect.void))
      }))
      const fiber = yield* Effect.fork(Effect.scoped(Transport.makeWebSocket({ url }).connect(home)))
      yield* Fiber.join(reached)
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
    }))
})
