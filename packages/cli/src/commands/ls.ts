import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { UsageError } from "../Failure.ts"
import { counted } from "../Figures.ts"
import * as Json from "../Json.ts"
import { Output } from "../Output.ts"
import * as Parameters from "./parameters.ts"

const limitOption = Options.integer("limit").pipe(
  Options.withPseudoName("NUMBER"),
  Options.withDescription("At most so many, from the first key on."),
  Options.optional
)

export const command = Command.make(
  "ls",
  { map: Parameters.map, limit: limitOption, server: Parameters.server, json: Parameters.json },
  ({ json, limit, map, server }) =>
    Effect.gen(function*() {
      const { note, print } = yield* Output
      const max = Option.getOrElse(limit, () => Infinity)
      if (max < 1) return yield* new UsageError({ message: `topgun ls: --limit ${max} shows nothing: give 1 or more` })
      yield* Parameters.withMap(server, map, (_, grid) =>
        Effect.sync(() => {
          const keys = Array.from(grid.keys()).sort()
          for (const key of keys.slice(0, max)) {
            const value = Json.render(grid.get(key))
            print(json ? `{"key":${JSON.stringify(key)},"value":${value}}` : `${Json.label(key)}\t${value}`)
          }
          if (keys.length === 0) note(`Map ${JSON.stringify(map)} is empty`)
          if (keys.length > max) note(`Not shown: ${counted(keys.length - max, "key")}`)
        }))
    })
).pipe(Command.withDescription("List the keys and values of a map, in the order of the keys."))
