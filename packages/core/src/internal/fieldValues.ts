/** The order of all that a field can hold, also between types, and what of it indexes keep. */
import * as Value from "../Value.ts"
import { compareNames } from "./fieldOrder.ts"

/** Types in their order; within an order, arrays are all equal, and so are objects. */
export const ranks = {
  missing: 0,
  null: 1,
  boolean: 2,
  number: 3,
  bigint: 4,
  text: 5,
  date: 6,
  bytes: 7,
  array: 8,
  object: 9
} as const

export const rankOf = (value: unknown): number => {
  switch (typeof value) {
    case "undefined":
      return ranks.missing
    case "boolean":
      return ranks.boolean
    case "number":
      return ranks.number
    case "bigint":
      return ranks.bigint
    case "string":
      return ranks.text
    default:
      return value === null
        ? ranks.null
        : value instanceof Date
        ? ranks.date
        : value instanceof Uint8Array
        ? ranks.bytes
        : Array.isArray(value)
        ? ranks.array
        : ranks.object
  }
}

/** Below 0 when `a` comes before `b`. Total; 0 also for unequal values that have no order: two arrays, or two objects. */
export const compareFields = (a: unknown, b: unknown): number => {
  if (typeof a === "number" && typeof b === "number") return a < b ? -1 : a > b ? 1 : 0
  if (typeof a === "string" && typeof b === "string") return a === b ? 0 : compareNames(a, b)
  const rank = rankOf(a)
  const difference = rank - rankOf(b)
  if (difference !== 0) return difference
  switch (rank) {
    case ranks.boolean:
      return Number(a) - Number(b)
    case ranks.bigint:
      return (a as bigint) < (b as bigint) ? -1 : (a as bigint) > (b as bigint) ? 1 : 0
    case ranks.date:
      return (a as Date).getTime() - (b as Date).getTime()
    case ranks.bytes:
      return Value.compareBytes(a as Uint8Array, b as Uint8Array)
    default:
      return 0
  }
}

/** The order of keys: by code points. */
export const compareKeys = (a: string, b: string): number => a === b ? 0 : compareNames(a, b)

/** What equals what by `===`, but that a Map takes -0 for 0, as a grid does: only these are found by their hash. */
export const isHashable = (value: unknown): boolean =>
  value === null || (typeof value !== "object" && value !== undefined)
