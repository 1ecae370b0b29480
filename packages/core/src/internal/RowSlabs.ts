/**
 * Memory for the rows of one map: many side by side in one buffer, found by an address of 32 bits. A typed array of its
 * own costs V8 some 250 bytes beside the row, 0.9 µs, and most of the collector's time.
 *
 * A row is written once, at the end of the newest slab, and its bytes stay as they are for as long as anyone has a view of
 * them. Before its bytes a row has 8 more: the slot of the key that it belongs to, -1 once it is freed, and its length.
 *
 * Of every slab but the newest at least half is alive: when less is, what lives there moves to the newest one and the slab
 * is dropped. Moving costs no more than the dying before it. A new slab has room for eight times what is alive, so that a map
 * whose few records are written over and over stays small: all slabs together hold at most about ten times what is alive,
 * and twice once that fills many slabs.
 */

/** A row's place: the slab's number and, in its lowest 14 bits, the row's offset in words. Never 0. */
export type Address = number

const OFFSET_BITS = 14
const OFFSET_MASK = (1 << OFFSET_BITS) - 1
const WORD_BYTES = 4
const HEADER_BYTES = 8
/** 64 KiB: what an offset can reach. */
const slabBytesMax = WORD_BYTES << OFFSET_BITS
const slabBytesMin = 256
/** How many times what is alive the newest slab has room for, at most: with 3 a write costs half as much again. */
const roomFactor = 8
/** Larger rows have a slab of their own. */
const rowBytesMax = slabBytesMax / 8
const slabsMax = 2 ** (32 - OFFSET_BITS)

class Slab {
  readonly bytes: Uint8Array
  readonly view: DataView
  used = 0
  /** How many of the used bytes belong to rows that aren't freed. */
  alive = 0

  constructor(length: number) {
    const buffer = new ArrayBuffer(length)
    this.bytes = new Uint8Array(buffer)
    this.view = new DataView(buffer)
  }
}

/** What a row takes, in whole words. */
const spaceOf = (length: number): number => (HEADER_BYTES + length + WORD_BYTES - 1) & -WORD_BYTES

/** See the head of this file. */
export class RowSlabs {
  /** Slabs by number. Number 0 isn't used, so that no address is 0. */
  readonly #slabs: Array<Slab | undefined> = [undefined]
  readonly #vacant: Array<number> = []
  readonly #onMove: (slot: number, from: Address, to: Address) => void
  #newest = 0
  /** Bytes of rows that aren't freed, in all slabs. */
  #alive = 0

  /** `onMove` hears of each row that moves; the slot is the one it was added with. */
  constructor(onMove: (slot: number, from: Address, to: Address) => void) {
    this.#onMove = onMove
  }

  /** Takes in a copy of the bytes in [start, end) as a row of `slot`. */
  add(slot: number, source: Uint8Array, start: number, end: number): Address {
    const address = this.reserve(slot, end - start)
    this.fill(address, source, start, end)
    return address
  }

  /** Copies the bytes in [start, end) to a row that was reserved for so many. */
  fill(address: Address, source: Uint8Array, start: number, end: number): void {
    const { bytes } = this.#slabAt(address)
    let to = startOf(address)
    // Below this length a loop is faster than a view and a native copy.
    if (end - start <= 48) { for (let from = start; from < end; from++) bytes[to++] = source[from]! }
    else bytes.set(start === 0 && end === source.length ? source : source.subarray(start, end), to)
  }

  /** Room for a row of `slot`, zeroed, to be written at once. */
  reserve(slot: number, length: number): Address {
    const space = spaceOf(length)
    let number = this.#newest
    let slab = this.#slabs[number]
    if (space > rowBytesMax) {
      number = this.#open(space)
      slab = this.#slabs[number]!
    } else if (slab === undefined || slab.used + space > slab.bytes.length) {
      // Slabs grow with the map, so that a small one doesn't take much.
      const room = Math.min((slab?.bytes.length ?? 0) * 2, this.#alive * roomFactor)
      number = this.#open(Math.min(slabBytesMax, Math.max(slabBytesMin, room, space)))
      const full = this.#newest
      this.#newest = number
      this.#settle(full)
      return this.reserve(slot, length)
    }
    const at = slab.used
    slab.view.setInt32(at, slot)
    slab.view.setInt32(at + 4, length)
    slab.used += space
    slab.alive += space
    this.#alive += space
    return number << OFFSET_BITS | at / WORD_BYTES
  }

  /** A row isn't needed any more. Others may move now. */
  free(address: Address): void {
    const number = this.#bury(address)
    if (number !== this.#newest) this.#settle(number)
  }

  /** The buffer in which a row lies, from {@link startOf} on. */
  bytesOf(address: Address): Uint8Array {
    return this.#slabAt(address).bytes
  }

  /** As {@link bytesOf}, for reading words. */
  viewOf(address: Address): DataView {
    return this.#slabAt(address).view
  }

  /** The bytes of a row. */
  lengthOf(address: Address): number {
    return this.#slabAt(address).view.getInt32(startOf(address) - 4)
  }

  /** A view of a row, which stays as it is even when the row is freed. It keeps the whole slab from the collector. */
  rowAt(address: Address): Uint8Array {
    const { bytes, view } = this.#slabAt(address)
    const start = startOf(address)
    return bytes.subarray(start, start + view.getInt32(start - 4))
  }

  #slabAt(address: Address): Slab {
    return this.#slabs[address >>> OFFSET_BITS]!
  }

  #open(length: number): number {
    const slab = new Slab(length)
    if (this.#vacant.length === 0 && this.#slabs.length === slabsMax) {
      throw new RangeError(`a map's rows fill no more than ${slabsMax} slabs`)
    }
    const number = this.#vacant.pop() ?? this.#slabs.length
    this.#slabs[number] = slab
    return number
  }

  /** Marks a row as dead; answers its slab. */
  #bury(address: Address): number {
    const number = address >>> OFFSET_BITS
    const slab = this.#slabs[number]!
    const at = startOf(address) - HEADER_BYTES
    const space = spaceOf(slab.view.getInt32(at + 4))
    slab.alive -= space
    this.#alive -= space
    slab.view.setInt32(at, -1)
    return number
  }

  /** Of a slab that isn't the newest: moves its rows away when less than half of it is alive. */
  #settle(number: number): void {
    const slab = this.#slabs[number]
    if (slab === undefined || slab.alive * 2 >= slab.used) return
    for (let at = 0; at < slab.used;) {
      const slot = slab.view.getInt32(at)
      const length = slab.view.getInt32(at + 4)
      if (slot >= 0) {
        const start = at + HEADER_BYTES
        this.#onMove(slot, number << OFFSET_BITS | at / WORD_BYTES, this.add(slot, slab.bytes, start, start + length))
      }
      at += spaceOf(length)
    }
    this.#alive -= slab.alive
    this.#slabs[number] = undefined
    this.#vacant.push(number)
  }
}

/** Where the bytes of a row begin in its buffer. */
export const startOf = (address: Address): number => (address & OFFSET_MASK) * WORD_BYTES + HEADER_BYTES

/** The order of `Value.compareBytes`, of parts of two buffers: negative, zero or positive. */
export const compareRanges = (
  a: Uint8Array,
  aStart: number,
  aEnd: number,
  b: Uint8Array,
  bStart: number,
  bEnd: number
): number => {
  const common = Math.min(aEnd - aStart, bEnd - bStart)
  for (let i = 0; i < common; i++) {
    const difference = a[aStart + i]! - b[bStart + i]!
    if (difference !== 0) return difference
  }
  return aEnd - aStart - (bEnd - bStart)
}
