import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { utf8IsValid, utf8Length, utf8Read, utf8Write } from "../src/internal/utf8.ts"

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)

const written = (text: string): Uint8Array | undefined => {
  const target = new Uint8Array(text.length * 3 + 2)
  const bytes = utf8Write(text, target, 2)
  return bytes < 0 ? undefined : target.slice(2, 2 + bytes)
}

/** Texts of every width of character, with the marks that decoders like to swallow. */
const anyText = FastCheck.stringOf(
  FastCheck.oneof(
    FastCheck.ascii(),
    FastCheck.fullUnicode(),
    FastCheck.constantFrom(
      "\u0000",
      "\u007f",
      "\u0080",
      "\u07ff",
      "\u0800",
      "\ufeff",
      "\ufffd",
      "\uffff",
      "\u{10000}",
      "\u{10ffff}"
    )
  ),
  { maxLength: 60 }
)

/** Texts as JavaScript allows them, lone surrogates included. */
const anyUnits = FastCheck.array(
  FastCheck.oneof(FastCheck.integer({ min: 0xd7fe, max: 0xe001 }), FastCheck.integer({ min: 0, max: 0xffff })),
  { maxLength: 12 }
).map((units) => String.fromCharCode(...units))

describe("strict UTF-8", () => {
  it.prop("writes what TextEncoder writes", [anyText], ([text]) => {
    expect(written(text)).toEqual(utf8(text))
    expect(utf8Length(text)).toBe(utf8(text).length)
  })

  it.prop("refuses lone surrogates and nothing else", [anyUnits], ([text]) => {
    const isWellFormed = new TextDecoder("utf-8", { ignoreBOM: true }).decode(utf8(text)) === text
    expect(written(text) !== undefined).toBe(isWellFormed)
    expect(utf8Length(text) >= 0).toBe(isWellFormed)
  })

  it.prop("reads back what it wrote, wherever it lies", [anyText, FastCheck.nat(9)], ([text, before]) => {
    const bytes = utf8(text)
    const longer = new Uint8Array(before + bytes.length + 3).fill(0x41)
    longer.set(bytes, before)
    expect(utf8Read(longer, before, before + bytes.length)).toBe(text)
  })

  it.prop(
    "finds bytes well-formed exactly where a fatal TextDecoder does",
    [FastCheck.array(
      FastCheck.oneof(
        FastCheck.constantFrom(
          0x00,
          0x41,
          0x7f,
          0x80,
          0x8f,
          0x90,
          0x9f,
          0xa0,
          0xbf,
          0xc0,
          0xc1,
          0xc2,
          0xdf,
          0xe0,
          0xed,
          0xef,
          0xf0,
          0xf4,
          0xf5,
          0xff
        ),
        FastCheck.integer({ min: 0, max: 255 })
      ),
      { maxLength: 9 }
    )],
    ([list]) => {
      const bytes = Uint8Array.from(list)
      const oracle = (): boolean => {
        try {
          new TextDecoder("utf-8", { fatal: true }).decode(bytes)
          return true
        } catch {
          return false
        }
      }
      expect(utf8IsValid(bytes, 0, bytes.length)).toBe(oracle())
    }
  )

  it("reads texts of every length, with a wide character anywhere", () => {
    for (let length = 0; length <= 140; length++) {
      const ascii = Array.from({ length }, (_, i) => String.fromCharCode(0x20 + i % 90)).join("")
      expect(utf8Read(utf8(ascii), 0, length)).toBe(ascii)
      for (let at = 0; at <= length; at += 1 + (length >> 4)) {
        const text = ascii.slice(0, at) + "€" + ascii.slice(at)
        expect(utf8Read(utf8(text), 0, length + 3)).toBe(text)
      }
    }
  })

  it("looks at nothing beyond the end", () => {
    const euro = utf8("€")
    expect([1, 2, 3].map((end) => utf8IsValid(euro, 0, end))).toEqual([false, false, true])
  })
})
