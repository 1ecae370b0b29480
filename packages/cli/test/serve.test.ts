import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { chmodSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { directory, file, server, start, topgun } from "./process.ts"

const manifest = JSON.parse(readFileSync(join(import.meta.dirname, "../package.json"), "utf8")) as { version: string }

describe("topgun", () => {
  it.effect("prints its version, and the help of every command", () =>
    Effect.gen(function*() {
      expect(yield* topgun(["--version"])).toMatchObject({ code: 0, stdout: `${manifest.version}\n` })
      const { code, stdout } = yield* topgun([])
      expect(code).toBe(0)
      for (const name of ["serve", "import", "get", "set", "rm", "ls", "watch", "status"]) {
        expect(stdout).toContain(`topgun ${name}`)
        const help = yield* topgun([name, "--help"])
        expect(help).toMatchObject({ code: 0, stderr: "" })
        expect(help.stdout).toContain(`$ topgun ${name}`)
      }
    }))

  it.effect("refuses an unknown command, an unknown option and a wrong value with 2 and one hint", () =>
    Effect.gen(function*() {
      expect(yield* topgun(["imprt"])).toEqual({
        code: 2,
        signal: null,
        stdout: "",
        stderr: "topgun: there is no command \"imprt\". Did you mean import?\nSee \"topgun --help\".\n"
      })
      expect(yield* topgun(["serve", "--prot", "80"])).toMatchObject({
        code: 2,
        stderr: "topgun serve: there is no option --prot. Did you mean --port?\nSee \"topgun serve --help\".\n"
      })
      expect(yield* topgun(["serve", "--port", "many"])).toMatchObject({
        code: 2,
        stderr: expect.stringMatching(/^topgun serve: .*'many'.*\nSee "topgun serve --help"\.\n$/)
      })
    }))
})

describe("topgun serve", () => {
  it.scoped("says in one line that it is ready, and ends with 0 on SIGTERM with the data kept", () =>
    Effect.gen(function*() {
      const dataDir = yield* directory
      const first = yield* server(["--data-dir", dataDir])
      expect(yield* topgun(["set", "todos", "1", "{\"text\":\"milk\"}", "--url", first.url])).toMatchObject({ code: 0 })
      yield* first.signal("SIGTERM")
      expect(yield* first.ended).toEqual({
        code: 0,
        signal: null,
        stdout: `TopGun is ready on http://127.0.0.1:${first.port} (data in ${dataDir}, 0 maps, 0 records)\n`,
        stderr: ""
      })

      const second = yield* server(["--data-dir", dataDir])
      yield* second.printed(/1 map, 1 record\)/)
      const { stdout } = yield* topgun(["get", "todos", "1", "--json", "--url", second.url])
      expect(stdout).toBe("{\"text\":\"milk\"}\n")
      yield* second.signal("SIGINT")
      expect(yield* second.ended).toMatchObject({ code: 0, stderr: "" })
    }))

  it.scoped("keeps acknowledged data through SIGKILL", () =>
    Effect.gen(function*() {
      const dataDir = yield* directory
      const first = yield* server(["--data-dir", dataDir])
      expect(yield* topgun(["set", "todos", "1", "true", "--url", first.url])).toMatchObject({ code: 0 })
      yield* first.signal("SIGKILL")
      yield* first.ended
      const second = yield* server(["--data-dir", dataDir])
      expect(yield* topgun(["get", "todos", "1", "--url", second.url])).toMatchObject({ code: 0, stdout: "true\n" })
    }))

  it.scoped("names a port that is in use", () =>
    Effect.gen(function*() {
      const { port } = yield* server(["--storage", "memory"])
      const { code, stderr, stdout } = yield* topgun(["serve", "--storage", "memory", "--port", String(port)])
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" })
      expect(stderr).toBe(
        `The server cannot listen: port ${port} on 127.0.0.1 is in use: stop the program that has it, or choose another ` +
          "(--port or TOPGUN_PORT)\n"
      )
    }))

  it.scoped("names a data directory that another server holds, and leaves it alone", () =>
    Effect.gen(function*() {
      const dataDir = yield* directory
      const holder = yield* server(["--data-dir", dataDir])
      const { code, stderr, stdout } = yield* topgun(["serve", "--port", "0", "--data-dir", dataDir])
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" })
      expect(stderr).toMatch(/^Storage is unavailable: another server uses the data directory ".*": stop it, or .*\n$/)
      expect(yield* topgun(["set", "todos", "1", "1", "--url", holder.url])).toMatchObject({ code: 0 })
    }))

  it.scoped("refuses a data directory that is a file", () =>
    Effect.gen(function*() {
      const path = yield* file("")
      const { code, stderr } = yield* topgun(["serve", "--port", "0", "--data-dir", path])
      expect(code).toBe(1)
      expect(stderr).toContain(path)
      expect(stderr).not.toMatch(/^\s+at /m)
    }))

  it.effect("lists every fault of the environment and ends with 78", () =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* topgun(["serve"], {
        env: { TOPGUN_PRT: "80", TOPGUN_STORAGE: "disk", TOPGUN_TOKEN: "the command's own" }
      })
      expect({ code, stdout }).toEqual({ code: 78, stdout: "" })
      expect(stderr.trim().split("\n")).toEqual([
        "TOPGUN_PRT is not known. Did you mean TOPGUN_PORT?",
        "TOPGUN_STORAGE is \"disk\": expected one of sqlite, postgres, memory"
      ])
    }))

  it.scoped("verifies tokens by the key that the environment has, and says what it goes by without showing it", () =>
    Effect.gen(function*() {
      const secret = "kx3fVb9Qe7TzR1mWp0sYd5hLuJcN8aGi"
      const path = yield* file(`${secret}\n`, "secret")
      chmodSync(path, 0o644)
      const running = yield* start(["serve", "--port", "0", "--storage", "memory"], {
        env: {
          TOPGUN_JWT_SECRET_FILE: path,
          TOPGUN_JWT_AUDIENCE: "topgun",
          TOPGUN_POLICY_FILE: yield* file(JSON.stringify({ rules: [] }), "policy.json"),
          TOPGUN_LOG_LEVEL: "info",
          TOPGUN_LOG_FORMAT: "logfmt"
        }
      })
      const [, port] = yield* running.printed(/TopGun is ready on http:\/\/127\.0\.0\.1:(\d+)/)
      const anonymous = yield* topgun(["status", "--url", `ws://127.0.0.1:${port}`])
      expect(anonymous).toMatchObject({ code: 1, stderr: expect.stringContaining("without a token") })
      yield* running.signal("SIGTERM")
      const { code, stderr, stdout } = yield* running.ended
      expect(code).toBe(0)
      const configuration = stdout.split("\n").find((line) => line.includes("Configuration"))
      for (
        const part of [
          "TOPGUN_PORT=0",
          "TOPGUN_STORAGE=memory",
          "TOPGUN_AUTH=token",
          "TOPGUN_JWT_SECRET=<redacted>",
          "TOPGUN_JWT_AUDIENCE=topgun"
        ]
      ) expect(configuration).toContain(part)
      expect(stdout).toMatch(/level=WARN .*TOPGUN_JWT_SECRET_FILE/)
      expect(stdout + stderr).not.toContain(secret)
    }))

  it.effect("doesn't start with a key that can be guessed, and names every other fault with it", () =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* topgun(["serve"], {
        env: { TOPGUN_JWT_SECRET: "changeme", TOPGUN_HOST: "", TOPGUN_CALLS_MAX: "NaN" }
      })
      expect({ code, stdout }).toEqual({ code: 78, stdout: "" })
      expect(stderr.trim().split("\n")).toEqual([
        "TOPGUN_CALLS_MAX is \"NaN\": expected an integer from 1 to 10000",
        "TOPGUN_HOST is \"\": expected a host name or address",
        expect.stringMatching(/^the secret for tokens has 8 bytes/)
      ])
    }))

  it.scoped("names everything that is wrong with a policy's file, and ends with 78", () =>
    Effect.gen(function*() {
      const policy = { rules: [{ maps: ["{}"], roles: ["user"], allow: ["fly"] }], sttaus: ["admin"] }
      const path = yield* file(JSON.stringify(policy), "policy.json")
      const env = { TOPGUN_JWT_SECRET: "kx3fVb9Qe7TzR1mWp0sYd5hLuJcN8aGi", TOPGUN_POLICY_FILE: path }
      const { code, stderr, stdout } = yield* topgun(["serve", "--port", "0", "--storage", "memory"], { env })
      expect({ code, stdout }).toEqual({ code: 78, stdout: "" })
      for (const place of ["rules.0.maps.0", "rules.0.allow.0", "sttaus"]) {
        expect(stderr).toContain(`the policy's ${place}: `)
      }
      const none = yield* topgun(["serve", "--port", "0"], { env: { ...env, TOPGUN_POLICY_FILE: `${path}.none` } })
      expect(none).toMatchObject({ code: 78, stdout: "" })
      expect(none.stderr).toContain(`${path}.none`)
    }))

  it.effect("tells the variables for tokens and the policy in its help", () =>
    Effect.gen(function*() {
      const { stdout } = yield* topgun(["serve", "--help"])
      for (const name of ["TOPGUN_JWT_SECRET", "TOPGUN_JWT_PUBLIC_KEY", "TOPGUN_JWKS_URL", "TOPGUN_POLICY_FILE"]) {
        expect(stdout).toContain(name)
      }
    }))

  it.scoped("lets options win over the environment", () =>
    Effect.gen(function*() {
      const running = yield* start(["serve", "--port", "0", "--storage", "memory"], {
        env: { TOPGUN_STORAGE: "sqlite", TOPGUN_HOST: "localhost" }
      })
      yield* running.printed(/TopGun is ready on http:\/\/localhost:\d+ \(data in memory, gone when it stops,/)
    }))

  it.effect("refuses to open an unguarded grid to the network, with 78", () =>
    Effect.gen(function*() {
      const { code, stderr } = yield* topgun(["serve", "--host", "0.0.0.0", "--port", "0", "--storage", "memory"])
      expect(code).toBe(78)
      expect(stderr).toContain("TOPGUN_AUTH=none")
    }))

  it.scoped("serves a page, and refuses a directory without one", () =>
    Effect.gen(function*() {
      const page = yield* file("<title>Hello</title>", "index.html")
      const { port } = yield* server(["--storage", "memory", "--demo", join(page, "..")])
      const text = yield* Effect.promise(async () => (await fetch(`http://127.0.0.1:${port}/`)).text())
      expect(text).toBe("<title>Hello</title>")
      const none = yield* directory
      expect(yield* topgun(["serve", "--storage", "memory", "--demo", none])).toMatchObject({
        code: 1,
        stderr: `There is no page in "${none}": --demo names a directory with an index.html\n`
      })
    }))
})
