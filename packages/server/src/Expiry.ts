/**
 * Makes tombstones of values that have expired, so that they leave memory and disk, and everybody agrees that they are gone. Whether a value
 * has expired is for each read to say; this comes after, when it comes.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { endOfTurn } from "./GroupCommit.ts"
import { Partitions } from "./Partitions.ts"
import { Persistence } from "./Persistence.ts"
import { Subscriptions } from "./Subscriptions.ts"

/** Values that are swept in a turn of the event loop. */
const sweptAtOnce = 1_000
/** What expires within so many ms is swept together. */
const gatherMillis = 1_000
/** A timer counts to 24.8 days; a longer wait is made of several. */
const sleepMillisMax = 24 * 3_600_000

const make = Effect.gen(function*() {
  const clock = yield* Effect.clock
  const partitions = yield* Partitions
  const persistence = yield* Persistence
  const subscriptions = yield* Subscriptions
  const earlier = Effect.unsafeMakeLatch(false)
  partitions.observeExpiry(() => earlier.unsafeOpen())

  const sweep: Effect.Effect<void> = Effect.suspend(() => {
    if (persistence.isFull()) {
      const room = Effect.async<void>((resume) => persistence.onRoom(() => resume(Effect.void)))
      return Effect.zipRight(room, sweep)
    }
    const won = partitions.expire(sweptAtOnce)
    if (won.length === 0) return Effect.void
    persistence.append(won, () => {})
    for (const batch of won) subscriptions.publish(batch)
    return Effect.zipRight(endOfTurn, sweep)
  })

  const round = Effect.suspend(() => {
    const next = partitions.nextExpiry()
    earlier.unsafeClose()
    if (next === undefined) return earlier.await
    const millis = next - clock.unsafeCurrentTimeMillis()
    if (millis <= 0) return Effect.zipRight(sweep, Effect.sleep(gatherMillis))
    return Effect.raceFirst(Effect.sleep(Math.min(millis, sleepMillisMax)), earlier.await)
  })
  yield* Effect.forever(round).pipe(
    Effect.tapDefect((cause) => Effect.logError("What is over isn't swept any more, by a fault of TopGun's", cause)),
    Effect.forkScoped
  )
})

/** Sweeps what has expired, for as long as the server lives. */
export const layer: Layer.Layer<never, never, Partitions | Persistence | Subscriptions> = Layer.scopedDiscard(make)
