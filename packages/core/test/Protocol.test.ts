import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import { pack, Packr } from "msgpackr"
import { MalformedMessage } from "../src/GridError.ts"
import * as Protocol from "../src/Protocol.ts"
import { WriteConcern } from "../src/WriteConcern.ts"
import { nodeId } from "./arbitraries.ts"

const sequence = fc.oneof(
  fc.constantFrom(0, 1, 127, 128, 2 ** 31, 2 ** 32, Number.MAX_SAFE_INTEGER),
  fc.nat()
)
const bytes = fc.uint8Array({ maxLength: 40 })
const hash = fc.uint8Array({ minLength: 8, maxLength: 8 })
const text = fc.string({ unit: "binary", maxLength: 20 })
const mapName = fc.oneof(
  fc.constantFrom("__proto__", "constructor", "$sys", "a:b"),
  fc.string({ minLength: 1, maxLength: 30 })
)
const node = fc.tuple(fc.nat(270), fc.stringMatching(/^[0-9a-f]{0,16}$/))
const records = fc.array(fc.tuple(text, bytes), { maxLength: 4 })
const orNull = <A>(some: fc.Arbitrary<A>): fc.Arbitrary<A | null> => fc.option(some, { nil: null })
const tagged = <Tag extends string, Fields>(_tag: Tag, fields: { [Key in keyof Fields]: fc.Arbitrary<Fields[Key]> }) =>
  fc.record({ _tag: fc.constant(_tag), ...fields } as never) as fc.Arbitrary<{ readonly _tag: Tag } & Fields>

const fromClient: { readonly [Tag in Protocol.ClientMessage["_tag"]]: fc.Arbitrary<Protocol.ClientMessage> } = {
  Auth: tagged("Auth", { protocol: sequence, nodeId, token: orNull(text) }),
  SyncInit: tagged("SyncInit", { id: sequence, map: mapName, kind: fc.constant("lww" as const), root: hash }),
  SyncBuckets: tagged("SyncBuckets", { id: sequence, map: mapName, nodes: fc.array(node) }),
  SyncFetch: tagged("SyncFetch", {
    id: sequence,
    map: mapName,
    hashes: fc.nat(9).chain((n) => fc.uint8Array({ minLength: n * 8, maxLength: n * 8 }))
  }),
  SyncPull: tagged("SyncPull", { id: sequence, map: mapName, node, after: orNull(hash) }),
  OpBatch: tagged("OpBatch", {
    map: mapName,
    kind: fc.constant("lww" as const),
    concern: fc.constantFrom(...WriteConcern.literals),
    ops: fc.array(fc.tuple(sequence, text, bytes), { maxLength: 4 })
  }),
  Ping: tagged("Ping", { id: sequence }),
  Call: tagged("Call", { payload: bytes })
}

const fromServer: { readonly [Tag in Protocol.ServerMessage["_tag"]]: fc.Arbitrary<Protocol.ServerMessage> } = {
  AuthAck: tagged("AuthAck", {
    protocol: sequence,
    serverMillis: fc.nat(),
    generation: text,
    durable: fc.boolean()
  }),
  SyncRoot: tagged("SyncRoot", { id: sequence, partitions: orNull(bytes) }),
  SyncBucketsAck: tagged("SyncBucketsAck", { id: sequence, buckets: fc.array(bytes) }),
  SyncLeaf: tagged("SyncLeaf", { id: sequence, records, after: orNull(hash) }),
  ServerEvent: tagged("ServerEvent", { map: mapName, records }),
  OpAck: tagged("OpAck", {
    level: fc.constantFrom(...WriteConcern.literals),
    replicas: sequence,
    sequences: fc.array(sequence)
  }),
  OpReject: tagged("OpReject", { sequence, cause: text, reason: text }),
  Durable: tagged("Durable", { sequence }),
  Pong: tagged("Pong", { id: sequence, serverMillis: fc.nat() }),
  Reply: tagged("Reply", { payload: bytes }),
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

/** A message without its type, for what no type allows. */
const sample = (tag: keyof typeof fromClient): Record<string, unknown> => ({
  ...fc.sample(fromClient[tag], { numRuns: 1, seed: 1 })[0]!
})

const decodeClient = (message: unknown) => Protocol.decodeFromClient(new Uint8Array(pack(message)))

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
    assert.strictEqual(encoded.byteLength, encoded.buffer.byteLength)
  })

  it.prop("answers any bytes with messages or a typed refusal", [fc.uint8Array({ maxLength: 64 })], ([frame]) => {
    for (const decode of [Protocol.decodeFromClient, Protocol.decodeFromServer]) {
      try {
        decode(frame)
      } catch (fault) {
        assert.instanceOf(fault, MalformedMessage)
      }
    }
  }, { fastCheck: { numRuns: 1_000 } })

  it.prop(
    "answers any damage to a frame with messages or a typed refusal",
    [fc.oneof(...Object.values(fromClient)), fc.nat(), fc.nat(255), fc.boolean()],
    ([message, at, byte, cut]) => {
      const frame = Protocol.encode(message)
      frame[at % frame.length] = byte
      try {
        Protocol.decodeFromClient(cut ? frame.subarray(0, at % frame.length) : frame)
      } catch (fault) {
        assert.instanceOf(fault, MalformedMessage)
      }
    },
    { fastCheck: { numRuns: 1_000 } }
  )

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
      ["SyncInit", { kind: "or" }],
      ["SyncInit", { map: "" }],
      ["SyncInit", { map: "m".repeat(257) }],
      ["SyncFetch", { hashes: new Uint8Array(9) }],
      ["SyncFetch", { hashes: new Uint8Array(8 * 1025) }],
      ["SyncPull", { node: [271, ""] }],
      ["SyncPull", { node: [0, "g"] }],
      ["SyncPull", { node: [0, "0".repeat(17)] }],
      ["SyncPull", { node: [0, "A"] }],
      ["SyncBuckets", { nodes: Array.from({ length: 513 }, () => [0, ""]) }],
      ["OpBatch", { ops: Array.from({ length: 501 }, (_, i) => [i, "k", new Uint8Array(1)]) }],
      ["OpBatch", { ops: [[1, "k"]] }],
      ["OpBatch", { ops: [[1, 1, new Uint8Array(1)]] }],
      ["OpBatch", { ops: [[1, "k", "row"]] }],
      ["OpBatch", { concern: "persisted" }],
      ["Auth", { nodeId: "UPPERCASEUPPERCA" }],
      ["Auth", { nodeId: "short" }],
      ["Auth", { token: 1 }]
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

  it("leaves Object.prototype alone, whatever names come", () => {
    refused(() => decodeClient(JSON.parse("{\"_tag\":\"Ping\",\"id\":1,\"__proto__\":{\"polluted\":true}}")))
    assert.isUndefined(({} as Record<string, unknown>)["polluted"])
  })

  it("refuses MessagePack's extensions, even where they would make a message", () => {
    const extended = new Packr({ useRecords: true })
    refused(() => Protocol.decodeFromClient(new Uint8Array(extended.pack({ _tag: "Ping", id: 1 }))))
    refused(() => decodeClient({ _tag: "Auth", protocol: 1, nodeId: "a".repeat(16), token: new Date(0) }))
  })

  it("refuses a frame that would cost far more than its bytes", () => {
    const claims = Uint8Array.of(0xdd, 0x01, 0xc9, 0xc3, 0x80)
    const deep = new Uint8Array(200_000).fill(0x91)
    const wide = new Uint8Array(1_000_000).fill(0x80)
    for (const frame of [claims, deep, wide]) refused(() => Protocol.decodeFromClient(frame))
  })
})
