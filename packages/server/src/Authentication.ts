/**
 * Who a connection is of. Without another layer nobody is asked: all are anonymous, and a token is refused, as nobody here
 * could say what it is worth.
 *
 * ```
 * TopGunServer.layer({ auth: "token", host: "0.0.0.0" }).pipe(Layer.provide(Authentication.layerVerifier(verify)))
 * ```
 */
import { AuthRequired, AuthUnavailable } from "@topgun/core/GridError"
import * as Protocol from "@topgun/core/Protocol"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"

/** Whom a token is of. */
export const Principal = Schema.Struct({
  userId: Schema.String.pipe(Schema.minLength(1), Schema.maxLength(256)),
  roles: Schema.optional(Schema.Array(Schema.String)),
  attributes: Schema.optional(Schema.Record({
    key: Schema.String,
    value: Schema.Union(Schema.String, Schema.Number, Schema.Boolean, Schema.Array(Schema.String))
  })),
  /** When the token expires by the server's clock, in ms; absent when it doesn't. */
  expiresAt: Schema.optional(Schema.Finite)
})
/** Whom a token is of. */
export type Principal = typeof Principal.Type

/** What a server asks of those who connect. */
export interface Verifier {
  /** Whether nobody is asked for a token. */
  readonly isAnonymous: boolean
  /** Who connects with this token, or with none; `undefined` for one who isn't asked. It answers within bounds of its own. */
  readonly verify: (token: string | null) => Effect.Effect<Principal | undefined, AuthRequired | AuthUnavailable>
}

const anonymous: Verifier = {
  isAnonymous: true,
  verify: (token) =>
    token === null
      ? Effect.succeed(undefined)
      : new AuthRequired({
        reason: "this server has no token verifier configured, so it can't accept a token: connect without one"
      })
}

/** Who is let in. */
export class Authentication extends Context.Reference<Authentication>()("@topgun/server/Authentication", {
  defaultValue: () => anonymous
}) {}

/** Everybody is let in, without a token: as without this layer. */
export const layerAnonymous: Layer.Layer<Authentication> = Layer.succeed(Authentication, anonymous)

const isPrincipal = Schema.is(Principal)

/**
 * Lets in whom `verify` vouches for. One that throws, dies or takes longer than `timeout` is no answer: the client is told so,
 * and tries again later.
 */
export const layerVerifier = (
  verify: (token: string) => Effect.Effect<Principal, AuthRequired>,
  options: {
    /** How long `verify` may take. Higher suits key sets that are far away, and keeps strangers' connections longer. */
    readonly timeout?: Duration.DurationInput
  } = {}
): Layer.Layer<Authentication> => {
  const timeout = Duration.decode(options.timeout ?? "4 seconds")
  return Layer.succeed(Authentication, {
    isAnonymous: false,
    verify: (token) => {
      if (token === null) return new AuthRequired({ reason: "this server lets nobody in without a token" })
      if (token.length > Protocol.tokenLengthMax) return new AuthRequired({ reason: "the token is too long" })
      return Effect.suspend(() => verify(token)).pipe(
        Effect.timeoutFail({
          duration: timeout,
          onTimeout: () =>
            new AuthUnavailable({ reason: `the token was not verified within ${Duration.format(timeout)}` })
        }),
        Effect.catchAllDefect((cause) =>
          Effect.zipRight(
            Effect.logError("The verifier of tokens failed", cause),
            // Whoever asks isn't let in yet: what went wrong is for the operator to read.
            new AuthUnavailable({ reason: "the server's verifier of tokens failed" })
          )
        ),
        Effect.filterOrFail(
          isPrincipal,
          () => new AuthUnavailable({ reason: "the server's verifier of tokens named no user" })
        )
      )
    }
  })
}
