/** A page with an encrypted client, for `encrypted.test.ts`: bundled there, it never runs in Node. */
import { encrypted } from "@topgun/adapters/encrypted"
import { indexedDb } from "@topgun/adapters/indexeddb"
import { createClient } from "@topgun/client/promise"

/** What the test calls in the page. It brings every word that is to be kept secret: the page's own files may be kept by the browser. */
export interface EncryptedPage {
  readonly write: (
    passphrase: string | undefined,
    map: string,
    key: string,
    value: string,
    count: number
  ) => Promise<void>
  readonly read: (passphrase: string, map: string, key: string) => Promise<ReadonlyArray<string | undefined>>
}

const open = async (passphrase: string | undefined) => {
  const storage = passphrase === undefined ? indexedDb() : encrypted(indexedDb(), { passphrase })
  const client = createClient({ storage, userId: "alice" })
  await client.ready()
  return client
}

const page: EncryptedPage = {
  write: async (passphrase, map, key, value, count) => {
    const client = await open(passphrase)
    const writes = Array.from({ length: count }, (_, i) => client.map<string>(map).set(`${key}${i}`, `${value}${i}`))
    await Promise.all(writes)
    await client.close()
  },
  read: async (passphrase, map, key) => {
    const client = await open(passphrase)
    const values = [client.map<string>(map).get(`${key}0`), client.map<string>(map).get(`${key}999`)]
    await client.close()
    return values
  }
}

Object.assign(globalThis, { page })
