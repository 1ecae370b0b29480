import { describe, expect, it } from "@effect/vitest"
import { AuthRequired } from "@topgun/core/GridError"
import * as Protocol from "@topgun/core/Protocol"
import * as Authentication from "@topgun/server/Authentication"
import * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as TestClock from "effect/TestClock"
import { authAnew, batch, inProcess, type PlainClient, put } from "./PlainClient.ts"

const codes = Protocol.closeCodes

/** Lets microtasks run: frames of connections within the process are on their way until then. */
const settled = Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))

const authWith = (token: string | null): Protocol.ClientMessage => ({ ...authAnew(), token })

/** Tokens say what they are worth: `alice`, or `alice 5000` for one that expires then. */
const verify = (token: string): Effect.Effect<Authentication.Principal, AuthRequired> => {
  const [userId, expiresAt] = token.split(" ") as [string, string | undefined]
  if (userId === "throw") throw new Error("mine")
  if (userId === "die") return Effect.dieMessage("mine")
  if (userId === "hang") return Effect.never
  if (userId === "slow") return Effect.as(Effect.sleep(1_000), { userId: "alice" })
  if (userId === "garbage") return Effect.succeed({ userId: 7, expiresAt: Number.NaN } as never)
  if (userId === "bad") return new AuthRequired({ reason: "the signature is wrong" })
  return Effect.succeed({ userId, ...(expiresAt === undefined ? {} : { expiresAt: Number(expiresAt) }) })
}

const jwtSecret = Redacted.make("kx3fVb9Qe7TzR1mWp0sYd5hLuJcN8aGi")

const layerVerified = TopGunServer.layerInProcess({
  auth: "token",
  authGraceMillis: 2_000,
  policy: PermissionPolicy.everything
}).pipe(
  Layer.provide(Authentication.layerVerifier(verify)),
  Layer.provide(Logger.remove(Logger.defaultLogger))
)

const letIn = Effect.fnUntraced(function*(token: string) {
  const client = yield* inProcess
  yield* client.send(authWith(token))
  const ack = yield* client.take("AuthAck")
  return { ...client, ack }
})

/** That the connection serves. */
const pings = (client: PlainClient) =>
  Effect.zipRight(client.send({ _tag: "Ping", id: 77 }), Effect.map(client.take("Pong"), ({ id }) => id === 77))

describe("Authentication", () => {
  it.effect("says whom the token is of, and until when", () =>
    Effect.gen(function*() {
      expect((yield* letIn("alice")).ack).toMatchObject({ userId: "alice", expiresAt: null })
      expect((yield* letIn("bob 9000")).ack).toMatchObject({ userId: "bob", expiresAt: 9_000 })
    }).pipe(Effect.provide(layerVerified)))

  it.effect("without a verifier lets in who has no token, as nobody, and knows of none to renew", () =>
    Effect.gen(function*() {
      const client = yield* inProcess
      yield* client.send(authWith(null))
      expect(yield* client.take("AuthAck")).toMatchObject({ userId: null, expiresAt: null })
      yield* client.send({ _tag: "AuthRenew", id: 4, token: "x" })
      expect(yield* client.take("Fault")).toMatchObject({ id: 4, cause: "AuthRequired" })
      expect(yield* pings(client)).toBe(true)
    }).pipe(Effect.provide(TopGunServer.layerInProcess().pipe(Layer.provide(Authentication.layerAnonymous)))))

  for (
    const [token, cause, code] of [
      [null, "AuthRequired", codes.authFailed],
      ["bad", "AuthRequired", codes.authFailed],
      ["x".repeat(Protocol.tokenLengthMax + 1), "AuthRequired", codes.authFailed],
      ["alice 0", "AuthExpired", codes.authFailed],
      ["throw", "AuthUnavailable", codes.overloaded],
      ["die", "AuthUnavailable", codes.overloaded],
      ["garbage", "AuthUnavailable", codes.overloaded],
      ["hang", "AuthUnavailable", codes.overloaded]
    ] as const
  ) {
    it.effect(`refuses ${JSON.stringify(token)?.slice(0, 20)} with ${cause}, and says nothing else`, () =>
      Effect.gen(function*() {
        const client = yield* inProcess
        yield* client.send(authWith(token))
        yield* settled
        yield* TestClock.adjust(4_000)
        const fault = yield* client.take("Fault")
        expect(fault).toMatchObject({ id: null, cause })
        expect(fault.reason).not.toContain("mine")
        expect((yield* client.closed).code).toBe(code)
        expect(client.untaken("AuthAck")).toBe(0)
        const { status } = yield* TopGunServer.TopGunServer
        expect((yield* status).connections).toBe(0)
      }).pipe(Effect.provide(layerVerified)))
  }

  it.effect("is over before anything else is served: what comes meanwhile ends the connection", () =>
    Effect.gen(function*() {
      const client = yield* inProcess
      yield* client.send(authWith("slow"))
      yield* client.send(batch("m", "APPLIED", 0, [["k", put(1)]]))
      expect((yield* client.closed).code).toBe(codes.outOfPlace)
      yield* TestClock.adjust(2_000)
      expect(client.untaken("AuthAck")).toBe(0)
      const { status } = yield* TopGunServer.TopGunServer
      expect((yield* status).maps).toEqual([])
    }).pipe(Effect.provide(layerVerified)))

  it.effect("takes a moment where the verifier does", () =>
    Effect.gen(function*() {
      const client = yield* inProcess
      yield* client.send(authWith("slow"))
      yield* settled
      expect(client.untaken("AuthAck")).toBe(0)
      yield* TestClock.adjust(1_000)
      expect(yield* client.take("AuthAck")).toMatchObject({ userId: "alice" })
    }).pipe(Effect.provide(layerVerified)))

  it.effect("ends with the token: the client is told, and after a grace the connection is closed", () =>
    Effect.gen(function*() {
      const client = yield* letIn("alice 5000")
      yield* TestClock.adjust(4_999)
      yield* settled
      expect(client.untaken("AuthExpired")).toBe(0)
      yield* TestClock.adjust(1)
      expect(yield* client.take("AuthExpired")).toMatchObject({ graceMillis: 2_000 })
      expect(yield* pings(client)).toBe(true)
      yield* TestClock.adjust(1_999)
      yield* settled
      expect(client.untaken("Fault")).toBe(0)
      yield* TestClock.adjust(1)
      expect(yield* client.take("Fault")).toMatchObject({ id: null, cause: "AuthExpired" })
      expect((yield* client.closed).code).toBe(codes.authFailed)
    }).pipe(Effect.provide(layerVerified)))

  it.effect("is renewed in place, before the token expires and in the grace after", () =>
    Effect.gen(function*() {
      const client = yield* letIn("alice 5000")
      yield* TestClock.adjust(4_000)
      yield* client.send({ _tag: "AuthRenew", id: 1, token: "alice 9000" })
      expect(yield* client.take("AuthRenewAck")).toEqual({ _tag: "AuthRenewAck", id: 1, expiresAt: 9_000 })
      expect(yield* pings(client)).toBe(true)
      yield* TestClock.adjust(4_000)
      yield* settled
      expect(client.untaken("AuthExpired")).toBe(0)
      yield* TestClock.adjust(1_000)
      yield* client.take("AuthExpired")
      yield* TestClock.adjust(1_000)
      yield* client.send({ _tag: "AuthRenew", id: 2, token: "alice" })
      expect(yield* client.take("AuthRenewAck")).toMatchObject({ id: 2, expiresAt: null })
      yield* TestClock.adjust(5_000)
      expect(yield* pings(client)).toBe(true)
    }).pipe(Effect.provide(layerVerified)))

  for (
    const [token, cause] of [
      ["bob", "AuthUserChanged"],
      ["bad", "AuthRequired"],
      ["alice 1", "AuthExpired"],
      ["throw", "AuthUnavailable"],
      ["hang", "AuthUnavailable"]
    ] as const
  ) {
    it.effect(`isn't renewed by "${token}": ${cause}, and the connection goes on by the token that it has`, () =>
      Effect.gen(function*() {
        const client = yield* letIn("alice 20000")
        yield* TestClock.adjust(5_000)
        yield* client.send({ _tag: "AuthRenew", id: 3, token })
        yield* settled
        expect(yield* pings(client)).toBe(true)
        yield* TestClock.adjust(4_000)
        expect(yield* client.take("Fault")).toMatchObject({ id: 3, cause })
        expect(yield* pings(client)).toBe(true)
        yield* TestClock.adjust(8_000)
        expect(yield* pings(client)).toBe(true)
        yield* TestClock.adjust(5_000)
        expect((yield* client.closed).code).toBe(codes.authFailed)
      }).pipe(Effect.provide(layerVerified)))
  }

  it.effect("verifies one token of a connection at a time", () =>
    Effect.gen(function*() {
      const client = yield* letIn("alice")
      yield* client.send({ _tag: "AuthRenew", id: 1, token: "slow" }, { _tag: "AuthRenew", id: 2, token: "slow" })
      expect((yield* client.closed).code).toBe(codes.outOfPlace)
    }).pipe(Effect.provide(layerVerified)))

  it.effect("stops the start of a server that is to ask for tokens and has nobody to verify them", () =>
    Effect.gen(function*() {
      const fault = yield* Effect.flip(Effect.scoped(Layer.build(TopGunServer.layerInProcess({ auth: "token" }))))
      expect(fault).toMatchObject({ _tag: "ConfigInvalid" })
      for (const way of ["TOPGUN_JWT_SECRET", "Authentication.layerJwt", "Authentication.layerVerifier"]) {
        expect(fault.message).toContain(way)
      }
      yield* Effect.scoped(Layer.build(layerVerified))
    }))

  it.effect("has one verifier: a key among the settings of a server that is given another is a fault", () =>
    Effect.gen(function*() {
      const both = TopGunServer.layerInProcess({ jwtSecret }).pipe(Layer.provide(Authentication.layerVerifier(verify)))
      expect(yield* Effect.flip(Effect.scoped(Layer.build(both)))).toMatchObject({
        _tag: "ConfigInvalid",
        faults: [expect.stringContaining("keep one of them")]
      })
    }))

  it.effect("shows the log no token that a verifier quotes in its fault", () => {
    const lines: Array<string> = []
    const logger = Logger.replace(
      Logger.defaultLogger,
      Logger.make(({ message }) => lines.push(JSON.stringify(message)))
    )
    return Effect.gen(function*() {
      const verifier = yield* Authentication.Authentication
      yield* Effect.flip(verifier.verify("a.very.secret.token"))
      expect(lines.join()).toContain("can't read <token> at all")
      expect(lines.join()).not.toContain("secret")
    }).pipe(
      Effect.provide(Authentication.layerVerifier((token) => Effect.dieMessage(`can't read ${token} at all`))),
      Effect.provide(logger)
    )
  })

  it.effect("stops the start of a server that asks for tokens and has no policy", () =>
    Effect.gen(function*() {
      const fault = yield* Effect.flip(Effect.scoped(Layer.build(TopGunServer.layerInProcess({ jwtSecret }))))
      for (const way of ["TOPGUN_POLICY_FILE", "PermissionPolicy.layer"]) expect(fault.message).toContain(way)
    }))

  it.effect("lets nobody in without a token once the settings have a key", () =>
    Effect.gen(function*() {
      for (const token of [null, "alice"]) {
        const client = yield* inProcess
        yield* client.send(authWith(token))
        expect(yield* client.take("Fault")).toMatchObject({ cause: "AuthRequired" })
        expect((yield* client.closed).code).toBe(codes.authFailed)
      }
    }).pipe(Effect.provide(TopGunServer.layerInProcess({ jwtSecret, policy: PermissionPolicy.everything }))))

  it.effect("takes an Authorization header for one token or for nothing", () =>
    Effect.gen(function*() {
      expect(yield* Authentication.bearerToken(undefined)).toBeNull()
      for (const header of ["Bearer a.b-c_d~e+f/g==", "bearer a.b-c_d~e+f/g==", "BEARER   a.b-c_d~e+f/g=="]) {
        expect(yield* Authentication.bearerToken(header)).toBe("a.b-c_d~e+f/g==")
      }
      for (
        const header of [
          "",
          "Bearer",
          "Bearer ",
          "Bearera",
          "Bearer Bearer a",
          "Bearer a b",
          "Bearer a ",
          " Bearer a",
          "Bearer\ta",
          "Bearer a\n",
          "Bearer a,Bearer b",
          "Bearer =a",
          "Bearer ä",
          "Basic YTpi",
          "a"
        ]
      ) expect(yield* Effect.flip(Authentication.bearerToken(header))).toMatchObject({ _tag: "AuthRequired" })
    }))
})
