import { describe, expect, it } from "@effect/vitest"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"

const environment = (variables: Record<string, string>) =>
  Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables)), { pathDelim: "_" }))

const settingsOf = (variables: Record<string, string>, overrides: Partial<ServerConfig.Settings> = {}) =>
  Effect.provide(ServerConfig.ServerConfig, ServerConfig.layerFromEnv(overrides)).pipe(environment(variables))

const faultsOf = (variables: Record<string, string>) =>
  Effect.map(Effect.flip(settingsOf(variables)), ({ faults }) => faults)

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
        TOPGUN_AUTH: "none",
        TOPGUN_DATA_DIR: "/var/lib/topgun",
        TOPGUN_STORAGE: "memory",
        TOPGUN_ALLOWED_ORIGINS: "https://a.example, http://localhost:5173",
        TOPGUN_SHUTDOWN_TIMEOUT: "30s",
        TOPGUN_LOG_LEVEL: "debug",
        TOPGUN_LOG_FORMAT: "json",
        TOPGUN_STATIC_DIR: "/srv/www",
        TOPGUN_METRICS_TOKEN: "sixteen-or-more-characters",
        TOPGUN_OTLP_URL: "http://localhost:4318",
        TOPGUN_SERVICE_NAME: "grid",
        TOPGUN_CONNECTIONS_MAX: "50",
        TOPGUN_AUTH_MILLIS_MAX: "1000",
        TOPGUN_AUTH_GRACE_MILLIS: "2000",
        TOPGUN_OUTBOUND_BYTES_MAX: "2097152",
        TOPGUN_PENDING_COMMITS_MAX: "100",
        TOPGUN_MAPS_MAX: "3",
        TOPGUN_SUBSCRIPTIONS_MAX: "4",
        TOPGUN_CALLS_MAX: "5"
      })
      expect(settings).toEqual({
        port: 9_000,
        host: "0.0.0.0",
        auth: "none",
        dataDir: "/var/lib/topgun",
        storage: "memory",
        allowedOrigins: ["https://a.example", "http://localhost:5173"],
        shutdownTimeout: Duration.seconds(30),
        logLevel: "debug",
        logFormat: "json",
        staticDir: "/srv/www",
        metricsToken: expect.anything(),
        otlpUrl: "http://localhost:4318",
        serviceName: "grid",
        connectionsMax: 50,
        authMillisMax: 1_000,
        authGraceMillis: 2_000,
        outboundBytesMax: 2_097_152,
        pendingCommitsMax: 100,
        mapsMax: 3,
        subscriptionsMax: 4,
        callsMax: 5
      })
      expect(Redacted.value(settings.metricsToken!)).toBe("sixteen-or-more-characters")
    }))

  it.effect("shows no secret that can't be used", () =>
    Effect.gen(function*() {
      expect(yield* faultsOf({ TOPGUN_METRICS_TOKEN: "canary" })).toEqual([
        "TOPGUN_METRICS_TOKEN is not usable: expected a secret of at least 16 visible characters"
      ])
    }))

  it.effect("lists all faults at once, and the name that an unknown variable may have meant", () =>
    Effect.gen(function*() {
      expect(yield* faultsOf({ TOPGUN_PORT: "http", TOPGUN_STORAGE: "redis", TOPGUN_DATADIR: "x", TOPGUN_HOST: "" }))
        .toEqual([
          "TOPGUN_DATADIR is not known. Did you mean TOPGUN_DATA_DIR?",
          "TOPGUN_HOST is \"\": expected a host name or address",
          "TOPGUN_PORT is \"http\": expected an integer from 0 to 65535",
          "TOPGUN_STORAGE is \"redis\": expected one of sqlite, memory"
        ])
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
        TOPGUN_TOKEN: "t"
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
    }))
})
