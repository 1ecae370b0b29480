/** Real server processes over a real PostgreSQL, of which the one or the other is killed; see `crash.test.ts`. */
import { describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { makePostgresCluster } from "../src/PostgresCluster.ts"
import { makePostgresProxy, type PostgresProxy } from "../src/PostgresProxy.ts"
import { campaign, timeout } from "./crash/campaign.ts"
import { end, type ServerProcess, type Store } from "./crash/ServerProcess.ts"

/** A PostgreSQL, and the wire that leads to it. */
const prepared = Effect.gen(function*() {
  const cluster = yield* Effect.acquireRelease(
    Effect.promise(() => makePostgresCluster()),
    ({ remove }) => Effect.promise(remove)
  )
  const proxy = yield* makePostgresProxy(cluster.port)
  const url = new URL(cluster.url())
  url.port = String(proxy.port)
  const store: Store = {
    name: "PostgreSQL",
    environment: () =>
      Effect.succeed({ TOPGUN_STORAGE: "postgres", TOPGUN_DATABASE_URL: url.href, TOPGUN_COMMIT_TIMEOUT: "10s" }),
    isInProcess: false
  }
  return { cluster, proxy, store }
})

/** The server dies as a commit of its passes, `before` PostgreSQL has heard of it or `after` it has answered. */
const dieAtCommit = (proxy: PostgresProxy, server: ServerProcess, when: "before" | "after") =>
  Effect.zipRight(Effect.promise(() => proxy.cutAtCommit(when)), end(server, "SIGKILL"))

describe("a server on PostgreSQL that is killed", () => {
  it.scopedLive(
    "holds what it acknowledged PERSISTED, gets the rest from the clients' logs, and has batches whole or not at all, when it is killed at random",
    () => Effect.flatMap(prepared, ({ store }) => campaign(store, () => "at a random acknowledgement")),
    timeout
  )

  it.scopedLive(
    "holds it when it dies before or after the n-th COMMIT, and when the database crashes under it",
    () =>
      Effect.flatMap(
        prepared,
        ({ cluster, proxy, store }) =>
          campaign(store, (round, numbers) => (server, acknowledged) => {
            const first = acknowledged(1 + numbers(200))
            if (round % 3 < 2) {
              return Effect.zipRight(first, dieAtCommit(proxy, server, round % 3 === 0 ? "before" : "after"))
            }
            // All its processes die; the server goes on with what recovers, by itself.
            const crash = Effect.promise(async () => {
              await cluster.stop("immediate")
              await cluster.start()
            })
            return first.pipe(
              Effect.zipRight(crash),
              Effect.zipRight(acknowledged(1 + numbers(200))),
              Effect.zipRight(end(server, "SIGKILL"))
            )
          })
      ),
    timeout
  )
})
