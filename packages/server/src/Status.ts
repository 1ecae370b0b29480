/** How the server is doing, as the `Status` call tells. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { ServerStatus } from "@topgun/core/GridRpcs"
import { Hlc } from "@topgun/core/Hlc"
import { Partitions } from "./Partitions.ts"
import { Persistence } from "./Persistence.ts"
import { Phase, version } from "./Phase.ts"
import { Sessions } from "./Session.ts"

/** The server's state, for people and probes. */
export class Status extends Context.Tag("@topgun/server/Status")<Status, {
  readonly current: Effect.Effect<ServerStatus>
}>() {}

export const layer: Layer.Layer<Status, never, Hlc | Partitions | Persistence | Phase | Sessions> = Layer.effect(
  Status,
  Effect.gen(function*() {
    const hlc = yield* Hlc
    const partitions = yield* Partitions
    const persistence = yield* Persistence
    const phase = yield* Phase
    const sessions = yield* Sessions
    return Status.of({
      current: Effect.sync(() =>
        new ServerStatus({
          version,
          nodeId: hlc.nodeId(),
          uptimeMillis: phase.uptimeMillis(),
          connections: sessions.count(),
          storage: persistence.kind,
          maps: partitions.sizes()
        })
      )
    })
  })
)
