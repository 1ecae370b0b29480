import { describe, expect, it } from "@effect/vitest"
import * as CrdtStore from "@topgun/core/CrdtStore"
import * as Hlc from "@topgun/core/Hlc"
import * as MerkleSync from "@topgun/core/MerkleSync"
import * as PartitionRouter from "@topgun/core/PartitionRouter"
import * as Protocol from "@topgun/core/Protocol"
import * as Persistence from "@topgun/server/Persistence"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"
import { inWorld } from "./worlds.ts"

/** A tracer that keeps the spans that are made, with ids as they are on the wire. */
const memoryTracer = () => {
  const spans: Array<Tracer.Span> = []
  const tracer = Tracer.make({
    span: (name, parent, context, links, startTime, kind) => {
      const attributes = new Map<string, unknown>()
      const id = String(spans.length + 1)
      const span: Tracer.Span & { status: Tracer.SpanStatus } = {
        _tag: "Span",
        name,
        spanId: id.padStart(16, "0"),
        traceId: Option.match(parent, { onNone: () => id.padStart(32, "0"), onSome: ({ traceId }) => traceId }),
        parent,
        context,
        status: { _tag: "Started", startTime },
        attributes,
        links,
        sampled: true,
        kind,
        end: (endTime, exit) => {
          span.status = { _tag: "Ended", startTime, endTime, exit }
        },
        attribute: (key, value) => void attributes.set(key, value),
        event: () => {},
        addLinks: () => {}
      }
      spans.push(span)
      return span
    },
    context: (f) => f()
  })
  const named = (name: string) => spans.filter((span) => span.name === name)
  return { named, spans, tracer }
}

const durable = TopGunServer.layerPartsInProcess.pipe(
  Layer.provide([
    CrdtStore.layer,
    Hlc.layer(),
    MerkleSync.layer,
    PartitionRouter.layerSingleNode,
    Layer.scoped(
      Persistence.Persistence,
      Persistence.make({
        kind: "test",
        generation: "generation",
        nodeId: "server0000000000",
        notes: new Map(),
        load: () => Effect.void,
        snapshot: Effect.dieMessage("nobody backs this up"),
        commit: () => Effect.void
      })
    )
  ]),
  Layer.provide(ServerConfig.layer())
)

/** A client connected to a server, and the messages of writes that go from the one to the other, but for their rows. */
const watched = Effect.fnUntraced(function*(options: Parameters<typeof World.startClient>[1] = {}) {
  const clock = yield* VirtualClock.VirtualClock
  const sent: Array<string> = []
  yield* World.serve(durable, (connection) => ({
    ...connection,
    listen: (onFrame, onClose) =>
      connection.listen((frame) => {
        for (const message of Protocol.decodeFromClient(frame)) {
          if (message._tag === "Traced") sent.push(message.parent)
          if (message._tag === "OpBatch") sent.push(`${message.map} ${message.atomic} ${message.ops.length}`)
        }
        onFrame(frame)
      }, onClose)
  }))
  const client = yield* World.startClient("alice", options)
  if (options.autoConnect !== false) yield* clock.runUntil(() => client.status.current.state === "CONNECTED")
  return { clock, client, sent }
})

describe("A trace", () => {
  it.effect("leads from the client's span to the server's commit", () => {
    const { named, tracer } = memoryTracer()
    return Effect.gen(function*() {
      const { client, clock } = yield* watched({ writeConcern: "PERSISTED" })
      const todos = yield* client.map("todos")
      yield* todos.set("1", "milk").pipe(Effect.withSpan("shopping"))
      yield* clock.runUntil(() => client.status.current.pending === 0)
      const [shopping] = named("shopping")
      const [write, ...otherWrites] = named("topgun.write")
      const [commit, ...otherCommits] = named("topgun.commit")
      expect([otherWrites, otherCommits]).toEqual([[], []])
      expect(Option.map(write!.parent, ({ spanId }) => spanId)).toEqual(Option.some(shopping!.spanId))
      expect(Option.map(commit!.parent, ({ spanId }) => spanId)).toEqual(Option.some(write!.spanId))
      expect([write!.traceId, commit!.traceId]).toEqual([shopping!.traceId, shopping!.traceId])
      expect([write!.kind, write!.status._tag, commit!.status._tag]).toEqual(["server", "Ended", "Ended"])
      expect(Object.fromEntries(write!.attributes)).toEqual({
        "topgun.kind": "lww",
        "topgun.concern": "PERSISTED",
        "topgun.operations": 1,
        "topgun.accepted": 1,
        "topgun.rejected": 0,
        "topgun.level": "PERSISTED"
      })
    }).pipe(Effect.scoped, Effect.withTracer(tracer), inWorld())
  })

  it.effect("isn't sent for what is written without a span, or in one that nobody records", () => {
    const { named, tracer } = memoryTracer()
    return Effect.gen(function*() {
      const { client, clock, sent } = yield* watched()
      const todos = yield* client.map("todos")
      yield* todos.set("1", "milk")
      yield* clock.runUntil(() => client.status.current.pending === 0)
      const unsampled = Tracer.externalSpan({ traceId: "1".repeat(32), spanId: "1".repeat(16), sampled: false })
      const foreign = Tracer.externalSpan({ traceId: "not hexadecimal", spanId: "neither" })
      yield* todos.set("2", "tea").pipe(Effect.withParentSpan(unsampled))
      yield* todos.set("3", "salt").pipe(Effect.withParentSpan(foreign))
      yield* clock.runUntil(() => client.status.current.pending === 0)
      expect(sent.every((message) => message.startsWith("todos no"))).toBe(true)
      expect(sent.length).toBeGreaterThan(0)
      expect(named("topgun.write")).toEqual([])
    }).pipe(Effect.scoped, Effect.withTracer(tracer), inWorld())
  })

  it.effect("of several writes of one batch is that of the first, and of a batch of several messages stands before it", () => {
    const { named, tracer } = memoryTracer()
    return Effect.gen(function*() {
      const { client, clock, sent } = yield* watched()
      const todos = yield* client.map("todos")
      const span = (digit: string) =>
        Effect.withParentSpan(Tracer.externalSpan({ traceId: digit.repeat(32), spanId: digit.repeat(16) }))
      yield* Effect.all([
        todos.set("1", "milk"),
        todos.set("2", "tea").pipe(span("2")),
        todos.set("3", "salt").pipe(span("3"))
      ], { concurrency: "unbounded" })
      yield* clock.runUntil(() => client.status.current.pending === 0)
      expect(sent).toEqual([`00-${"2".repeat(32)}-${"2".repeat(16)}-01`, "todos no 3"])
      sent.length = 0
      yield* client.batch((batch) => {
        batch.set("todos", "1", "more milk")
        batch.set("others", "1", "more tea")
      }).pipe(span("4"))
      yield* clock.runUntil(() => client.status.current.pending === 0)
      expect(sent).toEqual([`00-${"4".repeat(32)}-${"4".repeat(16)}-01`, "todos more 1", "others end 1"])
      expect(named("topgun.write").map(({ traceId }) => traceId[0])).toEqual(["2", "4"])
    }).pipe(Effect.scoped, Effect.withTracer(tracer), inWorld())
  })

  it.effect("is that of a write that waited for room, too", () => {
    const { tracer } = memoryTracer()
    return Effect.gen(function*() {
      const { client, clock, sent } = yield* watched({ backpressure: { capacity: 1 }, autoConnect: false })
      const todos = yield* client.map("todos")
      yield* todos.set("1", "milk")
      const waiting = yield* todos.set("2", "tea").pipe(
        Effect.withParentSpan(Tracer.externalSpan({ traceId: "2".repeat(32), spanId: "2".repeat(16) })),
        Effect.fork
      )
      yield* client.connect
      yield* clock.runUntil(() => client.status.current.pending === 0 && waiting.unsafePoll() !== null)
      expect(sent).toEqual(["todos no 1", `00-${"2".repeat(32)}-${"2".repeat(16)}-01`, "todos no 1"])
    }).pipe(Effect.scoped, Effect.withTracer(tracer), inWorld())
  })
})
