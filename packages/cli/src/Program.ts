/** The `topgun` command: its parts, and how it is run. */
import * as CliConfig from "@effect/cli/CliConfig"
import * as Command from "@effect/cli/Command"
import * as CommandDescriptor from "@effect/cli/CommandDescriptor"
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as ValidationError from "@effect/cli/ValidationError"
import * as Cause from "effect/Cause"
import type * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import { stripVTControlCharacters } from "node:util"
import * as CommandLine from "./CommandLine.ts"
import { command as backup } from "./commands/backup.ts"
import { command as get } from "./commands/get.ts"
import { command as importFile } from "./commands/import.ts"
import { command as ls } from "./commands/ls.ts"
import { command as query, search } from "./commands/query.ts"
import { command as restore } from "./commands/restore.ts"
import { command as rm } from "./commands/rm.ts"
import { command as serve } from "./commands/serve.ts"
import { command as set } from "./commands/set.ts"
import { command as status } from "./commands/status.ts"
import { command as watch } from "./commands/watch.ts"
import { exitCodeOf, exitCodes, UsageError } from "./Failure.ts"
import { Output } from "./Output.ts"

/** The version that `--version` prints: the package's. */
export const version = "0.1.0"

/** What `topgun --help` prints: the usage that @effect/cli makes of a dozen commands is too wide to read. */
const help = `topgun ${version}: a local-first data grid

  topgun serve                  Run a server, until Ctrl-C
  topgun import FILE            Write the records of a JSON file to a map
  topgun get MAP KEY            Print the value of a key
  topgun set MAP KEY JSON       Write a value
  topgun rm MAP KEY             Remove a key
  topgun ls MAP                 List the keys and values of a map
  topgun query MAP              Print the records that a query finds, and with --watch what changes of them
  topgun search MAP TEXT        Print the records that match a text best
  topgun watch MAP [KEY]        Print changes as they come, until Ctrl-C
  topgun status                 Print how a server is doing
  topgun backup                 Print all that a server has stored, or write it to a file
  topgun restore FILE           Make a store of a backup, while no server runs on it

"topgun COMMAND --help" tells the options of each; they stand anywhere after the command. --version prints the version.
TOPGUN_URL names the server for the commands that need one; without it: ws://localhost:8080.
TOPGUN_TOKEN, or a file that TOPGUN_TOKEN_FILE names, has the token that a server asks for.
Exit codes: 0 done, 1 failed, 2 wrong command line, 78 wrong configuration.`

const topgun = Command.make("topgun").pipe(
  Command.withSubcommands([serve, importFile, get, set, rm, ls, query, search, watch, status, backup, restore])
)

const usages = new Map(HashMap.map(Command.getSubcommands(topgun), CommandDescriptor.getUsage))

const cliConfig = CliConfig.layer({ isCaseSensitive: true, autoCorrectLimit: 0, showBuiltIns: false })

/** A document without the colours that @effect/cli puts in. */
const plain = (text: string): string => stripVTControlCharacters(text).trim()

/** What @effect/cli has against a command line, in the form of our own faults. */
const usageError = (command: string, { error }: ValidationError.ValidationError): UsageError =>
  new UsageError({
    message: `topgun ${command}: ${
      plain(HelpDoc.toAnsiText(error)).replace(/\s+/g, " ")
    }\nSee "topgun ${command} --help".`
  })

/** Whether a command is meant to run until a signal ends it. */
export const endsBySignal = ([command, ...words]: ReadonlyArray<string>): boolean =>
  command === "serve" || command === "watch" || words.includes("--watch")

/** Parses the words after the program's name and carries them out. */
const carryOut = (words: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const { colours, print } = yield* Output
    const arranged = yield* CommandLine.arrange(words, usages)
    if (arranged.length === 1 && arranged[0] === "--help") return print(help)
    const own = yield* Effect.console
    // @effect/cli prints its documents and its faults itself: the first in its colours, the second as well as failing with them.
    const documents: Console.Console = {
      ...own,
      log: (text: unknown) => Effect.sync(() => print(colours ? String(text).trimEnd() : plain(String(text)))),
      error: () => Effect.void
    }
    const run = Command.run(
      Command.transformHandler(topgun, (handler) => Effect.withConsole(handler, own)),
      { name: "topgun", version }
    )
    yield* run(["node", "topgun", ...arranged]).pipe(
      Effect.withConsole(documents),
      Effect.catchIf(ValidationError.isValidationError, (fault) => usageError(arranged[0] ?? "", fault))
    )
  }).pipe(Effect.provide(cliConfig))

/** Runs a command line to its end, tells why it fails where it does, and yields the exit code. */
export const run = (words: ReadonlyArray<string>) =>
  Effect.flatMap(Output, ({ note }) =>
    Effect.matchCauseEffect(carryOut(words), {
      onSuccess: () => Effect.succeed(exitCodes.ok),
      onFailure: (cause) => {
        if (Cause.isInterruptedOnly(cause)) return Effect.interrupt
        const failure = Cause.failureOption(cause)
        return Effect.sync(() => {
          if (failure._tag === "Some") {
            note(failure.value.message)
            return exitCodeOf(failure.value)
          }
          note(`This should not happen; please report it.\n${Cause.pretty(cause)}`)
          return exitCodes.failed
        })
      }
    }))
