/** Bytes of one's own, text as bytes, and both as letters that a key may have. */

/** Bytes that nobody shares, as WebCrypto wants them. */
export type Bytes = Uint8Array<ArrayBuffer>

/** The code units of a text, two bytes each: lossless for every string, as UTF-8 isn't. */
export const writeText = (text: string, to: Uint8Array, at: number): number => {
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    to[at++] = unit >>> 8
    to[at++] = unit & 0xff
  }
  return at
}

/** The text that was written at `at`, of `units` code units. */
export const readText = (from: Uint8Array, at: number, units: number): string => {
  let text = ""
  for (let i = 0; i < units; i++, at += 2) text += String.fromCharCode(from[at]! << 8 | from[at + 1]!)
  return text
}

/** The parts one after the other. */
export const concat = (...parts: ReadonlyArray<Uint8Array>): Bytes => {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/** Letters, digits, `-` and `_`, without padding. */
export const toBase64 = (bytes: Uint8Array): string =>
  btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")

/**
 * What {@link toBase64} wrote.
 *
 * @throws when it's nothing of the kind.
 */
export const fromBase64 = (text: string): Bytes =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0))
