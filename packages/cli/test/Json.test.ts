import { describe, expect, it } from "@effect/vitest"
import * as Json from "@topgun/cli/Json"
import { FastCheck as fc } from "effect"

const fault = (text: string) => {
  const parsed = Json.parse(text)
  return "fault" in parsed ? `${parsed.fault.offset}: ${parsed.fault.reason}` : "none"
}

describe("JSON", () => {
  it.prop(
    "is taken as JSON.parse takes it, whatever its white space",
    [fc.json(), fc.constantFrom(0, 2)],
    ([text, indent]) => {
      const value: unknown = JSON.parse(text)
      expect(Json.parse(` ${JSON.stringify(value, null, indent)}\r\n`)).toEqual({ value })
    }
  )

  it.prop("is refused exactly when JSON.parse refuses it, at a place within the text", [
    fc.json(),
    fc.nat(),
    fc.constantFrom("", ",", "{", "]", "\"", "\\", "x", "1", "\n")
  ], ([text, position, insertion]) => {
    const at = position % (text.length + 1)
    const broken = text.slice(0, at) + insertion + text.slice(at + 1)
    let isJson = true
    try {
      JSON.parse(broken)
    } catch {
      isJson = false
    }
    const parsed = Json.parse(broken)
    // Whole numbers that would be rounded are refused on top of that.
    if ("fault" in parsed && parsed.fault.reason.includes("rounded")) return
    expect("value" in parsed).toBe(isJson)
    if ("fault" in parsed) {
      expect(parsed.fault.offset).toBeGreaterThanOrEqual(0)
      expect(parsed.fault.offset).toBeLessThanOrEqual(broken.length)
    }
  })

  it("has its faults named where they are", () => {
    expect(fault("hello")).toBe("0: expected a value, found \"h\"")
    expect(fault("{\"a\":1,}")).toBe("7: a comma before \"}\" is not allowed")
    expect(fault("{a:1}")).toBe("1: expected a field name in double quotes, found \"a\"")
    expect(fault("{\"a\" 1}")).toBe("5: expected \":\" after the field name, found \"1\"")
    expect(fault("[1 2]")).toBe("3: expected \",\" or \"]\", found \"2\"")
    expect(fault("[1,")).toBe("0: this [ is never closed")
    expect(fault("{\"a\":[1]")).toBe("0: this { is never closed")
    expect(fault("\"abc")).toBe("0: this text has no closing quote")
    expect(fault("\"a\\q\"")).toMatch(/^2: this backslash begins no escape/)
    expect(fault("1 2")).toBe("2: expected nothing more, found \"2\"")
    expect(fault("")).toBe("0: expected a value, found the end")
  })

  it("keeps whole numbers as they are, or refuses them", () => {
    expect(fault("{\"id\":12345678901234567891}")).toMatch(
      /^6: 12345678901234567891 would be rounded to 12345678901234567/
    )
    expect(Json.parse("18014398509481984")).toEqual({ value: 2 ** 54 })
    expect(Json.parse("0.30000000000000004")).toEqual({ value: 0.1 + 0.2 })
    expect(Json.parse("\"12345678901234567891\"")).toEqual({ value: "12345678901234567891" })
  })

  it("is made of values that JSON lacks, too", () => {
    expect(Json.render({ at: new Date(0), bytes: new Uint8Array([1, 2]), big: 5n })).toBe(
      "{\"at\":\"1970-01-01T00:00:00.000Z\",\"bytes\":\"AQI=\",\"big\":\"5\"}"
    )
  })

  it("shows keys that would do something to a terminal by their escapes", () => {
    expect(Json.label("Küche 1")).toBe("Küche 1")
    expect(Json.label("\u001b[2J\u009b")).toBe("\"\\u001b[2J\\u009b\"")
  })
})
