/** What a command fails with: a message for the person at the terminal, and by its tag the exit code. */
import * as Data from "effect/Data"

/** The command line can't be carried out as it stands. */
export class UsageError extends Data.TaggedError("UsageError")<{ readonly message: string }> {}

/** The command was understood, and did not succeed. */
export class CommandFailed extends Data.TaggedError("CommandFailed")<{ readonly message: string }> {}

/** 0: done; 1: it failed; 2: the command line is wrong; 78: the configuration is (sysexits.h: EX_CONFIG). */
export const exitCodes = { ok: 0, failed: 1, usage: 2, configuration: 78 } as const

/** The exit code for a failure with this tag. */
export const exitCodeOf = (failure: { readonly _tag: string }): number =>
  failure._tag === "UsageError"
    ? exitCodes.usage
    : failure._tag === "ConfigInvalid"
    ? exitCodes.configuration
    : exitCodes.failed
