/** How what a user or an application knows becomes the key that the storage's own keys are encrypted with. */
import { StorageFault } from "@topgun/core/StorageAdapter"
import { type Bytes, fromBase64, toBase64 } from "./Bytes.ts"

/** What a storage is opened with. */
export type EncryptionKey = {
  /**
   * What the user knows. It is taken in Unicode's form NFKC, so that it's the same from every keyboard; nothing is trimmed.
   * Whoever has a copy of the storage can try as many as he has machines for: let it be long.
   */
  readonly passphrase: string
  /** Rounds of PBKDF2 for what is derived from now on. More: opening takes longer, and so does every guess. @default 600,000 */
  readonly iterations?: number
} | {
  /** At least 32 random bytes that the application keeps elsewhere: in a keychain, or behind a passkey. */
  readonly secret: Uint8Array
}

/** Rounds of PBKDF2, at least: fewer are refused, in options as in what is stored. */
export const iterationsMin = 600_000
/** Rounds of PBKDF2, at most: whoever edits the storage can't have the device count for a day. */
export const iterationsMax = 10_000_000

export const secretBytesMin = 32
const saltBytes = { min: 16, made: 32, max: 64 } as const

/** How a key is derived. Stored in the clear: it's needed before there is a key. */
export type Derivation =
  | { readonly name: "PBKDF2"; readonly hash: "SHA-256"; readonly iterations: number; readonly salt: string }
  | { readonly name: "HKDF"; readonly hash: "SHA-256"; readonly salt: string }

const isIterations = (value: unknown): value is number =>
  Number.isSafeInteger(value) && Number(value) >= iterationsMin && Number(value) <= iterationsMax

/**
 * A key of one's own, as nobody can change it any more.
 *
 * @throws RangeError when it's weaker than it may be.
 */
export const checkedKey = (key: EncryptionKey): EncryptionKey => {
  if ("secret" in key) {
    if (key.secret.length < secretBytesMin) {
      throw new RangeError(`a secret has at least ${secretBytesMin} random bytes; what a user knows is a passphrase`)
    }
    return { secret: key.secret.slice() }
  }
  const { iterations = iterationsMin, passphrase } = key
  if (passphrase === "") throw new RangeError("an empty passphrase keeps nobody out")
  if (!isIterations(iterations)) {
    throw new RangeError(`iterations are a whole number from ${iterationsMin} to ${iterationsMax}`)
  }
  return { passphrase: passphrase.normalize("NFKC"), iterations }
}

/** The derivation for a key that is new here. */
export const derivationFor = (key: EncryptionKey, randomBytes: (length: number) => Bytes): Derivation => {
  const salt = toBase64(randomBytes(saltBytes.made))
  return "secret" in key
    ? { name: "HKDF", hash: "SHA-256", salt }
    : { name: "PBKDF2", hash: "SHA-256", iterations: key.iterations ?? iterationsMin, salt }
}

/** The derivation that is stored; `undefined` when it's none, or weaker than any that this version writes. */
export const readDerivation = (stored: unknown): Derivation | undefined => {
  if (typeof stored !== "object" || stored === null) return undefined
  const { hash, iterations, name, salt } = stored as Partial<Record<string, unknown>>
  if (hash !== "SHA-256" || typeof salt !== "string" || !/^[\w-]+$/.test(salt)) return undefined
  const { length } = fromBase64(salt)
  if (length < saltBytes.min || length > saltBytes.max) return undefined
  if (name === "HKDF") return { name, hash, salt }
  return name === "PBKDF2" && isIterations(iterations) ? { name, hash, iterations, salt } : undefined
}

/** The key that encrypts the storage's own keys, which can't be taken out of WebCrypto. */
export const deriveKey = async (key: EncryptionKey, derivation: Derivation): Promise<CryptoKey> => {
  const { subtle } = crypto
  const salt = fromBase64(derivation.salt)
  const derived = { name: "AES-GCM", length: 256 }
  if ("secret" in key && derivation.name === "HKDF") {
    const base = await subtle.importKey("raw", key.secret.slice(), "HKDF", false, ["deriveKey"])
    const info = new TextEncoder().encode("topgun key encryption 1")
    const how = { name: "HKDF", hash: derivation.hash, salt, info }
    return subtle.deriveKey(how, base, derived, false, ["encrypt", "decrypt"])
  }
  if ("passphrase" in key && derivation.name === "PBKDF2") {
    const bytes = new TextEncoder().encode(key.passphrase)
    const base = await subtle.importKey("raw", bytes, "PBKDF2", false, ["deriveKey"])
    const how = { name: "PBKDF2", hash: derivation.hash, salt, iterations: derivation.iterations }
    return subtle.deriveKey(how, base, derived, false, ["encrypt", "decrypt"])
  }
  throw new StorageFault(
    "key",
    derivation.name === "HKDF"
      ? "it is encrypted with a secret, not a passphrase"
      : "it is encrypted with a passphrase, not a secret"
  )
}
