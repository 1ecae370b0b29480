/** Tabs of a real browser, of which one keeps the data of all: whichever of them ends, however it ends. */
import { assert, describe, it } from "@effect/vitest"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as ManagedRuntime from "effect/ManagedRuntime"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { BrowserContext, Page } from "playwright-core"
import { afterAll, beforeAll } from "vitest"
import { launch, Site } from "./Browser.ts"

let site: Site
const server = ManagedRuntime.make(
  TopGunServer.layer({ port: 0, storage: "memory", allowedOrigins: ["*"] }).pipe(
    Layer.provide(Logger.minimumLogLevel(LogLevel.Error))
  )
)
let url: string

beforeAll(async () => {
  site = await Site.open("client")
  const { host, port } = (await server.runPromise(TopGunServer.TopGunServer)).address!
  url = `ws://${host}:${port}`
})
afterAll(async () => {
  site.close()
  await server.dispose()
})

class Browser {
  readonly context: BrowserContext
  /** Maps of one test's own, on the server that all have. */
  readonly name: string

  constructor(context: BrowserContext, name: string) {
    this.context = context
    this.name = name
  }

  async open(): Promise<Page> {
    const page = await this.context.newPage()
    await page.goto(site.url)
    await page.evaluate(([to, storageKey]) => window.openClient({ url: to!, storageKey: storageKey! }), [
      url,
      this.name
    ])
    return page
  }

  async openAll(count: number): Promise<Array<Page>> {
    const pages: Array<Page> = []
    for (let i = 0; i < count; i++) pages.push(await this.open())
    return pages
  }

  /** Counts and writes until stopped: what was said to be durable here. */
  write(page: Page, tab: string): Promise<void> {
    return page.evaluate(([name, of]) => {
      const state = window.writing = { isOver: false, isDone: false, done: [] as Array<string> }
      const map = window.client.map<number>(name!)
      const counter = window.client.counter(`${name} count`)
      const next = async (n: number): Promise<void> => {
        state.isDone = state.isOver
        if (state.isOver) return
        await Promise.all([map.set(`${of} ${n}`, n), counter.increment()])
        state.done.push(`${of} ${n}`)
        requestIdleCallback(() => void next(n + 1))
      }
      void next(0)
    }, [this.name, tab])
  }

  /** Waits until more writes than these are durable. */
  written(page: Page, count: number): Promise<unknown> {
    return until(page, (n) => window.writing.done.length > n, count)
  }

  doneBy(page: Page): Promise<number> {
    return page.evaluate(() => window.writing.done.length)
  }

  /** Ends the writing: all that was said to be durable. */
  async stop(page: Page): Promise<{ done: ReadonlyArray<string> }> {
    await page.evaluate(() => {
      window.writing.isOver = true
    })
    await until(page, () => window.writing.isDone)
    return page.evaluate(() => ({ done: window.writing.done }))
  }

  content(page: Page): Promise<{ keys: ReadonlyArray<string>; count: number; digest: string }> {
    return page.evaluate((name) => {
      const map = window.client.map(name)
      return {
        keys: Array.from(map.keys()).sort(),
        count: window.client.counter(`${name} count`).current,
        digest: map.digest
      }
    }, this.name)
  }
}

declare global {
  interface Window {
    writing: { isOver: boolean; isDone: boolean; done: Array<string> }
  }
}

const roleOf = (page: Page): Promise<string> => page.evaluate(() => window.client.status.current.tab)

/** Waits by the clock, as a page that nobody sees draws nothing. */
const until = <A>(page: Page, condition: (given: A) => boolean, given?: A): Promise<unknown> =>
  page.waitForFunction(condition as (given: unknown) => boolean, given, { polling: 50, timeout: 45_000 })

const settled = (page: Page): Promise<unknown> =>
  until(page, () => {
    const { pending, state } = window.client.status.current
    return pending === 0 && state === "CONNECTED"
  })

const test = (behaviour: string, run: (browser: Browser) => Promise<void>): void =>
  it(behaviour, async () => {
    const folder = await mkdtemp(join(tmpdir(), "topgun-tabs-"))
    const context = await launch(join(folder, "profile"))
    try {
      await run(new Browser(context, `m${Math.floor(performance.now())}`))
    } finally {
      await context.close()
      await rm(folder, { recursive: true, force: true, maxRetries: 10 })
    }
  })

/** Everything that was promised is everywhere: in the tabs, and for a browser that has never seen any of them. */
const assertWhole = async (
  browser: Browser,
  pages: ReadonlyArray<Page>,
  done: ReadonlyArray<string>
): Promise<void> => {
  for (const page of pages) await settled(page)
  const first = await browser.content(pages[0]!)
  assert.includeMembers([...first.keys], [...done])
  // A write that nobody was told of may have been made all the same; none is made twice.
  assert.strictEqual(first.count, first.keys.length)
  for (const page of pages.slice(1)) {
    await until(page, ([name, digest]: ReadonlyArray<string>) => window.client.map(name!).digest === digest, [
      browser.name,
      first.digest
    ])
    assert.deepStrictEqual(await browser.content(page), first)
  }
}

describe("five tabs of a browser", () => {
  test("write at once through one of them, over one connection", async (browser) => {
    const pages = await browser.openAll(5)
    assert.deepStrictEqual(await Promise.all(pages.map(roleOf)), ["leader", ...Array(4).fill("follower")])
    for (const [i, page] of pages.entries()) await browser.write(page, `tab ${i}`)
    for (const page of pages) await browser.written(page, 20)
    const all = await Promise.all(pages.map((page) => browser.stop(page)))
    await assertWhole(browser, pages, all.flatMap(({ done }) => done))
    const { connections } = await pages[4]!.evaluate(() => window.client.serverStatus())
    assert.strictEqual(connections, 1)
  })

  test("go on when the renderer of the one that leads is killed, and again", async (browser) => {
    const pages = await browser.openAll(5)
    for (const [i, page] of pages.entries()) await browser.write(page, `tab ${i}`)
    for (const page of pages) await browser.written(page, 20)
    const left = [...pages]
    for (let round = 0; round < 2; round++) {
      const roles = await Promise.all(left.map(roleOf))
      const [leader] = left.splice(roles.indexOf("leader"), 1)
      const devTools = await browser.context.newCDPSession(leader!)
      const crashed = new Promise((resolve) => leader!.once("crash", resolve))
      devTools.send("Page.crash").catch(() => {})
      await crashed
      await Promise.race(left.map((page) => until(page, () => window.client.status.current.tab === "leader")))
      for (const page of left) await browser.written(page, await browser.doneBy(page))
    }
    const all = await Promise.all(left.map((page) => browser.stop(page)))
    await assertWhole(browser, left, all.flatMap(({ done }) => done))
    assert.strictEqual((await Promise.all(left.map(roleOf))).filter((role) => role === "leader").length, 1)
  })

  test("take over from one that hangs, which goes on as a follower when it runs again", async (browser) => {
    const pages = await browser.openAll(3)
    for (const [i, page] of pages.entries()) await browser.write(page, `tab ${i}`)
    for (const page of pages) await browser.written(page, 20)
    const hanging = site.hang(pages[0]!)
    await Promise.race(
      pages.slice(1).map((page) => until(page, () => window.client.status.current.tab === "leader"))
    )
    // They go on, while it still hangs.
    for (const page of pages.slice(1)) await browser.written(page, await browser.doneBy(page))
    site.release()
    await hanging
    await until(pages[0]!, () => window.client.status.current.tab === "follower")
    const all = await Promise.all(pages.map((page) => browser.stop(page)))
    await assertWhole(browser, pages, all.flatMap(({ done }) => done))
    assert.strictEqual(await roleOf(pages[0]!), "follower")
  })

  test("take over at once from one that the browser freezes, and from one that goes elsewhere", async (browser) => {
    const pages = await browser.openAll(3)
    const [first, second, third] = pages as [Page, Page, Page]
    for (const [i, page] of pages.entries()) await browser.write(page, `tab ${i}`)
    for (const page of pages) await browser.written(page, 20)
    // Chromium freezes only what can't be seen, and shows a test everything: what it would tell the page is told by the test.
    await first.evaluate(() => document.dispatchEvent(new Event("freeze")))
    await until(second, () => window.client.status.current.tab === "leader")
    await first.evaluate(() => document.dispatchEvent(new Event("resume")))
    await until(first, () => window.client.status.current.tab === "follower")
    const done = [...(await browser.stop(second)).done]
    await second.goto("about:blank")
    await Promise.race([first, third].map((page) => until(page, () => window.client.status.current.tab === "leader")))
    const stopped = await Promise.all([first, third].map((page) => browser.stop(page)))
    done.push(...stopped.flatMap((all) => all.done))
    await assertWhole(browser, [first, third], done)
  })
})
