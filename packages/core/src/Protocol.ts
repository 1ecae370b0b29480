/**
 * The protocol between client and server: this header is its specification, version 1.
 *
 * A connection is a WebSocket with binary frames. A frame is one or more messages, each a MessagePack map with a `_tag`,
 * one after the other. Values and records are opaque byte strings in it (`LwwRecord`, `Value`), made once by the writer.
 * MessagePack suits because bytes travel as bytes, and because messages that were encoded apart can be sent together.
 *
 * | from the client | answered by | |
 * |---|---|---|
 * | `Auth` | `AuthAck` or `Fault` | first, and the only one before it is answered |
 * | `SyncInit` | `SyncRoot` | opens a map: its events follow from here on; compares roots |
 * | `SyncBuckets` | `SyncBucketsAck` | nodes of the tree walk (`MerkleSync`) |
 * | `SyncFetch` | `SyncLeaf` | records of keys, by hash |
 * | `SyncPull` | `SyncLeaf` | records below a node, from a cursor |
 * | `OpBatch` | `OpAck`, `OpReject`, `Durable` | writes, in the order of their sequence numbers |
 * | `Ping` | `Pong` | every 5 s; a side that hears nothing for 10 s closes |
 * | `Call` | `Reply` | @effect/rpc's messages (`GridRpcs`) |
 *
 * | from the server, unasked | |
 * |---|---|
 * | `ServerEvent` | records of an opened map that others wrote |
 * | `Durable` | the device's operations of this connection up to a sequence number survive a crash of the server |
 * | `Fault` | what was wrong, before the server closes, or with the `id` of the request that failed |
 *
 * An operation's life: `OpAck` says the level that it has reached, once or, for PERSISTED, again later; `OpReject` ends it;
 * otherwise `Durable` ends it. A client sends again, on its next connection, what has not ended. Merging is idempotent.
 *
 * Close codes: 1000 done, 1001 server going away, 1002 message out of place, 1007 malformed frame, 1009 frame too large,
 * 1013 overloaded or too slow a reader, 4401 authentication failed, 4408 no `Auth` in time, 4426 protocol version.
 *
 * Versions: the client offers one, the server accepts its own and the one before, else `Fault` and 4426. Messages and
 * fields that a version doesn't know are refused.
 */
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { Packr } from "msgpackr/pack"
import { Unpackr } from "msgpackr/unpack"
import { MalformedMessage } from "./GridError.ts"
import { scanFrame } from "./internal/scan.ts"
import { isNodeId } from "./Timestamp.ts"
import { WriteConcern } from "./WriteConcern.ts"

export const version = 1
/** The versions that this side accepts from a client. */
export const supportedVersions: ReadonlyArray<number> = [1]

/** Bytes of a frame, at most. */
export const frameBytesMax = 1024 * 1024
/** Bytes of a frame before authentication, at most. */
export const frameBytesBeforeAuthMax = 16 * 1024
/** Operations in one `OpBatch`, and bytes of their keys and records, at which a client begins another. */
export const batchOperationsMax = 500
export const batchBytesMax = 256 * 1024

export const pingMillis = 5_000
export const deadMillis = 10_000

export const closeCodes = {
  done: 1000,
  goingAway: 1001,
  outOfPlace: 1002,
  malformed: 1007,
  tooLarge: 1009,
  overloaded: 1013,
  authFailed: 4401,
  authTimeout: 4408,
  versionUnsupported: 4426
} as const

// --- Parts ---
// Arrays that grow with the data are checked by guards: the same types as by Schema's own combinators, at a hundredth of
// the time.

const isSequence = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0

/** An operation on the wire: sequence, key, row. */
export type OpTuple = readonly [sequence: number, key: string, row: Uint8Array]
const isOps = (value: unknown): value is ReadonlyArray<OpTuple> =>
  Array.isArray(value) && value.length <= batchOperationsMax &&
  value.every((op) =>
    Array.isArray(op) && op.length === 3 && isSequence(op[0]) && typeof op[1] === "string" &&
    op[2] instanceof Uint8Array
  )

/** A record on the wire: key, row. */
export type RecordTuple = readonly [key: string, row: Uint8Array]
const isRecords = (value: unknown): value is ReadonlyArray<RecordTuple> =>
  Array.isArray(value) &&
  value.every((record) =>
    Array.isArray(record) && record.length === 2 && typeof record[0] === "string" && record[1] instanceof Uint8Array
  )

const pathGrammar = /^[0-9a-f]{0,16}$/
type NodeTuple = readonly [partition: number, path: string]
const isNode = (node: unknown): node is NodeTuple =>
  Array.isArray(node) && node.length === 2 && isSequence(node[0]) && node[0] < 271 && typeof node[1] === "string" &&
  pathGrammar.test(node[1])
const isNodes = (value: unknown): value is ReadonlyArray<NodeTuple> =>
  Array.isArray(value) && value.length <= 512 && value.every(isNode)

const isSequences = (value: unknown): value is ReadonlyArray<number> => Array.isArray(value) && value.every(isSequence)

const Bytes = Schema.declare((value): value is Uint8Array => value instanceof Uint8Array, { identifier: "Bytes" })
const isHash = (value: unknown): value is Uint8Array => value instanceof Uint8Array && value.length === 8
const Hash = Schema.declare(isHash, { identifier: "Hash" })
const Hashes = Schema.declare(
  (value): value is Uint8Array => value instanceof Uint8Array && value.length % 8 === 0 && value.length <= 8 * 1024,
  { identifier: "Hashes" }
)
const Sequence = Schema.declare(isSequence, { identifier: "Sequence" })
const MapName = Schema.String.pipe(Schema.minLength(1), Schema.maxLength(256))
const NodeIdText = Schema.declare(isNodeId, { identifier: "NodeId" })

// --- From the client ---

export const Auth = Schema.TaggedStruct("Auth", {
  protocol: Sequence,
  nodeId: NodeIdText,
  token: Schema.NullOr(Schema.String)
})
export const SyncInit = Schema.TaggedStruct("SyncInit", {
  id: Sequence,
  map: MapName,
  kind: Schema.Literal("lww"),
  root: Hash
})
export const SyncBuckets = Schema.TaggedStruct("SyncBuckets", {
  id: Sequence,
  map: MapName,
  nodes: Schema.declare(isNodes, { identifier: "Nodes" })
})
export const SyncFetch = Schema.TaggedStruct("SyncFetch", { id: Sequence, map: MapName, hashes: Hashes })
export const SyncPull = Schema.TaggedStruct("SyncPull", {
  id: Sequence,
  map: MapName,
  node: Schema.declare(isNode, { identifier: "Node" }),
  after: Schema.NullOr(Hash)
})
export const OpBatch = Schema.TaggedStruct("OpBatch", {
  map: MapName,
  kind: Schema.Literal("lww"),
  concern: WriteConcern,
  ops: Schema.declare(isOps, { identifier: "Operations" })
})
export const Ping = Schema.TaggedStruct("Ping", { id: Sequence })
export const Call = Schema.TaggedStruct("Call", { payload: Bytes })

export const ClientMessage = Schema.Union(Auth, SyncInit, SyncBuckets, SyncFetch, SyncPull, OpBatch, Ping, Call)
export type ClientMessage = typeof ClientMessage.Type

// --- From the server ---

export const AuthAck = Schema.TaggedStruct("AuthAck", {
  protocol: Sequence,
  /** The server's clock, in ms. */
  serverMillis: Schema.Number,
  /** Which store the server serves: another one after a restore from a backup. */
  generation: Schema.String,
  /** Whether anything is durable there; if not, operations end with their `OpAck`. */
  durable: Schema.Boolean
})
export const SyncRoot = Schema.TaggedStruct("SyncRoot", {
  id: Sequence,
  /** The partitions' roots; null when the map's roots are equal. */
  partitions: Schema.NullOr(Bytes)
})
export const SyncBucketsAck = Schema.TaggedStruct("SyncBucketsAck", {
  id: Sequence,
  buckets: Schema.declare(
    (value): value is ReadonlyArray<Uint8Array> =>
      Array.isArray(value) && value.every((bucket) => bucket instanceof Uint8Array),
    { identifier: "Buckets" }
  )
})
const Records = Schema.declare(isRecords, { identifier: "Records" })
export const SyncLeaf = Schema.TaggedStruct("SyncLeaf", { id: Sequence, records: Records, after: Schema.NullOr(Hash) })
export const ServerEvent = Schema.TaggedStruct("ServerEvent", { map: MapName, records: Records })
export const OpAck = Schema.TaggedStruct("OpAck", {
  level: WriteConcern,
  replicas: Sequence,
  sequences: Schema.declare(isSequences, { identifier: "Sequences" })
})
export const OpReject = Schema.TaggedStruct("OpReject", {
  sequence: Sequence,
  /** The `_tag` of the error in `GridError`. */
  cause: Schema.String,
  reason: Schema.String
})
export const Durable = Schema.TaggedStruct("Durable", { sequence: Sequence })
export const Pong = Schema.TaggedStruct("Pong", { id: Sequence, serverMillis: Schema.Number })
export const Reply = Schema.TaggedStruct("Reply", { payload: Bytes })
export const Fault = Schema.TaggedStruct("Fault", {
  /** The request that failed; null when the connection did. */
  id: Schema.NullOr(Sequence),
  cause: Schema.String,
  reason: Schema.String
})

export const ServerMessage = Schema.Union(
  AuthAck,
  SyncRoot,
  SyncBucketsAck,
  SyncLeaf,
  ServerEvent,
  OpAck,
  OpReject,
  Durable,
  Pong,
  Reply,
  Fault
)
export type ServerMessage = typeof ServerMessage.Type

// --- Frames ---

// `structuredClone` stays off: it would let a peer build cyclic values.
const packr = new Packr({ useRecords: false, variableMapSize: true })
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true })

/** A message's bytes, of their own: they may be kept, shared and sent many times. */
export const encode = (message: ClientMessage | ServerMessage): Uint8Array => {
  const packed = packr.pack(message)
  return new Uint8Array(packed.buffer, packed.byteOffset, packed.byteLength).slice()
}

/** Messages' bytes as one frame. */
export const frame = (messages: ReadonlyArray<Uint8Array>): Uint8Array => {
  if (messages.length === 1) return messages[0]!
  let bytes = 0
  for (const message of messages) bytes += message.length
  const joined = new Uint8Array(bytes)
  let at = 0
  for (const message of messages) {
    joined.set(message, at)
    at += message.length
  }
  return joined
}

const scanLimits = { depthMax: 16, elementsMax: 200_000, messagesMax: 10_000 }

/** Each message of a frame as plain data, once the frame is known to be harmless. */
const unpack = (bytes: Uint8Array): ReadonlyArray<unknown> => {
  scanFrame(bytes, scanLimits)
  const messages: Array<unknown> = []
  try {
    unpackr.unpackMultiple(bytes, (message: unknown) => {
      messages.push(message)
    })
  } catch (cause) {
    throw new MalformedMessage({ reason: cause instanceof Error ? cause.message : String(cause) })
  }
  return messages
}

const makeDecode = <A, I>(schema: Schema.Schema<A, I>) => {
  const decode = Schema.decodeUnknownEither(schema, { onExcessProperty: "error" })
  return (bytes: Uint8Array): ReadonlyArray<A> =>
    unpack(bytes).map((message) =>
      Either.getOrThrowWith(
        decode(message),
        (fault) =>
          new MalformedMessage({
            reason: ParseResult.ArrayFormatter.formatErrorSync(fault).slice(0, 3).map((issue) =>
              `${issue.path.map(String).join(".")}: ${issue.message}`
            ).join("; ").slice(0, 300)
          })
      )
    )
}

/** The messages of a frame from a client. @throws MalformedMessage */
export const decodeFromClient: (bytes: Uint8Array) => ReadonlyArray<ClientMessage> = makeDecode(ClientMessage)
/** The messages of a frame from a server. @throws MalformedMessage */
export const decodeFromServer: (bytes: Uint8Array) => ReadonlyArray<ServerMessage> = makeDecode(ServerMessage)
