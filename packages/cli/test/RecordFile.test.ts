import { describe, expect, it } from "@effect/vitest"
import { faultsMax, RecordFile, recordLengthMax } from "@topgun/cli/RecordFile"
import { FastCheck as fc } from "effect"

/** Reads bytes that come `size` at a time. */
const read = (bytes: Uint8Array | string, size = 1 << 20): RecordFile => {
  const file = new RecordFile("id")
  const all = Buffer.from(bytes)
  for (let at = 0; at < all.length; at += size) file.push(all.subarray(at, at + size))
  file.end()
  return file
}

const faults = (text: string, size?: number) => read(text, size).faults

const record = fc.record({ id: fc.string({ maxLength: 5 }), value: fc.jsonValue() }, { requiredKeys: ["id", "value"] })

describe("a file of records", () => {
  it.prop("reads the same as an array and as lines, however it is cut and spaced", [
    fc.array(record, { minLength: 1, maxLength: 8 }),
    fc.integer({ min: 1, max: 40 }),
    fc.constantFrom(0, 2)
  ], ([records, size, indent]) => {
    // JSON has no -0.
    const usual = JSON.parse(JSON.stringify(records)) as ReadonlyArray<{ readonly id: string }>
    const expected = new Map(usual.map((each) => [each.id, each]))
    const lines = usual.map((each) => JSON.stringify(each)).join("\r\n\n")
    for (const text of [JSON.stringify(usual, null, indent), lines, `${lines}\n`, `\uFEFF \n${lines}`]) {
      const file = read(text, size)
      expect(file.faults).toEqual([])
      expect(file.records).toEqual(expected)
      expect(file.count).toBe(usual.length)
    }
  })

  it("may be an empty array, but not empty", () => {
    expect(read(" [ ] \n")).toMatchObject({ faults: [], count: 0 })
    expect(faults("")).toEqual(["1:1: there are no records in it"])
    expect(faults("\uFEFF\n ")).toEqual(["1:1: there are no records in it"])
  })

  it("turns numbers to keys, and takes the last record of each key", () => {
    const file = read("{\"id\":1,\"v\":1}\n{\"id\":\"1\",\"v\":2}\n{\"id\":2}")
    expect(file).toMatchObject({ faults: [], repeated: 1, repeatedKey: "1" })
    expect(Array.from(file.records)).toEqual([["1", { id: "1", v: 2 }], ["2", { id: 2 }]])
  })

  it.each([1, 3, 1 << 20])("names faults by line and column, %i bytes at a time", (size) => {
    expect(faults("{\"id\":1}\n{\"id\":2,}", size)).toEqual(["2:9: record 2: a comma before \"}\" is not allowed"])
    expect(faults("[{\"id\":1},\n  {\"id\":2 \"v\":3}]", size)).toEqual([
      "2:11: record 2: expected \",\" or \"}\", found \"\\\"\""
    ])
    expect(faults("[{\"id\":1},\n {\"id\":\n x}]", size)).toEqual(["3:2: record 2: expected a value, found \"x\""])
    expect(faults("[{\"id\":1}\n{\"id\":2}]", size)).toEqual(["2:1: expected \",\" or \"]\", found \"{\""])
    expect(faults("[{\"id\":1},]", size)).toEqual(["1:11: a comma before \"]\" is not allowed"])
    expect(faults("[,]", size)).toEqual(["1:2: expected a record, found \",\""])
    expect(faults("[{\"id\":1}", size)).toEqual(["1:10: the array is never closed: \"]\" is missing at the end"])
    expect(faults("[{\"id\":1},\n{\"id\":2", size)).toEqual(["2:1: this { is never closed"])
    expect(faults("[{\"id\":1}]\nx", size)).toEqual(["2:1: there is more after the array's end"])
    expect(faults("hello", size)).toEqual(["1:1: record 1: expected a value, found \"h\""])
    expect(faults("{\n  \"id\": 1\n}", size)).toEqual([
      "1:1: record 1: this { is never closed (a record may span lines only within a JSON array)"
    ])
  })

  it("tells of each record that is none, has no key, or can't be stored", () => {
    expect(faults("[1, null, [], \"x\", true]")).toEqual([
      "1:2: record 1: it is a number: a record is an object, {…}",
      "1:5: record 2: it is null: a record is an object, {…}",
      "1:11: record 3: it is an array: a record is an object, {…}",
      "1:15: record 4: it is a string: a record is an object, {…}",
      "1:20: record 5: it is a boolean: a record is an object, {…}"
    ])
    expect(faults("{\"ID\":1,\"name\":2}\n{\"id\":null}\n{\"id\":\"\\ud800\"}\n{\"id\":1,\"big\":1e999}")).toEqual([
      "1:1: record 1: it has no field \"id\" to be its key; its fields are \"ID\", \"name\": name one with --key",
      "2:1: record 2: its key, field \"id\", is null: a key is a string or a number",
      "3:1: record 3: The value at key cannot be stored: text with a lone surrogate has no UTF-8 form",
      "4:1: record 4: The value at $.big cannot be stored: Infinity is not a finite number"
    ])
    expect(faults(`{"id":"${"k".repeat(1025)}"}`)[0]).toMatch(/^1:1: record 1: .*1025.*1024/)
    expect(faults(`{"id":1,"v":"${"v".repeat(300_000)}"}`)[0]).toMatch(/^1:1: record 1: .*262144/)
  })

  it("stops at a handful of faults, and at a record without end", () => {
    expect(faults("1\n".repeat(100))).toHaveLength(faultsMax)
    const endless = `[{"id":"${"x".repeat(recordLengthMax)}`
    const file = new RecordFile("id")
    file.push(Buffer.from(endless))
    expect(file.isStopped).toBe(true)
    expect(file.faults).toHaveLength(1)
  })

  it("refuses bytes that are not UTF-8", () => {
    const line = "{\"id\":\"Z\u00fcrich\"}"
    expect(read(Buffer.from(line, "latin1")).faults).toEqual([
      "after record 0: the bytes are not UTF-8 text: save the file as UTF-8"
    ])
    expect(read(Buffer.from(`\uFEFF${line}`, "utf16le")).faults).toHaveLength(1)
  })
})
