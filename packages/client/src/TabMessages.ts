/**
 * What the tabs of a browser tell each other: plain data, which the browser copies. Tabs of another format don't meet, as the
 * names of their lock and channels are others.
 */
import * as Cell from "@topgun/core/Cell"
import type { MapKind } from "@topgun/core/Cell"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import type { WriteConcern } from "@topgun/core/WriteConcern"
import type { CellState, Forwarded } from "./Mirror.ts"
import type * as Query from "./QueryLine.ts"
import type { MapStatus, RejectedWrite, SyncStatus } from "./Reports.ts"

const format = 1

/** The lock that the leader of a storage's tabs holds, which is also the name of the channel of all. */
export const nameOf = (storage: string): string => `topgun/${format}/${storage}`

/** The channel of a leader and one follower. */
export const channelOf = (name: string, leader: string, tab: string): string => `${name}/${leader}/${tab}`

/** Said to all. */
export type Announcement =
  /** A tab looks for the leader. */
  | { readonly _tag: "Hello"; readonly tab: string }
  /** There is a leader that will serve this tab as soon as it can. */
  | { readonly _tag: "Wait"; readonly tab: string }
  /** This tab leads, and listens on the channel of the two. */
  | { readonly _tag: "Serving"; readonly tab: string; readonly leader: Leader }
  /** The user was logged out, in whichever tab: there is nothing left. */
  | { readonly _tag: "LoggedOut" }
  /** There is a leader, another one than before: say hello, to hear which. */
  | { readonly _tag: "Leading"; readonly leader: Leader }

/** A leadership. One that has lost it may not know yet, and be heard still: of two the one of the greater term counts. */
export interface Leader {
  /** A part of the names of its channels: a tab that leads again is another leader, to whom nothing was said yet. */
  readonly name: string
  readonly term: number
}

/** Cells: the name of each, its live row (undefined: it is gone) and its base's, which is as in `LwwMap.getBase`. */
type Cells = ReadonlyArray<
  readonly [cell: string, live: Uint8Array | undefined, base: Uint8Array | null | undefined]
>

/** Said by the leader to one follower. */
export type FromLeader =
  /** The beginning, or a new one: what was said before counts no more, and all is to be pulled. */
  | { readonly _tag: "Welcome" }
  /** Cells as they are now: `isPage` where they were pulled, else as they have changed, each to be answered by `Taken`. */
  | {
    readonly _tag: "Cells"
    readonly map: string
    readonly kind: MapKind
    readonly isPage: boolean
    readonly cells: Cells
  }
  /** All that there is was pulled. */
  | { readonly _tag: "Mirrored" }
  /** What was forwarded is durable, or why it isn't. */
  | { readonly _tag: "Stored"; readonly id: number; readonly refusal: string | undefined }
  | { readonly _tag: "Outcomes"; readonly outcomes: ReadonlyArray<OutcomeOf> }
  | { readonly _tag: "Report"; readonly report: Report }
  | { readonly _tag: "Rejected"; readonly writes: ReadonlyArray<RejectedWrite> }
  | { readonly _tag: "Answer"; readonly id: number }
  | { readonly _tag: "Reply"; readonly payload: Uint8Array }
  /** Queries can be asked of the server, or what was asked isn't answered any more. */
  | { readonly _tag: "Line"; readonly isOpen: boolean }
  /** An answer to a query, by the ids of who asked. Those with rows are to be answered by `Taken`. */
  | { readonly _tag: "Answered"; readonly answer: Query.Answer }
  | { readonly _tag: "Pong" }
  /** The leader steps down. */
  | { readonly _tag: "Over" }
  /** The user was logged out: there is nothing left. */
  | { readonly _tag: "Gone" }

/** Said by one follower to the leader. */
export type FromFollower =
  /** It listens on the channel of the two. */
  | { readonly _tag: "Join" }
  /** The next page. */
  | { readonly _tag: "Pull" }
  /** Changed `Cells` were taken in. The leader sends only so many ahead of it. */
  | { readonly _tag: "Taken" }
  /** Operations that were written here, by their numbers here: to be stored and sent. */
  | { readonly _tag: "Forward"; readonly id: number; readonly operations: ReadonlyArray<PlainOperation> }
  | { readonly _tag: "Open"; readonly map: string; readonly kind: MapKind; readonly isFollowed: boolean }
  | { readonly _tag: "Ask"; readonly id: number; readonly what: Request }
  | { readonly _tag: "Token"; readonly token: string }
  | { readonly _tag: "TakeRejected"; readonly id: string }
  | { readonly _tag: "Call"; readonly payload: Uint8Array }
  /** Something about a query, for the server, under an id of the tab's. */
  | { readonly _tag: "Question"; readonly question: Query.Question }
  | { readonly _tag: "Ping" }
  | { readonly _tag: "Bye" }

/** What a follower may ask the leader to do, and hear when it's done. */
export type Request = "connect" | "disconnect" | "reset" | "synced"

/** How the leader stands with the server and with storage. */
export interface Report {
  readonly status: SyncStatus
  readonly maps: ReadonlyArray<readonly [map: string, status: MapStatus]>
}

/** What has become of a follower's operation so far. */
export interface OutcomeOf {
  readonly sequence: number
  readonly reached?: { readonly level: WriteConcern; readonly replicas: number; readonly isFinal: boolean }
  readonly failed?: { readonly tag: string; readonly cause: string; readonly reason: string }
}

/** A {@link Forwarded} operation, as it travels. */
export interface PlainOperation extends Omit<Forwarded, "cell" | "record"> {
  readonly key: string
  readonly row: Uint8Array
}

// Rows are views of a larger buffer, which would be copied with the whole of it.
export const toPlain = (states: ReadonlyArray<CellState>): Cells =>
  states.map(({ base, cell, live }) => [cell, live?.row.slice(), base?.row.slice() ?? base as null | undefined])

/** As it travels: rows of their own. */
export const plainAnswer = (answer: Query.Answer): Query.Answer =>
  answer._tag === "QueryRows"
    ? {
      ...answer,
      scores: answer.scores?.slice() ?? null,
      records: answer.records.map(([key, row]) => [key, row.slice()] as const)
    }
    : answer

const decode = (kind: MapKind, map: string, cell: string, row: Uint8Array): LwwRecord =>
  Cell.decodeInPlace(kind, map, Cell.keyOf(kind, cell), row)

export const fromPlain = (map: string, kind: MapKind, cells: Cells): ReadonlyArray<CellState> =>
  cells.map(([cell, live, base]) => ({
    cell,
    live: live && decode(kind, map, cell, live),
    base: base && decode(kind, map, cell, base)
  }))

export const operationFromPlain = ({ key, row, ...operation }: PlainOperation): Forwarded => {
  const record = Cell.decodeInPlace(operation.kind, operation.map, key, row)
  return { ...operation, cell: Cell.cellOf(operation.kind, key, record), record }
}
