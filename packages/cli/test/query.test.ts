import { expect, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { directory, type Server, server, start, topgun } from "./process.ts"

class Running extends Context.Tag("test/Running")<Running, Server>() {}

const grid = { todos: { indexes: ["n"], search: { fields: { text: 1 }, language: "english" } } }

const running = Layer.scoped(
  Running,
  Effect.gen(function*() {
    const dataDir = yield* directory
    const gridFile = join(dataDir, "grid.json")
    writeFileSync(gridFile, JSON.stringify(grid))
    const found = yield* server(["--data-dir", join(dataDir, "data")], { env: { TOPGUN_GRID_FILE: gridFile } })
    const url = { TOPGUN_URL: found.url }
    for (const n of [1, 2, 3, 4]) {
      const value = JSON.stringify({ n, text: n % 2 === 0 ? `walking ${n}` : `bread ${n}`, done: n > 2 })
      yield* topgun(["set", "todos", `t${n}`, value], { env: url })
    }
    return found
  })
)

/** Runs a command against the server of these tests. */
const run = (...args: ReadonlyArray<string>) =>
  Effect.flatMap(Running, ({ url }) => topgun(args, { env: { TOPGUN_URL: url } }))

layer(running)("topgun query", (it) => {
  it.effect("prints what is found, in order, and where the next page begins", () =>
    Effect.gen(function*() {
      const first = yield* run(
        "query",
        "todos",
        "--order-by",
        "done:desc,n",
        "--limit",
        "3",
        "--select",
        "n"
      )
      expect(first).toMatchObject({ code: 0, stdout: "t3\t{\"n\":3}\nt4\t{\"n\":4}\nt1\t{\"n\":1}\n" })
      const cursor = /^There are more: --cursor (\S+)\n$/.exec(first.stderr)![1]!
      expect(yield* run("query", "todos", "--order-by", "done:desc,n", "--cursor", cursor, "--json"))
        .toEqual({
          code: 0,
          signal: null,
          stdout: "{\"key\":\"t2\",\"value\":{\"done\":false,\"n\":2,\"text\":\"walking 2\"}}\n",
          stderr: ""
        })
      expect(yield* run("query", "todos", "--where", "{\"n\":{\"gt\":9}}")).toMatchObject({
        code: 0,
        stdout: "",
        stderr: "Nothing is found\n"
      })
    }))

  it.effect("counts, and explains how it is answered", () =>
    Effect.gen(function*() {
      expect(yield* run("query", "todos", "--where", "{\"done\":false}", "--count")).toMatchObject({
        code: 0,
        stdout: "2\n"
      })
      expect(yield* run("query", "todos", "--where", "{\"n\":9}", "--explain")).toMatchObject({
        code: 0,
        stdout: "looks at 0 records of 4 records\nby equality in the sorted index of n: 0 records\n"
      })
      expect(JSON.parse((yield* run("query", "todos", "--explain", "--json")).stdout)).toMatchObject({
        plan: "scan",
        candidates: 4
      })
    }))

  it.effect("finds text by words, the best first", () =>
    Effect.gen(function*() {
      const { code, stdout } = yield* run("search", "todos", "walks", "--json")
      expect(code).toBe(0)
      const hits = stdout.trim().split("\n").map((line) =>
        JSON.parse(line) as { readonly key: string; readonly score: number }
      )
      expect(hits.map(({ key }) => key)).toEqual(["t2", "t4"])
      expect(hits[0]!.score).toBeGreaterThan(0)
      const both = yield* run("query", "todos", "--search", "walk", "--where", "{\"done\":true}")
      expect(both.stdout).toMatch(/^t4\t\d\.\d{3}\t\{"done":true,"n":4,"text":"walking 4"\}\n$/)
      expect(yield* run("search", "others", "x")).toMatchObject({
        code: 1,
        stderr: expect.stringContaining("the map isn't searched")
      })
    }))

  it.effect("says what is wrong with a question before it asks, with 2", () =>
    Effect.gen(function*() {
      for (
        const [args, message] of [
          [
            ["--where", "{done:false}"],
            "topgun query: --where is no JSON, at character 2: expected a field name in double quotes"
          ],
          [
            ["--where", "{\"n\":{\"gtt\":1}}"],
            "topgun query: $.where.n.gtt is not valid: \"gtt\" is no operator, did you mean \"gt\"?"
          ],
          [["--limit", "0"], "topgun query: $.limit is not valid"],
          [["--cursor", "abc"], "topgun query: $.cursor is not valid"],
          [["--count", "--watch"], "topgun query: one of --count, --explain and --watch at a time"]
        ] as const
      ) {
        const { code, stderr, stdout } = yield* run("query", "todos", ...args)
        expect({ code, stdout }).toEqual({ code: 2, stdout: "" })
        expect(stderr).toContain(message)
      }
    }))

  it.scoped("goes on with what changes, until a signal", () =>
    Effect.gen(function*() {
      const { url } = yield* Running
      const env = { TOPGUN_URL: url }
      const watching = yield* start(
        ["query", "watched", "--where", "{\"n\":{\"lt\":5}}", "--order-by", "n", "--watch"],
        { env }
      )
      yield* topgun(["set", "watched", "b", "{\"n\":2}"], { env })
      yield* watching.printed(/^enter {2}b\t\{"n":2\}\n$/)
      yield* topgun(["set", "watched", "b", "{\"n\":3}"], { env })
      yield* watching.printed(/^move {3}b\t\{"n":3\}\n$/m)
      yield* topgun(["rm", "watched", "b"], { env })
      yield* watching.printed(/^leave {2}b\n$/m)
      yield* watching.signal("SIGINT")
      expect((yield* watching.ended).code).toBe(0)
    }))
})
