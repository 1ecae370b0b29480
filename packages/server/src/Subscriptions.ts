/**
 * Who follows which map, or which view of it: each event is encoded once and its bytes go to all who follow.
 *
 * A map that nobody has written to has no kind yet. Who follows it as one is told nothing when it turns out to be of another.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Cell from "@topgun/core/Cell"
import { packPlaces } from "@topgun/core/MerkleSync"
import type { OpTuple, RecordTuple } from "@topgun/core/Protocol"
import * as Protocol from "@topgun/core/Protocol"
import { partitionOf } from "@topgun/core/Partition"
import * as Value from "@topgun/core/Value"
import type { Won } from "./Partitions.ts"
import type { Row } from "./Persistence.ts"
import { ServerConfig } from "./ServerConfig.ts"
import { type View, type ViewChange, Views } from "./Views.ts"

/** One who is told of events. */
export interface Subscriber {
  /**
   * Takes an encoded event of a map. It's shared with other subscribers: never written to. One that can't take it may leave it
   * out, and what comes of that map later, too.
   */
  readonly push: (event: Uint8Array, map: string) => void
}

/** What somebody follows. */
export interface Following {
  readonly kind: Cell.MapKind
  /** What he is shown of the map; absent when that is all of it. */
  readonly view?: View
}

/** The subscriptions of all sessions. Plain calls: they run once a batch. */
export class Subscriptions extends Context.Tag("@topgun/server/Subscriptions")<Subscriptions, {
  /** From here on `subscriber` is told of what is written to `map`. False when it follows as many maps as it may. */
  readonly follow: (map: string, following: Following, subscriber: Subscriber) => boolean
  /** As what it follows the map, where it does. */
  readonly follows: (map: string, subscriber: Subscriber) => Following | undefined
  /** The maps that it follows. */
  readonly followed: (subscriber: Subscriber) => ReadonlyArray<string>
  /** Ends a subscription. */
  readonly unfollow: (map: string, subscriber: Subscriber) => void
  /** Ends all of a subscriber's subscriptions. */
  readonly leave: (subscriber: Subscriber) => void
  /** Tells all who follow the batch's map, except `writer`. */
  readonly publish: (batch: Won, writer?: Subscriber) => void
  /** Tells all who follow a map as a whole that it has forgotten tombstones. */
  readonly prune: (map: string, forgotten: ReadonlyArray<Row>) => void
  /**
   * Tells a writer, whose operations were acknowledged, what he is shown of their records where that is something else than he has
   * written.
   */
  readonly reveal: (batch: Won, ops: ReadonlyArray<OpTuple>, writer: Subscriber) => void
}>() {}

/** Records as events, none of which is larger than a frame by far: only the last can say up to where the map is told. */
const encodeEvents = (
  map: string,
  tuples: Iterable<RecordTuple>,
  sequence: number
): ReadonlyArray<Uint8Array> => {
  const events: Array<Uint8Array> = []
  let records: Array<RecordTuple> = []
  let bytes = 0
  const cut = (told: number) => {
    if (records.length > 0) events.push(Protocol.encode({ _tag: "ServerEvent", map, sequence: told, records }))
    records = []
    bytes = 0
  }
  for (const tuple of tuples) {
    const [key, row] = tuple
    const size = key.length * 3 + row.length
    if (bytes + size > Protocol.batchBytesMax) cut(0)
    records.push(tuple)
    bytes += size
  }
  cut(sequence)
  return events
}

const eventsOf = ({ kind, map, sequence }: Won, rows: Won["rows"]): ReadonlyArray<Uint8Array> =>
  encodeEvents(map, rows.map(({ cell, record }) => [Cell.keyOf(kind, cell), record.row] as const), sequence)

/** Keys in one `Withdraw`, at most: as many fit into a frame, whatever they are. */
const withdrawnMax = 256

/** A view's changes have no numbers: who follows it compares roots when it comes again. */
const changesOf = (map: string, { records, withdrawn }: ViewChange): ReadonlyArray<Uint8Array> => {
  const events = Array.from(encodeEvents(map, records.map(([key, { row }]) => [key, row] as const), 0))
  for (let at = 0; at < withdrawn.length; at += withdrawnMax) {
    events.push(Protocol.encode({ _tag: "Withdraw", map, keys: withdrawn.slice(at, at + withdrawnMax) }))
  }
  return events
}

export const layer: Layer.Layer<Subscriptions, never, ServerConfig | Views> = Layer.effect(
  Subscriptions,
  Effect.gen(function*() {
    const { subscriptionsMax } = yield* ServerConfig
    const views = yield* Views
    const followers = new Map<string, Map<Subscriber, Following>>()
    const followed = new Map<Subscriber, Set<string>>()
    const drop = (map: string, subscriber: Subscriber): void => {
      const others = followers.get(map)
      others?.delete(subscriber)
      if (others?.size === 0) followers.delete(map)
    }
    return Subscriptions.of({
      follow: (map, following, subscriber) => {
        const maps = followed.get(subscriber) ?? new Set()
        if (maps.size >= subscriptionsMax && !maps.has(map)) return false
        followed.set(subscriber, maps.add(map))
        followers.set(map, (followers.get(map) ?? new Map()).set(subscriber, following))
        return true
      },
      follows: (map, subscriber) => followers.get(map)?.get(subscriber),
      followed: (subscriber) => Array.from(followed.get(subscriber) ?? []),
      unfollow: (map, subscriber) => {
        followed.get(subscriber)?.delete(map)
        drop(map, subscriber)
      },
      leave: (subscriber) => {
        for (const map of followed.get(subscriber) ?? []) drop(map, subscriber)
        followed.delete(subscriber)
      },
      publish: (batch, writer) => {
        const changes = views.update(batch)
        const all = followers.get(batch.map)
        if (
          batch.rows.length === 0 || all === undefined || (all.size === 1 && writer !== undefined && all.has(writer))
        ) return
        let whole: ReadonlyArray<Uint8Array> | undefined
        const partial = new Map<View, ReadonlyArray<Uint8Array>>()
        for (const [subscriber, { kind, view }] of all) {
          if (subscriber === writer || kind !== batch.kind) continue
          let events: ReadonlyArray<Uint8Array> | undefined
          if (view === undefined) events = whole ??= eventsOf(batch, batch.rows)
          else {
            events = partial.get(view)
            const change = changes.get(view)
            if (events === undefined && change !== undefined) partial.set(view, events = changesOf(batch.map, change))
          }
          for (const event of events ?? []) subscriber.push(event, batch.map)
        }
      },
      prune: (map, forgotten) => {
        const all = followers.get(map)
        if (all === undefined) return
        let event: Uint8Array | undefined
        for (const [subscriber, { view }] of all) {
          // A view has no tombstones.
          if (view !== undefined) continue
          event ??= Protocol.encode({ _tag: "GcPrune", map, cells: packPlaces(forgotten) })
          subscriber.push(event, map)
        }
      },
      reveal: (batch, ops, writer) => {
        const following = followers.get(batch.map)?.get(writer)
        if (following === undefined || following.kind !== batch.kind) return
        const { view } = following
        if (view === undefined) {
          for (const event of eventsOf(batch, batch.amended)) writer.push(event, batch.map)
          return
        }
        const records: Array<readonly [string, { readonly row: Uint8Array }]> = []
        const withdrawn: Array<string> = []
        for (const [, key, row] of ops) {
          const shown = view.record(key, partitionOf(key))
          if (shown === undefined) withdrawn.push(key)
          else if (Value.compareBytes(shown.row, row) !== 0) records.push([key, shown])
        }
        for (const event of changesOf(batch.map, { records, withdrawn })) writer.push(event, batch.map)
      }
    })
  })
)
