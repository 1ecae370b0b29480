import { describe, expect, it } from "@effect/vitest"
import { MalformedMessage } from "@topgun/core/GridError"
import * as FastCheck from "effect/FastCheck"
import { Packr, Unpackr } from "msgpackr"
import { depthCapacity, fieldsMax, nameBytesMax, scanFrame, type ScanLimits } from "../src/internal/scan.ts"

const limits: ScanLimits = { depthMax: 16, elementsMax: 200_000, messagesMax: 1000 }

const bytesOf = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"))

/** The number of messages, or the reason why the frame is refused. */
const scan = (bytes: Uint8Array, within: ScanLimits = limits): number | string => {
  try {
    return scanFrame(bytes, within)
  } catch (error) {
    if (error instanceof MalformedMessage) return error.reason
    throw error
  }
}

const packr = new Packr({ useRecords: false, encodeUndefinedAsNil: true })

/** No message has a field of the one name that is refused everywhere. */
const fieldName = FastCheck.fullUnicodeString({ maxLength: 40 }).filter((name) => name !== "__proto__")

/** What messages are made of. */
const anyMessage = FastCheck.letrec<{ node: unknown }>((tie) => ({
  node: FastCheck.oneof(
    // Within what a frame may hold: 16 levels, and 256 fields of maps that are open at once.
    { depthSize: "small", maxDepth: 8, withCrossShrink: true },
    FastCheck.constantFrom(null, true, false),
    FastCheck.integer(),
    FastCheck.maxSafeNat(),
    FastCheck.double(),
    FastCheck.fullUnicodeString({ maxLength: 50 }),
    FastCheck.uint8Array({ maxLength: 300 }),
    FastCheck.array(tie("node"), { maxLength: 20 }),
    FastCheck.dictionary(fieldName, tie("node"), {
      maxKeys: 20,
      noNullPrototype: true
    })
  )
})).node

const isPlain = (value: unknown): boolean =>
  value === null || ["boolean", "number", "string"].includes(typeof value) || value instanceof Uint8Array ||
  (typeof value === "object" &&
    [Object.prototype, Array.prototype].includes(Object.getPrototypeOf(value)) && Object.values(value).every(isPlain))

describe("a frame", () => {
  it.prop(
    "of messages is let through with their number",
    [FastCheck.array(anyMessage, { minLength: 1, maxLength: 4 })],
    ([messages]) => {
      const frame = Buffer.concat(messages.map((message) => packr.pack(message)))
      expect(scan(frame)).toBe(messages.length)
    }
  )

  it.prop("that was cut short is refused", [anyMessage, FastCheck.nat()], ([message, at]) => {
    const frame = packr.pack(message)
    expect(typeof scan(frame.subarray(0, at % frame.length))).toBe("string")
  })

  it.prop(
    "of arbitrary bytes is refused, or decodes to as many plain messages",
    [
      FastCheck.oneof(
        FastCheck.uint8Array({ maxLength: 60 }),
        FastCheck.tuple(
          anyMessage,
          FastCheck.array(FastCheck.tuple(FastCheck.nat(), FastCheck.nat(255)), { maxLength: 3 })
        )
          .map(([message, changes]) => {
            const bytes = new Uint8Array(packr.pack(message))
            for (const [at, byte] of changes) bytes[at % bytes.length] = byte
            return bytes
          })
      )
    ],
    ([frame]) => {
      const messages = scan(frame)
      if (typeof messages === "string") return
      const decoded: Array<unknown> = []
      new Unpackr({ useRecords: false }).unpackMultiple(frame, (value: unknown) => {
        decoded.push(value)
      })
      expect(decoded.length).toBe(messages)
      expect(decoded.every(isPlain)).toBe(true)
    },
    { fastCheck: { numRuns: 2000 } }
  )
})

describe("a hostile frame", () => {
  const proto = "a95f5f70726f746f5f5f"

  const corpus: ReadonlyArray<readonly [what: string, hex: string, reason: RegExp]> = [
    ["nothing", "", /empty/],
    ["array32 that claims 30 million", "dd01c9c380", /cut short/],
    ["20 nested array32 that claim 10 million each", "dd00989680".repeat(20), /cut short/],
    ["array32 that claims 2^32 - 1", "ddffffffff", /cut short/],
    ["map32 that claims 2^32 - 1", "dfffffffff", /cut short/],
    ["a map that claims as many fields as bytes follow", "83a16101a1", /cut short/],
    ["str32 that claims 2^32 - 1", "dbffffffff", /cut short/],
    ["bin32 that claims 2^32 - 1", "c6ffffffff", /cut short/],
    ["a header without its length", "dd0000", /cut short/],
    ["a float without its end", "cb3ff8", /cut short/],
    ["200,000 nested arrays", "91".repeat(200_000), /deeper/],
    ["17 nested arrays", "91".repeat(16) + "90", /deeper/],
    ["17 nested maps", "81a161".repeat(16) + "80", /deeper/],
    ["a million empty maps, each a message", "80".repeat(1_000_000), /messages/],
    ["a million empty maps in an array", "dd000f4240" + "80".repeat(1_000_000), /elements/],
    ["a field named __proto__", `81${proto}80`, /__proto__/],
    ["a field named __proto__ far below", `91a16181a16181${proto}01`.replace("91a161", "91"), /__proto__/],
    ["a field named __proto__ in str8", "81d909" + proto.slice(2) + "80", /__proto__/],
    ["a field twice", "83a16101a16202a16103", /twice/],
    ["a field twice, the second time in str8", "82a16101d9016102", /twice/],
    ["a field twice around a map", "82a16181a16101a16102", /twice/],
    ["the empty name twice", "82a001a001", /twice/],
    ["a number as name", "810101", /name/],
    ["null as name", "81c001", /name/],
    ["bytes as name", "81c4016101", /name/],
    ["an array as name", "819001", /name/],
    ["a name that is not UTF-8", "81a1ff01", /UTF-8/],
    ["text that is not UTF-8", "a1ff", /UTF-8/],
    ["text with a surrogate", "a3eda080", /UTF-8/],
    ["text with an overlong character", "d902c080", /UTF-8/],
    ["a record's definition (ext 0x72)", "d4724091a16101", /extension/],
    ["a timestamp", "d6ff00000000", /extension/],
    ["undefined", "d40000", /extension/],
    ["a 64-bit integer", "cf0000000000000001", /64-bit/],
    ["a negative 64-bit integer", "d3ffffffffffffffff", /64-bit/],
    ["the byte 0xc1", "c1", /0xc1/],
    ["garbage behind a message", "80c1", /0xc1/]
  ]

  it.each(corpus)("is refused: %s", (_, hex, reason) => {
    expect(scan(bytesOf(hex))).toMatch(reason)
  })

  it("is refused for every type of extension in every form", () => {
    for (let type = 0; type < 256; type++) {
      const t = type.toString(16).padStart(2, "0")
      for (
        const hex of [
          `d4${t}00`,
          `d5${t}0000`,
          `d6${t}00000000`,
          `d8${t}${"00".repeat(16)}`,
          `c700${t}`,
          `c8ffff${t}`,
          `c9ffffffff${t}`
        ]
      ) {
        expect(scan(bytesOf(hex))).toMatch(/extension/)
      }
    }
  })

  it("is refused for a name or a number of fields that no message has", () => {
    const fields = (count: number): Uint8Array =>
      packr.pack(Object.fromEntries(Array.from({ length: count }, (_, i) => [`f${i}`, 0])))
    expect(scan(fields(fieldsMax))).toBe(1)
    expect(scan(fields(fieldsMax + 1))).toMatch(/fields/)
    expect(scan(packr.pack({ ["x".repeat(nameBytesMax)]: 0 }))).toBe(1)
    expect(scan(packr.pack({ ["x".repeat(nameBytesMax + 1)]: 0 }))).toMatch(/too long/)
  })

  it("leaves nothing behind for the next one", () => {
    for (const [, hex] of corpus) {
      scan(bytesOf(hex))
      expect(scan(bytesOf("82a16181a16101a16290"))).toBe(1)
    }
  })
})

describe("the limits of a frame", () => {
  it("are its reader's to choose, the depth up to the scan's own capacity", () => {
    const nested = (levels: number): Uint8Array => bytesOf("91".repeat(levels - 1) + "90")
    expect(scan(nested(16))).toBe(1)
    expect(scan(nested(3), { ...limits, depthMax: 2 })).toMatch(/deeper/)
    expect(scan(nested(depthCapacity), { ...limits, depthMax: 1000 })).toBe(1)
    expect(scan(nested(depthCapacity + 1), { ...limits, depthMax: 1000 })).toMatch(/deeper/)
    expect(scan(bytesOf("c0c0c0"), { ...limits, messagesMax: 3 })).toBe(3)
    expect(scan(bytesOf("c0c0c0"), { ...limits, messagesMax: 2 })).toMatch(/messages/)
    expect(scan(bytesOf("92c0c092c0c0"), { ...limits, elementsMax: 4 })).toBe(2)
    expect(scan(bytesOf("92c0c092c0c0"), { ...limits, elementsMax: 3 })).toMatch(/elements/)
  })

  it("don't count what a byte string holds", () => {
    expect(scan(bytesOf("c404c1c1c1c1"))).toBe(1)
  })

  it("let the names of sibling maps be equal", () => {
    expect(scan(bytesOf("9281a1610181a16101"))).toBe(1)
    expect(scan(bytesOf("82a16181a16101a16281a16101"))).toBe(1)
  })
})
