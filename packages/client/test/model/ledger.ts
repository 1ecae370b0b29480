/** What servers were given, and what they said of it, as it passed over the wire: the witness of a run. */
import * as Cell from "@topgun/core/Cell"
import * as PnCounter from "@topgun/core/PnCounter"
import * as Protocol from "@topgun/core/Protocol"
import * as Timestamp from "@topgun/core/Timestamp"
import type { ServerConnection } from "@topgun/core/Transport"
import * as Value from "@topgun/core/Value"
import type { Digits, Taken } from "./reference.ts"

/** A record that a server was given. */
export interface Given extends Taken {
  /** Tells it from every other. */
  readonly id: string
  readonly map: string
  readonly key: string
  /** The writes that it says something of: several, where it is a counter's. */
  readonly labels: ReadonlyArray<string>
  /** It takes something out of a set. */
  readonly isRemoval: boolean
}

const noLabels: ReadonlyArray<string> = []

/** A record, read. */
const read = (kind: Cell.MapKind, map: string, key: string, row: Uint8Array, digits: Digits): Given => {
  const record = Cell.decodeInPlace(kind, map, key, row)
  const cell = Cell.cellOf(kind, key, record)
  const id = JSON.stringify([map, cell, Buffer.from(row).toString("hex")])
  if (kind === "counter") {
    const { decrements, increments } = PnCounter.fromTrusted(row)
    const labels = Array.from(digits.read(increments - decrements) ?? [])
    return { id, map, key, labels, label: undefined, stamp: "", isRemoval: false }
  }
  const stamp = Timestamp.format(record.stamp)
  const label = record.isTombstone ? undefined : String(Value.decode(record.valueBytes))
  const labels = label === undefined ? noLabels : [label]
  return { id, map, key, labels, label, stamp, isRemoval: record.isTombstone }
}

export class Ledger {
  readonly #digits: Digits
  /** By id: the server that took it last. */
  readonly #takenBy = new Map<string, number>()
  readonly #taken = new Map<string, Array<Given>>()
  readonly #received = new Set<string>()
  readonly #has = new Set<string>()
  readonly #stamps = new Map<string, Set<string>>()
  /** Servers so far. */
  #server = 0
  /** How often something happened that is rare. */
  readonly seen = { resentThoughTaken: 0, takenAgainByAnother: 0, restamped: 0 }

  constructor(digits: Digits) {
    this.#digits = digits
  }

  /** A server begins that has nothing of what the ones before had only in memory. */
  nextServer(): void {
    this.#server++
  }

  /** Records of a key that a server has acknowledged. */
  taken(map: string, key: string): ReadonlyArray<Given> {
    return this.#taken.get(JSON.stringify([map, key])) ?? []
  }

  /** Whether a server has acknowledged a record of that write. */
  has(label: string): boolean {
    return this.#has.has(label)
  }

  /** Whether a server was sent one. */
  wasSent(label: string): boolean {
    return this.#received.has(label)
  }

  /** Whether a server has acknowledged a record with that stamp. */
  hasStamp(map: string, key: string, stamp: string): boolean {
    return this.taken(map, key).some((given) => given.stamp === stamp)
  }

  /** Whether a server has acknowledged the removal of that label from a set. */
  hasRemoval(map: string, key: string, label: string): boolean {
    const stamps = this.#stamps.get(label) ?? new Set()
    return this.taken(map, key).some((given) => given.isRemoval && stamps.has(given.stamp))
  }

  /** The stamps that a label was sent under. */
  stampsOf(label: string): ReadonlySet<string> {
    return this.#stamps.get(label) ?? new Set()
  }

  /** A record that is somewhere else. */
  read(kind: Cell.MapKind, map: string, key: string, row: Uint8Array): Given {
    return read(kind, map, key, row, this.#digits)
  }

  /** A server's end of a connection that is listened to. */
  tap(connection: ServerConnection): ServerConnection {
    const sent = new Map<number, Given>()
    return {
      ...connection,
      listen: (onFrame, onClose) =>
        connection.listen((frame) => {
          for (const message of Protocol.decodeFromClient(frame.slice())) {
            if (message._tag === "OpBatch") this.#receive(message, sent)
          }
          onFrame(frame)
        }, onClose),
      send: (frame) => {
        for (const message of Protocol.decodeFromServer(frame.slice())) {
          if (message._tag !== "OpAck") continue
          for (const sequence of message.sequences) {
            const given = sent.get(sequence)
            if (given !== undefined) this.#take(given)
          }
        }
        connection.send(frame)
      }
    }
  }

  #receive({ kind, map, ops }: typeof Protocol.OpBatch.Type, sent: Map<number, Given>): void {
    for (const [sequence, key, row] of ops) {
      const given = read(kind, map, key, row, this.#digits)
      sent.set(sequence, given)
      const before = this.#takenBy.get(given.id)
      if (before === this.#server) this.seen.resentThoughTaken++
      else if (before !== undefined) this.seen.takenAgainByAnother++
      for (const label of given.labels) {
        this.#received.add(label)
        if (kind === "counter") continue
        const stamps = this.#stamps.get(label) ?? new Set()
        stamps.add(given.stamp)
        if (stamps.size === 2) this.seen.restamped++
        this.#stamps.set(label, stamps)
      }
    }
  }

  #take(given: Given): void {
    const isNew = !this.#takenBy.has(given.id)
    this.#takenBy.set(given.id, this.#server)
    if (!isNew) return
    for (const label of given.labels) this.#has.add(label)
    const name = JSON.stringify([given.map, given.key])
    const ofKey = this.#taken.get(name)
    if (ofKey === undefined) this.#taken.set(name, [given])
    else ofKey.push(given)
  }
}
