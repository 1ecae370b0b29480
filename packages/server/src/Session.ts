/**
 * The server's side of one connection, by the specification at the head of `Protocol`. It knows nothing of sockets.
 *
 * Frames are decoded and carried out synchronously, in order, with no fiber for each; what goes out is gathered and leaves
 * once per microtask, in frames within the limit. A session holds a bounded amount of memory:
 *
 * - It doesn't carry out the next message while too much of what the client asked for hasn't left yet, or while too many
 *   writes wait for the database. It stops reading then, so that the client comes to a halt.
 * - Events can't be held back like that. While a client is behind, a map of which there is news is left out from there on; when
 *   the client has read what waits for it, it is told once to open the map again, which brings what was left out.
 * - A client that doesn't read within `drainMillisMax`, or lets more than `outboundBytesMax` pile up, is cut off with 1013.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Cause from "effect/Cause"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as GridError from "@topgun/core/GridError"
import { Hlc } from "@topgun/core/Hlc"
import { keyOf, type MapKind } from "@topgun/core/Cell"
import type { Answers, KeyedRecord } from "@topgun/core/MerkleSync"
import { MerkleSync, packRoot } from "@topgun/core/MerkleSync"
import * as Protocol from "@topgun/core/Protocol"
import type { ServerConnection } from "@topgun/core/Transport"
import type { WriteConcern } from "@topgun/core/WriteConcern"
import type { Access, Extent } from "./Access.ts"
import type { Caller } from "./Calls.ts"
import { Calls } from "./Calls.ts"
import { Admission, type Seat } from "./Admission.ts"
import { Authentication, type Principal } from "./Authentication.ts"
import { Devices } from "./Devices.ts"
import { Partitions } from "./Partitions.ts"
import { PermissionPolicy } from "./PermissionPolicy.ts"
import { Persistence } from "./Persistence.ts"
import { Phase } from "./Phase.ts"
import { ServerConfig } from "./ServerConfig.ts"
import { type Following, Subscriptions } from "./Subscriptions.ts"
import type { Origin } from "./Traces.ts"
import { Metrics } from "./Metrics.ts"
import { Views } from "./Views.ts"
import { type Visit, Visits } from "./Visits.ts"
import type { Writer } from "./WriteAcks.ts"
import { WriteAcks } from "./WriteAcks.ts"

/** All sessions of this server. */
export class Sessions extends Context.Tag("@topgun/server/Session")<Sessions, {
  /**
   * Serves a connection until it ends. One that comes while the server isn't ready is closed. One without an address comes from
   * within the process.
   */
  readonly accept: (connection: ServerConnection, address?: string) => void
  /** Sessions that are open, authenticated or not. */
  readonly count: () => number
  /**
   * Tells every client when to come back, stops reading, waits until writes in hand are saved and acknowledged, and closes every
   * session with 1001, also when it is interrupted.
   */
  readonly stop: Effect.Effect<void>
}>() {}

/** Operations that one `OpAck` gathers before it is made. What is not made yet isn't counted among what waits to be read. */
const acknowledgedMax = 500

/** A broken assumption of our own while serving a message (RFC 6455). */
const internalError = 1011

/** How often a token's time is looked at, in ms: the wall clock may be set, and a timer can't be set for months. */
const expiryLookMillis = 60_000

const tooManyMaps = new GridError.Overloaded({ what: "this connection has as many maps open as it may" })
/**
 * When clients are to come back to a server that stops, in ms: not before it may be up again, and, the more there are, the more
 * spread out, so that they don't come all at once.
 */
const comeBackMillis = { least: 500, spread: 500, spreadPerSession: 2, spreadMax: 120_000 } as const

const tuplesOf = (kind: MapKind, records: ReadonlyArray<KeyedRecord>): ReadonlyArray<Protocol.RecordTuple> =>
  records.map(([cell, record]) => [keyOf(kind, cell), record.row])

/** What one session remembers of what it may do, at most: maps are named by the client. */
const accessesMax = 1_000

type AuthFault = GridError.AuthRequired | GridError.AuthUnavailable | GridError.AuthExpired

const make = Effect.gen(function*() {
  const { authGraceMillis, authMillisMax, drainMillisMax, outboundBytesMax, shutdownTimeout, subscriptionsMax } =
    yield* ServerConfig
  const { verify } = yield* Authentication
  const admission = yield* Admission
  const calls = yield* Calls
  const clock = yield* Effect.clock
  const devices = yield* Devices
  const hlc = yield* Hlc
  const merkleSync = yield* MerkleSync
  const metrics = yield* Metrics
  const partitions = yield* Partitions
  const persistence = yield* Persistence
  const phase = yield* Phase
  const policies = yield* PermissionPolicy
  const subscriptions = yield* Subscriptions
  const views = yield* Views
  const visits = yield* Visits
  const writeAcks = yield* WriteAcks
  const run = yield* FiberSet.makeRuntime<never, void>()

  /** What a client asked for may take this much of the room: more than events, which therefore never keep it from being read. */
  const repliesBytesMax = outboundBytesMax / 2
  /** A client that has more than this to read is behind: its maps' events are left out. */
  const eventsBytesMax = outboundBytesMax / 4
  /** Events of one tick that come to more leave before the others: what the medium takes doesn't pile up. */
  const eventFrameBytes = outboundBytesMax / 16
  /** It has caught up when so much is left. */
  const caughtUpBytes = outboundBytesMax / 8

  const open = new Set<Session>()
  /** Sessions that have something to send at the end of the microtask. */
  let due: Array<Session> = []
  const flushDue = (): void => {
    const flushed = due
    due = []
    for (const session of flushed) session.flushNow()
  }
  /** The sessions of devices that were let in, by their node ids. */
  const sessionOf = new Map<string, Session>()

  class Session implements Writer {
    readonly #visit: Visit
    readonly #connection: ServerConnection
    readonly #seat: Seat
    readonly #watch: Fiber.RuntimeFiber<void>
    #authenticated = false
    /** Under way while a token is verified; what else is there to be run is interrupted with the session. */
    #verifying: Fiber.RuntimeFiber<void> | undefined
    #principal: Principal | undefined
    #nodeId = ""
    #expiring: Fiber.RuntimeFiber<void> | undefined
    #closed = false
    #lastHeard = clock.unsafeCurrentTimeMillis()
    #lastSequence = -1
    #receivedNanos = 0n
    #traceParent: string | undefined
    /** What has come of an atomic batch so far. */
    #parts: ReadonlyArray<typeof Protocol.OpBatch.Type> = []
    #caller: Caller | undefined
    /** What the session's user may do, by map, as far as it was asked for. */
    readonly #accesses = new Map<string, Access>()
    /** Maps that were refused: should they be granted one day, the client is told. */
    readonly #denied = new Set<string>()
    /** Maps that the client was told to open again. */
    readonly #reopening = new Set<string>()
    /** The questions by which maps are opened whose views aren't complete yet. */
    readonly #opening = new Map<string, number>()
    /** Lets go of the views that the session follows or waits for, by map. */
    readonly #releases = new Map<string, () => void>()
    // Messages that came and weren't carried out yet.
    #inbox: ReadonlyArray<Protocol.ClientMessage> = []
    #inboxAt = 0
    #pumping = false
    #waiting = false
    #halted = false
    // Messages that go out at the end of the microtask.
    #outbox: Array<Uint8Array> = []
    #outboxBytes = 0
    #flushing = false
    /** Operations that have reached a level, of which the client is told with what goes out next. */
    #acknowledged: Array<number> = []
    #acknowledgedLevel: WriteConcern = "APPLIED"
    #durable = -1
    /** Maps whose events are left out until the client opens them again, and whether it has been told to. */
    readonly #gaps = new Map<string, "untold" | "told">()
    #catchingUp = false
    readonly #timers = new Set<Fiber.RuntimeFiber<void>>()

    constructor(connection: ServerConnection, address: string | undefined) {
      this.#visit = visits.begin(connection, address)
      this.#connection = this.#visit.connection
      this.#seat = admission.enter(address)
      this.#watch = run(this.#watching)
    }

    listen(): void {
      this.#connection.listen((frame) => this.#receive(frame), () => this.#end())
    }

    // --- Outbound ---

    readonly send = (message: Protocol.ServerMessage): void => this.#put(Protocol.encode(message))

    readonly push = (event: Uint8Array, map: string): void => {
      if (this.#closed || this.#gaps.has(map)) return
      // Only what the medium doesn't take at once counts: one batch of others may be larger than the room.
      if (this.#outboxBytes > eventFrameBytes) this.#flush()
      if (this.#connection.bufferedBytes() <= eventsBytesMax) return this.#put(event)
      this.#gaps.set(map, "untold")
      this.#flushSoon()
    }

    #put(message: Uint8Array): void {
      if (this.#closed) return
      // What was reached before is told before.
      if (this.#acknowledged.length > 0) this.#putAcknowledged()
      this.#outbox.push(message)
      this.#outboxBytes += message.length
      this.#flushSoon()
    }

    readonly acknowledge = (level: WriteConcern, sequences: ReadonlyArray<number>): void => {
      if (this.#closed) return
      if (level !== this.#acknowledgedLevel || this.#acknowledged.length >= acknowledgedMax) this.#putAcknowledged()
      this.#acknowledgedLevel = level
      for (const sequence of sequences) this.#acknowledged.push(sequence)
      this.#flushSoon()
    }

    #putAcknowledged(): void {
      const sequences = this.#acknowledged
      if (sequences.length === 0) return
      this.#acknowledged = []
      this.#put(Protocol.encode({ _tag: "OpAck", level: this.#acknowledgedLevel, replicas: 0, sequences }))
    }

    readonly durable = (sequence: number): void => {
      if (this.#closed) return
      this.#durable = sequence
      this.#flushSoon()
    }

    readonly unsaved = (failure: GridError.StorageUnavailable | GridError.ShuttingDown): void =>
      this.#fail(
        failure,
        failure._tag === "ShuttingDown" ? Protocol.closeCodes.goingAway : Protocol.closeCodes.overloaded
      )

    #flushSoon(): void {
      if (this.#flushing) return
      this.#flushing = true
      // One microtask for all: one for each of a map's followers costs as much as telling them.
      if (due.push(this) === 1) queueMicrotask(flushDue)
    }

    flushNow(): void {
      this.#flushing = false
      if (!this.#closed) this.#flush()
    }

    #flush(): void {
      if (this.#hasExpired()) return this.#expired()
      this.#sendOut()
    }

    #sendOut(): void {
      if (this.#connection.bufferedBytes() > outboundBytesMax) return this.#cut()
      this.#putAcknowledged()
      if (this.#durable >= 0) {
        this.#outbox.push(Protocol.encode({ _tag: "Durable", sequence: this.#durable }))
        this.#durable = -1
      }
      const messages = this.#outbox
      this.#outbox = []
      this.#outboxBytes = 0
      for (const frame of Protocol.frames(messages)) this.#connection.send(frame)
      this.#catchUp()
    }

    /** As soon as the client has read what waits for it, it is told of its gaps: as many as there is room for at a time. */
    #catchUp(): void {
      if (this.#catchingUp || !this.#hasUntold()) return
      this.#catchingUp = true
      this.#whenRead(caughtUpBytes, () => {
        this.#catchingUp = false
        for (const [map, state] of this.#gaps) {
          if (this.#outboxBytes > eventFrameBytes) break
          if (state === "told") continue
          this.#gaps.set(map, "told")
          this.send({ _tag: "SyncAgain", map })
        }
      })
    }

    #hasUntold(): boolean {
      for (const state of this.#gaps.values()) if (state === "untold") return true
      return false
    }

    /** Goes on when at most so much waits for the client, which is cut off if that takes too long. */
    #whenRead(bytesMax: number, goOn: () => void): void {
      const spent = this.#after(drainMillisMax, () => this.#cut())
      this.#connection.whenDrained(bytesMax, () => {
        this.#timers.delete(spent)
        spent.unsafeInterruptAsFork(FiberId.none)
        if (!this.#closed) goOn()
      })
    }

    /** Ends with the session. */
    #after(millis: number, goOn: () => void): Fiber.RuntimeFiber<void> {
      const timer = run(Effect.map(Effect.sleep(millis), () => {
        this.#timers.delete(timer)
        goOn()
      }))
      this.#timers.add(timer)
      return timer
    }

    /** Bytes on their way to the client. */
    bufferedBytes(): number {
      return this.#outboxBytes + this.#connection.bufferedBytes()
    }

    /** The client doesn't read: no use in sending it a `Fault`. */
    #cut(): void {
      metrics.slowReader("cut")
      this.#close(Protocol.closeCodes.overloaded, "too slow a reader")
    }

    // --- Inbound ---

    #receive(frame: Uint8Array): void {
      if (this.#closed) return
      this.#receivedNanos = clock.unsafeCurrentTimeNanos()
      this.#lastHeard = clock.unsafeCurrentTimeMillis()
      const limit = this.#authenticated ? Protocol.frameBytesMax : Protocol.frameBytesBeforeAuthMax
      if (frame.length > limit) {
        const fault = new GridError.RecordTooLarge({ what: "message", bytes: frame.length, limit })
        return this.#fail(fault, Protocol.closeCodes.tooLarge)
      }
      this.#guard(() => {
        const messages = Protocol.decodeFromClient(frame)
        this.#inbox = this.#inboxAt < this.#inbox.length
          ? [...this.#inbox.slice(this.#inboxAt), ...messages]
          : messages
        this.#inboxAt = 0
      })
      this.#pump()
    }

    /** Carries out the messages that came, as far as there is room for their answers. */
    #pump(): void {
      if (this.#pumping) return
      if (this.#hasExpired()) return this.#expired()
      this.#pumping = true
      while (!this.#closed && !this.#halted && this.#inboxAt < this.#inbox.length) {
        const message = this.#inbox[this.#inboxAt]!
        if (this.#mustWait(message)) break
        this.#inboxAt++
        this.#guard(() => this.#handle(message))
      }
      this.#pumping = false
      if (this.#closed || this.#waiting || this.#inboxAt < this.#inbox.length) return
      this.#inbox = []
      this.#inboxAt = 0
    }

    #mustWait(message: Protocol.ClientMessage): boolean {
      if (message._tag === "OpBatch" && persistence.isFull()) {
        this.#wait(() => persistence.onRoom(() => this.#resume()))
        return true
      }
      const millis = message._tag === "OpBatch" ? this.#seat.waitMillis() : 0
      if (millis > 0) {
        this.#wait(() => this.#after(millis, () => this.#resume()))
        return true
      }
      if (this.#outboxBytes + this.#connection.bufferedBytes() <= repliesBytesMax) return false
      this.#wait(() =>
        // What the medium takes at once is gone after the flush; only a slow reader is waited for.
        queueMicrotask(() =>
          queueMicrotask(() => {
            if (!this.#closed) this.#whenRead(repliesBytesMax, () => this.#resume())
          })
        )
      )
      return true
    }

    #wait(until: () => void): void {
      this.#waiting = true
      this.#connection.pause(true)
      until()
    }

    #resume(): void {
      if (this.#closed || this.#halted || !this.#waiting) return
      this.#waiting = false
      this.#lastHeard = clock.unsafeCurrentTimeMillis()
      this.#pump()
      if (!this.#waiting) this.#connection.pause(false)
    }

    /** What a client sent ends at most its own connection; a fault of ours is logged and does no more either. */
    #guard(serve: () => void): void {
      try {
        serve()
      } catch (fault) {
        if (fault instanceof GridError.MalformedMessage) return this.#fail(fault, Protocol.closeCodes.malformed)
        this.#visit.faulted(fault)
        this.#close(internalError, "internal error")
      }
    }

    #handle(message: Protocol.ClientMessage): void {
      if (message._tag === "Auth") return this.#authenticate(message)
      if (!this.#authenticated) return this.#outOfPlace("Auth comes first, and nothing before it is answered")
      const [begun] = this.#parts
      const goesOn = message._tag === "OpBatch" && message.atomic !== "no" && message.concern === begun?.concern
      if (begun !== undefined && !goesOn) return this.#outOfPlace("an atomic batch is begun: the rest of it comes next")
      switch (message._tag) {
        case "Ping":
          return this.send({ _tag: "Pong", id: message.id, serverMillis: hlc.wallMillis() })
        case "Traced":
          this.#traceParent = message.parent
          return
        case "OpBatch":
          this.#seat.spend(message.ops.length)
          return this.#write(message)
        case "AuthRenew":
          return this.#renew(message)
        case "AuthKept":
          return devices.kept(this.#nodeId, message.secret)
        case "SyncInit":
          // What it is told now has everything, and what comes after that is told again.
          this.#gaps.delete(message.map)
          return this.#openMap(message)
        case "SyncBuckets":
          return this.#answer(
            message,
            (answers) =>
              this.send({
                _tag: "SyncBucketsAck",
                id: message.id,
                buckets: answers.buckets(message.nodes, message.lane)
              })
          )
        case "SyncFetch":
          return this.#answer(
            message,
            (answers, kind) =>
              this.#sendPage(message.id, kind, answers.fetch(message.wants, message.after ?? undefined))
          )
        case "SyncPull":
          return this.#answer(
            message,
            (answers, kind) => this.#sendPage(message.id, kind, answers.pull(message.node, message.after ?? undefined))
          )
        case "Call":
          this.#caller ??= calls.open((payload) => this.send({ _tag: "Reply", payload }), () => this.#principal)
          return this.#caller.receive(message.payload)
      }
    }

    #authenticate({ nodeId, protocol, secret, token }: typeof Protocol.Auth.Type): void {
      if (this.#authenticated) return this.#outOfPlace("Auth comes once")
      if (!Protocol.supportedVersions.includes(protocol)) {
        return this.#fail(
          new GridError.ProtocolVersionUnsupported({ offered: protocol, supported: Protocol.supportedVersions }),
          Protocol.closeCodes.versionUnsupported
        )
      }
      this.#verify(token, (verified) => {
        if (verified._tag === "Failure") {
          return this.#fail(
            verified.fault,
            verified.fault._tag === "AuthUnavailable" ? Protocol.closeCodes.overloaded : Protocol.closeCodes.authFailed
          )
        }
        const given = devices.enter(nodeId, secret, verified.principal?.userId)
        if (given === undefined) {
          return this.#fail(new GridError.NodeIdConflict({ nodeId }), Protocol.closeCodes.nodeIdConflict)
        }
        // It was here on a connection that it has given up, or its copy is.
        sessionOf.get(nodeId)?.replaced()
        sessionOf.set(nodeId, this)
        this.#nodeId = nodeId
        const full = this.#seat.authenticated(verified.principal?.userId)
        if (full !== undefined) return this.#fail(full, Protocol.closeCodes.overloaded)
        this.#authenticated = true
        this.#connection.isKnown?.()
        this.#principal = verified.principal
        this.#watchExpiry()
        this.#visit.letIn(nodeId, this.#principal?.userId)
        this.send({
          _tag: "AuthAck",
          protocol,
          secret: given,
          run: partitions.run,
          serverMillis: hlc.wallMillis(),
          generation: persistence.generation,
          durable: persistence.durable,
          userId: this.#principal?.userId ?? null,
          expiresAt: this.#principal?.expiresAt ?? null
        })
      })
    }

    /** A token in the place of the one before: whatever comes of it, nothing else on the connection is touched. */
    #renew({ id, token }: typeof Protocol.AuthRenew.Type): void {
      this.#verify(token, (verified) => {
        if (verified._tag === "Failure") {
          this.#visit.renewed(verified.fault._tag)
          return this.#refuse(id, verified.fault)
        }
        const expected = this.#principal?.userId
        const actual = verified.principal?.userId ?? null
        // What the connection may see and has said was judged for its user.
        if (expected !== undefined && actual !== expected) {
          this.#visit.renewed("AuthUserChanged")
          return this.#refuse(id, new GridError.AuthUserChanged({ expected, actual }))
        }
        const before = new Map(this.#asked().map((map) => [map, this.#accessTo(map).viewKey]))
        this.#principal = verified.principal
        this.#watchExpiry()
        this.#accesses.clear()
        this.#visit.renewed("accepted")
        this.send({ _tag: "AuthRenewAck", id, expiresAt: this.#principal?.expiresAt ?? null })
        this.#reopen((map) => before.get(map) !== this.#accessTo(map).viewKey)
      })
    }

    #verify(
      token: string | null,
      then: (
        verified:
          | { readonly _tag: "Success"; readonly principal: Principal | undefined }
          | { readonly _tag: "Failure"; readonly fault: AuthFault }
      ) => void
    ): void {
      if (this.#verifying !== undefined) return this.#outOfPlace("one token at a time")
      let done = false
      const verifying = run(Effect.map(Effect.exit(Effect.suspend(() => verify(token))), (exit) => {
        done = true
        this.#verifying = undefined
        if (this.#closed) return
        if (this.#hasExpired()) return this.#expired()
        if (Exit.isFailure(exit)) {
          const failure = Cause.failureOption(exit.cause)
          const fault = failure._tag === "Some"
            ? failure.value
            : new GridError.AuthUnavailable({ reason: "the token could not be verified" })
          if (fault._tag === "AuthRequired") this.#seat.authenticationFailed()
          return this.#guard(() => then({ _tag: "Failure", fault }))
        }
        const expiresAt = exit.value?.expiresAt
        if (expiresAt !== undefined && expiresAt <= hlc.wallMillis()) {
          return this.#guard(() =>
            then({ _tag: "Failure", fault: new GridError.AuthExpired({ reason: "the token has expired" }) })
          )
        }
        this.#guard(() => then({ _tag: "Success", principal: exit.value }))
      }))
      if (!done) this.#verifying = verifying
    }

    #watchExpiry(): void {
      this.#expiring?.unsafeInterruptAsFork(FiberId.none)
      const expiresAt = this.#principal?.expiresAt
      this.#expiring = expiresAt === undefined ? undefined : run(this.#expire(expiresAt))
    }

    /** Tells the client that its token has expired and, if that doesn't help, ends the connection. */
    #expire(expiresAt: number): Effect.Effect<void> {
      return Effect.gen(this, function*() {
        for (let left = expiresAt - hlc.wallMillis(); left > 0; left = expiresAt - hlc.wallMillis()) {
          yield* Effect.sleep(Math.min(left, expiryLookMillis))
        }
        this.send({ _tag: "AuthExpired", graceMillis: authGraceMillis })
        yield* Effect.sleep(authGraceMillis)
        this.#expired()
      })
    }

    /** By the clock on the wall: a timer may be late, or the clock have been set. */
    #hasExpired(): boolean {
      const expiresAt = this.#principal?.expiresAt
      return expiresAt !== undefined && hlc.wallMillis() >= expiresAt + authGraceMillis
    }

    /** The end: what was to be sent isn't any more, and what has come isn't looked at. */
    #expired(): void {
      if (this.#closed) return
      this.#outbox = []
      this.#outboxBytes = 0
      this.#durable = -1
      const fault = new GridError.AuthExpired({ reason: "the token has expired, and no other came" })
      this.#fail(fault, Protocol.closeCodes.authFailed)
    }

    // --- What may be read ---

    #accessTo(map: string): Access {
      let access = this.#accesses.get(map)
      if (access !== undefined) return access
      if (this.#accesses.size >= accessesMax) this.#accesses.clear()
      access = policies.current().access(this.#principal, map)
      this.#accesses.set(map, access)
      return access
    }

    readonly accessTo = (map: string): Access | undefined => {
      const access = this.#accessTo(map)
      return access.isWriter && access.reads === "everything" ? undefined : access
    }

    /** Another policy is in force. */
    judgeAnew(): void {
      this.#accesses.clear()
      this.#reopen((map) => {
        const now = this.#accessTo(map).reads
        return now === "part" || now !== this.#opened(map)
      })
    }

    /** What may be read of a map by what the client was told when it opened it. */
    #opened(map: string): Extent {
      return this.#releases.has(map)
        ? "part"
        : subscriptions.follows(map, this) === undefined
        ? "nothing"
        : "everything"
    }

    /** The maps that the client wants to follow, be it in vain. */
    #asked(): ReadonlyArray<string> {
      return Array.from(new Set([...subscriptions.followed(this), ...this.#releases.keys(), ...this.#denied]))
    }

    /** Of maps of which something else may be read now nothing more is told, until the client opens them again. */
    #reopen(isDue: (map: string) => boolean): void {
      for (const map of this.#asked()) {
        if (!isDue(map)) continue
        this.#denied.delete(map)
        // First, as it says why what is asked meanwhile is refused.
        this.send({ _tag: "SyncAgain", map })
        this.#letGo(map)
        this.#reopening.add(map)
      }
    }

    #openMap(message: typeof Protocol.SyncInit.Type): void {
      const { id, kind, map } = message
      this.#reopening.delete(map)
      const access = this.#accessTo(map)
      if (access.reads === "nothing" || (access.reads === "part" && kind !== "lww")) {
        if (this.#denied.size < subscriptionsMax) this.#denied.add(map)
        return this.#refuse(id, new GridError.PermissionDenied({ what: `read map "${map}"` }))
      }
      const fault = partitions.kindFault(map, kind)
      if (fault !== undefined) return this.#refuse(id, fault)
      this.#letGo(map)
      this.#denied.delete(map)
      if (access.reads === "everything") return this.#follow(message, { kind })
      if (this.#releases.size >= subscriptionsMax) return this.#refuse(id, tooManyMaps)
      this.#opening.set(map, id)
      const release = views.open(map, access, (view) => {
        this.#opening.delete(map)
        this.#follow(message, { kind, view })
      })
      this.#releases.set(map, release)
    }

    #follow({ cursor, id, kind, map, root }: typeof Protocol.SyncInit.Type, following: Following): void {
      if (!subscriptions.follow(map, following, this)) return this.#refuse(id, tooManyMaps)
      const { view } = following
      const source = view ?? partitions.source(map)
      const partitionRoots = merkleSync.answers(source).root(root)
      const changed = partitionRoots === undefined
        ? []
        : view === undefined
        ? this.#changedSince(cursor, map, kind)
        : undefined
      this.send({
        _tag: "SyncRoot",
        id,
        root: packRoot(source.tree),
        partial: view !== undefined || !this.#accessTo(map).isWriter,
        sequence: view === undefined ? partitions.sequence(map) : 0,
        partitions: changed === undefined ? partitionRoots ?? null : null,
        records: tuplesOf(kind, changed ?? [])
      })
    }

    #letGo(map: string): void {
      this.#gaps.delete(map)
      const id = this.#opening.get(map)
      if (id !== undefined) this.#refuse(id, new GridError.MapReopened({ map }))
      this.#opening.delete(map)
      subscriptions.unfollow(map, this)
      this.#releases.get(map)?.()
      this.#releases.delete(map)
    }

    /** What the device lacks by its cursor: not what it has written itself. */
    #changedSince(
      cursor: (typeof Protocol.SyncInit.Type)["cursor"],
      map: string,
      kind: MapKind
    ): ReadonlyArray<KeyedRecord> | undefined {
      if (cursor?.[0] !== partitions.run) return undefined
      // Whoever removes an addition does it under the stamp of who added it.
      return partitions.changedSince(map, cursor[1])?.filter(([, record]) =>
        record.nodeId !== this.#nodeId || (kind === "or" && record.isTombstone)
      )
    }

    /** Answers a step of a map's tree walk. */
    #answer(
      { id, map }: { readonly id: number; readonly map: string },
      respond: (answers: Answers, kind: MapKind) => void
    ): void {
      const following = subscriptions.follows(map, this)
      if (following === undefined) {
        // It was told to open the map again, and may not have heard of it yet.
        if (this.#reopening.has(map)) return this.#refuse(id, new GridError.MapReopened({ map }))
        return this.#outOfPlace("a map is opened by SyncInit before it's walked")
      }
      const { kind, view } = following
      const fault = partitions.kindFault(map, kind)
      if (fault !== undefined) return this.#refuse(id, fault)
      respond(merkleSync.answers(view ?? partitions.source(map)), kind)
    }

    #sendPage(id: number, kind: MapKind, page: ReturnType<Answers["fetch"]>): void {
      this.send({
        _tag: "SyncLeaf",
        id,
        records: tuplesOf(kind, page.records),
        after: page.after ?? null
      })
    }

    #write(batch: typeof Protocol.OpBatch.Type): void {
      // `Durable` is cumulative: it would lie about operations that come out of order.
      for (const [sequence] of batch.ops) {
        if (sequence <= this.#lastSequence) {
          return this.#outOfPlace("operations come in the order of their sequence numbers")
        }
        this.#lastSequence = sequence
      }
      if (batch.atomic === "no") return writeAcks.write([batch], this)
      // A part without any would cost memory that nothing bounds.
      if (batch.ops.length === 0) return this.#outOfPlace("a message of an atomic batch has an operation")
      const parts = [...this.#parts, batch]
      const ops = parts.flatMap((part) => part.ops)
      const bytes = ops.reduce((sum, [, key, row]) => sum + key.length + row.length, 0)
      if (ops.length > Protocol.batchOperationsMax || bytes > Protocol.frameBytesMax) {
        return this.#outOfPlace(
          `an atomic batch has at most ${Protocol.batchOperationsMax} operations and as many bytes as a frame`
        )
      }
      this.#parts = batch.atomic === "end" ? [] : parts
      if (batch.atomic === "end") writeAcks.write(parts, this)
    }

    readonly takeOrigin = (): Origin => {
      const traceParent = this.#traceParent
      this.#traceParent = undefined
      return { receivedNanos: this.#receivedNanos, traceParent }
    }

    // --- The end ---

    readonly #watching: Effect.Effect<void> = Effect.gen(this, function*() {
      yield* Effect.sleep(authMillisMax)
      if (!this.#authenticated) {
        // Not AuthRequired, which tells a client not to try again: it may have tried, over a link that was down.
        const message = this.#verifying === undefined
          ? `no Auth within ${authMillisMax} ms`
          : `the token was not verified within ${authMillisMax} ms`
        return this.#fail({ _tag: "RequestTimeout", message }, Protocol.closeCodes.authTimeout)
      }
      while (!this.#closed) {
        const silentMillis = this.#waiting ? 0 : clock.unsafeCurrentTimeMillis() - this.#lastHeard
        if (silentMillis >= Protocol.deadMillis) {
          return this.#close(Protocol.closeCodes.goingAway, `nothing heard for ${Protocol.deadMillis} ms`)
        }
        yield* Effect.sleep(Protocol.deadMillis - silentMillis)
      }
    })

    #outOfPlace(reason: string): void {
      this.#fail(new GridError.MalformedMessage({ reason }), Protocol.closeCodes.outOfPlace)
    }

    /** A request failed, the connection goes on. */
    #refuse(id: number, fault: { readonly _tag: string; readonly message: string }): void {
      this.send({ _tag: "Fault", id, cause: fault._tag, reason: fault.message })
    }

    /** The connection failed: says why and closes it. */
    #fail(
      fault: { readonly _tag: string; readonly message: string; readonly reason?: string },
      code: number
    ): void {
      if (this.#closed) return
      this.#visit.failed(fault._tag)
      this.send({ _tag: "Fault", id: null, cause: fault._tag, reason: fault.reason ?? fault.message })
      this.#sendOut()
      this.#close(code, fault._tag)
    }

    #close(code: number, reason: string): void {
      if (this.#closed) return
      this.#end()
      this.#connection.close(code, reason)
    }

    #end(): void {
      if (this.#closed) return
      this.#closed = true
      this.#outbox = []
      this.#inbox = []
      open.delete(this)
      if (sessionOf.get(this.#nodeId) === this) sessionOf.delete(this.#nodeId)
      subscriptions.leave(this)
      for (const release of this.#releases.values()) release()
      this.#caller?.close()
      this.#seat.leave()
      for (const fiber of [this.#watch, this.#verifying, this.#expiring, ...this.#timers]) {
        fiber?.unsafeInterruptAsFork(FiberId.none)
      }
    }

    /** Takes nothing more from the client, which is told when to come back; acknowledgements still go out. */
    halt(retryMillis: number): void {
      if (this.#authenticated) this.send({ _tag: "GoingAway", retryMillis })
      this.#halted = true
      this.#waiting = true
      this.#connection.pause(true)
    }

    replaced(): void {
      this.#close(Protocol.closeCodes.replaced, "the device has another connection")
    }

    leave(): void {
      if (this.#closed) return
      this.#flush()
      this.#close(Protocol.closeCodes.goingAway, "server going away")
    }
  }

  metrics.watch("connections", () => open.size)
  metrics.watch("bufferedBytes", () => {
    let bytes = 0
    for (const session of open) bytes += session.bufferedBytes()
    return bytes
  })

  const stopJudging = policies.observe(() => {
    views.forget()
    for (const session of Array.from(open)) session.judgeAnew()
  })
  yield* Effect.addFinalizer(() => Effect.sync(stopJudging))

  let hasStopped = false
  const stop = Effect.gen(function*() {
    phase.stopping()
    const spread = Math.min(
      comeBackMillis.spread + open.size * comeBackMillis.spreadPerSession,
      comeBackMillis.spreadMax
    )
    for (const session of open) session.halt(comeBackMillis.least + (yield* Random.nextIntBetween(0, spread + 1)))
    yield* persistence.flush
  }).pipe(Effect.ensuring(Effect.sync(() => {
    hasStopped = true
    for (const session of Array.from(open)) session.leave()
  })))
  // Whoever has stopped it has given it its time.
  yield* Effect.addFinalizer(() =>
    hasStopped ? Effect.void : Effect.timeoutOption(Effect.interruptible(stop), shutdownTimeout)
  )

  return Sessions.of({
    accept: (connection, address) => {
      if (!phase.serves()) return connection.close(Protocol.closeCodes.goingAway, "server not ready")
      const session = new Session(connection, address)
      open.add(session)
      session.listen()
    },
    count: () => open.size,
    stop
  })
})

export const layer: Layer.Layer<
  Sessions,
  never,
  | Admission
  | Calls
  | Devices
  | Hlc
  | MerkleSync
  | Metrics
  | Partitions
  | Persistence
  | Phase
  | ServerConfig
  | Subscriptions
  | Views
  | Visits
  | WriteAcks
> = Layer.scoped(Sessions, make)
