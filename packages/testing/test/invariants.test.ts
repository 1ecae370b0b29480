import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { mutantPlugin, mutate } from "../src/mutants.ts"
import { mutants } from "./mutants.ts"

const root = join(import.meta.dirname, "../../..")
const table = readFileSync(join(root, "packages/testing/INVARIANTS.md"), "utf8")

const families = {
  CLK: 6,
  CRDT: 5,
  CONV: 3,
  SYNC: 5,
  OPL: 5,
  ACK: 3,
  CRASH: 3,
  STO: 2,
  GC: 3,
  TTL: 1,
  QRY: 3,
  PERM: 3,
  AUTH: 3,
  FLOW: 4,
  CLU: 5,
  ENC: 4,
  IN: 2
}

const rows = Array.from(table.matchAll(/^\| ([A-Z]+-\d+) \| (.+) \| (.+) \|$/gm), ([, id, statement, tests]) => ({
  id: id!,
  statement: statement!,
  tests: tests === "NAKED" ? [] : Array.from(tests!.matchAll(/`([^`]+)`/g), ([, path]) => `packages/${path}`)
}))

describe("INVARIANTS.md", () => {
  it("has each of the 60 invariants once", () => {
    const ids = Object.entries(families).flatMap(([family, count]) =>
      Array.from({ length: count }, (_, i) => `${family}-${i + 1}`)
    )
    assert.strictEqual(ids.length, 60)
    assert.deepStrictEqual(rows.map((row) => row.id), ids)
  })

  it("says how many are naked, which may only become fewer", () => {
    const stated = Number(/^NAKED: (\d+)$/m.exec(table)?.[1])
    assert.strictEqual(rows.filter((row) => row.tests.length === 0).length, stated)
    // Lower it with the table; raising it takes a reason in the change's description.
    assert.isAtMost(stated, 32)
  })

  it("names tests that exist, each with a mutant that breaks the invariant", () => {
    for (const { id, tests } of rows) {
      for (const test of tests) {
        assert.isTrue(existsSync(join(root, test)), test)
        assert.isTrue(
          mutants.some((mutant) => mutant.id === id && mutant.test === test),
          `${id} has no mutant in ${test}`
        )
      }
    }
  })
})

describe("mutants", () => {
  it("each break an invariant that the table says is tested there", () => {
    for (const { id, test } of mutants) {
      assert.include(rows.find((row) => row.id === id)?.tests ?? [], test, `${id} is broken in ${test}`)
    }
  })

  it("each change one line of their source, and name a test that there is", () => {
    for (const mutant of mutants) {
      const source = readFileSync(join(root, mutant.file), "utf8")
      const changed = mutate(mutant, source)
      assert.notStrictEqual(changed, source)
      assert.strictEqual(changed.split("\n").length, source.split("\n").length)
      const tests = ["packages/testing/src/laws.ts", "packages/testing/src/storageCases.ts", mutant.test]
        .map((path) => readFileSync(join(root, path), "utf8").replaceAll("\\\"", "\"")).join("\n")
      assert.include(tests, mutant.fails, mutant.breaks)
    }
  })

  it("are refused when their line isn't there exactly once", () => {
    const mutant = { ...mutants[0]!, find: "x = 1", replace: "x = 2" }
    assert.strictEqual(mutate(mutant, "a\nx = 1\nb"), "a\nx = 2\nb")
    assert.throws(() => mutate(mutant, "a"), /0 places/)
    assert.throws(() => mutate(mutant, "x = 1\nx = 1"), /2 places/)
    assert.throws(() => mutate({ ...mutant, find: "1\nb" }, "x = 1\nb"), /not one/)
  })

  it("replace their text as it stands, whatever signs are in it", () => {
    const mutant = { ...mutants[0]!, find: "$&", replace: "$$ $& $1" }
    assert.strictEqual(mutate(mutant, "a $& b"), "a $$ $& $1 b")
  })

  it("touch no source but their own", () => {
    const mutant = { ...mutants[0]!, file: "packages/core/src/X.ts", find: "1", replace: "2" }
    const plugin = mutantPlugin(mutant, "/repo/")
    assert.isUndefined(plugin.transform("1", "/repo/packages/core/src/Y.ts"))
    assert.isUndefined(plugin.transform("1", "/other/packages/core/src/X.ts"))
    assert.isFalse(plugin.applied())
    assert.strictEqual(plugin.transform("1", "/repo/packages/core/src/X.ts?v=1"), "2")
    assert.isTrue(plugin.applied())
  })
})
