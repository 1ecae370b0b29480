/**
 * Keeps this device and a server in step: connect → authenticate → reconcile → drain → follow, again after each failure
 * that a retry can mend.
 *
 * What arrives is handled synchronously, frame by frame, without a fiber; what goes out in one tick goes in one frame.
 */
import type { Backoff } from "@topgun/core/Backoff"
import {
  AuthExpired,
  AuthRequired,
  AuthUnavailable,
  AuthUserChanged,
  ConnectionLost,
  MalformedMessage,
  NodeIdConflict,
  ProtocolVersionUnsupported,
  RequestTimeout,
  Stalled
} from "@topgun/core/GridError"
import { Hlc } from "@topgun/core/Hlc"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import { MerkleSync } from "@topgun/core/MerkleSync"
import { PartitionRouter } from "@topgun/core/PartitionRouter"
import * as Protocol from "@topgun/core/Protocol"
import { driftMillisMax, millisMax } from "@topgun/core/Timestamp"
import { type Connection, Transport } from "@topgun/core/Transport"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
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
import { notifyAll, Observable } from "./Live.ts"
import * as MapSync from "./MapSync.ts"
import type { NetworkEvents } from "./NetworkEvents.ts"
import { chunksOf, messagesOf } from "./OpBatches.ts"
import type { Pending } from "./Outbox.ts"
import { type Answer, answerMillisMax } from "./Questions.ts"
import * as Questions from "./Questions.ts"
import { type Asker, Lines } from "./QueryLine.ts"
import { Replica } from "./Replica.ts"
import type { MapStatus } from "./Reports.ts"
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

/** How long it may take after an event of the network until something is heard, in ms. */
const checkMillis = 5_000
/** What the network's events bring forward isn't tried more often than this, in ms: they may come many a second. */
const triesMillisMin = 1_000
/** The longest that a server that stops may keep a client away for, in ms. */
const comeBackMillisMax = 300_000
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
  const lines = new Lines()
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
  /** How long the server of the present connection, which is stopping, wants to be left alone. */
  let comeBackMillis: number | undefined
  /** Something happened that makes a try, or a look at the connection, worth while. */
  const awakened = new Signal()
  let sendNow: ((message: Protocol.ClientMessage) => void) | undefined

  const listeners = new Set<() => void>()
  const changed = (): void => {
    for (const listener of listeners) listener()
  }

  const mapSync = MapSync.make(replica, sync, {
    onFault,
    onChange: () => {
      changed()
      progress.notify()
    }
  })

  const move = (event: SyncState.SyncEvent): void => {
    const next = SyncState.next(state.current, event)
    if (next === undefined) throw new Error(`There is no way by "${event}" from ${state.current}`)
    state.set(next)
  }

  /** Whether the server has all operations before `bound`, and this device all that the server opens to it. */
  const isInStep = (bound: number): boolean =>
    state.current === "CONNECTED" && outbox.isDrained(bound) && mapSync.areAllSynced()

  // --- One connection ---

  const session = Effect.gen(function*() {
    beats = 0
    comeBackMillis = undefined
    credentialVersion = credentials.version()
    if (!network.isOnline()) return yield* new ConnectionLost({ reason: "this device is offline" })
    // Before the connection is open: the server doesn't wait long for it then.
    const token = yield* credentials.next
    const connection: Connection = yield* transport.connect(router.ownerOf(0))
    move("opened")
    const ended = Deferred.unsafeMake<never, SessionFailure>(FiberId.none)
    const authenticated = Deferred.unsafeMake<Answer<"AuthAck">, SessionFailure>(FiberId.none)
    /** How long nothing was heard, in ms, counted by the heartbeat: the wall clock may be set back. */
    let silentMillis = 0
    /** Frames that came. */
    let heard = 0
    let isLetIn = false
    /** The last operation that was sent: their numbers only grow on a connection. */
    let lastSent = -1
    /** An age of the grid to be confirmed, and up to which operation the server is to have everything before. */
    let unconfirmed: { readonly age: number; readonly bound: number } | undefined
    let expiresAt: number | null = null
    const expired = new Signal()
    let isExpired = false
    let durable = true
    let maps: ReturnType<typeof mapSync.over> | undefined
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

    const questions = Questions.make(send)

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
    const receive = (message: Protocol.ServerMessage): void => {
      // What says that it's an answer of this connection would be taken for one to what others have sent.
      if (!isLetIn && message._tag !== "AuthAck" && message._tag !== "Fault") outOfPlace(message._tag)
      switch (message._tag) {
        case "AuthAck":
          if (isLetIn) outOfPlace("a second AuthAck")
          checkTime(message.serverMillis)
          isLetIn = true
          durable = message.durable
          maps = mapSync.over(questions, message.run)
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
          return questions.answered(message.id, message)
        case "ServerEvent": {
          const isWhole = maps!.event(message)
          if (isWhole === undefined) unasked(`sends records of map "${message.map}", which isn't open here`)
          // The server has just taken it by its own clock. Only the next tree walk brings it again.
          else if (!isWhole) mistimed("a record of now is from beyond its bound")
          return
        }
        case "Checkpoint":
          unconfirmed = { age: message.age, bound: outbox.nextSequence() }
          return progress.notify()
        case "GcPrune":
          if (!maps!.prune(message)) unasked(`forgets deletions in map "${message.map}", which isn't open here`)
          return
        case "SyncAgain":
          if (!maps!.again(message)) unasked(`has left out records of map "${message.map}", which isn't open here`)
          return mapOpened.notify()
        case "Withdraw":
          if (!maps!.withdraw(message)) {
            unasked(`withdraws records of map "${message.map}", which isn't a partial one here`)
          }
          return
        case "GoingAway":
          comeBackMillis = Math.min(message.retryMillis, comeBackMillisMax)
          return
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
          lines.hear(message)
          const error = isCorrected ? errorOf(message.serverMillis) : undefined
          return error === undefined ? undefined : mistimed(`the server's is ${error} ms later`)
        }
        case "QueryAck":
        case "QueryRows":
          return lines.hear(message)
        case "Reply":
          return notifyAll(Array.from(replies), message.payload, onFault)
        case "Fault":
          if (message.id === null) fault = faultOf(replica.nodeId(), message)
          else {
            questions.answered(message.id, message)
            lines.hear(message)
          }
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

    const ping = (): void => {
      if (isLetIn) send({ _tag: "Ping", id: questions.id() })
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
      const ack = yield* questions.ask("AuthRenewAck", (id) => ({ _tag: "AuthRenew", id, token: renewed }))
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
      // A counter's totals go on from what is stored: what was sent of them, and then lost here, would be counted over. Where
      // storage fails, having them sent is the better chance.
      if (operations.some(({ kind, offered }) => kind === "counter" && !offered)) {
        yield* Effect.ignore(replica.journal.flush)
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
      yield* mapOpened.until(() => mapSync.next() !== undefined)
      const map = mapSync.next()
      if (map !== undefined) yield* maps!.reconcile(map)
    }).pipe(Effect.forever)

    const work = Effect.gen(function*() {
      send({
        _tag: "Auth",
        protocol: Protocol.version,
        nodeId: replica.nodeId(),
        secret: replica.secret(),
        token,
        confirmed: replica.confirmed()
      })
      const hello = yield* Deferred.await(authenticated).pipe(
        Effect.timeoutFail({
          duration: answerMillisMax,
          onTimeout: () => new RequestTimeout({ request: "Auth", afterMillis: answerMillisMax })
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
      lines.open({ id: questions.id, send })

      unconfirmed = { age: hello.age, bound: outbox.nextSequence() }
      // Who keeps nothing never comes back with it, and nothing needs to be remembered for him.
      if (replica.storageDurable()) yield* Effect.forkScoped(confirmations(hello.generation))
      return yield* Effect.raceFirst(renewals, synchronise)
    })

    /** Tells the server what is stored here, so that deletions needn't be remembered for this device. */
    const confirmations = (generation: string) =>
      Effect.gen(function*() {
        yield* progress.until(() => unconfirmed !== undefined && isInStep(unconfirmed.bound) && maps!.isComplete())
        const { age } = unconfirmed!
        unconfirmed = undefined
        if (yield* replica.confirm(generation, age)) send({ _tag: "Confirmed", age })
      }).pipe(Effect.forever)

    const synchronise = Effect.gen(function*() {
      const unanswered = outbox.resend()
      const bound = outbox.nextSequence()
      yield* Effect.forEach(replica.followed(), maps!.reconcile, { concurrency: mapsAtOnce, discard: true })
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
        lines.close()
        mapSync.end()
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
          comeBackMillis === undefined
            ? Effect.match(backoff.next(failure), { onFailure: () => true, onSuccess: () => false })
            : Effect.as(Effect.sleep(comeBackMillis), false),
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
     * Waits until the server has all that was written here before the call, and this device all that the server opens to it. Is
     * interrupted when the client closes.
     */
    synced: Effect.suspend(() => {
      const bound = outbox.nextSequence()
      return Effect.flatMap(
        progress.until(() => closed || isInStep(bound)),
        () => closed ? Effect.interrupt : Effect.void
      )
    }),
    skewMillis: () => skewMillis,
    /** How a map stands with the server. */
    mapStatus: (map: string): MapStatus => ({
      isSynced: mapSync.isSynced(map),
      hasSynced: replica.mark(map) !== undefined,
      refusal: mapSync.refusalOf(map)
    }),
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
    /** Has somebody ask queries of the server, on each connection, until the returned function is called. */
    asks: (asker: Asker): () => void => lines.add(asker),
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
