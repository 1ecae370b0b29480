/**
 * Rows as they're stored, encrypted: where each is, and what is there.
 *
 * A row's *place* is the key that it has in the storage below: 22 letters for its space and 22 for its key, each half an
 * HMAC-SHA-256, so that who has no key can neither read nor make one. What is there is
 *
 *     format (1 byte) · id of the data key (4) · IV (12) · ciphertext and tag of: length of the key (4) · key · value
 *
 * The tag covers format, id, place and the storage's name too. So at any other place, under another name or key, or with a
 * bit turned, it's no row; nothing of it is looked at before that is known.
 */
import { type Bytes, concat, readText, toBase64, writeText } from "./Bytes.ts"
import { ivBytes } from "./Randomness.ts"

const format = 1
const ivAt = 5
const headBytes = ivAt + ivBytes
const tagBytes = 16
/** Of an HMAC: no two texts meet by chance. */
const placeBytes = 16
/** Letters of a space's half of a place. */
export const spaceLetters = 22
/** A client's spaces are a few for each map. */
const spacesMax = 1_000

/** A row that was read. */
export interface ClearRow {
  readonly key: string
  readonly value: Uint8Array
}

export interface RowCipher {
  /** What the places of a space's rows begin with. */
  readonly spaceOf: (space: string) => Promise<string>
  readonly placeOf: (space: string, key: string) => Promise<string>
  /** An `iv` serves once. */
  readonly seal: (place: string, row: ClearRow, keyId: number, iv: Bytes) => Promise<Uint8Array>
  /** The row that is stored at a place; `undefined` when it's not one that was sealed for it. */
  readonly unseal: (place: string, stored: Uint8Array) => Promise<ClearRow | undefined>
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** The id of the key that a row says it's encrypted with; 0, which none has, where it's nothing of the kind. */
export const keyIdOf = (stored: Uint8Array): number =>
  stored.length < headBytes + tagBytes || stored[0] !== format ? 0 : viewOf(stored).getUint32(1)

const headOf = (keyId: number, iv: Bytes): Bytes => {
  const head = new Uint8Array(headBytes)
  head[0] = format
  viewOf(head).setUint32(1, keyId)
  head.set(iv, ivAt)
  return head
}

/** What a tag covers beside the row: as long as it is, no two of them are alike. */
const boundTo = (name: string, place: string, keyId: number): Bytes => {
  const bound = new Uint8Array(ivAt + 2 * (place.length + name.length))
  bound[0] = format
  viewOf(bound).setUint32(1, keyId)
  writeText(name, bound, writeText(place, bound, ivAt))
  return bound
}

const clearBytes = ({ key, value }: ClearRow): Bytes => {
  const clear = new Uint8Array(4 + 2 * key.length + value.length)
  viewOf(clear).setUint32(0, key.length)
  clear.set(value, writeText(key, clear, 4))
  return clear
}

const clearRow = (decrypted: ArrayBuffer): ClearRow => {
  const clear = new Uint8Array(decrypted)
  const units = viewOf(clear).getUint32(0)
  return { key: readText(clear, 4, units), value: clear.slice(4 + 2 * units) }
}

const unsealed: Promise<undefined> = Promise.resolve(undefined)

/** What WebCrypto says of a tag that doesn't fit; anything else is no matter of the row. */
const refused = (fault: unknown): undefined => {
  if ((fault as Partial<Error> | null)?.name !== "OperationError") throw fault
}

/** The cipher of the storage `name`: places by one key, rows by those that `dataKey` knows. */
export const rowCipher = (
  name: string,
  places: CryptoKey,
  dataKey: (id: number) => CryptoKey | undefined
): RowCipher => {
  const { subtle } = crypto
  const spaces = new Map<string, Bytes>()

  const hmac = async (bytes: Bytes): Promise<Bytes> =>
    new Uint8Array(await subtle.sign("HMAC", places, bytes)).slice(0, placeBytes)

  const spaceBytes = async (space: string): Promise<Bytes> => {
    const known = spaces.get(space)
    if (known !== undefined) return known
    const text = new Uint8Array(1 + 2 * space.length)
    writeText(space, text, 1)
    const made = await hmac(text)
    if (spaces.size >= spacesMax) spaces.clear()
    spaces.set(space, made)
    return made
  }

  return {
    spaceOf: async (space) => toBase64(await spaceBytes(space)),
    placeOf: async (space, key) => {
      const half = await spaceBytes(space)
      const text = new Uint8Array(1 + placeBytes + 2 * key.length)
      // Told from a space's by the first byte.
      text[0] = 1
      text.set(half, 1)
      writeText(key, text, 1 + placeBytes)
      return toBase64(half) + toBase64(await hmac(text))
    },
    seal: async (place, row, keyId, iv) => {
      const how = { name: "AES-GCM", iv, additionalData: boundTo(name, place, keyId) }
      return concat(headOf(keyId, iv), new Uint8Array(await subtle.encrypt(how, dataKey(keyId)!, clearBytes(row))))
    },
    unseal: (place, stored) => {
      const keyId = keyIdOf(stored)
      const key = dataKey(keyId)
      if (key === undefined) return unsealed
      // A view of what nobody else writes to: WebCrypto takes its own copy.
      const own = stored as Bytes
      const how = {
        name: "AES-GCM",
        iv: own.subarray(ivAt, headBytes),
        additionalData: boundTo(name, place, keyId)
      }
      return subtle.decrypt(how, key, own.subarray(headBytes)).then(clearRow, refused)
    }
  }
}
