/**
 * The server's port: HTTP and, at `/ws`, WebSockets. The only place that knows of either.
 *
 * | path | |
 * |---|---|
 * | `/ws` | the grid's protocol |
 * | `/livez` | 200 while the process runs |
 * | `/readyz`, `/healthz` | 200 while the server serves, 503 while it loads or stops |
 * | `/metrics` | the metrics, for those who may see them |
 * | `/backup` | all that is stored (`BackupFile`), for those who may have it |
 * | others | the files of `staticDir`, where there is one |
 *
 * Whoever isn't known yet gets little: requests are of GET and HEAD and have no body, their headers have to be there in time and
 * within bounds, and of a WebSocket not more than an `Auth` is taken in before it is answered.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as FileSystem from "@effect/platform/FileSystem"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { createHash, timingSafeEqual } from "node:crypto"
import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from "node:http"
import { createServer as createSecureServer } from "node:https"
import type { AddressInfo } from "node:net"
import { resolve, sep } from "node:path"
import type { Duplex } from "node:stream"
import { type WebSocket, WebSocketServer } from "ws"
import { AddressUnavailable, ConfigInvalid, PermissionDenied } from "@topgun/core/GridError"
import * as Protocol from "@topgun/core/Protocol"
import { makeDrain, makeInbox, type ServerConnection } from "@topgun/core/Transport"
import { Admission } from "./Admission.ts"
import { Authentication, bearerToken } from "./Authentication.ts"
import { Backup } from "./Backup.ts"
import { Capacity } from "./Capacity.ts"
import { clientOf } from "./ClientAddress.ts"
import { isLoopback } from "./Loopback.ts"
import { Metrics, type Refusal } from "./Metrics.ts"
import { PermissionPolicy } from "./PermissionPolicy.ts"
import { Phase } from "./Phase.ts"
import * as Prometheus from "./Prometheus.ts"
import { ServerConfig, type Settings, tlsFiles } from "./ServerConfig.ts"
import { Sessions } from "./Session.ts"
import * as Tls from "./Tls.ts"
import { Visits } from "./Visits.ts"

/** Where a server listens. */
export interface Address {
  /** Of its URLs for WebSockets: `wss` where it speaks TLS. */
  readonly scheme: "ws" | "wss"
  readonly host: string
  readonly port: number
}

/** The server's open port. */
export class Gateway extends Context.Tag("@topgun/server/Gateway")<Gateway, {
  readonly address: Address
}>() {}

const addressFault = (host: string, port: number, cause: NodeJS.ErrnoException): AddressUnavailable =>
  new AddressUnavailable({
    cause,
    reason: cause.code === "EADDRINUSE"
      ? `port ${port} on ${host} is in use: stop the program that has it, or choose another (--port or TOPGUN_PORT)`
      : cause.code === "EACCES"
      ? `port ${port} needs more rights: choose one above 1023 (--port or TOPGUN_PORT)`
      : cause.code === "EADDRNOTAVAIL" || cause.code === "ENOTFOUND"
      ? `this machine has no address ${host}: choose another (--host or TOPGUN_HOST)`
      : cause.message
  })

/** Listens at a port, of the system's choice where it is 0; answers which. */
const listen = (server: Server, host: string, port: number): Effect.Effect<number, AddressUnavailable> =>
  Effect.async((resume) => {
    const onError = (cause: NodeJS.ErrnoException) => resume(Effect.fail(addressFault(host, port, cause)))
    server.once("error", onError)
    server.listen({ host, port }, () => {
      server.off("error", onError)
      resume(Effect.succeed((server.address() as AddressInfo).port))
    })
  })

// --- HTTP ---

const notFound = HttpServerResponse.text("not found", { status: 404 })

/** The file below `root` that a URL names; `undefined` when it names none, links that lead out of `root` included. */
const fileOf = Effect.fnUntraced(function*(root: string, url: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Effect.try(() => decodeURIComponent(url.split("?", 1)[0]!))
  if (path.includes("\0")) return undefined
  const base = yield* fileSystem.realPath(root)
  const file = yield* fileSystem.realPath(resolve(base, `.${path.endsWith("/") ? `${path}index.html` : path}`))
  if (!file.startsWith(base + sep)) return undefined
  const { type } = yield* fileSystem.stat(file)
  return type === "File" ? file : undefined
})

const serveFile = (root: string) =>
  Effect.gen(function*() {
    const request = yield* HttpServerRequest.HttpServerRequest
    const file = yield* Effect.orElseSucceed(fileOf(root, request.url), () => undefined)
    if (file === undefined) return notFound
    const response = yield* HttpServerResponse.file(file)
    const type = response.headers["content-type"] ?? "application/octet-stream"
    return HttpServerResponse.setHeaders(response, {
      "cache-control": "no-cache",
      "content-type": type.startsWith("text/") ? `${type}; charset=utf-8` : type
    })
  }).pipe(Effect.orElseSucceed(() => notFound))

const digestOf = (text: string): Buffer => createHash("sha256").update(text).digest()

/** Whether a request calls this machine by a name that only it has for itself: others can be made to lead here, by pages, too. */
const callsLoopback = (host: string | undefined): boolean =>
  host !== undefined && URL.canParse(`http://${host}`) &&
  isLoopback(new URL(`http://${host}`).hostname.replace(/^\[|\]$/g, ""))

/**
 * The metrics, for those who show the token of the configuration. Without one they are there only for this machine: they tell
 * how much goes on here.
 */
const serveMetrics = (
  { host, metricsToken }: Settings,
  metrics: Context.Tag.Service<Metrics>
): HttpApp.Default => {
  if (metricsToken === undefined && !isLoopback(host)) return Effect.succeed(notFound)
  const wanted = metricsToken === undefined ? undefined : digestOf(Redacted.value(metricsToken))
  return Effect.gen(function*() {
    const { headers } = yield* HttpServerRequest.HttpServerRequest
    if (wanted === undefined && !callsLoopback(headers["host"])) return notFound
    // Of digests, as equal lengths are asked for, and nothing of the token is to be told by the time it takes.
    const given = Either.getOrElse(bearerToken(headers["authorization"]), () => null)
    if (wanted !== undefined && !timingSafeEqual(wanted, digestOf(given ?? ""))) {
      return HttpServerResponse.text("metrics are shown to those who have the token", {
        status: 401,
        headers: { "www-authenticate": "Bearer" }
      })
    }
    const text = Prometheus.render(yield* metrics.snapshot)
    return HttpServerResponse.text(text, {
      contentType: Prometheus.contentType,
      headers: { "cache-control": "no-store" }
    })
  })
}

/** Whether a web page asks: one of this server's own may, and whoever follows a link of nobody's. */
const isOfAnotherPage = (headers: Readonly<Record<string, string | undefined>>): boolean => {
  const site = headers["sec-fetch-site"]
  return headers["origin"] !== undefined || (site !== undefined && site !== "none" && site !== "same-origin")
}

/** The status of each reason why a backup isn't given. */
const backupStatus = {
  AuthExpired: 401,
  AuthRequired: 401,
  AuthUnavailable: 503,
  BackupRefused: 409,
  Overloaded: 429,
  PermissionDenied: 403,
  StorageUnavailable: 503
} as const

/**
 * A backup, for those who may take one by the policy and show it by their token. Where nobody is asked for a token it's there only for this
 * machine, as the metrics are.
 */
const serveBackup = Effect.fnUntraced(function*(settings: Settings) {
  const admission = yield* Admission
  const { isAnonymous, verify } = yield* Authentication
  const backup = yield* Backup
  const phase = yield* Phase
  const policies = yield* PermissionPolicy

  /** Who asks, by their token. */
  const enter = (address: string, authorization: string | undefined) =>
    Effect.gen(function*() {
      const visitor = yield* Effect.acquireRelease(
        Effect.sync(() => admission.enter(address)),
        (entered) => Effect.sync(entered.leave)
      )
      const principal = yield* Effect.flatMap(bearerToken(authorization), verify).pipe(
        Effect.tapErrorTag("AuthRequired", () => Effect.sync(visitor.authenticationFailed)),
        Effect.tapErrorTag("AuthExpired", () => Effect.sync(visitor.authenticationFailed))
      )
      const refusal = visitor.authenticated(principal?.userId)
      if (refusal !== undefined) return yield* refusal
      if (!policies.current().mayBackUp(principal)) {
        return yield* new PermissionDenied({ what: "take a backup" })
      }
    })

  return Effect.gen(function*() {
    const { headers, method, source } = yield* HttpServerRequest.HttpServerRequest
    const say = (status: number, text: string, more: Record<string, string> = {}) =>
      HttpServerResponse.text(text, { status, headers: { ...more, "cache-control": "no-store" } })
    if (method !== "GET") return say(405, "a backup is asked for by GET", { allow: "GET" })
    if (isOfAnotherPage(headers)) return say(403, "pages of other origins may not take a backup")
    if (isAnonymous && !(isLoopback(settings.host) && callsLoopback(headers["host"]))) {
      return say(
        403,
        "a server that asks nobody for a token gives its backup to this machine only: have it listen at 127.0.0.1 and ask there, or have it " +
          "ask for tokens"
      )
    }
    if (!phase.serves()) {
      return say(503, `the server is ${phase.current()}: try again`, { "retry-after": String(retryAfterSeconds) })
    }
    const remote = (source as IncomingMessage).socket.remoteAddress
    if (remote === undefined) return say(400, "nobody asks")
    const address = clientOf(remote, headers["x-forwarded-for"], settings.proxies)
    const refusal = admission.knock(address)
    if (refusal !== undefined) {
      return say(refusal.status, refusal.reason, { "retry-after": String(refusal.retryAfterSeconds) })
    }
    return yield* enter(address, headers["authorization"]).pipe(
      Effect.zipRight(backup.make),
      Effect.map((stream) =>
        HttpServerResponse.stream(stream, {
          contentType: "application/x-ndjson",
          headers: {
            "cache-control": "no-store",
            "content-disposition": "attachment; filename=\"topgun-backup.jsonl\""
          }
        })
      ),
      Effect.catchAll((failure) => {
        const status = backupStatus[failure._tag]
        return Effect.succeed(say(status, failure.message, status === 401 ? { "www-authenticate": "Bearer" } : {}))
      })
    )
  })
})

const makeApp = (
  phase: Context.Tag.Service<Phase>,
  staticDir: string | undefined,
  metrics: HttpApp.Default,
  backup: HttpApp.Default<never, Scope.Scope>
) => {
  const health = Effect.sync(() => {
    const current = phase.current()
    return HttpServerResponse.text(current, { status: current === "ready" ? 200 : 503 })
  })
  const probes = HttpRouter.empty.pipe(
    HttpRouter.get(
      "/ws",
      HttpServerResponse.text("WebSockets only", { status: 426, headers: { upgrade: "websocket" } })
    ),
    HttpRouter.get("/livez", HttpServerResponse.text("alive")),
    HttpRouter.get("/readyz", health),
    HttpRouter.get("/healthz", health),
    HttpRouter.get("/metrics", metrics),
    HttpRouter.get("/backup", backup)
  )
  const routes = staticDir === undefined ? probes : HttpRouter.get(probes, "*", serveFile(staticDir))
  return Effect.catchTag(routes, "RouteNotFound", () => Effect.succeed(notFound))
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void

/** Bytes of a request's line and headers, at most, and how many headers are looked at. */
const headerBytesMax = 16 * 1024
const headersMax = 100
/** Requests on one connection: a server that stops, or renews its certificate, isn't bound to old ones for ever. */
const requestsPerConnectionMax = 1_000
/** TCP connections beyond those that WebSockets may have. */
const otherConnectionsMax = 1_000

/** Refuses what no path here takes, before any of it is read. */
const guarded = (handler: Handler): Handler => (request, response) => {
  response.setHeader("x-content-type-options", "nosniff")
  const refuseWith = (status: number, headers: Record<string, string> = {}) => {
    // Node ends the connection then, without reading on.
    response.writeHead(status, { ...headers, connection: "close", "content-type": "text/plain; charset=utf-8" })
    response.end(STATUS_CODES[status])
  }
  if (request.method !== "GET" && request.method !== "HEAD") return refuseWith(405, { allow: "GET, HEAD" })
  if (request.headers["transfer-encoding"] !== undefined || Number(request.headers["content-length"] ?? 0) !== 0) {
    return refuseWith(413)
  }
  handler(request, response)
}

// --- WebSockets ---

/** The longest reason that a close frame has room for, in bytes (RFC 6455). */
const reasonBytesMax = 123
/** What a client may send before it is let in: a frame, and what it takes to tell it apart from one that is too large. */
const strangersBytesMax = Protocol.frameBytesBeforeAuthMax + 1024
/** Frames that a message may come in: clients send one, browsers may part a large one. */
const fragmentsMax = 1_024

/**
 * `ws` bounds messages, all alike. So what comes before a client is let in is counted as it comes: a stranger's messages would
 * be kept up to the largest there is otherwise.
 */
const watchStranger = (raw: Duplex, onTooMuch: () => void): () => void => {
  let bytes = 0
  const count = (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes > strangersBytesMax) onTooMuch()
  }
  raw.on("data", count)
  return () => void raw.off("data", count)
}

/** Frames up to here are copied behind their headers: one write costs more than so many bytes. */
const copiedBytesMax = 16 * 1024

/**
 * A whole, binary, unmasked frame with room for its payload, or its header alone (RFC 6455, section 5.2). `ws` writes the two apart,
 * with a callback for each frame, which is half as much again for a small one.
 */
const frameOf = (payload: Uint8Array, isWhole: boolean): Buffer => {
  const { length } = payload
  const header = length < 126 ? 2 : length < 65_536 ? 4 : 10
  const frame = Buffer.allocUnsafe(isWhole ? header + length : header)
  frame[0] = 0x82
  if (header === 2) frame[1] = length
  else if (header === 4) {
    frame[1] = 126
    frame.writeUInt16BE(length, 2)
  } else {
    frame[1] = 127
    frame.writeUInt32BE(0, 2)
    frame.writeUInt32BE(length, 6)
  }
  if (isWhole) frame.set(payload, header)
  return frame
}

const toConnection = (socket: WebSocket, raw: Duplex): ServerConnection => {
  const inbox = makeInbox()
  const drain = makeDrain(() => raw.writableLength)
  raw.on("drain", drain.left)
  const close = (code: number, reason: string) => {
    // A paused socket would never see the peer's half of the closing handshake.
    socket.resume()
    socket.close(code, Buffer.from(reason).subarray(0, reasonBytesMax).toString("latin1"))
  }
  const isKnown = watchStranger(raw, () => {
    isKnown()
    close(Protocol.closeCodes.tooLarge, "too much before Auth was answered")
    // Whatever else comes isn't read; the peer's half of the handshake isn't waited for either.
    socket.pause()
  })
  socket.on("message", (data: Buffer, isBinary: boolean) => {
    if (!isBinary) return close(Protocol.closeCodes.malformed, "frames are binary")
    // A plain view: Buffer's own `slice` would not copy, where one relies on it.
    if (!inbox.deliver(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))) {
      close(Protocol.closeCodes.overloaded, "too many frames at once")
    }
  })
  // Ends in "close", with the code that the protocol error has; unheard, it would end the process.
  socket.on("error", () => {})
  socket.on("close", (code: number, reason: Buffer) => inbox.end({ code, reason: reason.toString("utf8") }))
  return {
    send: (payload) => {
      if (socket.readyState !== socket.OPEN) return
      if (payload.length <= copiedBytesMax) return void raw.write(frameOf(payload, true))
      raw.cork()
      raw.write(frameOf(payload, false))
      raw.write(payload)
      raw.uncork()
    },
    bufferedBytes: () => raw.writableLength,
    // Below its own mark a socket doesn't tell when bytes have left.
    whenDrained: (bytesMax, drained) => drain.whenDrained(Math.max(bytesMax, raw.writableHighWaterMark), drained),
    isKnown,
    listen: inbox.listen,
    pause: (paused) => {
      if (paused) socket.pause()
      inbox.pause(paused)
      if (!paused) socket.resume()
    },
    close
  }
}

/**
 * Whether a web page of this origin may connect: browsers let any page open a WebSocket to any server, this machine's
 * included, and tell the server the page's origin.
 */
const isWelcome = (settings: Settings, { headers: { host, origin } }: IncomingMessage): boolean => {
  if (origin === undefined || settings.allowedOrigins.includes("*")) return true
  if (settings.allowedOrigins.includes(origin)) return true
  if (!URL.canParse(origin)) return false
  const page = new URL(origin)
  // By name alone a page could claim to be of this host: names can be made to resolve to a loopback address.
  return isLoopback(settings.host) ? isLoopback(page.hostname.replace(/^\[|\]$/g, "")) : page.host === host
}

/** Answers an upgrade that isn't granted, says why, and closes. */
const refuse = (socket: Duplex, status: number, reason: string, retryAfterSeconds?: number): void => {
  // The peer may never close its half.
  socket.once("finish", () => socket.destroy())
  socket.end([
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    "Connection: close",
    "Content-Type: text/plain; charset=utf-8",
    "X-Content-Type-Options: nosniff",
    `Content-Length: ${reason.length}`,
    ...(retryAfterSeconds === undefined ? [] : [`Retry-After: ${retryAfterSeconds}`]),
    "",
    reason
  ].join("\r\n"))
}

/** When to come again to a server that can't take anybody now. */
const retryAfterSeconds = 5

/** How long a peer may take to answer the closing handshake, in ms; when the server stops, this share of the time for that. */
const closeMillisMax = 2_000
const closeShare = 0.2

const makeServer = Effect.fnUntraced(function*(settings: Settings, handler: Handler) {
  const options = {
    headersTimeout: settings.authMillisMax,
    requestTimeout: settings.authMillisMax,
    connectionsCheckingInterval: Math.min(settings.authMillisMax, 1_000),
    maxHeaderSize: headerBytesMax
  }
  const files = tlsFiles(settings)
  if (files === undefined) return createServer(options, handler)
  const pair = Tls.read(files, yield* Clock.currentTimeMillis)
  if (Either.isLeft(pair)) return yield* new ConfigInvalid({ faults: pair.left })
  const server = createSecureServer({
    ...options,
    ...pair.right,
    handshakeTimeout: settings.authMillisMax,
    minVersion: Tls.versionMin
  }, handler)
  const renew = (renewed: Tls.Pair) => server.setSecureContext({ ...renewed, minVersion: Tls.versionMin })
  yield* Effect.forkScoped(Tls.renewals(files, renew))
  return server
})

const make = Effect.gen(function*() {
  const settings = yield* ServerConfig
  const admission = yield* Admission
  const capacity = yield* Capacity
  const phase = yield* Phase
  const sessions = yield* Sessions
  const metrics = yield* Metrics
  const visits = yield* Visits

  // Deflate would cost some 250 kB a connection: what is large is deflated within messages. `closeTimeout` is missing from
  // the types.
  const options = {
    noServer: true,
    maxPayload: Protocol.frameBytesMax,
    maxFragments: fragmentsMax,
    perMessageDeflate: false,
    closeTimeout: closeMillisMax
  }
  const webSockets = new WebSocketServer(options)
  const app = makeApp(phase, settings.staticDir, serveMetrics(settings, metrics), yield* serveBackup(settings))
  // A span for each request would be one for each probe, and one for whoever asks.
  const handler = guarded(yield* Effect.withTracerEnabled(NodeHttpServer.makeHandler(app), false))
  const server = yield* makeServer(settings, handler)
  // Node would ask for the body.
  server.on("checkContinue", handler)
  server.maxHeadersCount = headersMax
  server.maxRequestsPerSocket = requestsPerConnectionMax
  server.maxConnections = settings.connectionsMax + otherConnectionsMax
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    // Until the upgrade is done nobody else listens, and unheard this would end the process.
    socket.on("error", () => {})
    const remote = request.socket.remoteAddress
    if (remote === undefined) return socket.destroy()
    const address = clientOf(remote, request.headers["x-forwarded-for"]?.toString(), settings.proxies)
    const turnAway = (why: Refusal, status: number, reason: string, retryAfter?: number): void => {
      visits.refused(why, address)
      refuse(socket, status, reason, retryAfter)
    }
    if (request.url?.split("?", 1)[0] !== "/ws") return turnAway("path", 404, "not found")
    if (request.httpVersion !== "1.1") return turnAway("path", 400, "a WebSocket begins with HTTP/1.1")
    if (!phase.serves()) return turnAway("phase", 503, phase.current(), retryAfterSeconds)
    if (webSockets.clients.size >= settings.connectionsMax) {
      return turnAway("limit", 503, "the server has as many connections as it may", retryAfterSeconds)
    }
    if (capacity.isFull()) return turnAway("memory", 503, "the server's memory is used up", retryAfterSeconds)
    if (!isWelcome(settings, request)) return turnAway("origin", 403, "pages of this origin may not connect")
    const refusal = admission.knock(address)
    if (refusal !== undefined) return turnAway("rate", refusal.status, refusal.reason, refusal.retryAfterSeconds)
    webSockets.handleUpgrade(
      request,
      socket,
      head,
      (webSocket) => sessions.accept(toConnection(webSocket, socket), address)
    )
  })

  const closed = Effect.async<void>((resume) => {
    server.close(() => resume(Effect.void))
    server.closeIdleConnections()
  })
  const port = yield* Effect.acquireRelease(
    listen(server, settings.host, settings.port),
    () =>
      Effect.gen(function*() {
        const timeoutMillis = Duration.toMillis(settings.shutdownTimeout)
        const closingMillis = Math.min(closeMillisMax, timeoutMillis * closeShare)
        phase.leaving()
        yield* Effect.sleep(settings.shutdownNotice)
        const closing = yield* Effect.fork(closed)
        yield* Effect.timeoutOption(
          Effect.interruptible(sessions.stop),
          timeoutMillis - closingMillis - Duration.toMillis(settings.shutdownNotice)
        )
        yield* Effect.timeoutOption(Effect.interruptible(closing.await), closingMillis)
        for (const socket of webSockets.clients) socket.terminate()
        server.closeAllConnections()
        yield* closing.await
      })
  )
  const scheme = tlsFiles(settings) === undefined ? "ws" : "wss"
  return Gateway.of({ address: { scheme, host: settings.host, port } })
})

/** The port of the configuration, open for as long as the scope is. */
export const layer: Layer.Layer<
  Gateway,
  AddressUnavailable | ConfigInvalid,
  Admission | Backup | Capacity | Metrics | Phase | ServerConfig | Sessions | Visits
> = Layer.provide(
  Layer.scoped(Gateway, make),
  NodeHttpServer.layerContext
)
