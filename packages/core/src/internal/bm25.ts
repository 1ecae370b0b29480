/**
 * BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009), of one term in one field:
 *
 *     boost · idf · tf · (k1 + 1) / (tf + k1 · (1 − b + b · length / average)),   idf = ln(1 + (N − df + ½) / (df + ½))
 */

/** What doesn't depend on the document. */
export interface Scoring {
  readonly idf: number
  readonly average: number
  /** boost · idf · (k1 + 1) */
  readonly factor: number
  readonly base: number
  readonly slope: number
}

export const scoringOf = (given: {
  readonly boost: number
  readonly k1: number
  readonly b: number
  /** N: documents that have any term in the field, at least one. */
  readonly documents: number
  /** df: those that have this one. */
  readonly frequency: number
  /** Terms of all of them in the field. */
  readonly total: number
}): Scoring => {
  const { b, boost, documents, frequency, k1, total } = given
  const average = total / documents
  const idf = Math.log(1 + (documents - frequency + 0.5) / (frequency + 0.5))
  return { idf, average, factor: boost * idf * (k1 + 1), base: k1 * (1 - b), slope: k1 * b / average }
}

/** The score of a document that has the term `tf` times in a field of `length` terms. */
export const contributionOf = ({ base, factor, slope }: Scoring, tf: number, length: number): number =>
  factor * tf / (tf + base + slope * length)
