import { describe, expect, it } from "@effect/vitest"
import { clientOf, placeOf } from "@topgun/server/ClientAddress"
import * as FastCheck from "effect/FastCheck"

describe("placeOf", () => {
  it("takes an IPv6 network of 64 bits for one place, and IPv4 for itself, however it's written", () => {
    expect(placeOf("192.0.2.1")).toBe("192.0.2.1")
    expect(placeOf("::ffff:192.0.2.1")).toBe("192.0.2.1")
    expect(placeOf("::FFFF:c000:0201")).toBe("192.0.2.1")
    expect(placeOf("2001:db8:0:7::1")).toBe(placeOf("2001:0db8::7:ffff:ffff:ffff:ffff"))
    expect(placeOf("2001:db8:0:7::1")).not.toBe(placeOf("2001:db8:0:8::1"))
    expect(placeOf("fe80::1%eth0")).toBe(placeOf("fe80::2"))
    expect(placeOf("::1")).toBe("0:0:0:0::/64")
    expect(placeOf("::")).toBe("0:0:0:0::/64")
    // Not of the mapped prefix: no IPv4 address.
    expect(placeOf("1::ffff:192.0.2.1")).toBe("1:0:0:0::/64")
  })

  it("knows what is no address", () => {
    for (const text of ["", "unknown", "_hidden", "1.2.3", "1.2.3.4.5", "::g", "2001:db8", "localhost"]) {
      expect(placeOf(text), text).toBeUndefined()
    }
  })

  const group = FastCheck.integer({ min: 0, max: 0xffff }).map((value) => value.toString(16))
  const network = FastCheck.array(group, { minLength: 4, maxLength: 4 })
  it.prop("goes by the first 64 bits alone", [network, network, network], ([prefix, one, other]) => {
    expect(placeOf([...prefix, ...one].join(":"))).toBe(placeOf([...prefix, ...other].join(":")))
  })
})

describe("clientOf", () => {
  it("believes no header where no proxy is said to write it", () => {
    expect(clientOf("192.0.2.9", "198.51.100.1", 0)).toBe("192.0.2.9")
  })

  it("believes the nearest proxies, as many as there are, and nothing that the client wrote", () => {
    const header = "203.0.113.66, 198.51.100.1, 192.0.2.2"
    expect(clientOf("192.0.2.3", header, 1)).toBe("192.0.2.2")
    expect(clientOf("192.0.2.3", header, 2)).toBe("198.51.100.1")
    expect(clientOf("192.0.2.3", "evil,,\" ,198.51.100.1", 1)).toBe("198.51.100.1")
  })

  it("understands ports and brackets", () => {
    expect(clientOf("192.0.2.3", "198.51.100.1:4711", 1)).toBe("198.51.100.1")
    expect(clientOf("192.0.2.3", "[2001:db8::1]:4711", 1)).toBe("2001:db8:0:0::/64")
    expect(clientOf("192.0.2.3", "2001:db8::1", 1)).toBe("2001:db8:0:0::/64")
  })

  it("takes a request that came past the proxies for its connection's", () => {
    expect(clientOf("192.0.2.3", undefined, 1)).toBe("192.0.2.3")
    expect(clientOf("192.0.2.3", "198.51.100.1", 2)).toBe("192.0.2.3")
    expect(clientOf("::ffff:192.0.2.3", "unknown", 1)).toBe("192.0.2.3")
  })
})
