/** What names may be made of, and that they are nothing but names: in memory, on the wire, in the database. */
import { describe, expect, it } from "@effect/vitest"
import { partitionOf } from "@topgun/core/Partition"
import * as Value from "@topgun/core/Value"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { batch, openMap, overSocketReady, peerOver, put } from "../PlainClient.ts"
import { names } from "./ward.ts"

const temporaryDir = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "topgun-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** A field of that name, at the top and further in: one of the value's own, whatever objects inherit. */
const valueOf = (name: string) => Object.fromEntries([[name, name], ["in", [Object.fromEntries([[name, 1]])]]])

describe("A name", () => {
  it.scoped("of a map, a key or a field comes back as it was, from who writes it and from the database", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporaryDir
      const server = TopGunServer.layer({ port: 0, dataDir })
      const files = yield* Effect.gen(function*() {
        const before = readdirSync(dataDir)
        const writer = yield* overSocketReady
        const reader = yield* overSocketReady
        for (const [n, name] of names.entries()) {
          yield* reader.send(openMap(name, n))
          yield* reader.take("SyncRoot")
          yield* writer.send(batch(name, "APPLIED", n, [[name, put(valueOf(name))]]))
          const { map, records } = yield* reader.take("ServerEvent")
          expect({ map, records }).toEqual({ map: name, records: [[name, put(valueOf(name))]] })
          while ((yield* writer.take("Durable")).sequence < n);
        }
        expect(readdirSync(dataDir)).toEqual(before)
        return before
      }).pipe(Effect.provide(server))

      yield* Effect.gen(function*() {
        const { status } = yield* TopGunServer.TopGunServer
        expect((yield* status).maps.map(({ name }) => name).sort()).toEqual([...names].sort())
        const client = yield* overSocketReady
        for (const [n, name] of names.entries()) {
          yield* client.send(openMap(name, n))
          yield* client.take("SyncRoot")
          const { records } = yield* peerOver(client, name).pull([partitionOf(name), ""], undefined)
          expect(records.map(([key, { row }]) => [key, row])).toEqual([[name, put(valueOf(name))]])
          const value = Value.decode(records[0]![1].valueBytes) as Record<string, ReadonlyArray<object>>
          for (const [object, content] of [[value, name], [value["in"]![0]!, 1]] as const) {
            expect(Object.getOwnPropertyDescriptor(object, name)?.value).toBe(content)
          }
        }
        expect(readdirSync(dataDir)).toEqual(files)
      }).pipe(Effect.provide(server))
    }))
})
