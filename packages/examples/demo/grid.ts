/** What the demo's grid holds. The same declarations serve every client. */
import * as Grid from "@topgun/core/Grid"
import * as Schema from "effect/Schema"

export const Todo = Schema.Struct({
  text: Schema.String.pipe(Schema.minLength(1), Schema.maxLength(500)),
  done: Schema.Boolean,
  /** When it was added, in ms: the order of the list. */
  addedAt: Schema.Number
})
export type Todo = typeof Todo.Type

export const Todos = Grid.map("todos", Todo)
