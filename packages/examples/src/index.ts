/** Small programs that use TopGun, and the data that its benchmarks import. */
export * as Cities from "./cities.ts"
