/** Faults of a disk, for a process that is started with them: see `faults/faults.c`. */
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeSync
} from "node:fs"
import * as path from "node:path"
import * as Effect from "effect/Effect"

const source = path.resolve(import.meta.dirname, "../../faults/faults.c")
const cache = path.resolve(import.meta.dirname, "../../../../node_modules/.cache/topgun")

/** The library, compiled once for each version of its source. */
const library = (): string => {
  const digest = createHash("sha256").update(readFileSync(source)).digest("hex").slice(0, 16)
  const file = path.join(cache, `faults-${digest}.so`)
  if (existsSync(file)) return file
  mkdirSync(cache, { recursive: true })
  const made = `${file}.${process.pid}`
  execFileSync("cc", ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", made, source, "-ldl"])
  renameSync(made, file)
  return file
}

/** In the order of `struct control`. */
const fields = [
  "writes",
  "syncs",
  "truncates",
  "unlinks",
  "killAtWrite",
  "killAtSync",
  "killWhen",
  "loss",
  "seed",
  "writeErrno",
  "writesBefore",
  "syncErrno",
  "syncsBefore",
  "syncMillis",
  "files"
] as const
type Field = typeof fields[number]

export const killWhen = { before: 0, after: 1, torn: 2 } as const
/** What of unsynced sectors a kill takes along. */
export const loss = { nothing: 0, all: 1, some: 2 } as const
export const errno = { EIO: 5, ENOSPC: 28, EROFS: 30 } as const
export const files = { all: 0, log: 1, database: 2 } as const

/** A control of faults, shared with the processes that are started with it. */
export class Faults {
  readonly file: string
  readonly library: string
  readonly #fd: number

  constructor(file: string) {
    this.file = file
    this.library = library()
    this.#fd = openSync(file, "w+")
    writeSync(this.#fd, new Uint8Array(fields.length * 8), 0, undefined, 0)
  }

  /** Changes what is to go wrong from now on. */
  set(faults: Partial<Record<Field, number>>): void {
    for (const [field, value] of Object.entries(faults)) {
      const bytes = Buffer.alloc(8)
      bytes.writeBigInt64LE(BigInt(value))
      writeSync(this.#fd, bytes, 0, 8, fields.indexOf(field as Field) * 8)
    }
  }

  /** Nothing goes wrong any more. */
  clear(): void {
    this.set({ killAtWrite: 0, killAtSync: 0, loss: 0, writeErrno: 0, syncErrno: 0, syncMillis: 0, files: 0 })
  }

  get(field: Field): number {
    const bytes = Buffer.alloc(8)
    readSync(this.#fd, bytes, 0, 8, fields.indexOf(field) * 8)
    return Number(bytes.readBigInt64LE())
  }

  close(): void {
    closeSync(this.#fd)
    rmSync(this.file, { force: true })
  }
}

/** Faults for files below a directory. */
export const make = (file: string) =>
  Effect.acquireRelease(Effect.sync(() => new Faults(file)), (faults) => Effect.sync(() => faults.close()))

export const environmentOf = (faults: Faults, dir: string): Readonly<Record<string, string>> => ({
  LD_PRELOAD: faults.library,
  DISK_FAULTS_DIR: dir,
  DISK_FAULTS_CONTROL: faults.file
})
