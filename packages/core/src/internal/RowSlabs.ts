/**
 * Memory for the rows of one map, many side by side in one buffer: V8 keeps a buffer of its own for every larger typed
 * array, which costs 0.9 µs and some 250 bytes beside the row, and most of the collector's time.
 *
 * A slab lives as long as one of its rows does, so whoever frees rows must move others, see {@link RowSlabs.freed}: for
 * each byte that dies one that lives is copied to the newest slab. Going round all rows then takes as many dead bytes as
 * there are live ones, so that slabs never hold much more than twice what is alive.
 */

/** Rows above this have a buffer of their own. */
const rowBytesMax = 1024
const slabBytesMin = 512
const slabBytesMax = 64 * 1024

export class RowSlabs {
  #slab = new ArrayBuffer(0)
  #used = 0
  #debt = 0

  /** Room for a row, zeroed. */
  allocate(length: number): Uint8Array {
    if (length > rowBytesMax) return new Uint8Array(length)
    if (this.#used + length > this.#slab.byteLength) {
      // Slabs grow with the map, so that a small one doesn't take much.
      const size = Math.min(slabBytesMax, Math.max(slabBytesMin, this.#slab.byteLength * 2, length))
      this.#slab = new ArrayBuffer(size)
      this.#used = 0
    }
    const row = new Uint8Array(this.#slab, this.#used, length)
    this.#used += length
    return row
  }

  /** A copy of a row, in the newest slab. */
  copy(row: Uint8Array): Uint8Array {
    const own = this.allocate(row.length)
    own.set(row)
    return own
  }

  /** Whether the row lies in the newest slab or, a large one, in a buffer of its own: nothing is gained by moving it. */
  isSettled(row: Uint8Array): boolean {
    return row.length > rowBytesMax ? row.buffer.byteLength === row.length : row.buffer === this.#slab
  }

  /** A row has died. Answers how many bytes of live rows are to be moved for it now. */
  freed(row: Uint8Array): number {
    if (row.length <= rowBytesMax) this.#debt += row.length
    return this.#debt
  }

  /** So many bytes of live rows were moved, or were found not to need it. */
  moved(bytes: number): void {
    this.#debt = Math.max(0, this.#debt - bytes)
  }
}
