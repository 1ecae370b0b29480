import { assert, describe, it } from "@effect/vitest"
import { Effect, FastCheck as fc } from "effect"
import { cellOf, type MapKind, prefixLengths } from "../src/Cell.ts"
import { MalformedMessage } from "../src/GridError.ts"
import { LwwMap } from "../src/LwwMap.ts"
import * as LwwRecord from "../src/LwwRecord.ts"
import * as MerkleSync from "../src/MerkleSync.ts"
import { OrMap } from "../src/OrMap.ts"
import * as Partition from "../src/Partition.ts"
import * as PnCounter from "../src/PnCounter.ts"
import * as Value from "../src/Value.ts"
import { closeRecord, nodeIds } from "./arbitraries.ts"
import { twins } from "./twins.ts"

const newMap = (prefixLength = 0) => new LwwMap({ now: () => 0, prefixLength })

const replicaOf = (map: LwwMap): MerkleSync.Replica => ({
  tree: map.tree,
  record: (key) => map.getConfirmed(key),
  partitionOf: (key) => map.partitionOf(key),
  receive: (records) => {
    for (const [key, record] of records) map.merge(key, record)
  }
})

const put = (millis: number, value: unknown) =>
  LwwRecord.put({ millis, counter: 0, nodeId: nodeIds[1] }, Value.encode(value))

interface Asked {
  readonly question: "root" | "buckets" | "fetch" | "pull"
  readonly nodes: number
  readonly records: number
  /** Of hashes, or of records. */
  readonly bytes: number
  /** In which keys were asked for. */
  readonly wants: number
}

/** The depth of each of packed nodes: a byte of it for all, then a byte of partition, seldom three, and the path. */
const depthsOf = (nodes: Uint8Array): ReadonlyArray<number> => {
  const depths: Array<number> = []
  for (let at = 1; at < nodes.length; at += (nodes[at] === 0xff ? 3 : 1) + Math.ceil(nodes[0]! / 2)) {
    depths.push(nodes[0]!)
  }
  return depths
}

const measurePage = ({ records }: MerkleSync.Page) => ({
  records: records.length,
  bytes: records.reduce((sum, [, record]) => sum + record.row.length, 0)
})

/** A peer that keeps a record of what it was asked, and fails at the question with number `cutAt`. */
const peerOf = (map: LwwMap, cutAt = Number.POSITIVE_INFINITY) =>
  Effect.map(MerkleSync.MerkleSync, (sync) => {
    const answers = MerkleSync.peerOf(sync.answers(replicaOf(map)))
    const asked: Array<Asked> = []
    const note = <A>(
      question: Asked["question"],
      answer: Effect.Effect<A>,
      measure: (answer: A) => Partial<Asked>
    ): Effect.Effect<A, "cut"> =>
      Effect.suspend(() => asked.length >= cutAt ? Effect.fail("cut" as const) : answer).pipe(
        Effect.tap((got) => {
          asked.push({ question, nodes: 0, records: 0, bytes: 0, wants: 0, ...measure(got) })
        })
      )
    const peer: MerkleSync.SyncPeer<"cut"> = {
      root: (local) => note("root", answers.root(local), (got) => ({ bytes: 8 + (got?.length ?? 0) })),
      buckets: (nodes, lane) =>
        note("buckets", answers.buckets(nodes, lane), (got) => ({
          nodes: depthsOf(nodes).length,
          bytes: nodes.length + got.length
        })),
      fetch: (wants, after) =>
        note("fetch", answers.fetch(wants, after), (page) => ({ ...measurePage(page), wants: wants.length })),
      pull: (node, after) => note("pull", answers.pull(node, after), measurePage)
    }
    return { peer, asked }
  })

const reconcile = <E>(local: LwwMap, peer: MerkleSync.SyncPeer<E>) =>
  Effect.flatMap(MerkleSync.MerkleSync, (sync) => sync.reconcile(replicaOf(local), peer))

/** Reconciles and takes what was offered to the other side, as operations would. */
const complete = (local: LwwMap, remote: LwwMap) =>
  Effect.gen(function*() {
    const { asked, peer } = yield* peerOf(remote)
    const result = yield* reconcile(local, peer)
    for (const key of result.offers) remote.merge(key, local.getConfirmed(key)!)
    return { ...result, asked }
  })

/** The digest of a map that has all records of both. */
const joinOf = (a: LwwMap, b: LwwMap, prefixLength = 0): string => {
  const all = newMap(prefixLength)
  for (const map of [a, b]) for (const [key, record] of map.records()) all.merge(key, record)
  return all.digest
}

/** Two maps of `count` keys, of which `shared` are equal; a third of the rest is each one's own, or on both and different. */
const overlapping = (count: number, shared: number): readonly [LwwMap, LwwMap] => {
  const [local, remote] = [newMap(), newMap()]
  for (let i = 0; i < count; i++) {
    const key = `key ${i}`
    const kind = i < shared ? 3 : i % 3
    if (kind !== 0) local.merge(key, put(kind === 2 ? i % 2 : 1, i))
    if (kind !== 1) remote.merge(key, put(1, i))
  }
  return [local, remote]
}

const program = <A, E>(effect: Effect.Effect<A, E, MerkleSync.MerkleSync>) => Effect.provide(effect, MerkleSync.layer)

const content = fc.dictionary(fc.integer({ min: 0, max: 300 }).map((i) => `key ${i}`), closeRecord, {
  maxKeys: 120,
  size: "max"
})

const mapOf = (records: Readonly<Record<string, LwwRecord.LwwRecord>>): LwwMap => {
  const map = newMap()
  for (const [key, record] of Object.entries(records)) map.merge(key, record)
  return map
}

/** The cells of two maps of a kind, some on both. */
const cellsOf = (kind: MapKind, key: fc.Arbitrary<string>, record: fc.Arbitrary<LwwRecord.LwwRecord>) => {
  const cells = fc.array(fc.tuple(key, record).map(([each, row]) => [cellOf(kind, each, row), row] as const), {
    maxLength: 60,
    size: "max"
  })
  return fc.tuple(fc.tuple(cells, cells), fc.constant(prefixLengths[kind]))
}

const totals = fc.tuple(fc.stringMatching(/^[0-9a-c]{2}$/), fc.nat(3), fc.nat(3))
  .map(([id, up, down]) => PnCounter.totals(id.repeat(8), up, down))

describe("MerkleSync", () => {
  it.effect.prop(
    "makes any two maps equal, with the join of both, once offers are taken",
    [content, content],
    ([a, b]) =>
      program(Effect.gen(function*() {
        const [local, remote] = [mapOf(a), mapOf(b)]
        const expected = joinOf(local, remote)
        yield* complete(local, remote)
        assert.strictEqual(local.digest, expected)
        assert.strictEqual(remote.digest, expected)
      }))
  )

  it.effect.prop(
    "makes any two maps of tags and any two counters equal, cell by cell",
    [cellsOf("or", fc.constantFrom("a", "b", "key 0", ""), closeRecord), cellsOf("counter", fc.constant("m"), totals)],
    (pairs) =>
      program(Effect.forEach(pairs, ([[a, b], prefixLength]) =>
        Effect.gen(function*() {
          const [local, remote] = [newMap(prefixLength), newMap(prefixLength)]
          for (const [cell, each] of a) local.merge(cell, each)
          for (const [cell, each] of b) remote.merge(cell, each)
          const expected = joinOf(local, remote, prefixLength)
          yield* complete(local, remote)
          assert.deepStrictEqual([local.digest, remote.digest], [expected, expected])
        }), { discard: true }))
  )

  it.effect("walks a map of many tags as one of many keys: each in its key's partition, in pages", () =>
    program(Effect.gen(function*() {
      const [local, remote] = [new OrMap({ now: () => 0 }), new OrMap({ now: () => 0 })]
      const large = Value.encode("x".repeat(2_000))
      const stampOf = (millis: number) => ({ millis, counter: 0, nodeId: nodeIds[1] })
      for (let i = 0; i < 3_000; i++) {
        // Three keys: a thousand tags of each are in one partition.
        if (i % 10 !== 0) remote.add(`key ${i % 3}`, large, stampOf(i))
        if (i % 10 !== 1) local.add(`key ${i % 3}`, large, stampOf(i))
      }
      remote.remove("key 1", large)
      const expected = joinOf(local.cells, remote.cells, prefixLengths.or)
      const { asked, offers, received } = yield* complete(local.cells, remote.cells)
      assert.deepStrictEqual([local.digest, remote.digest], [expected, expected])
      assert.isAbove(asked.filter(({ question }) => question === "fetch").length, 1)
      for (const { bytes, question } of asked) {
        if (question === "fetch" || question === "pull") assert.isAtMost(bytes, MerkleSync.pageBytes + 2_100)
      }
      // What both have costs nothing: a tenth each is missing, and a third of what the peer has was removed there.
      assert.isAtMost(received, 300 + 900)
      assert.isAtMost(offers.length, 300)
      assert.strictEqual(local.getValues("key 0").length, 1)
      // Of "key 1" only the tags that the removal hadn't seen.
      const unseen = local.getRecords("key 1").filter(({ isTombstone }) => !isTombstone)
      assert.strictEqual(unseen.length, 100)
    })))

  it.effect("tells keys of one hash in several partitions apart, over pages as well", () =>
    program(Effect.gen(function*() {
      // Their first 32 characters say nothing of the partition.
      const keys = twins(3)
      const [local, remote] = [newMap(32), newMap(32)]
      const large = "x".repeat(200_000)
      for (const [i, key] of keys.entries()) {
        remote.merge(key, put(2, [i, large]))
        local.merge(key, put(1, i))
      }
      assert.isAbove(new Set(keys.map((key) => remote.partitionOf(key))).size, 1)
      const { asked, offers, received } = yield* complete(local, remote)
      assert.deepStrictEqual([received, offers], [keys.length, []])
      assert.isAbove(asked.filter(({ question }) => question === "fetch").length, 2)
      assert.strictEqual(local.digest, remote.digest)
    })))

  for (const percent of [0, 50, 99, 100]) {
    it.effect(`makes maps equal that share ${percent} % of 3000 keys, and takes over no more than what differs`, () =>
      program(Effect.gen(function*() {
        const [local, remote] = overlapping(3_000, 30 * percent)
        const expected = joinOf(local, remote)
        const { asked, equal, received } = yield* complete(local, remote)
        assert.strictEqual(local.digest, expected)
        assert.strictEqual(remote.digest, expected)
        assert.strictEqual(equal, percent === 100)
        const differing = 3_000 - 30 * percent
        assert.isAtMost(received, differing)
        if (percent === 100) assert.strictEqual(asked.length, 1)
      })))
  }

  it.effect("finds records that only the asking side has, or has newer, and offers each once", () =>
    program(Effect.gen(function*() {
      const [local, remote] = overlapping(300, 299)
      for (const map of [local, remote]) map.merge("newer here", put(1, "old"))
      local.merge("newer here", put(2, "new"))
      local.merge("only here", put(1, "x"))
      const { offers } = yield* complete(local, remote)
      assert.deepStrictEqual(offers.slice().sort(), Array.from(new Set(offers)).sort())
      assert.includeMembers(Array.from(offers), ["newer here", "only here"])
      assert.isAtMost(offers.length, 3)
      assert.strictEqual(local.digest, remote.digest)
    })))

  it.effect("offers everything to an empty peer, and takes everything into an empty map", () =>
    program(Effect.gen(function*() {
      const [full, empty, other] = [overlapping(1_000, 1_000)[0], newMap(), newMap()]
      const given = yield* complete(full, empty)
      assert.deepStrictEqual([given.offers.length, given.received], [1_000, 0])
      const taken = yield* complete(other, full)
      assert.deepStrictEqual([taken.offers.length, taken.received], [0, 1_000])
      assert.strictEqual(empty.digest, other.digest)
    })))

  it.effect("asks one question when both are equal, however many the records", () =>
    program(Effect.gen(function*() {
      const [local, remote] = overlapping(5_000, 5_000)
      const { asked, equal, received } = yield* complete(local, remote)
      assert.deepStrictEqual([equal, received, asked.map((each) => each.question)], [true, 0, ["root"]])
    })))

  it.effect("asks as many questions as the tree has levels to find one difference", () =>
    program(Effect.gen(function*() {
      const [local, remote] = overlapping(50_000, 50_000)
      remote.merge("key 123", put(9, "changed"))
      const { asked, received } = yield* complete(local, remote)
      assert.strictEqual(received, 1)
      // 185 keys a partition: a branch, at most two more levels, a leaf.
      assert.isAtMost(asked.length, 1 + 3 + 1)
      assert.isAtMost(asked.reduce((sum, each) => sum + each.nodes, 0), 3)
      assert.strictEqual(local.digest, remote.digest)
    })))

  it.effect("finds 100 differences among 100,000 keys by less than 17 kB of questions and hashes", () =>
    program(Effect.gen(function*() {
      const [local, remote] = overlapping(100_000, 100_000)
      for (let i = 0; i < 100; i++) remote.merge(`key ${i * 997}`, put(9, "changed"))
      const { asked, received } = yield* complete(local, remote)
      assert.strictEqual(received, 100)
      const bytes = asked.reduce((sum, each) => sum + each.wants + (each.question === "fetch" ? 0 : each.bytes), 0)
      assert.isBelow(bytes, 17_000)
      assert.strictEqual(local.digest, remote.digest)
    })))

  it.effect("finds by the other lane what one lane can't tell apart, even when nothing else differs", () =>
    program(Effect.gen(function*() {
      const [local, remote] = overlapping(1_000, 1_000)
      remote.merge("key 7", put(9, "changed"))
      const { peer } = yield* peerOf(remote)
      const lanes: Array<MerkleSync.Lane> = []
      /** Shows in the walk's first lane what this side has: as if the halves of all hashes were equal there. */
      const blind = (yield* MerkleSync.MerkleSync).answers(replicaOf(local))
      const { received } = yield* reconcile(local, {
        ...peer,
        buckets: (nodes, lane) => {
          if (lanes.at(-1) !== lane) lanes.push(lane)
          return lane === lanes[0] ? Effect.sync(() => blind.buckets(nodes, lane)) : peer.buckets(nodes, lane)
        }
      })
      assert.strictEqual(lanes.length, 2)
      assert.strictEqual(received, 1)
      assert.strictEqual(local.digest, remote.digest)
    })))

  it.effect("takes over and offers keys of one hash, few or too many to be listed", () =>
    program(Effect.gen(function*() {
      const keys = twins(7)
      for (const count of [3, 100]) {
        const [local, remote] = [newMap(), newMap()]
        for (let i = 0; i < count; i++) {
          const twin = keys[i]!
          if (i % 3 !== 0) local.merge(twin, put(1, i))
          if (i % 3 !== 1) remote.merge(twin, put(i % 2, i))
        }
        const expected = joinOf(local, remote)
        yield* complete(local, remote)
        assert.deepStrictEqual([local.digest, remote.digest], [expected, expected])
      }
    })))

  it.effect("offers a key though the peer has another of its hash, and nothing that the peer has too", () =>
    program(Effect.gen(function*() {
      const [x, y] = twins(1) as [string, string]
      const [local, remote] = [newMap(), newMap()]
      local.merge(x, put(1, "x"))
      remote.merge(y, put(2, "y"))
      const first = yield* complete(local, remote)
      assert.deepStrictEqual([first.received, first.offers], [1, [x]])
      assert.strictEqual(local.digest, remote.digest)
      remote.merge(y, put(3, "newer"))
      const second = yield* complete(local, remote)
      assert.deepStrictEqual([second.received, second.offers], [2, []])
      assert.strictEqual(local.digest, remote.digest)
    })))

  it.effect("takes over many keys of one hash once each, in pages no larger than others", () =>
    program(Effect.gen(function*() {
      const keys = twins(6)
      const large = "x".repeat(20_000)
      for (const known of [1, 40]) {
        const [local, remote] = [newMap(), newMap()]
        for (const [i, key] of keys.entries()) {
          remote.merge(key, put(1, [i, large]))
          if (i < known) local.merge(key, put(i === 0 ? 1 : 0, [i, large]))
        }
        const { asked, received } = yield* complete(local, remote)
        assert.isAtMost(received, keys.length)
        for (const { bytes } of asked) assert.isAtMost(bytes, MerkleSync.pageBytes + 20_100)
        assert.strictEqual(local.digest, remote.digest)
      }
    })))

  it.effect("asks with one question for a part of the tree of which it has next to nothing", () =>
    program(Effect.gen(function*() {
      const [local, remote] = [newMap(), newMap()]
      for (let i = 0; i < 60_000; i++) remote.merge(`key ${i}`, put(1, i))
      for (let i = 0; i < 100; i++) local.merge(`key ${i}`, put(i % 2, i))
      local.merge("mine", put(1, 1))
      const { asked, offers, received } = yield* complete(local, remote)
      assert.strictEqual(local.digest, remote.digest)
      assert.deepStrictEqual(offers, ["mine"])
      assert.isAtMost(received, 60_000)
      assert.isAtMost(asked.length, 271 + 10)
    })))

  it("refuses questions of no known form", () => {
    const answers = Effect.runSync(program(MerkleSync.MerkleSync)).answers(replicaOf(overlapping(100, 0)[0]))
    for (
      const nodes of [
        [],
        [17, 0],
        [1, 0],
        [1, 0, 0x11],
        [0, 0xff],
        [0, 0xff, 0],
        [0, 0xff, 1, 15],
        [0, 200, 71],
        Array.from({ length: 1 + 513 }, () => 0)
      ]
    ) assert.throws(() => answers.buckets(Uint8Array.from(nodes), 0), MalformedMessage)
    for (const nodes of [[0, 5, 0], [1, 0, 0x20, 0, 0x10]]) {
      assert.throws(() => answers.buckets(Uint8Array.from(nodes), 0), MalformedMessage)
    }
    assert.isAbove(answers.buckets(Uint8Array.from([1, 0, 0x10, 0, 0x20, 1, 0]), 0).length, 0)
    for (const path of ["g", "0".repeat(17), "A", "-1"]) {
      assert.throws(() => answers.pull([0, path], undefined), MalformedMessage)
    }
    for (const partition of [-1, 271, Number.NaN]) {
      assert.throws(() => answers.pull([partition, ""], undefined), MalformedMessage)
    }
    for (const length of [8, 9, 11, 10 * 1025]) {
      assert.throws(() => answers.fetch(new Uint8Array(length), undefined), MalformedMessage)
    }
    for (const [partition, isOne] of [[270, true], [271, false], [65_535, false]] as const) {
      const wants = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, partition >>> 8, partition, 0, 0, 0, 0, 0, 0, 0, 0)
      if (isOne) assert.deepStrictEqual(answers.fetch(wants, undefined).records.length, 0)
      else assert.throws(() => answers.fetch(wants, undefined), MalformedMessage)
    }
  })

  it.effect("asks for at most 512 nodes in one message", () =>
    program(Effect.gen(function*() {
      const [local, remote] = overlapping(20_000, 0)
      const { asked } = yield* complete(local, remote)
      const buckets = asked.filter((each) => each.question === "buckets")
      assert.isAbove(buckets.length, 1)
      for (const { nodes } of buckets) assert.isAtMost(nodes, MerkleSync.nodesMax)
      assert.strictEqual(local.digest, remote.digest)
    })))

  it.effect("sends records in pages, when it fetches and when it pulls", () =>
    program(Effect.gen(function*() {
      const large = "x".repeat(20_000)
      const inOnePartition = Array.from({ length: 20_000 }, (_, i) => `key ${i}`)
        .filter((key) => Partition.partitionOf(key) === 7)
      assert.isAbove(inOnePartition.length, 40)
      const remote = newMap()
      for (const key of inOnePartition) remote.merge(key, put(2, large))
      const older = newMap()
      for (const key of inOnePartition) older.merge(key, put(1, "x"))
      for (const [local, question] of [[newMap(), "pull"], [older, "fetch"]] as const) {
        const { asked, received } = yield* complete(local, remote)
        const pages = asked.filter((each) => each.question === question)
        assert.isAbove(pages.length, 2)
        for (const { bytes } of pages) assert.isAtMost(bytes, MerkleSync.pageBytes + 20_100)
        assert.strictEqual(received, inOnePartition.length)
        assert.strictEqual(local.digest, remote.digest)
      }
    })))

  it.effect("can be cut at any question and begun again", () =>
    program(Effect.gen(function*() {
      const [, model] = overlapping(3_000, 100)
      const questions = (yield* complete(overlapping(3_000, 100)[0], model)).asked.length
      assert.isAtLeast(questions, 4)
      for (let cutAt = 0; cutAt < questions; cutAt++) {
        const [local, remote] = overlapping(3_000, 100)
        const expected = joinOf(local, remote)
        const { peer } = yield* peerOf(remote, cutAt)
        assert.strictEqual(yield* Effect.flip(reconcile(local, peer)), "cut")
        yield* complete(local, remote)
        assert.deepStrictEqual([local.digest, remote.digest], [expected, expected])
      }
    })))

  it.effect("bears both sides' changing while it walks: the next walk makes them equal", () =>
    program(Effect.gen(function*() {
      const [local, remote] = overlapping(2_000, 1_000)
      const { peer } = yield* peerOf(remote)
      let step = 0
      const disturb = <A, E>(answer: Effect.Effect<A, E>) =>
        Effect.tap(answer, () =>
          Effect.sync(() => {
            step++
            remote.merge(`key ${step * 17}`, put(50 + step, "meanwhile there"))
            local.merge(`key ${step * 19}`, put(50 + step, "meanwhile here"))
            local.merge(`another ${step}`, put(1, step))
          }))
      const { offers } = yield* reconcile(local, {
        root: (root) => disturb(peer.root(root)),
        buckets: (nodes, lane) => disturb(peer.buckets(nodes, lane)),
        fetch: (wants, after) => disturb(peer.fetch(wants, after)),
        pull: (node, after) => disturb(peer.pull(node, after))
      })
      for (const key of offers) remote.merge(key, local.getConfirmed(key)!)
      const expected = joinOf(local, remote)
      yield* complete(local, remote)
      assert.deepStrictEqual([local.digest, remote.digest], [expected, expected])
    })))

  it.effect("leaves out writes that the server hasn't confirmed", () =>
    program(Effect.gen(function*() {
      const [local, remote] = overlapping(100, 100)
      local.write("key 1", put(9, "pending"))
      local.write("new", put(9, "pending"))
      const { equal } = yield* complete(local, remote)
      assert.isTrue(equal)
    })))

  it.effect("fails with MalformedMessage at answers of no known form", () =>
    program(Effect.gen(function*() {
      const [local, remote] = overlapping(400, 0)
      const { peer } = yield* peerOf(remote)
      const hostile: ReadonlyArray<Partial<MerkleSync.SyncPeer<"cut">>> = [
        { root: () => Effect.succeed(new Uint8Array(33)) },
        { root: () => Effect.succeed(new Uint8Array(35)) },
        { root: () => Effect.succeed(new Uint8Array(39).fill(1, 0, 1)) },
        { buckets: () => Effect.succeed(new Uint8Array(0)) },
        ...[[], [5], [0, 0], [1], [1, 0xff, 0xff], [4], [2], [2, 1, 0], [2, 65], [
          2,
          65,
          ...Array.from({ length: 65 * 12 }, () => 0)
        ]]
          .map((bucket) => ({
            buckets: (nodes: Uint8Array) =>
              Effect.succeed(
                Uint8Array.from(depthsOf(nodes).flatMap(() => bucket).concat(bucket.length === 0 ? [9] : []))
              )
          })),
        { fetch: () => Effect.succeed({ records: [], after: "key 1" }) },
        { fetch: () => Effect.succeed({ records: [["key 1", put(1, 1)]], after: "key 2" }) },
        { fetch: () => Effect.succeed({ records: [["not asked for", put(1, 1)]], after: "not asked for" }) }
      ]
      for (const answers of hostile) {
        const failure = yield* Effect.flip(reconcile(local, { ...peer, ...answers }))
        assert.instanceOf(failure, MalformedMessage)
      }
      const records: ReadonlyArray<MerkleSync.KeyedRecord> = [["key 1", put(1, 1)]]
      for (const page of [{ records: [], after: "key 1" }, { records, after: "key 1" }, { records, after: "key 2" }]) {
        let asked = 0
        const again = Effect.suspend(() => ++asked > 1_000 ? Effect.dieMessage("asked for ever") : Effect.succeed(page))
        const endless = { ...peer, pull: () => again, fetch: () => again }
        assert.instanceOf(yield* Effect.flip(reconcile(newMap(), endless)), MalformedMessage)
        assert.instanceOf(yield* Effect.flip(reconcile(local, endless)), MalformedMessage)
      }
    })))

  it.effect("comes to an end with a peer whose nodes always differ", () =>
    program(Effect.gen(function*() {
      const [local, remote] = overlapping(2_000, 0)
      const { peer } = yield* peerOf(remote)
      let questions = 0
      const full = [4, ...Array.from({ length: 64 }, () => 0xee)]
      let deepest = 0
      let pulls = 0
      const { received } = yield* reconcile(local, {
        ...peer,
        buckets: (nodes) => {
          questions++
          deepest = Math.max(deepest, ...depthsOf(nodes))
          return Effect.succeed(Uint8Array.from(depthsOf(nodes).flatMap(() => full)))
        },
        pull: () => {
          pulls++
          return Effect.succeed({ records: [], after: undefined })
        }
      })
      assert.strictEqual(received, 0)
      // It is asked for a part of the tree for each of this side's keys at most, not for all that it might have.
      assert.isAtMost(pulls, 2_000)
      assert.isAtMost(deepest, 16)
      assert.isAtMost(questions, 17 * Math.ceil(2_000 / 512) + 17)
    })))
})
