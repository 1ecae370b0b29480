/**
 * The server's side of one connection, by the specification at the head of `Protocol`. It knows nothing of sockets.
 *
 * Frames are decoded and carried out synchronously, in order, with no fiber for each. The next message isn't carried out while too
 * much of what the client asked for hasn't left yet (`Outbound`), while too many writes wait for the database, before its user's rate
 * allows it (`Admission`), or when enough was done in this turn of the event loop (`Turns`). The session stops reading then, so
 * that the client comes to a halt, and holds a bounded amount of memory.
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
import type { MerkleSync } from "@topgun/core/MerkleSync"
import * as Protocol from "@topgun/core/Protocol"
import type { ServerConnection } from "@topgun/core/Transport"
import type { WriteConcern } from "@topgun/core/WriteConcern"
import type { Access } from "./Access.ts"
import type { Caller } from "./Calls.ts"
import { Calls } from "./Calls.ts"
import { Admission, type Seat } from "./Admission.ts"
import { Authentication, type Principal } from "./Authentication.ts"
import { Confirmations } from "./Confirmations.ts"
import { Devices } from "./Devices.ts"
import { Partitions } from "./Partitions.ts"
import { PermissionPolicy } from "./PermissionPolicy.ts"
import { Persistence } from "./Persistence.ts"
import { Phase } from "./Phase.ts"
import { ServerConfig } from "./ServerConfig.ts"
import * as Outbound from "./Outbound.ts"
import { Queries } from "./Queries.ts"
import { Querying } from "./Querying.ts"
import * as Reading from "./Reading.ts"
import type { Subscriptions } from "./Subscriptions.ts"
import { Tombstones } from "./Tombstones.ts"
import * as Turns from "./Turns.ts"
import type { Origin } from "./Traces.ts"
import { Interception } from "./Interception.ts"
import type { Visitor } from "./Interceptors.ts"
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
  /** Tells those devices for which `isDue` holds how old the grid is, to hear whether they have all that came before. */
  readonly checkpoint: (age: number, isDue: (nodeId: string) => boolean) => void
  /**
   * Tells every client when to come back, stops reading, waits until writes in hand are saved and acknowledged, and closes every
   * session with 1001, also when it is interrupted.
   */
  readonly stop: Effect.Effect<void>
}>() {}

/** A broken assumption of our own while serving a message (RFC 6455). */
const internalError = 1011

/** How often a token's time is looked at, in ms: the wall clock may be set, and a timer can't be set for months. */
const expiryLookMillis = 60_000

/**
 * When clients are to come back to a server that stops, in ms: not before it may be up again, and, the more there are, the more
 * spread out, so that they don't come all at once.
 */
const comeBackMillis = { least: 500, spread: 500, spreadPerSession: 2, spreadMax: 120_000 } as const

/** Bytes of a query that take a unit of work to be read, judged and planned: conditions are small. */
const queryBytesPerWork = 8
/** What a message takes, in the unit of `Turns`; what is sent in answer to it comes to that. */
const workOf = (message: Protocol.ClientMessage): number =>
  message._tag === "OpBatch"
    ? 3 + message.ops.length
    : message._tag === "QueryOpen"
    ? 50 + message.query.length / queryBytesPerWork
    : message._tag === "SyncInit"
    ? 50
    : 5
/** Bytes of answers that take a unit of work, and of events, which were made for others too. */
const bytesPerWork = { answers: 512, events: 4096 }
/** Operations of a map with a resolver that are carried out in one turn, at most, but for atomic batches. */
const resolvedOperationsMax = 50
/** What it takes to tell one more of an event, however small. */
const workOfEvent = 0.1

type AuthFault = GridError.AuthRequired | GridError.AuthUnavailable | GridError.AuthExpired

const make = Effect.gen(function*() {
  const { authGraceMillis, authMillisMax, drainMillisMax, outboundBytesMax, queriesMax, shutdownTimeout } =
    yield* ServerConfig
  const { verify } = yield* Authentication
  const admission = yield* Admission
  const calls = yield* Calls
  const clock = yield* Effect.clock
  const confirmations = yield* Confirmations
  const devices = yield* Devices
  const hlc = yield* Hlc
  const { before, connect, disconnect } = yield* Interception
  const metrics = yield* Metrics
  const partitions = yield* Partitions
  const persistence = yield* Persistence
  const phase = yield* Phase
  const tombstones = yield* Tombstones
  const policies = yield* PermissionPolicy
  const queries = yield* Queries
  const views = yield* Views
  const visits = yield* Visits
  const writeAcks = yield* WriteAcks
  const run = yield* FiberSet.makeRuntime<never, void>()

  const reading = yield* Reading.share
  const outbound = Outbound.share({ drainMillisMax, outboundBytesMax })
  const turns = Turns.make()

  const open = new Set<Session>()
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
    /**
     * What it has was confirmed by another store than this one is, or by this one before it was put back to what it was once: what it has
     * and this one hasn't isn't deleted, it's lost.
     */
    #isOfAnother = false
    /** The age of the grid that the client was told last. */
    #toldAge = 0
    readonly #address: string | undefined
    /** As whom the device was let in, where somebody is to be told that it leaves. */
    #visitor: Visitor | undefined
    #expiring: Fiber.RuntimeFiber<void> | undefined
    #closed = false
    #lastHeard = clock.unsafeCurrentTimeMillis()
    #lastSequence = -1
    #receivedNanos = 0n
    #traceParent: string | undefined
    /** What has come of an atomic batch so far. */
    #parts: ReadonlyArray<typeof Protocol.OpBatch.Type> = []
    #caller: Caller | undefined
    readonly #outbound: Outbound.Outbound
    readonly #reading: Reading.Reading
    readonly #querying: Querying
    /** What came and wasn't looked at yet. */
    #frames: Array<{ readonly frame: Uint8Array; readonly receivedNanos: bigint }> = []
    /** The messages of the frame that is being carried out, and which is next. */
    #inbox: ReadonlyArray<Protocol.ClientMessage> = []
    #inboxAt = 0
    #pumping = false
    #waiting = false
    #halted = false
    readonly #timers = new Set<Fiber.RuntimeFiber<void>>()

    constructor(connection: ServerConnection, address: string | undefined) {
      this.#address = address
      this.#visit = visits.begin(connection, address)
      this.#connection = this.#visit.connection
      this.#seat = admission.enter(address)
      this.#outbound = new Outbound.Outbound({
        connection: this.#connection,
        maySend: () => {
          if (!this.#closed && this.#hasExpired()) this.#expired()
          return !this.#closed
        },
        onStuck: () => this.#cut(),
        onGap: () => metrics.slowReader("resynced"),
        after: (millis, goOn) => this.#after(millis, goOn)
      }, outbound)
      this.#reading = new Reading.Reading({
        subscriber: this,
        send: this.send,
        refuse: (id, fault) => this.#refuse(id, fault),
        outOfPlace: (reason) => this.#outOfPlace(reason),
        guard: (serve) => this.#guard(serve),
        closeGap: (map) => this.#outbound.closeGap(map),
        principal: () => this.#principal,
        nodeId: () => this.#nodeId,
        hasConfirmed: (age) => this.#isOfAnother || confirmations.of(this.#nodeId) >= age
      }, reading)
      this.#querying = new Querying(
        {
          send: this.send,
          put: (page) => {
            if (this.#closed) return
            turns.spend(page.length / bytesPerWork.answers)
            this.#outbound.put(page)
          },
          offer: (page) => {
            if (this.#closed) return true
            turns.spend(workOfEvent + page.length / bytesPerWork.events)
            return this.#outbound.offer(page)
          },
          spend: (work) => turns.spend(work),
          hasRoom: () => this.#outbound.hasRoom,
          whenCaughtUp: (goOn) => this.#outbound.whenCaughtUp(goOn),
          refuse: (id, fault) => this.#refuse(id, fault),
          access: (map) => this.#reading.access(map),
          guard: (serve) => {
            if (!this.#closed) this.#guard(serve)
          }
        },
        queries,
        queriesMax
      )
      this.#watch = run(this.#watching)
    }

    listen(): void {
      this.#connection.listen((frame) => this.#receive(frame), () => this.#end())
    }

    // --- Outbound ---

    readonly send = (message: Protocol.ServerMessage): void => {
      if (this.#closed) return
      const encoded = Protocol.encode(message)
      turns.spend(encoded.length / bytesPerWork.answers)
      this.#outbound.put(encoded)
    }

    readonly push = (event: Uint8Array, map: string): void => {
      if (this.#closed) return
      turns.spend(workOfEvent + event.length / bytesPerWork.events)
      this.#outbound.push(event, map)
    }

    readonly acknowledge = (level: WriteConcern, sequences: ReadonlyArray<number>): void => {
      if (!this.#closed) this.#outbound.acknowledge(level, sequences)
    }

    readonly durable = (sequence: number): void => {
      if (!this.#closed) this.#outbound.durable(sequence)
    }

    readonly unsaved = (failure: GridError.StorageUnavailable | GridError.ShuttingDown): void =>
      this.#fail(
        failure,
        failure._tag === "ShuttingDown" ? Protocol.closeCodes.goingAway : Protocol.closeCodes.overloaded
      )

    /** Ends with the session. */
    #after(millis: number, goOn: () => void): () => void {
      const timer = run(Effect.map(Effect.sleep(millis), () => {
        this.#timers.delete(timer)
        goOn()
      }))
      this.#timers.add(timer)
      return () => {
        this.#timers.delete(timer)
        timer.unsafeInterruptAsFork(FiberId.none)
      }
    }

    /** Bytes on their way to the client. */
    bufferedBytes(): number {
      return this.#outbound.bytes
    }

    /** The client doesn't read: no use in sending it a `Fault`. */
    #cut(): void {
      metrics.slowReader("cut")
      this.#close(Protocol.closeCodes.overloaded, "too slow a reader")
    }

    // --- Inbound ---

    #receive(frame: Uint8Array): void {
      if (this.#closed) return
      this.#lastHeard = clock.unsafeCurrentTimeMillis()
      const limit = this.#authenticated ? Protocol.frameBytesMax : Protocol.frameBytesBeforeAuthMax
      if (frame.length > limit) {
        const fault = new GridError.RecordTooLarge({ what: "message", bytes: frame.length, limit })
        return this.#fail(fault, Protocol.closeCodes.tooLarge)
      }
      this.#frames.push({ frame, receivedNanos: clock.unsafeCurrentTimeNanos() })
      this.#pump()
    }

    /** Carries out the messages that came, as far as it is their turn and there is room for their answers. */
    #pump(): void {
      if (this.#pumping || this.#waiting) return
      if (this.#hasExpired()) return this.#expired()
      this.#pumping = true
      while (!this.#closed && !this.#waiting && (this.#inboxAt < this.#inbox.length || this.#frames.length > 0)) {
        if (turns.isOver()) this.#wait(() => turns.wait(() => this.#resume()))
        else if (this.#inboxAt === this.#inbox.length) this.#unpack()
        else {
          const message = this.#inbox[this.#inboxAt]!
          if (this.#mustWait(message)) break
          this.#inboxAt++
          turns.spend(workOf(message))
          this.#guard(() => this.#handle(message))
        }
      }
      this.#pumping = false
    }

    /** Takes the next frame's messages in. */
    #unpack(): void {
      const { frame, receivedNanos } = this.#frames.shift()!
      this.#receivedNanos = receivedNanos
      this.#inbox = []
      this.#inboxAt = 0
      this.#guard(() => {
        this.#inbox = Protocol.decodeFromClient(frame)
      })
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
      if (this.#outbound.hasRoom) return false
      this.#wait(() => this.#outbound.whenRoom(() => this.#resume()))
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
          if (this.#isLong(message)) return this.#part(message)
          this.#seat.spend(message.ops.length)
          return this.#write(message)
        case "AuthRenew":
          return this.#renew(message)
        case "AuthKept":
          return devices.kept(this.#nodeId, message.secret)
        case "Confirmed":
          if (message.age > this.#toldAge) return this.#outOfPlace("an age of the grid that it wasn't told")
          return confirmations.confirm(this.#nodeId, message.age)
        case "SyncInit":
          return this.#reading.open(message)
        case "SyncBuckets":
          return this.#reading.answer(message, (answers) => ({
            _tag: "SyncBucketsAck",
            id: message.id,
            buckets: answers.buckets(message.nodes, message.lane)
          }))
        case "SyncFetch":
          return this.#reading.answer(message, (answers) => answers.fetch(message.wants, message.after ?? undefined))
        case "SyncPull":
          return this.#reading.answer(message, (answers) => answers.pull(message.node, message.after ?? undefined))
        case "QueryOpen":
          return this.#querying.open(message)
        case "QueryClose":
          return this.#querying.close(message.id)
        case "Call":
          this.#caller ??= calls.open((payload) => this.send({ _tag: "Reply", payload }), () => this.#principal)
          return this.#caller.receive(message.payload)
      }
    }

    #authenticate({ confirmed, nodeId, protocol, secret, token }: typeof Protocol.Auth.Type): void {
      if (this.#authenticated) return this.#outOfPlace("Auth comes once")
      if (!Protocol.supportedVersions.includes(protocol)) {
        return this.#fail(
          new GridError.ProtocolVersionUnsupported({ offered: protocol, supported: Protocol.supportedVersions }),
          Protocol.closeCodes.versionUnsupported
        )
      }
      const letIn = connect === undefined
        ? Effect.suspend(() => verify(token))
        : Effect.tap(
          Effect.suspend(() => verify(token)),
          (principal) => this.#connect({ principal, nodeId, address: this.#address }, connect)
        )
      this.#verify(letIn, (verified) => {
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
        this.#toldAge = tombstones.age()
        this.#isOfAnother = confirmed !== null &&
          (confirmed[0] !== persistence.generation || confirmed[1] > this.#toldAge)
        this.#visit.letIn(nodeId, this.#principal?.userId)
        this.send({
          _tag: "AuthAck",
          protocol,
          secret: given,
          run: partitions.run,
          serverMillis: hlc.wallMillis(),
          generation: persistence.generation,
          age: this.#toldAge,
          durable: persistence.durable,
          userId: this.#principal?.userId ?? null,
          expiresAt: this.#principal?.expiresAt ?? null
        })
      })
    }

    /** A token in the place of the one before: whatever comes of it, nothing else on the connection is touched. */
    #renew({ id, token }: typeof Protocol.AuthRenew.Type): void {
      this.#verify(Effect.suspend(() => verify(token)), (verified) => {
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
        const renewed = this.#reading.beforeRenewal()
        this.#principal = verified.principal
        this.#watchExpiry()
        this.#visit.renewed("accepted")
        this.send({ _tag: "AuthRenewAck", id, expiresAt: this.#principal?.expiresAt ?? null })
        renewed()
        this.#querying.judgeAnew()
      })
    }

    /** Once it has let the device in, it is told when that leaves. */
    #connect(visitor: Visitor, ask: NonNullable<typeof connect>): Effect.Effect<void, AuthFault> {
      return ask(visitor, () => {
        this.#visitor = visitor
        if (this.#closed) this.#disconnect()
      })
    }

    #disconnect(): void {
      const visitor = this.#visitor
      this.#visitor = undefined
      if (visitor !== undefined) disconnect?.(visitor)
    }

    #verify(
      verifying: Effect.Effect<Principal | undefined, AuthFault>,
      then: (
        verified:
          | { readonly _tag: "Success"; readonly principal: Principal | undefined }
          | { readonly _tag: "Failure"; readonly fault: AuthFault }
      ) => void
    ): void {
      if (this.#verifying !== undefined) return this.#outOfPlace("one token at a time")
      let done = false
      const fiber = run(Effect.map(Effect.exit(verifying), (exit) => {
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
      if (!done) this.#verifying = fiber
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
      this.#outbound.clear()
      const fault = new GridError.AuthExpired({ reason: "the token has expired, and no other came" })
      this.#fail(fault, Protocol.closeCodes.authFailed)
    }

    // --- Writes ---

    /** Whether it may take so long that others have to get their turn in the midst of it: nobody knows what a resolver does. */
    #isLong({ atomic, map, ops }: typeof Protocol.OpBatch.Type): boolean {
      if (!partitions.isResolved(map)) return false
      if (atomic === "no" && ops.length > resolvedOperationsMax) return true
      turns.spend(Turns.workMax)
      return false
    }

    /** Puts a message's operations, some at a time, in its place. */
    #part(message: typeof Protocol.OpBatch.Type): void {
      const parts: Array<Protocol.ClientMessage> = []
      for (let at = 0; at < message.ops.length; at += resolvedOperationsMax) {
        parts.push({ ...message, ops: message.ops.slice(at, at + resolvedOperationsMax) })
      }
      this.#inbox = [...parts, ...this.#inbox.slice(this.#inboxAt)]
      this.#inboxAt = 0
    }

    readonly principal = (): Principal | undefined => this.#principal

    readonly nodeId = (): string => this.#nodeId

    readonly accessTo = (map: string): Access | undefined => {
      const access = this.#reading.access(map)
      return access.isWriter && access.reads === "everything" ? undefined : access
    }

    /** Another policy is in force. */
    judgeAnew(): void {
      this.#reading.judgeAnew()
      this.#querying.judgeAnew()
    }

    #write(batch: typeof Protocol.OpBatch.Type): void {
      // `Durable` is cumulative: it would lie about operations that come out of order.
      for (const [sequence] of batch.ops) {
        if (sequence <= this.#lastSequence) {
          return this.#outOfPlace("operations come in the order of their sequence numbers")
        }
        this.#lastSequence = sequence
      }
      if (batch.atomic === "no") return this.#carryOut([batch])
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
      if (batch.atomic === "end") this.#carryOut(parts)
    }

    /** Reads nothing more before interceptors have had their say. */
    #carryOut(batches: ReadonlyArray<typeof Protocol.OpBatch.Type>): void {
      if (before === undefined) return writeAcks.write(batches, this)
      const from = { principal: this.#principal, nodeId: this.#nodeId }
      this.#wait(() => {
        let done = false
        const asking: Fiber.RuntimeFiber<void> = run(
          Effect.map(before(batches, from, (op) => writeAcks.isAnswered(op, this)), (intercepted) => {
            if (done) this.#timers.delete(asking)
            done = true
            if (this.#closed) return
            if (this.#hasExpired()) return this.#expired()
            this.#guard(() => writeAcks.write(batches, this, intercepted))
            this.#resume()
          })
        )
        if (done) return
        done = true
        this.#timers.add(asking)
      })
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
      this.#outbound.send()
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
      this.#outbound.clear()
      this.#frames = []
      this.#inbox = []
      open.delete(this)
      if (sessionOf.get(this.#nodeId) === this) sessionOf.delete(this.#nodeId)
      this.#reading.end()
      this.#querying.end()
      this.#caller?.close()
      this.#seat.leave()
      this.#disconnect()
      for (const fiber of [this.#watch, this.#verifying, this.#expiring, ...this.#timers]) {
        fiber?.unsafeInterruptAsFork(FiberId.none)
      }
    }

    /** Tells how old the grid is, unless something is left out of what came before. */
    checkpoint(age: number, isDue: (nodeId: string) => boolean): void {
      if (!this.#authenticated || this.#outbound.hasGaps || !isDue(this.#nodeId)) return
      this.#toldAge = age
      this.send({ _tag: "Checkpoint", age })
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
      this.#outbound.flush()
      this.#close(Protocol.closeCodes.goingAway, "server going away")
    }
  }

  metrics.watch("connections", () => open.size)
  metrics.watch("liveQueries", queries.size)
  metrics.watch("bufferedBytes", () => {
    let bytes = 0
    for (const session of open) bytes += session.bufferedBytes()
    return bytes
  })

  const stopJudging = policies.observe(() => {
    views.forget()
    queries.forget()
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
    checkpoint: (age, isDue) => {
      for (const session of open) session.checkpoint(age, isDue)
    },
    stop
  })
})

export const layer: Layer.Layer<
  Sessions,
  never,
  | Admission
  | Calls
  | Confirmations
  | Devices
  | Hlc
  | Interception
  | MerkleSync
  | Metrics
  | Partitions
  | Persistence
  | Phase
  | Queries
  | ServerConfig
  | Subscriptions
  | Tombstones
  | Views
  | Visits
  | WriteAcks
> = Layer.scoped(Sessions, make)
