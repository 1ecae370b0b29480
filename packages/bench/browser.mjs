// oxlint-disable no-console
/**
 * The client in a real browser: how long a device with 100,000 records takes to be read, which tasks keep its main thread from
 * the user meanwhile, and what a durable write takes. Run with `npm run bench:browser`; needs a Chromium.
 */
import { existsSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer } from "node:http"
import * as os from "node:os"
import * as path from "node:path"
import { createClient } from "@topgun/client/promise"
import { chromium } from "playwright-core"
import { build } from "vite"
import { findChromium } from "../../scripts/chromium.mjs"
import { startServer } from "./processes.mjs"
import { check, count, keyOf, recordOf } from "./records.mjs"

const rounds = 5
const writes = 1_000

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]
const percentile = (values, share) => values.toSorted((a, b) => a - b)[Math.ceil(values.length * share) - 1]

/** The driver that encrypts, where there is one. */
const encryption = existsSync(path.join(import.meta.dirname, "../adapters/dist/encrypted.js"))

const buildPage = async () => {
  const { output } = await build({
    configFile: false,
    root: import.meta.dirname,
    logLevel: "warn",
    resolve: { conditions: ["module", "browser", "production"] },
    plugins: [{
      name: "encryption",
      resolveId: (id) => id === "@topgun/bench/encrypted" ? id : undefined,
      load: (id) =>
        id === "@topgun/bench/encrypted"
          ? encryption
            ? "export { encrypted } from \"@topgun/adapters/encrypted\""
            : "export const encrypted = undefined"
          : undefined
    }],
    build: {
      target: "es2022",
      write: false,
      modulePreload: false,
      rollupOptions: {
        input: { page: path.join(import.meta.dirname, "browser.page.mjs") },
        output: { entryFileNames: "[name].js" }
      }
    }
  })
  return new Map(output.map((file) => [`/${file.fileName}`, file.type === "chunk" ? file.code : file.source]))
}

const servePage = (files) =>
  new Promise((resolve) => {
    const server = createServer((request, response) => {
      const file = files.get(request.url)
      if (file === undefined) {
        response.writeHead(200, { "content-type": "text/html" }).end(
          "<!doctype html><script type=module src=/page.js></script>"
        )
      } else response.writeHead(200, { "content-type": "text/javascript" }).end(file)
    }).listen(0, "127.0.0.1", () => resolve(server))
  })

const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`
const tasks = (gaps) => {
  const longest = gaps.length === 0 ? "none over 16 ms" : `longest ${ms(Math.max(...gaps))}`
  const counted = [16, 25, 50, 100].map((from) => `${gaps.filter((gap) => gap > from).length} over ${from}`).join(", ")
  return `${longest} (${counted} ms)`
}

const folder = await mkdtemp(path.join(os.tmpdir(), "topgun-bench-"))
const server = await startServer({ TOPGUN_STORAGE: "memory", TOPGUN_ALLOWED_ORIGINS: "*" })
const pages = await servePage(await buildPage())
const browser = await chromium.launchPersistentContext(path.join(folder, "profile"), {
  executablePath: await findChromium(),
  args: ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
})
try {
  console.log(
    `${os.cpus().length} cores, ${os.cpus()[0].model}; ${browser.browser()?.version() ?? "Chromium"}; ${count} records`
  )
  const seed = createClient({ url: server.url, backpressure: { capacity: 2 * count } })
  const people = seed.map("people")
  await seed.ready()
  for (let n = 0; n < count; n++) people.set(keyOf(n), recordOf(n))
  await seed.synced()
  await seed.close()

  const openPage = async () => {
    const page = await browser.newPage()
    page.on("pageerror", (fault) => {
      throw fault
    })
    await page.goto(`http://127.0.0.1:${pages.address().port}/`)
    await page.waitForFunction(() => window.load !== undefined)
    return page
  }
  for (const isEncrypted of encryption ? [false, true] : [false]) {
    const name = isEncrypted ? "encrypted" : "plain"
    let page = await openPage()
    const synced = await page.evaluate(([url, of, on]) => window.sync(url, of, on), [server.url, count, isEncrypted])
    check(synced.size === count, "all records are there")
    console.log(
      `${name}: in step from nothing ${ms(synced.synced)}, durable ${ms(synced.wall)}; tasks: ${tasks(synced.gaps)}`
    )
    await page.close()
    const loads = []
    for (let round = 0; round < rounds; round++) {
      page = await openPage()
      const loaded = await page.evaluate(([url, on]) => window.load(url, on), [server.url, isEncrypted])
      check(loaded.size >= count && loaded.value !== undefined, "all records are there again")
      loads.push(loaded)
      if (round < rounds - 1) await page.close()
    }
    console.log(
      `${name}: first read ${ms(median(loads.map(({ first }) => first)))}, all ${
        ms(median(loads.map(({ wall }) => wall)))
      }; tasks of all ${rounds} rounds: ${tasks(loads.flatMap(({ gaps }) => gaps))}`
    )
    const times = await page.evaluate((of) => window.write(of), writes)
    console.log(
      `${name}: durable write p50 ${ms(percentile(times, 0.5))}, p99 ${ms(percentile(times, 0.99))}, longest ${
        ms(Math.max(...times))
      }`
    )
    await page.close()
  }
} finally {
  await browser.close()
  pages.close()
  pages.closeAllConnections()
  await server.stop()
  await rm(folder, { recursive: true, force: true, maxRetries: 10 })
}
