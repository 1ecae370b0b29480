/** Where a run keeps things: a device's storage and a server's database, both of which can be slow, fail, and stop at a moment. */
import * as Storage from "@topgun/core/Storage"
import { StorageUnavailable } from "@topgun/core/GridError"
import * as Value from "@topgun/core/Value"
import * as CrdtStore from "@topgun/core/CrdtStore"
import * as Hlc from "@topgun/core/Hlc"
import * as MerkleSync from "@topgun/core/MerkleSync"
import * as PartitionRouter from "@topgun/core/PartitionRouter"
import type { MapKind } from "@topgun/core/Cell"
import * as Persistence from "@topgun/server/Persistence"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"

/** A device's storage: it outlives the clients that are opened on it. */
export class Disk {
  readonly #memory = Storage.memory()
  readonly #sleep: (millis: number) => Promise<void>
  /** How long a transaction takes, each half of it: before it is there, and until that is told. */
  latencyMillis = 0
  isFailing = false

  constructor(sleep: (millis: number) => Promise<void>) {
    this.#sleep = sleep
  }

  /** For one client. After `freeze` nothing of what it does is kept, nor told. */
  open(): { readonly adapter: Storage.StorageAdapter; readonly freeze: () => void } {
    let isFrozen = false
    let freeze = (): void => {}
    const frozen = new Promise<never>((_, reject) => {
      freeze = () => {
        isFrozen = true
        reject(new Error("the device has crashed"))
      }
    })
    frozen.catch(() => {})
    const wait = () =>
      this.latencyMillis === 0 ? Promise.resolve() : Promise.race([this.#sleep(this.latencyMillis), frozen])
    const adapter: Storage.StorageAdapter = {
      ...this.#memory,
      open: () => this.#memory.open("device"),
      commit: async (writes) => {
        await wait()
        if (isFrozen) return frozen
        if (this.isFailing) throw new Error("the disk is full")
        await this.#memory.commit(writes)
        await wait()
        if (isFrozen) return frozen
      }
    }
    return { adapter, freeze }
  }
}

interface StoredRow {
  readonly map: string
  readonly kind: MapKind
  readonly cell: string
  readonly partition: number
  readonly row: Uint8Array
  readonly age: number | undefined
}

/** What there was in a database at a time. */
interface Backup {
  readonly rows: ReadonlyMap<string, StoredRow>
  readonly maps: ReadonlyMap<string, { readonly kind: MapKind; readonly totals: Persistence.Totals }>
  readonly notes: Persistence.Notes
}

/** A server's database: it outlives the servers that are opened on it. */
export class Database {
  readonly #rows: Map<string, StoredRow>
  readonly #maps: Map<string, { readonly kind: MapKind; readonly totals: Persistence.Totals }>
  readonly #notes: Map<string, Map<string, Uint8Array>>
  readonly #generation: string
  latencyMillis = 0
  isFailing = false

  constructor(
    { maps, notes, rows }: Backup = { rows: new Map(), maps: new Map(), notes: new Map() },
    generation = 0
  ) {
    this.#rows = new Map(rows)
    this.#maps = new Map(maps)
    this.#notes = new Map(Array.from(notes, ([space, ofSpace]) => [space, new Map(ofSpace)]))
    this.#generation = `generation${generation}`
  }

  /** What is there now, to be gone on with one day. */
  backup(): Backup {
    return {
      rows: new Map(this.#rows),
      maps: new Map(this.#maps),
      notes: new Map(Array.from(this.#notes, ([space, notes]) => [space, new Map(notes)]))
    }
  }

  /** Rows of a key's cells. */
  has(map: string, row: Uint8Array): boolean {
    for (const stored of this.#rows.values()) {
      if (stored.map === map && Value.compareBytes(stored.row, row) === 0) return true
    }
    return false
  }

  rows(): Iterable<StoredRow> {
    return this.#rows.values()
  }

  /** For one server. After `freeze` nothing of what it does is kept. */
  open(): { readonly driver: Persistence.Driver; readonly freeze: () => void } {
    let isFrozen = false
    const frozen = Effect.unsafeMakeLatch(false)
    const driver: Persistence.Driver = {
      kind: "simulated",
      generation: this.#generation,
      nodeId: "server0000000000",
      notes: new Map(Array.from(this.#notes, ([space, notes]) => [space, new Map(notes)])),
      load: ({ complete, record }) =>
        Effect.sync(() => {
          for (const { age, cell, kind, map, partition, row } of this.#rows.values()) {
            record(map, kind, cell, partition, row.slice(), age)
          }
          for (const [map, { kind, totals }] of this.#maps) complete(map, kind, totals)
        }),
      snapshot: Effect.sync(() => {
        const { maps, notes, rows } = this.backup()
        const left = Array.from(rows.values())
        return {
          maps: Array.from(maps, ([map, { kind, totals }]) => ({ map, kind, totals })),
          notes,
          next: Effect.sync(() => left.splice(0, 100))
        }
      }),
      commit: (batches, notes) =>
        Effect.zipRight(
          Effect.suspend(() =>
            this.latencyMillis === 0 ? Effect.void : Effect.raceFirst(Effect.sleep(this.latencyMillis), frozen.await)
          ),
          Effect.suspend(() => {
            if (isFrozen || this.isFailing) return new StorageUnavailable({ reason: "the database is gone" })
            for (const { age, forgotten, kind, map, rows, totals } of batches) {
              this.#maps.set(map, { kind, totals })
              for (const { cell, partition, record } of rows) {
                const id = JSON.stringify([map, cell])
                const known = this.#rows.get(id)
                if (known !== undefined && Value.compareBytes(known.row, record.row) >= 0) continue
                const row = record.row.slice()
                this.#rows.set(id, { map, kind, cell, partition, row, age: record.isTombstone ? age : undefined })
              }
              for (const { cell, record } of forgotten ?? []) {
                const id = JSON.stringify([map, cell])
                if (Value.compareBytes(this.#rows.get(id)!.row, record.row) === 0) this.#rows.delete(id)
              }
            }
            for (const { key, space, value } of notes) {
              const ofSpace = this.#notes.get(space) ?? new Map<string, Uint8Array>()
              this.#notes.set(space, ofSpace)
              if (value === undefined) ofSpace.delete(key)
              else ofSpace.set(key, value)
            }
            return Effect.void
          })
        )
    }
    return {
      driver,
      freeze: () => {
        isFrozen = true
        frozen.unsafeOpen()
      }
    }
  }
}

const quiet = Layer.provide(Logger.minimumLogLevel(LogLevel.None))

/** A server over a database, or over its own memory where there is none. */
export const layerServer = (driver: Persistence.Driver | undefined, settings: Partial<ServerConfig.Settings> = {}) =>
  driver === undefined ? TopGunServer.layerInProcess(settings).pipe(quiet) : TopGunServer.layerPartsInProcess.pipe(
    Layer.provide(Layer.mergeAll(
      CrdtStore.layer,
      Hlc.layer(),
      MerkleSync.layer,
      PartitionRouter.layerSingleNode,
      Layer.scoped(Persistence.Persistence, Persistence.make(driver))
    )),
    Layer.provide(ServerConfig.layer(settings)),
    quiet
  )
