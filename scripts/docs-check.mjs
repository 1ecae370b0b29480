/**
 * Compiles every `ts` fence of the documents, under the packages' own compiler options, so that no example goes stale; runs those whose
 * fence says `ts run`, with the built packages and a guard of 20 s; looks up every relative link, and in a test the behaviour that the
 * link's title quotes.
 *
 * Each fence is one module. It is written with as many empty lines before it as the document has, so that a message of the compiler
 * names the document's own line.
 */
import { buildPackages, root, runMain } from "./steps.mjs"
import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { basename, dirname, join } from "node:path"

const work = join(root, ".docs-check")
const runGuardMillis = 20_000

const documents = () =>
  [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    ...readdirSync(join(root, "packages")).flatMap((
      name
    ) => [`packages/${name}/README.md`, `packages/${name}/QUERIES.md`])
  ].filter((path) => existsSync(join(root, path)))

/** The fences of a document: language, words after it, the line (from 1) on which the code starts, the code. */
const fencesOf = (text) => {
  const fences = []
  let open
  text.split("\n").forEach((line, index) => {
    const mark = /^\s*(`{3,}|~{3,})\s*(\S*)\s*(.*)$/.exec(line)
    if (open === undefined) {
      if (mark !== null) {
        open = { mark: mark[1], language: mark[2], words: mark[3].split(/\s+/), line: index + 2, code: [] }
      }
    } else if (mark !== null && mark[2] === "" && mark[1].startsWith(open.mark)) {
      fences.push(open)
      open = undefined
    } else {
      open.code.push(line)
    }
  })
  return fences
}

/** The anchor that GitHub gives a heading. */
const anchorOf = (heading) =>
  heading.trim().toLowerCase().replace(/<[^>]*>|[`*]/g, "").replace(/[^\p{L}\p{N}\s_-]/gu, "").replace(/\s/g, "-")

/** The text outside fences and code spans, line by line, as long as the document. */
const prose = (text) => {
  let mark
  return text.split("\n").map((line) => {
    const fence = /^\s*(`{3,}|~{3,})/.exec(line)?.[1]
    if (mark === undefined && fence !== undefined) {
      mark = fence
      return ""
    }
    if (mark !== undefined) {
      if (fence?.startsWith(mark)) mark = undefined
      return ""
    }
    return line.replace(/`[^`]*`/g, "")
  })
}

const anchorsOf = (text) => {
  const headings = text.split("\n").filter((_, index) => prose(text)[index].startsWith("#"))
  return new Set(headings.map((line) => anchorOf(line.replace(/^#+/, ""))))
}

const linkProblems = (path, text) => {
  const problems = []
  prose(text).forEach((line, index) => {
    for (const [, target, title] of line.matchAll(/\]\(<?([^)\s>]+)>?(?:\s+"([^"]*)")?\)/g)) {
      if (/^[a-z][a-z+.-]*:/i.test(target)) continue
      const [file, anchor] = target.split("#")
      const absolute = file === "" ? join(root, path) : join(root, dirname(path), decodeURI(file))
      if (!existsSync(absolute)) problems.push(`${path}:${index + 1} the link to ${target} leads nowhere`)
      else if (anchor && absolute.endsWith(".md") && !anchorsOf(readFileSync(absolute, "utf8")).has(anchor)) {
        problems.push(`${path}:${index + 1} the link to ${target}: no such heading`)
      } else if (title && absolute.endsWith(".test.ts") && !readFileSync(absolute, "utf8").includes(title)) {
        problems.push(`${path}:${index + 1} the link to ${target}: no test named "${title}"`)
      }
    }
  })
  return problems
}

/** Writes the fences as modules. Returns them with `file` (in the work folder), `path` (the document's), `line`. */
const writeFences = (paths) => {
  const written = []
  for (const path of paths) {
    const text = readFileSync(join(root, path), "utf8")
    for (const { code, language, line, words } of fencesOf(text)) {
      if (!["ts", "typescript"].includes(language)) continue
      const file = `${path.replace(/[/.]/g, "-")}-${line}.ts`
      writeFileSync(join(work, "src", file), "\n".repeat(line - 1) + code.join("\n") + "\n")
      written.push({ file, path, line, run: words.includes("run") })
    }
  }
  return written
}

const sourceProjects = () =>
  readdirSync(join(root, "packages"))
    .map((name) => `../packages/${name}/tsconfig.src.json`)
    .filter((path) => existsSync(join(work, path)))

const compile = (fences) => {
  const options = {
    extends: "../tsconfig.base.json",
    compilerOptions: {
      composite: false,
      declaration: false,
      declarationMap: false,
      sourceMap: false,
      rootDir: "src",
      outDir: "out",
      moduleDetection: "force",
      noUnusedLocals: false,
      types: ["node"]
    },
    include: ["src"],
    references: sourceProjects().map((path) => ({ path }))
  }
  writeFileSync(join(work, "tsconfig.json"), JSON.stringify(options))
  writeFileSync(join(work, "package.json"), JSON.stringify({ type: "module" }))
  // From the sources, as every check here; a fence is also run, with what was built, where it says so.
  const tsc = join(root, "node_modules/typescript/bin/tsc")
  const { status, stderr, stdout } = spawnSync(process.execPath, [tsc, "-p", work, "--pretty", "false"], {
    cwd: work,
    encoding: "utf8"
  })
  if (status === 0) return []
  const paths = new Map(fences.map(({ file, path }) => [file, path]))
  return (stdout + stderr).trimEnd().split("\n").map((message) =>
    message.replace(/^(\S+?\.ts)\((\d+),\d+\):/, (all, file, line) => {
      const path = paths.get(basename(file))
      return path === undefined ? all : `${path}:${line}`
    })
  )
}

const runFence = ({ file, line, path }) => {
  const folder = join(work, "run", basename(file, ".ts"))
  mkdirSync(folder, { recursive: true })
  const script = join(work, "out", file.replace(/\.ts$/, ".js"))
  const { error, signal, status, stderr, stdout } = spawnSync(process.execPath, [script], {
    cwd: folder,
    encoding: "utf8",
    timeout: runGuardMillis,
    killSignal: "SIGKILL"
  })
  if (status === 0) return []
  const reason = error?.code === "ETIMEDOUT"
    ? `did not end within ${runGuardMillis / 1000} s`
    : `ended with ${status ?? signal}`
  return [`${path}:${line} the example ${reason}`, ...(stdout + stderr).trim().split("\n").map((text) => `  ${text}`)]
}

await runMain(() => {
  buildPackages()
  rmSync(work, { recursive: true, force: true })
  mkdirSync(join(work, "src"), { recursive: true })
  const paths = documents()
  const problems = paths.flatMap((path) => linkProblems(path, readFileSync(join(root, path), "utf8")))
  const fences = writeFences(paths)
  const unsound = fences.length === 0 ? [] : compile(fences)
  problems.push(...unsound)
  // What does not compile is not run: its second failure would say less than its first.
  const runnable = unsound.length === 0 ? fences.filter(({ run }) => run) : []
  problems.push(...runnable.flatMap(runFence))
  for (const problem of problems) console.error(problem)
  rmSync(work, { recursive: true, force: true })
  console.log(`${paths.length} documents, ${fences.length} examples compiled, ${runnable.length} run`)
  return problems.length === 0 ? 0 : 1
})
