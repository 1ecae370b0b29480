/** Clients in a real browser, whose storage is filled up, deleted, copied and killed under them. */
import { assert, describe, it } from "@effect/vitest"
import type { ClientOptions } from "@topgun/client/promise"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as ManagedRuntime from "effect/ManagedRuntime"
import { cp, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { BrowserContext, CDPSession, Page } from "playwright-core"
import { afterAll, beforeAll } from "vitest"
import { launch, launchPrivate, Site } from "./Browser.ts"

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

/** A device of a person: a browser and its profile, for the time of a test. */
class Device {
  browser: BrowserContext
  readonly folder: string
  readonly profile: string

  constructor(browser: BrowserContext, folder: string, profile: string) {
    this.browser = browser
    this.folder = folder
    this.profile = profile
  }

  /** A page with the client's code, not yet open. */
  async page(): Promise<Page> {
    const page = await this.browser.newPage()
    await page.goto(site.url)
    return page
  }

  /** The browser's end of a page. */
  devTools(page: Page): Promise<CDPSession> {
    return this.browser.newCDPSession(page)
  }

  /** Copies the profile, and runs both. */
  async copy(): Promise<Device> {
    await this.browser.close()
    const profile = `${this.profile} copied`
    await cp(this.profile, profile, { recursive: true })
    this.browser = await launch(this.profile)
    return new Device(await launch(profile), this.folder, profile)
  }
}

const test = (behaviour: string, run: (device: Device) => Promise<void>): void =>
  it(behaviour, async () => {
    const folder = await mkdtemp(join(tmpdir(), "topgun-browser-"))
    const profile = join(folder, "profile")
    const device = new Device(await launch(profile), folder, profile)
    try {
      await run(device)
    } finally {
      await device.browser.close()
      await rm(folder, { recursive: true, force: true, maxRetries: 10 })
    }
  })

const origin = () => new URL(site.url).origin

/** Opens the page's client. */
const openClient = (page: Page, options?: ClientOptions): Promise<void> =>
  page.evaluate((given) => window.openClient(given), options)

const faultsOf = (page: Page): Promise<ReadonlyArray<string>> => page.evaluate(() => window.faults.map(([tag]) => tag))

const settled = (page: Page): Promise<unknown> =>
  page.waitForFunction(() => {
    const { pending, state } = window.client.status.current
    return pending === 0 && state === "CONNECTED"
  })

/** What is in the map `m` of the page's client. */
const keysOf = (page: Page): Promise<ReadonlyArray<string>> =>
  page.evaluate(() => Array.from(window.client.map("m").keys()).sort())

const pendingOf = (page: Page): Promise<number> => page.evaluate(() => window.client.status.current.pending)

describe("a browser that has no room", () => {
  test("is never said to have saved what it hasn't, and saves that when it has", async (device) => {
    // The quota lasts as long as the page that it is set from.
    const devTools = await device.devTools(await device.page())
    const page = await device.page()
    const setQuota = (quotaSize?: number) =>
      devTools.send("Storage.overrideQuotaForOrigin", {
        origin: origin(),
        ...(quotaSize === undefined ? {} : { quotaSize })
      })
    /** Writes until a write fails; what didn't, and how it failed. */
    const fill = () =>
      page.evaluate(async () => {
        const map = window.client.map<Uint8Array>("m")
        const saved: Array<string> = []
        for (let n = map.size;; n++) {
          const fault = await window.faultOf(map.set(`k${n}`, crypto.getRandomValues(new Uint8Array(60_000))))
          if (fault !== "none") return { saved, fault, shown: window.client.status.current.storage.fault }
          saved.push(`k${n}`)
          if (saved.length > 100) throw new Error("there is room")
        }
      })
    await setQuota(1_000_000)
    await openClient(page)
    const { fault, saved, shown } = await fill()
    assert.strictEqual(fault, "StorageQuotaExceeded")
    assert.include(shown, "Storage is full")
    assert.isAbove(saved.length, 2)
    assert.deepStrictEqual(await faultsOf(page), ["StorageQuotaExceeded"])

    // None at all: what is there can be read nevertheless.
    await setQuota(1)
    await page.reload()
    await openClient(page)
    assert.deepStrictEqual(await keysOf(page), saved.sort())
    assert.strictEqual(await pendingOf(page), saved.length)
    const again = await fill()
    assert.deepStrictEqual([again.fault, again.saved], ["StorageQuotaExceeded", []])

    await setQuota()
    await page.waitForFunction(() => window.client.status.current.storage.fault === undefined)
    const keys = await keysOf(page)
    await page.reload()
    await openClient(page)
    assert.deepStrictEqual(await keysOf(page), keys)
    assert.strictEqual(await pendingOf(page), saved.length + 1)
  })
})

describe("a browser whose storage is deleted", () => {
  test("stores all that its pages have anew, be the server away, and loses nothing that is unsent", async (device) => {
    const page = await device.page()
    const devTools = await device.devTools(page)
    await openClient(page, { url, storageKey: "deleted" })
    await page.evaluate(() => window.client.map("m").set("sent", 1))
    await settled(page)
    await page.evaluate(async () => {
      await window.client.disconnect()
      await window.client.map("m").set("unsent", 1)
    })
    await devTools.send("Storage.clearDataForOrigin", { origin: origin(), storageTypes: "all" })
    await page.evaluate(async () => {
      await window.client.map("m").set("later", 1)
    })
    assert.deepStrictEqual(await faultsOf(page), ["StorageEvicted"])
    await page.reload()
    await openClient(page, { url, storageKey: "deleted", autoConnect: false })
    assert.deepStrictEqual(await keysOf(page), ["later", "sent", "unsent"])
    assert.strictEqual(await pendingOf(page), 2)
    await page.evaluate(() => window.client.connect())
    await settled(page)
    assert.deepStrictEqual(await keysOf(page), ["later", "sent", "unsent"])
    assert.deepStrictEqual(await faultsOf(page), [])
  })

  test("tells of it when it's opened again, and takes everything from the server", async (device) => {
    const page = await device.page()
    await openClient(page, { url, storageKey: "evicted" })
    await page.evaluate(() => window.client.map("m").set("evicted", 1))
    await settled(page)
    const before = await keysOf(page)
    await page.evaluate(() => window.client.close())
    const devTools = await device.devTools(page)
    await devTools.send("Storage.clearDataForOrigin", { origin: origin(), storageTypes: "indexeddb" })
    await page.reload()
    await openClient(page, { url, storageKey: "evicted" })
    assert.deepStrictEqual(await faultsOf(page), ["StorageEvicted"])
    await page.evaluate(() => void window.client.map("m"))
    await settled(page)
    assert.deepStrictEqual(await keysOf(page), before)
  })
})

describe("a browser whose page is killed", () => {
  /** Writes without end: each time a key, the latest of all, and a count, together. */
  const writeOn = (page: Page, round: number): Promise<void> =>
    page.evaluate((of) => {
      const map = window.client.map<number>("m")
      const count = window.client.counter("count")
      const write = async () => {
        let before: PromiseLike<void> | undefined
        for (let n = 0;; n++) {
          const key = `${of}-${n}`
          map.set(key, n)
          map.set("latest", of * 1e6 + n)
          const { local } = count.increment()
          void local.then(() => window.saved!(key))
          if (n % 10 === 0) {
            await before
            before = local
          }
        }
      }
      void write()
    }, round)

  test("has what it was said to have, and of each write record and operation or neither", async (device) => {
    const saved = new Set<string>()
    let latest = 0
    // At which of its writes each page is killed.
    const kills = [1, 613, 40, 397, 2]
    for (const [round, killAt] of kills.entries()) {
      const page = await device.page()
      let heard = 0
      const isDue = new Promise<void>((resolve) => {
        const listening = page.exposeFunction("saved", (key: string) => {
          saved.add(key)
          const [of, n] = key.split("-").map(Number) as [number, number]
          latest = Math.max(latest, of * 1e6 + n)
          if (++heard === killAt) resolve()
        })
        void listening.then(() => openClient(page)).then(() => writeOn(page, round))
      })
      await isDue
      const crashed = new Promise<void>((resolve) => void page.once("crash", () => resolve()))
      const devTools = await device.devTools(page)
      devTools.send("Page.crash").catch(() => {})
      await crashed
      await page.close()

      const after = await device.page()
      await openClient(after)
      const found = await after.evaluate(() => ({
        keys: Array.from(window.client.map<number>("m").keys()),
        latest: window.client.map<number>("m").get("latest")!,
        count: window.client.counter("count").current,
        pending: window.client.status.current.pending
      }))
      const keys = new Set(found.keys)
      assert.deepStrictEqual(Array.from(saved).filter((key) => !keys.has(key)), [])
      assert.isAtLeast(found.latest, latest)
      assert.strictEqual(found.count, keys.size - 1)
      // One of each key, and of each page one of the latest and one of the count: what may be on its way isn't changed any more.
      assert.strictEqual(found.pending, keys.size - 1 + 2 * (round + 1))
      assert.deepStrictEqual(await faultsOf(after), [])
      await after.evaluate(() => window.client.close())
      await after.close()
    }
    assert.isAbove(saved.size, 1_000)
  })
})

describe("a browser's profile that is copied", () => {
  test("makes two devices of one, which lose nothing that either wrote", async (device) => {
    const open = async (which: Device, autoConnect: boolean): Promise<Page> => {
      const page = await which.page()
      await openClient(page, { url, userId: "copied", autoConnect })
      return page
    }
    const original = await open(device, true)
    await original.evaluate(() => window.client.map("copied").set("sent", 1))
    await settled(original)
    await original.evaluate(async () => {
      await window.client.disconnect()
      await window.client.map("copied").set("unsent", 1)
      await window.client.close()
    })
    const copy = await device.copy()
    try {
      const pages = [await open(device, false), await open(copy, false)]
      await Promise.all(pages.map((page, i) => page.evaluate((of) => window.client.map("copied").set(of, 1), `${i}`)))
      for (const page of pages) {
        await page.evaluate(() => window.client.connect())
        await settled(page)
      }
      // As whom each writes from now on.
      const nodes = await Promise.all(
        pages.map((page, i) =>
          page.evaluate(async (of) => {
            const map = window.client.map("copied")
            await map.set(of, 1)
            return map.getRecord(of)!.nodeId
          }, `${i} later`)
        )
      )
      assert.notStrictEqual(nodes[0], nodes[1])
      for (const page of pages) {
        await page.evaluate(() => window.client.synced())
        await page.waitForFunction(() => window.client.map("copied").size === 6)
        assert.deepStrictEqual(
          await page.evaluate(() => Array.from(window.client.map("copied").keys()).sort()),
          ["0", "0 later", "1", "1 later", "sent", "unsent"]
        )
      }
      const digests = await Promise.all(pages.map((page) => page.evaluate(() => window.client.map("copied").digest)))
      assert.strictEqual(digests[0], digests[1])
      const faults = (await Promise.all(pages.map(faultsOf))).flat()
      assert.deepStrictEqual(faults, ["NodeIdConflict"])
    } finally {
      await copy.browser.close()
    }
  })
})

describe("a browser that stores what this version doesn't know", () => {
  test("is left as it is where a newer version has been", async (device) => {
    const page = await device.page()
    const found = await page.evaluate(() =>
      new Promise<ReadonlyArray<number>>((resolve) => {
        const opening = indexedDB.open("topgun|local||", 99)
        opening.addEventListener("upgradeneeded", () => void opening.result.createObjectStore("later"))
        opening.addEventListener("success", () => {
          opening.result.close()
          resolve([opening.result.version])
        })
      })
    )
    assert.deepStrictEqual(found, [99])
    assert.strictEqual(await page.evaluate(() => window.faultOf(window.openClient())), "StorageTooNew")
    assert.strictEqual(await page.evaluate(() => window.faultOf(window.client.map("m").set("k", 1))), "StorageTooNew")
    const after = await page.evaluate(async () => (await indexedDB.databases()).map(({ version }) => version))
    assert.deepStrictEqual(after, [99])
  })

  test("shows the rest where somebody has edited rows by hand", async (device) => {
    const page = await device.page()
    await page.evaluate(async () => {
      await window.openClient()
      for (let n = 0; n < 20; n++) await window.client.map("m").set(`k${n}`, n)
      await window.client.close()
      const database = await new Promise<IDBDatabase>((resolve) => {
        const opening = indexedDB.open("topgun|local||")
        opening.addEventListener("success", () => resolve(opening.result))
      })
      const editing = database.transaction("rows", "readwrite")
      const rows = editing.objectStore("rows")
      const [first] = await new Promise<ReadonlyArray<Uint8Array>>((resolve) => {
        const asked = rows.getAll(IDBKeyRange.bound(["outbox"], ["outbox", []]))
        asked.addEventListener("success", () => resolve(asked.result as ReadonlyArray<Uint8Array>))
      })
      rows.put("text", ["records/m", "k0"])
      rows.put(first!.slice(0, 9), ["records/m", "k1"])
      rows.put(new Uint8Array(300_000), ["records/m", "strange"])
      rows.put(first!, ["records/m", 7])
      rows.put(first!, ["outbox", "1fffffffffffff"])
      rows.put({ synced: true }, ["outbox", "zzz"])
      rows.put(null, ["maps", "of no kind"])
      rows.put(Uint8Array.of(1), ["marks", "m"])
      rows.put(Uint8Array.of(0xc1), ["rejected", "1"])
      await new Promise<void>((resolve) => editing.addEventListener("complete", () => resolve()))
      database.close()
      await window.openClient()
    })
    const faults = await faultsOf(page)
    assert.deepStrictEqual(new Set(faults), new Set(["StorageUnavailable"]))
    assert.deepStrictEqual(
      await page.evaluate(() => Array.from(window.client.map<number>("m").values()).sort((a, b) => a - b)),
      Array.from({ length: 18 }, (_, n) => n + 2)
    )
    assert.strictEqual(await pendingOf(page), 20)
    assert.strictEqual(await page.evaluate(() => window.faultOf(window.client.map("m").set("k0", 0))), "none")
  })
})

describe("a browser that keeps nothing", () => {
  it("stores what a private window has for as long as it's open", async () => {
    const { browser, context } = await launchPrivate()
    try {
      const page = await context.newPage()
      await page.goto(site.url)
      await openClient(page)
      await page.evaluate(() => window.client.map("m").set("k", 1))
      await page.reload()
      await openClient(page)
      assert.deepStrictEqual(await keysOf(page), ["k"])
    } finally {
      await browser.close()
    }
  })

  test("goes on in memory where its settings forbid storage", async (device) => {
    const page = await device.browser.newPage()
    await page.addInitScript(() => {
      for (const name of ["indexedDB", "localStorage"]) {
        Object.defineProperty(window, name, {
          get: () => {
            throw new DOMException("The operation is insecure.", "SecurityError")
          }
        })
      }
    })
    await page.goto(site.url)
    await openClient(page, { url, userId: "forbidden" })
    assert.deepStrictEqual(await faultsOf(page), ["StorageUnavailable"])
    await page.evaluate(() => window.client.map("forbidden").set("k", 1))
    await settled(page)
    const { durable, fault, kind } = await page.evaluate(() => window.client.status.current.storage)
    assert.deepStrictEqual([kind, durable], ["memory", false])
    assert.include(fault, "insecure")
  })

  test("goes on in memory when another page is in the way, and says which", async (device) => {
    const older = await device.page()
    await older.evaluate(() =>
      new Promise<void>((resolve) => {
        const opening = indexedDB.open("topgun|local||", 1)
        opening.addEventListener("upgradeneeded", () => void opening.result.createObjectStore("rows"))
        opening.addEventListener("success", () => resolve())
      })
    )
    const page = await device.browser.newPage()
    await page.clock.install()
    await page.goto(site.url)
    const opening = openClient(page)
    await page.clock.fastForward(5_000)
    await page.clock.fastForward(5_000)
    await opening
    const { durable, fault } = await page.evaluate(() => window.client.status.current.storage)
    assert.isFalse(durable)
    assert.include(fault, "another tab holds")
    assert.deepStrictEqual(await faultsOf(page), ["StorageUnavailable"])
    // The way is free again.
    await older.close()
    await page.reload()
    await openClient(page)
    assert.isTrue(await page.evaluate(() => window.client.status.current.storage.durable))
  })
})

describe("a browser that is asked", () => {
  test("says whether it will keep what is stored, and how much room there is", async (device) => {
    const page = await device.page()
    await openClient(page)
    await page.evaluate(() => window.client.map("m").set("k", 1))
    await page.waitForFunction(() => window.client.status.current.storage.quota !== undefined)
    const { persisted, quota, usage } = await page.evaluate(() => window.client.status.current.storage)
    assert.isBoolean(persisted)
    assert.isAbove(quota!, 0)
    assert.isAtLeast(usage!, 0)
  })
})
