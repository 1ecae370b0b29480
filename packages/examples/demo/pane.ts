/** Everything about one device on one side of the page. */
import type { SyncState, Write } from "@topgun/client/promise"
import { openDevice } from "./device.ts"
import { Todos } from "./grid.ts"
import { copyOf, part } from "./template.ts"
import { showTodos } from "./todoList.ts"

/** What the two sides are compared by. */
export interface Standing {
  readonly digest: string
  readonly pending: number
}

export interface Pane {
  readonly element: HTMLElement
  /** `undefined` until the device's data is loaded. */
  readonly standing: () => Standing | undefined
}

const words: Record<SyncState, string> = {
  DISCONNECTED: "Offline",
  CONNECTING: "Connecting",
  AUTHENTICATING: "Connecting",
  SYNCING: "Syncing",
  CONNECTED: "Connected",
  BACKOFF: "No server, retrying",
  ERROR: "Stopped"
}

/** Unlike `crypto.randomUUID` it's there without HTTPS too. */
const newId = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(10)), (byte) => byte.toString(16).padStart(2, "0")).join("")

const messageOf = (fault: unknown): string => fault instanceof Error ? fault.message : String(fault)

/** Opens a person's device and shows it. `onChange` is called when the device's standing may be another one. */
export const openPane = (person: string, onChange: () => void): Pane => {
  const element = copyOf("pane")
  element.dataset.person = person.toLowerCase()
  element.setAttribute("aria-label", `${person}'s device`)
  part(element, "name").textContent = person
  const fault = part(element, "fault")
  const complain = (cause: unknown): void => {
    fault.textContent = messageOf(cause)
    fault.hidden = false
  }

  const device = openDevice(person, complain)
  const { client } = device
  const todos = client.map(Todos)
  let isReady = false

  /** Writes that are shown but not yet durable on this device, for some milliseconds: a reload would lose them. */
  let unsaved = 0
  const countUnsaved = (change: 1 | -1): void => {
    unsaved += change
    element.ariaBusy = String(unsaved > 0)
  }

  /** Runs a write. A refusal at the call is shown here; a later one is told to `complain`, and stays among the rejected. */
  const attempt = (write: () => Write): boolean => {
    fault.hidden = true
    try {
      const { local } = write()
      countUnsaved(1)
      local.catch(() => {}).finally(() => countUnsaved(-1))
      return true
    } catch (refusal) {
      complain(refusal)
      return false
    }
  }

  // --- What can be done ---

  const form = part(element, "form", HTMLFormElement)
  const text = part(element, "text", HTMLInputElement)
  text.setAttribute("aria-label", `New todo for ${person}`)
  form.addEventListener("submit", (event) => {
    event.preventDefault()
    const written = text.value.trim()
    if (written === "") return
    if (attempt(() => todos.set(newId(), { text: written, done: false, addedAt: Date.now() }))) text.value = ""
  })

  const online = part(element, "online", HTMLInputElement)
  online.checked = device.isOnline()
  online.addEventListener("change", () => {
    fault.hidden = true
    device.setOnline(online.checked)
  })

  // --- What is shown ---

  const badge = part(element, "state")
  const pending = part(element, "pending")
  const digest = part(element, "digest")
  const showStatus = (): void => {
    const status = client.status.current
    badge.dataset.state = status.state
    badge.textContent = words[status.state]
    badge.title = status.failure ?? ""
    pending.dataset.pending = String(status.pending)
    pending.textContent = status.pending === 0
      ? "Everything sent"
      : status.pending === 1
      ? "1 write waiting"
      : `${status.pending} writes waiting`
    if (!isReady) return
    digest.textContent = todos.digest.slice(0, 8)
    digest.dataset.digest = todos.digest
    digest.title = todos.digest
    onChange()
  }

  const empty = part(element, "empty")
  const showRows = showTodos(part(element, "todos"), todos, attempt)
  const showList = (): void => {
    showRows()
    empty.hidden = todos.size > 0
    showStatus()
  }

  const rejected = part(element, "rejected")
  const rejections = part(element, "rejections")
  const showRejected = (): void => {
    const writes = client.rejectedWrites.current
    rejected.hidden = writes.length === 0
    rejections.replaceChildren(...writes.map(({ id, key, reason, value }) => {
      const item = copyOf("rejection")
      part(item, "reason").textContent = `${JSON.stringify(value) ?? `Deletion of ${key}`}: ${reason}`
      part(item, "retry").addEventListener("click", () => attempt(() => client.rejectedWrites.retry(id)))
      part(item, "discard").addEventListener("click", () => client.rejectedWrites.discard(id))
      return item
    }))
  }

  const begin = async (): Promise<void> => {
    await client.ready()
    isReady = true
    todos.subscribe(showList)
    showList()
    showRejected()
    element.dataset.ready = "true"
  }
  client.status.subscribe(showStatus)
  client.rejectedWrites.subscribe(showRejected)
  showStatus()
  begin().catch(complain)

  return {
    element,
    standing: () => isReady ? { digest: todos.digest, pending: client.status.current.pending } : undefined
  }
}
