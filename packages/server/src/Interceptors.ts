/**
 * Code of the operator's before and after operations, and when devices come and go.
 *
 * ```
 * TopGunServer.layer().pipe(Layer.provide(Interceptors.layer({
 *   before: ({ map, value }) => map === "orders" && value === undefined ? Interceptors.refuse("orders stay") : Effect.void,
 *   after: ({ key, map }) => Effect.logDebug("written").pipe(Effect.annotateLogs({ key, map }))
 * })))
 * ```
 *
 * - **`before`** sees each operation before it is carried out, in the order in which its device sends them, and lets it pass, gives it
 *   another value ({@link change}) or refuses it ({@link refuse}). The device's connection isn't read meanwhile, and others go on. It
 *   sees an operation that comes again only where it hasn't been answered. What it lets pass may still be refused: what a user may
 *   write is judged of what it makes, too.
 * - **`after`** hears of each operation when it was accepted or refused, in that order, off the path of writing: there is a bounded line of
 *   them, and where it is full they are left out, and the log says how many.
 * - **`onConnect`** sees each device before it is let in, and may refuse it. **`onDisconnect`** is called once for each that it has let in.
 *
 * Each call has `interceptorMillisMax`. One that dies or takes longer refuses what it is about, is logged once a minute, and harms nothing
 * else. It runs in the server's process, so one that never yields holds everybody up.
 */
import type { MapKind } from "@topgun/core/Cell"
import { Refused } from "@topgun/core/GridError"
import type * as Value from "@topgun/core/Value"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Principal } from "./Authentication.ts"

/** An operation of a device. */
export interface Operation {
  readonly map: string
  readonly kind: MapKind
  readonly key: string
  /** Its place among the operations of its device. */
  readonly sequence: number
  /** What is written, or added to a set; of a counter the device's increments and decrements so far. `undefined` for a removal. */
  readonly value: Value.Value | undefined
  /** Whose it is; `undefined` where nobody is asked who he is. */
  readonly principal: Principal | undefined
  readonly nodeId: string
}

/** What became of an operation: `rejected` says why it was refused, where it was. */
export interface Done extends Operation {
  readonly rejected: { readonly cause: string; readonly reason: string } | undefined
}

/** A device that connects. */
export interface Visitor {
  readonly principal: Principal | undefined
  readonly nodeId: string
  /** Where it comes from; `undefined` where that is nowhere on a network. */
  readonly address: string | undefined
}

/** Another value for an operation. */
export interface Change {
  readonly _tag: "Change"
  readonly value: unknown
}

/** Has an operation on a map of records write another value than the one that it came with: it is stored as the same write, just after it. */
export const change = (value: unknown): Effect.Effect<Change> => Effect.succeed({ _tag: "Change", value })

/** Refuses an operation, or a connection, for this reason, of which its device is told 256 characters. */
export const refuse = (reason: string): Effect.Effect<never, Refused> => new Refused({ reason })

/** What is called; see the head of this file. */
export interface Interceptors<R = never> {
  readonly before?: (operation: Operation) => Effect.Effect<Change | void, Refused, R>
  readonly after?: (done: Done) => Effect.Effect<unknown, unknown, R>
  readonly onConnect?: (visitor: Visitor) => Effect.Effect<unknown, Refused, R>
  readonly onDisconnect?: (visitor: Visitor) => Effect.Effect<unknown, unknown, R>
}

/** The interceptors of a server: none, unless they are provided. */
export class Intercepting extends Context.Reference<Intercepting>()("@topgun/server/Interceptors", {
  defaultValue: (): Interceptors => ({})
}) {}

/** Has these called. What they need is taken from where the layer is built. */
export const layer = <R = never>(
  { after, before, onConnect, onDisconnect }: Interceptors<R>
): Layer.Layer<never, never, R> =>
  Layer.effect(
    Intercepting,
    Effect.map(Effect.context<R>(), (context): Interceptors => {
      const here = <A, E>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E> =>
        Effect.isEffect(effect)
          ? Effect.provide(effect, context)
          : Effect.dieMessage("it returned something that is no Effect")
      return {
        ...(before === undefined ? {} : { before: (each) => here(before(each)) }),
        ...(after === undefined ? {} : { after: (each) => here(after(each)) }),
        ...(onConnect === undefined ? {} : { onConnect: (each) => here(onConnect(each)) }),
        ...(onDisconnect === undefined ? {} : { onDisconnect: (each) => here(onDisconnect(each)) })
      }
    })
  )
