/** The end of a user's session on this device: what is kept of it here is deleted, and nothing that the server lacks unasked. */
import { type ClientClosed, type StorageFailure, UnsentWrites } from "@topgun/core/GridError"
import * as Effect from "effect/Effect"
import type { Replica } from "./Replica.ts"
import type { LogoutOptions } from "./Reports.ts"
import type { SyncEngine } from "./SyncEngine.ts"

/** Why a logout didn't happen: nothing has changed. */
export type LogoutFailure = UnsentWrites | StorageFailure | ClientClosed

/** Waits until nothing is unsent; fails when nobody is going to send it. */
const sent = (replica: Replica["Type"], engine: SyncEngine["Type"]): Effect.Effect<void, UnsentWrites> =>
  Effect.async<void, UnsentWrites>((resume) => {
    const stops: Array<() => void> = []
    const look = (): void => {
      const unsent = replica.unsent()
      const { current } = engine.state
      if (unsent.pending === 0) resume(Effect.void)
      else if (current === "DISCONNECTED" || current === "ERROR") resume(new UnsentWrites(unsent))
      else return
      stops.forEach((stop) => stop())
    }
    stops.push(replica.observe({ onChange: look }), engine.state.subscribe(look))
    look()
    return Effect.sync(() => stops.forEach((stop) => stop()))
  })

/**
 * Ends the connection and deletes this user's data from the device, in one transaction of its storage: all of it is gone, or
 * nothing has changed. The client is closed then.
 */
export const logout = (
  replica: Replica["Type"],
  engine: SyncEngine["Type"],
  { unsent }: LogoutOptions = {}
): Effect.Effect<void, LogoutFailure> =>
  Effect.gen(function*() {
    while (true) {
      if (unsent === "flush") yield* sent(replica, engine)
      const outcome = yield* Effect.either(engine.endWith(replica.wipe(unsent)))
      if (outcome._tag === "Right") return
      const { left } = outcome
      // Somebody has written between the last acknowledgement and the end.
      const isLate = unsent === "flush" && left._tag === "UnsentWrites" && left.pending > 0
      if (!isLate) return yield* Effect.fail(left)
    }
  })
