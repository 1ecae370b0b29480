/** Whether a secret is one: what people put in its place until they get to it is found in lists, and tried first. */

/** A key as long as the digest that it is for (RFC 7518, section 3.2). */
const bytesMin = 32

/**
 * Bits that a secret must have at least by {@link bits}. 128 random bits written as 32 hexadecimal digits have 92 or more
 * (the least of 100,000), "changeme" four times has 78, a row of digits under 20.
 */
const bitsMin = 80

/** The words that placeholders are made of. */
const fillers =
  /secret|change|please|replace|password|passwd|default|example|sample|test|demo|dummy|insecure|production|development|local|admin|topgun|token|super|secure|private|shared|string|long|least|bytes|bits|char(acter)?s|your|this|that|with|must|value|key|jwt|auth|hmac|sha|the|and|for|not|256|512|128|123\d*|qwerty\w*/g

/** Letters and digits that are to be left of a secret without the words of placeholders. */
const lettersMin = 16

/** Shannon's entropy of the values' frequencies, in bits for all of them together. */
const entropy = (values: ReadonlyArray<number>): number => {
  const counts = new Map<number, number>()
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1)
  let bits = 0
  for (const count of counts.values()) bits -= count * Math.log2(count / values.length)
  return bits
}

/** What a secret has at most, judged by how its bytes and the steps between them vary: rows and repetitions have little. */
const bits = (bytes: Uint8Array): number => {
  const steps = Array.from(bytes.subarray(1), (byte, i) => (byte - bytes[i]!) & 255)
  return Math.min(entropy(Array.from(bytes)), entropy(steps))
}

/** Whether the bytes are some of them over and over. */
const isRepetition = (bytes: Uint8Array): boolean => {
  for (let period = 1; period <= bytes.length / 2; period++) {
    if (bytes.every((byte, i) => i < period || byte === bytes[i - period])) return true
  }
  return false
}

/** Why a text is too weak to be a key for HS256, to be put after its name; `undefined` when nothing speaks against it. */
export const weakness = (secret: string): string | undefined => {
  const bytes = new TextEncoder().encode(secret)
  if (bytes.length < bytesMin) return `has ${bytes.length} bytes, and ${bytesMin} are the least`
  if (isRepetition(bytes) || bits(bytes) < bitsMin) return "is easy to guess: it repeats itself"
  const rest = secret.toLowerCase().replaceAll(fillers, "").replaceAll(/[^\p{L}\p{N}]/gu, "")
  if (rest.length < lettersMin) return "is easy to guess: it is made of the words of examples"
  return undefined
}
