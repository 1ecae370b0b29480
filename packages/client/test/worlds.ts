/** What the client's tests begin with. */
import type * as ClientConfig from "@topgun/client/ClientConfig"
import * as Protocol from "@topgun/core/Protocol"
import * as Storage from "@topgun/core/Storage"
import * as Value from "@topgun/core/Value"
import * as Network from "@topgun/testing/SimulatedNetwork"
import * as VirtualClock from "@topgun/testing/VirtualClock"
import * as World from "@topgun/testing/World"
import * as Effect from "effect/Effect"

export type Client = Effect.Effect.Success<ReturnType<typeof World.startClient>>

export const inWorld = (seed = 1) => World.provide({ seed })

/** A client that is connected, the server it is connected to, and what lies between them. */
export const connected = Effect.fnUntraced(function*(
  options: ClientConfig.Options = {},
  device: Storage.StorageAdapter = World.makeDevice()
) {
  const clock = yield* VirtualClock.VirtualClock
  const network = yield* Network.SimulatedNetwork
  const server = yield* World.startServer()
  const client = yield* World.startClient("alice", options, device)
  yield* clock.runUntil(() => client.status.current.state === "CONNECTED")
  return { clock, network, server, client }
})

/** Memory that can be told to fail. */
export const fragile = () => {
  const memory = Storage.memory()
  const state = { broken: false }
  const device: Storage.StorageAdapter = {
    ...memory,
    durable: true,
    commit: (writes) => state.broken ? Promise.reject(new Error("the disk is full")) : memory.commit(writes)
  }
  return { memory, device, state }
}

/** See {@link remembering}. */
export interface Remembering {
  readonly device: Storage.StorageAdapter
  readonly commits: () => number
  readonly copy: (count?: number) => Effect.Effect<Remembering>
}

/** Memory whose content at each of its transactions can be had again, as after a crash then, or in a copy. */
export const remembering = (): Remembering => {
  const memory = Storage.memory()
  const commits: Array<ReadonlyArray<Storage.StorageWrite>> = []
  let opened = ""
  const device: Storage.StorageAdapter = {
    ...memory,
    durable: true,
    open: (name) => {
      opened = name
      return memory.open(name)
    },
    commit: async (writes) => {
      await memory.commit(writes)
      commits.push(writes.map((write) => ({ ...write })))
    }
  }
  return {
    device,
    commits: () => commits.length,
    /** Storage as it was after so many transactions: now, unless told otherwise. */
    copy: (count = commits.length) =>
      Effect.promise(async () => {
        const copied = remembering()
        await copied.device.open(opened)
        for (const writes of commits.slice(0, count)) await copied.device.commit(writes)
        return copied
      })
  }
}

/** Whose name a device's storage gives to what it writes. */
export const nodeIdOf = (device: Storage.StorageAdapter) =>
  Effect.map(
    Effect.promise(() => device.scan("meta", undefined, 10)),
    (rows) => rows.filter(({ key }) => key === "nodeId").map(({ value }) => Value.decode(value))[0]
  )

/** Whether all that was written on a device is the server's, and all that is the server's is on the device. */
export const isSettled = ({ status: { current } }: Client): boolean =>
  current.state === "CONNECTED" && current.pending === 0

/** A device whose wall clock shows another time than the world's: by `error.millis`, which may change at any moment. */
export const startWrong = Effect.fnUntraced(function*(
  name: string,
  error: { millis: number },
  options: ClientConfig.Options = {},
  device: Storage.StorageAdapter = World.makeDevice()
) {
  const clock = yield* VirtualClock.VirtualClock
  const faults: Array<unknown> = []
  const wrong = {
    ...clock,
    unsafeCurrentTimeMillis: () => clock.unsafeCurrentTimeMillis() + error.millis,
    currentTimeMillis: Effect.map(clock.currentTimeMillis, (millis) => millis + error.millis)
  }
  const client = yield* World.startClient(name, { onError: (fault) => void faults.push(fault), ...options }, device)
    .pipe(Effect.withClock(wrong))
  return { ...client, faults }
})

/** What a server lets everybody in with, that keeps its data and asks nobody who he is. */
export const welcome = (serverMillis: number): Protocol.ServerMessage => ({
  _tag: "AuthAck",
  protocol: Protocol.version,
  secret: "secret",
  run: "1",
  serverMillis,
  generation: "1",
  age: 0,
  durable: true,
  userId: null,
  expiresAt: null
})

/** What a server answers that has just what the client has. */
export const inStep = ({ id, root }: typeof Protocol.SyncInit.Type): Protocol.ServerMessage => ({
  _tag: "SyncRoot",
  id,
  root,
  partial: false,
  watermark: 0,
  sequence: 0,
  partitions: null,
  records: []
})

/** What an effect fails or dies with. */
export const faultOf = (effect: Effect.Effect<unknown, unknown>): Effect.Effect<unknown> =>
  Effect.merge(Effect.flip(Effect.catchAllDefect(effect, Effect.fail)))
