/**
 * How a query is answered: by looking at all records, at those that an index finds, or at an index's order until there are
 * enough. What is chosen looks at the fewest records; each is tested all the same. Pure.
 */
import { compareFields, isHashable, rankOf, ranks } from "./internal/fieldValues.ts"
import { namesOf, pathOf } from "./internal/paths.ts"
import { type Comparison, type Node, type Operand } from "./internal/predicateReader.ts"
import type { Indexes, Range, SortedIndex, Spec } from "./Indexes.ts"
import type { Order } from "./Query.ts"

/** What is done to find a query's records. */
export interface Plan {
  /** The keys of candidates; `undefined` where all records are. They may be there no more, and come twice. */
  readonly keys: (() => Iterable<string>) | undefined
  /** Whether they come in the order of the query. */
  readonly isOrdered: boolean
  /** How many are looked at, as far as can be told before. */
  readonly candidates: number
  readonly steps: ReadonlyArray<Step>
}

/** The use that a plan makes of an index. */
export interface Step {
  /** An index that is declared; of a search, the fields that it looks into. */
  readonly index: Spec
  /** What it finds them by: `words` are those of a search. */
  readonly by: "equality" | "range" | "elements" | "order" | "words"
  readonly candidates: number
}

/** Candidates from indexes. */
interface Access {
  readonly count: number
  readonly keys: () => Iterable<string>
  readonly steps: ReadonlyArray<Step>
}

/** Finding a record by its key, and an index's part in it, takes about as long as passing so many in a scan. */
const INDEXED_COST = 3

// --- Conditions ------------------------------------------------------------------------------------------------------

/** What has to hold whenever the predicate is true, part by part. */
const conjunctsOf = (node: Node): ReadonlyArray<Node> => node.is === "and" ? node.nodes.flatMap(conjunctsOf) : [node]

const literalOf = (operand: Operand): unknown => "literal" in operand ? operand.literal : undefined

/** The literals of an operand, one or several; `undefined` where one isn't known. */
const literalsOf = (comparison: Comparison): ReadonlyArray<unknown> | undefined => {
  if (comparison.operator === "exists") return undefined
  const literals = [comparison.operand].flat().map((operand) => literalOf(operand as Operand))
  return literals.some((literal) => literal === undefined) ? undefined : literals
}

/** Whether 0 of `compareFields` is equality. */
const isExact = (literal: unknown): boolean => rankOf(literal) < ranks.array

/** What a field has to be equal to one of. */
const equalTo = (comparison: Comparison): ReadonlyArray<unknown> | undefined =>
  comparison.operator === "eq" || comparison.operator === "in" ? literalsOf(comparison) : undefined

type Bounds = Required<Omit<Range, "equal">>

const boundsOf = (comparison: Comparison): Bounds | undefined => {
  const [literal, second] = literalsOf(comparison) ?? []
  if (literal === undefined) return undefined
  const rank = rankOf(literal)
  switch (comparison.operator) {
    case "gt":
      return { isBefore: (field) => compareFields(field, literal) <= 0, isUpTo: (field) => rankOf(field) <= rank }
    case "gte":
      return { isBefore: (field) => compareFields(field, literal) < 0, isUpTo: (field) => rankOf(field) <= rank }
    case "lt":
      return { isBefore: (field) => rankOf(field) < rank, isUpTo: (field) => compareFields(field, literal) < 0 }
    case "lte":
      return { isBefore: (field) => rankOf(field) < rank, isUpTo: (field) => compareFields(field, literal) <= 0 }
    case "between":
      return {
        isBefore: (field) => compareFields(field, literal) < 0,
        isUpTo: (field) => compareFields(field, second) <= 0
      }
    case "startsWith":
      return {
        isBefore: (field) => compareFields(field, literal) < 0,
        isUpTo: (field) =>
          compareFields(field, literal) < 0 || (typeof field === "string" && field.startsWith(literal as string))
      }
    default:
      return undefined
  }
}

// --- Access by each kind of index ------------------------------------------------------------------------------------

const isAt = (comparison: Comparison, names: ReadonlyArray<string>): boolean =>
  comparison.names.length === names.length && comparison.names.every((name, i) => name === names[i])

const sum = (counts: ReadonlyArray<number>): number => counts.reduce((total, count) => total + count, 0)

function* concat(parts: ReadonlyArray<() => Iterable<string>>): IterableIterator<string> {
  for (const part of parts) yield* part()
}

const byHash = (indexes: Indexes, comparison: Comparison): ReadonlyArray<Access> => {
  const literals = equalTo(comparison)
  if (literals === undefined || !literals.every(isHashable)) return []
  return indexes.hash.filter(({ names }) => isAt(comparison, names)).map((index) => {
    const count = sum(literals.map((literal) => index.count(literal)))
    return {
      count,
      keys: () => indexes.keysOf(literals.flatMap((literal) => index.ids(literal))),
      steps: [{ index: index.spec, by: "equality", candidates: count }]
    }
  })
}

const byElements = (indexes: Indexes, comparison: Comparison): ReadonlyArray<Access> => {
  const { operator } = comparison
  if (operator !== "contains" && operator !== "containsAll" && operator !== "containsAny") return []
  const literals = literalsOf(comparison)
  if (literals === undefined || literals.length === 0) return []
  return indexes.inverted.filter(({ names }) => isAt(comparison, names)).flatMap((index) => {
    const access = (elements: ReadonlyArray<unknown>): Access => {
      const count = sum(elements.map((element) => index.count(element)))
      return {
        count,
        keys: () => indexes.keysOf(elements.flatMap((element) => index.ids(element))),
        steps: [{ index: index.spec, by: "elements", candidates: count }]
      }
    }
    return operator === "containsAll"
      ? literals.filter(isHashable).map((literal) => access([literal]))
      : literals.every(isHashable)
      ? [access(literals)]
      : []
  })
}

/** A range of a sorted index, and how many of its fields are equal to something there. */
interface Sorted extends Access {
  readonly index: SortedIndex
  readonly ranges: ReadonlyArray<Range>
  readonly equals: number
}

const bySorted = (comparisons: ReadonlyArray<Comparison>, index: SortedIndex): Sorted => {
  const equal: Array<unknown> = []
  let alternatives: ReadonlyArray<unknown> | undefined
  let bounds: Bounds | undefined
  for (const names of index.names) {
    const here = comparisons.filter((comparison) => isAt(comparison, names))
    const equals = here.flatMap((comparison) => {
      const literals = equalTo(comparison)
      return literals !== undefined && literals.every(isExact) ? [literals] : []
    }).sort((a, b) => a.length - b.length)
    const [fewest] = equals
    if (fewest !== undefined && fewest.length === 1) {
      equal.push(fewest[0])
      continue
    }
    if (fewest !== undefined) alternatives = fewest
    else {
      const all = here.flatMap((comparison) => boundsOf(comparison) ?? [])
      if (all.length > 0) {
        bounds = {
          isBefore: (field) => all.some(({ isBefore }) => isBefore(field)),
          isUpTo: (field) => all.every(({ isUpTo }) => isUpTo(field))
        }
      }
    }
    break
  }
  const ranges: ReadonlyArray<Range> = alternatives === undefined
    ? [{ equal, ...bounds }]
    : alternatives.map((alternative) => ({ equal: [...equal, alternative] }))
  const count = sum(ranges.map((range) => Math.max(0, index.count(range))))
  return {
    index,
    ranges,
    equals: equal.length,
    count,
    keys: () => concat(ranges.map((range) => () => index.keys(range))),
    steps: [{ index: index.spec, by: bounds === undefined ? "equality" : "range", candidates: count }]
  }
}

const isBounded = ({ equals, ranges }: Sorted): boolean =>
  equals > 0 || ranges.length !== 1 || ranges[0]!.isBefore !== undefined

/** All that indexes have for these conditions; whatever is true of a record, each of them has it. */
const accessesOf = (
  indexes: Indexes,
  conjuncts: ReadonlyArray<Node>,
  sorted: ReadonlyArray<Sorted>
): ReadonlyArray<Access> => [
  ...sorted.filter(isBounded),
  ...conjuncts.flatMap((node): ReadonlyArray<Access> => {
    if (node.is === "comparison") return [...byHash(indexes, node), ...byElements(indexes, node)]
    if (node.is !== "or") return []
    const parts = node.nodes.map((part) => accessFor(indexes, part))
    return parts.every((part) => part !== undefined)
      ? [{
        count: sum(parts.map(({ count }) => count)),
        keys: () => concat(parts.map(({ keys }) => keys)),
        steps: parts.flatMap(({ steps }) => steps)
      }]
      : []
  })
]

const fewest = (accesses: ReadonlyArray<Access>): Access | undefined =>
  accesses.reduce<Access | undefined>(
    (best, access) => best === undefined || access.count < best.count ? access : best,
    undefined
  )

const isComparison = (node: Node): node is Comparison => node.is === "comparison"

const accessFor = (indexes: Indexes, node: Node): Access | undefined => {
  const conjuncts = conjunctsOf(node)
  const comparisons = conjuncts.filter(isComparison)
  return fewest(accessesOf(indexes, conjuncts, indexes.sorted.map((index) => bySorted(comparisons, index))))
}

// --- Order -----------------------------------------------------------------------------------------------------------

/**
 * Whether a range of a sorted index comes in an order, forwards or backwards; `undefined` when in neither. Fields that are equal to
 * something order nothing.
 */
const directionOf = ({ equals, index, ranges }: Sorted, orderBy: ReadonlyArray<Order>): "asc" | "desc" | undefined => {
  if (ranges.length !== 1) return undefined
  const constant = new Set(index.spec.fields.slice(0, equals).map(canonicalPath))
  const open = orderBy.filter(({ field }) => !constant.has(canonicalPath(field)))
  // Keys decide in the direction of the last field, whatever that is.
  const direction = orderBy[orderBy.length - 1]?.direction ?? "asc"
  const follows = open.length === index.spec.fields.length - equals &&
    open.every((order, i) =>
      (order.direction ?? "asc") === direction &&
      canonicalPath(order.field) === canonicalPath(index.spec.fields[equals + i]!)
    )
  return follows ? direction : undefined
}

const canonicalPath = (path: string): string => pathOf(namesOf(path, "$"))

// --- Choosing --------------------------------------------------------------------------------------------------------

/** What is asked for. */
export interface Asked {
  readonly where: Node | undefined
  readonly orderBy: ReadonlyArray<Order>
  /** Rows that are wanted, one more than are shown; absent for all. */
  readonly rows?: number | undefined
  /** Whether an index's order is that of what is asked for: it isn't where some fields are hidden from who asks. */
  readonly mayUseOrder: boolean
}

/** The plan that looks at the fewest of a map's records. */
export const make = (indexes: Indexes, size: number, { mayUseOrder, orderBy, rows, where }: Asked): Plan => {
  const conjuncts = where === undefined ? [] : conjunctsOf(where)
  const comparisons = conjuncts.filter(isComparison)
  const sorted = indexes.sorted.map((index) => bySorted(comparisons, index))
  const filtered = fewest(accessesOf(indexes, conjuncts, sorted))
  let best: Plan = { keys: undefined, isOrdered: false, candidates: size, steps: [] }
  let cost = size
  const offer = (plan: Plan): void => {
    if (plan.candidates * INDEXED_COST >= cost) return
    best = plan
    cost = plan.candidates * INDEXED_COST
  }
  if (filtered !== undefined) {
    offer({ keys: filtered.keys, isOrdered: false, candidates: filtered.count, steps: filtered.steps })
  }
  if (!mayUseOrder || rows === undefined || orderBy.length === 0) return best
  for (const access of sorted) {
    const direction = directionOf(access, orderBy)
    if (direction === undefined) continue
    // As if the conditions of the best filter were spread evenly over the order.
    const found = Math.min(access.count, filtered?.count ?? access.count)
    const candidates = found <= rows ? access.count : Math.ceil(rows * access.count / found)
    const [range] = access.ranges as [Range]
    offer({
      keys: () => access.index.keys(range, direction === "desc"),
      isOrdered: true,
      candidates,
      steps: [{ index: access.index.spec, by: "order", candidates }]
    })
  }
  return best
}

// --- Ties ------------------------------------------------------------------------------------------------------------

/** A field, and something that it is equal to. */
export interface Tie {
  readonly names: ReadonlyArray<string>
  readonly to: unknown
}

/** Ties of one query, at most: one with more is told of every write. */
const tiesMax = 1_000

/** Whenever the predicate is true, one of these fields is equal to what it is tied to; `undefined` where that can't be said. */
export const tiesOf = (node: Node): ReadonlyArray<Tie> | undefined => {
  const parts = conjunctsOf(node).flatMap((part) => {
    const ties = part.is === "or"
      ? unionOf(part.nodes.map(tiesOf))
      : part.is === "comparison"
      ? ownTies(part)
      : undefined
    return ties === undefined ? [] : [ties]
  })
  return parts.reduce<ReadonlyArray<Tie> | undefined>(
    (a, b) => a === undefined || b.length < a.length ? b : a,
    undefined
  )
}

const ownTies = (comparison: Comparison): ReadonlyArray<Tie> | undefined => {
  const literals = equalTo(comparison)
  return literals !== undefined && literals.every(isHashable)
    ? literals.map((to) => ({ names: comparison.names, to }))
    : undefined
}

const unionOf = (parts: ReadonlyArray<ReadonlyArray<Tie> | undefined>): ReadonlyArray<Tie> | undefined => {
  const ties = parts.flatMap((part) => part ?? [])
  return parts.every((part) => part !== undefined) && ties.length <= tiesMax ? ties : undefined
}
