/** Raw deflate (RFC 1951), at once. */
import { deflateRawSync, inflateRawSync } from "node:zlib"

/** Fewer bytes that {@link inflate} makes the same of; `undefined` where this platform sends as it is. */
export const deflate = (bytes: Uint8Array): Uint8Array | undefined =>
  deflateRawSync(bytes, { level: 1, windowBits: 13, memLevel: 7 })

/** The `length` bytes that were deflated, or fewer. Throws where they were more, or something else. */
export const inflate = (bytes: Uint8Array, length: number): Uint8Array =>
  inflateRawSync(bytes, { maxOutputLength: length, chunkSize: Math.max(64, length) })
