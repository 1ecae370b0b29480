/**
 * The house rules that neither the compiler nor the linter knows: bans with their replacement, the direction of imports, cycles, files
 * that nothing reaches, tag keys, one copy of each shared dependency. Prints `file:line rule: what, and what to do instead`; ends with 1
 * when there is a finding.
 *
 *     node scripts/tidy.mjs               check the repository (after proving that each rule can fail)
 *     node scripts/tidy.mjs --self-test   only prove that each rule can fail
 *
 * A line that breaks a rule with good reason says so, on itself or on the line above: `// tidy-allow <rule>: <the reason>`.
 */
import { readdirSync, readFileSync } from "node:fs"
import { join, posix, resolve } from "node:path"
import { fixtures } from "./tidy.fixtures.mjs"

const root = resolve(import.meta.dirname, "..")

// -- source text --------------------------------------------------------------------------------------------------------------------

const keywordBeforeRegex = /(?:^|[^\w$.])(?:return|typeof|case|in|of|do|else|void|delete|throw|new|yield|await)\s*$/

const blank = (view, from, to) => {
  for (let i = from; i < to; i++) if (view[i] !== "\n") view[i] = " "
}

/**
 * Two views of a source, each as long as the source so that positions agree: `code`, where comments and the insides of strings, templates
 * and regular expressions are spaces, and `text`, where only comments are.
 */
const views = (source) => {
  const code = source.split("")
  const text = source.split("")
  const isRegexAt = (at) => {
    const before = source.slice(Math.max(0, at - 40), at).trimEnd()
    return before === "" || /[(,=:[!&|?{};+\-*%<>~^]$/.test(before) || keywordBeforeRegex.test(before)
  }
  /** Scans code from `at`; inside a template's `${`, up to the brace that closes it. Returns the position after what it scanned. */
  const scan = (at, inTemplate) => {
    let depth = 0
    while (at < source.length) {
      const char = source[at]
      const two = source.slice(at, at + 2)
      if (two === "//" || (two === "#!" && at === 0)) {
        const end = source.indexOf("\n", at) === -1 ? source.length : source.indexOf("\n", at)
        blank(code, at, end)
        blank(text, at, end)
        at = end
      } else if (two === "/*") {
        const close = source.indexOf("*/", at + 2)
        const end = close === -1 ? source.length : close + 2
        blank(code, at, end)
        blank(text, at, end)
        at = end
      } else if (char === "\"" || char === "'") {
        let end = at + 1
        while (end < source.length && source[end] !== char && source[end] !== "\n") end += source[end] === "\\" ? 2 : 1
        blank(code, at + 1, end)
        at = end + 1
      } else if (char === "`") {
        at = scanTemplate(at + 1)
      } else if (char === "/" && isRegexAt(at)) {
        let end = at + 1
        let inClass = false
        while (end < source.length && source[end] !== "\n" && (inClass || source[end] !== "/")) {
          if (source[end] === "[") inClass = true
          if (source[end] === "]") inClass = false
          end += source[end] === "\\" ? 2 : 1
        }
        blank(code, at + 1, end)
        at = end + 1
      } else {
        if (char === "{") depth++
        if (char === "}" && depth-- === 0 && inTemplate) return at + 1
        at++
      }
    }
    return at
  }
  const scanTemplate = (at) => {
    while (at < source.length && source[at] !== "`") {
      if (source.startsWith("${", at)) {
        at = scan(at + 2, true)
      } else {
        const width = source[at] === "\\" ? 2 : 1
        blank(code, at, Math.min(at + width, source.length))
        at += width
      }
    }
    return at + 1
  }
  scan(0, false)
  return { code: code.join(""), text: text.join("") }
}

const importPattern = /\b(?:from\s*|import\s*\(?\s*|new\s+URL\s*\(\s*)"([^"\n]*)"/g

/** Every module a source names: static, dynamic and type imports, re-exports, and the workers of `new URL("./worker.ts", …)`. */
const importsOf = ({ code, text }) =>
  [...text.matchAll(importPattern)]
    // The keyword must be code: the same words inside a string are blank there.
    .filter((match) => code[match.index] === text[match.index])
    .filter((match) => !match[0].startsWith("new") || match[1].startsWith("."))
    .map((match) => ({ specifier: match[1], at: match.index }))

// -- the tree -----------------------------------------------------------------------------------------------------------------------

/** Which packages a package's `src` may import. */
const mayImport = {
  core: [],
  client: ["core"],
  server: ["core"],
  adapters: ["core"],
  cli: ["core", "client", "server", "adapters"],
  testing: ["core", "client", "server"],
  examples: ["core", "client", "server", "adapters"]
}

/** Packages that also run in a browser. */
const portable = new Set(["core", "client", "adapters"])

/** `packages/core/src/internal/hash.ts` → package `core`, area `src`, name `internal/hash`. Undefined outside the packages. */
const placeOf = (path) => {
  const match = /^packages\/([^/]+)\/([^/]+)\/(.+?)\.(?:d\.)?(?:tsx?|m?js)$/.exec(path)
  return match === null ? undefined : { package: match[1], area: match[2], name: match[3] }
}

const inSrc = (file) => file.place?.area === "src"
const inTests = (file) => file.place?.area === "test"
const inProduct = (file) => inSrc(file) && file.place.package !== "examples"
const isMain = (file) => inSrc(file) && file.place.name === "main"

/** The edges, where Effect programs are run and promises begin. */
const isEdge = (file) => isMain(file) || file.path === "packages/client/src/promise.ts"

// -- bans ---------------------------------------------------------------------------------------------------------------------------

/** Rules that one pattern finds. `on`: which files; `pattern`: in code (`within: "text"` or `"source"` also sees strings, comments). */
const bans = [
  {
    rule: "clock",
    on: inProduct,
    pattern: /\bDate\.now\s*\(|\bnew Date\(\s*\)|\bperformance\.now\s*\(/g,
    instead: "ask Effect's Clock, which tests can turn"
  },
  {
    rule: "random",
    on: inProduct,
    pattern: /\bMath\.random\s*\(/g,
    instead: "ask Effect's Random, or crypto.getRandomValues where a secret is made"
  },
  {
    rule: "timer",
    on: inProduct,
    pattern: /\bset(?:Timeout|Interval|Immediate)\s*\(/g,
    instead: "use Effect.sleep, Effect.timeout or a Schedule, which are interrupted with their scope"
  },
  {
    rule: "test-timer",
    on: inTests,
    pattern: /\bset(?:Timeout|Interval)\s*\(/g,
    instead: "wait for the event itself, or turn the TestClock: time must not decide a test"
  },
  {
    rule: "environment",
    on: (file) => inProduct(file) && !isMain(file) && !file.place.name.endsWith("Config"),
    pattern: /\bprocess\.env\b/g,
    instead: "describe the variable with Effect's Config, in the package's *Config.ts"
  },
  {
    rule: "unbounded",
    on: inSrc,
    pattern: /\b(?:Queue|PubSub)\.unbounded\b|\bMailbox\.make\b[^()\n]*\(\s*\)/g,
    instead: "give it a capacity and say what happens when it is full"
  },
  {
    rule: "unbounded",
    on: inSrc,
    within: "text",
    pattern: /\bcapacity:\s*"unbounded"/g,
    instead: "give it a capacity and say what happens when it is full"
  },
  {
    rule: "run",
    on: (file) => inProduct(file) && !isEdge(file),
    pattern: /\b(?:Effect|Runtime)\.run(?:Sync|Promise|Fork|Callback)\w*/g,
    instead: "return the Effect; it is run in main.ts and in the client's promise.ts only"
  },
  {
    rule: "effect-fn",
    on: (file) => inSrc(file) && file.place.package === "core",
    pattern: /\bEffect\.fn\s*\(/g,
    instead: "use Effect.fnUntraced: the core is called too often to open a span each time"
  },
  {
    rule: "effect-service",
    on: inSrc,
    pattern: /\bEffect\.Service\b/g,
    instead: "write a Context.Tag with its layers"
  },
  {
    rule: "to-do",
    on: () => true,
    within: "source",
    pattern: new RegExp(`\\b(?:${["TO", "FIX"].map((word, i) => word + ["DO", "ME"][i]).join("|")})\\b`, "g"),
    instead: "do it, or open an issue; the code says what is, not what should be"
  },
  {
    rule: "skipped-test",
    on: inTests,
    pattern: /\b(?:it|test|describe|suite)(?:\.\w+)*\.(?:skip|only|todo|skipIf|runIf|fails)\b/g,
    instead: "mend the test or remove it; nothing is skipped in silence"
  }
]

// -- rules on imports ---------------------------------------------------------------------------------------------------------------

/** Modules with one house: who may import them. */
const houses = [
  {
    module: /^@effect\/platform-node\/NodeRuntime$/,
    allowed: isMain,
    instead: "only a main.ts runs a program"
  },
  {
    module: /^(?:@effect\/platform-node\/NodeHttpServer|node:https?)$/,
    allowed: (file) => file.path === "packages/server/src/Gateway.ts",
    instead: "only server/src/Gateway.ts speaks HTTP; use its service"
  },
  {
    module: /^ws$/,
    allowed: (file) =>
      file.path === "packages/server/src/Gateway.ts" || file.path === "packages/core/src/internal/websocket.node.ts",
    instead: "only the Gateway and core's internal/websocket.node.ts know ws; use the Transport service or #websocket"
  },
  {
    module: /^node:/,
    allowed: (file) =>
      !portable.has(file.place.package) || /^packages\/core\/src\/internal\/\w+\.node\.ts$/.test(file.path),
    instead: "this package also runs in a browser; use a web API or a service"
  },
  {
    module: /^(?:effect|@effect\/[^/]+)$/,
    allowed: (file) => file.place.package === "examples",
    instead: "import the module, e.g. import * as Effect from \"effect/Effect\": the barrel doubles a browser bundle"
  },
  {
    module: /^(?:vitest|@effect\/vitest|fast-check)(?:\/|$)/,
    allowed: (file) => file.place.package === "testing",
    instead: "tests' tools belong in test/ or in packages/testing"
  }
]

const packageOf = (specifier) => specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/")

const importRules = (file, manifests, report) => {
  const { package: home } = file.place
  for (const { at, specifier } of file.imports) {
    if (specifier.startsWith(".")) {
      const target = posix.join(posix.dirname(file.path), specifier)
      if (!target.startsWith(`packages/${home}/`) && (inSrc(file) || target.startsWith("packages/"))) {
        report("import-path", at, `${specifier} leaves the package`, `import it by name, from @topgun/...`)
      }
      continue
    }
    if (specifier.startsWith("#") || specifier === "") continue
    if (inSrc(file)) {
      for (const { allowed, instead, module } of houses) {
        if (module.test(specifier) && !allowed(file)) report("import-house", at, `import of ${specifier}`, instead)
      }
    }
    const other = /^@topgun\/([^/]+)/.exec(specifier)?.[1]
    if (other !== undefined && other !== home) {
      const allowed = inSrc(file) ? mayImport[home] ?? [] : Object.keys(mayImport).filter((name) => name !== "examples")
      if (!allowed.includes(other)) {
        report(
          "direction",
          at,
          `${home}/${file.place.area} imports ${other}`,
          allowed.length === 0 ? "it may import no other package" : `it may import ${allowed.join(", ")}`
        )
      }
    }
    if (specifier.startsWith("node:")) continue
    const name = packageOf(specifier)
    const manifest = manifests.get(home)
    if (manifest === undefined || name === manifest.name || specifier.startsWith("virtual:")) continue
    const declared = { ...manifest.dependencies, ...manifest.peerDependencies }
    const forTests = { ...manifest.devDependencies, ...manifests.get("")?.devDependencies }
    if (name in declared) continue
    // The workspace's own packages are linked for every test; examples are never published, so all they have is theirs.
    if (!inSrc(file) && (name in forTests || name.startsWith("@topgun/"))) continue
    if (home === "examples" && name in forTests) continue
    report("undeclared", at, `import of ${name}`, `add it to the dependencies of packages/${home}/package.json`)
  }
}

// -- rules on the graph -------------------------------------------------------------------------------------------------------------

/** The file of this repository that a specifier means, from `from`; undefined for anything else. */
const resolverFor = (files, manifests) => (from, specifier) => {
  if (specifier.startsWith(".")) {
    const target = posix.join(posix.dirname(from.path), specifier)
    return files.get(target)
  }
  const named = /^@topgun\/([^/]+)(?:\/(.+))?$/.exec(specifier)
  if (named !== null) {
    const base = `packages/${named[1]}/src/${named[2] ?? "index"}`
    return files.get(`${base}.ts`) ?? files.get(`${base}.tsx`)
  }
  if (specifier.startsWith("#")) {
    const target = JSON.stringify(manifests.get(from.place.package)?.imports?.[specifier] ?? null)
    const path = /"\.\/(src\/[^"]*\.node\.ts|src\/[^"]*)"/.exec(target)?.[1]
    return path === undefined ? undefined : files.get(`packages/${from.place.package}/${path}`)
  }
  return undefined
}

const cycleRule = (sources, resolveImport, report) => {
  const state = new Map()
  const trail = []
  const visit = (file) => {
    state.set(file, "open")
    trail.push(file)
    for (const { at, specifier } of file.imports) {
      const target = resolveImport(file, specifier)
      if (target === undefined || !inSrc(target)) continue
      if (state.get(target) === "open") {
        const ring = [...trail.slice(trail.indexOf(target)), target].map(({ path }) => path.replace(/^packages\//, ""))
        report(file, "cycle", at, ring.join(" → "), "move what both need into a module of its own")
      } else if (state.get(target) === undefined) {
        visit(target)
      }
    }
    trail.pop()
    state.set(file, "done")
  }
  for (const file of sources) if (state.get(file) === undefined) visit(file)
}

/** What a package offers by itself: its index, its main, sub-paths named one by one, both sides of `#imports`, pages of an example. */
const entriesOf = (name, manifest, files) => {
  const entries = [`packages/${name}/src/index.ts`, `packages/${name}/src/main.ts`]
  const named = JSON.stringify([manifest.exports ?? {}, manifest.imports ?? {}])
  for (const [, path] of named.matchAll(/"\.\/(src\/[^"*]*)"/g)) entries.push(`packages/${name}/${path}`)
  for (const page of files.values()) {
    if (!page.path.startsWith(`packages/${name}/`)) continue
    if (page.path.endsWith(".html")) {
      for (const [, path] of page.source.matchAll(/\bsrc="\/?([^"]+)"/g)) {
        entries.push(posix.join(posix.dirname(page.path), path))
      }
    }
  }
  return entries
}

const reachRule = (sources, files, manifests, resolveImport, report) => {
  const reached = new Set()
  const visit = (file) => {
    if (file === undefined || reached.has(file)) return
    reached.add(file)
    for (const { specifier } of file.imports ?? []) visit(resolveImport(file, specifier))
  }
  for (const [name, manifest] of manifests) {
    if (name !== "") { for (const path of entriesOf(name, manifest, files)) visit(files.get(path)) }
  }
  for (const file of sources) {
    if (!reached.has(file) && !file.path.endsWith(".d.ts")) {
      report(
        file,
        "unreached",
        0,
        "no index, entry or other source reaches this file",
        "export it from the package's index, name its sub-path in exports, or remove it"
      )
    }
  }
}

// -- rules on names, sizes and the lock file ----------------------------------------------------------------------------------------

const tagPattern = /\b(?:(?:Context|Effect)\.(?:Tag|GenericTag|Reference))\b[^("\n]*\(\s*"([^"\n]*)"/g

const tagRule = (file, report) => {
  for (const match of file.text.matchAll(tagPattern)) {
    if (file.code[match.index] !== file.text[match.index]) continue
    const wanted = `@topgun/${file.place.package}/${file.place.name}`
    if (match[1] !== wanted && !match[1].startsWith(`${wanted}/`)) {
      report(
        "tag-key",
        match.index,
        `the key "${match[1]}"`,
        `name it "${wanted}", with a suffix after / for a second tag`
      )
    }
  }
}

const linesMax = 700

const sharedDependency = /^(?:effect|msgpackr|@effect\/.+)$/

const lockRule = (lock, report) => {
  const copies = new Map()
  for (const [path, entry] of Object.entries(lock.packages ?? {})) {
    const name = path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length)
    if (path.includes("node_modules/") && sharedDependency.test(name)) {
      copies.set(name, [...copies.get(name) ?? [], `${path} ${entry.version}`])
    }
    if (/^https?:/.test(entry.resolved ?? "")) {
      report(
        "lock-host",
        `${path} is tied to ${new URL(entry.resolved).host}`,
        "install with omit-lockfile-registry-resolved"
      )
    }
  }
  for (const [name, paths] of copies) {
    if (paths.length > 1) {
      report(
        "one-copy",
        `${paths.length} copies of ${name}: ${paths.join(", ")}`,
        "align the ranges or add an override"
      )
    }
  }
}

// -- all together -------------------------------------------------------------------------------------------------------------------

const allowPattern = /\/\/ tidy-allow ([\w-]+): \S.{9,}/

/**
 * Checks a repository given as a map from path to content. Pure. Returns findings
 * `{ path, line, rule, what, instead, isWarning }`, in the order of path and line.
 */
export const tidy = (contents) => {
  const findings = []
  const files = new Map()
  const manifests = new Map()
  for (const [path, source] of contents) {
    const manifest = /^(?:packages\/([^/]+)\/)?package\.json$/.exec(path)
    if (manifest !== null) manifests.set(manifest[1] ?? "", JSON.parse(source))
    const isScript = /\.(?:tsx?|m?js)$/.test(path)
    const seen = isScript ? views(source) : { code: "", text: "" }
    files.set(path, { path, source, place: placeOf(path), imports: isScript ? importsOf(seen) : [], ...seen })
  }

  const add = (file, rule, at, what, instead, isWarning = false) => {
    const line = file.source.slice(0, at).split("\n").length
    const lines = file.source.split("\n")
    const allowed = [lines[line - 1], lines[line - 2]].some((text) => allowPattern.exec(text ?? "")?.[1] === rule)
    if (!allowed) findings.push({ path: file.path, line, rule, what, instead, isWarning })
  }

  const sources = [...files.values()].filter(inSrc)
  const resolveImport = resolverFor(files, manifests)
  for (const file of files.values()) {
    for (const { instead, on, pattern, rule, within = "code" } of bans) {
      if (!on(file)) continue
      for (const match of file[within].matchAll(pattern)) add(file, rule, match.index, match[0].trim(), instead)
    }
    if (inSrc(file) || inTests(file)) importRules(file, manifests, (...finding) => add(file, ...finding))
    if (inSrc(file)) tagRule(file, (...finding) => add(file, ...finding))
    const lines = file.source.split("\n").length
    if (inSrc(file) && lines > linesMax) {
      add(
        file,
        "long-file",
        0,
        `${lines} lines`,
        `above ${linesMax}: a part of it may deserve a module of its own`,
        true
      )
    }
  }
  cycleRule(sources, resolveImport, add)
  reachRule(sources, files, manifests, resolveImport, add)
  const lock = files.get("package-lock.json")
  if (lock !== undefined) lockRule(JSON.parse(lock.source), (rule, what, instead) => add(lock, rule, 0, what, instead))

  return findings.sort((a, b) => a.path.localeCompare(b.path) || a.line - b.line)
}

const rules = [
  ...new Set(bans.map(({ rule }) => rule)),
  "import-path",
  "import-house",
  "direction",
  "undeclared",
  "cycle",
  "unreached",
  "tag-key",
  "long-file",
  "lock-host",
  "one-copy"
]

/** Proves on small repositories that each rule finds what it is for, and nothing in the tidy twin. Returns what went wrong. */
const selfTest = () => {
  const failures = []
  for (const { contents, expected, name } of fixtures) {
    const found = [...new Set(tidy(new Map(Object.entries(contents))).map(({ rule }) => rule))].sort()
    if (found.join() !== [...expected].sort().join()) {
      failures.push(`${name}: expected ${expected.join(", ") || "nothing"}, found ${found.join(", ") || "nothing"}`)
    }
  }
  for (const rule of rules) {
    if (!fixtures.some(({ expected }) => expected.includes(rule))) {
      failures.push(`no fixture shows that ${rule} can fail`)
    }
  }
  return failures
}

const skipped = new Set(["node_modules", "dist", ".tsbuildinfo", ".git", ".docs-check", "coverage"])
const checked = /\.(?:tsx?|m?js|html|md|json|css)$/

const readRepository = (folder = "", contents = new Map()) => {
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = posix.join(folder, entry.name)
    if (entry.isDirectory() && !skipped.has(entry.name)) readRepository(path, contents)
    if (entry.isFile() && checked.test(entry.name)) contents.set(path, readFileSync(join(root, path), "utf8"))
  }
  return contents
}

if (process.argv[1] === import.meta.filename) {
  const failures = selfTest()
  for (const failure of failures) console.error(`self-test: ${failure}`)
  if (failures.length > 0) process.exit(1)
  if (process.argv.includes("--self-test")) {
    console.log(`${rules.length} rules, ${fixtures.length} fixtures: each rule can fail`)
    process.exit(0)
  }
  const repository = readRepository()
  const findings = tidy(repository)
  for (const { instead, isWarning, line, path, rule, what } of findings) {
    console.log(`${path}:${line} ${isWarning ? "(warning) " : ""}${rule}: ${what}; ${instead}`)
  }
  const errors = findings.filter(({ isWarning }) => !isWarning)
  console.log(`${repository.size} files, ${rules.length} rules, ${errors.length} breaches`)
  process.exit(errors.length > 0 ? 1 : 0)
}
