import { describe, expect, it } from "@effect/vitest"
import * as Protocol from "@topgun/core/Protocol"
import * as Authentication from "@topgun/server/Authentication"
import type * as Jwt from "@topgun/server/Jwt"
import { everything } from "@topgun/server/PermissionPolicy"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import { createHmac, generateKeyPairSync, type KeyObject, sign } from "node:crypto"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { afterEach, vi } from "vitest"
import { authAnew, inProcess, overSocket, settled } from "./PlainClient.ts"

// --- Tokens, made by hand: a library would refuse to make most of these ---

const now = 1_700_000_000
const secret = "kx3fVb9Qe7TzR1mWp0sYd5hLuJcN8aGi"
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
const otherRsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
const weakRsa = generateKeyPairSync("rsa", { modulusLength: 1024 })
const ec = generateKeyPairSync("ec", { namedCurve: "P-256" })
const otherCurve = generateKeyPairSync("ec", { namedCurve: "P-384" })

const pemOf = (key: KeyObject): string => key.export({ format: "pem", type: "spki" }) as string
const jwkOf = (key: KeyObject, more: object = {}) => ({ ...key.export({ format: "jwk" }), use: "sig", ...more })

const encode = (text: string | Uint8Array): string => Buffer.from(text).toString("base64url")
const json = (value: unknown): string => typeof value === "string" ? value : JSON.stringify(value)

type Signer = (input: string) => Uint8Array
const hs256 = (key: string | Uint8Array): Signer => (input) => createHmac("sha256", key).update(input).digest()
const rs256 = (key: KeyObject): Signer => (input) => sign("sha256", Buffer.from(input), key)
const es256 = (key: KeyObject): Signer => (input) =>
  sign("sha256", Buffer.from(input), { key, dsaEncoding: "ieee-p1363" })

/** A token; header and claims may be given as text, for what no object has. */
const token = (header: unknown, claims: unknown, signer: Signer = hs256(secret)): string => {
  const input = `${encode(json(header))}.${encode(json(claims))}`
  return `${input}.${encode(signer(input))}`
}

const header = { alg: "HS256", typ: "JWT" }
const rsHeader = { alg: "RS256", kid: "rsa" }
const esHeader = { alg: "ES256", kid: "ec" }
const claims = { iss: "https://issuer.example", aud: "topgun", sub: "alice", exp: now + 600 }
const withHeader = (more: object) => token({ ...header, ...more }, claims)
const withClaims = (more: object) => token(header, { ...claims, ...more })
const without = (name: keyof typeof claims) =>
  token(header, Object.fromEntries(Object.entries(claims).filter(([each]) => each !== name)))
/** The claims with a member that JSON has and objects don't. */
const withMember = (member: string) => token(header, `${JSON.stringify(claims).slice(0, -1)},${member}}`)

const options: Jwt.Options = {
  secret: Redacted.make(secret),
  issuer: "https://issuer.example",
  audience: "topgun",
  attributes: ["tenant"]
}

const good = token(header, claims)
const [goodHeader, goodClaims, goodSignature] = good.split(".") as [string, string, string]

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
/** The letter whose lowest bit is another: in a last one, it decodes to the same bytes. */
const nextLetter = (letter: string): string => letters[letters.indexOf(letter) ^ 1]!

/** Nothing of which lets anyone in. What isn't said to expire is refused with AuthRequired. */
const corpus: ReadonlyArray<readonly [what: string, token: string, tag?: "AuthExpired"]> = [
  ...["none", "None", "nOnE", ""].flatMap((alg): Array<[string, string]> => [
    [`alg "${alg}" without a signature`, `${encode(json({ alg }))}.${goodClaims}.`],
    [`alg "${alg}" with the signature of another token`, `${encode(json({ alg }))}.${goodClaims}.${goodSignature}`],
    [`alg "${alg}", signed`, token({ alg }, claims)]
  ]),
  ["no alg", token({}, claims)],
  ["alg that is no text", token({ alg: ["HS256"] }, claims)],
  ["alg in lower case", token({ alg: "hs256" }, claims)],
  [
    "an algorithm that isn't allowed",
    token({ alg: "HS512" }, claims, (input) => createHmac("sha512", secret).update(input).digest())
  ],
  ["a stripped signature", `${goodHeader}.${goodClaims}.`],
  ["a signature that is missing", `${goodHeader}.${goodClaims}`],
  ["other claims under the signature", `${goodHeader}.${encode(json({ ...claims, sub: "root" }))}.${goodSignature}`],
  ["the signature of an empty secret", token(header, claims, hs256(""))],
  ["the secret of another environment", token(header, claims, hs256("another-environment-Qe7TzR1mWp0s"))],
  ["RS256, for a secret", token({ alg: "RS256" }, claims, rs256(rsa.privateKey))],
  ["an embedded jwk", withHeader({ jwk: jwkOf(rsa.publicKey) })],
  ["jku", withHeader({ jku: "http://127.0.0.1:1/keys" })],
  ["x5u", withHeader({ x5u: "http://127.0.0.1:1/cert" })],
  ["x5c", withHeader({ x5c: ["MIIB"] })],
  ["crit that is unknown", withHeader({ crit: ["exp2"], exp2: 1 })],
  ["crit that is empty", withHeader({ crit: [] })],
  ["b64: false", token({ ...header, b64: false, crit: ["b64"] }, claims)],
  ["b64: false that isn't critical", withHeader({ b64: false })],
  ["zip", withHeader({ zip: "DEF" })],
  ["a nested token", token({ ...header, cty: "JWT" }, encode(good))],
  ["a nested token that doesn't say so", token(header, JSON.stringify(good))],
  ["an encrypted token", `${encode(json({ alg: "dir", enc: "A256GCM" }))}..AAAA.AAAA.AAAA`],
  ["an encrypted token, with a key", `${encode(json({ alg: "RSA-OAEP", enc: "A256GCM" }))}.AA.AA.AA.AA`],
  ["kid that is an array", withHeader({ kid: ["a"] })],
  ["kid that is an object", withHeader({ kid: { $ne: "" } })],
  ["kid that is a path, signed by what is there", token({ ...header, kid: "../../dev/null" }, claims, hs256(""))],
  ["kid of a megabyte", withHeader({ kid: "k".repeat(1024 * 1024) })],
  ["typ of another use", withHeader({ typ: "dpop+jwt" })],
  ["typ that is no text", withHeader({ typ: 1 })],
  ["alg twice", token("{\"alg\":\"none\",\"alg\":\"HS256\"}", claims)],
  ["alg twice, once in escapes", token("{\"\\u0061lg\":\"none\",\"alg\":\"HS256\"}", claims)],
  ["sub twice", withMember("\"sub\":\"root\"")],
  ["a name twice, deep inside", withMember("\"tenant\":[{\"a\":1,\"a\":2}]")],
  ["no exp", without("exp")],
  ["exp that is a text", withClaims({ exp: String(now + 600) })],
  ["exp that is null", withClaims({ exp: null })],
  ["exp NaN", token(header, `{"sub":"alice","exp":NaN}`)],
  ["exp 1e400", token(header, JSON.stringify(claims).replace(String(claims.exp), "1e400"))],
  ["exp in ms", withClaims({ exp: (now + 600) * 1_000 })],
  ["exp that is negative", withClaims({ exp: -1 }), "AuthExpired"],
  ["exp now", withClaims({ exp: now }), "AuthExpired"],
  ["exp a second ago", withClaims({ exp: now - 1 }), "AuthExpired"],
  ["exp long ago", withClaims({ exp: now - 100_000 }), "AuthExpired"],
  ["exp a fraction ago", withClaims({ exp: now - 0.001 }), "AuthExpired"],
  ["nbf beyond the tolerance", withClaims({ nbf: now + 6 })],
  ["nbf that is a text", withClaims({ nbf: "0" })],
  ["nbf that is -1e400", withMember("\"nbf\":-1e400")],
  ["iat beyond the tolerance", withClaims({ iat: now + 6 })],
  ["iat that is a text", withClaims({ iat: String(now) })],
  ["no aud", without("aud")],
  ["another aud", withClaims({ aud: "topgun-staging" })],
  ["aud that contains the letters", withClaims({ aud: "not-topgun" })],
  ["aud that begins with the letters", withClaims({ aud: ["topgun2"] })],
  ["aud in upper case", withClaims({ aud: "TOPGUN" })],
  ["aud that is empty", withClaims({ aud: [] })],
  ["aud that is an object", withClaims({ aud: { topgun: true } })],
  ["no iss", without("iss")],
  ["iss with a slash more", withClaims({ iss: "https://issuer.example/" })],
  ["iss in another case", withClaims({ iss: "https://Issuer.example" })],
  ["iss in an array", withClaims({ iss: ["https://issuer.example"] })],
  ["no sub", without("sub")],
  ...[7, null, true, ["alice"], { id: "alice" }, "", "a".repeat(257), "a\u0000b", "a\nb", "a\u2028b", "\ud800"].map((
    sub
  ): [string, string] => [`sub ${JSON.stringify(sub).slice(0, 20)}`, withClaims({ sub })]),
  ...[
    "ADMIN",
    "NOT_ADMIN",
    7,
    null,
    { ADMIN: true },
    ["ADMIN", ["ADMIN"]],
    ["ADMIN", 7],
    ["ADMIN\u0000"],
    [""],
    ["r".repeat(129)],
    Array.from({ length: 101 }, (_, i) => String(i)),
    Array.from({ length: 100_000 }, () => "r")
  ].map((roles): [string, string] => [`roles ${JSON.stringify(roles).slice(0, 24)}`, withClaims({ roles })]),
  ...[null, { a: 1 }, [1], ["a", null]].map((tenant): [string, string] => [
    `an attribute ${JSON.stringify(tenant)}`,
    withClaims({ tenant })
  ]),
  ["an attribute 1e400", withMember("\"tenant\":1e400")],
  ["a token of a megabyte", withClaims({ fill: "x".repeat(1024 * 1024) })],
  ["nothing", ""],
  ["dots", ".."],
  ["whitespace before", ` ${good}`],
  ["whitespace after", `${good}\n`],
  ["whitespace within", `${goodHeader}. ${goodClaims}.${goodSignature}`],
  ["Bearer before it", `Bearer ${good}`],
  ["padding", `${goodHeader}.${goodClaims}.${goodSignature}=`],
  ["base64 of the other alphabet", good.replace(".", "+/.")],
  ["a last letter with bits that nothing needs", `${good.slice(0, -1)}${nextLetter(good.at(-1)!)}`],
  ["letters that look alike", good.replaceAll("e", "е").replaceAll("a", "а")],
  ["a header that is no object", token("[]", claims)],
  ["a header that is null", token("null", claims)],
  ["claims that are no JSON", token(header, "{")],
  ["claims that are an array", token(header, [claims])],
  ["claims nested a thousand times", token(header, `{"a":${"[".repeat(1_000)}${"]".repeat(1_000)}}`)],
  ["claims with a byte order mark", token(header, `\ufeff${JSON.stringify(claims)}`)],
  [
    "claims that aren't UTF-8",
    (() => {
      const input = `${goodHeader}.${encode(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]))}`
      return `${input}.${encode(hs256(secret)(input))}`
    })()
  ]
]

/** Of the key set's server: signed by others than its keys, or said to be. */
const asymmetricCorpus: ReadonlyArray<readonly [what: string, token: string]> = [
  ...[pemOf(rsa.publicKey), pemOf(rsa.publicKey).trim(), json(jwkOf(rsa.publicKey))].map((key, i): [string, string] => [
    `HS256, signed with the public key (${["PEM", "PEM without its last line end", "JWK"][i]})`,
    token({ alg: "HS256", kid: "rsa" }, claims, hs256(key))
  ]),
  ["RS256, signed by another key", token(rsHeader, claims, rs256(otherRsa.privateKey))],
  [
    "RS256, signed by a key of 1024 bits in the set",
    token({ ...rsHeader, kid: "weak" }, claims, rs256(weakRsa.privateKey))
  ],
  ["ES256 on another curve", token({ ...esHeader, kid: "p384" }, claims, es256(otherCurve.privateKey))],
  ["ES256 on another curve, under the name of a good key", token(esHeader, claims, es256(otherCurve.privateKey))],
  ["ES256 with r and s of 0", token(esHeader, claims, () => new Uint8Array(64))],
  ["ES256 in DER", token(esHeader, claims, (input) => sign("sha256", Buffer.from(input), ec.privateKey))],
  ["RS256 under the name of an ES256 key", token({ alg: "RS256", kid: "ec" }, claims, rs256(rsa.privateKey))],
  ["HS256 by a symmetric key in the set", token({ alg: "HS256", kid: "oct" }, claims)],
  ["no kid, where keys are many", token({ alg: "RS256" }, claims, rs256(rsa.privateKey))],
  [
    "an embedded jwk, signed by it",
    token({ ...rsHeader, jwk: jwkOf(otherRsa.publicKey) }, claims, rs256(otherRsa.privateKey))
  ],
  ...["../../dev/null", "' OR 1=1 --", "__proto__", "constructor", "", "*", "k".repeat(2_000)].map((
    kid
  ): [string, string] => [
    `kid ${JSON.stringify(kid).slice(0, 24)}`,
    token({ alg: "RS256", kid }, claims, rs256(rsa.privateKey))
  ])
]

const verifierOf = (jwt: Jwt.Options) =>
  Effect.map(
    Layer.build(Authentication.layerJwt(jwt)),
    (services) => Context.get(services, Authentication.Authentication)
  )

const startNow = TestClock.setTime(now * 1_000)
/** For a server: what it does every minute would be done for each since 1970. */
const startedNow = Layer.effectDiscard(startNow)
const quiet = Logger.remove(Logger.defaultLogger)

describe("A JSON Web Token", () => {
  it.scoped("says whom it is of, what they may be, and until when", () =>
    Effect.gen(function*() {
      yield* startNow
      const { isAnonymous, verify } = yield* verifierOf(options)
      expect(isAnonymous).toBe(false)
      expect(yield* verify(good)).toEqual({ userId: "alice", expiresAt: (now + 600) * 1_000 })
      expect(yield* verify(withClaims({ roles: ["ADMIN", "*"], tenant: "acme", other: 1, exp: now + 0.5 }))).toEqual({
        userId: "alice",
        roles: ["ADMIN", "*"],
        attributes: { tenant: "acme" },
        expiresAt: now * 1_000 + 500
      })
      for (const tenant of [0, -1.5, true, "", [], ["a", "b"]]) {
        expect(yield* verify(withClaims({ tenant }))).toMatchObject({ attributes: { tenant } })
      }
      expect((yield* verify(withClaims({ roles: [] })))?.roles).toEqual([])
      expect((yield* verify(withClaims({ roles: Array.from({ length: 100 }, () => "r") })))?.roles).toHaveLength(100)
    }))

  it.scoped("may be addressed to others as well, say its type in any case, and name a key", () =>
    Effect.gen(function*() {
      yield* startNow
      const { verify } = yield* verifierOf(options)
      for (
        const each of [
          withClaims({ aud: ["other", "topgun"] }),
          withHeader({ typ: "at+jwt" }),
          withHeader({ typ: "application/at+JWT" }),
          withHeader({ typ: "jwt" }),
          withHeader({ kid: "../../dev/null" }),
          withHeader({ x5t: "AAAA", cat: "cl" }),
          token("{ \"alg\" : \"HS256\" }", ` ${JSON.stringify({ ...claims, note: "a \" : b" })} `)
        ]
      ) expect((yield* verify(each))?.userId).toBe("alice")
    }))

  it.scoped("takes the user's id as it is", () =>
    Effect.gen(function*() {
      yield* startNow
      const { verify } = yield* verifierOf(options)
      for (
        const sub of ["*", "$&", "{userId}", "../", "__proto__", "constructor", "a:b/c", " ", "ünï👩‍👩‍👧", "u".repeat(256)]
      ) {
        expect(yield* verify(withClaims({ sub }))).toEqual({ userId: sub, expiresAt: (now + 600) * 1_000 })
      }
    }))

  it.scoped("carries over no more than it has, whatever the attributes are called", () =>
    Effect.gen(function*() {
      yield* startNow
      const { verify } = yield* verifierOf({
        ...options,
        attributes: ["__proto__", "toString", "tenant"],
        rolesClaim: "constructor"
      })
      const plain = yield* verify(good)
      expect(plain).toEqual({ userId: "alice", expiresAt: (now + 600) * 1_000 })
      const full = yield* verify(withMember("\"__proto__\":[\"x\"],\"toString\":\"t\",\"constructor\":[\"r\"]"))
      expect(Object.entries(full!.attributes!)).toEqual([["__proto__", ["x"]], ["toString", "t"]])
      expect(full!.roles).toEqual(["r"])
    }))

  it.scoped("may come early by the tolerance, and never late", () =>
    Effect.gen(function*() {
      yield* startNow
      const { verify } = yield* verifierOf(options)
      yield* verify(withClaims({ nbf: now + 5, iat: now + 5 }))
      const strict = yield* verifierOf({ ...options, tolerance: 0 })
      expect(yield* Effect.flip(strict.verify(withClaims({ nbf: now + 1 })))).toMatchObject({ _tag: "AuthRequired" })
      const lax = yield* verifierOf({ ...options, tolerance: "60 seconds" })
      yield* lax.verify(withClaims({ iat: now + 60 }))
      expect(yield* Effect.flip(lax.verify(withClaims({ exp: now })))).toMatchObject({ _tag: "AuthExpired" })
    }))

  it.scoped("is for whom it says: with no audience configured, only one that is for nobody counts", () =>
    Effect.gen(function*() {
      yield* startNow
      const { verify } = yield* verifierOf({ secret: options.secret })
      expect((yield* verify(without("aud")))?.userId).toBe("alice")
      expect((yield* verify(token(header, { sub: "bob", exp: now + 1 })))?.userId).toBe("bob")
      expect(yield* Effect.flip(verify(good))).toMatchObject({ _tag: "AuthRequired" })
    }))

  it.scoped("may name its user and roles elsewhere", () =>
    Effect.gen(function*() {
      yield* startNow
      const { verify } = yield* verifierOf({ ...options, userClaim: "email", rolesClaim: "https://app.example/roles" })
      const principal = yield* verify(
        withClaims({ email: "a@b.example", roles: "x", "https://app.example/roles": ["r"] })
      )
      expect(principal).toMatchObject({ userId: "a@b.example", roles: ["r"] })
      expect(yield* Effect.flip(verify(good))).toMatchObject({ _tag: "AuthRequired" })
    }))

  for (const [what, bad, tag = "AuthRequired"] of corpus) {
    it.scoped(`isn't accepted: ${what}`, () =>
      Effect.gen(function*() {
        yield* startNow
        const { verify } = yield* verifierOf(options)
        const fault = yield* Effect.flip(verify(bad))
        expect(fault._tag).toBe(tag)
        // Words of ours: nothing of what the server expects, and no library's name.
        for (const inner of ["issuer.example", secret, "JWS", "JOSE", "jose", "Error"]) {
          expect(fault.message).not.toContain(inner)
        }
      }))
  }

  it.scoped("has one spelling: with any letter changed it is another, and not accepted", () =>
    Effect.gen(function*() {
      yield* startNow
      const { verify } = yield* verifierOf(options)
      for (let at = 0; at < good.length; at++) {
        const changed = good.slice(0, at) + (good[at] === "." ? "A" : nextLetter(good[at]!)) + good.slice(at + 1)
        expect(yield* Effect.flip(verify(changed))).toMatchObject({ _tag: "AuthRequired" })
      }
    }))

  it.scoped("lets nobody in over a WebSocket who shouldn't be, and no other connection notices", () =>
    Effect.gen(function*() {
      const bystander = yield* overSocket
      yield* bystander.send({ ...authAnew(), token: good })
      expect(yield* bystander.take("AuthAck")).toMatchObject({ userId: "alice", expiresAt: (now + 600) * 1_000 })
      for (const [i, [what, bad, tag = "AuthRequired"]] of corpus.entries()) {
        const stranger = yield* overSocket
        yield* stranger.send({ ...authAnew(), token: bad })
        const { code } = yield* stranger.closed
        // What is too long for a first frame isn't looked at.
        const isLong = bad.length > Protocol.tokenLengthMax
        expect([what, code]).toEqual([what, isLong ? Protocol.closeCodes.tooLarge : Protocol.closeCodes.authFailed])
        if (!isLong) expect([what, (yield* stranger.take("Fault")).cause]).toEqual([what, tag])
        expect(stranger.untaken("AuthAck")).toBe(0)
        yield* bystander.send({ _tag: "Ping", id: i })
        expect(yield* bystander.take("Pong")).toMatchObject({ id: i })
      }
    }).pipe(Effect.provide(
      TopGunServer.layer({
        port: 0,
        storage: "memory",
        auth: "token",
        policy: everything,
        connectsPerSecond: 1_000,
        failedAuthsPerMinute: 1_000
      }).pipe(
        Layer.provide(Authentication.layerJwt(options)),
        Layer.provide(quiet),
        Layer.provide(startedNow)
      )
    )))

  it.scoped("ends its connection when it expires", () =>
    Effect.gen(function*() {
      const client = yield* inProcess
      yield* client.send({ ...authAnew(), token: withClaims({ exp: now + 5 }) })
      yield* client.take("AuthAck")
      yield* TestClock.adjust("5 seconds")
      yield* client.take("AuthExpired")
      yield* client.send({ _tag: "AuthRenew", id: 1, token: withClaims({ exp: now + 5 }) })
      expect(yield* client.take("Fault")).toMatchObject({ id: 1, cause: "AuthExpired" })
      yield* TestClock.adjust("2 seconds")
      expect((yield* client.closed).code).toBe(Protocol.closeCodes.authFailed)
    }).pipe(Effect.provide(
      TopGunServer.layerInProcess({
        jwtSecret: options.secret,
        jwtAudience: "topgun",
        authGraceMillis: 2_000,
        policy: everything
      }).pipe(Layer.provide(startedNow))
    )))
})

describe("A key for tokens", () => {
  const faultsOf = (jwt: Jwt.Options) =>
    Effect.map(Effect.flip(Effect.scoped(Layer.build(Authentication.layerJwt(jwt)))), ({ faults }) => faults)
  const secretOf = (text: string): Jwt.Options => ({ secret: Redacted.make(text) })

  it.effect("is refused when it can be guessed, without being repeated", () =>
    Effect.gen(function*() {
      for (
        const weak of [
          "",
          "secret",
          "changeme",
          secret.slice(1),
          "a".repeat(64),
          `${"0".repeat(40)}1`,
          "changeme".repeat(8),
          "your-256-bit-secret".repeat(2),
          "a-string-secret-at-least-256-bits-long",
          "0123456789abcdef0123456789abcdef",
          "abcdefghijklmnopqrstuvwxyz0123456789",
          "please-change-this-secret-key-in-production!",
          "super_secret_jwt_token_with_at_least_32_characters",
          "topgun-development-secret-for-local-use"
        ]
      ) {
        const faults = yield* faultsOf(secretOf(weak))
        expect([weak, faults]).toEqual([weak, [
          expect.stringMatching(/^the secret for tokens (has \d+ bytes|is easy)/)
        ]])
        if (weak.length > 10) expect(faults[0]).not.toContain(weak)
      }
    }))

  it.effect("is accepted when it can't", () =>
    Effect.gen(function*() {
      for (
        const strong of [
          secret,
          "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
          "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=",
          "d131dd02c5e6eec4693d9a0698aff95c",
          "wander opaque lantern fjord mosaic trellis"
        ]
      ) yield* Effect.scoped(Layer.build(Authentication.layerJwt(secretOf(strong))))
    }))

  it.effect("is refused when it is weak, private, of another kind, or not the only one", () =>
    Effect.gen(function*() {
      const bad: ReadonlyArray<readonly [Jwt.Options, RegExp]> = [
        [{}, /no key to verify tokens by/],
        [{ secret: Redacted.make(secret), publicKey: pemOf(rsa.publicKey) }, /more than one key/],
        [{ publicKey: pemOf(weakRsa.publicKey) }, /too weak or of the wrong kind/],
        [{ publicKey: pemOf(otherCurve.publicKey) }, /too weak or of the wrong kind/],
        [{ publicKey: pemOf(generateKeyPairSync("ed25519").publicKey) }, /too weak or of the wrong kind/],
        [{ publicKey: rsa.privateKey.export({ format: "pem", type: "pkcs8" }) as string }, /is a private key/],
        [{ publicKey: json(rsa.privateKey.export({ format: "jwk" })) }, /is a private key/],
        [{ publicKey: json({ kty: "oct", k: encode(secret) }) }, /can't be read/],
        [{ publicKey: "MIIB" }, /can't be read/],
        [{ publicKey: "{" }, /can't be read/],
        [{ publicKey: "{\"kty\":\"RSA\",\"n\":1}" }, /can't be read/],
        [{ jwksUrl: "http://issuer.example/keys" }, /expected https/],
        [{ jwksUrl: "http://localhost.issuer.example/keys" }, /expected https/],
        [{ jwksUrl: "file:///etc/keys" }, /expected https/],
        [{ jwksUrl: "https://user:pass@issuer.example/keys" }, /without user/],
        [{ jwksUrl: "keys" }, /expected https/],
        [{ secret: Redacted.make(secret), algorithms: ["RS256"] }, /with this key they can be HS256/],
        [{ secret: Redacted.make(secret), algorithms: [] }, /with this key they can be HS256/],
        [{ publicKey: pemOf(rsa.publicKey), algorithms: ["RS256", "HS256"] }, /with this key they can be RS256/],
        [{ secret: Redacted.make(secret), tolerance: "61 seconds" }, /expected at most 60000/]
      ]
      for (const [jwt, fault] of bad) expect(yield* faultsOf(jwt)).toEqual([expect.stringMatching(fault)])
      expect(yield* faultsOf({ secret: Redacted.make("x"), tolerance: "2 minutes" })).toHaveLength(2)
    }))

  it.scoped("may be a public key, as PEM in whatever shape variables leave it in, or as a JWK", () =>
    Effect.gen(function*() {
      yield* startNow
      const { secret: _, ...rest } = options
      const pem = pemOf(rsa.publicKey)
      for (
        const publicKey of [
          pem,
          pem.trim(),
          pem.replaceAll("\n", "\\n"),
          pem.replaceAll("\n", "\r\n"),
          json(jwkOf(rsa.publicKey))
        ]
      ) {
        const { verify } = yield* verifierOf({ ...rest, publicKey })
        expect((yield* verify(token(rsHeader, claims, rs256(rsa.privateKey))))?.userId).toBe("alice")
        for (
          const forged of [
            token(esHeader, claims, es256(ec.privateKey)),
            token({ alg: "HS256" }, claims, hs256(publicKey))
          ]
        ) {
          expect(yield* Effect.flip(verify(forged))).toMatchObject({ _tag: "AuthRequired" })
        }
      }
      const { verify } = yield* verifierOf({ ...rest, publicKey: pemOf(ec.publicKey) })
      expect((yield* verify(token(esHeader, claims, es256(ec.privateKey))))?.userId).toBe("alice")
      expect(yield* Effect.flip(verify(token(esHeader, claims, () => new Uint8Array(64))))).toMatchObject({
        _tag: "AuthRequired"
      })
    }))
})

/** An issuer that serves its key set over HTTP, and counts how often it's asked. */
interface Issuer {
  readonly url: string
  asked: number
  keys: ReadonlyArray<object>
  /** What it answers; the keys when that has no body. */
  answer: { readonly status: number; readonly location?: string; readonly body?: string } | "never"
}

const issuer: Effect.Effect<Issuer, never, Scope.Scope> = Effect.gen(function*() {
  const server = createServer((_, response) => {
    served.asked++
    if (served.answer === "never") return
    const { body = json({ keys: served.keys }), location, status } = served.answer
    response.writeHead(status, location === undefined ? {} : { location }).end(body)
  })
  yield* Effect.acquireRelease(
    Effect.async<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
    () =>
      Effect.sync(() => {
        server.close()
        server.closeAllConnections()
      })
  )
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`
  const served: Issuer = { url, asked: 0, keys: [], answer: { status: 200 } }
  return served
})

describe("A key set", () => {
  const keys = [
    jwkOf(rsa.publicKey, { kid: "rsa" }),
    jwkOf(ec.publicKey, { kid: "ec" }),
    jwkOf(otherRsa.publicKey, { kid: "other" }),
    jwkOf(weakRsa.publicKey, { kid: "weak" }),
    jwkOf(otherCurve.publicKey, { kid: "p384" }),
    { kty: "oct", k: encode(secret), kid: "oct" }
  ]
  const { secret: _, ...rest } = options
  const byRsa = token(rsHeader, claims, rs256(rsa.privateKey))
  const byNew = token({ alg: "RS256", kid: "new" }, claims, rs256(otherRsa.privateKey))

  /** `jose` keeps time by the wall clock. */
  const atWallClock = (millis: number) =>
    Effect.zipRight(TestClock.setTime(millis), Effect.sync(() => vi.setSystemTime(millis)))
  const startWallClock = Effect.suspend(() => {
    vi.useFakeTimers({ toFake: ["Date"] })
    return atWallClock(now * 1_000)
  })
  afterEach(() => vi.useRealTimers())

  it.scoped("verifies by the key that a token names, and fetches once", () =>
    Effect.gen(function*() {
      yield* startWallClock
      const served = yield* issuer
      served.keys = keys
      const { verify } = yield* verifierOf({ ...rest, jwksUrl: served.url })
      expect(served.asked).toBe(0)
      const all = yield* Effect.all(Array.from({ length: 5 }, () => verify(byRsa)), { concurrency: 5 })
      expect(all.map((principal) => principal?.userId)).toEqual(Array.from({ length: 5 }, () => "alice"))
      expect((yield* verify(token(esHeader, claims, es256(ec.privateKey))))?.userId).toBe("alice")
      expect(served.asked).toBe(1)
      const only = yield* verifierOf({ ...rest, jwksUrl: served.url, algorithms: ["ES256"] })
      expect(yield* Effect.flip(only.verify(byRsa))).toMatchObject({ _tag: "AuthRequired" })
    }))

  it.scoped("lets nobody in by others than its keys, and asks nobody whom a token names", () =>
    Effect.gen(function*() {
      yield* startWallClock
      const served = yield* issuer
      const named = yield* issuer
      served.keys = keys
      named.keys = [jwkOf(otherRsa.publicKey, { kid: "rsa" })]
      const { verify } = yield* verifierOf({ ...rest, jwksUrl: served.url })
      const strays = ["jku", "x5u"].map((name): [string, string] => [
        name,
        token({ ...rsHeader, [name]: named.url }, claims, rs256(otherRsa.privateKey))
      ])
      for (const [what, bad] of [...asymmetricCorpus, ...strays]) {
        const fault = yield* Effect.flip(verify(bad))
        expect([what, fault._tag]).toEqual([what, "AuthRequired"])
        expect((yield* verify(byRsa))?.userId).toBe("alice")
      }
      expect(served.asked).toBe(1)
      expect(named.asked).toBe(0)
    }))

  it.scoped("is fetched anew for a key that it lacks, and then not for a while", () =>
    Effect.gen(function*() {
      yield* startWallClock
      const served = yield* issuer
      served.keys = keys
      const { verify } = yield* verifierOf({ ...rest, jwksUrl: served.url })
      yield* verify(byRsa)
      // A key that nobody has: strangers can make up any number of these.
      for (let i = 0; i < 5; i++) expect(yield* Effect.flip(verify(byNew))).toMatchObject({ _tag: "AuthRequired" })
      expect(served.asked).toBe(1)
      yield* atWallClock(now * 1_000 + 30_000)
      served.keys = [jwkOf(otherRsa.publicKey, { kid: "new" })]
      expect((yield* verify(byNew))?.userId).toBe("alice")
      expect(served.asked).toBe(2)
      // The key that was withdrawn is gone with the set that it was in.
      expect(yield* Effect.flip(verify(byRsa))).toMatchObject({ _tag: "AuthRequired" })
      expect(served.asked).toBe(2)
    }))

  it.scoped("counts for ten minutes", () =>
    Effect.gen(function*() {
      yield* startWallClock
      const served = yield* issuer
      served.keys = keys
      const { verify } = yield* verifierOf({ ...rest, jwksUrl: served.url })
      const long = token(rsHeader, { ...claims, exp: now + 10_000 }, rs256(rsa.privateKey))
      yield* verify(long)
      yield* atWallClock(now * 1_000 + 599_999)
      served.keys = []
      yield* verify(long)
      expect(served.asked).toBe(1)
      yield* atWallClock(now * 1_000 + 600_000)
      expect(yield* Effect.flip(verify(long))).toMatchObject({ _tag: "AuthRequired" })
      expect(served.asked).toBe(2)
    }))

  for (
    const [what, answer] of [
      ["fails", { status: 500 }],
      ["leads elsewhere", { status: 302, location: "https://elsewhere.example/keys" }],
      ["is no JSON", { status: 200, body: "<html>" }],
      ["is no key set", { status: 200, body: "{\"keys\":{}}" }],
      ["is too long", { status: 200, body: `{"keys":[],"fill":"${"x".repeat(600_000)}"}` }]
    ] as const
  ) {
    it.scoped(`makes who connects come again later when it ${what}, and is asked once a second at most`, () =>
      Effect.gen(function*() {
        yield* startWallClock
        const served = yield* issuer
        served.keys = keys
        served.answer = answer
        const { verify } = yield* verifierOf({ ...rest, jwksUrl: served.url })
        for (let i = 0; i < 3; i++) {
          expect(yield* Effect.flip(verify(byRsa))).toMatchObject({ _tag: "AuthUnavailable", retryable: true })
        }
        served.answer = { status: 200 }
        expect(served.asked).toBe(1)
        yield* atWallClock(now * 1_000 + 1_000)
        expect((yield* verify(byRsa))?.userId).toBe("alice")
      }).pipe(Effect.provide(quiet)))
  }

  it.scoped("that doesn't answer makes who connects come again before the connection's time is over", () =>
    Effect.gen(function*() {
      yield* startWallClock
      const served = yield* issuer
      served.answer = "never"
      const { verify } = yield* verifierOf({ ...rest, jwksUrl: served.url })
      const asking = yield* Effect.fork(Effect.flip(verify(byRsa)))
      yield* settled
      yield* TestClock.adjust("4 seconds")
      expect(yield* Fiber.join(asking)).toMatchObject({ _tag: "AuthUnavailable" })
    }).pipe(Effect.provide(quiet)))

  it.scoped("that is down closes a handshake as one to be tried again, and once it is back lets in", () =>
    Effect.gen(function*() {
      yield* startWallClock
      const served = yield* issuer
      served.answer = { status: 503 }
      yield* Effect.gen(function*() {
        const first = yield* overSocket
        yield* first.send({ ...authAnew(), token: byRsa })
        expect(yield* first.take("Fault")).toMatchObject({ id: null, cause: "AuthUnavailable" })
        expect((yield* first.closed).code).toBe(Protocol.closeCodes.overloaded)
        served.keys = keys
        served.answer = { status: 200 }
        yield* atWallClock(now * 1_000 + 1_000)
        const second = yield* overSocket
        yield* second.send({ ...authAnew(), token: byRsa })
        expect(yield* second.take("AuthAck")).toMatchObject({ userId: "alice" })
      }).pipe(Effect.provide(
        TopGunServer.layer({
          port: 0,
          storage: "memory",
          jwksUrl: served.url,
          jwtAudience: "topgun",
          policy: everything
        })
      ))
    }).pipe(Effect.provide(quiet)))
})
