import { describe, expect, it } from "@effect/vitest"
import * as BackupFile from "@topgun/core/BackupFile"
import * as Cell from "@topgun/core/Cell"
import { BackupUnusable } from "@topgun/core/GridError"
import * as LwwMap from "@topgun/core/LwwMap"
import * as LwwRecord from "@topgun/core/LwwRecord"
import { partitionCount } from "@topgun/core/Partition"
import * as PnCounter from "@topgun/core/PnCounter"
import * as Value from "@topgun/core/Value"
import * as fc from "fast-check"
import * as arbitraries from "./arbitraries.ts"

const header: BackupFile.Header = {
  by: "TopGun",
  at: 1_764_000_000_000,
  storage: "sqlite",
  generation: "g".repeat(16),
  age: 5_000
}
const sha256 = "0".repeat(64)

interface Stored {
  readonly map: string
  readonly kind: Cell.MapKind
  readonly cell: string
  readonly row: Uint8Array
  readonly age: number | undefined
}

const storedOf = (
  map: string,
  kind: Cell.MapKind,
  key: string,
  record: LwwRecord.LwwRecord,
  age = record.isTombstone ? 77 : undefined
): Stored => ({ map, kind, cell: Cell.cellOf(kind, key, record), row: record.row, age })

/** All lines of a backup but its end. */
const linesOf = (records: ReadonlyArray<Stored>): Array<string> => {
  const tally = new BackupFile.Tally()
  const kinds = new Map(records.map(({ kind, map }) => [map, kind]))
  const lines = [BackupFile.headerLine(header)]
  for (const [map, kind] of kinds) lines.push(BackupFile.mapLine(map, kind))
  for (const { age, cell, kind, map, row } of records) {
    tally.add(map, cell, row)
    lines.push(BackupFile.recordLine(map, kind, cell, row, age))
  }
  for (const map of kinds.keys()) lines.push(BackupFile.totalsLine(map, tally.of(map)))
  return lines
}

const read = (lines: ReadonlyArray<string>): Array<BackupFile.Line> => {
  const reader = new BackupFile.Reader()
  const taken = [...lines, BackupFile.endLine(lines.length, sha256)].map((line) => reader.take(line))
  reader.end()
  return taken
}

const stamp = (millis: number) => ({ millis, counter: 0, nodeId: "a".repeat(16) })
const put = (value: unknown, millis = 1_000, expiresAt = 0) =>
  LwwRecord.put(stamp(millis), Value.encode(value), expiresAt)

const some = [
  storedOf("todos", "lww", "a", put({ text: "milk" })),
  storedOf("todos", "lww", "b", LwwRecord.remove(stamp(2_000))),
  storedOf("sessions", "lww", "a", put("x", 1_000, 9_000)),
  storedOf("tags", "or", "k", put("urgent")),
  storedOf("tags", "or", "k", LwwRecord.remove(stamp(500))),
  storedOf("likes", "counter", "likes", PnCounter.totals("b".repeat(16), 7, 2))
]

describe("A backup", () => {
  const key = fc.oneof(fc.constantFrom("", "__proto__", "\0", "\u2028", "a\nb"), fc.string({ unit: "grapheme" }))
  const keyed = fc.record({
    map: fc.constantFrom("", "m", "__proto__"),
    key: key.filter((each) => Buffer.byteLength(each) <= Value.keyBytesMax),
    record: arbitraries.record,
    age: fc.option(fc.nat(), { nil: undefined })
  })

  it.prop("has every record as it was", { records: fc.array(keyed), added: fc.nat(), taken: fc.nat() }, (given) => {
    const records = [
      ...given.records.map(({ age, key: of, map, record: stored }) =>
        storedOf(map, "lww", of, stored, stored.isTombstone ? age : undefined)
      ),
      ...given.records.map(({ key: of, record: stored }) => storedOf("or", "or", of, stored)),
      storedOf("c", "counter", "c", PnCounter.totals("b".repeat(16), given.added, given.taken))
    ]
    const back = read(linesOf(records)).flatMap((line): Array<Stored> =>
      line._tag === "Record"
        ? [{ map: line.map, kind: line.kind, cell: line.cell, row: line.record.row, age: line.age }]
        : []
    )
    expect(back).toEqual(records)
  })

  it("is readable", () => {
    expect(linesOf(some)).toEqual([
      "{\"backup\":1,\"by\":\"TopGun\",\"at\":\"2025-11-24T16:00:00.000Z\",\"storage\":\"sqlite\",\"generation\":\"gggggggggggggggg\",\"age\":5000}",
      "{\"map\":\"todos\",\"kind\":\"lww\"}",
      "{\"map\":\"sessions\",\"kind\":\"lww\"}",
      "{\"map\":\"tags\",\"kind\":\"or\"}",
      "{\"map\":\"likes\",\"kind\":\"counter\"}",
      "{\"in\":\"todos\",\"key\":\"a\",\"stamp\":\"0000000003e80000aaaaaaaaaaaaaaaa\",\"value\":{\"text\":\"milk\"}}",
      "{\"in\":\"todos\",\"key\":\"b\",\"stamp\":\"0000000007d00000aaaaaaaaaaaaaaaa\",\"deleted\":true,\"age\":77}",
      "{\"in\":\"sessions\",\"key\":\"a\",\"stamp\":\"0000000003e80000aaaaaaaaaaaaaaaa\",\"value\":\"x\",\"expires\":\"1970-01-01T00:00:09.000Z\"}",
      "{\"in\":\"tags\",\"key\":\"k\",\"stamp\":\"0000000003e80000aaaaaaaaaaaaaaaa\",\"value\":\"urgent\"}",
      "{\"in\":\"tags\",\"key\":\"k\",\"stamp\":\"0000000001f40000aaaaaaaaaaaaaaaa\",\"deleted\":true,\"age\":77}",
      "{\"in\":\"likes\",\"node\":\"bbbbbbbbbbbbbbbb\",\"added\":7,\"taken\":2}",
      ...["todos", "sessions", "tags", "likes"].map((map) =>
        expect.stringMatching(`^\\{"total":"${map}","records":\\d`)
      )
    ])
  })

  it("says of a map what its Merkle trees say", () => {
    const map = new LwwMap.LwwMap({ now: () => 0 })
    const tally = new BackupFile.Tally()
    for (const [cell, record] of [["a", put(1)], ["ä", put(2)], ["b", LwwRecord.remove(stamp(3))]] as const) {
      map.merge(cell, record)
      tally.add("m", cell, record.row)
    }
    const roots = Array.from({ length: partitionCount }, (_, partition) => map.tree.tree(partition)?.root())
    const sum = (lane: "hi" | "lo") => roots.reduce((total, root) => (total + (root?.[lane] ?? 0)) | 0, 0)
    expect(tally.of("m")).toEqual({ records: 3, hi: sum("hi"), lo: sum("lo") })
  })

  it("has notes, of canonical values and of any bytes", () => {
    const notes = [
      Value.encode([1, { $date: 2n }]),
      Uint8Array.of(0xc1, 0),
      new Uint8Array(0),
      Value.encode(new Uint8Array(2))
    ]
    const lines = [BackupFile.headerLine(header), ...notes.map((value) => BackupFile.noteLine("space", "k\0", value))]
    expect(read(lines).flatMap((line) => line._tag === "Note" ? [line.value] : [])).toEqual(notes)
  })

  // --- What it isn't ---

  const whole = linesOf(some)
  const refusal = (lines: ReadonlyArray<string>): string => {
    try {
      read(lines)
    } catch (fault) {
      if (fault instanceof BackupUnusable) return fault.message
      throw fault
    }
    return "taken"
  }
  const replaced = (at: number, change: (line: string) => string) =>
    whole.map((line, each) => each === at ? change(line) : line)

  it("is refused without any of its lines, and with any of them twice", () => {
    for (const at of whole.keys()) {
      expect(refusal(whole.filter((_, each) => each !== at)), `without ${whole[at]}`).toContain("can't be used")
      expect(refusal(whole.flatMap((line, each) => each === at ? [line, line] : [line])), whole[at]).toContain(
        "can't be used"
      )
    }
  })

  it("is refused when it breaks off", () => {
    for (let length = 0; length <= whole.length; length++) {
      const reader = new BackupFile.Reader()
      for (const line of whole.slice(0, length)) reader.take(line)
      expect(() => reader.end()).toThrow(BackupUnusable)
    }
  })

  it("is refused when a record is in another map, or was changed", () => {
    expect(refusal(replaced(5, (line) => line.replace("todos", "sessions")))).toContain("records, and should have")
    expect(refusal(replaced(5, (line) => line.replace("milk", "silk")))).toContain("isn't what it was")
    expect(refusal(replaced(5, (line) => line.replace("03e8", "03e9")))).toContain("isn't what it was")
    expect(refusal(replaced(10, (line) => line.replace("7", "8")))).toContain("isn't what it was")
    const swapped = whole.slice()
    swapped[5] = whole[5]!.replace("todos", "sessions")
    swapped[7] = whole[7]!.replace("sessions", "todos")
    expect(refusal(swapped)).toContain("can't be used")
  })

  it("is refused when it is of a newer format, and says so", () => {
    expect(refusal(replaced(0, (line) => line.replace("\"backup\":1", "\"backup\":2,\"more\":1")))).toBe(
      "This backup can't be used: it has format 2, and formats up to 1 are known here: use the newer version that wrote it"
    )
  })

  it("is refused where its writer couldn't go on, with the reason", () => {
    const reader = new BackupFile.Reader()
    reader.take(whole[0]!)
    expect(() => reader.take(BackupFile.failedLine("the disk is gone"))).toThrow(/the disk is gone/)
  })

  it.each([
    "",
    "[]",
    "null",
    "{}",
    "x",
    "{\"map\":\"new\",\"kind\":\"list\"}",
    "{\"map\":\"\\ud800\",\"kind\":\"lww\"}",
    "{\"map\":\"new\",\"kind\":\"lww\",\"more\":1}",
    "{\"in\":\"nowhere\",\"key\":\"a\",\"stamp\":\"0000000003e80000aaaaaaaaaaaaaaaa\",\"value\":1}",
    "{\"in\":\"todos\",\"key\":\"a\",\"stamp\":\"0000000003e80000AAAAAAAAAAAAAAAA\",\"value\":1}",
    "{\"in\":\"todos\",\"key\":\"a\",\"stamp\":\"0000000003e80000aaaaaaaaaaaaaaaa\"}",
    "{\"in\":\"todos\",\"key\":\"a\",\"stamp\":\"0000000003e80000aaaaaaaaaaaaaaaa\",\"value\":1,\"deleted\":true}",
    "{\"in\":\"todos\",\"key\":\"a\",\"stamp\":\"0000000003e80000aaaaaaaaaaaaaaaa\",\"value\":1,\"more\":1}",
    "{\"in\":\"todos\",\"key\":\"a\",\"stamp\":\"0000000003e80000aaaaaaaaaaaaaaaa\",\"value\":1,\"expires\":0}",
    "{\"in\":\"todos\",\"key\":\"a\",\"stamp\":\"0000000003e80000aaaaaaaaaaaaaaaa\",\"value\":{\"$date\":\"soon\"}}",
    "{\"in\":\"todos\",\"key\":\"a\",\"stamp\":\"0000000003e80000aaaaaaaaaaaaaaaa\",\"deleted\":true,\"age\":-1}",
    "{\"in\":\"todos\",\"key\":\"\\ud800\",\"stamp\":\"0000000003e80000aaaaaaaaaaaaaaaa\",\"value\":1}",
    "{\"in\":\"todos\",\"key\":1,\"stamp\":\"0000000003e80000aaaaaaaaaaaaaaaa\",\"value\":1}",
    "{\"in\":\"likes\",\"key\":\"a\",\"stamp\":\"0000000003e80000aaaaaaaaaaaaaaaa\",\"value\":1}",
    "{\"in\":\"likes\",\"node\":\"bbbbbbbbbbbbbbbb\",\"added\":-7,\"taken\":2}",
    "{\"in\":\"likes\",\"node\":\"bbbbbbbbbbbbbbb\",\"added\":7,\"taken\":2}",
    "{\"note\":\"a\",\"key\":1,\"value\":1}",
    "{\"total\":\"nowhere\",\"records\":0,\"digest\":\"0000000000000000\"}",
    "{\"end\":1,\"sha256\":\"\"}"
  ])("has no line %j", (line) => {
    expect(refusal([...whole.slice(0, 11), line, ...whole.slice(11)])).toMatch(/^This backup can't be used: line 12: /)
  })

  it("begins with its first line, or isn't one", () => {
    for (const line of ["", "\u001f\u008b", "hello", "{\"id\":1}", "[]", "1"]) {
      expect(refusal([line, ...whole])).toMatch(/it isn't one|no line of a backup/)
    }
    expect(() => new BackupFile.Reader().end()).toThrow("there is nothing in it")
  })
})
