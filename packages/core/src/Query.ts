/**
 * What a query asks of a map of records, as plain data: which records, in which order, how many, from where on.
 *
 * ```json
 * { "where": { "done": false }, "orderBy": [{ "field": "text", "direction": "asc" }], "limit": 50 }
 * ```
 *
 * - **where**: a `Predicate`. Records for which it is true are found, not those for which it is unknown.
 * - **search**: text to be found in the fields that the map is declared to be searched by (`FullText`). Without `orderBy` the best
 *   matches come first. With `where` both have to hold, or one of them with `hybrid`, where ranks are fused.
 * - **orderBy**: fields, the most important first. Without it, records come by their keys.
 * - **limit**: how many at most. **cursor**: only those after a row that an earlier answer ended with.
 * - **select**: the fields of the values to answer with. What `where` and `orderBy` speak of needn't be among them.
 *
 * **Order** is total, so that pages neither overlap nor leave anything out. Types come in this order: nothing there, null,
 * booleans (false first), numbers, bigints, texts, dates, bytes, arrays, objects; `desc` turns all of it round. Texts are compared
 * by code points, which is the order of their UTF-8 bytes: the same on every device, whatever its language. Where all fields are
 * equal the keys decide, by code points too, in the direction of the last field.
 *
 * **Cursors** stand for a place in the order, not for a row: a page begins after that place, whatever has become of the row
 * that was there. A record that moves across the place while pages are read may be met twice or never; one that stays is met
 * once. A cursor holds the query that it is of, by a digest, and a digest of itself: one that was changed, or is of another
 * query, is refused. It grants nothing: a place is only where to begin, and everything is judged as without it.
 */
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import type * as AST from "effect/SchemaAST"
import { MalformedMessage, QueryInvalid, QueryTooExpensive, RecordTooLarge, ValueNotSupported } from "./GridError.ts"
import { fromBase64, toBase64 } from "./internal/base64.ts"
import { fieldAt, fieldOf, type Fields, isFields } from "./internal/comparisons.ts"
import { compareFields, compareKeys, rankOf, ranks } from "./internal/fieldValues.ts"
import { type Hash64, hashBytes, hex } from "./internal/hash.ts"
import { namesOf, pathOf } from "./internal/paths.ts"
import * as Predicate from "./Predicate.ts"
import * as Value from "./Value.ts"

// --- Form ------------------------------------------------------------------------------------------------------------

export type Direction = "asc" | "desc"

/** One field to order by. */
export interface Order {
  /** A path, as in predicates. */
  readonly field: string
  /** @default "asc" */
  readonly direction?: Direction
}

/** Text to be found. */
export interface Search {
  readonly text: string
  /** Of the fields that the map is searched by, those to look into. @default all */
  readonly fields?: ReadonlyArray<string>
  /** Whether the last word may be the beginning of one. @default true */
  readonly prefix?: boolean
}

/** See the head of this module. */
export interface Query {
  readonly where?: Predicate.Predicate
  readonly search?: string | Search
  /** Whether a record that only one of `search` and `where` finds is found, too. @default false */
  readonly hybrid?: boolean
  readonly orderBy?: ReadonlyArray<Order>
  readonly limit?: number
  readonly cursor?: string
  readonly select?: ReadonlyArray<string>
}

/** Fields in `orderBy`, at most. */
export const orderByMax = 8
/** Fields in `select`, at most. */
export const selectMax = 256
/** The greatest limit. */
export const limitMax = 1_000_000
/** Characters of a text to be found, at most. */
export const searchLengthMax = 1_024
/** Characters of a cursor, at most: the fields of one record, and its key, fit into it. */
const cursorLengthMax = 512 * 1024

// --- Reading ---------------------------------------------------------------------------------------------------------

const invalid = (path: string, reason: string): QueryInvalid => new QueryInvalid({ path, reason })

const ownCopy = (input: unknown): Value.Value => {
  try {
    return Value.decodeTrusted(Value.encodeTransient(input))
  } catch (fault) {
    if (fault instanceof ValueNotSupported) throw invalid(fault.path, fault.reason)
    if (fault instanceof RecordTooLarge) throw invalid("$", `it has more than ${fault.limit} bytes`)
    throw fault
  }
}

const known = ["where", "search", "hybrid", "orderBy", "limit", "cursor", "select"]

/**
 * Passes a query from outside, as a frozen copy. Fields that are `undefined` may be left out.
 *
 * @throws QueryInvalid for whatever isn't one, with the place, as in `$.orderBy[1].field`, and what to do.
 * @throws QueryTooExpensive for patterns that would cost too much.
 */
export const parse = (input: unknown): Query => {
  if (typeof input !== "object" || input === null) {
    throw invalid("$", "a query is an object, such as { where: { done: false } }")
  }
  const given = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined))
  const { where, ...rest } = given
  const own = ownCopy(rest) as Fields
  for (const name of Object.keys(own)) {
    if (!known.includes(name)) {
      throw invalid(`$.${name.slice(0, 40)}`, `a query has ${known.join(", ")}, and nothing else`)
    }
  }
  const query = {
    ...own,
    ...where === undefined ? {} : { where: whereOf(where) }
  } as Query
  checkSearch(query)
  checkOrder(own["orderBy"])
  checkSelect(own["select"])
  const { limit } = own
  if (limit !== undefined && !(Number.isInteger(limit) && (limit as number) >= 1 && (limit as number) <= limitMax)) {
    throw invalid("$.limit", `a limit is a whole number from 1 to ${limitMax}`)
  }
  if (query.cursor !== undefined) positionOf(query)
  return Object.freeze(query)
}

const whereOf = (input: unknown): Predicate.Predicate => {
  let where: Predicate.Predicate
  try {
    where = Predicate.parse(input)
  } catch (fault) {
    const at = (path: string) => `$.where${path.slice(1)}`
    if (fault instanceof QueryInvalid) throw invalid(at(fault.path), fault.reason)
    if (fault instanceof QueryTooExpensive) throw new QueryTooExpensive({ path: at(fault.path), reason: fault.reason })
    throw fault
  }
  if (Predicate.referencesOf(where).length > 0) {
    throw invalid("$.where", "{ principal: … } is for policies: an object with this field is written { literal: … }")
  }
  return where
}

const pathAt = (value: Value.Value | undefined, at: string): void => {
  if (typeof value !== "string") throw invalid(at, "a field is named by its path, such as \"owner.id\"")
  namesOf(value, at)
}

const searchForm = "it is text, or { text, fields, prefix }"

const checkSearch = ({ hybrid, search, where }: Query): void => {
  if (hybrid !== undefined && typeof hybrid !== "boolean") throw invalid("$.hybrid", "it is true or false")
  if (hybrid === true && (search === undefined || where === undefined)) {
    throw invalid("$.hybrid", "it takes both \"search\" and \"where\"")
  }
  if (search === undefined) return
  const long = typeof search === "string" ? { text: search } : search as unknown as Value.Value
  if (!isFields(long)) throw invalid("$.search", searchForm)
  const { fields, prefix, text, ...others } = long
  if (typeof text !== "string") throw invalid("$.search", searchForm)
  if (text.length > searchLengthMax) throw invalid("$.search", `it has at most ${searchLengthMax} characters`)
  if (prefix !== undefined && typeof prefix !== "boolean") throw invalid("$.search.prefix", "it is true or false")
  if (fields !== undefined) {
    if (!Array.isArray(fields) || fields.length === 0) throw invalid("$.search.fields", "it is a list of paths")
    fields.forEach((field, i) => pathAt(field, `$.search.fields[${i}]`))
  }
  if (Object.keys(others).length > 0) throw invalid("$.search", searchForm)
}

const checkOrder = (orderBy: Value.Value | undefined): void => {
  if (orderBy === undefined) return
  if (!Array.isArray(orderBy) || orderBy.length === 0 || orderBy.length > orderByMax) {
    throw invalid(
      "$.orderBy",
      `it is a list of 1 to ${orderByMax} fields, such as [{ field: "text", direction: "desc" }]`
    )
  }
  orderBy.forEach((order: Value.Value, i: number) => {
    const at = `$.orderBy[${i}]`
    if (!isFields(order)) throw invalid(at, "it is an object, such as { field: \"text\", direction: \"desc\" }")
    for (const name of Object.keys(order)) {
      if (name !== "field" && name !== "direction") {
        throw invalid(at, "it has a field and a direction, and nothing else")
      }
    }
    pathAt(order["field"], `${at}.field`)
    const { direction } = order
    if (direction !== undefined && direction !== "asc" && direction !== "desc") {
      throw invalid(`${at}.direction`, "it is \"asc\" or \"desc\"")
    }
  })
}

const checkSelect = (select: Value.Value | undefined): void => {
  if (select === undefined) return
  if (!Array.isArray(select) || select.length === 0 || select.length > selectMax) {
    throw invalid("$.select", `it is a list of 1 to ${selectMax} paths`)
  }
  select.forEach((path: Value.Value, i: number) => pathAt(path, `$.select[${i}]`))
}

const parsed = (
  input: unknown,
  _: unknown,
  ast: AST.Declaration
): Either.Either<Query, ParseResult.ParseIssue> =>
  Either.try({
    try: () => parse(input),
    catch: (fault) => {
      if (fault instanceof QueryInvalid) return new ParseResult.Type(ast, input, fault.message)
      throw fault
    }
  })

/** As {@link parse}, in other schemas. Its issue is the message of QueryInvalid. */
export const Query: Schema.Schema<Query> = Schema.declare(
  [],
  { decode: () => parsed, encode: () => parsed },
  { identifier: "Query", description: "a query" }
)

// --- What a query speaks of ------------------------------------------------------------------------------------------

/** The search of a query in its long form. */
export const searchOf = ({ search }: Query): Search | undefined =>
  typeof search === "string" ? { text: search } : search

/** The paths that decide which records it finds, in which order, each once; `select` has no part in that. */
export const fieldsOf = (query: Query): ReadonlyArray<string> =>
  Array.from(
    new Set([
      ...query.where === undefined ? [] : Predicate.fieldsOf(query.where),
      ...(query.orderBy ?? []).map(({ field }) => pathOf(namesOf(field, "$"))),
      ...searchOf(query)?.fields ?? []
    ])
  )

/** What it is found and ordered by, field by field, and where the query says so. */
export const placesOf = (
  query: Query
): ReadonlyArray<{ readonly at: string; readonly names: ReadonlyArray<string> }> => [
  ...(query.where === undefined ? [] : Predicate.fieldsOf(query.where)).map((path) => ({
    at: `$.where (${JSON.stringify(path)})`,
    names: namesOf(path, "$")
  })),
  ...(query.orderBy ?? []).map(({ field }, i) => ({ at: `$.orderBy[${i}].field`, names: namesOf(field, "$") })),
  ...(searchOf(query)?.fields ?? []).map((path, i) => ({ at: `$.search.fields[${i}]`, names: namesOf(path, "$") }))
]

/** What queries have in common that ask for the same, in the same order: their places are each other's. */
const orderOf = (query: Query): Value.Value => {
  const { hybrid, orderBy, where } = query
  const { fields, prefix, text } = searchOf(query) ?? {}
  return [
    (where ?? null) as Value.Value,
    text === undefined
      ? null
      : [text, fields === undefined ? null : Array.from(fields), prefix ?? true, hybrid ?? false],
    (orderBy ?? []).map(({ direction, field }) => [pathOf(namesOf(field, "$")), direction ?? "asc"])
  ]
}

const digestOf = (bytes: Uint8Array): string => {
  const hash: Hash64 = { hi: 0, lo: 0 }
  hashBytes(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0, bytes.length, 0x746f7067, 0x71727931, hash)
  return hex(hash)
}

/** A text that is equal for queries that have equal answers: by it they share one evaluation. */
export const identityOf = (query: Query): string =>
  toText(Value.encodeTransient([
    orderOf(query),
    query.limit ?? null,
    query.cursor ?? null,
    query.select === undefined ? null : Array.from(query.select)
  ]))

// --- Order -----------------------------------------------------------------------------------------------------------

/** A record that a query has found. */
export interface Row {
  readonly key: string
  readonly value: unknown
  /** What it is ordered by: a field, or a list of them where there are several; of a search without `orderBy`, the score. */
  readonly sort: unknown
  /** How well it matches a search: only to be compared with that of other rows. */
  readonly score?: number
}

/** How the rows of a query are ordered. */
export interface Ordering {
  /** What a record is ordered by: see {@link Row}. */
  readonly sortOf: (value: unknown) => unknown
  /** Below 0 when `a` comes first. 0 only for rows of one key. */
  readonly compare: (a: Place, b: Place) => number
  /** The same order, of a record that isn't a row yet. Allocates nothing. */
  readonly compareTo: (key: string, value: unknown, row: Place) => number
}

/** A place in the order of rows. */
export type Place = Pick<Row, "key" | "sort">

/** The order of rows by their scores: the best first. */
export const byScore: Ordering = {
  sortOf: () => undefined,
  compare: (a, b) => (b.sort as number) - (a.sort as number) || compareKeys(a.key, b.key),
  compareTo: () => {
    throw new Error("a record has no score by itself")
  }
}

/** Whether a query's rows come by how well they match. */
export const isRanked = ({ hybrid, orderBy, search }: Query): boolean =>
  search !== undefined && (hybrid === true || orderBy === undefined)

/** The order of a query's rows. */
export const orderingOf = (query: Query): Ordering => isRanked(query) ? byScore : ordering(query.orderBy)

/** The order that a query's `orderBy` stands for. */
export const ordering = (orderBy: ReadonlyArray<Order> = []): Ordering => {
  const fields = orderBy.map(({ field }) => namesOf(field, "$"))
  const signs = orderBy.map(({ direction }) => direction === "desc" ? -1 : 1)
  const keySign = signs[signs.length - 1] ?? 1
  const byKey = keySign === 1
    ? (a: string, b: string) => compareKeys(a, b)
    : (a: string, b: string) => compareKeys(b, a)
  if (fields.length === 0) {
    return {
      sortOf: () => undefined,
      compare: (a, b) => byKey(a.key, b.key),
      compareTo: (key, _, row) => byKey(key, row.key)
    }
  }
  if (fields.length === 1) {
    const [names] = fields as [ReadonlyArray<string>]
    return {
      sortOf: (value) => fieldAt(value, names),
      compare: (a, b) => {
        const order = compareFields(a.sort, b.sort)
        return order === 0 ? byKey(a.key, b.key) : order * keySign
      },
      compareTo: (key, value, row) => {
        const order = compareFields(fieldAt(value, names), row.sort)
        return order === 0 ? byKey(key, row.key) : order * keySign
      }
    }
  }
  return {
    sortOf: (value) => fields.map((names) => fieldAt(value, names)),
    compare: (a, b) => {
      for (let i = 0; i < fields.length; i++) {
        const order = compareFields((a.sort as ReadonlyArray<unknown>)[i], (b.sort as ReadonlyArray<unknown>)[i])
        if (order !== 0) return order * signs[i]!
      }
      return byKey(a.key, b.key)
    },
    compareTo: (key, value, row) => {
      for (let i = 0; i < fields.length; i++) {
        const order = compareFields(fieldAt(value, fields[i]!), (row.sort as ReadonlyArray<unknown>)[i])
        if (order !== 0) return order * signs[i]!
      }
      return byKey(key, row.key)
    }
  }
}

/** Rows that a query has found, in its order. */
export interface Answer {
  readonly rows: ReadonlyArray<Row>
  /** Whether there are rows after these. */
  readonly hasMore: boolean
}

/**
 * The answer to a query of which each of several nodes has answered for the records that it has: all were asked the same, its limit and cursor
 * included. Scores are each node's own, of the records that it has.
 */
export const gather = (query: Query, answers: ReadonlyArray<Answer>): Answer => {
  const rows = answers.flatMap((answer) => answer.rows).sort(orderingOf(query).compare)
  const first = rows.slice(0, query.limit)
  return { rows: first, hasMore: first.length < rows.length || answers.some(({ hasMore }) => hasMore) }
}

// --- Cursors ---------------------------------------------------------------------------------------------------------

const cursorVersion = 1

/** Of what has no order of its own only the type counts. */
const placed = (field: unknown): Value.Value => {
  const rank = rankOf(field)
  return rank === ranks.missing ? [] : [rank === ranks.array ? [] : rank === ranks.object ? {} : field as Value.Value]
}

const isPlaced = (field: Value.Value): field is ReadonlyArray<Value.Value> => Array.isArray(field) && field.length <= 1

/** The place of a row in the order of a query. */
export const cursorOf = (query: Query, { key, sort }: Place): string => {
  const fields = isRanked(query) || query.orderBy?.length === 1
    ? [placed(sort)]
    : query.orderBy === undefined
    ? []
    : (sort as ReadonlyArray<unknown>).map(placed)
  const bound = digestOf(Value.encodeTransient(orderOf(query)))
  // Each of a record's fields fits into a value; all of them with its key and two digests may be a little more.
  const content = Value.encode([cursorVersion, bound, fields, key], cursorLengthMax)
  return toText(Value.encode([content, digestOf(content)], cursorLengthMax))
}

/** The place where a query begins; `undefined` without a cursor. @throws QueryInvalid when it was changed, or isn't this query's */
export const positionOf = (query: Query): Place | undefined => {
  const { cursor } = query
  if (cursor === undefined) return undefined
  const at = "$.cursor"
  if (typeof cursor !== "string" || cursor.length > cursorLengthMax * 2) {
    throw invalid(at, "it is what an answer gave as its cursor")
  }
  const [content, digest] = partsOf(cursor, at)
  if (!(content instanceof Uint8Array) || digest !== digestOf(content)) {
    throw invalid(at, "it was changed: begin without one")
  }
  const [version, bound, fields, key] = listOf(content, at)
  if (version !== cursorVersion || !Array.isArray(fields) || typeof key !== "string" || !fields.every(isPlaced)) {
    throw invalid(at, "it is of another version: begin without one")
  }
  if (bound !== digestOf(Value.encodeTransient(orderOf(query)))) {
    throw invalid(at, "it is of another query: where, search and orderBy stay the same from page to page")
  }
  const sort = fields.map(([field]: ReadonlyArray<Value.Value>) => field)
  return { key, sort: sort.length === 1 ? sort[0] : sort.length === 0 ? undefined : sort }
}

const listOf = (bytes: Uint8Array, at: string): ReadonlyArray<Value.Value> => {
  try {
    const value = Value.decode(bytes)
    if (Array.isArray(value)) return value
  } catch (fault) {
    if (!(fault instanceof MalformedMessage || fault instanceof RecordTooLarge)) throw fault
  }
  throw invalid(at, "it was changed: begin without one")
}

const partsOf = (cursor: string, at: string): ReadonlyArray<Value.Value> => {
  const bytes = fromText(cursor)
  if (bytes === undefined) throw invalid(at, "it was changed: begin without one")
  return listOf(bytes, at)
}

/** As it stands in a URL, too. */
const toText = (bytes: Uint8Array): string =>
  toBase64(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")

const fromText = (text: string): Uint8Array | undefined => {
  if (!/^[\w-]*$/.test(text)) return undefined
  try {
    return fromBase64(text.replaceAll("-", "+").replaceAll("_", "/"))
  } catch {
    // Of a length that no bytes have.
    return undefined
  }
}

// --- Selecting -------------------------------------------------------------------------------------------------------

type Selected = Map<string, Selected | "whole">

/** The value with the fields that are selected, as far as it has them; itself where nothing is. */
export const selector = (select: ReadonlyArray<string> | undefined): (value: unknown) => unknown => {
  if (select === undefined) return (value) => value
  const root: Selected = new Map()
  for (const path of select) {
    const names = namesOf(path, "$.select")
    let within = root
    for (const [i, name] of names.entries()) {
      const next = within.get(name)
      if (next === "whole") break
      if (i === names.length - 1) within.set(name, "whole")
      else {
        const inner: Selected = next ?? new Map()
        within.set(name, inner)
        within = inner
      }
    }
  }
  return (value) => selectIn(value, root)
}

const selectIn = (value: unknown, selected: Selected): unknown => {
  const fields: Array<readonly [string, unknown]> = []
  for (const [name, inner] of selected) {
    const field = fieldOf(value, name)
    if (field === undefined) continue
    if (inner === "whole") fields.push([name, field])
    else if (isFields(field as Value.Value)) fields.push([name, selectIn(field, inner)])
  }
  return Object.freeze(Object.fromEntries(fields))
}
