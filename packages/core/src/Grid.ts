/**
 * Declarations of what a grid holds, shared by client, server and command line. A schema validates what is written; it
 * never transforms. It's an Effect Schema or anything that follows Standard Schema (standardschema.dev).
 *
 * This file's types name no library's types, so that the Promise form's don't either.
 */
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import type { FieldPath, TextPath } from "./FieldPath.ts"
import { type Index, indexesFrom, type IndexKind, type Search, searchFrom } from "./internal/indexOptions.ts"

export {
  type Index,
  indexesMax,
  indexFieldsMax,
  type IndexKind,
  type Search,
  searchFieldsMax
} from "./internal/indexOptions.ts"

/** A validator by the Standard Schema specification, version 1, as far as declarations need it. */
export interface StandardSchema<A> {
  readonly "~standard": {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => unknown
    readonly types?: { readonly input: unknown; readonly output: A } | undefined
  }
}

/** An Effect Schema without transformation or requirements, by its shape. */
export interface EffectSchema<A> {
  readonly Type: A
  readonly Encoded: A
  readonly Context: never
  readonly ast: object
}

/** How a map of values is kept. */
export interface MapOptions {
  /**
   * `all`: this device gets every record. `none`: it only writes, as to a log; what it hasn't written isn't sent to it.
   * @default "all"
   */
  readonly sync?: "all" | "none" | undefined
  /** How long a value lives, in ms from the write, where the write doesn't say. @default for ever */
  readonly ttlMs?: number | undefined
}

/** An index: a field, several of them in their order, or either with its kind. @default kind "sorted" */
export type IndexOption<A> = FieldPath<A> | ReadonlyArray<FieldPath<A>> | {
  readonly fields: FieldPath<A> | ReadonlyArray<FieldPath<A>>
  readonly kind?: IndexKind | undefined
}

/** Fields of text, or of lists of it, with their boosts: what a hit in one counts beside a hit in another. */
export type Boosts<A> = { readonly [Path in TextPath<A>]?: number }

/** How a map's values are found. Paths are written as in predicates: see `Predicate.ts`. */
export interface QueryOptions<A> {
  /**
   * The indexes that are kept, at most {@link indexesMax} of at most {@link indexFieldsMax} fields each. A query that finds one for it
   * looks at what it finds; without, at all values.
   * @default none
   */
  readonly indexes?: ReadonlyArray<IndexOption<A>> | undefined
  /**
   * Which fields are searched, at most {@link searchFieldsMax}, and in which language; without one, words are taken as they are.
   * @default none
   */
  readonly search?: Boosts<A> | { readonly fields: Boosts<A>; readonly language?: string | undefined } | undefined
}

/** What all maps of values have. */
export interface ValuesDeclaration<A> extends MapOptions {
  readonly name: string
  /** Whether {@link ValuesDeclaration.validate} can find any. */
  readonly hasSchema: boolean
  /** The faults of a value, in words; `undefined` when it fits. */
  readonly validate: (value: unknown) => string | undefined
  /** Carries the type only. */
  readonly Type?: A
}

/** A map of records, the last writer of a key winning. */
export interface MapDeclaration<A> extends ValuesDeclaration<A> {
  readonly _tag: "Map"
  readonly indexes: ReadonlyArray<Index>
  readonly search: Search | undefined
}

/** A map of sets of values: what one device adds while another removes is kept. */
export interface OrMapDeclaration<A> extends ValuesDeclaration<A> {
  readonly _tag: "OrMap"
}

/** A number that many devices count at once. */
export interface CounterDeclaration {
  readonly _tag: "Counter"
  readonly name: string
}

/** Any declaration. */
export type Declaration = MapDeclaration<unknown> | OrMapDeclaration<unknown> | CounterDeclaration

/** A map by its declaration or, untyped and unvalidated, by its name. */
export type MapLike<A> = MapDeclaration<A> | string

/** A map of sets by its declaration or, untyped and unvalidated, by its name. */
export type OrMapLike<A> = OrMapDeclaration<A> | string

/** A counter by its declaration or its name. */
export type CounterLike = CounterDeclaration | string

const kinds = { Map: "lww", OrMap: "or", Counter: "counter" } as const

/** The kind of map that a declaration asks for. */
export type KindOf<D extends { readonly _tag: Declaration["_tag"] }> = (typeof kinds)[D["_tag"]]

/** The kind of map that a declaration asks for. */
export const kindOf = <D extends { readonly _tag: Declaration["_tag"] }>({ _tag }: D): KindOf<D> =>
  kinds[_tag as D["_tag"]]

const issuesOf = (result: unknown): string | undefined => {
  if (typeof result !== "object" || result === null || !("issues" in result) || !Array.isArray(result.issues)) {
    return undefined
  }
  return result.issues.map((issue: { readonly message: string; readonly path?: ReadonlyArray<unknown> }) => {
    const path = (issue.path ?? []).map((part) =>
      String(typeof part === "object" && part !== null && "key" in part ? part.key : part)
    )
    return path.length === 0 ? issue.message : `${path.join(".")}: ${issue.message}`
  }).join("; ")
}

const isEffectSchema = (schema: object): schema is Schema.Schema.AnyNoContext => Schema.isSchema(schema)

const validator = (name: string, schema: object): (value: unknown) => string | undefined => {
  if (isEffectSchema(schema)) {
    const check = Schema.validateEither(schema, { onExcessProperty: "ignore" })
    return (value) =>
      Either.match(check(value), {
        onLeft: (fault) => ParseResult.TreeFormatter.formatErrorSync(fault),
        onRight: () => undefined
      })
  }
  if ("~standard" in schema) {
    const { validate } = (schema as StandardSchema<unknown>)["~standard"]
    return (value) => {
      const result = validate(value)
      return result instanceof Promise
        ? `the schema of map "${name}" validates asynchronously, which a local write can't wait for`
        : issuesOf(result)
    }
  }
  throw new TypeError(`The schema of map "${name}" is neither an Effect Schema nor a Standard Schema`)
}

const values = (name: string, schema: object | undefined, { sync, ttlMs }: MapOptions) => ({
  name,
  sync,
  ttlMs,
  hasSchema: schema !== undefined,
  validate: schema === undefined ? () => undefined : validator(name, schema)
})

/**
 * Declares a map. Without a schema its values are untyped and any storable value is accepted.
 *
 * @throws TypeError for a schema, an index or a search that is none
 */
export function map<A>(
  name: string,
  schema: EffectSchema<A> | StandardSchema<A>,
  options?: MapOptions & QueryOptions<NoInfer<A>>
): MapDeclaration<A>
export function map(
  name: string,
  schema?: undefined,
  options?: MapOptions & QueryOptions<unknown>
): MapDeclaration<unknown>
export function map(
  name: string,
  schema?: object,
  options?: MapOptions & QueryOptions<unknown>
): MapDeclaration<unknown> {
  return {
    _tag: "Map",
    ...values(name, schema, { sync: "all", ...options }),
    indexes: indexesFrom(name, options?.indexes),
    search: searchFrom(name, options?.search)
  }
}

/** Declares a map of sets of values. Without a schema they are untyped and any storable value is accepted. */
export function orMap<A>(
  name: string,
  schema: EffectSchema<A> | StandardSchema<A>,
  options?: MapOptions
): OrMapDeclaration<A>
export function orMap(name: string, schema?: undefined, options?: MapOptions): OrMapDeclaration<unknown>
export function orMap(name: string, schema?: object, options?: MapOptions): OrMapDeclaration<unknown> {
  return { _tag: "OrMap", ...values(name, schema, { sync: "all", ...options }) }
}

/** Declares a counter. */
export const counter = (name: string): CounterDeclaration => ({ _tag: "Counter", name })

/** The declaration of a map given either way. A name says nothing of how the map is kept. */
export const resolveMap = <A>(mapLike: MapLike<A>): MapDeclaration<A> =>
  typeof mapLike === "string" ? map(mapLike, undefined, { sync: undefined }) as MapDeclaration<A> : mapLike

/** The declaration of a map of sets given either way. */
export const resolveOrMap = <A>(mapLike: OrMapLike<A>): OrMapDeclaration<A> =>
  typeof mapLike === "string" ? orMap(mapLike, undefined, { sync: undefined }) as OrMapDeclaration<A> : mapLike

/** The declaration of a counter given either way. */
export const resolveCounter = (counterLike: CounterLike): CounterDeclaration =>
  typeof counterLike === "string" ? counter(counterLike) : counterLike
