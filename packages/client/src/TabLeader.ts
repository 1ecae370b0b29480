/**
 * The tab that keeps the data of all and speaks with the server for them: each follower gets a copy of every map, every change
 * of it, and what becomes of what it has written.
 *
 * A follower that doesn't keep up isn't written to any more; when it has taken in what it was sent, it begins anew.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import type { Live } from "./Live.ts"
import { pageCells } from "./Mirror.ts"
import type { Pending } from "./Outbox.ts"
import type { Replica } from "./Replica.ts"
import type { SyncStatus } from "./Reports.ts"
import { Signal } from "./Signal.ts"
import { TabQueries } from "./TabQueries.ts"
import type { SyncEngine } from "./SyncEngine.ts"
import * as Messages from "./TabMessages.ts"
import type { Tabs } from "./Tabs.ts"

/** Messages with cells that a follower may leave untaken. Each is of 500 cells at most. */
const untakenMax = 64
/** Changed cells that followers are sent in one turn of the event loop. */
const turnCells = 4 * pageCells
/** How long changes of the status are gathered, in ms. */
const reportMillis = 20

interface Session {
  readonly send: (message: Messages.FromLeader) => void
  readonly close: () => void
  /** What of the snapshot is still to be pulled; undefined while the follower isn't written to. */
  pages: ReturnType<Replica["Type"]["mirror"]["snapshot"]> | undefined
  /** Messages of changed cells that weren't taken in yet. The one that was too many counts, though it wasn't sent. */
  untaken: number
  /** What has come of its operations so far, by their numbers, until they have ended. */
  readonly taken: Map<number, Pending>
  /** Its queries; undefined while it isn't written to. */
  queries: TabQueries | undefined
}

export interface Options {
  readonly tabs: Tabs
  /** Of the channel of all. */
  readonly name: string
  readonly leader: Messages.Leader
  readonly replica: Replica["Type"]
  readonly engine: SyncEngine["Type"]
  readonly status: Live<SyncStatus>
}

/** Serves followers as long as the scope is: those whose greeting the answered `hello` was told of. */
export const serve = Effect.fnUntraced(function*({ engine, leader, name, replica, status, tabs }: Options) {
  const { mirror, outbox } = replica
  const sessions = new Map<string, Session>()
  const run = yield* FiberSet.makeRuntime<never>()

  const sendAll = (message: Messages.FromLeader): void => {
    for (const { send } of sessions.values()) send(message)
  }

  // --- Cells ---

  /** By map, the cells that followers are still to be told of: as they are when it comes to it. */
  const dirty = new Map<string, Set<string>>()
  const isDirty = new Signal()
  const onCell = (map: string, cell: string): void => {
    if (sessions.size === 0) return
    const cells = dirty.get(map)
    if (cells === undefined) dirty.set(map, new Set([cell]))
    else cells.add(cell)
    isDirty.notify()
  }
  /** The next changed cells of one map. */
  const takeDirty = (): { readonly map: string; readonly cells: ReadonlyArray<string> } | undefined => {
    for (const [map, all] of dirty) {
      const cells: Array<string> = []
      for (const cell of all) {
        if (cells.length === pageCells) return { map, cells }
        cells.push(cell)
        all.delete(cell)
      }
      dirty.delete(map)
      return { map, cells }
    }
    return undefined
  }
  const sendDirty = Effect.gen(function*() {
    yield* isDirty.until(() => dirty.size > 0)
    for (let sent = 0; sent < turnCells;) {
      const page = takeDirty()
      if (page === undefined) return
      sent += page.cells.length
      const { map } = page
      const message: Messages.FromLeader = {
        _tag: "Cells",
        map,
        kind: replica.map(map)!.kind,
        isPage: false,
        cells: Messages.toPlain(page.cells.map((cell) => mirror.stateOf(map, cell)))
      }
      for (const session of sessions.values()) sendCells(session, message)
    }
    // The event loop has a turn before more are sent.
    yield* Effect.sleep(0)
  }).pipe(Effect.forever)

  const sendCells = (session: Session, message: Messages.FromLeader): void => {
    if (session.pages === undefined) return
    session.untaken++
    // It begins anew when it has taken in those before.
    if (session.untaken > untakenMax) session.pages = undefined
    else session.send(message)
    if (session.pages === undefined) endQueries(session)
  }
  const endQueries = (session: Session): void => {
    session.queries?.end()
    session.queries = undefined
  }
  const begin = (session: Session): void => {
    session.untaken = 0
    session.pages = mirror.snapshot()
    session.send({ _tag: "Welcome" })
    session.send({ _tag: "Rejected", writes: replica.rejected.list.current })
    session.send({ _tag: "Report", report: report() })
    endQueries(session)
    session.queries = new TabQueries(engine, {
      onLine: (isOpen) => session.send({ _tag: "Line", isOpen }),
      onAnswer: (answer) => {
        const message: Messages.FromLeader = { _tag: "Answered", answer: Messages.plainAnswer(answer) }
        if (answer._tag === "QueryRows") sendCells(session, message)
        else session.send(message)
      }
    })
  }
  const pull = ({ pages, send }: Session): void => {
    if (pages === undefined) return
    const next = pages.next()
    if (next.done === true) return send({ _tag: "Mirrored" })
    const { cells, kind, map } = next.value
    send({ _tag: "Cells", map, kind, isPage: true, cells: Messages.toPlain(cells) })
  }

  // --- What becomes of a follower's operations ---

  /** Whose operations an operation of this tab is: their sessions, and the numbers that they have there. */
  const relayed = new Map<Pending, Map<Session, Set<number>>>()
  const outcomeOf = ({ outcome, stage }: Pending): Omit<Messages.OutcomeOf, "sequence"> | undefined => {
    if (outcome === undefined) return undefined
    if (outcome._tag === "Right") return { reached: { ...outcome.right, isFinal: stage === "ended" } }
    const failure = outcome.left
    const [cause, reason] = failure._tag === "WriteRejected"
      ? [failure.cause, failure.reason]
      : [failure._tag, failure.message]
    return { failed: { tag: failure._tag, cause, reason } }
  }
  const tell = (operation: Pending, to: ReadonlyMap<Session, ReadonlySet<number>>): void => {
    const outcome = outcomeOf(operation)
    if (outcome === undefined) return
    for (const [{ send }, sequences] of to) {
      send({ _tag: "Outcomes", outcomes: Array.from(sequences, (sequence) => ({ sequence, ...outcome })) })
    }
  }
  const relay = (operation: Pending, session: Session, sequence: number): void => {
    let to = relayed.get(operation)
    if (to === undefined) {
      to = new Map()
      relayed.set(operation, to)
    }
    const sequences = to.get(session)
    if (sequences === undefined) to.set(session, new Set([sequence]))
    else sequences.add(sequence)
  }
  const onOutcome = (operation: Pending): void => {
    const to = relayed.get(operation)
    if (to === undefined) return
    const { stage, successor } = operation
    if (stage === "ended") relayed.delete(operation)
    if (stage === "ended" && successor === undefined) {
      for (const [{ taken }, sequences] of to) for (const sequence of sequences) taken.delete(sequence)
    }
    if (successor === undefined) return tell(operation, to)
    for (const [session, sequences] of to) for (const sequence of sequences) relay(successor, session, sequence)
  }

  const take = (session: Session, id: number, plain: ReadonlyArray<Messages.PlainOperation>): void => {
    const stored = (refusal?: string): void => session.send({ _tag: "Stored", id, refusal })
    const forwarded = plain.map(Messages.operationFromPlain)
    // It begins anew, or didn't hear of it: what is here may have another stamp meanwhile.
    const known = forwarded.map(({ cell, map, record, sequence }) =>
      session.taken.get(sequence) ?? outbox.pendingOf(map, cell, record)
    )
    const unknown = forwarded.filter((_, i) => known[i] === undefined)
    if (!outbox.hasPlaces(unknown.length)) {
      return stored(`${outbox.size()} writes of all tabs wait for the server, and there is room for ${outbox.capacity}`)
    }
    const taken = mirror.takeIn(unknown)
    let next = 0
    forwarded.forEach(({ sequence }, i) => {
      const operation = known[i] ?? taken.operations[next++]!
      session.taken.set(sequence, operation)
      if (operation.stage !== "ended") relay(operation, session, sequence)
      if (operation.stage !== "line") tell(operation, new Map([[session, new Set([sequence])]]))
    })
    run(Effect.match(Effect.suspend(() => taken.stored), {
      onFailure: (fault) => stored(fault.message),
      onSuccess: () => stored()
    }))
  }

  // --- How it stands ---

  const report = (): Messages.Report => ({
    status: status.current,
    maps: replica.followed().map((map) => [map, engine.mapStatus(map)])
  })
  const isOther = new Signal()
  let reported = 0
  const sendReports = Effect.gen(function*() {
    yield* isOther.until(() => isOther.version !== reported)
    yield* Effect.sleep(reportMillis)
    reported = isOther.version
    if (sessions.size > 0) sendAll({ _tag: "Report", report: report() })
  }).pipe(Effect.forever)

  // --- Requests ---

  const requests: { readonly [What in Messages.Request]: Effect.Effect<void> } = {
    connect: engine.connect,
    disconnect: engine.disconnect,
    reset: engine.resetConnection,
    synced: engine.synced
  }

  const receive = (tab: string, session: Session, message: Messages.FromFollower): void => {
    switch (message._tag) {
      case "Join":
        return begin(session)
      case "Pull":
        return pull(session)
      case "Taken":
        session.untaken--
        // All that was sent is taken: one is left, which wasn't.
        if (session.pages === undefined && session.untaken <= 1) begin(session)
        return
      case "Forward":
        return take(session, message.id, message.operations)
      case "Open":
        return replica.openFor(message.map, message.kind, message.isFollowed)
      case "Ask":
        return void run(Effect.onExit(requests[message.what], (exit) =>
          Effect.sync(() => {
            if (Exit.isFailure(exit)) return
            // What was waited for is seen by who asked.
            session.send({ _tag: "Report", report: report() })
            session.send({ _tag: "Answer", id: message.id })
          })))
      case "Token":
        return engine.giveToken(message.token)
      case "TakeRejected":
        return void replica.rejected.take(message.id)
      case "Question":
        return session.queries?.ask(message.question)
      case "Call":
        return void engine.call(message.payload)
      case "Ping":
        return session.send({ _tag: "Pong" })
      case "Bye": {
        sessions.delete(tab)
        for (const to of relayed.values()) to.delete(session)
        endQueries(session)
        return session.close()
      }
    }
  }

  const stops = [
    replica.observe({
      onCell,
      onOutcome,
      onChange: () => {
        isOther.notify()
        if (replica.isGone()) sendAll({ _tag: "Gone" })
      }
    }),
    engine.state.subscribe(() => isOther.notify()),
    engine.observe(() => isOther.notify(), () => {}),
    status.subscribe(() => isOther.notify()),
    replica.rejected.list.subscribe((writes) => sendAll({ _tag: "Rejected", writes })),
    engine.onReply((payload) => sendAll({ _tag: "Reply", payload }))
  ]
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      stops.forEach((stop) => stop())
      sendAll({ _tag: "Over" })
      for (const session of sessions.values()) {
        endQueries(session)
        session.close()
      }
      sessions.clear()
    })
  )
  yield* Effect.forkScoped(sendDirty)
  yield* Effect.forkScoped(sendReports)

  return {
    /** A follower says hello: it is listened to from now on, and begins. */
    hello: (tab: string): Messages.Announcement => {
      if (!sessions.has(tab)) {
        const channel = tabs.join(Messages.channelOf(name, leader.name, tab), (message) => {
          if (sessions.get(tab) === session) receive(tab, session, message as Messages.FromFollower)
        })
        const session: Session = {
          send: channel.send,
          close: channel.close,
          pages: undefined,
          untaken: 0,
          taken: new Map(),
          queries: undefined
        }
        sessions.set(tab, session)
      }
      return { _tag: "Serving", tab, leader }
    }
  }
})

export type Service = Effect.Effect.Success<ReturnType<typeof serve>>
