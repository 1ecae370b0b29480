/** Effect's own diagnostics (floating effects, untagged failures, missing services) over every package's sources and tests. */
import { root, runInstalled, runMain } from "./steps.mjs"
import { existsSync, readdirSync } from "node:fs"
import { join } from "node:path"

await runMain(() => {
  for (const name of readdirSync(join(root, "packages"))) {
    for (const area of ["src", "test"]) {
      const project = join(root, "packages", name, `tsconfig.${area}.json`)
      if (!existsSync(project) || !existsSync(join(root, "packages", name, area))) continue
      runInstalled("@effect/tsgo/dist/effect-tsgo.cjs", [
        "diagnostics",
        "--project",
        project,
        "--severity",
        "error,warning",
        "--strict",
        "--format",
        "text"
      ])
    }
  }
})
