/**
 * The steps that every command of this repository is made of: install, set up, build. Plain Node, because they run before anything is
 * installed. Each step does nothing when there is nothing to do.
 */
import { spawnSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { join, resolve } from "node:path"

/** The repository's root, with no slash at the end. */
export const root = resolve(import.meta.dirname, "..")

const demo = join(root, "packages/examples")

/** A step that failed, with a message fit for the person at the terminal. */
export class StepFailed extends Error {
  name = "StepFailed"
}

/** Runs a program to its end with this terminal's output. Throws `StepFailed` when it does not exit with 0. */
export const run = (command, args, options = {}) => {
  const result = spawnSync(command, args, { cwd: root, stdio: "inherit", ...options })
  if (result.error) throw new StepFailed(`${command} could not be started: ${result.error.message}`)
  if (result.status !== 0) {
    throw new StepFailed(`${[command, ...args].join(" ")} ended with ${result.status ?? result.signal}`)
  }
}

/** Runs a JavaScript program from `node_modules` with this Node. `program` is its path there, e.g. `vite/bin/vite.js`. */
export const runInstalled = (program, args, options) =>
  run(process.execPath, [join(root, "node_modules", program), ...args], options)

const installedOf = (lockFile) =>
  Object.entries(JSON.parse(readFileSync(lockFile, "utf8")).packages).filter(([path]) =>
    path.startsWith("node_modules/")
  )

/**
 * Whether `node_modules` holds what the lock file asks for. Compares the two lock files' contents, not their times: a checkout changes
 * times without changing a dependency. Optional packages may be absent (they are for other systems).
 */
export const isInstalled = () => {
  const installedLock = join(root, "node_modules/.package-lock.json")
  if (!existsSync(installedLock)) return false
  const installed = new Map(installedOf(installedLock))
  return installedOf(join(root, "package-lock.json")).every(([path, wanted]) =>
    installed.has(path) ? installed.get(path).version === wanted.version : wanted.optional === true
  )
}

/** `npm ci`, when `node_modules` is missing or differs from the lock file. */
export const install = () => {
  if (isInstalled()) return
  console.log("Installing the dependencies (npm ci)")
  // Under `npm start` the running npm tells where it lies; its own name is enough otherwise.
  const cli = process.env.npm_execpath
  if (cli !== undefined && /npm-cli\.c?js$/.test(cli)) run(process.execPath, [cli, "ci"])
  else run("npm", ["ci"], { shell: process.platform === "win32" })
}

/** Compiles every package's `src` to its `dist`; incremental. The tests' types are the business of `npm run check`. */
export const buildPackages = () => {
  const projects = readdirSync(join(root, "packages")).map((name) => `packages/${name}/tsconfig.src.json`)
  runInstalled("typescript/bin/tsc", ["-b", ...projects.filter((path) => existsSync(join(root, path)))])
}

const newestUnder = (path, ignored) => {
  const stats = statSync(path)
  if (!stats.isDirectory()) return stats.mtimeMs
  let newest = 0
  for (const name of readdirSync(path)) {
    if (!ignored.has(name)) newest = Math.max(newest, newestUnder(join(path, name), ignored))
  }
  return newest
}

/** Bundles the demo page into `packages/examples/dist`, when a source it is made of is newer than the bundle. */
export const buildDemo = () => {
  const page = join(demo, "dist/index.html")
  const ignored = new Set(["node_modules", "dist", ".tsbuildinfo", "test"])
  const sources = [demo, ...["core", "client", "adapters"].map((name) => join(root, "packages", name))]
  if (existsSync(page) && statSync(page).mtimeMs >= Math.max(...sources.map((path) => newestUnder(path, ignored)))) {
    return
  }
  runInstalled("vite/bin/vite.js", ["build", "--logLevel", "warn"], { cwd: demo })
}

/** Runs `main`; a failed step is reported in one line and ends the process with 1. */
export const runMain = async (main) => {
  try {
    process.exitCode = await main() ?? 0
  } catch (cause) {
    if (!(cause instanceof StepFailed)) throw cause
    console.error(cause.message)
    process.exitCode = 1
  }
}
