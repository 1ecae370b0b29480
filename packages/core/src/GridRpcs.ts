/**
 * The calls between client and server: what is asked once and answered once. They travel in the same socket as the data
 * (`Protocol`'s `Call` and `Reply` carry @effect/rpc's own encoding).
 */
import * as Rpc from "@effect/rpc/Rpc"
import * as RpcGroup from "@effect/rpc/RpcGroup"
import * as Schema from "effect/Schema"
import { MapKindMismatch, Overloaded, PermissionDenied, QueryInvalid, QueryTooExpensive } from "./GridError.ts"

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

/** A value as JSON: see `ValueJson`. */
const Json = Schema.Unknown

/** Why a query isn't answered. */
const QueryFault = Schema.Union(PermissionDenied, QueryInvalid, QueryTooExpensive, MapKindMismatch, Overloaded)

/** Rows that a query has found, in its order. */
export class QueryAnswer extends Schema.Class<QueryAnswer>("QueryAnswer")({
  rows: Schema.Array(Schema.Struct({
    key: Schema.String,
    value: Json,
    /** How well it matches, where a text was searched for. */
    score: Schema.optional(Schema.Number)
  })),
  /** Whether there are more rows, of which the next come after `cursor`. */
  hasMore: Schema.Boolean,
  cursor: Schema.NullOr(Schema.String)
}) {}

/** How a query would be answered. */
export class QueryExplanation extends Schema.Class<QueryExplanation>("QueryExplanation")({
  plan: Schema.Literal("scan", "index"),
  /** What is looked up. */
  steps: Schema.Array(Schema.Struct({
    index: Schema.Struct({ fields: Schema.Array(Schema.String), kind: Schema.Literal("hash", "sorted", "inverted") }),
    by: Schema.Literal("equality", "range", "elements", "order", "words"),
    candidates: Schema.Number
  })),
  /** Records that are looked at. */
  candidates: Schema.Number,
  /** Records in the map. */
  records: Schema.Number,
  /** Whether they come in order, so that looking stops when there are enough. */
  isOrdered: Schema.Boolean,
  /** The fields by whose values a live query is found; null where it judges every write. */
  ties: Schema.NullOr(Schema.Array(Schema.String)),
  /** Of a search why it gives the record that is asked for its score; null where none is, or where it doesn't find it. */
  score: Schema.NullOr(Schema.Struct({
    key: Schema.String,
    score: Schema.Number,
    parts: Schema.Array(Schema.Struct({
      field: Schema.String,
      term: Schema.String,
      weight: Schema.Number,
      boost: Schema.Number,
      termFrequency: Schema.Number,
      documentFrequency: Schema.Number,
      documents: Schema.Number,
      inverseDocumentFrequency: Schema.Number,
      length: Schema.Number,
      averageLength: Schema.Number,
      contribution: Schema.Number
    }))
  }))
}) {}

const query = { map: Schema.String, query: Json }

/** The calls that a client can make. */
export class GridRpcs extends RpcGroup.make(
  Rpc.make("Status", { success: ServerStatus, error: PermissionDenied }),
  Rpc.make("Query", { payload: query, success: QueryAnswer, error: QueryFault }),
  /** How many records a query finds, whatever its limit. */
  Rpc.make("Count", { payload: query, success: Schema.Number, error: QueryFault }),
  Rpc.make("Explain", {
    payload: { ...query, key: Schema.optional(Schema.String) },
    success: QueryExplanation,
    error: QueryFault
  })
) {}
