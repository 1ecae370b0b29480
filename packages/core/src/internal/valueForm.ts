/** What writing, checking and reading a value share: its limits, and how its numbers are laid out. See `Value.ts`. */

/** Canonical bytes of one value, at most. */
export const valueBytesMax = 256 * 1024

/** Arrays and objects inside each other, at most; `[[]]` has two levels. */
export const depthMax = 64

/** Elements of arrays and fields of objects in one value, all levels together, at most: bounds what decoding can cost. */
export const elementsMax = 100_000

/**
 * Fields of one object, at most. Engines keep so many in a hash table that grows as it is filled, and they have to be put
 * in order: the largest object takes tens of milliseconds either way.
 */
export const fieldsMax = 32_768

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

// What both the writer and the checker say of a value beyond them.

export const tooDeep = `at most ${depthMax} arrays and objects may be inside each other`
export const tooManyElements = `a value has at most ${elementsMax} elements and fields`
export const tooManyFields = `an object has at most ${fieldsMax} fields`

// Numbers are big-endian. They are read without a DataView, of which every array of bytes would need its own.

export const uint16At = (bytes: Uint8Array, at: number): number => bytes[at]! << 8 | bytes[at + 1]!

export const int32At = (bytes: Uint8Array, at: number): number =>
  bytes[at]! << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!

export const uint32At = (bytes: Uint8Array, at: number): number => int32At(bytes, at) >>> 0

const eight = new DataView(new ArrayBuffer(8))

export const float64At = (bytes: Uint8Array, at: number): number => {
  eight.setInt32(0, int32At(bytes, at))
  eight.setInt32(4, int32At(bytes, at + 4))
  return eight.getFloat64(0)
}

/** The milliseconds of the timestamp 96 whose twelve bytes begin at `at`, or NaN when no Date has them. */
export const millisAt = (bytes: Uint8Array, at: number): number => {
  const nanos = uint32At(bytes, at)
  const seconds = int32At(bytes, at + 4) * 0x1_0000_0000 + uint32At(bytes, at + 8)
  const millis = seconds * 1000 + nanos / 1_000_000
  return nanos < 1_000_000_000 && nanos % 1_000_000 === 0 && Math.abs(millis) <= DATE_MILLIS_MAX ? millis : Number.NaN
}

/** ECMAScript's range of time values. */
const DATE_MILLIS_MAX = 8.64e15
