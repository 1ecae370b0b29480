/** The seven states of a client's connection, and every way from one to another. */

export type SyncState =
  | "DISCONNECTED"
  | "CONNECTING"
  | "AUTHENTICATING"
  | "SYNCING"
  | "CONNECTED"
  | "BACKOFF"
  | "ERROR"

export type SyncEvent =
  /** The application wants a connection or, in an ERROR for want of a token, gives one. */
  | "connect"
  /** The transport is open. */
  | "opened"
  /** The server took the `Auth`. */
  | "authenticated"
  /** Every map that was open is reconciled and the log is drained. */
  | "synced"
  /** The connection could not be made, or ended, for a cause that a retry can mend. */
  | "lost"
  /** The delay is over. */
  | "retry"
  /** A cause that no retry can mend, or the last retry is spent. */
  | "fail"
  /** The application wants no connection. */
  | "disconnect"

/** Where each event leads from each state; an event that is missing doesn't happen there. */
export const transitions: Record<SyncState, Partial<Record<SyncEvent, SyncState>>> = {
  DISCONNECTED: { connect: "CONNECTING", disconnect: "DISCONNECTED" },
  CONNECTING: { opened: "AUTHENTICATING", lost: "BACKOFF", fail: "ERROR", disconnect: "DISCONNECTED" },
  AUTHENTICATING: { authenticated: "SYNCING", lost: "BACKOFF", fail: "ERROR", disconnect: "DISCONNECTED" },
  SYNCING: { synced: "CONNECTED", lost: "BACKOFF", fail: "ERROR", disconnect: "DISCONNECTED" },
  CONNECTED: { lost: "BACKOFF", fail: "ERROR", disconnect: "DISCONNECTED" },
  BACKOFF: { retry: "CONNECTING", fail: "ERROR", disconnect: "DISCONNECTED" },
  ERROR: { connect: "CONNECTING", disconnect: "DISCONNECTED" }
}

/** The next state, or `undefined` where the table has no way. */
export const next = (state: SyncState, event: SyncEvent): SyncState | undefined => transitions[state][event]
