/** Where a server is in its life. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/** The version that the server says it is: its package's. */
export const version = "0.1.0"

/** `loading` reads what is stored, `ready` serves, `leaving` still does but says that it won't, `stopping` accepts nothing more. */
export type Name = "loading" | "ready" | "leaving" | "stopping"

/** The server's phase: it only ever moves on. */
export class Phase extends Context.Tag("@topgun/server/Phase")<Phase, {
  readonly current: () => Name
  /** ms since the server was ready; 0 before. */
  readonly uptimeMillis: () => number
  /** Whether connections are accepted: a server that is leaving accepts them, as some haven't heard of it. */
  readonly serves: () => boolean
  readonly ready: () => void
  readonly leaving: () => void
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
      serves: () => name === "ready" || name === "leaving",
      ready: () => {
        if (name !== "loading") return
        name = "ready"
        since = clock.unsafeCurrentTimeMillis()
      },
      leaving: () => {
        if (name !== "stopping") name = "leaving"
      },
      stopping: () => {
        name = "stopping"
      }
    })
  })
)
