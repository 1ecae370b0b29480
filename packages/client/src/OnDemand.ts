/** What most applications never use, and no page has to load at its start: it comes when it is first asked for. */
import { ConnectionLost, type PermissionDenied } from "@topgun/core/GridError"
import type { ServerStatus } from "@topgun/core/GridRpcs"
import * as Effect from "effect/Effect"
import type * as Calls from "./Calls.ts"
import type { SyncEngine } from "./SyncEngine.ts"

/** Makes a call. They come with @effect/rpc, Stream and Schema. */
export const call = <A, E>(
  use: (calls: Effect.Effect.Success<typeof Calls.make>) => Effect.Effect<A, E>
): Effect.Effect<A, E | ConnectionLost, SyncEngine> =>
  Effect.tryPromise({
    try: () => import("./Calls.ts"),
    catch: (cause) => new ConnectionLost({ reason: "the part of the client that makes calls can't be loaded", cause })
  }).pipe(
    Effect.flatMap(({ make }) => make),
    Effect.flatMap(use),
    Effect.scoped
  )

/** How the server is doing. */
export const serverStatus: Effect.Effect<ServerStatus, ConnectionLost | PermissionDenied, SyncEngine> = call(
  ({ status }) => status
)
