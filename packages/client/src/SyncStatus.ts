/** One object that says how this device stands with its server and its storage. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { ClientConfig } from "./ClientConfig.ts"
import * as Lives from "./Live.ts"
import { type Live, Observable } from "./Live.ts"
import type { MapStatus, SyncStatus } from "./Reports.ts"
import { Replica } from "./Replica.ts"
import { SyncEngine } from "./SyncEngine.ts"
import { TabCoordinator } from "./TabCoordinator.ts"

const wordsOf = (fault: unknown): string | undefined =>
  fault === undefined ? undefined : fault instanceof Error ? fault.message : String(fault)

const isSame = (a: SyncStatus, b: SyncStatus): boolean =>
  (Object.keys(a) as Array<keyof SyncStatus>).every((field) => field === "storage" || Object.is(a[field], b[field])) &&
  (Object.keys(a.storage) as Array<keyof SyncStatus["storage"]>).every((field) => a.storage[field] === b.storage[field])

const make = Effect.gen(function*() {
  const { onError: onFault } = yield* ClientConfig
  const replica = yield* Replica
  const engine = yield* SyncEngine
  const coordinator = yield* TabCoordinator
  let backlog: SyncStatus["backlog"] = "low"
  const read = (): SyncStatus => {
    const report = coordinator.report()
    return report === undefined ? readOwn() : {
      ...report.status,
      tab: "follower",
      // What the leader doesn't know of yet counts too.
      pending: report.status.pending + replica.outbox.unkeptSize()
    }
  }
  const readOwn = (): SyncStatus => ({
    tab: coordinator.role(),
    state: engine.state.current,
    pending: replica.isGone() ? 0 : replica.outbox.size(),
    rejected: replica.rejected.list.current.length,
    oldestPendingAt: replica.isGone() ? undefined : replica.outbox.oldest(),
    backlog,
    hasSynced: engine.lastSyncedAt() !== undefined,
    lastSyncedAt: engine.lastSyncedAt(),
    storage: {
      kind: replica.storageKind(),
      durable: replica.storageDurable(),
      fault: wordsOf(replica.storageFault()),
      ...replica.room()
    },
    clockSkewMillis: engine.skewMillis(),
    failure: wordsOf(engine.lastFailure()),
    needsAuth: engine.needsAuth(),
    stalled: engine.isStalled()
  })
  let latest = read()
  /** The same object for as long as nothing in it changes, so that it can be compared by identity. */
  const current = (): SyncStatus => {
    const next = read()
    if (!isSame(next, latest)) latest = next
    return latest
  }
  const status = new Observable(latest, onFault)
  let due = false
  const refresh = (): void => {
    if (due) return
    due = true
    queueMicrotask(() => {
      due = false
      status.set(current())
    })
  }
  const stops = [
    replica.observe({
      onChange: refresh,
      onFault,
      onHighWater: () => {
        backlog = "high"
        refresh()
      },
      onLowWater: () => {
        backlog = "low"
        refresh()
      }
    }),
    engine.state.subscribe(refresh),
    engine.observe(refresh, onFault)
  ]
  yield* Effect.addFinalizer(() => Effect.sync(() => stops.forEach((stop) => stop())))
  const live: Live<SyncStatus> = {
    get current() {
      return current()
    },
    subscribe: status.live.subscribe,
    [Symbol.asyncIterator]: status.live[Symbol.asyncIterator]
  }
  return live
})

/** How a map stands with the server, as it changes. */
export const ofMap = (engine: SyncEngine["Type"], map: string): Live<MapStatus> => {
  let latest: MapStatus | undefined
  const read = (): MapStatus => {
    const next = engine.mapStatus(map)
    const isAsBefore = latest?.isSynced === next.isSynced && latest.hasSynced === next.hasSynced &&
      latest.refusal === next.refusal
    return isAsBefore ? latest! : latest = next
  }
  return Lives.make(read, (listener, signal) => {
    let shown = read()
    const look = (): void => {
      const next = read()
      if (next === shown) return
      shown = next
      listener(next)
    }
    const stop = engine.observe(look, () => {})
    signal?.addEventListener("abort", stop)
    return stop
  })
}

/** The status as it changes; several changes in one tick are one. Tells `onError` of faults that nobody waits for. */
export class Status extends Context.Tag("@topgun/client/SyncStatus")<Status, Live<SyncStatus>>() {}

export const layer: Layer.Layer<Status, never, ClientConfig | Replica | SyncEngine | TabCoordinator> = Layer.scoped(
  Status,
  make
)
