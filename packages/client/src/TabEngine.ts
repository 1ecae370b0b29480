/** The engine as a tab's application sees it: its own where the tab leads, the leader's where it follows. */
import * as Effect from "effect/Effect"
import { notifyAll, Observable } from "./Live.ts"
import { type Line, Lines } from "./QueryLine.ts"
import type { Answer } from "./QueryLine.ts"
import type { SyncEngine } from "./SyncEngine.ts"
import type { SyncState } from "./SyncState.ts"
import type { Following } from "./TabFollower.ts"
import type { Report, Request } from "./TabMessages.ts"
import type { Replica } from "./Replica.ts"
import type { MapStatus } from "./Reports.ts"

/** Which engine counts, as the tab's role says. */
export interface Role {
  /** What the leader has told last; undefined where this tab leads. */
  readonly report: () => Report | undefined
  /** Runs `own` where this tab leads, else has the leader do `what`; again where the leader is another one meanwhile. */
  readonly byLeader: (what: Request, own: Effect.Effect<void>) => Effect.Effect<void>
  /** The leader of this tab, where it follows one. */
  readonly following: () => Following | undefined
  /** Makes this tab the leader. */
  readonly takeLead: Effect.Effect<void>
}

/** How a map stands that the leader has told nothing of yet. */
const unknown: MapStatus = { isSynced: false, hasSynced: false, refusal: undefined }

/** The engine, and what tells it of the other tabs. */
export const make = (
  own: SyncEngine["Type"],
  replica: Replica["Type"],
  role: Role,
  onFault: (fault: unknown) => void
) => {
  const listeners = new Set<() => void>()
  const replies = new Set<(payload: Uint8Array) => void>()
  const lines = new Lines()
  // While this tab follows another its own engine has no connection.
  own.asks({ opened: (line) => lines.open(line), closed: () => lines.close(), heard: (answer) => lines.hear(answer) })
  const current = (): SyncState => role.report()?.status.state ?? own.state.current
  const state = new Observable<SyncState>(current(), onFault)
  const changed = (): void => {
    state.set(current())
    notifyAll(Array.from(listeners), undefined, onFault)
  }
  own.state.subscribe(changed)
  const engine: SyncEngine["Type"] = {
    state: state.live,
    connect: role.byLeader("connect", own.connect),
    disconnect: role.byLeader("disconnect", own.disconnect),
    resetConnection: role.byLeader("reset", own.resetConnection),
    // What was written here is the leader's before it answers.
    synced: Effect.zipRight(Effect.ignore(replica.journal.flush), role.byLeader("synced", own.synced)),
    skewMillis: () => role.report()?.status.clockSkewMillis ?? own.skewMillis(),
    mapStatus: (map) => {
      const report = role.report()
      return report === undefined ? own.mapStatus(map) : report.maps.find(([name]) => name === map)?.[1] ?? unknown
    },
    lastSyncedAt: () => {
      const report = role.report()
      return report === undefined ? own.lastSyncedAt() : report.status.lastSyncedAt
    },
    lastFailure: () => {
      const report = role.report()
      return report === undefined ? own.lastFailure() : report.status.failure
    },
    needsAuth: () => role.report()?.status.needsAuth ?? own.needsAuth(),
    isStalled: () => role.report()?.status.stalled ?? own.isStalled(),
    giveToken: (token) => {
      // It is this tab's too, for when it leads.
      own.giveToken(token)
      role.following()?.send({ _tag: "Token", token })
    },
    endWith: (end) => Effect.zipRight(role.takeLead, own.endWith(end)),
    observe: (onChange, onFaultHere) => {
      listeners.add(onChange)
      const stop = own.observe(onChange, onFaultHere)
      return () => {
        listeners.delete(onChange)
        stop()
      }
    },
    asks: (asker) => lines.add(asker),
    call: (payload) => {
      const following = role.following()
      if (following === undefined) return own.call(payload)
      following.send({ _tag: "Call", payload })
      return current() === "CONNECTED"
    },
    onReply: (listener) => {
      replies.add(listener)
      const stop = own.onReply(listener)
      return () => {
        replies.delete(listener)
        stop()
      }
    }
  }
  return {
    engine,
    /** The role, or what the leader tells, is another. */
    changed,
    /** Queries can be asked by way of the leader, or not any more. */
    askedBy: (line: Line | undefined): void => line === undefined ? lines.close() : lines.open(line),
    /** The leader's server has answered a query of this tab's. */
    heard: (answer: Answer): void => {
      try {
        lines.hear(answer)
      } catch (fault) {
        onFault(fault)
      }
    },
    /** The leader's server has replied. */
    replied: (payload: Uint8Array): void => notifyAll(Array.from(replies), payload, onFault)
  }
}
