/**
 * Full-text search beside minisearch in the same run: {@link count} documents of {@link wordsPerDocument} words of a vocabulary of
 * {@link vocabularySize}, as often as Zipf's law has it, all of one seed. What is found is verified outside of what is measured. CPU
 * time of this process. Run with `npm run bench:search`.
 */
import { FullTextIndex } from "@topgun/core/FullText"
import * as Languages from "@topgun/core/Languages"
import * as os from "node:os"
import MiniSearch from "minisearch"
import { check, keyOf, median } from "./records.mjs"

const count = 100_000
const wordsPerDocument = 20
const vocabularySize = 20_000
const rounds = 5
const queryCount = 300
const changes = 5_000

// --- Texts -----------------------------------------------------------------------------------------------------------

/** Uniform in [0, 1): mulberry32. */
const randomOf = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
}
const random = randomOf(42)

const onsets = [
  "b",
  "br",
  "c",
  "ch",
  "d",
  "f",
  "g",
  "gr",
  "h",
  "k",
  "l",
  "m",
  "n",
  "p",
  "pl",
  "r",
  "s",
  "st",
  "t",
  "tr",
  "v",
  "w"
]
const nuclei = ["a", "ai", "e", "ea", "i", "o", "ou", "u"]
const codas = ["", "", "n", "r", "s", "t", "ck", "ng"]
const pick = (list) => list[Math.floor(random() * list.length)]
const syllable = () => pick(onsets) + pick(nuclei) + pick(codas)

const vocabulary = new Set()
while (vocabulary.size < vocabularySize) {
  vocabulary.add(Array.from({ length: 1 + Math.floor(random() * 3) }, syllable).join(""))
}
const words = Array.from(vocabulary)
/** Cumulated weights 1/rank. */
const cumulated = []
words.reduce((sum, _, rank) => cumulated[rank] = sum + 1 / (rank + 1), 0)
const word = () => {
  const at = random() * cumulated.at(-1)
  let low = 0
  let high = cumulated.length - 1
  while (low < high) {
    const middle = (low + high) >> 1
    if (cumulated[middle] < at) low = middle + 1
    else high = middle
  }
  return words[low]
}
const textOf = () => Array.from({ length: wordsPerDocument }, word).join(" ")

const texts = Array.from({ length: count }, textOf)
const others = Array.from({ length: changes }, textOf)
const keys = texts.map((_, n) => keyOf(n))
/** Of one, two and three words, drawn as those of documents are: frequent ones are asked for most. */
const queries = Array.from({ length: queryCount }, (_, n) => Array.from({ length: 1 + n % 3 }, word).join(" "))
/** The last word is still being typed: its first three letters. */
const typed = queries.map((query) => query.replace(/\S+$/, (last) => last.slice(0, 3)))

// --- Contestants -----------------------------------------------------------------------------------------------------

const contestantOf = (language) => async () => {
  const analyzer = await Languages.load(language)
  return {
    make: () => new FullTextIndex({ fields: { text: 1 }, language }, analyzer),
    add: (index, key, text) => index.set(key, { text }),
    replace: (index, key, text) => index.set(key, { text }),
    remove: (index, key) => index.remove(key),
    search: (index, query, prefix, limit) => index.search(query, { prefix, limit }),
    size: (index) => index.size
  }
}

const minisearch = async () => ({
  make: () => new MiniSearch({ fields: ["text"], autoVacuum: true }),
  add: (index, id, text) => index.add({ id, text }),
  replace: (index, id, text) => index.replace({ id, text }),
  // `remove` needs the old text; `discard` doesn't, and leaves the terms for its vacuum.
  remove: (index, id) => index.discard(id),
  search: (index, query, prefix, limit) => {
    const last = query.split(" ").length - 1
    const hits = index.search(query, { prefix: prefix ? (_term, i) => i === last : false })
    return limit === undefined ? hits : hits.slice(0, limit)
  },
  size: (index) => index.documentCount
})

// --- Measuring -------------------------------------------------------------------------------------------------------

const cpuMillis = (run) => {
  const before = process.cpuUsage()
  run()
  const { system, user } = process.cpuUsage(before)
  return (system + user) / 1_000
}

const memory = () => {
  globalThis.gc()
  globalThis.gc()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

const percentile = (values, share) => values.toSorted((a, b) => a - b)[Math.floor(values.length * share)]

/** Each query by itself, in milliseconds of wall-clock time, as CPU time is too coarse for one. */
const latencies = (contestant, index, asked, prefix, limit) =>
  asked.map((query) => {
    const startedAt = performance.now()
    contestant.search(index, query, prefix, limit)
    return performance.now() - startedAt
  })

const measure = async (of) => {
  const contestant = await of()
  const built = []
  let index
  let bytes = 0
  for (let round = 0; round < rounds; round++) {
    index = undefined
    const before = memory()
    built.push(cpuMillis(() => {
      index = contestant.make()
      for (let n = 0; n < count; n++) contestant.add(index, keys[n], texts[n])
    }))
    bytes = memory() - before
  }
  check(contestant.size(index) === count, "all are there")
  const first = contestant.search(index, texts[7], false)[0]
  check((first.key ?? first.id) === keys[7], "a document is found by all of its words")

  // Once to warm up.
  latencies(contestant, index, queries, true, 10)
  const plain = latencies(contestant, index, queries, false, 10)
  const withPrefix = latencies(contestant, index, typed, true, 10)
  const whole = latencies(contestant, index, queries.slice(0, 100), false, undefined)

  const replaced = cpuMillis(() => {
    for (let n = 0; n < changes; n++) contestant.replace(index, keys[n * 7], others[n])
  })
  const removed = cpuMillis(() => {
    for (let n = 0; n < changes; n++) contestant.remove(index, keys[n * 7])
  })
  check(contestant.size(index) === count - changes, "those removed are gone")
  return {
    "all documents indexed, s": median(built) / 1_000,
    "search, best 10, p50, ms": percentile(plain, 0.5),
    "search, best 10, p99, ms": percentile(plain, 0.99),
    "with a beginning, best 10, p50, ms": percentile(withPrefix, 0.5),
    "with a beginning, best 10, p99, ms": percentile(withPrefix, 0.99),
    "search, all hits, p50, ms": percentile(whole, 0.5),
    "replacement, µs": replaced / changes * 1_000,
    "removal, µs": removed / changes * 1_000,
    "memory of a document, bytes": bytes / count
  }
}

const ours = await measure(contestantOf(undefined))
const english = await measure(contestantOf("english"))
const theirs = await measure(minisearch)

console.log(
  `\n${os.cpus().length} × ${os.cpus()[0]?.model}, Node ${process.version}; ${count} documents, ${queryCount} queries\n`
)
console.log("| | TopGun | in English | minisearch | ratio |\n|---|---:|---:|---:|---:|")
for (const [name, value] of Object.entries(ours)) {
  const cells = [value, english[name], theirs[name]].map((each) => each.toPrecision(3))
  console.log(`| ${name} | ${cells.join(" | ")} | ${(theirs[name] / value).toFixed(1)} × |`)
}
