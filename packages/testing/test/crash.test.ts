/** Real server processes, killed for real, on real SQLite. */
import { describe, it } from "@effect/vitest"
import type * as ClientConfig from "@topgun/client/ClientConfig"
import * as TopGunClient from "@topgun/client/TopGunClient"
import * as Storage from "@topgun/core/Storage"
import * as Transport from "@topgun/core/Transport"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import * as path from "node:path"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { expect } from "vitest"

const main = path.resolve(import.meta.dirname, "../../server/dist/main.js")

const freePort = Effect.async<number>((resume) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address() as { readonly port: number }
    server.close(() => resume(Effect.succeed(port)))
  })
})

const tempDir = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(path.join(tmpdir(), "topgun-crash-"))),
  (dir) => Effect.sync(() => rmSync(dir, { recursive: true, force: true }))
)

/** Ends a process and waits until it is gone. */
const end = (child: ChildProcess, signal: NodeJS.Signals) =>
  Effect.promise(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exit = once(child, "exit")
    child.kill(signal)
    await exit
  })

const startProcess = Effect.fnUntraced(function*(dataDir: string, port: number) {
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [main], {
        env: {
          PATH: process.env["PATH"],
          TOPGUN_PORT: String(port),
          TOPGUN_DATA_DIR: dataDir,
          TOPGUN_LOG_LEVEL: "warning"
        },
        stdio: ["ignore", "inherit", "inherit"]
      })
    ),
    (started) => end(started, "SIGKILL")
  )
  yield* Effect.tryPromise(() => fetch(`http://127.0.0.1:${port}/readyz`)).pipe(
    Effect.filterOrFail((response) => response.ok, () => "not ready"),
    Effect.retry({ while: () => child.exitCode === null, schedule: Schedule.spaced("20 millis") })
  )
  return child
})

const openClient = Effect.fnUntraced(function*(port: number, options: ClientConfig.Options = {}) {
  const scope = yield* Scope.make()
  const context = yield* Layer.buildWithScope(
    TopGunClient.layer(options).pipe(
      Layer.provide([Transport.layerWebSocket({ url: `ws://127.0.0.1:${port}` }), Storage.layerMemory])
    ),
    scope
  )
  const close = Scope.close(scope, Exit.void)
  yield* Effect.addFinalizer(() => close)
  return { ...Context.get(context, TopGunClient.TopGunClient), close }
})

describe("a server that is killed", () => {
  it.scopedLive("holds every write that it acknowledged PERSISTED, in 20 kills in the middle of writing", () =>
    Effect.gen(function*() {
      const dataDir = yield* tempDir
      const port = yield* freePort
      const acknowledged = new Map<string, number>()
      let unanswered = 0
      let child = yield* startProcess(dataDir, port)
      for (let round = 0; round < 20; round++) {
        const writer = yield* openClient(port)
        const map = yield* writer.map<number>("m")
        yield* writer.synced
        // The kill comes with the n-th acknowledgement, while others are on their way or in the database's hands.
        const killAt = 1 + (round * 397) % 1_800
        let acks = 0
        yield* Effect.forEach(
          Array.from({ length: 3_000 }, (_, n) => n),
          (n) =>
            Effect.gen(function*() {
              const key = `r${round % 3}-${n}`
              const write = yield* map.set(key, round, { writeConcern: "PERSISTED", timeoutMs: 60_000 })
              const outcome = yield* Effect.either(write.server)
              if (Either.isLeft(outcome)) unanswered++
              else acknowledged.set(key, round)
              if (++acks === killAt) yield* Effect.zipRight(end(child, "SIGKILL"), writer.close)
            }),
          { concurrency: 3_000, discard: true }
        )
        child = yield* startProcess(dataDir, port)
        const reader = yield* openClient(port)
        const seen = yield* reader.map<number>("m")
        yield* reader.synced
        const lost = Array.from(acknowledged).filter(([key, value]) => (seen.get(key) ?? -1) < value)
        expect(lost, `round ${round}`).toEqual([])
        yield* reader.close
      }
      expect(acknowledged.size).toBeGreaterThan(0)
      expect(unanswered).toBeGreaterThan(0)
    }))

  it.scopedLive("gets writes that it acknowledged only APPLIED, and lost, from the clients' logs", () =>
    Effect.gen(function*() {
      const dataDir = yield* tempDir
      const port = yield* freePort
      const writer = yield* openClient(port)
      const map = yield* writer.map<number>("m")
      for (let round = 0; round < 5; round++) {
        const child = yield* startProcess(dataDir, port)
        yield* Effect.forEach(
          Array.from({ length: 300 }, (_, n) => n),
          (n) =>
            Effect.gen(function*() {
              const write = yield* map.set(`k${n}`, round, { timeoutMs: 60_000 })
              yield* write.server
              if (n === round * 50) yield* end(child, "SIGKILL")
            }).pipe(Effect.ignore),
          { concurrency: 300, discard: true }
        ).pipe(Effect.raceFirst(Effect.promise(() => once(child, "exit"))))
      }
      yield* startProcess(dataDir, port)
      yield* writer.synced
      const reader = yield* openClient(port)
      const seen = yield* reader.map<number>("m")
      yield* reader.synced
      expect(seen.digest).toBe(map.digest)
      expect(new Map(seen)).toEqual(new Map(map))
      expect(seen.size).toBe(300)
    }))
})

describe("two clients over real sockets", () => {
  it.scopedLive("converge to equal roots after editing the same keys offline", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      yield* startProcess(yield* tempDir, port)
      const alice = yield* openClient(port)
      const bob = yield* openClient(port)
      const hers = yield* alice.map<string>("m")
      const his = yield* bob.map<string>("m")
      yield* hers.set("shared", "first")
      yield* Effect.all([alice.synced, bob.synced])
      yield* Effect.all([alice.disconnect, bob.disconnect])
      for (let n = 0; n < 50; n++) {
        yield* hers.set(`k${n % 20}`, `alice ${n}`)
        yield* his.set(`k${n % 30}`, `bob ${n}`)
        if (n % 7 === 0) yield* his.remove(`k${n % 20}`)
      }
      yield* Effect.all([alice.connect, bob.connect])
      yield* Effect.all([alice.synced, bob.synced])
      // What one wrote reaches the other as an event, a moment after its own acknowledgement.
      yield* Effect.async<void>((resume) => {
        const look = () => {
          if (hers.digest === his.digest) resume(Effect.void)
        }
        hers.subscribe(look)
        his.subscribe(look)
        look()
      })
      expect(new Map(hers)).toEqual(new Map(his))
      expect((yield* alice.serverStatus).maps).toMatchObject([{ name: "m", root: hers.digest }])
    }))
})
