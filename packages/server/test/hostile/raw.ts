/** Bytes as they go over a socket, and one who does nothing and must not notice. */
import * as Protocol from "@topgun/core/Protocol"
import { TopGunServer } from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { once } from "node:events"
import { connect, type Socket } from "node:net"
import { expect } from "vitest"
import { authAnew, batch, openMap, overSocketReady, put, settled } from "../PlainClient.ts"

export type Bytes = string | Uint8Array

const bytesOf = (bytes: Bytes): Uint8Array => typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes

/** What a server says on a socket. */
export interface RawSocket {
  readonly socket: Socket
  readonly send: (...bytes: ReadonlyArray<Bytes>) => void
  /** Everything that has come so far. */
  readonly heard: () => Buffer
  /** Waits until what has come is as it should be, or the connection has ended. */
  readonly until: (isThere: (heard: Buffer) => boolean) => Effect.Effect<Buffer>
  /** Waits until the server has ended the connection. */
  readonly ended: Effect.Effect<Buffer>
}

/** A TCP connection to the server's port. */
export const dial: Effect.Effect<RawSocket, never, TopGunServer | Scope.Scope> = Effect.gen(
  function*() {
    const { address } = yield* TopGunServer
    const socket = yield* Effect.acquireRelease(
      Effect.sync(() => connect({ host: address!.host, port: address!.port, allowHalfOpen: true })),
      (open) => Effect.sync(() => open.destroy())
    )
    let heard = Buffer.alloc(0)
    let isOver = false
    let look = () => {}
    // Resets are answers, too.
    socket.on("error", () => {})
    socket.on("data", (chunk: Buffer) => {
      heard = Buffer.concat([heard, chunk])
      look()
    })
    const end = () => {
      isOver = true
      look()
    }
    socket.on("end", end)
    socket.on("close", end)
    yield* Effect.promise(() => once(socket, "connect"))
    const wait = (isThere: () => boolean) =>
      Effect.async<Buffer>((resume) => {
        look = () => {
          if (isThere()) resume(Effect.succeed(heard))
        }
        look()
      })
    return {
      socket,
      send: (...bytes) => {
        for (const each of bytes) socket.write(bytesOf(each))
      },
      heard: () => heard,
      until: (isThere) => wait(() => isOver || isThere(heard)),
      ended: wait(() => isOver)
    }
  }
)

// --- HTTP ---

/** The status of an answer, 0 where there is none. */
export const statusOf = (heard: Buffer): number =>
  Number(/^HTTP\/1\.1 (\d{3})/.exec(heard.toString("latin1"))?.[1] ?? 0)

export const isHeadComplete = (heard: Buffer): boolean => heard.includes("\r\n\r\n")

const handshakeHeaders = {
  Host: "localhost",
  Upgrade: "websocket",
  Connection: "Upgrade",
  "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
  "Sec-WebSocket-Version": "13"
}

/** The request of a WebSocket, with other headers than it should have: `undefined` for none. */
export const handshake = (
  headers: Record<string, string | undefined> = {},
  line = "GET /ws HTTP/1.1",
  more: ReadonlyArray<string> = []
): string =>
  [
    line,
    ...Object.entries({ ...handshakeHeaders, ...headers })
      .flatMap(([name, value]) => value === undefined ? [] : [`${name}: ${value}`]),
    ...more,
    "",
    ""
  ].join("\r\n")

// --- Frames ---

export interface FrameForm {
  readonly fin?: boolean
  /** The three reserved bits, as 4, 2 and 1. */
  readonly rsv?: number
  readonly opcode?: number
  readonly mask?: boolean
  /** What the frame says its length is, in the 64-bit form. */
  readonly length?: bigint
}

export const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const

/** A frame of a client, as in RFC 6455, section 5.2, or not quite. */
export const frameOf = (
  payload: Bytes,
  { fin = true, length, mask = true, opcode = opcodes.binary, rsv = 0 }: FrameForm = {}
): Buffer => {
  const bytes = bytesOf(payload)
  const head = [(fin ? 0x80 : 0) | (rsv << 4) | opcode]
  const masked = mask ? 0x80 : 0
  if (length !== undefined || bytes.length > 0xffff) {
    const size = Buffer.alloc(8)
    size.writeBigUInt64BE(length ?? BigInt(bytes.length))
    head.push(masked | 127, ...size)
  } else if (bytes.length > 125) head.push(masked | 126, bytes.length >> 8, bytes.length & 255)
  else head.push(masked | bytes.length)
  const key = mask ? [1, 2, 3, 4] : []
  const body = mask ? bytes.map((byte, i) => byte ^ key[i & 3]!) : bytes
  return Buffer.concat([Uint8Array.from([...head, ...key]), body])
}

/** The frame of a message. */
export const messageFrame = (message: Protocol.ClientMessage): Buffer => frameOf(Protocol.encode(message))

export const closeFrame = (code: number | undefined, reason: Bytes = ""): Buffer =>
  frameOf(
    Buffer.concat([code === undefined ? Buffer.alloc(0) : Uint8Array.of(code >> 8, code & 255), bytesOf(reason)]),
    { opcode: opcodes.close }
  )

/** The frames that a server has sent after its answer to the handshake. */
export const framesOf = (heard: Buffer): ReadonlyArray<{ readonly opcode: number; readonly payload: Buffer }> => {
  const frames = []
  let at = heard.indexOf("\r\n\r\n") + 4
  while (at + 2 <= heard.length) {
    const opcode = heard[at]! & 15
    const short = heard[at + 1]! & 127
    const head = short === 126 ? 4 : short === 127 ? 10 : 2
    if (at + head > heard.length) break
    const length = short === 126
      ? heard.readUInt16BE(at + 2)
      : short === 127
      ? Number(heard.readBigUInt64BE(at + 2))
      : short
    if (at + head + length > heard.length) break
    frames.push({ opcode, payload: heard.subarray(at + head, at + head + length) })
    at += head + length
  }
  return frames
}

/** The code of the server's close frame, 1006 where it ended without one, `undefined` while it hasn't. */
export const closeCodeOf = (heard: Buffer): number | undefined => {
  const frame = framesOf(heard).find(({ opcode }) => opcode === opcodes.close)
  return frame === undefined ? undefined : frame.payload.length < 2 ? 1005 : frame.payload.readUInt16BE(0)
}

/** The messages that the server has sent. */
export const messagesOf = (heard: Buffer): ReadonlyArray<Protocol.ServerMessage> =>
  framesOf(heard)
    .filter(({ opcode }) => opcode === opcodes.binary)
    .flatMap(({ payload }) => Protocol.decodeFromServer(new Uint8Array(payload)))

/** A WebSocket that is open, by hand. */
export const dialWebSocket = Effect.gen(function*() {
  const raw = yield* dial
  raw.send(handshake())
  expect(statusOf(yield* raw.until(isHeadComplete))).toBe(101)
  return raw
})

/** {@link dialWebSocket}, let in. */
export const dialReady = Effect.gen(function*() {
  const raw = yield* dialWebSocket
  raw.send(messageFrame(authAnew()))
  yield* raw.until((heard) => messagesOf(heard).length > 0)
  expect(messagesOf(raw.heard())[0]!._tag).toBe("AuthAck")
  return raw
})

// --- The others ---

const prototypes = [Object, Array, Function, String, Promise].map((made) => made.prototype as object)
const shapeOf = () => prototypes.map((prototype) => Reflect.ownKeys(prototype))

/**
 * Somebody who follows a map, and somebody who writes to it. The answered effect ends when the first has got an answer and an event of
 * the other's, and the server has nobody else: whatever came in the meantime has left nothing behind.
 */
export const bystanders = Effect.gen(function*() {
  const { status } = yield* TopGunServer
  const before = shapeOf()
  const reader = yield* overSocketReady
  const writer = yield* overSocketReady
  yield* reader.send(openMap("bystanders"))
  yield* reader.take("SyncRoot")
  let sequence = 0
  const serves = Effect.gen(function*() {
    yield* reader.send({ _tag: "Ping", id: 1_000 + sequence })
    expect((yield* reader.take("Pong")).id).toBe(1_000 + sequence)
    yield* writer.send(batch("bystanders", "APPLIED", sequence, [["k", put(sequence, 1_000 + sequence)]]))
    expect((yield* writer.take("OpAck")).sequences).toEqual([sequence])
    expect((yield* reader.take("ServerEvent")).records).toHaveLength(1)
    sequence++
  })
  return {
    /** They are served. */
    serves,
    /** They are served, and alone. */
    areUnharmed: Effect.gen(function*() {
      yield* serves
      while ((yield* status).connections > 2) yield* settled
      expect((yield* status).maps.map(({ name }) => name)).toEqual(["bystanders"])
      expect(shapeOf()).toEqual(before)
    })
  }
})
