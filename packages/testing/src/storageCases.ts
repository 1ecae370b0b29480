/**
 * What every driver of `StorageAdapter` is held to, whatever it writes to: plain functions, which run in a page as well as
 * under a test runner. {@link storageSuite} runs them as tests.
 */
import { type StorageAdapter, StorageFault, type StorageRow, type StorageWrite } from "@topgun/core/StorageAdapter"
import { assert } from "chai"
import * as FastCheck from "effect/FastCheck"

/** A place where nothing is stored yet: a directory, a database, or the adapter itself. */
export interface Medium {
  /** A driver over this place, not yet open; with several, each as another tab or process would have it. */
  readonly adapter: () => StorageAdapter
  /** Removes the place. */
  readonly dispose?: () => void | Promise<void>
}

const utf8 = new TextEncoder()
const bytes = (text: string): Uint8Array => utf8.encode(text)

/** Keys that are only keys, and that some driver gets wrong. In the order of their UTF-16 code units, as `sort` has it. */
const hostileKeys: ReadonlyArray<string> = [
  "",
  "\0",
  "\0\0",
  "a\0b",
  "a",
  "A",
  "ab",
  "a\u0301",
  "á",
  "ß",
  "%",
  "_",
  "'; drop table rows; --",
  "\"",
  "\\",
  "../../etc/passwd",
  "1",
  "10",
  "9",
  "__proto__",
  "constructor",
  "hasOwnProperty",
  "toString",
  "length",
  "null",
  "undefined",
  "\ud7ff",
  "\ue000",
  "\uffff",
  "\u{1f600}",
  "\u{10ffff}",
  "\ufeffbom",
  "\u202eright to left",
  "k".repeat(1024)
].sort()

const put = (space: string, key: string, value: string | Uint8Array = key): StorageWrite => ({
  space,
  key,
  value: typeof value === "string" ? bytes(value) : value
})
const del = (space: string, key: string): StorageWrite => ({ space, key, value: undefined })

const scanAll = async (storage: StorageAdapter, space: string, pageRows = 1_000): Promise<Array<StorageRow>> => {
  const rows: Array<StorageRow> = []
  for (;;) {
    const page = await storage.scan(space, rows.at(-1)?.key, pageRows)
    rows.push(...page)
    if (page.length < pageRows) return rows
  }
}

const keysOf = (rows: ReadonlyArray<StorageRow>): ReadonlyArray<string> => rows.map((row) => row.key)
const plain = (rows: ReadonlyArray<StorageRow>): ReadonlyArray<readonly [string, ReadonlyArray<number>]> =>
  rows.map(({ key, value }) => [key, Array.from(value)])

/** One thing that a driver has to do; `run` rejects when it doesn't. */
export interface StorageCase {
  readonly behaviour: string
  /** `medium` is asked for new places. */
  readonly run: (medium: () => Medium | Promise<Medium>) => Promise<void>
}

const within = async (
  medium: () => Medium | Promise<Medium>,
  run: (storage: StorageAdapter, place: Medium) => Promise<void>
): Promise<void> => {
  const place = await medium()
  try {
    const storage = place.adapter()
    await storage.open("suite")
    await run(storage, place)
    await storage.close()
  } finally {
    await place.dispose?.()
  }
}

const test = (behaviour: string, run: (storage: StorageAdapter, place: Medium) => Promise<void>): StorageCase => ({
  behaviour,
  run: (medium) => within(medium, run)
})

/** All that is asked of a driver. */
export const storageCases: ReadonlyArray<StorageCase> = [
  test("is empty when new", async (storage) => {
    assert.deepStrictEqual(await storage.scan("records", undefined, 10), [])
    assert.isNotEmpty(storage.kind)
  }),

  test("keeps hostile keys apart, and scans them in the order of their UTF-16 code units", async (storage) => {
    await storage.commit(hostileKeys.slice().reverse().map((key) => put("records", key)))
    const rows = await scanAll(storage, "records")
    assert.deepStrictEqual(keysOf(rows), hostileKeys)
    for (const { key, value } of rows) assert.deepStrictEqual(value, bytes(key))
  }),

  test("scans in pages of any size, each from beyond the last key of the one before", async (storage) => {
    await storage.commit(hostileKeys.map((key) => put("records", key)))
    for (const limit of [1, 2, 7, hostileKeys.length, hostileKeys.length + 1]) {
      assert.deepStrictEqual(keysOf(await scanAll(storage, "records", limit)), hostileKeys)
    }
    assert.deepStrictEqual(keysOf(await storage.scan("records", "a\0", 2)), ["a\0b", "ab"])
    assert.deepStrictEqual(await storage.scan("records", hostileKeys.at(-1), 10), [])
  }),

  test("keeps the last of several values of a key, and forgets deleted ones", async (storage) => {
    await storage.commit([put("records", "a", "1"), put("records", "b", "1"), put("records", "c", "1")])
    await storage.commit([put("records", "a", "2"), del("records", "b"), del("records", "absent")])
    assert.deepStrictEqual(plain(await scanAll(storage, "records")), [["a", [0x32]], ["c", [0x31]]])
  }),

  test("applies the writes of a commit in their order", async (storage) => {
    await storage.commit([
      put("records", "a", "1"),
      del("records", "a"),
      put("records", "b", "1"),
      del("records", "b"),
      put("records", "b", "2"),
      put("records", "b", "3")
    ])
    assert.deepStrictEqual(plain(await scanAll(storage, "records")), [["b", [0x33]]])
    await storage.commit([])
    assert.strictEqual((await scanAll(storage, "records")).length, 1)
  }),

  test("keeps spaces apart, whatever their names", async (storage) => {
    const spaces = ["records", "Records", "record", "", "a/b", "a\0", "a", "__proto__", "'; --"]
    await storage.commit(spaces.map((space) => put(space, "key", `in ${space}`)))
    for (const space of spaces) {
      assert.deepStrictEqual(plain(await scanAll(storage, space)), [["key", Array.from(bytes(`in ${space}`))]])
    }
    await storage.commit([del("records", "key")])
    assert.deepStrictEqual(await scanAll(storage, "records"), [])
    assert.strictEqual((await scanAll(storage, "Records")).length, 1)
  }),

  test("keeps values of no bytes, of every byte and of the largest record", async (storage) => {
    const every = Uint8Array.from({ length: 256 }, (_, i) => i)
    const largest = new Uint8Array(256 * 1024 + 31).fill(0xa5)
    await storage.commit([put("v", "0", new Uint8Array(0)), put("v", "1", every), put("v", "2", largest)])
    const rows = await scanAll(storage, "v")
    assert.deepStrictEqual(rows.map(({ value }) => value.length), [0, 256, largest.length])
    assert.deepStrictEqual(Array.from(rows[1]!.value), Array.from(every))
    assert.isTrue(rows[2]!.value.every((byte) => byte === 0xa5))
  }),

  test("changes nothing when a commit fails half-way", async (storage) => {
    await storage.commit([put("records", "a", "before"), put("records", "b", "before")])
    const faulty: StorageWrite = {
      space: "records",
      key: "c",
      get value(): Uint8Array {
        throw new Error("no such value")
      }
    }
    const commit = async () => storage.commit([put("records", "a", "after"), del("records", "b"), faulty])
    const failed = await commit().then(() => false, () => true)
    assert.isTrue(failed)
    const before = Array.from(bytes("before"))
    assert.deepStrictEqual(plain(await scanAll(storage, "records")), [["a", before], ["b", before]])
    await storage.commit([put("records", "a", "later")])
    assert.strictEqual((await scanAll(storage, "records")).length, 2)
  }),

  test("applies commits that were not waited for one after the other, in the order of the calls", async (storage) => {
    const keys = Array.from({ length: 20 }, (_, i) => `key ${i}`)
    const commits = Array.from(
      { length: 20 },
      (_, i) => storage.commit(keys.map((key) => put("records", key, `commit ${i}`)))
    )
    await Promise.all(commits)
    const values = (await scanAll(storage, "records")).map(({ value }) => new TextDecoder().decode(value))
    assert.deepStrictEqual(values, keys.map(() => "commit 19"))
  }),

  test("shows a scan the whole of a commit or nothing of it", async (storage) => {
    const keys = Array.from({ length: 50 }, (_, i) => `key ${i}`)
    for (let round = 0; round < 10; round++) {
      const writes = keys.map((key) => put("records", key, `round ${round}`))
      const [rows] = await Promise.all([storage.scan("records", undefined, 100), storage.commit(writes)])
      assert.isAtMost(new Set(rows.map(({ value }) => new TextDecoder().decode(value))).size, 1)
      assert.include([0, keys.length], rows.length)
    }
  }),

  test("keeps only the part of a larger buffer that a value is", async (storage) => {
    const frame = bytes("a frame with a value in it")
    await storage.commit([put("records", "a", frame.subarray(15, 20))])
    const [row] = await scanAll(storage, "records")
    assert.deepStrictEqual(Array.from(row!.value), Array.from(bytes("value")))
    assert.strictEqual(row!.value.buffer.byteLength, 5)
  }),

  test("has its rows again when it is opened again", async (storage, place) => {
    await storage.commit([put("records", "a", "1"), put("records", "b", "1")])
    await storage.commit([del("records", "b")])
    await storage.close()
    const again = place.adapter()
    await again.open("suite")
    assert.deepStrictEqual(plain(await scanAll(again, "records")), [["a", [0x31]]])
  }),

  test(
    "belongs to who opened it last: who did before changes nothing any more, and is told",
    async (before, place) => {
      const after = place.adapter()
      // What lives and dies with its adapter has no other owner.
      if (after === before) return
      await before.commit([put("records", "a", "before")])
      await after.open("suite")
      assert.deepStrictEqual(plain(await scanAll(after, "records")), [["a", Array.from(bytes("before"))]])
      const refusals = await Promise.allSettled([
        before.commit([put("records", "a", "too late")]),
        before.commit([del("records", "a")])
      ])
      for (const refusal of refusals) {
        const fault: unknown = refusal.status === "rejected" ? refusal.reason : undefined
        assert.strictEqual(fault instanceof StorageFault ? fault.trouble : fault, "superseded")
      }
      await after.commit([put("records", "b", "after")])
      assert.deepStrictEqual(keysOf(await scanAll(after, "records")), ["a", "b"])
      assert.deepStrictEqual(plain(await scanAll(after, "records"))[0], ["a", Array.from(bytes("before"))])
      await after.close()
    }
  ),

  test("shows what was stored under a name to who opens that name, and to nobody else", async (storage, place) => {
    await storage.close()
    const names = ["one", "two", "One", "one:two", "one/two", "../one", "__proto__", "one two", "*"]
    for (const each of names) {
      const mine = place.adapter()
      await mine.open(each)
      assert.deepStrictEqual(await scanAll(mine, "records"), [], each)
      await mine.commit([put("records", "name", each)])
      await mine.close()
    }
    for (const each of names) {
      const mine = place.adapter()
      await mine.open(each)
      assert.deepStrictEqual(plain(await scanAll(mine, "records")), [["name", Array.from(bytes(each))]])
      await mine.close()
    }
    await storage.open("suite")
  }),

  {
    behaviour: "does what a map of sorted rows would, whatever is committed",
    run: (medium) => {
      const key = FastCheck.constantFrom("", "a", "a\0", "b", "\uffff", "\u{1f600}")
      const space = FastCheck.constantFrom("x", "y")
      const write = FastCheck.record({ space, key, value: FastCheck.option(FastCheck.nat(255), { nil: undefined }) })
      const commits = FastCheck.array(FastCheck.array(write, { maxLength: 5 }), { maxLength: 6 })
      return FastCheck.assert(
        FastCheck.asyncProperty(commits, (history) =>
          within(medium, async (storage) => {
            const model = { x: new Map<string, number>(), y: new Map<string, number>() }
            for (const writes of history) {
              await storage.commit(writes.map((each) => ({
                ...each,
                value: each.value === undefined ? undefined : Uint8Array.of(each.value)
              })))
              for (const each of writes) {
                const rows = model[each.space as "x" | "y"]
                if (each.value === undefined) rows.delete(each.key)
                else rows.set(each.key, each.value)
              }
              for (const [each, rows] of Object.entries(model)) {
                const expected = Array.from(rows).sort(([a], [b]) => a < b ? -1 : 1).map(([k, v]) => [k, [v]])
                assert.deepStrictEqual(plain(await scanAll(storage, each, 2)) as unknown, expected)
              }
            }
          })),
        { numRuns: 25 }
      )
    }
  }
]
