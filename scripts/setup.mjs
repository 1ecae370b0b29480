/**
 * Sets up what the tests need and npm cannot install: a Chromium. Takes one that is there (`CHROMIUM_PATH`, the `PATH`), else asks the
 * package manager (root on Debian and its kin), else playwright-core's installer. Fails with the one command that would mend it.
 */
import { findChromium } from "./chromium.mjs"
import { run, runInstalled, runMain, StepFailed } from "./steps.mjs"
import { existsSync } from "node:fs"

const aptCommand = "apt-get -q update && apt-get -q install -y --no-install-recommends chromium"
const installerCommand = "npx playwright-core install --with-deps chromium"

/** Returns the path of a Chromium, installing one where needed. Throws `StepFailed` when none can be had. */
export const setUpChromium = async () => {
  const present = await find()
  if (present !== undefined) return present
  const isDebian = existsSync("/usr/bin/apt-get")
  const isRoot = process.getuid?.() === 0
  console.log("No Chromium found; installing one for the browser tests")
  try {
    if (isDebian && isRoot) {
      run("sh", ["-c", aptCommand], { env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" } })
    } else {
      runInstalled("playwright-core/cli.js", ["install", "chromium"])
    }
  } catch (cause) {
    if (!(cause instanceof StepFailed)) throw cause
    console.error(cause.message)
  }
  const installed = await find()
  if (installed !== undefined) return installed
  throw new StepFailed(
    "The browser tests need a Chromium. Run this and start again (or set CHROMIUM_PATH):\n  "
      + (isDebian ? `sudo sh -c '${aptCommand}'` : installerCommand)
  )
}

const find = async () => {
  try {
    return await findChromium()
  } catch (cause) {
    throw new StepFailed(cause.message)
  }
}

if (process.argv[1] === import.meta.filename) {
  await runMain(async () => {
    console.log(`Chromium: ${await setUpChromium()}`)
  })
}
