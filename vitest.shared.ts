import * as path from "node:path"
import { defineProject, type UserWorkspaceConfig } from "vitest/config"
// @ts-expect-error a plain script without declarations: it runs before anything is installed
import { findChromium } from "./scripts/chromium.mjs"

const root = import.meta.dirname

/**
 * Resolution of the workspace's packages to their sources: tests need no build. The rest are Vite's own defaults for Node, which a
 * list replaces rather than extends.
 */
const conditions = ["@topgun/source", "module", "node", "development|production"]

export interface ProjectOptions {
  /**
   * What is built once before the first test: `"packages"` for tests that start real processes from `dist`, `"demo"` for tests that
   * also open the demo page in a browser (they find it at `process.env.CHROMIUM_PATH`). Default: nothing.
   */
  readonly build?: "packages" | "demo"
  /** Whether tests open pages of their own in a browser, which they find at `process.env.CHROMIUM_PATH` too. Default: no. */
  readonly browser?: boolean
  /** Files, relative to the package, that are run before each test file. */
  readonly setupFiles?: ReadonlyArray<string>
}

/** The test project of one package: every `test/**\/*.test.ts` under `packages/<name>`. */
export const project = async (name: string, options: ProjectOptions = {}): Promise<UserWorkspaceConfig> => {
  const chromium: string | undefined = options.build === "demo" || options.browser === true
    ? await findChromium()
    : undefined
  // Hang guards, not expectations: no test's outcome depends on them.
  const guardMillis = options.build === undefined ? 30_000 : 120_000
  return defineProject({
    root: path.join(root, "packages", name),
    resolve: { conditions },
    ssr: { resolve: { conditions } },
    test: {
      name,
      include: ["test/**/*.test.{ts,tsx}"],
      benchmark: { include: ["bench/**/*.bench.ts"] },
      environment: "node",
      env: chromium === undefined ? {} : { CHROMIUM_PATH: chromium },
      testTimeout: guardMillis,
      hookTimeout: guardMillis,
      globalSetup: [
        ...options.build === undefined ? [] : [path.join(root, "scripts/build-once.mjs")],
        ...options.build === "demo" ? [path.join(root, "scripts/build-demo-once.mjs")] : []
      ],
      setupFiles: [...options.setupFiles ?? []]
    }
  })
}
