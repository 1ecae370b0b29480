/** Writes to several keys and maps that are made together: all of them visible, stored and sent in one step, or none. */
import type * as Grid from "@topgun/core/Grid"

/** A map of records: its handle, its declaration, or its name. */
export type MapRef<A> = Grid.MapLike<A> | { readonly declaration: Grid.MapDeclaration<A> }
/** A map of sets: its handle, its declaration, or its name. */
export type OrMapRef<A> = Grid.OrMapLike<A> | { readonly declaration: Grid.OrMapDeclaration<A> }
/** A counter: its handle, its declaration, or its name. */
export type CounterRef = Grid.CounterLike | { readonly declaration: Grid.CounterDeclaration }

/** A value's lifetime, in ms from the write. */
export interface Lifetime {
  readonly ttlMs?: number | undefined
}

/**
 * A batch while it is put together. What is refused throws, and nothing of the batch is written. Of several writes to a key
 * of a map of records the last one counts, and a counter's changes are one.
 */
export interface Batch {
  /** A key's value as this batch has left it so far. */
  get<A>(map: MapRef<A>, key: string): A | undefined
  set<A>(map: MapRef<A>, key: string, value: A, options?: Lifetime): void
  /** Writes what `next` makes of the value as this batch has left it so far; `undefined` deletes the key. */
  update<A>(map: MapRef<A>, key: string, next: (current: A | undefined) => A | undefined, options?: Lifetime): void
  remove<A>(map: MapRef<A>, key: string): void
  /** Removes a value from a key's set, be it one that this batch has added. */
  remove<A>(map: OrMapRef<A>, key: string, value: A): void
  add<A>(map: OrMapRef<A>, key: string, value: A, options?: Lifetime): void
  increment(counter: CounterRef, by?: number): void
  decrement(counter: CounterRef, by?: number): void
}
