import { assert, describe, it } from "@effect/vitest"
import { hashKey } from "../src/internal/hash.ts"
import { compareHashes, leafKeysMax, MerkleForest, MerkleTree, type TreeEntry } from "../src/MerkleTree.ts"
import { FastCheck as fc } from "effect"

/** Hashes that share long beginnings, so that a few dozen keys make a deep tree; some keys are twins in their hash. */
const lane = fc.constantFrom(0, 1, 2, 0x10, 0x11, 0x7fffffff, -1, -2, -0x10, -0x80000000, 0x12345678)
const anyLane = fc.oneof(lane, fc.integer())

const entries = fc.uniqueArray(
  fc.record({ key: fc.nat(10_000), keyHi: anyLane, keyLo: anyLane, digestHi: fc.integer(), digestLo: fc.integer() }),
  // `size`, or hardly any would be larger than a leaf.
  { maxLength: 120, size: "max", selector: (each) => each.key }
).map((all) => all.map((each): TreeEntry => ({ ...each, key: String(each.key) })))

const treeOf = (all: Iterable<TreeEntry>): MerkleTree => {
  const tree = new MerkleTree()
  for (const each of all) tree.insert({ ...each })
  return tree
}

/** The whole shape: what each path shows, down to the leaves. */
const shapeOf = (tree: MerkleTree, path = ""): unknown => {
  const view = tree.view(path)
  if (view._tag === "Branch") return view.children.map((child, i) => child && shapeOf(tree, path + i.toString(16)))
  return view._tag === "Empty" ? undefined : view.entries.map((each) => each.key).sort()
}

const visited = (tree: MerkleTree, path: string, after?: { readonly hi: number; readonly lo: number }) => {
  const seen: Array<TreeEntry> = []
  tree.visit(path, after, (each) => {
    seen.push(each)
    return true
  })
  return seen
}

const inHashOrder = (a: TreeEntry, b: TreeEntry): number => compareHashes(a.keyHi, a.keyLo, b.keyHi, b.keyLo)

const pathOf = (each: TreeEntry): string =>
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
      fc.array(fc.nat(), { minLength: 120, maxLength: 120 })
    ],
    ([all, changes, weights]) => {
      const tree = new MerkleTree()
      const held = new Map<string, TreeEntry>()
      for (const each of all) {
        const entry = { ...each }
        tree.insert(entry)
        held.set(each.key, entry)
      }
      for (const { at, hi, lo, removes } of changes) {
        const entry = Array.from(held.values())[held.size === 0 ? 0 : at % held.size]
        if (entry === undefined) break
        // Asked in between, so that hashes that were computed before have to be computed again.
        tree.getRootHash()
        if (removes) {
          tree.remove(entry)
          held.delete(entry.key)
        } else {
          tree.update(entry, hi, lo)
        }
      }
      const shuffled = Array.from(held.values(), (each, i) => [weights[i]!, each] as const).sort(([a], [b]) => a - b)
      const fresh = treeOf(shuffled.map(([, each]) => each))
      assert.strictEqual(tree.getRootHash(), fresh.getRootHash())
      assert.strictEqual(tree.size, held.size)
      assert.deepStrictEqual(shapeOf(tree), shapeOf(fresh))
    },
    { fastCheck: { numRuns: 200 } }
  )

  it.prop("has a shape that depends on its keys alone", [entries, fc.integer()], ([all, digest]) => {
    const others = all.map((each) => ({ ...each, digestHi: digest, digestLo: ~digest })).reverse()
    assert.deepStrictEqual(shapeOf(treeOf(all)), shapeOf(treeOf(others)))
  })

  it.prop("has another root when one digest differs", [entries, fc.nat(), fc.integer()], ([all, at, by]) => {
    fc.pre(all.length > 0 && by !== 0)
    const changed = all.map((each, i) => i === at % all.length ? { ...each, digestLo: each.digestLo + by | 0 } : each)
    assert.notStrictEqual(treeOf(all).getRootHash(), treeOf(changed).getRootHash())
  })

  it.prop("visits keys in the order of their hashes, from beyond any of them", [entries, fc.nat()], ([all, at]) => {
    const tree = treeOf(all)
    assert.deepStrictEqual(visited(tree, "").map(pathOf), all.slice().sort(inHashOrder).map(pathOf))
    const from = all[at % Math.max(1, all.length)]
    if (from === undefined) return
    const expected = all.filter((each) => inHashOrder(each, from) > 0).sort(inHashOrder).map(pathOf)
    assert.deepStrictEqual(visited(tree, "", { hi: from.keyHi, lo: from.keyLo }).map(pathOf), expected)
  })

  it.prop(
    "shows below a path the keys whose hashes begin with it",
    [entries, fc.nat(), fc.nat(16)],
    ([all, at, depth]) => {
      const tree = treeOf(all)
      const from = all[at % Math.max(1, all.length)]
      if (from === undefined) return
      const path = pathOf(from).slice(0, depth)
      const expected = all.filter((each) => pathOf(each).startsWith(path)).map((each) => each.key).sort()
      assert.deepStrictEqual(tree.getKeysInBucket(path).sort(), expected)
      const beyond = all.filter((each) => pathOf(each).startsWith(path) && inHashOrder(each, from) > 0)
      const hash = { hi: from.keyHi, lo: from.keyLo }
      assert.deepStrictEqual(
        visited(tree, path, hash).map((each) => each.key).sort(),
        beyond.map((each) => each.key).sort()
      )
    }
  )

  it.prop("finds all keys of a hash", [entries], ([all]) => {
    const tree = treeOf(all)
    for (const each of all) {
      const twins = all.filter((other) => inHashOrder(other, each) === 0).map((other) => other.key).sort()
      assert.deepStrictEqual(tree.find(each.keyHi, each.keyLo).map((found) => found.key).sort(), twins)
    }
    assert.deepStrictEqual(tree.find(0x55555555, 0x55555555), [])
  })

  it("splits a leaf at its 17th key and joins it again when that goes", () => {
    const all = Array.from({ length: leafKeysMax + 1 }, (_, i): TreeEntry => {
      const hash = { hi: 0, lo: 0 }
      hashKey(`key ${i}`, hash)
      return { key: `key ${i}`, keyHi: hash.hi, keyLo: hash.lo, digestHi: i, digestLo: i }
    })
    const tree = new MerkleTree()
    all.slice(0, leafKeysMax).forEach((each) => tree.insert(each))
    assert.strictEqual(tree.view("")._tag, "Leaf")
    assert.deepStrictEqual(tree.getBuckets(""), {})
    const root = tree.getRootHash()
    tree.insert(all[leafKeysMax]!)
    assert.strictEqual(tree.view("")._tag, "Branch")
    assert.isAbove(Object.keys(tree.getBuckets("")).length, 1)
    tree.remove(all[leafKeysMax]!)
    assert.strictEqual(tree.view("")._tag, "Leaf")
    assert.strictEqual(tree.getRootHash(), root)
  })

  it("holds any number of keys of one hash", () => {
    const twins = Array.from({ length: 40 }, (_, i): TreeEntry => ({
      key: `twin ${i}`,
      keyHi: 7,
      keyLo: 7,
      digestHi: i,
      digestLo: i
    }))
    const tree = treeOf(twins)
    assert.strictEqual(tree.find(7, 7).length, 40)
    assert.strictEqual(tree.size, 40)
    let seen = 0
    tree.visit("", undefined, () => ++seen < 1)
    assert.strictEqual(seen, 40)
  })

  it("is zero when empty, and empty again when all is removed", () => {
    const tree = new MerkleTree()
    assert.strictEqual(tree.getRootHash(), "0000000000000000")
    const entry: TreeEntry = { key: "k", keyHi: 1, keyLo: 2, digestHi: 3, digestLo: 4 }
    tree.insert(entry)
    assert.notStrictEqual(tree.getRootHash(), "0000000000000000")
    tree.remove(entry)
    tree.remove(entry)
    assert.strictEqual(tree.getRootHash(), "0000000000000000")
    assert.deepStrictEqual(tree.view("a"), { _tag: "Empty" })
  })
})

const entryOf = (key: string, digest: number): TreeEntry => ({
  key,
  keyHi: digest,
  keyLo: digest,
  digestHi: digest,
  digestLo: digest
})

describe("MerkleForest", () => {
  it("has one root over those of its partitions, whichever came first", () => {
    const [first, second] = [new MerkleForest(), new MerkleForest()]
    first.insert(270, entryOf("a", 1))
    first.insert(3, entryOf("b", 2))
    second.insert(3, entryOf("b", 2))
    second.insert(270, entryOf("a", 1))
    assert.strictEqual(first.getRootHash(), second.getRootHash())
    assert.deepStrictEqual(first.packRoots(), second.packRoots())
    assert.strictEqual(first.packRoots().length, 20)
    assert.deepStrictEqual(Array.from(first.packRoots().subarray(0, 2)), [0, 3])
    assert.deepStrictEqual(Array.from(first.packRoots().subarray(10, 12)), [1, 14])
  })

  it("has another root for the same key in another partition", () => {
    const [first, second] = [new MerkleForest(), new MerkleForest()]
    first.insert(1, entryOf("a", 1))
    second.insert(2, entryOf("a", 1))
    assert.notStrictEqual(first.getRootHash(), second.getRootHash())
  })

  it("forgets a partition with its last key", () => {
    const forest = new MerkleForest()
    const only = entryOf("a", 1)
    forest.insert(5, only)
    forest.update(5, only, 8, 9)
    assert.deepStrictEqual([forest.size, only.digestHi, only.digestLo], [1, 8, 9])
    forest.remove(5, only)
    forest.remove(6, only)
    assert.strictEqual(forest.tree(5), undefined)
    assert.strictEqual(forest.getRootHash(), "0000000000000000")
    assert.strictEqual(forest.packRoots().length, 0)
  })
})
