import { describe, expect, it } from "@effect/vitest"
import * as Seal from "@topgun/server/Seal"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll } from "vitest"

const generation = "abcdefghij012345"
let dir: string
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "topgun-seal-"))
})
afterAll(() => rmSync(dir, { recursive: true }))

const write = (file: string, ...counts: ReadonlyArray<number>): Buffer => {
  const seal = Seal.open(file)
  for (const commits of counts) seal.write({ generation, commits })
  seal.close()
  return readFileSync(file)
}

describe("A seal", () => {
  it("says nothing before it is written, and then what was written last, however often it is opened", () => {
    const file = join(dir, "counts")
    expect(Seal.read(file)).toBe(undefined)
    write(file)
    expect(Seal.read(file)).toBe(undefined)
    for (let commits = 0; commits < 12; commits++) {
      write(file, commits)
      expect(Seal.read(file)).toEqual({ generation, commits })
    }
    write(file, 9_007_199_254_740_990, 9_007_199_254_740_991)
    expect(Seal.read(file)).toEqual({ generation, commits: 9_007_199_254_740_991 })
  })

  it("says what it said before, or what is being written, wherever that is torn", () => {
    const file = join(dir, "torn")
    const before = write(file, 98, 99)
    const after = write(file, 100)
    const changed = Array.from(after.keys()).filter((at) => after[at] !== before[at])
    for (const end of changed) {
      writeFileSync(file, Buffer.concat([after.subarray(0, end), before.subarray(end)]))
      expect([99, 100]).toContain(Seal.read(file)?.commits)
    }
  })

  it("takes nothing for a seal that isn't one", () => {
    const file = join(dir, "other")
    const whole = write(file, 4).toString("latin1")
    for (
      const text of ["", "topgun-seal 1", whole.replace(" 4 ", " 5 "), whole.replace(" 1 ", " 2 "), "x".repeat(2_000)]
    ) {
      writeFileSync(file, text)
      expect(Seal.read(file), text.slice(0, 60)).toBe(undefined)
    }
  })
})
