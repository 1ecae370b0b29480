/**
 * Keys of one and the same 64-bit hash, as who means harm can make them: MurmurHash3 isn't cryptographic. A block of 16 bytes
 * can be chosen so that it leads from any state of the algorithm to any other; where it comes out as ASCII, which one in
 * 2^16 does, it is part of a key. Pairs of such parts, one after the other, make 2^n keys (Joux 2004, "Multicollisions in
 * iterated hash functions").
 */
import { assert } from "@effect/vitest"
import { hashKey } from "../src/internal/hash.ts"

type State = readonly [number, number, number, number]

const C = [0x239b961b, 0xab0e9789, 0x38b34ae5, 0xa1e38b93] as const
const ADDED = [0x561ccd1b, 0x0bcaa747, 0x96cd1c35, 0x32ac3b17] as const
const SPIN_KEY = [15, 16, 17, 18] as const
const SPIN_STATE = [19, 17, 15, 13] as const

const rotate = (x: number, by: number): number => x << by | x >>> (32 - by)
/** The inverse modulo 2^32, by Newton's method. */
const inverse = (x: number): number => {
  let y = x
  for (let i = 0; i < 5; i++) y = Math.imul(y, 2 - Math.imul(x, y))
  return y
}
const INVERSE_5 = inverse(5)
const INVERSE_C = C.map(inverse)

/** The state after a block of four words. */
const after = (state: State, block: State): State => {
  const h: Array<number> = [...state]
  for (let i = 0; i < 4; i++) {
    h[i]! ^= Math.imul(rotate(Math.imul(block[i]!, C[i]!), SPIN_KEY[i]!), C[(i + 1) % 4]!)
    h[i] = Math.imul(rotate(h[i]!, SPIN_STATE[i]!) + h[(i + 1) % 4]! | 0, 5) + ADDED[i]! | 0
  }
  return h as unknown as State
}

/** The block that leads from one state to another. */
const between = (from: State, to: State): State =>
  from.map((h, i) => {
    const neighbour = i === 3 ? to[0] : from[i + 1]!
    const spun = Math.imul(to[i]! - ADDED[i]! | 0, INVERSE_5) - neighbour | 0
    const mixed = rotate(spun, 32 - SPIN_STATE[i]!) ^ h
    return Math.imul(rotate(Math.imul(mixed, INVERSE_C[(i + 1) % 4]!), 32 - SPIN_KEY[i]!), INVERSE_C[i]!)
  }) as unknown as State

const isAscii = (block: State): boolean => block.every((word) => (word & 0x80808080) === 0)

const textOf = (block: State): string =>
  String.fromCharCode(...block.flatMap((word) => [word & 0xff, word >>> 8 & 0xff, word >>> 16 & 0xff, word >>> 24]))

/** 2^`pairs` keys of one hash. */
export const twins = (pairs: number): ReadonlyArray<string> => {
  let state: State = [0, 0, 0, 0]
  let keys = [""]
  for (let pair = 0; pair < pairs; pair++) {
    const to: State = [pair + 1, 2, 3, 4]
    const parts: Array<string> = []
    for (let n = 1; parts.length < 2; n++) {
      // All words vary, so that those of the second block do.
      const first = C.map((factor) => Math.imul(n, factor) & 0x7f7f7f7f) as unknown as State
      const second = between(after(state, first), to)
      if (isAscii(second) && !parts.includes(textOf(first) + textOf(second))) parts.push(textOf(first) + textOf(second))
    }
    state = to
    keys = keys.flatMap((key) => parts.map((part) => key + part))
  }
  const hashes = new Set(keys.map((key) => {
    const hash = { hi: 0, lo: 0 }
    hashKey(key, hash)
    return `${hash.hi} ${hash.lo}`
  }))
  assert.strictEqual(hashes.size, 1)
  assert.strictEqual(new Set(keys).size, 2 ** pairs)
  return keys
}
