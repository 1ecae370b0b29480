/** The Effect form of maps: reads from memory, writes that complete when they are durable on this device. */
import type { Declaration, KindOf } from "@topgun/core/Grid"
import { ClientClosed, type WriteFailure, type WriteRefusal } from "@topgun/core/GridError"
import type { Ack } from "@topgun/core/WriteConcern"
import { isTraceParent } from "@topgun/core/Protocol"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { AnySpan } from "effect/Tracer"
import type { Config } from "./ClientConfig.ts"
import { type Live, make as makeLive } from "./Live.ts"
import { type Access, CounterHandle, type ListenOptions, MapHandle, OrMapHandle, type Writing } from "./MapHandles.ts"
import type { OpenQuery, QueryFault } from "./OpenQuery.ts"
import type { QueryDelta, QueryState } from "./QueryTypes.ts"
import type { Replica } from "./Replica.ts"
import { Signal } from "./Signal.ts"
import type { SyncEngine } from "./SyncEngine.ts"
import * as SyncStatus from "./SyncStatus.ts"
import { acknowledgement, awaitLocal, isRefusal, type LocalWrite, type WriteOptions } from "./Write.ts"

/** A write that is durable on this device. */
export interface Write {
  /** The server's acknowledgement at the level asked for. */
  readonly server: Effect.Effect<Ack, WriteFailure | WriteRefusal>
}

/** Hands a write in and waits until it is durable on this device. */
export type Writer = (writing: Writing, options?: WriteOptions) => Effect.Effect<Write, WriteRefusal>

/** A span as it travels; `undefined` where nobody wants it recorded, or its ids aren't those of W3C Trace Context. */
const traceParentOf = ({ sampled, spanId, traceId }: AnySpan): string | undefined => {
  const traceParent = `00-${traceId}-${spanId}-01`
  return sampled && isTraceParent(traceParent) ? traceParent : undefined
}

/** Writes to a replica by a client's settings. What is written within a span is part of its trace on the server, too. */
export const writer = (replica: Replica["Type"], config: Config): Writer => (writing, options) =>
  Effect.withFiberRuntime(({ currentSpan }) => {
    const timeoutMillis = options?.timeoutMs ?? config.writeTimeoutMillis
    let write: LocalWrite
    try {
      write = writing(replica, options?.writeConcern ?? config.writeConcern)
    } catch (fault) {
      return isRefusal(fault) ? Effect.fail(fault) : Effect.die(fault)
    }
    const traceParent = currentSpan === undefined ? undefined : traceParentOf(currentSpan)
    if (traceParent !== undefined) write.traced(traceParent)
    return Effect.as(awaitLocal(write), { server: acknowledgement(write, replica.outbox, timeoutMillis) })
  })

/** Opens a map for its handle. @throws MapKindMismatch */
export const access = <D extends Declaration>(
  declaration: D,
  replica: Replica["Type"],
  engine: SyncEngine["Type"],
  write: Writer
): Access<KindOf<D>, Effect.Effect<Write, WriteRefusal>> => {
  const crdt = replica.openDeclared(declaration)
  return {
    crdt: () => {
      if (replica.isGone()) throw new ClientClosed()
      return crdt
    },
    listen: (attach, signal) => attach(replica.audience(declaration.name), signal),
    write,
    status: SyncStatus.ofMap(engine, declaration.name)
  }
}

/** A value now and after each change; who is slow sees the latest. */
const streamOf = <A>(live: Live<A>): Stream.Stream<A> =>
  Stream.asyncPush<A>((emit) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        emit.single(live.current)
        return live.subscribe((value) => void emit.single(value))
      }),
      (stop) => Effect.sync(stop)
    ), { bufferSize: 1, strategy: "sliding" })

/** A query that is asked until its scope ends, or it is closed. */
export class GridQuery<A> implements Live<QueryState<A>> {
  readonly #query: OpenQuery<A>

  constructor(query: OpenQuery<A>) {
    this.#query = query
  }

  /** How it stands at this moment, all that was written here included. */
  get current(): QueryState<A> {
    return this.#query.current
  }

  /** Calls `listener` with how it stands after each change, until stopped. */
  subscribe(listener: (state: QueryState<A>) => void, options?: ListenOptions): () => void {
    return this.#query.subscribe(listener, options?.signal)
  }

  [Symbol.asyncIterator](): AsyncIterator<QueryState<A>> {
    return makeLive(() => this.current, (listener) => this.subscribe(listener))[Symbol.asyncIterator]()
  }

  /** How it stands now and after each change; who is slow sees the latest. */
  watch(): Stream.Stream<QueryState<A>> {
    return streamOf(this)
  }

  /**
   * All rows as they entered, and then what changes of them, whatever becomes of the connection meanwhile; ends with the query. Who is
   * slow is told of several versions at once.
   */
  get changes(): Stream.Stream<QueryDelta<A>> {
    const query = this.#query
    return Stream.unwrapScoped(Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => {
          const news = new Signal()
          return { news, ...query.listen(() => news.notify()) }
        }),
        ({ stop }) => Effect.sync(stop)
      ),
      ({ changes, news }) => {
        const take: Effect.Effect<QueryDelta<A>, Option.Option<never>> = Effect.suspend(() => {
          const { version } = news
          const delta = changes.take()
          if (delta !== undefined) return Effect.succeed(delta)
          return query.isClosed ? Effect.fail(Option.none()) : Effect.zipRight(news.after(version), take)
        })
        return Stream.repeatEffectOption(take)
      }
    ))
  }

  /**
   * Grows the limit by `count`, or by as much as it was at first; completes when the grown result is there: when the server has answered,
   * where it is asked. Where that refuses, the rows stay as they are. Without a limit there is nothing to do.
   */
  fetchMore(count?: number): Effect.Effect<void, QueryFault> {
    return this.#query.fetchMore(count)
  }

  /** Asks no more, as at the end of its scope. What was shown last stays. */
  readonly close: Effect.Effect<void> = Effect.sync(() => this.#query.close())
}

/** A map of records. */
export class GridMap<A> extends MapHandle<A, Effect.Effect<Write, WriteRefusal>> {
  /** One key's value now and after each change; who is slow sees the latest. */
  watch(key: string): Stream.Stream<A | undefined> {
    return streamOf(this.live(key))
  }
}

/** A map of sets of values. */
export class GridOrMap<A> extends OrMapHandle<A, Effect.Effect<Write, WriteRefusal>> {
  /** One key's values now and after each change; who is slow sees the latest. */
  watch(key: string): Stream.Stream<ReadonlyArray<A>> {
    return streamOf(this.live(key))
  }
}

/** A number that many devices count at once. */
export class GridCounter extends CounterHandle<Effect.Effect<Write, WriteRefusal>> {
  /** The number now and after each change; who is slow sees the latest. */
  watch(): Stream.Stream<number> {
    return streamOf(this)
  }
}
