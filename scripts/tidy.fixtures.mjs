/**
 * Small repositories for `tidy.mjs --self-test`: each shows one rule failing, or text that looks like a breach and is none. Words that
 * the rules look for in every file are put together from parts, so that this file is tidy itself.
 */

const manifest = (name, more = {}) =>
  JSON.stringify({
    name: `@topgun/${name}`,
    dependencies: { effect: "1", "@effect/platform-node": "1", ws: "1" },
    ...more
  })

/** A repository of one source, which its index reaches, in the package `name`. */
const source = (text, name = "core", file = "Sample") => ({
  [`packages/${name}/package.json`]: manifest(name),
  [`packages/${name}/src/index.ts`]: `export * from "./${file}.ts"`,
  [`packages/${name}/src/${file}.ts`]: text
})

const test = (text) => ({
  "packages/core/package.json": manifest("core"),
  "package.json": JSON.stringify({ name: "topgun", devDependencies: { "@effect/vitest": "1" } }),
  "packages/core/test/Sample.test.ts": text
})

const lock = (packages) => ({ "package-lock.json": JSON.stringify({ packages }) })

export const fixtures = [
  { name: "Date.now", expected: ["clock"], contents: source("export const now = Date.now()") },
  { name: "new Date()", expected: ["clock"], contents: source("export const now = new Date()") },
  { name: "performance.now", expected: ["clock"], contents: source("export const now = performance.now()") },
  { name: "new Date(0) is no clock", expected: [], contents: source("export const epoch = new Date(0)") },
  { name: "Math.random", expected: ["random"], contents: source("export const dice = Math.random()") },
  { name: "setTimeout", expected: ["timer"], contents: source("export const f = () => setTimeout(g, 5)") },
  { name: "setTimeout in a test", expected: ["test-timer"], contents: test("setTimeout(done, 5)") },
  {
    name: "process.env",
    expected: ["environment"],
    contents: source("export const home = process.env.HOME", "server")
  },
  {
    name: "process.env in a configuration",
    expected: [],
    contents: source("export const home = process.env.HOME", "server", "ServerConfig")
  },
  { name: "Queue.unbounded", expected: ["unbounded"], contents: source("export const q = Queue.unbounded<number>()") },
  { name: "Mailbox.make()", expected: ["unbounded"], contents: source("export const m = Mailbox.make<number>()") },
  { name: "Mailbox.make(16)", expected: [], contents: source("export const m = Mailbox.make<number>(16)") },
  { name: "an unbounded capacity", expected: ["unbounded"], contents: source("f({ capacity: \"unbounded\" })") },
  { name: "runSync", expected: ["run"], contents: source("export const x = Effect.runSync(y)") },
  { name: "runPromise by a runtime", expected: ["run"], contents: source("export const x = Runtime.runPromise(r)(y)") },
  {
    name: "runPromise in the facade",
    expected: [],
    contents: source("export const x = Effect.runPromise(y)", "client", "promise")
  },
  { name: "Effect.fn in core", expected: ["effect-fn"], contents: source("export const f = Effect.fn(\"f\")(g)") },
  { name: "Effect.fn in server", expected: [], contents: source("export const f = Effect.fn(\"f\")(g)", "server") },
  {
    name: "Effect.Service",
    expected: ["effect-service"],
    contents: source("class A extends Effect.Service<A>()(\"A\", {}) {}")
  },
  { name: "a note to do", expected: ["to-do"], contents: source(`export const x = 1 // ${"TO"}${"DO"} later`) },
  { name: "a skipped test", expected: ["skipped-test"], contents: test("it.effect.skip(\"holds\", f)") },
  { name: "the only test", expected: ["skipped-test"], contents: test("describe.only(\"all\", f)") },
  {
    name: "a relative import out of the package",
    expected: ["import-path"],
    contents: { ...source("import \"../../server/src/Gateway.ts\""), "packages/server/src/Gateway.ts": "" }
  },
  { name: "the barrel", expected: ["import-house"], contents: source("import { Effect } from \"effect\"") },
  { name: "a module of effect", expected: [], contents: source("import * as Effect from \"effect/Effect\"") },
  { name: "a node module in core", expected: ["import-house"], contents: source("import { join } from \"node:path\"") },
  {
    name: "ws outside its house",
    expected: ["import-house"],
    contents: source("export { WebSocket } from \"ws\"", "server")
  },
  { name: "ws in its house", expected: [], contents: source("export { WebSocket } from \"ws\"", "server", "Gateway") },
  {
    name: "the runtime outside main",
    expected: ["import-house"],
    contents: source("import * as NodeRuntime from \"@effect/platform-node/NodeRuntime\"", "server")
  },
  {
    name: "the HTTP server outside the gateway",
    expected: ["import-house"],
    contents: source("import * as Server from \"@effect/platform-node/NodeHttpServer\"", "server")
  },
  {
    name: "core imports client",
    expected: ["direction"],
    contents: {
      ...source("import { x } from \"@topgun/client\""),
      "packages/core/package.json": manifest("core", { dependencies: { "@topgun/client": "1" } })
    }
  },
  {
    name: "client imports testing",
    expected: ["direction"],
    contents: {
      ...source("const world = await import(\"@topgun/testing/World\")", "client"),
      "packages/client/package.json": manifest("client", { dependencies: { "@topgun/testing": "1" } })
    }
  },
  { name: "an undeclared dependency", expected: ["undeclared"], contents: source("import * as p from \"left-pad\"") },
  {
    name: "a dependency of the root in a test",
    expected: [],
    contents: test("import { it } from \"@effect/vitest\"")
  },
  {
    name: "a cycle",
    expected: ["cycle"],
    contents: {
      ...source("import { b } from \"./Other.ts\""),
      "packages/core/src/Other.ts": "import type { a } from \"./Sample.ts\""
    }
  },
  {
    name: "a cycle across packages",
    expected: ["cycle", "direction"],
    contents: {
      ...source("import { b } from \"@topgun/client\""),
      "packages/core/package.json": manifest("core", { dependencies: { "@topgun/client": "1" } }),
      "packages/client/package.json": manifest("client", { dependencies: { "@topgun/core": "1" } }),
      "packages/client/src/index.ts": "export { a } from \"@topgun/core/Sample\""
    }
  },
  {
    name: "a file that nothing reaches",
    expected: ["unreached"],
    contents: { ...source("export const x = 1"), "packages/core/src/Lost.ts": "export const y = 1" }
  },
  {
    name: "both sides of a conditional import are reached",
    expected: [],
    contents: {
      ...source("import { open } from \"#websocket\""),
      "packages/core/package.json": manifest("core", {
        imports: {
          "#websocket": { browser: "./src/internal/websocket.browser.ts", default: "./src/internal/websocket.node.ts" }
        }
      }),
      "packages/core/src/internal/websocket.browser.ts": "export const open = 1",
      "packages/core/src/internal/websocket.node.ts": "export { WebSocket } from \"ws\""
    }
  },
  {
    name: "a worker is reached by its URL",
    expected: [],
    contents: {
      ...source("export const url = new URL(\"./worker.ts\", import.meta.url)", "server"),
      "packages/server/src/worker.ts": "export {}"
    }
  },
  {
    name: "a foreign tag key",
    expected: ["tag-key"],
    contents: source("class Clock extends Context.Tag(\"Clock\")<Clock, {}>() {}")
  },
  {
    name: "a tag key of the file, and a second one",
    expected: [],
    contents: source(
      "class A extends Context.Tag(\"@topgun/core/Sample\")<A, {}>() {}\n"
        + "class B extends Context.Reference<B>()(\"@topgun/core/Sample/Listener\", { defaultValue: f }) {}"
    )
  },
  { name: "a long file", expected: ["long-file"], contents: source("\n".repeat(701)) },
  {
    name: "a lock file tied to a host",
    expected: ["lock-host"],
    contents: lock({ "node_modules/a": { version: "1", resolved: "https://registry.example/a.tgz" } })
  },
  {
    name: "two copies of effect",
    expected: ["one-copy"],
    contents: lock({ "node_modules/effect": { version: "3" }, "node_modules/a/node_modules/effect": { version: "2" } })
  },
  {
    name: "two copies of something else",
    expected: [],
    contents: lock({ "node_modules/ms": { version: "3" }, "node_modules/a/node_modules/ms": { version: "2" } })
  },
  {
    name: "words in comments, strings, templates and regular expressions",
    expected: [],
    contents: source([
      "// Date.now() and Math.random() are banned; import { x } from \"left-pad\"",
      "/* setTimeout(f, 1) */",
      "export const s = \"Date.now() from \\\"left-pad\\\"\" + 'process.env'",
      "export const t = `Queue.unbounded ${s.length / 2} Effect.runSync(`",
      "export const r = /[\"'`/]Date.now\\(/.test(s) ? 4 / 2 : 1 / 3",
      "export const after = `${`nested ${{ a: 1 }.a}`}` // \" ` '"
    ].join("\n"))
  },
  {
    name: "code inside a template",
    expected: ["clock"],
    contents: source("export const t = `now: ${Date.now()}`")
  },
  {
    name: "a breach with its reason",
    expected: [],
    contents: source("// tidy-allow clock: the page is measured, not the program\nexport const t = performance.now()")
  },
  {
    name: "a breach without a reason",
    expected: ["clock"],
    contents: source("// tidy-allow clock:\nexport const t = performance.now()")
  }
]
