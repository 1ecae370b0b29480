/**
 * The core's operations, one at a time, beside published peers in the same run: 100,000 keys like `k123456`, records of 8
 * fields and about 200 bytes, upkeep of the tree and digests of the values included. Medians of {@link rounds} rounds, each
 * on fresh state; what was written is verified outside of what is measured. Run with `npm run bench:core`.
 */
import * as Hlc from "@topgun/core/Hlc"
import { LwwMap } from "@topgun/core/LwwMap"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as MerkleSync from "@topgun/core/MerkleSync"
import * as MerkleTree from "@topgun/core/MerkleTree"
import * as OrMaps from "@topgun/core/OrMap"
import * as Partition from "@topgun/core/Partition"
import * as Protocol from "@topgun/core/Protocol"
import * as Value from "@topgun/core/Value"
import * as os from "node:os"
import * as Effect from "effect/Effect"
import { check, count, keyOf, recordOf } from "./records.mjs"

const rounds = 7
/** Of peers that take many seconds a round. */
const slowRounds = 3

const keys = Array.from({ length: count }, (_, n) => keyOf(n))
const records = keys.map((_, n) => recordOf(n))
const nodeA = "aaaaaaaaaaaaaaaa"
const nodeB = "bbbbbbbbbbbbbbbb"
const stampOf = (n, nodeId = nodeA) => ({ millis: 1_700_000_000_000 + n, counter: 0, nodeId })
const newMap = () => new LwwMap({ now: () => 0 })

const rows = []
/** Times `run(state)` over fresh states; `operations` in each. Answers the median seconds of CPU. */
const measure = (name, operations, prepare, run, verify = () => {}, times = rounds) => {
  const seconds = []
  for (let round = 0; round < times; round++) {
    const state = prepare()
    globalThis.gc?.()
    const before = process.cpuUsage()
    const startedAt = performance.now()
    const result = run(state)
    const wall = (performance.now() - startedAt) / 1000
    const { system, user } = process.cpuUsage(before)
    seconds.push({ wall, cpu: (system + user) / 1e6 })
    verify(state, result)
  }
  seconds.sort((a, b) => a.wall - b.wall)
  const { cpu, wall } = seconds[Math.floor(times / 2)]
  rows.push({ name, operations, wall, cpu })
  return wall
}

const put = (map, n, millis = n) => map.set(keys[n], Value.encodeTransient(records[n]), stampOf(millis))
const filled = () => {
  const map = newMap()
  for (let n = 0; n < count; n++) put(map, n)
  return map
}

// First, while nothing else is on the heap.
{
  globalThis.gc?.()
  const before = process.memoryUsage()
  const map = newMap()
  for (let n = 0; n < 1_000_000; n++) map.set(`k${1_000_000 + n}`, Value.encodeTransient(n), stampOf(n))
  void map.digest
  globalThis.gc?.()
  const after = process.memoryUsage()
  const bytes = after.heapUsed - before.heapUsed + after.arrayBuffers - before.arrayBuffers
  rows.push({ name: "memory of a record with a small integer, of 1,000,000", note: `${Math.round(bytes / 1e6)} B` })
  check(map.size === 1_000_000, "a million records")
}

measure("LwwMap set, new keys", count, newMap, (map) => {
  for (let n = 0; n < count; n++) put(map, n)
  return map.digest
}, (map) => check(map.size === count, "set"))
measure("LwwMap set, overwrite", count, filled, (map) => {
  for (let n = 0; n < count; n++) put(map, n, count + n)
  return map.digest
})
measure("LwwMap get", count * 10, () => {
  const map = filled()
  for (const key of keys) map.get(key)
  return map
}, (map) => {
  let hits = 0
  for (let i = 0; i < 10; i++) for (let n = 0; n < count; n++) if (map.get(keys[n]) !== undefined) hits++
  return hits
}, (_, hits) => check(hits === count * 10, "get"))
const newerRows = records.map((record, n) => LwwRecord.put(stampOf(count * 2 + n, nodeB), Value.encode(record)).row)
const olderRows = records.map((record) => LwwRecord.put(stampOf(-1, nodeB), Value.encode(record)).row)
measure("LwwMap merge, newer records from received bytes", count, filled, (map) => {
  for (let n = 0; n < count; n++) map.merge(keys[n], LwwRecord.decodeInPlace(newerRows[n]))
  return map.digest
})
const losers = olderRows.map((row) => LwwRecord.fromTrusted(row))
measure("LwwMap merge that loses", count * 10, filled, (map) => {
  for (let i = 0; i < 10; i++) for (let n = 0; n < count; n++) map.merge(keys[n], losers[n])
})
measure("OrMap add", count, () => new OrMaps.OrMap({ now: () => 0 }), (map) => {
  for (let n = 0; n < count; n++) map.add(keys[n], Value.encodeTransient(records[n]), stampOf(n))
  return map.digest
})
measure("HLC tick", 5_000_000, () => Effect.runSync(Hlc.make({ nodeId: nodeA })), (hlc) => {
  for (let n = 0; n < 5_000_000; n++) hlc.unsafeTick()
})
measure("partition of a key", count * 10, () => 0, () => {
  let sum = 0
  for (let i = 0; i < 10; i++) for (let n = 0; n < count; n++) sum += Partition.partitionOf(keys[n])
  return sum
})
measure("MerkleTree update", count * 10, () => {
  const map = filled()
  const entries = []
  for (let partition = 0; partition < Partition.partitionCount; partition++) {
    for (const slot of map.tree.tree(partition)?.slotsBelow(MerkleTree.rootPath) ?? []) entries.push([partition, slot])
  }
  return { tree: map.tree, entries }
}, ({ entries, tree }) => {
  for (let i = 0; i < 10; i++) {
    for (const [partition, slot] of entries) tree.update(partition, slot, i, slot)
  }
  return tree.getRootHash()
})
{
  const mine = filled()
  const theirs = filled()
  for (let n = 0; n < 100; n++) put(theirs, n * 997, count * 3 + n)
  const answers = Effect.runSync(Effect.provide(MerkleSync.MerkleSync, MerkleSync.layer)).answers({
    tree: theirs.tree,
    record: (key) => theirs.getRecord(key)
  })
  let bytes = 0
  const { reconcile } = Effect.runSync(Effect.provide(MerkleSync.MerkleSync, MerkleSync.layer))
  const peer = MerkleSync.peerOf({
    root: (root) => {
      const packed = answers.root(root)
      bytes += root.length + (packed?.length ?? 0)
      return packed
    },
    buckets: (nodes, lane) => {
      const buckets = answers.buckets(nodes, lane)
      bytes += nodes.length + buckets.length
      return buckets
    },
    fetch: (wants) => {
      bytes += wants.length
      return answers.fetch(wants)
    },
    pull: answers.pull
  })
  const walks = 200
  measure("diff of two trees of 100,000 keys, 100 divergent", walks, () => {
    bytes = 0
    return 0
  }, () => {
    let wanted = 0
    for (let walk = 0; walk < walks; walk++) {
      Effect.runSync(reconcile({
        tree: mine.tree,
        record: (key) => mine.getRecord(key),
        partitionOf: (key) => mine.partitionOf(key),
        receive: (page) => {
          wanted += page.length
        }
      }, peer))
    }
    return wanted
  }, (_state, wanted) => check(wanted === 100 * walks, "each walk finds 100 keys"))
  rows.at(-1).note = `${(bytes / walks / 1000).toFixed(1)} kB of questions and hashes`
}
measure("canonical encode", count, () => 0, () => {
  for (let n = 0; n < count; n++) Value.encodeTransient(records[n])
})
measure("  for comparison: JSON.stringify", count, () => 0, () => {
  for (let n = 0; n < count; n++) JSON.stringify(records[n])
})
const encoded = records.map((record) => Value.encode(record))
measure("canonical decode, check included", count, () => 0, () => {
  for (let n = 0; n < count; n++) Value.decode(encoded[n])
})
measure("canonical decode of what was checked before", count, () => 0, () => {
  for (let n = 0; n < count; n++) Value.decodeTrusted(encoded[n])
})
const texts = records.map((record) => JSON.stringify(record))
measure("  for comparison: JSON.parse", count, () => 0, () => {
  for (let n = 0; n < count; n++) JSON.parse(texts[n])
})
const batches = Array.from({ length: 200 }).map((_batch, b) => ({
  _tag: "OpBatch",
  map: "people",
  kind: "lww",
  concern: "APPLIED",
  atomic: "no",
  ops: Array.from({ length: 100 }, (_op, i) => [b * 100 + i, keys[b * 100 + i], newerRows[b * 100 + i]])
}))
measure("encode an operation, in batches of 100", 20_000, () => 0, () => {
  for (const batch of batches) Protocol.encode(batch)
})
const frames = batches.map((batch) => Protocol.encode(batch))
measure("scan, decode and validate an operation, in batches of 100", 20_000, () => 0, () => {
  for (const frame of frames) Protocol.decodeFromClient(frame)
})
// --- Peers, where they are installed ---

const optional = async (name) => {
  try {
    return await import(name)
  } catch {
    return undefined
  }
}
const yjs = await optional("yjs")
if (yjs !== undefined) {
  measure("yjs: Y.Map set, new keys, one at a time", count, () => new yjs.Doc(), (doc) => {
    const map = doc.getMap("m")
    for (let n = 0; n < count; n++) map.set(keys[n], records[n])
  }, (doc) => check(doc.getMap("m").size === count, "yjs"))
}
const tinybase = await optional("tinybase")
if (tinybase !== undefined) {
  const flat = records.map(({ tags, ...record }) => ({ ...record, tags: tags.join() }))
  measure(
    "tinybase: MergeableStore setRow, new keys, one at a time",
    count,
    () => tinybase.createMergeableStore("a"),
    (store) => {
      for (let n = 0; n < count; n++) store.setRow("t", keys[n], flat[n])
    },
    (store) => check(store.getRowCount("t") === count, "tinybase"),
    slowRounds
  )
}
const loro = await optional("loro-crdt")
if (loro !== undefined) {
  measure(
    "loro-crdt: LoroMap set, new keys, one at a time",
    count,
    () => new loro.LoroDoc(),
    (doc) => {
      const map = doc.getMap("m")
      for (let n = 0; n < count; n++) map.set(keys[n], records[n])
      doc.commit()
    },
    (doc) => check(doc.getMap("m").size === count, "loro"),
    slowRounds
  )
}

console.log(`\n${os.cpus().length} × ${os.cpus()[0]?.model}, Node ${process.version}, median of ${rounds} rounds\n`)
console.log("| operation | per second | each | CPU each | |\n|---|---:|---:|---:|---|")
for (const { cpu, name, note = "", operations, wall } of rows) {
  console.log(
    operations === undefined
      ? `| ${name} | | | | ${note} |`
      : `| ${name} | ${Math.round(operations / wall).toLocaleString("en")} | ${
        (wall / operations * 1e6).toFixed(2)
      } µs | ${(cpu / operations * 1e6).toFixed(2)} µs | ${note} |`
  )
}
