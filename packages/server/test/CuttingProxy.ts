/** A TCP proxy in front of PostgreSQL, which cuts or holds what goes through it. */
import * as Effect from "effect/Effect"
import { once } from "node:events"
import { connect, createServer, type Socket } from "node:net"

export interface CuttingProxy {
  readonly port: number
  /**
   * Cuts the next connection that commits: `before` its COMMIT is passed on, or `after` PostgreSQL has answered it, without
   * passing the answer on. Settles when it has.
   */
  readonly cutAtCommit: (when: "before" | "after") => Promise<void>
  /** Passes nothing on, and closes nothing, as a network that has lost its way does; `release` cuts what was held. */
  readonly hold: () => void
  readonly release: () => void
}

const includes = (bytes: Buffer, text: string): boolean => bytes.includes(Buffer.from(text, "latin1"))

/** In front of a port of this machine. */
export const makeCuttingProxy = (target: number) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const pairs = new Set<readonly [Socket, Socket]>()
      let held = false
      let armed: { readonly when: "before" | "after"; readonly done: () => void } | undefined
      const server = createServer((client) => {
        const upstream = connect(target, "127.0.0.1")
        const pair = [client, upstream] as const
        pairs.add(pair)
        const cut = () => {
          pairs.delete(pair)
          client.destroy()
          upstream.destroy()
        }
        const end = () => {
          if (!held) cut()
        }
        for (const socket of pair) socket.on("error", end).on("close", end)
        const cutArmed = () => {
          const { done } = armed!
          armed = undefined
          cut()
          done()
        }
        client.on("data", (bytes) => {
          if (held) return
          if (armed?.when === "before" && includes(bytes, "COMMIT\0")) return cutArmed()
          upstream.write(bytes)
        })
        upstream.on("data", (bytes) => {
          if (held) return
          // What PostgreSQL says when it has committed.
          if (armed?.when === "after" && includes(bytes, "COMMIT\0")) return cutArmed()
          client.write(bytes)
        })
      })
      server.listen(0, "127.0.0.1")
      await once(server, "listening")
      const address = server.address()
      if (address === null || typeof address === "string") throw new Error("a listening socket has a port")
      const cutAll = () => {
        for (const [client, upstream] of pairs) {
          client.destroy()
          upstream.destroy()
        }
        pairs.clear()
      }
      const proxy: CuttingProxy = {
        port: address.port,
        cutAtCommit: (when) => new Promise((resolve) => armed = { when, done: resolve }),
        hold: () => {
          held = true
        },
        release: () => {
          held = false
          cutAll()
        }
      }
      return {
        proxy,
        close: () => {
          server.close()
          cutAll()
        }
      }
    }),
    ({ close }) => Effect.sync(close)
  ).pipe(Effect.map(({ proxy }) => proxy))
