import { assert, describe, it } from "@effect/vitest"
import { type Expiring, ExpiryHeap } from "@topgun/core/ExpiryHeap"
import { FastCheck as fc } from "effect"

describe("ExpiryHeap", () => {
  it.prop(
    "gives what is due, the earliest first and so many at most, and nothing that was replaced",
    [fc.array(
      fc.oneof(fc.record({ at: fc.nat(20) }), fc.record({ now: fc.nat(20), max: fc.integer({ min: 1, max: 5 }) })),
      { maxLength: 60, size: "max" }
    )],
    ([steps]) => {
      const isCurrent = ({ at }: Expiring) => at % 3 !== 0
      const heap = new ExpiryHeap(isCurrent)
      const model: Array<Expiring> = []
      for (const step of steps) {
        if ("at" in step) {
          heap.add({ at: step.at, map: "m", cell: "k" })
          model.push({ at: step.at, map: "m", cell: "k" })
        } else {
          const due = model.filter((each) => each.at <= step.now && isCurrent(each)).sort((a, b) => a.at - b.at)
            .slice(0, step.max)
          assert.deepStrictEqual(heap.take(step.now, step.max), due)
          for (const each of due) model.splice(model.findIndex(({ at }) => at === each.at), 1)
        }
        const next = Math.min(...model.filter(isCurrent).map(({ at }) => at))
        assert.isTrue((heap.next ?? Number.POSITIVE_INFINITY) <= next)
      }
    },
    { fastCheck: { numRuns: 1_000 } }
  )

  it("keeps nothing for long that was replaced", () => {
    let latest = 0
    const heap = new ExpiryHeap(({ at }) => at === latest)
    for (let at = 1; at <= 100_000; at++) {
      latest = at
      heap.add({ at, map: "m", cell: "k" })
    }
    assert.isAtMost(heap.size, 1_025)
    assert.deepStrictEqual(heap.take(Number.MAX_SAFE_INTEGER), [{ at: 100_000, map: "m", cell: "k" }])
  })
})
