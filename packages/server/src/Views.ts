/**
 * Partial maps: what those may read who may not read a whole map. A view is a map of its own, made of the records of which a rule lets
 * something be read, in the form in which it may be read. So who is shown a view synchronises with it as with any map, and no byte
 * of what it leaves out has a part in its tree, its events or its answers.
 *
 * A record is put only before the views that can show it: those that have shown it, and those of whom a field of it is what they
 * are tied to, as by `owner` to their user's id. So a write costs the same however many users there are.
 *
 * All whose rules and attributes come to the same share a view, and what it sends is encoded once. A view is made by one pass over
 * the map, partition after partition; who comes meanwhile joins the pass where it is, and is done when it has come round. A
 * thousand devices that come back after a restart so cost one pass over the map, and not a thousand.
 */
import { LwwMap } from "@topgun/core/LwwMap"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import type { KeyedRecord, Source } from "@topgun/core/MerkleSync"
import { partitionCount } from "@topgun/core/Partition"
import * as Predicate from "@topgun/core/Predicate"
import * as Value from "@topgun/core/Value"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type Access, type Tie, tieOf } from "./Access.ts"
import { Partitions, type Won } from "./Partitions.ts"

/** A partial map, for as long as somebody follows it and some time after. */
export interface View extends Source {
  readonly map: string
}

/** How a view has changed. */
export interface ViewChange {
  readonly records: ReadonlyArray<readonly [key: string, record: { readonly row: Uint8Array }]>
  /** Keys that aren't in it any more. */
  readonly withdrawn: ReadonlyArray<string>
}

/** The partial maps of a server. Plain calls: they run once a batch. */
export class Views extends Context.Tag("@topgun/server/Views")<Views, {
  /**
   * The view of a map that an access shows, once it is complete: at once where it is, or where the map is small. Whoever asks calls
   * the function that is returned when he is done with it, complete or not.
   */
  readonly open: (map: string, access: Access, onComplete: (view: View) => void) => () => void
  /** Brings the views of a map up to date with records that were merged; answers how those changed that somebody follows. */
  readonly update: (won: Won) => ReadonlyMap<View, ViewChange>
  /** Forgets all views: another policy shows other ones. Those who follow them have to open others. */
  readonly forget: () => void
}>() {}

/** Views that nobody follows and that are kept nevertheless, as he may come back: the last ones. */
export const idleViewsMax = 64
/** Records that are looked at before others get their turn: some 2 ms. */
const recordsAtOnce = 1_000

class PartialMap implements View {
  readonly map: string
  readonly key: string
  readonly #access: Access
  readonly #cells: LwwMap
  /** Where the pass was when this view joined it, and how many partitions have been seen since. */
  readonly #first: number
  #seen = 0
  followers = 0
  waiting = new Set<() => void>()

  constructor(map: string, access: Access, first: number, now: () => number) {
    this.map = map
    this.key = access.viewKey
    this.#access = access
    this.ties = access.ties
    this.#first = first
    this.#cells = new LwwMap({ now })
  }

  get tree() {
    return this.#cells.tree
  }

  readonly record = (key: string): LwwRecord | undefined => this.#cells.getConfirmed(key)

  /** What ties all that it shows. */
  readonly ties: ReadonlyArray<Tie> | undefined;

  /** The keys of what it shows. */
  *keys(): IterableIterator<string> {
    for (const [key] of this.#cells.records()) yield key
  }

  get isComplete(): boolean {
    return this.#seen === partitionCount
  }

  /** All records of the next partition were put in. */
  sawPartition(): void {
    this.#seen++
  }

  /** Whether the pass has been at a partition: it will look at the others yet. */
  hasSeen(partition: number): boolean {
    return (partition - this.#first + partitionCount) % partitionCount < this.#seen
  }

  /** Takes in a record of the map, whose value this is. Answers what is shown of it, where that has changed. */
  put(key: string, record: LwwRecord, value: unknown): LwwRecord | "withdrawn" | undefined {
    const shown = this.#access.show(record, value)
    if (shown === undefined) {
      return this.#cells.assign(key, undefined, undefined) === undefined
        ? undefined
        : "withdrawn"
    }
    // That a hidden field has changed, and when, isn't told by the stamp either.
    if (shown !== record && isAlike(shown, this.#cells.getRecord(key))) return undefined
    return this.#cells.assign(key, shown, undefined) === undefined ? undefined : shown
  }
}

const isAlike = (a: LwwRecord, b: LwwRecord | undefined): boolean =>
  b !== undefined && a.expiresAt === b.expiresAt && Value.compareBytes(a.valueBytes, b.valueBytes) === 0

const valueOf = (record: LwwRecord): unknown => record.isTombstone ? undefined : Value.decodeTrusted(record.valueBytes)

/** Views by what a field has to be equal to. */
interface TiedViews {
  readonly field: (value: unknown) => unknown
  readonly views: Map<string, Set<PartialMap>>
}

/** The views of one map, and the pass that makes them. */
class ViewsOfMap {
  readonly views = new Map<string, PartialMap>()
  /** The partition that the pass looks at next. */
  at = 0
  isPassing = false
  /** Views that may show any record. */
  readonly #untied = new Set<PartialMap>()
  /** The others, by the path of the field. */
  readonly #tied = new Map<string, TiedViews>()
  /** Which of the others show a record. */
  readonly #holders = new Map<string, Set<PartialMap>>()

  get incomplete(): ReadonlyArray<PartialMap> {
    return Array.from(this.views.values()).filter(({ isComplete }) => !isComplete)
  }

  add(view: PartialMap): void {
    this.views.set(view.key, view)
    if (view.ties === undefined) return void this.#untied.add(view)
    for (const { path, to } of view.ties) {
      const tied = this.#tied.get(path) ?? { field: Predicate.getter(path), views: new Map<string, Set<PartialMap>>() }
      this.#tied.set(path, tied)
      tied.views.set(to, (tied.views.get(to) ?? new Set()).add(view))
    }
  }

  drop(view: PartialMap): void {
    this.views.delete(view.key)
    if (view.ties === undefined) return void this.#untied.delete(view)
    for (const { path, to } of view.ties) {
      const views = this.#tied.get(path)?.views
      views?.get(to)?.delete(view)
      if (views?.get(to)?.size === 0) views.delete(to)
      if (views?.size === 0) this.#tied.delete(path)
    }
    for (const key of view.keys()) this.#letGo(key, view)
  }

  /** The views that show a record, or that can show one of this value. */
  concerned(key: string, value: unknown): Iterable<PartialMap> {
    if (this.#tied.size === 0) return this.#untied
    const views = new Set([...this.#untied, ...this.#holders.get(key) ?? []])
    for (const { field, views: tied } of this.#tied.values()) {
      const to = tieOf(field(value))
      if (to !== undefined) { for (const view of tied.get(to) ?? []) views.add(view) }
    }
    return views
  }

  /** Puts a record before a view. Answers what is shown of it, where that has changed. */
  put(view: PartialMap, key: string, record: LwwRecord, value: unknown): LwwRecord | "withdrawn" | undefined {
    const change = view.put(key, record, value)
    if (change === undefined || view.ties === undefined) return change
    if (change === "withdrawn") this.#letGo(key, view)
    else this.#holders.set(key, (this.#holders.get(key) ?? new Set()).add(view))
    return change
  }

  #letGo(key: string, view: PartialMap): void {
    const holders = this.#holders.get(key)
    holders?.delete(view)
    if (holders?.size === 0) this.#holders.delete(key)
  }
}

export const layer: Layer.Layer<Views, never, Partitions> = Layer.scoped(
  Views,
  Effect.gen(function*() {
    const partitions = yield* Partitions
    const clock = yield* Effect.clock
    const now = () => clock.unsafeCurrentTimeMillis()
    const maps = new Map<string, ViewsOfMap>()
    /** In the order in which the last of their followers left. */
    const idle = new Set<PartialMap>()
    let isOver = false
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        isOver = true
      })
    )

    const drop = (view: PartialMap): void => {
      idle.delete(view)
      const ofMap = maps.get(view.map)
      if (ofMap?.views.get(view.key) !== view) return
      ofMap.drop(view)
      if (ofMap.views.size === 0) maps.delete(view.map)
    }

    /** Looks at the next partitions, until all views are complete or it is the others' turn. */
    const pass = (map: string, ofMap: ViewsOfMap): void => {
      ofMap.isPassing = true
      let looked = 0
      for (let open = ofMap.incomplete; open.length > 0; open = ofMap.incomplete) {
        if (looked >= recordsAtOnce) {
          // tidy-allow timer: no time passes; this is the event loop's own "after what is ready".
          setImmediate(() => {
            if (!isOver) pass(map, ofMap)
          })
          return
        }
        for (const [key, record] of partitions.records(map, ofMap.at)) {
          const value = valueOf(record)
          looked++
          for (const view of ofMap.concerned(key, value)) {
            if (view.isComplete) continue
            ofMap.put(view, key, record, value)
            looked++
          }
        }
        ofMap.at = (ofMap.at + 1) % partitionCount
        for (const view of open) view.sawPartition()
        for (const view of open) {
          if (!view.isComplete) continue
          const { waiting } = view
          view.waiting = new Set()
          for (const onComplete of waiting) onComplete()
        }
      }
      ofMap.isPassing = false
    }

    return Views.of({
      open: (map, access, onComplete) => {
        let ofMap = maps.get(map)
        if (ofMap === undefined) maps.set(map, ofMap = new ViewsOfMap())
        let view = ofMap.views.get(access.viewKey)
        if (view === undefined) ofMap.add(view = new PartialMap(map, access, ofMap.at, now))
        const opened = view
        opened.followers++
        idle.delete(opened)
        let isOpen = true
        const complete = () => onComplete(opened)
        if (opened.isComplete) complete()
        else {
          opened.waiting.add(complete)
          if (!ofMap.isPassing) pass(map, ofMap)
        }
        return () => {
          if (!isOpen) return
          isOpen = false
          opened.waiting.delete(complete)
          opened.followers--
          if (opened.followers > 0) return
          // Nobody can come back to one that is forgotten.
          const isKept = opened.isComplete && maps.get(map)?.views.get(opened.key) === opened
          if (!isKept) return drop(opened)
          idle.add(opened)
          if (idle.size > idleViewsMax) drop(idle.values().next().value!)
        }
      },
      update: ({ kind, map, rows }) => {
        const changes = new Map<View, ViewChange>()
        const ofMap = maps.get(map)
        // Of a map that had no kind yet a view may have been asked for, though it was to be one of sets or a counter.
        if (ofMap === undefined || rows.length === 0 || kind !== "lww") return changes
        /** A batch may change a record more than once: the last time counts. */
        const changed = new Map<PartialMap, Map<string, LwwRecord | "withdrawn">>()
        for (const { cell, partition, record } of rows) {
          const value = valueOf(record)
          for (const view of ofMap.concerned(cell, value)) {
            if (!view.hasSeen(partition)) continue
            const change = ofMap.put(view, cell, record, value)
            if (change === undefined || !view.isComplete || view.followers === 0) continue
            const ofView = changed.get(view)
            if (ofView === undefined) changed.set(view, new Map([[cell, change]]))
            else ofView.set(cell, change)
          }
        }
        for (const [view, ofView] of changed) {
          const records: Array<KeyedRecord> = []
          const withdrawn: Array<string> = []
          for (const [cell, change] of ofView) {
            if (change === "withdrawn") withdrawn.push(cell)
            else records.push([cell, change])
          }
          changes.set(view, { records, withdrawn })
        }
        return changes
      },
      forget: () => {
        maps.clear()
        idle.clear()
      }
    })
  })
)
