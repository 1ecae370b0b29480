/**
 * From text to the terms that are searched. See `FullText.ts` for what is promised.
 *
 * Characters have one of six kinds, by Unicode's properties, looked up in tables that are made block by block as text needs
 * them. Neither `Intl.Segmenter`, whose words are another dictionary's in each ICU version, nor anything of the locale is asked.
 */

/** UTF-16 units of one term, at most; what is behind them is cut off, before it is stemmed. */
export const termLengthMax = 64

/** UTF-16 units of one word that are looked at: Unicode's normalization takes quadratic time for long runs of marks. */
const wordLengthMax = 256

/** The same of one character with its marks, where a script has no spaces. */
const clusterLengthMax = 16

/** Words whose terms are remembered. */
const rememberedMax = 16_384

// --- Normal form -----------------------------------------------------------------------------------------------------

/** Marks that writers leave out: the accents of Latin, Greek and Cyrillic, and the vowels of Hebrew and Arabic. */
const accents =
  /\u0640|[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u0652\u0656-\u065f\u0670]/g
const apostrophes = /[\u2019\u02bc\uff07]/g
const invisibles = /(?!\u200b)[\p{Default_Ignorable_Code_Point}\p{Cf}]/gu
const separators = /[^\p{L}\p{N}\p{M}]/gu
const words = /[\p{L}\p{N}][\p{L}\p{N}\p{M}]*/gu

/**
 * NFKC, in small letters, with one sigma and with ss for ß; without accents if `folds`. What has this form keeps it.
 * If `isTurkic`, I and İ are the capitals of ı and i, otherwise both are those of i.
 */
const normalOf = (raw: string, folds: boolean, isTurkic: boolean): string => {
  let text = raw.normalize(folds ? "NFKD" : "NFKC")
  if (isTurkic) text = text.replaceAll("I", "ı")
  text = text.replaceAll("İ", "i").toLowerCase().replaceAll("ς", "σ").replaceAll("ß", "ss").replaceAll(apostrophes, "'")
  return (folds ? text.replaceAll(accents, "") : text).normalize("NFC")
}

/** At most so many UTF-16 units of it, no half character at the end. */
const cut = (text: string, lengthMax: number): string => {
  if (text.length <= lengthMax) return text
  const last = text.charCodeAt(lengthMax - 1)
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? lengthMax - 1 : lengthMax)
}

/** A text of its own: a slice would keep the whole document that it was cut from in memory. */
export const ownText = (text: string): string => text.length < 13 ? text : (" " + text).slice(1)

// --- Kinds of characters ---------------------------------------------------------------------------------------------

const separator = 0
/** A letter or digit of a script that puts spaces between words. */
const letter = 1
/** One of a script that doesn't. */
const unspaced = 2
/** What belongs to the character before it. */
const mark = 3
/** What can't be seen, and is no part of a term: joiners, soft hyphens, marks of direction, variation selectors. */
const invisible = 4
/** Part of a word between two letters. */
const apostrophe = 5

/** Flags beside the kind: the character stays as it is when text is normalized, or becomes several words. */
const stable = 8
const compound = 16
const kindMask = 7

const isLetter = /^[\p{L}\p{N}]$/u
const isMark = /^[\p{M}\u1160-\u11ff\ua960-\ua97f\ud7b0-\ud7ff\uff9e\uff9f]$/u
const isInvisible = /^(?!\u200b)[\p{Default_Ignorable_Code_Point}\p{Cf}]$/u
/** With Korean, whose words carry their particles without a space. */
const unspacedScripts = "Han Hira Kana Bopo Yiii Hang Thai Laoo Khmr Mymr Tale Talu Lana Tavt Ahom"
const isUnspaced = new RegExp(`^[${unspacedScripts.split(" ").map((script) => `\\p{scx=${script}}`).join("")}]$`, "u")
/** Vowels of Kirat Rai: the only letters, but for Korean ones, that the letter before them is composed with. */
const composes = /^[\u{16d63}\u{16d67}-\u{16d6a}]$/u
const isWord = /^[\p{L}\p{N}\p{M}]*$/u

const classify = (code: number): number => {
  if (code >= 0xd800 && code < 0xe000) return separator
  const text = String.fromCodePoint(code)
  if (/^['\u2019\u02bc\uff07]$/.test(text)) return apostrophe
  if (isInvisible.test(text)) return invisible
  if (isMark.test(text)) return mark
  if (!isLetter.test(text)) return separator
  const normal = normalOf(text, true, false)
  return (isUnspaced.test(text) ? unspaced : letter) | (normal === text && !composes.test(text) ? stable : 0) |
    (isWord.test(normal) ? 0 : compound)
}

const blockBits = 8
const blocks: Array<Uint8Array | undefined> = []

const classOf = (code: number): number => {
  const block = blocks[code >> blockBits] ?? addBlock(code >> blockBits)
  return block[code & 0xff]!
}

const addBlock = (index: number): Uint8Array => {
  const block = new Uint8Array(1 << blockBits)
  for (let i = 0; i < block.length; i++) block[i] = classify((index << blockBits) + i)
  while (blocks.length <= index) blocks.push(undefined)
  blocks[index] = block
  return block
}

/** Whether somebody may ask for what a term begins with: not of text without spaces, whose terms are characters and pairs. */
export const hasBeginnings = (term: string): boolean => (classOf(term.codePointAt(0)!) & kindMask) !== unspaced

const widthOf = (code: number): number => code > 0xffff ? 2 : 1

// --- Analyzer --------------------------------------------------------------------------------------------------------

/** A term, and where it stands: UTF-16 units of the text. */
export interface Token {
  readonly term: string
  readonly start: number
  /** The unit after it. */
  readonly end: number
}

/** Hears of each token, and says whether it wants more. */
export type Visit = (term: string, start: number, end: number) => boolean

/** What a language adds. */
export interface Rules {
  /** The stem of a word in normal form. Never throws. */
  readonly stem: (word: string) => string
  readonly stopWords: ReadonlyArray<string>
  /** I and İ are the capitals of ı and i. */
  readonly isTurkic?: boolean
}

/** What a query asks for: words that are there, and the beginning of one. */
export interface Words {
  /** Each once, where it is last. */
  readonly terms: ReadonlyArray<string>
  /** The last word, not stemmed; undefined when it is a stop word, or of a script without spaces. */
  readonly last: string | undefined
}

/** Pure: equal texts have equal terms, in every engine that knows their characters. Made by `Languages.load`. */
export class Analyzer {
  /** The name of what it knows of words, undefined for nothing. */
  readonly language: string | undefined
  readonly #rules: Rules | undefined
  readonly #stopWords: ReadonlySet<string>
  /** Terms of words as they were written, empty for stop words. Emptied when full. */
  readonly #remembered = new Map<string, string>()

  constructor(language?: string, rules?: Rules) {
    this.language = language
    this.#rules = rules
    const stopWords = new Set<string>()
    for (const word of rules?.stopWords ?? []) {
      const normal = this.normal(word.replaceAll(invisibles, ""))
      stopWords.add(normal)
      // With "you're" also "re", and with "it's" "s": of "Anna's", which is no stop word as a whole, "anna" is left.
      const at = normal.indexOf("'")
      if (at > 0) stopWords.add(normal.slice(at + 1))
    }
    this.#stopWords = stopWords
  }

  /** Whether words are stemmed, so that what somebody has typed of one needn't be the beginning of its term. */
  get stems(): boolean {
    return this.#rules !== undefined
  }

  /** The terms of a document's text, in their order; those of one character and of two, where a script has no spaces. */
  terms(text: string): ReadonlyArray<Token> {
    const tokens: Array<Token> = []
    this.scan(text, (term, start, end) => tokens.push({ term, start, end }) > 0)
    return tokens
  }

  /** As {@link terms}, without a list of them, until `visit` has enough. */
  scan(text: string, visit: Visit): void {
    new Scan(this, text, visit, true).run()
  }

  /** The terms of a query, of which pairs of characters stand for text without spaces, and a character only if it is alone. */
  words(text: string): Words {
    const terms = new Set<string>()
    const scan = new Scan(this, text, (term) => {
      // The last word's is the last, even if it was there before.
      terms.delete(term)
      return terms.add(term).size > 0
    }, false)
    scan.run()
    const last = scan.last === undefined ? undefined : cut(this.normal(scan.last), termLengthMax)
    return { terms: Array.from(terms), last: last === undefined || this.#stopWords.has(last) ? undefined : last }
  }

  /** @internal */
  isStopWord(word: string): boolean {
    return this.#rules !== undefined && word.length <= termLengthMax && this.#stopWords.has(this.normal(word))
  }

  /** @internal */
  normal(raw: string): string {
    return normalOf(raw, this.#rules === undefined, this.#rules?.isTurkic === true)
  }

  /** The term of a word, empty for a stop word. @internal */
  termOf(raw: string, isNormal: boolean): string {
    if (isNormal && this.#rules === undefined) return cut(raw, termLengthMax)
    let term = this.#remembered.get(raw)
    if (term !== undefined) return term
    term = ownText(this.#stem(cut(isNormal ? raw : this.normal(raw), termLengthMax)))
    if (raw.length > termLengthMax) return term
    if (this.#remembered.size >= rememberedMax) this.#remembered.clear()
    this.#remembered.set(ownText(raw), term)
    return term
  }

  #stem(word: string): string {
    if (this.#rules === undefined) return word
    if (this.#stopWords.has(word)) return ""
    const stem = this.#rules.stem(word)
    return stem === "" ? word : stem
  }
}

/** One way through a text. */
class Scan {
  readonly #analyzer: Analyzer
  readonly #text: string
  readonly #visit: Visit
  readonly #isDocument: boolean
  #at = 0
  #wantsMore = true
  // The word being read.
  #isStable = true
  #hasInvisible = false
  #isCompound = false
  /** The last part of a word, as it is written; undefined behind a stop word of several parts, and text without spaces. */
  last: string | undefined

  constructor(analyzer: Analyzer, text: string, visit: Visit, isDocument: boolean) {
    this.#analyzer = analyzer
    this.#text = text
    this.#visit = visit
    this.#isDocument = isDocument
  }

  run(): void {
    while (this.#wantsMore && this.#at < this.#text.length) {
      const code = this.#text.codePointAt(this.#at)!
      const kind = classOf(code) & kindMask
      if (kind === letter) this.#word()
      else if (kind === unspaced) this.#characters()
      else this.#at += widthOf(code)
    }
  }

  #kindAt(at: number): number {
    return at < this.#text.length ? classOf(this.#text.codePointAt(at)!) & kindMask : separator
  }

  #word(): void {
    const text = this.#text
    this.#isStable = true
    this.#hasInvisible = false
    this.#isCompound = false
    const first = this.#at
    let start = first
    let end = first
    /** Starts and ends of the parts before the last apostrophe. */
    let parts: Array<number> | undefined
    let at = first
    while (at < text.length) {
      const code = text.codePointAt(at)!
      const found = classOf(code)
      const kind = found & kindMask
      const next = at + widthOf(code)
      if (kind === letter) {
        if ((found & stable) === 0) this.#isStable = false
        if ((found & compound) !== 0) this.#isCompound = true
        end = next
      } else if (kind === mark) {
        this.#isStable = false
        end = next
      } else if (kind === invisible) this.#hasInvisible = true
      else if (kind === apostrophe && this.#kindAt(next) === letter) {
        parts ??= []
        parts.push(start, end)
        start = next
      } else break
      at = next
    }
    this.#at = at
    if (parts !== undefined) {
      if (this.#analyzer.isStopWord(this.#written(first, end))) {
        this.last = undefined
        return
      }
      for (let i = 0; i < parts.length && this.#wantsMore; i += 2) this.#part(parts[i]!, parts[i + 1]!)
    }
    if (this.#wantsMore) this.#part(start, end)
  }

  #written(start: number, end: number): string {
    const written = cut(this.#text.slice(start, end), wordLengthMax)
    return this.#hasInvisible ? written.replaceAll(invisibles, "") : written
  }

  #part(start: number, end: number): void {
    const written = this.#written(start, end)
    this.last = written
    if (!this.#isCompound) return this.#tell(this.#analyzer.termOf(written, this.#isStable), start, end)
    for (const [word] of this.#analyzer.normal(written).matchAll(words)) {
      this.last = word
      this.#tell(this.#analyzer.termOf(word, true), start, end)
      if (!this.#wantsMore) return
    }
  }

  #tell(term: string, start: number, end: number): void {
    if (term !== "") this.#wantsMore = this.#visit(term, start, end)
  }

  /** Text of a script without spaces: characters with their marks, alone and in pairs. */
  #characters(): void {
    const text = this.#text
    this.last = undefined
    let before = ""
    let beforeStart = 0
    for (let count = 0; this.#wantsMore && this.#at < text.length; count++) {
      const start = this.#at
      const code = text.codePointAt(start)!
      const found = classOf(code)
      if ((found & kindMask) !== unspaced) return
      let at = start + widthOf(code)
      let end = at
      let isStable = (found & stable) !== 0
      for (;;) {
        const kind = this.#kindAt(at)
        if (kind !== mark && kind !== invisible) break
        at += widthOf(text.codePointAt(at)!)
        if (kind === mark) end = at
        isStable = false
      }
      this.#at = at
      const written = cut(text.slice(start, end), clusterLengthMax)
      let character = isStable ? written : this.#analyzer.normal(written.replaceAll(invisibles, ""))
      // Of one in brackets.
      if ((found & compound) !== 0) character = character.replaceAll(separators, "")
      const isAlone = count === 0 && this.#kindAt(at) !== unspaced
      if (this.#isDocument || isAlone) this.#tell(character, start, end)
      if (count > 0 && this.#wantsMore) this.#tell(before + character, beforeStart, end)
      before = character
      beforeStart = start
    }
  }
}
