/**
 * Checks that bytes are one canonical value: one pass without recursion and without allocation. Every length is compared
 * with the bytes that are left before anything follows from it.
 */
import { utf8IsValid } from "./utf8.ts"
import {
  depthMax,
  elementsMax,
  fieldsMax,
  float64At,
  int32At,
  millisAt,
  tooDeep,
  tooManyElements,
  tooManyFields,
  uint16At,
  uint32At
} from "./valueForm.ts"

const cutShort = "cut short"
const notShortest = "a form that is not the shortest"

/** In place of a position or a length: what is wrong, negated, as an index of {@link faults}. */
const CUT_SHORT = -1
const NOT_SHORTEST = -2
const NOT_UTF8 = -3
const NOT_TEXT = -4
const faults = ["", cutShort, notShortest, "text that is not UTF-8", "a field's name is not a string"]

/** What each open array or object still expects; a field's name and value count as one. */
const expected = new Int32Array(depthMax + 1)
/** Where the previous name in each open object begins and ends; begin is -1 before the first, and -2 in an array. */
const nameStart = new Int32Array(depthMax + 1)
const nameEnd = new Int32Array(depthMax + 1)
const NO_NAME_YET = -1
const NO_NAMES = -2

/** What is wrong with the bytes in [start, end), which ought to be one canonical value; "" for nothing. */
export const faultOf = (bytes: Uint8Array, start: number, end: number): string => {
  if (!(start >= 0 && end <= bytes.length)) return "a range beyond the bytes"
  let at = start
  let depth = 0
  let total = 0
  let left = 1
  let named = NO_NAMES
  let namedEnd = 0
  for (;;) {
    while (left === 0) {
      if (depth === 0) return at === end ? "" : "bytes after the value"
      depth--
      left = expected[depth]!
      named = nameStart[depth]!
      namedEnd = nameEnd[depth]!
    }
    left--

    if (named !== NO_NAMES) {
      const after = textEnd(bytes, at, end)
      if (after < 0) return faults[-after]!
      const from = textStart(bytes, at)
      if (named !== NO_NAME_YET && !isAscending(bytes, named, namedEnd, from, after)) {
        return "fields out of order or twice"
      }
      named = from
      namedEnd = after
      at = after
    }

    if (at >= end) return cutShort
    const tag = bytes[at]!
    // Positive and negative fixint, null and the booleans.
    if (tag < 0x80 || tag >= 0xe0 || tag === 0xc0 || tag === 0xc2 || tag === 0xc3) {
      at++
      continue
    }
    if ((tag & 0xe0) === 0xa0 || (tag >= 0xd9 && tag <= 0xdb)) {
      at = textEnd(bytes, at, end)
      if (at < 0) return faults[-at]!
      continue
    }

    let count = -1
    let isObject = false
    switch (tag) {
      case 0xc4:
        at = contentEnd(bytes, at + 1, 1, end, 0)
        if (at < 0) return faults[-at]!
        break
      case 0xc5:
        at = contentEnd(bytes, at + 1, 2, end, 0x100)
        if (at < 0) return faults[-at]!
        break
      case 0xc6:
        at = contentEnd(bytes, at + 1, 4, end, 0x10000)
        if (at < 0) return faults[-at]!
        break
      case 0xcc:
        if (at + 2 > end) return cutShort
        if (bytes[at + 1]! < 0x80) return notShortest
        at += 2
        break
      case 0xcd:
        if (at + 3 > end) return cutShort
        if (uint16At(bytes, at + 1) < 0x100) return notShortest
        at += 3
        break
      case 0xce:
        if (at + 5 > end) return cutShort
        if (uint32At(bytes, at + 1) < 0x10000) return notShortest
        at += 5
        break
      case 0xd0: {
        if (at + 2 > end) return cutShort
        const byte = bytes[at + 1]!
        if (byte < 0x80 || byte >= 0xe0) return notShortest
        at += 2
        break
      }
      case 0xd1:
        if (at + 3 > end) return cutShort
        if ((uint16At(bytes, at + 1) << 16) >= -0x80 << 16) return notShortest
        at += 3
        break
      case 0xd2:
        if (at + 5 > end) return cutShort
        if (int32At(bytes, at + 1) >= -0x8000) return notShortest
        at += 5
        break
      case 0xcb: {
        if (at + 9 > end) return cutShort
        const value = float64At(bytes, at + 1)
        if (!Number.isFinite(value)) return "a number that is not finite"
        if ((value >>> 0 === value || (value | 0) === value) && !Object.is(value, -0)) return notShortest
        at += 9
        break
      }
      case 0xcf:
        if (at + 9 > end) return cutShort
        at += 9
        break
      case 0xd3:
        if (at + 9 > end) return cutShort
        if (bytes[at + 1]! < 0x80) return "a bigint that is not negative in the signed form"
        at += 9
        break
      case 0xc7:
        if (at + 15 > end) return cutShort
        if (bytes[at + 1] !== 12 || bytes[at + 2] !== 0xff) return "an extension other than a timestamp"
        if (Number.isNaN(millisAt(bytes, at + 3))) return "a timestamp out of range or finer than a millisecond"
        at += 15
        break
      case 0xdc:
        if (at + 3 > end) return cutShort
        count = uint16At(bytes, at + 1)
        if (count < 16) return notShortest
        at += 3
        break
      case 0xdd:
        if (at + 5 > end) return cutShort
        count = uint32At(bytes, at + 1)
        if (count < 0x10000) return notShortest
        at += 5
        break
      case 0xde:
        if (at + 3 > end) return cutShort
        count = uint16At(bytes, at + 1)
        if (count < 16) return notShortest
        isObject = true
        at += 3
        break
      case 0xdf:
        return tooManyFields
      default:
        if (tag >= 0xa0) return `a byte with no meaning here (0x${tag.toString(16)})`
        count = tag & 15
        isObject = tag < 0x90
        at++
    }
    if (count < 0) continue

    if (count * (isObject ? 2 : 1) > end - at) return cutShort
    if (isObject && count > fieldsMax) return tooManyFields
    total += count
    if (total > elementsMax) return tooManyElements
    expected[depth] = left
    nameStart[depth] = named
    nameEnd[depth] = namedEnd
    depth++
    if (depth > depthMax) return tooDeep
    left = count
    named = isObject ? NO_NAME_YET : NO_NAMES
  }
}

/** Where the text ends whose header is at `at`, all of it within `end` and in UTF-8, or a fault. */
const textEnd = (bytes: Uint8Array, at: number, end: number): number => {
  if (at >= end) return CUT_SHORT
  const tag = bytes[at]!
  let from: number
  let to: number
  if ((tag & 0xe0) === 0xa0) {
    from = at + 1
    to = from + (tag & 31)
    if (to > end) return CUT_SHORT
  } else {
    to = longTextEnd(bytes, tag, at + 1, end)
    if (to < 0) return to
    from = textStart(bytes, at)
  }
  // Is it ASCII? Four bytes at a time, the last four of which may overlap those before.
  let bits = 0
  if (to - from < 4) {
    for (let i = from; i < to; i++) bits |= bytes[i]!
  } else {
    for (let i = from; i < to - 4; i += 4) bits |= bytes[i]! | bytes[i + 1]! | bytes[i + 2]! | bytes[i + 3]!
    bits |= bytes[to - 4]! | bytes[to - 3]! | bytes[to - 2]! | bytes[to - 1]!
  }
  return bits < 0x80 || utf8IsValid(bytes, from, to) ? to : NOT_UTF8
}

const longTextEnd = (bytes: Uint8Array, tag: number, at: number, end: number): number => {
  switch (tag) {
    case 0xd9:
      return contentEnd(bytes, at, 1, end, 32)
    case 0xda:
      return contentEnd(bytes, at, 2, end, 0x100)
    case 0xdb:
      return contentEnd(bytes, at, 4, end, 0x10000)
    default:
      return NOT_TEXT
  }
}

/** Where the content ends behind a length at `at` that takes 1, 2 or 4 bytes and must need them, or a fault. */
const contentEnd = (bytes: Uint8Array, at: number, width: number, end: number, least: number): number => {
  const from = at + width
  if (from > end) return CUT_SHORT
  const length = width === 1 ? bytes[at]! : width === 2 ? uint16At(bytes, at) : uint32At(bytes, at)
  return length < least ? NOT_SHORTEST : length > end - from ? CUT_SHORT : from + length
}

/** Where the content begins of a text whose header is at `at`. */
const textStart = (bytes: Uint8Array, at: number): number => {
  const tag = bytes[at]!
  return at + (tag < 0xc0 ? 1 : tag === 0xd9 ? 2 : tag === 0xda ? 3 : 5)
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
