/**
 * Open queries against plain evaluation, whatever happens: writes here and elsewhere, lifetimes, cuts, refusals, other permissions, servers
 * that lose everything. `TOPGUN_MODEL_SEEDS=500` makes more runs, from `TOPGUN_MODEL_FROM` on, and `TOPGUN_MODEL_SEED=17` one.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Grid from "@topgun/core/Grid"
import * as Predicate from "@topgun/core/Predicate"
import type * as Query from "@topgun/core/Query"
import * as Authentication from "@topgun/server/Authentication"
import * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as queries from "@topgun/testing/queries"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as SimulatedTabs from "@topgun/testing/SimulatedTabs"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import type { QueryState } from "../src/QueryTypes.ts"
import { inWorld, isSettled } from "./worlds.ts"

type Fields = Readonly<Record<string, unknown>>

const keys = ["a", "b", "c", "d", "e"]
/** What alice may read, and write, of both maps: everything, some of it, or nothing. */
const grants = ["everything", "part", "nothing"] as const
type Grant = (typeof grants)[number]
const part: Predicate.Predicate = { n: { in: [0, 1] } }
const isInPart = Predicate.compile(part)

const rulesOf = (grant: Grant): PermissionPolicy.Policy["rules"] => {
  const root: PermissionPolicy.Rule = { maps: ["*"], roles: ["root"], allow: ["read", "put", "remove"] }
  const alice: PermissionPolicy.Rule = { maps: ["*"], roles: ["user"], allow: ["read", "put", "remove"] }
  return grant === "everything" ? [root, alice] : grant === "part" ? [root, { ...alice, where: part }] : [root]
}

const rowsOf = ({ rows }: { readonly rows: ReadonlyArray<{ readonly key: string; readonly value: unknown }> }) =>
  rows.map(({ key, value }) => [key, value])

/** How often something happened that a run has to show to prove anything. */
type Sightings = Record<string, number>

const run = (seed: number, sightings: Sightings) =>
  Effect.gen(function*() {
    const clock = yield* VirtualClock.VirtualClock
    const network = yield* Network.SimulatedNetwork
    const saw = (what: string): void => {
      sightings[what] = (sightings[what] ?? 0) + 1
    }
    const sample = <A>(arbitrary: FastCheck.Arbitrary<A>, count: number): Array<A> =>
      FastCheck.sample(arbitrary, { seed: seed * 31 + 7, numRuns: count })
    const values: Array<Fields> = sample(queries.value, 40)
    const asked: Array<Query.Query> = sample(queries.query, 4)

    let grant: Grant = "everything"
    const context = yield* Layer.build(PermissionPolicy.layer({ rules: rulesOf(grant) }))
    const policies = Context.get(context, PermissionPolicy.PermissionPolicy)
    const verify = Authentication.layerVerifier((userId) =>
      Effect.succeed({ userId, roles: [userId === "root" ? "root" : "user"] })
    )
    const serve = World.serve(
      TopGunServer.layerInProcess({ auth: "token" }).pipe(
        Layer.provide(Layer.merge(verify, Layer.succeedContext(context)))
      )
    )
    let server = yield* serve

    const Logs = Grid.map("logs", undefined, { sync: "none", indexes: ["n"] })
    const Notes = Grid.map("notes", undefined, { indexes: ["n", { fields: "tags", kind: "inverted" }] })
    const root = yield* World.startClient("root", { auth: "root" })
    const browser = SimulatedTabs.make()
    const isTabbed = seed % 4 === 0
    const openTab = Effect.fnUntraced(function*(name: string) {
      const { storage, tabs } = browser.open()
      const options = { auth: "alice", grid: [Notes] }
      const starting = isTabbed
        ? World.startClient(name, { ...options, tabs }, storage, "alice")
        : World.startClient(name, options)
      const fiber = yield* Effect.fork(starting)
      yield* clock.runUntil(() => fiber.unsafePoll() !== null)
      return yield* Fiber.join(fiber)
    })
    const alice = yield* openTab("alice")
    /** Another tab, which has it all by way of the first. */
    const follower = isTabbed ? yield* openTab("follower") : undefined
    const theirs = { logs: yield* root.map<unknown>("logs"), notes: yield* root.map<unknown>("notes") }
    const own = { logs: yield* alice.map(Logs), notes: yield* alice.map(Notes) }
    const ofNotes = yield* Effect.forEach(asked, (query) => alice.query(Notes, query as object))
    const ofLogs = yield* Effect.forEach(asked, (query) => alice.query(Logs, query as object))
    const ofFollower = follower === undefined
      ? []
      : yield* Effect.forEach(asked, (query) => follower.query(Logs, query as object))

    const followers = follower === undefined
      ? own
      : { logs: yield* follower.map(Logs), notes: yield* follower.map(Notes) }

    const ofLocal = (): ReadonlyMap<string, unknown> => new Map(own.notes.entries())
    const lookHere = (): void => {
      asked.forEach((query, i) => {
        const expected = queries.evaluate(ofLocal(), query)
        const { current } = ofNotes[i]!
        expect(rowsOf(current)).toEqual(rowsOf(expected))
        expect(current.hasMore).toBe(expected.hasMore)
      })
    }
    /** What is written here shows at once: of queries without a border, in the rows. */
    const lookAt = (handles: typeof ofLogs, key: string, value: unknown): void => {
      asked.forEach(({ cursor, limit, where }, i) => {
        if (limit !== undefined || cursor !== undefined) return
        const isFound = value !== undefined && (where === undefined || Predicate.compile(where)(value) === true)
        const row = handles[i]!.current.rows.find((each) => each.key === key)
        expect([key, row?.value]).toEqual([key, isFound ? value : undefined])
      })
    }
    const write = Effect.gen(function*() {
      const isHere = yield* Random.nextBoolean
      const map = (yield* Random.nextBoolean) ? "logs" : "notes"
      const key = keys[yield* Random.nextIntBetween(0, keys.length)]!
      const value = values[yield* Random.nextIntBetween(0, values.length)]!
      const kind = yield* Random.nextIntBetween(0, 8)
      const written = kind === 0 ? undefined : value
      const options = kind === 1 ? { ttlMs: 4_000 } : {}
      const isFollowers = isHere && ofFollower.length > 0 && (yield* Random.nextBoolean)
      const handle = isFollowers ? followers[map] : isHere ? own[map] : theirs[map]
      yield* Effect.fork(written === undefined ? handle.remove(key) : handle.set(key, written, options))
      yield* Effect.yieldNow()
      if (isHere && map === "logs") lookAt(isFollowers ? ofFollower : ofLogs, key, written)
    })

    const step = Effect.gen(function*() {
      const what = yield* Random.nextIntBetween(0, 20)
      if (what === 0) {
        network.cut("alice")
        saw("cuts")
      } else if (what === 1) network.heal("alice")
      else if (what === 2) {
        network.reset("alice")
        saw("resets")
      } else if (what === 3) {
        grant = grants[yield* Random.nextIntBetween(0, grants.length)]!
        yield* policies.replace({ rules: rulesOf(grant) })
        saw(`grants of ${grant}`)
      } else if (what === 4 && (yield* Random.nextIntBetween(0, 4)) === 0) {
        yield* server.stop
        server = yield* serve
        saw("servers that lost everything")
      } else if (what < 9) yield* clock.advance(yield* Random.nextIntBetween(0, 300))
      else yield* write
    })

    const settle = Effect.gen(function*() {
      network.heal()
      yield* clock.runUntil(() => isSettled(root) && isSettled(alice), { within: "10 minutes" })
      yield* clock.advance(60_000)
    })
    const close = Effect.gen(function*() {
      // Tabs say goodbye to each other, which may take time.
      const fiber = yield* Effect.fork(Effect.forEach([follower, alice], (client) => client?.close ?? Effect.void))
      yield* clock.runUntil(() => fiber.unsafePoll() !== null)
    })

    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 40; i++) {
        yield* step
        lookHere()
      }
      yield* settle
      lookHere()
      const readable = new Map(
        Array.from(theirs.logs.entries()).filter(([, value]) => grant === "everything" || isInPart(value) === true)
      )
      asked.forEach((query, i) => {
        const current: QueryState<unknown> = ofLogs[i]!.current
        if (follower !== undefined) {
          expect(ofFollower[i]!.current).toEqual({ ...current, error: ofFollower[i]!.current.error })
          saw("followers")
        }
        if (grant === "nothing") {
          expect(current).toMatchObject({ status: "error", isComplete: false, error: { _tag: "PermissionDenied" } })
          return
        }
        const expected = queries.evaluate(readable, query)
        expect(rowsOf(current)).toEqual(rowsOf(expected))
        expect(current).toMatchObject({ status: "ready", isComplete: true, hasMore: expected.hasMore })
        if (expected.rows.length > 0) saw("rows of the server's")
      })
      if (alice.rejectedWrites.current.length > 0) saw("writes that were refused")
    }
    yield* close
  }).pipe(
    Effect.scoped,
    Effect.withRandom(Random.make(seed)),
    inWorld(seed),
    Effect.mapErrorCause((cause) => Cause.die(new Error(`seed ${seed}: ${Cause.pretty(cause)}`)))
  )

const number = (name: string): number | undefined => {
  const text = process.env[name]
  return text === undefined ? undefined : Number(text)
}
const only = number("TOPGUN_MODEL_SEED")
const from = only ?? number("TOPGUN_MODEL_FROM") ?? 1
const usual = 20
const count = only === undefined ? number("TOPGUN_MODEL_SEEDS") ?? usual : 1

const rare = [
  "cuts",
  "resets",
  "grants of part",
  "grants of nothing",
  "servers that lost everything",
  "rows of the server's",
  "followers",
  "writes that were refused"
]

describe("open queries", () => {
  it.live(
    "show what a plain evaluation finds, at every moment of what is here, at rest of what the server has",
    () =>
      Effect.gen(function*() {
        const sightings: Sightings = {}
        const failures: Array<string> = []
        for (let seed = from; seed < from + count; seed++) {
          const exit = yield* Effect.exit(run(seed, sightings))
          if (Exit.isFailure(exit)) failures.push(Cause.pretty(exit.cause).slice(0, 3_000))
        }
        if (failures.length > 0) {
          throw new Error(`${failures.length} of ${count}:\n\n${failures.slice(0, 3).join("\n\n")}`)
        }
        if (count >= usual) expect(rare.filter((what) => (sightings[what] ?? 0) === 0)).toEqual([])
      }),
    { timeout: 60_000 + count * 2_000 }
  )
})
