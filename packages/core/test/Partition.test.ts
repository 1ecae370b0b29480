import { describe, expect, it } from "@effect/vitest"
import * as Partition from "@topgun/core/Partition"
import * as FastCheck from "effect/FastCheck"

/** The paper's algorithm as it is printed, in BigInt. */
const reference = (hi: number, lo: number, count: number): number => {
  let key = BigInt.asUintN(32, BigInt(hi)) << 32n | BigInt.asUintN(32, BigInt(lo))
  let partition = -1
  let next = 0
  while (next < count) {
    partition = next
    key = BigInt.asUintN(64, key * 2862933555777941757n + 1n)
    next = Math.floor((partition + 1) * (2 ** 31 / (Number(key >> 33n) + 1)))
  }
  return partition
}

const lane = FastCheck.oneof(
  FastCheck.integer(),
  FastCheck.constantFrom(0, 1, -1, 2 ** 31 - 1, -(2 ** 31), 0xffff, 0x10000, -0x10000, 1717769131)
)

describe("jump consistent hash", () => {
  it.prop("agrees with the paper", [lane, lane, FastCheck.integer({ min: 1, max: 5000 })], ([hi, lo, count]) => {
    expect(Partition.ofHash(hi, lo, count)).toBe(reference(hi, lo, count))
  }, { fastCheck: { numRuns: 1000 } })

  it.prop(
    "moves keys to a new partition only",
    [lane, lane, FastCheck.integer({ min: 1, max: 1000 })],
    ([hi, lo, count]) => {
      expect([Partition.ofHash(hi, lo, count), count]).toContain(Partition.ofHash(hi, lo, count + 1))
    }
  )

  // From the paper's C++.
  it.each([
    [0, 0, 0],
    [0, 1, 261],
    [0, 2, 62],
    [0, 0xdeadbeef | 0, 87],
    [-1, -1, 248],
    [0x80000000 | 0, 0, 107],
    [0x002698ad, 0x4b48eacf, 117],
    [0x1bfb1e03, 0x16f2d5dd, 3],
    // The low lane of the first product overflows by the 1 that is added.
    [0, 1717769131, 250]
  ])("of the hash (%i, %i) is partition %i", (hi, lo, partition) => {
    expect(Partition.ofHash(hi, lo)).toBe(partition)
  })
})

describe("the partition of a key", () => {
  it.each([
    ["", 0],
    ["a", 10],
    ["k123456", 76],
    ["__proto__", 126],
    ["héllo € 😀", 204]
  ])("of %j is the same for ever", (key, partition) => {
    expect(Partition.partitionOf(key)).toBe(partition)
  })

  it("spreads 100,000 similar keys evenly", () => {
    const keys = 100_000
    const sizes = Array.from({ length: Partition.partitionCount }, () => 0)
    for (let i = 0; i < keys; i++) sizes[Partition.partitionOf(`k${i}`)]!++
    const mean = keys / Partition.partitionCount
    // Five standard deviations of a fair throw.
    const allowed = 5 * Math.sqrt(mean)
    expect(sizes.filter((size) => Math.abs(size - mean) > allowed)).toEqual([])
  })
})
