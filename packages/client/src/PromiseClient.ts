/** The Promise form of the client, as types: plain TypeScript, none of Effect's. `promise.ts` makes it, `facade.ts` is it. */
import type { Declaration, MapDeclaration, MapLike } from "@topgun/core/Grid"
import type { StorageAdapter } from "@topgun/core/StorageAdapter"
import type { Live } from "./Live.ts"
import type { Change, RejectedWrite, SyncStatus } from "./Reports.ts"

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

/**
 * A map. Reads are synchronous, from memory; values are frozen, and the same object until they change. Before the client
 * is ready a read throws NotLoaded, while writes wait for it.
 */
export interface GridMap<A> extends Iterable<readonly [key: string, value: A]> {
  readonly name: string
  get(key: string): A | undefined
  has(key: string): boolean
  keys(): IterableIterator<string>
  values(): IterableIterator<A>
  entries(): IterableIterator<readonly [key: string, value: A]>
  /** The number of keys that have a value. */
  readonly size: number
  /** The Merkle root of the confirmed records, 16 hex digits: equal on two devices whose confirmed records are. */
  readonly digest: string
  /** Writes a value. @throws at once, with nothing changed, when the value is refused */
  set(key: string, value: A, options?: WriteOptions): Write
  /** Writes what `next` makes of the present value; `undefined` deletes the key. */
  update(key: string, next: (current: A | undefined) => A | undefined, options?: WriteOptions): Write
  remove(key: string, options?: WriteOptions): Write
  /** One key's value as it changes. */
  watch(key: string): Live<A | undefined>
  /** Calls `listener` with all changes of one step, local and remote, until stopped. */
  subscribe(
    listener: (changes: ReadonlyArray<Change<A>>) => void,
    options?: { readonly signal?: AbortSignal }
  ): () => void
  /** Resolves when the map can be read. */
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
  /** A map, by its declaration or, untyped, by its name. */
  map<A>(map: MapLike<A>): GridMap<A>
  /** Resolves when storage is open and what this device remembers is loaded. Never waits for the network. */
  ready(options?: Waiting): Promise<void>
  /** Resolves when the server has all that was written here so far, and this device all that the server has. */
  synced(options?: Waiting): Promise<void>
  readonly status: Live<SyncStatus>
  readonly rejectedWrites: Live<ReadonlyArray<RejectedWrite>> & {
    /** Writes the value again, as of now. It stays in the list until that is durable on this device. */
    retry(id: string): Write
    discard(id: string): void
  }
  connect(): Promise<void>
  disconnect(): Promise<void>
  /** Begins anew at once; the way out of ERROR. */
  resetConnection(): Promise<void>
  serverStatus(options?: Waiting): Promise<ServerStatus>
  /** Makes what was written durable on this device, and closes. */
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

export interface ClientOptions {
  /** Maps to open at the start, so that they are loaded and synchronised without being asked for. */
  readonly grid?: ReadonlyArray<Declaration | MapDeclaration<never>>
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
  /** Whether to connect when opened. @default true */
  readonly autoConnect?: boolean
  /** Hears of faults that nobody waits for: rejected and dropped writes, storage faults, a throwing listener. */
  readonly onError?: (fault: unknown) => void
}
