/** Server processes to measure against, and the other client's process. Node's own flags are handed on to all of them. */
import { fork, spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { createServer } from "node:net"
import * as path from "node:path"

const root = path.resolve(import.meta.dirname, "../..")

const freePort = () =>
  new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })

/**
 * Starts a server process, `program` with the environment that `environment` makes for a port; resolves when `probe` is
 * answered, with how long that took in ms. A gauged one can be asked what it has cost (`gauge.mjs`). The port is any that is
 * free unless one is given.
 */
export const startProgram = async (program, environment, probe, { gauged = false, port = 0 } = {}) => {
  if (port === 0) port = await freePort()
  const startedAt = performance.now()
  const gauge = gauged ? ["--expose-gc", "--import", path.join(import.meta.dirname, "gauge.mjs")] : []
  const child = spawn(process.execPath, [...process.execArgv, ...gauge, program], {
    env: { ...process.env, ...environment(port) },
    stdio: ["ignore", "ignore", "inherit", ...gauged ? ["ipc"] : []]
  })
  for (;;) {
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`)
    const ready = await fetch(`http://127.0.0.1:${port}${probe}`).then((response) => response.ok, () => false)
    if (ready) break
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  return {
    port,
    url: `ws://127.0.0.1:${port}`,
    readyMillis: performance.now() - startedAt,
    residentMegabytes: () =>
      Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1] ?? Number.NaN) / 1024,
    /** CPU time so far, in steps of 10 ms. */
    cpuMillis: () => {
      const fields = readFileSync(`/proc/${child.pid}/stat`, "utf8").split(" ")
      return (Number(fields[13]) + Number(fields[14])) * 10
    },
    /** What it has cost, by its own account; see `gauge.mjs` for the questions. */
    gauge: (question = "read") =>
      new Promise((resolve) => {
        child.once("message", resolve)
        child.send(question)
      }),
    stop: (signal = "SIGTERM") =>
      new Promise((resolve) => {
        if (child.exitCode !== null) return resolve(undefined)
        child.once("exit", resolve)
        child.kill(signal)
      })
  }
}

/** A TopGun server, with settings from `environment`. */
export const startServer = (environment, options) =>
  startProgram(
    path.join(root, "packages/server/dist/main.js"),
    (port) => ({ TOPGUN_PORT: String(port), TOPGUN_LOG_LEVEL: "warning", ...environment }),
    "/readyz",
    options
  )

/**
 * Another process: a client (`other.mjs`), or many (`load.mjs`, `crowd.mjs`). `call` asks it for something, `onSeen` hears
 * what it sees.
 */
export const startOther = (program = "other.mjs") => {
  const child = fork(path.join(import.meta.dirname, program), { serialization: "advanced" })
  const calls = new Map()
  let next = 0
  let seen = () => {}
  child.on("message", (message) => {
    if ("seen" in message) return seen(message)
    const { reject, resolve } = calls.get(message.id)
    calls.delete(message.id)
    if (message.fault === undefined) resolve(message.value)
    else reject(new Error(message.fault))
  })
  child.on("exit", (code) => {
    for (const { reject } of calls.values()) reject(new Error(`the other client ended with ${code}`))
  })
  return {
    call: (name, ...args) =>
      new Promise((resolve, reject) => {
        const id = next++
        calls.set(id, { resolve, reject })
        child.send({ id, name, args })
      }),
    onSeen: (listener) => {
      seen = listener
    },
    stop: () =>
      new Promise((resolve) => {
        if (child.exitCode !== null) return resolve(undefined)
        child.once("exit", resolve)
        child.disconnect()
      })
  }
}
