/** A client that is looked at all the time: what it shows, and what it tells its listeners, from its opening to its end. */
import * as Timestamp from "@topgun/core/Timestamp"
import type * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import type { GridCounter, GridMap, GridOrMap } from "../../src/GridMap.ts"
import type { RejectedWrite } from "../../src/Reports.ts"
import type { Digits, Reference } from "./reference.ts"

export type Client = Effect.Effect.Success<ReturnType<typeof World.startClient>>

/** The maps of a run, one of each kind, and one whose keys belong to batches. */
export const names = { records: "records", pairs: "pairs", sets: "sets", hits: "hits" } as const

export interface Maps {
  readonly records: GridMap<string>
  readonly pairs: GridMap<string>
  readonly sets: GridOrMap<string>
  readonly hits: GridCounter
}

export const openMaps = (client: Client): Effect.Effect<Maps> =>
  Effect.all({
    records: client.map<string>(names.records),
    pairs: client.map<string>(names.pairs),
    sets: client.orMap<string>(names.sets),
    hits: client.counter(names.hits)
  })

/** The stamp of a key's record as text; before all others where there is none. */
export const stampAt = (map: GridMap<string>, key: string): string => {
  const record = map.getRecord(key)
  return record === undefined ? "" : Timestamp.format(record.stamp)
}

const sorted = <A>(entries: Iterable<readonly [string, A]>): string =>
  JSON.stringify(Array.from(entries).sort(([a], [b]) => a < b ? -1 : 1))

/** What a device was told that servers have refused, over all its sessions. */
export class Refusals {
  readonly byId = new Map<string, RejectedWrite>()
  readonly labels = new Set<string>()
  /** How often the removal of a label was. */
  readonly removals = new Map<string, number>()
  readonly #keys = new Set<string>()
  readonly #digits: Digits

  constructor(digits: Digits) {
    this.#digits = digits
  }

  note(list: ReadonlyArray<RejectedWrite>): void {
    for (const rejected of list) {
      if (this.byId.has(rejected.id)) continue
      this.byId.set(rejected.id, rejected)
      this.#keys.add(`${rejected.map} ${rejected.key}`)
      if (rejected.change === "remove") {
        const label = String(rejected.value)
        if (rejected.value !== undefined) this.removals.set(label, (this.removals.get(label) ?? 0) + 1)
      } else for (const label of labelsOf(rejected, this.#digits)) this.labels.add(label)
    }
  }

  /** Whether something of a key ever was. */
  hasKey(map: string, key: string): boolean {
    return this.#keys.has(`${map} ${key}`)
  }
}

/** The writes that a rejected write is made of. */
export const labelsOf = ({ change, value }: RejectedWrite, digits: Digits): ReadonlyArray<string> =>
  change === "count"
    ? Array.from(digits.read(Number(value)) ?? [])
    : value === undefined
    ? []
    : [String(value)]

export class Session {
  readonly client: Client
  readonly maps: Maps
  readonly refusals: Refusals
  /** Ended: what is heard from it is no more to be judged. */
  isOver = false
  /** A clock that is set moves stamps both ways. */
  isWrong = false
  readonly #digits: Digits
  readonly #reference: Reference
  readonly #complaints: Array<string> = []
  readonly #shadows: { readonly records: Map<string, string>; readonly pairs: Map<string, string> }
  readonly #sets: Map<string, ReadonlyArray<string>>
  #counted: ReadonlySet<string>
  /** The greatest stamps that were seen, by map and key. */
  readonly #seen = new Map<string, string>()
  /** How often a key was seen to go back. */
  readonly #falls = new Map<string, number>()
  /** What it has been told of refusals, and how many of each key: one that was told before a crash may be told again. */
  readonly #toldOf = new Set<string>()
  readonly #refused = new Map<string, number>()
  /** Since the last look. */
  readonly #vanished = new Set<string>()
  readonly #gone = new Set<string>()
  readonly #returned = new Set<string>()

  constructor(client: Client, maps: Maps, refusals: Refusals, reference: Reference, digits: Digits) {
    this.client = client
    this.maps = maps
    this.refusals = refusals
    this.#reference = reference
    this.#digits = digits
    this.#shadows = { records: new Map(maps.records), pairs: new Map(maps.pairs) }
    this.#sets = new Map(maps.sets)
    this.#counted = this.#read(maps.hits.current)
    for (const { id } of client.rejectedWrites.current) this.#toldOf.add(id)
    for (const name of ["records", "pairs"] as const) {
      const map = maps[name]
      const shadow = this.#shadows[name]
      for (const key of map.keys()) this.#look(name, key)
      map.subscribe((changes) => {
        for (const { key, previous, value } of changes) {
          if (shadow.get(key) !== previous) {
            this.complain(`${name}.${key} is told to have been ${previous}, and was ${shadow.get(key)}`)
          }
          if (value === undefined) shadow.delete(key)
          else shadow.set(key, value)
          this.#look(name, key)
        }
      })
    }
    maps.sets.subscribe((changes) => {
      for (const { key, previous = [], value = [] } of changes) {
        const known = this.#sets.get(key) ?? []
        if (known.join() !== previous.join()) {
          this.complain(`sets.${key} is told to have been [${previous.join()}], and was [${known.join()}]`)
        }
        this.#compare(new Set(known), new Set(value))
        if (value.length === 0) this.#sets.delete(key)
        else this.#sets.set(key, value)
      }
    })
    maps.hits.subscribe((value) => {
      const counted = this.#read(value)
      this.#compare(this.#counted, counted)
      this.#counted = counted
    })
  }

  get counted(): ReadonlySet<string> {
    return this.#counted
  }

  complain(what: string): void {
    if (!this.isOver) this.#complaints.push(what)
  }

  #read(sum: number): ReadonlySet<string> {
    const labels = this.#digits.read(sum)
    if (labels === undefined) this.complain(`hits is ${sum}, which no changes come to`)
    return labels ?? new Set()
  }

  #compare(before: ReadonlySet<string>, after: ReadonlySet<string>): void {
    for (const label of before) {
      if (after.has(label)) continue
      this.#vanished.add(label)
      this.#gone.add(label)
    }
    for (const label of after) if (!before.has(label) && this.#gone.has(label)) this.#returned.add(label)
  }

  #look(name: "records" | "pairs", key: string): void {
    const place = `${name} ${key}`
    const stamp = stampAt(this.maps[name], key)
    const seen = this.#seen.get(place)
    if (seen !== undefined && stamp < seen) this.#falls.set(place, (this.#falls.get(place) ?? 0) + 1)
    this.#seen.set(place, stamp)
  }

  /** Before any of them leaves the list. */
  noteRefusals(): void {
    const list = this.client.rejectedWrites.current
    this.refusals.note(list)
    for (const { id, key, map } of list) {
      if (this.#toldOf.has(id)) continue
      this.#toldOf.add(id)
      const place = `${map} ${key}`
      this.#refused.set(place, (this.#refused.get(place) ?? 0) + 1)
    }
  }

  /** What is wrong with it at a moment at which nothing is under way. */
  check(): ReadonlyArray<string> {
    const { maps, refusals } = this
    this.noteRefusals()
    for (const name of ["records", "pairs"] as const) {
      const shadow = this.#shadows[name]
      if (sorted(shadow) !== sorted(maps[name])) {
        this.complain(`${name} is ${sorted(maps[name])}, and its listeners were told ${sorted(shadow)}`)
      }
      for (const [key, label] of maps[name]) {
        this.#look(name, key)
        const written = this.#reference.get(label)
        if (written?.map !== name || written.key !== key) {
          this.complain(`${name}.${key} is ${label}, which nobody wrote`)
        }
      }
    }
    if (sorted(this.#sets) !== sorted(maps.sets)) {
      this.complain(`sets is ${sorted(maps.sets)}, and its listeners were told ${sorted(this.#sets)}`)
    }
    for (const [key, labels] of maps.sets) {
      for (const label of labels) {
        const written = this.#reference.get(label)
        if (written?.what !== "add" || written.key !== key) {
          this.complain(`sets.${key} has ${label}, which nobody added`)
        }
      }
    }
    if (
      sorted([["hits", Array.from(this.#read(maps.hits.current))]]) !== sorted([["hits", Array.from(this.#counted)]])
    ) {
      this.complain(`hits is ${maps.hits.current}, and its listeners were told otherwise`)
    }
    for (const [place, falls] of this.#falls) {
      const [name = "", key = ""] = place.split(" ")
      const refused = this.#refused.get(place) ?? 0
      if (falls > refused && !this.isWrong) {
        this.complain(`${name}.${key} went back ${falls} times, ${refused} were refused`)
      }
    }
    for (const label of this.#vanished) {
      const written = this.#reference.get(label)
      if (refusals.labels.has(label) || this.#reference.isTaken(label) || written?.ttlMillis !== undefined) continue
      this.complain(`${label} vanished, which nobody has taken out`)
    }
    for (const label of this.#returned) {
      if (refusals.removals.has(label) || refusals.labels.has(label)) continue
      this.complain(`${label} is back again, whose removal nobody has refused`)
    }
    this.#vanished.clear()
    this.#returned.clear()
    return this.#complaints.splice(0)
  }
}
