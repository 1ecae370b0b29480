/**
 * What resolvers decide, carried out: they are asked within bounds, and what they say becomes records.
 *
 * A resolver is stopped where it is when it takes too long (`vm`, whose timeout ends whatever synchronous code runs below it). So
 * nothing that keeps a state between calls may run with it: between two operations of which the later sees what the earlier made, the
 * bound is left and entered again. That takes 0.1 ms, once for all operations of a message on different keys.
 */
import { ResolverFailed } from "@topgun/core/GridError"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as Value from "@topgun/core/Value"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import { types } from "node:util"
import { createContext, Script } from "node:vm"
import { isGone, stampAfter } from "./Access.ts"
import type { Principal } from "./Authentication.ts"
import type { Conflict, Outcome, Rule } from "./Resolvers.ts"
import { Resolvers, ruleOf } from "./Resolvers.ts"
import { ServerConfig } from "./ServerConfig.ts"

/** A write to a map that a rule names. */
export interface Case {
  readonly rule: Rule
  readonly map: string
  readonly key: string
  readonly proposal: LwwRecord.LwwRecord
  readonly stored: LwwRecord.LwwRecord | undefined
  readonly principal: Principal | undefined
}

/** Nothing changes; the writer is told why. */
export interface Refused {
  readonly _tag: "WriteRejected"
  readonly message: string
}

/** What becomes of a write: the record to be there then, the stored one where that stays; or why it is rejected. */
export type Ruling = LwwRecord.LwwRecord | Refused | ResolverFailed

/** Characters of a reason, at most. */
export const reasonLengthMax = 256
/** How many operations of a message may be stopped; its others that need a resolver aren't carried out then. */
export const stoppedMax = 3

/** How often a resolver that was stopped is asked again since the process has hardly run meanwhile. */
const starvedMax = 10

/** A write that is refused for this reason. */
export const refused = (reason: string): Refused => ({
  _tag: "WriteRejected",
  message: reason.slice(0, reasonLengthMax).replace(/\p{Cs}/gu, "\ufffd")
})

// --- Code that may fail in any way ---

class Unfit extends Error {}

const unfit = (why: string): never => {
  throw new Unfit(why)
}

/** A copy of which nothing runs when it is read: what comes of a resolver may be a Proxy, or read itself from getters. */
const copyOf = (value: unknown, depth: number, room: { elements: number }): unknown => {
  if (typeof value !== "object" || value === null) return value
  if (types.isProxy(value)) return unfit("a Proxy is no value")
  if (depth > Value.depthMax || room.elements <= 0) return unfit("its value is too large")
  if (types.isDate(value)) return new Date(Date.prototype.getTime.call(value))
  if (types.isUint8Array(value)) return new Uint8Array(value)
  if (Array.isArray(value)) {
    const elements: Array<unknown> = []
    room.elements -= value.length
    if (room.elements < 0) return unfit("its value is too large")
    for (let i = 0; i < value.length; i++) elements.push(copyOf(value[i], depth + 1, room))
    return elements
  }
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== null && prototype !== Object.prototype) {
    return unfit("its value has something that isn't plain data")
  }
  const fields = Object.keys(value)
  room.elements -= fields.length
  return Object.fromEntries(fields.map((field) => [field, copyOf(value[field as never], depth + 1, room)]))
}

const outcomeOf = (answer: unknown): Outcome => {
  // Nobody waits for it: it would be an unhandled rejection.
  if (types.isPromise(answer)) {
    Promise.prototype.catch.call(answer, () => {})
    return unfit("it returned a Promise, and has to be synchronous")
  }
  if (typeof answer !== "object" || answer === null || types.isProxy(answer)) {
    return unfit(`it returned ${answer === null ? "null" : typeof answer}, which is no outcome`)
  }
  const { _tag, reason, value } = answer as { readonly [field: string]: unknown }
  switch (_tag) {
    case "Latest":
    case "Accept":
    case "Keep":
    case "Remove":
      return { _tag }
    case "Value":
      return { _tag, value: copyOf(value, 0, { elements: Value.elementsMax }) }
    case "Reject":
      return typeof reason === "string" ? { _tag, reason } : unfit("it rejected without a reason")
    default:
      return unfit("it returned an object that is no outcome")
  }
}

/** What an unknown throws, in words. */
const wordsOf = (fault: unknown): string => {
  try {
    return fault instanceof Error ? String(fault.stack ?? fault.message).slice(0, 2_000) : String(fault).slice(0, 200)
  } catch {
    return "something that can't be put into words"
  }
}

type Answer = Outcome | { readonly _tag: "Failed"; readonly words: string }

const ask = ({ resolve }: Rule, conflict: Conflict): Answer => {
  try {
    return outcomeOf(resolve(conflict))
  } catch (fault) {
    return { _tag: "Failed", words: fault instanceof Unfit ? fault.message : `it threw ${wordsOf(fault)}` }
  }
}

/** Calls within a time: false when the call was ended by it. */
const makeBound = (): (call: () => void, millisMax: number) => boolean => {
  const globals: { call: () => void } = { call: () => {} }
  const context = createContext(globals)
  const script = new Script("call()")
  return (call, timeout) => {
    globals.call = call
    try {
      script.runInContext(context, { timeout })
      return true
    } catch (fault) {
      if ((fault as { readonly code?: unknown }).code === "ERR_SCRIPT_EXECUTION_TIMEOUT") return false
      throw fault
    } finally {
      globals.call = () => {}
    }
  }
}

// --- What an outcome comes to ---

const valueOf = (record: LwwRecord.LwwRecord): Value.Value => Value.decodeTrusted(record.valueBytes)

const principals = new WeakMap<Principal, Principal>()
const frozen = (principal: Principal): Principal => {
  const known = principals.get(principal)
  if (known !== undefined) return known
  const copy: Principal = structuredClone(principal)
  for (const part of [copy.roles, copy.attributes, ...Object.values(copy.attributes ?? {}), copy]) Object.freeze(part)
  principals.set(principal, copy)
  return copy
}

const conflictOf = ({ key, map, principal, proposal, stored }: Case, now: number): Conflict =>
  Object.freeze({
    map,
    key,
    stored: stored === undefined || isGone(stored, now) ? undefined : valueOf(stored),
    proposed: isGone(proposal, now) ? undefined : valueOf(proposal),
    storedAt: stored === undefined ? undefined : Object.freeze(stored.stamp),
    proposedAt: Object.freeze(proposal.stamp),
    isLater: stored === undefined || LwwRecord.compare(proposal, stored) > 0,
    principal: principal === undefined ? undefined : frozen(principal)
  })

const sameContent = (a: LwwRecord.LwwRecord, b: LwwRecord.LwwRecord): boolean =>
  Value.compareBytes(a.row.subarray(LwwRecord.stampBytes), b.row.subarray(LwwRecord.stampBytes)) === 0

/**
 * The record that an outcome comes to. It is the proposal where that wins as it is, and the stored one where that stays and is the
 * later one; otherwise one of a stamp right after that of the later of the two, made of the two stamps alone.
 *
 * @throws ValueNotSupported or RecordTooLarge for a value that isn't one
 */
const recordOf = (
  outcome: Exclude<Outcome, { readonly _tag: "Reject" }>,
  proposal: LwwRecord.LwwRecord,
  stored: LwwRecord.LwwRecord | undefined,
  now: number
): LwwRecord.LwwRecord => {
  const isLater = stored === undefined || LwwRecord.compare(proposal, stored) > 0
  const later = isLater ? proposal : stored
  if (outcome._tag === "Latest") return later
  const stamp = stampAfter(later)
  const removed = () => LwwRecord.remove(stamp)
  const again = (record: LwwRecord.LwwRecord) =>
    record.isTombstone ? removed() : LwwRecord.put(stamp, record.valueBytes, record.expiresAt)
  const there = stored === undefined || isGone(stored, now) ? undefined : stored
  const made = outcome._tag === "Accept"
    ? again(proposal)
    : outcome._tag === "Keep"
    ? there === undefined ? removed() : again(there)
    : outcome._tag === "Remove"
    ? removed()
    : LwwRecord.put(
      stamp,
      Value.encode(outcome.value),
      isGone(proposal, now) ? there?.expiresAt ?? 0 : proposal.expiresAt
    )
  // What says the same isn't written again.
  return sameContent(made, later) ? later : made
}

// --- The service ---

/** How often a kind of fault of a rule's is logged, in ms. */
const toldMillis = 60_000

/** The resolvers of this server, as its partitions ask them. */
export interface Rulings {
  /** The rule for a map, if there is one. Who asks often keeps the answer. */
  readonly rule: (map: string) => Rule | undefined
  /** Asks the resolvers of so many cases, none of which sees what comes of another; `stopped` is counted on from one call to the next. */
  readonly decide: (cases: ReadonlyArray<Case>, stopped: { count: number }) => ReadonlyArray<Ruling>
}

export const make = Effect.gen(function*() {
  const { rules } = yield* Resolvers
  const { resolverMillisMax } = yield* ServerConfig
  const clock = yield* Effect.clock
  const run = yield* FiberSet.makeRuntime<never, void>()
  const bounded = makeBound()
  const told = new Map<string, number>()

  const tell = (rule: Rule, map: string, kind: string, words: string): void => {
    const name = `${rules.indexOf(rule)} ${kind}`
    const now = clock.unsafeCurrentTimeMillis()
    if (Math.abs(now - (told.get(name) ?? Number.NEGATIVE_INFINITY)) < toldMillis) return
    told.set(name, now)
    run(Effect.annotateLogs(Effect.logError(`A resolver failed, and the write was rejected: ${words}`), {
      rule: rules.indexOf(rule),
      map
    }))
  }

  const failed = ({ map, rule }: Case, kind: string, words: string, reason: string): ResolverFailed => {
    tell(rule, map, kind, words)
    return new ResolverFailed({ map, reason })
  }

  const ruling = (each: Case, answer: Answer, now: number): Ruling => {
    if (answer._tag === "Reject") return refused(answer.reason)
    if (answer._tag === "Failed") return failed(each, "failed", answer.words, "failed")
    try {
      return recordOf(answer, each.proposal, each.stored, now)
    } catch (fault) {
      return failed(each, "failed", `what it made can't be stored: ${wordsOf(fault)}`, "failed")
    }
  }

  return {
    rule: rules.length === 0 ? () => undefined : (map) => ruleOf(rules, map),
    decide: (cases, stopped) => {
      const now = clock.unsafeCurrentTimeMillis()
      const conflicts = cases.map((each) => conflictOf(each, now))
      const answers: Array<Answer> = []
      let at = 0
      const askRest = () => {
        for (; at < cases.length; at++) answers[at] = ask(cases[at]!.rule, conflicts[at]!)
      }
      let starved = 0
      while (at < cases.length && stopped.count < stoppedMax) {
        const first = at
        const usage = process.cpuUsage()
        if (bounded(askRest, resolverMillisMax)) break
        // Those before it may have used the time up: it is asked again, with all of it.
        if (at > first) continue
        // So it is when others on the machine have had the time.
        const { system, user } = process.cpuUsage(usage)
        if ((system + user) / 1_000 < resolverMillisMax / 2 && starved++ < starvedMax) continue
        stopped.count++
        answers[at++] = { _tag: "Failed", words: "" }
      }
      return cases.map((each, i) => {
        const answer = answers[i]
        if (answer === undefined) {
          return failed(each, "skipped", `${stoppedMax} others of its message took too long`, "took too long")
        }
        return answer._tag === "Failed" && answer.words === ""
          ? failed(each, "stopped", `it took more than ${resolverMillisMax} ms`, "took too long")
          : ruling(each, answer, now)
      })
    }
  } satisfies Rulings as Rulings
})
