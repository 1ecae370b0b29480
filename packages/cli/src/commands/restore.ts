import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { CommandFailed } from "../Failure.ts"
import { counted } from "../Figures.ts"
import { Output } from "../Output.ts"
import * as Parameters from "./parameters.ts"

/** Bytes read at a time. */
const chunkBytes = 256 * 1024

const options = {
  file: Args.text({ name: "file" }).pipe(
    Args.withDescription("What topgun backup has written; - reads what is piped in.")
  ),
  dataDir: Options.text("data-dir").pipe(
    Options.withPseudoName("DIRECTORY"),
    Options.withDescription("Where the data is to be. Default: .topgun (TOPGUN_DATA_DIR)."),
    Options.optional
  ),
  replace: Options.boolean("replace").pipe(
    Options.withDescription("Replace what is there. A data directory's database is kept beside it.")
  ),
  json: Parameters.json
}

export const command = Command.make("restore", options, ({ dataDir, file, json, replace }) =>
  Effect.gen(function*() {
    const { input, note, print } = yield* Output
    const { Restore, ServerConfig } = yield* Effect.promise(async () => ({
      Restore: await import("@topgun/server/Restore"),
      ServerConfig: await import("@topgun/server/ServerConfig")
    }))
    const { notices, settings } = yield* ServerConfig.load(Option.isSome(dataDir) ? { dataDir: dataDir.value } : {})
    for (const notice of notices) note(notice)
    const fileSystem = yield* FileSystem.FileSystem
    const source = file === "-" ? input : Stream.mapError(
      fileSystem.stream(file, { chunkSize: chunkBytes }),
      ({ message }) => new CommandFailed({ message: `${JSON.stringify(file)} can't be read: ${message}` })
    )
    const restored = yield* Restore.restore(source, { replace }).pipe(
      Effect.provideService(ServerConfig.ServerConfig, settings),
      Effect.provide(Logger.replace(Logger.defaultLogger, Logger.make(({ message }) => note(String(message)))))
    )
    const { header, isOld, kept, maps, records } = restored
    const at = new Date(header.at).toISOString()
    if (json) {
      print(
        JSON.stringify({ at, by: header.by, generation: header.generation, maps, records, kept: kept ?? null, isOld })
      )
    } else {
      const where = settings.storage === "postgres" ? "the database" : settings.dataDir
      print(`${counted(records, "record")} in ${counted(maps, "map")}, as of ${at}, are in ${where}.`)
      if (kept !== undefined) print(`What was there before is in ${kept}.`)
      print("It's a store of its own: clients bring what they have that it lacks, when they connect.")
    }
    if (isOld) {
      note(
        `The backup is older than ${
          Duration.format(settings.tombstoneAge)
        } (TOPGUN_TOMBSTONE_AGE): what was deleted since then comes back where everybody has forgotten the deletion.`
      )
    }
  })).pipe(Command.withDescription(
    "Make a store of a backup, while no server runs on it: in an empty data directory, or with TOPGUN_STORAGE=postgres in the database of " +
      "TOPGUN_DATABASE_URL. A backup that isn't whole, or was changed, is refused, and nothing is restored."
  ))
