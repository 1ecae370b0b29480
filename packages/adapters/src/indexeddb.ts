/**
 * Storage of a browser: one IndexedDB database for each name, rows under `[space, key]` in one object store, who owns them in
 * another. It needs no Effect, touches no global before it is opened, and so can be imported where a page is rendered on a
 * server.
 */
import { type StorageAdapter, StorageFault, type StorageRow, type StorageWrite } from "@topgun/core/StorageAdapter"
import { type DBSchema, type IDBPDatabase, openDB } from "idb"

interface Schema extends DBSchema {
  readonly rows: { readonly key: [space: string, key: string]; readonly value: Uint8Array }
  /** One row: a number that who opened the database last has taken. */
  readonly owner: { readonly key: string; readonly value: number }
}

const ownerKey = "owner"

type Database = IDBPDatabase<Schema>

/** Version 1 had no owner. Tabs with a newer version are made way for. */
const version = 2

/** The rows of a space beyond `after`. In IndexedDB's order a shorter array comes first, and an array after any string. */
const rangeOf = (space: string, after: string | undefined): IDBKeyRange =>
  IDBKeyRange.bound(after === undefined ? [space] : [space, after], [space, []], true, true)

const isNamed = (fault: unknown, ...names: ReadonlyArray<string>): boolean =>
  typeof fault === "object" && fault !== null && "name" in fault && names.includes(String(fault.name))

/**
 * Rows in IndexedDB. The browser may close its connection at any time (a tab that sleeps, a fault of the disk, another
 * tab with a newer version); the next call opens it again. When the database was deleted meanwhile, calls are rejected
 * from then on: half of the rows in an empty database would be worse than none.
 */
export const indexedDb = (): StorageAdapter => {
  let name: string | undefined
  let connection: Promise<Database> | undefined
  /** What this adapter's opening has taken, and everybody's after it goes beyond. */
  let owner = 0
  /** Settled with the last commit that was asked for. */
  let lastCommit: Promise<unknown> = Promise.resolve()

  const connect = (called: string, isNew: boolean): Promise<Database> => {
    if (typeof indexedDB === "undefined") {
      return Promise.reject(new Error("there is no IndexedDB here; it's a browser's"))
    }
    let isDeleted = false
    const forget = (): void => {
      if (connection === own) connection = undefined
    }
    const opening = openDB<Schema>(called, version, {
      upgrade: (database, from, __, transaction) => {
        isDeleted = !isNew
        if (isDeleted) {
          transaction.done.catch(() => {})
          return transaction.abort()
        }
        if (from < 1) database.createObjectStore("rows")
        if (from < 2) database.createObjectStore("owner")
      },
      blocking: (_, __, event) => {
        // Who waits for this connection to go, waits for its transactions too.
        ;(event.target as IDBDatabase).close()
        forget()
      },
      terminated: forget
    })
    const own = opening.catch((fault: unknown) => {
      forget()
      if (isDeleted) {
        throw new Error(`the database "${called}" was deleted while it was in use: reload`, { cause: fault })
      }
      if (isNamed(fault, "VersionError")) {
        throw new Error(`the database "${called}" was written by a newer version: reload`, { cause: fault })
      }
      throw fault
    })
    connection = own
    return own
  }

  /** Runs `use` with the connection; once more with a new one when the browser has closed the old one before or meanwhile. */
  const withDatabase = async <A>(use: (database: Database) => Promise<A>): Promise<A> => {
    if (name === undefined) throw new Error("the storage is closed")
    const used = connection ?? connect(name, false)
    const database = await used
    try {
      return await use(database)
    } catch (fault) {
      // The one before a transaction, the other amid it: nothing else here ends in either.
      if (!isNamed(fault, "InvalidStateError", "AbortError")) throw fault
      if (connection === used) connection = undefined
      database.close()
      return use(await (connection ?? connect(name, false)))
    }
  }

  const commit = (writes: ReadonlyArray<StorageWrite>): Promise<void> =>
    withDatabase(async (database) => {
      // Strict: the server tells a device's writes apart by numbers that it keeps here. After a loss of power, rows that had
      // been reported as written must not be gone, or numbers would be used twice and writes taken for ones already seen.
      const transaction = database.transaction(["rows", "owner"], "readwrite", { durability: "strict" })
      const rows = transaction.objectStore("rows")
      let refusal: unknown
      // It aborts the transaction, which doesn't say why.
      const refuse = (fault: unknown): void => {
        refusal ??= fault
      }
      try {
        const present = transaction.objectStore("owner").get(ownerKey).catch(refuse)
        for (const { key, space, value } of writes) {
          const request: Promise<unknown> = value === undefined
            ? rows.delete([space, key])
            : rows.put(value, [space, key])
          request.catch(refuse)
        }
        if (await present !== owner) {
          throw refusal ?? new StorageFault("superseded", "another tab has opened it since")
        }
        transaction.commit()
      } catch (fault) {
        refusal = fault
        transaction.abort()
      }
      await transaction.done.catch((fault: unknown) => {
        throw refusal ?? fault
      })
    })

  return {
    kind: "indexeddb",
    durable: true,
    isShared: true,
    open: async (which) => {
      const database = await connect(which, true)
      const { done, store } = database.transaction("owner", "readwrite", { durability: "strict" })
      owner = (await store.get(ownerKey) ?? 0) + 1
      await store.put(owner, ownerKey)
      await done
      name = which
    },
    scan: async (space, after, limit): Promise<ReadonlyArray<StorageRow>> => {
      // To IndexedDB 0 means all.
      if (limit <= 0) return []
      return withDatabase(async (database) => {
        const { done, store } = database.transaction("rows", "readonly")
        // When it's aborted its requests say so.
        done.catch(() => {})
        const range = rangeOf(space, after)
        const [keys, values] = await Promise.all([store.getAllKeys(range, limit), store.getAll(range, limit)])
        return keys.map(([, key], i) => ({ key, value: values[i]! }))
      })
    },
    commit: (writes) => {
      let copies: ReadonlyArray<StorageWrite>
      try {
        // Read in full before anything is changed; and a view of a larger buffer would be stored with the whole of it.
        copies = writes.map(({ key, space, value }) => ({ space, key, value: value && new Uint8Array(value) }))
      } catch (fault) {
        return Promise.reject(fault)
      }
      // One after the other, so that one that had to open the connection again isn't overtaken.
      const commitNext = () => commit(copies)
      const committed = lastCommit.then(commitNext, commitNext)
      lastCommit = committed
      return committed
    },
    close: async () => {
      await lastCommit.catch(() => {})
      name = undefined
      const closing = connection
      connection = undefined
      const database = await closing?.catch(() => undefined)
      database?.close()
    }
  }
}
