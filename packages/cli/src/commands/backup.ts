import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import { CommandFailed, UsageError } from "../Failure.ts"
import { counted, figure } from "../Figures.ts"
import { Output } from "../Output.ts"
import type * as Token from "../Token.ts"
import * as Parameters from "./parameters.ts"

// --- From the server ---

/** Bytes of an answer that says why there is no backup, at most. */
const reasonLengthMax = 1_000

const causeOf = (fault: unknown): string => {
  const cause = fault instanceof Error && fault.cause !== undefined ? fault.cause : fault
  const source = cause instanceof AggregateError ? cause.errors[0] : cause
  return source instanceof Error ? source.message : String(source)
}

const failed = (message: string) => new CommandFailed({ message })

/** What to do about a token that isn't taken. */
const adviceOf = (source: Token.Source | undefined): string =>
  source === undefined
    ? "Give one in TOPGUN_TOKEN, or in a file that TOPGUN_TOKEN_FILE names."
    : `It was shown that of ${source.name}: replace it there.`

/** The bytes that the server sends; a failure when it doesn't begin to. */
const ask = Effect.fnUntraced(function*(server: Parameters.Server) {
  const { address, source } = yield* Parameters.httpOf(server, "/backup")
  const headers = source === undefined ? {} : { authorization: `Bearer ${Redacted.value(yield* source.token)}` }
  const response = yield* Effect.tryPromise({
    try: (signal) => fetch(address, { headers, redirect: "error", signal }),
    catch: (fault) =>
      failed(
        `No server can be reached at ${address.origin}: ${causeOf(fault)}\n` +
          "Start one with \"topgun serve\", or name another with --url or TOPGUN_URL."
      )
  })
  if (response.status === 200 && response.body !== null) {
    return Stream.fromReadableStream({
      evaluate: () => response.body!,
      onError: (fault) => failed(`The connection to ${address.origin} was lost: ${causeOf(fault)}`)
    })
  }
  const text = yield* Effect.promise(() => response.text().catch(() => ""))
  const reason = text === "" || text.length > reasonLengthMax ? response.statusText : text
  return yield* failed(
    response.status === 404
      ? `${address.href} isn't there: is it a TopGun server, of a version that makes backups?`
      : response.status === 401
      ? `${reason}\n${adviceOf(source)}`
      : reason
  )
})

// --- Whole or not ---

const newline = 0x0a

/** Sees to it that a backup has its end, and is what that says. */
class Check {
  readonly #hash = createHash("sha256")
  /** From the beginning of the last line that has come. */
  #last: Buffer = Buffer.alloc(0)
  bytes = 0

  push(bytes: Uint8Array): void {
    this.bytes += bytes.length
    const text = Buffer.concat([this.#last, bytes])
    const begin = text.subarray(0, -1).lastIndexOf(newline) + 1
    this.#hash.update(text.subarray(0, begin))
    this.#last = text.subarray(begin)
  }

  /** How many lines it has, or why it isn't whole. */
  end(): { readonly lines: number } | { readonly fault: string } {
    let line: unknown
    try {
      line = JSON.parse(this.#last.toString("utf8"))
    } catch {
      line = {}
    }
    const { end, failed: reason, sha256 } = line as Record<string, unknown>
    if (typeof reason === "string") return { fault: reason }
    if (typeof end !== "number") return { fault: "it breaks off before its end" }
    return sha256 === this.#hash.digest("hex") ? { lines: end + 1 } : { fault: "it was changed on its way" }
  }
}

/** Passes a backup on, and fails at its end unless it is whole. */
const checked = <E>(source: Stream.Stream<Uint8Array, E>, check: Check): Stream.Stream<Uint8Array, E | CommandFailed> =>
  Stream.concat(
    Stream.tap(source, (bytes) => Effect.sync(() => check.push(bytes))),
    Stream.drain(Stream.fromEffect(Effect.suspend(() => {
      const ended = check.end()
      return "fault" in ended ? failed(`The backup isn't whole and can't be used: ${ended.fault}`) : Effect.void
    })))
  )

// --- To its place ---

const fileFault = (file: string) => (fault: { readonly message: string }) =>
  failed(`"${file}" can't be written: ${fault.message}`)

/** Writes a file that is there when it's whole, and not before. */
const writeFile = Effect.fnUntraced(function*<E>(file: string, source: Stream.Stream<Uint8Array, E>) {
  const fileSystem = yield* FileSystem.FileSystem
  const part = `${file}.part`
  const write = Effect.gen(function*() {
    // Everything is in it that the grid has: it's its owner's.
    const opened = yield* Effect.mapError(fileSystem.open(part, { flag: "w", mode: 0o600 }), fileFault(part))
    yield* Stream.runForEach(source, (bytes) => Effect.mapError(opened.writeAll(bytes), fileFault(part)))
    yield* Effect.mapError(opened.sync, fileFault(part))
  }).pipe(
    Effect.scoped,
    Effect.zipRight(Effect.mapError(fileSystem.rename(part, file), fileFault(file)))
  )
  yield* Effect.onError(write, () => Effect.ignore(fileSystem.remove(part)))
})

const options = {
  out: Options.text("out").pipe(
    Options.withPseudoName("FILE"),
    Options.withDescription("Where to write it; what is there is replaced. Without it: standard output."),
    Options.optional
  ),
  server: Parameters.server,
  json: Parameters.json
}

export const command = Command.make("backup", options, ({ json, out, server }) =>
  Effect.gen(function*() {
    const { note, print, progress, write } = yield* Output
    if (json && Option.isNone(out)) {
      return yield* new UsageError({ message: "topgun backup: --json tells of the file that --out names. Name one." })
    }
    const check = new Check()
    const source = Stream.tap(checked(yield* ask(server), check), () =>
      Effect.sync(() => progress(`${figure(Math.floor(check.bytes / 1e6))} MB`)))
    if (Option.isNone(out)) {
      return yield* Stream.runForEach(source, write)
    }
    const file = out.value
    yield* Effect.ensuring(
      writeFile(file, source),
      Effect.sync(() =>
        progress("")
      )
    )
    const { bytes } = check
    if (json) return print(JSON.stringify({ file, bytes }))
    note(`${counted(bytes, "byte")} in ${JSON.stringify(file)}`)
  })).pipe(Command.withDescription(
    "Print all that a running server has stored, as it is at one moment, or write it to a file; topgun restore makes a store of it again. " +
      "Where the server asks for tokens, the policy says under \"backup\" who may."
  ))
