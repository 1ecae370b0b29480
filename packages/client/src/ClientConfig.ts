/** What a client can be told, and what it does when it isn't. */
import * as Backoff from "@topgun/core/Backoff"
import * as Backpressure from "@topgun/core/Backpressure"
import type { Declaration } from "@topgun/core/Grid"
import type { WriteConcern } from "@topgun/core/WriteConcern"
import * as ClientLog from "./ClientLog.ts"
import type { Auth } from "./Credentials.ts"
import * as NetworkEvents from "./NetworkEvents.ts"
import type { Logger } from "./PromiseClient.ts"
import * as Tabs from "./Tabs.ts"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
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
  /**
   * The token that the server is to let this client in with: itself, or what answers one for each connection and before the
   * last one expires.
   */
  readonly auth: Auth | undefined
  /** How long `auth` may take to answer, in ms. Higher suits slow identity providers; the client is offline meanwhile. */
  readonly authTimeoutMillis: number
  /**
   * How long a write may be sent and not acknowledged, in ms, on a connection that is alive, before the connection is replaced.
   * Lower mends sooner; too low gives up on servers that are only slow, and sends to them again.
   */
  readonly stallMillis: number
  /** What tells of the network and of the user's return. */
  readonly network: NetworkEvents.NetworkEvents
  /**
   * Where this tab finds the others that share its storage. With "none" it opens the storage as if it were alone: any other that
   * does so takes it away from this one.
   */
  readonly tabs: Tabs.Tabs | "none"
  /** Whether to connect when opened. */
  readonly autoConnect: boolean
  /** There is no server, and never was: what is on this device is all that there is, and queries say so. */
  readonly localOnly: boolean
  /** Hears of faults that nobody waits for: rejected and dropped writes, storage faults, a throwing listener. */
  readonly onError: (fault: unknown) => void
  /** Takes the lines of the log. */
  readonly log: ClientLog.Log
}

export const defaults: Omit<Config, "log"> = {
  grid: [],
  backoff: Backoff.reconnect,
  backpressure: Backpressure.defaults,
  writeConcern: "APPLIED",
  writeTimeoutMillis: 5_000,
  auth: undefined,
  authTimeoutMillis: 5_000,
  stallMillis: 15_000,
  // Looked for when a client is made: what is imported only, as where pages are rendered on a server, touches no platform.
  get network() {
    return NetworkEvents.ofPlatform()
  },
  get tabs() {
    return Tabs.ofPlatform()
  },
  autoConnect: true,
  localOnly: false,
  onError: () => {}
}

/** The settings of one client. */
export class ClientConfig extends Context.Tag("@topgun/client/ClientConfig")<ClientConfig, Config>() {}

/** The defaults, but for what is given. */
export interface Options extends Partial<Omit<Config, "backpressure" | "log">> {
  readonly backpressure?: Partial<Backpressure.Options>
  /** Hears of states, failures, retries and faults, as lines for people; never of what is written. @default the layer's `Logger` */
  readonly logger?: Logger
}

export const layer = (options: Options = {}): Layer.Layer<ClientConfig> =>
  Layer.effect(
    ClientConfig,
    Effect.map(Effect.runtime<never>(), (runtime) => {
      const log = options.logger === undefined ? ClientLog.ofRuntime(runtime) : ClientLog.ofLogger(options.logger)
      return ClientConfig.of({
        ...defaults,
        ...options,
        log,
        onError: ClientLog.telling(log, options.onError),
        backpressure: { ...defaults.backpressure, ...options.backpressure }
      })
    })
  )
