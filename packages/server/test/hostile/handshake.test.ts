/** What may come in the place of a WebSocket's handshake, byte by byte. */
import { describe, expect, it } from "@effect/vitest"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import { bystanders, closeCodeOf, dial, handshake, isHeadComplete, statusOf } from "./raw.ts"

interface Row {
  readonly name: string
  readonly sent: string
  /** The status that it is answered with. */
  readonly status: number
}

const many = (count: number, header: (n: number) => string) => Array.from({ length: count }, (_, n) => header(n))

const rows: ReadonlyArray<Row> = [
  { name: "as it should be", sent: handshake(), status: 101 },
  { name: "without a key", sent: handshake({ "Sec-WebSocket-Key": undefined }), status: 400 },
  { name: "with a short key", sent: handshake({ "Sec-WebSocket-Key": "dGhl" }), status: 400 },
  {
    name: "with two keys",
    sent: handshake({}, "GET /ws HTTP/1.1", ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]),
    status: 400
  },
  ...["0", "12", "14", "-13", "13, 13", ""].map((version) => ({
    name: `of version "${version}"`,
    sent: handshake({ "Sec-WebSocket-Version": version }),
    status: 400
  })),
  ...["constructor", "__proto__", "permessage-deflate", "permessage-deflate; server_max_window_bits=8", ";,", ",,,"]
    .map(
      (extension) => ({
        name: `with the extension "${extension}", of which there are none`,
        sent: handshake({ "Sec-WebSocket-Extensions": extension }),
        status: 101
      })
    ),
  { name: "with a protocol that is no token", sent: handshake({ "Sec-WebSocket-Protocol": "a b" }), status: 400 },
  { name: "for h2c", sent: handshake({ Upgrade: "h2c" }), status: 400 },
  { name: "for something with websocket in it", sent: handshake({ Upgrade: "websocket, h2c" }), status: 400 },
  { name: "by POST", sent: handshake({}, "POST /ws HTTP/1.1"), status: 405 },
  { name: "by HTTP/1.0", sent: handshake({}, "GET /ws HTTP/1.0"), status: 400 },
  { name: "by HTTP/2.0", sent: handshake({}, "GET /ws HTTP/2.0"), status: 400 },
  { name: "to another path", sent: handshake({}, "GET /wsx HTTP/1.1"), status: 404 },
  { name: "to another server", sent: handshake({}, "GET http://evil.example/ws HTTP/1.1"), status: 404 },
  { name: "to a path above the root", sent: handshake({}, "GET /x/../ws HTTP/1.1"), status: 404 },
  { name: "from a foreign page", sent: handshake({ Origin: "https://evil.example" }), status: 403 },
  { name: "from a page without an origin", sent: handshake({ Origin: "null" }), status: 403 },
  { name: "from what is no origin", sent: handshake({ Origin: "http://" }), status: 403 },
  {
    name: "from a page that a name has been made to resolve here for",
    sent: handshake({ Origin: "http://evil.example", Host: "evil.example" }),
    status: 403
  },
  { name: "without a host", sent: handshake({ Host: undefined }), status: 101 },
  { name: "with 2,000 headers", sent: handshake({}, "GET /ws HTTP/1.1", many(2_000, () => "a: b")), status: 101 },
  {
    name: "with 2,000 headers before its own",
    sent: ["GET /ws HTTP/1.1", ...many(2_000, () => "a: b"), handshake().split("\r\n").slice(1).join("\r\n")]
      .join("\r\n"),
    status: 400
  },
  { name: "with a header of 1 MB", sent: handshake({ "X-Much": "x".repeat(1_000_000) }), status: 431 },
  { name: "with a line of 1 MB", sent: handshake({}, `GET /${"x".repeat(1_000_000)} HTTP/1.1`), status: 431 },
  { name: "with a NUL in a header", sent: handshake({ "X-Nul": "a\0b" }), status: 400 },
  { name: "with a bare line feed in a header", sent: handshake({ "X-Split": "a\nInjected: b\r" }), status: 400 },
  { name: "with a space before a colon", sent: handshake({ "Transfer-Encoding ": "chunked" }), status: 400 },
  {
    name: "with a length and chunks",
    sent: handshake({ "Content-Length": "5", "Transfer-Encoding": "chunked" }),
    status: 400
  },
  {
    name: "with two lengths",
    sent: handshake({ "Content-Length": "5" }, "GET /ws HTTP/1.1", ["Content-Length: 6"]),
    status: 400
  },
  { name: "that is TLS", sent: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", status: 400 },
  { name: "that is HTTP/2", sent: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status: 400 },
  { name: "that is garbage", sent: "\0\x01\x02garbage\r\n\r\n", status: 400 }
]

describe("A handshake", () => {
  for (const { name, sent, status } of rows) {
    it.scoped(`${name} is answered with ${status}`, () =>
      Effect.gen(function*() {
        const { areUnharmed } = yield* bystanders
        yield* Effect.scoped(Effect.gen(function*() {
          const raw = yield* dial
          raw.send(sent)
          const head = yield* raw.until(isHeadComplete)
          expect(statusOf(head)).toBe(status)
          const text = head.toString("latin1").toLowerCase()
          for (
            const header of ["sec-websocket-extensions", "access-control", "x-powered-by", "set-cookie", "location"]
          ) {
            expect(text).not.toContain(header)
          }
          expect(text).not.toContain("evil.example")
          if (status !== 101) yield* raw.ended
        }))
        yield* areUnharmed
      }).pipe(Effect.provide(layer)))
  }

  it.scoped("after which the next request follows at once, has that taken for frames", () =>
    Effect.gen(function*() {
      const { areUnharmed } = yield* bystanders
      yield* Effect.scoped(Effect.gen(function*() {
        const raw = yield* dial
        raw.send(handshake() + "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield* raw.until((heard) => closeCodeOf(heard) !== undefined)
        expect(closeCodeOf(raw.heard())).toBe(1002)
      }))
      yield* areUnharmed
    }).pipe(Effect.provide(layer)))

  it.scoped("may follow another request on its connection", () =>
    Effect.gen(function*() {
      const { areUnharmed } = yield* bystanders
      yield* Effect.scoped(Effect.gen(function*() {
        const raw = yield* dial
        raw.send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", handshake())
        yield* raw.until((heard) => heard.includes("HTTP/1.1 101"))
        expect(statusOf(raw.heard())).toBe(200)
        expect(raw.heard().toString("latin1")).toContain("HTTP/1.1 101")
      }))
      yield* areUnharmed
    }).pipe(Effect.provide(layer)))

  it.scoped("that doesn't come to an end is ended by the server, and so are connections that say nothing", () =>
    Effect.gen(function*() {
      const { areUnharmed, serves } = yield* bystanders
      yield* Effect.scoped(Effect.gen(function*() {
        const slow = yield* dial
        slow.send("GET /ws HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        // As often as the others are served.
        yield* Effect.forkScoped(
          Effect.forever(Effect.zipRight(Effect.uninterruptible(serves), Effect.sync(() => slow.send("x"))))
        )
        const silent = yield* Effect.replicateEffect(dial, 100)
        expect(statusOf(yield* slow.ended)).toBe(408)
        for (const each of silent) expect(statusOf(yield* each.ended)).toBe(408)
      }))
      yield* areUnharmed
    }).pipe(Effect.provide(TopGunServer.layer({ port: 0, storage: "memory", authMillisMax: 200 }))))
})

const layer = TopGunServer.layer({ port: 0, storage: "memory" })
