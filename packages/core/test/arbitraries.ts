/** Values for properties. The domains are tiny, so that ties and repetitions come up in every run. */
import * as LwwRecord from "../src/LwwRecord.ts"
import type { Timestamp } from "../src/Timestamp.ts"
import * as Value from "../src/Value.ts"
import { FastCheck as fc } from "effect"

export const nodeIds = ["0000000000000000", "aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaab", "zzzzzzzzzzzzzzzz"] as const

export const nodeId: fc.Arbitrary<string> = fc.constantFrom(...nodeIds)

/** Any stamp at all, the bounds often. */
export const stamp: fc.Arbitrary<Timestamp> = fc.record({
  millis: fc.oneof(
    fc.constantFrom(0, 1, 255, 256, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 47, 2 ** 48 - 1),
    fc.integer({ min: 0, max: 2 ** 48 - 1 })
  ),
  counter: fc.oneof(fc.constantFrom(0, 1, 255, 256, 65_534, 65_535), fc.integer({ min: 0, max: 65_535 })),
  nodeId
})

/** Few stamps, so that two are often equal. */
export const closeStamp: fc.Arbitrary<Timestamp> = fc.record({
  millis: fc.constantFrom(1_000, 1_001),
  counter: fc.constantFrom(0, 1),
  nodeId: fc.constantFrom(nodeIds[1], nodeIds[2])
})

export const value: fc.Arbitrary<unknown> = fc.constantFrom(null, 0, 1, "", "a", false)

const recordAt = (at: fc.Arbitrary<Timestamp>): fc.Arbitrary<LwwRecord.LwwRecord> =>
  fc.oneof(
    fc.record({ at, value, expiresAt: fc.constantFrom(0, 0, 2_000, 3_000) }).map((put) =>
      LwwRecord.put(put.at, Value.encode(put.value), put.expiresAt)
    ),
    at.map(LwwRecord.remove)
  )

/** Any record. */
export const record = recordAt(stamp)

/** Few records, so that two often have the same stamp. */
export const closeRecord = recordAt(closeStamp)

export const key: fc.Arbitrary<string> = fc.constantFrom("a", "b", "__proto__")
