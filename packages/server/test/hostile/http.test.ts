/** What may come over HTTP, byte by byte. */
import { describe, expect, it } from "@effect/vitest"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { bystanders, dial, isHeadComplete, statusOf } from "./raw.ts"

const request = (line: string, headers: ReadonlyArray<string> = [], body = ""): string =>
  [line, "Host: localhost", ...headers, "", body].join("\r\n")

interface Row {
  readonly name: string
  readonly sent: string
  readonly status: number
  /** Whether the server reads on, on the same connection. */
  readonly goesOn?: boolean
}

const rows: ReadonlyArray<Row> = [
  ...["POST", "PUT", "PATCH", "DELETE", "TRACE"].map((method) => ({
    name: method,
    sent: request(`${method} /livez HTTP/1.1`),
    status: 405
  })),
  {
    name: "a preflight of a foreign page",
    sent: request("OPTIONS /livez HTTP/1.1", [
      "Origin: https://evil.example",
      "Access-Control-Request-Method: POST",
      "Access-Control-Request-Headers: authorization"
    ]),
    status: 405
  },
  { name: "a method that there isn't", sent: request("BREW /livez HTTP/1.1"), status: 400 },
  { name: "HEAD", sent: request("HEAD /livez HTTP/1.1"), status: 200, goesOn: true },
  { name: "HEAD of nothing", sent: request("HEAD /nothing HTTP/1.1"), status: 404, goesOn: true },
  { name: "a WebSocket's path without an upgrade", sent: request("GET /ws HTTP/1.1"), status: 426, goesOn: true },
  { name: "a body", sent: request("GET /livez HTTP/1.1", ["Content-Length: 5"], "hello"), status: 413 },
  {
    name: "a body that is announced",
    sent: request("GET /livez HTTP/1.1", ["Content-Length: 999999999999"]),
    status: 413
  },
  {
    name: "a body of a form",
    sent: request("POST /livez HTTP/1.1", ["Content-Type: application/json", "Content-Length: 2"], "{}"),
    status: 405
  },
  {
    name: "a body without an end",
    sent: request("GET /livez HTTP/1.1", ["Transfer-Encoding: chunked"], `fffffff\r\n${"x".repeat(100_000)}`),
    status: 413
  },
  {
    name: "a body that is deflated",
    sent: request(
      "GET /livez HTTP/1.1",
      ["Content-Encoding: gzip", "Content-Length: 10"],
      "\x1f\x8b\x08\0\0\0\0\0\0\x03"
    ),
    status: 413
  },
  {
    name: "a body that waits for a word",
    sent: request("GET /livez HTTP/1.1", ["Expect: 100-continue", "Content-Length: 10"]),
    status: 413
  },
  { name: "something else expected", sent: request("GET /livez HTTP/1.1", ["Expect: tea"]), status: 417, goesOn: true },
  { name: "no body", sent: request("GET /livez HTTP/1.1", ["Content-Length: 0"]), status: 200, goesOn: true },
  { name: "a length that is none", sent: request("GET /livez HTTP/1.1", ["Content-Length: -1"]), status: 400 },
  {
    name: "a length and chunks",
    sent: request("GET /livez HTTP/1.1", ["Content-Length: 5", "Transfer-Encoding: chunked"], "0\r\n\r\n"),
    status: 400
  },
  {
    name: "two lengths",
    sent: request("GET /livez HTTP/1.1", ["Content-Length: 5", "Content-Length: 6"], "hello!"),
    status: 400
  },
  {
    name: "an encoding that hides chunks",
    sent: request("GET /livez HTTP/1.1", ["Transfer-Encoding: xchunked"]),
    status: 413
  },
  { name: "no host", sent: "GET /livez HTTP/1.1\r\n\r\n", status: 400 },
  { name: "two hosts", sent: request("GET /livez HTTP/1.1", ["Host: evil.example"]), status: 200, goesOn: true },
  {
    name: "another's host",
    sent: "GET /livez HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: evil.example\r\n\r\n",
    status: 200,
    goesOn: true
  },
  {
    name: "a host that is markup",
    sent: "GET /x HTTP/1.1\r\nHost: <script>evil.example\r\n\r\n",
    status: 404,
    goesOn: true
  },
  {
    name: "a target with a scheme",
    sent: request("GET http://evil.example/livez HTTP/1.1"),
    status: 200,
    goesOn: true
  },
  { name: "a redirect in a path", sent: request("GET //evil.example HTTP/1.1"), status: 404, goesOn: true },
  { name: "a path outside", sent: request("GET /../secret.txt HTTP/1.1"), status: 404, goesOn: true },
  { name: "a path outside, encoded", sent: request("GET /%2e%2e/secret.txt HTTP/1.1"), status: 404, goesOn: true },
  {
    name: "a path outside, encoded twice",
    sent: request("GET /%252e%252e%252fsecret.txt HTTP/1.1"),
    status: 404,
    goesOn: true
  },
  { name: "a path outside, by a backslash", sent: request("GET /..\\secret.txt HTTP/1.1"), status: 404, goesOn: true },
  { name: "a path that can't be decoded", sent: request("GET /%ff%zz HTTP/1.1"), status: 404, goesOn: true },
  { name: "a file's stream", sent: request("GET /page.html::$DATA HTTP/1.1"), status: 404, goesOn: true },
  { name: "a file", sent: request("GET /page.html HTTP/1.1"), status: 200, goesOn: true },
  { name: "headers of 17 kB", sent: request("GET /livez HTTP/1.1", [`X-Much: ${"x".repeat(17_000)}`]), status: 431 },
  { name: "a NUL in a header", sent: request("GET /livez HTTP/1.1", ["X-Nul: a\0b"]), status: 400 },
  { name: "a version that there isn't", sent: request("GET /livez HTTP/9.9"), status: 400 }
]

const withFiles = (): readonly [root: string, remove: () => void] => {
  const root = mkdtempSync(join(tmpdir(), "topgun-"))
  writeFileSync(join(root, "page.html"), "<h1>hello</h1>")
  return [root, () => rmSync(root, { recursive: true, force: true })]
}

describe("A request", () => {
  for (const { goesOn = false, name, sent, status } of rows) {
    it.scoped(`with ${name} is answered with ${status}${goesOn ? "" : ", and its connection is closed"}`, () => {
      const [staticDir, remove] = withFiles()
      return Effect.gen(function*() {
        yield* Effect.addFinalizer(() => Effect.sync(remove))
        const { areUnharmed } = yield* bystanders
        yield* Effect.scoped(Effect.gen(function*() {
          const raw = yield* dial
          raw.send(sent)
          yield* raw.until(isHeadComplete)
          if (goesOn) {
            raw.send(request("GET /livez HTTP/1.1", ["Connection: close"]))
            const answers = (yield* raw.ended).toString("latin1")
            expect(answers).toMatch(/HTTP\/1\.1 200 OK(?:(?!HTTP\/1\.1).)*alive$/s)
          } else yield* raw.ended
          const heard = raw.heard().toString("latin1")
          expect(statusOf(raw.heard())).toBe(status)
          // Our own answers, not those of Node's parser.
          if (status !== 400 && status !== 431 && status !== 417) {
            expect(heard.toLowerCase()).toContain("x-content-type-options: nosniff")
          }
          for (
            const leak of ["evil.example", "access-control", "x-powered-by", "location:", "    at ", "node:", staticDir]
          ) {
            expect(heard.toLowerCase()).not.toContain(leak)
          }
          if (status === 405) expect(heard).toContain("allow: GET, HEAD")
          if (sent.startsWith("HEAD")) {
            expect(heard.slice(heard.indexOf("\r\n\r\n") + 4)).toMatch(/^HTTP\/1\.1 200/)
          }
        }))
        yield* areUnharmed
      }).pipe(Effect.provide(TopGunServer.layer({ port: 0, storage: "memory", staticDir })))
    })
  }

  it.scoped("by CONNECT is hung up on", () =>
    Effect.gen(function*() {
      const { areUnharmed } = yield* bystanders
      yield* Effect.scoped(Effect.gen(function*() {
        const raw = yield* dial
        raw.send(request("CONNECT evil.example:443 HTTP/1.1"))
        expect(statusOf(yield* raw.ended)).toBe(0)
      }))
      yield* areUnharmed
    }).pipe(Effect.provide(TopGunServer.layer({ port: 0, storage: "memory" }))))

  it.scoped("whose body is too large isn't read on", () =>
    Effect.gen(function*() {
      const { areUnharmed } = yield* bystanders
      yield* Effect.scoped(Effect.gen(function*() {
        const raw = yield* dial
        raw.send(request("POST /livez HTTP/1.1", ["Transfer-Encoding: chunked"]))
        yield* raw.until(isHeadComplete)
        expect(statusOf(raw.heard())).toBe(405)
        // What one kernel takes in is some MB.
        const chunk = Buffer.from(`10000\r\n${"x".repeat(65_536)}\r\n`)
        let sent = 0
        while (!raw.socket.destroyed && sent < 100_000_000) {
          sent += chunk.length
          yield* Effect.async<void>((resume) => void raw.socket.write(chunk, () => resume(Effect.void)))
        }
        expect(sent).toBeLessThan(100_000_000)
      }))
      yield* areUnharmed
    }).pipe(Effect.provide(TopGunServer.layer({ port: 0, storage: "memory" }))))
})
