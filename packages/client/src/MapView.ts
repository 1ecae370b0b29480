/** The reading half of a map's handle: synchronous, from memory, the same in both forms of the client. */
import type { LwwMap } from "@topgun/core/LwwMap"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import * as Live from "./Live.ts"
import type { Change } from "./Reports.ts"

/** What a view needs of the replica. */
export interface Source {
  /** The map's records. @throws NotLoaded before they are */
  readonly map: () => LwwMap
  readonly subscribe: (listener: (changes: ReadonlyArray<Change<unknown>>) => void, signal?: AbortSignal) => () => void
  readonly watch: (key: string, listener: (change: Change<unknown>) => void, signal?: AbortSignal) => () => void
}

/** Values are frozen; a key's value is the same object until it changes. Every read throws NotLoaded before the map is. */
export class MapView<A> implements Iterable<readonly [key: string, value: A]> {
  readonly name: string
  readonly #source: Source

  constructor(name: string, source: Source) {
    this.name = name
    this.#source = source
  }

  get(key: string): A | undefined {
    return this.#source.map().get(key) as A | undefined
  }

  has(key: string): boolean {
    return this.#source.map().has(key)
  }

  keys(): IterableIterator<string> {
    return this.#source.map().keys()
  }

  values(): IterableIterator<A> {
    return this.#source.map().values() as IterableIterator<A>
  }

  entries(): IterableIterator<readonly [key: string, value: A]> {
    return this.#source.map().entries() as IterableIterator<[string, A]>
  }

  [Symbol.iterator](): IterableIterator<readonly [key: string, value: A]> {
    return this.entries()
  }

  /** The number of keys that have a value. */
  get size(): number {
    return this.#source.map().size
  }

  /** The record behind a key, tombstones too: its stamp and its canonical bytes. */
  getRecord(key: string): LwwRecord | undefined {
    return this.#source.map().getRecord(key)
  }

  /** The Merkle root of the confirmed records, 16 hex digits: equal on two devices whose confirmed records are. */
  get digest(): string {
    return this.#source.map().digest
  }

  /** Calls `listener` with all changes of one step, local and remote, until stopped. */
  subscribe(
    listener: (changes: ReadonlyArray<Change<A>>) => void,
    options?: { readonly signal?: AbortSignal }
  ): () => void {
    return this.#source.subscribe(listener as (changes: ReadonlyArray<Change<unknown>>) => void, options?.signal)
  }

  /** One key's value as it changes. */
  live(key: string): Live.Live<A | undefined> {
    return Live.make(
      () => this.get(key),
      (listener, signal) => this.#source.watch(key, (change) => listener(change.value as A | undefined), signal)
    )
  }
}
