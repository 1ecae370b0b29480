/**
 * Which records changed lately, so that a device which was away shortly is sent just these, and no tree is walked. It may
 * hurry, the tree judges: who takes changes compares roots afterwards.
 *
 * One ring for all maps, in which each entry knows its map's one before: asking costs the changes of that map alone, and
 * the last of a map is never forgotten, so that a quiet map can say for ever that nothing has changed. Numbers are this run's
 * of the server; nothing of it is stored.
 */

/** Changes that are remembered, at most: some 16 bytes each beside their keys. */
export const changesMax = 65_536

/** The log of one run of a server. Plain: it is entered once a record. */
export class Changes {
  readonly #max: number
  readonly #cells: Array<string> = []
  /** The number of the same map's entry before; 0 for none. */
  readonly #previous: Array<number> = []
  /** The number of each map's last entry. */
  readonly #last = new Map<string, number>()
  #count = 0

  /** Of so many changes, at least 1. */
  constructor(max = changesMax) {
    this.#max = max
  }

  /** The number of the last change; 0 before the first. */
  get sequence(): number {
    return this.#count
  }

  /** A cell of a map changed. */
  add(map: string, cell: string): void {
    const sequence = ++this.#count
    const at = sequence % this.#max
    this.#cells[at] = cell
    this.#previous[at] = this.#last.get(map) ?? 0
    this.#last.set(map, sequence)
  }

  /** The cells of a map that changed after `sequence`, each once; `undefined` where that isn't known, or they are over `limit`. */
  since(map: string, sequence: number, limit: number): ReadonlySet<string> | undefined {
    if (sequence > this.#count) return undefined
    const cells = new Set<string>()
    let at = this.#last.get(map) ?? 0
    while (at > sequence) {
      if (at <= this.#count - this.#max || cells.size >= limit) return undefined
      cells.add(this.#cells[at % this.#max]!)
      at = this.#previous[at % this.#max]!
    }
    return cells
  }
}
