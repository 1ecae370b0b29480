/**
 * Values as JSON that people and other programs can read, and back, without loss.
 *
 * | value | JSON |
 * |---|---|
 * | null, booleans, strings, numbers, arrays, objects | themselves |
 * | -0 | `{"$number": "-0"}` |
 * | bigint | `{"$bigint": "12345678901234567890"}` |
 * | Date | `{"$date": "2026-11-26T09:53:47.000Z"}`, as ECMAScript writes it |
 * | Uint8Array | `{"$bytes": "SGk="}`, in base64 |
 * | an object whose only field's name begins with `$` | `{"$object": {…}}` around it |
 *
 * JSON's numbers are taken for doubles, in whichever way they are written.
 */
import { MalformedMessage } from "./GridError.ts"
import { fromBase64, toBase64 } from "./internal/base64.ts"
import type { Value } from "./Value.ts"

/** What `JSON.stringify` writes as it is. */
export type Json = null | boolean | number | string | ReadonlyArray<Json> | { readonly [field: string]: Json }

/** The only field of an object, where its name begins like those that stand for what JSON lacks. */
const markOf = (fields: ReadonlyArray<string>): string | undefined =>
  fields.length === 1 && fields[0]!.startsWith("$") ? fields[0] : undefined

const unreadable = (mark: string): MalformedMessage =>
  new MalformedMessage({ reason: `no value is written {${JSON.stringify(mark.slice(0, 40))}: …} like this` })

/** A value of a grid as JSON. What is JSON already isn't copied. */
export const toJson = (value: Value): Json => {
  if (typeof value === "bigint") return { $bigint: String(value) }
  if (typeof value === "number") return Object.is(value, -0) ? { $number: "-0" } : value
  if (typeof value !== "object" || value === null) return value
  if (value instanceof Date) return { $date: value.toISOString() }
  if (value instanceof Uint8Array) return { $bytes: toBase64(value) }
  if (Array.isArray(value)) {
    const items = value as ReadonlyArray<Value>
    let copy: Array<Json> | undefined
    for (let at = 0; at < items.length; at++) {
      const json = toJson(items[at]!)
      if (json !== items[at]) (copy ??= items.slice() as Array<Json>)[at] = json
    }
    return copy ?? items as ReadonlyArray<Json>
  }
  const object = value as { readonly [field: string]: Value }
  const fields = Object.keys(object)
  let changed: Map<string, Json> | undefined
  for (const field of fields) {
    const json = toJson(object[field]!)
    if (json !== object[field]) (changed ??= new Map()).set(field, json)
  }
  // Made of entries, so that a field may be called `__proto__`.
  const json = changed === undefined
    ? object as Json
    : Object.fromEntries(fields.map((field) => [field, changed.get(field) ?? object[field] as Json]))
  return markOf(fields) === undefined ? json : { $object: json }
}

const fromMark = (mark: string, json: unknown): unknown => {
  if (mark === "$object" && typeof json === "object" && json !== null && !Array.isArray(json)) return fromFields(json)
  if (typeof json !== "string") throw unreadable(mark)
  if (mark === "$number" && json === "-0") return -0
  if (mark === "$bigint" && /^(?:0|-?[1-9]\d*)$/.test(json)) return BigInt(json)
  if (mark === "$date") {
    const date = new Date(json)
    if (!Number.isNaN(date.getTime()) && date.toISOString() === json) return date
  }
  if (mark === "$bytes" && /^[A-Za-z0-9+/]*={0,2}$/.test(json) && json.length % 4 === 0) {
    const bytes = fromBase64(json)
    if (toBase64(bytes) === json) return bytes
  }
  throw unreadable(mark)
}

/** In place: a parsed text is nobody else's. Its fields are its own, `__proto__` included. */
const fromFields = (json: object): object => {
  const fields = json as Record<string, unknown>
  for (const field of Object.keys(fields)) {
    const value = fields[field]
    if (typeof value === "object" && value !== null) fields[field] = fromJson(value)
  }
  return fields
}

/**
 * What `JSON.parse` has made of a value's JSON, as the value again; it may be changed meanwhile. Whether it is one that a grid can store
 * is for `Value.encode` to say.
 *
 * @throws MalformedMessage
 */
export const fromJson = (json: unknown): unknown => {
  if (typeof json !== "object" || json === null) return json
  if (Array.isArray(json)) {
    for (let at = 0; at < json.length; at++) json[at] = fromJson(json[at])
    return json
  }
  const mark = markOf(Object.keys(json))
  return mark === undefined ? fromFields(json) : fromMark(mark, (json as Record<string, unknown>)[mark])
}
