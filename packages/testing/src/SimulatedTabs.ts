/**
 * The tabs of a simulated browser, and the storage that they share. A tab can be put to sleep by the browser, be frozen
 * without notice, or killed: whatever it does then is felt by nobody, as it would not do it.
 *
 * ```
 * const browser = SimulatedTabs.make()
 * const [first, second] = [browser.open(), browser.open()]
 * yield* World.startClient("alice", { tabs: first.tabs }, first.storage)
 * yield* World.startClient("alice", { tabs: second.tabs }, second.storage)
 * first.freeze()
 * ```
 */
import type { TabEvent, TabLock, Tabs } from "@topgun/client/Tabs"
import { memory, type StorageAdapter, StorageFault } from "@topgun/core/StorageAdapter"

/** One tab. */
export interface SimulatedTab {
  readonly tabs: Tabs
  /** What it hasn't run yet, as it was asked to while it was frozen. */
  readonly waiting: () => number
  /** Its way to the storage that all tabs share, and that who opened it last owns. */
  readonly storage: StorageAdapter
  /** It runs no more, and nobody was told. */
  readonly freeze: () => void
  /** It runs again, and hears of what has happened meanwhile. */
  readonly thaw: () => void
  /** The browser tells it that it's put to sleep, and does so. */
  readonly suspend: () => void
  readonly resume: () => void
  /** It is gone: its locks are free, and it's never heard of again. */
  readonly kill: () => void
}

interface Request {
  readonly tab: Tab
  readonly grant: () => void
}

/** A lock, and who waits for it. */
class Lock {
  holder: { readonly tab: Tab; readonly lose: () => void } | undefined
  readonly waiting: Array<Request> = []

  release(): void {
    this.holder = undefined
    this.waiting.shift()?.grant()
  }
}

class Tab {
  isFrozen = false
  isDead = false
  /** What it would have done while it was frozen. */
  #later: Array<() => void> = []
  readonly #onKilled: Array<() => void> = []
  readonly listeners = new Set<(event: TabEvent) => void>()

  /** Runs something on this tab, now or when it runs again; never when it's dead. */
  run(what: () => void): void {
    if (this.isDead) return
    if (this.isFrozen) this.#later.push(what)
    else what()
  }

  thaw(): void {
    this.isFrozen = false
    const later = this.#later
    this.#later = []
    for (const each of later) this.run(each)
  }

  get waiting(): number {
    return this.#later.length
  }

  /** Resolves while it runs; rejects when it's dead, so that what it would have awaited comes to an end. */
  get awake(): Promise<void> {
    if (this.isDead) return Promise.reject(new Error("this tab was killed"))
    return new Promise((resolve, reject) => {
      this.run(resolve)
      if (this.isFrozen) this.#onKilled.push(() => reject(new Error("this tab was killed")))
    })
  }

  kill(): void {
    this.isDead = true
    for (const each of this.#onKilled) each()
  }
}

/** A browser without tabs. */
export const make = () => {
  const rows = memory()
  const locks = new Map<string, Lock>()
  const channels = new Map<string, Set<{ readonly tab: Tab; readonly receive: (message: unknown) => void }>>()
  let owners = 0
  let stored = Promise.resolve()

  const lockOf = (name: string): Lock => {
    let lock = locks.get(name)
    if (lock === undefined) {
      lock = new Lock()
      locks.set(name, lock)
    }
    return lock
  }

  const open = (): SimulatedTab => {
    const tab = new Tab()
    const hold = (lock: Lock): TabLock => {
      let lose = (): void => {}
      const lost = new Promise<void>((resolve) => {
        lose = () => tab.run(resolve)
      })
      const holder = { tab, lose }
      lock.holder = holder
      return {
        lost,
        release: () =>
          tab.run(() => {
            if (lock.holder === holder) lock.release()
          })
      }
    }
    let owner = -1
    const tabs: Tabs = {
      lock: (name, how, signal) =>
        new Promise((resolve) =>
          tab.run(() => {
            const lock = lockOf(name)
            const settle = (held: TabLock | undefined): void => tab.run(() => resolve(held))
            if (how === "steal") {
              const before = lock.holder
              settle(hold(lock))
              before?.lose()
            } else if (lock.holder === undefined) settle(hold(lock))
            else if (how === "now") settle(undefined)
            else {
              const request: Request = { tab, grant: () => tab.isDead ? lock.release() : settle(hold(lock)) }
              lock.waiting.push(request)
              signal?.addEventListener("abort", () => {
                const at = lock.waiting.indexOf(request)
                if (at < 0) return
                lock.waiting.splice(at, 1)
                settle(undefined)
              })
            }
          })
        ),
      join: (name, onMessage) => {
        let members = channels.get(name)
        if (members === undefined) {
          members = new Set()
          channels.set(name, members)
        }
        const own = { tab, receive: onMessage }
        members.add(own)
        return {
          send: (message) =>
            tab.run(() => {
              for (const member of channels.get(name)!) {
                if (member === own) continue
                const copy: unknown = structuredClone(message)
                queueMicrotask(() =>
                  member.tab.run(() => {
                    if (channels.get(name)!.has(member)) member.receive(copy)
                  })
                )
              }
            }),
          close: () => void channels.get(name)!.delete(own)
        }
      },
      subscribe: (listener) => {
        tab.listeners.add(listener)
        return () => {
          tab.listeners.delete(listener)
        }
      }
    }
    const storage: StorageAdapter = {
      ...rows,
      kind: "shared",
      durable: true,
      isShared: true,
      open: async (name) => {
        await tab.awake
        owner = ++owners
        await rows.open(name)
      },
      scan: async (space, after, limit) => {
        await tab.awake
        return rows.scan(space, after, limit)
      },
      commit: async (writes) => {
        await tab.awake
        if (owner !== owners) throw new StorageFault("superseded", "another tab has opened it since")
        await stored
        await rows.commit(writes)
        await tab.awake
      }
    }
    const tell = (event: TabEvent): void => {
      for (const listener of Array.from(tab.listeners)) listener(event)
    }
    return {
      tabs,
      storage,
      waiting: () => tab.waiting,
      freeze: () => {
        tab.isFrozen = true
      },
      thaw: () => tab.thaw(),
      suspend: () => {
        tell("suspended")
        tab.isFrozen = true
      },
      resume: () => {
        tab.thaw()
        tell("resumed")
      },
      kill: () => {
        tab.kill()
        for (const lock of locks.values()) if (lock.holder?.tab === tab) lock.release()
      }
    }
  }
  return {
    open,
    /** What is stored, for a look from outside. */
    rows,
    /** Lets no commit end until the answered function is called. */
    holdCommits: (): () => void => {
      let release = (): void => {}
      stored = new Promise((resolve) => {
        release = resolve
      })
      return () => release()
    }
  }
}
