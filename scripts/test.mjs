/**
 * `npm test`: from a fresh clone to the result. Installs, sets up, builds, runs every test. The last line is `N passed, N failed`; a
 * step that fails before the tests counts as one failure. Arguments after `--` go to vitest.
 */
import { buildPackages, install, root, runInstalled, StepFailed } from "./steps.mjs"
import { mkdirSync, readFileSync, rmSync } from "node:fs"
import { dirname, join } from "node:path"

const report = join(root, "node_modules/.cache/topgun/tests.json")

/** Counts of vitest's JSON report. A file that failed without a failed test in it (it didn't load) is a failure of its own. */
const count = ({ numFailedTests, numPassedTests, numPendingTests, numTodoTests, testResults }) => {
  const broken = testResults.filter(({ assertionResults, status }) =>
    status === "failed" && !assertionResults.some((test) => test.status === "failed")
  )
  return { passed: numPassedTests, failed: numFailedTests + broken.length, skipped: numPendingTests + numTodoTests }
}

const runTests = () => {
  mkdirSync(dirname(report), { recursive: true })
  rmSync(report, { force: true })
  let ended = true
  try {
    runInstalled("vitest/vitest.mjs", [
      "run",
      "--reporter=default",
      "--reporter=json",
      `--outputFile.json=${report}`,
      ...process.argv.slice(2)
    ])
  } catch (cause) {
    if (!(cause instanceof StepFailed)) throw cause
    ended = false
  }
  const counted = count(JSON.parse(readFileSync(report, "utf8")))
  // Vitest may fail though every test passed (an unhandled rejection, a set-up that threw).
  return ended || counted.failed > 0 ? counted : { ...counted, failed: 1 }
}

let result = { passed: 0, failed: 1, skipped: 0 }
try {
  install()
  // Loaded only now: it needs the installed packages.
  const { setUpChromium } = await import("./setup.mjs")
  process.env.CHROMIUM_PATH = await setUpChromium()
  buildPackages()
  result = runTests()
} catch (cause) {
  console.error(cause instanceof StepFailed ? cause.message : cause)
}
if (result.skipped > 0) console.log(`${result.skipped} skipped`)
console.log(`${result.passed} passed, ${result.failed} failed`)
process.exitCode = result.failed === 0 ? 0 : 1
