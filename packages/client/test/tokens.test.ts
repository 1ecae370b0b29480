import { describe, it } from "@effect/vitest"
import type * as ClientConfig from "@topgun/client/ClientConfig"
import { AuthRequired } from "@topgun/core/GridError"
import * as Storage from "@topgun/core/Storage"
import * as Authentication from "@topgun/server/Authentication"
import * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { expect } from "vitest"
import { inWorld, isSettled } from "./worlds.ts"

/** A server that lets in whom a token names: `alice`, or `alice 60` for one that expires 60 s after it was made. */
const serving = Effect.fnUntraced(function*() {
  const clock = yield* VirtualClock.VirtualClock
  const shown: Array<string> = []
  const verify = (token: string) => {
    shown.push(token)
    const [userId = "", seconds, madeAt] = token.split(" ")
    if (userId === "nobody") return new AuthRequired({ reason: "nobody is nobody" })
    const expiresAt = seconds === undefined ? undefined : Number(madeAt) + Number(seconds) * 1_000
    return Effect.succeed({ userId, ...(expiresAt === undefined ? {} : { expiresAt }) })
  }
  const server = yield* World.serve(
    TopGunServer.layerInProcess({ auth: "token", authGraceMillis: 5_000, policy: PermissionPolicy.everything }).pipe(
      Layer.provide(Authentication.layerVerifier(verify))
    )
  )
  const tokenOf = (userId: string, seconds: number) => `${userId} ${seconds} ${clock.unsafeCurrentTimeMillis()}`
  return { clock, server, shown, tokenOf, network: yield* Network.SimulatedNetwork }
})

const startAlice = Effect.fnUntraced(function*(options: ClientConfig.Options, device = Storage.memory()) {
  const faults: Array<unknown> = []
  const client = yield* World.startClient("alice", { onError: (fault) => void faults.push(fault), ...options }, device)
  return { client, faults, map: yield* client.map<number>("m"), status: () => client.status.current }
})

describe("a token", () => {
  it.live("lets a device in", () =>
    Effect.gen(function*() {
      const { clock, shown } = yield* serving()
      const { client, faults, map, status } = yield* startAlice({ auth: "alice" })
      yield* map.set("k", 1)
      yield* clock.runUntil(() => isSettled(client))
      expect(shown).toEqual(["alice"])
      expect(status()).toMatchObject({ needsAuth: false, failure: undefined })
      expect(faults).toEqual([])
    }).pipe(Effect.scoped, inWorld()))

  it.live("that is refused and can't be another by itself ends the tries, until another is given", () =>
    Effect.gen(function*() {
      const { clock, shown } = yield* serving()
      const { client, map, status } = yield* startAlice({ auth: "nobody" })
      yield* map.set("k", 1)
      yield* clock.runUntil(() => status().state === "ERROR")
      expect(status()).toMatchObject({ needsAuth: true, pending: 1 })
      expect(status().failure).toContain("nobody is nobody")
      yield* clock.advance("1 hour")
      expect(shown).toEqual(["nobody"])
      yield* client.setAuthToken("alice")
      yield* clock.runUntil(() => isSettled(client), { within: "1 second" })
      expect(status()).toMatchObject({ needsAuth: false, failure: undefined })
    }).pipe(Effect.scoped, inWorld()))

  it.live("that isn't there is asked for: writes wait, and nothing is lost over a restart", () =>
    Effect.gen(function*() {
      const { clock } = yield* serving()
      const device = Storage.memory()
      const first = yield* startAlice({}, device)
      yield* first.map.set("k", 1)
      yield* clock.runUntil(() => first.status().needsAuth)
      expect(first.status()).toMatchObject({ state: "ERROR", pending: 1 })
      yield* first.client.close
      const { client, map } = yield* startAlice({ auth: "alice" }, device)
      yield* clock.runUntil(() => isSettled(client))
      expect(map.get("k")).toBe(1)
    }).pipe(Effect.scoped, inWorld()))

  it.live("of a provider is asked for at each connection, and again and again while it's refused", () =>
    Effect.gen(function*() {
      const { clock, network, shown } = yield* serving()
      const tokens = ["nobody", "nobody", "alice", "alice"]
      const { client, status } = yield* startAlice({ auth: Effect.sync(() => tokens.shift() ?? "alice") })
      yield* clock.runUntil(() => status().needsAuth)
      expect(status().state).toBe("BACKOFF")
      yield* clock.runUntil(() => isSettled(client))
      expect(status().needsAuth).toBe(false)
      network.reset("alice")
      yield* clock.runUntil(() => status().state === "BACKOFF")
      yield* clock.runUntil(() => isSettled(client))
      expect(shown).toEqual(["nobody", "nobody", "alice", "alice"])
    }).pipe(Effect.scoped, inWorld()))
})

describe("a provider of tokens", () => {
  const bad: ReadonlyArray<readonly [how: string, auth: Effect.Effect<string, unknown>]> = [
    ["fails", Effect.fail("no network at the bank")],
    ["dies", Effect.die(new Error("no network at the bank"))],
    ["interrupts itself", Effect.interrupt],
    ["never answers", Effect.never],
    ["never answers and can't be interrupted", Effect.uninterruptible(Effect.never)],
    ["answers with no text", Effect.succeed(7 as never)],
    ["answers with an empty text", Effect.succeed("")],
    ["answers with more than fits", Effect.succeed("t".repeat(4_097))]
  ]
  for (const [how, broken] of bad) {
    it.live(`that ${how} is told of, asked again, and costs nothing`, () =>
      Effect.gen(function*() {
        const { clock, shown } = yield* serving()
        let isBroken = true
        const { client, map, status } = yield* startAlice({
          auth: Effect.suspend(() => isBroken ? broken : Effect.succeed("alice")),
          authTimeoutMillis: 2_000
        })
        yield* map.set("k", 1)
        yield* clock.advance("20 seconds")
        expect(status()).toMatchObject({ state: expect.stringMatching(/BACKOFF|CONNECTING/), pending: 1 })
        expect(status().failure).toContain("token")
        expect(shown).toEqual([])
        isBroken = false
        yield* clock.runUntil(() => isSettled(client), { within: "1 minute" })
        expect(status()).toMatchObject({ failure: undefined, rejected: 0 })
      }).pipe(Effect.scoped, inWorld()))
  }
})

describe("a token that expires", () => {
  it.live("is renewed in place, before it does, with no gap and no other connection", () =>
    Effect.gen(function*() {
      const { clock, network, shown, tokenOf } = yield* serving()
      const { client, faults, map, status } = yield* startAlice({ auth: Effect.sync(() => tokenOf("alice", 120)) })
      const bob = yield* World.startClient("bob", { auth: "bob" })
      const his = yield* bob.map<number>("m")
      yield* clock.runUntil(() => isSettled(client) && isSettled(bob))
      const states: Array<string> = []
      client.status.subscribe(({ state }) => void states.push(state))
      for (let n = 0; n < 60; n++) {
        yield* map.set(`hers ${n}`, n)
        yield* his.set(`his ${n}`, n)
        yield* clock.advance("10 seconds")
      }
      expect(network.traffic("alice", World.serverAddress).connections).toBe(1)
      expect(shown.filter((token) => token.startsWith("alice")).length).toBeGreaterThan(8)
      expect([map.size, his.size]).toEqual([120, 120])
      expect(states.filter((state) => state !== "CONNECTED")).toEqual([])
      expect(status()).toMatchObject({ needsAuth: false, failure: undefined })
      expect(faults).toEqual([])
    }).pipe(Effect.scoped, inWorld()))

  it.live("and has no successor is asked for, and the connection serves until the grace is over", () =>
    Effect.gen(function*() {
      const { clock, network, tokenOf } = yield* serving()
      const { client, map, status } = yield* startAlice({ auth: tokenOf("alice", 60) })
      yield* clock.runUntil(() => isSettled(client))
      yield* clock.advance("59 seconds")
      expect(status()).toMatchObject({ needsAuth: false, state: "CONNECTED" })
      yield* clock.runUntil(() => status().needsAuth)
      expect(status().state).toBe("CONNECTED")
      yield* map.set("k", 1)
      yield* client.setAuthToken(tokenOf("alice", 60))
      yield* clock.advance("30 seconds")
      expect(status()).toMatchObject({ needsAuth: false, state: "CONNECTED", pending: 0 })
      expect(network.traffic("alice", World.serverAddress).connections).toBe(1)
      yield* clock.runUntil(() => status().state === "ERROR", { within: "1 minute" })
      yield* map.set("k", 2)
      expect(status()).toMatchObject({ needsAuth: true, pending: 1 })
      yield* client.setAuthToken(tokenOf("alice", 60))
      yield* clock.runUntil(() => isSettled(client), { within: "5 seconds" })
    }).pipe(Effect.scoped, inWorld()))

  it.live("while its provider fails is renewed as soon as there is one", () =>
    Effect.gen(function*() {
      const { clock, tokenOf } = yield* serving()
      let isBroken = false
      const { client, faults, status } = yield* startAlice({
        auth: Effect.suspend(() => isBroken ? Effect.fail("down") : Effect.succeed(tokenOf("alice", 120)))
      })
      yield* clock.runUntil(() => isSettled(client))
      isBroken = true
      yield* clock.advance("100 seconds")
      expect(status().state).toBe("CONNECTED")
      expect(status().failure).toContain("down")
      expect(faults).toContainEqual(expect.objectContaining({ _tag: "AuthUnavailable" }))
      isBroken = false
      yield* clock.advance("1 minute")
      expect(status()).toMatchObject({ state: "CONNECTED", needsAuth: false, failure: undefined })
    }).pipe(Effect.scoped, inWorld()))
})

describe("a token of another user", () => {
  it.live("gets nothing of the data that is here: it is told of, and nothing is sent", () =>
    Effect.gen(function*() {
      const { clock, server } = yield* serving()
      const device = Storage.memory()
      const first = yield* startAlice({ auth: "alice" }, device)
      yield* first.map.set("k", 1)
      yield* clock.runUntil(() => isSettled(first.client))
      yield* first.client.disconnect
      yield* first.map.set("secret", 1)
      yield* first.client.close
      const { client, map, status } = yield* startAlice({ auth: "mallory" }, device)
      yield* clock.runUntil(() => status().state === "ERROR")
      expect(status()).toMatchObject({ needsAuth: true, pending: 1 })
      expect(status().failure).toContain("alice")
      yield* clock.advance("1 minute")
      expect((yield* server.status).maps[0]?.size).toBe(1)
      yield* client.setAuthToken("alice")
      yield* clock.runUntil(() => isSettled(client))
      expect(map.size).toBe(2)
      expect((yield* server.status).maps[0]?.size).toBe(2)
    }).pipe(Effect.scoped, inWorld()))

  it.live("isn't taken in the place of the present one either", () =>
    Effect.gen(function*() {
      const { clock } = yield* serving()
      const { client, map, status } = yield* startAlice({ auth: "alice" })
      yield* clock.runUntil(() => isSettled(client))
      yield* client.setAuthToken("mallory")
      yield* clock.advance("1 second")
      expect(status()).toMatchObject({ state: "ERROR", needsAuth: true })
      yield* map.set("k", 1)
      yield* client.setAuthToken("alice")
      yield* clock.runUntil(() => isSettled(client))
      expect(status().needsAuth).toBe(false)
    }).pipe(Effect.scoped, inWorld()))
})
