/** A client in memory, connected for the time of one command. */
import type { SyncStatus } from "@topgun/client/Reports"
import * as TopGunClient from "@topgun/client/TopGunClient"
import * as Backoff from "@topgun/core/Backoff"
import * as Storage from "@topgun/core/Storage"
import * as Transport from "@topgun/core/Transport"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { CommandFailed } from "./Failure.ts"

export type Client = TopGunClient.TopGunClient["Type"]

/** How long a server may take to accept a connection and answer on it, in ms. */
const connectMillisMax = 10_000

/** A connection that was there and is lost is tried again for about half a minute: a server's restart takes less. */
const patience = { cap: "5 seconds", retries: 10 } as const

/** Waits for a status that `choose` makes something of. */
const statusWhere = <A>(client: Client, choose: (status: SyncStatus) => A | undefined): Effect.Effect<A> =>
  Effect.async<A>((resume) => {
    const look = (status: SyncStatus): boolean => {
      const chosen = choose(status)
      if (chosen !== undefined) resume(Effect.succeed(chosen))
      return chosen !== undefined
    }
    if (look(client.status.current)) return
    const stop = client.status.subscribe(look)
    return Effect.sync(stop)
  })

/** The reason alone: that a connection was "lost" is confusing when there never was one. */
const reasonOf = ({ failure }: SyncStatus): string =>
  (failure ?? "it doesn't answer").replace(/^The connection to the server was lost: (wss?:\/\/\S+: )?/, "").replace(
    / \(close code 1006\)$/,
    ""
  )

/**
 * Runs `use` with a client of the server at `url`, once it is connected. It fails as soon as the server can't be reached,
 * and later when it is gone for good; maps are opened by `use`.
 */
export const withClient = <A, E>(
  url: string,
  use: (client: Client) => Effect.Effect<A, E>
): Effect.Effect<A, E | CommandFailed> => {
  let wasConnected = false
  const layer = TopGunClient.layer({
    backoff: Backoff.make(patience).pipe(Schedule.whileInput(() => wasConnected))
  }).pipe(
    Layer.provide([Storage.layerMemory, Transport.layerWebSocket({ url })]),
    Layer.mapError(({ message }) => new CommandFailed({ message }))
  )
  const unreachable = (reason: string) =>
    new CommandFailed({
      message: `No server can be reached at ${url}: ${reason}\n` +
        "Start one with \"topgun serve\", or name another with --url or TOPGUN_URL."
    })
  return Effect.gen(function*() {
    const client = yield* TopGunClient.TopGunClient
    const failed = Effect.flatMap(
      statusWhere(client, (status) => status.state === "ERROR" ? status : undefined),
      (status) =>
        wasConnected
          ? new CommandFailed({ message: `The connection to ${url} was lost: ${reasonOf(status)}` })
          : unreachable(reasonOf(status))
    )
    const connected = statusWhere(client, ({ state }) => state === "CONNECTED" ? state : undefined).pipe(
      Effect.timeoutFail({
        duration: connectMillisMax,
        onTimeout: () => unreachable(`it didn't answer within ${connectMillisMax / 1_000} s.`)
      }),
      Effect.tap(() =>
        Effect.sync(() => {
          wasConnected = true
        })
      )
    )
    return yield* Effect.raceFirst(Effect.flatMap(connected, () => use(client)), failed)
  }).pipe(Effect.provide(layer))
}
