/** `npm start`: installs, builds, and runs the server with the demo page. Arguments after `--` go to `topgun serve`. */
import { buildDemo, buildPackages, install, root, runMain } from "./steps.mjs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

await runMain(async () => {
  install()
  buildPackages()
  buildDemo()
  const main = join(root, "packages/cli/dist/main.js")
  const demo = join(root, "packages/examples/dist")

  // The server runs in this process. On Ctrl-C both the terminal and npm send SIGINT, and Effect's runtime listens to the first only:
  // the second would kill the server in the midst of its orderly stop. Whoever insists after a second gets their way.
  let firstAt
  const onSignal = () => {
    firstAt ??= performance.now()
    if (performance.now() - firstAt > 1_000) process.exit(130)
  }
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal)
  process.argv = [process.execPath, main, "serve", "--demo", demo, ...process.argv.slice(2)]
  await import(pathToFileURL(main).href)
})
