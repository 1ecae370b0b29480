/**
 * What a storage driver does: rows of bytes in named spaces, read in pages, written in transactions. A plain interface, so
 * that a driver can be written, and handed to the Promise form of the client, without Effect.
 */
import { type Address, RowSlabs } from "./internal/RowSlabs.ts"

/** One row: its key is unique within its space. */
export interface StorageRow {
  readonly key: string
  readonly value: Uint8Array
}

/**
 * The value of a row that is there, but can't be given back as it was written. It's one byte that nothing in MessagePack begins
 * with, and too short for a record: whoever decodes it finds that it's unreadable, and does as he does with a damaged row.
 */
export const unreadable: Uint8Array = Uint8Array.of(0xc1)

/** One change of a row; `value: undefined` deletes it. */
export interface StorageWrite {
  readonly space: string
  readonly key: string
  readonly value: Uint8Array | undefined
}

/**
 * What of a storage's troubles the client has an answer of its own to. `quota`: there is no room. `evicted`: the rows are
 * gone, though nobody deleted them here. `superseded`: somebody else has opened it since. `newer`: a newer version wrote it, in a
 * way that this one can't read. `key`: it's encrypted with another key.
 */
export type StorageTrouble = "quota" | "evicted" | "superseded" | "newer" | "key"

/** What a driver rejects with where it knows what the trouble is. */
export class StorageFault extends Error {
  override readonly name = "StorageFault"
  readonly trouble: StorageTrouble

  constructor(trouble: StorageTrouble, message: string, options?: ErrorOptions) {
    super(message, options)
    this.trouble = trouble
  }
}

/**
 * What a storage driver does. Every promise may reject, with a {@link StorageFault} where the driver knows what the matter is;
 * the reason becomes the cause of the client's typed error. Bytes that change hands are never written to again, by neither
 * side, so that a driver needn't copy what it keeps.
 *
 * A storage has one owner: who opened it last. The commits of those who did before, be they in another tab or process, are
 * rejected as `superseded`, and change nothing.
 */
export interface StorageAdapter {
  /** How the status names it. */
  readonly kind: string
  /** Whether rows outlive the process. */
  readonly durable: boolean
  /** Whether the tabs of a browser have its rows in common, so that one of them has to keep them for all. @default false */
  readonly isShared?: boolean
  /**
   * Opens the storage that belongs to `name` (server, user and storage key) and only to it, and becomes its owner. Resolves
   * when rows can be read. Called before everything else, and again only after {@link close}.
   */
  readonly open: (name: string) => Promise<void>
  /** Up to `limit` rows of a space with keys greater than `after`, in the order of their keys' UTF-16 code units. */
  readonly scan: (space: string, after: string | undefined, limit: number) => Promise<ReadonlyArray<StorageRow>>
  /** All writes or none, in one transaction, in order. Resolves when they survive a crash of the process. */
  readonly commit: (writes: ReadonlyArray<StorageWrite>) => Promise<void>
  readonly close: () => Promise<void>
}

/** The rows of one space: their bytes side by side, which takes half of what an array for each does and leaves the collector nothing. */
class Space {
  /** Numbers of rows by key. */
  readonly #slots = new Map<string, number>()
  readonly #addresses: Array<Address> = []
  readonly #vacant: Array<number> = []
  readonly #rows = new RowSlabs((slot, _, to) => {
    this.#addresses[slot] = to
  })
  /** The keys in order, for the pages of a scan: made anew when keys have come or gone. */
  #ordered: ReadonlyArray<string> | undefined

  put(key: string, value: Uint8Array): void {
    const known = this.#slots.get(key)
    const slot = known ?? this.#vacant.pop() ?? this.#addresses.length
    const address = this.#rows.add(slot, value, 0, value.length)
    const before = this.#addresses[slot]
    this.#addresses[slot] = address
    if (known !== undefined) return this.#rows.free(before!)
    this.#slots.set(key, slot)
    this.#ordered = undefined
  }

  delete(key: string): void {
    const slot = this.#slots.get(key)
    if (slot === undefined) return
    this.#slots.delete(key)
    this.#vacant.push(slot)
    this.#rows.free(this.#addresses[slot]!)
    this.#ordered = undefined
  }

  scan(after: string | undefined, limit: number): Array<StorageRow> {
    const keys = this.#ordered ??= Array.from(this.#slots.keys()).sort()
    let low = 0
    let high = keys.length
    while (after !== undefined && low < high) {
      const middle = (low + high) >>> 1
      if (keys[middle]! <= after) low = middle + 1
      else high = middle
    }
    return keys.slice(low, low + limit).map((key) => {
      const address = this.#addresses[this.#slots.get(key)!]!
      // Of its own, as a view would keep the slab.
      return { key, value: this.#rows.rowAt(address).slice() }
    })
  }
}

/**
 * Rows in memory. They outlive a client that is closed and opened again over the same adapter, not the process; open it
 * for another name and it shows that name's rows.
 */
export const memory = (): StorageAdapter => {
  const databases = new Map<string, Map<string, Space>>()
  let spaces = new Map<string, Space>()
  const spaceOf = (name: string): Space => {
    let space = spaces.get(name)
    if (space === undefined) {
      space = new Space()
      spaces.set(name, space)
    }
    return space
  }
  return {
    kind: "memory",
    durable: false,
    open: (name) => {
      spaces = databases.get(name) ?? new Map()
      databases.set(name, spaces)
      return Promise.resolve()
    },
    scan: async (space, after, limit) => spaces.get(space)?.scan(after, limit) ?? [],
    commit: async (writes) => {
      // Read in full before anything is changed: all or none.
      const known = writes.map(({ key, space, value }) => ({ space, key, value }))
      for (const { key, space, value } of known) {
        if (value === undefined) spaces.get(space)?.delete(key)
        else spaceOf(space).put(key, value)
      }
    },
    close: () => Promise.resolve()
  }
}
