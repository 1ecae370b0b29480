/** What somebody probably meant who wrote a name that isn't known. */

/** Edits that turn one name into another (Levenshtein 1965). */
const distance = (a: string, b: string): number => {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    }
    row = next
  }
  return row[b.length]!
}

/** The known name that is nearest to `name`; `undefined` when none is near, which is within a third of its letters, or 2. */
export const nearest = (name: string, known: Iterable<string>): string | undefined => {
  let best: string | undefined
  let least = Math.max(2, Math.ceil(name.length / 3)) + 1
  for (const each of known) {
    const edits = distance(name, each)
    if (edits >= least) continue
    best = each
    least = edits
  }
  return best
}
