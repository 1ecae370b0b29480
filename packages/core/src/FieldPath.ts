/**
 * The paths to the fields of a schema's values, as types: `"owner.id"` where `owner` is an object with an `id`. They are written as
 * predicates write them (see `Predicate.ts`): a backslash before a dot or a backslash in a name, and before a name that would be a
 * connective of predicates.
 *
 * Only objects have fields; text, bytes, dates and arrays have none. Of a union, each member's are fields, and so are those of what may
 * be absent or null. A path is checked down to {@link ValueAt}'s fourth field; a schema that goes deeper, or into itself, ends there.
 */

/** What has no fields. */
type Leaf = null | undefined | boolean | number | bigint | string | Uint8Array | Date | ReadonlyArray<unknown>

/** Fields of one path, less one; `never` ends it. */
type Fewer = { 4: 3; 3: 2; 2: 1; 1: never }

/** The name of a field, in a path. Most names have nothing to escape, which one question tells. */
type Escaped<Name extends string> = Name extends `${string}${"." | "\\"}${string}` ? EscapedEach<Name> : Name
type EscapedEach<Name extends string> = Name extends `${infer Char}${infer Others}`
  ? `${Char extends "." | "\\" ? `\\${Char}` : Char}${EscapedEach<Others>}`
  : Name

type PathsIn<A, Depth extends keyof Fewer> = unknown extends A ? string : A extends Leaf ? never : {
  [Name in keyof A & string]:
    | Escaped<Name>
    | ([Fewer[Depth]] extends [never] ? never : `${Escaped<Name>}.${PathsIn<A[Name], Fewer[Depth]>}`)
}[keyof A & string]

/** A connective's name as a path to a field. */
type Plain<Path extends string> = Path extends "and" | "or" | "not" ? `\\${Path}` : Path

/** All paths to fields of `A`. Any text, where nothing is known of it. */
export type FieldPath<A> = unknown extends A ? string : Plain<PathsIn<A, 4>>

type NamesOf<Path extends string> = Path extends `${string}\\${string}` ? NamesByChar<Path, "">
  : Path extends `${infer Name}.${infer Others}` ? [Name, ...NamesOf<Others>]
  : [Path]
type NamesByChar<Path extends string, Name extends string> = Path extends `\\${infer Char}${infer Others}`
  ? NamesByChar<Others, `${Name}${Char}`>
  : Path extends `.${infer Others}` ? [Name, ...NamesByChar<Others, "">]
  : Path extends `${infer Char}${infer Others}` ? NamesByChar<Others, `${Name}${Char}`>
  : [Name]

type FieldOf<A, Name> = unknown extends A ? unknown : A extends Leaf ? never : Name extends keyof A ? A[Name] : never
type ValueOf<A, Names> = Names extends readonly [infer Name, ...infer Others] ? ValueOf<FieldOf<A, Name>, Others> : A

/** What `A` has at a path, where it has anything there. */
export type ValueAt<A, Path extends string> = unknown extends A ? unknown
  : Exclude<ValueOf<A, NamesOf<Path>>, undefined>

/** The paths to texts, and to arrays of them: what can be searched. */
export type TextPath<A> = unknown extends A ? string
  : { [Path in FieldPath<A>]: HasText<ValueAt<A, Path>> extends true ? Path : never }[FieldPath<A>]

/** `true` when some value of it is text, or an array with text in it. */
type HasText<A> = unknown extends A ? true : [Extract<A, string | ReadonlyArray<string>>] extends [never] ? false : true
