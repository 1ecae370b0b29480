import { expect, it } from "@effect/vitest"
import * as TopGunServer from "@topgun/server/TopGunServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { vi } from "vitest"

vi.mock("@effect/opentelemetry/OtlpTracer", () => {
  throw new Error("Cannot find package")
})

it.scoped("A collector without the package that exports to it stops the start, and says what to install", () =>
  Effect.gen(function*() {
    const fault = yield* Effect.flip(Layer.build(TopGunServer.layerInProcess({ otlpUrl: "http://localhost:4318" })))
    expect(fault).toMatchObject({
      _tag: "ConfigInvalid",
      message: expect.stringContaining("npm install @effect/opentelemetry")
    })
    yield* Layer.build(TopGunServer.layerInProcess())
  }))
