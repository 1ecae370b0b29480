/** A server's certificate and key: read, judged before anybody is shown them, and taken over anew when they are renewed. */
import { createPrivateKey, X509Certificate } from "node:crypto"
import { readFileSync, statSync } from "node:fs"
import { createSecureContext } from "node:tls"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"

/** Where they lie: PEM, a certificate with those of its issuers after it. */
export interface Files {
  readonly cert: string
  readonly key: string
}

/** What they hold. */
export interface Pair {
  readonly cert: string
  readonly key: string
}

/** The oldest version that is spoken (RFC 8996 forbids those before). */
export const versionMin = "TLSv1.2"

/** How often the files are looked at, in ms. */
export const lookMillis = 10_000

const attempt = <A>(what: string, run: () => A): Either.Either<A, string> =>
  Either.try({ try: run, catch: (cause) => `${what}: ${cause instanceof Error ? cause.message : String(cause)}` })

/** The pair of the files; everything that is wrong with it where it can't be used. Reads synchronously: rarely, and little. */
export const read = ({ cert, key }: Files, now: number): Either.Either<Pair, ReadonlyArray<string>> => {
  const certText = attempt(`tlsCert "${cert}" can't be read`, () => readFileSync(cert, "latin1"))
  const keyText = attempt(`tlsKey "${key}" can't be read`, () => readFileSync(key, "latin1"))
  const certificate = Either.flatMap(
    certText,
    (text) => attempt(`tlsCert "${cert}" has no certificate in PEM`, () => new X509Certificate(text))
  )
  const privateKey = Either.flatMap(
    keyText,
    (text) =>
      attempt(`tlsKey "${key}" has no private key in PEM, or one with a passphrase`, () => createPrivateKey(text))
  )
  const faults: Array<string> = []
  if (Either.isLeft(certificate)) faults.push(certificate.left)
  if (Either.isLeft(privateKey)) faults.push(privateKey.left)
  if (Either.isRight(certificate) && Date.parse(certificate.right.validTo) <= now) {
    faults.push(`tlsCert "${cert}" expired on ${certificate.right.validTo}: renew it`)
  }
  if (Either.isRight(certificate) && Either.isRight(privateKey)) {
    if (!certificate.right.checkPrivateKey(privateKey.right)) {
      faults.push(`tlsKey "${key}" is not the key of tlsCert "${cert}"`)
    }
  }
  if (Either.isLeft(certText) || Either.isLeft(keyText) || faults.length > 0) return Either.left(faults)
  const pair = { cert: certText.right, key: keyText.right }
  // What OpenSSL thinks of it: a key too weak for its rules, issuers that don't parse.
  return Either.mapBoth(attempt("tlsCert and tlsKey can't be used", () => createSecureContext(pair)), {
    onLeft: (fault) => [fault],
    onRight: () => pair
  })
}

/** What tells a file from the one before, also where a link leads to another. */
const stateOf = (path: string): string => {
  const stat = statSync(path, { throwIfNoEntry: false })
  return stat === undefined ? "" : `${stat.ino} ${stat.size} ${stat.mtimeMs}`
}

/** Hands over each new pair that can be used. Of one that can't, it says so, and the one before stays. Never ends. */
export const renewals = (files: Files, use: (pair: Pair) => void): Effect.Effect<never> =>
  Effect.suspend(() => {
    const state = () => `${stateOf(files.cert)}, ${stateOf(files.key)}`
    let seen = state()
    return Effect.gen(function*() {
      yield* Effect.sleep(lookMillis)
      const present = state()
      if (present === seen) return
      seen = present
      const pair = read(files, yield* Effect.clockWith((clock) => clock.currentTimeMillis))
      if (Either.isRight(pair)) {
        use(pair.right)
        yield* Effect.logInfo("The certificate was renewed")
      } else yield* Effect.logError("The renewed certificate can't be used, the one before stays", ...pair.left)
    }).pipe(Effect.forever)
  })
