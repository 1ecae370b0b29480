import { assert, describe, it } from "@effect/vitest"
import { indexedDb } from "@topgun/adapters/indexeddb"
import { createClient } from "@topgun/client/promise"
import { execFile } from "node:child_process"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { promisify } from "node:util"

const packages = join(import.meta.dirname, "../..")

/** What can be imported of a package. */
const entriesOf = (name: string): ReadonlyArray<string> =>
  readdirSync(join(packages, name, "src")).filter((file) => file.endsWith(".ts")).map((file) =>
    file === "index.ts" ? `@topgun/${name}` : `@topgun/${name}/${file.slice(0, -".ts".length)}`
  )

const entries = ["core", "client", "adapters"].flatMap(entriesOf)
const isNodes = (entry: string): boolean => /\/(sqlite|SqlStorage)$/.test(entry)

const run = async (options: ReadonlyArray<string>, script: string, words: ReadonlyArray<string>): Promise<string> => {
  const { stdout } = await promisify(execFile)(process.execPath, [
    ...options,
    join(import.meta.dirname, script),
    ...words
  ])
  return stdout
}

describe("What a page or a server imports", () => {
  it("touches no platform before a client is made, on a server that renders pages", async () => {
    const { imported, touched } = JSON.parse(await run([], "bare.mjs", ["--node", ...entries]))
    assert.deepStrictEqual(touched, [])
    assert.isAbove(imported, 50)
  })

  it("touches none, and needs nothing of Node's, as a browser takes it", async () => {
    const portable = entries.filter((entry) => !isNodes(entry))
    const { touched } = JSON.parse(await run(["--conditions=browser"], "bare.mjs", ["--pure", ...portable]))
    assert.deepStrictEqual(touched, [])
  })

  it("makes a client that goes on in memory, and says so, on a server without IndexedDB", async () => {
    const client = createClient({ storage: indexedDb() })
    await client.ready()
    const { durable, fault, kind } = client.status.current.storage
    assert.deepStrictEqual({ durable, kind }, { durable: false, kind: "memory" })
    assert.match(fault!, /no IndexedDB here/)
    const notes = client.map<string>("notes")
    await notes.set("1", "kept as long as the process")
    assert.strictEqual(notes.get("1"), "kept as long as the process")
    await client.close()
  })
})
