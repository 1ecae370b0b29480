import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as FullText from "../src/FullText.ts"
import { QueryInvalid, QueryTooExpensive } from "../src/GridError.ts"
import * as Languages from "../src/Languages.ts"

const plain = await Languages.load()
const english = await Languages.load("english")
const german = await Languages.load("german")

const termsOf = (text: string, analyzer: FullText.Analyzer = plain): ReadonlyArray<string> =>
  analyzer.terms(text).map(({ term }) => term)

const keysOf = (hits: ReadonlyArray<FullText.Hit>): ReadonlyArray<string> => hits.map(({ key }) => key)

/** An index of one field, of texts by their keys. */
const indexOf = (texts: { readonly [key: string]: unknown }, analyzer: FullText.Analyzer = plain) => {
  const index = new FullText.FullTextIndex(
    { fields: { text: 1 }, language: analyzer.language as Languages.Language },
    analyzer
  )
  for (const [key, text] of Object.entries(texts)) index.set(key, { text })
  return index
}

// --- Documents of few words, so that they have the same ones -----------------------------------------------------------

const words = ["a", "b", "ab", "abc", "ba", "c"]

interface Doc {
  readonly title: string
  readonly body: ReadonlyArray<string>
}

const wordy = (lengthMax: number): fc.Arbitrary<string> =>
  fc.array(fc.constantFrom(...words), { maxLength: lengthMax }).map((list) => list.join(" "))

const anyDoc: fc.Arbitrary<Doc> = fc.record({ title: wordy(3), body: fc.array(wordy(4), { maxLength: 2 }) })

const anyKey = fc.constantFrom("k0", "k1", "k2", "k3", "k4", "\u{1f600}", "\uffee")

const history = fc.array(fc.tuple(anyKey, fc.option(anyDoc, { nil: undefined })), { maxLength: 24 })

type History = ReadonlyArray<readonly [key: string, doc: Doc | undefined]>

const boosts = { title: 2, body: 0.5 }

const declared: FullText.Options = { fields: boosts, k1: 1.7, b: 0.6 }

const indexAfter = (changes: History, options: FullText.Options = declared) => {
  const index = new FullText.FullTextIndex(options, plain)
  for (const [changed, value] of changes) {
    if (value === undefined) index.remove(changed)
    else index.set(changed, value)
  }
  return index
}

const docsAfter = (changes: History): ReadonlyMap<string, Doc> => {
  const docs = new Map<string, Doc>()
  for (const [changed, value] of changes) {
    if (value === undefined) docs.delete(changed)
    else docs.set(changed, value)
  }
  return docs
}

const asked = fc.record({
  text: wordy(4),
  prefix: fc.boolean(),
  fields: fc.constantFrom(undefined, ["title"], ["body"], ["body", "title"])
}).map(({ fields, prefix, text }) => ({ text, prefix, fields: fields as ReadonlyArray<"title" | "body"> | undefined }))

// --- The formula, read from the paper, over all documents --------------------------------------------------------------

const split = (...texts: ReadonlyArray<string>): ReadonlyArray<string> =>
  texts.join(" ").split(" ").filter((word) => word)

const inField = (value: Doc, field: "title" | "body") => field === "title" ? split(value.title) : split(...value.body)

const byCodePoints = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b))

const bruteForce = (docs: ReadonlyMap<string, Doc>, query: { text: string; prefix: boolean; fields: unknown }) => {
  const fields = (["title", "body"] as const).filter((name) =>
    query.fields === undefined || (query.fields as ReadonlyArray<string>).includes(name)
  )
  const whole = Array.from(new Set(split(query.text)))
  const last = whole.length > 0 ? split(query.text).at(-1)! : undefined
  const begun = query.prefix && last !== undefined
    ? words.filter((word) => word.startsWith(last) && !whole.includes(word))
    : []
  const scores = new Map<string, number>()
  for (const [weight, terms] of [[1, whole], [0.5, begun]] as const) {
    for (const term of terms) {
      for (const field of fields) {
        const lists = Array.from(docs.values(), (value) => inField(value, field)).filter((list) => list.length > 0)
        const average = lists.reduce((sum, list) => sum + list.length, 0) / lists.length
        const having = lists.filter((list) => list.includes(term)).length
        const idf = Math.log(1 + (lists.length - having + 0.5) / (having + 0.5))
        for (const [name, value] of docs) {
          const list = inField(value, field)
          const tf = list.filter((word) => word === term).length
          if (tf === 0) continue
          const norm = 1.7 * (1 - 0.6 + 0.6 * (list.length / average))
          const score = weight * boosts[field] * idf * (tf * (1.7 + 1) / (tf + norm))
          scores.set(name, (scores.get(name) ?? 0) + score)
        }
      }
    }
  }
  return scores
}

describe("A search", () => {
  it.prop(
    "finds what the formula finds that is worked out over all documents, with its scores",
    [history, asked],
    ([changes, query]) => {
      const expected = bruteForce(docsAfter(changes), query)
      const hits = indexAfter(changes).search(query.text, query)
      assert.sameMembers(Array.from(keysOf(hits)), Array.from(expected.keys()))
      for (const { key, score } of hits) assert.closeTo(score / expected.get(key)!, 1, 1e-9)
    },
    { fastCheck: { numRuns: 1_000 } }
  )

  it.prop(
    "after any history answers as one in an index built anew, bit for bit",
    [history, asked, fc.array(anyKey)],
    ([changes, query, order]) => {
      const docs = docsAfter(changes)
      const index = indexAfter(changes)
      const anew = new FullText.FullTextIndex(declared, plain)
      for (const each of new Set([...order, ...docs.keys()])) if (docs.has(each)) anew.set(each, docs.get(each))
      assert.deepStrictEqual(index.search(query.text, query), anew.search(query.text, query))
      assert.deepStrictEqual([index.size, index.termCount], [anew.size, anew.termCount])
      for (const each of docs.keys()) {
        assert.deepStrictEqual(index.explain(query.text, each), anew.explain(query.text, each))
      }
    },
    { fastCheck: { numRuns: 1_000 } }
  )

  it("answers alike while the lists of terms grow and shrink", () => {
    const textOf = (n: number) =>
      [`all ${n % 2 === 0 ? "even" : "odd"} mod${n % 7}`, `n${n}`].join(" ").repeat(1 + n % 3)
    const index = indexOf({})
    const there: { [key: string]: string } = {}
    for (let step = 0; step < 1_500; step++) {
      // Each number comes, is replaced, and goes, in an order that no list has.
      const n = step * 211 % 500
      if (step < 1_000) index.set(`k${n}`, { text: there[`k${n}`] = textOf(n + (step < 500 ? 0 : 1)) })
      else {
        index.remove(`k${n}`)
        delete there[`k${n}`]
      }
      if (step % 100 !== 99) continue
      assert.deepStrictEqual(
        index.search("all odd mod3 n7"),
        indexOf(there).search("all odd mod3 n7"),
        `after ${step} steps`
      )
    }
    assert.deepStrictEqual([index.size, index.termCount], [0, 0])
  })

  it.prop(
    "orders by score, then by key in the order of code points",
    [history, asked],
    ([changes, query]) => {
      const hits = indexAfter(changes).search(query.text, query)
      const sorted = Array.from(hits).sort((a, b) => b.score - a.score || byCodePoints(a.key, b.key))
      assert.deepStrictEqual(Array.from(hits), sorted)
    }
  )

  it.prop(
    "with a limit has the first of all hits, and of those that are accepted",
    [history, asked, fc.nat(6), fc.array(anyKey)],
    ([changes, query, limit, accepted]) => {
      const index = indexAfter(changes)
      const all = index.search(query.text, query)
      assert.deepStrictEqual(index.search(query.text, { ...query, limit }), all.slice(0, limit))
      const accept = (each: string) => accepted.includes(each)
      const some = all.filter((hit) => accept(hit.key))
      assert.deepStrictEqual(index.search(query.text, { ...query, accept }), some)
      assert.deepStrictEqual(index.search(query.text, { ...query, accept, limit }), some.slice(0, limit))
    }
  )

  it("has the best of many, of equal ones the first by key, whatever the order in which they came", () => {
    const keys = ["a", "aa", "b", "\uffee", "\u{1f600}", ...Array.from({ length: 35 }, (_, n) => `k${100 + n}`)]
    const index = indexOf({})
    keys.forEach((_, n) => {
      const each = keys[n * 17 % keys.length]!
      index.set(each, { text: "milk ".repeat(1 + each.charCodeAt(each.length - 1) % 5) + "bread" })
    })
    const all = index.search("milk")
    const sorted = Array.from(all).sort((x, y) => y.score - x.score || byCodePoints(x.key, y.key))
    assert.strictEqual(all.length, keys.length)
    assert.deepStrictEqual(all, sorted)
    for (let limit = 0; limit <= keys.length; limit++) {
      assert.deepStrictEqual(index.search("milk", { limit }), sorted.slice(0, limit))
    }
  })

  it("asks of no document whether it is accepted that the limit leaves out anyway", () => {
    const index = indexOf(Object.fromEntries(Array.from({ length: 50 }, (_, n) => [`k${100 + n}`, "milk"])))
    const heard: Array<string> = []
    index.search("milk", { limit: 1, accept: (each) => heard.push(each) > 0 })
    assert.deepStrictEqual(heard, ["k100"])
  })

  it("leaves nothing behind when accept throws, and isn't begun within another", () => {
    const index = indexOf({ one: "milk", two: "milk milk" })
    const before = index.search("milk")
    assert.throws(() =>
      index.search("milk", {
        accept: () => {
          throw new Error("no")
        }
      }), "no")
    assert.throws(() => index.search("milk", { accept: () => index.search("milk").length > 0 }), /accept/)
    assert.deepStrictEqual(index.search("milk"), before)
  })

  it.prop(
    "finds exactly the documents that match",
    [history, asked],
    ([changes, query]) => {
      const index = indexAfter(changes)
      const parsed = index.parse(query.text, query)
      const hits = keysOf(index.search(parsed))
      for (const each of ["k0", "k1", "k2", "k3", "k4", "\u{1f600}", "\uffee", "never"]) {
        assert.strictEqual(index.matches(parsed, each), hits.includes(each), each)
      }
    },
    { fastCheck: { numRuns: 500 } }
  )

  it.prop("is explained by parts whose sum is the score", [history, asked], ([changes, query]) => {
    const index = indexAfter(changes)
    const parsed = index.parse(query.text, query)
    const hits = index.search(parsed)
    for (const hit of hits) {
      const { key, parts, score } = index.explain(parsed, hit.key)!
      assert.deepStrictEqual({ key, score }, hit)
      assert.strictEqual(parts.reduce((sum, part) => sum + part.contribution, 0), score)
      for (const part of parts) {
        const { averageLength, boost, inverseDocumentFrequency: idf, length, termFrequency: tf, weight } = part
        const norm = 1.7 * (1 - 0.6 + 0.6 * length / averageLength)
        assert.closeTo(part.contribution, weight * boost * idf * tf * 2.7 / (tf + norm), 1e-12)
        const { documentFrequency: df, documents } = part
        assert.closeTo(idf, Math.log(1 + (documents - df + 0.5) / (df + 0.5)), 1e-12)
      }
    }
    for (const each of docsAfter(changes).keys()) {
      if (!keysOf(hits).includes(each)) assert.isUndefined(index.explain(parsed, each))
    }
  })

  it.prop(
    "among some documents is one in an index that has no others, bit for bit",
    [history, asked, fc.array(anyKey), history],
    ([changes, query, visible, later]) => {
      const index = indexAfter(changes)
      const among = (each: string) => visible.includes(each)
      const compare = (docs: ReadonlyMap<string, Doc>) => {
        const alone = new FullText.FullTextIndex(declared, plain)
        for (const [each, value] of docs) if (among(each)) alone.set(each, value)
        assert.deepStrictEqual(index.search(query.text, { ...query, among }), alone.search(query.text, query))
        const parsed = index.parse(query.text, query)
        for (const each of docs.keys()) {
          assert.deepStrictEqual(index.explain(parsed, each, { among }), alone.explain(parsed, each))
          assert.deepStrictEqual(index.matches(parsed, each, { among }), alone.matches(parsed, each))
        }
      }
      compare(docsAfter(changes))
      for (const [changed, value] of later) {
        if (value === undefined) index.remove(changed)
        else index.set(changed, value)
      }
      compare(docsAfter([...changes, ...later]))
    },
    { fastCheck: { numRuns: 500 } }
  )

  it("among some documents takes the beginning of a word for their terms only", () => {
    const index = indexOf({ mine: "connector", yours: "connect connection" }, english)
    const among = (each: string) => each === "mine"
    assert.deepStrictEqual(keysOf(index.search("connecto", { among })), ["mine"])
    const others = indexOf({ mine: "conn", yours: "connecti" }, english)
    assert.deepStrictEqual(keysOf(others.search("connecti", { among })), ["mine"])
    assert.deepStrictEqual(keysOf(others.search("connecti")), ["yours"])
    const parsed = others.parse("connecti")
    for (const who of [undefined, among, undefined]) {
      assert.deepStrictEqual(keysOf(others.search(parsed, { among: who })), [who === undefined ? "yours" : "mine"])
    }
    const { ranges } = others.highlights("connecti", { text: "conn" }, { among })[0]!
    assert.deepStrictEqual(ranges, [[0, 4]])
    assert.deepStrictEqual(others.highlights("connecti", { text: "conn" }), [])
  })

  it("asks which documents are there once, until the index changes", () => {
    const index = indexOf({ one: "milk", two: "milk" })
    let asks = 0
    const among = (each: string) => ++asks > 0 && each !== "two"
    for (let i = 0; i < 3; i++) assert.deepStrictEqual(keysOf(index.search("milk", { among })), ["one"])
    assert.strictEqual(asks, 2)
    index.set("three", { text: "milk" })
    assert.deepStrictEqual(keysOf(index.search("milk", { among })), ["one", "three"])
    assert.strictEqual(asks, 5)
  })

  it("parses a query once for many changes", () => {
    const index = indexOf({ one: "milk" })
    const parsed = index.parse("mil")
    assert.deepStrictEqual(keysOf(index.search(parsed)), ["one"])
    index.set("two", { text: "mill" })
    assert.sameMembers(Array.from(keysOf(index.search(parsed))), ["one", "two"])
    assert.isTrue(index.matches(parsed, "two"))
    index.remove("one")
    assert.deepStrictEqual(keysOf(index.search(parsed)), ["two"])
  })

  it("ranks a match in a field that counts more above one in another, and searches the fields asked for", () => {
    const index = new FullText.FullTextIndex({ fields: { title: 3, "meta.note": 1 } }, plain)
    index.set("note", { title: "bread", meta: { note: "milk" } })
    index.set("title", { title: "milk", meta: { note: "bread" } })
    assert.deepStrictEqual(keysOf(index.search("milk")), ["title", "note"])
    assert.deepStrictEqual(keysOf(index.search("milk", { fields: ["meta.note"] })), ["note"])
    assert.deepStrictEqual(keysOf(index.search("milk", { fields: [] })), [])
    const [first, second] = index.search("milk")
    assert.closeTo(first!.score / second!.score, 3, 1e-9)
  })

  it("finds no more in what is neither text nor a list of texts", () => {
    const values = [undefined, null, 7, true, { milk: "milk" }, new Date(0), new Uint8Array(2), [1, ["milk"], null]]
    const index = new FullText.FullTextIndex({ fields: { text: 1 } }, plain)
    values.forEach((value, n) => index.set(`k${n}`, { text: value }))
    index.set("none", undefined)
    index.set("list", { text: ["bread", 7, "milk"] })
    assert.deepStrictEqual(keysOf(index.search("milk 1 7")), ["list"])
    assert.strictEqual(index.size, values.length + 2)
  })

  it("finds nothing for nothing", () => {
    const index = indexOf({ one: "the milk and of" }, english)
    for (const query of ["", "  ", "!?", "the", "the and of", "😀", "\u0301", "\u200d", "'"]) {
      assert.deepStrictEqual(index.search(query), [], JSON.stringify(query))
    }
    assert.deepStrictEqual(keysOf(index.search("the milk")), ["one"])
  })

  it("takes a document's parameters k1 and b as they are declared", () => {
    const scores = (options: { readonly k1?: number; readonly b?: number }) => {
      const index = new FullText.FullTextIndex({ fields: { text: 1 }, ...options }, plain)
      index.set("long", { text: "milk milk bread bread bread bread" })
      index.set("short", { text: "milk" })
      const hits = index.search("milk")
      return hits.find(({ key }) => key === "long")!.score / hits.find(({ key }) => key === "short")!.score
    }
    const ratio = (k1: number, b: number) =>
      2 / (2 + k1 * (1 - b + b * 6 / 3.5)) / (1 / (1 + k1 * (1 - b + b * 1 / 3.5)))
    assert.closeTo(scores({}), ratio(1.2, 0.75), 1e-12)
    assert.closeTo(scores({ k1: 0 }), 1, 1e-12)
    assert.closeTo(scores({ b: 0 }), ratio(1.2, 0), 1e-12)
    assert.closeTo(scores({ k1: 2, b: 1 }), ratio(2, 1), 1e-12)
  })
})

describe("The beginning of a word", () => {
  it("is what the last word is taken for, unless it mustn't", () => {
    const index = indexOf({ milk: "milk", mill: "mill", mil: "mil" })
    assert.deepStrictEqual(keysOf(index.search("mil")), ["mil", "milk", "mill"])
    assert.deepStrictEqual(keysOf(index.search("mil", { prefix: false })), ["mil"])
    assert.deepStrictEqual(keysOf(index.search("mil bread")), ["mil"])
    assert.deepStrictEqual(keysOf(index.search("bread mil ")), ["mil", "milk", "mill"])
  })

  it("counts half of the word itself", () => {
    const index = indexOf({ whole: "milk", longer: "milkshake" })
    const [whole, longer] = index.search("milk")
    assert.deepStrictEqual([whole!.key, longer!.key], ["whole", "longer"])
    assert.closeTo(longer!.score / whole!.score, FullText.prefixWeight, 1e-12)
  })

  it("stands for the most frequent terms, of equal ones for the first, and no more than that", () => {
    const index = indexOf({})
    const nameOf = (n: number) => `x${100 + n}`
    for (let n = 0; n < 80; n++) index.set(`once${n}`, { text: nameOf(n) })
    for (let n = 70; n < 80; n++) index.set(`twice${n}`, { text: nameOf(n) })
    const found = new Set(index.search("x").map(({ key }) => key.replace(/^\D+/, "")))
    assert.strictEqual(found.size, FullText.prefixTermsMax)
    const expected = [...Array.from({ length: 54 }, (_, n) => n), ...Array.from({ length: 10 }, (_, n) => 70 + n)]
    assert.sameMembers(Array.from(found), expected.map(String))
    const parsed = index.parse("x")
    assert.isFalse(index.matches(parsed, "once54"))
    assert.isTrue(index.matches(parsed, "once53"))
  })

  it("is found of words that are stemmed, whatever has been typed of them", () => {
    const index = indexOf({ one: "the connections of cities", two: "a general" }, english)
    for (
      const typed of ["con", "connect", "connecti", "connectio", "connection", "connecting", "citi", "citie", "cities"]
    ) {
      assert.deepStrictEqual(keysOf(index.search(typed)), ["one"], typed)
    }
    assert.deepStrictEqual(keysOf(index.search("connectx", { prefix: false })), [])
    assert.isTrue(index.matches("connecti", "one"))
    assert.isFalse(index.matches("connecti", "two"))
  })

  it("is of the last word, even if the query has its term before", () => {
    const index = indexOf({ one: "city", two: "cit milk" }, english)
    assert.deepStrictEqual(index.parse("city milk cities").terms, ["milk", "citi"])
    assert.notInclude(keysOf(index.search("cities bread cities")), "two")
  })

  it("is never that of a stop word", () => {
    const index = indexOf({ one: "theatre" }, english)
    assert.deepStrictEqual(keysOf(index.search("the")), [])
    assert.deepStrictEqual(keysOf(index.search("thea")), ["one"])
  })
})

describe("Highlights", () => {
  it.prop(
    "cover exactly the words whose term the query has, or that begin so",
    [anyDoc, asked],
    ([value, query]) => {
      const index = new FullText.FullTextIndex(declared, plain)
      const sought = split(query.text)
      const isSought = (word: string) =>
        sought.includes(word) || (query.prefix && sought.length > 0 && word.startsWith(sought.at(-1)!))
      const ranges = (text: string) =>
        Array.from(text.matchAll(/[a-c]+/g)).filter(([word]) => isSought(word))
          .map((match) => [match.index, match.index + match[0].length] as const)
      const texts = [
        { field: "title", element: undefined, ranges: ranges(value.title) },
        ...value.body.map((each, element) => ({ field: "body", element, ranges: ranges(each) }))
      ]
      assert.deepStrictEqual(
        index.highlights(index.parse(query.text, query), value),
        texts.filter((each) =>
          each.ranges.length > 0 && (query.fields ?? ["title", "body"]).includes(each.field as "title")
        )
      )
    },
    { fastCheck: { numRuns: 500 } }
  )

  const marked = (query: string, text: string, analyzer: FullText.Analyzer = plain): string => {
    let result = ""
    let at = 0
    for (const [start, end] of indexOf({}, analyzer).highlights(query, { text })[0]?.ranges ?? []) {
      result += `${text.slice(at, start)}[${text.slice(start, end)}]`
      at = end
    }
    return result + text.slice(at)
  }

  it("cover words that were stemmed, folded, or taken apart, as they are written", () => {
    assert.strictEqual(marked("city", "Many CITIES, no city’s", english), "Many [CITIES], no [city]’s")
    assert.strictEqual(marked("cafe", "Das Cafe\u0301 und Café"), "Das [Cafe\u0301] und [Café]")
    assert.strictEqual(marked("strasse", "Große STRASSE, kleine Straße"), "Große [STRASSE], kleine [Straße]")
    assert.strictEqual(marked("soft", "a so\u00adft \u{1f600} soft"), "a [so\u00adft] \u{1f600} [soft]")
    assert.strictEqual(marked("東京", "私は東京都に住む"), "私は[東京]都に住む")
    assert.strictEqual(marked("東京都", "私は東京都に住む"), "私は[東京都]に住む")
    assert.strictEqual(marked("都", "私は東京都に住む"), "私は東京[都]に住む")
    assert.strictEqual(marked("fin", "ﬁne"), "[ﬁne]")
    assert.strictEqual(marked("الله", "ﷺ محمد"), "[ﷺ] محمد")
  })
})

describe("Terms", () => {
  it("are words in small letters, whatever parts them", () => {
    assert.deepStrictEqual(termsOf("Hello, WORLD-wide web_2.0 (beta)!"), [
      "hello",
      "world",
      "wide",
      "web",
      "2",
      "0",
      "beta"
    ])
    assert.deepStrictEqual(termsOf(" \n\t"), [])
    assert.deepStrictEqual(termsOf("O'Brien’s 'rock'n'roll'"), ["o", "brien", "s", "rock", "n", "roll"])
  })

  it("are one for all ways to write a letter", () => {
    const alike = (...texts: ReadonlyArray<string>) => {
      for (const analyzer of [plain, english]) {
        for (const each of texts) assert.deepStrictEqual(termsOf(each, analyzer), termsOf(texts[0]!, analyzer), each)
      }
    }
    alike("İstanbul", "I\u0307stanbul", "istanbul", "ISTANBUL")
    alike("straße", "STRASSE", "STRAẞE", "strasse")
    alike("\u00e9tude", "e\u0301tude", "E\u0301TUDE")
    alike("ΟΔΟΣ", "οδος", "οδοσ")
    alike("ﬁle", "file", "ＦＩＬＥ", "𝐟𝐢𝐥𝐞")
    alike("ガス", "ｶﾞｽ", "カ\u3099ス")
    alike("㈠", "一")
    alike("\u{16d68}", "\u{16d67}\u{16d67}")
    alike("한국", "\u1112\u1161\u11ab\u1100\u116e\u11a8")
    alike("co\u00adoperate", "cooperate", "co\u200doperate", "co\ufe0foperate", "co\u2060operate")
    alike("\u212bngstrom", "\u00e5ngstrom")
  })

  it("differ by accents only where a language says so", async () => {
    assert.deepStrictEqual(termsOf("Crème BRÛLÉE ёлка йод λόγος"), ["creme", "brulee", "елка", "иод", "λογοσ"])
    assert.deepStrictEqual(termsOf("שָׁלוֹם كِتَاب كتـــاب"), ["שלום", "كتاب", "كتاب"])
    const swedish = await Languages.load("swedish")
    assert.notDeepEqual(termsOf("får", swedish), termsOf("far", swedish))
    assert.deepStrictEqual(termsOf("Häuser", german), termsOf("hauser", german))
  })

  it("keep the marks that make a syllable", () => {
    assert.deepStrictEqual(termsOf("हिन्दी में"), ["हिन्दी", "में"])
    assert.deepStrictEqual(termsOf("தமிழ்"), ["தமிழ்"])
    assert.deepStrictEqual(termsOf("क\u094dष क्\u200dष"), ["क्ष", "क्ष"])
  })

  it("are characters and pairs of them, where a script has no spaces", () => {
    assert.deepStrictEqual(termsOf("東京都"), ["東", "京", "東京", "都", "京都"])
    assert.deepStrictEqual(termsOf("2024年 ok"), ["2024", "年", "ok"])
    assert.deepStrictEqual(termsOf("ที่นี่"), ["ที่", "นี่", "ที่นี่"])
    assert.deepStrictEqual(termsOf("𠮷野"), ["𠮷", "野", "𠮷野"])
    assert.deepStrictEqual(plain.words("東京都 x 水"), { terms: ["東京", "京都", "x", "水"], last: undefined })
    const index = indexOf({ tokyo: "東京都", kyoto: "京都", seoul: "서울에서 왔다" })
    assert.deepStrictEqual(keysOf(index.search("東京")), ["tokyo"])
    assert.deepStrictEqual(keysOf(index.search("京")), ["kyoto", "tokyo"])
    assert.deepStrictEqual(keysOf(index.search("서울")), ["seoul"])
    assert.deepStrictEqual(termsOf("ไทย\u200bไทย"), ["ไ", "ท", "ไท", "ย", "ทย", "ไ", "ท", "ไท", "ย", "ทย"])
  })

  it("are none of emoji, lone marks and lone surrogates", () => {
    assert.deepStrictEqual(termsOf("❤️ 👩‍👩‍👧 \u0301 \ud83d x\udc00y \u202eabc"), ["x", "y", "abc"])
    assert.deepStrictEqual(termsOf("1\ufe0f\u20e3"), termsOf("1\u20e3"))
  })

  const anyText = fc.string({ unit: "binary", maxLength: 12 })
  const markedText = fc.stringOf(
    fc.constantFrom(
      ..."aβéıİßςſ",
      "\u0301",
      "\u0323",
      "\u0307",
      "\u00ad",
      "'",
      " ",
      "漢",
      "ｶ",
      "ﾞ",
      "ﷺ",
      "ﬁ",
      "ก",
      "ั",
      "각",
      "\u1100",
      "\u1161",
      "\u11a8",
      "½",
      "ŉ"
    ),
    { maxLength: 10 }
  )

  it.prop(
    "are the same of text that is composed and decomposed",
    [fc.oneof(anyText, markedText)],
    ([given]) => {
      for (const analyzer of [plain, german]) {
        assert.deepStrictEqual(termsOf(given.normalize("NFD"), analyzer), termsOf(given.normalize("NFC"), analyzer))
      }
    },
    { fastCheck: { numRuns: 2_000 } }
  )

  it.prop(
    "are found again in the text that they stand for",
    [fc.oneof(anyText, markedText)],
    ([given]) => {
      let before = 0
      for (const { end, start, term } of plain.terms(given)) {
        assert.isTrue(start < end && end <= given.length)
        assert.isAtMost(term.length, FullText.termLengthMax)
        assert.include(termsOf(given.slice(start, end)), term)
        assert.isAtLeast(end, before)
        before = end
      }
    },
    { fastCheck: { numRuns: 2_000 } }
  )

  it.prop(
    "find their own document, in what they are shown in",
    [fc.oneof(anyText, markedText)],
    ([given]) => {
      const index = indexOf({ one: given })
      assert.deepStrictEqual(keysOf(index.search(given)), termsOf(given).length > 0 ? ["one"] : [])
      assert.strictEqual(index.highlights(given, { text: given }).length > 0, termsOf(given).length > 0)
    },
    { fastCheck: { numRuns: 1_000 } }
  )

  it("are cut where they are long, and never in the middle of a character", () => {
    const long = "x".repeat(FullText.termLengthMax)
    assert.deepStrictEqual(termsOf(long + "yz"), [long])
    assert.deepStrictEqual(termsOf(long.slice(1) + "𝒜".repeat(3)), [long.slice(1) + "a"])
    assert.deepStrictEqual(termsOf(long.slice(1) + "𐐨𐐨"), [long.slice(1)])
    assert.deepStrictEqual(keysOf(indexOf({ one: long + "y" }).search(long + "z")), ["one"])
  })
})

describe("A hostile document", () => {
  const termCountOf = (text: string, analyzer: FullText.Analyzer = plain) => indexOf({ one: text }, analyzer).termCount

  it("is a bounded number of terms, the first", () => {
    const index = indexOf({
      one: Array.from({ length: FullText.documentTermsMax + 10 }, (_, n) => n.toString(36)).join(" ")
    })
    assert.strictEqual(index.termCount, FullText.documentTermsMax)
    const last = (FullText.documentTermsMax - 1).toString(36)
    assert.deepStrictEqual(keysOf(index.search(last, { prefix: false })), ["one"])
    assert.deepStrictEqual(index.search(FullText.documentTermsMax.toString(36), { prefix: false }), [])
    const same = indexOf({ one: "x ".repeat(FullText.documentTermsMax + 10), two: "x" })
    assert.strictEqual(same.explain("x", "one")?.parts[0]?.termFrequency, FullText.documentTermsMax)
  })

  it("of marks without end has words of bounded work", () => {
    assert.deepStrictEqual(termsOf("a" + "\u0315\u0300".repeat(100_000) + "b"), ["a"])
    assert.deepStrictEqual(termsOf("漢" + "\u0315\u0300".repeat(100_000) + "字").length, 3)
    assert.isAtMost(termsOf("ﷺ".repeat(50_000)).length, 4 * 256)
    assert.isAtMost(termsOf("ก" + "ั".repeat(50_000))[0]!.length, 16)
    assert.strictEqual(termCountOf("a" + "\u200d".repeat(100_000) + "b"), 1)
    assert.strictEqual(termCountOf("b'".repeat(100_000), english), 1)
  })

  it("may consist of anything", () => {
    const all = Array.from({ length: 0x3000 }, (_, n) => String.fromCodePoint(n * 7 % 0xd800)).join("")
    for (const analyzer of [plain, english, german]) {
      const index = indexOf({ one: all }, analyzer)
      assert.isAbove(index.termCount, 1_000)
      index.remove("one")
      assert.strictEqual(index.termCount, 0)
    }
  })
})

describe("A hostile query", () => {
  const index = indexOf({ one: "milk" })

  const failure = (run: () => unknown): unknown => {
    try {
      run()
    } catch (fault) {
      return fault
    }
    return assert.fail("it was taken")
  }

  it("is refused when it is too long, or has too many terms", () => {
    const long = failure(() => index.search("x".repeat(FullText.queryLengthMax + 1)))
    assert.instanceOf(long, QueryTooExpensive)
    assert.include(long.message, "1025 characters, 1024 are allowed")
    assert.deepStrictEqual(index.search("x".repeat(FullText.queryLengthMax)), [])
    const many = (count: number) => Array.from({ length: count }, (_, n) => `w${n}`).join(" ")
    assert.instanceOf(failure(() => index.search(many(FullText.queryTermsMax + 1))), QueryTooExpensive)
    assert.deepStrictEqual(index.search(many(FullText.queryTermsMax)), [])
    assert.deepStrictEqual(index.search("milk ".repeat(200)).length, 1)
  })

  it("is refused with what it could ask for instead", () => {
    const unknown = failure(() => index.search("milk", { fields: ["title"] }))
    assert.instanceOf(unknown, QueryInvalid)
    assert.include(unknown.message, "\"title\" is not searched: declare it with the map, or take one of \"text\"")
    for (const limit of [-1, 0.5, NaN]) assert.instanceOf(failure(() => index.search("milk", { limit })), QueryInvalid)
  })

  it("finds nothing, or the same as without what can't be read", () => {
    assert.deepStrictEqual(keysOf(index.search("\ud800milk\udfff \u0000")), ["one"])
    assert.deepStrictEqual(index.search("__proto__ constructor"), [])
  })
})

describe("Languages", () => {
  it("know what a word's forms have in common, and which words say nothing", async () => {
    const common = async (language: Languages.Language, form: string, other: string, stop: string) => {
      const analyzer = await Languages.load(language)
      const index = indexOf({ one: `${form} ${stop}`, two: "xyz" }, analyzer)
      assert.deepStrictEqual(keysOf(index.search(other, { prefix: false })), ["one"], language)
      assert.deepStrictEqual(index.search(stop), [], language)
    }
    await common("english", "connections", "connected", "the")
    await common("english", "running", "runs", "don't")
    await common("english", "John’s", "john", "a you're 's")
    await common("german", "Häuser", "Hauses", "und daß")
    await common("german", "Straße", "STRASSEN", "der")
    await common("french", "l'hôtel", "HÔTELS", "les")
    await common("russian", "книгами", "КНИГА", "и")
    await common("turkish", "KITAPLARI IŞIK", "ışık", "ve")
    await common("greek", "ΔΡΌΜΟΥΣ", "δρόμος", "και")
    await common("arabic", "الكتاب", "كِتاب", "في")
    await common("hindi", "किताबें", "किताब", "के")
  })

  it("are all loaded, and each finds a document by its own text", async () => {
    assert.isAbove(Languages.languages.length, 20)
    for (const language of Languages.languages) {
      const analyzer = await Languages.load(language)
      for (const word of ["house", "häuser", "книга", "βιβλίο", "किताब", "كتاب", "புத்தகம்", "東京", "x".repeat(100)]) {
        assert.deepStrictEqual(
          keysOf(indexOf({ one: word }, analyzer).search(word, { prefix: false })),
          ["one"],
          `${language} ${word}`
        )
      }
    }
    assert.isTrue(Languages.isLanguage("german"))
    for (const name of ["klingon", "constructor", "German"]) assert.isFalse(Languages.isLanguage(name))
  })

  it("remember words only as long as that doesn't change their terms", () => {
    const once = termsOf("running", english)
    for (let n = 0; n < 20_000; n++) english.terms(`word${n}`)
    assert.deepStrictEqual(termsOf("running", english), once)
  })
})

describe("An index", () => {
  it("refuses options that mean nothing", () => {
    const make = (options: FullText.Options) => () => new FullText.FullTextIndex(options, plain)
    assert.throws(make({ fields: {} }), RangeError)
    for (const boost of [0, -1, NaN, Infinity, 1e-9]) assert.throws(make({ fields: { text: boost } }), RangeError)
    assert.throws(make({ fields: { text: 1 }, b: 1.1 }), RangeError)
    assert.throws(make({ fields: { text: 1 }, k1: -1 }), RangeError)
    assert.throws(make({ fields: { "text\\": 1 } }), QueryInvalid)
    assert.throws(make({ fields: { text: 1 }, language: "german" }), /german/)
  })

  it("forgets what was removed, and takes removals of what isn't there", () => {
    const index = indexOf({ one: "milk", two: "bread" })
    index.remove("three")
    index.remove("one")
    index.remove("one")
    assert.deepStrictEqual([index.size, index.termCount, index.has("one"), index.has("two")], [1, 1, false, true])
    assert.deepStrictEqual(index.search("milk"), [])
    index.set("four", { text: "milk" })
    assert.deepStrictEqual(keysOf(index.search("milk")), ["four"])
  })
})

describe("A fusion of rankings", () => {
  const ranking = fc.uniqueArray(fc.constantFrom("a", "b", "c", "d", "e"))

  it.prop(
    "sums 1 / (k + rank), whatever the order of the rankings",
    [fc.array(ranking, { maxLength: 5 }), fc.constantFrom(0, 1, 60)],
    ([rankings, k]) => {
      const fused = FullText.fuse(rankings, k)
      assert.sameMembers(Array.from(keysOf(fused)), Array.from(new Set(rankings.flat())))
      for (const { key, score } of fused) {
        const sum = rankings.filter((each) => each.includes(key))
          .reduce((total, each) => total + 1 / (k + 1 + each.indexOf(key)), 0)
        assert.closeTo(score, sum, 1e-12)
      }
      assert.deepStrictEqual(FullText.fuse(Array.from(rankings).reverse(), k), fused)
      assert.deepStrictEqual(
        Array.from(fused).sort((x, y) => y.score - x.score || byCodePoints(x.key, y.key)),
        Array.from(fused)
      )
    },
    { fastCheck: { numRuns: 500 } }
  )

  it.prop("of one ranking is that ranking, and a key counts once in it", [ranking], ([only]) => {
    assert.deepStrictEqual(keysOf(FullText.fuse([only])), only)
    assert.deepStrictEqual(FullText.fuse([[...only, ...only]]), FullText.fuse([only]))
  })

  it("has 60 for k, and refuses one that means nothing", () => {
    assert.deepStrictEqual(FullText.fuse([["x"]]), [{ key: "x", score: 1 / 61 }])
    for (const k of [-1, NaN, Infinity]) assert.throws(() => FullText.fuse([["x"]], k), RangeError)
  })
})
