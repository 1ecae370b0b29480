/**
 * The maps that one session has open: what its user may read of each, what it follows, and the answers to its tree walks. When
 * something else may be read, by another policy or another token, nothing more is told of a map until the client opens it again.
 */
import { keyOf, type MapKind } from "@topgun/core/Cell"
import * as GridError from "@topgun/core/GridError"
import { type Answers, type KeyedRecord, MerkleSync, packRoot } from "@topgun/core/MerkleSync"
import type * as Protocol from "@topgun/core/Protocol"
import * as Effect from "effect/Effect"
import type { Access, Extent } from "./Access.ts"
import type { Principal } from "./Authentication.ts"
import { Partitions } from "./Partitions.ts"
import { PermissionPolicy, type Policies } from "./PermissionPolicy.ts"
import { ServerConfig } from "./ServerConfig.ts"
import { type Following, type Subscriber, Subscriptions } from "./Subscriptions.ts"
import { Tombstones } from "./Tombstones.ts"
import { Views } from "./Views.ts"

/** What a session's reading asks of it. */
export interface Reader {
  /** Who is told of events. */
  readonly subscriber: Subscriber
  readonly send: (message: Protocol.ServerMessage) => void
  /** A request failed, the connection goes on. */
  readonly refuse: (id: number, fault: { readonly _tag: string; readonly message: string }) => void
  /** The client breaks the protocol. */
  readonly outOfPlace: (reason: string) => void
  /** Does what a client's message has led to, later than in its turn: a fault ends the connection, and no more. */
  readonly guard: (serve: () => void) => void
  /** Nothing of the map is left out any more. */
  readonly closeGap: (map: string) => void
  readonly principal: () => Principal | undefined
  readonly nodeId: () => string
  /** Whether the device has all deletions up to this age of the grid, or brings what it is asked for all the same. */
  readonly hasConfirmed: (age: number) => boolean
}

/** What one session remembers of what it may do, at most: maps are named by the client. */
const accessesMax = 1_000

const tooManyMaps = new GridError.Overloaded({ what: "this connection has as many maps open as it may" })

const tuplesOf = (kind: MapKind, records: ReadonlyArray<KeyedRecord>): ReadonlyArray<Protocol.RecordTuple> =>
  records.map(([cell, record]) => [keyOf(kind, cell), record.row])

/** The parts of a server that sessions read by. */
export interface Shared {
  readonly answers: MerkleSync["Type"]["answers"]
  readonly partitions: Partitions["Type"]
  readonly policies: Policies
  readonly subscriptions: Subscriptions["Type"]
  readonly subscriptionsMax: number
  readonly tombstones: Tombstones["Type"]
  readonly views: Views["Type"]
}

/** The parts of a server that sessions read by. */
export const share: Effect.Effect<
  Shared,
  never,
  MerkleSync | Partitions | ServerConfig | Subscriptions | Tombstones | Views
> = Effect.gen(function*() {
  const { answers } = yield* MerkleSync
  const { subscriptionsMax } = yield* ServerConfig
  return {
    answers,
    partitions: yield* Partitions,
    policies: yield* PermissionPolicy,
    subscriptions: yield* Subscriptions,
    subscriptionsMax,
    tombstones: yield* Tombstones,
    views: yield* Views
  }
})

/** See the head of this file. */
export class Reading {
  readonly #reader: Reader
  readonly #shared: Shared
  /** What the user may do, by map, as far as it was asked for. */
  readonly #accesses = new Map<string, Access>()
  /** Maps that were refused: should they be granted one day, the client is told. */
  readonly #denied = new Set<string>()
  /** Maps that the client was told to open again. */
  readonly #reopening = new Set<string>()
  /** Maps that were opened with nothing in them: no deletion is missing there. */
  readonly #fresh = new Set<string>()
  /** The questions by which maps are opened whose views aren't complete yet. */
  readonly #opening = new Map<string, number>()
  /** Lets go of the views that the session follows or waits for, by map. */
  readonly #releases = new Map<string, () => void>()

  constructor(reader: Reader, shared: Shared) {
    this.#reader = reader
    this.#shared = shared
  }

  /** What the user may do with a map. */
  access(map: string): Access {
    let access = this.#accesses.get(map)
    if (access !== undefined) return access
    if (this.#accesses.size >= accessesMax) this.#accesses.clear()
    access = this.#shared.policies.current().access(this.#reader.principal(), map)
    this.#accesses.set(map, access)
    return access
  }

  /** Another policy is in force. */
  judgeAnew(): void {
    this.#accesses.clear()
    this.#reopen((map) => {
      const now = this.access(map).reads
      return now === "part" || now !== this.#opened(map)
    })
  }

  /** Another token is about to count. Answers what is to be called when it does: what it shows otherwise is opened anew. */
  beforeRenewal(): () => void {
    const before = new Map(this.#asked().map((map) => [map, this.access(map).viewKey]))
    return () => {
      this.#accesses.clear()
      this.#reopen((map) => before.get(map) !== this.access(map).viewKey)
    }
  }

  /** Opens a map, as a whole or as the part that may be read, and says how its root compares with the client's. */
  open(message: typeof Protocol.SyncInit.Type): void {
    const { id, kind, map } = message
    this.#reopening.delete(map)
    this.#denied.delete(map)
    this.#letGo(map)
    const access = this.access(map)
    const fault = this.#shared.partitions.kindFault(map, kind)
    // Of a map of another kind, who may read some records of it isn't told that it is there.
    if (access.reads === "nothing" || (access.reads === "part" && (kind !== "lww" || fault !== undefined))) {
      if (this.#denied.size < this.#shared.subscriptionsMax) this.#denied.add(map)
      return this.#reader.refuse(id, new GridError.PermissionDenied({ what: `read map "${map}"` }))
    }
    if (fault !== undefined) return this.#reader.refuse(id, fault)
    if (access.reads === "everything") {
      if (access.isWriter && !this.#hasDeletions(message)) {
        return this.#reader.refuse(id, new GridError.ResyncRequired({ map }))
      }
      return this.#follow(message, { kind })
    }
    if (this.#releases.size >= this.#shared.subscriptionsMax) return this.#reader.refuse(id, tooManyMaps)
    this.#opening.set(map, id)
    const release = this.#shared.views.open(map, access, (view) => {
      this.#opening.delete(map)
      this.#reader.guard(() => this.#follow(message, { kind, view }))
    })
    // A view that was complete at once may have been refused at once.
    const isWanted = this.#opening.has(map) ||
      this.#shared.subscriptions.follows(map, this.#reader.subscriber) !== undefined
    if (isWanted) this.#releases.set(map, release)
    else release()
  }

  /** Answers a step of a map's tree walk. */
  answer(
    { id, map }: { readonly id: number; readonly map: string },
    respond: (answers: Answers) => Protocol.ServerMessage | ReturnType<Answers["fetch"]>
  ): void {
    const following = this.#shared.subscriptions.follows(map, this.#reader.subscriber)
    if (following === undefined) {
      // It was told to open the map again, and may not have heard of it yet.
      if (this.#reopening.has(map)) return this.#reader.refuse(id, new GridError.MapReopened({ map }))
      return this.#reader.outOfPlace("a map is opened by SyncInit before it's walked")
    }
    const { kind, view } = following
    const fault = this.#shared.partitions.kindFault(map, kind)
    if (fault !== undefined) return this.#reader.refuse(id, fault)
    const answer = respond(this.#shared.answers(view ?? this.#shared.partitions.source(map)))
    this.#reader.send(
      "_tag" in answer
        ? answer
        : { _tag: "SyncLeaf", id, records: tuplesOf(kind, answer.records), after: answer.after ?? null }
    )
  }

  /** The session has ended. */
  end(): void {
    this.#shared.subscriptions.leave(this.#reader.subscriber)
    for (const release of this.#releases.values()) release()
  }

  /** Whether a map that is opened has all deletions that are forgotten here. Of a partial one nothing is brought back. */
  #hasDeletions({ map, root }: typeof Protocol.SyncInit.Type): boolean {
    if (root.every((byte) => byte === 0) && this.#fresh.size < this.#shared.subscriptionsMax) this.#fresh.add(map)
    const { age } = this.#shared.tombstones.forgotten(map)
    return age === 0 || this.#fresh.has(map) || this.#reader.hasConfirmed(age)
  }

  /** What may be read of a map by what the client was told when it opened it. */
  #opened(map: string): Extent {
    return this.#releases.has(map)
      ? "part"
      : this.#shared.subscriptions.follows(map, this.#reader.subscriber) === undefined
      ? "nothing"
      : "everything"
  }

  /** The maps that the client wants to follow, be it in vain. */
  #asked(): ReadonlyArray<string> {
    return Array.from(
      new Set([
        ...this.#shared.subscriptions.followed(this.#reader.subscriber),
        ...this.#releases.keys(),
        ...this.#denied
      ])
    )
  }

  #reopen(isDue: (map: string) => boolean): void {
    for (const map of this.#asked()) {
      if (!isDue(map)) continue
      this.#denied.delete(map)
      // First, as it says why what is asked meanwhile is refused.
      this.#reader.send({ _tag: "SyncAgain", map })
      this.#letGo(map)
      if (this.#reopening.size < this.#shared.subscriptionsMax) this.#reopening.add(map)
    }
  }

  #letGo(map: string): void {
    this.#reader.closeGap(map)
    const id = this.#opening.get(map)
    if (id !== undefined) this.#reader.refuse(id, new GridError.MapReopened({ map }))
    this.#opening.delete(map)
    this.#shared.subscriptions.unfollow(map, this.#reader.subscriber)
    this.#releases.get(map)?.()
    this.#releases.delete(map)
  }

  #follow({ cursor, id, kind, map, root }: typeof Protocol.SyncInit.Type, following: Following): void {
    if (!this.#shared.subscriptions.follow(map, following, this.#reader.subscriber)) {
      this.#letGo(map)
      return this.#reader.refuse(id, tooManyMaps)
    }
    const { view } = following
    const source = view ?? this.#shared.partitions.source(map)
    const isPartial = view !== undefined || !this.access(map).isWriter
    const partitionRoots = this.#shared.answers(source).root(root)
    const changed = partitionRoots === undefined
      ? []
      : view === undefined
      ? this.#changedSince(cursor, map, kind)
      : undefined
    this.#reader.send({
      _tag: "SyncRoot",
      id,
      root: packRoot(source.tree),
      partial: isPartial,
      watermark: isPartial ? 0 : this.#shared.tombstones.forgotten(map).watermark,
      sequence: view === undefined ? this.#shared.partitions.sequence(map) : 0,
      partitions: changed === undefined ? partitionRoots ?? null : null,
      records: tuplesOf(kind, changed ?? [])
    })
  }

  /** What the device lacks by its cursor: not what it has written itself. */
  #changedSince(
    cursor: (typeof Protocol.SyncInit.Type)["cursor"],
    map: string,
    kind: MapKind
  ): ReadonlyArray<KeyedRecord> | undefined {
    if (cursor?.[0] !== this.#shared.partitions.run) return undefined
    // Whoever removes an addition does it under the stamp of who added it.
    return this.#shared.partitions.changedSince(map, cursor[1])?.filter(([, record]) =>
      record.nodeId !== this.#reader.nodeId() || (kind === "or" && record.isTombstone)
    )
  }
}
