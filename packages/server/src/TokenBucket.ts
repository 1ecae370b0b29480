/** What may happen so often on average, and so much at once. */
export interface Rate {
  readonly perSecond: number
  /** What a bucket holds that nothing was taken from for long. */
  readonly burst: number
}

/**
 * A token bucket: it fills at a rate, and what happens takes from it. Pure: the time, in ms, is an argument, and one that goes
 * back takes nothing away and gives nothing.
 *
 * Who finds anything in it may take more than that: the rest is a debt, which is waited for by whoever comes next. So what is
 * whole needn't be parted, and a burst needn't hold the largest of it.
 *
 * @see Turner, New directions in communications, 1986 (the leaky bucket), of which this is the form in use with ATM and RFC 2697
 */
export class TokenBucket {
  readonly #rate: Rate
  #level: number
  #at: number

  constructor(rate: Rate, now: number) {
    this.#rate = rate
    this.#level = rate.burst
    this.#at = now
  }

  /** How long until there is a whole token, in ms, rounded up; 0 when there is one. */
  waitMillis(now: number): number {
    this.#fill(now)
    return this.#level >= 1 ? 0 : Math.ceil((1 - this.#level) * 1_000 / this.#rate.perSecond)
  }

  /** Takes so many, into debt where there are fewer. */
  take(count: number, now: number): void {
    this.#fill(now)
    this.#level -= count
  }

  #fill(now: number): void {
    if (now > this.#at) {
      this.#level = Math.min(this.#rate.burst, this.#level + (now - this.#at) * this.#rate.perSecond / 1_000)
    }
    this.#at = now
  }
}
