/** What operators' resolvers decide, as clients of a server see it. */
import { describe, expect, it } from "@effect/vitest"
import * as CrdtStore from "@topgun/core/CrdtStore"
import * as Hlc from "@topgun/core/Hlc"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as MerkleSync from "@topgun/core/MerkleSync"
import * as PartitionRouter from "@topgun/core/PartitionRouter"
import * as Value from "@topgun/core/Value"
import * as Authentication from "@topgun/server/Authentication"
import * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as Persistence from "@topgun/server/Persistence"
import * as Resolvers from "@topgun/server/Resolvers"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Random from "effect/Random"
import * as TestClock from "effect/TestClock"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  auth,
  batch,
  inProcess,
  inProcessReady,
  openMap,
  type PlainClient,
  put,
  recordsOf,
  removal,
  settled
} from "./PlainClient.ts"

type Settings = Parameters<typeof TopGunServer.layerInProcess>[0]

/** However busy the machine is. */
const patient = { resolverMillisMax: 10_000 }
const serverOf = (rules: ReadonlyArray<Resolvers.Rule>, settings: Settings = {}) =>
  TopGunServer.layerInProcess({ ...patient, ...settings }).pipe(Layer.provide(Resolvers.layer(rules)))
const ruled = (resolve: Resolvers.Resolver, settings: Settings = {}) => serverOf([{ maps: "m", resolve }], settings)

const writers = ["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"] as const
const amender = "z".repeat(16)

const valueOf = (row: Uint8Array): unknown => {
  const record = LwwRecord.decode(row)
  return record.isTombstone ? undefined : Value.decode(record.valueBytes)
}
const stampOf = (row: Uint8Array) => LwwRecord.decode(row).stamp

/** A client that has the map open. */
const follower = Effect.gen(function*() {
  const client = yield* inProcessReady
  yield* client.send(openMap("m"))
  yield* client.take("SyncRoot")
  return client
})

/** Sends one operation: its acknowledgement, or why it was rejected. */
const write = (client: PlainClient, sequence: number, key: string, row: Uint8Array, map = "m") =>
  Effect.gen(function*() {
    yield* client.send(batch(map, "APPLIED", sequence, [[key, row]]))
    while (client.untaken("OpReject") + client.untaken("OpAck") === 0) yield* settled
    return yield* client.untaken("OpReject") > 0 ? client.take("OpReject") : client.take("OpAck")
  })

const rowOf = (client: PlainClient, key: string) =>
  Effect.map(recordsOf(client, "m"), (records) => new Map(records).get(key))

/** Two writers' records of a key, handed in one after the other: what is there then. */
const meeting = (resolve: Resolvers.Resolver, ...rows: ReadonlyArray<Uint8Array>) =>
  Effect.gen(function*() {
    yield* TestClock.setTime(1_000_000)
    const client = yield* follower
    const answers = []
    for (const [at, row] of rows.entries()) answers.push(yield* write(client, at, "k", row))
    const row = yield* rowOf(client, "k")
    return {
      answers: answers.map((answer) => answer._tag === "OpAck" ? "accepted" : answer.reason),
      row: row!,
      value: row === undefined ? undefined : valueOf(row)
    }
  }).pipe(Effect.provide(ruled(resolve)))

const by = (writer: 0 | 1, value: unknown, millis: number) => put(value, millis, 0, writers[writer])

describe("A resolver", () => {
  it.effect("has an older proposal win, under a stamp of its own right after that of the newer record", () =>
    Effect.gen(function*() {
      const { answers, row, value } = yield* meeting(
        () => Resolvers.accept,
        by(0, "newer", 2_000),
        by(1, "older", 1_000)
      )
      expect(answers).toEqual(["accepted", "accepted"])
      expect(value).toBe("older")
      expect(stampOf(row)).toEqual({ millis: 2_000, counter: 0, nodeId: amender })
    }))

  it.effect("leaves a proposal that wins as it is to the byte, and what is stored where that stays and is the later one", () =>
    Effect.gen(function*() {
      const later = by(0, "later", 2_000)
      expect((yield* meeting(() => Resolvers.accept, by(1, "x", 1_000), later)).row).toEqual(later)
      expect(
        (yield* meeting(
          ({ stored }) => stored === undefined ? Resolvers.accept : Resolvers.keep,
          later,
          by(1, "x", 1_000)
        )).row
      )
        .toEqual(later)
    }))

  it.effect("that keeps what is stored has its writer overruled, by a stamp before whatever he writes next", () =>
    Effect.gen(function*() {
      const proposal = by(1, "mine", 2_000)
      const { row, value } = yield* meeting(
        ({ stored }) => stored === undefined ? Resolvers.accept : Resolvers.keep,
        by(0, "stored", 1_000),
        proposal
      )
      expect(value).toBe("stored")
      expect(Value.compareBytes(row, proposal)).toBe(1)
      expect(Value.compareBytes(row, put("next", 2_000, 1, writers[1]))).toBe(-1)
      // The stored record has the greatest node id now: the next counter, and so on.
      const twice = yield* meeting(
        ({ stored }) => stored === undefined ? Resolvers.accept : Resolvers.value("made"),
        by(0, "stored", 3_000),
        by(1, "x", 2_000),
        by(1, "y", 2_500)
      )
      expect(stampOf(twice.row)).toEqual({ millis: 3_000, counter: 0, nodeId: amender })
      const thrice = yield* meeting(
        ({ proposed, stored }) =>
          stored === undefined ? Resolvers.accept : Resolvers.value(`made of ${String(proposed)}`),
        by(0, "stored", 3_000),
        by(1, "x", 2_000),
        by(1, "y", 2_500)
      )
      expect(stampOf(thrice.row)).toEqual({ millis: 3_000, counter: 1, nodeId: amender })
    }))

  it.effect("is told what there is, what it is to be, when both were written, and by whom", () =>
    Effect.gen(function*() {
      const seen: Array<Resolvers.Conflict> = []
      yield* meeting(
        (conflict) => {
          seen.push(conflict)
          return Resolvers.latest
        },
        by(0, { a: [1] }, 1_000),
        by(1, "x", 500),
        removal(2_000, 7, writers[0]),
        LwwRecord.put({ millis: 3_000, counter: 0, nodeId: writers[1] }, Value.encode("gone"), 900_000).row,
        by(0, "new", 4_000)
      )
      const at = (millis: number, writer: 0 | 1, counter = 0) => ({ millis, counter, nodeId: writers[writer] })
      const common = { map: "m", key: "k", principal: undefined }
      expect(seen).toEqual([
        {
          ...common,
          stored: undefined,
          storedAt: undefined,
          proposed: { a: [1] },
          proposedAt: at(1_000, 0),
          isLater: true
        },
        {
          ...common,
          stored: { a: [1] },
          storedAt: at(1_000, 0),
          proposed: "x",
          proposedAt: at(500, 1),
          isLater: false
        },
        {
          ...common,
          stored: { a: [1] },
          storedAt: at(1_000, 0),
          proposed: undefined,
          proposedAt: at(2_000, 0, 7),
          isLater: true
        },
        {
          ...common,
          stored: undefined,
          storedAt: at(2_000, 0, 7),
          proposed: undefined,
          proposedAt: at(3_000, 1),
          isLater: true
        },
        {
          ...common,
          stored: undefined,
          storedAt: at(3_000, 1),
          proposed: "new",
          proposedAt: at(4_000, 0),
          isLater: true
        }
      ])
    }))

  it.effect("decides of each operation of a batch after those before it", () =>
    Effect.gen(function*() {
      const client = yield* follower
      const next = (count: number) => version(count, 1_000 + count)
      yield* client.send(
        batch("m", "APPLIED", 0, [["k", next(1)], ["k", next(2)], ["l", next(2)], ["k", next(3)]])
      )
      expect(yield* client.take("OpReject")).toMatchObject({ sequence: 2, cause: "WriteRejected" })
      expect((yield* client.take("OpAck")).sequences).toEqual([0, 1, 3])
      // Whole, or not at all.
      yield* client.send(
        batch("m", "APPLIED", 4, [["k", next(4)], ["j", next(1)]], { atomic: "more" }),
        batch("other", "APPLIED", 6, [["k", put(1)]], { atomic: "more" }),
        batch("m", "APPLIED", 7, [["k", next(6)]], { atomic: "end" })
      )
      const rejections = yield* Effect.forEach([4, 5, 6, 7], () => client.take("OpReject"))
      expect(rejections.map(({ sequence }) => sequence)).toEqual([4, 5, 6, 7])
      expect(rejections[3]!.reason).toBe("field \"version\" has to be one more than that of the record as it is")
      expect(rejections[0]!.reason).toContain("another write of its batch was refused: ")
      yield* client.send(batch("m", "APPLIED", 8, [["k", next(4)], ["k", next(5)]], { atomic: "end" }))
      expect((yield* client.take("OpAck")).sequences).toEqual([8, 9])
      expect(valueOf((yield* rowOf(client, "k"))!)).toEqual({ version: 5 })
      expect(yield* rowOf(client, "j")).toBe(undefined)
    }).pipe(Effect.provide(ruled(Resolvers.versionIncrement({ field: "version" })))))

  it.effect("makes one record of one conflict, on whichever server", () =>
    Effect.gen(function*() {
      const conflict = [by(0, { a: 1, n: 3 }, 2_000), by(1, { b: 2, n: 5 }, 1_000)] as const
      for (const resolve of [Resolvers.deepMerge(), Resolvers.numericMax({ field: "n" }), () => Resolvers.accept]) {
        // Servers of other node ids.
        const rows = yield* Effect.forEach([1, 2], (seed) =>
          Effect.map(Effect.withRandom(meeting(resolve, ...conflict), Random.make(seed)), ({ row }) => row))
        expect(rows[0]).toEqual(rows[1])
        expect(stampOf(rows[0]!).nodeId).toBe(amender)
      }
    }))

  it.effect("tells all what came of it, the proposer after his acknowledgement", () =>
    Effect.gen(function*() {
      const reader = yield* follower
      const proposer = yield* follower
      yield* write(proposer, 0, "k", put(7, 1_000))
      yield* reader.take("ServerEvent")
      yield* write(proposer, 1, "k", put(3, 2_000))
      for (const client of [reader, proposer]) {
        const { records } = yield* client.take("ServerEvent")
        expect(records.map(([key, row]) => [key, valueOf(row)])).toEqual([["k", 7]])
        expect(stampOf(records[0]![1])).toEqual({ millis: 2_000, counter: 0, nodeId: amender })
      }
      // What changes nothing is told to nobody but him who doesn't know it.
      yield* write(proposer, 2, "k", put(5, 1_500))
      yield* settled
      expect(reader.untaken("ServerEvent")).toBe(0)
      expect(valueOf((yield* proposer.take("ServerEvent")).records[0]![1])).toBe(7)
    }).pipe(Effect.provide(ruled(Resolvers.numericMax()))))

  it.effect("has the first rule that names a map decide, and none where none does", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      const outcomes = []
      for (const [at, map] of ["scores/a", "scores/b", "scores", "x", "xy"].entries()) {
        outcomes.push((yield* write(client, at, "k", put(1), map))._tag)
      }
      expect(outcomes).toEqual(["OpAck", "OpReject", "OpAck", "OpReject", "OpAck"])
    }).pipe(Effect.provide(serverOf([
      { maps: "scores/a", resolve: Resolvers.lastWriteWins() },
      { maps: ["scores/*", "x"], resolve: () => Resolvers.reject("no") }
    ]))))

  it.effect("isn't for sets and counters", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* client.send(batch("m", "APPLIED", 0, [["k", put("x")]], { kind: "or" }))
      expect((yield* client.take("OpReject")).reason).toBe(
        "a resolver decides for this map, which is for maps of records"
      )
    }).pipe(Effect.provide(ruled(Resolvers.lastWriteWins()))))

  it.effect("makes no record from beyond the bound of the clock, and none that there is no room for", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_000_000)
      const client = yield* follower
      const last = LwwRecord.put({ millis: 1_060_000, counter: 0xffff, nodeId: amender }, Value.encode(1))
      expect((yield* write(client, 0, "k", last.row))._tag).toBe("OpAck")
      expect(yield* write(client, 1, "k", put(2, 5_000))).toMatchObject({ cause: "ClockSkewTooLarge" })
      expect(yield* write(client, 2, "l", put(2, 5_000))).toMatchObject({ cause: "Overloaded" })
    }).pipe(Effect.provide(ruled(() => Resolvers.accept, { recordsMax: 1 }))))

  it.effect("with rules that are none doesn't start a server", () =>
    Effect.gen(function*() {
      const faults = yield* Effect.flip(Layer.build(Resolvers.layer([
        { maps: [], resolve: Resolvers.deepMerge() },
        { maps: ["a", "user/{userId}"], resolve: undefined as never }
      ])))
      expect(faults.faults).toEqual([
        "resolver rule 0: it names no map",
        "resolver rule 1: \"user/{userId}\" is no map's name, with * for any characters: 1 to 256 of them, and no { or }",
        "resolver rule 1: resolve is no function"
      ])
    }).pipe(Effect.scoped))
})

// --- What resolvers may do wrong ---

const looping: Resolvers.Resolver = () => {
  for (;;);
}
/** Misbehaves on the key that names it. */
const misbehaving: Readonly<Record<string, Resolvers.Resolver>> = {
  throws: () => {
    throw new Error("secret")
  },
  throwsWorse: () => {
    throw new Proxy({}, { get: looping as never })
  },
  loops: looping,
  allocates: () => {
    const all: Array<unknown> = []
    for (;;) all.push(Array.from({ length: 1_000 }, () => 0))
  },
  recurses: function recurse(conflict): Resolvers.Outcome {
    const { _tag } = recurse(conflict)
    return _tag === "Keep" ? Resolvers.reject(conflict.key) : Resolvers.keep
  },
  promises: (() => Promise.reject(new Error("nobody waits for this"))) as never,
  nothing: (() => undefined) as never,
  number: (() => 3) as never,
  tag: (() => ({ _tag: "Merge" })) as never,
  noReason: (() => ({ _tag: "Reject" })) as never,
  nan: () => Resolvers.value(Number.NaN),
  undefined: () => Resolvers.value(undefined),
  function: () => Resolvers.value({ f: () => 1 }),
  instance: () => Resolvers.value(new Map()),
  large: () => Resolvers.value("x".repeat(Value.valueBytesMax)),
  deep: () => {
    let value: unknown = 0
    for (let i = 0; i < 100_000; i++) value = [value]
    return Resolvers.value(value)
  },
  proxy: () => Resolvers.value(new Proxy({}, { ownKeys: looping as never })),
  getter: () =>
    Resolvers.value({
      get a() {
        return looping(undefined as never)
      }
    }),
  mutates: ({ proposed }) => {
    ;(proposed as { list: Array<number> }).list.push(1)
    return Resolvers.accept
  },
  mutatesItself: (conflict) => {
    ;(conflict as { key: string }).key = "other"
    return Resolvers.accept
  }
}

describe("A resolver that misbehaves", () => {
  const resolve: Resolvers.Resolver = (conflict) => (misbehaving[conflict.key] ?? Resolvers.lastWriteWins())(conflict)

  it.effect("has its operation rejected, changes nothing, and holds up no other", () =>
    Effect.gen(function*() {
      const client = yield* follower
      const other = yield* inProcessReady
      let sequence = 0
      for (const name of Object.keys(misbehaving)) {
        const rows = ["before", name, "after"].map((key) => [key, put({ list: [sequence] }, 1_000 + sequence)] as const)
        yield* client.send(batch("m", "APPLIED", sequence, rows))
        const rejection = yield* client.take("OpReject")
        expect([name, rejection.sequence, rejection.cause]).toEqual([name, sequence + 1, "ResolverFailed"])
        expect(rejection.reason).not.toContain("secret")
        expect((yield* client.take("OpAck")).sequences).toEqual([sequence, sequence + 2])
        expect((yield* write(other, sequence, "k", put(sequence), "free"))._tag).toBe("OpAck")
        sequence += 3
      }
      expect((yield* recordsOf(client, "m")).map(([key]) => key)).toEqual(["after", "before"])
      // An atomic batch goes with it.
      yield* client.send(
        batch("m", "APPLIED", sequence, [["x", put(1)], ["loops", put(1)]], { atomic: "end" })
      )
      expect((yield* client.take("OpReject")).cause).toBe("WriteRejected")
      expect((yield* client.take("OpReject")).cause).toBe("ResolverFailed")
      expect((yield* recordsOf(client, "m")).map(([key]) => key)).toEqual(["after", "before"])
    }).pipe(Effect.provide(ruled(resolve, { resolverMillisMax: 50 }))))

  it.effect("is stopped three times for one message, and is logged once a minute for each kind of fault", () => {
    const lines: Array<unknown> = []
    const logger = Logger.make(({ message }) => void lines.push(...(Array.isArray(message) ? message : [message])))
    return Effect.gen(function*() {
      const client = yield* follower
      const rows = Array.from({ length: 100 }, (_, i) => [i % 10 === 0 ? `slow${i}` : `${i}`, put(i)] as const)
      yield* client.send(batch("m", "APPLIED", 0, rows))
      const { sequences } = yield* client.take("OpAck")
      // Those before the last that was stopped went through.
      expect(sequences).toEqual(Array.from({ length: 20 }, (_, i) => i).filter((i) => i % 10 !== 0))
      const told = () => lines.filter((line) => String(line).startsWith("A resolver failed"))
      expect(told()).toEqual([
        "A resolver failed, and the write was rejected: it took more than 5 ms",
        "A resolver failed, and the write was rejected: 3 others of its message took too long"
      ])
      yield* TestClock.adjust("1 minute")
      yield* write(yield* inProcessReady, 0, "slow", put(1))
      expect(told().length).toBe(3)
    }).pipe(
      Effect.provide(Layer.provide(
        ruled((conflict) => conflict.key.startsWith("slow") ? looping(conflict) : Resolvers.latest, {
          resolverMillisMax: 5
        }),
        Logger.replace(Logger.defaultLogger, logger)
      ))
    )
  })

  it.effect("lets others have their turn in the midst of a message", () =>
    Effect.gen(function*() {
      const client = yield* follower
      const other = yield* inProcessReady
      yield* client.send(batch("m", "APPLIED", 0, Array.from({ length: 500 }, (_, i) => [`${i}`, put(i)] as const)))
      yield* other.send({ _tag: "Ping", id: 1 })
      yield* other.take("Pong")
      const { sequences } = yield* client.take("OpAck")
      expect(sequences.length).toBeLessThan(500)
      const all = [...sequences]
      while (all.at(-1) !== 499) all.push(...(yield* client.take("OpAck")).sequences)
      expect(all).toEqual(Array.from({ length: 500 }, (_, i) => i))
    }).pipe(Effect.provide(ruled(Resolvers.lastWriteWins()))))

  it.effect("isn't blamed for the time that those before it took", () =>
    Effect.gen(function*() {
      const client = yield* follower
      const rows = Array.from({ length: 20 }, (_, i) => [`${i}`, put(i)] as const)
      yield* client.send(batch("m", "APPLIED", 0, rows))
      expect((yield* client.take("OpAck")).sequences.length).toBe(20)
    }).pipe(Effect.provide(ruled(() => {
      const until = performance.now() + 10
      while (performance.now() < until);
      return Resolvers.accept
    }, { resolverMillisMax: 150 }))))
})

// --- Those that come with it ---

describe("Built-in resolvers:", () => {
  const stamped = (millis: number, value: unknown) => value === undefined ? removal(millis) : put(value, millis)
  /** `[millis, value]` written one after the other; `undefined` removes. */
  const after = (resolve: Resolvers.Resolver, ...writes: ReadonlyArray<readonly [millis: number, value: unknown]>) =>
    Effect.map(meeting(resolve, ...writes.map(([millis, value]) => stamped(millis, value))), ({ answers, value }) => ({
      value,
      reasons: answers.filter((answer) => answer !== "accepted")
    }))
  const becomes = (value: unknown, ...reasons: ReadonlyArray<string>) => ({ value, reasons })

  it.effect("lastWriteWins goes by time", () =>
    Effect.gen(function*() {
      const last = Resolvers.lastWriteWins()
      expect(yield* after(last, [2_000, "b"], [1_000, "a"])).toEqual(becomes("b"))
      expect(yield* after(last, [1_000, "a"], [2_000, undefined], [1_500, "b"])).toEqual(becomes(undefined))
    }))

  it.effect("firstWriteWins gives the key to whoever comes first", () =>
    Effect.gen(function*() {
      const first = Resolvers.firstWriteWins()
      expect(yield* after(first, [2_000, "b"], [1_000, "a"], [3_000, undefined])).toEqual(
        becomes("b", "the key is taken", "the key is taken")
      )
      expect(yield* after(first, [2_000, undefined], [1_000, "a"])).toEqual(becomes("a"))
    }))

  it.effect("numericMin and numericMax keep the least and the greatest, and the other fields of the later", () =>
    Effect.gen(function*() {
      const [min, max] = [Resolvers.numericMin(), Resolvers.numericMax()]
      expect(yield* after(min, [1_000, 3], [2_000, 5], [1_500, 2], [3_000, 2])).toEqual(becomes(2))
      expect(yield* after(max, [1_000, 3], [2_000, 5], [1_500, 7], [3_000, 6])).toEqual(becomes(7))
      expect(yield* after(max, [1_000, 3], [2_000, "x"], [2_500, { n: 1 }])).toEqual(
        becomes(3, "the value has to be a number", "the value has to be a number")
      )
      expect(yield* after(max, [1_000, 9], [2_000, undefined], [3_000, 1])).toEqual(becomes(1))
      expect(yield* after(max, [2_000, 9], [1_000, undefined])).toEqual(becomes(9))
      const field = Resolvers.numericMax({ field: "n" })
      expect(yield* after(field, [1_000, { n: 5, by: "a" }], [2_000, { n: 4, by: "b" }])).toEqual(
        becomes({ n: 5, by: "b" })
      )
      expect(yield* after(field, [2_000, { n: 4, by: "b" }], [1_000, { n: 5, by: "a" }], [3_000, { by: "c" }])).toEqual(
        becomes({ n: 5, by: "b" }, "field \"n\" has to be a number")
      )
      expect(yield* after(Resolvers.numericMin({ field: "n" }), [1_000, "odd"], [500, { n: 5 }])).toEqual(
        becomes({ n: 5 }, "field \"n\" has to be a number")
      )
    }))

  it.effect("nonNegative lets no number below zero in", () =>
    Effect.gen(function*() {
      expect(yield* after(Resolvers.nonNegative(), [1_000, 0], [2_000, -1], [3_000, "x"], [500, 3])).toEqual(
        becomes(0, "the value may not be negative", "the value has to be a number")
      )
      expect(
        yield* after(Resolvers.nonNegative({ field: "n" }), [1_000, { n: 2 }], [2_000, { n: -0.1 }], [3_000, undefined])
      ).toEqual(becomes(undefined, "field \"n\" may not be negative"))
    }))

  it.effect("arrayUnion has what anybody has put in, once", () =>
    Effect.gen(function*() {
      const union = Resolvers.arrayUnion()
      expect(
        yield* after(union, [2_000, ["b", { x: 1, y: [2] }]], [1_000, ["a", "b", { y: [2], x: 1 }, 1, 1n, "1"]], [
          3_000,
          4
        ])
      ).toEqual(becomes(["b", { x: 1, y: [2] }, "a", 1, 1n, "1"], "the value has to be a list"))
      expect(
        yield* after(union, [1_000, [new Date(5), Uint8Array.of(1)]], [2_000, [
          new Date(5),
          Uint8Array.of(1),
          null,
          -0,
          0
        ]])
      )
        .toEqual(becomes([new Date(5), Uint8Array.of(1), null, -0, 0]))
      expect(
        yield* after(Resolvers.arrayUnion({ field: "tags" }), [1_000, { tags: ["a"] }], [2_000, { tags: ["b"], n: 1 }])
      )
        .toEqual(becomes({ tags: ["a", "b"], n: 1 }))
    }))

  it.effect("deepMerge merges records within records, and has the later of what can't be merged", () =>
    Effect.gen(function*() {
      const merge = Resolvers.deepMerge()
      const old = JSON.parse(`{ "a": { "x": 1, "z": [1] }, "n": 1, "o": 1, "__proto__": { "p": 1 } }`) as object
      const later = JSON.parse(`{ "a": { "y": 2, "z": [2] }, "n": 2, "__proto__": { "q": 1 } }`) as object
      const merged = JSON.parse(
        `{ "a": { "x": 1, "y": 2, "z": [2] }, "n": 2, "o": 1, "__proto__": { "p": 1, "q": 1 } }`
      ) as object
      for (const writes of [[[1_000, old], [2_000, later]], [[2_000, later], [1_000, old]]] as const) {
        const { value } = yield* after(merge, ...writes)
        expect(Value.equal(value, merged)).toBe(true)
      }
      expect(yield* after(merge, [1_000, { a: 1 }], [2_000, undefined], [1_500, { b: 1 }])).toEqual(becomes(undefined))
      expect(yield* after(merge, [1_000, { a: 1 }], [2_000, 3])).toEqual(becomes(3))
    }))

  it.effect("immutable keeps what is written, or some fields of it", () =>
    Effect.gen(function*() {
      const whole = "the value may not be changed"
      expect(
        yield* after(Resolvers.immutable(), [1_000, { a: 1 }], [2_000, { a: 2 }], [3_000, undefined], [4_000, { a: 1 }])
      )
        .toEqual(becomes({ a: 1 }, whole, whole))
      const field = "field \"a\" may not be changed"
      expect(
        yield* after(
          Resolvers.immutable({ fields: ["a"] }),
          [1_000, { n: 1 }],
          [2_000, { n: 2, a: 1 }],
          [3_000, { a: 2 }],
          [4_000, { n: 3 }],
          [5_000, undefined],
          [6_000, { n: 4, a: 1 }]
        )
      ).toEqual(becomes({ n: 4, a: 1 }, field, field, field))
    }))

  it.effect("versionIncrement accepts what follows upon what is there, whatever the time", () =>
    Effect.gen(function*() {
      const version = Resolvers.versionIncrement({ field: "v" })
      const wrong = "field \"v\" has to be one more than that of the record as it is"
      expect(
        yield* after(
          version,
          [5_000, { v: 0 }],
          [5_000, { v: 1, by: "a" }],
          [1_000, { v: 2, by: "b" }],
          [6_000, { v: 2, by: "c" }],
          [7_000, { v: 4 }],
          [7_000, { v: "3" }],
          [7_000, "x"]
        )
      ).toEqual(becomes({ v: 2, by: "b" }, wrong, wrong, wrong, wrong, wrong))
    }))

  it.effect("all of several: each after those before it, until one says no", () =>
    Effect.gen(function*() {
      const both = Resolvers.all([Resolvers.nonNegative({ field: "n" }), Resolvers.numericMax({ field: "n" })])
      expect(yield* after(both, [2_000, { n: 1 }], [1_000, { n: 2 }], [3_000, { n: -1 }])).toEqual(
        becomes({ n: 2 }, "field \"n\" may not be negative")
      )
      const chained = Resolvers.all([
        Resolvers.arrayUnion(),
        ({ proposed }) => (proposed as ReadonlyArray<unknown>).length > 2 ? Resolvers.reject("full") : Resolvers.latest
      ])
      expect(yield* after(chained, [2_000, [1]], [1_000, [2]], [3_000, [3]])).toEqual(becomes([1, 2], "full"))
      const removed = Resolvers.all([() => Resolvers.accept, () =>
        Resolvers.remove, ({ proposed }) =>
        proposed === undefined ? Resolvers.accept : Resolvers.reject("not removed")])
      expect(yield* after(removed, [2_000, 1], [1_000, 2])).toEqual(becomes(undefined))
      expect(yield* after(Resolvers.all([]), [2_000, 1], [1_000, 2])).toEqual(becomes(1))
      expect(
        yield* after(
          Resolvers.all([() =>
            Resolvers.accept, Resolvers.lastWriteWins()]),
          [2_000, 1],
          [1_000, 2]
        )
      )
        .toEqual(becomes(2))
    }))
})

// --- Users ---

/** Tokens say who it is and which roles he has: `alice`, `bob editor,admin`. */
const verifier = Authentication.layerVerifier((token) => {
  const [userId, roles = ""] = token.split(" ") as [string, string?]
  return Effect.succeed({ userId, roles: roles.split(",").filter((role) => role !== ""), attributes: { team: ["x"] } })
})
const guarded = (
  policy: PermissionPolicy.Policy,
  rules: ReadonlyArray<Resolvers.Rule>,
  settings: Settings = {}
) =>
  TopGunServer.layerInProcess({ auth: "token", policy, ...patient, ...settings }).pipe(
    Layer.provide([verifier, Resolvers.layer(rules)])
  )
let devices = 0
const enter = Effect.fnUntraced(function*(token: string, nodeId = `user${String(devices++).padStart(12, "0")}`) {
  const client = yield* inProcess
  yield* client.send({ ...auth, nodeId, token })
  yield* client.take("AuthAck")
  return client
})

describe("Where users are asked who they are", () => {
  it.effect("serverOnly is for those of a role, ownerOnly for whom a record names", () =>
    Effect.gen(function*() {
      const alice = yield* enter("alice")
      const bob = yield* enter("bob")
      const server = yield* enter("job server")
      const outcome = (client: PlainClient, sequence: number, map: string, row: Uint8Array) =>
        Effect.map(write(client, sequence, "k", row, map), (answer) => answer._tag === "OpAck" ? "ok" : answer.reason)
      expect(yield* outcome(alice, 0, "news", put(1, 1_000))).toBe("only the server writes here")
      expect(yield* outcome(server, 0, "news", put(1, 1_000))).toBe("ok")
      expect(yield* outcome(alice, 1, "news", removal(2_000))).toBe("only the server writes here")
      const others = "the record is another's"
      expect(yield* outcome(alice, 2, "notes", put({ owner: "bob" }, 1_000))).toBe(others)
      expect(yield* outcome(alice, 3, "notes", put({ owner: "alice" }, 1_000))).toBe("ok")
      expect(yield* outcome(bob, 0, "notes", put({ owner: "bob" }, 2_000))).toBe(others)
      expect(yield* outcome(bob, 1, "notes", removal(2_000))).toBe(others)
      expect(yield* outcome(alice, 4, "notes", put({ owner: "bob" }, 3_000))).toBe(others)
      expect(yield* outcome(alice, 5, "notes", removal(3_000))).toBe("ok")
    }).pipe(Effect.provide(guarded(PermissionPolicy.everything, [
      { maps: "news", resolve: Resolvers.serverOnly() },
      { maps: "notes", resolve: Resolvers.ownerOnly({ field: "owner" }) }
    ]))))

  it.effect("a resolver is told who writes, and can't change who that is", () => {
    const seen: Array<unknown> = []
    return Effect.gen(function*() {
      const alice = yield* enter("alice editor")
      yield* write(alice, 0, "k", put(1, 1_000))
      yield* write(alice, 1, "k", put(2, 2_000))
      const principal = { userId: "alice", roles: ["editor"], attributes: { team: ["x"] } }
      expect(seen).toEqual([principal, principal])
    }).pipe(Effect.provide(guarded(PermissionPolicy.everything, [{
      maps: "m",
      resolve: ({ principal }) => {
        seen.push(structuredClone(principal))
        const mine = principal as { userId: string; roles: Array<string>; attributes: { team: Array<string> } }
        for (
          const change of [
            () => mine.userId = "root",
            () => mine.roles.push("admin"),
            () => mine.attributes.team.push("y"),
            () => Object.assign(mine.attributes, { x: 1 })
          ]
        ) expect(change).toThrow()
        return Resolvers.latest
      }
    }])))
  })

  it.effect("nobody gets by a resolver what he may not write, be it an older write that wins", () => {
    const own = { owner: { principal: "userId" } }
    const policy: PermissionPolicy.Policy = {
      rules: [
        { maps: ["*"], roles: ["admin"], allow: ["read", "put", "remove"] },
        {
          maps: ["m"],
          roles: ["user"],
          allow: ["read", "put"],
          where: own,
          fields: { read: ["owner", "n"], write: ["owner", "n"] }
        }
      ]
    }
    const made: Record<string, Resolvers.Outcome> = {
      hidden: Resolvers.value({ owner: "alice", n: 1, hidden: "changed" }),
      given: Resolvers.value({ owner: "bob", n: 1, hidden: "h" }),
      removed: Resolvers.remove,
      fine: Resolvers.value({ owner: "alice", n: 7, hidden: "h" }),
      kept: Resolvers.keep
    }
    return Effect.gen(function*() {
      const admin = yield* enter("root admin")
      const alice = yield* enter("alice")
      const bob = yield* enter("bob")
      let sequence = 0
      for (const key of [...Object.keys(made), "older"]) {
        yield* write(admin, sequence++, key, put({ owner: "alice", n: 0, hidden: "h" }, 2_000))
      }
      const answers: Record<string, string> = {}
      for (const key of Object.keys(made)) {
        const answer = yield* write(alice, sequence++, key, put({ owner: "alice", n: 1 }, 3_000))
        answers[key] = answer._tag === "OpAck" ? "ok" : answer.cause
      }
      expect(answers).toEqual({
        hidden: "PermissionDenied",
        given: "PermissionDenied",
        removed: "PermissionDenied",
        fine: "ok",
        kept: "ok"
      })
      // An older one wins here: it's overlaid, and judged, like one that would win by its time.
      expect(yield* write(bob, 0, "older", put({ owner: "bob", n: 1 }, 1_000))).toMatchObject({
        cause: "PermissionDenied"
      })
      expect((yield* write(alice, sequence++, "older", put({ owner: "alice", n: 5 }, 1_000)))._tag).toBe("OpAck")
      yield* admin.send(openMap("m"))
      yield* admin.take("SyncRoot")
      const records = (yield* recordsOf(admin, "m")).map(([key, row]) => [key, valueOf(row)])
      expect(Object.fromEntries(records)).toEqual({
        hidden: { owner: "alice", n: 0, hidden: "h" },
        given: { owner: "alice", n: 0, hidden: "h" },
        removed: { owner: "alice", n: 0, hidden: "h" },
        fine: { owner: "alice", n: 7, hidden: "h" },
        kept: { owner: "alice", n: 0, hidden: "h" },
        older: { owner: "alice", n: 5, hidden: "h" }
      })
    }).pipe(Effect.provide(guarded(policy, [{
      maps: "m",
      resolve: ({ key, principal }) => principal?.userId === "root" ? Resolvers.accept : made[key] ?? Resolvers.accept
    }])))
  })
})

describe("What a resolver makes", () => {
  it.effect("expires when the proposal would, or as what it keeps", () =>
    Effect.gen(function*() {
      const expiring = (value: unknown, millis: number, expiresAt: number) =>
        LwwRecord.put({ millis, counter: 0, nodeId: writers[0] }, Value.encode(value), expiresAt).row
      const expiresAt = ({ row }: { readonly row: Uint8Array }) => LwwRecord.decode(row).expiresAt
      const [first, second] = [expiring({ n: 5 }, 1_000, 3_000_000), expiring({ n: 6 }, 2_000, 2_000_000)]
      const keeps: Resolvers.Resolver = ({ stored }) => stored === undefined ? Resolvers.accept : Resolvers.keep
      expect(expiresAt(yield* meeting(keeps, first, second))).toBe(3_000_000)
      expect(expiresAt(yield* meeting(Resolvers.numericMax({ field: "n" }), second, first))).toBe(3_000_000)
      expect(expiresAt(yield* meeting(() => Resolvers.accept, second, first))).toBe(3_000_000)
      expect(
        expiresAt(
          yield* meeting(
            ({ stored }) => stored === undefined ? Resolvers.accept : Resolvers.value(1),
            first,
            removal(5_000)
          )
        )
      ).toBe(3_000_000)
      // What has expired isn't there to be kept.
      const gone = yield* meeting(keeps, expiring(1, 1_000, 900_000), put(2, 2_000))
      expect(gone.value).toBe(2)
      const nothing = yield* meeting(() => Resolvers.keep, put(2, 2_000))
      expect(nothing.value).toBe(undefined)
      expect(stampOf(nothing.row)).toEqual({ millis: 2_000, counter: 0, nodeId: amender })
    }))
})

// --- Operations that come again ---

const temporaryDir = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "topgun-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)
const version = (count: number, millis: number) => put({ version: count }, millis)
const device = "devicedevice0000"
/** A connection of one device, by the secret that it was given last. */
const connect = Effect.fnUntraced(function*(secret: string | null = null) {
  const client = yield* inProcess
  yield* client.send({ ...auth, nodeId: device, secret })
  return { ...client, secret: (yield* client.take("AuthAck")).secret }
})
const versioned = [{ maps: "m", resolve: Resolvers.versionIncrement({ field: "version" }) }]

/** A server whose log does something else with what it is told to keep. */
const serverWith = (dataDir: string, append: (log: Persistence.Log) => Persistence.Log["append"]) =>
  TopGunServer.layerPartsInProcess.pipe(
    Layer.provide([CrdtStore.layer, Hlc.layer(), MerkleSync.layer, PartitionRouter.layerSingleNode]),
    Layer.provide(
      Layer.map(Persistence.layerSqlite, (context) => {
        const log = Context.get(context, Persistence.Persistence)
        return Context.make(Persistence.Persistence, { ...log, append: append(log) })
      })
    ),
    Layer.provide([ServerConfig.layer({ storage: "sqlite", dataDir, ...patient }), Resolvers.layer(versioned)])
  )

describe("An operation on a map with a resolver that comes again", () => {
  it.effect("gets the answer that it got, and changes nothing", () =>
    Effect.gen(function*() {
      const first = yield* connect()
      const batches = [
        batch("m", "APPLIED", 0, [["k", version(1, 1_000)], ["k", version(3, 2_000)], ["k", version(2, 3_000)]]),
        batch("m", "APPLIED", 5, [["j", version(1, 4_000)], ["k", version(7, 5_000)]], { atomic: "more" }),
        batch("free", "APPLIED", 7, [["k", put(1)]], { atomic: "end" }),
        batch("m", "APPLIED", 9, [["l", version(1, 6_000)]], { atomic: "more" }),
        batch("free", "APPLIED", 10, [["k", put(2)]], { atomic: "end" })
      ]
      const answersOf = (client: PlainClient) =>
        Effect.gen(function*() {
          yield* client.send(...batches)
          const rejected = yield* Effect.forEach([1, 2, 3, 4], () => client.take("OpReject"))
          const accepted: Array<number> = []
          while (accepted.length < 4) accepted.push(...(yield* client.take("OpAck")).sequences)
          return { rejected, accepted: accepted.sort((x, y) => x - y) }
        })
      const before = yield* answersOf(first)
      expect(before.accepted).toEqual([0, 2, 9, 10])
      expect(before.rejected.map(({ sequence }) => sequence)).toEqual([1, 5, 6, 7])
      const other = yield* follower
      yield* write(other, 0, "k", version(3, 10_000))
      const root = (yield* recordsOf(other, "m")).map(([key, row]) => [key, valueOf(row)])
      const again = yield* answersOf(yield* connect(first.secret))
      expect(again).toEqual(before)
      expect((yield* recordsOf(other, "m")).map(([key, row]) => [key, valueOf(row)])).toEqual(root)
      expect(other.untaken("ServerEvent")).toBe(0)
    }).pipe(Effect.provide(serverOf(versioned))))

  it.effect("brings its writer what is there by now", () =>
    Effect.gen(function*() {
      const first = yield* connect()
      yield* write(first, 0, "k", put({ a: 1 }, 1_000))
      yield* write(yield* inProcessReady, 0, "k", put({ b: 2 }, 2_000))
      const second = yield* connect(first.secret)
      yield* second.send(openMap("m"))
      yield* second.take("SyncRoot")
      yield* write(second, 0, "k", put({ a: 1 }, 1_000))
      const { records } = yield* second.take("ServerEvent")
      expect(records.map(([, row]) => valueOf(row))).toEqual([{ a: 1, b: 2 }])
    }).pipe(Effect.provide(ruled(Resolvers.deepMerge()))))

  it.effect("of a storage that was put back is another one, which is told by its time", () =>
    Effect.gen(function*() {
      const first = yield* connect()
      yield* write(first, 5, "k", version(1, 1_000))
      yield* write(first, 6, "k", version(9, 2_000))
      const second = yield* connect(first.secret)
      expect((yield* write(second, 4, "j", version(1, 900)))._tag).toBe("OpAck")
      expect((yield* write(second, 5, "l", version(1, 3_000)))._tag).toBe("OpAck")
      expect((yield* write(second, 6, "l", version(2, 4_000)))._tag).toBe("OpAck")
      yield* second.send(openMap("m"))
      yield* second.take("SyncRoot")
      expect((yield* recordsOf(second, "m")).map(([key, row]) => [key, valueOf(row)])).toEqual([
        ["k", { version: 1 }],
        ["l", { version: 2 }]
      ])
    }).pipe(Effect.provide(serverOf(versioned))))

  it.scoped("is nobody else's who comes as the same device", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      const server = guarded(PermissionPolicy.everything, versioned, { storage: "sqlite", dataDir })
      const enterAs = (token: string) =>
        Effect.gen(function*() {
          const client = yield* enter(token, device)
          return yield* write(client, token === "alice" ? 100 : 5, token, version(1, token === "alice" ? 5_000 : 4_000))
        }).pipe(Effect.provide(server))
      yield* enterAs("alice")
      // Whose device it is was forgotten with the process. What he writes is new, whatever its number and time.
      yield* enterAs("bob")
      yield* Effect.gen(function*() {
        const client = yield* enter("carol")
        yield* client.send(openMap("m"))
        yield* client.take("SyncRoot")
        expect((yield* recordsOf(client, "m")).map(([key]) => key)).toEqual(["alice", "bob"])
      }).pipe(Effect.provide(server))
    }))

  it.scoped("gets the answer that it got before the server crashed, and is done where that wasn't saved", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      const sound = serverWith(dataDir, ({ append }) => append)
      const lost = serverWith(dataDir, () => () => {})
      const unheard = serverWith(
        dataDir,
        ({ append }) => (batches, settle, more) => append(batches, batches.length === 0 ? settle : () => {}, more)
      )
      const ops = [["k", version(1, 1_000)], ["k", version(5, 2_000)], ["k", version(2, 3_000)]] as const
      // It ends before the commit, and then between the commit and the acknowledgement.
      for (const server of [lost, unheard]) {
        yield* Effect.gen(function*() {
          const client = yield* connect()
          yield* client.send(batch("m", "PERSISTED", 0, ops.slice(0, 2)))
          expect((yield* client.take("OpReject")).sequence).toBe(1)
          yield* settled
          expect(client.untaken("OpAck")).toBe(0)
        }).pipe(Effect.provide(server))
      }
      yield* Effect.gen(function*() {
        const client = yield* connect()
        yield* client.send(batch("m", "PERSISTED", 0, ops))
        expect(yield* client.take("OpReject")).toMatchObject({
          sequence: 1,
          reason: "field \"version\" has to be one more than that of the record as it is"
        })
        expect(yield* client.take("OpAck")).toMatchObject({ level: "PERSISTED", sequences: [0, 2] })
        yield* client.send(openMap("m"))
        yield* client.take("SyncRoot")
        expect((yield* recordsOf(client, "m")).map(([, row]) => valueOf(row))).toEqual([{ version: 2 }])
      }).pipe(Effect.provide(sound))
    }))

  it.scoped("is acknowledged as PERSISTED after everything that was merged before it is committed", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      const line: Array<() => void> = []
      const holding = serverWith(dataDir, ({ append }) => (...appended) => void line.push(() => append(...appended)))
      yield* Effect.gen(function*() {
        const first = yield* connect()
        yield* first.send(batch("m", "APPLIED", 0, [["k", version(1, 1_000)]]))
        yield* first.take("OpAck")
        const second = yield* connect(first.secret)
        yield* second.send(batch("m", "PERSISTED", 0, [["k", version(1, 1_000)]]))
        yield* settled
        expect(line.length).toBe(2)
        line[0]!()
        yield* Effect.flatMap(TopGunServer.TopGunServer, ({ status }) => status)
        expect(second.untaken("OpAck")).toBe(0)
        line[1]!()
        expect(yield* second.take("OpAck")).toMatchObject({ level: "PERSISTED", sequences: [0] })
        line.length = 0
      }).pipe(Effect.provide(Layer.orDie(holding)))
    }))
})
