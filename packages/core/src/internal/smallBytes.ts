/**
 * Small arrays of bytes, carved from common chunks: in V8 an array with a buffer of its own costs 0.8 µs and a piece of the
 * system's memory, a view of a chunk a quarter of that.
 *
 * Who keeps one keeps its chunk. Chunks are small, so that even where only one row in a chunk lives on, as that of an
 * operation which waits while others around it were replaced, it costs no more than some kilobytes.
 */

const chunkBytes = 4096
/** Larger ones have a buffer of their own. */
const carvedBytesMax = chunkBytes / 4

let chunk = new ArrayBuffer(chunkBytes)
let used = 0

/** So many bytes, zeroed. Their buffer may hold others too. */
export const smallBytes = (length: number): Uint8Array => {
  if (length > carvedBytesMax) return new Uint8Array(length)
  if (used + length > chunkBytes) {
    chunk = new ArrayBuffer(chunkBytes)
    used = 0
  }
  const bytes = new Uint8Array(chunk, used, length)
  used += length
  return bytes
}
