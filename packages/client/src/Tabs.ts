/** What a browser's tabs have in common: locks, by which they agree on a leader, and channels, by which they talk. */

/** A lock that is held. */
export interface TabLock {
  /** Resolves when another tab has taken it away; never when it was released. A tab that slept through it hears of it late. */
  readonly lost: Promise<void>
  readonly release: () => void
}

/** One end of a channel that all tabs of one origin share: what one sends, all others receive, in order. */
export interface TabChannel {
  readonly send: (message: unknown) => void
  readonly close: () => void
}

/** What happens to a tab as a whole. */
export type TabEvent =
  /** It won't run any more for an unknown time: what it holds, others wait for. */
  | "suspended"
  /** It runs again. */
  | "resumed"

/** Where a tab finds the others. Plain, so that it can be handed to the Promise form. */
export interface Tabs {
  /**
   * A lock that one tab holds at a time; it is free when that tab ends. `now`: undefined where another holds it. `wait`: when its
   * turn has come, or undefined when the signal aborts before. `steal`: at once, before all who wait, and whoever holds it loses it.
   */
  readonly lock: (
    name: string,
    how: "now" | "wait" | "steal",
    signal?: AbortSignal
  ) => Promise<TabLock | undefined>
  /** Joins a channel; messages are plain data and bytes. */
  readonly join: (name: string, onMessage: (message: unknown) => void) => TabChannel
  /** Calls `listener` at each event, until the returned function is called. */
  readonly subscribe: (listener: (event: TabEvent) => void) => () => void
}

/** The part of a browser's global that is used. */
export interface Platform {
  readonly navigator?: { readonly locks?: LockManagerLike }
  readonly document?: EventTarget
  readonly BroadcastChannel?: new(name: string) => BroadcastChannelLike
  readonly addEventListener?: EventTarget["addEventListener"]
  readonly removeEventListener?: EventTarget["removeEventListener"]
}

/** Of Web Locks what is used, as TypeScript's library for Node doesn't know them. */
interface LockManagerLike {
  readonly request: (
    name: string,
    options: { readonly ifAvailable?: boolean; readonly steal?: boolean; readonly signal?: AbortSignal },
    held: (lock: unknown) => Promise<void> | undefined
  ) => Promise<unknown>
}

interface BroadcastChannelLike extends EventTarget {
  readonly postMessage: (message: unknown) => void
  readonly close: () => void
}

const makeLock = (locks: LockManagerLike): Tabs["lock"] => (name, how, signal) =>
  new Promise((resolve, reject) => {
    const options = how === "now"
      ? { ifAvailable: true }
      : how === "steal"
      ? { steal: true }
      : signal === undefined
      ? {}
      : { signal }
    let release = (): void => {}
    let isHeld = false
    const request = locks.request(name, options, (lock) => {
      if (lock === null) {
        resolve(undefined)
        return undefined
      }
      isHeld = true
      const held = new Promise<void>((done) => {
        release = done
      })
      resolve({ lost, release: () => release() })
      return held
    })
    // It rejects when the lock is taken away, which ends `lost`, and resolves when it's released, which doesn't.
    const lost = request.then(() => new Promise<void>(() => {}), (fault: unknown) => {
      if (isHeld) return
      if (signal?.aborted === true) resolve(undefined)
      else reject(fault)
      return new Promise<void>(() => {})
    })
  })

/** The tabs of a browser; "none" where there are no tabs, or where they can't agree. */
export const ofPlatform = (platform: Platform = globalThis as Platform): Tabs | "none" => {
  const { BroadcastChannel, document, navigator } = platform
  const locks = navigator?.locks
  // A worker has no document, and a process has no tabs, though it may have all the rest.
  if (locks === undefined || BroadcastChannel === undefined || document === undefined) return "none"
  return {
    lock: makeLock(locks),
    join: (name, onMessage) => {
      const channel = new BroadcastChannel(name)
      channel.addEventListener("message", (event) => onMessage((event as MessageEvent).data))
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a channel is of one origin
      return { send: (message) => channel.postMessage(message), close: () => channel.close() }
    },
    subscribe: (listener) => {
      // A page that is hidden for good may be kept, frozen, for a way back to it, and nobody says which.
      const onSuspended = () => listener("suspended")
      const onResumed = () => listener("resumed")
      document.addEventListener("freeze", onSuspended)
      document.addEventListener("resume", onResumed)
      platform.addEventListener?.("pagehide", onSuspended)
      platform.addEventListener?.("pageshow", onResumed)
      return () => {
        document.removeEventListener("freeze", onSuspended)
        document.removeEventListener("resume", onResumed)
        platform.removeEventListener?.("pagehide", onSuspended)
        platform.removeEventListener?.("pageshow", onResumed)
      }
    }
  }
}
