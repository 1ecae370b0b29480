/**
 * A record of a last-writer-wins map, as one row of bytes: the same bytes are the record's place in the order of
 * writes, its digest's input, its stored form and its form on the wire, so it is encoded once.
 *
 * | bytes | field |
 * |---|---|
 * | 0..5 | `millis`, big-endian |
 * | 6..7 | `counter`, big-endian |
 * | 8..23 | node id, ASCII |
 * | 24 | kind: 0x10 put, 0x11 put that expires, 0x20 delete |
 * | (25..30) | `expiresAt` in ms, big-endian, where the kind says so |
 * | rest | the value's canonical bytes (`Value`); none for a delete |
 *
 * **Rows order as bytes.** Of two records of one key the byte-wise greater row wins: the later stamp, at equal stamps
 * delete beats put, and put with an expiry beats one without, then the greater value bytes. SQLite and PostgreSQL
 * compare blobs in the same way, so a guarded upsert is `where excluded.row > row`.
 *
 * The kind is also the format's number: other kinds belong to newer formats (per-record schema versions and per-field
 * stamps will be kinds of their own) and are refused, never rewritten.
 */
import { MalformedMessage } from "./GridError.ts"
import { smallBytes } from "./internal/smallBytes.ts"
import * as Timestamp from "./Timestamp.ts"
import * as Value from "./Value.ts"

const PUT = 0x10
const PUT_EXPIRING = 0x11
const DELETE = 0x20
const KIND_AT = 24
const HEADER = 25
const HEADER_EXPIRING = 31

/** The bytes of a row that are its stamp. */
export const stampBytes = KIND_AT

/** One version of a key: immutable. Make it with {@link put}, {@link remove} or {@link decode}. */
export class LwwRecord {
  readonly millis: number
  readonly counter: number
  /** The whole record; see the table at the head of this file. Never written to. */
  readonly row: Uint8Array

  /** @internal */
  constructor(millis: number, counter: number, row: Uint8Array) {
    this.millis = millis
    this.counter = counter
    this.row = row
  }

  /** Who wrote it. */
  get nodeId(): string {
    return readNodeId(this.row)
  }

  /** When, by whom: its place in the order of writes. */
  get stamp(): Timestamp.Timestamp {
    return { millis: this.millis, counter: this.counter, nodeId: this.nodeId }
  }

  /** Whether the record says that the key is deleted. */
  get isTombstone(): boolean {
    return isTombstoneAt(this.row, 0)
  }

  /** When the value ceases to be, in ms; 0 for never. */
  get expiresAt(): number {
    return expiresAtAt(this.row, 0)
  }

  /** The value's canonical bytes; empty for a tombstone. */
  get valueBytes(): Uint8Array {
    return this.row.subarray(valueAt(this.row, 0))
  }
}

const readMillis = (row: Uint8Array, at: number): number =>
  (row[at]! * 256 + row[at + 1]!) * 0x1_0000_0000 +
  ((row[at + 2]! << 24 | row[at + 3]! << 16 | row[at + 4]! << 8 | row[at + 5]!) >>> 0)

const writeMillis = (row: Uint8Array, at: number, millis: number): void => {
  const high = Math.floor(millis / 0x1_0000_0000)
  const low = millis >>> 0
  row[at] = high >>> 8
  row[at + 1] = high
  row[at + 2] = low >>> 24
  row[at + 3] = low >>> 16
  row[at + 4] = low >>> 8
  row[at + 5] = low
}

const readNodeId = (row: Uint8Array): string => {
  let id = ""
  for (let at = 8; at < KIND_AT; at++) id += String.fromCharCode(row[at]!)
  return id
}

/** The bytes of a record that holds a value of so many canonical bytes. */
export const putBytes = (valueBytes: number, expiresAt: number): number =>
  (expiresAt === 0 ? HEADER : HEADER_EXPIRING) + valueBytes

const writeHeader = (
  target: Uint8Array,
  at: number,
  { counter, millis, nodeId }: Timestamp.Timestamp,
  kind: number
) => {
  writeMillis(target, at, millis)
  target[at + 6] = counter >>> 8
  target[at + 7] = counter
  for (let i = 0; i < Timestamp.nodeIdLength; i++) target[at + 8 + i] = nodeId.charCodeAt(i)
  target[at + KIND_AT] = kind
}

/** Writes the row of {@link put} where there is room for its {@link putBytes}. */
export const writePut = (
  target: Uint8Array,
  at: number,
  stamp: Timestamp.Timestamp,
  valueBytes: Uint8Array,
  expiresAt: number
): void => {
  writeHeader(target, at, stamp, expiresAt === 0 ? PUT : PUT_EXPIRING)
  if (expiresAt !== 0) writeMillis(target, at + HEADER, expiresAt)
  target.set(valueBytes, at + putBytes(0, expiresAt))
}

/** A record that holds a value, given as canonical bytes; `expiresAt` in ms, 0 for never. */
export const put = (stamp: Timestamp.Timestamp, valueBytes: Uint8Array, expiresAt = 0): LwwRecord => {
  const row = smallBytes(putBytes(valueBytes.length, expiresAt))
  writePut(row, 0, stamp, valueBytes, expiresAt)
  return new LwwRecord(stamp.millis, stamp.counter, row)
}

/** A record that deletes its key: a tombstone. */
export const remove = (stamp: Timestamp.Timestamp): LwwRecord => {
  const row = smallBytes(HEADER)
  writeHeader(row, 0, stamp, DELETE)
  return new LwwRecord(stamp.millis, stamp.counter, row)
}

// Of a row that begins at `start` of a larger buffer, for the maps that keep many in one.

/** Whether a row is a tombstone's. */
export const isTombstoneAt = (bytes: Uint8Array, start: number): boolean => bytes[start + KIND_AT] === DELETE

/** When a row's value ceases to be, in ms; 0 for never. */
export const expiresAtAt = (bytes: Uint8Array, start: number): number =>
  bytes[start + KIND_AT] === PUT_EXPIRING ? readMillis(bytes, start + HEADER) : 0

/** Where a row's value begins. */
export const valueAt = (bytes: Uint8Array, start: number): number =>
  start + (bytes[start + KIND_AT] === PUT_EXPIRING ? HEADER_EXPIRING : HEADER)

/** A record from bytes that this side wrote itself. The row is kept, not copied. */
export const fromTrusted = (row: Uint8Array): LwwRecord =>
  new LwwRecord(readMillis(row, 0), row[6]! << 8 | row[7]!, row)

/**
 * A record from foreign bytes: a well-formed stamp, a kind of this format, a canonical value within `valueBytesMax`.
 * The bytes are copied, so that a record doesn't keep the frame that it came in.
 *
 * @throws MalformedMessage
 */
// Not `slice`, which in a Buffer shares the memory.
export const decode = (row: Uint8Array): LwwRecord => decodeInPlace(new Uint8Array(row))

/** {@link decode} for what goes into a map at once: the bytes are not copied, as the map that keeps them does that. */
export const decodeInPlace = (row: Uint8Array): LwwRecord => {
  if (row.length < HEADER) throw new MalformedMessage({ reason: `a record has at least ${HEADER} bytes` })
  for (let at = 8; at < KIND_AT; at++) {
    const byte = row[at]!
    if (!(byte >= 0x30 && byte <= 0x39) && !(byte >= 0x61 && byte <= 0x7a)) {
      throw new MalformedMessage({ reason: "a node id has 16 characters of [0-9a-z]" })
    }
  }
  const kind = row[KIND_AT]
  if (kind === DELETE) {
    if (row.length !== HEADER) throw new MalformedMessage({ reason: "a tombstone has no value" })
  } else if (kind === PUT || kind === PUT_EXPIRING) {
    const header = kind === PUT ? HEADER : HEADER_EXPIRING
    if (kind === PUT_EXPIRING && row.length >= header && readMillis(row, HEADER) === 0) {
      throw new MalformedMessage({ reason: "a put that never expires has another kind" })
    }
    if (row.length <= header) throw new MalformedMessage({ reason: "a put has a value" })
    if (row.length - header > Value.valueBytesMax) throw new MalformedMessage({ reason: "the value is too large" })
    Value.validate(row, header)
  } else {
    throw new MalformedMessage({ reason: `record kind ${kind} is of a newer format: update this side` })
  }
  return fromTrusted(row)
}

/** Negative, zero or positive: which of two records of one key wins. A strict total order on the rows' bytes. */
export const compare = (a: LwwRecord, b: LwwRecord): number =>
  a.millis !== b.millis
    ? a.millis - b.millis
    : a.counter !== b.counter
    ? a.counter - b.counter
    : Value.compareBytes(a.row, b.row)
