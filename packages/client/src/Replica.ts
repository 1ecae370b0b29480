/**
 * This device's copy of the grid: the maps, their journal and the outbox, in one consistent step each.
 *
 * A local write is stamped, merged and visible before the call returns; its record and operation go to storage together at
 * the end of the tick. Records from the server are merged the same way, without an operation.
 */
import * as Backpressure from "@topgun/core/Backpressure"
import { CrdtStore } from "@topgun/core/CrdtStore"
import type { MapDeclaration } from "@topgun/core/Grid"
import { BackpressureError, ClientClosed, StorageUnavailable } from "@topgun/core/GridError"
import * as Hlc from "@topgun/core/Hlc"
import type { Change as RecordChange, LwwMap } from "@topgun/core/LwwMap"
import * as LwwRecord from "@topgun/core/LwwRecord"
import type { KeyedRecord } from "@topgun/core/MerkleSync"
import { Storage, type StorageWrite } from "@topgun/core/Storage"
import { isNodeId, type Timestamp } from "@topgun/core/Timestamp"
import * as Value from "@topgun/core/Value"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Journal from "./Journal.ts"
import * as Expiry from "./Expiry.ts"
import { notifyAll, subscribeTo } from "./Live.ts"
import type { Source } from "./MapView.ts"
import * as Outbox from "./Outbox.ts"
import type { Change } from "./Reports.ts"
import * as RejectedWrites from "./RejectedWrites.ts"
import { check, checkTtl, isRefusal, LocalWrite, type WriteTerms } from "./Write.ts"

type Changes = ReadonlyArray<Change<unknown>>

/** One map of this device, and who listens to it. */
class ReplicaMap {
  readonly crdt: LwwMap
  readonly listeners = new Set<(changes: Changes) => void>()
  readonly watchers = new Map<string, Set<(change: Change<unknown>) => void>>()

  constructor(crdt: LwwMap) {
    this.crdt = crdt
  }
}

const format = 1
const pageRows = 5_000

/** Told of what concerns the whole device, as far as one asks for it. */
export interface Events {
  /** Something of the status changed. Called often; read what is needed later. */
  readonly onChange?: () => void
  /** A fault that nobody waits for. */
  readonly onFault?: (fault: unknown) => void
  /** A map was opened for the first time. */
  readonly onMapOpened?: () => void
  /** The outbox has filled up to, or drained down to, its water marks. */
  readonly onHighWater?: (pending: number) => void
  readonly onLowWater?: (pending: number) => void
}

const valueOf = (record: LwwRecord.LwwRecord | undefined): unknown =>
  record === undefined || record.isTombstone ? undefined : Value.decode(record.valueBytes)

const make = Effect.fnUntraced(function*(backpressure: Backpressure.Options) {
  const storage = yield* Storage
  const hlc = yield* Hlc.Hlc
  const store = (yield* CrdtStore).open()
  const clock = yield* Effect.clock
  const now = () => clock.unsafeCurrentTimeMillis()

  const maps = new Map<string, ReplicaMap>()
  const subscribers = new Set<Events>()
  let closed = false
  let storageFault: StorageUnavailable | undefined

  const onChange = (): void => {
    for (const each of subscribers) each.onChange?.()
  }
  const onFault = (fault: unknown): void => {
    for (const each of subscribers) each.onFault?.(fault)
  }
  /** What was found while opening, when nobody could listen yet. */
  let found: Array<StorageUnavailable> = []

  // --- Opening: what this device remembers ---

  /** Reads a space. Rows that `each` throws for are left out, and told of together; answers that fault. */
  const scanAll = Effect.fnUntraced(function*(space: string, each: (key: string, value: Uint8Array) => void) {
    let after: string | undefined
    let unreadable = 0
    let cause: unknown
    while (true) {
      const rows = yield* storage.scan(space, after, pageRows)
      for (const row of rows) {
        try {
          each(row.key, row.value)
        } catch (thrown) {
          unreadable++
          cause = thrown
        }
      }
      const last = rows.at(-1)
      if (last === undefined || rows.length < pageRows) break
      after = last.key
    }
    if (unreadable === 0) return undefined
    const unread = new StorageUnavailable({ reason: `${unreadable} rows of "${space}" are unreadable`, cause })
    found.push(unread)
    return unread
  })

  const meta = new Map<string, unknown>()
  const metaFault = yield* scanAll(Journal.spaces.meta, (key, value) => meta.set(key, Value.decode(value)))
  // Without them this writer could issue stamps and sequence numbers again that it has used.
  if (metaFault !== undefined) return yield* metaFault
  const storedFormat = meta.get("format")
  if (storedFormat !== undefined && storedFormat !== format) {
    return yield* new StorageUnavailable({
      reason: `it was written in format ${
        String(storedFormat)
      }, this version reads format ${format}: update the application`
    })
  }
  const storedNodeId = meta.get(Journal.nodeIdKey)
  const nodeId = isNodeId(storedNodeId) ? storedNodeId : hlc.nodeId()
  if (storedNodeId === undefined) {
    yield* storage.commit([
      { space: Journal.spaces.meta, key: "format", value: Value.encode(format) },
      { space: Journal.spaces.meta, key: Journal.nodeIdKey, value: Value.encode(nodeId) }
    ])
  }
  const reservation = meta.get(Journal.reservationKey)
  const reserved: Journal.Reservation = Array.isArray(reservation)
    ? { millis: Number(reservation[0]), sequence: Number(reservation[1]) }
    : { millis: 0, sequence: 0 }
  hlc.unsafeAdopt(nodeId, reserved.millis)

  const stored: Array<Outbox.StoredOperation> = []
  yield* scanAll(Journal.spaces.outbox, (key, value) => {
    const operation = Outbox.decode(value)
    if (operation === undefined) throw new Error(`${key} is not an operation`)
    stored.push(operation)
  })

  const mapOf = (name: string): ReplicaMap => {
    let map = maps.get(name)
    if (map === undefined) {
      map = new ReplicaMap(store.lwwMap(name))
      maps.set(name, map)
    }
    return map
  }

  const remembered = new Set<string>()
  yield* scanAll(Journal.spaces.maps, (name) => remembered.add(name))
  for (const { map } of stored) remembered.add(map)
  const ahead: Array<readonly [map: string, key: string]> = []
  const stillToExpire: Array<Expiry.Expiring> = []
  for (const name of remembered) {
    const { crdt } = mapOf(name)
    // Listeners are told of changes; what expired while the device slept never changed under their eyes.
    const expireFrom = now()
    const bases = new Map<string, LwwRecord.LwwRecord | null>()
    yield* scanAll(
      Journal.spaces.bases(name),
      (key, value) => bases.set(key, value.length === 0 ? null : LwwRecord.decode(value))
    )
    yield* scanAll(Journal.spaces.records(name), (key, value) => {
      const record = LwwRecord.decode(value)
      hlc.unsafeRaise(record)
      crdt.restore(key, record, bases.get(key))
      if (record.expiresAt > expireFrom) stillToExpire.push({ at: record.expiresAt, map: name, key })
      if (bases.has(key)) ahead.push([name, key])
    })
  }

  // --- Writing down ---

  const keyWrites = (name: string, key: string): ReadonlyArray<StorageWrite> => {
    const crdt = mapOf(name).crdt
    const base = crdt.getBase(key)
    return [
      { space: Journal.spaces.records(name), key, value: crdt.getRecord(key)?.row },
      {
        space: Journal.spaces.bases(name),
        key,
        value: base === undefined ? undefined : base === null ? new Uint8Array(0) : base.row
      }
    ]
  }

  // Declared before the outbox exists, as each needs the other.
  let nextSequence = () => reserved.sequence
  const inUse = { millis: 0 }
  const journal = yield* Journal.make(reserved, {
    keyWrites,
    inUse: () => ({ millis: inUse.millis, sequence: nextSequence() }),
    onCommit: (fault) => {
      if (fault === storageFault) return
      storageFault = fault
      if (fault !== undefined) onFault(fault)
      onChange()
    }
  })
  const rejected = yield* RejectedWrites.make({
    journal,
    rows: scanAll,
    onFault,
    onChange
  })

  // --- Being told ---

  /** Changes still to tell of: those that a listener makes come after those it hears of, for everyone. */
  const untold: Array<readonly [map: ReplicaMap, changes: Changes]> = []
  let telling = false
  const tell = (): void => {
    if (telling) return
    telling = true
    for (let next = untold.shift(); next !== undefined; next = untold.shift()) {
      const [map, told] = next
      notifyAll(Array.from(map.listeners), told, onFault)
      if (map.watchers.size === 0) continue
      for (const change of told) {
        const watchers = map.watchers.get(change.key)
        if (watchers !== undefined) notifyAll(Array.from(watchers), change, onFault)
      }
    }
    telling = false
  }

  const announce = (name: string, changes: ReadonlyArray<RecordChange>, origin: "local" | "remote"): void => {
    const map = mapOf(name)
    if (map.listeners.size === 0 && map.watchers.size === 0) return
    const told = changes.map(({ key, previous }): Change<unknown> => ({
      key,
      value: map.crdt.get(key),
      previous: valueOf(previous),
      origin
    }))
    untold.push([map, told])
    tell()
  }

  /** Another record may have come meanwhile, with its own time or none. */
  const isCurrent = ({ at, key, map }: Expiry.Expiring): boolean => mapOf(map).crdt.getRecord(key)?.expiresAt === at
  const expire = yield* Expiry.make(now, isCurrent, (due) => {
    const changes = new Map<string, Array<RecordChange>>()
    for (const { key, map } of due) {
      const record = mapOf(map).crdt.getRecord(key)!
      const ofMap = changes.get(map)
      const change = { key, previous: record, record }
      if (ofMap === undefined) changes.set(map, [change])
      else ofMap.push(change)
    }
    for (const [map, ofMap] of changes) announce(map, ofMap, "local")
  })
  stillToExpire.forEach(expire)

  const emit = (name: string, changes: ReadonlyArray<RecordChange>, origin: "local" | "remote"): void => {
    for (const { key, record } of changes) {
      if (record !== undefined && record.expiresAt !== 0) expire({ at: record.expiresAt, map: name, key })
    }
    announce(name, changes, origin)
  }

  const apply = (
    name: string,
    change: RecordChange | undefined,
    key: string,
    origin: "local" | "remote"
  ): void => {
    journal.stageKey(name, key, origin)
    if (change !== undefined) emit(name, [change], origin)
  }

  // --- The outbox ---

  const outbox = yield* Outbox.make({
    backpressure,
    nextSequence: Math.max(reserved.sequence, ...stored.slice(-1).map(({ sequence }) => sequence + 1), 1),
    now,
    journal,
    listener: {
      onAccepted: ({ key, map, record }) => {
        const change = mapOf(map).crdt.confirm(key, record)
        if (change !== undefined) apply(map, change, key, "remote")
      },
      onEnded: ({ key, map, offered }) => {
        if (!offered) journal.stageKey(map, key, "remote")
      },
      onUndone: (operation, remaining, failure) => {
        const { key, map } = operation
        if (!operation.offered) apply(map, mapOf(map).crdt.revert(key, remaining?.record), key, "local")
        rejected.add(operation, failure)
        onFault(failure)
      },
      onHighWater: (pending) => {
        for (const each of subscribers) each.onHighWater?.(pending)
      },
      onLowWater: (pending) => {
        for (const each of subscribers) each.onLowWater?.(pending)
      },
      onChange
    }
  })
  nextSequence = outbox.nextSequence
  for (const operation of stored) outbox.restore(operation)
  for (const [name, key] of ahead) {
    const record = mapOf(name).crdt.getRecord(key)
    if (record !== undefined && !outbox.isPending(name, key)) outbox.remake(name, key, record)
  }

  // The last finalizer to be added is the first to run: nobody waits for a client that is gone.
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      closed = true
      outbox.close(new ClientClosed())
    })
  )

  // --- Writes ---

  const admit = (
    write: LocalWrite,
    name: string,
    key: string,
    bytes: Uint8Array | undefined,
    { concern, ttlMs }: WriteTerms
  ): void => {
    const stamp = hlc.unsafeTick()
    inUse.millis = stamp.millis
    const record = bytes === undefined
      ? LwwRecord.remove(stamp)
      : LwwRecord.put(stamp, bytes, ttlMs === undefined ? 0 : stamp.millis + ttlMs)
    const change = mapOf(name).crdt.write(key, record)
    const operation = outbox.append(name, key, record, concern)
    journal.stageKey(name, key, "local")
    write.admit(Exit.succeed({ operation, record, local: journal.flushed() }))
    if (change !== undefined) emit(name, [change], "local")
  }

  // --- Stamping anew ---

  const isConfirmed = ({ key, map, record }: Outbox.Pending): boolean => {
    const confirmed = mapOf(map).crdt.getConfirmed(key)
    return confirmed !== undefined && LwwRecord.compare(confirmed, record) >= 0
  }

  const restampedBy = (stamp: Timestamp, record: LwwRecord.LwwRecord): LwwRecord.LwwRecord =>
    record.isTombstone
      ? LwwRecord.remove(stamp)
      : LwwRecord.put(
        stamp,
        record.valueBytes,
        record.expiresAt === 0 ? 0 : Math.max(1, record.expiresAt + stamp.millis - record.millis)
      )

  const restampAs = (writer: string, boundMillis: number, isAll: boolean): void => {
    hlc.unsafeAdopt(writer, 0)
    // Its own stamps from beyond the bound are what the clock has to forget.
    const raise = (record: LwwRecord.LwwRecord): void => {
      if (record.millis <= boundMillis) hlc.unsafeRaise(record)
    }
    const due: Array<Outbox.Pending> = []
    for (const operation of outbox.entries()) {
      const isDue = (isAll || operation.record.millis > boundMillis) && !isConfirmed(operation)
      if (isDue) due.push(operation)
      // The server may have what was sent, unless it is beyond its bound: the write's new stamp must win over that.
      if (!isDue || operation.stage === "flight") raise(operation.record)
    }
    due.sort((a, b) => LwwRecord.compare(a.record, b.record) || a.sequence - b.sequence)
    for (const { crdt } of maps.values()) {
      for (const [key] of crdt.records()) {
        const confirmed = crdt.getConfirmed(key)
        if (confirmed !== undefined) raise(confirmed)
      }
    }
    journal.adopt(writer)
    inUse.millis = 0
    const changed: Array<readonly [map: string, change: RecordChange]> = []
    for (const operation of due) {
      const { key, map, record } = operation
      const stamp = hlc.unsafeTick()
      inUse.millis = stamp.millis
      outbox.restamp(operation, restampedBy(stamp, record))
      const { crdt } = mapOf(map)
      const live = crdt.getRecord(key)
      if (live === undefined || LwwRecord.compare(live, record) !== 0) continue
      const change = crdt.revert(key, operation.record)
      journal.stageKey(map, key, "local")
      // Of a record that doesn't expire nothing changes that can be seen.
      if (change !== undefined && record.expiresAt !== 0) changed.push([map, change])
    }
    // Listeners may write, so they hear of it when all is done.
    for (const [map, change] of changed) emit(map, [change], "local")
  }

  return {
    nodeId: hlc.nodeId,
    journal,
    outbox,
    rejected,
    storageKind: storage.kind,
    storageDurable: storage.durable,
    storageFault: () => storageFault,

    /** Hears of what concerns the device, until the returned function is called. */
    observe: (events: Events): () => void => {
      subscribers.add(events)
      if (events.onFault !== undefined) {
        found.forEach(events.onFault)
        found = []
      }
      return () => {
        subscribers.delete(events)
      }
    },

    /** Opens a map and remembers that it was. */
    openMap: (name: string): LwwMap => {
      if (!remembered.has(name)) {
        remembered.add(name)
        journal.stageRow({ space: Journal.spaces.maps, key: name, value: Value.encode("lww") })
        for (const each of subscribers) each.onMapOpened?.()
      }
      return mapOf(name).crdt
    },
    mapNames: (): ReadonlyArray<string> => Array.from(remembered),
    map: (name: string): LwwMap | undefined => maps.get(name)?.crdt,

    /**
     * Writes a key; `undefined` from `next` removes it. `next` gets the present value, at the moment of admission. Visible
     * when this returns, unless the outbox is full and its policy is to wait.
     *
     * @throws WriteRefusal when nothing was changed
     */
    write: <A>(
      declaration: MapDeclaration<A>,
      key: string,
      next: (current: A | undefined) => A | undefined,
      terms: WriteTerms
    ): LocalWrite => {
      if (closed) throw new ClientClosed()
      checkTtl(terms.ttlMs)
      const { name } = declaration
      const { crdt } = mapOf(name)
      const bytes = () => check(declaration, key, next(crdt.get(key) as A | undefined))
      // What can be refused is refused now, though the value may be another one when there is room. Before the look for
      // room, as `next` may write too.
      const value = bytes()
      const write = new LocalWrite(now(), terms.concern)
      if (outbox.hasRoom(name, key)) {
        admit(write, name, key, value, terms)
        return write
      }
      write.postpone()
      const waits = outbox.whenRoom(() => {
        try {
          if (closed) throw new ClientClosed()
          admit(write, name, key, bytes(), terms)
        } catch (fault) {
          // What `next` throws is the writer's affair: others wait for room too.
          write.admit(isRefusal(fault) ? Exit.fail(fault) : Exit.die(fault))
          onFault(fault)
        }
      })
      if (!waits) throw new BackpressureError({ pending: outbox.size(), capacity: outbox.capacity })
      return write
    },

    /**
     * Merges records that the server has. Those from beyond the drift bound are left out, and reported; answers whether
     * there were none.
     */
    merge: (name: string, records: ReadonlyArray<KeyedRecord>): boolean => {
      const { crdt } = mapOf(name)
      const changes: Array<RecordChange> = []
      let isComplete = true
      for (const [key, record] of records) {
        const received = hlc.unsafeReceive(record)
        if (Either.isLeft(received)) {
          onFault(received.left)
          isComplete = false
          continue
        }
        const before = crdt.revision
        const change = crdt.merge(key, record)
        if (change !== undefined) changes.push(change)
        // What was confirmed may have changed behind a write that hides it.
        if (crdt.revision !== before) journal.stageKey(name, key, "remote")
      }
      if (changes.length > 0) emit(name, changes, "remote")
      return isComplete
    },

    /**
     * Stamps anew, in the order of their writes, those operations that the server hasn't got and wouldn't take: stamps beyond
     * `boundMillis`. With `isWrong`, when the clock was found to be far out, all that it hasn't got. The stamps are another
     * writer's, so that no writer's time ever runs back; it begins where this device's confirmed records end. On storage it
     * is one transaction. Only while nothing is sent. Answers whether this device is another writer now.
     */
    restamp: (boundMillis: number, isWrong: boolean): Effect.Effect<boolean> =>
      Effect.suspend(() => {
        let isDue = hlc.unsafeLatest().millis > boundMillis
        for (const operation of outbox.entries()) {
          if (isDue) break
          isDue = (isWrong || operation.record.millis > boundMillis) && !isConfirmed(operation)
        }
        if (!isDue) return Effect.succeed(false)
        return Effect.map(Hlc.makeNodeId, (writer) => {
          restampAs(writer, boundMillis, isWrong)
          return true
        })
      }),

    /** What a handle of the map reads from and listens to. */
    view: (name: string): Source => ({
      map: () => mapOf(name).crdt,
      subscribe: (listener, signal) => subscribeTo(mapOf(name).listeners, listener, signal),
      watch: (key, listener, signal) => {
        const { watchers } = mapOf(name)
        let own = watchers.get(key)
        if (own === undefined) {
          own = new Set()
          watchers.set(key, own)
        }
        return subscribeTo(own, listener, signal, () => watchers.delete(key))
      }
    })
  }
})

/** This device's copy of the grid, loaded. */
export class Replica extends Context.Tag("@topgun/client/Replica")<
  Replica,
  Effect.Effect.Success<ReturnType<typeof make>>
>() {}

/** The replica kept in this node's storage, with everything that it remembers loaded. */
export const layer = (options: { readonly backpressure?: Partial<Backpressure.Options> } = {}): Layer.Layer<
  Replica,
  StorageUnavailable,
  Storage | Hlc.Hlc | CrdtStore
> => Layer.scoped(Replica, make({ ...Backpressure.defaults, ...options.backpressure }))
