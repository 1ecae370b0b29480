/**
 * TinyBase as a contestant: a `MergeableStore`, synchronised by its WebSocket synchronizer. Run as a program it is the server,
 * `createWsServer` over stores in memory.
 */
import { createServer } from "node:http"
import { createMergeableStore } from "tinybase/mergeable-store"
import { createCustomPersister, Persists } from "tinybase/persisters"
import { createWsSynchronizer } from "tinybase/synchronizers/synchronizer-ws-client"
import { createWsServer } from "tinybase/synchronizers/synchronizer-ws-server"
import { WebSocket, WebSocketServer } from "ws"
import { startProgram } from "./processes.mjs"
import { keyOf } from "./records.mjs"

const table = "t"
/** Longer than its default of one, for the large answers. The first client of a room waits as long: the server asks it in vain. */
const timeoutSeconds = 2

/** A record as the cells of a row; what isn't one has a row with one cell. */
const cellsOf = (value) => typeof value === "object" ? value : { value }
const valueOf = (row) => Object.hasOwn(row, "value") ? row.value : { ...row }

export const tinybase = {
  name: "tinybase",
  // The server drops a connection for which more than 16 MiB wait, as 100,000 records are with a stamp for each cell.
  records: 10_000,
  writes: 5_000,
  acknowledges: false,
  start: (options) => startProgram(import.meta.filename, (port) => ({ PORT: String(port) }), "/", options),
  open: (url, room) => {
    const store = createMergeableStore()
    let synchronizer
    let inStep
    const connect = () => {
      inStep = (async () => {
        const socket = new WebSocket(`${url}/${room}`, { perMessageDeflate: false })
        synchronizer = await createWsSynchronizer(store, socket, timeoutSeconds)
        await synchronizer.startSync()
      })()
      return inStep
    }
    const disconnect = async () => {
      await synchronizer?.destroy()
    }
    const ready = connect()
    return {
      ready: () => ready,
      set: (n, value) => void store.setRow(table, keyOf(n), cellsOf(value)),
      get: (n) => store.hasRow(table, keyOf(n)) ? valueOf(store.getRow(table, keyOf(n))) : undefined,
      size: () => store.getRowCount(table),
      digest: () => "",
      together: (run) => store.transaction(run),
      onChange: (listener) => {
        const id = store.addDidFinishTransactionListener(() => listener())
        return () => store.delListener(id)
      },
      connect,
      disconnect,
      synced: () => inStep,
      close: disconnect
    }
  }
}

if (process.argv[1] === import.meta.filename) {
  const server = createServer((_, response) => response.end("ready")).listen(Number(process.env.PORT), "127.0.0.1")
  /** Kept when the last client of a room leaves. */
  const stores = new Map()
  const persisterOf = (room) => {
    const store = stores.get(room) ?? createMergeableStore()
    stores.set(room, store)
    return createCustomPersister(
      store,
      async () => undefined,
      async () => {},
      () => undefined,
      () => {},
      undefined,
      Persists.MergeableStoreOnly
    )
  }
  createWsServer(new WebSocketServer({ server, perMessageDeflate: false }), persisterOf, undefined, timeoutSeconds)
}
