/**
 * How a map's confirmed records are stored: those of a partition together in one row, its pack, but for those that have changed
 * since, which have rows of their own until there are enough of them to make the pack anew. So a map of 100,000 records is read
 * from some hundred rows, where storage needs longer for a row than for what is in it, and a change still costs one small row.
 *
 * A row of its own counts, whatever the pack says; an empty one says that there is no such record any more. Records that the
 * server hasn't got are never packed: they are written in one transaction with their operation, and nothing else is.
 */
import type { LwwMap } from "@topgun/core/LwwMap"
import { rootPath } from "@topgun/core/MerkleTree"
import type { StorageWrite } from "@topgun/core/Storage"
import * as Value from "@topgun/core/Value"

/** A pack is made anew when this share of its records has changed. Lower reads faster, higher writes less. */
const changedShareMin = 1 / 8
/** So few changes are no reason to, however small the pack is. */
const changedMin = 8
/** Records of more bytes than this together stay by themselves: their number isn't what storage is slow for. */
const packBytesMax = 256 * 1024

const noBytes = new Uint8Array(0)

/** The name of a partition's pack in its space. */
const keyOf = (partition: number): string => partition.toString().padStart(3, "0")

/** A pack's records, each with its cell. @throws MalformedMessage, ValueNotSupported or an Error for what is no pack */
export const decode = (bytes: Uint8Array, each: (cell: string, row: Uint8Array) => void): void => {
  const stored = Value.decode(bytes)
  if (!Array.isArray(stored) || stored.length % 2 !== 0) throw new Error("not a pack of records")
  for (let i = 0; i < stored.length; i += 2) {
    const cell: unknown = stored[i]
    const row: unknown = stored[i + 1]
    if (typeof cell !== "string" || !(row instanceof Uint8Array)) throw new Error("not a pack of records")
    each(cell, row)
  }
}

/** The writes of a pack, and what is to be noted when they are made. */
export interface Packing {
  readonly writes: ReadonlyArray<StorageWrite>
  readonly done: () => void
}

/** What else a cell's present state asks for. */
export interface OtherWrites {
  /** All rows of one that is in no pack. */
  readonly ofCell: (cell: string) => ReadonlyArray<StorageWrite>
  /** The row of its base, where storage has one or is to. */
  readonly ofBase: (cell: string) => StorageWrite | undefined
}

/** One map's packs, and the rows beside them. */
export class Packs {
  readonly #cells: LwwMap
  readonly #records: string
  readonly #packs: string
  /** The cells that may have a row of their own, by partition. */
  readonly #loose = new Map<number, Set<string>>()
  /** The partitions that may have a pack. */
  readonly #packed = new Set<number>()

  constructor(cells: LwwMap, spaces: { readonly records: string; readonly packs: string }) {
    this.#cells = cells
    this.#records = spaces.records
    this.#packs = spaces.packs
  }

  /** Storage has a row for this cell. */
  foundLoose(cell: string): void {
    this.#addLoose(this.#cells.partitionOf(cell), cell)
  }

  /** Storage has this cell in its partition's pack. */
  foundPacked(cell: string): void {
    this.#packed.add(this.#cells.partitionOf(cell))
  }

  /** Storage has nothing. */
  reset(): void {
    this.#loose.clear()
    this.#packed.clear()
  }

  /** The row of a cell by itself, as it is now. */
  looseWrite(cell: string): StorageWrite {
    const partition = this.#cells.partitionOf(cell)
    const record = this.#cells.getRecord(cell)
    this.#addLoose(partition, cell)
    // Of what is in no pack nothing needs to be said.
    const value = record?.row ?? (this.#packed.has(partition) ? noBytes : undefined)
    return { space: this.#records, key: cell, value }
  }

  /** A partition's pack made anew, where it's worth that once these cells have changed too. */
  pack(partition: number, changed: ReadonlySet<string>, others: OtherWrites): Packing | undefined {
    const tree = this.#cells.tree.tree(partition)
    if (tree === undefined) return undefined
    const loose = this.#loose.get(partition)
    const count = changed.size + (loose?.size ?? 0)
    if (count < changedMin || count < tree.size * changedShareMin) return undefined
    const packed: Array<Value.Value> = []
    const written = new Set<string>()
    let bytes = 0
    for (const slot of tree.slotsBelow(rootPath)) {
      const cell = tree.keys.keys[slot]!
      const record = this.#cells.getRecord(cell)
      // What is ahead of the server has its row and its operation.
      if (record === undefined || this.#cells.getBase(cell) !== undefined) continue
      bytes += cell.length + record.row.length
      if (bytes > packBytesMax) return undefined
      packed.push(cell, record.row)
      written.add(cell)
    }
    this.#packed.add(partition)
    const writes: Array<StorageWrite> = [{
      space: this.#packs,
      key: keyOf(partition),
      value: Value.encode(packed, 4 * packBytesMax)
    }]
    for (const cell of changed) {
      if (!written.has(cell) && this.#cells.getRecord(cell) !== undefined) {
        for (const write of others.ofCell(cell)) writes.push(write)
        continue
      }
      const base = others.ofBase(cell)
      if (base !== undefined) writes.push(base)
    }
    // What is in the pack now, or nowhere any more.
    const settled: Array<string> = []
    for (const cell of loose ?? []) {
      if (!written.has(cell) && this.#cells.getRecord(cell) !== undefined) continue
      settled.push(cell)
      writes.push({ space: this.#records, key: cell, value: undefined })
    }
    return {
      writes,
      done: () => {
        for (const cell of settled) loose?.delete(cell)
      }
    }
  }

  #addLoose(partition: number, cell: string): void {
    const cells = this.#loose.get(partition)
    if (cells === undefined) this.#loose.set(partition, new Set([cell]))
    else cells.add(cell)
  }
}
