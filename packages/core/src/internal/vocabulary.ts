/** The terms of an index: their numbers, which are dense and used again, and their order, by which beginnings are found. */
import { hasBeginnings, ownText } from "./analyzer.ts"
import { SortedList } from "./SortedList.ts"

export class Vocabulary {
  readonly #ids = new Map<string, number>()
  readonly #terms: Array<string> = []
  readonly #free: Array<number> = []
  /** Those that a beginning can be asked of, in the order of UTF-16 units, in which equal beginnings are neighbours. */
  readonly #ordered = new SortedList<string>((a, b) => a < b ? -1 : a > b ? 1 : 0)

  get size(): number {
    return this.#ids.size
  }

  idOf(term: string): number | undefined {
    return this.#ids.get(term)
  }

  /** The term of a number in use. */
  termOf(id: number): string {
    return this.#terms[id]!
  }

  /** The number of a term, a new one if it has none. */
  add(term: string): number {
    const known = this.#ids.get(term)
    if (known !== undefined) return known
    const id = this.#free.pop() ?? this.#terms.length
    const own = ownText(term)
    this.#terms[id] = own
    this.#ids.set(own, id)
    if (hasBeginnings(own)) this.#ordered.add(own)
    return id
  }

  /** Gives up a term in use. */
  drop(id: number): void {
    const term = this.#terms[id]!
    this.#ids.delete(term)
    if (hasBeginnings(term)) this.#ordered.delete(term)
    this.#terms[id] = ""
    this.#free.push(id)
  }

  /** Calls `visit` with each term that begins so. */
  forBeginning(prefix: string, visit: (id: number) => void): void {
    const first = this.#ordered.countBefore((term) => term < prefix ? -1 : 1)
    for (const term of this.#ordered.range(first, this.#ordered.size)) {
      if (!term.startsWith(prefix)) return
      visit(this.#ids.get(term)!)
    }
  }
}
