/** Encrypted storage for Effect applications; for others the driver alone is in `@topgun/adapters/encrypted`. */
import type { StorageFailure } from "@topgun/core/GridError"
import * as Storage from "@topgun/core/Storage"
import type { StorageAdapter } from "@topgun/core/StorageAdapter"
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import {
  encrypted,
  type EncryptedStorage,
  type EncryptionKey,
  type EncryptionLimits,
  type Rotation
} from "./encrypted.ts"

export { encrypted, type EncryptedStorage, type EncryptionKey, type EncryptionLimits, type Rotation }

/** Encrypts what the storage `inner` keeps under a name. Whoever changes keys needs the driver itself: see {@link rotate}. */
export const layer = (
  inner: () => StorageAdapter,
  options: EncryptionKey & EncryptionLimits,
  name = "topgun"
): Layer.Layer<Storage.Storage> => Storage.layerAdapter(() => encrypted(inner(), options), name)

/** Changes the keys of a driver that is open, by `Storage.layerAdapter`, while it's in use. */
export const rotate = (storage: EncryptedStorage, rotation?: Rotation): Effect.Effect<void, StorageFailure> =>
  Storage.attempt(`the keys of ${storage.kind} could not be changed`, () => storage.rotate(rotation))
