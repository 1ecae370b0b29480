/** Queries as an application asks them and is answered, as types: plain TypeScript, none of Effect's. */
import type { FieldPath } from "@topgun/core/FieldPath"
import type { Where } from "@topgun/core/Where"
import type { Live } from "./Live.ts"

/**
 * What is asked of a map of records whose values are `A`: see `@topgun/core/Query`. Of a map that is given by its name anything may
 * be asked.
 */
export interface QueryOptions<A, Path extends FieldPath<A> = FieldPath<A>> {
  readonly where?: Where<A> | undefined
  /** Text to be found in the fields that the map is declared to be searched by. */
  readonly search?: string | {
    readonly text: string
    readonly fields?: ReadonlyArray<FieldPath<A>> | undefined
    readonly prefix?: boolean | undefined
  } | undefined
  /** Whether a record that only one of `search` and `where` finds is found, too. @default false */
  readonly hybrid?: boolean | undefined
  readonly orderBy?:
    | ReadonlyArray<{ readonly field: FieldPath<A>; readonly direction?: "asc" | "desc" | undefined }>
    | undefined
  /** How many rows at most, for the beginning. @default all */
  readonly limit?: number | undefined
  /** Where to begin: what an earlier answer gave as its `cursor`. */
  readonly cursor?: string | undefined
  /** The fields of the values to be shown with. @default whole values */
  readonly select?: ReadonlyArray<Path> | undefined
}

/** What has no fields. */
type Leaf = null | undefined | boolean | number | bigint | string | Uint8Array | Date | ReadonlyArray<unknown>
type HeadOf<Path> = Path extends `${infer Head}.${string}` ? Head : never
type RestOf<Path, Head> = Head extends string ? Path extends `${Head}.${infer Rest}` ? Rest : never : never

/** What `select` leaves of a value: whole fields as they are, fields of fields where there are such. */
export type Selected<A, Path> = unknown extends A ? unknown
  : Extract<Path, `${string}\\${string}`> extends never ? A extends Leaf ? never
    :
      & Pick<A, Extract<keyof A, Path>>
      & { readonly [Name in Exclude<Extract<keyof A, HeadOf<Path>>, Path>]?: Selected<A[Name], RestOf<Path, Name>> }
  : unknown

/** What a row shows of a value, by what was selected of it. */
export type Shown<A, Path> = [Path] extends [never] ? A : Selected<A, Path>

/** A record that a query has found. The same object for as long as what it shows is the same. */
export interface QueryRow<A> {
  readonly key: string
  readonly value: A
  /** How well it matches, where a text was searched for. */
  readonly score?: number
}

/** Why a query isn't answered. They are the errors of these names in `@topgun/core/GridError`. */
export interface QueryError extends Error {
  readonly _tag:
    | "QueryInvalid"
    | "QueryTooExpensive"
    | "PermissionDenied"
    | "MapKindMismatch"
    | "Overloaded"
    | "ConnectionLost"
    | "ClientClosed"
  /** Stable, for logs and other languages: `TG_…`. */
  readonly code: string
  /** Whether the same query may be answered later. */
  readonly retryable: boolean
}

/** How a query stands. The same object for as long as nothing in it changes. */
export interface QueryState<A> {
  /** What it has found, in order; the same array for as long as it holds the same rows. */
  readonly rows: ReadonlyArray<QueryRow<A>>
  /**
   * `loading`: what this device has isn't loaded from its storage yet, or what it takes isn't, which comes on demand: to find by words or
   * by regular expressions, and to ask a server. `ready`: the rows are
   * what this device knows of. `error`: it isn't answered, or not by the server, for the reason that `error` tells.
   */
  readonly status: "loading" | "ready" | "error"
  /**
   * Whether the rows are everything: the server has confirmed it, on the present connection, or there is no server. False offline, where
   * others may have written what isn't here.
   */
  readonly isComplete: boolean
  /** Whether there are rows after these. */
  readonly hasMore: boolean
  /** Where those begin, to be asked for by a query of its own. */
  readonly cursor?: string
  readonly error?: QueryError
}

/** What became of a row. */
export type QueryChange<A> =
  /**
   * `enter`: it is there now. `update`: it shows another value, in the same place as far as the query's order goes. `move`: it may be
   * in another place, too.
   */
  | (QueryRow<A> & { readonly type: "enter" | "update" | "move" })
  | { readonly type: "leave"; readonly key: string }

/** What has changed of a query's rows, from one version to another. */
export interface QueryDelta<A> {
  /** Grows. Who is slow is told of several versions at once. */
  readonly version: number
  /** The version that was told before; 0 for the first, which tells of all rows there are. */
  readonly after: number
  readonly changes: ReadonlyArray<QueryChange<A>>
  readonly hasMore: boolean
}

/** A query that is asked until it is closed: its rows follow what changes. */
export interface QueryHandle<A> extends Live<QueryState<A>> {
  /**
   * Grows the limit by `count`, or by as much as it was at first. Resolves when the grown result is there: when the server has answered,
   * where it is asked. Rejects when it refuses; then the rows stay as they are. Without a limit there is nothing to do.
   */
  fetchMore(count?: number, options?: { readonly signal?: AbortSignal }): Promise<void>
  /** Calls `listener` with all rows as they entered and then with what changes of them, until stopped. */
  changes(
    listener: (delta: QueryDelta<A>) => void,
    options?: { readonly signal?: AbortSignal }
  ): () => void
  /** Asks no more. What was shown last stays. */
  close(): void
}

/** How a query is answered. */
export interface QueryExplanation {
  readonly plan: "scan" | "index"
  /** What is looked up; nothing for a scan. */
  readonly steps: ReadonlyArray<{
    readonly index: { readonly fields: ReadonlyArray<string>; readonly kind: "hash" | "sorted" | "inverted" }
    readonly by: "equality" | "range" | "elements" | "order" | "words"
    readonly candidates: number
  }>
  /** Records that are looked at, as far as can be told before. */
  readonly candidates: number
  /** Records in the map. */
  readonly records: number
  /** Whether they come in order, so that looking stops when there are enough. */
  readonly isOrdered: boolean
  /** The fields by whose values a live query is found; `undefined` where it judges every write. */
  readonly ties: ReadonlyArray<string> | undefined
  /** Of a search, why it gives the record that was asked for its score; `undefined` where none was, or where it doesn't find it. */
  readonly score: ScoreExplanation | undefined
}

/** Why a record has its score: the sum of what each term adds in each field, by BM25. */
export interface ScoreExplanation {
  readonly key: string
  readonly score: number
  readonly parts: ReadonlyArray<{
    readonly field: string
    readonly term: string
    readonly weight: number
    readonly boost: number
    readonly termFrequency: number
    readonly documentFrequency: number
    readonly documents: number
    readonly inverseDocumentFrequency: number
    readonly length: number
    readonly averageLength: number
    readonly contribution: number
  }>
}

/** How text is searched for. */
export interface SearchOptions<A> {
  /** Of the fields that the map is searched by, those to look into. @default all */
  readonly fields?: ReadonlyArray<FieldPath<A>> | undefined
  /** The best so many. @default 10 */
  readonly limit?: number | undefined
  /** Whether the last word may be the beginning of one. @default true */
  readonly prefix?: boolean | undefined
}

/** A record that has what was searched for. */
export interface SearchHit<A> {
  readonly key: string
  readonly value: A
  /** How well it matches: only to be compared with that of others of the same search. */
  readonly score: number
  /**
   * Where it matches: the field, which text of a list it is in, and the places there, as UTF-16 units, the end excluded. Nothing where this
   * device doesn't know by what the map is searched.
   */
  readonly highlights: ReadonlyArray<{
    readonly field: string
    readonly element: number | undefined
    readonly ranges: ReadonlyArray<readonly [start: number, end: number]>
  }>
}
