/** The demo page as a person has it: a server that was started by the command line, and a browser. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { type BrowserContext, chromium, type Locator, type Page } from "playwright-core"

const packages = join(import.meta.dirname, "../..")

/** `topgun serve` with the demo page, over a directory of its own, which outlives a restart. */
export class Server {
  #process: ChildProcess | undefined
  /** The first start's, and then kept: the page's data belongs to its origin. */
  #port = 0
  readonly #directory: string

  constructor(directory: string) {
    this.#directory = directory
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}/`
  }

  /** Resolves when it's ready. */
  async start(): Promise<void> {
    const server = spawn(
      process.execPath,
      [
        join(packages, "cli/bin/topgun.js"),
        "serve",
        `--port=${this.#port}`,
        `--data-dir=${this.#directory}`,
        `--demo=${join(packages, "examples/dist")}`
      ],
      { stdio: ["ignore", "pipe", "inherit"] }
    )
    this.#process = server
    for await (const line of createInterface(server.stdout!)) {
      const [, port] = /ready on http:\/\/127\.0\.0\.1:(\d+)/.exec(line) ?? []
      if (port === undefined) continue
      this.#port = Number(port)
      return
    }
    throw new Error(`topgun serve ended before it was ready, with ${server.exitCode ?? server.signalCode}`)
  }

  async stop(): Promise<void> {
    const server = this.#process
    this.#process = undefined
    if (server === undefined || server.exitCode !== null || server.signalCode !== null) return
    const ended = once(server, "exit")
    server.kill("SIGTERM")
    await ended
  }
}

/** One person's side of the page. */
export class Side {
  readonly root: Locator

  constructor(page: Page, person: "alice" | "bob") {
    this.root = page.locator(`[data-person=${person}]`)
  }

  async add(text: string): Promise<void> {
    await this.root.getByPlaceholder("What is to be done?").fill(text)
    await this.root.getByRole("button", { name: "Add" }).click()
    await this.todo(text).waitFor()
  }

  async texts(): Promise<ReadonlyArray<string>> {
    return (await this.todos()).map(([text]) => text)
  }

  doneTodo(text: string): Locator {
    return this.todo(text).and(this.root.locator(".done"))
  }

  todo(text: string): Locator {
    return this.root.locator("li.todo").filter({
      has: this.root.page().getByLabel(`Text of: ${text}`, { exact: true })
    })
  }

  async rename(text: string, other: string): Promise<void> {
    const field = this.todo(text).getByLabel("Text of:")
    await field.fill(other)
    await field.press("Enter")
    await this.todo(other).waitFor()
  }

  async toggle(text: string): Promise<void> {
    await this.todo(text).getByRole("checkbox").click()
  }

  async remove(text: string): Promise<void> {
    await this.todo(text).getByRole("button").click()
  }

  async switch(online: boolean): Promise<void> {
    await this.root.getByRole("switch").setChecked(online)
    await this.state(online ? "CONNECTED" : "DISCONNECTED")
  }

  /** Waits until the badge says so. */
  async state(state: string): Promise<void> {
    await this.root.locator(`.badge[data-state=${state}]`).waitFor()
  }

  /** Waits until as many writes wait for the server. */
  async pending(count: number): Promise<void> {
    await this.root.locator(`[data-pending="${count}"]`).waitFor()
  }

  /** Waits until the device keeps what was written: before that a reload loses it. */
  async saved(): Promise<void> {
    await this.root.and(this.root.page().locator("[aria-busy=false]")).waitFor()
  }

  async todos(): Promise<ReadonlyArray<readonly [text: string, done: boolean]>> {
    return this.root.locator("li.todo").evaluateAll((items) =>
      items.map((item) => {
        const [done, text] = item.querySelectorAll("input")
        return [text!.value, done!.checked] as const
      })
    )
  }

  async digest(): Promise<string | null> {
    return this.root.locator("[data-digest]").getAttribute("data-digest")
  }
}

/** Server, browser and page. */
export class Demo {
  readonly server: Server
  readonly page: Page
  readonly alice: Side
  readonly bob: Side
  /** What the page has complained of; a server's absence, which the browser reports by itself, is none. */
  readonly complaints: Array<string> = []
  readonly #close: () => Promise<void>

  private constructor(server: Server, page: Page, close: () => Promise<void>) {
    this.server = server
    this.page = page
    this.alice = new Side(page, "alice")
    this.bob = new Side(page, "bob")
    this.#close = close
    page.on("pageerror", (error) => this.complaints.push(String(error)))
    page.on("console", (message) => {
      const isAbsence = /ERR_CONNECTION_REFUSED|WebSocket connection to/.test(message.text())
      if (["error", "warning"].includes(message.type()) && !isAbsence) this.complaints.push(message.text())
    })
  }

  static async open(): Promise<Demo> {
    const executablePath = process.env.CHROMIUM_PATH
    if (executablePath === undefined) throw new Error("there is no Chromium here: set CHROMIUM_PATH to one")
    const directory = await mkdtemp(join(tmpdir(), "topgun-demo-"))
    const server = new Server(join(directory, "data"))
    let context: BrowserContext | undefined
    const close = async (): Promise<void> => {
      await context?.close()
      await server.stop()
      await rm(directory, { recursive: true, force: true })
    }
    try {
      await server.start()
      context = await chromium.launchPersistentContext(join(directory, "profile"), {
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
        ],
        viewport: { width: 1200, height: 760 }
      })
      const demo = new Demo(server, context.pages()[0] ?? await context.newPage(), close)
      await demo.page.goto(server.url)
      await demo.loaded()
      // The page's files are kept from here on.
      await demo.page.waitForFunction(() => navigator.serviceWorker.controller !== null)
      return demo
    } catch (fault) {
      await close()
      throw fault
    }
  }

  /** Waits until both devices have loaded what they hold. */
  async loaded(): Promise<void> {
    await this.page.locator("[data-person=alice][data-ready]").waitFor()
    await this.page.locator("[data-person=bob][data-ready]").waitFor()
  }

  async reload(): Promise<void> {
    await this.page.reload()
    await this.loaded()
  }

  /** Waits until the server has confirmed all writes and both devices hold the same. */
  async agreed(): Promise<void> {
    await this.page.locator("#comparison[data-verdict=equal][data-waiting='0']").waitFor()
    await this.page.waitForFunction(() => {
      const [alice, bob] = ["alice", "bob"].map((person) =>
        Array.from(
          document.querySelectorAll<HTMLInputElement>(`[data-person=${person}] li input`),
          (input) => `${input.value} ${input.checked}`
        ).join("\n")
      )
      return alice === bob
    })
  }

  close(): Promise<void> {
    return this.#close()
  }
}
