/**
 * Operations and records on the wire: many small tuples in one byte string of a message, as `Protocol`'s header specifies.
 *
 * They are nearly all of what travels, so they have a writer and a reader of their own. A reader that judges while it
 * reads needs neither a scan before nor guards behind it, and costs a fraction of the three. Every tuple has exactly one
 * form, and whatever else comes is refused. Whether a key is one that the grid takes is not asked here: an operation that it
 * refuses is refused by itself, not with the connection.
 */
import { deflate, inflate } from "#deflate"
import { MalformedMessage } from "../GridError.ts"
import { utf8IsValid, utf8Length, utf8Read, utf8Write } from "./utf8.ts"

/** An operation on the wire: sequence, key, row. */
export type OpTuple = readonly [sequence: number, key: string, row: Uint8Array]

/** A record on the wire: key, row. */
export type RecordTuple = readonly [key: string, row: Uint8Array]

const RECORD = 0x92
const OPERATION = 0x93
const UINT8 = 0xcc
const UINT16 = 0xcd
const UINT32 = 0xce
const FLOAT64 = 0xcb
const BIN8 = 0xc4
const BIN16 = 0xc5
const BIN32 = 0xc6
const FIXSTR = 0xa0
const STR8 = 0xd9
const STR16 = 0xda

// --- Writing ---

const sequenceBytes = (sequence: number): number =>
  sequence < 0x80 ? 1 : sequence < 0x100 ? 2 : sequence < 0x1_0000 ? 3 : sequence < 0x1_0000_0000 ? 5 : 9

const keyedBytes = (key: string, row: Uint8Array): number => {
  const length = utf8Length(key)
  // Keys are checked where they enter the grid.
  if (length < 0) throw new TypeError("a key with a lone surrogate cannot travel")
  return (length < 32 ? 1 : length < 0x100 ? 2 : 3) + length + binBytes(row.length)
}

/** Bytes of a byte string of so many bytes, its header included. */
export const binBytes = (length: number): number => (length < 0x100 ? 2 : length < 0x1_0000 ? 3 : 5) + length

const float = new DataView(new ArrayBuffer(8))

const writeSequence = (sequence: number, target: Uint8Array, offset: number): number => {
  let at = offset
  if (sequence < 0x80) target[at++] = sequence
  else if (sequence < 0x100) {
    target[at++] = UINT8
    target[at++] = sequence
  } else if (sequence < 0x1_0000) {
    target[at++] = UINT16
    target[at++] = sequence >>> 8
    target[at++] = sequence
  } else if (sequence < 0x1_0000_0000) {
    target[at++] = UINT32
    target[at++] = sequence >>> 24
    target[at++] = sequence >>> 16
    target[at++] = sequence >>> 8
    target[at++] = sequence
  } else {
    target[at++] = FLOAT64
    float.setFloat64(0, sequence)
    for (let i = 0; i < 8; i++) target[at++] = float.getUint8(i)
  }
  return at
}

/** Writes the shortest header of a byte string, and answers where its content begins. */
export const writeBinHeader = (length: number, target: Uint8Array, offset: number): number => {
  let at = offset
  if (length < 0x100) target[at++] = BIN8
  else if (length < 0x1_0000) {
    target[at++] = BIN16
    target[at++] = length >>> 8
  } else {
    target[at++] = BIN32
    target[at++] = length >>> 24
    target[at++] = length >>> 16
    target[at++] = length >>> 8
  }
  target[at++] = length
  return at
}

const writeKeyed = (key: string, row: Uint8Array, target: Uint8Array, offset: number): number => {
  let at = offset + 1
  let units = 0
  // Most keys are short and ASCII: their header is known only behind them, and one byte wide.
  for (const most = Math.min(key.length, 31); units < most; units++) {
    const unit = key.charCodeAt(units)
    if (unit >= 0x80) break
    target[at++] = unit
  }
  if (units === key.length) target[offset] = FIXSTR | units
  else {
    const length = utf8Length(key)
    at = offset
    if (length < 32) target[at++] = FIXSTR | length
    else {
      target[at++] = length < 0x100 ? STR8 : STR16
      if (length >= 0x100) target[at++] = length >>> 8
      target[at++] = length
    }
    at += utf8Write(key, target, at)
  }
  at = writeBinHeader(row.length, target, at)
  target.set(row, at)
  return at + row.length
}

// --- Reading ---

const CUT_SHORT = "cut short"
const NOT_SHORTEST = "a length or number in more bytes than it needs"

const refuse = (reason: string): never => {
  throw new MalformedMessage({ reason: `not operations or records: ${reason}` }, { disableValidation: true })
}

const readFloat = (bytes: Uint8Array, at: number): number => {
  for (let i = 0; i < 8; i++) float.setUint8(i, bytes[at + i]!)
  return float.getFloat64(0)
}

/**
 * The one pass over operations and over records, which differ in a number: two loops would be the same loop twice. Rows
 * are views of `bytes`, not copies.
 */
const read = (bytes: Uint8Array, countMax: number, form: typeof OPERATION | typeof RECORD): Array<unknown> => {
  const { buffer, byteOffset, length: end } = bytes
  const tuples: Array<unknown> = []
  let at = 0
  while (at < end) {
    if (tuples.length === countMax) return refuse("too many of them")
    if (bytes[at++] !== form) return refuse("a tuple of another form")

    let sequence = 0
    if (form === OPERATION) {
      if (at === end) return refuse(CUT_SHORT)
      sequence = bytes[at++]!
      if (sequence >= 0x80) {
        const tag = sequence
        switch (tag) {
          case UINT8:
            if (end - at < 1) return refuse(CUT_SHORT)
            sequence = bytes[at]!
            if (sequence < 0x80) return refuse(NOT_SHORTEST)
            at += 1
            break
          case UINT16:
            if (end - at < 2) return refuse(CUT_SHORT)
            sequence = bytes[at]! << 8 | bytes[at + 1]!
            if (sequence < 0x100) return refuse(NOT_SHORTEST)
            at += 2
            break
          case UINT32:
            if (end - at < 4) return refuse(CUT_SHORT)
            sequence = (bytes[at]! << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!) >>> 0
            if (sequence < 0x1_0000) return refuse(NOT_SHORTEST)
            at += 4
            break
          case FLOAT64:
            if (end - at < 8) return refuse(CUT_SHORT)
            sequence = readFloat(bytes, at)
            if (!Number.isSafeInteger(sequence) || sequence < 0x1_0000_0000) return refuse("a sequence that is none")
            at += 8
            break
          default:
            return refuse("a sequence that is none")
        }
      }
    }

    if (at === end) return refuse(CUT_SHORT)
    const keyTag = bytes[at++]!
    let keyLength = keyTag & 31
    if ((keyTag & 0xe0) !== FIXSTR) {
      if (keyTag === STR8) {
        if (end - at < 1) return refuse(CUT_SHORT)
        keyLength = bytes[at]!
        if (keyLength < 32) return refuse(NOT_SHORTEST)
        at += 1
      } else if (keyTag === STR16) {
        if (end - at < 2) return refuse(CUT_SHORT)
        keyLength = bytes[at]! << 8 | bytes[at + 1]!
        if (keyLength < 0x100) return refuse(NOT_SHORTEST)
        at += 2
      } else return refuse("a key that is no string, or too long")
    }
    const keyEnd = at + keyLength
    if (keyEnd >= end) return refuse(CUT_SHORT)
    if (!utf8IsValid(bytes, at, keyEnd)) return refuse("a key that is not UTF-8")
    const key = utf8Read(bytes, at, keyEnd)
    at = keyEnd

    const rowTag = bytes[at++]!
    let rowLength = 0
    if (rowTag === BIN8) {
      if (end - at < 1) return refuse(CUT_SHORT)
      rowLength = bytes[at]!
      at += 1
    } else if (rowTag === BIN16) {
      if (end - at < 2) return refuse(CUT_SHORT)
      rowLength = bytes[at]! << 8 | bytes[at + 1]!
      if (rowLength < 0x100) return refuse(NOT_SHORTEST)
      at += 2
    } else if (rowTag === BIN32) {
      if (end - at < 4) return refuse(CUT_SHORT)
      rowLength = (bytes[at]! << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!) >>> 0
      if (rowLength < 0x1_0000) return refuse(NOT_SHORTEST)
      at += 4
    } else return refuse("a row that is no byte string")
    if (rowLength > end - at) return refuse(CUT_SHORT)
    const row = new Uint8Array(buffer, byteOffset + at, rowLength)
    at += rowLength

    tuples.push(form === OPERATION ? [sequence, key, row] : [key, row])
  }
  return tuples
}

/** How tuples of one kind are written and read. */
export interface Form<A> {
  /** Bytes that `write` takes. */
  readonly bytes: (tuples: ReadonlyArray<A>) => number
  /** Writes at `offset`, where `bytes` have room. */
  readonly write: (tuples: ReadonlyArray<A>, target: Uint8Array, offset: number) => void
  /** What `bytes` hold, at most `countMax`: rows are views of them. @throws MalformedMessage */
  readonly read: (bytes: Uint8Array, countMax: number) => ReadonlyArray<A>
}

/** Tuples of operations. */
export const operations: Form<OpTuple> = {
  bytes: (ops) => {
    let bytes = ops.length
    for (const op of ops) bytes += sequenceBytes(op[0]) + keyedBytes(op[1], op[2])
    return bytes
  },
  write: (ops, target, offset) => {
    let at = offset
    for (const op of ops) {
      target[at++] = OPERATION
      at = writeKeyed(op[1], op[2], target, writeSequence(op[0], target, at))
    }
  },
  read: (bytes, countMax) => read(bytes, countMax, OPERATION) as Array<OpTuple>
}

/** Tuples of records. */
export const records: Form<RecordTuple> = {
  bytes: (tuples) => {
    let bytes = tuples.length
    for (const [key, row] of tuples) bytes += keyedBytes(key, row)
    return bytes
  },
  write: (tuples, target, offset) => {
    let at = offset
    for (const [key, row] of tuples) {
      target[at++] = RECORD
      at = writeKeyed(key, row, target, at)
    }
  },
  read: (bytes, countMax) => read(bytes, countMax, RECORD) as Array<RecordTuple>
}

// --- Deflating ---

/** Bytes of tuples from which on it pays to deflate them. */
const deflatedBytesMin = 2 * 1024
/** Bytes that a string of tuples may be inflated to, at most. */
const stringBytesMax = 1024 * 1024
/** How many times as many they may be as what was deflated: a peer's work is bounded by what it is sent. */
const ratioMax = 100

/** Tells deflated tuples from plain ones, which begin with their form. */
const DEFLATED = 0x01
const HEAD_BYTES = 5

/** Tuples of `length` bytes, deflated; `undefined` where that doesn't pay, or can't be. */
export const deflated = <A>(form: Form<A>, tuples: ReadonlyArray<A>, length: number): Uint8Array | undefined => {
  if (length < deflatedBytesMin || length > stringBytesMax) return undefined
  const plain = new Uint8Array(length)
  form.write(tuples, plain, 0)
  const content = deflate(plain)
  if (content === undefined || content.length > length * 0.9 || content.length * ratioMax < length) return undefined
  const bytes = new Uint8Array(HEAD_BYTES + content.length)
  bytes[0] = DEFLATED
  new DataView(bytes.buffer).setUint32(1, length)
  bytes.set(content, HEAD_BYTES)
  return bytes
}

/** What the strings of one frame may still come to. */
export interface Room {
  /** Tuples. */
  count: number
  /** Bytes that come of deflated ones. */
  inflatedBytes: number
}

const plainOf = (bytes: Uint8Array, room: Room): Uint8Array => {
  if (bytes[0] !== DEFLATED) return bytes
  if (bytes.length < HEAD_BYTES) return refuse(CUT_SHORT)
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(1)
  const content = bytes.subarray(HEAD_BYTES)
  room.inflatedBytes -= length
  if (length > stringBytesMax || length > content.length * ratioMax || room.inflatedBytes < 0) {
    return refuse("too many bytes when inflated")
  }
  let plain: Uint8Array
  try {
    plain = inflate(content, length)
  } catch (cause) {
    return refuse(`they can't be inflated: ${String(cause)}`)
  }
  return plain.length === length ? plain : refuse("another number of bytes than was said")
}

/** What a string of tuples holds, `countMax` at most, and no more than there is room for. @throws MalformedMessage */
export const unpack = <A>(form: Form<A>, bytes: Uint8Array, room: Room, countMax: number): ReadonlyArray<A> => {
  const tuples = form.read(plainOf(bytes, room), Math.min(room.count, countMax))
  room.count -= tuples.length
  return tuples
}
