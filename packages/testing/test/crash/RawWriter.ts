/** A writer over a bare socket: it sends batches, notes what is acknowledged, and repairs nothing. */
import * as Protocol from "@topgun/core/Protocol"
import * as LwwRecord from "@topgun/core/LwwRecord"
import { home } from "@topgun/core/PartitionRouter"
import { type Closed, makeWebSocket } from "@topgun/core/Transport"
import { encode } from "@topgun/core/Value"
import type { WriteConcern } from "@topgun/core/WriteConcern"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { Attempt } from "./History.ts"

let millis = 1_000_000
/** A put, or a removal, that is newer than all before it. */
const rowOf = (value: unknown, nodeId: string): Uint8Array => {
  const stamp = { millis: millis++, counter: 0, nodeId }
  return value === undefined ? LwwRecord.remove(stamp).row : LwwRecord.put(stamp, encode(value)).row
}

/** A write and its place in a history. */
export interface RawWrite {
  readonly map: string
  readonly key: string
  /** `undefined` to remove. */
  readonly value: unknown
  readonly attempt: Attempt
}

/** Connects as a device of that node id, and lets a function write. */
export const connect = Effect.fnUntraced(function*(port: number, nodeId: string) {
  const connection = yield* makeWebSocket({ url: `ws://127.0.0.1:${port}/ws` }).connect(home)
  const known = yield* Deferred.make<void>()
  const root = yield* Deferred.make<string>()
  const closed = yield* Deferred.make<Closed>()
  const inFlight = new Map<number, Attempt>()
  const listeners = new Set<() => void>()
  const faults: Array<string> = []
  let acknowledged = 0
  let sequence = 0
  connection.listen((frame) => {
    for (const message of Protocol.decodeFromServer(frame)) {
      if (message._tag === "AuthAck") Deferred.unsafeDone(known, Effect.void)
      if (message._tag === "SyncRoot") {
        Deferred.unsafeDone(root, Effect.succeed(Buffer.from(message.root).toString("hex")))
      }
      if (message._tag === "Fault") faults.push(`${message.cause}: ${message.reason}`)
      if (message._tag !== "OpAck") continue
      for (const each of message.sequences) {
        const attempt = inFlight.get(each)
        if (attempt === undefined) continue
        inFlight.delete(each)
        attempt.acknowledged = true
        acknowledged++
      }
    }
    for (const listener of listeners) listener()
  }, (reason) => Deferred.unsafeDone(closed, Effect.succeed(reason)))
  connection.send(
    Protocol.encode({ _tag: "Auth", protocol: Protocol.version, nodeId, secret: null, token: null, confirmed: null })
  )
  yield* Effect.raceFirst(Deferred.await(known), Deferred.await(closed))
  return {
    /** One batch for each map, atomic where it says so. */
    write: (writes: ReadonlyArray<RawWrite>, concern: WriteConcern, atomic = false): void => {
      const maps = Array.from(new Set(writes.map(({ map }) => map)))
      const messages = maps.map((map, at): Protocol.ClientMessage => ({
        _tag: "OpBatch",
        map,
        kind: "lww",
        concern,
        atomic: !atomic ? "no" : at < maps.length - 1 ? "more" : "end",
        ops: writes.filter((write) => write.map === map).map(({ attempt, key, value }) => {
          inFlight.set(sequence, attempt)
          return [sequence++, key, rowOf(value, nodeId)] as const
        })
      }))
      connection.send(Protocol.frame(messages.map(Protocol.encode)))
    },
    /** The server's root of a map, asked once. */
    rootOf: (map: string): Effect.Effect<string> =>
      Effect.zipRight(
        Effect.sync(() =>
          connection.send(
            Protocol.encode({ _tag: "SyncInit", id: 1, map, kind: "lww", root: new Uint8Array(8), cursor: null })
          )
        ),
        Deferred.await(root)
      ),
    /** What it was told went wrong. */
    faults,
    acknowledged: () => acknowledged,
    inFlight: () => inFlight.size,
    closed: Deferred.await(closed),
    /** Waits until something holds, looked at after each frame, or until the connection ends. */
    until: (holds: () => boolean): Effect.Effect<void> =>
      Effect.raceFirst(
        Effect.async<void>((resume) => {
          const look = () => {
            if (holds()) resume(Effect.void)
          }
          listeners.add(look)
          look()
          return Effect.sync(() => listeners.delete(look))
        }),
        Effect.asVoid(Deferred.await(closed))
      )
  }
})
