/** What every benchmark writes: 100,000 keys like `k123456`, records of 8 fields and about 200 bytes. */

/** How many keys a map of the usual size has. */
export const count = 100_000

/** The key of number `n`, seven characters up to 900,000. */
export const keyOf = (n) => `k${100_000 + n}`

/** The record of a key, as every contestant writes it. */
export const recordOf = (n) => ({
  id: n,
  name: `person number ${n}`,
  email: `person${n}@example.com`,
  active: n % 2 === 0,
  score: n / 7,
  city: "Santiago de Compostela",
  tags: ["alpha", "beta", "gamma"],
  note: "the quick brown fox jumps over the lazy dog, again and again"
})

export const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]

export const check = (condition, what) => {
  if (!condition) throw new Error(`verification failed: ${what}`)
}
