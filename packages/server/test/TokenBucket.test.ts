import { describe, expect, it } from "@effect/vitest"
import { TokenBucket } from "@topgun/server/TokenBucket"
import * as FastCheck from "effect/FastCheck"

const rates = FastCheck.record({
  perSecond: FastCheck.integer({ min: 1, max: 20 }),
  burst: FastCheck.integer({ min: 1, max: 20 })
})
const steps = FastCheck.array(
  FastCheck.tuple(
    FastCheck.integer({ min: -50, max: 500 }),
    FastCheck.integer({ min: 1, max: 5 })
  ),
  { maxLength: 40 }
)

describe("TokenBucket", () => {
  it.prop(
    "lets through no more than its burst, its rate and one debt, whatever is asked and however the clock is set",
    [rates, steps],
    ([rate, asked]) => {
      const bucket = new TokenBucket(rate, 0)
      let now = 0
      let forward = 0
      let taken = 0
      for (const [millis, count] of asked) {
        now += millis
        forward += Math.max(0, millis)
        if (bucket.waitMillis(now) > 0) continue
        bucket.take(count, now)
        taken += count
      }
      expect(taken).toBeLessThan(rate.burst + rate.perSecond * forward / 1_000 + 5 + 1e-6)
    }
  )

  it.prop("says how long to wait: a millisecond before there is nothing yet", [rates, steps], ([rate, asked]) => {
    const bucket = new TokenBucket(rate, 0)
    let now = 0
    for (const [, count] of asked) {
      bucket.take(count, now)
      const millis = bucket.waitMillis(now)
      if (millis === 0) continue
      expect(bucket.waitMillis(now + millis - 1)).toBeGreaterThan(0)
      now += millis + 1
      expect(bucket.waitMillis(now)).toBe(0)
    }
  })

  it("is full at first, and holds no more than that when it was left alone", () => {
    const bucket = new TokenBucket({ perSecond: 10, burst: 5 }, 0)
    for (const now of [0, 1_000_000]) {
      bucket.take(4, now)
      expect(bucket.waitMillis(now)).toBe(0)
      bucket.take(1, now)
      expect(bucket.waitMillis(now)).toBe(100)
    }
  })
})
