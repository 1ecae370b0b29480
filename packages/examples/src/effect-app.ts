/**
 * A program on Effect: it writes a todo, waits until the server has it, and prints what happens to it.
 *
 *     TOPGUN_URL=ws://127.0.0.1:8080 node effect-app.js
 */
import * as TopGunClient from "@topgun/client/TopGunClient"
import * as Grid from "@topgun/core/Grid"
import * as Storage from "@topgun/core/Storage"
import * as Transport from "@topgun/core/Transport"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

// A declaration is shared by all programs of an application.
const Todo = Schema.Struct({ text: Schema.String, done: Schema.Boolean })
const Todos = Grid.map("todos", Todo)

const program = Effect.gen(function*() {
  const client = yield* TopGunClient.TopGunClient
  const todos = yield* client.map(Todos)

  // What is there now, then what it changes to, until it is done. Who is slow sees the latest.
  const watching = yield* todos.watch("bread").pipe(
    Stream.filter((todo) => todo !== undefined),
    Stream.tap(({ done, text }) => Console.log(`${text}: ${done ? "done" : "to do"}`)),
    Stream.takeUntil(({ done }) => done),
    Stream.runDrain,
    Effect.fork
  )

  // Completes when the write is durable on this device; its `server` when it is acknowledged there.
  const write = yield* todos.set("bread", { text: "Bake bread", done: false })
  yield* Console.log(`at once: ${todos.get("bread")?.text}`)
  const { level } = yield* write.server
  yield* Console.log(`acknowledged: ${level}`)

  const done = yield* todos.update("bread", (todo) => todo && { ...todo, done: true })
  yield* done.server
  yield* watching.await
  yield* client.synced
  yield* Console.log(`${todos.size} on both sides`)
})

const ServerUrl = Config.string("TOPGUN_URL").pipe(Config.withDefault("ws://127.0.0.1:8080"))
const ClientLive = TopGunClient.layer().pipe(Layer.provide([
  Storage.layerMemory,
  Layer.unwrapEffect(Effect.map(ServerUrl, (url) => Transport.layerWebSocket({ url })))
]))

await Effect.runPromise(Effect.provide(program, ClientLive))
