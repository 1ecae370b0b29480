import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import type * as ServerConfig from "@topgun/server/ServerConfig"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { CommandFailed } from "../Failure.ts"
import { counted } from "../Figures.ts"
import { Output } from "../Output.ts"

const options = {
  port: Options.integer("port").pipe(
    Options.withPseudoName("NUMBER"),
    Options.withDescription("The port for HTTP and WebSocket; 0 lets the system choose. Default: 8080 (TOPGUN_PORT)."),
    Options.optional
  ),
  host: Options.text("host").pipe(
    Options.withPseudoName("HOST"),
    Options.withDescription("The address to listen at. Default: 127.0.0.1, this machine only (TOPGUN_HOST)."),
    Options.optional
  ),
  dataDir: Options.text("data-dir").pipe(
    Options.withPseudoName("DIRECTORY"),
    Options.withDescription("Where the data is kept. Default: .topgun (TOPGUN_DATA_DIR)."),
    Options.optional
  ),
  storage: Options.choice("storage", ["sqlite", "memory"]).pipe(
    Options.withDescription("memory keeps nothing across a restart. Default: sqlite (TOPGUN_STORAGE)."),
    Options.optional
  ),
  demo: Options.text("demo").pipe(
    Options.withPseudoName("DIRECTORY"),
    Options.withDescription("A built web page to serve along with the grid."),
    Options.optional
  )
}

/** The directory of a page to serve. */
const pageIn = Effect.fnUntraced(function*(directory: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const isThere = yield* Effect.orElseSucceed(fileSystem.exists(path.join(directory, "index.html")), () => false)
  if (isThere) return directory
  return yield* new CommandFailed({
    message: `There is no page in "${directory}": --demo names a directory with an index.html`
  })
})

/** Only those that are given. */
const given = <A extends object>(flags: { readonly [K in keyof A]: Option.Option<A[K]> }): Partial<A> =>
  Object.fromEntries(
    Object.entries<Option.Option<unknown>>(flags).flatMap(([name, flag]) =>
      Option.isSome(flag) ? [[name, flag.value]] : []
    )
  ) as Partial<A>

type Flags = Pick<ServerConfig.Settings, "port" | "host" | "dataDir" | "storage" | "staticDir">

/** The server, until it is interrupted. */
const serve = Effect.fnUntraced(function*(flags: Partial<Flags>) {
  const { print } = yield* Output
  const { ServerConfig, TopGunServer } = yield* Effect.promise(async () => ({
    ServerConfig: await import("@topgun/server/ServerConfig"),
    TopGunServer: await import("@topgun/server/TopGunServer")
  }))
  // That it is ready is printed here; a log of it as well is for those who ask.
  const services = yield* Layer.build(TopGunServer.layerConfig(flags, { logLevel: "warning" }))
  const settings = Context.get(services, ServerConfig.ServerConfig)
  const { address, status } = Context.get(services, TopGunServer.TopGunServer)
  const { maps, storage } = yield* status
  const { host, port } = address ?? settings
  const scheme = address?.scheme === "wss" ? "https" : "http"
  const records = maps.reduce((sum, { size }) => sum + size, 0)
  const where = storage === "memory" ? "data in memory, gone when it stops" : `data in ${settings.dataDir}`
  print(
    `TopGun is ready on ${scheme}://${host.includes(":") ? `[${host}]` : host}:${port} ` +
      `(${where}, ${counted(maps.length, "map")}, ${counted(records, "record")})`
  )
  return yield* Effect.never
})

export const command = Command.make("serve", options, ({ demo, ...flags }) =>
  Effect.gen(function*() {
    const staticDir = yield* Effect.transposeMapOption(demo, pageIn)
    return yield* Effect.scoped(serve(given<Flags>({ ...flags, staticDir })))
  })).pipe(Command.withDescription(
    "Run a server until Ctrl-C. It is configured by TOPGUN_* environment variables; options win over them. With a key to verify " +
      "tokens by, TOPGUN_JWT_SECRET, TOPGUN_JWT_PUBLIC_KEY or TOPGUN_JWKS_URL, it lets nobody in without one, and " +
      "TOPGUN_POLICY_FILE names the JSON file of who may do what. TOPGUN_JWT_SECRET_FILE and TOPGUN_JWT_PUBLIC_KEY_FILE name " +
      "files that the key is in."
  ))
