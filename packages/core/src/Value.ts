/**
 * The canonical value codec: what a grid can store, and the one sequence of bytes for each value.
 *
 * Equal values have equal bytes, whatever the order of their fields, on every client and server; and what was accepted
 * comes back as it was. Whatever has no such form is refused when it is written, with its path.
 *
 * **Format.** A strict subset of MessagePack, which any decoder of it can read. Of the forms that MessagePack offers for
 * a value exactly one is canonical:
 *
 * | value | form |
 * |---|---|
 * | null, booleans | `c0`, `c2`, `c3` |
 * | integers in [-2^31, 2^32) | the shortest of fixint, `cc cd ce` (not negative), `d0 d1 d2` (negative) |
 * | all other finite numbers, and -0 | float64, `cb` |
 * | bigint in [0, 2^64), in [-2^63, 0) | `cf`, `d3`: always 8 bytes, which numbers never use, so the two stay apart |
 * | string without lone surrogates | the shortest of fixstr, `d9 da db`, in well-formed UTF-8 |
 * | Uint8Array | the shortest of `c4 c5 c6` |
 * | valid Date | timestamp 96 (`c7 0c ff`), in whole milliseconds |
 * | array without holes | the shortest of fixarray, `dc dd` |
 * | plain object | the shortest of fixmap, `de df`; fields in the bytewise order of their UTF-8 names, each name once |
 *
 * An object is plain when its prototype is `Object.prototype` or null and it has only enumerable data properties named
 * by strings. Every name is allowed and is only a name: `__proto__` makes a property, never a prototype.
 *
 * **Limits.** {@link depthMax} levels of arrays and objects, {@link elementsMax} elements and fields in one value, and
 * for encoded values {@link valueBytesMax}. Bytes are checked in full before the first object is made of them.
 */
import { MalformedMessage, RecordTooLarge, ValueNotSupported } from "./GridError.ts"
import { utf8IsValid, utf8Length, utf8Read, utf8Write } from "./internal/utf8.ts"

/** Canonical bytes of one value, at most. */
export const valueBytesMax = 256 * 1024

/** UTF-8 bytes of one key, at most. */
export const keyBytesMax = 1024

/** Arrays and objects inside each other, at most; `[[]]` has two levels. */
export const depthMax = 64

/** Elements of arrays and fields of objects in one value, all levels together, at most: bounds what decoding can cost. */
export const elementsMax = 100_000

/** What a grid can store. A subclass of Uint8Array, such as Node's Buffer, is stored as its bytes. */
export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Date
  | ReadonlyArray<Value>
  | { readonly [field: string]: Value }

// --- Encoding -------------------------------------------------------------------------------------------------------
// One synchronous pass into a shared buffer. Its state is in variables of the module, so that nothing is allocated for it;
// it is saved and restored around each encoding, since a Proxy among the values may call back in.

const BUFFER_BYTES = 4096
/** A buffer that grew beyond this is not kept. */
const BUFFER_KEPT_BYTES = 2 * valueBytesMax
/** The most that a header asks for beyond the content. */
const HEADER_SLACK = 16

let buffer = new Uint8Array(BUFFER_BYTES)
let view = new DataView(buffer.buffer)
let start = 0
let at = 0
let limit = valueBytesMax
let elements = 0
let root: unknown
/** The field names and indexes that lead from the root to the value at hand; only the first `depth` count. */
const path: Array<string | number> = []

/**
 * The canonical bytes of a value, in an array of their own.
 *
 * @throws ValueNotSupported for what has no canonical form, with its path, as in `$.a[3].b`.
 * @throws RecordTooLarge beyond `limitBytes`; its `bytes` are those needed till then, so that the work is bounded too.
 */
export const encode = (value: unknown, limitBytes: number = valueBytesMax): Uint8Array =>
  encodeTransient(value, limitBytes).slice()

/**
 * As {@link encode}, but the bytes are a view of the codec's own buffer, which the next encoding overwrites: for callers
 * that copy them to their place at once. In V8 an array of their own costs about as much as the encoding itself, 0.8 µs
 * for 200 bytes.
 */
export const encodeTransient = (value: unknown, limitBytes: number = valueBytesMax): Uint8Array => {
  const outerStart = start
  const outerAt = at
  const outerLimit = limit
  const outerElements = elements
  const outerRoot = root
  start = at
  limit = limitBytes
  elements = 0
  root = value
  try {
    writeValue(value, 0)
    if (at - start > limit) throw tooLarge(at - start)
    return buffer.subarray(start, at)
  } finally {
    start = outerStart
    at = outerAt
    limit = outerLimit
    elements = outerElements
    root = outerRoot
    if (at === 0 && buffer.length > BUFFER_KEPT_BYTES) {
      buffer = new Uint8Array(BUFFER_BYTES)
      view = new DataView(buffer.buffer)
    }
  }
}

/** Makes room for `bytes`, of which at most {@link HEADER_SLACK} may stay unused. */
const reserve = (bytes: number): void => {
  if (at + bytes > buffer.length) grow(bytes)
}

const grow = (bytes: number): void => {
  const needed = at - start + bytes - HEADER_SLACK
  if (needed > limit) throw tooLarge(needed)
  let length = buffer.length * 2
  while (length < at + bytes) length *= 2
  const grown = new Uint8Array(length)
  grown.set(buffer)
  buffer = grown
  view = new DataView(grown.buffer)
}

const tooLarge = (bytes: number): RecordTooLarge => new RecordTooLarge({ what: "value", bytes, limit })

const writeValue = (value: unknown, depth: number): void => {
  switch (typeof value) {
    case "string":
      return writeText(value, depth)
    case "number":
      return writeNumber(value, depth)
    case "boolean":
      reserve(1)
      buffer[at++] = value ? 0xc3 : 0xc2
      return
    case "object":
      if (value === null) {
        reserve(1)
        buffer[at++] = 0xc0
        return
      }
      return writeObject(value, depth)
    case "bigint":
      return writeBigInt(value, depth)
    case "undefined":
      throw refusal(depth, "undefined is not a value: leave the field out, or use null")
    default:
      throw refusal(depth, `a ${typeof value} is not a value`)
  }
}

const writeText = (text: string, depth: number): void => {
  const length = text.length
  reserve(5 + length)
  // Most text is ASCII: written as such in one pass, and anew when it turns out otherwise.
  if (writeAscii(text, at + headerBytes(length))) {
    writeTextHeader(length)
    at += length
    return
  }
  const bytes = utf8Length(text)
  if (bytes < 0) throw refusal(depth, "text with a lone surrogate has no UTF-8 form")
  reserve(5 + bytes)
  writeTextHeader(bytes)
  at += utf8Write(text, buffer, at)
}

/** Above this length the native encoder, with its fixed cost per call, is the faster one. */
const SHORT_TEXT_LENGTH = 128
const encoder = new TextEncoder()

/** Writes a text byte by byte at `to`, where there is room, and answers whether it is ASCII. */
const writeAscii = (text: string, to: number): boolean => {
  const length = text.length
  if (length > SHORT_TEXT_LENGTH) {
    const { read, written } = encoder.encodeInto(text, buffer.subarray(to, to + length))
    return read === length && written === length
  }
  const target = buffer
  for (let i = 0; i < length; i++) {
    const unit = text.charCodeAt(i)
    if (unit >= 0x80) return false
    target[to + i] = unit
  }
  return true
}

/** The bytes before a text of `length` bytes. */
const headerBytes = (length: number): number => length < 32 ? 1 : length < 0x100 ? 2 : length < 0x10000 ? 3 : 5

const writeTextHeader = (length: number): void => {
  if (length < 32) buffer[at++] = 0xa0 | length
  else writeLength(length, 0xd9)
}

/** A length of one, two or four bytes behind the first, second or third of three successive tags. */
const writeLength = (length: number, tag: number): void => {
  if (length < 0x100) {
    buffer[at] = tag
    buffer[at + 1] = length
    at += 2
  } else if (length < 0x10000) {
    buffer[at] = tag + 1
    view.setUint16(at + 1, length)
    at += 3
  } else {
    buffer[at] = tag + 2
    view.setUint32(at + 1, length)
    at += 5
  }
}

const writeNumber = (value: number, depth: number): void => {
  reserve(9)
  if (value >= 0 && value <= 0xffffffff && value >>> 0 === value && !Object.is(value, -0)) {
    if (value < 0x80) buffer[at++] = value
    else writeLength(value, 0xcc)
  } else if (value < 0 && value >= -0x80000000 && (value | 0) === value) {
    if (value >= -32) {
      buffer[at++] = value
    } else if (value >= -0x80) {
      buffer[at] = 0xd0
      buffer[at + 1] = value
      at += 2
    } else if (value >= -0x8000) {
      buffer[at] = 0xd1
      view.setInt16(at + 1, value)
      at += 3
    } else {
      buffer[at] = 0xd2
      view.setInt32(at + 1, value)
      at += 5
    }
  } else {
    if (!Number.isFinite(value)) throw refusal(depth, `${value} is not a finite number`)
    buffer[at] = 0xcb
    view.setFloat64(at + 1, value)
    at += 9
  }
}

const writeBigInt = (value: bigint, depth: number): void => {
  reserve(9)
  if (value >= 0n ? value > 0xffff_ffff_ffff_ffffn : value < -0x8000_0000_0000_0000n) {
    throw refusal(depth, "a bigint must be in [-2^63, 2^64)")
  }
  buffer[at] = value < 0n ? 0xd3 : 0xcf
  view.setBigUint64(at + 1, BigInt.asUintN(64, value))
  at += 9
}

const writeObject = (value: object, depth: number): void => {
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype === Object.prototype || prototype === null) return writeFields(value, depth)
  if (prototype === Array.prototype && Array.isArray(value)) return writeArray(value, depth)
  if (ArrayBuffer.isView(value) && value instanceof Uint8Array) return writeBytes(value)
  if (prototype === Date.prototype) return writeDate(value, depth)
  throw refusal(
    depth,
    `${nameOf(prototype)} is not a value: use plain objects, arrays, Date, Uint8Array and primitives`
  )
}

const nameOf = (prototype: unknown): string => {
  const made: unknown = Object.getOwnPropertyDescriptor(prototype, "constructor")?.value
  return typeof made === "function" && made.name !== "" ? `an instance of ${made.name}` : "an object with a prototype"
}

const writeBytes = (value: Uint8Array): void => {
  const length = value.length
  reserve(5 + length)
  writeLength(length, 0xc4)
  buffer.set(value, at)
  at += length
}

const writeDate = (value: object, depth: number): void => {
  let millis: number
  try {
    millis = Date.prototype.getTime.call(value)
  } catch {
    throw refusal(depth, "an object that only inherits from Date is not a value")
  }
  if (Number.isNaN(millis)) throw refusal(depth, "an invalid Date is not a value")
  reserve(15)
  const seconds = Math.floor(millis / 1000)
  buffer[at] = 0xc7
  buffer[at + 1] = 12
  buffer[at + 2] = 0xff
  view.setUint32(at + 3, (millis - seconds * 1000) * 1_000_000)
  view.setInt32(at + 7, Math.floor(seconds / 0x1_0000_0000))
  view.setUint32(at + 11, seconds >>> 0)
  at += 15
}

const writeArray = (array: ReadonlyArray<unknown>, depth: number): void => {
  const length = array.length
  enter(length, depth)
  if (length < 16) buffer[at++] = 0x90 | length
  else writeLongHeader(length, 0xdc)
  if (Object.keys(array).length !== length || Object.getOwnPropertySymbols(array).length > 0) {
    for (let i = 0; i < length; i++) {
      path[depth] = i
      if (!Object.hasOwn(array, i)) throw refusal(depth + 1, "a hole in an array is not a value: use null")
    }
    throw refusal(depth, "an array with properties beside its elements is not a value")
  }
  for (let i = 0; i < length; i++) {
    path[depth] = i
    writeValue(array[i], depth + 1)
  }
}

const writeFields = (object: object, depth: number): void => {
  const own = Object.getOwnPropertyNames(object)
  const count = own.length
  enter(count, depth)
  if (Object.getOwnPropertySymbols(object).length > 0) {
    throw refusal(depth, "a field named by a symbol is not supported")
  }
  if (count < 16) buffer[at++] = 0x80 | count
  else writeLongHeader(count, 0xde)
  const names = inCanonicalOrder(own)
  for (let i = 0; i < count; i++) {
    const name = names[i]!
    path[depth] = name
    // By its descriptor, so that no getter runs.
    const property = Object.getOwnPropertyDescriptor(object, name)
    if (property === undefined || property.get !== undefined || property.set !== undefined) {
      throw refusal(depth + 1, "an accessor is not a value")
    }
    if (property.enumerable !== true) throw refusal(depth + 1, "a field that is not enumerable is not supported")
    writeText(name, depth + 1)
    writeValue(property.value, depth + 1)
  }
}

/** Checks the limits of one more array or object, and makes room for its header. */
const enter = (count: number, depth: number): void => {
  if (depth >= depthMax) throw tooDeep(depth)
  elements += count
  if (elements > elementsMax) throw refusal(depth, `a value has at most ${elementsMax} elements and fields`)
  reserve(5)
}

const writeLongHeader = (count: number, tag: number): void => {
  if (count < 0x10000) {
    buffer[at] = tag
    view.setUint16(at + 1, count)
    at += 3
  } else {
    buffer[at] = tag + 1
    view.setUint32(at + 1, count)
    at += 5
  }
}

const refusal = (depth: number, reason: string): ValueNotSupported =>
  new ValueNotSupported({ path: pathText(depth), reason })

const tooDeep = (depth: number): ValueNotSupported => {
  const above = new Set<unknown>()
  let value: unknown = root
  for (let i = 0; i < depth; i++) {
    if (above.has(value)) return refusal(i, "it contains itself")
    above.add(value)
    value = Reflect.get(value as object, path[i]!)
  }
  return refusal(above.has(value) ? depth : depthMax, above.has(value) ? "it contains itself" : TOO_DEEP)
}

const TOO_DEEP = `at most ${depthMax} arrays and objects may be inside each other`
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

// --- The order of fields --------------------------------------------------------------------------------------------
// Objects of one map have the same few shapes. A trie over the names, in the order in which objects hold them, remembers
// the canonical order of each shape seen twice; it is emptied when full.

interface Shape {
  /** The last name of the sequence that leads here. */
  readonly name: string
  /** The successor taken last; mostly the next one too. */
  recent: Shape | undefined
  successors: Map<string, Shape> | undefined
  ordered: ReadonlyArray<string> | undefined
  seen: boolean
}

/** Longer objects, and longer names, are sorted each time. */
const SHAPE_FIELDS_MAX = 32
const SHAPE_NAME_LENGTH_MAX = 64
/** Nodes, plus names in remembered orders. */
const SHAPE_COST_MAX = 8192

const makeShape = (name: string): Shape => ({
  name,
  recent: undefined,
  successors: undefined,
  ordered: undefined,
  seen: false
})

let shapes = makeShape("")
let shapesCost = 0

const inCanonicalOrder = (names: Array<string>): ReadonlyArray<string> => {
  if (names.length < 2) return names
  if (names.length > SHAPE_FIELDS_MAX) return names.sort(compareNames)
  let shape = shapes
  for (let i = 0; i < names.length; i++) {
    const name = names[i]!
    let next = shape.recent
    if (next === undefined || next.name !== name) {
      if (name.length > SHAPE_NAME_LENGTH_MAX) return names.sort(compareNames)
      next = shape.successors?.get(name) ?? addShape(shape, name)
      shape.recent = next
    }
    shape = next
  }
  if (shape.ordered !== undefined) return shape.ordered
  const ordered = names.sort(compareNames)
  if (shape.seen) {
    shape.ordered = ordered
    shapesCost += ordered.length
  }
  shape.seen = true
  if (shapesCost > SHAPE_COST_MAX) {
    shapes = makeShape("")
    shapesCost = 0
  }
  return ordered
}

const addShape = (to: Shape, name: string): Shape => {
  const shape = makeShape(name)
  to.successors ??= new Map()
  to.successors.set(name, shape)
  shapesCost++
  return shape
}

/** The bytewise order of UTF-8, which is that of code points: UTF-16's differs where surrogates meet U+E000 to U+FFFF. */
const compareNames = (a: string, b: string): number => {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i)
    const y = b.charCodeAt(i)
    if (x !== y) return x >= 0xd800 && y >= 0xd800 ? aboveBmp(x) - aboveBmp(y) : x - y
  }
  return a.length - b.length
}

const aboveBmp = (unit: number): number => unit < 0xe000 ? unit + 0x2800 : unit

// --- Checking -------------------------------------------------------------------------------------------------------
// One pass without recursion and without allocation. Every length is compared with the bytes that are left before
// anything follows from it.

const CUT_SHORT = -1
const NOT_SHORTEST = -2
const NOT_TEXT = -3

const lengthFaults = ["", "cut short", "a form that is not the shortest", "a field's name is not a string"]
const lengthFault = (code: number): string => lengthFaults[-code]!

/** What each open array or object still expects; a field's name and value count as one. */
const expected = new Int32Array(depthMax + 1)
/** Where the previous name in each open object begins and ends; begin is -1 before the first, and -2 in an array. */
const nameStart = new Int32Array(depthMax + 1)
const nameEnd = new Int32Array(depthMax + 1)
const NO_NAME_YET = -1
const NO_NAMES = -2

const eight = new Uint8Array(8)
const eightView = new DataView(eight.buffer)

const readFloat = (bytes: Uint8Array, from: number): number => {
  for (let i = 0; i < 8; i++) eight[i] = bytes[from + i]!
  return eightView.getFloat64(0)
}

const readUint16 = (bytes: Uint8Array, from: number): number => bytes[from]! << 8 | bytes[from + 1]!

const readInt32 = (bytes: Uint8Array, from: number): number =>
  bytes[from]! << 24 | bytes[from + 1]! << 16 | bytes[from + 2]! << 8 | bytes[from + 3]!

/** The content length behind a header whose length field takes 1, 2 or 4 bytes and must need them, or a fault's code. */
const shortestLength = (bytes: Uint8Array, from: number, width: number, end: number, least: number): number => {
  if (from + width > end) return CUT_SHORT
  const length = width === 1
    ? bytes[from]!
    : width === 2
    ? readUint16(bytes, from)
    : readInt32(bytes, from) >>> 0
  return length < least ? NOT_SHORTEST : length > end - from - width ? CUT_SHORT : length
}

/** The byte length of the text whose header begins at `from`, all of it within `end`, or a fault's code. */
const textLength = (bytes: Uint8Array, from: number, end: number): number => {
  const tag = bytes[from]!
  if ((tag & 0xe0) === 0xa0) return (tag & 31) > end - from - 1 ? CUT_SHORT : tag & 31
  switch (tag) {
    case 0xd9:
      return shortestLength(bytes, from + 1, 1, end, 32)
    case 0xda:
      return shortestLength(bytes, from + 1, 2, end, 0x100)
    case 0xdb:
      return shortestLength(bytes, from + 1, 4, end, 0x10000)
    default:
      return NOT_TEXT
  }
}

/** Whether the bytes in [aStart, aEnd) are lexicographically less than those in [bStart, bEnd). */
const isAscending = (bytes: Uint8Array, aStart: number, aEnd: number, bStart: number, bEnd: number): boolean => {
  const common = Math.min(aEnd - aStart, bEnd - bStart)
  for (let i = 0; i < common; i++) {
    const difference = bytes[aStart + i]! - bytes[bStart + i]!
    if (difference !== 0) return difference < 0
  }
  return aEnd - aStart < bEnd - bStart
}

/** What is wrong with bytes that ought to be one canonical value; "" for nothing. */
const faultOf = (bytes: Uint8Array): string => {
  const end = bytes.length
  let from = 0
  let depth = 0
  let total = 0
  let left = 1
  let named = NO_NAMES
  for (;;) {
    while (left === 0) {
      if (depth === 0) return from === end ? "" : "bytes after the value"
      depth--
      left = expected[depth]!
      named = nameStart[depth]!
    }
    left--

    if (named !== NO_NAMES) {
      if (from >= end) return lengthFault(CUT_SHORT)
      const length = textLength(bytes, from, end)
      if (length < 0) return lengthFault(length)
      const begin = from + headerBytes(length)
      from = begin + length
      if (!utf8IsValid(bytes, begin, from)) return "a field's name is not UTF-8"
      if (named !== NO_NAME_YET && !isAscending(bytes, named, nameEnd[depth]!, begin, from)) {
        return "fields out of order or twice"
      }
      named = begin
      nameEnd[depth] = from
    }

    if (from >= end) return lengthFault(CUT_SHORT)
    const tag = bytes[from]!
    // Positive and negative fixint, null and the booleans.
    if (tag < 0x80 || tag >= 0xe0 || tag === 0xc0 || tag === 0xc2 || tag === 0xc3) {
      from++
      continue
    }
    if ((tag >= 0xa0 && tag < 0xc0) || (tag >= 0xd9 && tag <= 0xdb)) {
      const length = textLength(bytes, from, end)
      if (length < 0) return lengthFault(length)
      const begin = from + headerBytes(length)
      from = begin + length
      if (!utf8IsValid(bytes, begin, from)) return "a string is not UTF-8"
      continue
    }

    let count = -1
    let isObject = false
    switch (tag) {
      case 0xc4:
      case 0xc5:
      case 0xc6: {
        const width = 1 << tag - 0xc4
        const length = shortestLength(bytes, from + 1, width, end, tag === 0xc4 ? 0 : tag === 0xc5 ? 0x100 : 0x10000)
        if (length < 0) return lengthFault(length)
        from += 1 + width + length
        break
      }
      case 0xcc:
        if (from + 2 > end) return lengthFault(CUT_SHORT)
        if (bytes[from + 1]! < 0x80) return lengthFault(NOT_SHORTEST)
        from += 2
        break
      case 0xcd:
        if (from + 3 > end) return lengthFault(CUT_SHORT)
        if (readUint16(bytes, from + 1) < 0x100) return lengthFault(NOT_SHORTEST)
        from += 3
        break
      case 0xce:
        if (from + 5 > end) return lengthFault(CUT_SHORT)
        if (readInt32(bytes, from + 1) >>> 0 < 0x10000) return lengthFault(NOT_SHORTEST)
        from += 5
        break
      case 0xd0: {
        if (from + 2 > end) return lengthFault(CUT_SHORT)
        const byte = bytes[from + 1]!
        if (byte < 0x80 || byte >= 0xe0) return lengthFault(NOT_SHORTEST)
        from += 2
        break
      }
      case 0xd1:
        if (from + 3 > end) return lengthFault(CUT_SHORT)
        if ((readUint16(bytes, from + 1) << 16) >= -0x80 << 16) return lengthFault(NOT_SHORTEST)
        from += 3
        break
      case 0xd2:
        if (from + 5 > end) return lengthFault(CUT_SHORT)
        if (readInt32(bytes, from + 1) >= -0x8000) return lengthFault(NOT_SHORTEST)
        from += 5
        break
      case 0xcb: {
        if (from + 9 > end) return lengthFault(CUT_SHORT)
        const value = readFloat(bytes, from + 1)
        if (!Number.isFinite(value)) return "a number that is not finite"
        if ((value >>> 0 === value || (value | 0) === value) && !Object.is(value, -0)) return lengthFault(NOT_SHORTEST)
        from += 9
        break
      }
      case 0xcf:
        if (from + 9 > end) return lengthFault(CUT_SHORT)
        from += 9
        break
      case 0xd3:
        if (from + 9 > end) return lengthFault(CUT_SHORT)
        if (bytes[from + 1]! < 0x80) return "a bigint that is not negative in the signed form"
        from += 9
        break
      case 0xc7:
        if (from + 15 > end) return lengthFault(CUT_SHORT)
        if (bytes[from + 1] !== 12 || bytes[from + 2] !== 0xff) return "an extension other than a timestamp"
        if (Number.isNaN(readMillis(bytes, from + 3))) return "a timestamp out of range or finer than a millisecond"
        from += 15
        break
      case 0xdc:
        if (from + 3 > end) return lengthFault(CUT_SHORT)
        count = readUint16(bytes, from + 1)
        if (count < 16) return lengthFault(NOT_SHORTEST)
        from += 3
        break
      case 0xdd:
        if (from + 5 > end) return lengthFault(CUT_SHORT)
        count = readInt32(bytes, from + 1) >>> 0
        if (count < 0x10000) return lengthFault(NOT_SHORTEST)
        from += 5
        break
      case 0xde:
        if (from + 3 > end) return lengthFault(CUT_SHORT)
        count = readUint16(bytes, from + 1)
        if (count < 16) return lengthFault(NOT_SHORTEST)
        isObject = true
        from += 3
        break
      case 0xdf:
        if (from + 5 > end) return lengthFault(CUT_SHORT)
        count = readInt32(bytes, from + 1) >>> 0
        if (count < 0x10000) return lengthFault(NOT_SHORTEST)
        isObject = true
        from += 5
        break
      default:
        if (tag >= 0xa0) return `a byte with no meaning here (0x${tag.toString(16)})`
        count = tag & 15
        isObject = tag < 0x90
        from++
    }
    if (count < 0) continue

    if (count * (isObject ? 2 : 1) > end - from) return lengthFault(CUT_SHORT)
    total += count
    if (total > elementsMax) return `more than ${elementsMax} elements and fields`
    expected[depth] = left
    nameStart[depth] = named
    depth++
    if (depth > depthMax) return TOO_DEEP
    left = count
    named = isObject ? NO_NAME_YET : NO_NAMES
  }
}

/** The milliseconds of a timestamp 96, or NaN when no Date has them. */
const readMillis = (bytes: Uint8Array, from: number): number => {
  const nanos = readInt32(bytes, from) >>> 0
  const seconds = readInt32(bytes, from + 4) * 0x1_0000_0000 + (readInt32(bytes, from + 8) >>> 0)
  const millis = seconds * 1000 + nanos / 1_000_000
  return nanos < 1_000_000_000 && nanos % 1_000_000 === 0 && Math.abs(millis) <= DATE_MILLIS_MAX ? millis : Number.NaN
}

/** ECMAScript's range of time values. */
const DATE_MILLIS_MAX = 8.64e15

/** Whether the bytes are one canonical value, which {@link decode} would accept. Allocates nothing. */
export const isCanonical = (bytes: Uint8Array): boolean => faultOf(bytes) === ""

/**
 * Refuses bytes that are not one canonical value.
 *
 * @throws MalformedMessage
 */
export const validate = (bytes: Uint8Array): void => {
  const fault = faultOf(bytes)
  if (fault !== "") throw new MalformedMessage({ reason: `not a canonical value: ${fault}` })
}

// --- Decoding -------------------------------------------------------------------------------------------------------
// After the check the bytes are known to be canonical, so that nothing here can fail or recurse too deep.

let cursor = 0

/**
 * The value of canonical bytes. Its arrays and objects are frozen at all levels. A Uint8Array is a copy, which like a
 * Date no freezing would keep from being changed: whoever changes it changes only what this call returned.
 *
 * @throws MalformedMessage for whatever {@link encode} would not have written.
 */
export const decode = (bytes: Uint8Array): Value => {
  validate(bytes)
  cursor = 0
  return readValue(bytes)
}

const readValue = (bytes: Uint8Array): Value => {
  const tag = bytes[cursor++]!
  if (tag < 0x80) return tag
  if (tag < 0x90) return readFields(bytes, tag & 15)
  if (tag < 0xa0) return readArray(bytes, tag & 15)
  if (tag < 0xc0) return readText(bytes, tag & 31)
  if (tag >= 0xe0) return tag - 0x100
  switch (tag) {
    case 0xc0:
      return null
    case 0xc2:
      return false
    case 0xc3:
      return true
    case 0xc4:
      return readBytes(bytes, take1(bytes))
    case 0xc5:
      return readBytes(bytes, take2(bytes))
    case 0xc6:
      return readBytes(bytes, take4(bytes))
    case 0xc7:
      cursor += 14
      return new Date(readMillis(bytes, cursor - 12))
    case 0xcb:
      cursor += 8
      return readFloat(bytes, cursor - 8)
    case 0xcc:
      return take1(bytes)
    case 0xcd:
      return take2(bytes)
    case 0xce:
      return take4(bytes)
    case 0xcf:
      return BigInt(take4(bytes)) << 32n | BigInt(take4(bytes))
    case 0xd0:
      return take1(bytes) << 24 >> 24
    case 0xd1:
      return take2(bytes) << 16 >> 16
    case 0xd2:
      return take4(bytes) | 0
    case 0xd3:
      return BigInt(take4(bytes) | 0) << 32n | BigInt(take4(bytes))
    case 0xd9:
      return readText(bytes, take1(bytes))
    case 0xda:
      return readText(bytes, take2(bytes))
    case 0xdb:
      return readText(bytes, take4(bytes))
    case 0xdc:
      return readArray(bytes, take2(bytes))
    case 0xdd:
      return readArray(bytes, take4(bytes))
    case 0xde:
      return readFields(bytes, take2(bytes))
    default:
      return readFields(bytes, take4(bytes))
  }
}

const take1 = (bytes: Uint8Array): number => bytes[cursor++]!

const take2 = (bytes: Uint8Array): number => {
  cursor += 2
  return readUint16(bytes, cursor - 2)
}

const take4 = (bytes: Uint8Array): number => {
  cursor += 4
  return readInt32(bytes, cursor - 4) >>> 0
}

const readText = (bytes: Uint8Array, length: number): string => {
  cursor += length
  return utf8Read(bytes, cursor - length, cursor)
}

const readBytes = (bytes: Uint8Array, length: number): Uint8Array => {
  cursor += length
  // Not `slice`, which in a Buffer shares the memory.
  return new Uint8Array(bytes.subarray(cursor - length, cursor))
}

const readArray = (bytes: Uint8Array, count: number): ReadonlyArray<Value> => {
  const array: Array<Value> = []
  for (let i = 0; i < count; i++) array.push(readValue(bytes))
  return Object.freeze(array)
}

const readFields = (bytes: Uint8Array, count: number): { readonly [field: string]: Value } => {
  const object: { [field: string]: Value } = {}
  for (let i = 0; i < count; i++) {
    const length = textLength(bytes, cursor, bytes.length)
    const begin = cursor + headerBytes(length)
    cursor = begin + length
    const known = knownName(bytes, begin, length)
    if (known !== undefined) {
      object[known] = readValue(bytes)
    } else {
      const name = utf8Read(bytes, begin, cursor)
      if (name in Object.prototype) {
        // Assignment would run the setter of `__proto__`, and fail where Object.prototype is frozen.
        const value = readValue(bytes)
        Object.defineProperty(object, name, { value, configurable: true, enumerable: true, writable: true })
      } else {
        rememberName(bytes, begin, length, name)
        object[name] = readValue(bytes)
      }
    }
  }
  return Object.freeze(object)
}

// Names repeat, and a string that the engine has seen as a name before is a far faster one: short ASCII names are looked
// up by their bytes. Each has one slot, which the next name of the same slot takes over.

const NAME_SLOTS = 1024
const NAME_LENGTH_MAX = 32
const names: Array<string> = Array.from({ length: NAME_SLOTS }, () => "")

const nameSlot = (bytes: Uint8Array, begin: number, length: number): number =>
  (length * 71 + bytes[begin]! * 53 + bytes[begin + (length >> 1)]! * 17 + bytes[begin + length - 1]! * 5) &
  NAME_SLOTS - 1

const knownName = (bytes: Uint8Array, begin: number, length: number): string | undefined => {
  if (length === 0 || length > NAME_LENGTH_MAX) return undefined
  const name = names[nameSlot(bytes, begin, length)]!
  if (name.length !== length) return undefined
  for (let i = 0; i < length; i++) if (name.charCodeAt(i) !== bytes[begin + i]) return undefined
  return name
}

const rememberName = (bytes: Uint8Array, begin: number, length: number, name: string): void => {
  // As many units as bytes: ASCII.
  if (name.length !== length || length === 0 || length > NAME_LENGTH_MAX) return
  names[nameSlot(bytes, begin, length)] = Object.keys({ [name]: 0 })[0]!
}

// --- Comparing ------------------------------------------------------------------------------------------------------

/** The lexicographic order of unsigned bytes, a prefix first, as SQLite and PostgreSQL order blobs: -1, 0 or 1. */
export const compareBytes = (a: Uint8Array, b: Uint8Array): number => {
  const common = Math.min(a.length, b.length)
  for (let i = 0; i < common; i++) {
    const difference = a[i]! - b[i]!
    if (difference !== 0) return difference < 0 ? -1 : 1
  }
  return a.length === b.length ? 0 : a.length < b.length ? -1 : 1
}

/**
 * Whether two values are one and the same to the grid: equal in canonical form.
 *
 * @throws ValueNotSupported or RecordTooLarge when one of them cannot be stored.
 */
export const equal = (a: unknown, b: unknown): boolean => compareBytes(encode(a), encodeTransient(b)) === 0

/**
 * Passes a key that a grid can store: well-formed text of at most {@link keyBytesMax} bytes, the empty one included.
 *
 * @throws ValueNotSupported or RecordTooLarge for any other.
 */
export const checkKey = (key: unknown): string => {
  if (typeof key !== "string") {
    throw new ValueNotSupported({ path: "key", reason: `a key is a string, not ${key === null ? "null" : typeof key}` })
  }
  // Text has at least as many bytes as units; a huge one isn't read at all.
  const bytes = key.length > keyBytesMax ? key.length : utf8Length(key)
  if (bytes < 0) throw new ValueNotSupported({ path: "key", reason: "text with a lone surrogate has no UTF-8 form" })
  if (bytes > keyBytesMax) throw new RecordTooLarge({ what: "key", bytes, limit: keyBytesMax })
  return key
}
