/** One person's device: a client with a database of its own in this browser, and a network that can be switched off. */
import { indexedDb } from "@topgun/adapters/indexeddb"
import { type Client, createClient } from "@topgun/client/promise"
import { Todos } from "./grid.ts"

export interface Device {
  readonly person: string
  readonly client: Client
  /** Whether the switch is on; a connection is another matter. */
  readonly isOnline: () => boolean
  /** Turns the switch, and remembers it. */
  readonly setOnline: (online: boolean) => void
}

const server = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}`

/** `onFault` hears of what went wrong while nobody waited for it. */
export const openDevice = (person: string, onFault: (fault: unknown) => void): Device => {
  const key = person.toLowerCase()
  const switchedOff = `topgun-demo-offline-${key}`
  const isOnline = (): boolean => localStorage.getItem(switchedOff) === null
  const client = createClient({
    grid: [Todos],
    url: server,
    storage: indexedDb(),
    storageKey: key,
    autoConnect: isOnline(),
    // A person is waiting at the switch.
    backoff: { capMs: 3_000 },
    onError: onFault
  })
  return {
    person,
    client,
    isOnline,
    setOnline: (online) => {
      if (online) localStorage.removeItem(switchedOff)
      else localStorage.setItem(switchedOff, "yes")
      const switched = online ? client.connect() : client.disconnect()
      switched.catch(onFault)
    }
  }
}
