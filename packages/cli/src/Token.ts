/** The token that a command shows the server, and where it is from. */
import { ConfigInvalid } from "@topgun/core/GridError"
import { tokenLengthMax } from "@topgun/core/Protocol"
import * as SettingFile from "@topgun/server/SettingFile"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { UsageError } from "./Failure.ts"

/** Where a token is from. */
export interface Source {
  /** What a person would look for: an option or a variable. */
  readonly name: string
  /** The token. A file is read each time, as whoever writes it there may renew it. */
  readonly token: Effect.Effect<Redacted.Redacted, ConfigInvalid>
}

const isToken = (text: string): boolean => text.length > 0 && text.length <= tokenLengthMax

const expected = `a token of 1 to ${tokenLengthMax} characters`

/** A variable's value, which may be empty; `undefined` where it isn't set. */
const variable = (name: string): Effect.Effect<string | undefined> =>
  Effect.map(Effect.option(Config.string(name)), Option.getOrUndefined)

const ofText = (name: string, text: string): Effect.Effect<Source, ConfigInvalid> =>
  isToken(text)
    ? Effect.succeed({ name, token: Effect.succeed(Redacted.make(text)) })
    : new ConfigInvalid({ faults: [`${name} can't be used: expected ${expected}`] })

const ofFile = (path: string): Source => ({
  name: `the file ${JSON.stringify(path)} of TOPGUN_TOKEN_FILE`,
  token: Effect.suspend(() =>
    SettingFile.read(path).pipe(
      Either.filterOrLeft(({ text }) => isToken(text), () => `which has no token: expected ${expected}`),
      Either.mapBoth({
        onLeft: (fault) => new ConfigInvalid({ faults: [`TOPGUN_TOKEN_FILE names ${JSON.stringify(path)}, ${fault}`] }),
        onRight: ({ text }) => Redacted.make(text)
      })
    )
  )
})

/** The option's token, else the environment's; `undefined` where there is none. One that can't be used stops the command. */
export const sourceOf = (
  option: Option.Option<Redacted.Redacted>
): Effect.Effect<Source | undefined, ConfigInvalid | UsageError> =>
  Effect.gen(function*() {
    if (Option.isSome(option)) {
      return isToken(Redacted.value(option.value))
        ? { name: "--token", token: Effect.succeed(option.value) }
        : yield* new UsageError({ message: `--token can't be used: expected ${expected}` })
    }
    const text = yield* variable("TOPGUN_TOKEN")
    const path = yield* variable("TOPGUN_TOKEN_FILE")
    if (text !== undefined && path !== undefined) {
      return yield* new ConfigInvalid({ faults: ["TOPGUN_TOKEN and TOPGUN_TOKEN_FILE are both set: keep one of them"] })
    }
    if (text !== undefined) return yield* ofText("TOPGUN_TOKEN", text)
    if (path === undefined) return undefined
    const source = ofFile(path)
    yield* source.token
    return source
  })
