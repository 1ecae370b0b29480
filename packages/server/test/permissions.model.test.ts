/**
 * What users have of a map, after whatever has happened, against a model: a plain map of records, to which operations are applied one
 * after the other, and of which each user has what his access shows of every record. Tokens say who it is and which roles he has.
 */
import { describe, expect, it } from "@effect/vitest"
import * as LwwRecord from "@topgun/core/LwwRecord"
import { partitionOf } from "@topgun/core/Partition"
import * as Protocol from "@topgun/core/Protocol"
import { makePair } from "@topgun/core/Transport"
import * as Value from "@topgun/core/Value"
import type { Access } from "@topgun/server/Access"
import * as Authentication from "@topgun/server/Authentication"
import * as PermissionPolicy from "@topgun/server/PermissionPolicy"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"
import * as fc from "fast-check"
import { authAnew, openMap, settled } from "./PlainClient.ts"

const map = "notes"
const keys = ["0", "1"]
const partitions = Array.from(new Set(keys.map(partitionOf)))

// --- Policies ---

type Rules = PermissionPolicy.Policy["rules"]
const owned = { owner: { principal: "userId" } }
const rule = (rest: Partial<PermissionPolicy.Rule>): PermissionPolicy.Rule => ({
  maps: [map],
  roles: ["user"],
  allow: ["read", "put", "remove"],
  ...rest
})
const own = [rule({ where: owned })]
const open = [
  rule({ allow: ["read"], where: { open: true }, fields: { read: ["owner", "open", "n"] } }),
  rule({ allow: ["put"], where: owned, fields: { write: ["n", "open"] } })
]
const policies: ReadonlyArray<Rules> = [
  own,
  open,
  [...own, ...open],
  [rule({ allow: ["read"] }), rule({ allow: ["put"], fields: { write: ["n"] } })],
  [rule({ where: { or: [owned, { owner: { in: { principal: "roles" } } }] } })],
  [rule({ allow: ["put", "remove"], where: owned })],
  [rule({ fields: { read: ["owner", "n"] } })],
  []
].map((rules) => [rule({ roles: ["root"] })].concat(rules))

const principalOf = (token: string): Authentication.Principal => {
  const [userId, ...roles] = token.split(" ") as [string, ...Array<string>]
  return { userId, roles: userId === "root" ? ["root"] : roles }
}
const layer = Layer.provideMerge(
  TopGunServer.layerInProcess({ auth: "token" }),
  Layer.merge(
    PermissionPolicy.layer({ rules: policies[0]! }),
    Authentication.layerVerifier((token) => Effect.succeed(principalOf(token)))
  )
)

// --- The model ---

type Records = Map<string, LwwRecord.LwwRecord>
interface Op {
  readonly key: string
  readonly record: LwwRecord.LwwRecord
}

/** Applies an operation; false when it's refused. */
const applyOne = (records: Records, access: Access, { key, record }: Op, now: number): boolean => {
  const stored = records.get(key)
  const judged = access.judge("lww", record, stored, now)
  if (judged === undefined) return false
  if (stored === undefined || LwwRecord.compare(judged, stored) > 0) records.set(key, judged)
  return true
}

const valueOf = (record: LwwRecord.LwwRecord): unknown =>
  record.isTombstone ? undefined : Value.decode(record.valueBytes)
/**
 * Where a field is hidden, when it changed is so too: but for that, all of a record counts. What has expired is as good as gone, which the
 * server makes of it sooner or later.
 */
const contentOf = (records: ReadonlyMap<string, LwwRecord.LwwRecord>, isWhole: boolean, now: number) => {
  const isOver = ({ expiresAt }: LwwRecord.LwwRecord) => expiresAt !== 0 && expiresAt <= now
  return Object.fromEntries(
    Array.from(records).filter(([, record]) => isWhole || !isOver(record)).sort(([a], [b]) => a < b ? -1 : 1).map((
      [key, record]
    ) => [
      key,
      isWhole
        ? Buffer.from((isOver(record) ? LwwRecord.remove(record.stamp) : record).row).toString("hex")
        : [valueOf(record), record.expiresAt]
    ])
  )
}
const shownOf = (records: Records, access: Access): Records => {
  const shown: Records = new Map()
  for (const [key, record] of records) {
    const each = access.show(record, valueOf(record))
    if (each !== undefined) shown.set(key, each)
  }
  return shown
}

// --- A device, which believes all that it is told ---

let sequence = 0

class Device {
  readonly token: string
  readonly records: Records = new Map()
  state: "closed" | "opening" | "open" | "denied" | "again" = "closed"
  readonly rejected = new Set<number>()
  readonly answered = new Set<number>()
  readonly pending = new Map<number, Op>()
  /** What should not have come, and when it did. */
  readonly faults: Array<unknown> = []
  readonly #send: (...messages: ReadonlyArray<Protocol.ClientMessage>) => void
  #id = 0
  readonly close: () => void

  constructor(accept: TopGunServer.TopGunServer["Type"]["accept"], token: string) {
    const [mine, theirs] = makePair()
    this.token = token
    accept(theirs)
    this.#send = (...messages) => mine.send(Protocol.frame(messages.map(Protocol.encode)))
    this.close = () => mine.close(1000, "")
    mine.listen((frame) => {
      for (const message of Protocol.decodeFromServer(frame)) this.#hear(message)
    }, ({ code }) => {
      if (code !== 1000) this.faults.push(`closed with ${code}`)
    })
    this.#send({ ...authAnew(), token })
  }

  renew(token: string): void {
    this.#send({ _tag: "AuthRenew", id: 0, token })
  }

  open(): void {
    this.state = "opening"
    this.#send(openMap(map, ++this.#id))
  }

  write(ops: ReadonlyArray<Op>, isAtomic: boolean): ReadonlyArray<number> {
    const tuples = ops.map(({ key, record }) => [sequence++, key, record.row] as const)
    tuples.forEach(([number], at) => this.pending.set(number, ops[at]!))
    const batch = { _tag: "OpBatch", map, kind: "lww", concern: "APPLIED" } as const
    this.#send({ ...batch, atomic: isAtomic ? "end" : "no", ops: tuples })
    return tuples.map(([number]) => number)
  }

  #take(key: string, row: Uint8Array): void {
    this.records.set(key, LwwRecord.decode(row))
  }

  /** Of a map that isn't open nothing is told. What was on its way to who has asked anew, is. */
  #checkIsOpen(message: Protocol.ServerMessage): void {
    if (this.state !== "open" && this.state !== "opening") this.faults.push([this.state, message])
  }

  #hear(message: Protocol.ServerMessage): void {
    switch (message._tag) {
      case "SyncAgain":
        if (this.state !== "opening") this.state = "again"
        else this.open()
        return
      case "Fault":
        if (message.cause === "MapReopened") return
        if (message.cause !== "PermissionDenied") this.faults.push(message)
        if (message.id !== this.#id) return
        this.state = "denied"
        this.records.clear()
        return
      case "SyncRoot":
        if (message.id !== this.#id) return
        this.state = "open"
        this.records.clear()
        for (const [at, partition] of partitions.entries()) {
          this.#send({ _tag: "SyncPull", id: this.#id * 1_000 + at, map, node: [partition, ""], after: null })
        }
        return
      case "SyncLeaf": {
        if (Math.floor(message.id / 1_000) !== this.#id) return
        const partition = partitions[message.id % 1_000]
        for (const key of keys) if (partitionOf(key) === partition) this.records.delete(key)
        for (const [key, row] of message.records) if (keys.includes(key)) this.#take(key, row)
        return
      }
      case "ServerEvent":
        this.#checkIsOpen(message)
        for (const [key, row] of message.records) if (keys.includes(key)) this.#take(key, row)
        return
      case "Withdraw":
        this.#checkIsOpen(message)
        for (const key of message.keys) this.records.delete(key)
        return
      case "OpReject":
        this.answered.add(message.sequence)
        this.rejected.add(message.sequence)
        return
      case "OpAck":
        for (const number of message.sequences) {
          this.answered.add(number)
          const { key, record } = this.pending.get(number)!
          if (!keys.includes(key)) continue
          const here = this.records.get(key)
          if (here === undefined || LwwRecord.compare(record, here) > 0) this.records.set(key, record)
        }
        return
    }
  }
}

// --- Whatever may happen ---

const user = fc.constantFrom("root", "alice", "carol")
const op = fc.record({
  key: fc.constantFrom(...keys),
  value: fc.option(
    fc.record({
      owner: fc.constantFrom("alice", "carol"),
      open: fc.boolean(),
      n: fc.nat(2),
      secret: fc.constantFrom("s", "t")
    }, { requiredKeys: ["owner"] }),
    { freq: 4, nil: undefined }
  ),
  /** By how much the writer's clock is wrong, in ms. */
  skew: fc.constantFrom(0, 0, 0, -5, 30_000),
  livesMillis: fc.constantFrom(0, 0, 0, 50, 150)
})
const step = fc.oneof(
  {
    arbitrary: fc.record({
      does: fc.constant("write" as const),
      user,
      ops: fc.array(op, { minLength: 1, maxLength: 4, size: "max" }),
      isAtomic: fc.boolean()
    }),
    weight: 6
  },
  fc.record({ does: fc.constant("write again" as const), user, isAtomic: fc.boolean() }),
  fc.record({ does: fc.constant("policy" as const), policy: fc.nat(policies.length - 1) }),
  fc.record({ does: fc.constant("renew" as const), user, roles: fc.constantFrom("", " carol", " alice") }),
  fc.record({ does: fc.constantFrom("open" as const, "reconnect" as const), user }),
  fc.record({ does: fc.constant("wait" as const), millis: fc.constantFrom(20, 100) }),
  { arbitrary: fc.record({ does: fc.constant("compare" as const) }), weight: 2 }
)
type Step = (typeof step) extends fc.Arbitrary<infer A> ? A : never

const delivered = Effect.promise(async () => {
  for (let i = 0; i < 8; i++) await Promise.resolve()
})

/** `others` are records of nobody: with some the making of a view takes several turns. */
const run = (steps: ReadonlyArray<Step>, others: number) =>
  Effect.gen(function*() {
    const { accept } = yield* TopGunServer.TopGunServer
    const server = yield* PermissionPolicy.PermissionPolicy
    const records: Records = new Map()
    let rules = policies[0]!
    let made = 0
    let now = 0
    const tokens = new Map(["root", "alice", "carol"].map((name) => [name, name]))
    const devices = new Map<string, Device>()
    const written = new Map<string, ReadonlyArray<Op>>()
    const enter = (name: string) =>
      Effect.suspend(() => {
        const device = new Device(accept, tokens.get(name)!)
        devices.set(name, device)
        return Effect.map(settled, () => device.open())
      })
    const accessOf = (name: string) => PermissionPolicy.compile({ rules }).access(principalOf(tokens.get(name)!), map)
    const write = Effect.fnUntraced(function*(name: string, ops: ReadonlyArray<Op>, isAtomic: boolean) {
      const device = devices.get(name)!
      const access = accessOf(name)
      const sequences = device.write(ops, isAtomic)
      const draft = new Map(records)
      const isTaken = ops.map((each) => applyOne(draft, access, each, now))
      const all = isTaken.every((each) => each)
      if (all || !isAtomic) { for (const [key, record] of draft) records.set(key, record) }
      yield* delivered
      expect(sequences.filter((each) => device.answered.has(each))).toEqual(sequences)
      expect(sequences.filter((each) => device.rejected.has(each)))
        .toEqual(sequences.filter((_, at) => isAtomic ? !all : !isTaken[at]))
    })
    const compare = Effect.gen(function*() {
      for (let turn = 0; turn < 20; turn++) {
        for (const device of devices.values()) if (device.state === "again") device.open()
        yield* settled
        if (turn > 1 && Array.from(devices.values()).every(({ state }) => state === "open" || state === "denied")) break
      }
      yield* settled
      for (const [name, device] of devices) {
        const access = accessOf(name)
        expect(device.faults, name).toEqual([])
        expect(device.state, name).toBe(access.reads === "nothing" ? "denied" : "open")
        if (access.reads === "nothing") continue
        const isWhole = access.reads === "everything"
        expect(contentOf(device.records, isWhole, now), name).toEqual(contentOf(shownOf(records, access), isWhole, now))
      }
    })

    yield* enter("root")
    yield* delivered
    const fill = Array.from({ length: others }, (_, i) => ({
      key: `other ${i}`,
      record: LwwRecord.put({ millis: 1, counter: i, nodeId: "root000000000000" }, Value.encode({ owner: "nobody" }))
    }))
    for (let at = 0; at < others; at += 500) {
      devices.get("root")!.write(fill.slice(at, at + 500), false)
      yield* settled
    }
    for (const name of ["alice", "carol"]) yield* enter(name)
    for (const each of steps) {
      switch (each.does) {
        case "write": {
          const ops = each.ops.map(({ key, livesMillis, skew, value }): Op => {
            const stamp = {
              millis: 1_000 + now + skew,
              counter: made++,
              nodeId: `${each.user}0000000000000000`.slice(0, 16)
            }
            return {
              key,
              record: value === undefined
                ? LwwRecord.remove(stamp)
                : LwwRecord.put(stamp, Value.encode(value), livesMillis === 0 ? 0 : now + livesMillis)
            }
          })
          written.set(each.user, ops)
          yield* write(each.user, ops, each.isAtomic)
          break
        }
        case "write again":
          yield* write(each.user, written.get(each.user) ?? [], each.isAtomic && written.has(each.user))
          break
        case "policy":
          rules = policies[each.policy]!
          yield* server.replace({ rules })
          break
        case "renew":
          tokens.set(each.user, `${each.user}${each.user === "root" ? "" : each.roles}`)
          devices.get(each.user)!.renew(tokens.get(each.user)!)
          break
        case "open":
          devices.get(each.user)!.open()
          break
        case "reconnect":
          devices.get(each.user)!.close()
          yield* enter(each.user)
          break
        case "wait":
          now += each.millis
          yield* TestClock.adjust(each.millis)
          break
        case "compare":
          yield* compare
      }
      yield* delivered
    }
    yield* compare
  }).pipe(Effect.provide(Layer.fresh(layer)))

describe("Whatever is written, granted, revoked and opened, a user has what his access shows of each record", () => {
  it.effect.prop(
    "of a small map",
    [fc.array(step, { minLength: 1, maxLength: 30, size: "max" })],
    ([steps]) => run(steps, 0),
    { fastCheck: { numRuns: 150 } }
  )

  it.effect.prop(
    "of one of which views are made in several turns",
    [fc.array(step, { minLength: 1, maxLength: 20, size: "max" })],
    ([steps]) => run(steps, 1_500),
    { fastCheck: { numRuns: 12 } }
  )
})
