/** What may come in the place of a message's bytes: MessagePack that isn't one, costs more than it brings, or is more than data. */
import { expect, layer } from "@effect/vitest"
import * as Protocol from "@topgun/core/Protocol"
import * as Effect from "effect/Effect"
import { Packr } from "msgpackr"
import { dialWebSocket } from "./raw.ts"
import { type Answer, answerTo, dialAs, layer as layerWard, Ward } from "./ward.ts"

const bytesOf = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex.replaceAll(" ", ""), "hex"))
const textOf = (text: string): string => {
  const bytes = Buffer.from(text)
  return (bytes.length < 32 ? (0xa0 | bytes.length).toString(16) : `d9${bytes.length.toString(16)}`) +
    bytes.toString("hex")
}
/** A Ping whose id is these bytes. */
const pingOf = (hex: string): Uint8Array => bytesOf(`82 ${textOf("_tag")} ${textOf("Ping")} ${textOf("id")} ${hex}`)
const openOf = (map: string): Uint8Array =>
  bytesOf(
    `86 ${textOf("_tag")} ${textOf("SyncInit")} ${textOf("id")} 01 ${textOf("kind")} ${textOf("lww")} ` +
      `${textOf("root")} c408${"00".repeat(8)} ${textOf("cursor")} c0 ${textOf("map")} ${map}`
  )
const live = new Packr({ moreTypes: true, useRecords: false })
const liveOf = (id: unknown): Uint8Array => new Uint8Array(live.pack({ _tag: "Ping", id }))
const packr = new Packr({ useRecords: false, variableMapSize: true })
const packed = (message: unknown): Uint8Array => new Uint8Array(packr.pack(message))
const ping = Protocol.encode({ _tag: "Ping", id: 1 })
const written = Protocol.encode({
  _tag: "OpBatch",
  map: "stowaway",
  kind: "lww",
  concern: "APPLIED",
  atomic: "no",
  ops: [[0, "k", new Uint8Array(25)]]
})

const cyclic = (): Uint8Array => {
  const value: Record<string, unknown> = { _tag: "Ping" }
  value["id"] = value
  return new Uint8Array(new Packr({ structuredClone: true, useRecords: false }).pack(value))
}

/** One of each family: the decoder's own tests have them all. Each is refused for what it is, not for what it says. */
const malformed: ReadonlyArray<readonly [name: string, frame: Uint8Array]> = [
  ["an array that claims 30 million elements", bytesOf("dd01c9c380")],
  ["a map that claims 2^32 - 1 fields", bytesOf("dfffffffff")],
  ["arrays inside each other that claim ten million elements each", bytesOf("dd00989680".repeat(20))],
  ["more in a field than there is", pingOf("dbffffffff")],
  ["bytes that claim 2^32 - 1 of them", bytesOf("c6ffffffff")],
  ["63 arrays inside each other", pingOf(`${"91".repeat(63)}01`)],
  ["1,024 maps inside each other", bytesOf(`${"81a161".repeat(1_024)}c0`)],
  ["200,000 arrays inside each other", bytesOf(`${"91".repeat(200_000)}c0`)],
  ["a million empty maps", bytesOf("80".repeat(1_000_000))],
  ["an array of a million empty maps", bytesOf(`dd000f4240${"80".repeat(1_000_000)}`)],
  ["10,001 messages", Protocol.frame(Array.from({ length: 10_001 }, () => ping))],
  [
    "a field named __proto__",
    bytesOf(
      `83${ping.subarray(1).reduce((hex, byte) => hex + byte.toString(16).padStart(2, "0"), "")} ${
        textOf("__proto__")
      } 81 ${textOf("polluted")} c3`
    )
  ],
  ["nothing but __proto__", bytesOf(`81 ${textOf("__proto__")} 81 ${textOf("polluted")} c3`)],
  ["a field named constructor", packed({ _tag: "Ping", id: 1, constructor: { prototype: { polluted: true } } })],
  ["a type named __proto__", packed({ _tag: "__proto__", id: 1 })],
  ["a type named constructor", packed({ _tag: "constructor", id: 1 })],
  ["a record's definition (ext 0x72)", new Uint8Array(new Packr({ useRecords: true }).pack({ _tag: "Ping", id: 1 }))],
  ["a RegExp (ext 0x78)", liveOf(/(a+)+$/)],
  ["a Set (ext 0x73)", liveOf(new Set([1]))],
  ["an Error (ext 0x65)", liveOf(new Error("x"))],
  ["a Date (ext -1)", liveOf(new Date(0))],
  ["a timestamp of more than a second's nanoseconds", pingOf(`c70cff3b9aca00${"00".repeat(8)}`)],
  ["a BigInt", liveOf(2n ** 64n - 1n)],
  ["an integer of 2^53", pingOf("cf0020000000000000")],
  ["an integer of -2^63", pingOf("d38000000000000000")],
  ["NaN", pingOf("cb7ff8000000000000")],
  ["a NaN with something in it", pingOf("cbfff8deadbeef0000")],
  ["-0", pingOf("cb8000000000000000")],
  ["an object that is in itself (ext 0x69, 0x70)", cyclic()],
  ["an extension of no bytes", pingOf("c70001")],
  ["an extension that claims 2^32 - 1 bytes", pingOf("c9ffffffff01")],
  ["text that isn't UTF-8", openOf("a1ff")],
  ["half a character", openOf("a3eda080")],
  ["a name that is a number", bytesOf("810101")],
  ["a name that is null", bytesOf("81c001")],
  ["a field twice", bytesOf(`83 ${textOf("_tag")} ${textOf("Ping")} ${textOf("id")} 01 ${textOf("id")} 02`)],
  ["a name of a million bytes", bytesOf(`81db000f4240${"61".repeat(1_000_000)}c0`)],
  ["a type of a million bytes", packed({ _tag: "x".repeat(1_000_000), id: 1 })],
  ["the byte that means nothing", bytesOf("c1")],
  ["that byte for a field", pingOf("c1")],
  ["a message cut short", ping.subarray(0, -1)],
  ["a message and a byte more", Protocol.frame([ping, Uint8Array.of(0)])],
  ["256 unknown fields", packed(Object.fromEntries(Array.from({ length: 256 }, (_, i) => [`f${i}`, i])))],
  [
    "70,000 unknown fields",
    packed({ _tag: "Ping", id: 1, ...Object.fromEntries(Array.from({ length: 70_000 }, (_, i) => [`f${i}`, i])) })
  ],
  ["types that alternate", packed(Array.from({ length: 30_000 }, (_, i) => [i, `${i}`, null, i / 7, true][i % 5]))],
  [
    "batches inside batches",
    packed({ _tag: "BATCH", count: 2 ** 32 - 1, messages: [{ _tag: "BATCH", messages: [] }] })
  ],
  ["no map at all", packed(["Ping", 1])],
  ["a write, and garbage behind it", Protocol.frame([written, Uint8Array.of(0xc1)])]
]

const refusal: Answer = { code: Protocol.closeCodes.malformed, cause: "MalformedMessage" }
const [, tooLong] = malformed.find(([, frame]) => frame.length > Protocol.frameBytesBeforeAuthMax)!

layer(layerWard)("A frame that is no message", (it) => {
  for (const [name, frame] of malformed) {
    it.scoped(`but ${name}, ends its connection with 1007 and touches nothing else`, () =>
      Effect.gen(function*() {
        const { isUnharmed, state } = yield* Ward
        const before = yield* state
        const raw = yield* dialAs("mallory")
        // What follows it is never looked at.
        expect(yield* answerTo(raw, [frame, written])).toEqual(refusal)
        raw.socket.destroy()
        yield* isUnharmed
        expect(yield* state).toEqual(before)
      }))

    // Longer ones are cut off before there is a message: one is enough to see that.
    if (frame.length > Protocol.frameBytesBeforeAuthMax && frame !== tooLong) continue
    it.scoped(`but ${name}, is refused from a stranger, too`, () =>
      Effect.gen(function*() {
        const { isUnharmed, state } = yield* Ward
        const before = yield* state
        const raw = yield* dialWebSocket
        const answer = yield* answerTo(raw, [frame], "end")
        expect(answer).toEqual(frame === tooLong ? { code: Protocol.closeCodes.tooLarge, cause: "" } : refusal)
        raw.socket.destroy()
        yield* isUnharmed
        expect(yield* state).toEqual(before)
      }))
  }
})
