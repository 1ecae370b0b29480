import { assert, describe, it } from "@effect/vitest"
import { Demo, Side } from "./Demo.ts"

const test = (behaviour: string, run: (demo: Demo) => Promise<void>): void =>
  it(behaviour, async () => {
    const demo = await Demo.open()
    try {
      await run(demo)
      assert.deepStrictEqual(demo.complaints, [])
    } finally {
      await demo.close()
    }
  })

describe("the demo page", () => {
  test("shows on one side what is done on the other", async (demo) => {
    const { alice, bob } = demo
    await alice.add("milk")
    await bob.todo("milk").waitFor()
    await bob.add("<b>bread</b>")
    await alice.todo("<b>bread</b>").waitFor()

    await alice.toggle("milk")
    await bob.doneTodo("milk").waitFor()
    await bob.rename("milk", "oat milk")
    await alice.todo("oat milk").waitFor()
    await alice.remove("<b>bread</b>")
    await bob.todo("<b>bread</b>").waitFor({ state: "detached" })

    await demo.agreed()
    assert.deepStrictEqual(await bob.todos(), [["oat milk", true]])
    assert.strictEqual(await alice.digest(), await bob.digest())
  })

  test("brings both sides together after one was offline while both wrote", async (demo) => {
    const { alice, bob } = demo
    await alice.add("shared")
    await alice.add("deleted by Bob")
    await bob.todo("deleted by Bob").waitFor()
    await demo.agreed()

    await bob.switch(false)
    await bob.add("Bob's own")
    await bob.remove("deleted by Bob")
    await bob.rename("shared", "shared, as Bob has it")
    await bob.pending(3)
    // Later, so Alice's text wins over Bob's, and his deletion over nothing.
    await alice.add("Alice's own")
    await alice.rename("shared", "shared, as Alice has it")
    await alice.pending(0)
    assert.deepStrictEqual(await bob.texts(), ["shared, as Bob has it", "Bob's own"])
    assert.notStrictEqual(await alice.digest(), await bob.digest())

    await bob.switch(true)
    await demo.agreed()
    const texts = ["shared, as Alice has it", "Bob's own", "Alice's own"]
    assert.deepStrictEqual(await alice.texts(), texts)
    assert.deepStrictEqual(await bob.texts(), texts)
    assert.strictEqual(await alice.digest(), await bob.digest())
  })

  test("loses nothing over a reload, though a side is offline and has writes waiting", async (demo) => {
    const { alice, bob } = demo
    await alice.add("sent")
    await bob.todo("sent").waitFor()
    await alice.switch(false)
    await alice.add("not sent yet")
    await alice.pending(1)
    await alice.saved()

    await demo.reload()
    await alice.state("DISCONNECTED")
    await alice.pending(1)
    await bob.state("CONNECTED")
    assert.deepStrictEqual(await alice.texts(), ["sent", "not sent yet"])
    assert.deepStrictEqual(await bob.texts(), ["sent"])

    await alice.switch(true)
    await demo.agreed()
    assert.deepStrictEqual(await bob.texts(), ["sent", "not sent yet"])
  })

  test("goes on without the server, is there after a reload, and catches up", async (demo) => {
    const { alice, bob } = demo
    await alice.add("before")
    await bob.todo("before").waitFor()
    await demo.agreed()

    await demo.server.stop()
    await alice.state("BACKOFF")
    await alice.add("meanwhile")
    await alice.saved()
    await demo.reload()
    await alice.pending(1)
    await bob.add("after the reload")
    await bob.pending(1)
    assert.deepStrictEqual(await alice.texts(), ["before", "meanwhile"])
    assert.deepStrictEqual(await bob.texts(), ["before", "after the reload"])

    await demo.server.start()
    await demo.agreed()
    assert.deepStrictEqual(await alice.texts(), ["before", "meanwhile", "after the reload"])
  })

  test("shows the same in a second tab, which goes on by itself when the first is closed", async (demo) => {
    await demo.alice.add("in the first tab")
    const page = await demo.page.context().newPage()
    await page.goto(demo.server.url)
    const second = new Side(page, "alice")
    await second.todo("in the first tab").waitFor()
    await second.add("in the second tab")
    await demo.alice.todo("in the second tab").waitFor()
    await demo.page.close()
    await second.add("alone")
    await second.saved()
    await second.state("CONNECTED")
    await second.pending(0)
    assert.deepStrictEqual(await second.texts(), ["in the first tab", "in the second tab", "alone"])
  })
})
