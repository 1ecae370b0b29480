/** Real server processes over a store, which may be killed, and whose disk may fail. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { build } from "vite"
import { type Mutant, mutantPlugin } from "../../src/mutants.ts"
import { environmentOf, type Faults } from "./Faults.ts"

const root = path.resolve(import.meta.dirname, "../../../..")

/** What a server is started over. */
export interface Store {
  readonly name: string
  /** The server's settings for a directory that is this store's own. */
  readonly environment: (dir: string) => Readonly<Record<string, string>>
  /** Whether the server itself writes the files, so that its disk can be made to fail. */
  readonly isInProcess: boolean
}

export const sqlite: Store = {
  name: "SQLite",
  environment: (dir) => ({ TOPGUN_DATA_DIR: dir }),
  isInProcess: true
}

export const freePort = Effect.async<number>((resume) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address() as { readonly port: number }
    server.close(() => resume(Effect.succeed(port)))
  })
})

export const temporaryDir = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(path.join(tmpdir(), "topgun-crash-"))),
  (dir) => Effect.sync(() => rmSync(dir, { recursive: true, force: true }))
)

const buildBroken = async (broken: string): Promise<string> => {
  const outDir = path.join(root, "node_modules/.cache/topgun", `mutant-${process.pid}`)
  mkdirSync(outDir, { recursive: true })
  await build({
    configFile: false,
    root,
    logLevel: "warn",
    plugins: [mutantPlugin(JSON.parse(broken) as Mutant, root)],
    resolve: { conditions: ["@topgun/source", "module", "node", "development|production"] },
    ssr: { noExternal: /^@topgun\//, resolve: { conditions: ["@topgun/source", "module", "node"] } },
    build: {
      ssr: path.join(root, "packages/server/src/main.ts"),
      outDir,
      emptyOutDir: true,
      target: "node20",
      rollupOptions: { output: { entryFileNames: "main.mjs" } }
    }
  })
  process.on("exit", () => rmSync(outDir, { recursive: true, force: true }))
  return path.join(outDir, "main.mjs")
}

/** What `run-mutants.mjs` has broken, so that servers are built of it. */
const broken = process.env["TOPGUN_MUTANT"]
let main: Promise<string> | undefined

/** The program: what was built, or the mutant that is to be found. */
const programFile = Effect.promise(() =>
  main ??= broken === undefined
    ? Promise.resolve(path.join(root, "packages/server/dist/main.js"))
    : buildBroken(broken)
)

/** A server's process, and what it has said. */
export interface ServerProcess {
  readonly child: ChildProcess
  readonly output: () => string
  /** Its end. */
  readonly exited: Effect.Effect<void>
}

const hasExited = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null

/** Ends a process and waits until it is gone. */
export const end = ({ child, exited }: ServerProcess, signal: NodeJS.Signals) =>
  Effect.zipRight(Effect.sync(() => child.kill(signal)), exited)

/** A process that starts; whether it will be ready is another matter. */
export const launch = Effect.fnUntraced(
  function*(
    store: Store,
    dir: string,
    port: number,
    { faults, settings = {} }: { readonly faults?: Faults; readonly settings?: Readonly<Record<string, string>> } = {}
  ) {
    const file = yield* programFile
    return yield* Effect.acquireRelease(
      Effect.sync((): ServerProcess => {
        mkdirSync(dir, { recursive: true })
        const child = spawn(process.execPath, [file], {
          env: {
            PATH: process.env["PATH"],
            TOPGUN_PORT: String(port),
            TOPGUN_LOG_LEVEL: "warning",
            TOPGUN_LOG_FORMAT: "logfmt",
            ...store.environment(dir),
            ...settings,
            ...faults === undefined ? {} : environmentOf(faults, dir)
          },
          stdio: ["ignore", "pipe", "pipe"]
        })
        let output = ""
        for (const stream of [child.stdout, child.stderr]) {
          stream?.setEncoding("utf8").on("data", (text: string) => {
            output += text
          })
        }
        return {
          child,
          output: () => output,
          exited: Effect.promise(async () => {
            if (!hasExited(child)) await once(child, "exit")
          })
        }
      }),
      (process) => end(process, "SIGKILL")
    )
  }
)

/** Waits until a process serves; fails with what it said when it ends before. */
export const ready = (server: ServerProcess, port: number): Effect.Effect<void, string> =>
  Effect.tryPromise(() => fetch(`http://127.0.0.1:${port}/readyz`)).pipe(
    Effect.filterOrFail((response) => response.ok, () => "not ready"),
    Effect.retry({ while: () => !hasExited(server.child), schedule: Schedule.spaced("10 millis") }),
    Effect.asVoid,
    Effect.mapError(() => server.output())
  )

/** A process that serves. */
export const start = (...args: Parameters<typeof launch>) =>
  Effect.tap(launch(...args), (server) => Effect.orDie(ready(server, args[2])))

/** Waits until a process has said something: what it writes comes when it comes. */
export const said = (server: ServerProcess, what: RegExp): Effect.Effect<void> =>
  Effect.repeat(Effect.sync(server.output), {
    until: (output) => what.test(output),
    schedule: Schedule.spaced("10 millis")
  }).pipe(Effect.asVoid)
