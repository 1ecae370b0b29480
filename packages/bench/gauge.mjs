/**
 * Loaded into a server process before its program, whosever it is: answers what the process has cost so far. Asked over IPC
 * with `"reset"` it forgets the delays of its event loop, with `"collect"` it collects garbage first.
 */
import { monitorEventLoopDelay } from "node:perf_hooks"

/** How often the loop is looked at, in ms: part of each delay. */
const resolution = 5
const delays = monitorEventLoopDelay({ resolution })
delays.enable()

process.on("message", (question) => {
  if (question === "collect") globalThis.gc()
  const { system, user } = process.cpuUsage()
  const { external, heapUsed, rss } = process.memoryUsage()
  process.send({
    cpuMicros: system + user,
    rss,
    heapUsed,
    external,
    delayP99: delays.percentile(99) / 1e6,
    delayMax: delays.max / 1e6
  })
  if (question === "reset") delays.reset()
})
// A server ends when its own work has.
process.channel.unref()
