/**
 * Strict UTF-8: a text has at most one encoding and a byte sequence at most one text, so equal texts have equal bytes.
 * What has none, a lone surrogate or an overlong form, is refused instead of replaced by U+FFFD as `TextEncoder` and
 * `TextDecoder` would.
 */

/** Bytes of a text in UTF-8, or -1 when it holds a lone surrogate. */
export const utf8Length = (text: string): number => {
  let bytes = text.length
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    if (unit < 0x80) continue
    if (unit < 0x800) {
      bytes++
      continue
    }
    bytes += 2
    if ((unit & 0xf800) !== 0xd800) continue
    if (unit > 0xdbff || i + 1 === text.length || (text.charCodeAt(i + 1) & 0xfc00) !== 0xdc00) return -1
    // A pair has four bytes, and was counted as 1 + 2 for this unit and 1 for the next.
    i++
  }
  return bytes
}

/**
 * Writes a text at `offset` and returns how many bytes it took, or -1 when it holds a lone surrogate (what was written
 * till then stays). The target must have room: three bytes a UTF-16 unit always suffice.
 */
export const utf8Write = (text: string, target: Uint8Array, offset: number): number => {
  let at = offset
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    if (unit < 0x80) {
      target[at++] = unit
    } else if (unit < 0x800) {
      target[at++] = 0xc0 | unit >>> 6
      target[at++] = 0x80 | unit & 0x3f
    } else if ((unit & 0xf800) !== 0xd800) {
      target[at++] = 0xe0 | unit >>> 12
      target[at++] = 0x80 | unit >>> 6 & 0x3f
      target[at++] = 0x80 | unit & 0x3f
    } else {
      if (unit > 0xdbff || ++i === text.length) return -1
      const low = text.charCodeAt(i)
      if ((low & 0xfc00) !== 0xdc00) return -1
      const point = 0x10000 + ((unit & 0x3ff) << 10 | low & 0x3ff)
      target[at++] = 0xf0 | point >>> 18
      target[at++] = 0x80 | point >>> 12 & 0x3f
      target[at++] = 0x80 | point >>> 6 & 0x3f
      target[at++] = 0x80 | point & 0x3f
    }
  }
  return at - offset
}

/** Whether the bytes in [start, end) are well-formed UTF-8 (Unicode 15, table 3-7): no overlong forms, no surrogates. */
export const utf8IsValid = (bytes: Uint8Array, start: number, end: number): boolean => {
  let at = start
  for (;;) {
    while (at + 4 <= end && (bytes[at]! | bytes[at + 1]! | bytes[at + 2]! | bytes[at + 3]!) < 0x80) at += 4
    while (at < end && bytes[at]! < 0x80) at++
    if (at >= end) return true
    const lead = bytes[at++]!
    if (lead < 0xc2 || lead > 0xf4) return false
    if (at >= end) return false
    const second = bytes[at++]!
    if (lead < 0xe0) {
      if ((second & 0xc0) !== 0x80) return false
      continue
    }
    const lowest = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80
    const highest = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf
    if (second < lowest || second > highest) return false
    for (let more = lead < 0xf0 ? 1 : 2; more > 0; more--) {
      if (at >= end || (bytes[at++]! & 0xc0) !== 0x80) return false
    }
  }
}

// `ignoreBOM`, or a text that begins with U+FEFF would lose it.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

/** Above this many bytes the native decoder, with its fixed cost per call, is the faster one. */
const SHORT_BYTES_MAX = 48

/**
 * For each length an array to put a text's code units in. `fromCharCode` makes one flat string of them all; texts put
 * together of parts would be ropes, which whoever reads them has to flatten.
 */
const units: ReadonlyArray<Array<number>> = Array.from(
  { length: SHORT_BYTES_MAX + 1 },
  (_, length) => Array.from({ length }, () => 0)
)

/** The text of bytes known to be well-formed: see {@link utf8IsValid}. */
export const utf8Read = (bytes: Uint8Array, start: number, end: number): string => {
  const length = end - start
  if (length > SHORT_BYTES_MAX) return decoder.decode(bytes.subarray(start, end))
  const ascii = units[length]!
  for (let i = 0; i < length; i++) {
    const byte = bytes[start + i]!
    if (byte >= 0x80) return decoder.decode(bytes.subarray(start, end))
    ascii[i] = byte
  }
  return String.fromCharCode.apply(undefined, ascii)
}
