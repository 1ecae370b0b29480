/**
 * What the server counts and measures, by the names under which it is found: all of them are in this file.
 *
 * The metrics are Effect's, in a registry of this server's own, so that several servers of one process are told apart. Their
 * hooks are looked up once: on the way of a batch they are plain calls on numbers, no Effect is entered. What is a state,
 * such as memory, is read when it is asked for.
 *
 * A label's values are of a fixed set. Names of maps, keys and users are none: they would tell those who may see metrics of data
 * that they may not, and their number is without a bound.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as MetricBoundaries from "effect/MetricBoundaries"
import type * as MetricHook from "effect/MetricHook"
import * as MetricKey from "effect/MetricKey"
import type * as MetricPair from "effect/MetricPair"
import * as MetricRegistry from "effect/MetricRegistry"
import * as Record from "effect/Record"
import { monitorEventLoopDelay } from "node:perf_hooks"
import * as GridError from "@topgun/core/GridError"
import { closeCodes } from "@topgun/core/Protocol"
import type { WriteConcern } from "@topgun/core/WriteConcern"
import type { Rejection } from "./Partitions.ts"
import { Partitions } from "./Partitions.ts"
import { Persistence } from "./Persistence.ts"
import { Phase, version } from "./Phase.ts"

/** The levels that the server acknowledges: it does no less than merge at once. */
export type Reached = Exclude<WriteConcern, "FIRE_AND_FORGET" | "MEMORY">
const reached: ReadonlyArray<Reached> = ["APPLIED", "REPLICATED", "PERSISTED"]

/** Why a connection isn't even opened. */
export type Refusal = "limit" | "memory" | "origin" | "path" | "phase" | "rate"

/** What is read when it is asked for, of the parts of a server that know it. */
const watched = {
  connections: ["topgun_connections", "Connections that are open, authenticated or not"],
  bufferedBytes: ["topgun_buffered_bytes", "Bytes that wait in connections until their readers take them"],
  waitingRows: ["topgun_commit_waiting_rows", "Records that wait for the database"],
  maps: ["topgun_maps", "Maps"],
  records: ["topgun_records", "Records in memory, tombstones included"],
  liveQueries: ["topgun_live_queries", "Live queries that are evaluated, each once for all who ask the same"],
  tombstones: ["topgun_tombstones", "Deletions that are remembered"],
  tombstonesForgotten: ["topgun_tombstones_forgotten", "Deletions that were forgotten since the server was started"],
  devicesKnown: ["topgun_devices_known", "Devices that deletions are remembered for"],
  devicesForgotten: ["topgun_devices_forgotten", "Devices that were away for too long, since the server was started"],
  uptimeSeconds: ["topgun_uptime_seconds", "Time since the server was ready"],
  residentBytes: ["topgun_resident_memory_bytes", "Memory of the process that is in RAM"],
  heapBytes: ["topgun_heap_used_bytes", "Memory of JavaScript objects"],
  externalBytes: ["topgun_external_memory_bytes", "Memory of buffers outside the heap, which records are in"],
  loopP50: ["topgun_event_loop_delay_p50_seconds", "How late the event loop was, median since the last look"],
  loopP99: ["topgun_event_loop_delay_p99_seconds", "How late the event loop was, 99th percentile since the last look"],
  loopMax: ["topgun_event_loop_delay_max_seconds", "How late the event loop was, at most, since the last look"]
} as const satisfies Readonly<{ [what: string]: readonly [name: string, help: string] }>

/** Something that is read when it is asked for. */
export type Watched = keyof typeof watched

/** What the server counts and measures. Plain calls: once a connection, a frame, a batch or a transaction, never once a record. */
export class Metrics extends Context.Tag("@topgun/server/Metrics")<Metrics, {
  readonly connectionOpened: () => void
  readonly connectionClosed: (code: number) => void
  readonly connectionRefused: (reason: Refusal) => void
  readonly frameReceived: (bytes: number) => void
  readonly frameSent: (bytes: number) => void
  /** Whether a device was let in, or a token taken: `accepted`, or the `_tag` of what stood against it. */
  readonly authenticated: (outcome: string) => void
  /** A batch was carried out. */
  readonly applied: (concern: WriteConcern, accepted: number, rejected: ReadonlyArray<Rejection>) => void
  /** A batch that came so many seconds ago has reached a level. */
  readonly acknowledged: (level: Reached, seconds: number) => void
  /** A client that reads slower than others write was cut off, or what it missed was left out, to be synchronised later. */
  readonly slowReader: (outcome: "cut" | "resynced") => void
  /** Shows what `read` answers from now on. */
  readonly watch: (what: Watched, read: () => number) => void
  /** All of them as they are now. What tells of the event loop begins anew with each. */
  readonly snapshot: Effect.Effect<ReadonlyArray<MetricPair.MetricPair.Untyped>>
}>() {}

const secondBounds = MetricBoundaries.fromIterable([
  0.0005,
  0.001,
  0.0025,
  0.005,
  0.01,
  0.025,
  0.05,
  0.1,
  0.25,
  0.5,
  1,
  2.5,
  5,
  10
])
const countBounds = MetricBoundaries.fromIterable([1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500])

/** How far apart the looks at the event loop are, in ms. */
const loopLookMillis = 20

/** How late the event loop is; what is asked for is told of the time since the last `reset`. */
const loopDelay = Effect.acquireRelease(
  Effect.sync(() => {
    const histogram = monitorEventLoopDelay({ resolution: loopLookMillis })
    histogram.enable()
    return histogram
  }),
  (histogram) => Effect.sync(() => void histogram.disable())
)

/** The error tags there are: one that isn't among them, as of a verifier's own making, is counted as "other". */
const tags: ReadonlySet<string> = new Set(Object.keys(GridError))
const codes: ReadonlySet<number> = new Set([...Object.values(closeCodes), 1005, 1006, 1011])

const make = Effect.gen(function*() {
  const partitions = yield* Partitions
  const persistence = yield* Persistence
  const phase = yield* Phase
  const loop = yield* loopDelay
  const registry = MetricRegistry.make()

  const counter = (name: string, description: string) =>
    registry.get(MetricKey.counter(name, { description, incremental: true }))
  /** Counters of one name, told apart by labels whose values are of fixed sets; each appears when it is first counted. */
  const counters = (name: string, description: string, ...labels: ReadonlyArray<string>) => {
    const hooks = new Map<string, MetricHook.MetricHook.Counter<number>>()
    return (by: number, ...values: ReadonlyArray<string>): void => {
      const id = values.join()
      let hook = hooks.get(id)
      if (hook === undefined) {
        const key = labels.reduce(
          (tagged, label, i) => MetricKey.tagged(tagged, label, values[i]!),
          MetricKey.counter(name, { description, incremental: true })
        )
        hooks.set(id, hook = registry.get(key))
      }
      hook.update(by)
    }
  }

  // --- Connections ---

  const opened = counter("topgun_connections_opened_total", "Connections that were opened")
  const closed = counters("topgun_connections_closed_total", "Connections that ended, by close code", "code")
  const refused = counters(
    "topgun_connections_refused_total",
    "Connections that were not opened: too many, a foreign origin, a wrong path, a server not ready",
    "reason"
  )
  const receivedFrames = counter("topgun_received_frames_total", "Frames from clients")
  const receivedBytes = counter("topgun_received_bytes_total", "Bytes of frames from clients")
  const sentFrames = counter("topgun_sent_frames_total", "Frames to clients")
  const sentBytes = counter("topgun_sent_bytes_total", "Bytes of frames to clients")
  const slow = counters(
    "topgun_slow_readers_total",
    "Times that a client read slower than others wrote: it was cut off, or is to synchronise again",
    "outcome"
  )
  const authentications = counters(
    "topgun_authentications_total",
    "Devices that were let in, tokens that were taken, and what stood against others",
    "outcome"
  )

  // --- Writes ---

  const operations = counters(
    "topgun_operations_total",
    "Writes, by what became of them and the level that their writer asked to be told of",
    "outcome",
    "concern"
  )
  const batchOperations = registry.get(
    MetricKey.histogram("topgun_batch_operations", countBounds, "Writes in a batch")
  )
  const acknowledgement = Object.fromEntries(reached.map((level) => [
    level,
    registry.get(MetricKey.tagged(
      MetricKey.histogram(
        "topgun_acknowledgement_seconds",
        secondBounds,
        "From a batch's receipt to its acknowledgement, by the level reached"
      ),
      "level",
      level
    ))
  ])) as { readonly [Level in Reached]: MetricHook.MetricHook.Histogram }
  const commitSeconds = registry.get(
    MetricKey.histogram("topgun_commit_seconds", secondBounds, "Time of a transaction of the database")
  )
  const commitRows = registry.get(
    MetricKey.histogram("topgun_commit_rows", countBounds, "Records in a transaction of the database")
  )
  const commitFailures = counter("topgun_commit_failures_total", "Transactions of the database that failed")
  persistence.observe((rows, seconds, isCommitted) => {
    if (!isCommitted) return commitFailures.update(1)
    commitRows.update(rows)
    commitSeconds.update(seconds)
  })

  // --- States ---

  registry.get(
    MetricKey.gauge("topgun_build_info", { description: "The versions of TopGun and of Node" }).pipe(
      MetricKey.tagged("version", version),
      MetricKey.tagged("node", process.version)
    )
  ).update(1)
  const gauges = Record.map(
    watched,
    ([name, description]) => registry.get(MetricKey.gauge(name, { description }))
  )
  const reads = new Map<Watched, () => number>()
  const watch = (what: Watched, read: () => number): void => {
    reads.set(what, read)
  }
  /** Late is what is beyond the time between two looks. */
  const lateness = (nanos: number): number => Math.max(0, nanos / 1e9 - loopLookMillis / 1e3)
  watch("waitingRows", persistence.waiting)
  watch("maps", () => partitions.counts().maps)
  watch("records", () => partitions.counts().records)
  watch("uptimeSeconds", () => phase.uptimeMillis() / 1_000)
  watch("loopP50", () => lateness(loop.percentile(50)))
  watch("loopP99", () => lateness(loop.percentile(99)))
  watch("loopMax", () => lateness(loop.max))
  watch("residentBytes", () => process.memoryUsage.rss())
  watch("heapBytes", () => process.memoryUsage().heapUsed)
  watch("externalBytes", () => process.memoryUsage().external)

  return Metrics.of({
    connectionOpened: () => opened.update(1),
    connectionClosed: (code) => closed(1, codes.has(code) ? String(code) : "other"),
    connectionRefused: (reason) => refused(1, reason),
    frameReceived: (bytes) => {
      receivedFrames.update(1)
      receivedBytes.update(bytes)
    },
    frameSent: (bytes) => {
      sentFrames.update(1)
      sentBytes.update(bytes)
    },
    authenticated: (outcome) => authentications(1, outcome === "accepted" || tags.has(outcome) ? outcome : "other"),
    applied: (concern, accepted, rejected) => {
      batchOperations.update(accepted + rejected.length)
      if (accepted > 0) operations(accepted, "accepted", concern)
      // Those of a batch are mostly refused for one reason.
      for (let from = 0; from < rejected.length;) {
        const { cause } = rejected[from]!
        let to = from + 1
        while (to < rejected.length && rejected[to]!.cause === cause) to++
        operations(to - from, tags.has(cause) ? cause : "other", concern)
        from = to
      }
    },
    acknowledged: (level, seconds) => acknowledgement[level].update(seconds),
    slowReader: (outcome) => slow(1, outcome),
    watch,
    snapshot: Effect.sync(() => {
      for (const [what, read] of reads) gauges[what].update(read())
      loop.reset()
      return registry.snapshot()
    })
  })
})

/** The metrics of one server: its own, whatever other servers the process has. */
export const layer: Layer.Layer<Metrics, never, Partitions | Persistence | Phase> = Layer.scoped(Metrics, make)
