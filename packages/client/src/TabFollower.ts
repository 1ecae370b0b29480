/** A tab that another one keeps the data of: its copies are the leader's, and what is written here goes to it. */
import { type StorageFailure, StorageSuperseded, StorageUnavailable } from "@topgun/core/GridError"
import type { StorageWrite } from "@topgun/core/Storage"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as FiberSet from "effect/FiberSet"
import * as Random from "effect/Random"
import { spaces } from "./Journal.ts"
import * as Outbox from "./Outbox.ts"
import type { Replica } from "./Replica.ts"
import type { Answer, Line } from "./QueryLine.ts"
import * as Messages from "./TabMessages.ts"
import type { TabChannel, Tabs } from "./Tabs.ts"

/** A leader that wasn't heard for so long is asked for a sign of life, in ms. */
const quietMillis = 1_000
/** How long it has for it, the first time and, as this tab may have slept itself, once more. */
const signMillis = [1_000, 750] as const

/** Who takes the place of a silent leader does so within so many ms, at a time of its own. */
const spreadMillis = 400

/** What the leader had no room for is offered again after so many ms. */
const retryMillis = 1_000

/** Why a tab has nobody to follow: there is no sign of life from any leader, or the leader has logged the user out. */
export type Ending = "silent" | "gone"

export interface Options {
  readonly tabs: Tabs
  /** Of the channel of all. */
  readonly name: string
  /** This tab's own. */
  readonly tab: string
  readonly replica: Replica["Type"]
  readonly now: () => number
  /** The greatest term that this tab has heard of. */
  readonly term: () => number
  readonly onTerm: (term: number) => void
  readonly onReport: (report: Messages.Report) => void
  readonly onReply: (payload: Uint8Array) => void
  readonly onLine: (line: Line | undefined) => void
  readonly onAnswer: (answer: Answer) => void
}

/** The write of a follower is stored by nobody yet: another tab is about to keep it. */
const superseded = new StorageSuperseded({ reason: "the tabs of this browser have another leader" })

/** Follows whoever leads, as long as the scope is. */
export const follow = Effect.fnUntraced(function*(options: Options) {
  const { name, now, replica, tab, tabs } = options
  const { mirror, outbox } = replica
  const run = yield* FiberSet.makeRuntime<never>()
  const ended = Deferred.unsafeMake<Ending>(FiberId.none)
  const mirrored = Deferred.unsafeMake<void>(FiberId.none)
  const end = (ending: Ending): void => Deferred.unsafeDone(ended, Exit.succeed(ending))
  let heardAt = now()
  let isWelcome = false
  let ids = 0
  let isOver = false
  /** The cells that are here since the beginning, pulled or told of, by map: what else is here goes when all were pulled. */
  let pulled: Map<string, Set<string>> | undefined
  /** What was forwarded, or will be at the next beginning, and isn't known to be stored. */
  interface Forwarding {
    readonly sequences: ReadonlyArray<number>
    /** Those who wait for it. */
    readonly stored: ReadonlyArray<Deferred.Deferred<void, StorageFailure>>
  }
  const forwarding = new Map<number, Forwarding>()
  const asked = new Map<
    number,
    { readonly what: Messages.Request; readonly answered: Deferred.Deferred<void, StorageSuperseded> }
  >()

  const send = (message: Messages.FromFollower): void => channel?.send(message)

  const plainOf = (operation: Outbox.Pending | Outbox.StoredOperation): Messages.PlainOperation => {
    const { batch, concern, kind, map, record, sequence, since } = operation
    return {
      sequence,
      map,
      kind,
      concern,
      since,
      key: Outbox.keyOf(operation),
      row: record.row.slice(),
      batch: batch?.first === sequence ? batch.last - batch.first + 1 : 0
    }
  }

  const forward = (operations: ReadonlyArray<Messages.PlainOperation>, stored: Forwarding["stored"]): void => {
    const id = ids++
    forwarding.set(id, { sequences: operations.map(({ sequence }) => sequence), stored })
    if (isWelcome) send({ _tag: "Forward", id, operations })
  }

  const forwardUnsettled = (waiting: Forwarding["stored"]): void => {
    const unsettled = Array.from(outbox.entries()).sort((a, b) => a.sequence - b.sequence).map(plainOf)
    if (unsettled.length + waiting.length > 0) forward(unsettled, waiting)
  }
  const forwardAgain = (): void => {
    if (isWelcome && !isOver) forwardUnsettled([])
  }

  /**
   * Another leader, or the same one anew: it is told all that it may not know. What it knows of that it takes for what it is, by
   * the records.
   */
  const begin = (): void => {
    isWelcome = true
    pulled = new Map()
    for (const [map, { isFollowed, kind }] of replica.opened()) send({ _tag: "Open", map, kind, isFollowed })
    const waiting = Array.from(forwarding.values()).flatMap(({ stored }) => stored)
    forwarding.clear()
    forwardUnsettled(waiting)
    for (const [id, { what }] of asked) send({ _tag: "Ask", id, what })
    send({ _tag: "Pull" })
  }

  const receive = (message: Messages.FromLeader): void => {
    heardAt = now()
    switch (message._tag) {
      case "Welcome":
        return begin()
      case "Cells": {
        const { kind, map } = message
        const states = Messages.fromPlain(map, kind, message.cells)
        mirror.assign(map, kind, states)
        if (pulled !== undefined) {
          const cells = pulled.get(map) ?? new Set()
          pulled.set(map, cells)
          for (const { cell, live } of states) {
            if (live === undefined) cells.delete(cell)
            else cells.add(cell)
          }
        }
        return send({ _tag: message.isPage ? "Pull" : "Taken" })
      }
      case "Mirrored":
        // Asked for by a pull of before the beginning.
        if (pulled === undefined) return
        for (const map of replica.mapNames()) mirror.retain(map, pulled.get(map) ?? new Set())
        pulled = undefined
        return Deferred.unsafeDone(mirrored, Exit.void)
      case "Stored": {
        const forwarded = forwarding.get(message.id)
        if (forwarded === undefined) return
        forwarding.delete(message.id)
        const { refusal } = message
        if (refusal === undefined) outbox.kept(forwarded.sequences)
        // The journal makes its own again.
        else if (forwarded.stored.length === 0) {
          run(Effect.zipRight(Effect.sleep(retryMillis), Effect.sync(forwardAgain)))
        }
        const outcome = refusal === undefined
          ? Exit.void
          : Exit.fail(new StorageUnavailable({ reason: `the leading tab: ${refusal}` }))
        for (const each of forwarded.stored) Deferred.unsafeDone(each, outcome)
        return
      }
      case "Outcomes": {
        for (const { failed, reached, sequence } of message.outcomes) {
          if (reached !== undefined) outbox.acknowledged([sequence], reached.level, reached.replicas, reached.isFinal)
          else if (failed?.tag === "WriteDropped") outbox.droppedElsewhere(sequence)
          else if (failed !== undefined) outbox.rejected(sequence, failed.cause, failed.reason)
        }
        return
      }
      case "Report":
        return options.onReport(message.report)
      case "Rejected":
        return replica.rejected.assign(message.writes)
      case "Answer": {
        const answered = asked.get(message.id)?.answered
        asked.delete(message.id)
        if (answered !== undefined) Deferred.unsafeDone(answered, Exit.void)
        return
      }
      case "Reply":
        return options.onReply(message.payload)
      case "Line":
        return options.onLine(
          message.isOpen
            ? { id: () => ids++, send: (question) => send({ _tag: "Question", question }) }
            : undefined
        )
      case "Answered": {
        options.onAnswer(message.answer)
        if (message.answer._tag === "QueryRows") send({ _tag: "Taken" })
        return
      }
      case "Pong":
        return
      case "Over":
        options.onLine(undefined)
        isWelcome = false
        leader = undefined
        return
      case "Gone":
        return end("gone")
    }
  }

  let channel: TabChannel | undefined
  /** The leader that is listened to. */
  let leader: string | undefined
  const join = (next: string): void => {
    if (next === leader && isWelcome) return
    channel?.close()
    leader = next
    isWelcome = false
    channel = tabs.join(Messages.channelOf(name, next, tab), (message) => {
      if (!isOver && leader === next) receive(message as Messages.FromLeader)
    })
    send({ _tag: "Join" })
  }
  const everyone = tabs.join(name, (message) => {
    const announced = message as Messages.Announcement
    if (isOver) return
    if (announced._tag === "LoggedOut") return end("gone")
    if (announced._tag === "Leading") {
      if (announced.leader.term >= options.term()) hello()
      return
    }
    if (announced._tag === "Hello" || announced.tab !== tab) return
    if (announced._tag === "Serving") {
      if (announced.leader.term < options.term()) return
      options.onTerm(announced.leader.term)
      join(announced.leader.name)
    }
    heardAt = now()
  })
  const hello = (): void => everyone.send({ _tag: "Hello", tab } satisfies Messages.Announcement)

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      isOver = true
      options.onLine(undefined)
      send({ _tag: "Bye" })
      channel?.close()
      everyone.close()
      for (const { stored } of forwarding.values()) {
        for (const each of stored) Deferred.unsafeDone(each, Exit.fail(superseded))
      }
      for (const { answered } of asked.values()) Deferred.unsafeDone(answered, Exit.fail(superseded))
    })
  )

  const isHeard = Effect.fnUntraced(function*(withinMillis: number) {
    const before = heardAt
    if (isWelcome) send({ _tag: "Ping" })
    else hello()
    yield* Effect.sleep(withinMillis)
    return heardAt !== before
  })
  const watch = Effect.gen(function*() {
    while (true) {
      yield* Effect.sleep(quietMillis)
      if (now() - heardAt < quietMillis) continue
      if (yield* isHeard(signMillis[0])) continue
      // Of all who find it silent one is the first to take its place, and the others hear of that.
      if (yield* isHeard(signMillis[1] + (yield* Random.nextIntBetween(0, spreadMillis)))) continue
      return end("silent")
    }
  })
  const stopWatching = replica.observe({
    onTaken: (id) => send({ _tag: "TakeRejected", id }),
    onMapOpened: (map) => {
      const known = replica.opened().get(map)
      if (isWelcome && known !== undefined) send({ _tag: "Open", map, ...known })
    }
  })
  const stopHearing = tabs.subscribe((event) => {
    if (event === "resumed") return hello()
    // What it would be told meanwhile would only pile up.
    send({ _tag: "Bye" })
    isWelcome = false
    leader = undefined
  })
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      stopWatching()
      stopHearing()
    })
  )
  hello()
  yield* Effect.forkScoped(watch)

  return {
    /** Why this tab ceases to follow. */
    ended: Deferred.await(ended),
    /** Resolves when everything is here that the leader has. */
    mirrored: Deferred.await(mirrored),
    /** Stores operations among these rows, by way of the leader; all else is the leader's affair. */
    commit: (writes: ReadonlyArray<StorageWrite>): Effect.Effect<void, StorageFailure> =>
      Effect.suspend(() => {
        const operations: Array<Messages.PlainOperation> = []
        for (const { key, space, value } of writes) {
          const operation = space === spaces.outbox && value !== undefined ? Outbox.decode(key, value) : undefined
          if (operation !== undefined) operations.push(plainOf(operation))
        }
        // With nothing of its own to store it waits for what is on its way, as who flushes asks for that.
        if (operations.length === 0 && forwarding.size === 0) return Effect.void
        if (isOver) return superseded
        const stored = Deferred.unsafeMake<void, StorageFailure>(FiberId.none)
        forward(operations.sort((a, b) => a.sequence - b.sequence), [stored])
        return Deferred.await(stored)
      }),
    /** Has the leader do something; fails when it is the leader no more. */
    ask: (what: Messages.Request): Effect.Effect<void, StorageSuperseded> =>
      Effect.suspend((): Effect.Effect<void, StorageSuperseded> => {
        const id = ids++
        const answered = Deferred.unsafeMake<void, StorageSuperseded>(FiberId.none)
        if (isOver) return superseded
        asked.set(id, { what, answered })
        if (isWelcome) send({ _tag: "Ask", id, what })
        return Effect.onInterrupt(Deferred.await(answered), () => Effect.sync(() => asked.delete(id)))
      }),
    send: (message: Messages.FromFollower): void => {
      if (isWelcome) send(message)
    }
  }
})

export type Following = Effect.Effect.Success<ReturnType<typeof follow>>
