/** The page's markup is in `index.html`; this takes copies of its templates and finds their parts. */

/** A copy of the one element of a template. */
export const copyOf = (id: string): HTMLElement => {
  const template = document.getElementById(id)
  const element = template instanceof HTMLTemplateElement ? template.content.firstElementChild : null
  if (element === null) throw new Error(`the page has no template "${id}"`)
  return element.cloneNode(true) as HTMLElement
}

/** The element inside `root` that the markup names `data-part="name"`. */
export function part(root: HTMLElement, name: string): HTMLElement
export function part<E extends HTMLElement>(root: HTMLElement, name: string, type: new() => E): E
export function part(root: HTMLElement, name: string, type: new() => HTMLElement = HTMLElement): HTMLElement {
  const element = root.querySelector(`[data-part="${name}"]`)
  if (!(element instanceof type)) throw new Error(`the page has no part "${name}" of the kind ${type.name}`)
  return element
}
