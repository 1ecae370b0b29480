import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { Output } from "../Output.ts"
import * as Parameters from "./parameters.ts"
import { writeOne } from "./writing.ts"

export const command = Command.make(
  "rm",
  { map: Parameters.map, key: Parameters.key, server: Parameters.server },
  ({ key, map, server }) =>
    Effect.gen(function*() {
      const { print } = yield* Output
      const { level } = yield* writeOne(server, map, (grid, options) => grid.remove(key, options))
      print(`Removed ${JSON.stringify(key)} from ${JSON.stringify(map)}, acknowledged ${level}`)
    })
).pipe(
  Command.withDescription("Remove a key, whether or not it is there, and wait until that is on the server's disk.")
)
