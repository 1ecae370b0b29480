/** The terminal, or whatever stands in its place. Plain calls, so that listeners of a map can print as well. */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { CommandFailed } from "./Failure.ts"

export class Output extends Context.Tag("@topgun/cli/Output")<Output, {
  /** Prints a line of what was asked for. */
  readonly print: (line: string) => void
  /** Writes bytes as they are, to where {@link print} prints, as fast as they are taken there. */
  readonly write: (bytes: Uint8Array) => Effect.Effect<void>
  /** Prints a line about it, apart from what was asked for. */
  readonly note: (line: string) => void
  /** Shows text in the place of what was shown last; on a terminal only. */
  readonly progress: (text: string) => void
  /** The bytes piped into the command. */
  readonly input: Stream.Stream<Uint8Array, CommandFailed>
  /** Whether what is printed may have colours. */
  readonly colours: boolean
}>() {}
