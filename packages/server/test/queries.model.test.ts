/**
 * What live queries show, version by version, against the plain way: all records, as their reader may read them, tested, put in order and
 * cut. Whatever is written, by whom, removed, expired, decided by a resolver, granted and revoked, asked, closed, shared, and read late.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Grid from "@topgun/core/Grid"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as Predicate from "@topgun/core/Predicate"
import * as Protocol from "@topgun/core/Protocol"
import * as Query from "@topgun/core/Query"
import { makeDrain, makePair, type ServerConnection } from "@topgun/core/Transport"
import * as Value from "@topgun/core/Value"
import type { Access } from "@topgun/server/Access"
import * as Authentication from "@topgun/server/Authentication"
import * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as Resolvers from "@topgun/server/Resolvers"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"
import * as fc from "fast-check"
import { isDeepStrictEqual } from "node:util"
import { authAnew, openMap, settled } from "./PlainClient.ts"

const map = "notes"
const keys = [..."abcdefgh"]

// --- Policies ---

type Rules = PermissionPolicy.Policy["rules"]
const owned = { owner: { principal: "userId" } }
const rule = (rest: Partial<PermissionPolicy.Rule>): PermissionPolicy.Rule => ({
  maps: [map],
  roles: ["user"],
  allow: ["read", "put", "remove"],
  ...rest
})
const write = rule({ allow: ["put", "remove"] })
/** Some are alike in form, and show something else. */
const policies: ReadonlyArray<Rules> = [
  [rule({})],
  [rule({ where: owned })],
  [rule({ where: { open: true } })],
  [write, rule({ allow: ["read"], where: { open: true }, fields: { read: ["owner", "open", "n"] } })],
  [write, rule({ allow: ["read"], where: { open: true }, fields: { read: ["owner", "secret"] } })],
  [
    write,
    rule({ allow: ["read"], where: owned }),
    rule({ allow: ["read"], where: { open: true }, fields: { read: ["open", "n"] } })
  ],
  [write, rule({ allow: ["read"], where: { or: [owned, { owner: { in: { principal: "roles" } } }] } })],
  [write]
].map((rules) => [rule({ roles: ["root"] })].concat(rules))

const principalOf = (token: string): Authentication.Principal => {
  const [userId, ...roles] = token.split(" ") as [string, ...Array<string>]
  return { userId, roles: userId === "root" ? ["root"] : roles }
}

const indexes = [
  [],
  ["owner"],
  ["n", { fields: ["owner", "n"] }],
  [{ fields: ["open"], kind: "hash" }, { fields: ["n", "owner"] }]
] as const satisfies ReadonlyArray<Grid.QueryOptions<unknown>["indexes"]>

const layerOf = (world: World) =>
  Layer.provideMerge(
    TopGunServer.layerInProcess({
      auth: "token",
      grid: [Grid.map(map, undefined, { indexes: indexes[world.indexes]! })]
    }),
    Layer.mergeAll(
      PermissionPolicy.layer({ rules: policies[0]! }),
      Authentication.layerVerifier((token) => Effect.succeed(principalOf(token))),
      world.isResolved ? Resolvers.layer([{ maps: map, resolve: Resolvers.numericMax({ field: "n" }) }]) : Layer.empty
    )
  )

// --- The plain way ---

type Records = ReadonlyMap<string, LwwRecord.LwwRecord>

const evaluate = (records: Records, access: Access, query: Query.Query) => {
  const test = query.where === undefined ? () => true : Predicate.compile(query.where)
  const { compare, sortOf } = Query.ordering(query.orderBy)
  const after = Query.positionOf(query)
  const rows = Array.from(records)
    .flatMap(([key, record]) => record.isTombstone ? [] : [[key, Value.decode(record.valueBytes)] as const])
    .map(([key, value]) => [key, access.showValue(value)] as const)
    .filter(([, shown]) => shown !== undefined && test(shown) === true)
    .map(([key, value]) => ({ key, value, sort: sortOf(value) }))
    .filter((row) => after === undefined || compare(row, after) > 0)
    .sort(compare)
  const select = Query.selector(query.select === undefined ? undefined : [...query.select, ...Query.fieldsOf(query)])
  return {
    rows: Object.fromEntries(
      rows.slice(0, query.limit).sort((a, b) => a.key < b.key ? -1 : 1).map(({ key, value }) => [key, select(value)])
    ),
    hasMore: query.limit !== undefined && rows.length > query.limit
  }
}

// --- Who asks ---

/** A query by its number: what was told of it last, and what was told of a version that isn't told to its end. */
interface Told {
  version: number
  hasMore: boolean
  rows: Map<string, unknown>
  coming: { readonly version: number; readonly after: number; readonly rows: Map<string, unknown> } | undefined
}

interface Open {
  readonly query: Query.Query
  number: number | undefined
  fault: string | undefined
  /** What it was to be refused for, or ended: that is for good. */
  foreseen: string | undefined
}

type OnVersion = (open: Open, told: Told) => void

/** Hears what is told, and hands over each version. */
class Session {
  readonly user: string
  readonly open = new Map<number, Open>()
  readonly told = new Map<number, Told>()
  readonly faults: Array<unknown> = []
  readonly send: (...messages: ReadonlyArray<Protocol.ClientMessage>) => void
  readonly close: () => void
  readonly #onVersion: OnVersion
  readonly #drain: { readonly left: () => void }
  isIn = false
  pongs = 0
  readonly #used = new Set<number>()
  #unread = 0
  #isDeaf = false

  constructor(
    accept: TopGunServer.TopGunServer["Type"]["accept"],
    user: string,
    token: string,
    onVersion: OnVersion
  ) {
    this.user = user
    this.#onVersion = onVersion
    const [mine, theirs] = makePair()
    const drain = makeDrain(() => this.#unread)
    this.#drain = drain
    const served: ServerConnection = {
      ...theirs,
      send: (frame) => {
        if (this.#isDeaf) this.#unread += frame.length
        theirs.send(frame)
      },
      bufferedBytes: () => this.#unread,
      whenDrained: drain.whenDrained
    }
    accept(served)
    this.send = (...messages) => mine.send(Protocol.frame(messages.map(Protocol.encode)))
    this.close = () => mine.close(1000, "")
    mine.listen((frame) => {
      for (const message of Protocol.decodeFromServer(frame)) this.#hear(message)
    }, ({ code }) => {
      if (code !== 1000) this.faults.push(`closed with ${code}`)
    })
    this.send({ ...authAnew(), token })
  }

  /** From now on the server believes that nothing is read, and that so much is there already. */
  deafen(): void {
    this.#isDeaf = true
    this.#unread = 256 * 1024 + 1
  }

  listenAgain(): void {
    this.#isDeaf = false
    this.#unread = 0
    this.#drain.left()
  }

  ask(id: number, query: Query.Query): void {
    this.#used.add(id)
    this.open.set(id, { query, number: undefined, fault: undefined, foreseen: undefined })
    this.send({ _tag: "QueryOpen", id, map, query: Value.encode(query) })
  }

  isUsed(id: number): boolean {
    return this.#used.has(id)
  }

  leave(id: number): void {
    this.open.delete(id)
    this.send({ _tag: "QueryClose", id })
  }

  #hear(message: Protocol.ServerMessage): void {
    if (message._tag === "AuthAck") this.isIn = true
    if (message._tag === "Pong") this.pongs++
    if (message._tag === "Fault") {
      if (!["PermissionDenied", "QueryInvalid"].includes(message.cause)) this.faults.push(message)
      // It may be of one that was left, and crosses the word of it.
      const open = this.open.get(message.id ?? -1)
      if (open !== undefined) open.fault = message.cause
    }
    if (message._tag === "QueryAck") {
      const open = this.open.get(message.id)
      if (open !== undefined) open.number = message.query
      if (!this.told.has(message.query)) {
        this.told.set(message.query, { version: 0, hasMore: false, rows: new Map(), coming: undefined })
      }
    }
    if (message._tag !== "QueryRows") return
    const told = this.told.get(message.query)
    if (told === undefined) return void this.faults.push(["a query that nobody asked", message])
    const { after, hasMore, isLast, left, records, version } = message
    if (after !== 0 && after !== told.version) this.faults.push([`after ${told.version}`, message])
    if (told.coming?.version !== version || told.coming.after !== after) {
      told.coming = { version, after, rows: new Map(after === 0 ? [] : told.rows) }
    }
    const { rows } = told.coming
    for (const key of left) rows.delete(key)
    for (const [key, row] of records) rows.set(key, Value.decode(LwwRecord.decode(row).valueBytes))
    if (!isLast) return
    Object.assign(told, { version, hasMore, rows, coming: undefined })
    if (this.#isDeaf) return
    for (const open of this.open.values()) if (open.number === message.query) this.#onVersion(open, told)
  }
}

// --- Whatever may happen ---

const users = ["root", "alice", "carol"] as const
/** Who the sessions are of: one user has two. */
const sessionsOf = ["root", "alice", "alice", "carol"] as const
const record = fc.record({
  owner: fc.constantFrom("alice", "carol"),
  open: fc.boolean(),
  n: fc.nat(3),
  secret: fc.constantFrom("s", "t")
}, { requiredKeys: ["owner"] })
const op = fc.record({
  key: fc.constantFrom(...keys),
  value: fc.option(record, { freq: 4, nil: undefined }),
  skew: fc.constantFrom(0, 0, 0, -5, 30_000),
  livesMillis: fc.constantFrom(0, 0, 0, 50, 150)
})
const where = fc.constantFrom<Predicate.Predicate | undefined>(
  undefined,
  { n: { gt: 0 } },
  { owner: "alice" },
  { open: true },
  { owner: "carol", n: { lt: 3 } },
  { or: [{ owner: "alice" }, { n: 1 }] },
  { n: { in: [0, 2] } },
  { not: { owner: "alice" } },
  { owner: { like: "a%" } },
  { owner: { regex: "^c" } },
  { secret: "s" }
)
const order = fc.record({
  field: fc.constantFrom("n", "owner", "open", "secret"),
  direction: fc.constantFrom<Query.Direction>("asc", "desc")
})
const query: fc.Arbitrary<Query.Query> = fc.record({
  where,
  orderBy: fc.option(fc.uniqueArray(order, { minLength: 1, maxLength: 2, selector: ({ field }) => field }), {
    nil: undefined
  }),
  limit: fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
  select: fc.option(fc.constantFrom(["n"], ["owner", "secret"]), { nil: undefined, freq: 3 }),
  after: fc.option(fc.tuple(fc.constantFrom(...keys), record), { nil: undefined, freq: 3 })
}).map(({ after, ...given }) => {
  const asked = Query.parse(given)
  if (after === undefined) return asked
  const [key, value] = after
  const cursor = Query.cursorOf(asked, { key, sort: Query.ordering(asked.orderBy).sortOf(value) })
  return Query.parse({ ...given, cursor })
})
const session = fc.nat(sessionsOf.length - 1)
const step = fc.oneof(
  {
    arbitrary: fc.record({
      does: fc.constant("write" as const),
      user: fc.constantFrom(...users),
      ops: fc.array(op, { minLength: 1, maxLength: 5, size: "max" }),
      isAtomic: fc.boolean()
    }),
    weight: 8
  },
  { arbitrary: fc.record({ does: fc.constant("ask" as const), session, id: fc.nat(4), query }), weight: 5 },
  fc.record({ does: fc.constant("ask as another" as const), session, id: fc.nat(4) }),
  fc.record({ does: fc.constant("leave" as const), session, id: fc.nat(4) }),
  fc.record({ does: fc.constant("policy" as const), policy: fc.nat(policies.length - 1) }),
  fc.record({ does: fc.constant("renew" as const), session, roles: fc.constantFrom("", " carol", " alice") }),
  fc.record({ does: fc.constantFrom("reconnect" as const, "deafen" as const), session }),
  fc.record({ does: fc.constant("wait" as const), millis: fc.constantFrom(20, 100) }),
  { arbitrary: fc.record({ does: fc.constant("turn" as const) }), weight: 4 },
  { arbitrary: fc.record({ does: fc.constant("compare" as const) }), weight: 2 }
)
type Step = (typeof step) extends fc.Arbitrary<infer A> ? A : never
interface World {
  readonly steps: ReadonlyArray<Step>
  readonly indexes: number
  readonly isResolved: boolean
  /** Records of nobody, and in no order: with some it takes several turns to find anything. */
  readonly others: number
}
const world = (lengthMax: number, others: number): fc.Arbitrary<World> =>
  fc.record({
    steps: fc.array(step, { minLength: 1, maxLength: lengthMax, size: "max" }),
    indexes: fc.nat(indexes.length - 1),
    isResolved: fc.boolean(),
    others: fc.constant(others)
  })

const run = (given: World) =>
  Effect.gen(function*() {
    const { accept } = yield* TopGunServer.TopGunServer
    const server = yield* PermissionPolicy.PermissionPolicy
    let rules = policies[0]!
    let made = 0
    let sequence = 0
    let now = 0

    // --- The truth: what one who reads everything is told by synchronising ---

    let records: Records = new Map()
    /** All that it has been since versions were looked at last: which comes first of what is told to two is nobody's promise. */
    let states: Array<Records> = [records]
    /** Looks at a version that was told since. */
    let tellings: Array<() => void> = []
    const [mine, theirs] = makePair()
    accept(theirs)
    mine.listen((frame) => {
      for (const message of Protocol.decodeFromServer(frame)) {
        if (message._tag !== "ServerEvent") continue
        records = new Map([
          ...records,
          ...message.records.map(([key, row]) => [key, LwwRecord.decode(row)] as const)
        ])
        states.push(records)
      }
    }, () => {})
    const tell = (...messages: ReadonlyArray<Protocol.ClientMessage>) =>
      mine.send(Protocol.frame(messages.map(Protocol.encode)))
    tell({ ...authAnew(), token: "root" })
    yield* settled
    tell(openMap(map))
    yield* settled

    const tokens = sessionsOf.map((user): string => user)
    const accessOf = (at: number) => PermissionPolicy.compile({ rules }).access(principalOf(tokens[at]!), map)
    const hasExpired = (): boolean =>
      states.some((then) => Array.from(then.values()).some(({ expiresAt }) => expiresAt !== 0 && expiresAt <= now))
    const check = (
      at: number,
      { query: asked }: Open,
      { hasMore, rows }: Pick<Told, "hasMore" | "rows">,
      thens: ReadonlyArray<Records>
    ): void => {
      const shown = { rows: Object.fromEntries(Array.from(rows).sort(([a], [b]) => a < b ? -1 : 1)), hasMore }
      const finds = (then: Records) => evaluate(then, accessOf(at), asked)
      if (!thens.some((then) => isDeepStrictEqual(shown, finds(then)))) expect(shown).toEqual(finds(records))
    }
    const examine = (): void => {
      for (const telling of tellings) telling()
      tellings = []
      states = [records]
    }
    const sessions: Array<Session> = []
    const deaf = new Set<number>()
    const enter = (at: number) =>
      Effect.gen(function*() {
        deaf.delete(at)
        const entering = sessions[at] = new Session(accept, sessionsOf[at]!, tokens[at]!, (open, told) => {
          const { hasMore, rows } = told
          // Until it is swept it may be there or not.
          tellings.push(() => {
            if (!hasExpired()) check(at, open, { hasMore, rows }, states)
          })
        })
        while (!entering.isIn) yield* settled
      })
    const writeAs = (user: string, ops: ReadonlyArray<readonly [string, Uint8Array]>, isAtomic: boolean) => {
      const at = sessionsOf.findIndex((each) => each === user)
      const tuples = ops.map(([key, row]) => [sequence++, key, row] as const)
      sessions[at]!.send({
        _tag: "OpBatch",
        map,
        kind: "lww",
        concern: "APPLIED",
        atomic: isAtomic ? "end" : "no",
        ops: tuples
      })
    }
    /** All that was sent has been taken in. */
    const heard = Effect.gen(function*() {
      for (const [at, each] of sessions.entries()) {
        if (deaf.has(at)) continue
        const { pongs } = each
        each.send({ _tag: "Ping", id: 1 })
        while (each.pongs === pongs) yield* settled
      }
      yield* settled
      examine()
    })
    const listen = (at: number): void => {
      if (deaf.delete(at)) sessions[at]!.listenAgain()
    }
    const ask = Effect.fnUntraced(function*(at: number, id: number, asked: Query.Query) {
      listen(at)
      // What is told of the query that has had the id until now must be told from what is told of this one.
      if (sessions[at]!.isUsed(id)) yield* heard
      sessions[at]!.ask(id, asked)
    })
    const foresee = (): void => {
      for (const [at, { open }] of sessions.entries()) {
        const access = accessOf(at)
        for (const each of open.values()) {
          const isHidden = Query.placesOf(each.query).some(({ names }) =>
            access.readableFields?.has(names[0]!) === false
          )
          each.foreseen ??= access.reads === "nothing" ? "PermissionDenied" : isHidden ? "QueryInvalid" : undefined
        }
      }
    }
    const compare = Effect.gen(function*() {
      yield* heard
      for (const at of sessions.keys()) listen(at)
      yield* heard
      foresee()
      // What has expired is swept, a second's worth at a time.
      for (let round = 0; round < 5 && hasExpired(); round++) {
        yield* heard
        now += 1_000
        yield* TestClock.adjust(1_000)
        yield* settled
      }
      for (let turn = 0; turn < 8 + given.others / 100; turn++) yield* settled
      expect(hasExpired()).toBe(false)
      for (const [at, each] of sessions.entries()) {
        expect(each.faults, each.user).toEqual([])
        for (const open of each.open.values()) {
          expect({ fault: open.fault, query: open.query }).toEqual({ fault: open.foreseen, query: open.query })
          if (open.fault !== undefined) continue
          const told = each.told.get(open.number!)!
          expect(told.version).toBeGreaterThan(0)
          check(at, open, told, [records])
        }
      }
    })

    for (const at of sessionsOf.keys()) yield* enter(at)
    const fill = Array.from({ length: given.others }, (_, i) => ({
      key: `other ${i}`,
      row: LwwRecord.put({ millis: 1, counter: i, nodeId: "root000000000000" }, Value.encode({ n: i % 7 })).row
    }))
    for (let at = 0; at < fill.length; at += 500) {
      writeAs("root", fill.slice(at, at + 500).map(({ key, row }) => [key, row]), false)
      while (records.size < Math.min(at + 500, fill.length)) yield* settled
    }
    for (const each of given.steps) {
      switch (each.does) {
        case "write":
          writeAs(
            each.user,
            each.ops.map(({ key, livesMillis, skew, value }) => {
              const nodeId = `${each.user}0000000000000000`.slice(0, 16)
              const stamp = { millis: 1_000 + now + skew, counter: made++, nodeId }
              const { row } = value === undefined
                ? LwwRecord.remove(stamp)
                : LwwRecord.put(stamp, Value.encode(value), livesMillis === 0 ? 0 : now + livesMillis)
              return [key, row]
            }),
            each.isAtomic
          )
          break
        case "ask":
          yield* ask(each.session, each.id, each.query)
          break
        case "ask as another": {
          const other = sessions.flatMap(({ open }) => Array.from(open.values()))[0]
          if (other !== undefined) yield* ask(each.session, each.id, other.query)
          break
        }
        case "leave":
          sessions[each.session]!.leave(each.id)
          break
        case "policy":
          yield* heard
          foresee()
          rules = policies[each.policy]!
          yield* server.replace({ rules })
          foresee()
          break
        case "renew":
          listen(each.session)
          yield* heard
          foresee()
          tokens[each.session] = `${sessionsOf[each.session]!}${sessionsOf[each.session] === "root" ? "" : each.roles}`
          sessions[each.session]!.send({ _tag: "AuthRenew", id: 1_000, token: tokens[each.session]! })
          yield* heard
          foresee()
          break
        case "reconnect":
          sessions[each.session]!.close()
          yield* enter(each.session)
          break
        case "deafen":
          deaf.add(each.session)
          sessions[each.session]!.deafen()
          break
        case "wait":
          yield* heard
          now += each.millis
          yield* TestClock.adjust(each.millis)
          break
        case "turn":
          yield* settled
          break
        case "compare":
          yield* compare
      }
    }
    yield* compare
  }).pipe(Effect.provide(Layer.fresh(layerOf(given))))

describe("Whatever is written, granted, asked and read late, a live query shows at every version what a fresh one finds", () => {
  it.effect.prop(
    "in a small map",
    [world(40, 0)],
    ([given]) => run(given),
    { fastCheck: { numRuns: 100 } }
  )

  it.effect.prop(
    "in one where it takes several turns to find it",
    [world(25, 2_500)],
    ([given]) => run(given),
    { fastCheck: { numRuns: 10 } }
  )
})
