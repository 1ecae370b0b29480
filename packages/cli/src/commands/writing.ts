/** What the writing commands have in common. */
import type * as GridMap from "@topgun/client/GridMap"
import type { WriteOptions } from "@topgun/client/promise"
import type { ConfigInvalid, WriteFailure, WriteRefusal } from "@topgun/core/GridError"
import type { Ack, WriteConcern } from "@topgun/core/WriteConcern"
import * as Effect from "effect/Effect"
import { CommandFailed, type UsageError } from "../Failure.ts"
import { Output } from "../Output.ts"
import type { Client } from "../Remote.ts"
import * as Parameters from "./parameters.ts"

const inMemory = "Note: this server keeps its data in memory; what is written is gone when it stops"

/** The most that the server can promise of a write: PERSISTED, or APPLIED where it keeps its data in memory. */
export const concernOf = (client: Client): Effect.Effect<WriteConcern, CommandFailed, Output> =>
  Effect.gen(function*() {
    const { note } = yield* Output
    const storage = yield* client.serverStatus.pipe(
      Effect.map((status) => status.storage),
      // Whoever may only write learns from the write itself whether the server has a database.
      Effect.catchTag("PermissionDenied", () => Effect.succeed("unknown")),
      Effect.mapError(({ message }) => new CommandFailed({ message }))
    )
    if (storage !== "memory") return "PERSISTED"
    note(inMemory)
    return "APPLIED"
  })

/** Why a write failed. This client doesn't outlive the command, so that what it has not sent is never sent. */
export const reasonOf = (failure: WriteRefusal | WriteFailure): string =>
  failure._tag === "WriteTimeout" || failure._tag === "Indeterminate"
    ? "the server did not acknowledge it in time; whether it was written is not known"
    : failure._tag === "WriteRejected" && failure.cause === "PermissionDenied"
    ? failure.reason
    : failure.message

/** Whether a write was refused for its level alone: one by itself is for nothing else under this cause. */
const lacksDatabase = (failure: WriteRefusal | WriteFailure): boolean =>
  failure._tag === "WriteRejected" && failure.cause === "WriteRejected"

/** How long one write may take, in ms. */
const writeMillisMax = 30_000

/** Makes one write, and waits for the server's acknowledgement. */
export const writeOne = (
  given: Parameters.Server,
  map: string,
  write: (grid: GridMap.GridMap<unknown>, options: WriteOptions) => Effect.Effect<GridMap.Write, WriteRefusal>
): Effect.Effect<Ack, CommandFailed | ConfigInvalid | UsageError, Output> =>
  Effect.flatMap(Output, (output) =>
    Parameters.withClient(given, (client) =>
      Effect.gen(function*() {
        const writeConcern = yield* Effect.provideService(concernOf(client), Output, output)
        const grid = yield* client.map<unknown>(map)
        const writeAt = (concern: WriteConcern) =>
          Effect.flatMap(
            write(grid, { writeConcern: concern, timeoutMs: writeMillisMax }),
            ({ server }) => server
          )
        return yield* writeAt(writeConcern).pipe(
          Effect.catchIf(lacksDatabase, () => {
            output.note(inMemory)
            return writeAt("APPLIED")
          }),
          Effect.mapError((failure) => new CommandFailed({ message: reasonOf(failure) }))
        )
      })))
