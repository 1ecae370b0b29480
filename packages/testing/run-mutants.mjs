// oxlint-disable no-console
/**
 * Runs every mutant of `test/mutants.ts` against its test, and fails when one survives: then the test proves nothing.
 *
 *     node packages/testing/run-mutants.mjs           all
 *     node packages/testing/run-mutants.mjs CRDT-1    those whose id, file or description contains the word
 *
 * The last line is `N killed, N survived`.
 */
import { spawn } from "node:child_process"
import { join, resolve } from "node:path"
import { runnerImport } from "vite"
import { startVitest } from "vitest/node"

const root = resolve(import.meta.dirname, "../..")
const conditions = ["@topgun/source", "module", "node", "development|production"]
const { module: { mutants } } = await runnerImport(join(import.meta.dirname, "test/mutants.ts"))
const { module: { mutantPlugin } } = await runnerImport(join(import.meta.dirname, "src/mutants.ts"))

/** Only a hang guard: a mutant that loops for ever can't be told from one that nobody notices. */
const guardMillis = 90_000

/** All tests of a file or suite. */
const testsOf = (task) => task.type === "test" ? [task] : (task.tasks ?? []).flatMap(testsOf)
const nameOf = (task) => task.suite === undefined ? task.name : `${nameOf(task.suite)} > ${task.name}`

/** Why the mutant counts as survived; undefined when it was killed as it should be. */
const survival = async (mutant) => {
  // Its sources are loaded by the build of a page, or of a server's process, which is told by the environment.
  const isElsewhere = /\/browser\/|\/(?:crash|trouble)\.test/.test(mutant.test)
  if (isElsewhere) process.env.TOPGUN_MUTANT = JSON.stringify(mutant)
  const plugin = mutantPlugin(mutant, root)
  const vitest = await startVitest("test", [join(root, mutant.test)], {
    config: false,
    // A package, so that the repository's list of projects isn't found.
    root: join(root, ...mutant.test.split("/").slice(0, 2)),
    watch: false,
    include: ["test/**/*.test.{ts,tsx}"],
    environment: "node",
    reporters: [{}],
    testNamePattern: mutant.fails.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"),
    testTimeout: 60_000
  }, {
    plugins: [plugin],
    resolve: { conditions },
    ssr: { resolve: { conditions } },
    logLevel: "silent"
  })
  const files = vitest.state.getFiles()
  await vitest.close()
  const failed = files.flatMap(testsOf).filter((task) => task.result?.state === "fail").map(nameOf)
  if (!plugin.applied() && !isElsewhere) return `${mutant.test} doesn't load ${mutant.file}`
  if (failed.some((name) => name.includes(mutant.fails))) return undefined
  const errors = files.flatMap((file) => file.result?.errors ?? []).map((error) => error.message)
  return errors.length > 0 ? `the test file can't be loaded: ${errors[0]}` : `"${mutant.fails}" doesn't fail`
}

// Each in a process of its own: a mutant may hang it.
if (process.argv[2] === "--one") {
  const why = await survival(mutants[Number(process.argv[3])])
  if (why !== undefined) console.error(why)
  process.exit(why === undefined ? 0 : 1)
}

/** In a group of processes of its own, so that the workers of one that hangs go with it. */
const run = (mutant) =>
  new Promise((settle, reject) => {
    const child = spawn(process.execPath, [import.meta.filename, "--one", String(mutants.indexOf(mutant))], {
      detached: true,
      stdio: ["ignore", "ignore", "pipe"]
    })
    let stderr = ""
    let hangs = false
    child.stderr.setEncoding("utf8").on("data", (text) => {
      stderr += text
    })
    const guard = setTimeout(() => {
      hangs = true
      process.kill(-child.pid, "SIGKILL")
    }, guardMillis)
    child.on("error", reject)
    child.on("close", (status) => {
      clearTimeout(guard)
      settle({ hangs, status, stderr })
    })
  })

const word = process.argv[2] ?? ""
const chosen = mutants.filter(({ breaks, file, id }) => `${id} ${file} ${breaks}`.includes(word))
let survived = 0
for (const mutant of chosen) {
  const { hangs, status, stderr } = await run(mutant)
  const killed = status === 0
  if (!killed) survived++
  const why = killed ? "" : hangs ? ": it hangs" : `: ${stderr.trim()}`
  console.log(`${killed ? "killed  " : "SURVIVED"} ${mutant.id} ${mutant.breaks}${why}`)
}
console.log(`${chosen.length - survived} killed, ${survived} survived`)
process.exitCode = survived === 0 && chosen.length > 0 ? 0 : 1
