import { describe, expect, it } from "@effect/vitest"
import * as Token from "@topgun/cli/Token"
import { ConfigProvider, Effect, Option, Redacted } from "effect"
import { writeFileSync } from "node:fs"
import { directory, file } from "./process.ts"

const withEnv = (env: Record<string, string>) =>
  Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(env))))
const sourceOf = (env: Record<string, string>, option?: string) =>
  Token.sourceOf(Option.map(Option.fromNullable(option), Redacted.make)).pipe(withEnv(env))

describe("The token's source", () => {
  it.effect("is none where nothing is said", () =>
    Effect.gen(function*() {
      expect(yield* sourceOf({})).toBeUndefined()
    }))

  it.scoped("is a file that is read for each connection, as whoever writes it may renew the token", () =>
    Effect.gen(function*() {
      const path = yield* file("first\n", "token")
      const source = yield* sourceOf({ TOPGUN_TOKEN_FILE: path })
      expect(Redacted.value(yield* source!.token)).toBe("first")
      writeFileSync(path, "second")
      expect(Redacted.value(yield* source!.token)).toBe("second")
    }))

  it.scoped("is refused with the reason when it has none, and the reason never has what was taken for one", () =>
    Effect.gen(function*() {
      const none = yield* directory
      const tooLong = "s3cr3t".repeat(700)
      for (
        const [env, says] of [
          [{ TOPGUN_TOKEN: tooLong }, "TOPGUN_TOKEN can't be used: expected a token of 1 to 4096 characters"],
          [{ TOPGUN_TOKEN_FILE: `${none}/x` }, `TOPGUN_TOKEN_FILE names "${none}/x", which isn't there`],
          [{ TOPGUN_TOKEN_FILE: none }, `TOPGUN_TOKEN_FILE names "${none}", which is no file`],
          [{ TOPGUN_TOKEN_FILE: "" }, "TOPGUN_TOKEN_FILE names \"\", which isn't there"],
          [{ TOPGUN_TOKEN_FILE: yield* file("\n") }, "which is empty"],
          [{ TOPGUN_TOKEN_FILE: yield* file(tooLong) }, "which has no token: expected a token of 1 to 4096 characters"],
          [{ TOPGUN_TOKEN: "s3cr3t", TOPGUN_TOKEN_FILE: none }, "TOPGUN_TOKEN and TOPGUN_TOKEN_FILE are both set"]
        ] as ReadonlyArray<readonly [Record<string, string>, string]>
      ) {
        const fault = yield* Effect.flip(sourceOf(env))
        expect(fault._tag).toBe("ConfigInvalid")
        expect(fault.message).toContain(says)
        expect(fault.message).not.toContain("s3cr3t")
      }
      expect((yield* Effect.flip(sourceOf({}, tooLong)))._tag).toBe("UsageError")
    }))
})
