/** The handlers of `GridRpcs`. Each asks first what its caller may. */
import * as Effect from "effect/Effect"
import { MalformedMessage, PermissionDenied, QueryInvalid, QueryTooExpensive } from "@topgun/core/GridError"
import { GridRpcs, QueryAnswer, QueryExplanation } from "@topgun/core/GridRpcs"
import * as Query from "@topgun/core/Query"
import * as ValueJson from "@topgun/core/ValueJson"
import type { Access } from "./Access.ts"
import { Calls } from "./Calls.ts"
import { PermissionPolicy } from "./PermissionPolicy.ts"
import { Queries, type QueryFault } from "./Queries.ts"
import { Status } from "./Status.ts"

/** A query that came as JSON. */
const decodeQuery = (json: unknown): Effect.Effect<Query.Query, QueryInvalid | QueryTooExpensive> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(Query.parse(ValueJson.fromJson(json)))
    } catch (fault) {
      if (fault instanceof MalformedMessage) return new QueryInvalid({ path: "$", reason: fault.reason })
      if (fault instanceof QueryInvalid || fault instanceof QueryTooExpensive) return Effect.fail(fault)
      throw fault
    }
  })

export const layer = GridRpcs.toLayer(
  Effect.gen(function*() {
    const { current } = yield* Status
    const { principalOf } = yield* Calls
    const policies = yield* PermissionPolicy
    const queries = yield* Queries

    const asked = <A>(
      { map, query }: { readonly map: string; readonly query: unknown },
      clientId: number,
      answer: (map: string, access: Access, query: Query.Query) => Effect.Effect<A, QueryFault>
    ): Effect.Effect<A, QueryFault> =>
      Effect.gen(function*() {
        const principal = yield* principalOf(clientId)
        const decoded = yield* decodeQuery(query)
        return yield* answer(map, policies.current().access(principal, map), decoded)
      })

    return {
      Status: (_, { clientId }) =>
        Effect.flatMap(principalOf(clientId), (principal) =>
          policies.current().maySeeStatus(principal)
            ? current
            : new PermissionDenied({ what: "see the server's status" })),
      Query: (payload, { clientId }) =>
        Effect.map(
          asked(payload, clientId, queries.answer),
          ({ cursor, hasMore, rows }) => new QueryAnswer({ rows, hasMore, cursor: cursor ?? null })
        ),
      Count: (payload, { clientId }) =>
        asked(
          payload,
          clientId,
          (map, access, { search, where }) =>
            search === undefined
              ? queries.count(map, access, where)
              : new QueryInvalid({ path: "$.search", reason: "what a search finds is ranked, and not counted" })
        ),
      Explain: ({ key, ...payload }, { clientId }) =>
        Effect.map(
          asked(payload, clientId, (map, access, query) => queries.explain(map, access, query, key)),
          ({ score, ties, ...explanation }) =>
            new QueryExplanation({ ...explanation, score: score ?? null, ties: ties ?? null })
        )
    }
  })
)
