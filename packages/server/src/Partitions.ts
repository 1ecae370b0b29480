/** The partitions that this node owns: one `CrdtStore` each, and the one place where foreign records are merged. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Cell from "@topgun/core/Cell"
import type { Store } from "@topgun/core/CrdtStore"
import { CrdtStore, sizeOf } from "@topgun/core/CrdtStore"
import { ExpiryHeap } from "@topgun/core/ExpiryHeap"
import {
  BeyondHorizon,
  MalformedMessage,
  MapKindMismatch,
  NotOwner,
  Overloaded,
  PermissionDenied,
  RecordTooLarge,
  type StorageUnavailable,
  ValueNotSupported
} from "@topgun/core/GridError"
import { Hlc } from "@topgun/core/Hlc"
import type { LwwMap } from "@topgun/core/LwwMap"
import { compare as compareRecords, type LwwRecord, remove as tombstoneOf, stampBytes } from "@topgun/core/LwwRecord"
import { makeNodeId } from "@topgun/core/Hlc"
import type { KeyedRecord, Source } from "@topgun/core/MerkleSync"
import { MerkleForest } from "@topgun/core/MerkleTree"
import { partitionCount } from "@topgun/core/Partition"
import { PartitionRouter } from "@topgun/core/PartitionRouter"
import type { OpTuple } from "@topgun/core/Protocol"
import * as Value from "@topgun/core/Value"
import { type Access, amendedWith } from "./Access.ts"
import type { Principal } from "./Authentication.ts"
import { Capacity } from "./Capacity.ts"
import { Changes } from "./Changes.ts"
import type { Batch, Row, Totals } from "./Persistence.ts"
import { Persistence } from "./Persistence.ts"
import type { Rule } from "./Resolvers.ts"
import * as Rulings from "./Rulings.ts"
import { ServerConfig } from "./ServerConfig.ts"
import { type Buried, Tombstones } from "./Tombstones.ts"

/** An operation that was refused: nothing of it was merged. */
export interface Rejection {
  readonly sequence: number
  /** The error's `_tag`. */
  readonly cause: string
  readonly reason: string
}

/** What an interceptor has said of an operation: that it is refused, or the canonical bytes of the value in the place of its own. */
export type Intercepted = { readonly _tag: string; readonly message: string } | Uint8Array

/** Operations on one map. */
export interface Part {
  /** Whose they are; `undefined` where nobody is asked who he is. */
  readonly principal?: Principal | undefined
  /** What interceptors have said of them, by sequence number; nothing of most. */
  readonly intercepted?: ReadonlyMap<number, Intercepted>
  /** What their writer may do with it; without it, everything. */
  readonly access?: Access
  readonly map: string
  readonly kind: Cell.MapKind
  readonly ops: ReadonlyArray<OpTuple>
}

/** Records of one map that were merged together and won. */
export interface Won extends Batch {
  /** The number of the map's last change so far: everything up to it is in this batch and in those before. */
  readonly sequence: number
  /**
   * Those that aren't what their writer sent: they have stored fields in place of what he may not write, or are what a resolver or an
   * interceptor has made of it. One that a resolver has kept didn't win.
   */
  readonly amended: ReadonlyArray<Row>
}

/** What became of operations. */
export interface Applied {
  /** Sequence numbers of the operations that were merged: those that won, and those that lost to a newer record. */
  readonly accepted: ReadonlyArray<number>
  /** The records that won, by map. */
  readonly won: ReadonlyArray<Won>
  readonly rejected: ReadonlyArray<Rejection>
}

/** Tombstones of one map that were forgotten together. */
export interface Forgetting {
  readonly batch: Batch
  /** The latest of their stamps, in ms, at least 1. */
  readonly latestMillis: number
}

/** The size of a map. */
export interface MapSize {
  readonly name: string
  /** Keys that have a value. */
  readonly size: number
  /** Records, tombstones included. */
  readonly records: number
  /** The Merkle root, 16 hex digits. */
  readonly root: string
}

/** This node's partitions. Plain calls but for loading: they run once a batch. */
export class Partitions extends Context.Tag("@topgun/server/Partitions")<Partitions, {
  /** Takes in everything that is stored; answers how many records. Before anything else. */
  readonly load: Effect.Effect<number, StorageUnavailable>
  /** Merges operations in one synchronous pass: each is refused or merged by itself, or, if `atomic`, all are or none. */
  readonly apply: (parts: ReadonlyArray<Part>, atomic: boolean) => Applied
  /** Why a map can't be used as `kind`; `undefined` when it can. A map has the kind of its first write. */
  readonly kindFault: (map: string, kind: Cell.MapKind) => MapKindMismatch | undefined
  /** Whether a resolver decides what becomes of writes to a map: such a write that comes again may come to something else. */
  readonly isResolved: (map: string) => boolean
  /** A map as its replicas' reconciliation sees it; one that doesn't exist is empty. */
  readonly source: (map: string) => Source
  /** Which run of the server this is: changes have numbers of their own in each. */
  readonly run: string
  /** The number of a map's last change. */
  readonly sequence: (map: string) => number
  /** The records of one partition of a map. The map may change meanwhile. */
  readonly records: (map: string, partition: number) => Iterable<KeyedRecord>
  /** A map's records that have changed since, as they are now; `undefined` where that isn't known, or they are many. */
  readonly changedSince: (map: string, sequence: number) => ReadonlyArray<KeyedRecord> | undefined
  /** Has `onWon` called for records that were merged, in the same step: what it is told is what {@link source} shows. */
  readonly observe: (onWon: (won: Won) => void) => void
  /** When the next value expires, or something that it was replaced by since, in ms. */
  readonly nextExpiry: () => number | undefined
  /** Has `onEarlier` called whenever that is earlier than it was. */
  readonly observeExpiry: (onEarlier: () => void) => void
  /**
   * Makes tombstones of values that have expired, `max` at most: each with its value's own stamp, by which it beats that value and
   * nothing else, whoever makes it and when.
   */
  readonly expire: (max: number) => ReadonlyArray<Won>
  /** Whether a tombstone is still what it was when it came. */
  readonly isBuried: (map: string, buried: Buried) => boolean
  /** Forgets those of a map's tombstones that still are what they were when they came. */
  readonly forget: (map: string, buried: ReadonlyArray<Buried>) => Forgetting | undefined
  readonly sizes: () => ReadonlyArray<MapSize>
  /** How many maps there are, and how many records in them, tombstones included. */
  readonly counts: () => { readonly maps: number; readonly records: number }
}>() {}

/** An error, or why a resolver or an interceptor has rejected it. */
interface Refusal {
  readonly _tag: string
  readonly message: string
}

const isRefused = (found: Proposed | Checked | Refusal): found is Refusal => "_tag" in found

/** What checks of foreign bytes throw. Anything else is a fault of ours and goes on its way. */
const isRefusal = (fault: unknown): fault is MalformedMessage | RecordTooLarge | ValueNotSupported =>
  fault instanceof MalformedMessage || fault instanceof RecordTooLarge || fault instanceof ValueNotSupported

/** An operation that may be merged. */
interface Checked extends Row {
  readonly isAmended: boolean
}

/** An operation that is in form, and whose writer may write it. */
interface Proposed extends Checked {
  readonly stored: LwwRecord | undefined
}

/**
 * What cells will be when the operations that were judged are merged. Each operation is judged as if those before it in its
 * batch were: otherwise a batch could do what its operations one by one can't.
 */
class Foreseen {
  readonly #maps = new Map<string, Map<string, LwwRecord>>()

  record(map: string, cell: string): LwwRecord | undefined {
    return this.#maps.get(map)?.get(cell)
  }

  add(map: string, cell: string, record: LwwRecord): void {
    const cells = this.#maps.get(map)
    if (cells === undefined) this.#maps.set(map, new Map([[cell, record]]))
    else cells.set(cell, record)
  }
}

interface MapSource extends Source {
  readonly kind: Cell.MapKind
  readonly rule: Rule | undefined
  /** What it comes to: see `Totals`. */
  records: number
  hi: number
  lo: number
  /** Its cells by partition, as the partitions' stores have them: found without a look into a store for each record. */
  readonly cells: Array<LwwMap | undefined>
}

/** Records that are sent as changes, at most: more than these are found by walking the tree. */
const changedRecordsMax = 2_000
/** Bytes of their rows, at most. */
const changedBytesMax = 256 * 1024

/** Whether a record says the same as one of others, whatever its stamp. */
const isSaid = (record: LwwRecord, others: ReadonlyArray<LwwRecord | undefined>): boolean =>
  others.some((other) =>
    other !== undefined && Value.compareBytes(record.row.subarray(stampBytes), other.row.subarray(stampBytes)) === 0
  )

const noTotals: Totals = { records: 0, hi: 0, lo: 0 }
const emptyRoot = { hi: 0, lo: 0 }

const damageOf = (map: string, what: string): Error => new Error(`map "${map}": ${what}`)

const nothing: Source = { tree: new MerkleForest(), record: () => undefined }

const make = Effect.gen(function*() {
  const { mapsMax } = yield* ServerConfig
  const capacity = yield* Capacity
  const crdtStore = yield* CrdtStore
  const clock = yield* Effect.clock
  const now = () => clock.unsafeCurrentTimeMillis()
  const hlc = yield* Hlc
  const persistence = yield* Persistence
  const router = yield* PartitionRouter
  const tombstones = yield* Tombstones
  const rulings = yield* Rulings.make

  const run = yield* makeNodeId
  const changes = new Changes()
  const maps = new Map<string, MapSource>()
  const forest = (map: string): MerkleForest => maps.get(map)!.tree
  const stores: Array<Store | undefined> = Array.from({ length: partitionCount })
  const storeOf = (partition: number): Store => stores[partition] ??= crdtStore.open({ tree: forest })

  const makeMap = (name: string, kind: Cell.MapKind): MapSource => {
    const cells: MapSource["cells"] = Array.from({ length: partitionCount })
    const map = {
      kind,
      rule: rulings.rule(name),
      cells,
      records: 0,
      hi: 0,
      lo: 0,
      tree: new MerkleForest(),
      record: (cell: string, partition: number) => cells[partition]?.getConfirmed(cell)
    }
    maps.set(name, map)
    return map
  }

  const kindFault = (name: string, kind: Cell.MapKind): MapKindMismatch | undefined => {
    const map = maps.get(name)
    return map === undefined || map.kind === kind
      ? undefined
      : new MapKindMismatch({ map: name, expected: map.kind, actual: kind })
  }

  // How many there are is nobody's business who may not see them.
  const fullOfMaps = () => new Overloaded({ what: "it has as many maps as mapsMax allows" })
  const deniedTo = (verb: string, map: string) => new PermissionDenied({ what: `${verb} this in map "${map}"` })

  const mapFault = (
    name: string,
    kind: Cell.MapKind,
    access: Access | undefined
  ): MapKindMismatch | Overloaded | PermissionDenied | undefined =>
    access?.writesTo(kind) === false
      ? new PermissionDenied({ what: `write to map "${name}"` })
      : maps.has(name)
      ? kindFault(name, kind)
      : maps.size >= mapsMax
      ? fullOfMaps()
      : undefined

  /** The rule for a map: found once for each that there is. */
  const ruleOf = (map: string): Rule | undefined => {
    const known = maps.get(map)
    return known === undefined ? rulings.rule(map) : known.rule
  }

  /** One operation as its writer may write it, after those that are foreseen, or why it is refused. */
  const propose = (
    { access, intercepted, kind, map }: Part,
    sequence: number,
    key: string,
    row: Uint8Array,
    foreseen: Foreseen,
    isResolved: boolean
  ): Proposed | Refusal => {
    try {
      Value.checkKey(key)
      const sent = Cell.decodeInPlace(kind, map, key, row)
      const partition = router.partitionOf(key)
      if (!router.isLocal(partition)) return new NotOwner({ partition })
      const received = hlc.unsafeReceive(sent)
      if (Either.isLeft(received)) return received.left
      const said = intercepted?.get(sequence)
      if (said !== undefined && "_tag" in said) return said
      const record = said === undefined ? sent : amendedWith(sent, said)
      const cell = Cell.cellOf(kind, key, record)
      // In the same step as the merge: whatever was forgotten until now counts.
      const { watermark } = tombstones.forgotten(map)
      const isOld = watermark > 0 && record.millis <= watermark && !record.isTombstone && kind !== "counter"
      if (isOld && maps.get(map)?.record(cell, partition) === undefined) return new BeyondHorizon({ map })
      const stored = access === undefined && !isResolved
        ? undefined
        : foreseen.record(map, cell) ?? maps.get(map)?.record(cell, partition)
      const judged = access === undefined ? record : access.judge(kind, record, stored, now(), isResolved)
      if (judged === undefined) return deniedTo(record.isTombstone ? "remove" : "put", map)
      return { cell, partition, record: judged, isAmended: judged !== sent, stored }
    } catch (fault) {
      if (isRefusal(fault)) return fault
      throw fault
    }
  }

  const foresee = (map: string, { cell, record, stored }: Proposed, foreseen: Foreseen): void => {
    if (stored === undefined || compareRecords(record, stored) > 0) foreseen.add(map, cell, record)
  }

  /** What a resolver has made of a proposal, where its writer may write that. */
  const resolved = ({ access, kind, map }: Part, proposed: Proposed, ruling: Rulings.Ruling): Proposed | Refusal => {
    if ("_tag" in ruling) return ruling
    const { record, stored } = proposed
    if (access !== undefined && ruling !== record && ruling !== stored && !isSaid(ruling, [record, stored])) {
      try {
        if (access.judge(kind, ruling, stored, now(), true) !== ruling) {
          return deniedTo(ruling.isTombstone ? "remove" : "put", map)
        }
      } catch (fault) {
        if (isRefusal(fault)) return fault
        throw fault
      }
    }
    const received = hlc.unsafeReceive(ruling)
    if (Either.isLeft(received)) return received.left
    return { ...proposed, record: ruling, isAmended: proposed.isAmended || ruling !== record }
  }

  /** What there is to merge of a part's operations, each after those before it, or why it is refused. */
  const check = (part: Part, foreseen: Foreseen, stopped: { count: number }): ReadonlyArray<Checked | Refusal> => {
    const { access, kind, map, ops } = part
    const rule = ruleOf(map)
    if (rule === undefined) {
      return ops.map(([sequence, key, row]) => {
        const proposed = propose(part, sequence, key, row, foreseen, false)
        if (access !== undefined && !isRefused(proposed)) foresee(map, proposed, foreseen)
        return proposed
      })
    }
    if (kind !== "lww") {
      return ops.map(() => Rulings.refused("a resolver decides for this map, which is for maps of records"))
    }
    const found: Array<Checked | Refusal> = []
    // As many at a time as have nothing to do with each other.
    while (found.length < ops.length) {
      const keys = new Set<string>()
      const proposals: Array<Proposed | Refusal> = []
      for (const [sequence, key, row] of ops.slice(found.length)) {
        if (keys.has(key)) break
        keys.add(key)
        proposals.push(propose(part, sequence, key, row, foreseen, true))
      }
      const proposed = proposals.flatMap((each) => isRefused(each) ? [] : [each])
      const cases = proposed.map(({ cell, record, stored }) => ({
        rule,
        map,
        key: cell,
        proposal: record,
        stored,
        principal: part.principal
      }))
      const ruled = rulings.decide(cases, stopped).map((ruling, i) => resolved(part, proposed[i]!, ruling))
      for (const each of proposals) {
        const what = isRefused(each) ? each : ruled.shift()!
        if (!isRefused(what)) foresee(map, what, foreseen)
        found.push(what)
      }
    }
    return found
  }

  /** Of all maps. */
  let recordCount = 0

  /** Changes the cells of one of a map's partitions, and counts what comes of it. */
  const change = <A>(map: MapSource, partition: number, cells: LwwMap, merge: () => A): A => {
    const records = cells.recordCount
    const before = map.tree.tree(partition)?.root() ?? emptyRoot
    const changed = merge()
    const after = map.tree.tree(partition)?.root() ?? emptyRoot
    recordCount += cells.recordCount - records
    map.records += cells.recordCount - records
    map.hi = (map.hi + after.hi - before.hi) | 0
    map.lo = (map.lo + after.lo - before.lo) | 0
    return changed
  }

  const mapFor = (name: string, kind: Cell.MapKind): MapSource => maps.get(name) ?? makeMap(name, kind)

  const cellsFor = (map: MapSource, name: string, partition: number): LwwMap =>
    map.cells[partition] ??= storeOf(partition).map(name, map.kind).cells

  /** Whether a record won. */
  const merge = (name: string, kind: Cell.MapKind, { cell, partition, record }: Row): boolean => {
    const map = mapFor(name, kind)
    const cells = cellsFor(map, name, partition)
    const won = change(map, partition, cells, () => cells.merge(cell, record) !== undefined)
    if (won && record.expiresAt > 0) expires(name, cell, record.expiresAt)
    return won
  }

  /** What a map comes to, counted anew. */
  const recount = (map: MapSource): Totals => {
    let [hi, lo, records] = [0, 0, 0]
    map.cells.forEach((cells, partition) => {
      const root = map.tree.tree(partition)?.root() ?? emptyRoot
      records += cells?.recordCount ?? 0
      hi = (hi + root.hi) | 0
      lo = (lo + root.lo) | 0
    })
    return { records, hi, lo }
  }

  // --- Expiry ---

  const expiring = new ExpiryHeap(({ at, cell, map }) => {
    const { kind, record } = maps.get(map)!
    return record(cell, router.partitionOf(Cell.keyOf(kind, cell)))?.expiresAt === at
  })
  let onEarlierExpiry = (): void => {}
  const expires = (map: string, cell: string, at: number): void => {
    const { next } = expiring
    expiring.add({ at, map, cell })
    if (next === undefined || at < next) onEarlierExpiry()
  }

  const expire = (max: number): ReadonlyArray<Won> => {
    const byMap = new Map<string, Array<Checked>>()
    for (const { cell, map } of expiring.take(now(), max)) {
      const { kind, record } = maps.get(map)!
      const partition = router.partitionOf(Cell.keyOf(kind, cell))
      const row = { cell, partition, record: tombstoneOf(record(cell, partition)!.stamp), isAmended: false }
      const rows = byMap.get(map)
      if (rows === undefined) byMap.set(map, [row])
      else rows.push(row)
    }
    return Array.from(byMap, ([map, rows]) => mergeAll({ map, kind: maps.get(map)!.kind, ops: [] }, rows))
  }

  // --- Forgetting ---

  const buriedAt = (map: MapSource, { cell, counter, millis }: Buried): Row | undefined => {
    const partition = router.partitionOf(Cell.keyOf(map.kind, cell))
    const record = map.record(cell, partition)
    const isSame = record !== undefined && record.isTombstone && record.millis === millis && record.counter === counter
    return isSame ? { cell, partition, record } : undefined
  }

  const forget = (name: string, buried: ReadonlyArray<Buried>): Forgetting | undefined => {
    const map = maps.get(name)
    if (map === undefined) return undefined
    const forgotten: Array<Row> = []
    // A watermark of 0 says that nothing is forgotten.
    let latestMillis = 1
    for (const each of buried) {
      const row = buriedAt(map, each)
      if (row === undefined) continue
      const cells = map.cells[row.partition]!
      change(map, row.partition, cells, () => cells.collect(row.cell))
      forgotten.push(row)
      latestMillis = Math.max(latestMillis, each.millis)
    }
    const { hi, kind, lo, records } = map
    const batch = { map: name, kind, rows: [], age: tombstones.age(), forgotten, totals: { records, hi, lo } }
    return { batch, latestMillis }
  }

  // --- Operations ---

  /** Judges, one after the other, which of so many operations would make a record that there is no room for. */
  const roomFor = (operations: number): (map: string, row: Row) => Overloaded | undefined => {
    const isFull = capacity.isFull()
    let left = isFull ? 0 : capacity.recordsMax - recordCount
    if (left >= operations) return () => undefined
    const made = new Map<string, Set<string>>()
    return (map, { cell, partition }) => {
      const before = made.get(map)
      if (before?.has(cell) === true || maps.get(map)?.record(cell, partition) !== undefined) return undefined
      if (left <= 0) {
        return new Overloaded({
          what: isFull
            ? "its memory is used up, and it takes no new records"
            : "it has as many records as recordsMax allows"
        })
      }
      left--
      made.set(map, (before ?? new Set()).add(cell))
      return undefined
    }
  }

  let onWon: (won: Won) => void = () => {}

  /** Merges what was checked; answers what won. */
  const mergeAll = ({ kind, map }: Part, rows: ReadonlyArray<Checked>): Won => {
    const won: Array<Row> = []
    const age = tombstones.age()
    for (const row of rows) {
      if (!merge(map, kind, row)) continue
      changes.add(map, row.cell)
      if (row.record.isTombstone) tombstones.graveyard.bury(map, row.cell, row.record, age)
      won.push(row)
    }
    const amended = rows.filter(({ isAmended }) => isAmended)
    const { hi, lo, records } = maps.get(map) ?? noTotals
    const merged = { map, kind, rows: won, age, totals: { records, hi, lo }, sequence: changes.sequence(map), amended }
    if (won.length > 0) onWon(merged)
    return merged
  }

  const applyEach = (part: Part): Applied => {
    const { access, kind, map, ops } = part
    const accepted: Array<number> = []
    const rows: Array<Checked> = []
    const rejected: Array<Rejection> = []
    const fault = mapFault(map, kind, access)
    const roomFault = roomFor(ops.length)
    const all = fault === undefined ? check(part, new Foreseen(), { count: 0 }) : []
    for (const [at, [sequence]] of ops.entries()) {
      const found = fault ?? all[at]!
      const checked = "_tag" in found ? found : roomFault(map, found) ?? found
      if ("_tag" in checked) {
        rejected.push({ sequence, cause: checked._tag, reason: checked.message })
        continue
      }
      accepted.push(sequence)
      rows.push(checked)
    }
    return { accepted, won: [mergeAll(part, rows)], rejected }
  }

  /** The kinds that the parts give to maps that don't exist yet have to agree, and there has to be room for them. */
  const partsFault = (
    parts: ReadonlyArray<Part>
  ): MapKindMismatch | Overloaded | PermissionDenied | undefined => {
    const created = new Map<string, Cell.MapKind>()
    for (const { access, kind, map } of parts) {
      const fault = mapFault(map, kind, access)
      if (fault !== undefined) return fault
      if (maps.has(map)) continue
      const other = created.get(map) ?? kind
      if (other !== kind) return new MapKindMismatch({ map, expected: other, actual: kind })
      created.set(map, kind)
    }
    return maps.size + created.size > mapsMax ? fullOfMaps() : undefined
  }

  const applyAll = (parts: ReadonlyArray<Part>): Applied => {
    const sequences = parts.flatMap(({ ops }) => ops.map(([sequence]) => sequence))
    const refuse = (refused: number | undefined, fault: Refusal): Applied => ({
      accepted: [],
      won: [],
      rejected: sequences.map((sequence) =>
        sequence === refused || refused === undefined
          ? { sequence, cause: fault._tag, reason: fault.message }
          : { sequence, cause: "WriteRejected", reason: `another write of its batch was refused: ${fault.message}` }
      )
    })
    const fault = partsFault(parts)
    if (fault !== undefined) return refuse(undefined, fault)
    const checkedParts: Array<readonly [part: Part, rows: ReadonlyArray<Checked>]> = []
    const roomFault = roomFor(sequences.length)
    const foreseen = new Foreseen()
    const stopped = { count: 0 }
    for (const part of parts) {
      const rows: Array<Checked> = []
      const all = check(part, foreseen, stopped)
      for (const [at, [sequence]] of part.ops.entries()) {
        const found = all[at]!
        const checked = "_tag" in found ? found : roomFault(part.map, found) ?? found
        if ("_tag" in checked) return refuse(sequence, checked)
        rows.push(checked)
      }
      checkedParts.push([part, rows])
    }
    const won = checkedParts.map(([part, rows]) => mergeAll(part, rows))
    return { accepted: sequences, won, rejected: [] }
  }

  return Partitions.of({
    load: Effect.suspend(() => {
      let loaded = 0
      const load = persistence.load({
        record: (name, kind, cell, partition, row, storedAge) => {
          const key = Cell.keyOf(kind, cell)
          const record = Cell.decodeInPlace(kind, name, key, row)
          if (partition !== router.partitionOf(key)) {
            throw damageOf(name, `key ${JSON.stringify(key)} is in another's partition`)
          }
          hlc.unsafeRaise(record)
          cellsFor(mapFor(name, kind), name, partition).merge(cell, record)
          if (record.expiresAt > 0) expires(name, cell, record.expiresAt)
          if (record.isTombstone) {
            // Those of a store that didn't keep their ages yet are as young as it is.
            const age = storedAge ?? tombstones.age()
            tombstones.reach(age)
            tombstones.graveyard.bury(name, cell, record, age)
          }
          loaded++
        },
        complete: (name, kind, stored) => {
          const map = mapFor(name, kind)
          const { hi, lo, records } = Object.assign(map, recount(map))
          recordCount += records
          if (stored === undefined || (stored.records === records && stored.hi === hi && stored.lo === lo)) return
          throw damageOf(
            name,
            stored.records === records
              ? `one of its ${records} records isn't what was stored`
              : `it has ${records} records, and ${stored.records} were stored`
          )
        }
      })
      return Effect.map(load, () => loaded)
    }),
    apply: (parts, atomic) => {
      if (atomic) return applyAll(parts)
      if (parts.length === 1) return applyEach(parts[0]!)
      const applied = parts.map(applyEach)
      return {
        accepted: applied.flatMap(({ accepted }) => accepted),
        won: applied.flatMap(({ won }) => won),
        rejected: applied.flatMap(({ rejected }) => rejected)
      }
    },
    kindFault,
    isResolved: (map) => ruleOf(map) !== undefined,
    source: (map) => maps.get(map) ?? nothing,
    run,
    sequence: (map) => changes.sequence(map),
    records: (map, partition) => maps.get(map)?.cells[partition]?.records() ?? [],
    changedSince: (name, sequence) => {
      const cells = changes.since(name, sequence, changedRecordsMax)
      const map = maps.get(name)
      if (cells === undefined || map === undefined) return undefined
      const records: Array<KeyedRecord> = []
      let bytes = 0
      for (const cell of cells) {
        const record = map.record(cell, router.partitionOf(Cell.keyOf(map.kind, cell)))
        if (record === undefined) continue
        bytes += record.row.length
        if (bytes > changedBytesMax) return undefined
        records.push([cell, record])
      }
      return records
    },
    observe: (observer) => {
      onWon = observer
    },
    nextExpiry: () => expiring.next,
    observeExpiry: (onEarlier) => {
      onEarlierExpiry = onEarlier
    },
    expire,
    isBuried: (name, buried) => {
      const map = maps.get(name)
      return map !== undefined && buriedAt(map, buried) !== undefined
    },
    forget,
    counts: () => {
      let records = 0
      for (const { tree } of maps.values()) records += tree.size
      return { maps: maps.size, records }
    },
    sizes: () =>
      Array.from(maps, ([name, { tree }]) => {
        let size = 0
        let records = 0
        for (const store of stores) {
          const map = store?.existing(name)
          if (map === undefined) continue
          size += sizeOf(map)
          records += map.cells.recordCount
        }
        return { name, size, records, root: tree.getRootHash() }
      })
  })
})

export const layer: Layer.Layer<
  Partitions,
  never,
  Capacity | CrdtStore | Hlc | PartitionRouter | Persistence | ServerConfig | Tombstones
> = Layer.scoped(Partitions, make)
