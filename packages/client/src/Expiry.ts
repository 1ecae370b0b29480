/**
 * When values of this device expire, so that listeners can be told at the time. Whether a value has expired is for each read
 * to say; nothing is removed here.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Signal } from "./Signal.ts"

/** A cell whose value is to expire, unless another one takes its place. */
export interface Expiring {
  /** When, in ms. */
  readonly at: number
  readonly map: string
  readonly cell: string
}

/** A timer of the platform counts to 24.8 days; a longer wait is made of several. */
const sleepMillisMax = 24 * 3_600_000

/** The cells of a device by the time of their expiry: a binary heap (Williams 1964), the earliest first. */
export class ExpiryHeap {
  readonly #heap: Array<Expiring> = []

  /** When the first one is due, in ms; `undefined` when there is none. */
  get next(): number | undefined {
    return this.#heap[0]?.at
  }

  add(expiring: Expiring): void {
    const heap = this.#heap
    let place = heap.length
    while (place > 0) {
      const above = (place - 1) >>> 1
      if (heap[above]!.at <= expiring.at) break
      heap[place] = heap[above]!
      place = above
    }
    heap[place] = expiring
  }

  get size(): number {
    return this.#heap.length
  }

  /** Forgets all that `isCurrent` doesn't hold for. */
  keep(isCurrent: (expiring: Expiring) => boolean): void {
    const kept = this.#heap.filter(isCurrent)
    this.#heap.length = 0
    for (const each of kept) this.add(each)
  }

  /** Takes all that are due at `now`, the earliest first. */
  take(now: number): ReadonlyArray<Expiring> {
    const due: Array<Expiring> = []
    while (this.#heap.length > 0 && this.#heap[0]!.at <= now) due.push(this.#takeFirst())
    return due
  }

  #takeFirst(): Expiring {
    const heap = this.#heap
    const first = heap[0]!
    const last = heap.pop()!
    if (heap.length === 0) return first
    let place = 0
    for (;;) {
      let below = 2 * place + 1
      if (below + 1 < heap.length && heap[below + 1]!.at < heap[below]!.at) below++
      if (below >= heap.length || heap[below]!.at >= last.at) break
      heap[place] = heap[below]!
      place = below
    }
    heap[place] = last
    return first
  }
}

/** A heap is looked through for what was replaced each time that it has doubled, from this size on. */
const sweepSizeMin = 1_024

/**
 * Calls `onDue` with what has expired, as soon as it has, for the life of the scope; answers how to add to it. `isCurrent`
 * says whether a cell still has the value that was to expire then: what hasn't isn't told of, and not kept for long.
 */
export const make = (
  now: () => number,
  isCurrent: (expiring: Expiring) => boolean,
  onDue: (due: ReadonlyArray<Expiring>) => void
): Effect.Effect<(expiring: Expiring) => void, never, Scope.Scope> =>
  Effect.gen(function*() {
    const heap = new ExpiryHeap()
    const earlier = new Signal()
    let sweepSize = sweepSizeMin
    const round = Effect.suspend(() => {
      const due = heap.take(now()).filter(isCurrent)
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
      // A cell that is written again and again leaves a time behind at each write.
      if (heap.size >= sweepSize) {
        heap.keep(isCurrent)
        sweepSize = Math.max(sweepSizeMin, heap.size * 2)
      }
      if (next === undefined || expiring.at < next) earlier.notify()
    }
  })
