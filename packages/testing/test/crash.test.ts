/**
 * Real server processes on a real database, killed for real, at random points and at named ones, with and without the power.
 *
 * `TOPGUN_CRASH_ROUNDS` says how many kills of each kind there are (20), and `TOPGUN_CRASH_SEED` which ones; `npm run crash` does more of them.
 */
import { describe, it } from "@effect/vitest"
import type * as ClientConfig from "@topgun/client/ClientConfig"
import * as TopGunClient from "@topgun/client/TopGunClient"
import * as Storage from "@topgun/core/Storage"
import * as Transport from "@topgun/core/Transport"
import * as TopGunServer from "@topgun/server/TopGunServer"
import { cpSync, rmSync } from "node:fs"
import * as path from "node:path"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { expect } from "vitest"
import * as Faults from "./crash/Faults.ts"
import { type Attempt, CounterHistory, RegisterHistory, SetHistory } from "./crash/History.ts"
import * as RawWriter from "./crash/RawWriter.ts"
import { end, freePort, launch, ready, sqlite, start, type Store, temporaryDir } from "./crash/ServerProcess.ts"

const rounds = Number(process.env["TOPGUN_CRASH_ROUNDS"] ?? 20)
const firstSeed = Number(process.env["TOPGUN_CRASH_SEED"] ?? 1)
/** Only a hang guard. */
const timeout = 60_000 + rounds * 10_000

const openClient = Effect.fnUntraced(function*(port: number, options: ClientConfig.Options = {}) {
  const scope = yield* Scope.make()
  const context = yield* Layer.buildWithScope(
    TopGunClient.layer(options).pipe(
      Layer.provide([Transport.layerWebSocket({ url: `ws://127.0.0.1:${port}` }), Storage.layerMemory])
    ),
    scope
  )
  const close = Scope.close(scope, Exit.void)
  yield* Effect.addFinalizer(() => close)
  return { ...Context.get(context, TopGunClient.TopGunClient), close }
})

type Client = Effect.Effect.Success<ReturnType<typeof openClient>>

/** Numbers by a seed: a linear congruence, of which the upper bits are good. */
const numbersOf = (seed: number) => {
  let state = seed >>> 0
  return (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor(state / 2 ** 32 * below)
  }
}

/** Everything that was ever written to a server, however often it died, and what may be read of it. */
class World {
  readonly records = new RegisterHistory()
  /** Each batch writes a key to both, which are together or not at all. */
  readonly left = new RegisterHistory()
  readonly right = new RegisterHistory()
  /** By the device, whose log has everything. */
  readonly owned = new RegisterHistory()
  readonly tags = new SetHistory()
  readonly hits = new CounterHistory()
  #value = 0

  /** A value that nobody has written yet. */
  next(): number {
    return this.#value++
  }

  /** What of a server's content, as a fresh client gets it, contradicts what was acknowledged. */
  readonly faults = Effect.fnUntraced(function*(this: World, port: number) {
    const reader = yield* openClient(port)
    const maps = yield* Effect.all({
      records: reader.map<number>("records"),
      left: reader.map<number>("left"),
      right: reader.map<number>("right"),
      owned: reader.map<number>("owned"),
      tags: reader.orMap<number>("tags"),
      hits: reader.counter("hits")
    })
    yield* reader.synced
    const halves = [[maps.left, maps.right], [maps.right, maps.left]] as const
    const faults = [
      ...this.records.faults(new Map(maps.records)),
      ...this.left.faults(new Map(maps.left)),
      ...this.right.faults(new Map(maps.right)),
      ...this.owned.faults(new Map(maps.owned)),
      ...this.tags.faults(new Set(Array.from(maps.tags, ([, values]) => values).flat())),
      ...this.hits.faults(maps.hits.current),
      ...halves.flatMap(([one, other]) =>
        Array.from(one).filter(([key, value]) => other.get(key) !== value).map(([key]) => `half of batch ${key}`)
      )
    ]
    yield* reader.close
    return faults
  })
}

/** Writes without end over a bare socket, at most so many at a time, until the connection ends. */
const writeRaw = Effect.fnUntraced(
  function*(world: World, port: number, name: string, numbers: (below: number) => number) {
    const writer = yield* RawWriter.connect(port, name.padStart(16, "0"))
    const assign = (map: string, key: string, value: number | undefined, history: RegisterHistory) => ({
      map,
      key,
      value,
      attempt: history.attempt(key, value)
    })
    const writeAll = Effect.gen(function*() {
      while (true) {
        yield* writer.until(() => writer.inFlight() < 200)
        const many = Array.from({ length: 1 + numbers(30) }, () => `${name}-${numbers(300)}`)
        writer.write(
          Array.from(
            new Set(many),
            (key) => assign("records", key, numbers(4) === 0 ? undefined : world.next(), world.records)
          ),
          "PERSISTED"
        )
        const key = `${name}-${world.next()}`
        const value = world.next()
        writer.write(
          [assign("left", key, value, world.left), assign("right", key, value, world.right)],
          "PERSISTED",
          true
        )
        // Whoever reads the socket has his turn.
        yield* Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
      }
    })
    yield* Effect.raceFirst(writeAll, writer.closed)
  }
)

/** A device that stays while servers come and go. It hears from the server what became of its writes, whenever that is. */
const makeDevice = Effect.fnUntraced(function*(world: World, port: number) {
  const device: Client = yield* openClient(port)
  const scope = yield* Effect.scope
  const maps = yield* Effect.all({
    owned: device.map<number>("owned"),
    tags: device.orMap<number>("tags"),
    hits: device.counter("hits")
  })
  const options = { writeConcern: "PERSISTED", timeoutMs: 600_000 } as const
  const added: Array<number> = []
  const note = (attempt: Attempt, write: { readonly server: Effect.Effect<unknown, unknown> }) =>
    Effect.forkIn(
      Effect.matchEffect(write.server, {
        onFailure: () => Effect.void,
        onSuccess: () =>
          Effect.sync(() => {
            attempt.acknowledged = true
          })
      }),
      scope
    )
  const write = Effect.fnUntraced(function*(numbers: (below: number) => number) {
    for (let n = 0; n < 5; n++) {
      const key = `k${numbers(100)}`
      const value = numbers(4) === 0 ? undefined : world.next()
      // Of what is only APPLIED nothing is promised but that it comes back.
      const writeConcern = numbers(2) === 0 ? "APPLIED" : "PERSISTED"
      const attempt = world.owned.attempt(key, value)
      const asked = { ...options, writeConcern } as const
      const written = yield* value === undefined ? maps.owned.remove(key, asked) : maps.owned.set(key, value, asked)
      if (writeConcern === "PERSISTED") yield* note(attempt, written)
    }
    const element = world.next()
    added.push(element)
    yield* note(world.tags.add(element), yield* maps.tags.add(`${element % 7}`, element, options))
    if (numbers(3) === 0) {
      const [gone] = added.splice(numbers(added.length), 1)
      yield* note(world.tags.remove(gone), yield* maps.tags.remove(`${gone! % 7}`, gone!, options))
    }
    yield* note(world.hits.attempt(), yield* maps.hits.increment(1, options))
  })
  return {
    ...device,
    write,
    /** Of its maps, as the server's status tells them. */
    roots: () =>
      [
        { name: "owned", root: maps.owned.digest },
        { name: "tags", root: maps.tags.digest },
        { name: "hits", root: maps.hits.digest }
      ] as const
  }
})

/** Servers that die, one after the other, over the same files; each by its own round's way of dying. */
const campaign = (
  store: Store,
  kills: (
    round: number,
    numbers: (below: number) => number
  ) => Partial<Record<Parameters<Faults.Faults["get"]>[0], number>> | "at a random acknowledgement"
) =>
  Effect.gen(function*() {
    const dir = yield* temporaryDir
    const dataDir = path.join(dir, "data")
    const port = yield* freePort
    const faults = yield* Faults.make(path.join(dir, "faults"))
    const world = new World()
    let device: Effect.Effect.Success<ReturnType<typeof makeDevice>> | undefined
    for (let round = 0; round <= rounds; round++) {
      const seed = firstSeed * 100_000 + round
      const numbers = numbersOf(seed)
      const about = `round ${round}, TOPGUN_CRASH_SEED=${firstSeed}`
      faults.clear()
      const server = yield* start(store, dataDir, port, store.isInProcess ? { faults } : {})
      // Before the device is back, which would send again what the server had lost.
      expect(yield* world.faults(port), about).toEqual([])
      device ??= yield* makeDevice(world, port)
      yield* device.connect
      yield* device.synced
      const { maps } = yield* device.serverStatus
      if (round > 0) {
        for (const { name, root } of device.roots()) {
          expect(maps.find((map) => map.name === name)?.root, `${name} ${about}`).toBe(root)
        }
      }
      if (round === rounds) {
        yield* end(server, "SIGTERM")
        break
      }
      const present = device
      const kill = kills(round, numbers)
      const writing = Effect.all([
        writeRaw(world, port, `a${round}`, numbersOf(seed + 1)),
        writeRaw(world, port, `b${round}`, numbersOf(seed + 2)),
        Effect.forever(Effect.zipRight(
          present.write(numbers),
          Effect.sleep("1 millis")
        ))
      ], { concurrency: "unbounded", discard: true })
      const before = world.records.acknowledged
      const after = 1 + numbers(400)
      if (kill !== "at a random acknowledgement") faults.set({ seed, ...kill })
      const death = kill !== "at a random acknowledgement" ? server.exited : Effect.gen(function*() {
        while (world.records.acknowledged < before + after) {
          yield* Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
        }
        yield* end(server, "SIGKILL")
      })
      yield* Effect.raceFirst(death, Effect.zipRight(Effect.exit(writing), server.exited))
      yield* present.disconnect
      expect(server.child.signalCode, `${about}: ${server.output()}`).toBe("SIGKILL")
    }
    expect(world.records.acknowledged).toBeGreaterThan(rounds * 5)
  })

const quiet = Logger.minimumLogLevel(LogLevel.Warning)

/** What a server over a directory has, without a process of its own. */
const contentOf = (dataDir: string) =>
  Effect.map(TopGunServer.TopGunServer, ({ status }) => status).pipe(
    Effect.flatten,
    Effect.map(({ maps }) => maps.slice().sort((a, b) => a.name < b.name ? -1 : 1)),
    Effect.provide(Layer.provide(TopGunServer.layerInProcess({ storage: "sqlite", dataDir }), quiet))
  )

describe.each([sqlite])("a server on $name that is killed", (store) => {
  it.scopedLive(
    "holds what it acknowledged PERSISTED, gets the rest from the clients' logs, and has batches whole or not at all, when it is killed at random",
    () => campaign(store, () => "at a random acknowledgement"),
    timeout
  )

  it.scopedLive(
    "holds it when it dies before, in or after the n-th write or sync, and the power with it",
    () =>
      campaign(store, (round, numbers) => ({
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
          const server = yield* start(store, dataDir, port, { faults })
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
            const starting = yield* launch(store, dataDir, port, { faults })
            yield* Effect.raceFirst(starting.exited, Effect.orDie(ready(starting, port)))
            // It may have had less to do than there was to wait for.
            yield* end(starting, "SIGKILL")
          }
          faults.clear()
          const copy = path.join(dir, `recovered${round}`)
          cpSync(dataDir, copy, { recursive: true })
          expect(yield* contentOf(copy), about).toEqual(expected)
          const again = yield* start(store, dataDir, port, { faults })
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
