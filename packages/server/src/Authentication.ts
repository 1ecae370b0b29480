/**
 * Who a connection is of. Without another layer nobody is asked: all are anonymous, and a token is refused, as nobody here
 * could say what it is worth. Every way into a server asks the same verifier: the handshake and, by {@link bearerToken}, HTTP.
 *
 * ```
 * TopGunServer.layer({ auth: "token", host: "0.0.0.0" }).pipe(
 *   Layer.provide(Authentication.layerJwt({ secret: Redacted.make(secret), audience: "topgun" }))
 * )
 * ```
 */
import { type AuthExpired, AuthRequired, AuthUnavailable, ConfigInvalid } from "@topgun/core/GridError"
import * as Protocol from "@topgun/core/Protocol"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Jwt from "./Jwt.ts"
import { Principal } from "./Principal.ts"
import { jwtOptions, ServerConfig } from "./ServerConfig.ts"

export { Principal }

/** What a server asks of those who connect. */
export interface Verifier {
  /** Whether nobody is asked for a token. */
  readonly isAnonymous: boolean
  /** Who connects with this token, or with none; `undefined` for one who isn't asked. It answers within bounds of its own. */
  readonly verify: (
    token: string | null
  ) => Effect.Effect<Principal | undefined, AuthRequired | AuthExpired | AuthUnavailable>
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

const makeVerifier = (verify: Jwt.Verify, timeout: Duration.Duration): Verifier => ({
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
          // In words, as a fault of somebody else's may quote what it was given.
          Effect.logError("The verifier of tokens failed", Cause.pretty(Cause.die(cause)).replaceAll(token, "<token>")),
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

/** How long the verification of a token may take unless told otherwise: less than a connection has to authenticate. */
const timeoutDefault = Duration.seconds(4)

/**
 * Lets in whom `verify` vouches for. One that throws, dies or takes longer than `timeout` is no answer: the client is told so,
 * and tries again later.
 */
export const layerVerifier = (
  verify: (token: string) => Effect.Effect<Principal, AuthRequired | AuthExpired | AuthUnavailable>,
  options: {
    /** How long `verify` may take. Higher suits key sets that are far away, and keeps strangers' connections longer. */
    readonly timeout?: Duration.DurationInput
  } = {}
): Layer.Layer<Authentication> =>
  Layer.succeed(Authentication, makeVerifier(verify, Duration.decode(options.timeout ?? timeoutDefault)))

const makeJwt = (options: Jwt.Options): Effect.Effect<Verifier, ConfigInvalid> =>
  Jwt.make(options).pipe(
    Effect.mapBoth({
      onFailure: (faults) => new ConfigInvalid({ faults }),
      onSuccess: (verify) => makeVerifier(verify, timeoutDefault)
    })
  )

/**
 * Lets in who has a JSON Web Token by these options. Fails with every reason why they can't be used: a secret that can be
 * guessed, a key that is too weak, algorithms that don't go with it.
 */
export const layerJwt = (options: Jwt.Options): Layer.Layer<Authentication, ConfigInvalid> =>
  Layer.effect(Authentication, makeJwt(options))

/** As the configuration says, where it has a key for tokens; otherwise what is provided, which is nothing by default. */
export const layerConfigured: Layer.Layer<Authentication, ConfigInvalid, ServerConfig> = Layer.effect(
  Authentication,
  Effect.gen(function*() {
    const provided = yield* Authentication
    const options = jwtOptions(yield* ServerConfig)
    if (options === undefined) return provided
    if (!provided.isAnonymous) {
      return yield* new ConfigInvalid({
        faults: ["the configuration has a key for tokens, and an Authentication is provided as well: keep one of them"]
      })
    }
    if (options.jwksUrl !== undefined && options.issuer === undefined && options.audience === undefined) {
      yield* Effect.logWarning(
        "Tokens are accepted by whichever issuer and for whichever application the keys of TOPGUN_JWKS_URL are used: " +
          "set TOPGUN_JWT_ISSUER or TOPGUN_JWT_AUDIENCE"
      )
    }
    return yield* makeJwt(options)
  })
)

/**
 * The token in the value of an `Authorization` header (RFC 6750, section 2.1), for {@link Verifier.verify}: `null` without the
 * header. Another scheme, or anything but one token after it, is a failure, as it isn't the same as having none.
 */
export const bearerToken = (header: string | undefined): Either.Either<string | null, AuthRequired> => {
  if (header === undefined) return Either.right(null)
  const [, token] = /^bearer +([\w.~+/-]+=*)$/i.exec(header) ?? []
  return token === undefined
    ? Either.left(new AuthRequired({ reason: "the Authorization header isn't \"Bearer\" and one token" }))
    : Either.right(token)
}
