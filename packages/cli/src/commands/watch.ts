import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { counted } from "../Figures.ts"
import * as Json from "../Json.ts"
import { Output } from "../Output.ts"
import * as Parameters from "./parameters.ts"

export const command = Command.make(
  "watch",
  { map: Parameters.map, key: Args.optional(Parameters.key), server: Parameters.server, json: Parameters.json },
  ({ json, key, map, server }) =>
    Effect.gen(function*() {
      const { note, print } = yield* Output
      const only = Option.getOrUndefined(key)
      const show = (each: { readonly key: string; readonly value: unknown }): void => {
        if (only !== undefined && each.key !== only) return
        const name = JSON.stringify(each.key)
        const value = each.value === undefined ? undefined : Json.render(each.value)
        if (json) print(value === undefined ? `{"key":${name},"removed":true}` : `{"key":${name},"value":${value}}`)
        else print(value === undefined ? `${Json.label(each.key)} removed` : `${Json.label(each.key)} = ${value}`)
      }
      return yield* Parameters.withMap(server, map, (client, grid) =>
        Effect.gen(function*() {
          if (only !== undefined && grid.has(only)) show({ key: only, value: grid.get(only) })
          yield* Effect.acquireRelease(
            Effect.sync(() => grid.subscribe((changes) => changes.forEach(show))),
            (stop) => Effect.sync(stop)
          )
          let away = false
          yield* Effect.acquireRelease(
            Effect.sync(() =>
              client.status.subscribe(({ state }) => {
                if (state === "BACKOFF" && !away) note("The connection was lost; trying again")
                if (state === "CONNECTED" && away) note("Connected again")
                if (state === "BACKOFF" || state === "CONNECTED") away = state === "BACKOFF"
              })
            ),
            (stop) => Effect.sync(stop)
          )
          const what = only === undefined ? "" : `${JSON.stringify(only)} in `
          note(`Watching ${what}${JSON.stringify(map)} (${counted(grid.size, "key")}); Ctrl-C ends it`)
          return yield* Effect.never
        }).pipe(Effect.scoped))
    })
).pipe(Command.withDescription("Print the changes of a map, or of one key, as they come, until Ctrl-C."))
