import { expect, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { directory, type Server, server, start, topgun } from "./process.ts"

class Running extends Context.Tag("test/Running")<Running, Server>() {}

const running = Layer.scoped(Running, Effect.flatMap(directory, (dataDir) => server(["--data-dir", dataDir])))

/** Runs a command against the server of these tests. */
const run = (...args: ReadonlyArray<string>) =>
  Effect.flatMap(Running, ({ url }) => topgun(args, { env: { TOPGUN_URL: url } }))

layer(running)("the commands for single keys", (it) => {
  it.effect("set, get, list and remove", () =>
    Effect.gen(function*() {
      expect(yield* run("set", "todos", "b", "{\"text\":\"bread\",\"n\":-1}")).toMatchObject({
        code: 0,
        stdout: "Set \"b\" in \"todos\", acknowledged PERSISTED\n",
        stderr: ""
      })
      expect(yield* run("set", "todos", "a", "-5")).toMatchObject({ code: 0 })
      expect(yield* run("set", "todos", "c", "null")).toMatchObject({ code: 0 })
      expect(yield* run("get", "todos", "b")).toMatchObject({
        code: 0,
        stdout: "{\n  \"n\": -1,\n  \"text\": \"bread\"\n}\n"
      })
      expect(yield* run("get", "--json", "todos", "b")).toMatchObject({ stdout: "{\"n\":-1,\"text\":\"bread\"}\n" })
      expect(yield* run("get", "todos", "c")).toMatchObject({ code: 0, stdout: "null\n" })
      expect(yield* run("ls", "todos")).toMatchObject({
        code: 0,
        stdout: "a\t-5\nb\t{\"n\":-1,\"text\":\"bread\"}\nc\tnull\n"
      })
      expect(yield* run("ls", "todos", "--limit", "1", "--json")).toMatchObject({
        code: 0,
        stdout: "{\"key\":\"a\",\"value\":-5}\n",
        stderr: "Not shown: 2 keys\n"
      })
      expect(yield* run("rm", "todos", "b")).toMatchObject({
        code: 0,
        stdout: "Removed \"b\" from \"todos\", acknowledged PERSISTED\n"
      })
      expect(yield* run("get", "todos", "b")).toMatchObject({
        code: 1,
        stdout: "",
        stderr: "There is no key \"b\" in map \"todos\". \"topgun ls todos\" lists its keys.\n"
      })
    }))

  it.effect("list an unknown map as empty", () =>
    Effect.gen(function*() {
      expect(yield* run("ls", "nothing")).toMatchObject({ code: 0, stdout: "", stderr: "Map \"nothing\" is empty\n" })
    }))

  it.effect("show where a value is no JSON, and how to write it, with 2", () =>
    Effect.gen(function*() {
      expect(yield* run("set", "todos", "x", "buy milk")).toEqual({
        code: 2,
        signal: null,
        stdout: "",
        stderr: "topgun set: the value is no JSON, at character 1: expected a value, found \"b\"\n" +
          "  buy milk\n  ^\nPut JSON between single quotes: topgun set todos x '\"buy milk\"'\n"
      })
      expect(yield* run("set", "todos", "x", "{\"a\":1,}")).toMatchObject({
        code: 2,
        stderr: expect.stringContaining("  {\"a\":1,}\n         ^\n")
      })
      expect(yield* run("set", "todos", "x", "{text:", "milk}")).toMatchObject({
        code: 2,
        stderr: expect.stringContaining("\"milk}\" is one argument too many")
      })
    }))

  it.effect("refuse a value that can't be stored, with its path", () =>
    Effect.gen(function*() {
      const { code, stderr } = yield* run("set", "todos", "x", "{\"list\":[1e999]}")
      expect(code).toBe(1)
      expect(stderr).toBe("The value at $.list[0] cannot be stored: Infinity is not a finite number\n")
      expect(yield* run("get", "todos", "x")).toMatchObject({ code: 1 })
    }))

  it.effect("tell how the server is doing", () =>
    Effect.gen(function*() {
      yield* run("set", "counts", "1", "true")
      const { code, stdout } = yield* run("status")
      expect(code).toBe(0)
      expect(stdout).toMatch(/^TopGun 0\.1\.0 at ws:/)
      expect(stdout).toMatch(/\nstorage {3}sqlite\n/)
      expect(stdout).toMatch(/\n {2}counts\s+1 key, root [0-9a-f]{16}\n/)
      const status = JSON.parse((yield* run("status", "--json")).stdout) as object
      expect(status).toMatchObject({ version: "0.1.0", storage: "sqlite", connections: 1 })
    }))

  it.scoped("watch changes until Ctrl-C", () =>
    Effect.gen(function*() {
      const { url } = yield* Running
      yield* run("set", "news", "1", "\"old\"")
      const all = yield* start(["watch", "news", "--json"], { env: { TOPGUN_URL: url } })
      const one = yield* start(["watch", "news", "1", "--url", url])
      yield* all.printed(/Watching "news" \(1 key\)/)
      yield* one.printed(/Watching "1" in "news"/)
      yield* run("set", "news", "2", "{\"a\":1}")
      yield* run("set", "news", "1", "\"new\"")
      yield* run("rm", "news", "1")
      yield* all.printed(/removed/)
      yield* one.printed(/removed/)
      yield* all.signal("SIGINT")
      yield* one.signal("SIGTERM")
      expect(yield* all.ended).toMatchObject({
        code: 0,
        stdout:
          "{\"key\":\"2\",\"value\":{\"a\":1}}\n{\"key\":\"1\",\"value\":\"new\"}\n{\"key\":\"1\",\"removed\":true}\n"
      })
      expect(yield* one.ended).toMatchObject({ code: 0, stdout: "1 = \"old\"\n1 = \"new\"\n1 removed\n" })
    }))

  it.effect("name a server's URL that is none, with 2", () =>
    Effect.gen(function*() {
      expect(yield* topgun(["get", "a", "b", "--url", "ftp://x"])).toMatchObject({
        code: 2,
        stderr: "\"ftp://x\" is no server's URL: one looks like ws://localhost:8080 or wss://grid.example.com " +
          "(--url or TOPGUN_URL)\n"
      })
    }))

  it.scoped("take the server's address as the server prints it", () =>
    Effect.gen(function*() {
      const { port } = yield* Running
      yield* run("set", "address", "1", "1")
      expect(yield* topgun(["get", "address", "1", "--url", `http://127.0.0.1:${port}`])).toMatchObject({ code: 0 })
      expect(yield* topgun(["get", "address", "1", "--url", `127.0.0.1:${port}`])).toMatchObject({ code: 0 })
    }))

  it.scoped("say of a server without a disk that it only keeps the value in memory", () =>
    Effect.gen(function*() {
      const { url } = yield* server(["--storage", "memory"])
      expect(yield* topgun(["set", "todos", "1", "1", "--url", url])).toMatchObject({
        code: 0,
        stdout: "Set \"1\" in \"todos\", acknowledged APPLIED\n",
        stderr: "Note: this server keeps its data in memory; what is written is gone when it stops\n"
      })
    }))
})
