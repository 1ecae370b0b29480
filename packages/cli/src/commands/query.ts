import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import type { GridQuery } from "@topgun/client/GridMap"
import type { QueryChange, QueryState } from "@topgun/client/promise"
import * as Grid from "@topgun/core/Grid"
import * as Query from "@topgun/core/Query"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { CommandFailed, UsageError } from "../Failure.ts"
import { counted } from "../Figures.ts"
import * as Json from "../Json.ts"
import { Output } from "../Output.ts"
import type { Client } from "../Remote.ts"
import * as Parameters from "./parameters.ts"

const whereOption = Options.text("where").pipe(
  Options.withPseudoName("JSON"),
  Options.withDescription("Which records, as a predicate: '{\"done\":false,\"n\":{\"gt\":3}}'. Without it, all."),
  Options.optional
)
const orderOption = Options.text("order-by").pipe(
  Options.withPseudoName("FIELDS"),
  Options.withDescription("What to order by, the most important first: due:desc,title. Without it, by key."),
  Options.optional
)
const limitOption = Options.integer("limit").pipe(
  Options.withPseudoName("NUMBER"),
  Options.withDescription("At most so many."),
  Options.withDefault(100)
)
const cursorOption = Options.text("cursor").pipe(
  Options.withPseudoName("CURSOR"),
  Options.withDescription("Go on where an earlier answer has ended, which has told its cursor."),
  Options.optional
)
const selectOption = Options.text("select").pipe(
  Options.withPseudoName("FIELDS"),
  Options.withDescription("Show these fields only: title,owner.name."),
  Options.optional
)
const textOption = Options.text("search").pipe(
  Options.withPseudoName("TEXT"),
  Options.withDescription(
    "Find this text in the fields that the server has the map searched by, the best matches first."
  ),
  Options.optional
)
const countOption = Options.boolean("count").pipe(
  Options.withDescription("Print how many there are, and nothing else.")
)
const explainOption = Options.boolean("explain").pipe(
  Options.withDescription("Print how the server would answer, and don't have it answered.")
)
const watchOption = Options.boolean("watch").pipe(
  Options.withDescription("Go on with what changes, until Ctrl-C.")
)

const invalid = (message: string): UsageError => new UsageError({ message: `topgun query: ${message}` })

const jsonOf = (option: string, text: string): Effect.Effect<unknown, UsageError> => {
  const parsed = Json.parse(text)
  return "value" in parsed
    ? Effect.succeed(parsed.value)
    : invalid(`${option} is no JSON, at character ${parsed.fault.offset + 1}: ${parsed.fault.reason}`)
}

/** A field of the command line: `points:desc`. */
const orderOf = (text: string): Query.Order =>
  /:(asc|desc)$/.test(text)
    ? { field: text.slice(0, text.lastIndexOf(":")), direction: text.endsWith(":desc") ? "desc" : "asc" }
    : { field: text }

/** What is asked, checked before anybody is: its places are those of a query. */
const parse = (query: Query.Query): Effect.Effect<Query.Query, UsageError> =>
  Effect.try({
    try: () => Query.parse(query),
    catch: (fault) => {
      if (fault instanceof Error && "_tag" in fault) return invalid(fault.message)
      throw fault
    }
  })

/** Waits until the server has answered. */
const answered = (query: GridQuery<unknown>): Effect.Effect<QueryState<unknown>, CommandFailed> =>
  query.watch().pipe(
    Stream.filter(({ isComplete, status }) => isComplete || status === "error"),
    Stream.runHead,
    Effect.map(Option.getOrElse(() => query.current)),
    Effect.filterOrFail(
      ({ error }) => error === undefined,
      ({ error }) => new CommandFailed({ message: error!.message })
    )
  )

const lineOf = (json: boolean, { key, score, value }: QueryState<unknown>["rows"][number]): string => {
  const rendered = Json.render(value)
  if (json) return `{"key":${JSON.stringify(key)},"value":${rendered}${score === undefined ? "" : `,"score":${score}`}}`
  return score === undefined
    ? `${Json.label(key)}\t${rendered}`
    : `${Json.label(key)}\t${score.toFixed(3)}\t${rendered}`
}

const changeOf = (json: boolean, change: QueryChange<unknown>): string => {
  if (change.type !== "leave") return `${json ? "" : `${change.type.padEnd(6)} `}${lineOf(json, change)}`
  return json ? `{"key":${JSON.stringify(change.key)},"removed":true}` : `leave  ${Json.label(change.key)}`
}

/** Runs `use` with what a server is asked: the map isn't downloaded for it. */
const withQuery = <A>(
  server: Parameters.Server,
  map: string,
  use: (client: Client, declaration: Grid.MapDeclaration<unknown>) => Effect.Effect<A, { readonly message: string }>
) =>
  Parameters.withClient(server, (client) =>
    Effect.mapError(
      use(client, Grid.map(map, undefined, { sync: "none" })),
      (fault) => fault instanceof CommandFailed ? fault : new CommandFailed({ message: fault.message })
    ))

/** Prints rows, and where the next ones begin; with `watch` what changes of them, without an end. */
const show = (
  server: Parameters.Server,
  map: string,
  query: Query.Query,
  { json, watch }: { readonly json: boolean; readonly watch: boolean }
) =>
  Effect.gen(function*() {
    const { note, print } = yield* Output
    yield* withQuery(server, map, (client, declaration) =>
      Effect.scoped(Effect.gen(function*() {
        const asked = yield* client.query(declaration, query)
        if (watch) {
          return yield* Stream.runForEach(asked.changes, ({ changes }) =>
            Effect.sync(() => {
              // What went first, and then what came in the query's order.
              const places = new Map(asked.current.rows.map(({ key }, place) => [key, place]))
              const placeOf = ({ key }: QueryChange<unknown>): number => places.get(key) ?? -1
              for (const change of Array.from(changes).sort((x, y) => placeOf(x) - placeOf(y))) {
                print(changeOf(json, change))
              }
            }))
        }
        const { cursor, hasMore, rows } = yield* answered(asked)
        for (const row of rows) print(lineOf(json, row))
        if (rows.length === 0) note("Nothing is found")
        if (hasMore) note(cursor === undefined ? "There are more" : `There are more: --cursor ${cursor}`)
      })))
  })

export const command = Command.make(
  "query",
  {
    map: Parameters.map,
    where: whereOption,
    orderBy: orderOption,
    limit: limitOption,
    cursor: cursorOption,
    select: selectOption,
    text: textOption,
    count: countOption,
    explain: explainOption,
    watch: watchOption,
    server: Parameters.server,
    json: Parameters.json
  },
  ({ count, cursor, explain, json, limit, map, orderBy, select, server, text, watch, where }) =>
    Effect.gen(function*() {
      const { print } = yield* Output
      if ([count, explain, watch].filter((is) => is).length > 1) {
        return yield* invalid("one of --count, --explain and --watch at a time")
      }
      const condition = Option.isNone(where) ? undefined : yield* jsonOf("--where", where.value)
      const query = yield* parse({
        ...condition === undefined ? {} : { where: condition },
        ...Option.isNone(text) ? {} : { search: text.value },
        ...Option.isNone(orderBy) ? {} : { orderBy: orderBy.value.split(",").map(orderOf) },
        limit,
        ...Option.isNone(cursor) ? {} : { cursor: cursor.value },
        ...Option.isNone(select) ? {} : { select: select.value.split(",") }
      } as Query.Query)
      if (count) {
        const found = yield* withQuery(server, map, (client, declaration) => client.count(declaration, query.where))
        return print(String(found))
      }
      if (!explain) return yield* show(server, map, query, { json, watch })
      const explanation = yield* withQuery(server, map, (client) => client.explain(map, query, { server: true }))
      if (json) return print(JSON.stringify(explanation))
      const { candidates, isOrdered, plan, records, steps } = explanation
      print(
        `looks at ${counted(candidates, "record")} of ${counted(records, "record")}${isOrdered ? ", in order" : ""}`
      )
      if (plan === "scan") print("by no index: all records are gone through")
      for (const { by, candidates: found, index } of steps) {
        print(`by ${by} in the ${index.kind} index of ${index.fields.join(", ")}: ${counted(found, "record")}`)
      }
    })
).pipe(Command.withDescription("Print the records of a map that a server finds. The map isn't downloaded for it."))

/** `topgun search MAP TEXT`. */
export const search = Command.make(
  "search",
  {
    map: Parameters.map,
    text: Args.text({ name: "text" }).pipe(
      Args.withDescription("What to find; the last word may be the beginning of one.")
    ),
    limit: Options.integer("limit").pipe(
      Options.withPseudoName("NUMBER"),
      Options.withDescription("The best so many."),
      Options.withDefault(10)
    ),
    watch: watchOption,
    server: Parameters.server,
    json: Parameters.json
  },
  ({ json, limit, map, server, text, watch }) =>
    Effect.flatMap(parse({ search: text, limit }), (query) => show(server, map, query, { json, watch }))
).pipe(Command.withDescription("Print the records of a map that match a text best, with their scores."))
