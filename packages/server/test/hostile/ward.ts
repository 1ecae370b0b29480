/**
 * A server with users, one of whom follows a map and must not notice what others send. A token is the name of its user, with the
 * time in ms when it expires after a blank where it does.
 */
import { AuthRequired } from "@topgun/core/GridError"
import type * as Protocol from "@topgun/core/Protocol"
import * as Authentication from "@topgun/server/Authentication"
import * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import { expect } from "vitest"
import { authAnew, batch, openMap, overSocket, put, settled } from "../PlainClient.ts"
import { closeCodeOf, dialWebSocket, frameOf, messageFrame, messagesOf, type RawSocket } from "./raw.ts"

// --- The server ---

const faults: Array<string> = []
const noteFaults = Logger.replace(
  Logger.defaultLogger,
  Logger.make(({ logLevel, message }) => {
    if (LogLevel.greaterThanEqual(logLevel, LogLevel.Error)) faults.push(JSON.stringify(message))
  })
)

const verifier = Authentication.layerVerifier((token) =>
  /^[a-z]+( \d+)?$/.test(token)
    ? Effect.succeed({
      userId: token.split(" ")[0]!,
      ...(token.includes(" ") ? { expiresAt: Number(token.split(" ")[1]) } : {})
    })
    : new AuthRequired({ reason: "it isn't one of ours" })
)

/** Many connections come from one machine in these tests: what keeps strangers from that is tested elsewhere. */
const server = TopGunServer.layer({
  port: 0,
  storage: "memory",
  auth: "token",
  policy: PermissionPolicy.everything,
  connectionsPerUserMax: 1_000,
  connectsPerSecond: 1_000_000,
  failedAuthsPerMinute: 1_000_000
}).pipe(Layer.provide(verifier), Layer.provide(noteFaults))

// --- The one who must not notice ---

const prototypes = [Object, Array, Function, String, Number, Promise, Map, Set, Uint8Array].map((made) =>
  made.prototype as object
)
/** Every property that objects inherit, with what it is: by identity. */
const inherited = (): ReadonlyArray<unknown> =>
  prototypes.flatMap((prototype) =>
    Reflect.ownKeys(prototype).flatMap((name) => {
      const { get, set, value } = Object.getOwnPropertyDescriptor(prototype, name)!
      return [name, get, set, value as unknown]
    })
  )
const pristine = inherited()
const isPristine = (): boolean => {
  const now = inherited()
  return now.length === pristine.length && now.every((each, i) => Object.is(each, pristine[i]))
}

/** What a bystander sees of a server. */
export class Ward extends Context.Tag("test/Ward")<Ward, {
  /** The device of the one who follows, and the secret that it was given: others have no use for either. */
  readonly device: typeof Protocol.Auth.Type
  /** What the server has, but for the bystander's own. */
  readonly state: Effect.Effect<ReadonlyArray<object>>
  /** He is answered and told of what is written, nothing of ours has failed, and nobody else is there any more. */
  readonly isUnharmed: Effect.Effect<void>
}>() {}

const followed = "ward"

const letIn = (token: string) =>
  Effect.gen(function*() {
    const client = yield* overSocket
    const auth = { ...authAnew(), token }
    yield* client.send(auth)
    const { secret } = yield* client.take("AuthAck")
    return { ...client, auth: { ...auth, secret } }
  })

const ward = Layer.scoped(
  Ward,
  Effect.gen(function*() {
    const { status } = yield* TopGunServer.TopGunServer
    const reader = yield* letIn("alice")
    const writer = yield* letIn("carol")
    yield* reader.send(openMap(followed))
    yield* reader.take("SyncRoot")
    const state = Effect.map(status, ({ maps }) => maps.filter(({ name }) => name !== followed))
    let sequence = 0
    return {
      device: reader.auth,
      state,
      isUnharmed: Effect.gen(function*() {
        yield* reader.send({ _tag: "Ping", id: sequence })
        expect((yield* reader.take("Pong")).id).toBe(sequence)
        const row = put(sequence, 1_000 + sequence)
        yield* writer.send(batch(followed, "APPLIED", sequence, [["k", row]]))
        expect((yield* writer.take("OpAck")).sequences).toEqual([sequence])
        expect((yield* reader.take("ServerEvent")).records).toEqual([["k", row]])
        sequence++
        while ((yield* status).connections > 2) yield* settled
        for (const tag of ["Fault", "ServerEvent", "SyncAgain", "Withdraw", "AuthExpired", "GoingAway"] as const) {
          expect(reader.untaken(tag)).toBe(0)
        }
        expect(faults).toEqual([])
        expect(isPristine()).toBe(true)
      })
    }
  })
)

/** The server, and who must not notice. */
export const layer = Layer.provideMerge(ward, server)

// --- The one who is hostile ---

/** A WebSocket of somebody who is let in by this token, by hand. */
export const dialAs = (token: string, auth: typeof Protocol.Auth.Type = authAnew()) =>
  Effect.gen(function*() {
    const raw = yield* dialWebSocket
    raw.send(messageFrame({ ...auth, token }))
    yield* raw.until((heard) => messagesOf(heard).length > 0)
    expect(messagesOf(raw.heard())[0]!._tag).toBe("AuthAck")
    return raw
  })

/** How a server answers: with a close code after a `Fault`, or with messages on a connection that goes on. */
export type Answer =
  | { readonly code: number; readonly cause: string }
  | { readonly said: ReadonlyArray<string> }

/** What a message comes to in a table. */
const wordOf = (message: Protocol.ServerMessage): string =>
  message._tag === "Fault" || message._tag === "OpReject" ? `${message._tag} ${message.cause}` : message._tag

const pingId = 2 ** 40

/**
 * Sends frames, and answers what came of them: after what ends the connection, or after the answer to a `Ping` that comes last
 * and one message that `awaited` names. With `end` nothing comes last: a stranger's token takes its time.
 */
export const answerTo = (
  raw: RawSocket,
  frames: ReadonlyArray<Uint8Array>,
  awaited: Protocol.ServerMessage["_tag"] | "end" = "Pong"
): Effect.Effect<Answer> =>
  Effect.gen(function*() {
    const before = messagesOf(raw.heard()).length
    raw.send(...frames.map((payload) => frameOf(payload)))
    if (awaited !== "end") raw.send(messageFrame({ _tag: "Ping", id: pingId }))
    const heard = yield* raw.until((each) => {
      if (closeCodeOf(each) !== undefined) return true
      const since = messagesOf(each).slice(before)
      return since.some((message) => message._tag === "Pong" && message.id === pingId) &&
        since.some(({ _tag }) => _tag === awaited)
    })
    const messages = messagesOf(heard).slice(before)
    const code = closeCodeOf(heard)
    if (code === undefined) return { said: messages.filter(({ _tag }) => _tag !== "Pong").map(wordOf) }
    const last = messages.at(-1)
    return { code, cause: last?._tag === "Fault" && last.id === null ? last.cause : "" }
  })

// --- Names ---

/** All of them may be names, and each is another. */
export const names = [
  ":",
  "/",
  "*",
  "$sys/x",
  "__proto__",
  "constructor",
  "prototype",
  "toString",
  "hasOwnProperty",
  "length",
  "a",
  "a:",
  "a\u0000",
  "\u0000",
  "\u202eabc",
  "caf\u00e9",
  "cafe\u0301",
  "\u{1f469}\u200d\u{1f469}\u200d\u{1f467}",
  "\ufeff",
  "\ufffd",
  " ",
  "'; DROP TABLE records; --",
  "%s %d ${x} {{x}} <script>",
  "../../../etc/passwd",
  "{userId}",
  "m".repeat(256)
]
