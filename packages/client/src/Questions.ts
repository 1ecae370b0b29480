/** Questions to the server on one connection, and their answers, which may come in any order. */
import { MalformedMessage, RequestTimeout } from "@topgun/core/GridError"
import type * as Protocol from "@topgun/core/Protocol"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"

/** How long the server may take to answer one, in ms. */
export const answerMillisMax = 10_000

/** A message of this kind. */
export type Answer<Tag> = Extract<Protocol.ServerMessage, { readonly _tag: Tag }>

/** The server refuses what was asked, on a connection that goes on. */
export class Refusal extends Data.TaggedError("Refusal")<{ readonly cause: string; readonly reason: string }> {}

/** Why there is no answer. */
export type NoAnswer = RequestTimeout | MalformedMessage | Refusal

/** The questions of one connection. */
export const make = (send: (message: Protocol.ClientMessage) => void) => {
  const open = new Map<number, Deferred.Deferred<Protocol.ServerMessage>>()
  let next = 1
  return {
    /** A number that no other question of the connection has. */
    id: (): number => next++,
    /** Sends a question, and waits for its answer. */
    ask: <Tag extends Protocol.ServerMessage["_tag"]>(
      tag: Tag,
      message: (id: number) => Protocol.ClientMessage
    ): Effect.Effect<Answer<Tag>, NoAnswer> =>
      Effect.suspend(() => {
        const id = next++
        const answer = Deferred.unsafeMake<Protocol.ServerMessage>(FiberId.none)
        open.set(id, answer)
        const asked = message(id)
        send(asked)
        return Deferred.await(answer).pipe(
          Effect.timeoutFail({
            duration: answerMillisMax,
            onTimeout: () => new RequestTimeout({ request: asked._tag, afterMillis: answerMillisMax })
          }),
          Effect.flatMap((answered): Effect.Effect<Answer<Tag>, NoAnswer> =>
            answered._tag === tag
              ? Effect.succeed(answered as Answer<Tag>)
              : answered._tag === "Fault"
              ? new Refusal(answered)
              : new MalformedMessage({ reason: `${answered._tag} answers ${asked._tag}` })
          ),
          Effect.ensuring(Effect.sync(() => open.delete(id)))
        )
      }),
    /** An answer came. One to a question that nobody waits for any more is nobody's. */
    answered: (id: number, message: Protocol.ServerMessage): void => {
      const answer = open.get(id)
      open.delete(id)
      if (answer !== undefined) Deferred.unsafeDone(answer, Exit.succeed(message))
    }
  }
}

export type Questions = ReturnType<typeof make>
