/** Vitest's global set-up for projects whose tests start real processes: `dist` is built before the first of them, once a run. */
import { buildPackages } from "./steps.mjs"

const built = Symbol.for("@topgun/build-once")

export default () => {
  if (globalThis[built] === true) return
  buildPackages()
  globalThis[built] = true
}
