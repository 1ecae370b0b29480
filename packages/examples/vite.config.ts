import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { defineConfig, type Plugin } from "vite"

const page = join(import.meta.dirname, "demo")

/** Adds the page's service worker, which is told the names of all files of the build: it keeps them for when there's no server. */
const serviceWorker = (): Plugin => ({
  name: "service-worker",
  enforce: "post",
  apply: "build",
  generateBundle(_, bundle) {
    const files = Object.keys(bundle).sort().map((file) => file === "index.html" ? "./" : file)
    const contents = Object.values(bundle).map((file) => file.type === "chunk" ? file.code : file.source)
    const version = contents.reduce((hash, content) => hash.update(content), createHash("sha256")).digest("hex")
    const source = readFileSync(join(page, "service-worker.js"), "utf8")
    const constants = `const version = ${JSON.stringify(version.slice(0, 16))}\nconst files = ${
      JSON.stringify(files)
    }\n`
    this.emitFile({ type: "asset", fileName: "service-worker.js", source: constants + source })
  }
})

export default defineConfig(({ command }) => {
  // The page is the same whoever builds it; Vitest, which does so for its tests, has set another environment.
  if (command === "build") process.env.NODE_ENV = "production"
  return {
    root: page,
    // The packages' sources, so that the page needs no build of theirs; the rest are Vite's own defaults, which a list replaces.
    resolve: { conditions: ["@topgun/source", "module", "browser", "development|production"] },
    build: { target: "es2022", outDir: "../dist", emptyOutDir: true, modulePreload: { polyfill: false } },
    plugins: [serviceWorker()]
  }
})
