/** A node's own storage, as a service over any {@link StorageAdapter}. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
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

/** This node's storage, opened. */
export class Storage extends Context.Tag("@topgun/core/Storage")<Storage, {
  readonly kind: string
  readonly durable: boolean
  readonly scan: (
    space: string,
    after: string | undefined,
    limit: number
  ) => Effect.Effect<ReadonlyArray<StorageRow>, StorageFailure>
  readonly commit: (writes: ReadonlyArray<StorageWrite>) => Effect.Effect<void, StorageFailure>
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

const attempt = <A>(what: string, run: () => Promise<A>): Effect.Effect<A, StorageFailure> =>
  Effect.tryPromise({ try: run, catch: (cause) => failureOf(what, cause) })

/** The storage of an adapter, open for `name` as long as the scope is. */
export const make = (adapter: StorageAdapter, name: string) =>
  Effect.as(
    Effect.acquireRelease(
      attempt(`${adapter.kind} could not be opened`, () => adapter.open(name)),
      () => Effect.ignoreLogged(attempt(`${adapter.kind} could not be closed`, () => adapter.close()))
    ),
    Storage.of({
      kind: adapter.kind,
      durable: adapter.durable,
      scan: (space, after, limit) =>
        attempt(`${adapter.kind} could not be read`, () => adapter.scan(space, after, limit)),
      commit: (writes) => attempt(`${adapter.kind} could not be written`, () => adapter.commit(writes))
    })
  )

/** A layer over any driver. */
export const layerAdapter = (
  adapter: () => StorageAdapter,
  name = "topgun"
): Layer.Layer<Storage, StorageFailure> => Layer.scoped(Storage, Effect.suspend(() => make(adapter(), name)))

/** Storage in memory, new for each build of the layer. */
export const layerMemory: Layer.Layer<Storage, StorageFailure> = layerAdapter(memory)
