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
 * | plain object | the shortest of fixmap, `de`; fields in the bytewise order of their UTF-8 names, each name once |
 *
 * An object is plain when its prototype is `Object.prototype` or null and it has only enumerable data properties named
 * by strings. Every name is allowed and is only a name: `__proto__` makes a property, never a prototype.
 *
 * **Limits.** {@link depthMax} levels of arrays and objects, {@link fieldsMax} fields in one object, {@link elementsMax}
 * elements and fields in one value, and for encoded values {@link valueBytesMax}. Bytes are checked in full before the
 * first object is made of them.
 *
 * The writer, the checker and the reader are rooms of their own, in `internal`.
 */
import { MalformedMessage, RecordTooLarge, ValueNotSupported } from "./GridError.ts"
import { smallBytes } from "./internal/smallBytes.ts"
import { utf8Length } from "./internal/utf8.ts"
import { faultOf } from "./internal/valueChecker.ts"
import { type Value, valueBytesMax } from "./internal/valueForm.ts"
import { partReader, read } from "./internal/valueReader.ts"
import { write } from "./internal/valueWriter.ts"

export { depthMax, elementsMax, fieldsMax, type Value, valueBytesMax } from "./internal/valueForm.ts"

/** UTF-8 bytes of one key, at most. */
export const keyBytesMax = 1024

// --- Encoding -------------------------------------------------------------------------------------------------------

/**
 * The canonical bytes of a value, in an array of their own.
 *
 * @throws ValueNotSupported for what has no canonical form, with its path, as in `$.a[3].b`.
 * @throws RecordTooLarge beyond `limitBytes`; its `bytes` are those needed till then, so that the work is bounded too.
 */
export const encode = (value: unknown, limitBytes: number = valueBytesMax): Uint8Array =>
  write(value, limitBytes).slice()

/**
 * As {@link encode}, but the bytes are a view of the codec's own buffer, which the next encoding overwrites: for callers
 * that copy them to their place at once, and neither keep the view nor hand it on. In V8 an array of their own costs about
 * as much as the encoding itself, 0.8 µs for 200 bytes.
 */
export const encodeTransient = (value: unknown, limitBytes: number = valueBytesMax): Uint8Array =>
  write(value, limitBytes)

/** As {@link encode}, but the buffer may hold others too: for many small ones that are soon copied on. */
export const encodeShared = (value: unknown, limitBytes: number = valueBytesMax): Uint8Array => {
  const written = write(value, limitBytes)
  const bytes = smallBytes(written.length)
  bytes.set(written)
  return bytes
}

// --- Decoding -------------------------------------------------------------------------------------------------------
// All of these look at the bytes in [start, end) only, so that what lies in a larger buffer needs no view of its own.

/** Whether the bytes are one canonical value, which {@link decode} would accept. Allocates nothing. */
export const isCanonical = (bytes: Uint8Array, start: number = 0, end: number = bytes.length): boolean =>
  faultOf(bytes, start, end) === ""

/**
 * Refuses bytes that are not one canonical value.
 *
 * @throws MalformedMessage
 */
export const validate = (bytes: Uint8Array, start: number = 0, end: number = bytes.length): void => {
  const fault = faultOf(bytes, start, end)
  if (fault !== "") throw new MalformedMessage({ reason: `not a canonical value: ${fault}` })
}

/**
 * The value of canonical bytes. Its arrays and objects are frozen at all levels. A Uint8Array is a copy, which like a
 * Date no freezing would keep from being changed: whoever changes it changes only what this call returned.
 *
 * @throws MalformedMessage for whatever {@link encode} would not have written.
 */
export const decode = (bytes: Uint8Array, start: number = 0, end: number = bytes.length): Value => {
  validate(bytes, start, end)
  return read(bytes, start, end)
}

/**
 * As {@link decode}, but without the check: only for bytes that this process has encoded, or validated before, and that
 * nobody could change since. Of any others it may make any value, take any time, or fail in any way.
 *
 * @throws MalformedMessage when the value does not end at `end`: the range is not that of a value.
 */
export const decodeTrusted = (bytes: Uint8Array, start: number = 0, end: number = bytes.length): Value =>
  read(bytes, start, end)

/**
 * As {@link decodeTrusted}, of objects only the fields of these names: for looking at many values of which few are wanted whole. What it
 * makes isn't frozen.
 */
export const partDecoder = (
  fields: ReadonlySet<string>
): (bytes: Uint8Array, start?: number, end?: number) => Value => {
  const partOf = partReader(fields)
  return (bytes, start = 0, end = bytes.length) => partOf(bytes, start, end)
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
