import { describe, expect, it } from "@effect/vitest"
import * as Protocol from "@topgun/core/Protocol"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as Tls from "@topgun/server/Tls"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Cause from "effect/Cause"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as TestClock from "effect/TestClock"
import { X509Certificate } from "node:crypto"
import { mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { request } from "node:https"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect } from "node:tls"
import { WebSocket } from "ws"
import * as certificates from "./certificates.ts"
import { authAnew } from "./PlainClient.ts"
import { dial } from "./hostile/raw.ts"

/** A directory with `cert.pem` and `key.pem`. */
const directory = Effect.acquireRelease(
  Effect.sync(() => {
    const root = mkdtempSync(join(tmpdir(), "topgun-"))
    const write = (name: "cert" | "key", text: string) => {
      const path = join(root, `${name}.pem`)
      writeFileSync(`${path}.new`, text)
      renameSync(`${path}.new`, path)
      return path
    }
    const files = { cert: write("cert", certificates.first.cert), key: write("key", certificates.first.key) }
    return { root, files, write, settings: { tlsCert: files.cert, tlsKey: files.key } }
  }),
  ({ root }) => Effect.sync(() => rmSync(root, { recursive: true, force: true }))
)

const server = (settings: Partial<ServerConfig.Settings>) =>
  TopGunServer.layer({ port: 0, storage: "memory", ...settings })

const fingerprintOf = (cert: string): string => new X509Certificate(cert).fingerprint256

/** Which certificate is shown at the port. */
const shown = Effect.flatMap(TopGunServer.TopGunServer, ({ address }) =>
  Effect.async<string>((resume) => {
    const socket = connect({ host: address!.host, port: address!.port, rejectUnauthorized: false }, () => {
      resume(Effect.succeed(socket.getPeerX509Certificate()!.fingerprint256))
      socket.destroy()
    })
  }))

/** The status of `/livez`, over HTTPS by a certificate that is believed. */
const livez = Effect.flatMap(TopGunServer.TopGunServer, ({ address }) =>
  Effect.async<number, Error>((resume) => {
    const { host, port } = address!
    const asked = request({ host, port, path: "/livez", ca: certificates.first.cert, agent: false }, (response) => {
      response.resume()
      resume(Effect.succeed(response.statusCode!))
    })
    asked.on("error", (error) => resume(Effect.fail(error)))
    asked.end()
  }))

describe("A server with a certificate", () => {
  it.scoped("speaks HTTPS and secure WebSockets at its port, and nothing else", () =>
    Effect.gen(function*() {
      const { settings } = yield* directory
      yield* Effect.gen(function*() {
        const { address } = yield* TopGunServer.TopGunServer
        expect(address!.scheme).toBe("wss")
        expect(yield* livez).toBe(200)
        const answer = yield* Effect.async<Protocol.ServerMessage>((resume) => {
          const socket = new WebSocket(`wss://${address!.host}:${address!.port}/ws`, { ca: certificates.first.cert })
          socket.on("open", () => socket.send(Protocol.encode(authAnew())))
          socket.on("message", (data: Buffer) => {
            resume(Effect.succeed(Protocol.decodeFromServer(new Uint8Array(data))[0]!))
            socket.terminate()
          })
        })
        expect(answer._tag).toBe("AuthAck")
        yield* Effect.scoped(Effect.gen(function*() {
          const plain = yield* dial
          plain.send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
          expect((yield* plain.ended).toString("latin1")).not.toContain("200")
        }))
        expect(yield* livez).toBe(200)
      }).pipe(Effect.provide(server(settings)))
    }))

  it.scoped("speaks no TLS before 1.2", () =>
    Effect.gen(function*() {
      const { settings } = yield* directory
      yield* Effect.gen(function*() {
        const { address } = yield* TopGunServer.TopGunServer
        const tried = (version: "TLSv1.1" | "TLSv1.2" | "TLSv1.3") =>
          Effect.async<string>((resume) => {
            const socket = connect({
              host: address!.host,
              port: address!.port,
              rejectUnauthorized: false,
              minVersion: version,
              maxVersion: version,
              ciphers: "DEFAULT@SECLEVEL=0"
            }, () => {
              resume(Effect.succeed(socket.getProtocol()!))
              socket.destroy()
            })
            socket.on("error", () => resume(Effect.succeed("refused")))
          })
        expect(yield* tried("TLSv1.1")).toBe("refused")
        expect(yield* tried("TLSv1.2")).toBe("TLSv1.2")
        expect(yield* tried("TLSv1.3")).toBe("TLSv1.3")
      }).pipe(Effect.provide(server(settings)))
    }))

  it.scoped("takes a renewed one over without a restart, and keeps the one before when that can't be used", () =>
    Effect.gen(function*() {
      const { settings, write } = yield* directory
      const logged: Array<string> = []
      const logger = Logger.replace(
        Logger.defaultLogger,
        Logger.make(({ cause, logLevel, message }) => {
          if (logLevel.label === "ERROR") logged.push(`${String(message)} ${Cause.pretty(cause)}`)
        })
      )
      yield* Effect.gen(function*() {
        const first = fingerprintOf(certificates.first.cert)
        expect(yield* shown).toBe(first)
        yield* TestClock.adjust(Tls.lookMillis)
        expect(yield* shown).toBe(first)
        // Renewed in two steps, as they are: between them the two don't belong together.
        write("cert", certificates.second.cert)
        yield* TestClock.adjust(Tls.lookMillis)
        expect(yield* shown).toBe(first)
        expect(logged).toHaveLength(1)
        expect(logged[0]).toContain("is not the key of")
        yield* TestClock.adjust(Tls.lookMillis)
        expect(logged).toHaveLength(1)
        write("key", certificates.second.key)
        yield* TestClock.adjust(Tls.lookMillis)
        expect(yield* shown).toBe(fingerprintOf(certificates.second.cert))
        write("key", "nonsense")
        yield* TestClock.adjust(Tls.lookMillis)
        expect(yield* shown).toBe(fingerprintOf(certificates.second.cert))
        expect(logged).toHaveLength(2)
      }).pipe(Effect.provide(server(settings).pipe(Layer.provide(logger))))
    }))

  it.scoped("notices when a link leads to another file, as in a container", () =>
    Effect.gen(function*() {
      const { files, root } = yield* directory
      const link = (name: "cert" | "key", to: string) => {
        symlinkSync(to, join(root, `${name}.link.new`))
        renameSync(join(root, `${name}.link.new`), join(root, `${name}.link`))
        return join(root, `${name}.link`)
      }
      const settings = { tlsCert: link("cert", files.cert), tlsKey: link("key", files.key) }
      yield* Effect.gen(function*() {
        writeFileSync(join(root, "cert2.pem"), certificates.second.cert)
        writeFileSync(join(root, "key2.pem"), certificates.second.key)
        link("cert", join(root, "cert2.pem"))
        link("key", join(root, "key2.pem"))
        yield* TestClock.adjust(Tls.lookMillis)
        expect(yield* shown).toBe(fingerprintOf(certificates.second.cert))
      }).pipe(Effect.provide(server(settings)))
    }))
})

describe("A certificate that can't be used", () => {
  const faultsOf = (settings: Partial<ServerConfig.Settings>) =>
    Effect.map(Effect.flip(ServerConfig.make(settings)), ({ faults }) => faults)

  it.scoped("stops the start, with everything that is wrong at once", () =>
    Effect.gen(function*() {
      const { files, root, settings, write } = yield* directory
      expect(yield* faultsOf({ tlsCert: files.cert })).toEqual([expect.stringContaining("or none")])
      expect(yield* faultsOf({ tlsKey: files.key })).toEqual([expect.stringContaining("or none")])
      expect(yield* faultsOf({ host: "0.0.0.0", tlsCert: join(root, "no.pem"), tlsKey: root })).toEqual([
        expect.stringContaining("can be reached from the network"),
        expect.stringMatching(/tlsCert ".*no.pem" can't be read: ENOENT/),
        expect.stringMatching(/tlsKey ".*" can't be read: EISDIR/)
      ])
      write("key", certificates.second.key)
      expect(yield* faultsOf(settings)).toEqual([expect.stringContaining("is not the key of tlsCert")])
      expect(yield* faultsOf({ tlsCert: files.key, tlsKey: files.cert })).toEqual([
        expect.stringContaining("has no certificate in PEM"),
        expect.stringContaining("has no private key in PEM")
      ])
      for (const fault of yield* faultsOf({ tlsCert: files.key, tlsKey: files.cert })) {
        expect(fault).not.toContain("BEGIN")
      }
      write("key", certificates.first.key)
      const environment = new Map([["TOPGUN_TLS_CERT", files.cert], ["TOPGUN_TLS_KEY", files.key]])
      const read = yield* Effect.provide(ServerConfig.ServerConfig, ServerConfig.layerFromEnv()).pipe(
        Effect.withConfigProvider(ConfigProvider.fromMap(environment, { pathDelim: "_" }))
      )
      expect(read).toMatchObject(settings)
      yield* TestClock.setTime(Date.parse(new X509Certificate(certificates.first.cert).validTo))
      expect(yield* faultsOf(settings)).toEqual([expect.stringContaining("expired on")])
    }))
})
