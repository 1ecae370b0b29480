/** How interceptors are called: each within its time, and none able to fail anything but what it is about. */
import { AuthRequired, AuthUnavailable, InterceptorFailed, Refused } from "@topgun/core/GridError"
import * as Cell from "@topgun/core/Cell"
import type * as LwwRecord from "@topgun/core/LwwRecord"
import type { OpBatch, OpTuple } from "@topgun/core/Protocol"
import { CounterRow } from "@topgun/core/PnCounter"
import * as Value from "@topgun/core/Value"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import type { Principal } from "./Authentication.ts"
import type { Change, Done, Operation, Visitor } from "./Interceptors.ts"
import { Intercepting } from "./Interceptors.ts"
import type { Intercepted, Rejection } from "./Partitions.ts"
import { refused } from "./Rulings.ts"
import { ServerConfig } from "./ServerConfig.ts"

type Batch = typeof OpBatch.Type

/** Whose operations they are. */
export interface From {
  readonly principal: Principal | undefined
  readonly nodeId: string
}

/** The interceptors of this server, as its sessions call them; those that aren't there are `undefined`, and cost nothing. */
export class Interception extends Context.Tag("@topgun/server/Interception")<Interception, {
  /** What they say of operations, one after the other; of none that `isAnswered`. */
  readonly before:
    | ((
      batches: ReadonlyArray<Batch>,
      from: From,
      isAnswered: (op: OpTuple) => boolean
    ) => Effect.Effect<ReadonlyMap<number, Intercepted>>)
    | undefined
  /** Puts operations in line to be told of, with those that were refused. */
  readonly after:
    | ((
      batches: ReadonlyArray<Pick<Batch, "kind" | "map" | "ops">>,
      from: From,
      rejected: ReadonlyArray<Rejection>
    ) => void)
    | undefined
  /** `letIn` is called when it has let the device in, be it that nobody waits for that any more. */
  readonly connect:
    | ((visitor: Visitor, letIn: () => void) => Effect.Effect<void, AuthRequired | AuthUnavailable>)
    | undefined
  /** Waited for when the server stops. */
  readonly disconnect: ((visitor: Visitor) => void) | undefined
}>() {}

/** Operations that wait to be told of, at most, and the bytes of their records. */
export const afterMax = { operations: 10_000, bytes: 16 * 1024 * 1024 } as const
/** How often a kind of fault is logged, in ms. */
const toldMillis = 60_000

/** `undefined` for what isn't an operation, and is refused without being intercepted. */
const operationOf = (
  { kind, map }: Pick<Batch, "kind" | "map">,
  [sequence, key, row]: OpTuple,
  from: From
): Operation | undefined => {
  let record: LwwRecord.LwwRecord
  try {
    record = Cell.decodeInPlace(kind, map, Value.checkKey(key), row)
  } catch {
    return undefined
  }
  const value = record instanceof CounterRow
    ? { increments: record.increments, decrements: record.decrements }
    : record.isTombstone
    ? undefined
    : Value.decodeTrusted(record.valueBytes)
  return { map, kind, key, sequence, value, ...from }
}

interface Waiting {
  readonly batch: Pick<Batch, "kind" | "map">
  readonly op: OpTuple
  readonly from: From
  readonly rejected: Done["rejected"]
}

const make = Effect.gen(function*() {
  const { interceptorMillisMax, shutdownTimeout } = yield* ServerConfig
  const { after, before, onConnect, onDisconnect } = yield* Intercepting
  const clock = yield* Effect.clock

  const told = new Map<string, number>()
  /** Logs a kind of fault, unless that was done lately. */
  const tell = (kind: string, text: string, ...causes: ReadonlyArray<unknown>): Effect.Effect<void> =>
    Effect.suspend(() => {
      const now = clock.unsafeCurrentTimeMillis()
      if (Math.abs(now - (told.get(kind) ?? Number.NEGATIVE_INFINITY)) < toldMillis) return Effect.void
      told.set(kind, now)
      return Effect.logError(text, ...causes)
    })

  const settled = <A>(name: string, exit: Exit.Exit<A, unknown>): Effect.Effect<A, Refused | InterceptorFailed> => {
    if (Exit.isSuccess(exit)) return Effect.succeed(exit.value)
    const failure = Cause.squash(exit.cause)
    if (failure instanceof Refused) return Effect.fail(failure)
    return Effect.zipRight(
      tell(`${name} failed`, `The interceptor ${name} failed`, exit.cause),
      new InterceptorFailed({ reason: "failed" })
    )
  }

  const inTime = <A>(
    name: string,
    fiber: Fiber.RuntimeFiber<A, unknown>
  ): Effect.Effect<Exit.Exit<A, unknown>, InterceptorFailed> => {
    const late = new InterceptorFailed({ reason: `didn't answer within ${interceptorMillisMax} ms` })
    return Fiber.await(fiber).pipe(
      Effect.timeoutFail({ duration: interceptorMillisMax, onTimeout: () => late }),
      Effect.tapError(() => tell(`${name} late`, `The interceptor ${name} ${late.reason}`))
    )
  }

  /**
   * A call within its time. One that dies, or fails otherwise than by refusing, is logged. It has a fiber of its own, which most have
   * ended when others have had a turn: only for the rest a clock is set, and those that can't be interrupted go on by themselves.
   */
  const call = <A>(
    name: string,
    effect: () => Effect.Effect<A, unknown>
  ): Effect.Effect<A, Refused | InterceptorFailed> =>
    Effect.flatMap(Effect.forkDaemon(Effect.interruptible(Effect.suspend(effect))), (fiber) =>
      Effect.yieldNow().pipe(
        Effect.flatMap(() => {
          const exit = fiber.unsafePoll()
          return exit === null ? inTime(name, fiber) : Effect.succeed(exit)
        }),
        Effect.onExit((ended) => Exit.isSuccess(ended) ? Effect.void : Fiber.interruptFork(fiber)),
        Effect.flatMap((exit) => settled(name, exit))
      ))

  const said = (operation: Operation, answer: Change | void): Effect.Effect<Intercepted | undefined> => {
    if (answer === undefined) return Effect.succeed(undefined)
    const wrong = (why: string) =>
      Effect.as(
        tell("before changes", `The interceptor before has changed an operation ${why}`),
        new InterceptorFailed({ reason: "failed" })
      )
    if (operation.kind !== "lww") return wrong("of a map that isn't one of records")
    if (operation.value === undefined) return wrong("that removes a record")
    return Effect.try({ try: () => Value.encode(answer.value), catch: String }).pipe(
      Effect.catchAll((why) => wrong(`to what can't be stored: ${why}`))
    )
  }

  const callBefore = (ask: NonNullable<typeof before>, operation: Operation): Effect.Effect<Intercepted | undefined> =>
    call("before", () => ask(operation)).pipe(
      Effect.flatMap((answer) => said(operation, answer)),
      Effect.catchAll((fault): Effect.Effect<Intercepted> =>
        Effect.succeed(fault instanceof Refused ? refused(fault.reason) : fault)
      )
    )

  const leaving = yield* FiberSet.make<void>()
  const run = yield* FiberSet.runtime(leaving)<never>()
  const connecting = yield* FiberSet.make<void, AuthRequired | AuthUnavailable>()
  // Those who are let in leave again, and who has left is told of, before the server has stopped.
  yield* Effect.addFinalizer(() =>
    Effect.zipRight(FiberSet.awaitEmpty(connecting), FiberSet.awaitEmpty(leaving)).pipe(
      Effect.interruptible,
      Effect.timeoutOption(shutdownTimeout)
    )
  )

  let line: Array<Waiting> = []
  let waiting = { operations: 0, bytes: 0 }
  let leftOut = 0
  let isTelling = false
  const tellAll = (tellOf: NonNullable<typeof after>): Effect.Effect<void> =>
    Effect.whileLoop({
      while: () => line.length > 0 || (isTelling = false),
      body: () =>
        Effect.suspend(() => {
          const batch = line
          line = []
          return Effect.forEach(batch, ({ batch: of, from, op, rejected }) => {
            const operation = operationOf(of, op, from)
            const telling = operation === undefined
              ? Effect.void
              : Effect.ignore(call("after", () => tellOf({ ...operation, rejected })))
            return Effect.map(telling, () => {
              waiting = { operations: waiting.operations - 1, bytes: waiting.bytes - op[2].length }
            })
          }, { discard: true })
        }),
      step: () => {}
    })

  return Interception.of({
    before: before === undefined ? undefined : (batches, from, isAnswered) =>
      Effect.gen(function*() {
        const intercepted = new Map<number, Intercepted>()
        for (const batch of batches) {
          for (const op of batch.ops) {
            const operation = isAnswered(op) ? undefined : operationOf(batch, op, from)
            if (operation === undefined) continue
            const answer = yield* callBefore(before, operation)
            if (answer !== undefined) intercepted.set(op[0], answer)
          }
        }
        return intercepted
      }),
    after: after === undefined ? undefined : (batches, from, rejections) => {
      const rejected = new Map(rejections.map(({ cause, reason, sequence }) => [sequence, { cause, reason }]))
      for (const batch of batches) {
        for (const op of batch.ops) {
          const bytes = waiting.bytes + op[2].length
          if (waiting.operations >= afterMax.operations || bytes > afterMax.bytes) {
            leftOut++
            continue
          }
          waiting = { operations: waiting.operations + 1, bytes }
          // A row of its own: it would keep the frame that it came in.
          const [sequence, key, row] = op
          line.push({ batch, op: [sequence, key, new Uint8Array(row)], from, rejected: rejected.get(sequence) })
        }
      }
      if (leftOut > 0) {
        run(Effect.suspend(() => {
          const count = leftOut
          leftOut = 0
          return count === 0
            ? Effect.void
            : tell(
              "after left out",
              `The interceptor after is too slow: it isn't told of ${count} operations, and more may follow`
            )
        }))
      }
      if (isTelling || line.length === 0) return
      isTelling = true
      run(Effect.zipRight(Effect.yieldNow(), tellAll(after)))
    },
    // Who is told that somebody leaves is told of everybody.
    connect: onConnect === undefined && onDisconnect === undefined ? undefined : (visitor, letIn) =>
      // Not ended with the connection: then nobody would know whether it had succeeded.
      FiberSet.run(
        connecting,
        call("onConnect", () => onConnect?.(visitor) ?? Effect.void).pipe(
          Effect.mapError((fault) =>
            fault instanceof Refused
              ? new AuthRequired({ reason: refused(fault.reason).message })
              : new AuthUnavailable({ reason: fault.message })
          ),
          Effect.map(letIn)
        )
      ).pipe(Effect.flatMap(Fiber.join)),
    disconnect: onDisconnect === undefined
      ? undefined
      : (visitor) => void run(Effect.ignore(call("onDisconnect", () => onDisconnect(visitor))))
  })
})

export const layer: Layer.Layer<Interception, never, ServerConfig> = Layer.scoped(Interception, make)
