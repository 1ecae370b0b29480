/**
 * Full-text search: which documents have the words of a query, the best first. Pure and synchronous; what a language needs is
 * loaded before, by `Languages.load`.
 *
 * **Terms.** Words are what letters and digits make up, with their marks; everything else parts them. They are compared in Unicode's
 * compatibility form (NFKC), in small letters whatever the locale (İ and I are i, but in Turkish; ς is σ, ß is ss), without what
 * can't be seen (joiners, soft hyphens, variation selectors), and of at most {@link termLengthMax} UTF-16 units. A word with an
 * apostrophe is two, unless all of it is a stop word: "Anna's" has "anna", "l'avion" has "avion".
 *
 * - *With a language* words are stemmed, and stop words left out. Accents are left to the stemmer, which knows whether ä is another
 *   letter than a (German folds it, Swedish must not).
 * - *Without one* accents are folded, as are the vowel marks of Hebrew and Arabic: nobody knows who writes them.
 * - *Scripts without spaces* (Han, Kana, Thai, Lao, Khmer, Burmese, …), and Korean, whose particles stick to their words, have a term
 *   for each character and for each two that follow each other. A query asks for the pairs, and for a character only if it stands
 *   alone. Pairs find as well as a dictionary's words (Nie, Gao, Zhang and Zhou 2000; for Korean Lee and Ahn 1996), and no two
 *   engines have the same dictionary. No single character of a longer query matches, so that pairs stay precise.
 * - Emoji and symbols are no terms.
 *
 * Which characters are letters is the engine's Unicode version's to say; its stability policy keeps those that both sides know.
 *
 * **Score.** All terms of a query are alternatives, ranked by BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework:
 * BM25 and Beyond", 2009), for each field by itself, with a boost:
 *
 *     boost · idf · tf · (k1 + 1) / (tf + k1 · (1 − b + b · length / average)),   idf = ln(1 + (N − df + ½) / (df + ½))
 *
 * N is the number of documents that have a term in the field, df of those with this one, tf how often it is there, `length` the terms
 * of the field, `average` that of the N. A term that stands for the beginning of a word ({@link SearchOptions.prefix}) counts
 * {@link prefixWeight}. The sum is made in the order of the query's terms, then of the fields, so that it doesn't depend on how the
 * index came about: any history of changes has the scores of an index built anew, bit for bit.
 *
 * **Limits.** {@link queryLengthMax} and {@link queryTermsMax} of a query, {@link prefixTermsMax} of a beginning,
 * {@link documentTermsMax} of a document. A search goes at most once through the documents of each of its terms in each field.
 */
import { QueryInvalid, QueryTooExpensive } from "./GridError.ts"
import { type Analyzer, termLengthMax, type Token } from "./internal/analyzer.ts"
import { bestOf } from "./internal/best.ts"
import { contributionOf, type Scoring, scoringOf } from "./internal/bm25.ts"
import { compareNames } from "./internal/fieldOrder.ts"
import { grown, Postings } from "./internal/postings.ts"
import { Vocabulary } from "./internal/vocabulary.ts"
import type { Language } from "./Languages.ts"
import * as Predicate from "./Predicate.ts"

export { type Analyzer, termLengthMax, type Token }
export { fuse } from "./internal/fuse.ts"

// --- Limits ----------------------------------------------------------------------------------------------------------

/** UTF-16 units of a query, at most. */
export const queryLengthMax = 1_024

/** Terms of a query, at most. */
export const queryTermsMax = 32

/**
 * Terms that the beginning of a word stands for, at most: those of most documents, counted in each of the fields, of equal ones the
 * first by code points.
 */
export const prefixTermsMax = 64

/** Terms of a document that are found, over all its fields; those behind them are not. A count of the postings holds as many. */
export const documentTermsMax = 50_000

/** What a term counts, of 1, of which the query has only the beginning. */
export const prefixWeight = 0.5

// --- Options ---------------------------------------------------------------------------------------------------------

/** What is searched of a map's values. */
export interface Options {
  /**
   * The paths of the fields, as predicates write them, with their boosts, from 0.001 to 1000. What is there is text, or a list of
   * texts; anything else has no terms.
   */
  readonly fields: { readonly [path: string]: number }
  /** The language of all that is searched. @default none: no stemming, no stop words */
  readonly language?: Language | undefined
  /** How much a term counts that is there again; at 0 nothing, from 0 to 100. @default 1.2 */
  readonly k1?: number | undefined
  /** How much a long field is held against its terms; at 0 not at all, from 0 to 1. @default 0.75 */
  readonly b?: number | undefined
}

/** What a query's text means. */
export interface QueryOptions {
  /** Those to search, of the declared ones. @default all */
  readonly fields?: ReadonlyArray<string> | undefined
  /**
   * Whether the last word may be the beginning of one, as of a word that is still being typed. Where words are stemmed and no term
   * begins so, it stands for the longest term that it begins with: "connecti" for "connect". @default true
   */
  readonly prefix?: boolean | undefined
}

/** For whom a query is answered. */
export interface ViewOptions {
  /**
   * The documents that there are, as for somebody who mustn't learn of others: answers are those of an index that has no others,
   * scores and what a beginning stands for included. It is asked of every document, and no more until the index changes if the same
   * function is given again: give another when it has changed its mind. @default all
   */
  readonly among?: Among | undefined
}

/** Whether a document is there. */
export type Among = (key: string) => boolean

/** Which of the hits are wanted. */
export interface HitOptions extends ViewOptions {
  /** The best so many. @default all */
  readonly limit?: number | undefined
  /**
   * Which hits are wanted, as those of which a predicate is true too. It is asked of each at most once, and of none that isn't good
   * enough for `limit`. It doesn't search this index itself. Scores are made of all documents nevertheless.
   */
  readonly accept?: ((key: string) => boolean) | undefined
}

export interface SearchOptions extends QueryOptions, HitOptions {}

/** A query, read by {@link FullTextIndex.parse}: for many searches, and for live ones. */
export interface Parsed {
  readonly terms: ReadonlyArray<string>
  /** The beginning of a word; undefined when the query has none. */
  readonly prefix: string | undefined
  /** The declared fields that it searches, in the order of their declaration. */
  readonly fields: ReadonlyArray<string>
}

/** A document that was found. */
export interface Hit {
  readonly key: string
  /** Greater is better; only to be compared with others of the same search. */
  readonly score: number
}

/** Why a document has its score. */
export interface Explanation {
  readonly key: string
  /** The sum of the contributions, in their order. */
  readonly score: number
  readonly parts: ReadonlyArray<ExplanationPart>
}

/** What one term in one field adds. */
export interface ExplanationPart {
  readonly field: string
  readonly term: string
  /** 1, or {@link prefixWeight}. */
  readonly weight: number
  readonly boost: number
  /** tf: how often the term is in the field. */
  readonly termFrequency: number
  /** df: documents that have it there. */
  readonly documentFrequency: number
  /** N: documents that have anything there. */
  readonly documents: number
  readonly inverseDocumentFrequency: number
  /** Terms of the field. */
  readonly length: number
  readonly averageLength: number
  readonly contribution: number
}

/** Where a field has what a query asks for. */
export interface Highlights {
  readonly field: string
  /** Which text of a list; undefined when the field is text. */
  readonly element: number | undefined
  /** Not overlapping, in their order: UTF-16 units of the text as it is written, the end excluded. */
  readonly ranges: ReadonlyArray<readonly [start: number, end: number]>
}

// --- Index -----------------------------------------------------------------------------------------------------------

interface Field {
  readonly path: string
  readonly boost: number
  readonly read: (value: unknown) => unknown
  /** Its number. */
  readonly at: number
  /** Terms by document. */
  lengths: Uint32Array
  /** Documents that have any. */
  documents: number
  /** Terms of all of them. */
  total: number
}

/** A term that is searched. */
interface Sought {
  readonly term: string
  readonly id: number
  readonly weight: number
}

/** Which documents there are, and what scores are made of then. */
interface Census {
  /** 1 for each that is there; undefined when all are. */
  readonly mask: Uint8Array | undefined
  /** By field: documents that have any term, and terms of all of them. */
  readonly documents: ReadonlyArray<number>
  readonly totals: ReadonlyArray<number>
  readonly frequencyOf: (term: number, field: Field) => number
}

const inRange = (what: string, value: number, min: number, max: number): number => {
  if (value >= min && value <= max) return value
  throw new RangeError(`${what} of a full-text index is from ${min} to ${max}, not ${value}`)
}

/**
 * The documents of a map, by their terms. Changes cost what the changed document has of terms, old and new, whatever the others
 * have. Room that removed documents leave is used again, and not given back.
 */
export class FullTextIndex {
  readonly #analyzer: Analyzer
  readonly #fields: ReadonlyArray<Field>
  readonly #k1: number
  readonly #b: number
  readonly #postings = new Postings()
  /** The list of a term in a field is `id * fields + field`. */
  readonly #vocabulary = new Vocabulary()
  // Documents, by their id; that of a removed one is given to another.
  readonly #docIds = new Map<string, number>()
  readonly #keys: Array<string> = []
  readonly #freeDocs: Array<number> = []
  /** Sums of a search, by document; all 0 between searches. */
  #scores = new Float64Array(0)
  /** Documents with a sum. */
  #touched = new Uint32Array(0)
  #isSearching = false
  /** Changes until now. */
  #revision = 0
  readonly #censuses = new WeakMap<Among, { readonly revision: number; readonly census: Census }>()
  readonly #sought = new WeakMap<
    Parsed,
    { readonly revision: number; readonly among: Among | undefined; readonly sought: ReadonlyArray<Sought> }
  >()

  /**
   * @param analyzer That of the options' language, loaded before.
   * @throws QueryInvalid for what isn't a path.
   */
  constructor(options: Options, analyzer: Analyzer) {
    if (analyzer.language !== options.language) {
      throw new TypeError(
        `A full-text index in ${options.language ?? "no language"} was given what ${analyzer.language ?? "none"} needs`
      )
    }
    this.#analyzer = analyzer
    this.#k1 = inRange("k1", options.k1 ?? 1.2, 0, 100)
    this.#b = inRange("b", options.b ?? 0.75, 0, 1)
    this.#fields = Object.entries(options.fields).map(([path, boost], at) => ({
      path,
      boost: inRange(`The boost of "${path}"`, boost, 0.001, 1_000),
      read: Predicate.getter(path),
      at,
      lengths: new Uint32Array(0),
      documents: 0,
      total: 0
    }))
    if (this.#fields.length === 0) throw new RangeError("A full-text index needs at least one field")
  }

  /** Documents, those included that have nothing to be found by. */
  get size(): number {
    return this.#docIds.size
  }

  /** Different terms of all documents. */
  get termCount(): number {
    return this.#vocabulary.size
  }

  // --- Changes ---

  /** Adds a document, or replaces it. */
  set(key: string, value: unknown): void {
    const frequencies = this.#frequenciesOf(value)
    const doc = this.#docIds.get(key) ?? this.#addDoc(key)
    const lists: Array<number> = []
    const counts: Array<number> = []
    for (const field of this.#fields) {
      for (const [term, count] of frequencies.terms[field.at]!) {
        lists.push(this.#vocabulary.add(term) * this.#fields.length + field.at)
        counts.push(count)
      }
      this.#setLength(field, doc, frequencies.lengths[field.at]!)
    }
    this.#revision++
    this.#postings.put(doc, lists, counts, this.#dropIfUnused)
  }

  /** Removes a document, if it is there. What it was isn't needed. */
  remove(key: string): void {
    const doc = this.#docIds.get(key)
    if (doc === undefined) return
    for (const field of this.#fields) this.#setLength(field, doc, 0)
    this.#revision++
    this.#postings.put(doc, [], [], this.#dropIfUnused)
    this.#docIds.delete(key)
    this.#keys[doc] = ""
    this.#freeDocs.push(doc)
  }

  has(key: string): boolean {
    return this.#docIds.has(key)
  }

  #frequenciesOf(value: unknown): {
    readonly terms: ReadonlyArray<ReadonlyMap<string, number>>
    readonly lengths: ReadonlyArray<number>
  } {
    const terms = this.#fields.map(() => new Map<string, number>())
    const lengths = this.#fields.map(() => 0)
    this.#scan(value, (field, _element, term) => {
      const counts = terms[field.at]!
      counts.set(term, (counts.get(term) ?? 0) + 1)
      lengths[field.at]!++
    })
    return { terms, lengths }
  }

  /** All terms of a document, up to {@link documentTermsMax}. */
  #scan(
    value: unknown,
    visit: (field: Field, element: number | undefined, term: string, start: number, end: number) => void
  ): void {
    let left = documentTermsMax
    for (const field of this.#fields) {
      const found = field.read(value)
      const texts: ReadonlyArray<unknown> = Array.isArray(found) ? found : [found]
      for (let i = 0; i < texts.length && left > 0; i++) {
        const text = texts[i]
        if (typeof text !== "string") continue
        const element = texts === found ? i : undefined
        this.#analyzer.scan(text, (term, start, end) => {
          visit(field, element, term, start, end)
          return --left > 0
        })
      }
    }
  }

  #addDoc(key: string): number {
    const doc = this.#freeDocs.pop() ?? this.#keys.length
    this.#docIds.set(key, doc)
    this.#keys[doc] = key
    return doc
  }

  #setLength(field: Field, doc: number, length: number): void {
    field.lengths = grown(field.lengths, doc + 1)
    const before = field.lengths[doc]!
    field.lengths[doc] = length
    field.total += length - before
    field.documents += Number(length > 0) - Number(before > 0)
  }

  readonly #dropIfUnused = (list: number): void => {
    const id = Math.floor(list / this.#fields.length)
    // One that the document lost in two fields was dropped with the first of them.
    if (this.#vocabulary.termOf(id) !== "" && this.#fields.every((field) => this.#documentFrequency(id, field) === 0)) {
      this.#vocabulary.drop(id)
    }
  }

  // --- Queries ---

  /**
   * What a query asks for.
   *
   * @throws QueryTooExpensive beyond {@link queryLengthMax} or {@link queryTermsMax}.
   * @throws QueryInvalid for a field that isn't declared.
   */
  parse(text: string, options: QueryOptions = {}): Parsed {
    if (text.length > queryLengthMax) {
      throw new QueryTooExpensive({
        path: "search",
        reason: `it has ${text.length} characters, ${queryLengthMax} are allowed. Search for fewer words`
      })
    }
    const { last, terms } = this.#analyzer.words(text)
    if (terms.length > queryTermsMax) {
      throw new QueryTooExpensive({
        path: "search",
        reason: `it has ${terms.length} terms, ${queryTermsMax} are allowed. Search for fewer words`
      })
    }
    const { fields, prefix = true } = options
    for (const path of fields ?? []) {
      if (this.#fields.some((field) => field.path === path)) continue
      throw new QueryInvalid({
        path: "search.fields",
        reason: `"${path}" is not searched: declare it with the map, or take one of ` +
          this.#fields.map((field) => `"${field.path}"`).join(", ")
      })
    }
    return {
      terms,
      prefix: prefix ? last : undefined,
      fields: this.#fields.map((field) => field.path).filter((path) => fields === undefined || fields.includes(path))
    }
  }

  #parsed(query: string | Parsed): Parsed {
    return typeof query === "string" ? this.parse(query) : query
  }

  #fieldsOf(parsed: Parsed): ReadonlyArray<Field> {
    return this.#fields.filter((field) => parsed.fields.includes(field.path))
  }

  #documentFrequency(term: number, field: Field): number {
    return this.#postings.lengthOf(term * this.#fields.length + field.at)
  }

  #censusOf(among: Among | undefined): Census {
    if (among === undefined) {
      return {
        mask: undefined,
        documents: this.#fields.map(({ documents }) => documents),
        totals: this.#fields.map(({ total }) => total),
        frequencyOf: (term, field) => this.#documentFrequency(term, field)
      }
    }
    const known = this.#censuses.get(among)
    if (known !== undefined && known.revision === this.#revision) return known.census
    const mask = new Uint8Array(this.#keys.length)
    const documents = this.#fields.map(() => 0)
    const totals = this.#fields.map(() => 0)
    for (const [key, doc] of this.#docIds) {
      if (!among(key)) continue
      mask[doc] = 1
      for (const { at, lengths } of this.#fields) {
        documents[at]! += Number(lengths[doc]! > 0)
        totals[at]! += lengths[doc]!
      }
    }
    const frequencies = new Map<number, number>()
    const frequencyOf = (term: number, field: Field): number => {
      const list = term * this.#fields.length + field.at
      let frequency = frequencies.get(list)
      if (frequency === undefined) {
        frequency = 0
        const length = this.#postings.lengthOf(list)
        const start = length === 0 ? 0 : this.#postings.start(list)
        for (let cell = start; cell < start + length; cell++) frequency += mask[this.#postings.docs[cell]!]!
        frequencies.set(list, frequency)
      }
      return frequency
    }
    const census = { mask, documents, totals, frequencyOf }
    this.#censuses.set(among, { revision: this.#revision, census })
    return census
  }

  /** The terms of the index that a query stands for, in the order in which their scores are added. */
  #soughtBy(parsed: Parsed, among?: Among): ReadonlyArray<Sought> {
    const known = this.#sought.get(parsed)
    if (known !== undefined && known.revision === this.#revision && known.among === among) return known.sought
    const sought: Array<Sought> = []
    for (const term of parsed.terms) {
      const id = this.#vocabulary.idOf(term)
      if (id !== undefined) sought.push({ term, id, weight: 1 })
    }
    if (parsed.prefix !== undefined) {
      for (const id of this.#beginningWith(parsed, parsed.prefix, this.#censusOf(among))) {
        const term = this.#vocabulary.termOf(id)
        if (!parsed.terms.includes(term)) sought.push({ term, id, weight: prefixWeight })
      }
    }
    this.#sought.set(parsed, { revision: this.#revision, among, sought })
    return sought
  }

  #beginningWith(parsed: Parsed, prefix: string, census: Census): ReadonlyArray<number> {
    const fields = this.#fieldsOf(parsed)
    const frequencyOf = (id: number): number => {
      let sum = 0
      for (const field of fields) sum += census.frequencyOf(id, field)
      return sum
    }
    /** The best so far, the best first. */
    const best: Array<{ readonly id: number; readonly frequency: number }> = []
    const comesFirst = (id: number, frequency: number, other: { readonly id: number; readonly frequency: number }) =>
      frequency > other.frequency ||
      (frequency === other.frequency &&
        compareNames(this.#vocabulary.termOf(id), this.#vocabulary.termOf(other.id)) < 0)
    this.#vocabulary.forBeginning(prefix, (id) => {
      const frequency = frequencyOf(id)
      if (frequency === 0) return
      if (best.length === prefixTermsMax) {
        if (!comesFirst(id, frequency, best[prefixTermsMax - 1]!)) return
        best.pop()
      }
      let at = best.length
      while (at > 0 && comesFirst(id, frequency, best[at - 1]!)) at--
      best.splice(at, 0, { id, frequency })
    })
    if (best.length > 0 || !this.#analyzer.stems) return best.map(({ id }) => id)
    const isThere = (term: string): number | undefined => {
      const id = this.#vocabulary.idOf(term)
      return id !== undefined && frequencyOf(id) > 0 ? id : undefined
    }
    // The stem of what was typed is better than any guess.
    const last = parsed.terms.at(-1)
    if (last !== undefined && isThere(last) !== undefined) return []
    for (let length = prefix.length - 1; length >= 3; length--) {
      const id = isThere(prefix.slice(0, length))
      if (id !== undefined) return [id]
    }
    return []
  }

  #scoringOf({ id, weight }: Sought, { at, boost }: Field, census: Census): Scoring {
    return scoringOf({
      boost: weight * boost,
      k1: this.#k1,
      b: this.#b,
      documents: census.documents[at]!,
      frequency: census.frequencyOf(id, this.#fields[at]!),
      total: census.totals[at]!
    })
  }

  /**
   * The documents that have one of the terms, the best first, of equal ones that with the first key by code points. A query without
   * terms finds nothing, be it empty or only stop words.
   *
   * @throws QueryTooExpensive and QueryInvalid as {@link parse}.
   */
  search(text: string, options?: SearchOptions): ReadonlyArray<Hit>
  search(parsed: Parsed, options?: HitOptions): ReadonlyArray<Hit>
  search(query: string | Parsed, options: SearchOptions = {}): ReadonlyArray<Hit> {
    const { accept, among, limit = this.size } = options
    if (this.#isSearching) throw new Error("A full-text index was searched by the accept of its own search")
    if (!(Number.isInteger(limit) && limit >= 0)) {
      throw new QueryInvalid({ path: "limit", reason: `it is a whole number, not ${limit}` })
    }
    const parsed = typeof query === "string" ? this.parse(query, options) : query
    const found = this.#sumScores(this.#soughtBy(parsed, among), this.#fieldsOf(parsed), this.#censusOf(among))
    this.#isSearching = true
    try {
      return this.#best(this.#touched.subarray(0, found), limit, accept)
    } finally {
      this.#isSearching = false
      for (let i = 0; i < found; i++) this.#scores[this.#touched[i]!] = 0
    }
  }

  #best(docs: Uint32Array, limit: number, accept: ((key: string) => boolean) | undefined): ReadonlyArray<Hit> {
    const scores = this.#scores
    const keys = this.#keys
    const best = bestOf(docs, limit, (a, b) => {
      const x = scores[a]!
      const y = scores[b]!
      return x > y || (x === y && compareNames(keys[a]!, keys[b]!) < 0)
    }, (doc) => accept === undefined || accept(keys[doc]!))
    return Array.from(best, (doc) => ({ key: keys[doc]!, score: scores[doc]! }))
  }

  /** Sums the scores of all documents that have one of the terms. Answers how many they are. */
  #sumScores(soughts: ReadonlyArray<Sought>, fields: ReadonlyArray<Field>, census: Census): number {
    this.#scores = grown(this.#scores, this.#keys.length)
    this.#touched = grown(this.#touched, this.#keys.length)
    const scores = this.#scores
    const touched = this.#touched
    const { counts, docs } = this.#postings
    const { mask } = census
    let found = 0
    for (const sought of soughts) {
      for (const field of fields) {
        const list = sought.id * this.#fields.length + field.at
        const length = this.#postings.lengthOf(list)
        if (length === 0) continue
        const scoring = this.#scoringOf(sought, field, census)
        const { lengths } = field
        const start = this.#postings.start(list)
        for (let cell = start; cell < start + length; cell++) {
          const doc = docs[cell]!
          if (mask !== undefined && mask[doc] === 0) continue
          const before = scores[doc]!
          if (before === 0) touched[found++] = doc
          scores[doc] = before + contributionOf(scoring, counts[cell]!, lengths[doc]!)
        }
      }
    }
    return found
  }

  /**
   * Whether a search for the query would find the document as it is now: before and after a change, for each live search, this says
   * whether its set of hits changes. Ranks depend on all documents.
   *
   * @throws QueryTooExpensive and QueryInvalid as {@link parse}.
   */
  matches(query: string | Parsed, key: string, { among }: ViewOptions = {}): boolean {
    const parsed = this.#parsed(query)
    const doc = this.#docIds.get(key)
    if (doc === undefined || among?.(key) === false) return false
    const fields = this.#fieldsOf(parsed)
    const isIn = (id: number): boolean =>
      fields.some((field) => this.#postings.countOf(doc, id * this.#fields.length + field.at) > 0)
    // What a beginning stands for is asked last, as it goes through the vocabulary.
    if (parsed.terms.some((term) => isIn(this.#vocabulary.idOf(term) ?? -1))) return true
    return parsed.prefix !== undefined && this.#mayBegin(doc, parsed.prefix) &&
      this.#soughtBy(parsed, among).some(({ id }) => isIn(id))
  }

  /** Whether a document has a term that the beginning of a word could stand for. */
  #mayBegin(doc: number, prefix: string): boolean {
    const count = this.#postings.listCount(doc)
    for (let i = 0; i < count; i++) {
      const term = this.#vocabulary.termOf(Math.floor(this.#postings.listAt(doc, i) / this.#fields.length))
      if (term.startsWith(prefix) || (this.#analyzer.stems && prefix.startsWith(term))) return true
    }
    return false
  }

  /**
   * Why a search for the query gives the document its score; undefined when it doesn't find it.
   *
   * @throws QueryTooExpensive and QueryInvalid as {@link parse}.
   */
  explain(query: string | Parsed, key: string, { among }: ViewOptions = {}): Explanation | undefined {
    const parsed = this.#parsed(query)
    const doc = this.#docIds.get(key)
    if (doc === undefined || among?.(key) === false) return undefined
    const census = this.#censusOf(among)
    const parts: Array<ExplanationPart> = []
    let score = 0
    for (const sought of this.#soughtBy(parsed, among)) {
      for (const field of this.#fieldsOf(parsed)) {
        const termFrequency = this.#postings.countOf(doc, sought.id * this.#fields.length + field.at)
        if (termFrequency === 0) continue
        const scoring = this.#scoringOf(sought, field, census)
        const length = field.lengths[doc]!
        const part = contributionOf(scoring, termFrequency, length)
        score += part
        parts.push({
          field: field.path,
          term: sought.term,
          weight: sought.weight,
          boost: field.boost,
          termFrequency,
          documentFrequency: census.frequencyOf(sought.id, field),
          documents: census.documents[field.at]!,
          inverseDocumentFrequency: scoring.idf,
          length,
          averageLength: scoring.average,
          contribution: part
        })
      }
    }
    return parts.length === 0 ? undefined : { key, score, parts }
  }

  /**
   * Where a value, be it in the index or not, has the terms of the query, or what begins as its last word does.
   *
   * @throws QueryTooExpensive and QueryInvalid as {@link parse}.
   */
  highlights(query: string | Parsed, value: unknown, { among }: ViewOptions = {}): ReadonlyArray<Highlights> {
    const parsed = this.#parsed(query)
    const { prefix } = parsed
    const terms = new Set([...parsed.terms, ...this.#soughtBy(parsed, among).map(({ term }) => term)])
    const highlights: Array<Highlights & { readonly ranges: Array<readonly [number, number]> }> = []
    this.#scan(value, (field, element, term, start, end) => {
      if (!terms.has(term) && (prefix === undefined || !term.startsWith(prefix))) return
      if (!parsed.fields.includes(field.path)) return
      let last = highlights.at(-1)
      if (last?.field !== field.path || last.element !== element) {
        last = { field: field.path, element, ranges: [] }
        highlights.push(last)
      }
      const before = last.ranges.at(-1)
      if (before !== undefined && start < before[1]) {
        last.ranges[last.ranges.length - 1] = [before[0], Math.max(before[1], end)]
      } else last.ranges.push([start, end])
    })
    return highlights
  }
}
