/**
 * A small file beside the database that says how many transactions it has had, so that a start notices a database that is older
 * than what was acknowledged: a copy put back alone, a write-ahead log that was removed or ends too early.
 *
 * It is written after each commit, and never synced: whatever of it a crash leaves counts transactions that were on disk before. So it
 * is a lower bound, and costs a system call. It has two places, each in a sector of its own, written in turn: one is whole
 * after any crash.
 */
import { closeSync, openSync, readFileSync, writeSync } from "node:fs"
import { crc32 } from "node:zlib"

/** Which database, and how many transactions it has had at least. */
export interface Sealed {
  readonly generation: string
  readonly commits: number
}

const placeBytes = 512
const form = /^topgun-seal 1 ([0-9a-z]{16}) (\d+) ([0-9a-f]{8}) *\n$/

const checkOf = (generation: string, commits: number): string =>
  crc32(`${generation} ${commits}`).toString(16).padStart(8, "0")

const lineOf = ({ commits, generation }: Sealed): string =>
  `${`topgun-seal 1 ${generation} ${commits} ${checkOf(generation, commits)}`.padEnd(placeBytes - 1)}\n`

const sealedIn = (line: string): Sealed | undefined => {
  const [, generation, digits, check] = form.exec(line) ?? []
  const commits = Number(digits)
  return generation === undefined || check !== checkOf(generation, commits) ? undefined : { generation, commits }
}

/** What a seal says; `undefined` where there is none, or none that can be read: it proves nothing then. Throws what the file system does. */
export const read = (file: string): Sealed | undefined => {
  let text: string
  try {
    text = readFileSync(file, "latin1")
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined
    throw cause
  }
  const [first, second] = [sealedIn(text.slice(0, placeBytes)), sealedIn(text.slice(placeBytes, 2 * placeBytes))]
  if (first === undefined || second === undefined) return first ?? second
  return first.commits > second.commits ? first : second
}

/** An open seal. */
export interface Seal {
  readonly write: (sealed: Sealed) => void
  readonly close: () => void
}

/** Opens a seal to be written, keeping what it says. Throws what the file system does. */
export const open = (file: string): Seal => {
  // Not truncated: the last count stays until there is another.
  const descriptor = openSync(file, "a+")
  closeSync(descriptor)
  const fd = openSync(file, "r+")
  return {
    write: (sealed) => void writeSync(fd, lineOf(sealed), (sealed.commits % 2) * placeBytes, "latin1"),
    close: () => closeSync(fd)
  }
}
