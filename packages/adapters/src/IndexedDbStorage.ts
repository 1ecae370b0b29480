/** A browser's storage for Effect applications; for others the driver alone is in `@topgun/adapters/indexeddb`. */
import * as Storage from "@topgun/core/Storage"
import type * as Layer from "effect/Layer"
import { indexedDb } from "./indexeddb.ts"

export { indexedDb }

/** The IndexedDB database of a name, which belongs to one client: give each user a name of their own. */
export const layer = (name = "topgun"): Layer.Layer<Storage.Storage> => Storage.layerAdapter(indexedDb, name)
