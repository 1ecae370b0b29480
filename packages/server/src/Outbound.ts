/**
 * What goes out to one client. It is gathered, and leaves once a microtask in frames within the limit; and however slowly the
 * client reads, no more than `outboundBytesMax` wait for it:
 *
 * - Events take a quarter of that. While a client is behind, a map of which there is news is left out from there on; when it has
 *   read what waits for it, it is told once to open the map again, which brings what was left out.
 * - Answers take half, and so find room in spite of events. Who has asked for them isn't read meanwhile, so that he comes to a halt.
 * - A client that doesn't read for `drainMillisMax`, or lets more pile up, is cut off.
 */
import * as Protocol from "@topgun/core/Protocol"
import type { ServerConnection } from "@topgun/core/Transport"
import type { WriteConcern } from "@topgun/core/WriteConcern"

/** What a client's outbound side asks of its session. */
export interface Host {
  readonly connection: ServerConnection
  /** Whether something may be sent now; false when the session has ended, or ends in being asked. */
  readonly maySend: () => boolean
  /** The client doesn't read. */
  readonly onStuck: () => void
  /** Its events were left out, and it is told to open a map again. */
  readonly onGap: () => void
  /** Goes on later, unless the session ends before; answers what calls that off. */
  readonly after: (millis: number, goOn: () => void) => () => void
}

/** Operations that one `OpAck` gathers before it is made. What is not made yet isn't counted among what waits to be read. */
const acknowledgedMax = 500

/** What the outbound sides of a server's sessions have in common. */
export interface Shared {
  /** What a client asks for may wait up to here. */
  readonly repliesBytesMax: number
  /** Events may wait up to here. */
  readonly eventsBytesMax: number
  /** A client has caught up when so much is left. */
  readonly caughtUpBytes: number
  /** Events of one tick that come to more leave before the others: what the medium takes doesn't pile up. */
  readonly eventFrameBytes: number
  readonly bytesMax: number
  readonly drainMillisMax: number
  /** Flushes at the end of the microtask: in one for all, as one for each of a map's followers costs as much as telling them. */
  readonly flushSoon: (outbound: Outbound) => void
}

/** What the outbound sides of a server's sessions have in common, by its settings. */
export const share = (
  { drainMillisMax, outboundBytesMax }: { readonly drainMillisMax: number; readonly outboundBytesMax: number }
): Shared => {
  let due: Array<Outbound> = []
  const flushDue = (): void => {
    const flushed = due
    due = []
    for (const outbound of flushed) outbound.flush()
  }
  return {
    repliesBytesMax: outboundBytesMax / 2,
    eventsBytesMax: outboundBytesMax / 4,
    caughtUpBytes: outboundBytesMax / 8,
    eventFrameBytes: outboundBytesMax / 16,
    bytesMax: outboundBytesMax,
    drainMillisMax,
    flushSoon: (outbound) => {
      if (due.push(outbound) === 1) queueMicrotask(flushDue)
    }
  }
}

/** See the head of this file. */
export class Outbound {
  readonly #host: Host
  readonly #shared: Shared
  #messages: Array<Uint8Array> = []
  #bytes = 0
  #isDue = false
  #acknowledged: Array<number> = []
  #acknowledgedLevel: WriteConcern = "APPLIED"
  #durable = -1
  /** Maps whose events are left out until the client opens them again, and whether it has been told to. */
  readonly #gaps = new Map<string, "untold" | "told">()
  #catchingUp = false

  constructor(host: Host, shared: Shared) {
    this.#host = host
    this.#shared = shared
  }

  /** Bytes on their way to the client. */
  get bytes(): number {
    return this.#bytes + this.#host.connection.bufferedBytes()
  }

  /** Whether the client hasn't been told of something that it follows. */
  get hasGaps(): boolean {
    return this.#gaps.size > 0
  }

  /** Whether there is room for what the client asks for. */
  get hasRoom(): boolean {
    return this.bytes <= this.#shared.repliesBytesMax
  }

  /** Goes on when there is room for what the client asks for. */
  whenRoom(goOn: () => void): void {
    // What the medium takes at once is gone after the flush; only a slow reader is waited for.
    queueMicrotask(() => queueMicrotask(() => this.#whenRead(this.#shared.repliesBytesMax, goOn)))
  }

  /** Sends a message. */
  put(message: Uint8Array): void {
    // What was reached before is told before.
    if (this.#acknowledged.length > 0) this.#putAcknowledged()
    this.#messages.push(message)
    this.#bytes += message.length
    this.#flushSoon()
  }

  /** Sends an event of a map, unless the client is behind. */
  push(event: Uint8Array, map: string): void {
    if (this.#gaps.has(map) || this.offer(event)) return
    this.#gaps.set(map, "untold")
    this.#flushSoon()
  }

  /** Sends an event, unless the client is behind: then it isn't sent, and the answer is false. */
  offer(event: Uint8Array): boolean {
    // Only what the medium doesn't take at once counts: one batch of others may be larger than the room.
    if (this.#bytes > this.#shared.eventFrameBytes) this.flush()
    if (this.#host.connection.bufferedBytes() > this.#shared.eventsBytesMax) return false
    this.put(event)
    return true
  }

  /** Goes on when the client has read most of what waits for it, so that it can be told of events again. */
  whenCaughtUp(goOn: () => void): void {
    this.flush()
    this.#whenRead(this.#shared.caughtUpBytes, goOn)
  }

  /** The client opens a map, or isn't told of it any more: nothing of it is left out. */
  closeGap(map: string): void {
    this.#gaps.delete(map)
  }

  /** Tells of operations that have reached a level, with what goes out next. */
  acknowledge(level: WriteConcern, sequences: ReadonlyArray<number>): void {
    if (level !== this.#acknowledgedLevel || this.#acknowledged.length >= acknowledgedMax) this.#putAcknowledged()
    this.#acknowledgedLevel = level
    for (const sequence of sequences) this.#acknowledged.push(sequence)
    this.#flushSoon()
  }

  /** Tells, last of all, up to where operations are durable. */
  durable(sequence: number): void {
    this.#durable = sequence
    this.#flushSoon()
  }

  /** Sends what was gathered, where something may be sent. */
  flush(): void {
    this.#isDue = false
    if (this.#host.maySend()) this.send()
  }

  /** Sends what was gathered. */
  send(): void {
    const { connection } = this.#host
    if (connection.bufferedBytes() > this.#shared.bytesMax) return this.#host.onStuck()
    this.#putAcknowledged()
    if (this.#durable >= 0) {
      this.#messages.push(Protocol.encode({ _tag: "Durable", sequence: this.#durable }))
      this.#durable = -1
    }
    const messages = this.#messages
    this.#messages = []
    this.#bytes = 0
    for (const frame of Protocol.frames(messages)) connection.send(frame)
    this.#catchUp()
  }

  /** What was gathered isn't sent. */
  clear(): void {
    this.#messages = []
    this.#bytes = 0
    this.#acknowledged = []
    this.#durable = -1
  }

  #flushSoon(): void {
    if (this.#isDue) return
    this.#isDue = true
    this.#shared.flushSoon(this)
  }

  #putAcknowledged(): void {
    const sequences = this.#acknowledged
    if (sequences.length === 0) return
    this.#acknowledged = []
    this.put(Protocol.encode({ _tag: "OpAck", level: this.#acknowledgedLevel, replicas: 0, sequences }))
  }

  /** As soon as the client has read what waits for it, it is told of its gaps: as many as there is room for at a time. */
  #catchUp(): void {
    if (this.#catchingUp || !this.#hasUntold()) return
    this.#catchingUp = true
    this.#whenRead(this.#shared.caughtUpBytes, () => {
      this.#catchingUp = false
      for (const [map, state] of this.#gaps) {
        if (this.#bytes > this.#shared.eventFrameBytes) break
        if (state === "told") continue
        this.#gaps.set(map, "told")
        this.#host.onGap()
        this.put(Protocol.encode({ _tag: "SyncAgain", map }))
      }
    })
  }

  #hasUntold(): boolean {
    for (const state of this.#gaps.values()) if (state === "untold") return true
    return false
  }

  /** Goes on when at most so much waits for the client, which is cut off if that takes too long. */
  #whenRead(bytesMax: number, goOn: () => void): void {
    if (!this.#host.maySend()) return
    const callOff = this.#host.after(this.#shared.drainMillisMax, this.#host.onStuck)
    this.#host.connection.whenDrained(bytesMax, () => {
      callOff()
      if (this.#host.maySend()) goOn()
    })
  }
}
