/**
 * Many devices of `gateway.mjs` in one process: whole clients, in rooms of some. They write while the server is away, and say
 * when all of them have everything again.
 */
import { createClient } from "@topgun/client/promise"
import { answer } from "./answering.mjs"
import { keyOf, recordOf } from "./records.mjs"

let devices = []

answer({
  /** `count` devices, spread over the rooms. */
  open: async ({ count, first, rooms, url }) => {
    devices = Array.from({ length: count }, (_, i) => {
      const client = createClient({ url })
      return { client, number: first + i, map: client.map(rooms[(first + i) % rooms.length]) }
    })
    await Promise.all(devices.map(({ client }) => client.synced()))
  },
  /** The first of each room writes so many records. */
  fill: async ({ records, rooms }) => {
    const last = devices.slice(0, rooms).map(({ map }) => {
      let write
      for (let n = 0; n < records; n++) write = map.set(keyOf(n), recordOf(n))
      return write
    })
    await Promise.all(last)
    await Promise.all(devices.map(({ client }) => client.synced()))
  },
  /** Every device writes one record. */
  write: () => Promise.all(devices.map(({ map, number }) => map.set(`device ${number}`, { number }))),
  /** When every device has so many records, and nothing that waits: by the system's one monotonic clock, in ms. */
  converged: async (records) => {
    await Promise.all(devices.map(({ client, map }) =>
      new Promise((resolve) => {
        const isThere = () =>
          map.size === records && client.status.current.pending === 0 && client.status.current.state === "CONNECTED"
        const look = () => {
          if (!isThere()) return
          stops.forEach((stop) => stop())
          resolve(undefined)
        }
        const stops = [map.subscribe(look), client.status.subscribe(look)]
        look()
      })
    ))
    return Number(process.hrtime.bigint() / 1_000_000n)
  },
  /** CPU time of the process so far, in ms. */
  cpuMillis: () => {
    const { system, user } = process.cpuUsage()
    return (system + user) / 1_000
  },
  digests: () => devices.map(({ map }) => map.digest),
  close: () => Promise.all(devices.map(({ client }) => client.close()))
})
