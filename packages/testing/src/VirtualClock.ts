/**
 * Simulated time: an Effect `Clock` that stands still until a test moves it, and then runs everything that falls due, in
 * order, as fast as the processor can.
 *
 * Before each step everything that is ready runs to the end: fibers, microtasks and a few turns of the event loop, until
 * nothing stirs. Two sleepers of one deadline wake in the order in which they fell asleep, with everything that the first
 * sets off done before the second. So a run depends on the program alone, and an hour of it costs what its work costs
 * and less than 0.1 ms a step, where TestClock takes 4 ms.
 *
 * What stirs is seen for fibers (they run under this clock's own scheduler) and for sleepers. Work that leaves the process
 * or runs on other threads, such as files and sockets, is not: pass `isQuiet` to have it waited for.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scheduler from "effect/Scheduler"

export interface Options {
  /** The time at the start, in ms since 1970. @default 2026-01-01T00:00:00Z */
  readonly startMillis?: number
  /**
   * Turns of the event loop without a stir after which everything counts as done. Higher sees through longer chains of
   * `setImmediate` in code without fibers. @default 4
   */
  readonly quietTurns?: number
  /** Whether work that the clock can't see is done too. @default always */
  readonly isQuiet?: () => boolean
}

/** 2026-01-01T00:00:00Z. */
export const startMillisDefault = Date.UTC(2026, 0, 1)

/** Turns of the event loop at one instant after which a program is taken for a loop that never lets time pass. */
const turnsMax = 1_000_000

/** Simulated time, and the means to move it. It is a `Clock`, to be given to whoever takes one. */
export class VirtualClock extends Context.Tag("@topgun/testing/VirtualClock")<
  VirtualClock,
  Clock.Clock & {
    /** Lets time pass: everything that falls due meanwhile has run when this ends. */
    readonly advance: (duration: Duration.DurationInput) => Effect.Effect<void>
    /**
     * Lets time pass until `condition` holds and answers how long that took, in ms. Dies when it doesn't hold `within` that
     * time (default: 1 hour) or when nobody sleeps any more.
     */
    readonly runUntil: (
      condition: () => boolean,
      options?: { readonly within?: Duration.DurationInput }
    ) => Effect.Effect<number>
    /** Runs everything that is ready, without letting time pass. */
    readonly settle: Effect.Effect<void>
    /**
     * Sets the wall clock forward or, with negative ms, back, as a user or NTP does: what it shows jumps, and nobody wakes
     * earlier or later for it.
     */
    readonly unsafeStep: (millis: number) => void
    /** How many sleep. */
    readonly sleepers: () => number
    /** Runs this clock's fibers. Without it a fiber's steps are not seen as a stir. */
    readonly scheduler: Scheduler.Scheduler
  }
>() {}

interface Sleeper {
  readonly deadline: number
  readonly order: number
  /** Undefined when woken or interrupted. */
  wake: (() => void) | undefined
}

const isBefore = (a: Sleeper, b: Sleeper): boolean =>
  a.deadline !== b.deadline ? a.deadline < b.deadline : a.order < b.order

/** A binary heap of sleepers, the next to wake at its top. The interrupted are passed over, and swept when they are many. */
class Sleepers {
  #heap: Array<Sleeper> = []
  #interrupted = 0

  get size(): number {
    return this.#heap.length - this.#interrupted
  }

  add(sleeper: Sleeper): void {
    this.#heap.push(sleeper)
    let at = this.#heap.length - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!isBefore(sleeper, this.#heap[parent]!)) break
      this.#heap[at] = this.#heap[parent]!
      at = parent
    }
    this.#heap[at] = sleeper
  }

  interrupt(sleeper: Sleeper): void {
    if (sleeper.wake === undefined) return
    sleeper.wake = undefined
    this.#interrupted++
    if (this.#interrupted < 1024 || this.#interrupted * 2 < this.#heap.length) return
    const awake = this.#heap.filter((each) => each.wake !== undefined)
    this.#heap = []
    this.#interrupted = 0
    for (const each of awake) this.add(each)
  }

  next(): Sleeper | undefined {
    for (;;) {
      const top = this.#heap[0]
      if (top === undefined || top.wake !== undefined) return top
      this.#removeTop()
      this.#interrupted--
    }
  }

  /** Wakes the next one. */
  wakeNext(): void {
    const top = this.next()
    if (top === undefined) return
    this.#removeTop()
    const { wake } = top
    top.wake = undefined
    wake?.()
  }

  #removeTop(): void {
    const last = this.#heap.pop()!
    if (this.#heap.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= this.#heap.length) break
      if (child + 1 < this.#heap.length && isBefore(this.#heap[child + 1]!, this.#heap[child]!)) child++
      if (!isBefore(this.#heap[child]!, last)) break
      this.#heap[at] = this.#heap[child]!
      at = child
    }
    this.#heap[at] = last
  }
}

// tidy-allow timer: it lets the event loop turn, in no time; simulated time is made of such turns.
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** A clock that stands still. Give it to a program with {@link layerOf}, or to whoever takes a `Clock`. */
export const make = (options: Options = {}): Context.Tag.Service<VirtualClock> => {
  const quietTurns = options.quietTurns ?? 4
  const isQuiet = options.isQuiet ?? (() => true)
  const sleepers = new Sleepers()
  /** Time that has passed, in ms; what sleepers go by. */
  let elapsed = 0
  const startMillis = options.startMillis ?? startMillisDefault
  let wallOffset = startMillis
  let order = 0
  /** Counts whatever the clock sees happen. */
  let stirs = 0
  let scheduled = 0
  let driven = false

  const fibers = new Scheduler.MixedScheduler(2048)
  const scheduler: Scheduler.Scheduler = {
    shouldYield: (fiber) => fibers.shouldYield(fiber),
    scheduleTask: (task, priority, fiber) => {
      stirs++
      scheduled++
      fibers.scheduleTask(
        () => {
          scheduled--
          task()
        },
        priority,
        fiber
      )
    }
  }

  const unsafeCurrentTimeMillis = () => wallOffset + elapsed
  // As Effect's own: from the beginning on it is the machine's monotonic clock, which nobody sets.
  const unsafeCurrentTimeNanos = () => BigInt(startMillis + elapsed) * 1_000_000n

  const sleep = (duration: Duration.Duration): Effect.Effect<void> =>
    Effect.async<void>((resume) => {
      stirs++
      const millis = Math.ceil(Duration.toMillis(duration))
      const sleeper: Sleeper = {
        deadline: elapsed + Math.max(0, millis),
        order: order++,
        wake: () => resume(Effect.void)
      }
      sleepers.add(sleeper)
      return Effect.sync(() => {
        stirs++
        sleepers.interrupt(sleeper)
      })
    })

  const settle = async (signal: AbortSignal): Promise<void> => {
    let quiet = 0
    for (let turns = 0; !signal.aborted; turns++) {
      if (turns === turnsMax) throw new Error(`something never comes to rest at ${unsafeCurrentTimeMillis()} ms`)
      const seen = stirs
      await turn()
      if (seen !== stirs || scheduled > 0 || !isQuiet()) {
        quiet = 0
      } else if (++quiet >= quietTurns) {
        const next = sleepers.next()
        if (next === undefined || next.deadline > elapsed) return
        sleepers.wakeNext()
        quiet = 0
      }
    }
  }

  /** Moves on to the next deadline at or before `until`; false when there is none. */
  const step = (until: number): boolean => {
    const next = sleepers.next()
    if (next === undefined || next.deadline > until) return false
    elapsed = Math.max(elapsed, next.deadline)
    return true
  }

  /** One at a time may drive: two would move time under each other's feet. */
  const drive = <A>(run: (signal: AbortSignal) => Promise<A>): Effect.Effect<A> =>
    Effect.acquireUseRelease(
      Effect.suspend(() => {
        if (driven) return Effect.dieMessage("the virtual clock is being moved by another fiber already")
        driven = true
        return Effect.void
      }),
      () => Effect.promise(run),
      () =>
        Effect.sync(() => {
          driven = false
        })
    )

  return VirtualClock.of({
    [Clock.ClockTypeId]: Clock.ClockTypeId,
    unsafeCurrentTimeMillis,
    currentTimeMillis: Effect.sync(unsafeCurrentTimeMillis),
    unsafeCurrentTimeNanos,
    currentTimeNanos: Effect.sync(unsafeCurrentTimeNanos),
    sleep,
    scheduler,
    sleepers: () => sleepers.size,
    unsafeStep: (millis) => {
      wallOffset += Math.trunc(millis)
    },
    settle: drive(settle),
    advance: (duration) =>
      drive(async (signal) => {
        const until = elapsed + Math.ceil(Duration.toMillis(duration))
        await settle(signal)
        while (!signal.aborted && step(until)) await settle(signal)
        elapsed = Math.max(elapsed, until)
      }),
    runUntil: (condition, runOptions) =>
      drive(async (signal) => {
        const within = Duration.decode(runOptions?.within ?? "1 hour")
        const from = elapsed
        const until = from + Duration.toMillis(within)
        await settle(signal)
        while (!signal.aborted && !condition()) {
          if (!step(until)) {
            const why = sleepers.size === 0 ? "nobody sleeps any more" : `not within ${Duration.format(within)}`
            throw new Error(`the condition doesn't come to hold: ${why}`)
          }
          await settle(signal)
        }
        return elapsed - from
      })
  })
}

/** Puts a program under a clock: its `Clock`, its fibers' scheduler, and the means to move time. */
export const layerOf = (clock: Context.Tag.Service<VirtualClock>): Layer.Layer<VirtualClock> =>
  Layer.mergeAll(Layer.succeed(VirtualClock, clock), Layer.setClock(clock), Layer.setScheduler(clock.scheduler))

/** {@link layerOf} a new clock. */
export const layer = (options: Options = {}): Layer.Layer<VirtualClock> => Layer.suspend(() => layerOf(make(options)))
