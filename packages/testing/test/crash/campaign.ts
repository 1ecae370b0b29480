/**
 * Servers that are killed in the middle of everything, one after the other over the same data, with clients that know what they were told,
 * and a reader that says what there is afterwards.
 */
import type * as ClientConfig from "@topgun/client/ClientConfig"
import * as TopGunClient from "@topgun/client/TopGunClient"
import * as Storage from "@topgun/core/Storage"
import * as Transport from "@topgun/core/Transport"
import * as path from "node:path"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { expect } from "vitest"
import * as Faults from "./Faults.ts"
import { type Attempt, CounterHistory, RegisterHistory, SetHistory } from "./History.ts"
import * as RawWriter from "./RawWriter.ts"
import { end, freePort, type ServerProcess, start, type Store, temporaryDir } from "./ServerProcess.ts"

/** Kills of each kind: `TOPGUN_CRASH_ROUNDS`. */
export const rounds = Number(process.env["TOPGUN_CRASH_ROUNDS"] ?? 20)
/** Which ones: `TOPGUN_CRASH_SEED`. */
export const firstSeed = Number(process.env["TOPGUN_CRASH_SEED"] ?? 1)
/** Only a hang guard. */
export const timeout = 60_000 + rounds * 10_000

export const openClient = Effect.fnUntraced(function*(port: number, options: ClientConfig.Options = {}) {
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
export const numbersOf = (seed: number) => {
  let state = seed >>> 0
  return (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor(state / 2 ** 32 * below)
  }
}

/** Everything that was ever written to a server, however often it died, and what may be read of it. */
export class World {
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
export const writeRaw = Effect.fnUntraced(
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

/** How a server dies: at a random acknowledgement, by a fault of its disk's, or by what ends when it is dead. */
type Death =
  | "at a random acknowledgement"
  | Partial<Record<Parameters<Faults.Faults["get"]>[0], number>>
  | ((server: ServerProcess, acknowledged: (more: number) => Effect.Effect<void>) => Effect.Effect<void>)

/** Servers that die, one after the other, over the same data; each by its own round's way of dying. */
export const campaign = (store: Store, deaths: (round: number, numbers: (below: number) => number) => Death) =>
  Effect.gen(function*() {
    const dir = yield* temporaryDir
    const dataDir = path.join(dir, "data")
    const port = yield* freePort
    const faults = yield* Faults.make(path.join(dir, "faults"))
    const world = new World()
    const acknowledged = (more: number) =>
      Effect.suspend(() => {
        const enough = world.records.acknowledged + more
        return Effect.repeat(Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve))), {
          until: () => world.records.acknowledged >= enough
        })
      })
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
      const death = deaths(round, numbers)
      const after = 1 + numbers(400)
      const isOver = yield* Deferred.make<void>()
      // Who is cut off, as the database was for a while, comes again.
      const writeAgain = (name: string, numbersOfIt: (below: number) => number) =>
        Effect.forever(Effect.zipRight(Effect.exit(writeRaw(world, port, name, numbersOfIt)), Effect.sleep("5 millis")))
      const writing = Effect.all([
        writeAgain(`a${round}`, numbersOf(seed + 1)),
        writeAgain(`b${round}`, numbersOf(seed + 2)),
        Effect.forever(Effect.zipRight(
          present.write(numbers),
          Effect.sleep("1 millis")
        ))
      ], { concurrency: "unbounded", discard: true })
      if (typeof death === "object") faults.set({ seed, ...death })
      const dying = typeof death === "function"
        ? death(server, acknowledged)
        : typeof death === "object"
        ? server.exited
        : Effect.zipRight(acknowledged(after), end(server, "SIGKILL"))
      yield* Effect.forkScoped(Effect.raceFirst(writing, Deferred.await(isOver)))
      yield* dying
      yield* server.exited
      yield* Deferred.succeed(isOver, undefined)
      yield* present.disconnect
      expect(server.child.signalCode, `${about}: ${server.output()}`).toBe("SIGKILL")
    }
    expect(world.records.acknowledged).toBeGreaterThan(rounds * 5)
  })
