/**
 * Storage that is encrypted on this device, over any other storage: AES-256-GCM by WebCrypto, under keys that a passphrase or
 * a secret unlocks. It needs no Effect, and runs in browsers (in secure contexts, as WebCrypto does) and in Node.
 *
 * **What who holds the device's files sees**: that it's encrypted, and how the key is derived; how many rows there are,
 * which of them belong to one space, and how long each is, key and value together, to the byte; which rows change when; and
 * the name that the storage was opened by, as the one below may keep it. Not what is in a row, nor the keys, nor the names of
 * maps. Who can guess neither passphrase nor secret can't find out whether a certain key is there either.
 *
 * **What who changes the files can do**: delete all or some of it, and put a row, the header or everything back to what it
 * was at the same place earlier: AES-GCM can't know that there has been something newer. Nothing else is believed. A row
 * that was changed, moved, cut, copied from elsewhere or written in the clear is answered as {@link unreadable}, at a key
 * of its own that begins with U+FFFF: so the client leaves it out and tells of it, refuses to open where it has to, and
 * gets the record from the server again. Deleting that key deletes the row.
 *
 * **While it's open** the keys are in this process's memory, and so are the rows of the space that is being scanned: rows are
 * stored by an HMAC of their keys, so the first page of a space takes reading all of it. What it's opened with is there for
 * as long as the driver.
 *
 * **Keys**: rows are encrypted under a data key that this storage has made, with a random IV each. How often it has been used
 * is on disk before it is used that often, counted in blocks; after `rowsPerKey` there is a new one, and old rows stay
 * readable. A clone of the storage has the same keys and another sequence of IVs, and counts on its own. The key for the
 * places of rows stays as long as the storage.
 */
import {
  type StorageAdapter,
  StorageFault,
  type StorageRow,
  type StorageWrite,
  unreadable
} from "@topgun/core/StorageAdapter"
import type { Bytes } from "./internal/Bytes.ts"
import { checkedKey, type Derivation, derivationFor, deriveKey, type EncryptionKey } from "./internal/KeyDerivation.ts"
import {
  currentKey,
  isRotating,
  type KeyRing,
  newRing,
  readHeader,
  sealHeader,
  unsealHeader,
  withNewKey,
  withReserved
} from "./internal/KeyRing.ts"
import { type Randomness, randomness } from "./internal/Randomness.ts"
import { keyIdOf, type RowCipher, rowCipher } from "./internal/RowCipher.ts"

export type { EncryptionKey }

export interface EncryptionLimits {
  /**
   * After how many encryptions the key for rows is replaced by a new one; none is used twice as often. Lower: less is under
   * one key, and there are more keys. From 1,000 to 2^31. @default 2^31
   */
  readonly rowsPerKey?: number
}

export interface Rotation {
  /** What the storage is opened with from now on. It's changed in one commit; the one before opens nothing any more. */
  readonly to?: EncryptionKey
  /** Whether to encrypt all rows under a new key too. @default unless `to` is given */
  readonly rows?: boolean
}

/** A storage over another, in which nothing can be read without the key. */
export interface EncryptedStorage extends StorageAdapter {
  /**
   * Changes keys, while the storage is open and in use. Who has had the old passphrase and a copy of the files can read what
   * was written before `rows` were encrypted anew, and nothing that is written after it. What the storage below has written over
   * may be on the disk for a while yet: when that goes is for it to say.
   *
   * Rows are encrypted anew some hundreds at a time, between commits, and both keys are kept until all are. Cut off at any
   * moment nothing is lost, and the next call goes on. What opens the storage after a call with `to` has failed is one of the
   * two: the new one, where it failed later, or where the storage below has written what it couldn't answer for.
   */
  readonly rotate: (rotation?: Rotation) => Promise<void>
}

/** Where all rows are, in the storage below. */
const rowsSpace = "rows"
/** Where the header is, and nothing else. A client's own rows begin here too, so neither takes the other's for its own. */
const headerSpace = "meta"
const headerKey = "encryption"

const rowsPerKeyMax = 2 ** 31
/** Encryptions that are noted as made at a time: what a crash wastes of the key. */
const reservedRows = 2 ** 16
/** Data keys at most: beyond that one isn't replaced by itself any more. */
const keysMax = 16

/** Rows that are encrypted or decrypted at once. */
const batchRows = 512
/** Rows of the first and of later pages of a space: what is read of the next one is no more than three times its own. */
const pageRows = { first: 16, growth: 4, last: 4_096 } as const
/** Bytes of a page, about: of more a browser makes one long task. */
const pageBytes = 1_000_000

/** Lets the event loop have a turn, sooner than a timer would. */
const turn = (): Promise<void> =>
  new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel()
    port1.addEventListener("message", () => {
      port1.close()
      resolve()
    })
    port1.start()
    port2.postMessage(undefined)
  })

/** How many rows like these are so many bytes. */
const rowsWithin = (bytes: number, rows: ReadonlyArray<StorageRow>): number => {
  const known = rows.reduce((sum, { value }) => sum + value.length, 0)
  return Math.max(1, Math.floor(bytes * rows.length / Math.max(known, 1)))
}

/** What a key that stands for an unreadable row begins with; its place follows. */
const standIn = "\uffff"

/** The rows of the space that is being scanned. Commits keep it up to date. */
interface Loaded {
  readonly space: string
  readonly rows: Map<string, Uint8Array>
  /** The keys in order: made anew when keys have come or gone. */
  ordered: ReadonlyArray<string> | undefined
}

/** What there is while the storage is open. */
interface Open {
  readonly name: string
  readonly random: Randomness
  readonly cipher: RowCipher
  readonly dataKeys: Map<number, CryptoKey>
  derivation: Derivation
  master: CryptoKey
  ring: KeyRing
  /** Whether the ring is stored as it is. */
  isStored: boolean
  /** How often the current key was used; after opening, how often it may have been. */
  used: number
  loaded: Loaded | undefined
}

const inBatches = async <A, B>(
  items: ReadonlyArray<A>,
  each: (item: A, i: number) => Promise<B>
): Promise<Array<B>> => {
  const results: Array<B> = []
  for (let at = 0; at < items.length; at += batchRows) {
    const batch = items.slice(at, at + batchRows)
    results.push(...await Promise.all(batch.map((item, i) => each(item, at + i))))
  }
  return results
}

const importDataKey = (secret: Bytes): Promise<CryptoKey> =>
  crypto.subtle.importKey("raw", secret, "AES-GCM", false, ["encrypt", "decrypt"])

/** How many of the ordered keys aren't beyond `after`. */
const countUpTo = (ordered: ReadonlyArray<string>, after: string | undefined): number => {
  let low = 0
  let high = after === undefined ? 0 : ordered.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (ordered[middle]! <= after!) low = middle + 1
    else high = middle
  }
  return low
}

/**
 * Encrypts what `inner` keeps. A storage that is empty becomes one of `key`; any other has to be one, or opening it is
 * rejected as a fault of the `key`, and nothing of it changes.
 *
 * @throws RangeError when the key is weaker than it may be, or a limit is none.
 */
export const encrypted = (
  inner: StorageAdapter,
  options: EncryptionKey & EncryptionLimits
): EncryptedStorage => {
  let key = checkedKey(options)
  const { rowsPerKey = rowsPerKeyMax } = options
  if (!Number.isSafeInteger(rowsPerKey) || rowsPerKey < 1_000 || rowsPerKey > rowsPerKeyMax) {
    throw new RangeError(`rowsPerKey is a whole number from 1,000 to 2^31`)
  }
  let open: Open | undefined
  /** Settled with the last call: they are answered one after the other. */
  let line: Promise<unknown> = Promise.resolve()

  const inLine = <A>(run: () => Promise<A>): Promise<A> => {
    const answer = line.then(run, run)
    line = answer
    return answer
  }

  const opened = (): Open => {
    if (open === undefined) throw new Error("the storage is closed")
    return open
  }

  // --- Keys ---

  const headerWrite = async (state: Pick<Open, "name" | "random" | "derivation" | "master" | "ring">) => {
    const [iv] = state.random.ivs(1)
    const value = await sealHeader(state.name, state.derivation, state.master, iv!, state.ring)
    return { space: headerSpace, key: headerKey, value } satisfies StorageWrite
  }

  const replaceKey = async (state: Open, outdated: boolean): Promise<void> => {
    const ring = withNewKey(state.ring, state.random.bytes)
    const { id, secret } = currentKey(ring)
    state.dataKeys.set(id, await importDataKey(secret))
    state.ring = outdated ? { ...ring, outdated: id } : ring
    state.isStored = false
    state.used = 0
  }

  /** Sees to it that the current key may be used for `rows` more. The header, where it's due, goes with what it is used for. */
  const reserve = async (state: Open, rows: number): Promise<ReadonlyArray<StorageWrite>> => {
    if (rows > 0 && state.used + rows > rowsPerKey && state.used > 0 && state.ring.keys.length < keysMax) {
      await replaceKey(state, false)
    }
    const used = state.used + rows
    if (used > 2 * rowsPerKey) {
      throw new StorageFault(
        "key",
        "its key was used as often as it may be: rotate it, or everything can't be kept secret"
      )
    }
    if (used > currentKey(state.ring).reserved) {
      const block = Math.min(reservedRows, Math.ceil(rowsPerKey / 8))
      state.ring = withReserved(state.ring, Math.min(used + block, 2 * rowsPerKey))
      state.isStored = false
    }
    state.used = used
    return state.isStored ? [] : [await headerWrite(state)]
  }

  /** Commits writes of the storage below, with the header where it's due. */
  const commitInner = async (
    state: Open,
    header: ReadonlyArray<StorageWrite>,
    writes: ReadonlyArray<StorageWrite>
  ): Promise<void> => {
    await inner.commit([...header, ...writes])
    if (header.length > 0) state.isStored = true
  }

  // --- Opening ---

  const refuse = (why: string): never => {
    throw new StorageFault("key", why)
  }

  /** The header that is stored; `undefined` where nothing is. */
  const storedHeader = async (): Promise<Uint8Array | undefined> => {
    const [first, ...others] = await inner.scan(headerSpace, undefined, 2)
    if (others.length > 0 || (first !== undefined && first.key !== headerKey)) {
      return refuse("what is stored there isn't encrypted, or not by this")
    }
    if (first !== undefined) return first.value
    const rows = await inner.scan(rowsSpace, undefined, 1)
    return rows.length > 0 ? refuse("its header is gone, and nothing can be read without it") : undefined
  }

  const openKeys = async (name: string): Promise<Open> => {
    if (globalThis.crypto?.subtle === undefined) throw new Error("there is no WebCrypto here; a page has it over https")
    const random = randomness()
    const stored = await storedHeader()
    const header = stored && readHeader(stored)
    const derivation = header?.derivation ?? derivationFor(key, random.bytes)
    const master = await deriveKey(key, derivation)
    const ring = header === undefined ? newRing(random.bytes) : await unsealHeader(name, header, master)
    if (header === undefined) await inner.commit([await headerWrite({ name, random, derivation, master, ring })])
    const hmac = { name: "HMAC", hash: "SHA-256" }
    const places = await crypto.subtle.importKey("raw", ring.places, hmac, false, ["sign"])
    const dataKeys = new Map<number, CryptoKey>()
    for (const { id, secret } of ring.keys) dataKeys.set(id, await importDataKey(secret))
    return {
      name,
      random,
      cipher: rowCipher(name, places, (id) => dataKeys.get(id)),
      dataKeys,
      derivation,
      master,
      ring,
      isStored: true,
      used: currentKey(ring).reserved,
      loaded: undefined
    }
  }

  // --- Rows ---

  const load = async ({ cipher }: Open, space: string): Promise<Loaded> => {
    const rows = new Map<string, Uint8Array>()
    const prefix = await cipher.spaceOf(space)
    let limit: number = pageRows.first
    let reading: Promise<ReadonlyArray<StorageRow>> | undefined = inner.scan(rowsSpace, prefix, limit)
    while (reading !== undefined) {
      const page: ReadonlyArray<StorageRow> = await reading
      const own = page.filter((row) => row.key.startsWith(prefix))
      const isLast = own.length < limit
      limit = Math.min(limit * pageRows.growth, pageRows.last, rowsWithin(pageBytes, own))
      // The next page is on its way while this one is decrypted.
      reading = isLast ? undefined : inner.scan(rowsSpace, own.at(-1)!.key, limit)
      reading?.catch(() => {})
      const clear = await inBatches(own, (row) => cipher.unseal(row.key, row.value))
      clear.forEach((row, i) => {
        const place = own[i]!.key
        if (row !== undefined) rows.set(row.key, row.value)
        else if (!rows.has(standIn + place)) rows.set(standIn + place, unreadable)
      })
    }
    return { space, rows, ordered: undefined }
  }

  const scan = async (space: string, after: string | undefined, limit: number): Promise<ReadonlyArray<StorageRow>> => {
    const state = opened()
    if (limit <= 0) return []
    if (after === undefined || state.loaded?.space !== space) state.loaded = await load(state, space)
    // What is here already would be answered before the page has drawn anything.
    else await turn()
    const { loaded: { rows } } = state
    const ordered = state.loaded.ordered ??= Array.from(rows.keys()).sort()
    const start = countUpTo(ordered, after)
    const page = ordered.slice(start, start + limit).map((each) => ({ key: each, value: rows.get(each)! }))
    // Who got fewer than asked for has seen the end.
    if (page.length < limit) state.loaded = undefined
    return page
  }

  /** What a commit comes to in the storage below. */
  const innerWrites = async (state: Open, writes: ReadonlyArray<StorageWrite>): Promise<Array<StorageWrite>> => {
    const { cipher, random, ring } = state
    const { id } = currentKey(ring)
    const ivs = random.ivs(writes.length)
    const made = await inBatches(writes, async (write, i): Promise<ReadonlyArray<StorageWrite>> => {
      const place = await cipher.placeOf(write.space, write.key)
      if (write.value !== undefined) {
        const value = await cipher.seal(place, { key: write.key, value: write.value }, id, ivs[i]!)
        return [{ space: rowsSpace, key: place, value }]
      }
      const gone = [{ space: rowsSpace, key: place, value: undefined }]
      const stood = write.key.slice(standIn.length)
      return write.key.startsWith(standIn) && stood.startsWith(await cipher.spaceOf(write.space))
        ? [...gone, { space: rowsSpace, key: stood, value: undefined }]
        : gone
    })
    return made.flat()
  }

  const commit = async (writes: ReadonlyArray<StorageWrite>): Promise<void> => {
    const state = opened()
    const header = await reserve(state, writes.filter(({ value }) => value !== undefined).length)
    const { loaded } = state
    // Of a commit that fails nobody knows whether it's there.
    state.loaded = undefined
    await commitInner(state, header, await innerWrites(state, writes))
    state.loaded = loaded
    for (const { key: changed, space, value } of writes) {
      if (loaded?.space !== space) continue
      if (value === undefined || !loaded.rows.has(changed)) loaded.ordered = undefined
      if (value === undefined) loaded.rows.delete(changed)
      else loaded.rows.set(changed, value.slice())
    }
  }

  // --- Rotation ---

  const changeKey = async (to: EncryptionKey): Promise<void> => {
    const state = opened()
    const derivation = derivationFor(to, state.random.bytes)
    const master = await deriveKey(to, derivation)
    await commitInner(state, [await headerWrite({ ...state, derivation, master })], [])
    state.derivation = derivation
    state.master = master
    key = to
  }

  /** Encrypts the rows of one batch anew that are under outdated keys. Answers the last row's place, if there may be more. */
  const renew = async (state: Open, after: string | undefined): Promise<string | undefined> => {
    if (state !== open) throw new Error("the storage is closed")
    const { cipher, ring } = state
    const page = await inner.scan(rowsSpace, after, batchRows)
    const old = page.filter(({ value }) => keyIdOf(value) < ring.outdated)
    const rows = await inBatches(old, ({ key: place, value }) => cipher.unseal(place, value))
    // What can't be read under any key here isn't lost with one.
    const renewed = old.flatMap(({ key: place }, i) => rows[i] === undefined ? [] : [{ place, row: rows[i] }])
    const header = await reserve(state, renewed.length)
    const { id } = currentKey(state.ring)
    const ivs = state.random.ivs(renewed.length)
    const writes = await inBatches(renewed, async ({ place, row }, i): Promise<StorageWrite> => ({
      space: rowsSpace,
      key: place,
      value: await cipher.seal(place, row, id, ivs[i]!)
    }))
    if (header.length + writes.length > 0) await commitInner(state, header, writes)
    return page.length < batchRows ? undefined : page.at(-1)!.key
  }

  const dropOutdated = async (state: Open): Promise<void> => {
    if (state !== open) throw new Error("the storage is closed")
    const ring = { ...state.ring, keys: state.ring.keys.filter(({ id }) => id >= state.ring.outdated) }
    await commitInner(state, [await headerWrite({ ...state, ring })], [])
    for (const { id } of state.ring.keys) if (id < ring.outdated) state.dataKeys.delete(id)
    state.ring = ring
  }

  const renewRows = async (): Promise<void> => {
    const state = await inLine(async () => {
      const now = opened()
      if (!isRotating(now.ring)) {
        await replaceKey(now, true)
        await commitInner(now, [await headerWrite(now)], [])
      }
      return now
    })
    let after: string | undefined
    do after = await inLine(() => renew(state, after))
    while (after !== undefined)
    await inLine(() => dropOutdated(state))
  }

  return {
    kind: `encrypted ${inner.kind}`,
    durable: inner.durable,
    isShared: inner.isShared ?? false,
    open: (name) =>
      inLine(async () => {
        await inner.open(name)
        try {
          open = await openKeys(name)
        } catch (fault) {
          // The reason is what counts, whatever comes of the closing.
          await inner.close().catch(() => {})
          throw fault
        }
      }),
    scan: (space, after, limit) => inLine(() => scan(space, after, limit)),
    commit: (writes) => {
      let known: ReadonlyArray<StorageWrite>
      try {
        // Read in full before anything is changed.
        known = writes.map(({ key: written, space, value }) => ({ space, key: written, value }))
      } catch (fault) {
        return Promise.reject(fault)
      }
      return inLine(() => commit(known))
    },
    close: () =>
      inLine(async () => {
        open = undefined
        await inner.close()
      }),
    rotate: async ({ to, rows = to === undefined } = {}) => {
      if (to !== undefined) {
        const checked = checkedKey(to)
        await inLine(() => changeKey(checked))
      }
      if (rows) await renewRows()
    }
  }
}
