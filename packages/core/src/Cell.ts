/**
 * Where a record lives. Every kind of map is, underneath, a last-writer-wins map of **cells**: an observed-remove map one of
 * tags, a counter one of nodes' totals. So there is one merge, one confirmed base, one tree walk, one table in a database.
 *
 * | kind | a cell is | its text |
 * |---|---|---|
 * | `lww` | a key | the key |
 * | `or` | an addition to a key, by its stamp | the stamp as `Timestamp.format` writes it, the key |
 * | `counter` | a node's share of a counter | the node's id, the counter's name |
 *
 * A record tells what its cell's text has before the key, so on the wire it travels with its key alone. All cells of a key
 * are in the key's partition.
 */
import { MalformedMessage } from "./GridError.ts"
import * as LwwRecord from "./LwwRecord.ts"
import * as PnCounter from "./PnCounter.ts"
import * as OrMap from "./OrMap.ts"

/** A map's kind of CRDT. A map keeps the kind that it was first used with. */
export type MapKind = "lww" | "or" | "counter"

/** How many characters of a cell's text come before its key. */
export const prefixLengths: Readonly<Record<MapKind, number>> = {
  lww: 0,
  or: OrMap.prefixLength,
  counter: PnCounter.prefixLength
}

/** Whether a value is the name of a kind. */
export const isMapKind = (value: unknown): value is MapKind => value === "lww" || value === "or" || value === "counter"

/** The cell of a key's record. */
export const cellOf = (kind: MapKind, key: string, record: LwwRecord.LwwRecord): string =>
  kind === "lww" ? key : kind === "or" ? OrMap.cellOf(key, record) : PnCounter.cellOf(key, record)

/** The key of a cell. */
export const keyOf = (kind: MapKind, cell: string): string => kind === "lww" ? cell : cell.slice(prefixLengths[kind])

/**
 * A record from foreign bytes, such as a map of this kind and name has under this key. The bytes are not copied.
 *
 * @throws MalformedMessage
 */
export const decodeInPlace = (kind: MapKind, map: string, key: string, row: Uint8Array): LwwRecord.LwwRecord => {
  if (kind !== "counter") return LwwRecord.decodeInPlace(row)
  if (key !== map) throw new MalformedMessage({ reason: "a counter's only key is its name" })
  return PnCounter.decodeInPlace(row)
}
