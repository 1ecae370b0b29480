/** Predicates as they are written, as types that name no library's: those of plain applications reach them. See `Predicate.ts`. */
import type { Value } from "./Value.ts"

/** What `compile` is told under this name. */
export interface Reference {
  readonly principal: string
}

/** What has no parts. */
export type Scalar = null | boolean | number | bigint | string | Uint8Array | Date

type List = ReadonlyArray<Value> | Reference
type Ordered = Exclude<Scalar, null> | Reference

/** What is said of one field; all of it has to hold. */
export interface Operators {
  readonly eq?: Value
  readonly neq?: Value
  readonly gt?: Ordered
  readonly gte?: Ordered
  readonly lt?: Ordered
  readonly lte?: Ordered
  readonly between?: readonly [low: Ordered, high: Ordered]
  readonly in?: List
  readonly contains?: Value
  readonly containsAll?: List
  readonly containsAny?: List
  readonly startsWith?: string | Reference
  readonly like?: string
  readonly regex?: string
  readonly exists?: boolean
}

/** A condition on a value. */
export type Predicate =
  | { readonly [path: string]: Scalar | Reference | Operators }
  | Connectives

/** Other predicates together; there may be paths beside them. */
export type Connectives = {
  readonly and?: ReadonlyArray<Predicate>
  readonly or?: ReadonlyArray<Predicate>
  readonly not?: Predicate
}
