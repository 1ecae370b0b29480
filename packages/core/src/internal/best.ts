/**
 * The best of many, in order, without sorting all: a heap of those kept whose root is the worst of them.
 *
 * `isBetter` is a strict order of all candidates, so that the result doesn't depend on theirs. `accept` is asked of a candidate only if
 * it is better than the worst that would be left out for it.
 */
export const bestOf = (
  candidates: Uint32Array,
  limit: number,
  isBetter: (a: number, b: number) => boolean,
  accept: (candidate: number) => boolean
): Uint32Array => {
  if (limit === 0) return new Uint32Array(0)
  const heap = new Uint32Array(Math.min(limit, candidates.length))
  let size = 0

  /** Puts a candidate in the place of the root. */
  const sink = (candidate: number): void => {
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= size) break
      if (child + 1 < size && isBetter(heap[child]!, heap[child + 1]!)) child++
      if (!isBetter(candidate, heap[child]!)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = candidate
  }

  const rise = (candidate: number): void => {
    let at = size++
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!isBetter(heap[parent]!, candidate)) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = candidate
  }

  for (let i = 0; i < candidates.length; i++) {
    const candidate = candidates[i]!
    if (size === heap.length && !isBetter(candidate, heap[0]!)) continue
    if (!accept(candidate)) continue
    if (size < heap.length) rise(candidate)
    else sink(candidate)
  }
  const best = new Uint32Array(size)
  while (size > 0) {
    best[size - 1] = heap[0]!
    size--
    if (size > 0) sink(heap[size]!)
  }
  return best
}
