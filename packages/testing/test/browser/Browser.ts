/** A real Chromium, with profiles that outlive it, and pages of our own on an origin of their own. */
import { createServer, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { type BrowserContext, chromium, type Page } from "playwright-core"
import { build, type Rollup } from "vite"
import { type Mutant, mutantPlugin } from "../../src/mutants.ts"
// @ts-expect-error a plain script without declarations: it runs before anything is installed
import { findChromium } from "../../../../scripts/chromium.mjs"

const html = (page: string) =>
  `<!doctype html><meta charset="utf-8"><title>${page}</title><link rel="icon" href="data:,"><script type="module" src="/${page}.js"></script>`

/** The packages' sources, so that a page needs no build of theirs; the rest are Vite's own defaults, which a list replaces. */
const conditions = ["@topgun/source", "module", "browser", "development|production"]

const root = join(import.meta.dirname, "../../../..")

/** What `run-mutants.mjs` has broken, so that a page is built of it too. */
const broken = process.env["TOPGUN_MUTANT"]

/** An origin with one page, `pages/<name>.ts`. */
export class Site {
  readonly url: string
  readonly #held: Set<ServerResponse>
  readonly #close: () => void

  private constructor(url: string, held: Set<ServerResponse>, close: () => void) {
    this.url = url
    this.#held = held
    this.#close = close
  }

  static async open(name: string): Promise<Site> {
    const pages = join(import.meta.dirname, "pages")
    const { output } = await build({
      configFile: false,
      root: pages,
      logLevel: "warn",
      resolve: { conditions },
      plugins: broken === undefined ? [] : [mutantPlugin(JSON.parse(broken) as Mutant, root)],
      build: {
        target: "es2022",
        write: false,
        minify: false,
        modulePreload: false,
        rollupOptions: { input: { [name]: join(pages, `${name}.ts`) }, output: { entryFileNames: "[name].js" } }
      }
    }) as Rollup.RollupOutput
    const scripts = new Map(
      output.map((file) => [`/${file.fileName}`, file.type === "chunk" ? file.code : file.source])
    )
    const held = new Set<ServerResponse>()
    const server = createServer((request, response) => {
      const { pathname } = new URL(request.url ?? "/", "http://localhost")
      if (pathname === "/held") return void held.add(response)
      const script = scripts.get(pathname)
      if (script === undefined && pathname !== "/") response.writeHead(404).end()
      else if (script === undefined) response.writeHead(200, { "content-type": "text/html" }).end(html(name))
      else response.writeHead(200, { "content-type": "text/javascript" }).end(script)
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    const { port } = server.address() as AddressInfo
    return new Site(`http://127.0.0.1:${port}/`, held, () => {
      server.close()
      server.closeAllConnections()
    })
  }

  /** Lets a page hang, as one that works without end does: until {@link release} is called it runs nothing else. */
  hang(page: Page): Promise<void> {
    return page.evaluate((url) => {
      const request = new XMLHttpRequest()
      request.open("GET", url, false)
      request.send()
    }, `${this.url}held`)
  }

  /** Lets those go on that hang. */
  release(): void {
    for (const response of this.#held) response.end()
    this.#held.clear()
  }

  close(): void {
    this.#close()
  }
}

const options = async () => {
  const executablePath: string | undefined = await findChromium()
  if (executablePath === undefined) throw new Error("there is no Chromium here: set CHROMIUM_PATH to one")
  return {
    executablePath,
    args: [
      "--headless=new",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync"
    ]
  }
}

/** A browser over a profile, which is its folder. */
export const launch = async (profile: string): Promise<BrowserContext> =>
  chromium.launchPersistentContext(profile, await options())

/** A private window, and the browser to close after it. */
export const launchPrivate = async () => {
  const browser = await chromium.launch(await options())
  return { browser, context: await browser.newContext() }
}
