/**
 * The gateway: what an operation, a delivery, a connection cost the server, and how long clients wait for each other. Costs
 * are the server process's own CPU time and memory, which it tells itself (`gauge.mjs`), so that neither the load nor what
 * else the machine does is in them. Data is in memory, but for the restart and what is PERSISTED: in SQLite, and in PostgreSQL (at
 * `TOPGUN_BENCH_DATABASE_URL`, or one of its own). Beside TopGun in the same run, where the work is
 * the same, the servers of yjs and tinybase, and one that only hands frames on (`relay.mjs`). Run with
 * `npm run bench:gateway`; words after it choose scenarios (batches fresh singles one fanout latency idle paused snapshot restart persisted)
 * and contestants by the beginning of their names, `--quick` takes less of everything.
 */
import { mkdtempSync, rmSync } from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { contestants } from "./contestants.mjs"
import { makePostgresCluster } from "@topgun/testing/PostgresCluster"
import { persisting, plain, startCrowded } from "./plain.mjs"
import { startOther } from "./processes.mjs"
import { check, count as snapshotRecords, median, recordOf } from "./records.mjs"

const quick = process.argv.includes("--quick")
const words = process.argv.slice(2).filter((word) => !word.startsWith("--"))
const [topgun, relay] = plain
const columns = [topgun, ...plain.slice(1)]
const whole = (number) => Math.round(number).toLocaleString("en")
const micros = (number) => `${number.toFixed(1)} µs`
const millis = (number) => `${number.toFixed(2)} ms`
const least = Math.min
const shareOf = ({ share = 1 }) => share
const pause = (wait) => new Promise((resolve) => setTimeout(resolve, wait))

/** What was measured, by its words and then by contestant. */
const rows = new Map()
const report = (what, goal, { name }, figure) => {
  const row = rows.get(what) ?? { goal, figures: new Map() }
  row.figures.set(name, figure)
  rows.set(what, row)
  // At once, as a run takes minutes.
  console.error(`${what}, ${name}: ${figure}`)
}

/** The longest that TopGun's event loop let things wait, by scenario. */
const delays = new Map()
const noteDelay = (scenario, { name }, { delayMax, delayP99 }) => {
  if (name !== topgun.name) return
  const before = delays.get(scenario) ?? { p99: 0, max: 0 }
  delays.set(scenario, { p99: Math.max(before.p99, delayP99), max: Math.max(before.max, delayMax) })
}

/** A server of a contestant and a load process for it, both for as long as `use` takes. */
const withLoad = async (contestant, use) => {
  const server = await contestant.start({ gauged: true })
  const load = startOther("load.mjs")
  try {
    return await use(server, load, { contestant: contestant.name, url: server.url })
  } finally {
    await load.stop()
    await server.stop()
  }
}

/** CPU time of the server while `run` lasts, in µs, and how long that was, in ms. */
const measured = async (scenario, contestant, server, run) => {
  const { cpuMicros } = await server.gauge("reset")
  const startedAt = performance.now()
  const result = await run()
  const wall = performance.now() - startedAt
  const after = await server.gauge()
  noteDelay(scenario, contestant, after)
  return { cpu: after.cpuMicros - cpuMicros, wall, result }
}

/** Rounds of a load that is made before each is measured; the first warms up. */
const rounds = async (scenario, contestant, server, load, { ahead, frames, times }) => {
  const measurements = []
  for (let i = 0; i <= times; i++) {
    await load.call("prepare", frames)
    const measurement = await measured(scenario, contestant, server, () => load.call("drain", ahead))
    if (i > 0) measurements.push(measurement)
  }
  return measurements
}

const spread = (figures, form) => `${form(median(figures))} (least ${form(least(...figures))})`

// --- Scenarios ---

/** 50 connections, each with a map of its own and one subscriber of it, all at once. */
const writers = (scenario, what, goal, { each, frames, keys, window }) => (contestant) =>
  withLoad(contestant, async (server, load, who) => {
    const connections = 50
    const rooms = Array.from({ length: connections }, (_, n) => [`${scenario}${n}`, 1])
    await load.call("open", { ...who, each, keys, rooms })
    const times = quick ? 2 : 7
    const size = { ahead: window * each, frames: Math.ceil(frames * shareOf(contestant) / (quick ? 3 : 1)), times }
    const measurements = await rounds(scenario, contestant, server, load, size)
    const operations = connections * size.frames * each
    report(what, goal, contestant, spread(measurements.map(({ cpu }) => cpu / operations), micros))
  })

const batches = writers(
  "batches",
  "50 connections, each with a map and a subscriber, batches of 100 operations: server CPU of an operation",
  "4 µs",
  { each: 100, frames: 20, keys: 1_000, window: 2 }
)
const fresh = writers(
  "fresh",
  "… each of a new record",
  "",
  { each: 100, frames: 20, window: 2 }
)
const singles = writers(
  "singles",
  "… single operations, pipelined",
  "15 µs",
  { each: 1, frames: 1_000, keys: 1_000, window: 20 }
)

/** One write after the other. */
const one = (contestant) => {
  if (contestant.acknowledges !== true) return undefined
  return withLoad(contestant, async (server, load, who) => {
    await load.call("open", { ...who, each: 1, rooms: [["one", 0]] })
    const spans = []
    for (let i = 0; i <= (quick ? 2 : 7); i++) {
      await load.call("prepare", quick ? 500 : 2_000)
      const { result } = await measured("one", contestant, server, () => load.call("one"))
      if (i > 0) spans.push(result)
    }
    report(
      "one write at a time, until acknowledged: p50 (p99)",
      "0.5 ms",
      contestant,
      `${millis(median(spans.map(({ p50 }) => p50)))} (${millis(median(spans.map(({ p99 }) => p99)))})`
    )
  })
}

/** One writer of single operations, 100 subscribers. */
const fanout = (contestant) =>
  withLoad(contestant, async (server, load, who) => {
    const subscribers = 100
    await load.call("open", { ...who, each: 1, rooms: [["fanout", subscribers]] })
    const frames = Math.ceil((quick ? 1_000 : 3_000) * shareOf(contestant))
    const measurements = await rounds("fanout", contestant, server, load, {
      ahead: 200,
      frames,
      times: quick ? 2 : 7
    })
    report(
      "one writer of single operations, 100 subscribers: deliveries per second of server CPU",
      "150,000",
      contestant,
      whole(median(measurements.map(({ cpu }) => frames * subscribers * 1e6 / cpu)))
    )
  })

/** 200 writes a second of one, seen by 49 others: all contestants in turns, so that the machine is the same to all. */
const latency = async (taking) => {
  const running = []
  try {
    for (const contestant of taking) {
      const server = await contestant.start({ gauged: true })
      const load = startOther("load.mjs")
      running.push({ contestant, server, load, spans: [], cpu: [] })
      await load.call("open", { contestant: contestant.name, url: server.url, each: 1, rooms: [["latency", 49]] })
    }
    const frames = quick ? 200 : 800
    for (let i = 0; i <= (quick ? 2 : 7); i++) {
      for (const { contestant, cpu, load, server, spans } of running) {
        await load.call("prepare", frames)
        const measurement = await measured("latency", contestant, server, () => load.call("pace", 200))
        if (i === 0) continue
        spans.push(measurement.result)
        cpu.push(measurement.cpu / frames)
      }
    }
    for (const { contestant, cpu, spans } of running) {
      const base = running.find((each) => each.contestant === relay)?.spans
      const figure = (field, of = spans) => median(of.map((span) => span[field]))
      const ratio = (field) =>
        base === undefined || contestant === relay
          ? ""
          : `, ${(figure(field) / figure(field, base)).toFixed(2)} ×`
      for (const [field, what] of [["p50", "p50"], ["p99", "p99"]]) {
        report(
          `200 writes a second, 50 clients on the map, until another has it: ${what}`,
          "1.3 × ws alone",
          contestant,
          `${millis(figure(field))}${ratio(field)}`
        )
      }
      report("… server CPU of one write and its 49 deliveries", "", contestant, micros(median(cpu)))
    }
  } finally {
    for (const { load, server } of running) {
      await load.stop()
      await server.stop()
    }
  }
}

/** Anonymous connections that follow one map and do nothing but ping. */
const idle = async () => {
  const processes = 2
  const size = quick ? 500 : 5_000
  const server = await topgun.start({ gauged: true })
  const loads = Array.from({ length: processes }, () => startOther("load.mjs"))
  const crowd = (count) =>
    Promise.all(
      loads.map((load) => load.call("crowd", { contestant: topgun.name, count, room: "idle", url: server.url }))
    )
  try {
    // What the first ones cost is the code's.
    await crowd(20)
    await loads[0].call("close")
    await loads[1].call("close")
    await pause(1_000)
    const before = await server.gauge("collect")
    await server.gauge("reset")
    await crowd(size / processes)
    // They have pinged once or twice.
    await pause(quick ? 5_000 : 10_000)
    const after = await server.gauge()
    noteDelay("idle", topgun, after)
    const collected = await server.gauge("collect")
    const each = (bytes) => `${(bytes / size / 1024).toFixed(1)} KiB`
    const what = `${whole(size)} anonymous connections, each with a map open: `
    report(`${what}server RSS of one`, "40 KiB", topgun, each(after.rss - before.rss))
    report(
      "… and heap and buffers, garbage collected",
      "",
      topgun,
      each(
        collected.heapUsed + collected.external - before.heapUsed - before.external
      )
    )
  } finally {
    for (const load of loads) await load.stop()
    await server.stop()
  }
}

/** A reader of 4 MB a second stops reading, soon with more behind it than kernels take, while 49 others have 200 writes a second. */
const paused = async () => {
  const seconds = quick ? 3 : 6
  const server = await topgun.start({ gauged: true })
  const served = startOther("load.mjs")
  const who = { contestant: topgun.name, url: server.url }
  const costs = []
  try {
    await served.call("open", { ...who, each: 1, keys: 100, rooms: [["served", 49]] })
    for (let i = 0; i < (quick ? 2 : 4); i++) {
      const bulk = startOther("load.mjs")
      await bulk.call("open", { ...who, each: 10, bytes: 4_096, keys: 2, rooms: [["bulk", 1]] })
      const phase = async () => {
        await served.call("prepare", 200 * seconds)
        await bulk.call("prepare", 100 * seconds)
        const { result: [span] } = await measured(
          "paused",
          topgun,
          server,
          () => Promise.all([served.call("pace", 200), bulk.call("pace", 100)])
        )
        return { ...span, ...await server.gauge("collect") }
      }
      const before = await phase()
      await bulk.call("pause")
      const after = await phase()
      const bytes = after.heapUsed + after.external - before.heapUsed - before.external
      // The first warms up.
      if (i > 0) costs.push({ bytes, p99: after.p99, ratio: after.p99 / before.p99 })
      await bulk.stop()
    }
    const figure = (field) => median(costs.map((cost) => cost[field]))
    report(
      "a reader of 4 MB/s stops reading: what waits for it in the server's memory",
      "1 MiB",
      topgun,
      `${(figure("bytes") / 1024 / 1024).toFixed(2)} MiB`
    )
    report(
      "… p99 of what 49 others are sent meanwhile, beside before",
      "2 ×",
      topgun,
      `${millis(figure("p99"))}, ${figure("ratio").toFixed(2)} ×`
    )
  } finally {
    await served.stop()
    await server.stop()
  }
}

/** A fresh client takes 100,000 records: what it costs, and what others wait. */
const snapshot = async () => {
  const server = await topgun.start({ gauged: true })
  const [{ open }] = contestants
  try {
    const writer = open(server.url, "snapshot")
    await writer.ready()
    for (let n = 0; n < snapshotRecords; n++) {
      writer.set(n, recordOf(n))
      if (n % 1_000 === 999) await new Promise((resolve) => setImmediate(resolve))
    }
    await writer.synced()
    const costs = []
    for (let i = 0; i < (quick ? 2 : 5); i++) {
      const { cpu } = await measured("snapshot", topgun, server, async () => {
        const reader = open(server.url, "snapshot")
        await reader.ready()
        await reader.synced()
        check(reader.size() === snapshotRecords, "the reader has all records")
        await reader.close()
      })
      costs.push(cpu / snapshotRecords)
    }
    await writer.close()
    report(
      `a fresh client takes ${whole(snapshotRecords)} records: server CPU of a record`,
      "",
      topgun,
      spread(costs, micros)
    )
  } finally {
    await server.stop()
  }
}

/** 1,000 devices in rooms of 50, each of which wrote while the server, which keeps its data in SQLite, was away. */
const restart = async () => {
  const processes = 4
  const size = quick ? 100 : 1_000
  const rooms = Array.from({ length: size / 50 }, (_, n) => `room${n}`)
  const records = 200
  const dataDir = mkdtempSync(path.join(os.tmpdir(), "topgun-bench-"))
  const start = (port) => startCrowded({ TOPGUN_STORAGE: "sqlite", TOPGUN_DATA_DIR: dataDir }, { gauged: true, port })
  let server = await start(0)
  const crowds = Array.from({ length: processes }, () => startOther("crowd.mjs"))
  const all = (name, ...args) => Promise.all(crowds.map((crowd) => crowd.call(name, ...args)))
  try {
    for (const [i, crowd] of crowds.entries()) {
      await crowd.call("open", { count: size / processes, first: i * size / processes, rooms, url: server.url })
    }
    await crowds[0].call("fill", { records, rooms: rooms.length })
    await all("converged", records)
    const { port } = server
    await server.stop()
    await all("write")
    const sum = (figures) => figures.reduce((total, figure) => total + figure, 0)
    const before = sum(await all("cpuMillis"))
    const converged = all("converged", records + size / rooms.length)
    const startedAt = Number(process.hrtime.bigint() / 1_000_000n)
    server = await start(port)
    const { readyMillis } = server
    const took = Math.max(...await converged) - startedAt
    const digests = (await all("digests")).flat()
    check(new Set(digests).size === rooms.length, "the devices of a room are equal")
    const cost = await server.gauge()
    noteDelay("restart", topgun, cost)
    report(
      `${whole(size)} devices, each of which wrote meanwhile, are equal again after a restart of the server`,
      "10 s",
      topgun,
      `${(took / 1_000).toFixed(1)} s (it was ready after ${(readyMillis / 1_000).toFixed(1)} s)`
    )
    const own = (sum(await all("cpuMillis")) - before) / size
    report(
      "… server CPU of a device, and its own",
      "",
      topgun,
      `${millis(cost.cpuMicros / 1_000 / size)}, ${millis(own)}`
    )
    await all("close")
  } finally {
    for (const crowd of crowds) await crowd.stop()
    await server.stop()
    rmSync(dataDir, { recursive: true, force: true })
  }
}

/** Writes that are acknowledged when they are on the disk, in a database. */
const persistedIn = async (database, environment) => {
  const contestant = { ...persisting, start: (options) => startCrowded(environment, options) }
  const times = quick ? 2 : 7
  const connections = 50
  const rooms = (name) => Array.from({ length: connections }, (_, n) => [`${name}${n}`, 0])
  await withLoad(contestant, async (server, load, who) => {
    const each = 100
    await load.call("open", { ...who, each, rooms: rooms("batches") })
    const frames = quick ? 5 : 15
    const operations = connections * frames * each
    const measurements = await rounds(`batches into ${database}`, topgun, server, load, {
      ahead: 2 * each,
      frames,
      times
    })
    report(
      `PERSISTED in ${database}, 50 connections, batches of 100 operations: server CPU of an operation`,
      "",
      topgun,
      spread(measurements.map(({ cpu }) => cpu / operations), micros)
    )
    report(
      `… operations a second into ${database}`,
      "",
      topgun,
      whole(median(measurements.map(({ wall }) => operations * 1_000 / wall)))
    )
  })
  await withLoad(contestant, async (server, load, who) => {
    const perSecond = 2_000
    await load.call("open", { ...who, each: 1, rooms: rooms("singles") })
    const frames = perSecond / connections * (quick ? 1 : 3)
    const costs = []
    for (let i = 0; i <= times; i++) {
      await load.call("prepare", frames)
      const { cpu, result } = await measured(
        `singles into ${database}`,
        topgun,
        server,
        () => load.call("paceAcknowledged", perSecond)
      )
      if (i > 0) costs.push({ cpu: cpu / (frames * connections), ...result })
    }
    const figure = (field) => median(costs.map((cost) => cost[field]))
    report(
      `PERSISTED in ${database}, 2,000 single writes a second of 50 connections, until acknowledged: p50 (p99)`,
      "",
      topgun,
      `${millis(figure("p50"))} (${millis(figure("p99"))})`
    )
    report(`… server CPU of a write in ${database}`, "", topgun, micros(figure("cpu")))
  })
}

const persisted = async () => {
  const dataDir = mkdtempSync(path.join(os.tmpdir(), "topgun-bench-"))
  try {
    await persistedIn("SQLite", { TOPGUN_STORAGE: "sqlite", TOPGUN_DATA_DIR: dataDir })
  } finally {
    rmSync(dataDir, { recursive: true, force: true })
  }
  const given = process.env.TOPGUN_BENCH_DATABASE_URL
  const cluster = given === undefined ? await makePostgresCluster() : undefined
  try {
    await persistedIn("PostgreSQL", { TOPGUN_STORAGE: "postgres", TOPGUN_DATABASE_URL: given ?? cluster?.url() })
  } finally {
    await cluster?.remove()
  }
}

// --- The run ---

const beside = { batches, fresh, singles, one, fanout }
const alone = { idle, paused, snapshot, restart, persisted }
const names = new Set([...Object.keys(beside), "latency", ...Object.keys(alone)])
const chosen = words.filter((word) => names.has(word))
const peers = words.filter((word) => !names.has(word))
const isChosen = (name) => chosen.length === 0 || chosen.includes(name)
const takesPart = ({ name }) =>
  peers.length === 0 || peers.some((word) => name.toLowerCase().startsWith(word.toLowerCase()))

for (const [name, scenario] of Object.entries(beside)) {
  if (!isChosen(name)) continue
  for (const contestant of columns.filter(takesPart)) await scenario(contestant)
}
if (isChosen("latency")) await latency(columns.filter(takesPart))
for (const [name, scenario] of Object.entries(alone)) {
  if (isChosen(name) && takesPart(topgun)) await scenario()
}
for (const [scenario, { max, p99 }] of delays) {
  report(
    `event loop of the server, ${scenario}: delay p99`,
    "50 ms",
    topgun,
    `${p99.toFixed(0)} ms (most ${max.toFixed(0)})`
  )
}

console.log(`\n${os.cpus().length} × ${os.cpus()[0]?.model}, Node ${process.version}, medians\n`)
const cells = (row) => `| ${row.join(" | ")} |`
console.log(cells(["gateway", topgun.name, "goal", ...columns.slice(1).map(({ name }) => name)]))
console.log(`|---|---:|---:|${columns.slice(1).map(() => "---:|").join("")}`)
for (const [what, { figures, goal }] of rows) {
  console.log(
    cells([what, figures.get(topgun.name) ?? "", goal, ...columns.slice(1).map(({ name }) => figures.get(name) ?? "")])
  )
}
