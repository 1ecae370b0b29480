/**
 * A load process of `gateway.mjs`: many plain clients of one contestant (`plain.mjs`). It never runs further ahead of the
 * slowest than it is told, so that what it measures is the server's work and not a queue.
 */
import { WebSocket } from "ws"
import { answer } from "./answering.mjs"
import { persisting, plain } from "./plain.mjs"
import { check } from "./records.mjs"

/** Connections that are being opened at a time. */
const opening = 50
/** How often each client says that it is there, in ms. */
const pingMillis = 4_000

const contestantOf = (name) => [...plain, persisting].find((each) => each.name === name)

let contestant
let rooms = []
const sockets = new Set()
let asleep

/** A connection that follows a room; `onFrame` gets what comes from then on. */
const enter = async (url, room, onFrame) => {
  const socket = new WebSocket(contestant.address(url, room), { perMessageDeflate: false })
  sockets.add(socket)
  const early = []
  let taken = () => {}
  let listener = (frame) => {
    early.push(frame)
    taken()
  }
  socket.on("message", (frame) => listener(frame))
  socket.on("close", (code, reason) => {
    if (sockets.delete(socket)) console.error(`closed with ${code} ${reason}`)
  })
  await new Promise((resolve, reject) => {
    socket.once("open", resolve)
    socket.once("error", reject)
  })
  const next = async () => {
    while (early.length === 0) await new Promise((resolve) => taken = resolve)
    return early.shift()
  }
  await contestant.enter((frame) => socket.send(frame), next, room)
  listener = onFrame
  return socket
}

const inTurns = async (tasks) => {
  let at = 0
  await Promise.all(Array.from({ length: Math.min(opening, tasks.length) }, async () => {
    while (at < tasks.length) await tasks[at++]()
  }))
}

/** Calls so often a second, `count` times in all, however late it is. */
const paced = (perSecond, count, call) =>
  new Promise((resolve) => {
    const startedAt = performance.now()
    let at = 0
    const timer = setInterval(() => {
      while (at < count && performance.now() - startedAt >= at * 1_000 / perSecond) call(at++)
      if (at < count) return
      clearInterval(timer)
      resolve(undefined)
    }, 1)
  })

/** How much of what a room's writer sent is wherever it is to come. */
class Room {
  sent = 0
  delivered = 0
  acknowledged = 0
  frames = []
  /** When each record was sent, and how long each took to each subscriber, where that is measured. */
  sentAt = []
  latencies = []
  /** When each record was sent that isn't acknowledged, and how long the others took, where that is measured. */
  unacknowledged = []
  acknowledgements = undefined
  /** Subscribers that don't read, of which nothing is expected. */
  paused = 0
  at = 0
  changed = () => {}

  constructor(name, subscribers) {
    this.name = name
    this.subscribers = subscribers
  }

  async open(url) {
    this.writer = await enter(url, this.name, (frame) => this.#read(frame))
    this.readers = []
    await inTurns(Array.from({ length: this.subscribers }, () => async () => {
      const seen = { records: 0, isPaused: false }
      const socket = await enter(url, this.name, (frame) => this.#read(frame, seen))
      this.readers.push({ socket, seen })
    }))
  }

  async write(each, values) {
    this.each = each
    this.next = await contestant.makeWriter(this.name, each, values)
  }

  async prepare(count) {
    this.frames = []
    this.at = 0
    while (this.frames.length < count) this.frames.push(await this.next())
  }

  #read(frame, seen) {
    const { acknowledged = 0, records } = contestant.read(frame, this.each)
    this.acknowledged += acknowledged
    if (this.acknowledgements !== undefined && acknowledged > 0) {
      const now = performance.now()
      for (const sentAt of this.unacknowledged.splice(0, acknowledged)) this.acknowledgements.push(now - sentAt)
    }
    // What a server echoes to the writer tells nothing.
    if (seen !== undefined && !seen.isPaused) {
      this.delivered += records
      if (this.sentAt.length > 0 && records > 0) {
        const now = performance.now()
        for (let i = 0; i < records; i++) this.latencies.push(now - this.sentAt[seen.records + i])
      }
      seen.records += records
    }
    this.changed()
  }

  send() {
    this.writer.send(this.frames[this.at++])
    this.sent += this.each
  }

  /** Records that were sent and aren't everywhere yet. */
  outstanding() {
    const arrived = this.subscribers > this.paused ? this.delivered / (this.subscribers - this.paused) : this.sent
    const taken = contestant.acknowledges === true ? Math.min(arrived, this.acknowledged) : arrived
    return this.sent - taken
  }

  /** Sends all that is prepared, at most so many records ahead of those that have arrived. */
  drain(ahead) {
    return new Promise((resolve) => {
      this.changed = () => {
        while (this.at < this.frames.length && this.outstanding() + this.each <= ahead) this.send()
        if (this.at < this.frames.length || this.outstanding() > 0) return
        this.changed = () => {}
        resolve(undefined)
      }
      this.changed()
    })
  }

  /** Sends all that is prepared, so many frames a second, whatever has arrived; then waits for all. */
  async pace(perSecond) {
    // A timer that is late makes up for it, so that the rate is what it is said to be.
    await paced(perSecond, this.frames.length - this.at, () => {
      this.sentAt.push(...Array.from({ length: this.each }, () => performance.now()))
      this.send()
    })
    await this.drain(0)
  }
}

const percentiles = (delays) => {
  const inOrder = Float64Array.from(delays).sort()
  const at = (share) => inOrder[Math.min(inOrder.length - 1, Math.floor(inOrder.length * share))]
  return { p50: at(0.5), p99: at(0.99), count: inOrder.length }
}

answer({
  /** Opens rooms, each with a writer of `each` records a frame, of `keys` and of `bytes` if so many, and its subscribers. */
  open: async ({ bytes, contestant: name, each, keys = Infinity, rooms: wanted, url }) => {
    contestant = contestantOf(name)
    const opened = wanted.map(([room, subscribers]) => new Room(room, subscribers))
    await inTurns(opened.map((room) => async () => {
      await room.open(url)
      await room.write(each, { bytes, keys })
    }))
    rooms = [...rooms, ...opened]
    if (contestant.ping === undefined) return
    asleep ??= setInterval(() => sockets.forEach((socket) => socket.send(contestant.ping)), pingMillis)
  },
  /** Opens connections that do nothing but follow a room. */
  crowd: async ({ contestant: name, count, room, url }) => {
    contestant = contestantOf(name)
    await inTurns(Array.from({ length: count }, () => () => enter(url, room, () => {})))
    asleep ??= setInterval(() => sockets.forEach((socket) => socket.send(contestant.ping)), pingMillis)
    check(sockets.size >= count, "all are connected")
  },
  prepare: async (count) => {
    for (const room of rooms) await room.prepare(count)
  },
  /** What is prepared goes through all rooms at once. */
  drain: (ahead) => Promise.all(rooms.map((room) => room.drain(ahead))),
  /** As `drain`, one frame at a time in the first room: how long each took until it was acknowledged, in ms. */
  one: async () => {
    const [room] = rooms
    const delays = []
    while (room.at < room.frames.length) {
      const startedAt = performance.now()
      await new Promise((resolve) => {
        room.changed = () => {
          if (room.outstanding() === 0) resolve(undefined)
        }
        room.send()
      })
      delays.push(performance.now() - startedAt)
    }
    return percentiles(delays)
  },
  /** What is prepared in the first room at a rate; how long each record took to each of its subscribers, in ms. */
  pace: async (perSecond) => {
    const [room] = rooms
    room.sentAt = []
    room.latencies = []
    for (const { seen } of room.readers) seen.records = 0
    await room.pace(perSecond)
    const spread = percentiles(room.latencies)
    room.sentAt = []
    return spread
  },
  /** What is prepared, at a rate in all, one frame of each room after the other: how long each took to be acknowledged, in ms. */
  paceAcknowledged: async (perSecond) => {
    for (const room of rooms) room.acknowledgements = []
    const count = rooms.reduce((sum, { frames }) => sum + frames.length, 0)
    await paced(perSecond, count, (at) => {
      const room = rooms[at % rooms.length]
      room.unacknowledged.push(...Array.from({ length: room.each }, () => performance.now()))
      room.send()
    })
    await Promise.all(rooms.map((room) => room.drain(0)))
    const spread = percentiles(rooms.flatMap(({ acknowledgements }) => acknowledgements))
    for (const room of rooms) room.acknowledgements = undefined
    return spread
  },
  /** The first subscriber of the first room doesn't read any more; nothing is expected of it. */
  pause: () => {
    const [room] = rooms
    room.readers[0].seen.isPaused = true
    room.readers[0].socket.pause()
    room.paused = 1
  },
  close: async () => {
    clearInterval(asleep)
    asleep = undefined
    const open = Array.from(sockets)
    sockets.clear()
    rooms = []
    await Promise.all(open.map((socket) => new Promise((resolve) => socket.once("close", resolve).close())))
  }
})
