/** Raw deflate (RFC 1951), at once: what browsers have of their own can't be called synchronously. */
import { inflateSync } from "fflate"

/** Deflating a batch in JavaScript would take longer than what it saves: a page sends as it is. */
export const deflate = (_bytes: Uint8Array): Uint8Array | undefined => undefined

/** The `length` bytes that were deflated, or another number of bytes than that. Throws where they were something else. */
export const inflate = (bytes: Uint8Array, length: number): Uint8Array =>
  // With room for one more, as what goes beyond the end is dropped without a word.
  inflateSync(bytes, { out: new Uint8Array(length + 1) })
