/** Whether the process has room for more: by its memory, which is looked at now and then, and by the number of records. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import { totalmem } from "node:os"
import { ServerConfig } from "./ServerConfig.ts"

/** Where it's known how much memory there is. */
export class MemoryUse extends Context.Reference<MemoryUse>()("@topgun/server/MemoryUse", {
  defaultValue: () => ({
    /** What the process takes up, in bytes: its resident set, by which an operating system decides whom it kills. */
    usedBytes: (): number => process.memoryUsage.rss(),
    /** What the process may take up, in bytes: what its container has, or the machine. */
    totalBytes: (): number => {
      const constrained = process.constrainedMemory()
      return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem()
    }
  })
}) {}

/** What the server may still take in. */
export class Capacity extends Context.Tag("@topgun/server/Capacity")<Capacity, {
  /** Whether the memory is used up. It isn't any more when a twentieth of it is free again. */
  readonly isFull: () => boolean
  /** How many records there may be. */
  readonly recordsMax: number
}>() {}

/** How often the memory is looked at, in ms: when somebody asks. */
export const lookMillis = 1_000

/** The share of the memory that there is, where no other limit is set: the rest is the operating system's and the cache's. */
const defaultShare = 0.75
/** The share of the limit at which there is room again: not so near that each record freed lets one in. */
const roomShare = 0.95

const mebibytes = (bytes: number): string => `${Math.round(bytes / 1024 / 1024)} MiB`

export const layer: Layer.Layer<Capacity, never, ServerConfig> = Layer.scoped(
  Capacity,
  Effect.gen(function*() {
    const { memoryBytesMax, recordsMax } = yield* ServerConfig
    const memory = yield* MemoryUse
    const bytesMax = memoryBytesMax ?? memory.totalBytes() * defaultShare
    const clock = yield* Effect.clock
    const run = yield* FiberSet.makeRuntime<never, void>()
    let full = false
    let lookedAt = Number.NEGATIVE_INFINITY
    const isFull = (): boolean => {
      const now = clock.unsafeCurrentTimeMillis()
      if (Math.abs(now - lookedAt) < lookMillis) return full
      lookedAt = now
      const used = memory.usedBytes()
      const before = full
      full = used > (full ? bytesMax * roomShare : bytesMax)
      if (full === before) return full
      const share = `${mebibytes(used)} of ${mebibytes(bytesMax)}`
      run(
        full
          ? Effect.logWarning(
            `The memory is used up, ${share}: no new records and connections are accepted. Remove data, or raise TOPGUN_MAX_MEMORY`
          )
          : Effect.logInfo(`There is memory again, ${share} are used`)
      )
      return full
    }
    return Capacity.of({ isFull, recordsMax })
  })
)
