/** Installs the dependencies when they are missing or differ from the lock file. */
import { install, runMain } from "./steps.mjs"

await runMain(() => install())
