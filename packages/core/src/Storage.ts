/** A node's own storage, as a service over any {@link StorageAdapter}. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import {
  StorageEvicted,
  type StorageFailure,
  StorageKeyRefused,
  StorageQuotaExceeded,
  StorageSuperseded,
  StorageTooNew,
  StorageUnavailable
} from "./GridError.ts"
import { memory, type StorageAdapter, StorageFault, type StorageRow, type StorageWrite } from "./StorageAdapter.ts"

export { memory, type StorageAdapter, type StorageRow, type StorageWrite }

/** A node's storage, opened. */
export interface OpenStorage {
  readonly kind: string
  readonly durable: boolean
  /** Why rows are in memory only, where they were to be kept. */
  readonly fault: StorageFailure | undefined
  /**
   * Where the tabs of a browser have it in common: whether it is this one's now. A commit that fails as superseded, as another
   * has come to own it, is to be made again.
   */
  readonly isOwned?: () => boolean
  readonly scan: (
    space: string,
    after: string | undefined,
    limit: number
  ) => Effect.Effect<ReadonlyArray<StorageRow>, StorageFailure>
  readonly commit: (writes: ReadonlyArray<StorageWrite>) => Effect.Effect<void, StorageFailure>
  /** Opens it again, empty, after its rows were deleted under it. */
  readonly reopen: Effect.Effect<void, StorageFailure>
}

/** Where this node keeps its data. It is opened by who owns it, which among a browser's tabs is one at a time. */
export class Storage extends Context.Tag("@topgun/core/Storage")<Storage, {
  /** Whose storage it is: no two names share a row. */
  readonly name: string
  readonly kind: string
  readonly durable: boolean
  /** Whether the tabs of a browser have it in common. */
  readonly isShared: boolean
  /** Opens it, and owns it as long as the scope is. */
  readonly open: Effect.Effect<OpenStorage, StorageFailure, Scope.Scope>
}>() {}

const failures = {
  quota: StorageQuotaExceeded,
  evicted: StorageEvicted,
  superseded: StorageSuperseded,
  newer: StorageTooNew,
  key: StorageKeyRefused
} as const

/** A driver's rejection as the typed error that it stands for. */
const failureOf = (what: string, cause: unknown): StorageFailure => {
  const Failure = cause instanceof StorageFault ? failures[cause.trouble] : StorageUnavailable
  return new Failure({ reason: `${what}: ${cause instanceof Error ? cause.message : String(cause)}`, cause })
}

/** What a driver does, failing with what its rejection stands for. */
export const attempt = <A>(what: string, run: () => Promise<A>): Effect.Effect<A, StorageFailure> =>
  Effect.tryPromise({ try: run, catch: (cause) => failureOf(what, cause) })

/**
 * Whether a node can do without its storage for now. Where it is somebody else's, of another key or of a newer version, it can't:
 * it would show nothing where there is something, and be one writer too many.
 */
const isPassable = ({ _tag }: StorageFailure): boolean =>
  _tag === "StorageUnavailable" || _tag === "StorageQuotaExceeded"

/**
 * The storage of an adapter, open for `name` as long as the scope is. One that would keep rows and can't be opened, as there is no
 * room, no answer or no such thing here, is stood in for by memory, which says so: see `fault`.
 */
export const make = Effect.fnUntraced(function*(adapter: StorageAdapter, name: string) {
  const open = (which: StorageAdapter) => attempt(`${which.kind} could not be opened`, () => which.open(name))
  const close = (which: StorageAdapter) =>
    Effect.ignoreLogged(attempt(`${which.kind} could not be closed`, () => which.close()))
  const acquire = (which: StorageAdapter) => Effect.as(Effect.acquireRelease(open(which), () => close(which)), which)

  let fault: StorageFailure | undefined
  const used = yield* Effect.catchIf(
    acquire(adapter),
    (failure) => adapter.durable && isPassable(failure),
    (failure) => {
      fault = failure
      return acquire(memory())
    }
  )
  const opened: OpenStorage = {
    kind: used.kind,
    durable: used.durable,
    fault,
    scan: (space, after, limit) => attempt(`${used.kind} could not be read`, () => used.scan(space, after, limit)),
    commit: (writes) => attempt(`${used.kind} could not be written`, () => used.commit(writes)),
    reopen: Effect.uninterruptible(Effect.zipRight(close(used), open(used)))
  }
  return opened
})

/** A layer over any driver. */
export const layerAdapter = (adapter: () => StorageAdapter, name = "topgun"): Layer.Layer<Storage> =>
  Layer.sync(Storage, () => {
    const driver = adapter()
    const { durable, isShared = false, kind } = driver
    return Storage.of({ name, kind, durable, isShared, open: make(driver, name) })
  })

/** Storage in memory, new for each build of the layer. */
export const layerMemory: Layer.Layer<Storage> = layerAdapter(memory)
