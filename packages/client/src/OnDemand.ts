/** What most applications never use, and no page has to load at its start: it comes when it is first asked for. */
import { ConnectionLost, type PermissionDenied } from "@topgun/core/GridError"
import type { ServerStatus } from "@topgun/core/GridRpcs"
import * as Effect from "effect/Effect"
import type { SyncEngine } from "./SyncEngine.ts"

/** How the server is doing. A call: it comes with @effect/rpc, Stream and Schema. */
export const serverStatus: Effect.Effect<ServerStatus, ConnectionLost | PermissionDenied, SyncEngine> = Effect
  .tryPromise({
    try: () => import("./Calls.ts"),
    catch: (cause) => new ConnectionLost({ reason: "the part of the client that makes calls can't be loaded", cause })
  }).pipe(
    Effect.flatMap(({ make }) => make),
    Effect.flatMap(({ status }) => status),
    Effect.scoped
  )
