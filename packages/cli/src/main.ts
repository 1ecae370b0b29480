/** The `topgun` command as a process: its streams, its signals and its exit code. */
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Stream from "effect/Stream"
import { CommandFailed } from "./Failure.ts"
import { Output } from "./Output.ts"
import { endsBySignal, run } from "./Program.ts"

const { stderr, stdin, stdout } = process

// Whoever reads may stop before the end, as `head` does: then there is nothing more to do.
stdout.on("error", (fault: NodeJS.ErrnoException) => process.exit(fault.code === "EPIPE" ? 0 : 1))

let shown = false
const erase = (): void => {
  if (shown) stderr.write("\r\u001b[K")
  shown = false
}
const output = Output.of({
  print: (line) => {
    erase()
    stdout.write(`${line}\n`)
  },
  write: (bytes) =>
    Effect.async<void>((resume) => {
      erase()
      if (stdout.write(bytes)) return resume(Effect.void)
      stdout.once("drain", () => resume(Effect.void))
    }),
  note: (line) => {
    erase()
    stderr.write(`${line}\n`)
  },
  progress: (text) => {
    if (!stderr.isTTY) return
    erase()
    stderr.write(text.slice(0, stderr.columns - 1))
    shown = text !== ""
  },
  input: Stream.suspend(() =>
    Stream.fromAsyncIterable(
      stdin as AsyncIterable<Uint8Array>,
      (fault) => new CommandFailed({ message: `standard input: it can't be read (${String(fault)})` })
    )
  ),
  colours: stdout.isTTY && process.env["NO_COLOR"] === undefined
})

const words = process.argv.slice(2)
/** As shells have it for a program that SIGINT ended. */
const interrupted = 130

NodeRuntime.runMain(
  run(words).pipe(Effect.provideService(Output, output), Effect.provide(NodeContext.layer)),
  {
    disableErrorReporting: true,
    disablePrettyLogger: true,
    teardown: (exit) => {
      const code = Exit.isSuccess(exit) ? Number(exit.value) : endsBySignal(words) ? 0 : interrupted
      stdout.write("", () => stderr.write("", () => process.exit(code)))
    }
  }
)
