/**
 * What is told of each connection: counted in the metrics, and said in the log.
 *
 * | line | level | when |
 * |---|---|---|
 * | `A connection ended` | debug | always, with how long it was and what went over it |
 * | `A connection was refused` | warning; debug where nothing is there or the server isn't ready | it was never opened |
 * | `A device was not let in` | warning | it was opened, and closed for what its first messages were |
 * | `A connection was closed for a fault` | info | the same, when it had been let in |
 * | `A message could not be served` | error | a fault of ours: the only line that says more, by the fault itself |
 *
 * Lines have facts about connections as annotations, and never what was in their messages: no key, value, token or secret, no reason
 * in words of a client's or a verifier's. Whoever can reach the port can cause all of these lines, so of each kind only
 * {@link linesPerSecondMax} a second are written, and then one that says how many were left out.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as LogLevel from "effect/LogLevel"
import type { ServerConnection } from "@topgun/core/Transport"
import type { Refusal } from "./Metrics.ts"
import { Metrics } from "./Metrics.ts"

/** What a connection's session tells of it. */
export interface Visit {
  /** The connection, its frames and its end counted. */
  readonly connection: ServerConnection
  /** Its device was let in. */
  readonly letIn: (nodeId: string, userId: string | undefined) => void
  /** A token was taken in the place of another, or what stood against it, by its `_tag`. */
  readonly renewed: (outcome: string) => void
  /** It is to be closed for a fault of its peer's, by its `_tag`. */
  readonly failed: (cause: string) => void
  /** A fault of ours came up in serving it. */
  readonly faulted: (fault: unknown) => void
}

/** What is told of connections. */
export class Visits extends Context.Tag("@topgun/server/Visits")<Visits, {
  /** A connection was accepted; `address` is where it came from, absent where that is nowhere on a network. */
  readonly begin: (connection: ServerConnection, address: string | undefined) => Visit
  /** A connection was refused before it was one; `address` is where it came from. */
  readonly refused: (reason: Refusal, address: string | undefined) => void
}>() {}

/** Lines of one kind that are written in one second, at most. */
export const linesPerSecondMax = 20

type Annotations = Readonly<{ [name: string]: unknown }>

interface Window {
  begunAt: number
  lines: number
  leftOut: number
}

const make = Effect.gen(function*() {
  const metrics = yield* Metrics
  const clock = yield* Effect.clock
  const run = yield* FiberSet.makeRuntime<never, void>()
  const windows = new Map<string, Window>()
  let lastId = 0

  /** Writes a line, or counts it with those left out. Lines of a level don't take the room of another's. */
  const write = (level: LogLevel.LogLevel, line: string, annotations: Annotations, fault?: unknown): void => {
    const now = clock.unsafeCurrentTimeMillis()
    const kind = `${level.label} ${line}`
    let window = windows.get(kind)
    // The wall clock may be set back.
    if (window === undefined || Math.abs(now - window.begunAt) >= 1_000) {
      windows.set(kind, window = { begunAt: now, lines: 0, leftOut: 0 })
    }
    if (window.lines < linesPerSecondMax) {
      window.lines++
      run(Effect.annotateLogs(Effect.logWithLevel(level, line, ...(fault === undefined ? [] : [fault])), annotations))
    } else if (++window.leftOut === 1) {
      const full = window
      run(Effect.zipRight(
        Effect.sleep(full.begunAt + 1_000 - now),
        Effect.suspend(() =>
          Effect.annotateLogs(Effect.logWithLevel(level, "More lines were left out"), { line, leftOut: full.leftOut })
        )
      ))
    }
  }

  return Visits.of({
    begin: (connection, address) => {
      const id = ++lastId
      const begunAt = clock.unsafeCurrentTimeMillis()
      const frames = { in: 0, out: 0, bytesIn: 0, bytesOut: 0 }
      let device: { readonly node: string; readonly user: string | undefined } | undefined
      let cause: string | undefined
      let isOpen = true
      metrics.connectionOpened()
      const facts = () => ({
        connection: id,
        ...(address === undefined ? {} : { address }),
        ...(device === undefined ? {} : { node: device.node }),
        ...(device?.user === undefined ? {} : { user: device.user })
      })
      const end = (code: number): void => {
        if (!isOpen) return
        isOpen = false
        metrics.connectionClosed(code)
        write(LogLevel.Debug, "A connection ended", {
          ...facts(),
          code,
          ...(cause === undefined ? {} : { cause }),
          millis: clock.unsafeCurrentTimeMillis() - begunAt,
          framesIn: frames.in,
          bytesIn: frames.bytesIn,
          framesOut: frames.out,
          bytesOut: frames.bytesOut
        })
      }
      return {
        connection: {
          ...connection,
          send: (frame) => {
            frames.out++
            frames.bytesOut += frame.length
            metrics.frameSent(frame.length)
            connection.send(frame)
          },
          listen: (onFrame, onClose) =>
            connection.listen((frame) => {
              frames.in++
              frames.bytesIn += frame.length
              metrics.frameReceived(frame.length)
              onFrame(frame)
            }, (closed) => {
              end(closed.code)
              onClose(closed)
            }),
          close: (code, reason) => {
            end(code)
            connection.close(code, reason)
          }
        },
        letIn: (node, user) => {
          device = { node, user }
          metrics.authenticated("accepted")
        },
        renewed: (outcome) => metrics.authenticated(outcome),
        failed: (tag) => {
          cause = tag
          if (device !== undefined) {
            return write(LogLevel.Info, "A connection was closed for a fault", { ...facts(), cause })
          }
          metrics.authenticated(tag)
          write(LogLevel.Warning, "A device was not let in", { ...facts(), cause })
        },
        faulted: (fault) => write(LogLevel.Error, "A message could not be served", facts(), fault)
      }
    },
    refused: (reason, address) => {
      metrics.connectionRefused(reason)
      const level = reason === "path" || reason === "phase" ? LogLevel.Debug : LogLevel.Warning
      write(level, "A connection was refused", { reason, ...(address === undefined ? {} : { address }) })
    }
  })
})

export const layer: Layer.Layer<Visits, never, Metrics> = Layer.scoped(Visits, make)
