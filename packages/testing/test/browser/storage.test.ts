/** The acceptance suite of storage drivers on a real browser's IndexedDB. */
import { describe, it } from "@effect/vitest"
import { storageCases } from "@topgun/testing/storageCases"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { BrowserContext, Page } from "playwright-core"
import { afterAll, beforeAll } from "vitest"
import { launch, Site } from "./Browser.ts"

describe("Storage (IndexedDB in Chromium)", () => {
  let folder: string
  let site: Site | undefined
  let browser: BrowserContext | undefined
  let page: Page

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "topgun-browser-"))
    site = await Site.open("storage")
    browser = await launch(join(folder, "profile"))
    page = await browser.newPage()
    await page.goto(site.url)
  })
  afterAll(async () => {
    await browser?.close()
    site?.close()
    await rm(folder, { recursive: true, force: true })
  })

  for (const { behaviour } of storageCases) {
    it(behaviour, () => page.evaluate((which) => window.runStorageCase(which), behaviour))
  }
})
