/** The other client of `client.mjs`, in a process of its own: does what it is told, and tells when it saw what. */
import { answer } from "./answering.mjs"
import { contestants, wireBytes } from "./contestants.mjs"
import { recordOf } from "./records.mjs"

// Of the system's one monotonic clock, so that another process can compare it.
const now = () => process.hrtime.bigint()

let client
let wireMark = 0
let cpuMark = process.cpuUsage()

const commands = {
  open: async (name, url, room) => {
    client = contestants.find((each) => each.name === name).open(url, room)
    await client.ready()
    await client.synced()
  },
  close: () => client.close(),
  connect: () => client.connect(),
  disconnect: () => client.disconnect(),
  synced: () => client.synced(),
  size: () => client.size(),
  digest: () => client.digest(),
  get: (n) => client.get(n),
  /** Writes records of `stamp` to these numbers. */
  write: (numbers, stamp) => {
    for (const n of numbers) client.set(n, { ...recordOf(n), stamp })
  },
  /** When number `n` has come, in ns. */
  arrived: (n) =>
    new Promise((resolve) => {
      // Not by the size, which Y.Map counts anew each time it is asked.
      const stop = client.onChange(() => {
        if (client.get(n) === undefined) return
        const at = now()
        stop()
        resolve({ at, size: client.size() })
      })
    }),
  /** When number `n` has got this stamp. */
  stamped: (n, stamp) =>
    new Promise((resolve) => {
      const look = () => {
        if (client.get(n)?.stamp !== stamp) return
        stop()
        resolve(now())
      }
      const stop = client.onChange(look)
      look()
    }),
  /** From now on tells of each value of number 0 when it is seen. */
  follow: () => {
    client.onChange(() => {
      const at = now()
      process.send({ seen: client.get(0), at })
    })
  },
  mark: () => {
    wireMark = wireBytes()
    cpuMark = process.cpuUsage()
  },
  /** Since the last mark. */
  spent: () => {
    const { system, user } = process.cpuUsage(cpuMark)
    return { bytes: wireBytes() - wireMark, cpuMillis: (system + user) / 1000 }
  }
}

answer(commands)
