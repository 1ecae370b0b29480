/**
 * What a storage driver does: rows of bytes in named spaces, read in pages, written in transactions. A plain interface, so
 * that a driver can be written, and handed to the Promise form of the client, without Effect.
 */

/** One row: its key is unique within its space. */
export interface StorageRow {
  readonly key: string
  readonly value: Uint8Array
}

/** One change of a row; `value: undefined` deletes it. */
export interface StorageWrite {
  readonly space: string
  readonly key: string
  readonly value: Uint8Array | undefined
}

/**
 * What a storage driver does. Every promise may reject; the reason becomes the cause of `StorageUnavailable`. Bytes that
 * change hands are never written to again, by neither side, so that a driver needn't copy what it keeps.
 */
export interface StorageAdapter {
  /** How the status names it. */
  readonly kind: string
  /** Whether rows outlive the process. */
  readonly durable: boolean
  /**
   * Opens the storage that belongs to `name` (server, user and storage key) and only to it. Resolves when rows can be
   * read. Called once, before everything else.
   */
  readonly open: (name: string) => Promise<void>
  /** Up to `limit` rows of a space with keys greater than `after`, in the order of their keys' UTF-16 code units. */
  readonly scan: (space: string, after: string | undefined, limit: number) => Promise<ReadonlyArray<StorageRow>>
  /** All writes or none, in one transaction, in order. Resolves when they survive a crash of the process. */
  readonly commit: (writes: ReadonlyArray<StorageWrite>) => Promise<void>
  readonly close: () => Promise<void>
}

/** The bytes, without a larger buffer that they may be part of: kept for long, they would keep that too. */
const ownBytes = (value: Uint8Array): Uint8Array =>
  value.byteLength === value.buffer.byteLength ? value : new Uint8Array(value)

const compareKeys = (a: StorageRow, b: StorageRow): number => a.key < b.key ? -1 : a.key > b.key ? 1 : 0

/**
 * Rows in memory. They outlive a client that is closed and opened again over the same adapter, not the process; open it
 * for another name and it shows that name's rows.
 */
export const memory = (): StorageAdapter => {
  const databases = new Map<string, Map<string, Map<string, Uint8Array>>>()
  let spaces = new Map<string, Map<string, Uint8Array>>()
  /** A space's rows in order, made at the first page of a scan and used until the space changes. */
  const ordered = new Map<string, ReadonlyArray<StorageRow>>()
  const rowsOf = (space: string): ReadonlyArray<StorageRow> => {
    let rows = ordered.get(space)
    if (rows === undefined) {
      rows = Array.from(spaces.get(space) ?? [], ([key, value]) => ({ key, value })).sort(compareKeys)
      ordered.set(space, rows)
    }
    return rows
  }
  return {
    kind: "memory",
    durable: false,
    open: (name) => {
      spaces = databases.get(name) ?? new Map()
      databases.set(name, spaces)
      ordered.clear()
      return Promise.resolve()
    },
    scan: (space, after, limit) => {
      const rows = rowsOf(space)
      let low = 0
      let high = rows.length
      while (after !== undefined && low < high) {
        const middle = (low + high) >>> 1
        if (rows[middle]!.key <= after) low = middle + 1
        else high = middle
      }
      return Promise.resolve(rows.slice(low, low + limit))
    },
    commit: async (writes) => {
      // Read in full before anything is changed: all or none.
      const known = writes.map(({ key, space, value }) => ({ space, key, value }))
      for (const write of known) {
        ordered.delete(write.space)
        let rows = spaces.get(write.space)
        if (rows === undefined) {
          rows = new Map()
          spaces.set(write.space, rows)
        }
        if (write.value === undefined) rows.delete(write.key)
        else rows.set(write.key, ownBytes(write.value))
      }
    },
    close: () => Promise.resolve()
  }
}
