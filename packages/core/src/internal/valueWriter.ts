/**
 * Writes values in canonical form: one synchronous pass into a shared buffer. Positions go from call to call; what belongs
 * to the encoding as a whole is in variables of the module, so that nothing is allocated for it.
 */
import { RecordTooLarge, ValueNotSupported } from "../GridError.ts"
import { inCanonicalOrder } from "./fieldOrder.ts"
import { utf8Length, utf8Write } from "./utf8.ts"
import {
  depthMax,
  elementsMax,
  fieldsMax,
  tooDeep,
  tooManyElements,
  tooManyFields,
  valueBytesMax
} from "./valueForm.ts"

// --- One encoding -----------------------------------------------------------------------------------------------------

const BUFFER_BYTES = 4096
/** A buffer that grew beyond this is not kept. */
const BUFFER_KEPT_BYTES = 2 * valueBytesMax
/** The most that a header asks for beyond the content. */
const HEADER_SLACK = 16
/** Results shorter than this are views made once: making one takes V8 as long as writing 50 bytes. */
const VIEWS_KEPT = 1024

let buffer = new Uint8Array(BUFFER_BYTES)
let view = new DataView(buffer.buffer)
/** By their length, those of `buffer` that were asked for so far. */
const views: Array<Uint8Array | undefined> = Array.from({ length: VIEWS_KEPT }, () => undefined)
let limit = valueBytesMax
let elements = 0
let root: unknown
/** The field names and indexes that lead from the root to the value at hand; only the first `depth` count. */
let path: Array<string | number> = []
let busy = false

const useBuffer = (bytes: Uint8Array<ArrayBuffer>): void => {
  buffer = bytes
  view = new DataView(bytes.buffer)
  views.fill(undefined)
}

/** The canonical bytes of a value, in the shared buffer, where the next call overwrites them. */
export const write = (value: unknown, limitBytes: number): Uint8Array => {
  if (busy) return writeInside(value, limitBytes)
  busy = true
  limit = limitBytes
  elements = 0
  root = value
  try {
    const end = writeValue(value, 0, 0)
    if (end > limit) throw tooLarge(end)
    if (end >= VIEWS_KEPT) return buffer.subarray(0, end)
    return views[end] ??= buffer.subarray(0, end)
  } finally {
    busy = false
    root = undefined
    if (buffer.length > BUFFER_KEPT_BYTES) useBuffer(new Uint8Array(BUFFER_BYTES))
  }
}

/** An encoding asked for by a Proxy amid another one, which goes on afterwards as if nothing had been. */
const writeInside = (value: unknown, limitBytes: number): Uint8Array => {
  const outer = { buffer, limit, elements, root, path }
  useBuffer(new Uint8Array(BUFFER_BYTES))
  path = []
  busy = false
  try {
    return write(value, limitBytes)
  } finally {
    busy = true
    useBuffer(outer.buffer)
    limit = outer.limit
    elements = outer.elements
    root = outer.root
    path = outer.path
  }
}

/** Makes room for `bytes` at `at`, of which at most {@link HEADER_SLACK} may stay unused. */
const reserve = (at: number, bytes: number): void => {
  if (at + bytes > buffer.length) grow(at, bytes)
}

const grow = (at: number, bytes: number): void => {
  const needed = at + bytes - HEADER_SLACK
  if (needed > limit) throw tooLarge(needed)
  let length = buffer.length * 2
  while (length < at + bytes) length *= 2
  const grown = new Uint8Array(length)
  grown.set(buffer)
  useBuffer(grown)
}

const tooLarge = (bytes: number): RecordTooLarge => new RecordTooLarge({ what: "value", bytes, limit })

// --- Values -----------------------------------------------------------------------------------------------------------
// Each writes at `at`, and answers where what follows begins.

const writeValue = (value: unknown, depth: number, at: number): number => {
  switch (typeof value) {
    case "string":
      return writeText(value, depth, at)
    case "number":
      return writeNumber(value, depth, at)
    case "object":
      return value === null ? writeByte(0xc0, at) : writeObject(value, depth, at)
    case "boolean":
      return writeByte(value ? 0xc3 : 0xc2, at)
    case "bigint":
      return writeBigInt(value, depth, at)
    case "undefined":
      throw refusal(depth, "undefined is not a value: leave the field out, or use null")
    default:
      throw refusal(depth, `a ${typeof value} is not a value`)
  }
}

const writeByte = (byte: number, at: number): number => {
  reserve(at, 1)
  buffer[at] = byte
  return at + 1
}

/** Above this length the native encoder, with its fixed cost per call, is the faster one. */
const SHORT_TEXT_LENGTH = 96
const encoder = new TextEncoder()

const writeText = (text: string, depth: number, at: number): number => {
  const length = text.length
  reserve(at, 5 + length)
  // Most text is ASCII: written as such in one pass, and anew when it turns out otherwise.
  const from = at + headerBytes(length)
  if (length > SHORT_TEXT_LENGTH) {
    const { read, written } = encoder.encodeInto(text, buffer.subarray(from, from + length))
    if (read !== length || written !== length) return writeWideText(text, depth, at)
  } else {
    if (text.charCodeAt(0) >= 0x80) return writeWideText(text, depth, at)
    const target = buffer
    let bits = 0
    for (let i = 0; i < length; i++) {
      const unit = text.charCodeAt(i)
      bits |= unit
      target[from + i] = unit
    }
    if (bits >= 0x80) return writeWideText(text, depth, at)
  }
  writeTextHeader(length, at)
  return from + length
}

const writeWideText = (text: string, depth: number, at: number): number => {
  const bytes = utf8Length(text)
  if (bytes < 0) throw refusal(depth, "text with a lone surrogate has no UTF-8 form")
  reserve(at, 5 + bytes)
  const from = writeTextHeader(bytes, at)
  return from + utf8Write(text, buffer, from)
}

/** The bytes before a text of `length` bytes. */
const headerBytes = (length: number): number => length < 32 ? 1 : length < 0x100 ? 2 : length < 0x10000 ? 3 : 5

const writeTextHeader = (length: number, at: number): number => {
  if (length >= 32) return writeLength(length, 0xd9, at)
  buffer[at] = 0xa0 | length
  return at + 1
}

/** A length of one, two or four bytes behind the first, second or third of three successive tags. */
const writeLength = (length: number, tag: number, at: number): number => {
  if (length < 0x100) {
    buffer[at] = tag
    buffer[at + 1] = length
    return at + 2
  }
  if (length < 0x10000) {
    buffer[at] = tag + 1
    view.setUint16(at + 1, length)
    return at + 3
  }
  buffer[at] = tag + 2
  view.setUint32(at + 1, length)
  return at + 5
}

const writeNumber = (value: number, depth: number, at: number): number => {
  reserve(at, 9)
  if (value >= 0 && value <= 0xffffffff && value >>> 0 === value && !Object.is(value, -0)) {
    if (value >= 0x80) return writeLength(value, 0xcc, at)
    buffer[at] = value
    return at + 1
  }
  if (value < 0 && value >= -0x80000000 && (value | 0) === value) {
    if (value >= -32) {
      buffer[at] = value
      return at + 1
    }
    if (value >= -0x80) {
      buffer[at] = 0xd0
      buffer[at + 1] = value
      return at + 2
    }
    if (value >= -0x8000) {
      buffer[at] = 0xd1
      view.setInt16(at + 1, value)
      return at + 3
    }
    buffer[at] = 0xd2
    view.setInt32(at + 1, value)
    return at + 5
  }
  if (!Number.isFinite(value)) throw refusal(depth, `${value} is not a finite number`)
  buffer[at] = 0xcb
  view.setFloat64(at + 1, value)
  return at + 9
}

const writeBigInt = (value: bigint, depth: number, at: number): number => {
  if (value >= 0n ? value > 0xffff_ffff_ffff_ffffn : value < -0x8000_0000_0000_0000n) {
    throw refusal(depth, "a bigint must be in [-2^63, 2^64)")
  }
  reserve(at, 9)
  buffer[at] = value < 0n ? 0xd3 : 0xcf
  view.setBigUint64(at + 1, BigInt.asUintN(64, value))
  return at + 9
}

const writeObject = (value: object, depth: number, at: number): number => {
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype === Object.prototype || prototype === null) return writeFields(value, depth, at)
  if (prototype === Array.prototype && Array.isArray(value)) return writeArray(value, depth, at)
  if (ArrayBuffer.isView(value) && value instanceof Uint8Array) return writeBytes(value, at)
  if (prototype === Date.prototype) return writeDate(value, depth, at)
  throw refusal(
    depth,
    `${nameOf(prototype)} is not a value: use plain objects, arrays, Date, Uint8Array and primitives`
  )
}

const nameOf = (prototype: unknown): string => {
  const made: unknown = Object.getOwnPropertyDescriptor(prototype, "constructor")?.value
  return typeof made === "function" && made.name !== "" ? `an instance of ${made.name}` : "an object with a prototype"
}

const writeBytes = (value: Uint8Array, at: number): number => {
  const length = value.length
  reserve(at, 5 + length)
  const from = writeLength(length, 0xc4, at)
  buffer.set(value, from)
  return from + length
}

const writeDate = (value: object, depth: number, at: number): number => {
  let millis: number
  try {
    millis = Date.prototype.getTime.call(value)
  } catch {
    throw refusal(depth, "an object that only inherits from Date is not a value")
  }
  if (Number.isNaN(millis)) throw refusal(depth, "an invalid Date is not a value")
  reserve(at, 15)
  const seconds = Math.floor(millis / 1000)
  buffer[at] = 0xc7
  buffer[at + 1] = 12
  buffer[at + 2] = 0xff
  view.setUint32(at + 3, (millis - seconds * 1000) * 1_000_000)
  view.setInt32(at + 7, Math.floor(seconds / 0x1_0000_0000))
  view.setUint32(at + 11, seconds >>> 0)
  return at + 15
}

// --- Arrays and objects -----------------------------------------------------------------------------------------------

const writeArray = (array: ReadonlyArray<unknown>, depth: number, at: number): number => {
  const length = array.length
  enter(length, depth)
  reserve(at, 5)
  const from = length < 16 ? writeByte(0x90 | length, at) : writeCount(length, 0xdc, at)
  if (Object.keys(array).length !== length || Object.getOwnPropertySymbols(array).length > 0) {
    throw irregular(array, depth)
  }
  let to = from
  for (let i = 0; i < length; i++) {
    path[depth] = i
    to = writeValue(array[i], depth + 1, to)
  }
  return to
}

const irregular = (array: ReadonlyArray<unknown>, depth: number): ValueNotSupported => {
  for (let i = 0; i < array.length; i++) {
    path[depth] = i
    if (!Object.hasOwn(array, i)) return refusal(depth + 1, "a hole in an array is not a value: use null")
  }
  return refusal(depth, "an array with properties beside its elements is not a value")
}

const writeFields = (object: object, depth: number, at: number): number => {
  const own = Object.getOwnPropertyNames(object)
  const count = own.length
  enter(count, depth)
  if (count > fieldsMax) throw refusal(depth, tooManyFields)
  if (Object.getOwnPropertySymbols(object).length > 0) {
    throw refusal(depth, "a field named by a symbol is not supported")
  }
  reserve(at, 5)
  let to = count < 16 ? writeByte(0x80 | count, at) : writeCount(count, 0xde, at)
  const { encoded, ends, names } = inCanonicalOrder(own)
  let from = 0
  for (let i = 0; i < count; i++) {
    const name = names[i]!
    path[depth] = name
    // By its descriptor, so that no getter runs.
    const property = Object.getOwnPropertyDescriptor(object, name)
    if (property === undefined || property.get !== undefined || property.set !== undefined) {
      throw refusal(depth + 1, ACCESSOR)
    }
    if (property.enumerable !== true) throw refusal(depth + 1, "a field that is not enumerable is not supported")
    if (encoded === undefined) {
      to = writeText(name, depth + 1, to)
    } else {
      const end = ends[i]!
      reserve(to, end - from)
      const target = buffer
      while (from < end) target[to++] = encoded[from++]!
    }
    to = writeValue(property.value, depth + 1, to)
  }
  return to
}

const ACCESSOR = "an accessor is not a value"

/** Checks the limits of one more array or object. */
const enter = (count: number, depth: number): void => {
  if (depth >= depthMax) throw tooDeepAt(depth)
  elements += count
  if (elements > elementsMax) throw refusal(depth, tooManyElements)
}

const writeCount = (count: number, tag: number, at: number): number => {
  if (count < 0x10000) {
    buffer[at] = tag
    view.setUint16(at + 1, count)
    return at + 3
  }
  buffer[at] = tag + 1
  view.setUint32(at + 1, count)
  return at + 5
}

// --- Refusals ---------------------------------------------------------------------------------------------------------

const refusal = (depth: number, reason: string): ValueNotSupported =>
  new ValueNotSupported({ path: pathText(depth), reason })

const tooDeepAt = (depth: number): ValueNotSupported => {
  const above = new Set<unknown>()
  let value: unknown = root
  for (let i = 0; i < depth; i++) {
    if (above.has(value)) return refusal(i, "it contains itself")
    above.add(value)
    value = Object.getOwnPropertyDescriptor(value as object, path[i]!)?.value
  }
  return above.has(value) ? refusal(depth, "it contains itself") : refusal(depthMax, tooDeep)
}

const PATH_NAME_LENGTH = 40
const simpleName = /^[A-Za-z_$][\w$]*$/

const pathText = (depth: number): string => {
  let text = "$"
  for (const part of path.slice(0, depth)) {
    if (typeof part === "number") {
      text += `[${part}]`
    } else {
      const name = part.length > PATH_NAME_LENGTH ? part.slice(0, PATH_NAME_LENGTH) + "…" : part
      text += simpleName.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`
    }
  }
  return text
}
