/** Retry policies, as named values. */
import type * as Duration from "effect/Duration"
import * as Schedule from "effect/Schedule"

/** When to try again after the n-th failure in a row; any Effect `Schedule`, whose end means to give up. */
export type Backoff = Schedule.Schedule<unknown, unknown>

/** How long to wait before the next attempt. */
export interface Options {
  /** The first delay. Lower reconnects sooner after a blip, higher spares a server that restarts. @default "500 millis" */
  readonly initial?: Duration.DurationInput
  /** What each delay is multiplied with for the next. @default 1.5 */
  readonly factor?: number
  /** The longest delay before jitter. @default "30 seconds" */
  readonly cap?: Duration.DurationInput
  /** How many tries before giving up. @default unlimited */
  readonly retries?: number
}

/**
 * 0.5 s, 0.75 s, … 30 s, each ±20 % so that a restarted server is not met by all clients at once. It starts anew with each
 * new run; the client runs it anew after each connection that held.
 */
export const make = (options: Options = {}): Backoff => {
  const capped = Schedule.exponential(options.initial ?? "500 millis", options.factor ?? 1.5).pipe(
    Schedule.union(Schedule.spaced(options.cap ?? "30 seconds")),
    Schedule.jittered
  )
  return options.retries === undefined ? capped : capped.pipe(Schedule.intersect(Schedule.recurs(options.retries)))
}

/** {@link make} with its defaults. */
export const reconnect: Backoff = make()
