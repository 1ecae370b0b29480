/**
 * One run: two or three devices and a server do, and suffer, what a seed says, and are held against the reference at each step
 * and whenever all is quiet.
 */
import * as Backoff from "@topgun/core/Backoff"
import type { ConfigInvalid, StorageFailure, WriteFailure, WriteRefusal } from "@topgun/core/GridError"
import * as Cell from "@topgun/core/Cell"
import type { Ack } from "@topgun/core/WriteConcern"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import { PCGRandom } from "effect/Utils"
import type { Write } from "../../src/GridMap.ts"
import { startWrong } from "../worlds.ts"
import { Ledger } from "./ledger.ts"
import { Database, Disk, layerServer } from "./places.ts"
import { Digits, type Evidence, Reference, type What, type Written } from "./reference.ts"
import { labelsOf, names, openMaps, Refusals, Session, stampAt } from "./session.ts"

/** What a run is made of, beside the seed. */
export interface Circumstances {
  readonly devices: number
  /** Whether the server has a database. */
  readonly isDurable: boolean
  /** Whether clocks of devices are wrong, and are set. */
  readonly hasWrongClocks: boolean
  /** Whether frames may overtake each other. */
  readonly reorders: boolean
}

/** How often something happened that only proves something when it does. */
export type Sightings = { [what: string]: number }

interface Device {
  readonly name: string
  readonly error: { millis: number }
  readonly disk: Disk
  readonly refusals: Refusals
  /** Its clock has been wrong. */
  isWrong: boolean
  freeze: () => void
  session: Session | undefined
}

interface RunningServer {
  readonly service: Context.Tag.Service<TopGunServer.TopGunServer>
  readonly scope: Scope.CloseableScope
  readonly stopListening: () => void
  readonly freeze: () => void
}

const keys = ["a", "b", "c"]
const lossDetectedMillis = 3_000
const stepsPerPhase = 35
const phases = 2

/** Faults that a device may tell of in such runs. What else it tells of is its own. */
const expectedFaults = new Set([
  "WriteRejected",
  "StorageUnavailable",
  "ClockSkewTooLarge",
  "ConnectionLost",
  "MalformedMessage"
])

const wordsOf = (fault: unknown): string =>
  fault instanceof Error ? `${"_tag" in fault ? String(fault._tag) : fault.name}: ${fault.message}` : String(fault)

export const run = (seed: number, circumstances: Circumstances, sightings: Sightings) =>
  Effect.gen(function*() {
    const clock = yield* VirtualClock.VirtualClock
    const network = yield* Network.SimulatedNetwork
    const runtime = yield* Effect.runtime<never>()
    const random = new PCGRandom(seed)
    const roll = (sides: number): number => random.integer(sides)
    const pick = <A>(from: ReadonlyArray<A>): A => from[roll(from.length)]!
    const steps: Array<string> = []
    const saw = (what: string, times = 1): void => {
      sightings[what] = (sightings[what] ?? 0) + times
    }
    const complaints: Array<string> = []
    const complain = (what: string): void => void complaints.push(what)

    const digits = new Digits(roll)
    const reference = new Reference()
    const ledger = new Ledger(digits)
    let database = new Database()
    let backup: ReturnType<Database["backup"]> | undefined
    let generation = 0
    let hasRestored = false
    let server: RunningServer | undefined
    let labels = 0
    const newLabel = (): string => `w${++labels}`

    // --- Lives ---

    const startServer = Effect.gen(function*() {
      const scope = yield* Scope.make()
      const opened = circumstances.isDurable ? database.open() : undefined
      const context = yield* Layer.buildWithScope(layerServer(opened?.driver), scope)
      const service = Context.get(context, TopGunServer.TopGunServer)
      if (!circumstances.isDurable) ledger.nextServer()
      server = {
        service,
        scope,
        stopListening: network.listen(World.serverAddress, (connection) => service.accept(ledger.tap(connection))),
        freeze: opened?.freeze ?? (() => {})
      }
    })

    /** Lets time pass until something is done that may take some. */
    const inTime = <A, E, R>(what: Effect.Effect<A, E, R>) =>
      Effect.gen(function*() {
        let exit: Exit.Exit<A, E> | undefined
        yield* Effect.fork(Effect.map(Effect.exit(what), (value) => {
          exit = value
        }))
        yield* clock.runUntil(() => exit !== undefined, { within: "1 minute" })
        return yield* exit!
      })

    const stopServer = (isCrash: boolean) =>
      Effect.gen(function*() {
        if (server === undefined) return
        const { freeze, scope, stopListening } = server
        server = undefined
        stopListening()
        if (isCrash) {
          freeze()
          network.reset(World.serverAddress)
        }
        yield* inTime(Scope.close(scope, Exit.void))
      })

    const open = (device: Device) =>
      Effect.gen(function*() {
        const { adapter, freeze } = device.disk.open()
        device.freeze = freeze
        const client = yield* inTime(startWrong(device.name, device.error, {
          backoff: Backoff.make({ initial: "200 millis", cap: "2 seconds" }),
          onError: (fault) => {
            const tag = typeof fault === "object" && fault !== null && "_tag" in fault ? String(fault._tag) : ""
            if (!expectedFaults.has(tag)) complain(`${device.name} has a fault: ${wordsOf(fault)}`)
          }
        }, adapter))
        const session = new Session(client, yield* openMaps(client), device.refusals, reference, digits)
        session.isWrong = device.isWrong
        device.session = session
        checkKept(device, session)
      })

    const close = (device: Device, session: Session, isCrash: boolean) =>
      Effect.gen(function*() {
        device.session = undefined
        if (isCrash) {
          session.isOver = true
          if (session.client.status.current.pending > 0) saw("crashes with operations pending")
          device.freeze()
          reference.crash(device.name)
          if (roll(2) === 0) network.reset(device.name)
        }
        yield* inTime(session.client.close)
        session.isOver = true
        if (device.disk.isFailing) reference.crash(device.name)
        else reference.settle(device.name)
      })

    const checkWhole = (
      who: string,
      { counted, maps }: Session,
      batch: string,
      written: ReadonlyArray<Written>
    ): void => {
      const isThere = written.filter(({ map }) => map !== names.records).map(({ key, label, map }) =>
        map === names.pairs ? maps.pairs.get(key) === label : counted.has(label)
      )
      if (new Set(isThere).size > 1) complain(`${who} has some of the batch ${batch}: ${isThere.join()}`)
    }

    /** What a device has said that it is durable there is there. */
    const checkKept = (device: Device, session: Session): void => {
      const { maps } = session
      const { refusals } = device
      for (const [batch, written] of reference.batches(device.name)) {
        if (written.every(({ label }) => !refusals.labels.has(label))) checkWhole(device.name, session, batch, written)
      }
      for (const written of reference.writes) {
        const { fate, key, label, map, stamp, ttlMillis, what } = written
        if (written.device !== device.name || fate !== "kept" || reference.get(label) !== written) continue
        if (what === "count" && !refusals.labels.has(label) && !digits.read(maps.hits.current)?.has(label)) {
          complain(`${device.name} has lost the count ${label}`)
        }
        if (
          what === "add" && !refusals.labels.has(label) && !reference.isTaken(label) && ttlMillis === undefined &&
          !maps.sets.getValues(key).includes(label)
        ) complain(`${device.name} has lost ${label}, which it had added`)
        const records = map === names.records ? maps.records : map === names.pairs ? maps.pairs : undefined
        if (
          records !== undefined && !device.isWrong && !refusals.hasKey(map, key) && stampAt(records, key) < stamp
        ) {
          complain(`${device.name} has lost ${label} of ${map}.${key}`)
        }
      }
    }

    // --- Writes ---

    type Terms =
      & { readonly what: What; readonly map: string; readonly key: string }
      & Partial<
        Pick<Written, "takes" | "batch" | "ttlMillis" | "label" | "isAgain">
      >

    const note = (device: Device, terms: Terms): Written =>
      reference.add({
        label: terms.label ?? newLabel(),
        device: device.name,
        what: terms.what,
        map: terms.map,
        key: terms.key,
        takes: terms.takes ?? [],
        batch: terms.batch,
        ttlMillis: terms.ttlMillis,
        isAgain: terms.isAgain ?? false,
        stamp: "",
        fate: "made"
      })

    /** Starts a write, and follows it to its end. */
    const start = (
      device: Device,
      session: Session,
      written: ReadonlyArray<Written>,
      write: Effect.Effect<Write | void, WriteRefusal>
    ) =>
      Effect.gen(function*() {
        yield* Effect.fork(Effect.gen(function*() {
          const local = yield* Effect.either(write)
          if (session.isOver) return
          if (Either.isLeft(local)) {
            // It's kept in memory, and stored when that can be.
            if (local.left._tag !== "StorageUnavailable") complain(`${device.name}: ${wordsOf(local.left)}`)
            return saw("writes that could not be stored at first")
          }
          for (const each of written) if (each.fate === "made") each.fate = "kept"
          if (local.right === undefined) return
          const outcome = yield* Effect.either(local.right.server)
          if (!session.isOver) judge(device, written, outcome)
        }))
        yield* Effect.yieldNow()
        for (const each of written) {
          const { key, label, map, what } = each
          const { maps } = session
          if (map === names.records || map === names.pairs) {
            const own = maps[map === names.records ? "records" : "pairs"]
            each.stamp = stampAt(own, key)
            if (own.get(key) !== (what === "set" ? label : undefined)) {
              complain(`${device.name} doesn't read its write ${label} of ${map}.${key}, but ${own.get(key)}`)
            }
          } else if (what === "add" && !maps.sets.getValues(key).includes(label)) {
            complain(`${device.name} doesn't read its addition ${label}`)
          } else if (what === "take" && each.takes.some((taken) => maps.sets.getValues(key).includes(taken))) {
            complain(`${device.name} doesn't read its removal of ${each.takes.join()}`)
          } else if (what === "count" && !digits.read(maps.hits.current)?.has(label)) {
            complain(`${device.name} doesn't read its count ${label}`)
          }
        }
      })

    /** Whether a server has said that it has a write. */
    const hasCome = (device: Device, { key, label, map, stamp, takes, what }: Written): boolean =>
      what === "remove"
        ? device.isWrong || ledger.hasStamp(map, key, stamp)
        : what === "take"
        // What was taken out before it was sent never was anywhere else.
        ? takes.every((taken) => ledger.hasRemoval(map, key, taken) || !ledger.has(taken))
        : ledger.has(label)

    const judge = (
      device: Device,
      written: ReadonlyArray<Written>,
      outcome: Either.Either<Ack, WriteFailure | WriteRefusal>
    ): void => {
      const isIn = (each: Written) => hasCome(device, each)
      const replaces = (later: Written, each: Written) => isIn(later) || later.takes.includes(each.label)
      if (Either.isRight(outcome)) {
        const { level, superseded } = outcome.right
        if (superseded === true) saw("writes that were coalesced")
        // Says nothing of a server.
        if (level === "FIRE_AND_FORGET") return
        for (const each of written) {
          if (
            isIn(each) || (superseded === true && reference.after(each).some((later) => replaces(later, each)))
          ) continue
          complain(`${device.name} is told ${level} of ${each.label}, which no server has`)
        }
        const isLater = superseded === true || hasRestored || device.isWrong
        if (level === "PERSISTED" && !isLater && written.every(({ takes }) => takes.length === 0)) {
          saw("writes that were acknowledged as PERSISTED")
          for (const each of written) {
            if (!isPersisted(each)) complain(`${device.name} is told PERSISTED of ${each.label}, which no database has`)
          }
        }
        return
      }
      const { _tag } = outcome.left
      if (_tag === "WriteTimeout") {
        for (const { label, what } of written) {
          if ((what === "set" || what === "add") && ledger.wasSent(label)) {
            complain(`${device.name} is told that ${label} wasn't sent, and it was`)
          }
        }
      }
      saw(`outcomes that are ${_tag}`)
    }

    const isPersisted = ({ key, label, map, stamp, what }: Written): boolean => {
      for (const row of database.rows()) {
        if (row.map !== map) continue
        const given = ledger.read(row.kind, map, Cell.keyOf(row.kind, row.cell), row.row)
        if (given.labels.includes(label)) return true
        if (given.key === key && (what === "set" || what === "remove") && given.stamp >= stamp) return true
        // Its removal has taken its place.
        if (what === "add" && ledger.stampsOf(label).has(given.stamp)) return true
      }
      return false
    }

    const concerns = [undefined, undefined, undefined, "PERSISTED", "FIRE_AND_FORGET"] as const
    const termsOf = () => {
      if (roll(9) === 0) return { writeConcern: "REPLICATED" as const }
      const writeConcern = pick(concerns)
      return { writeConcern: writeConcern === "PERSISTED" && !circumstances.isDurable ? undefined : writeConcern }
    }

    /** A device that crashes while its storage fails may count over what it had sent, as is known. */
    const mayCount = ({ disk }: Device): boolean => !digits.isFull && !disk.isFailing
    const mayCrash = ({ disk, name }: Device): boolean =>
      !disk.isFailing ||
      !reference.writes.some(({ device, fate, what }) => device === name && what === "count" && fate === "made")

    const write = (device: Device, session: Session): Effect.Effect<string | undefined> => {
      const { maps } = session
      const terms = termsOf()
      const key = pick(keys)
      const concern = terms.writeConcern ?? ""
      switch (roll(11)) {
        case 0:
        case 1:
        case 2: {
          const ttlMillis = !circumstances.hasWrongClocks && roll(6) === 0
            ? pick([3_000, 10_000, 3_600_000])
            : undefined
          const written = note(device, { what: "set", map: names.records, key, ttlMillis })
          return Effect.as(
            start(device, session, [written], maps.records.set(key, written.label, { ...terms, ttlMs: ttlMillis })),
            `sets records.${key} ${written.label} ${concern} ${ttlMillis ?? ""}`
          )
        }
        case 3: {
          const written = note(device, { what: "remove", map: names.records, key })
          return Effect.as(
            start(device, session, [written], maps.records.remove(key, terms)),
            `removes records.${key} ${written.label} ${concern}`
          )
        }
        case 4:
        case 5: {
          const ttlMillis = !circumstances.hasWrongClocks && roll(8) === 0
            ? pick([3_000, 10_000, 3_600_000])
            : undefined
          const written = note(device, { what: "add", map: names.sets, key, ttlMillis })
          return Effect.as(
            start(device, session, [written], maps.sets.add(key, written.label, { ...terms, ttlMs: ttlMillis })),
            `adds ${written.label} to sets.${key} ${concern} ${ttlMillis ?? ""}`
          )
        }
        case 6: {
          const values = maps.sets.getValues(key)
          if (values.length === 0) return Effect.succeed(undefined)
          const value = pick(values)
          const all = roll(4) === 0
          const written = note(device, { what: "take", map: names.sets, key, takes: all ? values : [value] })
          return Effect.as(
            start(
              device,
              session,
              [written],
              all ? maps.sets.removeAll(key, terms) : maps.sets.remove(key, value, terms)
            ),
            `takes ${written.takes.join()} out of sets.${key} ${concern}`
          )
        }
        case 7:
        case 8: {
          if (!mayCount(device)) return Effect.succeed(undefined)
          const written = note(device, { what: "count", map: names.hits, key: names.hits })
          const by = digits.next(written.label, roll(3) === 0 ? -1 : 1)
          const counting = by < 0 ? maps.hits.decrement(-by, terms) : maps.hits.increment(by, terms)
          return Effect.as(start(device, session, [written], counting), `counts ${by} ${written.label} ${concern}`)
        }
        default: {
          const batch = newLabel()
          const own = [1, 2].map((n) => note(device, { what: "set", map: names.pairs, key: `${batch}/${n}`, batch }))
          const shared = note(device, { what: "set", map: names.records, key, batch })
          const counted = !mayCount(device)
            ? undefined
            : note(device, { what: "count", map: names.hits, key: names.hits, batch })
          const by = counted === undefined ? 0 : digits.next(counted.label, 1)
          const written = [...own, shared, ...(counted === undefined ? [] : [counted])]
          return Effect.as(
            start(
              device,
              session,
              written,
              session.client.batch((tx) => {
                for (const each of [...own, shared]) tx.set(each.map, each.key, each.label)
                if (by > 0) tx.increment(names.hits, by)
              }, terms)
            ),
            `writes the batch ${batch} of ${written.map(({ label }) => label).join()} with records.${key} ${concern}`
          )
        }
      }
    }

    const tryAgain = (device: Device, session: Session): Effect.Effect<string | undefined> => {
      const list = session.client.rejectedWrites.current
      if (list.length === 0) return Effect.succeed(undefined)
      const rejected = pick(list)
      session.noteRefusals()
      const { change, id, key, map } = rejected
      const ofIt = labelsOf(rejected, digits)
      if (roll(3) === 0) {
        for (const label of ofIt) {
          const written = reference.get(label)
          if (change !== "remove" && written !== undefined) written.fate = "discarded"
        }
        saw("rejected writes that were discarded")
        return Effect.as(
          session.client.rejectedWrites.discard(id),
          `discards ${change} ${ofIt.join()} of ${map}.${key}`
        )
      }
      saw("rejected writes that were tried again")
      if (change === "remove" && map === names.sets) {
        for (const label of ofIt) {
          device.refusals.removals.set(label, (device.refusals.removals.get(label) ?? 1) - 1)
          reference.untake(device.name, label)
        }
      }
      const what = change === "remove" && map === names.sets ? "take" : change
      const again = what === "take"
        ? ofIt.length === 0 ? [] : [note(device, { what, map, key, takes: ofIt, isAgain: true })]
        : what === "remove"
        ? [note(device, { what, map, key, isAgain: true })]
        : ofIt.map((label) => {
          const ttlMillis = rejected.ttlMs
          return note(device, { what, map, key, label, isAgain: true, ttlMillis })
        })
      return Effect.as(
        start(device, session, again, session.client.rejectedWrites.retry(id)),
        `tries ${change} ${ofIt.join()} of ${map}.${key} again`
      )
    }

    // --- What happens ---

    const devices: Array<Device> = []
    for (let n = 0; n < circumstances.devices; n++) {
      const sleep = (millis: number) => Runtime.runPromise(runtime)(Effect.sleep(millis))
      const isWrong = circumstances.hasWrongClocks && n === 0
      devices.push({
        name: ["alice", "bob", "carol"][n]!,
        error: { millis: isWrong ? pick([0, 3_600_000, -3_600_000, 90_000, -90_000, 30_000]) : 0 },
        disk: new Disk(sleep),
        refusals: new Refusals(digits),
        isWrong,
        freeze: () => {},
        session: undefined
      })
    }

    const faults: ReadonlyArray<
      (device: Device) => Effect.Effect<
        string | undefined,
        ConfigInvalid | StorageFailure,
        Network.SimulatedNetwork | Scope.Scope | VirtualClock.VirtualClock
      >
    > = [
      ({ name }) =>
        Effect.sync(() => {
          const direction = pick([undefined, "toServer", "toClient"] as const)
          network.cut(name, direction)
          return `${name} is cut off ${direction ?? ""}`
        }),
      ({ name }) =>
        Effect.sync(() => {
          network.heal(roll(2) === 0 ? name : undefined)
          return `${name} is healed`
        }),
      ({ name }) =>
        Effect.sync(() => {
          network.reset(name)
          return `${name} is reset`
        }),
      ({ name }) =>
        Effect.sync(() => {
          const shape = {
            latencyMillis: pick([1, 10, 100, 700]),
            jitterMillis: pick([0, 50, 400]),
            loss: pick([0, 0, 0.02, 0.2]),
            lossDetectedMillis,
            reorder: circumstances.reorders && roll(3) === 0
          }
          network.shape(name, shape)
          return `${name} has ${JSON.stringify(shape)}`
        }),
      (device) =>
        Effect.gen(function*() {
          const { name, session } = device
          if (session === undefined) {
            yield* open(device)
            return `${name} opens`
          }
          const isCrash = roll(3) > 0
          if (!mayCrash(device)) return undefined
          yield* close(device, session, isCrash)
          saw(isCrash ? "devices that crashed" : "devices that were closed")
          if (roll(3) > 0) yield* open(device)
          return `${name} ${isCrash ? "crashes" : "closes"}${device.session === undefined ? "" : " and opens"}`
        }),
      ({ name, session }) =>
        session === undefined ? Effect.succeed(undefined) : Effect.gen(function*() {
          const which = pick(["connect", "connect", "disconnect", "resetConnection"] as const)
          yield* inTime(session.client[which])
          return `${name}: ${which}`
        }),
      ({ disk, name }) =>
        Effect.sync(() => {
          disk.latencyMillis = pick([0, 0, 5, 200])
          disk.isFailing = roll(4) === 0
          return `${name}'s disk takes ${disk.latencyMillis} ms${disk.isFailing ? ", and fails" : ""}`
        }),
      ({ error, isWrong, name }) =>
        Effect.sync(() => {
          if (!isWrong) return undefined
          error.millis = pick([0, 0, 3_600_000, -3_600_000, 90_000, -90_000, 30_000, -30_000])
          return `${name}'s clock is wrong by ${error.millis} ms`
        }),
      () =>
        Effect.gen(function*() {
          if (server === undefined) {
            yield* startServer
            return "the server starts"
          }
          const isCrash = roll(2) === 0
          yield* stopServer(isCrash)
          saw(isCrash ? "servers that crashed" : "servers that were stopped")
          if (roll(2) === 0) yield* startServer
          return `the server ${isCrash ? "crashes" : "stops"}${server === undefined ? "" : " and starts"}`
        }),
      () =>
        Effect.gen(function*() {
          if (!circumstances.isDurable) return undefined
          const happens = roll(3)
          if (happens === 0) {
            database.latencyMillis = pick([0, 5, 300])
            database.isFailing = roll(3) === 0
            return `the database takes ${database.latencyMillis} ms${database.isFailing ? ", and fails" : ""}`
          }
          if (backup === undefined || happens === 1) {
            backup = database.backup()
            return "the database is backed up"
          }
          yield* stopServer(true)
          database = new Database(backup, ++generation)
          ledger.nextServer()
          hasRestored = true
          saw("servers that were restored from a backup")
          yield* startServer
          return "the server is restored from its backup"
        })
    ]

    const step = Effect.gen(function*() {
      const device = pick(devices)
      const { session } = device
      const which = roll(10)
      const what = which < 6
        ? session === undefined ? undefined : yield* write(device, session)
        : which === 6
        ? session === undefined ? undefined : yield* tryAgain(device, session)
        : yield* pick(faults)(device)
      if (what !== undefined) steps.push(which < 7 ? `${device.name} ${what}` : what)
      // Several things may happen in one tick.
      if (roll(3) === 0) return
      const millis = pick([0, 1, 20, 200, 1_500, 4_000])
      steps.push(`… ${millis} ms`)
      yield* clock.advance(millis)
      check()
    })

    // --- What holds ---

    const check = (): void => {
      for (const { name, refusals, session } of devices) {
        if (session === undefined) continue
        complaints.push(...session.check().map((complaint) => `${name}: ${complaint}`))
        for (const [batch, written] of reference.batches(name)) {
          // What its device doesn't remember comes back from the server like anybody's, piece by piece.
          if (written.some(({ fate, label }) => fate === "uncertain" || refusals.labels.has(label))) continue
          checkWhole(name, session, batch, written)
        }
      }
      if (complaints.length > 0) throw new Error(complaints.join("\n"))
    }

    const evidence: Evidence = {
      taken: (map, key) =>
        ledger.taken(map, key).map(({ label, stamp }) => ({
          stamp,
          label: label ??
            reference.of(map, key).find((written) => written.what === "remove" && written.stamp === stamp)?.label
        })),
      isRefused: ({ device, label }) =>
        devices.some(({ name, session }) =>
          name === device &&
          session!.client.rejectedWrites.current.some((rejected) =>
            rejected.change !== "remove" && labelsOf(rejected, digits).includes(label)
          )
        ),
      refusedRemovals: (device, label) => devices.find(({ name }) => name === device)!.refusals.removals.get(label) ?? 0
    }

    const isAtRest = (): boolean =>
      devices.every(({ session }) => {
        const { pending, stalled, state, storage } = session!.client.status.current
        return state === "CONNECTED" && pending === 0 && !stalled && storage.fault === undefined
      })

    const mapNames = ["records", "pairs", "sets", "hits"] as const
    const digestsOf = Effect.gen(function*() {
      const { maps } = yield* server!.service.status
      return [
        ...devices.map(({ session }) => mapNames.map((name) => session!.maps[name].digest).join(" ")),
        mapNames.map((name) => maps.find((map) => map.name === name)?.root ?? "0".repeat(16)).join(" ")
      ]
    })

    /** Ends all faults, and waits until every device says that it's in step: then all of them are. */
    const heal = Effect.gen(function*() {
      steps.push("all is well")
      network.heal()
      for (const device of devices) {
        device.disk.isFailing = false
        network.shape(device.name, { latencyMillis: 10, jitterMillis: 20, loss: 0, lossDetectedMillis, reorder: false })
        if (circumstances.reorders) network.reset(device.name)
      }
      database.isFailing = false
      if (server === undefined) yield* startServer
      for (const device of devices) {
        if (device.session === undefined) yield* open(device)
        yield* device.session!.client.connect
      }
      // A frame that was lost is missed by then, and a transaction that failed is made.
      yield* clock.advance(lossDetectedMillis + 2_000)
      for (const { name } of devices) reference.settle(name)
      check()
      let isEqual = false
      let waited = 0
      while (!isEqual) {
        const limit = `${60_000 - waited} millis` as const
        waited += yield* clock.runUntil(isAtRest, { within: limit }).pipe(
          Effect.catchAllDefect(() =>
            Effect.dieMessage(
              `not at rest: ${JSON.stringify(devices.map(({ session }) => session!.client.status.current))}`
            )
          )
        )
        // What was on its way to others when the last was told that all is in step.
        yield* clock.advance("1 second")
        waited += 1_000
        if (!isAtRest()) continue
        let digests = yield* digestsOf
        // What has just expired is swept by the server, which tells of it as of anybody's write.
        if (new Set(digests).size > 1) {
          yield* clock.advance("2 seconds")
          digests = yield* digestsOf
        }
        if (new Set(digests).size > 1) complain(`at rest, and not in step: ${digests.join(" | ")}`)
        isEqual = true
        check()
      }
    })

    const checkQuiet = (): void => {
      for (const device of devices) {
        const { maps } = device.session!
        for (const name of ["records", "pairs"] as const) {
          for (const key of new Set(reference.writes.filter(({ map }) => map === name).map((written) => written.key))) {
            const { least, may } = reference.record(name, key, evidence)
            const stamp = stampAt(maps[name], key)
            if (stamp !== (least?.stamp ?? "") && !may.has(stamp)) {
              complain(`${device.name} has ${stamp} at ${name}.${key}, and not ${least?.stamp} ${least?.label}`)
            }
          }
        }
        for (const key of keys) {
          const values = new Set(maps.sets.getValues(key))
          const { may, must } = reference.members(names.sets, key, evidence)
          for (const label of must) if (!values.has(label)) complain(`${device.name} lacks ${label} in sets.${key}`)
          for (const label of values) if (!may.has(label)) complain(`${device.name} still has ${label} in sets.${key}`)
        }
        const counted = digits.read(maps.hits.current) ?? new Set()
        const { may, must } = reference.counted(names.hits, evidence)
        for (const label of must) if (!counted.has(label)) complain(`${device.name} lacks the count ${label}`)
        for (const label of counted) if (!may.has(label)) complain(`${device.name} still has the count ${label}`)
      }
      // A device's writes to a key are taken or refused, each of them or a later one in its place.
      for (const written of reference.writes) {
        const { device: name, fate, key, map, what } = written
        if (fate !== "kept" || (what !== "set" && what !== "remove")) continue
        const device = devices.find((each) => each.name === name)!
        const isAnswered = (each: Written): boolean => hasCome(device, each) || device.refusals.labels.has(each.label)
        if (
          isAnswered(written) || reference.after(written).some(isAnswered) || device.refusals.hasKey(map, key)
        ) continue
        complain(`no server has ${written.label} of ${name}`)
      }
      check()
    }

    yield* startServer
    const all = Effect.gen(function*() {
      for (const device of devices) yield* open(device)
      for (let phase = 0; phase < phases; phase++) {
        for (let n = 0; n < stepsPerPhase; n++) yield* step
        yield* heal
        checkQuiet()
      }
      for (const { refusals } of devices) saw("writes that were refused", refusals.byId.size)
      saw("operations that were sent again though they had been taken", ledger.seen.resentThoughTaken)
      saw("records that were given to another server again", ledger.seen.takenAgainByAnother)
      saw("writes that were stamped anew", ledger.seen.restamped)
      saw(
        "writes whose device crashed before they were kept",
        reference.writes.filter(({ fate }) => fate === "uncertain").length
      )
    })
    /** Nobody moves the time any more. */
    const end = Effect.suspend(() => {
      for (const { freeze, session } of devices) {
        if (session !== undefined) session.isOver = true
        freeze()
      }
      server?.freeze()
      return server === undefined ? Effect.void : Scope.close(server.scope, Exit.void)
    })
    yield* Effect.catchAllCause(Effect.ensuring(all, end), (cause) =>
      Effect.die(
        new Error(`seed ${seed}, ${JSON.stringify(circumstances)}:\n${steps.join("\n")}\n${String(cause)}`)
      ))
  }).pipe(
    Effect.scoped,
    World.provide({ seed }),
    Effect.withRandom(Random.make(seed))
  )
