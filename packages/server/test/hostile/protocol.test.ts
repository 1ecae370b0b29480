/** What may come in well-formed messages: from a stranger, out of place, of what isn't there, or with content that can't be. */
import { expect, layer } from "@effect/vitest"
import type { MapKind } from "@topgun/core/Cell"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as Protocol from "@topgun/core/Protocol"
import { millisMax } from "@topgun/core/Timestamp"
import * as Value from "@topgun/core/Value"
import type { TopGunServer } from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as fc from "fast-check"
import { Packr } from "msgpackr"
import { auth, authAnew, batch, nodeId, noise, openMap, put, removal, totals } from "../PlainClient.ts"
import { dialWebSocket, messagesOf, type RawSocket } from "./raw.ts"
import { type Answer, answerTo, dialAs, layer as layerWard, names, Ward } from "./ward.ts"

const codes = Protocol.closeCodes
const outOfPlace: Answer = { code: codes.outOfPlace, cause: "MalformedMessage" }
const malformed: Answer = { code: codes.malformed, cause: "MalformedMessage" }
const refused = (...said: ReadonlyArray<string>): Answer => ({ said })
const nothing = refused()
const conflict: Answer = { code: codes.nodeIdConflict, cause: "NodeIdConflict" }

const packr = new Packr({ useRecords: false, variableMapSize: true })
/** A message with fields that the types don't let it have. */
const like = (message: Protocol.ClientMessage, wrong: Record<string, unknown>): Uint8Array => {
  const packed = Protocol.encode(message)
  const plain = packr.unpack(packed) as Record<string, unknown>
  return new Uint8Array(packr.pack({ ...plain, ...wrong }))
}
const json = (value: unknown): Uint8Array => Buffer.from(typeof value === "string" ? value : JSON.stringify(value))
const call = (payload: unknown): Protocol.ClientMessage => ({ _tag: "Call", payload: new Uint8Array(json(payload)) })
const request = { _tag: "Request", id: "1", tag: "Status", payload: undefined, headers: [] }

const mine = "mine"
const op = batch(mine, "APPLIED", 0, [["k", put(1)]])
const open = openMap("empty") as typeof Protocol.SyncInit.Type
const buckets: typeof Protocol.SyncBuckets.Type = {
  _tag: "SyncBuckets",
  id: 2,
  map: "empty",
  lane: 0,
  nodes: new Uint8Array(1)
}
const fetch: typeof Protocol.SyncFetch.Type = {
  _tag: "SyncFetch",
  id: 2,
  map: "empty",
  wants: new Uint8Array(0),
  after: null
}
const pull: typeof Protocol.SyncPull.Type = { _tag: "SyncPull", id: 2, map: "empty", node: [0, ""], after: null }
const query: typeof Protocol.QueryOpen.Type = { _tag: "QueryOpen", id: 3, map: "empty", query: Value.encode({}) }
const ping: Protocol.ClientMessage = { _tag: "Ping", id: 1 }
const renew: Protocol.ClientMessage = { _tag: "AuthRenew", id: 9, token: "mallory" }

/** One of each that a client may send. */
const fromClient: ReadonlyArray<Protocol.ClientMessage> = [
  { ...authAnew(), token: "mallory" },
  renew,
  { _tag: "AuthKept", secret: "s" },
  { _tag: "Confirmed", age: 0 },
  open,
  buckets,
  fetch,
  pull,
  query,
  { _tag: "QueryClose", id: 3 },
  { _tag: "Traced", parent: `00-${"1".repeat(32)}-${"2".repeat(16)}-01` },
  op,
  ping,
  call(request)
]

const hash = new Uint8Array(8)
/** One of each that only a server says. */
const fromServer: ReadonlyArray<Protocol.ServerMessage> = [
  {
    _tag: "AuthAck",
    protocol: 1,
    secret: "s",
    run: "r",
    serverMillis: 1,
    generation: "g",
    age: 0,
    durable: true,
    userId: "alice",
    expiresAt: null
  },
  { _tag: "AuthRenewAck", id: 1, expiresAt: null },
  { _tag: "AuthExpired", graceMillis: 0 },
  {
    _tag: "SyncRoot",
    id: 1,
    root: hash,
    partial: false,
    watermark: 0,
    sequence: 1,
    partitions: null,
    records: [["k", put(1)]]
  },
  { _tag: "SyncBucketsAck", id: 1, buckets: hash },
  { _tag: "SyncLeaf", id: 1, records: [["k", put(1)]], after: null },
  { _tag: "Checkpoint", age: 1 },
  { _tag: "GcPrune", map: "ward", cells: new Uint8Array(10) },
  { _tag: "ServerEvent", map: "ward", sequence: 1, records: [["k", put("forged", 9_000)]] },
  { _tag: "Withdraw", map: "ward", keys: ["k"] },
  { _tag: "SyncAgain", map: "ward" },
  { _tag: "QueryAck", id: 3, query: 1 },
  {
    _tag: "QueryRows",
    query: 1,
    version: 1,
    after: 0,
    isLast: true,
    hasMore: false,
    left: [],
    scores: null,
    records: [["k", put("forged", 9_000)]]
  },
  { _tag: "OpAck", level: "PERSISTED", replicas: 9, sequences: [0] },
  { _tag: "OpReject", sequence: 0, cause: "x", reason: "y" },
  { _tag: "Durable", sequence: 1 },
  { _tag: "GoingAway", retryMillis: 1 },
  { _tag: "Pong", id: 1, serverMillis: 1 },
  { _tag: "Reply", payload: hash },
  { _tag: "Fault", id: null, cause: "x", reason: "y" }
]

// --- Names ---

/** A text as MessagePack, of bytes that no encoder writes. */
const lonely = (message: Protocol.ClientMessage): Uint8Array => {
  const bytes = Protocol.encode(message)
  const at = Buffer.from(bytes).indexOf("€€€")
  bytes.set([0xed, 0xa0, 0x80, 0xed, 0xa0, 0x80, 0xed, 0xa0, 0x80], at)
  return bytes
}

interface Row {
  readonly name: string
  readonly sent: ReadonlyArray<Uint8Array>
  readonly answer: Answer
}

const noNames: ReadonlyArray<Row> = [
  ...[["none", ""], ["one of 257 characters", "m".repeat(257)], ["one of a million", "m".repeat(1_000_000)]].flatMap((
    [what, map]
  ) =>
    ([open, buckets, fetch, pull, query, op] as const).map((message) => ({
      name: `${what} for the map of ${message._tag}`,
      sent: [like(message, { map })],
      answer: malformed
    }))
  ),
  ...([
    ["the map of SyncInit", { ...open, map: "€€€" }],
    ["the map of OpBatch", { ...op, map: "€€€" }],
    ["a key", batch(mine, "APPLIED", 0, [["€€€", put(1)]])],
    ["a cursor's run", { ...open, cursor: ["€€€", 1] }],
    ["a page's end", { ...pull, after: "€€€" }],
    ["a token", { _tag: "AuthRenew", id: 1, token: "€€€" }],
    ["a secret", { _tag: "AuthKept", secret: "€€€" }]
  ] as ReadonlyArray<readonly [string, Protocol.ClientMessage]>).map(([where, message]) => ({
    name: `halves of characters for ${where}`,
    sent: [lonely(message)],
    answer: malformed
  })),
  {
    name: "a key of 1,025 bytes",
    sent: [Protocol.encode(batch(mine, "APPLIED", 0, [["k".repeat(1_025), put(1)]]))],
    answer: refused("OpReject RecordTooLarge")
  },
  {
    name: "a key of 65,536 bytes",
    sent: [
      like(op, {
        ops: Buffer.concat([
          Buffer.from([0x93, 0, 0xdb, 0, 1, 0, 0]),
          Buffer.alloc(65_536, "k"),
          Buffer.from([0xc4, 0])
        ])
      })
    ],
    answer: malformed
  }
]

// --- Records ---

const withBytes = (row: Uint8Array, at: number, ...bytes: ReadonlyArray<number>): Uint8Array => {
  const changed = Uint8Array.from(row)
  changed.set(bytes, at)
  return changed
}
const stamped = (millis: number, counter = 0) => put(1, millis, counter)
const valued = (...parts: ReadonlyArray<number | Uint8Array>) =>
  new Uint8Array(
    Buffer.concat([removal(), ...parts.map((part) => typeof part === "number" ? Uint8Array.of(part) : part)])
  )
const asPut = (row: Uint8Array) => withBytes(row, 24, put(1)[24]!)
const expiring = (millis: number) => LwwRecord.put({ millis: 1_000, counter: 0, nodeId }, Value.encode(1), millis).row
const expiringNever = withBytes(expiring(1), 25, 0, 0, 0, 0, 0, 0)
const farFuture = 4_000_000_000_000

const badRecords: ReadonlyArray<readonly [name: string, kind: MapKind, row: Uint8Array, cause: string]> = [
  ["nothing", "lww", new Uint8Array(0), "MalformedMessage"],
  ["a stamp and no more", "lww", removal().subarray(0, 24), "MalformedMessage"],
  ["a removal with a value", "lww", valued(1), "MalformedMessage"],
  ["a put without a value", "lww", asPut(removal()), "MalformedMessage"],
  ["a kind from the future", "lww", withBytes(put(1), 24, 0x77), "MalformedMessage"],
  ["a writer with a NUL", "lww", withBytes(put(1), 8, 0), "MalformedMessage"],
  ["a writer with a colon", "lww", withBytes(put(1), 8, 0x3a), "MalformedMessage"],
  ["a writer in capitals", "lww", withBytes(put(1), 8, 0x41), "MalformedMessage"],
  ["a stamp of the year 10889", "lww", stamped(millisMax, 65_535), "ClockSkewTooLarge"],
  ["a stamp of the year 2096", "lww", stamped(farFuture), "ClockSkewTooLarge"],
  [
    "a value that expires never, in the form of one that does",
    "lww",
    expiringNever,
    "MalformedMessage"
  ],
  ["a value that is garbage", "lww", asPut(valued(0xc1)), "MalformedMessage"],
  ["a value and a byte more", "lww", asPut(valued(1, 1)), "MalformedMessage"],
  ["a number in more bytes than it needs", "lww", asPut(valued(0xcd, 0, 1)), "MalformedMessage"],
  ["a value with an extension", "lww", asPut(valued(0xd4, 0x72, 0x40)), "MalformedMessage"],
  [
    "a value that claims 2^32 - 1 elements",
    "lww",
    asPut(valued(0xdd, 255, 255, 255, 255)),
    "MalformedMessage"
  ],
  [
    "100,000 arrays inside each other",
    "lww",
    asPut(valued(new Uint8Array(100_000).fill(0x91), 1)),
    "MalformedMessage"
  ],
  [
    "a value of a byte more",
    "lww",
    asPut(valued(0xc6, 0, 4, 0, 0, noise(Value.valueBytesMax - 4))),
    "MalformedMessage"
  ],
  ["nothing in a set", "or", new Uint8Array(0), "MalformedMessage"],
  ["a tag that is no device's in a set", "or", withBytes(put(1), 8, 0x3a), "MalformedMessage"],
  ["a record in a counter", "counter", put(1), "MalformedMessage"],
  ["half of a counter's row", "counter", totals(1).subarray(0, 20), "MalformedMessage"],
  ["a counter's row with a time", "counter", withBytes(totals(1), 0, 1), "MalformedMessage"],
  [
    "totals beyond the safe integers",
    "counter",
    new Uint8Array(totals(1)).fill(255, 25),
    "MalformedMessage"
  ]
]

/** At the edge of what may be written, on this side of it. */
const goodRecords: ReadonlyArray<readonly [name: string, kind: MapKind, row: Uint8Array]> = [
  ["a stamp of the beginning", "lww", stamped(0)],
  ["the last stamp of a millisecond", "lww", stamped(2_000, 65_535)],
  ["a value that has expired", "lww", expiring(1)],
  ["a value that expires in the year 10889", "lww", expiring(millisMax)],
  ["a value of the most bytes", "lww", put(noise(Value.valueBytesMax - 5))],
  ["an empty text", "lww", put("")],
  ["a record in a set, with the tag of another device", "or", put(1, 1_000, 0, "another000000000")]
]

// --- What is out of place ---

const atomic = (first: number, form: "more" | "end", count = 1) =>
  batch(mine, "APPLIED", first, Array.from({ length: count }, (_, i) => [`${i}`, put(1)] as const), { atomic: form })

const sequences: ReadonlyArray<Row> = ([
  ["the same number twice in a batch", [{ ...op, ops: [[4, "a", put(1)], [4, "b", put(1)]] }], outOfPlace],
  ["a smaller number in a batch", [{ ...op, ops: [[4, "a", put(1)], [3, "b", put(1)]] }], outOfPlace],
  ["an atomic batch, and something else amid it", [atomic(0, "more"), ping], outOfPlace],
  [
    "an atomic batch, and a single write amid it",
    [atomic(0, "more"), batch(mine, "APPLIED", 1, [["k", put(1)]])],
    outOfPlace
  ],
  ["an atomic batch at two concerns", [atomic(0, "more"), { ...atomic(1, "end"), concern: "MEMORY" }], outOfPlace],
  ["a part of an atomic batch with nothing in it", [atomic(0, "more"), { ...atomic(1, "end"), ops: [] }], outOfPlace],
  ["an atomic batch of 501", [atomic(0, "more", 300), atomic(300, "end", 201)], outOfPlace],
  ["an atomic batch whose second part is refused", [
    atomic(0, "more"),
    { ...atomic(1, "end"), ops: [[1, "k", new Uint8Array(3)]] }
  ], refused("OpReject WriteRejected", "OpReject MalformedMessage")],
  [
    "a write at a level that there is no database for",
    [{ ...op, concern: "PERSISTED" }],
    refused("OpReject WriteRejected")
  ],
  [
    "a write at a level that there is no other server for",
    [{ ...op, concern: "REPLICATED" }],
    refused("OpReject WriteRejected")
  ],
  ["a write to a map of another kind", [{ ...op, map: "ward", kind: "or" }], refused("OpReject MapKindMismatch")],
  ["no write at all", [{ ...op, ops: [] }], nothing]
] as ReadonlyArray<readonly [string, ReadonlyArray<Protocol.ClientMessage>, Answer]>).map((
  [name, messages, answer]
) => ({
  name,
  sent: messages.map(Protocol.encode),
  answer
}))

const wrongFields: ReadonlyArray<Row> = [
  { name: "501 writes", message: op, wrong: { ops: Buffer.from("9300a0c400".repeat(501), "hex") } },
  { name: "a write numbered 2^53", message: op, wrong: { ops: Buffer.from("93cb4340000000000000a0c400", "hex") } },
  { name: "a concern from the future", message: op, wrong: { concern: "QUORUM" } },
  { name: "a concern in small letters", message: op, wrong: { concern: "applied" } },
  { name: "a kind from the future", message: open, wrong: { kind: "pn" } },
  { name: "null for a field", message: open, wrong: { root: null } },
  { name: "an array for a field", message: open, wrong: { root: [] } },
  { name: "an object for a field", message: pull, wrong: { node: {} } },
  { name: "a number as text", message: ping, wrong: { id: "1" } },
  { name: "a field that there isn't", message: ping, wrong: { admin: true } },
  { name: "a hash of 7 bytes", message: open, wrong: { root: new Uint8Array(7) } },
  { name: "a hash as text", message: open, wrong: { root: "00000000" } },
  { name: "a cursor of three", message: open, wrong: { cursor: ["r", 1, 2] } },
  { name: "a cursor below zero", message: open, wrong: { cursor: ["r", -1] } },
  { name: "a cursor of half a change", message: open, wrong: { cursor: ["r", 0.5] } },
  { name: "a cursor of a run of 65 characters", message: open, wrong: { cursor: ["r".repeat(65), 1] } },
  { name: "a path of 17 digits", message: pull, wrong: { node: [0, "0".repeat(17)] } },
  { name: "a path of 900,000 digits", message: pull, wrong: { node: [0, "0".repeat(900_000)] } },
  { name: "a path that isn't hexadecimal", message: pull, wrong: { node: [0, "g"] } },
  { name: "a path named __proto__", message: pull, wrong: { node: [0, "__proto__"] } },
  { name: "partition 271", message: pull, wrong: { node: [271, ""] } },
  { name: "partition NaN", message: pull, wrong: { node: [Number.NaN, ""] } },
  { name: "half a want", message: fetch, wrong: { wants: new Uint8Array(5) } },
  { name: "1,025 wants", message: fetch, wrong: { wants: new Uint8Array(10_250) } },
  {
    name: "more nodes than one may ask for",
    message: buckets,
    wrong: { nodes: new Uint8Array(Protocol.nodesBytesMax + 1) }
  },
  { name: "a third lane", message: buckets, wrong: { lane: 2 } },
  { name: "a query of no bytes", message: query, wrong: { query: new Uint8Array(0) } },
  { name: "a query as an object", message: query, wrong: { query: {} } },
  { name: "a query of more bytes than it may have", message: query, wrong: { query: noise(256 * 1024 + 1) } },
  { name: "a query whose bytes are no value", message: query, wrong: { query: Uint8Array.of(0xc1) } },
  { name: "a query and a byte more", message: query, wrong: { query: Uint8Array.of(0x80, 0x80) } },
  { name: "a query numbered -1", message: query, wrong: { id: -1 } },
  {
    name: "a trace that is none",
    message: fromClient.find(({ _tag }) => _tag === "Traced")!,
    wrong: { parent: "00-1-2-01" }
  },
  { name: "a type in small letters", message: ping, wrong: { _tag: "ping" } },
  { name: "the type of a cluster", message: ping, wrong: { _tag: "CLUSTER_HELLO" } },
  { name: "the type of a collector", message: ping, wrong: { _tag: "GC_PRUNE" } }
].map(({ message, name, wrong }) => ({ name, sent: [like(message, wrong)], answer: malformed }))

const sync: ReadonlyArray<Row> = ([
  ["buckets of a map that isn't open", [buckets], outOfPlace],
  ["records of a map that isn't open", [fetch], outOfPlace],
  ["a part of a map that isn't open", [pull], outOfPlace],
  ["a part of another map than the one that is open", [open, { ...pull, map: "ward" }], outOfPlace],
  ["a part of a map named __proto__", [open, { ...pull, map: "__proto__" }], outOfPlace],
  ["a part of a map named constructor", [open, { ...fetch, map: "constructor" }], outOfPlace],
  ["nodes without a depth", [open, { ...buckets, nodes: new Uint8Array(0) }], malformed],
  ["nodes of a depth that there isn't", [open, { ...buckets, nodes: Uint8Array.of(255, 0) }], malformed],
  ["a node beyond the last partition", [open, { ...buckets, nodes: Uint8Array.of(0, 255, 255, 255) }], malformed],
  ["a node that is cut short", [open, { ...buckets, nodes: Uint8Array.of(4, 0, 1) }], malformed],
  ["a map of another kind than it is", [{ ...open, map: "ward", kind: "counter" }], refused("Fault MapKindMismatch")],
  ["a map from a cursor of another run", [{ ...open, cursor: ["0".repeat(16), 2 ** 53 - 1] }], refused("SyncRoot")],
  ["a map from a cursor of a run named __proto__", [{ ...open, cursor: ["__proto__", 1] }], refused("SyncRoot")],
  ["a map twice, by one id", [open, open], refused("SyncRoot", "SyncRoot")],
  [
    "records that there are none of",
    [open, { ...fetch, wants: new Uint8Array(10_240) }],
    refused("SyncRoot", "SyncLeaf")
  ],
  [
    "records of partitions that there are none of",
    [open, { ...fetch, wants: new Uint8Array(10_240).fill(255) }],
    malformed
  ],
  [
    "a page after what isn't there",
    [open, { ...pull, after: "\u0000".repeat(900_000) }],
    refused("SyncRoot", "SyncLeaf")
  ]
] as ReadonlyArray<readonly [string, ReadonlyArray<Protocol.ClientMessage>, Answer]>).map((
  [name, messages, answer]
) => ({
  name: `a question for ${name}`,
  sent: messages.map(Protocol.encode),
  answer
}))

const calls: ReadonlyArray<Row> = ([
  ["no JSON", "{", malformed],
  ["nothing", "", malformed],
  ["null", "null", malformed],
  ["a number", 7, malformed],
  ["an empty list", [], malformed],
  ["100,000 lists inside each other", "[".repeat(100_000) + "]".repeat(100_000), malformed],
  ["a message that there isn't", { _tag: "Admin", id: "1" }, malformed],
  ["a request without an id", { ...request, id: undefined }, malformed],
  ["a request whose id is no number", { ...request, id: "__proto__" }, malformed],
  ["a request whose headers are none", { ...request, headers: [["a"]] }, malformed],
  ["a list of requests", [request, request], malformed],
  ["a call that there isn't", { ...request, tag: "Drop" }, refused("Reply")],
  ["a call named __proto__", { ...request, tag: "__proto__" }, refused("Reply")],
  ["a call named toString", { ...request, tag: "toString" }, refused("Reply")],
  [
    "a call with __proto__ in it",
    `{"_tag":"Request","id":"1","tag":"Status","headers":[],"payload":null,"__proto__":{"polluted":1}}`,
    refused("Reply")
  ],
  ["a message that is two", `${JSON.stringify(request)}${JSON.stringify(request)}`, malformed],
  ...["Query", "Count", "Explain"].flatMap((tag) => [
    [`${tag} without a payload`, { ...request, tag }, refused("Reply")],
    [`${tag} of a map that is a number`, { ...request, tag, payload: { map: 7, query: {} } }, refused("Reply")],
    [`${tag} of what is no query`, { ...request, tag, payload: { map: "ward", query: [[]] } }, refused("Reply")],
    [
      `${tag} of a query with __proto__ in it`,
      `{"_tag":"Request","id":"1","tag":"${tag}","headers":[],"payload":{"map":"ward","query":{"__proto__":{"polluted":1}}}}`,
      refused("Reply")
    ],
    [
      `${tag} of a query with 20,000 objects inside each other`,
      `{"_tag":"Request","id":"1","tag":"${tag}","headers":[],"payload":{"map":"ward","query":${
        "{\"not\":".repeat(20_000)
      }1${"}".repeat(20_000)}}}`,
      refused("Reply")
    ]
  ]),
  ["an acknowledgement of nothing", { _tag: "Ack", requestId: "99" }, nothing],
  ["an interruption of nothing", { _tag: "Interrupt", requestId: "99" }, nothing]
] as ReadonlyArray<readonly [string, unknown, Answer]>).map(([name, payload, answer]) => ({
  name: `a call of ${name}`,
  sent: [Protocol.encode(call(payload))],
  answer
}))

const tokens: ReadonlyArray<Row> = ([
  ["Auth once more", [{ ...authAnew(), token: "mallory" }], outOfPlace],
  ["Auth as somebody else", [{ ...authAnew(), token: "alice" }], outOfPlace],
  ["a renewal as somebody else", [{ ...renew, token: "alice" }], refused("Fault AuthUserChanged")],
  ["a renewal by what is no token", [{ ...renew, token: "__proto__" }], refused("Fault AuthRequired")],
  [
    "a renewal by a token of 900,000 characters",
    [{ ...renew, token: "x".repeat(900_000) }],
    refused("Fault AuthRequired")
  ],
  ["a renewal by a token that has expired", [{ ...renew, token: "mallory 0" }], refused("Fault AuthExpired")],
  ["word of a secret that it was never given", [{ _tag: "AuthKept", secret: "__proto__" }], nothing],
  ["a trace of nothing", [fromClient.find(({ _tag }) => _tag === "Traced")!], nothing]
] as ReadonlyArray<readonly [string, ReadonlyArray<Protocol.ClientMessage>, Answer]>).map((
  [name, messages, answer]
) => ({
  name,
  sent: messages.map(Protocol.encode),
  answer
}))

/** What isn't heard before an Auth is answered. */
const strange: ReadonlyArray<Row> = [
  ...fromClient.filter(({ _tag }) => _tag !== "Auth").map((message) => ({
    name: `${message._tag} first`,
    sent: [Protocol.encode(message)],
    answer: outOfPlace
  })),
  ...fromServer.map((message) => ({
    name: `${message._tag}, which only a server says`,
    sent: [Protocol.encode(message)],
    answer: malformed
  }))
]

/** Nobody is let in by these. */
const badAuths: ReadonlyArray<Row> = ([
  ["no token", { token: null }, { code: codes.authFailed, cause: "AuthRequired" }],
  ["an empty token", { token: "" }, { code: codes.authFailed, cause: "AuthRequired" }],
  ["a token named __proto__", { token: "__proto__" }, { code: codes.authFailed, cause: "AuthRequired" }],
  ["a token of 4,097 characters", { token: "x".repeat(4_097) }, { code: codes.authFailed, cause: "AuthRequired" }],
  ["a token that has expired", { token: "mallory 0" }, { code: codes.authFailed, cause: "AuthExpired" }],
  ...[0, 2, 2 ** 31].map((protocol) =>
    [`version ${protocol}`, { protocol }, {
      code: codes.versionUnsupported,
      cause: "ProtocolVersionUnsupported"
    }] as const
  ),
  ["version -1", { protocol: -1 }, malformed],
  ["a version as text", { protocol: "1" }, malformed],
  ["a token that is an object", { token: { toString: "mallory" } }, malformed],
  ...["", "__proto__", "A".repeat(16), "a".repeat(15) + "\0", "a".repeat(1_000)].map((id) =>
    [`the node id ${JSON.stringify(id).slice(0, 20)}`, { nodeId: id }, malformed] as const
  )
] as ReadonlyArray<readonly [string, Record<string, unknown>, Answer]>).map(([name, wrong, answer]) => ({
  name: `an Auth with ${name}`,
  sent: [like({ ...auth, token: "mallory" }, wrong)],
  answer
}))

/** What changes nothing, as it is refused, or asks only. */
const harmless: ReadonlyArray<Row> = [
  ...fromServer.map((message) => ({
    name: `${message._tag}, which only a server says`,
    sent: [Protocol.encode(message)],
    answer: malformed
  })),
  ...noNames,
  ...badRecords.map(([name, kind, row, cause]) => ({
    name: `a write of ${name}`,
    sent: [Protocol.encode(batch(mine, "APPLIED", 0, [[mine, row]], { kind }))],
    answer: refused(`OpReject ${cause}`)
  })),
  ...sequences,
  ...wrongFields,
  ...sync,
  ...calls,
  ...tokens
]

/** A message with a field of another value or name, without one, with one more, or with its bytes cut or changed. */
const mutated = fc.tuple(
  fc.constantFrom(
    ...fromClient.filter(({ _tag }) => _tag !== "Auth"),
    batch("other", "MEMORY", 1, [["", put([])], ["__proto__", put({})], ["k", removal()]]),
    batch("set", "FIRE_AND_FORGET", 2, [["k", put("x")], ["k", put("y", 1_001)]], { kind: "or" }),
    batch("count", "APPLIED", 3, [["count", totals(1, 2)]], { kind: "counter" })
  ),
  fc.constantFrom("replace", "rename", "remove", "add", "byte", "late byte", "cut", "twice"),
  fc.nat(),
  fc.oneof(
    fc.constantFrom(...names),
    fc.constantFrom(null, true, -1, 0, 0.5, Number.NaN, 2 ** 31, 2 ** 53, [], {}, [[]]),
    fc.jsonValue({ maxDepth: 2 }),
    fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes))
  )
).map(([message, how, at, junk]): Uint8Array => {
  const bytes = Protocol.encode(message)
  const fields = Object.entries(packr.unpack(bytes) as Record<string, unknown>)
  const place = at % fields.length
  const [name, value] = fields[place]!
  const other = typeof junk === "string" ? junk : "junk"
  const pack = (...changed: ReadonlyArray<readonly [string, unknown]>) =>
    new Uint8Array(packr.pack(Object.fromEntries([...fields.slice(0, place), ...changed, ...fields.slice(place + 1)])))
  switch (how) {
    case "replace":
      return pack([name, junk])
    case "rename":
      return pack([other, value])
    case "remove":
      return pack()
    case "add":
      return pack([name, value], [other, junk])
    case "byte":
      return Uint8Array.from(bytes, (byte, i) => i === at % bytes.length ? at >>> 8 & 255 : byte)
    case "late byte":
      return Uint8Array.from(bytes, (byte, i) => i === bytes.length - 1 - at % 30 ? at >>> 8 & 255 : byte)
    case "cut":
      return bytes.subarray(0, at % bytes.length)
    default:
      return Protocol.frame([bytes, bytes])
  }
})

// --- What comes of it ---

/** Sends frames, and makes sure that nobody else notices and nothing has changed. */
const changesNothing = (
  dial: Effect.Effect<RawSocket, never, TopGunServer | Scope.Scope>,
  sent: ReadonlyArray<Uint8Array>,
  answer: Answer,
  awaited?: Protocol.ServerMessage["_tag"] | "end"
) =>
  Effect.gen(function*() {
    const { isUnharmed, state } = yield* Ward
    const before = yield* state
    const raw = yield* dial
    expect(yield* answerTo(raw, sent, awaited)).toEqual(answer)
    raw.socket.destroy()
    yield* isUnharmed
    expect(yield* state).toEqual(before)
  })

/** What is said last: calls and tokens are answered when they are, not in the order of messages. */
const lastOf = (said: ReadonlyArray<string>) => (said.at(-1)?.split(" ")[0] ?? "Pong") as Protocol.ServerMessage["_tag"]

layer(layerWard)("A connection", (it) => {
  for (const { answer, name, sent } of strange) {
    it.scoped(`that isn't let in and sends ${name}, is told why and closed`, () =>
      changesNothing(dialWebSocket, sent, answer))
  }

  for (const { answer, name, sent } of badAuths) {
    it.scoped(`that sends ${name}, isn't let in, is told why and closed`, () =>
      changesNothing(dialWebSocket, sent, answer, "end"))
  }

  for (const { answer, name, sent } of harmless) {
    it.scoped(`that is let in and sends ${name}, is answered as the protocol says`, () =>
      changesNothing(dialAs("mallory"), sent, answer, "said" in answer ? lastOf(answer.said) : "Pong"))
  }

  it.scoped("that shows another user's device isn't let in, whatever it knows of it, and ends nobody's", () =>
    Effect.gen(function*() {
      const { device } = yield* Ward
      for (const shown of [{ ...device, secret: null }, device]) {
        yield* changesNothing(dialWebSocket, [Protocol.encode({ ...shown, token: "mallory" })], conflict, "end")
      }
    }))

  it.scoped("that replays an Auth isn't let in, once its device has stored the secret that it was given", () =>
    Effect.gen(function*() {
      const overheard = { ...authAnew(), token: "mallory" }
      const raw = yield* dialAs("mallory", overheard)
      const { secret } = messagesOf(raw.heard())[0] as typeof Protocol.AuthAck.Type
      expect(yield* answerTo(raw, [Protocol.encode({ _tag: "AuthKept", secret })])).toEqual(nothing)
      raw.socket.destroy()
      yield* changesNothing(dialWebSocket, [Protocol.encode(overheard)], conflict, "end")
    }))

  it.scoped("that sends a write twice by one number is closed, and the first of them counts", () =>
    Effect.gen(function*() {
      const { isUnharmed, state } = yield* Ward
      const raw = yield* dialAs("mallory")
      const first = batch("once", "APPLIED", 7, [["a", put(1)]])
      const again = batch("once", "APPLIED", 7, [["b", put(1)]])
      expect(yield* answerTo(raw, [first, again].map(Protocol.encode))).toEqual(outOfPlace)
      raw.socket.destroy()
      yield* isUnharmed
      expect(yield* state).toContainEqual(expect.objectContaining({ name: "once", records: 1 }))
    }))

  for (const [name, kind, row] of goodRecords) {
    it.scoped(`that writes ${name}, has written it`, () =>
      Effect.gen(function*() {
        const { isUnharmed, state } = yield* Ward
        const raw = yield* dialAs("mallory")
        const write = batch(name, "APPLIED", 0, [["k", row]], { kind })
        expect(yield* answerTo(raw, [Protocol.encode(write)])).toEqual(refused("OpAck"))
        raw.socket.destroy()
        yield* isUnharmed
        expect(yield* state).toContainEqual(expect.objectContaining({ name, records: 1 }))
      }))
  }

  it.scoped("that sends messages in which one thing was changed, is answered or closed as the protocol says", () =>
    Effect.gen(function*() {
      const { isUnharmed } = yield* Ward
      const documented: ReadonlyArray<number> = Object.values(codes)
      const outcomes = new Set<string>()
      let raw = yield* dialAs("mallory")
      for (const [n, frame] of fc.sample(mutated, { numRuns: 400, seed: 20_260_728 }).entries()) {
        const answer = yield* answerTo(raw, [frame])
        outcomes.add("code" in answer ? String(answer.code) : answer.said.join())
        if ("code" in answer) {
          expect(documented, `${n}: ${Buffer.from(frame).toString("hex").slice(0, 400)}`).toContain(answer.code)
        }
        if (!("code" in answer) && n % 20 > 0) continue
        raw.socket.destroy()
        yield* isUnharmed
        raw = yield* dialAs("mallory")
      }
      raw.socket.destroy()
      yield* isUnharmed
      // It was no test of one thing only.
      for (const outcome of ["1002", "1007", "OpAck", "OpReject", "SyncRoot"]) {
        expect(Array.from(outcomes).join()).toContain(outcome)
      }
    }))
})
