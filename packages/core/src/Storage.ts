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
  StorageUnavailable
} from "./GridError.ts"
import { memory, type StorageAdapter, StorageFault, type StorageRow, type StorageWrite } from "./StorageAdapter.ts"

export { memory, type StorageAdapter, type StorageRow, type StorageWrite }

/** A node's storage, opened. */
export interface OpenStorage {
  readonly kind: string
  readonly durable: boolean
  /** Whether another tab may come to own it: a commit that fails for that, as superseded, is to be made again. */
  readonly isShared?: boolean
  readonly scan: (
    space: string,
    after: string | undefined,
    limit: number
  ) => Effect.Effect<ReadonlyArray<StorageRow>, StorageFailure>
  readonly commit: (writes: ReadonlyArray<StorageWrite>) => Effect.Effect<void, StorageFailure>
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

/** The storage of an adapter, open for `name` as long as the scope is. */
export const make = (
  adapter: StorageAdapter,
  name: string
): Effect.Effect<OpenStorage, StorageFailure, Scope.Scope> =>
  Effect.as(
    Effect.acquireRelease(
      attempt(`${adapter.kind} could not be opened`, () => adapter.open(name)),
      () => Effect.ignoreLogged(attempt(`${adapter.kind} could not be closed`, () => adapter.close()))
    ),
    {
      kind: adapter.kind,
      durable: adapter.durable,
      scan: (space, after, limit) =>
        attempt(`${adapter.kind} could not be read`, () => adapter.scan(space, after, limit)),
      commit: (writes) => attempt(`${adapter.kind} could not be written`, () => adapter.commit(writes))
    }
  )

/** A layer over any driver. */
export const layerAdapter = (adapter: () => StorageAdapter, name = "topgun"): Layer.Layer<Storage> =>
  Layer.sync(Storage, () => {
    const driver = adapter()
    const { durable, isShared = false, kind } = driver
    return Storage.of({ name, kind, durable, isShared, open: make(driver, name) })
  })

/** Storage in memory, new for each build of the layer. */
export const layerMemory: Layer.Layer<Storage> = layerAdapter(memory)
