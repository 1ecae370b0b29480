/** Whether the two devices hold the same, by their digests. */
import type { Standing } from "./pane.ts"
import { part } from "./template.ts"

export const showComparison = (element: HTMLElement, one: Standing | undefined, other: Standing | undefined): void => {
  if (one === undefined || other === undefined) return
  const waiting = one.pending + other.pending
  const isEqual = one.digest === other.digest
  element.dataset.verdict = isEqual ? "equal" : "different"
  element.dataset.waiting = String(waiting)
  part(element, "verdict").textContent = isEqual ? "equal" : "different"
  const waits = waiting === 1 ? "1 write waits" : `${waiting} writes wait`
  part(element, "explanation").textContent = waiting > 0
    ? isEqual ? `What is confirmed is the same; ${waits}.` : `${waits} to be confirmed.`
    : isEqual
    ? "Nothing waits: both lists are the same."
    : "One device has yet to hear of the other's changes."
}
