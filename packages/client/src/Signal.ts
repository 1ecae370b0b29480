import * as Effect from "effect/Effect"

/** Tells waiting fibers that something changed, without losing a change between their look and their wait. */
export class Signal {
  #version = 0
  readonly #waiting = new Set<() => void>()

  /** What to hand to {@link after}: read it before looking. */
  get version(): number {
    return this.#version
  }

  notify(): void {
    this.#version++
    const waiting = Array.from(this.#waiting)
    this.#waiting.clear()
    for (const wake of waiting) wake()
  }

  /** Waits for a change later than `version`. */
  after(version: number): Effect.Effect<void> {
    return Effect.async((resume) => {
      if (this.#version !== version) {
        resume(Effect.void)
        return undefined
      }
      const wake = () => resume(Effect.void)
      this.#waiting.add(wake)
      return Effect.sync(() => this.#waiting.delete(wake))
    })
  }

  /** Waits until `condition` holds, looking again after each change. */
  until(condition: () => boolean): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { version } = this
      return condition() ? Effect.void : Effect.zipRight(this.after(version), this.until(condition))
    })
  }
}
