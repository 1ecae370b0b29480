/**
 * How this device's maps get in step with the server's, one by one, and stay so while a connection lasts.
 *
 * A map is opened with its root and with the mark of the last change that is here: the server answers with what has changed
 * since, where it knows, and else with what the tree walk begins with. The roots have the last word. From then on the map's
 * events move its mark.
 *
 * Of a partial map, of which the user may read some or write some, the server's word is all that counts: what it shows takes the place
 * of what was confirmed here, what it doesn't show is dropped, and nothing is offered.
 */
import * as Cell from "@topgun/core/Cell"
import type { Crdt } from "@topgun/core/CrdtStore"
import { MalformedMessage, MapRefused, ResyncRequired } from "@topgun/core/GridError"
import { type KeyedRecord, keysAt, type MerkleSync, packRoot, type Page, type SyncPeer } from "@topgun/core/MerkleSync"
import { MerkleForest } from "@topgun/core/MerkleTree"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import type * as Protocol from "@topgun/core/Protocol"
import * as Value from "@topgun/core/Value"
import * as Effect from "effect/Effect"
import type { Mark } from "./Journal.ts"
import type { Answer, NoAnswer, Questions } from "./Questions.ts"
import type { Replica } from "./Replica.ts"

/** Told of what happens with maps. */
export interface Events {
  readonly onFault: (fault: unknown) => void
  /** A map came into step, or was refused. */
  readonly onChange: () => void
}

const decodeRecords = (
  map: string,
  { kind }: Crdt,
  records: ReadonlyArray<Protocol.RecordTuple>
): ReadonlyArray<KeyedRecord> =>
  records.map(([key, row]) => {
    const record = Cell.decodeInPlace(kind, map, key, row)
    return [Cell.cellOf(kind, key, record), record]
  })

const decoded = <A>(decode: () => A): Effect.Effect<A, MalformedMessage> =>
  Effect.try({
    try: decode,
    catch: (cause) => cause instanceof MalformedMessage ? cause : new MalformedMessage({ reason: String(cause) })
  })

const pageOf = (map: string, crdt: Crdt, leaf: Answer<"SyncLeaf">): Effect.Effect<Page, MalformedMessage> =>
  decoded(() => ({ records: decodeRecords(map, crdt, leaf.records), after: leaf.after ?? undefined }))

const isEqual = (a: Uint8Array, b: Uint8Array): boolean => Value.compareBytes(a, b) === 0

const isRefusal = (cause: string) => (failure: NoAnswer): boolean =>
  failure._tag === "Refusal" && failure.cause === cause

/** A map that this device has nothing of, as the walk sees it. */
const nothing = { tree: new MerkleForest(), record: () => undefined }

/** The maps of a device. */
export const make = (replica: Replica["Type"], sync: MerkleSync["Type"], { onChange, onFault }: Events) => {
  /** Maps that are in step on the present connection. */
  const synced = new Set<string>()
  /** Why the server refused to open others on it. */
  const refused = new Map<string, string>()
  return {
    isSynced: (map: string): boolean => synced.has(map),
    /** Whether all maps are in step that the server opens to this device: of the others there is nothing to wait for. */
    areAllSynced: (): boolean => replica.followed().every((map) => synced.has(map) || refused.has(map)),
    /** Why the server refuses to open a map on the present connection. */
    refusalOf: (map: string): string | undefined => refused.get(map),
    /** A map to be opened next. */
    next: (): string | undefined => replica.followed().find((map) => !synced.has(map) && !refused.has(map)),
    /** The connection has ended. */
    end: (): void => {
      synced.clear()
      refused.clear()
      onChange()
    },

    /** The maps on a connection to a run of the server. */
    over: ({ ask }: Questions, run: string) => {
      /** The number of the last change that the server has told of each map. */
      const told = new Map<string, number>()
      /** Maps of which something was left out here: nothing is said of how far their changes are here. */
      const incomplete = new Set<string>()
      /** Maps that this user may read, or write, in part. */
      const partial = new Set<string>()
      /** The latest stamp of a deletion that the server has forgotten in each map, as it has said last. */
      const watermarks = new Map<string, number>()
      /** Maps of which the server has left out events since they were opened. */
      const gaps = new Set<string>()

      /** A map's changes are here up to this one, once the map is in step. */
      const hear = (map: string, sequence: number): void => {
        const last = Math.max(sequence, told.get(map) ?? 0)
        told.set(map, last)
        if (synced.has(map)) markTold(map)
      }

      /** What the server has told of the map is here. */
      const markTold = (map: string): void => {
        if (!incomplete.has(map)) replica.moveMark(map, { run, sequence: told.get(map) ?? 0 })
      }

      /** Takes in what the server has. Answers whether all of it could be. */
      const takeIn = (map: string, records: ReadonlyArray<KeyedRecord>): boolean =>
        partial.has(map) ? replica.assume(map, records) : replica.merge(map, records)

      /** Takes in what the server has, in answer to this device. What is left out now has to be asked for again. */
      const receive = (map: string, records: ReadonlyArray<KeyedRecord>): void => {
        if (!takeIn(map, records)) incomplete.add(map)
      }

      /** How a map's roots compare; `undefined` when they are equal, be it after merging what has changed since the mark. */
      const compareRoots = (
        map: string,
        crdt: Crdt,
        mine: Uint8Array,
        mark: Mark | undefined
      ): Effect.Effect<Uint8Array | undefined, NoAnswer> => {
        const cursor = mark?.run === run ? [run, mark.sequence] as const : null
        const question = ask("SyncRoot", (id) => ({ _tag: "SyncInit", id, map, kind: crdt.kind, root: mine, cursor }))
        return Effect.flatMap(question, ({ partial: isPartial, partitions, records, root, sequence, watermark }) => {
          watermarks.set(map, watermark)
          if (isPartial) partial.add(map)
          else partial.delete(map)
          hear(map, sequence)
          if (partitions !== null) return Effect.succeed(partitions)
          // What was acknowledged since the question may not be shown.
          if (isEqual(packRoot(crdt.cells.tree), root)) return Effect.succeed(undefined)
          if (cursor === null && !isEqual(mine, root)) {
            return new MalformedMessage({ reason: "SyncRoot says that unequal roots are equal" })
          }
          return Effect.flatMap(decoded(() => decodeRecords(map, crdt, records)), (news) => {
            receive(map, news)
            const merged = packRoot(crdt.cells.tree)
            return isEqual(merged, root) ? Effect.succeed(undefined) : compareRoots(map, crdt, merged, undefined)
          })
        })
      }

      const peerFor = (map: string, crdt: Crdt, mark?: Mark): SyncPeer<NoAnswer> => ({
        root: (root) => compareRoots(map, crdt, root, mark),
        buckets: (nodes, lane) =>
          Effect.map(
            ask("SyncBucketsAck", (id) => ({ _tag: "SyncBuckets", id, map, lane, nodes })),
            ({ buckets }) => buckets
          ),
        fetch: (wants, after) =>
          Effect.flatMap(
            ask("SyncLeaf", (id) => ({ _tag: "SyncFetch", id, map, wants, after: after ?? null })),
            (leaf) => pageOf(map, crdt, leaf)
          ),
        pull: (node, after) =>
          Effect.flatMap(
            ask("SyncLeaf", (id) => ({ _tag: "SyncPull", id, map, node, after: after ?? null })),
            (leaf) => pageOf(map, crdt, leaf)
          )
      })

      /** Takes a map over anew. What the server doesn't have goes at the end, so that no reader sees an empty map meanwhile. */
      const takeOver = Effect.fnUntraced(function*(map: string, crdt: Crdt) {
        onFault(new ResyncRequired({ map }))
        const before = new Map(crdt.cells.confirmed())
        const has = new Set<string>()
        yield* sync.reconcile({
          ...nothing,
          partitionOf: (cell) => crdt.cells.partitionOf(cell),
          receive: (records) => {
            for (const [cell] of records) has.add(cell)
            receive(map, records)
          }
        }, peerFor(map, crdt))
        replica.dropLost(map, before, has)
        markTold(map)
      })

      /** Brings a map into step, and has what the server lacks offered. */
      const walk = Effect.fnUntraced(function*(map: string, crdt: Crdt) {
        const { cells, kind } = crdt
        const peer = peerFor(map, crdt, replica.mark(map))
        /** What was confirmed of a partial map, and what the server has shown of it since. */
        let before: ReadonlyMap<string, LwwRecord> = new Map()
        const has = new Set<string>()
        const { offers } = yield* sync.reconcile({
          tree: cells.tree,
          record: (cell) => cells.getConfirmed(cell),
          partitionOf: (cell) => cells.partitionOf(cell),
          receive: (records) => {
            if (partial.has(map)) { for (const [cell] of records) has.add(cell) }
            receive(map, records)
          }
        }, {
          ...peer,
          root: (root) =>
            Effect.tap(peer.root(root), (partitions) => {
              if (partitions !== undefined && partial.has(map)) before = new Map(cells.confirmed())
            })
        })
        if (!partial.has(map)) {
          const watermark = watermarks.get(map)!
          const isForgotten = (cell: string): boolean => {
            const record = cells.getConfirmed(cell)
            return watermark > 0 && record !== undefined && record.isTombstone && record.millis <= watermark
          }
          const forgotten = new Set(offers.filter(isForgotten))
          // The server had these deletions, and everybody has them whom they concern.
          replica.prune(map, Array.from(forgotten))
          return replica.outbox.offer(map, kind, offers.filter((cell) => !forgotten.has(cell)))
        }
        const lacking = new Set(offers)
        replica.dropLost(map, new Map(Array.from(before).filter(([cell]) => lacking.has(cell))), has)
      })

      return {
        /** Brings a map into step. A refusal is that map's matter, not the connection's. */
        reconcile: Effect.fnUntraced(function*(map: string) {
          const crdt = replica.map(map)!
          do {
            gaps.delete(map)
            yield* walk(map, crdt).pipe(
              Effect.catchIf(isRefusal("ResyncRequired"), () => Effect.zipRight(takeOver(map, crdt), walk(map, crdt))),
              // True in spite of a gap: nothing from beyond it has been told.
              Effect.map(() => markTold(map)),
              // The server has said meanwhile that the map is to be opened again: what it refused before is no more its last word.
              Effect.catchIf((failure) => failure._tag === "Refusal" && gaps.has(map), () => Effect.void)
            )
          } while (gaps.has(map))
          synced.add(map)
          onChange()
        }, (reconciled, map) =>
          Effect.catchTag(reconciled, "Refusal", ({ cause, reason }) =>
            Effect.sync(() => {
              if (cause === "PermissionDenied") {
                replica.dropLost(map, new Map(replica.map(map)!.cells.confirmed()), new Set())
              }
              refused.set(map, reason)
              onFault(new MapRefused({ map, reason }))
              onChange()
            }))),

        /**
         * The server has left out events of the map, or lets something else of it be read: it is to be opened again. False when it
         * isn't open here.
         */
        again: ({ map }: typeof Protocol.SyncAgain.Type): boolean => {
          if (replica.map(map) === undefined) return false
          refused.delete(map)
          // While it is being reconciled, that is done once more.
          gaps.add(map)
          if (synced.delete(map)) onChange()
          return true
        },

        /**
         * Merges what others have written. Answers whether all of it could be; `undefined` when the map isn't open here.
         *
         * @throws MalformedMessage
         */
        event: ({ map, records, sequence }: typeof Protocol.ServerEvent.Type): boolean | undefined => {
          const crdt = replica.map(map)
          if (crdt === undefined) return undefined
          if (!takeIn(map, decodeRecords(map, crdt, records))) return false
          hear(map, sequence)
          return true
        },

        /** Forgets deletions that the server has forgotten. False when the map isn't open here. */
        prune: ({ cells, map }: typeof Protocol.GcPrune.Type): boolean => {
          const crdt = replica.map(map)
          if (crdt === undefined) return false
          replica.prune(map, keysAt(crdt.cells.tree, cells))
          return true
        },

        /** Whether all that the server has told could be taken in. */
        isComplete: (): boolean => incomplete.size === 0,

        /** Drops records that are no more in a partial map. False when the map isn't one. */
        withdraw: ({ keys, map }: typeof Protocol.Withdraw.Type): boolean =>
          partial.has(map) && replica.assume(map, keys.map((key) => [key, undefined]))
      }
    }
  }
}
