/**
 * The deletions that this grid remembers, by their age, and how far it has forgotten others.
 *
 * Ages count from the grid's first day and are the time, in ms, for which it has been served: the clock is the machine's monotonic one,
 * and stands while no server runs. So no clock, of a client or on the wall, makes a deletion older than it is. A tombstone's age counts from
 * when it came here; its stamp, which its writer has chosen, or which is that of the addition that it removes, says nothing of that.
 *
 * Of each map it is kept which deletions are forgotten: those of an age, and the latest stamp among them, the **watermark**. A record up to the
 * watermark whose cell isn't here may have been deleted. (One bound in place of a version vector: Bieniusa, Zawirski, Preguiça, Shapiro,
 * Baquero, Balegas, Duarte 2012, "An optimized conflict-free replicated set".)
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { LwwRecord } from "@topgun/core/LwwRecord"
import * as Value from "@topgun/core/Value"
import { type Note, Persistence } from "./Persistence.ts"
import { ServerConfig } from "./ServerConfig.ts"

/** A tombstone, when it came: another record may have taken its place since. */
export interface Buried {
  readonly cell: string
  /** Of its stamp. */
  readonly millis: number
  readonly counter: number
}

/** How far a map has forgotten its deletions. */
export interface Forgotten {
  /** No tombstone with a later stamp is forgotten, in ms; 0 while none is. */
  readonly watermark: number
  /** None that came at a later age is. */
  readonly age: number
}

const none: Forgotten = { watermark: 0, age: 0 }

/** The tombstones of a map that came at about the same age: columns, as there may be a million of them. */
interface Row {
  readonly cells: Array<string>
  readonly millis: Array<number>
  readonly counters: Array<number>
}

/** Tombstones in the order of their ages, which is kept as exactly as `resolution`, in ms. Plain: it is entered once a record. */
export class Graveyard {
  readonly #resolution: number
  /** By the number of the stretch of age that they came in, and by map. */
  readonly #stretches = new Map<number, Map<string, Row>>()
  #size = 0

  constructor(resolution: number) {
    this.#resolution = resolution
  }

  /** How many there are, those included that others have taken the place of. */
  get size(): number {
    return this.#size
  }

  bury(map: string, cell: string, { counter, millis }: Pick<LwwRecord, "counter" | "millis">, age: number): void {
    const number = Math.floor(age / this.#resolution)
    let stretch = this.#stretches.get(number)
    if (stretch === undefined) this.#stretches.set(number, stretch = new Map())
    let row = stretch.get(map)
    if (row === undefined) stretch.set(map, row = { cells: [], millis: [], counters: [] })
    row.cells.push(cell)
    row.millis.push(millis)
    row.counters.push(counter)
    this.#size++
  }

  /** Takes, of one map, up to `max` that came at `age` or before, the oldest first; `undefined` when there is none. */
  take(age: number, max: number): { readonly map: string; readonly buried: ReadonlyArray<Buried> } | undefined {
    for (const number of this.#numbers()) {
      if ((number + 1) * this.#resolution > age) return undefined
      const stretch = this.#stretches.get(number)!
      for (const [map, { cells, counters, millis }] of stretch) {
        const from = Math.max(0, cells.length - max)
        const [ofCells, ofMillis, ofCounters] = [cells.splice(from), millis.splice(from), counters.splice(from)]
        if (from === 0) stretch.delete(map)
        if (stretch.size === 0) this.#stretches.delete(number)
        this.#size -= ofCells.length
        return {
          map,
          buried: ofCells.map((cell, at) => ({ cell, millis: ofMillis[at]!, counter: ofCounters[at]! }))
        }
      }
    }
    return undefined
  }

  /** The age at which all but the `keep` youngest, or a few fewer, had come. */
  ageOfOthers(keep: number): number {
    let kept = 0
    for (const number of this.#numbers().reverse()) {
      for (const { cells } of this.#stretches.get(number)!.values()) kept += cells.length
      if (kept > keep) return (number + 1) * this.#resolution
    }
    return 0
  }

  /** Drops those that others have taken the place of. */
  sweep(isThere: (map: string, buried: Buried) => boolean): void {
    const before = new Map(this.#stretches)
    this.#stretches.clear()
    this.#size = 0
    for (const [number, stretch] of before) {
      for (const [map, { cells, counters, millis }] of stretch) {
        cells.forEach((cell, at) => {
          const buried = { cell, millis: millis[at]!, counter: counters[at]! }
          if (isThere(map, buried)) this.bury(map, cell, buried, number * this.#resolution)
        })
      }
    }
  }

  #numbers(): Array<number> {
    return Array.from(this.#stretches.keys()).sort((a, b) => a - b)
  }
}

/** The spaces of notes: how old the grid is, and how far each map has forgotten. */
const ageSpace = "age"
const forgottenSpace = "forgotten"
const format = 1

/** The grid's age, what it remembers of deletions, and what it has forgotten. Plain calls: they run once a batch or a record. */
export class Tombstones extends Context.Tag("@topgun/server/Tombstones")<Tombstones, {
  /** How old the grid is, in ms. */
  readonly age: () => number
  /** What is stored came at this age: the grid is no younger. */
  readonly reach: (age: number) => void
  /** What keeps the age. */
  readonly ageNote: () => Note
  readonly graveyard: Graveyard
  readonly forgotten: (map: string) => Forgotten
  /** A map forgets tombstones, up to those that came at an age. Answers what keeps that. */
  readonly forget: (map: string, age: number, latestMillis: number) => Note
}>() {}

/** How many parts of the least age of a tombstone are told apart. */
const stretches = 1_000

/** The numbers of a note. A note is as it was stored; the store's format says which formats there may be. */
const numbersOf = (note: Uint8Array): ReadonlyArray<number> => (Value.decode(note) as ReadonlyArray<number>).slice(1)

export const layer: Layer.Layer<Tombstones, never, Persistence | ServerConfig> = Layer.effect(
  Tombstones,
  Effect.gen(function*() {
    const { tombstoneAge } = yield* ServerConfig
    const { notes } = yield* Persistence
    const clock = yield* Effect.clock
    const startedAt = clock.unsafeCurrentTimeNanos()
    const stored = notes.get(ageSpace)?.get(ageSpace)
    let [before = 0] = stored === undefined ? [] : numbersOf(stored)
    const age = () => before + Number((clock.unsafeCurrentTimeNanos() - startedAt) / 1_000_000n)
    const reach = (reached: number): void => {
      before += Math.max(0, reached - age())
    }
    const byMap = new Map<string, Forgotten>()
    for (const [map, note] of notes.get(forgottenSpace) ?? []) {
      const [watermark = 0, forgottenAge = 0] = numbersOf(note)
      byMap.set(map, { watermark, age: forgottenAge })
      reach(forgottenAge)
    }
    return Tombstones.of({
      age,
      reach,
      ageNote: () => ({ space: ageSpace, key: ageSpace, value: Value.encode([format, age()]) }),
      graveyard: new Graveyard(Math.max(1_000, Math.ceil(Duration.toMillis(tombstoneAge) / stretches))),
      forgotten: (map) => byMap.get(map) ?? none,
      forget: (map, atAge, latestMillis) => {
        const known = byMap.get(map) ?? none
        const forgotten = { watermark: Math.max(known.watermark, latestMillis), age: Math.max(known.age, atAge) }
        byMap.set(map, forgotten)
        return {
          space: forgottenSpace,
          key: map,
          value: Value.encode([format, forgotten.watermark, forgotten.age])
        }
      }
    })
  })
)
