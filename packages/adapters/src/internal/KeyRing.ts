/**
 * The keys of an encrypted storage, and the row that keeps them: its *header*. In the clear it says how the key that encrypts
 * it is derived; the rest is one ciphertext, bound to that and to the storage's name.
 */
import { StorageFault } from "@topgun/core/StorageAdapter"
import { type Bytes, fromBase64, toBase64 } from "./Bytes.ts"
import { type Derivation, readDerivation } from "./KeyDerivation.ts"

/** A key that rows are encrypted with. */
export interface DataKey {
  readonly id: number
  readonly secret: Bytes
  /** How often it may have been used: never less than it was, whatever crashes. */
  readonly reserved: number
}

/** All keys of a storage. */
export interface KeyRing {
  /** What places of rows are made with, as long as the storage lives. */
  readonly places: Bytes
  /** By their ids; the last encrypts. */
  readonly keys: ReadonlyArray<DataKey>
  /** Rows under keys with smaller ids are being encrypted anew. When all are, those keys go. */
  readonly outdated: number
}

const format = 1
const keyBytes = 32

/** The key that encrypts now. */
export const currentKey = ({ keys }: KeyRing): DataKey => keys.at(-1)!

/** Whether rows are being encrypted anew. */
export const isRotating = ({ keys, outdated }: KeyRing): boolean => keys[0]!.id < outdated

/** A ring with another key, which encrypts from now on. */
export const withNewKey = (ring: KeyRing, randomBytes: (length: number) => Bytes): KeyRing => ({
  ...ring,
  keys: [...ring.keys, { id: currentKey(ring).id + 1, secret: randomBytes(keyBytes), reserved: 0 }]
})

/** A ring whose present key may be used up to `reserved` times. */
export const withReserved = (ring: KeyRing, reserved: number): KeyRing => ({
  ...ring,
  keys: [...ring.keys.slice(0, -1), { ...currentKey(ring), reserved }]
})

/** The ring of a new storage. */
export const newRing = (randomBytes: (length: number) => Bytes): KeyRing => ({
  places: randomBytes(keyBytes),
  keys: [{ id: 1, secret: randomBytes(keyBytes), reserved: 0 }],
  outdated: 0
})

const utf8 = new TextEncoder()

const boundTo = (name: string, derivation: Derivation): Bytes =>
  utf8.encode(JSON.stringify(["topgun header", format, derivation, name]))

/** The header of the storage `name`. */
export const sealHeader = async (
  name: string,
  derivation: Derivation,
  key: CryptoKey,
  iv: Bytes,
  ring: KeyRing
): Promise<Bytes> => {
  const text = JSON.stringify({
    places: toBase64(ring.places),
    keys: ring.keys.map(({ id, reserved, secret }) => ({ id, secret: toBase64(secret), reserved })),
    outdated: ring.outdated
  })
  const bound = { name: "AES-GCM", iv, additionalData: boundTo(name, derivation) }
  const sealed = new Uint8Array(await crypto.subtle.encrypt(bound, key, utf8.encode(text)))
  return utf8.encode(JSON.stringify({ format, derivation, iv: toBase64(iv), keys: toBase64(sealed) }))
}

/** A header as far as it can be read without a key. */
export interface Header {
  readonly derivation: Derivation
  readonly iv: Bytes
  readonly sealed: Bytes
}

/**
 * Reads a header.
 *
 * @throws StorageFault when it's none, or weaker than any that this version writes.
 */
export const readHeader = (stored: Uint8Array): Header => {
  let parsed: Partial<Record<string, unknown>> | null
  let header: Partial<Header>
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(stored))
    const derivation = readDerivation(parsed?.["derivation"])
    const iv = fromBase64(String(parsed?.["iv"]))
    const sealed = fromBase64(String(parsed?.["keys"]))
    header = derivation === undefined || iv.length !== 12 ? {} : { derivation, iv, sealed }
  } catch (cause) {
    throw new StorageFault("key", "its header is damaged", { cause })
  }
  const written = parsed?.["format"]
  if (typeof written === "number" && written > format) {
    throw new Error(`it was encrypted by a newer version, in format ${written}: update the application`)
  }
  const { derivation, iv, sealed } = header
  if (written !== format || derivation === undefined || iv === undefined || sealed === undefined) {
    throw new StorageFault("key", "its header is damaged, or says that its key is derived in a way that isn't safe")
  }
  return { derivation, iv, sealed }
}

/**
 * The ring in a header.
 *
 * @throws StorageFault when `key` isn't its key.
 */
export const unsealHeader = async (
  name: string,
  { derivation, iv, sealed }: Header,
  key: CryptoKey
): Promise<KeyRing> => {
  const bound = { name: "AES-GCM", iv, additionalData: boundTo(name, derivation) }
  const text = await crypto.subtle.decrypt(bound, key, sealed).catch((cause: unknown) => {
    throw new StorageFault("key", "it is encrypted with another key, or its header was changed", { cause })
  })
  // What is authentic was written by sealHeader.
  const { keys, outdated, places } = JSON.parse(new TextDecoder().decode(text)) as {
    readonly places: string
    readonly keys: ReadonlyArray<{ readonly id: number; readonly secret: string; readonly reserved: number }>
    readonly outdated: number
  }
  return {
    places: fromBase64(places),
    keys: keys.map(({ id, reserved, secret }) => ({ id, secret: fromBase64(secret), reserved })),
    outdated
  }
}
