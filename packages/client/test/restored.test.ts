/** What clients make of a server that was restored from a backup: what it lacks they bring, and what is deleted stays deleted. */
import { describe, it } from "@effect/vitest"
import { ResyncRequired } from "@topgun/core/GridError"
import type * as ServerConfig from "@topgun/server/ServerConfig"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import { Database, layerServer } from "./model/places.ts"
import { type Client, inWorld, isSettled, remembering } from "./worlds.ts"

const settings: Partial<ServerConfig.Settings> = { tombstoneAge: "10 minutes", tombstoneHorizon: "1 hour" }

const mapsOf = Effect.fnUntraced(function*(client: Client) {
  return {
    records: yield* client.map<string>("records"),
    sets: yield* client.orMap<string>("sets"),
    likes: yield* client.counter("likes")
  }
})

type Maps = Effect.Effect.Success<ReturnType<typeof mapsOf>>

const shown = ({ likes, records, sets }: Maps) => ({
  records: Object.fromEntries(["kept", "changed", "dead", "late"].map((key) => [key, records.get(key)])),
  set: Array.from(sets.getValues("k")).sort(),
  likes: likes.current
})

/** What the backup has; `forgotten` is deleted and forgotten before. */
const before = Effect.fnUntraced(function*({ likes, records, sets }: Maps) {
  yield* records.set("kept", "old")
  yield* records.set("changed", "old")
  yield* records.set("dead", "old")
  yield* sets.add("k", "alive")
  yield* sets.add("k", "dead")
  yield* likes.increment(5)
})

/** What happens later, and the backup hasn't. */
const after = Effect.fnUntraced(function*({ likes, records, sets }: Maps) {
  yield* records.set("changed", "new")
  yield* records.remove("dead")
  yield* records.set("late", "new")
  yield* sets.remove("k", "dead")
  yield* sets.add("k", "late")
  yield* likes.increment(2)
})

const outcome = {
  records: { kept: "old", changed: "new", dead: undefined, late: "new" },
  set: ["alive", "late"],
  likes: 7
}

/** Who has seen all of it is there when the server comes back, or comes after a device that has only seen what was before. */
for (const order of ["that stays", "that comes first", "that comes last"] as const) {
  for (const minutes of [1, 8]) {
    describe(`With a backup that is ${minutes} minutes old, a device ${order}`, () => {
      it.live("brings what the backup lacks, and deletes again what was deleted", () =>
        Effect.gen(function*() {
          const clock = yield* VirtualClock.VirtualClock
          const database = new Database()
          const server = yield* World.serve(layerServer(database.open().driver, settings))
          const faults: Array<unknown> = []
          const options = { onError: (fault: unknown) => void faults.push(fault) }
          const [knows, old] = [remembering(), remembering()]
          const writer = yield* World.startClient("writer", options, knows.device)
          const writes = yield* mapsOf(writer)
          const absent = yield* World.startClient("absent", options, old.device)
          const had = yield* mapsOf(absent)
          // Something is forgotten already, so the backup has a watermark.
          yield* writes.records.set("forgotten", "x")
          yield* writes.records.remove("forgotten")
          yield* clock.advance("20 minutes")
          expect(writes.records.getRecord("forgotten")).toBe(undefined)
          yield* before(writes)
          yield* clock.runUntil(() => isSettled(writer) && had.records.size === 3 && had.likes.current === 5)
          yield* clock.advance("5 seconds")
          yield* absent.close
          const saved = database.backup()
          yield* after(writes)
          yield* clock.runUntil(() => isSettled(writer))
          yield* clock.advance(`${minutes} minutes`)
          const root = writes.records.digest
          if (order !== "that stays") yield* writer.close

          yield* server.stop
          const restored = yield* World.serve(layerServer(new Database(saved, 1).open().driver, settings))
          let now = { client: writer, maps: writes }
          const comeBack = Effect.gen(function*() {
            const client = yield* World.startClient("writer", options, knows.device)
            now = { client, maps: yield* mapsOf(client) }
            yield* clock.runUntil(() => isSettled(client), { within: "2 minutes" })
          })
          if (order === "that comes first") yield* comeBack
          const other = yield* World.startClient("absent", options, old.device)
          const has = yield* mapsOf(other)
          yield* clock.runUntil(() => isSettled(other), { within: "2 minutes" })
          if (order === "that comes last") yield* comeBack
          const stranger = yield* World.startClient("stranger", options)
          const sees = yield* mapsOf(stranger)
          yield* clock.runUntil(() => isSettled(now.client) && isSettled(stranger), { within: "2 minutes" })
          yield* clock.advance("5 seconds")

          for (const maps of [now.maps, has, sees]) {
            expect(shown(maps)).toEqual(outcome)
            expect(maps.records.digest).toBe(root)
            expect(maps.sets.digest).toBe(now.maps.sets.digest)
          }
          expect((yield* restored.status).maps.find(({ name }) => name === "records")?.root).toBe(root)
          expect(now.client.rejectedWrites.current).toEqual([])
          expect(faults.filter((fault) => fault instanceof ResyncRequired)).toEqual([])
          // Much later too.
          yield* clock.advance("2 hours")
          expect([now.maps, has, sees].map(shown)).toEqual([outcome, outcome, outcome])
        }).pipe(Effect.scoped, inWorld()))
    })
  }
}

describe("A device that the restored server doesn't know", () => {
  it.live("isn't told to drop what only it has", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const database = new Database()
      const server = yield* World.serve(layerServer(database.open().driver, settings))
      const keeper = yield* World.startClient("keeper")
      const keeps = yield* mapsOf(keeper)
      yield* keeps.records.set("forgotten", "x")
      yield* keeps.records.remove("forgotten")
      yield* clock.advance("20 minutes")
      const saved = database.backup()

      const faults: Array<unknown> = []
      const newcomer = yield* World.startClient("newcomer", { onError: (fault) => void faults.push(fault) })
      const has = yield* mapsOf(newcomer)
      yield* before(has)
      yield* clock.runUntil(() => isSettled(newcomer))
      yield* clock.advance("5 seconds")
      yield* keeper.close
      yield* server.stop
      yield* World.serve(layerServer(new Database(saved, 1).open().driver, settings))
      yield* clock.runUntil(() => isSettled(newcomer), { within: "2 minutes" })
      const stranger = yield* World.startClient("stranger")
      const sees = yield* mapsOf(stranger)
      yield* clock.runUntil(() => isSettled(stranger) && isSettled(newcomer), { within: "2 minutes" })
      yield* clock.advance("5 seconds")
      expect(shown(sees)).toEqual({
        records: { kept: "old", changed: "old", dead: "old", late: undefined },
        set: ["alive", "dead"],
        likes: 5
      })
      expect(shown(has)).toEqual(shown(sees))
      expect(faults.filter((fault) => fault instanceof ResyncRequired)).toEqual([])
      expect(newcomer.rejectedWrites.current).toEqual([])
    }).pipe(Effect.scoped, inWorld()))
})
