/** When the values of a replica expire: what is due next, found without looking at all of them. */

/** A cell whose value is to expire, unless another one takes its place. */
export interface Expiring {
  /** When, in ms. */
  readonly at: number
  readonly map: string
  readonly cell: string
}

/** A heap is looked through for what was replaced each time that it has doubled, from this size on. */
const sweepSizeMin = 1_024

/** Cells by the time of their expiry: a binary heap (Williams 1964), the earliest first. */
export class ExpiryHeap {
  readonly #isCurrent: (expiring: Expiring) => boolean
  #heap: Array<Expiring> = []
  #sweepSize = sweepSizeMin

  /**
   * `isCurrent` says whether a cell still has the value that was to expire then: what hasn't is never given, and not kept for
   * long.
   */
  constructor(isCurrent: (expiring: Expiring) => boolean) {
    this.#isCurrent = isCurrent
  }

  /** When the first one is due, in ms; `undefined` when there is none. */
  get next(): number | undefined {
    return this.#heap[0]?.at
  }

  /** How many it holds, replaced ones included. */
  get size(): number {
    return this.#heap.length
  }

  add(expiring: Expiring): void {
    // A cell that is written again and again leaves a time behind at each write.
    if (this.#heap.length >= this.#sweepSize) this.#sweep()
    this.#push(expiring)
  }

  /** Takes those that are due at `now`, the earliest first, `max` at most. */
  take(now: number, max = Number.POSITIVE_INFINITY): ReadonlyArray<Expiring> {
    const due: Array<Expiring> = []
    while (due.length < max && this.#heap.length > 0 && this.#heap[0]!.at <= now) {
      const first = this.#takeFirst()
      if (this.#isCurrent(first)) due.push(first)
    }
    return due
  }

  #sweep(): void {
    const kept = this.#heap.filter(this.#isCurrent)
    this.#heap = []
    for (const each of kept) this.#push(each)
    this.#sweepSize = Math.max(sweepSizeMin, kept.length * 2)
  }

  #push(expiring: Expiring): void {
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
