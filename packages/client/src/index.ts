/** The TopGun client for Effect applications; the Promise form is `@topgun/client/promise`. */
export * as Batch from "./Batch.ts"
export * as ClientConfig from "./ClientConfig.ts"
export * as GridMap from "./GridMap.ts"
export * as Live from "./Live.ts"
export * as NetworkEvents from "./NetworkEvents.ts"
export * as Reports from "./Reports.ts"
export * as SyncState from "./SyncState.ts"
export * as TopGunClient from "./TopGunClient.ts"
