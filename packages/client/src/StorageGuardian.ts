/**
 * Watches over what a browser keeps of this device: asks it not to delete that, tells how much room there is, and remembers
 * outside of it that there was something. Where there is no browser, nothing of it happens.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { SyncStatus } from "./Reports.ts"

/** How often a browser is asked how much room there is. */
const watchEvery = Duration.minutes(1)

/** How long it may take to answer, before it is asked again in its turn. */
const answerWithin = Duration.seconds(10)

/** A storage with a longer name has no {@link Canary}: browsers give them little room. */
const nameLengthMax = 1_000

/** The storage that is watched over. */
export interface Kept {
  readonly name: string
  readonly durable: boolean
}

/** The part of a browser's `navigator.storage` that is asked. */
type Manager = Partial<Pick<StorageManager, "persist" | "persisted" | "estimate">>

/** Asked for anew each time: nothing of a browser is touched where there is none, and a test may put one in its place. */
const managerOf = ({ durable }: Kept): Manager | undefined =>
  durable && typeof window !== "undefined" && typeof navigator !== "undefined" ? navigator.storage : undefined

/** What lives where a storage does, and doesn't die with it. */
interface Canary {
  readonly isAlive: () => boolean
  readonly set: () => void
  readonly remove: () => void
}

const canaryOf = ({ durable, name }: Kept): Canary => {
  /** A browser's settings may forbid it, and then there is none. */
  const attempt = <A>(use: (storage: globalThis.Storage) => A): A | undefined => {
    if (!durable || name.length > nameLengthMax || typeof window === "undefined") return undefined
    try {
      return use(window.localStorage)
    } catch {
      return undefined
    }
  }
  const key = `topgun canary ${name}`
  return {
    isAlive: () => attempt((storage) => storage.getItem(key) !== null) === true,
    set: () => attempt((storage) => storage.setItem(key, "1")),
    remove: () => attempt((storage) => storage.removeItem(key))
  }
}

/** What a browser says of the room that it gives, as far as it says anything. */
export type Room = Pick<SyncStatus["storage"], "persisted" | "usage" | "quota">

const unknown: Room = { persisted: undefined, usage: undefined, quota: undefined }

/** The guardian of an open storage, until the scope closes. `onChange` is told when its {@link Room} has changed. */
export const make = Effect.fnUntraced(function*(storage: Kept, onChange: () => void) {
  const canary = canaryOf(storage)
  let room = unknown
  let isAsked = false

  const show = (next: Partial<Room>): void => {
    const before = room
    room = { ...before, ...next }
    if (Object.keys(unknown).some((of) => room[of as keyof Room] !== before[of as keyof Room])) onChange()
  }

  const look = Effect.promise(async () => {
    const manager = managerOf(storage)
    // Either may be missing, or refused by the browser's settings.
    const [persisted, estimate] = await Promise.allSettled([manager?.persisted?.(), manager?.estimate?.()])
    if (persisted.status === "fulfilled" && persisted.value !== undefined) show({ persisted: persisted.value })
    if (estimate.status === "fulfilled") show({ usage: estimate.value?.usage, quota: estimate.value?.quota })
  }).pipe(Effect.timeoutOption(answerWithin))

  if (managerOf(storage) !== undefined) {
    yield* look.pipe(Effect.zipRight(Effect.sleep(watchEvery)), Effect.forever, Effect.forkScoped)
  }

  return {
    room: (): Room => room,
    /** Something is written here: worth being asked for, once. Some browsers ask their user. */
    onWrite: (): void => {
      if (isAsked) return
      isAsked = true
      const asking = async () => {
        const persisted = await managerOf(storage)?.persist?.()
        if (persisted !== undefined) show({ persisted })
      }
      // Not to be promised anything is no trouble of its own.
      asking().catch(() => {})
    },
    /** Whether there was a storage of this name, as far as is known outside of it. */
    wasThere: canary.isAlive,
    /** There is one now. */
    isThere: canary.set,
    /** There is none any more, and that is right. */
    isGone: canary.remove
  }
})

export type StorageGuardian = Effect.Effect.Success<ReturnType<typeof make>>
