/** The unit of change that travels from a client to a server. */
import type { LwwRecord } from "./LwwRecord.ts"
import type { WriteConcern } from "./WriteConcern.ts"

/** A map's kind of CRDT. A map keeps the kind that it was first used with. */
export type MapKind = "lww"

/** One write of a device: `sequence` is its place among that device's operations, never used twice. */
export interface Operation {
  readonly sequence: number
  readonly map: string
  readonly key: string
  readonly record: LwwRecord
  readonly concern: WriteConcern
}
