/**
 * What happens to writes when too many wait for the server: a bounded Effect `Queue` whose policy is one of three.
 *
 * - `pause`: a bounded queue. The write waits, in a bounded line, until there is room, and is visible when admitted.
 * - `throw`: a dropping queue. The write is refused and nothing is changed.
 * - `drop-oldest`: a sliding queue that reports what it lets go, so that it can be undone.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as MutableQueue from "effect/MutableQueue"
import * as Queue from "effect/Queue"

/** What happens to what comes when a line is full: it waits, is refused, or the oldest goes. */
export type Strategy = "pause" | "throw" | "drop-oldest"

/** The bounds of a line. */
export interface Options {
  /** What to do with a write that finds the outbox full. @default "pause" */
  readonly strategy: Strategy
  /** Writes that may wait to be sent. Higher survives longer offline work, at about 0.5 kB of memory each. @default 100000 */
  readonly capacity: number
  /** Writes that may wait for room under `pause`. @default 1000 */
  readonly waitingMax: number
}

/** 100,000 operations, and 1,000 who wait for room. */
export const defaults: Options = { strategy: "pause", capacity: 100_000, waitingMax: 1_000 }

/** Part of the capacity at which `onHighWater` and, after that, `onLowWater` are told, once per crossing. */
export const highWaterMark = 0.8
/** The low one. */
export const lowWaterMark = 0.5

/** Told of crossings of the water marks and of what a sliding queue let go. */
export interface Listener<A> {
  readonly onDrop: (item: A) => void
  readonly onHighWater: (pending: number) => void
  readonly onLowWater: (pending: number) => void
}

/** Taken ones are kept till their chunk has gone. */
const chunkItems = 256

/** The items of a {@link Line}, for Effect's `Queue` to stand on: a ring that slides, with a report, where told to. */
class Ring<A> implements Queue.BackingQueue<A> {
  readonly [Queue.BackingQueueTypeId] = { _A: (item: A) => item }
  readonly #limit: number
  readonly #slides: boolean
  readonly #listener: Listener<A>
  /** The items in chunks, so that a long line is never copied. Those of the first before `#head` have been taken. */
  readonly #chunks: Array<Array<A>> = []
  #head = 0
  #length = 0
  #high = false

  constructor(limit: number, slides: boolean, listener: Listener<A>) {
    this.#limit = limit
    this.#slides = slides
    this.#listener = listener
  }

  capacity(): number {
    return this.#limit
  }

  length(): number {
    return this.#length
  }

  offer(item: A): boolean {
    if (this.length() >= this.#limit) {
      if (!this.#slides) return false
      this.#listener.onDrop(this.#take())
    }
    let last = this.#chunks.at(-1)
    if (last === undefined || last.length === chunkItems) {
      last = []
      this.#chunks.push(last)
    }
    last.push(item)
    this.#length++
    if (!this.#high && this.length() >= this.#limit * highWaterMark) {
      this.#high = true
      this.#listener.onHighWater(this.length())
    }
    return true
  }

  offerAll(items: Iterable<A>): Chunk.Chunk<A> {
    const surplus: Array<A> = []
    for (const item of items) if (!this.offer(item)) surplus.push(item)
    return Chunk.unsafeFromArray(surplus)
  }

  poll<Default>(fallback: Default): A | Default {
    if (this.length() === 0) return fallback
    const item = this.#take()
    this.#watchLow()
    return item
  }

  pollUpTo(limit: number): Chunk.Chunk<A> {
    const taken: Array<A> = []
    while (taken.length < limit && this.length() > 0) taken.push(this.#take())
    this.#watchLow()
    return Chunk.unsafeFromArray(taken)
  }

  peek(): A | undefined {
    return this.#chunks[0]?.[this.#head]
  }

  #watchLow(): void {
    if (!this.#high || this.length() > this.#limit * lowWaterMark) return
    this.#high = false
    this.#listener.onLowWater(this.length())
  }

  #take(): A {
    const [first] = this.#chunks
    const item = first![this.#head++]!
    this.#length--
    if (this.#head === first!.length) {
      this.#chunks.shift()
      this.#head = 0
    }
    return item
  }
}

/** The bounded line of items on their way to the server. */
export interface Line<A> {
  readonly size: () => number
  /** Puts an item at the end. False: it is full, and under its policy the item doesn't enter; nothing was changed. */
  readonly offer: (item: A) => boolean
  /**
   * Under `pause`, calls `enter` when there is room for `places`, in the order of the calls, or at {@link close}; `enter`
   * should offer so many, and must not throw. False: too many wait already, there never is so much room, or the policy
   * doesn't let anyone wait.
   */
  readonly whenRoom: (enter: () => void, places?: number) => boolean
  /** How many wait in {@link whenRoom}. */
  readonly waiting: () => number
  /** The item that has waited longest. */
  readonly peek: () => A | undefined
  /** Waits until there are items. */
  readonly nonEmpty: Effect.Effect<void>
  /** Takes up to `max` items without waiting, and lets in who waited for room. */
  readonly take: (max: number) => Effect.Effect<ReadonlyArray<A>>
  /** Nothing is taken any more: calls all who wait for room, though there may be none. */
  readonly close: () => void
}

interface Waiting {
  readonly enter: () => void
  readonly places: number
}

/** An empty line. `strategy` decides which of Effect's queues it is; see the head of this file. */
export const make = Effect.fnUntraced(function*<A>(options: Options, listener: Listener<A>) {
  const ring = new Ring<A>(options.capacity, options.strategy === "drop-oldest", listener)
  const queue = yield* Queue.make<A>(
    ring,
    options.strategy === "pause"
      ? Queue.backPressureStrategy()
      : options.strategy === "throw"
      ? Queue.droppingStrategy()
      : Queue.slidingStrategy()
  )
  const waiting = MutableQueue.bounded<Waiting>(options.strategy === "pause" ? options.waitingMax : 0)
  /** The first of those who wait: the next to enter, however much room it asks for. */
  let first: Waiting | undefined
  const inLine = () => MutableQueue.length(waiting) + (first === undefined ? 0 : 1)
  const available = Effect.unsafeMakeLatch(false)
  const admit = () => {
    while (true) {
      first ??= MutableQueue.poll(waiting, undefined)
      if (first === undefined || ring.length() + first.places > options.capacity) return
      const { enter } = first
      first = undefined
      enter()
    }
  }
  const line: Line<A> = {
    size: () => ring.length(),
    offer: (item) => {
      const entered = queue.unsafeOffer(item)
      if (entered) available.unsafeOpen()
      return entered
    },
    whenRoom: (enter, places = 1) =>
      options.strategy === "pause" && places <= options.capacity && inLine() < options.waitingMax &&
      MutableQueue.offer(waiting, { enter, places }),
    waiting: inLine,
    peek: () => ring.peek(),
    nonEmpty: available.await,
    take: (max) =>
      Effect.map(Queue.takeUpTo(queue, max), (taken) => {
        admit()
        if (ring.length() === 0) available.unsafeClose()
        return Chunk.toReadonlyArray(taken)
      }),
    close: () => {
      const all = [...first === undefined ? [] : [first], ...MutableQueue.pollUpTo(waiting, options.waitingMax)]
      first = undefined
      for (const { enter } of all) enter()
    }
  }
  return line
})
