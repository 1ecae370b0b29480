import { compareNames } from "./fieldOrder.ts"

/**
 * One ranking of several, the best first, of equal ones that with the first key by code points: reciprocal rank fusion (Cormack,
 * Clarke and Büttcher 2009). A key's score is the sum of 1 / (k + rank) over the rankings that have it, their first rank being 1. It
 * doesn't depend on the order of the rankings. In one ranking the first place of a key counts.
 *
 * @param k How little the first places count before those behind them; 60 is the authors'.
 */
export const fuse = (
  rankings: ReadonlyArray<ReadonlyArray<string>>,
  k = 60
): ReadonlyArray<{ readonly key: string; readonly score: number }> => {
  if (!(k >= 0 && k < Infinity)) throw new RangeError(`k of a fusion is not negative and finite, not ${k}`)
  const ranks = new Map<string, Array<number>>()
  for (const ranking of rankings) {
    const seen = new Set<string>()
    for (let i = 0; i < ranking.length; i++) {
      const key = ranking[i]!
      if (seen.has(key)) continue
      seen.add(key)
      const known = ranks.get(key)
      if (known === undefined) ranks.set(key, [i + 1])
      else known.push(i + 1)
    }
  }
  return Array.from(ranks, ([key, places]) => ({
    key,
    // In one order whatever that of the rankings is: sums of floats depend on it.
    score: places.sort((x, y) => x - y).reduce((sum, rank) => sum + 1 / (k + rank), 0)
  })).sort((x, y) => y.score - x.score || compareNames(x.key, y.key))
}
