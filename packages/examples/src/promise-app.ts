/**
 * A program without Effect: it writes a todo, waits until the server has it, and prints what happens to it.
 *
 *     TOPGUN_URL=ws://127.0.0.1:8080 node promise-app.js
 */
import { createClient, Grid } from "@topgun/client/promise"

interface Todo {
  readonly text: string
  readonly done: boolean
}

// A declaration is shared by all programs of an application. This one's schema is any Standard Schema: here, one by hand.
const Todos = Grid.map<Todo>("todos", {
  "~standard": {
    version: 1,
    vendor: "example",
    validate: (value) => {
      const { done, text } = value as Partial<Todo>
      return typeof text === "string" && typeof done === "boolean"
        ? { value }
        : { issues: [{ message: "expected { text, done }" }] }
    }
  }
})

const client = createClient({ grid: [Todos], url: process.env.TOPGUN_URL ?? "ws://127.0.0.1:8080" })
// This device's own data is loaded; the server may be away.
await client.ready()

const todos = client.map(Todos)
const stop = todos.watch("milk").subscribe((todo) => console.log(`${todo?.text}: ${todo?.done ? "done" : "to do"}`))

// Visible at once, here. Awaiting the write: durable on this device. Awaiting its `server`: acknowledged there.
const write = todos.set("milk", { text: "Buy milk", done: false })
console.log(`at once: ${todos.get("milk")?.text}`)
await write
const { level } = await write.server
console.log(`acknowledged: ${level}`)

await todos.update("milk", (todo) => todo && { ...todo, done: true }).server
await client.synced()
console.log(`${todos.size} on ${client.status.current.state === "CONNECTED" ? "both sides" : "this device"}`)

stop()
await client.close()
