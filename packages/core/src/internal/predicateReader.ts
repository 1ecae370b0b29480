/** Reads a predicate from what somebody wrote: its form, its limits, and what is said of faults. See `Predicate.ts`. */
import { QueryInvalid, QueryTooExpensive, RecordTooLarge, ValueNotSupported } from "../GridError.ts"
import * as Spelling from "../Spelling.ts"
import * as Value from "../Value.ts"
import { type Fields, isFields, isOperator, type Operator, operators, orderTo } from "./comparisons.ts"
import type { Reference } from "../PredicateForm.ts"
import * as Like from "./like.ts"
import { connectives, namesOf, pathLengthMax } from "./paths.ts"
import * as Regex from "./regex.ts"

// --- Limits ----------------------------------------------------------------------------------------------------------

/** Comparisons, `and`, `or`, `not`, `{}`, and elements of `containsAll` and `containsAny` in one predicate, at most. */
export const nodesMax = 1_000

/** Elements of one list, at most, be it written or that of a reference. */
export const listMax = 1_000

/** Canonical bytes of one predicate, as of any value, at most. */
export const bytesMax = 64 * 1024

// --- Form ------------------------------------------------------------------------------------------------------------

/** The operand of a comparison, and which of both it is. */
export type Operand = { readonly literal: Value.Value } | Reference

export type Comparison =
  & {
    readonly is: "comparison"
    readonly names: ReadonlyArray<string>
    /** Where it was written, for what is found wrong with it later. */
    readonly at: string
  }
  & (
    | { readonly operator: Operator; readonly operand: Operand | ReadonlyArray<Operand> }
    | { readonly operator: "exists"; readonly expected: boolean }
  )

/** A predicate that was read. */
export type Node =
  | { readonly is: "and" | "or"; readonly nodes: ReadonlyArray<Node> }
  | { readonly is: "not"; readonly node: Node }
  | Comparison

// --- Reading ---------------------------------------------------------------------------------------------------------

const invalid = (at: string, reason: string): QueryInvalid => new QueryInvalid({ path: at, reason })

const SHOWN_NAME_LENGTH = 40

const shown = (name: string): string => name.length > SHOWN_NAME_LENGTH ? name.slice(0, SHOWN_NAME_LENGTH) + "…" : name

const within = (at: string, name: string): string =>
  /^[A-Za-z_$][\w$]*$/.test(name) ? `${at}.${shown(name)}` : `${at}[${JSON.stringify(shown(name))}]`

/** Reads one predicate, counting as it goes. */
class Reader {
  private nodes = 0
  private weight = 0

  predicate(value: Value.Value, at: string): Node {
    if (!isFields(value)) throw invalid(at, "a predicate is an object, such as { done: false }")
    const nodes: Array<Node> = []
    for (const [name, part] of Object.entries(value)) {
      const inside = within(at, name)
      if (name === "and" || name === "or") nodes.push(this.connective(name, part, inside))
      else if (name === "not") {
        this.count(inside)
        nodes.push({ is: "not", node: this.predicate(part, inside) })
      } else nodes.push(...this.condition(name, part, inside))
    }
    if (nodes.length === 0) this.count(at)
    return nodes.length === 1 ? nodes[0]! : { is: "and", nodes }
  }

  private connective(is: "and" | "or", parts: Value.Value, at: string): Node {
    this.count(at)
    if (!Array.isArray(parts)) {
      throw invalid(at, `"${is}" takes a list of predicates; the path to a field of this name is "\\${is}"`)
    }
    return { is, nodes: parts.map((part, i) => this.predicate(part, `${at}[${i}]`)) }
  }

  private condition(field: string, value: Value.Value, at: string): ReadonlyArray<Node> {
    const names = namesOf(field, at)
    if (Array.isArray(value)) {
      const meant = value.some(isFields) ? Spelling.nearest(field.slice(0, SHOWN_NAME_LENGTH), connectives) : undefined
      throw invalid(
        at,
        "a list has to say what it is for: write it behind eq, in, contains, containsAny or containsAll" +
          (meant === undefined ? "" : `. Or did you mean "${meant}"?`)
      )
    }
    if (!isFields(value) || isReference(value)) {
      this.count(at)
      return [{ is: "comparison", names, at, operator: "eq", operand: operandOf(value, at) }]
    }
    const entries = Object.entries(value)
    if (entries.length === 0) throw invalid(at, "it has no operator: for an empty object write { eq: {} }")
    return entries.map(([operator, operand]) => this.comparison(names, operator, operand, within(at, operator)))
  }

  private comparison(names: ReadonlyArray<string>, operator: string, value: Value.Value, at: string): Comparison {
    this.count(at)
    if (operator === "exists") {
      if (typeof value !== "boolean") throw invalid(at, "\"exists\" is true or false")
      return { is: "comparison", names, at, operator, expected: value }
    }
    if (!isOperator(operator)) throw invalid(at, unknownOperator(operator))
    return { is: "comparison", names, at, operator, operand: this.operand(operator, value, at) }
  }

  private operand(
    operator: Operator,
    value: Value.Value,
    at: string
  ): Operand | ReadonlyArray<Operand> {
    switch (operator) {
      case "eq":
      case "neq":
      case "contains":
        return operandOf(value, at)
      case "startsWith": {
        const operand = operandOf(value, at)
        if ("literal" in operand && typeof operand.literal !== "string") throw invalid(at, "\"startsWith\" takes text")
        return operand
      }
      case "like": {
        const pattern = patternOf(operator, Like.patternLengthMax, value, at)
        if (Like.segmentsOf(pattern) === undefined) {
          throw invalid(at, "a pattern doesn't end with a backslash: write two of them for one in the text")
        }
        return { literal: pattern }
      }
      case "regex": {
        const pattern = patternOf(operator, Regex.patternLengthMax, value, at)
        this.weight += Regex.weightOf(pattern)
        if (this.weight > Regex.weightMax) throw new QueryTooExpensive({ path: at, reason: tooHeavy })
        return { literal: pattern }
      }
      case "gt":
      case "gte":
      case "lt":
      case "lte":
        return orderedOf(value, at)
      case "between":
        return pairOf(value, at)
      case "in":
        return listOf(operator, value, at)
      case "containsAll":
      case "containsAny": {
        const list = listOf(operator, value, at)
        if (Array.isArray(list)) { for (let i = 0; i < list.length; i++) this.count(at) }
        return list
      }
    }
  }

  private count(at: string): void {
    if (++this.nodes > nodesMax) throw invalid(at, `a predicate has at most ${nodesMax} conditions`)
  }
}

const isReference = (value: Fields): boolean => Object.hasOwn(value, "principal") && Object.keys(value).length === 1

const operandOf = (value: Value.Value, at: string): Operand => {
  if (!isFields(value) || Object.keys(value).length !== 1) return { literal: value }
  if (Object.hasOwn(value, "literal")) return { literal: value["literal"]! }
  if (!isReference(value)) return { literal: value }
  const { principal } = value
  if (typeof principal !== "string" || principal.length > pathLengthMax) {
    throw invalid(
      at,
      `"principal" takes a name of at most ${pathLengthMax} characters; for an object with this field write { literal: … }`
    )
  }
  return { principal }
}

/** A pattern is never another's than who wrote the predicate: who could choose it could choose what it costs, and whom it finds. */
const patternOf = (operator: string, lengthMax: number, value: Value.Value, at: string): string => {
  const operand = operandOf(value, at)
  if (!("literal" in operand) || typeof operand.literal !== "string") throw invalid(at, `"${operator}" takes text`)
  if (operand.literal.length > lengthMax) throw invalid(at, `a pattern has at most ${lengthMax} characters`)
  return operand.literal
}

const tooHeavy =
  "its regular expressions are too large. Repeat less often what is repeated in braces, name fewer classes such as \\p{L}, " +
  "or ask for less with contains, startsWith or like"

const orderedOf = (value: Value.Value, at: string): Operand => {
  const operand = operandOf(value, at)
  if ("literal" in operand && Number.isNaN(orderTo(operand.literal)(operand.literal))) {
    throw invalid(at, "only numbers, texts, bytes, dates and booleans have an order")
  }
  return operand
}

const pairOf = (value: Value.Value, at: string): ReadonlyArray<Operand> => {
  if (!Array.isArray(value) || value.length !== 2) throw invalid(at, "\"between\" takes a list of two, the lower first")
  const [low, high] = value.map((bound, i) => orderedOf(bound, `${at}[${i}]`)) as [Operand, Operand]
  if ("literal" in low && "literal" in high && Number.isNaN(orderTo(low.literal)(high.literal))) {
    throw invalid(at, "both must be of one type")
  }
  return [low, high]
}

const listOf = (operator: string, value: Value.Value, at: string): Operand | ReadonlyArray<Operand> => {
  if (Array.isArray(value)) {
    if (value.length > listMax) throw invalid(at, `a list has at most ${listMax} elements`)
    return value.map((element, i) => operandOf(element, `${at}[${i}]`))
  }
  if (isFields(value) && isReference(value)) return operandOf(value, at)
  throw invalid(at, `"${operator}" takes a list, or a reference to one`)
}

const unknownOperator = (name: string): string => {
  const found = `"${shown(name)}" is no operator`
  const meant = Spelling.nearest(name.slice(0, SHOWN_NAME_LENGTH), [...Object.keys(operators), "exists"])
  return found + (meant === undefined ? "." : `, did you mean "${meant}"?`) +
    " A field of a field is written \"owner.id\", and an object to compare with { eq: … }"
}

/** The predicate as this process' own: what was given can be changed, be a getter's, or contain itself. */
export const ownCopy = (input: unknown): Value.Value => {
  try {
    return Value.decodeTrusted(Value.encodeTransient(input, bytesMax))
  } catch (fault) {
    if (fault instanceof ValueNotSupported) throw invalid(fault.path, fault.reason)
    if (fault instanceof RecordTooLarge) throw invalid("$", `it has more than ${bytesMax} bytes`)
    throw fault
  }
}

/** What it says. It is a copy of ours. */
export const nodeOf = (own: Value.Value): Node => new Reader().predicate(own, "$")

/** What predicates of ours say, which are frozen: each is asked about again and again, and to read a large one takes ms. */
const known = new WeakMap<object, Node>()

/** A predicate as this process' own, read once and for all. @throws QueryInvalid, QueryTooExpensive */
export const readOwn = (input: unknown): Value.Value => {
  const own = ownCopy(input)
  const node = nodeOf(own)
  if (isFields(own)) known.set(own, node)
  return own
}

/** What a predicate says, of whomsoever. @throws QueryInvalid, QueryTooExpensive */
export const read = (predicate: unknown): Node =>
  (typeof predicate === "object" && predicate !== null ? known.get(predicate) : undefined) ?? nodeOf(ownCopy(predicate))
