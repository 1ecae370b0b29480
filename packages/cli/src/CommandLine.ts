/**
 * A command line, brought into the one order in which @effect/cli takes every argument for what it is: options by their
 * full names, `--`, arguments. It thereby allows options anywhere and values that begin with a dash, and what it can't place
 * is named together with what was perhaps meant. What a command takes is read from the command's own declaration.
 */
import type { Usage } from "@effect/cli/Usage"
import { nearest } from "@topgun/core/Spelling"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import { UsageError } from "./Failure.ts"

interface Flag {
  /** The full name, dashes included. */
  readonly name: string
  readonly takesValue: boolean
  readonly isRequired: boolean
}

interface Parameters {
  /** By each of their names. */
  readonly flags: ReadonlyMap<string, Flag>
  readonly args: ReadonlyArray<{ readonly name: string; readonly isRequired: boolean }>
}

/** What a command takes, by the usage that it declares. */
const parametersOf = (usage: Usage): Parameters => {
  const flags = new Map<string, Flag>()
  const args: Array<{ readonly name: string; readonly isRequired: boolean }> = []
  const visit = (part: Usage, isRequired: boolean): void => {
    switch (part._tag) {
      case "Concat":
      case "Alternation":
        visit(part.left, isRequired)
        return visit(part.right, isRequired)
      case "Optional":
      case "Repeated":
        return visit(part.usage, false)
      case "Named": {
        const name = part.names.find((each) => each.startsWith("--"))
        if (name === undefined) {
          const [only] = part.names
          if (only !== undefined && only.startsWith("<")) args.push({ name: only, isRequired })
          return
        }
        const takesValue = Option.isSome(part.acceptedValues)
        for (const each of part.names) flags.set(each, { name, takesValue, isRequired: isRequired && takesValue })
      }
    }
  }
  visit(usage, true)
  return { flags, args }
}

/** The known word that was probably meant, in words that can end a sentence; nothing when none is near. */
const suggestion = (word: string, known: Iterable<string>): string => {
  const meant = nearest(word, known)
  return meant === undefined ? "" : ` Did you mean ${meant}?`
}

/** Options that every command has. */
const helpFlags = new Set(["--help", "-h"])
const rootFlags = ["--help", "-h", "--version"]

/** Asked for twice, or its usage would lack the program's name. */
const helpOn = (command: string): ReadonlyArray<string> => ["--help", command, "--help"]

/** A negative number is a value. */
const isFlag = (word: string): boolean => word.length > 1 && word.startsWith("-") && !/^-[\d.]/.test(word)

/** An option without the value after its equals sign, which may be a secret: faults have the name alone. */
const nameOf = (word: string): string => word.split("=", 1)[0]!

/** The arguments of one command in order. */
const arrangeCommand = (command: string, usage: Usage, words: ReadonlyArray<string>) => {
  const { args, flags } = parametersOf(usage)
  const fault = (reason: string) =>
    Either.left(new UsageError({ message: `topgun ${command}: ${reason}\nSee "topgun ${command} --help".` }))
  const options = new Map<string, ReadonlyArray<string>>()
  const positional: Array<string> = []
  for (let at = 0; at < words.length; at++) {
    const word = words[at]!
    if (word === "--") {
      positional.push(...words.slice(at + 1))
      break
    }
    if (helpFlags.has(word)) return Either.right(helpOn(command))
    if (!isFlag(word)) {
      positional.push(word)
      continue
    }
    const equals = word.startsWith("--") ? word.indexOf("=") : -1
    const name = equals < 0 ? word : nameOf(word)
    const flag = flags.get(name)
    if (flag === undefined) {
      const unknown = nameOf(word)
      return fault(`there is no option ${unknown}.${suggestion(unknown, [...flags.keys(), "--help"])}`)
    }
    if (options.has(flag.name)) return fault(`${flag.name} is given twice.`)
    if (!flag.takesValue) {
      if (equals >= 0) return fault(`${flag.name} takes no value.`)
      options.set(flag.name, [flag.name])
      continue
    }
    const next = words[at + 1]
    if (equals < 0 && (next === undefined || next === "--" || flags.has(next))) {
      return fault(`${flag.name} needs a value.`)
    }
    options.set(flag.name, [flag.name, equals < 0 ? next! : word.slice(equals + 1)])
    if (equals < 0) at++
  }
  const missing = args.find(({ isRequired }, i) => isRequired && i >= positional.length)
  if (missing !== undefined) {
    return fault(`${missing.name} is missing: topgun ${command} ${args.map(({ name }) => name).join(" ")}`)
  }
  if (positional.length > args.length) {
    const surplus = positional[args.length]!
    return fault(
      args.length === 0
        ? `it takes no arguments, and ${JSON.stringify(surplus)} is one.`
        : `${JSON.stringify(surplus)} is one argument too many. An argument with spaces or quotes in it ` +
          "must stand between single quotes."
    )
  }
  for (const { isRequired, name } of flags.values()) {
    if (isRequired && !options.has(name)) return fault(`${name} is missing.`)
  }
  return Either.right([command, ...Array.from(options.values()).flat(), "--", ...positional])
}

/** The words after the program's name, in order; `commands` are the usages of all commands by name. */
export const arrange = (
  words: ReadonlyArray<string>,
  commands: ReadonlyMap<string, Usage>
): Either.Either<ReadonlyArray<string>, UsageError> => {
  const [first, ...rest] = words
  if (first === undefined || first === "help" || helpFlags.has(first)) {
    const [about] = rest
    return Either.right(about !== undefined && commands.has(about) ? helpOn(about) : ["--help"])
  }
  if (first === "--version") return Either.right(["--version"])
  const usage = commands.get(first)
  if (usage !== undefined) return arrangeCommand(first, usage, rest)
  const what = isFlag(first)
    ? `there is no option ${nameOf(first)} before a command.${suggestion(nameOf(first), rootFlags)}`
    : `there is no command ${JSON.stringify(first)}.${suggestion(first, commands.keys())}`
  return Either.left(new UsageError({ message: `topgun: ${what}\nSee "topgun --help".` }))
}
