/**
 * JSON Web Tokens (RFC 7519), verified by `jose` and, where that leaves a choice, more strictly: what RFC 8725 (best current
 * practices) advises is the only way here.
 *
 * - One key source, and with it the algorithms: a secret verifies HS256 and nothing else, an RSA key RS256, a P-256 key ES256.
 *   What a token's header says can't choose another. A header that brings keys, or says where some are (`jwk`, `jku`, `x5c`,
 *   `x5u`), or that changes what the rest means (`crit`, `b64`, `zip`, `enc`, `cty`) is refused.
 * - One spelling: base64url as RFC 7515 has it, without padding or stray bits; no member of a JSON object twice.
 * - `exp` is required and has no tolerance: a connection has a grace when its token expires (`authGraceMillis`).
 * - An audience is what a token is for. One that has some is refused where none is configured, as RFC 7519 (4.1.3) wants.
 *
 * A token counts until it expires: nobody is asked whether its user is still there. Where that matters, tokens are short-lived.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as jose from "jose"
import { createPublicKey, type JsonWebKey, type KeyObject } from "node:crypto"
import { AuthExpired, AuthRequired, type AuthUnavailable } from "@topgun/core/GridError"
import * as KeySet from "./KeySet.ts"
import { Attribute, type Principal, Roles, UserId } from "./Principal.ts"
import { weakness } from "./Secret.ts"

/** The algorithms that tokens may be signed by. */
export const algorithms = ["HS256", "RS256", "ES256"] as const
/** An algorithm that tokens may be signed by. */
export type Algorithm = (typeof algorithms)[number]

/** The greatest tolerance towards an issuer's clock, in ms. */
export const toleranceMillisMax = 60_000

/** How tokens are verified. Exactly one of `secret`, `publicKey` and `jwksUrl` is given. */
export interface Options {
  /** For HS256: at least 32 bytes that nobody can guess. Whoever has it can make tokens as well. */
  readonly secret?: Redacted.Redacted<string> | undefined
  /** For RS256 (2048 bits or more) or ES256 (P-256): PEM, a certificate included, or the JSON of a JWK. */
  readonly publicKey?: string | undefined
  /** Where the issuer publishes its keys, for RS256 and ES256: `https:`, or `http:` on this machine. */
  readonly jwksUrl?: string | undefined
  /** Fewer algorithms than the key is good for; of use with a key set. @default all that go with the key source */
  readonly algorithms?: ReadonlyArray<Algorithm> | undefined
  /** What `iss` must be, to the letter. @default any, also none */
  readonly issuer?: string | undefined
  /** What `aud` must be or contain, to the letter. @default none: tokens that are for somebody are refused */
  readonly audience?: string | undefined
  /** The claim that is taken for the user's id. @default "sub" */
  readonly userClaim?: string | undefined
  /** The claim with the user's roles, an array of texts. @default "roles" */
  readonly rolesClaim?: string | undefined
  /** Claims that go into the principal's attributes, where a token has them. @default none */
  readonly attributes?: ReadonlyArray<string> | undefined
  /**
   * How far an issuer's clock may be ahead, for `nbf` and `iat`; up to a minute. Lower values refuse fresh tokens of issuers
   * with a bad clock, higher ones let tokens in that much too early. @default 5 seconds
   */
  readonly tolerance?: Duration.DurationInput | undefined
}

/** Says whom a token is of. */
export type Verify = (token: string) => Effect.Effect<Principal, AuthRequired | AuthExpired | AuthUnavailable>

// --- Keys ---

interface Key {
  readonly fits: ReadonlyArray<Algorithm>
  /** The key that a token with this header is to be verified by. */
  readonly of: Effect.Effect<KeySet.FindKey>
}

const constantKey = (algorithm: Algorithm, key: Uint8Array | KeyObject): Key => ({
  fits: [algorithm],
  of: Effect.succeed(() => Effect.succeed(key))
})

const secretKey = (secret: string): Either.Either<Key, string> => {
  const weak = weakness(secret)
  return weak === undefined
    ? Either.right(constantKey("HS256", new TextEncoder().encode(secret)))
    : Either.left(`the secret for tokens ${weak}. Make one with: openssl rand -base64 32`)
}

const unreadableKey = "the public key for tokens can't be read: expected PEM (BEGIN PUBLIC KEY) or the JSON of a JWK"
const weakKey =
  "the public key for tokens is too weak or of the wrong kind: expected RSA of 2048 bits or more, or EC P-256"
const privateKey =
  "the public key for tokens is a private key, which has no place on a server that only verifies: give the " +
  "public one (openssl pkey -pubout), and consider the private one known"

const readKey = (text: string): Either.Either<KeyObject, string> =>
  Either.gen(function*() {
    if (/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text)) return yield* Either.left(privateKey)
    const legible = <A>(read: () => A) => Either.try({ try: read, catch: () => unreadableKey })
    if (!text.trimStart().startsWith("{")) {
      // Where a variable can't have lines, PEM is written with \n in it.
      return yield* legible(() => createPublicKey(text.replaceAll("\\n", "\n")))
    }
    const key = yield* legible(() => JSON.parse(text) as JsonWebKey)
    if (Object.hasOwn(key, "d")) return yield* Either.left(privateKey)
    return yield* legible(() => createPublicKey({ key, format: "jwk" }))
  })

const publicKey = (text: string): Either.Either<Key, string> =>
  Either.flatMap(readKey(text), (key) => {
    const { modulusLength = 0, namedCurve } = key.asymmetricKeyDetails ?? {}
    if (key.asymmetricKeyType === "rsa" && modulusLength >= 2048) return Either.right(constantKey("RS256", key))
    if (key.asymmetricKeyType === "ec" && namedCurve === "prime256v1") return Either.right(constantKey("ES256", key))
    return Either.left(weakKey)
  })

const keySet = (url: string): Either.Either<Key, string> =>
  Either.map(KeySet.parseUrl(url), (parsed) => ({ fits: ["RS256", "ES256"], of: KeySet.make(parsed) }))

const onlyKey = ({ jwksUrl, publicKey: pem, secret }: Options): Either.Either<Key, string> => {
  const given = [
    secret === undefined ? undefined : secretKey(Redacted.value(secret)),
    pem === undefined ? undefined : publicKey(pem),
    jwksUrl === undefined ? undefined : keySet(jwksUrl)
  ].filter((key) => key !== undefined)
  if (given.length === 0) {
    return Either.left("no key to verify tokens by: give a secret, a public key or a key set's URL")
  }
  if (given.length > 1) {
    return Either.left(
      "more than one key to verify tokens by: give a secret, a public key or a key set's URL, and no other"
    )
  }
  return given[0]!
}

// --- Options ---

interface Rules {
  readonly algorithms: ReadonlyArray<Algorithm>
  readonly issuer: string | undefined
  readonly audience: string | undefined
  readonly userClaim: string
  readonly rolesClaim: string
  readonly attributes: ReadonlyArray<string>
  readonly toleranceMillis: number
}

const read = (options: Options): Either.Either<{ readonly key: Key; readonly rules: Rules }, ReadonlyArray<string>> => {
  const key = onlyKey(options)
  const chosen = options.algorithms ?? Either.match(key, { onLeft: () => [], onRight: ({ fits }) => fits })
  const toleranceMillis = Duration.toMillis(options.tolerance ?? "5 seconds")
  const faults: Array<string> = []
  if (Either.isLeft(key)) faults.push(key.left)
  else {
    const strays = chosen.filter((algorithm) => !key.right.fits.includes(algorithm))
    if (strays.length > 0 || chosen.length === 0) {
      faults.push(
        `the algorithms for tokens are ${JSON.stringify(chosen)}: with this key they can be ${
          key.right.fits.join(", ")
        }`
      )
    }
  }
  if (!(toleranceMillis <= toleranceMillisMax)) {
    faults.push(`the tolerance for tokens is ${toleranceMillis} ms: expected at most ${toleranceMillisMax}`)
  }
  if (faults.length > 0 || Either.isLeft(key)) return Either.left(faults)
  return Either.right({
    key: key.right,
    rules: {
      algorithms: chosen,
      issuer: options.issuer,
      audience: options.audience,
      userClaim: options.userClaim ?? "sub",
      rolesClaim: options.rolesClaim ?? "roles",
      attributes: options.attributes ?? [],
      toleranceMillis
    }
  })
}

/** Everything that keeps these options from being used. */
export const faults = (options: Options): ReadonlyArray<string> =>
  Either.match(read(options), { onLeft: (all) => all, onRight: () => [] })

// --- Form ---

const refuse = (reason: string) => new AuthRequired({ reason })

const form = /^([\w-]+)\.([\w-]+)\.([\w-]+)$/
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** The members of all objects within a value of JSON. */
const members = (value: unknown): number => {
  if (typeof value !== "object" || value === null) return 0
  const inner = Object.values(value).reduce<number>((sum, each) => sum + members(each), 0)
  return inner + (Array.isArray(value) ? 0 : Object.keys(value).length)
}

/** The bytes that a part of a token stands for; `undefined` where the same bytes have another spelling. */
const bytesIn = (part: string): Uint8Array | undefined => {
  const bytes = Buffer.from(part, "base64url")
  return bytes.toString("base64url") === part ? bytes : undefined
}

/** The JSON object that a part of a token stands for; `undefined` for anything else, and for one with a name twice. */
const objectIn = (part: string): Readonly<Record<string, unknown>> | undefined => {
  try {
    const text = utf8.decode(bytesIn(part))
    const value: unknown = JSON.parse(text)
    if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined
    // In JSON, a string before a colon is a name, and nothing else is.
    const names = Array.from(text.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?/g)).filter(([, colon]) => colon !== undefined)
    return names.length === members(value) ? value as Record<string, unknown> : undefined
  } catch {
    return undefined
  }
}

/** Header parameters that bring keys or change the meaning of the rest. */
const refusedParameters = ["crit", "b64", "zip", "enc", "cty", "jwk", "jku", "x5c", "x5u"]

const headerFault = (header: Readonly<Record<string, unknown>>, { algorithms: allowed }: Rules): string | undefined => {
  const refused = refusedParameters.find((name) => Object.hasOwn(header, name))
  if (refused !== undefined) return `"${refused}" in a token's header isn't accepted`
  if (!allowed.some((algorithm) => algorithm === header["alg"])) {
    return "the token is signed by an algorithm that isn't accepted"
  }
  const { kid, typ } = header
  if (kid !== undefined && typeof kid !== "string") return "the token's \"kid\" isn't a text"
  if (typ !== undefined && !(typeof typ === "string" && /^(application\/)?(at\+)?jwt$/i.test(typ))) {
    return "the token's \"typ\" isn't JWT or at+jwt"
  }
  return undefined
}

/** The header of a token whose form is right; nothing is known of its signature yet. */
const headerOf = (token: string, rules: Rules): Either.Either<jose.JWSHeaderParameters, AuthRequired> => {
  const [, first, second, signature] = form.exec(token) ?? []
  if (first === undefined || second === undefined || signature === undefined) {
    return Either.left(refuse("the token isn't a signed JWT: three parts of base64url, parted by dots"))
  }
  const header = objectIn(first)
  if (header === undefined) return Either.left(refuse("the token's header can't be read"))
  if (objectIn(second) === undefined) return Either.left(refuse("the token's claims can't be read"))
  if (bytesIn(signature) === undefined) return Either.left(refuse("the token's signature can't be read"))
  const fault = headerFault(header, rules)
  return fault === undefined ? Either.right(header) : Either.left(refuse(fault))
}

// --- Claims ---

/** Seconds of a date that no token has: the year 5138. A date in ms is beyond it. */
const secondsMax = 100_000_000_000

/** A claim that is a date, in ms; `undefined` when the token has none. */
const dateIn = (
  claims: jose.JWTPayload,
  name: "exp" | "nbf" | "iat"
): Either.Either<number | undefined, AuthRequired> => {
  const seconds: unknown = claims[name]
  if (seconds === undefined) return Either.right(undefined)
  return typeof seconds === "number" && seconds >= 0 && seconds < secondsMax
    ? Either.right(Math.floor(seconds * 1_000))
    : Either.left(refuse(`the token's "${name}" isn't a date in seconds`))
}

const isUserId = Schema.is(UserId)
const isRoles = Schema.is(Roles)
const isAttribute = Schema.is(Attribute)

const claimIn = <A>(
  claims: jose.JWTPayload,
  name: string,
  is: (value: unknown) => value is A,
  expected: string
): Either.Either<A | undefined, AuthRequired> => {
  if (!Object.hasOwn(claims, name)) return Either.right(undefined)
  const value = claims[name]
  return is(value) ? Either.right(value) : Either.left(refuse(`the token's "${name}" isn't ${expected}`))
}

/** Whom verified claims are of, at a time in ms. */
const principalOf = (
  claims: jose.JWTPayload,
  { attributes, rolesClaim, toleranceMillis, userClaim, ...rules }: Rules,
  nowMillis: number
): Either.Either<Principal, AuthRequired | AuthExpired> =>
  Either.gen(function*() {
    const expiresAt = yield* dateIn(claims, "exp")
    if (expiresAt === undefined) {
      return yield* Either.left(refuse("the token has no \"exp\": it must say when it expires"))
    }
    for (const name of ["nbf", "iat"] as const) {
      const from = yield* dateIn(claims, name)
      if (from !== undefined && from > nowMillis + toleranceMillis) {
        return yield* Either.left(refuse(`the token's "${name}" is in the future: it doesn't count yet`))
      }
    }
    if (expiresAt <= nowMillis) return yield* Either.left(new AuthExpired({ reason: "the token has expired" }))
    if (rules.audience === undefined && claims.aud !== undefined) {
      return yield* Either.left(refuse("the token is for an audience, and this server isn't told that it is meant"))
    }
    const userId = yield* claimIn(claims, userClaim, isUserId, "a text of 1 to 256 characters")
    if (userId === undefined) {
      return yield* Either.left(refuse(`the token has no "${userClaim}": it must say whom it is of`))
    }
    const roles = yield* claimIn(claims, rolesClaim, isRoles, "an array of at most 100 texts of 1 to 128 characters")
    const found: Array<readonly [string, Attribute]> = []
    for (const name of attributes) {
      const value = yield* claimIn(claims, name, isAttribute, "a text, a number, true, false, or an array of texts")
      if (value !== undefined) found.push([name, value])
    }
    return {
      userId,
      ...(roles === undefined ? {} : { roles }),
      ...(found.length === 0 ? {} : { attributes: Object.fromEntries(found) }),
      expiresAt
    }
  })

// --- Verification ---

/** What to tell a stranger of a refusal by `jose`: which check it was, in words of ours. */
const refusal = (fault: unknown): AuthRequired | AuthExpired => {
  if (fault instanceof jose.errors.JWTExpired) return new AuthExpired({ reason: "the token has expired" })
  if (fault instanceof jose.errors.JWTClaimValidationFailed) {
    return refuse(
      fault.reason === "missing"
        ? `the token has no "${fault.claim}"`
        : `the token's "${fault.claim}" isn't what this server asks for`
    )
  }
  return refuse("the token's signature is wrong")
}

const verifyBy = (find: KeySet.FindKey, rules: Rules): Verify => (token) =>
  Effect.gen(function*() {
    const key = yield* find(yield* headerOf(token, rules))
    const now = yield* Clock.currentTimeMillis
    const { payload } = yield* Effect.tryPromise({
      try: () =>
        jose.jwtVerify(token, key, {
          algorithms: Array.from(rules.algorithms),
          ...(rules.issuer === undefined ? {} : { issuer: rules.issuer }),
          ...(rules.audience === undefined ? {} : { audience: rules.audience }),
          // What the dates mean is said above, in one place; `jose` has one tolerance for all of them.
          clockTolerance: toleranceMillisMax / 1_000,
          currentDate: new Date(now)
        }),
      catch: refusal
    })
    return yield* principalOf(payload, rules, now)
  })

/** A verifier by these options; every reason why they can't be used otherwise. The options' key set is fetched when it's needed. */
export const make = (options: Options): Effect.Effect<Verify, ReadonlyArray<string>> =>
  Effect.flatMap(read(options), ({ key, rules }) => Effect.map(key.of, (find) => verifyBy(find, rules)))
