/**
 * What was attempted and what was acknowledged, and whether what is read afterwards agrees: each acknowledged write counts, each
 * attempted one may, and nothing else does. After the set-full checker of Jepsen.
 */

/** One write of a history. */
export interface Attempt {
  acknowledged: boolean
}

interface Assignment extends Attempt {
  /** `undefined` for a removal. */
  readonly value: unknown
}

const lastIndexOf = <A>(all: ReadonlyArray<A>, holds: (each: A) => boolean): number =>
  all.reduce((last, each, at) => holds(each) ? at : last, -1)

/** Keys that are put and removed, each by one writer, one write after the other; values are unique. */
export class RegisterHistory {
  readonly #keys = new Map<string, Array<Assignment>>()

  attempt(key: string, value: unknown): Attempt {
    const assignment = { value, acknowledged: false }
    this.#keys.set(key, [...this.#keys.get(key) ?? [], assignment])
    return assignment
  }

  get acknowledged(): number {
    return Array.from(this.#keys.values()).flat().filter(({ acknowledged }) => acknowledged).length
  }

  /** What of `seen` no order of events explains. */
  faults(seen: ReadonlyMap<string, unknown>): ReadonlyArray<string> {
    const faults: Array<string> = []
    for (const [key, assignments] of this.#keys) {
      const last = lastIndexOf(assignments, ({ acknowledged }) => acknowledged)
      const value = seen.get(key)
      const at = lastIndexOf(assignments, (assignment) => assignment.value === value)
      if (at < last) faults.push(`${key} is ${value}, after ${assignments[last]!.value} was acknowledged`)
      else if (at < 0 && value !== undefined) faults.push(`${key} is ${value}, which nobody wrote`)
    }
    for (const key of seen.keys()) if (!this.#keys.has(key)) faults.push(`${key}, which nobody wrote`)
    return faults
  }
}

interface Element {
  readonly added: Attempt
  removed: Attempt | undefined
}

/** Unique elements that are added to sets, and some removed again. */
export class SetHistory {
  readonly #elements = new Map<unknown, Element>()

  add(element: unknown): Attempt {
    const added = { acknowledged: false }
    this.#elements.set(element, { added, removed: undefined })
    return added
  }

  remove(element: unknown): Attempt {
    const removed = { acknowledged: false }
    this.#elements.get(element)!.removed = removed
    return removed
  }

  faults(seen: ReadonlySet<unknown>): ReadonlyArray<string> {
    const faults: Array<string> = []
    for (const [element, { added, removed }] of this.#elements) {
      if (seen.has(element) && removed?.acknowledged === true) faults.push(`${element} is there, and was removed`)
      if (!seen.has(element) && added.acknowledged && removed === undefined) faults.push(`${element} is lost`)
    }
    for (const element of seen) if (!this.#elements.has(element)) faults.push(`${element}, which nobody added`)
    return faults
  }
}

/** A counter that is only counted up. */
export class CounterHistory {
  readonly #steps: Array<Attempt> = []

  attempt(): Attempt {
    const step = { acknowledged: false }
    this.#steps.push(step)
    return step
  }

  faults(seen: number): ReadonlyArray<string> {
    const least = this.#steps.filter(({ acknowledged }) => acknowledged).length
    return seen >= least && seen <= this.#steps.length
      ? []
      : [`the counter is ${seen}, of ${this.#steps.length} steps, ${least} of them acknowledged`]
  }
}
