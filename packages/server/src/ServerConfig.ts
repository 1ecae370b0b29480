/** What an operator may set, in one place: defaults, limits and what they cost, and how they are read from the environment. */
import * as Config from "effect/Config"
import type * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as HashSet from "effect/HashSet"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { readFileSync, statSync } from "node:fs"
import { ConfigInvalid } from "@topgun/core/GridError"
import { nearest } from "@topgun/core/Spelling"
import * as Jwt from "./Jwt.ts"
import { isLoopback } from "./Loopback.ts"

/** The server's settings, all of them known. */
export interface Settings {
  /** The port for HTTP and WebSocket; 0 lets the system choose. @default 8080 */
  readonly port: number
  /** The address to listen at. Others than loopback are open to the network. @default "127.0.0.1" */
  readonly host: string
  /** Where the database lies. One server at a time. @default ".topgun" */
  readonly dataDir: string
  /** `memory` keeps nothing across a restart, and refuses PERSISTED writes. @default "sqlite" */
  readonly storage: "sqlite" | "memory"
  /**
   * Who may connect without a token: with `loopback` anyone, for as long as `host` is a loopback address (the server
   * doesn't start otherwise); with `none` anyone from anywhere, because nobody is asked; with `token` nobody, and the server
   * doesn't start without an `Authentication` that verifies tokens. One that there is asks everybody, whatever is set here; and
   * with a key among these settings it is `token`, and can't be `none`.
   * @default "loopback"
   */
  readonly auth: "loopback" | "none" | "token"
  /** The secret of tokens signed by HS256: at least 32 bytes that nobody can guess. @default none */
  readonly jwtSecret: Redacted.Redacted<string> | undefined
  /** The key of tokens signed by RS256 or ES256, as PEM or the JSON of a JWK. @default none */
  readonly jwtPublicKey: string | undefined
  /** Where the issuer of tokens publishes its keys: https, or http on this machine. @default none */
  readonly jwksUrl: string | undefined
  /** What a token's `iss` must be, to the letter. @default any */
  readonly jwtIssuer: string | undefined
  /** What a token's `aud` must be or contain, to the letter. @default none: tokens that are for somebody are refused */
  readonly jwtAudience: string | undefined
  /** Fewer algorithms than go with the key. @default all that do */
  readonly jwtAlgorithms: ReadonlyArray<Jwt.Algorithm> | undefined
  /** The claim that is the user's id. @default "sub" */
  readonly jwtUserClaim: string | undefined
  /** The claim with the user's roles, an array of texts. @default "roles" */
  readonly jwtRolesClaim: string | undefined
  /** Claims that are carried over as the user's attributes. @default none */
  readonly jwtAttributes: ReadonlyArray<string> | undefined
  /** How far the issuer's clock may be ahead, up to a minute; nothing is added to a token's life. @default 5 seconds */
  readonly jwtTolerance: Duration.DurationInput | undefined
  /**
   * Origins of web pages, other than the server's own, whose scripts may connect, as in `https://app.example.com`; `*`
   * for all. Programs that send no origin may always. @default none
   */
  readonly allowedOrigins: ReadonlyArray<string>
  /**
   * WebSocket connections at a time; one more is answered 503. An idle one costs some 30 kB. Higher values need file
   * descriptors (`ulimit -n`). @default 10000
   */
  readonly connectionsMax: number
  /**
   * Time for a new connection to say who it is, in ms. Lower values free what scanners hold sooner; too low ones refuse
   * devices on slow networks. @default 5000
   */
  readonly authMillisMax: number
  /**
   * How long a connection stays when its token has expired, in ms, for a new one to come. Higher values forgive slow clients;
   * for as long, a minute at most, an expired token still reads and writes. @default 10000
   */
  readonly authGraceMillis: number
  /**
   * Bytes on their way to one client. A client that reads slower than others write is cut off beyond it and resyncs by
   * the tree. Higher values ride out longer stalls, at that much memory for each stalled client. @default 1048576
   */
  readonly outboundBytesMax: number
  /**
   * Writes that wait for the database. When there are more, the connections that send writes aren't read until there is
   * room. Higher values absorb larger bursts, at the memory of that many records. @default 20000
   */
  readonly pendingCommitsMax: number
  /** Maps that clients may create. Each costs some 100 kB once its keys are spread over all partitions. @default 1000 */
  readonly mapsMax: number
  /** Maps that one connection may have open. Higher values cost some 100 bytes each. @default 1000 */
  readonly subscriptionsMax: number
  /** Calls of one connection that are answered at a time; more are refused. Each costs a fiber. @default 32 */
  readonly callsMax: number
  /** How long stopping may take, with unsaved writes being saved. Then what is left is given up. @default 10 seconds */
  readonly shutdownTimeout: Duration.DurationInput
  /** A directory whose files are served over HTTP; `undefined` for none. @default undefined */
  readonly staticDir: string | undefined
  /** The least severe messages that are logged. @default "info" */
  readonly logLevel: "trace" | "debug" | "info" | "warning" | "error" | "fatal" | "none"
  /** `pretty` for people, `logfmt` and `json` for machines. @default "pretty" */
  readonly logFormat: "pretty" | "logfmt" | "json"
}

/** The server's settings. */
export class ServerConfig extends Context.Tag("@topgun/server/ServerConfig")<ServerConfig, Settings>() {}

export const defaults: Settings = {
  port: 8080,
  host: "127.0.0.1",
  dataDir: ".topgun",
  storage: "sqlite",
  auth: "loopback",
  jwtSecret: undefined,
  jwtPublicKey: undefined,
  jwksUrl: undefined,
  jwtIssuer: undefined,
  jwtAudience: undefined,
  jwtAlgorithms: undefined,
  jwtUserClaim: undefined,
  jwtRolesClaim: undefined,
  jwtAttributes: undefined,
  jwtTolerance: undefined,
  allowedOrigins: [],
  connectionsMax: 10_000,
  authMillisMax: 5_000,
  authGraceMillis: 10_000,
  outboundBytesMax: 1024 * 1024,
  pendingCommitsMax: 20_000,
  mapsMax: 1_000,
  subscriptionsMax: 1_000,
  callsMax: 32,
  shutdownTimeout: Duration.seconds(10),
  staticDir: undefined,
  logLevel: "info",
  logFormat: "pretty"
}

// --- The settings' schemas ---

interface Field<A> {
  /** Its environment variable. */
  readonly name: string
  /** Completes "expected …". */
  readonly expected: string
  readonly decode: (text: string) => Option.Option<A>
  readonly is: (value: unknown) => boolean
  /**
   * `document`: it may be in a file, which its variable with `_FILE` at the end names, and is too long to be shown. `secret`:
   * the same, and nobody is to see it.
   */
  readonly kind: "plain" | "document" | "secret"
}

const field = <A>(
  name: string,
  schema: Schema.Schema<A, string>,
  expected: string,
  kind: Field<A>["kind"] = "plain"
): Field<A> => ({
  name,
  expected,
  decode: Schema.decodeOption(schema),
  is: Schema.is(Schema.typeSchema(schema)),
  kind
})

const count = (name: string, min: number, max: number) =>
  field(
    name,
    Schema.NumberFromString.pipe(Schema.int(), Schema.between(min, max)),
    `an integer from ${min} to ${max}`
  )

const choice = <const A extends ReadonlyArray<string>>(name: string, options: A) =>
  field(name, Schema.Literal(...options), `one of ${options.join(", ")}`)

const unitMillis: Record<string, number> = { ms: 1, s: 1_000, m: 60_000 }
const durationGrammar = /^(\d{1,9})(ms|s|m)$/
const duration = (name: string, max: Duration.DurationInput) =>
  field(
    name,
    Schema.transformOrFail(
      Schema.String,
      Schema.declare((value): value is Duration.DurationInput =>
        Option.exists(Duration.decodeUnknown(value), Duration.lessThanOrEqualTo(max))
      ),
      {
        strict: true,
        decode: (text, _, ast) => {
          const [, amount, unit] = durationGrammar.exec(text) ?? []
          const decoded = amount === undefined || unit === undefined
            ? Duration.decodeUnknown(text)
            : Option.some(Duration.millis(Number(amount) * unitMillis[unit]!))
          return Either.fromOption(decoded, () => new ParseResult.Type(ast, text))
        },
        encode: (value) => Either.right(String(Duration.toMillis(value)))
      }
    ),
    `a duration such as 10s or 500ms, and at most ${Duration.format(max)}`
  )

const Text = Schema.String.pipe(Schema.minLength(1))

const list = <A extends string>(item: Schema.Schema<A>) =>
  Schema.transform(Schema.String, Schema.Array(item), {
    // What is split off isn't of the items' type yet.
    strict: false,
    decode: (text) => text.split(",").map((part) => part.trim()),
    encode: (items) => items.join(",")
  })

const claim = "the name of a claim"

const fields: { readonly [K in keyof Settings]: Field<Settings[K]> } = {
  port: count("TOPGUN_PORT", 0, 65_535),
  host: field("TOPGUN_HOST", Text, "a host name or address"),
  dataDir: field("TOPGUN_DATA_DIR", Text, "the path of a directory"),
  storage: choice("TOPGUN_STORAGE", ["sqlite", "memory"]),
  auth: choice("TOPGUN_AUTH", ["loopback", "none", "token"]),
  jwtSecret: field("TOPGUN_JWT_SECRET", Schema.Redacted(Text), "a text", "secret"),
  jwtPublicKey: field("TOPGUN_JWT_PUBLIC_KEY", Text, "PEM or the JSON of a JWK", "document"),
  jwksUrl: field("TOPGUN_JWKS_URL", Text, "an https URL"),
  jwtIssuer: field("TOPGUN_JWT_ISSUER", Text, "a token's \"iss\""),
  jwtAudience: field("TOPGUN_JWT_AUDIENCE", Text, "a token's \"aud\""),
  jwtAlgorithms: field(
    "TOPGUN_JWT_ALGORITHMS",
    list(Schema.Literal(...Jwt.algorithms)),
    `some of ${Jwt.algorithms.join(", ")}, parted by commas`
  ),
  jwtUserClaim: field("TOPGUN_JWT_USER_CLAIM", Text, claim),
  jwtRolesClaim: field("TOPGUN_JWT_ROLES_CLAIM", Text, claim),
  jwtAttributes: field("TOPGUN_JWT_ATTRIBUTES", list(Text), "names of claims, parted by commas"),
  jwtTolerance: duration("TOPGUN_JWT_TOLERANCE", Jwt.toleranceMillisMax),
  allowedOrigins: field(
    "TOPGUN_ALLOWED_ORIGINS",
    list(Schema.String.pipe(Schema.pattern(/^(\*|https?:\/\/[^/\s,]+)$/))),
    "origins such as https://app.example.com, parted by commas, or *"
  ),
  connectionsMax: count("TOPGUN_CONNECTIONS_MAX", 1, 1_000_000),
  authMillisMax: count("TOPGUN_AUTH_MILLIS_MAX", 100, 600_000),
  authGraceMillis: count("TOPGUN_AUTH_GRACE_MILLIS", 0, 60_000),
  outboundBytesMax: count("TOPGUN_OUTBOUND_BYTES_MAX", 64 * 1024, 1024 * 1024 * 1024),
  pendingCommitsMax: count("TOPGUN_PENDING_COMMITS_MAX", 1, 10_000_000),
  mapsMax: count("TOPGUN_MAPS_MAX", 1, 100_000),
  subscriptionsMax: count("TOPGUN_SUBSCRIPTIONS_MAX", 1, 100_000),
  callsMax: count("TOPGUN_CALLS_MAX", 1, 10_000),
  shutdownTimeout: duration("TOPGUN_SHUTDOWN_TIMEOUT", "1 hour"),
  staticDir: field("TOPGUN_STATIC_DIR", Text, "the path of a directory"),
  logLevel: choice("TOPGUN_LOG_LEVEL", ["trace", "debug", "info", "warning", "error", "fatal", "none"]),
  logFormat: choice("TOPGUN_LOG_FORMAT", ["pretty", "logfmt", "json"])
}

interface Variable {
  readonly key: keyof Settings
  /** Whether it names a file that the setting is in. */
  readonly namesFile: boolean
}

const variables = new Map(
  Object.entries(fields).flatMap(([name, { kind, name: variable }]): ReadonlyArray<readonly [string, Variable]> => {
    const key = name as keyof Settings
    const own = [variable, { key, namesFile: false }] as const
    return kind === "plain" ? [own] : [own, [`${variable}_FILE`, { key, namesFile: true }]]
  })
)

// --- Checking ---

const jwtKeys = [
  "jwtSecret",
  "jwtPublicKey",
  "jwksUrl",
  "jwtIssuer",
  "jwtAudience",
  "jwtAlgorithms",
  "jwtUserClaim",
  "jwtRolesClaim",
  "jwtAttributes",
  "jwtTolerance"
] as const

const hasKey = ({ jwksUrl, jwtPublicKey, jwtSecret }: Settings): boolean =>
  jwtSecret !== undefined || jwtPublicKey !== undefined || jwksUrl !== undefined

/** How the settings want tokens verified; `undefined` when they have no key to do it by. */
export const jwtOptions = (settings: Settings): Jwt.Options | undefined =>
  hasKey(settings)
    ? {
      secret: settings.jwtSecret,
      publicKey: settings.jwtPublicKey,
      jwksUrl: settings.jwksUrl,
      issuer: settings.jwtIssuer,
      audience: settings.jwtAudience,
      algorithms: settings.jwtAlgorithms,
      userClaim: settings.jwtUserClaim,
      rolesClaim: settings.jwtRolesClaim,
      attributes: settings.jwtAttributes,
      tolerance: settings.jwtTolerance
    }
    : undefined

const keyVariables = "TOPGUN_JWT_SECRET, TOPGUN_JWT_PUBLIC_KEY or TOPGUN_JWKS_URL"

/** What settings must be to one another. `of`: those that it takes to tell. */
const relations: ReadonlyArray<{
  readonly of: ReadonlyArray<keyof Settings>
  readonly faults: (settings: Settings) => ReadonlyArray<string>
}> = [
  {
    of: ["auth", "host", "jwtSecret", "jwtPublicKey", "jwksUrl"],
    faults: ({ auth, host }) =>
      auth === "loopback" && !isLoopback(host)
        ? [
          `host "${host}" can be reached from the network, and no way to authenticate is configured: set ${keyVariables} to ` +
          "verify tokens by, listen on 127.0.0.1, or set TOPGUN_AUTH=none to let everyone in who reaches it"
        ]
        : []
  },
  {
    of: ["auth", "jwtSecret", "jwtPublicKey", "jwksUrl"],
    faults: (settings) =>
      settings.auth === "none" && hasKey(settings)
        ? ["TOPGUN_AUTH=none lets everyone in, and a key for tokens is configured: leave one of them out"]
        : []
  },
  {
    of: jwtKeys,
    faults: (settings) => {
      const options = jwtOptions(settings)
      if (options !== undefined) return Jwt.faults(options)
      return jwtKeys.filter((key) => settings[key] !== undefined).map((key) =>
        `${fields[key].name} is set, and there is no key to verify tokens by: set ${keyVariables}`
      )
    }
  }
]

const isKnown = (key: string): key is keyof Settings => Object.hasOwn(fields, key)

/** A setting's value as a log may show it. */
const shown = (key: keyof Settings, value: unknown): string => {
  if (value === undefined) return ""
  if (fields[key].kind !== "plain") return fields[key].kind === "secret" ? "<redacted>" : "<not shown>"
  if (Duration.isDuration(value)) return Duration.format(value)
  // What follows a URL's path may be a key to it.
  return typeof value === "string" ? key === "jwksUrl" ? value.split("?", 1)[0]! : value : JSON.stringify(value)
}

/** A fault of one setting, under the name by which it was given. */
const valueFault = (name: string, key: keyof Settings, value: unknown): string =>
  fields[key].kind === "plain"
    ? `${name} is ${JSON.stringify(value)}: expected ${fields[key].expected}`
    : `${name} can't be used: expected ${fields[key].expected}`

/** Settings that there may be none of. */
const isOptional = (key: keyof Settings): boolean => defaults[key] === undefined

interface Draft {
  readonly settings: Partial<Settings>
  readonly faults: ReadonlyArray<string>
  /** Those that a fault is of. */
  readonly faulty: ReadonlySet<keyof Settings>
}

/** The defaults with a draft over them, if nothing is wrong with either. */
const complete = ({ faults, faulty, settings: partial }: Draft): Effect.Effect<Settings, ConfigInvalid> => {
  const given = { ...defaults, ...partial }
  // A key is there to be used: that everyone on this machine may connect is only the default.
  const settings: Settings = given.auth === "loopback" && hasKey(given) ? { ...given, auth: "token" } : given
  const wrong = (Object.keys(fields) as ReadonlyArray<keyof Settings>).filter((key) =>
    !fields[key].is(settings[key]) && !(isOptional(key) && settings[key] === undefined)
  )
  const unsure = new Set([...faulty, ...wrong])
  const all = [
    ...faults,
    ...wrong.map((key) => valueFault(key, key, settings[key])),
    ...relations.filter(({ of }) => !of.some((key) => unsure.has(key))).flatMap((relation) => relation.faults(settings))
  ]
  return all.length > 0 ? new ConfigInvalid({ faults: all }) : Effect.succeed(settings)
}

/** The defaults with `partial` over them. Fails with every fault at once. */
export const make = (partial: Partial<Settings> = {}): Effect.Effect<Settings, ConfigInvalid> =>
  Effect.suspend(() => {
    const unknown = Object.keys(partial).filter((key) => !isKnown(key)).map((key) => {
      const meant = nearest(key, Object.keys(fields))
      return `${key} is not known${meant === undefined ? "" : `. Did you mean ${meant}?`}`
    })
    return complete({ settings: partial, faults: unknown, faulty: new Set() })
  })

/** The settings that aren't the defaults, by the names of their variables, as a log may show them. */
export const departures = (settings: Settings): Readonly<Record<string, string>> =>
  Object.fromEntries(
    (Object.keys(fields) as ReadonlyArray<keyof Settings>).flatMap((key) => {
      const value = shown(key, settings[key])
      return value === shown(key, defaults[key]) ? [] : [[fields[key].name, value]]
    })
  )

/** Settings given in code, over the defaults. */
export const layer = (partial: Partial<Settings> = {}): Layer.Layer<ServerConfig, ConfigInvalid> =>
  Layer.effect(ServerConfig, make(partial))

// --- The environment ---

/** The command line's own variables. */
const foreign = new Set(["TOPGUN_URL", "TOPGUN_TOKEN"])

/** Kubernetes sets these in each pod for a service whose name begins with `topgun`; nobody meant them for us. */
const isServiceLink = (name: string, value: string): boolean =>
  /_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$/.test(name) ||
  (name.endsWith("_PORT") && /^(tcp|udp|sctp):\/\//.test(value))

/** The names of all variables below a prefix. A provider splits names at each `_`, so they are put together again. */
const namesBelow = (
  provider: ConfigProvider.ConfigProvider,
  path: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<string>> =>
  provider.flattened.enumerateChildren(path).pipe(
    Effect.orElseSucceed(() => HashSet.empty<string>()),
    Effect.flatMap((children) =>
      Effect.forEach(
        Array.from(children).sort(),
        (child) => Effect.map(namesBelow(provider, [...path, child]), (below) => [[...path, child].join("_"), ...below])
      )
    ),
    Effect.map((found) => found.flat())
  )

/** Bytes of a file that a setting is in, at most. */
const fileBytesMax = 64 * 1024

interface Contents {
  readonly text: string
  /** Whether any user of this machine can read it. */
  readonly isOpen: boolean
}

const utf8 = new TextDecoder("utf-8", { fatal: true })

/** A text in a file, without the line's end that editors put there; or why it can't be had. */
const readSettingFile = (path: string): Either.Either<Contents, string> => {
  try {
    // A pipe would be waited for.
    const stats = statSync(path)
    if (!stats.isFile()) return Either.left("which is no file")
    if (stats.size > fileBytesMax) return Either.left(`which has more than ${fileBytesMax} bytes`)
    const text = utf8.decode(readFileSync(path)).replace(/\r?\n$/, "")
    return text === "" ? Either.left("which is empty") : Either.right({ text, isOpen: (stats.mode & 0o004) !== 0 })
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    return Either.left(code === "ENOENT" ? "which isn't there" : `which can't be read (${code ?? "not UTF-8"})`)
  }
}

/** Settings, and what the operator is to know of how they were given. */
export interface Loaded {
  readonly settings: Settings
  readonly notices: ReadonlyArray<string>
}

/**
 * The settings of the environment by the current `ConfigProvider`, over `fallbacks` and the defaults, with `overrides`, such
 * as a command line's, over all of them. Fails with every fault at once.
 */
export const load = (
  overrides: Partial<Settings> = {},
  fallbacks: Partial<Settings> = {}
): Effect.Effect<Loaded, ConfigInvalid> =>
  Effect.gen(function*() {
    const provider = yield* Effect.configProviderWith(Effect.succeed)
    const settings: Record<string, unknown> = {}
    const faults: Array<string> = []
    const faulty = new Set<keyof Settings>()
    const notices: Array<string> = []
    const origins = new Map<keyof Settings, string>()
    for (const name of yield* namesBelow(provider, ["TOPGUN"])) {
      const given = yield* Effect.option(provider.load(Config.string(name)))
      if (Option.isNone(given) || foreign.has(name)) continue
      if (isServiceLink(name, given.value)) {
        yield* Effect.logDebug(`${name} is ignored: it is a service link that Kubernetes set`)
        continue
      }
      const variable = variables.get(name)
      if (variable === undefined) {
        const meant = nearest(name, variables.keys())
        faults.push(`${name} is not known${meant === undefined ? "" : `. Did you mean ${meant}?`}`)
        continue
      }
      const { key, namesFile } = variable
      const { decode, kind } = fields[key]
      const fail = (fault: string) => {
        faults.push(fault)
        faulty.add(key)
      }
      const other = origins.get(key)
      if (other !== undefined) fail(`${other} and ${name} are both set: keep one of them`)
      origins.set(key, name)
      const contents = namesFile
        ? readSettingFile(given.value)
        : Either.right<Contents>({ text: given.value, isOpen: false })
      if (Either.isLeft(contents)) {
        fail(`${name} names ${JSON.stringify(given.value)}, ${contents.left}`)
        continue
      }
      const { isOpen, text } = contents.right
      if (isOpen && kind === "secret") {
        notices.push(`Every user of this machine can read the file that ${name} names: chmod 600 ${given.value}`)
      }
      const decoded: Option.Option<unknown> = decode(text)
      if (Option.isSome(decoded)) settings[key] = decoded.value
      else fail(valueFault(name, key, text))
    }
    const draft = { settings: { ...fallbacks, ...settings as Partial<Settings>, ...overrides }, faults, faulty }
    return { settings: yield* complete(draft), notices }
  })

/** Tells the operator. */
export const tell = (notices: ReadonlyArray<string>): Effect.Effect<void> =>
  Effect.forEach(notices, (notice) => Effect.logWarning(notice), { discard: true })

/** Settings of the environment over the defaults, and `overrides`, such as a command line's, over both. */
export const layerFromEnv = (overrides: Partial<Settings> = {}): Layer.Layer<ServerConfig, ConfigInvalid> =>
  Layer.effect(
    ServerConfig,
    Effect.flatMap(
      load(overrides),
      ({ notices, settings }) => Effect.as(tell(notices), settings)
    )
  )
