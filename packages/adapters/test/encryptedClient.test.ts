import { assert, describe, it } from "@effect/vitest"
import { encrypted, type EncryptionKey } from "@topgun/adapters/encrypted"
import { indexedDb } from "@topgun/adapters/indexeddb"
import type { StorageAdapter } from "@topgun/core/StorageAdapter"
import * as SimulatedTabs from "@topgun/testing/SimulatedTabs"
import { type Client, type ClientOptions, createClient, StorageKeyRefused } from "@topgun/client/promise"
import "fake-indexeddb/auto"
import { IDBFactory } from "fake-indexeddb"
import { openDB } from "idb"
import { afterEach, beforeEach } from "vitest"

const passphrase = { passphrase: "correct horse battery staple" }
/** Cheap to open with. */
const secret = { secret: new Uint8Array(32).fill(7) }

const clients: Array<Client> = []
const open = (key: EncryptionKey | undefined, options: ClientOptions = {}): Client => {
  const storage = key === undefined ? indexedDb() : encrypted(indexedDb(), key)
  const client = createClient({ storage, onError: () => {}, ...options })
  clients.push(client)
  return client
}

const database = async () => {
  const [{ name }] = await indexedDB.databases() as [{ readonly name: string }]
  return openDB(name)
}

/** All rows that the browser has, and where. */
const stored = async (): Promise<ReadonlyArray<readonly [IDBValidKey, Uint8Array]>> => {
  const connection = await database()
  const [keys, values] = await Promise.all([connection.getAllKeys("rows"), connection.getAll("rows")])
  connection.close()
  return keys.map((key, i) => [key, values[i]])
}

const overwrite = async (key: IDBValidKey, value: Uint8Array): Promise<void> => {
  const connection = await database()
  await connection.put("rows", value, key)
  connection.close()
}

const reasonOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(() => undefined, (fault: unknown) => fault)

describe("A client with encrypted storage", () => {
  beforeEach(() => {
    globalThis.indexedDB = new IDBFactory()
  })
  afterEach(() => Promise.all(clients.splice(0).map((client) => client.close())))

  it("has its data again, and the browser has nothing that can be read", async () => {
    const first = open(passphrase)
    await first.ready()
    await first.map<string>("CanaryMap").set("CanaryKey", "CanaryValue")
    assert.strictEqual(first.status.current.storage.kind, "encrypted indexeddb")
    await first.close()
    const text = (await stored()).map(([key, value]) => String(key) + Buffer.from(value).toString("latin1")).join()
    assert.notMatch(text.replaceAll("\0", ""), /Canary|nodeId|outbox|records/)
    const again = open(passphrase)
    await again.ready()
    assert.strictEqual(again.map<string>("CanaryMap").get("CanaryKey"), "CanaryValue")
    assert.strictEqual(again.status.current.pending, 1)
  })

  it("doesn't open with a wrong key, and nothing is changed", async () => {
    const first = open(passphrase)
    await first.map<number>("m").set("k", 1)
    await first.close()
    const before = await stored()
    const wrong = open({ passphrase: "another" })
    const write = reasonOf(Promise.resolve(wrong.map<number>("m").set("k", 2)))
    const fault = await reasonOf(wrong.ready())
    assert.isTrue(fault instanceof StorageKeyRefused)
    assert.isDefined(await write)
    await wrong.close()
    assert.deepStrictEqual(await stored(), before)
    const again = open(passphrase)
    await again.ready()
    assert.strictEqual(again.map<number>("m").get("k"), 1)
  })

  it("neither opens without encryption what is encrypted, nor encrypts what isn't", async () => {
    const first = open(passphrase)
    await first.map<number>("m").set("k", 1)
    await first.close()
    const before = await stored()
    const plain = open(undefined)
    assert.include(String(await reasonOf(plain.ready())), "unreadable")
    await plain.close()
    assert.deepStrictEqual(await stored(), before)

    globalThis.indexedDB = new IDBFactory()
    const other = open(undefined)
    await other.map<number>("m").set("k", 1)
    await other.close()
    assert.isTrue(await reasonOf(open(passphrase).ready()) instanceof StorageKeyRefused)
    const again = open(undefined)
    await again.ready()
    assert.strictEqual(again.map<number>("m").get("k"), 1)
  })

  it("tells of rows that others have changed: it does without records, and not without what it needs", async () => {
    const first = open(secret)
    const map = first.map<number>("m")
    for (let i = 0; i < 5; i++) await map.set(`k${i}`, i)
    await first.close()
    const rows = (await stored()).filter(([key]) => Array.isArray(key) && key[0] === "rows")
    const outcomes = new Set<string>()
    for (const [key, value] of rows) {
      await overwrite(key, Uint8Array.from(value, (byte, i) => i === value.length - 1 ? byte ^ 1 : byte))
      const faults: Array<unknown> = []
      const client = open(secret, { onError: (fault) => faults.push(fault) })
      const refused = await reasonOf(client.ready())
      const told = refused === undefined ? faults.map(String).join() : String(refused)
      assert.include(told, "unreadable")
      outcomes.add(`${refused === undefined ? "opens" : "refuses"} without ${/"(\w+)/.exec(told)?.[1]}`)
      await client.close()
      await overwrite(key, value)
    }
    assert.deepStrictEqual([...outcomes].sort(), [
      "opens without bases",
      "opens without maps",
      "opens without outbox",
      "opens without records",
      "refuses without meta"
    ])
  })

  it("changes its passphrase while it is in use", async () => {
    const storage = encrypted(indexedDb(), passphrase)
    const client = open(undefined, { storage })
    const map = client.map<number>("m")
    await map.set("k", 1)
    const changed = storage.rotate({ to: { passphrase: "another" }, rows: true })
    await map.set("k", 2)
    await changed
    await client.close()
    assert.isTrue(await reasonOf(open(passphrase).ready()) instanceof StorageKeyRefused)
    const again = open({ passphrase: "another" })
    await again.ready()
    assert.strictEqual(again.map<number>("m").get("k"), 2)
  })

  it("draws no nonce twice, whichever of five tabs leads, dies or is opened anew", async () => {
    const browser = SimulatedTabs.make()
    const nonces: Array<string> = []
    const openTab = async () => {
      const tab = browser.open()
      const inner: StorageAdapter = {
        ...tab.storage,
        commit: (writes) => {
          for (const { space, value } of writes) {
            if (space === "rows" && value !== undefined) nonces.push(Buffer.from(value.subarray(5, 17)).toString("hex"))
          }
          return tab.storage.commit(writes)
        }
      }
      const client = createClient({ storage: encrypted(inner, secret), tabs: tab.tabs, onError: () => {} })
      clients.push(client)
      await client.ready()
      return { tab, client }
    }
    const tabs = await Promise.all(Array.from({ length: 5 }, openTab))
    for (let round = 0; round < 6; round++) {
      for (const [t, { client }] of tabs.entries()) {
        const map = client.map<number>("m")
        await Promise.all(Array.from({ length: 20 }, (_, i) => map.set(`${round} ${t} ${i}`, i)))
      }
      const at = tabs.findIndex(({ client }) => client.status.current.tab === "leader")
      tabs[at]!.tab.kill()
      tabs.splice(at, 1, await openTab())
    }
    assert.strictEqual(tabs[0]!.client.map("m").size, 600)
    assert.isAbove(nonces.length, 1_200)
    assert.strictEqual(new Set(nonces).size, nonces.length)
  })
})
