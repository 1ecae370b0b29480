import { describe, expect, it } from "@effect/vitest"
import { StorageUnavailable } from "@topgun/core/GridError"
import * as CrdtStore from "@topgun/core/CrdtStore"
import * as Hlc from "@topgun/core/Hlc"
import * as MerkleSync from "@topgun/core/MerkleSync"
import * as PartitionRouter from "@topgun/core/PartitionRouter"
import * as Capacity from "@topgun/server/Capacity"
import * as Metrics from "@topgun/server/Metrics"
import * as Partitions from "@topgun/server/Partitions"
import * as Phase from "@topgun/server/Phase"
import * as Persistence from "@topgun/server/Persistence"
import * as Prometheus from "@topgun/server/Prometheus"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as Tombstones from "@topgun/server/Tombstones"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Arbitrary from "effect/Arbitrary"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as MetricBoundaries from "effect/MetricBoundaries"
import * as MetricKey from "effect/MetricKey"
import * as MetricRegistry from "effect/MetricRegistry"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/TestClock"
import { get } from "node:http"
import {
  authAnew,
  batch,
  inProcess,
  inProcessReady,
  openMap,
  overSocket,
  overSocketReady,
  put,
  settled
} from "./PlainClient.ts"

const token = "a-token-of-metrics"

/** What `/metrics` of the server answers. */
const scrape = (authorization?: string) =>
  Effect.flatMap(TopGunServer.TopGunServer, ({ address }) =>
    Effect.promise(async () => {
      const response = await fetch(
        `http://127.0.0.1:${address!.port}/metrics`,
        authorization === undefined ? {} : { headers: { authorization } }
      )
      return { status: response.status, type: response.headers.get("content-type"), text: await response.text() }
    }))

const memory = (settings: Partial<ServerConfig.Settings> = {}) =>
  TopGunServer.layer({ port: 0, storage: "memory", ...settings })

/** A server without sockets, and its metrics. */
const measured = TopGunServer.layerInProcess()

/** The metrics of a server, as text. */
const text = Effect.map(
  Effect.flatMap(TopGunServer.TopGunServer, ({ metrics }) => metrics),
  Prometheus.render
)

/** What a sample says; `undefined` where there is none such. */
const valueOf = (exposition: string, sample: string): number | undefined => {
  const line = exposition.split("\n").find((each) => each.startsWith(`${sample} `))
  return line === undefined ? undefined : Number(line.slice(sample.length + 1))
}

describe("Prometheus text", () => {
  it("tells what is escaped, and stands together by name", () => {
    const registry = MetricRegistry.make()
    const key = MetricKey.counter("a_total", { description: "back\\slash\nand line" })
    registry.get(MetricKey.tagged(key, "what", "\"quoted\"\\\n")).update(2)
    registry.get(MetricKey.gauge("b")).update(1.5)
    registry.get(MetricKey.tagged(key, "what", "plain")).update(1)
    expect(Prometheus.render(registry.snapshot())).toBe([
      "# HELP a_total back\\\\slash\\nand line",
      "# TYPE a_total counter",
      "a_total{what=\"\\\"quoted\\\"\\\\\\n\"} 2",
      "a_total{what=\"plain\"} 1",
      "# TYPE b gauge",
      "b 1.5",
      ""
    ].join("\n"))
  })

  it.prop(
    "shows a histogram by what is below each of its bounds, and at +Inf all",
    [Arbitrary.make(Schema.Array(Schema.Int.pipe(Schema.between(0, 6))))],
    ([values]) => {
      const registry = MetricRegistry.make()
      const hook = registry.get(MetricKey.histogram("h", MetricBoundaries.fromIterable([1, 3, 5])))
      for (const value of values) hook.update(value)
      const exposition = Prometheus.render(registry.snapshot())
      const below = (bound: number) => values.filter((value) => value <= bound).length
      for (const bound of [1, 3, 5]) expect(valueOf(exposition, `h_bucket{le="${bound}"}`)).toBe(below(bound))
      expect(valueOf(exposition, "h_bucket{le=\"+Inf\"}")).toBe(values.length)
      expect(valueOf(exposition, "h_count")).toBe(values.length)
      expect(valueOf(exposition, "h_sum")).toBe(values.reduce((sum, value) => sum + value, 0))
    }
  )
})

describe("Metrics", () => {
  it.effect("count writes by what became of them, and their batches", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* client.send(
        batch("todos", "APPLIED", 0, [["1", put("a")], ["2", put("b")], ["3", Uint8Array.of(1)]]),
        batch("todos", "PERSISTED", 3, [["1", put("c")]])
      )
      yield* client.take("OpAck")
      const exposition = yield* text
      expect(valueOf(exposition, "topgun_operations_total{concern=\"APPLIED\",outcome=\"accepted\"}")).toBe(2)
      expect(valueOf(exposition, "topgun_operations_total{concern=\"APPLIED\",outcome=\"MalformedMessage\"}")).toBe(1)
      expect(valueOf(exposition, "topgun_operations_total{concern=\"PERSISTED\",outcome=\"WriteRejected\"}")).toBe(1)
      expect(valueOf(exposition, "topgun_batch_operations_sum")).toBe(4)
      expect(valueOf(exposition, "topgun_batch_operations_count")).toBe(2)
      expect(valueOf(exposition, "topgun_acknowledgement_seconds_count{level=\"APPLIED\"}")).toBe(1)
      expect(valueOf(exposition, "topgun_maps")).toBe(1)
      expect(valueOf(exposition, "topgun_records")).toBe(2)
    }).pipe(Effect.provide(measured)))

  it.effect("count connections, their frames, and what becomes of their authentication", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const stranger = yield* inProcess
      yield* stranger.send({ ...authAnew(), token: "no such" })
      yield* stranger.closed
      const garbler = yield* inProcess
      yield* garbler.sendBytes(Uint8Array.of(0xc1))
      yield* garbler.closed
      const open = yield* text
      expect(valueOf(open, "topgun_connections_opened_total")).toBe(3)
      expect(valueOf(open, "topgun_connections")).toBe(1)
      expect(valueOf(open, "topgun_received_frames_total")).toBe(3)
      expect(valueOf(open, "topgun_sent_frames_total")).toBe(3)
      expect(valueOf(open, "topgun_authentications_total{outcome=\"accepted\"}")).toBe(1)
      expect(valueOf(open, "topgun_authentications_total{outcome=\"AuthRequired\"}")).toBe(1)
      expect(valueOf(open, "topgun_authentications_total{outcome=\"MalformedMessage\"}")).toBe(1)
      expect(valueOf(open, "topgun_connections_closed_total{code=\"4401\"}")).toBe(1)
      client.connection.close(4999, "a code of its own")
      yield* settled
      const closed = yield* text
      expect(valueOf(closed, "topgun_connections")).toBe(0)
      expect(valueOf(closed, "topgun_connections_closed_total{code=\"other\"}")).toBe(1)
    }).pipe(Effect.provide(measured)))

  it.effect("measure from receipt to commit, and what a commit takes, has and waits for", () => {
    const commits: Array<() => void> = []
    const driver: Persistence.Driver = {
      kind: "slow",
      generation: "g",
      nodeId: "server0000000000",
      notes: new Map(),
      load: () => Effect.void,
      snapshot: Effect.dieMessage("nobody backs this up"),
      commit: () =>
        Effect.async<void, StorageUnavailable>((resume) => {
          commits.push(() => resume(Effect.void))
          commits.push(() => resume(new StorageUnavailable({ reason: "no disk" })))
        })
    }
    return Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* client.send(batch("todos", "PERSISTED", 0, [["1", put("a")], ["2", put("b")]]))
      yield* settled
      yield* settled
      expect(valueOf(yield* text, "topgun_commit_waiting_rows")).toBe(2)
      yield* TestClock.adjust(30)
      commits[0]!()
      yield* client.take("OpAck")
      const exposition = yield* text
      expect(valueOf(exposition, "topgun_commit_waiting_rows")).toBe(0)
      expect(valueOf(exposition, "topgun_commit_rows_sum")).toBe(2)
      expect(valueOf(exposition, "topgun_commit_seconds_sum")).toBeCloseTo(0.03)
      expect(valueOf(exposition, "topgun_acknowledgement_seconds_sum{level=\"PERSISTED\"}")).toBeCloseTo(0.03)
      expect(valueOf(exposition, "topgun_acknowledgement_seconds_bucket{level=\"PERSISTED\",le=\"0.025\"}")).toBe(0)
      expect(valueOf(exposition, "topgun_acknowledgement_seconds_bucket{level=\"PERSISTED\",le=\"0.05\"}")).toBe(1)
      yield* client.send(batch("todos", "PERSISTED", 2, [["3", put("c")]]))
      yield* settled
      yield* settled
      commits[3]!()
      yield* client.closed
      expect(valueOf(yield* text, "topgun_commit_failures_total")).toBe(1)
      commits.length = 0
      yield* TestClock.adjust(100)
      yield* settled
      yield* settled
      commits[0]!()
    }).pipe(Effect.provide(over(driver)))
  })

  it.effect("of two servers in one process are two", () =>
    Effect.gen(function*() {
      const build = Effect.map(Layer.build(Layer.fresh(measured)), Context.get(TopGunServer.TopGunServer))
      const one = yield* build
      const other = yield* build
      const client = yield* Effect.provideService(inProcessReady, TopGunServer.TopGunServer, one)
      yield* client.send(batch("todos", "APPLIED", 0, [["1", put("a")]]))
      yield* client.take("OpAck")
      const opened = (server: typeof one) =>
        Effect.map(server.metrics, (pairs) => valueOf(Prometheus.render(pairs), "topgun_connections_opened_total"))
      expect(yield* opened(one)).toBe(1)
      expect(yield* opened(other)).toBe(0)
    }).pipe(Effect.scoped))

  it.effect("have labels of fixed sets only: no map, key, user, node or value", () =>
    Effect.gen(function*() {
      const metrics = yield* Metrics.Metrics
      metrics.authenticated("canary-outcome")
      metrics.connectionClosed(4242)
      metrics.applied("APPLIED", 0, [{ sequence: 0, cause: "canary-cause", reason: "canary-reason" }])
      const exposition = Prometheus.render(yield* metrics.snapshot)
      expect(exposition).not.toContain("canary")
      expect(exposition).not.toContain("4242")
      expect(valueOf(exposition, "topgun_operations_total{concern=\"APPLIED\",outcome=\"other\"}")).toBe(1)
    }).pipe(Effect.provide(alone)))

  it.effect("grow by no more series than there are reasons, however many clients and maps there are", () =>
    Effect.gen(function*() {
      const busy = Effect.fnUntraced(function*(turn: number) {
        const client = yield* inProcessReady
        yield* client.send(
          openMap(`canary-map-${turn}`),
          batch(`canary-map-${turn}`, "APPLIED", 0, [[`canary-key-${turn}`, put(`canary-value-${turn}`)]])
        )
        yield* client.take("OpAck")
        return (yield* text).split("\n").filter((line) => line !== "").map((line) => line.split(" ")[0])
      })
      const before = yield* busy(0)
      yield* busy(1)
      expect(yield* busy(2)).toEqual(before)
      expect(yield* text).not.toContain("canary")
    }).pipe(Effect.provide(measured)))

  it.scoped("are at /metrics of a server that only this machine reaches", () =>
    Effect.gen(function*() {
      const client = yield* overSocketReady
      yield* client.send(batch("todos", "APPLIED", 0, [["1", put("a")]]))
      yield* client.take("OpAck")
      const { status, text: exposition, type } = yield* scrape()
      expect(status).toBe(200)
      expect(type).toBe("text/plain; version=0.0.4; charset=utf-8")
      expect(valueOf(exposition, "topgun_connections")).toBe(1)
      expect(valueOf(exposition, "topgun_resident_memory_bytes")).toBeGreaterThan(1e6)
      expect(valueOf(exposition, "topgun_event_loop_delay_max_seconds")).toBeGreaterThanOrEqual(0)
      expect(exposition).toMatch(/^topgun_build_info\{node="v\d+[^"]*",version="[\d.]+"\} 1$/m)
      for (const line of exposition.split("\n").slice(0, -1)) {
        expect(line).toMatch(/^(# (HELP|TYPE) topgun_\w+ .+|topgun_\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [\d.e+-]+)$/)
      }
    }).pipe(Effect.provide(memory())))

  it.scoped("aren't shown to pages whose name was made to lead here", () =>
    Effect.gen(function*() {
      const { address } = yield* TopGunServer.TopGunServer
      const statusFor = (host: string) =>
        Effect.async<number>((resume) => {
          get(`http://127.0.0.1:${address!.port}/metrics`, { headers: { host }, agent: false }, (response) => {
            response.resume()
            resume(Effect.succeed(response.statusCode!))
          })
        })
      expect(yield* statusFor(`evil.example:${address!.port}`)).toBe(404)
      for (const host of ["localhost", "127.0.0.1:1", "[::1]:8080"]) expect(yield* statusFor(host)).toBe(200)
    }).pipe(Effect.provide(memory())))

  it.scoped("aren't shown to the network without a token", () =>
    Effect.gen(function*() {
      expect((yield* scrape()).status).toBe(404)
    }).pipe(Effect.provide(memory({ host: "0.0.0.0", auth: "none" }))))

  it.scoped("are shown to who has the token, and to nobody else", () =>
    Effect.gen(function*() {
      expect((yield* scrape()).status).toBe(401)
      expect((yield* scrape(`Bearer ${token}x`)).status).toBe(401)
      expect((yield* scrape(`Bearer ${token.slice(1)}`)).status).toBe(401)
      expect((yield* scrape(token)).status).toBe(401)
      expect((yield* scrape(`Bearer ${token}`)).status).toBe(200)
    }).pipe(Effect.provide(memory({ metricsToken: Redacted.make(token) }))))

  it.scoped("are shown to the network to who has the token", () =>
    Effect.gen(function*() {
      expect((yield* scrape()).status).toBe(401)
      expect((yield* scrape(`Bearer ${token}`)).status).toBe(200)
    }).pipe(Effect.provide(memory({ host: "0.0.0.0", auth: "none", metricsToken: Redacted.make(token) }))))

  it.scoped("count the connections that are refused, by reason", () =>
    Effect.gen(function*() {
      yield* overSocketReady
      expect((yield* Effect.either(overSocket))._tag).toBe("Left")
      const { text: exposition } = yield* scrape()
      expect(valueOf(exposition, "topgun_connections_refused_total{reason=\"limit\"}")).toBe(1)
    }).pipe(Effect.provide(memory({ connectionsMax: 1 }))))
})

describe("the metrics' token", () => {
  it.effect("is never shown by what is said of it", () =>
    Effect.gen(function*() {
      const fault = yield* Effect.flip(ServerConfig.make({ metricsToken: Redacted.make("too short") }))
      expect(fault.message).toContain("metricsToken")
      expect(fault.message).not.toContain("too short")
      const plain = "a plain text that should have been redacted" as unknown as Redacted.Redacted
      expect((yield* Effect.flip(ServerConfig.make({ metricsToken: plain }))).message).not.toContain(String(plain))
    }))
})

const grid = Layer.mergeAll(CrdtStore.layer, Hlc.layer(), MerkleSync.layer, PartitionRouter.layerSingleNode)

const over = (driver: Persistence.Driver) =>
  TopGunServer.layerPartsInProcess.pipe(
    Layer.provide([grid, Layer.scoped(Persistence.Persistence, Persistence.make(driver))]),
    Layer.provide(ServerConfig.layer())
  )

/** Metrics without a server. */
const alone = Metrics.layer.pipe(
  Layer.provide([Partitions.layer, Phase.layer]),
  Layer.provide([Capacity.layer, Tombstones.layer]),
  Layer.provide([grid, Persistence.layerMemory, ServerConfig.layer()])
)
