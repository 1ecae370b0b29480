/**
 * Predicates of a schema's values: {@link Where} checks one that is written as data, {@link of} builds one field by field. Both come to
 * the same plain data, which is a `Predicate` and means what `Predicate.ts` says.
 *
 * ```ts
 * const open: Where<Todo> = { done: false, "owner.name": { startsWith: "A" }, not: { tags: { contains: "draft" } } }
 * const same = Where.of<Todo>((todo) =>
 *   Where.and(todo.done.eq(false), todo.owner.name.startsWith("A"), Where.not(todo.tags.contains("draft")))
 * )
 * ```
 */
import type { FieldPath, ValueAt } from "./FieldPath.ts"
import { pathOf } from "./internal/paths.ts"
import type { Operators, Predicate, Reference, Scalar } from "./PredicateForm.ts"
import type { Value } from "./internal/valueForm.ts"

// --- As data ---------------------------------------------------------------------------------------------------------

/** A value of the field's type, or what stands for one. */
type Operand<V> = AsGiven<V> | Reference | { readonly literal: AsGiven<V> }
type AsGiven<V> = V extends Uint8Array | Date ? V : V extends ReadonlyArray<infer Element> ? ReadonlyArray<Element> : V

type Ordered<V> = Extract<V, Exclude<Scalar, null>>
type OrderedOperand<V> = [Ordered<V>] extends [never] ? never : Ordered<V> | Reference

/** What an array's elements, or a text's parts, may be. */
type Part<V> = V extends string ? string
  : V extends Uint8Array ? never :
  V extends ReadonlyArray<infer Element> ? Element
  : never
type PartOperand<V> = [Part<V>] extends [never] ? never : Operand<Part<V>>

type TextOperand<V, Taken> = [Extract<V, string>] extends [never] ? never : Taken

/** What can be said of a field of this type. */
export interface OperatorsOf<V> {
  readonly eq?: Operand<V>
  readonly neq?: Operand<V>
  readonly gt?: OrderedOperand<V>
  readonly gte?: OrderedOperand<V>
  readonly lt?: OrderedOperand<V>
  readonly lte?: OrderedOperand<V>
  readonly between?: [Ordered<V>] extends [never] ? never : readonly [low: OrderedOperand<V>, high: OrderedOperand<V>]
  readonly in?: ReadonlyArray<Operand<V>> | Reference
  readonly contains?: PartOperand<V>
  readonly containsAll?: [Part<V>] extends [never] ? never : ReadonlyArray<PartOperand<V>> | Reference
  readonly containsAny?: [Part<V>] extends [never] ? never : ReadonlyArray<PartOperand<V>> | Reference
  readonly startsWith?: TextOperand<V, string | Reference>
  readonly like?: TextOperand<V, string>
  readonly regex?: TextOperand<V, string>
  readonly exists?: boolean
}

/** The predicates of `A`'s values. Of values of which nothing is known, it is any. */
export type Where<A> = unknown extends A ? Predicate : Connectives<A> & Fields<A>

/** Other predicates of the same values together. */
export interface Connectives<A> {
  readonly and?: ReadonlyArray<Where<A>>
  readonly or?: ReadonlyArray<Where<A>>
  readonly not?: Where<A>
  readonly [ofType]?: (value: A) => void
}

/** Carries the type only: what is asked of one schema's values isn't asked of another's. */
declare const ofType: unique symbol

/** What is said of fields, by their paths. */
export type Fields<A> = { readonly [Path in FieldPath<A>]?: FieldCondition<ValueAt<A, Path>> }
type FieldCondition<V> = unknown extends V ? Scalar | Reference | Operators
  : Extract<V, Scalar> | Reference | OperatorsOf<V>

// --- Built -----------------------------------------------------------------------------------------------------------

/** A predicate of `A`'s values, as {@link of} has built it: plain data. */
export interface Condition<A> {
  readonly and?: never
  readonly or?: never
  readonly not?: never
  readonly [ofType]?: (value: A) => void
}

/** What is said of a field, as calls; `todo.title.startsWith("A")`. There are those that its type has an operator for. */
type Methods<A, V> =
  & {
    readonly [
      Name in Exclude<keyof OperatorsOf<V>, "between" | "exists"> as [Exclude<OperatorsOf<V>[Name], undefined>] extends
        [never] ? never : Name
    ]: (operand: Exclude<OperatorsOf<V>[Name], undefined>) => Condition<A>
  }
  & ([Ordered<V>] extends [never] ? unknown
    : { readonly between: (low: OrderedOperand<V>, high: OrderedOperand<V>) => Condition<A> })
  & { readonly exists: (expected?: boolean) => Condition<A> }

type Known<V> = unknown extends V ? Value : Exclude<V, undefined>
type NameIn<V> = unknown extends V ? string : V extends Fieldless ? never : keyof V & string
type ValueIn<V, Name> = unknown extends V ? unknown
  : V extends Fieldless ? never
  : Name extends keyof V ? V[Name]
  : never
type Fieldless = Exclude<Scalar, null> | ReadonlyArray<unknown>

/** A field, or the fields of one. `field` names those that would be taken for operators. */
export type Field<A, V> =
  & Methods<A, Known<V>>
  & Subfields<A, V, keyof Operators | "field">
  & { readonly field: <Name extends NameIn<V>>(name: Name) => Field<A, ValueIn<V, Name>> }

/** The fields of a value, by their names. */
export type FieldsOf<A> = Subfields<A, A, never>

type Subfields<A, V, Taken> = unknown extends V ? { readonly [name: string]: Field<A, unknown> }
  : { readonly [Name in Exclude<NameIn<V>, Taken>]: Field<A, ValueIn<V, Name>> }

const operators: { readonly [Name in keyof Operators]-?: true } = {
  eq: true,
  neq: true,
  gt: true,
  gte: true,
  lt: true,
  lte: true,
  between: true,
  in: true,
  contains: true,
  containsAll: true,
  containsAny: true,
  startsWith: true,
  like: true,
  regex: true,
  exists: true
}

/** What stands for `eq` of it, when it stands alone. */
const isShort = (operand: unknown): boolean =>
  typeof operand !== "object" || operand === null || operand instanceof Date || operand instanceof Uint8Array ||
  (Object.hasOwn(operand, "principal") && Object.keys(operand).length === 1)

const conditionOf =
  (names: ReadonlyArray<string>, operator: string) => (...operands: ReadonlyArray<unknown>): unknown => {
    const [operand = true] = operands
    const said = operator === "between" ? { between: operands } : { [operator]: operand }
    return { [pathOf(names)]: operator === "eq" && isShort(operand) ? operand : said }
  }

const fieldAt = (names: ReadonlyArray<string>): unknown =>
  new Proxy({}, {
    get: (_, name) => {
      if (typeof name === "symbol") return undefined
      if (names.length > 0 && Object.hasOwn(operators, name)) return conditionOf(names, name)
      if (names.length > 0 && name === "field") return (inner: string) => fieldAt([...names, inner])
      return fieldAt([...names, name])
    }
  })

/** Builds a predicate of `A`'s values, from their fields. */
export const of = <A>(build: (fields: FieldsOf<A>) => Condition<A>): Where<A> =>
  build(fieldAt([]) as FieldsOf<A>) as Where<A>

/** True when all parts are, false when one is. */
export const and = <A>(...parts: ReadonlyArray<Condition<A>>): Condition<A> =>
  ({ and: parts }) as unknown as Condition<A>

/** True when one part is, false when all are. */
export const or = <A>(...parts: ReadonlyArray<Condition<A>>): Condition<A> => ({ or: parts }) as unknown as Condition<A>

/** True when the part is false; of what isn't known it isn't known. */
export const not = <A>(part: Condition<A>): Condition<A> => ({ not: part }) as unknown as Condition<A>
