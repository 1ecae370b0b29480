/**
 * How frames get from one node to another: ordered, whole, or not at all. What the frames say is `Protocol`'s matter.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { ConnectionLost } from "./GridError.ts"
import type { Address } from "./PartitionRouter.ts"
import { home } from "./PartitionRouter.ts"
import { openWebSocket } from "#websocket"

/** Why a connection ended, in the terms of WebSocket (RFC 6455, section 7.4). */
export interface Closed {
  readonly code: number
  readonly reason: string
}

/** One end of an open connection. Plain calls: they run once per frame. */
export interface Connection {
  /** Hands a frame over for sending. Never waits; look at {@link bufferedBytes} to keep within bounds. */
  readonly send: (frame: Uint8Array) => void
  /** Bytes handed over that have not left this process. */
  readonly bufferedBytes: () => number
  /**
   * Delivers each frame to `onFrame`, and the end, once, to `onClose`. Called once; frames that came before are delivered
   * then. The bytes of a frame belong to the receiver.
   */
  readonly listen: (onFrame: (frame: Uint8Array) => void, onClose: (closed: Closed) => void) => void
  /** Stops or resumes the delivery of frames, so that the peer's sending comes to a halt where the medium can. */
  readonly pause: (paused: boolean) => void
  /** Ends the connection; frames handed over before still go out where the medium can. */
  readonly close: (code: number, reason: string) => void
}

/** A server's end of a connection. A browser's socket doesn't tell when bytes have left. */
export interface ServerConnection extends Connection {
  /** Where it comes from, for the log; absent where that is nowhere on a network. */
  readonly address?: string | undefined
  /** Calls `drained` once: as soon as at most `bytesMax` bytes are buffered, now where they are, never when it ends before. */
  readonly whenDrained: (bytesMax: number, drained: () => void) => void
}

/** Opens connections. One that is open is closed with the scope it was opened in. */
export class Transport extends Context.Tag("@topgun/core/Transport")<Transport, {
  readonly connect: (address: Address) => Effect.Effect<Connection, ConnectionLost, Scope.Scope>
}>() {}

/** Frames kept for a receiver that isn't listening yet. */
const earlyFramesMax = 64

/** The receiving half of a connection, for whoever makes one: keeps early and paused frames, delivers the end once. */
export const makeInbox = () => {
  let handlers:
    | { readonly onFrame: (frame: Uint8Array) => void; readonly onClose: (closed: Closed) => void }
    | undefined
  const early: Array<Uint8Array> = []
  let ended: Closed | undefined
  let paused = false
  const drain = () => {
    while (handlers !== undefined && !paused && early.length > 0) handlers.onFrame(early.shift()!)
    if (handlers !== undefined && !paused && ended !== undefined) {
      const { onClose } = handlers
      handlers = undefined
      onClose(ended)
    }
  }
  return {
    /** Whether the frame was taken; false when too many wait. */
    deliver: (frame: Uint8Array): boolean => {
      if (ended !== undefined) return true
      if (handlers !== undefined && !paused && early.length === 0) {
        handlers.onFrame(frame)
        return true
      }
      early.push(frame)
      return paused || early.length <= earlyFramesMax
    },
    end: (closed: Closed): void => {
      if (ended !== undefined) return
      ended = closed
      paused = false
      drain()
    },
    listen: (onFrame: (frame: Uint8Array) => void, onClose: (closed: Closed) => void): void => {
      handlers = { onFrame, onClose }
      drain()
    },
    pause: (value: boolean): void => {
      paused = value
      if (!paused) drain()
    }
  }
}

/** The waiting half of a connection's sending, for whoever makes one: `left` is to be called when bytes have left. */
export const makeDrain = (bufferedBytes: () => number) => {
  let waiting: Array<{ readonly bytesMax: number; readonly drained: () => void }> = []
  return {
    left: (): void => {
      if (waiting.length === 0) return
      const buffered = bufferedBytes()
      const due = waiting.filter(({ bytesMax }) => buffered <= bytesMax)
      waiting = waiting.filter(({ bytesMax }) => buffered > bytesMax)
      for (const { drained } of due) drained()
    },
    whenDrained: (bytesMax: number, drained: () => void): void => {
      if (bufferedBytes() <= bytesMax) drained()
      else waiting.push({ bytesMax, drained })
    }
  }
}

/** A connection between two parties of one process: what one end sends, the other receives in a later microtask. */
export const makePair = (): readonly [ServerConnection, ServerConnection] => {
  const inboxes = [makeInbox(), makeInbox()] as const
  let open = true
  const end = (mine: 0 | 1): ServerConnection => {
    const peer = inboxes[mine === 0 ? 1 : 0]
    let buffered = 0
    const drain = makeDrain(() => buffered)
    return {
      send: (frame) => {
        if (!open) return
        buffered += frame.length
        // A copy, as of a wire: the sender may use its buffer again. Not `slice`, which in a Buffer shares the memory.
        const copy = new Uint8Array(frame)
        queueMicrotask(() => {
          buffered -= copy.length
          peer.deliver(copy)
          drain.left()
        })
      },
      bufferedBytes: () => buffered,
      whenDrained: drain.whenDrained,
      listen: inboxes[mine].listen,
      pause: inboxes[mine].pause,
      close: (code, reason) => {
        if (!open) return
        open = false
        queueMicrotask(() => {
          peer.end({ code, reason })
          inboxes[mine].end({ code, reason })
        })
      }
    }
  }
  return [end(0), end(1)]
}

/** A transport within one process: each connection's other end goes to `accept`. */
export const makeLoopback = (accept: (connection: ServerConnection) => void): Context.Tag.Service<Transport> =>
  Transport.of({
    connect: () =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const [mine, theirs] = makePair()
          accept(theirs)
          return mine
        }),
        (connection) => Effect.sync(() => connection.close(1000, "closed"))
      )
  })

/** {@link makeLoopback} as a layer. */
export const layerLoopback = (accept: (connection: ServerConnection) => void): Layer.Layer<Transport> =>
  Layer.succeed(Transport, makeLoopback(accept))

/** A URL without a path means the gateway's `/ws`. */
const withPath = (url: string): string => {
  const parsed = new URL(url)
  if (parsed.pathname === "/") parsed.pathname = "/ws"
  return parsed.toString()
}

const openMillisMax = 10_000

/** WebSockets, of the browser or of `ws` on Node. `url` is where the address `home` leads. */
export const makeWebSocket = (options: { readonly url: string }): Context.Tag.Service<Transport> =>
  Transport.of({
    connect: (address) =>
      Effect.acquireRelease(
        Effect.suspend(() => {
          const target = address === home ? options.url : address
          const timeout = new ConnectionLost({
            reason: `${target} did not answer the opening within ${openMillisMax} ms`
          })
          let socket: ReturnType<typeof openWebSocket> | undefined
          return open(target, (opening) => {
            socket = opening
          }).pipe(
            Effect.timeoutFail({ duration: openMillisMax, onTimeout: () => timeout }),
            // Acquiring is uninterruptible, which would keep the timeout from ending the wait.
            Effect.interruptible,
            Effect.onInterrupt(() => Effect.sync(() => socket?.close()))
          )
        }),
        (connection) => Effect.sync(() => connection.close(1000, "closed"))
      )
  })

const open = (
  target: string,
  onOpening: (socket: ReturnType<typeof openWebSocket>) => void
): Effect.Effect<Connection, ConnectionLost> =>
  Effect.async((resume) => {
    let socket: ReturnType<typeof openWebSocket>
    try {
      socket = openWebSocket(withPath(target))
    } catch (cause) {
      resume(Exit.fail(new ConnectionLost({ reason: `${target} cannot be opened`, cause })))
      return
    }
    onOpening(socket)
    socket.binaryType = "arraybuffer"
    const inbox = makeInbox()
    let failure = `${target} cannot be reached`
    let opened = false
    socket.addEventListener("open", () => {
      opened = true
      resume(Exit.succeed({
        send: (frame) => {
          if (socket.readyState === 1) socket.send(frame as Uint8Array<ArrayBuffer>)
        },
        bufferedBytes: () => socket.bufferedAmount,
        listen: inbox.listen,
        pause: inbox.pause,
        close: (code, reason) => socket.close(code === 1000 || code >= 3000 ? code : 4000, reason)
      }))
    })
    socket.addEventListener("message", (event: { readonly data: unknown }) => {
      if (event.data instanceof ArrayBuffer && inbox.deliver(new Uint8Array(event.data))) return
      socket.close(4000, "unexpected frame")
    })
    socket.addEventListener("error", (event: { readonly message?: string }) => {
      failure = `${target}: ${event.message || "connection error"}`
    })
    socket.addEventListener("close", (event: { readonly code: number; readonly reason: string }) => {
      if (opened) inbox.end({ code: event.code, reason: event.reason || failure })
      else resume(Exit.fail(new ConnectionLost({ reason: failure, closeCode: event.code })))
    })
    return Effect.sync(() => socket.close())
  })

/** {@link makeWebSocket} as a layer. */
export const layerWebSocket = (options: { readonly url: string }): Layer.Layer<Transport> =>
  Layer.succeed(Transport, makeWebSocket(options))
