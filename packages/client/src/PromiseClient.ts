/** The Promise form of the client, as types: plain TypeScript, none of Effect's. `promise.ts` makes it, `facade.ts` is it. */
import type { FieldPath } from "@topgun/core/FieldPath"
import type {
  CounterDeclaration,
  CounterLike,
  Declaration,
  MapDeclaration,
  MapLike,
  OrMapDeclaration,
  OrMapLike
} from "@topgun/core/Grid"
import type { StorageAdapter } from "@topgun/core/StorageAdapter"
import type { Where } from "@topgun/core/Where"
import type { Batch } from "./Batch.ts"
import type { Live } from "./Live.ts"
import type { NetworkEvents } from "./NetworkEvents.ts"
import type { QueryExplanation, QueryHandle, QueryOptions, SearchHit, SearchOptions, Shown } from "./QueryTypes.ts"
import type { Change, LogEntry, LogoutOptions, MapStatus, RejectedWrite, SyncStatus } from "./Reports.ts"
import type { Tabs } from "./Tabs.ts"

export type WriteConcern = "FIRE_AND_FORGET" | "MEMORY" | "APPLIED" | "REPLICATED" | "PERSISTED"

/** What the server says of a write: the level that it has really reached. */
export interface Ack {
  readonly opId: string
  readonly level: WriteConcern
  /** How many other nodes hold the write. */
  readonly replicas: number
  readonly persisted: boolean
  /** The write was replaced by a later one of its key before it was sent; this is that one's outcome. */
  readonly superseded?: boolean
}

/** A write on its way. It is visible already; awaiting it means `local`. */
export interface Write extends PromiseLike<void> {
  /** Record and operation are durable on this device. */
  readonly local: Promise<void>
  /** The server has acknowledged the write at the level asked for. */
  readonly server: Promise<Ack>
}

export interface WriteOptions {
  /** How far the write must come before `server` settles. */
  readonly writeConcern?: WriteConcern | undefined
  /** How long `server` waits, in ms from the write. The write goes on after that. */
  readonly timeoutMs?: number | undefined
  /** How long the value lives, in ms from the write, on every device; without it the value stays. */
  readonly ttlMs?: number | undefined
}

/** What a write without a lifetime of its own may ask for. */
export type UntimedOptions = Omit<WriteOptions, "ttlMs">

/** One version of a key, as it is stored and sent. */
export interface MapRecord {
  /** When it was written, by the hybrid logical clock of the node that did: ms and a counter. */
  readonly millis: number
  readonly counter: number
  readonly nodeId: string
  /** Whether it says that the key is deleted. */
  readonly isTombstone: boolean
  /** When its value expires, in ms; 0 for never. */
  readonly expiresAt: number
  /** All of it, in bytes that order as records do. */
  readonly row: Uint8Array
}

/**
 * A map. Reads are synchronous, from memory; values are frozen, and the same object until they change. Before the client
 * is ready a read throws NotLoaded, while writes wait for it.
 */
export interface GridMap<A> extends Iterable<readonly [key: string, value: A]> {
  readonly name: string
  readonly declaration: MapDeclaration<A>
  get(key: string): A | undefined
  has(key: string): boolean
  keys(): IterableIterator<string>
  values(): IterableIterator<A>
  entries(): IterableIterator<readonly [key: string, value: A]>
  /** The number of keys that have a value. */
  readonly size: number
  /** The Merkle root of the confirmed records, 16 hex digits: equal on two devices whose confirmed records are. */
  readonly digest: string
  /** What doesn't fit the map's schema in a key's value, which others have written; `undefined` when it fits. */
  issues(key: string): string | undefined
  /** The record behind a key, tombstones too: its stamp and its canonical bytes. */
  getRecord(key: string): MapRecord | undefined
  /**
   * Joins a record that was made elsewhere, under its own stamp: it's written where nothing later is here, and sent as any
   * write. Refused where it comes from too far in the future.
   */
  merge(key: string, record: Pick<MapRecord, "row">, options?: UntimedOptions): Write
  /** Writes a value. @throws at once, with nothing changed, when the value is refused */
  set(key: string, value: A, options?: WriteOptions): Write
  /** Writes what `next` makes of the present value; `undefined` deletes the key. */
  update(key: string, next: (current: A | undefined) => A | undefined, options?: WriteOptions): Write
  remove(key: string, options?: WriteOptions): Write
  /** Deletes all keys that this device knows, in one step here: each deletion is an operation of its own. */
  clear(options?: WriteOptions): Write
  /** One key's value as it changes. */
  watch(key: string): Live<A | undefined>
  /** Calls `listener` with all changes of one step, local and remote, until stopped. */
  subscribe(
    listener: (changes: ReadonlyArray<Change<A>>) => void,
    options?: { readonly signal?: AbortSignal }
  ): () => void
  /** Whether the map is in step with the server, or ever was. Reading it throws NotLoaded before the client is ready. */
  readonly status: Live<MapStatus>
  /** Resolves when the map can be read. */
  ready(): Promise<void>
}

/**
 * A map of sets of values: what one device adds while another removes is kept. Reads are as those of a {@link GridMap}; sets
 * are frozen, and the same until they change.
 */
export interface GridOrMap<A> extends Iterable<readonly [key: string, values: ReadonlyArray<A>]> {
  readonly name: string
  readonly declaration: OrMapDeclaration<A>
  /** The values of a key in the order in which they were added first; none where there is no such key. */
  getValues(key: string): ReadonlyArray<A>
  has(key: string): boolean
  keys(): IterableIterator<string>
  entries(): IterableIterator<readonly [key: string, values: ReadonlyArray<A>]>
  /** The number of keys that have a value. */
  readonly size: number
  /** The Merkle root of the confirmed records, 16 hex digits: equal on two devices whose confirmed records are. */
  readonly digest: string
  /** What doesn't fit the map's schema in a key's values, which others have written; `undefined` when all fit. */
  issues(key: string): string | undefined
  /** Adds a value to a key's. @throws at once, with nothing changed, when the value is refused */
  add(key: string, value: A, options?: WriteOptions): Write
  /** Removes a value of a key, as far as this device knows of its additions; one that is added elsewhere meanwhile stays. */
  remove(key: string, value: A, options?: WriteOptions): Write
  /** Removes all values of a key in the same way. */
  removeAll(key: string, options?: WriteOptions): Write
  /** Removes all values of all keys in the same way, in one step here: each removal is an operation of its own. */
  clear(options?: WriteOptions): Write
  /** One key's values as they change. */
  watch(key: string): Live<ReadonlyArray<A>>
  /** Calls `listener` with all changes of one step, local and remote, until stopped. */
  subscribe(
    listener: (changes: ReadonlyArray<Change<ReadonlyArray<A>>>) => void,
    options?: { readonly signal?: AbortSignal }
  ): () => void
  /** Whether the map is in step with the server, or ever was. Reading it throws NotLoaded before the client is ready. */
  readonly status: Live<MapStatus>
  /** Resolves when the map can be read. */
  ready(): Promise<void>
}

/** A number that many devices count at once. Reading it throws NotLoaded before the client is ready. */
export interface GridCounter extends Live<number> {
  readonly name: string
  readonly declaration: CounterDeclaration
  readonly digest: string
  /** Adds `by`, a safe integer of 0 or more. @throws at once, with nothing changed, when that isn't possible */
  increment(by?: number, options?: UntimedOptions): Write
  /** Takes `by`, a safe integer of 0 or more, away. */
  decrement(by?: number, options?: UntimedOptions): Write
  /** Whether the counter is in step with the server, or ever was. Reading it throws NotLoaded before the client is ready. */
  readonly status: Live<MapStatus>
  /** Resolves when the counter can be read. */
  ready(): Promise<void>
}

/** A server's answer to `serverStatus`. */
export interface ServerStatus {
  readonly version: string
  readonly nodeId: string
  readonly uptimeMillis: number
  readonly connections: number
  readonly storage: string
  readonly maps: ReadonlyArray<
    { readonly name: string; readonly size: number; readonly records: number; readonly root: string }
  >
}

/** What waits can be given up by. */
export interface Waiting {
  readonly signal?: AbortSignal
}

export interface Client {
  /** A map of records, by its declaration or, untyped, by its name. @throws MapKindMismatch when it's of another kind */
  map<A>(map: MapLike<A>): GridMap<A>
  /** A map of sets, in the same way. */
  orMap<A>(map: OrMapLike<A>): GridOrMap<A>
  /** A counter, in the same way. */
  counter(counter: CounterLike): GridCounter
  /**
   * Asks a query of a map of records until it is closed. Of a map that is downloaded it is answered here, at once; of one that isn't
   * (`sync: "none"`) by the server, beside what this device has written to it.
   *
   * @throws QueryInvalid and QueryTooExpensive for what isn't a query, MapKindMismatch, ClientClosed
   */
  query<A, const Path extends FieldPath<A> = never>(
    map: MapLike<A>,
    options?: QueryOptions<NoInfer<A>, Path>
  ): QueryHandle<Shown<A, Path>>
  /** How many records of a map a predicate is true of: here, of a map that is downloaded, else on the server. */
  count<A>(map: MapLike<A>, where?: Where<NoInfer<A>>, options?: Waiting): Promise<number>
  /**
   * The records that match a text best: here, of a map that is downloaded, else on the server. For results that follow what changes there
   * is `search` of {@link query}. Rejects with QueryInvalid where the map isn't searched.
   */
  search<A>(
    map: MapLike<A>,
    text: string,
    options?: SearchOptions<NoInfer<A>> & Waiting
  ): Promise<ReadonlyArray<SearchHit<A>>>
  /** How a query is answered: by this device or, with `server`, by the server; of a search, why it gives the record of a key its score. */
  explain<A>(
    map: MapLike<A>,
    query?: QueryOptions<NoInfer<A>>,
    options?: { readonly server?: boolean | undefined; readonly key?: string | undefined } & Waiting
  ): Promise<QueryExplanation>
  /**
   * Makes all writes of `build` at once: visible and stored in one step here, taken as a whole or not at all by a node of the
   * server. `build` is called when the client is open, and again when there was no room at first.
   */
  batch(build: (batch: Batch) => void, options?: UntimedOptions): Write
  /** Resolves when storage is open and what this device remembers is loaded. Never waits for the network. */
  ready(options?: Waiting): Promise<void>
  /** Resolves when the server has all that was written here so far, and this device all that the server opens to it. */
  synced(options?: Waiting): Promise<void>
  readonly status: Live<SyncStatus>
  readonly rejectedWrites: Live<ReadonlyArray<RejectedWrite>> & {
    /** Writes the value again, as of now. It leaves the list with that, in one transaction of storage. */
    retry(id: string): Write
    discard(id: string): void
    /**
     * All of them as JSON Lines, oldest first: the value as JSON to read, and as `encoded`, base64 of its canonical bytes, to
     * get it back whole.
     */
    export(): string
  }
  connect(): Promise<void>
  disconnect(): Promise<void>
  /** Begins anew at once; the way out of ERROR. */
  resetConnection(): Promise<void>
  /** The token from now on: it renews the connection in place, or ends the waiting for one. What comes of it, `status` tells. */
  setAuthToken(token: string): void
  /**
   * Ends the connection and deletes this user's data from the device: all of it, or nothing when it rejects. The client is
   * closed then. Rejects with UnsentWrites when there are such and nothing was said of them.
   */
  logout(options?: LogoutOptions & Waiting): Promise<void>
  serverStatus(options?: Waiting): Promise<ServerStatus>
  /** Makes what was written durable on this device, and closes. */
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/**
 * Where a client's log goes: what has a method for each level, as `console` and the loggers of pino and others have, or a function
 * that takes whole lines.
 */
export type Logger =
  | ((entry: LogEntry) => void)
  | { readonly [Level in LogEntry["level"]]: (message: string, facts: LogEntry["facts"]) => void }

export interface ClientOptions {
  /** Maps to open at the start, so that they are loaded and synchronised without being asked for. */
  readonly grid?: ReadonlyArray<Declaration | MapDeclaration<never> | OrMapDeclaration<never>>
  /** The server, as `ws://host:port`. Without it the client is local only. */
  readonly url?: string
  /** Where this device keeps its data. @default in memory, which does not outlive the page or process */
  readonly storage?: StorageAdapter
  /** Whose data it is: each user's is kept apart. */
  readonly userId?: string
  /** Keeps several clients of one user and server apart. */
  readonly storageKey?: string
  /** How far a write must come before `server` settles. @default "APPLIED" */
  readonly writeConcern?: WriteConcern
  /** How long `server` waits, in ms. @default 5000 */
  readonly writeTimeoutMs?: number
  readonly backpressure?: {
    readonly strategy?: "pause" | "throw" | "drop-oldest"
    /** Writes that may wait to be sent. @default 100000 */
    readonly capacity?: number
    /** Writes that may wait for room under `pause`. @default 1000 */
    readonly waitingMax?: number
  }
  readonly backoff?: {
    /** The first delay. @default 500 */
    readonly initialMs?: number
    /** What each delay is multiplied with for the next. @default 1.5 */
    readonly factor?: number
    /** The longest delay before jitter. @default 30000 */
    readonly capMs?: number
    /** How many tries before giving up. @default unlimited */
    readonly retries?: number
  }
  /**
   * The token that the server is to let this client in with, or what answers one: for each connection, and before the last one
   * expires.
   */
  readonly auth?: string | (() => string | Promise<string>)
  /** How long `auth` may take to answer, in ms. @default 5000 */
  readonly authTimeoutMs?: number
  /**
   * How long a write may be sent and not acknowledged, in ms, on a connection that is alive, before the connection is replaced.
   * @default 15000
   */
  readonly stallMs?: number
  /** What tells of the network and of the user's return. @default the browser's events, where the server isn't on this machine */
  readonly network?: NetworkEvents
  /**
   * Where this tab finds the others that share its storage. With "none" it opens the storage as if it were alone: any other that
   * does so takes it away from this one. @default the browser's tabs
   */
  readonly tabs?: Tabs | "none" | undefined
  /** Whether to connect when opened. @default true */
  readonly autoConnect?: boolean
  /** Hears of states, failures, retries and faults, as lines for people; never of what is written. @default nobody does */
  readonly logger?: Logger
  /** Hears of faults that nobody waits for: rejected and dropped writes, storage faults, a throwing listener. */
  readonly onError?: (fault: unknown) => void
}
