/**
 * The counter that many nodes change at once (Shapiro, Preguiça, Baquero, Zawirski 2011, PN-Counter): each node has two
 * totals that only grow, what it has added and what it has taken away. The value is the sum of the ones less the others.
 *
 * A node's totals are one row of bytes, which is its stored form, its form on the wire and its digest's input:
 *
 * | bytes | field |
 * |---|---|
 * | 0..15 | node id, ASCII |
 * | 16 | kind: 0x30; other kinds belong to newer formats and are refused |
 * | 17..23 | increments, big-endian |
 * | 24..30 | decrements, big-endian |
 *
 * **Rows order as bytes.** A node alone changes its row, and neither total falls: its later row is the byte-wise greater
 * one, and of two rows of one node the greater wins. So databases merge as `where excluded.row > row`, and replicas agree
 * even on the rows of a node whose identity was copied, although one of the copies loses its changes then.
 *
 * **Limits.** Totals are safe integers. The value may leave these by the sum of many nodes' changes, which no replica can
 * foresee alone: therefore merging never refuses a row, but reading such a value does, and so does going further.
 */
import { CounterOverflow, MalformedMessage, ValueNotSupported } from "./GridError.ts"
import type { Hash64 } from "./internal/hash.ts"
import { hashBytes, hex } from "./internal/hash.ts"
import * as Timestamp from "./Timestamp.ts"
import * as Value from "./Value.ts"

const KIND = 0x30
const KIND_AT = Timestamp.nodeIdLength
const INCREMENTS_AT = KIND_AT + 1
const DECREMENTS_AT = INCREMENTS_AT + 7

/** The bytes of one row. */
export const rowBytes = DECREMENTS_AT + 7

/** The totals of one node: immutable. Make it with {@link totals}, {@link decode} or {@link fromTrusted}. */
export class CounterRow {
  readonly nodeId: string
  /** Everything that the node has added: a safe integer, 0 or more. */
  readonly increments: number
  /** Everything that the node has taken away: a safe integer, 0 or more. */
  readonly decrements: number
  /** The whole row; see the table at the head of this file. Never written to. */
  readonly row: Uint8Array

  /** @internal */
  constructor(nodeId: string, increments: number, decrements: number, row: Uint8Array) {
    this.nodeId = nodeId
    this.increments = increments
    this.decrements = decrements
    this.row = row
  }
}

const writeTotal = (row: Uint8Array, at: number, total: number): void => {
  let rest = total
  for (let i = at + 6; i >= at; i--) {
    row[i] = rest % 256
    rest = Math.floor(rest / 256)
  }
}

/** Up to 2^56: inexact beyond the safe integers, but never below them then. */
const readTotal = (row: Uint8Array, at: number): number => {
  let total = 0
  for (let i = at; i < at + 7; i++) total = total * 256 + row[i]!
  return total
}

/** The row of a node with these totals, both safe integers of 0 or more. */
export const totals = (nodeId: string, increments: number, decrements: number): CounterRow => {
  const row = new Uint8Array(rowBytes)
  for (let i = 0; i < KIND_AT; i++) row[i] = nodeId.charCodeAt(i)
  row[KIND_AT] = KIND
  writeTotal(row, INCREMENTS_AT, increments)
  writeTotal(row, DECREMENTS_AT, decrements)
  return new CounterRow(nodeId, increments, decrements, row)
}

/** A row from bytes that this side wrote itself. They are kept, not copied. */
export const fromTrusted = (row: Uint8Array): CounterRow => {
  let nodeId = ""
  for (let i = 0; i < KIND_AT; i++) nodeId += String.fromCharCode(row[i]!)
  return new CounterRow(nodeId, readTotal(row, INCREMENTS_AT), readTotal(row, DECREMENTS_AT), row)
}

/**
 * A row from foreign bytes, which are copied: of this format, with a well-formed node id and safe totals.
 *
 * @throws MalformedMessage
 */
export const decode = (row: Uint8Array): CounterRow => {
  if (row.length !== rowBytes) throw new MalformedMessage({ reason: `a counter's row has ${rowBytes} bytes` })
  // Not `slice`, which in a Buffer shares the memory.
  const read = fromTrusted(new Uint8Array(row))
  if (!Timestamp.isNodeId(read.nodeId)) {
    throw new MalformedMessage({ reason: "a node id has 16 characters of [0-9a-z]" })
  }
  if (row[KIND_AT] !== KIND) {
    throw new MalformedMessage({ reason: `counter kind ${row[KIND_AT]} is of a newer format: update this side` })
  }
  if (!Number.isSafeInteger(read.increments) || !Number.isSafeInteger(read.decrements)) {
    throw new MalformedMessage({ reason: "a counter's totals are safe integers" })
  }
  return read
}

/** Negative, zero or positive: which of two rows of one node wins. The order of the rows' bytes. */
export const compare = (a: CounterRow, b: CounterRow): number => Value.compareBytes(a.row, b.row)

/** The change of one node's row: the row before, where there was one, and the row now. */
export interface Change {
  readonly previous: CounterRow | undefined
  readonly row: CounterRow
}

const VALUE_MAX = BigInt(Number.MAX_SAFE_INTEGER)

/** A counter of one replica; see the head of this file. Changed in place, by one writer at a time. */
export class PnCounter {
  readonly #rows = new Map<string, CounterRow>()
  /** The exact value: a sum of many safe integers needn't be one. */
  #value = 0n

  /**
   * The value now, a safe integer; 0 when nothing was counted.
   *
   * @throws CounterOverflow when the nodes' changes together lead beyond the safe integers.
   */
  get value(): number {
    if (this.#value > VALUE_MAX || this.#value < -VALUE_MAX) throw new CounterOverflow({ what: "value" })
    return Number(this.#value)
  }

  /**
   * Adds `by`, a safe integer of 0 or more, in the name of a node, which is this replica's own. Answers the node's new
   * row, for storage and peers.
   *
   * @throws ValueNotSupported for another `by`, or a malformed node id.
   * @throws CounterOverflow when the node's increments or the value would go beyond the safe integers. Nothing was changed.
   */
  increment(nodeId: string, by = 1): CounterRow {
    checkArguments(nodeId, by)
    const known = this.#rows.get(nodeId)
    const increments = (known?.increments ?? 0) + by
    if (!Number.isSafeInteger(increments)) throw new CounterOverflow({ what: "increments" })
    if (this.#value + BigInt(by) > VALUE_MAX) throw new CounterOverflow({ what: "value" })
    const row = totals(nodeId, increments, known?.decrements ?? 0)
    this.merge(row)
    return row
  }

  /**
   * Takes `by`, a safe integer of 0 or more, away in the name of a node, which is this replica's own. Answers the node's
   * new row, for storage and peers.
   *
   * @throws ValueNotSupported for another `by`, or a malformed node id.
   * @throws CounterOverflow when the node's decrements or the value would go beyond the safe integers. Nothing was changed.
   */
  decrement(nodeId: string, by = 1): CounterRow {
    checkArguments(nodeId, by)
    const known = this.#rows.get(nodeId)
    const decrements = (known?.decrements ?? 0) + by
    if (!Number.isSafeInteger(decrements)) throw new CounterOverflow({ what: "decrements" })
    if (this.#value - BigInt(by) < -VALUE_MAX) throw new CounterOverflow({ what: "value" })
    const row = totals(nodeId, known?.increments ?? 0, decrements)
    this.merge(row)
    return row
  }

  /** Joins a node's row: from here, a peer or storage. Answers the change, or `undefined` where it lost or was known. */
  merge(row: CounterRow): Change | undefined {
    const previous = this.#rows.get(row.nodeId)
    if (previous !== undefined && compare(row, previous) <= 0) return undefined
    this.#rows.set(row.nodeId, row)
    this.#value += netOf(row) - (previous === undefined ? 0n : netOf(previous))
    return { previous, row }
  }

  /** The row of a node, where it has counted. */
  getRow(nodeId: string): CounterRow | undefined {
    return this.#rows.get(nodeId)
  }

  /** Every node's row, in the order of the node ids: the whole state. */
  rows(): Array<CounterRow> {
    return Array.from(this.#rows.values()).sort(compare)
  }

  /** The digest of the whole state, 16 hex digits: over all rows in order. All zeros when nothing was counted. */
  get digest(): string {
    const packed = new Uint8Array(this.#rows.size * rowBytes)
    this.rows().forEach(({ row }, i) => packed.set(row, i * rowBytes))
    const hash: Hash64 = { hi: 0, lo: 0 }
    if (packed.length > 0) hashBytes(new DataView(packed.buffer), 0, packed.length, 0, 0, hash)
    return hex(hash)
  }
}

const netOf = ({ decrements, increments }: CounterRow): bigint => BigInt(increments) - BigInt(decrements)

const checkArguments = (nodeId: string, by: number): void => {
  if (!Timestamp.isNodeId(nodeId)) {
    throw new ValueNotSupported({ path: "nodeId", reason: "a node id has 16 characters of [0-9a-z]" })
  }
  if (!Number.isSafeInteger(by) || by < 0) {
    throw new ValueNotSupported({ path: "by", reason: "a counter goes by safe integers of 0 or more" })
  }
}
