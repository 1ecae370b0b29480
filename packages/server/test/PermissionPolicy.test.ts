import { describe, expect, it } from "@effect/vitest"
import { ConfigInvalid } from "@topgun/core/GridError"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as Value from "@topgun/core/Value"
import type { Access } from "@topgun/server/Access"
import type { Principal } from "@topgun/server/Authentication"
import * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as TestClock from "effect/TestClock"
import * as fc from "fast-check"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const alice: Principal = { userId: "alice", roles: ["editor"] }

const accessOf = (rule: Partial<PermissionPolicy.Rule>, principal: Principal | undefined, map: string): Access =>
  PermissionPolicy.compile({ rules: [{ maps: ["*"], roles: ["anyone"], allow: ["read"], ...rule }] })
    .access(principal, map)

const stampOf = (millis: number) => ({ millis, counter: 0, nodeId: "0000000000000000" })
const recordOf = (value: unknown, millis = 1) => LwwRecord.put(stampOf(millis), Value.encode(value))
const shown = (access: Access, value: unknown): unknown => {
  const record = access.show(recordOf(value), value)
  return record === undefined ? undefined : Value.decode(record.valueBytes)
}
/** What is stored when `after` is written over `before` later; `refused` when it isn't. */
const written = (access: Access, before: unknown, after: unknown): unknown => {
  const stored = before === undefined ? undefined : recordOf(before, 1)
  const judged = access.judge("lww", recordOf(after, 2), stored, 0)
  return judged === undefined ? "refused" : Value.decode(judged.valueBytes)
}
const removed = (access: Access, before: unknown): boolean =>
  access.judge(
    "lww",
    LwwRecord.remove(stampOf(2)),
    before === undefined ? undefined : recordOf(before),
    0
  ) !== undefined

describe("A policy", () => {
  it("denies what no rule grants", () => {
    const { access, maySeeStatus } = PermissionPolicy.compile({ rules: [] })
    for (const principal of [undefined, alice]) {
      expect(access(principal, "m")).toMatchObject({ reads: "nothing", puts: "nothing", removes: "nothing" })
      expect(maySeeStatus(principal)).toBe(false)
    }
  })

  it("grants each verb by itself", () => {
    for (const verb of ["read", "put", "remove"] as const) {
      const access = accessOf({ allow: [verb] }, undefined, "m")
      expect([access.reads, access.puts, access.removes]).toEqual(
        (["read", "put", "remove"] as const).map((each) => each === verb ? "everything" : "nothing")
      )
    }
  })

  it("grants to roles: those of the token, whole names only; user is who is signed in, anyone everybody", () => {
    const reads = (role: string, principal: Principal | undefined) => accessOf({ roles: [role] }, principal, "m").reads
    expect(reads("editor", alice)).toBe("everything")
    expect(reads("edit", alice)).toBe("nothing")
    expect(reads("editor", { userId: "bob", roles: ["NOT_editor", "editors"] })).toBe("nothing")
    expect(reads("editor", { userId: "editor" })).toBe("nothing")
    expect(reads("user", { userId: "bob" })).toBe("everything")
    expect(reads("user", undefined)).toBe("nothing")
    expect(reads("anyone", undefined)).toBe("everything")
    expect(reads("constructor", { userId: "bob" })).toBe("nothing")
  })

  it.each<[pattern: string, map: string, matches: boolean]>([
    ["todos", "todos", true],
    ["todos", "todos2", false],
    ["todos", "Todos", false],
    ["*", "anything/at:all", true],
    ["a*", "a", true],
    ["a*a", "a", false],
    ["a*a", "aa", true],
    ["list/*/items", "list/7/items", true],
    ["list/*/items", "list/items", false],
    ["a*b*c", "a-b-b-c", true],
    ["a*b*c", "acb", false],
    ["user/{userId}/*", "user/alice/notes", true],
    ["user/{userId}/*", "user/alic/notes", false],
    ["user/{userId}/*", "user/alice2/notes", false],
    ["user/{userId}/*", "user/{userId}/notes", false],
    ["user/{nobody}/*", "user//notes", false],
    ["user/{constructor}/*", "user//notes", false],
    ["a.c", "abc", false],
    ["(a|b)", "a", false],
    ["$&", "$&", true]
  ])("names maps: %s, %s: %s", (pattern, map, matches) => {
    expect(accessOf({ maps: [pattern] }, alice, map).reads).toBe(matches ? "everything" : "nothing")
  })

  it.each(["*", "a/b", "a:b", "{userId}", "a\u0000b", "a\nb"])("lets the user id %j into no map's name", (userId) => {
    for (const map of ["user/x/notes", "user/*/notes", `user/${userId}/notes`, "user/alice/notes"]) {
      expect(accessOf({ maps: ["user/{userId}/*"] }, { userId }, map).reads).toBe("nothing")
    }
  })

  it.each(["$&", "$1", "$`", ".+", "\\", "__proto__"])("takes the user id %j for just these characters", (userId) => {
    expect(accessOf({ maps: ["user/{userId}/*"] }, { userId }, `user/${userId}/notes`).reads).toBe("everything")
    expect(accessOf({ maps: ["user/{userId}/*"] }, { userId }, "user/alice/notes").reads).toBe("nothing")
  })

  it("shuts out who is blocked, from what anyone may do too", () => {
    const { access, maySeeStatus } = PermissionPolicy.compile({ ...PermissionPolicy.everything, blocked: ["alice"] })
    expect(access(alice, "m").reads).toBe("nothing")
    expect(maySeeStatus(alice)).toBe(false)
    expect(access({ userId: "bob" }, "m").reads).toBe("everything")
  })

  it("shows records of which the condition is true, and the fields that rules name together", () => {
    const { access } = PermissionPolicy.compile({
      rules: [
        { maps: ["m"], roles: ["user"], allow: ["read"], where: { owner: { principal: "userId" } } },
        { maps: ["m"], roles: ["user"], allow: ["read"], where: { open: true }, fields: { read: ["name"] } },
        { maps: ["m"], roles: ["user"], allow: ["read"], where: { open: true, team: "t" }, fields: { read: ["mail"] } }
      ]
    })
    const mine = access(alice, "m")
    expect(mine.reads).toBe("part")
    expect(shown(mine, { owner: "alice", secret: 1 })).toEqual({ owner: "alice", secret: 1 })
    expect(shown(mine, { owner: "bob", open: true, name: "b", mail: "b@" })).toEqual({ name: "b" })
    expect(shown(mine, { owner: "bob", open: true, team: "t", name: "b", mail: "b@" })).toEqual({
      name: "b",
      mail: "b@"
    })
    for (const hidden of [{ owner: "bob" }, { open: "true" }, {}, "alice", null, ["alice"]]) {
      expect(shown(mine, hidden)).toBeUndefined()
    }
    expect(mine.viewKey).not.toBe(access({ userId: "bob" }, "m").viewKey)
    expect(mine.viewKey).toBe(access({ userId: "alice", roles: ["other"] }, "m").viewKey)
  })

  it("lets nobody take over what is another's, give away his own, or remove what isn't his", () => {
    const access = accessOf(
      { allow: ["read", "put", "remove"], where: { owner: { principal: "userId" } } },
      alice,
      "m"
    )
    expect(written(access, undefined, { owner: "alice" })).toEqual({ owner: "alice" })
    expect(written(access, { owner: "alice" }, { owner: "alice", n: 1 })).toEqual({ owner: "alice", n: 1 })
    expect(written(access, { owner: "bob" }, { owner: "alice" })).toBe("refused")
    expect(written(access, { owner: "alice" }, { owner: "bob" })).toBe("refused")
    expect(written(access, undefined, { owner: "bob" })).toBe("refused")
    expect(written(access, undefined, "alice")).toBe("refused")
    expect(removed(access, { owner: "alice" })).toBe(true)
    expect(removed(access, { owner: "bob" })).toBe(false)
    expect(removed(access, undefined)).toBe(true)
  })

  it("keeps the fields that may not be written, and those that are written over unseen", () => {
    const clerk = (fields: PermissionPolicy.Rule["fields"]) => accessOf({ allow: ["read", "put"], fields }, alice, "m")
    const stored = { name: "n", phone: 1, salary: 9 }
    const some = clerk({ read: ["name", "phone"], write: ["phone"] })
    expect(written(some, stored, { name: "other", phone: 2 })).toEqual({ name: "n", phone: 2, salary: 9 })
    expect(written(some, stored, { salary: 0 })).toEqual({ name: "n", salary: 9 })
    expect(written(some, undefined, { name: "x", phone: 1, salary: 1 })).toEqual({ phone: 1 })
    // Who may write what he reads.
    expect(written(clerk({ read: ["name"] }), stored, {})).toEqual({ phone: 1, salary: 9 })
    // A field that is written and not read stays until it is written.
    expect(written(clerk({ read: ["name"], write: ["name", "phone"] }), stored, { name: "x" }))
      .toEqual({ name: "x", phone: 1, salary: 9 })
    expect(written(some, stored, 7)).toBe("refused")
    expect(written(some, 7, { phone: 1 })).toBe("refused")
    expect(written(accessOf({ allow: ["put"] }, alice, "m"), 7, { phone: 1 })).toEqual({ phone: 1 })
    const own = Object.defineProperty({}, "__proto__", { value: 1, enumerable: true })
    expect(Object.keys(written(clerk({ read: ["__proto__"] }), undefined, own) as object)).toEqual(["__proto__"])
  })

  it("gives a write that loses to what is stored no stamp of now", () => {
    const access = accessOf({ allow: ["read", "put"], fields: { read: ["a"] } }, alice, "m")
    const late = recordOf({ a: 1 }, 1)
    expect(access.judge("lww", late, recordOf({ a: 2, b: 2 }, 5), 0)).toBe(late)
  })

  it("stamps what it keeps fields in right after the write, before whatever its writer writes next", () => {
    const access = accessOf({ allow: ["read", "put"], fields: { read: ["a", "b"], write: ["a"] } }, alice, "m")
    const judge = (millis: number, stored: LwwRecord.LwwRecord) =>
      access.judge("lww", recordOf({ a: millis }, millis), stored, 1_000_000)!
    const first = judge(5, recordOf({ a: 0, b: 1 }, 4))
    expect(Value.decode(first.valueBytes)).toEqual({ a: 5, b: 1 })
    expect(LwwRecord.compare(first, recordOf({ a: 5 }, 5))).toBeGreaterThan(0)
    // Sent again it changes nothing.
    expect(LwwRecord.compare(judge(5, first), first)).toBeLessThan(0)
    const next = LwwRecord.put({ ...stampOf(5), counter: 1 }, Value.encode({ a: 6 }))
    const second = access.judge("lww", next, first, 1_000_000)!
    expect(LwwRecord.compare(second, first)).toBeGreaterThan(0)
    expect(Value.decode(second.valueBytes)).toEqual({ a: 6, b: 1 })
    // Nor does it ever lose to the write that it is made of, whoever that says that he is.
    const forged = LwwRecord.put({ ...first.stamp, counter: 7 }, Value.encode({ a: 8 }))
    expect(LwwRecord.compare(access.judge("lww", forged, first, 0)!, forged)).toBeGreaterThan(0)
  })

  it("writes no field by the word of a rule that isn't about what is stored", () => {
    const { access } = PermissionPolicy.compile({
      rules: [
        { maps: ["m"], roles: ["user"], allow: ["put"], where: { owner: { principal: "userId" } } },
        { maps: ["m"], roles: ["user"], allow: ["put"], where: { is: "comment" }, fields: { write: ["is", "text"] } }
      ]
    })
    const mine = access(alice, "m")
    const comment = { is: "comment", text: "t" }
    expect(written(mine, undefined, { ...comment, owner: "bob", salary: 9 })).toEqual(comment)
    expect(written(mine, { ...comment, owner: "alice" }, { is: "comment", text: "u", owner: "bob" })).toEqual({
      is: "comment",
      text: "u",
      owner: "alice"
    })
    expect(written(mine, undefined, { ...comment, owner: "alice", n: 1 })).toEqual({ ...comment, owner: "alice", n: 1 })
  })

  it("leaves the time at which a record expires to who may write all of it", () => {
    const clerk = accessOf({ allow: ["read", "put"], fields: { read: ["a", "b"], write: ["a"] } }, alice, "m")
    const stored = LwwRecord.put(stampOf(1), Value.encode({ a: 1, b: 1 }), 9_000)
    const soon = LwwRecord.put(stampOf(2), Value.encode({ a: 1, b: 1 }), 3)
    expect(clerk.judge("lww", soon, stored, 0)?.expiresAt).toBe(9_000)
    expect(clerk.judge("lww", soon, recordOf({ a: 1, b: 1 }), 0)?.expiresAt).toBe(0)
    expect(clerk.judge("lww", soon, undefined, 0)?.expiresAt).toBe(3)
    expect(accessOf({ allow: ["put"] }, alice, "m").judge("lww", soon, stored, 0)).toBe(soon)
  })

  it("takes what has expired for gone", () => {
    const access = accessOf({ allow: ["put", "remove"], where: { owner: { principal: "userId" } } }, alice, "m")
    const stored = LwwRecord.put(stampOf(1), Value.encode({ owner: "bob" }), 100)
    for (const write of [recordOf({ owner: "alice" }, 2), LwwRecord.remove(stampOf(2))]) {
      expect(access.judge("lww", write, stored, 99)).toBeUndefined()
      expect(access.judge("lww", write, stored, 100)).toBe(write)
    }
  })

  it("says of what is too large beside hidden fields no more than that it is refused", () => {
    const access = accessOf({ allow: ["read", "put"], fields: { read: ["a"] } }, alice, "m")
    const half = "x".repeat(Value.valueBytesMax * 0.6)
    expect(written(access, { a: 1, hidden: half }, { a: half })).toBe("refused")
    const whole = accessOf({ allow: ["read", "put"], fields: { read: ["a", "hidden"], write: ["a"] } }, alice, "m")
    expect(written(whole, { a: 1, hidden: half }, { a: half })).toBe("refused")
  })

  it("of sets and counters grants what has no condition and no fields", () => {
    const record = recordOf({ owner: "alice" })
    const judge = (access: Access) => access.judge("or", record, undefined, 0)
    expect(judge(accessOf({ allow: ["put"] }, alice, "m"))).toBe(record)
    expect(judge(accessOf({ allow: ["put"], where: { owner: "alice" } }, alice, "m"))).toBeUndefined()
    expect(judge(accessOf({ allow: ["put"], fields: { read: ["owner"] } }, alice, "m"))).toBeUndefined()
  })

  // --- Against a model that knows of one record what each rule says of it ---

  const fieldNames = ["a", "b", "owner"] as const
  const value = fc.dictionary(fc.constantFrom(...fieldNames), fc.constantFrom("alice", "bob", 1), { maxKeys: 3 })
  const rule = fc.record({
    maps: fc.constant(["m"]),
    roles: fc.constant(["user"]),
    allow: fc.subarray(["read", "put", "remove"] as const, { minLength: 1 }),
    where: fc.option(fc.constantFrom({ owner: { principal: "userId" } }, { a: 1 }), { nil: undefined }),
    fields: fc.option(
      fc.record({
        read: fc.option(fc.subarray([...fieldNames], { minLength: 1 }), { nil: undefined }),
        write: fc.option(fc.subarray([...fieldNames], { minLength: 1 }), { nil: undefined })
      }),
      { nil: undefined }
    )
  })
  type Fields = Readonly<Record<string, unknown>>
  const holds = ({ where }: PermissionPolicy.Rule, record: Fields): boolean =>
    where === undefined || ("owner" in where ? record["owner"] === "alice" : record["a"] === 1)

  it.prop(
    "shows of a record what its rules say, and nothing that they don't",
    { rules: fc.array(rule, { maxLength: 4 }), record: value },
    ({ record, rules }) => {
      const access = PermissionPolicy.compile({ rules } as PermissionPolicy.Policy).access(alice, "m")
      const granting = (rules as ReadonlyArray<PermissionPolicy.Rule>).filter((each) =>
        each.allow.includes("read") && holds(each, record)
      )
      const visible = Object.fromEntries(
        Object.entries(record).filter(([field]) => granting.some(({ fields }) => fields?.read?.includes(field) ?? true))
      )
      expect(shown(access, record)).toEqual(granting.length === 0 ? undefined : visible)
    }
  )

  it.prop(
    "changes no field that may not be written, and stores only what a rule lets be put",
    { rules: fc.array(rule, { maxLength: 4 }), before: fc.option(value, { nil: undefined }), after: value },
    ({ after, before, rules }) => {
      const puts = (rules as ReadonlyArray<PermissionPolicy.Rule>).filter(({ allow }) => allow.includes("put"))
      const access = PermissionPolicy.compile({ rules } as PermissionPolicy.Policy).access(alice, "m")
      const result = written(access, before, after)
      const onStored = puts.filter((each) => before === undefined || holds(each, before))
      if (result === "refused") {
        if (onStored.length === 0) return
        // What is refused in spite of a rule is so for what would be stored.
        expect(onStored.some((each) => each.where === undefined)).toBe(false)
        return
      }
      expect(onStored).not.toEqual([])
      const onResult = puts.filter((each) => holds(each, result as Fields))
      expect(onResult).not.toEqual([])
      const isNamed = (by: ReadonlyArray<PermissionPolicy.Rule>, field: string) =>
        by.some(({ fields }) => (fields?.write ?? fields?.read)?.includes(field) ?? true)
      for (const field of fieldNames) {
        if (!isNamed(onStored, field) || !isNamed(onResult, field)) {
          expect((result as Fields)[field]).toEqual(before?.[field])
        } else if (Object.hasOwn(after, field)) {
          // Where a rule doesn't hold of all that was written, what it alone names stays as it was.
          const allowed = puts.every((each) => holds(each, after)) ? [after[field]] : [after[field], before?.[field]]
          expect(allowed).toContainEqual((result as Fields)[field])
        }
      }
    }
  )
})

describe("A policy's data", () => {
  const faultsOf = (data: unknown) =>
    Effect.match(PermissionPolicy.decode(data), {
      onFailure: ({ faults }) => faults,
      onSuccess: (): ReadonlyArray<string> => []
    })
  const good = { maps: ["m"], roles: ["user"], allow: ["read"] }

  it.effect("is refused with all that is wrong with it, and where", () =>
    Effect.gen(function*() {
      const faults = yield* faultsOf({
        rules: [good, { ...good, allow: ["red"] }, { ...good, roles: [] }, { ...good, wher: {} }, {
          ...good,
          maps: ["a{b"]
        }],
        statis: []
      })
      for (const place of ["rules.1.allow.0", "rules.2.roles", "rules.3.wher", "rules.4.maps.0", "statis"]) {
        expect(faults.some((fault) => fault.includes(place)), `${place} in ${faults.join("\n")}`).toBe(true)
      }
    }))

  it.effect("is refused with all faults of its regular expressions, and where", () =>
    Effect.gen(function*() {
      const where = (regex: string) => ({ ...good, where: { or: [{ n: { regex } }] } })
      const faults = yield* faultsOf({ rules: [where("a"), where("("), good, where("(?=a)")] })
      expect(faults).toHaveLength(2)
      expect(faults[0]).toContain("rules.1.where: $.or[0].n.regex is not valid")
      expect(faults[1]).toContain("rules.3.where")
    }))

  it.effect.each([
    null,
    [],
    "x",
    {},
    { rules: {} },
    { rules: [{ ...good, maps: [] }] },
    { rules: [{ ...good, maps: [""] }] },
    { rules: [{ ...good, where: { n: { likes: "x" } } }] },
    { rules: [{ ...good, fields: { read: [] } }] },
    { rules: [{ ...good, fields: { see: ["a"] } }] },
    { rules: Array.from({ length: 1_001 }, () => good) },
    { rules: [], blocked: [7] }
  ])("%j is refused", (data) => Effect.map(faultsOf(data), (faults) => expect(faults).not.toEqual([])))

  it.effect("may be read back from JSON", () =>
    Effect.gen(function*() {
      const policy = {
        rules: [{ ...good, where: { owner: { principal: "userId" } }, fields: { read: ["a"] } }],
        status: ["admin"]
      }
      expect(yield* PermissionPolicy.decode(JSON.parse(JSON.stringify(policy)))).toEqual(policy)
    }))
})

describe("A policy's file", () => {
  const withFile = Effect.acquireRelease(
    Effect.sync(() => join(mkdtempSync(join(tmpdir(), "topgun-policy-")), "policy.json")),
    (file) => Effect.sync(() => rmSync(join(file, ".."), { recursive: true }))
  )
  const readsOf = (policies: PermissionPolicy.Policies) => policies.current().access(undefined, "m").reads
  const turn = Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
  /** Looks at the file until something has come of it. */
  const lookUntil = (isDone: () => boolean) =>
    Effect.iterate(0, {
      while: () => !isDone(),
      body: () => Effect.as(Effect.zipRight(TestClock.adjust("1 second"), turn), 0)
    })

  it.scoped("is in force once it has changed, and the one before stays while it is wrong", () => {
    const errors: Array<string> = []
    const logger = Logger.replace(Logger.defaultLogger, Logger.make(({ message }) => errors.push(String(message))))
    return Effect.gen(function*() {
      const file = yield* withFile
      writeFileSync(file, JSON.stringify({ rules: [] }))
      const context = yield* Layer.build(PermissionPolicy.layerFile(file))
      const policies = yield* Effect.provide(PermissionPolicy.PermissionPolicy, context)
      let changes = 0
      policies.observe(() => changes++)
      expect(readsOf(policies)).toBe("nothing")
      writeFileSync(file, `\ufeff${JSON.stringify(PermissionPolicy.everything)}`)
      yield* lookUntil(() => changes === 1)
      expect(readsOf(policies)).toBe("everything")
      writeFileSync(file, "{ \"rules\": ")
      yield* lookUntil(() => errors.some((error) => error.includes("The policy before stays in force")))
      expect([readsOf(policies), changes]).toEqual(["everything", 1])
      writeFileSync(file, JSON.stringify({ rules: [] }))
      yield* lookUntil(() => changes === 2)
      expect(readsOf(policies)).toBe("nothing")
      rmSync(file)
      yield* lookUntil(() => errors.some((error) => error.includes("cannot be read")))
      writeFileSync(file, JSON.stringify(PermissionPolicy.everything))
      yield* lookUntil(() => changes === 3)
      expect(errors.filter((error) => error.includes("cannot be read"))).toHaveLength(1)
    }).pipe(Effect.provide(logger))
  })

  it.scoped("may judge by regular expressions from the first connection on", () =>
    Effect.gen(function*() {
      const file = yield* withFile
      const rule = { maps: ["m"], roles: ["anyone"], allow: ["read"], where: { mail: { regex: "@example\\.org$" } } }
      writeFileSync(file, JSON.stringify({ rules: [rule] }))
      const context = yield* Layer.build(PermissionPolicy.layerFile(file))
      const policies = yield* Effect.provide(PermissionPolicy.PermissionPolicy, context)
      const access = policies.current().access(undefined, "m")
      expect(shown(access, { mail: "a@example.org" })).toEqual({ mail: "a@example.org" })
      expect(shown(access, { mail: "a@example.organic" })).toBeUndefined()
    }))

  it.scoped("that isn't there, is a directory or no policy keeps the server from starting, and says why", () =>
    Effect.gen(function*() {
      const file = yield* withFile
      for (const [path, content] of [[file], [join(file, "..")], [file, "no JSON"], [file, "{}"]] as const) {
        if (content !== undefined) writeFileSync(path, content)
        const exit = yield* Effect.exit(Layer.build(PermissionPolicy.layerFile(path)))
        expect(Exit.isFailure(exit) && exit.cause._tag === "Fail" && exit.cause.error).toBeInstanceOf(ConfigInvalid)
      }
    }))
})
