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
import * as Schema from "effect/Schema"
import { ConfigInvalid } from "@topgun/core/GridError"
import { nearest } from "@topgun/core/Spelling"
import * as Tls from "./Tls.ts"

/** The server's settings, all of them known. */
export interface Settings {
  /** The port for HTTP and WebSocket; 0 lets the system choose. @default 8080 */
  readonly port: number
  /** The address to listen at. Others than loopback are open to the network. @default "127.0.0.1" */
  readonly host: string
  /**
   * The file of a TLS certificate in PEM, with its issuers' after it: the port speaks HTTPS and secure WebSockets (`wss`) then, and
   * nothing else. It is looked at every 10 s, and a renewed one is taken over without a restart. @default undefined, with `tlsKey`
   */
  readonly tlsCert: string | undefined
  /** The file of the certificate's private key in PEM, without a passphrase. @default undefined, with `tlsCert` */
  readonly tlsKey: string | undefined
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
   * How many reverse proxies stand in front of the server, one behind the other, each of which adds to `X-Forwarded-For`: a
   * client's address is the one that the first of them saw. With fewer than there are all clients have the address of a proxy,
   * and share its limits; with more, each chooses its own. With 0 the header isn't looked at. @default 0
   */
  readonly proxies: number
  /**
   * Connections of one address at a time, of which an IPv6 network of 64 bits is one; one more is answered 429. Lower values keep
   * one machine from taking all that there are; too low ones shut out offices that share an address. @default 1000
   */
  readonly connectionsPerAddressMax: number
  /**
   * Connections of one user at a time; one more is closed with 1013. Each device of a user has one, whatever its tabs. Lower
   * values keep a user from taking all that there are. @default 100
   */
  readonly connectionsPerUserMax: number
  /**
   * Connections that haven't said yet who they are, in all; one more is answered 503. Lower values spare memory when strangers
   * come in numbers, and let fewer devices back at once after a restart. @default 1000
   */
  readonly unauthenticatedMax: number
  /** As `unauthenticatedMax`, of one address; one more is answered 429. @default 100 */
  readonly unauthenticatedPerAddressMax: number
  /**
   * New connections of one address a second, on average: four times as many at once. One more is answered 429, with the time to
   * come again. Lower values spare a server that somebody connects to in a circle; too low ones keep offices that share an
   * address waiting after a restart. @default 50
   */
  readonly connectsPerSecond: number
  /**
   * Tokens of one address that may be refused a minute; then no connection of it is accepted until it has waited (429). Lower
   * values spare the verifier; too low ones let one wrong client shut out the others of its address. @default 30
   */
  readonly failedAuthsPerMinute: number
  /**
   * Operations of one user a second, on average, on whichever connections; of one address where users are anonymous. Whoever
   * writes more isn't read until it is his turn, and nothing is lost. Lower values keep more for others, and let devices that come
   * back with much wait longer. @default 20000
   */
  readonly operationsPerSecond: number
  /** Operations beyond that at once, of one who has written little before. @default 100000 */
  readonly operationsBurst: number
  /**
   * Time for a new connection to say who it is, and for a request's headers to come, in ms. Lower values free what scanners hold sooner; too low ones refuse
   * devices on slow networks. @default 5000
   */
  readonly authMillisMax: number
  /**
   * How long a connection stays when its token has expired, in ms, for a new one to come. Higher values forgive slow clients;
   * for as long an expired token still reads and writes. @default 10000
   */
  readonly authGraceMillis: number
  /**
   * Bytes on their way to one client. From a quarter of it on events are left out, and the client is told to open their maps
   * again once it has read the rest; beyond all of it the client is cut off. Higher values leave out less, at that much memory
   * for each client that reads slowly. @default 1048576
   */
  readonly outboundBytesMax: number
  /**
   * How long a client that is behind may take to read what waits for it, in ms; then it is cut off. Higher values suit slower
   * networks, and keep for longer what waits for clients that don't read at all. @default 10000
   */
  readonly drainMillisMax: number
  /**
   * Writes that wait for the database. When there are more, the connections that send writes aren't read until there is
   * room. Higher values absorb larger bursts, at the memory of that many records. @default 20000
   */
  readonly pendingCommitsMax: number
  /**
   * What the process may take up in memory, in bytes. Beyond it writes that would make a new record are rejected as `Overloaded`,
   * while others go on, and new connections are answered 503, until there is room again. Lower values leave more to others on the
   * machine; too high ones have the operating system kill the server. `undefined` for three quarters of what the machine, or the
   * container, has. @default undefined
   */
  readonly memoryBytesMax: number | undefined
  /**
   * Records in all maps, tombstones included, beyond which writes that would make another are rejected as `Overloaded`. Each
   * costs its bytes and some 100 more. @default 10000000
   */
  readonly recordsMax: number
  /** Maps that clients may create. Each costs some 100 kB once its keys are spread over all partitions. @default 1000 */
  readonly mapsMax: number
  /** Maps that one connection may have open. Higher values cost some 100 bytes each. @default 1000 */
  readonly subscriptionsMax: number
  /** Calls of one connection that are answered at a time; more are refused. Each costs a fiber. @default 32 */
  readonly callsMax: number
  /** How long stopping may take, with unsaved writes being saved. Then what is left is given up. @default 10 seconds */
  readonly shutdownTimeout: Duration.DurationInput
  /**
   * How much of `shutdownTimeout` a server that is told to stop goes on as if it weren't, with `/readyz` answering 503, so that
   * load balancers send nobody any more. None is needed where nothing asks for `/readyz`. @default 0 seconds
   */
  readonly shutdownNotice: Duration.DurationInput
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
  tlsCert: undefined,
  tlsKey: undefined,
  dataDir: ".topgun",
  storage: "sqlite",
  auth: "loopback",
  allowedOrigins: [],
  connectionsMax: 10_000,
  proxies: 0,
  connectionsPerAddressMax: 1_000,
  connectionsPerUserMax: 100,
  unauthenticatedMax: 1_000,
  unauthenticatedPerAddressMax: 100,
  connectsPerSecond: 50,
  failedAuthsPerMinute: 30,
  operationsPerSecond: 20_000,
  operationsBurst: 100_000,
  authMillisMax: 5_000,
  authGraceMillis: 10_000,
  outboundBytesMax: 1024 * 1024,
  drainMillisMax: 10_000,
  pendingCommitsMax: 20_000,
  memoryBytesMax: undefined,
  recordsMax: 10_000_000,
  mapsMax: 1_000,
  subscriptionsMax: 1_000,
  callsMax: 32,
  shutdownTimeout: Duration.seconds(10),
  shutdownNotice: Duration.zero,
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

const fields: { readonly [K in keyof Settings]-?: Field<Exclude<Settings[K], undefined>> } = {
  port: count("TOPGUN_PORT", 0, 65_535),
  host: field("TOPGUN_HOST", Text, "a host name or address"),
  tlsCert: field("TOPGUN_TLS_CERT", Text, "the path of a file"),
  tlsKey: field("TOPGUN_TLS_KEY", Text, "the path of a file"),
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
  authGraceMillis: count("TOPGUN_AUTH_GRACE_MILLIS", 0, 600_000),
  outboundBytesMax: count("TOPGUN_OUTBOUND_BYTES_MAX", 64 * 1024, 1024 * 1024 * 1024),
  drainMillisMax: count("TOPGUN_DRAIN_MILLIS_MAX", 100, 600_000),
  pendingCommitsMax: count("TOPGUN_PENDING_COMMITS_MAX", 1, 10_000_000),
  memoryBytesMax: field("TOPGUN_MAX_MEMORY", BytesText, "bytes, 16 MiB or more, such as 512MiB or 2GiB"),
  recordsMax: count("TOPGUN_RECORDS_MAX", 1, 1_000_000_000),
  mapsMax: count("TOPGUN_MAPS_MAX", 1, 100_000),
  subscriptionsMax: count("TOPGUN_SUBSCRIPTIONS_MAX", 1, 100_000),
  callsMax: count("TOPGUN_CALLS_MAX", 1, 10_000),
  shutdownTimeout: field("TOPGUN_SHUTDOWN_TIMEOUT", DurationText, "a duration such as 10s or 500ms"),
  shutdownNotice: field("TOPGUN_SHUTDOWN_NOTICE", DurationText, "a duration such as 5s"),
  staticDir: field("TOPGUN_STATIC_DIR", Text, "the path of a directory"),
  logLevel: choice("TOPGUN_LOG_LEVEL", ["trace", "debug", "info", "warning", "error", "fatal", "none"]),
  logFormat: choice("TOPGUN_LOG_FORMAT", ["pretty", "logfmt", "json"])
}

const names = new Map(Object.entries(fields).map(([key, { name }]) => [name, key as keyof Settings]))

// --- Checking ---

/** Whether only programs of the same machine can reach a host. */
export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host)

const relationFaults = (settings: Settings): ReadonlyArray<string> => [
  ...(settings.auth === "loopback" && !isLoopback(settings.host)
    ? [
      `host "${settings.host}" can be reached from the network, and no way to authenticate is configured: ` +
      "listen on 127.0.0.1, or set TOPGUN_AUTH=none to let everyone in who reaches it"
    ]
    : []),
  ...(Duration.greaterThan(settings.shutdownNotice, Duration.times(settings.shutdownTimeout, 0.5))
    ? ["shutdownNotice takes more than half of shutdownTimeout, and too little is left for saving: raise the latter"]
    : [])
]

const valueFaults = (settings: Settings): ReadonlyArray<string> =>
  Object.entries(fields).flatMap(([key, { expected, is }]) => {
    const value: unknown = settings[key as keyof Settings]
    return is(value) || (value === undefined && defaults[key as keyof Settings] === undefined)
      ? []
      : [`${key} is ${JSON.stringify(value)}: expected ${expected}`]
  })

/** The files of the certificate and its key; `undefined` for a server without. */
export const tlsFiles = ({ tlsCert, tlsKey }: Settings): Tls.Files | undefined =>
  tlsCert === undefined || tlsKey === undefined ? undefined : { cert: tlsCert, key: tlsKey }

const tlsFaults = (settings: Settings, now: number): ReadonlyArray<string> => {
  const files = tlsFiles(settings)
  if (files !== undefined) return Either.getOrElse(Either.flip(Tls.read(files, now)), () => [])
  return settings.tlsCert === settings.tlsKey
    ? []
    : ["tlsCert and tlsKey belong together: set both of TOPGUN_TLS_CERT and TOPGUN_TLS_KEY, or none"]
}

/** The defaults with `partial` over them. Fails with every fault at once. */
export const make = (partial: Partial<Settings> = {}): Effect.Effect<Settings, ConfigInvalid> =>
  Effect.flatMap(Effect.clock, (clock) => {
    const settings = { ...defaults, ...partial }
    const values = valueFaults(settings)
    const faults = values.length > 0
      ? values
      : [...relationFaults(settings), ...tlsFaults(settings, clock.unsafeCurrentTimeMillis())]
    return faults.length > 0 ? new ConfigInvalid({ faults }) : Effect.succeed(settings)
  })

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

/** What the environment sets, by the current `ConfigProvider`. Fails with every fault at once. */
export const fromEnv: Effect.Effect<Partial<Settings>, ConfigInvalid> = Effect.gen(function*() {
  const provider = yield* Effect.configProviderWith(Effect.succeed)
  const settings: Record<string, unknown> = {}
  const faults: Array<string> = []
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
    const { decode, expected } = fields[key]
    const decoded: Option.Option<unknown> = decode(value.value)
    if (Option.isSome(decoded)) settings[key] = decoded.value
    else faults.push(`${name} is ${JSON.stringify(value.value)}: expected ${expected}`)
  }
  return faults.length > 0 ? yield* new ConfigInvalid({ faults }) : settings as Partial<Settings>
})

/** Settings of the environment over the defaults, and `overrides`, such as a command line's, over both. */
export const layerFromEnv = (overrides: Partial<Settings> = {}): Layer.Layer<ServerConfig, ConfigInvalid> =>
  Layer.effect(ServerConfig, Effect.flatMap(fromEnv, (settings) => make({ ...settings, ...overrides })))
