/**
 * What full-text search knows of languages: how their words are stemmed, and which of them say nothing. Each is loaded when it is
 * first needed, by an import of its own, so that an application bundles those that it may ask for, and loads those that it uses.
 *
 * Stemmers are those of Snowball (Porter 2001) and their like, of `@orama/stemmers`; English is Porter's (1980), of `stemmer`, as
 * the former leaves "connection" apart from "connect". Stop words are those of `@orama/stopwords`.
 */
import { Analyzer, type Rules } from "./internal/analyzer.ts"

/** Languages whose words are stemmed. */
export type Language = keyof typeof rules

const of = async (
  stemming: Promise<{ readonly stemmer: (word: string) => string }>,
  stopping: Promise<{ readonly stopwords: ReadonlyArray<string> }>
): Promise<Rules> => {
  const [{ stemmer }, { stopwords }] = await Promise.all([stemming, stopping])
  return { stem: stemmer, stopWords: stopwords }
}

const rules = {
  arabic: () => of(import("@orama/stemmers/arabic"), import("@orama/stopwords/arabic")),
  armenian: () => of(import("@orama/stemmers/armenian"), import("@orama/stopwords/armenian")),
  bulgarian: () => of(import("@orama/stemmers/bulgarian"), import("@orama/stopwords/bulgarian")),
  danish: () => of(import("@orama/stemmers/danish"), import("@orama/stopwords/danish")),
  dutch: () => of(import("@orama/stemmers/dutch"), import("@orama/stopwords/dutch")),
  english: async () => {
    const { stem, stopWords } = await of(import("stemmer"), import("@orama/stopwords/english"))
    // The list has "an".
    return { stem, stopWords: [...stopWords, "a"] }
  },
  finnish: () => of(import("@orama/stemmers/finnish"), import("@orama/stopwords/finnish")),
  french: () => of(import("@orama/stemmers/french"), import("@orama/stopwords/french")),
  german: () => of(import("@orama/stemmers/german"), import("@orama/stopwords/german")),
  greek: () => of(import("@orama/stemmers/greek"), import("@orama/stopwords/greek")),
  hindi: () => of(import("@orama/stemmers/indian"), import("@orama/stopwords/indian")),
  hungarian: () => of(import("@orama/stemmers/hungarian"), import("@orama/stopwords/hungarian")),
  indonesian: () => of(import("@orama/stemmers/indonesian"), import("@orama/stopwords/indonesian")),
  irish: () => of(import("@orama/stemmers/irish"), import("@orama/stopwords/irish")),
  italian: () => of(import("@orama/stemmers/italian"), import("@orama/stopwords/italian")),
  lithuanian: () => of(import("@orama/stemmers/lithuanian"), import("@orama/stopwords/lithuanian")),
  nepali: () => of(import("@orama/stemmers/nepali"), import("@orama/stopwords/nepali")),
  norwegian: () => of(import("@orama/stemmers/norwegian"), import("@orama/stopwords/norwegian")),
  portuguese: () => of(import("@orama/stemmers/portuguese"), import("@orama/stopwords/portuguese")),
  romanian: () => of(import("@orama/stemmers/romanian"), import("@orama/stopwords/romanian")),
  russian: () => of(import("@orama/stemmers/russian"), import("@orama/stopwords/russian")),
  sanskrit: () => of(import("@orama/stemmers/sanskrit"), import("@orama/stopwords/sanskrit")),
  serbian: () => of(import("@orama/stemmers/serbian"), import("@orama/stopwords/serbian")),
  spanish: () => of(import("@orama/stemmers/spanish"), import("@orama/stopwords/spanish")),
  swedish: () => of(import("@orama/stemmers/swedish"), import("@orama/stopwords/swedish")),
  tamil: () => of(import("@orama/stemmers/tamil"), import("@orama/stopwords/tamil")),
  turkish: async () => ({
    ...await of(import("@orama/stemmers/turkish"), import("@orama/stopwords/turkish")),
    isTurkic: true
  }),
  ukrainian: () => of(import("@orama/stemmers/ukrainian"), import("@orama/stopwords/ukrainian"))
} satisfies { readonly [language: string]: () => Promise<Rules> }

/** All of them, by name. */
export const languages = Object.keys(rules) as ReadonlyArray<Language>

export const isLanguage = (name: string): name is Language => Object.hasOwn(rules, name)

/**
 * What makes terms of text, synchronously from then on. Without a language words are neither stemmed nor left out, and accents
 * make no difference.
 *
 * Rejects with the engine's own error when the language's module can't be loaded: in a page that may be the network's, and passes.
 */
export const load = async (language?: Language): Promise<Analyzer> =>
  language === undefined ? new Analyzer() : new Analyzer(language, await rules[language]())
