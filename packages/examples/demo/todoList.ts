/** The list of one device: an element per todo, kept in step with the map without touching what didn't change. */
import type { GridMap, Write } from "@topgun/client/promise"
import type { Todo } from "./grid.ts"
import { copyOf, part } from "./template.ts"

interface Row {
  readonly element: HTMLElement
  readonly show: (todo: Todo) => void
}

const makeRow = (todos: GridMap<Todo>, id: string, attempt: (write: () => Write) => void): Row => {
  const element = copyOf("todo")
  const done = part(element, "done", HTMLInputElement)
  const text = part(element, "text", HTMLInputElement)
  const remove = part(element, "remove", HTMLButtonElement)
  done.addEventListener(
    "change",
    () => attempt(() => todos.update(id, (todo) => todo && { ...todo, done: done.checked }))
  )
  text.addEventListener("change", () => {
    const written = text.value.trim()
    if (written !== "") attempt(() => todos.update(id, (todo) => todo && { ...todo, text: written }))
    text.value = todos.get(id)?.text ?? ""
  })
  text.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") text.value = todos.get(id)?.text ?? ""
    if (key === "Enter" || key === "Escape") text.blur()
  })
  remove.addEventListener("click", () => attempt(() => todos.remove(id)))
  return {
    element,
    show: (todo) => {
      element.classList.toggle("done", todo.done)
      done.checked = todo.done
      // What somebody is writing is theirs until they leave it.
      if (document.activeElement !== text) text.value = todo.text
      text.title = todo.text
      done.setAttribute("aria-label", `Done: ${todo.text}`)
      text.setAttribute("aria-label", `Text of: ${todo.text}`)
      remove.setAttribute("aria-label", `Delete: ${todo.text}`)
    }
  }
}

/** Shows the map's todos inside `list`, oldest first; `attempt` runs a write and deals with its refusal. */
export const showTodos = (
  list: HTMLElement,
  todos: GridMap<Todo>,
  attempt: (write: () => Write) => void
): () => void => {
  const rows = new Map<string, Row>()
  return () => {
    const sorted = Array.from(todos).sort(([a, one], [b, other]) => one.addedAt - other.addedAt || (a < b ? -1 : 1))
    const ids = new Set(sorted.map(([id]) => id))
    for (const [id, { element }] of rows) {
      if (ids.has(id)) continue
      element.remove()
      rows.delete(id)
    }
    let previous: Element | null = null
    for (const [id, todo] of sorted) {
      let row = rows.get(id)
      if (row === undefined) {
        row = makeRow(todos, id, attempt)
        rows.set(id, row)
      }
      row.show(todo)
      const next: Element | null = previous === null ? list.firstElementChild : previous.nextElementSibling
      // An element that is moved loses the focus.
      if (next !== row.element) list.insertBefore(row.element, next)
      previous = row.element
    }
  }
}
