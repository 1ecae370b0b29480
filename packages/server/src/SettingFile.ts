/** A setting in a file of its own, as secrets are mounted: the variable's name ends in `_FILE`, and its value is the path. */
import * as Either from "effect/Either"
import { readFileSync, statSync } from "node:fs"

/** Bytes of a file that a setting is in, at most. */
const fileBytesMax = 64 * 1024

/** What is in such a file. */
export interface Contents {
  readonly text: string
  /** Whether any user of this machine can read it. */
  readonly isOpen: boolean
}

const utf8 = new TextDecoder("utf-8", { fatal: true })

/**
 * A text in a file, without the line's end that editors put there; or why it can't be had, in words that go on after the path.
 * Whatever is no file is refused, and so is one that is empty, has more than 64 KiB, or isn't UTF-8.
 */
export const read = (path: string): Either.Either<Contents, string> => {
  try {
    // A pipe would be waited for.
    const stats = statSync(path)
    if (!stats.isFile()) return Either.left("which is no file")
    if (stats.size > fileBytesMax) return Either.left(`which has more than ${fileBytesMax} bytes`)
    const text = utf8.decode(readFileSync(path)).replace(/\r?\n$/, "")
    return text === "" ? Either.left("which is empty") : Either.right({ text, isOpen: (stats.mode & 0o004) !== 0 })
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    return Either.left(code === "ENOENT" ? "which isn't there" : `which can't be read (${code ?? "not UTF-8"})`)
  }
}
