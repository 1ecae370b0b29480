import { describe, it } from "@effect/vitest"
import { type Client, type ClientOptions, createClient, Grid, type LogEntry, memory } from "@topgun/client/promise"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Schema from "effect/Schema"
import { expect, test, vi } from "vitest"
import { fragile, inWorld } from "./worlds.ts"

/** A client of the Promise form that is closed again. */
const using = async (options: ClientOptions, use: (client: Client) => Promise<void>) => {
  const client = createClient(options)
  await use(client)
  await client.close()
}

/** Opened, and used so that there is something to tell: storage that fails. */
const storageFails = (options: ClientOptions) => {
  const { device, state } = fragile()
  return using({ storage: device, ...options }, async (client) => {
    await client.ready()
    state.broken = true
    await client.map("todos").set("1", "milk").local.catch(() => {})
  })
}

describe("A client's log", () => {
  test("goes to console, or whatever has its methods", async () => {
    const said: Array<readonly [level: string, message: string, facts: unknown]> = []
    class Console {
      readonly #said = said
      debug = (message: string, facts: unknown) => void this.#said.push(["debug", message, facts])
      info(message: string, facts: unknown) {
        this.#said.push(["info", message, facts])
      }
      warn(message: string, facts: unknown) {
        this.#said.push(["warn", message, facts])
      }
      error(message: string, facts: unknown) {
        this.#said.push(["error", message, facts])
      }
    }
    await storageFails({ logger: new Console() })
    expect(said).toContainEqual([
      "error",
      "TopGun: a fault (fault StorageUnavailable, code TG_STORAGE_UNAVAILABLE)",
      { fault: "StorageUnavailable", code: "TG_STORAGE_UNAVAILABLE" }
    ])
    expect(said).toContainEqual([
      "error",
      "TopGun: what is written can't be kept on this device (storage memory)",
      { storage: "memory" }
    ])
    // Compiles.
    await using({ logger: console }, async (client) => client.ready())
  })

  test("goes to a function, line by line", async () => {
    const entries: Array<LogEntry> = []
    await storageFails({ logger: (entry) => void entries.push(entry) })
    expect(entries).toContainEqual({
      level: "error",
      message: "TopGun: what is written can't be kept on this device (storage memory)",
      facts: { storage: "memory" }
    })
  })

  test("is silent unless asked for", async () => {
    const methods = (["debug", "info", "log", "warn", "error"] as const).map((method) =>
      vi.spyOn(console, method).mockImplementation(() => {})
    )
    await storageFails({})
    for (const method of methods) {
      expect(method).not.toHaveBeenCalled()
      method.mockRestore()
    }
  })

  test("that throws keeps nobody from hearing of a fault, and nothing from going on", async () => {
    const faults: Array<unknown> = []
    const logger = () => {
      throw new Error("the log is full")
    }
    await storageFails({ logger, onError: (fault) => void faults.push(fault) })
    expect(faults).toMatchObject([{ _tag: "StorageUnavailable" }])
  })

  test("tells that a device can't be opened", async () => {
    const entries: Array<LogEntry> = []
    const broken = { ...memory(), open: () => Promise.reject(new Error("no such disk")) }
    const client = createClient({ storage: broken, logger: (entry) => void entries.push(entry) })
    await client.map("todos").ready().catch(() => {})
    await client.close()
    expect(entries).toContainEqual(
      expect.objectContaining({
        level: "error",
        facts: { fault: "StorageUnavailable", code: "TG_STORAGE_UNAVAILABLE" }
      })
    )
  })

  /** Loggers of the Effect form. */
  const keeping = () => {
    const lines: Array<LogEntry> = []
    return { lines, logger: (entry: LogEntry) => void lines.push(entry) }
  }

  it.effect("tells of the connection's states with the reasons of those that failed, at debug", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const network = yield* Network.SimulatedNetwork
      yield* World.startServer()
      const { lines, logger } = keeping()
      const client = yield* World.startClient("alice", { logger })
      yield* clock.runUntil(() => client.status.current.state === "CONNECTED")
      network.reset("alice")
      yield* clock.runUntil(() => client.status.current.state === "BACKOFF")
      expect(lines.every(({ level }) => level === "debug")).toBe(true)
      const states = lines.map(({ facts }) => facts)
      expect(states).toContainEqual(expect.objectContaining({ from: "SYNCING", pending: 0 }))
      expect(states).toContainEqual(expect.objectContaining({ fault: "ConnectionLost", code: "TG_CONNECTION_LOST" }))
    }).pipe(Effect.scoped, inWorld()))

  it.effect("of the Effect form goes to the Logger of its layer, with facts as annotations", () => {
    const said: Array<readonly [string, string, unknown]> = []
    const logger = Logger.make(({ annotations, logLevel, message }) => {
      const [text] = message as ReadonlyArray<string>
      said.push([logLevel.label, String(text), Object.fromEntries(HashMap.toEntries(annotations))])
    })
    return Effect.gen(function*() {
      const { device, state } = fragile()
      const client = yield* World.startClient("alice", { autoConnect: false }, device)
      const todos = yield* client.map("todos")
      state.broken = true
      yield* Effect.ignore(todos.set("1", "milk"))
      expect(said).toContainEqual([
        "ERROR",
        "TopGun: a fault (fault StorageUnavailable, code TG_STORAGE_UNAVAILABLE)",
        { fault: "StorageUnavailable", code: "TG_STORAGE_UNAVAILABLE" }
      ])
    }).pipe(
      Effect.scoped,
      inWorld(),
      Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
      Logger.withMinimumLogLevel(LogLevel.All)
    )
  })

  it.effect("has no value, key or token in any line, whatever goes wrong", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const server = yield* World.startServer()
      const { lines, logger } = keeping()
      const { device, state } = fragile()
      const Todos = Grid.map("todos", Schema.Struct({ text: Schema.Literal("canary-text") }))
      const other = yield* World.startClient("bob")
      const strange = yield* other.map<unknown>("todos")
      yield* strange.set("canary-key", { text: "canary-value" })
      const client = yield* World.startClient("alice", {
        logger,
        grid: [Todos],
        backpressure: { strategy: "drop-oldest", capacity: 1 },
        onError: () => {
          throw new Error("canary-error")
        }
      }, device)
      yield* clock.runUntil(() => client.status.current.state === "CONNECTED")
      const todos = yield* client.map(Todos)
      todos.subscribe(() => {
        throw new Error("canary-listener")
      })
      // oxlint-disable-next-line typescript/no-explicit-any -- what the schema refuses
      yield* Effect.ignore(todos.set("canary-key", { text: "canary-value" } as any))
      yield* todos.set("canary-key-1", { text: "canary-text" })
      const refused = yield* client.map<string>("refused")
      yield* refused.set("canary-key-2", "canary-value", { writeConcern: "REPLICATED" })
      yield* clock.runUntil(() => client.status.current.rejected === 1)
      yield* client.disconnect
      for (const key of ["a", "b", "c"]) yield* Effect.ignore(refused.set(`canary-key-${key}`, "canary-value"))
      state.broken = true
      yield* Effect.ignore(Effect.timeout(refused.set("canary-key-d", "canary-value"), 1))
      yield* client.connect
      yield* client.setAuthToken("canary-token")
      yield* clock.advance(1_000)
      yield* server.stop
      yield* clock.advance(1_000)
      const tags = lines.map(({ facts }) => facts["fault"])
      for (const fault of ["RecordsMisfit", "WriteRejected", "StorageUnavailable", "Error"]) {
        expect(tags).toContain(fault)
      }
      for (const entry of lines) expect(JSON.stringify(entry)).not.toContain("canary")
    }).pipe(Effect.scoped, inWorld()))
})
