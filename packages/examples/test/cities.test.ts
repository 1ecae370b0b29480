import { assert, describe, it } from "@effect/vitest"
import { readCities, writeCitiesFile } from "@topgun/examples/cities"
import { mkdtemp, readFile, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

describe("the cities", () => {
  it("have keys of their own that fit", async () => {
    const cities = await readCities()
    assert.isAbove(cities.length, 170_000)
    assert.strictEqual(new Set(cities.map(({ id }) => id)).size, cities.length)
    assert.isAtMost(cities.reduce((longest, { id }) => Math.max(longest, Buffer.byteLength(id)), 0), 1024)
  })

  it("are written one a line, as they are, with their keys", async () => {
    const directory = await mkdtemp(join(tmpdir(), "topgun-cities-"))
    try {
      const path = join(directory, "cities.jsonl")
      const count = await writeCitiesFile(path)
      const cities = await readCities()
      const lines = (await readFile(path, "utf8")).trimEnd().split("\n")
      assert.strictEqual(lines.length, count)
      assert.strictEqual(count, cities.length)
      for (const at of [0, 1, count - 1]) assert.deepStrictEqual<unknown>(JSON.parse(lines[at]!), cities[at])
    } finally {
      await rm(directory, { recursive: true })
    }
  })
})
