import { randomBytes } from "node:crypto"
import { deflateRawSync, inflateRawSync } from "node:zlib"
import * as browser from "../src/internal/deflate.browser.ts"
import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc, Schema } from "effect"
import { Packr, unpack, unpackMultiple } from "msgpackr"
import { MalformedMessage } from "../src/GridError.ts"
import * as Protocol from "../src/Protocol.ts"
import * as Value from "../src/Value.ts"
import { WriteConcern } from "../src/WriteConcern.ts"
import { nodeId } from "./arbitraries.ts"

const kinds = ["lww", "or", "counter"] as const
const sequence = fc.oneof(
  fc.constantFrom(0, 1, 127, 128, 255, 256, 65_535, 65_536, 2 ** 31, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER),
  fc.nat()
)
const someBytes = fc.uint8Array({ maxLength: 40 })
const hash = fc.uint8Array({ minLength: 8, maxLength: 8 })
const text = fc.string({ unit: "binary", maxLength: 20 })
const mapName = fc.oneof(
  fc.constantFrom("__proto__", "constructor", "$sys", "a:b"),
  fc.string({ minLength: 1, maxLength: 30 })
)
const node = fc.tuple(fc.nat(270), fc.stringMatching(/^[0-9a-f]{0,16}$/))
/** Around each length at which a form gets wider. */
const key = fc.oneof(
  text,
  fc.constantFrom(31, 32, 255, 256, Value.keyBytesMax).map((length) => "k".repeat(length)),
  fc.constantFrom("é".repeat(16), "日本".repeat(100), "__proto__", "constructor", "\u0000", "\ufeff")
)
const row = fc.oneof(
  someBytes,
  fc.constantFrom(255, 256, 65_535, 65_536).map((length) => new Uint8Array(length).fill(0xc1))
)
const someOps = fc.array(fc.tuple(sequence, key, row), { maxLength: 4 })
const someRecords = fc.array(fc.tuple(key, row), { maxLength: 4 })
const orNull = <A>(some: fc.Arbitrary<A>): fc.Arbitrary<A | null> => fc.option(some, { nil: null })
const tagged = <Tag extends string, Fields>(_tag: Tag, fields: { [Key in keyof Fields]: fc.Arbitrary<Fields[Key]> }) =>
  fc.record({ _tag: fc.constant(_tag), ...fields } as never) as fc.Arbitrary<{ readonly _tag: Tag } & Fields>

const places = fc.nat(9).chain((n) => fc.uint8Array({ minLength: n * 10, maxLength: n * 10 }))

/** Fields of a client's messages that may be null. */
const nullable = new Set(["token", "secret", "cursor", "after", "confirmed"])
const cursor = orNull(fc.tuple(fc.string({ maxLength: 64 }), sequence))

const fromClient: { readonly [Tag in Protocol.ClientMessage["_tag"]]: fc.Arbitrary<Protocol.ClientMessage> } = {
  Auth: tagged("Auth", {
    protocol: sequence,
    nodeId,
    secret: orNull(text),
    token: orNull(text),
    confirmed: orNull(fc.tuple(text, sequence))
  }),
  SyncInit: tagged("SyncInit", { id: sequence, map: mapName, kind: fc.constantFrom(...kinds), root: hash, cursor }),
  SyncBuckets: tagged("SyncBuckets", {
    id: sequence,
    map: mapName,
    lane: fc.constantFrom(0 as const, 1 as const),
    nodes: someBytes
  }),
  SyncFetch: tagged("SyncFetch", {
    id: sequence,
    map: mapName,
    wants: places,
    after: orNull(text)
  }),
  SyncPull: tagged("SyncPull", { id: sequence, map: mapName, node, after: orNull(text) }),
  QueryOpen: tagged("QueryOpen", { id: sequence, map: mapName, query: someBytes }),
  QueryClose: tagged("QueryClose", { id: sequence }),
  OpBatch: tagged("OpBatch", {
    map: mapName,
    kind: fc.constantFrom(...kinds),
    concern: fc.constantFrom(...WriteConcern.literals),
    atomic: fc.constantFrom("no" as const, "more" as const, "end" as const),
    ops: someOps
  }),
  AuthRenew: tagged("AuthRenew", { id: sequence, token: text }),
  AuthKept: tagged("AuthKept", { secret: text }),
  Confirmed: tagged("Confirmed", { age: sequence }),
  Traced: tagged("Traced", {
    parent: fc.stringMatching(/^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/)
  }),
  Ping: tagged("Ping", { id: sequence }),
  Call: tagged("Call", { payload: someBytes })
}

const fromServer: { readonly [Tag in Protocol.ServerMessage["_tag"]]: fc.Arbitrary<Protocol.ServerMessage> } = {
  AuthAck: tagged("AuthAck", {
    protocol: sequence,
    secret: text,
    run: text,
    serverMillis: fc.nat(),
    generation: text,
    age: sequence,
    durable: fc.boolean(),
    userId: orNull(text),
    expiresAt: orNull(fc.nat())
  }),
  AuthRenewAck: tagged("AuthRenewAck", { id: sequence, expiresAt: orNull(fc.nat()) }),
  AuthExpired: tagged("AuthExpired", { graceMillis: sequence }),
  SyncRoot: tagged("SyncRoot", {
    id: sequence,
    root: hash,
    partial: fc.boolean(),
    watermark: sequence,
    sequence,
    partitions: orNull(someBytes),
    records: someRecords
  }),
  SyncBucketsAck: tagged("SyncBucketsAck", { id: sequence, buckets: someBytes }),
  SyncLeaf: tagged("SyncLeaf", { id: sequence, records: someRecords, after: orNull(text) }),
  ServerEvent: tagged("ServerEvent", { map: mapName, sequence, records: someRecords }),
  Checkpoint: tagged("Checkpoint", { age: sequence }),
  GcPrune: tagged("GcPrune", { map: mapName, cells: places }),
  Withdraw: tagged("Withdraw", { map: mapName, keys: fc.array(text) }),
  SyncAgain: tagged("SyncAgain", { map: mapName }),
  QueryAck: tagged("QueryAck", { id: sequence, query: sequence }),
  QueryRows: tagged("QueryRows", {
    query: sequence,
    version: sequence,
    after: sequence,
    isLast: fc.boolean(),
    hasMore: fc.boolean(),
    left: fc.array(text),
    scores: orNull(fc.nat(4).chain((n) => fc.uint8Array({ minLength: n * 8, maxLength: n * 8 }))),
    records: someRecords
  }),
  GoingAway: tagged("GoingAway", { retryMillis: sequence }),
  OpAck: tagged("OpAck", {
    level: fc.constantFrom(...WriteConcern.literals),
    replicas: sequence,
    sequences: fc.array(sequence)
  }),
  OpReject: tagged("OpReject", { sequence, cause: text, reason: text }),
  Durable: tagged("Durable", { sequence }),
  Pong: tagged("Pong", { id: sequence, serverMillis: fc.nat() }),
  Reply: tagged("Reply", { payload: someBytes }),
  Fault: tagged("Fault", { id: orNull(sequence), cause: text, reason: text })
}

const refused = (run: () => unknown): string => {
  try {
    run()
  } catch (fault) {
    assert.instanceOf(fault, MalformedMessage)
    return fault.reason
  }
  return assert.fail("the frame was accepted")
}

/** A message as MessagePack has it, without its type, for what no type allows. */
const sample = (tag: keyof typeof fromClient): Record<string, unknown> =>
  unpack(Protocol.encode(fc.sample(fromClient[tag], { numRuns: 1, seed: 1 })[0]!))

const names = [
  "",
  "__proto__",
  "constructor",
  "prototype",
  "toString",
  "hasOwnProperty",
  "length",
  ":",
  "/",
  "*",
  "$sys/x",
  "a",
  "a:",
  "\u0000",
  "\u202e",
  "\u00e9",
  "e\u0301",
  "👩‍👩‍👧",
  "\ufeff",
  "'; drop table records; --"
]

const bytesOf = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex.replaceAll(" ", ""), "hex"))
const hexOf = (content: Uint8Array): string => Buffer.from(content).toString("hex")
const packr = new Packr({ useRecords: false, variableMapSize: true })
const packed = (message: unknown): Uint8Array => new Uint8Array(packr.pack(message))

/** An `OpBatch` whose operations are these bytes. */
const batchOf = (ops: unknown): Uint8Array =>
  packed({ _tag: "OpBatch", map: "m", kind: "lww", concern: "APPLIED", atomic: "no", ops })
/** A `ServerEvent` whose records are these bytes. */
const eventOf = (records: unknown): Uint8Array => packed({ _tag: "ServerEvent", map: "m", sequence: 0, records })
/** A `Ping` whose id is what `hex` says. */
const pingOf = (hex: string): Uint8Array =>
  bytesOf(`82 a4${hexOf(Buffer.from("_tag"))} a4${hexOf(Buffer.from("Ping"))} a26964 ${hex}`)

const float = (value: number): string => {
  const buffer = Buffer.alloc(8)
  buffer.writeDoubleBE(value)
  return `cb${buffer.toString("hex")}`
}

/** Tuples without their deflate, by the header's words. */
const inflated = (bytes: Uint8Array): Uint8Array =>
  bytes[0] === 1 ? new Uint8Array(inflateRawSync(bytes.subarray(5))) : new Uint8Array(bytes)

const plain = (content: Uint8Array): unknown =>
  content.length === 0 ?
    [] :
    (unpackMultiple(inflated(content)) as ReadonlyArray<ReadonlyArray<unknown>>).map((tuple) =>
      tuple.map((part) => part instanceof Uint8Array ? new Uint8Array(part) : part)
    )

/** Operations as they are in an `OpBatch`. */
const bytesOfOps = (ops: ReadonlyArray<Protocol.OpTuple>): Uint8Array =>
  inflated(
    unpack(Protocol.encode({ _tag: "OpBatch", map: "m", kind: "lww", concern: "APPLIED", atomic: "no", ops })).ops
  )

/** Records as they are in a `ServerEvent`. */
const bytesOfRecords = (records: ReadonlyArray<Protocol.RecordTuple>): Uint8Array =>
  inflated(unpack(Protocol.encode({ _tag: "ServerEvent", map: "m", sequence: 0, records })).records)

const decodeClient = (message: unknown) => Protocol.decodeFromClient(packed(message))

describe("Protocol", () => {
  for (const [tag, arbitrary] of Object.entries(fromClient)) {
    it.prop(`carries ${tag} to the server as it was`, [arbitrary], ([message]) => {
      const [decoded, ...more] = Protocol.decodeFromClient(Protocol.encode(message))
      assert.deepStrictEqual(decoded, message)
      assert.strictEqual(more.length, 0)
    })
  }

  for (const [tag, arbitrary] of Object.entries(fromServer)) {
    it.prop(`carries ${tag} to the client as it was`, [arbitrary], ([message]) => {
      const [decoded, ...more] = Protocol.decodeFromServer(Protocol.encode(message))
      assert.deepStrictEqual(decoded, message)
      assert.strictEqual(more.length, 0)
    })
  }

  it.prop(
    "carries several messages in one frame, in their order",
    [fc.array(fc.oneof(...Object.values(fromClient)), { minLength: 1, maxLength: 8 })],
    ([messages]) => {
      const frame = Protocol.frame(messages.map(Protocol.encode))
      assert.deepStrictEqual(Protocol.decodeFromClient(frame), messages)
    }
  )

  it.prop("gives each message bytes of its own", [fromClient.OpBatch, fromClient.Ping], ([first, second]) => {
    const encoded = Protocol.encode(first)
    const before = encoded.slice()
    Protocol.encode(second)
    assert.deepStrictEqual(encoded, before)
    // A large one keeps no others from the collector, a small one few.
    assert.isTrue(encoded.byteLength === encoded.buffer.byteLength || encoded.buffer.byteLength === 4096)
  })

  it("refuses unknown messages, and those of the other direction", () => {
    for (const message of [{ _tag: "GcPrune" }, { _tag: "__proto__" }, { _tag: 1 }, {}, [], null, 1, "Ping"]) {
      refused(() => decodeClient(message))
    }
    refused(() => Protocol.decodeFromClient(Protocol.encode({ _tag: "Durable", sequence: 1 })))
    refused(() => Protocol.decodeFromServer(Protocol.encode({ _tag: "Ping", id: 1 })))
  })

  it("refuses a message with a field that it doesn't know, lacks, or has of another type", () => {
    for (const tag of Object.keys(fromClient) as Array<keyof typeof fromClient>) {
      const message = sample(tag)
      assert.match(refused(() => decodeClient({ ...message, extra: 1 })), /extra|unexpected/i)
      for (const field of Object.keys(message)) {
        const { [field]: _, ...rest } = message
        refused(() => decodeClient(rest))
        refused(() => decodeClient({ ...message, [field]: { nested: true } }))
        refused(() => decodeClient({ ...message, [field]: -1 }))
      }
    }
  })

  it("refuses numbers that are no sequence, hashes that are none, and lists beyond their limits", () => {
    const cases: ReadonlyArray<readonly [keyof typeof fromClient, Record<string, unknown>]> = [
      ...[-1, 0.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY, "1", null].map((id) => ["Ping", { id }] as const),
      ...[7, 9].map((length) => ["SyncInit", { root: new Uint8Array(length) }] as const),
      ...["OR", "pn", "", 0, null].map((kind) => ["SyncInit", { kind }] as const),
      ...["OR", "pn", "", 0, null].map((kind) => ["OpBatch", { kind }] as const),
      ...["yes", "END", "", true, false, 0, null].map((atomic) => ["OpBatch", { atomic }] as const),
      ["SyncInit", { map: "" }],
      ["SyncInit", { map: "m".repeat(257) }],
      ...[8, 9, 11].map((length) => ["SyncFetch", { wants: new Uint8Array(length) }] as const),
      ["SyncFetch", { wants: new Uint8Array(10 * 1025) }],
      ["SyncPull", { node: [271, ""] }],
      ["SyncPull", { node: [0, "g"] }],
      ["SyncPull", { node: [0, "0".repeat(17)] }],
      ["SyncPull", { node: [0, "A"] }],
      ["SyncPull", { node: [0, "", ""] }],
      ["SyncBuckets", { nodes: new Uint8Array(Protocol.nodesBytesMax + 1) }],
      ["SyncBuckets", { nodes: [[0, ""]] }],
      ...[2, -1, 0.5, "0", true, null].map((lane) => ["SyncBuckets", { lane }] as const),
      ["OpBatch", { ops: [[1, "k", new Uint8Array(1)]] }],
      ["OpBatch", { ops: "ops" }],
      ["OpBatch", { ops: null }],
      ["OpBatch", { concern: "persisted" }],
      ["Auth", { nodeId: "UPPERCASEUPPERCA" }],
      ["Auth", { nodeId: "short" }],
      ["Auth", { token: 1 }],
      ["Auth", { secret: 1 }],
      ...[[], ["r"], ["r", -1], [1, 1], ["r", 1, 1], ["r".repeat(65), 1], "r"].map((at) =>
        ["SyncInit", { cursor: at }] as const
      )
    ]
    for (const [tag, wrong] of cases) refused(() => decodeClient({ ...sample(tag), ...wrong }))
  })

  it("refuses an empty frame's worth of nothing but accepts no message as no messages", () => {
    try {
      assert.deepStrictEqual(Protocol.decodeFromClient(new Uint8Array(0)), [])
    } catch (fault) {
      assert.instanceOf(fault, MalformedMessage)
    }
  })

  it("lets names be names, whatever they are", () => {
    for (const name of names) {
      const messages: ReadonlyArray<Protocol.ClientMessage> = [
        { _tag: "SyncInit", id: 1, map: name === "" ? "m" : name, kind: "lww", root: new Uint8Array(8), cursor: null },
        {
          _tag: "OpBatch",
          map: "m",
          kind: "lww",
          concern: "APPLIED",
          atomic: "no",
          ops: [[1, name, new Uint8Array(1)]]
        }
      ]
      assert.deepStrictEqual(Protocol.decodeFromClient(Protocol.frame(messages.map(Protocol.encode))), messages)
    }
  })
  it("leaves Object.prototype alone, whatever names come", () => {
    refused(() => decodeClient(JSON.parse("{\"_tag\":\"Ping\",\"id\":1,\"__proto__\":{\"polluted\":true}}")))
    assert.isUndefined(({} as Record<string, unknown>)["polluted"])
  })

  it("refuses MessagePack's extensions, even where they would make a message", () => {
    const extended = new Packr({ useRecords: true })
    refused(() => Protocol.decodeFromClient(new Uint8Array(extended.pack({ _tag: "Ping", id: 1 }))))
    refused(() => decodeClient({ _tag: "Auth", protocol: 1, nodeId: "a".repeat(16), secret: null, token: new Date(0) }))
  })

  it("refuses a frame that would cost far more than its bytes", () => {
    const claims = Uint8Array.of(0xdd, 0x01, 0xc9, 0xc3, 0x80)
    const deep = new Uint8Array(200_000).fill(0x91)
    const wide = new Uint8Array(1_000_000).fill(0x80)
    for (const frame of [claims, deep, wide]) refused(() => Protocol.decodeFromClient(frame))
  })
})

describe("operations and records", () => {
  it.prop("are read by any other reader of MessagePack", [someOps, someRecords], ([ops, records]) => {
    const batch = unpack(
      Protocol.encode({ _tag: "OpBatch", map: "m", kind: "or", concern: "APPLIED", atomic: "end", ops })
    )
    assert.deepStrictEqual(plain(batch.ops), ops)
    const event = unpack(Protocol.encode({ _tag: "ServerEvent", map: "m", sequence: 0, records }))
    assert.deepStrictEqual(plain(event.records), records)
  })

  it.prop(
    "have one form each: whatever is let through would be written so",
    [
      fc.oneof(
        fc.tuple(fc.constant(true), someOps.map(bytesOfOps)),
        fc.tuple(fc.constant(false), someRecords.map(bytesOfRecords)),
        fc.tuple(fc.boolean(), fc.uint8Array({ maxLength: 12 }).map((more) => Uint8Array.of(0x93, 0x01, ...more)))
      ),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 2 })
    ],
    ([[areOps, content], changes]) => {
      for (const [at, byte] of changes) if (content.length > 0) content[at % content.length] = byte
      let again: Uint8Array
      try {
        again = areOps
          ? bytesOfOps((Protocol.decodeFromClient(batchOf(content))[0] as typeof Protocol.OpBatch.Type).ops)
          : bytesOfRecords((Protocol.decodeFromServer(eventOf(content))[0] as typeof Protocol.ServerEvent.Type).records)
      } catch (fault) {
        assert.instanceOf(fault, MalformedMessage)
        return
      }
      assert.strictEqual(Buffer.compare(again, content), 0)
    },
    { fastCheck: { numRuns: 10_000 }, timeout: 60_000 }
  )

  it("are refused where they were cut short, at every byte", () => {
    const ops: ReadonlyArray<Protocol.OpTuple> = [
      [5, "key", new Uint8Array(3)],
      [500, "k".repeat(40), new Uint8Array(300)],
      [70_000, "k".repeat(300), new Uint8Array(70_000)],
      [2 ** 40, "é", new Uint8Array(0)]
    ]
    for (const op of ops) {
      const content = bytesOfOps([op])
      const ends = content.length > 1_000 ? [...Array(400).keys(), content.length - 1] : content.keys()
      for (const end of ends) {
        if (end === 0) continue
        assert.match(refused(() => Protocol.decodeFromClient(batchOf(content.slice(0, end)))), /cut short/)
      }
    }
  })

  it("are as many as a batch or a frame may have, and no more", () => {
    const batch = (count: number) => batchOf(bytesOf("9300a0c400".repeat(count)))
    assert.strictEqual(Protocol.decodeFromClient(batch(Protocol.batchOperationsMax)).length, 1)
    assert.match(refused(() => Protocol.decodeFromClient(batch(Protocol.batchOperationsMax + 1))), /too many/)
    const full = Array.from({ length: Protocol.frameRowsMax / Protocol.batchOperationsMax }, () => batch(500))
    assert.strictEqual(Protocol.decodeFromClient(Protocol.frame(full)).length, full.length)
    assert.match(refused(() => Protocol.decodeFromClient(Protocol.frame([...full, batch(1)]))), /too many/)
    const event = (count: number) => eventOf(bytesOf("92a0c400".repeat(count)))
    assert.strictEqual(Protocol.decodeFromServer(event(Protocol.frameRowsMax)).length, 1)
    assert.match(refused(() => Protocol.decodeFromServer(event(Protocol.frameRowsMax + 1))), /too many/)
    assert.match(refused(() => Protocol.decodeFromServer(event(200_000))), /too many/)
  })

  const ofText = (count: number): ReadonlyArray<Protocol.RecordTuple> =>
    Array.from(
      { length: count },
      (_, n) => [`key ${n}`, Buffer.from(`the quick brown fox ${n} jumps over the lazy dog`)]
    )
  const deflatedAs = (length: number, content: Uint8Array): Uint8Array => {
    const head = Buffer.alloc(5)
    head[0] = 1
    head.writeUInt32BE(length, 1)
    return eventOf(Buffer.concat([head, content]))
  }

  it("travel deflated where they are many and it pays, each such message in a frame of its own", () => {
    const event = (records: ReadonlyArray<Protocol.RecordTuple>) =>
      Protocol.encode({ _tag: "ServerEvent", map: "m", sequence: 0, records })
    const many = event(ofText(1_000))
    assert.isBelow(many.length, bytesOfRecords(ofText(1_000)).length / 4)
    const few = event(ofText(3))
    const noise = event([["k", randomBytes(10_000)]])
    assert.isAbove(noise.length, 10_000)
    const decoded = (frame: Uint8Array) =>
      Protocol.decodeFromServer(frame).map((message) => (message as typeof Protocol.ServerEvent.Type).records.length)
    assert.deepStrictEqual(Protocol.frames([few, noise, many, many, few]).map(decoded), [[3, 1], [1_000], [1_000], [3]])
    const [message] = Protocol.decodeFromServer(many) as ReadonlyArray<typeof Protocol.ServerEvent.Type>
    assert.deepStrictEqual(message!.records.map(([name, bytes]): Protocol.RecordTuple => [name, Buffer.from(bytes)]), [
      ...ofText(1_000)
    ])
    // What shrinks to less than a hundredth would be taken for a bomb.
    assert.isAbove(event([["k", new Uint8Array(200_000)]]).length, 200_000)
  })

  it("are refused where they inflate to more or less than was said, than is in proportion, or than a frame holds", () => {
    const content = bytesOfRecords(ofText(100))
    const right = deflateRawSync(content)
    assert.strictEqual(Protocol.decodeFromServer(deflatedAs(content.length, right)).length, 1)
    const wrong: ReadonlyArray<readonly [Uint8Array, RegExp]> = [
      [deflatedAs(content.length - 1, right), /inflated/],
      [deflatedAs(content.length + 1, right), /another number/],
      [deflatedAs(content.length, right.subarray(0, -3)), /inflated/],
      [deflatedAs(content.length, randomBytes(500).fill(0xff, 0, 1)), /inflated/],
      [deflatedAs(1 << 20, deflateRawSync(new Uint8Array(1 << 20))), /too many bytes/],
      [deflatedAs((1 << 20) + 1, randomBytes(100_000)), /too many bytes/],
      [deflatedAs(0, new Uint8Array(0)), /inflated/],
      [eventOf(Uint8Array.of(1, 0, 0)), /cut short/]
    ]
    for (const [frame, words] of wrong) assert.match(refused(() => Protocol.decodeFromServer(frame)), words)
    const large = bytesOfRecords(ofText(9_000))
    const half = deflatedAs(large.length, deflateRawSync(large))
    assert.isAbove(large.length, Protocol.frameBytesMax / 2)
    assert.strictEqual(Protocol.decodeFromServer(half).length, 1)
    assert.match(refused(() => Protocol.decodeFromServer(Protocol.frame([half, half]))), /too many bytes/)
  })

  it("are inflated alike in browsers", () => {
    for (const bytes of [Buffer.from("a".repeat(5_000)), randomBytes(5_000), Buffer.alloc(0)]) {
      const content = deflateRawSync(bytes)
      assert.deepStrictEqual(Buffer.from(browser.inflate(content, bytes.length)), bytes)
      assert.notStrictEqual(browser.inflate(content, bytes.length + 1).length, bytes.length + 1)
      if (bytes.length > 0) assert.notStrictEqual(browser.inflate(content, bytes.length - 1).length, bytes.length - 1)
    }
    assert.throws(() => browser.inflate(randomBytes(500).fill(0xff, 0, 1), 5_000))
  })

  it("are views of the frame, not copies", () => {
    const frame = Protocol.encode({ _tag: "ServerEvent", map: "m", sequence: 0, records: [["k", new Uint8Array(100)]] })
    const [event] = Protocol.decodeFromServer(frame) as ReadonlyArray<typeof Protocol.ServerEvent.Type>
    assert.strictEqual(event!.records[0]![1].buffer, frame.buffer)
  })

  it("aren't written with a key that has no UTF-8 form", () => {
    assert.throws(() => bytesOfOps([[1, "\ud800", new Uint8Array(1)]]), TypeError)
    assert.throws(() => bytesOfRecords([["a\udc00", new Uint8Array(1)]]), TypeError)
  })

  const wrong: ReadonlyArray<readonly [what: string, hex: string]> = [
    ["an array of two", "92 01 a16b"],
    ["an array of four", "94 01 a16b c400 c0"],
    ["an array of three in array16", "dc0003 01 a16b c400"],
    ["an array of three in array32", "dd00000003 01 a16b c400"],
    ["a map", "83 01 a16b c400"],
    ["no array", "01 a16b c400"],
    ["an array around all", "91 93 01 a16b c400"],
    ["the byte 0xc1", "c1"],
    ["garbage behind an operation", "93 01 a16b c400 c1"],
    ["a sequence in two bytes that needs one", "93 cc7f a16b c400"],
    ["a sequence in three bytes that needs two", "93 cd00ff a16b c400"],
    ["a sequence in five bytes that needs three", "93 ce0000ffff a16b c400"],
    ["a sequence in float64 that needs no such", `93 ${float(1)} a16b c400`],
    ["the greatest sequence of five bytes in nine", `93 ${float(2 ** 32 - 1)} a16b c400`],
    ["a sequence in float32", "93 ca4f800000 a16b c400"],
    ["a sequence in uint64", "93 cf0000000000000001 a16b c400"],
    ["a sequence of 2^64 - 1", "93 cfffffffffffffffff a16b c400"],
    ["a sequence in int64", "93 d30000000000000001 a16b c400"],
    ["a negative sequence", "93 ff a16b c400"],
    ["a negative sequence in int8", "93 d0ff a16b c400"],
    ["a sequence in int32", "93 d200000001 a16b c400"],
    ["a negative sequence in float64", `93 ${float(-1)} a16b c400`],
    ["a sequence of 2^53", `93 ${float(2 ** 53)} a16b c400`],
    ["a sequence with a fraction", `93 ${float(2 ** 32 + 0.5)} a16b c400`],
    ["a sequence of NaN", "93 cb7ff8000000000000 a16b c400"],
    ["a sequence of NaN with a payload", "93 cb7ff8dead0000beef a16b c400"],
    ["a sequence of infinity", `93 ${float(Infinity)} a16b c400`],
    ["a sequence of -0", `93 ${float(-0)} a16b c400`],
    ["null for a sequence", "93 c0 a16b c400"],
    ["text for a sequence", "93 a131 a16b c400"],
    ["an array for a sequence", "93 9101 a16b c400"],
    ["a key in str8 that needs none", "93 01 d9016b c400"],
    ["a key of 31 bytes in str8", `93 01 d91f${"6b".repeat(31)} c400`],
    ["a key in str16 that needs str8", `93 01 da00ff${"6b".repeat(255)} c400`],
    ["a key in str32", "93 01 db000000016b c400"],
    ["a key in str32 that claims 2^32 - 1", "93 01 dbffffffff"],
    ["bytes for a key", "93 01 c4016b c400"],
    ["a number for a key", "93 01 02 c400"],
    ["null for a key", "93 01 c0 c400"],
    ["a key that isn't UTF-8", "93 01 a1ff c400"],
    ["a key with a surrogate", "93 01 a3eda080 c400"],
    ["a key with an overlong character", "93 01 a2c080 c400"],
    ["a key with half a character", "93 01 a1c3 c400"],
    ["a row in bin16 that needs bin8", `93 01 a16b c500ff${"00".repeat(255)}`],
    ["a row in bin32 that needs bin16", `93 01 a16b c60000ffff${"00".repeat(65_535)}`],
    ["a row that claims 2^32 - 1", "93 01 a16b c6ffffffff"],
    ["text for a row", "93 01 a16b a0"],
    ["null for a row", "93 01 a16b c0"],
    ["an array for a row", "93 01 a16b 90"],
    ["an extension for a row", "93 01 a16b d40000"],
    ["a record's definition (ext 0x72) for a row", "93 01 a16b d4724091a16b"],
    ["200,000 nested arrays", "93".repeat(200_000)],
    ["200,000 nested arrays of one", "91".repeat(200_000)]
  ]
  it.each(wrong)("are refused: %s", (_, hex) => {
    refused(() => Protocol.decodeFromClient(batchOf(bytesOf(hex))))
    // The same as a record: without the sequence, where it's not about that.
    if (hex.startsWith("93 01 ")) refused(() => Protocol.decodeFromServer(eventOf(bytesOf(`92 ${hex.slice(6)}`))))
    refused(() => Protocol.decodeFromServer(eventOf(bytesOf(hex))))
  })

  it("are let through with a key of any length in str16: an operation with one that is too long is refused by itself", () => {
    for (const [length, header] of [[1024, "da0400"], [1025, "da0401"], [65_535, "daffff"]] as const) {
      const [batch] = Protocol.decodeFromClient(batchOf(bytesOf(`93 01 ${header}${"6b".repeat(length)} c400`)))
      assert.deepStrictEqual((batch as typeof Protocol.OpBatch.Type).ops, [[1, "k".repeat(length), new Uint8Array(0)]])
    }
  })
})

describe("a hostile frame", () => {
  const pointer = "d6 70 00000001"
  const unknownFields = Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`f${i}`, i]))
  const alternating = Array.from({ length: 30_000 }, (_, i) => [i, `${i}`, null, i / 7, i % 2 === 0][i % 5])
  const fields = (count: number): string =>
    Array.from({ length: count }, (_, i) => hexOf(packed(`f${i}`)) + "c0").join("")

  /** Families of `msgpack`, each with its frames. */
  const msgpack: ReadonlyArray<readonly [family: string, frames: ReadonlyArray<Uint8Array>]> = [
    [
      "claims of elements that don't follow",
      ["dd01c9c380", "ddffffffff", "dfffffffff", "dcffff", "8f", "9f"].map(bytesOf)
    ],
    ["nested claims of ten million elements", [bytesOf("dd00989680".repeat(20))]],
    [
      "nesting",
      [63, 64, 65, 256, 1024, 100_000, 200_000].flatMap((depth) => [
        bytesOf("91".repeat(depth) + "c0"),
        bytesOf("81a161".repeat(depth) + "c0"),
        pingOf("91".repeat(depth) + "01")
      ])
    ],
    ["a million empty maps", [bytesOf("80".repeat(1_000_000)), bytesOf("dd000f4240" + "80".repeat(1_000_000))]],
    ["a field named __proto__", [
      bytesOf(`81 a9${hexOf(Buffer.from("__proto__"))} 81 a8${hexOf(Buffer.from("polluted"))} c3`),
      bytesOf(
        `83 a4${hexOf(Buffer.from("_tag"))} a4${hexOf(Buffer.from("Ping"))} a26964 01 a9${
          hexOf(Buffer.from("__proto__"))
        } 81 a8${hexOf(Buffer.from("polluted"))} c3`
      )
    ]],
    [
      "fields named as what objects inherit",
      ["constructor", "prototype", "toString", "hasOwnProperty", "__defineGetter__"].map(
        (name) => packed({ _tag: "Ping", id: 1, [name]: { polluted: true } })
      )
    ],
    ["a record's definition (ext 0x72)", [
      new Uint8Array(new Packr({ useRecords: true }).pack({ _tag: "Ping", id: 1 })),
      bytesOf("d4724092a45f7461 67a26964"),
      pingOf("d4724091a16101")
    ]],
    [
      "live objects: RegExp, Set, Error, Date, BigInt, undefined",
      [
        /(a+)+$/,
        new Set([1]),
        new Error("x"),
        new Date(0),
        2n ** 63n,
        undefined,
        new Float64Array(2)
      ].flatMap((live) => {
        const frame = new Uint8Array(new Packr({ moreTypes: true, useRecords: false }).pack({ _tag: "Ping", id: live }))
        return [frame]
      })
    ],
    ["pointers to make cycles of", [
      pingOf(pointer),
      pingOf(`d6 69 00000001 91 ${pointer}`),
      bytesOf(`d669000000 01 82 a4${hexOf(Buffer.from("_tag"))} a4${hexOf(Buffer.from("Ping"))} a26964 ${pointer}`)
    ]],
    [
      "extensions of every type, in every form and length",
      Array.from({ length: 256 }, (_, type) => {
        const t = type.toString(16).padStart(2, "0")
        return [
          `d4${t}00`,
          `d5${t}0000`,
          `d6${t}${"00".repeat(4)}`,
          `d7${t}${"00".repeat(8)}`,
          `d8${t}${"00".repeat(16)}`,
          `c700${t}`,
          `c701${t}00`,
          `c8ffff${t}`,
          `c900010000${t}`,
          `c9ffffffff${t}`
        ].flatMap((hex) => [bytesOf(hex), pingOf(hex)])
      }).flat()
    ],
    ["timestamps out of their ranges", [
      pingOf(`d7ff${"ff".repeat(8)}`),
      pingOf(`c70cff3b9aca00${"00".repeat(8)}`),
      pingOf(`c70cff00000000${"7f".repeat(8)}`),
      pingOf(`c70cff00000000${"80".repeat(8)}`)
    ]],
    [
      "maps whose names are no text",
      ["810101", "81c001", "81c4016101", "819001", "818001", "81c301", "81ca0000000001"].map(bytesOf)
    ],
    ["a field that occurs twice", [
      bytesOf("82a16101a16102"),
      bytesOf(`83 a4${hexOf(Buffer.from("_tag"))} a4${hexOf(Buffer.from("Ping"))} a26964 01 a26964 02`)
    ]],
    ["a name of ten megabytes", [
      bytesOf("81db00989680"),
      Buffer.concat([bytesOf("81db00989680"), Buffer.alloc(10_000_000, "a"), bytesOf("c0")])
    ]],
    [
      "text and bytes that claim more than there is",
      [
        "dbffffffff",
        "c6ffffffff",
        "daffff",
        "c5ffff",
        "d9ff",
        "c4ff",
        "bf",
        "db00",
        "c6000000"
      ].flatMap((hex) => [bytesOf(hex), pingOf(hex)])
    ],
    [
      "text that isn't UTF-8",
      ["a1ff", "a3eda080", "a2c080", "a4f4908080", "a1c3"].flatMap((hex) => [
        pingOf(hex),
        bytesOf(`83 a4${hexOf(Buffer.from("_tag"))} a8${hexOf(Buffer.from("SyncInit"))} a36d6170 ${hex} a26964 01`)
      ])
    ],
    [
      "integers that no number holds",
      ["cf0020000000000000", "cf8000000000000000", "cfffffffffffffffff", "d38000000000000000", "cf0000000000000001"]
        .map(pingOf)
    ],
    [
      "numbers that are no sequence",
      [
        float(2 ** 53),
        float(2 ** 63),
        float(2 ** 64),
        float(-1),
        float(0.5),
        float(-0),
        float(NaN),
        float(Infinity),
        "cb7ff0000000000001",
        "cbfff8deadbeef0000",
        "ca7fc00001",
        "ca80000000",
        "ff",
        "d0ff",
        "d1ffff",
        "d2ffffffff"
      ].map(pingOf)
    ],
    ["the byte 0xc1", [bytesOf("c1"), pingOf("c1"), bytesOf("80c1")]],
    ["bytes behind a message", [bytesOf(`${hexOf(pingOf("01"))}00`), bytesOf(`${hexOf(pingOf("01"))}82`)]],
    ["100,000 unknown fields", [packed({ _tag: "Ping", id: 1, ...unknownFields }), bytesOf(`de0100${fields(256)}`)]],
    ["types that alternate", [
      packed(alternating),
      packed({ _tag: "OpAck", level: "APPLIED", replicas: 0, sequences: alternating })
    ]],
    ["batches inside batches", [
      packed({ _tag: "BATCH", count: 2 ** 32 - 1, messages: [{ _tag: "BATCH", messages: [{ _tag: "BATCH" }] }] }),
      batchOf(batchOf(batchOf(new Uint8Array(0)))),
      packed([{ _tag: "Ping", id: 1 }])
    ]]
  ]

  const base = (tag: keyof typeof fromClient, wrong: Record<string, unknown>): Uint8Array =>
    packed({ ...sample(tag), ...wrong })

  /** Families of `Schema / protocol`. */
  const schema: ReadonlyArray<readonly [family: string, frames: ReadonlyArray<Uint8Array>]> = [
    [
      "of an unknown type",
      [
        "GC_PRUNE",
        "SYNC_RESP_LEAF",
        "CLUSTER_HELLO",
        "ping",
        "PING",
        "Ping ",
        "",
        "__proto__",
        "constructor",
        "toString"
      ].map((_tag) => packed({ _tag, id: 1 }))
    ],
    [
      "of a type that is no text",
      [1, null, true, ["Ping"], { Ping: 1 }, Buffer.from("Ping"), 1.5].map((_tag) => packed({ _tag, id: 1 }))
    ],
    ["that is no map", [null, true, 1, -1, 0.5, "Ping", Buffer.from("Ping"), [], ["Ping", 1], {}].map(packed)],
    ["with text for a number", [
      base("Ping", { id: "1" }),
      base("Auth", { protocol: "1" }),
      base("SyncPull", { node: ["0", ""] })
    ]],
    [
      "with null, an array or a map for a field",
      Object.keys(fromClient).flatMap((tag) =>
        Object.keys(sample(tag as keyof typeof fromClient)).flatMap((name) =>
          [null, [], {}].filter((wrong) => wrong !== null || !nullable.has(name)).map((wrong) =>
            base(tag as keyof typeof fromClient, { [name]: wrong })
          )
        )
      )
    ],
    [
      "with a concern of another case, or from the future",
      ["applied", "Applied", "APPLIED ", "QUORUM", "", 2, "__proto__", "length"].map((concern) =>
        base("OpBatch", { concern })
      )
    ],
    [
      "with a kind from the future, or batched in a way that it doesn't know",
      [
        ...["OR", "LWW", "", 0, "pn"].flatMap((kind) => [base("SyncInit", { kind }), base("OpBatch", { kind })]),
        ...["yes", "NO", "", 0, true].map((atomic) => base("OpBatch", { atomic }))
      ]
    ],
    [
      "with a protocol version that is none",
      [-1, 0.5, 2 ** 53, "1", null].map((protocol) => base("Auth", { protocol }))
    ],
    [
      "with a node id that is none",
      [
        "",
        "short",
        "A".repeat(16),
        "a".repeat(17),
        "a".repeat(15) + "\u0000",
        "a".repeat(15) + "\n",
        1,
        null,
        "../../../../dev/null".slice(0, 16)
      ].map(
        (id) => base("Auth", { nodeId: id })
      )
    ],
    [
      "with a map's name that is none",
      ["", "m".repeat(257), "m".repeat(1_000_000), 1, null, Buffer.from("m")].map((map) => base("SyncInit", { map }))
    ],
    [
      "with a path that is none",
      ["0".repeat(17), "0".repeat(1_000_000), "g", "A", "0x", " ", "__proto__", "0\n", 0, null].map((path) =>
        base("SyncPull", { node: [0, path] })
      )
    ],
    [
      "with a partition that is none",
      [-1, 271, 2 ** 32, 0.5, NaN, "0", null, "__proto__"].map((partition) =>
        base("SyncPull", { node: [partition, ""] })
      )
    ],
    [
      "with a hash that is none",
      ["00000000", 0, 1.5, null, [], new Uint8Array(7), new Uint8Array(9)].flatMap((root) => [
        base("SyncInit", { root }),
        base("SyncPull", { after: root === null || typeof root === "string" ? 0 : root }),
        base("SyncFetch", { wants: root === null ? 0 : root })
      ])
    ],
    ["with a megabyte where it doesn't belong", [
      base("SyncInit", { root: new Uint8Array(1_000_000) }),
      base("Ping", { id: "1".repeat(1_000_000) }),
      base("OpBatch", { concern: Array.from({ length: 190_000 }, (_, i) => i) }),
      packed({ _tag: "OpAck", level: "APPLIED", replicas: 0, sequences: new Uint8Array(1_000_000) }),
      packed({ _tag: "x".repeat(1_000_000), id: 1 })
    ]],
    ["that asks for more than it may", [
      base("SyncFetch", { wants: new Uint8Array(10 * 1025) }),
      base("SyncBuckets", { nodes: new Uint8Array(Protocol.nodesBytesMax + 1) }),
      batchOf(bytesOf("9300a0c400".repeat(501)))
    ]]
  ]

  const prototypes = () =>
    [Object.prototype, Array.prototype, Function.prototype, Uint8Array.prototype, Map.prototype].map((prototype) =>
      Object.getOwnPropertyDescriptors(prototype)
    )

  describe.each([["of MessagePack", msgpack], ["of the protocol", schema]] as const)("%s", (_where, families) => {
    it.each(families)("is refused: %s", (_, frames) => {
      const before = prototypes()
      assert.isAbove(frames.length, 0)
      for (const frame of frames) {
        for (const decode of [Protocol.decodeFromClient, Protocol.decodeFromServer]) {
          assert.isAtMost(refused(() => decode(frame)).length, 400)
          // And what comes after it is none the worse.
          assert.deepStrictEqual(Protocol.decodeFromClient(ping), [{ _tag: "Ping", id: 1 }])
        }
      }
      assert.deepStrictEqual(prototypes(), before)
      assert.isUndefined(({} as Record<string, unknown>)["polluted"])
    })
  })

  it("is refused when a client claims what only a server says, or a server what only a client does", () => {
    for (const [tag, arbitrary] of Object.entries(fromServer)) {
      const frame = Protocol.encode(fc.sample(arbitrary, { numRuns: 1, seed: 1 })[0]!)
      assert.strictEqual(Protocol.decodeFromServer(frame)[0]!._tag, tag as Protocol.ServerMessage["_tag"])
      refused(() => Protocol.decodeFromClient(frame))
    }
    for (const arbitrary of Object.values(fromClient)) {
      refused(() => Protocol.decodeFromServer(Protocol.encode(fc.sample(arbitrary, { numRuns: 1, seed: 1 })[0]!)))
    }
  })

  it("spoils the whole frame that it is in, wherever it stands", () => {
    for (const [, frames] of schema) {
      for (const frame of frames.slice(0, 2)) {
        refused(() => Protocol.decodeFromClient(Protocol.frame([ping, frame, ping])))
      }
    }
  })

  const ping = Protocol.encode({ _tag: "Ping", id: 1 })

  /** What is let through is a message, whatever it was made of: it is written again, and read the same. */
  const answersWith = (
    decode: (bytes: Uint8Array) => ReadonlyArray<Protocol.ClientMessage | Protocol.ServerMessage>,
    frame: Uint8Array
  ): void => {
    let messages: ReadonlyArray<Protocol.ClientMessage | Protocol.ServerMessage>
    try {
      messages = decode(frame)
    } catch (fault) {
      assert.instanceOf(fault, MalformedMessage)
      return
    }
    assert.isAbove(messages.length, 0)
    for (const message of messages) assert.isTrue(isMessage(message))
    assert.deepStrictEqual(decode(Protocol.frame(messages.map(Protocol.encode))), messages)
  }
  const isMessage = Schema.is(Schema.typeSchema(Schema.Union(Protocol.ClientMessage, Protocol.ServerMessage)))
  const many = { fastCheck: { numRuns: 10_000 }, timeout: 120_000 }

  it.prop(
    "of any bytes is answered with messages or a typed refusal",
    [fc.uint8Array({ maxLength: 64 })],
    ([frame]) => {
      answersWith(Protocol.decodeFromClient, frame)
      answersWith(Protocol.decodeFromServer, frame)
    },
    many
  )

  for (
    const [side, arbitrary, decode] of [
      ["client", fc.oneof(...Object.values(fromClient)), Protocol.decodeFromClient],
      ["server", fc.oneof(...Object.values(fromServer)), Protocol.decodeFromServer]
    ] as const
  ) {
    it.prop(
      `from a ${side}, with one byte of it changed or cut short, is answered with messages or a typed refusal`,
      [arbitrary, fc.nat(), fc.nat(255), fc.boolean()],
      ([message, at, byte, cut]) => {
        const frame = Protocol.encode(message)
        // Mostly in the envelope: a row is long, and any byte of it may change.
        const where = at % (at % 2 === 0 ? frame.length : Math.min(frame.length, 96))
        if (!cut) frame[where] = byte
        answersWith(decode, cut ? frame.subarray(0, where) : frame)
      },
      many
    )
  }
})
