/** The page of `browser.mjs`: what it measures, it measures here. */
import { encrypted } from "@topgun/bench/encrypted"
import { indexedDb } from "@topgun/adapters/indexeddb"
import { createClient } from "@topgun/client/promise"

const secret = new Uint8Array(32).fill(7)

let client

/** Runs, and tells how long it took. */
const timed = async (run) => {
  const startedAt = performance.now()
  const result = await run(startedAt)
  return { ...result, wall: performance.now() - startedAt }
}

const open = (options, isEncrypted) => {
  client = createClient({
    ...options,
    storage: isEncrypted ? encrypted(indexedDb(), { secret }) : indexedDb(),
    userId: isEncrypted ? "encrypted" : "plain",
    onError: (fault) => {
      throw fault
    }
  })
  return client
}

/** From nothing to all records here, and from then until all of them are durable. */
window.sync = (url, count, isEncrypted) =>
  timed(async (startedAt) => {
    const map = open({ url }, isEncrypted).map("people")
    await client.ready()
    await new Promise((resolve) => {
      const look = () => map.size === count && resolve()
      map.subscribe(look)
      look()
    })
    await client.synced()
    const synced = performance.now() - startedAt
    const { size } = map
    await client.close()
    return { synced, size }
  })

/** From a client that isn't there to its first read, and to all of it. */
window.load = (url, isEncrypted) =>
  timed(async (startedAt) => {
    const map = open({ url, autoConnect: false }, isEncrypted).map("people")
    await map.ready()
    const value = map.get("k123456")
    const first = performance.now() - startedAt
    await client.ready()
    return { first, value, size: map.size }
  })

/** Times of so many durable writes, one after the other. */
window.write = async (count) => {
  const map = client.map("people")
  const times = []
  for (let n = 0; n < count; n++) {
    const startedAt = performance.now()
    await map.set(`written ${n}`, { n, text: "the quick brown fox jumps over the lazy dog" })
    times.push(performance.now() - startedAt)
  }
  return times
}
