/** Where a server is in its life. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/** The version that the server says it is: its package's. */
export const version = "0.1.0"

/** `loading` reads what is stored, `ready` serves, `stopping` accepts nothing more. */
export type Name = "loading" | "ready" | "stopping"

/** The server's phase: it only ever moves on. */
export class Phase extends Context.Tag("@topgun/server/Phase")<Phase, {
  readonly current: () => Name
  /** ms since the server was ready; 0 before. */
  readonly uptimeMillis: () => number
  readonly ready: () => void
  readonly stopping: () => void
}>() {}

export const layer: Layer.Layer<Phase> = Layer.effect(
  Phase,
  Effect.map(Effect.clock, (clock) => {
    let name: Name = "loading"
    let since = 0
    return Phase.of({
      current: () => name,
      uptimeMillis: () => since === 0 ? 0 : clock.unsafeCurrentTimeMillis() - since,
      ready: () => {
        if (name !== "loading") return
        name = "ready"
        since = clock.unsafeCurrentTimeMillis()
      },
      stopping: () => {
        name = "stopping"
      }
    })
  })
)
