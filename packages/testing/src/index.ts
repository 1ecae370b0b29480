/** What TopGun is tested with: simulated time, a network to break, laws, suites for drivers, and mutants. */
export * as SimulatedTabs from "./SimulatedTabs.ts"
export * as SimulatedNetwork from "./SimulatedNetwork.ts"
export * as VirtualClock from "./VirtualClock.ts"
export * as World from "./World.ts"
export { convergence, laws, type Replicated } from "./laws.ts"
export { type StorageCase, storageCases } from "./storageCases.ts"
export { type Medium, storageSuite } from "./storageSuite.ts"
export { type Mutant, type MutantPlugin, mutantPlugin, mutate } from "./mutants.ts"
