/**
 * The protocol between client and server: this header is its specification, version 1.
 *
 * A connection is a WebSocket with binary frames. A frame is one or more messages, each a MessagePack map with a `_tag`,
 * one after the other. Values and records are opaque byte strings in it (`LwwRecord`, `Value`), made once by the writer.
 * MessagePack suits because bytes travel as bytes, and because messages that were encoded apart can be sent together.
 *
 * The operations of an `OpBatch`, and the records of a `ServerEvent` or `SyncLeaf`, are together one byte string of the
 * message, whose content is MessagePack items again, one after the other and with nothing around them: for an operation
 * an array of its sequence number, its key and its row, for a record an array of its key and its row. Each has one form:
 *
 * | part | form |
 * |---|---|
 * | array | fixarray: `93` for an operation, `92` for a record |
 * | sequence, below 2^32 | the shortest of fixint, `cc cd ce` |
 * | sequence, from 2^32 to 2^53 - 1 | float64, `cb`, as numbers in messages and values |
 * | key | the shortest of fixstr, `d9 da`: well-formed UTF-8 |
 * | row | the shortest of `c4 c5 c6` |
 *
 * Instead of the items the byte string may hold them deflated: the byte `01`, the length of the items in four bytes,
 * big-endian, and their raw deflate (RFC 1951). They are at most a hundred times as many bytes as the deflated ones, and
 * those of one frame together at most as many as a frame may have.
 *
 * Any other form spoils the frame, as everything here that is malformed. Of rows that are in form but whose content the
 * receiver can't take, each is refused by itself.
 *
 * | from the client | answered by | |
 * |---|---|---|
 * | `Auth` | `AuthAck` or `Fault` | first, and the only one before it is answered; see *Devices* |
 * | `AuthRenew` | `AuthRenewAck` or `Fault` | a new token of the same user, one at a time; nothing else is interrupted |
 * | `AuthKept` | | the device has stored its secret |
 * | `Confirmed` | | the device has stored everything up to an age of the grid; see *Deletions* |
 * | `SyncInit` | `SyncRoot` or `Fault` | opens a map: its events follow from here on; compares roots; see *Cursors* |
 * | `SyncBuckets` | `SyncBucketsAck` | nodes of the tree walk and what is below them, as `MerkleSync` packs them |
 * | `SyncFetch` | `SyncLeaf` | records of keys, by partition and hash, from a cursor |
 * | `SyncPull` | `SyncLeaf` | records below a node, from a cursor |
 * | `OpBatch` | `OpAck`, `OpReject`, `Durable` | writes, in the order of their sequence numbers |
 * | `QueryOpen` | `QueryAck`, `QueryRows`, or `Fault` | asks a live query; see *Queries* |
 * | `QueryClose` | | ends one |
 * | `Traced` | | the `OpBatch` that comes next is part of a trace |
 * | `Ping` | `Pong` | every 5 s; a side that hears nothing for 10 s closes |
 * | `Call` | `Reply` | @effect/rpc's messages (`GridRpcs`) |
 *
 * | from the server, unasked | |
 * |---|---|
 * | `ServerEvent` | records of an opened map that others wrote |
 * | `Durable` | the device's operations of this connection up to a sequence number survive a crash of the server |
 * | `Withdraw` | records of an opened map that the client may read no longer, or that aren't there for it any more |
 * | `Checkpoint` | how old the grid is: the client says `Confirmed` once it has stored what came before |
 * | `GcPrune` | deletions in an opened map that are forgotten |
 * | `QueryRows` | what has changed of a query's rows |
 * | `SyncAgain` | what was told of an opened map has a gap, or what may be read of it has changed: the client opens it again |
 * | `AuthExpired` | the token has expired: without another the server closes when `graceMillis` have passed |
 * | `GoingAway` | the server stops: it closes soon, and the client is to come back after `retryMillis` |
 * | `Fault` | what was wrong, before the server closes, or with the `id` of the request that failed |
 *
 * **Batches.** Messages `OpBatch` one after the other of which the last says `end` and those before `more` are one atomic
 * batch, whatever their maps: at most 500 operations, one or more in each message, and as many bytes as a frame, at one
 * concern. All are merged, stored and told of together or, where one is refused, none: then each gets an `OpReject`.
 *
 * An operation's life: `OpAck` says the level that it has reached, once or, for PERSISTED, again later; `OpReject` ends it;
 * otherwise `Durable` ends it. A client sends again, on its next connection, what has not ended. Merging is idempotent.
 *
 * **Devices.** A device shows the secret that it was given last, as far as it has stored it, is given another, and says when it has
 * stored that. A node id whose secret is another one gets `Fault` `NodeIdConflict`: its storage is a copy, or was put back. The client goes on under a new node
 * id. A second connection of a device ends the first.
 *
 * **Cursors.** Changes on a server have numbers, which rise during one `run` of it. `SyncRoot` and `ServerEvent` say up to which
 * number a map's records are with the client then. `SyncInit` shows the last of these; where the server still knows what has
 * changed since, and roots differ, `SyncRoot` brings just these records, without what the device itself wrote. The client
 * compares roots once more and, where they differ still, asks again without a cursor: then the tree is walked.
 *
 * **Partial maps.** Of some maps a user may read some records, or some of their fields. `SyncRoot` says `partial` then: roots, walk and
 * events are of a map that has just what the user may read, in the form in which it may be read, and no tombstones. What the
 * client has confirmed and the server's partial map hasn't is dropped, and nothing is offered. So it is with a map that the user may
 * read whole and may not write whole, which is `partial` too: what a server has lost only those can restore who may write it. `Fault` `PermissionDenied` in
 * answer to `SyncInit`: nothing of the map may be read; what the client has confirmed of it is dropped.
 *
 * **Queries.** `QueryOpen` asks a query (`Query`, as the canonical bytes of its value) under an id of the client's; one of an id that is in
 * use takes the place of the other. `QueryAck` tells the number by which the server speaks of it: the same one to all who ask the same and
 * may read the same, so that its rows are encoded once. Then all its rows come, as one version after version 0, in one or more `QueryRows` of
 * which the last says `isLast`; and from then on what has changed from version to version: the records that came, or are others now, and the keys of
 * those that went. Whoever leaves much unread is told of no changes meanwhile, and then all rows again, after version 0: a version may be
 * begun and not be told to its end, and is nothing then. Where something else may be read than before, `QueryAck` comes again with another
 * number. Rows are in no order: that follows from the query and, for a search, from `scores`. With `select` they have the fields that it
 * names and those that the query speaks of. `Fault` with the id refuses a query, or ends it.
 *
 * **Deletions** are records too, tombstones, until everybody is known to have them. The grid has an age, the time in ms for which it has
 * been served, that no clock can set. `AuthAck` and `Checkpoint` tell it; a client whose maps are in step, and which has stored all that it
 * was sent before that, answers by `Confirmed`. What everybody has confirmed, or has been away from for longer than deletions are remembered,
 * is forgotten on the server, and then by `GcPrune` on the clients that follow the map: the place of each tombstone as in `SyncFetch`. `SyncRoot`
 * tells the map's `watermark`: no tombstone with a later stamp is forgotten. A tombstone up to it that only the client has was forgotten
 * while it was away; a put up to it whose key isn't there is refused as `BeyondHorizon`, since it may have been deleted.
 *
 * **Reset.** `Fault` `ResyncRequired` in answer to `SyncInit`: the device lacks deletions that are forgotten. It pulls the whole map, as one
 * that has nothing, drops what the server doesn't have, keeps what it hasn't sent, and opens the map again. A device whose last `Confirmed` was
 * of another store or of a later age than the server's, as that was put back to what it was once, isn't told so: what it has is offered.
 *
 * **Slow readers.** While a client leaves much unread, the server sends no events of a map in which something changes. As soon
 * as it has read what waits for it, it gets one `SyncAgain` for each such map, of which there is nothing more until it is opened
 * again; `SyncRoot` brings what was left out. What was told before is complete, so that the cursor holds.
 *
 * Close codes: 1000 done, 1001 server going away, after a `GoingAway` where it does so in good order, 1002 message out of place,
 * 1007 malformed frame, 1009 frame too large, 1011 a fault of the server's, 1013 overloaded or too slow a reader, 4401
 * authentication failed, 4408 no `Auth` in time, 4409 another device has the node id, 4410 the device has another connection,
 * 4426 protocol version.
 *
 * Versions: the client offers one, the server accepts its own and the one before, else `Fault` and 4426. Messages and
 * fields that a version doesn't know are refused.
 */
import * as Schema from "effect/Schema"
import { Packr } from "msgpackr/pack"
import { Unpackr } from "msgpackr/unpack"
import { isMapKind } from "./Cell.ts"
import { MalformedMessage } from "./GridError.ts"
import * as Rows from "./internal/rows.ts"
import { scanFrame } from "./internal/scan.ts"
import { smallBytes } from "./internal/smallBytes.ts"
import { partitionCount } from "./Partition.ts"
import { isNodeId } from "./Timestamp.ts"
import { WriteConcern } from "./WriteConcern.ts"

/** The version that this side speaks. */
export const version = 1
/** The versions that this side accepts from a client. */
export const supportedVersions: ReadonlyArray<number> = [1]

/** Bytes of a frame, at most. */
export const frameBytesMax = 1024 * 1024
/** Bytes of a frame before authentication, at most. */
export const frameBytesBeforeAuthMax = 16 * 1024
/** Characters of a token, at most: written in UTF-8, whatever they are, they fit into such a frame. */
export const tokenLengthMax = 4 * 1024
/** Operations in one `OpBatch`, at most. */
export const batchOperationsMax = 500
/** Bytes of keys and records at which a client begins another `OpBatch`. */
export const batchBytesMax = 256 * 1024
/** Bytes of keys and records that a client lets into one atomic batch, at most: it fits into one frame. */
export const atomicBytesMax = 768 * 1024
/** Operations and records in one frame, at most: no frame of records has room for more, so it bounds only hostile ones. */
export const frameRowsMax = 40_000
/** Bytes of the nodes that one `SyncBuckets` asks for, at most. */
export const nodesBytesMax = 8 * 1024

/** Bytes of a query, at most. */
export const queryBytesMax = 256 * 1024

/** How often a client sends `Ping`, in ms. */
export const pingMillis = 5_000
/** A side that has heard nothing for so many ms takes the connection for dead. */
export const deadMillis = 10_000

/** Why a connection is closed, by WebSocket's code. */
export const closeCodes = {
  done: 1000,
  goingAway: 1001,
  outOfPlace: 1002,
  malformed: 1007,
  tooLarge: 1009,
  overloaded: 1013,
  authFailed: 4401,
  authTimeout: 4408,
  nodeIdConflict: 4409,
  replaced: 4410,
  versionUnsupported: 4426
} as const

// --- Parts ---
// Schemas say what messages are. Foreign bytes are judged by the guards that the fields are declared with: Schema's
// interpreter takes 1 to 3 µs a message, and most of a second to put a misplaced megabyte into words.

/** How a field is judged as it comes, and read where its form on the wire is another. */
interface Field {
  readonly identifier: string
  readonly is: (value: unknown) => boolean
  /** Reads operations or records, as far as the frame has room for them. @throws MalformedMessage */
  readonly read?: (bytes: Uint8Array, room: Rows.Room) => ReadonlyArray<unknown>
}

const fields = new WeakMap<object, Field>()

const field = <A>(identifier: string, is: (value: unknown) => value is A): Schema.declare<A> => {
  const schema = Schema.declare(is, { identifier })
  fields.set(schema, { identifier, is })
  return schema
}

const isText = (value: unknown): value is string => typeof value === "string"
const isSequence = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && !Object.is(value, -0)
const isBytes = (value: unknown): value is Uint8Array => value instanceof Uint8Array
const isHash = (value: unknown): value is Uint8Array => isBytes(value) && value.length === 8
const orNull = <A>(is: (value: unknown) => value is A) => (value: unknown): value is A | null =>
  value === null || is(value)

const Text = field("Text", isText)
const TextOrNull = field("TextOrNull", orNull(isText))
const Flag = field("Flag", (value): value is boolean => typeof value === "boolean")
const Sequence = field("Sequence", isSequence)
const SequenceOrNull = field("SequenceOrNull", orNull(isSequence))
const Sequences = field(
  "Sequences",
  (value): value is ReadonlyArray<number> => Array.isArray(value) && value.every(isSequence)
)
const isMillis = (value: unknown): value is number =>
  typeof value === "number" && Number.isFinite(value) && !Object.is(value, -0)
/** A wall clock's ms. */
const Millis = field("Millis", isMillis)
const MillisOrNull = field("MillisOrNull", orNull(isMillis))
const Bytes = field("Bytes", isBytes)
const BytesOrNull = field("BytesOrNull", orNull(isBytes))
const Hash = field("Hash", isHash)
const Wants = field(
  "Wants",
  (value): value is Uint8Array => isBytes(value) && value.length % 10 === 0 && value.length <= 10 * 1024
)
const Nodes = field("Nodes", (value): value is Uint8Array => isBytes(value) && value.length <= nodesBytesMax)
const pathGrammar = /^[0-9a-f]{0,16}$/
const Node = field(
  "Node",
  (node): node is readonly [partition: number, path: string] =>
    Array.isArray(node) && node.length === 2 && isSequence(node[0]) && node[0] < partitionCount && isText(node[1]) &&
    pathGrammar.test(node[1])
)
/** Up to where a client has a map's changes: the server's run, and the number of the last. */
const Cursor = field(
  "Cursor",
  (cursor): cursor is readonly [run: string, sequence: number] | null =>
    cursor === null ||
    (Array.isArray(cursor) && cursor.length === 2 && isText(cursor[0]) && cursor[0].length <= 64 &&
      isSequence(cursor[1]))
)
/** A store's generation, and the age up to which a client has it. */
const Confirmation = field(
  "Confirmation",
  (value): value is readonly [generation: string, age: number] | null =>
    value === null ||
    (Array.isArray(value) && value.length === 2 && isText(value[0]) && value[0].length <= 64 && isSequence(value[1]))
)
const Lane = field("Lane", (value): value is 0 | 1 => Object.is(value, 0) || value === 1)
const Texts = field(
  "Texts",
  (value): value is ReadonlyArray<string> => Array.isArray(value) && value.every(isText)
)
const traceParentGrammar = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/
/** Whether a text is a span as W3C Trace Context writes it. */
export const isTraceParent = (value: unknown): value is string => isText(value) && traceParentGrammar.test(value)
const TraceParent = field("TraceParent", isTraceParent)
const MapName = field("MapName", (value): value is string => isText(value) && value.length > 0 && value.length <= 256)
const NodeIdText = field("NodeId", isNodeId)
const Kind = field("Kind", isMapKind)
const Atomic = field(
  "Atomic",
  (value): value is "no" | "more" | "end" => value === "no" || value === "more" || value === "end"
)
const Concern = field(
  "WriteConcern",
  (value): value is WriteConcern => WriteConcern.literals.includes(value as WriteConcern)
)

const rows = <A>(
  identifier: string,
  form: Rows.Form<A>,
  countMax = Number.POSITIVE_INFINITY
): Schema.declare<ReadonlyArray<A>> => {
  const schema = Schema.declare((value): value is ReadonlyArray<A> => Array.isArray(value), { identifier })
  fields.set(schema, { identifier, is: isBytes, read: (bytes, room) => Rows.unpack(form, bytes, room, countMax) })
  return schema
}

export type { OpTuple, RecordTuple } from "./internal/rows.ts"
const Operations = rows("Operations", Rows.operations, batchOperationsMax)
const Records = rows("Records", Rows.records)
/** A query, as the canonical bytes of its value. */
const QueryBytes = field("QueryBytes", (value): value is Uint8Array => isBytes(value) && value.length <= queryBytesMax)
/** A number for each record, big-endian float64; null where they have none. */
const Scores = field(
  "Scores",
  (value): value is Uint8Array | null => value === null || (isBytes(value) && value.length % 8 === 0)
)

// --- From the client ---

/** Who connects, and by which version of the protocol. */
export const Auth = Schema.TaggedStruct("Auth", {
  protocol: Sequence,
  nodeId: NodeIdText,
  /** The secret that the device has stored; null where it has none. */
  secret: TextOrNull,
  token: TextOrNull,
  /** Of which store, and up to which age of it, everything is stored here; null where nothing was confirmed yet. */
  confirmed: Confirmation
})
/** Opens a map, and compares the roots of both sides. */
export const SyncInit = Schema.TaggedStruct("SyncInit", {
  id: Sequence,
  map: MapName,
  kind: Kind,
  root: Hash,
  /** Up to where the client has the map's changes; null where it can't say. */
  cursor: Cursor
})
/** Asks for nodes of the tree walk: see `MerkleSync`. */
export const SyncBuckets = Schema.TaggedStruct("SyncBuckets", {
  id: Sequence,
  map: MapName,
  lane: Lane,
  nodes: Nodes
})
/** Asks for the records of keys, by their partitions and hashes. */
export const SyncFetch = Schema.TaggedStruct("SyncFetch", {
  id: Sequence,
  map: MapName,
  wants: Wants,
  after: TextOrNull
})
/** Asks for the records below a node, from beyond a key's hash. */
export const SyncPull = Schema.TaggedStruct("SyncPull", {
  id: Sequence,
  map: MapName,
  node: Node,
  after: TextOrNull
})
/** Asks a query of a map, and to be told of what changes of its rows. */
export const QueryOpen = Schema.TaggedStruct("QueryOpen", { id: Sequence, map: MapName, query: QueryBytes })
/** A query isn't asked any more. */
export const QueryClose = Schema.TaggedStruct("QueryClose", { id: Sequence })
/** Operations of one map, in the order of their sequence numbers. */
export const OpBatch = Schema.TaggedStruct("OpBatch", {
  map: MapName,
  kind: Kind,
  concern: Concern,
  /**
   * `no`: each is taken or refused by itself. `more`: together with those of the messages that follow, up to one that says
   * `end`: all of them are taken or none.
   */
  atomic: Atomic,
  ops: Operations
})
/** Everything of the server's up to this age of the grid is stored on the device. */
export const Confirmed = Schema.TaggedStruct("Confirmed", { age: Sequence })
/** Asks whether the other side is there. */
export const Ping = Schema.TaggedStruct("Ping", { id: Sequence })
/** A message of @effect/rpc to the server. */
export const Call = Schema.TaggedStruct("Call", { payload: Bytes })

/** A new token, before the one that let the connection in expires. */
export const AuthRenew = Schema.TaggedStruct("AuthRenew", { id: Sequence, token: Text })

/** The `OpBatch` that comes next is part of this trace. */
export const Traced = Schema.TaggedStruct("Traced", { parent: TraceParent })

/** The secret that this connection's `AuthAck` gave is stored. */
export const AuthKept = Schema.TaggedStruct("AuthKept", { secret: Text })

/** What a client may send. */
export const ClientMessage = Schema.Union(
  Auth,
  AuthRenew,
  AuthKept,
  Confirmed,
  SyncInit,
  SyncBuckets,
  SyncFetch,
  SyncPull,
  QueryOpen,
  QueryClose,
  Traced,
  OpBatch,
  Ping,
  Call
)
/** What a client may send. */
export type ClientMessage = typeof ClientMessage.Type

// --- From the server ---

/** The client is let in. */
export const AuthAck = Schema.TaggedStruct("AuthAck", {
  protocol: Sequence,
  /** The secret to store, and to show next time. */
  secret: Text,
  /** Which run of the server it is, whose changes have numbers of their own. */
  run: Text,
  /** The server's clock, in ms. */
  serverMillis: Millis,
  /** Which store the server serves: another one after a restore from a backup. */
  generation: Text,
  /** How old the grid is, in ms. */
  age: Sequence,
  /** Whether anything is durable there; if not, operations end with their `OpAck`. */
  durable: Flag,
  /** Whom the token is of; null where nobody is asked for one. */
  userId: TextOrNull,
  /** When the token expires by the server's clock, in ms; null where it doesn't. */
  expiresAt: MillisOrNull
})
/** The new token is taken. */
export const AuthRenewAck = Schema.TaggedStruct("AuthRenewAck", {
  id: Sequence,
  /** As in `AuthAck`. */
  expiresAt: MillisOrNull
})
/** The token has expired. The connection ends when this many ms have passed without another one. */
export const AuthExpired = Schema.TaggedStruct("AuthExpired", { graceMillis: Sequence })
/** How the map's roots compare. With records, or where the roots are equal, there are no partitions. */
export const SyncRoot = Schema.TaggedStruct("SyncRoot", {
  id: Sequence,
  /** The server's root of the map. */
  root: Hash,
  /** Whether it is of what this user may read of the map, or of a map that he may not write whole: see *Partial maps*. */
  partial: Flag,
  /** The number of the last change that is in it. */
  sequence: Sequence,
  /** The latest stamp, in ms, of a deletion that is forgotten in the map; 0 while none is. */
  watermark: Sequence,
  /** The partitions' roots, where the tree is to be walked. */
  partitions: BytesOrNull,
  /** What has changed since the client's cursor. */
  records: Records
})
/** The nodes' hashes: see `MerkleSync`. */
export const SyncBucketsAck = Schema.TaggedStruct("SyncBucketsAck", { id: Sequence, buckets: Bytes })
/** Records that were asked for; `after` is where the next page begins. */
export const SyncLeaf = Schema.TaggedStruct("SyncLeaf", { id: Sequence, records: Records, after: TextOrNull })
/** Records that others have written. */
export const ServerEvent = Schema.TaggedStruct("ServerEvent", {
  map: MapName,
  /** The number of the last change that is in it. */
  sequence: Sequence,
  records: Records
})
/** How old the grid is, in ms: what came before this is up to here. */
export const Checkpoint = Schema.TaggedStruct("Checkpoint", { age: Sequence })
/** Tombstones that are forgotten, by their keys' partitions and hashes, as in {@link SyncFetch}. */
export const GcPrune = Schema.TaggedStruct("GcPrune", { map: MapName, cells: Wants })
/** Records of a partial map that aren't in it any more. */
export const Withdraw = Schema.TaggedStruct("Withdraw", { map: MapName, keys: Texts })
/** What was told of the map isn't all: the client opens it again. */
export const SyncAgain = Schema.TaggedStruct("SyncAgain", { map: MapName })
/** A query is asked under this number, and its rows follow. */
export const QueryAck = Schema.TaggedStruct("QueryAck", { id: Sequence, query: Sequence })
/** What the rows of a query are, or have come to. */
export const QueryRows = Schema.TaggedStruct("QueryRows", {
  query: Sequence,
  version: Sequence,
  /** The version that this comes after; 0 where these are all rows. */
  after: Sequence,
  /** Whether nothing more of this version comes. */
  isLast: Flag,
  /** Whether there are rows beyond the query's limit. */
  hasMore: Flag,
  /** Keys of rows that are no more. */
  left: Texts,
  scores: Scores,
  /** Rows that came, or have other values. */
  records: Records
})
/** Operations that have reached a level. */
export const OpAck = Schema.TaggedStruct("OpAck", {
  level: Concern,
  replicas: Sequence,
  sequences: Sequences
})
/** An operation that is refused, for good. */
export const OpReject = Schema.TaggedStruct("OpReject", {
  sequence: Sequence,
  /** The `_tag` of the error in `GridError`. */
  cause: Text,
  reason: Text
})
/** All of the connection's operations up to this one survive a crash of the server. */
export const Durable = Schema.TaggedStruct("Durable", { sequence: Sequence })
/** The server stops. It closes with 1001 when what is in hand is saved. */
export const GoingAway = Schema.TaggedStruct("GoingAway", {
  /** How long to wait before coming back, in ms: another time for each client, so that not all come at once. */
  retryMillis: Sequence
})
/** The answer to `Ping`. */
export const Pong = Schema.TaggedStruct("Pong", { id: Sequence, serverMillis: Millis })
/** A message of @effect/rpc to the client. */
export const Reply = Schema.TaggedStruct("Reply", { payload: Bytes })
/** What was wrong. */
export const Fault = Schema.TaggedStruct("Fault", {
  /** The request that failed; null when the connection did. */
  id: SequenceOrNull,
  cause: Text,
  reason: Text
})

/** What a server may send. */
export const ServerMessage = Schema.Union(
  AuthAck,
  AuthRenewAck,
  AuthExpired,
  SyncRoot,
  SyncBucketsAck,
  SyncLeaf,
  ServerEvent,
  Checkpoint,
  GcPrune,
  Withdraw,
  SyncAgain,
  QueryAck,
  QueryRows,
  OpAck,
  OpReject,
  Durable,
  GoingAway,
  Pong,
  Reply,
  Fault
)
/** What a server may send. */
export type ServerMessage = typeof ServerMessage.Type

// --- Frames ---

// `structuredClone` stays off: it would let a peer build cyclic values.
const packr = new Packr({ useRecords: false, variableMapSize: true })
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true })

/** Stands for a message's last field while the others are packed: one byte. */
const PLACEHOLDER = 0

/** Messages that come to more bytes than they have: each is a frame of its own, which keeps that within a frame's bounds. */
const dense = new WeakSet<Uint8Array>()

/** A message whose last field, packed as the placeholder, is to be operations or records: they are written to their place. */
const withRows = <A>(packed: Uint8Array, form: Rows.Form<A>, tuples: ReadonlyArray<A>): Uint8Array => {
  const head = packed.length - 1
  const length = form.bytes(tuples)
  const deflated = Rows.deflated(form, tuples, length)
  const message = smallBytes(head + Rows.binBytes(deflated?.length ?? length))
  for (let i = 0; i < head; i++) message[i] = packed[i]!
  const at = Rows.writeBinHeader(deflated?.length ?? length, message, head)
  if (deflated === undefined) form.write(tuples, message, at)
  else {
    message.set(deflated, at)
    dense.add(message)
  }
  return message
}

/**
 * A message's bytes: they may be kept, shared and sent many times, but their buffer may hold others too. Its keys are such
 * as `Value.checkKey` lets pass.
 */
export const encode = (message: ClientMessage | ServerMessage): Uint8Array => {
  switch (message._tag) {
    case "OpBatch": {
      const { _tag, atomic, concern, kind, map, ops } = message
      return withRows(packr.pack({ _tag, map, kind, concern, atomic, ops: PLACEHOLDER }), Rows.operations, ops)
    }
    case "ServerEvent": {
      const { _tag, map, records, sequence } = message
      return withRows(packr.pack({ _tag, map, sequence, records: PLACEHOLDER }), Rows.records, records)
    }
    case "SyncRoot": {
      const { _tag, id, partial, partitions, records, root, sequence, watermark } = message
      const head = { _tag, id, root, partial, sequence, watermark, partitions, records: PLACEHOLDER }
      return withRows(packr.pack(head), Rows.records, records)
    }
    case "SyncLeaf": {
      const { _tag, after, id, records } = message
      return withRows(packr.pack({ _tag, id, after, records: PLACEHOLDER }), Rows.records, records)
    }
    case "QueryRows": {
      const { _tag, after, hasMore, isLast, left, query, records, scores } = message
      const told = { _tag, query, version: message.version, after, isLast, hasMore }
      return withRows(packr.pack({ ...told, left, scores, records: PLACEHOLDER }), Rows.records, records)
    }
    default: {
      const packed = packr.pack(message)
      const bytes = smallBytes(packed.length)
      bytes.set(packed)
      return bytes
    }
  }
}

/** Messages' bytes as one frame, whose limits the caller keeps. */
export const frame = (messages: ReadonlyArray<Uint8Array>): Uint8Array => {
  if (messages.length === 1) return messages[0]!
  let bytes = 0
  for (const message of messages) bytes += message.length
  const joined = smallBytes(bytes)
  let at = 0
  for (const message of messages) {
    joined.set(message, at)
    at += message.length
  }
  return joined
}

/** Messages, as {@link encode} has made them, as frames in their order: one, as long as they are few. */
export const frames = (messages: ReadonlyArray<Uint8Array>): ReadonlyArray<Uint8Array> => {
  if (messages.length === 1) return messages
  const made: Array<Uint8Array> = []
  let from = 0
  let bytes = 0
  messages.forEach((message, at) => {
    if (at > from && (bytes + message.length > frameBytesMax || dense.has(message) || dense.has(messages[at - 1]!))) {
      made.push(frame(messages.slice(from, at)))
      from = at
      bytes = 0
    }
    bytes += message.length
  })
  if (from < messages.length) made.push(frame(from === 0 ? messages : messages.slice(from)))
  return made
}

const scanLimits = { depthMax: 16, elementsMax: 200_000, messagesMax: 10_000 }

const refuse = (reason: string): never => {
  throw new MalformedMessage({ reason }, { disableValidation: true })
}

/** Each message of a frame as plain data, once the frame is known to be harmless. */
const unpack = (bytes: Uint8Array): ReadonlyArray<unknown> => {
  scanFrame(bytes, scanLimits)
  const messages: Array<unknown> = []
  try {
    unpackr.unpackMultiple(bytes, (message: unknown) => {
      messages.push(message)
    })
  } catch (cause) {
    return refuse(cause instanceof Error ? cause.message : String(cause))
  }
  return messages
}

/** Decodes frames of the messages that `structs` are, by their tags. */
const makeDecode = <A>(structs: { readonly [tag: string]: { readonly fields: Schema.Struct.Fields } }) => {
  const known = new Map<unknown, ReadonlyArray<Field & { readonly name: string }>>()
  for (const [tag, struct] of Object.entries(structs)) {
    const { _tag, ...named } = struct.fields
    known.set(tag, Object.entries(named).map(([name, schema]) => Object.assign({ name }, fields.get(schema)!)))
  }
  return (bytes: Uint8Array): ReadonlyArray<A> => {
    const messages = unpack(bytes)
    const room: Rows.Room = { count: frameRowsMax, inflatedBytes: frameBytesMax }
    for (const message of messages as ReadonlyArray<Record<string, unknown>>) {
      const expected = known.get(message?.["_tag"])
      if (expected === undefined) return refuse("a message of no known type")
      for (const { identifier, is, name, read } of expected) {
        if (!is(message[name])) return refuse(`${message["_tag"]}: "${name}" is not ${identifier}`)
        if (read === undefined) continue
        message[name] = read(message[name] as Uint8Array, room)
      }
      const names = Object.keys(message)
      if (names.length > expected.length + 1) {
        const unknown = names.find((name) => name !== "_tag" && expected.every((each) => each.name !== name))
        return refuse(`${message["_tag"]}: "${unknown}" is an unexpected field`)
      }
    }
    return messages as ReadonlyArray<unknown> as ReadonlyArray<A>
  }
}

/** The messages of a frame from a client. @throws MalformedMessage */
export const decodeFromClient: (bytes: Uint8Array) => ReadonlyArray<ClientMessage> = makeDecode(
  {
    Auth,
    AuthRenew,
    AuthKept,
    Confirmed,
    SyncInit,
    SyncBuckets,
    SyncFetch,
    SyncPull,
    QueryOpen,
    QueryClose,
    Traced,
    OpBatch,
    Ping,
    Call
  }
)
/** The messages of a frame from a server. @throws MalformedMessage */
export const decodeFromServer: (bytes: Uint8Array) => ReadonlyArray<ServerMessage> = makeDecode(
  {
    AuthAck,
    AuthRenewAck,
    AuthExpired,
    SyncRoot,
    SyncBucketsAck,
    SyncLeaf,
    ServerEvent,
    Checkpoint,
    GcPrune,
    Withdraw,
    SyncAgain,
    QueryAck,
    QueryRows,
    OpAck,
    OpReject,
    Durable,
    GoingAway,
    Pong,
    Reply,
    Fault
  }
)
