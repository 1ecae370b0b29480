/**
 * The server's part of its clients' traces: for a batch that says which span it is part of (`Traced`), two spans below that one.
 *
 * | span | from | to |
 * |---|---|---|
 * | `topgun.write` | the batch's receipt | its acknowledgement at the level that was asked for |
 * | `topgun.commit`, below it | the batch is in line for the database | it is committed, or the commit has failed |
 *
 * They go to the `Tracer` that the server is built with. There is one where the configuration names a collector of OTLP, or where
 * the program provides one; without, nothing is done. Names of maps, keys and users are in no span.
 */
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"

/** Where a batch came from, and when. */
export interface Origin {
  /** When its last message was received, in ns. */
  readonly receivedNanos: bigint
  /** The client's span that it is part of, as W3C Trace Context writes it. */
  readonly traceParent: string | undefined
}

/** A traced batch. */
export interface Trace {
  /** What is known when it is carried out. */
  readonly applied: (attributes: Readonly<Record<string, string | number>>) => void
  /** It is in line for the database. */
  readonly inLine: () => void
  /** The database has it, or failed. */
  readonly committed: (failure: Error | undefined) => void
  /** It has reached the level that was asked for, or never will. The first call counts. */
  readonly ended: (level?: string, failure?: Error) => void
}

/** The spans of batches. */
export class Traces extends Context.Tag("@topgun/server/Traces")<Traces, {
  /** Begins the spans of a batch; `undefined` where it isn't traced. */
  readonly begin: (origin: Origin) => Trace | undefined
}>() {}

/** Batches that are traced in one second, at most: what waits to be exported is in memory, and clients say what is traced. */
export const tracesPerSecondMax = 500

/** The span that a traceparent names; `undefined` where nobody wants it recorded, or there is none such. */
const spanOf = (traceParent: string): Tracer.ExternalSpan | undefined => {
  const [version, traceId, spanId, flags] = traceParent.split("-") as [string, string, string, string]
  const isSampled = (Number.parseInt(flags, 16) & 1) === 1
  if (version === "ff" || /^0+$/.test(traceId) || /^0+$/.test(spanId) || !isSampled) return undefined
  return Tracer.externalSpan({ traceId, spanId, sampled: true })
}

export const layer: Layer.Layer<Traces> = Layer.effect(
  Traces,
  Effect.gen(function*() {
    const clock = yield* Effect.clock
    const tracer = yield* Effect.tracer
    if (tracer === Context.get(DefaultServices.liveServices, Tracer.Tracer)) return { begin: () => undefined }
    let second = 0
    let traces = 0
    const now = () => clock.unsafeCurrentTimeNanos()
    const outcomeOf = (failure: Error | undefined) => failure === undefined ? Exit.void : Exit.fail(failure)
    return Traces.of({
      begin: ({ receivedNanos, traceParent }) => {
        const parent = traceParent === undefined ? undefined : spanOf(traceParent)
        if (parent === undefined) return undefined
        const present = Math.floor(clock.unsafeCurrentTimeMillis() / 1_000)
        if (present !== second) {
          second = present
          traces = 0
        }
        if (++traces > tracesPerSecondMax) return undefined
        const span = (name: string, above: Tracer.AnySpan, since: bigint, kind: Tracer.SpanKind) =>
          tracer.span(name, Option.some(above), Context.empty(), [], since, kind)
        const write = span("topgun.write", parent, receivedNanos, "server")
        let commit: Tracer.Span | undefined
        let isEnded = false
        return {
          applied: (attributes) => {
            for (const [name, value] of Object.entries(attributes)) write.attribute(`topgun.${name}`, value)
          },
          inLine: () => {
            commit = span("topgun.commit", write, now(), "internal")
          },
          committed: (failure) => commit?.end(now(), outcomeOf(failure)),
          ended: (level, failure) => {
            if (isEnded) return
            isEnded = true
            if (level !== undefined) write.attribute("topgun.level", level)
            write.end(now(), outcomeOf(failure))
          }
        }
      }
    })
  })
)
