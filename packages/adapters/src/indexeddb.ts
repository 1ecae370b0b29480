/**
 * Storage of a browser: one IndexedDB database for each name, rows under `[space, key]` in one object store, who owns them in
 * another. It needs no Effect, touches no global before it is opened, and so can be imported where a page is rendered on a
 * server.
 */
import {
  type StorageAdapter,
  StorageFault,
  type StorageRow,
  type StorageWrite,
  unreadable
} from "@topgun/core/StorageAdapter"
import { type DBSchema, type IDBPDatabase, openDB, unwrap } from "idb"

interface Schema extends DBSchema {
  readonly rows: { readonly key: [space: string, key: string]; readonly value: Uint8Array }
  /**
   * Under {@link ownerKey} a number drawn by lot, of who opened the database last; and under the number of each who did before
   * a row that keeps him out.
   */
  readonly owner: { readonly key: string | number; readonly value: number }
}

const ownerKey = "owner"
const ownersMax = 2 ** 53
/** So many are kept out at most; of more a half is forgotten: who has been asleep for so many openings. */
const keptOutMax = 1_000

/** How long a browser may take to open a database, in ms: another tab may be in the way, or its own storage out of order. */
export const openMillis = 10_000

/** How long it may take for one transaction, in ms. The largest are of some thousand rows. */
export const answerMillis = 30_000

/**
 * How long to wait before another try, in ms, when the browser has lost its connection: the first at once, as it closes idle
 * ones, the others because Safari's storage process takes a while to come back.
 */
export const retryMillis: ReadonlyArray<number> = [0, 50, 250, 1_000]

type Database = IDBPDatabase<Schema>

/** Version 1 had no owner. Tabs with a newer version are made way for. */
const version = 2

/** The rows of a space beyond `after`. In IndexedDB's order numbers and dates come before any string, bytes and arrays after. */
const rangeOf = (space: string, after: string | undefined): IDBKeyRange =>
  IDBKeyRange.bound([space, after ?? ""], [space, []], after !== undefined, true)

const isNamed = (fault: unknown, ...names: ReadonlyArray<string>): boolean =>
  typeof fault === "object" && fault !== null && "name" in fault && names.includes(String(fault.name))

/** The connection is of no use any more, another may be: nothing else here ends in these. */
const isLost = (fault: unknown): boolean =>
  isNamed(fault, "InvalidStateError", "TransactionInactiveError", "AbortError", "UnknownError")

/** A browser that doesn't answer. */
class Unanswered extends Error {
  override readonly name = "Unanswered"
}

const pause = (millis: number): Promise<void> =>
  // tidy-allow timer: drivers are without Effect, and each pause is one of a bounded number.
  new Promise((resolve) => void setTimeout(resolve, millis))

/** The answer, or a rejection when it doesn't come in time. */
const within = <A>(millis: number, answer: Promise<A>, silence: () => string): Promise<A> =>
  new Promise((resolve, reject) => {
    const giveUp = (): void => reject(new Unanswered(silence()))
    // tidy-allow timer: drivers are without Effect, and it's cleared with the answer.
    const timer = setTimeout(giveUp, millis)
    answer.then(resolve, reject).finally(() => clearTimeout(timer))
  })

/** What the client is to make of it. */
const faultOf = (fault: unknown, name: string | undefined): unknown => {
  if (isNamed(fault, "QuotaExceededError")) {
    return new StorageFault("quota", `the browser has no more room for the database "${name}"`, { cause: fault })
  }
  if (isNamed(fault, "VersionError")) {
    return new StorageFault("newer", `the database "${name}" was written by a newer version: reload`, { cause: fault })
  }
  return fault
}

/** A value in a buffer of its own. */
const ownOf = (value: Uint8Array): Uint8Array =>
  value.length === value.buffer.byteLength ? value : new Uint8Array(value)

/** What a request comes to. */
const answerOf = <A>(request: IDBRequest<A>): Promise<A> =>
  new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result))
    request.addEventListener("error", () => reject(request.error))
  })

/**
 * How many rows are handed over in one task, so that the page can go on in between: each takes 10 µs, on a phone several times
 * that. Up to so many, a transaction asks the page for nothing more once it's begun: one that hangs then is in nobody's way.
 */
const rowsAtOnce = 250

/**
 * Makes a transaction of what `run` asks for, all of it or none, and waits until it is durable. Without idb: a promise for
 * each row costs more than the row. A request that fails and that nobody looks at aborts the transaction.
 */
const write = async (
  database: Database,
  run: (rows: IDBObjectStore, owners: IDBObjectStore) => Promise<void>
): Promise<void> => {
  // Strict: the server tells a device's writes apart by numbers that it keeps here. After a loss of power, rows that had
  // been reported as written must not be gone, or numbers would be used twice and writes taken for ones already seen.
  const transaction = unwrap(database).transaction(["rows", "owner"], "readwrite", { durability: "strict" })
  const done = new Promise<void>((resolve, reject) => {
    transaction.addEventListener("complete", () => resolve())
    transaction.addEventListener("abort", () => reject(new DOMException("the transaction was aborted", "AbortError")))
  })
  // It's looked at in the end.
  done.catch(() => {})
  let refusal: unknown
  try {
    await run(transaction.objectStore("rows"), transaction.objectStore("owner"))
    transaction.commit()
  } catch (fault) {
    refusal = fault
    try {
      transaction.abort()
    } catch {
      // It is over already.
    }
  }
  // Requests of a transaction that is aborted only say that it was: it's the transaction that may know why.
  await done.catch((fault: unknown) => {
    throw transaction.error ?? refusal ?? fault
  })
}

/** Somebody has emptied the database; what has come into it since is no one's. */
const clearUnowned = async (rows: IDBObjectStore, owners: IDBObjectStore): Promise<void> => {
  if (await answerOf<unknown>(owners.get(ownerKey)) === undefined) rows.clear()
}

/** By lot: a database that was deleted and made anew has other owners than the one before. */
const drawOwner = (): number => {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2))
  return (high! & 0x1f_ffff) * 2 ** 32 + low!
}

/**
 * Rows in IndexedDB. The browser may close its connection at any time (a tab that sleeps, a fault of the disk, another
 * tab with a newer version); the next call opens it again. When the database was deleted meanwhile, calls are rejected
 * as `evicted` until it is opened again: half of the rows in an empty database would be worse than none.
 *
 * Where there is no room even to take ownership, what is stored can be read: it's taken with the first commit that there is
 * room for, unless somebody else has opened the database meanwhile.
 */
export const indexedDb = (): StorageAdapter => {
  let name: string | undefined
  let connection: Promise<Database> | undefined
  /** What this adapter's opening has taken, and nobody else's has. */
  let owner = 0
  /** The connection that is known to lead to a database of this owner's: another may have been made in its place before the next. */
  let checked: Database | undefined
  /** The owner before, as long as there is no room to take its place. */
  let predecessor: number | undefined
  /** Settled with the last commit that was asked for. */
  let lastCommit: Promise<unknown> = Promise.resolve()

  const connect = (called: string, isNew: boolean): Promise<Database> => {
    let isDeleted = false
    let isBlocked = false
    const forget = (): void => {
      if (connection === own) connection = undefined
    }
    // Asking for it may throw already, where a browser's settings forbid storage.
    const opening = (async () => {
      if (typeof indexedDB === "undefined") throw new Error("there is no IndexedDB here; it's a browser's")
      return openDB<Schema>(called, version, {
        upgrade: (database, from, __, transaction) => {
          // Its end is that of the opening.
          transaction.done.catch(() => {})
          isDeleted = !isNew
          if (isDeleted) return transaction.abort()
          if (from < 1) database.createObjectStore("rows")
          if (from < 2) database.createObjectStore("owner")
        },
        blocked: () => {
          isBlocked = true
        },
        blocking: (_, __, event) => {
          // Who waits for this connection to go, waits for its transactions too.
          ;(event.target as IDBDatabase).close()
          forget()
        },
        terminated: forget
      })
    })()
    const silence = (): string =>
      isBlocked
        ? `another tab holds the database "${called}" with an older version: close it`
        : `the browser hasn't opened the database "${called}" within ${openMillis} ms`
    const own = within(openMillis, opening, silence).catch((fault: unknown) => {
      forget()
      // Too late is of no use to anybody, and an open connection in the way of others.
      opening.then((database) => database.close(), () => {})
      if (isDeleted) {
        throw new StorageFault("evicted", `the database "${called}" was deleted while it was in use`, { cause: fault })
      }
      throw fault
    })
    connection = own
    return own
  }

  /** Runs `use` with the connection, and again with a new one when the browser has closed the old one before or meanwhile. */
  const withDatabase = async <A>(
    called: string,
    isNew: boolean,
    use: (database: Database) => Promise<A>
  ): Promise<A> => {
    for (let tries = 0;; tries++) {
      const used = connection ?? connect(called, isNew)
      let database: Database | undefined
      try {
        database = await used
        return await within(answerMillis, use(database), () => `the browser hasn't answered within ${answerMillis} ms`)
      } catch (fault) {
        const isOver = isLost(fault) || fault instanceof Unanswered
        if (isOver && connection === used) connection = undefined
        if (isOver) database?.close()
        const millis = retryMillis[tries]
        if (!isLost(fault) || millis === undefined) throw faultOf(fault, called)
        if (millis > 0) await pause(millis)
      }
    }
  }

  const whileOpen = async <A>(use: (database: Database) => Promise<A>): Promise<A> => {
    if (name === undefined) throw new Error("the storage is closed")
    return withDatabase(name, false, use)
  }

  const disconnect = async (): Promise<void> => {
    const closing = connection
    connection = undefined
    const database = await closing?.catch(() => undefined)
    database?.close()
  }

  /** Becomes the owner, and keeps out who was. */
  const takeFrom = async (before: unknown, owners: IDBObjectStore): Promise<void> => {
    if (typeof before === "number") {
      const others = IDBKeyRange.bound(0, ownersMax)
      if (await answerOf(owners.count(others)) > keptOutMax) owners.delete(IDBKeyRange.bound(0, ownersMax / 2))
      owners.put(0, before)
    }
    await answerOf(owners.put(owner, ownerKey))
  }

  /** Becomes the owner or, where there is no room for that, bears in mind whom to follow. */
  const take = async (database: Database): Promise<void> => {
    try {
      await write(database, async (_, owners) => takeFrom(await answerOf(owners.get(ownerKey)), owners))
      checked = database
    } catch (fault) {
      if (!isNamed(fault, "QuotaExceededError")) throw fault
      predecessor = await database.get("owner", ownerKey)
      if (predecessor === undefined) throw fault
    }
  }

  /** Hands rows over, a part at a time where there are many. */
  const put = async (rows: IDBObjectStore, writes: ReadonlyArray<StorageWrite>): Promise<void> => {
    let before: Promise<unknown> | undefined
    for (let i = 0; i < writes.length; i++) {
      const { key, space, value } = writes[i]!
      const request: IDBRequest = value === undefined ? rows.delete([space, key]) : rows.put(value, [space, key])
      if (i % rowsAtOnce < rowsAtOnce - 1) continue
      // Those at hand are on their way while the page goes on, so that the database needn't wait for it.
      const last = answerOf<unknown>(request)
      last.catch(() => {})
      await before
      before = last
    }
  }

  const superseded = (fault?: unknown): StorageFault =>
    new StorageFault("superseded", "another tab has opened it since", { cause: fault })
  const commit = (writes: ReadonlyArray<StorageWrite>): Promise<void> =>
    whileOpen(async (database) => {
      let present: { readonly owner: unknown } | undefined
      const check = (expected: number): void => {
        if (present === undefined) throw new Unanswered("the browser hasn't answered whose the database is")
        if (present.owner === undefined) throw new StorageFault("evicted", "its rows were deleted while it was in use")
        if (present.owner !== expected) throw superseded()
      }
      await write(database, async (rows, owners) => {
        const request: IDBRequest<unknown> = owners.get(ownerKey)
        const asked = (async () => {
          present = { owner: await answerOf(request) }
        })()
        asked.catch(() => {})
        if (predecessor === undefined && database === checked) {
          // Fails where a later owner keeps this one out. Nothing is waited for: a page that hangs amid a transaction would be in
          // the way of all tabs.
          owners.add(0, owner)
          owners.delete(owner)
          return put(rows, writes)
        }
        await put(rows, writes)
        await asked
        check(predecessor ?? owner)
        if (predecessor !== undefined) await takeFrom(predecessor, owners)
        present = { owner }
      }).catch((fault: unknown) => {
        throw isNamed(fault, "ConstraintError") ? superseded(fault) : fault
      })
      // Half of the rows would be worse than none.
      if (present?.owner === undefined) await write(database, clearUnowned).catch(() => {})
      check(owner)
      checked = database
      predecessor = undefined
    })

  return {
    kind: "indexeddb",
    durable: true,
    isShared: true,
    open: async (which) => {
      owner = drawOwner()
      checked = undefined
      predecessor = undefined
      try {
        await withDatabase(which, true, take)
      } catch (fault) {
        await disconnect()
        throw fault
      }
      name = which
    },
    scan: async (space, after, limit): Promise<ReadonlyArray<StorageRow>> => {
      // To IndexedDB 0 means all.
      if (limit <= 0) return []
      return whileOpen(async (database) => {
        const transaction = database.transaction("rows", "readonly")
        // When it's aborted its requests say so, of which one is enough.
        transaction.done.catch(() => {})
        const range = rangeOf(space, after)
        const asked = transaction.store.getAllKeys(range, limit)
        asked.catch(() => {})
        const [keys, values] = await Promise.all([asked, transaction.store.getAll(range, limit)])
        const rows: Array<StorageRow> = []
        for (let i = 0; i < keys.length; i++) {
          const key: unknown = keys[i]![1]
          const value: unknown = values[i]
          // Somebody else's; nothing but such comes after it.
          if (typeof key !== "string") break
          rows.push({ key, value: value instanceof Uint8Array ? value : unreadable })
        }
        return rows
      })
    },
    commit: (writes) => {
      let copies: ReadonlyArray<StorageWrite>
      try {
        // Read in full before anything is changed; and a view of a larger buffer would be stored with the whole of it.
        copies = writes.map(({ key, space, value }) => ({ space, key, value: value && ownOf(value) }))
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
      await disconnect()
    }
  }
}
