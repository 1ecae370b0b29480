/** Storage in SQLite for Effect applications in Node; for others the driver alone is in `@topgun/adapters/sqlite`. */
import * as Storage from "@topgun/core/Storage"
import type * as Layer from "effect/Layer"
import { sqlite } from "./sqlite.ts"

export { sqlite }

/** The storage of a name in an SQLite file, which belongs to one client: give each user a name of their own. */
export const layer = (file: string, name = "topgun"): Layer.Layer<Storage.Storage> =>
  Storage.layerAdapter(() => sqlite(file), name)
