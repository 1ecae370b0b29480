import { describe, expect, it } from "@effect/vitest"
import * as Command from "@effect/cli/Command"
import * as Args from "@effect/cli/Args"
import * as Options from "@effect/cli/Options"
import { arrange } from "@topgun/cli/CommandLine"
import { Either } from "effect"

const commands = new Map([
  [
    "set",
    Command.getUsage(Command.make("set", {
      map: Args.text({ name: "map" }),
      value: Args.text({ name: "value" }),
      url: Options.withDefault(Options.text("url"), ""),
      json: Options.withAlias(Options.boolean("json"), "j")
    }))
  ],
  [
    "copy",
    Command.getUsage(Command.make("copy", { to: Options.text("to"), from: Args.optional(Args.text({ name: "from" })) }))
  ]
])

const arranged = (...words: ReadonlyArray<string>) => Either.getOrThrow(arrange(words, commands))
const fault = (...words: ReadonlyArray<string>) =>
  Either.getOrThrow(Either.flip(arrange(words, commands))).message.split("\n")[0]

describe("a command line", () => {
  it("may have its options anywhere, in either form and by any name", () => {
    const expected = ["set", "--url", "ws://a", "--json", "--", "todos", "1"]
    expect(arranged("set", "todos", "--url", "ws://a", "1", "-j")).toEqual(expected)
    expect(arranged("set", "--url=ws://a", "--json", "todos", "1")).toEqual(expected)
    expect(arranged("set", "todos", "1", "--url", "ws://a", "--json")).toEqual(expected)
  })

  it("may have values that begin with a dash", () => {
    expect(arranged("set", "todos", "-5")).toEqual(["set", "--", "todos", "-5"])
    expect(arranged("set", "--", "--help", "-x")).toEqual(["set", "--", "--help", "-x"])
    expect(arranged("set", "todos", "-")).toEqual(["set", "--", "todos", "-"])
  })

  it("asks for help in every usual way", () => {
    for (const words of [[], ["help"], ["-h"], ["--help"]]) expect(arranged(...words)).toEqual(["--help"])
    for (const words of [["help", "set"], ["set", "-h"], ["set", "a", "--help"], ["--help", "set"]]) {
      expect(arranged(...words)).toEqual(["--help", "set", "--help"])
    }
  })

  it("names what it can't place, and what was perhaps meant", () => {
    expect(fault("sett")).toBe("topgun: there is no command \"sett\". Did you mean set?")
    expect(fault("--versoin")).toBe("topgun: there is no option --versoin before a command. Did you mean --version?")
    expect(fault("set", "--ulr", "x")).toBe("topgun set: there is no option --ulr. Did you mean --url?")
    expect(fault("set", "--colour")).toBe("topgun set: there is no option --colour.")
    expect(fault("set", "a", "b", "c")).toMatch(/^topgun set: "c" is one argument too many\./)
  })

  it("repeats nothing that follows an equals sign: it may be a secret", () => {
    for (
      const words of [["--token=s3cr3t"], ["set", "--tokn=s3cr3t"], ["set", "-token=s3cr3t"], ["set", "--json=s3cr3t"]]
    ) {
      expect(fault(...words)).not.toContain("s3cr3t")
    }
    expect(fault("set", "-token=s3cr3t")).toBe("topgun set: there is no option -token.")
  })

  it("names what is missing", () => {
    expect(fault("set", "todos")).toBe("topgun set: <value> is missing: topgun set <map> <value>")
    expect(fault("set", "a", "b", "--url")).toBe("topgun set: --url needs a value.")
    expect(fault("set", "a", "b", "--url", "--json")).toBe("topgun set: --url needs a value.")
    expect(fault("copy")).toBe("topgun copy: --to is missing.")
  })

  it("refuses an option that is given twice, and a value where none belongs", () => {
    expect(fault("set", "a", "b", "--url", "x", "--url=y")).toBe("topgun set: --url is given twice.")
    expect(fault("set", "a", "b", "--json=yes")).toBe("topgun set: --json takes no value.")
  })
})
