/**
 * Who is let in, and how much each may do: connections by address and by user, those that haven't said yet who they are, and
 * operations.
 *
 * What is counted is counted in two tables, of addresses and of users. An entry stays for as long as it has connections; beyond
 * these, whose number is bounded, each table remembers those that were there last, so that nobody gets rid of his debts by
 * connecting again, and nothing grows by the number of those who have ever come.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Overloaded } from "@topgun/core/GridError"
import { ServerConfig } from "./ServerConfig.ts"
import { type Rate, TokenBucket } from "./TokenBucket.ts"

/** Why a connection isn't let in, in the terms of HTTP. */
export interface Refusal {
  /** 429 where it is for what its address does, 503 where it is for what all do. */
  readonly status: 429 | 503
  readonly retryAfterSeconds: number
  readonly reason: string
}

/** What a connection that is let in takes up. */
export interface Seat {
  /** It is this user's from here on, or an anonymous one's. Answers why it can't be. */
  readonly authenticated: (userId: string | undefined) => Overloaded | undefined
  /** It showed what isn't a token. */
  readonly authenticationFailed: () => void
  /** How long operations have to wait, in ms. */
  readonly waitMillis: () => number
  /** So many operations are carried out. */
  readonly spend: (operations: number) => void
  /** The connection has ended. */
  readonly leave: () => void
}

/** Who is let in. Plain calls: they run once a connection, or once a batch. */
export class Admission extends Context.Tag("@topgun/server/Admission")<Admission, {
  /** Somebody at this address (a place of `ClientAddress`) wants a connection. Answers why there is none for him now. */
  readonly knock: (address: string) => Refusal | undefined
  /** He has it. What comes from within the process has no address, and is bounded by its user only. */
  readonly enter: (address: string | undefined) => Seat
  /** How many addresses and users are remembered. */
  readonly remembered: () => { readonly addresses: number; readonly users: number }
}>() {}

/** Addresses, and users, that are remembered without having a connection. Each costs some 500 bytes. */
export const rememberedMax = 10_000

/** Connections of one address at once: what it may open in so many seconds. */
const connectBurstSeconds = 4
/** When to come again where a connection has to end first. */
const retryAfterSeconds = 5

interface Holdings {
  connections: number
}

/** Entries that are made when they are asked for, and forgotten when nobody has held them for long. */
class Ledger<Entry extends Holdings> {
  readonly #make: () => Entry
  readonly #held = new Map<string, Entry>()
  /** In the order of their last use. */
  readonly #idle = new Map<string, Entry>()

  constructor(make: () => Entry) {
    this.#make = make
  }

  get size(): number {
    return this.#held.size + this.#idle.size
  }

  entry(key: string): Entry {
    const held = this.#held.get(key)
    if (held !== undefined) return held
    const entry = this.#idle.get(key) ?? this.#make()
    this.#rest(key, entry)
    return entry
  }

  hold(key: string): Entry {
    const entry = this.entry(key)
    this.#idle.delete(key)
    this.#held.set(key, entry)
    entry.connections++
    return entry
  }

  release(key: string): void {
    const entry = this.#held.get(key)
    if (entry === undefined || --entry.connections > 0) return
    this.#held.delete(key)
    this.#rest(key, entry)
  }

  #rest(key: string, entry: Entry): void {
    this.#idle.delete(key)
    this.#idle.set(key, entry)
    if (this.#idle.size <= rememberedMax) return
    for (const oldest of this.#idle.keys()) {
      this.#idle.delete(oldest)
      return
    }
  }
}

export const layer: Layer.Layer<Admission, never, ServerConfig> = Layer.effect(
  Admission,
  Effect.gen(function*() {
    const settings = yield* ServerConfig
    const clock = yield* Effect.clock
    const now = () => clock.unsafeCurrentTimeMillis()

    const operations: Rate = { perSecond: settings.operationsPerSecond, burst: settings.operationsBurst }
    const connects: Rate = {
      perSecond: settings.connectsPerSecond,
      burst: settings.connectsPerSecond * connectBurstSeconds
    }
    const failures: Rate = { perSecond: settings.failedAuthsPerMinute / 60, burst: settings.failedAuthsPerMinute }

    const addresses = new Ledger(() => ({
      connections: 0,
      strangers: 0,
      connects: new TokenBucket(connects, now()),
      failures: new TokenBucket(failures, now()),
      operations: new TokenBucket(operations, now())
    }))
    const users = new Ledger(() => ({ connections: 0, operations: new TokenBucket(operations, now()) }))
    let strangers = 0

    const refusal = (status: 429 | 503, reason: string, millis = retryAfterSeconds * 1_000): Refusal => ({
      status,
      retryAfterSeconds: Math.ceil(millis / 1_000),
      reason
    })

    return Admission.of({
      knock: (address) => {
        const place = addresses.entry(address)
        const failed = place.failures.waitMillis(now())
        if (failed > 0) return refusal(429, "too many tokens of this address were refused", failed)
        const early = place.connects.waitMillis(now())
        if (early > 0) return refusal(429, "this address connects too often", early)
        place.connects.take(1, now())
        if (place.connections >= settings.connectionsPerAddressMax) {
          return refusal(429, "this address has as many connections as it may")
        }
        if (place.strangers >= settings.unauthenticatedPerAddressMax) {
          return refusal(429, "this address has as many connections as it may that aren't authenticated")
        }
        if (strangers >= settings.unauthenticatedMax) {
          return refusal(503, "the server has as many connections as it may that aren't authenticated")
        }
        return undefined
      },
      enter: (address) => {
        const place = address === undefined ? undefined : addresses.hold(address)
        let budget = place?.operations
        let isStranger = true
        let user: string | undefined
        let left = false
        const count = (change: 1 | -1): void => {
          strangers += change
          if (place !== undefined) place.strangers += change
        }
        const known = (): void => {
          if (!isStranger) return
          isStranger = false
          count(-1)
        }
        count(1)
        return {
          authenticated: (userId) => {
            known()
            if (userId === undefined) return undefined
            if (users.entry(userId).connections >= settings.connectionsPerUserMax) {
              return new Overloaded({
                what: `this user has as many connections as a user may (${settings.connectionsPerUserMax})`
              })
            }
            user = userId
            budget = users.hold(userId).operations
            return undefined
          },
          authenticationFailed: () => place?.failures.take(1, now()),
          waitMillis: () => budget?.waitMillis(now()) ?? 0,
          spend: (spent) => budget?.take(spent, now()),
          leave: () => {
            if (left) return
            left = true
            known()
            if (address !== undefined) addresses.release(address)
            if (user !== undefined) users.release(user)
          }
        }
      },
      remembered: () => ({ addresses: addresses.size, users: users.size })
    })
  })
)
