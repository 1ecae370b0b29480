import { describe, expect, it } from "@effect/vitest"
import * as Protocol from "@topgun/core/Protocol"
import * as RpcServer from "@effect/rpc/RpcServer"
import * as Calls from "@topgun/server/Calls"
import * as ServerConfig from "@topgun/server/ServerConfig"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"
import { batch, inProcessReady, type PlainClient, put } from "./PlainClient.ts"

const encode = (payload: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(payload))

const call = (client: PlainClient, payload: unknown) => client.send({ _tag: "Call", payload: encode(payload) })

const reply = (client: PlainClient) =>
  Effect.map(client.take("Reply"), ({ payload }) => JSON.parse(new TextDecoder().decode(payload)) as never)

const request = (id: string, tag = "Status") => ({ _tag: "Request", id, tag, payload: null, headers: [] })

describe("Calls", () => {
  it.effect("Status tells what the server holds", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* client.send(batch("todos", "APPLIED", 0, [["1", put("milk")], ["2", put("bread")]]))
      yield* client.take("OpAck")
      yield* call(client, request("1"))
      const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
        readonly version: string
      }
      expect(yield* reply(client)).toMatchObject({
        _tag: "Exit",
        requestId: "1",
        exit: {
          _tag: "Success",
          value: { version, connections: 1, storage: "memory", maps: [{ name: "todos", size: 2, records: 2 }] }
        }
      })
    }).pipe(Effect.provide(layer)))

  it.effect("a call that doesn't exist fails, and the calls beside it don't", () =>
    Effect.gen(function*() {
      const client = yield* inProcessReady
      yield* call(client, request("1", "Nonsense"))
      expect(yield* reply(client)).toMatchObject({ _tag: "Defect" })
      yield* call(client, request("2"))
      expect(yield* reply(client)).toMatchObject({ requestId: "2", exit: { _tag: "Success" } })
    }).pipe(Effect.provide(layer)))

  it.effect("a payload that is no message of the tunnel closes the connection with 1007", () =>
    Effect.gen(function*() {
      for (
        const payload of [
          null,
          17,
          [],
          { _tag: "Request", id: 5, tag: "Status", headers: [] },
          { _tag: "Request", id: "5", tag: "Status" },
          { _tag: "Request", id: "5", tag: "Status", headers: [["a"]] },
          { _tag: "Ack", requestId: "x" },
          { _tag: "Other" }
        ]
      ) {
        const client = yield* inProcessReady
        yield* call(client, payload)
        expect((yield* client.closed).code, JSON.stringify(payload)).toBe(Protocol.closeCodes.malformed)
      }
      const client = yield* inProcessReady
      yield* client.send({ _tag: "Call", payload: Uint8Array.of(0xff, 0x00) })
      expect((yield* client.closed).code).toBe(Protocol.closeCodes.malformed)
    }).pipe(Effect.provide(layer)))

  it.scoped("as many calls are open at a time as are allowed; one more is answered that the server is overloaded", () =>
    Effect.gen(function*() {
      const { open } = yield* Calls.Calls
      const server = yield* RpcServer.Protocol
      const reached: Array<unknown> = []
      yield* Effect.forkScoped(server.run((_, message) => Effect.sync(() => reached.push(message))))
      yield* Effect.yieldNow()
      const replies: Array<unknown> = []
      const caller = open(
        (payload) => replies.push(JSON.parse(new TextDecoder().decode(payload))),
        () => undefined
      )
      for (const id of ["1", "2", "3"]) caller.receive(encode(request(id)))
      yield* Effect.yieldNow()
      expect(reached).toMatchObject([{ id: "1" }, { id: "2" }])
      expect(replies).toMatchObject([{
        requestId: "3",
        exit: { cause: { defect: { message: expect.stringContaining("overloaded") } } }
      }])
      yield* server.send(1, { _tag: "Exit", requestId: "1", exit: { _tag: "Success", value: null } })
      caller.receive(encode(request("4")))
      yield* Effect.yieldNow()
      expect(reached).toMatchObject([{ id: "1" }, { id: "2" }, { id: "4" }])
    }).pipe(Effect.provide(Calls.layer), Effect.provide(ServerConfig.layer({ callsMax: 2 }))))
})

const layer = TopGunServer.layerInProcess()
