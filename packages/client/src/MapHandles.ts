/**
 * Handles of maps, in what both forms of the client have in common: reads are synchronous, from memory; what a write answers
 * is `Written`, an Effect in one form and a `Write` in the other.
 */
import type { MapKind } from "@topgun/core/Cell"
import { type CrdtOf, sizeOf } from "@topgun/core/CrdtStore"
import type { CounterDeclaration, Declaration, MapDeclaration, OrMapDeclaration } from "@topgun/core/Grid"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import { checkAmount } from "@topgun/core/PnCounter"
import type { WriteConcern } from "@topgun/core/WriteConcern"
import type { Audience } from "./Announcements.ts"
import * as Live from "./Live.ts"
import type { Change, MapStatus } from "./Reports.ts"
import type { Replica } from "./Replica.ts"
import { check, checkTtl, type LocalWrite, type UntimedOptions, type WriteOptions } from "./Write.ts"

/** Makes a write on the replica, at the concern that was settled for it. @throws WriteRefusal */
export type Writing = (replica: Replica["Type"], concern: WriteConcern) => LocalWrite

/** Where a map's audience is found, now or later. */
interface Listening {
  /** Calls `attach` as soon as the device is open, unless the returned function is called before. */
  readonly listen: (
    attach: (audience: Audience, signal: AbortSignal | undefined) => () => void,
    signal: AbortSignal | undefined
  ) => () => void
}

/** The way of one form of the client to a map on the device. */
export interface Access<Kind extends MapKind, Written> extends Listening {
  /** The map. @throws NotLoaded before the device is open, ClientClosed and MapKindMismatch where it tells by throwing */
  readonly crdt: () => CrdtOf<Kind>
  /** Hands a write in; `early` is what of it can be checked before the device is open. */
  readonly write: (writing: Writing, options: WriteOptions | undefined, early?: () => void) => Written
  /** How the map stands with the server; reading it throws as {@link crdt} does. */
  readonly status: Live.Live<MapStatus>
}

/** How a listener is added. */
export interface ListenOptions {
  readonly signal?: AbortSignal
}

const subscribe = <A>(
  access: Listening,
  listener: (changes: ReadonlyArray<Change<A>>) => void,
  options: ListenOptions | undefined
): () => void =>
  access.listen(
    (audience, signal) => audience.subscribe(listener as (changes: ReadonlyArray<Change<unknown>>) => void, signal),
    options?.signal
  )

const live = <A>(access: Listening, key: string, read: () => A): Live.Live<A> =>
  Live.make(
    read,
    (listener, signal) =>
      access.listen((audience, own) => audience.watch(key, (change) => listener(change.value as A), own), signal)
  )

/** What the handles of all kinds have. */
abstract class Handle<Declared extends Declaration, Kind extends MapKind, Written> {
  readonly declaration: Declared
  protected readonly access: Access<Kind, Written>

  constructor(declaration: Declared, access: Access<Kind, Written>) {
    this.declaration = declaration
    this.access = access
  }

  get name(): string {
    return this.declaration.name
  }

  /** The Merkle root of the confirmed records, 16 hex digits: equal on two devices whose confirmed records are. */
  get digest(): string {
    return this.access.crdt().cells.digest
  }

  /** Whether the map is in step with the server, or ever was. */
  get status(): Live.Live<MapStatus> {
    return this.access.status
  }
}

/** A map of records. Values are frozen; a key's value is the same object until it changes. */
export class MapHandle<A, Written> extends Handle<MapDeclaration<A>, "lww", Written>
  implements Iterable<readonly [key: string, value: A]>
{
  get(key: string): A | undefined {
    return this.access.crdt().cells.get(key) as A | undefined
  }

  has(key: string): boolean {
    return this.access.crdt().cells.has(key)
  }

  keys(): IterableIterator<string> {
    return this.access.crdt().cells.keys()
  }

  values(): IterableIterator<A> {
    return this.access.crdt().cells.values() as IterableIterator<A>
  }

  entries(): IterableIterator<readonly [key: string, value: A]> {
    return this.access.crdt().cells.entries() as IterableIterator<[string, A]>
  }

  [Symbol.iterator](): IterableIterator<readonly [key: string, value: A]> {
    return this.entries()
  }

  /** The number of keys that have a value. */
  get size(): number {
    return this.access.crdt().cells.size
  }

  /** What doesn't fit the map's schema in a key's value, which others have written; `undefined` when it fits. */
  issues(key: string): string | undefined {
    const value = this.get(key)
    return value === undefined ? undefined : this.declaration.validate(value)
  }

  /** The record behind a key, tombstones too: its stamp and its canonical bytes. */
  getRecord(key: string): LwwRecord | undefined {
    return this.access.crdt().cells.getRecord(key)
  }

  /**
   * Joins a record that was made elsewhere, given as its row, under its own stamp: it's written where nothing later is here, and
   * sent as any write. Refused where it comes from too far in the future.
   */
  merge(key: string, record: { readonly row: Uint8Array }, options?: UntimedOptions): Written {
    const { declaration } = this
    return this.access.write(
      (replica, concern) => replica.writeAll(() => [replica.draftRecord(declaration, key, record.row)], concern, false),
      options
    )
  }

  /** Writes a value. Refused at once, with nothing changed, where it can't be stored. */
  set(key: string, value: A, options?: WriteOptions): Written {
    return this.#write(key, () => value, options, () => {
      check(this.declaration, key, value)
      checkTtl(options?.ttlMs)
    })
  }

  /** Deletes a key, whether or not this device knows it. */
  remove(key: string, options?: WriteOptions): Written {
    return this.#write(key, () => undefined, options)
  }

  /** Writes what `next` makes of the present value; `undefined` deletes the key. */
  update(key: string, next: (current: A | undefined) => A | undefined, options?: WriteOptions): Written {
    return this.#write(key, (current) => next(current()), options)
  }

  /** Deletes all keys that this device knows, in one step here: each deletion is an operation of its own. */
  clear(options?: WriteOptions): Written {
    const { declaration } = this
    return this.access.write((replica, concern) => {
      const { cells } = replica.openMap(declaration.name, "lww")
      const drafts = () => Array.from(cells.keys(), (key) => replica.draft(declaration, key, undefined))
      return replica.writeAll(drafts, concern, false)
    }, options)
  }

  /** Calls `listener` with all changes of one step, local and remote, until stopped. */
  subscribe(listener: (changes: ReadonlyArray<Change<A>>) => void, options?: ListenOptions): () => void {
    return subscribe(this.access, listener, options)
  }

  /** One key's value as it changes. */
  live(key: string): Live.Live<A | undefined> {
    return live(this.access, key, () => this.get(key))
  }

  #write(
    key: string,
    next: (current: () => A | undefined) => A | undefined,
    options: WriteOptions | undefined,
    early?: () => void
  ): Written {
    const ttlMs = options?.ttlMs ?? this.declaration.ttlMs
    return this.access.write(
      (replica, concern) => replica.write(this.declaration, key, next, { concern, ttlMs }),
      options,
      early
    )
  }
}

/** A map of sets of values: what one device adds while another removes is kept. Sets are frozen, and the same until they change. */
export class OrMapHandle<A, Written> extends Handle<OrMapDeclaration<A>, "or", Written> {
  /** The values of a key in the order in which they were added first; none where there is no such key. */
  getValues(key: string): ReadonlyArray<A> {
    return this.access.crdt().orMap.getValues(key) as ReadonlyArray<unknown> as ReadonlyArray<A>
  }

  /** Whether the key has a value. */
  has(key: string): boolean {
    return this.access.crdt().orMap.has(key)
  }

  /** The keys that have a value. */
  keys(): IterableIterator<string> {
    return this.access.crdt().orMap.keys()
  }

  entries(): IterableIterator<readonly [key: string, values: ReadonlyArray<A>]> {
    return this.access.crdt().orMap.entries() as IterableIterator<[string, ReadonlyArray<unknown>]> as IterableIterator<
      [string, ReadonlyArray<A>]
    >
  }

  [Symbol.iterator](): IterableIterator<readonly [key: string, values: ReadonlyArray<A>]> {
    return this.entries()
  }

  /** The number of keys that have a value. */
  get size(): number {
    return sizeOf(this.access.crdt())
  }

  /** What doesn't fit the map's schema in a key's values, which others have written; `undefined` when all fit. */
  issues(key: string): string | undefined {
    const issues = this.getValues(key).map(this.declaration.validate).filter((each) => each !== undefined)
    return issues.length === 0 ? undefined : issues.join("; ")
  }

  /** Adds a value to a key's. */
  add(key: string, value: A, options?: WriteOptions): Written {
    return this.#writeAll(
      (replica) => [replica.draftAddition(this.declaration, key, value, options?.ttlMs)],
      options,
      () => {
        check(this.declaration, key, value)
        checkTtl(options?.ttlMs)
      }
    )
  }

  /** Removes a value of a key, as far as this device knows of its additions; one that is added elsewhere meanwhile stays. */
  remove(key: string, value: A, options?: WriteOptions): Written {
    return this.#writeAll((replica) => replica.draftRemoval(this.declaration, key, value), options)
  }

  /** Removes all values of a key, as {@link remove} does. */
  removeAll(key: string, options?: WriteOptions): Written {
    return this.#writeAll((replica) => replica.draftRemoval(this.declaration, key), options)
  }

  /** Removes all values of all keys, as {@link remove} does, in one step here: each removal is an operation of its own. */
  clear(options?: WriteOptions): Written {
    return this.#writeAll((replica) => {
      const keys = replica.openMap(this.name, "or").orMap.keys()
      return Array.from(keys, (key) => replica.draftRemoval(this.declaration, key)).flat()
    }, options)
  }

  /** Calls `listener` with all changes of one step, local and remote, until stopped. */
  subscribe(listener: (changes: ReadonlyArray<Change<ReadonlyArray<A>>>) => void, options?: ListenOptions): () => void {
    return subscribe(this.access, listener, options)
  }

  /** One key's values as they change. */
  live(key: string): Live.Live<ReadonlyArray<A>> {
    return live(this.access, key, () => this.getValues(key))
  }

  #writeAll(
    drafts: (replica: Replica["Type"]) => ReturnType<Replica["Type"]["draftRemoval"]>,
    options: WriteOptions | undefined,
    early?: () => void
  ): Written {
    return this.access.write(
      (replica, concern) => replica.writeAll(() => drafts(replica), concern, false),
      options,
      early
    )
  }
}

/** A number that many devices count at once. */
export class CounterHandle<Written> extends Handle<CounterDeclaration, "counter", Written>
  implements Live.Live<number>
{
  readonly #live = live(this.access, this.name, () => this.access.crdt().counter.value)

  /** The number now. @throws CounterOverflow when all devices' changes together lead beyond the safe integers */
  get current(): number {
    return this.#live.current
  }

  /** Adds `by`, a safe integer of 0 or more. */
  increment(by = 1, options?: UntimedOptions): Written {
    return this.#count(by, 1, options)
  }

  /** Takes `by`, a safe integer of 0 or more, away. */
  decrement(by = 1, options?: UntimedOptions): Written {
    return this.#count(by, -1, options)
  }

  /** Calls `listener` after each change, local and remote, until stopped. */
  subscribe(listener: (value: number) => void, options?: ListenOptions): () => void {
    return this.#live.subscribe(listener, options)
  }

  [Symbol.asyncIterator](): AsyncIterator<number> {
    return this.#live[Symbol.asyncIterator]()
  }

  #count(by: number, sign: 1 | -1, options: UntimedOptions | undefined): Written {
    return this.access.write(
      (replica, concern) => {
        const drafts = () => checkAmount(by) === 0 ? [] : [replica.draftCount(this.declaration, sign * by)]
        return replica.writeAll(drafts, concern, false)
      },
      options,
      () => checkAmount(by)
    )
  }
}
