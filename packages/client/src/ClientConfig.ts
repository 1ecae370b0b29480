/** What a client can be told, and what it does when it isn't. */
import * as Backoff from "@topgun/core/Backoff"
import * as Backpressure from "@topgun/core/Backpressure"
import type { Declaration } from "@topgun/core/Grid"
import type { WriteConcern } from "@topgun/core/WriteConcern"
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"

export interface Config {
  /** Maps to open at the start, so that they are loaded and synchronised without being asked for. */
  readonly grid: ReadonlyArray<Declaration>
  /** When to connect again after the n-th failure; any Schedule, whose end means ERROR. */
  readonly backoff: Backoff.Backoff
  /** What happens to writes when too many wait. */
  readonly backpressure: Backpressure.Options
  /** How far a write must come before `server` settles, where the write itself doesn't say. Higher is safer and slower. */
  readonly writeConcern: WriteConcern
  /** How long `server` waits, in ms from the write. Lower tells sooner, higher suits slow links; the write goes on anyway. */
  readonly writeTimeoutMillis: number
  /** Whether to connect when opened. */
  readonly autoConnect: boolean
  /** Hears of faults that nobody waits for: rejected and dropped writes, storage faults, a throwing listener. */
  readonly onError: (fault: unknown) => void
}

export const defaults: Config = {
  grid: [],
  backoff: Backoff.reconnect,
  backpressure: Backpressure.defaults,
  writeConcern: "APPLIED",
  writeTimeoutMillis: 5_000,
  autoConnect: true,
  onError: () => {}
}

/** The settings of one client. */
export class ClientConfig extends Context.Tag("@topgun/client/ClientConfig")<ClientConfig, Config>() {}

/** Tells of faults and never throws: who tells of a fault has work to go on with. */
export const contained = (onError: (fault: unknown) => void) => (fault: unknown): void => {
  try {
    onError(fault)
  } catch {
    // There is nobody left to tell that the one who hears of faults has one.
  }
}

/** The defaults, but for what is given. */
export interface Options extends Partial<Omit<Config, "backpressure">> {
  readonly backpressure?: Partial<Backpressure.Options>
}

export const layer = (options: Options = {}): Layer.Layer<ClientConfig> =>
  Layer.succeed(
    ClientConfig,
    ClientConfig.of({
      ...defaults,
      ...options,
      onError: contained(options.onError ?? defaults.onError),
      backpressure: { ...defaults.backpressure, ...options.backpressure }
    })
  )
