/** The Effect form of a map: reads from memory, writes that complete when they are durable on this device. */
import type { MapDeclaration } from "@topgun/core/Grid"
import type { WriteFailure, WriteRefusal } from "@topgun/core/GridError"
import type { Ack } from "@topgun/core/WriteConcern"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Config } from "./ClientConfig.ts"
import { MapView } from "./MapView.ts"
import type { Replica } from "./Replica.ts"
import { acknowledgement, awaitLocal, isRefusal, type LocalWrite, type WriteOptions } from "./Write.ts"

/** A write that is durable on this device. */
export interface Write {
  /** The server's acknowledgement at the level asked for. */
  readonly server: Effect.Effect<Ack, WriteFailure | WriteRefusal>
}

export class GridMap<A> extends MapView<A> {
  readonly #declaration: MapDeclaration<A>
  readonly #replica: Replica["Type"]
  readonly #config: Config

  constructor(declaration: MapDeclaration<A>, replica: Replica["Type"], config: Config) {
    super(declaration.name, replica.view(declaration.name))
    this.#declaration = declaration
    this.#replica = replica
    this.#config = config
  }

  /** Writes a value. Fails at once, with nothing changed, when it is refused. */
  set(key: string, value: A, options?: WriteOptions): Effect.Effect<Write, WriteRefusal> {
    return this.update(key, () => value, options)
  }

  /** Deletes a key, whether or not this device knows it. */
  remove(key: string, options?: WriteOptions): Effect.Effect<Write, WriteRefusal> {
    return this.update(key, () => undefined, options)
  }

  /** Writes what `next` makes of the present value; `undefined` deletes the key. */
  update(
    key: string,
    next: (current: A | undefined) => A | undefined,
    options?: WriteOptions
  ): Effect.Effect<Write, WriteRefusal> {
    return Effect.suspend(() => {
      const concern = options?.writeConcern ?? this.#config.writeConcern
      const timeoutMillis = options?.timeoutMs ?? this.#config.writeTimeoutMillis
      let write: LocalWrite
      try {
        write = this.#replica.write(this.#declaration, key, next, { concern, ttlMs: options?.ttlMs })
      } catch (fault) {
        return isRefusal(fault) ? Effect.fail(fault) : Effect.die(fault)
      }
      return Effect.as(awaitLocal(write), { server: acknowledgement(write, this.#replica.outbox, timeoutMillis) })
    })
  }

  /** One key's value now and after each change; who is slow sees the latest. */
  watch(key: string): Stream.Stream<A | undefined> {
    return Stream.asyncPush<A | undefined>((emit) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const { current, subscribe } = this.live(key)
          emit.single(current)
          return subscribe((value) => void emit.single(value))
        }),
        (stop) => Effect.sync(stop)
      ), { bufferSize: 1, strategy: "sliding" })
  }
}
