import { describe, expect, it } from "@effect/vitest"
import { AuthRequired } from "@topgun/core/GridError"
import * as Protocol from "@topgun/core/Protocol"
import { makePair } from "@topgun/core/Transport"
import * as Admission from "@topgun/server/Admission"
import { layerVerifier } from "@topgun/server/Authentication"
import * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"
import { WebSocket } from "ws"
import { authAnew, batch, make, put, settled } from "./PlainClient.ts"

const codes = Protocol.closeCodes

/** A server behind one proxy, whom tokens name the user. */
const server = (settings: Partial<ServerConfig.Settings>) =>
  TopGunServer.layer({ port: 0, storage: "memory", proxies: 1, ...settings }).pipe(
    Layer.provide(
      layerVerifier((token) =>
        token === "bad" ? new AuthRequired({ reason: "a bad token" }) : Effect.succeed({ userId: token })
      )
    ),
    Layer.provide(PermissionPolicy.layer(PermissionPolicy.everything))
  )

/** What an upgrade is answered with, asked for by this client through the proxy. One that is granted stays until the test ends. */
const knock = (address: string) =>
  Effect.gen(function*() {
    const { address: at } = yield* TopGunServer.TopGunServer
    const socket = new WebSocket(`ws://${at!.host}:${at!.port}/ws`, { headers: { "x-forwarded-for": address } })
    yield* Effect.addFinalizer(() => Effect.sync(() => socket.terminate()))
    const answer = yield* Effect.async<{ readonly status: number; readonly retryAfter?: string | undefined }>(
      (resume) => {
        socket.on("unexpected-response", (asked, response) => {
          resume(Effect.succeed({ status: response.statusCode!, retryAfter: response.headers["retry-after"] }))
          asked.destroy()
        })
        socket.on("open", () => resume(Effect.succeed({ status: 101 })))
        socket.on("error", () => {})
      }
    )
    return { ...answer, socket }
  })

const end = (socket: WebSocket) =>
  Effect.gen(function*() {
    const { status } = yield* TopGunServer.TopGunServer
    const before = (yield* status).connections
    socket.terminate()
    while ((yield* status).connections === before) yield* settled
  })

/** A client of this address within the process, that has said who it is. */
const from = (address: string | undefined, token: string) =>
  Effect.gen(function*() {
    const { accept } = yield* TopGunServer.TopGunServer
    const [mine, theirs] = makePair()
    accept(theirs, address)
    const client = make(mine)
    yield* client.send({ ...authAnew(), token })
    return client
  })

/** {@link from}, let in. */
const fromReady = (address: string | undefined, token: string) =>
  Effect.tap(from(address, token), (client) => client.take("AuthAck"))

const alice = "192.0.2.1"
const bob = "192.0.2.2"

describe("connections", () => {
  it.scoped("of one address are counted, over IPv6 by network; another's aren't, and one that ends makes room", () =>
    Effect.gen(function*() {
      const first = yield* knock(alice)
      yield* knock(`spoofed, ${alice}`)
      expect(yield* knock(`203.0.113.7, ${alice}`)).toMatchObject({ status: 429, retryAfter: "5" })
      expect(yield* knock(bob)).toMatchObject({ status: 101 })
      expect(yield* knock("2001:db8::1")).toMatchObject({ status: 101 })
      expect(yield* knock("2001:db8::2")).toMatchObject({ status: 101 })
      expect(yield* knock("2001:db8::3")).toMatchObject({ status: 429 })
      yield* end(first.socket)
      expect(yield* knock(alice)).toMatchObject({ status: 101 })
    }).pipe(Effect.provide(server({ connectionsPerAddressMax: 2 }))))

  it.scoped("all have the address of the peer where no proxy is said to be there", () =>
    Effect.gen(function*() {
      expect(yield* knock(alice)).toMatchObject({ status: 101 })
      expect(yield* knock(bob)).toMatchObject({ status: 429 })
    }).pipe(Effect.provide(server({ connectionsPerAddressMax: 1, proxies: 0 }))))

  it.scoped("that aren't authenticated are counted by address and in all", () =>
    Effect.gen(function*() {
      const first = yield* knock(alice)
      yield* knock(alice)
      expect(yield* knock(alice)).toMatchObject({ status: 429, retryAfter: "5" })
      yield* knock(bob)
      expect(yield* knock("192.0.2.3")).toMatchObject({ status: 503, retryAfter: "5" })
      const answered = Effect.async<void>((resume) => void first.socket.once("message", () => resume(Effect.void)))
      first.socket.send(Protocol.encode({ ...authAnew(), token: "alice" }))
      yield* answered
      expect(yield* knock(alice)).toMatchObject({ status: 101 })
    }).pipe(Effect.provide(server({ unauthenticatedMax: 3, unauthenticatedPerAddressMax: 2 }))))

  it.scoped("of one address come at a rate, and are told when to come again", () =>
    Effect.gen(function*() {
      for (let n = 0; n < 8; n++) yield* end((yield* knock(alice)).socket)
      expect(yield* knock(alice)).toMatchObject({ status: 429, retryAfter: "1" })
      expect(yield* knock(bob)).toMatchObject({ status: 101 })
      yield* TestClock.adjust(500)
      expect(yield* knock(alice)).toMatchObject({ status: 101 })
      expect(yield* knock(alice)).toMatchObject({ status: 429 })
    }).pipe(Effect.provide(server({ connectsPerSecond: 2 }))))

  it.scoped("are refused to an address whose tokens were, until it has waited", () =>
    Effect.gen(function*() {
      for (let n = 0; n < 3; n++) {
        const stranger = yield* from(alice, "bad")
        expect((yield* stranger.closed).code).toBe(codes.authFailed)
      }
      expect(yield* knock(alice)).toMatchObject({ status: 429, retryAfter: "20" })
      expect(yield* knock(bob)).toMatchObject({ status: 101 })
      yield* TestClock.adjust("20 seconds")
      expect(yield* knock(alice)).toMatchObject({ status: 101 })
    }).pipe(Effect.provide(server({ failedAuthsPerMinute: 3 }))))

  it.scoped("of one user are counted wherever they come from; a device that comes again takes its own place", () =>
    Effect.gen(function*() {
      const first = yield* fromReady(undefined, "alice")
      const device = authAnew()
      const { accept } = yield* TopGunServer.TopGunServer
      for (let n = 0; n < 2; n++) {
        const [mine, theirs] = makePair()
        accept(theirs, bob)
        const second = make(mine)
        yield* second.send({ ...device, token: "alice" })
        yield* second.take("AuthAck")
      }
      const third = yield* from(undefined, "alice")
      expect(yield* third.take("Fault")).toMatchObject({ id: null, cause: "Overloaded" })
      expect((yield* third.closed).code).toBe(codes.overloaded)
      yield* fromReady(undefined, "bob")
      first.connection.close(1000, "")
      yield* settled
      yield* fromReady(undefined, "alice")
    }).pipe(Effect.provide(server({ connectionsPerUserMax: 2 }))))
})

describe("operations", () => {
  const entries = (count: number, first: number) =>
    Array.from({ length: count }, (_, n) => [`k${n}`, put(n, 1_000 + first + n)] as const)

  it.scoped("of a user have a rate on whichever connection: who writes more isn't read until then, and loses nothing", () =>
    Effect.gen(function*() {
      const first = yield* fromReady(undefined, "alice")
      const second = yield* fromReady(undefined, "alice")
      const other = yield* fromReady(undefined, "bob")
      yield* first.send(batch("m", "APPLIED", 0, entries(149, 0)))
      yield* first.take("OpAck")
      // One is left: it is lent what the batch has more.
      yield* first.send(batch("m", "APPLIED", 200, entries(101, 200)))
      yield* first.take("OpAck")
      yield* first.send(batch("m", "APPLIED", 400, entries(1, 400)), { _tag: "Ping", id: 1 })
      yield* TestClock.adjust(1_009)
      yield* settled
      expect(first.untaken("OpAck") + first.untaken("Pong")).toBe(0)
      yield* other.send(batch("m", "APPLIED", 0, entries(100, 800)))
      yield* other.take("OpAck")
      yield* TestClock.adjust(1)
      expect((yield* first.take("OpAck")).sequences).toEqual([400])
      yield* first.take("Pong")
      yield* second.send(batch("m", "APPLIED", 0, entries(1, 600)))
      yield* TestClock.adjust(9)
      yield* settled
      expect(second.untaken("OpAck")).toBe(0)
      yield* TestClock.adjust(1)
      yield* second.take("OpAck")
    }).pipe(Effect.provide(server({ operationsPerSecond: 100, operationsBurst: 150 }))))

  it.scoped("aren't had sooner by connecting again", () =>
    Effect.gen(function*() {
      const first = yield* fromReady(undefined, "alice")
      yield* first.send(batch("m", "APPLIED", 0, entries(200, 0)))
      yield* first.take("OpAck")
      first.connection.close(1000, "")
      yield* settled
      const again = yield* fromReady(undefined, "alice")
      yield* again.send(batch("m", "APPLIED", 0, entries(1, 300)))
      yield* settled
      expect(again.untaken("OpAck")).toBe(0)
      yield* TestClock.adjust(1_010)
      yield* again.take("OpAck")
    }).pipe(Effect.provide(server({ operationsPerSecond: 100, operationsBurst: 100 }))))

  it.scoped("of those who are anonymous go by their address", () =>
    Effect.gen(function*() {
      const { accept } = yield* TopGunServer.TopGunServer
      const clients = [alice, alice, bob].map((address) => {
        const [mine, theirs] = makePair()
        accept(theirs, address)
        return make(mine)
      })
      for (const client of clients) {
        yield* client.send(authAnew())
        yield* client.take("AuthAck")
      }
      const [first, second, other] = clients
      yield* first!.send(batch("m", "APPLIED", 0, entries(100, 0)))
      yield* first!.take("OpAck")
      yield* second!.send(batch("m", "APPLIED", 0, entries(1, 200)))
      yield* other!.send(batch("m", "APPLIED", 0, entries(1, 300)))
      yield* other!.take("OpAck")
      yield* settled
      expect(second!.untaken("OpAck")).toBe(0)
      yield* TestClock.adjust(10)
      yield* second!.take("OpAck")
    }).pipe(
      Effect.provide(TopGunServer.layerInProcess({ operationsPerSecond: 100, operationsBurst: 100 }))
    ))
})

describe("what is remembered", () => {
  it.effect("of addresses and users is bounded, and doesn't forget who is there", () =>
    Effect.gen(function*() {
      const admission = yield* Admission.Admission
      const seat = admission.enter("192.0.2.1")
      expect(seat.authenticated("alice")).toBeUndefined()
      seat.spend(100)
      for (let n = 0; n < 2 * Admission.rememberedMax; n++) {
        const passing = admission.enter(`passing${n}`)
        passing.authenticated(`user${n}`)
        passing.leave()
        passing.leave()
      }
      expect(admission.remembered()).toEqual({
        addresses: Admission.rememberedMax + 1,
        users: Admission.rememberedMax + 1
      })
      const again = admission.enter("192.0.2.1")
      again.authenticated("alice")
      expect(again.waitMillis()).toBeGreaterThan(0)
      again.leave()
      seat.leave()
      expect(admission.remembered().users).toBe(Admission.rememberedMax)
    }).pipe(
      Effect.provide(Layer.provide(
        Admission.layer,
        ServerConfig.layer({ operationsPerSecond: 100, operationsBurst: 100 })
      ))
    ))
})
