/**
 * The contestants of `gateway.mjs` as a load process sees them: frames made beforehand, and so much reading of what comes
 * as tells how much has come. What is measured is their servers, so nothing here keeps data. `share` of the operations
 * that others are measured with is what a slow one is.
 */
import * as LwwRecord from "@topgun/core/LwwRecord"
import * as Protocol from "@topgun/core/Protocol"
import * as Value from "@topgun/core/Value"
import { randomBytes } from "node:crypto"
import * as path from "node:path"
import { contestants } from "./contestants.mjs"
import { startProgram, startServer } from "./processes.mjs"
import { check, keyOf, recordOf } from "./records.mjs"

const range = (from, count) => Array.from({ length: count }, (_, i) => from + i)

// --- TopGun ---

/** Far above what the load comes to: what one address may do is no subject here, but it is counted all the same. */
const limits = {
  TOPGUN_CONNECTIONS_PER_ADDRESS_MAX: "1000000",
  TOPGUN_CONNECTS_PER_SECOND: "1000000",
  TOPGUN_UNAUTHENTICATED_MAX: "1000000",
  TOPGUN_UNAUTHENTICATED_PER_ADDRESS_MAX: "1000000",
  TOPGUN_OPERATIONS_PER_SECOND: "1000000000",
  TOPGUN_OPERATIONS_BURST: "1000000000"
}

/** A server for many clients at one address. */
export const startCrowded = (environment, options) => startServer({ ...limits, ...environment }, options)

let devices = 0
/** A node id that no other connection of any load process has. */
const makeNodeId = () => `${process.pid.toString(36)}n${(devices++).toString(36)}`.padStart(16, "0")

const ping = Protocol.encode({ _tag: "Ping", id: 0 })

const topgunWith = (name, concern) => ({
  name,
  start: (options) => startCrowded({ TOPGUN_STORAGE: "memory" }, options),
  address: (url) => `${url}/ws`,
  acknowledges: true,
  /** Sends who it is and which map it follows, one after the other. */
  enter: async (send, next, room) => {
    send(Protocol.encode({
      _tag: "Auth",
      protocol: Protocol.version,
      nodeId: makeNodeId(),
      secret: null,
      token: null,
      confirmed: null
    }))
    check(Protocol.decodeFromServer(await next())[0]._tag === "AuthAck", "the client is let in")
    send(Protocol.encode({ _tag: "SyncInit", id: 1, map: room, kind: "lww", root: new Uint8Array(8), cursor: null }))
    check(Protocol.decodeFromServer(await next())[0]._tag === "SyncRoot", "the map is open")
  },
  ping,
  /**
   * Makes a room's frames of `each` records, one after the other, of so many keys, over and over. Values are records, or so
   * many bytes that can't be deflated.
   */
  makeWriter: async (room, each, { bytes, keys }) => {
    const value = bytes === undefined ? recordOf : () => new Uint8Array(randomBytes(bytes))
    const nodeId = makeNodeId()
    let written = 0
    return () => {
      const millis = Date.now()
      const ops = range(written, each).map((n) => [
        n,
        keyOf(n % keys),
        LwwRecord.put({ millis, counter: n % 65_536, nodeId }, Value.encode(value(n))).row
      ])
      written += each
      return Protocol.encode({ _tag: "OpBatch", map: room, kind: "lww", concern, atomic: "no", ops })
    }
  },
  read: (frame) => {
    let records = 0
    let acknowledged = 0
    for (const message of Protocol.decodeFromServer(frame)) {
      if (message._tag === "ServerEvent") records += message.records.length
      else if (message._tag === "OpAck") acknowledged += message.sequences.length
      else check(message._tag === "Pong" || message._tag === "Durable", `the server says ${message._tag}`)
    }
    return { records, acknowledged }
  }
})

const topgun = topgunWith("TopGun", "APPLIED")

/** TopGun as clients see it that wait until what they write is on the disk. */
export const persisting = topgunWith("TopGun, PERSISTED", "PERSISTED")

/** Writers of a contestant whose replica makes the frames: one does for all rooms, each of which gets the same. */
const recording = (record) => {
  const recorded = new Map()
  return async (_, each, { keys }) => {
    const form = `${each} of ${keys}`
    if (!recorded.has(form)) recorded.set(form, record(keys))
    const { frames, write } = await recorded.get(form)
    let at = 0
    return async () => {
      if (at === frames.length) {
        await write(range(at * each, each))
        check(frames.length === at + 1, "one transaction is one frame")
      }
      return frames[at++]
    }
  }
}

// --- ws alone ---

const relay = {
  name: "ws alone",
  start: (options) =>
    startProgram(path.join(import.meta.dirname, "relay.mjs"), (port) => ({ PORT: String(port) }), "/", options),
  address: (url, room) => `${url}/${room}`,
  enter: async () => {},
  // The same bytes as TopGun's: what differs is what is done with them.
  makeWriter: topgun.makeWriter,
  read: (_, each) => ({ records: each })
}

// --- yjs ---

const optional = async (name) => {
  try {
    return await import(name)
  } catch {
    return undefined
  }
}
const yjs = await optional("yjs")

const varUint = (number) => number < 0x80 ? [number] : [number & 0x7f | 0x80, ...varUint(number >>> 7)]
const SYNC = 0
const STEP_2 = 1
const UPDATE = 2

const yWebsocket = {
  name: "yjs + y-websocket",
  start: contestants.find(({ name }) => name === "yjs + y-websocket")?.start,
  address: (url, room) => `${url}/${room}`,
  enter: async (send, next) => {
    // Step 1 of a document that has nothing; the server begins with a step 1 of its own.
    send(Uint8Array.of(SYNC, 0, 1, 0))
    for (;;) {
      const [type, step] = await next()
      if (type === SYNC && step === STEP_2) return
    }
  },
  makeWriter: recording(async (keys) => {
    const frames = []
    const doc = new yjs.Doc()
    const map = doc.getMap("m")
    doc.on("update", (update) => frames.push(Uint8Array.of(SYNC, UPDATE, ...varUint(update.length), ...update)))
    const write = (numbers) => doc.transact(() => numbers.forEach((n) => map.set(keyOf(n % keys), recordOf(n))))
    return { frames, write }
  }),
  read: ([type, step], each) => ({ records: type === SYNC && step === UPDATE ? each : 0 })
}

// --- tinybase ---

const stores = await optional("tinybase/mergeable-store")
const synchronizers = await optional("tinybase/synchronizers/synchronizer-ws-client")

/** A socket of a synchronizer that goes nowhere: what it would send is kept. */
class Recorder extends EventTarget {
  OPEN = 1
  readyState = 1
  bufferedAmount = 0
  frames = []
  send(frame) {
    this.frames.push(frame)
  }
  close() {}
}

const CONTENT_DIFF = 3
const tinybase = {
  name: "tinybase",
  share: 0.1,
  start: contestants.find(({ name }) => name === "tinybase")?.start,
  address: (url, room) => `${url}/${room}`,
  // The first of a room makes the server ask it for its content, in vain, for as long as its timeout.
  enter: () => new Promise((resolve) => setTimeout(resolve, 3_000)),
  makeWriter: recording(async (keys) => {
    const store = stores.createMergeableStore()
    const recorder = new Recorder()
    const synchronizer = await synchronizers.createWsSynchronizer(store, recorder)
    await synchronizer.startAutoSave()
    // It has asked the others for what they have.
    recorder.frames.length = 0
    // What is written while it saves goes with the next.
    const write = async (numbers) => {
      store.transaction(() => numbers.forEach((n) => store.setRow("t", keyOf(n % keys), recordOf(n))))
      await new Promise((resolve) => setImmediate(resolve))
    }
    return { frames: recorder.frames, write }
  }),
  read: (frame, each) => {
    const text = frame.toString("utf8")
    const [, type] = JSON.parse(text.slice(text.indexOf("\n") + 1))
    return { records: type === CONTENT_DIFF ? each : 0 }
  }
}

/** TopGun, bare `ws`, and the peers that are installed. */
export const plain = [
  topgun,
  relay,
  ...yjs !== undefined && yWebsocket.start !== undefined ? [yWebsocket] : [],
  ...stores !== undefined && tinybase.start !== undefined ? [tinybase] : []
]
