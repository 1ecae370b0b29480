/**
 * What is deleted stays deleted, whoever comes back, and with whatever: each kind of device that was away while a deletion was made and
 * forgotten, by each way on which it could bring the deleted value back.
 */
import { describe, it } from "@effect/vitest"
import type * as ClientConfig from "@topgun/client/ClientConfig"
import { ResyncRequired } from "@topgun/core/GridError"
import * as Protocol from "@topgun/core/Protocol"
import type * as Storage from "@topgun/core/Storage"
import type { ServerConnection } from "@topgun/core/Transport"
import type * as ServerConfig from "@topgun/server/ServerConfig"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import { Database, layerServer } from "./model/places.ts"
import { type Client, inWorld, isSettled, type Remembering, remembering, startWrong } from "./worlds.ts"

/** Deletions are remembered for ten minutes, and for an hour for those who are away. */
const settings: Partial<ServerConfig.Settings> = { tombstoneAge: "10 minutes", tombstoneHorizon: "1 hour" }

const mapsOf = Effect.fnUntraced(function*(client: Client) {
  return {
    records: yield* client.map<string>("records"),
    sets: yield* client.orMap<string>("sets")
  }
})

type Maps = Effect.Effect.Success<ReturnType<typeof mapsOf>>

/** What the tests call the past: two records that keeper deletes while the other device is away, and one that stays. */
const write = Effect.fnUntraced(function*({ records, sets }: Maps) {
  yield* records.set("dead", "old")
  yield* records.set("dead too", "old")
  yield* records.set("alive", "old")
  yield* sets.add("k", "dead")
  yield* sets.add("k", "alive")
})

const kill = Effect.fnUntraced(function*({ records, sets }: Maps) {
  yield* records.remove("dead")
  yield* records.remove("dead too")
  yield* sets.remove("k", "dead")
})

interface Kind {
  readonly name: string
  /** How long it is away after the deletion. */
  readonly absent: "2 hours" | "40 minutes"
  readonly settings?: Partial<ServerConfig.Settings>
  /** What happens while it is away. */
  readonly meanwhile?: (keeper: Maps) => Effect.Effect<void, unknown>
  /** Its storage when it comes back, where that isn't what it was; `commits` are those before its last writes. */
  readonly storage?: (device: Remembering, commits: number) => Effect.Effect<Storage.StorageAdapter>
  readonly losesWrites?: boolean
  /** What it says when it comes back instead of the truth. */
  readonly confirmed?: readonly [generation: string, age: number]
  /** How wrong its clock is when it comes back, in ms. */
  readonly clockMillis?: number
  /** Whether it is told to take its maps over anew. */
  readonly isReset: boolean
}

const year = 365 * 24 * 3_600_000

const kinds: ReadonlyArray<Kind> = [
  { name: "away for longer than the horizon", absent: "2 hours", isReset: true },
  {
    name: "forgotten before that, as there was too much to remember",
    absent: "40 minutes",
    settings: { tombstonesMax: 1_000 },
    meanwhile: ({ records }) =>
      Effect.forEach(
        Array.from({ length: 1_200 }, (_, n) => `churn ${n}`),
        (key) => Effect.zipRight(records.set(key, "x"), records.remove(key)),
        { discard: true, concurrency: 200 }
      ),
    isReset: true
  },
  {
    name: "whose storage is what it was before its last writes",
    absent: "2 hours",
    storage: (device, commits) => Effect.map(device.copy(commits), (copy) => copy.device),
    losesWrites: true,
    isReset: true
  },
  {
    name: "that doesn't remember what it has confirmed",
    absent: "2 hours",
    storage: ({ device }) =>
      Effect.as(
        Effect.promise(() => device.commit([{ space: "meta", key: "confirmed", value: undefined }])),
        device
      ),
    isReset: true
  },
  // The server believes that it was put back to what it was once, and lets it bring what it has.
  {
    name: "that says it had confirmed more than there is",
    absent: "2 hours",
    confirmed: ["generation0", 2 ** 52],
    isReset: false
  },
  { name: "that says it comes from another store", absent: "2 hours", confirmed: ["elsewhere", 0], isReset: false },
  { name: "whose clock has gone back by a year", absent: "2 hours", clockMillis: -year, isReset: true },
  { name: "whose clock has gone on by a year", absent: "2 hours", clockMillis: year, isReset: true },
  { name: "in time", absent: "40 minutes", isReset: false }
]

interface Path {
  readonly name: string
  /** What it writes while it is away, before the deletion. */
  readonly writes: boolean
  /** Whether the server is restarted meanwhile. */
  readonly restarts: boolean
}

const paths: ReadonlyArray<Path> = [
  { name: "by the copies that it has", writes: false, restarts: false },
  { name: "by writes that it hadn't sent", writes: true, restarts: false },
  { name: "to a server that was restarted meanwhile", writes: true, restarts: true }
]

/** Has one device say something else of what it has confirmed. */
const deceiving = (deceiver: { nodeId: string | undefined; says: Kind["confirmed"] }) =>
(
  connection: ServerConnection
): ServerConnection => ({
  ...connection,
  listen: (onFrame, onClosed) =>
    connection.listen((frame) => {
      const [message, ...others] = Protocol.decodeFromClient(frame)
      if (message?._tag !== "Auth" || message.nodeId !== deceiver.nodeId || !deceiver.says) return onFrame(frame)
      const told = { ...message, confirmed: deceiver.says }
      onFrame(Protocol.frame([told, ...others].map(Protocol.encode)))
    }, onClosed)
})

/** A device's life: it comes back when everything is long over, by a way. Answers how it stands when all is quiet. */
const comeBack = Effect.fnUntraced(function*(kind: Kind, path: Path) {
  const clock = yield* VirtualClock.VirtualClock
  const database = new Database()
  const deceiver: Parameters<typeof deceiving>[0] = { nodeId: undefined, says: kind.confirmed }
  const start = Effect.suspend(() =>
    World.serve(layerServer(database.open().driver, { ...settings, ...kind.settings }), deceiving(deceiver))
  )
  let server = yield* start
  const keeper = yield* World.startClient("keeper")
  const keeps = yield* mapsOf(keeper)
  const storage = remembering()
  const first = yield* World.startClient("returning", {}, storage.device)
  const had = yield* mapsOf(first)
  yield* clock.runUntil(() => isSettled(keeper) && isSettled(first))
  yield* write(had)
  yield* clock.runUntil(() => isSettled(first) && keeps.records.size === 3 && keeps.sets.getValues("k").length === 2)
  yield* clock.advance("2 seconds")
  yield* first.disconnect
  yield* clock.advance("1 minute")
  const commits = storage.commits()
  yield* Effect.all([had.records.set("last", "old"), had.records.remove("last")])
  if (path.writes) {
    yield* Effect.all([
      had.records.set("dead", "unsent"),
      had.sets.add("k", "unsent"),
      had.records.set("alive", "unsent")
    ])
  }
  yield* first.close
  yield* clock.advance("1 minute")

  yield* kill(keeps)
  yield* kind.meanwhile?.(keeps) ?? Effect.void
  yield* clock.runUntil(() => isSettled(keeper))
  yield* clock.advance(kind.absent)
  const tombstones = ["dead", "dead too"].map((key) => keeps.records.getRecord(key)?.isTombstone)
  expect(tombstones).toEqual(kind.name === "in time" ? [true, true] : [undefined, undefined])
  if (path.restarts) {
    yield* server.stop
    server = yield* start
    yield* clock.runUntil(() => isSettled(keeper), { within: "1 minute" })
  }

  const device = yield* kind.storage?.(storage, commits) ?? Effect.succeed(storage.device)
  deceiver.nodeId = had.records.getRecord("alive")?.nodeId
  const faults: Array<unknown> = []
  const options: ClientConfig.Options = { onError: (fault) => void faults.push(fault) }
  const second = yield* startWrong("returning", { millis: kind.clockMillis ?? 0 }, options, device)
  const has = yield* mapsOf(second)
  yield* clock.runUntil(() => isSettled(second) && isSettled(keeper), { within: "2 minutes" })
  yield* clock.advance("5 seconds")
  return { clock, server, keeper, keeps, second, has, faults }
})

describe("A device that comes back", () => {
  for (const kind of kinds) {
    for (const path of paths) {
      it.live(`${kind.name}, brings nothing back ${path.name}`, () =>
        Effect.gen(function*() {
          const { clock, faults, has, keeper, keeps, second, server } = yield* comeBack(kind, path)
          const hasWrites = path.writes && kind.losesWrites !== true
          // Who finds its clock wrong stamps anew what it hasn't sent: it is written after the deletion.
          const isAnew = hasWrites && kind.clockMillis !== undefined
          for (const { records, sets } of [keeps, has]) {
            expect(records.has("dead too")).toBe(false)
            expect(records.get("dead")).toBe(isAnew ? "unsent" : undefined)
            expect(records.get("alive")).toBe(hasWrites ? "unsent" : "old")
            expect(Array.from(sets.getValues("k")).sort()).toEqual(hasWrites ? ["alive", "unsent"] : ["alive"])
          }
          const roots = [has.records.digest, has.sets.digest]
          expect([keeps.records.digest, keeps.sets.digest]).toEqual(roots)
          expect((yield* server.status).maps.map(({ root }) => root).sort()).toEqual(roots.slice().sort())

          expect(faults.some((fault) => fault instanceof ResyncRequired)).toBe(kind.isReset)
          const rejected = second.rejectedWrites.current
          // What it wrote itself, and never sent, is kept for whoever wrote it; so is what it offered as lost.
          const refused = rejected.filter(({ cause }) => cause === "BeyondHorizon").map((
            { key, value }
          ) => [key, value])
          const isUnsentRefused = hasWrites && !isAnew && kind.name !== "in time"
          expect(refused.filter(([, value]) => value === "unsent")).toEqual(isUnsentRefused ? [["dead", "unsent"]] : [])
          if (kind.isReset) expect(rejected).toHaveLength(isUnsentRefused ? 1 : 0)
          const retried = rejected.find(({ value }) => value === "unsent")
          if (retried === undefined) return
          yield* second.rejectedWrites.retry(retried.id)
          yield* clock.runUntil(() => isSettled(second) && isSettled(keeper) && keeps.records.get("dead") === "unsent")
          expect(has.records.get("dead")).toBe("unsent")
        }).pipe(Effect.scoped, inWorld()))
    }
  }

  it.live("often enough is never told to take anything over, and remembers no deletion for ever", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      yield* World.serve(layerServer(new Database().open().driver, settings))
      const keeper = yield* mapsOf(yield* World.startClient("keeper"))
      const faults: Array<unknown> = []
      const device = World.makeDevice()
      for (let visit = 0; visit < 8; visit++) {
        yield* keeper.records.set(`k${visit}`, "x")
        const client = yield* World.startClient("visitor", { onError: (fault) => void faults.push(fault) }, device)
        const { records } = yield* mapsOf(client)
        yield* clock.runUntil(() => isSettled(client) && records.get(`k${visit}`) === "x")
        yield* clock.advance("5 seconds")
        yield* client.close
        yield* keeper.records.remove(`k${visit}`)
        yield* clock.advance("30 minutes")
        // The one that was made since its last visit, and no other.
        const remembered = Array.from({ length: 8 }, (_, n) => n).filter((n) => keeper.records.getRecord(`k${n}`))
        expect(remembered).toEqual([visit])
      }
      expect(faults).toEqual([])
    }).pipe(Effect.scoped, inWorld()))
})
