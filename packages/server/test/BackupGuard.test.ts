/** Who gets a backup over HTTP, and what becomes of those who don't take it. */
import { describe, expect, it } from "@effect/vitest"
import { AuthExpired, AuthRequired } from "@topgun/core/GridError"
import * as BackupFile from "@topgun/core/BackupFile"
import * as Authentication from "@topgun/server/Authentication"
import * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import { once } from "node:events"
import { existsSync } from "node:fs"
import { type IncomingMessage, request } from "node:http"
import { join } from "node:path"
import { auth, batch, overSocket, put } from "./PlainClient.ts"
import { temporaryDir } from "./stores.ts"

const quiet = Layer.provide(Logger.minimumLogLevel(LogLevel.None))

interface Answer {
  readonly status: number
  readonly body: string
  readonly headers: IncomingMessage["headers"]
}

/** Begins to ask; the answer isn't read. */
const begin = (headers: Record<string, string> = {}, method = "GET") =>
  Effect.flatMap(TopGunServer.TopGunServer, ({ address }) =>
    Effect.promise(async () => {
      const asked = request({ host: "127.0.0.1", port: address!.port, path: "/backup", agent: false, headers, method })
      asked.end()
      const [response] = await once(asked, "response") as [IncomingMessage]
      return response
    }))

const finish = (response: IncomingMessage) =>
  Effect.promise(async (): Promise<Answer> => {
    let body = ""
    for await (const part of response.setEncoding("utf8")) body += String(part)
    return { status: response.statusCode!, body, headers: response.headers }
  })

const ask = (headers: Record<string, string> = {}, method = "GET") => Effect.flatMap(begin(headers, method), finish)

const isWhole = ({ body }: Answer): boolean => {
  const reader = new BackupFile.Reader()
  for (const line of body.trimEnd().split("\n")) reader.take(line)
  reader.end()
  return true
}

const settings = { storage: "sqlite", port: 0, connectsPerSecond: 1_000 } as const

const open = (more: Partial<Parameters<typeof TopGunServer.layer>[0]> = {}) =>
  Layer.unwrapScoped(Effect.map(temporaryDir, (dataDir) => TopGunServer.layer({ ...settings, dataDir, ...more }))).pipe(
    quiet
  )

describe("Without tokens, a backup", () => {
  it.live("is there for this machine, as it calls itself, and for no page of another's", () =>
    Effect.gen(function*() {
      const given = yield* ask()
      expect(given.status).toBe(200)
      expect(isWhole(given)).toBe(true)
      expect(given.headers).toMatchObject({
        "content-type": "application/x-ndjson",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff"
      })
      expect((yield* ask({ "sec-fetch-site": "same-origin" })).status).toBe(200)
      const refused: ReadonlyArray<Record<string, string>> = [
        { host: "evil.example" },
        { host: "evil.example:8080" },
        { host: "127.0.0.1.evil.example" },
        { origin: "http://evil.example" },
        { origin: "null" },
        { "sec-fetch-site": "cross-site" },
        { "sec-fetch-site": "same-site" }
      ]
      for (const headers of refused) {
        const { body, status } = yield* ask(headers)
        expect([status, body], JSON.stringify(headers)).toEqual([403, expect.not.stringContaining("\"backup\"")])
      }
    }).pipe(Effect.provide(open())))

  it.live("isn't there for other machines", () =>
    Effect.gen(function*() {
      const { body, status } = yield* ask()
      expect(status).toBe(403)
      expect(body).toContain("to this machine only")
    }).pipe(Effect.provide(open({ host: "0.0.0.0", auth: "none" }))))

  it.live("of what is in memory is refused, and so is any way to ask but one", () =>
    Effect.gen(function*() {
      const { body, status } = yield* ask()
      expect([status, body]).toEqual([
        409,
        expect.stringContaining("No backup was made: the server keeps its data in memory")
      ])
      expect((yield* ask({}, "HEAD")).status).toBe(405)
      expect((yield* ask({}, "POST")).status).toBe(405)
    }).pipe(Effect.provide(open({ storage: "memory" }))))

  it.live("is given once at a time, whoever asks, and again when it's left", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      yield* Effect.gen(function*() {
        const client = yield* overSocket
        yield* client.send(auth)
        yield* client.take("AuthAck")
        // More than the sockets' buffers take, so that it's being made for as long as it isn't read.
        for (let part = 0; part < 100; part++) {
          const ops = Array.from({ length: 20 }, (_, n) => [`${part} ${n}`, put("x".repeat(10_000))] as const)
          yield* client.send(batch("m", "PERSISTED", part * 100, ops))
          yield* client.take("OpAck")
        }
        const answers = yield* Effect.all(Array.from({ length: 10 }, () => begin()), { concurrency: 10 })
        expect(answers.map(({ statusCode }) => statusCode).sort()).toEqual([
          200,
          ...Array.from({ length: 9 }, () => 409)
        ])
        expect(existsSync(join(dataDir, "topgun.backup"))).toBe(true)
        for (const answer of answers) {
          if (answer.statusCode === 200) answer.destroy()
          else expect((yield* finish(answer)).body).toContain("another one is being made")
        }
        // The server hears of it in its own time.
        let again = yield* ask()
        while (again.status === 409) again = yield* ask()
        expect(again.status).toBe(200)
        expect(isWhole(again)).toBe(true)
        while (existsSync(join(dataDir, "topgun.backup"))) yield* Effect.sleep(1)
        // Nor does a server wait for who doesn't read.
        const unread = yield* begin()
        expect(unread.statusCode).toBe(200)
      }).pipe(Effect.provide(open({ dataDir, shutdownTimeout: "1 second", shutdownNotice: "0 seconds" })))
      expect(existsSync(join(dataDir, "topgun.backup"))).toBe(false)
    }).pipe(Effect.scoped), 20_000)
})

describe("With tokens, a backup", () => {
  const policy: PermissionPolicy.Policy = {
    rules: [{ maps: ["*"], roles: ["user"], allow: ["read", "put", "remove"] }],
    status: ["user"],
    backup: ["admin"],
    blocked: ["mallory"]
  }
  const guarded = (more: Partial<Parameters<typeof TopGunServer.layer>[0]> = {}) =>
    open({ auth: "token", ...more }).pipe(Layer.provide(Layer.merge(
      PermissionPolicy.layer(policy),
      Authentication.layerVerifier((token) => {
        const [userId, role] = token.split(".")
        if (userId === "bad") return new AuthRequired({ reason: "the token is none" })
        if (userId === "late") return new AuthExpired({ reason: "the token has expired" })
        return Effect.succeed({ userId: userId!, roles: role === undefined ? [] : [role] })
      })
    )))

  it.live("is for those whom the policy names, and for nobody else", () =>
    Effect.gen(function*() {
      const statusOf = (authorization?: string, more: Record<string, string> = {}) =>
        Effect.map(ask({ ...more, ...(authorization === undefined ? {} : { authorization }) }), ({ status }) => status)
      expect(yield* statusOf()).toBe(401)
      expect(yield* statusOf("Bearer bad.admin")).toBe(401)
      expect(yield* statusOf("Bearer late.admin")).toBe(401)
      expect(yield* statusOf("Basic ann.admin")).toBe(401)
      expect(yield* statusOf("Bearer bob")).toBe(403)
      expect(yield* statusOf("Bearer bob.user")).toBe(403)
      expect(yield* statusOf("Bearer mallory.admin")).toBe(403)
      expect(yield* statusOf("Bearer ann.admin", { origin: "http://evil.example" })).toBe(403)
      const refused = yield* ask()
      expect(refused.headers["www-authenticate"]).toBe("Bearer")
      const given = yield* ask({ authorization: "Bearer ann.admin", host: "grid.example.com" })
      expect(given.status).toBe(200)
      expect(isWhole(given)).toBe(true)
    }).pipe(Effect.provide(guarded())))

  it.live("isn't to be got by trying tokens", () =>
    Effect.gen(function*() {
      for (let tries = 0; tries < 3; tries++) expect((yield* ask({ authorization: "Bearer bad" })).status).toBe(401)
      const refused = yield* ask({ authorization: "Bearer ann.admin" })
      expect(refused.status).toBe(429)
      expect(Number(refused.headers["retry-after"])).toBeGreaterThan(0)
    }).pipe(Effect.provide(guarded({ failedAuthsPerMinute: 3 }))))
})
