/** `topgun` as a process of its own, from `dist`, as users run it. Every process started here ends with its scope. */
import { Effect, type Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const program = join(import.meta.dirname, "../bin/topgun.js")

export interface Options {
  readonly env?: Record<string, string>
  /** What is piped in. */
  readonly input?: string
}

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface Running {
  /** Waits for text that matches in what the process prints; fails when it ends before. */
  readonly printed: (pattern: RegExp) => Effect.Effect<RegExpExecArray>
  readonly ended: Effect.Effect<Ended>
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
}

/** This machine's environment without what would configure TopGun. */
const cleanEnv = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("TOPGUN_")))

const observe = (child: ChildProcess): Running => {
  let stdout = ""
  let stderr = ""
  let end: Ended | undefined
  const listeners = new Set<() => void>()
  const tell = () => Array.from(listeners).forEach((listener) => listener())
  child.stdout!.setEncoding("utf8").on("data", (text: string) => {
    stdout += text
    tell()
  })
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    stderr += text
    tell()
  })
  child.on("close", (code, signal) => {
    end = { code, signal, stdout, stderr }
    tell()
  })
  const until = <A>(look: () => Effect.Effect<A> | undefined): Effect.Effect<A> =>
    Effect.async<A>((resume) => {
      const listener = () => {
        const found = look()
        if (found === undefined) return
        listeners.delete(listener)
        resume(found)
      }
      listeners.add(listener)
      listener()
      return Effect.sync(() => listeners.delete(listener))
    })
  return {
    printed: (pattern) =>
      until(() => {
        const match = pattern.exec(stdout) ?? pattern.exec(stderr)
        if (match !== null) return Effect.succeed(match)
        return end && Effect.dieMessage(`ended with ${end.code ?? end.signal} before ${pattern}:\n${stdout}\n${stderr}`)
      }),
    ended: until(() => end && Effect.succeed(end)),
    signal: (signal) => Effect.sync(() => void child.kill(signal))
  }
}

/** Starts `topgun`. */
export const start = (args: ReadonlyArray<string>, options: Options = {}): Effect.Effect<Running, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(process.execPath, [program, ...args], { env: { ...cleanEnv, ...options.env } })
      // The process may end without reading what is piped in.
      child.stdin.on("error", () => {})
      child.stdin.end(options.input ?? "")
      return { child, running: observe(child) }
    }),
    ({ child, running }) => Effect.zipRight(Effect.sync(() => child.kill("SIGKILL")), running.ended)
  ).pipe(Effect.map(({ running }) => running))

/** Runs `topgun` to its end. */
export const topgun = (args: ReadonlyArray<string>, options?: Options): Effect.Effect<Ended> =>
  Effect.scoped(Effect.flatMap(start(args, options), ({ ended }) => ended))

/** A directory that goes with its scope. */
export const directory: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "topgun-cli-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** A file of this content, in a directory of its own. */
export const file = (content: string | Uint8Array, name = "records.json"): Effect.Effect<string, never, Scope.Scope> =>
  Effect.map(directory, (parent) => {
    const path = join(parent, name)
    writeFileSync(path, content)
    return path
  })

export interface Server extends Running {
  readonly url: string
  readonly port: number
}

/** A server on a port of the system's choice, ready. */
export const server = (args: ReadonlyArray<string>, options?: Options): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.gen(function*() {
    const running = yield* start(["serve", "--port", "0", ...args], options)
    const [, port] = yield* running.printed(/TopGun is ready on http:\/\/127\.0\.0\.1:(\d+)/)
    return { ...running, url: `ws://127.0.0.1:${port}`, port: Number(port) }
  })
