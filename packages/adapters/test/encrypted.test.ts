import { assert, describe, it } from "@effect/vitest"
import { encrypted, type EncryptedStorage, type EncryptionKey, type EncryptionLimits } from "@topgun/adapters/encrypted"
import * as Encrypted from "@topgun/adapters/EncryptedStorage"
import { indexedDb } from "@topgun/adapters/indexeddb"
import * as Cell from "@topgun/core/Cell"
import * as Storage from "@topgun/core/Storage"
import {
  memory,
  type StorageAdapter,
  StorageFault,
  type StorageRow,
  type StorageWrite,
  unreadable
} from "@topgun/core/StorageAdapter"
import * as Value from "@topgun/core/Value"
import { storageSuite } from "@topgun/testing/storageSuite"
import * as Effect from "effect/Effect"
import "fake-indexeddb/auto"
import { IDBFactory } from "fake-indexeddb"
import { afterEach, vi } from "vitest"
import { deriveKey } from "../src/internal/KeyDerivation.ts"
import { currentKey, type KeyRing, readHeader, unsealHeader } from "../src/internal/KeyRing.ts"
import { rowCipher } from "../src/internal/RowCipher.ts"

/** Cheap to open with; passphrases take a fifth of a second each. */
const secret = { secret: new Uint8Array(32).fill(7) }
const otherSecret = { secret: new Uint8Array(32).fill(8) }
const passphrase = { passphrase: "correct horse battery staple" }

storageSuite("encrypted memory", () => {
  const adapter = encrypted(memory(), secret)
  return { adapter: () => adapter }
})

storageSuite("encrypted IndexedDB", () => {
  globalThis.indexedDB = new IDBFactory()
  return { adapter: () => encrypted(indexedDb(), secret) }
})

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

const put = (key: string, value: string = `value of ${key}`, space = "records"): StorageWrite => ({
  space,
  key,
  value: bytes(value)
})

const rowsOf = async (storage: StorageAdapter, space = "records"): Promise<Record<string, string>> => {
  const rows = await storage.scan(space, undefined, 100_000)
  return Object.fromEntries(
    rows.map(({ key, value }) => [key, value === unreadable ? "unreadable" : new TextDecoder().decode(value)])
  )
}

/** All that the storage below has. */
const below = async (inner: StorageAdapter): Promise<ReadonlyArray<StorageWrite>> => {
  const rows: Array<StorageWrite> = []
  for (const space of ["meta", "rows"]) {
    for (const row of await inner.scan(space, undefined, 1_000_000)) rows.push({ space, ...row })
  }
  return rows
}

/** Writes of the storage below. */
const asWrites = (
  rows: ReadonlyArray<{ readonly key: string; readonly value: Uint8Array | undefined }>
): ReadonlyArray<StorageWrite> => rows.map(({ key, value }) => ({ space: "rows", key, value }))

const storedRows = (inner: StorageAdapter): Promise<ReadonlyArray<StorageRow>> =>
  inner.scan("rows", undefined, 1_000_000)

/** Another storage with the same rows. */
const copyOf = async (inner: StorageAdapter, name = "app"): Promise<StorageAdapter> => {
  const copy = memory()
  await copy.open(name)
  await copy.commit(await below(inner))
  return copy
}

const opened = async (
  inner: StorageAdapter,
  options: EncryptionKey & EncryptionLimits = secret,
  name = "app"
): Promise<EncryptedStorage> => {
  const storage = encrypted(inner, options)
  await storage.open(name)
  return storage
}

/** A storage below, open, and an encrypted one over it with these rows. */
const withRows = async (...writes: ReadonlyArray<StorageWrite>) => {
  const inner = memory()
  const storage = await opened(inner)
  await storage.commit(writes)
  return { inner, storage }
}

const faultOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(() => undefined, (fault: unknown) => fault)

const assertRefused = async (promise: Promise<unknown>): Promise<void> => {
  const fault = await faultOf(promise)
  assert.strictEqual(fault instanceof StorageFault ? fault.trouble : fault, "key")
}

/** The keys that a storage has, as who has the secret sees them. */
const ringOf = async (inner: StorageAdapter, key: EncryptionKey = secret): Promise<KeyRing> => {
  const [row] = await inner.scan("meta", undefined, 1)
  const header = readHeader(row!.value)
  return unsealHeader("app", header, await deriveKey(key, header.derivation))
}

const keyIdOf = (value: Uint8Array): number => new DataView(value.buffer, value.byteOffset).getUint32(1)
const ivOf = (value: Uint8Array): string => value.subarray(5, 17).join()

const flipped = (value: Uint8Array, at: number, bit = 1): Uint8Array => {
  const changed = value.slice()
  changed[at]! ^= bit
  return changed
}

/** Commits that reach the storage below, until it's as if the process had died. */
const dyingAt = (inner: StorageAdapter, commits: number, isWrittenFirst = false) => {
  let count = 0
  const adapter: StorageAdapter = {
    ...inner,
    commit: async (writes) => {
      if (count++ < commits) return inner.commit(writes)
      if (count === commits + 1 && isWrittenFirst) await inner.commit(writes)
      throw new Error("died")
    }
  }
  return { adapter, commits: () => count }
}

afterEach(() => {
  vi.restoreAllMocks()
})

describe("What is encrypted", () => {
  it("is a storage of its own kind, as durable as the one below", () => {
    const storage = encrypted(indexedDb(), secret)
    assert.deepStrictEqual([storage.kind, storage.durable], ["encrypted indexeddb", true])
    assert.isFalse(encrypted(memory(), secret).durable)
  })

  it("shows nothing of values, keys and names of spaces to who has no key", async () => {
    const canaries = ["CanaryValue", "CanaryKey", "CanaryMap"]
    const { inner } = await withRows(
      put("CanaryKey", "CanaryValue", "records/CanaryMap"),
      put("CanaryKey", JSON.stringify({ CanaryKey: "CanaryValue" }), "bases/CanaryMap"),
      put("CanaryMap", "CanaryMap", "maps")
    )
    const rows = await below(inner)
    assert.strictEqual(rows.length, 4)
    const stored = rows.map(({ key, space, value }) => [space, key, Buffer.from(value!).toString("latin1")].join("\n"))
      .join("\n")
    for (const canary of canaries) {
      const utf16 = Buffer.from(canary, "utf16le")
      const forms = [
        canary,
        utf16.toString("latin1"),
        utf16.swap16().toString("latin1"),
        Buffer.from(canary).toString("hex"),
        // Wherever it begins in what was encoded.
        ...[0, 1, 2].map((before) => Buffer.from("-".repeat(before) + canary).toString("base64").slice(2 + before, -3))
      ]
      for (const form of forms) assert.isFalse(stored.includes(form), `${canary} as ${form}`)
    }
  })

  it("shows the lengths of no names, and places that only its own keys lead to", async () => {
    const { inner } = await withRows(put("a", "1", "s"), put("a".repeat(500), "1", "s".repeat(500)))
    const places = (await storedRows(inner)).map(({ key }) => key)
    for (const place of places) assert.match(place, /^[\w-]{44}$/)
    const { inner: other } = await withRows(put("a", "1", "s"))
    assert.notInclude(places, (await storedRows(other))[0]!.key)
  })

  it("is never encrypted twice under one IV, whatever is written, and however often it is opened", async () => {
    const inner = memory()
    const ivs: Array<string> = []
    const recorded: StorageAdapter = {
      ...inner,
      commit: (writes) => {
        for (const { value } of writes) if (value !== undefined && value[0] === 1) ivs.push(ivOf(value))
        return inner.commit(writes)
      }
    }
    for (let opening = 0; opening < 10; opening++) {
      const storage = await opened(recorded)
      for (let round = 0; round < 10; round++) {
        await storage.commit(Array.from({ length: 100 }, (_, i) => put(`key ${i}`, "the same")))
      }
      await storage.close()
    }
    // Nor in copies of it, which have its keys.
    for (const copy of [inner, await copyOf(inner)]) {
      await (await opened({ ...copy, commit: recorded.commit })).commit([put("a"), put("b")])
    }
    assert.strictEqual(ivs.length, 10_004)
    assert.strictEqual(new Set(ivs).size, ivs.length)
  })

  it("is what a layer opens for Effect applications, and its keys are changed there", async () => {
    const inner = memory()
    const openStorage = Effect.flatMap(Storage.Storage, ({ open }) => open)
    const write = Effect.flatMap(openStorage, ({ commit }) => commit([put("a")]))
    await Effect.runPromise(Effect.scoped(Effect.provide(write, Encrypted.layer(() => inner, secret, "app"))))
    const storage = encrypted(inner, secret)
    const rotate = Effect.zipRight(openStorage, Encrypted.rotate(storage, { to: otherSecret }))
    await Effect.runPromise(Effect.scoped(Effect.provide(rotate, Storage.layerAdapter(() => storage, "app"))))
    assert.deepStrictEqual(await rowsOf(await opened(inner, otherSecret)), { a: "value of a" })
  })

  it("is read once for all pages of a space, and commits between them are seen", async () => {
    const { inner, storage } = await withRows(...["a", "b", "c", "d"].map((key) => put(key)))
    const scans = vi.spyOn(inner, "scan")
    assert.deepStrictEqual((await storage.scan("records", undefined, 1)).map(({ key }) => key), ["a"])
    await storage.commit([
      { space: "records", key: "b", value: undefined },
      put("bb"),
      put("d", "later"),
      put("c", "", "x")
    ])
    const rest = await storage.scan("records", "a", 10)
    assert.deepStrictEqual(rest.map(({ key, value }) => [key, new TextDecoder().decode(value)]), [
      ["bb", "value of bb"],
      ["c", "value of c"],
      ["d", "later"]
    ])
    assert.strictEqual(scans.mock.calls.length, 1)
  })

  it("is read anew after a commit of which nobody knows whether it's there", async () => {
    const { inner } = await withRows(put("a"), put("b"))
    const storage = await opened(dyingAt(inner, 0, true).adapter)
    await storage.scan("records", undefined, 1)
    assert.instanceOf(await faultOf(storage.commit([put("b", "later")])), Error)
    const [row] = await storage.scan("records", "a", 1)
    assert.deepStrictEqual(row, { key: "b", value: bytes("later") })
  })

  it("has spaces of more rows than one read brings, beside others", async () => {
    const spaces = ["x", "y", "z"]
    const { storage } = await withRows(
      ...spaces.flatMap((space) => Array.from({ length: 1_500 }, (_, i) => put(`${i}`, `${space}${i}`, space)))
    )
    for (const space of spaces) {
      const rows = await rowsOf(storage, space)
      assert.strictEqual(Object.keys(rows).length, 1_500)
      assert.isTrue(Object.entries(rows).every(([key, value]) => value === space + key))
    }
  })
})

describe("A key", () => {
  it("is nothing without WebCrypto, which says what is missing", async () => {
    vi.stubGlobal("crypto", { getRandomValues: () => {} })
    const fault = await faultOf(opened(memory()))
    vi.unstubAllGlobals()
    assert.include(String(fault), "https")
  })

  it("that is weak is refused before anything is opened", () => {
    assert.throws(() => encrypted(memory(), { passphrase: "" }), RangeError)
    assert.throws(() => encrypted(memory(), { passphrase: "p", iterations: 599_999 }), RangeError)
    assert.throws(() => encrypted(memory(), { passphrase: "p", iterations: 1e9 }), RangeError)
    assert.throws(() => encrypted(memory(), { secret: new Uint8Array(31) }), RangeError)
    assert.throws(() => encrypted(memory(), { ...secret, rowsPerKey: 2 ** 31 + 1 }), RangeError)
  })

  it("is a passphrase in any of the forms that Unicode has for it", async () => {
    const inner = memory()
    const storage = await opened(inner, { passphrase: "caf\u00e9 \ufb01n" })
    await storage.commit([put("a")])
    assert.deepStrictEqual(await rowsOf(await opened(inner, { passphrase: "cafe\u0301 fin" })), { a: "value of a" })
  })

  it("that is wrong changes nothing, and the right one opens the storage all the same", async () => {
    const inner = memory()
    await (await opened(inner, passphrase)).commit([put("a")])
    const before = await below(inner)
    const commit = vi.spyOn(inner, "commit")
    const close = vi.spyOn(inner, "close")
    const wrong = [{ passphrase: "correct horse battery stapl" }, secret, { ...passphrase, iterations: 700_000 }]
    for (const key of wrong.slice(0, 2)) await assertRefused(opened(inner, key))
    await assertRefused(opened(await copyOf(inner, "another name"), passphrase, "another name"))
    assert.strictEqual(commit.mock.calls.length, 0)
    assert.strictEqual(close.mock.calls.length, 2)
    assert.deepStrictEqual(await below(inner), before)
    assert.deepStrictEqual(await rowsOf(await opened(inner, wrong[2])), { a: "value of a" })
  })

  it("isn't told of in what an error says", async () => {
    const inner = memory()
    await (await opened(inner, passphrase)).commit([put("a", "CanaryValue")])
    const fault = await faultOf(opened(inner, { passphrase: "CanaryGuess" }))
    assert.notMatch(String(fault) + JSON.stringify(fault), /Canary|horse/)
  })
})

/** A header, as whoever edits it sees it. */
interface Editable {
  format: number
  derivation: { name: string; hash: string; salt: string; iterations?: unknown } | null
  iv: string
  keys: string
}

describe("A header", () => {
  const withHeader = async (change: (header: Editable) => unknown) => {
    const { inner } = await withRows(put("a"))
    const copy = await copyOf(inner)
    const [row] = await copy.scan("meta", undefined, 1)
    const header = JSON.parse(new TextDecoder().decode(row!.value))
    const changed = change(header) ?? header
    await copy.commit([{
      space: "meta",
      key: row!.key,
      value: changed instanceof Uint8Array ? changed : bytes(JSON.stringify(changed))
    }])
    return copy
  }

  const assertUntouched = async (inner: StorageAdapter, key: EncryptionKey = secret): Promise<void> => {
    const before = await below(inner)
    const commit = vi.spyOn(inner, "commit")
    await assertRefused(opened(inner, key))
    assert.strictEqual(commit.mock.calls.length, 0)
    assert.deepStrictEqual(await below(inner), before)
  }

  it("is written once, in one commit, where nothing is stored yet", async () => {
    const inner = memory()
    const commit = vi.spyOn(inner, "commit")
    const storage = await opened(inner)
    assert.strictEqual(commit.mock.calls.length, 1)
    assert.strictEqual((await below(inner)).length, 1)
    await storage.close()
    await opened(inner)
    assert.strictEqual(commit.mock.calls.length, 1)
  })

  it("that couldn't be written, or so it seemed, is made or found at the next opening", async () => {
    for (const isWrittenFirst of [false, true]) {
      const inner = memory()
      assert.include(String(await faultOf(opened(dyingAt(inner, 0, isWrittenFirst).adapter))), "died")
      const storage = await opened(inner)
      await storage.commit([put("a")])
      assert.deepStrictEqual(await rowsOf(await opened(inner)), { a: "value of a" })
    }
  })

  it("is one of two tabs' that open a new storage at once, and who owns it has it", async () => {
    globalThis.indexedDB = new IDBFactory()
    const tabs = [encrypted(indexedDb(), secret), encrypted(indexedDb(), secret)]
    const openings = await Promise.allSettled(tabs.map((tab) => tab.open("app")))
    const owner = tabs[openings.map(({ status }) => status).lastIndexOf("fulfilled")]!
    await owner.commit([put("a")])
    assert.deepStrictEqual(await rowsOf(owner), { a: "value of a" })
    await Promise.all(tabs.map((tab) => tab.close()))
    assert.deepStrictEqual(await rowsOf(await opened(indexedDb())), { a: "value of a" })
  })

  it("that is changed in any way is refused, and nothing is written", async () => {
    const changes: ReadonlyArray<(header: Editable) => unknown> = [
      (header) => void (header.derivation!.salt = ""),
      (header) => void (header.derivation!.salt = "AAAA"),
      (header) => void (header.derivation!.salt = "A".repeat(43)),
      (header) => void (header.derivation!.hash = "SHA-1"),
      (header) => void (header.derivation!.name = "none"),
      (header) => void (header.derivation = null),
      (header) => void (header.format = 0),
      (header) => void (header.iv = "AAAA"),
      (header) => void (header.iv = "A".repeat(16)),
      (header) => void (header.keys = header.keys.slice(0, -4)),
      (header) => void (header.keys = ""),
      () => new Uint8Array(0),
      () => bytes("not JSON"),
      () => bytes("null"),
      () => []
    ]
    for (const change of changes) await assertUntouched(await withHeader(change))
  })

  it("of which any byte is changed leads to other data in no case, nor to anything that is written", async () => {
    const { inner } = await withRows(put("a"))
    const [row] = await inner.scan("meta", undefined, 1)
    const commit = vi.spyOn(inner, "commit")
    const set = inner.commit.bind(inner)
    let openings = 0
    for (let at = 0; at < row!.value.length; at++) {
      await set([{ space: "meta", key: row!.key, value: flipped(row!.value, at, 1 << at % 7) }])
      commit.mockClear()
      const storage = encrypted(inner, secret)
      // Base64 has bits that say nothing.
      if (await faultOf(storage.open("app")) === undefined) {
        openings++
        assert.deepStrictEqual(await rowsOf(storage), { a: "value of a" }, `byte ${at}`)
      }
      assert.strictEqual(commit.mock.calls.length, 0)
    }
    assert.isAtMost(openings, 1)
  })

  it("that asks for fewer rounds than are safe, or more than can be waited for, is refused before a key is derived", async () => {
    const derive = vi.spyOn(crypto.subtle, "deriveKey")
    for (const iterations of [1, 599_999, 4e9, -1, "600000", null]) {
      const inner = await withHeader((header) =>
        void (header.derivation = { name: "PBKDF2", hash: "SHA-256", iterations, salt: header.derivation!.salt })
      )
      derive.mockClear()
      await assertUntouched(inner, passphrase)
      assert.strictEqual(derive.mock.calls.length, 0, String(iterations))
    }
  })

  it("of a newer version is left as it is, and an update asked for", async () => {
    const inner = await withHeader((header) => void (header.format = 2))
    const before = await below(inner)
    assert.include(String(await faultOf(opened(inner))), "update the application")
    assert.deepStrictEqual(await below(inner), before)
  })

  it("that is gone, with rows still there, isn't made anew", async () => {
    const { inner } = await withRows(put("a"))
    const copy = await copyOf(inner)
    await copy.commit([{ space: "meta", key: "encryption", value: undefined }])
    await assertUntouched(copy)
  })

  it("isn't alone where others have written: neither a second one nor what isn't encrypted is gone over", async () => {
    const { inner } = await withRows(put("a"))
    await inner.commit([{
      space: "meta",
      key: "encryption 2",
      value: (await inner.scan("meta", undefined, 1))[0]!.value
    }])
    await assertUntouched(inner)
    const plain = memory()
    await plain.open("app")
    await plain.commit([{ space: "meta", key: "nodeId", value: Value.encode("0123456789abcdef") }])
    await assertUntouched(plain)
  })

  it("is nothing that a client takes for its own row, when it's opened without encryption", async () => {
    const { inner } = await withRows(put("a"))
    const [row] = await inner.scan("meta", undefined, 1)
    assert.throws(() => Value.decode(row!.value))
  })
})

describe("A row that others have changed", () => {
  /** What is read after somebody has edited the rows below. */
  const afterEdit = async (
    edit: (
      rows: ReadonlyArray<StorageRow>
    ) => ReadonlyArray<{ readonly key: string; readonly value: Uint8Array | undefined }>
  ) => {
    const { inner, storage } = await withRows(put("a"), put("b"), put("c", "value of c", "other"))
    const rows = await storedRows(inner)
    await inner.commit(asWrites(edit(rows)))
    return { inner, storage, rows, values: Object.values(await rowsOf(storage)).sort() }
  }

  it("is none, whichever bit of it is turned", async () => {
    const { inner, storage } = await withRows(put("a"))
    const [row] = await storedRows(inner)
    for (let at = 0; at < row!.value.length; at++) {
      await inner.commit([{ space: "rows", key: row!.key, value: flipped(row!.value, at, 1 << at % 8) }])
      assert.deepStrictEqual(Object.values(await rowsOf(storage)), ["unreadable"], `byte ${at}`)
    }
    await inner.commit([{ space: "rows", ...row! }])
    assert.deepStrictEqual(await rowsOf(storage), { a: "value of a" })
  })

  it("is none at whatever byte it's cut, or with more behind it", async () => {
    const { inner, storage } = await withRows(put("a"))
    const [row] = await storedRows(inner)
    for (let length = 0; length < row!.value.length; length++) {
      await inner.commit([{ space: "rows", key: row!.key, value: row!.value.slice(0, length) }])
      assert.deepStrictEqual(Object.values(await rowsOf(storage)), ["unreadable"], `${length} bytes`)
    }
    await inner.commit([{ space: "rows", key: row!.key, value: Uint8Array.of(...row!.value, 0) }])
    assert.deepStrictEqual(Object.values(await rowsOf(storage)), ["unreadable"])
  })

  it("is none in the place of another, be it of its space or not", async () => {
    const swapped = await afterEdit(([x, y, z]) => [
      { key: x!.key, value: y!.value },
      { key: y!.key, value: z!.value },
      { key: z!.key, value: x!.value }
    ])
    assert.deepStrictEqual(swapped.values, ["unreadable", "unreadable"])
    assert.deepStrictEqual(Object.values(await rowsOf(swapped.storage, "other")), ["unreadable"])
  })

  it("is none under another key of its space, or in a space of another name", async () => {
    const { inner, storage } = await withRows(put("a"), put("c", "value of c", "other"))
    const [x, y] = await storedRows(inner)
    await inner.commit([
      { space: "rows", key: x!.key.slice(0, 22) + y!.key.slice(22), value: x!.value },
      { space: "rows", key: y!.key.slice(0, 22) + x!.key.slice(22), value: x!.value }
    ])
    const values = [...Object.values(await rowsOf(storage)), ...Object.values(await rowsOf(storage, "other"))].sort()
    assert.deepStrictEqual(values, ["unreadable", "unreadable", "value of a", "value of c"])
  })

  it("is none when it isn't encrypted, whatever form it has", async () => {
    const plain = [bytes("value of a"), new Uint8Array(0), new Uint8Array(64), Value.encode({ a: 1 })]
    for (const value of plain) {
      const { values } = await afterEdit((rows) => rows.map(({ key }) => ({ key, value })))
      assert.deepStrictEqual(values, ["unreadable", "unreadable"])
    }
  })

  it("is none under the key of another storage, or another name's with the same keys", async () => {
    const { inner, storage } = await withRows(put("a"))
    const { inner: other } = await withRows(put("a", "another's"))
    const [row] = await storedRows(inner)
    const [foreign] = await storedRows(other)
    await inner.commit([{ space: "rows", key: row!.key, value: foreign!.value }])
    assert.deepStrictEqual(Object.values(await rowsOf(storage)), ["unreadable"])
    const hmac = { name: "HMAC", hash: "SHA-256" }
    const places = await crypto.subtle.importKey("raw", new Uint8Array(32), hmac, false, ["sign"])
    const key = await crypto.subtle.importKey("raw", new Uint8Array(32), "AES-GCM", false, ["encrypt", "decrypt"])
    const [one, two] = ["one", "two"].map((name) => rowCipher(name, places, () => key))
    const place = await one!.placeOf("records", "a")
    const sealed = await one!.seal(place, { key: "a", value: bytes("1") }, 1, new Uint8Array(12))
    assert.deepStrictEqual(await one!.unseal(place, sealed), { key: "a", value: bytes("1") })
    assert.isUndefined(await two!.unseal(place, sealed))
  })

  it("is none for any decoder of a client", async () => {
    assert.throws(() => Value.decode(unreadable))
    for (const kind of ["lww", "or", "counter"] as const) {
      assert.throws(() => Cell.decodeInPlace(kind, "map", "key", unreadable), undefined, undefined, kind)
    }
  })

  it("hides no other row, and is gone when it's written again", async () => {
    const { inner, storage, rows, values } = await afterEdit((
      [first]
    ) => [{ key: first!.key, value: bytes("damaged") }])
    assert.strictEqual(values.length + (await storage.scan("other", undefined, 10)).length, rows.length)
    await storage.commit([put("a"), put("b"), put("c", "value of c", "other")])
    assert.deepStrictEqual(await rowsOf(storage), { a: "value of a", b: "value of b" })
    assert.strictEqual((await storedRows(inner)).length, 3)
  })

  it("is deleted by the key that stands for it, which reaches no other space", async () => {
    const { inner, storage } = await withRows(put("a"), put("b"), put("c", "value of c", "other"))
    const place = (await storedRows(inner))[0]!.key
    await inner.commit([{ space: "rows", key: `${place}x`, value: bytes("damaged") }])
    const spaces = ["records", "other"]
    for (const space of spaces) {
      const bad = (await storage.scan(space, undefined, 10)).find(({ value }) => value === unreadable)
      if (bad === undefined) continue
      const elsewhere = spaces.find((each) => each !== space)!
      await storage.commit([{ space: elsewhere, key: bad.key, value: undefined }])
      assert.strictEqual((await storedRows(inner)).length, 4)
      await storage.commit([{ space, key: bad.key, value: undefined }])
    }
    assert.strictEqual((await storedRows(inner)).length, 3)
    assert.deepStrictEqual(await rowsOf(storage), { a: "value of a", b: "value of b" })
  })
})

describe("The budget of a key", () => {
  /** What reaches a storage below, looked at as it does: no key is used more often than is noted on disk. */
  const audited = (inner: StorageAdapter, key: EncryptionKey = secret) => {
    const ivs = new Map<number, Set<string>>()
    const audit: { failing: boolean } = { failing: false }
    const adapter: StorageAdapter = {
      ...inner,
      commit: async (writes) => {
        for (const { space, value } of writes) {
          if (space !== "rows" || value === undefined) continue
          const id = keyIdOf(value)
          ivs.set(id, (ivs.get(id) ?? new Set()).add(ivOf(value)))
        }
        if (audit.failing) throw new Error("no room")
        await inner.commit(writes)
        const ring = await ringOf(inner, key)
        for (const { id, reserved } of ring.keys) assert.isAtLeast(reserved, ivs.get(id)?.size ?? 0, `key ${id}`)
      }
    }
    return { adapter, audit, ivs }
  }

  const many = (count: number, value: string): ReadonlyArray<StorageWrite> =>
    Array.from({ length: count }, (_, i) => put(`key ${i}`, value))

  it("is noted on disk before it is spent, whatever fails, and however often it's opened anew", async () => {
    const inner = memory()
    const { adapter, audit } = audited(inner)
    for (let opening = 0; opening < 5; opening++) {
      const storage = await opened(adapter, { ...secret, rowsPerKey: 1_000 })
      for (const count of [1, 10, 50, 100, 300]) {
        audit.failing = true
        assert.instanceOf(await faultOf(storage.commit(many(count, "fails"))), Error)
        audit.failing = false
        await storage.commit(many(count, `opening ${opening}`))
      }
      // It isn't closed: the process has died.
    }
    assert.strictEqual(Object.keys(await rowsOf(await opened(inner))).length, 300)
  })

  it("isn't noted anew with each commit: once for 65,536 rows", async () => {
    const inner = memory()
    const storage = await opened(inner)
    const commit = vi.spyOn(inner, "commit")
    for (let i = 0; i < 100; i++) await storage.commit([put("a")])
    const headers = commit.mock.calls.filter(([writes]) => writes.some(({ space }) => space === "meta"))
    assert.strictEqual(headers.length, 1)
    assert.strictEqual(currentKey(await ringOf(inner)).reserved, 65_537)
  })

  it("is followed by another key's, and what the first has encrypted stays readable", async () => {
    const inner = memory()
    const storage = await opened(inner, { ...secret, rowsPerKey: 1_000 })
    await storage.commit([put("first")])
    for (let i = 0; i < 5; i++) await storage.commit(many(500, `round ${i}`))
    const { keys } = await ringOf(inner)
    assert.deepStrictEqual(keys.map(({ id }) => id), [1, 2, 3])
    assert.deepStrictEqual(new Set((await storedRows(inner)).map(({ value }) => keyIdOf(value))), new Set([1, 3]))
    const rows = await rowsOf(await opened(inner))
    assert.deepStrictEqual([rows["first"], rows["key 0"]], ["value of first", "round 4"])
  })

  it("ends writing when there can be no more keys, which a rotation mends", async () => {
    const inner = memory()
    const { adapter, ivs } = audited(inner)
    const storage = await opened(adapter, { ...secret, rowsPerKey: 1_000 })
    let commits = 0
    let refusal: unknown
    while (refusal === undefined && commits < 100) {
      refusal = await faultOf(storage.commit(many(500, `commit ${commits}`)))
      if (refusal === undefined) commits++
    }
    assert.strictEqual(refusal instanceof StorageFault ? refusal.trouble : refusal, "key")
    assert.strictEqual(commits, 34)
    for (const [id, used] of ivs) assert.isAtMost(used.size, 2_000, `key ${id}`)
    assert.strictEqual((await rowsOf(storage))["key 0"], "commit 33")
    await storage.rotate()
    await storage.commit([put("later")])
    assert.deepStrictEqual((await ringOf(inner)).keys.map(({ id }) => id), [17])
    assert.strictEqual((await rowsOf(storage))["key 0"], "commit 33")
  })

  const constantRandom = (byte: number) =>
    vi.spyOn(crypto, "getRandomValues").mockImplementation((to) => {
      ;(to as unknown as Uint8Array).fill(byte)
      return to
    })

  it("isn't drawn on with random numbers that repeat themselves: nothing is written any more", async () => {
    for (const byte of [0, 0xa5]) {
      const { inner, storage } = await withRows(put("a"))
      const random = constantRandom(byte)
      // Of one that is always the same the first is as good as any.
      if (byte !== 0) await storage.commit([put("b")])
      const before = await below(inner)
      await assertRefused(storage.commit([put("a", "again")]))
      await assertRefused(storage.commit([put("b", "again"), put("c")]))
      await assertRefused(storage.rotate({ to: otherSecret }))
      await assertRefused(opened(memory()))
      random.mockRestore()
      await assertRefused(storage.commit([put("a", "later")]))
      assert.deepStrictEqual(await below(inner), before)
      await (await opened(inner)).commit([put("a", "later")])
    }
  })

  it("isn't drawn on by a storage that is opened with random numbers that repeat themselves", async () => {
    const { inner } = await withRows(put("a"))
    constantRandom(0xa5)
    const storage = await opened(inner)
    assert.deepStrictEqual(await rowsOf(storage), { a: "value of a" })
    await assertRefused(storage.commit([put("a", "again")]))
  })
})

describe("Rotation", () => {
  const many = Array.from({ length: 1_200 }, (_, i) => put(`key ${i}`, `value ${i}`, i % 3 === 0 ? "records" : "other"))
  const expected = (space: string): Record<string, string> =>
    Object.fromEntries(
      many.filter((each) => each.space === space).map(({ key, value }) => [key, new TextDecoder().decode(value)])
    )
  const assertComplete = async (storage: StorageAdapter): Promise<void> => {
    for (const space of ["records", "other"]) assert.deepStrictEqual(await rowsOf(storage, space), expected(space))
  }
  const keyIds = async (inner: StorageAdapter): Promise<ReadonlyArray<number>> =>
    [...new Set((await storedRows(inner)).map(({ value }) => keyIdOf(value)))].sort()

  it("to another passphrase is one commit, after which the old one opens nothing", async () => {
    const inner = memory()
    const storage = await opened(inner, passphrase)
    await storage.commit([put("a")])
    const commit = vi.spyOn(inner, "commit")
    await storage.rotate({ to: { passphrase: "another one" } })
    assert.strictEqual(commit.mock.calls.length, 1)
    await storage.commit([put("b")])
    // The same driver goes on with the new one.
    await storage.close()
    await storage.open("app")
    await assertRefused(opened(inner, passphrase))
    const rows = { a: "value of a", b: "value of b" }
    assert.deepStrictEqual(await rowsOf(await opened(inner, { passphrase: "another one" })), rows)
  })

  it("to a weak passphrase is refused, and nothing changes", async () => {
    const { inner, storage } = await withRows(put("a"))
    const before = await below(inner)
    assert.instanceOf(await faultOf(storage.rotate({ to: { passphrase: "" } })), RangeError)
    assert.deepStrictEqual(await below(inner), before)
  })

  it("to another secret that fails leaves the old one, which goes on", async () => {
    const { inner } = await withRows(put("a"))
    const storage = await opened(dyingAt(inner, 0).adapter)
    assert.instanceOf(await faultOf(storage.rotate({ to: otherSecret })), Error)
    await assertRefused(opened(inner, otherSecret))
    assert.deepStrictEqual(await rowsOf(await opened(inner)), { a: "value of a" })
  })

  it("of rows encrypts all of them anew, and makes the old key useless", async () => {
    const { inner, storage } = await withRows(...many)
    const before = await storedRows(inner)
    const { id } = currentKey(await ringOf(inner))
    await storage.rotate()
    assert.deepStrictEqual((await ringOf(inner)).keys.map((key) => key.id), [id + 1])
    assert.deepStrictEqual(await keyIds(inner), [id + 1])
    assert.deepStrictEqual((await storedRows(inner)).map(({ key }) => key), before.map(({ key }) => key))
    await assertComplete(storage)
    await assertComplete(await opened(inner))
    // Not even by putting it back.
    await inner.commit(asWrites(before))
    assert.isTrue(Object.values(await rowsOf(storage)).every((value) => value === "unreadable"))
  })

  it("goes on while the storage is in use: what is written meanwhile is there", async () => {
    const { inner, storage } = await withRows(...many)
    const rotation = storage.rotate()
    const commits: Array<Promise<void>> = []
    for (let i = 0; i < 20; i++) {
      commits.push(
        storage.commit([put("key 0", `meanwhile ${i}`), { space: "other", key: `key ${3 * i + 1}`, value: undefined }])
      )
      await storage.scan("records", undefined, 1)
    }
    await Promise.all([rotation, storage.rotate(), ...commits])
    const again = await opened(inner)
    assert.deepStrictEqual(await rowsOf(again), { ...expected("records"), "key 0": "meanwhile 19" })
    assert.strictEqual(Object.keys(await rowsOf(again, "other")).length, 780)
    assert.deepStrictEqual((await ringOf(inner)).keys.length, 1)
  })

  it("loses nothing when it dies at any commit, written or not, and goes on when it's asked again", async () => {
    const { inner } = await withRows(...many)
    const counting = dyingAt(await copyOf(inner), Infinity)
    await (await opened(counting.adapter)).rotate()
    const commits = counting.commits()
    assert.isAtLeast(commits, 5)
    for (const isWrittenFirst of [false, true]) {
      for (let at = 0; at < commits; at++) {
        const copy = await copyOf(inner)
        const dying = await opened(dyingAt(copy, at, isWrittenFirst).adapter)
        assert.instanceOf(await faultOf(dying.rotate()), Error)
        const storage = await opened(copy)
        await assertComplete(storage)
        await storage.commit([put("key 0", "value 0")])
        await storage.rotate()
        await assertComplete(storage)
        await assertComplete(await opened(copy))
        const { keys } = await ringOf(copy)
        assert.strictEqual(keys.length, 1)
        assert.deepStrictEqual(await keyIds(copy), keys.map(({ id }) => id))
        // It went on with the key that was there already, where there was one.
        assert.isAtMost(keys[0]!.id, at === commits - 1 && isWrittenFirst ? 3 : 2)
      }
    }
  }, 60_000)

  it("to another passphrase and of rows loses nothing when it dies at any commit: one of both opens it", async () => {
    const { inner } = await withRows(...many)
    for (const isWrittenFirst of [false, true]) {
      for (let at = 0; at < 6; at++) {
        const copy = await copyOf(inner)
        const dying = await opened(dyingAt(copy, at, isWrittenFirst).adapter)
        assert.instanceOf(await faultOf(dying.rotate({ to: otherSecret, rows: true })), Error)
        const [key, useless] = at > 0 || isWrittenFirst ? [otherSecret, secret] : [secret, otherSecret]
        await assertRefused(opened(copy, useless))
        await assertComplete(await opened(copy, key))
      }
    }
  })

  it("goes on after a commit of it has failed, in the same run", async () => {
    const { inner } = await withRows(...many)
    let commits = 0
    const flaky = {
      ...inner,
      commit: (writes: ReadonlyArray<StorageWrite>) =>
        commits++ % 2 === 0 ? Promise.reject(new Error("busy")) : inner.commit(writes)
    }
    const storage = await opened(flaky)
    let tries = 0
    while (await faultOf(storage.rotate()) !== undefined) assert.isBelow(tries++, 20)
    await assertComplete(storage)
    await assertComplete(await opened(inner))
    assert.strictEqual((await ringOf(inner)).keys.length, 1)
  })

  it("ends when the storage is closed", async () => {
    const { inner, storage } = await withRows(...many)
    const rotation = faultOf(storage.rotate())
    await storage.close()
    await storage.open("app")
    assert.include(String(await rotation), "closed")
    await storage.rotate()
    await assertComplete(await opened(inner))
  })

  it("leaves rows that can't be read as they are", async () => {
    const { inner, storage } = await withRows(put("a"), put("b"))
    const [row] = await storedRows(inner)
    const damaged = flipped(row!.value, 30)
    await inner.commit([{ space: "rows", key: row!.key, value: damaged }])
    await storage.rotate()
    const stored = await storedRows(inner)
    assert.deepStrictEqual(stored.filter(({ value }) => keyIdOf(value) === 1), [{ key: row!.key, value: damaged }])
    const values = Object.values(await rowsOf(storage))
    assert.strictEqual(values.length, 2)
    assert.strictEqual(values.filter((value) => value === "unreadable").length, 1)
  })
})
