/**
 * What TopGun costs a page: bundles small applications as Vite does for production, from the packages' sources, and prints what is loaded
 * at the start, what in all, and whose code that is. Ends with 1 when a budget is exceeded, or when something of Node's is in a bundle.
 *
 *     node scripts/bundle-size.mjs             check all applications
 *     node scripts/bundle-size.mjs --modules   … and list the 40 largest modules of each, with those that import them
 */
import { root, runMain } from "./steps.mjs"
import { readdirSync } from "node:fs"
import { isBuiltin } from "node:module"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { build, parseAst, transformWithEsbuild } from "vite"

// -- the applications ---------------------------------------------------------------------------------------------------------------

const promise = `
import { indexedDb } from "@topgun/adapters/indexeddb"
import { createClient } from "@topgun/client/promise"

const client = createClient({ url: "wss://example.org", storage: indexedDb(), userId: "alice" })
const todos = client.map("todos")
const tags = client.orMap("tags")
todos.subscribe((changes) => console.log(changes, client.status.current))
await client.ready()
await todos.set("1", { text: "milk" }).server
await tags.add("1", "dairy")
console.log(todos.get("1"), tags.getValues("1"), client.rejectedWrites.current)
`

/** With a declaration, which may have Effect's Schema to validate by. */
const declared = `
import { Grid } from "@topgun/client/promise"

const Notes = Grid.map("notes", { "~standard": { version: 1, vendor: "example", validate: (value) => ({ value }) } })
${promise}
await client.map(Notes).set("1", "milk")
`

const effect = `
import * as IndexedDbStorage from "@topgun/adapters/IndexedDbStorage"
import * as TopGunClient from "@topgun/client/TopGunClient"
import * as Transport from "@topgun/core/Transport"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

const program = Effect.gen(function*() {
  const client = yield* TopGunClient.TopGunClient
  const todos = yield* client.map("todos")
  const tags = yield* client.orMap("tags")
  yield* (yield* todos.set("1", { text: "milk" })).server
  yield* tags.add("1", "dairy")
  yield* Console.log(todos.get("1"), tags.getValues("1"))
})
const ClientLive = TopGunClient.layer().pipe(
  Layer.provide([IndexedDbStorage.layer("alice"), Transport.layerWebSocket({ url: "wss://example.org" })])
)
Effect.runFork(Effect.provide(program, ClientLive))
`

/** Those that need SQLite, which no browser has. */
const nodeOnly = new Set(["@topgun/adapters/sqlite", "@topgun/adapters/SqlStorage"])

/** What a browser can import of a package. */
const browserEntries = (name) =>
  readdirSync(join(root, "packages", name, "src")).filter((file) => file.endsWith(".ts")).map((file) =>
    file === "index.ts" ? `@topgun/${name}` : `@topgun/${name}/${file.slice(0, -".ts".length)}`
  ).filter((entry) => !nodeOnly.has(entry))

const everything = ["core", "client", "adapters"].flatMap(browserEntries).map((entry, at) =>
  `export * as entry${at} from ${JSON.stringify(entry)}`
).join("\n")

/** Budgets in kB (of 1,000 bytes) after gzip: what is loaded at the start, and with what is loaded on demand. */
const applications = [
  { name: "Promise form", source: promise, budget: { start: 179, all: 340 } },
  { name: "Promise form with declarations", source: declared, budget: { start: 179, all: 340 } },
  { name: "Effect form", source: effect, budget: { start: 180, all: 332 } },
  { name: "everything", source: everything, budget: { start: 214, all: 346 } }
]

// -- bundling -----------------------------------------------------------------------------------------------------------------------

/** Bundles a source. Returns its chunks, those among them that are loaded at the start, and who imports a module. */
const bundle = async (source) => {
  const entry = join(root, "packages/examples/bundle-size.js")
  const importers = new Map()
  const application = {
    name: "application",
    resolveId: (id) => id === entry ? entry : undefined,
    load: (id) => id === entry ? source : undefined,
    generateBundle() {
      for (const id of this.getModuleIds()) importers.set(id, this.getModuleInfo(id).importers)
    }
  }
  const { output } = await build({
    configFile: false,
    root: join(root, "packages/examples"),
    logLevel: "error",
    // As in the demo's configuration: the packages' sources, and Vite's own defaults, which a list replaces.
    resolve: { conditions: ["@topgun/source", "module", "browser", "development|production"] },
    plugins: [application],
    build: {
      write: false,
      target: "es2022",
      modulePreload: false,
      rollupOptions: { input: entry, preserveEntrySignatures: "strict" }
    }
  })
  const chunks = new Map(output.map((chunk) => [chunk.fileName, chunk]))
  const start = new Set()
  const load = (chunk) => {
    if (start.has(chunk)) return
    start.add(chunk)
    for (const name of chunk.imports) if (chunks.has(name)) load(chunks.get(name))
  }
  load(output.find(({ facadeModuleId }) => facadeModuleId === entry))
  return { chunks, start, importers }
}

/** A module's path from its package on, or from the repository's folder `packages`. */
const nameOf = (id) => id.replace(/^.*\/(?:node_modules|packages)\//, "")

/** Each module that is in a chunk, by itself: without comments, which a chunk's `renderedLength` counts. */
const modulesOf = (chunks) =>
  Promise.all(
    chunks.flatMap(({ modules }) => Object.entries(modules)).filter(([, { code }]) => code).map(async (
      [id, { code }]
    ) => ({
      id,
      code: (await transformWithEsbuild(code, `${id}.js`, { minify: true, format: "esm", loader: "js" })).code
    }))
  )

// -- sizes --------------------------------------------------------------------------------------------------------------------------

const sizesOf = (chunks) => {
  let min = 0
  let gzip = 0
  for (const { code } of chunks) {
    min += Buffer.byteLength(code)
    gzip += gzipSync(code, { level: 9 }).length
  }
  return { min: min / 1_000, gzip: gzip / 1_000 }
}

const owners = ["effect", "msgpackr", "idb", "fflate"]

const ownerOf = (id) => {
  if (!id.includes("/node_modules/")) return "TopGun"
  const name = nameOf(id).split("/")[0]
  return owners.find((owner) => owner === name || `@${owner}` === name) ?? name
}

/** Whose the code is, in percent of what each module comes to by itself. */
const sharesOf = (modules) => {
  const lengths = new Map()
  let total = 0
  for (const { code, id } of modules) {
    lengths.set(ownerOf(id), (lengths.get(ownerOf(id)) ?? 0) + code.length)
    total += code.length
  }
  return [...lengths].sort(([, a], [, b]) => b - a).map(([owner, length]) =>
    `${owner} ${(100 * length / total).toFixed(0)} %`
  ).join(", ")
}

// -- what is Node's -----------------------------------------------------------------------------------------------------------------

const nodeGlobals = new Set(["process", "Buffer", "global", "require", "__dirname", "__filename", "setImmediate"])

/** The names that a module says as variables, and those of them that it asks for by `typeof` first. */
const namesIn = (code) => {
  const used = new Set()
  const probed = new Set()
  const visit = (node) => {
    if (Array.isArray(node)) return node.forEach(visit)
    if (typeof node?.type !== "string") return
    if (node.type === "Identifier") used.add(node.name)
    if (node.type === "UnaryExpression" && node.operator === "typeof") probed.add(node.argument.name)
    for (const [key, child] of Object.entries(node)) {
      const isName = !node.computed && (key === "property" || (key === "key" && node.value !== undefined))
      if (!isName) visit(child)
    }
  }
  visit(parseAst(code).body)
  return { used, probed }
}

/** What no browser has: modules of Node, `ws`, and globals of Node that are used without asking whether they are there. */
const troublesOf = (chunks, modules) => {
  const troubles = chunks.flatMap(({ dynamicImports, fileName, imports }) =>
    [...imports, ...dynamicImports].filter(isBuiltin).map((name) => `${fileName} imports ${name}`)
  )
  for (const { code, id } of modules) {
    if (/__vite-browser-external|^node:|\/node_modules\/ws\//.test(id)) troubles.push(`${nameOf(id)} is Node's`)
    const { probed, used } = namesIn(code)
    for (const name of used) {
      if (nodeGlobals.has(name) && !probed.has(name)) troubles.push(`${nameOf(id)} uses ${name}`)
    }
  }
  return troubles
}

/** What this script has to find, or its silence says nothing. */
const nodeProgram = `
import * as fs from "node:fs"
import { WebSocket } from "ws"
console.log(fs, new WebSocket("wss://example.org"), process.pid, typeof Buffer === "function" && Buffer.from("ok"))
`

const selfTest = async () => {
  const { chunks } = await bundle(nodeProgram)
  const all = [...chunks.values()]
  const found = troublesOf(all, await modulesOf(all)).map((trouble) => trouble.replace(/^.*\//, ""))
  const expected = ["__vite-browser-external is Node's", "browser.js is Node's", "bundle-size.js uses process"]
  return expected.filter((trouble) => !found.includes(trouble)).map((trouble) => `self-test: not found: ${trouble}`)
    .concat(found.some((trouble) => trouble.endsWith("uses Buffer")) ? ["self-test: a probed name counts as used"] : [])
}

// -- the report ---------------------------------------------------------------------------------------------------------------------

const kilobytes = ({ gzip, min }) => `${min.toFixed(1)} kB, gzip ${gzip.toFixed(1)} kB`

const check = async ({ budget, name, source }) => {
  const { chunks, importers, start } = await bundle(source)
  const all = [...chunks.values()]
  const modules = await modulesOf(all)
  const inStart = new Set([...start].flatMap((chunk) => Object.keys(chunk.modules)))
  const sizes = { start: sizesOf(start), all: sizesOf(all) }
  console.log(`${name}: ${kilobytes(sizes.start)} at the start; ${kilobytes(sizes.all)} in all`)
  console.log(`  at the start: ${sharesOf(modules.filter(({ id }) => inStart.has(id)))}`)
  if (process.argv.includes("--modules")) {
    for (const { code, id } of modules.sort((a, b) => b.code.length - a.code.length).slice(0, 40)) {
      const by = importers.get(id).map(nameOf).slice(0, 4).join(", ")
      console.log(`  ${String(code.length).padStart(6)} ${inStart.has(id) ? "" : "(on demand) "}${nameOf(id)} ← ${by}`)
    }
  }
  const excesses = Object.entries(budget).filter(([what, limit]) => sizes[what].gzip > limit).map(([what, limit]) =>
    `${sizes[what].gzip.toFixed(1)} kB after gzip (${what}), and ${limit} kB are allowed`
  )
  return [...excesses, ...troublesOf(all, modules)].map((trouble) => `${name}: ${trouble}`)
}

await runMain(async () => {
  // The bundles are the same whoever makes them.
  process.env.NODE_ENV = "production"
  const troubles = await selfTest()
  for (const application of applications) troubles.push(...await check(application))
  for (const trouble of troubles) console.error(trouble)
  return troubles.length === 0 ? 0 : 1
})
