/**
 * Judges a received frame before msgpackr may see it.
 *
 * A decoder believes a frame: it allocates what a header claims, recurses as deep as the bytes nest, makes live objects
 * of extensions whatever its options, renames `__proto__` and replaces broken text. This pass believes nothing. It runs
 * without recursion and without allocation, compares each claim with the bytes that are left, and lets through only
 * what a message may consist of: null, booleans, numbers, text, byte strings, arrays, and maps whose names are text and
 * occur once. Values travel inside byte strings, which it passes over: those are for `Value.validate`.
 */
import { MalformedMessage } from "../GridError.ts"
import { utf8IsValid } from "./utf8.ts"

/** What one frame may hold. */
export interface ScanLimits {
  /** Arrays and maps inside each other; not above {@link depthCapacity}. */
  readonly depthMax: number
  /** Elements of arrays and fields of maps, of all messages together. */
  readonly elementsMax: number
  /** Messages, one after the other. */
  readonly messagesMax: number
}

/** The deepest nesting that the scan can be asked to allow. */
export const depthCapacity = 32

/**
 * Fields of all maps that are open at once, at most: a name is compared with each before it in its map, and messages
 * have few. Without this bound, and that on their length, the search for repeated names would be quadratic.
 */
export const fieldsMax = 256

/** Bytes of a field's name, at most. */
export const nameBytesMax = 256

/** What each open array or map still expects. */
const expected = new Int32Array(depthCapacity + 1)
/** Where the names of each open map begin in the lists below; `NO_NAMES` in an array. */
const namesFrom = new Int32Array(depthCapacity + 1)
const NO_NAMES = -1

const nameHash = new Int32Array(fieldsMax)
const nameStart = new Int32Array(fieldsMax)
const nameLength = new Int32Array(fieldsMax)

const PROTO = Uint8Array.from("__proto__", (character) => character.charCodeAt(0))

/**
 * The number of messages in a frame, each one MessagePack value.
 *
 * @throws MalformedMessage for whatever a frame may not hold; nothing of it was decoded.
 */
export const scanFrame = (bytes: Uint8Array, limits: ScanLimits): number => {
  const end = bytes.length
  const depthMax = Math.min(limits.depthMax, depthCapacity)
  let at = 0
  let messages = 0
  let elements = 0
  let depth = 0
  let left = 0
  let from = NO_NAMES
  // How many names of open maps are listed.
  let names = 0

  for (;;) {
    while (left === 0) {
      if (depth === 0) {
        if (at === end) return messages > 0 ? messages : refuse("an empty frame")
        if (++messages > limits.messagesMax) return refuse(`more than ${limits.messagesMax} messages in a frame`)
        left = 1
        break
      }
      if (from !== NO_NAMES) names = from
      depth--
      left = expected[depth]!
      from = namesFrom[depth]!
    }
    left--

    if (from !== NO_NAMES) {
      const length = at < end ? textLength(bytes, at, end) : refuse(CUT_SHORT)
      const start = at + 1 + lengthWidth(bytes[at]!)
      at = start + length
      if (length > nameBytesMax) return refuse("a field's name is too long")
      if (!utf8IsValid(bytes, start, at)) return refuse("a field's name is not UTF-8")
      if (length === PROTO.length && areEqual(bytes, start, PROTO, 0, length)) return refuse("a field named __proto__")
      if (names === fieldsMax) return refuse(`more than ${fieldsMax} fields`)
      if (isRepeated(bytes, start, length, from, names)) return refuse("a field occurs twice")
      names++
    }

    if (at >= end) return refuse(CUT_SHORT)
    const tag = bytes[at]!
    let count = NOT_NESTED
    let isMap = false
    if (tag < 0x80 || tag >= 0xe0) {
      at++
    } else if (tag < 0xa0) {
      count = tag & 15
      isMap = tag < 0x90
      at++
    } else if (tag < 0xc0) {
      const length = textLength(bytes, at, end)
      if (!utf8IsValid(bytes, at + 1, at + 1 + length)) return refuse("a string is not UTF-8")
      at += 1 + length
    } else {
      switch (tag) {
        case 0xc0:
        case 0xc2:
        case 0xc3:
          at++
          break
        case 0xc4:
        case 0xc5:
        case 0xc6:
          at += 1 + lengthWidth(tag) + claimedLength(bytes, at, end)
          break
        case 0xca:
          at += 5
          break
        case 0xcb:
          at += 9
          break
        case 0xcc:
        case 0xd0:
          at += 2
          break
        case 0xcd:
        case 0xd1:
          at += 3
          break
        case 0xce:
        case 0xd2:
          at += 5
          break
        case 0xd9:
        case 0xda:
        case 0xdb: {
          const length = textLength(bytes, at, end)
          const start = at + 1 + lengthWidth(tag)
          if (!utf8IsValid(bytes, start, start + length)) return refuse("a string is not UTF-8")
          at = start + length
          break
        }
        case 0xdc:
        case 0xdd:
        case 0xde:
        case 0xdf:
          count = claimedLength(bytes, at, end)
          isMap = tag >= 0xde
          at += 1 + lengthWidth(tag)
          break
        case 0xcf:
        case 0xd3:
          // They would become BigInts; larger integers travel as float64.
          return refuse("a 64-bit integer")
        case 0xc1:
          return refuse("the byte 0xc1")
        default:
          return refuse("an extension")
      }
      if (at > end) return refuse(CUT_SHORT)
    }
    if (count === NOT_NESTED) continue

    if (count * (isMap ? 2 : 1) > end - at) return refuse(CUT_SHORT)
    elements += count
    if (elements > limits.elementsMax) return refuse(`more than ${limits.elementsMax} elements`)
    if (depth === depthMax) return refuse(`nested deeper than ${depthMax} levels`)
    expected[depth] = left
    namesFrom[depth] = from
    depth++
    left = count
    from = isMap ? names : NO_NAMES
  }
}

const NOT_NESTED = -1
const CUT_SHORT = "cut short"

const refuse = (reason: string): never => {
  // Unvalidated: its only field is made here.
  throw new MalformedMessage({ reason: `not a frame: ${reason}` }, { disableValidation: true })
}

/** How many bytes the length behind a tag takes; 0 where it is part of the tag. */
const lengthWidth = (tag: number): number => {
  switch (tag) {
    case 0xc4:
    case 0xd9:
      return 1
    case 0xc5:
    case 0xda:
    case 0xdc:
    case 0xde:
      return 2
    case 0xc6:
    case 0xdb:
    case 0xdd:
    case 0xdf:
      return 4
    default:
      return 0
  }
}

/** The number behind the tag at `at`, which claims that at least as many bytes follow: refused where they don't. */
const claimedLength = (bytes: Uint8Array, at: number, end: number): number => {
  const start = at + 1 + lengthWidth(bytes[at]!)
  if (start > end) return refuse(CUT_SHORT)
  let length = 0
  for (let i = at + 1; i < start; i++) length = length * 0x100 + bytes[i]!
  return length > end - start ? refuse(CUT_SHORT) : length
}

const textLength = (bytes: Uint8Array, at: number, end: number): number => {
  const tag = bytes[at]!
  if (tag >= 0xd9 && tag <= 0xdb) return claimedLength(bytes, at, end)
  if (tag < 0xa0 || tag >= 0xc0) return refuse("a field's name is not a string")
  return (tag & 31) > end - at - 1 ? refuse(CUT_SHORT) : tag & 31
}

const areEqual = (a: Uint8Array, aStart: number, b: Uint8Array, bStart: number, length: number): boolean => {
  for (let i = 0; i < length; i++) if (a[aStart + i] !== b[bStart + i]) return false
  return true
}

/** Whether a name is among those listed in [from, to) already; lists it at `to`. */
const isRepeated = (bytes: Uint8Array, start: number, length: number, from: number, to: number): boolean => {
  // FNV-1a, so that most names differ without a look at their bytes.
  let hash = 0x811c9dc5 | 0
  for (let i = start; i < start + length; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193)
  for (let i = from; i < to; i++) {
    if (nameHash[i] === hash && nameLength[i] === length && areEqual(bytes, nameStart[i]!, bytes, start, length)) {
      return true
    }
  }
  nameHash[to] = hash
  nameStart[to] = start
  nameLength[to] = length
  return false
}
