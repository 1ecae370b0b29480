/**
 * Conditions on values, as plain data: who may see a record, which records a query wants.
 *
 * ```json
 * { "done": false, "owner.id": { "eq": "alice" }, "n": { "gt": 3, "lte": 9 } }
 * { "or": [{ "owner": { "principal": "userId" } }, { "team": { "in": { "principal": "teams" } } }] }
 * { "not": { "tags": { "contains": "draft" } } }
 * ```
 *
 * Everything in one object holds together; `{}` holds of every value. `and` and `or` take a list of predicates, `not` takes
 * one. Any other name is a path to a field, with its condition.
 *
 * **Paths.** `owner.id` is the field `id` of the field `owner`. A backslash takes the next character as it is: `a\.b` is
 * one field with a dot in its name, `\or` the field `or`; {@link path} writes such a path. Only plain objects have fields,
 * and only their own: `__proto__` and `constructor` are names like any other. An array has none, neither `0` nor `length`,
 * so that a path through one leads nowhere: `contains` is what looks inside.
 *
 * **Conditions.** A scalar stands for `eq` of it, and so does a reference. Otherwise it is an object of operators:
 *
 * | operator | operand | true of a field that |
 * |---|---|---|
 * | `eq` `neq` | any | is equal to it, or is not |
 * | `gt` `gte` `lt` `lte` | a scalar but null | is of its type, and comes after or before it |
 * | `between` | two of them | is of their type, from the first to the second, both included |
 * | `in` | a list | is equal to one of it |
 * | `contains` | any | is an array with an element equal to it, or text with this text, of a literal, in it |
 * | `containsAll` `containsAny` | a list | contains all of it, or one of it |
 * | `startsWith` | text | is text that begins so |
 * | `like` | a pattern | is text that, as a whole, is as in SQL: `%` any text, `_` one code point, a backslash takes the next as it is |
 * | `regex` | a pattern | is text in which a regular expression of RE2's syntax finds something; {@link load} goes before it |
 * | `exists` | true or false | is there, or is not |
 *
 * **Operands.** `{ "principal": "userId" }` is a reference: what {@link compile} is told of that name. It can stand for an
 * operand, for an element of a list, and for a list. Other objects and arrays are values; one that would be taken for a
 * reference is written `{ "literal": { "principal": "userId" } }`, and one with the single field `literal` alike. What a
 * reference stands for is never looked for inside text: Ann is not Joanna.
 *
 * **Equality** is that of the grid's values (see `Value.ts`), whatever the order of fields, but that -0 equals 0, as in JSON
 * and in every order of numbers. A number and a bigint are never equal. **Order**: numbers and bigints by value, texts by
 * code points, which is the bytewise order of their UTF-8, bytes bytewise, dates by time, false before true.
 *
 * **Three values** (Kleene 1938). A comparison with a field that isn't there is neither true nor false but unknown, as is an
 * order between two types, what is said to be in neither an array nor text, and everything said of a reference that nobody
 * resolves. Unknown is carried through: `not` of it is
 * unknown, `and` is false as soon as one part is, `or` true as soon as one is. What isn't {@link isTrue} is not granted and
 * not found, so that no missing field or claim opens anything. Null is a value, equal to itself; `exists` is never unknown.
 *
 * **Patterns.** Both `like` and `regex` take time linear in the text, whatever the pattern, and both tell case from case, but that a
 * regular expression may begin with `(?i)`. RE2's have no backreferences and nothing that looks around. A pattern has at most
 * {@link patternLengthMax} characters. What a predicate's regular expressions may be compiled to is bounded ({@link QueryTooExpensive}),
 * and so is the text that one judges: up to {@link regexTextLengthMax}, some ten thousand characters for an everyday one, less for one
 * with classes of Unicode or many repetitions. Of a longer text it says that it doesn't know.
 *
 * **Limits.** {@link nodesMax}, {@link listMax}, {@link pathLengthMax} and {@link bytesMax}, and the levels of arrays and
 * objects that a value may have. One evaluation goes through a field at most once for each node, text included.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import type * as AST from "effect/SchemaAST"
import { type ConnectionLost, QueryInvalid, QueryTooExpensive, RecordTooLarge, ValueNotSupported } from "./GridError.ts"
import {
  all,
  any,
  fieldAt,
  fieldOf,
  isFields,
  not,
  operators,
  type Test,
  type Truth,
  unknown
} from "./internal/comparisons.ts"
import type { Predicate as Form, Reference, Scalar } from "./PredicateForm.ts"
import { costOf } from "./internal/cost.ts"
import { type Comparison, listMax, type Node, type Operand, read, readOwn } from "./internal/predicateReader.ts"
import { namesOf, pathOf } from "./internal/paths.ts"

import * as Regex from "./internal/regex.ts"
import * as Value from "./Value.ts"

export type { Test, Truth } from "./internal/comparisons.ts"
export { patternLengthMax, textLengthMaxOf as regexTextLengthMax } from "./internal/regex.ts"
export { bytesMax, listMax, nodesMax, type Operand } from "./internal/predicateReader.ts"
export type { Reference } from "./PredicateForm.ts"
export { namesOf, path, pathLengthMax } from "./internal/paths.ts"

// --- Form ------------------------------------------------------------------------------------------------------------

export type { Connectives, Operators, Scalar } from "./PredicateForm.ts"

/** A condition on a value: see the head of this module, and `Where.ts` for those of a schema's values. */
export type Predicate = Form

/**
 * Passes a predicate from outside, as a frozen copy. Whether its regular expressions are any, {@link load} tells.
 *
 * @throws QueryInvalid for whatever isn't one, with the place, as in `$.or[1].n`, and what to do.
 * @throws QueryTooExpensive for one whose regular expressions are too large, with the place.
 */
export const parse = (input: unknown): Predicate => readOwn(input) as Predicate

/** As {@link parse}, in other schemas: those of requests and of configuration. Its issue is the message of what that throws. */
export const Predicate: Schema.Schema<Predicate> = Schema.declare(
  [],
  { decode: () => parsed, encode: () => parsed },
  { identifier: "Predicate", description: "a predicate" }
)

const parsed = (
  input: unknown,
  _: unknown,
  ast: AST.Declaration
): Either.Either<Predicate, ParseResult.ParseIssue> =>
  Either.try({
    try: () => parse(input),
    catch: (fault) => {
      if (isRefusal(fault)) return new ParseResult.Type(ast, input, fault.message)
      throw fault
    }
  })

const isRefusal = (fault: unknown): fault is QueryInvalid | QueryTooExpensive =>
  fault instanceof QueryInvalid || fault instanceof QueryTooExpensive

// --- What a predicate speaks of --------------------------------------------------------------------------------------

const comparisonsOf = (node: Node): ReadonlyArray<Comparison> =>
  node.is === "comparison" ? [node] : node.is === "not" ? comparisonsOf(node.node) : node.nodes.flatMap(comparisonsOf)

const operandsOf = (comparison: Comparison): ReadonlyArray<Operand> =>
  comparison.operator === "exists" ? [] : [comparison.operand].flat()

const isReference = (operand: Operand): operand is Reference => "principal" in operand

/** The paths that it reads, each once. They are written as {@link path} writes them. @throws QueryInvalid */
export const fieldsOf = (predicate: Predicate): ReadonlyArray<string> =>
  Array.from(new Set(comparisonsOf(read(predicate)).map(({ names }) => pathOf(names))))

/** The names that it refers to, each once. @throws QueryInvalid */
export const referencesOf = (predicate: Predicate): ReadonlyArray<string> =>
  Array.from(
    new Set(
      comparisonsOf(read(predicate)).flatMap(operandsOf)
        .filter(isReference).map(({ principal }) => principal)
    )
  )

/** What a value has at a path; `undefined` where it has nothing there. @throws QueryInvalid */
export const getter = (path: string): (value: unknown) => unknown => {
  const names = namesOf(path, "$")
  return (value) => fieldAt(value, names)
}

/**
 * The fields that have to be equal to something wherever the predicate is true, as {@link path} writes them, and to what: an
 * index of one of them finds all values for which it is. A field may be listed twice.
 *
 * @throws QueryInvalid
 */
export const equalities = (
  predicate: Predicate
): ReadonlyArray<{ readonly path: string; readonly operand: Operand }> => tiesOf(read(predicate))

const tiesOf = (node: Node): ReturnType<typeof equalities> => {
  if (node.is === "and") return node.nodes.flatMap(tiesOf)
  if (node.is !== "comparison" || node.operator !== "eq") return []
  return operandsOf(node).map((operand) => ({ path: pathOf(node.names), operand }))
}

/**
 * About how many ns one evaluation takes, of a value with texts of a hundred characters: what to refuse a scan by before it is tried.
 * Rough, and the same on every machine.
 *
 * @throws QueryInvalid
 * @throws QueryTooExpensive
 */
export const cost = (predicate: Predicate): number => costOf(read(predicate))

// --- Compiling -------------------------------------------------------------------------------------------------------

/** Whether it is true, and neither false nor unknown: the only answer that grants or finds anything. */
export const isTrue = (truth: Truth): truth is true => truth === true

/**
 * What references stand for. Absent, null, beyond {@link listMax}, and anything but a scalar or a list of scalars is
 * unresolved: nobody is not somebody whose name is null.
 */
export interface References {
  readonly [name: string]: Scalar | ReadonlyArray<Exclude<Scalar, null>> | undefined
}

/**
 * Makes a predicate ready for {@link compile}: brings the engine of regular expressions, which is apart for its size, and finds the
 * faults in them. There is nothing to wait for where it has none. Whoever takes predicates from others runs it when he gets them.
 *
 * Fails with ConnectionLost where the engine can't be fetched, as on a page without network that hasn't used it before.
 */
export const load = (
  predicate: Predicate
): Effect.Effect<void, QueryInvalid | QueryTooExpensive | ConnectionLost> =>
  Effect.flatMap(
    attempt(() => regexesOf(predicate)),
    (regexes) =>
      regexes.length === 0
        ? Effect.void
        : Effect.andThen(loadEngine, attempt(() => regexes.forEach(checkRegex)))
  )

/** Brings the engine of regular expressions beforehand, for who has to {@link check} predicates at once. Fails as {@link load} does. */
export const loadEngine: Effect.Effect<void, ConnectionLost> = Regex.engine

/**
 * Finds the faults in a predicate's regular expressions: {@link load} at once, where {@link loadEngine} has been run. Without, it dies.
 *
 * @throws QueryInvalid
 * @throws QueryTooExpensive
 */
export const check = (predicate: Predicate): void => regexesOf(predicate).forEach(checkRegex)

/** Whether it has regular expressions, which take ms to be made ready. @throws QueryInvalid */
export const hasPatterns = (predicate: Predicate): boolean => regexesOf(predicate).length > 0

const regexesOf = (predicate: Predicate): ReadonlyArray<Comparison> => comparisonsOf(read(predicate)).filter(isRegex)

/** Whether {@link compile} can take it as it is: it has no regular expressions, or their engine is there already. */
export const isLoaded = (predicate: Predicate): boolean => Regex.isLoaded() || regexesOf(predicate).length === 0

const attempt = <A>(evaluate: () => A): Effect.Effect<A, QueryInvalid | QueryTooExpensive> =>
  Effect.try({
    try: evaluate,
    catch: (fault) => {
      if (isRefusal(fault)) return fault
      throw fault
    }
  })

const isRegex = ({ operator }: Comparison): boolean => operator === "regex"

const checkRegex = (comparison: Comparison): void => {
  const [pattern] = operandsOf(comparison) as readonly [{ readonly literal: string }]
  const fault = Regex.faultOf(pattern.literal)
  if (fault !== undefined) {
    throw new QueryInvalid({ path: comparison.at, reason: `it is no regular expression of RE2's syntax: ${fault}` })
  }
}

/**
 * The test that a predicate stands for, once for many values: paths are split, references resolved and lists hashed here,
 * and a test allocates nothing, but where there are regular expressions. For those {@link load} has to have been run: without, it dies.
 *
 * @throws QueryInvalid
 * @throws QueryTooExpensive
 */
export const compile = (predicate: Predicate, references: References = {}): Test =>
  testOf(read(predicate), resolver(references))

const testOf = (node: Node, resolve: Resolve): Test => {
  switch (node.is) {
    case "and":
      return all(node.nodes.map((each) => testOf(each, resolve)))
    case "or":
      return any(node.nodes.map((each) => testOf(each, resolve)))
    case "not":
      return not(testOf(node.node, resolve))
    case "comparison":
      return comparisonTest(node, resolve)
  }
}

const comparisonTest = (comparison: Comparison, resolve: Resolve): Test => {
  const { names } = comparison
  if (comparison.operator === "exists") {
    const { expected } = comparison
    return (value) => (fieldAt(value, names) !== undefined) === expected
  }
  const operand = Array.isArray(comparison.operand)
    ? resolveAll(comparison.operand, resolve)
    : resolve(comparison.operand as Operand)
  if (operand === undefined) return unknown
  if (isRegex(comparison)) checkRegex(comparison)
  const held = operators[comparison.operator](operand)
  const test = isContains(comparison) && operandsOf(comparison).some(isReference) ? ofNoText(held) : held
  if (names.length === 1) {
    const name = names[0]!
    return (value) => {
      const field = fieldOf(value, name)
      return field === undefined ? undefined : test(field)
    }
  }
  return (value) => {
    const field = fieldAt(value, names)
    return field === undefined ? undefined : test(field)
  }
}

const isContains = ({ operator }: Comparison): boolean =>
  operator === "contains" || operator === "containsAll" || operator === "containsAny"

const ofNoText = (test: Test): Test => (field) => typeof field === "string" ? undefined : test(field)

/** The value that an operand stands for, undefined when nobody knows. */
type Resolve = (operand: Operand) => Value.Value | undefined

const resolver = (references: References): Resolve => (operand) => {
  if ("literal" in operand) return operand.literal
  if (!Object.hasOwn(references, operand.principal)) return undefined
  const given = references[operand.principal]
  if (Array.isArray(given) && given.length > listMax) return undefined
  let value: Value.Value
  try {
    value = Value.decodeTrusted(Value.encodeTransient(given))
  } catch (fault) {
    if (fault instanceof ValueNotSupported || fault instanceof RecordTooLarge) return undefined
    throw fault
  }
  return (Array.isArray(value) ? value : [value]).every(isSomething) ? value : undefined
}

const isSomething = (value: Value.Value): boolean => value !== null && !isFields(value) && !Array.isArray(value)

const resolveAll = (operands: ReadonlyArray<Operand>, resolve: Resolve): ReadonlyArray<Value.Value> | undefined => {
  const values: Array<Value.Value> = []
  for (const operand of operands) {
    const value = resolve(operand)
    if (value === undefined) return undefined
    values.push(value)
  }
  return values
}
