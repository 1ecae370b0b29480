import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const program = join(import.meta.dirname, "../dist/main.js")

/** This machine's environment without what would configure TopGun. */
const cleanEnv = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("TOPGUN_")))

/** Runs the server to its end, which is asked for once it has printed `until`. */
const run = (env: Record<string, string>, until: string) =>
  Effect.async<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }>((resume) => {
    const child = spawn(process.execPath, [program], { env: { ...cleanEnv, ...env } })
    let stdout = ""
    let stderr = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      const wasThere = stdout.includes(until)
      stdout += text
      // A second signal would end it at once.
      if (!wasThere && stdout.includes(until)) child.kill("SIGTERM")
    })
    child.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text)
    child.on("close", (code) => resume(Effect.succeed({ code, stdout, stderr })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

describe("The server as a program", () => {
  it.effect("ends with 78 and all faults when its environment can't be used", () =>
    Effect.gen(function*() {
      const env = { TOPGUN_PRT: "1", TOPGUN_STORAGE: "", TOPGUN_JWT_SECRET: "changeme" }
      expect(yield* run(env, "ready")).toEqual({
        code: 78,
        stdout: "",
        stderr: [
          "TOPGUN_PRT is not known. Did you mean TOPGUN_PORT?",
          "TOPGUN_STORAGE is \"\": expected one of sqlite, postgres, memory",
          "the secret for tokens has 8 bytes, and 32 are the least. Make one with: openssl rand -base64 32",
          ""
        ].join("\n")
      })
    }))

  it.effect("says first what it goes by, without its secrets, and ends with 0 on SIGTERM", () =>
    Effect.gen(function*() {
      const secret = "kx3fVb9Qe7TzR1mWp0sYd5hLuJcN8aGi"
      const directory = mkdtempSync(join(tmpdir(), "topgun-main-"))
      const policy = join(directory, "policy.json")
      writeFileSync(policy, JSON.stringify({ rules: [] }))
      const env = {
        TOPGUN_PORT: "0",
        TOPGUN_STORAGE: "memory",
        TOPGUN_JWT_SECRET: secret,
        TOPGUN_POLICY_FILE: policy,
        TOPGUN_LOG_FORMAT: "json"
      }
      const { code, stderr, stdout } = yield* run(env, "TopGun is ready")
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
      expect(JSON.parse(stdout.split("\n", 1)[0]!)).toMatchObject({
        logLevel: "INFO",
        annotations: {
          TOPGUN_AUTH: "token",
          TOPGUN_JWT_SECRET: "<redacted>",
          TOPGUN_LOG_FORMAT: "json",
          TOPGUN_PORT: "0",
          TOPGUN_STORAGE: "memory"
        }
      })
      expect(stdout).not.toContain(secret)
      rmSync(directory, { recursive: true })
    }))

  it.effect("is indexed by its grid's file, and ends with 78 where that can't be used", () =>
    Effect.gen(function*() {
      const directory = mkdtempSync(join(tmpdir(), "topgun-main-"))
      const grid = join(directory, "grid.json")
      const env = { TOPGUN_PORT: "0", TOPGUN_STORAGE: "memory", TOPGUN_GRID_FILE: grid, TOPGUN_LOG_FORMAT: "json" }
      writeFileSync(grid, JSON.stringify({ todos: { indexes: ["done"], search: { text: 1 } } }))
      expect(yield* run(env, "TopGun is ready")).toMatchObject({ code: 0, stderr: "" })
      writeFileSync(grid, JSON.stringify({ todos: { index: ["done"] }, notes: 7 }))
      const { code, stderr } = yield* run(env, "TopGun is ready")
      expect(code).toBe(78)
      expect(stderr).toContain("map \"todos\"")
      expect(stderr).toContain("map \"notes\"")
      rmSync(directory, { recursive: true })
    }))
})
