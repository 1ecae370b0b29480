/**
 * Which records changed lately, so that a device which was away shortly is sent just these, and no tree is walked. It may
 * hurry, the tree judges: who takes changes compares roots afterwards.
 *
 * One ring for all maps, in which each entry knows its map's one before: asking costs the changes of that map alone, and
 * the last of a map is never forgotten, so that a quiet map can say for ever that nothing has changed. Numbers are this run's
 * of the server, and each map has its own, so that none tells of another; nothing of it is stored.
 */

/** Changes that are remembered, at most: some 16 bytes each beside their keys. */
export const changesMax = 65_536

/** The log of one run of a server. Plain: it is entered once a record. */
export class Changes {
  readonly #max: number
  readonly #cells: Array<string> = []
  /** The number of the same map's entry before; 0 for none. */
  readonly #previous: Array<number> = []
  /** Where each map's last entry is, and how many it has had. */
  readonly #last = new Map<string, { at: number; sequence: number }>()
  #count = 0

  /** Of so many changes, at least 1. */
  constructor(max = changesMax) {
    this.#max = max
  }

  /** The number of a map's last change; 0 before the first. */
  sequence(map: string): number {
    return this.#last.get(map)?.sequence ?? 0
  }

  /** A cell of a map changed. */
  add(map: string, cell: string): void {
    const number = ++this.#count
    const at = number % this.#max
    const last = this.#last.get(map)
    this.#cells[at] = cell
    this.#previous[at] = last?.at ?? 0
    if (last === undefined) this.#last.set(map, { at: number, sequence: 1 })
    else {
      last.at = number
      last.sequence++
    }
  }

  /** The cells of a map that changed after `sequence`, each once; `undefined` where that isn't known, or they are over `limit`. */
  since(map: string, sequence: number, limit: number): ReadonlySet<string> | undefined {
    const last = this.#last.get(map) ?? { at: 0, sequence: 0 }
    if (sequence > last.sequence) return undefined
    const cells = new Set<string>()
    let { at } = last
    for (let left = last.sequence - sequence; left > 0; left--) {
      if (at <= this.#count - this.#max || cells.size >= limit) return undefined
      cells.add(this.#cells[at % this.#max]!)
      at = this.#previous[at % this.#max]!
    }
    return cells
  }
}
