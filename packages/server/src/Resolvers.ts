/**
 * What becomes of a write that meets a record: by rules of the operator's, where the later write isn't to win.
 *
 * ```
 * TopGunServer.layer().pipe(Layer.provide(Resolvers.layer([
 *   { maps: "scores/*", resolve: Resolvers.numericMax() },
 *   { maps: ["accounts"], resolve: Resolvers.all([Resolvers.nonNegative({ field: "balance" }), Resolvers.immutable({ fields: ["owner"] })]) }
 * ])))
 * ```
 *
 * A {@link Resolver} is a plain synchronous function of a {@link Conflict}, and its {@link Outcome} rules: a proposal that it accepts
 * wins, be it the older one. It is asked of each write to the map, also where nothing is stored yet. It has to be a function of
 * the conflict alone, with no clock, no chance and no memory: then the same conflict comes to the same record on every server.
 *
 * One that throws, doesn't return within `resolverMillisMax`, or returns anything but an outcome changes nothing: the write is
 * rejected as `ResolverFailed`, the log says why, and others go on. It is stopped wherever it is, except in the midst of one call to
 * the engine or to Node, such as a `JSON.stringify` of megabytes, or a synchronous read of a file: it runs in the server's process, and
 * what it allocates is bounded by its time alone. Code of others has no business here.
 *
 * Rules are for maps of records. Other operations on a map that a rule names are rejected.
 */
import { ConfigInvalid } from "@topgun/core/GridError"
import type * as Timestamp from "@topgun/core/Timestamp"
import type * as Value from "@topgun/core/Value"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Principal } from "./Authentication.ts"
import { isNamed } from "./PermissionPolicy.ts"

// --- What a resolver is asked, and what it answers ---

/** A write, and what it meets. Frozen at all levels; a `Date` and bytes are copies. */
export interface Conflict {
  readonly map: string
  readonly key: string
  /** The value that is there; `undefined` where there is none, any more or yet. */
  readonly stored: Value.Value | undefined
  /** The value that was written; `undefined` for a removal, and for what has expired on its way. */
  readonly proposed: Value.Value | undefined
  /** When, by whom the stored record was written, a removal too; `undefined` where there never was one. */
  readonly storedAt: Timestamp.Timestamp | undefined
  /** When, by whom the proposal was written. */
  readonly proposedAt: Timestamp.Timestamp
  /** Whether the proposal would win without a resolver. */
  readonly isLater: boolean
  /** Whose connection the proposal came over; `undefined` where nobody is asked who he is. */
  readonly principal: Principal | undefined
}

/** What becomes of a proposal. */
export type Outcome =
  | { readonly _tag: "Latest" }
  | { readonly _tag: "Accept" }
  | { readonly _tag: "Keep" }
  | { readonly _tag: "Remove" }
  | { readonly _tag: "Value"; readonly value: unknown }
  | { readonly _tag: "Reject"; readonly reason: string }

/** Decides what becomes of a write. */
export type Resolver = (conflict: Conflict) => Outcome

/** As without a resolver: the later of the two wins. */
export const latest: Outcome = Object.freeze({ _tag: "Latest" })
/** The proposal wins. */
export const accept: Outcome = Object.freeze({ _tag: "Accept" })
/** What is stored stays, or stays gone, and the writer is told what it is. */
export const keep: Outcome = Object.freeze({ _tag: "Keep" })
/** The record is removed. */
export const remove: Outcome = Object.freeze({ _tag: "Remove" })
/** Both give way to this value, which expires when the proposal would; when what is stored would, where the proposal is a removal. */
export const value = (made: unknown): Outcome => ({ _tag: "Value", value: made })
/** Nothing changes, and the writer finds the write among its rejected ones, for this reason: of 256 characters, at most. */
export const reject = (reason: string): Outcome => ({ _tag: "Reject", reason })

// --- The resolvers that come with it ---

type Fields = { readonly [field: string]: unknown }

const isRecord = (content: unknown): content is Fields =>
  typeof content === "object" && content !== null && !Array.isArray(content) && !(content instanceof Date) &&
  !(content instanceof Uint8Array)

/** The value itself, or one of its fields. */
const part = (content: unknown, field: string | undefined): unknown =>
  field === undefined ? content : isRecord(content) && Object.hasOwn(content, field) ? content[field] : undefined

const what = (field: string | undefined): string => field === undefined ? "the value" : `field "${field}"`

/** The value with that part, its other fields those of the later one. */
const withPart = ({ isLater, proposed, stored }: Conflict, field: string | undefined, made: unknown): Outcome =>
  value(field === undefined ? made : { ...((isLater ? proposed : stored) as Fields), [field]: made })

/** Which part of a value a resolver is about. */
export interface PartOptions {
  /** A field of the record; the whole value where none is named. */
  readonly field?: string
}

/** The later write wins, as where no rule names the map: for a map that a broader rule would name. */
export const lastWriteWins = (): Resolver => () => latest

/** Whoever comes first has the key, until the record expires: what comes later, a removal too, is rejected. */
export const firstWriteWins = (): Resolver => ({ proposed, stored }) =>
  stored !== undefined ? reject("the key is taken") : proposed === undefined ? latest : accept

const numeric = (choose: (a: number, b: number) => number) => ({ field }: PartOptions = {}): Resolver => (conflict) => {
  const { proposed, stored } = conflict
  if (proposed === undefined) return latest
  const theirs = part(proposed, field)
  if (typeof theirs !== "number") return reject(`${what(field)} has to be a number`)
  const ours = part(stored, field)
  if (typeof ours !== "number") return accept
  const chosen = choose(ours, theirs)
  if (field === undefined) return chosen === theirs && chosen !== ours ? accept : keep
  return withPart(conflict, field, chosen)
}

/**
 * The least number that was written stays, in a record's field or as the value; its other fields are those of the later write. What
 * isn't a number is rejected. A removal goes by its time, and what is written after it begins anew.
 */
export const numericMin: (options?: PartOptions) => Resolver = numeric(Math.min)
/** As {@link numericMin}, the greatest. */
export const numericMax: (options?: PartOptions) => Resolver = numeric(Math.max)

/** What has a negative number there, or none at all, is rejected; otherwise the later write wins. */
export const nonNegative = ({ field }: PartOptions = {}): Resolver => ({ proposed }) => {
  if (proposed === undefined) return latest
  const number = part(proposed, field)
  return typeof number !== "number"
    ? reject(`${what(field)} has to be a number`)
    : number < 0
    ? reject(`${what(field)} may not be negative`)
    : latest
}

/**
 * A text that equal values have in common, and no others. Not their canonical bytes: a resolver that takes too long is stopped in the
 * midst of things, and the codec would be left as it was then.
 */
const textOf = (content: unknown): string => {
  if (typeof content === "string") return JSON.stringify(content)
  if (typeof content === "bigint") return `${content}n`
  if (content instanceof Date) return `date ${content.getTime()}`
  if (content instanceof Uint8Array) return `bytes ${Buffer.from(content).toString("hex")}`
  if (Array.isArray(content)) return `[${content.map(textOf).join()}]`
  if (isRecord(content)) {
    return `{${
      Object.keys(content).sort().map((field) => `${JSON.stringify(field)}:${textOf(content[field])}`).join()
    }}`
  }
  return Object.is(content, -0) ? "-0" : String(content)
}

/** The elements of both, each once: those that are stored, and then the others, in the order in which they were written. */
const union = (ours: ReadonlyArray<unknown>, theirs: ReadonlyArray<unknown>): ReadonlyArray<unknown> => {
  const elements = new Map<string, unknown>()
  for (const element of [...ours, ...theirs]) {
    const text = textOf(element)
    if (!elements.has(text)) elements.set(text, element)
  }
  return Array.from(elements.values())
}

/**
 * A list has the elements of all that were written, each once; a record's other fields are those of the later write. What isn't a list is
 * rejected. A removal goes by its time, and what is written after it begins anew. For sets from which things are taken out
 * again there are maps of sets (`orMap`).
 */
export const arrayUnion = ({ field }: PartOptions = {}): Resolver => (conflict) => {
  const { proposed, stored } = conflict
  if (proposed === undefined) return latest
  const theirs = part(proposed, field)
  if (!Array.isArray(theirs)) return reject(`${what(field)} has to be a list`)
  const ours = part(stored, field)
  return Array.isArray(ours) ? withPart(conflict, field, union(ours, theirs)) : accept
}

const mergeDeep = (earlier: Fields, later: Fields): Fields =>
  Object.fromEntries([
    ...Object.entries(earlier),
    ...Object.entries(later).map(([field, theirs]) => {
      const ours = Object.hasOwn(earlier, field) ? earlier[field] : undefined
      return [field, isRecord(ours) && isRecord(theirs) ? mergeDeep(ours, theirs) : theirs] as const
    })
  ])

/**
 * Records are merged field by field, those within them too; of what both have and what isn't a record the later one's is taken.
 * A field that a write leaves out stays, so that none can be taken away but with the record.
 */
export const deepMerge = (): Resolver => ({ isLater, proposed, stored }) =>
  !isRecord(stored) || !isRecord(proposed)
    ? latest
    : value(isLater ? mergeDeep(stored, proposed) : mergeDeep(proposed, stored))

/** Only who has a role writes: a program of the operator's, whose token says so. Everybody else is rejected. */
export const serverOnly = ({ role = "server" }: { readonly role?: string } = {}): Resolver => ({ principal }) =>
  principal?.roles?.includes(role) === true ? latest : reject("only the server writes here")

/**
 * A record is its owner's, whose user id is in a field of it: nobody else writes or removes it, makes one in his name, or is given it.
 * Otherwise the later write wins.
 */
export const ownerOnly = ({ field }: { readonly field: string }): Resolver => ({ principal, proposed, stored }) => {
  const isHis = (content: unknown) =>
    content === undefined || (principal !== undefined && part(content, field) === principal.userId)
  return isHis(stored) && isHis(proposed) ? latest : reject("the record is another's")
}

/** What is written stays as it is, or the fields that are named do; a record that has any of them isn't removed. */
export const immutable =
  ({ fields }: { readonly fields?: ReadonlyArray<string> } = {}): Resolver => ({ proposed, stored }) => {
    if (stored === undefined) return latest
    for (const field of fields ?? [undefined]) {
      const ours = part(stored, field)
      if (ours === undefined) continue
      const theirs = part(proposed, field)
      if (theirs === undefined || textOf(ours) !== textOf(theirs)) return reject(`${what(field)} may not be changed`)
    }
    return latest
  }

/**
 * Who changes a record has to have seen it: a number in a field is one more than the stored one, whatever the time. It begins with 1.
 * Others are rejected, to be done again upon what is there, so that no accepted change is lost. A device that is offline sends
 * the last of its changes to a record only: more than one of them are rejected. A removal goes by its time.
 */
export const versionIncrement = ({ field }: { readonly field: string }): Resolver => ({ proposed, stored }) => {
  if (proposed === undefined) return latest
  const theirs = part(proposed, field)
  const ours = stored === undefined ? 0 : part(stored, field)
  return typeof theirs === "number" && typeof ours === "number" && Number.isSafeInteger(theirs) && theirs === ours + 1
    ? accept
    : reject(`${what(field)} has to be one more than that of the record as it is`)
}

/**
 * One resolver after the other, each over what those before it made of the proposal. The first that rejects it, or keeps what is
 * stored, has the last word.
 */
export const all = (resolvers: ReadonlyArray<Resolver>): Resolver => (conflict) => {
  let outcome: Outcome = latest
  let { proposed } = conflict
  for (const resolve of resolvers) {
    const next = resolve({ ...conflict, proposed })
    switch (next._tag) {
      case "Latest":
        continue
      case "Accept":
        if (outcome._tag === "Latest") outcome = next
        continue
      case "Remove":
        proposed = undefined
        break
      case "Value":
        proposed = next.value as Value.Value
        break
      default:
        return next
    }
    outcome = next
  }
  return outcome
}

// --- Rules ---

/** Which maps a resolver decides for. */
export interface Rule {
  /** Names, in which `*` stands for any characters. */
  readonly maps: string | ReadonlyArray<string>
  readonly resolve: Resolver
}

/** The rules that a server goes by: of those that name a map the first. None unless they are provided. */
export class Resolvers extends Context.Reference<Resolvers>()("@topgun/server/Resolvers", {
  defaultValue: (): { readonly rules: ReadonlyArray<Rule> } => ({ rules: [] })
}) {}

const patternGrammar = /^[^{}]{1,256}$/

const namesOf = ({ maps }: Rule): ReadonlyArray<string> => typeof maps === "string" ? [maps] : maps

const faultsOf = (rules: ReadonlyArray<Rule>): ReadonlyArray<string> =>
  rules.flatMap((rule, at) => [
    ...(namesOf(rule).length === 0 ? [`resolver rule ${at}: it names no map`] : []),
    ...namesOf(rule).filter((name) => typeof name !== "string" || !patternGrammar.test(name)).map((name) =>
      `resolver rule ${at}: ${
        JSON.stringify(name)
      } is no map's name, with * for any characters: 1 to 256 of them, and no { or }`
    ),
    ...(typeof rule.resolve === "function" ? [] : [`resolver rule ${at}: resolve is no function`])
  ])

/** The rule for a map. */
export const ruleOf = (rules: ReadonlyArray<Rule>, map: string): Rule | undefined =>
  rules.find((rule) => namesOf(rule).some((name) => isNamed(name, {}, map)))

/** Has these rules decide, the first of them that names a map. Fails with all that is wrong with them. */
export const layer = (rules: ReadonlyArray<Rule>): Layer.Layer<never, ConfigInvalid> =>
  Layer.effect(
    Resolvers,
    Effect.suspend(() => {
      const faults = faultsOf(rules)
      return faults.length > 0 ? new ConfigInvalid({ faults }) : Effect.succeed({ rules: [...rules] })
    })
  )
