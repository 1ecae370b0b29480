/** The main job on real data: a file becomes a map on the server, and the map comes whole to another device. */
import { createClient } from "@topgun/client/promise"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { text } from "node:stream/consumers"
import { afterAll, beforeAll, expect, test } from "vitest"
import { type City, readCities, writeCitiesFile } from "../src/cities.ts"
import { Server } from "./Demo.ts"

const topgun = join(import.meta.dirname, "../../cli/bin/topgun.js")

let directory: string
let server: Server
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "topgun-cities-"))
  server = new Server(join(directory, "data"))
  await server.start()
})
afterAll(async () => {
  await server.stop()
  await rm(directory, { recursive: true, force: true })
})

test("171,075 cities are imported, acknowledged PERSISTED, and another client gets every one, over a restart too", async () => {
  const file = join(directory, "cities.jsonl")
  const count = await writeCitiesFile(file)
  expect(count).toBe(171_075)
  const url = server.url.replace("http", "ws")
  const importing = spawn(process.execPath, [topgun, "import", file, "--map", "cities", "--key", "id", "--url", url], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  const [said] = await Promise.all([text(importing.stdout), once(importing, "exit")])
  expect(importing.exitCode).toBe(0)
  expect(said).toMatch(/^171,075 records in [\d.]+ s \([\d,]+\/s\), acknowledged PERSISTED/)

  const verify = async () => {
    const client = createClient({ url })
    const cities = client.map<City>("cities")
    await client.synced()
    const status = await client.serverStatus()
    expect(status.maps).toEqual([{ name: "cities", size: count, records: count, root: cities.digest }])
    let differing = 0
    for (const city of await readCities()) {
      const got = cities.get(city.id)
      if (got === undefined || JSON.stringify(got) !== JSON.stringify(sorted(city))) differing++
    }
    expect(differing).toBe(0)
    expect(cities.size).toBe(count)
    await client.close()
  }
  await verify()
  await server.stop()
  await server.start()
  await verify()
})

/** A value's fields come back in the order of their names. */
const sorted = (city: City): object => Object.fromEntries(Object.entries(city).sort(([a], [b]) => a < b ? -1 : 1))
