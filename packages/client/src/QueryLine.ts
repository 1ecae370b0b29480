/** The way of live queries to a server and of its answers back: a connection's or, in a tab that follows another, that one's. */
import type * as Protocol from "@topgun/core/Protocol"

/** What is said to the server. `Ping` asks for a sign that it has told of all that came before. */
export type Question = typeof Protocol.QueryOpen.Type | typeof Protocol.QueryClose.Type | typeof Protocol.Ping.Type

/** What the server says. A `Fault` or a `Pong` may be the answer to something else: their ids tell. */
export type Answer =
  | typeof Protocol.QueryAck.Type
  | typeof Protocol.QueryRows.Type
  | typeof Protocol.Fault.Type
  | typeof Protocol.Pong.Type

/** A way that is open. */
export interface Line {
  /** A number that nothing else has that is asked on it. */
  readonly id: () => number
  readonly send: (question: Question) => void
}

/** One who asks queries. What was asked on one line isn't known on the next. */
export interface Asker {
  readonly opened: (line: Line) => void
  readonly closed: () => void
  /** Hears every answer, those to others too. @throws MalformedMessage for what no server may say */
  readonly heard: (answer: Answer) => void
}

/** The line that there is, if any, and those who ask on it. */
export class Lines {
  readonly #askers = new Set<Asker>()
  #line: Line | undefined

  /** Adds one who asks, on the present line too, until the returned function is called. */
  add(asker: Asker): () => void {
    this.#askers.add(asker)
    if (this.#line !== undefined) asker.opened(this.#line)
    return () => void this.#askers.delete(asker)
  }

  open(line: Line): void {
    this.close()
    this.#line = line
    for (const { opened } of Array.from(this.#askers)) opened(line)
  }

  close(): void {
    if (this.#line === undefined) return
    this.#line = undefined
    for (const { closed } of Array.from(this.#askers)) closed()
  }

  hear(answer: Answer): void {
    for (const { heard } of Array.from(this.#askers)) heard(answer)
  }
}
