/** A client in a page, for a test to use through the window. */
import { indexedDb } from "@topgun/adapters/indexeddb"
import { type Client, type ClientOptions, createClient } from "@topgun/client/promise"

declare global {
  interface Window {
    /** Opens this page's client over IndexedDB. */
    openClient: (options?: ClientOptions) => Promise<void>
    client: Client
    /** What `onError` heard: tag and message of each. */
    faults: Array<readonly [tag: string, message: string]>
    /** What a rejection is called, or `"none"`. */
    faultOf: (promise: PromiseLike<unknown>) => Promise<string>
    /** Told by the page, where a test listens: this write is durable. */
    saved?: (key: string) => void
  }
}

const tagOf = (fault: unknown): string =>
  typeof fault === "object" && fault !== null && "_tag" in fault ? String(fault._tag) : String(fault)

window.faults = []

window.openClient = async (options = {}) => {
  window.client = createClient({
    storage: indexedDb(),
    autoConnect: options.url !== undefined,
    ...options,
    onError: (fault) => void window.faults.push([tagOf(fault), String(fault)])
  })
  await window.client.ready()
}

window.faultOf = (promise) => promise.then(() => "none", tagOf) as Promise<string>
