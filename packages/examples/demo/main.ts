/** Two devices side by side, each with its own data, and whether they agree. */
import { showComparison } from "./comparison.ts"
import { openPane, type Pane } from "./pane.ts"

const main = document.querySelector("main")!
const comparison = document.querySelector<HTMLElement>("#comparison")!

// So that the page can be opened without a server. Not there without HTTPS, other than on this machine.
if (import.meta.env.PROD && "serviceWorker" in navigator) {
  navigator.serviceWorker.register("./service-worker.js").catch((fault: unknown) => console.warn(fault))
}

let panes: ReadonlyArray<Pane> = []
const compare = (): void => showComparison(comparison, panes[0]?.standing(), panes[1]?.standing())
panes = [openPane("Alice", compare), openPane("Bob", compare)]
comparison.before(panes[0]!.element)
comparison.after(panes[1]!.element)
main.hidden = false
