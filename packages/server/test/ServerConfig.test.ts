import { describe, expect, it } from "@effect/vitest"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { execFileSync } from "node:child_process"
import { chmodSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const environment = (variables: Record<string, string>) =>
  Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables)), { pathDelim: "_" }))

const settingsOf = (variables: Record<string, string>, overrides: Partial<ServerConfig.Settings> = {}) =>
  Effect.provide(ServerConfig.ServerConfig, ServerConfig.layerFromEnv(overrides)).pipe(environment(variables))

const faultsOf = (variables: Record<string, string>) =>
  Effect.map(Effect.flip(settingsOf(variables)), ({ faults }) => faults)

const secret = "kx3fVb9Qe7TzR1mWp0sYd5hLuJcN8aGi"

/** A directory that goes with its scope. */
const directory: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "topgun-config-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** A file of this content that only its owner can read. */
const file = (content: string | Uint8Array): Effect.Effect<string, never, Scope.Scope> =>
  Effect.map(directory, (parent) => {
    const path = join(parent, "secret")
    writeFileSync(path, content, { mode: 0o600 })
    return path
  })

describe("ServerConfig", () => {
  it.effect("has a default for everything", () =>
    Effect.gen(function*() {
      expect(yield* settingsOf({})).toEqual(ServerConfig.defaults)
      expect(yield* settingsOf({ HOME: "/root", PATH: "/bin" })).toEqual(ServerConfig.defaults)
    }))

  it.effect("reads every setting from the environment", () =>
    Effect.gen(function*() {
      const settings = yield* settingsOf({
        TOPGUN_PORT: "9000",
        TOPGUN_HOST: "0.0.0.0",
        TOPGUN_AUTH: "token",
        TOPGUN_JWT_SECRET: secret,
        TOPGUN_JWT_ISSUER: "https://issuer.example",
        TOPGUN_JWT_AUDIENCE: "topgun",
        TOPGUN_JWT_ALGORITHMS: "HS256",
        TOPGUN_JWT_USER_CLAIM: "email",
        TOPGUN_JWT_ROLES_CLAIM: "groups",
        TOPGUN_JWT_ATTRIBUTES: "tenant, plan",
        TOPGUN_JWT_TOLERANCE: "1m",
        TOPGUN_DATA_DIR: "/var/lib/topgun",
        TOPGUN_STORAGE: "postgres",
        TOPGUN_DATABASE_URL: "postgres://u:p@db/topgun",
        TOPGUN_COMMIT_TIMEOUT: "3s",
        TOPGUN_ALLOWED_ORIGINS: "https://a.example, http://localhost:5173",
        TOPGUN_SHUTDOWN_TIMEOUT: "30s",
        TOPGUN_SHUTDOWN_NOTICE: "5s",
        TOPGUN_POLICY_FILE: "/etc/topgun/policy.json",
        TOPGUN_GRID_FILE: "/etc/topgun/grid.json",
        TOPGUN_LOG_LEVEL: "debug",
        TOPGUN_LOG_FORMAT: "json",
        TOPGUN_STATIC_DIR: "/srv/www",
        TOPGUN_METRICS_TOKEN: "sixteen-or-more-characters",
        TOPGUN_OTLP_URL: "http://localhost:4318",
        TOPGUN_SERVICE_NAME: "grid",
        TOPGUN_CONNECTIONS_MAX: "50",
        TOPGUN_PROXIES: "2",
        TOPGUN_CONNECTIONS_PER_ADDRESS_MAX: "20",
        TOPGUN_CONNECTIONS_PER_USER_MAX: "21",
        TOPGUN_UNAUTHENTICATED_MAX: "22",
        TOPGUN_UNAUTHENTICATED_PER_ADDRESS_MAX: "23",
        TOPGUN_CONNECTS_PER_SECOND: "24",
        TOPGUN_FAILED_AUTHS_PER_MINUTE: "25",
        TOPGUN_OPERATIONS_PER_SECOND: "1000",
        TOPGUN_OPERATIONS_BURST: "27",
        TOPGUN_AUTH_MILLIS_MAX: "1000",
        TOPGUN_AUTH_GRACE_MILLIS: "2000",
        TOPGUN_OUTBOUND_BYTES_MAX: "2097152",
        TOPGUN_DRAIN_MILLIS_MAX: "5000",
        TOPGUN_PENDING_COMMITS_MAX: "100",
        TOPGUN_MAX_MEMORY: "512MiB",
        TOPGUN_RECORDS_MAX: "1000",
        TOPGUN_TOMBSTONE_AGE: "2h",
        TOPGUN_TOMBSTONE_HORIZON: "7d",
        TOPGUN_TOMBSTONES_MAX: "5000",
        TOPGUN_MAPS_MAX: "3",
        TOPGUN_SUBSCRIPTIONS_MAX: "4",
        TOPGUN_CALLS_MAX: "5",
        TOPGUN_QUERIES_MAX: "6",
        TOPGUN_QUERY_ROWS_MAX: "7",
        TOPGUN_QUERY_BYTES_MAX: "300000",
        TOPGUN_QUERY_MILLIS_MAX: "8",
        TOPGUN_RESOLVER_MILLIS_MAX: "30",
        TOPGUN_INTERCEPTOR_MILLIS_MAX: "700"
      })
      expect(settings).toEqual({
        port: 9_000,
        host: "0.0.0.0",
        auth: "token",
        jwtSecret: Redacted.make(secret),
        jwtPublicKey: undefined,
        jwksUrl: undefined,
        jwtIssuer: "https://issuer.example",
        jwtAudience: "topgun",
        jwtAlgorithms: ["HS256"],
        jwtUserClaim: "email",
        jwtRolesClaim: "groups",
        jwtAttributes: ["tenant", "plan"],
        jwtTolerance: Duration.minutes(1),
        dataDir: "/var/lib/topgun",
        storage: "postgres",
        databaseUrl: Redacted.make("postgres://u:p@db/topgun"),
        commitTimeout: Duration.seconds(3),
        allowedOrigins: ["https://a.example", "http://localhost:5173"],
        shutdownTimeout: Duration.seconds(30),
        shutdownNotice: Duration.seconds(5),
        policyFile: "/etc/topgun/policy.json",
        gridFile: "/etc/topgun/grid.json",
        metricsToken: Redacted.make("sixteen-or-more-characters"),
        logLevel: "debug",
        logFormat: "json",
        staticDir: "/srv/www",
        otlpUrl: "http://localhost:4318",
        serviceName: "grid",
        connectionsMax: 50,
        proxies: 2,
        connectionsPerAddressMax: 20,
        connectionsPerUserMax: 21,
        unauthenticatedMax: 22,
        unauthenticatedPerAddressMax: 23,
        connectsPerSecond: 24,
        failedAuthsPerMinute: 25,
        operationsPerSecond: 1_000,
        operationsBurst: 27,
        authMillisMax: 1_000,
        authGraceMillis: 2_000,
        outboundBytesMax: 2_097_152,
        drainMillisMax: 5_000,
        pendingCommitsMax: 100,
        memoryBytesMax: 536_870_912,
        recordsMax: 1_000,
        tombstoneAge: Duration.hours(2),
        tombstoneHorizon: Duration.days(7),
        tombstonesMax: 5_000,
        mapsMax: 3,
        subscriptionsMax: 4,
        callsMax: 5,
        queriesMax: 6,
        queryRowsMax: 7,
        queryBytesMax: 300_000,
        queryMillisMax: 8,
        resolverMillisMax: 30,
        interceptorMillisMax: 700
      })
      expect(Redacted.value(settings.metricsToken!)).toBe("sixteen-or-more-characters")
    }))

  it.effect("shows no secret that can't be used", () =>
    Effect.gen(function*() {
      expect(yield* faultsOf({ TOPGUN_METRICS_TOKEN: "canary" })).toEqual([
        "TOPGUN_METRICS_TOKEN can't be used: expected a secret of at least 16 letters, digits and -._~+/"
      ])
    }))

  it.effect("lists all faults at once, and the name that an unknown variable may have meant", () =>
    Effect.gen(function*() {
      expect(yield* faultsOf({ TOPGUN_PORT: "http", TOPGUN_STORAGE: "redis", TOPGUN_DATADIR: "x", TOPGUN_HOST: "" }))
        .toEqual([
          "TOPGUN_DATADIR is not known. Did you mean TOPGUN_DATA_DIR?",
          "TOPGUN_HOST is \"\": expected a host name or address",
          "TOPGUN_PORT is \"http\": expected an integer from 0 to 65535",
          "TOPGUN_STORAGE is \"redis\": expected one of sqlite, postgres, memory"
        ])
    }))

  it.effect("reads amounts of memory in bytes and in binary units", () =>
    Effect.gen(function*() {
      for (const [text, bytes] of [["16777216", 16_777_216], ["2GiB", 2 ** 31], ["16384 KiB", 16_777_216]] as const) {
        expect((yield* settingsOf({ TOPGUN_MAX_MEMORY: text })).memoryBytesMax).toBe(bytes)
      }
      for (const text of ["", "1MiB", "512MB", "-1GiB", "1e9", "9999999TiB"]) {
        expect(yield* faultsOf({ TOPGUN_MAX_MEMORY: text })).toEqual([expect.stringContaining("16 MiB or more")])
      }
    }))

  it.effect("remembers deletions for longer than clocks differ, and no shorter than it waits for devices", () =>
    Effect.gen(function*() {
      expect(yield* faultsOf({ TOPGUN_TOMBSTONE_AGE: "119s" })).toEqual([
        expect.stringContaining("tombstoneAge is less")
      ])
      expect(yield* faultsOf({ TOPGUN_TOMBSTONE_AGE: "2d", TOPGUN_TOMBSTONE_HORIZON: "1d" })).toEqual([
        expect.stringContaining("longer than tombstoneHorizon")
      ])
      expect((yield* settingsOf({ TOPGUN_TOMBSTONE_AGE: "2m" })).tombstoneAge).toEqual(Duration.minutes(2))
    }))

  it.effect("leaves a server that stops time for saving after its notice", () =>
    Effect.gen(function*() {
      expect(yield* faultsOf({ TOPGUN_SHUTDOWN_NOTICE: "6s" })).toEqual([expect.stringContaining("shutdownNotice")])
      yield* settingsOf({ TOPGUN_SHUTDOWN_NOTICE: "5s" })
    }))

  it.effect("passes over the links that Kubernetes makes for a service of this name, and what is the command line's", () =>
    Effect.gen(function*() {
      const settings = yield* settingsOf({
        TOPGUN_PORT: "tcp://10.0.0.1:8080",
        TOPGUN_PORT_8080_TCP: "tcp://10.0.0.1:8080",
        TOPGUN_PORT_8080_TCP_ADDR: "10.0.0.1",
        TOPGUN_PORT_8080_TCP_PORT: "8080",
        TOPGUN_PORT_8080_TCP_PROTO: "tcp",
        TOPGUN_SERVICE_HOST: "10.0.0.1",
        TOPGUN_SERVICE_PORT: "8080",
        TOPGUN_SERVICE_PORT_HTTP: "8080",
        TOPGUN_DB_PORT: "tcp://10.0.0.2:5432",
        TOPGUN_URL: "ws://localhost:8080",
        TOPGUN_TOKEN: "t",
        TOPGUN_TOKEN_FILE: "/nowhere"
      })
      expect(settings).toEqual(ServerConfig.defaults)
    }))

  it.effect("lets nobody in unasked from the network, unless told so in so many words", () =>
    Effect.gen(function*() {
      const [fault] = yield* faultsOf({ TOPGUN_HOST: "0.0.0.0" })
      expect(fault).toContain("TOPGUN_AUTH=none")
      for (const host of ["127.0.0.1", "127.8.9.1", "localhost", "::1"]) {
        expect((yield* settingsOf({ TOPGUN_HOST: host })).host).toBe(host)
      }
      expect((yield* settingsOf({ TOPGUN_HOST: "0.0.0.0", TOPGUN_AUTH: "none" })).host).toBe("0.0.0.0")
    }))

  it.effect("takes the database's URL with the storage that it is of, and no other", () =>
    Effect.gen(function*() {
      const database = "postgres://app:p%40ss@db.example:5433/app?sslmode=verify-full"
      const [postgres, own, usual] = [{ TOPGUN_STORAGE: "postgres" }, { TOPGUN_DATABASE_URL: database }, {
        DATABASE_URL: database
      }]
      const urlOf = (variables: Record<string, string>) =>
        Effect.map(settingsOf(variables), ({ databaseUrl }) => databaseUrl && Redacted.value(databaseUrl))
      expect(yield* urlOf({ ...postgres, ...own })).toBe(database)
      expect(yield* urlOf({ ...postgres, ...usual })).toBe(database)
      expect(yield* urlOf({ ...postgres, ...own, DATABASE_URL: "postgres://another" })).toBe(database)
      expect(yield* urlOf({ ...postgres, TOPGUN_DATABASE_URL: "postgresql:///app?host=/run/postgresql" })).toContain(
        "/run"
      )
      expect(yield* urlOf(usual)).toBe(undefined)
      expect(yield* urlOf({ DATABASE_URL: "mysql://x" })).toBe(undefined)
      expect(
        (yield* Effect.provide(ServerConfig.ServerConfig, ServerConfig.layerFromEnv({ storage: "postgres" })).pipe(
          environment(usual)
        )).databaseUrl
      ).toEqual(Redacted.make(database))

      expect(yield* faultsOf(postgres)).toEqual([
        "storage is \"postgres\", and nothing says where it is: set TOPGUN_DATABASE_URL"
      ])
      expect(yield* faultsOf(own)).toEqual([
        "databaseUrl is set, and storage is \"sqlite\": set TOPGUN_STORAGE=postgres, or leave TOPGUN_DATABASE_URL out"
      ])
      for (
        const wrong of [
          "mysql://app:hidden@db/app",
          "app:hidden@db/app",
          "postgres://app:hid#den@db:x/app",
          "postgres:app"
        ]
      ) {
        for (const name of ["TOPGUN_DATABASE_URL", "DATABASE_URL"]) {
          const faults = yield* faultsOf({ ...postgres, [name]: wrong })
          expect(faults).toEqual([expect.stringMatching(`^${name} can't be used: expected a URL such as postgres://`)])
          expect(faults.join()).not.toContain("hid")
        }
      }
      const departures = ServerConfig.departures(yield* settingsOf({ ...postgres, ...own }))
      expect(departures["TOPGUN_DATABASE_URL"]).toBe("<redacted>")
      expect(yield* faultsOf({ TOPGUN_COMMIT_TIMEOUT: "99ms" })).toEqual([
        "commitTimeout is too short for any commit: make it 100ms or more"
      ])
    }))

  it.effect("takes none of its variables empty, mistyped, or out of bounds", () =>
    Effect.gen(function*() {
      const names = [
        "AUTH",
        "HOST",
        "PORT",
        "DATA_DIR",
        "STORAGE",
        "STATIC_DIR",
        "ALLOWED_ORIGINS",
        "LOG_LEVEL",
        "LOG_FORMAT",
        "SHUTDOWN_TIMEOUT",
        "DATABASE_URL",
        "DATABASE_URL_FILE",
        "COMMIT_TIMEOUT",
        "CONNECTIONS_MAX",
        "AUTH_MILLIS_MAX",
        "AUTH_GRACE_MILLIS",
        "OUTBOUND_BYTES_MAX",
        "PENDING_COMMITS_MAX",
        "MAPS_MAX",
        "SUBSCRIPTIONS_MAX",
        "CALLS_MAX",
        "RESOLVER_MILLIS_MAX",
        "INTERCEPTOR_MILLIS_MAX",
        "JWT_SECRET",
        "JWT_SECRET_FILE",
        "JWT_PUBLIC_KEY",
        "JWT_PUBLIC_KEY_FILE",
        "JWKS_URL",
        "JWT_ISSUER",
        "JWT_AUDIENCE",
        "JWT_ALGORITHMS",
        "JWT_USER_CLAIM",
        "JWT_ROLES_CLAIM",
        "JWT_ATTRIBUTES",
        "JWT_TOLERANCE"
      ].map((name) => `TOPGUN_${name}`)
      for (const name of names) {
        expect(yield* faultsOf({ [name]: "" })).toEqual([expect.stringMatching(`^${name} `)])
        const misspelt = `${name.slice(0, -1)}Q`
        expect(yield* faultsOf({ [misspelt]: "1" })).toEqual([expect.stringMatching(`^${misspelt} is not known`)])
      }
      for (const name of names.filter((each) => /PORT$|MAX$|MILLIS$|TIMEOUT$|TOLERANCE$/.test(each))) {
        for (const value of ["NaN", "-1", "1.5", "1e400", "9".repeat(30), "Infinity", "0x", "ten", "10s ago"]) {
          expect([name, value, yield* faultsOf({ [name]: value })]).toEqual([
            name,
            value,
            [expect.stringMatching(`^${name} is ${JSON.stringify(value)}: expected`)]
          ])
        }
      }
      for (const [name, value] of [["PORT", "65536"], ["AUTH_GRACE_MILLIS", "60001"], ["JWT_TOLERANCE", "61s"]]) {
        expect(yield* faultsOf({ [`TOPGUN_${name}`]: value! })).toHaveLength(1)
      }
    }))

  it.effect("asks everybody for a token when there is a key to verify it by, and is open to the network then", () =>
    Effect.gen(function*() {
      const key = { TOPGUN_JWT_SECRET: secret }
      expect((yield* settingsOf(key)).auth).toBe("token")
      expect((yield* settingsOf({ ...key, TOPGUN_HOST: "0.0.0.0" })).auth).toBe("token")
      expect((yield* settingsOf({ ...key, TOPGUN_AUTH: "loopback" })).auth).toBe("token")
      expect((yield* settingsOf({ TOPGUN_JWKS_URL: "https://issuer.example/keys" })).auth).toBe("token")
      expect(yield* faultsOf({ ...key, TOPGUN_AUTH: "none" })).toEqual([expect.stringMatching(/leave one of them out/)])
      const [fault] = yield* faultsOf({ TOPGUN_HOST: "0.0.0.0" })
      for (const name of ["TOPGUN_JWT_SECRET", "TOPGUN_JWT_PUBLIC_KEY", "TOPGUN_JWKS_URL"]) {
        expect(fault).toContain(name)
      }
    }))

  it.effect("refuses keys that are weak, several, or missing for what else is set, together with other faults", () =>
    Effect.gen(function*() {
      expect(yield* faultsOf({ TOPGUN_JWT_SECRET: "changeme", TOPGUN_PORT: "http", TOPGUN_JWT_SECRT: "x" })).toEqual([
        "TOPGUN_JWT_SECRT is not known. Did you mean TOPGUN_JWT_SECRET?",
        "TOPGUN_PORT is \"http\": expected an integer from 0 to 65535",
        expect.stringMatching(/^the secret for tokens has 8 bytes/)
      ])
      expect(yield* faultsOf({ TOPGUN_JWT_SECRET: secret, TOPGUN_JWKS_URL: "https://issuer.example/keys" })).toEqual([
        expect.stringMatching(/^more than one key/)
      ])
      expect(yield* faultsOf({ TOPGUN_JWT_ISSUER: "i", TOPGUN_JWT_TOLERANCE: "1s" })).toEqual([
        expect.stringMatching(/^TOPGUN_JWT_ISSUER is set, and there is no key/),
        expect.stringMatching(/^TOPGUN_JWT_TOLERANCE is set, and there is no key/)
      ])
      expect(yield* faultsOf({ TOPGUN_JWKS_URL: "http://issuer.example/keys" })).toHaveLength(1)
      expect(yield* faultsOf({ TOPGUN_JWT_SECRET: secret, TOPGUN_JWT_ALGORITHMS: "HS256,none" })).toEqual([
        "TOPGUN_JWT_ALGORITHMS is \"HS256,none\": expected some of HS256, RS256, ES256, parted by commas"
      ])
      expect(yield* faultsOf({ TOPGUN_JWT_SECRET: secret, TOPGUN_JWT_ALGORITHMS: "RS256" })).toHaveLength(1)
    }))

  it.scoped("reads secrets from files, links to them and editors' line ends included", () =>
    Effect.gen(function*() {
      const settingOf = (path: string) =>
        Effect.map(settingsOf({ TOPGUN_JWT_SECRET_FILE: path }), ({ jwtSecret }) => Redacted.value(jwtSecret!))
      for (const content of [secret, `${secret}\n`, `${secret}\r\n`, `\ufeff${secret}\n`]) {
        expect(yield* settingOf(yield* file(content))).toBe(secret)
      }
      expect(yield* settingOf(yield* file(`${secret}\n\n`))).toBe(`${secret}\n`)
      expect(yield* settingOf(yield* file(` ${secret}`))).toBe(` ${secret}`)
      const link = join(yield* directory, "link")
      symlinkSync(yield* file(secret), link)
      expect(yield* settingOf(link)).toBe(secret)
    }))

  it.scoped("refuses files that hold no secret, without waiting for any", () =>
    Effect.gen(function*() {
      const inside = yield* directory
      const pipe = join(inside, "pipe")
      execFileSync("mkfifo", [pipe])
      const bad: ReadonlyArray<readonly [path: string, why: string]> = [
        [join(inside, "none"), "which isn't there"],
        [inside, "which is no file"],
        [pipe, "which is no file"],
        ["/dev/zero", "which is no file"],
        [yield* file(""), "which is empty"],
        [yield* file("\n"), "which is empty"],
        [yield* file("x".repeat(64 * 1024 + 1)), "which has more than 65536 bytes"],
        [yield* file(new Uint8Array([0x61, 0xff])), "which can't be read (ERR_ENCODING_INVALID_ENCODED_DATA)"],
        [`${inside}\0`, "which can't be read (ERR_INVALID_ARG_VALUE)"]
      ]
      for (const [path, why] of bad) {
        expect(yield* faultsOf({ TOPGUN_JWT_SECRET_FILE: path })).toEqual([
          `TOPGUN_JWT_SECRET_FILE names ${JSON.stringify(path)}, ${why}`
        ])
      }
      const good = yield* file(secret)
      expect(yield* faultsOf({ TOPGUN_JWT_SECRET_FILE: good, TOPGUN_JWT_SECRET: secret })).toEqual([
        "TOPGUN_JWT_SECRET and TOPGUN_JWT_SECRET_FILE are both set: keep one of them"
      ])
      expect(yield* faultsOf({ TOPGUN_PORT_FILE: good })).toEqual([
        expect.stringMatching(/^TOPGUN_PORT_FILE is not known/)
      ])
    }))

  it.scoped("warns of a secret that every user of the machine can read", () =>
    Effect.gen(function*() {
      const path = yield* file(secret)
      const heard: Array<unknown> = []
      const warnings = settingsOf({ TOPGUN_JWT_SECRET_FILE: path }).pipe(
        Effect.provide(
          Logger.replace(
            Logger.defaultLogger,
            Logger.make(({ logLevel, message }) => heard.push([logLevel.label, message]))
          )
        )
      )
      yield* warnings
      expect(heard).toEqual([])
      chmodSync(path, 0o644)
      yield* warnings
      expect(heard).toEqual([["WARN", [expect.stringContaining("TOPGUN_JWT_SECRET_FILE")]]])
    }))

  it.effect("shows no secret, neither in faults nor to who prints settings", () =>
    Effect.gen(function*() {
      const settings = yield* settingsOf({
        TOPGUN_JWT_SECRET: secret,
        TOPGUN_PORT: "9000",
        TOPGUN_SHUTDOWN_TIMEOUT: "30s",
        TOPGUN_ALLOWED_ORIGINS: "https://a.example"
      })
      expect(ServerConfig.departures(settings)).toEqual({
        TOPGUN_PORT: "9000",
        TOPGUN_AUTH: "token",
        TOPGUN_JWT_SECRET: "<redacted>",
        TOPGUN_SHUTDOWN_TIMEOUT: "30s",
        TOPGUN_ALLOWED_ORIGINS: "[\"https://a.example\"]"
      })
      expect(ServerConfig.departures(ServerConfig.defaults)).toEqual({})
      expect(JSON.stringify(settings) + String(settings.jwtSecret)).not.toContain(secret)
      const withKey = yield* settingsOf({ TOPGUN_JWKS_URL: "https://issuer.example/keys?key=hidden" })
      expect(ServerConfig.departures(withKey)).toMatchObject({ TOPGUN_JWKS_URL: "https://issuer.example/keys" })
      const bad = yield* faultsOf({ TOPGUN_JWT_SECRET: "hidden", TOPGUN_JWT_PUBLIC_KEY: "hidden", TOPGUN_PORT: "x" })
      expect(bad.join()).not.toContain("hidden")
      const { faults } = yield* Effect.flip(ServerConfig.make({ jwtSecret: "hidden" as never }))
      expect(faults).toEqual(["jwtSecret can't be used: expected a text"])
    }))

  it.effect("puts the command line over the environment", () =>
    Effect.gen(function*() {
      expect((yield* settingsOf({ TOPGUN_PORT: "9000" }, { port: 9_001 })).port).toBe(9_001)
    }))

  it.effect("checks settings given in code as well", () =>
    Effect.gen(function*() {
      const { faults } = yield* Effect.flip(ServerConfig.make({ port: 70_000, connectionsMax: 0 }))
      expect(faults).toEqual([
        "port is 70000: expected an integer from 0 to 65535",
        "connectionsMax is 0: expected an integer from 1 to 1000000"
      ])
      const unknown = yield* Effect.flip(ServerConfig.make({ callMax: 3 } as object))
      expect(unknown.faults).toEqual(["callMax is not known. Did you mean callsMax?"])
    }))
})
