/** Interceptors, as clients of a server meet them. */
import { describe, expect, it } from "@effect/vitest"
import * as Protocol from "@topgun/core/Protocol"
import { makePair } from "@topgun/core/Transport"
import * as Value from "@topgun/core/Value"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as Authentication from "@topgun/server/Authentication"
import * as Interceptors from "@topgun/server/Interceptors"
import { afterMax } from "@topgun/server/Interception"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as TestClock from "effect/TestClock"
import {
  auth,
  batch,
  inProcess,
  inProcessReady,
  make,
  openMap,
  type PlainClient,
  put,
  recordsOf,
  removal,
  settled,
  totals
} from "./PlainClient.ts"

const serverOf = (
  interceptors: Interceptors.Interceptors,
  settings: Parameters<typeof TopGunServer.layerInProcess>[0] = {}
) => TopGunServer.layerInProcess(settings).pipe(Layer.provide(Interceptors.layer(interceptors)))

const nodeId = "devicedevice0000"
const connect = Effect.fnUntraced(function*(secret: string | null = null, id = nodeId) {
  const client = yield* inProcess
  yield* client.send({ ...auth, nodeId: id, secret })
  return { ...client, secret: (yield* client.take("AuthAck")).secret }
})

const valueOf = (row: Uint8Array) => {
  const record = LwwRecord.decode(row)
  return record.isTombstone ? undefined : Value.decode(record.valueBytes)
}
const entriesOf = (client: PlainClient, map = "m") =>
  Effect.gen(function*() {
    yield* client.send(openMap(map))
    yield* client.take("SyncRoot")
    return (yield* recordsOf(client, map)).map(([key, row]) => [key, valueOf(row)])
  })
/** The next so many rejections. */
const rejections = (client: PlainClient, count = 1) =>
  Effect.forEach(
    Array.from({ length: count }),
    () => Effect.map(client.take("OpReject"), ({ cause, reason, sequence }) => [sequence, cause, reason] as const)
  )
/** What is accepted next, up to this operation. */
const accepted = Effect.fnUntraced(function*(client: PlainClient, last: number) {
  const all: Array<number> = []
  while (all.at(-1) !== last) all.push(...(yield* client.take("OpAck")).sequences)
  return all
})

const linesOf = () => {
  const lines: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => {
    if (logLevel._tag === "Error") lines.push(String(Array.isArray(message) ? message[0] : message))
  })
  return { lines, layer: Logger.replace(Logger.defaultLogger, logger) }
}

describe("before", () => {
  it.effect("sees operations of all kinds in their order, and lets them pass, changes or refuses them", () => {
    const seen: Array<unknown> = []
    return Effect.gen(function*() {
      const client = yield* connect()
      const reader = yield* inProcessReady
      yield* reader.send(openMap("m"))
      yield* reader.take("SyncRoot")
      yield* client.send(openMap("m"))
      yield* client.take("SyncRoot")
      yield* client.send(
        batch("m", "APPLIED", 0, [["a", put(1, 1_000)], ["change", put(2, 2_000)], ["refuse", put(3, 3_000)], [
          "a",
          removal(4_000)
        ]]),
        batch("tags", "APPLIED", 4, [["t", put("x")]], { kind: "or" }),
        batch("hits", "APPLIED", 5, [["hits", totals(3, 1, nodeId)]], { kind: "counter" })
      )
      expect(yield* rejections(client)).toEqual([[2, "WriteRejected", "no threes"]])
      expect(yield* accepted(client, 5)).toEqual([0, 1, 3, 4, 5])
      expect(seen).toMatchObject([
        { map: "m", kind: "lww", key: "a", value: 1, sequence: 0, nodeId, principal: undefined },
        { key: "change", value: 2 },
        { key: "refuse", value: 3 },
        { key: "a", value: undefined },
        { map: "tags", kind: "or", key: "t", value: "x", sequence: 4 },
        { map: "hits", kind: "counter", key: "hits", value: { increments: 3, decrements: 1 } }
      ])
      const events = [yield* reader.take("ServerEvent"), yield* client.take("ServerEvent")]
      const [told, own] = events.map(({ records }) => new Map(records))
      expect(valueOf(told!.get("change")!)).toEqual({ was: 2 })
      // He who wrote it is told what became of it: right after what he wrote, and before what he writes next.
      expect(Array.from(own!.keys())).toEqual(["change"])
      expect(LwwRecord.decode(own!.get("change")!).stamp).toEqual({ millis: 2_000, counter: 0, nodeId: "z".repeat(16) })
      expect(yield* entriesOf(reader)).toEqual([["a", undefined], ["change", { was: 2 }]])
    }).pipe(Effect.provide(serverOf({
      before: (operation) => {
        seen.push(operation)
        return operation.key === "change"
          ? Interceptors.change({ was: operation.value })
          : operation.key === "refuse"
          ? Interceptors.refuse("no threes")
          : Effect.void
      }
    })))
  })

  it.effect("refuses an atomic batch with the one that it refuses", () =>
    Effect.gen(function*() {
      const client = yield* connect()
      yield* client.send(
        batch("m", "APPLIED", 0, [["a", put(1)], ["no", put(1)]], { atomic: "more" }),
        batch("n", "APPLIED", 2, [["b", put(1)]], { atomic: "end" })
      )
      expect((yield* rejections(client, 3)).map(([sequence, , reason]) => [sequence, reason])).toEqual([
        [0, "another write of its batch was refused: no"],
        [1, "no"],
        [2, "another write of its batch was refused: no"]
      ])
      expect(yield* entriesOf(client)).toEqual([])
    }).pipe(Effect.provide(serverOf({
      before: ({ key }) => key === "no" ? Interceptors.refuse("no") : Effect.void
    }))))

  it.effect("has its connection wait, and no other, each operation in its turn", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const order: Array<string> = []
      yield* Effect.gen(function*() {
        const slow = yield* connect()
        yield* slow.send(batch("m", "APPLIED", 0, [["slow", put(1, 1_000)], ["k", put("first", 2_000)]]))
        yield* slow.send(batch("m", "APPLIED", 2, [["k", put("second", 3_000)]]), { _tag: "Ping", id: 7 })
        const other = yield* connect(null, "otherother000000")
        yield* other.send(batch("m", "APPLIED", 0, [["other", put(1)]]))
        yield* other.take("OpAck")
        yield* settled
        expect(slow.untaken("OpAck") + slow.untaken("Pong")).toBe(0)
        expect(order).toEqual(["slow", "other"])
        yield* Deferred.succeed(gate, undefined)
        yield* slow.take("Pong")
        expect(order).toEqual(["slow", "other", "k", "k"])
        expect(Object.fromEntries(yield* entriesOf(other))).toEqual({ slow: 1, k: "second", other: 1 })
      }).pipe(Effect.provide(serverOf({
        before: ({ key }) => {
          order.push(key)
          return key === "slow" ? Deferred.await(gate) : Effect.void
        }
      })))
    }))

  it.effect("that dies, takes too long, or makes what can't be stored refuses its operation, and is logged once a minute", () => {
    const { layer, lines } = linesOf()
    const misbehaving: Record<string, () => Effect.Effect<Interceptors.Change | void, never>> = {
      throws: () => {
        throw new Error("secret")
      },
      dies: () => Effect.die("secret"),
      fails: () => Effect.fail("secret") as never,
      isNone: () => undefined as never,
      late: () => Effect.never,
      lateForEver: () => Effect.uninterruptible(Effect.never),
      nan: () => Interceptors.change(Number.NaN),
      large: () => Interceptors.change("x".repeat(Value.valueBytesMax))
    }
    return Effect.gen(function*() {
      const client = yield* connect()
      let sequence = 0
      for (const key of Object.keys(misbehaving)) {
        yield* client.send(batch("m", "APPLIED", sequence, [[key, put(1)], ["fine", put(sequence, 1_000 + sequence)]]))
        yield* settled
        while (client.untaken("OpReject") === 0) yield* Effect.zipRight(TestClock.adjust(100), settled)
        const [rejection] = yield* rejections(client)
        expect([key, ...rejection!.slice(0, 2)]).toEqual([key, sequence, "InterceptorFailed"])
        expect(rejection![2]).not.toContain("secret")
        expect((yield* client.take("OpAck")).sequences).toEqual([sequence + 1])
        sequence += 2
      }
      yield* client.send(
        batch("m", "APPLIED", sequence, [["changed", removal(9_000)]]),
        batch("tags", "APPLIED", sequence + 1, [["changed", put(1)]], { kind: "or" })
      )
      expect((yield* rejections(client, 2)).map(([, cause]) => cause)).toEqual([
        "InterceptorFailed",
        "InterceptorFailed"
      ])
      expect((yield* entriesOf(client)).map(([key]) => key)).toEqual(["fine"])
      expect(lines).toEqual([
        "The interceptor before failed",
        "The interceptor before didn't answer within 500 ms",
        expect.stringContaining("The interceptor before has changed an operation to what can't be stored")
      ])
    }).pipe(Effect.provide(Layer.provide(
      serverOf({
        before: ({ key }) => key === "changed" ? Interceptors.change(1) : (misbehaving[key] ?? (() => Effect.void))()
      }, { interceptorMillisMax: 500 }),
      layer
    )))
  })

  it.effect("isn't asked again of an operation that it has had its say of, which gets the same answer", () => {
    let asked = 0
    return Effect.gen(function*() {
      const first = yield* connect()
      const batches = [
        batch("m", "APPLIED", 0, [["a", put(1, 1_000)], ["b", put(1, 1_000)], ["c", put(1, 1_000)]]),
        batch("hits", "APPLIED", 3, [["hits", totals(1, 0, nodeId)]], { kind: "counter" })
      ]
      yield* first.send(...batches)
      expect(yield* rejections(first)).toEqual([[1, "WriteRejected", "call 2"]])
      yield* accepted(first, 3)
      const before = yield* entriesOf(first)
      const second = yield* connect(first.secret)
      yield* second.send(...batches)
      expect(yield* rejections(second)).toEqual([[1, "WriteRejected", "call 2"]])
      expect(yield* accepted(second, 3)).toEqual([0, 2, 3])
      expect(asked).toBe(4)
      expect(yield* entriesOf(second)).toEqual(before)
      expect(before).toEqual([["a", 1], ["c", { call: 3 }]])
    }).pipe(Effect.provide(serverOf({
      before: () => {
        asked++
        return asked === 2
          ? Interceptors.refuse(`call ${asked}`)
          : asked === 3
          ? Interceptors.change({ call: asked })
          : Effect.void
      }
    })))
  })

  it.effect("gets nobody what he may not write", () =>
    Effect.gen(function*() {
      const client = yield* inProcess
      yield* client.send({ ...auth, nodeId, token: "alice" })
      yield* client.take("AuthAck")
      yield* client.send(
        batch("m", "APPLIED", 0, [["k", put({ owner: "alice" })], ["l", put({ owner: "alice", given: true })]])
      )
      expect((yield* rejections(client)).map(([sequence, cause]) => [sequence, cause])).toEqual([[
        1,
        "PermissionDenied"
      ]])
    }).pipe(Effect.provide(
      TopGunServer.layerInProcess({
        auth: "token",
        policy: {
          rules: [{ maps: ["m"], roles: ["user"], allow: ["read", "put"], where: { owner: { principal: "userId" } } }]
        }
      }).pipe(Layer.provide([
        Authentication.layerVerifier((userId) => Effect.succeed({ userId })),
        Interceptors.layer({
          before: ({ principal, value }) => {
            expect(principal).toEqual({ userId: "alice" })
            return "given" in (value as object) ? Interceptors.change({ owner: "bob" }) : Effect.void
          }
        })
      ]))
    )))
})

describe("after", () => {
  it.effect("hears of each operation once, with what became of it, off the path of writing", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const heard: Array<unknown> = []
      yield* Effect.gen(function*() {
        const client = yield* connect()
        const batches = [
          batch("m", "APPLIED", 0, [["a", put(1)], ["b", Uint8Array.of(1)], ["c", put(99, 10_000_000_000)]])
        ]
        yield* client.send(...batches)
        yield* client.take("OpAck")
        expect(heard).toEqual([])
        yield* Deferred.succeed(gate, undefined)
        yield* settled
        expect(heard).toMatchObject([
          { map: "m", key: "a", value: 1, nodeId, rejected: undefined },
          { key: "c", value: 99, rejected: { cause: "ClockSkewTooLarge" } }
        ])
      }).pipe(
        Effect.provide(serverOf({
          after: (done) => Effect.zipRight(Deferred.await(gate), Effect.sync(() => heard.push(done)))
        }))
      )
    }))

  it.effect("that fails, dies or is late harms nobody, and is logged once a minute", () => {
    const { layer, lines } = linesOf()
    const heard: Array<string> = []
    return Effect.gen(function*() {
      const client = yield* connect()
      yield* client.send(
        batch("m", "APPLIED", 0, ["fail", "die", "late", "fine", "fail"].map((key) => [key, put(1)] as const))
      )
      expect((yield* client.take("OpAck")).sequences).toEqual([0, 1, 2, 3, 4])
      while (heard.length < 5) yield* Effect.zipRight(TestClock.adjust(100), settled)
      expect(heard).toEqual(["fail", "die", "late", "fine", "fail"])
      expect(lines).toEqual(["The interceptor after failed", "The interceptor after didn't answer within 500 ms"])
    }).pipe(Effect.provide(Layer.provide(
      serverOf({
        after: ({ key }) => {
          heard.push(key)
          return key === "fail"
            ? Effect.fail("x")
            : key === "die"
            ? Effect.die("x")
            : key === "late"
            ? Effect.never
            : Effect.void
        }
      }, { interceptorMillisMax: 500 }),
      layer
    )))
  })

  it.effect("leaves operations out where it is too slow for them, and says how many", () => {
    const { layer, lines } = linesOf()
    return Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      let heard = 0
      yield* Effect.gen(function*() {
        const client = yield* connect()
        const row = put("x".repeat(200_000))
        const roomFor = Math.floor(afterMax.bytes / row.length)
        for (let sequence = 0; sequence < roomFor + 3; sequence++) {
          yield* client.send(batch("m", "APPLIED", sequence, [["k", row]]))
          yield* client.take("OpAck")
        }
        yield* settled
        expect(lines).toEqual(["The interceptor after is too slow: it isn't told of 1 operations, and more may follow"])
        yield* Deferred.succeed(gate, undefined)
        while (heard < roomFor) yield* settled
        yield* settled
        expect(heard).toBe(roomFor)
        // There is room again.
        yield* client.send(batch("m", "APPLIED", roomFor + 3, [["k", row]]))
        while (heard <= roomFor) yield* settled
      }).pipe(Effect.provide(Layer.provide(
        serverOf({ after: () => Effect.zipRight(Deferred.await(gate), Effect.sync(() => heard++)) }),
        layer
      )))
    })
  })
})

describe("onConnect and onDisconnect", () => {
  const visits = () => {
    const log: Array<string> = []
    const interceptors: Interceptors.Interceptors = {
      onConnect: ({ address, nodeId: id, principal }) =>
        Effect.suspend(() => {
          log.push(`in ${id} ${principal?.userId ?? "nobody"} ${address ?? "nowhere"}`)
          return id.startsWith("refused")
            ? Interceptors.refuse("not you")
            : id.startsWith("late")
            ? Effect.never
            : Effect.void
        }),
      onDisconnect: ({ nodeId: id }) => Effect.sync(() => log.push(`out ${id}`))
    }
    return { log, interceptors }
  }

  it.effect("see each device come and go once, whoever ends it", () => {
    const { interceptors, log } = visits()
    return Effect.gen(function*() {
      yield* Effect.gen(function*() {
        const { accept } = yield* TopGunServer.TopGunServer
        const [mine, theirs] = makePair()
        accept(theirs, "10.0.0.1")
        const client = make(mine)
        yield* client.send({ ...auth, nodeId })
        yield* client.take("AuthAck")
        expect(log).toEqual([`in ${nodeId} nobody 10.0.0.1`])
        mine.close(1000, "done")
        yield* settled
        expect(log.splice(0)).toEqual([`in ${nodeId} nobody 10.0.0.1`, `out ${nodeId}`])
        // By the server, for what it sends; and with the server.
        const wrong = yield* connect(null, "wrong00000000000")
        yield* wrong.sendBytes(Uint8Array.of(0xc1))
        yield* wrong.closed
        yield* connect(null, "stays00000000000")
        yield* settled
        expect(log.splice(0)).toEqual([
          "in wrong00000000000 nobody nowhere",
          "out wrong00000000000",
          "in stays00000000000 nobody nowhere"
        ])
      }).pipe(Effect.provide(serverOf(interceptors)))
      expect(log).toEqual(["out stays00000000000"])
    })
  })

  it.effect("let nobody in who is refused, who gets no answer, or whose id is another's", () => {
    const { interceptors, log } = visits()
    return Effect.gen(function*() {
      const faultOf = (id: string) =>
        Effect.gen(function*() {
          const client = yield* inProcess
          yield* client.send({ ...auth, nodeId: id, secret: "wrong" })
          while (client.untaken("Fault") === 0) yield* Effect.zipRight(TestClock.adjust(100), settled)
          const fault = yield* client.take("Fault")
          return [fault.cause, fault.reason, (yield* client.closed).code]
        })
      expect(yield* faultOf("refused000000000")).toEqual(["AuthRequired", "not you", Protocol.closeCodes.authFailed])
      expect(yield* faultOf("late000000000000")).toEqual([
        "AuthUnavailable",
        "The server's interceptor didn't answer within 500 ms: the server's log has more",
        Protocol.closeCodes.overloaded
      ])
      yield* connect(null, nodeId)
      expect((yield* faultOf(nodeId))[0]).toBe("NodeIdConflict")
      yield* settled
      // Those who weren't let in by it don't leave; one that was refused for something else does.
      expect(log.filter((line) => line.startsWith("out"))).toEqual([`out ${nodeId}`])
    }).pipe(Effect.provide(serverOf(interceptors, { interceptorMillisMax: 500 })))
  })

  it.effect("who leaves while he is let in has left", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const log: Array<string> = []
      yield* Effect.gen(function*() {
        const client = yield* inProcess
        yield* client.send({ ...auth, nodeId })
        yield* settled
        client.connection.close(1000, "done")
        yield* settled
        expect(log).toEqual([])
        yield* Deferred.succeed(gate, undefined)
        while (log.length < 2) yield* settled
      }).pipe(Effect.provide(serverOf({
        onConnect: () => Effect.zipRight(Deferred.await(gate), Effect.sync(() => log.push("in"))),
        onDisconnect: () => Effect.sync(() => log.push("out"))
      })))
      expect(log).toEqual(["in", "out"])
    }))

  it.effect("are done before the server has stopped", () => {
    const log: Array<string> = []
    return Effect.gen(function*() {
      yield* Effect.provide(
        connect(),
        serverOf({
          onDisconnect: () =>
            Effect.zipRight(
              Effect.promise(() => new Promise((resolve) => setImmediate(resolve))),
              Effect.sync(() => log.push("out"))
            )
        })
      )
      expect(log).toEqual(["out"])
    })
  })
})

describe("Interceptors", () => {
  it.effect("have what they need from where they are provided", () => {
    class Names extends Context.Tag("Names")<Names, ReadonlySet<string>>() {}
    return Effect.gen(function*() {
      const client = yield* connect()
      yield* client.send(batch("m", "APPLIED", 0, [["a", put(1)], ["b", put(1)]]))
      expect(yield* rejections(client)).toEqual([[1, "WriteRejected", "unknown"]])
    }).pipe(Effect.provide(
      TopGunServer.layerInProcess().pipe(
        Layer.provide(Interceptors.layer({
          before: ({ key }) =>
            Effect.flatMap(Names, (names) => names.has(key) ? Effect.void : Interceptors.refuse("unknown"))
        })),
        Layer.provide(Layer.succeed(Names, new Set(["a"])))
      )
    ))
  })
})
