/**
 * Who has what: for each list the documents in it, for each document the lists that it is in, and how often each. Both ways are
 * needed, as a document is removed without its old text, and without going through lists that hold half of all documents.
 *
 * Everything is in typed arrays. An entry of a list (a cell) knows its entry of the document (a slot), and that one knows the
 * cell's position in the list, so that the list's last cell takes the place of a removed one: removal costs the number of lists of
 * the document, however long they are. Hence the cells of a list are in no order.
 */

/** The size of a list that has no block. */
const none = 0xff

/** The blocks of an array, of capacities 1, 2, 3, 4, 6, 8, 12, 16, …; a freed one is used again for its capacity. */
class Blocks {
  /** Elements of the array that were ever in use. */
  end = 0
  readonly #free: Array<Array<number>> = []

  static capacityOf(size: number): number {
    return size === 0 ? 1 : size % 2 === 1 ? 1 << ((size + 1) >> 1) : 3 << ((size >> 1) - 1)
  }

  /** The smallest size for so many elements. */
  static sizeFor(length: number): number {
    const exponent = 31 - Math.clz32(length)
    const power = 1 << exponent
    if (length === power) return Math.max(0, 2 * exponent - 1)
    return length <= power + (power >> 1) ? 2 * exponent : 2 * exponent + 1
  }

  take(size: number): number {
    const freed = this.#free[size]?.pop()
    if (freed !== undefined) return freed
    const at = this.end
    this.end += Blocks.capacityOf(size)
    return at
  }

  give(at: number, size: number): void {
    while (this.#free.length <= size) this.#free.push([])
    this.#free[size]!.push(at)
  }
}

type Numbers = Uint8Array | Uint16Array | Uint32Array

const roomFor = (length: number): number => Math.max(64, Math.ceil(length * 1.5))

/** The array itself, or a longer one with its elements. */
export const grown = <A extends Numbers | Float64Array>(array: A, length: number): A => {
  if (length <= array.length) return array
  const longer = new (array.constructor as new(length: number) => A)(roomFor(length))
  longer.set(array)
  return longer
}

export class Postings {
  // Cells, by their place.
  #docs = new Uint32Array(64)
  /** Of documents of fewer than 65,536 terms. */
  #counts = new Uint16Array(64)
  #slots = new Uint32Array(64)
  readonly #cellBlocks = new Blocks()
  // Lists, by their id.
  #starts = new Uint32Array(64)
  #lengths = new Uint32Array(64)
  #sizes = new Uint8Array(64).fill(none)
  // Slots, by their place.
  #lists = new Uint32Array(64)
  #positions = new Uint32Array(64)
  readonly #slotBlocks = new Blocks()
  // Documents, by their id.
  #firsts = new Uint32Array(64)
  #slotCounts = new Uint32Array(64)

  /** The documents of cells: those of a list from its start on. Valid until the next change, like {@link counts}. */
  get docs(): Uint32Array {
    return this.#docs
  }

  /** How often the document of a cell is in its list. */
  get counts(): Uint16Array {
    return this.#counts
  }

  start(list: number): number {
    return this.#starts[list]!
  }

  /** How many documents a list has. */
  lengthOf(list: number): number {
    return list < this.#lengths.length ? this.#lengths[list]! : 0
  }

  /** How many lists a document is in. */
  listCount(doc: number): number {
    return this.#slotCounts[doc] ?? 0
  }

  /** One of the lists that a document is in. */
  listAt(doc: number, index: number): number {
    return this.#lists[this.#firsts[doc]! + index]!
  }

  /** How often a document is in a list. */
  countOf(doc: number, list: number): number {
    const first = this.#firsts[doc]!
    const end = first + this.#slotCounts[doc]!
    for (let slot = first; slot < end; slot++) {
      if (this.#lists[slot] === list) return this.#counts[this.#starts[list]! + this.#positions[slot]!]!
    }
    return 0
  }

  /**
   * Puts a document into these lists, and out of all others. `left` hears of each list that has nobody any more; those that the
   * document stays in are never empty meanwhile.
   */
  put(doc: number, lists: ReadonlyArray<number>, counts: ReadonlyArray<number>, left: (list: number) => void): void {
    this.#firsts = grown(this.#firsts, doc + 1)
    this.#slotCounts = grown(this.#slotCounts, doc + 1)
    const oldFirst = this.#firsts[doc]!
    const oldCount = this.#slotCounts[doc]!
    if (lists.length > 0) {
      const first = this.#slotBlocks.take(Blocks.sizeFor(lists.length))
      this.#lists = grown(this.#lists, this.#slotBlocks.end)
      this.#positions = grown(this.#positions, this.#slotBlocks.end)
      this.#firsts[doc] = first
      for (let i = 0; i < lists.length; i++) this.#append(lists[i]!, doc, counts[i]!, first + i)
    }
    this.#slotCounts[doc] = lists.length
    if (oldCount > 0) {
      for (let slot = oldFirst; slot < oldFirst + oldCount; slot++) {
        const list = this.#lists[slot]!
        this.#take(list, this.#positions[slot]!)
        if (this.#lengths[list] === 0) left(list)
      }
      this.#slotBlocks.give(oldFirst, Blocks.sizeFor(oldCount))
    }
  }

  #append(list: number, doc: number, count: number, slot: number): void {
    if (list >= this.#starts.length) {
      const known = this.#sizes.length
      this.#starts = grown(this.#starts, list + 1)
      this.#lengths = grown(this.#lengths, list + 1)
      this.#sizes = grown(this.#sizes, list + 1).fill(none, known)
    }
    const length = this.#lengths[list]!
    const size = this.#sizes[list]!
    if (size === none || length === Blocks.capacityOf(size)) this.#resize(list, Blocks.sizeFor(length + 1))
    const cell = this.#starts[list]! + length
    this.#docs[cell] = doc
    this.#counts[cell] = count
    this.#slots[cell] = slot
    this.#lists[slot] = list
    this.#positions[slot] = length
    this.#lengths[list] = length + 1
  }

  #take(list: number, position: number): void {
    const length = this.#lengths[list]! - 1
    const start = this.#starts[list]!
    const last = start + length
    const cell = start + position
    this.#docs[cell] = this.#docs[last]!
    this.#counts[cell] = this.#counts[last]!
    const moved = this.#slots[last]!
    this.#slots[cell] = moved
    this.#positions[moved] = position
    this.#lengths[list] = length
    // At a quarter, so that a list which grows and shrinks in turn isn't moved each time.
    if (length * 4 <= Blocks.capacityOf(this.#sizes[list]!)) {
      this.#resize(list, length === 0 ? none : Blocks.sizeFor(length * 2))
    }
  }

  #resize(list: number, size: number): void {
    const old = this.#sizes[list]!
    if (size === old) return
    const from = this.#starts[list]!
    if (size !== none) {
      const to = this.#cellBlocks.take(size)
      this.#docs = grown(this.#docs, this.#cellBlocks.end)
      this.#counts = grown(this.#counts, this.#cellBlocks.end)
      this.#slots = grown(this.#slots, this.#cellBlocks.end)
      const end = from + this.#lengths[list]!
      if (old !== none) {
        this.#docs.copyWithin(to, from, end)
        this.#counts.copyWithin(to, from, end)
        this.#slots.copyWithin(to, from, end)
      }
      this.#starts[list] = to
    }
    if (old !== none) this.#cellBlocks.give(from, old)
    this.#sizes[list] = size
  }

  /** Bytes that it takes, room to grow included. */
  get bytes(): number {
    return this.#docs.byteLength + this.#counts.byteLength + this.#slots.byteLength + this.#starts.byteLength +
      this.#lengths.byteLength + this.#sizes.byteLength + this.#lists.byteLength + this.#positions.byteLength +
      this.#firsts.byteLength + this.#slotCounts.byteLength
  }
}
