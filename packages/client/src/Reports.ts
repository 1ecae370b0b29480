/** What a client and its application tell each other, as plain data. */
import type { SyncState } from "./SyncState.ts"

/** A visible change of a key; `undefined` where there was or is no value. */
export interface Change<A> {
  readonly key: string
  readonly value: A | undefined
  readonly previous: A | undefined
  readonly origin: "local" | "remote"
}

/** A refused write: what was to be written, and why it was not. */
export interface RejectedWrite {
  readonly id: string
  readonly map: string
  readonly kind: "lww" | "or" | "counter"
  readonly key: string
  /** What was to happen to the key. */
  readonly change: "set" | "remove" | "add" | "count"
  /** The value to set, to add or, of a map of sets, to remove; what a counter was to go by. */
  readonly value: unknown
  /** How long the value was to live, in ms from the write, where it was not for ever. */
  readonly ttlMs: number | undefined
  /** The `_tag` of the refusal. */
  readonly cause: string
  readonly reason: string
  /** When the write was made, in ms. */
  readonly since: number
}

/** How a device stands with its server and its storage. */
export interface SyncStatus {
  readonly state: SyncState
  /**
   * This tab's part among those of the browser that share this storage: one of them keeps the data of all and speaks with the
   * server. `only` where there are no others to share with.
   */
  readonly tab: "only" | "leader" | "follower"
  /** Operations that the server doesn't durably have yet; counts those of earlier runs too. */
  readonly pending: number
  /** Writes that the server refused and the application hasn't dealt with. */
  readonly rejected: number
  /** When the oldest pending operation was made, in ms. */
  readonly oldestPendingAt: number | undefined
  /**
   * `high` from when writes that wait to be sent fill four fifths of the room for them until half of it is free again: time
   * to write less, before writes have to wait, are refused or drop others, as the client's backpressure says.
   */
  readonly backlog: "low" | "high"
  /** Whether this device was ever in step with the server, in earlier runs too. */
  readonly hasSynced: boolean
  /** When it came into step last, in ms. */
  readonly lastSyncedAt: number | undefined
  readonly storage: {
    readonly kind: string
    /** Whether it outlives the process. */
    readonly durable: boolean
    /** Why writes can't be kept on this device at present: with `durable: false` not before it is opened again. */
    readonly fault: string | undefined
    /** Whether the browser has promised not to delete it when it wants room; `undefined` where there is none to say so. */
    readonly persisted: boolean | undefined
    /** What this origin takes up, and may take up, in bytes, as the browser estimates it now and then. */
    readonly usage: number | undefined
    readonly quota: number | undefined
  }
  /** The server's clock minus this device's, in ms, where they differ. */
  readonly clockSkewMillis: number
  /** Why there is no connection, where there should be one, or why its token can't be renewed. */
  readonly failure: string | undefined
  /** Whether the server wants a token, or another one than it was shown. */
  readonly needsAuth: boolean
  /** Whether the server takes operations and has left one unanswered for longer than the client's patience. */
  readonly stalled: boolean
}

/** How a map stands with the server. What is on this device can be read in any case. */
export interface MapStatus {
  /** Whether the server's records are all here, and come as they change. */
  readonly isSynced: boolean
  /** Whether that was ever so, in earlier runs too: if not, an empty map says nothing. */
  readonly hasSynced: boolean
  /** Why the server refuses to open it; tried again on the next connection. */
  readonly refusal: string | undefined
}

/** A line of a client's log. It tells of no value, no key and no token. */
export interface LogEntry {
  readonly level: "debug" | "info" | "warn" | "error"
  /** All of it in words. */
  readonly message: string
  /** What the words say of this case, to be searched for: a state, an error's tag and code, a number. */
  readonly facts: { readonly [name: string]: string | number }
}

/** What becomes of writes that the server doesn't durably have, and of those that it rejected. */
export interface LogoutOptions {
  /**
   * `flush`: waits until the server has them all; those that it rejected stand in the way. `keep`: they stay on this device,
   * with the values that they are about, and are sent when the same user is back. `discard`: they are deleted with the rest.
   *
   * @default none may be there: UnsentWrites
   */
  readonly unsent?: "flush" | "keep" | "discard" | undefined
}
