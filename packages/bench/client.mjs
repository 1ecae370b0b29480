/**
 * The client engine: what a write costs, how fast operations leave, how fast a device gets what others have. Each figure is
 * of what a user sees, against a real server process that keeps its data in memory, beside published peers in the same run;
 * what was written is verified outside of what is measured. Medians of several rounds, each on a fresh client and map. Run
 * with `npm run bench:client`; words after it choose some of them: scenarios (set drain once fresh reconnect stream seen), and
 * contestants by the beginning of their names.
 */
import { makeClient } from "@topgun/client/facade"
import { createClient } from "@topgun/client/promise"
import * as Protocol from "@topgun/core/Protocol"
import * as Transport from "@topgun/core/Transport"
import * as os from "node:os"
import { isDeepStrictEqual } from "node:util"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { capacity, contestants, wireBytes } from "./contestants.mjs"
import { startOther } from "./processes.mjs"
import { check, count, keyOf, median, recordOf } from "./records.mjs"

const [topgun] = contestants
const scenarioNames = new Set(["set", "drain", "once", "fresh", "reconnect", "stream", "seen"])
const chosenScenarios = process.argv.slice(2).filter((word) => scenarioNames.has(word))
const chosenContestants = process.argv.slice(2).filter((word) => !scenarioNames.has(word))
const records = Array.from({ length: count }, (_, n) => recordOf(n))

const rows = []
const report = (what, figure, goal = "", cpu = "") => {
  rows.push([what, figure, goal, cpu])
  // At once, as a run takes minutes.
  console.error(`${what}: ${figure}`)
}
const whole = (number) => Math.round(number).toLocaleString("en")

/** Wall and CPU time of `run`, in ms: of this process and, where given, of the server's. */
const timed = async (run, server) => {
  const serverBefore = server?.cpuMillis() ?? 0
  const before = process.cpuUsage()
  const startedAt = performance.now()
  await run()
  const wall = performance.now() - startedAt
  const { system, user } = process.cpuUsage(before)
  return { wall, cpu: (system + user) / 1000, server: (server?.cpuMillis() ?? 0) - serverBefore }
}
const middle = (rounds) => rounds.toSorted((a, b) => a.wall - b.wall)[Math.floor(rounds.length / 2)]
const cpuOf = ({ cpu, other, server }) =>
  `${cpu.toFixed(0)} ms, server ${server} ms${other === undefined ? "" : `, other client ${other.toFixed(0)} ms`}`

const turn = () => new Promise((resolve) => setImmediate(resolve))

// --- Scenarios ---

/** What `map.set` costs the caller, while so many operations wait. */
const set = async () => {
  const calls = 1_000
  const warmUp = 20_000
  const round = async (pending) => {
    const client = createClient({ backpressure: { capacity } })
    const map = client.map("people")
    await client.ready()
    let last
    // One key, which is one operation: what is measured is a client that has run for a while.
    for (let i = 0; i < warmUp; i++) {
      last = map.set(keyOf(pending), records[i % count])
      if (i % calls === calls - 1) await last
    }
    for (let n = 0; n < pending; n++) last = map.set(keyOf(n), records[n])
    await last
    // They have waited for a while: the collector is done with what making them has left.
    await new Promise((resolve) => setTimeout(resolve, 300))
    const before = process.cpuUsage()
    const startedAt = performance.now()
    // Of the same records each time: as an application's, which are just made, they are in the processor's caches.
    for (let n = 0; n < calls; n++) last = map.set(keyOf(pending + n), records[n])
    const wall = performance.now() - startedAt
    const { system, user } = process.cpuUsage(before)
    await last
    const kept = performance.now() - startedAt
    check(map.size === pending + calls && map.get(keyOf(pending)).id === 0, "set is visible")
    check(client.status.current.pending === pending + calls, "set is pending")
    await client.close()
    const each = 1_000 / calls
    return { wall: wall * each, cpu: (system + user) / 1_000 * each, kept: kept * each }
  }
  for (let i = 0; i < 3; i++) await round(5_000)
  for (const pending of [0, 1_000, 50_000]) {
    const rounds = []
    for (let i = 0; i < (pending === 50_000 ? 9 : 15); i++) rounds.push(await round(pending))
    const { cpu, wall } = middle(rounds)
    const least = Math.min(...rounds.map((each) => each.wall))
    report(
      `\`map.set\` returns, ${whole(pending)} operations pending`,
      `${wall.toFixed(2)} µs (least ${least.toFixed(2)})`,
      "4 µs",
      `${cpu.toFixed(2)} µs`
    )
    report(
      "  until all of a tick with 1,000 are in memory storage, each",
      `${median(rounds.map((each) => each.kept)).toFixed(2)} µs`
    )
  }
}

/** A client with a transport that keeps what it sends, and the operations in it. */
const openWatched = (url, room, offline) => {
  const sent = []
  const real = Transport.makeWebSocket({ url })
  const transport = Layer.succeed(
    Transport.Transport,
    Transport.Transport.of({
      connect: (address) =>
        Effect.map(real.connect(address), (connection) => ({
          ...connection,
          send: (frame) => {
            sent.push(new Uint8Array(frame))
            connection.send(frame)
          }
        }))
    })
  )
  const client = makeClient({ url, autoConnect: !offline, backpressure: { capacity } }, { transport })
  return {
    client,
    map: client.map(room),
    sent,
    /** How often each operation was sent, by its sequence number. */
    times: () => {
      const times = new Map()
      for (const message of sent.flatMap((frame) => Array.from(Protocol.decodeFromClient(frame)))) {
        if (message._tag !== "OpBatch") continue
        for (const [sequence] of message.ops) times.set(sequence, (times.get(sequence) ?? 0) + 1)
      }
      return times
    }
  }
}

/** 10,000 operations that were made offline go to the server. */
const drain = async (server) => {
  const operations = 10_000
  const rounds = []
  for (let i = 0; i < 7; i++) {
    const room = `drain${i}`
    const client = createClient({ url: server.url, autoConnect: false, backpressure: { capacity } })
    const map = client.map(room)
    await client.ready()
    let last
    for (let n = 0; n < operations; n++) last = map.set(keyOf(n), records[n])
    await last
    check(client.status.current.pending === operations, "all were made offline")
    rounds.push(
      await timed(async () => {
        await client.connect()
        await client.synced()
      }, server)
    )
    const { maps } = await client.serverStatus()
    check(maps.find(({ name }) => name === room)?.root === map.digest, "the server has what the client has")
    check(map.size === operations && client.status.current.pending === 0, "nothing is pending")
    await client.close()
  }
  const round = middle(rounds)
  report(
    `${whole(operations)} operations made offline, until synced`,
    `${round.wall.toFixed(0)} ms (${whole(operations / round.wall * 1000)}/s)`,
    "2,000 ms",
    cpuOf(round)
  )
}

/** How often operations travel: of one tick online, and of a drain. */
const once = async (server) => {
  for (const [operations, offline] of [[500, false], [10_000, true]]) {
    const { client, map, sent, times } = openWatched(server.url, `once${operations}`, offline)
    await client.ready()
    if (!offline) await client.synced()
    const framesBefore = sent.length
    const bytesBefore = wireBytes()
    for (let n = 0; n < operations; n++) void map.set(keyOf(n), records[n])
    if (offline) await client.connect()
    await client.synced()
    const bytes = wireBytes() - bytesBefore
    const counts = Array.from(times().values())
    check(counts.length === operations, "every operation was sent")
    report(
      `${whole(operations)} writes of one tick, made ${offline ? "offline" : "online"}: how often each is sent`,
      `${Math.min(...counts)} to ${Math.max(...counts)} times, in ${sent.length - framesBefore} frames, ` +
        `${Math.round(bytes / operations)} B each on the wire with the answers`,
      "once"
    )
    await client.close()
  }
}

/** Fills a room with all records; resolves when a client that came later has them. */
const fill = async (contestant, url, room) => {
  const writer = contestant.open(url, room)
  const reader = contestant.open(url, room)
  await Promise.all([writer.ready(), reader.ready()])
  await Promise.all([writer.synced(), reader.synced()])
  const full = new Promise((resolve) => {
    const stop = reader.onChange(() => {
      if (reader.get(contestant.records - 1) === undefined || reader.size() < contestant.records) return
      stop()
      resolve(undefined)
    })
  })
  for (let n = 0; n < contestant.records; n += 1_000) {
    writer.together(() => {
      for (let i = n; i < n + 1_000; i++) writer.set(i, records[i])
    })
    await turn()
  }
  await writer.synced()
  await full
  const digest = writer.digest()
  await reader.close()
  await writer.close()
  return digest
}

/** A device that has nothing gets 100,000 records. */
const fresh = async (server, contestant) => {
  const { records: size } = contestant
  const digest = await fill(contestant, server.url, "fresh")
  const rounds = []
  for (let i = 0; i < 5; i++) {
    let client
    const before = wireBytes()
    const round = await timed(async () => {
      client = contestant.open(server.url, "fresh")
      await client.ready()
      await client.synced()
    }, server)
    rounds.push({ ...round, bytes: wireBytes() - before })
    check(client.size() === size && client.digest() === digest, "the fresh client has every record")
    for (let n = 0; n < size; n += 997) {
      check(isDeepStrictEqual(client.get(n), records[n]), "and its content")
    }
    await client.close()
  }
  const round = middle(rounds)
  const perSecond = ({ wall }) => whole(size / wall * 1000)
  const ours = contestant === topgun
  report(
    `${contestant.name}: a fresh client has ${whole(size)} records`,
    `${round.wall.toFixed(0)} ms, ${perSecond(round)} records/s (the first: ${perSecond(rounds[0])})`,
    ours ? "150,000/s" : "",
    cpuOf(round)
  )
  report(
    "  on the wire, a record",
    `${(median(rounds.map(({ bytes }) => bytes)) / size).toFixed(1)} B`,
    ours ? "100 B" : ""
  )
}

/** Two devices that both have 100,000 records wrote 50 each while they were offline; one after the other comes back. */
const reconnect = async (server, contestant) => {
  const { records: size } = contestant
  const ours = contestant === topgun
  const room = "reconnect"
  await fill(contestant, server.url, room)
  const other = startOther()
  try {
    await other.call("open", contestant.name, server.url, room)
    const client = contestant.open(server.url, room)
    await client.ready()
    await client.synced()
    const rounds = []
    for (let i = 0; i < 15; i++) {
      const stamp = `round ${i}`
      const mine = Array.from({ length: 50 }, (_, n) => (n * 1_999 + i) % size)
      const theirs = Array.from({ length: 50 }, (_, n) => (n * 1_997 + 50_021 + i) % size)
      await client.disconnect()
      await other.call("disconnect")
      client.together(() => {
        for (const n of mine) client.set(n, { ...records[n], stamp })
      })
      await other.call("write", theirs, stamp)
      await turn()
      await other.call("mark")
      await other.call("connect")
      await other.call("synced")
      const { bytes: theirBytes } = await other.call("spent")
      // The server of a contestant that isn't told what has arrived may have to ask for the other's writes first.
      if (contestant.acknowledges === false) await new Promise((resolve) => setTimeout(resolve, 200))
      const arrived = Promise.all(mine.map((n) => other.call("stamped", n, stamp)))
      const hasTheirs = () => theirs.every((n) => client.get(n).stamp === stamp)
      const seenTheirs = () =>
        new Promise((resolve) => {
          const look = () => {
            if (!hasTheirs()) return
            stop()
            resolve(undefined)
          }
          const stop = client.onChange(look)
          look()
        })
      const before = wireBytes()
      const round = await timed(async () => {
        await client.connect()
        await client.synced()
        if (!hasTheirs()) await seenTheirs()
      }, server)
      const bytes = wireBytes() - before
      await arrived
      const { bytes: allTheirBytes } = await other.call("spent")
      rounds.push({ ...round, bytes, theirBytes, events: allTheirBytes - theirBytes })
      check(hasTheirs(), "the client has the other's writes")
      check(client.digest() === await other.call("digest"), "both have equal roots")
    }
    const round = middle(rounds)
    const of = (field) => median(rounds.map((each) => each[field]))
    report(
      `${contestant.name}: back with 50 own and 50 other divergent records of ${whole(size)}, until synced`,
      `${round.wall.toFixed(1)} ms (least ${Math.min(...rounds.map(({ wall }) => wall)).toFixed(1)})`,
      ours ? "15 ms" : "",
      cpuOf(round)
    )
    report(
      "  on the wire, for both clients",
      `${((of("bytes") + of("theirBytes") + of("events")) / 1000).toFixed(1)} kB: this client ` +
        `${(of("bytes") / 1000).toFixed(1)}, the other ${(of("theirBytes") / 1000).toFixed(1)} when it came back, ` +
        `${(of("events") / 1000).toFixed(1)} of this one's writes`,
      ours ? "45 kB" : ""
    )
    await client.close()
  } finally {
    await other.stop()
  }
}

/** Single writes of one client, none awaited, until the other holds them all. */
const stream = async (server, contestant) => {
  const ours = contestant === topgun
  const { writes } = contestant
  const rounds = []
  for (let i = 0; i < 5; i++) {
    const room = `stream${i}`
    const other = startOther()
    try {
      await other.call("open", contestant.name, server.url, room)
      const client = contestant.open(server.url, room)
      await client.ready()
      await client.synced()
      const arrived = other.call("arrived", writes - 1)
      await other.call("mark")
      let startedAt
      let last
      const round = await timed(async () => {
        startedAt = process.hrtime.bigint()
        for (let n = 0; n < writes; n++) {
          client.set(n, records[n])
          if (n % 100 === 99) await turn()
        }
        last = await arrived
      }, server)
      const { cpuMillis } = await other.call("spent")
      rounds.push({ ...round, wall: Number(last.at - startedAt) / 1e6, other: cpuMillis })
      await client.synced()
      check(last.size === writes, "with the last write the other client has every other")
      check((await other.call("get", writes - 1)).id === writes - 1, "and its content")
      check(await other.call("digest") === client.digest(), "both have equal roots")
      await client.close()
    } finally {
      await other.stop()
    }
  }
  const round = middle(rounds)
  report(
    `${contestant.name}: ${whole(writes)} single writes, none awaited, until another client holds them`,
    `${whole(writes / round.wall * 1000)}/s`,
    ours ? "25,000/s" : "",
    cpuOf(round)
  )
}

/** One write at a time, until another client's listener is called. */
const seen = async (server, contestant) => {
  const ours = contestant === topgun
  const other = startOther()
  try {
    await other.call("open", contestant.name, server.url, "seen")
    await other.call("follow")
    const client = contestant.open(server.url, "seen")
    await client.ready()
    await client.synced()
    const percentiles = []
    for (let i = 0; i < 6; i++) {
      const delays = []
      for (let n = 0; n < 500; n++) {
        const value = i * 500 + n
        delays.push(
          await new Promise((resolve) => {
            other.onSeen(({ at, seen: value_ }) => {
              if (value_ === value) resolve(Number(at - startedAt) / 1e6)
            })
            const startedAt = process.hrtime.bigint()
            client.set(0, value)
          })
        )
      }
      delays.sort((a, b) => a - b)
      // The first round warms both processes up.
      if (i > 0) percentiles.push({ p50: delays[250], p99: delays[495] })
    }
    report(
      `${contestant.name}: a write is seen by another client, p50 (p99)`,
      `${median(percentiles.map(({ p50 }) => p50)).toFixed(2)} ms (${
        median(percentiles.map(({ p99 }) => p99)).toFixed(2)
      } ms)`,
      ours ? "0.7 ms" : ""
    )
    await client.close()
  } finally {
    await other.stop()
  }
}

const isChosen = (name) => chosenScenarios.length === 0 || chosenScenarios.includes(name)
const takesPart = ({ name }) =>
  chosenContestants.length === 0 || chosenContestants.some((word) => name.toLowerCase().startsWith(word.toLowerCase()))
if (isChosen("set") && takesPart(topgun)) await set()
for (const contestant of contestants.filter(takesPart)) {
  const ours = contestant === topgun
  const scenarios = Object.entries({ ...(ours ? { drain, once } : {}), fresh, reconnect, stream, seen })
  for (const [name, scenario] of scenarios) {
    if (!isChosen(name)) continue
    const server = await contestant.start()
    try {
      await scenario(server, contestant)
    } finally {
      await server.stop()
    }
  }
}

console.log(`\n${os.cpus().length} × ${os.cpus()[0]?.model}, Node ${process.version}, medians\n`)
console.log("| client | reached | goal | CPU of this client and others |\n|---|---|---|---|")
for (const row of rows) console.log(`| ${row.join(" | ")} |`)
