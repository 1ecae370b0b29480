/** The server's `Settings`: how they are read from the environment, and what is wrong with them. */
import * as Clock from "effect/Clock"
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
import * as Schema from "effect/Schema"
import { ConfigInvalid } from "@topgun/core/GridError"
import { nearest } from "@topgun/core/Spelling"
import * as Jwt from "./Jwt.ts"
import { isLoopback } from "./Loopback.ts"
import * as SettingFile from "./SettingFile.ts"
import { defaults, type Settings } from "./Settings.ts"
import * as Tls from "./Tls.ts"

export { defaults, type Settings }

/** The server's settings. */
export class ServerConfig extends Context.Tag("@topgun/server/ServerConfig")<ServerConfig, Settings>() {}

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

const unitMillis: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const durationGrammar = /^(\d{1,9})(ms|s|m|h|d)$/
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

const unitBytes: Record<string, number> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4 }
const bytesGrammar = /^(\d{1,15}) ?(B|KiB|MiB|GiB|TiB)?$/
const BytesText = Schema.transformOrFail(
  Schema.String,
  Schema.Number.pipe(Schema.int(), Schema.between(16 * 1024 ** 2, Number.MAX_SAFE_INTEGER)),
  {
    strict: true,
    decode: (text, _, ast) => {
      const [, amount, unit = "B"] = bytesGrammar.exec(text) ?? []
      return amount === undefined
        ? Either.left(new ParseResult.Type(ast, text))
        : Either.right(Number(amount) * unitBytes[unit]!)
    },
    encode: (bytes) => Either.right(String(bytes))
  }
)

const Text = Schema.String.pipe(Schema.minLength(1))
/** What a header can carry as a token (RFC 6750), and is too long to be tried out. */
const BearerText = Schema.String.pipe(Schema.pattern(/^[\w.~+/-]+=*$/), Schema.minLength(16), Schema.maxLength(1_024))

const list = <A extends string>(item: Schema.Schema<A>) =>
  Schema.transform(Schema.String, Schema.Array(item), {
    // What is split off isn't of the items' type yet.
    strict: false,
    decode: (text) => text.split(",").map((part) => part.trim()),
    encode: (items) => items.join(",")
  })

const claim = "the name of a claim"

const fields: { readonly [K in keyof Settings]-?: Field<Settings[K]> } = {
  port: count("TOPGUN_PORT", 0, 65_535),
  host: field("TOPGUN_HOST", Text, "a host name or address"),
  tlsCert: field("TOPGUN_TLS_CERT", Text, "the path of a file"),
  tlsKey: field("TOPGUN_TLS_KEY", Text, "the path of a file"),
  dataDir: field("TOPGUN_DATA_DIR", Text, "the path of a directory"),
  storage: choice("TOPGUN_STORAGE", ["sqlite", "postgres", "memory"]),
  databaseUrl: field(
    "TOPGUN_DATABASE_URL",
    Schema.Redacted(
      Schema.String.pipe(Schema.filter((text) => /^postgres(ql)?:\/\//.test(text) && URL.canParse(text)))
    ),
    "a URL such as postgres://user:password@host:5432/database, with what is special in its parts percent-encoded",
    "secret"
  ),
  commitTimeout: duration("TOPGUN_COMMIT_TIMEOUT", "10 minutes"),
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
  policyFile: field("TOPGUN_POLICY_FILE", Text, "the path of a JSON file"),
  gridFile: field("TOPGUN_GRID_FILE", Text, "the path of a JSON file"),
  allowedOrigins: field(
    "TOPGUN_ALLOWED_ORIGINS",
    list(Schema.String.pipe(Schema.pattern(/^(\*|https?:\/\/[^/\s,]+)$/))),
    "origins such as https://app.example.com, parted by commas, or *"
  ),
  connectionsMax: count("TOPGUN_CONNECTIONS_MAX", 1, 1_000_000),
  proxies: count("TOPGUN_PROXIES", 0, 10),
  connectionsPerAddressMax: count("TOPGUN_CONNECTIONS_PER_ADDRESS_MAX", 1, 1_000_000),
  connectionsPerUserMax: count("TOPGUN_CONNECTIONS_PER_USER_MAX", 1, 1_000_000),
  unauthenticatedMax: count("TOPGUN_UNAUTHENTICATED_MAX", 1, 1_000_000),
  unauthenticatedPerAddressMax: count("TOPGUN_UNAUTHENTICATED_PER_ADDRESS_MAX", 1, 1_000_000),
  connectsPerSecond: count("TOPGUN_CONNECTS_PER_SECOND", 1, 1_000_000),
  failedAuthsPerMinute: count("TOPGUN_FAILED_AUTHS_PER_MINUTE", 1, 1_000_000),
  // Slower, one message of operations would keep a connection silent for longer than its client waits.
  operationsPerSecond: count("TOPGUN_OPERATIONS_PER_SECOND", 100, 1_000_000_000),
  operationsBurst: count("TOPGUN_OPERATIONS_BURST", 1, 1_000_000_000),
  authMillisMax: count("TOPGUN_AUTH_MILLIS_MAX", 100, 600_000),
  authGraceMillis: count("TOPGUN_AUTH_GRACE_MILLIS", 0, 60_000),
  outboundBytesMax: count("TOPGUN_OUTBOUND_BYTES_MAX", 64 * 1024, 1024 * 1024 * 1024),
  drainMillisMax: count("TOPGUN_DRAIN_MILLIS_MAX", 100, 600_000),
  pendingCommitsMax: count("TOPGUN_PENDING_COMMITS_MAX", 1, 10_000_000),
  memoryBytesMax: field("TOPGUN_MAX_MEMORY", BytesText, "bytes, 16 MiB or more, such as 512MiB or 2GiB"),
  recordsMax: count("TOPGUN_RECORDS_MAX", 1, 1_000_000_000),
  tombstoneAge: duration("TOPGUN_TOMBSTONE_AGE", "1000 days"),
  tombstoneHorizon: duration("TOPGUN_TOMBSTONE_HORIZON", "10000 days"),
  tombstonesMax: count("TOPGUN_TOMBSTONES_MAX", 1_000, 1_000_000_000),
  mapsMax: count("TOPGUN_MAPS_MAX", 1, 100_000),
  subscriptionsMax: count("TOPGUN_SUBSCRIPTIONS_MAX", 1, 100_000),
  callsMax: count("TOPGUN_CALLS_MAX", 1, 10_000),
  queriesMax: count("TOPGUN_QUERIES_MAX", 1, 100_000),
  queryRowsMax: count("TOPGUN_QUERY_ROWS_MAX", 1, 1_000_000),
  queryBytesMax: count("TOPGUN_QUERY_BYTES_MAX", 256 * 1024, 1024 * 1024 * 1024),
  queryMillisMax: count("TOPGUN_QUERY_MILLIS_MAX", 1, 600_000),
  resolverMillisMax: count("TOPGUN_RESOLVER_MILLIS_MAX", 1, 10_000),
  interceptorMillisMax: count("TOPGUN_INTERCEPTOR_MILLIS_MAX", 10, 600_000),
  shutdownTimeout: duration("TOPGUN_SHUTDOWN_TIMEOUT", "1 hour"),
  shutdownNotice: duration("TOPGUN_SHUTDOWN_NOTICE", "30 minutes"),
  staticDir: field("TOPGUN_STATIC_DIR", Text, "the path of a directory"),
  metricsToken: field(
    "TOPGUN_METRICS_TOKEN",
    Schema.Redacted(BearerText),
    "a secret of at least 16 letters, digits and -._~+/",
    "secret"
  ),
  otlpUrl: field(
    "TOPGUN_OTLP_URL",
    Schema.String.pipe(Schema.filter((text) => /^https?:\/\//.test(text) && URL.canParse(text))),
    "a URL such as http://localhost:4318"
  ),
  serviceName: field("TOPGUN_SERVICE_NAME", Text, "a name"),
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

/** The files of the certificate and its key; `undefined` for a server without. */
export const tlsFiles = ({ tlsCert, tlsKey }: Settings): Tls.Files | undefined =>
  tlsCert === undefined || tlsKey === undefined ? undefined : { cert: tlsCert, key: tlsKey }

const keyVariables = "TOPGUN_JWT_SECRET, TOPGUN_JWT_PUBLIC_KEY or TOPGUN_JWKS_URL"

/** Twice as much as a writer's clock may be ahead: later stamps than those of what is forgotten by then are in nobody's hands. */
const tombstoneAgeMin = Duration.minutes(2)

/** What settings must be to one another. `of`: those that it takes to tell. */
const relations: ReadonlyArray<{
  readonly of: ReadonlyArray<keyof Settings>
  /** `now` is the wall clock's time, in ms. */
  readonly faults: (settings: Settings, now: number) => ReadonlyArray<string>
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
    of: ["tlsCert", "tlsKey"],
    faults: (settings, now) => {
      const files = tlsFiles(settings)
      if (files !== undefined) return Either.getOrElse(Either.flip(Tls.read(files, now)), () => [])
      return settings.tlsCert === settings.tlsKey
        ? []
        : ["tlsCert and tlsKey belong together: set both of TOPGUN_TLS_CERT and TOPGUN_TLS_KEY, or none"]
    }
  },
  {
    of: ["tombstoneAge"],
    faults: ({ tombstoneAge }) =>
      Duration.lessThan(tombstoneAge, tombstoneAgeMin)
        ? [
          `tombstoneAge is less than ${
            Duration.format(tombstoneAgeMin)
          }, within which clocks may differ: remember deletions for longer`
        ]
        : []
  },
  {
    of: ["tombstoneAge", "tombstoneHorizon"],
    faults: ({ tombstoneAge, tombstoneHorizon }) =>
      Duration.greaterThan(tombstoneAge, tombstoneHorizon)
        ? ["tombstoneAge is longer than tombstoneHorizon: no device is waited for longer than the latter"]
        : []
  },
  {
    of: ["storage", "databaseUrl"],
    faults: ({ databaseUrl, storage }) =>
      storage === "postgres"
        ? databaseUrl === undefined
          ? ["storage is \"postgres\", and nothing says where it is: set TOPGUN_DATABASE_URL"]
          : []
        : databaseUrl === undefined
        ? []
        : [
          `databaseUrl is set, and storage is "${storage}": set TOPGUN_STORAGE=postgres, or leave TOPGUN_DATABASE_URL out`
        ]
  },
  {
    of: ["commitTimeout"],
    faults: ({ commitTimeout }) =>
      Duration.lessThan(commitTimeout, "100 millis")
        ? ["commitTimeout is too short for any commit: make it 100ms or more"]
        : []
  },
  {
    of: ["shutdownNotice", "shutdownTimeout"],
    faults: ({ shutdownNotice, shutdownTimeout }) =>
      Duration.greaterThan(shutdownNotice, Duration.times(shutdownTimeout, 0.5))
        ? [
          "shutdownNotice takes more than half of shutdownTimeout, and too little is left for saving: raise the latter"
        ]
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
const complete = ({ faults, faulty, settings: partial }: Draft): Effect.Effect<Settings, ConfigInvalid> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
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
      ...relations.filter(({ of }) => !of.some((key) => unsure.has(key))).flatMap((relation) =>
        relation.faults(settings, now)
      )
    ]
    return all.length > 0 ? new ConfigInvalid({ faults: all }) : Effect.succeed(settings)
  })

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
const foreign = new Set(["TOPGUN_URL", "TOPGUN_TOKEN", "TOPGUN_TOKEN_FILE"])

/** Variables that others have made usual for what is a setting here, too; ours come first. `when`: they are read only then. */
const standards: ReadonlyArray<{
  readonly name: string
  readonly key: keyof Settings
  readonly when?: (settings: Partial<Settings>) => boolean
}> = [
  { name: "OTEL_EXPORTER_OTLP_ENDPOINT", key: "otlpUrl" },
  { name: "OTEL_SERVICE_NAME", key: "serviceName" },
  // Platforms set it for every program, whether it's meant to use that database or not.
  {
    name: "DATABASE_URL",
    key: "databaseUrl",
    when: ({ databaseUrl, storage }) => storage === "postgres" && databaseUrl === undefined
  }
]

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
        ? SettingFile.read(given.value)
        : Either.right<SettingFile.Contents>({ text: given.value, isOpen: false })
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
    for (const { key, name, when } of standards) {
      if (when?.({ ...fallbacks, ...settings as Partial<Settings>, ...overrides }) === false) continue
      const given = yield* Effect.option(provider.load(Config.nonEmptyString(name)))
      if (Option.isNone(given) || origins.has(key)) continue
      const decoded: Option.Option<unknown> = fields[key].decode(given.value)
      if (Option.isSome(decoded)) settings[key] = decoded.value
      else {
        faults.push(valueFault(name, key, given.value))
        faulty.add(key)
      }
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
