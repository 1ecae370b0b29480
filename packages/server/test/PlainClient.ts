/** A client of tests: says what it's told to, and waits for what comes. It keeps no data and repairs nothing. */
import * as Protocol from "@topgun/core/Protocol"
import { encode as encodeValue } from "@topgun/core/Value"
import * as Cell from "@topgun/core/Cell"
import type { MapKind } from "@topgun/core/Cell"
import type * as MerkleSync from "@topgun/core/MerkleSync"
import * as PnCounter from "@topgun/core/PnCounter"
import * as LwwRecord from "@topgun/core/LwwRecord"
import { type Closed, type Connection, makePair, makeWebSocket } from "@topgun/core/Transport"
import { home } from "@topgun/core/PartitionRouter"
import { TopGunServer } from "@topgun/server/TopGunServer"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"

export const nodeId = "plainclient00000"

/** A node's totals of a counter as they travel. */
export const totals = (increments: number, decrements = 0, writer = nodeId): Uint8Array =>
  PnCounter.totals(writer, increments, decrements).row

/** The removal of what was written at `millis`, as it travels. */
export const removal = (millis = 1_000, counter = 0, writer = nodeId): Uint8Array =>
  LwwRecord.remove({ millis, counter, nodeId: writer }).row

/** A put as it travels, stamped `millis`. */
export const put = (value: unknown, millis = 1_000, counter = 0, writer = nodeId): Uint8Array =>
  LwwRecord.put({ millis, counter, nodeId: writer }, encodeValue(value)).row

/** Bytes that don't become fewer by being deflated. */
export const noise = (length: number): Uint8Array => {
  let state = 1
  return Uint8Array.from({ length }, () => (state = Math.imul(state, 1_664_525) + 1_013_904_223) >>> 24)
}

export type Tagged<Tag> = Extract<Protocol.ServerMessage, { readonly _tag: Tag }>

export interface PlainClient {
  readonly connection: Connection
  /** Sends messages as one frame. */
  readonly send: (...messages: ReadonlyArray<Protocol.ClientMessage>) => Effect.Effect<void>
  /** Sends bytes as a frame, whatever they are. */
  readonly sendBytes: (bytes: Uint8Array) => Effect.Effect<void>
  /** The next message of a kind, of those not taken yet. */
  readonly take: <Tag extends Protocol.ServerMessage["_tag"]>(tag: Tag) => Effect.Effect<Tagged<Tag>>
  /** Messages of a kind that came and weren't taken. */
  readonly untaken: (tag: Protocol.ServerMessage["_tag"]) => number
  /** The end of the connection. */
  readonly closed: Effect.Effect<Closed>
}

export const make = (connection: Connection): PlainClient => {
  const messages: Array<Protocol.ServerMessage> = []
  const waiting: Array<{ readonly tag: string; readonly found: Deferred.Deferred<Protocol.ServerMessage> }> = []
  const end = Effect.runSync(Deferred.make<Closed>())
  connection.listen((frame) => {
    for (const message of Protocol.decodeFromServer(frame)) {
      const at = waiting.findIndex(({ tag }) => tag === message._tag)
      if (at < 0) messages.push(message)
      else Deferred.unsafeDone(waiting.splice(at, 1)[0]!.found, Effect.succeed(message))
    }
  }, (closed) => Deferred.unsafeDone(end, Effect.succeed(closed)))
  const sendBytes = (bytes: Uint8Array) => Effect.sync(() => connection.send(bytes))
  return {
    connection,
    sendBytes,
    send: (...outgoing) => sendBytes(Protocol.frame(outgoing.map(Protocol.encode))),
    take: <Tag extends Protocol.ServerMessage["_tag"]>(tag: Tag) =>
      Effect.gen(function*() {
        const at = messages.findIndex((message) => message._tag === tag)
        if (at >= 0) return messages.splice(at, 1)[0]! as Tagged<Tag>
        const found = yield* Deferred.make<Protocol.ServerMessage>()
        waiting.push({ tag, found })
        return (yield* Deferred.await(found)) as Tagged<Tag>
      }),
    untaken: (tag) => messages.filter((message) => message._tag === tag).length,
    closed: Deferred.await(end)
  }
}

export const auth: typeof Protocol.Auth.Type = {
  _tag: "Auth",
  protocol: Protocol.version,
  nodeId,
  secret: null,
  token: null,
  confirmed: null
}

let devices = 0
/** As a device that nobody has seen before. */
export const authAnew = (): typeof Protocol.Auth.Type => ({ ...auth, nodeId: String(devices++).padStart(16, "0") })

/** Over the server's own `accept`, without sockets. */
export const inProcess = Effect.map(TopGunServer, ({ accept }) => {
  const [mine, theirs] = makePair()
  accept(theirs)
  return make(mine)
})

/** {@link inProcess}, authenticated. */
export const inProcessReady = Effect.gen(function*() {
  const client = yield* inProcess
  yield* client.send(authAnew())
  yield* client.take("AuthAck")
  return client
})

/** Over a WebSocket, to the server's port. */
export const overSocket = Effect.gen(function*() {
  const { address } = yield* TopGunServer
  const connection = yield* makeWebSocket({ url: `ws://${address!.host}:${address!.port}` }).connect(home)
  return make(connection)
})

/** {@link overSocket}, authenticated. */
export const overSocketReady = Effect.gen(function*() {
  const client = yield* overSocket
  yield* client.send(authAnew())
  yield* client.take("AuthAck")
  return client
})

type Batch = typeof Protocol.OpBatch.Type

/** A batch of records with sequence numbers from `first` on. */
export const batch = (
  map: string,
  concern: Batch["concern"],
  first: number,
  entries: ReadonlyArray<readonly [key: string, row: Uint8Array]>,
  { atomic = "no", kind = "lww" }: { readonly atomic?: Batch["atomic"]; readonly kind?: MapKind } = {}
): Batch => ({
  _tag: "OpBatch",
  map,
  kind,
  concern,
  atomic,
  ops: entries.map(([key, row], i) => [first + i, key, row])
})

export const openMap = (map: string, id = 1, kind: MapKind = "lww"): Protocol.ClientMessage => ({
  _tag: "SyncInit",
  id,
  map,
  kind,
  root: new Uint8Array(8),
  cursor: null
})

/** Lets microtasks run: frames of connections within the process are on their way until then. */
export const settled = Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))

/** The server's map as the peer of a reconciliation. */
export const peerOver = (client: PlainClient, map: string, kind: MapKind = "lww"): MerkleSync.SyncPeer<never> => {
  let id = 100
  const page = (leaf: typeof Protocol.SyncLeaf.Type) => ({
    records: leaf.records.map(([key, row]) => {
      const record = Cell.decodeInPlace(kind, map, key, row)
      return [Cell.cellOf(kind, key, record), record] as const
    }),
    after: leaf.after ?? undefined
  })
  return {
    root: (root) =>
      Effect.zipRight(
        client.send({ _tag: "SyncInit", id: id++, map, kind, root, cursor: null }),
        Effect.map(client.take("SyncRoot"), ({ partitions }) => partitions ?? undefined)
      ),
    buckets: (nodes, lane) =>
      Effect.zipRight(
        client.send({ _tag: "SyncBuckets", id: id++, map, lane, nodes }),
        Effect.map(client.take("SyncBucketsAck"), ({ buckets }) => buckets)
      ),
    fetch: (wants, after) =>
      Effect.zipRight(
        client.send({ _tag: "SyncFetch", id: id++, map, wants, after: after ?? null }),
        Effect.map(client.take("SyncLeaf"), page)
      ),
    pull: (node, after) =>
      Effect.zipRight(
        client.send({ _tag: "SyncPull", id: id++, map, node, after: after ?? null }),
        Effect.map(client.take("SyncLeaf"), page)
      )
  }
}

/** One question at a time: the plain client tells answers apart by their kind only. */
export const serial = (peer: MerkleSync.SyncPeer<never>): MerkleSync.SyncPeer<never> => {
  const one = Effect.unsafeMakeSemaphore(1).withPermits(1)
  return {
    root: (root) => one(peer.root(root)),
    buckets: (nodes, lane) => one(peer.buckets(nodes, lane)),
    fetch: (wants, after) => one(peer.fetch(wants, after)),
    pull: (node, after) => one(peer.pull(node, after))
  }
}

/** All records of a map by cell, by pulling every partition. The client has opened it. */
export const recordsOf = Effect.fnUntraced(function*(client: PlainClient, map: string, kind: MapKind = "lww") {
  const peer = peerOver(client, map, kind)
  const records: Array<readonly [string, Uint8Array]> = []
  for (let partition = 0; partition < 271; partition++) {
    const pulled = yield* peer.pull([partition, ""], undefined)
    for (const [cell, { row }] of pulled.records) records.push([cell, row])
  }
  return records.sort(([a], [b]) => a < b ? -1 : 1)
})
