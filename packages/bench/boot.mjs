/**
 * How long a server takes until it is ready with so many records in its database, and how long others wait for their turn
 * meanwhile. Run with `npm run bench:boot`; `--quick` takes a tenth of them.
 */
import { mkdtempSync, rmSync } from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { WebSocket } from "ws"
import * as Protocol from "@topgun/core/Protocol"
import { plain, startCrowded } from "./plain.mjs"

const count = process.argv.includes("--quick") ? 100_000 : 1_000_000
const each = 500
const [topgun] = plain
const rooms = Array.from({ length: 10 }, (_, n) => `boot${n}`)
const times = 3

/** Writes the records, and waits until they are on disk. */
const fill = async (url) =>
  Promise.all(rooms.map(async (room) => {
    const socket = new WebSocket(topgun.address(url, room), { perMessageDeflate: false })
    const heard = []
    let wake = () => {}
    socket.on("message", (frame) => {
      heard.push(frame)
      wake()
    })
    const next = async () => {
      while (heard.length === 0) await new Promise((resolve) => wake = resolve)
      return heard.shift()
    }
    await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject))
    await topgun.enter((frame) => socket.send(frame), next, room)
    const write = await topgun.makeWriter(room, each, { keys: count })
    for (let written = 0; written < count / rooms.length; written += each) {
      socket.send(write())
      for (let durable = false; !durable;) {
        durable = Protocol.decodeFromServer(await next()).some(({ _tag }) => _tag === "Durable")
      }
    }
    socket.close()
  }))

const dataDir = mkdtempSync(path.join(os.tmpdir(), "topgun-boot-"))
const environment = { TOPGUN_DATA_DIR: dataDir, TOPGUN_STORAGE: "sqlite", TOPGUN_SHUTDOWN_TIMEOUT: "60s" }
try {
  const first = await startCrowded(environment)
  await fill(first.url)
  await first.stop()
  const measured = []
  for (let i = 0; i < times; i++) {
    const server = await startCrowded(environment, { gauged: true })
    const { cpuMicros, delayMax, delayP99, rss } = await server.gauge()
    measured.push({ ready: server.readyMillis, cpu: cpuMicros, delayP99, delayMax, rss })
    await server.stop()
  }
  measured.sort((a, b) => a.ready - b.ready)
  const { cpu, delayMax, delayP99, ready, rss } = measured[Math.floor(times / 2)]
  console.log(`${os.cpus().length} × ${os.cpus()[0].model}, Node ${process.version}, median of ${times}\n`)
  console.log("| boot | SQLite | goal |\n|---|---:|---:|")
  console.log(`| ready with ${count.toLocaleString("en")} records | ${(ready / 1_000).toFixed(1)} s | 12 s |`)
  console.log(`| CPU time of that | ${(cpu / 1e6).toFixed(1)} s | |`)
  console.log(
    `| event loop's delay meanwhile, p99 (most) | ${delayP99.toFixed(0)} ms (${delayMax.toFixed(0)} ms) | 50 ms |`
  )
  console.log(`| resident memory then | ${(rss / 1024 ** 2).toFixed(0)} MiB | |`)
} finally {
  rmSync(dataDir, { recursive: true, force: true })
}
