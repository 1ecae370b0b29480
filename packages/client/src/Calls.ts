/** The calls of `GridRpcs`, tunnelled through the connection that carries the data. */
import { ConnectionLost } from "@topgun/core/GridError"
import { GridRpcs } from "@topgun/core/GridRpcs"
import type * as Query from "@topgun/core/Query"
import type { Value } from "@topgun/core/Value"
import * as ValueJson from "@topgun/core/ValueJson"
import type { RpcClientError as CallFailure } from "@effect/rpc/RpcClientError"
import * as RpcClient from "@effect/rpc/RpcClient"
import { RpcClientError } from "@effect/rpc/RpcClientError"
import { type FromClientEncoded, type FromServerEncoded, RequestId } from "@effect/rpc/RpcMessage"
import * as RpcSerialization from "@effect/rpc/RpcSerialization"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Random from "effect/Random"
import { SyncEngine } from "./SyncEngine.ts"

const notConnected = new RpcClientError({ reason: "Protocol", message: "not connected to a server" })

/** The protocol of @effect/rpc over the engine: JSON in `Call` and `Reply`, so that no second MessagePack is decoded. */
const protocol = Effect.gen(function*() {
  const engine = yield* SyncEngine
  const parser = RpcSerialization.json.unsafeMake()
  return yield* RpcClient.Protocol.make(Effect.fnUntraced(function*(respond) {
    const run = yield* FiberSet.makeRuntime<never>()
    const fail = respond({ _tag: "ClientProtocolError", error: notConnected })
    const stops = [
      engine.onReply((payload) => {
        const decoded = parser.decode(payload) as ReadonlyArray<FromServerEncoded> | FromServerEncoded
        const responses = Array.isArray(decoded) ? decoded : [decoded]
        run(Effect.forEach(responses, respond, { discard: true }))
      }),
      engine.state.subscribe((state) => {
        if (state !== "CONNECTED") run(fail)
      })
    ]
    yield* Effect.addFinalizer(() => Effect.sync(() => stops.forEach((stop) => stop())))
    return {
      send: (request: FromClientEncoded) =>
        Effect.suspend(() => {
          const encoded = parser.encode(request)
          const payload = typeof encoded === "string" ? new TextEncoder().encode(encoded) : encoded
          return payload === undefined || engine.call(payload) ? Effect.void : Effect.fail(notConnected)
        }),
      supportsAck: false,
      supportsTransferables: false
    }
  }))
})

/** The calls, each failing with ConnectionLost where there is no connection, or where it ends. */
export const make = Effect.gen(function*() {
  // Tabs of a browser share a connection: their calls have numbers that nobody else's have.
  let id = BigInt(yield* Random.nextIntBetween(1, 2 ** 31)) * 2n ** 20n
  const client = yield* Effect.provideServiceEffect(
    RpcClient.make(GridRpcs, { disableTracing: true, generateRequestId: () => RequestId(id++) }),
    RpcClient.Protocol,
    protocol
  )
  const called = <A, E extends { readonly _tag: string }>(call: Effect.Effect<A, E | CallFailure>) =>
    Effect.mapError(
      call,
      (cause) => cause instanceof RpcClientError ? new ConnectionLost({ reason: cause.message, cause }) : cause as E
    )
  const jsonOf = (query: Query.Query): ValueJson.Json => ValueJson.toJson(query as Value)
  return {
    status: called(client.Status()),
    /** How many records of a map a query finds, whatever its limit. */
    count: (map: string, query: Query.Query) => called(client.Count({ map, query: jsonOf(query) })),
    /** How the server would answer a query; of a search, why it gives the record of a key its score. */
    explain: (map: string, query: Query.Query, key?: string) =>
      called(client.Explain({ map, query: jsonOf(query), ...key === undefined ? {} : { key } })),
    /** The rows that a query finds: as many as fit into a reply. */
    query: (map: string, query: Query.Query) =>
      Effect.map(
        called(client.Query({ map, query: jsonOf(query) })),
        ({ rows }) => rows.map(({ value, ...row }) => ({ ...row, value: ValueJson.fromJson(value) }))
      )
  }
})
