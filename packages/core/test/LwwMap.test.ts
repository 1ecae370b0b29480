import { assert, describe, it } from "@effect/vitest"
import { type Change, LwwMap } from "../src/LwwMap.ts"
import * as LwwRecord from "../src/LwwRecord.ts"
import { MerkleForest } from "../src/MerkleTree.ts"
import * as Value from "../src/Value.ts"
import { convergence } from "@topgun/testing/laws"
import { FastCheck as fc } from "effect"
import { closeRecord, key, nodeIds } from "./arbitraries.ts"

type Row = LwwRecord.LwwRecord

const newMap = (now: () => number = () => 0) => new LwwMap({ now })
const at = (millis: number, counter = 0) => ({ millis, counter, nodeId: nodeIds[1] })
const put = (millis: number, value: unknown, expiresAt = 0) => LwwRecord.put(at(millis), Value.encode(value), expiresAt)

/** What the live records' rows come to, and the buffers that they lie in. */
const held = (map: LwwMap) => {
  const buffers = new Set<ArrayBufferLike>()
  let live = 0
  for (const [, record] of map.records()) {
    buffers.add(record.row.buffer)
    live += record.row.length
  }
  return { live, bytes: Array.from(buffers, (buffer) => buffer.byteLength).reduce((sum, bytes) => sum + bytes, 0) }
}

convergence("LwwMap", {
  operation: fc.tuple(key, closeRecord),
  make: newMap,
  apply: (map, [each, record]) => {
    map.merge(each, record)
  },
  merge: (into, from) => {
    for (const [each, record] of from.records()) into.merge(each, record)
  },
  digest: (map) => map.digest
})

// --- A naive model: for each key the greatest confirmed record, and the greatest local one beyond it ---

interface ModelEntry {
  confirmed: Row | undefined
  local: Row | undefined
}

const greater = (a: Row | undefined, b: Row | undefined): Row | undefined =>
  a === undefined ? b : b === undefined ? a : LwwRecord.compare(a, b) >= 0 ? a : b

class Model {
  readonly entries = new Map<string, ModelEntry>()

  live(each: string): Row | undefined {
    const entry = this.entries.get(each)
    return greater(entry?.confirmed, entry?.local)
  }

  run(each: string, change: (entry: ModelEntry) => void): void {
    const entry = this.entries.get(each) ?? { confirmed: undefined, local: undefined }
    change(entry)
    if (entry.local !== undefined && greater(entry.confirmed, entry.local) === entry.confirmed) entry.local = undefined
    if (greater(entry.confirmed, entry.local) === undefined) this.entries.delete(each)
    else this.entries.set(each, entry)
  }
}

const command = fc.oneof(
  fc.record({ _tag: fc.constant("merge" as const), key, record: closeRecord }),
  fc.record({ _tag: fc.constant("confirm" as const), key, record: closeRecord }),
  fc.record({ _tag: fc.constant("confirmLive" as const), key, record: closeRecord }),
  fc.record({ _tag: fc.constant("write" as const), key, record: closeRecord }),
  fc.record({ _tag: fc.constant("revert" as const), key, record: closeRecord }),
  fc.record({ _tag: fc.constant("revertTo" as const), key, record: closeRecord }),
  fc.record({ _tag: fc.constant("prune" as const), key, record: closeRecord })
)
type Command = typeof command extends fc.Arbitrary<infer A> ? A : never

/** Does a command to the map and to the model; answers the change that the map told of. */
const perform = (map: LwwMap, model: Model, { _tag, key: each, record }: Command): Change | undefined => {
  switch (_tag) {
    case "merge":
    case "confirm":
      model.run(each, (entry) => {
        entry.confirmed = greater(entry.confirmed, record)
      })
      return _tag === "merge" ? map.merge(each, record) : map.confirm(each, record)
    case "confirmLive": {
      const live = model.live(each)
      if (live === undefined) return undefined
      model.run(each, (entry) => {
        entry.confirmed = live
      })
      return map.confirm(each, live)
    }
    case "write":
      model.run(each, (entry) => {
        entry.local = greater(entry.local, record)
      })
      return map.write(each, record)
    case "revert":
      model.run(each, (entry) => {
        entry.local = undefined
      })
      return map.revert(each)
    case "revertTo":
      model.run(each, (entry) => {
        if (entry.local !== undefined) entry.local = record
      })
      return map.revert(each, record)
    case "prune": {
      const before = record.millis
      for (const [name, { confirmed, local }] of Array.from(model.entries)) {
        if (local === undefined && confirmed!.isTombstone && confirmed!.millis < before) model.entries.delete(name)
      }
      map.prune(before)
      return undefined
    }
  }
}

const sameRow = (a: Row | undefined, b: Row | undefined): boolean =>
  a === undefined || b === undefined ? a === b : LwwRecord.compare(a, b) === 0

describe("LwwMap", () => {
  it("finds values by some of their fields, read before or not, and gives them whole, as everybody gets them", () => {
    const map = newMap()
    const values = { a: { m: "x", n: 1 }, b: { m: "y", n: 2 }, c: "n", d: { m: "z", n: 1 } }
    for (const [name, value] of Object.entries(values)) {
      map.set(name, Value.encode(value), { millis: 1, counter: 0, nodeId: "0".repeat(16) })
    }
    map.remove("d", { millis: 2, counter: 0, nodeId: "0".repeat(16) })
    const known = map.get("b")
    const seen: Array<unknown> = []
    const found = new Map<string, unknown>()
    map.find(new Set(["n"]), (name, part) => {
      seen.push([name, part])
      return name !== "c"
    }, (name, value) => found.set(name, value))
    assert.deepStrictEqual(seen, [["a", { n: 1 }], ["b", values.b], ["c", "n"]])
    assert.deepStrictEqual(found, new Map([["a", values.a], ["b", values.b]]))
    assert.strictEqual(found.get("b"), known)
    assert.strictEqual(found.get("a"), map.get("a"))
  })

  it.prop(
    "is what a naive model is after any writes, merges, confirmations and reverts; its tree digests confirmed records only",
    [fc.array(command, { maxLength: 20, size: "max" })],
    ([commands]) => {
      const now = 2_500
      const map = newMap(() => now)
      const model = new Model()
      for (const each of commands) {
        const previous = model.live(each.key)
        const change = perform(map, model, each)
        const live = model.live(each.key)
        if (each._tag !== "prune") {
          assert.strictEqual(change === undefined, sameRow(previous, live))
          if (change !== undefined) {
            assert.isTrue(sameRow(change.previous, previous))
            assert.isTrue(sameRow(change.record, live))
          }
        }
        const fresh = newMap()
        for (const [name, { confirmed }] of Array.from(model.entries).reverse()) {
          if (confirmed !== undefined) fresh.merge(name, confirmed)
        }
        assert.strictEqual(map.digest, fresh.digest)
        assert.strictEqual(map.tree.size, fresh.recordCount)
        assert.strictEqual(map.recordCount, model.entries.size)
        const visible = new Map<string, unknown>()
        for (const [name, { confirmed }] of model.entries) {
          const row = model.live(name)!
          assert.isTrue(sameRow(map.getRecord(name), row))
          assert.isTrue(sameRow(map.getConfirmed(name), confirmed))
          if (row.isTombstone || (row.expiresAt !== 0 && row.expiresAt <= now)) {
            assert.isFalse(map.has(name))
            assert.isUndefined(map.get(name))
          } else {
            assert.isTrue(map.has(name))
            visible.set(name, Value.decode(row.valueBytes))
          }
        }
        assert.strictEqual(map.size, visible.size)
        assert.deepStrictEqual(new Map(map.entries()), visible)
        const visited = new Map<string, unknown>()
        map.forEach((own, value) => visited.set(own, value))
        assert.deepStrictEqual(visited, visible)
        const wanted = new Map<string, unknown>()
        map.find(new Set(["n"]), (own) => own !== "a", (own, value) => wanted.set(own, value))
        assert.deepStrictEqual(wanted, new Map(Array.from(visible).filter(([own]) => own !== "a")))
        assert.deepStrictEqual(new Set(map.keys()), new Set(visible.keys()))
      }
    },
    { fastCheck: { numRuns: 500 } }
  )

  it.prop(
    "is itself again when it's restored from its records and their bases",
    [fc.array(command, { maxLength: 20, size: "max" })],
    ([commands]) => {
      const map = newMap()
      const model = new Model()
      for (const each of commands) perform(map, model, each)
      const restored = newMap()
      for (const [name, { confirmed, local }] of model.entries) {
        if (local === undefined) restored.restore(name, confirmed!)
        else restored.restore(name, local, confirmed ?? null)
      }
      assert.strictEqual(restored.digest, map.digest)
      for (const name of model.entries.keys()) {
        map.revert(name)
        restored.revert(name)
        assert.isTrue(sameRow(restored.getRecord(name), map.getRecord(name)))
      }
      assert.strictEqual(restored.size, map.size)
    }
  )

  it("lets a delete win over a put of the same stamp, on whichever side it comes", () => {
    const [first, second] = [newMap(), newMap()]
    first.merge("k", put(1, "x"))
    first.merge("k", LwwRecord.remove(at(1)))
    second.merge("k", LwwRecord.remove(at(1)))
    second.merge("k", put(1, "x"))
    assert.isFalse(first.has("k"))
    assert.isFalse(second.has("k"))
    assert.strictEqual(first.digest, second.digest)
  })

  it("decides between two values of one stamp by their bytes", () => {
    const [first, second] = [newMap(), newMap()]
    for (const value of ["a", "b"]) first.merge("k", put(1, value))
    for (const value of ["b", "a"]) second.merge("k", put(1, value))
    assert.strictEqual(first.get("k"), "b")
    assert.strictEqual(second.get("k"), "b")
  })

  it("digests values, not only stamps and keys", () => {
    const digests = [put(1, "a"), put(1, "b"), put(1, "a", 5), put(1, "a", 6), put(2, "a"), LwwRecord.remove(at(1))]
      .flatMap(
        (record) =>
          ["k", "l"].map((each) => {
            const map = newMap()
            map.merge(each, record)
            return map.digest
          })
      )
    assert.strictEqual(new Set(digests).size, digests.length)
  })

  it("has another digest after each change of a record, and the old one after none", () => {
    const map = newMap()
    const seen = new Set([map.digest])
    for (const record of [put(1, "a"), put(2, "b"), put(3, "c"), LwwRecord.remove(at(4)), put(5, "a")]) {
      map.merge("k", record)
      assert.isFalse(seen.has(map.digest))
      seen.add(map.digest)
      map.merge("k", put(1, "a"))
      assert.isTrue(seen.has(map.digest))
    }
  })

  it("shows the same frozen value at each read until it changes", () => {
    const map = newMap()
    map.merge("k", put(1, { list: [1] }))
    const value = map.get("k") as { readonly list: Array<number> }
    assert.strictEqual(map.get("k"), value)
    assert.throws(() => value.list.push(2), TypeError)
    map.merge("k", put(2, { list: [2] }))
    assert.deepStrictEqual(map.get("k"), { list: [2] })
  })

  it("holds null as a value, not as its absence", () => {
    const map = newMap()
    map.merge("k", put(1, null))
    assert.isTrue(map.has("k"))
    assert.isNull(map.get("k"))
    assert.strictEqual(map.size, 1)
  })

  it("hides a value from the moment that it expires, and keeps its record and digest", () => {
    let now = 1_999
    const map = newMap(() => now)
    map.merge("k", put(1, "x", 2_000))
    map.merge("other", put(1, "y"))
    const { digest } = map
    assert.strictEqual(map.get("k"), "x")
    now = 2_000
    assert.isFalse(map.has("k"))
    assert.isUndefined(map.get("k"))
    assert.deepStrictEqual(Array.from(map.entries()), [["other", "y"]])
    assert.strictEqual(map.size, 1)
    assert.strictEqual(map.recordCount, 2)
    assert.strictEqual(map.digest, digest)
  })

  it("forgets only confirmed tombstones below the bound", () => {
    const map = newMap()
    map.remove("old", at(1))
    map.remove("young", at(10))
    map.set("value", Value.encode(1), at(1))
    map.write("pending", LwwRecord.remove(at(1)))
    assert.deepStrictEqual(map.prune(10), [["old", LwwRecord.remove(at(1))]])
    assert.deepStrictEqual(Array.from(map.records(), ([each]) => each), ["young", "value", "pending"])
  })

  it("collects the tombstone of a key, and nothing else", () => {
    const map = newMap()
    map.remove("gone", at(1))
    map.set("value", Value.encode(1), at(1))
    map.write("pending", LwwRecord.remove(at(1)))
    map.remove("written again", at(1))
    map.write("written again", put(2, 1))
    const before = map.digest
    assert.deepStrictEqual(["value", "pending", "written again", "none"].map((each) => map.collect(each)), [
      false,
      false,
      false,
      false
    ])
    assert.strictEqual(map.digest, before)
    assert.isTrue(map.collect("gone"))
    assert.isFalse(map.collect("gone"))
    assert.isUndefined(map.getRecord("gone"))
    assert.deepStrictEqual(Array.from(map.records(), ([each]) => each), ["value", "pending", "written again"])
    assert.notStrictEqual(map.digest, before)
  })

  it("keeps names of Object.prototype as plain keys", () => {
    const map = newMap()
    const names = ["__proto__", "constructor", "toString", "hasOwnProperty", ""]
    for (const name of names) map.merge(name, put(1, name))
    assert.deepStrictEqual(Array.from(map.keys()), names)
    assert.strictEqual(map.get("__proto__"), "__proto__")
    assert.isFalse(map.has("valueOf"))
  })

  it("holds little more memory than its records need, however often and unevenly they are overwritten", () => {
    const map = newMap()
    const values = new Map<string, number>()
    const write = (each: string, n: number, length: number) => {
      values.set(each, n)
      map.set(each, Value.encode([n, "x".repeat(length)]), at(n))
    }
    let n = 0
    // Between any two keys that are written once, one is written again and again: what lies between them must go.
    for (let i = 0; i < 2_000; i++) {
      write(`k${i}`, ++n, 20)
      for (let j = 0; j < 20; j++) write("hot", ++n, (i * 37 + j) % 1_100)
    }
    for (let i = 0; i < 20_000; i++) write(`k${i % 100}`, ++n, 10 + i % 200)
    const { bytes, live } = held(map)
    assert.isAtMost(bytes, 3 * live + 2 * 64 * 1024)
    for (const [each, expected] of values) assert.strictEqual((map.get(each) as ReadonlyArray<unknown>)[0], expected)
    const again = newMap()
    for (const [each, record] of map.records()) again.merge(each, LwwRecord.decode(record.row))
    assert.strictEqual(map.digest, again.digest)
  })

  it("of few records, written again and again, holds a few times what they need", () => {
    const map = newMap()
    for (let n = 1; n <= 2_000; n++) map.set(`k${n % 4}`, Value.encode("x".repeat(200)), at(n))
    const { bytes, live } = held(map)
    assert.isAtMost(bytes, 12 * live)
  })

  it("has nothing of a key that can't be added to its tree", () => {
    const tree = new MerkleForest()
    const [owner, other] = [new LwwMap({ now: () => 0, tree }), new LwwMap({ now: () => 0, tree })]
    owner.merge("k", put(1, "x"))
    const { digest } = owner
    for (const add of [() => other.merge("k", put(2, "y")), () => other.set("k", Value.encode("y"), at(2))]) {
      assert.throws(add, /tree of another map/)
      assert.deepStrictEqual([other.recordCount, other.size, other.get("k")], [0, 0, undefined])
    }
    assert.strictEqual(owner.digest, digest)
    assert.strictEqual(owner.get("k"), "x")
  })

  it("is restored from storage once for each key", () => {
    const map = newMap()
    map.restore("k", put(1, "x"))
    assert.throws(() => map.restore("k", put(2, "y")), /in the map already/)
    assert.strictEqual(map.get("k"), "x")
  })

  it("keeps no frame that a record came in", () => {
    const map = newMap()
    const frame = new Uint8Array(100_000)
    for (const [each, value] of [["small", "x"], ["large", "x".repeat(5_000)]] as const) {
      const { row } = put(1, value)
      frame.set(row, 10)
      map.merge(each, LwwRecord.decodeInPlace(frame.subarray(10, 10 + row.length)))
      frame.fill(0)
      assert.strictEqual(map.get(each), value)
    }
  })
})
