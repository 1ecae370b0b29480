/**
 * The counter that many nodes change at once (Shapiro, Preguiça, Baquero, Zawirski 2011, PN-Counter): each node has two
 * totals that only grow, what it has added and what it has taken away. The value is the sum of the ones less the others.
 *
 * A node's totals are one row of bytes, a record in the format of `LwwRecord` whose stamp has no time:
 *
 * | bytes | field |
 * |---|---|
 * | 0..7 | zeros |
 * | 8..23 | node id, ASCII |
 * | 24 | kind: 0x30; other kinds belong to newer formats and are refused |
 * | 25..31 | increments, big-endian |
 * | 32..38 | decrements, big-endian |
 *
 * **Rows order as bytes.** A node alone changes its row, and neither total falls: its later row is the byte-wise greater
 * one, and of two rows of one node the greater wins. So databases merge as `where excluded.row > row`, no clock matters,
 * and replicas agree even on the rows of a node whose identity was copied, although one of the copies loses its changes
 * then. This is a last-writer-wins map of nodes' rows, and an {@link LwwMap} is what holds them.
 *
 * **Limits.** Totals are safe integers. The value may leave these by the sum of many nodes' changes, which no replica can
 * foresee alone: therefore merging never refuses a row, but reading such a value does, and so does going further.
 */
import { CounterOverflow, MalformedMessage, ValueNotSupported } from "./GridError.ts"
import { LwwMap } from "./LwwMap.ts"
import * as LwwRecord from "./LwwRecord.ts"
import * as Timestamp from "./Timestamp.ts"
import * as Value from "./Value.ts"

const KIND = 0x30
const KIND_AT = LwwRecord.stampBytes
const NODE_ID_AT = KIND_AT - Timestamp.nodeIdLength
const INCREMENTS_AT = KIND_AT + 1
const DECREMENTS_AT = INCREMENTS_AT + 7

/** The bytes of one row. */
export const rowBytes = DECREMENTS_AT + 7

/** How many characters of a row's cell come before its key. */
export const prefixLength = Timestamp.nodeIdLength

/** The cell of a node's totals. */
export const cellOf = (key: string, { nodeId }: { readonly nodeId: string }): string => nodeId + key

/** The totals of one node: immutable. Make it with {@link totals}, {@link decode} or {@link fromTrusted}. */
export class CounterRow extends LwwRecord.LwwRecord {
  /** Everything that the node has added: a safe integer, 0 or more. */
  readonly increments: number
  /** Everything that the node has taken away: a safe integer, 0 or more. */
  readonly decrements: number

  /** @internal */
  constructor(increments: number, decrements: number, row: Uint8Array) {
    super(0, 0, row)
    this.increments = increments
    this.decrements = decrements
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
  for (let i = 0; i < Timestamp.nodeIdLength; i++) row[NODE_ID_AT + i] = nodeId.charCodeAt(i)
  row[KIND_AT] = KIND
  writeTotal(row, INCREMENTS_AT, increments)
  writeTotal(row, DECREMENTS_AT, decrements)
  return new CounterRow(increments, decrements, row)
}

/** A row from bytes that this side wrote itself. They are kept, not copied. */
export const fromTrusted = (row: Uint8Array): CounterRow =>
  new CounterRow(readTotal(row, INCREMENTS_AT), readTotal(row, DECREMENTS_AT), row)

/**
 * A row from foreign bytes, which are copied: of this format, with a well-formed node id and safe totals.
 *
 * @throws MalformedMessage
 */
// Not `slice`, which in a Buffer shares the memory.
export const decode = (row: Uint8Array): CounterRow => decodeInPlace(new Uint8Array(row))

/** {@link decode} for what goes into a map at once: the bytes are not copied, as the map that keeps them does that. */
export const decodeInPlace = (row: Uint8Array): CounterRow => {
  if (row.length !== rowBytes) throw new MalformedMessage({ reason: `a counter's row has ${rowBytes} bytes` })
  const read = fromTrusted(row)
  if (!Timestamp.isNodeId(read.nodeId)) {
    throw new MalformedMessage({ reason: "a node id has 16 characters of [0-9a-z]" })
  }
  for (let i = 0; i < NODE_ID_AT; i++) {
    if (row[i] !== 0) throw new MalformedMessage({ reason: "a counter's row has no time" })
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

/**
 * A counter of one replica; see the head of this file. Changed in place, by one writer at a time.
 *
 * Node ids are those of `Timestamp.isNodeId`; amounts are safe integers.
 */
export class PnCounter {
  /** The nodes' rows, by cell. They may be changed here, too: merged, written, confirmed, reverted. */
  readonly cells: LwwMap
  readonly name: string
  /** The exact value, as a sum of many safe integers needn't be one, and the revision of the cells that it is of. */
  #sum = 0n
  #summed = -1

  /** A counter of this name; over `cells`, whose only key it is, where they are given. */
  constructor(name = "", cells = new LwwMap({ now: () => 0, prefixLength })) {
    this.name = name
    this.cells = cells
  }

  /**
   * The value now, a safe integer; 0 when nothing was counted.
   *
   * @throws CounterOverflow when the nodes' changes together lead beyond the safe integers.
   */
  get value(): number {
    const sum = this.#exact()
    if (sum > VALUE_MAX || sum < -VALUE_MAX) throw new CounterOverflow({ what: "value" })
    return Number(sum)
  }

  /**
   * Adds `by`, 0 or more, in the name of a node, which is this replica's own. Answers the node's new row, for storage and
   * peers.
   *
   * @throws ValueNotSupported for another `by`, or a malformed node id.
   * @throws CounterOverflow when the node's increments or the value would go beyond the safe integers. Nothing was changed.
   */
  increment(nodeId: string, by = 1): CounterRow {
    checkAmount(by)
    return this.#count(this.next(nodeId, by))
  }

  /** Takes `by`, 0 or more, away: the opposite of {@link increment}, with the same errors. */
  decrement(nodeId: string, by = 1): CounterRow {
    checkAmount(by)
    return this.#count(this.next(nodeId, -by))
  }

  /** The row that a node has after it has gone by `by`, which may be negative. Changes nothing; throws as {@link increment}. */
  next(nodeId: string, by: number): CounterRow {
    if (!Timestamp.isNodeId(nodeId)) {
      throw new ValueNotSupported({ path: "nodeId", reason: "a node id has 16 characters of [0-9a-z]" })
    }
    checkAmount(Math.abs(by))
    const known = this.getRow(nodeId)
    const increments = (known?.increments ?? 0) + Math.max(by, 0)
    const decrements = (known?.decrements ?? 0) + Math.max(-by, 0)
    if (!Number.isSafeInteger(increments)) throw new CounterOverflow({ what: "increments" })
    if (!Number.isSafeInteger(decrements)) throw new CounterOverflow({ what: "decrements" })
    const sum = this.#exact() + BigInt(by)
    // Back into the range leads every way.
    if ((by > 0 && sum > VALUE_MAX) || (by < 0 && sum < -VALUE_MAX)) throw new CounterOverflow({ what: "value" })
    return totals(nodeId, increments, decrements)
  }

  /** Joins a node's row: from here, a peer or storage. Answers the change, or `undefined` where it lost or was known. */
  merge(row: CounterRow): Change | undefined {
    const change = this.cells.merge(cellOf(this.name, row), row)
    if (change === undefined) return undefined
    const { previous } = change
    return { previous: previous === undefined ? undefined : fromTrusted(previous.row), row }
  }

  /** The row of a node, where it has counted. */
  getRow(nodeId: string): CounterRow | undefined {
    const record = this.cells.getRecord(nodeId + this.name)
    return record === undefined ? undefined : fromTrusted(record.row)
  }

  /** Every node's row, in the order of the node ids: the whole state. */
  rows(): Array<CounterRow> {
    return Array.from(this.cells.records(), ([, { row }]) => fromTrusted(row)).sort(compare)
  }

  /** The digest of the whole confirmed state, 16 hex digits: the Merkle root. All zeros when nothing was counted. */
  get digest(): string {
    return this.cells.digest
  }

  #count(row: CounterRow): CounterRow {
    const change = this.merge(row)
    if (change !== undefined) {
      this.#sum += netOf(row) - (change.previous === undefined ? 0n : netOf(change.previous))
      this.#summed = this.cells.revision
    }
    return row
  }

  #exact(): bigint {
    if (this.#summed !== this.cells.revision) {
      this.#sum = 0n
      for (const [, { row }] of this.cells.records()) this.#sum += netOf(fromTrusted(row))
      this.#summed = this.cells.revision
    }
    return this.#sum
  }
}

const netOf = ({ decrements, increments }: CounterRow): bigint => BigInt(increments) - BigInt(decrements)

/** What a counter may go by: a safe integer of 0 or more. @throws ValueNotSupported */
export const checkAmount = (by: number): number => {
  if (Number.isSafeInteger(by) && by >= 0) return by
  throw new ValueNotSupported({ path: "by", reason: "a counter goes by safe integers of 0 or more" })
}
