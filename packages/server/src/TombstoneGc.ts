/**
 * Forgets deletions that nobody needs to be told of any more: on the disk, in memory, and on the devices that follow the map.
 *
 * A round looks how far that goes. A tombstone is forgotten when it has the least age (`tombstoneAge`) and every known device has confirmed
 * that it has it. A device that hasn't confirmed anything for as long as the horizon (`tombstoneHorizon`) isn't waited for: it is forgotten
 * itself, and takes maps over anew when it comes back. When there are too many tombstones (`tombstonesMax`), the devices that are furthest
 * behind are forgotten before their time, as many as it takes.
 *
 * Whatever a device brings back, claims, or has lost, what is forgotten doesn't come back: `Partitions` judges each write by its map's
 * watermark in the step that would merge it, and a device's copy of it goes when it's in step again (`MapSync` of the client).
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Confirmations } from "./Confirmations.ts"
import { endOfTurn } from "./GroupCommit.ts"
import { Metrics } from "./Metrics.ts"
import { Partitions } from "./Partitions.ts"
import { Persistence } from "./Persistence.ts"
import { ServerConfig } from "./ServerConfig.ts"
import { Sessions } from "./Session.ts"
import { Subscriptions } from "./Subscriptions.ts"
import { type Buried, Tombstones } from "./Tombstones.ts"

/** How often there is a round, at most, in ms: the grid's age is kept as exactly as that. */
const roundMillisMax = 60_000
/** Of the least age of a tombstone, how much a device that is connected may be behind. */
const shareBehind = 1 / 24
/** What is younger than this, in ms, isn't forgotten, however many there are: twice as much as a writer's clock may be ahead. */
const settledMillis = 120_000
/** Tombstones that are forgotten in a turn of the event loop, and in one message to each who follows. */
const forgottenAtOnce = 1_000
/** When there are too many tombstones, so much of what there may be is left. */
const shareLeft = 0.75

const make = Effect.gen(function*() {
  const { tombstoneAge, tombstoneHorizon, tombstonesMax } = yield* ServerConfig
  const confirmations = yield* Confirmations
  const metrics = yield* Metrics
  const partitions = yield* Partitions
  const persistence = yield* Persistence
  const sessions = yield* Sessions
  const subscriptions = yield* Subscriptions
  const tombstones = yield* Tombstones
  const { graveyard } = tombstones
  const ageMillis = Duration.toMillis(tombstoneAge)
  const horizonMillis = Duration.toMillis(tombstoneHorizon)
  const behindMillis = ageMillis * shareBehind

  let collected = 0
  let devicesForgotten = 0
  metrics.watch("tombstones", () => graveyard.size)
  metrics.watch("tombstonesForgotten", () => collected)
  metrics.watch("devicesKnown", confirmations.size)
  metrics.watch("devicesForgotten", () => devicesForgotten)

  const forgetDevices = (age: number): number => {
    const count = confirmations.forgetBefore(age)
    devicesForgotten += count
    return count
  }

  /** Forgets tombstones of a map that came at `age` or before. */
  const forget = (map: string, buried: ReadonlyArray<Buried>, age: number): void => {
    const forgotten = partitions.forget(map, buried)
    if (forgotten === undefined) return
    const { batch, latestMillis } = forgotten
    const rows = batch.forgotten ?? []
    collected += rows.length
    if (rows.length === 0) return
    persistence.append([batch], (failure) => {
      // Devices are told when it can't be undone any more. One that isn't told hears of it when it opens the map.
      if (failure === undefined) subscriptions.prune(map, rows)
    }, { notes: [tombstones.forget(map, age, latestMillis)], isPatient: true })
  }

  /** The age up to which so many are too many; 0 where they aren't. */
  const pressed = Effect.sync(() => {
    if (graveyard.size <= tombstonesMax) return 0
    graveyard.sweep(partitions.isBuried)
    return graveyard.size <= tombstonesMax ? 0 : graveyard.ageOfOthers(Math.floor(tombstonesMax * shareLeft))
  })

  let isKeepingAge = false
  const keepAge = (): void => {
    if (isKeepingAge) return
    isKeepingAge = true
    persistence.append([], () => {
      isKeepingAge = false
    }, { notes: [tombstones.ageNote()], isPatient: true })
  }

  const round = Effect.gen(function*() {
    const age = tombstones.age()
    keepAge()
    forgetDevices(age - horizonMillis)
    const pressure = Math.min(yield* pressed, age - settledMillis)
    if (pressure > confirmations.lowest()) {
      const count = forgetDevices(pressure)
      yield* Effect.annotateLogs(
        Effect.logWarning(
          "Devices that are away are forgotten before their time, as there are as many deletions as tombstonesMax allows"
        ),
        { devices: count }
      )
    }
    const bound = Math.max(pressure, Math.min(confirmations.lowest(), age - ageMillis))
    for (let taken = graveyard.take(bound, forgottenAtOnce); taken; taken = graveyard.take(bound, forgottenAtOnce)) {
      forget(taken.map, taken.buried, bound)
      yield* persistence.isFull()
        ? Effect.async<void>((resume) => persistence.onRoom(() => resume(Effect.void)))
        : endOfTurn
    }
    sessions.checkpoint(age, (nodeId) => confirmations.of(nodeId) <= age - behindMillis)
  })

  yield* Effect.forever(Effect.zipRight(Effect.sleep(Math.min(roundMillisMax, behindMillis)), round)).pipe(
    Effect.tapDefect((cause) => Effect.logError("Nothing is forgotten any more, by a fault of TopGun's", cause)),
    Effect.forkScoped
  )
})

/** Forgets what needn't be remembered, for as long as the server lives. */
export const layer: Layer.Layer<
  never,
  never,
  | Confirmations
  | Metrics
  | Partitions
  | Persistence
  | ServerConfig
  | Sessions
  | Subscriptions
  | Tombstones
> = Layer.scopedDiscard(make)
