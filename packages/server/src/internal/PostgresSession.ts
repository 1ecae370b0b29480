/** A connection to PostgreSQL: how it is made, asked and thrown away, and what its faults mean. */
import * as Migrator from "@effect/sql/Migrator"
import { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import { Socket } from "node:net"
import * as Pg from "pg"
import { StorageUnavailable } from "@topgun/core/GridError"

// --- What went wrong ---

const isCaused = (fault: unknown): fault is SqlError | Migrator.MigrationError =>
  fault instanceof SqlError || fault instanceof Migrator.MigrationError

/** What pg has thrown, of all that it may be wrapped in. */
const sourceOf = (fault: unknown): unknown =>
  isCaused(fault) && fault.cause !== undefined
    ? sourceOf(fault.cause)
    // One for each of the addresses that a name has.
    : fault instanceof AggregateError && fault.errors.length > 0
    ? fault.errors[0]
    : fault

const codeOf = (fault: unknown): string => {
  const source = sourceOf(fault)
  return typeof source === "object" && source !== null && "code" in source && typeof source.code === "string"
    ? source.code
    : ""
}

export const messageOf = (fault: unknown): string => {
  const source = sourceOf(fault)
  return source instanceof Error ? source.message : String(source)
}

/** The database isn't there yet, or has no room for us just now: it may be soon. */
export const isPassing = (fault: unknown): boolean =>
  /^(E(CONNREFUSED|CONNRESET|NOENT|NOTFOUND|AI_AGAIN|HOSTUNREACH|NETUNREACH|TIMEDOUT|PIPE)|57P0[123]|53300|08...)$/
    .test(codeOf(fault)) || /^Connection terminated|^it doesn't answer/.test(messageOf(fault))

/** Where the database is, without what nobody is to see. */
export interface Place {
  readonly database: string
  readonly user: string
  readonly at: string
}

export const placeOf = (connectionString: string): Place => {
  const { database, host, port, user } = new Pg.Client({ connectionString })
  return { database: database ?? "", user: user ?? "", at: host.startsWith("/") ? host : `${host}:${port}` }
}

/** What names the database. */
export const variable = "TOPGUN_DATABASE_URL"

/** What went wrong with the database, and what mends it. */
export const explain = ({ at, database, user }: Place, cause: unknown): StorageUnavailable => {
  const code = codeOf(cause)
  const message = messageOf(cause)
  const name = `PostgreSQL's database "${database}" at ${at}`
  const reason = /^E(CONNREFUSED|NOENT)$/.test(code)
    ? `nothing answers at ${at} (${code}): start PostgreSQL there, or correct the host and port of ${variable}`
    : /^E(NOTFOUND|AI_AGAIN)$/.test(code)
    ? `the host of ${at} isn't known (${code}): correct ${variable}`
    : code === "28P01" || code === "28000" || /password must be a string/.test(message)
    ? `${name} refuses the user "${user}" (${message}): correct the user and the password in ${variable}, or let the user in ` +
      "(pg_hba.conf)"
    : code === "3D000"
    ? `there is no database "${database}" at ${at}: create it (CREATE DATABASE), or correct ${variable}`
    : code === "42501"
    ? `the user "${user}" hasn't the rights that TopGun needs in ${name} (${message}): GRANT CREATE ON DATABASE, or a schema ` +
      "\"topgun\" that it owns"
    : code === "25006"
    ? `${name} is read-only (${message}): it's a standby, or default_transaction_read_only is on. Name the primary in ${variable}, ` +
      "or turn it off"
    : code === "53300"
    ? `${name} has no connection left (${message}): end some, or raise max_connections`
    : code === "53100"
    ? `the disk of ${name} is full (${message}): make room there`
    : code === "57P03"
    ? `${name} is starting or stopping (${message})`
    : `${name}: ${message}`
  return new StorageUnavailable({ reason, cause: sourceOf(cause) })
}

// --- Sessions ---

/** How long a goodbye may take. */
const closeMillisMax = 1_000

/** A row of what is asked, by columns. */
type Answer = Pg.QueryResultRow

export interface Statement {
  /** Under which it stays prepared. */
  readonly name: string
  readonly text: string
  readonly values: ReadonlyArray<unknown>
}

/** One connection. It is open until something cuts it. */
export interface Session {
  readonly client: Pg.Client
  readonly isOpen: () => boolean
  /** What is asked by `send` goes out in one piece. */
  readonly together: (send: () => void) => void
  /** Throws it away, whatever it is at. */
  readonly destroy: () => void
  /** Ends it; completes when PostgreSQL has let go of it, and of its lock. */
  readonly close: Effect.Effect<void>
}

const int = (text: string): number => Number(text)
const hexadecimal = (text: string): Buffer => Buffer.from(text.slice(2), "hex")

/** How what is selected becomes values. */
const types = {
  getTypeParser: (oid: number) =>
    oid === Pg.types.builtins.BYTEA
      ? hexadecimal
      : oid === Pg.types.builtins.INT4 || oid === Pg.types.builtins.INT8
      ? int
      : oid === Pg.types.builtins.BOOL
      ? (text: string) => text === "t"
      : String
}

export const connect = (connectionString: string, onCut: () => void): Effect.Effect<Session, Error> =>
  Effect.async((resume) => {
    const socket = new Socket()
    const options = {
      connectionString,
      application_name: "topgun",
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      pipeline: true,
      stream: () => socket,
      types
    }
    const client = new Pg.Client(options)
    let open = true
    const cut = () => {
      if (!open) return
      open = false
      onCut()
    }
    client.on("error", cut)
    client.on("end", cut)
    const session: Session = {
      client,
      isOpen: () => open,
      together: (send) => {
        socket.cork()
        send()
        socket.uncork()
      },
      destroy: () => {
        cut()
        socket.destroy()
      },
      close: Effect.async<void>((ended) => {
        cut()
        client.end(() => ended(Effect.void))
      }).pipe(
        Effect.interruptible,
        Effect.timeoutOption(closeMillisMax),
        Effect.zipRight(Effect.sync(() => socket.destroy()))
      )
    }
    client.connect((error: Error | null | undefined) => {
      if (!error) return resume(Effect.succeed(session))
      session.destroy()
      resume(Effect.fail(error))
    })
    return Effect.sync(session.destroy)
  })

export const ask = <A extends Answer>(
  { client }: Session,
  text: string,
  values: ReadonlyArray<unknown> = []
): Effect.Effect<ReadonlyArray<A>, Error> =>
  Effect.async((resume) => {
    client.query<A>({ text, values: [...values] }, (error, result) =>
      resume(error ? Effect.fail(error) : Effect.succeed(result.rows)))
  })

/**
 * All of it or nothing, unless `condition` finds nothing: that is `false`. Fails with the first thing that went wrong, and leaves no
 * transaction open. The statements go out in one piece, COMMIT included, once it's known that there is a transaction: they would
 * be committed one by one without.
 */
export const transact = (
  { client, together }: Session,
  condition: Statement,
  statements: ReadonlyArray<Statement>
): Effect.Effect<boolean, Error> =>
  Effect.async((resume) => {
    let first: Error | undefined
    const note = (error: Error | null) => {
      if (error) first ??= error
    }
    const send = ({ name, text, values }: Statement, answered: (error: Error | null, result: Pg.QueryResult) => void) =>
      client.query({ name, text, values: [...values] }, answered)
    const rollback = () =>
      client.query("ROLLBACK", (error: Error | null) => {
        note(error)
        resume(first === undefined ? Effect.succeed(false) : Effect.fail(first))
      })
    const commit = () => {
      for (const statement of statements) send(statement, note)
      client.query("COMMIT", (error, result) => {
        note(error)
        // That of a transaction which has failed is answered as well, as what it was: a rollback.
        if (first === undefined && result.command !== "COMMIT") first = new Error("the transaction was rolled back")
        resume(first === undefined ? Effect.succeed(true) : Effect.fail(first))
      })
    }
    together(() => {
      client.query("BEGIN ISOLATION LEVEL READ COMMITTED", note)
      send(condition, (error, found) => {
        note(error)
        if (first !== undefined || found.rows.length === 0) rollback()
        else together(commit)
      })
    })
  })
