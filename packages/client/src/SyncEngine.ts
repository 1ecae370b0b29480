/**
 * Keeps this device and a server in step: connect → authenticate → reconcile → drain → follow, again after each failure
 * that a retry can mend.
 *
 * What arrives is handled synchronously, frame by frame, without a fiber; what goes out in one tick goes in one frame.
 */
import type { Backoff } from "@topgun/core/Backoff"
import * as Cell from "@topgun/core/Cell"
import type { Crdt } from "@topgun/core/CrdtStore"
import {
  AuthExpired,
  AuthRequired,
  AuthUnavailable,
  AuthUserChanged,
  ConnectionLost,
  MalformedMessage,
  MapRefused,
  NodeIdConflict,
  ProtocolVersionUnsupported,
  RequestTimeout,
  ResyncRequired,
  Stalled
} from "@topgun/core/GridError"
import { Hlc } from "@topgun/core/Hlc"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import { type KeyedRecord, MerkleSync, packRoot, type Page, type SyncPeer } from "@topgun/core/MerkleSync"
import { MerkleForest } from "@topgun/core/MerkleTree"
import { PartitionRouter } from "@topgun/core/PartitionRouter"
import * as Protocol from "@topgun/core/Protocol"
import { driftMillisMax, millisMax } from "@topgun/core/Timestamp"
import * as Value from "@topgun/core/Value"
import { type Connection, Transport } from "@topgun/core/Transport"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as FiberHandle from "effect/FiberHandle"
import * as FiberId from "effect/FiberId"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Credentials from "./Credentials.ts"
import type { Mark } from "./Journal.ts"
import { notifyAll, Observable } from "./Live.ts"
import type { NetworkEvents } from "./NetworkEvents.ts"
import { keyOf, type Pending } from "./Outbox.ts"
import { Replica } from "./Replica.ts"
import { Signal } from "./Signal.ts"
import * as SyncState from "./SyncState.ts"

/** Why a session ended. */
export type SessionFailure =
  | ConnectionLost
  | RequestTimeout
  | MalformedMessage
  | AuthRequired
  | AuthExpired
  | AuthUserChanged
  | AuthUnavailable
  | NodeIdConflict
  | Stalled
  | ProtocolVersionUnsupported

/** Another token may mend it. */
const isForToken = ({ _tag }: SessionFailure): boolean =>
  _tag === "AuthRequired" || _tag === "AuthExpired" || _tag === "AuthUserChanged"

/** How long the server may take to answer one question, in ms. */
const requestMillisMax = 10_000
/** How long it may take after an event of the network until something is heard, in ms. */
const checkMillis = 5_000
/** What the network's events bring forward isn't tried more often than this, in ms: they may come many a second. */
const triesMillisMin = 1_000
/** A connection has held when it is CONNECTED at so many beats of the heart: then the backoff begins anew. */
const beatsHeld = 2
/** No server answers at once: patience is this long at least, in ms. */
const stallMillisMin = 500
/** How many times within its patience the watchdog looks for what isn't acknowledged. */
const watchdogLooks = 5
/** A token is renewed so long before it expires, in ms, or when half of its time is over where that is later. */
const renewalMillis = 60_000
/** The longest sleep, in ms, of who waits for a time on a clock that may be set. */
const lookMillis = 60_000
/** Maps reconciled at a time. */
const mapsAtOnce = 4
/** Clocks that differ by less are taken for equal: the way to the server takes time too. */
const skewMillisMin = 500
/** The sender pauses while more than this waits in the socket. */
const bufferedBytesMax = 1024 * 1024
const bufferPollMillis = 5

type Request = Deferred.Deferred<Protocol.ServerMessage, SessionFailure>
type Answer<Tag> = Extract<Protocol.ServerMessage, { readonly _tag: Tag }>

export interface Options {
  /** When to try again. */
  readonly backoff: Backoff
  /** The token to connect with, or what answers one for each connection. */
  readonly auth?: Credentials.Auth | undefined
  /** How long `auth` may take, in ms. */
  readonly authTimeoutMillis: number
  /** How long an operation may be sent and not acknowledged, on a connection that is alive, in ms. */
  readonly stallMillis: number
  readonly network: NetworkEvents
}

/** All at once, until the first of them ends; the others are interrupted. */
const untilFirst = <A, E, R>(effects: ReadonlyArray<Effect.Effect<A, E, R>>): Effect.Effect<A, E, R> =>
  effects.reduce((all, each) => Effect.raceFirst(all, each))

/** When to renew a token that expires then. */
const renewalOf = (expiresAt: number, nowMillis: number): number =>
  expiresAt - Math.min(renewalMillis, (expiresAt - nowMillis) / 2)

/** Whether two operations are of one atomic batch. */
const isOneBatch = (a: Pending, b: Pending): boolean => a.batch !== undefined && a.batch.first === b.batch?.first

const sizeOf = (operation: Pending): number => operation.record.row.length + keyOf(operation).length

const messagesOf = function*(operations: ReadonlyArray<Pending>): Iterable<Protocol.ClientMessage> {
  let ops: Array<Protocol.OpTuple> = []
  let bytes = 0
  for (const [i, operation] of operations.entries()) {
    const { batch, concern, kind, map } = operation
    ops.push([operation.sequence, keyOf(operation), operation.record.row])
    bytes += sizeOf(operation)
    const next = operations[i + 1]
    const goesOn = next !== undefined && isOneBatch(operation, next)
    if (
      next === undefined || next.map !== map || next.concern !== concern ||
      (!goesOn && (batch !== undefined || next.batch !== undefined)) ||
      ops.length >= Protocol.batchOperationsMax || bytes + sizeOf(next) > Protocol.batchBytesMax
    ) {
      const atomic = goesOn ? "more" : batch === undefined ? "no" : "end"
      yield { _tag: "OpBatch", map, kind, concern, atomic, ops }
      ops = []
      bytes = 0
    }
  }
}

/** Parts operations into chunks of about `Protocol.batchOperationsMax`, and no atomic batch. */
const chunksOf = function*(operations: ReadonlyArray<Pending>): Iterable<ReadonlyArray<Pending>> {
  let from = 0
  for (let at = 1; at <= operations.length; at++) {
    const isLast = at === operations.length
    if (!isLast && (at - from < Protocol.batchOperationsMax || isOneBatch(operations[at - 1]!, operations[at]!))) {
      continue
    }
    yield operations.slice(from, at)
    from = at
  }
}

const decodeRecords = (
  map: string,
  { kind }: Crdt,
  records: ReadonlyArray<Protocol.RecordTuple>
): ReadonlyArray<KeyedRecord> =>
  records.map(([key, row]) => {
    const record = Cell.decodeInPlace(kind, map, key, row)
    return [Cell.cellOf(kind, key, record), record]
  })

/** The walk of a map that this device has nothing of. */
const nothing = { tree: new MerkleForest(), record: () => undefined }

const faultOf = (nodeId: string, fault: { readonly cause: string; readonly reason: string }): SessionFailure => {
  switch (fault.cause) {
    case "AuthRequired":
      return new AuthRequired({ reason: fault.reason })
    case "AuthExpired":
      return new AuthExpired({ reason: fault.reason })
    case "AuthUnavailable":
      return new AuthUnavailable({ reason: fault.reason })
    case "NodeIdConflict":
      return new NodeIdConflict({ nodeId })
    case "ProtocolVersionUnsupported":
      return new ProtocolVersionUnsupported({ offered: Protocol.version, supported: [] })
    default:
      return new ConnectionLost({ reason: `${fault.cause}: ${fault.reason}` })
  }
}

const decode = <A>(read: () => A): Effect.Effect<A, MalformedMessage> =>
  Effect.try({
    try: read,
    catch: (cause) => cause instanceof MalformedMessage ? cause : new MalformedMessage({ reason: String(cause) })
  })

const pageOf = (map: string, crdt: Crdt, leaf: Answer<"SyncLeaf">): Effect.Effect<Page, MalformedMessage> =>
  decode(() => ({ records: decodeRecords(map, crdt, leaf.records), after: leaf.after ?? undefined }))

const isEqual = (a: Uint8Array, b: Uint8Array): boolean => Value.compareBytes(a, b) === 0

/** The server's refusal of one request, on a connection that goes on. */
class Refusal extends Data.TaggedError("Refusal")<{ readonly cause: string; readonly reason: string }> {}

const make = Effect.fnUntraced(function*(options: Options) {
  const transport = yield* Transport
  const router = yield* PartitionRouter
  const replica = yield* Replica
  const sync = yield* MerkleSync
  const hlc = yield* Hlc
  const clock = yield* Effect.clock
  const now = () => clock.unsafeCurrentTimeMillis()
  const { outbox } = replica
  const { network } = options
  const stallMillis = Math.max(stallMillisMin, options.stallMillis)
  const credentials = Credentials.make(options.auth, options.authTimeoutMillis)

  const faults = new Set<(fault: unknown) => void>()
  const onFault = (fault: unknown): void => {
    for (const each of faults) each(fault)
  }
  const state = new Observable<SyncState.SyncState>("DISCONNECTED", onFault)
  const replies = new Set<(payload: Uint8Array) => void>()
  /** Maps that are reconciled on the present connection. */
  const synced = new Set<string>()
  /** Maps that the server refused to open on it. */
  const refused = new Map<string, string>()
  const progress = new Signal()
  const mapOpened = new Signal()
  let skewMillis = 0
  let lastFailure: unknown
  /** The server wants a token, or another one. */
  let needsAuth = false
  /** An operation that the server has left unanswered for too long. */
  let stalledAt: number | undefined
  /** How many tokens had been given when the present connection took its own. */
  let credentialVersion = 0
  /** Beats of the heart that the present connection was CONNECTED for. */
  let beats = 0
  /** Something happened that makes a try, or a look at the connection, worth while. */
  const awakened = new Signal()
  let sendNow: ((message: Protocol.ClientMessage) => void) | undefined

  const listeners = new Set<() => void>()
  const changed = (): void => {
    for (const listener of listeners) listener()
  }

  const move = (event: SyncState.SyncEvent): void => {
    const next = SyncState.next(state.current, event)
    if (next === undefined) throw new Error(`There is no way by "${event}" from ${state.current}`)
    state.set(next)
  }

  // --- One connection ---

  const session = Effect.gen(function*() {
    beats = 0
    credentialVersion = credentials.version()
    if (!network.isOnline()) return yield* new ConnectionLost({ reason: "this device is offline" })
    // Before the connection is open: the server doesn't wait long for it then.
    const token = yield* credentials.next
    const connection: Connection = yield* transport.connect(router.ownerOf(0))
    move("opened")
    const ended = Deferred.unsafeMake<never, SessionFailure>(FiberId.none)
    const authenticated = Deferred.unsafeMake<Answer<"AuthAck">, SessionFailure>(FiberId.none)
    const requests = new Map<number, Request>()
    let nextId = 1
    /** How long nothing was heard, in ms, counted by the heartbeat: the wall clock may be set back. */
    let silentMillis = 0
    /** Frames that came. */
    let heard = 0
    let isLetIn = false
    /** The last operation that was sent: their numbers only grow on a connection. */
    let lastSent = -1
    let expiresAt: number | null = null
    const expired = new Signal()
    let isExpired = false
    let durable = true
    /** The server's run, and the number of the last change that it has told of each map. */
    let run = ""
    const told = new Map<string, number>()
    /** Maps of which something was left out: nothing is said of how far their changes are here. */
    const partial = new Set<string>()
    /** The clock goes by the server's of this connection. */
    let isCorrected = false
    let over = false
    let fault: SessionFailure | undefined

    const fail = (failure: SessionFailure): void => Deferred.unsafeDone(ended, Exit.fail(failure))

    /** How far the server's clock is ahead of the corrected one, where that is too far to go on. */
    const errorOf = (serverMillis: number): number | undefined => {
      const error = serverMillis - hlc.wallMillis()
      return Math.abs(error) > driftMillisMax ? error : undefined
    }
    /** The next connection learns the time anew, and catches up with what was refused for it. */
    const mistimed = (reason: string): void => {
      fail(new ConnectionLost({ reason: `the time on this device was set: ${reason}` }))
    }

    // Out: what is handed over in one tick leaves in as few frames as the limit allows.
    let outbound: Array<Uint8Array> = []
    const flush = (): void => {
      for (const frame of Protocol.frames(outbound)) connection.send(frame)
      outbound = []
    }
    const send = (message: Protocol.ClientMessage): void => {
      if (outbound.length === 0) queueMicrotask(flush)
      outbound.push(Protocol.encode(message))
    }

    // In.
    let wasUnasked = false
    /** Told of once: a server that does it once does it often. */
    const unasked = (what: string): void => {
      if (wasUnasked) return
      wasUnasked = true
      onFault(new MalformedMessage({ reason: `the server ${what}` }))
    }
    const outOfPlace = (what: string): never => {
      throw new MalformedMessage({ reason: `${what} is out of place` })
    }
    /** Whether the server may say this of an operation: it was sent on this connection. */
    const isSent = (sequence: number): boolean => {
      if (sequence <= lastSent) return true
      unasked("answers a write that it wasn't sent")
      return false
    }
    /** @throws MalformedMessage for what no clock shows */
    const checkTime = (serverMillis: number): void => {
      if (serverMillis < 0 || serverMillis > millisMax - driftMillisMax) outOfPlace(`the time ${serverMillis}`)
    }
    /** A map's changes are here up to this one, once the map is in step. */
    const hear = (map: string, sequence: number): void => {
      const last = Math.max(sequence, told.get(map) ?? 0)
      told.set(map, last)
      if (synced.has(map) && !partial.has(map)) replica.moveMark(map, { run, sequence: last })
    }
    const answer = (id: number, message: Protocol.ServerMessage): void => {
      const request = requests.get(id)
      requests.delete(id)
      if (request !== undefined) Deferred.unsafeDone(request, Exit.succeed(message))
    }
    const receive = (message: Protocol.ServerMessage): void => {
      // What says that it's an answer of this connection would be taken for one to what others have sent.
      if (!isLetIn && message._tag !== "AuthAck" && message._tag !== "Fault") outOfPlace(message._tag)
      switch (message._tag) {
        case "AuthAck":
          if (isLetIn) outOfPlace("a second AuthAck")
          checkTime(message.serverMillis)
          isLetIn = true
          durable = message.durable
          run = message.run
          return Deferred.unsafeDone(authenticated, Exit.succeed(message))
        case "AuthExpired":
          isExpired = true
          needsAuth = true
          changed()
          return expired.notify()
        case "AuthRenewAck":
        case "SyncRoot":
        case "SyncBucketsAck":
        case "SyncLeaf":
          return answer(message.id, message)
        case "ServerEvent": {
          const crdt = replica.map(message.map)
          if (crdt === undefined) return unasked(`sends records of map "${message.map}", which isn't open here`)
          // The server has just taken it by its own clock. Only the next tree walk brings it again.
          if (!replica.merge(message.map, decodeRecords(message.map, crdt, message.records))) {
            return mistimed("a record of now is from beyond its bound")
          }
          return hear(message.map, message.sequence)
        }
        case "OpAck":
          if (message.level === "PERSISTED" && !durable) outOfPlace("PERSISTED from a server without a database")
          outbox.acknowledged(message.sequences.filter(isSent), message.level, message.replicas, !durable)
          changed()
          return progress.notify()
        case "OpReject":
          if (!isSent(message.sequence)) return
          if (message.cause === "ClockSkewTooLarge" && outbox.tooEarly(message.sequence)) {
            return mistimed(message.reason)
          }
          outbox.rejected(message.sequence, message.cause, message.reason)
          return progress.notify()
        case "Durable":
          outbox.durable(message.sequence)
          return progress.notify()
        case "Pong": {
          checkTime(message.serverMillis)
          const error = isCorrected ? errorOf(message.serverMillis) : undefined
          return error === undefined ? undefined : mistimed(`the server's is ${error} ms later`)
        }
        case "Reply":
          return notifyAll(Array.from(replies), message.payload, onFault)
        case "Fault":
          if (message.id === null) fault = faultOf(replica.nodeId(), message)
          else answer(message.id, message)
      }
    }
    connection.listen(
      (frame) => {
        // An acknowledgement is of what was sent on this connection, which may have got another stamp since.
        if (over) return
        silentMillis = 0
        heard++
        try {
          for (const message of Protocol.decodeFromServer(frame)) receive(message)
        } catch (cause) {
          if (!(cause instanceof MalformedMessage)) onFault(cause)
          fail(
            cause instanceof MalformedMessage
              ? cause
              : new ConnectionLost({ reason: "a frame could not be handled", cause })
          )
          connection.close(Protocol.closeCodes.malformed, "malformed frame")
        }
      },
      (closed) =>
        fail(fault ?? new ConnectionLost({ reason: closed.reason || "closed by the peer", closeCode: closed.code }))
    )

    const ask = <Tag extends Protocol.ServerMessage["_tag"]>(
      tag: Tag,
      message: (id: number) => Protocol.ClientMessage
    ): Effect.Effect<Answer<Tag>, SessionFailure | Refusal> =>
      Effect.suspend(() => {
        const id = nextId++
        const request: Request = Deferred.unsafeMake(FiberId.none)
        requests.set(id, request)
        const asked = message(id)
        send(asked)
        return Deferred.await(request).pipe(
          Effect.timeoutFail({
            duration: requestMillisMax,
            onTimeout: () => new RequestTimeout({ request: asked._tag, afterMillis: requestMillisMax })
          }),
          Effect.flatMap((answered) =>
            answered._tag === tag
              ? Effect.succeed(answered as Answer<Tag>)
              : Effect.fail(
                answered._tag === "Fault"
                  ? new Refusal(answered)
                  : new MalformedMessage({ reason: `${answered._tag} answers ${asked._tag}` })
              )
          ),
          Effect.ensuring(Effect.sync(() => requests.delete(id)))
        )
      })

    /**
     * How a map's roots compare; `undefined` when they are equal. Where this device has a mark, the server may say at once what
     * has changed since.
     */
    const compareRoots = (
      map: string,
      crdt: Crdt,
      mine: Uint8Array,
      mark: Mark | undefined
    ): Effect.Effect<Uint8Array | undefined, SessionFailure | Refusal> => {
      const cursor = mark?.run === run ? [run, mark.sequence] as const : null
      const question = ask("SyncRoot", (id) => ({ _tag: "SyncInit", id, map, kind: crdt.kind, root: mine, cursor }))
      return Effect.flatMap(question, ({ partitions, records, root, sequence }) => {
        hear(map, sequence)
        if (partitions !== null) return Effect.succeed(partitions)
        if (isEqual(mine, root)) return Effect.succeed(undefined)
        if (cursor === null) return new MalformedMessage({ reason: "SyncRoot says that unequal roots are equal" })
        return Effect.flatMap(decode(() => decodeRecords(map, crdt, records)), (news) => {
          receiveRecords(map, news)
          const merged = packRoot(crdt.cells.tree)
          return isEqual(merged, root) ? Effect.succeed(undefined) : compareRoots(map, crdt, merged, undefined)
        })
      })
    }

    /** Merges what the server has, in answer to this device. What is left out now has to be asked for again. */
    const receiveRecords = (map: string, records: ReadonlyArray<KeyedRecord>): void => {
      if (!replica.merge(map, records)) partial.add(map)
    }

    const peerFor = (map: string, crdt: Crdt, mark?: Mark): SyncPeer<SessionFailure | Refusal> => ({
      root: (root) => compareRoots(map, crdt, root, mark),
      buckets: (nodes, lane) =>
        Effect.map(
          ask("SyncBucketsAck", (id) => ({ _tag: "SyncBuckets", id, map, lane, nodes })),
          ({ buckets }) => buckets
        ),
      fetch: (wants, after) =>
        Effect.flatMap(
          ask("SyncLeaf", (id) => ({ _tag: "SyncFetch", id, map, wants, after: after ?? null })),
          (leaf) => pageOf(map, crdt, leaf)
        ),
      pull: (node, after) =>
        Effect.flatMap(
          ask("SyncLeaf", (id) => ({ _tag: "SyncPull", id, map, node, after: after ?? null })),
          (leaf) => pageOf(map, crdt, leaf)
        )
    })

    /** Takes a map over anew. What the server doesn't have goes at the end, so that no reader sees an empty map meanwhile. */
    const takeOver = Effect.fnUntraced(function*(map: string, crdt: Crdt) {
      onFault(new ResyncRequired({ map }))
      const before = new Map(crdt.cells.confirmed())
      const has = new Set<string>()
      yield* sync.reconcile({
        ...nothing,
        partitionOf: (cell) => crdt.cells.partitionOf(cell),
        receive: (records) => {
          for (const [cell] of records) has.add(cell)
          receiveRecords(map, records)
        }
      }, peerFor(map, crdt))
      replica.dropLost(map, before, has)
      replica.moveMark(map, { run, sequence: told.get(map) ?? 0 })
    })

    const reconcile = Effect.fnUntraced(function*(map: string) {
      const crdt = replica.map(map)!
      const { cells } = crdt
      const walk = Effect.suspend(() =>
        sync.reconcile({
          tree: cells.tree,
          record: (cell) => cells.getConfirmed(cell),
          partitionOf: (cell) => cells.partitionOf(cell),
          receive: (records) => receiveRecords(map, records)
        }, peerFor(map, crdt, replica.mark(map)))
      )
      const { offers } = yield* Effect.catchIf(
        walk,
        (failure) => failure._tag === "Refusal" && failure.cause === "ResyncRequired",
        () => Effect.zipRight(takeOver(map, crdt), walk)
      )
      outbox.offer(map, crdt.kind, offers)
      synced.add(map)
      hear(map, 0)
      changed()
      progress.notify()
    }, (walk, map) =>
      // One map's matter, not the connection's.
      Effect.catchTag(walk, "Refusal", ({ reason }) =>
        Effect.sync(() => {
          refused.set(map, reason)
          changed()
          onFault(new MapRefused({ map, reason }))
        })))

    const ping = (): void => {
      if (isLetIn) send({ _tag: "Ping", id: nextId++ })
    }
    const heartbeat = Effect.gen(function*() {
      yield* Effect.sleep(Protocol.pingMillis)
      silentMillis += Protocol.pingMillis
      if (silentMillis > Protocol.deadMillis) {
        return yield* new ConnectionLost({ reason: `nothing was heard for ${Protocol.deadMillis} ms` })
      }
      beats = state.current === "CONNECTED" ? beats + 1 : 0
      ping()
    }).pipe(Effect.forever)

    /** After a sleep, or a change of network, a connection may be dead though it never closed. */
    const check = Effect.gen(function*() {
      const { version } = awakened
      yield* awakened.after(version)
      if (!isLetIn) return
      const before = heard
      ping()
      yield* Effect.sleep(checkMillis)
      if (heard === before) {
        return yield* new ConnectionLost({
          reason: `nothing was heard for ${checkMillis} ms after the network changed`
        })
      }
    }).pipe(Effect.forever)

    /** Notices operations that are sent and left unanswered, however lively the connection is. */
    const watchdog = Effect.gen(function*() {
      /** What had left this process at each of the last looks. */
      const left: Array<number> = []
      while (true) {
        yield* Effect.sleep(stallMillis / watchdogLooks)
        const first = outbox.firstUnanswered()
        if (first !== undefined && left.length === watchdogLooks && first <= left[0]!) {
          stalledAt = first
          return yield* new Stalled({ afterMillis: stallMillis })
        }
        // What waits for a slow link isn't the server's to answer yet.
        left.push(connection.bufferedBytes() === 0 ? lastSent : left.at(-1) ?? -1)
        if (left.length > watchdogLooks) left.shift()
      }
    })

    const renewalDue = Effect.gen(function*() {
      // Not in a circle with a server that lets no token live.
      yield* Effect.sleep(triesMillisMin)
      if (expiresAt === null) return yield* expired.until(() => isExpired)
      const renewAt = renewalOf(expiresAt, hlc.wallMillis())
      while (!isExpired && hlc.wallMillis() < renewAt) {
        yield* Effect.raceFirst(
          Effect.sleep(Math.min(renewAt - hlc.wallMillis(), lookMillis)),
          expired.until(() => isExpired)
        )
      }
    })
    const renewWith = Effect.fnUntraced(function*(renewed: string | null) {
      if (renewed === null) return
      const ack = yield* ask("AuthRenewAck", (id) => ({ _tag: "AuthRenew", id, token: renewed }))
      expiresAt = ack.expiresAt
      isExpired = false
      needsAuth = false
      lastFailure = undefined
      changed()
    })
    /** Renews the token in place, as often as it has to be. What goes wrong with that is told, and is nobody else's matter. */
    const renewals = Effect.gen(function*() {
      let backoff = yield* Schedule.driver(options.backoff)
      let retries: Effect.Effect<void> | undefined
      while (true) {
        const outcome = yield* Effect.either(Effect.flatMap(
          Effect.raceFirst(
            Effect.flatMap(credentials.whenGiven(credentialVersion), () => {
              credentialVersion = credentials.version()
              return credentials.next
            }),
            credentials.hasProvider
              ? Effect.flatMap(retries ?? renewalDue, () => credentials.another)
              : Effect.never
          ),
          renewWith
        ))
        if (Either.isRight(outcome)) {
          backoff = yield* Schedule.driver(options.backoff)
          retries = undefined
          continue
        }
        const failure = outcome.left
        if (failure._tag === "Refusal" && failure.cause === "AuthUserChanged") {
          return yield* new AuthUserChanged({ expected: replica.user() ?? "" })
        }
        if (failure._tag === "MalformedMessage") return yield* failure
        const refusal = failure._tag === "Refusal" ? faultOf(replica.nodeId(), failure) : failure
        if (isForToken(refusal)) needsAuth = true
        lastFailure = refusal
        onFault(refusal)
        changed()
        // When the tries are spent, the token that there is holds as long as it holds.
        retries = Effect.orElse(Effect.asVoid(backoff.next(refusal)), () => Effect.never)
      }
    })

    /** Nothing leaves before the clock and the sequence numbers in it are durably reserved. */
    const transmit = Effect.fnUntraced(function*(operations: ReadonlyArray<Pending>) {
      for (const message of messagesOf(operations)) send(message)
      lastSent = operations.at(-1)?.sequence ?? lastSent
      while (connection.bufferedBytes() > bufferedBytesMax) yield* Effect.sleep(bufferPollMillis)
    })
    /** What another writer than the present one has issued on this device was reserved by that one. */
    const isReserved = (record: LwwRecord, millis: number): boolean =>
      record.millis <= millis || record.nodeId !== replica.nodeId()
    const reservedFor = Effect.fnUntraced(function*(operations: ReadonlyArray<Pending>) {
      const isCovered = () => {
        const { millis, sequence } = replica.journal.reserved()
        return operations.every((operation) =>
          operation.sequence < sequence && (operation.offered || isReserved(operation.record, millis))
        )
      }
      while (!isCovered()) yield* Effect.ignore(replica.journal.flush)
    })

    const confirmed = (map: string, cell: string) => replica.map(map)?.cells.getConfirmed(cell)
    const sendOperations = Effect.gen(function*() {
      const operations = yield* outbox.take(Protocol.batchOperationsMax, confirmed)
      yield* reservedFor(operations)
      yield* transmit(operations)
    }).pipe(Effect.forever)

    const followMaps = Effect.gen(function*() {
      const nextMap = () => replica.followed().find((name) => !synced.has(name) && !refused.has(name))
      yield* mapOpened.until(() => nextMap() !== undefined)
      const map = nextMap()
      if (map !== undefined) yield* reconcile(map)
    }).pipe(Effect.forever)

    const work = Effect.gen(function*() {
      send({
        _tag: "Auth",
        protocol: Protocol.version,
        nodeId: replica.nodeId(),
        secret: replica.secret(),
        token
      })
      const hello = yield* Deferred.await(authenticated).pipe(
        Effect.timeoutFail({
          duration: requestMillisMax,
          onTimeout: () => new RequestTimeout({ request: "Auth", afterMillis: requestMillisMax })
        })
      )
      const user = replica.user()
      if (user !== undefined && hello.userId !== user) {
        return yield* new AuthUserChanged({ expected: user, actual: hello.userId })
      }
      if (hello.userId !== null) replica.adoptUser(hello.userId)
      // What can't be stored is told by the journal; the secret before goes on letting this device in.
      yield* Effect.forkScoped(Effect.match(replica.keepSecret(hello.secret), {
        onFailure: () => {},
        onSuccess: () => send({ _tag: "AuthKept", secret: hello.secret })
      }))
      expiresAt = hello.expiresAt
      needsAuth = false
      const error = errorOf(hello.serverMillis)
      const ahead = hello.serverMillis - now()
      skewMillis = Math.abs(ahead) < skewMillisMin ? 0 : ahead
      hlc.unsafeCorrect(skewMillis)
      isCorrected = true
      if (yield* replica.restamp(hello.serverMillis + driftMillisMax, error !== undefined)) {
        return yield* new ConnectionLost({
          reason: `this device's clock was wrong, by ${ahead} ms now: what it hasn't sent gets new stamps`
        })
      }
      move("authenticated")

      return yield* Effect.raceFirst(renewals, synchronise)
    })

    const synchronise = Effect.gen(function*() {
      const unanswered = outbox.resend()
      const bound = outbox.nextSequence()
      yield* Effect.forEach(replica.followed(), reconcile, { concurrency: mapsAtOnce, discard: true })
      for (const operations of chunksOf(unanswered)) {
        yield* reservedFor(operations)
        yield* transmit(operations)
      }
      return yield* Effect.raceFirst(
        sendOperations,
        Effect.gen(function*() {
          yield* progress.until(() => outbox.isDrained(bound))
          replica.isInStep()
          lastFailure = undefined
          sendNow = send
          move("synced")
          progress.notify()
          return yield* followMaps
        })
      )
    })

    return yield* untilFirst<never, SessionFailure, Scope.Scope>([
      Deferred.await(ended),
      heartbeat,
      check,
      watchdog,
      work
    ]).pipe(
      Effect.ensuring(Effect.sync(() => {
        over = true
        sendNow = undefined
        synced.clear()
        refused.clear()
        changed()
      }))
    )
  })

  // --- Connection after connection ---

  const stopOf = (failure: unknown): void => {
    lastFailure = failure
    move("fail")
    onFault(failure)
  }

  /** No retry can mend it. */
  const isFatal = (failure: SessionFailure): boolean =>
    failure._tag === "ProtocolVersionUnsupported" ||
    (isForToken(failure) && (failure._tag === "AuthUserChanged" || !credentials.hasProvider) &&
      credentials.version() === credentialVersion)

  const run = Effect.gen(function*() {
    let backoff = yield* Schedule.driver(options.backoff)
    move("connect")
    while (true) {
      const triedAt = now()
      const exit = yield* Effect.exit(Effect.scoped(session))
      if (Exit.isSuccess(exit)) return yield* Effect.never
      if (Cause.isInterruptedOnly(exit.cause)) return yield* Effect.interrupt
      const failure = Option.getOrUndefined(Cause.failureOption(exit.cause))
      if (failure === undefined) return stopOf(Cause.squash(exit.cause))
      if (failure._tag === "NodeIdConflict") {
        yield* replica.renounce
        onFault(failure)
      }
      if (isForToken(failure)) needsAuth = true
      if (isFatal(failure)) {
        stopOf(failure)
        if (!isForToken(failure)) return
        yield* credentials.whenGiven(credentialVersion)
        move("connect")
        continue
      }
      if (beats >= beatsHeld) yield* backoff.reset
      lastFailure = failure
      move("lost")
      const { version } = awakened
      const given = credentials.whenGiven(credentialVersion)
      const triedLately = Effect.suspend(() =>
        Effect.sleep(Math.min(triesMillisMin, Math.max(0, triedAt + triesMillisMin - now())))
      )
      if (network.isOnline()) {
        const spent = yield* untilFirst([
          Effect.match(backoff.next(failure), { onFailure: () => true, onSuccess: () => false }),
          Effect.as(Effect.zipRight(untilFirst([awakened.after(version), given]), triedLately), false)
        ])
        if (spent) return stopOf(failure)
      } else {
        // Another network, other delays.
        backoff = yield* Schedule.driver(options.backoff)
        yield* awakened.until(() => network.isOnline())
        yield* triedLately
      }
      move("retry")
    }
  }).pipe(Effect.onInterrupt(() => halt))

  const halt = Effect.sync(() => {
    lastFailure = undefined
    move("disconnect")
  })

  const stopHearing = network.subscribe(() => awakened.notify())
  const running = yield* FiberHandle.make()
  const stopWatching = replica.observe({ onMapOpened: () => mapOpened.notify() })
  let closed = false
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      stopHearing()
      stopWatching()
      closed = true
      progress.notify()
    })
  )

  const disconnect = Effect.zipRight(FiberHandle.clear(running), halt)
  let isOver = false
  const connect = Effect.suspend(() =>
    state.current === "DISCONNECTED" && !isOver
      ? Effect.asVoid(FiberHandle.run(running, run, { onlyIfMissing: true }))
      : Effect.void
  )
  // Disconnecting takes a moment; who wants a connection meanwhile gets it after that.
  const inTurn = Effect.unsafeMakeSemaphore(1).withPermits(1)

  return {
    state: state.live,
    /** Connects, and keeps connected, until told otherwise. */
    connect: inTurn(connect),
    /** Ends the connection and makes no other. */
    disconnect: inTurn(disconnect),
    /** Begins anew at once, whatever the state: also the way out of ERROR. */
    resetConnection: inTurn(Effect.zipRight(disconnect, connect)),
    /**
     * Waits until the server has all that was written here before the call, and this device all that the server has. Is
     * interrupted when the client closes.
     */
    synced: Effect.suspend(() => {
      const bound = outbox.nextSequence()
      const isSynced = () =>
        state.current === "CONNECTED" && outbox.isDrained(bound) && replica.followed().every((name) => synced.has(name))
      return Effect.flatMap(
        progress.until(() => closed || isSynced()),
        () => closed ? Effect.interrupt : Effect.void
      )
    }),
    skewMillis: () => skewMillis,
    /** Whether a map is in step on the present connection. */
    isSynced: (map: string): boolean => synced.has(map),
    /** Why the server refuses to open a map on it. */
    refusalOf: (map: string): string | undefined => refused.get(map),
    lastSyncedAt: replica.syncedAt,
    /** Why there is no connection, where there should be one. */
    lastFailure: () => lastFailure,
    /** Whether the server wants a token, or another one. */
    needsAuth: () => needsAuth,
    /** Whether the server leaves operations unanswered that it was sent, on whichever connection. */
    isStalled: (): boolean => {
      if (stalledAt === undefined) return false
      const first = outbox.firstUnanswered()
      if (first === undefined || first > stalledAt) stalledAt = undefined
      return stalledAt !== undefined
    },
    /** The token from now on: shown in the place of the present connection's, and ends waiting for one. */
    giveToken: credentials.give,
    /** Disconnects for good, unless `end` fails: what it does is done without a connection. */
    endWith: <A, E>(end: Effect.Effect<A, E>): Effect.Effect<A, E> =>
      inTurn(Effect.suspend(() => {
        const wasWanted = state.current !== "DISCONNECTED"
        isOver = true
        return Effect.zipRight(disconnect, end).pipe(
          Effect.onExit((exit) => {
            if (Exit.isSuccess(exit)) return Effect.void
            isOver = false
            return wasWanted ? connect : Effect.void
          })
        )
      })),
    /** Hears of changes of what is told here, and of faults that nobody waits for. */
    observe: (onChange: () => void, onFaultHere: (fault: unknown) => void): () => void => {
      listeners.add(onChange)
      faults.add(onFaultHere)
      return () => {
        listeners.delete(onChange)
        faults.delete(onFaultHere)
      }
    },
    /** The way for calls: payloads go to the server, its replies to whoever listens. False: not connected. */
    call: (payload: Uint8Array): boolean => {
      sendNow?.({ _tag: "Call", payload })
      return sendNow !== undefined
    },
    onReply: (listener: (payload: Uint8Array) => void): () => void => {
      replies.add(listener)
      return () => {
        replies.delete(listener)
      }
    }
  }
})

/** The connection of this device's replica with its server. */
export class SyncEngine extends Context.Tag("@topgun/client/SyncEngine")<
  SyncEngine,
  Effect.Effect.Success<ReturnType<typeof make>>
>() {}

export const layer = (
  options: Options
): Layer.Layer<SyncEngine, never, Transport | PartitionRouter | Replica | MerkleSync | Hlc> =>
  Layer.scoped(SyncEngine, make(options))
