/**
 * The server's end of the tunnel for @effect/rpc: `Call` and `Reply` of every session, as one `RpcServer.Protocol`.
 *
 * The payloads are JSON, so that foreign bytes don't reach a second MessagePack decoder.
 */
import * as RpcSerialization from "@effect/rpc/RpcSerialization"
import * as RpcServer from "@effect/rpc/RpcServer"
import type { FromClientEncoded, FromServerEncoded } from "@effect/rpc/RpcMessage"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Mailbox from "effect/Mailbox"
import { MalformedMessage, Overloaded, PermissionDenied } from "@topgun/core/GridError"
import * as Protocol from "@topgun/core/Protocol"
import type { Principal } from "./Authentication.ts"
import { ServerConfig } from "./ServerConfig.ts"

/** One session's calls. */
export interface Caller {
  /** Takes a call's payload. @throws MalformedMessage */
  readonly receive: (payload: Uint8Array) => void
  /** Ends the session's calls; those under way are interrupted. */
  readonly close: () => void
}

/** The tunnel's entrance for sessions. */
export class Calls extends Context.Tag("@topgun/server/Calls")<Calls, {
  /** Opens the tunnel for a session; `reply` takes the payloads that go back, `principal` says whose session it is now. */
  readonly open: (reply: (payload: Uint8Array) => void, principal: () => Principal | undefined) => Caller
  /** Whose session a call came from, by the id that its handler is given; fails with what he may not do where it has ended. */
  readonly principalOf: (clientId: number) => Effect.Effect<Principal | undefined, PermissionDenied>
}>() {}

interface Open {
  readonly principal: () => Principal | undefined
  readonly reply: (payload: Uint8Array) => void
  /** The ids of calls under way. */
  readonly active: Set<string>
}

const isId = (value: unknown): value is string => typeof value === "string" && /^\d{1,20}$/.test(value)

/** The fields that `RpcServer` relies on, so that no message of a client makes it fail. */
const isFromClient = (message: unknown): message is FromClientEncoded => {
  if (typeof message !== "object" || message === null || !("_tag" in message)) return false
  switch (message._tag) {
    case "Request":
      return "id" in message && isId(message.id) && "tag" in message && typeof message.tag === "string" &&
        "headers" in message && Array.isArray(message.headers) &&
        message.headers.every((header) =>
          Array.isArray(header) && header.length === 2 && header.every((part) => typeof part === "string")
        )
    case "Ack":
    case "Interrupt":
      return "requestId" in message && isId(message.requestId)
    case "Ping":
    case "Eof":
      return true
    default:
      return false
  }
}

const died = (requestId: string, error: { readonly name: string; readonly message: string }): FromServerEncoded => ({
  _tag: "Exit",
  requestId,
  exit: { _tag: "Failure", cause: { _tag: "Die", defect: { name: error.name, message: error.message } } }
})

/** Bytes of a reply, at most: it has to fit a frame. */
const replyBytesMax = Protocol.frameBytesMax - 1024

const make = Effect.gen(function*() {
  const { callsMax, connectionsMax } = yield* ServerConfig
  const parser = RpcSerialization.json.unsafeMake()
  const encoder = new TextEncoder()
  const run = yield* FiberSet.makeRuntime<never, void>()
  const sessions = new Map<number, Open>()
  const disconnects = yield* Mailbox.make<number>(connectionsMax)
  let lastId = 0

  const send = ({ active, reply }: Open, response: FromServerEncoded): void => {
    if (response._tag === "Exit") active.delete(response.requestId)
    const payload = encoder.encode(JSON.stringify(response))
    if (payload.length <= replyBytesMax) return reply(payload)
    if (response._tag === "Exit" || response._tag === "Chunk") {
      active.delete(response.requestId)
      reply(encoder.encode(JSON.stringify(died(response.requestId, {
        name: "RecordTooLarge",
        message: `The reply has ${payload.length} bytes, ${replyBytesMax} are allowed`
      }))))
    }
  }

  const decode = (payload: Uint8Array): unknown => {
    try {
      return parser.decode(payload)[0]
    } catch (cause) {
      throw new MalformedMessage({ reason: `a call's payload is no JSON: ${String(cause).slice(0, 100)}` })
    }
  }

  let write: ((id: number, message: FromClientEncoded) => Effect.Effect<void>) | undefined
  const protocol = yield* RpcServer.Protocol.make((toServer) => {
    write = toServer
    return Effect.succeed({
      disconnects,
      send: (id: number, response: FromServerEncoded) =>
        Effect.sync(() => {
          const session = sessions.get(id)
          if (session !== undefined) send(session, response)
        }),
      end: () => Effect.void,
      clientIds: Effect.sync(() => new Set(sessions.keys())),
      initialMessage: Effect.succeedNone,
      supportsAck: true,
      supportsTransferables: false,
      supportsSpanPropagation: false
    })
  })

  const calls = Calls.of({
    principalOf: (clientId) =>
      Effect.suspend(() => {
        const session = sessions.get(clientId)
        return session === undefined
          ? new PermissionDenied({ what: "be answered after the connection has ended" })
          : Effect.succeed(session.principal())
      }),
    open: (reply, principal) => {
      const id = ++lastId
      const session: Open = { principal, reply, active: new Set() }
      sessions.set(id, session)
      return {
        receive: (payload) => {
          const message = decode(payload)
          if (!isFromClient(message)) {
            throw new MalformedMessage({ reason: "a call's payload is no message of @effect/rpc" })
          }
          if (message._tag === "Request") {
            const requestId = String(message.id)
            if (session.active.has(requestId)) throw new MalformedMessage({ reason: `call ${requestId} is still open` })
            if (session.active.size >= callsMax) {
              const { message: text, name } = new Overloaded({ what: `${callsMax} calls of this connection are open` })
              return reply(encoder.encode(JSON.stringify(died(requestId, { name, message: text }))))
            }
            session.active.add(requestId)
          }
          if (write !== undefined) run(write(id, message))
        },
        close: () => {
          sessions.delete(id)
          disconnects.unsafeOffer(id)
        }
      }
    }
  })
  return Context.make(Calls, calls).pipe(Context.add(RpcServer.Protocol, protocol))
})

/** The tunnel: sessions put calls in at one end, `RpcServer` answers at the other. */
export const layer: Layer.Layer<Calls | RpcServer.Protocol, never, ServerConfig> = Layer.scopedContext(make)
