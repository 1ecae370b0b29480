/** Backup and restore as operators do it: with the command, on servers that run, and with clients that are there. */
import { describe, expect, it } from "@effect/vitest"
import * as Storage from "@topgun/core/Storage"
import * as Transport from "@topgun/core/Transport"
import * as TopGunClient from "@topgun/client/TopGunClient"
import { Effect, Layer, Scope } from "effect"
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { directory, file, type Server, server, start, topgun } from "./process.ts"

/** A client that stays, whichever server is at the port. */
const clientAt = (url: string, device = Storage.memory()) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    yield* Effect.addFinalizer((exit) => Scope.close(scope, exit))
    const context = yield* Layer.buildWithScope(
      TopGunClient.layer().pipe(
        Layer.provide([Storage.layerAdapter(() => device, "device"), Transport.layerWebSocket({ url })])
      ),
      scope
    )
    return yield* TopGunClient.TopGunClient.pipe(Effect.provide(context))
  })

type Client = Effect.Effect.Success<ReturnType<typeof clientAt>>

const until = (condition: () => boolean) =>
  Effect.gen(function*() {
    while (!condition()) yield* Effect.sleep(5)
  })

const isSettled = ({ status: { current } }: Client) => current.state === "CONNECTED" && current.pending === 0

const again = (port: number, dataDir: string) =>
  Effect.gen(function*() {
    const running = yield* start(["serve", "--port", String(port), "--data-dir", dataDir])
    yield* running.printed(/TopGun is ready/)
    return running
  })

const stop = ({ ended, signal }: Pick<Server, "ended" | "signal">) => Effect.zipRight(signal("SIGTERM"), ended)

const rootsAt = (url: string) =>
  Effect.map(
    topgun(["status", "--json", "--url", url]),
    ({ stdout }) =>
      new Map(
        (JSON.parse(stdout) as { maps: Array<{ name: string; root: string }> }).maps.map((map) => [map.name, map.root])
      )
  )

describe("A backup", () => {
  it.live(
    "is made under load, restored elsewhere, and the clients come back with what it lacks",
    () =>
      Effect.gen(function*() {
        const [dataDir, other, out] = [yield* directory, yield* directory, yield* directory]
        const running = yield* server(["--data-dir", dataDir])
        const client = yield* clientAt(running.url)
        const map = yield* client.map<string>("m")
        for (let n = 0; n < 2_000; n++) yield* map.set(`k${n}`, "x".repeat(100))
        yield* map.set("dead", "old")
        yield* until(() => isSettled(client))
        let written = 0
        const load = yield* Effect.fork(Effect.forever(
          Effect.zipRight(Effect.suspend(() => map.set(`late ${written++}`, "y")), Effect.sleep(1))
        ))
        const path = join(out, "grid.jsonl")
        const made = yield* topgun(["backup", "--json", "--out", path, "--url", running.url])
        expect(made).toMatchObject({ code: 0, stderr: "" })
        const text = readFileSync(path, "utf8")
        expect(JSON.parse(made.stdout)).toEqual({ file: path, bytes: Buffer.byteLength(text) })
        expect(readdirSync(out)).toEqual(["grid.jsonl"])
        yield* load.interruptAsFork(load.id())
        yield* map.set("k0", "changed")
        yield* map.remove("dead")
        yield* until(() => isSettled(client))
        const printed = yield* topgun(["backup", "--url", running.url])
        expect(printed.code).toBe(0)
        expect(printed.stdout.split("\n")[0]).toContain("{\"backup\":1,")

        yield* stop(running)
        const restored = yield* topgun(["restore", path, "--data-dir", other])
        expect(restored).toMatchObject({ code: 0, stderr: "" })
        expect(restored.stdout).toMatch(/^2,\d{3} records in 1 map, as of .*, are in /)
        const second = yield* again(running.port, other)
        yield* until(() => isSettled(client) && map.get("k0") === "changed")
        const stranger = yield* clientAt(running.url)
        const sees = yield* stranger.map<string>("m")
        yield* until(() => isSettled(stranger) && sees.digest === map.digest)
        expect((yield* rootsAt(running.url)).get("m")).toBe(map.digest)
        expect([sees.get("k0"), sees.has("dead"), sees.get(`late ${written - 1}`)]).toEqual(["changed", false, "y"])

        // And an older one, in place of what is there, while the clients are.
        yield* stop(second)
        const replaced = yield* topgun(["restore", path, "--data-dir", other, "--replace", "--json"])
        expect(replaced.code).toBe(0)
        const { kept } = JSON.parse(replaced.stdout) as { kept: string }
        expect(existsSync(join(kept, "topgun.db"))).toBe(true)
        yield* again(running.port, other)
        yield* until(() => isSettled(client) && isSettled(stranger))
        const last = yield* clientAt(running.url)
        const finds = yield* last.map<string>("m")
        yield* until(() => isSettled(last) && finds.digest === map.digest)
        expect(finds.has("dead")).toBe(false)
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "that is being restored may be killed at any moment: there is what there was, or all of it",
    () =>
      Effect.gen(function*() {
        const dataDir = yield* directory
        const running = yield* server(["--data-dir", dataDir])
        const records = Array.from({ length: 3_000 }, (_, id) => ({ id, text: "x".repeat(200) }))
        const source = yield* file(JSON.stringify(records))
        yield* topgun(["import", source, "--map", "m", "--key", "id", "--url", running.url])
        const path = join(yield* directory, "b.jsonl")
        expect(yield* topgun(["backup", "--out", path, "--url", running.url])).toMatchObject({ code: 0 })
        const restored = yield* rootsAt(running.url)
        yield* topgun(["set", "m", "new", "1", "--url", running.url])
        const before = yield* rootsAt(running.url)
        yield* stop(running)
        const seen = new Set<unknown>()
        for (const what of ["topgun.restore", "topgun.restore/topgun.db-wal", "replaced"]) {
          const restoring = yield* start(["restore", path, "--data-dir", dataDir, "--replace"])
          const files = () => readdirSync(dataDir, { recursive: true }) as Array<string>
          let isOver = false
          yield* Effect.fork(Effect.tap(restoring.ended, () => Effect.sync(() => isOver = true)))
          yield* until(() => isOver || files().some((name) => name.startsWith(what)))
          yield* restoring.signal("SIGKILL")
          yield* restoring.ended
          const next = yield* server(["--data-dir", dataDir])
          const roots = yield* rootsAt(next.url)
          seen.add(roots.get("m"))
          expect([before.get("m"), restored.get("m")]).toContain(roots.get("m"))
          expect(files().filter((name) => name.startsWith("topgun.restore"))).toEqual([])
          yield* stop(next)
        }
        expect(seen.has(before.get("m"))).toBe(true)
      }).pipe(Effect.scoped),
    60_000
  )

  it.live("is asked for and restored as it's written, or the command says what is wrong", () =>
    Effect.gen(function*() {
      const dataDir = yield* directory
      const nowhere = yield* topgun(["backup", "--url", "ws://127.0.0.1:1"])
      expect(nowhere).toMatchObject({ code: 1, stdout: "" })
      expect(nowhere.stderr).toContain("No server can be reached at http://127.0.0.1:1: ")
      expect(yield* topgun(["backup", "--json"])).toMatchObject({ code: 2, stdout: "" })
      const memory = yield* server(["--storage", "memory"])
      const out = join(yield* directory, "b.jsonl")
      const refused = yield* topgun(["backup", "--out", out, "--url", memory.url])
      expect(refused).toMatchObject({ code: 1, stdout: "" })
      expect(refused.stderr).toContain("No backup was made: the server keeps its data in memory")
      expect(existsSync(out)).toBe(false)
      expect(yield* topgun(["restore", join(dataDir, "none"), "--data-dir", dataDir])).toMatchObject({
        code: 1,
        stdout: ""
      })
      const other = yield* file("hello\n")
      const unusable = yield* topgun(["restore", other, "--data-dir", dataDir])
      expect(unusable).toMatchObject({ code: 1, stdout: "" })
      expect(unusable.stderr).toContain("This backup can't be used: it isn't one")
      const piped = yield* topgun(["restore", "-", "--data-dir", dataDir], { input: "{\"backup\":9}\n" })
      expect(piped.stderr).toContain("it has format 9, and formats up to 1 are known here")
      const env = { TOPGUN_STORAGE: "memory" }
      expect((yield* topgun(["restore", other, "--data-dir", dataDir], { env })).stderr).toContain(
        "storage memory keeps"
      )
      expect(yield* topgun(["restore", other], { env: { TOPGUN_STORAGE: "paper" } })).toMatchObject({ code: 78 })
      expect(readdirSync(dataDir)).toEqual([])
    }).pipe(Effect.scoped), 120_000)

  it.live("is refused to a file that breaks off, which doesn't come to be", () =>
    Effect.gen(function*() {
      const dataDir = yield* directory
      const running = yield* server(["--data-dir", dataDir])
      yield* topgun(["set", "m", "k", "1", "--url", running.url])
      const path = join(yield* directory, "b.jsonl")
      yield* topgun(["backup", "--out", path, "--url", running.url])
      const text = readFileSync(path, "utf8")
      writeFileSync(path, text.slice(0, -80))
      const broken = yield* topgun(["restore", path, "--data-dir", yield* directory])
      expect(broken).toMatchObject({ code: 1, stdout: "" })
      expect(broken.stderr).toContain("This backup can't be used: ")
      const used = yield* topgun(["restore", path, "--data-dir", dataDir, "--replace"])
      expect(used.stderr).toContain("another server uses the data directory")
    }).pipe(Effect.scoped), 120_000)
})
