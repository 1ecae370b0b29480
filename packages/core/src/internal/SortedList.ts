/**
 * A sorted list in chunks: what an ordered index and the rows of a live query are kept in.
 *
 * A B+ tree of two levels, of which the upper one is an array. Inserting moves at most a chunk's pointers, and as all that is
 * before a chunk is a sum over chunks, places are counted in passing: how many rows a range has, which a planner asks before it
 * chooses an index. Ordered trees of libraries keep no counts.
 */

/** Below 0 for what comes before the place that is looked for, above for what comes after, 0 for what is there. */
export type Probe<A> = (item: A) => number

/** A chunk that gets longer is cut in halves: 200,000 items make up to a thousand chunks. */
const CHUNK_LENGTH_MAX = 512

/** Items in the order of `compare`, no two of which are equal by it. */
export class SortedList<A> {
  readonly #compare: (a: A, b: A) => number
  readonly #chunks: Array<Array<A>> = []
  #size = 0

  constructor(compare: (a: A, b: A) => number) {
    this.#compare = compare
  }

  get size(): number {
    return this.#size
  }

  /** Adds an item. One that is there already is a mistake of the caller's, which isn't looked for. */
  add(item: A): void {
    this.#size++
    const chunks = this.#chunks
    if (chunks.length === 0) return void chunks.push([item])
    const index = Math.min(this.#chunkFor(item), chunks.length - 1)
    const chunk = chunks[index]!
    const at = this.#placeIn(chunk, item)
    if (at === chunk.length) chunk.push(item)
    else chunk.splice(at, 0, item)
    if (chunk.length > CHUNK_LENGTH_MAX) chunks.splice(index + 1, 0, chunk.splice(chunk.length >> 1))
  }

  /** Puts an item in the place of the one that is equal to it, which is there. */
  replace(item: A): void {
    const chunk = this.#chunks[this.#chunkFor(item)]!
    chunk[this.#placeIn(chunk, item)] = item
  }

  /** Removes the item that is equal to this one. Answers whether there was one. */
  delete(item: A): boolean {
    const chunks = this.#chunks
    const index = this.#chunkFor(item)
    if (index === chunks.length) return false
    const chunk = chunks[index]!
    const at = this.#placeIn(chunk, item)
    if (this.#compare(chunk[at]!, item) !== 0) return false
    if (chunk.length === 1) chunks.splice(index, 1)
    else if (at === chunk.length - 1) chunk.pop()
    else chunk.splice(at, 1)
    this.#size--
    return true
  }

  get last(): A | undefined {
    return this.#chunks[this.#chunks.length - 1]?.at(-1)
  }

  /** How many items come before the place that the probe is 0 or above at. */
  countBefore(probe: Probe<A>): number {
    const chunks = this.#chunks
    let low = 0
    let high = chunks.length
    while (low < high) {
      const middle = (low + high) >> 1
      const chunk = chunks[middle]!
      if (probe(chunk[chunk.length - 1]!) < 0) low = middle + 1
      else high = middle
    }
    let count = 0
    for (let i = 0; i < low; i++) count += chunks[i]!.length
    return low === chunks.length ? count : count + placeBy(chunks[low]!, probe)
  }

  /** The items from an index on, `length` at most, in their order or, with `backwards`, against it. The list may not change meanwhile. */
  *range(from: number, length: number, backwards = false): IterableIterator<A> {
    const chunks = this.#chunks
    let left = Math.min(length, backwards ? from + 1 : this.#size - from)
    if (left <= 0) return
    let index = 0
    let at = from
    while (at >= chunks[index]!.length) at -= chunks[index++]!.length
    while (left-- > 0) {
      yield chunks[index]![at]!
      if (backwards) {
        if (--at < 0 && index > 0) at = chunks[--index]!.length - 1
      } else if (++at === chunks[index]!.length) {
        index++
        at = 0
      }
    }
  }

  /** The first items, as an array of their own. */
  take(length: number): Array<A> {
    const taken: Array<A> = []
    for (const chunk of this.#chunks) {
      if (chunk.length > length - taken.length) {
        for (let i = 0; taken.length < length; i++) taken.push(chunk[i]!)
        break
      }
      for (let i = 0; i < chunk.length; i++) taken.push(chunk[i]!)
    }
    return taken
  }

  clear(): void {
    this.#chunks.length = 0
    this.#size = 0
  }

  /** The first chunk whose last item isn't before this one; their number when all are. */
  #chunkFor(item: A): number {
    const chunks = this.#chunks
    const compare = this.#compare
    let low = 0
    let high = chunks.length
    while (low < high) {
      const middle = (low + high) >> 1
      const chunk = chunks[middle]!
      if (compare(chunk[chunk.length - 1]!, item) < 0) low = middle + 1
      else high = middle
    }
    return low
  }

  #placeIn(chunk: ReadonlyArray<A>, item: A): number {
    const compare = this.#compare
    let low = 0
    let high = chunk.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (compare(chunk[middle]!, item) < 0) low = middle + 1
      else high = middle
    }
    return low
  }
}

const placeBy = <A>(chunk: ReadonlyArray<A>, probe: Probe<A>): number => {
  let low = 0
  let high = chunk.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (probe(chunk[middle]!) < 0) low = middle + 1
    else high = middle
  }
  return low
}
