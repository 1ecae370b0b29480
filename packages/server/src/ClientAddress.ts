/** From where a request comes, as far as that can be believed, and what counts as one place. Pure. */
import { isIPv4, isIPv6 } from "node:net"

/** The eight groups of an IPv6 address, which has one of the forms of RFC 4291. */
const groupsOf = (address: string): ReadonlyArray<string> => {
  const [head = "", tail] = address.split("::")
  const groups = (text: string) =>
    text === "" ? [] : text.split(":").flatMap((group) => {
      if (!group.includes(".")) return [Number.parseInt(group, 16).toString(16)]
      const [a = 0, b = 0, c = 0, d = 0] = group.split(".").map(Number)
      return [(a * 256 + b).toString(16), (c * 256 + d).toString(16)]
    })
  const before = groups(head)
  if (tail === undefined) return before
  const after = groups(tail)
  return [...before, ...Array.from({ length: 8 - before.length - after.length }, () => "0"), ...after]
}

/**
 * Addresses that one party has at its disposal are one: all of an IPv6 network of 64 bits, which is the least that anybody is
 * given. IPv4 addresses are themselves, also where IPv6 writes them (`::ffff:192.0.2.1`). `undefined` for what is no address.
 */
export const placeOf = (address: string): string | undefined => {
  const [plain = ""] = address.split("%", 1)
  if (isIPv4(plain)) return plain
  if (!isIPv6(plain)) return undefined
  const groups = groupsOf(plain)
  if (groups.slice(0, 5).every((group) => group === "0") && groups[5] === "ffff") {
    const [high = 0, low = 0] = groups.slice(6).map((group) => Number.parseInt(group, 16))
    return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`
  }
  return `${groups.slice(0, 4).join(":")}::/64`
}

/** Some proxies name a port as well: `192.0.2.1:1234`, `[2001:db8::1]:1234`. */
const withoutPort = (text: string): string =>
  /^\[([^\]]*)\](?::\d+)?$|^([^:]+):\d+$/.exec(text)?.slice(1).find(Boolean) ?? text

/**
 * The place of whoever sent a request through so many proxies of ours, each of which has added to `X-Forwarded-For` from whom it
 * got it. What is further left was written by whoever likes: it isn't looked at. Where our proxies haven't written what they
 * should have, the request is the one's who has the connection.
 */
export const clientOf = (remote: string, forwardedFor: string | undefined, proxies: number): string => {
  const entry = proxies === 0 ? undefined : forwardedFor?.split(",").at(-proxies)
  return (entry === undefined ? undefined : placeOf(withoutPort(entry.trim()))) ?? placeOf(remote) ?? remote
}
