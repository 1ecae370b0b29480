/** Keys, values, batches and frames at their limits, and one beyond, over a socket. */
import { describe, expect, it } from "@effect/vitest"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as Protocol from "@topgun/core/Protocol"
import * as Value from "@topgun/core/Value"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import { batch, nodeId, noise, put } from "../PlainClient.ts"
import { bystanders, closeCodeOf, dialReady, frameOf, messagesOf, type RawSocket } from "./raw.ts"

/** A put whose value has so many bytes when it is encoded. */
const putOf = (bytes: number, counter = 0): Uint8Array => {
  const value = Value.encode(noise(bytes - 5), bytes)
  expect(value).toHaveLength(bytes)
  return LwwRecord.put({ millis: 1_000, counter, nodeId }, value).row
}

/** What the server says of operations 0 and on: the causes of those that it rejects. */
const outcome = Effect.fnUntraced(function*(raw: RawSocket, message: Uint8Array, operations: number) {
  raw.send(frameOf(message))
  const answersOf = (heard: Buffer) => {
    const messages = messagesOf(heard)
    return {
      accepted: messages.flatMap((said) => said._tag === "OpAck" ? said.sequences : []),
      rejected: messages.flatMap((said) => said._tag === "OpReject" ? [said.cause] : [])
    }
  }
  const heard = yield* raw.until((said) => {
    const { accepted, rejected } = answersOf(said)
    return accepted.length + rejected.length === operations || closeCodeOf(said) !== undefined
  })
  return { ...answersOf(heard), code: closeCodeOf(heard) }
})

const written = (entries: ReadonlyArray<readonly [string, Uint8Array]>, map = "limits") =>
  Protocol.encode(batch(map, "APPLIED", 0, entries))

/** A message of exactly so many bytes. */
const messageOf = (bytes: number): Uint8Array => {
  const made = (last: number) => written([0, 1, 2, 3, 4].map((n) => [`k${n}`, putOf(n < 4 ? 200_000 : last, n)]))
  const message = made(200_000 + bytes - made(200_000).length)
  expect(message).toHaveLength(bytes)
  return message
}

const limits: ReadonlyArray<{
  readonly what: string
  readonly most: () => Uint8Array
  readonly more: () => Uint8Array
  readonly operations?: number
  /** What one more is answered with: an operation's rejection, or the end of the connection. */
  readonly answer: string | number
}> = [
  {
    what: "value of 256 KiB",
    most: () => written([["k", putOf(256 * 1024)]]),
    more: () => written([["k", putOf(256 * 1024 + 1)]]),
    // No client of ours writes that: its record has no form.
    answer: "MalformedMessage"
  },
  {
    what: "key of 1 KiB",
    most: () => written([["k".repeat(1_024), put(1)]]),
    more: () => written([["k".repeat(1_025), put(1)]]),
    answer: "RecordTooLarge"
  },
  {
    what: "key of 1 KiB in UTF-8",
    most: () => written([[`${"€".repeat(341)}k`, put(1)]]),
    more: () => written([[`${"€".repeat(341)}kk`, put(1)]]),
    answer: "RecordTooLarge"
  },
  {
    what: "batch of 500 operations",
    most: () => written(Array.from({ length: 500 }, (_, n) => [`k${n}`, put(n)])),
    more: () => written(Array.from({ length: 501 }, (_, n) => [`k${n}`, put(n)])),
    operations: 500,
    answer: 1007
  },
  {
    what: "name of 256 characters",
    most: () => written([["k", put(1)]], "m".repeat(256)),
    more: () => written([["k", put(1)]], "m".repeat(257)),
    answer: 1007
  },
  {
    what: "frame of 1 MiB",
    most: () => messageOf(1024 * 1024),
    more: () => messageOf(1024 * 1024 + 1),
    operations: 5,
    answer: 1009
  }
]

describe("A limit", () => {
  for (const { answer, more, most, operations = 1, what } of limits) {
    it.scoped(`lets a ${what} pass, and one more be answered with ${answer}`, () =>
      Effect.gen(function*() {
        const { serves } = yield* bystanders
        yield* Effect.scoped(Effect.gen(function*() {
          const within = yield* outcome(yield* dialReady, most(), operations)
          expect(within.accepted).toHaveLength(operations)
          expect(within.code).toBeUndefined()
          const beyond = yield* outcome(yield* dialReady, more(), operations)
          expect(beyond.accepted).toEqual([])
          expect(typeof answer === "number" ? beyond.code : beyond.rejected).toEqual(
            typeof answer === "number" ? answer : [answer]
          )
          expect(beyond.code === undefined).toBe(typeof answer === "string")
        }))
        yield* serves
      }).pipe(Effect.provide(TopGunServer.layer({ port: 0, storage: "memory" }))))
  }
})
