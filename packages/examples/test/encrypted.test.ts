/** Encrypted storage in a browser, and what is on the disk then. */
import { assert, describe, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type BrowserContext, chromium } from "playwright-core"
import { build, type Rollup } from "vite"
import { afterEach, beforeAll } from "vitest"
import type { EncryptedPage } from "./encryptedPage.ts"

declare global {
  // What the page has: see its file.
  var page: EncryptedPage
}

const passphrase = "correct horse battery staple"
const words = ["CanaryMap", "CanaryKey", "CanaryValue"] as const
const url = "http://localhost/"

/** The page's modules by their paths. */
const modules = new Map<string, string>()
const directories: Array<string> = []

/** A browser with the page, over a profile on the disk. */
const withPage = async (profile: string, use: (context: BrowserContext) => Promise<void>): Promise<void> => {
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env["CHROMIUM_PATH"]!,
    args: ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
  })
  try {
    await context.route(`${url}**`, (route) => {
      const body = modules.get(new URL(route.request().url()).pathname)
      return body === undefined
        ? route.fulfill({ contentType: "text/html", body: "<script type=module src=page.js></script>" })
        : route.fulfill({ contentType: "text/javascript", body })
    })
    const tab = context.pages()[0] ?? await context.newPage()
    await tab.goto(url)
    await tab.waitForFunction(() => globalThis.page !== undefined)
    await use(context)
  } finally {
    await context.close()
  }
}

const newProfile = async (): Promise<string> => {
  const directory = await mkdtemp(join(tmpdir(), "topgun-profile-"))
  directories.push(directory)
  return directory
}

/** The words that are to be found in a profile's files, in any of the forms that they may have there. */
const found = (profile: string): ReadonlyArray<string> => {
  const files = readdirSync(profile, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const contents = files.map((file) => readFileSync(join(file.parentPath, file.name)))
  return words.filter((word) => {
    const utf16 = Buffer.from(word, "utf16le")
    const forms = [
      Buffer.from(word),
      utf16,
      Buffer.from(utf16).swap16(),
      ...[0, 1, 2].map((before) =>
        Buffer.from(Buffer.from("-".repeat(before) + word).toString("base64").slice(2 + before, -3))
      )
    ]
    return contents.some((content) => forms.some((form) => content.includes(form)))
  })
}

const write = async (context: BrowserContext, key: string | null): Promise<void> => {
  await context.pages()[0]!.evaluate(
    ([given, [map, name, value]]) => globalThis.page.write(given ?? undefined, map, name, value, 1_000),
    [key, words] as const
  )
}

beforeAll(async () => {
  const bundle = await build({
    configFile: false,
    logLevel: "silent",
    root: import.meta.dirname,
    resolve: { conditions: ["@topgun/source", "module", "browser", "development|production"] },
    build: {
      write: false,
      target: "es2022",
      lib: { entry: "encryptedPage.ts", formats: ["es"], fileName: "page" }
    }
  })
  const [output] = bundle as unknown as ReadonlyArray<Rollup.RollupOutput>
  for (const file of output!.output) if (file.type === "chunk") modules.set(`/${file.fileName}`, file.code)
})

afterEach(() => Promise.all(directories.splice(0).map((directory) => rm(directory, { recursive: true, force: true }))))

describe("A browser with encrypted storage", () => {
  it("has nothing of values, keys and names of maps in its profile, and reads all of it after a restart", async () => {
    const profile = await newProfile()
    await withPage(profile, (context) => write(context, passphrase))
    assert.deepStrictEqual(found(profile), [])
    await withPage(profile, async (context) => {
      const values = await context.pages()[0]!.evaluate(
        ([given, [map, key]]) => globalThis.page.read(given, map, key),
        [passphrase, words] as const
      )
      assert.deepStrictEqual(values, ["CanaryValue0", "CanaryValue999"])
    })
    assert.deepStrictEqual(found(profile), [])
  })

  it("would have all of them there without encryption, where the same search finds them", async () => {
    const profile = await newProfile()
    await withPage(profile, (context) => write(context, null))
    assert.deepStrictEqual(found(profile), words)
  })
})
