/**
 * When values of this device expire, so that listeners can be told at the time. Whether a value has expired is for each read
 * to say; nothing is removed here.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Expiring, ExpiryHeap } from "@topgun/core/ExpiryHeap"
import { Signal } from "./Signal.ts"

/** A timer of the platform counts to 24.8 days; a longer wait is made of several. */
const sleepMillisMax = 24 * 3_600_000

/**
 * Calls `onDue` with what has expired, as soon as it has, for the life of the scope; answers how to add to it. `isCurrent` is as
 * `ExpiryHeap` has it.
 */
export const make = (
  now: () => number,
  isCurrent: (expiring: Expiring) => boolean,
  onDue: (due: ReadonlyArray<Expiring>) => void
): Effect.Effect<(expiring: Expiring) => void, never, Scope.Scope> =>
  Effect.gen(function*() {
    const heap = new ExpiryHeap(isCurrent)
    const earlier = new Signal()
    const round = Effect.suspend(() => {
      const due = heap.take(now())
      if (due.length > 0) onDue(due)
      const { version } = earlier
      const { next } = heap
      return next === undefined
        ? earlier.after(version)
        : Effect.raceFirst(Effect.sleep(Math.min(Math.max(0, next - now()), sleepMillisMax)), earlier.after(version))
    })
    yield* Effect.forkScoped(Effect.forever(round))
    return (expiring) => {
      const { next } = heap
      heap.add(expiring)
      if (next === undefined || expiring.at < next) earlier.notify()
    }
  })
