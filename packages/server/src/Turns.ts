/**
 * How much sessions do before the event loop gets to whatever else waits: timers, new connections, the answers of the database. What
 * all clients sent at once is carried out in turns, each client in its place in the line, so that neither a crowd nor one who has
 * much to say makes the others wait for long.
 *
 * Work is counted, not timed: the unit is about what an operation of a batch takes, some 5 µs.
 */

/** Work of one turn: some 5 ms. What is begun is done whole, and goes beyond. */
export const workMax = 1_000

/** The turns of a server. */
export interface Turns {
  /** Whether enough was done in this turn: who has more to do waits. */
  readonly isOver: () => boolean
  /** So much is done in this turn. */
  readonly spend: (work: number) => void
  /** Goes on in a later turn, after those who have waited longer. */
  readonly wait: (goOn: () => void) => void
}

/** Turns of so much work. */
export const make = (max: number = workMax): Turns => {
  let done = 0
  let waiting: Array<() => void> = []
  let isScheduled = false
  const schedule = (): void => {
    if (isScheduled) return
    isScheduled = true
    // tidy-allow timer: no time passes; this is the event loop's own "after what is ready".
    setImmediate(next)
  }
  const next = (): void => {
    isScheduled = false
    done = 0
    const line = waiting
    waiting = []
    let at = 0
    while (at < line.length && done < max) line[at++]!()
    waiting = [...line.slice(at), ...waiting]
    if (waiting.length > 0) schedule()
  }
  return {
    isOver: () => done >= max,
    spend: (work) => {
      done += work
      schedule()
    },
    wait: (goOn) => {
      waiting.push(goOn)
      schedule()
    }
  }
}
