/**
 * A file of records: a JSON array of objects, or JSON Lines with one object a line, told apart by the first character. It is
 * read as a stream; of the text only one record is held at a time.
 */
import type { RecordTooLarge, ValueNotSupported } from "@topgun/core/GridError"
import * as Value from "@topgun/core/Value"
import * as Json from "./Json.ts"

/** The text of one record, in UTF-16 units: a value may have 256 KiB, and each character of it be written as an escape. */
export const recordLengthMax = 2 * 1024 * 1024

/** Faults told before reading stops. */
export const faultsMax = 5

/** One text of JSON, and where it begins. */
interface Piece {
  readonly text: string
  /** From 1. */
  readonly line: number
  /** From 1, in UTF-16 units. */
  readonly column: number
}

const isSpace = (char: string): boolean => char === " " || char === "\n" || char === "\r" || char === "\t"

/** Cuts a text that comes in chunks into the texts of its records. */
class Cutter {
  #mode: "start" | "lines" | "array" | "done" = "start"
  /** What was begun and not finished. */
  #rest = ""
  /** Where {@link #rest} begins. */
  #line = 1
  #column = 1
  readonly #onPiece: (piece: Piece) => void
  readonly #onFault: (line: number, column: number, reason: string) => void

  // Within an array.
  #depth = 0
  #inText = false
  #escaped = false
  #began = false
  /** Whether a comma, or the array's beginning, allows for an element. */
  #expects: "element" | "elementOrEnd" | "commaOrEnd" = "elementOrEnd"

  constructor(
    onPiece: (piece: Piece) => void,
    onFault: (line: number, column: number, reason: string) => void
  ) {
    this.#onPiece = onPiece
    this.#onFault = onFault
  }

  push(chunk: string): void {
    const from = this.#rest.length
    const text = this.#rest + chunk
    this.#rest = this.#mode === "start" ? this.#begin(text) : text
    if (this.#mode === "lines") this.#cutLines(from)
    else if (this.#mode === "array") this.#cutArray(from)
    else if (this.#mode === "done") this.#after()
  }

  /** Nothing more comes. */
  end(): void {
    if (this.#mode === "start") return this.#onFault(1, 1, "there are no records in it")
    if (this.#mode === "lines") return this.#emitLine(this.#rest)
    if (this.#mode === "done") return
    const parsed = this.#began ? Json.parse(this.#rest) : undefined
    if (parsed !== undefined && "fault" in parsed) return this.#faultIn(parsed.fault)
    this.#onFault(this.#line, this.#column, "the array is never closed: \"]\" is missing at the end")
  }

  #begin(text: string): string {
    let at = 0
    while (at < text.length && isSpace(text[at]!)) at++
    if (at === text.length) {
      this.#skip(text)
      return ""
    }
    this.#mode = text[at] === "[" ? "array" : "lines"
    const skipped = this.#mode === "array" ? at + 1 : at
    this.#skip(text.slice(0, skipped))
    return text.slice(skipped)
  }

  /** Moves the place of {@link #rest} behind a text. */
  #skip(text: string): void {
    const last = text.lastIndexOf("\n")
    if (last < 0) {
      this.#column += text.length
      return
    }
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) this.#line++
    this.#column = text.length - last
  }

  #faultIn({ offset, reason }: Json.Fault): void {
    const { column, line } = placeIn({ text: this.#rest, line: this.#line, column: this.#column }, offset)
    this.#onFault(line, column, reason)
  }

  #tooLong(): void {
    const parsed = Json.parse(this.#rest)
    if ("fault" in parsed && !parsed.fault.reason.startsWith("this {")) return this.#faultIn(parsed.fault)
    this.#onFault(this.#line, this.#column, `this record has more than ${recordLengthMax} characters`)
  }

  #cutLines(from: number): void {
    let begin = 0
    let at = this.#rest.indexOf("\n", from)
    while (at >= 0) {
      this.#emitLine(this.#rest.slice(begin, at))
      this.#line++
      this.#column = 1
      begin = at + 1
      at = this.#rest.indexOf("\n", begin)
    }
    this.#rest = this.#rest.slice(begin)
    if (this.#rest.length > recordLengthMax) this.#tooLong()
  }

  #emitLine(text: string): void {
    if (text.trim() !== "") this.#onPiece({ text, line: this.#line, column: this.#column })
  }

  /** Scans what is new; characters before `from` were scanned when they came. */
  #cutArray(from: number): void {
    const text = this.#rest
    let begin = 0
    let at = from
    const take = (to: number): string => {
      const taken = text.slice(begin, to)
      begin = to
      return taken
    }
    const finish = (to: number): void => {
      const piece = { text: take(to), line: this.#line, column: this.#column }
      this.#onPiece(piece)
      this.#skip(piece.text)
      this.#began = false
      this.#expects = "commaOrEnd"
    }
    for (; at < text.length; at++) {
      const char = text[at]!
      if (this.#inText) {
        if (this.#escaped) this.#escaped = false
        else if (char === "\\") this.#escaped = true
        else if (char === "\"") this.#inText = false
        continue
      }
      if (this.#began) {
        if (char === "\"") this.#inText = true
        else if (char === "{" || char === "[") this.#depth++
        else if (this.#depth > 0) {
          if ((char === "}" || char === "]") && --this.#depth === 0) finish(at + 1)
        } else if (char === "," || char === "]" || isSpace(char)) {
          // The end of a number, text or literal; what ended it is looked at again.
          finish(at)
          at--
        }
        continue
      }
      if (isSpace(char)) continue
      this.#skip(take(at))
      if (char === "]") {
        if (this.#expects === "element") {
          return this.#onFault(this.#line, this.#column, "a comma before \"]\" is not allowed")
        }
        this.#skip(take(at + 1))
        this.#rest = text.slice(at + 1)
        this.#mode = "done"
        return this.#after()
      }
      if (char === ",") {
        if (this.#expects !== "commaOrEnd") {
          return this.#onFault(this.#line, this.#column, "expected a record, found \",\"")
        }
        this.#expects = "element"
        this.#skip(take(at + 1))
        continue
      }
      if (this.#expects === "commaOrEnd") {
        return this.#onFault(this.#line, this.#column, `expected "," or "]", found ${JSON.stringify(char)}`)
      }
      this.#began = true
      at--
    }
    this.#rest = text.slice(begin)
    if (!this.#began) {
      this.#skip(this.#rest)
      this.#rest = ""
    }
    if (this.#rest.length > recordLengthMax) this.#tooLong()
  }

  #after(): void {
    const at = this.#rest.search(/\S/)
    this.#skip(at < 0 ? this.#rest : this.#rest.slice(0, at))
    if (at >= 0) this.#onFault(this.#line, this.#column, "there is more after the array's end")
    this.#rest = ""
  }
}

/** The place of an offset within a piece. */
const placeIn = (piece: Piece, offset: number): { readonly line: number; readonly column: number } => {
  const before = piece.text.slice(0, offset)
  const lines = before.split("\n")
  return lines.length === 1
    ? { line: piece.line, column: piece.column + offset }
    : { line: piece.line + lines.length - 1, column: lines.at(-1)!.length + 1 }
}

const kindOf = (value: unknown): string =>
  value === null
    ? "null"
    : Array.isArray(value)
    ? "an array"
    : typeof value === "object"
    ? "an object"
    : `a ${typeof value}`

/** What a record's key is, or in words why it has none. */
const keyOf = (record: object, field: string): { readonly key: string } | { readonly reason: string } => {
  if (!Object.hasOwn(record, field)) {
    const fields = Object.keys(record)
    const named = fields.slice(0, 6).map((each) => JSON.stringify(each)).join(", ")
    return {
      reason: `it has no field ${JSON.stringify(field)} to be its key` +
        (fields.length === 0 ? "" : `; its fields are ${named}${fields.length > 6 ? ", …" : ""}: name one with --key`)
    }
  }
  const key: unknown = record[field as keyof typeof record]
  return typeof key === "string" || typeof key === "number"
    ? { key: String(key) }
    : { reason: `its key, field ${JSON.stringify(field)}, is ${kindOf(key)}: a key is a string or a number` }
}

/** Takes the bytes of a file, checks every record and keeps those of which nothing is wrong, by key. */
export class RecordFile {
  /** The last record of each key. */
  readonly records = new Map<string, object>()
  /** What is wrong, each with its place: `line:column: reason`. */
  readonly faults: Array<string> = []
  /** Records whose key an earlier one had. */
  repeated = 0
  /** A key that several records have. */
  repeatedKey: string | undefined
  /** Records read. */
  count = 0

  readonly #field: string
  readonly #decoder = new TextDecoder("utf-8", { fatal: true })
  readonly #cutter = new Cutter(
    (piece) => this.#take(piece),
    (line, column, reason) => this.#broken(line, column, reason)
  )
  #stopped = false

  /** `field` is the one that holds a record's key. */
  constructor(field: string) {
    this.#field = field
  }

  /** Whether reading on is of no use. */
  get isStopped(): boolean {
    return this.#stopped
  }

  push(bytes: Uint8Array): void {
    this.#decode(() => this.#decoder.decode(bytes, { stream: true }))
  }

  end(): void {
    this.#decode(() => this.#decoder.decode())
    if (!this.#stopped) this.#cutter.end()
  }

  #decode(next: () => string): void {
    if (this.#stopped) return
    let text: string
    try {
      text = next()
    } catch {
      this.#stopped = true
      this.faults.push(`after record ${this.count}: the bytes are not UTF-8 text: save the file as UTF-8`)
      return
    }
    this.#cutter.push(text)
  }

  /** The text is wrong in a way that makes what follows unreliable. */
  #broken(line: number, column: number, reason: string): void {
    if (this.#stopped) return
    this.#stopped = true
    this.faults.push(`${line}:${column}: ${reason}`)
  }

  #fault(piece: Piece, reason: string): void {
    this.faults.push(`${piece.line}:${piece.column}: record ${this.count}: ${reason}`)
    if (this.faults.length >= faultsMax) this.#stopped = true
  }

  #take(piece: Piece): void {
    if (this.#stopped) return
    this.count++
    const parsed = Json.parse(piece.text)
    if ("fault" in parsed) {
      const { column, line } = placeIn(piece, parsed.fault.offset)
      const hint = /^\s*\{\s*$/.test(piece.text)
        ? " (a record may span lines only within a JSON array)"
        : ""
      return this.#broken(line, column, `record ${this.count}: ${parsed.fault.reason}${hint}`)
    }
    const { value } = parsed
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      return this.#fault(piece, `it is ${kindOf(value)}: a record is an object, {…}`)
    }
    const found = keyOf(value, this.#field)
    if ("reason" in found) return this.#fault(piece, found.reason)
    try {
      Value.checkKey(found.key)
      Value.encodeTransient(value)
    } catch (fault) {
      return this.#fault(piece, (fault as ValueNotSupported | RecordTooLarge).message)
    }
    if (this.records.has(found.key)) {
      this.repeated++
      this.repeatedKey ??= found.key
    }
    this.records.set(found.key, value)
  }
}
