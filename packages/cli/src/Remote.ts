/** A client in memory, connected for the time of one command. */
import type { GridMap } from "@topgun/client/GridMap"
import type { Live } from "@topgun/client/Live"
import type { SyncStatus } from "@topgun/client/Reports"
import * as TopGunClient from "@topgun/client/TopGunClient"
import { AuthUnavailable } from "@topgun/core/GridError"
import * as Backoff from "@topgun/core/Backoff"
import * as Storage from "@topgun/core/Storage"
import * as Transport from "@topgun/core/Transport"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import { CommandFailed } from "./Failure.ts"
import type * as Token from "./Token.ts"

export type Client = TopGunClient.TopGunClient["Type"]

/** Where the data is, and how to be let in. */
export interface Server {
  readonly url: string
  readonly token: Token.Source | undefined
}

/** How long a server may take to accept a connection and answer on it, in ms. */
const connectMillisMax = 10_000

/** A connection that was there and is lost is tried again for about half a minute: a server's restart takes less. */
const patience = { cap: "5 seconds", retries: 10 } as const

/** Waits for a value that `choose` makes something of. */
const whereLive = <S, A>(live: Live<S>, choose: (value: S) => A | undefined): Effect.Effect<A> =>
  Effect.async<A>((resume) => {
    const look = (value: S): boolean => {
      const chosen = choose(value)
      if (chosen !== undefined) resume(Effect.succeed(chosen))
      return chosen !== undefined
    }
    if (look(live.current)) return
    const stop = live.subscribe(look)
    return Effect.sync(stop)
  })

/** The reason alone: that a connection was "lost" is confusing when there never was one. */
const reasonOf = ({ failure }: SyncStatus): string =>
  (failure ?? "it doesn't answer").replace(/^The connection to the server was lost: (wss?:\/\/\S+: )?/, "").replace(
    / \(close code 1006\)$/,
    ""
  )

/** What to do about a token that the server doesn't take, or misses. */
const adviceOf = (token: Token.Source | undefined): string =>
  token === undefined
    ? "Give one in TOPGUN_TOKEN, or in a file that TOPGUN_TOKEN_FILE names."
    : `It was shown that of ${token.name}: replace it there, or leave it out where the server asks for none.`

/** A connection that no waiting brings back: the tries are spent, or it takes another token than there is. */
const isOver = ({ needsAuth, state }: SyncStatus): boolean => state === "ERROR" || (needsAuth && state === "BACKOFF")

/** The refusal to let a map be read, from now on, as what a command fails with. */
const refused = ({ status }: GridMap<unknown>): Effect.Effect<never, CommandFailed> =>
  Effect.flatMap(
    whereLive(status, ({ refusal }) => refusal),
    (message) => new CommandFailed({ message })
  )

/**
 * Runs `use` with a client of the server at `url`, once it is connected. It fails as soon as the server can't be reached or
 * doesn't take the token, and later when it is gone for good or the token has expired; maps are opened by `use`.
 */
export const withClient = <A, E>(
  { token, url }: Server,
  use: (client: Client) => Effect.Effect<A, E>
): Effect.Effect<A, E | CommandFailed> => {
  let wasConnected = false
  let unavailable: AuthUnavailable | undefined
  const layer = TopGunClient.layer({
    ...(token === undefined ? {} : { auth: Effect.map(token.token, Redacted.value) }),
    onError: (fault) => {
      if (fault instanceof AuthUnavailable) unavailable = fault
    },
    backoff: Backoff.make(patience).pipe(Schedule.whileInput(() => wasConnected))
  }).pipe(
    Layer.provide([Storage.layerMemory, Transport.layerWebSocket({ url })]),
    // What matters of it is told here. Lines of a log would stand among what was asked for.
    Layer.provide(Logger.remove(Logger.defaultLogger)),
    Layer.mapError(({ message }) => new CommandFailed({ message }))
  )
  const unreachable = (reason: string) =>
    new CommandFailed({
      message: `No server can be reached at ${url}: ${reason}\n` +
        "Start one with \"topgun serve\", or name another with --url or TOPGUN_URL."
    })
  const failureOf = (status: SyncStatus): CommandFailed => {
    if (status.needsAuth) return new CommandFailed({ message: `${status.failure}\n${adviceOf(token)}` })
    // There is a server, and the token may be a good one.
    if (!wasConnected && unavailable !== undefined) return new CommandFailed({ message: unavailable.message })
    return wasConnected
      ? new CommandFailed({ message: `The connection to ${url} was lost: ${reasonOf(status)}` })
      : unreachable(reasonOf(status))
  }
  return Effect.gen(function*() {
    const client = yield* TopGunClient.TopGunClient
    const failed = Effect.flatMap(
      whereLive(client.status, (status) => isOver(status) ? status : undefined),
      failureOf
    )
    const connected = whereLive(client.status, ({ state }) => state === "CONNECTED" ? state : undefined).pipe(
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

/**
 * Runs `use` with a map that is in step with the server. Fails as soon as the server doesn't let it be read, at first or one
 * day: there is nothing to be waited for then.
 */
export const withMap = <A, E>(
  server: Server,
  map: string,
  use: (client: Client, grid: GridMap<unknown>) => Effect.Effect<A, E>
): Effect.Effect<A, E | CommandFailed> =>
  withClient(
    server,
    (client) =>
      Effect.flatMap(client.map<unknown>(map), (grid) => {
        const inStep = whereLive(grid.status, ({ isSynced }) => isSynced ? true : undefined)
        return Effect.raceFirst(Effect.flatMap(inStep, () => use(client, grid)), refused(grid))
      })
  )
