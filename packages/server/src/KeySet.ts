/**
 * The keys that an issuer of tokens publishes (JWK set, RFC 7517), fetched when they are needed and kept: for ten minutes, and
 * anew when a token names a key that isn't among them, twice a minute at most, whatever strangers send.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as jose from "jose"
import { AuthRequired, AuthUnavailable } from "@topgun/core/GridError"
import { isLoopback } from "./Loopback.ts"

/** How long a fetch may take, in ms: the connection that waits for it has five seconds to authenticate. */
const fetchMillisMax = 3_000
/** How long keys count, in ms: as long can one that was withdrawn still be used. */
const ageMillisMax = 600_000
/** The least time between a fetch and one for a key that wasn't there, in ms. */
const cooldownMillis = 30_000
/** The least time between a fetch that failed and the next, in ms. */
const retryMillis = 1_000
/** Bytes of a key set, at most: room for some 100 certificates. */
const bytesMax = 512 * 1024

/** The key that a token with this header is to be verified by. */
export type FindKey = (
  header: jose.JWSHeaderParameters
) => Effect.Effect<Uint8Array | jose.KeyObject | jose.CryptoKey, AuthRequired | AuthUnavailable>

/** The URL of a key set, or why keys can't be taken from there: who can change them on their way makes tokens. */
export const parseUrl = (text: string): Either.Either<URL, string> => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const isSafe = url?.protocol === "https:" ||
    (url?.protocol === "http:" && isLoopback(url.hostname.replace(/^\[|\]$/g, "")))
  return url !== undefined && isSafe && url.username === "" && url.password === ""
    ? Either.right(url)
    : Either.left("the key set's URL can't be used: expected https, or http on this machine, without user and password")
}

/** The whole of an answer, if it isn't too long. */
const bounded = async (response: Response): Promise<Response> => {
  const parts: Array<Uint8Array> = []
  let bytes = 0
  for await (const part of response.body ?? []) {
    bytes += part.length
    if (bytes > bytesMax) throw new Error(`the key set has more than ${bytesMax} bytes`)
    parts.push(part)
  }
  return new Response(Buffer.concat(parts), { status: response.status })
}

/** Fetches a key set, unless the last fetch has just failed: then it fails for the same reason. */
const patient = (now: () => number): jose.FetchImplementation => {
  let failure: { readonly atMillis: number; readonly cause: unknown } | undefined
  return async (url, options) => {
    if (failure !== undefined && now() - failure.atMillis < retryMillis) throw failure.cause
    try {
      const response = await bounded(await fetch(url, options))
      if (response.status !== 200) throw new Error(`status ${response.status} instead of 200`)
      // Throws for what is none, which is a failure as well.
      jose.createLocalJWKSet(await response.clone().json() as jose.JSONWebKeySet)
      failure = undefined
      return response
    } catch (cause) {
      failure = { atMillis: now(), cause }
      throw cause
    }
  }
}

/** A key set that is fetched from `url`, and from nowhere that a token or an answer names. */
export const make = (url: URL): Effect.Effect<FindKey> =>
  Effect.map(Effect.clock, (clock) => {
    // Unlike the time of day, it never goes back.
    const now = () => Number(clock.unsafeCurrentTimeNanos() / 1_000_000n)
    const keys = jose.createRemoteJWKSet(url, {
      timeoutDuration: fetchMillisMax,
      cooldownDuration: cooldownMillis,
      cacheMaxAge: ageMillisMax,
      [jose.customFetch]: patient(now)
    })
    let toldMillis = -Infinity
    /** Not for each of the tokens that wait for the same keys. */
    const tell = (cause: unknown) => {
      if (now() - toldMillis < retryMillis) return Effect.void
      toldMillis = now()
      return Effect.logWarning(`The keys for tokens can't be had from ${url.origin}${url.pathname}`, cause)
    }
    return (header) =>
      Effect.tryPromise({ try: () => keys(header), catch: (cause) => cause }).pipe(
        Effect.catchAll((cause): Effect.Effect<never, AuthRequired | AuthUnavailable> => {
          if (cause instanceof jose.errors.JWKSNoMatchingKey) {
            return new AuthRequired({ reason: "the token is signed by a key that this server doesn't know" })
          }
          if (cause instanceof jose.errors.JWKSMultipleMatchingKeys) {
            return new AuthRequired({ reason: "the token doesn't say by which key it is signed (kid)" })
          }
          return Effect.zipRight(
            tell(cause),
            new AuthUnavailable({ reason: "the keys to verify tokens by can't be had at present" })
          )
        })
      )
  })
