/**
 * Random bytes, watched. Under AES-GCM an IV that comes twice gives the plaintexts away, so a source that repeats itself,
 * or is silent, is never drawn from again: better no writes than that.
 */
import { StorageFault } from "@topgun/core/StorageAdapter"
import type { Bytes } from "./Bytes.ts"

/** Bytes of an IV, as AES-GCM wants it. Everything is drawn, and looked at, in pieces of that many. */
export const ivBytes = 12

/** More than 64 KiB WebCrypto doesn't give at once. */
const drawnBytesMax = Math.floor(65_536 / ivBytes) * ivBytes

/** A source of this process: two of its draws are never alike. */
export interface Randomness {
  /** @throws StorageFault when the source is broken, from then on always. */
  readonly ivs: (count: number) => ReadonlyArray<Bytes>
  /** @throws StorageFault when the source is broken, from then on always. */
  readonly bytes: (length: number) => Bytes
}

export const randomness = (): Randomness => {
  let last = new Uint8Array(ivBytes)
  let fault: StorageFault | undefined

  const draw = (count: number): Bytes => {
    if (fault !== undefined) throw fault
    const drawn = new Uint8Array(count * ivBytes)
    for (let at = 0; at < drawn.length; at += drawnBytesMax) {
      crypto.getRandomValues(drawn.subarray(at, at + drawnBytesMax))
    }
    for (let at = 0; at < drawn.length; at += ivBytes) {
      const piece = drawn.subarray(at, at + ivBytes)
      if (piece.every((byte) => byte === 0) || piece.every((byte, i) => byte === last[i])) {
        fault = new StorageFault(
          "key",
          "this device's source of random numbers repeats itself: nothing can be encrypted"
        )
        throw fault
      }
      last = piece
    }
    return drawn
  }

  // What a source that always gives the same gives first.
  draw(1)
  return {
    ivs: (count) => {
      const drawn = draw(count)
      return Array.from({ length: count }, (_, i) => drawn.subarray(i * ivBytes, (i + 1) * ivBytes))
    },
    bytes: (length) => draw(Math.ceil(length / ivBytes)).slice(0, length)
  }
}
