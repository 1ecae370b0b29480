/** The unit of change that travels from a client to a server. */
import type { MapKind } from "./Cell.ts"
import type { LwwRecord } from "./LwwRecord.ts"
import type { WriteConcern } from "./WriteConcern.ts"

/** One write of a device: `sequence` is its place among that device's operations, never used twice. */
export interface Operation {
  readonly sequence: number
  readonly map: string
  readonly kind: MapKind
  /** Which of the map's records it is: see `Cell`. */
  readonly cell: string
  readonly record: LwwRecord
  readonly concern: WriteConcern
}
