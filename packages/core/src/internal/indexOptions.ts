/** Which indexes a map is declared with, how it is searched, and how both are read. What is wrong with them is the programmer's: TypeErrors. */
import { QueryInvalid } from "../GridError.ts"
import { namesOf, pathOf } from "./paths.ts"

/**
 * What an index is good for. `hash`: equality. `sorted`: equality, ranges and order; of several fields, equality of the first ones and
 * a range or order of the next. `inverted`: what an array contains.
 */
export type IndexKind = "hash" | "sorted" | "inverted"

/** An index of a declared map. */
export interface Index {
  /** Paths, at least one. */
  readonly fields: ReadonlyArray<string>
  readonly kind: IndexKind
}

/** How a declared map is searched. */
export interface Search {
  /** Boosts above 0, by path. */
  readonly fields: { readonly [path: string]: number }
  readonly language: string | undefined
}

/** Indexes of one map, at most: each costs memory by record, and time by write. */
export const indexesMax = 16

/** Fields of one index, at most. */
export const indexFieldsMax = 4

/** Fields that a map is searched by, at most. */
export const searchFieldsMax = 16

const kinds: ReadonlyArray<IndexKind> = ["hash", "sorted", "inverted"]

const isRecord = (given: unknown): given is { readonly [name: string]: unknown } =>
  typeof given === "object" && given !== null && !Array.isArray(given)

/** Refuses names that say nothing here: an option that is read by nobody would be taken for one that is. */
const checkNames = (given: object, known: ReadonlyArray<string>, at: string): void => {
  const other = Object.keys(given).find((name) => !known.includes(name))
  if (other !== undefined) throw new TypeError(`${at} has no option "${other}", only ${known.join(" and ")}`)
}

/** A path as predicates write it, so that two ways of writing one are one. */
const pathFrom = (given: unknown, at: string): string => {
  if (typeof given !== "string" || given === "") {
    throw new TypeError(`${at} is no path to a field, such as "done" or "owner.id"`)
  }
  try {
    return pathOf(namesOf(given, at))
  } catch (fault) {
    if (fault instanceof QueryInvalid) {
      throw new TypeError(`${at} is no path to a field: ${fault.reason}`, { cause: fault })
    }
    throw fault
  }
}

const indexFrom = (given: unknown, at: string): Index => {
  if (isRecord(given)) checkNames(given, ["fields", "kind"], at)
  const { fields, kind = "sorted" } = isRecord(given) ? given : { fields: given }
  if (!kinds.includes(kind as IndexKind)) {
    throw new TypeError(`${at} is of no kind that there is: ${kinds.map((each) => `"${each}"`).join(", ")}`)
  }
  const paths = (Array.isArray(fields) ? fields : [fields]).map((field, i) =>
    pathFrom(field, Array.isArray(fields) ? `${at}[${i}]` : at)
  )
  if (paths.length === 0 || paths.length > indexFieldsMax) {
    throw new TypeError(`${at} has ${paths.length} fields: an index has 1 to ${indexFieldsMax}`)
  }
  if (new Set(paths).size < paths.length) throw new TypeError(`${at} names a field twice`)
  if (kind !== "sorted" && paths.length > 1) {
    throw new TypeError(
      `${at} has ${paths.length} fields: only a sorted index has several, ${
        kind === "hash" ? "a hash index" : "an inverted index"
      } has one`
    )
  }
  return Object.freeze({ fields: Object.freeze(paths), kind: kind as IndexKind })
}

/** The indexes of the map of this name. @throws TypeError for what can't be one */
export const indexesFrom = (map: string, given: unknown): ReadonlyArray<Index> => {
  if (given === undefined) return []
  const at = `The map "${map}"'s indexes`
  if (!Array.isArray(given)) throw new TypeError(`${at} are a list, such as ["done", ["done", "text"]]`)
  if (given.length > indexesMax) throw new TypeError(`${at} are ${given.length}: a map has at most ${indexesMax}`)
  const indexes = given.map((each, i) => indexFrom(each, `${at}[${i}]`))
  const shapes = indexes.map((index) => JSON.stringify(index))
  const twice = shapes.findIndex((shape, i) => shapes.indexOf(shape) < i)
  if (twice >= 0) throw new TypeError(`${at}[${twice}] is there already`)
  return Object.freeze(indexes)
}

/** How the map of this name is searched. @throws TypeError for what says nothing of that */
export const searchFrom = (map: string, given: unknown): Search | undefined => {
  if (given === undefined) return undefined
  const at = `The map "${map}"'s search`
  if (!isRecord(given)) throw new TypeError(`${at} names fields with their boosts, such as { title: 2, text: 1 }`)
  // A field may be called so too; then it has a number.
  const isWhole = isRecord(given["fields"])
  if (isWhole) checkNames(given, ["fields", "language"], at)
  const { fields, language } = isWhole ? given : { fields: given, language: undefined }
  const entries = Object.entries(fields as { readonly [path: string]: unknown }).filter(([, boost]) =>
    boost !== undefined
  )
  if (entries.length === 0 || entries.length > searchFieldsMax) {
    throw new TypeError(`${at} names ${entries.length} fields: it has 1 to ${searchFieldsMax}`)
  }
  if (language !== undefined && (typeof language !== "string" || language === "")) {
    throw new TypeError(`${at}'s language is a name, such as "english"`)
  }
  const boosts = entries.map(([field, boost]) => {
    if (typeof boost !== "number" || !(boost > 0) || !Number.isFinite(boost)) {
      throw new TypeError(`${at} gives "${field}" the boost ${String(boost)}: it is a number above 0, 1 being plain`)
    }
    return [pathFrom(field, at), boost] as const
  })
  if (new Set(boosts.map(([path]) => path)).size < boosts.length) throw new TypeError(`${at} names a field twice`)
  return Object.freeze({ fields: Object.freeze(Object.fromEntries(boosts)), language })
}
