/**
 * What one user may do with one map: the rules of a policy that are about both, compiled. Pure.
 *
 * A rule grants when its condition holds for the record; what isn't granted by any rule is denied. Rules add up: a record may be
 * read when one of them lets it, and of it the fields that those rules name together.
 *
 * - **Read**: the record's value is judged. Of a map that may be read in part nobody sees tombstones, as they don't say whose they are.
 * - **Put**: both the record that is there and the one that takes its place are judged, so that nobody takes over what is another's, or
 *   gives away his own. A field is written where a rule that holds of the one names it, and a rule that holds of the other. The
 *   others stay as they are, and so does the time at which the record expires: see {@link Access.judge}.
 * - **Remove**: the record that is there is judged; one that is gone may be removed again.
 *
 * What has expired isn't there.
 *
 * That a write is refused tells that a record is there which may not be overwritten, or beside whose hidden fields there is no room for
 * what was written. Nothing else tells.
 */
import type { MapKind } from "@topgun/core/Cell"
import * as LwwRecord from "@topgun/core/LwwRecord"
import { RecordTooLarge } from "@topgun/core/GridError"
import * as Timestamp from "@topgun/core/Timestamp"
import * as Value from "@topgun/core/Value"

/** A field that has to be equal to something. */
export interface Tie {
  readonly path: string
  /** What it has to be equal to, as {@link tieOf} writes it. */
  readonly to: string
}

/** A value in a form that those it is equal to have too, and no others; `undefined` for what isn't a text, a number or a boolean. */
export const tieOf = (value: unknown): string | undefined =>
  typeof value === "string"
    ? `"${value}`
    : typeof value === "number" || typeof value === "boolean"
    ? String(value)
    : undefined

/** The value of a tie's form: {@link tieOf} turned round. */
export const untied = (to: string): unknown => to.startsWith("\"") ? to.slice(1) : JSON.parse(to)

/** What one rule grants on records. */
export interface Grant {
  /** Which rule of the policy it is. */
  readonly rule: number
  /** Whether it is about a record of this value; without one it is about all. */
  readonly holds?: (value: unknown) => boolean
  /** What has to be so, among others, where it holds. */
  readonly tie?: Tie
  /** Fields that may be read, or written; without them all. */
  readonly fields?: ReadonlySet<string>
}

/** The grants to one user on one map. */
export interface Grants {
  readonly read: ReadonlyArray<Grant>
  readonly put: ReadonlyArray<Grant>
  readonly remove: ReadonlyArray<Grant>
  /** What the conditions of `read` have of the user, in a fixed order: with the rules it says which records they show. */
  readonly readBy: ReadonlyArray<unknown>
}

/** How much of a map somebody may read, put or remove. */
export type Extent = "nothing" | "part" | "everything"

const extentOf = (grants: ReadonlyArray<Grant>): Extent =>
  grants.length === 0
    ? "nothing"
    : grants.some(({ fields, holds }) => fields === undefined && holds === undefined)
    ? "everything"
    : "part"

/** Some fields, or all where it's undefined. */
type FieldSet = ReadonlySet<string> | undefined

/** The fields that grants name together. */
const fieldsOf = (grants: ReadonlyArray<Grant>): FieldSet => {
  const [first] = grants
  if (grants.length === 1) return first!.fields
  const all = new Set<string>()
  for (const { fields } of grants) {
    if (fields === undefined) return undefined
    for (const field of fields) all.add(field)
  }
  return all
}

const valueOf = (record: LwwRecord.LwwRecord): unknown => Value.decodeTrusted(record.valueBytes)

const holdingOf = (grants: ReadonlyArray<Grant>, value: unknown): ReadonlyArray<Grant> =>
  grants.filter(({ holds }) => holds === undefined || holds(value))

const inBoth = (a: FieldSet, b: FieldSet): FieldSet =>
  a === undefined || b === undefined ? a ?? b : new Set(Array.from(a).filter((field) => b.has(field)))

type Fields = { readonly [field: string]: unknown }

const isRecord = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date) &&
  !(value instanceof Uint8Array)

/** The fields of a value that a set names. */
const pick = (value: Fields, fields: ReadonlySet<string>): Fields =>
  Object.fromEntries(Object.entries(value).filter(([field]) => fields.has(field)))

/**
 * What is stored when `after` is written over `before`, where there is one, by somebody who may write some fields, and sees some: the
 * others stay, and of those that he writes without seeing them those that he leaves out stay too. `undefined` where something that
 * has no fields would come or go so.
 */
const overlay = (before: unknown, after: unknown, writable: FieldSet, visible: FieldSet): unknown => {
  if (writable === undefined && (visible === undefined || !isRecord(before))) return after
  if (!isRecord(after) || (before !== undefined && !isRecord(before))) return undefined
  const stored = Object.entries(before ?? {}).filter(([field]) =>
    writable?.has(field) === false || (!Object.hasOwn(after, field) && visible?.has(field) === false)
  )
  return Object.fromEntries([...stored, ...Object.entries(writable === undefined ? after : pick(after, writable))])
}

/**
 * Who stamps what is stored in place of a write. It comes after all nodes, so that the stamp is right after that of the write, and
 * before that of whatever its writer writes next; and it is the same one when the write is sent again.
 */
const amender = "z".repeat(Timestamp.nodeIdLength)

/** The stamp of what is stored in place of a write, right after that of `record`: made of nothing else, so that it is the same everywhere. */
export const stampAfter = ({ counter, millis, nodeId }: LwwRecord.LwwRecord): Timestamp.Timestamp => {
  const stamp = { millis, counter, nodeId: amender }
  return nodeId < amender ? stamp : Timestamp.tick(stamp, 0)
}

/** Whether a record is a tombstone, or has expired at a time in ms. */
export const isGone = (record: LwwRecord.LwwRecord, now: number): boolean =>
  record.isTombstone || (record.expiresAt !== 0 && record.expiresAt <= now)

/** A write with another value or time; `undefined` where that is too large and it may not be told how large. */
const amend = (
  record: LwwRecord.LwwRecord,
  value: unknown,
  expiresAt: number,
  isSeen: boolean
): LwwRecord.LwwRecord | undefined => {
  try {
    const bytes = Value.encode(value)
    return expiresAt === record.expiresAt && Value.compareBytes(bytes, record.valueBytes) === 0
      ? record
      : LwwRecord.put(stampAfter(record), bytes, expiresAt)
  } catch (fault) {
    if (fault instanceof RecordTooLarge && !isSeen) return undefined
    throw fault
  }
}

/** A write with a value, given as canonical bytes, in the place of its own: itself where that is the same. */
export const amendedWith = (record: LwwRecord.LwwRecord, bytes: Uint8Array): LwwRecord.LwwRecord =>
  !record.isTombstone && Value.compareBytes(bytes, record.valueBytes) === 0
    ? record
    : LwwRecord.put(stampAfter(record), bytes, record.expiresAt)

/** What one user may do with one map of records. */
export class Access {
  readonly reads: Extent
  readonly puts: Extent
  readonly removes: Extent
  /** Those whose keys are equal are shown the same of a map. */
  readonly viewKey: string
  /**
   * Whether he may write whatever he likes: then what he has and the server hasn't is welcome there. Of others it would be refused,
   * or worse: stored without the fields that they may not write.
   */
  readonly isWriter: boolean
  readonly #grants: Grants

  constructor(grants: Grants) {
    this.#grants = grants
    this.reads = extentOf(grants.read)
    this.puts = extentOf(grants.put)
    this.removes = extentOf(grants.remove)
    this.isWriter = this.puts === "everything" && this.removes === "everything"
    this.viewKey = this.reads === "part"
      ? JSON.stringify([grants.read.map(({ rule }) => rule), grants.readBy])
      : this.reads
  }

  /** What is shown has one of these fields equal to what they are tied to; `undefined` where there may be more. */
  get ties(): ReadonlyArray<Tie> | undefined {
    const ties = this.#grants.read.flatMap(({ tie }) => tie ?? [])
    return ties.length === this.#grants.read.length ? ties : undefined
  }

  /** The fields of which something may be read, in one record or another; `undefined` for all. */
  get readableFields(): ReadonlySet<string> | undefined {
    return fieldsOf(this.#grants.read)
  }

  /** The fields that may be read of every record of which anything may be; `undefined` for all. */
  get alwaysReadableFields(): ReadonlySet<string> | undefined {
    return this.#grants.read.map(({ fields }): FieldSet => fields).reduce(inBoth, undefined)
  }

  /** Whether there is anything in a map of this kind that may be written. */
  writesTo(kind: MapKind): boolean {
    return kind === "lww"
      ? this.puts !== "nothing" || this.removes !== "nothing"
      : this.puts === "everything" || this.removes === "everything"
  }

  /** A record, whose value is the one given, as it may be read; `undefined` where it may not. */
  show(record: LwwRecord.LwwRecord, value: unknown): LwwRecord.LwwRecord | undefined {
    if (this.reads === "everything") return record
    if (record.isTombstone) return undefined
    const shown = this.showValue(value)
    if (shown === undefined) return undefined
    return shown === value ? record : LwwRecord.put(record.stamp, Value.encode(shown), record.expiresAt)
  }

  /** A value as it may be read: itself, or a part of it; `undefined` where nothing may. */
  showValue(value: unknown): unknown {
    if (this.reads === "everything") return value
    const fields = this.#visible(value)
    return fields === undefined ? value : fields === "none" || !isRecord(value) ? undefined : pick(value, fields)
  }

  /**
   * The record to merge in place of `record`, which is written over the stored one at a time in ms: itself, or one that has what
   * is stored where the user may not write, under a stamp right after that of `record`; `undefined` where the write is refused.
   * Of maps of other kinds than `lww` only writes to which no condition and no list of fields applies pass. A write to a map whose
   * conflicts a resolver decides is judged as one that wins, whatever its stamp.
   *
   * @throws RecordTooLarge when what is stored, all of which may be read, and what is written are too large together
   */
  judge(
    kind: MapKind,
    record: LwwRecord.LwwRecord,
    stored: LwwRecord.LwwRecord | undefined,
    now: number,
    isResolved = false
  ): LwwRecord.LwwRecord | undefined {
    const isPut = !record.isTombstone
    if (
      (isPut ? this.puts : this.removes) === "everything" && (!isPut || kind !== "lww" || this.reads === "everything")
    ) {
      return record
    }
    if (kind !== "lww") return undefined
    const before = stored === undefined || isGone(stored, now) ? undefined : valueOf(stored)
    const granted = isPut ? this.#grants.put : this.#grants.remove
    const grants = before === undefined ? granted : holdingOf(granted, before)
    if (grants.length === 0) return undefined
    // What loses to the stored record changes nothing: a later stamp must not help it.
    if (!isPut || (!isResolved && stored !== undefined && LwwRecord.compare(record, stored) <= 0)) return record
    const after = valueOf(record)
    const visible = before === undefined ? undefined : this.#visible(before)
    // A rule that doesn't hold of what would be stored has no say in its fields, and without it something else would be stored.
    for (let holding = granted;;) {
      const writable = inBoth(fieldsOf(grants), fieldsOf(holding))
      // Who writes over what he can't see at all writes it whole.
      const value = overlay(before, after, writable, visible === "none" ? undefined : visible)
      if (value === undefined) return undefined
      const still = holdingOf(holding, value)
      if (still.length === 0) return undefined
      if (still.length === holding.length) {
        const keepsTime = before !== undefined && writable !== undefined
        return amend(record, value, keepsTime ? stored!.expiresAt : record.expiresAt, visible === undefined)
      }
      holding = still
    }
  }

  /** The fields of a value that may be read: `undefined` for all, `none` where not even its key may be known. */
  #visible(value: unknown): FieldSet | "none" {
    const grants = holdingOf(this.#grants.read, value)
    return grants.length === 0 ? "none" : fieldsOf(grants)
  }
}

/** What may be done with what isn't granted. */
export const nothing = new Access({ read: [], put: [], remove: [], readBy: [] })
/** What may be done where nobody is asked. */
export const everything = new Access({ read: [{ rule: 0 }], put: [{ rule: 0 }], remove: [{ rule: 0 }], readBy: [] })
