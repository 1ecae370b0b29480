/**
 * What a client says in a log: how it stands with its server and its storage, as that changes, and the faults that nobody waits for.
 *
 * All is well below `warn`. A line has the error's tag and code and where it is of the connection its reason, and never what is
 * written or read: no value, no key, no token. What an error says in words may quote these; `onError` gets it whole.
 */
import * as Effect from "effect/Effect"
import * as LogLevel from "effect/LogLevel"
import * as Runtime from "effect/Runtime"
import type { Live } from "./Live.ts"
import type { Logger } from "./PromiseClient.ts"
import type { LogEntry, SyncStatus } from "./Reports.ts"

/** Takes the lines of one client. */
export type Log = (entry: LogEntry) => void

/** Tells of something and never throws: who tells of it has work to go on with. */
const contained = <A>(tell: (what: A) => void) => (what: A): void => {
  try {
    tell(what)
  } catch {
    // There is nobody left to tell that the one who hears of faults has one.
  }
}

/** A log that an application has given; silent without one. */
export const ofLogger = (logger: Logger | undefined): Log =>
  logger === undefined
    ? () => {}
    : contained(typeof logger === "function" ? logger : ({ facts, level, message }) => logger[level](message, facts))

const levels = {
  debug: LogLevel.Debug,
  info: LogLevel.Info,
  warn: LogLevel.Warning,
  error: LogLevel.Error
}

/** The log of an Effect application: its `Logger`, with the facts as annotations. */
export const ofRuntime = (runtime: Runtime.Runtime<never>): Log => {
  // tidy-allow run: lines come out of listeners, which no fiber waits for; the runtime is the layer's.
  const run = Runtime.runFork(runtime)
  return ({ facts, level, message }) => {
    run(Effect.annotateLogs(Effect.logWithLevel(levels[level], message), facts))
  }
}

/** Where a text names an address, what comes after it may be a secret, and after a server's error what it quotes. */
const scrubbed = (reason: string): string => reason.replace(/^([A-Z]\w+): .*$/s, "$1").replace(/([?#])\S*/g, "$1…")

/** What may be told of a fault: nothing of one that another tab has. */
const factsOf = (fault: unknown): LogEntry["facts"] => {
  if (fault === undefined) return {}
  if (typeof fault !== "object" || fault === null) return { fault: typeof fault }
  const { _tag, closeCode, code, name, reason } = fault as { readonly [field: string]: unknown }
  return {
    fault: String(_tag ?? name ?? "Error"),
    ...(typeof code === "string" ? { code } : {}),
    ...(typeof closeCode === "number" ? { closeCode } : {}),
    ...(_tag === "ConnectionLost" ? { reason: scrubbed(String(reason)) } : {})
  }
}

const line = (level: LogEntry["level"], what: string, facts: LogEntry["facts"] = {}): LogEntry => {
  const words = Object.entries(facts).map(([name, value]) => `${name} ${value}`).join(", ")
  return { level, message: words === "" ? `TopGun: ${what}` : `TopGun: ${what} (${words})`, facts }
}

/** Faults of storage are the worst that there are: what is written meanwhile is nowhere else yet. */
const levelOf = (fault: LogEntry["facts"]): LogEntry["level"] =>
  fault["code"] === undefined || String(fault["fault"]).startsWith("Storage") ? "error" : "warn"

/** Tells an application of faults, and its log. Neither keeps the other from hearing of one, and nothing is thrown. */
export const telling = (log: Log, onError: ((fault: unknown) => void) | undefined): (fault: unknown) => void => {
  const inLog = contained((fault: unknown) => {
    const facts = factsOf(fault)
    log(line(levelOf(facts), "a fault", facts))
  })
  const tell = contained(onError ?? (() => {}))
  return (fault) => {
    inLog(fault)
    tell(fault)
  }
}

/** The lines that a change of the status is worth. */
const linesOf = function*(before: SyncStatus, now: SyncStatus, failure: () => unknown): Iterable<LogEntry> {
  if (now.state !== before.state) {
    const why = now.state === "BACKOFF" || now.state === "ERROR" ? factsOf(failure()) : {}
    yield line(now.state === "ERROR" ? "error" : "debug", `the connection is ${now.state}`, {
      from: before.state,
      ...(now.state === "CONNECTED" ? { pending: now.pending } : why)
    })
  }
  if (now.tab !== before.tab) yield line("debug", `this tab is ${now.tab}`)
  if (now.needsAuth && !before.needsAuth) yield line("warn", "the server wants a token, or another one")
  if (now.stalled && !before.stalled) {
    yield line("warn", "the server leaves writes unanswered", { pending: now.pending })
  }
  if (now.backlog !== before.backlog) {
    yield line(now.backlog === "high" ? "warn" : "info", `the backlog is ${now.backlog}`, { pending: now.pending })
  }
  const { fault, kind } = now.storage
  if ((fault === undefined) !== (before.storage.fault === undefined)) {
    yield fault === undefined
      ? line("info", "what is written is kept on this device again", { storage: kind })
      : line("error", "what is written can't be kept on this device", { storage: kind })
  }
}

/** Logs how a client stands, where it doesn't stand well at the start, and then as that changes, until stopped. `failure` answers why there is no connection. */
export const watch = (log: Log, status: Live<SyncStatus>, failure: () => unknown): () => void => {
  const { current } = status
  let before: SyncStatus = {
    ...current,
    backlog: "low",
    needsAuth: false,
    stalled: false,
    storage: { ...current.storage, fault: undefined }
  }
  const look = (now: SyncStatus): void => {
    const lines = linesOf(before, now, failure)
    before = now
    for (const each of lines) log(each)
  }
  look(current)
  return status.subscribe(look)
}
