import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as FileSystem from "@effect/platform/FileSystem"
import type { GridMap } from "@topgun/client/GridMap"
import type { WriteFailure, WriteRefusal } from "@topgun/core/GridError"
import type { WriteConcern } from "@topgun/core/WriteConcern"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { CommandFailed } from "../Failure.ts"
import { counted, figure } from "../Figures.ts"
import { Output } from "../Output.ts"
import type { RecordFile } from "../RecordFile.ts"
import * as Parameters from "./parameters.ts"
import { concernOf, reasonOf } from "./writing.ts"

/** Writes not acknowledged at a time: more than the client has in flight, so that it never waits for us. */
const windowMax = 2_000
/** How long one write may take, in ms. Longer than a reconnect is tried for. */
const writeMillisMax = 120_000
/** Reasons told of writes that failed. */
const reasonsMax = 3
/** Bytes read at a time. */
const chunkBytes = 256 * 1024

// --- Reading ---

const openFault = (file: string, reason: string): string =>
  reason === "NotFound"
    ? "there is no such file"
    : reason === "PermissionDenied"
    ? "its permissions don't allow to read it"
    : reason === "BadResource"
    ? "it can't be read: is it a directory?"
    : `it can't be read (${reason})`

/** The records of a file, all of them checked. */
const read = Effect.fnUntraced(function*(file: string, field: string) {
  const output = yield* Output
  const { RecordFile } = yield* Effect.promise(() => import("../RecordFile.ts"))
  const name = file === "-" ? "standard input" : file
  const records = new RecordFile(field)
  const bytes = file === "-"
    ? output.input
    : Stream.mapError(
      Stream.unwrap(
        Effect.map(FileSystem.FileSystem, (fileSystem) => fileSystem.stream(file, { chunkSize: chunkBytes }))
      ),
      (fault) =>
        new CommandFailed({
          message: `${name}: ${openFault(file, fault._tag === "SystemError" ? fault.reason : fault.message)}`
        })
    )
  yield* Stream.runForEachWhile(bytes, (chunk) =>
    Effect.sync(() => {
      records.push(chunk)
      output.progress(`Checking ${name}: ${figure(records.count)} records`)
      return !records.isStopped
    }))
  records.end()
  output.progress("")
  if (records.faults.length > 0) {
    return yield* new CommandFailed({
      message: [
        ...records.faults.map((fault) => /^\d/.test(fault) ? `${name}:${fault}` : `${name}: ${fault}`),
        "Nothing was imported."
      ].join("\n")
    })
  }
  return records
})

// --- Writing ---

/** What became of the writes. */
interface Tally {
  acknowledged: number
  failed: number
  readonly reasons: Array<string>
}

const bar = (done: number, all: number): string => {
  const filled = Math.floor(done / Math.max(1, all) * 30)
  return `[${"#".repeat(filled)}${".".repeat(30 - filled)}] ${figure(done)} of ${figure(all)}`
}

/** Writes all records, and waits for the server's word on each. */
const write = (
  grid: GridMap<unknown>,
  records: ReadonlyMap<string, unknown>,
  writeConcern: WriteConcern,
  tally: Tally,
  progress: (text: string) => void
) => {
  const options = { writeConcern, timeoutMs: writeMillisMax }
  const failed = (key: string) => (failure: WriteRefusal | WriteFailure) =>
    Effect.sync(() => {
      tally.failed++
      if (tally.reasons.length < reasonsMax) tally.reasons.push(`${JSON.stringify(key)}: ${reasonOf(failure)}`)
    })
  const acknowledged = Effect.sync(() => {
    if (++tally.acknowledged % 1_000 === 0) progress(bar(tally.acknowledged, records.size))
  })
  return Effect.forEach(
    records,
    ([key, value]) =>
      Effect.matchEffect(Effect.flatMap(grid.set(key, value, options), ({ server }) => server), {
        onFailure: failed(key),
        onSuccess: () => acknowledged
      }),
    { concurrency: windowMax, discard: true }
  )
}

const rateOf = (count: number, millis: number): string => {
  const seconds = millis / 1_000
  return `${seconds.toFixed(1)} s (${figure(Math.round(count / Math.max(seconds, 0.001)))}/s)`
}

const send = Effect.fnUntraced(function*(
  { records }: RecordFile,
  target: { readonly map: string; readonly server: Parameters.Server; readonly concern: Option.Option<WriteConcern> }
) {
  const output = yield* Output
  const { note, print, progress } = output
  const tally: Tally = { acknowledged: 0, failed: 0, reasons: [] }
  const soFar = () =>
    `${figure(tally.acknowledged)} of ${figure(records.size)} records were acknowledged. ` +
    "The import can be run again: it writes the same records."
  const { level, millis } = yield* Parameters.withClient(target.server, (client) =>
    Effect.gen(function*() {
      const asked = yield* Option.match(target.concern, {
        onNone: () => Effect.provideService(concernOf(client), Output, output),
        onSome: Effect.succeed
      })
      const grid = yield* client.map<unknown>(target.map)
      const from = yield* Clock.currentTimeMillis
      yield* write(grid, records, asked, tally, progress)
      return { level: asked, millis: (yield* Clock.currentTimeMillis) - from }
    })).pipe(
      Effect.catchTag(
        "CommandFailed",
        ({ message }) =>
          new CommandFailed({ message: `${message}\n${tally.acknowledged === 0 ? "Nothing was imported." : soFar()}` })
      ),
      Effect.onInterrupt(() => Effect.sync(() => note(`Interrupted. ${soFar()}`))),
      Effect.ensuring(Effect.sync(() => progress("")))
    )
  if (tally.failed > 0) {
    const more = tally.failed > tally.reasons.length ? ["…"] : []
    return yield* new CommandFailed({
      message: [`${counted(tally.failed, "write")} failed:`, ...tally.reasons, ...more, soFar()].join("\n")
    })
  }
  print(`${counted(records.size, "record")} in ${rateOf(records.size, millis)}, acknowledged ${level}`)
})

// --- The command ---

const options = {
  file: Args.text({ name: "file" }).pipe(
    Args.withDescription("A JSON array of objects, or JSON Lines; - reads what is piped in.")
  ),
  map: Options.text("map").pipe(
    Options.withPseudoName("NAME"),
    Options.withDescription("The map to write to.")
  ),
  key: Options.text("key").pipe(
    Options.withPseudoName("FIELD"),
    Options.withDescription("The field that holds a record's key: text, or a number that is turned to text.")
  ),
  concern: Options.choice("concern", ["APPLIED", "REPLICATED", "PERSISTED"]).pipe(
    Options.withDescription(
      "How safe each record must be. Default: PERSISTED, or APPLIED where the server has no disk."
    ),
    Options.optional
  ),
  server: Parameters.server
}

export const command = Command.make("import", options, ({ concern, file, key, map, server }) =>
  Effect.gen(function*() {
    const { note } = yield* Output
    const records = yield* read(file, key)
    if (records.repeatedKey !== undefined) {
      note(
        `Note: ${counted(records.repeated, "record")} with the key of an earlier one, as ` +
          `${JSON.stringify(records.repeatedKey)}; the last record of each key is taken`
      )
    }
    yield* send(records, { map, server, concern })
  })).pipe(Command.withDescription(
    "Write the records of a file to a map. Every record is checked before the first is sent."
  ))
