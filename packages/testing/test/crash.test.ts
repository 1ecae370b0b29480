/**
 * Real server processes on a real database, killed for real, at random points and at named ones, with and without the power.
 *
 * `TOPGUN_CRASH_ROUNDS` says how many kills of each kind there are (20), and `TOPGUN_CRASH_SEED` which ones; `npm run crash` does more of them.
 */
import { describe, it } from "@effect/vitest"
import * as TopGunServer from "@topgun/server/TopGunServer"
import { cpSync, rmSync } from "node:fs"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Schedule from "effect/Schedule"
import { expect } from "vitest"
import { campaign, firstSeed, numbersOf, openClient, rounds, timeout, World, writeRaw } from "./crash/campaign.ts"
import * as Faults from "./crash/Faults.ts"
import * as RawWriter from "./crash/RawWriter.ts"
import { end, freePort, launch, ready, sqlite, start, temporaryDir } from "./crash/ServerProcess.ts"

const quiet = Logger.minimumLogLevel(LogLevel.Warning)

/** What a server over a directory has, without a process of its own. */
const contentOf = (dataDir: string) =>
  Effect.map(TopGunServer.TopGunServer, ({ status }) => status).pipe(
    Effect.flatten,
    Effect.map(({ maps }) => maps.slice().sort((a, b) => a.name < b.name ? -1 : 1)),
    Effect.provide(Layer.provide(TopGunServer.layerInProcess({ storage: "sqlite", dataDir }), quiet))
  )

describe("a server on SQLite that is killed", () => {
  it.scopedLive(
    "holds what it acknowledged PERSISTED, gets the rest from the clients' logs, and has batches whole or not at all, when it is killed at random",
    () => campaign(sqlite, () => "at a random acknowledgement"),
    timeout
  )

  it.scopedLive(
    "holds it when it dies before, in or after the n-th write or sync, and the power with it",
    () =>
      campaign(sqlite, (round, numbers) => ({
        ...round % 2 === 0 ? { killAtWrite: 1 + numbers(150) } : { killAtSync: 1 + numbers(25) },
        killWhen: [Faults.killWhen.before, Faults.killWhen.after, Faults.killWhen.torn][numbers(3)]!,
        loss: [Faults.loss.nothing, Faults.loss.all, Faults.loss.some][round % 3]!
      })),
    timeout
  )

  it.scopedLive(
    "comes to the same content when it is killed again and again while it starts",
    () =>
      Effect.gen(function*() {
        const dir = yield* temporaryDir
        const dataDir = path.join(dir, "data")
        const port = yield* freePort
        const faults = yield* Faults.make(path.join(dir, "faults"))
        const numbers = numbersOf(firstSeed)
        const world = new World()
        for (let round = 0; round < Math.ceil(rounds / 5); round++) {
          const about = `round ${round}, TOPGUN_CRASH_SEED=${firstSeed}`
          faults.clear()
          const server = yield* start(sqlite, dataDir, port, { faults })
          faults.set({ killAtSync: 20 + numbers(20), seed: numbers(1_000) })
          yield* Effect.raceFirst(
            server.exited,
            Effect.zipRight(
              Effect.exit(writeRaw(world, port, `c${round}`, numbersOf(firstSeed + round))),
              server.exited
            )
          )
          cpSync(dataDir, path.join(dir, `copy${round}`), { recursive: true })
          const expected = yield* contentOf(path.join(dir, `copy${round}`))
          for (let kill = 1; kill <= 5; kill++) {
            faults.clear()
            faults.set({
              ...kill % 2 === 0 ? { killAtSync: Math.ceil(kill / 2) } : { killAtWrite: 1 + numbers(20) },
              loss: numbers(3),
              killWhen: numbers(3),
              seed: numbers(1_000)
            })
            const starting = yield* launch(sqlite, dataDir, port, { faults })
            yield* Effect.raceFirst(starting.exited, Effect.orDie(ready(starting, port)))
            // It may have had less to do than there was to wait for.
            yield* end(starting, "SIGKILL")
          }
          faults.clear()
          const copy = path.join(dir, `recovered${round}`)
          cpSync(dataDir, copy, { recursive: true })
          expect(yield* contentOf(copy), about).toEqual(expected)
          const again = yield* start(sqlite, dataDir, port, { faults })
          expect(yield* world.faults(port), about).toEqual([])
          yield* end(again, "SIGKILL")
        }
      }),
    timeout
  )
})

describe("a server that is put back to an earlier day, all its files together", () => {
  it.scopedLive("gets back from its clients what it had acknowledged to them, and no delete is undone", () =>
    Effect.gen(function*() {
      const dir = yield* temporaryDir
      const dataDir = path.join(dir, "data")
      const port = yield* freePort
      const server = yield* start(sqlite, dataDir, port)
      const clients = yield* Effect.all([openClient(port), openClient(port)])
      const [one, other] = yield* Effect.all(clients.map((client) => client.map<number>("m")))
      const tags = yield* Effect.all(clients.map((client) => client.orMap<number>("tags")))
      const hits = yield* Effect.all(clients.map((client) => client.counter("hits")))
      const settled = Effect.all(clients.map(({ synced }) => synced), { discard: true })
      const options = { writeConcern: "PERSISTED", timeoutMs: 60_000 } as const
      const persisted = <E, R>(write: Effect.Effect<{ readonly server: Effect.Effect<unknown, unknown> }, E, R>) =>
        Effect.flatMap(write, (written) => written.server)
      for (let n = 0; n < 100; n++) yield* one!.set(`k${n}`, n)
      yield* tags[0]!.add("t", 1)
      yield* hits[0]!.increment(5)
      yield* settled
      yield* persisted(one!.set("k0", 0, options))
      cpSync(dataDir, path.join(dir, "earlier"), { recursive: true })
      for (let n = 0; n < 30; n++) {
        yield* persisted(other!.set(`k${n}`, n + 1_000, options))
        yield* persisted(one!.remove(`k${n + 30}`, options))
        yield* persisted(other!.set(`new ${n}`, n, options))
      }
      yield* persisted(tags[1]!.remove("t", 1, options))
      yield* persisted(tags[1]!.add("t", 2, options))
      yield* persisted(hits[1]!.increment(2, options))
      yield* settled
      const expected = new Map(other!)
      yield* end(server, "SIGKILL")
      rmSync(dataDir, { recursive: true })
      cpSync(path.join(dir, "earlier"), dataDir, { recursive: true })
      yield* start(sqlite, dataDir, port)
      yield* Effect.all(clients.map(({ disconnect }) => disconnect))
      yield* Effect.all(clients.map(({ connect }) => connect))
      yield* settled
      const stranger = yield* openClient(port)
      const seen = yield* stranger.map<number>("m")
      const seenTags = yield* stranger.orMap<number>("tags")
      const seenHits = yield* stranger.counter("hits")
      yield* stranger.synced
      expect(new Map(seen)).toEqual(expected)
      expect(expected.size).toBe(100)
      expect([one!.digest, other!.digest]).toEqual([seen.digest, seen.digest])
      expect(seenTags.getValues("t")).toEqual([2])
      expect(seenHits.current).toBe(7)
    }))
})

describe("a server that starts", () => {
  it.scopedLive("isn't there for clients before it has loaded what is stored", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      const port = yield* freePort
      const server = yield* start(sqlite, dataDir, port)
      const writer = yield* RawWriter.connect(port, "writer0000000000")
      for (let batch = 0; batch < 80; batch++) {
        writer.write(
          Array.from({ length: 500 }, (_, n) => ({
            map: "m",
            key: `${batch}-${n}`,
            value: n,
            attempt: { acknowledged: false }
          })),
          "PERSISTED"
        )
      }
      yield* writer.until(() => writer.acknowledged() === 40_000)
      expect(writer.faults).toEqual([])
      const reader = yield* openClient(port)
      yield* reader.synced
      const [map] = (yield* reader.serverStatus).maps
      yield* end(server, "SIGKILL")
      yield* launch(sqlite, dataDir, port)
      const first = yield* Effect.retry(RawWriter.connect(port, "reader0000000000"), Schedule.spaced("1 millis"))
      expect(yield* first.rootOf("m")).toBe(map!.root)
    }))
})

describe("two clients over real sockets", () => {
  it.scopedLive("converge to equal roots after editing the same keys offline", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      yield* start(sqlite, yield* temporaryDir, port)
      const alice = yield* openClient(port)
      const bob = yield* openClient(port)
      const hers = yield* alice.map<string>("m")
      const his = yield* bob.map<string>("m")
      yield* hers.set("shared", "first")
      yield* Effect.all([alice.synced, bob.synced])
      yield* Effect.all([alice.disconnect, bob.disconnect])
      for (let n = 0; n < 50; n++) {
        yield* hers.set(`k${n % 20}`, `alice ${n}`)
        yield* his.set(`k${n % 30}`, `bob ${n}`)
        if (n % 7 === 0) yield* his.remove(`k${n % 20}`)
      }
      yield* Effect.all([alice.connect, bob.connect])
      yield* Effect.all([alice.synced, bob.synced])
      // What one wrote reaches the other as an event, a moment after its own acknowledgement.
      yield* Effect.async<void>((resume) => {
        const look = () => {
          if (hers.digest === his.digest) resume(Effect.void)
        }
        hers.subscribe(look)
        his.subscribe(look)
        look()
      })
      expect(new Map(hers)).toEqual(new Map(his))
      expect((yield* alice.serverStatus).maps).toMatchObject([{ name: "m", root: hers.digest }])
    }))
})
