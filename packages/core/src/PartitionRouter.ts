/** Who owns which of the 271 partitions, and where that node is. */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as Partition from "./Partition.ts"

/** A node's place as `Transport` understands it: a WebSocket URL, or {@link home}. */
export type Address = string

/** The server that the application named when it set up its transport. */
export const home: Address = "home"

/** Routes keys to the owners of their partitions. */
export class PartitionRouter extends Context.Tag("@topgun/core/PartitionRouter")<PartitionRouter, {
  /** The partition of a key: the same on every node. */
  readonly partitionOf: (key: string) => number
  /** Where the owner of a partition is reached. */
  readonly ownerOf: (partition: number) => Address
  /** Whether this node owns the partition. A client owns none. */
  readonly isLocal: (partition: number) => boolean
}>() {}

/** One server that owns everything. */
export const layerSingleNode: Layer.Layer<PartitionRouter> = Layer.succeed(
  PartitionRouter,
  PartitionRouter.of({ partitionOf: Partition.partitionOf, ownerOf: () => home, isLocal: () => true })
)
