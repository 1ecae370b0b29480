/** What several commands take. */
import * as Args from "@effect/cli/Args"
import * as Options from "@effect/cli/Options"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import { UsageError } from "../Failure.ts"
import type { Client } from "../Remote.ts"

export const map = Args.text({ name: "map" }).pipe(Args.withDescription("The map's name."))
export const key = Args.text({ name: "key" }).pipe(Args.withDescription("The key in the map."))

export const url = Options.text("url").pipe(
  Options.withPseudoName("URL"),
  Options.withFallbackConfig(Config.string("TOPGUN_URL")),
  Options.withDefault("ws://localhost:8080"),
  Options.withDescription("The server. Without it: the environment's TOPGUN_URL, else ws://localhost:8080.")
)

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

/** Runs `use` with a client connected to a server. The client is loaded when a command needs it, so that others start sooner. */
export const withClient = <A, E>(server: string, use: (client: Client) => Effect.Effect<A, E>) =>
  Effect.gen(function*() {
    const address = yield* serverUrl(server)
    const Remote = yield* Effect.promise(() => import("../Remote.ts"))
    return yield* Remote.withClient(address, use)
  })
