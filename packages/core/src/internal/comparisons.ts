/**
 * What a predicate is compiled to: tests of values and of fields, made once and run for each value, without allocating. What
 * they mean is said in `Predicate.ts`.
 */
import * as Value from "../Value.ts"
import { compareNames } from "./fieldOrder.ts"
import * as Like from "./like.ts"
import * as Regex from "./regex.ts"

// --- Logic -----------------------------------------------------------------------------------------------------------

/** Kleene's three values; `undefined` is unknown. */
export type Truth = boolean | undefined

/** Whether something holds of a value, or of a field. Throws for none that a grid can store. */
export type Test = (value: unknown) => Truth

export const unknown = (): Truth => undefined

export const not = (test: Test): Test => (value) => {
  const truth = test(value)
  return truth === undefined ? undefined : !truth
}

export const all = (tests: ReadonlyArray<Test>): Test => {
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

export const any = (tests: ReadonlyArray<Test>): Test => (value) => {
  let truth: Truth = false
  for (let i = 0; i < tests.length; i++) {
    const each = tests[i]!(value)
    if (each === true) return true
    if (each === undefined) truth = undefined
  }
  return truth
}

// --- Fields ----------------------------------------------------------------------------------------------------------

export type Fields = { readonly [name: string]: Value.Value }

export const isFields = (value: Value.Value | undefined): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !isBytes(value) && !(value instanceof Date)

const isBytes = (value: unknown): value is Uint8Array => ArrayBuffer.isView(value) && value instanceof Uint8Array

const isPlain = (value: unknown): value is { readonly [name: string]: unknown } => {
  if (typeof value !== "object" || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

/** Undefined when there is none, as no field is that a grid can store. */
export const fieldOf = (value: unknown, name: string): unknown =>
  isPlain(value) && Object.hasOwn(value, name) ? value[name] : undefined

export const fieldAt = (value: unknown, names: ReadonlyArray<string>): unknown => {
  let field = value
  for (let i = 0; i < names.length && field !== undefined; i++) field = fieldOf(field, names[i]!)
  return field
}

// --- Equality --------------------------------------------------------------------------------------------------------

type Equal = (value: unknown) => boolean

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

// --- Order -----------------------------------------------------------------------------------------------------------

/** Below 0 when the value comes before the literal, above when after, NaN when there is no order between them. */
export const orderTo = (literal: Value.Value): (value: unknown) => number => {
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

const ordered = (holds: (order: number) => boolean) => (literal: Value.Value): Test => {
  const order = orderTo(literal)
  return (field) => {
    const found = order(field)
    return Number.isNaN(found) ? undefined : holds(found)
  }
}

// --- Operators -------------------------------------------------------------------------------------------------------

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

const inTextOf = (part: Value.Value): Test => {
  if (typeof part !== "string") return unknown
  const indexIn = searchFor(part)
  return (text) => indexIn(text as string, 0) >= 0
}

/** Up to here the engine's own search is the faster one. What it takes for a longer part may be their lengths' product. */
const SHORT_PART_LENGTH = 32

/** Where a text has a part first, from an index on, or -1; in time linear in the text (Knuth, Morris, Pratt 1977). */
const searchFor = (part: string): (text: string, from: number) => number => {
  const { length } = part
  if (length <= SHORT_PART_LENGTH) return (text, from) => text.indexOf(part, from)
  /** By index, the longest start of the part that ends there, and is not the part up to there itself. */
  const borders = new Int32Array(length)
  const advance = (matched: number, unit: number): number => {
    let next = matched
    while (next > 0 && part.charCodeAt(next) !== unit) next = borders[next - 1]!
    return part.charCodeAt(next) === unit ? next + 1 : 0
  }
  for (let i = 1; i < length; i++) borders[i] = advance(borders[i - 1]!, part.charCodeAt(i))
  return (text, from) => {
    let matched = 0
    let i = from
    while (i < text.length && matched < length) matched = advance(matched, text.charCodeAt(i++))
    return matched === length ? i - length : -1
  }
}

const ofText = (isIn: (text: string) => Truth): Test => (field) => typeof field === "string" ? isIn(field) : undefined

/** By name, the test of a field that is there, for a resolved operand. Whether one is there is no test of it: `exists` is apart. */
export const operators = {
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
  like: (pattern: Value.Value): Test => ofText(Like.matcherOf(pattern as string, searchFor)),
  regex: (pattern: Value.Value): Test => ofText(Regex.matcherOf(pattern as string))
}

export type Operator = keyof typeof operators

export const isOperator = (name: string): name is Operator => Object.hasOwn(operators, name)
