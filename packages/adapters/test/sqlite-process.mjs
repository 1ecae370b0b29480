// oxlint-disable no-console
/**
 * Another process, or thread, over an SQLite file, for the tests: what it does is its first argument, the file its second.
 *
 *     commits   writes rows "0", "1", … in transactions of 40 rows each until it's killed, and prints the number of each that is done
 *     rotates   the same, encrypted, while it changes the keys of these rows and of 1,500 others again and again
 *     opens     opens the storage, writes a row, and prints that it has
 *     makes     makes a file after the other, at the same moments as the thread that shares its memory
 *     holds     begins a transaction, prints that it has, and ends it a moment later
 */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { encrypted } from "@topgun/adapters/encrypted"
import { sqlite } from "@topgun/adapters/sqlite"
import * as Effect from "effect/Effect"
import { writeSync } from "node:fs"
import { workerData } from "node:worker_threads"

const [, , what, file, key = "child"] = process.argv
const say = (text) => writeSync(1, `${text}\n`)

if (what === "holds") {
  const hold = Effect.gen(function*() {
    const { reserve } = yield* SqliteClient.SqliteClient
    const connection = yield* reserve
    yield* connection.executeRaw("BEGIN IMMEDIATE", [])
    say("holds")
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200)
    yield* connection.executeRaw("COMMIT", [])
  })
  await Effect.runPromise(Effect.scoped(Effect.provide(hold, SqliteClient.layer({ filename: file }))))
} else if (what === "makes") {
  const { arrivals, files } = workerData
  for (let n = 1; n <= files; n++) {
    Atomics.add(arrivals, 0, 1)
    while (Atomics.load(arrivals, 0) < 2 * n);
    const storage = sqlite(`${file}-${n}`)
    await storage.open(key)
    await storage.commit([{ space: "records", key, value: new Uint8Array(1) }])
    await storage.close()
  }
} else {
  const isEncrypted = what === "rotates"
  const storage = isEncrypted ? encrypted(sqlite(file), { secret: new Uint8Array(32).fill(7) }) : sqlite(file)
  await storage.open(what === "opens" ? key : "app")
  if (what !== "opens") {
    const rows = (count, space, value) => Array.from({ length: count }, (_, i) => ({ space, key: `${i}`, value }))
    if (isEncrypted) await storage.commit(rows(1_500, "others", new Uint8Array(100)))
    for (let n = 0;; n++) {
      const rotation = isEncrypted ? storage.rotate() : undefined
      await storage.commit(rows(40, "records", new TextEncoder().encode(String(n))))
      say(n)
      await rotation
    }
  }
  await storage.commit([{ space: "records", key, value: new Uint8Array(1) }])
  say("opened")
}
