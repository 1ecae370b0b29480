/** The memory of what was answered, against one that forgets nothing. */
import { describe, expect, it } from "@effect/vitest"
import { Answered, deviceOf, rejectionsMax, space } from "@topgun/server/Answers"
import type { Rejection } from "@topgun/server/Partitions"
import type { Note } from "@topgun/server/Persistence"
import * as fc from "fast-check"
import { put } from "./PlainClient.ts"

type Op = readonly [sequence: number, key: string, row: Uint8Array]

const limits = { devicesMax: 10, rejectionsInAllMax: 100 }
const opOf = (sequence: number): Op => [sequence, "k", put(sequence, 1_000 + sequence)]
const rejectionOf = (sequence: number): Rejection => ({ sequence, cause: "WriteRejected", reason: `no ${sequence}` })

/** What a store has after these notes. */
const keep = (stored: Map<string, Uint8Array>, notes: ReadonlyArray<Note>): void => {
  for (const note of notes) {
    expect(note.space).toBe(space)
    if (note.value === undefined) stored.delete(note.key)
    else stored.set(note.key, note.value)
  }
}
const loaded = (stored: ReadonlyMap<string, Uint8Array>, within = limits): Answered => {
  const answered = new Answered(within)
  answered.load(stored)
  return answered
}

describe("Answers", () => {
  it.prop("say of each operation what was said of it first, after restarts too, and nothing of others", [
    fc.array(
      fc.record({
        device: fc.constantFrom("a", "b", "b user"),
        /** How far back the device begins again: what it sends overlaps with what it has sent. */
        back: fc.nat(4),
        count: fc.integer({ min: 1, max: 6 }),
        refused: fc.nat(7),
        restarts: fc.boolean()
      }),
      { maxLength: 30 }
    )
  ], ([steps]) => {
    const stored = new Map<string, Uint8Array>()
    let answered = loaded(stored)
    /** What was said of each operation of each device. */
    const said = new Map<string, Map<number, Rejection | "accepted">>()
    for (const { back, count, device, refused, restarts } of steps) {
      if (restarts) answered = loaded(stored)
      const known = said.get(device) ?? new Map<number, Rejection | "accepted">()
      said.set(device, known)
      const first = Math.max(0, known.size - back)
      const ops = Array.from({ length: count }, (_, i) => opOf(first + i))
      for (const op of ops) expect(answered.find(device, op)).toEqual(known.get(op[0]))
      const fresh = ops.filter((op) => answered.find(device, op) === undefined)
      const rejected = fresh.filter(([sequence]) => sequence % 7 === refused).map(([sequence]) => rejectionOf(sequence))
      keep(stored, answered.add(device, fresh, rejected, known.size))
      for (const [sequence] of fresh) {
        known.set(sequence, rejected.find((rejection) => rejection.sequence === sequence) ?? "accepted")
      }
    }
    for (const memory of [answered, loaded(stored)]) {
      for (const [device, known] of said) {
        for (const [sequence, answer] of known) expect(memory.find(device, opOf(sequence))).toEqual(answer)
        expect(memory.find(device, opOf(known.size))).toBe(undefined)
      }
    }
  })

  it("of a device's last operations have the rejections, and keep no others", () => {
    const stored = new Map<string, Uint8Array>()
    const answered = loaded(stored, { devicesMax: 10, rejectionsInAllMax: 10_000 })
    for (let sequence = 0; sequence < rejectionsMax + 5; sequence++) {
      keep(stored, answered.add("a", [opOf(sequence)], [rejectionOf(sequence)], 0))
    }
    expect(stored.size).toBe(1 + rejectionsMax)
    for (const memory of [answered, loaded(stored, { devicesMax: 10, rejectionsInAllMax: 10_000 })]) {
      expect(memory.find("a", opOf(5))).toEqual(rejectionOf(5))
      expect(memory.find("a", opOf(4))).toBe("accepted")
    }
    keep(stored, answered.add("a", Array.from({ length: 500 }, (_, i) => opOf(5_000 + i)), [], 0))
    expect(stored.size).toBe(1)
  })

  it("forget the devices that were away longest, by their number and by their rejections", () => {
    const stored = new Map<string, Uint8Array>()
    const answered = loaded(stored)
    for (const device of "abcdefghij") keep(stored, answered.add(device, [opOf(0)], [], device.charCodeAt(0)))
    keep(stored, answered.add("a", [opOf(1)], [], 200))
    keep(stored, answered.add("k", [opOf(0)], [], 201))
    for (const memory of [answered, loaded(stored)]) {
      expect(memory.find("b", opOf(0))).toBe(undefined)
      expect(memory.find("a", opOf(0))).toBe("accepted")
    }
    // After a restart it is known who was away longest.
    const again = loaded(stored)
    keep(stored, again.add("l", [opOf(0)], [], 202))
    expect(again.find("c", opOf(0))).toBe(undefined)
    const many = Array.from({ length: 60 }, (_, i) => opOf(i))
    for (const device of ["x", "y"]) keep(stored, again.add(device, many, many.map(([i]) => rejectionOf(i)), 300))
    expect(again.find("x", opOf(0))).toBe(undefined)
    expect(again.find("y", opOf(0))).toEqual(rejectionOf(0))
    expect(stored.size).toBe(61)
    // One alone that has more is not away.
    const more = Array.from({ length: 150 }, (_, i) => opOf(100 + i))
    keep(stored, again.add("y", more, more.map(([i]) => rejectionOf(i)), 301))
    expect(again.find("y", opOf(249))).toEqual(rejectionOf(249))
  })

  it("of a storage that was put back are those to what it writes from then on", () => {
    const stored = new Map<string, Uint8Array>()
    const answered = loaded(stored)
    const later = (sequence: number): Op => [sequence, "k", put(sequence, 100_000 + sequence)]
    keep(stored, answered.add("a", [opOf(0), opOf(1), opOf(2)], [rejectionOf(1)], 0))
    expect(answered.find("a", later(1))).toBe(undefined)
    keep(stored, answered.add("a", [later(1)], [], 0))
    for (const memory of [answered, loaded(stored)]) {
      expect(memory.find("a", later(1))).toBe("accepted")
      expect(memory.find("a", later(2))).toBe(undefined)
    }
    expect(stored.size).toBe(1)
  })

  it("aren't the last word of what came too early, whose time tells nothing of the device's", () => {
    const stored = new Map<string, Uint8Array>()
    const answered = loaded(stored)
    const early: Op = [1, "k", put(1, 10_000_000)]
    const tooEarly: Rejection = { sequence: 1, cause: "ClockSkewTooLarge", reason: "too early" }
    keep(stored, answered.add("a", [opOf(0), early, opOf(2)], [tooEarly, rejectionOf(2)], 0))
    const isAsBefore = (memory: Answered) => {
      expect(memory.find("a", opOf(0))).toBe("accepted")
      expect(memory.find("a", opOf(2))).toEqual(rejectionOf(2))
      // A later one of this number is of a storage that was put back.
      expect(memory.find("a", [0, "k", put(0, 5_000)])).toBe(undefined)
    }
    for (const memory of [answered, loaded(stored)]) {
      expect(memory.find("a", early)).toBe(undefined)
      isAsBefore(memory)
    }
    keep(stored, answered.add("a", [opOf(1)], [], 0))
    for (const memory of [answered, loaded(stored)]) {
      expect(memory.find("a", opOf(1))).toBe("accepted")
      isAsBefore(memory)
    }
  })

  it("are of a user's device", () => {
    expect(new Set([deviceOf("a", undefined), deviceOf("a", "u"), deviceOf("a", "v"), deviceOf("b", "u")]).size).toBe(4)
  })

  it("don't begin with notes that aren't such", () => {
    for (
      const [key, value] of [["a", Uint8Array.of(0x90)], ["a\n1", Uint8Array.of(0x92, 1, 2)], [
        "a",
        Uint8Array.of(0xc1)
      ]] as const
    ) {
      expect(() => loaded(new Map([[key, value]]))).toThrow()
    }
  })
})
