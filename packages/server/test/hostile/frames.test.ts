/** What may come in the place of a WebSocket's frames, byte by byte. */
import { describe, expect, it } from "@effect/vitest"
import * as Protocol from "@topgun/core/Protocol"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import {
  bystanders,
  type Bytes,
  closeCodeOf,
  closeFrame,
  dialReady,
  dialWebSocket,
  frameOf,
  messageFrame,
  messagesOf,
  opcodes,
  type RawSocket
} from "./raw.ts"

interface Row {
  readonly name: string
  readonly sent: ReadonlyArray<Bytes>
  /** The code of the server's close frame. */
  readonly code: number
}

const { close, continuation, ping, pong, text } = opcodes
const pinged = messageFrame({ _tag: "Ping", id: 7 })
const whole = Protocol.encode({ _tag: "Ping", id: 6 })
const begun = frameOf("a", { fin: false })

const refused: ReadonlyArray<Row> = [
  { name: "a frame that isn't masked", sent: [frameOf("x", { mask: false })], code: 1002 },
  ...[1, 2, 4, 7].map((rsv) => ({ name: `reserved bits ${rsv}`, sent: [frameOf("x", { rsv })], code: 1002 })),
  ...[3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map((opcode) => ({
    name: `opcode ${opcode}`,
    sent: [frameOf("x", { opcode })],
    code: 1002
  })),
  { name: "a ping of 126 bytes", sent: [frameOf("x".repeat(126), { opcode: ping })], code: 1002 },
  { name: "a ping in parts", sent: [frameOf("x", { opcode: ping, fin: false })], code: 1002 },
  { name: "a close in parts", sent: [frameOf("", { opcode: close, fin: false })], code: 1002 },
  { name: "a continuation of nothing", sent: [frameOf("x", { opcode: continuation })], code: 1002 },
  { name: "another message amid one", sent: [begun, frameOf("b")], code: 1002 },
  { name: "a text amid a message", sent: [begun, frameOf("b", { opcode: text })], code: 1002 },
  { name: "a length of 2^63", sent: [frameOf("", { length: 1n << 63n })], code: 1009 },
  { name: "a length of 2^53 + 1", sent: [frameOf("", { length: (1n << 53n) + 1n })], code: 1009 },
  { name: "100 MiB announced, and silence", sent: [frameOf("", { length: 100n * 1024n * 1024n })], code: 1009 },
  {
    name: "a byte more than a frame may have",
    sent: [frameOf(new Uint8Array(Protocol.frameBytesMax + 1))],
    code: 1009
  },
  {
    name: "as many bytes as a frame may have, of nonsense",
    sent: [frameOf(new Uint8Array(Protocol.frameBytesMax))],
    code: 1007
  },
  {
    name: "a message that is too large in parts that aren't",
    sent: [
      frameOf(new Uint8Array(Protocol.frameBytesMax), { fin: false }),
      frameOf("x", { opcode: continuation })
    ],
    code: 1009
  },
  {
    name: "a message in 1,025 parts",
    sent: [begun, ...Array.from({ length: 1_024 }, () => frameOf("", { fin: false, opcode: continuation }))],
    code: 1008
  },
  {
    name: "100,000 empty parts",
    sent: [
      begun,
      Buffer.concat(Array.from({ length: 100_000 }, () => frameOf("", { fin: false, opcode: continuation })))
    ],
    code: 1008
  },
  { name: "a text", sent: [frameOf("hello", { opcode: text })], code: 1007 },
  { name: "a text that isn't UTF-8", sent: [frameOf("\xc3\x28", { opcode: text })], code: 1007 },
  { name: "a message of no bytes", sent: [frameOf("")], code: 1007 },
  { name: "garbage", sent: [frameOf("\xc1\xc1")], code: 1007 },
  { name: "a close of one byte", sent: [frameOf("x", { opcode: close })], code: 1002 },
  ...[0, 999, 1004, 1005, 1006, 1015, 5000, 65_535].map((code) => ({
    name: `a close with the code ${code}`,
    sent: [closeFrame(code)],
    code: 1002
  })),
  { name: "a close whose reason isn't UTF-8", sent: [closeFrame(1000, "\xc3\x28")], code: 1007 },
  { name: "a close whose reason is too long", sent: [closeFrame(1000, "x".repeat(124))], code: 1002 }
]

const answered: ReadonlyArray<Row> = [
  { name: "a close with nothing", sent: [closeFrame(undefined)], code: 1005 },
  { name: "a close with 1000", sent: [closeFrame(1000, "done")], code: 1000 },
  { name: "a close with a code of its own", sent: [closeFrame(4999)], code: 4999 },
  { name: "a close, and more after it", sent: [closeFrame(1000), pinged, frameOf("\xc1")], code: 1000 }
]

const harmless: ReadonlyArray<{ readonly name: string; readonly sent: ReadonlyArray<Bytes> }> = [
  { name: "pongs that nobody asked for", sent: Array.from({ length: 100 }, () => frameOf("x", { opcode: pong })) },
  {
    name: "1,000 pings at once",
    sent: [Buffer.concat(Array.from({ length: 1_000 }, () => frameOf("x", { opcode: ping })))]
  },
  {
    name: "a message in parts, and a ping between them",
    sent: [
      frameOf(whole.subarray(0, 3), { fin: false }),
      frameOf("x", { opcode: ping }),
      frameOf(whole.subarray(3), { opcode: continuation })
    ]
  },
  {
    name: "10,000 messages in a segment",
    sent: [Buffer.concat(Array.from({ length: 10_000 }, () => messageFrame({ _tag: "Ping", id: 1 })))]
  },
  { name: "a length in the longest form", sent: [frameOf(whole, { length: BigInt(whole.length) })] }
]

const isClosed = (heard: Buffer): boolean => closeCodeOf(heard) !== undefined

describe("A connection that is let in", () => {
  for (const { code, name, sent } of [...refused, ...answered]) {
    it.scoped(`and sends ${name}, is closed with ${code}, and no other is`, () =>
      Effect.gen(function*() {
        const { areUnharmed } = yield* bystanders
        const raw = yield* dialReady
        raw.send(...sent)
        expect(closeCodeOf(yield* raw.until(isClosed))).toBe(code)
        raw.socket.destroy()
        yield* areUnharmed
      }).pipe(Effect.provide(layer)))
  }

  it.scoped("and doesn't answer when it is closed, is ended all the same", () =>
    Effect.gen(function*() {
      const { areUnharmed } = yield* bystanders
      const raw = yield* dialReady
      raw.send(frameOf("garbage"))
      yield* raw.ended
      expect(closeCodeOf(raw.heard())).toBe(1007)
      yield* areUnharmed
    }).pipe(Effect.provide(layer)))

  for (const { name, sent } of harmless) {
    it.scoped(`and sends ${name}, goes on`, () =>
      Effect.gen(function*() {
        const { areUnharmed } = yield* bystanders
        yield* Effect.scoped(Effect.gen(function*() {
          const raw = yield* dialReady
          raw.send(...sent, pinged)
          yield* raw.until((heard) => messagesOf(heard).some((message) => message._tag === "Pong" && message.id === 7))
          expect(closeCodeOf(raw.heard())).toBeUndefined()
        }))
        yield* areUnharmed
      }).pipe(Effect.provide(layer)))
  }

  it.scoped("is served though its bytes come one by one", () =>
    Effect.gen(function*() {
      const { areUnharmed } = yield* bystanders
      yield* Effect.scoped(Effect.gen(function*() {
        const raw = yield* dialReady
        raw.socket.setNoDelay(true)
        for (const byte of pinged) {
          raw.send(Uint8Array.of(byte))
          yield* Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
        }
        yield* raw.until((heard) => messagesOf(heard).some(({ _tag }) => _tag === "Pong"))
      }))
      yield* areUnharmed
    }).pipe(Effect.provide(layer)))

  for (
    const [name, leave] of [
      ["is reset amid a frame", (raw: RawSocket) => raw.socket.resetAndDestroy()],
      ["ends amid a frame", (raw: RawSocket) => raw.socket.end()],
      ["is half closed after a message", (raw: RawSocket) => raw.socket.end()]
    ] as const
  ) {
    it.scoped(`and ${name}, is forgotten`, () =>
      Effect.gen(function*() {
        const { areUnharmed } = yield* bystanders
        const raw = yield* dialReady
        raw.send(name.includes("amid") ? pinged.subarray(0, 5) : pinged)
        yield* Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
        leave(raw)
        yield* raw.ended
        yield* areUnharmed
      }).pipe(Effect.provide(layer)))
  }

  it.scoped("and floods the server with pings whose answers it doesn't read, is ended before they pile up", () =>
    Effect.gen(function*() {
      const { areUnharmed } = yield* bystanders
      const { status } = yield* TopGunServer.TopGunServer
      const raw = yield* dialReady
      raw.socket.pause()
      const flood = Buffer.concat(Array.from({ length: 1_000 }, () => frameOf("x".repeat(125), { opcode: ping })))
      // Much more than two kernels take in.
      for (let n = 0; n < 1_000 && (yield* status).connections > 2; n++) {
        yield* Effect.async<void>((resume) => void raw.socket.write(flood, () => resume(Effect.void)))
      }
      yield* areUnharmed
    }).pipe(Effect.provide(layer)))
})

describe("A connection that isn't let in", () => {
  for (const { code, name, sent } of refused.filter((row) => row.code !== 1007)) {
    it.scoped(`and sends ${name}, is closed`, () =>
      Effect.gen(function*() {
        const { areUnharmed } = yield* bystanders
        const raw = yield* dialWebSocket
        raw.send(...sent)
        yield* raw.until(isClosed)
        // What is too much for a stranger is said first, whatever else is wrong with it.
        expect([code, 1009]).toContain(closeCodeOf(raw.heard()))
        raw.socket.destroy()
        yield* areUnharmed
      }).pipe(Effect.provide(layer)))
  }

  it.scoped("is read no further than an Auth is long: a frame for which there is room only later isn't waited for", () =>
    Effect.gen(function*() {
      const { areUnharmed } = yield* bystanders
      const raw = yield* dialWebSocket
      raw.send(frameOf(new Uint8Array(64 * 1024), { length: BigInt(Protocol.frameBytesMax) }))
      yield* raw.until(isClosed)
      expect(closeCodeOf(raw.heard())).toBe(1009)
      raw.socket.destroy()
      yield* areUnharmed
    }).pipe(Effect.provide(layer)))

  it.scoped("can't talk a server out of that by many small frames", () =>
    Effect.gen(function*() {
      const { areUnharmed } = yield* bystanders
      const raw = yield* dialWebSocket
      raw.send(Buffer.concat(Array.from({ length: 5_000 }, () => frameOf("", { opcode: pong }))))
      yield* raw.until(isClosed)
      expect(closeCodeOf(raw.heard())).toBe(1009)
      raw.socket.destroy()
      yield* areUnharmed
    }).pipe(Effect.provide(layer)))
})

const layer = TopGunServer.layer({ port: 0, storage: "memory" })
