/** JSON as people write it: where it is wrong and why, what of it would be lost, and values of a grid as JSON. */

/** Where a text stops being JSON, or being JSON that can be kept. */
export interface Fault {
  /** In UTF-16 units, from 0. */
  readonly offset: number
  readonly reason: string
}

const literals = ["true", "false", "null"]
const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
const escapes = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y
const depthMax = 1_000

/** A whole number beyond 2^53 that a double would change: it holds another one, and isn't written like this either. */
const isRounded = (text: string): boolean =>
  text.length > 15 && /^-?\d+$/.test(text) && BigInt(text) !== BigInt(Number(text)) && String(Number(text)) !== text

/** Thrown within this file, to leave the recursion. */
class Stop {
  readonly fault: Fault
  constructor(offset: number, reason: string) {
    this.fault = { offset, reason }
  }
}

const name = (char: string | undefined): string => char === undefined ? "the end" : JSON.stringify(char)

/** Reads a text by the grammar of JSON (RFC 8259). @throws Stop */
const check = (text: string): void => {
  let at = 0
  const space = (): void => {
    while (at < text.length && " \t\r\n".includes(text[at]!)) at++
  }
  const matches = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at
    return pattern.exec(text)?.[0]
  }
  const string = (): void => {
    const from = at++
    while (true) {
      const char = text[at]
      if (char === undefined) throw new Stop(from, "this text has no closing quote")
      if (char < " ") {
        throw new Stop(at, "a line break or control character inside quotes must be written as an escape: \\n")
      }
      if (char === "\"") break
      if (char !== "\\") at++
      else {
        const escape = matches(escapes)
        if (escape === undefined) {
          throw new Stop(at, "this backslash begins no escape: a backslash itself is written \\\\")
        }
        at += escape.length
      }
    }
    at++
  }
  const items = (close: string, item: () => void): void => {
    const from = at++
    space()
    if (text[at] === close) return void at++
    const open = (): void => {
      if (at === text.length) throw new Stop(from, `this ${text[from]} is never closed`)
    }
    while (true) {
      open()
      item()
      space()
      if (text[at] === close) return void at++
      open()
      if (text[at] !== ",") throw new Stop(at, `expected "," or ${name(close)}, found ${name(text[at])}`)
      at++
      space()
      if (text[at] === close) throw new Stop(at, `a comma before ${name(close)} is not allowed`)
    }
  }
  const value = (depth: number): void => {
    if (depth > depthMax) throw new Stop(at, `more than ${depthMax} levels`)
    space()
    const char = text[at]
    if (char === "{") {
      return items("}", () => {
        if (text[at] !== "\"") throw new Stop(at, `expected a field name in double quotes, found ${name(text[at])}`)
        string()
        space()
        if (text[at] !== ":") throw new Stop(at, `expected ":" after the field name, found ${name(text[at])}`)
        at++
        value(depth + 1)
      })
    }
    if (char === "[") return items("]", () => value(depth + 1))
    if (char === "\"") return string()
    const literal = literals.find((each) => text.startsWith(each, at)) ?? matches(number)
    if (literal === undefined) throw new Stop(at, `expected a value, found ${name(char)}`)
    if (isRounded(literal)) {
      throw new Stop(at, `${literal} would be rounded to ${Number(literal)}: write it as text, "${literal}"`)
    }
    at += literal.length
  }
  value(0)
  space()
  if (at < text.length) throw new Stop(at, `expected nothing more, found ${name(text[at])}`)
}

/** The first fault of a text. */
const faultOf = (text: string): Fault | undefined => {
  try {
    check(text)
    return undefined
  } catch (stop) {
    if (stop instanceof Stop) return stop.fault
    throw stop
  }
}

/** A parsed text, or why it isn't taken. */
export type Parsed = { readonly value: unknown } | { readonly fault: Fault }

/** Parses one text. Whole numbers that a double can't hold are a fault, as they would be kept as others. */
export const parse = (text: string): Parsed => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    return { fault: faultOf(text) ?? { offset: 0, reason: String(cause) } }
  }
  // Such a number has sixteen digits; few texts have.
  const fault = /\d{16}/.test(text) ? faultOf(text) : undefined
  return fault === undefined ? { value } : { fault }
}

/** A value of a grid as JSON: what JSON lacks becomes text (a Date in ISO 8601, bytes in base64, a bigint in digits). */
export const render = (value: unknown, indent?: number): string =>
  JSON.stringify(
    value,
    (_, each: unknown) =>
      typeof each === "bigint"
        ? String(each)
        : each instanceof Uint8Array
        ? Buffer.from(each).toString("base64")
        : each,
    indent
  )

/** A key as it may stand in a line: as it is, or as JSON when it would do more to a terminal than show. */
export const label = (key: string): string =>
  /[\p{Cc}\p{Cf}]/u.test(key)
    ? JSON.stringify(key).replace(
      /[\p{Cc}\p{Cf}]/gu,
      (char) => char.split("").map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`).join("")
    )
    : key
