/**
 * A backup of a server that goes on serving, in the format of `BackupFile`: what its database holds at one instant, so that what was
 * committed together is in it together.
 *
 * All of the database's records go through here, so they are held to what the database says that its maps come to: a backup of damaged data fails.
 */
import * as BackupFile from "@topgun/core/BackupFile"
import { BackupRefused, StorageUnavailable } from "@topgun/core/GridError"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import { endOfTurn, type Snapshot } from "./GroupCommit.ts"
import { Persistence } from "./Persistence.ts"
import { version } from "./Phase.ts"
import { Tombstones } from "./Tombstones.ts"

/** Backups of this server. */
export class Backup extends Context.Tag("@topgun/server/Backup")<Backup, {
  /**
   * Takes what is committed now, and answers it as bytes that are made when they are asked for, a few milliseconds' worth at a time. Its
   * scope is the backup: there is one at a time. What goes wrong on the way is the last line.
   */
  readonly make: Effect.Effect<Stream.Stream<Uint8Array>, BackupRefused | StorageUnavailable, Scope.Scope>
}>() {}

/** Lines that are made of maps and notes in one go. */
const linesMax = 1_000

/** The text of a backup, piece by piece, and what has become of it. */
class Text {
  readonly #hash = createHash("sha256")
  #lines = 0

  add(lines: ReadonlyArray<string>): Uint8Array {
    const bytes = this.#bytesOf(lines)
    this.#hash.update(bytes)
    this.#lines += lines.length
    return bytes
  }

  end(): Uint8Array {
    return this.#bytesOf([BackupFile.endLine(this.#lines, this.#hash.digest("hex"))])
  }

  fail(reason: string): Uint8Array {
    return this.#bytesOf([BackupFile.failedLine(reason)])
  }

  #bytesOf(lines: ReadonlyArray<string>): Uint8Array {
    return Buffer.from(lines.map((line) => `${line}\n`).join(""), "utf8")
  }
}

/** All lines, some at a time. By the last one it is `done`, and whoever has it may ask for another. */
const write = (header: BackupFile.Header, snapshot: Snapshot, notes: Snapshot["notes"], done: Effect.Effect<void>) => {
  const text = new Text()
  const tally = new BackupFile.Tally()
  const pieces = function*(): Generator<ReadonlyArray<string>> {
    const lines = [BackupFile.headerLine(header)]
    for (const { kind, map } of snapshot.maps) {
      tally.addMap(map)
      lines.push(BackupFile.mapLine(map, kind))
      if (lines.length >= linesMax) yield lines.splice(0)
    }
    for (const [space, ofSpace] of notes) {
      for (const [key, value] of ofSpace) {
        lines.push(BackupFile.noteLine(space, key, value))
        if (lines.length >= linesMax) yield lines.splice(0)
      }
    }
    yield lines.splice(0)
  }
  const small = Stream.fromIterable({ [Symbol.iterator]: pieces })
  const records = Stream.repeatEffectOption(Effect.flatMap(
    Effect.mapError(snapshot.next, Option.some),
    (stored) => {
      if (stored.length === 0) return Effect.fail(Option.none())
      return Effect.try({
        try: () =>
          stored.map(({ age, cell, kind, map, row }) => {
            tally.add(map, cell, row)
            return BackupFile.recordLine(map, kind, cell, row, age)
          }),
        catch: (cause) => Option.some(new StorageUnavailable({ reason: "a record of the database is damaged", cause }))
      })
    }
  ))
  const sums = Stream.fromIterableEffect(Effect.suspend(() => {
    const lines: Array<string> = []
    for (const { map, totals } of snapshot.maps) {
      const fault = totals === undefined ? undefined : tally.faultOf(map, totals)
      if (fault !== undefined) {
        return new StorageUnavailable({ reason: `the database isn't what was stored: ${fault}` })
      }
      lines.push(BackupFile.totalsLine(map, tally.of(map)))
    }
    return Effect.succeed(lines)
  })).pipe(Stream.rechunk(linesMax), Stream.chunks, Stream.map(Chunk.toReadonlyArray))
  const body = Stream.concat(Stream.concat(small, records), sums).pipe(
    Stream.map((lines) => text.add(lines)),
    // Between any two of them others get their turn.
    Stream.mapEffect((bytes) => Effect.as(endOfTurn, bytes))
  )
  return Stream.concat(body, Stream.fromEffect(Effect.map(done, () => text.end()))).pipe(
    Stream.catchAll((failure) =>
      Stream.fromEffect(
        Effect.logError("A backup broke off", failure).pipe(
          Effect.zipRight(done),
          Effect.map(() => text.fail(failure.message))
        )
      )
    )
  )
}

export const layer: Layer.Layer<Backup, never, Persistence | Tombstones> = Layer.scoped(
  Backup,
  Effect.gen(function*() {
    const persistence = yield* Persistence
    const tombstones = yield* Tombstones
    const clock = yield* Effect.clock
    /** The one that is being made. */
    let current: Scope.CloseableScope | undefined
    const end = (scope: Scope.CloseableScope) =>
      Effect.ensuring(
        Scope.close(scope, Exit.void),
        Effect.sync(() => {
          if (current === scope) current = undefined
        })
      )
    // Nobody waits for whoever doesn't read on.
    yield* Effect.addFinalizer(() => Effect.suspend(() => current === undefined ? Effect.void : end(current)))
    const enter = Effect.acquireRelease(
      Effect.suspend(() => {
        if (current !== undefined) {
          return new BackupRefused({ reason: "another one is being made: try again when it is done" })
        }
        return Effect.tap(Scope.make(), (made) =>
          Effect.sync(() => {
            current = made
          }))
      }),
      end
    )
    return Backup.of({
      make: Effect.gen(function*() {
        const { snapshot } = persistence
        if (snapshot === undefined) {
          return yield* new BackupRefused({
            reason:
              `the server keeps its data in ${persistence.kind} and loses all of it when it stops: give it another storage`
          })
        }
        const scope = yield* enter
        const at = clock.unsafeCurrentTimeMillis()
        const taken = yield* Scope.extend(snapshot, scope)
        // Nothing in it came later.
        const age = tombstones.age()
        // The age is kept now and then: this is what it is.
        const { key, space, value } = tombstones.ageNote()
        const notes = new Map(taken.notes).set(space, new Map([[key, value!]]))
        yield* Effect.logInfo("A backup is being made")
        const { generation, kind } = persistence
        return write({ by: `TopGun ${version}`, at, storage: kind, generation, age }, taken, notes, end(scope))
      })
    })
  })
)
