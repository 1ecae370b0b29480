/**
 * Mutants: builds that are broken on purpose, in one line, to prove that a test would notice. The sources hold no switches
 * for it; a vitest plugin replaces the line while a single test file runs.
 */

/** One way to break the program, and the test that must fail then. */
export interface Mutant {
  /** The invariant that it breaks: see `INVARIANTS.md`. */
  readonly id: string
  /** What is wrong in the mutant, in words. */
  readonly breaks: string
  /** The source, from the repository's root. */
  readonly file: string
  /** Text that occurs in the source exactly once, within one line. */
  readonly find: string
  readonly replace: string
  /** The test file, from the repository's root. */
  readonly test: string
  /** Part of the name of a test in it that must fail. Others may fail too. */
  readonly fails: string
}

/** The mutant's source. Throws when the text to replace isn't there exactly once: then the mutant is out of date. */
export const mutate = (mutant: Mutant, source: string): string => {
  const places = source.split(mutant.find).length - 1
  if (mutant.find.includes("\n") || places !== 1) {
    throw new Error(
      `mutant "${mutant.breaks}" (${mutant.id}): ${mutant.file} has ${places} places with \`${mutant.find}\`, not one`
    )
  }
  return source.replace(mutant.find, () => mutant.replace)
}

/** A plugin for vitest, which is one of vite. Ask {@link MutantPlugin.applied} at the end whether the source was loaded. */
export interface MutantPlugin {
  readonly name: string
  readonly enforce: "pre"
  readonly transform: (code: string, id: string) => string | undefined
  readonly applied: () => boolean
}

/** Replaces the mutant's line wherever its source is loaded. `root` is the repository's root, an absolute path. */
export const mutantPlugin = (mutant: Mutant, root: string): MutantPlugin => {
  const path = `${root.replaceAll("\\", "/").replace(/\/$/, "")}/${mutant.file}`
  let applied = false
  return {
    name: "topgun-mutant",
    enforce: "pre",
    transform: (code, id) => {
      if (id.split("?")[0] !== path) return undefined
      applied = true
      return mutate(mutant, code)
    },
    applied: () => applied
  }
}
