import { describe, expect, it } from "@effect/vitest"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Traces from "@topgun/server/Traces"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"
import * as Tracer from "effect/Tracer"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { batch, inProcessReady, openMap, put, settled } from "./PlainClient.ts"

const parent = (digit: string, flags = "01") => `00-${digit.repeat(32)}-${digit.repeat(16)}-${flags}`

/** A tracer that keeps the names of its spans, those that have ended as well. */
const memoryTracer = () => {
  const begun: Array<string> = []
  const ended: Array<string> = []
  const tracer = Tracer.make({
    span: (name, above, context, links, startTime, kind) => {
      begun.push(name)
      return {
        _tag: "Span",
        name,
        spanId: "5".repeat(16),
        traceId: "5".repeat(32),
        parent: above,
        context,
        status: { _tag: "Started", startTime },
        attributes: new Map(),
        links,
        sampled: true,
        kind,
        end: (_, exit) => void ended.push(`${name} ${exit._tag}`),
        attribute: () => {},
        event: () => {},
        addLinks: () => {}
      }
    },
    context: (f) => f()
  })
  return { begun, ended, tracer }
}

/** A collector of OpenTelemetry, and the bodies of the requests to it. */
const collector = Effect.acquireRelease(
  Effect.promise(async () => {
    const requests: Array<{ readonly url: string | undefined; readonly body: string }> = []
    const server = createServer((request, response) => {
      let body = ""
      request.on("data", (part: Buffer) => body += part.toString("utf8"))
      request.on("end", () => {
        requests.push({ url: request.url, body })
        response.end("{}")
      })
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    return { requests, server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
  }),
  ({ server }) =>
    Effect.promise(() => {
      server.closeAllConnections()
      return new Promise((resolve) => server.close(resolve))
    })
)

describe("A traced batch", () => {
  it.effect("is a batch like others where nothing is traced", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* client.send({ _tag: "Traced", parent: parent("1") }, batch("todos", "APPLIED", 0, [["1", put("a")]]))
      expect((yield* client.take("OpAck")).sequences).toEqual([0])
    }).pipe(Effect.provide(TopGunServer.layerInProcess())))

  it.effect("has its spans ended, refused or not", () => {
    const { begun, ended, tracer } = memoryTracer()
    return Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* client.send(
        { _tag: "Traced", parent: parent("1") },
        batch("todos", "APPLIED", 0, [["1", put("a")]]),
        { _tag: "Traced", parent: parent("1") },
        batch("todos", "PERSISTED", 1, [["1", put("a")]]),
        { _tag: "Traced", parent: parent("1") },
        batch("todos", "REPLICATED", 2, [["1", put("a")]]),
        { _tag: "Traced", parent: parent("1") },
        batch("todos", "APPLIED", 3, []),
        batch("todos", "APPLIED", 3, [["1", put("a")]])
      )
      yield* client.take("OpAck")
      yield* settled
      expect(begun).toEqual(["topgun.write", "topgun.write", "topgun.write"])
      expect(ended).toEqual(["topgun.write Success", "topgun.write Success", "topgun.write Success"])
    }).pipe(Effect.provide(Layer.provide(TopGunServer.layerInProcess(), Layer.setTracer(tracer))))
  })

  it.effect("isn't recorded where its client's span isn't, or is none", () => {
    const { begun, tracer } = memoryTracer()
    return Effect.gen(function*() {
      const client = yield* inProcessReady
      for (const [i, text] of [parent("1", "00"), parent("0"), `ff${parent("1").slice(2)}`].entries()) {
        yield* client.send({ _tag: "Traced", parent: text }, batch("todos", "APPLIED", i, [["1", put("a")]]))
        yield* client.take("OpAck")
      }
      expect(begun).toEqual([])
    }).pipe(Effect.provide(Layer.provide(TopGunServer.layerInProcess(), Layer.setTracer(tracer))))
  })

  it.scoped("is all that is recorded: no span for each probe or metric that is asked for", () => {
    const { begun, tracer } = memoryTracer()
    return Effect.gen(function*() {
      const { address } = yield* TopGunServer.TopGunServer
      for (const path of ["livez", "metrics", "nothing"]) {
        yield* Effect.promise(() =>
          fetch(`http://127.0.0.1:${address!.port}/${path}`).then((response) => response.text())
        )
      }
      expect(begun).toEqual([])
    }).pipe(
      Effect.provide(Layer.provide(TopGunServer.layer({ port: 0, storage: "memory" }), Layer.setTracer(tracer)))
    )
  })

  it.effect("is recorded so many times a second, however many clients want it", () => {
    const { begun, tracer } = memoryTracer()
    return Effect.gen(function*() {
      const traces = yield* Traces.Traces
      const flood = () => {
        for (let i = 0; i < 2 * Traces.tracesPerSecondMax; i++) {
          traces.begin({ receivedNanos: 0n, traceParent: parent("1") })
        }
      }
      flood()
      expect(begun).toHaveLength(Traces.tracesPerSecondMax)
      yield* TestClock.adjust(1_000)
      flood()
      expect(begun).toHaveLength(2 * Traces.tracesPerSecondMax)
    }).pipe(Effect.provide(Layer.provide(Traces.layer, Layer.setTracer(tracer))))
  })
})

describe("A collector that is configured", () => {
  it.scoped("gets the spans, and none of a map's name, a key or a value", () =>
    Effect.gen(function*() {
      const { requests, url } = yield* collector
      yield* Effect.gen(function*() {
        const client = yield* inProcessReady
        yield* client.send(
          openMap("canary-map"),
          { _tag: "Traced", parent: parent("a") },
          batch("canary-map", "APPLIED", 0, [["canary-key", put("canary-value")]])
        )
        yield* client.take("OpAck")
      }).pipe(Effect.provide(TopGunServer.layerInProcess({ otlpUrl: `${url}/`, serviceName: "grid" })))
      expect(requests.map((request) => request.url)).toEqual(["/v1/traces"])
      const [{ resource, scopeSpans: [{ spans }] }] = JSON.parse(requests[0]!.body).resourceSpans
      expect(resource.attributes).toContainEqual({ key: "service.name", value: { stringValue: "grid" } })
      expect(spans).toMatchObject([{
        name: "topgun.write",
        traceId: "a".repeat(32),
        parentSpanId: "a".repeat(16),
        kind: 2
      }])
      expect(requests[0]!.body).not.toContain("canary")
    }))

  it.effect("is that of TOPGUN_OTLP_URL or, where there is none, of OpenTelemetry's own variables", () =>
    Effect.gen(function*() {
      const from = (variables: ReadonlyArray<readonly [string, string]>) =>
        ServerConfig.load().pipe(
          Effect.map(({ settings: { otlpUrl, serviceName } }) => ({ otlpUrl, serviceName })),
          Effect.withConfigProvider(ConfigProvider.fromMap(new Map(variables), { pathDelim: "_", seqDelim: "," }))
        )
      const standard = [
        ["OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"],
        ["OTEL_SERVICE_NAME", "grid"]
      ] as const
      expect(yield* from(standard)).toEqual({ otlpUrl: "http://collector:4318", serviceName: "grid" })
      expect(yield* from([...standard, ["TOPGUN_OTLP_URL", "http://other:4318"], ["TOPGUN_SERVICE_NAME", "mine"]]))
        .toEqual({ otlpUrl: "http://other:4318", serviceName: "mine" })
      expect((yield* Effect.flip(from([["OTEL_EXPORTER_OTLP_ENDPOINT", "collector"]]))).message)
        .toContain("OTEL_EXPORTER_OTLP_ENDPOINT is \"collector\": expected a URL")
    }))
})
