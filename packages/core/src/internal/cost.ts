/**
 * What a predicate costs to evaluate once, in ns, before it is. The figures are measured (a core of 2.5 GHz, texts of
 * {@link textLength} UTF-16 units, arrays of ten elements) and rough: they tell a cheap question from a dear one, not 30 ns from 40.
 */
import type * as Value from "../Value.ts"
import { isFields } from "./comparisons.ts"
import * as Like from "./like.ts"
import type { Comparison, Node, Operand } from "./predicateReader.ts"
import * as Regex from "./regex.ts"

/** Of the texts that are taken for usual. */
const textLength = 100

/** Up to here a part is looked for by the engine's own search. */
const shortPartLength = 32

const connectiveNanos = 5
const comparisonNanos = 25
const stepNanos = 15
const partNanos = 15
const arrayNanos = 40
/** By UTF-16 unit of the text: to look for a long part, to step through a pattern of `like`, and for each of its words beside. */
const searchedUnitNanos = 6
const pointNanos = 5
const wordNanos = 3
/** A regular expression by itself, by UTF-16 unit of the text, and by its size, for what isn't the usual way. */
const regexNanos = 400
const regexUnitNanos = 4
const regexSizeNanos = 2

export const costOf = (node: Node): number => {
  switch (node.is) {
    case "and":
    case "or":
      return node.nodes.reduce((sum, each) => sum + costOf(each), connectiveNanos)
    case "not":
      return connectiveNanos + costOf(node.node)
    case "comparison":
      return comparisonNanos + (node.names.length - 1) * stepNanos + operatorCost(node)
  }
}

const operatorCost = (comparison: Comparison): number => {
  if (comparison.operator === "exists") return 0
  const { operand, operator } = comparison
  const literals = (Array.isArray(operand) ? operand : [operand]).flatMap((each: Operand) =>
    "literal" in each ? [each.literal] : []
  )
  switch (operator) {
    case "contains":
    case "containsAll":
    case "containsAny":
      return literals.reduce<number>((sum, part) => sum + searchCost(part) + partsCost(part), arrayNanos)
    case "in":
      // All scalars are looked up at once.
      return partNanos + literals.filter((literal) => typeof literal === "object").reduce<number>(sumOfParts, 0)
    case "like":
      return likeCost(literals[0] as string)
    case "regex":
      return regexNanos + textLength * regexUnitNanos + Regex.sizeOf(literals[0] as string) * regexSizeNanos
    default:
      return literals.reduce<number>(sumOfParts, 0)
  }
}

const sumOfParts = (sum: number, literal: Value.Value): number => sum + partsCost(literal)

const partsCost = (value: Value.Value): number =>
  Array.isArray(value)
    ? value.reduce<number>(sumOfParts, partNanos)
    : isFields(value)
    ? Object.values(value).reduce<number>(sumOfParts, partNanos)
    : partNanos

const searchCost = (part: Value.Value): number =>
  typeof part === "string" && part.length > shortPartLength ? textLength * searchedUnitNanos : 0

const likeCost = (pattern: string): number =>
  Like.segmentsOf(pattern)!.slice(1, -1).reduce(
    (sum, segment) =>
      sum +
      (Like.isLiteral(segment)
        ? segment.length > shortPartLength ? textLength * searchedUnitNanos : partNanos
        : textLength * (pointNanos + Math.ceil(segment.length / 32) * wordNanos)),
    2 * partNanos
  )
