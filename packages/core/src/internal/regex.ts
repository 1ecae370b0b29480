/**
 * Regular expressions in RE2's syntax, by re2js: no pattern makes it turn back, so that a match takes time linear in the text.
 * Linear is not yet cheap. {@link weightOf} bounds from above what a pattern costs to compile, before the engine sees it, and
 * {@link textLengthMaxOf} the texts that it judges, by the size of its program.
 *
 * The engine is 60 kB after compression, which no page loads whose predicates don't need it: {@link engine} brings it.
 */
import * as Effect from "effect/Effect"
import type { RE2JSException, RE2Set } from "re2js"
import { ConnectionLost } from "../GridError.ts"

/** UTF-16 units of a pattern, at most. */
export const patternLengthMax = 256

/**
 * What the patterns of one predicate may weigh together. To compile them takes 10 ms at most (measured with the worst that were found
 * for each kind of weight, on a core of 2.5 GHz).
 */
export const weightMax = 1_000

/**
 * What one match may take, as instructions × UTF-16 units of the text: about 5 ms of the engine's slowest way, which takes 20 to 60 ns
 * for each. Its usual way takes 15 ns a unit, whatever the program.
 */
const stepsMax = 120_000

/** Bytes of states that the engine keeps for a pattern, at most. Where they don't suffice, it goes on without any, and slower. */
const stateBytesMax = 256 * 1024

/** Compiled patterns that are kept for whoever asks for them again. A server compiles its policy's for each of its users. */
const keptMax = 64

/** UTF-16 units of a text that a pattern judges, at most. */
export const textLengthMaxOf = (pattern: string): number => Math.floor(stepsMax / sizeOf(pattern))

// --- Weight ----------------------------------------------------------------------------------------------------------

/** What a class weighs beside one instruction: for each of Unicode's tables in it, and by code points folded one by one. */
interface Prices {
  readonly table: number
  readonly foldedPerWeight: number
}

/** To compile: a table is some hundred ranges, which are merged and folded. */
const compiling: Prices = { table: 12, foldedPerWeight: 256 }

/** To match: what is searched in a table takes twice as long. */
const matching: Prices = { table: 2, foldedPerWeight: Infinity }

/** The last code point that has others of another case. */
const FOLDED_MAX = 0x1e943

/** The program around every pattern. */
const frameWeight = 3

const table = /^\\[pP](?:\{[^}]*\}|[^])/
const counted = /^\{(\d{1,4})(?:(,)(\d{0,4}))?\}/
const groupStart = /^\((?:\?(?:P?<[^>]*>|[a-zA-Z-]*:))?/
/** It has no end of its own, and what repeats it repeats what is before it. */
const flags = /^\(\?[a-zA-Z-]*\)/
const ignoresCase = /\(\?[a-zA-Z-]*i/

/** What a pattern costs to compile, in tens of µs: a bound from above, of what is no pattern too. */
export const weightOf = (pattern: string): number => new Scale(pattern, compiling).weight()

/** The instructions that a pattern is compiled to, some counted twice: a bound from above. */
export const sizeOf = (pattern: string): number => new Scale(pattern, matching).weight()

/** Reads a pattern as far as its weight goes: atoms, what repeats them, and groups. */
class Scale {
  private readonly pattern: string
  private readonly isFolded: boolean
  private readonly prices: Prices
  private at = 0

  constructor(pattern: string, prices: Prices) {
    this.pattern = pattern
    this.prices = prices
    this.isFolded = ignoresCase.test(pattern)
  }

  weight(): number {
    const { pattern } = this
    const outer: Array<number> = []
    let total = frameWeight
    let atom = 0
    const add = (weight: number) => {
      atom = weight
      total += weight
    }
    while (this.at < pattern.length) {
      const char = pattern[this.at]!
      switch (char) {
        case "(":
          if (!this.skip(flags)) {
            this.skip(groupStart)
            outer.push(total)
            total = 0
          }
          break
        case ")": {
          this.at++
          const inner = total + 3
          total = outer.pop() ?? 0
          add(inner)
          break
        }
        case "|":
        case "*":
        case "+":
        case "?":
          this.at++
          atom += 2
          total += 2
          break
        case "{": {
          const found = this.skip(counted)
          if (found === undefined) {
            this.at++
            add(1)
          } else {
            const [, low, isOpen, high] = found
            const least = Number(low)
            const times = Math.max(1, high === undefined || high === "" ? least : Number(high), least)
            // What may be left out costs one more each; what has no end, a loop.
            const repeated = atom * times + (times - Math.min(times, least)) + (isOpen === undefined ? 0 : 2)
            total += repeated - atom
            atom = repeated
          }
          break
        }
        case "[":
          add(this.classWeight())
          break
        case "\\":
          if (pattern.startsWith("\\Q", this.at)) {
            const quoted = this.quotedLength()
            if (quoted > 0) add(quoted)
          } else add(this.escapeWeight())
          break
        default:
          this.at++
          add(1)
      }
    }
    return outer.reduce((sum, weight) => sum + weight, total)
  }

  private skip(what: RegExp): RegExpExecArray | undefined {
    const found = what.exec(this.pattern.slice(this.at)) ?? undefined
    this.at += found?.[0].length ?? 0
    return found
  }

  private quotedLength(): number {
    const from = this.at + 2
    const end = this.pattern.indexOf("\\E", from)
    this.at = end < 0 ? this.pattern.length : end + 2
    return (end < 0 ? this.pattern.length : end) - from
  }

  private escapeWeight(): number {
    if (this.skip(table) !== undefined) return 1 + this.prices.table
    this.point()
    return 1
  }

  private classWeight(): number {
    let weight = 1
    this.skip(/^\[\^?/)
    for (let isFirst = true; this.at < this.pattern.length; isFirst = false) {
      if (this.pattern[this.at] === "]" && !isFirst) break
      if (this.skip(/^\[:\^?\w*:\]/) !== undefined) continue
      if (this.skip(table) !== undefined) {
        weight += this.prices.table
        continue
      }
      this.point()
      if (this.skip(/^-(?!\])/) !== undefined) {
        const last = this.point()
        if (this.isFolded) weight += Math.ceil(last / this.prices.foldedPerWeight)
      }
    }
    this.at++
    return weight
  }

  /** Passes one character, or an escape, and tells which code point it is, or more. */
  private point(): number {
    const code = this.skip(/^\\x(?:\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{2}))/)
    if (code !== undefined) return Math.min(Number.parseInt(code[1] ?? code[2]!, 16), FOLDED_MAX)
    if (this.pattern[this.at] === "\\") this.at++
    const point = this.pattern.codePointAt(this.at) ?? 0
    this.at += point > 0xffff ? 2 : 1
    return Math.min(point, FOLDED_MAX)
  }
}

// --- Matching --------------------------------------------------------------------------------------------------------

let loaded: { readonly RE2JSException: typeof RE2JSException; readonly RE2Set: typeof RE2Set } | undefined

/** Brings the engine. It is loaded once; {@link matcherOf} works from then on. */
export const engine: Effect.Effect<void, ConnectionLost> = Effect.suspend(() =>
  loaded !== undefined ? Effect.void : Effect.tryPromise({
    try: async () => {
      loaded = await import("re2js")
    },
    catch: (cause) => new ConnectionLost({ reason: "the engine of regular expressions can't be loaded", cause })
  })
)

/** Whether the engine is there. */
export const isLoaded = (): boolean => loaded !== undefined

const kept = new Map<string, RE2Set>()

/** What is wrong with a pattern, in words; `undefined` when nothing is. */
export const faultOf = (pattern: string): string | undefined => {
  try {
    compiled(pattern)
    return undefined
  } catch (fault) {
    if (loaded !== undefined && fault instanceof loaded.RE2JSException) {
      return fault.message.replace("error parsing regexp: ", "")
    }
    throw fault
  }
}

const compiled = (pattern: string): RE2Set => {
  if (loaded === undefined) {
    throw new Error("The engine of regular expressions isn't there yet: run Predicate.load with the predicate first")
  }
  let set = kept.get(pattern)
  if (set === undefined) {
    // A set of one: the only form whose memory can be bounded.
    set = new loaded.RE2Set(loaded.RE2Set.UNANCHORED, 0, stateBytesMax)
    set.add(pattern)
    set.compile()
    const [oldest] = kept.keys()
    if (kept.size >= keptMax) kept.delete(oldest!)
  } else kept.delete(pattern)
  kept.set(pattern, set)
  return set
}

/** The test of texts for a pattern; `undefined` for one that is too long to be judged. It takes the engine, and a pattern without fault. */
export const matcherOf = (pattern: string): (text: string) => boolean | undefined => {
  const set = compiled(pattern)
  const lengthMax = textLengthMaxOf(pattern)
  return (text) => text.length > lengthMax ? undefined : set.match(text).length > 0
}
