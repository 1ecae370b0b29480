/**
 * The calls between client and server: what is asked once and answered once. They travel in the same socket as the data
 * (`Protocol`'s `Call` and `Reply` carry @effect/rpc's own encoding).
 */
import * as Rpc from "@effect/rpc/Rpc"
import * as RpcGroup from "@effect/rpc/RpcGroup"
import * as Schema from "effect/Schema"
import { PermissionDenied } from "./GridError.ts"

/** How a server is doing. */
export class ServerStatus extends Schema.Class<ServerStatus>("ServerStatus")({
  version: Schema.String,
  nodeId: Schema.String,
  /** ms since the server was ready. */
  uptimeMillis: Schema.Number,
  connections: Schema.Number,
  storage: Schema.String,
  maps: Schema.Array(Schema.Struct({
    name: Schema.String,
    /** Keys that have a value. */
    size: Schema.Number,
    /** Records, tombstones included. */
    records: Schema.Number,
    /** The Merkle root, 16 hex digits. */
    root: Schema.String
  }))
}) {}

/** The calls that a client can make. */
export class GridRpcs extends RpcGroup.make(
  Rpc.make("Status", { success: ServerStatus, error: PermissionDenied })
) {}
