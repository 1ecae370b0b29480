/**
 * Makes values of bytes that are known to be canonical, so that nothing here can fail or recurse too deep.
 */
import { MalformedMessage } from "../GridError.ts"
import { utf8Read } from "./utf8.ts"
import { float64At, millisAt, uint16At, uint32At, type Value } from "./valueForm.ts"

/** Where the next byte is. In a variable of the module, as each function both needs and moves it. */
let at = 0

/**
 * The value in [start, end).
 *
 * @throws MalformedMessage when it ends elsewhere.
 */
export const read = (bytes: Uint8Array, start: number, end: number): Value => {
  at = start
  strangers = 0
  const value = readValue(bytes)
  if (at !== end) throw new MalformedMessage({ reason: `a value does not end at ${end}, where it should` })
  return value
}

/**
 * Reads some fields of objects: an object with those of them that are there, and whatever isn't an object as it is. Others are passed,
 * their names too, without making anything of them: most differ in length from those that are wanted.
 */
export const partReader = (
  names: ReadonlySet<string>
): (bytes: Uint8Array, start: number, end: number) => Value => {
  const wanted = Array.from(names, (text) => ({ name: makeName(text), bytes: encoder.encode(text) }))
  return (bytes, start, end) => {
    const tag = bytes[start]!
    const isShort = tag >= 0x80 && tag < 0x90
    if (!isShort && tag !== 0xde) return read(bytes, start, end)
    at = start + (isShort ? 1 : 3)
    strangers = 0
    const object: { [field: string]: Value } = {}
    let left = wanted.length
    for (let count = isShort ? tag & 15 : uint16At(bytes, start + 1); count > 0 && left > 0; count--) {
      const header = bytes[at++]!
      const length = header < 0xc0 ? header & 31 : header === 0xd9 ? take1(bytes) : take2(bytes)
      const from = at
      at += length
      let found: Name | undefined
      for (let i = 0; i < wanted.length; i++) {
        const each = wanted[i]!
        if (each.bytes.length === length && isAt(bytes, from, each.bytes)) found = each.name
      }
      if (found === undefined) pass(bytes)
      else {
        left--
        setField(object, found, readValue(bytes))
      }
    }
    return object
  }
}

const encoder = new TextEncoder()

const isAt = (bytes: Uint8Array, from: number, name: Uint8Array): boolean => {
  for (let i = name.length - 1; i >= 0; i--) if (bytes[from + i] !== name[i]) return false
  return true
}

/** Goes past a value. */
const pass = (bytes: Uint8Array): void => {
  for (let pending = 1; pending > 0; pending--) {
    const tag = bytes[at++]!
    if (tag >= 0xa0 && tag < 0xc0) at += tag & 31
    else if (tag < 0x80 || tag >= 0xe0) continue
    else if (tag < 0x90) pending += (tag & 15) * 2
    else if (tag < 0xa0) pending += tag & 15
    else {
      switch (tag) {
        case 0xc0:
        case 0xc2:
        case 0xc3:
          break
        case 0xc4:
        case 0xd9:
          at += 1 + bytes[at]!
          break
        case 0xc5:
        case 0xda:
          at += 2 + uint16At(bytes, at)
          break
        case 0xc6:
        case 0xdb:
          at += 4 + uint32At(bytes, at)
          break
        case 0xc7:
          at += 14
          break
        case 0xcc:
        case 0xd0:
          at += 1
          break
        case 0xcd:
        case 0xd1:
          at += 2
          break
        case 0xce:
        case 0xd2:
          at += 4
          break
        case 0xdc:
          pending += take2(bytes)
          break
        case 0xdd:
          pending += take4(bytes)
          break
        case 0xde:
          pending += take2(bytes) * 2
          break
        default:
          // Float64 and bigint.
          at += 8
      }
    }
  }
}

const readValue = (bytes: Uint8Array): Value => {
  const tag = bytes[at++]!
  if (tag < 0x80) return tag
  if (tag < 0x90) return readFields(bytes, tag & 15)
  if (tag < 0xa0) return readArray(bytes, tag & 15)
  if (tag < 0xc0) return readText(bytes, tag & 31)
  if (tag >= 0xe0) return tag - 0x100
  switch (tag) {
    case 0xc0:
      return null
    case 0xc2:
      return false
    case 0xc3:
      return true
    case 0xc4:
      return readBytes(bytes, take1(bytes))
    case 0xc5:
      return readBytes(bytes, take2(bytes))
    case 0xc6:
      return readBytes(bytes, take4(bytes))
    case 0xc7:
      at += 14
      return new Date(millisAt(bytes, at - 12))
    case 0xcb:
      at += 8
      return float64At(bytes, at - 8)
    case 0xcc:
      return take1(bytes)
    case 0xcd:
      return take2(bytes)
    case 0xce:
      return take4(bytes)
    case 0xcf:
      return BigInt(take4(bytes)) << 32n | BigInt(take4(bytes))
    case 0xd0:
      return take1(bytes) << 24 >> 24
    case 0xd1:
      return take2(bytes) << 16 >> 16
    case 0xd2:
      return take4(bytes) | 0
    case 0xd3:
      return BigInt(take4(bytes) | 0) << 32n | BigInt(take4(bytes))
    case 0xd9:
      return readText(bytes, take1(bytes))
    case 0xda:
      return readText(bytes, take2(bytes))
    case 0xdb:
      return readText(bytes, take4(bytes))
    case 0xdc:
      return readArray(bytes, take2(bytes))
    case 0xdd:
      return readArray(bytes, take4(bytes))
    default:
      return readFields(bytes, take2(bytes))
  }
}

const take1 = (bytes: Uint8Array): number => bytes[at++]!

const take2 = (bytes: Uint8Array): number => {
  at += 2
  return uint16At(bytes, at - 2)
}

const take4 = (bytes: Uint8Array): number => {
  at += 4
  return uint32At(bytes, at - 4)
}

const readText = (bytes: Uint8Array, length: number): string => {
  at += length
  return utf8Read(bytes, at - length, at)
}

const readBytes = (bytes: Uint8Array, length: number): Uint8Array => {
  at += length
  // Not `slice`, which in a Buffer shares the memory.
  return new Uint8Array(bytes.subarray(at - length, at))
}

const readArray = (bytes: Uint8Array, count: number): ReadonlyArray<Value> => {
  const array: Array<Value> = []
  for (let i = 0; i < count; i++) array.push(readValue(bytes))
  return Object.freeze(array)
}

const readFields = (bytes: Uint8Array, count: number): { readonly [field: string]: Value } => {
  if (count > RECORD_FIELDS_MAX || strangers > STRANGERS_MAX) return readTable(bytes, count)
  const object: { [field: string]: Value } = {}
  let name = beforeFirst
  for (let i = 0; i < count; i++) {
    name = readName(bytes, name)
    setField(object, name, readValue(bytes))
  }
  return Object.freeze(object)
}

const setField = (object: { [field: string]: Value }, { isInherited, text }: Name, value: Value): void => {
  // Assignment would run the setter of `__proto__`, and fail where Object.prototype is frozen.
  if (isInherited) Object.defineProperty(object, text, { value, configurable: true, enumerable: true, writable: true })
  else object[text] = value
}

// V8 describes each new sequence of names by a chain of hidden classes, which costs up to 2 µs a name. That pays where
// records of one shape follow, and would make a value full of names never seen before slow to decode, and slow on purpose.
// An object that begins without prototype is a dictionary from the start, and stays one.

/** Objects of more fields are dictionaries. */
const RECORD_FIELDS_MAX = 128

/** So many names of one value may be new to the table of names; objects after that are dictionaries. */
const STRANGERS_MAX = 256
let strangers = 0

const readTable = (bytes: Uint8Array, count: number): { readonly [field: string]: Value } => {
  const object = Object.create(null) as { [field: string]: Value }
  for (let i = 0; i < count; i++) {
    const name = readValue(bytes) as string
    // An object without prototype has no setters either: `__proto__` is a name like any other.
    object[name] = readValue(bytes)
  }
  return Object.freeze(Object.setPrototypeOf(object, Object.prototype) as typeof object)
}

// --- Names ------------------------------------------------------------------------------------------------------------
// Names repeat, and a string that the engine has seen as a name before is a far faster one. Short ASCII names are kept in
// a table, each in one slot until the next name of the same slot takes it over. Mostly a name is followed by the same one
// as last time, so the slot of that one is looked at first. (A slot, not the name itself: else chains of names that were
// taken over would stay alive.)

interface Name {
  readonly text: string
  readonly isInherited: boolean
  /** The slot of the name that followed last time. */
  next: number
}

const NAME_SLOTS = 1024

const makeName = (text: string): Name => ({ text, isInherited: text in Object.prototype, next: 0 })

/** Stands for what precedes the first field; also fills the empty slots, where it is right for the empty name. */
const beforeFirst = makeName("")
const names: Array<Name> = Array.from({ length: NAME_SLOTS }, () => beforeFirst)

const readName = (bytes: Uint8Array, previous: Name): Name => {
  const expected = names[previous.next]!
  if (skipName(bytes, expected.text)) return expected
  const length = bytes[at]! & 31
  // Longer names have a header of more bytes, which is above this.
  if (bytes[at]! > 0xbf || length === 0) return makeName(readValue(bytes) as string)
  const slot = slotOf(bytes, at + 1, length)
  previous.next = slot
  const known = names[slot]!
  if (skipName(bytes, known.text)) return known
  strangers++
  const name = makeName(readValue(bytes) as string)
  // As many units as bytes: ASCII.
  if (name.text.length === length) names[slot] = name
  return name
}

const slotOf = (bytes: Uint8Array, from: number, length: number): number =>
  (length * 71 + bytes[from]! * 53 + bytes[from + (length >> 1)]! * 17 + bytes[from + length - 1]! * 5) &
  NAME_SLOTS - 1

/** Whether this name, which is short and ASCII, comes next; if so, goes past it. */
const skipName = (bytes: Uint8Array, text: string): boolean => {
  const length = text.length
  if (bytes[at] !== (0xa0 | length)) return false
  const from = at + 1
  for (let i = 0; i < length; i++) if (bytes[from + i] !== text.charCodeAt(i)) return false
  at = from + length
  return true
}
