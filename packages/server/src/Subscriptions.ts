/**
 * Who follows which map: each event is encoded once and its bytes go to all who follow.
 *
 * A map that nobody has written to has no kind yet. Who follows it as one is told nothing when it turns out to be of another.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Cell from "@topgun/core/Cell"
import type { RecordTuple } from "@topgun/core/Protocol"
import * as Protocol from "@topgun/core/Protocol"
import type { Won } from "./Partitions.ts"
import { ServerConfig } from "./ServerConfig.ts"

/** One who is told of events. */
export interface Subscriber {
  /**
   * Takes an encoded event of a map. It's shared with other subscribers: never written to. One that can't take it may leave it
   * out, and what comes of that map later, too.
   */
  readonly push: (event: Uint8Array, map: string) => void
}

/** The subscriptions of all sessions. Plain calls: they run once a batch. */
export class Subscriptions extends Context.Tag("@topgun/server/Subscriptions")<Subscriptions, {
  /** From here on `subscriber` is told of what is written to `map`. False when it follows as many maps as it may. */
  readonly follow: (map: string, kind: Cell.MapKind, subscriber: Subscriber) => boolean
  /** As which kind it follows the map, where it does. */
  readonly follows: (map: string, subscriber: Subscriber) => Cell.MapKind | undefined
  /** Ends all of a subscriber's subscriptions. */
  readonly leave: (subscriber: Subscriber) => void
  /** Tells all who follow the batch's map, except `writer`. */
  readonly publish: (batch: Won, writer: Subscriber) => void
}>() {}

/** Records as events, none of which is larger than a frame by far: only the last can say up to where the map is told. */
export const encodeEvents = ({ kind, map, rows, sequence }: Won): ReadonlyArray<Uint8Array> => {
  const events: Array<Uint8Array> = []
  let records: Array<RecordTuple> = []
  let bytes = 0
  const cut = (told: number) => {
    if (records.length > 0) events.push(Protocol.encode({ _tag: "ServerEvent", map, sequence: told, records }))
    records = []
    bytes = 0
  }
  for (const { cell, record } of rows) {
    const key = Cell.keyOf(kind, cell)
    const size = key.length * 3 + record.row.length
    if (bytes + size > Protocol.batchBytesMax) cut(0)
    records.push([key, record.row])
    bytes += size
  }
  cut(sequence)
  return events
}

export const layer: Layer.Layer<Subscriptions, never, ServerConfig> = Layer.effect(
  Subscriptions,
  Effect.map(ServerConfig, ({ subscriptionsMax }) => {
    const followers = new Map<string, Map<Subscriber, Cell.MapKind>>()
    const followed = new Map<Subscriber, Set<string>>()
    return Subscriptions.of({
      follow: (map, kind, subscriber) => {
        const maps = followed.get(subscriber) ?? new Set()
        if (maps.size >= subscriptionsMax && !maps.has(map)) return false
        followed.set(subscriber, maps.add(map))
        followers.set(map, (followers.get(map) ?? new Map()).set(subscriber, kind))
        return true
      },
      follows: (map, subscriber) => followers.get(map)?.get(subscriber),
      leave: (subscriber) => {
        for (const map of followed.get(subscriber) ?? []) {
          const others = followers.get(map)
          others?.delete(subscriber)
          if (others?.size === 0) followers.delete(map)
        }
        followed.delete(subscriber)
      },
      publish: (batch, writer) => {
        const all = followers.get(batch.map)
        if (batch.rows.length === 0 || all === undefined || (all.size === 1 && all.has(writer))) return
        for (const event of encodeEvents(batch)) {
          for (const [subscriber, kind] of all) {
            if (subscriber !== writer && kind === batch.kind) subscriber.push(event, batch.map)
          }
        }
      }
    })
  })
)
