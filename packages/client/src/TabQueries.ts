/** The queries of one follower, asked by its leader on its connection, under ids of that. */
import type { Answer, Line, Question } from "./QueryLine.ts"
import type { SyncEngine } from "./SyncEngine.ts"

/** Where a follower's answers go. */
export interface Events {
  readonly onLine: (isOpen: boolean) => void
  /** An answer, under the follower's ids. */
  readonly onAnswer: (answer: Answer) => void
}

/** See the head of this file. */
export class TabQueries {
  readonly #events: Events
  readonly #stop: () => void
  #line: Line | undefined
  /** Ids on the line by the follower's, and the other way round. */
  readonly #ids = new Map<number, number>()
  readonly #theirs = new Map<number, number>()
  /** By ids on the line, the numbers that the server speaks by. */
  readonly #numbers = new Map<number, number>()

  constructor(engine: SyncEngine["Type"], events: Events) {
    this.#events = events
    this.#stop = engine.asks({
      opened: (line) => {
        this.#line = line
        events.onLine(true)
      },
      closed: () => {
        this.#line = undefined
        this.#ids.clear()
        this.#theirs.clear()
        this.#numbers.clear()
        events.onLine(false)
      },
      heard: (answer) => this.#heard(answer)
    })
  }

  ask(question: Question): void {
    const line = this.#line
    // Said before it has heard that the line has ended.
    if (line === undefined) return
    let id = this.#ids.get(question.id)
    if (question._tag === "QueryClose") {
      if (id === undefined) return
      this.#forget(id)
    } else if (id === undefined) {
      id = line.id()
      this.#ids.set(question.id, id)
      this.#theirs.set(id, question.id)
    }
    line.send({ ...question, id })
  }

  /** Asks nothing any more. */
  end(): void {
    this.#stop()
    for (const id of this.#numbers.keys()) this.#line?.send({ _tag: "QueryClose", id })
    this.#line = undefined
  }

  #forget(id: number): void {
    const theirs = this.#theirs.get(id)
    if (theirs !== undefined) this.#ids.delete(theirs)
    this.#theirs.delete(id)
    this.#numbers.delete(id)
  }

  #heard(answer: Answer): void {
    if (answer._tag === "QueryRows") {
      for (const number of this.#numbers.values()) if (number === answer.query) return this.#events.onAnswer(answer)
      return
    }
    const theirs = answer.id === null ? undefined : this.#theirs.get(answer.id)
    if (theirs === undefined || answer.id === null) return
    if (answer._tag === "QueryAck") this.#numbers.set(answer.id, answer.query)
    else this.#forget(answer.id)
    this.#events.onAnswer({ ...answer, id: theirs })
  }
}
