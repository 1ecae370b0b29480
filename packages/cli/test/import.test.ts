import { expect, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { directory, file, type Server, server, topgun } from "./process.ts"

class Running extends Context.Tag("test/Running")<Running, Server>() {}

const running = Layer.scoped(Running, Effect.flatMap(directory, (dataDir) => server(["--data-dir", dataDir])))

const lines = (stdout: string): ReadonlyArray<unknown> =>
  stdout.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line) as unknown)

const list = (map: string, url: string) =>
  Effect.map(topgun(["ls", map, "--json", "--url", url]), ({ stdout }) => lines(stdout))

const records = Array.from({ length: 3_000 }, (_, id) => ({ id, name: `Küche ${id}` }))

const good = "{\"id\":\"good\"}"

/** Files with a good record and then a fault, and how the fault is named. */
const broken: ReadonlyArray<readonly [text: string | Uint8Array, fault: string]> = [
  [`${good}\n{"id":2,`, "2:1: record 2: this { is never closed"],
  [`[${good},\n{"id":tru}]`, "2:7: record 2: expected a value, found \"t\""],
  [`[${good},{"id":"x"}`, "1:26: the array is never closed: \"]\" is missing at the end"],
  [`[${good},5]`, "1:16: record 2: it is a number: a record is an object, {…}"],
  [`${good}\n{"name":"x"}`, "2:1: record 2: it has no field \"id\" to be its key; its fields are \"name\""],
  [`${good}\n{"id":2,"v":1e999}`, "2:1: record 2: The value at $.v cannot be stored"],
  [`${good}\n{"id":12345678901234567891}`, "2:7: record 2: 12345678901234567891 would be rounded"],
  ["", "1:1: there are no records in it"],
  [Buffer.from(`${good}\n{"id":"\xfc"}`, "latin1"), " after record 0: the bytes are not UTF-8 text"]
]

layer(running)("topgun import", (it) => {
  it.scoped("writes a JSON array, and says how many records were acknowledged at which level", () =>
    Effect.gen(function*() {
      const { url } = yield* Running
      const path = yield* file(JSON.stringify(records))
      const { code, stderr, stdout } = yield* topgun(["import", path, "--map", "array", "--key", "id", "--url", url])
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
      expect(stdout).toMatch(/^3,000 records in [\d.]+ s \([\d,]+\/s\), acknowledged PERSISTED\n$/)
      const keys = yield* list("array", url)
      expect(keys).toHaveLength(3_000)
      expect(keys).toContainEqual({ key: "7", value: { id: 7, name: "Küche 7" } })
    }))

  it.scoped("writes JSON Lines with a byte order mark and CRLF, from a file and from a pipe", () =>
    Effect.gen(function*() {
      const { url } = yield* Running
      const text = "\uFEFF{\"id\":\"a\",\"v\":1}\r\n\r\n{\"id\":\"b\",\"v\":2}\r\n{\"id\":\"a\",\"v\":3}\r\n"
      const expected = [{ key: "a", value: { id: "a", v: 3 } }, { key: "b", value: { id: "b", v: 2 } }]
      const path = yield* file(text)
      const fromFile = yield* topgun(["import", "--map", "lines", "--key", "id", "--url", url, path])
      expect(fromFile).toMatchObject({
        code: 0,
        stdout: expect.stringMatching(/^2 records in /),
        stderr: "Note: 1 record with the key of an earlier one, as \"a\"; the last record of each key is taken\n"
      })
      const piped = ["import", "-", "--map", "piped", "--key", "id", "--concern", "APPLIED"]
      expect(yield* topgun(piped, { input: text, env: { TOPGUN_URL: url } })).toMatchObject({
        code: 0,
        stdout: expect.stringMatching(/acknowledged APPLIED\n$/)
      })
      expect(yield* list("lines", url)).toEqual(expected)
      expect(yield* list("piped", url)).toEqual(expected)
    }))

  it.scoped("writes nothing at all when anything in the file is wrong, and names the place", () =>
    Effect.gen(function*() {
      const { url } = yield* Running
      yield* Effect.forEach(broken, ([text, fault]) =>
        Effect.gen(function*() {
          const path = yield* file(text)
          const { code, stderr, stdout } = yield* topgun([
            "import",
            path,
            "--map",
            "never",
            "--key",
            "id",
            "--url",
            url
          ])
          expect({ code, stdout }).toEqual({ code: 1, stdout: "" })
          expect(stderr).toContain(`${path}:${fault}`)
          expect(stderr).toMatch(/\nNothing was imported\.\n$/)
        }), { concurrency: 2, discard: true })
      const { maps } = JSON.parse((yield* topgun(["status", "--json", "--url", url])).stdout) as {
        readonly maps: ReadonlyArray<{ readonly name: string }>
      }
      expect(maps.map(({ name }) => name)).not.toContain("never")
    }))

  it.scoped("names a file that can't be read", () =>
    Effect.gen(function*() {
      const { url } = yield* Running
      const parent = yield* directory
      const args = ["--map", "never", "--key", "id", "--url", url]
      expect(yield* topgun(["import", `${parent}/none.json`, ...args])).toMatchObject({
        code: 1,
        stderr: `${parent}/none.json: there is no such file\n`
      })
      expect(yield* topgun(["import", parent, ...args])).toMatchObject({
        code: 1,
        stderr: expect.stringContaining(`${parent}: it can't be read`)
      })
    }))

  it.scoped("asks for what it needs", () =>
    Effect.gen(function*() {
      expect(yield* topgun(["import", "x.json", "--map", "m"])).toMatchObject({
        code: 2,
        stderr: "topgun import: --key is missing.\nSee \"topgun import --help\".\n"
      })
      expect(yield* topgun(["import", "x.json", "--map", "m", "--kee", "id"])).toMatchObject({
        code: 2,
        stderr: "topgun import: there is no option --kee. Did you mean --key?\nSee \"topgun import --help\".\n"
      })
    }))

  it.scoped("says at once that there is no server", () =>
    Effect.gen(function*() {
      const gone = yield* Effect.scoped(server(["--storage", "memory"]))
      const path = yield* file("[{\"id\":1}]")
      const { code, stderr } = yield* topgun(["import", path, "--map", "m", "--key", "id", "--url", gone.url])
      expect(code).toBe(1)
      expect(stderr).toMatch(/^No server can be reached at ws:\/\/127\.0\.0\.1:\d+: .*ECONNREFUSED/)
      expect(stderr).toContain("topgun serve")
      expect(stderr).toMatch(/\nNothing was imported\.\n$/)
    }))

  it.scoped("counts the writes that a server refuses, and tells why", () =>
    Effect.gen(function*() {
      const { url } = yield* server(["--storage", "memory"])
      const path = yield* file("[{\"id\":1},{\"id\":2}]")
      const args = ["import", path, "--map", "m", "--key", "id", "--url", url]
      const { code, stderr } = yield* topgun([...args, "--concern", "PERSISTED"])
      expect(code).toBe(1)
      expect(stderr).toMatch(/^2 writes failed:\n"1": .*PERSISTED needs a database/)
      expect(yield* topgun(args)).toMatchObject({
        code: 0,
        stdout: expect.stringMatching(/^2 records in .*, acknowledged APPLIED\n$/),
        stderr: expect.stringMatching(/^Note: this server keeps its data in memory/)
      })
    }))
})
