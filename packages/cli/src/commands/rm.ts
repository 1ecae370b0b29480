import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { CommandFailed } from "../Failure.ts"
import { Output } from "../Output.ts"
import { key, map, url, withClient } from "./parameters.ts"
import { concernOf, refusalToFailure } from "./writing.ts"

export const command = Command.make("rm", { map, key, url }, ({ key, map, url }) =>
  Effect.gen(function*() {
    const { note, print } = yield* Output
    const { level } = yield* withClient(url, (client) =>
      Effect.gen(function*() {
        const writeConcern = yield* concernOf(client, note)
        const grid = yield* client.map<unknown>(map)
        const write = yield* Effect.mapError(grid.remove(key, { writeConcern }), refusalToFailure)
        return yield* Effect.mapError(write.server, ({ message }) => new CommandFailed({ message }))
      }))
    print(`Removed ${JSON.stringify(key)} from ${JSON.stringify(map)}, acknowledged ${level}`)
  })).pipe(Command.withDescription("Remove a key, whether or not it is there, and wait until that is on the server's disk."))
