/** What a device knows of its network and its user, so that no try to connect is wasted and none comes late. */

export type NetworkEvent =
  /** There is a network (again). */
  | "online"
  /** There is none. */
  | "offline"
  /** The user looks (again): a page that wasn't seen may have slept, and its connection died unnoticed. */
  | "visible"

/** Where a client hears of them. Plain, so that it can be handed to the Promise form. */
export interface NetworkEvents {
  /** Whether there is a network, as far as one knows: while there is none, no connection is tried. */
  readonly isOnline: () => boolean
  /** Calls `listener` at each event, until the returned function is called. */
  readonly subscribe: (listener: (event: NetworkEvent) => void) => () => void
}

/** Nothing is known: tries are made by the backoff alone. */
export const none: NetworkEvents = { isOnline: () => true, subscribe: () => () => {} }

/** The part of a browser's global that is listened to. */
export interface Platform {
  readonly navigator?: { readonly onLine?: boolean }
  readonly document?: EventTarget & { readonly visibilityState?: string }
  readonly addEventListener?: EventTarget["addEventListener"]
  readonly removeEventListener?: EventTarget["removeEventListener"]
}

/** The events of a browser's page or worker; where there is no browser, {@link none}. */
export const ofPlatform = (platform: Platform = globalThis as Platform): NetworkEvents => {
  const { document, navigator } = platform
  if (typeof navigator?.onLine !== "boolean" || typeof platform.addEventListener !== "function") return none
  return {
    isOnline: () => navigator.onLine !== false,
    subscribe: (listener) => {
      const onOnline = () => listener("online")
      const onOffline = () => listener("offline")
      const onVisibility = () => {
        if (document?.visibilityState === "visible") listener("visible")
      }
      platform.addEventListener?.("online", onOnline)
      platform.addEventListener?.("offline", onOffline)
      document?.addEventListener("visibilitychange", onVisibility)
      return () => {
        platform.removeEventListener?.("online", onOnline)
        platform.removeEventListener?.("offline", onOffline)
        document?.removeEventListener("visibilitychange", onVisibility)
      }
    }
  }
}
