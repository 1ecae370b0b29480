/** Bytes as base64 (RFC 4648), in browsers and in Node alike. */

/** Characters that one call takes as arguments. */
const charactersMax = 8_192

export const toBase64 = (bytes: Uint8Array): string => {
  let text = ""
  for (let at = 0; at < bytes.length; at += charactersMax) {
    text += String.fromCharCode(...bytes.subarray(at, at + charactersMax))
  }
  return btoa(text)
}

/** @throws DOMException for what isn't base64 */
export const fromBase64 = (base64: string): Uint8Array => {
  const text = atob(base64)
  const bytes = new Uint8Array(text.length)
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at)
  return bytes
}
