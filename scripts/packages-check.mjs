/**
 * The packages as they'd be published: packs each that isn't private and looks at what is in the tarball, what its manifest says, and
 * whether every export is found, has types and can be imported, without anything of this repository but the tarballs and `node_modules`.
 *
 * - publint, and arethetypeswrong for ES modules, over each tarball
 * - files: what is compiled, its sources, the licence; nothing that no source stands for any more
 * - manifest: everything imported is declared; what of Effect's is in types is a peer; optional peers have entries of their own
 * - a program that imports every export, compiled for Node and for bundlers, and run
 */
import { buildPackages, root, run, runMain } from "./steps.mjs"
import { checkPackage, createPackageFromTarballData } from "@arethetypeswrong/core"
import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { isBuiltin } from "node:module"
import { join, posix } from "node:path"
import { publint } from "publint"
import { formatMessage } from "publint/utils"

// Below node_modules, so that the tarballs' own dependencies are found, and no tool of this repository looks there.
const work = join(root, "node_modules/.cache/topgun/packages-check")
const installed = join(work, "node_modules")

const read = (path) => JSON.parse(readFileSync(path, "utf8"))

/** Packs what is to be published, unpacks it where a program of `work` finds it. */
const pack = () => {
  const folders = read(join(root, "package.json")).workspaces.filter((folder) =>
    read(join(root, folder, "package.json")).private !== true
  )
  rmSync(work, { recursive: true, force: true })
  mkdirSync(work, { recursive: true })
  run("npm", [
    "pack",
    "--silent",
    "--ignore-scripts",
    "--pack-destination",
    work,
    ...folders.map((folder) => `-w=${folder}`)
  ], {
    stdio: ["ignore", "ignore", "inherit"],
    shell: process.platform === "win32"
  })
  return folders.map((folder) => {
    const { name, version } = read(join(root, folder, "package.json"))
    const tarball = join(work, `${name.replace("@", "").replace("/", "-")}-${version}.tgz`)
    const path = join(installed, name)
    mkdirSync(path, { recursive: true })
    run("tar", ["-xzf", tarball, "-C", path, "--strip-components=1"])
    return { folder, name, path, tarball, manifest: read(join(path, "package.json")) }
  })
}

const filesOf = ({ path }) =>
  readdirSync(path, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).map((entry) =>
    posix.relative(path, posix.join(entry.parentPath ?? entry.path, entry.name))
  )

/** What can be imported of a package: each module that isn't internal, as its exports say by a pattern. */
const entriesOf = ({ manifest, name, path }) =>
  readdirSync(join(path, "dist")).filter((file) => file.endsWith(".js")).map((file) => file.slice(0, -".js".length))
    .filter((module) =>
      module === "index" ? "." in manifest.exports : `./${module}` in manifest.exports || "./*" in manifest.exports
    )
    .map((module) => module === "index" ? name : `${name}/${module}`)

// -- files --------------------------------------------------------------------------------------------------------------------------

const expectedFile =
  /^(?:package\.json|README\.md|LICENSE|bin\/[\w-]+\.js|src\/[\w./-]+\.ts|dist\/[\w./-]+\.(?:js|d\.ts)(?:\.map)?)$/

const fileTroubles = (published) => {
  const files = filesOf(published)
  const has = new Set(files)
  return [
    ...files.filter((file) => !expectedFile.test(file)).map((file) => `${file} doesn't belong into a package`),
    ...files.filter((file) =>
      file.startsWith("dist/") && !has.has(file.replace(/^dist/, "src").replace(/\.(?:js|d\.ts)(?:\.map)?$/, ".ts"))
    )
      .map((file) => `${file} has no source any more: remove it`),
    ...files.filter((file) => file.startsWith("src/") && !has.has(file.replace(/^src/, "dist").replace(/\.ts$/, ".js")))
      .map((file) => `${file} isn't compiled`),
    ...["LICENSE", "README.md"].filter((file) => !has.has(file)).map((file) => `there is no ${file}`)
  ]
}

// -- the manifest -------------------------------------------------------------------------------------------------------------------

const importPattern = /(?<!")\b(?:from\s*|import\s*\(?\s*)"([^"\n]+)"/g

/** Those of them without which a module can't be loaded. */
const needPattern = /(?<!")\b(?:from\s*|import\s*)"([^"\n]+)"/g

/** The modules that a compiled file imports, without what its comments say. */
const importsOf = (file, pattern = importPattern) => {
  const text = readFileSync(file, "utf8").replace(/\/\*[^]*?\*\/|^\s*\/\/.*$/gm, "")
  return [...text.matchAll(pattern)].map(([, specifier]) => specifier)
}

const packageOf = (specifier) => specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/")

const isEffects = (name) => name === "effect" || name.startsWith("@effect/")

const manifestTroubles = (published) => {
  const { manifest, name, path } = published
  const { dependencies = {}, peerDependencies = {}, peerDependenciesMeta = {} } = manifest
  const isOptional = (peer) => peerDependenciesMeta[peer]?.optional === true
  const troubles = []
  const foreign = (specifier) =>
    !/^[.#]/.test(specifier) && !isBuiltin(specifier) && packageOf(specifier) !== name
      ? [packageOf(specifier)]
      : []
  for (const file of filesOf(published).filter((each) => /^dist\/.*(?:\.js|\.d\.ts)$/.test(each))) {
    for (const used of importsOf(join(path, file)).flatMap(foreign)) {
      if (!(used in dependencies) && !(used in peerDependencies)) {
        troubles.push(`${file} imports ${used}, which isn't declared`)
      }
      // An application has its own copies. A program, as the cli, is one.
      if (isEffects(used) && used in dependencies && manifest.bin === undefined) {
        troubles.push(`${used} is shared with the application: make it a peer`)
      }
    }
  }
  for (const [peer, range] of Object.entries(peerDependencies)) {
    const version = manifest.devDependencies?.[peer]
    if (version !== undefined && range !== `^${version}`) {
      troubles.push(`the peer ${peer} is ${range}, and tested with ${version}`)
    }
  }
  // An index, and what all use, must not need what is optional.
  const reach = (file, seen = new Set()) => {
    if (seen.has(file)) return seen
    seen.add(file)
    for (const specifier of importsOf(join(path, file), needPattern)) {
      if (specifier.startsWith(".")) reach(posix.join(posix.dirname(file), specifier), seen)
    }
    return seen
  }
  if (existsSync(join(path, "dist/index.js"))) {
    for (const file of reach("dist/index.js")) {
      for (const used of importsOf(join(path, file), needPattern).flatMap(foreign)) {
        if (isOptional(used)) troubles.push(`the index needs ${used} (in ${file}), which is optional`)
      }
    }
  }
  return [...new Set(troubles)]
}

// -- tools --------------------------------------------------------------------------------------------------------------------------

const publintTroubles = async ({ tarball }) => {
  const bytes = new Uint8Array(readFileSync(tarball))
  const { messages, pkg } = await publint({ pack: { tarball: bytes.buffer }, level: "suggestion", strict: true })
  return messages.map((message) => formatMessage(message, pkg, { color: false }))
}

/** What only matters to CommonJS, and to resolution without exports, is none of an ES module's. */
const forOthers = new Set(["node10", "node16-cjs"])

const typesTroubles = async (published) => {
  const entrypoints = entriesOf(published).map((entry) =>
    entry === published.name ? "." : entry.replace(published.name, ".")
  )
  const archive = createPackageFromTarballData(new Uint8Array(readFileSync(published.tarball)))
  const { problems = [], types } = await checkPackage(archive, { entrypoints })
  if (types === false) return ["it has no types"]
  return problems.filter(({ resolutionKind, resolutionOption }) => !forOthers.has(resolutionKind ?? resolutionOption))
    .map(({ entrypoint = "", fileName = "", kind, moduleSpecifier = "" }) =>
      `${kind} ${entrypoint}${fileName} ${moduleSpecifier}`
    )
}

// -- a program that imports everything ----------------------------------------------------------------------------------------------

/** What runs when it is imported is left out. */
const programOf = (entries) =>
  entries.filter((entry) => !entry.endsWith("/main")).map((entry, at) =>
    `import * as entry${at} from "${entry}"\nvoid entry${at}\n`
  ).join("")

/** Vitest itself can be imported by what it runs only. */
const isRunnable = ({ manifest }) => manifest.peerDependencies?.vitest === undefined

const resolutions = [
  { module: "nodenext", moduleResolution: "nodenext" },
  { module: "esnext", moduleResolution: "bundler" }
]

const compile = (options) => {
  writeFileSync(
    join(work, "tsconfig.json"),
    JSON.stringify({
      compilerOptions: {
        ...options,
        target: "es2022",
        lib: ["es2022", "dom", "esnext.disposable"],
        types: [],
        strict: true,
        noEmit: true,
        skipLibCheck: false
      },
      files: ["everything.ts"]
    })
  )
  const tsc = join(root, "node_modules/typescript/bin/tsc")
  const { status, stdout } = spawnSync(process.execPath, [tsc, "-p", work, "--pretty", "false"], {
    cwd: work,
    encoding: "utf8"
  })
  if (status === 0) return []
  // What others' declarations have wrong is theirs.
  return stdout.split("\n").filter((line) => /^(?:everything\.ts|node_modules\/@topgun\/|error)/.test(line))
    .map((line) => `${options.moduleResolution}: ${line}`)
}

const load = (program) => {
  writeFileSync(join(work, "everything.mjs"), program)
  const { status, stderr } = spawnSync(process.execPath, ["everything.mjs"], { cwd: work, encoding: "utf8" })
  return status === 0 ? [] : [`not every export can be imported: ${stderr}`]
}

await runMain(async () => {
  buildPackages()
  const published = pack()
  const troubles = []
  for (const each of published) {
    const found = [
      ...fileTroubles(each),
      ...manifestTroubles(each),
      ...await publintTroubles(each),
      ...await typesTroubles(each)
    ]
    troubles.push(...found.map((trouble) => `${each.name}: ${trouble}`))
  }
  const entries = published.flatMap(entriesOf)
  writeFileSync(join(work, "everything.ts"), programOf(entries))
  for (const options of resolutions) troubles.push(...compile(options))
  troubles.push(...load(programOf(published.filter(isRunnable).flatMap(entriesOf))))
  for (const trouble of troubles) console.error(trouble)
  console.log(`${published.length} packages, ${entries.length} exports, ${troubles.length} troubles`)
  return troubles.length === 0 ? 0 : 1
})
