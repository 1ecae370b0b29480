import { assert, describe, it } from "@effect/vitest"
import * as Grid from "@topgun/core/Grid"
import { createClient } from "@topgun/client/promise"
import { Schema } from "effect"

const Note = Schema.Struct({ title: Schema.String, tags: Schema.Array(Schema.String), done: Schema.Boolean })
const Notes = Grid.map("notes", Note, { search: { fields: { title: 2, tags: 1 }, language: "english" } })

const open = async () => {
  const client = createClient({ grid: [Notes] })
  await client.ready()
  const notes = client.map(Notes)
  notes.set("a", { title: "Feeding the cats", tags: ["home"], done: false })
  notes.set("b", { title: "A dog, a cat", tags: [], done: true })
  notes.set("c", { title: "Bread", tags: ["dog food", "cat food"], done: true })
  return { client, notes }
}

describe("client.search", () => {
  it("finds words by their stems, the best first, and shows where they are", async () => {
    const { client } = await open()
    const hits = await client.search(Notes, "cat")
    assert.deepStrictEqual(hits.map(({ key }) => key).sort(), ["a", "b", "c"])
    const a = hits.find(({ key }) => key === "a")
    assert.deepStrictEqual(a!.highlights, [{ field: "title", element: undefined, ranges: [[12, 16]] }])
    const c = hits.find(({ key }) => key === "c")
    assert.deepStrictEqual(c!.highlights, [{ field: "tags", element: 1, ranges: [[0, 3]] }])
    assert.strictEqual(hits.at(-1)!.key, "c", "a title counts twice")
    assert.deepStrictEqual((await client.search(Notes, "cat", { fields: ["tags"] })).map(({ key }) => key), ["c"])
    assert.strictEqual((await client.search(Notes, "cat", { limit: 1 })).length, 1)
    assert.deepStrictEqual(await client.search(Notes, "fe", { prefix: false }), [])
    assert.deepStrictEqual((await client.search(Notes, "fe")).map(({ key }) => key), ["a"])
    await client.close()
  })

  it("explains a score, and says when a map isn't searched", async () => {
    const { client } = await open()
    const [best] = await client.search(Notes, "cat")
    const { score, steps } = await client.explain(Notes, { search: "cat" }, { key: best!.key })
    assert.strictEqual(score!.score, best!.score)
    assert.strictEqual(score!.parts.reduce((sum, { contribution }) => sum + contribution, 0), best!.score)
    assert.strictEqual(steps[0]!.by, "words")
    const failure = await client.search("others", "cat").catch((fault: unknown) => fault) as { readonly code: string }
    assert.strictEqual(failure.code, "TG_QUERY_INVALID")
    await client.close()
  })

  it("follows what changes, by a query", async () => {
    const { client, notes } = await open()
    const found = client.query(Notes, { search: "cat", where: { done: true } })
    const told: Array<ReadonlyArray<string>> = []
    found.subscribe(({ rows }) => told.push(rows.map(({ key }) => key).sort()))
    await client.search(Notes, "cat")
    assert.deepStrictEqual(found.current.rows.map(({ key }) => key).sort(), ["b", "c"])
    notes.remove("b")
    notes.update("a", (note) => note && { ...note, done: true })
    assert.deepStrictEqual(found.current.rows.map(({ key }) => key).sort(), ["a", "c"])
    await client.map(Notes).set("c", { title: "Bread", tags: [], done: true })
    assert.deepStrictEqual(told.at(-1), ["a"])
    found.close()
    await client.close()
  })
})
