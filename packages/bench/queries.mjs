/**
 * Live queries beside TanStack DB, RxDB and TinyBase, in the same run: CPU time of this process. What is shown at the end is verified
 * against a plain evaluation, outside of what is measured. Run with `npm run bench:queries [-- contestant…]`.
 *
 * - **top 50**: the first 50 of half of {@link count} records by a number; single records are changed at random, each by itself, and after each
 *   the result is up to date. *First*: how long the first result takes, without and with an index of the number.
 * - **10,000 queries**: live queries `owner = x` over the same records; single records are changed at random, and now and then get another owner.
 * - **100 subscribers** of one query: what a change costs more than with one.
 * - **Parts**: what upkeep of indexes, a scan and looking up cost by themselves.
 */
import { createClient } from "@topgun/client/promise"
import * as Grid from "@topgun/core/Grid"
import { LiveQueries } from "@topgun/core/LiveQueries"
import { LwwMap } from "@topgun/core/LwwMap"
import * as Query from "@topgun/core/Query"
import * as Value from "@topgun/core/Value"
import * as os from "node:os"
import { check, count, keyOf, median } from "./records.mjs"

const rounds = 3
const owners = 10_000
const limit = 50

const recordOf = (n, rank = (n * 7_919) % count, owner = n % owners) => ({
  id: n,
  title: `what is to be done, number ${n}`,
  done: n % 2 === 0,
  rank,
  owner: `owner${owner}`
})

/** Which record is changed at a step, and to which rank: the same for all. */
const changedAt = (step) => (step * 104_729) % count
const rankAt = (step) => (step * 31_337) % count

const cpuMicros = () => {
  const { system, user } = process.cpuUsage()
  return system + user
}
/** The CPU time of something, in µs. */
const timed = async (run) => {
  const before = cpuMicros()
  await run()
  return cpuMicros() - before
}

const topOf = (records) =>
  Array.from(records.values()).filter(({ done }) => done).sort((a, b) =>
    a.rank - b.rank || (keyOf(a.id) < keyOf(b.id) ? -1 : 1)
  )
    .slice(0, limit).map(({ id }) => keyOf(id))

// --- Contestants: a store of records, and a live query of it ---------------------------------------------------------

const where = { done: true }
const orderBy = [{ field: "rank" }]

/** Core's parts by themselves: a map of records and its queries, as server and client have them. */
const engine = {
  name: "TopGun, engine",
  updates: 200_000,
  open: (indexes = []) => {
    const map = new LwwMap({ now: () => 1_000 })
    const queries = new LiveQueries({
      source: {
        get: (key) => map.get(key),
        parts: 1,
        visit: (_, visitor) => map.forEach(visitor),
        find: (_, fields, isWanted, take) => map.find(fields, isWanted, take),
        size: () => map.recordCount
      },
      indexes: indexes.map((field) => ({ fields: [field], kind: "sorted" }))
    })
    let millis = 1
    const set = (n, record) => {
      const key = keyOf(n)
      map.set(key, Value.encodeTransient(record), { millis: millis++, counter: 0, nodeId: "bench00000000000" })
      queries.set(key, map.get(key))
      queries.flush()
    }
    return {
      load: (records) => records.forEach((record) => set(record.id, record)),
      set,
      query: (asked) => {
        const [live] = queries.ask(Query.parse(asked), () => {})
        queries.settle()
        return { keys: () => live.rows.map(({ key }) => key) }
      },
      close: () => {}
    }
  }
}

const topgun = {
  name: "TopGun, client",
  updates: 50_000,
  open: async (indexes = []) => {
    const Records = Grid.map("records", undefined, { indexes })
    const client = createClient({ grid: [Records], autoConnect: false, backpressure: { capacity: 10_000_000 } })
    await client.ready()
    const map = client.map(Records)
    const set = (n, record) => void map.set(keyOf(n), record)
    return {
      load: async (records) => {
        for (const [i, record] of records.entries()) {
          set(record.id, record)
          // The journal's turn, as an application gives it.
          if (i % 1_000 === 999) await new Promise(setImmediate)
        }
      },
      set,
      turn: () => new Promise(setImmediate),
      query: (asked) => {
        const handle = client.query(Records, asked)
        return { keys: () => handle.current.rows.map(({ key }) => key) }
      },
      close: () => client.close()
    }
  }
}

const tanstack = {
  name: "TanStack DB",
  updates: 5_000,
  open: async () => {
    const { createCollection, createLiveQueryCollection, eq, localOnlyCollectionOptions } = await import("@tanstack/db")
    const collection = createCollection(
      localOnlyCollectionOptions({ id: `c${Math.random()}`, getKey: ({ id }) => keyOf(id) })
    )
    return {
      load: (records) => void collection.insert(records),
      set: (n, record) => void collection.update(keyOf(n), (draft) => Object.assign(draft, record)),
      turn: () => new Promise(setImmediate),
      query: async ({ where: condition }) => {
        const [[field, value]] = Object.entries(condition)
        const live = createLiveQueryCollection({
          startSync: true,
          query: (q) => {
            const found = q.from({ r: collection }).where(({ r }) => eq(r[field], value))
            return field === "done" ? found.orderBy(({ r }) => r.rank).limit(limit) : found
          }
        })
        await live.preload()
        live.subscribeChanges(() => {})
        return { keys: () => live.toArray.map(({ id }) => keyOf(id)) }
      },
      close: () => {}
    }
  }
}

const rxdb = {
  name: "RxDB",
  updates: 1_000,
  open: async (indexes = []) => {
    const { createRxDatabase } = await import("rxdb")
    const { getRxStorageMemory } = await import("rxdb/plugins/storage-memory")
    const database = await createRxDatabase({
      name: `q${Math.random()}`,
      storage: getRxStorageMemory(),
      multiInstance: false
    })
    const schema = {
      version: 0,
      primaryKey: "key",
      type: "object",
      properties: {
        key: { type: "string", maxLength: 20 },
        id: { type: "number" },
        title: { type: "string" },
        done: { type: "boolean" },
        rank: { type: "number", minimum: 0, maximum: count, multipleOf: 1 },
        owner: { type: "string", maxLength: 20 }
      },
      required: ["key", "rank", "owner", "done"],
      indexes: indexes.map((field) => [field])
    }
    const { records } = await database.addCollections({ records: { schema } })
    return {
      load: (all) => records.bulkInsert(all.map((record) => ({ key: keyOf(record.id), ...record }))),
      set: (n, record) => records.bulkUpsert([{ key: keyOf(n), ...record }]),
      turn: () => new Promise(setImmediate),
      query: async (asked) => {
        const found = records.find({
          selector: Object.fromEntries(Object.entries(asked.where).map(([field, value]) => [field, { $eq: value }])),
          ...asked.orderBy === undefined ? {} : { sort: [{ rank: "asc" }], limit }
        })
        let rows = []
        await new Promise((resolve) =>
          found.$.subscribe((documents) => {
            rows = documents
            resolve()
          })
        )
        return { keys: () => rows.map(({ key }) => key) }
      },
      close: () => database.close()
    }
  }
}

const tinybase = {
  name: "TinyBase",
  updates: 500,
  open: async () => {
    const { createQueries, createStore } = await import("tinybase")
    const store = createStore()
    const queries = createQueries(store)
    let last = 0
    return {
      load: (records) =>
        store.transaction(() => {
          for (const record of records) store.setRow("records", keyOf(record.id), record)
        }),
      set: (n, record) => void store.setRow("records", keyOf(n), record),
      query: (asked) => {
        const id = `q${last++}`
        const [[field, value]] = Object.entries(asked.where)
        queries.setQueryDefinition(id, "records", ({ select, where: and }) => {
          select("rank")
          and(field, value)
        })
        let keys = []
        const read = () => {
          keys = asked.orderBy === undefined
            ? queries.getResultRowIds(id)
            : queries.getResultSortedRowIds(id, "rank", false, 0, limit)
        }
        read()
        if (asked.orderBy === undefined) queries.addResultTableListener(id, read)
        else queries.addResultSortedRowIdsListener(id, "rank", false, 0, limit, read)
        return { keys: () => keys }
      },
      close: () => {}
    }
  }
}

const contestants = [engine, topgun, tanstack, rxdb, tinybase]
const wanted = process.argv.slice(2)
const chosen = contestants.filter(({ name }) =>
  wanted.length === 0 || wanted.some((word) => name.toLowerCase().includes(word))
)

// --- Scenarios -------------------------------------------------------------------------------------------------------

const all = Array.from({ length: count }, (_, n) => recordOf(n))
/** Every so many steps the writer gives up the processor. */
const turnEvery = 200

const changes = async (store, records, steps, ownerAt = () => undefined) => {
  for (let step = 0; step < steps; step++) {
    const n = changedAt(step)
    const record = recordOf(n, rankAt(step), ownerAt(n, step))
    records.set(n, record)
    const writing = store.set(n, record)
    if (writing !== undefined) await writing
    if (store.turn !== undefined && step % turnEvery === turnEvery - 1) await store.turn()
  }
}

const topFifty = async ({ open, updates }) => {
  const store = await open()
  await store.load(all)
  const records = new Map(all.map((record) => [record.id, record]))
  let live
  const first = await timed(async () => {
    live = await store.query({ where, orderBy, limit })
    live.keys()
  })
  const micros = await timed(async () => {
    await changes(store, records, updates)
    live.keys()
  })
  await store.turn?.()
  check(JSON.stringify(live.keys()) === JSON.stringify(topOf(records)), "the first fifty")
  await store.close()
  return { first: first / 1_000, micros: micros / updates }
}

const firstByIndex = async ({ open }) => {
  const store = await open(["rank"])
  await store.load(all)
  const firsts = []
  for (let i = 0; i < 20; i++) {
    firsts.push(await timed(async () => (await store.query({ where, orderBy, limit: limit + i })).keys()))
  }
  await store.close()
  return median(firsts) / 1_000
}

const manyQueries = async ({ open, updates }, queries) => {
  const store = await open(["owner"])
  await store.load(all)
  const records = new Map(all.map((record) => [record.id, record]))
  const ownerAt = (n, step) => step % 10 === 0 ? (n + step) % owners : undefined
  const without = await timed(() => changes(store, records, updates, ownerAt))
  const live = []
  const asking = await timed(async () => {
    for (let i = 0; i < queries; i++) live.push(await store.query({ where: { owner: `owner${i % owners}` } }))
  })
  const micros = await timed(() => changes(store, records, updates, ownerAt))
  await store.turn?.()
  for (let i = 0; i < queries; i += 97) {
    const owned = Array.from(records.values()).filter(({ owner }) => owner === `owner${i % owners}`).map(({ id }) =>
      keyOf(id)
    )
    check(JSON.stringify(live[i].keys().toSorted()) === JSON.stringify(owned.toSorted()), `the records of owner ${i}`)
  }
  await store.close()
  return { asking: asking / queries, micros: micros / updates, without: without / updates }
}

const subscribers = async ({ open, updates }, asked) => {
  const store = await open()
  await store.load(all)
  const records = new Map(all.map((record) => [record.id, record]))
  for (let i = 0; i < asked; i++) await store.query({ where, orderBy, limit })
  const micros = await timed(() => changes(store, records, updates))
  await store.close()
  return micros / updates
}

const parts = () => {
  const map = new Map(all.map((record) => [keyOf(record.id), record]))
  const source = {
    get: (key) => map.get(key),
    parts: 1,
    visit: (_, visitor) => map.forEach((record, key) => visitor(key, record)),
    size: () => map.size
  }
  const changed = Array.from({ length: count }, (_, step) => [
    keyOf(changedAt(step)),
    recordOf(changedAt(step), rankAt(step), step % owners)
  ])
  const upkeep = (kind, field) => {
    const queries = new LiveQueries({ source, indexes: [{ fields: [field], kind }] })
    for (const [key, record] of map) queries.indexes.set(key, record)
    const before = cpuMicros()
    for (const [key, record] of changed) queries.indexes.set(key, record)
    return (cpuMicros() - before) / changed.length
  }
  const scan = () => {
    const queries = new LiveQueries({ source })
    const asked = Query.parse({ where: { rank: { gt: count } } })
    const before = cpuMicros()
    for (let i = 0; i < 10; i++) {
      const counting = queries.counting(asked)
      while (counting.next().done !== true) { /* on */ }
    }
    return 10 * count / (cpuMicros() - before)
  }
  const subscribe = () => {
    const queries = new LiveQueries({ source, indexes: [{ fields: ["owner"], kind: "hash" }] })
    for (const [key, record] of map) queries.indexes.set(key, record)
    const before = cpuMicros()
    for (let i = 0; i < 1_000; i++) {
      queries.ask(Query.parse({ where: { owner: `owner${i}` } }), () => {})
      queries.settle()
    }
    return (cpuMicros() - before) / 1_000
  }
  return { hash: upkeep("hash", "owner"), sorted: upkeep("sorted", "rank"), scan: scan(), subscribe: subscribe() }
}

// --- The run ---------------------------------------------------------------------------------------------------------

const show = (value, unit) =>
  `${value < 10 ? value.toFixed(2) : value < 1_000 ? value.toFixed(1) : Math.round(value)} ${unit}`
const repeated = async (run) => {
  const figures = []
  for (let round = 0; round < rounds; round++) figures.push(await run())
  return figures
}
const middle = (figures, of) => median(figures.map(of))

console.log(`${count} records, ${rounds} rounds, medians of CPU time; Node ${process.version}, ${os.cpus()[0].model}\n`)
console.log("live top 50 (where done, orderBy rank)")
for (const contestant of chosen) {
  const figures = await repeated(() => topFifty(contestant))
  const micros = middle(figures, (figure) => figure.micros)
  const indexed = contestant.name.startsWith("TopGun") ? `, by index ${show(await firstByIndex(contestant), "ms")}` : ""
  console.log(
    `  ${contestant.name.padEnd(16)} ${show(micros, "µs")} a change, ${Math.round(1e6 / micros)}/s; first ${
      show(middle(figures, ({ first }) => first), "ms")
    }${indexed}`
  )
}
console.log("\nlive queries owner = x")
for (const contestant of chosen) {
  const queries = contestant.name.startsWith("TopGun") ? owners : 100
  const { asking, micros, without } = await manyQueries(contestant, queries)
  console.log(
    `  ${contestant.name.padEnd(16)} ${queries} queries: ${show(micros, "µs")} a change, ${
      show(without, "µs")
    } without any; asked in ${show(asking, "µs")} each`
  )
}
console.log("\n100 subscribers of the top 50")
for (const contestant of chosen.filter(({ name }) => name.startsWith("TopGun"))) {
  console.log(
    `  ${contestant.name.padEnd(16)} ${show(await subscribers(contestant, 1), "µs")} a change with one, ${
      show(await subscribers(contestant, 100), "µs")
    } with 100`
  )
}
const figures = await repeated(parts)
console.log("\nparts of TopGun")
console.log(`  hash index      ${show(middle(figures, ({ hash }) => hash), "µs")} a change`)
console.log(`  sorted index    ${show(middle(figures, ({ sorted }) => sorted), "µs")} a change`)
console.log(`  scan            ${show(middle(figures, ({ scan }) => scan), "million records a second")}`)
console.log(`  subscribe       ${show(middle(figures, ({ subscribe }) => subscribe), "µs")} by an indexed equality`)
process.exit(0)
