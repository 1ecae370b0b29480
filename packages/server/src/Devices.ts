/**
 * Which storage a node id belongs to. A device's storage may be copied, or put back to what it was: a profile, a virtual
 * machine, a backup. Then two devices would write as one node, with stamps and counts that look like each other's.
 *
 * So a device has a secret, and is given another one at every connection. It shows the one that it has stored: until it has said
 * that it has stored one, that may be any that it was given since the one that it showed, as it may have died first. Who shows an
 * older one is a copy, or what was copied: whichever comes second is told to become another node. (A rotating token, as remembered
 * logins have them: Jaspan 2006.)
 *
 * A secret tells copies apart; it is no credential, which is what tokens are for. Devices are forgotten when the process ends, and
 * those that were away longest when there are many: whoever comes then is believed, and tells itself from its copies again.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import { PCGRandom } from "effect/Utils"

/** Devices that are remembered, at most: some 300 bytes each, 700 with all the secrets that one may have. */
export const devicesMax = 100_000
/** Secrets of one that it may have stored, at most: what it shows, and the last that it was given. */
const secretsMax = 8

/** The devices that this server knows. */
export class Devices extends Context.Tag("@topgun/server/Devices")<Devices, {
  /**
   * Lets a device in by the secret that it has stored, null where it has none: answers the one to store for next time;
   * `undefined` when it isn't that device. A node id is one user's, from when it is known whose.
   */
  readonly enter: (nodeId: string, secret: string | null, userId: string | undefined) => string | undefined
  /** The device has stored the secret that it was given: nothing older lets it in any more. */
  readonly kept: (nodeId: string, secret: string) => void
}>() {}

interface Device {
  readonly userId: string | undefined
  /** What lets it in: what it has shown, or said that it has stored, and what it was given since, in that order. */
  readonly secrets: ReadonlyArray<string | null>
}

const make = (max: number) =>
  Effect.map(Effect.all([Random.nextInt, Random.nextInt]), ([high, low]) => {
    const random = new PCGRandom(high, low)
    const makeSecret = () => [1, 2, 3].map(() => random.integer(2 ** 31).toString(36)).join("-")
    /** Those that were here last come last. */
    const devices = new Map<string, Device>()
    return Devices.of({
      enter: (nodeId, secret, userId) => {
        const known = devices.get(nodeId)
        const shown = known?.secrets.indexOf(secret) ?? 0
        if (shown < 0 || (known?.userId !== undefined && known.userId !== userId)) return undefined
        const given = makeSecret()
        const later = known?.secrets.slice(shown + 1).slice(2 - secretsMax) ?? []
        devices.delete(nodeId)
        devices.set(nodeId, { userId: userId ?? known?.userId, secrets: [secret, ...later, given] })
        if (devices.size > max) devices.delete(devices.keys().next().value!)
        return given
      },
      kept: (nodeId, secret) => {
        const known = devices.get(nodeId)
        const stored = known?.secrets.indexOf(secret) ?? -1
        // In its place: of those who are here none is the one that was away longest.
        if (known !== undefined && stored >= 0) devices.set(nodeId, { ...known, secrets: known.secrets.slice(stored) })
      }
    })
  })

/** The devices in memory, so many at most. */
export const layerOf = (max: number): Layer.Layer<Devices> => Layer.effect(Devices, make(max))

/** The devices in memory, {@link devicesMax} at most. */
export const layer: Layer.Layer<Devices> = layerOf(devicesMax)
