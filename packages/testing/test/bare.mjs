// oxlint-disable no-console
/**
 * A process without a browser, for the tests: every global that only a browser has can be touched but once, as it throws. What its
 * arguments name is imported, and what was touched meanwhile is printed, each with what was being imported.
 *
 * `--pure`: what only Node has is gone as well, as in a browser.
 */
const [, , mode, ...entries] = process.argv

const browsers = [
  "window",
  "document",
  "navigator",
  "location",
  "indexedDB",
  "localStorage",
  "sessionStorage",
  "WebSocket",
  "BroadcastChannel",
  "addEventListener"
]
const touched = []
let current
for (const name of browsers) {
  Object.defineProperty(globalThis, name, {
    configurable: true,
    get: () => {
      // What loads addons into Node looks for Electron's window first.
      if (/node-gyp-build/.test(new Error().stack)) return undefined
      touched.push(`${current} touches ${name}`)
      throw new ReferenceError(`${name} is not defined here`)
    }
  })
}
if (mode === "--pure") { for (const name of ["process", "Buffer", "global", "setImmediate"]) delete globalThis[name] }

for (const entry of entries) {
  current = entry
  try {
    await import(entry)
  } catch (fault) {
    touched.push(`${entry} can't be imported: ${fault}`)
  }
}
console.log(JSON.stringify({ imported: entries.length, touched }))
