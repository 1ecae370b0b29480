/**
 * The clients that `client.mjs` compares, in one form. `synced` is what each of them calls so: for TopGun the server has
 * all that was written here and this device all that the server has, and so with rxdb; for y-websocket and tinybase the
 * server's state has arrived. `records` and `writes` say how many a contestant is measured with, in fresh and reconnect and
 * in stream.
 */
import { createClient } from "@topgun/client/promise"
import * as diagnostics from "node:diagnostics_channel"
import { createRequire } from "node:module"
import * as path from "node:path"
import { startProgram, startServer } from "./processes.mjs"
import { count, keyOf } from "./records.mjs"

// --- Bytes of this process's connections, as the sockets count them: WebSocket's own included ---

const sockets = new Set()
let closedBytes = 0
diagnostics.subscribe("net.client.socket", ({ socket }) => {
  sockets.add(socket)
  socket.once("close", () => {
    sockets.delete(socket)
    closedBytes += socket.bytesRead + socket.bytesWritten
  })
})

/** Bytes that went over all connections that this process opened, both ways. */
export const wireBytes = () => {
  let bytes = closedBytes
  for (const socket of sockets) bytes += socket.bytesRead + socket.bytesWritten
  return bytes
}

/** Writes that may wait: more than any scenario makes. */
export const capacity = 200_000

const topgun = {
  name: "TopGun",
  records: count,
  writes: 50_000,
  start: (options) => startServer({ TOPGUN_STORAGE: "memory" }, options),
  open: (url, room, { offline = false } = {}) => {
    const client = createClient({
      url,
      autoConnect: !offline,
      backpressure: { capacity },
      onError: (fault) => console.error(fault)
    })
    const map = client.map(room)
    return {
      ready: () => client.ready(),
      set: (n, value) => void map.set(keyOf(n), value),
      get: (n) => map.get(keyOf(n)),
      size: () => map.size,
      digest: () => map.digest,
      together: (run) => run(),
      onChange: (listener) => map.subscribe(listener),
      connect: () => client.connect(),
      disconnect: () => client.disconnect(),
      synced: () => client.synced(),
      close: () => client.close()
    }
  }
}

const optional = async (name) => {
  try {
    return await import(name)
  } catch {
    return undefined
  }
}
const yjs = await optional("yjs")
const provider = await optional("y-websocket")
const ws = await optional("ws")

const yWebsocket = {
  name: "yjs + y-websocket",
  records: count,
  writes: 50_000,
  start: (options) =>
    startProgram(
      path.join(path.dirname(createRequire(import.meta.url).resolve("y-websocket/package.json")), "bin/server.cjs"),
      (port) => ({ PORT: String(port), HOST: "127.0.0.1" }),
      "/",
      options
    ),
  open: (url, room, { offline = false } = {}) => {
    const doc = new yjs.Doc()
    const map = doc.getMap("m")
    const connection = new provider.WebsocketProvider(url, room, doc, {
      connect: !offline,
      disableBc: true,
      WebSocketPolyfill: class extends ws.WebSocket {
        constructor(address, protocols) {
          super(address, protocols, { perMessageDeflate: false })
        }
      }
    })
    return {
      ready: async () => {},
      set: (n, value) => void map.set(keyOf(n), value),
      get: (n) => map.get(keyOf(n)),
      size: () => map.size,
      digest: () => "",
      together: (run) => doc.transact(run),
      onChange: (listener) => {
        map.observe(listener)
        return () => map.unobserve(listener)
      },
      connect: async () => connection.connect(),
      disconnect: async () => connection.disconnect(),
      synced: () =>
        new Promise((resolve) => {
          if (connection.synced) return resolve(undefined)
          const listener = (synced) => {
            if (!synced) return
            connection.off("sync", listener)
            resolve(undefined)
          }
          connection.on("sync", listener)
        }),
      close: async () => {
        connection.destroy()
        doc.destroy()
      }
    }
  }
}

/** TopGun, and the peers that are installed. */
export const contestants = [
  topgun,
  ...yjs !== undefined && provider !== undefined && ws !== undefined ? [yWebsocket] : [],
  ...[(await optional("./tinybase.mjs"))?.tinybase, (await optional("./rxdb.mjs"))?.rxdb].filter(Boolean)
]
