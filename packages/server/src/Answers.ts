/**
 * What became of a device's last operations, where doing one again would come to something else: a resolver's conflict isn't the
 * same the second time, nor need an interceptor say the same. Such an operation that comes again, as its acknowledgement was
 * lost, gets the answer that it got, and changes nothing.
 *
 * A device numbers its operations and sends them in that order, again too, so the highest number that was answered says which were; of
 * those that were rejected the reasons are kept, for {@link rejectionsMax} operations, which is as many as a device has under way.
 * (Cumulative acknowledgement with exceptions, as a transport has it.) A device whose storage was put back to what it was
 * numbers anew from there: what it writes then is later than anything that was answered, so it's told by its stamp.
 *
 * What is answered is kept with what it did, in one transaction ({@link space}). Devices that were away longest are forgotten when
 * there are many: what they send again is judged anew.
 */
import * as LwwRecord from "@topgun/core/LwwRecord"
import type { OpTuple } from "@topgun/core/Protocol"
import * as Value from "@topgun/core/Value"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Rejection } from "./Partitions.ts"
import { type Note, Persistence } from "./Persistence.ts"

/** The space of the notes. */
export const space = "answers"
/** Devices that are remembered, at most: some 200 bytes each. */
export const devicesMax = 100_000
/** Of one device's operations so many have their rejections remembered, at most. */
export const rejectionsMax = 1_000
/** Rejections that are remembered in all, at most: some 400 bytes each. */
export const rejectionsInAllMax = 100_000

/** What became of an operation. */
export type Answer = Rejection | "accepted"

/** A device, as its answers are kept: a node id is one user's, and none gets the answers of another. */
export const deviceOf = (nodeId: string, userId: string | undefined): string =>
  userId === undefined ? nodeId : `${nodeId} ${userId}`

interface Device {
  /** The highest sequence number that was answered. */
  readonly highest: number
  /** The latest stamp of an operation that was answered. */
  readonly millis: number
  readonly counter: number
  /** When it was answered last, in ms. */
  readonly at: number
  /** By ascending sequence number. */
  readonly rejections: ReadonlyArray<Rejection>
}

interface Stamp {
  readonly millis: number
  readonly counter: number
}

/** The stamp of a foreign row, which may be anything. */
const stampOf = (row: Uint8Array): Stamp =>
  row.length < LwwRecord.stampBytes ? { millis: 0, counter: 0 } : LwwRecord.fromTrusted(row)

/** What only the time stands against is judged again: the server's clock may have been wrong. */
const tooEarly = "ClockSkewTooLarge"

const rejectionOf = ({ rejections }: Device, sequence: number): Rejection | undefined =>
  rejections.find((rejection) => rejection.sequence === sequence)

const isAfter = (a: Stamp, b: Stamp): boolean => a.millis > b.millis || (a.millis === b.millis && a.counter > b.counter)

// A device's note has its name for a key; that of a rejection has its sequence number on a line of its own, which no name has.
const keyOf = (name: string, sequence: number): string => `${name}\n${sequence}`

const headOf = (name: string, { at, counter, highest, millis }: Device): Note => ({
  space,
  key: name,
  value: Value.encode([highest, millis, counter, at])
})

const noteOf = (name: string, { cause, reason, sequence }: Rejection): Note => ({
  space,
  key: keyOf(name, sequence),
  value: Value.encode([cause, reason])
})

const none = (key: string): Note => ({ space, key, value: undefined })

const isNumber = (value: unknown): value is number => typeof value === "number"
const isText = (value: unknown): value is string => typeof value === "string"

/** The parts of a note's value. @throws MalformedMessage or Error for what isn't one: the store isn't what was stored */
const partsOf = <A>(key: string, bytes: Uint8Array, count: number, is: (part: unknown) => part is A) => {
  const value = Value.decode(bytes)
  if (!Array.isArray(value) || value.length !== count || !value.every(is)) {
    throw new Error(`the note ${JSON.stringify(key)} of the answers isn't one`)
  }
  return value as ReadonlyArray<A>
}

/** The answers, in memory. Plain, and free of time. */
export class Answered {
  /** Those that were here last come last. */
  readonly #devices = new Map<string, Device>()
  readonly #devicesMax: number
  readonly #rejectionsInAllMax: number
  #rejections = 0

  constructor(limits: { readonly devicesMax: number; readonly rejectionsInAllMax: number }) {
    this.#devicesMax = limits.devicesMax
    this.#rejectionsInAllMax = limits.rejectionsInAllMax
  }

  /** As its notes have it. @throws MalformedMessage or Error for notes that aren't such */
  load(notes: ReadonlyMap<string, Uint8Array>): void {
    const devices: Array<readonly [string, Device]> = []
    const rejections = new Map<string, Array<Rejection>>()
    for (const [key, bytes] of notes) {
      const [name, sequence] = key.split("\n") as [string, string?]
      if (sequence === undefined) {
        const [highest, millis, counter, at] = partsOf(key, bytes, 4, isNumber) as [number, number, number, number]
        devices.push([name, { highest, millis, counter, at, rejections: [] }])
      } else {
        const [cause, reason] = partsOf(key, bytes, 2, isText) as [string, string]
        const those = rejections.get(name) ?? []
        those.push({ sequence: Number(sequence), cause, reason })
        rejections.set(name, those)
      }
    }
    devices.sort(([, a], [, b]) => a.at - b.at)
    for (const [name, device] of devices) {
      const those = (rejections.get(name) ?? []).sort((a, b) => a.sequence - b.sequence)
      this.#put(name, { ...device, rejections: those })
    }
  }

  /** How an operation of a device was answered; `undefined` where it wasn't. */
  find(name: string, [sequence, , row]: OpTuple): Answer | undefined {
    const device = this.#devices.get(name)
    if (device === undefined || sequence > device.highest || isAfter(stampOf(row), device)) return undefined
    const rejection = rejectionOf(device, sequence)
    return rejection?.cause === tooEarly ? undefined : rejection ?? "accepted"
  }

  /** Operations of a device, none of which {@link find} finds, were answered at a time in ms. Answers what is to be kept of that. */
  add(name: string, ops: ReadonlyArray<OpTuple>, rejected: ReadonlyArray<Rejection>, at: number): ReadonlyArray<Note> {
    const first = ops[0]
    const last = ops.at(-1)
    if (first === undefined || last === undefined) return []
    const known = this.#devices.get(name)
    // Otherwise its storage was put back: what was said of these numbers before is about others.
    const goesOn = known !== undefined &&
      (first[0] > known.highest || ops.some(([sequence]) => rejectionOf(known, sequence)?.cause === tooEarly))
    const before = goesOn ? known : undefined
    const highest = Math.max(before?.highest ?? 0, last[0])
    const judged = new Set(ops.map(([sequence]) => sequence))
    const early = new Set(rejected.filter(({ cause }) => cause === tooEarly).map(({ sequence }) => sequence))
    let latest: Stamp = before ?? { millis: 0, counter: 0 }
    for (const [sequence, , row] of ops) {
      const stamp = stampOf(row)
      if (!early.has(sequence) && isAfter(stamp, latest)) latest = stamp
    }
    const rejections = [...(before?.rejections ?? []).filter(({ sequence }) => !judged.has(sequence)), ...rejected]
      .filter(({ sequence }) => sequence > highest - rejectionsMax)
      .sort((x, y) => x.sequence - y.sequence)
    const device = { highest, millis: latest.millis, counter: latest.counter, at, rejections }
    this.#put(name, device)
    const notes: Array<Note> = [headOf(name, device)]
    for (const { sequence } of known?.rejections ?? []) {
      if (before === undefined || judged.has(sequence) || sequence <= highest - rejectionsMax) {
        notes.push(none(keyOf(name, sequence)))
      }
    }
    for (const rejection of rejected) {
      if (rejection.sequence > highest - rejectionsMax) notes.push(noteOf(name, rejection))
    }
    for (const [oldest] of this.#devices) {
      if (this.#devices.size <= this.#devicesMax && this.#rejections <= this.#rejectionsInAllMax) break
      // Who is answered right now is not away.
      if (oldest === name) break
      notes.push(none(oldest), ...this.#drop(oldest).map(({ sequence }) => none(keyOf(oldest, sequence))))
    }
    return notes
  }

  #put(name: string, device: Device): void {
    this.#drop(name)
    this.#devices.set(name, device)
    this.#rejections += device.rejections.length
  }

  #drop(name: string): ReadonlyArray<Rejection> {
    const rejections = this.#devices.get(name)?.rejections ?? []
    this.#rejections -= rejections.length
    this.#devices.delete(name)
    return rejections
  }
}

/** The answers to the devices of this server. */
export class Answers extends Context.Tag("@topgun/server/Answers")<Answers, Answered>() {}

/** As the log has them, so many at most. */
export const layerOf = (
  limits: { readonly devicesMax: number; readonly rejectionsInAllMax: number }
): Layer.Layer<Answers, never, Persistence> =>
  Layer.effect(
    Answers,
    Effect.map(Persistence, ({ notes }) => {
      const answered = new Answered(limits)
      answered.load(notes.get(space) ?? new Map())
      return answered
    })
  )

/** As the log has them. */
export const layer: Layer.Layer<Answers, never, Persistence> = layerOf({ devicesMax, rejectionsInAllMax })
