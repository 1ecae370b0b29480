/** The server as a program, configured by `TOPGUN_*` environment variables. Exits with 78 when they can't be used. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TopGunServer from "./TopGunServer.ts"

NodeRuntime.runMain(
  Layer.launch(TopGunServer.layerConfig()).pipe(
    Effect.tapError(({ message }) => Console.error(message)),
    Effect.catchTag("ConfigInvalid", () => Effect.sync(() => process.exitCode = 78))
  ),
  { disableErrorReporting: true, disablePrettyLogger: true }
)
