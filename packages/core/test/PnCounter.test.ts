import { assert, describe, it } from "@effect/vitest"
import { CounterOverflow, MalformedMessage, ValueNotSupported } from "../src/GridError.ts"
import * as PnCounter from "../src/PnCounter.ts"
import { partitionOf } from "../src/Partition.ts"
import { convergence, laws } from "@topgun/testing/laws"
import { FastCheck as fc } from "effect"
import { nodeId, nodeIds } from "./arbitraries.ts"

type Row = PnCounter.CounterRow

const MAX = Number.MAX_SAFE_INTEGER

const counterOf = (rows: Iterable<Row>): PnCounter.PnCounter => {
  const counter = new PnCounter.PnCounter()
  for (const row of rows) counter.merge(row)
  return counter
}

const sync = (into: PnCounter.PnCounter, from: PnCounter.PnCounter): void => {
  for (const row of from.rows()) into.merge(row)
}

const join = (a: PnCounter.PnCounter, b: PnCounter.PnCounter) => counterOf([...a.rows(), ...b.rows()])
const equals = (a: PnCounter.PnCounter, b: PnCounter.PnCounter) => a.digest === b.digest

const rowsOf = (total: fc.Arbitrary<number>): fc.Arbitrary<Row> =>
  fc.tuple(nodeId, total, total).map(([id, increments, decrements]) => PnCounter.totals(id, increments, decrements))

/** Few rows, also such that no honest node makes, with totals where bytes carry and where the value overflows. */
const closeRow = rowsOf(fc.constantFrom(0, 1, 255, 256, MAX - 1, MAX))

/** Few rows, of totals that never overflow. */
const smallRow = rowsOf(fc.nat(3))

const anyRow = rowsOf(fc.oneof(fc.maxSafeNat(), fc.constantFrom(0, 2 ** 32 - 1, 2 ** 32, 2 ** 48, MAX)))

const state = fc.array(closeRow, { maxLength: 5 }).map(counterOf)

laws("PnCounter", { arbitrary: state, merge: join, equals })

convergence("PnCounter", {
  operation: closeRow,
  make: () => new PnCounter.PnCounter(),
  apply: (counter, row) => {
    counter.merge(row)
  },
  merge: sync,
  digest: (counter) => counter.digest
})

const refusal = (row: Uint8Array): string => {
  try {
    PnCounter.decode(row)
  } catch (fault) {
    assert.instanceOf(fault, MalformedMessage)
    return fault.reason
  }
  return assert.fail("the row was accepted")
}

const withByte = (row: Uint8Array, index: number, byte: number): Uint8Array => {
  const changed = row.slice()
  changed[index] = byte
  return changed
}

const node = fc.nat(2)
const command = fc.oneof(
  fc.record({ _tag: fc.constantFrom("increment" as const, "decrement" as const), at: node, by: fc.nat(300) }),
  fc.record({ _tag: fc.constant("sync" as const), at: node, from: node }),
  fc.record({ _tag: fc.constant("receive" as const), at: node, which: fc.nat() })
)

/** Going by nothing leads no further, wherever a counter is. */
const standsStill = (counter: PnCounter.PnCounter): void => {
  const { digest } = counter
  counter.increment(nodeIds[0], 0)
  counter.decrement(nodeIds[0], 0)
  assert.strictEqual(counter.digest, digest)
}

describe("PnCounter", () => {
  it.prop("joins any three states in any order to the same", [state, state, state], ([a, b, c]) => {
    const before = a.digest
    const all = join(join(a, b), c)
    assert.isTrue(equals(all, join(a, join(b, c))))
    assert.isTrue(equals(join(a, b), join(b, a)))
    assert.isTrue(equals(join(a, a), a))
    assert.isTrue(equals(join(all, b), all))
    assert.strictEqual(a.digest, before)
  }, { fastCheck: { numRuns: 10_000 } })

  it.prop(
    "counts each change that a replica has heard of once, through any syncs and old rows",
    [fc.array(command, { maxLength: 30, size: "max" })],
    ([commands]) => {
      const counters = [0, 1, 2].map(() => new PnCounter.PnCounter())
      // The model: for each replica how many of each node's changes it has heard of, which is always a first part of them.
      const changes: ReadonlyArray<Array<number>> = [[], [], []]
      const heard = [0, 1, 2].map(() => [0, 0, 0])
      const made: Array<{ readonly row: Row; readonly node: number; readonly count: number }> = []
      for (const each of commands) {
        const counter = counters[each.at]!
        const mine = heard[each.at]!
        if (each._tag === "sync") {
          sync(counter, counters[each.from]!)
          heard[each.from]!.forEach((count, i) => mine[i] = Math.max(mine[i]!, count))
        } else if (each._tag === "receive") {
          const old = made[each.which % made.length]
          if (old === undefined) continue
          const isNews = old.count > mine[old.node]!
          const previous = counter.getRow(nodeIds[old.node]!)
          const change = counter.merge(old.row)
          // A change by 0 is no news.
          if (change !== undefined) assert.deepStrictEqual([isNews, change.previous], [true, previous])
          mine[old.node] = Math.max(mine[old.node]!, old.count)
        } else {
          const row = counter[each._tag](nodeIds[each.at]!, each.by)
          const count = changes[each.at]!.push(each._tag === "increment" ? each.by : -each.by)
          mine[each.at] = count
          made.push({ row, node: each.at, count })
        }
        const expected = mine.flatMap((count, i) => changes[i]!.slice(0, count)).reduce((a, b) => a + b, 0)
        assert.strictEqual(counter.value, expected)
        assert.strictEqual(counter.digest, counterOf(counter.rows().reverse()).digest)
      }
      const all = counterOf(made.map(({ row }) => row))
      for (const counter of counters) {
        for (const other of counters) sync(counter, other)
        assert.strictEqual(counter.digest, all.digest)
        assert.strictEqual(counter.value, changes.flat().reduce((a, b) => a + b, 0))
      }
    },
    { fastCheck: { numRuns: 1_000 } }
  )

  it.prop(
    "counts what isn't confirmed too, digests only what is, and goes back to that",
    [fc.array(fc.record({ _tag: fc.constantFrom("merge", "confirm", "write", "revert"), row: smallRow }), {
      maxLength: 20
    })],
    ([commands]) => {
      const counter = new PnCounter.PnCounter("hits")
      // The model: for each node the greatest confirmed row, and the greatest local one beyond it.
      const model = new Map<string, { confirmed: Row | undefined; local: Row | undefined }>()
      const greater = (a: Row | undefined, b: Row | undefined) =>
        a === undefined || (b !== undefined && PnCounter.compare(b, a) > 0) ? b : a
      for (const { _tag, row } of commands) {
        const cell = PnCounter.cellOf("hits", row)
        const entry = model.get(row.nodeId) ?? { confirmed: undefined, local: undefined }
        if (_tag === "write") {
          entry.local = greater(entry.local, row)
          counter.cells.write(cell, row)
        } else if (_tag === "revert") {
          entry.local = undefined
          counter.cells.revert(cell)
        } else {
          entry.confirmed = greater(entry.confirmed, row)
          if (_tag === "merge") counter.merge(row)
          else counter.cells.confirm(cell, row)
        }
        if (greater(entry.confirmed, entry.local) === entry.confirmed) entry.local = undefined
        model.set(row.nodeId, entry)
        const all = Array.from(model.values())
        const live = all.flatMap(({ confirmed, local }) => greater(confirmed, local) ?? [])
        assert.strictEqual(counter.value, live.reduce((sum, each) => sum + each.increments - each.decrements, 0))
        assert.deepStrictEqual(counter.rows(), live.sort(PnCounter.compare))
        const confirmed = new PnCounter.PnCounter("hits")
        for (const each of all) if (each.confirmed !== undefined) confirmed.merge(each.confirmed)
        assert.strictEqual(counter.digest, confirmed.digest)
      }
    },
    { fastCheck: { numRuns: 1_000 } }
  )

  it("goes on from what isn't confirmed yet, and is where it was when that is taken back", () => {
    const counter = new PnCounter.PnCounter("hits")
    counter.merge(PnCounter.totals(nodeIds[1], 5, 1))
    const next = counter.next(nodeIds[1], 3)
    assert.deepStrictEqual([next.increments, next.decrements, counter.value], [8, 1, 4])
    const cell = PnCounter.cellOf("hits", next)
    counter.cells.write(cell, next)
    counter.cells.write(cell, counter.next(nodeIds[1], -10))
    const { digest } = counter
    assert.deepStrictEqual([counter.value, counter.getRow(nodeIds[1])?.decrements], [-3, 11])
    counter.cells.revert(cell, next)
    assert.strictEqual(counter.value, 7)
    counter.cells.revert(cell)
    assert.strictEqual(counter.value, 4)
    assert.strictEqual(counter.digest, digest)
    const first = counter.next(nodeIds[2], 1)
    counter.cells.write(PnCounter.cellOf("hits", first), first)
    counter.cells.revert(PnCounter.cellOf("hits", first))
    assert.deepStrictEqual([counter.value, counter.rows().length, counter.getRow(nodeIds[2])], [4, 1, undefined])
  })

  it("keeps the rows of counters of other names apart", () => {
    const [hits, likes] = [new PnCounter.PnCounter("hits"), new PnCounter.PnCounter("likes")]
    const row = PnCounter.totals(nodeIds[1], 5, 1)
    for (const counter of [hits, likes]) counter.merge(row)
    assert.notStrictEqual(hits.digest, likes.digest)
    assert.strictEqual(hits.cells.partitionOf(PnCounter.cellOf("hits", row)), partitionOf("hits"))
    for (const id of nodeIds) hits.increment(id)
    assert.strictEqual(hits.cells.tree.tree(partitionOf("hits"))?.size, 4)
  })

  it("goes by one unless it's told otherwise, and answers the node's totals", () => {
    const counter = new PnCounter.PnCounter()
    assert.strictEqual(counter.value, 0)
    counter.increment(nodeIds[1])
    counter.increment(nodeIds[2], 10)
    const { decrements, increments, nodeId: id } = counter.decrement(nodeIds[2], 3)
    assert.deepStrictEqual([id, increments, decrements], [nodeIds[2], 10, 3])
    counter.decrement(nodeIds[1])
    assert.strictEqual(counter.value, 7)
    assert.deepStrictEqual(counter.rows().map((row) => row.nodeId), [nodeIds[1], nodeIds[2]])
    assert.strictEqual(counter.getRow(nodeIds[1])?.decrements, 1)
    assert.isUndefined(counter.getRow(nodeIds[0]))
  })

  it("tells of a change once, with the row before", () => {
    const counter = new PnCounter.PnCounter()
    const [older, newer] = [PnCounter.totals(nodeIds[1], 1, 5), PnCounter.totals(nodeIds[1], 2, 5)]
    assert.deepStrictEqual(counter.merge(older), { previous: undefined, row: older })
    assert.deepStrictEqual(counter.merge(newer), { previous: older, row: newer })
    assert.isUndefined(counter.merge(newer))
    assert.isUndefined(counter.merge(older))
    assert.strictEqual(counter.value, -3)
  })

  it.prop("comes back from its row as it was", [anyRow], ([row]) => {
    assert.strictEqual(row.row.length, PnCounter.rowBytes)
    for (const again of [PnCounter.decode(row.row), PnCounter.fromTrusted(row.row)]) assert.deepStrictEqual(again, row)
    for (const frame of [row.row.slice(), Buffer.from(row.row)]) {
      const decoded = PnCounter.decode(frame)
      assert.strictEqual(PnCounter.decodeInPlace(frame).row, frame)
      frame.fill(0)
      assert.deepStrictEqual(decoded, row)
    }
  })

  it("has rows of the documented layout", () => {
    const { row } = PnCounter.totals("abcdefghijklm019", MAX, 0x01_02_03_04_05)
    assert.strictEqual(
      Buffer.from(row).toString("hex"),
      ["0000000000000000", "6162636465666768696a6b6c6d303139", "30", "1fffffffffffff", "00000102030405"].join("")
    )
  })

  it.prop(
    "orders a node's rows by increments and then decrements, as databases order their bytes",
    [fc.tuple(anyRow, anyRow), closeRow, closeRow],
    ([[a, b], c, d]) => {
      for (const [one, two] of [[a, b], [c, d]] as const) {
        assert.strictEqual(PnCounter.compare(one, two), Buffer.compare(one.row, two.row))
        if (one.nodeId !== two.nodeId) continue
        assert.strictEqual(
          PnCounter.compare(one, two),
          Math.sign(one.increments - two.increments) || Math.sign(one.decrements - two.decrements)
        )
      }
    }
  )

  it("refuses to go by anything but safe integers of 0 or more, and bad node ids", () => {
    const counter = counterOf([PnCounter.totals(nodeIds[1], 3, 1)])
    const { digest } = counter
    for (const by of [-1, 0.5, Number.NaN, Infinity, -Infinity, MAX + 1, "1" as never, 1n as never, null as never]) {
      assert.throws(() => counter.increment(nodeIds[1], by), ValueNotSupported)
      assert.throws(() => counter.decrement(nodeIds[1], by), ValueNotSupported)
    }
    for (const id of ["", "a", "A".repeat(16), "__proto__0000000", "é".repeat(16)]) {
      assert.throws(() => counter.increment(id), ValueNotSupported)
      assert.throws(() => counter.decrement(id), ValueNotSupported)
    }
    assert.strictEqual(counter.digest, digest)
    for (const by of [0, -0]) counter.increment(nodeIds[1], by)
    assert.strictEqual(counter.digest, digest)
    assert.strictEqual(counter.value, 2)
  })

  it("refuses to let totals or the value leave the safe integers, and is as it was then", () => {
    const full = counterOf([PnCounter.totals(nodeIds[1], MAX, MAX)])
    const high = counterOf([PnCounter.totals(nodeIds[1], MAX, 0)])
    const low = counterOf([PnCounter.totals(nodeIds[1], 0, MAX)])
    const refusals = [
      [full, () => full.increment(nodeIds[1]), "increments"],
      [full, () => full.decrement(nodeIds[1]), "decrements"],
      [high, () => high.increment(nodeIds[2]), "value"],
      [low, () => low.decrement(nodeIds[2]), "value"]
    ] as const
    for (const [counter, change, what] of refusals) {
      const { digest, value } = counter
      try {
        change()
        assert.fail("the change was accepted")
      } catch (fault) {
        assert.instanceOf(fault, CounterOverflow)
        assert.strictEqual(fault.what, what)
        assert.strictEqual(fault.code, "TG_COUNTER_OVERFLOW")
        assert.include(fault.message, what)
      }
      assert.strictEqual(counter.digest, digest)
      assert.strictEqual(counter.value, value)
    }
    assert.strictEqual(new PnCounter.PnCounter().increment(nodeIds[1], MAX).increments, MAX)
  })

  it("joins rows whose sum is too large in any order, refuses to read it, and counts back from it exactly", () => {
    const rows = [nodeIds[0], nodeIds[1], nodeIds[2]].map((id) => PnCounter.totals(id, MAX, 0))
    const [counter, other] = [counterOf(rows), counterOf(rows.slice().reverse())]
    assert.strictEqual(counter.digest, other.digest)
    assert.throws(() => counter.value, CounterOverflow)
    assert.throws(() => counter.increment(nodeIds[3]), CounterOverflow)
    standsStill(counter)
    counter.decrement(nodeIds[0], MAX)
    counter.decrement(nodeIds[1], MAX)
    assert.strictEqual(counter.value, MAX)
    counter.decrement(nodeIds[2], MAX - 1)
    assert.strictEqual(counter.value, 1)
    const below = counterOf(rows.map((row) => PnCounter.totals(row.nodeId, 0, row.increments)))
    assert.throws(() => below.value, CounterOverflow)
    assert.throws(() => below.decrement(nodeIds[3]), CounterOverflow)
    standsStill(below)
    below.increment(nodeIds[0], MAX)
    below.increment(nodeIds[1], MAX)
    assert.strictEqual(below.value, -MAX)
  })

  it("has zeros for the digest of nothing, and another after each change", () => {
    const counter = new PnCounter.PnCounter()
    const digests = [counter.digest]
    assert.deepStrictEqual(digests, ["0".repeat(16)])
    for (const id of nodeIds) {
      counter.increment(id)
      digests.push(counter.digest)
      counter.decrement(id)
      digests.push(counter.digest)
    }
    assert.strictEqual(new Set(digests).size, digests.length)
  })

  it("refuses rows of another length, kind or node id, with a time, and totals beyond the safe integers", () => {
    const { row } = PnCounter.totals(nodeIds[1], 1, 1)
    for (const bytes of [new Uint8Array(0), row.subarray(1), new Uint8Array([...row, 0])]) {
      assert.match(refusal(bytes), /39 bytes/)
    }
    for (const byte of [0, 0x2f, 0x3a, 0x60, 0x7b, 0x41, 0xff]) {
      assert.match(refusal(withByte(row, 8, byte)), /node id/)
      assert.match(refusal(withByte(row, 23, byte)), /node id/)
    }
    for (const index of [0, 5, 6, 7]) assert.match(refusal(withByte(row, index, 1)), /no time/)
    for (const kind of [0, 0x10, 0x20, 0x2f, 0x31, 0xff]) assert.match(refusal(withByte(row, 24, kind)), /kind/)
    for (const index of [25, 32]) {
      for (const byte of [0x20, 0xff]) assert.match(refusal(withByte(row, index, byte)), /safe integers/)
    }
  })

  it.prop(
    "answers any bytes with a row or a typed refusal",
    [fc.oneof(
      fc.uint8Array({ maxLength: 48 }),
      fc.tuple(anyRow, fc.nat(38), fc.nat(255)).map(([{ row }, index, byte]) => withByte(row, index, byte))
    )],
    ([bytes]) => {
      try {
        assert.strictEqual(Buffer.compare(PnCounter.decode(bytes).row, bytes), 0)
      } catch (fault) {
        assert.instanceOf(fault, MalformedMessage)
      }
    }
  )
})
