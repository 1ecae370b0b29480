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
import { ConfigInvalid } from "@topgun/core/GridError"
import { nearest } from "@topgun/core/Spelling"

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
   * doesn't start without an `Authentication` that verifies tokens. One that there is asks everybody, whatever is set here.
   * @default "loopback"
   */
  readonly auth: "loopback" | "none" | "token"
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
   * for as long an expired token still reads and writes. @default 10000
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
  /**
   * What `/metrics` is shown to, as `Authorization: Bearer …`. Without it the metrics are there only while `host` is a loopback
   * address. @default undefined
   */
  readonly metricsToken: Redacted.Redacted | undefined
  /**
   * The base URL of a collector of OpenTelemetry that spans go to, by OTLP/HTTP; `undefined` for none. Needs
   * `@effect/opentelemetry`. In the environment it may be `OTEL_EXPORTER_OTLP_ENDPOINT` as well. @default undefined
   */
  readonly otlpUrl: string | undefined
  /** What the collector is told that the spans are of; in the environment `OTEL_SERVICE_NAME`, too. @default "topgun" */
  readonly serviceName: string
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
  metricsToken: undefined,
  otlpUrl: undefined,
  serviceName: "topgun",
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
  /** It isn't shown, whatever is wrong with it. */
  readonly isSecret?: boolean
}

const field = <A>(name: string, schema: Schema.Schema<A, string>, expected: string): Field<A> => ({
  name,
  expected,
  decode: Schema.decodeOption(schema),
  is: Schema.is(Schema.typeSchema(schema))
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
const DurationText = Schema.transformOrFail(
  Schema.String,
  Schema.declare((value): value is Duration.DurationInput => Option.isSome(Duration.decodeUnknown(value))),
  {
    strict: true,
    decode: (text, _, ast) => {
      const [, amount, unit] = durationGrammar.exec(text) ?? []
      const duration = amount === undefined || unit === undefined
        ? Duration.decodeUnknown(text)
        : Option.some(Duration.millis(Number(amount) * unitMillis[unit]!))
      return Either.fromOption(duration, () => new ParseResult.Type(ast, text))
    },
    encode: (duration) => Either.right(String(Duration.toMillis(duration)))
  }
)

const Text = Schema.String.pipe(Schema.minLength(1))
/** What fits a header, and is too long to be tried out. */
const SecretText = Schema.String.pipe(Schema.pattern(/^[\x21-\x7e]{16,1024}$/))

const fields: { readonly [K in keyof Settings]: Field<Settings[K]> } = {
  port: count("TOPGUN_PORT", 0, 65_535),
  host: field("TOPGUN_HOST", Text, "a host name or address"),
  dataDir: field("TOPGUN_DATA_DIR", Text, "the path of a directory"),
  storage: choice("TOPGUN_STORAGE", ["sqlite", "memory"]),
  auth: choice("TOPGUN_AUTH", ["loopback", "none", "token"]),
  allowedOrigins: field(
    "TOPGUN_ALLOWED_ORIGINS",
    Schema.transform(Schema.String, Schema.Array(Schema.String.pipe(Schema.pattern(/^(\*|https?:\/\/[^/\s,]+)$/))), {
      strict: true,
      decode: (text) => text.split(",").map((origin) => origin.trim()),
      encode: (origins) => origins.join(",")
    }),
    "origins such as https://app.example.com, parted by commas, or *"
  ),
  connectionsMax: count("TOPGUN_CONNECTIONS_MAX", 1, 1_000_000),
  authMillisMax: count("TOPGUN_AUTH_MILLIS_MAX", 100, 600_000),
  authGraceMillis: count("TOPGUN_AUTH_GRACE_MILLIS", 0, 600_000),
  outboundBytesMax: count("TOPGUN_OUTBOUND_BYTES_MAX", 64 * 1024, 1024 * 1024 * 1024),
  pendingCommitsMax: count("TOPGUN_PENDING_COMMITS_MAX", 1, 10_000_000),
  mapsMax: count("TOPGUN_MAPS_MAX", 1, 100_000),
  subscriptionsMax: count("TOPGUN_SUBSCRIPTIONS_MAX", 1, 100_000),
  callsMax: count("TOPGUN_CALLS_MAX", 1, 10_000),
  shutdownTimeout: field("TOPGUN_SHUTDOWN_TIMEOUT", DurationText, "a duration such as 10s or 500ms"),
  staticDir: field("TOPGUN_STATIC_DIR", Text, "the path of a directory"),
  metricsToken: {
    ...field("TOPGUN_METRICS_TOKEN", Schema.Redacted(SecretText), "a secret of at least 16 visible characters"),
    isSecret: true
  },
  otlpUrl: field(
    "TOPGUN_OTLP_URL",
    Schema.String.pipe(Schema.filter((text) => /^https?:\/\//.test(text) && URL.canParse(text))),
    "a URL such as http://localhost:4318"
  ),
  serviceName: field("TOPGUN_SERVICE_NAME", Text, "a name"),
  logLevel: choice("TOPGUN_LOG_LEVEL", ["trace", "debug", "info", "warning", "error", "fatal", "none"]),
  logFormat: choice("TOPGUN_LOG_FORMAT", ["pretty", "logfmt", "json"])
}

/** Settings that may be absent. */
const optional: ReadonlySet<string> = new Set<keyof Settings>(["staticDir", "metricsToken", "otlpUrl"])

const names = new Map(Object.entries(fields).map(([key, { name }]) => [name, key as keyof Settings]))

// --- Checking ---

/** Whether only programs of the same machine can reach a host. */
export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host)

const relationFaults = (settings: Settings): ReadonlyArray<string> =>
  settings.auth === "loopback" && !isLoopback(settings.host)
    ? [
      `host "${settings.host}" can be reached from the network, and no way to authenticate is configured: ` +
      "listen on 127.0.0.1, or set TOPGUN_AUTH=none to let everyone in who reaches it"
    ]
    : []

const valueFaults = (settings: Settings): ReadonlyArray<string> =>
  Object.entries(fields).flatMap(([key, { expected, is, isSecret }]) => {
    const value: unknown = settings[key as keyof Settings]
    return is(value) || (optional.has(key) && value === undefined)
      ? []
      : [`${key} is ${isSecret === true ? "not usable" : JSON.stringify(value)}: expected ${expected}`]
  })

/** The defaults with `partial` over them. Fails with every fault at once. */
export const make = (partial: Partial<Settings> = {}): Effect.Effect<Settings, ConfigInvalid> =>
  Effect.suspend(() => {
    const settings = { ...defaults, ...partial }
    const values = valueFaults(settings)
    const faults = values.length > 0 ? values : relationFaults(settings)
    return faults.length > 0 ? new ConfigInvalid({ faults }) : Effect.succeed(settings)
  })

/** Settings given in code, over the defaults. */
export const layer = (partial: Partial<Settings> = {}): Layer.Layer<ServerConfig, ConfigInvalid> =>
  Layer.effect(ServerConfig, make(partial))

// --- The environment ---

/** The command line's own variables. */
const foreign = new Set(["TOPGUN_URL", "TOPGUN_TOKEN"])

/** OpenTelemetry's own variables for what is a setting here, too; ours come first. */
const standards: ReadonlyArray<readonly [name: string, key: keyof Settings]> = [
  ["OTEL_EXPORTER_OTLP_ENDPOINT", "otlpUrl"],
  ["OTEL_SERVICE_NAME", "serviceName"]
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

/** What the environment sets, by the current `ConfigProvider`. Fails with every fault at once. */
export const fromEnv: Effect.Effect<Partial<Settings>, ConfigInvalid> = Effect.gen(function*() {
  const provider = yield* Effect.configProviderWith(Effect.succeed)
  const settings: Record<string, unknown> = {}
  const faults: Array<string> = []
  const set = (name: string, key: keyof Settings, text: string): void => {
    const { decode, expected, isSecret } = fields[key]
    const decoded: Option.Option<unknown> = decode(text)
    if (Option.isSome(decoded)) settings[key] = decoded.value
    else faults.push(`${name} is ${isSecret === true ? "not usable" : JSON.stringify(text)}: expected ${expected}`)
  }
  for (const name of yield* namesBelow(provider, ["TOPGUN"])) {
    const value = yield* Effect.option(provider.load(Config.string(name)))
    if (Option.isNone(value) || foreign.has(name)) continue
    if (isServiceLink(name, value.value)) {
      yield* Effect.logDebug(`${name} is ignored: it is a service link that Kubernetes set`)
      continue
    }
    const key = names.get(name)
    if (key === undefined) {
      const meant = nearest(name, names.keys())
      faults.push(`${name} is not known${meant === undefined ? "" : `. Did you mean ${meant}?`}`)
      continue
    }
    set(name, key, value.value)
  }
  for (const [name, key] of standards) {
    const value = yield* Effect.option(provider.load(Config.nonEmptyString(name)))
    if (Option.isSome(value) && !(key in settings)) set(name, key, value.value)
  }
  return faults.length > 0 ? yield* new ConfigInvalid({ faults }) : settings as Partial<Settings>
})

/** Settings of the environment over the defaults, and `overrides`, such as a command line's, over both. */
export const layerFromEnv = (overrides: Partial<Settings> = {}): Layer.Layer<ServerConfig, ConfigInvalid> =>
  Layer.effect(ServerConfig, Effect.flatMap(fromEnv, (settings) => make({ ...settings, ...overrides })))
