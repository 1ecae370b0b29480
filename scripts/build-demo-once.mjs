/** Vitest's global set-up for projects whose tests open the demo page: it is bundled before the first of them, once a run. */
import { buildDemo } from "./steps.mjs"

const built = Symbol.for("@topgun/build-demo-once")

export default () => {
  if (globalThis[built] === true) return
  buildDemo()
  globalThis[built] = true
}
