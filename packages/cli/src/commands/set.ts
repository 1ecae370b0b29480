import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { UsageError } from "../Failure.ts"
import * as Json from "../Json.ts"
import { Output } from "../Output.ts"
import * as Parameters from "./parameters.ts"
import { writeOne } from "./writing.ts"

const jsonArgument = Args.text({ name: "json" }).pipe(
  Args.withDescription("The value as JSON: '\"text\"', 42, '{\"done\":true}'.")
)

/** Marks the place in the text, where it fits a line. */
const pointAt = (text: string, offset: number): string =>
  text.length > 100 || /[\r\n]/.test(text) ? "" : `\n  ${text}\n  ${" ".repeat(offset)}^`

const parse = (text: string, map: string, key: string): Effect.Effect<unknown, UsageError> => {
  const parsed = Json.parse(text)
  if ("value" in parsed) return Effect.succeed(parsed.value)
  const { offset, reason } = parsed.fault
  // A bare word is the usual slip: the shell takes the quotes off.
  const example = /^[\p{L}\p{N}_ .-]+$/u.test(text) ? JSON.stringify(text) : "{\"text\":\"milk\",\"done\":false}"
  return new UsageError({
    message: `topgun set: the value is no JSON, at character ${offset + 1}: ${reason}${pointAt(text, offset)}\n` +
      `Put JSON between single quotes: topgun set ${map} ${key} '${example}'`
  })
}

export const command = Command.make(
  "set",
  { map: Parameters.map, key: Parameters.key, value: jsonArgument, server: Parameters.server },
  ({ key, map, server, value }) =>
    Effect.gen(function*() {
      const { print } = yield* Output
      const parsed = yield* parse(value, map, key)
      const { level } = yield* writeOne(server, map, (grid, options) => grid.set(key, parsed, options))
      print(`Set ${JSON.stringify(key)} in ${JSON.stringify(map)}, acknowledged ${level}`)
    })
).pipe(Command.withDescription("Write a value, and wait until it is on the server's disk."))
