/** Client and server are made of parts, and each part can be another one. */
import { describe, it } from "@effect/vitest"
import * as TopGunClient from "@topgun/client/TopGunClient"
import * as CrdtStore from "@topgun/core/CrdtStore"
import * as Hlc from "@topgun/core/Hlc"
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as MerkleSync from "@topgun/core/MerkleSync"
import * as Partition from "@topgun/core/Partition"
import * as PartitionRouter from "@topgun/core/PartitionRouter"
import * as Storage from "@topgun/core/Storage"
import * as Transport from "@topgun/core/Transport"
import * as Persistence from "@topgun/server/Persistence"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { expect } from "vitest"
import * as VirtualClock from "../src/VirtualClock.ts"
import * as World from "../src/World.ts"

/** A clock that counts in whole seconds, and how often it was asked. */
const slowHlc = (ticks: { count: number }) =>
  Layer.effect(
    Hlc.Hlc,
    Effect.map(Hlc.make(), (real) =>
      Hlc.Hlc.of({
        ...real,
        unsafeTick: () => {
          ticks.count++
          const stamp = real.unsafeTick()
          const next = { ...stamp, millis: Math.ceil(stamp.millis / 1_000) * 1_000 }
          real.unsafeRaise(next)
          return next
        }
      }))
  )

/** Stores that remember which maps they were asked for. */
const observedStore = (asked: Set<string>) =>
  Layer.effect(
    CrdtStore.CrdtStore,
    Effect.map(CrdtStore.make, (real) =>
      CrdtStore.CrdtStore.of({
        open: (options) => {
          const store = real.open(options)
          return {
            ...store,
            map: (name, kind) => {
              asked.add(name)
              return store.map(name, kind)
            }
          }
        }
      }))
  )

/** Reconciliation without a walk: everything is pulled, whatever there is. */
const pullEverything = (runs: { count: number }) =>
  Layer.map(MerkleSync.layer, (context) => {
    const real = Context.get(context, MerkleSync.MerkleSync)
    return Context.make(
      MerkleSync.MerkleSync,
      MerkleSync.MerkleSync.of({
        answers: real.answers,
        reconcile: Effect.fnUntraced(function*(local, peer) {
          runs.count++
          yield* peer.root(MerkleSync.packRoot(local.tree))
          const theirs = new Map<string, LwwRecord.LwwRecord>()
          for (let partition = 0; partition < Partition.partitionCount; partition++) {
            let after: string | undefined
            do {
              const page: MerkleSync.Page = yield* peer.pull([partition, ""], after)
              for (const [key, record] of page.records) theirs.set(key, record)
              after = page.after
            } while (after !== undefined)
          }
          const offers: Array<string> = []
          for (let partition = 0; partition < Partition.partitionCount; partition++) {
            for (const key of local.tree.tree(partition)?.getKeysInBucket("") ?? []) {
              const record = theirs.get(key)
              const mine = local.record(key)!
              if (record === undefined || LwwRecord.compare(mine, record) > 0) offers.push(key)
            }
          }
          local.receive(Array.from(theirs))
          return { equal: false, received: theirs.size, offers }
        })
      })
    )
  })

/** A server that owns but some partitions. */
const ownerOf = (isLocal: (partition: number) => boolean) =>
  Layer.succeed(
    PartitionRouter.PartitionRouter,
    PartitionRouter.PartitionRouter.of({
      partitionOf: Partition.partitionOf,
      ownerOf: () => PartitionRouter.home,
      isLocal
    })
  )

const serverOf = (
  parts: Layer.Layer<Hlc.Hlc | CrdtStore.CrdtStore | MerkleSync.MerkleSync | PartitionRouter.PartitionRouter>
) =>
  TopGunServer.layerPartsInProcess.pipe(
    Layer.provide([parts, Persistence.layerMemory, ServerConfig.layer({ storage: "memory" })])
  )

const clientOf = Effect.fnUntraced(function*(
  parts: Layer.Layer<
    | Hlc.Hlc
    | CrdtStore.CrdtStore
    | MerkleSync.MerkleSync
    | PartitionRouter.PartitionRouter
    | Transport.Transport
  >
) {
  const context = yield* Layer.build(
    TopGunClient.layerParts({}).pipe(Layer.provide([parts, Storage.layerMemory]))
  )
  return Context.get(context, TopGunClient.TopGunClient)
})

describe("each part has a second one that works in its place", () => {
  it.live("Hlc, CrdtStore, MerkleSync, PartitionRouter and Transport, on both sides", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const ticks = { count: 0 }
      const runs = { count: 0 }
      const asked = new Set<string>()
      const frames = { count: 0 }
      const parts = Layer.mergeAll(
        slowHlc(ticks),
        observedStore(asked),
        pullEverything(runs),
        ownerOf(() => true)
      )
      const server = yield* World.serve(serverOf(Layer.fresh(parts)))
      // In place of the network: pairs of connections within the process, whose frames are counted.
      const transport = Transport.layerLoopback((connection) =>
        server.accept({
          ...connection,
          send: (frame) => {
            frames.count++
            connection.send(frame)
          }
        })
      )
      const alice = yield* clientOf(Layer.mergeAll(Layer.fresh(parts), transport))
      const hers = yield* alice.map<number>("m")
      for (let n = 0; n < 100; n++) yield* hers.set(`k${n}`, n)
      yield* clock.runUntil(() => alice.status.current.state === "CONNECTED" && alice.status.current.pending === 0)
      const bob = yield* clientOf(Layer.mergeAll(Layer.fresh(parts), transport))
      const his = yield* bob.map<number>("m")
      yield* clock.runUntil(() => his.size === 100)
      yield* bob.disconnect
      yield* his.set("k0", -1)
      yield* hers.remove("k1")
      yield* bob.connect
      yield* clock.runUntil(() => his.digest === hers.digest && bob.status.current.pending === 0)
      expect(hers.get("k0")).toBe(-1)
      expect(his.has("k1")).toBe(false)
      expect((yield* server.status).maps).toMatchObject([{ name: "m", root: hers.digest }])
      expect(hers.getRecord("k5")!.millis % 1_000).toBe(0)
      expect(ticks.count).toBe(102)
      expect(runs.count).toBeGreaterThanOrEqual(3)
      expect(asked).toEqual(new Set(["m"]))
      expect(frames.count).toBeGreaterThan(0)
    }).pipe(Effect.scoped, World.provide()))

  it.live("a server refuses, by name, what its router says it doesn't own", () =>
    Effect.gen(function*() {
      const clock = yield* VirtualClock.VirtualClock
      const parts = (isLocal: (partition: number) => boolean) =>
        Layer.mergeAll(Hlc.layer(), CrdtStore.layer, MerkleSync.layer, ownerOf(isLocal))
      const foreign = Partition.partitionOf("foreign")
      const server = yield* World.serve(serverOf(parts((partition) => partition !== foreign)))
      const client = yield* clientOf(
        Layer.merge(Layer.fresh(parts(() => true)), Transport.layerLoopback(server.accept))
      )
      const map = yield* client.map<number>("m")
      yield* map.set("mine", 1)
      const write = yield* map.set("foreign", 1)
      const outcome = yield* Effect.fork(Effect.either(write.server))
      yield* clock.runUntil(() => client.status.current.pending === 0)
      yield* clock.advance("1 second")
      expect(Either.getLeft(yield* Fiber.join(outcome))).toMatchObject({
        value: { _tag: "WriteRejected", cause: "NotOwner" }
      })
      expect([...map.keys()]).toEqual(["mine"])
    }).pipe(Effect.scoped, World.provide()))
})
