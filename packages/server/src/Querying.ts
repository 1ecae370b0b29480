/**
 * The live queries of one session. Their rows go out one query at a time, as far as there is room for them, and then what changes of
 * them: while the client leaves much unread it isn't told of changes, and afterwards gets all rows of those queries anew. So nothing
 * piles up for it, however slowly it reads and however much is written.
 */
import * as GridError from "@topgun/core/GridError"
import type * as Protocol from "@topgun/core/Protocol"
import * as Predicate from "@topgun/core/Predicate"
import * as Query from "@topgun/core/Query"
import * as Value from "@topgun/core/Value"
import type { Access } from "./Access.ts"
import { type Asked, isQueryFault, type Queries } from "./Queries.ts"

/** What a session's queries ask of it. */
export interface Host {
  readonly send: (message: Protocol.ServerMessage) => void
  /** Sends an answer that is encoded. */
  readonly put: (page: Uint8Array) => void
  /** Sends an event, unless the client is behind: then the answer is false. */
  readonly offer: (page: Uint8Array) => boolean
  /** So much work is done beside what its messages are counted for: see `Turns`. */
  readonly spend: (work: number) => void
  readonly hasRoom: () => boolean
  readonly whenCaughtUp: (goOn: () => void) => void
  /** A request failed, the connection goes on. */
  readonly refuse: (id: number, fault: { readonly _tag: string; readonly message: string }) => void
  readonly access: (map: string) => Access
  readonly guard: (serve: () => void) => void
}

/** A query, by all ids under which the client asks it. */
interface Following {
  readonly map: string
  readonly query: Query.Query
  readonly viewKey: string
  readonly ids: Set<number>
  readonly asked: Asked
  /** `waits` until all its rows are sent, which is then done in its turn; `follows` when it is told of changes. */
  state: "waits" | "follows"
  /** What has changed while its rows are being sent. */
  late: Array<Uint8Array>
}

/** The rows of a query that are on their way, and which page of them is next. */
interface Sending {
  readonly following: Following
  readonly pages: ReadonlyArray<Uint8Array>
  at: number
}

/** What may change of a query while its rows are on their way, in bytes: with more, they are sent anew. */
const lateBytesMax = 256 * 1024
/** What it takes to make the most regular expressions ready that one predicate may have, as work of `Turns`: some 10 ms. */
const patternsWork = 2_000
/** What a connection's queries may add to each write together, in ns: some thousand plain conditions. */
const nanosPerWriteMax = 200_000

/** See the head of this file. */
export class Querying {
  readonly #host: Host
  readonly #queries: Queries["Type"]
  readonly #queriesMax: number
  readonly #byId = new Map<number, Following>()
  readonly #byNumber = new Map<number, Following>()
  /** Those whose rows are to be sent, in turn. */
  readonly #line = new Set<Following>()
  #sending: Sending | undefined
  /** What its queries add to a write that none of them is about. */
  #nanosPerWrite = 0
  #isWaiting = false
  #isOver = false

  constructor(host: Host, queries: Queries["Type"], queriesMax: number) {
    this.#host = host
    this.#queries = queries
    this.#queriesMax = queriesMax
  }

  /** Asks a query. @throws MalformedMessage where it isn't the bytes of a value */
  open({ id, map, query: bytes }: typeof Protocol.QueryOpen.Type): void {
    const given = Value.decode(bytes)
    this.close(id)
    if (this.#byId.size >= this.#queriesMax) {
      return this.#host.refuse(id, new GridError.Overloaded({ what: "this connection asks as many queries as it may" }))
    }
    let query: Query.Query
    try {
      query = Query.parse(given)
    } catch (fault) {
      if (!(fault instanceof GridError.QueryInvalid || fault instanceof GridError.QueryTooExpensive)) throw fault
      return this.#host.refuse(id, fault)
    }
    if (query.where !== undefined && Predicate.hasPatterns(query.where)) this.#host.spend(patternsWork)
    this.#ask(id, map, query)
  }

  /** A query isn't asked any more. */
  close(id: number): void {
    const following = this.#byId.get(id)
    if (following === undefined) return
    this.#byId.delete(id)
    following.ids.delete(id)
    if (following.ids.size === 0) this.#drop(following)
  }

  /** Something else may be read than before: what is shown otherwise is asked anew. */
  judgeAnew(): void {
    for (const following of Array.from(this.#byNumber.values())) {
      const { ids, map, query, viewKey } = following
      if (this.#queries.viewKey(this.#host.access(map)) === viewKey) continue
      this.#drop(following)
      for (const id of ids) {
        this.#byId.delete(id)
        this.#ask(id, map, query)
      }
    }
  }

  /** The session has ended. */
  end(): void {
    this.#isOver = true
    for (const { asked } of this.#byNumber.values()) asked.close()
    this.#byNumber.clear()
    this.#byId.clear()
    this.#line.clear()
    this.#sending = undefined
  }

  #ask(id: number, map: string, query: Query.Query): void {
    const access = this.#host.access(map)
    let asked: Asked
    const hear = (told: (following: Following) => void): void =>
      this.#host.guard(() => {
        const following = this.#byNumber.get(asked.number)
        if (following !== undefined) told(following)
      })
    try {
      asked = this.#queries.ask(map, access, query, {
        onVersion: (changes) => hear((following) => this.#tell(following, changes)),
        onEnd: (fault) => hear((following) => this.#end(following, fault))
      })
    } catch (fault) {
      if (!isQueryFault(fault)) throw fault
      return this.#host.refuse(id, fault)
    }
    const known = this.#byNumber.get(asked.number)
    if (known !== undefined) asked.close()
    else if (this.#nanosPerWrite + asked.nanosPerWrite > nanosPerWriteMax) {
      asked.close()
      return this.#host.refuse(
        id,
        new GridError.QueryTooExpensive({
          path: "$.where",
          reason: "with this connection's other queries it would keep up every write: " +
            "ask for records of which a field is equal to something, which are found by that"
        })
      )
    }
    const following = known ??
      { map, query, viewKey: this.#queries.viewKey(access), ids: new Set(), asked, state: "waits", late: [] }
    if (known === undefined) this.#nanosPerWrite += asked.nanosPerWrite
    following.ids.add(id)
    this.#byId.set(id, following)
    this.#byNumber.set(asked.number, following)
    this.#host.send({ _tag: "QueryAck", id, query: asked.number })
    this.#sendAll(following)
  }

  #drop(following: Following): void {
    following.asked.close()
    this.#nanosPerWrite -= following.asked.nanosPerWrite
    this.#byNumber.delete(following.asked.number)
    this.#line.delete(following)
    if (this.#sending?.following !== following) return
    this.#sending = undefined
    this.#pump()
  }

  #end(following: Following, fault: unknown): void {
    this.#drop(following)
    if (!isQueryFault(fault)) throw fault
    for (const id of following.ids) {
      this.#byId.delete(id)
      this.#host.refuse(id, fault)
    }
  }

  #tell(following: Following, changes: ReadonlyArray<Uint8Array> | undefined): void {
    if (changes === undefined || following.state === "waits") {
      if (this.#sending?.following !== following) return this.#sendAll(following)
      following.late.push(...changes ?? [])
      if (following.late.reduce((bytes, page) => bytes + page.length, 0) > lateBytesMax) this.#sendAll(following)
      return
    }
    // Of a version all is told or nothing: what was told of one that is cut short is told again.
    if (!changes.every((page) => this.#host.offer(page))) this.#sendAll(following, "later")
  }

  /** All rows of a query are to be sent, from the first on. */
  #sendAll(following: Following, when: "now" | "later" = "now"): void {
    following.state = "waits"
    following.late = []
    if (this.#sending?.following === following) this.#sending = undefined
    this.#line.add(following)
    if (when === "now") this.#pump()
    else this.#sendLater()
  }

  /** Sends rows, as far as there is room. */
  #pump(): void {
    if (!this.#isWaiting && !this.#isOver) this.#send()
  }

  #send(): void {
    for (let next = this.#next(); this.#sending !== undefined || next !== undefined; next = this.#next()) {
      if (!this.#host.hasRoom()) return this.#sendLater()
      const sending = this.#sending ??= this.#begin(next!)
      const { following, pages } = sending
      if (sending.at < pages.length) this.#host.put(pages[sending.at++]!)
      else if (following.late.length > 0) this.#host.put(following.late.shift()!)
      else {
        following.state = "follows"
        this.#sending = undefined
      }
    }
  }

  /** Goes on when the client has read what waits for it. */
  #sendLater(): void {
    if (this.#isWaiting) return
    this.#isWaiting = true
    this.#host.whenCaughtUp(() => {
      this.#isWaiting = false
      this.#host.guard(() => this.#pump())
    })
  }

  /** The first in line that has rows. */
  #next(): Following | undefined {
    for (const following of this.#line) if (following.asked.isReady()) return following
    return undefined
  }

  #begin(following: Following): Sending {
    this.#line.delete(following)
    following.late = []
    return { following, pages: following.asked.snapshot(), at: 0 }
  }
}
