/** Full-text search on the wire: who finds what, with which scores. Tokens say who it is and which roles he has: `ann user`. */
import { assert, describe, it } from "@effect/vitest"
import { FullTextIndex } from "@topgun/core/FullText"
import * as Grid from "@topgun/core/Grid"
import { ConfigInvalid } from "@topgun/core/GridError"
import { load } from "@topgun/core/Languages"
import * as LwwRecord from "@topgun/core/LwwRecord"
import type * as Protocol from "@topgun/core/Protocol"
import { makePair } from "@topgun/core/Transport"
import * as Value from "@topgun/core/Value"
import * as Authentication from "@topgun/server/Authentication"
import * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { authAnew, batch, make, type PlainClient, put, removal } from "./PlainClient.ts"

const Notes = Grid.map("notes", undefined, { search: { fields: { title: 2, text: 1 }, language: "english" } })
const options = { fields: { title: 2, text: 1 }, language: "english" as const }

const policy: PermissionPolicy.Policy = {
  rules: [
    { maps: ["*"], roles: ["admin"], allow: ["read", "put", "remove"] },
    { maps: ["notes"], roles: ["user"], allow: ["read"], where: { owner: { principal: "userId" } } },
    { maps: ["notes"], roles: ["clerk"], allow: ["read"], fields: { read: ["title"] } },
    // Of some records all, of the others the title.
    { maps: ["notes"], roles: ["aide"], allow: ["read"], where: { owner: { principal: "userId" } } },
    { maps: ["notes"], roles: ["aide"], allow: ["read"], fields: { read: ["title", "owner"] } }
  ]
}

const layer = Layer.provideMerge(
  TopGunServer.layerInProcess({ auth: "token", grid: [Notes] }),
  Layer.merge(
    PermissionPolicy.layer(policy),
    Authentication.layerVerifier((token) => {
      const [userId, role] = token.split(" ") as [string, string]
      return Effect.succeed({ userId, roles: [role] })
    })
  )
)

const enter = Effect.fnUntraced(function*(token: string) {
  const { accept } = yield* TopGunServer.TopGunServer
  const [mine, theirs] = makePair()
  accept(theirs)
  const client = make(mine)
  yield* client.send({ ...authAnew(), token })
  yield* client.take("AuthAck")
  return client
})

let sequence = 0
const write = (client: PlainClient, records: Readonly<Record<string, unknown>>, millis = 1_000) => {
  const ops = Object.entries(records).map(([key, value]) =>
    [key, value === undefined ? removal(millis) : put(value, millis)] as const
  )
  const first = sequence
  sequence += ops.length
  return Effect.zipRight(client.send(batch("notes", "APPLIED", first, ops)), client.take("OpAck"))
}

const ask = (client: PlainClient, query: unknown, id = 1) =>
  client.send({ _tag: "QueryOpen", id, map: "notes", query: Value.encode(query) })

/** The next version's rows, with their scores, and the keys of those that went. */
const next = (client: PlainClient) =>
  Effect.map(client.take("QueryRows"), ({ left, records, scores }: typeof Protocol.QueryRows.Type) => {
    const view = new DataView(scores!.buffer, scores!.byteOffset, scores!.byteLength)
    return {
      rows: new Map(records.map(([key, row], i) => [
        key,
        { value: Value.decode(LwwRecord.fromTrusted(row).valueBytes), score: view.getFloat64(i * 8) }
      ])),
      left
    }
  })

const notes = {
  a: { owner: "ann", title: "Feeding cats", text: "twice a day" },
  b: { owner: "ann", title: "Dogs", text: "walk, walk, and no cat" },
  c: { owner: "bob", title: "A cat", text: "cat cat cat" },
  d: { owner: "bob", title: "Bread", text: "flour" }
}
const ofAnn = { a: notes.a, b: notes.b }

/** What an index of these records, and of no others, finds. */
const found = Effect.fnUntraced(
  function*(records: Readonly<Record<string, unknown>>, text: string, fields?: ReadonlyArray<string>) {
    const index = new FullTextIndex(options, yield* Effect.promise(() => load("english")))
    for (const [key, value] of Object.entries(records)) index.set(key, value)
    return new Map(index.search(text, { fields }).map(({ key, score }) => [key, score]))
  }
)

const scoresOf = (rows: ReadonlyMap<string, { readonly score: number }>) =>
  new Map(Array.from(rows, ([key, { score }]) => [key, score] as const))

describe("A live search", () => {
  it.effect("finds words with the scores of an index, and follows what comes, changes and goes", () =>
    Effect.gen(function*() {
      const admin = yield* enter("root admin")
      yield* write(admin, notes)
      yield* ask(admin, { search: "cats" })
      yield* admin.take("QueryAck")
      assert.deepStrictEqual(scoresOf((yield* next(admin)).rows), yield* found(notes, "cats"))
      const after = {
        a: { ...notes.a, title: "Feeding" },
        c: notes.c,
        d: notes.d,
        e: { owner: "bob", title: "Catering for a cat", text: "" }
      }
      yield* write(admin, { a: after.a, b: undefined, e: after.e }, 2_000)
      const { left, rows } = yield* next(admin)
      assert.deepStrictEqual(left, ["a", "b"])
      assert.deepStrictEqual(scoresOf(rows), yield* found(after, "cats"))
    }).pipe(Effect.provide(layer)))

  it.effect("has the scores of the records that its user may read, whatever others there are", () =>
    Effect.gen(function*() {
      const admin = yield* enter("root admin")
      const ann = yield* enter("ann user")
      yield* write(admin, notes)
      yield* ask(ann, { search: "cat" })
      yield* ann.take("QueryAck")
      assert.deepStrictEqual(scoresOf((yield* next(ann)).rows), yield* found(ofAnn, "cat"))
      // What she may not read changes nothing that she is told.
      yield* write(admin, { c: undefined, f: { owner: "bob", title: "cat cat", text: "" } }, 2_000)
      yield* write(admin, { g: { owner: "ann", title: "Bread", text: "for cats" } }, 2_000)
      assert.deepStrictEqual(
        scoresOf((yield* next(ann)).rows),
        yield* found({ ...ofAnn, g: { owner: "ann", title: "Bread", text: "for cats" } }, "cat")
      )
      yield* write(admin, { a: { ...notes.a, owner: "bob" } }, 3_000)
      assert.deepStrictEqual((yield* next(ann)).left, ["a"])
      assert.strictEqual(ann.untaken("QueryRows"), 0)
    }).pipe(Effect.provide(layer)))

  it.effect("looks into fields only that may be read wherever anything may", () =>
    Effect.gen(function*() {
      const admin = yield* enter("root admin")
      yield* write(admin, notes)
      for (const [token, hidden] of [["carl clerk", "text"], ["ann aide", "text"]] as const) {
        const reader = yield* enter(token)
        yield* ask(reader, { search: "cat" })
        yield* reader.take("QueryAck")
        const { rows } = yield* next(reader)
        assert.deepStrictEqual(scoresOf(rows), yield* found(notes, "cat", ["title"]))
        yield* ask(reader, { search: { text: "cat", fields: ["title", hidden] } }, 2)
        const refusal = yield* reader.take("Fault")
        assert.strictEqual(refusal.id, 2)
        assert.strictEqual(refusal.cause, "QueryInvalid")
        assert.include(refusal.reason, "$.search.fields[1]")
      }
    }).pipe(Effect.provide(layer)))

  it.effect("is refused where nothing is searched, and where there is too much to look for", () =>
    Effect.gen(function*() {
      const admin = yield* enter("root admin")
      yield* admin.send({ _tag: "QueryOpen", id: 1, map: "others", query: Value.encode({ search: "x" }) })
      assert.include((yield* admin.take("Fault")).reason, "the map isn't searched")
      yield* ask(admin, { search: Array.from({ length: 33 }, (_, n) => `w${n}`).join(" ") }, 2)
      assert.strictEqual((yield* admin.take("Fault")).cause, "QueryTooExpensive")
    }).pipe(Effect.provide(layer)))
})

describe("A server", () => {
  it.scoped("doesn't start with a language that there isn't", () =>
    Effect.gen(function*() {
      const Wrong = Grid.map("notes", undefined, { search: { fields: { text: 1 }, language: "klingon" } })
      const fault = yield* Effect.flip(Layer.build(TopGunServer.layerInProcess({ grid: [Wrong] })))
      assert.instanceOf(fault, ConfigInvalid)
      assert.match(fault.message, /map "notes" is searched in klingon, which isn't one of .*english/)
    }))
})
