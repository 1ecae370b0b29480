/**
 * Who may do what, as data: rules that grant, in a file or in code. What no rule grants is denied.
 *
 * ```json
 * {
 *   "rules": [
 *     { "maps": ["news"], "roles": ["anyone"], "allow": ["read"] },
 *     { "maps": ["user/{userId}/*"], "roles": ["user"], "allow": ["read", "put", "remove"] },
 *     { "maps": ["todos"], "roles": ["user"], "allow": ["read", "put", "remove"], "where": { "owner": { "principal": "userId" } } },
 *     { "maps": ["people"], "roles": ["clerk"], "allow": ["read", "put"], "fields": { "read": ["name", "phone"], "write": ["phone"] } }
 *   ],
 *   "status": ["admin"],
 *   "backup": ["admin"]
 * }
 * ```
 *
 * - **`maps`**: names, in which `*` stands for any characters and `{name}` for an attribute of the user. An attribute with one of
 *   `: / * { }` or a control character stands for nothing, so that no user's id reaches into another's maps.
 * - **`roles`**: those of the token; beside them `user` is everybody who is signed in, and `anyone` everybody.
 * - **`allow`**: `read`, `put`, `remove`.
 * - **`where`**: a `Predicate` of the record's value, in which `{ "principal": "userId" }` is the user's. It has to be true: of a field
 *   that is missing nothing is.
 * - **`fields`**: which of a record's fields may be read, and written; those that may be read, where nothing else is said. They are those of
 *   the value itself, not of what is nested in it.
 *
 * Conditions and fields are for maps of records: on sets and counters a rule that has one grants nothing.
 */
import { ConfigInvalid } from "@topgun/core/GridError"
import * as Predicate from "@topgun/core/Predicate"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ParseResult from "effect/ParseResult"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { readFile } from "node:fs/promises"
import * as Access from "./Access.ts"
import type { Principal } from "./Authentication.ts"

// --- The data ---

const Name = Schema.String.pipe(Schema.minLength(1), Schema.maxLength(256))
const patternGrammar = /^(?:[^{}]|\{[A-Za-z_][A-Za-z0-9_]*\})+$/
const Pattern = Name.pipe(
  Schema.pattern(patternGrammar, {
    message: () => "expected a map's name, with * for any characters and {userId} for the user's id"
  })
)
const some = <A, I>(item: Schema.Schema<A, I>) => Schema.Array(item).pipe(Schema.minItems(1), Schema.maxItems(1_000))

/** What a rule allows. */
export const Verb = Schema.Literal("read", "put", "remove")
/** What a rule allows. */
export type Verb = typeof Verb.Type

/** A grant; see the head of this file. */
export const Rule = Schema.Struct({
  maps: some(Pattern),
  roles: some(Name),
  allow: some(Verb),
  where: Schema.optional(Predicate.Predicate),
  fields: Schema.optional(Schema.Struct({ read: Schema.optional(some(Name)), write: Schema.optional(some(Name)) }))
})
/** A grant; see the head of this file. */
export type Rule = typeof Rule.Type

/** Who may do what. */
export const Policy = Schema.Struct({
  rules: Schema.Array(Rule).pipe(Schema.maxItems(1_000)),
  /** Roles of those who may ask for the server's status, which tells the names and sizes of all maps. @default nobody */
  status: Schema.optional(some(Name)),
  /** Roles of those who may take a backup, which has all maps as a whole, whatever the rules say. @default nobody */
  backup: Schema.optional(some(Name)),
  /** Users who may do nothing, whatever their tokens say: the way to shut one out before the token expires. */
  blocked: Schema.optional(Schema.Array(Name).pipe(Schema.maxItems(10_000)))
})
/** Who may do what. */
export type Policy = typeof Policy.Type

/** Everybody may everything. */
export const everything: Policy = {
  rules: [{ maps: ["*"], roles: ["anyone"], allow: ["read", "put", "remove"] }],
  status: ["anyone"],
  backup: ["anyone"]
}

// --- Compiled ---

/** What a policy comes to. Plain calls: who asks for many maps keeps the answers. */
export interface Rulebook {
  readonly access: (principal: Principal | undefined, map: string) => Access.Access
  readonly maySeeStatus: (principal: Principal | undefined) => boolean
  readonly mayBackUp: (principal: Principal | undefined) => boolean
}

/** Where no policy was given: who isn't asked who he is may everything, and who is nothing. */
const withoutPolicy: Rulebook = {
  access: (principal) => principal === undefined ? Access.everything : Access.nothing,
  maySeeStatus: (principal) => principal === undefined,
  mayBackUp: (principal) => principal === undefined
}

const isPlain = (attribute: unknown): attribute is string =>
  // oxlint-disable-next-line no-control-regex
  typeof attribute === "string" && /^[^:/*{}\u0000-\u001f\u007f]+$/.test(attribute)

/** What a user is called by in conditions and in the names of maps. */
const referencesOf = (principal: Principal | undefined): Predicate.References =>
  principal === undefined ? {} : { ...principal.attributes, userId: principal.userId, roles: principal.roles ?? [] }

/** Whether a pattern names a map: its parts between the stars are looked for from left to right, once. */
export const isNamed = (pattern: string, references: Predicate.References, map: string): boolean => {
  let isVoid = false
  const parts = pattern.split("*").map((part) =>
    part.replace(/\{(\w+)\}/g, (_, name: string) => {
      const attribute = Object.hasOwn(references, name) ? references[name] : undefined
      if (isPlain(attribute)) return attribute
      isVoid = true
      return ""
    })
  )
  const first = parts[0]!
  const last = parts.at(-1)!
  if (isVoid) return false
  if (parts.length === 1) return map === first
  if (map.length < first.length + last.length || !map.startsWith(first) || !map.endsWith(last)) return false
  const end = map.length - last.length
  let at = first.length
  for (const part of parts.slice(1, -1)) {
    const found = map.indexOf(part, at)
    if (found < 0 || found + part.length > end) return false
    at = found + part.length
  }
  return true
}

/** A field that a condition ties to one value. */
const tieOf = (where: Predicate.Predicate, references: Predicate.References): Access.Tie | undefined => {
  for (const { operand, path } of Predicate.equalities(where)) {
    const value = "literal" in operand
      ? operand.literal
      : Object.hasOwn(references, operand.principal)
      ? references[operand.principal]
      : undefined
    const to = Access.tieOf(value)
    if (to !== undefined) return { path, to }
  }
  return undefined
}

const hasRole = (roles: ReadonlyArray<string>, principal: Principal | undefined): boolean =>
  roles.includes("anyone") ||
  (principal !== undefined && (roles.includes("user") || (principal.roles ?? []).some((role) => roles.includes(role))))

/** What a policy comes to; see the head of this file. It was decoded by {@link decode}: conditions may need what that loads. */
export const compile = ({ backup = [], blocked = [], rules, status = [] }: Policy): Rulebook => {
  const shutOut = new Set(blocked)
  const isBlocked = (principal: Principal | undefined) => principal !== undefined && shutOut.has(principal.userId)
  const grantOf = (
    { where }: Rule,
    rule: number,
    fields: ReadonlyArray<string> | undefined,
    references: Predicate.References
  ): Access.Grant => {
    const holds = where === undefined ? undefined : Predicate.compile(where, references)
    const tie = where === undefined ? undefined : tieOf(where, references)
    return {
      rule,
      ...(tie === undefined ? {} : { tie }),
      ...(holds === undefined ? {} : { holds: (value) => holds(value) === true }),
      ...(fields === undefined ? {} : { fields: new Set(fields) })
    }
  }
  return {
    maySeeStatus: (principal) => !isBlocked(principal) && hasRole(status, principal),
    mayBackUp: (principal) => !isBlocked(principal) && hasRole(backup, principal),
    access: (principal, map) => {
      if (isBlocked(principal)) return Access.nothing
      const references = referencesOf(principal)
      const granting = Array.from(rules.entries()).filter(([, { maps, roles }]) =>
        hasRole(roles, principal) && maps.some((pattern) => isNamed(pattern, references, map))
      )
      const grants = (verb: Verb, fields: (rule: Rule) => ReadonlyArray<string> | undefined) =>
        granting.filter(([, { allow }]) => allow.includes(verb)).map(([at, rule]) =>
          grantOf(rule, at, fields(rule), references)
        )
      const names = new Set(
        granting.flatMap(([, { where }]) => where === undefined ? [] : Array.from(Predicate.referencesOf(where)))
      )
      return new Access.Access({
        read: grants("read", ({ fields }) => fields?.read),
        put: grants("put", ({ fields }) => fields?.write ?? fields?.read),
        remove: grants("remove", () => undefined),
        readBy: Array.from(names).sort().map((name) => Object.hasOwn(references, name) ? references[name] : null)
      })
    }
  }
}

// --- The service ---

/** The policy in force. */
export interface Policies {
  /** What holds now. */
  readonly current: () => Rulebook
  /** Hears of each change, until the returned function is called. */
  readonly observe: (onChange: () => void) => () => void
  /** Puts another policy in force, for those who are connected too. Fails with what is wrong with it, and the old one stays. */
  readonly replace: (policy: unknown) => Effect.Effect<void, ConfigInvalid>
  /** Whether a policy was given. */
  readonly isGiven: boolean
}

const decodePolicy = Schema.decodeUnknownEither(Policy, { errors: "all", onExcessProperty: "error" })

/** A policy from data, whose conditions are ready to be compiled. Fails with all that is wrong with it. */
export const decode = (data: unknown): Effect.Effect<Policy, ConfigInvalid> =>
  Effect.flatMap(decodePolicy(data), (policy) => Effect.as(loadConditions(policy), policy)).pipe(
    Effect.catchTag("ParseError", (error) =>
      new ConfigInvalid({
        faults: ParseResult.ArrayFormatter.formatErrorSync(error).map(({ message, path }) =>
          `the policy's ${path.length === 0 ? "whole" : path.join(".")}: ${message}`
        )
      }))
  )

const loadConditions = ({ rules }: Policy): Effect.Effect<void, ConfigInvalid> =>
  Effect.validateAll(
    rules.entries(),
    ([at, { where = {} }]) =>
      Effect.mapError(Predicate.load(where), ({ message }) => `the policy's rules.${at}.where: ${message}`),
    { discard: true }
  ).pipe(Effect.mapError((faults) => new ConfigInvalid({ faults })))

const holding = (first: Rulebook, isGiven: boolean): Policies => {
  let rulebook = first
  const observers = new Set<() => void>()
  // Loading may wait, and what was put in force last is to stay.
  const turn = Effect.unsafeMakeSemaphore(1)
  return {
    isGiven,
    current: () => rulebook,
    observe: (onChange) => {
      observers.add(onChange)
      return () => {
        observers.delete(onChange)
      }
    },
    replace: (policy) =>
      turn.withPermits(1)(Effect.map(decode(policy), (decoded) => {
        rulebook = compile(decoded)
        for (const onChange of Array.from(observers)) onChange()
      }))
  }
}

/** The policy that a server goes by. Without one, nobody who shows a token may do anything. */
export class PermissionPolicy extends Context.Reference<PermissionPolicy>()("@topgun/server/PermissionPolicy", {
  defaultValue: () => holding(withoutPolicy, false)
}) {}

/** A policy given in code. */
export const layer = (policy: Policy): Layer.Layer<PermissionPolicy, ConfigInvalid> =>
  Layer.effect(PermissionPolicy, Effect.map(decode(policy), (decoded) => holding(compile(decoded), true)))

/** Bytes of a policy's file, at most. */
const fileBytesMax = 1024 * 1024
/** How often a policy's file is looked at. */
const lookEvery = Duration.seconds(1)

const readPolicy = (path: string): Effect.Effect<string, ConfigInvalid> =>
  Effect.tryPromise({
    try: (signal) => readFile(path, { encoding: "utf8", signal }),
    catch: (cause) => new ConfigInvalid({ faults: [`the policy's file cannot be read: ${String(cause)}`] })
  }).pipe(
    Effect.filterOrFail(
      (text) => text.length <= fileBytesMax,
      () => new ConfigInvalid({ faults: [`the policy's file ${path} has more than ${fileBytesMax} characters`] })
    )
  )

const parsePolicy = (path: string, text: string): Effect.Effect<unknown, ConfigInvalid> =>
  Effect.try({
    try: (): unknown => JSON.parse(text.replace(/^\ufeff/, "")),
    catch: (cause) => new ConfigInvalid({ faults: [`the policy's file ${path} is no JSON: ${String(cause)}`] })
  })

/**
 * The policy of a JSON file. A changed file is in force within two seconds, for those who are connected too; one that is wrong is
 * logged, and the policy before stays.
 */
export const layerFile = (path: string): Layer.Layer<PermissionPolicy, ConfigInvalid> =>
  Layer.scoped(
    PermissionPolicy,
    Effect.gen(function*() {
      let text = yield* readPolicy(path)
      const first = yield* Effect.flatMap(parsePolicy(path, text), decode)
      const policies = holding(compile(first), true)
      let told = ""
      const look = Effect.gen(function*() {
        const now = yield* readPolicy(path)
        told = ""
        if (now === text) return
        text = now
        yield* Effect.flatMap(parsePolicy(path, now), policies.replace)
        yield* Effect.logInfo("The policy's file has changed: the new one is in force")
      }).pipe(
        Effect.catchAll(({ message }) => {
          // A file that is gone stays so for a while.
          if (message === told) return Effect.void
          told = message
          return Effect.logError(`The policy before stays in force. ${message}`)
        })
      )
      yield* Effect.forkScoped(Effect.repeat(Effect.delay(look, lookEvery), Schedule.forever))
      return policies
    })
  )
