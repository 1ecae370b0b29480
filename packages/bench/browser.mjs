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

/**
 * What `run` comes to, and what each task of the page's main thread took meanwhile, in ms: by the clock, in which other
 * processes of the machine have their part, and of the processor.
 */
const traced = async (page, run) => {
  await browser.browser().startTracing(page, { categories: ["toplevel", "__metadata"] })
  const result = await run()
  const { traceEvents } = JSON.parse(await browser.browser().stopTracing())
  const mains = new Set(
    traceEvents.filter(({ args, name }) => name === "thread_name" && args.name === "CrRendererMain").map((event) =>
      `${event.pid} ${event.tid}`
    )
  )
  const tasks = traceEvents.filter((event) =>
    event.ph === "X" && event.name.endsWith("RunTask") && mains.has(`${event.pid} ${event.tid}`)
  )
  check(tasks.length > 100 && tasks.some(({ tdur }) => tdur > 0), "the browser tells of its tasks")
  return { result, tasks: tasks.map(({ dur, tdur }) => ({ wall: dur / 1000, cpu: (tdur ?? dur) / 1000 })) }
}
const distribution = (tasks) => {
  const of = (kind) => {
    const times = tasks.map((task) => task[kind])
    const counted = [16, 25, 50, 100].map((from) => `${times.filter((each) => each > from).length} over ${from}`)
    return `longest ${ms(Math.max(...times))} (${counted.join(", ")} ms)`
  }
  return `by the clock ${of("wall")}, of the processor ${of("cpu")}`
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
    const { result: synced, tasks } = await traced(
      page,
      () => page.evaluate(([url, of, on]) => window.sync(url, of, on), [server.url, count, isEncrypted])
    )
    check(synced.size === count, "all records are there")
    console.log(`${name}: in step from nothing ${ms(synced.synced)}, durable ${ms(synced.wall)}`)
    console.log(`${name}: tasks of that: ${distribution(tasks)}`)
    await page.close()
    const loads = []
    const loadTasks = []
    const load = () => page.evaluate(([url, on]) => window.load(url, on), [server.url, isEncrypted])
    for (let round = 0; round < 2 * rounds; round++) {
      page = await openPage()
      // Being watched takes time: half of the rounds are for the times, half for the tasks.
      const isTimed = round % 2 === 0
      const { result, tasks: ofRound } = isTimed ? { result: await load() } : await traced(page, load)
      check(result.size >= count && result.value !== undefined, "all records are there again")
      if (isTimed) loads.push(result)
      else loadTasks.push(...ofRound)
      if (round < 2 * rounds - 1) await page.close()
    }
    console.log(
      `${name}: first read ${ms(median(loads.map(({ first }) => first)))} (fastest ${
        ms(Math.min(...loads.map(({ first }) => first)))
      }), all ${ms(median(loads.map(({ wall }) => wall)))}`
    )
    console.log(`${name}: tasks of ${rounds} such loads: ${distribution(loadTasks)}`)
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
