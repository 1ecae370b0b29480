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
 * | `contains` | any | is an array with an element equal to it, or text with this text in it |
 * | `containsAll` `containsAny` | a list | contains all of it, or one of it |
 * | `startsWith` | text | is text that begins so |
 * | `exists` | true or false | is there, or is not |
 *
 * **Operands.** `{ "principal": "userId" }` is a reference: what {@link compile} is told of that name. It can stand for an
 * operand, for an element of a list, and for a list. Other objects and arrays are values; one that would be taken for a
 * reference is written `{ "literal": { "principal": "userId" } }`, and one with the single field `literal` alike.
 *
 * **Equality** is that of the grid's values (see `Value.ts`), whatever the order of fields, but that -0 equals 0, as in JSON
 * and in every order of numbers. A number and a bigint are never equal. **Order**: numbers and bigints by value, texts by
 * code points, which is the bytewise order of their UTF-8, bytes bytewise, dates by time, false before true.
 *
 * **Three values** (Kleene 1938). A comparison with a field that isn't there is neither true nor false but unknown, as is an
 * order between two types, and everything said of a reference that nobody resolves. Unknown is carried through: `not` of it is
 * unknown, `and` is false as soon as one part is, `or` true as soon as one is. What isn't {@link isTrue} is not granted and
 * not found, so that no missing field or claim opens anything. Null is a value, equal to itself; `exists` is never unknown.
 *
 * **Limits.** {@link nodesMax}, {@link listMax}, {@link pathLengthMax} and {@link bytesMax}, and the levels of arrays and
 * objects that a value may have. One evaluation looks at each element of a field at most once for each node.
 */
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import type * as AST from "effect/SchemaAST"
import { QueryInvalid, RecordTooLarge, ValueNotSupported } from "./GridError.ts"
import { compareNames } from "./internal/fieldOrder.ts"
import * as Spelling from "./Spelling.ts"
import * as Value from "./Value.ts"

// --- Limits -----------------------------------------------------------------------------------------------------------

/** Comparisons, `and`, `or`, `not`, and elements of `containsAll` and `containsAny` in one predicate, at most. */
export const nodesMax = 1_000

/** Elements of one list, at most, be it written or that of a reference. */
export const listMax = 1_000

/** UTF-16 units of one path, or of a reference's name, at most. */
export const pathLengthMax = 1_024

/** Canonical bytes of one predicate, as of any value, at most. */
export const bytesMax = 64 * 1024

// --- Form -------------------------------------------------------------------------------------------------------------

/** What has no parts. */
export type Scalar = null | boolean | number | bigint | string | Uint8Array | Date

/** What {@link compile} is told under this name. */
export interface Reference {
  readonly principal: string
}

type List = ReadonlyArray<Value.Value> | Reference
type Ordered = Exclude<Scalar, null> | Reference

/** What is said of one field; all of it has to hold. */
export interface Operators {
  readonly eq?: Value.Value
  readonly neq?: Value.Value
  readonly gt?: Ordered
  readonly gte?: Ordered
  readonly lt?: Ordered
  readonly lte?: Ordered
  readonly between?: readonly [low: Ordered, high: Ordered]
  readonly in?: List
  readonly contains?: Value.Value
  readonly containsAll?: List
  readonly containsAny?: List
  readonly startsWith?: string | Reference
  readonly exists?: boolean
}

/** A condition on a value: see the head of this module. */
export type Predicate =
  | { readonly [path: string]: Scalar | Reference | Operators }
  | { readonly and: ReadonlyArray<Predicate> }
  | { readonly or: ReadonlyArray<Predicate> }
  | { readonly not: Predicate }

/** The operand of a comparison, and which of both it is. */
export type Operand = { readonly literal: Value.Value } | Reference

type Comparison =
  & { readonly is: "comparison"; readonly names: ReadonlyArray<string> }
  & (
    | { readonly operator: Exclude<Operator, "exists">; readonly operand: Operand | ReadonlyArray<Operand> }
    | { readonly operator: "exists"; readonly expected: boolean }
  )

/** A predicate that was read. */
type Node =
  | { readonly is: "and" | "or"; readonly nodes: ReadonlyArray<Node> }
  | { readonly is: "not"; readonly node: Node }
  | Comparison

// --- Paths ------------------------------------------------------------------------------------------------------------

const connectives = ["and", "or", "not"]

/** The path that leads from a value through these fields: `path("a.b", "c")` is `a\.b.c`, `path("or")` is `\or`. */
export const path = (...names: readonly [string, ...ReadonlyArray<string>]): string => pathOf(names)

const pathOf = (names: ReadonlyArray<string>): string => {
  const text = names.map((name) => name.replaceAll(/[\\.]/g, "\\$&")).join(".")
  return connectives.includes(text) ? `\\${text}` : text
}

const namesOf = (text: string, at: string): ReadonlyArray<string> => {
  if (text.length > pathLengthMax) throw invalid(at, `a path has at most ${pathLengthMax} characters`)
  const names = [""]
  for (let i = 0; i < text.length; i++) {
    if (text[i] === ".") {
      names.push("")
      continue
    }
    if (text[i] === "\\" && ++i === text.length) {
      throw invalid(at, "a path doesn't end with a backslash: write two of them for one in a field's name")
    }
    names[names.length - 1] += text[i]!
  }
  return names
}

// --- Reading ----------------------------------------------------------------------------------------------------------

const invalid = (at: string, reason: string): QueryInvalid => new QueryInvalid({ path: at, reason })

const SHOWN_NAME_LENGTH = 40

const shown = (name: string): string => name.length > SHOWN_NAME_LENGTH ? name.slice(0, SHOWN_NAME_LENGTH) + "…" : name

const within = (at: string, name: string): string =>
  /^[A-Za-z_$][\w$]*$/.test(name) ? `${at}.${shown(name)}` : `${at}[${JSON.stringify(shown(name))}]`

type Fields = { readonly [name: string]: Value.Value }

const isFields = (value: Value.Value | undefined): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !isBytes(value) && !(value instanceof Date)

/** Reads one predicate, counting as it goes. */
class Reader {
  private nodes = 0

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
      return [{ is: "comparison", names, operator: "eq", operand: operandOf(value, at) }]
    }
    const entries = Object.entries(value)
    if (entries.length === 0) throw invalid(at, "it has no operator: for an empty object write { eq: {} }")
    return entries.map(([operator, operand]) => this.comparison(names, operator, operand, within(at, operator)))
  }

  private comparison(names: ReadonlyArray<string>, operator: string, value: Value.Value, at: string): Comparison {
    this.count(at)
    if (!isOperator(operator)) throw invalid(at, unknownOperator(operator))
    if (operator === "exists") {
      if (typeof value !== "boolean") throw invalid(at, "\"exists\" is true or false")
      return { is: "comparison", names, operator, expected: value }
    }
    return { is: "comparison", names, operator, operand: this.operand(operator, value, at) }
  }

  private operand(
    operator: Exclude<Operator, "exists">,
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
  if (name === "like" || name === "regex") return `${found}: "startsWith" and "contains" look into text`
  const meant = Spelling.nearest(name.slice(0, SHOWN_NAME_LENGTH), Object.keys(operators))
  return meant === undefined
    ? `${found}: a field of a field is written "owner.id", and an object to compare with { eq: … }`
    : `${found}: did you mean "${meant}"?`
}

/** The predicate as this process' own: what was given can be changed, be a getter's, or contain itself. */
const ownCopy = (input: unknown): Value.Value => {
  try {
    return Value.decodeTrusted(Value.encodeTransient(input, bytesMax))
  } catch (fault) {
    if (fault instanceof ValueNotSupported) throw invalid(fault.path, fault.reason)
    if (fault instanceof RecordTooLarge) throw invalid("$", `it has more than ${bytesMax} bytes`)
    throw fault
  }
}

const nodeOf = (predicate: unknown): Node => new Reader().predicate(ownCopy(predicate), "$")

/**
 * Passes a predicate from outside, as a frozen copy.
 *
 * @throws QueryInvalid for whatever isn't one, with the place, as in `$.or[1].n`, and what to do.
 */
export const parse = (input: unknown): Predicate => {
  const own = ownCopy(input)
  new Reader().predicate(own, "$")
  return own as Predicate
}

/** As {@link parse}, in other schemas: those of requests and of configuration. Its issue is the message of QueryInvalid. */
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
      if (fault instanceof QueryInvalid) return new ParseResult.Type(ast, input, fault.message)
      throw fault
    }
  })

// --- What a predicate speaks of ---------------------------------------------------------------------------------------

const comparisonsOf = (node: Node): ReadonlyArray<Comparison> =>
  node.is === "comparison" ? [node] : node.is === "not" ? comparisonsOf(node.node) : node.nodes.flatMap(comparisonsOf)

const operandsOf = (comparison: Comparison): ReadonlyArray<Operand> =>
  comparison.operator === "exists" ? [] : [comparison.operand].flat()

/** The paths that it reads, each once. They are written as {@link path} writes them. @throws QueryInvalid */
export const fieldsOf = (predicate: Predicate): ReadonlyArray<string> =>
  Array.from(new Set(comparisonsOf(nodeOf(predicate)).map(({ names }) => pathOf(names))))

/** The names that it refers to, each once. @throws QueryInvalid */
export const referencesOf = (predicate: Predicate): ReadonlyArray<string> =>
  Array.from(
    new Set(
      comparisonsOf(nodeOf(predicate)).flatMap(operandsOf)
        .flatMap((operand) => "principal" in operand ? [operand.principal] : [])
    )
  )

/**
 * The fields that have to be equal to something wherever the predicate is true, as {@link path} writes them, and to what: an
 * index of one of them finds all values for which it is. A field may be listed twice.
 *
 * @throws QueryInvalid
 */
export const equalities = (
  predicate: Predicate
): ReadonlyArray<{ readonly path: string; readonly operand: Operand }> => tiesOf(nodeOf(predicate))

const tiesOf = (node: Node): ReturnType<typeof equalities> => {
  if (node.is === "and") return node.nodes.flatMap(tiesOf)
  if (node.is !== "comparison" || node.operator !== "eq") return []
  return operandsOf(node).map((operand) => ({ path: pathOf(node.names), operand }))
}

// --- Compiling --------------------------------------------------------------------------------------------------------

/** Kleene's three values; `undefined` is unknown. */
export type Truth = boolean | undefined

/** Whether a predicate holds of a value. Throws for none that a grid can store. */
export type Test = (value: unknown) => Truth

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
 * The test that a predicate stands for, once for many values: paths are split, references resolved and lists hashed here,
 * and a test allocates nothing.
 *
 * @throws QueryInvalid
 */
export const compile = (predicate: Predicate, references: References = {}): Test =>
  testOf(nodeOf(predicate), resolver(references))

const unknown = (): Truth => undefined

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
    return (value) => fieldAt(value, names) !== undefined === expected
  }
  const operand = Array.isArray(comparison.operand)
    ? resolveAll(comparison.operand, resolve)
    : resolve(comparison.operand as Operand)
  if (operand === undefined) return unknown
  const test = operators[comparison.operator](operand)
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

// --- Fields -----------------------------------------------------------------------------------------------------------

const isPlain = (value: unknown): value is { readonly [name: string]: unknown } => {
  if (typeof value !== "object" || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

/** Undefined when there is none, as no field is that a grid can store. */
const fieldOf = (value: unknown, name: string): unknown =>
  isPlain(value) && Object.hasOwn(value, name) ? value[name] : undefined

const fieldAt = (value: unknown, names: ReadonlyArray<string>): unknown => {
  let field = value
  for (let i = 0; i < names.length && field !== undefined; i++) field = fieldOf(field, names[i]!)
  return field
}

// --- Logic ------------------------------------------------------------------------------------------------------------

const not = (test: Test): Test => (value) => {
  const truth = test(value)
  return truth === undefined ? undefined : !truth
}

const all = (tests: ReadonlyArray<Test>): Test => {
  const [first, second] = tests
  if (first !== undefined && second !== undefined && tests.length === 2) {
    return (value) => {
      const truth = first(value)
      if (truth === false) return false
      const other = second(value)
      return truth === undefined && other === true ? undefined : other
    }
  }
  return (value) => {
    let truth: Truth = true
    for (let i = 0; i < tests.length; i++) {
      const each = tests[i]!(value)
      if (each === false) return false
      if (each === undefined) truth = undefined
    }
    return truth
  }
}

const any = (tests: ReadonlyArray<Test>): Test => (value) => {
  let truth: Truth = false
  for (let i = 0; i < tests.length; i++) {
    const each = tests[i]!(value)
    if (each === true) return true
    if (each === undefined) truth = undefined
  }
  return truth
}

// --- Equality ---------------------------------------------------------------------------------------------------------

type Equal = (value: unknown) => boolean

const isBytes = (value: unknown): value is Uint8Array => ArrayBuffer.isView(value) && value instanceof Uint8Array

/** Milliseconds, NaN for what is no date. */
const timeOf = (value: unknown): number => {
  if (!(value instanceof Date)) return Number.NaN
  try {
    return Date.prototype.getTime.call(value)
  } catch {
    // It only inherits from Date.
    return Number.NaN
  }
}

const isHashed = (literal: Value.Value): boolean => typeof literal !== "object" || literal === null

/** Whether a value is equal to this one. It descends no further than the literal does, whatever the value is. */
const equalTo = (literal: Value.Value): Equal => {
  if (isHashed(literal)) return (value) => value === literal
  if (isBytes(literal)) return (value) => isBytes(value) && Value.compareBytes(value, literal) === 0
  if (literal instanceof Date) {
    const time = literal.getTime()
    return (value) => timeOf(value) === time
  }
  return Array.isArray(literal) ? equalToArray(literal.map(equalTo)) : equalToFields(literal as Fields)
}

const equalToArray = (elements: ReadonlyArray<Equal>): Equal => (value) => {
  if (!Array.isArray(value) || value.length !== elements.length) return false
  for (let i = 0; i < elements.length; i++) if (!elements[i]!(value[i])) return false
  return true
}

const equalToFields = (literal: Fields): Equal => {
  const fields = new Map(Object.entries(literal).map(([name, field]) => [name, equalTo(field)]))
  return (value) => {
    if (!isPlain(value)) return false
    let count = 0
    // Unlike Object.keys it makes no array of the names.
    for (const name in value) {
      if (!Object.hasOwn(value, name)) continue
      const equal = fields.get(name)
      if (equal === undefined || !equal(value[name])) return false
      count++
    }
    return count === fields.size
  }
}

const memberOf = (list: ReadonlyArray<Value.Value>): Equal => {
  if (list.length === 1) return equalTo(list[0]!)
  const hashed = new Set<unknown>(list.filter(isHashed))
  const others = list.filter((literal) => !isHashed(literal)).map(equalTo)
  return (value) => {
    if (hashed.has(value)) return true
    for (let i = 0; i < others.length; i++) if (others[i]!(value)) return true
    return false
  }
}

// --- Order ------------------------------------------------------------------------------------------------------------

/** Below 0 when the value comes before the literal, above when after, NaN when there is no order between them. */
const orderTo = (literal: Value.Value): (value: unknown) => number => {
  switch (typeof literal) {
    case "number":
    case "bigint":
    case "boolean": {
      const type = typeof literal
      return (value) => typeof value !== type ? Number.NaN : inOrder(value as typeof literal, literal)
    }
    case "string":
      return (value) => typeof value === "string" ? compareNames(value, literal) : Number.NaN
    default: {
      if (isBytes(literal)) return (value) => isBytes(value) ? Value.compareBytes(value, literal) : Number.NaN
      const time = timeOf(literal)
      return (value) => timeOf(value) - time
    }
  }
}

const inOrder = <A extends number | bigint | boolean>(a: A, b: A): number =>
  a < b ? -1 : a > b ? 1 : a === b ? 0 : Number.NaN

/** Comparing with NaN is always false, so that what has no order passes both of its tests. */
const ordered = (holds: (order: number) => boolean) => (literal: Value.Value): Test => {
  const order = orderTo(literal)
  return (field) => {
    const found = order(field)
    return Number.isNaN(found) ? undefined : holds(found)
  }
}

// --- Operators --------------------------------------------------------------------------------------------------------

const isList = (operand: Value.Value): operand is ReadonlyArray<Value.Value> => Array.isArray(operand)

const between = (bounds: Value.Value): Test => {
  const [low, high] = bounds as ReadonlyArray<Value.Value>
  const toLow = orderTo(low!)
  const toHigh = orderTo(high!)
  return (field) => {
    const fromLow = toLow(field)
    const fromHigh = toHigh(field)
    return Number.isNaN(fromLow) || Number.isNaN(fromHigh) ? undefined : fromLow >= 0 && fromHigh <= 0
  }
}

const hasElement = (array: ReadonlyArray<unknown>, equal: Equal): boolean => {
  for (let i = 0; i < array.length; i++) if (equal(array[i])) return true
  return false
}

const containsAny = (list: Value.Value): Test => {
  if (!isList(list)) return unknown
  const member = memberOf(list)
  const inText = any(list.map(inTextOf))
  return (field) =>
    typeof field === "string" ? inText(field) : Array.isArray(field) ? hasElement(field, member) : undefined
}

const containsAll = (list: Value.Value): Test => {
  if (!isList(list)) return unknown
  const hasHashed = hasAllOf(new Set(list.filter(isHashed)))
  const others = list.filter((literal) => !isHashed(literal)).map(equalTo)
  const inText = all(list.map(inTextOf))
  return (field) =>
    typeof field === "string"
      ? inText(field)
      : Array.isArray(field)
      ? hasHashed(field) && others.every((equal) => hasElement(field, equal))
      : undefined
}

/** Whether an array has all of a set, in one pass: by each member the round in which it was found last. */
const hasAllOf = (set: ReadonlySet<unknown>): (array: ReadonlyArray<unknown>) => boolean => {
  const indexes = new Map(Array.from(set, (member, index) => [member, index]))
  const foundIn = new Float64Array(indexes.size)
  let round = 0
  return (array) => {
    let missing = indexes.size
    round++
    for (let i = 0; i < array.length && missing > 0; i++) {
      const index = indexes.get(array[i])
      if (index === undefined || foundIn[index] === round) continue
      foundIn[index] = round
      missing--
    }
    return missing === 0
  }
}

const inTextOf = (part: Value.Value): Test => (text) =>
  typeof part === "string" ? (text as string).includes(part) : undefined

/** By name, the test of a field that is there, for a resolved operand. */
const operators = {
  eq: equalTo,
  neq: (operand: Value.Value): Test => not(equalTo(operand)),
  gt: ordered((order) => order > 0),
  gte: ordered((order) => order >= 0),
  lt: ordered((order) => order < 0),
  lte: ordered((order) => order <= 0),
  between,
  in: (operand: Value.Value): Test => isList(operand) ? memberOf(operand) : unknown,
  contains: (operand: Value.Value): Test => containsAny([operand]),
  containsAll,
  containsAny,
  startsWith: (operand: Value.Value): Test => (field) =>
    typeof field === "string" && typeof operand === "string" ? field.startsWith(operand) : undefined,
  exists: () => unknown
}

type Operator = keyof typeof operators

const isOperator = (name: string): name is Operator => Object.hasOwn(operators, name)
