// oxlint-disable no-console
/**
 * The crash tests and those of corruption with many more rounds, on other seeds each time: `npm run crash`. It says which seed it took;
 * `npm run crash -- 42` takes that one again.
 */
import { spawnSync } from "node:child_process"
import { join, resolve } from "node:path"

const root = resolve(import.meta.dirname, "../..")
const seed = Number(process.argv[2] ?? Math.floor(Math.random() * 20_000))
console.log(`seed ${seed}`)
const { status } = spawnSync(process.execPath, [
  join(root, "node_modules/vitest/vitest.mjs"),
  "run",
  "--no-file-parallelism",
  "packages/testing/test/crash.test.ts",
  "packages/testing/test/trouble.test.ts",
  "packages/server/test/corruption.test.ts"
], {
  cwd: root,
  stdio: "inherit",
  env: {
    ...process.env,
    TOPGUN_CRASH_SEED: String(seed),
    TOPGUN_CRASH_ROUNDS: "200",
    TOPGUN_CORRUPTION_SEEDS: "1000"
  }
})
console.log(`seed ${seed}`)
process.exitCode = status ?? 1
