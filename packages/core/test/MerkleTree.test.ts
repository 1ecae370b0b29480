import { assert, describe, it } from "@effect/vitest"
import { hashKey } from "../src/internal/hash.ts"
import { DIGEST_HI, DIGEST_LO, FIELDS_LOG2, KEY_HI, KEY_LO, KeyTable } from "../src/internal/KeyTable.ts"
import {
  childPath,
  compareHashes,
  type Cursor,
  leafKeysMax,
  MerkleForest,
  MerkleTree,
  type Path,
  pathOf
} from "../src/MerkleTree.ts"
import { FastCheck as fc } from "effect"

interface Entry {
  readonly key: string
  readonly keyHi: number
  readonly keyLo: number
  readonly digestHi: number
  readonly digestLo: number
}

/** Hashes that share long beginnings, so that a few dozen keys make a deep tree; some keys are twins in their hash. */
const lane = fc.constantFrom(0, 1, 2, 0x10, 0x11, 0x7fffffff, -1, -2, -0x10, -0x80000000, 0x12345678)
const anyLane = fc.oneof(lane, fc.integer())

const entries = fc.uniqueArray(
  fc.record({ key: fc.nat(10_000), keyHi: anyLane, keyLo: anyLane, digestHi: fc.integer(), digestLo: fc.integer() }),
  // `size`, or hardly any would be larger than a leaf.
  { maxLength: 400, size: "max", selector: (each) => each.key }
).map((all) => all.map((each): Entry => ({ ...each, key: String(each.key) })))

class Held {
  readonly keys = new KeyTable()
  readonly tree = new MerkleTree(this.keys)

  constructor(all: Iterable<Entry> = []) {
    for (const each of all) this.insert(each)
  }

  insert(each: Entry): void {
    const slot = this.keys.addHashed(each.key, each.keyHi, each.keyLo)
    this.keys.fields[slot << FIELDS_LOG2 | DIGEST_HI] = each.digestHi
    this.keys.fields[slot << FIELDS_LOG2 | DIGEST_LO] = each.digestLo
    this.tree.insert(slot)
  }

  update(key: string, hi: number, lo: number): void {
    this.tree.update(this.keys.slots.get(key)!, hi, lo)
  }

  remove(key: string): void {
    const slot = this.keys.slots.get(key)!
    this.tree.remove(slot)
    this.keys.remove(slot)
  }

  names(slots: ReadonlyArray<number>): ReadonlyArray<string> {
    return slots.map((slot) => this.keys.keys[slot]!).sort()
  }

  visited(path: string, after?: Cursor): ReadonlyArray<string> {
    const seen: Array<string> = []
    this.tree.visit(pathOf(path), after, (slot) => seen.push(this.keys.keys[slot]!) > 0)
    return seen
  }

  /** The whole shape: what each path shows, down to the leaves. */
  shape(path: Path = pathOf("")): unknown {
    const count = this.tree.count(path)
    if (count === 0) return undefined
    if (count <= leafKeysMax || path.depth === 16) return this.names(this.tree.slotsBelow(path))
    const children = new Int32Array(48)
    this.tree.readChildren(path, children)
    return Array.from({ length: 16 }, (_, i) => [
      Array.from(children.subarray(i * 3, i * 3 + 3)),
      this.shape(childPath(path, i))
    ])
  }
}

const inHashOrder = (a: Entry, b: Entry): number => compareHashes(a.keyHi, a.keyLo, b.keyHi, b.keyLo)

const inKeyOrder = (a: Entry, b: Entry): number => inHashOrder(a, b) || (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)

const cursorOf = ({ key, keyHi, keyLo }: Entry): Cursor => ({ hi: keyHi, lo: keyLo, key })

const digitsOf = (each: Entry): string =>
  [each.keyHi, each.keyLo].map((part) => (part >>> 0).toString(16).padStart(8, "0")).join("")

describe("MerkleTree", () => {
  it.prop(
    "is after any insertions, updates and removals what it would be if built anew, in any order",
    [
      entries,
      fc.array(fc.record({ at: fc.nat(), removes: fc.boolean(), hi: fc.integer(), lo: fc.integer() }), {
        maxLength: 100,
        size: "max"
      }),
      fc.array(fc.nat(), { minLength: 400, maxLength: 400 })
    ],
    ([all, changes, weights]) => {
      const held = new Held(all)
      const model = new Map(all.map((each) => [each.key, each]))
      for (const { at, hi, lo, removes } of changes) {
        const entry = Array.from(model.values())[model.size === 0 ? 0 : at % model.size]
        if (entry === undefined) break
        if (removes) {
          held.remove(entry.key)
          model.delete(entry.key)
        } else {
          held.update(entry.key, hi, lo)
          model.set(entry.key, { ...entry, digestHi: hi, digestLo: lo })
        }
      }
      const shuffled = Array.from(model.values(), (each, i) => [weights[i]!, each] as const).sort(([a], [b]) => a - b)
      const fresh = new Held(shuffled.map(([, each]) => each))
      assert.strictEqual(held.tree.getRootHash(), fresh.tree.getRootHash())
      assert.strictEqual(held.tree.size, model.size)
      assert.deepStrictEqual(held.shape(), fresh.shape())
    },
    { fastCheck: { numRuns: 300 } }
  )

  it("is what it would be if built anew while it grows to thousands of keys and shrinks to none", () => {
    const hash = { hi: 0, lo: 0 }
    const all = Array.from({ length: 5_000 }, (_, i): Entry => {
      hashKey(`key ${i}`, hash)
      return { key: `key ${i}`, keyHi: hash.hi, keyLo: hash.lo, digestHi: hash.lo ^ i, digestLo: hash.hi + i | 0 }
    })
    const held = new Held()
    for (const [i, each] of all.entries()) {
      held.insert(each)
      if (i % 617 === 0) assert.deepStrictEqual(held.shape(), new Held(all.slice(0, i + 1).reverse()).shape())
    }
    for (const [i, each] of all.entries()) {
      held.remove(each.key)
      if (i % 617 === 0) assert.deepStrictEqual(held.shape(), new Held(all.slice(i + 1)).shape())
    }
    assert.strictEqual(held.tree.getRootHash(), "0000000000000000")
  })

  it.prop("has a shape that depends on its keys alone", [entries, fc.integer()], ([all, digest]) => {
    const leaves = (shape: unknown): unknown =>
      Array.isArray(shape) && Array.isArray(shape[0]) ? shape.map(([[count], below]) => [count, leaves(below)]) : shape
    const others = all.map((each) => ({ ...each, digestHi: digest, digestLo: ~digest })).reverse()
    assert.deepStrictEqual(leaves(new Held(all).shape()), leaves(new Held(others).shape()))
  })

  it.prop("has another root when one digest differs", [entries, fc.nat(), fc.integer()], ([all, at, by]) => {
    fc.pre(all.length > 0 && by !== 0)
    const changed = all.map((each, i) => i === at % all.length ? { ...each, digestLo: each.digestLo + by | 0 } : each)
    assert.notStrictEqual(new Held(all).tree.getRootHash(), new Held(changed).tree.getRootHash())
  })

  it.prop("visits keys in the order of their hashes, from beyond any of them", [entries, fc.nat()], ([all, at]) => {
    const held = new Held(all)
    const keysOf = (some: ReadonlyArray<Entry>) => some.slice().sort(inKeyOrder).map((each) => each.key)
    assert.deepStrictEqual(held.visited(""), keysOf(all))
    const from = all[at % Math.max(1, all.length)]
    if (from === undefined) return
    assert.deepStrictEqual(held.visited("", cursorOf(from)), keysOf(all.filter((each) => inKeyOrder(each, from) > 0)))
  })

  it.prop(
    "shows below a path the keys whose hashes begin with it",
    [entries, fc.nat(), fc.nat(16)],
    ([all, at, depth]) => {
      const held = new Held(all)
      const from = all[at % Math.max(1, all.length)]
      if (from === undefined) return
      const path = digitsOf(from).slice(0, depth)
      const expected = all.filter((each) => digitsOf(each).startsWith(path)).map((each) => each.key).sort()
      assert.deepStrictEqual(held.tree.getKeysInBucket(path).sort(), expected)
      assert.strictEqual(held.tree.count(pathOf(path)), expected.length)
      const beyond = all.filter((each) => digitsOf(each).startsWith(path) && inKeyOrder(each, from) > 0)
      assert.deepStrictEqual(
        held.visited(path, cursorOf(from)).slice().sort(),
        beyond.map((each) => each.key).sort()
      )
    }
  )

  it.prop("finds all keys of a hash", [entries], ([all]) => {
    const held = new Held(all)
    for (const each of all) {
      const twins = all.filter((other) => inHashOrder(other, each) === 0).map((other) => other.key).sort()
      assert.deepStrictEqual(held.names(held.tree.find(each.keyHi, each.keyLo)), twins)
    }
    assert.deepStrictEqual(held.tree.find(0x55555555, 0x55555555), [])
  })

  it("splits a leaf at its 17th key and joins it again when that goes", () => {
    const all = Array.from({ length: leafKeysMax + 1 }, (_, i): Entry => {
      const hash = { hi: 0, lo: 0 }
      hashKey(`key ${i}`, hash)
      return { key: `key ${i}`, keyHi: hash.hi, keyLo: hash.lo, digestHi: i, digestLo: i }
    })
    const held = new Held(all.slice(0, leafKeysMax))
    assert.deepStrictEqual(held.tree.getBuckets(""), {})
    const root = held.tree.getRootHash()
    held.insert(all[leafKeysMax]!)
    const buckets = held.tree.getBuckets("")
    assert.isAbove(Object.keys(buckets).length, 1)
    for (const [digit, sum] of Object.entries(buckets)) {
      const below = new Held(all.filter((each) => digitsOf(each).startsWith(digit)))
      assert.strictEqual(sum, below.tree.getRootHash())
    }
    held.remove(all[leafKeysMax]!.key)
    assert.deepStrictEqual(held.tree.getBuckets(""), {})
    assert.strictEqual(held.tree.getRootHash(), root)
  })

  it("holds any number of keys of one hash", () => {
    const held = new Held(Array.from({ length: 40 }, (_, i) => ({
      key: `twin ${i}`,
      keyHi: 7,
      keyLo: 7,
      digestHi: i,
      digestLo: i
    })))
    assert.strictEqual(held.tree.find(7, 7).length, 40)
    assert.strictEqual(held.tree.size, 40)
    let seen = 0
    held.tree.visit(pathOf(""), { hi: 7, lo: 7, key: "twin 5" }, () => ++seen < 3)
    assert.strictEqual(seen, 3)
    for (let i = 0; i < 40; i += 2) held.remove(`twin ${i}`)
    assert.deepStrictEqual(held.tree.getKeysInBucket("0000").length, 20)
  })

  it("stops a visit where it is told to, and goes on from there", () => {
    const hash = { hi: 0, lo: 0 }
    const held = new Held(Array.from({ length: 1_000 }, (_, i): Entry => {
      hashKey(`key ${i}`, hash)
      return { key: `key ${i}`, keyHi: hash.hi, keyLo: hash.lo, digestHi: 0, digestLo: 0 }
    }))
    const seen: Array<string> = []
    for (let after: Cursor | undefined; seen.length < 1_000;) {
      const page: Array<number> = []
      held.tree.visit(pathOf(""), after, (slot) => page.push(slot) < 7)
      assert.isAtLeast(page.length, 1)
      assert.isAtMost(page.length, 7)
      seen.push(...page.map((slot) => held.keys.keys[slot]!))
      const last = page.at(-1)! << FIELDS_LOG2
      after = { hi: held.keys.fields[last | KEY_HI]!, lo: held.keys.fields[last | KEY_LO]!, key: seen.at(-1)! }
    }
    assert.deepStrictEqual(seen, held.visited(""))
  })

  it("is zero when empty, and empty again when all is removed", () => {
    const held = new Held()
    assert.strictEqual(held.tree.getRootHash(), "0000000000000000")
    held.insert({ key: "k", keyHi: 1, keyLo: 2, digestHi: 3, digestLo: 4 })
    assert.strictEqual(held.tree.getRootHash(), "0000000300000004")
    held.remove("k")
    assert.strictEqual(held.tree.getRootHash(), "0000000000000000")
    assert.deepStrictEqual(held.tree.slotsBelow(pathOf("a")), [])
  })
})

describe("MerkleForest", () => {
  const add = (forest: MerkleForest, partition: number, key: string, digest: number, keys = new KeyTable()) => {
    const slot = keys.addHashed(key, digest, digest)
    keys.fields[slot << FIELDS_LOG2 | DIGEST_HI] = digest
    keys.fields[slot << FIELDS_LOG2 | DIGEST_LO] = digest
    forest.insert(partition, keys, slot)
    return slot
  }

  it("has one root over those of its partitions, whichever came first", () => {
    const [first, second] = [new MerkleForest(), new MerkleForest()]
    add(first, 270, "a", 1)
    add(first, 3, "b", 2)
    add(second, 3, "b", 2)
    add(second, 270, "a", 1)
    assert.strictEqual(first.getRootHash(), second.getRootHash())
    assert.notStrictEqual(first.getRootHash(), new MerkleForest().getRootHash())
  })

  it("has another root for the same key in another partition", () => {
    const [first, second] = [new MerkleForest(), new MerkleForest()]
    add(first, 1, "a", 1)
    add(second, 2, "a", 1)
    assert.notStrictEqual(first.getRootHash(), second.getRootHash())
  })

  it("forgets a partition with its last key", () => {
    const forest = new MerkleForest()
    const slot = add(forest, 5, "a", 1)
    const before = forest.getRootHash()
    forest.update(5, slot, 8, 9)
    assert.notStrictEqual(forest.getRootHash(), before)
    assert.strictEqual(forest.size, 1)
    forest.remove(5, slot)
    assert.strictEqual(forest.tree(5), undefined)
    assert.strictEqual(forest.getRootHash(), "0000000000000000")
  })
})
