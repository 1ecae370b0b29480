/**
 * One leader among a browser's tabs: who holds a lock keeps the data of all in the storage that they share, and speaks with
 * the server. When it ends, the next in line takes over; when it shows no sign of life, a follower takes the lock away from
 * it. A leader that is put to sleep by the browser gives it up by itself.
 *
 * Storage has an owner of its own, so that a leader which doesn't know yet that it's none any more changes nothing in it.
 */
import { type StorageFailure, StorageSuperseded, StorageUnavailable } from "@topgun/core/GridError"
import { makeNodeId } from "@topgun/core/Hlc"
import type { OpenStorage, Storage } from "@topgun/core/Storage"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Live } from "./Live.ts"
import type { Replica } from "./Replica.ts"
import type { SyncStatus } from "./Reports.ts"
import { Signal } from "./Signal.ts"
import type { SyncEngine } from "./SyncEngine.ts"
import type * as TabEngine from "./TabEngine.ts"
import * as TabFollower from "./TabFollower.ts"
import * as TabLeader from "./TabLeader.ts"
import * as Messages from "./TabMessages.ts"
import type { TabLock, Tabs } from "./Tabs.ts"

/** How this tab stands to the others: `only` where it knows of none. */
export type TabRole = "only" | "leader" | "follower"

/** How long who has lost its storage waits to hear why, in ms: the news that the lock is another's may come later. */
const newsMillis = 2_000
/** How long a new leader waits before it tries again to open storage, in ms. */
const retryMillis = 1_000

/** How long a follower that is closed waits for the leader to store what was written last, in ms. */
const closingMillis = 2_000

type Phase =
  /** Until it's known which tab leads: there is nothing to read or to store. */
  | { readonly _tag: "Beginning" }
  /** It owns the storage, and is the leader once it is `ready`: once it has read it. */
  | { readonly _tag: "Leading"; readonly storage: OpenStorage; readonly isReady: boolean }
  | { readonly _tag: "Following"; readonly following: TabFollower.Following }
  /** Between two roles. */
  | { readonly _tag: "Changing" }

/** This tab's part. */
export class TabCoordinator extends Context.Tag("@topgun/client/TabCoordinator")<TabCoordinator, {
  readonly role: () => TabRole
  /** What the leader has told last; undefined where this tab follows none. */
  readonly report: () => Messages.Report | undefined
}>() {}

/** A tab that knows of no others. */
export const alone = TabCoordinator.of({ role: () => "only", report: () => undefined })

const closed = new StorageUnavailable({ reason: "this tab is closed" })
const superseded = new StorageSuperseded({ reason: "the tabs of this browser have another leader" })

/** The part of a tab in whatever has the storage in common with it. */
export const make = Effect.fnUntraced(
  function*(tabs: Tabs, source: Storage["Type"], onFault: (fault: unknown) => void) {
    const clock = yield* Effect.clock
    const now = () => clock.unsafeCurrentTimeMillis()
    const name = Messages.nameOf(source.name)
    const tab = yield* makeNodeId

    let phase: Phase = { _tag: "Beginning" }
    let report: Messages.Report | undefined
    let isClosed = false
    /** The user was logged out: this tab has nothing left to keep, nor to follow. */
    let isOver = false
    const phaseChanged = new Signal()
    const become = (next: Phase): void => {
      phase = next
      phaseChanged.notify()
    }
    const isLeader = (): boolean => phase._tag === "Leading" && phase.isReady
    /** Waits until this tab has a role. */
    const settled = phaseChanged.until(() => isLeader() || phase._tag === "Following" || isClosed || isOver)

    // --- Storage, by role ---

    const storage: OpenStorage = {
      get kind() {
        return phase._tag === "Leading" ? phase.storage.kind : source.kind
      },
      get durable() {
        return phase._tag === "Leading" ? phase.storage.durable : source.durable
      },
      get fault() {
        return phase._tag === "Leading" ? phase.storage.fault : undefined
      },
      isOwned: () => phase._tag === "Leading",
      reopen: Effect.suspend(() => phase._tag === "Leading" ? phase.storage.reopen : Effect.void),
      scan: (space, after, limit) =>
        Effect.suspend(() => phase._tag === "Leading" ? phase.storage.scan(space, after, limit) : Effect.succeed([])),
      commit: (writes) =>
        Effect.suspend((): Effect.Effect<void, StorageFailure> => {
          switch (phase._tag) {
            case "Beginning":
              // A follower that opens has only its node id to write down, which it has no use for.
              return Effect.void
            case "Changing":
              if (isClosed || isOver) return closed
              // These rows are the former role's: what is to be written in the next is found out anew then.
              return Effect.zipRight(
                phaseChanged.until(() => phase._tag !== "Changing" || isClosed || isOver),
                superseded
              )
            case "Following":
              return phase.following.commit(writes)
            case "Leading": {
              if (isClosed && !phase.isReady) return closed
              if (writes.length === 0) return Effect.void
              const leading = phase
              return Effect.catchTag(
                leading.storage.commit(writes),
                "StorageSuperseded",
                Effect.fnUntraced(function*(fault) {
                  const isStill = () => phase._tag === "Leading" && phase.storage === leading.storage
                  // The journal's transactions can't be interrupted, which would keep the first from ending the second.
                  yield* Effect.interruptible(
                    Effect.raceFirst(phaseChanged.until(() => !isStill()), Effect.sleep(newsMillis))
                  )
                  // Who has it is none of the tabs that talk to each other.
                  if (isStill()) return yield* new StorageUnavailable({ reason: fault.message })
                  return yield* superseded
                })
              )
            }
          }
        })
    }

    // --- The first role ---

    const events = new Signal()
    /** The lock, as long as it's this tab's. */
    let lock: TabLock | undefined
    const release = (): void => {
      lock?.release()
      lock = undefined
      events.notify()
    }
    const hold = (granted: TabLock | undefined): void => {
      lock = granted
      void granted?.lost.then(() => lock === granted ? release() : undefined)
    }
    hold(yield* Effect.promise(() => tabs.lock(name, "now")))
    let leadership = yield* Scope.make()
    /** Opens storage for as long as this tab leads. */
    const openStorage = Effect.suspend(() => Scope.extend(source.open, leadership))
    const closeStorage = Effect.suspend(() =>
      Effect.zipRight(
        Scope.close(leadership, Exit.void),
        Effect.map(Scope.make(), (next) => {
          leadership = next
        })
      )
    )
    const stepDown = Effect.zipRight(closeStorage, Effect.sync(release))
    yield* Effect.addFinalizer(() => stepDown)
    if (lock !== undefined) become({ _tag: "Leading", storage: yield* openStorage, isReady: true })

    /** Plays the part, for as long as the scope is. Resolves when everything is here that the leader has, or this tab leads. */
    const start = Effect.fnUntraced(function*(
      replica: Replica["Type"],
      own: SyncEngine["Type"],
      status: Live<SyncStatus>,
      tabEngine: ReturnType<typeof TabEngine.make>
    ) {
      const isReady = yield* Deferred.make<void>()
      let isSuspended = false
      /** Of the leader that counts. Grows from one to the next, be it by the clock or, where that was set back, by one. */
      let term = 0
      const stopHearing = tabs.subscribe((event) => {
        isSuspended = event === "suspended"
        // At once, as no fiber may come to run before the tab sleeps.
        if (isSuspended) release()
        else events.notify()
      })
      yield* Effect.addFinalizer(() => Effect.sync(stopHearing))

      const wanted = new Signal()
      let isWanted = false
      takeLead = Effect.suspend(() => {
        isWanted = true
        wanted.notify()
        return phaseChanged.until(() => isLeader() || isClosed || isOver)
      })

      /** Serves the others, until the lock is another's or the user is logged out. */
      const lead = Effect.gen(function*() {
        const held = lock
        isWanted = false
        report = undefined
        tabEngine.changed()
        term = Math.max(term + 1, now())
        // A tab that leads again is another leader: what was agreed with the one that it was is no more.
        const leader = yield* TabLeader.serve({
          tabs,
          name,
          leader: { name: yield* makeNodeId, term },
          replica,
          engine: own,
          status
        })
        const everyone = tabs.join(name, (message) => {
          const announced = message as Messages.Announcement
          if (announced._tag === "Hello") everyone.send(leader.hello(announced.tab))
          // It hasn't heard yet that it has lost the lock.
          if (announced._tag === "Leading" && announced.leader.term > term) release()
        })
        yield* Effect.addFinalizer(() => Effect.sync(everyone.close))
        everyone.send({ _tag: "Leading", leader: { name: tab, term } } satisfies Messages.Announcement)
        const stopWatching = replica.observe({ onChange: () => replica.isGone() && events.notify() })
        yield* Effect.addFinalizer(() => Effect.sync(stopWatching))
        yield* events.until(() => lock !== held || replica.isGone())
        isOver = replica.isGone()
        if (isOver) everyone.send({ _tag: "LoggedOut" } satisfies Messages.Announcement)
      }).pipe(Effect.scoped)

      /** Says that there is a leader, until there is: storage may take its time. */
      const announceWaiting = Effect.acquireRelease(
        Effect.sync(() => {
          const everyone = tabs.join(name, (message) => {
            const announced = message as Messages.Announcement
            if (announced._tag === "Hello") {
              everyone.send({ _tag: "Wait", tab: announced.tab } satisfies Messages.Announcement)
            }
          })
          return everyone
        }),
        (everyone) => Effect.sync(everyone.close)
      )

      /** Follows until this tab is the one to lead: it holds the lock then. */
      const follow = Effect.gen(function*() {
        yield* replica.mirror.follow
        const given = new AbortController()
        yield* Effect.addFinalizer(() => Effect.sync(() => given.abort()))
        let isTaken = false
        /** Its turn may come when it's wanted no more. */
        const holdOr = (granted: TabLock | undefined): void => {
          if (isTaken) granted?.release()
          else if (granted !== undefined) {
            isTaken = true
            hold(granted)
          }
        }
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => {
            isTaken = true
          })
        )
        const inTurn = Effect.flatMap(
          Effect.promise(async () => holdOr(await tabs.lock(name, "wait", given.signal))),
          () => lock === undefined ? Effect.never : Effect.void
        )
        const taken = Effect.promise(async () => {
          given.abort()
          holdOr(await tabs.lock(name, "steal"))
        })
        const session = Effect.gen(function*() {
          const following = yield* TabFollower.follow({
            tabs,
            name,
            tab,
            replica,
            now,
            term: () => term,
            onTerm: (heard) => {
              term = heard
            },
            onReport: (next) => {
              report = next
              replica.mirror.correct(next.status.clockSkewMillis)
              tabEngine.changed()
            },
            onReply: tabEngine.replied,
            onLine: tabEngine.askedBy,
            onAnswer: tabEngine.heard
          })
          become({ _tag: "Following", following })
          yield* Effect.forkScoped(Effect.zipRight(following.mirrored, Deferred.succeed(isReady, undefined)))
          const ending = yield* following.ended
          // A silent leader holds the lock.
          if (ending === "silent") return yield* taken
          isOver = true
          replica.vanish()
        })
        const whenWanted = Effect.zipRight(wanted.until(() => isWanted), taken)
        yield* Effect.raceFirst(inTurn, Effect.raceFirst(session, whenWanted)).pipe(
          Effect.ensuring(Effect.sync(() => become({ _tag: "Changing" })))
        )
      }).pipe(Effect.scoped)

      /** Makes this tab's copy the one that counts: opens storage, and joins what it holds. Tried until it succeeds. */
      const takeOver = Effect.gen(function*() {
        yield* announceWaiting
        while (true) {
          const outcome = yield* Effect.exit(Effect.gen(function*() {
            const opened = yield* openStorage
            become({ _tag: "Leading", storage: opened, isReady: false })
            if (yield* replica.mirror.lead) return become({ _tag: "Leading", storage: opened, isReady: true })
            // It has slept through what the others have heard.
            isOver = true
            replica.vanish()
            release()
          }))
          if (Exit.isSuccess(outcome) && lock !== undefined) return
          become({ _tag: "Changing" })
          yield* closeStorage
          if (lock === undefined || Exit.isSuccess(outcome)) return
          onFault(Cause.squash(outcome.cause))
          yield* Effect.sleep(retryMillis)
        }
      }).pipe(Effect.scoped)

      const play = Effect.gen(function*() {
        while (!isOver) {
          if (lock === undefined) {
            yield* events.until(() => !isSuspended)
            yield* follow
            if (lock === undefined) continue
            const wasConnected = report === undefined || report.status.state !== "DISCONNECTED"
            yield* takeOver
            // It was taken away, or let go, meanwhile.
            if (lock === undefined) continue
            if (wasConnected) yield* own.connect
          }
          yield* Deferred.succeed(isReady, undefined)
          yield* lead
          yield* own.disconnect
          become({ _tag: "Changing" })
          yield* stepDown
        }
        yield* Deferred.succeed(isReady, undefined)
        phaseChanged.notify()
      })
      yield* Effect.forkScoped(play)
      yield* Effect.addFinalizer(() =>
        Effect.suspend(() => {
          isClosed = true
          phaseChanged.notify()
          // What was written last goes to the leader while there is a way to it.
          return phase._tag === "Following" && !replica.journal.isIdle()
            ? Effect.ignore(Effect.interruptible(Effect.timeout(replica.journal.flush, closingMillis)))
            : Effect.void
        })
      )
      yield* Deferred.await(isReady)
    })

    let takeLead: Effect.Effect<void> = Effect.void
    const role: TabEngine.Role = {
      report: () => report,
      following: () => phase._tag === "Following" ? phase.following : undefined,
      takeLead: Effect.suspend(() => isLeader() ? Effect.void : takeLead),
      byLeader: (what, own) =>
        Effect.gen(function*() {
          while (true) {
            yield* settled
            if (phase._tag !== "Following") return yield* own
            const outcome = yield* Effect.either(phase.following.ask(what))
            if (outcome._tag === "Right") return
            const left = phase
            yield* phaseChanged.until(() => phase !== left || isClosed || isOver)
          }
        })
    }

    return {
      /** What this tab's replica stores in. */
      storage,
      role,
      /** Whether this tab leads from the start. */
      isLeading: isLeader,
      start,
      coordinator: TabCoordinator.of({
        role: () => isLeader() ? "leader" : "follower",
        report: () => report
      })
    }
  }
)
