/**
 * The format of backups: JSON Lines (one JSON text a line, UTF-8, `\n` after each), to be read by people and by other programs.
 *
 * ```
 * {"backup":1,"by":"TopGun 0.1.0","at":"2026-11-26T09:53:47.000Z","storage":"sqlite","generation":"k3…","age":86400000}
 * {"map":"todos","kind":"lww"}
 * {"in":"todos","key":"1","stamp":"0193…k3…","value":{"text":"milk"},"expires":"2026-12-01T00:00:00.000Z"}
 * {"in":"todos","key":"2","stamp":"0193…k3…","deleted":true,"age":3600000}
 * {"in":"tags","key":"1","stamp":"0193…k3…","value":"urgent"}
 * {"in":"likes","node":"k3…","added":7,"taken":2}
 * {"note":"age","key":"age","value":[1,86400000]}
 * {"total":"todos","records":2,"digest":"0123456789abcdef"}
 * {"end":9,"sha256":"…"}
 * ```
 *
 * 1. **`backup`** is the number of the format, and this is the first line. A reader refuses numbers that it doesn't know. `at` is when it
 *    was made, by the server's clock, `age` the grid's age then (`Tombstones` of the server says what that is), `generation` which store it
 *    is of.
 * 2. **`map`** comes before all that is in the map; `kind` is `lww`, `or` or `counter`.
 * 3. **`in`** is a record of that map, in any order. `stamp` is as `Timestamp.format` writes it; in an `or` map it is the tag of an
 *    addition to the key's set. `value` is as `ValueJson` writes it. A tombstone has `deleted`, and its age where that is known. In a
 *    counter each node that has changed it has its two totals.
 * 4. **`note`** is a fact of the server's own: a space, a key, and a value, or `raw` bytes that are none.
 * 5. **`total`** says of each map how many records it has, and the sum of their digests: so that nothing is missing, twice, in another map or
 *    not as it was.
 * 6. **`end`** is the last line, and the number of lines before it; `sha256` is that of all their bytes.
 *
 * A writer that can't go on writes `{"failed":"…"}` in place of an end. All of it is one instant of the grid. Members that aren't known
 * are refused, as a reader that drops them would restore something else; new ones come with a new number.
 */
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import * as Cell from "./Cell.ts"
import { BackupUnusable, MalformedMessage, RecordTooLarge, ValueNotSupported } from "./GridError.ts"
import { type Hash64, hashKey, hex } from "./internal/hash.ts"
import * as LwwRecord from "./LwwRecord.ts"
import { digestRow } from "./MerkleTree.ts"
import * as PnCounter from "./PnCounter.ts"
import * as Timestamp from "./Timestamp.ts"
import * as Value from "./Value.ts"
import * as ValueJson from "./ValueJson.ts"

/** The number of the format. */
export const format = 1

/** UTF-16 units of one line, at most: a value may have 256 KiB, and each byte of it be written as an escape. */
export const lineLengthMax = 4 * 1024 * 1024

/** What it is a backup of. */
export interface Header {
  /** The program that wrote it, and its version. */
  readonly by: string
  /** When it was made, in ms. */
  readonly at: number
  /** The kind of database. */
  readonly storage: string
  readonly generation: string
  /** Of the grid, in ms. */
  readonly age: number
}

/** How many records a map has, and the lane-wise sum of their digests. */
export interface Totals {
  readonly records: number
  readonly hi: number
  readonly lo: number
}

/** What a line says. */
export type Line =
  | { readonly _tag: "Header"; readonly header: Header }
  | { readonly _tag: "Map"; readonly map: string; readonly kind: Cell.MapKind }
  | {
    readonly _tag: "Record"
    readonly map: string
    readonly kind: Cell.MapKind
    readonly cell: string
    readonly record: LwwRecord.LwwRecord
    /** The grid's age when a tombstone came, in ms, where that is known. */
    readonly age: number | undefined
  }
  | { readonly _tag: "Note"; readonly space: string; readonly key: string; readonly value: Uint8Array }
  | { readonly _tag: "Totals"; readonly map: string; readonly totals: Totals }
  | { readonly _tag: "End"; readonly lines: number; readonly sha256: string }

const unusable = (reason: string): BackupUnusable => new BackupUnusable({ reason })

// --- What maps come to ---

/** Adds up what maps come to, record by record. */
export class Tally {
  readonly #maps = new Map<string, { records: number; hi: number; lo: number }>()
  readonly #key: Hash64 = { hi: 0, lo: 0 }
  readonly #digest: Hash64 = { hi: 0, lo: 0 }

  addMap(map: string): void {
    if (!this.#maps.has(map)) this.#maps.set(map, { records: 0, hi: 0, lo: 0 })
  }

  add(map: string, cell: string, row: Uint8Array): void {
    this.addMap(map)
    const totals = this.#maps.get(map)!
    hashKey(cell, this.#key)
    const view = new DataView(row.buffer, row.byteOffset, row.byteLength)
    digestRow(this.#key.hi, this.#key.lo, view, 0, row.byteLength, this.#digest)
    totals.records++
    totals.hi = (totals.hi + this.#digest.hi) | 0
    totals.lo = (totals.lo + this.#digest.lo) | 0
  }

  of(map: string): Totals {
    return { ...this.#maps.get(map) ?? { records: 0, hi: 0, lo: 0 } }
  }

  /** Why a map isn't what it should come to. */
  faultOf(map: string, expected: Totals): string | undefined {
    const { hi, lo, records } = this.of(map)
    if (records !== expected.records) {
      return `map ${JSON.stringify(map)} has ${records} records, and should have ${expected.records}`
    }
    return hi === expected.hi && lo === expected.lo
      ? undefined
      : `one of the ${records} records of map ${JSON.stringify(map)} isn't what it was`
  }
}

// --- Writing ---

/** The first line. */
export const headerLine = ({ age, at, by, generation, storage }: Header): string =>
  JSON.stringify({ backup: format, by, at: new Date(at).toISOString(), storage, generation, age })

/** What introduces a map. */
export const mapLine = (map: string, kind: Cell.MapKind): string => JSON.stringify({ map, kind })

/**
 * A record, given as its row.
 *
 * @throws MalformedMessage for a row that is none of such a map.
 */
export const recordLine = (
  map: string,
  kind: Cell.MapKind,
  cell: string,
  row: Uint8Array,
  age: number | undefined
): string => {
  const key = Cell.keyOf(kind, cell)
  const record = Cell.decodeInPlace(kind, map, key, row)
  if (record instanceof PnCounter.CounterRow) {
    return JSON.stringify({ in: map, node: record.nodeId, added: record.increments, taken: record.decrements })
  }
  const stamp = Timestamp.format(record.stamp)
  if (record.isTombstone) return JSON.stringify({ in: map, key, stamp, deleted: true, age })
  const value = ValueJson.toJson(Value.decode(record.valueBytes))
  const expires = record.expiresAt === 0 ? undefined : expiryText(record.expiresAt)
  return JSON.stringify({ in: map, key, stamp, value, expires })
}

/** Expiry reaches beyond what a date can say. */
const expiryText = (millis: number): string | number => {
  const date = new Date(millis)
  return Number.isNaN(date.getTime()) ? millis : date.toISOString()
}

/** A fact of the server's own. */
export const noteLine = (space: string, key: string, value: Uint8Array): string =>
  JSON.stringify(
    Value.isCanonical(value)
      ? { note: space, key, value: ValueJson.toJson(Value.decode(value)) }
      : { note: space, key, raw: ValueJson.toJson(value) }
  )

/** What a map comes to. */
export const totalsLine = (map: string, totals: Totals): string =>
  JSON.stringify({ total: map, records: totals.records, digest: hex(totals) })

/** The last line. */
export const endLine = (lines: number, sha256: string): string => JSON.stringify({ end: lines, sha256 })

/** In place of a last line: why there is no more. */
export const failedLine = (reason: string): string => JSON.stringify({ failed: reason })

// --- Reading ---

const Count = Schema.NonNegativeInt
const Text = Schema.String
const millisOf = (text: unknown): number | undefined => {
  if (typeof text !== "string") return undefined
  const date = new Date(text)
  return !Number.isNaN(date.getTime()) && date.toISOString() === text ? date.getTime() : undefined
}

const decoder = <A, I>(form: Schema.Schema<A, I>) => {
  const decode = Schema.decodeUnknownEither(form, { onExcessProperty: "error" })
  return (json: unknown): A | undefined => Either.getOrUndefined(decode(json))
}
const forms = {
  header: decoder(Schema.Struct({
    backup: Schema.Literal(format),
    by: Text,
    at: Schema.String.pipe(Schema.filter((text) => millisOf(text) !== undefined)),
    storage: Text,
    generation: Text,
    age: Count
  })),
  map: decoder(Schema.Struct({ map: Text, kind: Schema.Literal("lww", "or", "counter") })),
  note: decoder(Schema.Union(
    Schema.Struct({ note: Text, key: Text, value: Schema.Unknown }),
    Schema.Struct({ note: Text, key: Text, raw: Schema.Struct({ $bytes: Text }) })
  )),
  total: decoder(Schema.Struct({
    total: Text,
    records: Count,
    digest: Schema.String.pipe(Schema.pattern(/^[0-9a-f]{16}$/))
  })),
  end: decoder(Schema.Struct({ end: Count, sha256: Schema.String.pipe(Schema.pattern(/^[0-9a-f]{64}$/)) }))
}

/** Whether these are the members of a line, `optional` ones included or not. */
const hasOnly = (line: object, required: number, known: ReadonlyArray<string>): boolean => {
  let missing = required
  for (const field of Object.keys(line)) {
    const at = known.indexOf(field)
    if (at < 0) return false
    if (at < required) missing--
  }
  return missing === 0
}

const lane = (digest: string, at: number): number => Number.parseInt(digest.slice(at, at + 8), 16) | 0

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

/** What makes a record of the members of a line; `undefined` for those of none. */
const recordOf = (
  kind: Cell.MapKind,
  line: { readonly [member: string]: unknown }
): LwwRecord.LwwRecord | undefined => {
  const { added, age, deleted, expires, node, stamp: text, taken, value } = line
  if (kind === "counter") {
    if (!hasOnly(line, 4, ["in", "node", "added", "taken"])) return undefined
    if (!Timestamp.isNodeId(node) || !isCount(added) || !isCount(taken)) return undefined
    return PnCounter.totals(node, added, taken)
  }
  if (typeof text !== "string") return undefined
  const stamp = Timestamp.parse(text)
  if (Either.isLeft(stamp)) return undefined
  if (deleted === true) {
    if (!hasOnly(line, 4, ["in", "key", "stamp", "deleted", "age"]) || (age !== undefined && !isCount(age))) {
      return undefined
    }
    return LwwRecord.remove(stamp.right)
  }
  if (!hasOnly(line, 4, ["in", "key", "stamp", "value", "expires"])) return undefined
  const expiresAt = expires === undefined ? 0 : typeof expires === "number" ? expires : millisOf(expires)
  if (!isCount(expiresAt) || expiresAt > Timestamp.millisMax || (expires !== undefined && expiresAt === 0)) {
    return undefined
  }
  return LwwRecord.put(stamp.right, Value.encode(ValueJson.fromJson(value)), expiresAt)
}

const isRefusal = (fault: unknown): fault is MalformedMessage | RecordTooLarge | ValueNotSupported =>
  fault instanceof MalformedMessage || fault instanceof RecordTooLarge || fault instanceof ValueNotSupported

/** Reads a backup line by line, and holds it to what it says of itself. */
export class Reader {
  readonly tally = new Tally()
  readonly #kinds = new Map<string, Cell.MapKind>()
  readonly #totalled = new Set<string>()
  #header: Header | undefined
  #lines = 0
  #ended = false

  /** Lines read. */
  get lines(): number {
    return this.#lines
  }

  /** What it is of; `undefined` before its first line. */
  get header(): Header | undefined {
    return this.#header
  }

  /** The maps that have come so far, and their kinds. */
  get maps(): ReadonlyMap<string, Cell.MapKind> {
    return this.#kinds
  }

  /**
   * The next line, without its line break.
   *
   * @throws BackupUnusable
   */
  take(text: string): Line {
    const line = this.#take(text)
    this.#lines++
    return line
  }

  /**
   * Nothing more comes.
   *
   * @throws BackupUnusable
   */
  end(): void {
    if (this.#header === undefined) throw unusable("there is nothing in it")
    if (!this.#ended) throw unusable(`it breaks off after line ${this.#lines}: part of it is missing`)
  }

  #fail(reason: string): never {
    throw unusable(`line ${this.#lines + 1}: ${reason}`)
  }

  #take(text: string): Line {
    if (this.#ended) this.#fail("there is more after its end")
    const json = this.#parse(text)
    if (this.#header === undefined) return this.#takeHeader(json)
    if ("in" in json) return this.#takeRecord(json)
    if ("map" in json) return this.#takeMap(json)
    if ("note" in json) return this.#takeNote(json)
    if ("total" in json) return this.#takeTotals(json)
    if ("end" in json) return this.#takeEnd(json)
    if ("failed" in json) throw unusable(`the server couldn't finish it: ${String(json["failed"])}`)
    return this.#fail("this is no line of a backup")
  }

  #parse(text: string): { readonly [member: string]: unknown } {
    let json: unknown
    try {
      json = JSON.parse(text)
    } catch {
      if (this.#header === undefined) throw unusable("it isn't one: it doesn't begin with a line of JSON")
      this.#fail("this is no JSON")
    }
    if (typeof json !== "object" || json === null) this.#fail("this is no line of a backup")
    return json as { readonly [member: string]: unknown }
  }

  #takeHeader(json: { readonly [member: string]: unknown }): Line {
    const number = json["backup"]
    if (number === undefined) throw unusable("it isn't one: its first line has no \"backup\"")
    if (isCount(number) && number > format) {
      throw unusable(
        `it has format ${number}, and formats up to ${format} are known here: use the newer version that wrote it`
      )
    }
    const header = forms.header(json)
    if (header === undefined) return this.#fail("this is no first line of a backup")
    const { age, at, by, generation, storage } = header
    this.#header = { age, at: millisOf(at)!, by, generation, storage }
    return { _tag: "Header", header: this.#header }
  }

  #takeMap(json: unknown): Line {
    const line = forms.map(json)
    if (line === undefined) return this.#fail("this introduces no map")
    if (this.#kinds.has(line.map)) return this.#fail(`map ${JSON.stringify(line.map)} is introduced twice`)
    try {
      Value.checkKey(line.map)
    } catch (fault) {
      if (!isRefusal(fault)) throw fault
      return this.#fail("this is no name of a map")
    }
    this.#kinds.set(line.map, line.kind)
    this.tally.addMap(line.map)
    return { _tag: "Map", ...line }
  }

  #takeRecord(json: { readonly [member: string]: unknown }): Line {
    const map = json["in"]
    const kind = typeof map === "string" ? this.#kinds.get(map) : undefined
    if (typeof map !== "string" || kind === undefined) {
      return this.#fail("this record is of a map that isn't introduced")
    }
    if (this.#totalled.has(map)) return this.#fail("this record comes after what its map comes to")
    const key = kind === "counter" ? map : json["key"]
    let record: LwwRecord.LwwRecord | undefined
    try {
      if (typeof key === "string") {
        Value.checkKey(key)
        record = recordOf(kind, json)
      }
    } catch (fault) {
      if (!isRefusal(fault)) throw fault
      this.#fail(fault.message)
    }
    if (typeof key !== "string" || record === undefined) return this.#fail(`this is no record of such a map (${kind})`)
    const cell = Cell.cellOf(kind, key, record)
    this.tally.add(map, cell, record.row)
    return { _tag: "Record", map, kind, cell, record, age: json["age"] as number | undefined }
  }

  #takeNote(json: unknown): Line {
    const line = forms.note(json)
    if (line === undefined) return this.#fail("this is no note")
    try {
      const value = "raw" in line
        ? ValueJson.fromJson(line.raw) as Uint8Array
        : Value.encode(ValueJson.fromJson(line.value))
      return { _tag: "Note", space: line.note, key: line.key, value }
    } catch (fault) {
      if (!isRefusal(fault)) throw fault
      return this.#fail(fault.message)
    }
  }

  #takeTotals(json: unknown): Line {
    const line = forms.total(json)
    if (line === undefined || !this.#kinds.has(line.total) || this.#totalled.has(line.total)) {
      return this.#fail("these are no map's totals")
    }
    const totals = { records: line.records, hi: lane(line.digest, 0), lo: lane(line.digest, 8) }
    const fault = this.tally.faultOf(line.total, totals)
    if (fault !== undefined) throw unusable(fault)
    this.#totalled.add(line.total)
    return { _tag: "Totals", map: line.total, totals }
  }

  #takeEnd(json: unknown): Line {
    const line = forms.end(json)
    if (line === undefined) return this.#fail("this is no end of a backup")
    if (line.end !== this.#lines) throw unusable(`it has ${this.#lines} lines before its end, and had ${line.end}`)
    for (const map of this.#kinds.keys()) {
      if (!this.#totalled.has(map)) throw unusable(`it doesn't say what map ${JSON.stringify(map)} comes to`)
    }
    this.#ended = true
    return { _tag: "End", lines: line.end, sha256: line.sha256 }
  }
}
