import * as Command from "@effect/cli/Command"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { CommandFailed } from "../Failure.ts"
import { counted, figure } from "../Figures.ts"
import { Output } from "../Output.ts"
import * as Parameters from "./parameters.ts"

export const command = Command.make(
  "status",
  { server: Parameters.server, json: Parameters.json },
  ({ json, server }) =>
    Effect.gen(function*() {
      const { print } = yield* Output
      const status = yield* Parameters.withClient(
        server,
        (client) => Effect.mapError(client.serverStatus, ({ message }) => new CommandFailed({ message }))
      )
      if (json) return print(JSON.stringify({ url: server.url, ...status }))
      const { connections, maps, nodeId, storage, uptimeMillis, version } = status
      print(`TopGun ${version} at ${server.url}, node ${nodeId}`)
      print(`up        ${Duration.format(Duration.seconds(Math.floor(uptimeMillis / 1_000)))}`)
      print(`storage   ${storage}`)
      print(`clients   ${figure(connections)}, this command included`)
      print(`maps      ${figure(maps.length)}`)
      const width = Math.max(0, ...maps.map(({ name }) => name.length))
      for (const { name, records, root, size } of maps) {
        const deleted = records === size ? "" : `, ${figure(records - size)} deleted`
        print(`  ${name.padEnd(width)}  ${counted(size, "key")}${deleted}, root ${root}`)
      }
    })
).pipe(Command.withDescription("Print how a server is doing."))
