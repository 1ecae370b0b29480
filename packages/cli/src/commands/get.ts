import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { CommandFailed } from "../Failure.ts"
import * as Json from "../Json.ts"
import { Output } from "../Output.ts"
import * as Parameters from "./parameters.ts"

export const command = Command.make(
  "get",
  { map: Parameters.map, key: Parameters.key, server: Parameters.server, json: Parameters.json },
  ({ json, key, map, server }) =>
    Effect.gen(function*() {
      const { print } = yield* Output
      const value = yield* Parameters.withMap(server, map, (_, grid) => Effect.sync(() => grid.get(key)))
      if (value === undefined) {
        return yield* new CommandFailed({
          message: `There is no key ${JSON.stringify(key)} in map ${
            JSON.stringify(map)
          }. "topgun ls ${map}" lists its keys.`
        })
      }
      print(Json.render(value, json ? undefined : 2))
    })
).pipe(Command.withDescription(
  "Print the value of a key. The map is downloaded for it, so that the answer is up to date."
))
