/**
 * The canonical order of an object's fields, and how their names are encoded.
 *
 * Objects of one map have the same few shapes. A trie over the names, in the order in which objects hold them, remembers
 * the order and the encoded names of each shape seen twice; it is emptied when full.
 */
import { utf8Length } from "./utf8.ts"

/** The fields of an object, in canonical order. */
export interface Fields {
  readonly names: ReadonlyArray<string>
  /** The encoded names one after the other, undefined unless the shape is remembered; name `i` ends before `ends[i]`. */
  readonly encoded: Uint8Array | undefined
  readonly ends: ReadonlyArray<number>
}

interface Shape {
  /** The last name of the sequence that leads here. */
  readonly name: string
  /** The successor taken last; mostly the next one too. */
  recent: Shape | undefined
  successors: Map<string, Shape> | undefined
  fields: Fields | undefined
  seen: boolean
}

/** Longer objects, and longer names, are sorted each time. */
const SHAPE_FIELDS_MAX = 32
/** In UTF-16 units: the header of such a name has two bytes at most. */
const SHAPE_NAME_LENGTH_MAX = 64
/** Nodes, plus names in remembered orders. */
const SHAPE_COST_MAX = 8192

const makeShape = (name: string): Shape => ({
  name,
  recent: undefined,
  successors: undefined,
  fields: undefined,
  seen: false
})

let shapes = makeShape("")
let shapesCost = 0

/** The order for an object whose own names these are; it may be the same array, sorted. */
export const inCanonicalOrder = (names: Array<string>): Fields => {
  if (names.length > SHAPE_FIELDS_MAX) return sorted(names)
  let shape = shapes
  for (let i = 0; i < names.length; i++) {
    const name = names[i]!
    let next = shape.recent
    if (next === undefined || next.name !== name) {
      if (name.length > SHAPE_NAME_LENGTH_MAX) return sorted(names)
      next = shape.successors?.get(name) ?? addShape(shape, name)
      shape.recent = next
    }
    shape = next
  }
  return shape.fields ?? learn(shape, sorted(names))
}

const addShape = (to: Shape, name: string): Shape => {
  const shape = makeShape(name)
  to.successors ??= new Map()
  to.successors.set(name, shape)
  shapesCost++
  return shape
}

const learn = (shape: Shape, fields: Fields): Fields => {
  if (shape.seen) {
    shape.fields = withEncodedNames(fields.names)
    shapesCost += fields.names.length
  }
  shape.seen = true
  if (shapesCost > SHAPE_COST_MAX) {
    shapes = makeShape("")
    shapesCost = 0
  }
  return fields
}

const sorted = (names: Array<string>): Fields => ({ names: names.sort(compareNames), encoded: undefined, ends: [] })

const withEncodedNames = (names: ReadonlyArray<string>): Fields | undefined => {
  const encoded: Array<number> = []
  const ends: Array<number> = []
  for (const name of names) {
    const length = utf8Length(name)
    // A lone surrogate: objects of this shape are refused each time.
    if (length < 0) return undefined
    if (length < 32) encoded.push(0xa0 | length)
    else encoded.push(0xd9, length)
    encoded.push(...encoder.encode(name))
    ends.push(encoded.length)
  }
  return { names, encoded: Uint8Array.from(encoded), ends }
}

const encoder = new TextEncoder()

/** The bytewise order of UTF-8, which is that of code points: UTF-16's differs where surrogates meet U+E000 to U+FFFF. */
export const compareNames = (a: string, b: string): number => {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i)
    const y = b.charCodeAt(i)
    if (x !== y) return x >= 0xd800 && y >= 0xd800 ? aboveBmp(x) - aboveBmp(y) : x - y
  }
  return a.length - b.length
}

const aboveBmp = (unit: number): number => unit < 0xe000 ? unit + 0x2800 : unit
