/**
 * How long what is acknowledged below PERSISTED is in memory only: from `OpAck` at APPLIED to `Durable`, on SQLite, for one writer at a time, a
 * busy grid and one that is written as fast as it goes. `npm run bench:durable`; the clock is that of the one who waits.
 */
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as Protocol from "@topgun/core/Protocol"
import * as Value from "@topgun/core/Value"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { WebSocket } from "ws"
import { startCrowded } from "./plain.mjs"
import { check, recordOf } from "./records.mjs"

const seconds = process.argv.includes("--quick") ? 2 : 10
const pause = (wait) => new Promise((resolve) => setTimeout(resolve, wait))

/** A writer that notes when each of its batches was acknowledged, and when it was durable. */
const openWriter = async (url, name) => {
  const socket = new WebSocket(`${url}/ws`)
  await new Promise((resolve, reject) => {
    socket.once("open", resolve)
    socket.once("error", reject)
  })
  const windows = []
  const appliedAt = new Map()
  let sequence = 0
  let durableUpTo = -1
  let letIn
  const known = new Promise((resolve) => {
    letIn = resolve
  })
  let whenDurable = () => {}
  socket.on("message", (data) => {
    const now = performance.now()
    for (const message of Protocol.decodeFromServer(new Uint8Array(data))) {
      if (message._tag === "AuthAck") letIn()
      if (message._tag === "Fault" || message._tag === "OpReject") throw new Error(message.reason)
      if (message._tag === "OpAck") { for (const each of message.sequences) appliedAt.set(each, now) }
      if (message._tag !== "Durable") continue
      for (const [each, at] of appliedAt) {
        if (each > message.sequence) break
        windows.push(now - at)
        appliedAt.delete(each)
      }
      durableUpTo = message.sequence
      whenDurable()
    }
  })
  socket.send(
    Protocol.encode({
      _tag: "Auth",
      protocol: Protocol.version,
      nodeId: name,
      secret: null,
      token: null,
      confirmed: null
    })
  )
  await known
  let millis = 1
  return {
    windows,
    pending: () => sequence - 1 - durableUpTo,
    send: (count) => {
      const ops = Array.from({ length: count }, (_, i) => [
        sequence + i,
        `${name}-${(sequence + i) % 5_000}`,
        LwwRecord.put({ millis: millis++, counter: 0, nodeId: name }, Value.encode(recordOf(sequence + i))).row
      ])
      sequence += count
      socket.send(Protocol.encode({ _tag: "OpBatch", map: "m", kind: "lww", concern: "APPLIED", atomic: "no", ops }))
      return sequence - 1
    },
    /** Waits until the server has said `Durable` of something. */
    durable: () =>
      new Promise((resolve) => {
        whenDurable = resolve
      }),
    close: () => socket.close()
  }
}

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))]

const measure = async (what, writers, write) => {
  const dataDir = mkdtempSync(join(tmpdir(), "topgun-durable-"))
  const server = await startCrowded({ TOPGUN_DATA_DIR: dataDir })
  try {
    const open = await Promise.all(
      Array.from({ length: writers }, (_, i) => openWriter(server.url, `durable${String(i).padStart(9, "0")}`))
    )
    const until = performance.now() + seconds * 1_000
    await Promise.all(open.map((writer) => write(writer, () => performance.now() < until)))
    while (open.some((writer) => writer.pending() > 0)) await pause(10)
    const windows = open.flatMap((writer) => writer.windows).sort((a, b) => a - b)
    check(windows.length > 0, "something was written")
    for (const writer of open) writer.close()
    const [p50, p99, max] = [quantile(windows, 0.5), quantile(windows, 0.99), windows.at(-1)]
    console.log(
      `${what}: ${Math.round(windows.length / seconds).toLocaleString("en")} operations/s, ` +
        `APPLIED until durable p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms, max ${max.toFixed(1)} ms`
    )
  } finally {
    await server.stop()
    rmSync(dataDir, { recursive: true, force: true })
  }
}

await measure("one writer, one write at a time", 1, async (writer, goesOn) => {
  while (goesOn()) {
    const durable = writer.durable()
    writer.send(1)
    await durable
  }
})
await measure("50 writers, 20 writes a second each", 50, async (writer, goesOn) => {
  while (goesOn()) {
    writer.send(1)
    await pause(50)
  }
})
await measure("10 writers, as fast as it goes, 1,000 each in flight", 10, async (writer, goesOn) => {
  while (goesOn()) {
    writer.send(100)
    while (writer.pending() >= 1_000) await writer.durable()
    await pause(0)
  }
})
