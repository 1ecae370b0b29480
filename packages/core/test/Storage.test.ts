import { assert, describe, it } from "@effect/vitest"
import * as Storage from "../src/Storage.ts"
import { storageSuite } from "@topgun/testing/storageSuite"
import { Effect, Exit, Scope } from "effect"

storageSuite("memory", () => {
  const adapter = Storage.memory()
  return { adapter: () => adapter }
})

const failing = (at: "open" | "scan" | "commit" | "close"): Storage.StorageAdapter => {
  const refuse = () => Promise.reject(new Error(`no ${at}`))
  const driver = Storage.memory()
  return { ...driver, kind: "faulty", [at]: refuse }
}

describe("Storage", () => {
  it.scoped("opens its adapter for the name it is given, and closes it with the scope", () =>
    Effect.gen(function*() {
      const calls: Array<string> = []
      const driver = Storage.memory()
      const adapter: Storage.StorageAdapter = {
        ...driver,
        open: (name) => {
          calls.push(`open ${name}`)
          return driver.open(name)
        },
        close: () => {
          calls.push("close")
          return driver.close()
        }
      }
      const scope = yield* Scope.make()
      const storage = yield* Scope.extend(Storage.make(adapter, "alice"), scope)
      yield* storage.commit([{ space: "s", key: "k", value: Uint8Array.of(1) }])
      assert.deepStrictEqual(yield* storage.scan("s", undefined, 10), [{ key: "k", value: Uint8Array.of(1) }])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(calls, ["open alice", "close"])
    }))

  it.scoped("says which step of its adapter failed, and why", () =>
    Effect.gen(function*() {
      const opening = yield* Effect.flip(Storage.make(failing("open"), "alice"))
      assert.strictEqual(opening._tag, "StorageUnavailable")
      assert.match(opening.message, /faulty could not be opened: no open/)
      const reading = yield* Storage.make(failing("scan"), "alice")
      assert.match((yield* Effect.flip(reading.scan("s", undefined, 1))).message, /faulty could not be read: no scan/)
      const writing = yield* Storage.make(failing("commit"), "alice")
      const refused = yield* Effect.flip(writing.commit([]))
      assert.match(refused.message, /faulty could not be written: no commit/)
      assert.instanceOf(refused.cause, Error)
    }))

  it.effect("ends its scope in peace when its adapter can't be closed", () =>
    Effect.scoped(Effect.asVoid(Storage.make(failing("close"), "alice"))))

  it.scoped("is new for each build of the layer in memory", () =>
    Effect.gen(function*() {
      const opened = Effect.flatMap(Storage.Storage, ({ open }) => open)
      const write = Effect.flatMap(opened, (storage) =>
        Effect.zipRight(
          storage.commit([{ space: "s", key: "k", value: Uint8Array.of(1) }]),
          storage.scan("s", undefined, 10)
        ))
      const read = Effect.flatMap(opened, (storage) => storage.scan("s", undefined, 10))
      assert.strictEqual((yield* Effect.provide(write, Storage.layerMemory)).length, 1)
      assert.strictEqual((yield* Effect.provide(read, Storage.layerMemory)).length, 0)
    }))
})
