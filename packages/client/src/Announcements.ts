/** Who listens to the maps of a device, and what they are told: all changes of one step at once, in the order of the steps. */
import * as Cell from "@topgun/core/Cell"
import type { Crdt } from "@topgun/core/CrdtStore"
import type { Change as RecordChange } from "@topgun/core/LwwMap"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import * as PnCounter from "@topgun/core/PnCounter"
import * as Value from "@topgun/core/Value"
import { notifyAll, subscribeTo } from "./Live.ts"
import type { Change } from "./Reports.ts"

type Changes = ReadonlyArray<Change<unknown>>
type Origin = Change<unknown>["origin"]

/** Those who listen to one map. */
export class Audience {
  readonly listeners = new Set<(changes: Changes) => void>()
  readonly watchers = new Map<string, Set<(change: Change<unknown>) => void>>()

  get isEmpty(): boolean {
    return this.listeners.size === 0 && this.watchers.size === 0
  }

  subscribe(listener: (changes: Changes) => void, signal?: AbortSignal): () => void {
    return subscribeTo(this.listeners, listener, signal)
  }

  watch(key: string, listener: (change: Change<unknown>) => void, signal?: AbortSignal): () => void {
    let own = this.watchers.get(key)
    if (own === undefined) {
      own = new Set()
      this.watchers.set(key, own)
    }
    return subscribeTo(own, listener, signal, () => this.watchers.delete(key))
  }
}

const valueOf = (record: LwwRecord | undefined): unknown =>
  record === undefined || record.isTombstone ? undefined : Value.decode(record.valueBytes)

const totalOf = (record: LwwRecord | undefined): number => {
  if (record === undefined) return 0
  const { decrements, increments } = PnCounter.fromTrusted(record.row)
  return increments - decrements
}

/** What a cell was before a change, to those who read it: nothing where its time was over, unless that is the change. */
const seenBefore = ({ previous, record }: RecordChange, now: number): LwwRecord | undefined =>
  previous !== undefined && previous !== record && previous.expiresAt !== 0 && previous.expiresAt <= now
    ? undefined
    : previous

/** What listeners see of changed cells, once the map has changed. @throws CounterOverflow */
const describe = (crdt: Crdt, changes: ReadonlyArray<RecordChange>, origin: Origin, now: number): Changes => {
  switch (crdt.kind) {
    case "lww": {
      const byKey = new Map<string, LwwRecord | undefined>()
      // What a key had before the step is what it had before its first change in it.
      for (const change of changes) if (!byKey.has(change.key)) byKey.set(change.key, seenBefore(change, now))
      return Array.from(byKey, ([key, previous]) => ({
        key,
        value: crdt.cells.get(key),
        previous: valueOf(previous),
        origin
      })).filter(({ previous, value }) => value !== undefined || previous !== undefined)
    }
    case "or": {
      const byKey = new Map<string, Map<string, LwwRecord | undefined>>()
      for (const change of changes) {
        const { key: cell } = change
        const previous = seenBefore(change, now)
        const key = Cell.keyOf("or", cell)
        const ofKey = byKey.get(key)
        if (ofKey === undefined) byKey.set(key, new Map([[cell, previous]]))
        else if (!ofKey.has(cell)) ofKey.set(cell, previous)
      }
      return Array.from(byKey, ([key, records]) => ({
        key,
        value: crdt.orMap.getValues(key),
        previous: crdt.orMap.valuesBefore(key, records),
        origin
      })).filter(({ previous, value }) =>
        value.length !== previous.length || value.some((each, i) => each !== previous[i])
      )
    }
    case "counter": {
      const { counter } = crdt
      const by = changes.reduce((sum, { previous, record }) => sum + totalOf(record) - totalOf(previous), 0)
      return [{ key: counter.name, value: counter.value, previous: counter.value - by, origin }]
    }
  }
}

/** Tells audiences of changes. What a listener throws, or can't be told, goes to `onFault`. */
export const make = (now: () => number, onFault: (fault: unknown) => void) => {
  /** Changes still to tell of: those that a listener makes come after those it hears of, for everyone. */
  const untold: Array<readonly [audience: Audience, changes: Changes]> = []
  let telling = false
  const tell = (): void => {
    if (telling) return
    telling = true
    for (let next = untold.shift(); next !== undefined; next = untold.shift()) {
      const [audience, told] = next
      notifyAll(Array.from(audience.listeners), told, onFault)
      if (audience.watchers.size === 0) continue
      for (const change of told) {
        const watchers = audience.watchers.get(change.key)
        if (watchers !== undefined) notifyAll(Array.from(watchers), change, onFault)
      }
    }
    telling = false
  }
  return (audience: Audience, crdt: Crdt, changes: ReadonlyArray<RecordChange>, origin: Origin): void => {
    if (audience.isEmpty) return
    let told: Changes
    try {
      told = describe(crdt, changes, origin, now())
    } catch (fault) {
      return onFault(fault)
    }
    if (told.length === 0) return
    untold.push([audience, told])
    tell()
  }
}
