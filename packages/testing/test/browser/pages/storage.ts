/** The acceptance suite of storage drivers, in a page: IndexedDB as this browser has it. */
import { indexedDb } from "@topgun/adapters/indexeddb"
import { storageCases } from "@topgun/testing/storageCases"

declare global {
  interface Window {
    /** Runs a case in an origin where nothing is stored. Rejects when the driver doesn't do as it says. */
    runStorageCase: (behaviour: string) => Promise<void>
  }
}

const deleted = (name: string): Promise<void> =>
  new Promise((resolve, reject) => {
    const request = indexedDB.deleteDatabase(name)
    request.addEventListener("success", () => resolve())
    request.addEventListener("error", () => reject(request.error))
  })

window.runStorageCase = async (behaviour) => {
  const { run } = storageCases.find((each) => each.behaviour === behaviour)!
  await run(async () => {
    for (const { name } of await indexedDB.databases()) await deleted(name!)
    return { adapter: indexedDb }
  })
}
