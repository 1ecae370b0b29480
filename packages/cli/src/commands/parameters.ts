/** What several commands take. */
import * as Args from "@effect/cli/Args"
import * as Options from "@effect/cli/Options"
import type { GridMap } from "@topgun/client/GridMap"
import type { ConfigInvalid } from "@topgun/core/GridError"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import { type CommandFailed, UsageError } from "../Failure.ts"
import type { Client } from "../Remote.ts"
import * as Token from "../Token.ts"

export const map = Args.text({ name: "map" }).pipe(Args.withDescription("The map's name."))
export const key = Args.text({ name: "key" }).pipe(Args.withDescription("The key in the map."))

const urlOption = Options.text("url").pipe(
  Options.withPseudoName("URL"),
  Options.withFallbackConfig(Config.string("TOPGUN_URL")),
  Options.withDefault("ws://localhost:8080"),
  Options.withDescription("The server. Without it: the environment's TOPGUN_URL, else ws://localhost:8080.")
)

const tokenOption = Options.redacted("token").pipe(
  Options.withPseudoName("TOKEN"),
  Options.withDescription(
    "The token to be let in with. Better in the environment's TOPGUN_TOKEN, or in a file that TOPGUN_TOKEN_FILE names: " +
      "whoever lists processes sees their arguments."
  ),
  Options.optional
)

/** Where the data is, and how to be let in. */
export interface Server {
  readonly url: string
  readonly token: Option.Option<Redacted.Redacted>
}

/** What every command takes that connects. */
export const server: Options.Options<Server> = Options.all({ url: urlOption, token: tokenOption })

export const json = Options.boolean("json").pipe(
  Options.withDescription("Print JSON, for programs to read.")
)

/** A server's WebSocket by what people copy from a browser or a log. */
const serverUrl = (text: string): Effect.Effect<string, UsageError> => {
  const address = /^[a-z]+:\/\//i.test(text) ? text.replace(/^http/i, "ws") : `ws://${text}`
  return URL.canParse(address) && /^wss?:\/\/[^/]/i.test(address)
    ? Effect.succeed(address)
    : new UsageError({
      message:
        `${JSON.stringify(text)} is no server's URL: one looks like ws://localhost:8080 or wss://grid.example.com ` +
        "(--url or TOPGUN_URL)"
    })
}

/** What runs with a server: a command, once it has been told all that it needs. */
type Served<A, E> = Effect.Effect<A, E | CommandFailed | ConfigInvalid | UsageError>

/** A server's port for HTTP, and the token to show it. */
export const httpOf = ({ token, url }: Server, path: string) =>
  Effect.gen(function*() {
    const address = new URL(yield* serverUrl(url))
    const source = yield* Token.sourceOf(token)
    address.protocol = address.protocol === "wss:" ? "https:" : "http:"
    address.pathname = `${address.pathname.replace(/\/(ws)?$/, "")}${path}`
    address.search = ""
    return { address, source }
  })

/** Loads the client when a command needs it, so that others start sooner. */
const remoteOf = ({ token, url }: Server) =>
  Effect.gen(function*() {
    const address = { url: yield* serverUrl(url), token: yield* Token.sourceOf(token) }
    return { Remote: yield* Effect.promise(() => import("../Remote.ts")), address }
  })

/** Runs `use` with a client connected to a server. */
export const withClient = <A, E>(given: Server, use: (client: Client) => Effect.Effect<A, E>): Served<A, E> =>
  Effect.flatMap(remoteOf(given), ({ Remote, address }) => Remote.withClient(address, use))

/** Runs `use` with a map that is in step with a server, and fails where that doesn't let it be read. */
export const withMap = <A, E>(
  given: Server,
  name: string,
  use: (client: Client, grid: GridMap<unknown>) => Effect.Effect<A, E>
): Served<A, E> => Effect.flatMap(remoteOf(given), ({ Remote, address }) => Remote.withMap(address, name, use))
