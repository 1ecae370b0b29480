/** A value that changes, to read now, to be told of, or to iterate over. */
export interface Live<A> extends AsyncIterable<A> {
  readonly current: A
  /** Calls `listener` after each change, until the returned function is called or the signal aborts. */
  readonly subscribe: (listener: (value: A) => void, options?: { readonly signal?: AbortSignal }) => () => void
}

/** Calls each listener; what one throws goes to `onFault` and stops nobody else. */
export const notifyAll = <A>(
  listeners: Iterable<(value: A) => void>,
  value: A,
  onFault: (fault: unknown) => void
): void => {
  for (const listener of listeners) {
    try {
      listener(value)
    } catch (fault) {
      onFault(fault)
    }
  }
}

/** Adds to a set until told otherwise. */
export const subscribeTo = <A>(
  listeners: Set<(value: A) => void>,
  listener: (value: A) => void,
  signal: AbortSignal | undefined,
  onLast?: () => void
): () => void => {
  // Each subscription is its own, even of one function twice.
  const own = (value: A): void => listener(value)
  const stop = (): void => {
    signal?.removeEventListener("abort", stop)
    if (listeners.delete(own) && listeners.size === 0) onLast?.()
  }
  if (signal?.aborted === true) return stop
  listeners.add(own)
  signal?.addEventListener("abort", stop)
  return stop
}

/** A {@link Live} over something that can be read and listened to. Slow iterators see the latest value, not each. */
export const make = <A>(
  read: () => A,
  listen: (listener: (value: A) => void, signal: AbortSignal | undefined) => () => void
): Live<A> => ({
  get current() {
    return read()
  },
  subscribe: (listener, options) => listen(listener, options?.signal),
  [Symbol.asyncIterator]: () => {
    let fresh = true
    let done = false
    let wake: (() => void) | undefined
    const stop = listen(() => {
      fresh = true
      wake?.()
    }, undefined)
    return {
      next: async () => {
        while (!fresh && !done) {
          await new Promise<void>((resolve) => {
            wake = resolve
          })
        }
        if (done) return { done: true, value: undefined }
        fresh = false
        return { done: false, value: read() }
      },
      return: () => {
        done = true
        stop()
        wake?.()
        return Promise.resolve({ done: true, value: undefined })
      }
    }
  }
})

/** A {@link Live} with more that can be done with it. */
export const extend = <A, More extends object>(live: Live<A>, more: More): Live<A> & More => ({
  get current() {
    return live.current
  },
  subscribe: live.subscribe,
  [Symbol.asyncIterator]: live[Symbol.asyncIterator],
  ...more
})

/** A {@link Live} that is set. */
export class Observable<A> {
  readonly #listeners = new Set<(value: A) => void>()
  readonly #onFault: (fault: unknown) => void
  readonly live: Live<A>
  #current: A

  constructor(initial: A, onFault: (fault: unknown) => void) {
    this.#current = initial
    this.#onFault = onFault
    this.live = make(() => this.#current, (listener, signal) => subscribeTo(this.#listeners, listener, signal))
  }

  get current(): A {
    return this.#current
  }

  set(value: A): void {
    if (Object.is(value, this.#current)) return
    this.#current = value
    notifyAll(Array.from(this.#listeners), value, this.#onFault)
  }
}
