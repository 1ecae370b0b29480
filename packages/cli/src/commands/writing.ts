/** What the writing commands have in common. */
import type { WriteRefusal } from "@topgun/core/GridError"
import type { WriteConcern } from "@topgun/core/WriteConcern"
import * as Effect from "effect/Effect"
import { CommandFailed } from "../Failure.ts"
import type { Client } from "../Remote.ts"

/** The most that the server can promise of a write: PERSISTED, or APPLIED where it keeps its data in memory. */
export const concernOf = (client: Client, note: (line: string) => void): Effect.Effect<WriteConcern, CommandFailed> =>
  client.serverStatus.pipe(
    Effect.mapError(({ message }) => new CommandFailed({ message })),
    Effect.map(({ storage }) => {
      if (storage !== "memory") return "PERSISTED"
      note("Note: this server keeps its data in memory; what is written is gone when it stops")
      return "APPLIED"
    })
  )

export const refusalToFailure = ({ message }: WriteRefusal): CommandFailed => new CommandFailed({ message })
