/** Paths to fields, as predicates, indexes and searches write them. See `Predicate.ts`. */
import { QueryInvalid } from "../GridError.ts"

/** UTF-16 units of one path, or of a reference's name, at most. */
export const pathLengthMax = 1_024

/** What a predicate takes for something else than a path. */
export const connectives = ["and", "or", "not"]

/** The path that leads from a value through these fields: `path("a.b", "c")` is `a\.b.c`, `path("or")` is `\or`. */
export const path = (...names: readonly [string, ...ReadonlyArray<string>]): string => pathOf(names)

export const pathOf = (names: ReadonlyArray<string>): string => {
  const text = names.map((name) => name.replaceAll(/[\\.]/g, "\\$&")).join(".")
  return connectives.includes(text) ? `\\${text}` : text
}

/** The fields on a path; `at` is where it was written. @throws QueryInvalid */
export const namesOf = (text: string, at: string): ReadonlyArray<string> => {
  const invalid = (reason: string) => new QueryInvalid({ path: at, reason })
  if (text.length > pathLengthMax) throw invalid(`a path has at most ${pathLengthMax} characters`)
  const names = [""]
  for (let i = 0; i < text.length; i++) {
    if (text[i] === ".") {
      names.push("")
      continue
    }
    if (text[i] === "\\" && ++i === text.length) {
      throw invalid("a path doesn't end with a backslash: write two of them for one in a field's name")
    }
    names[names.length - 1] += text[i]!
  }
  return names
}
