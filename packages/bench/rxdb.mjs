/**
 * RxDB as a contestant: collections in memory, replicated by its WebSocket plugin. Run as a program it is the server. What
 * has come is kept in a map beside the collection, as RxDB itself can only be asked asynchronously.
 */
import { createServer } from "node:http"
import { createRxDatabase } from "rxdb"
import { replicateWithWebsocketServer, startWebsocketServer } from "rxdb/plugins/replication-websocket"
import { getRxStorageMemory } from "rxdb/plugins/storage-memory"
import { startProgram } from "./processes.mjs"
import { keyOf } from "./records.mjs"

const schema = {
  version: 0,
  primaryKey: "key",
  type: "object",
  properties: { key: { type: "string", maxLength: 100 }, value: {} },
  required: ["key"]
}

let databases = 0
const openDatabase = () =>
  createRxDatabase({ name: `bench${process.pid}n${databases++}`, storage: getRxStorageMemory(), multiInstance: false })

export const rxdb = {
  name: "rxdb",
  records: 100_000,
  writes: 5_000,
  start: () => startProgram(import.meta.filename, (port) => ({ PORT: String(port) }), "/"),
  open: (url, room) => {
    const values = new Map()
    let database
    let collection
    let replication
    const connect = async () => {
      replication = await replicateWithWebsocketServer({
        collection,
        url,
        replicationIdentifier: "bench",
        live: true,
        batchSize: 1_000
      })
    }
    const disconnect = async () => {
      await replication.cancel()
      // The plugin closes its socket with the collection only.
      collection.onClose.pop()()
    }
    const ready = (async () => {
      database = await openDatabase()
      collection = (await database.addCollections({ [room]: { schema } }))[room]
      collection.eventBulks$.subscribe(({ events }) => {
        for (const { documentData: { key, value } } of events) values.set(key, value)
      })
      await connect()
    })()
    let gathered
    const written = new Set()
    const write = (documents) => {
      const writing = collection.bulkUpsert(documents).then(() => written.delete(writing))
      written.add(writing)
    }
    return {
      ready: () => ready,
      set: (n, value) => {
        const document = { key: keyOf(n), value }
        if (gathered === undefined) write([document])
        else gathered.push(document)
      },
      get: (n) => values.get(keyOf(n)),
      size: () => values.size,
      digest: () => "",
      together: (run) => {
        gathered = []
        run()
        write(gathered)
        gathered = undefined
      },
      onChange: (listener) => {
        const subscription = collection.eventBulks$.subscribe(() => listener())
        return () => subscription.unsubscribe()
      },
      connect,
      disconnect,
      synced: async () => {
        await Promise.all(written)
        await replication.awaitInSync()
      },
      close: async () => {
        await disconnect()
        await database.close()
      }
    }
  }
}

if (process.argv[1] === import.meta.filename) {
  const database = await openDatabase()
  const rooms = ["fresh", "reconnect", "seen", ...Array.from({ length: 5 }, (_, i) => `stream${i}`)]
  await database.addCollections(Object.fromEntries(rooms.map((room) => [room, { schema }])))
  const server = createServer((_, response) => response.end("ready"))
  startWebsocketServer({ database, server, perMessageDeflate: false })
  server.listen(Number(process.env.PORT), "127.0.0.1")
}
