/** What an operator may set: what each setting is for, what lower and higher values of it cost, and its default. */
import * as Duration from "effect/Duration"
import type * as Redacted from "effect/Redacted"
import type * as Jwt from "./Jwt.ts"

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
  /**
   * Where data is kept: `sqlite` in `dataDir`, `postgres` in the database of `databaseUrl`; `memory` keeps nothing across a restart,
   * and refuses PERSISTED writes. @default "sqlite"
   */
  readonly storage: "sqlite" | "postgres" | "memory"
  /**
   * The database of storage `postgres`, as in `postgres://user:password@host:5432/database`. One server at a time. In the
   * environment it may be `DATABASE_URL` as well, which is read with that storage only. @default none
   */
  readonly databaseUrl: Redacted.Redacted | undefined
  /**
   * How long storage `postgres` may take over a commit, and over connecting for it; then the connection is given up, those who wait
   * are told, and it is tried again on another. Lower values tell of a database that hangs sooner; too low ones give up commits that
   * would have come. @default 30 seconds
   */
  readonly commitTimeout: Duration.DurationInput
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
   * A file that says who may do what: see `PermissionPolicy`. It is looked at every second, and a changed one is in force at once.
   * Where tokens are asked for and nothing says so, the server doesn't start. @default undefined
   */
  readonly policyFile: string | undefined
  /**
   * A file that says by what the maps of the grid are indexed and searched: see `Declarations`. Indexes are built at the start, and cost
   * memory for each record; without them a query looks at all records of its map. @default undefined
   */
  readonly gridFile: string | undefined
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
   * for as long, a minute at most, an expired token still reads and writes. @default 10000
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
  /**
   * How long a deletion is remembered at least, however soon all devices know of it: a day of serving, not of the calendar. A backup that is
   * younger brings no deleted record back. Lower values remember less, at some 150 bytes a deletion. @default 1 day
   */
  readonly tombstoneAge: Duration.DurationInput
  /**
   * How long deletions are remembered for a device that is away. One that was away for longer takes over the maps anew in which something
   * was deleted, and its unsent writes to keys that aren't there any more are rejected. Higher values remember more. @default 30 days
   */
  readonly tombstoneHorizon: Duration.DurationInput
  /**
   * Deletions that are remembered. When there are more, the devices that have been away for longest are treated as if they had been
   * away for longer than `tombstoneHorizon`, and `tombstoneAge` doesn't hold; what was deleted in the last two minutes is remembered
   * all the same. Higher values cost some 150 bytes each. @default 1000000
   */
  readonly tombstonesMax: number
  /** Maps that clients may create. Each costs some 100 kB once its keys are spread over all partitions. @default 1000 */
  readonly mapsMax: number
  /** Maps that one connection may have open. Higher values cost some 100 bytes each. @default 1000 */
  readonly subscriptionsMax: number
  /** Calls of one connection that are answered at a time; more are refused. Each costs a fiber. @default 32 */
  readonly callsMax: number
  /** Live queries of one connection; more are refused. Each costs the rows that it shows, and as many to spare. @default 100 */
  readonly queriesMax: number
  /** Rows of one query, which also says that there are more. Higher values let one query hold more, and tell more at once. @default 10000 */
  readonly queryRowsMax: number
  /** Bytes of all rows of one live query; one with more is ended. Encoded, they are kept once for all who ask the same. @default 4194304 */
  readonly queryBytesMax: number
  /**
   * How long answering a query for the first time may take, in ms, by what its plan looks at: some 2 ms for 1,000 records. What would take
   * longer is refused. Others get their turn meanwhile, but have less of the processor. @default 5000
   */
  readonly queryMillisMax: number
  /**
   * What a resolver may take for one operation, in ms, before it is stopped and the operation rejected. Nothing else is done
   * meanwhile. Higher values suit slower resolvers and collections of garbage amid them, and let one that never ends hold everybody
   * up for longer, three times for one message at most. @default 50
   */
  readonly resolverMillisMax: number
  /**
   * What one call of an interceptor may take, in ms; the operation or connection that it is about is refused then. Higher values suit
   * those that ask others, and keep a device's next operations waiting for longer. @default 5000
   */
  readonly interceptorMillisMax: number
  /** How long stopping may take, with unsaved writes being saved. Then what is left is given up. @default 10 seconds */
  readonly shutdownTimeout: Duration.DurationInput
  /**
   * How much of `shutdownTimeout` a server that is told to stop goes on as if it weren't, with `/readyz` answering 503, so that
   * load balancers send nobody any more. None is needed where nothing asks for `/readyz`. @default 0 seconds
   */
  readonly shutdownNotice: Duration.DurationInput
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

/** What a setting is when nobody sets it. */
export const defaults: Settings = {
  port: 8080,
  host: "127.0.0.1",
  tlsCert: undefined,
  tlsKey: undefined,
  dataDir: ".topgun",
  storage: "sqlite",
  databaseUrl: undefined,
  commitTimeout: Duration.seconds(30),
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
  policyFile: undefined,
  gridFile: undefined,
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
  tombstoneAge: Duration.days(1),
  tombstoneHorizon: Duration.days(30),
  tombstonesMax: 1_000_000,
  mapsMax: 1_000,
  subscriptionsMax: 1_000,
  callsMax: 32,
  queriesMax: 100,
  queryRowsMax: 10_000,
  queryBytesMax: 4 * 1024 * 1024,
  queryMillisMax: 5_000,
  resolverMillisMax: 50,
  interceptorMillisMax: 5_000,
  shutdownTimeout: Duration.seconds(10),
  shutdownNotice: Duration.zero,
  staticDir: undefined,
  metricsToken: undefined,
  otlpUrl: undefined,
  serviceName: "topgun",
  logLevel: "info",
  logFormat: "pretty"
}
