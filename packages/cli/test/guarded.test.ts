/** What the commands do about a server that asks for tokens and goes by a policy. */
import { expect, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { generateKeyPair, SignJWT } from "jose"
import { chmodSync, writeFileSync } from "node:fs"
import { directory, file, type Server, start, topgun } from "./process.ts"

const secret = "kx3fVb9Qe7TzR1mWp0sYd5hLuJcN8aGi"

/** A user's token, for an hour or until another time, in seconds from now. */
const tokenOf = (userId: string, roles: ReadonlyArray<string> = [], seconds = 3_600) =>
  Effect.promise(() =>
    new SignJWT({ roles: [...roles] }).setProtectedHeader({ alg: "HS256" }).setSubject(userId)
      .setExpirationTime(Math.floor(Date.now() / 1_000) + seconds).sign(new TextEncoder().encode(secret))
  )

const policy = {
  rules: [
    { maps: ["*"], roles: ["admin"], allow: ["read", "put", "remove"] },
    { maps: ["news"], roles: ["user"], allow: ["read"] },
    { maps: ["letters"], roles: ["user"], allow: ["put"] }
  ],
  status: ["admin"]
}

class Guarded extends Context.Tag("test/Guarded")<Guarded, Server & { readonly policyFile: string }>() {}

const guarded = Layer.scoped(
  Guarded,
  Effect.gen(function*() {
    const policyFile = yield* file(JSON.stringify(policy), "policy.json")
    const running = yield* start(["serve", "--port", "0", "--data-dir", yield* directory], {
      env: { TOPGUN_JWT_SECRET: secret, TOPGUN_POLICY_FILE: policyFile, TOPGUN_AUTH_GRACE_MILLIS: "0" }
    })
    const [, port] = yield* running.printed(/TopGun is ready on http:\/\/127\.0\.0\.1:(\d+)/)
    return { ...running, url: `ws://127.0.0.1:${port}`, port: Number(port), policyFile }
  })
)

/** Runs a command with a token in its environment. */
const as = (token: string, ...args: ReadonlyArray<string>) =>
  Effect.flatMap(Guarded, ({ url }) => topgun(args, { env: { TOPGUN_URL: url, TOPGUN_TOKEN: token } }))

const commands = [
  ["get", "news", "1"],
  ["set", "news", "1", "1"],
  ["rm", "news", "1"],
  ["ls", "news"],
  ["watch", "news"],
  ["status"],
  ["import", "-", "--map", "news", "--key", "id"]
] as const

layer(guarded)("a server that asks for tokens", (it) => {
  it.scoped("is shown one from the environment, a file or the command line, the last winning over the others", () =>
    Effect.gen(function*() {
      const { url } = yield* Guarded
      const token = yield* tokenOf("ann", ["admin"])
      const bad = yield* tokenOf("ann", ["admin"], -60)
      expect(yield* as(token, "set", "news", "1", "\"old\"")).toMatchObject({ code: 0, stderr: "" })
      const path = yield* file(`${token}\n`, "token")
      chmodSync(path, 0o600)
      expect(yield* topgun(["get", "news", "1", "--url", url], { env: { TOPGUN_TOKEN_FILE: path } })).toMatchObject({
        code: 0,
        stdout: "\"old\"\n"
      })
      for (const args of [["get", "--token", token, "news", "1"], ["get", "news", "1", `--token=${token}`]]) {
        expect(yield* as(bad, ...args)).toMatchObject({ code: 0, stdout: "\"old\"\n" })
      }
    }))

  it.effect("is told the user by every command: without a token, each ends at once with 1 and says what to do", () =>
    Effect.gen(function*() {
      const { url } = yield* Guarded
      for (const args of commands) {
        const { code, stderr, stdout } = yield* topgun([...args, "--url", url], { input: "{\"id\":1}" })
        expect({ code, stdout }).toEqual({ code: 1, stdout: "" })
        expect(stderr).toContain(
          "The server asks for authentication: this server lets nobody in without a token\n" +
            "Give one in TOPGUN_TOKEN, or in a file that TOPGUN_TOKEN_FILE names.\n"
        )
        expect(stderr).not.toContain("No server can be reached")
      }
    }))

  it.scoped("refuses one that isn't good: the command ends with 1, and says where it is from and never what it is", () =>
    Effect.gen(function*() {
      const { url } = yield* Guarded
      const expired = yield* tokenOf("ann", [], -60)
      const path = yield* file("no.good.token", "token")
      const forged = `${expired.slice(0, -4)}AAAA`
      for (
        const [from, token, why, args, env] of [
          ["TOPGUN_TOKEN", expired, /^The server asks for a new token: .*expired/, [], { TOPGUN_TOKEN: expired }],
          [
            `the file "${path}" of TOPGUN_TOKEN_FILE`,
            "no.good.token",
            /^The server asks for authentication: /,
            [],
            { TOPGUN_TOKEN_FILE: path }
          ],
          ["--token", forged, /^The server asks for authentication: /, ["--token", forged], {}]
        ] as const
      ) {
        const { code, stderr, stdout } = yield* topgun(["ls", "news", "--url", url, ...args], { env })
        expect({ code, stdout }).toEqual({ code: 1, stdout: "" })
        expect(stderr).toMatch(why)
        expect(stderr).toContain(`\nIt was shown that of ${from}: replace it there`)
        expect(stderr).not.toContain(token)
        expect(stderr).not.toContain("No server can be reached")
      }
    }))

  it.scoped("ends a watch when its token has expired", () =>
    Effect.gen(function*() {
      const { url } = yield* Guarded
      const token = yield* tokenOf("ann", [], 3)
      const { code, stderr } = yield* topgun(["watch", "news"], { env: { TOPGUN_URL: url, TOPGUN_TOKEN: token } })
      expect(code).toBe(1)
      expect(stderr).toContain("The server asks for a new token: ")
      expect(stderr).toContain("It was shown that of TOPGUN_TOKEN: replace it there")
    }))

  it.effect("refuses to let a map be read, or to tell its status, in one line and with 1", () =>
    Effect.gen(function*() {
      const token = yield* tokenOf("ann")
      for (const args of [["get", "secrets", "1"], ["ls", "secrets"], ["watch", "secrets"]]) {
        expect(yield* as(token, ...args)).toEqual({
          code: 1,
          signal: null,
          stdout: "",
          stderr: "You may not read map \"secrets\": whoever runs the server can grant it in its policy\n"
        })
      }
      expect(yield* as(token, "status")).toEqual({
        code: 1,
        signal: null,
        stdout: "",
        stderr: "You may not see the server's status: whoever runs the server can grant it in its policy\n"
      })
    }))

  it.effect("refuses a write in one line and with 1, and takes one to a map that can't be read", () =>
    Effect.gen(function*() {
      const { url } = yield* Guarded
      const token = yield* tokenOf("ann")
      expect(yield* as(token, "set", "news", "1", "1")).toEqual({
        code: 1,
        signal: null,
        stdout: "",
        stderr: "You may not write to map \"news\": whoever runs the server can grant it in its policy\n"
      })
      expect(yield* as(token, "rm", "letters", "1")).toMatchObject({
        code: 1,
        stderr: expect.stringMatching(/^You may not remove this in map "letters": [^\n]*\n$/)
      })
      expect(yield* as(token, "set", "letters", "1", "\"Dear\"")).toMatchObject({
        code: 0,
        stdout: "Set \"1\" in \"letters\", acknowledged PERSISTED\n"
      })
      const env = { TOPGUN_URL: url, TOPGUN_TOKEN: token }
      const { code, stderr } = yield* topgun(["import", "-", "--map", "news", "--key", "id"], {
        env,
        input: "[{\"id\":1},{\"id\":2}]"
      })
      expect(code).toBe(1)
      expect(stderr.split("\n").slice(0, 2)).toEqual([
        "2 writes failed:",
        "\"1\": You may not write to map \"news\": whoever runs the server can grant it in its policy"
      ])
    }))

  it.scoped("and can't judge any at present, is told apart from one that can't be reached", () =>
    Effect.gen(function*() {
      const { policyFile } = yield* Guarded
      const keyless = yield* start(["serve", "--port", "0", "--storage", "memory"], {
        // Nobody listens there.
        env: { TOPGUN_JWKS_URL: "http://127.0.0.1:1/keys", TOPGUN_JWT_AUDIENCE: "grid", TOPGUN_POLICY_FILE: policyFile }
      })
      const [, port] = yield* keyless.printed(/TopGun is ready on http:\/\/127\.0\.0\.1:(\d+)/)
      const token = yield* Effect.promise(async () => {
        const { privateKey } = await generateKeyPair("ES256")
        return new SignJWT({ aud: "grid" }).setProtectedHeader({ alg: "ES256", kid: "1" }).setSubject("ann")
          .setExpirationTime("1h").sign(privateKey)
      })
      const env = { TOPGUN_TOKEN: token }
      const { code, stderr } = yield* topgun(["ls", "news", "--url", `127.0.0.1:${port}`], { env })
      expect(code).toBe(1)
      expect(stderr).toMatch(/^Authentication is not possible now: [^\n]*\n$/)
    }))

  it.scoped("without a disk says so of a write, to who may not see its status as well", () =>
    Effect.gen(function*() {
      const { policyFile } = yield* Guarded
      const inMemory = yield* start(["serve", "--port", "0", "--storage", "memory"], {
        env: { TOPGUN_JWT_SECRET: secret, TOPGUN_POLICY_FILE: policyFile }
      })
      const [, port] = yield* inMemory.printed(/TopGun is ready on http:\/\/127\.0\.0\.1:(\d+)/)
      const env = { TOPGUN_TOKEN: yield* tokenOf("ann") }
      expect(yield* topgun(["set", "letters", "1", "1", "--url", `127.0.0.1:${port}`], { env })).toMatchObject({
        code: 0,
        stdout: "Set \"1\" in \"letters\", acknowledged APPLIED\n",
        stderr: "Note: this server keeps its data in memory; what is written is gone when it stops\n"
      })
    }))

  it.scoped("ends a watch of a map that its policy denies from now on", () =>
    Effect.gen(function*() {
      const { policyFile, url } = yield* Guarded
      const watch = yield* start(["watch", "news"], { env: { TOPGUN_URL: url, TOPGUN_TOKEN: yield* tokenOf("ann") } })
      yield* watch.printed(/Watching "news"/)
      writeFileSync(policyFile, JSON.stringify({ ...policy, blocked: ["ann"] }))
      const { code, stderr } = yield* watch.ended
      writeFileSync(policyFile, JSON.stringify(policy))
      expect(code).toBe(1)
      expect(stderr).toMatch(/\nYou may not read map "news": [^\n]*\n$/)
    }))

  it.effect("isn't asked when the command line or the environment is wrong about it: 2 and 78", () =>
    Effect.gen(function*() {
      const { url } = yield* Guarded
      expect(yield* as("", "status", "--url", url)).toMatchObject({
        code: 78,
        stdout: "",
        stderr: "TOPGUN_TOKEN can't be used: expected a token of 1 to 4096 characters\n"
      })
      expect(yield* topgun(["status", "--url", url, "--token", ""])).toMatchObject({
        code: 2,
        stdout: "",
        stderr: "--token can't be used: expected a token of 1 to 4096 characters\n"
      })
    }))
})
