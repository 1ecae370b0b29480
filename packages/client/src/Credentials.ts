/** The tokens that this device shows the server: where they come from, and which is the next. */
import { AuthUnavailable } from "@topgun/core/GridError"
import * as Protocol from "@topgun/core/Protocol"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { Signal } from "./Signal.ts"

/** A token, or what answers one each time that one is needed. */
export type Auth = string | Effect.Effect<string, unknown>

const wordsOf = (fault: unknown): string => fault instanceof Error ? fault.message : String(fault)

/** The credentials of one client. */
export const make = (auth: Auth | undefined, timeoutMillis: number) => {
  const provider = auth === undefined || typeof auth === "string" ? undefined : auth
  let held = typeof auth === "string" ? auth : undefined
  const given = new Signal()

  const checked = (token: unknown): Effect.Effect<string, AuthUnavailable> =>
    typeof token === "string" && token.length > 0 && token.length <= Protocol.tokenLengthMax
      ? Effect.succeed(token)
      : new AuthUnavailable({ reason: `a token is a string of 1 to ${Protocol.tokenLengthMax} characters` })

  // Let go of, not waited for, when it's late: it may not be interruptible. And of its own interruption nobody else dies.
  const ask = (from: Effect.Effect<string, unknown>): Effect.Effect<string, AuthUnavailable> =>
    Effect.exit(Effect.disconnect(from)).pipe(
      Effect.timeoutFail({
        duration: timeoutMillis,
        onTimeout: () => new AuthUnavailable({ reason: `the provider gave no token within ${timeoutMillis} ms` })
      }),
      Effect.flatMap((exit) => {
        if (Exit.isSuccess(exit)) return checked(exit.value)
        const cause = Cause.squash(exit.cause)
        return new AuthUnavailable({ reason: `the provider gave no token: ${wordsOf(cause)}`, cause })
      })
    )

  /** One that was given is for once where there is a provider, who knows the later ones. */
  const take = (): string | undefined => {
    const token = held
    if (provider !== undefined) held = undefined
    return token
  }

  return {
    /** Whether more tokens may come without being given. */
    hasProvider: provider !== undefined,
    /** The token for a new connection; null where there is none. */
    next: Effect.suspend((): Effect.Effect<string | null, AuthUnavailable> => {
      const token = take()
      if (token !== undefined) return checked(token)
      return provider === undefined ? Effect.succeed(null) : ask(provider)
    }),
    /** Another one from the provider; never, where there is none. */
    another: provider === undefined ? Effect.never : ask(provider),
    /** How many tokens were given. */
    version: () => given.version,
    /** Waits until more than so many were given, and leaves the last to be taken. */
    whenGiven: (version: number): Effect.Effect<void> => given.after(version),
    /** The token for the next connection, and for the present one in the place of its own. */
    give: (token: string): void => {
      held = token
      given.notify()
    }
  }
}

export type Credentials = ReturnType<typeof make>
