/**
 * The rows of a query as they were told, whatever has become of the records since, and the messages that tell them. A version that
 * nobody would see makes none. Pure.
 */
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as Protocol from "@topgun/core/Protocol"
import * as Value from "@topgun/core/Value"

/** Keys in one page, at most: as many fit into a frame, whatever they are. */
const leftMax = 256

/** Whether two rows say the same, whatever their stamps. */
const isAlike = (a: Uint8Array, b: Uint8Array): boolean =>
  Value.compareBytes(a.subarray(LwwRecord.stampBytes), b.subarray(LwwRecord.stampBytes)) === 0

/** Scores as they travel. */
const scoreBytes = (scores: ReadonlyArray<number>): Uint8Array => {
  const bytes = new DataView(new ArrayBuffer(scores.length * 8))
  scores.forEach((score, i) => bytes.setFloat64(i * 8, score))
  return new Uint8Array(bytes.buffer)
}

/** See the head of this file. */
export class ToldRows {
  readonly #number: number
  readonly #rows = new Map<string, Uint8Array>()
  #bytes = 0
  #version = 0
  #hasMore = false
  #scores: ReadonlyMap<string, number> | undefined
  /** What has changed since the last version, each key once. */
  #put: Array<string> = []
  #left: Array<string> = []

  /** @param number By which the query is spoken of. */
  constructor(number: number) {
    this.#number = number
  }

  /** Of what is told; 0 before the first. */
  get version(): number {
    return this.#version
  }

  /** Of all rows and their keys, at most. */
  get bytes(): number {
    return this.#bytes
  }

  /** Takes in a row; one that says the same as before isn't told where that is asked for, nor what its stamp is now. */
  put(key: string, row: Uint8Array, isToldWhenOther: boolean): void {
    const before = this.#rows.get(key)
    if (isToldWhenOther && before !== undefined && isAlike(before, row)) return
    this.#bytes += row.length + (before === undefined ? key.length * 3 : -before.length)
    // A copy: what is a view of a map's memory would keep much more of it than itself.
    this.#rows.set(key, row.slice())
    this.#put.push(key)
  }

  delete(key: string): void {
    this.#bytes -= this.#rows.get(key)!.length + key.length * 3
    this.#rows.delete(key)
    this.#left.push(key)
  }

  /**
   * Makes the next version. Answers what has changed since the one before, in pages that fit into frames; nothing of the first, of which there is
   * {@link all}; `undefined` where there is none, as nothing has changed.
   */
  next(hasMore: boolean, scores: ReadonlyMap<string, number> | undefined): ReadonlyArray<Uint8Array> | undefined {
    const [put, left] = [this.#put, this.#left]
    this.#put = []
    this.#left = []
    if (this.#version > 0 && put.length === 0 && left.length === 0 && hasMore === this.#hasMore) return undefined
    this.#hasMore = hasMore
    this.#scores = scores
    this.#version++
    return this.#version === 1 ? [] : this.#encode(put, left, this.#version - 1)
  }

  /** All rows of the present version, in pages that fit into frames. */
  all(): ReadonlyArray<Uint8Array> {
    return this.#encode(Array.from(this.#rows.keys()), [], 0)
  }

  #encode(keys: ReadonlyArray<string>, left: ReadonlyArray<string>, after: number): ReadonlyArray<Uint8Array> {
    const pages: Array<Uint8Array> = []
    const scores = this.#scores
    let gone: ReadonlyArray<string> = []
    let records: Array<Protocol.RecordTuple> = []
    let bytes = 0
    const cut = (isLast: boolean): void => {
      pages.push(Protocol.encode({
        _tag: "QueryRows",
        query: this.#number,
        version: this.#version,
        after,
        isLast,
        hasMore: this.#hasMore,
        left: gone,
        scores: scores === undefined ? null : scoreBytes(records.map(([key]) => scores.get(key)!)),
        records
      }))
      gone = []
      records = []
      bytes = 0
    }
    for (let at = 0; at < left.length; at += leftMax) {
      gone = left.slice(at, at + leftMax)
      if (at + leftMax < left.length) cut(false)
    }
    for (const key of keys) {
      const row = this.#rows.get(key)!
      const size = key.length * 3 + row.length
      if (bytes > 0 && bytes + size > Protocol.batchBytesMax) cut(false)
      records.push([key, row])
      bytes += size
    }
    cut(true)
    return pages
  }
}
