/** Where a Chromium lies on this machine. */
import { existsSync } from "node:fs"
import { delimiter, join } from "node:path"

const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]

const elsewhere = [
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
  "C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe"
]

/**
 * The path of a Chromium, or undefined. `CHROMIUM_PATH` is asked first and alone when set: a wrong path there is an error of its
 * owner's and must not be papered over with another browser. Then the programs on the `PATH`, then what playwright-core has installed.
 */
export const findChromium = async () => {
  const given = process.env.CHROMIUM_PATH
  if (given !== undefined && given !== "") {
    if (!existsSync(given)) throw new Error(`CHROMIUM_PATH names ${given}, which does not exist`)
    return given
  }
  const folders = ["/usr/bin", ...(process.env.PATH ?? "").split(delimiter)].filter((folder) => folder !== "")
  const candidates = [...names.flatMap((name) => folders.map((folder) => join(folder, name))), ...elsewhere]
  const found = candidates.find((path) => existsSync(path))
  if (found !== undefined) return found
  try {
    const { chromium } = await import("playwright-core")
    return existsSync(chromium.executablePath()) ? chromium.executablePath() : undefined
  } catch {
    // Not installed yet, or no browser known for this system: there is none then.
    return undefined
  }
}
