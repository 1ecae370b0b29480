/** What TopGun is tested with: simulated time, a network to break, laws, suites for drivers, and mutants. */
export * as SimulatedNetwork from "./SimulatedNetwork.ts"
export * as VirtualClock from "./VirtualClock.ts"
export { convergence, laws, type Replicated } from "./laws.ts"
export { type Medium, storageSuite } from "./storageSuite.ts"
