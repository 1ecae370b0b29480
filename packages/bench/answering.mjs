/** The other end of `startOther` in `processes.mjs`: carries out what the parent asks for, by name, until the parent is gone. */
export const answer = (commands) => {
  process.on("message", async ({ args, id, name }) => {
    try {
      process.send({ id, value: await commands[name](...args) })
    } catch (fault) {
      process.send({ id, fault: fault?.stack ?? String(fault) })
    }
  })
  process.on("disconnect", () => process.exit())
}
